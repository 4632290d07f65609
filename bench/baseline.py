"""Run bench/tutorial.py with other values.

    python -m bench.baseline SIZE

SIZE is a dict in JSON. Its keys are some of `PLACES`.
"""
import ast
import json
import os
import sys
from unittest import mock

# The tutorial's values, and the code around each.
PLACES = {'data_dir': ('read_data_sets(%r', 'MNIST_data'),
          'hidden_size': ('\nhidden_size = %d\n', 256),
          'layer_num': ('\nlayer_num = %d\n', 2),
          'batch_size': (' _batch_size = %d\n', 128),
          'steps': (' in range(%d)', 2000)}


def statements(size):
    """Return the tutorial's statements with the values in `size`."""
    with open(os.path.join(os.path.dirname(__file__), 'tutorial.py')) as f:
        code = f.read()
    for name in set(PLACES) & set(size):
        place, value = PLACES[name]
        before, after = code.split(place % value)  # fails if it is not there once
        code = before + place % size[name] + after
    return ast.parse(code).body


def prepare(mnist, size):
    """Run the statements before the loop. Return two functions: `train` runs a training
    step, `evaluate` runs the test."""
    from tensorflow.examples.tutorials.mnist import input_data
    *before, loop, test = statements(size)
    *step, _ = loop.body  # without the training accuracy
    names = {}
    with mock.patch.object(input_data, 'read_data_sets', lambda *_, **__: mnist):
        function(before, names)()
    return function(step, names), function([test], names)


def function(body, names):
    """Return a function that runs statements; their variables are in `names`."""
    code = compile(ast.Module(body), 'tutorial.py', 'exec')
    return lambda *_: exec(code, names)


if __name__ == '__main__':
    function(statements(json.loads(sys.argv[1])), {})()
