import gc
import importlib
import itertools
import json
import os
import re
import resource
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from conftest import LIMIT, ROOT, pixels
from PIL import Image

import bench.__main__
import bench.photos
from bench import ablation, measure, networks, peers, process, results
from training import saved_model

SIZE = {'batch_size': 4, 'hidden_size': 8, 'layer_num': 1}


def module(name, *args):
    """Run a module of the project; return a CompletedProcess."""
    return subprocess.run(
        [sys.executable, '-m', name, *args], cwd=ROOT, timeout=LIMIT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


def test_a_step_of_each_network_is_timed(made_up_dir):
    names = ['script', 'tutorial', 'products']
    figures = measure.steps(names, dict(SIZE, data_dir=str(made_up_dir)), 2, 1, 3)
    assert list(figures) == names
    for of in figures.values():
        assert 0 < min(of['ms']) <= max(of['ms']) < 10000
        assert all(0 < of[phase][0] == of[phase][1] < 100 for phase in (
            'import', 'data', 'graph', 'first step', 'in all'))
        assert of["of the tutorial's"][1] == of['ms'][1] / figures['tutorial']['ms'][1]


def test_memory_to_classify_all_test_images(made_up_dir):
    figures = measure.memory(['cnn'], dict(SIZE, data_dir=str(made_up_dir)), 1)
    for of in figures.values():
        assert 100 < of['before, MiB'][0] < 4000
        assert -10 < of['more at most, MiB'][0] < 1000


def test_the_peak_is_that_of_the_test_and_not_of_the_training(monkeypatch, capsys):
    def allocate(mebibytes):
        return np.ones(mebibytes * 2 ** 20, np.uint8).mean()

    gc.collect()  # or garbage may be freed at the peak
    monkeypatch.setattr(networks, 'read_data_sets', lambda data_dir: (None, [100]))
    monkeypatch.setattr(networks, 'prepare', lambda mnist, size: (
        lambda: allocate(300), allocate))
    process.main('memory', '{"network": "cnn", "data_dir": "", "steps": 2}')
    figures = json.loads(capsys.readouterr().out)
    assert 90 < figures['more at most, MiB'] < 110
    assert 100 < figures['before, MiB'] < 4000


def test_labelled_pictures_are_counted(digits_run, digits, tmp_path, capfd):
    rows = saved_model.Network(str(digits_run))(digits.images[:8])[:, -1]
    lines = []
    for i, (image, answer) in enumerate(zip(digits.images[:8], rows)):
        Image.fromarray(pixels(image)).save(str(tmp_path / ('%d.png' % i)))
        label = answer.argmax() if i < 5 else (answer.argmax() + 1) % 10
        lines.append('%d.png\t%d\tsomebody\n' % (i, label))
    (tmp_path / 'blank.png').write_bytes(b'')
    (tmp_path / 'labels.tsv').write_text(''.join(lines) + 'blank.png\t3\n')
    assert not bench.photos.main([str(tmp_path), str(digits_run)])
    *_, row, _, _ = capfd.readouterr().out.split('\n')
    high = (rows[5:].max(1) > 0.9).sum()
    assert row == '| %s | 5 of 9 (0.556) | 3 | %d | 1 |' % (digits_run, high)


@pytest.mark.parametrize('text', [None, 'a.png 3\n', 'a.png\tthree\n'])
def test_labels_that_cannot_be_read(text, tmp_path, capsys):
    if text:
        (tmp_path / 'labels.tsv').write_text(text)
    assert bench.photos.main([str(tmp_path), 'run']) == 1
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith('error: %s/labels.tsv cannot be read (' % tmp_path)
    assert line.endswith('each line must be a file, a tab, and its digit')


def test_whole_runs(made_up_dir):
    figures = measure.whole_runs(
        ['script'], dict(SIZE, data_dir=str(made_up_dir)), 1, steps=2)
    for of in figures.values():
        assert of['s'][0] > 1 and of['resident at most, MiB'][0] > 100
        assert of['test accuracy'][0] in [round(k / 64, 6) for k in range(65)]


@pytest.mark.parametrize('peer', process.PEERS)
def test_a_peer_learns(peer, made_up_dir):
    if not os.path.exists(os.path.join(ROOT, '.venv-' + peer)):
        pytest.skip('it is not installed')
    figures = measure.whole_runs([peer], dict(
        SIZE, hidden_size=32, layer_num=2, batch_size=64, data_dir=str(made_up_dir)),
        1, steps=200)
    assert figures[peer]['test accuracy'][0] > 0.7


@pytest.mark.parametrize('name', process.PEERS.values())
def test_what_a_peer_imports_of_this_project_is_there(name, monkeypatch):
    for module in ('torch', 'keras', 'jax', 'jax.numpy', 'optax', name):
        monkeypatch.setitem(sys.modules, module, mock.MagicMock())
    del sys.modules[name]
    importlib.import_module(name)


def test_batches_of_the_peers_have_each_image_once(made_up_dir):
    (images, labels), test = peers.read_data_sets(str(made_up_dir))
    _, answers = networks.read_data_sets(str(made_up_dir))
    np.testing.assert_allclose(test[0].reshape(-1, 784), answers[0], atol=1e-6)
    np.testing.assert_array_equal(test[1], answers[1].argmax(1))
    size = len(images) // 4 - 1
    batches = peers.shuffled((np.arange(len(images)), labels), size)
    for _ in range(2):
        seen, found = zip(*itertools.islice(batches, 4))
        assert len(set(np.concatenate(seen))) == 4 * size
        np.testing.assert_array_equal(
            np.concatenate(found), labels[np.concatenate(seen)])


def test_the_peers_that_are_not_there_are_named(made_up_dir, monkeypatch, capsys):
    monkeypatch.setattr(measure, 'ROOT', 'nowhere')
    monkeypatch.setattr(bench.__main__, 'SIZE', SIZE)
    assert not bench.__main__.main(['peers', '--data_dir', str(made_up_dir)])
    out, err = capsys.readouterr()
    assert err.endswith(
        'note: without PyTorch nn.LSTM: make .venv-torch/installed installs it\n'
        'note: without Keras 3 layers.LSTM: make .venv-keras/installed installs it\n'
        'note: without JAX lax.scan: make .venv-jax/installed installs it\n')
    assert re.search(r'\n\| a training step \| ms \| of ours \| 10,000 images, ms \|\n'
                     r'\|.*\n\| train_lstm_mnist.py \| \d.* \| 1.00 \| \d.* \|\n', out)


def test_networks_take_turns():
    asked = []

    def count(name):
        asked.append(name)
        return {'ms': len(asked)}

    figures = measure.in_turn(['script', 'everything'], 2, count)
    assert set(asked[:2]) == set(asked[2:]) == {'script', 'everything'}
    script, everything = figures['script']['ms'], figures['everything']['ms']
    assert sorted(script + everything) == [1, 2, 3, 4]
    assert figures['script']['of everything'] == [
        script[0] / everything[0], script[1] / everything[1]]


TUTORIALS = ['--batch_size=128', '--hidden_size=256', '--layer_num=2']


@pytest.mark.parametrize('part, flags, steps, more', [
    ('job', [[*TUTORIALS, '--steps=2000'], ['--quick']], 2000,
     ' resident at most, MiB | test accuracy |'),
    ('start', [[*TUTORIALS, '--steps=1']], 1, '')])
def test_the_commands_of_whole_runs(part, flags, steps, more, monkeypatch, capsys,
                                    tmp_path, made_up_dir):
    """Processes are replaced, so nothing is trained."""
    begun = []

    class Popen(object):
        def __init__(self, argv, **kwargs):
            begun.append(argv)
            self.pid, self.stdout = 0, ['test accuracy 0.25\n']

    monkeypatch.setattr(subprocess, 'Popen', Popen)
    monkeypatch.setattr(os, 'wait4', lambda pid, options: (
        pid, 0, resource.getrusage(resource.RUSAGE_SELF)))
    monkeypatch.setattr(measure, 'ROOT', 'nowhere')
    kept = tmp_path / 'figures.json'
    assert bench.__main__.main([part, '--rounds', '2', '--json', str(kept),
                                '--data_dir', str(made_up_dir)]) == 0
    script = [argv for argv in begun if 'train_lstm_mnist.py' in argv]
    tutorial = [argv for argv in begun if 'bench.baseline' in argv]
    assert len(tutorial) == len(begun) - len(script) == 2
    assert sorted(sorted(argv[3:]) for argv in script) == sorted(
        sorted(['--data_dir=%s' % made_up_dir, *some]) for some in 2 * flags)
    assert json.loads(tutorial[0][-1]) == {
        'batch_size': 128, 'hidden_size': 256, 'layer_num': 2, 'steps': steps,
        'data_dir': str(made_up_dir)}
    assert ("| from start to exit | s | of the tutorial's |%s\n" % more
            ) in capsys.readouterr().out
    figures = json.loads(kept.read_text())[part]
    assert figures['tutorial']['test accuracy'] == [0.25, 0.25]
    assert figures['tutorial']["of the tutorial's"] == [1, 1]


def test_the_tutorials_transcript(made_up_dir):
    done = module('bench.baseline', json.dumps(dict(
        SIZE, data_dir=str(made_up_dir), steps=200)))
    assert re.fullmatch(r'(Extracting .*\n){4}\(256, 784\)\n'
                        r'training data shape  \(256, 784\)\n'
                        r'training label shape  \(256, 10\)\n'
                        r'Iter3, step 200, training accuracy \S+\n'
                        r'test accuracy \S+\n', done.stdout)


def test_tables(capsys, tmp_path):
    results.print_figures('a training step', {
        'script': {'ms': [61, 70, 80], "of the tutorial's": [0.5, 0.7, 0.8]},
        'everything': {'ms': [9], "of the tutorial's": [1]}},
        ['ms', "of the tutorial's", "of PyTorch's"])
    assert capsys.readouterr().out.splitlines() == [
        "| a training step | ms | of the tutorial's |", '| --- | --- | --- |',
        '| train_lstm_mnist.py | 70 (61 to 80) | 0.70 (0.50 to 0.80) |',
        '| everything | 9 | 1.00 |', '']
    for seed in range(1, 11):
        tmp_path.joinpath('seed-%d' % seed).mkdir()
        tmp_path.joinpath('seed-%d' % seed, 'result.json').write_text(json.dumps(
            {'test_accuracy': 0.98 + seed / 1000, 'validation_accuracy': 0.9}))
    results.print_seeds(str(tmp_path))
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == ['| seed | test | validation |', '| --- | --- | --- |',
                           '| 1 | 0.9810 | 0.9000 |']
    assert printed[12:] == [
        '| mean | 0.9855 | 0.9000 |', '| lowest | 0.9810 | 0.9000 |',
        '| highest | 0.9900 | 0.9000 |', '| standard deviation | 0.0030 | 0.0000 |', '']


@pytest.mark.parametrize('args, status, why', [
    (('stepp',), 2, "argument PART: invalid choice: 'stepp'"),
    (('--rounds', '0'), 2, 'argument --rounds: '),
    (('--json', '/nowhere/figures'), 2, 'argument --json: '),
    (('step', '--data_dir', 'nowhere'), 1, 'MNIST is not there: put train-')])
def test_bad_flag(args, status, why):
    done = module('bench', *args)
    assert (done.returncode, done.stdout) == (status, '')
    assert 'error: ' + why in done.stderr


MATMUL, ELEMENTWISE = {b'CellMatMul', b'CellConcat'}, {b'CellMul', b'CellAdd'}
ROWS = {b'CellIdentity'}
FAST = MATMUL | ROWS | ELEMENTWISE
# The gradients that are ours, the products for the kernel's gradient that run, whether
# one gradient waits for another, whether the number of threads is set, and whether the
# graph optimizers are off.
EXPECTED = {
    'everything': (FAST, 3, False, True, True),
    'everything, again': (FAST, 3, False, True, True),
    'without our gradients': (set(), 28, False, True, True),
    'without the transposed kernels': (ROWS | ELEMENTWISE, 3, False, True, True),
    'without the element-wise gradients': (MATMUL | ROWS, 3, False, True, True),
    'with one row in a product': (FAST - ROWS, 28, False, True, True),
    'with GATE_OP': (FAST, 28, True, True, True),
    "with TensorFlow's default threads": (FAST, 3, False, False, True),
    'with the graph optimizers': (FAST, 3, False, True, False),
    'without any of these': (set(), 28, True, False, False),
}


def test_each_variant_lacks_its_part_and_learns_the_same(monkeypatch):
    sessions, real = [], tf.Session
    monkeypatch.setattr(tf, 'Session', lambda config: (
        sessions.append((config, real(config=config))) or sessions[-1][1]))
    random = np.random.RandomState(0)
    mnist = mock.Mock()
    mnist.train.next_batch.return_value = random.rand(4, 784), np.eye(10)[:4]
    found, weights = {}, {}
    for variant, parts in ablation.VARIANTS.items():
        with tf.Graph().as_default() as graph:
            tf.set_random_seed(1)
            train = ablation.prepare(mnist, SIZE, parts)
            config, sess = sessions.pop()
            before = sess.run(tf.trainable_variables())
            train()
            weights[variant] = sess.run(tf.trainable_variables())
        ops = graph.get_operations()
        step = tf.graph_util.extract_sub_graph(
            graph.as_graph_def(), [graph.get_collection(tf.GraphKeys.TRAIN_OP)[0].name])
        found[variant] = (
            {op.get_attr('_gradient_op_type') for op in ops
             if '_gradient_op_type' in op.node_def.attr},
            sum(node.op == 'MatMul' and node.attr['transpose_a'].b
                and 'gradients/RNN' in node.name for node in step.node),
            any('_grad/tuple' in node.name for node in step.node),
            config.inter_op_parallelism_threads > 0,
            config.graph_options.rewrite_options.disable_meta_optimizer)
        assert config.use_per_session_threads
    assert found == EXPECTED
    for variant in EXPECTED:
        for first, last, expected in zip(before, weights[variant],
                                         weights['everything']):
            assert np.abs(last - first).max() > 1e-4
            np.testing.assert_allclose(last, expected, atol=1e-5, err_msg=variant)


def test_variants_are_timed_beside_everything(made_up_dir, monkeypatch, capsys):
    def main(argv):
        ablation.main(*argv[3:])
        return capsys.readouterr().out.splitlines()[-1:]

    assert list(ablation.VARIANTS) == list(EXPECTED)
    variants = ['everything', 'with GATE_OP', "with TensorFlow's default threads"]
    monkeypatch.setattr(ablation, 'VARIANTS', {
        name: ablation.VARIANTS[name] for name in variants})
    monkeypatch.setattr(ablation, 'STEPS', 3)
    monkeypatch.setattr(measure, 'run', main)
    monkeypatch.setenv('TF_OVERRIDE_GLOBAL_THREADPOOL', '')  # `main` sets it
    figures = measure.ablation([], dict(SIZE, data_dir=str(made_up_dir)), 2)
    assert list(figures) == variants
    assert figures['everything']['of everything'] == [1, 1]
    for of in figures.values():
        assert 0 < min(of['ms']) <= max(of['ms']) < 10000
        assert len(of['of everything']) == 2
