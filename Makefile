# make train   trains on MNIST, or on the bundled digits where MNIST can't be had
#     DATA_DIR=...  the folder with MNIST's four files
#     MIRROR=...    where to fetch them from
#     FLAGS=...     flags for train_lstm_mnist.py
# make test    runs the tests; MNIST_DATA_DIR=... names a folder with MNIST
# make tensorboard   shows the runs in runs/; FLAGS=... are TensorBoard's
# make results       trains five seeds with averaged weights and five without, and
#                    prints a table; DATA_DIR, MIRROR and FLAGS as for train
# make bench         times and weighs the training beside the tutorial's and PyTorch's
# make horovod       builds Horovod into .venv, for several GPUs or machines
# make torture       kills trainings and fetches, fools fetches and fills disks
#
# All make .venv first, with the Python 3.7 that PYTHON=... names or that is found.

DATA_DIR = MNIST_data
MIRROR =
export DATA_DIR MIRROR

.PHONY: train test tensorboard results bench horovod torture

# FLAGS that choose the data have the last word, and no digits take its place.
train: .venv/installed
ifneq (,$(filter --resume%,$(FLAGS)))
	@.venv/bin/python train_lstm_mnist.py \
	    $(if $(filter file,$(origin DATA_DIR)),,--data_dir "$$DATA_DIR") $${MIRROR:+--mirror "$$MIRROR"} $(FLAGS)
else ifneq (,$(filter --data_dir% --dataset% --mirror%,$(FLAGS)))
	@.venv/bin/python train_lstm_mnist.py --data_dir "$$DATA_DIR" $${MIRROR:+--mirror "$$MIRROR"} $(FLAGS)
else
	@.venv/bin/python data.py "$$DATA_DIR" $${MIRROR:+"$$MIRROR"}; \
	case $$? in \
	0)  .venv/bin/python train_lstm_mnist.py --data_dir "$$DATA_DIR" $(FLAGS);; \
	3)  echo "MNIST is not in $$DATA_DIR, and no mirror gave it. Training on the small digits that come with scikit-learn instead." >&2; \
	    .venv/bin/python train_lstm_mnist.py --dataset digits $(FLAGS) && \
	    echo 'That accuracy is on the bundled digits, NOT on MNIST.' >&2;; \
	*)  exit 1;; \
	esac
endif

test: .venv/installed
	@.venv/bin/python -m pytest -ra -n 2 tests

tensorboard: .venv/installed
	@.venv/bin/tensorboard --logdir runs --host localhost $(FLAGS)

define TABLE
import json, statistics, sys
columns = []
for decay in sys.argv[2:]:
    results = [json.load(open('%s/ema_decay-%s/seed-%d/result.json' % (sys.argv[1], decay, seed)))
               for seed in range(1, 6)]
    columns += [[result[key] for result in results] for key in ('test_accuracy', 'validation_accuracy')]
print('| seed |' + ''.join(' test, --ema_decay %s | validation |' % decay for decay in sys.argv[2:]))
print('| --- |' + ' --- |' * len(columns))
for seed, row in enumerate(zip(*columns), 1):
    print('| %d |' % seed + ''.join(' %.4f |' % value for value in row))
for name, of in (('mean', statistics.mean), ('lowest', min), ('highest', max), ('standard deviation', statistics.stdev)):
    print('| %s |' % name + ''.join(' %.4f |' % of(column) for column in columns))
endef
export TABLE

results: .venv/installed
	@dir=runs/results-$$(date +%Y%m%d-%H%M%S); \
	for decay in 0 0.995; do for seed in 1 2 3 4 5; do \
	    .venv/bin/python train_lstm_mnist.py --data_dir "$$DATA_DIR" $${MIRROR:+--mirror "$$MIRROR"} \
	        --ema_decay $$decay --seed $$seed --run_dir $$dir/ema_decay-$$decay/seed-$$seed $(FLAGS) >&2 || exit; \
	done; done; \
	.venv/bin/python -c "$$TABLE" $$dir 0 0.995

bench: .venv/installed
	@[ -e .venv-torch/installed ] || { \
	    echo 'Making .venv-torch with PyTorch, some GB.' >&2; \
	    python3 -m venv --clear .venv-torch && \
	    .venv-torch/bin/pip install --quiet torch==2.13.0 numpy==2.4.6 >&2 && \
	    touch .venv-torch/installed; } || \
	    echo 'note: that failed; it wants a python3 of 3.11 or newer.' >&2
	@.venv/bin/python bench.py --data_dir "$$DATA_DIR" $(FLAGS)

# Without build isolation, as it is built against the TensorFlow of .venv. What is
# in the environment has the last word, such as HOROVOD_GPU_OPERATIONS=NCCL.
horovod: .venv/installed
	@for tool in cmake c++; do \
	    command -v $$tool >/dev/null || { \
	        echo "error: no $$tool was found, which Horovod is built with: apt install cmake g++, or the like, and run make horovod again" >&2; \
	        exit 1; }; \
	done
	@HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
	    .venv/bin/python -m pip install --no-build-isolation -r requirements-horovod.txt >&2 && \
	TF_CPP_MIN_LOG_LEVEL=2 .venv/bin/python -c 'import horovod.tensorflow'

torture: .venv/installed
	@.venv/bin/python tests/torture.py $(FLAGS)

# realpath, since `python` may be that of the very .venv that is to be replaced;
# pip, since the oldest 3.7s bring one that knows none of today's wheels; the
# import, since another make may have cleared .venv meanwhile.
.venv/installed: requirements.txt requirements-dev.txt
	@for candidate in $(if $(PYTHON),'$(PYTHON)',python3.7 python3 python \
	        "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.7.*/bin/python \
	        "$$(uv python find --system 3.7 2>/dev/null)"); do \
	    python=$$("$$candidate" -c 'import os, sys; sys.version_info[:2] == (3, 7) and print(os.path.realpath(sys.executable))' 2>/dev/null) \
	        && [ -n "$$python" ] && break; \
	done; \
	if [ -z "$$python" ]; then \
	    echo 'error: $(if $(PYTHON),$(PYTHON) is no Python 3.7,no Python 3.7 was found) (the last that TensorFlow 1.15 has wheels for). To get one:' >&2; \
	    echo '  uv:         uv python install 3.7' >&2; \
	    echo '  pyenv:      pyenv install 3.7' >&2; \
	    echo '  conda:      conda create -n py37 python=3.7 && conda activate py37' >&2; \
	    echo '  deadsnakes: apt install python3.7-venv, on Ubuntu with ppa:deadsnakes/ppa' >&2; \
	    echo 'then run make again, or name it: make PYTHON=/path/to/python3.7' >&2; \
	    exit 1; \
	fi; \
	echo "Making .venv with $$python and installing the pinned packages." >&2; \
	"$$python" -m venv --clear .venv && \
	grep ^pip== requirements-dev.txt | \
	    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r /dev/stdin && \
	.venv/bin/python -m pip install -r requirements-dev.txt >&2 && \
	TF_CPP_MIN_LOG_LEVEL=2 .venv/bin/python -c 'import hypothesis, matplotlib, PIL, pytest, sklearn, tensorflow, tqdm' && \
	touch $@
