"""Processes that are timed and weighed in turn, round after round."""
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

from bench.networks import NAMES
from training.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TORCH = os.path.join(ROOT, '.venv-torch')
SIZES = {'batch_size': (32, 64, 128, 256, 512, 1024),
         'layer_num': (1, 2, 3, 4),
         'hidden_size': (64, 128, 256, 512, 1024)}


def command(what, name, size):
    """Returns the command of a `process`."""
    python = (os.path.join(TORCH, 'bin', 'python') if name == 'torch'
              else sys.executable)
    return [python, '-m', 'bench.process', what, name, json.dumps(size)]


class Process(object):
    """A process that prepares and then waits to be asked; see `process.work`.

    Attributes:
        phases: its first answer.
    """

    def __init__(self, name, size):
        self._name = name
        self._process = subprocess.Popen(
            command('work', name, size), cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True)
        self.phases = self._answer()

    def ask(self, what):
        """Returns the answer to a line."""
        self._process.stdin.write('%s\n' % what)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise UserError('%s ended: %s' % (
                NAMES[self._name],
                ''.join(self._process.stderr.read().splitlines()[-1:])))
        return json.loads(line)

    def close(self):
        """Ends the process."""
        self._process.communicate()


def in_turn(names, size, rounds, warm_up, steps):
    """Returns {name: {'seconds': [one a round], 'phases': ...}}.

    Seconds are the median of so many steps.
    """
    processes = {name: Process(name, size) for name in names}
    figures = {name: {'seconds': [], 'phases': process.phases}
               for name, process in processes.items()}
    for process in processes.values():
        process.ask(warm_up)
    for _ in range(rounds):
        for name in random.sample(sorted(names), len(names)):
            figures[name]['seconds'].append(statistics.median(
                processes[name].ask(steps)))
    for process in processes.values():
        process.close()
    return figures


def step(rivals, size, rounds):
    """Returns the figures of `in_turn`."""
    return in_turn(['script', 'dynamic'] + rivals + ['products'], size, rounds,
                   warm_up=100, steps=20)


def kernels(rivals, size, rounds):
    """Returns {name: {'seconds': [...], 'kernels': [...], 'busy': [...]}}.

    Of a step on a GPU, which only TensorFlow's networks tell.
    """
    names = [name for name in ['script', 'dynamic'] + rivals if name != 'torch']
    figures = {}
    for name in names:
        process = Process(name, size)
        process.ask(20)
        of = figures[name] = {'seconds': [], 'kernels': [], 'busy': []}
        for _ in range(rounds):
            of['seconds'].append(statistics.median(process.ask(20)))
            for key, value in process.ask('kernels').items():
                of[key].append(value)
        process.close()
    return figures


def sizes(rivals, size, rounds):
    """Returns [[{flag: value}, figures of `in_turn`]], one flag at a time."""
    return [[{flag: value}, in_turn(['script', 'products'],
                                    dict(size, **{flag: value}), rounds,
                                    warm_up=3, steps=5)]
            for flag, values in SIZES.items() for value in values]


def job(rivals, size, rounds, steps=2000):
    """Returns {name: {'seconds': [...], 'peak': [MiB], 'accuracy': [...]}}."""
    return _whole_runs(['script'] + rivals, dict(size, steps=steps), rounds)


def start(rivals, size, rounds):
    """The same of a run of one step."""
    return job(rivals, size, rounds, steps=1)


def quick(rivals, size, rounds, steps=2000):
    """The same of `--quick`, beside the tutorial's so many steps."""
    return _whole_runs(['quick', 'tutorial'], dict(size, steps=steps), rounds)


def _whole_runs(names, size, rounds):
    figures = {name: {'seconds': [], 'peak': [], 'accuracy': []}
               for name in names}
    for _ in range(rounds):
        for name in random.sample(sorted(names), len(names)):
            for key, value in _whole_run(name, size).items():
                figures[name][key].append(value)
    return figures


def _whole_run(name, size):
    """Returns its seconds, its peak in MiB and its test accuracy, a dict."""
    with tempfile.TemporaryDirectory() as scratch:
        argv = command('job', name, size)
        if name in ('script', 'quick'):
            argv = [sys.executable, 'train_lstm_mnist.py',
                    '--run_dir', os.path.join(scratch, 'run')]
            argv += (['--quick', '--data_dir=%s' % size['data_dir']]
                     if name == 'quick' else
                     ['--%s=%s' % flag for flag in size.items()])
        started = time.perf_counter()
        process = subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            universal_newlines=True)
        last = ([''] + list(process.stdout))[-1]
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    if status or not last.startswith('test accuracy'):
        raise UserError('%s ended early: run it alone to see why: %s'
                        % (NAMES[name], ' '.join(argv)))
    return {'seconds': seconds, 'peak': usage.ru_maxrss / 1024,
            'accuracy': float(last.split()[-1])}


def memory(rivals, size, rounds):
    """Returns {name: {'before': [MiB], 'peak': [MiB]}} of naming all at once."""
    names = ['script'] + rivals + ['cnn']
    figures = {name: {'before': [], 'peak': []} for name in names}
    for _ in range(rounds):
        for name in names:
            process = Process(name, size)
            process.ask(5)
            for key, value in process.ask('predict').items():
                figures[name][key].append(value)
            process.close()
    return figures
