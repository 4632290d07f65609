import json
import re

import pytest

import bench
from conftest import run

SIZE = {'batch_size': 4, 'hidden_size': 8, 'layer_num': 1}


def test_what_is_timed_takes_its_steps_in_turn(made_up_dir):
    names = ['script', 'dynamic', 'tutorial', 'products', 'cnn']
    figures = bench.in_turn(names, dict(SIZE, data_dir=str(made_up_dir)),
                            rounds=2, warm_up=1, steps=3)
    assert list(figures) == names
    for of in figures.values():
        assert list(of['phases']) == ['import', 'data', 'graph', 'first step']
        assert len(of['seconds']) == 2
        assert 0 < min(of['seconds']) <= max(of['seconds']) < 10


def test_memory_of_naming_all_at_once(made_up_dir):
    figures = bench.measure_memory(
        [], dict(SIZE, data_dir=str(made_up_dir)), rounds=1)
    assert list(figures) == ['script', 'cnn']
    for of in figures.values():
        before, peak = of['before'][0], of['peak'][0]
        assert 100 < before <= peak < 4000  # MiB


def test_whole_runs_are_of_the_same_steps(made_up_dir):
    figures = bench.measure_job(
        ['tutorial'], dict(SIZE, data_dir=str(made_up_dir)), rounds=1, steps=2)
    assert list(figures) == ['script', 'tutorial']
    for of in figures.values():
        assert of['seconds'][0] > 0 and of['peak'][0] > 100
        assert re.fullmatch(r'test accuracy \S+', of['says'][0])


def test_the_tutorials_transcript(made_up_dir):
    done = run('bench.py', '--job', 'tutorial', json.dumps(dict(
        SIZE, data_dir=str(made_up_dir), steps=200)))
    assert re.fullmatch(r'(Extracting .*\n){4}\(256, 784\)\n'
                        r'Iter3, step 200, training accuracy \S+\n'
                        r'test accuracy \S+\n', done.stdout)


def test_tables(capsys):
    def of(*seconds):
        return {'seconds': seconds, 'phases': {
            'import': 1, 'data': 2, 'graph': 3, 'first step': 4}}

    bench.print_step({'script': of(0.06, 0.07, 0.08),
                      'tutorial': of(0.12, 0.10, 0.10),
                      'products': of(0.03, 0.03, 0.03)})
    assert capsys.readouterr().out.splitlines() == [
        "| a training step | ms | of the tutorial's | of PyTorch's |",
        '| --- | --- | --- | --- |',
        '| train_lstm_mnist.py | 70 (60 to 80) | 0.70 (0.50 to 0.80) | - |',
        "| the tutorial's graph | 100 (100 to 120) | 1.00 (1.00 to 1.00) | - |",
        '| the matrix products alone | 30 (30 to 30) | 0.30 (0.25 to 0.30) | - |',
        '',
        '| before the second step, s | import | data | graph | first step |',
        '| --- | --- | --- | --- | --- |',
        '| train_lstm_mnist.py | 1.0 | 2.0 | 3.0 | 4.0 |',
        "| the tutorial's graph | 1.0 | 2.0 | 3.0 | 4.0 |",
        '']
    bench.print_memory({'cnn': {'before': [700], 'peak': [1900]}})
    assert capsys.readouterr().out.splitlines()[2] == (
        '| a two-layer CNN | 700 (700 to 700) | 1200 (1200 to 1200) |')


@pytest.mark.parametrize('args, status, why', [
    (('stepp',), 2, "argument PART: must be of step, size, job, memory, not "
     "'stepp'"),
    (('--rounds', '0'), 2, 'argument --rounds: '),
    (('step', '--data_dir', 'nowhere'), 1, 'MNIST is not there: put train-')])
def test_bad_flag(args, status, why, tmp_path):
    done = run('bench.py', *args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (status, '')
    assert 'error: ' + why in done.stderr
    assert not list(tmp_path.iterdir())
