/* Makes TensorFlow call the null GPU.
   TensorFlow's wheel has a CUDA runtime of its own, linked into WHEEL. It launches all
   kernels, and wants more of a driver than NVIDIA documents. So each of its functions
   that null_cuda.c has is made to jump there. WHEEL's symbols tell where the functions
   are, and the names of the kernels. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WHEEL "_pywrap_tensorflow_internal.so"

static uintptr_t base;              /* where WHEEL is loaded */
static const char *strings;         /* the names of its symbols */
static Elf64_Sym *functions;        /* those that are functions, by address */
static size_t function_count;

static int by_address(const void *a, const void *b) {
    uintptr_t x = ((const Elf64_Sym *) a)->st_value, y = ((const Elf64_Sym *) b)->st_value;
    return (x > y) - (x < y);
}

static int read_wheel(struct dl_phdr_info *info, size_t size, void *data) {
    const char *slash = strrchr(info->dlpi_name, '/');
    if (!slash || strcmp(slash + 1, WHEEL)) return 0;
    int file = open(info->dlpi_name, O_RDONLY);
    const char *all = mmap(NULL, lseek(file, 0, SEEK_END), PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (all == MAP_FAILED) return 1;
    const Elf64_Ehdr *header = (const void *) all;
    const Elf64_Shdr *sections = (const void *) (all + header->e_shoff), *table = sections;
    while (table->sh_type != SHT_SYMTAB)
        if (++table == sections + header->e_shnum) return 1;
    const Elf64_Sym *symbols = (const void *) (all + table->sh_offset);
    strings = all + sections[table->sh_link].sh_offset;
    base = info->dlpi_addr;
    functions = malloc(table->sh_size);
    for (size_t i = 0; i < table->sh_size / sizeof *symbols; i++)
        if (ELF64_ST_TYPE(symbols[i].st_info) == STT_FUNC && symbols[i].st_value)
            functions[function_count++] = symbols[i];
    qsort(functions, function_count, sizeof *functions, by_address);
    return 1;
}

/* Writes at a function's beginning: jmp [rip + 0], and where to. */
static void redirect(uintptr_t from, void *to) {
    unsigned char jump[14] = {0xff, 0x25, 0, 0, 0, 0};
    void *page = (void *) (from & ~(uintptr_t) 4095);
    memcpy(jump + 6, &to, sizeof to);
    if (mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC)) return;
    memcpy((void *) from, jump, sizeof jump);
    mprotect(page, 8192, PROT_READ | PROT_EXEC);
}

/* Stands for what null_cuda.c does not have: the real function would look for a GPU. */
static int not_here(void) {
    fprintf(stderr, "null CUDA: a function of the runtime is not here\n");
    return 71;  /* cudaErrorNotSupported */
}

void take_over(void) {
    Dl_info self;
    if (functions || !dl_iterate_phdr(read_wheel, NULL)) return;
    dladdr((void *) take_over, &self);
    void *library = dlopen(self.dli_fname, RTLD_NOW);
    for (Elf64_Sym *f = functions; f < functions + function_count; f++) {
        const char *name = strings + f->st_name;
        if (strncmp(name, "cuda", 4) && strncmp(name, "__cuda", 6)) continue;
        void *ours = dlsym(library, name);
        if (!ours && name[4] >= 'A' && name[4] <= 'Z' && f->st_size > 16) ours = not_here;
        if (ours) redirect(base + f->st_value, ours);
    }
}

const char *kernel_name(const void *host_function) {
    Elf64_Sym wanted = {.st_value = (uintptr_t) host_function - base}, *found = NULL;
    if (functions)
        found = bsearch(&wanted, functions, function_count, sizeof wanted, by_address);
    return found ? strings + found->st_name : "unknown";
}

/* `make gpu` puts NVIDIA's libraries beside TensorFlow, where the loader looks before
   LD_LIBRARY_PATH. If LD_PRELOAD names this library, this dlopen replaces the real one,
   and whoever opens NVIDIA's libraries gets the null GPU. */
__attribute__((visibility("default"))) void *dlopen(const char *name, int flags) {
    static const char *const names[] = {
        "libcuda.so.1", "libcudart.so.10.0", "libcublas.so.10.0", "libcufft.so.10.0",
        "libcurand.so.10.0", "libcusolver.so.10.0", "libcusparse.so.10.0",
        "libcudnn.so.7", NULL};
    void *(*real)(const char *, int) = dlsym(RTLD_NEXT, "dlopen");
    const char *slash = name ? strrchr(name, '/') : NULL, *last = slash ? slash + 1 : name;
    Dl_info self;
    for (const char *const *n = names; last && *n; n++)
        if (!strcmp(last, *n) && dladdr(names, &self)) return real(self.dli_fname, flags);
    return real(name, flags);
}
