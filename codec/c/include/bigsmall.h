/* bigsmall: tensors of compressed models, decoded to memory of the host or of an NVIDIA GPU.
 *
 * Open a file, look for its tensors, read bytes of its original:
 *
 *     bigsmall_file *file;
 *     bigsmall_tensor tensor;
 *     if (bigsmall_open("model.safetensors.bs", NULL, 0, &file) != BIGSMALL_OK)
 *         die(bigsmall_error());
 *     if (bigsmall_find(file, "model.embed_tokens.weight", &tensor) != BIGSMALL_OK)
 *         die(bigsmall_error());
 *     void *weights = malloc(tensor.len);
 *     if (bigsmall_read(file, tensor.offset, weights, tensor.len) != BIGSMALL_OK)
 *         die(bigsmall_error());
 *     bigsmall_close(file);
 *
 * Functions that can fail return a bigsmall_code. Everything may be called from any thread, and one file or GPU be used by many
 * at once; closing it must wait for the others. Reading uses all processors (RAYON_NUM_THREADS lowers that).
 */
#ifndef BIGSMALL_H
#define BIGSMALL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What became of a call. Numbers are never given to anything else; later versions may have more of them. */
typedef enum bigsmall_code {
    BIGSMALL_OK = 0,
    /* The file is damaged: a checksum does not hold. */
    BIGSMALL_CORRUPT = 1,
    /* It is no file that can be opened. */
    BIGSMALL_NOT_A_CONTAINER = 2,
    /* It was written by a newer version, or needs something that this one was built without. */
    BIGSMALL_UNSUPPORTED = 3,
    /* There is no such tensor or range, or a pointer is NULL that may not be. */
    BIGSMALL_INVALID_ARGUMENT = 4,
    /* It changed while it was read. */
    BIGSMALL_SOURCE_CHANGED = 5,
    /* It is a patch, and was opened without its base. */
    BIGSMALL_BASE_MISSING = 6,
    /* It is a patch of another base. */
    BIGSMALL_WRONG_BASE = 7,
    /* A GPU or its driver failed, or there is none. */
    BIGSMALL_DEVICE = 8,
    /* The operating system refused. */
    BIGSMALL_IO = 9,
    /* A defect of this library. */
    BIGSMALL_INTERNAL = 10
} bigsmall_code;

/* An open file: one of ours, one of the Python package, or a plain safetensors or GGUF file. */
typedef struct bigsmall_file bigsmall_file;

/* A GPU that is ready to decode. */
typedef struct bigsmall_gpu bigsmall_gpu;

/* A tensor. What it points to lives until its file is closed. */
typedef struct bigsmall_tensor {
    /* UTF-8 with a zero byte behind it; a name may have others, so its length is name_len. */
    const char *name;
    size_t name_len;
    /* As the header of a safetensors file spells it ("BF16"); of a GGUF file, as llama.cpp does ("Q4_K"). */
    const char *dtype;
    /* The last dimension is that of elements that lie side by side. Never NULL. */
    const uint64_t *shape;
    size_t dims;
    /* Where its bytes are in the original, and how many: elements side by side, in C order. */
    uint64_t offset;
    uint64_t len;
    /* The type code and bits of DLPack's DLDataType (with lanes = 1); 0 bits where DLPack has no such type. */
    uint8_t dlpack_code;
    uint8_t dlpack_bits;
} bigsmall_tensor;

/* The version of the library, such as "0.1.0". */
const char *bigsmall_version(void);

/* What the last call that failed in this thread had to say: the file, what is wrong, what to do. Lives until the next one fails. */
const char *bigsmall_error(void);

/* Opens the file at path. A patch needs the files of its base, opened before, in any order (of a base that is itself a patch, that has
 * been opened over its own); others take none. Bases may be closed at any time after. Damage is repaired while it is read, as far as
 * a sidecar beside the file goes. */
bigsmall_code bigsmall_open(const char *path, const bigsmall_file *const *bases, size_t base_count, bigsmall_file **file);

/* Closes a file. NULL is no file, and that is fine. */
void bigsmall_close(bigsmall_file *file);

/* Bytes of the original. */
uint64_t bigsmall_len(const bigsmall_file *file);

/* How many tensors there are. */
size_t bigsmall_tensor_count(const bigsmall_file *file);

/* The tensor of that number, from 0 on, by the position of their bytes. */
bigsmall_code bigsmall_tensor_at(const bigsmall_file *file, size_t number, bigsmall_tensor *tensor);

/* The tensor of that name. */
bigsmall_code bigsmall_find(const bigsmall_file *file, const char *name, bigsmall_tensor *tensor);

/* Decodes len bytes of the original, from offset on, to memory of the host. Each byte has been checked; if the call fails, what is
 * there is of no use. */
bigsmall_code bigsmall_read(const bigsmall_file *file, uint64_t offset, void *to, size_t len);

/* Opens the GPU of that number. BIGSMALL_UNSUPPORTED if the library was built without the feature cuda. Neither this nor what follows
 * changes which context is current. */
bigsmall_code bigsmall_gpu_open(int number, bigsmall_gpu **gpu);

/* Closes a GPU. NULL is no GPU. */
void bigsmall_gpu_close(bigsmall_gpu *gpu);

/* As bigsmall_read, to memory of the GPU: address is a CUdeviceptr in the GPU's primary context, which is that of the CUDA runtime,
 * PyTorch, JAX and CuPy (DLPack: data + byte_offset). What stream (a CUstream or cudaStream_t; NULL is the default one) was given before
 * is waited for, so that the memory may come from an allocator ordered by streams. The bytes are there on return; nothing is
 * left on the stream. Only containers of ours are decoded by the GPU, all others on the host. */
bigsmall_code bigsmall_read_to_gpu(const bigsmall_file *file, const bigsmall_gpu *gpu, uint64_t offset, uint64_t address,
                                   size_t len, void *stream);

#ifdef __cplusplus
}
#endif

#endif
