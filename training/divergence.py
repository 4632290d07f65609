"""A training that comes apart: how it is seen, at no cost to a step."""
import numpy as np
import tensorflow as tf

# A guess has a loss of 0.23, ln(10) / 10; one at which the right digits have a
# probability of exp(-1000) comes of steps that are too long, and grows.
WORST_LOSS = 100.0


def weights_sum(train_op):
    """Returns the sum of all weights after a step, a tensor, float32 [].

    It is NaN or infinite when a weight is.
    """
    with tf.name_scope('weights'), tf.control_dependencies([train_op]):
        return tf.add_n([tf.reduce_sum(weight.read_value())
                         for weight in tf.trainable_variables()])


def has_come_apart(loss, total):
    """Returns whether a loss, or a value of `weights_sum`, has gone bad."""
    return not (loss <= WORST_LOSS and np.isfinite(total))
