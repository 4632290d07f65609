"""Draw the curves of a run with matplotlib."""
import io

from training.errors import missing

try:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator
except ImportError:
    raise missing('matplotlib')


def draw_curves(points, run):
    """Draw loss and accuracy over the steps; return a PNG file of 800 x 600 pixels.

    points is {tag: {step: value}}, from `metrics.read_scalars`. A run of fewer than
    200 steps has no 'accuracy/training'. run is a str, the title.
    """
    figure = Figure(figsize=(8, 6), dpi=100, tight_layout=True)
    losses, accuracies = figure.subplots(2, sharex=True)
    for name, axes in (('loss', losses), ('accuracy', accuracies)):
        for part, style in (('training', 'C0.-'), ('validation', 'C1o-')):
            tag = name + '/' + part
            if tag in points:
                axes.plot(*zip(*sorted(points[tag].items())), style, label=part)
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    losses.set_yscale('log')
    losses.legend(['training, with dropout', 'validation, without'])
    losses.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    losses.yaxis.set_major_formatter('{x:g}')
    losses.yaxis.set_minor_locator(NullLocator())
    step, test = max(points['accuracy/test'].items())
    accuracies.plot(step, test, 'k*', markersize=12, label='test: %g' % test)
    # Cut off the low accuracy of the first steps, to leave room for the others.
    accuracies.set_ylim(min(points['accuracy/validation'].values()) - 0.02, 1)
    losses.set_title(run)
    accuracies.set_xlabel('step')
    accuracies.legend(loc='lower right')
    return png(figure)


def png(figure):
    """Return a figure as a PNG file."""
    body = io.BytesIO()
    figure.savefig(body, format='png')
    return body.getvalue()
