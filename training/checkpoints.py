"""Save the checkpoints of a run, restore the latest one, stop if it diverges."""
import os
import sys

import numpy as np
import tensorflow as tf

from training import device
from training.errors import UserError, reason
from training.run_directory import checkpoint_steps

KEPT = 3  # checkpoints
# TensorFlow raises an InternalError if the GPU fails, and the others if a disk does.
FILE_ERRORS = set(tf.errors.OpError.__subclasses__()) - {tf.errors.InternalError}
# Guessing has a loss of 0.23, ln(10) / 10. With a loss of 100, the right digits have
# a probability of exp(-1000): the learning rate is too high, and the loss grows.
WORST_LOSS = 100.0


class Hook(object):
    """Something that happens besides the steps of a training."""

    def begin(self):
        """Called before the first step."""

    def after_step(self, step, loss):
        """Called after each step with its number and the loss of its batch."""

    def end(self, result):
        """Called after the test with the dict that result.json will hold."""


class CheckpointHook(Hook):
    """Save model.ckpt-<step> every `--save_every` steps and after the last step."""

    def __init__(self, directory, flags, sess):
        self._directory, self._flags, self._sess = directory, flags, sess
        self._saver = tf.train.Saver(max_to_keep=KEPT, save_relative_paths=True)

    def begin(self):
        self._write_meta_graph()
        # Tell the saver which checkpoints exist, so that it deletes the oldest.
        steps = sorted(checkpoint_steps(self._directory.path)[:KEPT])
        self._saver.recover_last_checkpoints([self._path(step) for step in steps])

    def after_step(self, step, loss):
        if step % self._flags.save_every == 0 or step == self._flags.steps:
            self.save(step)

    def _write_meta_graph(self):
        """Write model.ckpt.meta, the graph for `tf.train.import_meta_graph`."""
        if not (self._flags.resume
                and os.path.exists(self._directory.file('model.ckpt.meta'))):
            self._directory.write('model.ckpt.meta', self._saver.export_meta_graph(
            ).SerializeToString())

    def _path(self, step):
        return self._directory.file('model.ckpt-%d' % step)

    def save(self, step):
        """Save a checkpoint and delete the oldest.

        Raise a `UserError` if a weight is not finite or the files cannot be written.
        `tf.train.Saver` renames the .data file and then the .index file, so a
        checkpoint that has an .index is whole.
        """
        weights = self._sess.run(tf.trainable_variables())
        if not all(np.isfinite(weight).all() for weight in weights):
            raise diverged(self._directory, step, 'weights that are not finite')
        with self._directory.writing('model.ckpt-%d' % step, *FILE_ERRORS):
            os.stat(self._directory.path)  # TensorFlow would make a missing folder
            self._saver.save(self._sess, self._directory.file('model.ckpt'), step,
                             write_meta_graph=False)

    def restore(self):
        """Restore the latest checkpoint that is whole.

        Raises:
            UserError: there is none, it is of another model, or it has more steps
                than `--steps`.
        """
        run_dir = self._directory.path
        damaged = []
        for step in checkpoint_steps(run_dir):
            path = self._path(step)
            try:
                check_model(path)
                self._saver.restore(self._sess, path)
            except (tf.errors.OpError, ValueError) as error:
                if device.explain(error, True):
                    raise  # memory is short, or the GPU fails: it is no damage
                damaged.append('%s is damaged (%s)' % (path, reason(error)))
                continue
            for why in damaged:
                print('warning: ' + why, file=sys.stderr)
            if step > self._flags.steps:
                raise UserError('the run in %s has done %d steps: name more '
                                'with --steps' % (run_dir, step))
            print('going on from step %d' % step, file=sys.stderr)
            return
        if not damaged:
            raise UserError('cannot resume, %s has no checkpoint yet: begin it again, '
                            'with --run_dir %s in place of --resume'
                            % (run_dir, run_dir))
        raise UserError('cannot resume, %s: begin a new run without --resume'
                        % '; '.join(damaged))


def check_model(path):
    """Raise a `UserError` if a checkpoint is not of the default graph."""
    expected = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
    if tf.train.load_checkpoint(path).get_variable_to_shape_map() != expected:
        raise UserError('%s is of another model than config.json and model.py: put '
                        'back the files of one run, or model.py as it was when the run '
                        'began' % path)


class DivergenceHook(Hook):
    """Stop a training that diverges: one whose loss is NaN or explodes."""

    def __init__(self, directory):
        self._directory = directory

    def after_step(self, step, loss):
        if not loss <= WORST_LOSS:  # NaN is not
            raise diverged(self._directory, step, 'a loss of %g' % loss)


def diverged(directory, step, why):
    """Return the `UserError` for a training that diverged at a step."""
    return UserError(
        'the training diverged at step %d, with %s: begin a new run with a lower --lr '
        'or a higher --keep_prob; %s has %s'
        % (step, why, directory.path, directory.kept()))
