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
    void *context, *now, *driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (count != 2 || driver == NULL) return 2;
    int (*retain)(void **, int), (*make_current)(void *), (*current)(void **), (*allocate)(uint64_t *, size_t), (*release)(uint64_t);
    int (*copy)(void *, uint64_t, size_t, void *);
    *(void **)&retain = dlsym(driver, "cuDevicePrimaryCtxRetain");
    *(void **)&make_current = dlsym(driver, "cuCtxSetCurrent");
    *(void **)&current = dlsym(driver, "cuCtxGetCurrent");
    *(void **)&allocate = dlsym(driver, "cuMemAlloc_v2");
    *(void **)&release = dlsym(driver, "cuMemFree_v2");
    *(void **)&copy = dlsym(driver, "cuMemcpyDtoHAsync_v2");
    check(bigsmall_open(arguments[1], NULL, 0, &file));
    check(bigsmall_gpu_open(0, &gpu));
    if (current(&now) != 0 || now != NULL || retain(&context, 0) != 0) return 3;
    for (size_t number = 0; number < bigsmall_tensor_count(file); number++) {
        bigsmall_tensor tensor;
        uint64_t address, hash = 0xcbf29ce484222325;
        check(bigsmall_tensor_at(file, number, &tensor));
        if (make_current(context) != 0 || allocate(&address, tensor.len + 1) != 0) return 4;
        /* Whatever context is current remains so. */
        void *mine = number % 2 == 0 ? NULL : context;
        if (make_current(mine) != 0) return 6;
        check(bigsmall_read_to_gpu(file, gpu, tensor.offset, address, tensor.len, NULL));
        if (current(&now) != 0 || now != mine || make_current(context) != 0) return 6;
        unsigned char *bytes = malloc(tensor.len + 1);
        if (copy(bytes, address, tensor.len, NULL) != 0 || release(address) != 0) return 5;
        for (uint64_t at = 0; at < tensor.len; at++) hash = (hash ^ bytes[at]) * 0x100000001b3;
        free(bytes);
        printf("%s %" PRIu64 " %016" PRIx64 "\n", tensor.name, tensor.len, hash);
    }
    bigsmall_tensor first;
    check(bigsmall_tensor_at(file, 0, &first));
    if (bigsmall_read_to_gpu(file, gpu, first.offset, 0, first.len, NULL) != BIGSMALL_INVALID_ARGUMENT) return 7;
    if (bigsmall_read_to_gpu(file, gpu, first.offset, 0, 0, NULL) != BIGSMALL_OK) return 7;
    if (bigsmall_read_to_gpu(file, gpu, 1, 4096, SIZE_MAX / 2, NULL) != BIGSMALL_INVALID_ARGUMENT) return 7;
    if (bigsmall_read_to_gpu(file, gpu, UINT64_MAX, 4096, 2, NULL) != BIGSMALL_INVALID_ARGUMENT) return 7;
    if (make_current(NULL) != 0) return 8;
    bigsmall_gpu_close(gpu);
    if (current(&now) != 0 || now != NULL) return 8;
    bigsmall_close(file);
    return 0;
}
