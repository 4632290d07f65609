"""What a good run needs around the tutorial.

The scripts beside this package are the tutorial. They import from here; nothing here
imports them. From the bottom up:

    errors           errors that the user can fix, exit statuses, missing packages
    environment      variables, limits, the processor, the import of TensorFlow
    run_directory    the folder of a run: lock, files that appear whole
    idx              files in MNIST's format: find, check, read
    mnist_files      MNIST's four files, opened once
    digits           scikit-learn's digits, opened once
    workers          one process, or several with Horovod
    flags            kinds of flags, what --resume may change
    gpu              can TensorFlow 1.15 use the GPU here? make check-gpu
    device           choose the device, threads
    gradients        the gradients of a cell, computed in less time
    checkpoints      save, restore, stop when it diverges
    plots            how to draw with matplotlib; curves.png
    metrics          progress bar, TensorBoard, validation
    saved_model      export and load the trained network
    loop             all of this around the steps: hooks, Ctrl-C, the end
"""
