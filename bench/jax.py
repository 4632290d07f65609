"""The tutorial's network with JAX: a plain cell, lax.scan, jit, and Optax's Adam."""
import jax
import jax.numpy as jnp
import optax

from bench.peers import read_data_sets, shuffled  # noqa: F401


def prepare(mnist, size):
    """Build the network; see `baseline.prepare`."""
    hidden, layer_num = size['hidden_size'], size['layer_num']
    adam = optax.adam(1e-3)
    batches = shuffled(mnist, size['batch_size'])
    keys = jax.random.split(jax.random.key(0), layer_num + 2)
    shapes = [(28 + hidden, 4 * hidden), *[(2 * hidden, 4 * hidden)] * (layer_num - 1),
              (hidden, 10)]
    weights = [(jax.nn.initializers.glorot_uniform()(key, shape), jnp.zeros(shape[1]))
               for key, shape in zip(keys[1:], shapes)]
    state = weights, adam.init(weights), keys[0]

    def logits(weights, images, dropout):
        rows = images.swapaxes(0, 1)
        for kernel, bias in weights[:-1]:
            def cell(state, x, kernel=kernel, bias=bias):
                c, h = state
                i, j, f, o = jnp.split(jnp.concatenate([x, h], 1) @ kernel + bias, 4, 1)
                c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (c, h), h

            zero = jnp.zeros((len(images), hidden))
            (_, h), rows = jax.lax.scan(cell, (zero, zero), rows)
            rows = dropout(rows)
        kernel, bias = weights[-1]
        return dropout(h) @ kernel + bias

    def loss(weights, images, labels, key):
        keys = iter(jax.random.split(key, layer_num + 1))
        answers = logits(weights, images, lambda x: jnp.where(
            jax.random.bernoulli(next(keys), 0.5, x.shape), x / 0.5, 0))
        # The tutorial's loss is the mean over the ten classes, too.
        return optax.softmax_cross_entropy_with_integer_labels(
            answers, labels).mean() / 10

    @jax.jit
    def step(state, images, labels):
        weights, moments, key = state
        key, mask = jax.random.split(key)
        grads = jax.grad(loss)(weights, images, labels, mask)
        updates, moments = adam.update(grads, moments)
        return optax.apply_updates(weights, updates), moments, key

    @jax.jit
    def accuracy(weights, images, labels):
        return (logits(weights, images, lambda x: x).argmax(1) == labels).mean()

    def train():
        nonlocal state
        state = jax.block_until_ready(step(state, *next(batches)))

    return train, lambda *test: float(accuracy(state[0], *test))
