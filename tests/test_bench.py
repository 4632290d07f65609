import json
import os
import re
import resource
import subprocess
import sys

import pytest
import tensorflow as tf
from conftest import ROOT

import bench.__main__
from bench import kernels, machines, measure, tables


def module(name, *args):
    """Runs a module of the project; returns a CompletedProcess."""
    return subprocess.run(
        [sys.executable, '-m', name, *args], cwd=ROOT, timeout=300,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


SIZE = {'batch_size': 4, 'hidden_size': 8, 'layer_num': 1}


def test_what_is_timed_takes_its_steps_in_turn(made_up_dir):
    names = ['script', 'dynamic', 'tutorial', 'products', 'cnn']
    figures = measure.in_turn(names, dict(SIZE, data_dir=str(made_up_dir)),
                            rounds=2, warm_up=1, steps=3)
    assert list(figures) == names
    for of in figures.values():
        assert list(of['phases']) == ['import', 'data', 'graph', 'first step']
        assert len(of['seconds']) == 2
        assert 0 < min(of['seconds']) <= max(of['seconds']) < 10


def test_memory_of_naming_all_at_once(made_up_dir):
    figures = measure.memory(
        [], dict(SIZE, data_dir=str(made_up_dir)), rounds=1)
    assert list(figures) == ['script', 'cnn']
    for of in figures.values():
        before, peak = of['before'][0], of['peak'][0]
        assert 100 < before <= peak < 4000  # MiB


def test_kernels_of_a_gpu_are_counted():
    """With statistics as TensorFlow gives them, since no GPU is at hand."""
    metadata = tf.RunMetadata()
    for name, spans in (('/device:CPU:0', [(0, 100)]),
                        ('/device:GPU:0/stream:all', [(10, 5), (12, 6), (30, 10)]),
                        ('/device:GPU:0/stream:7', [(10, 5)])):
        device = metadata.step_stats.dev_stats.add(device=name)
        for start, length in spans:
            device.node_stats.add(all_start_micros=start, op_end_rel_micros=length)
    assert kernels.count(metadata) == {'kernels': 3, 'busy': pytest.approx(18e-6)}


def test_kernels_are_traced_and_the_session_is_as_before(made_up_dir):
    figures = measure.kernels(['tutorial', 'torch'], dict(
        SIZE, data_dir=str(made_up_dir)), rounds=1)
    assert list(figures) == ['script', 'dynamic', 'tutorial']
    for of in figures.values():
        assert of['kernels'] == [0] and of['busy'] == [0]  # there is no GPU
        assert of['seconds'][0] > 0
    run = tf.Session.run
    with tf.Graph().as_default(), tf.Session() as sess:
        traced = kernels.trace(lambda: sess.run(tf.constant(1) + 1))
    assert tf.Session.run is run
    assert any(device.node_stats for device in traced.step_stats.dev_stats)


def test_whole_runs_are_of_the_same_steps(made_up_dir):
    figures = measure.job(
        ['tutorial'], dict(SIZE, data_dir=str(made_up_dir)), rounds=1, steps=2)
    assert list(figures) == ['script', 'tutorial']
    for of in figures.values():
        assert of['seconds'][0] > 0 and of['peak'][0] > 100
        assert 0 <= of['accuracy'][0] <= 1


@pytest.fixture
def begun(monkeypatch):
    """The commands of processes that a stand-in takes the place of, a list."""
    begun = []

    class Process(object):
        def __init__(self, argv, **kwargs):
            begun.append(argv)
            self.pid, self.stdout = 0, ['test accuracy 0.25\n']

    monkeypatch.setattr(subprocess, 'Popen', Process)
    monkeypatch.setattr(os, 'wait4', lambda pid, options: (
        pid, 0, resource.getrusage(resource.RUSAGE_SELF)))
    return begun


def test_a_start_is_of_one_step(begun):
    figures = measure.start(['tutorial'], dict(SIZE, data_dir='d'), 2)
    assert figures['script']['accuracy'] == [0.25, 0.25]
    script = [argv for argv in begun if 'train_lstm_mnist.py' in argv]
    tutorial = [argv for argv in begun if 'tutorial' in argv]
    assert len(script) == len(tutorial) == 2
    assert all('--steps=1' in argv for argv in script)
    assert all(json.loads(argv[-1])['steps'] == 1 for argv in tutorial)


def test_the_quick_way_has_its_own_size_and_steps(begun):
    figures = measure.quick([], dict(SIZE, data_dir='d'), 1, steps=7)
    assert list(figures) == ['quick', 'tutorial']
    assert figures['quick']['accuracy'] == [0.25]
    quick, = (argv for argv in begun if '--quick' in argv)
    assert quick[4:] == ['--quick', '--data_dir=d']


def test_the_tutorials_transcript(made_up_dir):
    done = module('bench.process', 'job', 'tutorial', json.dumps(dict(
        SIZE, data_dir=str(made_up_dir), steps=200)))
    assert re.fullmatch(r'(Extracting .*\n){4}\(256, 784\)\n'
                        r'Iter3, step 200, training accuracy \S+\n'
                        r'test accuracy \S+\n', done.stdout)


def test_tables(capsys):
    def of(*seconds):
        return {'seconds': seconds, 'phases': {
            'import': 1, 'data': 2, 'graph': 3, 'first step': 4}}

    tables.print_step({'script': of(0.06, 0.07, 0.08),
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
    tables.print_job({'tutorial': {'seconds': [12], 'peak': [1200],
                                   'accuracy': [0.25]}})
    assert capsys.readouterr().out.splitlines()[2] == (
        "| the tutorial's graph | 12 (12 to 12) | 1.00 (1.00 to 1.00) | - | "
        '1200 (1200 to 1200) | 0.2500 (0.2500 to 0.2500) |')
    tables.print_memory({'cnn': {'before': [700], 'peak': [1900]}})
    assert capsys.readouterr().out.splitlines()[2] == (
        '| a two-layer CNN | 700 (700 to 700) | 1200 (1200 to 1200) |')
    tables.print_kernels({'script': {'seconds': [0.02, 0.02], 'kernels': [900, 900],
                                     'busy': [0.005, 0.01]}})
    assert capsys.readouterr().out.splitlines()[2] == (
        '| train_lstm_mnist.py | 900 (900 to 900) | 20 (20 to 20) | 62 (50 to 75) |')


@pytest.mark.parametrize('args, status, why', [
    (('stepp',), 2, "argument PART: must be of step, size, job, start, memory, "
     "quick, kernels, not 'stepp'"),
    (('--rounds', '0'), 2, 'argument --rounds: '),
    (('step', '--data_dir', 'nowhere'), 1, 'MNIST is not there: put train-')])
def test_bad_flag(args, status, why):
    done = module('bench', *args)
    assert (done.returncode, done.stdout) == (status, '')
    assert 'error: ' + why in done.stderr


def test_the_model_of_many_machines(capsys):
    machines.show({
        'workers': {count: {'step': [0.08], 'alone': [0.07], 'reduce': [0.003],
                            'signal': [0.001], 'bytes': [3300000]}
                    for count in (1, 2)},
        'batch': {images: [0.01 + 0.0005 * images] for images in (8, 32, 512)}})
    said = capsys.readouterr().out
    assert ('takes 10.0 + 0.500 B / N ms of computing, which fits the steps of 8, '
            '32, 512 images here within 0 %, an all-reduce 2 (N - 1) / N times '
            "3.3 MB at the network's rate, and 1.0 ms times N - 1") in said
    # 10 + 32 + 1 ms, and 2.64 or 0.264 for 3.3 MB; 74 ms on one machine.
    assert '| 2 | 46 | 1.6 | 43 | 1.7 | 118 | 80 |' in said
    assert '| 1 | 74 | 1.0 | 74 | 1.0 | - | - |' in said


def test_horovod_is_missing(monkeypatch, capsys, made_up_dir):
    monkeypatch.setattr(sys, 'executable', '/nowhere/python')
    assert bench.__main__.main(['--horovod', '--data_dir', str(made_up_dir)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        'error: --horovod: /nowhere/horovodrun is missing: make horovod')
