"""Adam's learning rate over the steps of a training."""
import tensorflow as tf

RISE = 0.1  # the share of the steps in which a linear schedule goes up


def learning_rate(lr, schedule, steps):
    """Returns what `model.build` takes for its learning rate.

    Args:
        lr: float, above 0.
        schedule: 'constant', or 'linear': step s of N then has lr times
            1 - (s - 1) / N, which falls from 1 to 0, and times
            min(1, s / max(1, N / 10)), which rises in the first tenth.
        steps: int, N.

    Returns:
        lr, or a float32 [] tensor of the default graph, which depends on
        `tf.train.get_global_step()`.
    """
    if schedule == 'constant':
        return lr
    done = tf.train.get_or_create_global_step()
    rise = tf.cast(done + 1, tf.float32) / max(1, RISE * steps)
    return tf.minimum(1.0, rise) * tf.train.polynomial_decay(
        lr, done, steps, end_learning_rate=0.0)
