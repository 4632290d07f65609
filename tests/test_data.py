"""What `read_data_sets` returns."""
import gzip
import os
import sys

import numpy as np
from conftest import check

import data
from training import datasets
from training import mnist as mnist_files


def test_mnist(mnist_dir, capsys):
    mnist = data.read_data_sets(mnist_dir)
    for part, n in zip(mnist, (55000, 5000, 10000)):
        check(part, n)
    assert capsys.readouterr() == (''.join(
        'Extracting %s\n' % os.path.join(mnist_dir, name)
        for name in mnist_files.FILES), '')
    # The published labels begin 5, 0, 4, 1, 9 and 7, 2, 1, 0, 4.
    assert mnist.validation.labels[:5].argmax(1).tolist() == [5, 0, 4, 1, 9]
    assert mnist.test.labels[:5].argmax(1).tolist() == [7, 2, 1, 0, 4]
    with gzip.open(os.path.join(mnist_dir, mnist_files.TEST_IMAGES)) as f:
        first = np.frombuffer(f.read(16 + 784)[16:], np.uint8)
    np.testing.assert_allclose(mnist.test.images[0], first / 255, atol=1e-7)
    assert mnist_files.is_mnist(mnist_dir)
    assert datasets.num_train('mnist', mnist_dir) == 55000


def test_another_data_set_is_read_as_it_is(made_up_dir, capsys):
    made_up = data.read_data_sets(str(made_up_dir))
    for part, n in zip(made_up, (256, 5000, 64)):
        assert part.images.shape == (n, 784) and part.labels.shape == (n, 10)
    assert 'is not MNIST: 5256 images to train with' in capsys.readouterr().err
    assert not mnist_files.is_mnist(str(made_up_dir))
    assert datasets.num_train('mnist', str(made_up_dir)) == 256


def test_tensorflow_without_its_examples(made_up_dir, monkeypatch):
    one = data.read_data_sets(str(made_up_dir), seed=1)
    monkeypatch.setitem(sys.modules, 'tensorflow.examples.tutorials.mnist',
                        None)
    other = data.read_data_sets(str(made_up_dir), seed=1)
    np.testing.assert_array_equal(one.train.images, other.train.images)
    np.testing.assert_array_equal(one.test.labels, other.test.labels)


def test_next_batch_goes_through_every_example_once_an_epoch(made_up_dir):
    train = data.read_data_sets(str(made_up_dir), seed=3).train
    train._images = np.arange(256)  # so that an example can be told
    seen = np.concatenate([train.next_batch(100)[0] for _ in range(5)])
    assert train.epochs_completed == 1
    assert sorted(seen[:256]) == list(range(256))
    assert len(set(seen[256:])) == 500 - 256
    assert list(seen[:100]) != list(range(100))


def test_seed_decides_the_order(made_up_dir):
    def batches(seed):
        train = data.read_data_sets(str(made_up_dir), seed=seed).train
        return np.concatenate([train.next_batch(99)[1] for _ in range(4)])

    np.testing.assert_array_equal(batches(7), batches(7))
    assert (batches(7) != batches(8)).any()
    assert (batches(None) != batches(None)).any()
