"""The data sets: their names and sizes, and scikit-learn's digits in MNIST's form.

A dataset is one of `DATASETS`; data_dir is a str, the folder with MNIST's files.
"""
import os

from training import mnist
from training.errors import VERSIONS, UserError

DATASETS = ('mnist', 'digits')

# Of the 1,797 digits; the other 360 are the test set.
DIGITS_TRAIN, DIGITS_VALIDATION = 1257, 180


def num_train(dataset, data_dir):
    """Return how many training images there will be."""
    return DIGITS_TRAIN if dataset == 'digits' else mnist.num_train(data_dir)


def fingerprint(dataset, data_dir):
    """Return the sha256 of each file that is read: four, or none for 'digits'."""
    return [] if dataset == 'digits' else mnist.fingerprint(data_dir)


def dataset_name(dataset, data_dir):
    """Return the name for result.json: of files that are not MNIST's, the folder."""
    if dataset == 'mnist' and not mnist.is_mnist(data_dir):
        return os.path.abspath(data_dir)
    return dataset


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
    from tensorflow.contrib.learn.python.learn.datasets import base
    from tensorflow.contrib.learn.python.learn.datasets.mnist import DataSet
    digits = load_digits()
    boxes = ndimage.zoom(digits.images / 16, (1, 2.5, 2.5), order=1)
    images = np.stack([centre_by_mass(np.rint(255 * box).astype(np.uint8))
                       for box in boxes])[..., np.newaxis]
    labels = np.eye(10)[digits.target]
    parts = np.split(np.random.RandomState(0).permutation(len(images)),
                     [DIGITS_TRAIN, DIGITS_TRAIN + DIGITS_VALIDATION])
    return base.Datasets(*[DataSet(images[part], labels[part], seed=seed)
                           for part in parts])


def centre_by_mass(box):
    """Lay a digit into 28 x 28 so that its centre of mass is at pixel 14.

    MNIST was made so (LeCun et al., the MNIST page): in all of its 60,000 images the
    centre is at 13.5 to 14.5, counted from 0.

    Args:
        box: array [height, width], at most 20 x 20; ink is high, paper 0, and there
            is some ink.

    Returns:
        An array [28, 28] of the same dtype. A box that would leave the image stays
        at its edge.
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
