// A library that a program can load in the place of NVIDIA's driver: one GPU of 8 GiB, whose memory is that of the process and whose
// kernels run on the processor. It knows the functions that this crate calls, and does at once what it is asked for.
//
// It is told to be a broken driver at its making: with -DBREAK=abort() the driver ends the process when it is started.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <random>
#include <string>

#include "fibres.h"
#include "warp.h"

#include "../kernels/decode.cu"

namespace {

constexpr int SUCCESS = 0;
constexpr int INVALID_VALUE = 1;
constexpr int OUT_OF_MEMORY = 2;
constexpr int INVALID_CONTEXT = 201;

constexpr int CAPABILITY_MAJOR = 75;
constexpr int CAPABILITY_MINOR = 76;

constexpr u64 MEMORY = 8ull << 30;

using Handle = void*;

// Handles are addresses of these.
char context, module, kernel;

std::mutex guard;
std::map<u64, size_t> memory;
thread_local Handle current = nullptr;

// Whether so many bytes are memory of the device.
bool is_memory(u64 address, size_t len) {
    const auto after = memory.upper_bound(address);
    if (after == memory.begin()) return false;
    const auto [start, all] = *std::prev(after);
    return address - start <= all && len <= all - (address - start);
}

}  // namespace

extern "C" {

int cuInit(unsigned) {
#ifdef BREAK
    BREAK;
#endif
    return SUCCESS;
}

int cuDriverGetVersion(int* version) {
    *version = 12000;
    return SUCCESS;
}

int cuDeviceGetCount(int* count) {
    *count = 1;
    return SUCCESS;
}

int cuDeviceGet(int* device, int number) {
    *device = number;
    return number == 0 ? SUCCESS : INVALID_VALUE;
}

int cuDeviceGetName(char* name, int len, int) {
    std::snprintf(name, static_cast<size_t>(len), "Emulated GPU");
    return SUCCESS;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
    if (attribute != CAPABILITY_MAJOR && attribute != CAPABILITY_MINOR) return INVALID_VALUE;
    *value = attribute == CAPABILITY_MAJOR ? 9 : 0;
    return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = MEMORY;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(Handle* to, int) {
    *to = &context;
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }

int cuCtxGetCurrent(Handle* to) {
    *to = current;
    return SUCCESS;
}

int cuCtxSetCurrent(Handle to) {
    if (to != nullptr && to != &context) return INVALID_CONTEXT;
    current = to;
    return SUCCESS;
}

int cuModuleLoadData(Handle* to, const void* image) {
    *to = &module;
    const bool known = std::strstr(static_cast<const char*>(image), ".entry bigsmall_decode(") != nullptr;
    return current == &context && known ? SUCCESS : INVALID_VALUE;
}

int cuModuleGetFunction(Handle* to, Handle of, const char* name) {
    *to = &kernel;
    return of == &module && std::strcmp(name, "bigsmall_decode") == 0 ? SUCCESS : INVALID_VALUE;
}

int cuModuleUnload(Handle) { return current == &context ? SUCCESS : INVALID_CONTEXT; }

int cuMemGetInfo_v2(size_t* available, size_t* all) {
    *available = *all = MEMORY;
    return current == &context ? SUCCESS : INVALID_CONTEXT;
}

int cuMemAlloc_v2(u64* address, size_t len) {
    if (current != &context) return INVALID_CONTEXT;
    if (len == 0) return INVALID_VALUE;
    void* made = ::operator new(len, std::align_val_t(256), std::nothrow);
    if (made == nullptr) return OUT_OF_MEMORY;
    std::memset(made, 0xee, len);
    *address = reinterpret_cast<u64>(made);
    const std::lock_guard lock(guard);
    memory[*address] = len;
    return SUCCESS;
}

int cuMemFree_v2(u64 address) {
    const std::lock_guard lock(guard);
    if (memory.erase(address) == 0) return INVALID_VALUE;
    ::operator delete(reinterpret_cast<void*>(address), std::align_val_t(256));
    return SUCCESS;
}

int cuMemHostAlloc(void** made, size_t len, unsigned) {
    *made = std::malloc(len);
    return *made == nullptr ? OUT_OF_MEMORY : SUCCESS;
}

int cuMemFreeHost(void* made) {
    std::free(made);
    return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t len, Handle) {
    const std::lock_guard lock(guard);
    if (!is_memory(to, len)) return INVALID_VALUE;
    std::memcpy(reinterpret_cast<void*>(to), from, len);
    return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t len, Handle) {
    const std::lock_guard lock(guard);
    if (!is_memory(from, len)) return INVALID_VALUE;
    std::memcpy(to, reinterpret_cast<const void*>(from), len);
    return SUCCESS;
}

int cuStreamCreate(Handle* stream, unsigned) {
    *stream = std::malloc(1);
    return current == &context ? SUCCESS : INVALID_CONTEXT;
}

int cuStreamSynchronize(Handle) { return SUCCESS; }

int cuStreamDestroy_v2(Handle stream) {
    std::free(stream);
    return SUCCESS;
}

int cuLaunchKernel(Handle function, unsigned blocks, unsigned y, unsigned z, unsigned threads, unsigned thread_y,
                   unsigned thread_z, unsigned, Handle, void** arguments, void**) {
    if (function != &kernel || y != 1 || z != 1 || threads != THREADS || thread_y != 1 || thread_z != 1) {
        return INVALID_VALUE;
    }
    Batch batch;
    std::memcpy(&batch, arguments[0], sizeof batch);
    // Fibres belong to one thread.
    const std::lock_guard lock(guard);
    const bool possible = is_memory(reinterpret_cast<u64>(batch.input), batch.input_len) &&
                          is_memory(reinterpret_cast<u64>(batch.output), batch.output_len) &&
                          is_memory(reinterpret_cast<u64>(batch.jobs), blocks * sizeof(Job)) &&
                          is_memory(reinterpret_cast<u64>(batch.tables), batch.table_count * sizeof(Table)) &&
                          is_memory(reinterpret_cast<u64>(batch.columns), batch.column_count * sizeof(u16)) &&
                          is_memory(reinterpret_cast<u64>(batch.statuses), blocks * sizeof(u32));
    if (!possible) return INVALID_VALUE;
    std::mt19937 random(blocks);
    for (unsigned block = 0; block < blocks; block++) {
        emulator::run_block(block, THREADS, random, [&] { bigsmall_decode(batch); });
    }
    return SUCCESS;
}

int cuGetErrorString(int error, const char** text) {
    thread_local std::string said;
    said = "emulated error " + std::to_string(error);
    *text = said.c_str();
    return SUCCESS;
}

}  // extern "C"
