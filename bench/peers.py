"""Read MNIST with numpy, for the networks that need no TensorFlow 1.15."""
import gzip
import os

import numpy as np

from training.mnist_files import FILES

VALIDATION_SIZE = 5000  # images that TensorFlow's reader sets aside


def read_data_sets(data_dir):
    """Return images and labels to train with, and those to test with."""
    def read(name):
        with gzip.open(os.path.join(data_dir, name)) as f:
            body = np.frombuffer(f.read(), np.uint8)
        return (body[16:].reshape(-1, 28, 28) / np.float32(255) if 'images' in name
                else body[8:].astype(np.int64))

    images, labels, *test = map(read, FILES)
    return (images[VALIDATION_SIZE:], labels[VALIDATION_SIZE:]), test


def shuffled(mnist, batch_size):
    """Yield batches of images and labels without end."""
    images, labels = mnist
    while True:
        order = np.random.permutation(len(images))
        for end in range(batch_size, len(order) + 1, batch_size):
            batch = order[end - batch_size:end]
            yield images[batch], labels[batch]
