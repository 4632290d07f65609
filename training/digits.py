"""scikit-learn's digits, laid into images as MNIST's are."""
from training.errors import UserError, pinned
from training.mnist_files import Source

# Of the 1,797 digits; the other 360 are the test set.
TRAIN, VALIDATION = 1257, 180


def open_digits():
    """Open scikit-learn's digits (UCI, 8 x 8), resampled and laid into 28 x 28.

    They are split by `numpy.random.RandomState(0)`, which numpy never changes. A
    writer's digits are in all three parts, as the file does not say who wrote what.

    Returns:
        A `Source`.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from scipy import ndimage
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError('--dataset digits needs scikit-learn: pip install '
                        + pinned('scikit-learn'))
    import numpy as np
    digits = load_digits()
    boxes = ndimage.zoom(digits.images / 16, (1, 2.5, 2.5), order=1)
    images = np.stack([centre_by_mass(np.rint(255 * box).astype(np.uint8))
                       for box in boxes])
    labels = digits.target.astype(np.uint8)
    train, validation, test = np.split(np.random.RandomState(0).permutation(
        len(images)), [TRAIN, TRAIN + VALIDATION])
    train = np.append(validation, train)  # `Source` takes validation from the front
    return Source('digits', *[(images[part], labels[part]) for part in (train, test)],
                  VALIDATION)


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
