"""Count how many labelled pictures predict.py names rightly.

Each line of FOLDER/labels.tsv is a file and its digit, with a tab between them.
"""
import argparse
import os
import re
import subprocess
import sys

from bench.measure import ROOT
from bench.results import print_table
from training.errors import UserError, reports_errors


def labels(folder):
    """Return {path: label} of the pictures in a folder."""
    path = os.path.join(folder, 'labels.tsv')
    try:
        with open(path, encoding='utf-8') as f:
            return {os.path.join(folder, file): int(label)
                    for file, label, *_ in (line.split('\t') for line in f)}
    except (OSError, ValueError) as error:
        raise UserError('%s cannot be read (%s): each line must be a file, a tab, and '
                        'its digit' % (path, getattr(error, 'strerror', None) or error))


def count(run_dir, pictures):
    """Return the share of right names, and the numbers of the others."""
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, 'predict.py'), run_dir, *pictures],
        stdout=subprocess.PIPE, universal_newlines=True)
    named = {path: (int(digit), float(probability)) for path, digit, probability
             in re.findall(r'(.*): (\d), probability (.*)', done.stdout)}
    wrong = [named[path][1] for path, label in pictures.items()
             if path in named and named[path][0] != label]
    refused = sum(path not in named for path in pictures)
    right = len(pictures) - len(wrong) - refused
    return ['%d of %d (%.3f)' % (right, len(pictures), right / max(len(pictures), 1)),
            len(wrong), sum(probability > 0.9 for probability in wrong), refused]


@reports_errors
def main(argv=None):
    parser = argparse.ArgumentParser(prog='bench.photos', description=__doc__)
    parser.add_argument('folder', metavar='FOLDER')
    parser.add_argument('run_dirs', metavar='RUN_DIR', nargs='+')
    flags = parser.parse_args(argv)
    pictures = labels(flags.folder)
    print_table(['network', 'right', 'wrong', 'wrong above 0.9', 'not named'],
                [[run_dir, *count(run_dir, pictures)] for run_dir in flags.run_dirs])


if __name__ == '__main__':
    sys.exit(main())
