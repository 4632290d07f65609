"""A process in which one network is timed or weighed.

    python -m bench.process work NAME SIZE    see `work`
    python -m bench.process job NAME SIZE     see `job`

NAME is one of `networks.NAMES`, and SIZE a JSON dict.
"""
import contextlib
import json
import os
import sys
import time

from bench import kernels, networks


def work(name, size):
    """Prepares what is named, then does what stdin asks for, line by line.

    A number asks for so many steps and is answered with the seconds of each;
    `predict` with the MiB that were resident before, and at most meanwhile;
    `kernels` with those of a step on a GPU, see `kernels.count`.
    The first answer, unasked, is the seconds of {'import', 'data', 'graph',
    'first step'}. All are JSON, a line each.
    """
    with contextlib.ExitStack() as kept:
        phases, step, predict = _prepare(name, size, kept)
        print(json.dumps(phases), flush=True)
        for line in sys.stdin:
            if line.strip() == 'predict':
                answer = _weigh(predict)
            elif line.strip() == 'kernels':
                answer = kernels.count(kernels.trace(step))
            else:
                answer = [_seconds(step) for _ in range(int(line))]
            print(json.dumps(answer), flush=True)


def _prepare(name, size, kept):
    phases = {}
    started = time.perf_counter()

    def phase(what):
        nonlocal started
        phases[what] = time.perf_counter() - started
        started = time.perf_counter()

    if name == 'torch':
        import torch  # noqa: F401
    else:
        from training import packages
        packages.import_tensorflow()
    phase('import')
    mnist = name != 'products' and _read(name, size['data_dir'])
    phase('data')
    if name in ('script', 'dynamic', 'products'):
        from training import memory
        kept.enter_context(memory.kept())
    step, predict = networks.prepare(name, mnist, size)
    phase('graph')
    step()
    phase('first step')
    return phases, step, predict


def _read(name, data_dir):
    if name == 'torch':
        from bench import pytorch
        return pytorch.read_arrays(data_dir)
    import data
    with contextlib.redirect_stdout(sys.stderr):
        return data.read_data_sets(data_dir)


def _seconds(step):
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _weigh(predict):
    before = _resident('VmRSS')
    with open('/proc/self/clear_refs', 'w') as f:
        f.write('5')  # has the peak begin anew: proc(5)
    predict()
    return {'before': before, 'peak': _resident('VmHWM')}


def _resident(field):
    """Returns a field of /proc/self/status in MiB."""
    with open('/proc/self/status') as f:
        line, = (line for line in f if line.startswith(field + ':'))
    return int(line.split()[1]) / 1024


def job(name, size):
    """Does the whole run of the tutorial or of PyTorch."""
    if name == 'torch':
        from bench import pytorch
        pytorch.prepare(pytorch.read_arrays(size['data_dir']), size, job=True)
    else:
        os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
        from tensorflow.examples.tutorials.mnist import input_data

        from bench import tutorial
        tutorial.prepare(input_data.read_data_sets(
            size['data_dir'], one_hot=True), size, job=True)


if __name__ == '__main__':
    _, what, name, settings = sys.argv
    {'work': work, 'job': job}[what](name, json.loads(settings))
