// The entropy decoder: one warp takes the 32 lanes of one stream from group to group.
#pragma once

#include "memory.cuh"

// The words of a stream, which all lanes share, through three windows of 64 words in the registers of the warp: the words
// of a group are in the first two, and the third is on its way from memory meanwhile.
struct Words {
    const Input& input;
    u32 start;
    u32 count;
    u32 lane;
    // The next word, and the first one of the first window.
    u32 next;
    u32 base;
    u32 windows[3];

    __device__ Words(const Input& input, u32 start, u32 count, u32 lane)
        : input(input), start(start), count(count), lane(lane), next(0), base(0) {
        for (u32 window = 0; window < 3; window++) windows[window] = load(window * 2 * LANES);
    }

    // This lane's two words of the window that begins at word `first`.
    __device__ u32 load(u32 first) const {
        return input.four_bytes(start + (static_cast<u64>(first) + 2 * lane) * 2);
    }

    // Gives a word to each lane that wants one, in the order of the lanes. False for those that there is none for.
    __device__ bool take(bool wants, u32& word) {
        const u32 wanting = __ballot_sync(ALL_LANES, wants);
        const u32 number = next + __popc(wanting & ((1u << lane) - 1));
        // At most 63 words of the first window are gone, and 31 lanes are before this one.
        const u32 ahead = number - base;
        const u32 source = ahead / 2 % LANES;
        const u32 first = __shfl_sync(ALL_LANES, windows[0], source);
        const u32 second = __shfl_sync(ALL_LANES, windows[1], source);
        const u32 both = ahead < 2 * LANES ? first : second;
        word = ahead % 2 == 0 ? both & 0xffff : both >> 16;
        next += __popc(wanting);
        if (next - base >= 2 * LANES) {
            base += 2 * LANES;
            windows[0] = windows[1];
            windows[1] = windows[2];
            windows[2] = load(base + 4 * LANES);
        }
        return !wants || number < count;
    }
};

// The symbol of a lane: gives its key, and takes the state to before it reads a word.
__device__ inline u32 look_up(const Table& table, u32& state) {
    const u32 slot = state % 4096;
    const u32 own = slot / 64;
    const u32 offset = slot % 64;
    const u32 bucket = table.buckets[own];
    const bool other = offset >= (bucket & 0xff);
    const u32 symbol = table.symbols[other ? bucket >> 8 & 63 : own];
    const u32 rank = other ? (offset + (bucket >> 16)) & 0xffff : offset;
    state = (symbol & 0xffff) * (state >> 12) + rank;
    return symbol >> 16;
}
