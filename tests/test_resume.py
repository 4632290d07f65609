"""Stop a run, lose it, resume it."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import tensorflow as tf
import torture
from conftest import QUICK, SMALL, call, finish, idx, start, wait_for

import train_lstm_mnist
from training import mnist_files
from training.environment import SIGNALS
from training.errors import UserError
from training.loop import StopHook
from training.metrics import read_scalars
from training.run_directory import RunDirectory, checkpoint_steps

SCRIPT = 'train_lstm_mnist.py'


@pytest.mark.parametrize('number, status', [(signal.SIGINT, 130),
                                            (signal.SIGTERM, 143)])
def test_stopped_and_resumed(number, status, whole_run, tmp_path):
    running = start(SCRIPT, *QUICK, '--steps', 10 ** 6, '--log_every', 1,
                    '--run_dir', "it's a run", cwd=str(tmp_path))
    try:
        wait_for('step 20 of', running.stderr)
        with pytest.raises(UserError, match='is in use by a training'):
            RunDirectory(str(tmp_path / "it's a run")).lock()
        running.send_signal(number)
        stdout, stderr = finish(running)
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


def test_images_are_shifted_as_in_a_run_that_was_never_stopped(tmp_path):
    def weights(name, *flags):
        assert call(SCRIPT, *flags, cwd=tmp_path).returncode == 0
        return torture.weights(str(tmp_path / name))

    shifted = weights('whole', *QUICK, '--shift', 2, '--steps', 4, '--run_dir', 'whole')
    assert shifted != weights('still', *QUICK, '--steps', 4, '--run_dir', 'still')
    half = weights('half', *QUICK, '--shift', 2, '--steps', 2, '--run_dir', 'half')
    assert half != shifted == weights('half', '--resume', 'half', '--steps', 4)


@pytest.mark.parametrize('number, handler, status', [
    (signal.SIGHUP, signal.SIG_DFL, 129),
    (signal.SIGHUP, signal.SIG_IGN, 0),
    (signal.SIGTERM, signal.SIG_DFL, 143),
    (signal.SIGUSR1, signal.SIG_DFL, 138),
    (signal.SIGXCPU, signal.SIG_DFL, 152)])
def test_a_signal_that_comes_twice_stops_a_run_unless_it_is_ignored(
        number, handler, status, tmp_path):
    """As from a terminal that is closed, nohup, timeout, and clusters."""
    before = signal.signal(number, handler)
    try:
        running = start(SCRIPT, *QUICK, '--steps', 400, '--run_dir', 'run',
                        cwd=str(tmp_path))
    finally:
        signal.signal(number, before)
    try:
        wait_for('step 50 of', running.stderr)
        for _ in range(2):
            running.send_signal(number)
            time.sleep(0.01)
        finish(running)
    finally:
        running.kill()
    assert running.returncode == status
    assert (status == 0) == (tmp_path / 'run' / 'result.json').exists()
    assert checkpoint_steps(str(tmp_path / 'run'))[0] >= 50


def test_a_run_whose_folder_vanishes_says_so(tmp_path):
    running = start(SCRIPT, *QUICK, '--steps', 10 ** 6, '--save_every', 10,
                    '--run_dir', 'run', cwd=str(tmp_path), stdout=subprocess.DEVNULL)
    try:
        wait_for('step 50 of', running.stderr)
        # Where nothing is written while it goes.
        (tmp_path / 'run').rename(tmp_path / 'gone')
        _, stderr = finish(running)
    finally:
        running.kill()
    assert running.returncode == 1
    assert re.fullmatch(
        r'error: cannot write run/model\.ckpt-\d+ \(.+\): fix that and begin a '
        'new run', stderr.splitlines()[-1])
    assert 'Traceback' not in stderr
    assert checkpoint_steps(str(tmp_path / 'gone'))[0] >= 40


def test_only_a_second_ctrl_c_kills():
    with contextlib.ExitStack() as exits:
        hook = StopHook(None, None, 1, exits)
        before = [signal.getsignal(number) for number in SIGNALS]
        hook.begin()
        for number in SIGNALS:
            os.kill(os.getpid(), number)
            assert signal.getsignal(number) == (
                signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN)
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.long
def test_a_run_that_is_killed_is_resumed(tmp_path):
    counts = torture.kill(2, str(tmp_path), lambda line: None, steps=23)
    assert counts['killed'] == 2 == counts['resumed'] + counts['unsaved']


@pytest.mark.long
def test_disks_that_fill_up(tmp_path):
    counts = torture.fill_disks(1, str(tmp_path), lambda line: None, steps=23)
    assert counts['filled'] == 1 == counts['resumed'] + counts['unsaved']


def test_a_run_that_is_done_is_taken_further(whole_run, tmp_path):
    run_dir = tmp_path / 'run'
    shutil.copytree(str(whole_run), str(run_dir))
    done = call(SCRIPT, '--resume', 'run', '--steps', 150, cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads((run_dir / 'result.json').read_text())['steps'] == 150
    points = read_scalars(str(run_dir))
    assert sorted(points['loss/training']) == [50, 100, 120, 150]
    assert sorted(points['accuracy/test']) == [120, 150]
    # Names that differ in the same second, too.
    assert {path.suffix for path in run_dir.glob('events*')} == {'.1', '.2'}
    events = [event for path in sorted(run_dir.glob('events*'))
              for event in tf.train.summary_iterator(str(path))]
    assert [event.step for event in events
            if event.session_log.status == tf.SessionLog.START] == [1, 121]


def test_a_seed_of_0_is_kept(whole_run, tmp_path):
    run_dir = tmp_path / 'run'
    shutil.copytree(str(whole_run), str(run_dir))
    config = json.loads((run_dir / 'config.json').read_text())
    config.update(seed=0, ema_decay=0.0)  # ema_decay: of an older version
    (run_dir / 'config.json').write_text(json.dumps(config))
    flags = train_lstm_mnist.parse_flags(['--resume', str(run_dir),
                                          '--steps', '130'])
    assert (flags.seed, flags.steps) == (0, 130)
    assert not hasattr(flags, 'ema_decay')


def test_a_run_of_an_older_version_goes_on(whole_run, tmp_path):
    run_dir = tmp_path / 'run'
    shutil.copytree(str(whole_run), str(run_dir))
    config = json.loads((run_dir / 'config.json').read_text())
    del config['lr_schedule']
    (run_dir / 'config.json').write_text(json.dumps(config))
    flags = train_lstm_mnist.parse_flags(['--resume', str(run_dir),
                                          '--steps', '130'])
    assert (flags.lr_schedule, flags.steps) == ('constant', 130)


def test_a_run_of_an_older_version_keeps_its_validation_set(made_up_dir, tmp_path):
    assert call(SCRIPT, *SMALL, '--dynamic_rnn', '--data_dir', made_up_dir, '--steps',
                1, '--run_dir', 'run', cwd=tmp_path).returncode == 0
    path = tmp_path / 'run' / 'config.json'
    config = json.loads(path.read_text())
    assert config.pop('num_validation') == 438
    path.write_text(json.dumps(config))
    for steps in (2, 3):  # it is noted in config.json then
        done = call(SCRIPT, '--resume', 'run', '--steps', steps, cwd=tmp_path)
        assert '(256, 784)\n' in done.stdout  # of 5,256 images
    assert json.loads(path.read_text())['num_validation'] == 5000


def test_a_resumed_run_draws_new_dropout(tmp_path):
    # The same image always, and weights that stay as they are.
    images = np.full([5256, 28, 28], 100)
    labels = np.full(5256, 9)
    for name, items in zip(mnist_files.FILES, (images, labels, images, labels)):
        (tmp_path / name).write_bytes(idx(items))
    assert call(SCRIPT, *SMALL, '--dynamic_rnn', '--data_dir', '.', '--lr', 1e-30,
               '--steps', 1, '--seed', 1, '--run_dir', 'run',
               cwd=tmp_path).returncode == 0
    assert call(SCRIPT, '--resume', 'run', '--steps', 2,
               cwd=tmp_path).returncode == 0
    losses = read_scalars(str(tmp_path / 'run'))['loss/training']
    assert losses[1] != losses[2]
    assert losses[1] == pytest.approx(losses[2], rel=0.2)


def test_a_run_with_averaged_weights_of_an_older_version(whole_run, tmp_path):
    shutil.copytree(str(whole_run), str(tmp_path / 'run'))
    path = tmp_path / 'run' / 'config.json'
    config = dict(json.loads(path.read_text()), ema_decay=0.995)
    path.write_text(json.dumps(config))
    done = call(SCRIPT, '--resume', 'run', '--steps', 130, cwd=tmp_path)
    assert (done.returncode, done.error_lines) == (1, [
        'error: run/config.json has --ema_decay, which this version does not have: go '
        'on with the version that began the run, or begin a new one without --resume'])


@pytest.mark.parametrize('kept, expected', [
    (list('abcdefghij'), list('abcdefghij')), (['a'], list('0123456789')),
    ([], list('0123456789'))])
def test_the_names_of_classes_are_kept_if_they_fit(
        kept, expected, whole_run, tmp_path):
    shutil.copytree(str(whole_run), str(tmp_path / 'run'))
    path = tmp_path / 'run' / 'config.json'
    path.write_text(json.dumps(dict(json.loads(path.read_text()), class_names=kept)))
    assert call('train_lstm_mnist.py', '--resume', 'run', '--steps', 121,
                cwd=tmp_path).returncode == 0
    assert json.loads(path.read_text())['class_names'] == expected
    result = json.loads((tmp_path / 'run' / 'result.json').read_text())
    assert list(result['class_accuracy']) == expected
