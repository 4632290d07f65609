"""What `read_data_sets` returns."""
import gzip
import os
import shutil

import numpy as np
import pytest
from conftest import check

import data
from training import idx, mnist_files


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
    assert mnist.source.name == 'mnist'
    assert mnist.source.sha256 == mnist_files.CONTENTS


def test_another_data_set_is_read_as_it_is(made_up_dir, capsys):
    made_up = data.read_data_sets(str(made_up_dir))
    for part, n in zip(made_up, (4818, 438, 64)):
        assert part.images.shape == (n, 784) and part.labels.shape == (n, 10)
    assert ('is not MNIST: 4818 images to train with, 438 for validation and 64 to '
            'test with, of 28 x 28 pixels, in 10 classes'
            in capsys.readouterr().err)
    assert made_up.source.name == str(made_up_dir)
    assert (made_up.source.shape, made_up.source.class_num) == ((28, 28), 10)


@pytest.mark.parametrize('one_hot', [True, False])
def test_the_batches_are_those_of_tensorflows_reader(one_hot, made_up_dir):
    from tensorflow.examples.tutorials.mnist import input_data
    batches = []
    for read, more in ((data.read_data_sets, {}),
                       (input_data.read_data_sets, {'validation_size': 438})):
        sets = read(str(made_up_dir), one_hot=one_hot, seed=7, **more)
        # Over the end of an epoch.
        batches.append([part for _ in range(4) for part in (
            *sets.train.next_batch(1500), *sets.validation.next_batch(100),
            *sets.test.next_batch(50))])
    for found, expected in zip(*batches):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    assert batches[0][1].shape == ((1500, 10) if one_hot else (1500,))


def test_the_folder_is_read_once(made_up_dir, monkeypatch):
    read, seen = idx.read, []
    monkeypatch.setattr(idx, 'read', lambda path, kind: (
        seen.append(os.path.basename(path)) or read(path, kind)))
    mnist = data.read_data_sets(str(made_up_dir))
    shutil.rmtree(str(made_up_dir))  # nobody goes back to it
    assert mnist.source.is_of_run(mnist.source.sha256)
    assert sorted(seen) == sorted(mnist_files.FILES)


def test_next_batch_goes_through_every_example_once_an_epoch(made_up_dir):
    train = data.read_data_sets(str(made_up_dir), seed=3).train
    train._images = np.arange(4818)  # so that an example can be told
    seen = np.concatenate([train.next_batch(1000)[0] for _ in range(5)])
    assert train.epochs_completed == 1
    assert sorted(seen[:4818]) == list(range(4818))
    assert len(set(seen[4818:])) == 5000 - 4818
    assert list(seen[:100]) != list(range(100))


def test_seed_decides_the_order(made_up_dir):
    def batches(seed):
        train = data.read_data_sets(str(made_up_dir), seed=seed).train
        return np.concatenate([train.next_batch(99)[1] for _ in range(4)])

    np.testing.assert_array_equal(batches(7), batches(7))
    assert (batches(7) != batches(8)).any()
    assert (batches(None) != batches(None)).any()


def test_shifted_images():
    images = np.zeros([500, 9, 7], np.float32)
    images[:, 4, 3], images[:, 8, 0] = 1, 2
    batch = images.reshape(500, 63), np.arange(500)
    found, labels = data.shifted(batch, 2, (9, 7), [3, 5])
    assert labels.tolist() == list(range(500))
    assert found.shape == (500, 63) and found.dtype == np.float32
    n, rows, columns = np.nonzero(found.reshape(500, 9, 7) == 1)
    assert n.tolist() == list(range(500))
    places = np.stack([rows - 4, columns - 3], 1)
    assert {*map(tuple, places)} == {(down, right) for down in range(-2, 3)
                                     for right in range(-2, 3)}
    # What leaves the image does not come in on the other side.
    for image, (down, right) in zip(found.reshape(500, 9, 7), places):
        there = down <= 0 and right >= 0
        assert image.sum() == (3 if there else 1)
        assert not there or image[8 + down, right] == 2
    again = [data.shifted(batch, 2, (9, 7), seed)[0]
             for seed in ([3, 5], [3, 6], [4, 5])]
    assert [(found == other).all() for other in again] == [True, False, False]
    np.testing.assert_array_equal(
        data.shifted(batch, 0, (9, 7), 1)[0], images.reshape(500, 63))
