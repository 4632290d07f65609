"""The tutorial's network with PyTorch's nn.LSTM. It needs no TensorFlow."""
import gzip
import os

import numpy as np
import torch
from torch import nn

from training.mnist_files import FILES

VALIDATION_SIZE = 5000  # images that TensorFlow's reader sets aside


def read_data_sets(data_dir):
    """Return images and labels to train with, and those to test with, as tensors."""
    def read(name):
        with gzip.open(os.path.join(data_dir, name)) as f:
            body = np.frombuffer(f.read(), np.uint8)
        return torch.from_numpy(body[16:].reshape(-1, 784) / np.float32(255)
                                if 'images' in name else body[8:].astype(np.int64))

    images, labels, *test = map(read, FILES)
    return (images[VALIDATION_SIZE:], labels[VALIDATION_SIZE:]), test


def prepare(mnist, size):
    """Build the network; see `baseline.prepare`."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    lstm = nn.LSTM(28, size['hidden_size'], size['layer_num'], batch_first=True,
                   dropout=0.5)
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(size['hidden_size'], 10))
    net = nn.ModuleList([lstm, head]).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    images, labels = (part.to(device) for part in mnist)

    def logits(images):
        outputs, _ = lstm(images.view(-1, 28, 28))
        return head(outputs[:, -1])

    def shuffled(batch_size):
        while True:
            yield from torch.randperm(len(images)).unfold(0, batch_size, batch_size)

    batches = shuffled(size['batch_size'])

    def train():
        batch = next(batches)
        optimizer.zero_grad()
        # The tutorial's loss is the mean over the ten classes, too.
        loss = nn.functional.cross_entropy(logits(images[batch]), labels[batch]) / 10
        loss.backward()
        optimizer.step()
        loss.item()  # waits for a GPU

    def evaluate(images, labels):
        net.eval()
        with torch.no_grad():
            correct = logits(images.to(device)).argmax(1) == labels.to(device)
        net.train()
        return correct.float().mean().item()

    return train, evaluate
