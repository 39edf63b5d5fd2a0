// Chunks that are coded against a base: half a warp decodes one stream.
#pragma once

#include "entries.cuh"
#include "rans.cuh"

// Lanes of a stream, and elements of a group.
constexpr u32 DELTA_LANES = 16;
constexpr u32 MAX_DELTA_STREAMS = THREADS / DELTA_LANES;
// Elements that share a code, and the groups of these.
constexpr u32 RUN = 128;
constexpr u32 RUN_GROUPS = RUN / DELTA_LANES;
// The table of codes, and those for differences.
constexpr u32 MAX_DELTA_TABLES = 17;
constexpr u32 CONTEXTS = 64;
// Runs whose codes are at hand.
constexpr u32 TILE = THREADS;

// Slots in the order of keys. Of each symbol: its key in bits 0 to 6, its frequency less 1 in bits 7 to 18, its first slot
// above; those that the table lacks have one beyond the last.
struct OrderedTable {
    u32 symbols[BUCKETS];
};

// What all threads of a block share.
struct DeltaShared {
    OrderedTable tables[MAX_DELTA_TABLES];
    // For each context the number of its table.
    u8 contexts[CONTEXTS];
    u8 codes[TILE];
};

// Brings the frequencies of a table in order, with one warp.
__device__ inline void order_table(const Table& from, OrderedTable& to, u32 lane) {
    const u32 pair[2] = {from.symbols[2 * lane], from.symbols[2 * lane + 1]};
    const u32 frequencies = (pair[0] & 0x1fff) + (pair[1] & 0x1fff);
    u32 end = frequencies;
    for (u32 distance = 1; distance < LANES; distance *= 2) {
        const u32 before = __shfl_up_sync(ALL_LANES, end, distance);
        if (lane >= distance) end += before;
    }
    u32 first = end - frequencies;
    for (u32 which = 0; which < 2; which++) {
        const u32 frequency = pair[which] & 0x1fff;
        to.symbols[2 * lane + which] = (pair[which] >> 16 & 0x7f) | ((frequency - 1) & 0xfff) << 7 | first << 19;
        first += frequency;
    }
}

// One lane of a stream. All lanes of a warp call what is here together.
struct DeltaLane {
    Words<DELTA_LANES> words;
    u32 state;
    bool sound;

    // The stream has so many words from byte `start` of the input on.
    __device__ DeltaLane(const Input& input, u32 start, u32 count, u32 state)
        : words(input, start, count, threadIdx.x % DELTA_LANES), state(state), sound(state >> 16 != 0) {}

    // Reads a word if the state has become too small.
    __device__ void refill(bool active) {
        const bool takes = active && state >> 16 == 0;
        u32 word = 0;
        sound &= words.take(takes, word);
        if (takes) state = state << 16 | word;
    }

    // Takes a key, if the lane is active.
    __device__ u32 key(const OrderedTable& table, bool active) {
        const u32 slot = state % 4096;
        u32 symbol = 0;
#pragma unroll
        for (u32 step = BUCKETS / 2; step > 0; step /= 2) {
            if (table.symbols[symbol + step] >> 19 <= slot) symbol += step;
        }
        const u32 packed = table.symbols[symbol];
        if (active) state = ((packed >> 7 & 0xfff) + 1) * (state >> 12) + (slot - (packed >> 19));
        refill(active);
        return packed & 0x7f;
    }

    // Takes so many bits, at most 16.
    __device__ u32 bits(u32 count) {
        const u32 taken = state & ((1u << count) - 1);
        state >>= count;
        refill(true);
        return taken;
    }
};

// What floats of `8 * SIZE` bits are.
template <u32 SIZE>
struct Floats {
    static constexpr u32 UNUSED = 32 - 8 * SIZE;
    static constexpr u32 SIGN = 1u << (8 * SIZE - 1);

    // The element that has the difference with this key and these bits to that of the base.
    __device__ static u32 moved(u32 base, u32 key, u32 extra) {
        const u32 bucket = key >> 1;
        const u32 size = bucket < 2 ? bucket : ((2 | (bucket & 1)) << extra_bits(key)) + extra;
        const u32 difference = key & 1 ? 0u - size : size;
        const u32 place = ((base & (SIGN - 1)) + difference) << UNUSED;
        const u32 negative = place >> 31;
        // The shift brings the sign to all bits above.
        const u32 whole = static_cast<u32>(static_cast<i32>(place) >> UNUSED);
        return (negative ? ~whole : whole) | ((base & SIGN) ^ (negative ? SIGN : 0u));
    }

    __device__ static u32 extra_bits(u32 key) { return max(key >> 2, 1u) - 1; }
};

// The elements of the base, which are as many as those of the chunk, in the input.
template <u32 SIZE>
__device__ inline u32 base_element(const Input& input, const Job& job, u32 number) {
    if (number >= job.len / SIZE) return 0;
    const u64 at = job.base + static_cast<u64>(number) * SIZE;
    if (SIZE == 1) return input.byte(at);
    return SIZE == 2 ? input.two_bytes(at) : input.four_bytes(at);
}

// Decodes the codes of runs, each to where the first byte of its run is to be: there is no other place for them.
template <u32 SIZE>
__device__ inline void decode_codes(DeltaLane& lane, const Job& job, const DeltaShared& shared, u32 runs,
                                    const Elements<SIZE>& out) {
    const u32 stream = threadIdx.x / DELTA_LANES;
    const u32 groups = (runs + DELTA_LANES - 1) / DELTA_LANES;
    // Of the two streams of a warp one may have a group more.
    for (u32 first = 0; first < groups; first += job.streams) {
        const u32 group = first + stream;
        const bool active = stream < job.streams && group < groups;
        const u32 code = lane.key(shared.tables[0], active);
        const u32 run = group * DELTA_LANES + threadIdx.x % DELTA_LANES;
        if (active && run < runs) out.bytes[static_cast<u64>(run) * RUN * SIZE] = static_cast<u8>(code);
    }
}

// Decodes the groups of a run that are this stream's. Streams that there are not go along.
template <u32 SIZE>
__device__ inline void decode_run(DeltaLane& lane, const Input& input, const Job& job, const DeltaShared& shared,
                                  u32 run, const Elements<SIZE>& out) {
    const u32 stream = threadIdx.x / DELTA_LANES;
    const bool active = stream < job.streams;
    const u32 place = static_cast<u32>(job.origin) + shared.codes[run % TILE];
    for (u32 group = stream % job.streams; group < RUN_GROUPS; group += job.streams) {
        const u32 number = run * RUN + group * DELTA_LANES + threadIdx.x % DELTA_LANES;
        const u32 base = base_element<SIZE>(input, job, number);
        const u32 exponent = (base & (Floats<SIZE>::SIGN - 1)) >> job.shift;
        const i32 context = min(max(static_cast<i32>(place - exponent), 0), static_cast<i32>(CONTEXTS) - 1);
        const u32 key = lane.key(shared.tables[1 + shared.contexts[context]], active);
        const u32 bits = active ? Floats<SIZE>::extra_bits(key) : 0;
        u32 extra = lane.bits(min(bits, 16u));
        if (SIZE == 4) extra |= lane.bits(bits - min(bits, 16u)) << 16;
        if (active) out.set(number, Floats<SIZE>::moved(base, key, extra));
    }
}

// Puts elements in place whose key no table has, with one warp. False if one is beyond the last element.
template <u32 SIZE>
__device__ inline bool put_outsiders(const Input& input, const Job& job, const Elements<SIZE>& out) {
    const u64 stride = 2 + SIZE;
    return for_each_entry(
        job.patches, [&](u32 entry) { return input.two_bytes(job.tail + entry * stride); },
        [&](u32 entry, u32 number) {
            u32 element = 0;
            for (u32 byte = 0; byte < SIZE; byte++) {
                element |= input.byte(job.tail + entry * stride + 2 + byte) << 8 * byte;
            }
            out.set(number, element);
            return number < out.count;
        });
}

template <u32 SIZE>
__device__ inline bool decode_delta(const Batch& batch, const Input& input, const Job& job, DeltaShared& shared) {
    const Elements<SIZE> out = {batch.output + job.out, job.len / SIZE};
    const u32 runs = (out.count + RUN - 1) / RUN;
    const u32 warp = threadIdx.x / LANES;
    for (u32 table = warp; table < job.tables; table += WARPS) {
        order_table(batch.tables[job.table + table], shared.tables[table], threadIdx.x % LANES);
    }
    if (threadIdx.x < CONTEXTS) {
        const u32 table = batch.columns[job.columns + threadIdx.x];
        shared.contexts[threadIdx.x] = static_cast<u8>(min(table, job.tables - 2));
    }
    __syncthreads();
    // Words of the streams before lie before those of this one.
    const u32 stream = threadIdx.x / DELTA_LANES;
    u32 start = job.words[0];
    u32 count = 0;
    for (u32 other = 0; other <= stream && other < job.streams; other++) {
        start += 2 * count;
        count = input.four_bytes(job.states - 4 * static_cast<u64>(job.streams - other));
    }
    const bool exists = stream < job.streams;
    const u32 first_state = exists ? input.four_bytes(job.states + 4 * static_cast<u64>(threadIdx.x)) : 1u << 16;
    DeltaLane lane(input, start, exists ? count : 0, first_state);
    const bool decodes = warp * (LANES / DELTA_LANES) < job.streams;
    if (decodes) decode_codes(lane, job, shared, runs, out);
    for (u32 first = 0; first < runs; first += TILE) {
        const u32 end = min(first + TILE, runs);
        __syncthreads();
        if (first + threadIdx.x < end) {
            shared.codes[threadIdx.x] = out.bytes[static_cast<u64>(first + threadIdx.x) * RUN * SIZE];
        }
        __syncthreads();
        for (u32 run = first + warp; run < end; run += WARPS) {
            if (shared.codes[run % TILE] != 0) continue;
            for (u32 at = threadIdx.x % LANES; at < RUN; at += LANES) {
                out.set(run * RUN + at, base_element<SIZE>(input, job, run * RUN + at));
            }
        }
        for (u32 run = first; decodes && run < end; run++) {
            if (shared.codes[run % TILE] != 0) decode_run(lane, input, job, shared, run, out);
        }
    }
    bool sound = !exists || (lane.sound && lane.state == 1u << 16 && lane.words.next == count);
    if (job.patches != 0) {
        __syncthreads();
        if (warp == 0) sound &= put_outsiders(input, job, out);
    }
    return sound;
}
