from matplotlib.colors import to_hex
from PIL import Image

from training import plots
from training.metrics import read_scalars


def test_curves_show_every_point(digits_run, drawn):
    with Image.open(str(digits_run / 'curves.png')) as image:
        assert image.format == 'PNG' and image.size == (800, 600)

    points = read_scalars(str(digits_run))
    assert plots.draw_curves(points, digits_run.name) == (
        digits_run / 'curves.png').read_bytes()
    losses, accuracies = drawn[0].axes
    lines = dict(zip(('loss/training', 'loss/validation', 'accuracy/training',
                      'accuracy/validation', 'accuracy/test'),
                     losses.lines + accuracies.lines))
    for tag, line in lines.items():
        assert dict(line.get_xydata()) == points[tag]


def test_curves_of_a_run_without_training_accuracy(drawn):
    plots.draw_curves({
        'loss/training': {10: 0.2, 20: 0.1}, 'loss/validation': {20: 0.1},
        'accuracy/validation': {20: 0.5}, 'accuracy/test': {20: 0.4}}, 'a-run')
    assert drawn[0].axes[0].get_title() == 'a-run'
    assert drawn[0].axes[1].get_ylim() == (0.48, 1)
    losses, accuracies = (axes.lines for axes in drawn[0].axes)
    assert [line.get_label() for line in accuracies] == ['validation', 'test: 0.4']
    # Validation keeps its colour.
    training, validation, same = (
        to_hex(line.get_color()) for line in (*losses, accuracies[0]))
    assert training != validation == same
