"""The data sets: their names and sizes, and scikit-learn's digits in MNIST's form.

A dataset is one of `DATASETS`; data_dir is a str, the folder with MNIST's files.
"""
import collections
import os

from training import idx, mnist
from training.errors import VERSIONS, UserError

DATASETS = ('mnist', 'digits')

# Of the 1,797 digits; the other 360 are the test set.
DIGITS_TRAIN, DIGITS_VALIDATION = 1257, 180


class DataSets(collections.namedtuple('DataSets', 'train validation test')):
    """Three of TensorFlow's `DataSet`s; sizes are their `mnist.Sizes`."""

    def __new__(cls, *parts, sizes):
        self = super(DataSets, cls).__new__(cls, *parts)
        self.sizes = sizes
        return self


def num_train(dataset, data_dir):
    """Return how many training images there will be."""
    return DIGITS_TRAIN if dataset == 'digits' else mnist.num_train(data_dir)


def fingerprint(dataset, data_dir):
    """Return the sha256 of each file that is read, unpacked; none for 'digits'."""
    return [] if dataset == 'digits' else mnist.fingerprint(data_dir)


def dataset_name(dataset, data_dir):
    """Return the name for result.json: of files that are not MNIST's, the folder."""
    if dataset == 'mnist' and not mnist.is_mnist(data_dir):
        return os.path.abspath(data_dir)
    return dataset


def is_of_run(sha256, dataset, data_dir):
    """Return whether the data is that of a run with this data_sha256 in config.json."""
    if sha256 == list(mnist.FILES.values()):  # an older version's, of the .gz files
        sha256 = mnist.CONTENTS
    return fingerprint(dataset, data_dir) == sha256


def tensorflow_reads(files):
    """Return whether TensorFlow's reader can read four files, from `mnist.find_files`.

    It needs MNIST's names, in one folder, and always makes ten classes.
    """
    return (files == [os.path.join(os.path.dirname(files[0]), name)
                      for name in mnist.FILES]
            and all(map(idx.is_gzipped, files)) and mnist.sizes(files).class_num == 10)


def read_files(files, seed=None):
    """Read four IDX files as TensorFlow's reader reads MNIST's.

    Args:
        files: paths, as `mnist.find_files` returns them.
        seed: as for `data.read_data_sets`.

    Returns:
        As `data.read_data_sets`; images are [n, rows * columns], labels [n, classes].
    """
    import numpy as np
    sizes, size = mnist.sizes(files), mnist.validation_size(files)
    arrays = []
    for path in files:
        print('Extracting ' + path)
        arrays.append(idx.read(path))
    images, labels, *test = arrays
    return _data_sets([(images[size:], labels[size:]), (images[:size], labels[:size]),
                       test], np.eye(sizes.class_num), sizes, seed)


def _data_sets(parts, one_hot, sizes, seed):
    from tensorflow.contrib.learn.python.learn.datasets.mnist import DataSet
    return DataSets(*[DataSet(images[..., None], one_hot[labels], seed=seed)
                      for images, labels in parts], sizes=sizes)


def read_digits(seed=None):
    """Read scikit-learn's digits (UCI, 8 x 8), resampled and laid into 28 x 28.

    They are split by `numpy.random.RandomState(0)`, which numpy never changes. A
    writer's digits are in all three parts, as the file does not say who wrote what.

    Args and Returns: as for `data.read_data_sets`.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from scipy import ndimage
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError('--dataset digits needs scikit-learn: pip install '
                        'scikit-learn==' + VERSIONS['scikit-learn'])
    import numpy as np
    digits = load_digits()
    boxes = ndimage.zoom(digits.images / 16, (1, 2.5, 2.5), order=1)
    images = np.stack([centre_by_mass(np.rint(255 * box).astype(np.uint8))
                       for box in boxes])
    parts = np.split(np.random.RandomState(0).permutation(len(images)),
                     [DIGITS_TRAIN, DIGITS_TRAIN + DIGITS_VALIDATION])
    return _data_sets([(images[part], digits.target[part]) for part in parts],
                      np.eye(10), mnist.MNIST_SIZES, seed)


def shifted(images, pixels, sizes, seed):
    """Return images, each shifted by up to so many pixels in both directions.

    Args:
        images: [n, rows * columns]; pixels that come in are 0.
        pixels: int, 0 or more.
        sizes: `mnist.Sizes`, those of the images.
        seed: what `numpy.random.RandomState` takes; it draws the shifts.
    """
    import numpy as np
    rows, columns, n = sizes.timestep_size, sizes.input_size, len(images)
    down, right = np.random.RandomState(seed).randint(2 * pixels + 1, size=(2, n, 1, 1))
    padded = np.pad(images.reshape(n, rows, columns),
                    [(0, 0), (pixels, pixels), (pixels, pixels)], 'constant')
    return padded[np.arange(n)[:, None, None], down + np.arange(rows)[:, None],
                  right + np.arange(columns)].reshape(n, -1)


def centre_by_mass(box, shape=(28, 28)):
    """Lay a digit into an image so that its centre of mass is in the middle.

    MNIST was made so (LeCun et al., the MNIST page): in all of its 60,000 images the
    centre is at 13.5 to 14.5, counted from 0.

    Args:
        box: array [height, width]; ink is high, paper 0, and there is some ink.
        shape: height and width of the image, at least those of the box.

    Returns:
        An array of that shape and the same dtype. A box that would leave the image
        stays at its edge.
    """
    import numpy as np
    image = np.zeros(shape, box.dtype)
    mass = box.sum(dtype=float)
    place = []
    for axis, (size, whole) in enumerate(zip(box.shape, shape)):
        centre = box.sum(1 - axis, dtype=float) @ np.arange(size) / mass
        start = int(np.clip(np.rint(whole / 2 - centre), 0, whole - size))
        place.append(slice(start, start + size))
    image[tuple(place)] = box
    return image
