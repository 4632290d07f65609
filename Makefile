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
# make bench        measures time and memory beside the tutorial's code and PyTorch;
#                   FLAGS=peers: beside PyTorch, Keras and JAX
# make photos       counts the right names of the pictures in PHOTOS=folder, whose
#                   labels.tsv has lines of file, tab, digit; RUNS=... are the networks
# make horovod      builds Horovod into .venv, for several GPUs or machines
# make torture      kills trainings and fetches, corrupts fetches, and fills disks
#
# All but lock make .venv first. They use the Python 3.7 that PYTHON=... names, or find
# one, or fetch one into .python.

DATA_DIR ?= MNIST_data
names_data := $(filter-out file,$(origin DATA_DIR))

# The environment: docs/trouble.md has a table of what is removed here, and what not.
# A $ in what the user sets is not make's.
$(foreach name,DATA_DIR MIRROR FLAGS PHOTOS RUNS PYTHON MNIST_DATA_DIR, \
    $(if $(value $(name)),$(eval override $(name) := $$(value $(name)))))
export DATA_DIR MIRROR PHOTOS PYTHON MNIST_DATA_DIR
# Packages come from the locks and go into .venv, whatever the user's settings are. These
# say only where to fetch from, and how.
fetching = PIP_CACHE_DIR PIP_CERT PIP_CLIENT_CERT PIP_CONFIG_FILE PIP_DEFAULT_TIMEOUT \
    PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_INDEX_URL PIP_NO_CACHE_DIR PIP_NO_INDEX \
    PIP_PROXY PIP_RETRIES PIP_TIMEOUT PIP_TRUSTED_HOST UV_HTTP_TIMEOUT \
    UV_INSECURE_HOST UV_NATIVE_TLS UV_PYTHON_INSTALL_MIRROR
unexport $(filter-out $(fetching),$(filter PIP_% UV_% PYTEST_%,$(.VARIABLES)))
unexport CDPATH GREP_OPTIONS PYTHONHOME PYTHONINSPECT PYTHONOPTIMIZE PYTHONPATH \
    PYTHONWARNINGS
export PIP_USER = 0
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# A container's user may have no home folder. setuptools fails without one.
HOME ?= /
export HOME

python = .venv/bin/python
data_dir = --data_dir "$$DATA_DIR"
mirror = $${MIRROR:+--mirror "$$MIRROR"}
on_cpu = $(findstring --device cpu,$(subst =, ,$(strip $(FLAGS))))
# Inside '' the shell takes a $ as it is.
as_typed = $(if $(findstring ',$(1)),$(1),$(subst $$,\$$,$(1)))
flags = $(call as_typed,$(FLAGS))

.PHONY: gpu gpu-if-any check-gpu train quick test lint lock tensorboard results bench photos horovod torture

# Python cannot report a signal that ends it: here 128 + SIGILL, SIGTRAP, SIGABRT, SIGBUS,
# SIGFPE, SIGKILL or SIGSEGV. After other signals the script reports and returns them.
train = $(python) train_lstm_mnist.py
report_signal = { status=$$?; case $$status in \
	137) echo 'error: the training was killed (status 137), probably because there is too little memory: see dmesg, and the limit of the container or the job' >&2;; \
	132|133|134|135|136|139) echo "error: TensorFlow aborted (status $$status): see the lines above and dmesg" >&2; \
	    $(if $(on_cpu),,echo 'If it trained on a GPU, see nvidia-smi; if it happens again, add --device cpu to FLAGS.' >&2);; \
	*) exit $$status;; \
	esac; \
	echo "If the run directory named above has a checkpoint, go on with make train FLAGS='--resume runs/...'." >&2; \
	exit $$status; }

# Digits never replace data that the user names, or that of a run to --resume. There,
# DATA_DIR is passed only if the user set it: its default may not be the run's folder.
train: .venv/installed $(if $(filter 0,$(GPU))$(on_cpu),,gpu-if-any)
ifneq (,$(filter --data_dir% --dataset% --mirror% --resume%,$(FLAGS))$(names_data))
	@$(train) $(if $(names_data),$(data_dir)) $(mirror) $(flags) || $(report_signal)
else
	@$(python) data.py "$$DATA_DIR" $${MIRROR:+"$$MIRROR"}; \
	case $$? in \
	0)  $(train) $(data_dir) $(flags) || $(report_signal);; \
	3)  echo "MNIST is not in $$DATA_DIR and could not be fetched. Training on scikit-learn's small digits instead." >&2; \
	    $(train) --dataset digits $(flags) || $(report_signal); \
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
	@$(python) tools/check_gpu.py || true

test: .venv/installed
	@$(python) -m pytest -n 3 --dist worksteal

lint: .venv/installed
	@$(python) -m ruff check --quiet .
	@$(SHELL) tools/lock --check

lock:
	@$(SHELL) tools/lock

# TensorBoard keeps a note of each server in TMPDIR. In /tmp another user's is in the way.
tensorboard: .venv/installed
	@TMPDIR=.venv .venv/bin/tensorboard --logdir runs --host localhost $(flags)

results: .venv/installed
	@dir=runs/results-$$(date +%Y%m%d-%H%M%S); \
	for seed in 1 2 3 4 5 6 7 8 9 10; do \
	    $(python) train_lstm_mnist.py $(data_dir) $(mirror) $(flags) --seed $$seed \
	        --run_dir $$dir/seed-$$seed >&2 || exit; \
	done; \
	$(python) -m bench.results $$dir

peers = torch $(if $(filter peers all,$(FLAGS)),keras jax)
bench: .venv/installed
	@$(MAKE) --no-print-directory -k $(peers:%=.venv-%/installed) >&2 || \
	    echo 'note: not all peers could be installed; they need a python3 of 3.11 or newer.' >&2
	@$(python) -m bench $(data_dir) $(flags)

photos: .venv/installed
	@$(python) -m bench.photos "$$PHOTOS" $(call as_typed,$(RUNS))

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
	@$(python) tests/torture.py $(flags)

# Make .venv again if its Python was removed.
ifeq (,$(shell test -x $(python) && echo yes))
.PHONY: .venv/installed
endif

# pip is replaced first, because the pip of an early 3.7 cannot install today's wheels.
# The imports show that nothing is missing.
.venv/installed: requirements/tests.txt
	@python=$$($(SHELL) tools/find_python "$$PYTHON") || exit 1; \
	echo "Making .venv with $$python and installing the pinned packages." >&2; \
	"$$python" -m venv --clear .venv && \
	grep -A 2 ^pip== requirements/tests.txt | \
	    $(python) -m pip install --quiet -r /dev/stdin && \
	$(python) -m pip install -r requirements/tests.txt >&2 && \
	TF_CPP_MIN_LOG_LEVEL=2 $(python) -c 'import hypothesis, matplotlib, PIL, pooch, pytest, sklearn, tensorflow, tqdm' && \
	touch $@ || { \
	    echo 'error: .venv could not be made: see the lines above, and fix that or a setting that pip config list shows' >&2; \
	    exit 1; }

.venv-torch/installed: packages = torch==2.13.0 numpy==2.4.6
.venv-keras/installed: packages = keras==3.15.1 tensorflow==2.21.0
.venv-jax/installed: packages = jax==0.10.2 optax==0.2.8
.venv-torch/installed .venv-keras/installed .venv-jax/installed:
	@echo 'Making $(@D) with $(packages), which may take some GB.'
	@python3 -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet $(packages)
	@touch $@
