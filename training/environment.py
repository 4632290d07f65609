"""The environment of a run: variables, limits, the processor, the import of TensorFlow.

Import this before any package. It removes the variables that must not reach them;
docs/trouble.md lists these.

    python -m training.environment

prints an error and exits with 1 if make cannot install TensorFlow here, or if the
processor cannot run it. Any Python 3 runs this, without packages.
"""
import contextlib
import ctypes
import gc
import math
import mmap
import os
import platform
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import warnings

from training.errors import UserError

# They change the graph, let TensorFlow take all memory of a GPU, or are meant for newer
# versions: TensorFlow 1.15 aborts at a flag of XLA that it does not know.
REMOVED = re.compile(r'TF2_BEHAVIOR|TF_ENABLE_\w+_V2|TF_FORCE_GPU_ALLOW_GROWTH|'
                     r'(TF_)?XLA_FLAGS|TQDM_\w+')
DEFAULTS = {
    'TF_CPP_MIN_LOG_LEVEL': '2',  # errors of the C++ side
    # What the driver compiles for a GPU newer than CUDA 10.0 is more than its cache
    # keeps by default. This is the most that it can keep (CUDA C++ Programming Guide).
    'CUDA_CACHE_MAXSIZE': str(2 ** 32)}
# Python and the loader have read these before this can remove them.
NAMED = ('PYTHONPATH', 'PYTHONOPTIMIZE', 'LD_LIBRARY_PATH', 'LD_PRELOAD')

# They save a training and stop it. The terminal sends SIGHUP when it is closed, and
# clusters send the last three before the time of a job is over. Windows has two.
SIGNALS = [getattr(signal, name) for name in (
    'SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGXCPU')
    if hasattr(signal, name)]

# push rbx; mov eax, 1; cpuid; mov eax, ecx; pop rbx; ret
CPUID_1_ECX = bytes.fromhex('53 b801000000 0fa2 89c8 5b c3')
AVX = 1 << 28  # in ecx (Intel 64 manual, volume 2A, CPUID)

OWN_CGROUPS, CGROUPS = '/proc/self/cgroup', '/sys/fs/cgroup'  # see cgroups(7)


def clean():
    """Remove variables and set defaults, a home folder and the standard streams."""
    for name in filter(REMOVED.fullmatch, list(os.environ)):
        del os.environ[name]
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if os.path.expanduser('~') == '~':  # a container's user may have no home folder
        os.environ['HOME'] = '/'
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: a file of the run would get the number, and the log
            os.open(os.devnull, os.O_RDWR)
    if sys.warnoptions:  # with -W error, TensorFlow's imports raise their warnings
        warnings.simplefilter('ignore')


clean()


def processor_problem():
    """Return a str that says why TensorFlow cannot run on this machine, or None."""
    if platform.machine() not in ('x86_64', 'AMD64'):
        return ('TensorFlow 1.15 runs on 64-bit x86 processors only, and this is %s: '
                'use another machine' % platform.machine())
    if 'musl' in (sysconfig.get_config_var('HOST_GNU_TYPE') or ''):
        return ('TensorFlow 1.15 needs glibc, and this system has musl: use another '
                'one, such as Debian or Ubuntu')
    try:
        # Ask the processor: an emulator may show another one in /proc/cpuinfo.
        page = mmap.mmap(-1, mmap.PAGESIZE,
                         prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(CPUID_1_ECX)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        if ctypes.CFUNCTYPE(ctypes.c_uint32)(address)() & AVX:
            return None
    except (OSError, AttributeError):  # code in memory is forbidden; Windows has none
        return None
    return ('TensorFlow 1.15 needs a processor with AVX, and this one has none: use '
            'another machine, such as a free one in Google Colab')


def proxy_problem(scheme='https'):
    """Return a str that says why nothing can be fetched through the proxy, or None."""
    import urllib.request  # takes a while, and few need it
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get('all', '')
    if not proxy.lower().startswith('socks'):
        return None
    return ('pip and requests cannot use the SOCKS proxy %s: set http_proxy and '
            'https_proxy to the HTTP address of your proxy, such as '
            'http://127.0.0.1:7890, or unset the variable that names it' % proxy)


def cores():
    """Return how many cores this process may use: its affinity, and its cgroups."""
    on_linux = hasattr(os, 'sched_getaffinity')
    quotas = _in_cgroups('cpu', 'cpu.max') + [
        quota + period for quota, period in zip(
            *(_in_cgroups('cpu', 'cpu.cfs_%s_us' % name) for name in (
                'quota', 'period')))]
    return min([len(os.sched_getaffinity(0)) if on_linux else os.cpu_count(),
                *(math.ceil(quota / period) for quota, period in quotas
                  if 0 < quota < math.inf)])


def free_memory():
    """Return how many bytes this process may still take, a float; inf if unknown."""
    limits = _in_cgroups('memory', 'memory.max') + _in_cgroups(
        'memory', 'memory.limit_in_bytes')
    try:
        with open('/proc/meminfo') as meminfo, open('/proc/self/status') as status:
            available = re.search(r'MemAvailable: +(\d+) kB', meminfo.read())
            own = re.search(r'VmRSS:\s+(\d+) kB', status.read())
    except OSError:  # not on Linux
        return math.inf
    return min([1024. * int(available[1]), *(limit - 1024. * int(own[1])
                                             for limit, in limits)])


def _in_cgroups(controller, name):
    """Return the numbers in a file of the cgroups of this process, innermost first.

    This is a list of lists of floats, for each cgroup that has the file.
    """
    found = []
    with contextlib.suppress(OSError), open(OWN_CGROUPS) as f:
        for line in f:
            _, controllers, path = line.rstrip('\n').split(':', 2)
            if controllers and controller not in controllers.split(','):
                continue
            root = os.path.join(CGROUPS, controller if controllers else '')
            # In a container, the path may be the host's. Then only '' is there.
            for depth in range(path.count('/') + 1):
                file = os.path.join(root + path.rsplit('/', depth)[0], name)
                with contextlib.suppress(OSError), open(file) as numbers:
                    found.append([float(number.replace('max', 'inf'))
                                  for number in numbers.read().split()])
    return found


def import_tensorflow():
    """Import TensorFlow and silence its warnings, but not its errors.

    Raises:
        UserError: it cannot be imported, it is not 1.15, the processor is too old, or
            no more threads can be started.
    """
    if processor_problem():  # the import would end the process
        raise UserError(processor_problem())
    _start_threads(16 + 4 * cores())
    # TensorFlow's modules and graphs are 400,000 objects that stay. By default, Python
    # searches them for garbage so often that it takes 0.7 s. The two ones let it find
    # the graph of an earlier run in a notebook soon.
    gc.set_threshold(10 ** 5, 1, 1)
    try:
        import tensorflow as tf
    except Exception as error:  # a protobuf that is too new raises a TypeError
        text = '%s: %s' % (type(error).__name__, error)
        # TensorFlow's and numpy's texts are long, and the cause is the last of these.
        found = (re.findall(r'^(?:\w*Error|Original error was): .+', text, re.M)
                 or text.splitlines())[-1]
    else:
        found = 'this is ' + tf.__version__
    if not found.startswith('this is 1.15.'):
        raise UserError(
            'TensorFlow 1.15 is needed (%s): %s' % (
                found, _culprit() or 'in a Python 3.7, pip install -r '
                'requirements.txt, or use make train'))
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    # Do not even look for deprecated arguments: this takes a sixth of the time to build
    # a graph.
    from tensorflow.python.util import deprecation
    deprecation._PRINT_DEPRECATION_WARNINGS = False


def _start_threads(count):
    """Raise a `UserError` if that many threads cannot run: TensorFlow would abort.

    On two cores TensorFlow and numpy have 22 at a time.
    """
    done = threading.Event()
    try:
        for _ in range(count):
            threading.Thread(target=done.wait).start()
    except RuntimeError:
        raise UserError('TensorFlow cannot start the %d threads that it needs: raise '
                        'ulimit -u, or the limit of processes of the container' % count)
    finally:
        done.set()


def _culprit():
    """Return advice if TensorFlow can be imported without variables of `NAMED`."""
    named = ' '.join(name for name in NAMED if name in os.environ)
    works = named and not subprocess.call(
        [sys.executable, '-c', 'import tensorflow; tensorflow.Session'],
        env={name: value for name, value in os.environ.items() if name not in NAMED},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return 'unset %s, and it can be imported' % named if works else None


if __name__ == '__main__':
    problem = processor_problem() or proxy_problem()
    if problem:
        sys.exit('error: ' + problem)
