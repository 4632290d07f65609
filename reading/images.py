"""Turn an image of a digit into an MNIST digit.

MNIST's digits are grey, with ink near 1 and paper 0. They are fitted to 20 x 20 and
centred by mass in 28 x 28 (LeCun et al., the MNIST page).
"""
import os
import stat

import numpy as np

from training.digits import centre_by_mass
from training.errors import UserError, not_installed

try:
    from PIL import Image, ImageOps
except ImportError:
    raise not_installed('Pillow')
try:
    from scipy import ndimage
except ImportError:
    raise not_installed('scipy')

MAX_SIDE = 10000  # pixels; more than a phone's largest photographs have
EDGE = 0.01  # factor of the score for each side of the picture that a blob touches
UNREADABLE = '%s cannot be read (%s): name an image of a digit'
BRIGHTNESS = np.float32([.299, .587, .114])  # of red, green and blue (ITU-R BT.601)


class NoDigit(ValueError):
    """A picture cannot be turned into a digit, and the message says why."""


def read_image(path, as_is=False, shape=(28, 28)):
    """Read an image file.

    Args:
        path: str, a file in a format that Pillow reads.
        as_is: bool, only scale the picture to shape; do not look for a digit. Black
            is 0 and white is 1. The white of integers with more than 8 bits is 65535;
            that of floats is the first of 1, 255 and 65535 that none is above.
        shape: rows and columns of the images that the network reads.

    Returns:
        The picture, uint8 [height, width, 3]; where its digit is, as `find_digit`
        returns it; and the digit, float32 [784].

    Raises:
        UserError: it cannot be read, shows no digit, or is over `MAX_SIDE`.
    """
    try:
        pixels = _load(path)
    except Exception as error:  # a damaged file makes Pillow raise almost any of them
        raise UserError(UNREADABLE % (path, getattr(error, 'strerror', None) or error))
    try:
        colours = _to_colours(pixels, not as_is)
        box, digit = (_scale if as_is else _find)(colours, shape)
    except NoDigit as error:
        raise UserError(UNREADABLE % (path, error))
    return colours.round().astype(np.uint8), box, digit


def _load(path):
    """Return the pixels of a file as `_decode` does. Pillow may raise any exception."""
    Image.MAX_IMAGE_PIXELS = None  # MAX_SIDE is the limit here
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError('it is not a file')
    with open(path, 'rb') as f:
        if f.read(12)[4:] in (b'ftypheic', b'ftypheix', b'ftypmif1'):
            raise ValueError('it is HEIC, which Pillow does not read; convert it '
                             'with heif-convert photo.heic photo.jpg')
    with Image.open(path) as image:
        if image.format == 'EPS':  # Ghostscript would run it as a program
            raise ValueError('it is an EPS')
        if max(image.size) > MAX_SIDE:
            raise ValueError('it is %d x %d pixels, and %d a side are the most'
                             % (*image.size, MAX_SIDE))
        return _decode(ImageOps.exif_transpose(image))


def normalise(image):
    """Return the digit that `find_digit` finds, float32 [784]."""
    return find_digit(image)[1]


def find_digit(image, shape=(28, 28)):
    """Turn a picture of a digit into an MNIST digit.

    Find the ink, which is dark or bright. Crop the picture to it, fit it to 20 x 20
    without changing its proportions, and centre it by mass in 28 x 28.

    Args:
        image: `PIL.Image.Image` of any size and mode.
        shape: height and width to return instead of 28 x 28; the ink is fitted to
            20 / 28 of them.

    Returns:
        (top, bottom, left, right) of the digit in the picture, whose sides are 1; and
        the digit, float32 [784], from 0 for paper to 1 for the most ink.

    Raises:
        NoDigit: it is blank, shows nothing like one digit, or has NaN or infinity.
    """
    return _find(_to_colours(_decode(image)), shape)


def _find(colours, shape):
    ink = _ink_on_even_paper(colours @ BRIGHTNESS)
    return _fit(_ink_in_a_photograph(colours) if ink is None else ink, shape)


def _scale(colours, shape):
    """Return the box and the pixels of the whole picture."""
    grey = Image.fromarray(colours @ BRIGHTNESS).resize(shape[::-1], Image.BOX)
    return (0, 1, 0, 1), np.asarray(grey).reshape(-1) / 255


def _ink_on_even_paper(grey):
    """Return the ink if a digit on even paper is all that there is, else None.

    The edge of the picture is taken for paper.
    """
    edge = _edge(grey)
    paper = np.median(edge)
    ink = grey - paper
    if -ink.min() > ink.max():
        ink = -ink
    if -ink.min() > 0.5 * ink.max():  # the paper is not at the edge
        return None
    # Subtract the grain. Of normally distributed noise this is two standard deviations.
    ink -= 3 * np.median(np.abs(edge - paper))
    if ink.max() < 25:
        return None
    ink = np.maximum(ink, 0)
    if min(ink.shape) < 64:  # no room for more than a digit
        return ink
    labels, blobs = _label(ink > 0.1 * ink.max(), ink)
    main = blobs[0]
    # A page on a table is one bright thing, too. Soft ink fills less of its box.
    if main.is_solid(0.8) or (
            (ink > 0.3 * ink.max()).sum() > 0.7 * main.height * main.width
            and min(main.height, main.width) > 0.35 * min(ink.shape)):
        return None
    if any(map(main.frames, blobs)):
        return None
    parts = _parts(main, blobs)
    if any(blob.sides_touched or blob.number not in parts
           for blob in blobs if blob.area > 0.01 * main.area):
        return None
    return _only(parts, main, labels, ink)


def _ink_in_a_photograph(colours):
    """Return the ink of what is most like a digit, 0 elsewhere.

    A top-hat transform keeps what is thinner than a quarter of the picture, as strokes
    are, and removes shadows, pages and tables (Serra 1982; scipy.ndimage).
    """
    step = -(-max(colours.shape) // 700)  # for speed
    colours = ndimage.uniform_filter(colours, [step, step, 1])[::step, ::step]
    brightness = colours @ BRIGHTNESS
    # A colour may show ink that is as bright as its paper.
    greys = [brightness] + [grey for grey in np.moveaxis(colours, 2, 0)
                            if np.ptp(grey - brightness) >= 100]
    dark, bright = [], []
    for grey in greys:
        for top_hat, found in ((ndimage.black_tophat, dark),
                               (ndimage.white_tophat, bright)):
            ink = top_hat(grey, max(3, min(grey.shape) // 4), mode='nearest')
            grain = np.median(ink)
            grain += 3 * np.median(np.abs(ink - grain))
            found += _candidates(np.maximum(ink - grain, 0), grey)
    found = [candidates for candidates in (_likely(dark, bright), _likely(bright, dark))
             if candidates]
    if not found:
        raise NoDigit('it is blank' if np.ptp(brightness) < 25
                      else 'nothing in it looks like a digit')
    candidates = max(found, key=lambda candidates: candidates[0][0])
    score, main, blobs, labels, ink = candidates[0]
    parts = _parts(main, blobs)
    if any(other > 0.8 * score and blob.area > 0.6 * main.area
           and main.gap(blob) > 0.15 * main.size for other, blob, *_ in candidates):
        raise NoDigit('it shows several things of one size: crop it to one digit')
    return _only(parts, main, labels, ink)


def _likely(candidates, inverse):
    """Sort candidates, and drop frames and the paper inside a digit, one of inverse."""
    return [candidate for candidate in sorted(candidates, key=lambda one: -one[0])
            if not any(digit.frames(candidate[1]) and digit.sides_touched < 3 and score
                       > 0.5 * EDGE ** digit.sides_touched * candidate[0]
                       for score, digit, *_ in inverse)
            and not any(_is_frame_of(candidate, other) for other in candidates)]


def _is_frame_of(candidate, other):
    """Return whether a candidate lies around another one and has no pixel of it."""
    (score, frame, _, labels, _), (other_score, blob, _, other_labels, _) = (
        candidate, other)
    return frame.frames(blob) and other_score > 0.2 * score and not np.any(
        (labels == frame.number) & (other_labels == blob.number))


def _candidates(ink, grey, again=True):
    """Return (score, blob, all blobs, labels, ink) of blobs that may be a digit.

    If again is true, look also for weaker ink, and without lines that are thinner than
    the ink.
    """
    values = ink[ink > 0]
    if values.size == 0 or np.percentile(values, 99) < 15:
        return []
    # A line over the ink may cut it. Close gaps of up to 4 pixels.
    mask = ndimage.grey_closing(ink, (5, 5)) > _otsu(values)
    labels, blobs = _label(mask, ink)
    found = [(_score(blob, labels, grey), blob, blobs, labels, ink)
             for blob in blobs[:8]
             if blob.size > 0.08 * min(ink.shape) and blob.width < 2.5 * blob.height
             and not blob.is_solid()]
    found = [candidate for candidate in found if candidate[0] > 0]
    if again:  # all this may have hidden weaker ink from Otsu's threshold
        found += _candidates(ink * ~_grown(mask, 3), grey, False)
    if again and any(blob.sides_touched > 1 for blob in blobs):
        # Thin lines may join the ink to the edges.
        found += _candidates(ndimage.grey_opening(ink, (5, 5)), grey, False)
    return found


def _score(blob, labels, grey):
    """Return how much a blob looks like ink on paper: large, strong, on even ground."""
    margin = 8 + blob.size // 2
    around = tuple(slice(max(0, side.start - margin), side.stop + margin)
                   for side in blob.place)
    grey, inside = grey[around], labels[around] == blob.number
    near = _grown(inside, 3)
    ground = grey[_grown(near, 4) & ~near]
    if not ground.size:
        return 0
    usual = np.median(grey)
    ink = grey[inside].mean()
    if abs(ink - usual) < abs(ground.mean() - usual):
        return 0  # it is the paper between strokes
    contrast = abs(ink - ground.mean())
    evenness = contrast / (ground.std() + 0.1 * contrast + 2)
    return (blob.size * contrast) ** 0.5 * evenness * EDGE ** blob.sides_touched


class Blob(object):
    """A connected part of a mask: place is its slices, strength its mean ink."""

    def __init__(self, number, area, strength, place, shape):
        self.number, self.area, self.strength = number, area, strength
        self.place = place
        self.height, self.width = (side.stop - side.start for side in place)
        self.size = max(self.height, self.width)
        self.sides_touched = sum(
            (side.start == 0) + (side.stop == end) for side, end in zip(place, shape))

    def is_solid(self, share=0.75):
        """Return whether it fills a share of its box, as a page does, but no digit.

        A 1 does, but it is slender.
        """
        return (self.area > share * self.height * self.width
                and self.size < 2 * min(self.height, self.width))

    def frames(self, other):
        """Return whether another blob lies in its box, as a digit in a frame does."""
        return other.size > 0.15 * self.size and all(
            outer.start < inner.start and inner.stop < outer.stop
            for outer, inner in zip(self.place, other.place))

    def gap(self, other):
        """Return how many pixels are between the boxes, less than 0 if they overlap."""
        return max(max(one.start - two.stop, two.start - one.stop)
                   for one, two in zip(self.place, other.place))


def _label(mask, ink):
    """Return the number of the blob at each pixel, 0 for none, and the `Blob`s.

    The largest has the number 1.
    """
    labels, count = ndimage.label(mask, np.ones([3, 3]))
    areas = np.bincount(labels.ravel(), minlength=2)
    strengths = np.bincount(labels.ravel(), ink.ravel(), 2) / np.maximum(areas, 1)
    # Drop all but the largest, for speed: a dithered scan has 50,000.
    largest = 1 + np.argsort(-areas[1:], kind='stable')[:200]
    numbers = np.zeros(len(areas), np.uint8)
    numbers[largest] = range(1, len(largest) + 1)
    labels = numbers[labels]
    return labels, [Blob(number, areas[old], strengths[old], place, mask.shape)
                    for number, (old, place)
                    in enumerate(zip(largest, ndimage.find_objects(labels)), 1)]


def _parts(main, blobs):
    """Return the numbers of the blobs of a digit. Its largest blob is main."""
    return [blob.number for blob in blobs if blob is main or (
        main.gap(blob) < 0.15 * main.size and blob.area > 0.03 * main.area
        and blob.size < 1.2 * main.size and blob.sides_touched <= main.sides_touched
        and 0.6 * main.strength < blob.strength < main.strength / 0.6)]


def _only(parts, main, labels, ink):
    """Return the ink of the blobs whose numbers are in parts, and their soft edges."""
    chosen = np.zeros(256, bool)  # faster than np.isin
    chosen[parts] = True
    return ink * _grown(chosen[labels], max(1, main.size // 25))


def _grown(mask, pixels):
    return ndimage.binary_dilation(mask, iterations=pixels)


def _otsu(values):
    """Return the threshold that separates two kinds of values best (Otsu 1979)."""
    counts, edges = np.histogram(values, 256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, sums = counts.cumsum()[:-1], (counts * middles).cumsum()
    above = counts.sum() - below
    means = (sums[:-1] / np.maximum(below, 1),
             (sums[-1] - sums[:-1]) / np.maximum(above, 1))
    return middles[np.argmax(below * above * (means[0] - means[1]) ** 2)]


def _fit(ink, shape):
    """Return the box of the ink, and the ink as a digit, for `find_digit`."""
    inked = ink > 0.1 * ink.max()
    (top, bottom), (left, right) = (
        np.flatnonzero(inked.any(axis))[[0, -1]] + [0, 1] for axis in (1, 0))
    height, width = ink.shape
    ink = Image.fromarray(ink[top:bottom, left:right])
    # Image.size is width, height.
    scale = min(20 / 28 * whole / side for whole, side in zip(shape[::-1], ink.size))
    size = [max(1, int(round(scale * side))) for side in ink.size]
    box = np.asarray(ink.resize(size, Image.BICUBIC))
    box = box.clip(*ink.getextrema())  # bicubic resampling overshoots
    return ((top / height, bottom / height, left / width, right / width),
            centre_by_mass(box / box.max(), shape).reshape(-1))


def _decode(image):
    """Return the pixels of a `PIL.Image.Image`.

    Those of 16 bits and more, which convert('RGB') would clip: [height, width]. Others:
    uint8 [height, width, 3], or 4 with transparency, below 2000 a side.
    """
    if image.mode[0] in 'IF':
        return np.asarray(image)
    alpha = 'A' in image.getbands() or 'transparency' in image.info
    return np.asarray(_reduce(image.convert('RGBA' if alpha else 'RGB')))


def _reduce(image):
    """Reduce a picture to less than 2000 pixels a side, for speed."""
    return image.reduce(max(1, max(image.size) // 1000))


def _to_colours(pixels, stretch=True):
    """Return the colours of decoded pixels, float32 [height, width, 3], 0 to 255."""
    if pixels.ndim == 2:
        grey = _reduce(Image.fromarray(_to_8_bits(pixels, stretch)))
        return np.repeat(np.asarray(grey)[..., None], 3, 2)
    pixels = pixels.astype(np.float32)
    if pixels.shape[2] == 3:
        return pixels
    colours, alpha = pixels[..., :3], pixels[..., 3:] / 255
    if alpha.mean() > .5:
        paper = np.median(colours[alpha[..., 0] > .5], 0)
    else:  # transparent paper: give it the grey that differs most from the ink
        paper = 255 * (np.average(colours @ BRIGHTNESS, weights=alpha[..., 0] + 1e-6)
                       < 128)
    return paper + (colours - paper) * alpha


def _to_8_bits(pixels, stretch):
    """Return pixels of 16 bits or more as float32 in [0, 255].

    If stretch is true, the darkest becomes 0 and the brightest 255. If not, 0 stays 0,
    and the docstring of `read_image` says which value becomes 255.
    """
    values = pixels.astype(float)
    if not np.isfinite(values).all():
        raise NoDigit('it has pixels that are not numbers')
    if stretch:
        values = values.clip(-1e9, 1e9)
        values -= values.min()
        white = max(values.max(), 1e-9)
    elif pixels.dtype.kind == 'f' and values.max() <= 255:
        white = 255 if values.max() > 1 else 1
    else:
        white = 65535
    return (values * (255 / white)).clip(0, 255).astype(np.float32)


def _edge(pixels):
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
