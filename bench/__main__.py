"""Times and weighs the training beside what one would pick instead of it.

PARTs are step: a training step; size: its cost for other sizes; job: the whole
run; start: a run of one step; memory: what it takes; quick: the way to the
tutorial's accuracy; kernels: those of a step on a GPU. All but the last by
default, and `--json FILE` keeps the figures.
--horovod measures several workers instead, with what `make horovod` installs.
What is compared runs in processes of its own, in turn, round after round; a
table gives the median over the rounds, the lowest and the highest.
"""
import argparse
import json
import os
import sys

from bench import machines, measure, tables
from training.errors import reports_errors
from training.files import write_whole
from training.mnist_files import find_files

PARTS = {
    'step': (measure.step, tables.print_step),
    'size': (measure.sizes, tables.print_size),
    'job': (measure.job, tables.print_job),
    'start': (measure.start, tables.print_job),
    'memory': (measure.memory, tables.print_memory),
    'quick': (measure.quick, tables.print_job),
    'kernels': (measure.kernels, tables.print_kernels),
}


def parse_flags(argv=None):
    """Returns the flags as an `argparse.Namespace`; exits with 2 on bad ones."""
    parser = argparse.ArgumentParser(
        prog='bench', description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)

    def part(text):
        if text not in PARTS:
            raise argparse.ArgumentTypeError('must be of %s, not %r' % (
                ', '.join(PARTS), text))
        return text

    parser.add_argument('parts', metavar='PART', nargs='*', type=part,
                        help='of %s (default: all but the last)' % ', '.join(PARTS))
    parser.add_argument('--data_dir', default='MNIST_data',
                        help="the folder with MNIST's four files (default: "
                        '%(default)s)')
    parser.add_argument('--rounds', type=int, default=5, choices=range(1, 1000),
                        metavar='N', help='default: %(default)s')
    parser.add_argument('--horovod', action='store_true',
                        help='measure several workers instead')
    parser.add_argument('--json', metavar='FILE', help='keep the figures there')
    return parser.parse_args(argv)


def machine():
    """Returns, in one line, what the figures are of."""
    with open('/proc/cpuinfo') as f:
        model, = {line.split(':')[1].strip() for line in f
                  if line.startswith('model name')}
    return '%d cores of an %s, Python %s' % (
        len(os.sched_getaffinity(0)), model, sys.version.split()[0])


@reports_errors
def main(argv=None):
    """Measures as the flags in argv say."""
    flags = parse_flags(argv)
    find_files(flags.data_dir, [])
    rivals = ['tutorial', 'torch']
    if not os.path.exists(os.path.join(measure.TORCH, 'installed')):
        print('note: without PyTorch, which make bench installs',
              file=sys.stderr)
        rivals.remove('torch')
    size = dict(data_dir=os.path.abspath(flags.data_dir), batch_size=128,
                hidden_size=256, layer_num=2)
    print(machine() + '\n', flush=True)
    figures = {'machine': machine()}
    if flags.horovod:
        parts = {'horovod': (machines.measure, machines.show)}
    else:
        parts = {part: PARTS[part] for part in flags.parts or list(PARTS)[:-1]}
    for part, (take, show) in parts.items():
        figures[part] = take(rivals, size, flags.rounds)
        show(figures[part])
    if flags.json:
        write_whole(flags.json, json.dumps(figures, indent=2).encode())


if __name__ == '__main__':
    sys.exit(main())
