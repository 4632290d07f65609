"""Prints the table of `make results`, from the result.json of its runs.

    python -m bench.results DIR

The runs are in DIR/seed-<1 to 10>.
"""
import json
import os
import statistics
import sys

from bench.tables import table

SEEDS = range(1, 11)


def show(folder):
    """Prints test and validation accuracy for each seed, and their spread."""
    runs = []
    for seed in SEEDS:
        with open(os.path.join(folder, 'seed-%d' % seed, 'result.json')) as f:
            runs.append(json.load(f))
    columns = [[run[key] for run in runs]
               for key in ('test_accuracy', 'validation_accuracy')]
    rows = [[seed, *row] for seed, row in zip(SEEDS, zip(*columns))]
    for name, of in (('mean', statistics.mean), ('lowest', min),
                     ('highest', max),
                     ('standard deviation', statistics.stdev)):
        rows.append([name, *map(of, columns)])
    table(['seed', 'test', 'validation'],
          *([first, *('%.4f' % value for value in values)]
            for first, *values in rows))


if __name__ == '__main__':
    show(sys.argv[1])
