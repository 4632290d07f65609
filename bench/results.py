"""Print tables in Markdown.

    python -m bench.results DIR

prints that of `make results`, from the result.json of DIR/seed-1 to seed-10.
"""
import json
import os
import statistics
import sys

NAMES = {
    'script': 'train_lstm_mnist.py',
    'dynamic': 'train_lstm_mnist.py --dynamic_rnn',
    'quick': 'train_lstm_mnist.py --quick',
    'tutorial': "the tutorial's graph",
    'torch': 'PyTorch nn.LSTM',
    'keras': 'Keras 3 layers.LSTM',
    'jax': 'JAX lax.scan',
    'products': 'the matrix products alone',
    'cnn': 'a two-layer CNN',
}
FORMATS = {'import': '%.1f', 'data': '%.1f', 'graph': '%.1f', 'first step': '%.1f',
           'in all': '%.1f', 'test accuracy': '%.4f'}  # others: none; a ratio: two


def print_figures(title, figures, headings):
    """Print a table of {name: {heading: [a value per round]}}."""
    headings = [heading for heading in headings  # without PyTorch, not all are there
                if all(heading in of for of in figures.values())]
    print_table([title, *headings], [
        [NAMES.get(name, name), *(spread(of[heading], heading) for heading in headings)]
        for name, of in figures.items()])


def spread(values, heading):
    """Return `median (lowest to highest)`, or one number if all are the same."""
    median, lowest, highest = (
        FORMATS.get(heading, '%.2f' if 'of ' in heading else '%.0f') % of(values)
        for of in (statistics.median, min, max))
    return median if lowest == highest else '%s (%s to %s)' % (median, lowest, highest)


def print_table(header, rows):
    for row in [header, ['---'] * len(header), *rows]:
        print('| %s |' % ' | '.join(map(str, row)))
    print(flush=True)


def print_seeds(folder):
    """Print the accuracies of ten seeds, and their spread."""
    rows = []
    for seed in range(1, 11):
        with open(os.path.join(folder, 'seed-%d' % seed, 'result.json')) as f:
            result = json.load(f)
        rows.append([seed, result['test_accuracy'], result['validation_accuracy']])
    _, *columns = zip(*rows)
    for name, of in (('mean', statistics.mean), ('lowest', min), ('highest', max),
                     ('standard deviation', statistics.stdev)):
        rows.append([name, *map(of, columns)])
    print_table(['seed', 'test', 'validation'],
                [[name, '%.4f' % test, '%.4f' % validation]
                 for name, test, validation in rows])


if __name__ == '__main__':
    print_seeds(sys.argv[1])
