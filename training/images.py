"""Turn an image of a digit into an MNIST digit.

MNIST's digits are grey, with ink near 1 and paper 0. They are fitted to 20 x 20 and
centred by mass in 28 x 28 (LeCun et al., the MNIST page).
"""
import os
import stat

import numpy as np

from training.datasets import centre_by_mass
from training.errors import UserError, missing

try:
    from PIL import Image, ImageOps
except ImportError:
    raise missing('Pillow')

MAX_SIDE = 10000  # pixels; more than a phone's largest photographs have


def read_image(path):
    """Read an image file and return its digit, float32 [784], as `normalise` does.

    Args:
        path: str, a file in a format that Pillow reads.

    Raises:
        UserError: it cannot be read, is no image, is blank, or is over `MAX_SIDE`.
    """
    Image.MAX_IMAGE_PIXELS = None  # MAX_SIDE is the limit here
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError('it is not a file')
        with Image.open(path) as image:
            if image.format == 'EPS':  # Ghostscript would run it as a program
                raise ValueError('it is an EPS')
            if max(image.size) > MAX_SIDE:
                raise ValueError('it is %d x %d pixels, and %d a side are the '
                                 'most' % (*image.size, MAX_SIDE))
            return normalise(ImageOps.exif_transpose(image))
    except Exception as error:  # a damaged file makes Pillow raise almost any of them
        raise UserError('%s cannot be read (%s): name an image of a digit'
                        % (path, getattr(error, 'strerror', None) or error))


def normalise(image):
    """Turn a picture of a digit into an MNIST digit.

    Make it grey, with bright ink on paper that is 0. Crop it to the ink, fit it to
    20 x 20 without changing its proportions, and centre it by mass in 28 x 28. The
    edge of the picture is taken for paper.

    Args:
        image: `PIL.Image.Image` of any size and mode.

    Returns:
        float32 [784], from 0 for paper to 1 for the most ink.

    Raises:
        ValueError: the picture is blank, or contains NaN or infinity.
    """
    pixels = _to_grey(image)
    edge = _edge(pixels)
    paper = np.median(edge)
    ink = pixels - paper
    if -ink.min() > ink.max():
        ink = -ink
    # Subtract the paper's grain and shadows. Of normally distributed noise this is
    # two standard deviations; ink that touches the edge does not change the median.
    ink -= 3 * np.median(np.abs(edge - paper))
    if ink.max() < 25:
        raise ValueError('it is blank')
    ink = np.maximum(ink, 0)
    inked = ink > 0.1 * ink.max()
    (top, bottom), (left, right) = (
        np.flatnonzero(inked.any(axis))[[0, -1]] + [0, 1] for axis in (1, 0))
    ink = Image.fromarray(ink[top:bottom, left:right])
    size = [max(1, int(round(20 * side / max(ink.size)))) for side in ink.size]
    box = np.asarray(ink.resize(size, Image.BICUBIC))
    box = box.clip(*ink.getextrema())  # bicubic resampling overshoots
    return centre_by_mass(box / box.max()).reshape(784)


def _to_grey(image):
    """Return a picture's grey values, float32 [height, width], at most 1999 a side."""
    if image.mode[0] in 'IF':  # 16 bits and more, which convert('L') would clip
        pixels = np.asarray(image, float)
        if not np.isfinite(pixels).all():
            raise ValueError('it has pixels that are not numbers')
        pixels = pixels.clip(-1e9, 1e9)
        pixels -= pixels.min()
        pixels *= 255 / max(pixels.max(), 1e-9)
        image = Image.fromarray(pixels.astype(np.float32))
    else:
        image = image.convert('RGBA')
    image = image.reduce(max(1, max(image.size) // 1000))  # for speed
    if image.mode != 'RGBA':
        return np.asarray(image, np.float32)
    grey, alpha = (np.asarray(band, np.float32)
                   for band in image.convert('LA').split())
    if np.median(_edge(alpha)) > 127:
        paper = np.median(_edge(grey))
    else:  # transparent paper: give it the grey that differs most from the ink
        paper = 255 * (np.average(grey, weights=alpha + 1e-6) < 128)
    return paper + (grey - paper) * alpha / 255


def _edge(pixels):
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
