/* Prints the length and FNV-1a of each tensor of a file, decoded to memory of a GPU and copied back from there. */
#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bigsmall.h"

static void check(bigsmall_code code) {
    if (code == BIGSMALL_OK) return;
    printf("error %d: %s\n", code, bigsmall_error());
    exit(1);
}

int main(int count, char **arguments) {
    bigsmall_file *file;
    bigsmall_gpu *gpu;
    void *context, *driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (count != 2 || driver == NULL) return 2;
    int (*retain)(void **, int), (*make_current)(void *), (*allocate)(uint64_t *, size_t), (*release)(uint64_t);
    int (*copy)(void *, uint64_t, size_t, void *);
    *(void **)&retain = dlsym(driver, "cuDevicePrimaryCtxRetain");
    *(void **)&make_current = dlsym(driver, "cuCtxSetCurrent");
    *(void **)&allocate = dlsym(driver, "cuMemAlloc_v2");
    *(void **)&release = dlsym(driver, "cuMemFree_v2");
    *(void **)&copy = dlsym(driver, "cuMemcpyDtoHAsync_v2");
    check(bigsmall_open(arguments[1], NULL, 0, &file));
    check(bigsmall_gpu_open(0, &gpu));
    if (retain(&context, 0) != 0 || make_current(context) != 0) return 3;
    for (size_t number = 0; number < bigsmall_tensor_count(file); number++) {
        bigsmall_tensor tensor;
        uint64_t address, hash = 0xcbf29ce484222325;
        check(bigsmall_tensor_at(file, number, &tensor));
        if (allocate(&address, tensor.len + 1) != 0) return 4;
        check(bigsmall_read_to_gpu(file, gpu, tensor.offset, address, tensor.len, NULL));
        unsigned char *bytes = malloc(tensor.len + 1);
        if (copy(bytes, address, tensor.len, NULL) != 0 || release(address) != 0) return 5;
        for (uint64_t at = 0; at < tensor.len; at++) hash = (hash ^ bytes[at]) * 0x100000001b3;
        free(bytes);
        printf("%s %" PRIu64 " %016" PRIx64 "\n", tensor.name, tensor.len, hash);
    }
    bigsmall_gpu_close(gpu);
    bigsmall_close(file);
    return 0;
}
