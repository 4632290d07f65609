"""Draw how a network reads a digit."""
import io

import numpy as np

from reading.cells import most_telling
from training.errors import not_installed
from training.plots import drawing, literal, png

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from PIL import Image  # a dependency of matplotlib
except ImportError:
    raise not_installed('matplotlib')

SHOWN = 20  # images in `draw_errors`


@drawing()
def draw_seen(seen, shape=(28, 28), as_is=False):
    """Draw photographs, the boxes of their digits, and the digits the network gets.

    Args:
        seen: a list of (picture, box, image, answer): uint8 [height, width, 3]; top,
            bottom, left and right in it, whose sides are 1; float [pixels] in [0, 1];
            and a str.
        shape: the rows and columns of an image.
        as_is: bool, the images are the whole pictures.

    Returns:
        A PNG file: one of 900 x 500 pixels, several 6 in a row, 300 x 170 each.
    """
    columns = min(6, len(seen))
    rows = -(-len(seen) // columns)
    size = (9, 5) if len(seen) == 1 else (3 * columns, 1.7 * rows)
    figure = Figure(figsize=size, dpi=100)
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.4 / size[1], 0.05, 0.3)
    grid = figure.subplots(rows, 2 * columns, squeeze=False).reshape(-1, 2)
    for axes in grid[len(seen):].ravel():
        axes.axis('off')
    for (left, right), (picture, box, image, answer) in zip(grid, seen):
        left.imshow(picture)
        if not as_is:
            height, width, _ = picture.shape
            y, bottom, x, end = np.multiply(box, [height, height, width, width]) - 0.5
            left.plot([x, end, end, x, x], [y, y, bottom, bottom, y], color='tab:red',
                      scalex=False, scaley=False)
        left.set(xticks=[], yticks=[])
        if len(seen) == 1:
            left.set_title('the picture' + ('' if as_is else ', and the digit in it'))
            right.set_title('what the network gets: ' + answer)
        else:
            left.set_title(answer, loc='left', fontsize=9)
        # White is 1 in a picture that is read as it is. A digit's ink is 1, too.
        right.imshow(image.reshape(shape), cmap='gray' if as_is else 'gray_r', vmin=0,
                     vmax=1)
        right.set(xticks=[], yticks=[])
    return png(figure)


@drawing()
def draw_rows(image, rows, names):
    """Draw a digit and, beside each of its rows, the probabilities of the classes.

    Args:
        image: float [pixels] in [0, 1].
        rows: float [rows, classes], the probabilities after each row.
        names: list of str, the names of the classes.

    Returns:
        A PNG file of 900 x 600 pixels.
    """
    best = rows.argmax(1)
    digit = best[-1]
    # The first row after which the answer does not change.
    decided = max((row + 1 for row in np.flatnonzero(best != digit)), default=0)
    font = literal(''.join(names))
    image = image.reshape(len(rows), -1)
    width = 5 * image.shape[1] / len(rows)
    figure = Figure(figsize=(4 + width, 6), dpi=100,
                    tight_layout={'rect': (0, 0.05, 1, 1)})
    left, right = figure.subplots(1, 2, sharey=True,
                                  gridspec_kw={'width_ratios': [width, 2.7]})
    _show_digit(left, image)
    left.set(ylabel='row', title='what is read')
    shades = right.imshow(rows, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    right.set_title('what it is taken for so far')
    _name_ticks(right.xaxis, names)
    figure.colorbar(shades, ax=right, label='probability')
    for axes in (left, right):
        line = axes.axhline(decided - 0.5, color='tab:red', linewidth=1)
    said = figure.legend([line], ['from row %d on, %s is the most likely'
                                  % (decided, names[digit])], loc='lower center')
    said.get_texts()[0].set(**font)
    figure.suptitle('%s, probability %.4f' % (names[digit], rows[-1, digit]), **font)
    return png(figure)


@drawing()
def animate_rows(image, rows, names):
    """Animate what `draw_rows` draws; return a GIF file of 640 x 320 pixels.

    A row is shown for 0.17 seconds, the last one for 2.
    """
    first, *others = _frames(image.reshape(len(rows), -1), rows, names)
    gif = io.BytesIO()
    first.save(gif, 'GIF', save_all=True, append_images=others, loop=0,
               duration=[170] * len(others) + [2000], optimize=True)
    return gif.getvalue()


def _frames(image, rows, names):
    """Yield a `PIL.Image` for each row, of an image [rows, columns]."""
    figure = Figure(figsize=(6.4, 3.2), dpi=100, tight_layout=True)
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, gridspec_kw={'width_ratios': [2, 3]})
    shown = left.imshow(image, cmap='gray_r', vmin=0, vmax=1)
    line = left.axhline(0, color='tab:red', linewidth=1)
    left.set(xticks=[], yticks=[])
    bars = right.bar(range(rows.shape[1]), rows[0])
    right.set(ylim=(0, 1), ylabel='probability')
    _name_ticks(right.xaxis, names)
    for row, probabilities in enumerate(rows):
        # Rows that are not read yet are faint.
        shown.set_data(image * np.where(np.arange(len(rows)) <= row, 1, 0.12)[:, None])
        line.set_ydata([row + 0.5] * 2)
        for bar, probability in zip(bars, probabilities):
            bar.set_height(probability)
            bar.set_color('tab:blue' if probability == probabilities.max()
                          else 'lightgray')
        left.set_title('rows 0 to %d' % row)
        right.set_title('so far: ' + names[probabilities.argmax()],
                        **literal(''.join(names)))
        canvas.draw()
        yield Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(128)


@drawing()
def draw_cells(image, layers):
    """Draw the gates and states of ten units of each layer (`most_telling`).

    image is float [pixels] in [0, 1], layers a list of `cells.Layer`. Return a PNG
    file, 1000 pixels wide and 100 + 300 per layer high.
    """
    figure = Figure(figsize=(10, 1 + 3 * len(layers)), dpi=100,
                    constrained_layout=True)
    image = image.reshape(len(layers[0].c), -1)
    grid = figure.subplots(len(layers), 7, sharey=True, squeeze=False, gridspec_kw={
        'width_ratios': [2.3 * image.shape[1] / len(image), *[1] * 6]})
    for number, (layer, axes) in enumerate(zip(layers, grid), 1):
        if number == 1:
            _show_digit(axes[0], image)
        else:
            axes[0].imshow(layers[number - 2].h, cmap='RdBu', vmin=-1, vmax=1,
                           aspect='auto')
            axes[0].set(xlabel='all units')
        axes[0].set_title('what is read' if number == 1
                          else 'h of layer %d' % (number - 1), fontsize=9)
        axes[0].set_ylabel('layer %d, row' % number)
        _draw_layer(layer, axes[1:])
    for column, below, label in ((1, slice(0, 4), 'the gates i, f and o'),
                                 (2, slice(4, 7), 'j and h; c, to its \u00b1')):
        figure.colorbar(grid[0, column].images[0],
                        ax=grid[:, below].ravel().tolist(), label=label,
                        orientation='horizontal', shrink=0.6, aspect=30)
    return png(figure)


def _draw_layer(layer, axes):
    units = most_telling(layer, 10)
    bound = np.abs(layer.c[:, units]).max()
    titles = ('i: goes in', 'j: is new', 'f: stays', 'o: is shown',
              'c: kept, \u00b1%.1f' % bound, 'h: is put out')
    for place, name, title in zip(axes, 'ijfoch', titles):
        high = bound if name == 'c' else 1
        cmap, low = ('Blues', 0) if name in 'ifo' else ('RdBu', -high)
        place.imshow(getattr(layer, name)[:, units], cmap=cmap, vmin=low, vmax=high,
                     aspect='auto')
        place.set_title(title, fontsize=9)
        place.set_xticks(range(len(units)))
        place.set_xticklabels(units, fontsize=7, rotation=90)
    axes[0].set_xlabel('unit', fontsize=8)


@drawing()
def draw_errors(counts, names, wrong):
    """Draw a confusion matrix, and beside it images that were named wrongly.

    Args:
        counts: int [classes, classes], images of a class (row) that got a name
            (column).
        names: list of str, the names of the classes.
        wrong: at most `SHOWN` tuples: an image, float [rows, columns]; its true name;
            the name that it got; its number; and the probability of that name.

    Returns:
        A PNG file of 1300 x 700 pixels.
    """
    figure = Figure(figsize=(13, 7), dpi=100)
    matrix = figure.add_axes([0.07, 0.12, 0.42, 0.78])
    errors = counts * (1 - np.eye(len(names), dtype=int))
    matrix.imshow(errors, cmap='Reds', vmin=0, vmax=max(1, 1.5 * errors.max()))
    for axis in (matrix.xaxis, matrix.yaxis):
        _name_ticks(axis, names)
    matrix.set(xlabel='named', ylabel='true')
    matrix.set_title('%d of %d images are named wrongly' % (errors.sum(), counts.sum()))
    for true, named in zip(*counts.nonzero()) if len(names) <= 20 else ():
        matrix.text(named, true, counts[true, named], ha='center', va='center',
                    fontsize=10 if len(names) <= 12 else 7,
                    color='gray' if true == named else 'black')
    figure.text(0.765, 0.937, 'named wrongly with the highest probability', ha='center',
                fontsize='large')
    # All images in one axes, whose unit is a pixel: to make axes for each takes longer.
    sheet = figure.add_axes([0.55, 0.02, 0.43, 0.88])
    for k, (image, true, named, number, probability) in enumerate(wrong):
        x, y = 112 * (k % 5) + 56, 154 * (k // 5) + 77
        down, right = (48 * side / max(image.shape) for side in image.shape)
        sheet.imshow(image, cmap='gray_r', vmin=0, vmax=1, aspect='auto',
                     extent=[x - right, x + right, y + down, y - down])
        sheet.add_patch(Rectangle((x - right, y - down), 2 * right, 2 * down,
                                  fill=False, linewidth=0.8))
        sheet.text(x, y - down - 6, '%s, named %s' % (_short(true), _short(named)),
                   ha='center', fontsize=9, **literal(true + named))
        sheet.text(x, y + down + 6, 'image %d: %.4f' % (number, probability),
                   ha='center', va='top', fontsize=7)
    sheet.set(xlim=(0, 560), ylim=(616, 0))
    sheet.axis('off')
    return png(figure)


def _short(name):
    return name if len(name) <= 12 else name[:11] + '\u2026'


def _show_digit(axes, image):
    axes.imshow(image, cmap='gray_r')
    axes.set(xticks=[], yticks=_ticks(len(image)))


def _ticks(count):
    """Return at most ten ticks for rows or classes."""
    return range(0, count, -(-count // 10))


def _name_ticks(axis, names):
    """Name the ticks of classes; stand long names of an x axis on end."""
    axis.set_ticks(_ticks(len(names)))
    axis.set_ticklabels([_short(names[k]) for k in _ticks(len(names))],
                        **literal(''.join(names)))
    if axis.axis_name == 'x' and max(map(len, names)) > 3:
        axis.set_tick_params(rotation=90)
