"""Show and keep the metrics of a run: progress, TensorBoard, curves.png."""
import contextlib
import os
import sys
import time

import numpy as np
import tensorflow as tf
import tqdm
from tensorboard.backend.event_processing import event_accumulator
from tqdm.contrib import DummyTqdmFile

from training import plots
from training.checkpoints import Hook
from training.device import is_out_of_memory

PART = 500  # images evaluated at once; they stay in the processor's cache
SAMPLE = 1000  # images of the validation set at a checkpoint; all of them take seconds


class MetricsHook(Hook):
    """Show the progress on stderr, and write metrics for TensorBoard.

    Loss and steps per second every `--log_every` steps; accuracy and loss on `SAMPLE`
    images of the validation set at every second checkpoint, and on all at the end.
    """

    def __init__(self, directory, flags, sess, m, mnist, logged, exits):
        """
        Args:
            directory: `RunDirectory`; flags: `argparse.Namespace`.
            sess, m, mnist: as for `Run.begin`.
            logged: {tag: value}, metrics of the current step from `Run.log`.
            exits: `contextlib.ExitStack` that is closed when the run ends.
        """
        self._directory, self._flags, self._logged = directory, flags, logged
        self._evaluate = lambda *part: evaluate(sess, m, *part, flags.batch_size)
        self._graph, self._validation = sess.graph, mnist.validation
        self._done = int(sess.run(tf.train.get_global_step()))
        self._writer = tf.summary.FileWriter(directory.path)
        self._bar = tqdm.tqdm(
            desc='training', total=flags.steps, initial=self._done, unit='step',
            dynamic_ncols=True, disable=None)
        for close in (self._bar.close, self._writer.close):
            exits.callback(close)
        exits.enter_context(contextlib.redirect_stdout(AboveBar(sys.stdout)))
        self._losses, self._seconds, self._last = [], [], time.perf_counter()

    def begin(self):
        # This makes TensorBoard discard the later points of a session that was killed.
        self._writer.add_session_log(
            tf.SessionLog(status=tf.SessionLog.START), self._done + 1)
        if not self._flags.resume:
            self._writer.add_graph(self._graph)
        self._last = time.perf_counter()

    def after_step(self, step, loss):
        self._seconds.append(time.perf_counter() - self._last)
        self._losses.append(loss)
        self._bar.update()
        if step % self._flags.log_every == 0 or step == self._flags.steps:
            self._log(step)
        if step % (2 * self._flags.save_every) == 0 and step != self._flags.steps:
            self._validate(step, SAMPLE)
        if self._logged:
            self._write(step, self._logged)
            self._logged.clear()
        self._last = time.perf_counter()

    def _log(self, step):
        rate = 1 / np.median(self._seconds[-len(self._losses):])
        loss, self._losses = np.mean(self._losses), []
        self._write(step, {'loss/training': loss, 'steps_per_second': rate})
        self._bar.set_postfix(loss='%.4f' % loss)
        if self._bar.disable:
            print('step %d of %d, %.1f steps/s, loss %.4f'
                  % (step, self._flags.steps, rate, loss), file=sys.stderr)

    def _validate(self, step, count=None):
        accuracy, loss = self._evaluate(self._validation.images[:count],
                                        self._validation.labels[:count])
        self._write(step, {'accuracy/validation': accuracy, 'loss/validation': loss})
        return accuracy

    def _write(self, step, metrics):
        self._writer.add_summary(tf.Summary(value=[
            tf.Summary.Value(tag=tag, simple_value=value)
            for tag, value in metrics.items()]), step)
        self._writer.flush()

    def end(self, result):
        steps = self._flags.steps
        self._write(steps, {'accuracy/test': result['test_accuracy']})
        result['validation_accuracy'] = float('%g' % self._validate(steps))
        result['median_step_seconds'] = (float(np.median(self._seconds))
                                         if self._seconds else None)
        self._directory.write('curves.png', plots.draw_curves(
            read_scalars(self._directory.path),
            os.path.basename(os.path.abspath(self._directory.path))))
        self._bar.close()  # before the last lines of the run


class AboveBar(DummyTqdmFile):
    """A stdout whose lines appear above the progress bar on stderr."""

    def __eq__(self, other):  # tqdm moves a bar only for a file that equals stdout
        return other is self._wrapped


def evaluate(sess, m, images, labels, batch_size):
    """Return accuracy and loss, without dropout, two floats.

    images are float [n, pixels], labels one-hot [n, classes]. If there is no memory for
    `PART` images at once, take batch_size, as the training does.
    """
    try:
        return _evaluate(sess, m, images, labels, PART)
    except tf.errors.OpError as error:
        if batch_size >= PART or not is_out_of_memory(error):
            raise
        return _evaluate(sess, m, images, labels, batch_size)


def _evaluate(sess, m, images, labels, size):
    results, counts = [], []
    for start in range(0, len(images), size):
        part = images[start:start + size]
        counts.append(len(part))
        results.append(sess.run((m.accuracy, m.cross_entropy), feed_dict={
            m._X: part, m.y: labels[start:start + size],
            m.keep_prob: 1.0, m.batch_size: len(part)}))
    return np.average(results, axis=0, weights=counts)


def read_scalars(run_dir):
    """Read the metrics of a run back: {tag: {step: value}}, ints and floats."""
    # Without the slash, a folder with `tfevents` in its name passes for a file. 0 keeps
    # every point; the default keeps a sample.
    events = event_accumulator.EventAccumulator(
        os.path.join(run_dir, ''), {event_accumulator.SCALARS: 0})
    event_accumulator.logger.setLevel('ERROR')  # it warns about resumed runs
    events.Reload()
    return {tag: {point.step: point.value for point in events.Scalars(tag)}
            for tag in events.Tags()[event_accumulator.SCALARS]}
