"""The learning rate over the steps of a training."""
import tensorflow as tf


def learning_rate(lr, lr_schedule, steps):
    """Return the learning rate for `model.build`: a float, or a float32 [] tensor.

    Args:
        lr: float, above 0.
        lr_schedule: 'constant', or 'linear': the tensor follows the global step and
            is, at step s of N, lr * min(1, s / max(1, N / 10)) * (1 - (s - 1) / N).
        steps: int, N.
    """
    if lr_schedule == 'constant':
        return lr
    done = tf.train.get_or_create_global_step()
    rise = tf.cast(done + 1, tf.float32) / max(1, 0.1 * steps)
    return tf.minimum(1.0, rise) * tf.train.polynomial_decay(
        lr, done, steps, end_learning_rate=0.0)
