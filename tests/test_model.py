"""The graph: shapes, values, gradients, loss, export."""
import collections
import os
import re

import conftest
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, feed, gradients_of, initialized, session

import model

Built = collections.namedtuple('Built', ['m', 'graph'])


def build(seed, **kwargs):
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(seed)
        return Built(conftest.build(**kwargs), graph)


@pytest.fixture(scope='module')
def built():
    """The tutorial's graph, shared by tests that do not change it."""
    return build(seed=1)


@pytest.fixture(scope='module')
def small():
    """A graph of few units, whose gradients are large."""
    return build(seed=1, hidden_size=16)


@pytest.fixture
def sess(built):
    """A session of `built`, its variables initialized."""
    with built.graph.as_default(), session() as sess:
        yield initialized(sess)


@pytest.fixture
def graph():
    """A graph of its own."""
    with tf.Graph().as_default():
        tf.set_random_seed(1)
        yield


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_step(x, c, h, kernel, bias):
    """One step of an LSTM cell with forget_bias 1: Zaremba et al. 2014."""
    i, j, f, o = np.split(np.concatenate([x, h], 1) @ kernel + bias, 4, 1)
    c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
    return c, sigmoid(o) * np.tanh(c)


def test_shapes_in_the_graph(built):
    m = built.m
    assert m.batch_size.shape == [] and m.batch_size.dtype == tf.int32
    assert m.keep_prob.shape == [] and m.keep_prob.dtype == tf.float32
    assert m._X.shape.as_list() == [None, 784]
    assert m.y.shape.as_list() == [None, 10]
    assert {t.dtype for t in (m._X, m.y)} == {tf.float32}
    assert len(m.outputs) == 28
    assert m.h_state is m.outputs[27]
    with built.graph.as_default():
        weights = tf.trainable_variables()
    assert {v.op.name: v.shape.as_list() for v in weights} == {
        'RNN/multi_rnn_cell/cell_0/basic_lstm_cell/kernel': [284, 1024],
        'RNN/multi_rnn_cell/cell_0/basic_lstm_cell/bias': [1024],
        'RNN/multi_rnn_cell/cell_1/basic_lstm_cell/kernel': [512, 1024],
        'RNN/multi_rnn_cell/cell_1/basic_lstm_cell/bias': [1024],
        'W': [256, 10], 'bias': [10]}


def test_tensors_have_the_tutorials_names_in_the_graph(built):
    assert built.m._X.name == 'images:0'
    for name in ('y', 'batch_size', 'keep_prob', 'logits', 'y_pre',
                 'cross_entropy', 'correct_prediction', 'accuracy'):
        assert getattr(built.m, name).name == name + ':0'
    for name in ('W', 'bias', 'train_op'):
        assert getattr(built.m, name).name.split(':')[0] == name


@pytest.mark.parametrize('dynamic_rnn', [False, True])
@pytest.mark.parametrize('layer_num', [1, 2, 3])
def test_shapes_of_values(layer_num, dynamic_rnn, request):
    if (layer_num, dynamic_rnn) == (2, False):
        m, graph = request.getfixturevalue('built')
        hidden_size = 256
    else:
        hidden_size = 16
        m, graph = build(1, hidden_size=hidden_size, layer_num=layer_num,
                         dynamic_rnn=dynamic_rnn)
    with graph.as_default(), session() as sess:
        fetches = {name: tensor for name, tensor in vars(m).items()
                   if name not in ('_X', 'y', 'batch_size', 'keep_prob')}
        got = model.Model(**initialized(sess).run(fetches, feed(m, 5)))
    assert [o.shape for o in got.outputs] == [(5, hidden_size)] * 28
    for state in (got.init_state, got.state):
        assert [(layer.c.shape, layer.h.shape) for layer in state] == [
            ((5, hidden_size), (5, hidden_size))] * layer_num
    assert not any(np.any(part) for layer in got.init_state for part in layer)
    assert got.logits.shape == got.y_pre.shape == (5, 10)
    np.testing.assert_allclose(got.y_pre.sum(1), 1, rtol=1e-6)
    assert got.correct_prediction.shape == (5,)
    assert got.accuracy == np.float32(got.correct_prediction.mean())
    assert got.cross_entropy.shape == ()


def test_cell_is_the_lstm_equations(graph):
    random = np.random.RandomState(0)
    x, c, h = (random.randn(3, n).astype(np.float32) for n in (28, 16, 16))
    cell = model.lstm_cell(16, tf.constant(1.0))
    output, state = cell(tf.constant(x), tf.nn.rnn_cell.LSTMStateTuple(c, h))
    kernel, bias = tf.trainable_variables()
    with session() as sess:
        initialized(sess).run(bias.assign(random.randn(64)))
        output, state, kernel, bias = sess.run([output, state, kernel, bias])
    c, h = numpy_step(x, c, h, kernel, bias)
    np.testing.assert_allclose(state.c, c, atol=1e-5)
    np.testing.assert_allclose(state.h, h, atol=1e-5)
    np.testing.assert_allclose(output, h, atol=1e-5)


def test_rows_are_read_from_top_to_bottom_through_both_layers(built, sess):
    m = built.m
    fed = feed(m, 3)
    outputs, logits, variables = sess.run(
        [m.outputs, m.logits, tf.trainable_variables()], fed)
    kernel_1, bias_1, kernel_2, bias_2, W, bias = variables
    (c_1, h_1), (c_2, h_2) = np.zeros([2, 2, 3, 256])
    for row in range(28):
        x = fed[m._X][:, 28 * row:28 * (row + 1)]
        c_1, h_1 = numpy_step(x, c_1, h_1, kernel_1, bias_1)
        c_2, h_2 = numpy_step(h_1, c_2, h_2, kernel_2, bias_2)
        np.testing.assert_allclose(outputs[row], h_2, atol=1e-5)
    np.testing.assert_allclose(logits, h_2 @ W + bias, atol=1e-5)


def test_unrolled_and_dynamic_share_checkpoints_and_outputs(built, tmp_path):
    results = []
    for dynamic_rnn in (False, True):
        m, graph = build(1, dynamic_rnn=True) if dynamic_rnn else built
        with graph.as_default(), session() as sess:
            saver = tf.train.Saver()
            if dynamic_rnn:
                saver.restore(sess, str(tmp_path / 'model.ckpt'))
            else:
                initialized(sess).run(m.train_op, feed(m, 8, keep_prob=0.5))
                saver.save(sess, str(tmp_path / 'model.ckpt'))
            results.append(sess.run(
                [m.outputs, m.state, m.y_pre, m.cross_entropy], feed(m, 8)))
            results[-1].append(gradients_of(sess, m, feed(m, 8)))
            results[-1].append(
                sorted(v.op.name for v in tf.global_variables()))
    *by_hand, names_by_hand = results[0]
    *dynamic, names_dynamic = results[1]
    assert names_by_hand == names_dynamic
    for one, other in zip(tf.contrib.framework.nest.flatten(by_hand),
                          tf.contrib.framework.nest.flatten(dynamic)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_two_layers_do_not_share_a_kernel(small):
    m, graph = small
    with graph.as_default(), session() as sess:
        kernels = [v for v in tf.trainable_variables() if 'kernel' in v.op.name]
        before = initialized(sess).run(kernels)
        gradients = gradients_of(sess, m, feed(m, 8))
        after = sess.run(kernels)
    assert [k.shape for k in before] == [(44, 64), (32, 64)]
    for kernel, was, now in zip(kernels, before, after):
        gradient = gradients[kernel.op.name]
        assert np.abs(gradient).max() > 1e-4
        # Adam's first step moves a weight by lr, whatever its gradient.
        moved = np.abs(gradient) > 1e-5
        assert moved.mean() > 0.5
        np.testing.assert_allclose((was - now)[moved],
                                   1e-3 * np.sign(gradient[moved]), rtol=0.05)


def test_keep_prob_1_is_deterministic(built, sess):
    one, other = (sess.run(built.m.outputs, feed(built.m, 4)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert np.count_nonzero(one) == np.size(one)


def test_keep_prob_half_drops_and_rescales_the_output_and_not_the_state(graph):
    cell = model.lstm_cell(1000, tf.constant(0.5))
    output, state = cell(tf.random_uniform([4, 28]),
                         cell.zero_state(4, tf.float32))
    with session() as sess:
        output, h = initialized(sess).run([output, state.h])
    kept = output != 0
    assert 0.45 < kept.mean() < 0.55
    np.testing.assert_allclose(output[kept], 2 * h[kept], rtol=1e-6)
    assert np.count_nonzero(h) == h.size


def test_dropout_acts_at_every_row_on_the_ways_up_and_not_along_the_rows(
        built, sess):
    m = built.m
    one, (one_1, one_2) = sess.run([m.outputs, m.state], feed(m, 4, 0.5))
    other, (other_1, other_2) = sess.run([m.outputs, m.state], feed(m, 4, 0.5))
    for row in range(28):
        assert 0.4 < np.mean(one[row] == 0) < 0.6
        assert 0.4 < np.mean((one[row] == 0) != (other[row] == 0)) < 0.6
    np.testing.assert_array_equal(one_1, other_1)
    assert np.abs(one_2.h - other_2.h).max() > 1e-3


@pytest.mark.parametrize('dynamic_rnn', [False, True])
def test_seed_decides_dropout(dynamic_rnn):
    def weights(seed, times):
        """Return W after 20 steps, in as many sessions."""
        m, graph = build(seed, hidden_size=64, dynamic_rnn=dynamic_rnn)
        results = []
        for _ in range(times):
            with graph.as_default(), session() as sess:
                initialized(sess)
                for step in range(20):
                    sess.run(m.train_op, feed(m, 16, 0.5, seed=step))
                results.append(sess.run(m.W))
        return results

    first, *others = weights(1, 4)
    for other in others:
        np.testing.assert_array_equal(first, other)
    assert (first != weights(2, 1)[0]).any()


def logits_and_labels(scale):
    random = np.random.RandomState(0)
    return scale * random.randn(6, 10), np.eye(10)[random.randint(10, size=6)]


def test_loss_is_the_tutorials_formula_where_that_is_finite(graph):
    logits, y = logits_and_labels(scale=3)
    formula = -np.mean(y * np.log(np.exp(logits)
                                  / np.exp(logits).sum(1, keepdims=True)))
    with session() as sess:
        loss = sess.run(model.mean_cross_entropy(tf.constant(logits), y))
    np.testing.assert_allclose(loss, formula, rtol=1e-12)


def test_loss_is_finite_where_the_formula_gives_nan(graph):
    logits, y = logits_and_labels(scale=1000)
    formula = -tf.reduce_mean(y * tf.log(tf.nn.softmax(logits)))
    logits_tensor = tf.constant(logits)
    loss = model.mean_cross_entropy(logits_tensor, y)
    with session() as sess:
        formula, loss, gradient = sess.run(
            [formula, loss, tf.gradients(loss, logits_tensor)[0]])
    assert np.isnan(formula)
    # With logits this far apart, the log of the sum is the largest of them.
    np.testing.assert_allclose(
        loss, np.mean(logits.max(1) - (logits * y).sum(1)) / 10, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_loss_gradient_is_that_of_finite_differences(graph):
    values, y = logits_and_labels(scale=2)
    logits = tf.placeholder(tf.float64, values.shape)
    loss = model.mean_cross_entropy(logits, tf.constant(y))
    gradient, = tf.gradients(loss, logits)
    h = 1e-5
    with session() as sess:
        expected = np.zeros_like(values)
        for index in np.ndindex(*values.shape):
            step = np.zeros_like(values)
            step[index] = h
            expected[index] = (sess.run(loss, {logits: values + step})
                               - sess.run(loss, {logits: values - step}))
        gradient = sess.run(gradient, {logits: values})
    np.testing.assert_allclose(gradient, expected / (2 * h), atol=1e-9)
    assert np.abs(gradient).max() > 1e-3


def test_graph_takes_that_loss_and_its_gradient_reaches_the_first_row(small):
    m, graph = small
    fed = feed(m, 4)
    with graph.as_default(), session() as sess:
        to_images, = tf.gradients(m.cross_entropy, m._X)
        loss, y_pre, to_images = initialized(sess).run(
            [m.cross_entropy, m.y_pre, to_images], fed)
    np.testing.assert_allclose(loss, -np.mean(fed[m.y] * np.log(y_pre)),
                               rtol=1e-5)
    assert (np.abs(to_images.reshape(4, 28, 28)).max(2) > 0).all()


def test_a_step_is_counted(built, sess):
    for _ in range(3):
        sess.run(built.m.train_op, feed(built.m, 4))
    assert sess.run(tf.train.get_global_step()) == 3


@pytest.mark.parametrize('dynamic_rnn', [False, True])
def test_export_is_the_trained_network_after_each_row(built, sess, dynamic_rnn,
                                                      tmp_path):
    def dropout_or_training():
        return [op for op in tf.get_default_graph().get_operations()
                if 'dropout/' in op.name or op.type == 'ApplyAdam']

    m = built.m
    assert len(dropout_or_training()) > 28 * 2
    fed = feed(m, 5)
    outputs, y_pre, W, bias = sess.run([m.outputs, m.y_pre, m.W, m.bias], fed)
    path = tf.train.Saver().save(sess, str(tmp_path / 'model.ckpt'))
    with tf.Graph().as_default(), session() as other:
        images, rows = model.build_export(256, 2, dynamic_rnn)
        assert rows.shape.as_list() == [None, 28, 10]
        tf.train.Saver().restore(other, path)
        rows = other.run(rows, {images: fed[m._X]})
        assert not dropout_or_training()
    np.testing.assert_allclose(rows[:, -1], y_pre, rtol=1e-5)
    for row, output in enumerate(outputs):
        scores = np.exp(output @ W + bias)
        np.testing.assert_allclose(
            rows[:, row], scores / scores.sum(1, keepdims=True), rtol=1e-4)


def test_how_it_works_shows_the_code_of_model_py():
    def read(*path):
        with open(os.path.join(ROOT, *path)) as f:
            return f.read()

    shown = re.findall(r'```python\n(.*?)```', read('docs', 'how-it-works.md'), re.S)
    assert len(shown) == 6
    for code in shown:
        assert code in read('model.py')


@pytest.mark.parametrize('edit, changed', [
    ('return tf.transpose(X, [0, 2, 1])', lambda X: X.transpose(0, 2, 1)),
    ('return tf.gather(X, [11 * row % 28 for row in range(28)], axis=1)',
     lambda X: X[:, np.arange(28) * 11 % 28]),
    ('return tf.pad(X[:, :14], [[0, 0], [0, 14], [0, 0]])',
     lambda X: np.where(np.arange(28)[:, None] < 14, X, 0)),
    ('return tf.pad(X[:, 14:], [[0, 0], [14, 0], [0, 0]])',
     lambda X: np.where(np.arange(28)[:, None] < 14, 0, X))])
def test_an_experiment_of_how_it_works_changes_the_rows(edit, changed, graph):
    with open(os.path.join(ROOT, 'docs', 'how-it-works.md')) as f:
        page = f.read()
    old, new = re.search(r'```diff\n-(.*\n)\+(.*\n)\+.*\n```', page).groups()
    with open(model.__file__) as f:
        source = f.read()
    assert page.count(edit) and source.count(old) == 1
    changed_model = {'__name__': 'changed_model'}
    exec(source.replace(old, '%s    %s\n' % (new, edit)), changed_model)
    images = np.random.RandomState(0).rand(3, 784).astype(np.float32)
    with session() as sess:
        X = sess.run(changed_model['as_rows'](tf.constant(images), 28, 28))
    np.testing.assert_array_equal(X, changed(images.reshape(3, 28, 28)))


def test_constant_rate():
    assert model.learning_rate(1e-3, 'constant', 2000) == 1e-3


@pytest.mark.parametrize('steps, expected', [
    (20, {1: 0.05, 2: 0.095, 3: 0.09, 11: 0.05, 20: 0.005}),
    (1, {1: 0.1}), (5, {1: 0.1, 5: 0.02})])
def test_linear_rate_rises_and_falls(steps, expected):
    with tf.Graph().as_default(), session() as sess:
        rate = model.learning_rate(0.1, 'linear', steps)
        step = tf.train.get_global_step()
        assert {each: pytest.approx(sess.run(rate, {step: each - 1}))
                for each in expected} == expected


def test_adam_uses_the_rate_of_the_step():
    """Adam's first step changes each weight that has a gradient by the rate."""
    with tf.Graph().as_default(), session() as sess:
        m = model.build(model.learning_rate(0.08, 'linear', 40), 8, 2, dynamic_rnn=True)
        weights = tf.trainable_variables()
        before = initialized(sess).run(weights)
        sess.run(m.train_op, feed(m, 6))
        moved = max(np.abs(new - old).max()
                    for old, new in zip(before, sess.run(weights)))
        assert moved == pytest.approx(0.02, rel=1e-2)
