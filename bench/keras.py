"""The tutorial's network with Keras 3 on TensorFlow."""
import keras
from keras import layers

from bench.peers import read_data_sets, shuffled  # noqa: F401


def prepare(mnist, size):
    """Build the network; see `baseline.prepare`."""
    net = keras.Sequential([keras.Input((28, 28))])
    for layer in range(1, size['layer_num'] + 1):
        net.add(layers.LSTM(size['hidden_size'],
                            return_sequences=layer < size['layer_num']))
        net.add(layers.Dropout(0.5))
    net.add(layers.Dense(10))
    # The tutorial's loss is the mean over the ten classes, too.
    net.compile(keras.optimizers.Adam(1e-3),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                loss_weights=[0.1], metrics=['accuracy'])
    batches = shuffled(mnist, size['batch_size'])
    return (lambda: net.train_on_batch(*next(batches)),
            lambda images, labels: net.evaluate(
                images, labels, len(images), verbose=0)[1])
