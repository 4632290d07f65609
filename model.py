"""The graph: an LSTM reads an MNIST digit one row of 28 pixels at a time.

After the 28th row a softmax layer names the digit from what the last layer
put out. Names are the tutorial's: `_X`, `y`, `batch_size`, `keep_prob`,
`lstm_cell`, `mlstm_cell`, `init_state`, `outputs`, `h_state`, `W`, `bias`,
`y_pre`, `cross_entropy`, `train_op`, `correct_prediction`, `accuracy`.
"""
import collections

import tensorflow as tf
from tensorflow.contrib import rnn

input_size = 28      # pixels in a row: what the network is fed at each step
timestep_size = 28   # rows in an image: how many steps it is fed
class_num = 10

Model = collections.namedtuple('Model', [
    'images', 'y', 'batch_size', 'keep_prob', 'init_state', 'outputs', 'state',
    'h_state', 'W', 'bias', 'logits', 'y_pre', 'cross_entropy', 'train_op',
    'weights_sum', 'correct_prediction', 'accuracy', 'averages'])


def build(lr=1e-3, hidden_size=256, layer_num=2, dynamic_rnn=False,
          ema_decay=0.0, distribute=lambda optimizer: optimizer):
    """Adds the tutorial's graph to the default graph.

    Args:
        lr: float, Adam's learning rate.
        hidden_size: int, units of each LSTM layer.
        layer_num: int, LSTM layers; 1 gives the single-layer LSTM.
        dynamic_rnn: bool, unroll with `tf.nn.dynamic_rnn` instead of by hand.
            Variables, checkpoints and outputs are the same.
        ema_decay: float in [0, 1), the share of the averaged weights that a
            step leaves as it was; 0 keeps no averages.
        distribute: makes of the optimizer one whose gradients are the mean of
            several workers', as `hvd.DistributedOptimizer` does.

    Returns:
        A `Model`, whose fields are tensors; n is the number of images fed.
            images: placeholder, float32 [n, 784], pixels in [0, 1]; the
                tutorial's `_X`.
            y: placeholder, float32 [n, 10], one-hot labels.
            batch_size: placeholder, int32 [], must be fed n.
            keep_prob: placeholder, float32 [], 1 switches dropout off.
            init_state: a tuple of `layer_num` LSTMStateTuples (c, h), each
                float32 [n, hidden_size], all zero.
            outputs: a list of 28, float32 [n, hidden_size]: what the last
                layer puts out, after dropout, when it has read each row.
            state: as init_state, after the last row.
            h_state: float32 [n, hidden_size], the last of outputs.
            W: variable, float32 [hidden_size, 10].
            bias: variable, float32 [10].
            logits: float32 [n, 10].
            y_pre: float32 [n, 10], the classes' probabilities.
            cross_entropy: float32 [], the loss.
            train_op: operation, one step of Adam, which counts it in
                `tf.train.get_global_step()` (int64 []).
            weights_sum: float32 [], after a step of Adam: NaN or infinite when
                a weight is.
            correct_prediction: bool [n].
            accuracy: float32 [], the share of correct predictions.
            averages: a dict from the tensor that the graph reads a weight from
                to the variable with that weight's moving average; empty
                without ema_decay. Feed it, evaluated, to use the averages.
    """
    # The tutorial's step 1: hyper-parameters and placeholders.
    batch_size = tf.placeholder(tf.int32, [], name='batch_size')
    keep_prob = tf.placeholder(tf.float32, [], name='keep_prob')
    _X = tf.placeholder(tf.float32, [None, 784], name='images')
    y = tf.placeholder(tf.float32, [None, class_num], name='y')

    # Step 2: the LSTM.
    init_state, outputs, state = mlstm(_X, batch_size, keep_prob, hidden_size,
                                       layer_num, dynamic_rnn)
    h_state = outputs[-1]

    # Step 3: the softmax head, the loss and the optimizer.
    W, bias = softmax_weights(hidden_size)
    logits = tf.add(tf.matmul(h_state, W), bias, name='logits')
    y_pre = tf.nn.softmax(logits, name='y_pre')
    cross_entropy = mean_cross_entropy(logits, y)
    global_step = tf.train.get_or_create_global_step()
    # As the optimizer does it by itself, a row's gradient would have to wait
    # until that of the kernel is done at the row after it.
    train_op = distribute(tf.train.AdamOptimizer(lr)).minimize(
        cross_entropy, global_step=global_step, name='train_op',
        gate_gradients=tf.train.AdamOptimizer.GATE_GRAPH)
    with tf.name_scope('weights'), tf.control_dependencies([train_op]):
        weights_sum = tf.add_n([tf.reduce_sum(weight.read_value())
                                for weight in tf.trainable_variables()])
    correct_prediction = tf.equal(tf.argmax(y_pre, 1), tf.argmax(y, 1),
                                  name='correct_prediction')
    accuracy = tf.reduce_mean(tf.cast(correct_prediction, tf.float32),
                              name='accuracy')

    averages = {}
    if ema_decay:
        weights = tf.trainable_variables()
        # The step count lets the first averages, of few steps, forget faster:
        # a step leaves min(ema_decay, (1 + step) / (10 + step)) as it was.
        ema = tf.train.ExponentialMovingAverage(ema_decay, global_step)
        with tf.name_scope('averages'), tf.control_dependencies([train_op]):
            train_op = ema.apply(weights)
        averages = {weight.value(): ema.average(weight) for weight in weights}
    return Model(_X, y, batch_size, keep_prob, init_state, outputs, state,
                 h_state, W, bias, logits, y_pre, cross_entropy, train_op,
                 weights_sum, correct_prediction, accuracy, averages)


def mlstm(_X, batch_size, keep_prob, hidden_size, layer_num, dynamic_rnn):
    """The tutorial's step 2: images go through the layers row by row.

    Args:
        _X: float32 [n, 784].
        batch_size: int32 [] tensor, n.
        keep_prob: float32 [] tensor, or the number 1.0 for no dropout.
        hidden_size, layer_num, dynamic_rnn: as for `build`.

    Returns:
        init_state, outputs, state: as in `build`'s `Model`.
    """
    X = tf.reshape(_X, [-1, timestep_size, input_size], name='X')
    # One cell object a layer: with the tutorial's `[lstm_cell] * layer_num`
    # both layers would own one kernel, and their inputs differ in width.
    mlstm_cell = rnn.MultiRNNCell(
        [lstm_cell(hidden_size, keep_prob) for _ in range(layer_num)],
        state_is_tuple=True)
    init_state = mlstm_cell.zero_state(batch_size, dtype=tf.float32)
    unroll = unroll_dynamic if dynamic_rnn else unroll_by_hand
    outputs, state = unroll(mlstm_cell, X, init_state)
    return init_state, outputs, state


def lstm_cell(hidden_size, keep_prob):
    """Returns one layer: an LSTM cell with dropout on what it puts out.

    The dropped output goes up to the next layer; the state (c, h) that goes
    on to the next row is left whole (Zaremba et al. 2014, arXiv:1409.2329).

    Args:
        hidden_size: int, units.
        keep_prob: float32 [] tensor in (0, 1], the chance of keeping a unit;
            a kept one is divided by it. The number 1.0 leaves dropout out.

    Returns:
        An `RNNCell`: ([n, in], (c, h)) -> ([n, hidden_size], (c, h)), with
        kernel [in + hidden_size, 4 * hidden_size], whose columns are the
        gates i, j, f, o, and bias [4 * hidden_size], all float32.
    """
    cell = rnn.BasicLSTMCell(num_units=hidden_size, forget_bias=1.0,
                             state_is_tuple=True)
    return rnn.DropoutWrapper(cell=cell, input_keep_prob=1.0,
                              output_keep_prob=keep_prob)


def unroll_by_hand(mlstm_cell, X, init_state):
    """Feeds the rows to the cell one after the other, as the tutorial does.

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
    with tf.variable_scope('RNN'), tf.get_default_graph().gradient_override_map(
            {'MatMul': 'KernelMatMul', 'ConcatV2': 'KernelConcat'}):
        for timestep in range(timestep_size):
            if timestep > 0:
                tf.get_variable_scope().reuse_variables()
            (cell_output, state) = mlstm_cell(X[:, timestep, :], state)
            outputs.append(cell_output)
    return outputs, state


@tf.RegisterGradient('KernelMatMul')
def kernel_matmul_gradient(op, grad):
    """The gradient of a cell's `tf.matmul(tf.concat([x, h], 1), kernel)`.

    To TensorFlow it is `tf.matmul(grad, kernel, transpose_b=True)`, which
    takes a CPU about three times as long as the same product with a matrix
    that was transposed before. Each row asks for that matrix here, and
    TensorFlow makes it once a step, since it merges operations that are the
    same.

    Args:
        op: the MatMul, of [n, in + hidden] and the kernel
            [in + hidden, 4 * hidden].
        grad: float32 [n, 4 * hidden], the loss's gradient with respect to its
            product.

    Returns:
        Those with respect to inputs and kernel, shaped as they are. The first
        is a `tf.concat` of those of x and h, for `kernel_concat_gradient`.
    """
    inputs, kernel = op.inputs
    hidden_size = kernel.shape[1].value // 4

    def transposed(part):
        # By way of [4, hidden, in], as TensorFlow would see through a
        # transposed matrix and put it back into the product.
        return tf.reshape(
            tf.transpose(tf.reshape(part, [-1, 4, hidden_size]), [1, 2, 0]),
            [4 * hidden_size, -1])

    return (tf.concat([tf.matmul(grad, transposed(kernel[:-hidden_size])),
                       tf.matmul(grad, transposed(kernel[-hidden_size:]))], 1),
            tf.matmul(inputs, grad, transpose_a=True))


@tf.RegisterGradient('KernelConcat')
def kernel_concat_gradient(op, grad):
    """The gradient of the `tf.concat([x, h], 1)` before that product.

    It hands on what was put together for it, so that nothing is, and the first
    layer's gradient with respect to x, which nobody asks for, is not made.

    Args:
        op: the ConcatV2, of x [n, in], h [n, hidden] and the axis.
        grad: float32 [n, in + hidden], of `kernel_matmul_gradient`.

    Returns:
        Those with respect to x, h and the axis, which has none.
    """
    x, h, _ = grad.op.inputs
    return x, h, None


def unroll_dynamic(mlstm_cell, X, init_state):
    """The same as `unroll_by_hand` with one cell in a `tf.while_loop`.

    `tf.nn.dynamic_rnn` gives its outputs as one tensor
    [n, 28, hidden_size]; they come back as the list that the other gives.
    """
    # Every row takes its dropout from the same random operation; were several
    # rows under way at once, a seed would not say which of them drew first.
    outputs, state = tf.nn.dynamic_rnn(mlstm_cell, inputs=X,
                                       initial_state=init_state,
                                       time_major=False, scope='RNN',
                                       parallel_iterations=1)
    return tf.unstack(outputs, num=timestep_size, axis=1), state


def softmax_weights(hidden_size):
    """Returns the variables of the softmax head.

    W: float32 [hidden_size, 10]; bias: float32 [10].
    """
    W = tf.Variable(tf.truncated_normal([hidden_size, class_num], stddev=0.1),
                    dtype=tf.float32, name='W')
    bias = tf.Variable(tf.constant(0.1, shape=[class_num]), dtype=tf.float32,
                       name='bias')
    return W, bias


def mean_cross_entropy(logits, y):
    """The tutorial's loss, `-mean(y * log(softmax(logits)))`.

    The mean is over images AND classes: a tenth of the usual cross entropy.
    Taken from the logits, since the log of a softmax that has rounded to 0 is
    -inf, and 0 * -inf, which the formula then adds for the wrong classes, NaN.

    Args:
        logits: float [n, classes].
        y: one-hot labels, of logits' dtype and shape.

    Returns:
        A scalar of logits' dtype.
    """
    return tf.reduce_mean(-y * tf.nn.log_softmax(logits), name='cross_entropy')


def build_export(hidden_size=256, layer_num=2, dynamic_rnn=False):
    """Adds the graph that a trained network is used with: no dropout, no loss.

    Its variables are named as the weights of `build`, and hold them once they
    are restored from its checkpoint.

    Args:
        hidden_size, layer_num, dynamic_rnn: as for `build`.

    Returns:
        images: placeholder, float32 [n, 784], pixels in [0, 1].
        rows: float32 [n, 28, 10], the classes' probabilities as the softmax
            head sees them after each row; the last are the network's answer.
    """
    images = tf.placeholder(tf.float32, [None, 784], name='images')
    _, outputs, _ = mlstm(images, tf.shape(images)[0], 1.0, hidden_size,
                          layer_num, dynamic_rnn)
    W, bias = softmax_weights(hidden_size)
    rows = tf.stack([tf.nn.softmax(tf.matmul(output, W) + bias)
                     for output in outputs], axis=1, name='rows')
    return images, rows
