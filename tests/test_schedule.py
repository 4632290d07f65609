import numpy as np
import pytest
import tensorflow as tf
from conftest import feed, initialized

import model
from training.schedule import learning_rate


def test_constant_rate():
    assert learning_rate(1e-3, 'constant', 2000) == 1e-3


@pytest.mark.parametrize('steps, expected', [
    (20, {1: 0.05, 2: 0.095, 3: 0.09, 11: 0.05, 20: 0.005}),
    (1, {1: 0.1}), (5, {1: 0.1, 5: 0.02})])
def test_linear_rate_rises_and_falls(steps, expected):
    with tf.Graph().as_default(), tf.Session() as sess:
        rate = learning_rate(0.1, 'linear', steps)
        step = tf.train.get_global_step()
        assert {each: pytest.approx(sess.run(rate, {step: each - 1}))
                for each in expected} == expected


def test_adam_uses_the_rate_of_the_step():
    """Adam's first step changes each weight that has a gradient by the rate."""
    with tf.Graph().as_default(), tf.Session() as sess:
        m = model.build(learning_rate(0.08, 'linear', 40), 8, 2, dynamic_rnn=True)
        weights = tf.trainable_variables()
        before = initialized(sess).run(weights)
        sess.run(m.train_op, feed(m, 6))
        moved = max(np.abs(new - old).max()
                    for old, new in zip(before, sess.run(weights)))
        assert moved == pytest.approx(0.02, rel=1e-2)
