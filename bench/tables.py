"""What was measured, as tables in Markdown."""
import statistics

from bench.networks import NAMES


def spread(values, form):
    """Returns `median (lowest to highest)`."""
    return '%s (%s to %s)' % tuple(
        form % of(values) for of in (statistics.median, min, max))


def ratios(figures, name, other):
    """Returns the `spread` of one's seconds by the other's, round by round."""
    if other not in figures:
        return '-'
    return spread([a / b for a, b in zip(figures[name]['seconds'],
                                         figures[other]['seconds'])], '%.2f')


def table(*rows):
    """Prints rows, the first of which is the header."""
    header, *rows = rows
    for row in [header, ['---'] * len(header)] + rows:
        print('| %s |' % ' | '.join(map(str, row)))
    print(flush=True)


def print_step(figures):
    """Prints what `measure.step` returns."""
    table(['a training step', 'ms', "of the tutorial's", "of PyTorch's"], *(
        [NAMES[name], spread([1000 * s for s in of['seconds']], '%.0f'),
         ratios(figures, name, 'tutorial'), ratios(figures, name, 'torch')]
        for name, of in figures.items()))
    phases = ['import', 'data', 'graph', 'first step']
    table(['before the second step, s'] + phases, *(
        [NAMES[name]] + ['%.1f' % of['phases'][phase] for phase in phases]
        for name, of in figures.items() if name != 'products'))


def print_kernels(figures):
    """Prints what `measure.kernels` returns."""
    table(['a training step on a GPU', 'kernels', 'ms', 'of which no kernel runs, %'],
          *([NAMES[name], spread(of['kernels'], '%d'),
             spread([1000 * s for s in of['seconds']], '%.0f'),
             spread([100 * (1 - busy / s) for busy, s
                     in zip(of['busy'], of['seconds'])], '%.0f')]
            for name, of in figures.items()))


def print_size(sizes):
    """Prints what `measure.sizes` returns."""
    table(['a training step', 'ms', 'of its matrix products'], *(
        [' '.join('--%s %d' % pair for pair in size.items()),
         spread([1000 * s for s in figures['script']['seconds']], '%.0f'),
         ratios(figures, 'script', 'products')] for size, figures in sizes))


def print_job(figures):
    """Prints what `measure.job`, `measure.start` or `measure.quick` returns."""
    table(['from start to exit', 's', "of the tutorial's", "of PyTorch's",
           'resident at most, MiB', 'test accuracy'], *(
        [NAMES[name], spread(of['seconds'], '%.0f'),
         ratios(figures, name, 'tutorial'), ratios(figures, name, 'torch'),
         spread(of['peak'], '%.0f'), spread(of['accuracy'], '%.4f')]
        for name, of in figures.items()))


def print_memory(figures):
    """Prints what `measure.memory` returns."""
    table(['naming 10,000 images at once', 'before, MiB', 'more at most, MiB'],
          *([NAMES[name], spread(of['before'], '%.0f'),
             spread([peak - before for before, peak
                     in zip(of['before'], of['peak'])], '%.0f')]
            for name, of in figures.items()))
