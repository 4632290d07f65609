"""The trained network for use, as a TensorFlow SavedModel.

Its signature serving_default takes images, float32 [n, 784] in [0, 1], and
gives probabilities, float32 [n, 10], and classes, int64 [n]; the signature rows
gives probabilities [n, 28, 10], those after each row.
"""
import contextlib
import os

import tensorflow as tf

from training import averages, device
from training.errors import UserError
from training.files import SHA256SUMS, sha256sums, sync, write_whole
from training.run_directory import read_json


def export(directory, config, build_export, step, ema_decay=0.0):
    """Writes saved_model/ into a run's folder, from a checkpoint there.

    Args:
        directory: `RunDirectory`.
        config: `tf.ConfigProto`.
        build_export: a function that adds the graph without dropout to the
            default graph and returns its images and rows, as
            `model.build_export` does.
        step: int, the checkpoint's.
        ema_decay: float, that of the run; the weights are then the averages.

    Raises:
        UserError: the system says no.
    """
    with directory.staging('saved_model', tf.errors.OpError) as staging, \
            tf.Graph().as_default(), tf.Session(config=config) as sess:
        images, rows = build_export()
        averages.saver(ema_decay).restore(
            sess, directory.file('model.ckpt-%d' % step))
        whole = os.path.join(staging, 'saved_model')
        _build(sess, images, rows, whole)
        # TensorFlow takes a graph in which a bit has changed for another graph.
        write_whole(os.path.join(whole, SHA256SUMS),
                    sha256sums(whole).encode(), directory.advice())
        for folder, _, files in os.walk(whole):
            for name in files:
                sync(os.path.join(folder, name))
        place = directory.file('saved_model')
        if os.path.exists(place):  # that of fewer steps
            os.rename(place, os.path.join(staging, 'old'))
        os.rename(whole, place)


def _build(sess, images, rows, path):
    """Writes a session's graph and variables with the two signatures."""
    builder = tf.saved_model.Builder(path)
    signature = tf.saved_model.predict_signature_def
    builder.add_meta_graph_and_variables(
        sess, [tf.saved_model.SERVING], {
            'serving_default': signature({'images': images}, {
                'probabilities': rows[:, -1],
                'classes': tf.argmax(rows[:, -1], 1)}),
            'rows': signature({'images': images}, {'probabilities': rows})})
    builder.save()


class Network(object):
    """The network of a run that is done.

    Call it with images, float32 [n, 784] in [0, 1], for the classes'
    probabilities after each row, float32 [n, 28, 10].
    """

    def __init__(self, run_dir):
        """Loads it.

        Args:
            run_dir: str.

        Raises:
            UserError: there is no such run, it is not done, its saved_model is
                damaged, or there is no memory for it; so do the methods.
        """
        path = os.path.join(run_dir, 'saved_model')
        if not os.path.isdir(run_dir):
            raise UserError('there is no folder %s: name the directory of a run '
                            'that is done' % run_dir)
        if not os.path.isdir(path):
            if not os.path.exists(os.path.join(run_dir, 'config.json')):
                raise UserError('%s is not the directory of a run: name one of a '
                                'run that is done' % run_dir)
            raise UserError(
                '%s has no saved_model: name the directory of a run that is done, '
                'or go on with it: python train_lstm_mnist.py --resume %s'
                % (run_dir, run_dir))
        config = tf.ConfigProto()
        config.gpu_options.allow_growth = True
        with _explained(), device.one_card():
            self._sess = tf.Session(graph=tf.Graph(), config=config)
        try:
            with open(os.path.join(path, SHA256SUMS)) as f:
                if f.read() != sha256sums(path):
                    raise ValueError('its files are not those of its SHA256SUMS')
            with _explained(), self._sess.graph.as_default():
                signature = tf.saved_model.load(
                    self._sess, [tf.saved_model.SERVING], path
                ).signature_def['rows']
        except (tf.errors.OpError, OSError, RuntimeError, KeyError,
                ValueError) as error:
            raise UserError('%s is damaged (%s): delete it and run python '
                            'train_lstm_mnist.py --resume %s'
                            % (path, str(error).splitlines()[0], run_dir))
        self._images = signature.inputs['images'].name
        self._rows = signature.outputs['probabilities'].name

    def __call__(self, images):
        with _explained():
            return self._sess.run(self._rows, {self._images: images})

    def weights(self):
        """Returns {name: value} of the variables."""
        with _explained(), self._sess.graph.as_default():
            return self._sess.run({variable.op.name: variable
                                   for variable in tf.trainable_variables()})


@contextlib.contextmanager
def _explained():
    """Makes a `UserError` of what TensorFlow says of memory or of a card."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError('out of memory (%s): end what else uses it'
                        % str(error).splitlines()[0])
    except tf.errors.OpError as error:
        raise device.explain(error) or error


def steps_behind(run_dir):
    """Returns how many steps the saved network was trained.

    Returns:
        int, or None where result.json doesn't say; and bool, whether these are
        all that config.json asks for.
    """
    steps = read_json(run_dir, 'result.json', 'steps')
    return steps, steps == read_json(run_dir, 'config.json', 'steps')
