"""A picture of a digit, made like MNIST's.

MNIST's digits are grey, ink high on paper 0, fitted to 20 x 20 and laid into
28 x 28 by their centre of mass (LeCun et al., the MNIST page).
"""
import os
import stat

import numpy as np

from training import packages
from training.digits import centre_by_mass
from training.errors import UserError

try:
    from PIL import Image, ImageOps
except ImportError:
    raise packages.missing('Pillow')

MAX_SIDE = 10000  # pixels; a phone's largest photographs stay below


def read_image(path):
    """Reads an image file as the network wants it.

    Args:
        path: str, a file in a format that Pillow reads.

    Returns:
        float32 [784], as `normalise` gives it.

    Raises:
        UserError: it can't be read, is no image, has a side of more than
            10,000 pixels, or is blank.
    """
    Image.MAX_IMAGE_PIXELS = None  # MAX_SIDE is the limit here
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError('it is not a file')
        with Image.open(path) as image:
            if image.format == 'EPS':  # a program, which Ghostscript would run
                raise ValueError('it is an EPS')
            if max(image.size) > MAX_SIDE:
                raise ValueError('it is %d x %d pixels, and %d a side are the '
                                 'most' % (*image.size, MAX_SIDE))
            return normalise(ImageOps.exif_transpose(image))
    # Pillow's decoders raise nearly anything on a damaged file.
    except Exception as error:
        raise UserError(
            '%s cannot be read (%s): name an image of a digit'
            % (path, getattr(error, 'strerror', None) or error))


def normalise(image):
    """Makes of a picture of a digit what MNIST would have made of it.

    It becomes grey, with bright ink on paper that is 0, whichever was darker.
    It is cropped to the ink, fitted to 20 x 20 with its proportions kept, and
    centred by mass in 28 x 28 (`centre_by_mass`). What is at the edge of the
    picture is taken for paper.

    Args:
        image: `PIL.Image.Image` of any size and mode.

    Returns:
        float32 [784], from 0 for paper to 1 for the most ink.

    Raises:
        ValueError: the picture is blank, or has NaN or infinity in it.
    """
    if image.mode[0] in 'IF':  # 16 bits and more, which mode L would cut off
        pixels = np.asarray(image, float)
        if not np.isfinite(pixels).all():
            raise ValueError('it has pixels that are not numbers')
        pixels = pixels.clip(-1e9, 1e9)
        pixels -= pixels.min()
        pixels *= 255 / max(pixels.max(), 1e-9)
        image = Image.fromarray(pixels.astype(np.float32))
    else:
        image = image.convert('RGBA')
    # A photograph's finest detail would only take time.
    image = image.reduce(max(1, max(image.size) // 1000))
    if image.mode == 'RGBA':
        image = _on_paper(image)

    pixels = np.asarray(image, np.float32)
    edge = _edge(pixels)
    paper = np.median(edge)
    ink = pixels - paper
    if -ink.min() > ink.max():
        ink = -ink
    # The paper's own grain and shadows: two standard deviations, were they
    # normally distributed, taken from the median, which ink at the edge leaves
    # as it is.
    ink -= 3 * np.median(np.abs(edge - paper))
    if ink.max() < 25:
        raise ValueError('it is blank')
    ink = np.maximum(ink, 0)
    inked = ink > 0.1 * ink.max()
    (top, bottom), (left, right) = (
        np.flatnonzero(inked.any(axis))[[0, -1]] + [0, 1] for axis in (1, 0))
    ink = Image.fromarray(ink[top:bottom, left:right])
    box = np.asarray(ink.resize(
        [max(1, int(round(20 * side / max(ink.size)))) for side in ink.size],
        Image.BICUBIC))
    box = box.clip(*ink.getextrema())  # cubic interpolation goes beyond
    return centre_by_mass(box / box.max()).reshape(784)


def _edge(pixels):
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _on_paper(image):
    """Makes a picture in mode RGBA grey, with paper where it was transparent."""
    grey, alpha = (np.asarray(band, np.float32)
                   for band in image.convert('LA').split())
    if np.median(_edge(alpha)) > 127:
        paper = np.median(_edge(grey))
    else:  # ink and no paper: as far from the ink as can be
        paper = 255 * (np.average(grey, weights=alpha + 1e-6) < 128)
    return Image.fromarray(paper + (grey - paper) * alpha / 255)
