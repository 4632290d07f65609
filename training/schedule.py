"""Adam's learning rate over the steps of a training."""
import tensorflow as tf

RISE = 0.1  # the share of the steps in which a linear schedule goes up


def learning_rate(lr, schedule, steps):
    """Returns what `model.build` takes for its learning rate.

    Args:
        lr: float, the rate, or the highest of the schedule.
        schedule: 'constant', or 'linear', which goes up to lr in a tenth of
            the steps and falls all the while, to 0 after the last: step s of N
            has lr * (1 - (s - 1) / N) * min(1, s / (N / 10)).
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
