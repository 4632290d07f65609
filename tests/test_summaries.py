"""What TensorBoard shows of a run, and what of it is read back."""
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import tensorflow as tf
from conftest import SMALL, full_disk, run

from training import summaries
from training.run_directory import RunDirectory

SCRIPT = 'train_lstm_mnist.py'


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
    assert summaries.read(str(run_dir))['loss/training'] == {
        **{step: pytest.approx(value) for step, value in
           summaries.read(str(whole_run))[
               'loss/training'].items() if step < 110}, 110: 110, 120: 120}


def test_a_disk_that_is_full_of_notes(tmp_path):
    """The first file that finds no room is the one for TensorBoard."""
    (tmp_path / 'disk').mkdir()
    done = run(SCRIPT, '--dataset', 'digits', *SMALL, '--dynamic_rnn',
               '--run_dir', 'disk/run',
               cwd=tmp_path, prefix=full_disk('disk', '16k', False))
    assert done.returncode == 1
    line, = done.error_lines
    assert re.fullmatch(
        r'error: cannot write (disk/run/events\.out\.tfevents\.\S+) \(\1; No '
        r'space left on device\): mend that and begin a new run', line)


@pytest.mark.parametrize('clock', [2e9, 2e9 - 3600])
def test_sessions_of_one_second_and_of_a_clock_set_back(clock, tmp_path,
                                                        monkeypatch):
    """TensorBoard reads the files in the order of their names."""
    directory = RunDirectory(str(tmp_path))
    for step, now in ((1, 2e9), (2, clock), (3, clock)):
        monkeypatch.setattr(time, 'time', lambda now=now: now)
        summaries.SummaryWriter(directory, step).add(step, {'a': float(step)})
    assert summaries.read(str(tmp_path)) == {'a': {1: 1.0, 2: 2.0, 3: 3.0}}
    directory.unlock()
