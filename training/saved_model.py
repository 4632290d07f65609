"""The trained network as a TensorFlow SavedModel: export it, load it.

Its signature serving_default takes images, float32 [n, 784] in [0, 1], and returns
probabilities, float32 [n, 10], and classes, int64 [n]. The signature rows returns
probabilities [n, 28, 10], those after each row. These are MNIST's sizes.
"""
import contextlib
import os
import shutil

import tensorflow as tf
from google.protobuf.message import DecodeError

from training import device
from training.checkpoints import Hook
from training.errors import UserError, reason
from training.run_directory import read_json, temporary_name


class ExportHook(Hook):
    """Export the network when a run is done, as saved_model/ in its folder."""

    def __init__(self, directory, build_export):
        self._directory, self._build_export = directory, build_export

    def end(self, result):
        place = self._directory.file('saved_model')
        staging = temporary_name(self._directory.path)
        with self._directory.writing('saved_model', tf.errors.OpError):
            try:
                self._export(staging, result['steps'])
                # Replace file by file: some file systems (SMB) cannot rename a folder,
                # and the user may keep files beside ours. Without saved_model.pb, which
                # comes last, a folder does not load.
                os.makedirs(os.path.join(place, 'variables'), exist_ok=True)
                variables = sorted(os.listdir(os.path.join(staging, 'variables')))
                for name in [*(os.path.join('variables', name) for name in variables),
                             'saved_model.pb']:
                    os.replace(os.path.join(staging, name), os.path.join(place, name))
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _export(self, path, step):
        config = tf.ConfigProto(device_count={'GPU': 0})
        with tf.Graph().as_default(), tf.Session(config=config) as sess:
            images, rows = self._build_export()
            tf.train.Saver().restore(sess, self._directory.file('model.ckpt-%d' % step))
            builder = tf.saved_model.Builder(path)
            signature = tf.saved_model.predict_signature_def
            builder.add_meta_graph_and_variables(
                sess, [tf.saved_model.SERVING], {
                    'serving_default': signature({'images': images}, {
                        'probabilities': rows[:, -1],
                        'classes': tf.argmax(rows[:, -1], 1)}),
                    'rows': signature({'images': images},
                                      {'probabilities': rows})})
            builder.save()


class Network(object):
    """The network of a run that is done, on the 'cpu' or the 'gpu'.

    Call it with images, float32 [n, 784] in [0, 1], to get the probabilities after
    each row, float32 [n, 28, 10].

    Attributes:
        shape: rows and columns of the images, (28, 28) for MNIST.
        names: list of str, the names of the classes, '0' to '9' for MNIST.

    Raises:
        UserError: there is no such run, it is not done, its saved_model is damaged, or
            memory is short. So do the methods.
    """

    def __init__(self, run_dir, where='cpu'):
        path = os.path.join(run_dir, 'saved_model')
        if not os.path.isdir(run_dir):
            raise UserError('there is no folder %s: name the directory of a run '
                            'that is done' % run_dir)
        if not os.path.isdir(path):
            if not os.path.exists(os.path.join(run_dir, 'config.json')):
                raise UserError('%s is not the directory of a run: name one of a '
                                'run that is done' % run_dir)
            raise UserError('%s has no saved_model: name the directory of a run that '
                            'is done, or go on with it: python train_lstm_mnist.py '
                            '--resume %s' % (run_dir, run_dir))
        config = tf.ConfigProto()
        config.gpu_options.allow_growth = True
        self._device = device.choose(config, where)
        with self._explained():
            self._sess = tf.Session(graph=tf.Graph(), config=config)
        try:
            with self._explained(), self._sess.graph.as_default():
                signature = tf.saved_model.load(
                    self._sess, [tf.saved_model.SERVING], path
                ).signature_def['rows']
        except (tf.errors.OpError, DecodeError, OSError, RuntimeError, KeyError,
                ValueError) as error:
            raise UserError('%s is damaged (%s): move it away, and make it again: '
                            'python train_lstm_mnist.py --resume %s'
                            % (path, reason(error), run_dir))
        self._images = signature.inputs['images'].name
        rows = signature.outputs['probabilities']
        self._rows = rows.name
        _, timesteps, classes = (dim.size for dim in rows.tensor_shape.dim)
        pixels = signature.inputs['images'].tensor_shape.dim[1].size
        self.shape = timesteps, pixels // timesteps
        names = read_json(run_dir, 'config.json', 'class_names')
        if not isinstance(names, list) or len(names) != classes:
            names = range(classes)  # an older version's run
        self.names = list(map(str, names))

    def __call__(self, images):
        with self._explained():
            return self._sess.run(self._rows, {self._images: images})

    def weights(self):
        """Return {name: value} of the variables."""
        with self._explained(), self._sess.graph.as_default():
            return self._sess.run({variable.op.name: variable
                                   for variable in tf.trainable_variables()})

    @contextlib.contextmanager
    def _explained(self):
        """Turn TensorFlow's errors about memory or the GPU into a `UserError`."""
        try:
            yield
        except tf.errors.OpError as error:
            raise device.explain(error, self._device.name != 'CPU') or error
