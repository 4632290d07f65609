import io
import json
import os
import re
import shutil

import hypothesis
import hypothesis.extra.numpy
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import data
import predict
from conftest import ROOT, run

SCRIPT = 'predict.py'


@pytest.fixture(scope='module')
def digits():
    """The test part of the bundled digits."""
    return data.read_data_sets('', 'digits').test


def pixels(image):
    """A test image as uint8 [28, 28], ink bright."""
    return np.rint(255 * image).astype(np.uint8).reshape(28, 28)


def jpeg(image, **options):
    written = io.BytesIO()
    image.save(written, 'JPEG', **options)
    return Image.open(written)


# What one digit looks like in a file, and how far, in the mean over its pixels,
# it may be from the digit then. Two digits are at least 0.045 apart, and 0.12 as
# a rule.
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
    'a card with clear corners': (0.005, lambda a: Image.merge('LA', [
        Image.fromarray(255 - a), Image.fromarray(
            255 * (np.add(*np.mgrid[:28, :28]) > 4).astype(np.uint8))])),
    'no margins': (0.035, lambda a: Image.fromarray(255 - a).crop(
        Image.fromarray(a).getbbox())),
    'large': (0.035, lambda a: Image.fromarray(255 - a).resize(
        (2800, 2800), Image.BICUBIC)),
    'JPEG': (0.035, lambda a: jpeg(Image.fromarray(255 - a).resize(
        (280, 280), Image.BICUBIC), quality=60)),
    'one bit': (0.08, lambda a: Image.fromarray(a).resize(
        (280, 280), Image.BICUBIC).convert('1', dither=Image.NONE)),
    # With a shadow over it, and grain.
    'photograph': (0.07, lambda a: Image.fromarray((
        200 - 0.5 * np.asarray(Image.fromarray(a).resize((280, 280),
                                                         Image.BICUBIC))
        - np.linspace(0, 30, 280)[:, None]
        + np.random.RandomState(0).normal(0, 5, (280, 280))
    ).clip(0, 255).astype(np.uint8))),
}


@pytest.mark.parametrize('distance, look', LOOKS.values(), ids=list(LOOKS))
def test_every_look_of_a_digit_becomes_the_same(distance, look, digits):
    distances = []
    for image in digits.images[:40]:
        normal = predict.normalise(look(pixels(image)))
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
    square = predict.normalise(image).reshape(28, 28)
    assert np.argwhere(square).min(0).tolist() == [4, 12]
    assert np.argwhere(square).max(0).tolist() == [23, 16]
    assert square[4:24, 12:17].min() > 0.99


def test_a_lopsided_digit_is_not_cut_off():
    image = Image.new('L', (300, 300), 255)
    draw = ImageDraw.Draw(image)
    draw.rectangle([50, 149, 249, 150], fill=0)
    draw.rectangle([220, 50, 249, 249], fill=0)
    square = predict.normalise(image).reshape(28, 28)
    assert np.argwhere(square).min(0).tolist() == [4, 0]
    assert np.argwhere(square).max(0).tolist() == [23, 19]


def test_a_photograph_that_lies_on_its_side(tmp_path, digits):
    image = Image.fromarray(255 - pixels(digits.images[0]))
    upright = predict.normalise(image)
    exif = Image.Exif()
    exif[0x112] = 6  # turn by 90 degrees to the right
    image.transpose(Image.ROTATE_90).save(str(tmp_path / 'a.png'), exif=exif)
    np.testing.assert_array_equal(predict.read_image(str(tmp_path / 'a.png')),
                                  upright)


def test_digits_in_files_are_named(digits_run, digits, tmp_path):
    names = []
    for i in range(30):
        names.append(str(tmp_path / ('%d.%s' % (i, ('png', 'jpg', 'gif')[i % 3]))))
        Image.fromarray(255 - pixels(digits.images[i])).resize(
            (140, 140), Image.BICUBIC).save(names[-1])
    done = run(SCRIPT, digits_run, *names)
    assert done.returncode == 0 and not done.error_lines
    lines = [re.fullmatch(r'(.*): (\d), probability (\d\.\d{4})', line)
             for line in done.stdout.splitlines()]
    assert [line[1] for line in lines] == names
    labels = digits.labels[:30].argmax(1)
    right = [int(line[2]) == label for line, label in zip(lines, labels)]
    assert np.mean(right) > 0.75
    assert all(float(line[3]) > 0.1 for line in lines)


def test_an_image_that_mnist_made_stays_as_it_is(mnist_dir):
    test = data.read_data_sets(mnist_dir).test
    for look in ('as it is', 'dark ink'):
        distances = [np.abs(predict.normalise(LOOKS[look][1](pixels(image)))
                            - image).mean() for image in test.images[:300]]
        assert np.median(distances) < 1e-6 and np.mean(distances) < 2e-3


def test_a_file_that_is_no_good_does_not_keep_the_others_back(
        digits_run, digits, tmp_path):
    Image.fromarray(pixels(digits.images[0])).save(str(tmp_path / 'good.png'))
    done = run(SCRIPT, digits_run, 'good.png', 'missing.png', 'good.png',
               cwd=tmp_path)
    assert done.returncode == 1
    first, last = done.stdout.splitlines()
    assert first == last and first.startswith('good.png: ')


# Pictures of all kinds: grey, with or without an alpha channel, and of 16 bits.
PICTURES = st.one_of(
    [hypothesis.extra.numpy.arrays(kind, st.tuples(sides, sides, *bands))
     for sides in [st.integers(1, 40)]
     for kind, bands in (('u1', []), ('u1', [st.just(3)]), ('u1', [st.just(4)]),
                         ('i4', []), ('f4', []))])


@hypothesis.settings(max_examples=300, deadline=None, database=None)
@hypothesis.given(PICTURES)
def test_any_picture_becomes_a_digit_or_is_blank(picture):
    try:
        digit = predict.normalise(Image.fromarray(picture))
    except ValueError as error:
        hypothesis.event(str(error))
        assert str(error) == (
            'it is blank' if np.isfinite(picture).all()
            else 'it has pixels that are not numbers')
        return
    assert digit.shape == (784,) and digit.dtype == np.float32
    assert digit.min() >= 0 and digit.max() == 1
    image = digit.reshape(28, 28)
    for axis in (0, 1):
        inked = np.flatnonzero(image.any(axis))
        assert inked[-1] - inked[0] < 20
        mass = image.sum(axis) @ np.arange(28) / image.sum()
        # At an edge, it is as near to the middle as can be.
        assert abs(mass - 14) < 0.51 or inked[0] == 0 or inked[-1] == 27


@hypothesis.settings(max_examples=200, deadline=None, database=None)
@hypothesis.given(hypothesis.extra.numpy.arrays(
    'u1', st.tuples(st.integers(1, 40), st.integers(1, 40))),
    st.tuples(*[st.integers(1, 30)] * 4))
def test_ink_paper_and_place_make_no_difference(ink, margins):
    hypothesis.assume(ink.max() >= 25)
    top, bottom, left, right = margins
    one = predict.normalise(Image.fromarray(np.pad(ink, 1, 'constant')))
    other = predict.normalise(Image.fromarray(255 - np.pad(
        ink, ((top, bottom), (left, right)), 'constant')))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_test_image_and_its_rows(digits_run, digits, tmp_path, monkeypatch):
    done = run(SCRIPT, digits_run, '--test', 4, '--rows', 'rows.png',
               cwd=tmp_path)
    digit, probability, label = re.fullmatch(
        r'test image 4: (\d), probability (\d\.\d{4}), labelled (\d)\n',
        done.stdout).groups()
    assert int(label) == digits.labels[4].argmax()
    rows, = predict.load(tf, str(digits_run))(digits.images[4:5])
    assert rows.shape == (28, 10)
    assert rows[-1].argmax() == int(digit)
    assert '%.4f' % rows[-1].max() == probability
    with Image.open(str(tmp_path / 'rows.png')) as image:
        assert image.format == 'PNG' and image.size == (900, 600)

    from matplotlib.figure import Figure
    drawn = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: (
        drawn.append(figure), savefig(figure, *args, **kwargs)))
    rows = np.full([28, 10], 0.05)
    rows[np.arange(28), [1] * 9 + [7] * 4 + [1] + [7] * 14] = 0.55
    predict.draw_rows(digits.images[4], rows, str(tmp_path / 'again.png'))
    left, right, _ = drawn[0].axes
    np.testing.assert_array_equal(left.images[0].get_array().reshape(784),
                                  digits.images[4])
    np.testing.assert_array_equal(right.images[0].get_array(), rows)
    assert [axes.lines[0].get_ydata()[0] for axes in (left, right)] == [13.5] * 2
    assert drawn[0]._suptitle.get_text() == (
        '7 with probability 0.5500, the most likely from row 14 on')


def damaged(name, change):
    def damage(run_dir):
        path = run_dir / name
        path.write_bytes(change(path.read_bytes()))
    return damage


@pytest.mark.parametrize('change, steps', [
    (lambda run_dir: damaged('config.json', lambda body: body.replace(
        b'"steps": 500', b'"steps": 900'))(run_dir), '500'),
    (lambda run_dir: (run_dir / 'result.json').unlink(), 'fewer')])
def test_a_run_that_was_not_done_again(change, steps, digits_run, tmp_path):
    shutil.copytree(str(digits_run), str(tmp_path / 'run'))
    change(tmp_path / 'run')
    done = run(SCRIPT, '--test', 0, 'run', cwd=tmp_path)
    assert re.fullmatch('test image 0: .*\n', done.stdout)
    assert ('warning: the run in run is not done: this is its network after %s '
            'steps' % steps) in done.stderr.splitlines()


def test_stdout_that_takes_nothing(digits_run):
    with open('/dev/full', 'w') as full:
        done = run(SCRIPT, digits_run, '--test', 0, stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        'error: cannot read or write stdout (No space left on device): mend '
        'that and run again')


def test_a_test_image_of_data_that_were_moved(digits_run, made_up_dir, tmp_path):
    shutil.copytree(str(digits_run), str(tmp_path / 'run'))
    path = tmp_path / 'run' / 'config.json'
    config = json.loads(path.read_text())
    config.update(dataset='mnist', data_dir='elsewhere',
                  data_sha256=data.fingerprint('mnist', str(made_up_dir)))
    path.write_text(json.dumps(config))
    done = run(SCRIPT, 'run', '--test', 63, '--data_dir', 'made_up',
               cwd=tmp_path)
    assert re.fullmatch('test image 63: .*, labelled 3\n', done.stdout)


@pytest.mark.parametrize('package, what', [('PIL', 'Pillow'),
                                           ('matplotlib', 'matplotlib')])
def test_a_package_is_missing(package, what, digits_run, digits, tmp_path):
    Image.fromarray(pixels(digits.images[0])).save(str(tmp_path / 'a.png'))
    (tmp_path / (package + '.py')).write_text('raise ImportError')
    done = run(SCRIPT, digits_run, 'a.png', '--rows', 'rows.png', cwd=tmp_path,
               PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    line, = done.error_lines
    assert re.match('error: %s is missing: pip install %s==' % (what, what), line)
    pinned = open(os.path.join(ROOT, 'requirements.txt')).read().split()
    assert line.split()[-1] in pinned
