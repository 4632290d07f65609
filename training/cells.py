"""What the cells of a trained network do with each row of an image."""
import collections

import numpy as np

from training.errors import UserError


class Layer(collections.namedtuple('Layer', 'i j f o c h')):
    """What the units of one layer hold after each row, each float32 [28, units].

    i: the input gate, from 0 to 1, how much of j goes into c.
    j: the new values, from -1 to 1.
    f: the forget gate, from 0 to 1, how much of the old c stays.
    o: the output gate, from 0 to 1, how much of c is shown.
    c: the cell state.
    h: what the layer puts out, from -1 to 1.
    """


def follow(weights, image, rows):
    """Sends an image through the layers, as `tf.nn.rnn_cell.BasicLSTMCell` does.

    The equations are those of Zaremba et al. 2014, arXiv:1409.2329, with the 1
    of forget_bias.

    Args:
        weights: {name of a variable: its value}, as `Network.weights` gives them.
        image: float32 [784] in [0, 1].
        rows: float32 [28, 10], the network's probabilities after each row.

    Returns:
        A list of `Layer`, the one that reads the rows first.

    Raises:
        UserError: the network's answers come from something else, such as other
            cells, or columns in place of rows.
    """
    name = 'RNN/multi_rnn_cell/cell_%d/basic_lstm_cell/'
    layers, read = [], image.reshape(28, 28)
    while name % len(layers) + 'kernel' in weights:
        layers.append(_layer(read, weights[name % len(layers) + 'kernel'],
                             weights[name % len(layers) + 'bias']))
        read = layers[-1].h
    if not layers or not np.allclose(
            _softmax(read @ weights['W'] + weights['bias']), rows, atol=1e-3):
        raise UserError('--cells draws BasicLSTMCells that read an image row by '
                        'row, and this network is another: leave it out')
    return layers


def _softmax(logits):
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def _layer(read, kernel, bias):
    """Returns the `Layer` that reads float32 [28, in], row by row."""
    c = h = np.zeros(len(bias) // 4, np.float32)
    rows = []
    for x in read:
        i, j, f, o = np.split(np.concatenate([x, h]) @ kernel + bias, 4)
        i, j, f, o = _sigmoid(i), np.tanh(j), _sigmoid(f + 1), _sigmoid(o)
        c = f * c + i * j
        h = o * np.tanh(c)
        rows.append((i, j, f, o, c, h))
    return Layer(*map(np.array, zip(*rows)))


def _sigmoid(x):
    # As a tanh, it does not overflow.
    return (1 + np.tanh(x / 2)) / 2


def most_telling(layer, count):
    """Chooses the units whose c moves most while the image is read.

    Those with the largest difference between their highest and their lowest c,
    the 0 before the first row among them. They are ordered by the row at which
    c changes most, the earliest first.

    Args:
        layer: `Layer`.
        count: int; fewer come back if the layer has fewer.

    Returns:
        int64 [count], the numbers of the units.
    """
    c = np.pad(layer.c, ((1, 0), (0, 0)), 'constant')
    units = np.ptp(c, axis=0).argsort(kind='stable')[::-1][:count]
    changes = np.abs(np.diff(c[:, units], axis=0))
    return units[changes.argmax(0).argsort(kind='stable')]
