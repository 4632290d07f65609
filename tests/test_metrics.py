"""TensorBoard, the progress bar, validation."""
import fcntl
import json
import os
import pty
import re
import shutil
import struct
import termios

import numpy as np
import pytest
import tensorflow as tf
from conftest import QUICK, SMALL, call, start
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import data
import model
from reading import pictures
from training import metrics, plots, saved_model
from training.metrics import read_scalars


def test_tensorboard_reads_what_the_transcript_and_the_result_say(digits_run):
    events = EventAccumulator(str(digits_run)).Reload()

    def scalars(tag):
        return {event.step: event.value for event in events.Scalars(tag)}

    result = json.loads((digits_run / 'result.json').read_text())
    approx = pytest.approx
    assert scalars('accuracy/test') == {
        500: approx(result['test_accuracy'], abs=1e-6)}
    validation = scalars('accuracy/validation')
    assert sorted(validation) == [400, 500]
    assert validation[500] == approx(result['validation_accuracy'], abs=1e-6)
    training = scalars('accuracy/training')
    assert sorted(training) == [200, 400]
    told = re.findall(r'step (\d+), training accuracy (\S+)',
                      (digits_run / 'stdout').read_text())
    assert [step for step, _ in told] == ['200', '400']
    for step, accuracy in told:
        assert training[int(step)] == approx(float(accuracy), abs=1e-6)
    noted = {int(step): (float(rate), float(loss)) for step, rate, loss in
             re.findall(r'step (\d+) of 500, (\S+) steps/s, loss (\S+)',
                        (digits_run / 'stderr').read_text())}
    losses, rates = scalars('loss/training'), scalars('steps_per_second')
    assert sorted(noted) == sorted(losses) == sorted(rates) == list(range(50, 501, 50))
    for step in noted:
        assert noted[step] == (approx(rates[step], abs=0.1),
                               approx(losses[step], abs=1e-4))
    assert losses[500] < losses[50] / 3
    assert scalars('loss/validation')[500] < losses[50] / 3
    nodes = {node.name for node in events.Graph().node}
    assert {'images', 'y', 'keep_prob', 'batch_size', 'y_pre', 'cross_entropy',
            'train_op', 'accuracy'} <= nodes


def write_session(run_dir, name, number, first, steps, value):
    """Write an event file as a session of a run does, with a loss for each step."""
    writer = tf.summary.FileWriter(str(run_dir))
    writer.add_session_log(tf.SessionLog(
        status=tf.SessionLog.START, msg=str(number) if number else ''), first)
    for step in steps:
        writer.add_summary(tf.Summary(value=[tf.Summary.Value(
            tag='loss/training', simple_value=value)]), step)
    writer.close()
    written, = [path for path in run_dir.glob('events*') if path.suffix != '.renamed']
    written.rename(run_dir / ('events.out.tfevents.%s.renamed' % name))


@pytest.mark.parametrize('names, numbers', [
    ('123', (1, 2, 3)),
    ('321', (1, 2, 3)),  # the clock was set back
    ('312', (1, 2, 3)),
    ('123', (0, 0, 0)),  # an older version
    ('123', (0, 0, 3))])
def test_points_that_were_lost_are_discarded_whatever_the_clock_says(
        names, numbers, tmp_path):
    for name, number, first, steps, value in zip(
            names, numbers, (1, 5, 3), ((2, 4, 6), (6, 8), (4, 8, 9)), (1, 2, 3)):
        write_session(tmp_path, name, number, first, steps, value)
    # Killed while writing.
    last, = tmp_path.glob('events.out.tfevents.%s.renamed' % names[2])
    last.write_bytes(last.read_bytes()[:-5])
    (tmp_path / 'events.out.tfevents.9.renamed').write_bytes(b'')
    assert read_scalars(str(tmp_path)) == {'loss/training': {2: 1, 4: 3, 8: 3}}


def test_a_run_is_resumed_while_the_clock_is_behind(whole_run, tmp_path):
    run_dir = tmp_path / 'run'
    shutil.copytree(str(whole_run), str(run_dir))
    events, = run_dir.glob('events*')
    events.rename(run_dir / 'events.out.tfevents.9999999999.vm')  # of the future
    before = read_scalars(str(run_dir))
    done = call('train_lstm_mnist.py', '--resume', 'run', '--steps', 150, cwd=tmp_path)
    assert (done.returncode, done.error_lines) == (0, [])
    assert 'warning' not in done.stderr
    points = read_scalars(str(run_dir))
    assert sorted(points['loss/training']) == [50, 100, 120, 150]
    assert points['loss/training'][50] == before['loss/training'][50]
    assert sorted(points['accuracy/test']) == [120, 150]


@pytest.mark.parametrize('fault', [KeyError('a fault'), OSError(28, 'No space left'),
                                   RuntimeError('latex is missing')])
@pytest.mark.parametrize('module, name', [(plots, 'curves'), (pictures, 'errors')])
def test_a_picture_that_fails_costs_no_result(
        module, name, fault, whole_run, tmp_path, monkeypatch):
    def fail(*args):
        raise fault

    run_dir = tmp_path / 'run'
    shutil.copytree(str(whole_run), str(run_dir))
    monkeypatch.setattr(module, 'draw_' + name, fail)
    for picture in run_dir.glob('*.png'):
        picture.unlink()
    done = call('train_lstm_mnist.py', '--resume', 'run', '--steps', 121, cwd=tmp_path)
    assert (done.returncode, done.error_lines) == (0, [])
    warning, = [line for line in done.stderr.splitlines()
                if line.startswith('warning: ')]
    assert warning.startswith('warning: %s.png was not drawn (' % name)
    assert {picture.stem for picture in run_dir.glob('*.png')} == {
        'curves', 'errors'} - {name}
    assert json.loads((run_dir / 'result.json').read_text())['steps'] == 121
    assert saved_model.Network(str(run_dir)).shape == (28, 28)


def everything(terminal):
    """Return all that is written to a terminal until its other end is closed."""
    shown = b''
    try:
        while True:
            shown += os.read(terminal, 4096)
    except OSError:
        os.close(terminal)
    return shown.decode()


def test_a_bar_on_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('4H', 24, 120, 0, 0))
    running = start('train_lstm_mnist.py', *QUICK, '--steps', 400, cwd=str(tmp_path),
                    stderr=theirs)
    os.close(theirs)
    shown = everything(ours)
    stdout, _ = running.communicate()
    assert running.returncode == 0
    assert re.fullmatch(r'\(1257, 784\)\n'
                        r'Iter15, step 200, training accuracy \S+\n'
                        r'Iter31, step 400, training accuracy \S+\n'
                        r'test accuracy \S+\n', stdout)
    said = re.findall(r'(\w+): 100%', shown)
    assert [what for k, what in enumerate(said) if said[k - 1:k] != [what]] == [
        'training', 'testing', 'validating', 'exporting', 'drawing', 'training']
    *_, last, kept = re.split('[\r\n]+', shown.strip())
    assert kept.startswith('kept in runs/')
    assert re.fullmatch(
        r'training: 100%\|.*\| 400/400 \[\d\d:\d\d<00:00, +\d+\.\d+step/s, '
        r'loss=\d\.\d{4}\]', last), last
    assert 'step 50 of' not in shown


def test_the_transcript_stands_above_the_bar_of_the_same_terminal(tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('4H', 24, 120, 0, 0))
    running = start('train_lstm_mnist.py', *QUICK, '--steps', 400, cwd=str(tmp_path),
                    stderr=theirs, stdout=theirs)
    os.close(theirs)
    shown = everything(ours)
    assert running.wait() == 0
    # After the last carriage return, a line is what stays on the screen.
    lines = [line.split('\r')[-1].strip() for line in shown.replace(
        '\r\n', '\n').split('\n')]
    assert [line for line in lines if re.fullmatch(
        r'Iter\d+, step (200|400), training accuracy \S+', line)] == [
        line for line in lines if 'Iter' in line] != []


@pytest.mark.parametrize('short', [
    tf.errors.ResourceExhaustedError(None, None, 'OOM'),
    tf.errors.InternalError(None, None, 'Dst tensor is not initialized.')])  # on a GPU
def test_evaluate_takes_smaller_parts_where_memory_is_short(short):
    class Session(object):
        def run(self, fetches, feed_dict):
            images = feed_dict[1]
            if len(images) > 40:
                raise short
            parts.append(len(images))
            return np.mean(images), len(images), images / 2

    parts = []
    m = model.Model(_X=1, y=2, keep_prob=3, batch_size=4, accuracy=5, cross_entropy=6,
                    y_pre=7)
    images_and_labels = np.arange(100.0)[:, None], np.zeros([100, 10])
    accuracy, loss, y_pre = metrics.evaluate(Session(), m, *images_and_labels,
                                             batch_size=40)
    assert parts == [40, 40, 20]
    assert (accuracy, loss) == (pytest.approx(49.5), pytest.approx(36))
    assert y_pre[:, 0].tolist() == [k / 2 for k in range(100)]
    with pytest.raises(type(short)):
        metrics.evaluate(Session(), m, *images_and_labels, batch_size=50)


def test_every_point_of_the_curve_is_of_the_same_images(tmp_path, monkeypatch):
    seen = []

    def evaluate(sess, m, images, labels, batch_size):
        assert len(images) == len(labels)
        seen.append((len(images), images[0].sum()))
        return len(images) / 1000, 1.0, None

    monkeypatch.setattr(metrics, 'evaluate', evaluate)
    monkeypatch.setattr(metrics, 'SAMPLE', 50)
    monkeypatch.setattr(metrics, 'VALIDATE_EVERY', 2)
    assert call('train_lstm_mnist.py', '--dataset', 'digits', *SMALL, '--steps', 4,
                '--dynamic_rnn', '--run_dir', tmp_path / 'run').returncode == 0
    images = data.read_data_sets('', dataset='digits').validation.images
    assert seen == [(50, images[0].sum()), (50, images[0].sum()),
                    (130, images[50].sum())]
    assert read_scalars(str(tmp_path / 'run'))['accuracy/validation'] == {
        2: pytest.approx(0.05), 4: pytest.approx(0.05)}
    result = json.loads((tmp_path / 'run' / 'result.json').read_text())
    assert result['validation_accuracy'] == pytest.approx(
        (50 * 0.05 + 130 * 0.13) / 180, rel=1e-5)
