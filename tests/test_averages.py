"""Moving averages of the weights, by the network unrolled in a loop."""
import numpy as np
import pytest
import tensorflow as tf
from conftest import feed, initialized

import model
from training.averages import MovingAverages


def build(decay):
    tf.set_random_seed(1)
    m = model.build(hidden_size=8, dynamic_rnn=True)
    return m, MovingAverages(m.train_op, decay)


@pytest.mark.parametrize('decay', [0.5, 0.995])
def test_averages_follow_the_weights(decay):
    with tf.Graph().as_default(), tf.Session() as sess:
        m, averages = build(decay)
        weights = tf.trainable_variables()
        names = [v.op.name for v in weights]
        assert sorted(v.op.name for v in averages.variables.values()) == sorted(
            name + '/ExponentialMovingAverage' for name in names)
        expected = initialized(sess).run(weights)
        for step in range(1, 21):
            sess.run([m.train_op, averages.update],
                     feed(m, 6, keep_prob=0.5, seed=step))
            assert sess.run(tf.train.get_global_step()) == step
            share = min(decay, (1 + step) / (10 + step))
            expected = [share * average + (1 - share) * weight
                        for average, weight in zip(expected, sess.run(weights))]
        found = sess.run({average.op.name: average
                          for average in averages.variables.values()})
        for name, value in zip(names, expected):
            np.testing.assert_allclose(
                found[name + '/ExponentialMovingAverage'], value, rtol=1e-5,
                atol=1e-7)

        # Fed, they are what the graph computes with.
        fed = feed(m, 4)
        before = sess.run(m.logits, fed)
        fed.update(averages.feed(sess))
        with_averages = sess.run(m.logits, fed)
        assert (before != with_averages).any()
        sess.run([v.assign(value) for v, value in zip(weights, expected)])
        np.testing.assert_allclose(sess.run(m.logits, feed(m, 4)),
                                   with_averages, rtol=1e-4, atol=1e-6)


def test_averages_change_nothing_of_the_training():
    weights = []
    for decay in (0, 0.9):
        with tf.Graph().as_default(), tf.Session() as sess:
            m, averages = build(decay)
            assert bool(averages.variables) == bool(averages.update) == bool(
                decay)
            assert bool(averages.feed(initialized(sess))) == bool(decay)
            for seed in range(3):
                sess.run([m.train_op, averages.update],
                         feed(m, 6, keep_prob=0.5, seed=seed))
            weights.append(sess.run(tf.trainable_variables()))
    for without, with_averages in zip(*weights):
        np.testing.assert_array_equal(without, with_averages)
