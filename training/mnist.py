"""MNIST's four files: find them, fetch what is missing, tell them from other data.

Any data set in MNIST's format is read as it is.
"""
import collections
import os
import sys

from training import idx
from training.errors import UserError, reason, require

# In the order of `idx.ROLES`, with the sha256 that the original site published.
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
# The sha256 of the same files, unpacked.
CONTENTS = ['ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
            '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
            '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
            'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2']
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES
MIRRORS = ('https://storage.googleapis.com/cvdf-datasets/mnist/',
           'https://ossci-datasets.s3.amazonaws.com/mnist/')
TIMEOUT = 15  # seconds to connect, and without a byte

DATA_DIR = 'MNIST_data'  # the tutorial's


class NoMirrorError(UserError):
    """No mirror gave the files that are missing."""


class Sizes(collections.namedtuple('Sizes', 'input_size timestep_size class_num')):
    """The sizes of a data set, named as in the tutorial.

    input_size: pixels in a row: the input at each timestep; MNIST's are 28.
    timestep_size: rows in an image: the number of timesteps; MNIST's are 28.
    class_num: the largest label plus 1; MNIST's are 10.
    """


MNIST_SIZES = Sizes(28, 28, 10)


def validation_size(files):
    """Return how many training images are set aside, for files as of `find_files`.

    TensorFlow's reader sets 5,000 aside, a twelfth of MNIST's. So of 5,000 or fewer, a
    twelfth is set aside.
    """
    images = idx.examine(files[0]).shape[0]
    return 5000 if images > 5000 else max(1, images // 12)


def num_train(data_dir):
    """Return the number of training images, MNIST's if they cannot be read yet."""
    try:
        files = idx.find(data_dir)
        return idx.examine(files[0]).shape[0] - validation_size(files)
    except (UserError, TypeError):
        return 55000


def fingerprint(data_dir):
    """Return the sha256 of the four files, unpacked, a list of str."""
    return [idx.examine(path).sha256 for path in idx.find(data_dir)]


def is_mnist(data_dir):
    """Return whether the four files hold MNIST."""
    return fingerprint(data_dir) == CONTENTS


def find_files(data_dir, mirrors=MIRRORS):
    """Find the files in a folder, fetch MNIST's that are missing, and check all.

    Args:
        data_dir: str, the folder, or the one around it; see `idx.find`. It is made if
            something is fetched.
        mirrors: addresses of folders, tried in turn; without any, nothing is fetched.

    Returns:
        A list of four paths, in the order of `idx.ROLES`.

    Raises:
        NoMirrorError: something is missing, and no mirror gave it.
        UserError: the folder holds a part of another data set, or a file is damaged
            or cannot be read or written.
    """
    files = idx.find(data_dir)
    missing = [name for name, path in zip(FILES, files) if not path]
    others = [os.path.relpath(path, data_dir) for path, sha256 in zip(files, CONTENTS)
              if path and idx.examine(path).sha256 != sha256]
    if missing and others:  # their images would get MNIST's labels
        raise UserError(
            '%s has no %s, and what it has is not MNIST\'s (%s): add the '
            'missing files of that data set, or name an empty folder to fetch MNIST'
            % (data_dir, ', '.join(name[:-len('.gz')] for name in missing),
               ', '.join(others)))
    if missing:  # all, or some of MNIST's
        if any(path and not os.path.samefile(os.path.dirname(path) or '.', data_dir)
               for path in files):
            missing = list(FILES)  # a part in a subfolder; take the whole here
        _fetch(data_dir, missing, mirrors)
        files = idx.find(data_dir)
    found = sizes(files)
    if others:
        print('note: %s is not MNIST: %d images to train with and %d to test with, of '
              '%d x %d pixels, in %d classes' % (
                  data_dir, *(idx.examine(path).shape[0] for path in files[::2]),
                  found.timestep_size, found.input_size, found.class_num),
              file=sys.stderr)
    return files


def sizes(files):
    """Return the `Sizes` of four files, or raise a `UserError` if they do not match."""
    train, train_labels, test, test_labels = map(idx.examine, files)
    for (path, labels_path), (count, *_), labels, least in (
            (files[:2], train.shape, train_labels, 2),
            (files[2:], test.shape, test_labels, 1)):
        if labels.shape != (count,):
            raise UserError('%s has %d labels for the %d images of %s: put in the '
                            'files that belong together'
                            % (labels_path, *labels.shape, count, path))
        if count < least:
            raise UserError('%s has %d images, and at least %d are needed: name '
                            'another folder with --data_dir' % (path, count, least))
    if train.shape[1:] != test.shape[1:]:
        raise UserError('the images of %s are %d x %d, and those of %s are %d x %d: '
                        'put in the files that belong together'
                        % (files[0], *train.shape[1:], files[2], *test.shape[1:]))
    class_num = 1 + max(train_labels.largest, test_labels.largest)
    if class_num == 1:
        raise UserError('%s has only the label 0, so there is nothing to learn: put in '
                        'the labels of the images' % files[1])
    _, height, width = train.shape
    return Sizes(width, height, class_num)


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
            if (error.__cause__ or error).errno is None:  # there are no certificates
                raise UserError('cannot fetch MNIST (%s): fix REQUESTS_CA_BUNDLE, or '
                                'pip install --force-reinstall certifi' % error)
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
    proxy = 'the proxy that https_proxy or http_proxy names: ' * (
        type(error).__name__ == 'ProxyError')
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return proxy + reason(error).strip()
