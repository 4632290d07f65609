"""MNIST's file format, IDX: find the four files of a data set, check and read them.

LeCun et al., the MNIST page, describes the format. Only unsigned bytes are read.
"""
import collections
import functools
import glob
import gzip
import hashlib
import os
import re
import stat
import struct
import zlib

from training.errors import UserError

# The names of MNIST's files, with or without .gz, and what others call theirs:
# emnist-letters-test-images-idx3-ubyte, train-images.idx3-ubyte.
NAME = re.compile(r'(.+[-_.])?(train|t10k|test)[-_.](images|labels)'
                  r'[-_.]idx[13][-_.]ubyte(\.gz)?', re.I)
MOST_BYTES = 1 << 31
ROLES = 'train images', 'train labels', 'test images', 'test labels'


class Content(collections.namedtuple('Content', 'shape largest sha256')):
    """What an IDX file holds.

    shape: a tuple, (count, rows, columns) of images or (count,) of labels.
    largest: int, the largest item.
    sha256: str, of the unpacked file.
    """


def find(folder):
    """Find the files of the data set in a folder, or else in its subfolders.

    Args:
        folder: str. torchvision's files are in MNIST/raw below the folder it is given.

    Returns:
        A list of four paths, in the order of `ROLES`, with None for a missing file.

    Raises:
        UserError: the folder cannot be read, or holds several data sets or only IDX
            files with other names.
    """
    try:
        found = _data_sets(folder, os.listdir(folder) if os.path.exists(folder) else [])
        for depth in ('*', '*/*'):
            if not found:
                below = os.path.join(glob.escape(folder), depth, '')
                for place in sorted(glob.glob(below)):
                    if os.access(place, os.R_OK | os.X_OK):
                        found.update(_data_sets(place, os.listdir(place)))
    except OSError as error:
        raise UserError('cannot read the folder %s (%s): name another with --data_dir'
                        % (error.filename or folder, error.strerror))
    whole = [four for four in found.values() if all(four)]
    if len(whole) > 1 or not whole and len(found) > 1:
        raise UserError('%s holds several data sets (%s): put the four files of one '
                        'into a folder of their own, and name that'
                        % (folder, ', '.join(sorted(found))))
    if not found:
        _refuse_other_names(folder)
    four, = whole or found.values() or [[()] * 4]
    return [_only(paths) for paths in four]


def _data_sets(folder, names):
    """Return {name of a data set: four lists of paths}."""
    found = {}
    for name in sorted(names, key=lambda name: (not name.endswith('.gz'), name)):
        match, path = NAME.fullmatch(name), os.path.join(folder, name)
        if not match:
            continue
        if os.path.isdir(path):  # some unpackers make a folder for each file
            inner = [name for name in os.listdir(path) if NAME.fullmatch(name)]
            path = os.path.join(path, *inner[:1])
        role = ROLES.index('%s %s' % (
            'train' if match[2].lower() == 'train' else 'test', match[3].lower()))
        four = found.setdefault(os.path.join(folder, match[1] or ''),
                                [[] for _ in ROLES])
        four[role].append(path)
    return found


def _only(paths):
    """Return the one path, or the first of several files with the same content."""
    if len({examine(path).sha256 for path in paths[1:] and paths}) > 1:
        raise UserError('%s hold different data: move one of them to another folder'
                        % ' and '.join(paths))
    return paths[0] if paths else None


def _refuse_other_names(folder):
    """Raise a `UserError` if a folder has IDX files whose names tell no role."""
    others = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), '*'))):
        try:
            if os.path.isfile(path):
                with _open(path) as f:
                    if f.read(3) == b'\0\0\x08':
                        others.append(os.path.basename(path))
        except (OSError, EOFError, zlib.error):
            pass  # it is no IDX file
    if others:
        raise UserError(
            '%s holds a data set whose files have other names than MNIST\'s (%s): name '
            'them train-images-idx3-ubyte, train-labels-idx1-ubyte, '
            't10k-images-idx3-ubyte, t10k-labels-idx1-ubyte'
            % (folder, ', '.join(others)))


def examine(path):
    """Check an IDX file; return its `Content`. It is read once, until it changes."""
    try:
        now = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error)
    return _examine(path, now.st_ino, now.st_size, now.st_mtime_ns)


@functools.lru_cache()
def _examine(path, *version):
    items, sha256 = _load(path)
    return Content(items.shape, int(items.max()) if items.size else 0, sha256)


def read(path):
    """Read an IDX file, gzipped or not.

    Returns:
        uint8, [count, rows, columns] of images or [count] of labels.

    Raises:
        UserError: it cannot be read, or is not such a file.
    """
    return _load(path)[0]


def _load(path):
    """Return the items of an IDX file, and the sha256 of the unpacked file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError('%s is not a file: put one in its place, or name '
                            'another folder with --data_dir' % path)
        with _open(path) as f:
            return _parse(f, 'images' in os.path.basename(path).lower())
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if getattr(error, 'errno', None):  # gzip's own OSErrors have none
            raise _unreadable(path, error)
        raise UserError(
            '%s is damaged, or not in MNIST\'s format (%s): put a whole file in its '
            'place, or name another folder with --data_dir' % (path, error))


def _unreadable(path, error):
    return UserError('cannot read %s (%s): fix that, or name another folder with '
                     '--data_dir' % (path, error.strerror))


def is_gzipped(path):
    with open(path, 'rb') as f:
        return f.read(2) == b'\x1f\x8b'


def _open(path):
    return (gzip.open if is_gzipped(path) else open)(path, 'rb')


def _parse(f, images):
    import numpy as np  # not at the top, as --help needs no packages
    header = f.read(4)
    if header[:2] != b'\0\0' or len(header) < 4:
        raise ValueError('it does not begin as an IDX file')
    kind, dimensions = header[2:]
    if kind != 8:
        raise ValueError('its items are of type 0x%02x, not unsigned bytes, 0x08'
                         % kind)
    if dimensions != (3 if images else 1):
        raise ValueError('it has %d dimensions, and %s' % (
            dimensions, 'images have 3: count, rows, columns' if images
            else 'labels have 1'))
    sizes = f.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise ValueError('it ends in its header')
    shape = struct.unpack('>%dI' % dimensions, sizes)
    if 0 in shape[1:]:
        raise ValueError('its images are %d x %d' % shape[1:])
    count = np.prod(np.array(shape, object))  # may be more than an int64 holds
    # No more, as a small file can unpack to gigabytes.
    items = f.read(min(count + 1, MOST_BYTES))
    if len(items) > count:
        raise ValueError('it holds more than the %d bytes that its header says' % count)
    if len(items) < count:
        raise ValueError('it holds %d bytes where its header says %d'
                         % (len(items), count))
    return (np.frombuffer(items, np.uint8).reshape(shape),
            hashlib.sha256(header + sizes + items).hexdigest())
