"""Compute the gradients of an RNN cell in less time.

Call the cell inside `with fast():`. Its operations then get the gradient functions
below, which give the same values. If the shapes do not fit, they call
TensorFlow's own. Complex types are not supported.
"""
import tensorflow as tf
from tensorflow.python.framework import ops

# For the `gate_gradients` of `minimize`. With the default, GATE_OP, the gradient of
# row t-1 waits for the kernel's gradient at row t.
GATE = tf.train.Optimizer.GATE_GRAPH

# Rows in one product for the kernel's gradient: the fastest of 4, 7, 10, 14 and 28 on
# two cores. With all 28, nothing would run beside the last product.
ROWS = 10


def fast():
    """Return a context manager in which operations get the gradients below.

    It does not work in a `tf.while_loop`, which `tf.nn.dynamic_rnn` builds.
    """
    return tf.get_default_graph().gradient_override_map({
        'MatMul': 'CellMatMul', 'ConcatV2': 'CellConcat', 'Mul': 'CellMul',
        'Add': 'CellAdd'})


def _default(op, grad):
    return ops._gradient_registry.lookup(op.type)(op, grad)


@tf.RegisterGradient('CellMatMul')
def cell_matmul(op, grad):
    """Return the gradients of `tf.matmul(tf.concat([x, h], 1), kernel)`.

    TensorFlow computes `tf.matmul(grad, kernel, transpose_b=True)`. On a CPU this
    takes about three times as long as a matmul with a transposed copy of the kernel.
    So make one copy per step. The kernel's gradient is a sum over the rows. Take `ROWS`
    of them in one product.

    op is a MatMul of [n, in + hidden] and the kernel [in + hidden, gates * hidden],
    grad float [n, gates * hidden]. `cell_concat` takes the first gradient apart.
    """
    inputs, kernel = op.inputs
    widths = _widths(inputs.op)
    if None in widths or sum(widths) != kernel.shape[0] or op.get_attr('transpose_b'):
        return _default(op, grad)
    return (tf.concat([tf.matmul(grad, part)
                       for part in _transposed(kernel, widths[0])], 1),
            _kernel_gradient(op, grad))


def _kernel_gradient(op, grad):
    """Return the kernel's gradient of the rows since the last product, None to wait.

    TensorFlow comes from the last row to the first. It adds what the rows return.
    """
    inputs, kernel = op.inputs
    graph = kernel.graph
    # The scope tells one call of tf.gradients from another.
    call = graph.get_name_scope()[:-len(op.name + '_grad')]
    waiting = vars(graph).setdefault('waiting_rows', {}).setdefault((call, kernel), [])
    waiting.append((inputs, grad))
    if len(waiting) < ROWS and _comes_after_another_row(op):
        return None
    rows, grads = zip(*waiting)
    del waiting[:]
    return tf.matmul(tf.concat(rows, 0), tf.concat(grads, 0), transpose_a=True)


def _comes_after_another_row(op):
    """Return whether h of the MatMul of a row is that of a BasicLSTMCell's row before.

    If so, a gradient that reaches this row reaches that one, too. A `tf.stop_gradient`
    on the way is no part of the cell.
    """
    tensors = [op.inputs[0].op.inputs[1]]
    for kind, inputs in (('Mul', slice(2)), ('Sigmoid', slice(1)),
                         ('Split', slice(1, 2)), ('BiasAdd', slice(1))):
        tensors = [tensor for one in tensors if one.op.type == kind
                   for tensor in list(one.op.inputs)[inputs]]
    return any(one.op.type == 'MatMul' and one.op.inputs[1] is op.inputs[1]
               for one in tensors)


def _widths(op):
    """Return the widths of the matrices that a ConcatV2 joins, [] for another op."""
    if op.type != 'ConcatV2':
        return []
    *parts, _ = op.inputs
    return [part.shape[1].value for part in parts if part.shape.ndims == 2]


def _transposed(kernel, width):
    """Return the kernels of x and h, both transposed; they are made once per graph."""
    made = vars(kernel.graph).setdefault('transposed_kernels', {})
    if kernel not in made:
        made[kernel] = [_transpose(kernel[:width]), _transpose(kernel[width:])]
    return made[kernel]


def _transpose(part):
    # TensorFlow would merge the transpose of a matrix into the matmul (transpose_b).
    # It does not see through one of [rows, 1, columns].
    rows, columns = part.shape
    return tf.reshape(tf.transpose(tf.reshape(part, [rows, 1, columns]),
                                   [1, 2, 0]), [columns, rows])


@tf.RegisterGradient('CellConcat')
def cell_concat(op, grad):
    """Return the gradients of the `tf.concat([x, h], 1)` before the matmul.

    Return the parts that `cell_matmul` already computed, so no concat runs. Nobody
    fetches the first layer's gradient of x, so it is not computed either.

    op is a ConcatV2 of x [n, in], h [n, hidden] and the axis, which has no gradient;
    grad is float [n, in + hidden].
    """
    if not _widths(op) or _widths(grad.op) != _widths(op):
        return _default(op, grad)
    *parts, _ = grad.op.inputs
    return [*parts, None]


@tf.RegisterGradient('CellMul')
def cell_mul(op, grad):
    """Return the gradients of the elementwise product x * y.

    TensorFlow checks in each step whether x or y was broadcast. The [n, hidden]
    tensors of a cell all have the same n, so they never are.
    """
    x, y = op.inputs
    if y.shape.ndims == 0:
        return grad * y, tf.reduce_sum(grad * x)
    if _same_shape(x, y):
        return grad * y, grad * x
    return _default(op, grad)


@tf.RegisterGradient('CellAdd')
def cell_add(op, grad):
    """Return the gradients of the elementwise sum x + y; see `cell_mul`."""
    x, y = op.inputs
    if y.shape.ndims == 0:
        return grad, tf.reduce_sum(grad)
    if _same_shape(x, y):
        return grad, grad
    return _default(op, grad)


def _same_shape(x, y):
    return x.shape.ndims == 2 and x.shape.as_list() == y.shape.as_list()
