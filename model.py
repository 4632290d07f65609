"""The graph: an LSTM reads an MNIST digit one row of 28 pixels at a time.

After the 28th row a softmax layer names the digit from the output of the last
layer. The three parts are the tutorial's three steps, and the names are the
tutorial's: `_X`, `y`, `batch_size`, `keep_prob`, `lstm_cell`, `mlstm_cell`,
`init_state`, `outputs`, `h_state`, `W`, `bias`, `y_pre`, `cross_entropy`,
`train_op`, `correct_prediction`, `accuracy`.
"""
import collections
import types

import tensorflow as tf
from tensorflow.contrib import rnn

from training import gradients


class Sizes(collections.namedtuple('Sizes', 'timestep_size input_size class_num')):
    """The sizes of the data, named as in the tutorial.

    timestep_size: rows in an image: the number of timesteps; MNIST's are 28.
    input_size: pixels in a row: the input at each timestep; MNIST's are 28.
    class_num: the number of classes; MNIST's are 10.
    """


MNIST_SIZES = Sizes(timestep_size=28, input_size=28, class_num=10)


class Model(types.SimpleNamespace):
    """The tensors of the graph; n is the number of images that are fed.

    The shapes are those for MNIST: 784 is timestep_size * input_size, 28 is
    timestep_size, and 10 is class_num.

    _X: placeholder, float32 [n, 784], pixels in [0, 1].
    y: placeholder, float32 [n, 10], one-hot labels.
    batch_size: placeholder, int32 [], must be fed n.
    keep_prob: placeholder, float32 [], 1 switches dropout off.
    init_state: a tuple of `layer_num` LSTMStateTuples (c, h), each float32
        [n, hidden_size], all zero.
    outputs: a list of 28, float32 [n, hidden_size]: the output of the last layer,
        after dropout, at each row.
    state: as init_state, after the last row.
    h_state: float32 [n, hidden_size], the last of outputs.
    W: variable, float32 [hidden_size, 10].
    bias: variable, float32 [10].
    logits: float32 [n, 10].
    y_pre: float32 [n, 10], the classes' probabilities.
    cross_entropy: float32 [], the loss.
    train_op: operation, one step of Adam, which adds 1 to
        `tf.train.get_global_step()` (int64 []).
    correct_prediction: bool [n].
    accuracy: float32 [], the share of correct predictions.
    """


# 1. The hyper-parameters and the placeholders. The values of lr, hidden_size and
#    layer_num are in `parse_flags` of train_lstm_mnist.py; `build` takes them.
#    The others come from the data:
#    input_size      pixels in a row: the input at each timestep, 28
#    timestep_size   rows in an image: the number of timesteps, 28
#    class_num       10

def placeholders(timestep_size, input_size, class_num):
    """Return the placeholders _X, y, batch_size and keep_prob; see `Model`."""
    batch_size = tf.placeholder(tf.int32, [], name='batch_size')
    keep_prob = tf.placeholder(tf.float32, [], name='keep_prob')
    # A name in TensorFlow's graph cannot begin with _.
    _X = tf.placeholder(tf.float32, [None, timestep_size * input_size], name='images')
    y = tf.placeholder(tf.float32, [None, class_num], name='y')
    return _X, y, batch_size, keep_prob


# 2. The LSTM.

def as_rows(_X, timestep_size, input_size):
    """Return images [n, 784] as rows, X, float32 [n, 28, 28]."""
    return tf.reshape(_X, [-1, timestep_size, input_size], name='X')


def lstm_cell(hidden_size, keep_prob):
    """Return one layer: an LSTM cell with dropout on its output.

    The output goes up to the next layer. The state (c, h), which goes on to the
    next row, has no dropout (Zaremba et al. 2014, arXiv:1409.2329).

    Args:
        hidden_size: int, units.
        keep_prob: float32 [] tensor in (0, 1], the chance of keeping a unit; a
            unit that is kept is divided by it. The number 1.0 means no dropout.

    Returns:
        An `RNNCell`: ([n, in], (c, h)) -> ([n, hidden_size], (c, h)), with
        kernel [in + hidden_size, 4 * hidden_size], whose columns are the
        gates i, j, f, o, and bias [4 * hidden_size], all float32.
    """
    cell = rnn.BasicLSTMCell(num_units=hidden_size, forget_bias=1.0,
                             state_is_tuple=True)
    return rnn.DropoutWrapper(cell=cell, input_keep_prob=1.0,
                              output_keep_prob=keep_prob)


def mlstm(X, batch_size, keep_prob, hidden_size, layer_num, dynamic_rnn):
    """Feed images to the layers, row by row.

    Args:
        X: float32 [n, 28, 28], rows first.
        batch_size: int32 [] tensor, n.
        keep_prob: float32 [] tensor, or the number 1.0 for no dropout.
        hidden_size, layer_num, dynamic_rnn: as for `build`.

    Returns:
        init_state, outputs, state: as in `Model`.
    """
    # One cell object for each layer. With the tutorial's `[lstm_cell] * layer_num`
    # both layers would share one kernel, and their inputs differ in width.
    mlstm_cell = rnn.MultiRNNCell(
        [lstm_cell(hidden_size, keep_prob) for _ in range(layer_num)],
        state_is_tuple=True)
    init_state = mlstm_cell.zero_state(batch_size, dtype=tf.float32)
    if dynamic_rnn:
        outputs, state = unroll_dynamic(mlstm_cell, X, init_state)
    else:
        with gradients.fast():  # the same gradients in less time
            outputs, state = unroll_by_hand(mlstm_cell, X, init_state)
    return init_state, outputs, state


def unroll_by_hand(mlstm_cell, X, init_state):
    """Feed the rows to the cell one after the other, as the tutorial does.

    Args:
        mlstm_cell: `RNNCell` with outputs [n, hidden_size].
        X: float32 [n, 28, 28], rows first.
        init_state: the state before the first row.

    Returns:
        outputs, a list of 28 float32 [n, hidden_size]; and the state after
        the last row, shaped as init_state.
    """
    outputs = list()
    state = init_state
    timestep_size = X.shape[1]
    with tf.variable_scope('RNN'):
        for timestep in range(timestep_size):
            if timestep > 0:
                tf.get_variable_scope().reuse_variables()
            (cell_output, state) = mlstm_cell(X[:, timestep, :], state)
            outputs.append(cell_output)
    return outputs, state


def unroll_dynamic(mlstm_cell, X, init_state):
    """Do the same as `unroll_by_hand` with one cell in a `tf.while_loop`.

    `tf.nn.dynamic_rnn` returns its outputs as one tensor [n, 28, hidden_size]; here
    they become the same list of 28.
    """
    # One random operation draws the dropout of all rows. If two rows ran at once,
    # the seed would not decide which of them draws first.
    with tf.device(loop_condition_on_cpu):
        outputs, state = tf.nn.dynamic_rnn(mlstm_cell, inputs=X,
                                           initial_state=init_state,
                                           time_major=False, scope='RNN',
                                           parallel_iterations=1)
    return tf.unstack(outputs, axis=1), state


def loop_condition_on_cpu(op):
    """Return the device of an operation in the loop of `tf.nn.dynamic_rnn`.

    TensorFlow counts the rows on the CPU. A LogicalAnd on the GPU would copy the count
    there and the answer back at each row.
    """
    return '/cpu:0' if op.type == 'LogicalAnd' else ''


# 3. The softmax head, the loss and the optimizer.

def softmax_weights(hidden_size, class_num):
    """Return W, float32 [hidden_size, 10], and bias, float32 [10], variables."""
    W = tf.Variable(tf.truncated_normal([hidden_size, class_num], stddev=0.1),
                    dtype=tf.float32, name='W')
    bias = tf.Variable(tf.constant(0.1, shape=[class_num]), dtype=tf.float32,
                       name='bias')
    return W, bias


def mean_cross_entropy(logits, y):
    """Return the tutorial's loss, `-mean(y * log(softmax(logits)))`.

    The mean is over images AND classes: a tenth of the usual cross entropy. It is
    computed from the logits, because the formula gives NaN, 0 * -inf, for a wrong
    class whose softmax is rounded to 0.

    Args:
        logits: float [n, classes].
        y: one-hot labels, of logits' dtype and shape.

    Returns:
        A scalar of logits' dtype.
    """
    return tf.reduce_mean(-y * tf.nn.log_softmax(logits), name='cross_entropy')


def learning_rate(lr, lr_schedule, steps):
    """Return the learning rate for `build`: a float, or a float32 [] tensor.

    Args:
        lr: float, above 0.
        lr_schedule: 'constant', or 'linear': the tensor follows the global step and
            is, at step s of N, lr * min(1, s / max(1, N / 10)) * (1 - (s - 1) / N).
        steps: int, N.
    """
    if lr_schedule == 'constant':
        return lr
    done = tf.train.get_or_create_global_step()
    rise = tf.cast(done + 1, tf.float32) / max(1, 0.1 * steps)
    return tf.minimum(1.0, rise) * tf.train.polynomial_decay(
        lr, done, steps, end_learning_rate=0.0)


def build(lr, hidden_size, layer_num, dynamic_rnn=False, sizes=MNIST_SIZES,
          distribute=lambda optimizer: optimizer):
    """Add the tutorial's graph to the default graph.

    Args:
        lr: float or float32 [] tensor, Adam's learning rate.
        hidden_size: int, units of each LSTM layer.
        layer_num: int, LSTM layers; 1 gives the single-layer LSTM.
        dynamic_rnn: bool, unroll with `tf.nn.dynamic_rnn` instead of by hand.
            Variables, checkpoints and outputs are the same.
        sizes: `Sizes`, those of the data.
        distribute: function from the optimizer to one that several workers share,
            such as `hvd.DistributedOptimizer`.

    Returns:
        A `Model`.
    """
    timestep_size, input_size, class_num = sizes
    _X, y, batch_size, keep_prob = placeholders(timestep_size, input_size, class_num)
    X = as_rows(_X, timestep_size, input_size)
    init_state, outputs, state = mlstm(X, batch_size, keep_prob, hidden_size, layer_num,
                                       dynamic_rnn)
    h_state = outputs[-1]

    W, bias = softmax_weights(hidden_size, class_num)
    logits = tf.add(tf.matmul(h_state, W), bias, name='logits')
    y_pre = tf.nn.softmax(logits, name='y_pre')
    cross_entropy = mean_cross_entropy(logits, y)
    # The tutorial's line is tf.train.AdamOptimizer(lr).minimize(cross_entropy). Several
    # workers share the optimizer, global_step is the step of a checkpoint, and
    # gate_gradients is for speed.
    optimizer = distribute(tf.train.AdamOptimizer(lr))
    train_op = optimizer.minimize(
        cross_entropy, global_step=tf.train.get_or_create_global_step(),
        gate_gradients=gradients.GATE, name='train_op')
    correct_prediction = tf.equal(tf.argmax(y_pre, 1), tf.argmax(y, 1),
                                  name='correct_prediction')
    accuracy = tf.reduce_mean(tf.cast(correct_prediction, tf.float32),
                              name='accuracy')
    return Model(_X=_X, y=y, batch_size=batch_size, keep_prob=keep_prob,
                 init_state=init_state, outputs=outputs, state=state,
                 h_state=h_state, W=W, bias=bias, logits=logits, y_pre=y_pre,
                 cross_entropy=cross_entropy, train_op=train_op,
                 correct_prediction=correct_prediction, accuracy=accuracy)


def build_export(hidden_size, layer_num, dynamic_rnn=False, sizes=MNIST_SIZES):
    """Add the graph of a trained network: no dropout, no loss.

    Its variables have the names of the weights of `build`, so they can be restored
    from its checkpoints.

    Args:
        hidden_size, layer_num, dynamic_rnn, sizes: as for `build`.

    Returns:
        images: placeholder, float32 [n, 784], pixels in [0, 1].
        rows: float32 [n, 28, 10], the classes' probabilities after each row; the
            last are the network's answer.
    """
    timestep_size, input_size, class_num = sizes
    images = tf.placeholder(tf.float32, [None, timestep_size * input_size],
                            name='images')
    X = as_rows(images, timestep_size, input_size)
    _, outputs, _ = mlstm(X, tf.shape(images)[0], 1.0, hidden_size,
                          layer_num, dynamic_rnn)
    W, bias = softmax_weights(hidden_size, class_num)
    rows = tf.stack([tf.nn.softmax(tf.matmul(output, W) + bias)
                     for output in outputs], axis=1, name='rows')
    return images, rows
