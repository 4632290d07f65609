"""The tutorial's network with PyTorch's nn.LSTM; it needs no TensorFlow."""
import gzip
import os

import numpy as np

from training.mnist_files import FILES, VALIDATION_SIZE


def read_arrays(folder):
    """Reads MNIST without TensorFlow, as images, labels, and those of the test.

    Images are float32 [n, 784] in [0, 1], labels int64 [n].
    """
    def read(name, header, kind):
        with gzip.open(os.path.join(folder, name)) as f:
            return np.frombuffer(f.read()[header:], np.uint8).astype(kind)

    images, labels, test_images, test_labels = (
        read(name, 16, 'float32').reshape(-1, 784) / 255 if 'images' in name
        else read(name, 8, 'int64') for name in FILES)
    return (images[VALIDATION_SIZE:], labels[VALIDATION_SIZE:],
            test_images, test_labels)


def prepare(mnist, size, job=False):
    """Builds the network, with the tutorial's loss and optimizer.

    Args:
        mnist: the data, as `read_arrays` gives it.
        size, job: as for `tutorial.prepare`.

    Returns:
        As `tutorial.prepare`.
    """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(28, size['hidden_size'], size['layer_num'],
                                batch_first=True,
                                dropout=0.5 * (size['layer_num'] > 1))
            self.dropout = nn.Dropout(0.5)
            self.linear = nn.Linear(size['hidden_size'], 10)

        def forward(self, images):
            outputs, _ = self.lstm(images.view(-1, 28, 28))
            return self.linear(self.dropout(outputs[:, -1]))

    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    net = Net().to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    cross_entropy = nn.CrossEntropyLoss()
    images, labels, test_images, test_labels = (
        torch.from_numpy(part).to(device) for part in mnist)
    place, order = len(images), None

    def step():
        nonlocal place, order
        if place + size['batch_size'] > len(images):
            place, order = 0, torch.randperm(len(images))
        batch = order[place:place + size['batch_size']]
        place += size['batch_size']
        optimizer.zero_grad()
        # The tutorial's loss is a mean over the classes, too.
        loss = cross_entropy(net(images[batch]), labels[batch]) / 10
        loss.backward()
        optimizer.step()
        if device.type == 'cuda':
            torch.cuda.synchronize()  # or the step would go on after it is timed
        return batch

    def share_right(images, labels):
        net.eval()
        with torch.no_grad():
            share = (net(images).argmax(1) == labels).float().mean().item()
        net.train()
        return share

    def predict():
        return share_right(test_images, test_labels)

    if job:
        for i in range(size['steps']):
            batch = step()
            if (i + 1) % 200 == 0:
                print('step %d, training accuracy %g' % (
                    i + 1, share_right(images[batch], labels[batch])))
        print('test accuracy %g' % predict())
    return step, predict
