"""Turn an image of a digit into an MNIST digit.

MNIST's digits are grey, with ink near 1 and paper 0. They are fitted to 20 x 20 and
centred by mass in 28 x 28 (LeCun et al., the MNIST page).
"""
import os
import stat
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
TURNS = {2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM,
         5: Image.TRANSPOSE, 6: Image.ROTATE_270, 7: Image.TRANSVERSE,
         8: Image.ROTATE_90}  # the EXIF orientation
EDGE = 0.01  # factor of the score for each side of the picture that a blob touches
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
        The picture, uint8 [height, width, 3], and a list of what `find_digit` returns
        for each of its digits.

    Raises:
        UserError: it cannot be read, shows no digit, or is over `MAX_SIDE`.
    """
    try:
        pixels = _load(path)
    except Exception as error:  # a damaged file makes Pillow raise almost any of them
        raise UserError(UNREADABLE % (path, getattr(error, 'strerror', None) or error))
    try:
        colours = _to_colours(pixels, not as_is)
        digits = (_scale if as_is else _find)(colours, shape)
    except NoDigit as error:
        raise UserError(UNREADABLE % (path, error))
    return colours.round().astype(np.uint8), digits


def _load(path):
    """Return the pixels of a file as `_decode` does. Pillow may raise any exception."""
    Image.MAX_IMAGE_PIXELS = None  # MAX_SIDE is the limit here
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError('it is not a file')
    with open(path, 'rb') as f:
        if f.read(12)[4:] in (b'ftypheic', b'ftypheix', b'ftypmif1'):
            raise ValueError('it is HEIC, which Pillow does not read; convert it '
                             'with heif-convert photo.heic photo.jpg')
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # read a PNG whose colour profile is damaged
    with Image.open(path) as image:
        ImageFile.LOAD_TRUNCATED_IMAGES = False  # but not one whose pixels are
        if image.format == 'EPS':  # Ghostscript would run it as a program
            raise ValueError('it is an EPS')
        image.draft(None, (1000, 1000))  # reduces a JPEG while it is decoded
        if max(image.size) > MAX_SIDE:
            raise ValueError('it is %d x %d pixels, and %d a side are the most'
                             % (*image.size, MAX_SIDE))
        try:
            turn = TURNS.get(image.getexif().get(0x112))
        except Exception:  # other EXIF values are damaged, which does not matter
            turn = None
        if image.format in ('GIF', 'TIFF') and image.n_frames > 1:
            print('note: %s has %d pages: only the first is read'
                  % (path, image.n_frames), file=sys.stderr)
        return _decode(image if turn is None else image.transpose(turn))


def normalise(image):
    """Return the digit that `find_digit` finds."""
    return find_digit(image)[1]


def find_digit(image):
    """Turn a `PIL.Image.Image` of one digit into an MNIST digit.

    Returns:
        (top, bottom, left, right) of the digit in the picture, whose sides are 1; and
        the digit, float32 [784], from 0 for paper to 1 for the most ink.

    Raises:
        NoDigit: it is blank, shows nothing like one digit, or has NaN or infinity.
    """
    digits = _find(_to_colours(_decode(image)), (28, 28))
    if len(digits) > 1:
        raise NoDigit(SEVERAL)
    return digits[0]


def _find(colours, shape):
    """Return what `find_digit` does, for each digit: left to right, top to bottom."""
    inks = (_inks_on_even_paper(colours @ BRIGHTNESS)
            or [_ink_in_a_photograph(colours)])
    return [_fit(ink, shape) for ink in inks]


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

    Else return an empty list. The edge of the picture is taken for paper.
    """
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = np.median(edge)
    ink = max(grey - paper, paper - grey, key=np.max)
    if -ink.min() > 0.5 * ink.max():  # the paper is not at the edge
        return []
    # Subtract the grain. Of normally distributed noise this is two standard deviations.
    ink -= 3 * np.median(np.abs(edge - paper))
    if ink.max() < 25:
        return []
    ink = np.maximum(ink, 0)
    labels, blobs = _label(ink > 0.1 * ink.max(), ink)
    if min(ink.shape) < 64:  # no room for more than a digit
        weak = [blob.number for blob in blobs
                if blob.sides_touched and blob.strength < 0.3 * ink.max()]
        return [ink * ~np.isin(labels, weak)]
    main = blobs[0]
    if main.is_page(ink.max(), 0.8) or main.sides_touched and (
            not main.is_drawn(labels) or main.size < 0.6 * min(ink.shape)
            or main.size > 2 * min(main.height, main.width)):
        return []
    digits = []  # each a list of blobs, the largest first
    for blob in blobs:
        if blob.area > 0.01 * main.area and not any(blob in digit for digit in digits):
            digits.append(_parts(blob, blobs))
    if any(any(map(blob.frames, blobs)) or len(digits) > 1 and (
            blob.sides_touched or not blob.is_drawn(labels)
            or blob.height < 0.5 * main.height or blob.strength < 0.4 * ink.max())
           for blob, *_ in digits):
        return []
    return [_only(digit, labels, ink) for digit in _in_reading_order(digits)]


def _in_reading_order(digits):
    """Sort digits left to right, top to bottom."""
    rows = []
    for digit in sorted(digits, key=lambda digit: digit[0].place[0].start):
        first = rows[-1][0][0].place[0] if rows else slice(-1, -1)
        if 2 * digit[0].place[0].start > first.start + first.stop:
            rows.append([])
        rows[-1].append(digit)
    return [digit for row in rows
            for digit in sorted(row, key=lambda digit: digit[0].place[1].start)]


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
    candidates = max(_likely(dark, bright), _likely(bright, dark),
                     key=lambda candidates: candidates[0][0] if candidates else 0)
    if not candidates:
        raise NoDigit('it is blank' if np.ptp(brightness) < 25
                      else 'nothing in it looks like a digit')
    score, main, blobs, labels, ink = candidates[0]
    parts = _parts(main, blobs)
    if any(other > 0.3 * score and 0.5 * main.height < blob.height < 2 * main.height
           and main.gap(blob) > 0.15 * main.size for other, blob, *_ in candidates):
        raise NoDigit(SEVERAL)
    return _only(parts, labels, ink)


def _likely(candidates, inverse):
    """Sort candidates, and drop frames and the paper inside a digit, one of inverse."""
    return [one for one in sorted(candidates, key=lambda one: -one[0])
            if not any(digit.frames(one[1]) and digit.sides_touched < 3
                       and score > 0.5 * EDGE ** digit.sides_touched * one[0]
                       for score, digit, *_ in inverse)
            and not any(one[1].frames(other[1]) and other[0] > 0.2 * one[0]
                        for other in candidates)]


def _candidates(ink, grey, again=True):
    """Return (score, blob, all blobs, labels, ink) of blobs that may be a digit.

    If again is true, look also for weaker ink, and without lines that are thinner than
    the ink.
    """
    values = ink[ink > 0]
    if values.size == 0:
        return []
    # A line over the ink may cut it. Close gaps of up to 4 pixels.
    mask = ndimage.grey_closing(ink, (5, 5)) > _otsu(values)
    labels, blobs = _label(mask, ink)
    found = [(score, blob, blobs, labels, ink)
             for blob in blobs[:8] if not blob.is_page()
             for score in [_score(blob, labels, grey)] if score]
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
    ground = grey[_grown(inside, 7) & ~_grown(inside, 3)]
    usual, ink = np.median(grey), grey[inside].mean()
    if not ground.size or abs(ink - usual) < abs(ground.mean() - usual):
        return 0  # it is the paper between strokes
    contrast = abs(ink - ground.mean())
    return ((blob.size * contrast) ** 0.5 * contrast / (ground.std() + 2)
            * EDGE ** blob.sides_touched)


class Blob(object):
    """A connected part of a mask: place is its slices, strength its mean ink."""

    def __init__(self, number, area, strength, place, shape):
        self.number, self.area, self.strength = number, area, strength
        self.place = place
        self.height, self.width = (side.stop - side.start for side in place)
        self.size = max(self.height, self.width)
        self.sides_touched = sum(
            (side.start == 0) + (side.stop == end) for side, end in zip(place, shape))

    def is_page(self, most_ink=0, share=0.75):
        """Return whether it fills its box, and is not slender or strong, as a 1 is."""
        return self.area > share * self.height * self.width and (
            self.size < 2 * min(self.height, self.width)
            or self.strength < 0.5 * most_ink)

    def is_drawn(self, labels):
        """Return whether its strokes are thin for its size."""
        inside = np.pad(labels[self.place] == self.number, 1, 'constant')
        return ndimage.distance_transform_cdt(inside).max() < 0.15 * self.size

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
    """Return the blobs of a digit. Its largest blob, main, is the first."""
    return [main] + [blob for blob in blobs if blob is not main and (
        main.gap(blob) < 0.15 * main.size and blob.area > 0.03 * main.area
        and blob.size < 1.2 * main.size and blob.sides_touched <= main.sides_touched
        and 0.6 * main.strength < blob.strength < main.strength / 0.6)]


def _only(parts, labels, ink):
    """Return the ink of the blobs in parts, and their soft edges."""
    chosen = np.zeros(256, bool)  # faster than np.isin
    chosen[[blob.number for blob in parts]] = True
    return ink * _grown(chosen[labels], max(1, parts[0].size // 25))


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
    """Return the pixels of a `PIL.Image.Image`.

    Those of 16 bits and more, which convert('RGB') would clip: [height, width]. Others:
    uint8 [height, width, 3], or 4 with transparency, below 2000 a side.
    """
    if image.mode[0] in 'IF':
        return np.asarray(image)
    alpha = 'A' in image.getbands() or 'transparency' in image.info
    return _reduce(image.convert('RGBA' if alpha else 'RGB'))


def _reduce(image):
    return np.asarray(image.reduce(max(1, max(image.size) // 1000)))


def _to_colours(pixels, stretch=True):
    """Return the colours of decoded pixels, float32 [height, width, 3], 0 to 255."""
    if pixels.ndim == 2:
        grey = _reduce(Image.fromarray(_to_8_bits(pixels, stretch)))
        return np.repeat(grey[..., None], 3, 2)
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
