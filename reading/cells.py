"""Compute the gates and states of a trained network, row by row."""
import collections

import numpy as np

from training.errors import UserError


class Layer(collections.namedtuple('Layer', 'i j f o c h')):
    """What the units of one layer hold after each row, six float32 [rows, units].

    i: the input gate in [0, 1]: how much of j is added to c.
    j: the new values in [-1, 1].
    f: the forget gate in [0, 1]: how much of the previous c stays.
    o: the output gate in [0, 1]: how much of c is shown.
    c: the cell state.
    h: the output in [-1, 1].
    """


def follow(weights, image, rows):
    """Send an image through the layers, as `tf.nn.rnn_cell.BasicLSTMCell` does.

    The equations are those of Zaremba et al. 2014, arXiv:1409.2329.

    Args:
        weights: {name of a variable: value}, from `Network.weights`.
        image: float32 [pixels] in [0, 1].
        rows: float32 [rows, classes], the network's probabilities after each row.

    Returns:
        A list of `Layer`; the first one reads the image.

    Raises:
        UserError: the network has other cells, or does not read row by row.
    """
    layers, x = [], image.reshape(len(rows), -1)
    for name in layer_names(weights):
        layers.append(_layer(x, weights[name + 'kernel'], weights[name + 'bias']))
        x = layers[-1].h
    if not layers or not np.allclose(
            _softmax(x @ weights['W'] + weights['bias']), rows, atol=1e-3):
        raise UserError('--cells and --page show BasicLSTMCells that read an image '
                        'row by row, and this network is another: use --rows')
    return layers


def layer_names(weights):
    """Return what stands before kernel and bias in the names of each layer's weights.

    weights is {name of a variable: value}.
    """
    names = ['RNN/multi_rnn_cell/cell_%d/basic_lstm_cell/' % k
             for k in range(len(weights))]
    return [name for name in names if name + 'kernel' in weights]


def _softmax(logits):
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def _layer(rows, kernel, bias):
    """Return the `Layer` that reads rows, float32 [rows, in]."""
    c = h = np.zeros(len(bias) // 4, np.float32)
    steps = []
    for x in rows:
        i, j, f, o = np.split(np.concatenate([x, h]) @ kernel + bias, 4)
        i, j, f, o = _sigmoid(i), np.tanh(j), _sigmoid(f + 1), _sigmoid(o)
        c = f * c + i * j
        h = o * np.tanh(c)
        steps.append((i, j, f, o, c, h))
    return Layer(*map(np.array, zip(*steps)))


def _sigmoid(x):
    return (1 + np.tanh(x / 2)) / 2  # tanh does not overflow


def most_telling(layer, count):
    """Return the units of a `Layer` whose c varies most, int64 [count] or fewer.

    The range of c includes the 0 before the first row. The units are sorted by the
    row at which c changes most.
    """
    c = np.pad(layer.c, ((1, 0), (0, 0)), 'constant')
    units = np.ptp(c, axis=0).argsort(kind='stable')[::-1][:count]
    changes = np.abs(np.diff(c[:, units], axis=0))
    return units[changes.argmax(0).argsort(kind='stable')]
