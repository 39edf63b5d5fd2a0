// Reads that stay inside of a buffer, and elements of a chunk.
#pragma once

#include "job.cuh"

// The bytes that the host sent.
struct Input {
    const u8* bytes;
    u32 len;

    // The byte there; 0 beyond the end.
    __device__ u32 byte(u64 at) const { return at < len ? bytes[at] : 0u; }

    // The two bytes from there on, wherever they are; 0 beyond the end.
    __device__ u32 two_bytes(u64 at) const {
        if (at + 2 > len) return 0;
        if (at % 2 == 0) return *reinterpret_cast<const u16*>(bytes + at);
        return bytes[at] | static_cast<u32>(bytes[at + 1]) << 8;
    }

    __device__ u32 four_bytes(u64 at) const { return two_bytes(at) | two_bytes(at + 2) << 16; }
};

// The elements of a chunk, where they are to be.
template <u32 SIZE>
struct Elements {
    u8* bytes;
    u32 count;

    // Tensors may lie at any byte of a file.
    __device__ bool aligned() const { return reinterpret_cast<u64>(bytes) % SIZE == 0; }

    // Sets an element, if there is one of that number.
    __device__ void set(u32 number, u32 value) const {
        if (number >= count) return;
        u8* at = bytes + static_cast<u64>(number) * SIZE;
        if (SIZE == 1) {
            *at = static_cast<u8>(value);
        } else if (aligned()) {
            if (SIZE == 2) *reinterpret_cast<u16*>(at) = static_cast<u16>(value);
            if (SIZE == 4) *reinterpret_cast<u32*>(at) = value;
        } else {
            for (u32 byte = 0; byte < SIZE; byte++) at[byte] = static_cast<u8>(value >> 8 * byte);
        }
    }

    // The element of that number, which must have been set by this thread, or before the last barrier; 0 if there is none.
    __device__ u32 get(u32 number) const {
        if (number >= count) return 0;
        const u8* at = bytes + static_cast<u64>(number) * SIZE;
        u32 value = 0;
        for (u32 byte = 0; byte < SIZE; byte++) value |= static_cast<u32>(at[byte]) << 8 * byte;
        return value;
    }
};

// Copies a chunk that is stored as it is; all threads of the block together.
__device__ inline void copy(const Input& input, u32 stored, u8* out, u32 len) {
    const u8* from = input.bytes + stored;
    u32 head = static_cast<u32>(-reinterpret_cast<u64>(out)) % 8;
    if (reinterpret_cast<u64>(from + head) % 8 != 0 || head > len) head = len;
    const u32 words = (len - head) / 8;
    for (u32 at = threadIdx.x; at < head; at += THREADS) out[at] = from[at];
    const u64* wide_from = reinterpret_cast<const u64*>(from + head);
    u64* wide_out = reinterpret_cast<u64*>(out + head);
    for (u32 word = threadIdx.x; word < words; word += THREADS) wide_out[word] = wide_from[word];
    for (u32 at = head + words * 8 + threadIdx.x; at < len; at += THREADS) out[at] = from[at];
}

// Fills a chunk with a pattern; all threads of the block together.
__device__ inline void repeat(const Input& input, u32 pattern, u32 pattern_len, u8* out, u32 len) {
    u32 words = 0;
    if (8 % pattern_len == 0 && reinterpret_cast<u64>(out) % 8 == 0) {
        u64 word = 0;
        for (u32 byte = 0; byte < 8; byte++) {
            word |= static_cast<u64>(input.byte(pattern + byte % pattern_len)) << 8 * byte;
        }
        words = len / 8;
        u64* wide_out = reinterpret_cast<u64*>(out);
        for (u32 at = threadIdx.x; at < words; at += THREADS) wide_out[at] = word;
    }
    for (u32 at = words * 8 + threadIdx.x; at < len; at += THREADS) out[at] = input.byte(pattern + at % pattern_len);
}
