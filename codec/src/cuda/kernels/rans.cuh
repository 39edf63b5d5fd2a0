// The entropy decoder: a warp, or half of one, takes the lanes of one stream from group to group.
#pragma once

#include "memory.cuh"

// The words of a stream of `WIDTH` lanes, a warp or a part of it, which all of these share, through three windows in their registers, of
// two words a lane: the words of a group are in the first two, and the third is on its way from memory meanwhile.
template <u32 WIDTH>
struct Words {
    const Input& input;
    u32 start;
    u32 count;
    // The number of the lane in its stream.
    u32 lane;
    // The next word, and the first one of the first window.
    u32 next;
    u32 base;
    u32 windows[3];

    __device__ Words(const Input& input, u32 start, u32 count, u32 lane)
        : input(input), start(start), count(count), lane(lane), next(0), base(0) {
        for (u32 window = 0; window < 3; window++) windows[window] = load(window * 2 * WIDTH);
    }

    // This lane's two words of the window that begins at word `first`.
    __device__ u32 load(u32 first) const {
        return input.four_bytes(start + (static_cast<u64>(first) + 2 * lane) * 2);
    }

    // Gives a word to each lane that wants one, in the order of the lanes. False for those that there is none for. All lanes of the
    // warp call it together.
    __device__ bool take(bool wants, u32& word) {
        const u32 all = __ballot_sync(ALL_LANES, wants);
        // Often no lane of any stream does.
        if (WIDTH < LANES && all == 0) return true;
        const u32 first_lane = WIDTH < LANES ? threadIdx.x % LANES - lane : 0;
        const u32 wanting = all >> first_lane & (ALL_LANES >> (LANES - WIDTH));
        const u32 number = next + __popc(wanting & ((1u << lane) - 1));
        // Of the first window all words but one may be gone, and all lanes but one are before this one.
        const u32 ahead = number - base;
        const u32 source = first_lane + ahead / 2 % WIDTH;
        const u32 first = __shfl_sync(ALL_LANES, windows[0], source);
        const u32 second = __shfl_sync(ALL_LANES, windows[1], source);
        const u32 both = ahead < 2 * WIDTH ? first : second;
        word = ahead % 2 == 0 ? both & 0xffff : both >> 16;
        next += __popc(wanting);
        if (next - base >= 2 * WIDTH) {
            base += 2 * WIDTH;
            windows[0] = windows[1];
            windows[1] = windows[2];
            windows[2] = load(base + 4 * WIDTH);
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
