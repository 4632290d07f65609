"""Show and keep the metrics of a run: progress, TensorBoard, curves.png."""
import collections
import contextlib
import glob
import os
import sys
import time

import numpy as np
import tensorflow as tf
import tqdm

from training.checkpoints import Hook
from training.device import is_out_of_memory
from training.environment import free_memory
from training.errors import UserError, reason

PART = 500  # images evaluated at once; they stay in the processor's cache
VALIDATE_EVERY = 400  # steps
SAMPLE = 1000  # images for a point of the validation curves; all of them take seconds


class MetricsHook(Hook):
    """Show the progress on stderr, and write metrics for TensorBoard.

    Write loss and steps per second every `--log_every` steps. Write accuracy and loss
    on `SAMPLE` images of the validation set every `VALIDATE_EVERY` steps and at the
    end. The accuracy on all of its images is in result.json.
    """

    def __init__(self, directory, flags, sess, m, mnist, exits):
        """
        Args:
            directory: `RunDirectory`; flags: `argparse.Namespace`.
            sess, m, mnist: as for `Run.begin`.
            exits: `contextlib.ExitStack` that is closed when the run ends.
        """
        self._directory, self._flags = directory, flags
        self._evaluate = lambda *part: evaluate(sess, m, *part, flags.batch_size)
        self._graph, self._validation = sess.graph, mnist.validation
        self._done = int(sess.run(tf.train.get_global_step()))
        self._session = 1 + len(event_files(directory.path))
        # Sessions of the same second would write the same file without the suffix.
        self._writer = tf.summary.FileWriter(directory.path,
                                             filename_suffix='.%d' % self._session)
        self._bar = tqdm.tqdm(
            desc='training', total=flags.steps, initial=self._done, unit='step',
            dynamic_ncols=True, disable=None)
        for close in (self._bar.close, self._writer.close):
            exits.callback(close)
        exits.enter_context(contextlib.redirect_stdout(AboveBar(sys.stdout)))
        self._losses, self._seconds, self._last = [], [], time.perf_counter()

    def begin(self):
        # This makes TensorBoard discard the later points of a session that was killed.
        # The number of the session is for `read_scalars`.
        self._writer.add_session_log(tf.SessionLog(
            status=tf.SessionLog.START, msg=str(self._session)), self._done + 1)
        if not self._flags.resume:
            self._writer.add_graph(self._graph)
        self._last = time.perf_counter()

    def after_step(self, step, loss):
        self._seconds.append(time.perf_counter() - self._last)
        self._losses.append(loss)
        self._bar.update()
        if step % self._flags.log_every == 0 or step == self._flags.steps:
            self._log(step)
        if step % VALIDATE_EVERY == 0 and step != self._flags.steps:
            self._validate(step)
        if step == self._flags.steps:
            self.say('testing')
        self._last = time.perf_counter()

    def say(self, what):
        """Say in the bar what the run does."""
        self._bar.set_description(what)

    def close(self):
        """Close the bar, before the last lines of the run."""
        self.say('training')
        self._bar.close()

    def _log(self, step):
        rate = 1 / np.median(self._seconds[-len(self._losses):])
        loss, self._losses = np.mean(self._losses), []
        self.write(step, {'loss/training': loss, 'steps_per_second': rate})
        self._bar.set_postfix(loss='%.4f' % loss)
        if self._bar.disable:
            print('step %d of %d, %.1f steps/s, loss %.4f'
                  % (step, self._flags.steps, rate, loss), file=sys.stderr)

    def _validate(self, step):
        """Write a point of the validation curves; return its accuracy."""
        images, labels = self._validation.images, self._validation.labels
        accuracy, loss, _ = self._evaluate(images[:SAMPLE], labels[:SAMPLE])
        self.write(step, {'accuracy/validation': accuracy, 'loss/validation': loss})
        return accuracy

    def write(self, step, metrics):
        """Write {tag: value} of a step for TensorBoard and curves.png."""
        self._writer.add_summary(tf.Summary(value=[
            tf.Summary.Value(tag=tag, simple_value=value)
            for tag, value in metrics.items()]), step)
        self._writer.flush()

    def end(self, result):
        self.say('validating')
        steps = self._flags.steps
        self.write(steps, {'accuracy/test': result['test_accuracy']})
        accuracy, count = self._validate(steps), self._validation.num_examples
        if count > SAMPLE:
            others, *_ = self._evaluate(self._validation.images[SAMPLE:],
                                       self._validation.labels[SAMPLE:])
            accuracy = np.average([accuracy, others], weights=[SAMPLE, count - SAMPLE])
        result['validation_accuracy'] = float('%g' % accuracy)
        result['median_step_seconds'] = (float(np.median(self._seconds))
                                         if self._seconds else None)
        self.say('exporting')


def draw_curves(run_dir):
    """Return curves.png of a run, bytes."""
    from training import plots  # needs matplotlib
    return plots.draw_curves(read_scalars(run_dir),
                             os.path.basename(os.path.abspath(run_dir)))


def keep_picture(directory, name, draw):
    """Write what draw() returns into a `RunDirectory`, or print a warning."""
    try:
        directory.write(name, draw())
    except Exception as error:  # the results are there, whatever fails here
        tqdm.tqdm.write(  # above the bar
            'warning: %s was not drawn (%s); the results are complete'
            % (name, error if isinstance(error, UserError) else reason(error)),
            file=sys.stderr)


class AboveBar(object):
    """A stdout whose lines appear above the progress bar on stderr."""

    def __init__(self, stream):
        self._stream, self._rest = stream, ''

    def write(self, text):
        *lines, self._rest = (self._rest + text).split('\n')
        if lines:
            with tqdm.tqdm.external_write_mode():  # takes the bar away and back
                self._stream.write('\n'.join([*lines, '']))
        return len(text)

    def __getattr__(self, name):
        return getattr(self._stream, name)


def fits_in_memory(m, count):
    """Return whether there surely is memory to classify that many images at once.

    Ask before, because a container that is out of memory is killed. An image takes at
    most four times its pixels, and for each unit a float for each row, which
    tf.nn.dynamic_rnn keeps, and 30 more (measured with 64 to 1024 units and one to
    four layers).
    """
    units = sum(state.h.shape[1].value for state in m.state)
    floats = 4 * m._X.shape[1].value + units * (len(m.outputs) + 30)
    return 4 * floats * count < free_memory()


def evaluate(sess, m, images, labels, batch_size):
    """Return accuracy and loss, without dropout, two floats; and y_pre.

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
    results, counts, y_pre = [], [], []
    for start in range(0, len(images), size):
        part = images[start:start + size]
        counts.append(len(part))
        *result, named = sess.run((m.accuracy, m.cross_entropy, m.y_pre), feed_dict={
            m._X: part, m.y: labels[start:start + size],
            m.keep_prob: 1.0, m.batch_size: len(part)})
        results.append(result)
        y_pre.append(named)
    return (*np.average(results, axis=0, weights=counts), np.concatenate(y_pre))


def event_files(run_dir):
    """Return the paths of TensorBoard's files, one for each session of a run."""
    return sorted(glob.glob(os.path.join(glob.escape(run_dir),
                                         'events.out.tfevents.*')))


def read_scalars(run_dir):
    """Read the metrics of a run back: {tag: {step: value}}, ints and floats.

    A session discards the points of earlier sessions from its first step on. The
    sessions are sorted by the number that `MetricsHook` gives them, since the clock may
    be set back between them. Those of older versions have none; they come first.
    """
    sessions = []
    for path in event_files(run_dir):
        number, first, points = 0, float('inf'), []
        with contextlib.suppress(tf.errors.DataLossError):  # of a killed session
            for event in tf.train.summary_iterator(path):
                if event.session_log.status == tf.SessionLog.START:
                    number, first = int(event.session_log.msg or 0), event.step
                points += [(value.tag, event.step, value.simple_value)
                           for value in event.summary.value]
        sessions.append((number, path, first, points))
    scalars = collections.defaultdict(dict)
    for _, _, first, points in sorted(sessions):
        for tag, of in scalars.items():
            scalars[tag] = {step: value for step, value in of.items() if step < first}
        for tag, step, value in points:
            scalars[tag][step] = value
    return dict(scalars)
