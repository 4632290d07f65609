import contextlib

import numpy as np
import pytest
import tensorflow as tf
from conftest import feed, gradients_of, initialized

import model
from training import gradients


def test_gradients_are_tensorflows(monkeypatch):
    # 7 rows of 112 pixels: building a graph for 28 rows takes seconds.
    sizes = model.Sizes(input_size=112, timestep_size=7, class_num=10)
    results = []
    for fast in (gradients.fast, contextlib.suppress):
        monkeypatch.setattr(gradients, 'fast', fast)
        with tf.Graph().as_default(), tf.Session() as sess:
            tf.set_random_seed(1)
            m = model.build(1e-3, 47, 2, sizes=sizes)
            fed = feed(m, 20, keep_prob=0.5)
            results.append((gradients_of(initialized(sess), m, fed),
                            sess.run(m.outputs, feed(m, 20))))
            ran = {op.get_attr('_gradient_op_type')
                   for op in sess.graph.get_operations()
                   if '_gradient_op_type' in op.node_def.attr}
            assert ran == ({b'CellMatMul', b'CellConcat', b'CellMul', b'CellAdd'}
                           if fast is not contextlib.suppress else set())
    (found, outputs), (expected, same_outputs) = results
    np.testing.assert_allclose(outputs, same_outputs, atol=1e-5)
    assert len(found) == 6
    for name, gradient in expected.items():
        assert np.abs(gradient).max() > 1e-5
        np.testing.assert_allclose(found[name], gradient, err_msg=name,
                                   atol=1e-6 * np.abs(gradient).max())


@pytest.mark.parametrize('cell', [
    lambda units: tf.nn.rnn_cell.BasicRNNCell(units),
    lambda units: tf.nn.rnn_cell.GRUCell(units),
    lambda units: tf.nn.rnn_cell.LSTMCell(units, use_peepholes=True),
    lambda units: tf.nn.rnn_cell.LSTMCell(units, num_proj=5),
    lambda units: tf.contrib.rnn.LayerNormBasicLSTMCell(units)],
    ids=['RNN', 'GRU', 'peepholes', 'projection', 'layer_norm'])
def test_other_cells_have_tensorflows_gradients(cell, monkeypatch):
    """As a learner would try them in lstm_cell; over three rows."""
    monkeypatch.setattr(model, 'lstm_cell', lambda hidden_size, keep_prob: (
        tf.nn.rnn_cell.DropoutWrapper(cell(hidden_size),
                                      output_keep_prob=keep_prob)))
    results = []
    for fast in (gradients.fast, contextlib.suppress):
        monkeypatch.setattr(gradients, 'fast', fast)
        with tf.Graph().as_default(), tf.Session() as sess:
            tf.set_random_seed(1)
            X = tf.constant(np.random.RandomState(2).rand(6, 3, 28), tf.float32)
            X = tf.placeholder_with_default(X, [None, 3, 28])
            _, outputs, _ = model.mlstm(X, tf.constant(6), tf.constant(0.5), 7, 2,
                                        False)
            found = tf.gradients(tf.reduce_sum(outputs[-1] ** 2),
                                 tf.trainable_variables())
            results.append(initialized(sess).run(found))
    for found, expected in zip(*results):
        assert np.abs(expected).max() > 1e-5
        np.testing.assert_allclose(found, expected,
                                   atol=1e-6 * np.abs(expected).max())


def stopped(c, h):
    """Return a function that cuts the state between two rows."""
    def cut(row, state):
        return tuple(tf.nn.rnn_cell.LSTMStateTuple(
            *(tf.stop_gradient(part) if stop and row == 9 else part
              for stop, part in ((c, one.c), (h, one.h)))) for one in state)
    return cut


@pytest.mark.parametrize('cut', [stopped(c, h) for c in (0, 1) for h in (0, 1)],
                         ids=['whole', 'h', 'c', 'c and h'])
@pytest.mark.parametrize('ends', [[-1], [15, 4]], ids=str)
def test_the_rows_of_a_kernel_are_summed(cut, ends, monkeypatch):
    """Over 18 rows, which do not fit one product, with losses at some of them."""
    results = []
    for fast in (gradients.fast, contextlib.suppress):
        with tf.Graph().as_default(), tf.Session() as sess:
            tf.set_random_seed(1)
            X = tf.constant(np.random.RandomState(2).rand(6, 18, 5), tf.float32)
            cell = tf.nn.rnn_cell.MultiRNNCell(
                [model.lstm_cell(7, tf.constant(0.5)) for _ in range(2)])
            state, outputs = cell.zero_state(6, tf.float32), []
            with fast(), tf.variable_scope('RNN', reuse=tf.AUTO_REUSE):
                for row in range(18):
                    output, state = cell(X[:, row, :], cut(row, state))
                    outputs.append(output)
            for _ in range(2):  # a second call must not find rows of the first
                loss = sum(tf.reduce_sum(outputs[end] ** 2) for end in ends)
                found = tf.gradients(loss, tf.trainable_variables())
            products = sum(op.name.startswith('gradients/')
                           and op.type == 'MatMul' and op.get_attr('transpose_a')
                           for op in sess.graph.get_operations())
            results.append((initialized(sess).run(found), products))
    (found, products), (expected, most) = results
    assert products < most
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, atol=1e-6 * np.abs(other).max())


def test_other_operations_have_tensorflows_gradients():
    random = np.random.RandomState(0)
    found, expected = [], []
    with tf.Graph().as_default(), tf.Session() as sess:
        x, h, cube, row, scalar, kernel, square, wide, narrow = variables = [
            tf.constant(random.uniform(0.5, 1, shape)) for shape in (
                [4, 3], [4, 5], [4, 3, 2], [1, 3], [], [8, 2], [8, 8], [11, 2], [3, 2])]
        any_rank = tf.placeholder_with_default(row, None)
        any_width = tf.placeholder_with_default(x, [4, None])
        for context, results in ((gradients.fast, found),
                                 (contextlib.suppress, expected)):
            with context():
                xh = tf.concat([x, h], 1)
                for result in (tf.matmul(xh, kernel) * tf.matmul(xh, kernel),
                               tf.matmul(xh, square, transpose_b=True),
                               tf.matmul(tf.concat([x, h, x], 1), wide),
                               tf.matmul(tf.concat([x, x], 0), narrow),
                               tf.concat([cube, cube], 1), x * row, tf.add(x, row),
                               tf.matmul(tf.concat([any_width, h], 1), kernel),
                               tf.add(any_rank, any_rank),
                               x * scalar, tf.add(x, scalar)):
                    loss = tf.reduce_sum(result ** 3)
                    results += [gradient for gradient in tf.gradients(loss, variables)
                                if gradient is not None]
        assert len(found) == len(expected) == 24
        for one, other in zip(sess.run(found), sess.run(expected)):
            np.testing.assert_allclose(one, other, rtol=1e-12)


def test_step_computes_nothing_twice():
    metadata = tf.RunMetadata()
    with tf.Graph().as_default(), tf.Session() as sess:
        m = model.build(1e-3, 8, 2)
        initialized(sess).run(
            m.train_op, feed(m, 4), run_metadata=metadata,
            options=tf.RunOptions(output_partition_graphs=True))
    nodes = [node for graph in metadata.partition_graphs for node in graph.node]
    # A step transposes each part of a kernel once. The first layer's x has none.
    assert sum(node.op == 'Transpose' for node in nodes) == 3
    # No row concatenates gradients and splits them again.
    assert not any(node.name.endswith('MatMul_grad/concat')
                   or 'concat_grad/' in node.name for node in nodes)
    # No row waits for the kernel's gradient at the next row.
    assert not any('_grad/tuple' in node.name for node in nodes)
    # No row checks whether a product or a sum was broadcast.
    assert not any('RNN' in node.name for node in nodes
                   if node.op == 'BroadcastGradientArgs')
    # Only the small matmul of the softmax head is left to TensorFlow.
    assert [node.name for node in nodes if node.op == 'MatMul'
            and node.attr['transpose_b'].b] == ['gradients/MatMul_grad/MatMul']
