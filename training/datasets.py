"""Which data sets a run can be trained on, and what they are made of.

Nothing here needs a package, so that flags are checked at once.
"""
import os

from training import mnist_files

DATASETS = ('mnist', 'digits')

# Of the 1,797 bundled digits; the other 360 are the test set.
DIGITS_TRAIN, DIGITS_VALIDATION = 1257, 180


def num_train(dataset, data_dir):
    """Returns how many training images there will be, an int.

    Args:
        dataset: one of `DATASETS`.
        data_dir: str, the folder with MNIST's files; not used for 'digits'.
    """
    return (DIGITS_TRAIN if dataset == 'digits'
            else mnist_files.num_train(data_dir))


def fingerprint(dataset, data_dir):
    """Returns the sha256 of each file that is read: four, none for 'digits'."""
    return [] if dataset == 'digits' else mnist_files.fingerprint(data_dir)


def title(dataset, data_dir, sha256):
    """Returns what result.json calls it: files that aren't MNIST's by folder.

    Args:
        dataset: one of `DATASETS`.
        data_dir: str.
        sha256: its `fingerprint`.
    """
    if dataset == 'mnist' and sha256 != mnist_files.published():
        return os.path.abspath(data_dir)
    return dataset
