"""TensorBoard, the progress bar, validation."""
import fcntl
import json
import os
import pty
import re
import shutil
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
from conftest import QUICK, SMALL, call, start

import data
import model
from training import metrics
from training.metrics import read_scalars


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
        assert sorted(noted) == sorted(losses) == sorted(rates) == list(
            range(50, 501, 50))
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


def test_metrics_of_steps_that_were_lost_are_discarded(whole_run, tmp_path):
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
    assert read_scalars(str(run_dir))['loss/training'] == {
        **{step: pytest.approx(value) for step, value in
           read_scalars(str(whole_run))[
               'loss/training'].items() if step < 110}, 110: 110, 120: 120}


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
    running = start(*QUICK, '--steps', 400, cwd=tmp_path, stderr=theirs,
                    stdout=subprocess.PIPE)
    os.close(theirs)
    shown = everything(ours)
    stdout, _ = running.communicate()
    assert running.returncode == 0
    assert re.fullmatch(r'\(1257, 784\)\n'
                        r'Iter15, step 200, training accuracy \S+\n'
                        r'Iter31, step 400, training accuracy \S+\n'
                        r'test accuracy \S+\n', stdout)
    *_, last, kept = re.split('[\r\n]+', shown.strip())
    assert kept.startswith('kept in runs/')
    assert re.fullmatch(
        r'training: 100%\|.*\| 400/400 \[\d\d:\d\d<00:00, +\d+\.\d+step/s, '
        r'loss=\d\.\d{4}\]', last), last
    assert 'step 50 of' not in shown


def test_the_transcript_stands_above_the_bar_of_the_same_terminal(tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('4H', 24, 120, 0, 0))
    running = start(*QUICK, '--steps', 400, cwd=tmp_path, stderr=theirs, stdout=theirs)
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
            return np.mean(images), len(images)

    parts = []
    m = model.Model(_X=1, y=2, keep_prob=3, batch_size=4, accuracy=5, cross_entropy=6)
    images_and_labels = np.arange(100.0)[:, None], np.zeros([100, 10])
    accuracy, loss = metrics.evaluate(Session(), m, *images_and_labels, batch_size=40)
    assert parts == [40, 40, 20]
    assert (accuracy, loss) == (pytest.approx(49.5), pytest.approx(36))
    with pytest.raises(type(short)):
        metrics.evaluate(Session(), m, *images_and_labels, batch_size=50)


def test_a_checkpoint_is_validated_on_the_first_images(tmp_path, monkeypatch):
    seen = []

    def evaluate(sess, m, images, labels, batch_size):
        seen.append((len(images), len(labels), images[0].sum()))
        return 0.5, 1.0

    monkeypatch.setattr(metrics, 'evaluate', evaluate)
    monkeypatch.setattr(metrics, 'SAMPLE', 50)
    assert call('train_lstm_mnist.py', '--dataset', 'digits', *SMALL, '--steps', 3,
                '--dynamic_rnn', '--save_every', 1,
                '--run_dir', tmp_path / 'run').returncode == 0
    first = data.read_data_sets('', dataset='digits').validation.images[0].sum()
    assert seen == [(50, 50, first), (180, 180, first)]
