"""What is compared, by name.

Each is a function of the data and the size, as those of `tutorial.prepare`, and
returns as that does; the second function may be None.
"""
from bench import tutorial

# As the tables call them.
NAMES = {
    'script': 'train_lstm_mnist.py',
    'dynamic': 'train_lstm_mnist.py --dynamic_rnn',
    'quick': 'train_lstm_mnist.py --quick',
    'tutorial': "the tutorial's graph",
    'torch': 'PyTorch nn.LSTM',
    'products': 'the matrix products alone',
    'cnn': 'a two-layer CNN',
}


def prepare(name, mnist, size):
    """Prepares what is named so: a key of `NAMES`."""
    if name == 'torch':
        from bench import pytorch
        return pytorch.prepare(mnist, size)
    return {'script': script, 'dynamic': dynamic, 'tutorial': tutorial.prepare,
            'products': products, 'cnn': cnn}[name](mnist, size)


def script(mnist, size, dynamic_rnn=False):
    """The step as `python train_lstm_mnist.py` takes it, without its notes."""
    import tensorflow as tf

    import model
    from training import device, divergence
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    device.share_cores(config, dynamic_rnn)
    sess = tf.Session(config=config)
    m = model.build(1e-3, size['hidden_size'], size['layer_num'], dynamic_rnn)
    watched = [m.cross_entropy, divergence.weights_sum(m.train_op)]
    sess.run(tf.global_variables_initializer())

    def step():
        images, labels = mnist.train.next_batch(size['batch_size'])
        sess.run([m.train_op, watched], {
            m.images: images, m.y: labels, m.keep_prob: 0.5,
            m.batch_size: size['batch_size']})

    def predict():
        sess.run(m.accuracy, {
            m.images: mnist.test.images, m.y: mnist.test.labels,
            m.keep_prob: 1.0, m.batch_size: mnist.test.num_examples})

    return step, predict


def dynamic(mnist, size):
    """The same with --dynamic_rnn."""
    return script(mnist, size, dynamic_rnn=True)


def products(mnist, size):
    """A step's matrix products, none of which waits for another.

    At each of 28 rows a layer's kernel takes one forward, one for the gradient
    of its inputs and one for that of the kernel.
    """
    import tensorflow as tf

    from training import device
    n, hidden = size['batch_size'], size['hidden_size']
    config = tf.ConfigProto()
    device.share_cores(config)
    # TensorFlow would do products that are the same once.
    config.graph_options.optimizer_options.opt_level = -1
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    sess = tf.Session(config=config)
    done = []
    for layer in range(size['layer_num']):
        width = (hidden if layer else 28) + hidden
        inputs, kernel, transposed, gates = (
            tf.Variable(tf.random_normal(shape)) for shape in (
                [n, width], [width, 4 * hidden], [4 * hidden, width],
                [n, 4 * hidden]))
        for _ in range(28):
            done += [tf.matmul(inputs, kernel), tf.matmul(gates, transposed),
                     tf.matmul(inputs, gates, transpose_a=True)]
    run = tf.group(*done)
    sess.run(tf.global_variables_initializer())
    return (lambda: sess.run(run)), None


def cnn(mnist, size):
    """The two-layer CNN that such tutorials have beside the LSTM."""
    import tensorflow as tf
    keep_prob = tf.placeholder(tf.float32, [])
    _X = tf.placeholder(tf.float32, [None, 784])
    y = tf.placeholder(tf.float32, [None, 10])

    def conv_and_pool(images, channels):
        conv = tf.layers.conv2d(images, channels, 5, padding='same',
                                activation=tf.nn.relu)
        return tf.layers.max_pooling2d(conv, 2, 2)

    pooled = conv_and_pool(tf.reshape(_X, [-1, 28, 28, 1]), 32)
    pooled = tf.layers.flatten(conv_and_pool(pooled, 64))
    dense = tf.layers.dense(pooled, 1024, activation=tf.nn.relu)
    logits = tf.layers.dense(tf.nn.dropout(dense, keep_prob), 10)
    loss = tf.losses.softmax_cross_entropy(y, logits)
    train_op = tf.train.AdamOptimizer(1e-4).minimize(loss)
    accuracy = tf.reduce_mean(tf.cast(tf.equal(
        tf.argmax(logits, 1), tf.argmax(y, 1)), tf.float32))
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())

    def step():
        images, labels = mnist.train.next_batch(size['batch_size'])
        sess.run(train_op, {_X: images, y: labels, keep_prob: 0.5})

    def predict():
        sess.run(accuracy, {_X: mnist.test.images, y: mnist.test.labels,
                            keep_prob: 1.0})

    return step, predict
