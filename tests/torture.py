"""Kills trainings at random moments, resumes them and says what was lost.

`make torture` does so with 50, `python tests/torture.py N` with N.
"""
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAVE_EVERY = 5
# Without dropout a run that was resumed ends with the weights of one that was
# never stopped.
FLAGS = ['--dataset', 'digits', '--hidden_size', '64', '--layer_num', '1',
         '--dynamic_rnn', '--keep_prob', '1', '--seed', '1', '--steps', '103',
         '--log_every', '1', '--save_every', str(SAVE_EVERY), '--device', 'cpu']


def train(*flags, seconds=None):
    """Runs the script and, after so many seconds, kills it.

    Returns:
        What it wrote to stderr.
    """
    running = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, 'train_lstm_mnist.py'), *flags],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        universal_newlines=True)
    try:
        return running.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        running.kill()
        return running.communicate()[1]
    finally:
        running.kill()


def weights(run_dir):
    """Returns all that the latest checkpoint holds, as {name: bytes}."""
    import tensorflow as tf
    checkpoint = tf.train.load_checkpoint(tf.train.latest_checkpoint(run_dir))
    return {name: checkpoint.get_tensor(name).tobytes()
            for name in checkpoint.get_variable_to_shape_map()}


def kill(times, folder, say=print):
    """Kills so many trainings and resumes each.

    Args:
        times: int.
        folder: str, for their run directories.
        say: what to do with a line of progress.

    Returns:
        A dict of ints: killed, resumed, anew (killed before the first
        checkpoint), while_saving, most_steps_lost.

    Raises:
        AssertionError: one could not be resumed, or ended with other weights
            than a run that was never killed.
    """
    started = time.time()
    stderr = train(*FLAGS, '--run_dir', os.path.join(folder, 'whole'))
    assert 'error' not in stderr, stderr
    seconds = time.time() - started
    expected = weights(os.path.join(folder, 'whole'))
    counts = dict.fromkeys(
        ['killed', 'resumed', 'anew', 'while_saving', 'most_steps_lost'], 0)
    while counts['killed'] < times:
        run_dir = os.path.join(folder, 'run-%d' % counts['killed'])
        stderr = train(*FLAGS, '--run_dir', run_dir,
                       seconds=random.uniform(0, seconds))
        begun, done = (os.path.exists(os.path.join(run_dir, name))
                       for name in ('config.json', 'result.json'))
        if not begun or done:
            shutil.rmtree(run_dir, ignore_errors=True)
            continue
        counts['killed'] += 1
        reached = max(map(int, re.findall(r'^step (\d+) of', stderr, re.M)),
                      default=0)
        saving = os.path.exists(os.path.join(run_dir, 'saving'))
        counts['while_saving'] += saving
        stderr = train('--resume', run_dir)
        from_step = re.search(r'^going on from step (\d+)$', stderr, re.M)
        if from_step:
            counts['resumed'] += 1
            lost = reached - int(from_step[1])
            assert weights(run_dir) == expected, run_dir
        else:
            counts['anew'] += 1
            lost = reached
            assert 'has no checkpoint yet' in stderr, stderr
        assert lost <= SAVE_EVERY, (run_dir, reached, stderr)
        counts['most_steps_lost'] = max(counts['most_steps_lost'], lost)
        say('killed after step %d%s, %s' % (
            reached, ' while saving' if saving else '',
            'resumed from step ' + from_step[1] if from_step
            else 'before the first checkpoint'))
    return counts


if __name__ == '__main__':
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
    with tempfile.TemporaryDirectory() as scratch:
        print('killed %(killed)d: %(resumed)d resumed and ended with the '
              'weights of a run never killed, %(anew)d had no checkpoint yet; '
              '%(while_saving)d were killed while saving; at most '
              '%(most_steps_lost)d steps lost, with a save every ' % kill(
                  int(sys.argv[1]) if sys.argv[1:] else 50, scratch)
              + '%d' % SAVE_EVERY)
