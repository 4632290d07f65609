"""The kernels of a step on a GPU, and the share of a step that they are busy.

The rest of a step is spent on launching them, and on waiting for the CPU.
"""


def trace(step):
    """Runs a step of a TensorFlow network with TensorFlow's own tracer.

    Args:
        step: a function that calls `sess.run` once.

    Returns:
        A `tf.RunMetadata`.
    """
    import tensorflow as tf
    metadata = tf.RunMetadata()
    run = tf.Session.run
    options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
    tf.Session.run = lambda sess, *args, **kwargs: run(
        sess, *args, options=options, run_metadata=metadata, **kwargs)
    try:
        step()
    finally:
        tf.Session.run = run
    return metadata


def count(metadata):
    """Counts what ran on a GPU.

    Args:
        metadata: `tf.RunMetadata` of a traced step.

    Returns:
        {'kernels': int, 'busy': seconds in which at least one of them ran}.
    """
    spans = sorted(
        (node.all_start_micros, node.all_start_micros + node.op_end_rel_micros)
        for device in metadata.step_stats.dev_stats
        if device.device.endswith('stream:all') for node in device.node_stats)
    busy, until = 0, 0
    for start, end in spans:
        busy += max(0, end - max(start, until))
        until = max(until, end)
    return {'kernels': len(spans), 'busy': busy / 1e6}
