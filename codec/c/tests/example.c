/* Prints what is in a file: name, dtype, shape, length and FNV-1a of each tensor. The bases of a patch are given behind it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bigsmall.h"

static int failed(bigsmall_code code) {
    printf("error %d: %s\n", code, bigsmall_error());
    return 1;
}

int main(int count, char **arguments) {
    const bigsmall_file *bases[8] = {NULL};
    size_t base_count = 0;
    bigsmall_file *file;
    bigsmall_code code;
    if (count < 2 || count > 9) return 2;
    for (int base = 2; base < count; base++) {
        code = bigsmall_open(arguments[base], NULL, 0, &file);
        if (code != BIGSMALL_OK) return failed(code);
        bases[base_count++] = file;
    }
    code = bigsmall_open(arguments[1], bases, base_count, &file);
    /* What was opened over them keeps what it needs. */
    while (base_count > 0) bigsmall_close((bigsmall_file *)bases[--base_count]);
    if (code != BIGSMALL_OK) return failed(code);
    printf("%" PRIu64 " bytes\n", bigsmall_len(file));
    for (size_t number = 0; number < bigsmall_tensor_count(file); number++) {
        bigsmall_tensor tensor;
        code = bigsmall_tensor_at(file, number, &tensor);
        if (code != BIGSMALL_OK) return failed(code);
        unsigned char *bytes = malloc(tensor.len + 1);
        code = bigsmall_read(file, tensor.offset, bytes, tensor.len);
        if (code != BIGSMALL_OK) return failed(code);
        uint64_t hash = 0xcbf29ce484222325;
        for (uint64_t at = 0; at < tensor.len; at++) hash = (hash ^ bytes[at]) * 0x100000001b3;
        free(bytes);
        printf("%s %s %d:%d [", tensor.name, tensor.dtype, tensor.dlpack_code, tensor.dlpack_bits);
        for (size_t dim = 0; dim < tensor.dims; dim++) printf(dim > 0 ? ", %" PRIu64 : "%" PRIu64, tensor.shape[dim]);
        printf("] %" PRIu64 " %016" PRIx64 "\n", tensor.len, hash);
    }
    bigsmall_close(file);
    return 0;
}
