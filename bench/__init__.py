"""This network beside what one would pick instead: how fast, and how large.

    tutorial    the tutorial, as it stands but for one cell a layer
    pytorch     the same network with PyTorch's nn.LSTM
    networks    all that is compared, by name
    process     a process in which one of them is timed or weighed
    measure     processes, asked in turn, round after round
    kernels     what a step is on a GPU
    machines    several workers, and a model of many machines
    tables      what was measured, as tables
    results     the table of `make results`

`python -m bench --help` tells the options.
"""
