"""What a run needs around the tutorial: flags, files, checkpoints, devices.

The scripts beside this package are the tutorial, and they import from here.
Nothing here imports them; where a module needs `model.build_export`, it is
handed over. A module holds one concept:

    errors            what a user can repair, and how a script says it
    output            stdout and stderr, of which a reader may go away
    packages          the packages that a script needs, and their versions
    command_line      kinds of flags, the flags of a run, and --resume
    files             files written whole or not at all, and their checksums
    mnist_files       MNIST's four files: found, fetched, checked
    datasets          which data sets there are, and what they are made of
    digits            the bundled digits, made like MNIST's
    images            a picture of a digit, made like MNIST's
    cards             NVIDIA's cards: can TensorFlow 1.15 use them?
    device            where the graph runs, and the session's config for it
    memory            the C library's, kept from one step for the next
    gradients         a cell's gradients, computed in less time
    schedule          the learning rate over the steps
    divergence        a training that comes apart, noticed
    averages          moving averages of the weights
    evaluation        accuracy and loss on many images
    workers           the processes that train together; here, one alone
    horovod_workers   several of them, by Horovod
    signals           Ctrl-C, SIGTERM and SIGHUP
    run_directory     the folder of a run: locked, and written file by file
    checkpoints       a run's checkpoints, saved and restored
    saved_model       the trained network, exported and loaded
    summaries         what TensorBoard shows
    progress          the bar, or the lines that stand for it
    cells             what the cells of a trained network do, row by row
    figures           what matplotlib draws
    notes             what is noted of a training, on all three
    run               all of this around the steps of a training
"""
