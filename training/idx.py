"""MNIST's file format, IDX: find the files of a data set, check and read them.

LeCun et al., the MNIST page, describes the format. Only unsigned bytes are read.
"""
import collections
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
DIMENSIONS = {'images': 3, 'labels': 1}
ROLES = 'train images', 'train labels', 'test images', 'test labels'


class Content(collections.namedtuple('Content', 'path items sha256')):
    """What an IDX file holds.

    path: str.
    items: uint8, [count, rows, columns] of images or [count] of labels.
    sha256: str, of the unpacked file.
    """


def find(folder):
    """Find the files of the data set in a folder, or else in its subfolders.

    Args:
        folder: str. torchvision's files are in MNIST/raw below the folder it is given.

    Returns:
        {role: list of paths}. A role is one of `ROLES`; one that is missing is left
        out. A list has several paths if a file is there packed and unpacked.

    Raises:
        UserError: the folder cannot be read, or holds several data sets or only IDX
            files with other names.
    """
    try:
        found = _by_name(folder, os.listdir(folder) if os.path.exists(folder) else [])
        for depth in ('*', '*/*'):
            if not found:
                below = os.path.join(glob.escape(folder), depth, '')
                for place in sorted(glob.glob(below)):
                    if os.access(place, os.R_OK | os.X_OK):
                        found.update(_by_name(place, os.listdir(place)))
    except OSError as error:
        raise UserError('cannot read the folder %s (%s): name another with --data_dir'
                        % (error.filename or folder, error.strerror))
    whole = [files for files in found.values() if len(files) == len(ROLES)]
    if len(whole) > 1 or not whole and len(found) > 1:
        raise UserError('%s holds several data sets (%s): put the four files of one '
                        'into a folder of their own, and name that'
                        % (folder, ', '.join(sorted(found))))
    if not found:
        _refuse_other_names(folder)
    files, = whole or found.values() or [{}]
    return files


def _by_name(folder, names):
    """Return {name of a data set: {role: list of paths}}."""
    found = {}
    for name in sorted(names, key=lambda name: (not name.endswith('.gz'), name)):
        match, path = NAME.fullmatch(name), os.path.join(folder, name)
        if not match:
            continue
        if os.path.isdir(path):  # some unpackers make a folder for each file
            inner = [name for name in os.listdir(path) if NAME.fullmatch(name)]
            path = os.path.join(path, *inner[:1])
        role = '%s %s' % ('train' if match[2].lower() == 'train' else 'test',
                          match[3].lower())
        files = found.setdefault(os.path.join(folder, match[1] or ''), {})
        files.setdefault(role, []).append(path)
    return found


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


def read(path, kind):
    """Read an IDX file, gzipped or not; return its `Content`.

    Args:
        path: str.
        kind: 'images' or 'labels', what the file must hold.

    Raises:
        UserError: the file cannot be read, or is not such a file.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError('%s is not a file: put one in its place, or name '
                            'another folder with --data_dir' % path)
        with _open(path) as f:
            return Content(path, *_parse(f, DIMENSIONS[kind]))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if getattr(error, 'errno', None):  # gzip's own OSErrors have none
            raise UserError('cannot read %s (%s): fix that, or name another folder '
                            'with --data_dir' % (path, error.strerror))
        raise UserError(
            '%s is damaged, or not in MNIST\'s format (%s): put a whole file in its '
            'place, or name another folder with --data_dir' % (path, error))


def _open(path):
    with open(path, 'rb') as f:
        is_gzipped = f.read(2) == b'\x1f\x8b'
    return (gzip.open if is_gzipped else open)(path, 'rb')


def _parse(f, dimensions):
    """Return the items of an IDX file, and the sha256 of the unpacked file."""
    import numpy as np  # not at the top, as --help needs no packages
    header = f.read(4)
    if header[:2] != b'\0\0' or len(header) < 4:
        raise ValueError('it does not begin as an IDX file')
    if header[2] != 8:
        raise ValueError('its items are of type 0x%02x, not unsigned bytes, 0x08'
                         % header[2])
    if header[3] != dimensions:
        raise ValueError('it has %d dimensions, and %s' % (
            header[3], 'images have 3: count, rows, columns' if dimensions == 3
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
    sha256 = hashlib.sha256(header + sizes)
    sha256.update(items)
    return np.frombuffer(items, np.uint8).reshape(shape), sha256.hexdigest()
