import fcntl
import gzip
import importlib.util
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

import data
import model
import torture
import train_lstm_mnist
from conftest import ROOT, full_disk, idx, run, send

SCRIPT = 'train_lstm_mnist.py'
SMALL = ('--hidden_size', 8, '--batch_size', 16, '--device', 'cpu')


def extracting(folder):
    return ['Extracting %s' % os.path.join(str(folder), name)
            for name in data.FILES]


def test_transcript_and_run_directory_on_mnist(mnist_dir, tmp_path):
    done = run(SCRIPT, '--data_dir', mnist_dir, '--steps', 1000, *SMALL,
               '--log_every', 100, '--save_every', 300, cwd=tmp_path)
    assert done.returncode == 0
    *start, test = done.stdout.splitlines()
    assert start[:5] == extracting(mnist_dir) + ['(55000, 784)']
    assert len(start) == 10
    for i, line in enumerate(start[5:], 1):
        # 16 images a step: the first epoch lasts 3,437 steps.
        accuracy = re.fullmatch(
            r'Iter0, step %d, training accuracy (\S+)' % (200 * i), line)[1]
        assert float(accuracy) * 16 in range(17)
    test_accuracy = float(re.fullmatch(r'test accuracy (\S+)', test)[1])
    assert (test_accuracy * 10000).is_integer()

    device, told, *progress = [
        line for line in done.stderr.splitlines()
        if not re.match(r'\d{4}-\d\d-\d\d .*: E ', line)]
    assert device == 'training on the CPU, as --device cpu asks'
    # On no terminal, a line every --log_every steps and nothing else.
    assert len(progress) == 10
    for i, line in enumerate(progress, 1):
        assert re.fullmatch(
            r'step %d of 1000, \d+\.\d steps/s, loss 0\.\d{4}, accuracy '
            r'\d\.\d{3}' % (100 * i), line)
    run_dir = tmp_path / re.fullmatch(
        r'run directory: (runs/\d{8}-\d{6})', told)[1]
    assert sorted(re.sub('tfevents.*', 'tfevents', f.name)
                  for f in run_dir.iterdir()) == [
        'checkpoint', 'config.json', 'curves.png', 'events.out.tfevents',
        'model.ckpt-1000.data-00000-of-00001', 'model.ckpt-1000.index',
        'model.ckpt-600.data-00000-of-00001', 'model.ckpt-600.index',
        'model.ckpt-900.data-00000-of-00001', 'model.ckpt-900.index',
        'result.json', 'saved_model']
    config = json.loads((run_dir / 'config.json').read_text())
    assert config.pop('seed') in range(2 ** 31 - 1)
    assert config == {
        'lr': 1e-3, 'batch_size': 16, 'keep_prob': 0.5, 'hidden_size': 8,
        'layer_num': 2, 'steps': 1000, 'ema_decay': 0.0, 'dynamic_rnn': False,
        'dataset': 'mnist', 'data_dir': mnist_dir, 'mirror': None,
        'device': 'cpu', 'log_every': 100, 'save_every': 300,
        'run_dir': str(run_dir.relative_to(tmp_path)),
        'data_sha256': [sha256 for _, sha256 in data.FILES.values()]}
    result = json.loads((run_dir / 'result.json').read_text())
    assert result['test_accuracy'] == test_accuracy
    assert 0 < result['median_step_seconds'] < result['seconds'] / 1000
    assert {key: result[key] for key in (
        'dataset', 'steps', 'resumed_from_step', 'device')} == {
            'dataset': 'mnist', 'steps': 1000, 'resumed_from_step': 0,
            'device': 'CPU'}
    assert result['versions'] == {'python': '%d.%d.%d' % sys.version_info[:3],
                                  'tensorflow': tf.__version__,
                                  'numpy': np.__version__}

    # The checkpoint holds the weights that the accuracies were taken with.
    mnist = data.read_data_sets(mnist_dir)
    with tf.Graph().as_default(), tf.Session() as sess:
        m = model.build(hidden_size=8)
        tf.train.Saver().restore(sess, tf.train.latest_checkpoint(str(run_dir)))
        assert sess.run(tf.train.get_global_step()) == 1000
        for part, key in ((mnist.test, 'test_accuracy'),
                          (mnist.validation, 'validation_accuracy')):
            assert sess.run(m.accuracy, {
                m.images: part.images, m.y: part.labels, m.keep_prob: 1,
                m.batch_size: part.num_examples}) == pytest.approx(
                    result[key], abs=1e-6)


def test_transcript_on_digits(tmp_path):
    done = run(SCRIPT, '--dataset', 'digits', '--steps', 200, *SMALL,
               '--run_dir', tmp_path / 'run')
    # 200 steps of 16 images are 2 epochs of 1,257 and some.
    assert re.fullmatch(r'\(1257, 784\)\n'
                        r'Iter2, step 200, training accuracy \S+\n'
                        r'test accuracy \S+\n', done.stdout)
    result = json.loads((tmp_path / 'run' / 'result.json').read_text())
    assert result['dataset'] == 'digits'


def test_another_data_set_is_not_called_mnist(made_up_dir, tmp_path):
    done = run(SCRIPT, '--data_dir', 'made_up', '--steps', 1, *SMALL,
               '--run_dir', 'run', cwd=tmp_path)
    assert done.stdout.splitlines()[:5] == extracting('made_up') + [
        '(256, 784)']
    result = json.loads((tmp_path / 'run' / 'result.json').read_text())
    assert result['dataset'] == str(made_up_dir)


def test_defaults_are_the_tutorials():
    flags = vars(train_lstm_mnist.parse_flags([]))
    assert flags == {
        'lr': 1e-3, 'batch_size': 128, 'keep_prob': 0.5, 'hidden_size': 256,
        'layer_num': 2, 'steps': 2000, 'ema_decay': 0.0, 'dynamic_rnn': False,
        'dataset': 'mnist', 'data_dir': 'MNIST_data', 'mirror': None,
        'device': 'auto', 'seed': None, 'log_every': 50, 'save_every': 200,
        'run_dir': None, 'horovod': False, 'resume': None}
    shown = ' '.join(run(SCRIPT, '--help').stdout.split())
    for name, value in flags.items():
        assert '--' + name in shown
        if value not in (None, False):
            assert '(default: %s)' % value in shown


@pytest.mark.parametrize('layer_num, dynamic_rnn',
                         [(1, False), (2, True)])
def test_same_seed_same_transcript(layer_num, dynamic_rnn, tmp_path):
    def outcome(seed, name):
        run_dir = tmp_path / name
        stdout = run(SCRIPT, '--dataset', 'digits', '--steps', 200, *SMALL,
                     '--layer_num', layer_num, '--seed', seed,
                     *['--dynamic_rnn'] * dynamic_rnn,
                     '--run_dir', run_dir).stdout
        return stdout, torture.weights(str(run_dir))

    one, weights = outcome(4, 'one')
    again, same_weights = outcome(4, 'again')
    assert one == again and 'test accuracy' in one
    assert sum(name.endswith('lstm_cell/kernel') for name in weights) == (
        layer_num)
    assert weights == same_weights
    _, others = outcome(5, 'other')
    assert weights['W'] != others['W']


def test_flags_reach_the_training(tmp_path):
    def after_a_step(name, *args):
        run(SCRIPT, '--dataset', 'digits', '--steps', 1, '--seed', 1, *SMALL,
            '--dynamic_rnn',
            *args, '--run_dir', tmp_path / name)
        checkpoint = tf.train.load_checkpoint(str(tmp_path / name))
        return checkpoint.get_tensor('W'), checkpoint.get_tensor('W/Adam')

    W, slot = after_a_step('one')
    faster, same_slot = after_a_step('faster', '--lr', 0.1)
    np.testing.assert_array_equal(slot, same_slot)
    # Adam's first step is one of lr, whatever the gradient, up to its epsilon.
    np.testing.assert_allclose(np.abs(faster - W).max(), 0.1 - 0.001, rtol=0.01)
    _, without_dropout = after_a_step('whole', '--keep_prob', 1)
    assert (slot != without_dropout).any()


# What a run shows and leaves.

def test_bar_on_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('4H', 24, 120, 0, 0))
    running = start(*QUICK, '--steps', 400, cwd=tmp_path, stderr=theirs,
                    stdout=subprocess.PIPE)
    os.close(theirs)
    shown = b''
    try:
        while True:
            shown += os.read(ours, 4096)
    except OSError:  # the other end is closed
        os.close(ours)
    stdout, _ = running.communicate()
    assert running.returncode == 0
    assert re.fullmatch(r'\(1257, 784\)\n'
                        r'Iter15, step 200, training accuracy \S+\n'
                        r'Iter31, step 400, training accuracy \S+\n'
                        r'test accuracy \S+\n', stdout)
    last = re.split('[\r\n]+', shown.decode().strip())[-1]
    assert re.fullmatch(
        r'training: 100%\|.*\| 400/400 \[\d\d:\d\d<00:00, +\d+\.\d+step/s, '
        r'accuracy=\d\.\d{3}, loss=\d\.\d{4}\]', last), last
    assert 'step 50 of' not in shown.decode()


def test_tensorboard_shows_what_the_transcript_and_the_result_say(digits_run):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = 'http://127.0.0.1:%d/data/' % free.getsockname()[1]
    board = subprocess.Popen(
        [sys.executable, '-m', 'tensorboard.main', '--logdir',
         str(digits_run.parent), '--host', '127.0.0.1',
         '--port', address.split(':')[2].split('/')[0]],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def get(path):
        with urllib.request.urlopen(address + path, timeout=10) as answer:
            return answer.read().decode()

    def scalars(tag):
        return {step: value for _, step, value in json.loads(get(
            'plugin/scalars/scalars?run=run&tag=' + tag))}

    try:
        for _ in range(300):
            assert board.poll() is None
            try:
                if 'accuracy/test' in get('plugin/scalars/tags'):
                    break
            except OSError:  # not up yet
                pass
            time.sleep(0.2)
        result = json.loads((digits_run / 'result.json').read_text())
        approx = pytest.approx
        assert scalars('accuracy/test') == {
            500: approx(result['test_accuracy'], abs=1e-6)}
        validation = scalars('accuracy/validation')
        assert sorted(validation) == [200, 400, 500]
        assert validation[500] == approx(result['validation_accuracy'],
                                         abs=1e-6)
        training = scalars('accuracy/training')
        assert sorted(training) == list(range(50, 501, 50))
        told = re.findall(r'step (\d+), training accuracy (\S+)',
                          (digits_run / 'stdout').read_text())
        assert [step for step, _ in told] == ['200', '400']
        for step, accuracy in told:
            assert training[int(step)] == approx(float(accuracy), abs=1e-6)
        noted = {int(step): (float(rate), float(loss)) for step, rate, loss in
                 re.findall(r'step (\d+) of 500, (\S+) steps/s, loss (\S+),',
                            (digits_run / 'stderr').read_text())}
        losses, rates = scalars('loss/training'), scalars('steps_per_second')
        assert sorted(noted) == sorted(losses) == sorted(rates)
        for step in noted:
            assert noted[step] == (approx(rates[step], abs=0.1),
                                   approx(losses[step], abs=1e-4))
        assert losses[500] < losses[50] / 3
        assert scalars('loss/validation')[500] < losses[50] / 3
        graph = get('plugin/graphs/graph?run=run')
        for name in ('images', 'y', 'keep_prob', 'batch_size', 'y_pre',
                     'cross_entropy', 'train_op', 'accuracy'):
            assert 'name: "%s"' % name in graph
    finally:
        board.kill()
        board.wait()


def test_curves(digits_run, tmp_path, monkeypatch):
    from matplotlib.figure import Figure
    from PIL import Image
    with Image.open(str(digits_run / 'curves.png')) as image:
        assert image.format == 'PNG' and image.size == (800, 600)

    drawn = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: (
        drawn.append(figure), savefig(figure, *args, **kwargs)))
    points = train_lstm_mnist.read_points(tf, str(digits_run))
    train_lstm_mnist.draw_curves(points, str(tmp_path / 'curves.png'))
    assert (tmp_path / 'curves.png').read_bytes() == (
        digits_run / 'curves.png').read_bytes()
    losses, accuracies = drawn[0].axes
    lines = dict(zip(('loss/training', 'loss/validation', 'accuracy/training',
                      'accuracy/validation', 'accuracy/test'),
                     losses.lines + accuracies.lines))
    for tag, line in lines.items():
        assert {step: value for step, value in line.get_xydata()} == points[tag]


def test_what_is_tested_and_exported_are_the_averages(digits_run):
    result = json.loads((digits_run / 'result.json').read_text())
    checkpoint = tf.train.load_checkpoint(str(digits_run))
    test = data.read_data_sets('', 'digits').test
    with tf.Graph().as_default(), tf.Session() as sess:
        signatures = tf.saved_model.load(
            sess, ['serve'], str(digits_run / 'saved_model')).signature_def
        for variable in tf.global_variables():
            name = variable.op.name
            average, raw = (checkpoint.get_tensor(name + suffix) for suffix in
                            ('/ExponentialMovingAverage', ''))
            np.testing.assert_array_equal(sess.run(variable), average)
            assert (average != raw).any()
        default, rows = signatures['serving_default'], signatures['rows']
        probabilities, classes, by_row = sess.run(
            [default.outputs['probabilities'].name,
             default.outputs['classes'].name,
             rows.outputs['probabilities'].name],
            {default.inputs['images'].name: test.images})
    assert by_row.shape == (360, 28, 10)
    np.testing.assert_allclose(by_row.sum(2), 1, rtol=1e-5)
    np.testing.assert_array_equal(by_row[:, -1], probabilities)
    np.testing.assert_array_equal(probabilities.argmax(1), classes)
    assert np.mean(classes == test.labels.argmax(1)) == pytest.approx(
        result['test_accuracy'], abs=1e-6)
    assert result['test_accuracy'] > 0.8
    with tf.Graph().as_default(), tf.Session() as sess:
        m = model.build(hidden_size=32, ema_decay=0.98)
        tf.train.Saver().restore(sess,
                                 tf.train.latest_checkpoint(str(digits_run)))
        validation = data.read_data_sets('', 'digits').validation
        assert sess.run([m.accuracy, m.cross_entropy], {
            m.images: validation.images, m.y: validation.labels, m.keep_prob: 1,
            m.batch_size: validation.num_examples,
            **dict(zip(m.averages, sess.run(list(m.averages.values()))))}) == (
                pytest.approx([
                    result['validation_accuracy'],
                    train_lstm_mnist.read_points(tf, str(digits_run))[
                        'loss/validation'][500]], abs=1e-6))


def test_saved_model_cli(digits_run, tmp_path):
    test = data.read_data_sets('', 'digits').test
    np.save(str(tmp_path / 'images.npy'), test.images[:20])

    def cli(command, *args):
        return subprocess.run(
            [sys.executable, '-m', 'tensorflow.python.tools.saved_model_cli',
             command, '--dir', str(digits_run / 'saved_model'), *args],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True,
            universal_newlines=True).stdout

    shown = ' '.join(cli('show', '--all').split())
    for signature, what in (
            ('serving_default', "inputs['images'] tensor_info: dtype: DT_FLOAT "
             'shape: (-1, 784)'),
            ('serving_default', "outputs['probabilities'] tensor_info: dtype: "
             'DT_FLOAT shape: (-1, 10)'),
            ('serving_default', "outputs['classes'] tensor_info: dtype: "
             'DT_INT64 shape: (-1)'),
            ('rows', "outputs['probabilities'] tensor_info: dtype: DT_FLOAT "
             'shape: (-1, 28, 10)')):
        part = shown.split("signature_def['%s']" % signature)[1]
        assert what in part.split('signature_def')[0]
    cli('run', '--tag_set', 'serve', '--signature_def', 'serving_default',
        '--inputs', 'images=%s' % (tmp_path / 'images.npy'), '--outdir',
        str(tmp_path))
    classes = np.load(str(tmp_path / 'classes.npy'))
    assert np.mean(classes == test.labels[:20].argmax(1)) > 0.7
    np.testing.assert_array_equal(
        np.load(str(tmp_path / 'probabilities.npy')).argmax(1), classes)


@pytest.mark.parametrize('package', ['tqdm', 'matplotlib'])
def test_a_package_is_missing(package, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: (
        None if name == package else find_spec(name)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(data.UserError) as error:
        train_lstm_mnist.train(tf, train_lstm_mnist.parse_flags([]))
    assert re.fullmatch(r'%s is missing: pip install %s==\S+'
                        % (package, package), str(error.value))
    pinned = open(os.path.join(ROOT, 'requirements.txt')).read().split()
    assert str(error.value).split()[-1] in pinned
    assert not list(tmp_path.iterdir())


# Other bad input: one `error:` line, status 1, nothing written.

def fails(*args, cwd, **env):
    """Runs the script, which must fail; returns its error line."""
    before = sorted(cwd.rglob('*'))
    done = run(SCRIPT, '--steps', 1, '--hidden_size', 8, *args, cwd=cwd, **env)
    assert done.returncode == 1
    assert 'test accuracy' not in done.stdout
    assert sorted(cwd.rglob('*')) == before
    line, = done.error_lines
    assert done.stderr.splitlines()[-1] == line
    return line


def test_fetched_files_are_trained_on(mnist_dir, serve, tmp_path):
    def answer(handler, name):
        with open(os.path.join(mnist_dir, name), 'rb') as f:
            send(handler, f.read())

    mirror = serve(answer)
    done = run(SCRIPT, '--mirror', mirror.rstrip('/'), '--steps', 1, *SMALL,
               cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[:5] == extracting('MNIST_data') + [
        '(55000, 784)']
    assert ['fetching %s%s' % (mirror, name) for name in data.FILES] == [
        line for line in done.stderr.splitlines() if 'fetching' in line]


def test_a_gpu_is_asked_for_and_hidden(made_up_dir):
    line = fails('--device', 'gpu', '--data_dir', made_up_dir, cwd=made_up_dir,
                 CUDA_VISIBLE_DEVICES='')
    assert line.startswith('error: --device gpu: there is no GPU to train on, '
                           'since ')


@pytest.mark.parametrize('tensorflow, found', [
    ('raise ImportError("no such library\\nat all")',
     'ImportError: no such library'),
    ('raise TypeError("Descriptors cannot not be created directly.")',
     'TypeError: Descriptors cannot not be created directly.'),
    ('__version__ = "2.4.0"', 'this is 2.4.0'),
])
def test_another_tensorflow(tensorflow, found, tmp_path):
    (tmp_path / 'tensorflow.py').write_text(tensorflow)
    line = fails(cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert line == ('error: TensorFlow 1.15 is needed (%s): in a Python 3.7, '
                    'pip install -r requirements.txt, or use make train'
                    % found)


def test_runs_that_begin_in_the_same_second_do_not_share(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, 'strftime', lambda form: 'runs/20200101-000000')
    assert [train_lstm_mnist.make_run_dir(None) for _ in range(3)] == [
        'runs/20200101-000000', 'runs/20200101-000000-2',
        'runs/20200101-000000-3']
    with pytest.raises(data.UserError, match='is in use by a training'):
        train_lstm_mnist.claim('runs/20200101-000000-3')


# Trainings that can't go on.

@pytest.mark.parametrize('lr, why', [
    ('1000', r'came apart at step 2, with a loss of \d{3,}(\.\d+)? and a sum of '
     r'all weights of \S+: begin a new run with a lower --lr or a higher '
     r'--keep_prob; run keeps the checkpoint of step 1'),
    ('1e39', r'came apart at step 1, with a loss of 0\.\d+ and a sum of all '
     r'weights of nan: .*; run keeps no checkpoint yet')])
def test_numbers_that_go_bad(lr, why, tmp_path):
    done = run(SCRIPT, '--dataset', 'digits', *SMALL, '--hidden_size', 64,
               '--dynamic_rnn',
               '--lr', lr, '--save_every', 1, '--seed', 1, '--run_dir', 'run',
               cwd=tmp_path)
    assert done.returncode == 1 and 'test accuracy' not in done.stdout
    line, = done.error_lines
    assert done.stderr.splitlines()[-1] == line
    assert re.fullmatch('error: the training ' + why, line)
    run_dir = tmp_path / 'run'
    assert not (run_dir / 'result.json').exists()
    saved = train_lstm_mnist.checkpoints(str(run_dir))
    assert saved == ([1] if lr == '1000' else [])
    if saved:
        weights = tf.train.load_checkpoint(str(run_dir / 'model.ckpt-1'))
        assert np.isfinite(weights.get_tensor('W')).all()


def test_disks_that_fill_up(tmp_path):
    counts = torture.fill_disks(3, str(tmp_path), lambda line: None)
    assert counts['filled'] == 3 == counts['resumed'] + counts['anew']


def test_a_disk_that_is_full_of_notes(tmp_path):
    """The first file that finds no room is the one for TensorBoard."""
    (tmp_path / 'disk').mkdir()
    done = run(SCRIPT, '--dataset', 'digits', *SMALL, '--run_dir', 'disk/run',
               cwd=tmp_path, prefix=full_disk('disk', '16k', False))
    assert done.returncode == 1
    line, = done.error_lines
    assert re.fullmatch(
        r'error: cannot write (disk/run/events\.out\.tfevents\.\S+) \(\1; No '
        r'space left on device\): mend that and begin a new run', line)


# Where the graph runs.

class LocalDevice(object):
    device_type = 'GPU'
    physical_device_desc = ('device: 0, name: Tesla T4, pci bus id: '
                            '0000:00:04.0, compute capability: 7.5')


@pytest.fixture
def devices(monkeypatch):
    """Sets the devices that TensorFlow lists besides the CPU."""
    from tensorflow.python.client import device_lib

    def set_devices(devices):
        monkeypatch.setattr(device_lib, 'list_local_devices', lambda config: (
            [] if config.device_count.get('GPU') == 0 else devices))

    return set_devices


def test_device_is_named(devices, capsys):
    devices([LocalDevice])
    for device, name, line in (
            ('auto', 'Tesla T4', 'training on the GPU: Tesla T4\n'),
            ('gpu', 'Tesla T4', 'training on the GPU: Tesla T4\n'),
            ('cpu', 'CPU', 'training on the CPU, as --device cpu asks\n')):
        config = tf.ConfigProto()
        assert train_lstm_mnist.choose_device(tf, config, device) == name
        assert capsys.readouterr().err == line


def test_gpu_memory_is_taken_as_it_is_needed(monkeypatch):
    from tensorflow.python.client import device_lib
    seen = []

    def look(config):
        seen.append(config.gpu_options.allow_growth)
        return []

    def session(config):
        look(config)
        raise data.UserError('seen')

    # TensorFlow keeps to the configuration that a GPU is first opened with.
    monkeypatch.setattr(device_lib, 'list_local_devices', look)
    monkeypatch.setattr(tf, 'Session', session)
    with pytest.raises(data.UserError):
        train_lstm_mnist.train(tf, train_lstm_mnist.parse_flags([]))
    assert seen == [True, True]


@pytest.mark.parametrize('cores, threads', [(1, 1), (2, 1), (9, 4)])
def test_half_of_the_cores_share_an_operation(cores, threads, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(cores)))
    config = train_lstm_mnist.session_config(tf)
    assert config.intra_op_parallelism_threads == threads
    config = train_lstm_mnist.session_config(tf, dynamic_rnn=True)
    assert config.intra_op_parallelism_threads == 0  # all


def test_training_keeps_its_memory(tmp_path, monkeypatch):
    def seen():
        raise data.UserError('seen')

    monkeypatch.setattr(train_lstm_mnist, 'memory_kept', seen)
    with pytest.raises(data.UserError, match='seen'):
        train_lstm_mnist.train(tf, train_lstm_mnist.parse_flags([
            '--dataset', 'digits', '--hidden_size', '8', '--run_dir',
            str(tmp_path / 'run')]))
    tf.reset_default_graph()


def test_memory_is_kept_for_the_next_step_and_then_given_back():
    # A process of its own, since one that has run tests has memory to spare.
    before, kept, after = map(int, subprocess.run(
        [sys.executable, '-c', """if True:
            import os
            import numpy as np
            import train_lstm_mnist

            def tell_resident():
                with open('/proc/self/statm') as f:
                    print(int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE'))

            tell_resident()
            with train_lstm_mnist.memory_kept():
                np.ones(2 ** 24, np.uint8)  # and away with it
                tell_resident()
            tell_resident()"""],
        cwd=ROOT, stdout=subprocess.PIPE, check=True,
        universal_newlines=True).stdout.split())
    assert kept - before > 0.9 * 2 ** 24
    assert after - before < 0.1 * 2 ** 24


def test_the_libraries_that_are_missing_are_named(devices, capsys, monkeypatch):
    devices([])
    monkeypatch.setattr(train_lstm_mnist, 'CUDA_LIBRARIES',
                        ('libc.so.6', 'libcudart.so.0', 'libcudnn.so.0'))
    assert train_lstm_mnist.choose_device(
        tf, tf.ConfigProto(), 'auto') == 'CPU'
    assert capsys.readouterr().err == (
        'training on the CPU, since it could not load libcudart.so.0, '
        'libcudnn.so.0\n')
    monkeypatch.setattr(train_lstm_mnist, 'CUDA_LIBRARIES', ('libc.so.6',))
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
    assert train_lstm_mnist.why_no_gpu(tf) == (
        'since CUDA_VISIBLE_DEVICES=-1 shows it no GPU')


# Ending early, and going on.

# A step takes some milliseconds, and an epoch 13 steps.
QUICK = ('--dataset', 'digits', '--hidden_size', '8', '--layer_num', '1',
         '--dynamic_rnn', '--batch_size', '100', '--keep_prob', '1', '--seed',
         '3', '--ema_decay', '0.9', '--device', 'cpu')


def start(*args, cwd, **streams):
    return subprocess.Popen(
        [sys.executable, os.path.join(ROOT, SCRIPT), *map(str, args)],
        cwd=str(cwd), universal_newlines=True, stderr=streams.pop(
            'stderr', subprocess.PIPE), **streams,
        # Unbuffered, Python has nothing left to flush as it exits.
        env={name: value for name, value in os.environ.items()
             if name != 'PYTHONUNBUFFERED'},
        # What runs in the background of a script ignores SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def wait_for(text, stream):
    for line in stream:
        if text in line:
            return
    raise AssertionError('no line with ' + text)


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory):
    """A run of 120 steps that nobody stopped."""
    run_dir = tmp_path_factory.mktemp('whole') / 'run'
    assert run(SCRIPT, *QUICK, '--steps', 120, '--run_dir',
               run_dir).returncode == 0
    return run_dir


@pytest.mark.parametrize('number, status', [(signal.SIGINT, 130),
                                            (signal.SIGTERM, 143)])
def test_stopped_and_resumed(number, status, whole_run, tmp_path):
    running = start(*QUICK, '--steps', 10 ** 6, '--log_every', 1,
                    '--run_dir', "it's a run", cwd=tmp_path,
                    stdout=subprocess.PIPE)
    try:
        wait_for('step 20 of', running.stderr)
        with pytest.raises(data.UserError, match='is in use by a training'):
            train_lstm_mnist.claim(str(tmp_path / "it's a run"))
        running.send_signal(number)
        stdout, stderr = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == status
    assert 'test accuracy' not in stdout
    *_, says, command = stderr.splitlines()
    step = int(re.fullmatch(
        r'stopped after step (\d+); to go on from there:', says)[1])
    assert 'error' not in stderr and 'Traceback' not in stderr
    run_dir = tmp_path / "it's a run"
    assert not (run_dir / 'result.json').exists()

    # As it is printed, with the step to go on to.
    done = subprocess.run(
        command + ' --steps 120', shell=True, cwd=str(tmp_path),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True)
    assert done.returncode == 0
    assert 'going on from step %d' % step in done.stderr.splitlines()
    assert torture.weights(str(run_dir)) == torture.weights(str(whole_run))
    result, expected = (json.loads((folder / 'result.json').read_text())
                        for folder in (run_dir, whole_run))
    assert result['resumed_from_step'] == step
    for key in ('steps', 'test_accuracy', 'validation_accuracy'):
        assert result[key] == expected[key]
    assert json.loads((run_dir / 'config.json').read_text())['steps'] == 120


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    # Steps of several seconds.
    running = start('--dataset', 'digits', '--batch_size', 1257, '--log_every',
                    1, '--hidden_size', 1024, '--run_dir', 'run', '--device',
                    'cpu', cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        wait_for('run directory', running.stderr)
        while not list(tmp_path.glob('run/events*')):
            time.sleep(0.1)
        time.sleep(1)
        running.send_signal(signal.SIGINT)
        wait_for('a second time stops at once', running.stderr)
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, stderr) == (130, '')
    assert not list(tmp_path.glob('run/model*'))


def test_kill_9(tmp_path):
    counts = torture.kill(3, str(tmp_path), lambda line: None)
    assert counts['killed'] == 3 == counts['resumed'] + counts['anew']


def test_a_run_that_is_done_is_taken_further(whole_run, tmp_path):
    run_dir = tmp_path / 'run'
    shutil.copytree(str(whole_run), str(run_dir))
    done = run(SCRIPT, '--resume', 'run', '--steps', 150, cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads((run_dir / 'result.json').read_text())['steps'] == 150
    points = train_lstm_mnist.read_points(tf, str(run_dir))
    assert sorted(points['loss/training']) == [50, 100, 120, 150]
    assert sorted(points['accuracy/test']) == [120, 150]
    events = [event for path in sorted(run_dir.glob('events*'))
              for event in tf.train.summary_iterator(str(path))]
    assert [event.step for event in events
            if event.session_log.status == tf.SessionLog.START] == [1, 121]


def test_what_was_noted_of_steps_that_were_lost_is_forgotten(whole_run,
                                                             tmp_path):
    run_dir = tmp_path / 'run'
    shutil.copytree(str(whole_run), str(run_dir))
    (run_dir / 'result.json').unlink()
    (events,) = run_dir.glob('events*')
    events.write_bytes(events.read_bytes()[:-5])  # killed while writing
    writer = tf.summary.FileWriter(str(run_dir))
    for step, session_log in ((110, None), (111, None), (120, 111)):
        if session_log:
            writer.add_session_log(
                tf.SessionLog(status=tf.SessionLog.START), session_log)
        writer.add_summary(tf.Summary(value=[tf.Summary.Value(
            tag='loss/training', simple_value=step)]), step)
    writer.close()
    assert train_lstm_mnist.read_points(tf, str(run_dir))['loss/training'] == {
        **{step: pytest.approx(value) for step, value in
           train_lstm_mnist.read_points(tf, str(whole_run))[
               'loss/training'].items() if step < 110}, 110: 110, 120: 120}


def flip(place):
    def change(path):
        body = bytearray(path.read_bytes())
        body[int(place * len(body))] ^= 4
        path.write_bytes(body)
    return change


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def test_a_seed_of_0_is_kept(whole_run, tmp_path):
    run_dir = tmp_path / 'run'
    shutil.copytree(str(whole_run), str(run_dir))
    config = json.loads((run_dir / 'config.json').read_text())
    config.update(seed=0, ema_decay=0.0)
    (run_dir / 'config.json').write_text(json.dumps(config))
    flags = train_lstm_mnist.parse_flags(['--resume', str(run_dir),
                                          '--steps', '130'])
    assert (flags.seed, flags.ema_decay, flags.steps) == (0, 0, 130)


def test_a_saved_model_that_is_gone_is_made_again(whole_run, tmp_path):
    run_dir = tmp_path / 'run'
    shutil.copytree(str(whole_run), str(run_dir))
    before = data.sha256sums(str(run_dir / 'saved_model'))
    shutil.rmtree(str(run_dir / 'saved_model'))
    assert run(SCRIPT, '--resume', 'run', cwd=tmp_path).returncode == 0
    assert [line.split()[1] for line in data.sha256sums(
        str(run_dir / 'saved_model')).splitlines()] == [
            line.split()[1] for line in before.splitlines()]


def test_a_bad_flag_with_resume_is_wrong_usage(whole_run, monkeypatch, capsys):
    monkeypatch.setattr(data, 'num_train', lambda dataset, data_dir: 99)
    with pytest.raises(SystemExit) as stop:
        train_lstm_mnist.parse_flags(['--resume', str(whole_run),
                                      '--steps', '130'])
    assert stop.value.code == 2
    assert 'argument --batch_size: must be from 1 to 99' in (
        capsys.readouterr().err)


def test_a_resumed_run_draws_new_dropout(tmp_path):
    # The same image always, and weights that stay as they are.
    images = np.full([5256, 28, 28], 100)
    labels = np.zeros(5256)
    for name, items in zip(data.FILES, (images, labels, images, labels)):
        (tmp_path / name).write_bytes(idx(items))
    assert run(SCRIPT, *SMALL, '--dynamic_rnn', '--data_dir', '.', '--lr', 1e-30,
               '--steps', 1, '--seed', 1, '--run_dir', 'run',
               cwd=tmp_path).returncode == 0
    assert run(SCRIPT, '--resume', 'run', '--steps', 2,
               cwd=tmp_path).returncode == 0
    losses = train_lstm_mnist.read_points(tf, str(tmp_path / 'run'))[
        'loss/training']
    assert losses[1] != losses[2]
    assert losses[1] == pytest.approx(losses[2], rel=0.2)


@pytest.fixture
def saves(tmp_path):
    """A little model with checkpoints of steps 1 to 4, whose W is the step.

    Gives its session, its saver, their folder, and W.
    """
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    with tf.Graph().as_default(), tf.Session() as sess:
        W = tf.get_variable('W', [1000])
        saver = tf.train.Saver(max_to_keep=None)
        run_dir = tmp_path / 'saves'
        run_dir.mkdir()
        for step in (1, 2, 3, 4):
            sess.run(W.assign([step] * 1000))
            train_lstm_mnist.save(tf, sess, saver, str(run_dir), step)
        sess.run(W.assign([0] * 1000))
        yield sess, saver, run_dir, W


def test_the_last_three_checkpoints_are_kept(saves):
    sess, saver, run_dir, W = saves
    assert sorted(path.name for path in run_dir.iterdir()) == ['checkpoint'] + [
        'model.ckpt-%d.%s' % (step, part) for step in (2, 3, 4)
        for part in ('data-00000-of-00001', 'index')]
    state = tf.train.get_checkpoint_state(str(run_dir))
    assert state.model_checkpoint_path == str(run_dir / 'model.ckpt-4')
    assert list(state.all_model_checkpoint_paths) == [
        str(run_dir / ('model.ckpt-%d' % step)) for step in (2, 3, 4)]
    assert train_lstm_mnist.restore(tf, sess, saver, str(run_dir), 9) == 4
    assert set(sess.run(W)) == {4}


def test_a_checkpoint_is_on_the_disk_before_it_counts(saves, monkeypatch):
    sess, saver, run_dir, W = saves
    done = []

    def look(name, of):
        function = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args: (
            done.append((name, os.path.basename(of(*args)))), function(*args)))

    look('fsync', lambda descriptor: os.readlink('/proc/self/fd/%d'
                                                 % descriptor))
    look('replace', lambda source, target: target)
    (run_dir / 'saving').mkdir()  # left by a process that died
    (run_dir / 'saving' / 'model.ckpt-3.index').write_text('half of it')
    train_lstm_mnist.save(tf, sess, saver, str(run_dir), 5)
    data_file, index = ('model.ckpt-5.' + part for part in
                        ('data-00000-of-00001', 'index'))
    assert done[:5] == [('fsync', data_file), ('replace', data_file),
                        ('fsync', index), ('replace', index),
                        ('fsync', 'saves')]
    assert train_lstm_mnist.restore(tf, sess, saver, str(run_dir), 9) == 5


@pytest.mark.parametrize('part', ['data-00000-of-00001', 'index'])
@pytest.mark.parametrize('change', [
    cut, flip(0), flip(0.5), flip(0.99), os.remove,
    lambda path: path.write_bytes(b'')], ids=[
        'cut', 'flip first', 'flip middle', 'flip last', 'remove', 'empty'])
def test_an_older_checkpoint_takes_the_place_of_a_damaged_one(
        part, change, saves, capsys):
    sess, saver, run_dir, W = saves
    change(run_dir / ('model.ckpt-4.' + part))
    assert train_lstm_mnist.restore(tf, sess, saver, str(run_dir), 9) == 3
    assert set(sess.run(W)) == {3}
    told = capsys.readouterr().err
    if change is not os.remove or part != 'index':
        assert told.startswith('warning: %s is damaged ('
                               % (run_dir / 'model.ckpt-4'))
    assert told.splitlines()[-1] == 'going on from step 3'


@pytest.mark.parametrize('times', range(4))
def test_a_save_that_fails_leaves_what_was_there(times, saves, monkeypatch,
                                                 capsys):
    sess, saver, run_dir, W = saves
    replace, left = os.replace, [times]

    def fail(source, target):
        if not left[0]:
            raise OSError(28, 'No space left on device')
        left[0] -= 1
        replace(source, target)

    monkeypatch.setattr(os, 'replace', fail)
    if times == 3:  # two of the checkpoint, one of the file `checkpoint`
        train_lstm_mnist.save(tf, sess, saver, str(run_dir), 5)
    else:
        with pytest.raises(data.UserError) as error:
            train_lstm_mnist.save(tf, sess, saver, str(run_dir), 5)
        assert 'No space left on device' in str(error.value)
    assert not (run_dir / 'saving').exists()
    assert train_lstm_mnist.restore(tf, sess, saver, str(run_dir), 9) == (
        4 if times < 2 else 5)
    assert 'damaged' not in capsys.readouterr().err


def closed_pipe():
    ours, theirs = os.pipe()
    os.close(ours)
    return theirs


@pytest.mark.parametrize('stdout, why', [
    (closed_pipe, 'Broken pipe'),
    (lambda: os.open('/dev/full', os.O_WRONLY), 'No space left on device')])
def test_stdout_that_takes_nothing(stdout, why, tmp_path):
    stdout = stdout()
    running = start('--dataset', 'digits', *SMALL, cwd=tmp_path, stdout=stdout)
    os.close(stdout)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 1
    assert stderr.splitlines()[-1] == (
        'error: cannot read or write stdout (%s): mend that and run again'
        % why)
    assert 'Traceback' not in stderr and 'Exception' not in stderr


def test_what_was_trained_is_saved_before_stdout_fails(tmp_path):
    running = start(*QUICK, '--steps', 400, '--run_dir', 'run', cwd=tmp_path,
                    stdout=subprocess.PIPE)
    assert running.stdout.readline() == '(1257, 784)\n'
    running.stdout.close()  # as `| head -1` does
    stderr = running.stderr.read()
    assert running.wait() == 1
    assert stderr.splitlines()[-1].startswith('error: cannot read or write ')
    assert train_lstm_mnist.checkpoints(str(tmp_path / 'run')) == [200]


# Accuracy after 200 steps of the tutorial's network. Untrained it is near 0.1.

def accuracy_of(run_dir, *args):
    assert run(SCRIPT, '--steps', 200, '--seed', 5, '--run_dir', run_dir,
               *args).returncode == 0
    return json.loads((run_dir / 'result.json').read_text())['test_accuracy']


def test_accuracy_on_digits(tmp_path):
    # Seeds 1 to 5 reach 0.928 to 0.950; a network that sees the upper half of
    # the image 0.61, one whose LSTM is not trained 0.49.
    assert accuracy_of(tmp_path / 'run', '--dataset', 'digits') > 0.89


def test_accuracy_on_mnist(mnist_dir, tmp_path):
    # Seeds 1 to 5 reach 0.918 to 0.935; a network that sees the upper half of
    # the image 0.63, one whose LSTM is not trained 0.40, one whose first layer
    # is not trained 0.88 and 0.89.
    assert accuracy_of(tmp_path / 'run', '--data_dir', mnist_dir) > 0.90
