"""A cell's gradients: TensorFlow's, computed otherwise."""
import contextlib

import numpy as np
import pytest
import tensorflow as tf
from conftest import feed, gradients_of, initialized

import model
from training import gradients


def build(fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(gradients, 'fast', contextlib.suppress)
    tf.set_random_seed(1)
    return model.build(hidden_size=47)


def test_every_gradient_is_that_of_tensorflow(monkeypatch):
    results = []
    for fast in (True, False):
        with tf.Graph().as_default(), tf.Session() as sess:
            m = build(fast, monkeypatch)
            fed = feed(m, 20, keep_prob=0.5)
            results.append((gradients_of(initialized(sess), m, fed),
                            sess.run(m.outputs, feed(m, 20))))
            ran = {op.get_attr('_gradient_op_type')
                   for op in sess.graph.get_operations()
                   if '_gradient_op_type' in op.node_def.attr}
            assert ran == ({b'CellMatMul', b'CellConcat', b'CellMul', b'CellAdd'}
                           if fast else set())
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
    lambda units: tf.contrib.rnn.LayerNormBasicLSTMCell(units)])
def test_another_cell(cell, monkeypatch):
    """As a learner would try it in lstm_cell; over three rows."""
    monkeypatch.setattr(model, 'timestep_size', 3)
    monkeypatch.setattr(model, 'lstm_cell', lambda hidden_size, keep_prob: (
        tf.nn.rnn_cell.DropoutWrapper(cell(hidden_size),
                                      output_keep_prob=keep_prob)))
    results = []
    for fast in (contextlib.suppress, gradients.fast):
        monkeypatch.setattr(gradients, 'fast', fast)
        with tf.Graph().as_default(), tf.Session() as sess:
            tf.set_random_seed(1)
            X = tf.constant(np.random.RandomState(2).rand(6, 3, 28), tf.float32)
            X = tf.placeholder_with_default(X, [None, 3, 28])
            _, outputs, _ = model.mlstm(X, tf.constant(6), tf.constant(0.5), 7,
                                        2, False)
            found = tf.gradients(tf.reduce_sum(outputs[-1] ** 2),
                                 tf.trainable_variables())
            results.append(initialized(sess).run(found))
    for expected, found in zip(*results):
        assert np.abs(expected).max() > 1e-5
        np.testing.assert_allclose(found, expected,
                                   atol=1e-6 * np.abs(expected).max())


def test_a_step_transposes_each_kernel_once_and_multiplies_by_that():
    ran = tf.RunMetadata()
    with tf.Graph().as_default(), tf.Session() as sess:
        m = model.build(hidden_size=8)
        initialized(sess).run(
            m.train_op, feed(m, 4), run_metadata=ran,
            options=tf.RunOptions(output_partition_graphs=True))
    nodes = [node for graph in ran.partition_graphs for node in graph.node]
    # One each for x and h, but the first layer's x, the digit.
    assert sum(node.op == 'Transpose' for node in nodes) == 3
    # And no row puts its gradients together to take them apart.
    assert not any(node.name.endswith('MatMul_grad/concat')
                   or 'concat_grad/' in node.name for node in nodes)
    # No row waits for the gradient of the kernel at the row after it.
    assert not any('_grad/tuple' in node.name for node in nodes)
    # And no row asks whether what it multiplies or adds was broadcast.
    assert not any('RNN' in node.name for node in nodes
                   if node.op == 'BroadcastGradientArgs')
    # The softmax head's is small and left to TensorFlow.
    assert [node.name for node in nodes if node.op == 'MatMul'
            and node.attr['transpose_b'].b] == ['gradients/MatMul_grad/MatMul']
