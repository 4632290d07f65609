"""The tutorial's network with PyTorch's nn.LSTM."""
import torch
from torch import nn

from bench.peers import read_data_sets, shuffled  # noqa: F401


def prepare(mnist, size):
    """Build the network; see `baseline.prepare`."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    lstm = nn.LSTM(28, size['hidden_size'], size['layer_num'], batch_first=True,
                   dropout=0.5)
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(size['hidden_size'], 10))
    net = nn.ModuleList([lstm, head]).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    batches = shuffled(mnist, size['batch_size'])

    def logits(images):
        outputs, _ = lstm(torch.from_numpy(images).to(device))
        return head(outputs[:, -1])

    def train():
        images, labels = next(batches)
        optimizer.zero_grad()
        # The tutorial's loss is the mean over the ten classes, too.
        loss = nn.functional.cross_entropy(
            logits(images), torch.from_numpy(labels).to(device)) / 10
        loss.backward()
        optimizer.step()
        loss.item()  # waits for a GPU

    def evaluate(images, labels):
        net.eval()
        with torch.no_grad():
            answers = logits(images).argmax(1).cpu().numpy()
        net.train()
        return (answers == labels).mean()

    return train, evaluate
