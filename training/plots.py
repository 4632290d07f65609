"""Draw with matplotlib, and draw the curves of a run."""
import contextlib
import io
import logging
import warnings

from training.errors import UserError, not_installed, reason

logging.getLogger('matplotlib').setLevel(logging.ERROR)  # no folder for its settings
try:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.font_manager import fontManager
    from matplotlib.ticker import LogLocator, NullLocator
except ImportError:
    raise not_installed('matplotlib')
except ValueError as error:
    raise UserError('matplotlib does not start (%s): check MPLBACKEND and matplotlibrc'
                    % reason(error))

CHINESE_FONTS = ('Noto Sans CJK SC', 'Source Han Sans SC', 'WenQuanYi Zen Hei',
                 'WenQuanYi Micro Hei', 'Microsoft YaHei', 'SimHei', 'Noto Sans CJK JP')
LINES = {  # tag: style and label
    'loss/training': ('C0.-', 'training, with dropout'),
    'loss/validation': ('C1o-', 'validation, without'),
    'accuracy/training': ('C0.-', 'training'),
    'accuracy/validation': ('C1o-', 'validation')}


@contextlib.contextmanager
def drawing():
    """Draw under matplotlib's defaults, whatever matplotlibrc says, without warnings.

    Each function that draws has this as its decorator.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # such as: no font has this character
        matplotlib.rcdefaults()
        yield


def png(figure):
    """Return a figure as a PNG file. Call it inside `drawing`."""
    body = io.BytesIO()
    figure.savefig(body, format='png')
    return body.getvalue()


def literal(text):
    """Return keyword arguments that draw a text as it is, in a font that has it.

    The font is one of `CHINESE_FONTS` if text is not ASCII and one is installed.
    """
    installed = {font.name for font in fontManager.ttflist}
    fonts = [] if text.isascii() else [f for f in CHINESE_FONTS if f in installed]
    return dict(parse_math=False, **({'fontfamily': fonts[0]} if fonts else {}))


@drawing()
def draw_curves(points, run):
    """Draw loss and accuracy over the steps; return a PNG file of 800 x 600 pixels.

    points is {tag: {step: value}}, from `metrics.read_scalars`. A tag may be missing or
    empty; then its line is left out. run is a str, the title.
    """
    figure = Figure(figsize=(8, 6), dpi=100, tight_layout=True)
    losses, accuracies = figure.subplots(2, sharex=True)
    for tag, (style, label) in LINES.items():
        axes = losses if tag.startswith('loss') else accuracies
        if points.get(tag):
            axes.plot(*zip(*sorted(points[tag].items())), style, label=label)
    losses.set_yscale('log')
    losses.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    losses.yaxis.set_major_formatter('{x:g}')
    losses.yaxis.set_minor_locator(NullLocator())
    if points.get('accuracy/test'):
        step, test = max(points['accuracy/test'].items())
        accuracies.plot(step, test, 'k*', markersize=12, label='test: %g' % test)
    if points.get('accuracy/validation'):
        # Cut off the low accuracy of the first steps, to leave room for the others.
        accuracies.set_ylim(min(points['accuracy/validation'].values()) - 0.02, 1)
    losses.set_title(run, **literal(run))
    accuracies.set_xlabel('step')
    for axes, name, place in ((losses, 'loss', 'best'),
                              (accuracies, 'accuracy', 'lower right')):
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc=place)
    return png(figure)
