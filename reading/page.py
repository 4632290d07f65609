"""Write a network as an HTML page that reads what one draws."""
import base64
import json
import os

import numpy as np

from reading import cells

HERE = os.path.dirname(os.path.abspath(__file__))


def make_page(network, tests):
    """Return an HTML file, bytes, that needs no other file and makes no request.

    Args:
        network: `saved_model.Network`.
        tests: images of the test set to show, float [n, pixels] in [0, 1].

    Raises:
        UserError: the network does not compute what page.js computes.
    """
    weights = network.weights()
    noise = np.random.RandomState(0).rand(np.prod(network.shape)).astype(np.float32)
    cells.follow(weights, noise, *network([noise]))
    layers = cells.layer_names(weights)
    parts = [*(layer + part for layer in layers for part in ('kernel', 'bias')),
             'W', 'bias']
    floats = np.concatenate([weights[part].ravel() for part in parts])
    content = json.dumps({
        'shape': network.shape, 'names': network.names,
        'layers': [len(weights[layer + 'bias']) // 4 for layer in layers],
        'weights': _base64(floats.astype('<f4')),
        'tests': [_base64(np.rint(255 * image).astype(np.uint8)) for image in tests]})
    page = _read('page.html').replace('{{script}}', _read('page.js'))
    # The name of a class may hold </script>.
    return page.replace('{{network}}', content.replace('<', '\\u003c')).encode()


def first_of_classes(images, labels, count=10):
    """Return the first image of each class, for the first classes that occur."""
    _, first = np.unique(labels.argmax(1), return_index=True)
    return images[first[:count]]


def _base64(array):
    return base64.b64encode(array.tobytes()).decode()


def _read(name):
    with open(os.path.join(HERE, name), encoding='utf-8') as f:
        return f.read()
