"""Find and draw the images that a network names wrongly."""
import numpy as np


class Errors(object):
    """What a network makes of a test set.

    Attributes:
        accuracy: float, the share of images with the right name.
        wrong: the numbers of the images that are named wrongly, int64 [m]; those that
            were named with the highest probability come first.
    """

    def __init__(self, mnist, probabilities, names):
        """
        Args:
            mnist: the data, as `data.read_data_sets` returns it.
            probabilities: float [n, classes], the network's answers for `mnist.test`.
            names: list of str, the names of the classes.
        """
        probabilities = np.asarray(probabilities)
        self._images = mnist.test.images.reshape(-1, *mnist.source.shape)
        self._labels, self._named = mnist.test.labels.argmax(1), probabilities.argmax(1)
        self._names = names
        self._highest = probabilities.max(1)
        is_right = self._labels == self._named
        self.accuracy = is_right.mean()
        sure_first = (-self._highest).argsort(kind='stable')
        self.wrong = sure_first[~is_right[sure_first]]

    def counts(self):
        """Return how many images of each class (row) got each name (column)."""
        counts = np.zeros([len(self._names)] * 2, int)
        np.add.at(counts, (self._labels, self._named), 1)
        return counts

    def class_accuracy(self):
        """Return {name of a class: accuracy}, None for a class without images."""
        return {name: float('%g' % (row[k] / row.sum())) if row.any() else None
                for k, (name, row) in enumerate(zip(self._names, self.counts()))}

    def draw(self):
        """Draw the counts and the first of the wrong images.

        Return a PNG file of 1300 x 700 pixels, or raise a `UserError`.
        """
        from reading import pictures  # needs matplotlib
        return pictures.draw_errors(self.counts(), self._names, [
            (self._images[k], self._names[self._labels[k]], self._names[self._named[k]],
             k, self._highest[k]) for k in self.wrong[:pictures.SHOWN]])
