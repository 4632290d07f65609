"""This project's network, the matrix products alone, and a CNN."""
import tensorflow as tf

import data
import model
from bench import baseline
from training import device


def read_data_sets(data_dir):
    """Return MNIST, and the images and labels to test with."""
    mnist = data.read_data_sets(data_dir, one_hot=True)
    return mnist, (mnist.test.images, mnist.test.labels)


def prepare(mnist, size):
    """Build the network that `size` names; see `baseline.prepare`."""
    network = size['network']
    if network == 'tutorial':
        return baseline.prepare(mnist, size)
    if network == 'cnn':
        return cnn(mnist, size)
    if network == 'products':
        return products(size)
    return script(mnist, size, dynamic_rnn=network == 'dynamic')


def script(mnist, size, dynamic_rnn):
    """The training step of train_lstm_mnist.py."""
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    device.share_cores(config, dynamic_rnn)
    device.choose(config, 'auto')
    sess = tf.Session(config=config)
    m = model.build(1e-3, size['hidden_size'], size['layer_num'], dynamic_rnn)
    sess.run(tf.global_variables_initializer())

    def run(fetches, images, labels, keep_prob):
        return sess.run(fetches, {m._X: images, m.y: labels, m.keep_prob: keep_prob,
                                  m.batch_size: len(images)})

    return (lambda: run([m.cross_entropy, m.train_op],
                        *mnist.train.next_batch(size['batch_size']), 0.5),
            lambda images, labels: run(m.accuracy, images, labels, 1.0))


def products(size):
    """The matrix products of a step, three per row and layer; none needs another."""
    n, hidden = size['batch_size'], size['hidden_size']
    config = tf.ConfigProto()
    device.share_cores(config)
    # TensorFlow would compute equal products only once.
    config.graph_options.optimizer_options.opt_level = -1
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    sess = tf.Session(config=config)
    made = []
    for width in [28 + hidden] + [2 * hidden] * (size['layer_num'] - 1):
        inputs, kernel, transposed, gates = (
            tf.Variable(tf.random_normal(shape)) for shape in (
                [n, width], [width, 4 * hidden], [4 * hidden, width], [n, 4 * hidden]))
        for _ in range(28):
            made += [tf.matmul(inputs, kernel), tf.matmul(gates, transposed),
                     tf.matmul(inputs, gates, transpose_a=True)]
    run = tf.group(*made)
    sess.run(tf.global_variables_initializer())
    return lambda: sess.run(run), None


def cnn(mnist, size):
    """A two-layer CNN, whose memory the tutorial compares with the LSTM's."""
    layers = tf.keras.layers
    net = tf.keras.Sequential([layers.Reshape([28, 28, 1], input_shape=[784])])
    for channels in (32, 64):
        net.add(layers.Conv2D(channels, 5, padding='same', activation='relu'))
        net.add(layers.MaxPooling2D())
    for layer in (layers.Flatten(), layers.Dense(1024, 'relu'), layers.Dropout(0.5),
                  layers.Dense(10, 'softmax')):
        net.add(layer)
    net.compile('adam', 'categorical_crossentropy', ['accuracy'])
    return (lambda: net.train_on_batch(*mnist.train.next_batch(size['batch_size'])),
            net.test_on_batch)
