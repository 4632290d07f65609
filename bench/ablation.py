"""Time the training step without parts of what makes it fast.

    python -m bench.ablation SIZE ROUNDS

SIZE is as for `bench.process`. All variants are sessions of one process, because equal
processes differ by 5 %. They take turns, one step each.
"""
import contextlib
import json
import os
import statistics
import sys
from unittest import mock

import tensorflow as tf

from bench import measure, networks
from bench.process import timed
from training import device, gradients

# Gradients of training/gradients.py.
MATMUL = ('CellMatMul', 'CellConcat')
ROWS = ('CellIdentity',)
ELEMENTWISE = ('CellMul', 'CellAdd')
# What each variant leaves out.
VARIANTS = {
    'everything': (),
    'everything, again': (),
    'without our gradients': MATMUL + ROWS + ELEMENTWISE,
    'without the transposed kernels': MATMUL,
    'without the element-wise gradients': ELEMENTWISE,
    'with one row in a product': ROWS,
    'with GATE_OP': ('gate',),
    "with TensorFlow's default threads": ('threads',),
    'with the graph optimizers': ('choose',),
    'without any of these': (
        MATMUL + ROWS + ELEMENTWISE + ('gate', 'threads', 'choose')),
}
STEPS = 20  # of each variant in a round


def prepare(mnist, size, parts):
    """Return the training step without parts."""
    override, share_cores = tf.Graph.gradient_override_map, device.share_cores

    def override_some(graph, names):
        return override(graph, {op: name for op, name in names.items()
                                if name not in parts})

    def threads(config, *args):
        config.use_per_session_threads = True
        if 'threads' not in parts:
            share_cores(config, *args)

    patches = [(tf.Graph, 'gradient_override_map', override_some),
               (device, 'share_cores', threads)]
    if 'gate' in parts:
        patches.append((gradients, 'GATE', tf.train.Optimizer.GATE_OP))
    if 'choose' in parts:
        patches.append((device, 'choose', lambda *args: None))
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(mock.patch.object(*patch))
        return networks.script(mnist, size, False)[0]


def main(size, rounds):
    # Sessions share the threads of an operation otherwise.
    os.environ['TF_OVERRIDE_GLOBAL_THREADPOOL'] = '1'
    size, steps = json.loads(size), {}
    mnist, _ = networks.read_data_sets(size['data_dir'])
    for name, parts in VARIANTS.items():
        with tf.Graph().as_default():
            steps[name] = prepare(mnist, size, parts)

    def turns(count):
        return measure.in_turn([*steps], count, lambda name: {
            'ms': 1000 * timed(steps[name])[0]})

    turns(STEPS)  # to warm up
    figures = [turns(STEPS) for _ in range(int(rounds))]
    print(json.dumps({name: {
        heading: [statistics.median(of[name][heading]) for of in figures]
        for heading in ('ms', 'of everything')} for name in steps}))


if __name__ == '__main__':
    main(*sys.argv[1:])
