import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from training import figures, summaries


@pytest.fixture
def drawn(monkeypatch):
    """A list of the figures that are drawn."""
    drawn = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: (
        drawn.append(figure), savefig(figure, *args, **kwargs)))
    return drawn


def test_curves(digits_run, drawn):
    with Image.open(str(digits_run / 'curves.png')) as image:
        assert image.format == 'PNG' and image.size == (800, 600)

    points = summaries.read(str(digits_run))
    assert figures.draw_curves(points) == (
        digits_run / 'curves.png').read_bytes()
    losses, accuracies = drawn[0].axes
    lines = dict(zip(('loss/training', 'loss/validation', 'accuracy/training',
                      'accuracy/validation', 'accuracy/test'),
                     losses.lines + accuracies.lines))
    for tag, line in lines.items():
        assert dict(line.get_xydata()) == points[tag]


def test_rows(digits, drawn):
    rows = np.full([28, 10], 0.05)
    rows[np.arange(28), [1] * 9 + [7] * 4 + [1] + [7] * 14] = 0.55
    figures.draw_rows(digits.images[4], rows)
    left, right, _ = drawn[0].axes
    np.testing.assert_array_equal(left.images[0].get_array().reshape(784),
                                  digits.images[4])
    np.testing.assert_array_equal(right.images[0].get_array(), rows)
    assert [axes.lines[0].get_ydata()[0] for axes in (left, right)] == [13.5] * 2
    assert drawn[0]._suptitle.get_text() == (
        '7 with probability 0.5500, the most likely from row 14 on')
