"""MNIST, wrapped: find its four files or fetch them, check them, read them.

The reading is TensorFlow's own `tensorflow.examples.tutorials.mnist`. Only
the reading imports TensorFlow; finding, fetching and checking need no package.

`python data.py` does those alone. It ends with 0 when the files are there, with
1 if there is something to mend, and with 3 if no mirror gave what is missing.
"""
import argparse
import functools
import gzip
import hashlib
import http.client
import os
import stat
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zlib

# In the order in which TensorFlow reads them. Bytes and sha256 are those that
# the original site published and its mirrors serve.
FILES = {
    'train-images-idx3-ubyte.gz': (
        9912422,
        '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609'),
    'train-labels-idx1-ubyte.gz': (
        28881,
        '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c'),
    't10k-images-idx3-ubyte.gz': (
        1648877,
        '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6'),
    't10k-labels-idx1-ubyte.gz': (
        4542,
        'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6'),
}
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES
MIRRORS = ('https://storage.googleapis.com/cvdf-datasets/mnist/',
           'https://ossci-datasets.s3.amazonaws.com/mnist/')
FETCH_ERRORS = (OSError, http.client.HTTPException, ValueError)
DATASETS = ('mnist', 'digits')

# In a saved_model; that folder is for what TensorFlow does not read.
SHA256SUMS = os.path.join('assets.extra', 'SHA256SUMS')

VALIDATION_SIZE = 5000  # what TensorFlow's reader sets aside
DIGITS_TRAIN, DIGITS_VALIDATION = 1257, 180  # of 1,797; the rest is the test


class UserError(Exception):
    """What the user can mend; the text is one line that says how."""


class NoMirrorError(UserError):
    """No mirror gave the files that are missing."""


def reports_errors(main):
    """Makes of a script's main one that tells in a line what went wrong.

    The user's errors begin with `error:`; the exit status is then 1, after
    Ctrl-C 130, and else what main returns.
    """
    @functools.wraps(main)
    def reporting(argv=None):
        try:
            return main(argv)
        except UserError as error:
            print('error: %s' % error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print('stopped', file=sys.stderr)
            return 130
        except OSError as error:
            # As a rule stdout: a pipe that nothing reads any more, a full
            # disk. Python flushes it once more as it exits, which would fail
            # again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            print('error: cannot read or write %s (%s): mend that and run again'
                  % (error.filename or 'stdout', error.strerror),
                  file=sys.stderr)
            return 1
    return reporting


def import_tensorflow():
    """Returns the module tensorflow, with all but its errors silenced.

    Raises:
        UserError: it can't be imported or is not 1.15.
    """
    # 2 leaves the C++ side's errors and silences its warnings.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    try:
        import tensorflow as tf
    except Exception as error:  # a protobuf too new raises a TypeError
        found = '%s: %s' % (type(error).__name__, str(error).split('\n')[0])
    else:
        found = 'this is ' + tf.__version__
    if not found.startswith('this is 1.15.'):
        raise UserError(
            'TensorFlow 1.15 is needed (%s): in a Python 3.7, pip install -r '
            'requirements.txt, or use make train' % found)
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    return tf


def read_data_sets(data_dir, dataset='mnist', mirrors=MIRRORS, seed=None):
    """Reads a data set as the tutorial does, with one-hot labels.

    For 'mnist' the four files in data_dir are read, after those that are
    missing were fetched and all were checked (see `find_files`). A line
    `Extracting <path>` a file goes to stdout.

    For 'digits', scikit-learn's 1,797 digits (UCI, 8 x 8) are made to look
    like MNIST's. In the order of `numpy.random.RandomState(0).permutation`,
    which numpy keeps for good, the first 1,257 are the training set, the next
    180 the validation set and the last 360 the test set. They keep no record
    of who wrote what, so a writer's digits are in all three.

    Args:
        data_dir: str, the folder with MNIST's files; not used for 'digits'.
        dataset: 'mnist' or 'digits'.
        mirrors: addresses to fetch from, in turn.
        seed: int or None, for numpy's global generator, which shuffles
            `train`; None draws one.

    Returns:
        A tuple (train, validation, test) of TensorFlow `DataSet`s, MNIST's
        with 55,000, 5,000 and 10,000 examples. Each has `images`, float32
        [n, 784] in [0, 1], `labels`, float64 [n, 10], `num_examples`,
        `next_batch(k)`, which shuffles before every epoch, and
        `epochs_completed`.

    Raises:
        UserError: a file is damaged or can't be fetched, read or written, or
            scikit-learn is not installed.
    """
    if dataset == 'digits':
        return _read_digits(seed)
    find_files(data_dir, mirrors)
    try:
        from tensorflow.examples.tutorials.mnist import input_data
    except ImportError:
        # Not every build ships its examples; they take the reader from here.
        from tensorflow.contrib.learn.python.learn.datasets import (
            mnist as input_data)
    return input_data.read_data_sets(data_dir, one_hot=True, seed=seed,
                                     validation_size=VALIDATION_SIZE)


def _read_digits(seed):
    try:
        from scipy import ndimage
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError('--dataset digits needs scikit-learn: '
                        'pip install scikit-learn==1.0.2')
    import numpy as np
    from tensorflow.contrib.learn.python.learn.datasets import base, mnist
    digits = load_digits()
    boxes = ndimage.zoom(digits.images / 16, (1, 2.5, 2.5), order=1)
    images = np.stack([centre_by_mass(np.rint(255 * box).astype(np.uint8))
                       for box in boxes])[..., np.newaxis]
    labels = np.eye(10)[digits.target]
    parts = np.split(np.random.RandomState(0).permutation(len(images)),
                     [DIGITS_TRAIN, DIGITS_TRAIN + DIGITS_VALIDATION])
    return base.Datasets(*[mnist.DataSet(images[part], labels[part], seed=seed)
                           for part in parts])


def centre_by_mass(box):
    """Lays a digit into an image as MNIST was made.

    There, a digit's box of 20 x 20 was laid into 28 x 28 so that the centre of
    mass of its ink came to the middle (LeCun et al., the MNIST page), which is
    pixel 14 of 0 to 27: it is at 13.5 to 14.5 in all of its 60,000 images.

    Args:
        box: array [height, width], at most 20 x 20; ink is high, paper 0, and
            there is some ink.

    Returns:
        An array [28, 28] of the same dtype. No ink is lost: a box whose mass
        is far off its middle goes no further than to the edge.
    """
    import numpy as np
    image = np.zeros([28, 28], box.dtype)
    mass = box.sum(dtype=float)
    place = []
    for axis, size in enumerate(box.shape):
        centre = box.sum(1 - axis, dtype=float) @ np.arange(size) / mass
        start = int(np.clip(np.rint(14 - centre), 0, 28 - size))
        place.append(slice(start, start + size))
    image[tuple(place)] = box
    return image


def num_train(dataset, data_dir):
    """Returns how many training examples `read_data_sets` will give, an int.

    It looks no further than a header, so as to be quick. A file that is
    missing or no good, which `find_files` will fetch or refuse, counts as
    MNIST's.
    """
    if dataset == 'digits':
        return DIGITS_TRAIN
    path = os.path.join(data_dir, TRAIN_IMAGES)
    images = 0
    if os.path.isfile(path):  # a pipe would have us wait
        try:
            with gzip.open(path) as f:
                _, images = struct.unpack('>2I', f.read(8))
        except (OSError, EOFError, zlib.error, struct.error):
            pass
    return (images if images > VALIDATION_SIZE else 60000) - VALIDATION_SIZE


def fingerprint(dataset, data_dir):
    """Returns the sha256 of the four files that are read, none for 'digits'."""
    return [] if dataset == 'digits' else [
        sha256_of(os.path.join(data_dir, name)) for name in FILES]


def is_mnist(data_dir):
    """Returns whether the four files in data_dir are MNIST's, bit for bit."""
    return fingerprint('mnist', data_dir) == [sha256 for _, sha256
                                              in FILES.values()]


def sha256_of(path):
    """Returns the sha256 of a file, as 64 hexadecimal digits."""
    with open(path, 'rb') as f:
        return hashlib.sha256(f.read()).hexdigest()


def sha256sums(folder):
    """Returns, as `sha256sum` prints it, the sha256 of all files in a folder.

    But for those in assets.extra, where `SHA256SUMS` is.
    """
    names = [os.path.relpath(os.path.join(place, name), folder)
             for place, _, files in os.walk(folder) for name in files]
    return ''.join('%s  %s\n' % (sha256_of(os.path.join(folder, name)), name)
                   for name in sorted(names)
                   if os.path.dirname(name) != os.path.dirname(SHA256SUMS))


def find_files(data_dir, mirrors=MIRRORS):
    """Sees to it that MNIST's four files are in data_dir and can be read.

    What is missing is fetched, whole and with its published sha256 or not at
    all. What is there is the user's: any data set in MNIST's format will do.

    Args:
        data_dir: str, the folder; made if something was fetched.
        mirrors: addresses that the files' names are appended to, tried in
            turn, for a file that fails halfway or with a 5xx twice; none, and
            nothing is fetched.

    Raises:
        NoMirrorError: something is missing that no mirror gave.
        UserError: a file is damaged or does not fit the others, or the folder
            can't be read or written.
    """
    try:
        present = [name for name in FILES if name in os.listdir(data_dir)]
    except FileNotFoundError:
        present = []
    except OSError as error:
        raise UserError('cannot read the folder %s (%s): name another with '
                        '--data_dir' % (data_dir, error.strerror))
    counts = {name: _check_file(os.path.join(data_dir, name))
              for name in present}
    missing = [name for name in FILES if name not in present]
    others = [name for name in present
              if sha256_of(os.path.join(data_dir, name)) != FILES[name][1]]
    if missing:
        # Else another data set's images would get MNIST's labels.
        if others:
            raise UserError(
                '%s has no %s, and what it has is not MNIST\'s (%s): put in '
                'what is missing of the same data set, or delete all to fetch '
                'MNIST' % (data_dir, ', '.join(missing), ', '.join(others)))
        _fetch_files(data_dir, missing, mirrors)
        counts.update({name: _check_file(os.path.join(data_dir, name))
                       for name in missing})
    elif others:
        print('note: these files of %s are not MNIST\'s and are read as they '
              'are: %s' % (data_dir, ', '.join(others)), file=sys.stderr)
    for images, labels, least in ((TRAIN_IMAGES, TRAIN_LABELS,
                                   VALIDATION_SIZE + 1),
                                  (TEST_IMAGES, TEST_LABELS, 1)):
        if counts[images] != counts[labels]:
            raise UserError(
                'in %s, %s has %d labels for the %d images of %s: delete the '
                'wrong one and run again' % (data_dir, labels, counts[labels],
                                             counts[images], images))
        if counts[images] < least:
            raise UserError(
                '%s has %d images where at least %d are needed, %d of them '
                'for validation: delete it and run again'
                % (os.path.join(data_dir, images), counts[images], least,
                   least - 1))


def _check_file(path):
    """Reads a gzipped IDX file to its end; returns how many items it holds."""
    def damaged(why):
        return UserError('%s is damaged (%s): delete it and run again'
                         % (path, why))

    images = path.endswith('images-idx3-ubyte.gz')
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError('%s is not a file: put one in its place, or name '
                            'another folder with --data_dir' % path)
        with gzip.open(path) as f:
            header = struct.Struct('>4I' if images else '>2I')
            head = f.read(header.size)
            if len(head) < header.size:
                raise damaged('it ends in its header')
            magic, count, *shape = header.unpack(head)
            # 0x08 for unsigned bytes, then the number of dimensions.
            if magic != (0x803 if images else 0x801):
                raise damaged('its magic number is %d, not %d'
                              % (magic, 0x803 if images else 0x801))
            if images and shape != [28, 28]:
                raise damaged('its images are %d x %d, not 28 x 28'
                              % tuple(shape))
            size = count * 784 if images else count
            # In pieces, so that a small file that unpacks to gigabytes costs
            # no memory, and none of it past what its header promised.
            seen = 0
            for piece in iter(lambda: f.read(1 << 20), b''):
                seen += len(piece)
                if seen > size:
                    raise damaged('it holds more than the %d items that its '
                                  'header says' % count)
                if not images and max(piece) > 9:
                    raise damaged('it holds the label %d, and labels are 0 to '
                                  '9' % max(piece))
            if seen < size:
                raise damaged('it holds %d bytes where its header says %d'
                              % (seen, size))
            return count
    except (EOFError, zlib.error) as error:
        raise damaged(error)
    except OSError as error:
        if error.errno is None:  # gzip's own, for what is no gzip stream
            raise damaged(error)
        raise UserError('cannot read %s (%s): mend that, or name another '
                        'folder with --data_dir' % (path, error.strerror))


def _fetch_files(data_dir, missing, mirrors):
    missing = list(missing)
    failures = []
    for mirror in mirrors:
        try:
            while missing:
                body = _fetch_twice(mirror, missing[0])
                write_whole(os.path.join(data_dir, missing[0]), body)
                del missing[0]
            return
        except FETCH_ERRORS as error:
            failures.append('%s: %s' % (mirror, _reason(error)))
            print('that failed: ' + _reason(error), file=sys.stderr)
    raise NoMirrorError(
        '%s: put %s into %s, or name the folder that has them'
        % ('could not fetch MNIST (%s)' % '; '.join(failures) if failures
           else 'MNIST is not there', ', '.join(missing), data_dir))


def _fetch_twice(mirror, name):
    """As `fetch`, but what may have been a hiccup of the mirror's is let pass."""
    try:
        return fetch(mirror, name)
    except FETCH_ERRORS as error:
        if isinstance(error, urllib.error.HTTPError):
            hiccup = error.code >= 500
        else:  # other URLErrors: it could not be reached
            hiccup = not isinstance(error, urllib.error.URLError)
        if not hiccup:
            raise
        print('that failed, once more: ' + _reason(error), file=sys.stderr)
    return fetch(mirror, name)


def _reason(error):
    if isinstance(error, urllib.error.HTTPError):
        reason = 'HTTP %d %s' % (error.code, error.reason)
    elif isinstance(error, urllib.error.URLError):
        reason = error.reason
    else:
        reason = error
    return ' '.join((getattr(reason, 'strerror', None)
                     or str(reason) or type(reason).__name__).split())


def fetch(mirror, name, timeout=15, deadline=900):
    """Fetches one of MNIST's files; progress goes to stderr.

    Args:
        mirror: str, the address of the folder.
        name: str, a key of `FILES`.
        timeout: float, seconds to connect, and seconds without a byte.
        deadline: float, seconds for the whole file.

    Returns:
        bytes, the file, whose length and sha256 are those in `FILES`.

    Raises:
        FETCH_ERRORS: it can't be reached, is too slow, or sends something
            else.
    """
    size, sha256 = FILES[name]
    url = mirror.rstrip('/') + '/' + name
    ends = time.monotonic() + deadline
    on_terminal = sys.stderr.isatty()
    print('fetching ' + url, end='' if on_terminal else '\n', file=sys.stderr,
          flush=True)
    body = bytearray()
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            # read1, unlike read, comes back with what there is, so that a
            # mirror that sends a byte now and then meets the deadline.
            for piece in iter(lambda: response.read1(1 << 16), b''):
                body += piece
                if len(body) > size:
                    raise ValueError('sent more than the %d bytes of %s'
                                     % (size, name))
                if time.monotonic() > ends:
                    raise ValueError('sent %d of the %d bytes of %s in %g '
                                     'seconds' % (len(body), size, name,
                                                  deadline))
                if on_terminal:
                    print('\rfetching %s %3d%%' % (url, 100 * len(body) // size),
                          end='', file=sys.stderr, flush=True)
    finally:
        if on_terminal:
            print(file=sys.stderr)
    if len(body) < size:
        raise ValueError('sent %d of the %d bytes of %s'
                         % (len(body), size, name))
    if hashlib.sha256(body).hexdigest() != sha256:
        raise ValueError('sent a %s whose sha256 is not the published one'
                         % name)
    return bytes(body)


def write_whole(path, body, advice='mend that, or name another folder'):
    """Writes a file so that it appears whole or, after a failure, not at all.

    Args:
        path: str; its folder is made if it is not there.
        body: bytes.
        advice: str, what to do after a failure.

    Raises:
        UserError: the system says no.
    """
    temporary = '%s.%s.part' % (path, uuid.uuid4().hex)
    try:
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        try:
            with open(temporary, 'xb') as f:
                f.write(body)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise
    except OSError as error:
        raise UserError('cannot write %s (%s): %s'
                        % (path, error.strerror, advice))


def folder(text):
    """Returns a flag's text if it can name a folder; else tells `argparse`."""
    if not text:
        raise argparse.ArgumentTypeError('must be the name of a folder')
    return text


def run_folder(text):
    """As `folder`, for a run directory."""
    if not text.isprintable() or set(text) & set('*?[]\\'):
        raise argparse.ArgumentTypeError(
            'must be without * ? [ ] \\, which TensorFlow takes for a pattern, '
            'and without what cannot be printed, not %a' % text)
    return folder(text)


def mirror_url(text):
    """Returns a flag's text if it can be an address; else tells `argparse`."""
    try:
        parts = urllib.parse.urlsplit(text)
        good = parts.scheme in ('http', 'https') and parts.hostname
        parts.port  # raises, too
    except ValueError:
        good = False
    if not good or text.split() != [text]:
        raise argparse.ArgumentTypeError(
            'must be an address that begins with http:// or https://, not %r'
            % text)
    return text


@reports_errors
def main(argv=None):
    """Finds or fetches the files as argv says; returns the exit status."""
    parser = argparse.ArgumentParser(description="Sees to it that MNIST's four "
                                     'files are in a folder and whole.')
    parser.add_argument('data_dir', nargs='?', type=folder,
                        default='MNIST_data',
                        help='the folder (default: MNIST_data)')
    parser.add_argument('mirror', nargs='*', type=mirror_url, default=MIRRORS,
                        help='where to fetch from (default: %s)'
                        % ', then '.join(MIRRORS))
    args = parser.parse_args(argv)
    try:
        find_files(args.data_dir, args.mirror)
    except NoMirrorError as error:
        print('error: %s' % error, file=sys.stderr)
        return 3
    return 0


if __name__ == '__main__':
    sys.exit(main())
