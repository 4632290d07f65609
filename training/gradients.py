"""A cell's gradients: the same as TensorFlow's, computed in less time.

`with fast():` is put around the calls of LSTM cells; the graph that they make
is the same, and these gradients take the place of TensorFlow's for them.
"""
import tensorflow as tf

# What `minimize` is to wait for. As an optimizer does it by itself, a row's
# gradient would have to wait until that of the kernel is done at the row after
# it.
GATE = tf.train.Optimizer.GATE_GRAPH


def fast():
    """Returns a context manager in which a cell's operations have our gradients.

    The cells must be LSTM cells: a `tf.matmul(tf.concat([x, h], 1), kernel)`
    for the four gates, and no other product or concatenation.
    """
    return tf.get_default_graph().gradient_override_map(
        {'MatMul': 'KernelMatMul', 'ConcatV2': 'KernelConcat'})


@tf.RegisterGradient('KernelMatMul')
def kernel_matmul(op, grad):
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
        is a `tf.concat` of those of x and h, for `kernel_concat`.
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
def kernel_concat(op, grad):
    """The gradient of the `tf.concat([x, h], 1)` before that product.

    It hands on what was put together for it, so that nothing is, and the first
    layer's gradient with respect to x, which nobody asks for, is not made.

    Args:
        op: the ConcatV2, of x [n, in], h [n, hidden] and the axis.
        grad: float32 [n, in + hidden], of `kernel_matmul`.

    Returns:
        Those with respect to x, h and the axis, which has none.
    """
    x, h, _ = grad.op.inputs
    return x, h, None
