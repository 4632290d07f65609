/* A null GPU: NVIDIA's libraries, as far as TensorFlow 1.15 calls them, without a GPU.
   Here is what is in libcuda.so.1 (the driver), libcudart.so.10.0 (the runtime) and
   libcublas.so.10.0. The other libraries only have to be there. NVIDIA's documentation
   says what the functions are to do; all of their results are ints here. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* In loader.c. */
void take_over(void);           /* makes TensorFlow's own runtime call this one, once */
const char *kernel_name(const void *host_function);

/* Marks a function that others find by its name. All else stays hidden. */
#define API __attribute__((visibility("default")))
#define CONTEXT_BYTES ((size_t) 300 << 20)  /* what a context takes of a GPU */

/* Results of the driver's functions: CUresult of NVIDIA's cuda.h. */
enum {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100,
    INVALID_DEVICE = 101, INVALID_CONTEXT = 201, NO_BINARY = 209, LAUNCH_FAILED = 719
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Settings. */

static struct settings {
    int gpus, driver, mode;
    size_t bytes;                           /* of each GPU */
    const char *name;
} set;

/* From the Nth call (`from`) of the kind WHAT on, such calls fail with CODE. */
#define MOST_FAULTS 16
static struct fault { char what[16]; long from, seen; int code; } faults[MOST_FAULTS];
static int fault_count, sticky;             /* sticky: what all calls fail with, or 0 */

static long setting(const char *name, long standard) {
    const char *value = getenv(name);
    return value && *value ? atol(value) : standard;
}

/* The same for a list with a value for each GPU. The last value is also for the rest. */
static double setting_of(const char *name, int gpu, double standard) {
    const char *value = getenv(name), *next;
    if (!value || !*value) return standard;
    while (gpu-- && (next = strchr(value, ','))) value = next + 1;
    return atof(value);
}

/* Reads a list WHAT[@N][:CODE],... */
static void read_faults(const char *list) {
    while (list && fault_count < MOST_FAULTS) {
        struct fault *f = &faults[fault_count++];
        f->from = 1;
        if (sscanf(list, "%15[a-z]@%ld:%d", f->what, &f->from, &f->code) == 1)
            sscanf(list, "%*[a-z]:%d", &f->code);
        list = strchr(list, ',');
        if (list) list++;
    }
}

static void read_settings(void) {
    const char *name = getenv("NULL_CUDA_NAME");
    set = (struct settings) {
        .gpus = setting("NULL_CUDA_GPUS", 1),
        .driver = setting("NULL_CUDA_DRIVER", 10000),
        .mode = setting("NULL_CUDA_MODE", 0),
        .bytes = (size_t) setting("NULL_CUDA_MIB", 8192) << 20,
        .name = name ? name : "Null CUDA device"};
    read_faults(getenv("NULL_CUDA_FAIL"));
}

/* Reads the settings from the environment, at its first call. */
static void setup(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_settings);
}

/* Returns what a call of the kind `what` must fail with, or 0. `standard` is the code
   if NULL_CUDA_FAIL gives none. A failed kernel makes all later calls fail. */
static int fails(const char *what, int standard) {
    setup();
    pthread_mutex_lock(&lock);
    int result = sticky;
    for (int i = 0; !result && i < fault_count; i++)
        if (!strcmp(faults[i].what, what) && ++faults[i].seen >= faults[i].from)
            result = faults[i].code ? faults[i].code : standard;
    if (!strcmp(what, "launch") || !strcmp(what, "fault")) sticky = result;
    pthread_mutex_unlock(&lock);
    return result;
}

/* The GPUs that the program sees, and counters. */

#define MOST_GPUS 8
static struct gpu {
    int number, contexts, capability, multiprocessors, context_error;
    size_t used, taken, peak;               /* used: what others take of its memory */
} gpus[MOST_GPUS];
static int visible, inited;

enum kind { H2D, D2H, D2D, MEMSET, ALLOC, HOST_ALLOC, STREAM, EVENT, RECORD, QUERY, WAIT,
            STREAM_SYNC, EVENT_SYNC, CONTEXT_SYNC, CONTEXT, CALLBACK, KINDS };
static const char *const kinds[KINDS] = {
    "copies host to device", "copies device to host", "copies device to device", "memsets",
    "allocations", "host allocations", "streams", "events", "event records",
    "event queries", "stream waits for events", "stream synchronisations",
    "event synchronisations", "context synchronisations", "contexts", "host callbacks"};
static struct { long calls; size_t bytes; } counts[KINDS];
static struct entry { const char *kind, *name; long count; } *entries;
static int entry_count, launches;

/* Counts a call, and returns its result. */
static int count(enum kind kind, size_t bytes, int result) {
    __atomic_fetch_add(&counts[kind].calls, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&counts[kind].bytes, bytes, __ATOMIC_RELAXED);
    return result;
}

/* Counts a kernel or a call of a library. */
static void count_name(const char *kind, const char *name) {
    int i = 0;
    pthread_mutex_lock(&lock);
    /* A kernel's name has one address. To compare its letters would be slow. */
    while (i < entry_count && entries[i].name != name
           && (*kind == 'k' || strcmp(entries[i].name, name))) i++;
    if (i == entry_count) {
        entries = realloc(entries, ++entry_count * sizeof *entries);
        entries[i] = (struct entry) {kind, *kind == 'k' ? name : strdup(name), 0};
    }
    entries[i].count++;
    launches += *kind == 'k';
    pthread_mutex_unlock(&lock);
}

/* For ctypes: sets all counts to 0. */
API void null_cuda_reset(void) {
    pthread_mutex_lock(&lock);
    memset(counts, 0, sizeof counts);
    entry_count = launches = 0;
    pthread_mutex_unlock(&lock);
}

/* For ctypes: writes the counts to a file. */
API void null_cuda_write(const char *path) {
    FILE *out = fopen(path, "w");
    if (!out) return;
    pthread_mutex_lock(&lock);
    fprintf(out, "launches\t%d\n", launches);
    for (int i = 0; i < KINDS; i++)
        fprintf(out, "%s\t%ld\t%zu bytes\n", kinds[i], counts[i].calls, counts[i].bytes);
    for (struct gpu *g = gpus; g < gpus + visible; g++)
        fprintf(out, "GPU %d\tcontexts %d\ttaken %zu\tpeak %zu bytes\n", g->number,
                g->contexts, g->taken, g->peak);
    for (int i = 0; i < entry_count; i++)
        fprintf(out, "%s\t%ld\t%s\n", entries[i].kind, entries[i].count, entries[i].name);
    pthread_mutex_unlock(&lock);
    fclose(out);
}

__attribute__((destructor)) static void at_exit(void) {
    if (getenv("NULL_CUDA_LOG")) null_cuda_write(getenv("NULL_CUDA_LOG"));
}

/* Errors: the driver's code, the one of CUDA 10.0's runtime, the name, the text. If
   the runtime has no code of its own, it says cudaErrorUnknown. */
enum { UNKNOWN = 30, OLD_DRIVER = -1 };     /* the latter only the runtime reports */
#define E(name) "CUDA_ERROR_" #name
static const struct error { int code, runtime; const char *name, *text; } errors[] = {
    {OK, 0, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, 11, E(INVALID_VALUE), "invalid argument"},
    {OUT_OF_MEMORY, 2, E(OUT_OF_MEMORY), "out of memory"},
    {NOT_INITIALIZED, 3, E(NOT_INITIALIZED), "initialization error"},
    {46, 46, E(DEVICE_UNAVAILABLE), "CUDA-capable device(s) is/are busy or unavailable"},
    {NO_DEVICE, 38, E(NO_DEVICE), "no CUDA-capable device is detected"},
    {INVALID_DEVICE, 10, E(INVALID_DEVICE), "invalid device ordinal"},
    {INVALID_CONTEXT, UNKNOWN, E(INVALID_CONTEXT), "invalid device context"},
    {NO_BINARY, 48, E(NO_BINARY_FOR_GPU),
     "no kernel image is available for execution on the device"},
    {214, 39, E(ECC_UNCORRECTABLE), "uncorrectable ECC error encountered"},
    {700, 77, E(ILLEGAL_ADDRESS), "an illegal memory access was encountered"},
    {304, UNKNOWN, E(OPERATING_SYSTEM), "OS call failed or operation not supported on this OS"},
    {702, 6, E(LAUNCH_TIMEOUT), "the launch timed out and was terminated"},
    {LAUNCH_FAILED, 4, E(LAUNCH_FAILED), "unspecified launch failure"},
    {802, UNKNOWN, E(SYSTEM_NOT_READY), "system not yet initialized"},
    {803, UNKNOWN, E(SYSTEM_DRIVER_MISMATCH),
     "system has unsupported display driver / cuda driver combination"},
    {804, UNKNOWN, E(COMPAT_NOT_SUPPORTED_ON_DEVICE),
     "forward compatibility was attempted on non supported HW"},
    {999, UNKNOWN, E(UNKNOWN), "unknown error"},
    {OLD_DRIVER, 35, "", "CUDA driver version is insufficient for CUDA runtime version"},
    {0, UNKNOWN, NULL, "unrecognized error code"}};

static const struct error *find(int code) {
    const struct error *e = errors;
    while (e->name && e->code != code) e++;
    return e;
}

/* The properties of a V100, in round numbers, by their numbers in CUdevice_attribute. */
static int attribute_of(int attribute, int gpu) {
    static const int v100[] = {
        [1] = 1024, 1024, 1024, 64,     /* threads of a block; in x, y, z */
        [5] = 2147483647, 65535, 65535, /* blocks in x, y, z */
        [8] = 49152, 65536, 32,         /* shared memory; constants; threads of a warp */
        [11] = 2147483647, 65536,       /* pitch; registers of a block */
        [13] = 1530000, [36] = 877000,  /* kHz; of the memory */
        [14] = 512, 1, [19] = 1,        /* texture; overlap; maps host memory */
        [31] = 1, [41] = 1,             /* concurrent kernels; one address space */
        [37] = 4096, 6 << 20, 2048, 2,  /* bus; L2; threads of an SM; copy engines */
        [81] = 98304, 65536, [97] = 98304};  /* shared memory, registers of an SM */
    switch (attribute) {
    case 16: return gpus[gpu].multiprocessors;
    case 20: return set.mode;        /* CU_DEVICE_ATTRIBUTE_COMPUTE_MODE */
    case 33: return 1 + gpus[gpu].number;  /* PCI bus */
    case 75: return gpus[gpu].capability / 10;
    case 76: return gpus[gpu].capability % 10;
    default: return attribute > 0 && attribute <= 97 ? v100[attribute] : 0;
    }
}

/* The driver: start, devices and contexts. A GPU has one context; here that is the
   address of the GPU's struct. */

static __thread struct gpu *current;        /* this thread's context */

static struct gpu *here(void) { return current ? current : gpus; }

/* Returns why a device cannot be used, or 0. */
static int device_error(int device) {
    return !inited ? NOT_INITIALIZED : device < 0 || device >= visible ? INVALID_DEVICE : OK;
}

/* Sees the GPUs that CUDA_VISIBLE_DEVICES names, up to the first that is no GPU. */
static void find_visible(void) {
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (!list) list = "0,1,2,3,4,5,6,7";
    for (visible = 0; list && visible < MOST_GPUS; visible++) {
        char *end;
        long number = strtol(list, &end, 10);
        if (!strncmp(list, "GPU-", 4) || !strncmp(list, "MIG-", 4)) {
            /* The last digit of a UUID is the number. */
            end = (char *) list + strcspn(list, ",");
            number = end[-1] - '0';
        }
        if (end == list || number < 0 || number >= set.gpus) return;
        for (int i = 0; i < visible; i++)
            if (gpus[i].number == number) {  /* CUDA sees none if one is named twice */
                visible = 0;
                return;
            }
        gpus[visible] = (struct gpu) {
            .number = (int) number,
            .capability = 10 * setting_of("NULL_CUDA_CC", number, 7.0) + 0.5,
            .multiprocessors = setting_of("NULL_CUDA_SMS", number, 80),
            .context_error = setting_of("NULL_CUDA_CONTEXT", number, 0),
            .used = (size_t) setting_of("NULL_CUDA_USED_MIB", number, 0) << 20};
        list = *end == ',' ? end + 1 : NULL;
    }
}

API int cuInit(unsigned flags) {
    sleep(setting("NULL_CUDA_WAIT", 0));
    int error = fails("init", NO_DEVICE);
    pthread_mutex_lock(&lock);
    take_over();
    pthread_mutex_unlock(&lock);
    if (error) return error;
    if (!inited) find_visible();
    inited = visible > 0;
    return inited ? OK : NO_DEVICE;
}

API int cuDriverGetVersion(int *version) { setup(); *version = set.driver; return OK; }
API int cuDeviceGetCount(int *count) {
    *count = inited ? visible : 0;
    return inited ? OK : NOT_INITIALIZED;
}
API int cuDeviceGet(int *device, int number) { *device = number; return device_error(number); }
API int cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, "%s", set.name);
    return device_error(device);
}
API int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = set.bytes;
    return device_error(device);
}
API int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int error = device_error(device);
    if (!error) *value = attribute_of(attribute, device);
    return error;
}
API int cuDeviceGetPCIBusId(char *id, int length, int device) {
    int error = device_error(device);
    if (!error) snprintf(id, length, "0000:%02x:00.0", 1 + gpus[device].number);
    return error;
}
API int cuDeviceCanAccessPeer(int *can, int one, int two) { *can = one != two; return OK; }
API int cuCtxEnablePeerAccess(void *context, unsigned flags) { return OK; }

API int cuGetErrorName(int error, const char **name) {
    *name = find(error)->name;
    return *name ? OK : INVALID_VALUE;
}
API int cuGetErrorString(int error, const char **text) {
    *text = find(error)->text;
    return find(error)->name ? OK : INVALID_VALUE;
}

static size_t free_bytes(const struct gpu *g) {
    size_t used = g->used + g->taken + g->contexts * CONTEXT_BYTES;
    return used < set.bytes ? set.bytes - used : 0;
}

API int cuDevicePrimaryCtxRetain(void **context, int device) {
    struct gpu *g = &gpus[device];
    int error = device_error(device);
    if (!error && !g->contexts) {
        error = g->context_error ? g->context_error : fails("context", OUT_OF_MEMORY);
        if (!error && free_bytes(g) < CONTEXT_BYTES) error = OUT_OF_MEMORY;
        if (!error) g->contexts = count(CONTEXT, 0, 1);
    }
    *context = error ? NULL : g;
    return error;
}
API int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = *active = 0;
    return OK;
}
API int cuCtxGetCurrent(void **context) { *context = current; return OK; }
API int cuCtxSetCurrent(void *context) { current = context; return OK; }
API int cuCtxGetDevice(int *device) {
    *device = here() - gpus;
    return current ? OK : INVALID_CONTEXT;
}
API int cuCtxSynchronize(void) { return count(CONTEXT_SYNC, 0, fails("sync", LAUNCH_FAILED)); }

/* The driver: memory. That of a GPU is the host's, and is zero at first. */

static struct block { char *base; size_t size; struct gpu *gpu; } blocks[1024];
static int block_count;

API int cuMemAlloc_v2(void **pointer, size_t bytes) {
    struct gpu *g = here();
    int error = fails("alloc", OUT_OF_MEMORY);
    if (error) return error;
    pthread_mutex_lock(&lock);
    *pointer = MAP_FAILED;
    /* TensorFlow may take more than the host has, but writes to little of it. */
    if (bytes && bytes <= free_bytes(g) && block_count < 1024)
        *pointer = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*pointer == MAP_FAILED) {
        error = OUT_OF_MEMORY;
    } else {
        blocks[block_count++] = (struct block) {*pointer, bytes, g};
        g->taken += bytes;
        if (g->taken > g->peak) g->peak = g->taken;
        count(ALLOC, bytes, OK);
    }
    pthread_mutex_unlock(&lock);
    return error;
}

/* TensorFlow frees nothing but NULL: it keeps a GPU's memory to the end. */
API int cuMemFree_v2(void *pointer) { return sticky; }

API int cuMemGetInfo_v2(size_t *unused, size_t *total) {
    *unused = free_bytes(here());
    *total = set.bytes;
    return sticky;
}
API int cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    if (sticky) return sticky;
    *pointer = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    return count(HOST_ALLOC, bytes, *pointer ? OK : OUT_OF_MEMORY);
}
API int cuMemFreeHost(void *pointer) { free(pointer); return sticky; }

static int copy(enum kind kind, void *to, const void *from, size_t bytes) {
    int error = fails("copy", LAUNCH_FAILED);
    if (!error) memmove(to, from, bytes);
    /* A loss that is old memory may be huge, and the training stop as it diverges. */
    if (kind == D2H && bytes == sizeof(float)) *(float *) to = 1;
    return count(kind, bytes, error);
}

/* Copies and fills come in two forms. The asynchronous one has a stream, too. */
#define COPY(name, kind) \
    API int name##_v2(void *to, const void *from, size_t n) { return copy(kind, to, from, n); } \
    API int name##Async_v2(void *to, const void *from, size_t n, void *stream) { \
        return copy(kind, to, from, n); \
    }
#define FILL(name, type) \
    API int name(type *to, type value, size_t n) { \
        int error = fails("copy", LAUNCH_FAILED); \
        for (size_t i = 0; i < n && !error; i++) to[i] = value; \
        return count(MEMSET, n * sizeof *to, error); \
    }
COPY(cuMemcpyHtoD, H2D)
COPY(cuMemcpyDtoH, D2H)
COPY(cuMemcpyDtoD, D2D)
FILL(cuMemsetD8_v2, unsigned char)
FILL(cuMemsetD8Async, unsigned char)
FILL(cuMemsetD32_v2, unsigned)
FILL(cuMemsetD32Async, unsigned)

/* The driver: streams and events. All work is done when a call returns. So both are
   only addresses. */

API int cuStreamCreate(void **stream, unsigned flags) {
    int error = fails("stream", OUT_OF_MEMORY);
    if (error) return error;
    *stream = malloc(1);
    return count(STREAM, 0, OK);
}
API int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    return cuStreamCreate(stream, flags);
}
API int cuStreamDestroy_v2(void *stream) { free(stream); return sticky; }
API int cuStreamQuery(void *stream) { return sticky; }
API int cuStreamSynchronize(void *stream) {
    return count(STREAM_SYNC, 0, fails("sync", LAUNCH_FAILED));
}
API int cuStreamWaitEvent(void *s, void *event, unsigned flags) { return count(WAIT, 0, sticky); }

API int cuEventCreate(void **event, unsigned flags) {
    if (sticky) return sticky;
    *event = malloc(1);
    return count(EVENT, 0, OK);
}
API int cuEventDestroy_v2(void *event) { free(event); return sticky; }
API int cuEventQuery(void *event) { return count(QUERY, 0, sticky); }
API int cuEventSynchronize(void *event) { return count(EVENT_SYNC, 0, sticky); }
API int cuEventRecord(void *event, void *stream) { return count(RECORD, 0, sticky); }

/* TensorFlow times two kernels for the gradient of a bias, and takes the faster. Here
   all take as long. So it is always the first, and the counts of kernels are certain. */
API int cuEventElapsedTime(float *ms, void *from, void *to) { *ms = 0; return sticky; }

/* The runtime: errors, devices and contexts. */

static __thread int last, device;           /* as cudaGetLastError, cudaGetDevice say */

/* Returns the runtime's code for a driver's, and keeps it for cudaGetLastError. */
static int told(int error) { return error ? last = find(error)->runtime : 0; }
API int cudaPeekAtLastError(void) { return sticky ? told(sticky) : last; }
API int cudaGetLastError(void) { int error = cudaPeekAtLastError(); last = 0; return error; }

API const char *cudaGetErrorString(int error) {
    const struct error *e = errors;
    while (e->name && e->runtime != error) e++;
    return e->name && e->runtime == UNKNOWN ? "unknown error" : e->text;
}

static int ready(void) {
    setup();
    return told(set.driver < 10000 ? OLD_DRIVER : inited ? OK : cuInit(0));
}

API int cudaSetDevice(int number) {
    void *context;
    int error = ready();
    if (!error) error = told(cuDevicePrimaryCtxRetain(&context, number));
    if (error) return error;
    device = number;
    return cuCtxSetCurrent(context);
}

/* The runtime makes a context where a thread has none. */
static int enter(void) {
    int error = ready();
    if (!error && !current) error = cudaSetDevice(device);
    return error ? error : told(sticky);
}

API int cudaGetDeviceCount(int *count) {
    int error = ready();
    *count = error ? 0 : visible;
    return error;
}
API int cudaGetDevice(int *number) {
    *number = current ? current - gpus : device;
    return ready();
}

/* Fills in a cudaDeviceProp, as far as TensorFlow's kernels read it. */
API int cudaGetDeviceProperties(char *properties, int number) {
    /* Where CUDA 10.0's struct has an int, and the attribute that it is. */
    static const short ints[][2] = {
        {296, 8}, {304, 12}, {308, 10}, {320, 1}, {324, 2}, {328, 3}, {332, 4}, {336, 5},
        {340, 6}, {344, 7}, {360, 75}, {364, 76}, {388, 16}, {404, 20}, {620, 39},
        {640, 81}, {648, 82}, {696, 97}};
    int error = ready();
    if (!error) error = told(device_error(number));
    if (error) return error;
    memset(properties, 0, 712);
    snprintf(properties, 256, "%s", set.name);
    *(size_t *) (properties + 288) = set.bytes;
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        *(int *) (properties + ints[i][0]) = attribute_of(ints[i][1], number);
    return 0;
}

/* The runtime: memory and streams. */

/* A cudaPointerAttributes. Type 2 is memory of a GPU. */
struct pointer { int memory_type, type, device; void *on_device, *on_host; int managed; };

API int cudaPointerGetAttributes(struct pointer *p, char *pointer) {
    for (struct block *b = blocks; b < blocks + block_count; b++)
        if (pointer >= b->base && pointer < b->base + b->size) {
            *p = (struct pointer) {2, 2, b->gpu - gpus, pointer, NULL, 0};
            return 0;
        }
    return told(INVALID_VALUE);     /* so says CUDA 10.0 of the host's memory */
}

API int cudaFree(void *pointer) { return enter(); }
API int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int direction, void *stream) {
    enum kind kind = direction == 1 ? H2D : direction == 2 ? D2H : D2D;
    int error = enter();
    return error ? error : told(copy(kind, to, from, bytes));
}

API int cudaStreamAddCallback(void *stream, void (*call)(void *, int, void *), void *data,
                              unsigned flags) {
    call(stream, told(sticky), data);
    return count(CALLBACK, 0, told(sticky));
}

/* The runtime: kernels. Where a program has f<<<grid, block>>>(), the compiler pushes
   the configuration and calls the host's f. That pops it and launches f. */

typedef struct { unsigned x, y, z; } dim3;
static __thread struct configuration { dim3 grid, block; size_t shared; void *stream; } pushed;

API int __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
    pushed = (struct configuration) {grid, block, shared, stream};
    return 0;
}
API int __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void **stream) {
    *grid = pushed.grid, *block = pushed.block;
    *shared = pushed.shared, *stream = pushed.stream;
    return 0;
}

API int cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **arguments,
                         size_t shared, void *stream) {
    int error = enter();
    if (error) return error;
    count_name("kernel", kernel_name(f));
    unsigned threads = block.x * block.y * block.z;
    if (!threads || threads > 1024 || !grid.x || !grid.y || !grid.z)
        return last = 9;  /* cudaErrorInvalidConfiguration */
    /* `image` and `launch` fail at once. `fault` fails on the GPU: later calls tell. */
    error = fails("image", NO_BINARY);
    if (error) return told(error);
    return fails("fault", LAUNCH_FAILED) ? 0 : told(fails("launch", LAUNCH_FAILED));
}

/* TensorFlow's wheel calls this at exit. Its own runtime was not told of the GPU. */
API void __cudaUnregisterFatBinary(void **handle) {}

/* A cudaFuncAttributes: of shared, constant and local memory, the threads, and so on. */
struct function { size_t memory[3]; int threads, registers, versions[2], cache, shared[2]; };

API int cudaFuncGetAttributes(struct function *f, const void *host) {
    int version = here()->capability;
    *f = (struct function) {{0}, 1024, 32, {version, version}, 0, {49152, 0}};
    return enter();
}

API int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        int *blocks, const void *f, int threads, size_t shared, unsigned flags) {
    *blocks = 2048 / (threads > 0 ? threads : 1);
    return told(sticky);
}

/* cuBLAS. */

enum { NOT_READY = 1, EXECUTION_FAILED = 13 };  /* CUBLAS_STATUS_... */

/* As fails. After a failed kernel it is `standard`, a status of cuBLAS. */
static int blas_fails(const char *what, int standard) {
    int error = fails(what, standard);
    return error && error == sticky ? standard : error;
}

API int cublasCreate_v2(void **handle) {
    int error = blas_fails("cublas", NOT_READY);
    count_name("call", "cublasCreate_v2");
    *handle = error ? NULL : malloc(1);
    return error;
}
API int cublasDestroy_v2(void *handle) { free(handle); return 0; }
API int cublasSetStream_v2(void *handle, void *stream) { return 0; }
API int cublasSetPointerMode_v2(void *handle, int mode) { return 0; }
API int cublasGetPointerMode_v2(void *handle, int *mode) { *mode = 0; return 0; }

/* Counts a product by its size: [m, k] x [k, n], where columns come first. */
static int product(const char *call, int ta, int tb, int m, int n, int k) {
    char text[100];
    snprintf(text, sizeof text, "%s %c%c %d %d %d", call, "NTC"[ta], "NTC"[tb], m, n, k);
    count_name("call", text);
    return blas_fails("gemm", EXECUTION_FAILED);
}

API int cublasSgemm_v2(void *handle, int ta, int tb, int m, int n, int k) {
    return product("cublasSgemm_v2", ta, tb, m, n, k);
}
API int cublasSgemv_v2(void *handle, int ta, int m, int n) {
    return product("cublasSgemv_v2", ta, 0, m, n, 1);
}
