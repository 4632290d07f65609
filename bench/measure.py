"""Time and weigh networks in processes that take turns, round after round.

Each function takes the names of the networks, their size (a dict, see process.py) and
the number of rounds. It returns {name: {heading: [a value per round]}}.
"""
import contextlib
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time

from bench.process import PEERS
from training.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PIPES = dict(cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
             stderr=subprocess.DEVNULL, universal_newlines=True)
RATIOS = {'script': 'of ours', 'tutorial': "of the tutorial's", 'torch': "of PyTorch's",
          'products': 'of its matrix products', 'everything': 'of everything'}
SIZES = {'batch_size': (32, 64, 128, 256, 512, 1024),
         'layer_num': (1, 2, 3, 4),
         'hidden_size': (64, 128, 256, 512, 1024)}


def steps(names, size, rounds, warm_up=100, steps=20, what='time'):
    """Measure a training step and the phases before it, after steps to warm up."""
    with contextlib.ExitStack() as stack:
        processes = {}
        for name in names:  # one starts after the other, as they share the cores
            processes[name] = stack.enter_context(subprocess.Popen(
                command(name, size, what), **PIPES))
            ask(processes[name], warm_up)
        return in_turn(names, rounds, lambda name: ask(processes[name], steps))


def ablation(names, size, rounds):
    """Measure a training step of each of `ablation.VARIANTS`."""
    return json.loads(run(
        [sys.executable, '-m', 'bench.ablation', json.dumps(size), str(rounds)])[0])


def sizes(names, size, rounds):
    """Measure a training step of other sizes. The names are then the flags."""
    return {'--%s %d' % (flag, value): steps(
                names, dict(size, **{flag: value}), rounds, 3, 5)['script']
            for flag, values in SIZES.items() for value in values}


def memory(names, size, rounds):
    """Measure the memory to classify all test images."""
    return in_turn(names, rounds, lambda name: json.loads(
        run(command(name, dict(size, steps=5), 'memory'))[0]))


def whole_runs(names, size, rounds, steps=2000):
    """Measure whole runs."""
    size = dict(size, steps=steps)

    def measure(name):
        with tempfile.TemporaryDirectory() as scratch:
            argv = command(name, size, 'accuracy')
            if name == 'tutorial':
                argv[2:] = ['bench.baseline', json.dumps(size)]
            elif name not in PEERS:
                argv[1:] = ['train_lstm_mnist.py', '--run_dir=%s/run' % scratch]
                argv += (['--quick', '--data_dir=' + size['data_dir']]
                         if name == 'quick'
                         else ['--%s=%s' % flag for flag in size.items()])
            last, seconds, peak = run(argv)
        return {'s': seconds, 'resident at most, MiB': peak,
                'test accuracy': float(last.split('test accuracy')[1])}

    return in_turn(names, rounds, measure)


def in_turn(names, rounds, measure):
    """Return what `measure(name)` returns, and ratios of times."""
    figures = {name: {} for name in names}
    for _ in range(rounds):
        for name in random.sample(names, len(names)):
            for heading, value in measure(name).items():
                figures[name].setdefault(heading, []).append(value)
    for other in set(RATIOS) & set(names):
        for of in figures.values():
            for unit in {'ms', 's'} & set(of):
                of[RATIOS[other]] = [
                    a / b for a, b in zip(of[unit], figures[other][unit])]
    return figures


def command(name, size, what):
    """Return the command of a `bench.process`."""
    python = '.venv-%s/bin/python' % name if name in PEERS else sys.executable
    return [python, '-m', 'bench.process', what, json.dumps(dict(size, network=name))]


def ask(process, steps):
    """Return the answer of a `bench.process`."""
    print(steps, file=process.stdin, flush=True)
    for line in process.stdout:
        if line.startswith('{'):  # others say what it reads
            return json.loads(line)
    raise ended(process.args)


def run(argv):
    """Return the last line of a process, its seconds, and its peak memory in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(argv, **PIPES)
    last = ([''] + list(process.stdout))[-1]
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise ended(argv)
    return last, time.perf_counter() - started, usage.ru_maxrss / 1024


def ended(argv):
    return UserError('this ended early: run it alone to see why: '
                     + ' '.join(map(shlex.quote, argv)))
