"""A network put to the test on many images, a part of them at a time."""
import numpy as np
import tensorflow as tf

PART = 500  # images, which stay in the processor's cache


def evaluate(sess, m, images, labels, weights, batch_size):
    """Returns accuracy and loss on images, without dropout, two floats.

    Args:
        sess: `tf.Session`.
        m: `Model`.
        images, labels: float [n, 784] and one-hot [n, 10].
        weights: a feed_dict, see `MovingAverages.feed`.
        batch_size: int, as many images as the training takes at once; there is
            memory for these, if not for `PART`.
    """
    try:
        return _in_parts(sess, m, images, labels, weights, PART)
    except tf.errors.ResourceExhaustedError:
        if batch_size >= PART:
            raise
        return _in_parts(sess, m, images, labels, weights, batch_size)


def _in_parts(sess, m, images, labels, weights, size):
    results, counts = [], []
    for start in range(0, len(images), size):
        part = images[start:start + size]
        counts.append(len(part))
        results.append(sess.run((m.accuracy, m.cross_entropy), feed_dict={
            m.images: part, m.y: labels[start:start + size], m.keep_prob: 1.0,
            m.batch_size: len(part), **weights}))
    return np.average(results, axis=0, weights=counts)
