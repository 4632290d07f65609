"""Prints the table of `make results`, from the result.json of its runs.

    python -m bench.results DIR DECAY [DECAY ...]

The runs are in DIR/ema_decay-<DECAY>/seed-<1 to 5>.
"""
import json
import os
import statistics
import sys

from bench.tables import table

SEEDS = range(1, 6)


def read(folder, decay):
    """Returns the results of the seeds: a list of dicts."""
    results = []
    for seed in SEEDS:
        with open(os.path.join(folder, 'ema_decay-%s' % decay,
                               'seed-%d' % seed, 'result.json')) as f:
            results.append(json.load(f))
    return results


def show(folder, decays):
    """Prints test and validation accuracy for each seed, and their spread."""
    header, columns = ['seed'], []
    for decay in decays:
        results = read(folder, decay)
        header += ['test, --ema_decay %s' % decay, 'validation']
        columns += [[result[key] for result in results]
                    for key in ('test_accuracy', 'validation_accuracy')]
    rows = [[seed, *row] for seed, row in zip(SEEDS, zip(*columns))]
    for name, of in (('mean', statistics.mean), ('lowest', min),
                     ('highest', max),
                     ('standard deviation', statistics.stdev)):
        rows.append([name, *map(of, columns)])
    table(header, *([first, *('%.4f' % value for value in values)]
                    for first, *values in rows))


if __name__ == '__main__':
    show(sys.argv[1], sys.argv[2:])
