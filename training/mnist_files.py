"""MNIST's four files: found or fetched, and checked.

They are those of the original site, or of another data set in their format.
Nothing here needs a package.
"""
import gzip
import hashlib
import http.client
import os
import stat
import struct
import sys
import time
import urllib.error
import urllib.request
import zlib

from training.errors import UserError
from training.files import sha256_of, write_whole

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

VALIDATION_SIZE = 5000  # images that TensorFlow's reader sets aside


class NoMirrorError(UserError):
    """No mirror gave the files that are missing."""


def num_train(data_dir):
    """Returns how many images the training set in data_dir has, an int.

    It looks no further than a header, so as to be quick. A file that is
    missing or no good, which `find_files` will fetch or refuse, counts as
    MNIST's.
    """
    path = os.path.join(data_dir, TRAIN_IMAGES)
    images = 0
    if os.path.isfile(path):  # a pipe would have us wait
        try:
            with gzip.open(path) as f:
                _, images = struct.unpack('>2I', f.read(8))
        except (OSError, EOFError, zlib.error, struct.error):
            pass
    return (images if images > VALIDATION_SIZE else 60000) - VALIDATION_SIZE


def fingerprint(data_dir):
    """Returns the sha256 of the four files that are read, a list of str."""
    return [sha256_of(os.path.join(data_dir, name)) for name in FILES]


def published():
    """Returns the `fingerprint` of MNIST itself."""
    return [sha256 for _, sha256 in FILES.values()]


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
