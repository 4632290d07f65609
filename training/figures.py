"""What matplotlib draws: the curves of a run, and a digit read row by row."""
import io

import numpy as np

from training import cells, packages

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator
    from PIL import Image  # which matplotlib brings
except ImportError:
    raise packages.missing('matplotlib')


def draw_curves(points):
    """Draws loss and accuracy over the steps.

    Args:
        points: {tag: {step: value}}, as `summaries.read` gives them.

    Returns:
        bytes, a PNG file of 800 x 600 pixels.
    """
    figure = Figure(figsize=(8, 6), dpi=100, tight_layout=True)
    FigureCanvasAgg(figure)
    plots = dict(zip(('loss', 'accuracy'), figure.subplots(2, sharex=True)))
    for name, axes in plots.items():
        for part, style in (('training', '.-'), ('validation', 'o-')):
            axes.plot(*zip(*sorted(points[name + '/' + part].items())), style,
                      label=part)
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    plots['loss'].set_yscale('log')
    plots['loss'].legend(['training, with dropout', 'validation, without'])
    plots['loss'].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plots['loss'].yaxis.set_major_formatter('{x:g}')
    plots['loss'].yaxis.set_minor_locator(NullLocator())
    step, test = max(points['accuracy/test'].items())
    plots['accuracy'].plot(step, test, 'k*', markersize=12,
                           label='test: %g' % test)
    # The first steps, far below, would leave the others no room.
    plots['accuracy'].set_ylim(
        bottom=min(points['accuracy/validation'].values()) - 0.02)
    plots['accuracy'].set_xlabel('step')
    plots['accuracy'].legend(loc='lower right')
    return _png(figure)


def draw_rows(image, probabilities):
    """Draws a digit and, beside each row, its classes' probabilities by then.

    Args:
        image: float [784] in [0, 1].
        probabilities: float [28, 10], those after each row.

    Returns:
        bytes, a PNG file of 900 x 600 pixels.
    """
    best = probabilities.argmax(1)
    digit = best[-1]
    # The first row from which on the answer stays.
    decided = max([row + 1 for row in range(28) if best[row] != digit],
                  default=0)
    figure = Figure(figsize=(9, 6), dpi=100, tight_layout=True)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True,
                                  gridspec_kw={'width_ratios': [28, 20]})
    left.imshow(image.reshape(28, 28), cmap='gray_r', aspect='auto')
    left.set_yticks(range(0, 28, 3))
    left.set_xticks([])
    left.set_ylabel('row')
    left.set_title('what is read')
    shades = right.imshow(probabilities, cmap='Blues', vmin=0, vmax=1,
                          aspect='auto')
    right.set_xticks(range(10))
    right.set_title('what it is taken for so far')
    figure.colorbar(shades, ax=right, label='probability')
    for axes in (left, right):
        axes.axhline(decided - 0.5, color='tab:red', linewidth=1)
    figure.suptitle('%d with probability %.4f, the most likely from row %d on'
                    % (digit, probabilities[-1, digit], decided))
    return _png(figure)


def film_rows(image, probabilities):
    """Shows a digit being read, row by row, with its classes' probabilities.

    Args:
        image: float [784] in [0, 1].
        probabilities: float [28, 10], those after each row.

    Returns:
        bytes, an animated GIF file of 640 x 320 pixels: 28 frames in 1.9
        seconds, and the last stays for 1.5 more.
    """
    figure = Figure(figsize=(6.4, 3.2), dpi=100, tight_layout=True)
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, gridspec_kw={'width_ratios': [2, 3]})
    image = image.reshape(28, 28)
    seen = left.imshow(image, cmap='gray_r', vmin=0, vmax=1)
    line = left.axhline(0, color='tab:red', linewidth=1)
    left.set_xticks([])
    left.set_yticks([])
    bars = right.bar(range(10), probabilities[0])
    right.set_xticks(range(10))
    right.set_ylim(0, 1)
    right.set_ylabel('probability')
    frames = []
    for row, classes in enumerate(probabilities):
        # The rows to come are faint.
        seen.set_data(image * np.where(np.arange(28) <= row, 1, 0.12)[:, None])
        line.set_ydata([row + 0.5] * 2)
        for bar, probability in zip(bars, classes):
            bar.set_height(probability)
            bar.set_color('tab:blue' if probability == classes.max()
                          else 'lightgray')
        left.set_title('rows 0 to %d' % row)
        right.set_title('so far: %d' % classes.argmax())
        canvas.draw()
        frames.append(Image.fromarray(
            np.asarray(canvas.buffer_rgba())[..., :3]).quantize(128))
    gif = io.BytesIO()
    frames[0].save(gif, 'GIF', save_all=True, append_images=frames[1:], loop=0,
                   duration=[70] * 27 + [1500], optimize=True)
    return gif.getvalue()


def draw_cells(image, layers):
    """Draws what the most telling units of each layer do with a digit's rows.

    Which units these are, `cells.most_telling` says.

    Args:
        image: float [784] in [0, 1].
        layers: a list of `cells.Layer`.

    Returns:
        bytes, a PNG file, 1000 pixels wide and 100 + 300 a layer high.
    """
    figure = Figure(figsize=(10, 1 + 3 * len(layers)), dpi=100,
                    constrained_layout=True)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(layers), 7, sharey=True, squeeze=False)
    for number, (layer, axes) in enumerate(zip(layers, grid), 1):
        units = cells.most_telling(layer, 10)
        axes[0].imshow(image.reshape(28, 28), cmap='gray_r', aspect='auto')
        axes[0].set_title('what is read', fontsize=9)
        axes[0].set_yticks(range(0, 28, 3))
        axes[0].set_xticks([])
        axes[0].set_ylabel('layer %d, row' % number)
        # c has no bounds of its own.
        most = np.abs(layer.c[:, units]).max()
        for name, title, cmap, low, high, place in (
                ('i', 'i: goes in', 'Blues', 0, 1, axes[1]),
                ('j', 'j: is new', 'RdBu', -1, 1, axes[2]),
                ('f', 'f: stays', 'Blues', 0, 1, axes[3]),
                ('o', 'o: is shown', 'Blues', 0, 1, axes[4]),
                ('c', 'c: kept, \u00b1%.1f' % most, 'RdBu', -most, most,
                 axes[5]),
                ('h', 'h: is put out', 'RdBu', -1, 1, axes[6])):
            place.imshow(getattr(layer, name)[:, units], cmap=cmap, vmin=low,
                         vmax=high, aspect='auto')
            place.set_title(title, fontsize=9)
            place.set_xticks(range(len(units)))
            place.set_xticklabels(units, fontsize=7, rotation=90)
        axes[1].set_xlabel('unit', fontsize=8)
    for column, below, label in ((1, slice(0, 4), 'the gates i, f and o'),
                                 (2, slice(4, 7), 'j and h; c, to its \u00b1')):
        figure.colorbar(grid[0, column].images[0],
                        ax=grid[:, below].ravel().tolist(), label=label,
                        orientation='horizontal', shrink=0.6, aspect=30)
    return _png(figure)


def _png(figure):
    FigureCanvasAgg(figure)
    png = io.BytesIO()
    figure.savefig(png, format='png')
    return png.getvalue()
