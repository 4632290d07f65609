"""What TensorBoard shows of a run: written, and read back."""
import os
import re
import socket
import time

import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator


class SummaryWriter(object):
    """Writes events.out.tfevents.<time>.<host>.<pid> into a run's folder.

    `tf.summary.FileWriter` writes the same, and says nothing when it can't.
    """

    def __init__(self, directory, step, graph=None):
        """Begins the file of a session.

        Args:
            directory: `RunDirectory`.
            step: int, the session's first. What an earlier session that was
                killed noted of it and of later ones is then forgotten.
            graph: `tf.Graph` to show, or None.

        Raises:
            UserError: as for `add`.
        """
        self._directory = directory
        # TensorBoard reads the files in the order of their names: this one comes
        # last, even in the same second or with a clock that was set back.
        before = [re.match(r'events\.out\.tfevents\.(\d+)\.', name)
                  for name in os.listdir(directory.path)]
        second = max([int(time.time())]
                     + [int(match[1]) + 1 for match in before if match])
        self._name = 'events.out.tfevents.%d.%s.%d' % (
            second, socket.gethostname(), os.getpid())
        with self._writing():
            self._writer = tf.io.TFRecordWriter(directory.file(self._name))
        self._write(file_version='brain.Event:2')
        if graph:
            self._write(graph_def=graph.as_graph_def(
                add_shapes=True).SerializeToString())
        self._write(step=step,
                    session_log=tf.SessionLog(status=tf.SessionLog.START))

    def add(self, step, scalars):
        """Notes the values of a step.

        Args:
            step: int.
            scalars: {tag: float}.

        Raises:
            UserError: the system says no.
        """
        self._write(step=step, summary=tf.Summary(value=[
            tf.Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars.items()]))

    def _write(self, **fields):
        with self._writing():
            self._writer.write(tf.Event(wall_time=time.time(),
                                        **fields).SerializeToString())
            self._writer.flush()

    def _writing(self):
        return self._directory.writing(self._name, tf.errors.OpError)


def read(run_dir):
    """Reads back what all sessions of a run noted.

    Args:
        run_dir: str.

    Returns:
        {tag: {step: value}}, steps int and values float.
    """
    # With a slash, as a name with `tfevents` in it would pass for a file; 0 is
    # for all of them, where it would draw a sample.
    events = event_accumulator.EventAccumulator(
        os.path.join(run_dir, ''), {event_accumulator.SCALARS: 0})
    events.Reload()
    return {tag: {point.step: point.value for point in events.Scalars(tag)}
            for tag in events.Tags()[event_accumulator.SCALARS]}
