"""Find, fetch, check and read MNIST's four files.

What it returns is what TensorFlow's `tensorflow.examples.tutorials.mnist.input_data`
returns, with the same batches. It also reads images of other sizes and classes.

`python data.py` does all but read. Its exit status is 0 when the files are there, 1
if the user must fix something, and 3 if no mirror gave what is missing.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # not with -I

from training.errors import reports_errors
from training.flags import folder, mirror_url
from training.mnist_files import DATA_DIR, MIRRORS, NoMirrorError, open_files


def read_data_sets(data_dir, one_hot=True, dataset='mnist', mirrors=MIRRORS,
                   seed=None, num_validation=None):
    """Read a data set as the tutorial does.

    For 'mnist', fetch the files that are missing, check all, and read them; a line
    `Extracting <path>` for each file goes to stdout.

    Args:
        data_dir: str, the folder with MNIST's files; not used for 'digits'.
        one_hot: bool, labels as rows of zeros and a one, or as numbers.
        dataset: 'mnist' or 'digits'.
        mirrors: addresses to fetch from, tried in turn.
        seed: int for numpy's global generator, which shuffles `train`, or None.
        num_validation: int, see `open_files`; not used for 'digits'.

    Returns:
        A tuple (train, validation, test) of TensorFlow `DataSet`s, MNIST's with
        55,000, 5,000 and 10,000 examples. Its attribute `source` is the
        `training.mnist_files.Source`. Each part has `images`, float32 [n, 784] in
        [0, 1], `labels`, float64 [n, 10] or uint8 [n], `num_examples`,
        `next_batch(k)`, which shuffles before every epoch, and `epochs_completed`.

    Raises:
        UserError: a file is damaged or cannot be fetched, read or written, or
            scikit-learn is not installed.
    """
    if dataset == 'digits':
        from training.digits import open_digits
        source = open_digits()
    else:
        source = open_files(data_dir, mirrors, num_validation)
    for path in source.paths:
        print('Extracting ' + path)
    return source.read(one_hot, seed)


def shifted(batch, pixels, shape, seed):
    """Return a batch with each image shifted at random, both down and to the right.

    Args:
        batch: (images, labels), images [n, rows * columns]. Pixels that come in are 0.
        pixels: int, 0 or more, the largest shift in each direction.
        shape: (rows, columns).
        seed: what `numpy.random.RandomState` takes; it draws the shifts.
    """
    import numpy as np
    (images, labels), (rows, columns), n = batch, shape, len(batch[0])
    down, right = np.random.RandomState(seed).randint(2 * pixels + 1, size=(2, n, 1, 1))
    padded = np.pad(images.reshape(n, rows, columns),
                    [(0, 0), (pixels, pixels), (pixels, pixels)], 'constant')
    images = padded[np.arange(n)[:, None, None], down + np.arange(rows)[:, None],
                    right + np.arange(columns)]
    return images.reshape(n, -1), labels


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
        open_files(args.data_dir, args.mirror)
    except NoMirrorError as error:
        # make goes on with the digits.
        print('%s: %s' % ('note' if 'MAKELEVEL' in os.environ else 'error', error),
              file=sys.stderr)
        return 3
    return 0


if __name__ == '__main__':
    sys.exit(main())
