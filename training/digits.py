"""The bundled digits: scikit-learn's 1,797 of 8 x 8, made like MNIST's."""
import numpy as np

from training.datasets import DIGITS_TRAIN, DIGITS_VALIDATION
from training.errors import UserError
from training.packages import VERSIONS


def read(seed=None):
    """Reads the digits (UCI, 8 x 8), resampled and laid into 28 x 28.

    In the order of `numpy.random.RandomState(0).permutation`, which numpy
    keeps for good, the first 1,257 are the training set, the next 180 the
    validation set and the last 360 the test set. They keep no record of who
    wrote what, so a writer's digits are in all three.

    Args:
        seed: int or None, as for `data.read_data_sets`.

    Returns:
        As `data.read_data_sets`.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from scipy import ndimage
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError('--dataset digits needs scikit-learn: pip install '
                        'scikit-learn==' + VERSIONS['scikit-learn'])
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
    image = np.zeros([28, 28], box.dtype)
    mass = box.sum(dtype=float)
    place = []
    for axis, size in enumerate(box.shape):
        centre = box.sum(1 - axis, dtype=float) @ np.arange(size) / mass
        start = int(np.clip(np.rint(14 - centre), 0, 28 - size))
        place.append(slice(start, start + size))
    image[tuple(place)] = box
    return image
