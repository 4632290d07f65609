"""Write a network as an HTML page that reads what one draws."""
import base64
import json
import pkgutil

import numpy as np

from reading import cells


def make_page(network, test=None):
    """Return an HTML file, bytes, that needs no other file and makes no request.

    Args:
        network: `saved_model.Network`.
        test: `DataSet`; the page shows the first image of each of ten classes.

    Raises:
        UserError: the network does not compute what page.js computes.
    """
    weights = network.weights()
    noise = np.random.RandomState(0).rand(np.prod(network.shape)).astype(np.float32)
    cells.follow(weights, noise, *network([noise]))
    layers = cells.layer_names(weights)
    floats = np.concatenate([weights[name].ravel() for name in (
        *(layer + part for layer in layers for part in ('kernel', 'bias')),
        'W', 'bias')])
    first = [] if test is None else np.unique(test.labels.argmax(1),
                                              return_index=True)[1][:10]
    content = json.dumps({
        'shape': network.shape, 'names': network.names,
        'layers': [len(weights[layer + 'bias']) // 4 for layer in layers],
        'weights': _base64(floats.astype('<f4')),
        'tests': [_base64(np.rint(255 * test.images[k]).astype(np.uint8))
                  for k in first]})
    page = pkgutil.get_data('reading', 'page.html').replace(
        b'{{script}}', pkgutil.get_data('reading', 'page.js'))
    # The name of a class may hold </script>.
    return page.replace(b'{{network}}', content.replace('<', '\\u003c').encode())


def _base64(array):
    return base64.b64encode(array.tobytes()).decode()
