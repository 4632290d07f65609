"""Compute the gradients of an RNN cell in less time.

Call the cell inside `with fast():`. Its operations then get the gradient functions
below, which give the same values. If the shapes do not fit, they call
TensorFlow's own. Complex types are not supported.
"""
import tensorflow as tf
from tensorflow.python.framework import ops

# For the `gate_gradients` of `minimize`. With the default, GATE_OP, the gradient of row
# t-1 waits for the kernel's gradient at row t, and products are not joined.
GATE = tf.train.Optimizer.GATE_GRAPH

# Rows in one product for the kernel's gradient: the fastest of 4, 7, 10, 14 and 28 on
# two cores. With all 28, nothing would run beside the last product.
ROWS = 10


def fast():
    """Return a context manager in which operations get the gradients below.

    Create the cells in it, too. In `tf.nn.dynamic_rnn`, it saves no time.
    """
    return tf.get_default_graph().gradient_override_map({
        'MatMul': 'CellMatMul', 'Identity': 'CellIdentity', 'ConcatV2': 'CellConcat',
        'Mul': 'CellMul', 'Add': 'CellAdd'})


def _default(op, grad):
    return ops._gradient_registry.lookup(op.type)(op, grad)


@tf.RegisterGradient('CellMatMul')
def cell_matmul(op, grad):
    """Return the gradients of `tf.matmul(tf.concat([x, h], 1), kernel)`.

    TensorFlow computes `tf.matmul(grad, kernel, transpose_b=True)`. On a CPU this takes
    three times as long as with a transposed copy of the kernel. So make one per step.

    op is a MatMul of [n, in + hidden] and the kernel [in + hidden, gates * hidden],
    grad float [n, gates * hidden]. `cell_concat` takes the first gradient apart.
    """
    inputs, kernel = op.inputs
    widths = _widths(inputs.op)
    if (not kernel.shape.is_fully_defined() or kernel.shape[0].value != sum(widths)
            or op.get_attr('transpose_a') or op.get_attr('transpose_b')
            or kernel.op._get_control_flow_context()):  # in a tf.while_loop
        return _default(op, grad)
    parts = [tf.matmul(grad, part) for part in _transposed(kernel, widths[0])]
    return tf.concat(parts, 1), tf.matmul(inputs, grad, transpose_a=True)


@tf.RegisterGradient('CellIdentity')
def cell_identity(op, grad):
    """Return the gradient of the Identity by which a cell reads its kernel.

    TensorFlow calls this once, after all rows, with the sum of their gradients. Join
    `ROWS` products of the sum into one: `a.T @ b + c.T @ d` is `[a; c].T @ [b; d]`.
    The joined products do not run.

    op is an Identity of any tensor; grad has its shape and dtype, or is IndexedSlices.
    """
    rest, products = [], []
    for term in _terms(grad) if isinstance(grad, tf.Tensor) else []:
        one = term.op
        (products if one.type == 'MatMul' and one.get_attr('transpose_a')
         and not one.get_attr('transpose_b') else rest).append(term)
    if len(products) < 2:
        return grad
    for first in range(0, len(products), ROWS):
        rows, grads = zip(*[one.op.inputs for one in products[first:first + ROWS]])
        rows, grads = tf.concat(rows, 0), tf.concat(grads, 0)
        rest.append(tf.matmul(rows, grads, transpose_a=True))
    return tf.add_n(rest)


def _terms(tensor):
    """Return the terms of an AddN and of the AddNs in it, or [tensor]."""
    parts = tensor.op.inputs if tensor.op.type == 'AddN' else []
    return [term for part in parts for term in _terms(part)] or [tensor]


def _widths(op):
    """Return the widths of the matrices that a ConcatV2 joins, [] if one is unknown."""
    parts = op.inputs[:-1] if op.type == 'ConcatV2' else []
    widths = [part.shape[1].value for part in parts if part.shape.ndims == 2]
    return [] if None in widths else widths


def _transposed(kernel, width):
    """Return the kernels of x and h, both transposed; make them once per graph."""
    # TensorFlow does not export a collection with a tuple as its key.
    made = kernel.graph.get_collection_ref(('transposed', kernel.name, width))
    if not made:
        with tf.control_dependencies(None):  # later calls of tf.gradients use them too
            made += [_transpose(kernel[:width]), _transpose(kernel[width:])]
    return made


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
    return [*grad.op.inputs[:-1], None]


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
