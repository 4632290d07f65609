import types

import numpy as np

from reading.errors import Errors


def make(labels, named, sure):
    """Return the `Errors` of images whose labels and names are 0 to 3."""
    probabilities = np.eye(4)[named] * np.reshape(sure, [-1, 1])
    mnist = types.SimpleNamespace(
        test=types.SimpleNamespace(images=np.zeros([len(labels), 6]),
                                   labels=np.eye(3)[labels]),
        source=types.SimpleNamespace(shape=(2, 3)))
    return Errors(mnist, probabilities.tolist(), ['a', 'b', 'c', 'd'])


def test_the_surest_errors_come_first():
    errors = make([0, 0, 1, 1, 2, 0], [0, 1, 1, 3, 0, 2], [.9, .5, .9, .8, .6, .8])
    assert errors.wrong.tolist() == [3, 5, 4, 1]
    assert errors.accuracy == 2 / 6
    assert errors.counts().tolist() == [
        [1, 1, 1, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert errors.class_accuracy() == {'a': 0.333333, 'b': 0.5, 'c': 0, 'd': None}
    assert errors.draw().startswith(b'\x89PNG')


def test_no_error():
    errors = make([0, 1, 2], [0, 1, 2], [.9, .9, .9])
    assert (errors.accuracy, errors.wrong.tolist()) == (1, [])
    assert errors.draw().startswith(b'\x89PNG')
