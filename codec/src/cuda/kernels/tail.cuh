// The tail of a block: planes of raw bits, the sparse field, patches. Its last bytes are what the states end in.
#pragma once

#include "entries.cuh"
#include "rans.cuh"

// What all threads of a block share that decodes a BLOCK.
struct Shared {
    Table tables[MAX_PHASES];
    // Of each lane of each stream, the low half of its last state.
    u16 carried[THREADS];
    // Of each warp, something that the others want to know.
    u32 counts[WARPS];
};

struct Tail {
    const Input& input;
    const Job& job;
    const Shared& shared;

    __device__ u32 byte(u64 at) const {
        if (at < job.stored_tail_len) return input.byte(job.tail + at);
        const u64 carried = at - job.stored_tail_len;
        return carried < 2 * THREADS ? shared.carried[carried / 2] >> 8 * (carried % 2) & 0xff : 0u;
    }

    __device__ u32 two_bytes(u64 at) const { return byte(at) | byte(at + 1) << 8; }

    __device__ bool is_stored(u64 at) const { return at + 2 <= job.stored_tail_len; }
};

// Which part of the raw bits is wanted: before all keys are decoded only what is stored can be had.
constexpr u32 STORED = 0;
constexpr u32 CARRIED = 1;
constexpr u32 ALL = 2;

// The raw bits of an element of `width` of them, in planes of `groups` groups that begin at byte `start` of the tail. The parts that
// are not wanted are 0.
template <u32 WHICH>
__device__ inline u32 raw_bits(const Tail& tail, u64 start, u32 groups, u32 width, u32 group, u32 lane) {
    u32 raw = 0;
    u32 position = 0;
#pragma unroll
    for (u32 field = 16; field > 0; field /= 2) {
        if ((width & field) == 0) continue;
        const u32 bit = group * field;
        const u64 at = start + static_cast<u64>(bit / 16) * 2 * LANES + 2 * lane;
        if (WHICH == ALL || tail.is_stored(at) == (WHICH == STORED)) {
            const u32 vector = WHICH == STORED ? tail.input.two_bytes(tail.job.tail + at) : tail.two_bytes(at);
            raw |= (vector >> bit % 16 & ((1u << field) - 1)) << position;
        }
        position += field;
        start += static_cast<u64>((groups * field + 15) / 16) * 2 * LANES;
    }
    return raw;
}

// The first group of which a part of the raw bits may be carried; `groups` if there is none.
__device__ inline u32 first_carried_group(const Job& job, u32 groups, u32 width) {
    u32 first = groups;
    u64 start = 0;
    for (u32 field = 16; field > 0; field /= 2) {
        if ((width & field) == 0) continue;
        const u64 stored = job.stored_tail_len > start ? job.stored_tail_len - start : 0;
        const u64 group = stored / (2 * LANES) * (16 / field);
        if (group < first) first = static_cast<u32>(group);
        start += static_cast<u64>((groups * field + 15) / 16) * 2 * LANES;
    }
    return first;
}

// How elements are put together.
struct Split {
    u32 shift;
    u32 zeros;
    // Low bits that are stored raw, and what they are shifted by.
    u32 low_bits;
    u32 low_shift;
    u32 sign_shift;
    u32 has_sign;
    u32 magnitude;

    __device__ explicit Split(const Job& job)
        : shift(job.shift),
          zeros(job.zeros),
          low_bits(job.shift - job.zeros - job.sparse),
          low_shift(job.zeros + job.sparse),
          sign_shift(8 * job.size - 1),
          has_sign(job.has_sign),
          magnitude(0xffffffffu >> (32 - 8 * job.size + job.has_sign)) {}

    __device__ u32 raw_width() const { return low_bits + has_sign; }

    // The element with so much more magnitude.
    __device__ u32 add(u32 element, u32 amount) const {
        return (element & ~magnitude) | ((element + amount) & magnitude);
    }

    // The element with these raw bits, of which it lacks those that are set.
    __device__ u32 add_raw(u32 element, u32 raw) const {
        const u32 low = (raw & ((1u << low_bits) - 1)) << low_shift;
        return add(element, low) | (has_sign ? raw >> low_bits << sign_shift : 0u);
    }
};

// Adds the raw bits that were not known while the keys were decoded.
template <u32 SIZE>
__device__ inline void add_carried(const Tail& tail, const Split& split, u32 groups, const Elements<SIZE>& out) {
    const u32 lane = threadIdx.x % LANES;
    const u32 width = split.raw_width();
    for (u32 group = first_carried_group(tail.job, groups, width) + threadIdx.x / LANES; group < groups; group += WARPS) {
        const u32 number = group * LANES + lane;
        out.set(number, split.add_raw(out.get(number), raw_bits<CARRIED>(tail, 0, groups, width, group, lane)));
    }
}

// Adds the sparse field. False if its flags are not as many as they should be.
template <u32 SIZE>
__device__ inline bool add_sparse_field(const Tail& tail, Shared& shared, const Split& split, u32 groups,
                                        const Elements<SIZE>& out) {
    const Job& job = tail.job;
    const u32 lane = threadIdx.x % LANES;
    const u32 warp = threadIdx.x / LANES;
    const u32 flag_bytes = (groups + 7) / 8;
    const u64 planes = static_cast<u64>(job.planes_len) + flag_bytes;
    u32 flagged = 0;
    for (u32 first = 0; first < groups; first += THREADS) {
        const u32 group = first + threadIdx.x;
        const u32 flags = tail.byte(static_cast<u64>(job.planes_len) + group / 8);
        const u32 mine = __ballot_sync(ALL_LANES, group < groups && (flags >> group % 8 & 1) != 0);
        if (lane == 0) shared.counts[warp] = __popc(mine);
        __syncthreads();
        u32 rank = flagged;
        for (u32 other = 0; other < WARPS; other++) {
            if (other < warp) rank += shared.counts[other];
            flagged += shared.counts[other];
        }
        for (u32 rest = mine; rest != 0; rest &= rest - 1, rank++) {
            const u32 number = (first + warp * LANES + __ffs(rest) - 1) * LANES + lane;
            const u32 field = raw_bits<ALL>(tail, planes, job.sparse_groups, job.sparse, rank, lane);
            out.set(number, split.add(out.get(number), field << split.zeros));
        }
        __syncthreads();
    }
    const u32 beyond = tail.byte(static_cast<u64>(job.planes_len) + flag_bytes - 1) >> ((groups - 1) % 8 + 1);
    return flagged == job.sparse_groups && beyond == 0;
}

// Patches keys, with one warp. False if a patch is beyond the last element.
template <u32 SIZE>
__device__ inline bool patch(const Tail& tail, const Split& split, const Elements<SIZE>& out) {
    const u64 start = static_cast<u64>(tail.job.tail_len) - 4 * static_cast<u64>(tail.job.patches);
    return for_each_entry(
        tail.job.patches, [&](u32 entry) { return tail.two_bytes(start + 4 * static_cast<u64>(entry)); },
        [&](u32 entry, u32 number) {
            const u32 step = tail.two_bytes(start + 4 * static_cast<u64>(entry) + 2);
            if (step == 0) return true;
            out.set(number, split.add(out.get(number), step << split.shift));
            return number < out.count;
        });
}
