"""MNIST, wrapped: find its four files or fetch them, check them, read them.

The reading is TensorFlow's own `tensorflow.examples.tutorials.mnist`.

`python data.py` finds, fetches and checks alone. It ends with 0 when the files
are there, with 1 if there is something to repair, and with 3 if no mirror gave
what is missing.
"""
import argparse
import sys

from training import command_line
from training.errors import reports_errors
from training.mnist_files import MIRRORS, VALIDATION_SIZE, NoMirrorError, find_files


def read_data_sets(data_dir, one_hot=True, dataset='mnist', mirrors=MIRRORS,
                   seed=None):
    """Reads a data set as the tutorial does.

    For 'mnist' the four files in data_dir are read, after those that are
    missing were fetched and all were checked (see `find_files`). A line
    `Extracting <path>` a file goes to stdout. For 'digits' see `digits.read`.

    Args:
        data_dir: str, the folder with MNIST's files; not used for 'digits'.
        one_hot: bool, labels as rows of ten; 'digits' has no others.
        dataset: 'mnist' or 'digits'.
        mirrors: addresses to fetch from, in turn.
        seed: int or None, for numpy's global generator, which shuffles
            `train`; None draws one.

    Returns:
        A tuple (train, validation, test) of TensorFlow `DataSet`s, MNIST's
        with 55,000, 5,000 and 10,000 examples. Each has `images`, float32
        [n, 784] in [0, 1], `labels`, float64 [n, 10], `num_examples`,
        `next_batch(k)`, which shuffles before every epoch, and
        `epochs_completed`.

    Raises:
        UserError: a file is damaged or can't be fetched, read or written, or
            scikit-learn is not installed.
    """
    if dataset == 'digits':
        from training import digits
        return digits.read(seed)
    find_files(data_dir, mirrors)
    try:
        from tensorflow.examples.tutorials.mnist import input_data
    except ImportError:
        # Not every build ships its examples; they take the reader from here.
        from tensorflow.contrib.learn.python.learn.datasets import mnist as input_data
    return input_data.read_data_sets(data_dir, one_hot=one_hot, seed=seed,
                                     validation_size=VALIDATION_SIZE)


@reports_errors
def main(argv=None):
    """Finds or fetches the files as argv says; returns the exit status."""
    parser = argparse.ArgumentParser(description="Sees to it that MNIST's four "
                                     'files are in a folder and whole.')
    parser.add_argument('data_dir', nargs='?', type=command_line.folder,
                        default='MNIST_data',
                        help='the folder (default: MNIST_data)')
    parser.add_argument('mirror', nargs='*', type=command_line.mirror_url,
                        default=MIRRORS,
                        help='where to fetch from (default: %s)'
                        % ', then '.join(MIRRORS))
    args = parser.parse_args(argv)
    try:
        find_files(args.data_dir, args.mirror)
    except NoMirrorError as error:
        print('error: %s' % error, file=sys.stderr)
        return 3
    return 0


if __name__ == '__main__':
    sys.exit(main())
