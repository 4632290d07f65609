# make train   trains on MNIST, or on the bundled digits where MNIST can't be had
#     DATA_DIR=...  the folder with MNIST's four files
#     MIRROR=...    where to fetch them from
#     FLAGS=...     flags for train_lstm_mnist.py
#     GPU=0         does not fetch CUDA 10.0 where there is an NVIDIA driver
# make quick   the tutorial's accuracy in less time, by a smaller network and other flags
# make check-gpu   says what there is of a card, and what to do
# make gpu     puts CUDA 10.0 and cuDNN 7 into .venv
#     CUBLAS=12     with a cuBLAS that knows newer cards; not tried on one
# make test    runs the tests; MNIST_DATA_DIR=... names a folder with MNIST
# make lint    looks for what the linter and the locks notice
# make lock    makes the locks in requirements/ after a change of what is needed
# make tensorboard   shows the runs in runs/; FLAGS=... are TensorBoard's
# make results       trains ten seeds, and prints a table of their accuracies; DATA_DIR,
#                    MIRROR and FLAGS as for train
# make bench         times and weighs the training beside the tutorial's and PyTorch's
# make horovod       builds Horovod into .venv, for several GPUs or machines
# make torture       kills trainings and fetches, fools fetches and fills disks
#
# All but lock make .venv first, with the Python 3.7 that PYTHON=... names, that is
# found, or that is fetched into .python.

DATA_DIR = MNIST_data
MIRROR =
export DATA_DIR MIRROR

python = .venv/bin/python
data_dir = --data_dir "$$DATA_DIR"
mirror = $${MIRROR:+--mirror "$$MIRROR"}

# What a machine with an NVIDIA driver has.
DRIVER = /proc/driver/nvidia/version

.PHONY: gpu gpu-if-driver check-gpu train quick test lint lock tensorboard results bench horovod torture

# FLAGS that choose the data have the last word, and no digits take its place.
train: .venv/installed $(if $(filter 0,$(GPU)),,$(if $(wildcard $(DRIVER)),gpu-if-driver))
ifneq (,$(filter --resume%,$(FLAGS)))
	@$(python) train_lstm_mnist.py $(if $(filter file,$(origin DATA_DIR)),,$(data_dir)) $(mirror) $(FLAGS)
else ifneq (,$(filter --data_dir% --dataset% --mirror%,$(FLAGS)))
	@$(python) train_lstm_mnist.py $(data_dir) $(mirror) $(FLAGS)
else
	@$(python) data.py "$$DATA_DIR" $${MIRROR:+"$$MIRROR"}; \
	case $$? in \
	0)  exec $(python) train_lstm_mnist.py $(data_dir) $(FLAGS);; \
	3)  echo "MNIST is not in $$DATA_DIR, and no mirror gave it. Training on the small digits that come with scikit-learn instead." >&2; \
	    $(python) train_lstm_mnist.py --dataset digits $(FLAGS) && \
	    echo 'That accuracy is on the bundled digits, NOT on MNIST.' >&2;; \
	*)  exit 1;; \
	esac
endif

quick: override FLAGS := --quick $(FLAGS)
quick: train

gpu: .venv/installed
	@$(python) requirements/cuda.py $(if $(CUBLAS),--cublas $(CUBLAS)) .venv

gpu-if-driver: .venv/installed
	@$(python) requirements/cuda.py --if-driver .venv || { \
	    echo 'To train on the CPU: make train GPU=0' >&2; exit 1; }

check-gpu: .venv/installed
	@$(python) -m training.cards || true

test: .venv/installed
	@$(python) -m pytest -ra -n 2 --dist worksteal tests

lint: .venv/installed
	@$(python) -m ruff check --quiet .
	@requirements/lock --check

lock:
	@requirements/lock

tensorboard: .venv/installed
	@.venv/bin/tensorboard --logdir runs --host localhost $(FLAGS)

results: .venv/installed
	@dir=runs/results-$$(date +%Y%m%d-%H%M%S); \
	for seed in 1 2 3 4 5 6 7 8 9 10; do \
	    $(python) train_lstm_mnist.py $(data_dir) $(mirror) $(FLAGS) --seed $$seed \
	        --run_dir $$dir/seed-$$seed >&2 || exit; \
	done; \
	$(python) -m bench.results $$dir

bench: .venv/installed
	@$(MAKE) --no-print-directory .venv-torch/installed >&2 || \
	    echo 'note: no PyTorch; it wants a python3 of 3.11 or newer.' >&2
	@$(python) -m bench $(data_dir) $(FLAGS)

# Without build isolation, as it is built against the TensorFlow of .venv. What is
# in the environment has the last word, such as HOROVOD_GPU_OPERATIONS=NCCL.
horovod: .venv/installed
	@for tool in cmake c++; do \
	    command -v $$tool >/dev/null || { \
	        echo "error: no $$tool was found, which Horovod is built with: apt install cmake g++, or the like, and run make horovod again" >&2; \
	        exit 1; }; \
	done
	@HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
	    $(python) -m pip install --no-build-isolation -r requirements/horovod.txt >&2 && \
	TF_CPP_MIN_LOG_LEVEL=2 $(python) -c 'import horovod.tensorflow'

torture: .venv/installed
	@$(python) tests/torture.py $(FLAGS)

# An environment whose Python is gone is made again.
ifneq (,$(wildcard .venv/installed))
ifneq (0,$(shell test -x $(python); echo $$?))
.PHONY: .venv/installed
endif
endif

# pip first, since the oldest 3.7s bring one that knows none of today's wheels; the
# import, since another make may have cleared .venv meanwhile.
.venv/installed: requirements/tests.txt
	@python=$$(requirements/find_python '$(PYTHON)') || exit 1; \
	echo "Making .venv with $$python and installing the pinned packages." >&2; \
	"$$python" -m venv --clear .venv && \
	grep -A 2 ^pip== requirements/tests.txt | \
	    $(python) -m pip install --quiet --disable-pip-version-check -r /dev/stdin && \
	$(python) -m pip install -r requirements/tests.txt >&2 && \
	TF_CPP_MIN_LOG_LEVEL=2 $(python) -c 'import hypothesis, matplotlib, PIL, pytest, sklearn, tensorflow, tqdm' && \
	touch $@

.venv-torch/installed:
	@echo 'Making .venv-torch with PyTorch, some GB.'
	@python3 -m venv --clear .venv-torch
	@.venv-torch/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
	@touch $@
