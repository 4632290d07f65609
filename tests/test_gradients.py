import contextlib

import numpy as np
import pytest
import tensorflow as tf
from conftest import feed, gradients_of, initialized, session

import model
from training import gradients


def test_gradients_are_tensorflows(monkeypatch):
    # 7 rows of 112 pixels: building a graph for 28 rows takes seconds.
    sizes = model.Sizes(input_size=112, timestep_size=7, class_num=10)
    results = []
    for fast in (gradients.fast, contextlib.suppress):
        monkeypatch.setattr(gradients, 'fast', fast)
        with tf.Graph().as_default(), session() as sess:
            tf.set_random_seed(1)
            m = model.build(1e-3, 47, 2, sizes=sizes)
            fed = feed(m, 20, keep_prob=0.5)
            results.append((gradients_of(initialized(sess), m, fed),
                            sess.run(m.outputs, feed(m, 20))))
            ran = {op.get_attr('_gradient_op_type')
                   for op in sess.graph.get_operations()
                   if '_gradient_op_type' in op.node_def.attr}
            assert ran == ({b'CellMatMul', b'CellIdentity', b'CellConcat', b'CellMul',
                             b'CellAdd'} if fast is not contextlib.suppress else set())
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
        with tf.Graph().as_default(), session() as sess:
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


@pytest.mark.parametrize('cut, ends', [
    (stopped(0, 0), [-1]), (stopped(0, 0), [15, 4]), (stopped(0, 1), [-1]),
    (stopped(1, 0), [15, 4]), (stopped(1, 1), [-1])],
    ids=['whole', 'whole, two', 'h', 'c, two', 'c and h'])
def test_the_rows_of_a_kernel_are_summed(cut, ends, monkeypatch):
    """Over 18 rows, which do not fit one product, with losses at some of them."""
    results = []
    for fast in (gradients.fast, contextlib.suppress):
        with tf.Graph().as_default(), session() as sess:
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
            step = tf.graph_util.extract_sub_graph(
                sess.graph.as_graph_def(), [one.op.name for one in found])
            products = sum(node.op == 'MatMul' and node.attr['transpose_a'].b
                           for node in step.node)
            results.append((initialized(sess).run(found), products))
    (found, products), (expected, most) = results
    assert products < most / 4
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, atol=1e-6 * np.abs(other).max())


def unrolled(dtype=tf.float32):
    """Return X, the outputs, the states and the kernels of two layers over 28 rows."""
    tf.set_random_seed(1)
    X = tf.constant(np.random.RandomState(2).rand(6, 28, 5), dtype)
    cell = tf.nn.rnn_cell.MultiRNNCell(
        [tf.nn.rnn_cell.BasicLSTMCell(7) for _ in range(2)])
    state, outputs, states = cell.zero_state(6, dtype), [], []
    with tf.variable_scope('RNN', reuse=tf.AUTO_REUSE):
        for row in range(28):
            output, state = cell(X[:, row, :], state)
            outputs.append(output)
            states.append(state)
    return X, outputs, states, [v for v in tf.trainable_variables()
                                if v.op.name.endswith('kernel')]


def truncated(row):
    """Backpropagate through the rows after `row` only."""
    def compute(X, outputs, states, kernels):
        return tf.gradients(tf.reduce_sum(outputs[-1] ** 2), tf.trainable_variables(),
                            stop_gradients=tf.contrib.framework.nest.flatten(
                                states[row]))
    return compute


def several_calls(X, outputs, states, kernels):
    """The second and third call must not find rows of an earlier one."""
    first, second = (tf.reduce_sum(outputs[row] ** 2) for row in (-1, 20))
    found = tf.gradients(first, kernels)
    with tf.control_dependencies([tf.Assert(False, ['only for the next call'])]):
        tf.gradients(second, X)
    found += tf.gradients(second, X)
    found += tf.gradients(second, kernels + [X])
    return found + truncated(13)(X, outputs, states, kernels)


def decayed(X, outputs, states, kernels):
    loss = tf.reduce_sum(outputs[-1] ** 2)
    return tf.gradients(loss + sum(map(tf.nn.l2_loss, kernels)), kernels) + [
        gradient for method in (tf.AggregationMethod.EXPERIMENTAL_TREE,
                                tf.AggregationMethod.EXPERIMENTAL_ACCUMULATE_N)
        for gradient in tf.gradients(loss, kernels, aggregation_method=method)]


def looked_up(X, outputs, states, kernels):
    """A reader of the kernel whose gradient is an IndexedSlices."""
    with tf.variable_scope('', reuse=True):
        (kernel, *_), (name, *_) = kernels, [k.op.name for k in kernels]
        rows = tf.gather(tf.get_variable(name), [0, 2, 2])
    loss = tf.reduce_sum(rows ** 2)
    return [tf.convert_to_tensor(gradient) for total in (
        loss, loss + tf.reduce_sum(outputs[-1] ** 2))
        for gradient in tf.gradients(total, kernel)]


def of_gradients(X, outputs, states, kernels):
    first = tf.gradients(tf.reduce_sum(outputs[3] ** 2), kernels)
    return tf.gradients(sum(map(tf.nn.l2_loss, first)), kernels)


@pytest.mark.parametrize('compute, dtype', [
    (truncated(5), tf.float32), (truncated(13), tf.float32),
    (truncated(26), tf.float32), (several_calls, tf.float32), (decayed, tf.float32),
    (looked_up, tf.float32), (of_gradients, tf.float64), (truncated(13), tf.float64)],
    ids=['cut at 5', 'cut at 13', 'cut at 26', 'several calls', 'weight decay',
         'gather', 'second order', 'float64'])
def test_what_is_differentiated_does_not_matter(compute, dtype):
    results = []
    for fast in (gradients.fast, contextlib.suppress):
        with tf.Graph().as_default(), session() as sess:
            with fast():
                made = unrolled(dtype)
            results.append(initialized(sess).run(compute(*made)))
    accuracy = 1e-6 if dtype == tf.float32 else 1e-12
    for found, expected in zip(*results):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found, expected,
                                   atol=accuracy * np.abs(expected).max())


@pytest.mark.parametrize('loop', [
    lambda cell, X: tf.nn.dynamic_rnn(cell, X, dtype=tf.float32)[0],
    lambda cell, X: tf.cond(X[0, 0, 0] < 2, lambda: cell(
        X[:, 0], cell.zero_state(6, tf.float32))[0], lambda: X[:, 0, :1] * tf.ones(7))],
    ids=['while_loop', 'cond'])
def test_control_flow_has_tensorflows_gradients(loop):
    """Twice, and a cell outside the loop shares the kernel."""
    results = []
    for fast in (gradients.fast, contextlib.suppress):
        with tf.Graph().as_default(), session() as sess:
            tf.set_random_seed(1)
            X = tf.constant(np.random.RandomState(2).rand(6, 28, 5), tf.float32)
            cell = tf.nn.rnn_cell.BasicLSTMCell(7)
            with fast():
                inside = loop(cell, X)
                outside, _ = cell(X[:, 0], cell.zero_state(6, tf.float32))
            found = [gradient for loss in (
                tf.reduce_sum(inside ** 2),
                tf.reduce_sum(inside ** 2) + tf.reduce_sum(outside ** 3))
                for gradient in tf.gradients(loss, tf.trainable_variables() + [X])]
            results.append(initialized(sess).run(found))
    for found, expected in zip(*results):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found, expected,
                                   atol=1e-6 * np.abs(expected).max())


def test_one_kernel_in_two_cells_of_other_widths():
    """The kernels of x and h are cut apart at another column in each."""
    results = []
    for fast in (gradients.fast, contextlib.suppress):
        with tf.Graph().as_default(), session() as sess:
            parts = [tf.constant(np.random.RandomState(n).rand(8, n)) for n in (3, 5)]
            with fast():
                kernel = tf.identity(tf.constant(np.random.RandomState(0).rand(8, 8)))
                loss = sum(
                    tf.reduce_sum(tf.matmul(tf.concat(x_h, 1), kernel, *how) ** 3)
                    for x_h in (parts, parts[::-1])
                    for how in ((False, False), (True, False), (False, True)))
            results.append(sess.run(tf.gradients(loss, parts + [kernel])))
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_other_operations_have_tensorflows_gradients():
    random = np.random.RandomState(0)
    found, expected = [], []
    with tf.Graph().as_default(), session() as sess:
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
    with tf.Graph().as_default(), session() as sess:
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
