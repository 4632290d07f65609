"""MNIST's four files: open them once, fetch what is missing, know all about them.

Any data set in MNIST's format is read as it is.
"""
import collections
import contextlib
import os
import sys

from training import idx
from training.environment import proxy_problem
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


class DataSets(collections.namedtuple('DataSets', 'train validation test')):
    """Three of TensorFlow's `DataSet`s, and the `Source` that they were made of.

    source: `Source`.
    """

    def __new__(cls, *parts, source):
        self = super(DataSets, cls).__new__(cls, *parts)
        self.source = source
        return self


class Source(object):
    """A data set that was opened. It knows what is asked about it later.

    Attributes:
        name: str, for result.json: 'mnist', 'digits', or the folder of other data.
        sha256: list of str, one for each unpacked file; [] for the digits.
        paths: list of str, the files that were read.
        shape: (rows, columns) of the images.
        class_num: int, the largest label plus 1.
        names: list of str, the names of the classes.
        num_validation: int, how many training images are set aside for validation.
    """

    def __init__(self, name, train, test, num_validation, paths=(), sha256=(),
                 names=None):
        """
        Args:
            train, test: (images, labels), uint8 [n, rows, columns] and [n]. Validation
                takes the first training images.
            names: by default, the labels.
        """
        self.name, self.paths, self.sha256 = name, list(paths), list(sha256)
        self._train, self._test, self.num_validation = train, test, num_validation
        self.shape = train[0].shape[1:]
        self.class_num = 1 + int(max(train[1].max(), test[1].max()))
        self.names = names or list(map(str, range(self.class_num)))

    def is_of_run(self, sha256):
        """Return whether a run with this data_sha256 in config.json has these data."""
        if sha256 == list(FILES.values()):  # an older version's, of the .gz files
            sha256 = CONTENTS
        return self.sha256 == sha256

    def read(self, one_hot, seed):
        """Return the `DataSets`; see `data.read_data_sets`. Call it once."""
        import numpy as np
        from tensorflow.contrib.learn.python.learn.datasets.mnist import DataSet
        (images, labels), test, size = self._train, self._test, self.num_validation
        self._train = self._test = None  # 55 MB, which nobody needs again
        parts = [(images[size:], labels[size:]), (images[:size], labels[:size]), test]
        if one_hot:
            vectors = np.eye(self.class_num)
            parts = [(images, vectors[labels]) for images, labels in parts]
        return DataSets(*[DataSet(images[..., None], labels, seed=seed)
                          for images, labels in parts], source=self)


def open_files(data_dir, mirrors=MIRRORS, num_validation=None):
    """Read the files in a folder; fetch MNIST's that are missing.

    Args:
        data_dir: str, the folder, or the one around it; see `idx.find`. It is made if
            something is fetched.
        mirrors: addresses of folders, tried in turn; without any, nothing is fetched.
        num_validation: int, training images to set aside. By default, and if there
            are not more, it is a twelfth of them, at most 5,000. So of MNIST's
            60,000, 5,000 are set aside, as by TensorFlow's reader.

    Returns:
        A `Source`.

    Raises:
        NoMirrorError: something is missing, and no mirror gave it.
        UserError: the folder holds a part of another data set, or a file is damaged,
            does not fit the others, or cannot be read or written.
    """
    files = _read_files(data_dir)
    missing = [name for role, name in zip(idx.ROLES, FILES) if role not in files]
    others = [os.path.relpath(files[role].path, data_dir)
              for role, sha256 in zip(idx.ROLES, CONTENTS)
              if role in files and files[role].sha256 != sha256]
    if missing and others:  # their images would get MNIST's labels
        raise UserError(
            '%s has no %s, and what it has is not MNIST\'s (%s): add the '
            'missing files of that data set, or name an empty folder to fetch MNIST'
            % (data_dir, ', '.join(name[:-len('.gz')] for name in missing),
               ', '.join(others)))
    if missing:  # all, or some of MNIST's
        if any(not os.path.samefile(os.path.dirname(file.path) or '.', data_dir)
               for file in files.values()):
            missing = list(FILES)  # a part in a subfolder; take the whole here
        _fetch(data_dir, missing, mirrors)
        files = _read_files(data_dir)
    files = [files[role] for role in idx.ROLES]
    _check_fit(*files)
    images, labels, *test = [file.items for file in files]
    if num_validation is None or num_validation >= len(images):
        num_validation = max(1, min(5000, len(images) // 12))
    source = Source(os.path.abspath(data_dir) if others else 'mnist', (images, labels),
                    test, num_validation, [file.path for file in files],
                    [file.sha256 for file in files], _read_names(data_dir))
    if source.class_num == 1:
        raise UserError('%s has only the label 0, so there is nothing to learn: put in '
                        'the labels of the images' % files[1].path)
    if len(set(source.names) - {''}) != source.class_num:
        raise UserError('%s must hold %d different names, each on a line, for the '
                        'labels 0 to %d, and it holds %d: fix it, or move it away' % (
                            os.path.join(data_dir, 'classes.txt'), source.class_num,
                            source.class_num - 1, len(set(source.names) - {''})))
    if others:
        print('note: %s is not MNIST: %d images to train with, %d for validation and '
              '%d to test with, of %d x %d pixels, in %d classes' % (
                  data_dir, len(images) - num_validation, num_validation, len(test[0]),
                  *source.shape, source.class_num), file=sys.stderr)
    return source


def _read_names(data_dir):
    """Return the lines of classes.txt in a folder, None if there is none."""
    path = os.path.join(data_dir, 'classes.txt')
    try:
        with open(path, encoding='utf-8-sig') as f:
            return [line.strip() for line in f.read().rstrip().split('\n')]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError('cannot read %s (%s): fix that, and save it as UTF-8'
                        % (path, reason(error)))


def _read_files(data_dir):
    """Return {role: `idx.Content`} of the files in a folder."""
    files = {}
    for role, paths in idx.find(data_dir).items():
        files[role], *more = [idx.read(path, role.split()[1]) for path in paths]
        if any(file.sha256 != files[role].sha256 for file in more):
            raise UserError('%s hold different data: move one of them to another folder'
                            % ' and '.join(paths))
    return files


def _check_fit(images, labels, test, test_labels):
    """Raise a `UserError` if four `idx.Content`s are not one data set."""
    for file, its_labels, least in ((images, labels, 2), (test, test_labels, 1)):
        count = len(file.items)
        if len(its_labels.items) != count:
            raise UserError('%s has %d labels for the %d images of %s: put in the '
                            'files that belong together' % (
                                its_labels.path, len(its_labels.items), count,
                                file.path))
        if count < least:
            raise UserError('%s has %d images, and at least %d are needed: name '
                            'another folder with --data_dir'
                            % (file.path, count, least))
    shape, test_shape = images.items.shape[1:], test.items.shape[1:]
    if shape != test_shape:
        raise UserError('the images of %s are %d x %d, and those of %s are %d x %d: '
                        'put in the files that belong together'
                        % (images.path, *shape, test.path, *test_shape))


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
                path = files.fetch(name, downloader=downloader)
                # pooch makes files that only their owner can read. Some file systems
                # (FUSE, SMB) refuse to change that.
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o644)
            return
        except (requests.RequestException, ValueError) as error:
            problem = proxy_problem(mirror.lower().split(':')[0])
            if problem and isinstance(error, requests.exceptions.InvalidSchema):
                raise UserError(problem)
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
