# make train        trains on MNIST; if it cannot be fetched, on scikit-learn's digits
#     DATA_DIR=...  the folder with MNIST's four files
#     MIRROR=...    where to fetch them from
#     FLAGS=...     flags for train_lstm_mnist.py
#     GPU=0         does not install CUDA 10.0 if the machine has an NVIDIA GPU
# make quick        trains with --quick: a smaller network, in less time
# make check-gpu    says whether TensorFlow can use this machine's GPU, and what to do
# make gpu          installs CUDA 10.0 and cuDNN 7 into .venv
#     CUBLAS=10|12  with this cuBLAS (default: 12 for GPUs newer than Turing, else 10)
# make test         runs the tests; MNIST_DATA_DIR=... names a folder with MNIST
# make lint         runs the linter, and checks that the locks match requirements.txt
# make lock         writes the locks in requirements/
# make tensorboard  shows the runs in runs/; FLAGS=... are TensorBoard's
# make results      trains ten seeds and prints a table of their accuracies; DATA_DIR,
#                   MIRROR and FLAGS as for train
# make bench        measures time and memory beside the tutorial's code and PyTorch
# make photos       counts the right names of the pictures in PHOTOS=folder, whose
#                   labels.tsv has lines of file, tab, digit; RUNS=... are the networks
# make horovod      builds Horovod into .venv, for several GPUs or machines
# make torture      kills trainings and fetches, corrupts fetches, and fills disks
#
# All but lock make .venv first. They use the Python 3.7 that PYTHON=... names, or find
# one, or fetch one into .python.

DATA_DIR = MNIST_data
MIRROR =
export DATA_DIR MIRROR PHOTOS
# Packages go into .venv and come from there, whatever the user's settings are.
export PIP_USER = 0
unexport PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX

python = .venv/bin/python
data_dir = --data_dir "$$DATA_DIR"
mirror = $${MIRROR:+--mirror "$$MIRROR"}

.PHONY: gpu gpu-if-any check-gpu train quick test lint lock tensorboard results bench photos horovod torture

# Python cannot report a signal that ends it. 132 to 139 are 128 + SIGILL to SIGSEGV; the
# script itself returns 129, 130 and 143.
train = $(python) train_lstm_mnist.py
report_signal = { status=$$?; case $$status in \
	137) echo 'error: the training was killed (status 137), probably because the machine has too little memory: see dmesg' >&2;; \
	13[2-9]) echo "error: TensorFlow aborted (status $$status), probably because the GPU failed or has no memory left: see the lines above, nvidia-smi and dmesg" >&2;; \
	esac; case $$status in \
	13[2-9]) echo "If the run directory named above has a checkpoint, go on with make train FLAGS='--resume runs/...'. If it happens again, add --device cpu to FLAGS." >&2;; \
	esac; exit $$status; }

# Digits never replace data that the user names, or that of a run to --resume. There,
# DATA_DIR is passed only if the user set it: its default may not be the run's folder.
train: .venv/installed $(if $(filter 0,$(GPU)),,gpu-if-any)
ifneq (,$(filter --data_dir% --dataset% --mirror% --resume%,$(FLAGS))$(filter-out file,$(origin DATA_DIR)))
	@$(train) $(if $(filter file,$(origin DATA_DIR)),,$(data_dir)) $(mirror) $(FLAGS) || $(report_signal)
else
	@$(python) data.py "$$DATA_DIR" $${MIRROR:+"$$MIRROR"}; \
	case $$? in \
	0)  $(train) $(data_dir) $(FLAGS) || $(report_signal);; \
	3)  echo "MNIST is not in $$DATA_DIR and could not be fetched. Training on scikit-learn's small digits instead." >&2; \
	    $(train) --dataset digits $(FLAGS) || $(report_signal); \
	    echo "This accuracy is on scikit-learn's digits, NOT on MNIST." >&2;; \
	*)  exit 1;; \
	esac
endif

quick: override FLAGS := --quick $(FLAGS)
quick: train

gpu: .venv/installed
	@$(python) tools/cuda.py $(if $(CUBLAS),--cublas $(CUBLAS)) .venv

gpu-if-any: .venv/installed
	@$(python) tools/cuda.py --if-gpu $(if $(CUBLAS),--cublas $(CUBLAS)) .venv || { \
	    echo 'To train on the CPU: make train GPU=0' >&2; exit 1; }

check-gpu: .venv/installed
	@$(python) -m training.gpu || true

test: .venv/installed
	@$(python) -m pytest -ra -n 2 --dist worksteal tests

lint: .venv/installed
	@$(python) -m ruff check --quiet .
	@$(SHELL) tools/lock --check

lock:
	@$(SHELL) tools/lock

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
	    echo 'note: PyTorch could not be installed; it needs a python3 of 3.11 or newer.' >&2
	@$(python) -m bench $(data_dir) $(FLAGS)

photos: .venv/installed
	@$(python) -m bench.photos "$$PHOTOS" $(RUNS)

# Without build isolation, so that it is built with the TensorFlow in .venv. Environment
# variables such as HOROVOD_GPU_OPERATIONS=NCCL reach the build.
horovod: .venv/installed
	@for tool in cmake c++; do \
	    command -v $$tool >/dev/null || { \
	        echo "error: building Horovod needs $$tool: run apt install cmake g++, or the like, then make horovod again" >&2; \
	        exit 1; }; \
	done
	@HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
	    $(python) -m pip install --no-build-isolation -r requirements/horovod.txt >&2 && \
	TF_CPP_MIN_LOG_LEVEL=2 $(python) -c 'import horovod.tensorflow'

torture: .venv/installed
	@$(python) tests/torture.py $(FLAGS)

# Make .venv again if its Python was removed.
ifeq (,$(shell test -x $(python) && echo yes))
.PHONY: .venv/installed
endif

# pip is replaced first, because the pip of an early 3.7 cannot install today's wheels.
# The imports show that nothing is missing.
.venv/installed: requirements/tests.txt
	@python=$$($(SHELL) tools/find_python '$(PYTHON)') || exit 1; \
	echo "Making .venv with $$python and installing the pinned packages." >&2; \
	"$$python" -m venv --clear .venv && \
	grep -A 2 ^pip== requirements/tests.txt | \
	    $(python) -m pip install --quiet --disable-pip-version-check -r /dev/stdin && \
	$(python) -m pip install -r requirements/tests.txt >&2 && \
	TF_CPP_MIN_LOG_LEVEL=2 $(python) -c 'import hypothesis, matplotlib, PIL, pooch, pytest, sklearn, tensorflow, tqdm' && \
	touch $@

.venv-torch/installed:
	@echo 'Making .venv-torch with PyTorch, which takes some GB.'
	@python3 -m venv --clear .venv-torch
	@.venv-torch/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
	@touch $@
