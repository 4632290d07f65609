"""MNIST's four files: find them, check them, fetch what is missing.

Any data set in MNIST's format is read as it is.
"""
import contextlib
import gzip
import hashlib
import os
import stat
import struct
import sys
import zlib

from training.errors import UserError, reason, require

# In the order in which TensorFlow reads them, with the sha256 that the original site
# published.
FILES = {
    'train-images-idx3-ubyte.gz':
        '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
    'train-labels-idx1-ubyte.gz':
        '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
    't10k-images-idx3-ubyte.gz':
        '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
    't10k-labels-idx1-ubyte.gz':
        'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
}
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES
MIRRORS = ('https://storage.googleapis.com/cvdf-datasets/mnist/',
           'https://ossci-datasets.s3.amazonaws.com/mnist/')
TIMEOUT = 15  # seconds to connect, and without a byte

VALIDATION_SIZE = 5000  # images that TensorFlow's reader sets aside


class NoMirrorError(UserError):
    """No mirror gave the files that are missing."""


def num_train(data_dir):
    """Return the number of training images, MNIST's if the file is missing or damaged.
    """
    path = os.path.join(data_dir, TRAIN_IMAGES)
    images = 0
    with contextlib.suppress(OSError, EOFError, zlib.error, struct.error):
        if os.path.isfile(path):  # opening a pipe would block
            with gzip.open(path) as f:
                _, images = struct.unpack('>2I', f.read(8))
    return (images if images > VALIDATION_SIZE else 60000) - VALIDATION_SIZE


def fingerprint(data_dir):
    """Return the sha256 of the four files, a list of str."""
    return [_sha256(os.path.join(data_dir, name)) for name in FILES]


def is_mnist(data_dir):
    """Return whether the four files are those of MNIST, bit for bit."""
    return fingerprint(data_dir) == list(FILES.values())


def _sha256(path):
    with open(path, 'rb') as f:
        return hashlib.sha256(f.read()).hexdigest()


def find_files(data_dir, mirrors=MIRRORS):
    """Fetch the files that are missing in a folder, and check all of them.

    Args:
        data_dir: str, the folder; it is made if something is fetched.
        mirrors: addresses of folders, tried in turn; without any, nothing is fetched.

    Raises:
        NoMirrorError: something is missing, and no mirror gave it.
        UserError: a file is damaged or does not fit the others, or the folder
            cannot be read or written.
    """
    try:
        names = os.listdir(data_dir) if os.path.exists(data_dir) else []
    except OSError as error:
        raise UserError('cannot read the folder %s (%s): name another with '
                        '--data_dir' % (data_dir, error.strerror))
    present = [name for name in FILES if name in names]
    counts = {name: _check_file(os.path.join(data_dir, name)) for name in present}
    missing = [name for name in FILES if name not in present]
    others = [name for name in present
              if _sha256(os.path.join(data_dir, name)) != FILES[name]]
    if missing and others:  # their images would get MNIST's labels
        raise UserError(
            '%s has no %s, and what it has is not MNIST\'s (%s): add the '
            'missing files of that data set, or name an empty folder to fetch MNIST'
            % (data_dir, ', '.join(missing), ', '.join(others)))
    if missing:
        _fetch(data_dir, missing, mirrors)
    elif others:
        print('note: these files of %s are not MNIST\'s and are read as they '
              'are: %s' % (data_dir, ', '.join(others)), file=sys.stderr)
        _check_counts(data_dir, counts)


def _check_counts(data_dir, counts):
    for images, labels, least in ((TRAIN_IMAGES, TRAIN_LABELS, VALIDATION_SIZE + 1),
                                  (TEST_IMAGES, TEST_LABELS, 1)):
        if counts[images] != counts[labels]:
            raise UserError(
                'in %s, %s has %d labels for the %d images of %s: put in the files '
                'that belong together' % (data_dir, labels, counts[labels],
                                          counts[images], images))
        if counts[images] < least:
            raise UserError(
                '%s has %d images where at least %d are needed, %d of them for '
                'validation: name another folder with --data_dir'
                % (os.path.join(data_dir, images), counts[images], least, least - 1))


def _check_file(path):
    """Read a gzipped IDX file to its end; return how many items it holds."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError('%s is not a file: put one in its place, or name '
                            'another folder with --data_dir' % path)
        with gzip.open(path) as f:
            return _check_idx(f, 'images' in os.path.basename(path))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if getattr(error, 'errno', None):  # gzip's own OSErrors have none
            raise UserError('cannot read %s (%s): fix that, or name another folder '
                            'with --data_dir' % (path, error.strerror))
        raise UserError('%s is damaged (%s): delete it and run again' % (path, error))


def _check_idx(f, images):
    """Check an IDX file of images, or of labels; return how many items it holds."""
    head = f.read(16 if images else 8)
    if len(head) < (16 if images else 8):
        raise ValueError('it ends in its header')
    magic, count, *shape = struct.unpack('>%dI' % (len(head) // 4), head)
    # 0x08 for unsigned bytes, then the number of dimensions.
    expected = 0x803 if images else 0x801
    if magic != expected:
        raise ValueError('its magic number is %d, not %d' % (magic, expected))
    if images and shape != [28, 28]:
        raise ValueError('its images are %d x %d, not 28 x 28' % tuple(shape))
    size = count * 784 if images else count
    items = f.read(size + 1)  # no more, as a small file can unpack to gigabytes
    if len(items) > size:
        raise ValueError('it holds more than the %d items that its header says' % count)
    if len(items) < size:
        raise ValueError('it holds %d bytes where its header says %d'
                         % (len(items), size))
    if not images and count and max(items) > 9:
        raise ValueError('it holds the label %d, and labels are 0 to 9' % max(items))
    return count


def _fetch(data_dir, missing, mirrors):
    """Fetch files into a folder, from the first mirror that has them."""
    require('pooch', 'tqdm')
    import pooch
    import requests
    pooch.get_logger().setLevel('WARNING')
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(),
                                      chunk_size=1 << 16, timeout=TIMEOUT)
    failures, is_new = [], not os.path.exists(data_dir)
    for mirror in mirrors:
        files = pooch.create(
            path=os.path.abspath(data_dir), base_url=mirror.rstrip('/') + '/',
            registry={name: 'sha256:' + FILES[name] for name in missing},
            retry_if_failed=1)
        try:
            for name in missing:
                print('fetching ' + files.get_url(name), file=sys.stderr)
                # pooch makes files that only their owner can read.
                os.chmod(files.fetch(name, downloader=downloader), 0o644)
            return
        except (requests.RequestException, ValueError) as error:
            failures.append('%s: %s' % (mirror, _reason(error)))
            print('that failed: ' + _reason(error), file=sys.stderr)
        except OSError as error:
            raise UserError('cannot write %s (%s): fix that, or name another folder'
                            % (os.path.join(data_dir, name),
                               reason(error.__cause__ or error)))
    if is_new and os.path.isdir(data_dir) and not os.listdir(data_dir):
        os.rmdir(data_dir)  # pooch made it
    raise NoMirrorError(
        '%s: put %s into %s, or name the folder that has them'
        % ('could not fetch MNIST (%s)' % '; '.join(failures) if failures
           else 'MNIST is not there', ', '.join(missing), data_dir))


def _reason(error):
    """Return why a fetch failed, from the exception that caused all others."""
    if getattr(error, 'response', None) is not None:
        return 'HTTP %d %s' % (error.response.status_code, error.response.reason)
    if type(error) is ValueError:
        return 'sent a file whose sha256 is not the published one'
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return reason(error).strip()
