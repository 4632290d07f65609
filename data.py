"""Find, fetch, check and read MNIST's four files.

The reader is TensorFlow's own, `tensorflow.examples.tutorials.mnist`. What it cannot
read, as images with more than ten classes, `training.datasets` reads in its place.

`python data.py` does all but read. Its exit status is 0 when the files are there, 1
if the user must fix something, and 3 if no mirror gave what is missing.
"""
import argparse
import os
import sys

from training import datasets
from training.errors import reports_errors
from training.flags import folder, mirror_url
from training.mnist import (
    DATA_DIR,
    MIRRORS,
    NoMirrorError,
    find_files,
    sizes,
    validation_size,
)


def read_data_sets(data_dir, one_hot=True, dataset='mnist', mirrors=MIRRORS,
                   seed=None):
    """Read a data set as the tutorial does.

    For 'mnist', fetch the files that are missing, check all, and read them; a line
    `Extracting <path>` for each file goes to stdout.

    Args:
        data_dir: str, the folder with MNIST's files; not used for 'digits'.
        one_hot: bool, labels as rows of zeros and a one; only TensorFlow's reader has
            others.
        dataset: 'mnist' or 'digits'.
        mirrors: addresses to fetch from, tried in turn.
        seed: int for numpy's global generator, which shuffles `train`, or None.

    Returns:
        A tuple (train, validation, test) of TensorFlow `DataSet`s, MNIST's with
        55,000, 5,000 and 10,000 examples, whose attribute sizes is their
        `training.mnist.Sizes`. Each part has `images`, float32 [n, 784] in [0, 1],
        `labels`, float64 [n, 10], `num_examples`, `next_batch(k)`, which shuffles
        before every epoch, and `epochs_completed`.

    Raises:
        UserError: a file is damaged or cannot be fetched, read or written, or
            scikit-learn is not installed.
    """
    if dataset == 'digits':
        return datasets.read_digits(seed)
    files = find_files(data_dir, mirrors)
    if not datasets.tensorflow_reads(files):
        return datasets.read_files(files, seed)
    try:
        from tensorflow.examples.tutorials.mnist import input_data
    except ImportError:
        # A build without the examples has the reader here.
        from tensorflow.contrib.learn.python.learn.datasets import mnist as input_data
    mnist = input_data.read_data_sets(os.path.dirname(files[0]), one_hot=one_hot,
                                      seed=seed,
                                      validation_size=validation_size(files))
    return datasets.DataSets(*mnist, sizes=sizes(files))


@reports_errors
def main(argv=None):
    """Find, fetch and check the files as argv says; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Fetch MNIST's four files into a folder, and check them.")
    parser.add_argument('data_dir', nargs='?', type=folder, default=DATA_DIR,
                        help='the folder (default: %(default)s)')
    parser.add_argument('mirror', nargs='*', type=mirror_url, default=MIRRORS,
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
