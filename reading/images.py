"""Turn an image of a digit into an MNIST digit.

MNIST's digits are grey, with ink near 1 and paper 0. They are fitted to 20 x 20 and
centred by mass in 28 x 28 (LeCun et al., the MNIST page).
"""
import contextlib
import os
import sys

import numpy as np

from training.digits import centre_by_mass
from training.errors import UserError, not_installed

try:
    from PIL import Image, ImageFile
except ImportError:
    raise not_installed('Pillow')
try:
    from scipy import ndimage
except ImportError:
    raise not_installed('scipy')

MAX_SIDE = 10000  # pixels, after the JPEG decoder's reduction by up to 8
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # for transpose, by orientation
UNREADABLE = '%s cannot be read (%s): name an image of a digit'
SEVERAL = 'it shows several things of one size: crop it to one digit'
BRIGHTNESS = np.float32([.299, .587, .114])  # of red, green and blue (ITU-R BT.601)


class NoDigit(ValueError):
    """A picture cannot be turned into a digit, and the message says why."""


def read_image(path, as_is=False, shape=(28, 28)):
    """Read a file in a format that Pillow reads.

    If as_is is true, only scale the picture to shape, the rows and columns that the
    network reads. Black is 0 and white is 1. The white of integers with more than 8
    bits is 65535; that of floats is the first of 1, 255 and 65535 that none is above.

    Returns:
        The picture, uint8 [height, width, 3]; and for each of its digits, left to right
        and top to bottom, (top, bottom, left, right) in the picture, whose sides are 1;
        and the digit, float32 [pixels], from 0 for paper to 1 for the most ink.

    Raises:
        UserError: it cannot be read, shows no digit, or is over `MAX_SIDE`.
    """
    try:
        image = _load(path)
    except Exception as error:  # a damaged file makes Pillow raise almost any of them
        raise UserError(UNREADABLE % (path, getattr(error, 'strerror', None) or error))
    try:
        colours = _to_colours(image, not as_is)
        digits = (_scale if as_is else _find)(colours, shape)
    except NoDigit as error:
        raise UserError(UNREADABLE % (path, error))
    return colours.round().astype(np.uint8), digits


def _load(path):
    """Return what `_decode` makes of a file. Pillow may raise any exception."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError('it is not a file')
    with open(path, 'rb') as f:
        if f.read(12)[4:] in (b'ftypheic', b'ftypheix', b'ftypmif1'):
            raise ValueError('it is HEIC, which Pillow does not read; convert it '
                             'with heif-convert photo.heic photo.jpg')
    Image.MAX_IMAGE_PIXELS = None  # MAX_SIDE is the limit here
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # read a PNG whose colour profile is damaged
    with Image.open(path) as image:
        ImageFile.LOAD_TRUNCATED_IMAGES = False  # but not one whose pixels are
        if image.format == 'EPS':  # Ghostscript would run it as a program
            raise ValueError('it is an EPS')
        image.draft(None, (1000, 1000))  # reduces a JPEG while it is decoded
        if max(image.size) > MAX_SIDE:
            raise ValueError('it is %d x %d pixels, and %d a side are the most'
                             % (*image.size, MAX_SIDE))
        if image.format in ('GIF', 'TIFF') and image.n_frames > 1:
            print('note: %s has %d pages: only the first is read'
                  % (path, image.n_frames), file=sys.stderr)
        with contextlib.suppress(Exception):  # most have no EXIF, or it is damaged
            image = image.transpose(TURNS[image.getexif()[0x112]])
        return _decode(image)


def _find(colours, shape):
    """Return the digits in a picture as `read_image` does."""
    inks = _inks_on_even_paper(colours @ BRIGHTNESS)
    return [_fit(ink, shape) for ink in inks or [_ink_in_a_photograph(colours)]]


def doubt(digit):
    """Return why a digit, [rows, columns], may be no digit, or ''.

    Of MNIST's test images, about 1 % are doubted.
    """
    mask = np.pad(digit > 0.3, 1, 'constant')
    height, width = (np.ptp(where) + 1 for where in np.nonzero(mask))
    if width > 1.6 * height:
        return 'is wide: it may be several digits'
    labels, _ = ndimage.label(~mask)
    if (np.bincount(labels[~mask])[2:] > 1).sum() > 2:
        return 'has more holes than a digit'
    if ndimage.distance_transform_edt(mask).max() > 0.15 * max(digit.shape):
        return 'is not made of strokes'
    return ''


def _scale(colours, shape):
    """Return the box and the pixels of the whole picture."""
    grey = Image.fromarray(colours @ BRIGHTNESS).resize(shape[::-1], Image.BOX)
    return [((0, 1, 0, 1), np.asarray(grey).reshape(-1) / 255)]


def _inks_on_even_paper(grey):
    """Return the ink of each digit if digits on even paper are all that there is.

    Else return an empty list, as for a page, a frame, what touches the edge but is no
    drawing, or digits of two sizes. The edge of the picture is taken for paper.
    """
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = np.median(edge)
    ink = max(grey - paper, paper - grey, key=np.max)
    if -ink.min() > 0.5 * ink.max():  # the paper is not at the edge
        return []
    # Subtract the grain. Of normally distributed noise this is two standard deviations.
    ink = np.maximum(ink - 3 * np.median(np.abs(edge - paper)), 0)
    labels, blobs = _label(ink > 0.1 * ink.max(), ink)
    if min(ink.shape) < 64 and blobs:  # no room for more than a digit
        weak = [blob.number for blob in blobs
                if blob.sides_touched and blob.strength < 0.3 * ink.max()]
        return [ink * ~np.isin(labels, weak)]
    digits = []  # each a list of blobs, the largest first
    for blob in blobs:
        if (blob.area > 0.01 * blobs[0].area
                and not any(blob in digit for digit in digits)):
            digits.append(_parts(blob, blobs))
    if any(main.size > 28 and main.area > 0.8 * main.height * main.width and not (
               main.is_slender and main.strength > 0.5 * ink.max())  # unlike a 1
           or any(map(main.frames, blobs))
           or main.sides_touched and (len(digits) > 1 or main.is_slender or 0.15 < (
               ndimage.distance_transform_cdt(labels == main.number).max() / main.size))
           or main.height < 0.5 * blobs[0].height for main, *_ in digits):
        return []
    rows = [main.place[0] for main, *_ in digits]

    def order(digit):  # first by the top of the highest digit beside it
        row, column = digit[0].place
        return min(other.start for other in rows
                   if 2 * row.start < other.start + other.stop), column.start

    digits.sort(key=order)
    return [_only(digit, labels, ink) for digit in digits]


def _ink_in_a_photograph(colours):
    """Return the ink of what is most like a digit, 0 elsewhere.

    A top-hat transform keeps what is thinner than a quarter of the picture, as strokes
    are, and removes shadows, pages and tables (Serra 1982; scipy.ndimage).
    """
    brightness = colours @ BRIGHTNESS
    # A colour may show ink that is as bright as its paper.
    greys = [brightness] + [grey for grey in np.moveaxis(colours, 2, 0)
                            if np.ptp(grey - brightness) >= 100]
    found = []
    for grey in greys:
        for top_hat in (ndimage.black_tophat, ndimage.white_tophat):
            ink = top_hat(grey, max(3, min(grey.shape) // 4), mode='nearest')
            found += _candidates(np.maximum(ink - 3 * np.median(ink), 0), grey)
    found = [(score, blob, *rest) for score, blob, *rest in found if not any(
        blob.frames(other) and strong > 0.2 * score for strong, other, *_ in found)]
    score, main, blobs, labels, ink = max(found, key=lambda one: one[0],
                                          default=(0,) * 5)
    if not score:
        raise NoDigit('it is blank' if np.ptp(brightness) < 25
                      else 'nothing in it looks like a digit')
    if any(other > 0.25 * score and 0.5 * main.height < blob.height < 2 * main.height
           and main.gap(blob) > 0.15 * main.size for other, blob, *_ in found):
        raise NoDigit(SEVERAL)
    return _only(_parts(main, blobs), labels, ink)


def _candidates(ink, grey, again=True):
    """Return (score, blob, all blobs, labels, ink) of blobs that may be a digit."""
    # A line over the ink may cut it. Close gaps of up to 4 pixels.
    usual = np.average(ink, weights=ink + 1e-9)
    mask = ndimage.grey_closing(ink, (5, 5)) > 0.35 * usual
    labels, blobs = _label(mask, ink)
    found = [(_score(blob, labels, grey), blob, blobs, labels, ink)
             for blob in blobs[:8]]
    if again:  # thin lines may join the ink to the edges, or hide weaker ink
        found += _candidates(ndimage.grey_opening(ink, (5, 5)), grey, False)
        found += _candidates(ink * ~_grown(mask, 3), grey, False)
    return found


def _score(blob, labels, grey):
    """Return how much a blob looks like ink on paper: large, strong, on even ground."""
    margin = 8 + blob.size // 2
    around = tuple(slice(max(0, side.start - margin), side.stop + margin)
                   for side in blob.place)
    grey, inside = grey[around], labels[around] == blob.number
    ground = grey[_grown(inside, 7) & ~_grown(inside, 3)]
    usual, ink = np.median(grey), grey[inside].mean()
    if not ground.size or abs(ink - usual) < abs(ground.mean() - usual):
        return 0  # it is the paper between strokes
    contrast = abs(ink - ground.mean())
    return ((blob.size * contrast) ** 0.5 * contrast / (ground.std() + 2)
            * 0.01 ** blob.sides_touched)


class Blob(object):
    """A connected part of a mask: place is its slices, strength its mean ink."""

    def __init__(self, number, area, strength, place, shape):
        self.number, self.area, self.strength = number, area, strength
        self.place = place
        self.height, self.width = (side.stop - side.start for side in place)
        self.size = max(self.height, self.width)
        self.is_slender = self.size >= 2 * min(self.height, self.width)
        self.sides_touched = sum(
            (side.start == 0) + (side.stop == end) for side, end in zip(place, shape))

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
    """Return the number of the blob at each pixel, and the 200 largest `Blob`s."""
    labels, count = ndimage.label(mask, np.ones([3, 3]))
    areas = np.bincount(labels.ravel())[1:]
    strengths = ndimage.mean(ink, labels, range(1, count + 1))
    places = ndimage.find_objects(labels)
    return labels, [Blob(k + 1, areas[k], strengths[k], places[k], mask.shape)
                    for k in np.argsort(-areas, kind='stable')[:200]]


def _parts(main, blobs):
    """Return the blobs of a digit. Its largest blob, main, is the first."""
    return [main] + [blob for blob in blobs if blob is not main and (
        main.gap(blob) < 0.15 * main.size and blob.area > 0.03 * main.area
        and blob.size < 1.2 * main.size and blob.sides_touched <= main.sides_touched
        and 0.6 * main.strength < blob.strength < main.strength / 0.6)]


def _only(parts, labels, ink):
    """Return the ink of the blobs in parts, and their soft edges."""
    mask = np.isin(labels, [blob.number for blob in parts])
    return ink * _grown(mask, 1 + parts[0].size // 25)


def _grown(mask, pixels):
    return ndimage.binary_dilation(mask, iterations=pixels)


def _fit(ink, shape):
    """Return the box of the ink, and the ink as a digit."""
    box, digit = _crop(ink)
    if max(digit.shape) > max(shape):  # MNIST's own images stay as they are
        digit = _deslant(digit)
    digit = _resize(_crop(_thicken(digit, shape))[1], 20 / 28, shape)
    return (np.divide(box, np.repeat(ink.shape, 2)),
            centre_by_mass(digit / digit.max(), shape).reshape(-1))


def _crop(ink):
    """Return the top, bottom, left and right of the ink, and what is inside."""
    inked = ink > 0.1 * ink.max()
    (top, bottom), (left, right) = (
        np.flatnonzero(inked.any(axis))[[0, -1]] + [0, 1] for axis in (1, 0))
    return (top, bottom, left, right), ink[top:bottom, left:right]


def _resize(ink, share, shape):
    """Fit ink to a share of a shape without changing its proportions."""
    image = Image.fromarray(ink)
    # Image.size is width, height.
    scale = share * min(whole / side for whole, side in zip(shape[::-1], image.size))
    size = [max(1, int(round(scale * side))) for side in image.size]
    # Bicubic resampling overshoots.
    return np.asarray(image.resize(size, Image.BICUBIC)).clip(*image.getextrema())


def _deslant(ink):
    """Shear ink by 0.3 of its slant, which is the regression of x on y."""
    y, x = np.indices(ink.shape)
    y = y - np.average(y, weights=ink)
    slant = 0.3 * (ink * y * x).sum() / max((ink * y ** 2).sum(), 1e-9)
    ink = np.pad(ink, ((0, 0), [int(abs(slant) * len(ink)) + 1] * 2), 'constant')
    return np.asarray(Image.fromarray(ink).transform(
        ink.shape[::-1], Image.AFFINE, (1, slant, slant * y[0, 0], 0, 1, 0),
        Image.BILINEAR))


def _thicken(ink, shape):
    """Make strokes as thick as MNIST's median, 2.2 of 20 pixels, if they are thinner.

    A hole keeps most of its radius, or small loops would close.
    """
    unit = max(shape) / 7  # a pixel of the digit, in ink that is four times as large
    large = np.pad(_resize(ink, 20 / 7, shape), int(2 * unit), 'constant')
    mask = large > 0.5 * large.max()
    depth = ndimage.distance_transform_edt(mask)
    ridge = mask & (depth == ndimage.maximum_filter(depth, 3))
    radius = (2.2 * unit - 2 * np.median(depth[ridge]) + 1) / 2
    if radius < 0.1 * unit:
        return ink
    away = ndimage.distance_transform_edt(~mask)
    holes, count = ndimage.label(~mask)  # 1 is outside
    limits = 0.2 * ndimage.maximum(away, holes, range(count + 1))
    y, x = np.mgrid[-int(radius):radius + 1, -int(radius):radius + 1]
    grown = ndimage.grey_dilation(large, footprint=np.hypot(y, x) <= radius)
    return np.where((holes < 2) | (away <= limits[holes]), grown, large).clip(
        max=0.8 * large.max())


def _decode(image):
    """Decode a `PIL.Image.Image`: to RGBA, which would clip 16 bits and more."""
    return image.convert(image.mode if image.mode[0] in 'IF' else 'RGBA')


def _to_colours(image, stretch=True):
    """Return the colours of a decoded image, float32 [height, width, 3], 0 to 255.

    It is reduced to at most 1000 a side. If stretch is true, the darkest value of more
    than 8 bits becomes 0 and the brightest 255. If not, see `read_image`.
    """
    if image.mode != 'RGBA':
        values = np.asarray(image, float)
        if not np.isfinite(values).all():
            raise NoDigit('it has pixels that are not numbers')
        whites = [1, 255, 65535] if image.mode == 'F' else [65535] * 3
        ends = [values.min(), values.max()] if stretch else [
            0, whites[np.searchsorted(whites[:2], values.max())]]
        image = Image.fromarray(np.interp(values, ends, [0, 255]).astype(np.float32))
    pixels = np.asarray(image.reduce(-(-max(image.size) // 1000)), np.float32)
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, 2)
    colours, alpha = pixels[..., :3], pixels[..., 3:] / 255
    if alpha.mean() > .5:
        paper = np.median(colours[alpha[..., 0] > .5], 0)
    else:  # transparent paper: give it the grey that differs most from the ink
        paper = 255 * (np.average(colours @ BRIGHTNESS, weights=alpha[..., 0] + 1e-6)
                       < 128)
    return paper + (colours - paper) * alpha
