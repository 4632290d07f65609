"""A process that trains one network, and times or weighs it.

    python -m bench.process WHAT SIZE

SIZE is a dict in JSON: network (a key of `results.NAMES`), data_dir, hidden_size,
layer_num, batch_size, steps. After training, `memory` prints the MiB before
classifying all test images and how many more were used, and `accuracy` prints the
test accuracy. `time` prints, for each line of stdin, the median milliseconds of so
many steps, and the seconds of each phase before. `evaluate` adds the milliseconds to
classify all test images.
"""
import importlib
import json
import re
import statistics
import sys
import time

PEERS = {'torch': 'bench.pytorch', 'keras': 'bench.keras', 'jax': 'bench.jax'}


def main(what, size):
    size = json.loads(size)
    phases = {}
    phases['import'], framework = timed(
        importlib.import_module, PEERS.get(size['network'], 'bench.networks'))
    phases['data'], (mnist, test) = timed(framework.read_data_sets, size['data_dir'])
    phases['graph'], (train, evaluate) = timed(framework.prepare, mnist, size)
    phases['first step'], _ = timed(train)
    phases['in all'] = sum(phases.values())
    if what in ('time', 'evaluate'):
        for line in sys.stdin:
            seconds = statistics.median(timed(train)[0] for _ in range(int(line)))
            figures = dict(phases, ms=1000 * seconds)
            if what == 'evaluate':
                figures['10,000 images, ms'] = 1000 * timed(evaluate, *test)[0]
            print(json.dumps(figures), flush=True)
        return
    for _ in range(size['steps'] - 1):
        train()
    before = resident('VmRSS')
    with open('/proc/self/clear_refs', 'w') as f:
        f.write('5')  # resets the peak: see proc(5)
    accuracy = evaluate(*test)
    print('test accuracy %g' % accuracy if what == 'accuracy' else json.dumps({
        'before, MiB': before, 'more at most, MiB': resident('VmHWM') - before}))


def timed(function, *args):
    """Return the seconds that a call takes, and what it returns."""
    started = time.perf_counter()
    returned = function(*args)
    return time.perf_counter() - started, returned


def resident(field):
    """Return a field of /proc/self/status in MiB."""
    with open('/proc/self/status') as f:
        return int(re.search(field + r':\s*(\d+)', f.read())[1]) / 1024


if __name__ == '__main__':
    main(*sys.argv[1:])
