import numpy as np
import pytest

from reading import cells
from training import saved_model
from training.errors import UserError


def test_layers_lead_to_the_answer(digits_run, digits):
    network = saved_model.Network(str(digits_run))
    weights = network.weights()
    for image, rows in zip(digits.images[:5], network(digits.images[:5])):
        layers = cells.follow(weights, image, rows)
        assert len(layers) == 2
        logits = layers[-1].h @ weights['W'] + weights['bias']
        exp = np.exp(logits)
        np.testing.assert_allclose(exp / exp.sum(1, keepdims=True), rows, atol=1e-5)
        for layer in layers:
            units = layer.c.shape[1]
            assert {part.shape for part in layer} == {(28, units)}
            for gate in (layer.i, layer.f, layer.o):
                assert (gate >= 0).all() and (gate <= 1).all()
            # The equations of TensorFlow's documentation.
            np.testing.assert_allclose(
                layer.c[1:], layer.f[1:] * layer.c[:-1] + (layer.i * layer.j)[1:],
                atol=1e-6)
            np.testing.assert_allclose(layer.h, layer.o * np.tanh(layer.c), atol=1e-6)


def test_gates_of_zero_and_of_huge_weights():
    name = 'RNN/multi_rnn_cell/cell_0/basic_lstm_cell/'
    zero = np.zeros([29, 4], np.float32)
    huge = np.array([-1e4, 0, 1e4, 1e4], np.float32)
    head = {'W': np.zeros([1, 10]), 'bias': np.zeros(10), name + 'kernel': zero}
    image, rows = np.ones(784, np.float32), np.full([28, 10], 0.1)
    with np.errstate(all='raise'):
        layer, = cells.follow({**head, name + 'bias': zero[0]}, image, rows)
        far, = cells.follow({**head, name + 'bias': huge}, image, rows)
    # sigmoid(forget_bias); the other gates are half open.
    assert layer.f[0, 0] == pytest.approx(0.731059, abs=1e-6)
    assert layer.i[0, 0] == layer.o[0, 0] == 0.5
    assert (far.i[0, 0], far.f[0, 0], far.o[0, 0]) == (0, 1, 1)


def test_other_cells_are_refused():
    with pytest.raises(UserError, match='this network is another'):
        cells.follow({'RNN/multi_rnn_cell/cell_0/gru_cell/gates/kernel': 0},
                     np.zeros(784), np.full([28, 10], 0.1))


def test_network_that_reads_columns_is_refused(digits_run, digits):
    network = saved_model.Network(str(digits_run))
    image = digits.images[0]
    rows, = network([image.reshape(28, 28).T.reshape(784)])
    with pytest.raises(UserError, match='this network is another'):
        cells.follow(network.weights(), image, rows)


def test_most_telling_units_vary_most():
    c = np.zeros([28, 5])
    c[20:, 0] = 3         # changes once, at row 20
    c[:, 1] = 2           # at row 0
    c[5:9, 2] = -4        # at row 5, and back at row 9
    c[12:, 3], c[18:, 3] = 1, -1   # by 1, and by 2 at row 18
    c[9:, 4] = 0.1        # hardly
    layer = cells.Layer(*[c] * 6)
    assert cells.most_telling(layer, 4).tolist() == [1, 2, 3, 0]
    assert cells.most_telling(layer, 2).tolist() == [2, 0]
    assert sorted(cells.most_telling(layer, 9)) == [0, 1, 2, 3, 4]
