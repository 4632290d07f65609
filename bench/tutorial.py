"""The tutorial, as it stands but for one cell a layer and `print()`."""


def prepare(mnist, size, job=False):
    """Builds the tutorial's graph.

    Args:
        mnist: the data, as TensorFlow's reader gives it.
        size: a dict with hidden_size, layer_num, batch_size, and with `job`
            steps.
        job: bool, whether to run it to its end and print what it prints.

    Returns:
        A function that does one step, and one that names all test images at
        once.
    """
    import tensorflow as tf
    from tensorflow.contrib import rnn

    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    sess = tf.Session(config=config)

    lr = 1e-3
    batch_size = tf.placeholder(tf.int32, [])
    keep_prob = tf.placeholder(tf.float32, [])
    timestep_size = 28
    hidden_size = size['hidden_size']
    layer_num = size['layer_num']
    class_num = 10
    _X = tf.placeholder(tf.float32, [None, 784])
    y = tf.placeholder(tf.float32, [None, class_num])

    X = tf.reshape(_X, [-1, 28, 28])

    def lstm_cell():
        cell = rnn.BasicLSTMCell(num_units=hidden_size, forget_bias=1.0,
                                 state_is_tuple=True)
        return rnn.DropoutWrapper(cell=cell, input_keep_prob=1.0,
                                  output_keep_prob=keep_prob)

    mlstm_cell = rnn.MultiRNNCell([lstm_cell() for _ in range(layer_num)],
                                  state_is_tuple=True)
    state = mlstm_cell.zero_state(batch_size, dtype=tf.float32)
    outputs = list()
    with tf.variable_scope('RNN'):
        for timestep in range(timestep_size):
            if timestep > 0:
                tf.get_variable_scope().reuse_variables()
            (cell_output, state) = mlstm_cell(X[:, timestep, :], state)
            outputs.append(cell_output)
    h_state = outputs[-1]

    W = tf.Variable(tf.truncated_normal([hidden_size, class_num], stddev=0.1),
                    dtype=tf.float32)
    bias = tf.Variable(tf.constant(0.1, shape=[class_num]), dtype=tf.float32)
    y_pre = tf.nn.softmax(tf.matmul(h_state, W) + bias)
    cross_entropy = -tf.reduce_mean(y * tf.log(y_pre))
    train_op = tf.train.AdamOptimizer(lr).minimize(cross_entropy)
    correct_prediction = tf.equal(tf.argmax(y_pre, 1), tf.argmax(y, 1))
    accuracy = tf.reduce_mean(tf.cast(correct_prediction, 'float'))
    sess.run(tf.global_variables_initializer())

    def step():
        batch = mnist.train.next_batch(size['batch_size'])
        sess.run(train_op, feed_dict={
            _X: batch[0], y: batch[1], keep_prob: 0.5,
            batch_size: size['batch_size']})
        return batch

    def predict():
        return sess.run(accuracy, feed_dict={
            _X: mnist.test.images, y: mnist.test.labels, keep_prob: 1.0,
            batch_size: mnist.test.images.shape[0]})

    if job:
        print(mnist.train.images.shape)
        for i in range(size['steps']):
            batch = step()
            if (i + 1) % 200 == 0:
                train_accuracy = sess.run(accuracy, feed_dict={
                    _X: batch[0], y: batch[1], keep_prob: 1.0,
                    batch_size: size['batch_size']})
                print('Iter%d, step %d, training accuracy %g' % (
                    mnist.train.epochs_completed, i + 1, train_accuracy))
        print('test accuracy %g' % predict())
    return step, predict
