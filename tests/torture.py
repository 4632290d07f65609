"""Break trainings and fetches at random moments and say what was lost.

`make torture` kills 50 trainings, 30 fetches, fools 100 fetches and fills 20
disks; `python tests/torture.py KILLS FETCHES FOOLED DISKS` does as many.
"""
import glob
import gzip
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

from conftest import LIES, full_disk, make_up, send, serving, start

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAVE_EVERY = 5
# Without dropout a run that was resumed ends with the weights of one that was
# never stopped.
FLAGS = ['--dataset', 'digits', '--hidden_size', '64', '--layer_num', '1',
         '--dynamic_rnn', '--keep_prob', '1', '--seed', '1', '--log_every', '1',
         '--save_every', str(SAVE_EVERY), '--device', 'cpu']


def python(*args, seconds=None):
    """Run Python in the project and kill it after some seconds.

    Returns:
        Its exit status, -9 if it was killed, and its stderr.
    """
    return wait(subprocess.Popen(
        [sys.executable, *args], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, universal_newlines=True), seconds)


def wait(running, seconds):
    """Kill a process after some seconds; return its exit status and its stderr."""
    try:
        stderr = running.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        running.kill()
        stderr = running.communicate()[1]
    finally:
        running.kill()
    return running.returncode, stderr


def train(*flags, seconds=None):
    """Run the script, and kill it after some seconds; return its stderr."""
    return wait(start('train_lstm_mnist.py', *flags, stdout=subprocess.DEVNULL),
                seconds)[1]


def weights(run_dir):
    """Return what the latest checkpoint holds, as {name: bytes}."""
    import tensorflow as tf
    checkpoint = tf.train.load_checkpoint(tf.train.latest_checkpoint(run_dir))
    return {name: checkpoint.get_tensor(name).tobytes()
            for name in checkpoint.get_variable_to_shape_map()}


def kill(times, folder, say=print, steps=103):
    """Kill trainings and resume each.

    Args:
        times: int.
        folder: str, for their run directories.
        say: what to do with a line of progress.
        steps: int, how long they are.

    Returns:
        A dict of ints: killed, resumed, unsaved (killed before the first
        checkpoint), while_saving, most_steps_lost.

    Raises:
        AssertionError: one could not be resumed, or ended with other weights
            than a run that was never killed.
    """
    flags = [*FLAGS, '--steps', str(steps)]
    started = time.time()
    stderr = train(*flags, '--run_dir', os.path.join(folder, 'whole'))
    assert 'error' not in stderr, stderr
    seconds = time.time() - started
    expected = weights(os.path.join(folder, 'whole'))
    counts = dict.fromkeys(
        ['killed', 'resumed', 'unsaved', 'while_saving', 'most_steps_lost'], 0)
    while counts['killed'] < times:
        run_dir = os.path.join(folder, 'run-%d' % counts['killed'])
        stderr = train(*flags, '--run_dir', run_dir,
                       seconds=random.uniform(0.2, 1) * seconds)
        begun, done = (os.path.exists(os.path.join(run_dir, name))
                       for name in ('config.json', 'result.json'))
        if not begun or done:
            shutil.rmtree(run_dir, ignore_errors=True)
            continue
        counts['killed'] += 1
        reached = max(map(int, re.findall(r'^step (\d+) of', stderr, re.M)),
                      default=0)
        saving = bool(glob.glob(os.path.join(glob.escape(run_dir), '*tempstate*')))
        counts['while_saving'] += saving
        stderr = train('--resume', run_dir)
        from_step = re.search(r'^going on from step (\d+)$', stderr, re.M)
        if from_step:
            counts['resumed'] += 1
            lost = reached - int(from_step[1])
            assert weights(run_dir) == expected, run_dir
        else:
            counts['unsaved'] += 1
            lost = reached
            assert 'has no checkpoint yet' in stderr, stderr
        assert lost <= SAVE_EVERY, (run_dir, reached, stderr)
        counts['most_steps_lost'] = max(counts['most_steps_lost'], lost)
        say('killed after step %d%s, %s' % (
            reached, ' while saving' if saving else '',
            'resumed from step ' + from_step[1] if from_step
            else 'before the first checkpoint'))
    return counts


def fetch(files, folder, mirror, seconds=None):
    """Run data.py, for which these files are MNIST's; kill it after some seconds.

    Args:
        files: {name: bytes}.
        folder: str.
        mirror: str, the address.
        seconds: float or None.

    Returns:
        Its exit status, -9 if it was killed, and its stderr.
    """
    published = {name: hashlib.sha256(body).hexdigest()
                 for name, body in files.items()}
    contents = [hashlib.sha256(gzip.decompress(body)).hexdigest()
                for body in files.values()]
    code = ('import sys, time, data\n'
            'from training import mnist_files as files\n'
            'files.FILES, files.CONTENTS, files.TIMEOUT = %r, %r, 0.5\n'
            'time.sleep = lambda seconds: None\n'  # pooch waits before it retries
            'sys.exit(data.main(%r))' % (published, contents, [folder, mirror]))
    status, stderr = python('-c', code, seconds=seconds)
    assert 'Traceback' not in stderr, stderr
    for name in set(files) & set(os.listdir(folder)):
        with open(os.path.join(folder, name), 'rb') as f:
            assert f.read() == files[name], name
    return status, stderr


def kill_fetches(times, folder, say=print):
    """Kill fetches; the next one must succeed.

    Args:
        times: int.
        folder: str, for the folders that are fetched into.
        say: what to do with a line of progress.

    Returns:
        A dict of ints: killed, files (whole ones when it was killed).

    Raises:
        AssertionError: a file was there that was not whole, or the next fetch
            failed.
    """
    files = make_up()

    def slowly(handler, name):
        body = files[name]
        send(handler, b'', len(body))
        for place in range(0, len(body), len(body) // 20):
            handler.wfile.write(body[place:place + len(body) // 20])
            time.sleep(0.005)

    counts = dict.fromkeys(['killed', 'files'], 0)
    with serving(slowly) as mirror:
        while counts['killed'] < times:
            into = os.path.join(folder, 'fetch-%d' % counts['killed'])
            os.makedirs(into, exist_ok=True)
            status, _ = fetch(files, into, mirror, random.uniform(0.05, 0.8))
            if status == 0:
                shutil.rmtree(into)
                continue
            assert status == -9, status
            there = len(set(files) & set(os.listdir(into)))
            status, stderr = fetch(files, into, mirror)
            assert status == 0 and stderr.count('fetching') == 4 - there, stderr
            assert set(files) <= set(os.listdir(into))
            counts['killed'] += 1
            counts['files'] += there
            say('killed with %d of 4 files there; the rest was fetched then'
                % there)
    return counts


def fool_fetches(times, folder, say=print):
    """Fetch from a mirror that fails half of the time, one way or another.

    Args:
        times: int, how often it fails at least.
        folder: str, for the folders that are fetched into.
        say: what to do with a line of progress.

    Returns:
        A dict of ints: fooled (bad answers), runs (of data.py), folders (filled).

    Raises:
        AssertionError: a file was there that was not whole, or a fetch failed
            that was not fooled.
    """
    files = make_up()
    lies = []

    def answer(handler, name):
        if random.random() < 0.5:
            lies.append(random.choice(sorted(LIES)))
            LIES[lies[-1]][0](handler, name, files[name])
        else:
            send(handler, files[name])

    counts = dict.fromkeys(['fooled', 'runs', 'folders'], 0)
    with serving(answer) as mirror:
        while counts['fooled'] < times:
            into = os.path.join(folder, 'fetch-%d' % counts['folders'])
            os.makedirs(into)
            status = None
            while status != 0:
                told = len(lies)
                status, stderr = fetch(files, into, mirror)
                assert status == 0 or status == 3 and len(lies) > told, stderr
                counts['runs'] += 1
            assert sorted(os.listdir(into)) == sorted(files)
            counts['folders'] += 1
            counts['fooled'] = len(lies)
            say('fooled %d times so far' % len(lies))
    return counts


def fill_disks(times, folder, say=print, steps=103):
    """Train on disks that fill up; make room and resume.

    Args:
        times: int.
        folder: str, for their run directories.
        say: what to do with a line of progress.
        steps: int, how long they are.

    Returns:
        A dict of ints: filled, resumed, unsaved (full before the first
        checkpoint).

    Raises:
        AssertionError: a training did not say what it could not write, could
            not be resumed, or ended with other weights than a whole one.
    """
    whole = os.path.join(folder, 'whole')
    flags = [*FLAGS, '--steps', str(steps)]
    train(*flags, '--run_dir', whole)
    expected = weights(whole)
    size = sum(os.path.getsize(os.path.join(place, name))
               for place, _, names in os.walk(whole) for name in names)
    disk = os.path.join(folder, 'disk')
    os.mkdir(disk)
    counts = dict.fromkeys(['filled', 'resumed', 'unsaved'], 0)
    while counts['filled'] < times:
        kept = os.path.join(folder, 'run-%d' % counts['filled'])
        command = ' '.join(
            [sys.executable, os.path.join(ROOT, 'train_lstm_mnist.py')])
        done = subprocess.run(
            full_disk(disk, '%dk' % random.randrange(4, size // 1024), False)
            + ('sh', '-c', command + ' "$@" && exit; status=$?; '
               'mount -o remount,size=1g ' + disk + '; '
               + command + ' --resume ' + disk + '/run; '
               'cp -r ' + disk + '/run ' + kept + '; exit $status', 'sh',
               *flags, '--run_dir', disk + '/run'),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            universal_newlines=True)
        if done.returncode == 0:
            continue
        counts['filled'] += 1
        assert 'Traceback' not in done.stderr, done.stderr
        told = re.search(r'^error: cannot write \S+ \(.*No space left on device'
                         r'\): fix that.*$', done.stderr, re.M)
        assert told and done.returncode == 1, done.stderr
        from_step = re.search(r'^going on from step (\d+)$', done.stderr, re.M)
        if from_step:
            counts['resumed'] += 1
            assert weights(kept) == expected, kept
        else:
            counts['unsaved'] += 1
            assert re.search('has no checkpoint yet|cannot read', done.stderr)
        say('%s; %s' % (told[0].replace(disk, '.'), 'resumed from step '
                        + from_step[1] if from_step
                        else 'before the first checkpoint'))
    return counts


if __name__ == '__main__':
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
    kills, fetches, fooled, disks = map(int, sys.argv[1:] or (50, 30, 100, 20))
    rows = []
    for times, what, torture, outcome in (
            (kills, 'trainings killed', kill, '{resumed} resumed and ended with '
             'the weights of one never killed, {unsaved} had no checkpoint yet; '
             '{while_saving} were killed while saving; at most {most_steps_lost} '
             'steps lost, with a save every %d' % SAVE_EVERY),
            (fetches, 'fetches killed', kill_fetches, 'the next one fetched the '
             'rest, {files} files being there; none was there in part'),
            (fooled, 'bad answers of a mirror', fool_fetches,
             '{folders} folders filled by {runs} runs; none held a file that was '
             'not as published'),
            (disks, 'disks full', fill_disks, 'all said so; {resumed} resumed '
             'with more room and ended with the weights of a whole run, {unsaved} '
             'had no checkpoint yet')):
        with tempfile.TemporaryDirectory() as scratch:
            counts = torture(times, scratch)
        rows.append('| %s | %d | %s |' % (what, next(iter(counts.values())),
                                          outcome.format(**counts)))
    print('\n| | times | |\n| --- | --- | --- |\n' + '\n'.join(rows))
