"""A cell's gradients: the same as TensorFlow's, computed in less time.

`with fast():` is put around the calls of an RNN cell. The graph that they make
is the same, and for its operations these gradients take the place of
TensorFlow's where they fit: for the product of a kernel with what `tf.concat`
joined of the input and the state, and for products and sums that are taken
element by element. TensorFlow's own serve for all else. Numbers are real.
"""
import tensorflow as tf
from tensorflow.python.framework import ops

# What `minimize` is to wait for. As an optimizer does it by itself, a row's
# gradient would have to wait until that of the kernel is done at the row after
# it.
GATE = tf.train.Optimizer.GATE_GRAPH


def fast():
    """Returns a context manager in which operations have our gradients.

    Not for what is called in a `tf.while_loop`, as by `tf.nn.dynamic_rnn`.
    """
    return tf.get_default_graph().gradient_override_map({
        'MatMul': 'CellMatMul', 'ConcatV2': 'CellConcat', 'Mul': 'CellMul',
        'Add': 'CellAdd'})


def _tensorflows(op, grad):
    return ops._gradient_registry.lookup(op.type)(op, grad)


@tf.RegisterGradient('CellMatMul')
def cell_matmul(op, grad):
    """The gradient of a cell's `tf.matmul(tf.concat([x, h], 1), kernel)`.

    To TensorFlow it is `tf.matmul(grad, kernel, transpose_b=True)`, which
    takes a CPU about three times as long as the same product with a matrix
    that was transposed before. Here a step transposes each kernel once.

    Args:
        op: the MatMul, of [n, in + hidden] and the kernel
            [in + hidden, gates * hidden].
        grad: float [n, gates * hidden], the loss's gradient with respect to
            its product.

    Returns:
        Those with respect to inputs and kernel, shaped as they are. The first
        is a `tf.concat` of those of x and h, for `cell_concat`.
    """
    inputs, kernel = op.inputs
    widths = _widths(inputs.op)
    if (len(widths) != 2 or None in widths or sum(widths) != kernel.shape[0]
            or op.get_attr('transpose_b')):
        return _tensorflows(op, grad)
    return (tf.concat([tf.matmul(grad, part)
                       for part in _transposed(kernel, widths[0])], 1),
            tf.matmul(inputs, grad, transpose_a=True))


def _widths(op):
    """Returns those of the matrices that a ConcatV2 joins; [] for another op."""
    if op.type != 'ConcatV2':
        return []
    *parts, _ = op.inputs
    return [part.shape[1].value for part in parts if part.shape.ndims == 2]


def _transposed(kernel, width):
    """Returns a kernel's first rows and the others, each transposed.

    They are made once for a graph, which keeps them.
    """
    made = vars(kernel.graph).setdefault('transposed_kernels', {})
    if kernel not in made:
        made[kernel] = [_transpose(kernel[:width]), _transpose(kernel[width:])]
    return made[kernel]


def _transpose(part):
    # By way of [1, columns, rows], as TensorFlow would see through a transposed
    # matrix and put it back into the product.
    rows, columns = part.shape
    return tf.reshape(tf.transpose(tf.reshape(part, [rows, 1, columns]),
                                   [1, 2, 0]), [columns, rows])


@tf.RegisterGradient('CellConcat')
def cell_concat(op, grad):
    """The gradient of the `tf.concat([x, h], 1)` before that product.

    It hands on what was put together for it, so that nothing is, and the first
    layer's gradient with respect to x, which nobody asks for, is not made.

    Args:
        op: the ConcatV2, of x [n, in], h [n, hidden] and the axis.
        grad: float [n, in + hidden], of `cell_matmul`.

    Returns:
        Those with respect to x, h and the axis, which has none.
    """
    if not _widths(op) or _widths(grad.op) != _widths(op):
        return _tensorflows(op, grad)
    *parts, _ = grad.op.inputs
    return [*parts, None]


@tf.RegisterGradient('CellMul')
def cell_mul(op, grad):
    """The gradient of a product that is taken element by element.

    TensorFlow asks in each step whether one of the two was broadcast, and sums
    where it was. A cell's [n, hidden] are all of one n.

    Args:
        op: the Mul, of two [n, hidden], or of a tensor and a scalar.
        grad: float, shaped as the product.

    Returns:
        Those with respect to the two, shaped as they are.
    """
    x, y = op.inputs
    if _is_scalar(y):
        return grad * y, tf.reduce_sum(grad * x)
    if _are_alike(x, y):
        return grad * y, grad * x
    return _tensorflows(op, grad)


@tf.RegisterGradient('CellAdd')
def cell_add(op, grad):
    """The gradient of a sum that is taken element by element; see `cell_mul`."""
    x, y = op.inputs
    if _is_scalar(y):
        return grad, tf.reduce_sum(grad)
    if _are_alike(x, y):
        return grad, grad
    return _tensorflows(op, grad)


def _is_scalar(tensor):
    return tensor.shape.ndims == 0


def _are_alike(x, y):
    """Returns whether both are [n, hidden]."""
    return x.shape.ndims == 2 and x.shape.as_list() == y.shape.as_list()
