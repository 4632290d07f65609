"""Time and weigh this network beside the baselines.

Each network runs in a process of its own. The processes take turns, round after
round. The variants of the ablation take turns in one process. The tables give the
median over the rounds and (lowest to highest).
"""
import argparse
import json
import os
import re
import sys
from functools import partial

from bench import measure, results
from bench.process import PEERS
from training.errors import reports_errors
from training.mnist_files import open_files

SIZE = {'batch_size': 128, 'hidden_size': 256, 'layer_num': 2}
BASELINES = ['tutorial', 'torch']
STEP = 'a training step'
RUN = 'from start to exit'
START = {
    'before the second step, s': ['import', 'data', 'graph', 'first step', 'in all']}
BESIDE = ["of the tutorial's", "of PyTorch's"]
PARTS = {  # the networks, how they are measured, and the tables with their columns
    'step': (['script', 'dynamic', *BASELINES, 'products'], measure.steps, {
        STEP: ['ms', *BESIDE], **START}),
    'peers': (['script', *PEERS], partial(measure.steps, what='evaluate'), {
        STEP: ['ms', 'of ours', '10,000 images, ms'], **START}),
    'ablation': ([], measure.ablation, {STEP: ['ms', 'of everything']}),
    'size': (['script', 'products'], measure.sizes, {
        STEP: ['ms', 'of its matrix products']}),
    'job': (['script', 'quick', *BASELINES], measure.whole_runs, {
        RUN: ['s', *BESIDE, 'resident at most, MiB', 'test accuracy']}),
    'start': (['script', *BASELINES], partial(measure.whole_runs, steps=1), {
        RUN: ['s', *BESIDE]}),
    'memory': (['script', *BASELINES, 'cnn'], measure.memory, {
        'naming 10,000 images at once': ['before, MiB', 'more at most, MiB']}),
}


@reports_errors
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog='bench', description=__doc__, allow_abbrev=False)
    parser.add_argument(
        'parts', metavar='PART', nargs='*', default='all', choices=['all', *PARTS],
        help='step; peers: a step and the test, beside PyTorch, Keras and JAX; '
        'ablation: a step without a part of what makes it fast; size: a step of other '
        'sizes; job: a whole run, also with --quick; start: a run of one step; memory: '
        'of the 10,000 test images (default: all)')
    parser.add_argument('--data_dir', default='MNIST_data', help='the folder with '
                        "MNIST's four files (default: %(default)s)")
    parser.add_argument('--rounds', type=int, default=5, choices=range(1, 1000),
                        metavar='N', help='default: %(default)s')
    parser.add_argument('--json', metavar='FILE', type=argparse.FileType('w'),
                        help='write the figures to this file, too')
    flags = parser.parse_args(argv)
    open_files(flags.data_dir, mirrors=())
    parts = PARTS if 'all' in flags.parts else flags.parts
    absent = [peer for peer in PEERS if not os.path.exists(
        os.path.join(measure.ROOT, '.venv-' + peer, 'installed'))]
    for peer in absent:
        if any(peer in PARTS[part][0] for part in parts):
            print('note: without %s: make .venv-%s/installed installs it'
                  % (results.NAMES[peer], peer), file=sys.stderr)
    with open('/proc/cpuinfo') as f:
        model = re.search('model name\t: (.*)', f.read())[1]
    machine = '%d cores of an %s, Python %s' % (
        len(os.sched_getaffinity(0)), model, sys.version.split()[0])
    print(machine + '\n', flush=True)
    figures = {'machine': machine}
    for part in parts:
        names, take, tables = PARTS[part]
        figures[part] = take(
            [name for name in names if name not in absent],
            dict(SIZE, data_dir=os.path.abspath(flags.data_dir)), flags.rounds)
        for title, headings in tables.items():
            results.print_figures(title, figures[part], headings)
    if flags.json:
        json.dump(figures, flags.json, indent=2)


if __name__ == '__main__':
    sys.exit(main())
