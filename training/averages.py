"""Moving averages of the weights, which a run may test and keep instead."""
import tensorflow as tf


class MovingAverages(object):
    """Averages of all trainable variables, brought up to date after each step.

    The step count lets the first averages, of few steps, forget faster: a step
    leaves min(decay, (1 + step) / (10 + step)) as it was (`num_updates` of
    `tf.train.ExponentialMovingAverage`).

    Attributes:
        update: a list of operations to run in each step; they wait for its
            train_op. Empty without a decay.
        variables: a dict from the tensor that the graph reads a weight from to
            the variable with that weight's average. Empty without a decay.
    """

    def __init__(self, train_op, decay):
        """Adds them to the default graph.

        Args:
            train_op: the operation that changes the weights and counts the
                step in `tf.train.get_global_step()`.
            decay: float in [0, 1), the share of an average that a step leaves
                as it was; 0 keeps no averages.
        """
        self.update, self.variables = [], {}
        if decay:
            weights = tf.trainable_variables()
            ema = tf.train.ExponentialMovingAverage(decay,
                                                    tf.train.get_global_step())
            with tf.name_scope('averages'), tf.control_dependencies([train_op]):
                self.update = [ema.apply(weights)]
            self.variables = {weight.value(): ema.average(weight)
                              for weight in weights}

    def feed(self, sess):
        """Returns a feed_dict with which the graph computes with the averages."""
        return dict(zip(self.variables,
                        sess.run(list(self.variables.values()))))


def saver(decay):
    """Returns a `tf.train.Saver` that restores the averages as the weights.

    Args:
        decay: float, that of the run; 0 restores the weights themselves.
    """
    return tf.train.Saver(
        tf.train.ExponentialMovingAverage(decay).variables_to_restore()
        if decay else None)
