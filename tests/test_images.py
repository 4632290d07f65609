import struct
import subprocess
import sys

import hypothesis
import hypothesis.extra.numpy
import numpy as np
import pytest
from conftest import ROOT, find_digit, jpeg, normalise, pixels
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from test_photographs import draw

import data
from reading import images
from reading.images import read_image
from training.errors import UserError

# How a file may show a digit: the largest mean distance of a pixel from the digit
# itself, and the function that makes the file. Two different digits are at least
# 0.045 apart, usually 0.12.
LOOKS = {
    'as it is': (0.005, Image.fromarray),
    'dark ink': (0.005, lambda a: Image.fromarray(255 - a)),
    'grey on grey': (0.005, lambda a: Image.fromarray(180 - a // 3)),
    'off the middle': (0.005, lambda a: Image.fromarray(
        np.pad(a, ((50, 3), (2, 80)), 'constant'))),
    'tall': (0.005, lambda a: Image.fromarray(np.pad(
        255 - a, ((0, 900), (0, 0)), 'constant', constant_values=255))),
    'RGB': (0.005, lambda a: Image.fromarray(255 - a).convert('RGB')),
    'CMYK': (0.005, lambda a: jpeg(Image.fromarray(255 - a).convert('CMYK'),
                                   quality=95)),
    '16 bits': (0.005, lambda a: Image.fromarray(
        60000 - 200 * a.astype(np.int32))),
    'floats': (0.005, lambda a: Image.fromarray(a.astype(np.float32) / 255)),
    'dark ink on nothing': (0.005, lambda a: Image.merge(
        'LA', [Image.new('L', (28, 28), 0), Image.fromarray(a)])),
    'bright ink on nothing': (0.005, lambda a: Image.merge(
        'RGBA', 3 * [Image.new('L', (28, 28), 255)] + [Image.fromarray(a)])),
    'transparent corners': (0.005, lambda a: Image.merge('LA', [
        Image.fromarray(255 - a), Image.fromarray(
            255 * (np.add(*np.mgrid[:28, :28]) > 4).astype(np.uint8))])),
    'no margins': (0.035, lambda a: Image.fromarray(255 - a).crop(
        Image.fromarray(a).getbbox())),
    'large': (0.035, lambda a: Image.fromarray(255 - a).resize(
        (2000, 2000), Image.BICUBIC)),
    'JPEG': (0.037, lambda a: jpeg(Image.fromarray(255 - a).resize(
        (280, 280), Image.BICUBIC), quality=60)),
    'one bit': (0.08, lambda a: Image.fromarray(a).resize(
        (280, 280), Image.BICUBIC).convert('1', dither=Image.NONE)),
    # With a shadow and grain.
    'photograph': (0.07, lambda a: Image.fromarray((
        200 - 0.5 * np.asarray(Image.fromarray(a).resize((280, 280),
                                                         Image.BICUBIC))
        - np.linspace(0, 30, 280)[:, None]
        + np.random.RandomState(0).normal(0, 5, (280, 280))
    ).clip(0, 255).astype(np.uint8))),
}


@pytest.mark.parametrize('distance, look', LOOKS.values(), ids=list(LOOKS))
def test_every_look_becomes_the_same_digit(distance, look, digits):
    distances = []
    for image in digits.images[:40]:
        normal = normalise(look(pixels(image)))
        assert normal.shape == (784,) and normal.dtype == np.float32
        assert normal.min() == 0 and normal.max() == 1
        square = normal.reshape(28, 28)
        assert 20 == max(
            np.ptp(np.flatnonzero(square.any(axis))) + 1 for axis in (0, 1))
        for axis in (0, 1):
            centre = square.sum(axis) @ np.arange(28) / square.sum()
            assert abs(centre - 14) < 0.51
        distances.append(np.abs(normal - image).mean())
    assert np.mean(distances) < distance


def test_proportions_are_kept():
    image = Image.new('L', (300, 300), 255)
    ImageDraw.Draw(image).rectangle([100, 50, 149, 249], fill=0)  # 50 x 200
    square = normalise(image).reshape(28, 28)
    assert np.argwhere(square).min(0).tolist() == [4, 12]
    assert np.argwhere(square).max(0).tolist() == [23, 16]
    assert square[4:24, 12:17].min() > 0.99


def test_lopsided_digit_is_not_cut_off():
    image = Image.new('L', (300, 300), 255)
    draw = ImageDraw.Draw(image)
    draw.rectangle([50, 149, 249, 150], fill=0)
    draw.rectangle([220, 50, 249, 249], fill=0)
    square = normalise(image).reshape(28, 28)
    assert np.argwhere(square).min(0).tolist() == [4, 0]
    assert np.argwhere(square).max(0).tolist() == [23, 19]


def only(path, **options):
    """Return the box of the one digit in a file, and the digit."""
    _, [found] = read_image(str(path), **options)
    return found


def test_exif_orientation_is_applied(tmp_path, digits):
    image = Image.fromarray(255 - pixels(digits.images[0]))
    upright = normalise(image)
    exif = Image.Exif()
    exif[0x112] = 6  # orientation: turn right by 90 degrees
    image.transpose(Image.ROTATE_90).save(str(tmp_path / 'a.png'), exif=exif)
    np.testing.assert_array_equal(only(tmp_path / 'a.png')[1], upright)


@pytest.mark.parametrize('odd', [
    (0x10F, 5, 26), (0x128, 4, 70000), (0x9286, 99, 0), (0x8769, 4, 7)])
def test_other_exif_values_may_be_odd(odd, tmp_path, digits):
    image = Image.fromarray(255 - pixels(digits.images[0]))
    tag, kind, value = odd  # a maker that is a ratio, a unit above 65535, ...
    exif = b'Exif\0\0MM\0*' + struct.pack(
        '>IHHHIHHHHIIIII', 8, 2, 0x112, 3, 1, 6, 0, tag, kind, 1, value, 0, 1, 1)
    image.transpose(Image.ROTATE_90).save(
        str(tmp_path / 'a.jpg'), exif=exif, quality=100, subsampling=0)
    assert np.abs(only(tmp_path / 'a.jpg')[1] - normalise(image)).mean() < 0.01


def test_exif_may_be_no_exif(tmp_path, digits):
    image = Image.fromarray(255 - pixels(digits.images[0]))
    image.save(str(tmp_path / 'a.png'), exif=b'Exif\0\0oops')
    np.testing.assert_array_equal(only(tmp_path / 'a.png')[1], normalise(image))


@pytest.mark.parametrize('size', [(12000, 9000), (16320, 12240)])
def test_large_photographs_need_little_memory(size, tmp_path):
    image = Image.new('L', size, 220)
    ImageDraw.Draw(image).line([6000, 2000, 5000, 7000], 30, 400)
    image.save(str(tmp_path / 'a.jpg'))
    mb, top, bottom, left, right = map(float, subprocess.run(
        [sys.executable, '-c', 'import re, sys; from reading import images; '
         '_, [(box, _)] = images.read_image(sys.argv[1]); '
         'most = re.search("VmHWM:.*?([0-9]+)", open("/proc/self/status").read())[1]; '
         'print(int(most) / 1024, *box)', str(tmp_path / 'a.jpg')],
        cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.split())
    assert mb < 500
    np.testing.assert_allclose(
        [left * size[0], right * size[0], top * size[1], bottom * size[1]],
        [4800, 6200, 1950, 7050], atol=60)


def test_a_damaged_colour_profile_does_not_matter(tmp_path, digits):
    image = Image.fromarray(255 - pixels(digits.images[0]))
    image.save(str(tmp_path / 'a.png'), icc_profile=b'profile')
    body = (tmp_path / 'a.png').read_bytes()
    place = body.index(b'iCCP')
    place += 4 + struct.unpack('>I', body[place - 4:place])[0]  # the checksum
    body = body[:place] + b'oops' + body[place + 4:]
    (tmp_path / 'a.png').write_bytes(body)
    np.testing.assert_array_equal(only(tmp_path / 'a.png')[1], normalise(image))
    (tmp_path / 'a.png').write_bytes(body[:body.index(b'IDAT') + 99])
    with pytest.raises(UserError, match='truncated'):
        read_image(str(tmp_path / 'a.png'))


@pytest.mark.parametrize('name', ['a.tif', 'a.gif'])
def test_the_first_of_two_pages_is_read(name, tmp_path, digits, capsys):
    first, second = (Image.fromarray(255 - pixels(image))
                     for image in digits.images[:2])
    first.save(str(tmp_path / name), save_all=True, append_images=[second])
    assert np.abs(only(tmp_path / name)[1] - normalise(first)).max() < 0.02
    assert capsys.readouterr().err == (
        'note: %s has 2 pages: only the first is read\n' % (tmp_path / name))
    first.save(str(tmp_path / name))
    only(tmp_path / name)
    assert capsys.readouterr().err == ''


def test_a_digit_may_touch_the_edge():
    image = Image.new('L', (80, 100), 200)
    draw = ImageDraw.Draw(image)
    draw.line([24, 14, 14, 60, 74, 60], 60, 22)
    draw.line([54, 40, 54, 100], 60, 22)
    box, _ = find_digit(image)
    np.testing.assert_allclose(box, [0.12, 1, 0.05, 0.94], atol=0.03)


def test_the_ink_on_a_slender_page_is_found():
    image = Image.new('L', (400, 400), 255)
    draw = ImageDraw.Draw(image)
    draw.rectangle([150, 50, 270, 350], fill=225)
    draw.line([200, 100, 215, 300], 20, 12)
    box, _ = find_digit(image)
    np.testing.assert_allclose(box, [.25, .75, .48, .56], atol=0.03)


def test_weak_ink_at_the_edge_of_a_small_picture_is_dropped():
    grey = np.full([40, 40], 50)
    grey[10:30, 18:22] = 190
    clean = normalise(Image.fromarray(grey.astype(np.uint8)))
    grey[:, :3] = 80
    np.testing.assert_array_equal(
        normalise(Image.fromarray(grey.astype(np.uint8))), clean)


def thickness(digit):
    """Return the area of the ink divided by its length, for a vertical stroke."""
    return digit.reshape(28, 28)[8:20].sum(1).mean()


@pytest.mark.parametrize('side', [28, 400])
def test_thin_strokes_become_as_thick_as_those_of_mnist(side):
    for pen, expected in ((1, 2.2), (side // 20, 2.2), (side // 6, 4.5)):
        image = Image.new('L', (side, side), 255)
        ImageDraw.Draw(image).line(
            [side // 2, side // 8, side // 2, side * 7 // 8], 0, pen)
        assert abs(thickness(normalise(image)) - expected) < 0.6


def test_a_small_loop_stays_open():
    image = Image.new('L', (400, 400), 255)
    draw = ImageDraw.Draw(image)
    draw.ellipse([188, 50, 212, 85], outline=0, width=4)
    draw.line([210, 67, 198, 350], 0, 4)
    digit = normalise(image).reshape(28, 28)
    assert digit[6:8, 14].max() < 0.75 < digit[6:8, 13].min()


def test_slant_is_reduced():
    image = Image.new('L', (400, 400), 255)
    ImageDraw.Draw(image).line([250, 50, 150, 350], 0, 30)
    digit = normalise(image).reshape(28, 28)
    tops, bottoms = (digit[rows].sum(0) @ np.arange(28) / digit[rows].sum()
                     for rows in (slice(4, 9), slice(19, 24)))
    assert 2.2 < tops - bottoms < 4.2  # 5 without, 15 rows lower


def pages(*digits):
    """Return a page with a row of digits, float [height, width], ink dark."""
    return np.concatenate([
        np.roll(page, 60 - np.flatnonzero(mask.any(1))[0], 0)
        for page, mask in (draw(digit, 8) for digit in digits)], 1)


def test_digits_on_even_paper_are_read_in_order():
    page = np.concatenate([pages(1, 5, 2), pages(3, 8, 4)])
    found = images._find(np.repeat(page[..., None], 3, 2), (28, 28))
    assert len(found) == 6
    for number, (digit, (box, image)) in enumerate(zip((1, 5, 2, 3, 8, 4), found)):
        row, column = divmod(number, 3)
        assert row / 2 < box[0] < box[1] < (row + 1) / 2
        assert column / 3 < box[2] < box[3] < (column + 1) / 3
        alone = normalise(Image.fromarray(pages(digit).astype(np.uint8)))
        assert np.abs(image - alone).mean() < 0.01
    with pytest.raises(images.NoDigit, match='several things'):
        normalise(Image.fromarray(page.astype(np.uint8)))


@pytest.mark.parametrize('digits', [(1, 6), (2, 2), (3, 1, 4, 1)])
def test_several_digits_under_a_shadow_are_refused(digits):
    page = pages(*digits)
    page *= np.linspace(1, 0.4, page.shape[1])
    with pytest.raises(images.NoDigit, match='several things'):
        normalise(Image.fromarray(page.astype(np.uint8)))


def lines(*points):
    return lambda sketch: sketch.line(list(points), 30, 8)


def face(sketch):
    sketch.ellipse([40, 40, 260, 260], outline=30, width=8)
    for x in (95, 180):
        sketch.ellipse([x, 100, x + 25, 125], fill=30)
    sketch.arc([90, 120, 210, 220], 20, 160, 30, 8)


def house(sketch):
    sketch.rectangle([70, 130, 230, 260], outline=30, width=8)
    sketch.rectangle([130, 190, 170, 260], outline=30, width=8)
    sketch.line([60, 130, 150, 50, 240, 130], 30, 8)


def grid(sketch):
    for i in range(60, 241, 45):
        sketch.line([i, 60, i, 240], 30, 8)
        sketch.line([60, i, 240, i], 30, 8)


def tree(sketch):
    sketch.line([150, 270, 150, 150], 30, 24)
    sketch.ellipse([80, 40, 220, 170], fill=30)


def duck(sketch):
    sketch.ellipse([60, 130, 230, 240], fill=60)
    sketch.ellipse([170, 60, 250, 140], fill=60)
    sketch.polygon([245, 95, 285, 105, 245, 115], fill=30)


NO_DIGITS = {
    'face': face, 'house': house, 'grid': grid, 'tree': tree, 'duck': duck,
    'disc': lambda sketch: sketch.ellipse([60, 60, 240, 240], fill=30),
    'square': lambda sketch: sketch.rectangle([80, 80, 220, 220], fill=30),
    'star': lines(150, 40, 215, 239, 45, 116, 255, 116, 85, 239, 150, 40),
    'scribble': lines(*(60 + i * step % 190 for i in range(40) for step in (37, 71))),
    'two twos that touch': lines(20, 120, 60, 90, 90, 130, 20, 210, 120, 210, 160, 210,
                                 170, 120, 210, 90, 240, 130, 170, 210, 270, 210)}


@pytest.mark.parametrize('sketch', NO_DIGITS.values(), ids=list(NO_DIGITS))
def test_what_is_no_digit_is_refused_or_doubted(sketch):
    image = Image.new('L', (300, 300), 235)
    sketch(ImageDraw.Draw(image))
    try:
        digit = normalise(image)
    except images.NoDigit:
        return
    assert images.doubt(digit.reshape(28, 28))


def test_mnist_digits_are_seldom_doubted(mnist_dir):
    test = data.read_data_sets(mnist_dir).test
    doubted = [bool(images.doubt(image.reshape(28, 28)))
               for image in test.images[:2000]]
    assert np.mean(doubted) < 0.015


def test_mnist_images_hardly_change(mnist_dir):
    """Only thin strokes are made thicker."""
    test = data.read_data_sets(mnist_dir).test
    for look in ('as it is', 'dark ink'):
        distances = np.array([np.abs(normalise(LOOKS[look][1](pixels(image)))
                                     - image).mean() for image in test.images[:300]])
        assert np.mean(distances < 1e-6) > 0.3 and np.mean(distances) < 0.015


def test_as_is_only_scales(tmp_path):
    Image.fromarray(np.repeat(np.arange(56, dtype=np.uint8)[:, None], 56, 1)).save(
        str(tmp_path / 'a.png'))
    box, image = only(tmp_path / 'a.png', as_is=True)
    assert box == (0, 1, 0, 1) and image.dtype == np.float32
    rows = image.reshape(28, 28) * 255
    np.testing.assert_allclose(rows, np.mgrid[:28, :28][0] * 2 + 0.5, atol=0.51)


def test_heic_is_named(tmp_path):
    (tmp_path / 'a.heic').write_bytes(b'\0\0\0\x18ftypheic' + bytes(99))
    with pytest.raises(UserError, match='HEIC, .* heif-convert photo.heic photo.jpg'):
        read_image(str(tmp_path / 'a.heic'))


def ramp(darkest, brightest, kind):
    """Columns from one grey to another, 28 x 28."""
    return np.repeat(np.linspace(darkest, brightest, 28)[None], 28, 0).astype(kind)


@pytest.mark.parametrize('name, pixels, darkest, brightest', [
    ('a.png', ramp(80, 117, 'u1'), 80 / 255, 117 / 255),
    ('a.png', ramp(20000, 30000, 'u2'), 20000 / 65535, 30000 / 65535),  # mode I
    ('a.tif', ramp(20000, 30000, 'u2'), 20000 / 65535, 30000 / 65535),  # mode I;16
    ('a.png', ramp(0, 200, 'u2'), 0, 200 / 65535),
    ('a.tif', ramp(-9, 99999, 'i4'), 0, 1),
    ('a.tif', ramp(0.25, 0.5, 'f4'), 0.25, 0.5),
    ('a.tif', ramp(0.25, 1, 'f4'), 0.25, 1),
    ('a.tif', ramp(-9, 2, 'f4'), 0, 2 / 255),
    ('a.tif', ramp(51, 255, 'f4'), 0.2, 1),
    ('a.tif', ramp(0, 13107, 'f4'), 0, 0.2),
    ('a.tif', ramp(0, 99999, 'f4'), 0, 1)])
def test_as_is_keeps_the_contrast(name, pixels, darkest, brightest, tmp_path):
    Image.fromarray(pixels).save(str(tmp_path / name))
    picture, [(_, image)] = read_image(str(tmp_path / name), as_is=True)
    columns = image.reshape(28, 28).T
    np.testing.assert_allclose(columns[0], darkest, atol=1e-6)
    np.testing.assert_allclose(columns[-1], brightest, atol=1e-6)
    np.testing.assert_allclose(picture[:, -1], 255 * brightest, atol=0.501)


@pytest.mark.parametrize('fault', [KeyError('x'), ValueError('x'), OSError('x')])
@pytest.mark.parametrize('name', [
    '_to_colours', '_inks_on_even_paper', '_fit', '_scale'])
def test_a_fault_of_ours_is_not_called_a_bad_file(name, fault, tmp_path, monkeypatch):
    def fail(*args):
        raise fault

    path = str(tmp_path / 'a.png')
    image = Image.new('L', (50, 50), 255)
    ImageDraw.Draw(image).line([25, 10, 25, 40], 0, 5)
    image.save(path)
    monkeypatch.setattr(images, name, fail)
    with pytest.raises(type(fault)) as raised:
        read_image(path, as_is=name == '_scale')
    assert raised.value is fault


@pytest.mark.parametrize('fault', [KeyError('x'), SyntaxError('broken PNG file')])
def test_a_fault_of_pillow_is_called_a_bad_file(fault, tmp_path, monkeypatch):
    def fail(*args):
        raise fault

    path = str(tmp_path / 'a.png')
    Image.new('L', (9, 9)).save(path)
    monkeypatch.setattr(images.Image.Image, 'convert', fail)
    with pytest.raises(UserError) as raised:
        read_image(path)
    assert str(raised.value) == (
        '%s cannot be read (%s): name an image of a digit' % (path, fault))


REFUSALS = ['it is blank', 'nothing in it looks like a digit',
            'it shows several things of one size: crop it to one digit']
# Grey, RGB, RGBA, integers of 32 bits, and floats.
PICTURES = st.one_of(
    [hypothesis.extra.numpy.arrays(kind, st.tuples(sides, sides, *bands))
     for sides in [st.integers(1, 40)]
     for kind, bands in (('u1', []), ('u1', [st.just(3)]), ('u1', [st.just(4)]),
                         ('i4', []), ('f4', []))])


@hypothesis.settings(max_examples=300, deadline=None, database=None)
@hypothesis.given(PICTURES)
def test_any_picture_becomes_a_digit_or_is_refused(picture):
    try:
        digit = normalise(Image.fromarray(picture))
    except images.NoDigit as error:
        hypothesis.event(str(error))
        assert str(error) in (REFUSALS if np.isfinite(picture).all()
                              else ['it has pixels that are not numbers'])
        return
    assert digit.shape == (784,) and digit.dtype == np.float32
    assert digit.min() >= 0 and digit.max() == 1
    image = digit.reshape(28, 28)
    for axis in (0, 1):
        inked = np.flatnonzero(image.any(axis))
        assert inked[-1] - inked[0] < 20
        mass = image.sum(axis) @ np.arange(28) / image.sum()
        # A digit at an edge is as close to the middle as possible.
        assert abs(mass - 14) < 0.51 or inked[0] == 0 or inked[-1] == 27


@hypothesis.settings(max_examples=200, deadline=None, database=None)
@hypothesis.given(hypothesis.extra.numpy.arrays(
    'u1', st.tuples(st.integers(1, 40), st.integers(1, 40))),
    st.tuples(*[st.integers(1, 11)] * 4))
def test_inverting_and_moving_change_nothing(ink, margins):
    hypothesis.assume(ink.max() >= 25)
    top, bottom, left, right = margins
    one = normalise(Image.fromarray(np.pad(ink, 1, 'constant')))
    other = normalise(Image.fromarray(255 - np.pad(
        ink, ((top, bottom), (left, right)), 'constant')))
    np.testing.assert_allclose(one, other, atol=1e-5)
