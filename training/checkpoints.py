"""A run's checkpoints, saved whole or not at all, and restored."""
import glob
import os
import sys

import tensorflow as tf

from training.errors import UserError
from training.files import sync
from training.run_directory import checkpoint_steps

KEPT = 3  # checkpoints


class Checkpoints(object):
    """The checkpoints of the default graph's variables in a run's folder.

    Attributes:
        step: int, the one that was saved or restored last; None before.
    """

    def __init__(self, directory, sess):
        """
        Args:
            directory: `RunDirectory`; the files are its model.ckpt-<step>.*.
            sess: `tf.Session` with the variables.
        """
        self._directory, self._sess = directory, sess
        # Leaves the old checkpoints alone: `save` removes them.
        self._saver = tf.train.Saver(max_to_keep=None)
        self.step = None

    def save(self, step):
        """Writes a checkpoint and keeps the last three.

        Raises:
            UserError: the system says no; earlier checkpoints are kept.
        """
        run_dir = self._directory.path
        with self._directory.staging('model.ckpt-%d' % step,
                                     tf.errors.OpError) as staging:
            self._saver.save(self._sess, os.path.join(staging, 'model.ckpt'),
                             step, write_meta_graph=False, write_state=False)
            # .data before .index: a checkpoint that has the latter is whole.
            for part in sorted(os.listdir(staging)):
                sync(os.path.join(staging, part))
                os.replace(os.path.join(staging, part),
                           os.path.join(run_dir, part))
            sync(run_dir)
            self._write_state()
            for old in checkpoint_steps(run_dir)[KEPT:]:
                for path in sorted(glob.glob(os.path.join(
                        glob.escape(run_dir), 'model.ckpt-%d.*' % old)))[::-1]:
                    os.remove(path)
        self.step = step

    def _write_state(self):
        """Writes the file that `tf.train.latest_checkpoint` reads."""
        steps = checkpoint_steps(self._directory.path)[:KEPT]
        state = [('model_checkpoint_path', steps[0])] + [
            ('all_model_checkpoint_paths', kept) for kept in steps[::-1]]
        self._directory.write('checkpoint', ''.join(
            '%s: "model.ckpt-%d"\n' % pair for pair in state).encode())

    def restore(self, steps):
        """Restores the latest checkpoint that is whole.

        Args:
            steps: int, how far the run is to go.

        Returns:
            int, the step that it was saved after.

        Raises:
            UserError: there is none, it is another model's, or it is past
                steps.
        """
        run_dir = self._directory.path
        damaged = []
        for step in checkpoint_steps(run_dir):
            path = self._directory.file('model.ckpt-%d' % step)
            try:
                self._check_model(path)
                self._saver.restore(self._sess, path)
            except (tf.errors.OpError, ValueError) as error:
                why = str(error).split('Original error:\n\n')[-1].splitlines()[0]
                damaged.append('%s is damaged (%s)' % (path, why))
                continue
            for why in damaged:
                print('warning: ' + why, file=sys.stderr)
            if step > steps:
                raise UserError('the run in %s has %d steps behind it: name '
                                'more with --steps' % (run_dir, step))
            print('going on from step %d' % step, file=sys.stderr)
            self.step = step
            return step
        raise UserError(
            'nothing to go on from, %s: begin a new run without --resume'
            % ('; '.join(damaged) or 'as %s has no checkpoint yet' % run_dir))

    def _check_model(self, path):
        """Raises a `UserError` if a checkpoint is not of this graph."""
        expected = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
        found = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        if found != expected:
            raise UserError(
                '%s is of another model than config.json beside it says: put '
                'back the files of one run' % path)

    def kept(self):
        """Returns, as part of a sentence, what there is to go on from."""
        return ('no checkpoint yet' if self.step is None
                else 'the checkpoint of step %d' % self.step)
