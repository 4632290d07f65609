import warnings

import matplotlib
import pytest
from matplotlib.colors import to_hex
from matplotlib.font_manager import FontEntry, findfont, fontManager
from PIL import Image

from training import plots
from training.metrics import read_scalars

POINTS = {'loss/training': {10: 0.2, 20: 0.1}, 'loss/validation': {20: 0.1},
          'accuracy/validation': {20: 0.5}, 'accuracy/test': {20: 0.4}}


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
    plots.draw_curves(POINTS, 'a-run')
    assert drawn[0].axes[0].get_title() == 'a-run'
    assert drawn[0].axes[1].get_ylim() == (0.48, 1)
    losses, accuracies = (axes.lines for axes in drawn[0].axes)
    assert [line.get_label() for line in accuracies] == ['validation', 'test: 0.4']
    # Validation keeps its colour.
    training, validation, same = (
        to_hex(line.get_color()) for line in (*losses, accuracies[0]))
    assert training != validation == same


@pytest.mark.parametrize('change, labels', [
    ({tag: None for tag in POINTS}, [[], []]),
    ({tag: {} for tag in POINTS}, [[], []]),
    ({'accuracy/test': None},
     [['training, with dropout', 'validation, without'], ['validation']]),
    ({'accuracy/validation': {}, 'loss/training': None},
     [['validation, without'], ['test: 0.4']]),
    ({'accuracy/validation': None, 'loss/validation': {}},
     [['training, with dropout'], ['test: 0.4']])])
def test_curves_without_some_tags(change, labels, drawn, caplog):
    points = {**POINTS, **change}
    plots.draw_curves({tag: values for tag, values in points.items()
                       if values is not None}, 'a-run')
    assert [[line.get_label() for line in axes.lines]
            for axes in drawn[0].axes] == labels
    assert [[text.get_text() for text in axes.legend_.get_texts()]
            if axes.legend_ else [] for axes in drawn[0].axes] == labels
    assert (drawn[0].axes[1].get_ylim() == (0.48, 1)) is ('validation' in labels[1])
    assert not caplog.records


@pytest.mark.parametrize('settings', [
    {'text.usetex': True, 'text.latex.preamble': r'\nonsense'}, {'savefig.dpi': 300},
    {'savefig.bbox': 'tight'}, {'font.family': ['nonsense'], 'font.size': 30},
    {'lines.linewidth': 9, 'axes.facecolor': 'red'}], ids=' '.join)
def test_settings_of_matplotlib_change_nothing(settings, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))  # without latex
    usual = plots.draw_curves(POINTS, 'a-run')
    with matplotlib.rc_context(settings):
        assert plots.draw_curves(POINTS, 'a-run') == usual
        # The caller's settings are as before.
        assert {key: matplotlib.rcParams[key] for key in settings} == settings
    (tmp_path / 'curves.png').write_bytes(usual)
    with Image.open(str(tmp_path / 'curves.png')) as image:
        assert image.size == (800, 600)


@pytest.mark.parametrize('name', [
    'lr$x^$', '$x$', r'\$\frac', '\u624b\u5199\u6570\u5b57', '\udcff'])
def test_names_of_runs_are_drawn_as_they_are(name, drawn, caplog, capfd):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('always')
        plots.draw_curves(POINTS, name)
    assert not warned and not caplog.records and capfd.readouterr() == ('', '')
    assert drawn[0].axes[0].get_title() == name


def test_a_name_is_no_formula():
    # As mathtext, both would be a $.
    assert plots.draw_curves(POINTS, r'a\$') != plots.draw_curves(POINTS, 'a$')
    assert plots.draw_curves(POINTS, '$a$') != plots.draw_curves(POINTS, '${a}$')


def test_a_chinese_font_is_used_if_there_is_one(drawn, monkeypatch):
    def family(name):
        plots.draw_curves(POINTS, name)
        return drawn[-1].axes[0].title.get_fontfamily()

    monkeypatch.setattr(fontManager, 'ttflist', [
        font for font in fontManager.ttflist if font.name not in plots.CHINESE_FONTS])
    assert family('\u6570\u5b57') == family('digits') == ['sans-serif']
    fontManager.ttflist += [FontEntry(findfont('DejaVu Sans Mono'), name)
                            for name in ('SimHei', 'WenQuanYi Zen Hei')]
    assert family('\u6570\u5b57') == ['WenQuanYi Zen Hei']
    assert family('digits') == ['sans-serif']
