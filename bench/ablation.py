"""This project's network without a part of what makes its training step fast."""
import contextlib
from unittest import mock

# Gradients of training/gradients.py.
MATMUL = ('CellMatMul', 'CellConcat')
ROWS = ('CellIdentity',)
ELEMENTWISE = ('CellMul', 'CellAdd')
# What each variant leaves out.
VARIANTS = {
    'everything': (),
    'without our gradients': MATMUL + ROWS + ELEMENTWISE,
    'without the transposed kernels': MATMUL,
    'without the element-wise gradients': ELEMENTWISE,
    'with one row in a product': ROWS,
    'with GATE_OP': ('gate',),
    "with TensorFlow's default threads": ('threads',),
    'without any of these': MATMUL + ROWS + ELEMENTWISE + ('gate', 'threads'),
}


@contextlib.contextmanager
def without(parts):
    """Patch `training` while the block builds a network, so that it lacks parts."""
    import tensorflow as tf

    from training import device, gradients
    override = tf.Graph.gradient_override_map

    def override_some(graph, names):
        return override(graph, {op: name for op, name in names.items()
                                if name not in parts})

    patches = {
        'gate': (gradients, 'GATE', tf.train.Optimizer.GATE_OP),
        'threads': (device, 'share_cores', lambda *args: None),
    }
    with mock.patch.object(tf.Graph, 'gradient_override_map', override_some), \
            contextlib.ExitStack() as stack:
        for part in set(parts) & set(patches):
            stack.enter_context(mock.patch.object(*patches[part]))
        yield
