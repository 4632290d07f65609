import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from reading import cells, pictures

DIGITS = list('0123456789')


def test_rows_show_image_and_probabilities(digits, drawn):
    rows = np.full([28, 10], 0.05)
    rows[np.arange(28), [1] * 9 + [7] * 4 + [1] + [7] * 14] = 0.55
    pictures.draw_rows(digits.images[4], rows, DIGITS)
    left, right, _ = drawn[0].axes
    np.testing.assert_array_equal(left.images[0].get_array().reshape(784),
                                  digits.images[4])
    np.testing.assert_array_equal(right.images[0].get_array(), rows)
    assert [axes.lines[0].get_ydata()[0] for axes in (left, right)] == [13.5] * 2
    assert drawn[0]._suptitle.get_text() == '7, probability 0.5500'
    said, = drawn[0].legends[0].get_texts()  # beside a piece of the line
    assert said.get_text() == 'from row 14 on, 7 is the most likely'
    assert [label.get_text() for label in right.get_xticklabels()] == DIGITS


def seen(count, height=90, width=60):
    picture = np.zeros([height, width, 3], np.uint8)
    return [(picture, (0.1, 0.5, 0, 1), np.linspace(0, 1, 784), '%d, sure' % i)
            for i in range(count)]


def test_the_digit_is_boxed_in_the_picture(drawn):
    png = pictures.draw_seen(seen(1))
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (900, 500)
    left, right = drawn[0].axes
    box, = left.lines
    assert box.get_xydata().tolist() == [
        [-0.5, 8.5], [59.5, 8.5], [59.5, 44.5], [-0.5, 44.5], [-0.5, 8.5]]
    assert left.get_xlim() == (-0.5, 59.5) and left.get_ylim() == (89.5, -0.5)
    assert left.get_title() == 'the picture, and the digit in it'
    assert right.get_title() == 'what the network gets: 0, sure'
    assert right.images[0].get_cmap().name == 'gray_r'


def test_a_picture_that_is_read_as_it_is_has_no_box(drawn):
    pictures.draw_seen(seen(1), (28, 28), as_is=True)
    left, right = drawn[0].axes
    assert not left.lines and left.get_title() == 'the picture'
    # White is 1 in both halves.
    assert right.images[0].get_cmap().name == 'gray'


def test_several_pictures_are_drawn_six_in_a_row(drawn):
    png = pictures.draw_seen(seen(8))
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (1800, 340)
    axes = np.array(drawn[0].axes).reshape(2, 6, 2)
    assert [one.get_title(loc='left') for one in axes[:, :, 0].ravel()] == [
        '%d, sure' % i for i in range(8)] + [''] * 4
    assert [len(one.images) for one in axes.ravel()] == [1] * 16 + [0] * 8


@pytest.mark.parametrize('rows, columns', [(28, 28), (14, 28), (30, 20)])
def test_images_keep_their_proportions(rows, columns, drawn):
    image = np.ones(rows * columns)
    pictures.draw_rows(image, np.full([rows, 10], 0.1), DIGITS)
    pictures.draw_cells(image, [cells.Layer(*np.ones([6, rows, 16]))])
    pictures.draw_seen([(np.zeros([rows, columns, 3], np.uint8), (0, 1, 0, 1), image,
                         '7')], (rows, columns))
    for axes in (drawn[0].axes[0], drawn[1].axes[0], *drawn[2].axes):
        extent = axes.get_window_extent()
        assert extent.width / extent.height == pytest.approx(columns / rows, 0.01)
    # The rows of the image and of the table beside it are level.
    one, other = (axes.get_window_extent() for axes in drawn[0].axes[:2])
    assert one.y0 == pytest.approx(other.y0, abs=1)
    assert one.y1 == pytest.approx(other.y1, abs=1)


def test_animation_shows_row_after_row():
    rows = np.full([28, 10], 0.05)
    rows[np.arange(28), [1] * 14 + [7] * 14] = 0.55
    animation = pictures.animate_rows(np.ones(784), rows, DIGITS)
    assert len(animation) < 500000
    with Image.open(io.BytesIO(animation)) as gif:
        assert (gif.format, gif.size, gif.n_frames) == ('GIF', (640, 320), 28)
        shown, seconds = [], 0
        for frame in range(28):
            gif.seek(frame)
            seconds += gif.info['duration'] / 1000
            pixels = np.asarray(gif.convert('RGB')).astype(int)
            # Ink that was read is black; the highest bar is blue.
            black = (pixels[:, 20:220].sum(2) < 60).sum()
            blue = np.flatnonzero(((pixels[:, :, 2] - pixels[:, :, 0]) > 90).any(0))
            shown.append((black, blue.mean()))
    black, blue = np.array(shown).T
    assert (np.diff(black) > 0).all() and seconds == pytest.approx(27 * 0.17 + 2)
    assert np.ptp(blue[:14]) == np.ptp(blue[14:]) == 0
    # From class 1 to class 7, of ten classes side by side.
    assert 150 < blue[14] - blue[0] < 260


def test_animation_keeps_the_greys():
    animation = pictures.animate_rows(np.linspace(0, 1, 784), np.full([28, 10], 0.1),
                                      DIGITS)
    with Image.open(io.BytesIO(animation)) as gif:
        for frame in range(28):
            gif.seek(frame)
            digit = np.asarray(gif.convert('RGB')).astype(int)[:, :240]
            # Only the line is red, and it is at most 3 pixels thick.
            reddish = digit[..., 0] - digit[..., 2] > 25
            assert reddish.any(1).sum() <= 3


def test_cells_show_the_most_telling_units(drawn):
    random = np.random.RandomState(0)
    layers = [cells.Layer(*scale * random.uniform(-1, 1, [6, 28, 16]))
              for scale in (1, 3)]
    png = pictures.draw_cells(np.ones(784), layers)
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == 'PNG' and image.size == (1000, 700)
    axes = drawn[0].axes
    for layer, row in zip(layers, (axes[:7], axes[7:14])):
        units = cells.most_telling(layer, 10)
        np.testing.assert_array_equal(
            row[0].images[0].get_array(),
            np.ones([28, 28]) if layer is layers[0] else layers[0].h)
        for name, place in zip('ijfoch', row[1:]):
            shown, = place.images
            np.testing.assert_array_equal(shown.get_array(),
                                          getattr(layer, name)[:, units])
            assert place.get_title().startswith(name + ': ')
            assert [int(label.get_text())
                    for label in place.get_xticklabels()] == units.tolist()
            most = np.abs(layer.c[:, units]).max()
            assert shown.get_clim() == {'c': (-most, most), 'j': (-1, 1),
                                        'h': (-1, 1)}.get(name, (0, 1))
        assert row[5].get_title() == 'c: kept, \u00b1%.1f' % most


def test_settings_of_matplotlib_change_nothing():
    random = np.random.RandomState(0)
    image, rows = random.uniform(size=784), random.uniform(size=[28, 10])
    photograph = random.randint(0, 256, [90, 60, 3]).astype(np.uint8)
    layers = [cells.Layer(*random.uniform(-1, 1, [6, 28, 16]))]

    def draw():
        return (pictures.draw_seen([(photograph, (0, 0.5, 0, 0.5), image, '7')]),
                pictures.draw_rows(image, rows, DIGITS),
                pictures.animate_rows(image, rows, DIGITS),
                pictures.draw_cells(image, layers),
                pictures.draw_errors(np.eye(2, dtype=int), ['a', 'b'], []))

    usual = draw()
    with matplotlib.rc_context({'text.usetex': True, 'savefig.dpi': 300,
                                'savefig.bbox': 'tight', 'axes.facecolor': 'red'}):
        for one, other in zip(draw(), usual):
            assert one == other


def test_classes_have_their_names(drawn):
    names = ['Cat', 'A very long name', '$x$'] * 5
    rows = np.eye(15)[[1] * 28] * 0.9
    pictures.draw_rows(np.ones(784), rows, names)
    _, right, _ = drawn[0].axes
    labels = [label.get_text() for label in right.get_xticklabels()]
    assert labels == [names[k][:11] + '\u2026' if names[k][0] == 'A' else names[k]
                      for k in range(0, 15, 2)]
    assert drawn[0]._suptitle.get_text() == 'A very long name, probability 0.9000'


def test_errors_show_the_counts_and_the_images(drawn):
    counts = np.array([[5, 2, 0], [1, 7, 0], [0, 3, 9]])
    images = np.random.RandomState(0).rand(2, 4, 6)
    png = pictures.draw_errors(counts, ['cat', 'dog', 'fox'], [
        (images[0], 'cat', 'dog', 11, 0.98765), (images[1], 'fox', 'dog', 2, 0.5)])
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (1300, 700)
    matrix, sheet = drawn[0].axes
    assert matrix.get_title() == '6 of 27 images are named wrongly'
    shown = {text.get_position()[::-1]: int(text.get_text()) for text in matrix.texts}
    assert shown == {place: counts[place] for place in zip(*counts.nonzero())}
    # Right answers are not coloured.
    np.testing.assert_array_equal(matrix.images[0].get_array(),
                                  [[0, 2, 0], [1, 0, 0], [0, 3, 0]])
    assert [text.get_text() for text in sheet.texts] == [
        'cat, named dog', 'image 11: 0.9877', 'fox, named dog', 'image 2: 0.5000']
    for image, shown in zip(images, sheet.images):
        np.testing.assert_array_equal(shown.get_array(), image)
        left, right, bottom, top = shown.get_extent()
        assert (right - left, bottom - top) == (96, 64)  # of 6 x 4 pixels
