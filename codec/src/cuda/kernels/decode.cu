// Decodes the chunks of a batch, one block of threads for each. docs/format.md is what it does; `chunk/block/decode` and `chunk/delta/decode`
// in this crate do the same on a processor, and whatever this refuses is decoded there again.

#include "delta.cuh"
#include "scale.cuh"
#include "tail.cuh"

// Decodes the keys of this warp's stream, and all of their raw bits that are stored. False if the stream does not end where it
// should.
template <u32 SIZE>
__device__ inline bool decode_stream(const Batch& batch, const Tail& tail, Shared& shared, const Split& split, u32 groups,
                                     const Elements<SIZE>& out) {
    const Job& job = tail.job;
    const u32 stream = threadIdx.x / LANES;
    const u32 lane = threadIdx.x % LANES;
    const u32 width = split.raw_width();
    u32 state = tail.input.four_bytes(job.states + 4 * static_cast<u64>(threadIdx.x));
    Words<LANES> words(tail.input, job.words[stream], job.word_counts[stream], lane);
    Runs runs(tail.input, job);
    Column column(batch, job, threadIdx.x);
    const u32 columns = job.streams * LANES % job.period;
    bool sound = state >> 16 != 0;
    u32 raw = raw_bits<STORED>(tail, 0, groups, width, stream, lane);
    for (u32 group = stream; group < groups; group += job.streams) {
        runs.go_to(group / QUAD_GROUPS);
        const u32 next_raw = raw_bits<STORED>(tail, 0, groups, width, group + job.streams, lane);
        const u32 key = look_up(shared.tables[runs.phase()], state);
        u32 word = 0;
        const bool takes = state >> 16 == 0;
        sound &= words.take(takes, word);
        if (takes) state = state << 16 | word;
        const u32 steps = (runs.offset() + column.offset()) & 0xffff;
        const u32 magnitude = ((key << split.shift) + (steps << job.step_shift)) & split.magnitude;
        out.set(group * LANES + lane, split.add_raw(magnitude, raw));
        column.advance(columns);
        raw = next_raw;
    }
    shared.carried[threadIdx.x] = static_cast<u16>(state);
    return sound && state >> 16 == 1 && words.next == job.word_counts[stream];
}

template <u32 SIZE>
__device__ inline bool decode_block(const Batch& batch, const Input& input, const Job& job, Shared& shared) {
    const Elements<SIZE> out = {batch.output + job.out, job.len / SIZE};
    const u32 groups = (out.count + LANES - 1) / LANES;
    const Split split(job);
    const Tail tail = {input, job, shared};
    for (u32 at = threadIdx.x; at < BUCKETS << job.phase_bits; at += THREADS) {
        const Table& from = batch.tables[job.table + at / BUCKETS];
        Table& to = shared.tables[at / BUCKETS];
        to.buckets[at % BUCKETS] = from.buckets[at % BUCKETS];
        to.symbols[at % BUCKETS] = from.symbols[at % BUCKETS];
    }
    __syncthreads();
    bool sound = true;
    if (threadIdx.x / LANES < job.streams) sound = decode_stream(batch, tail, shared, split, groups, out);
    __syncthreads();
    add_carried(tail, split, groups, out);
    if (job.sparse != 0) {
        __syncthreads();
        sound &= add_sparse_field(tail, shared, split, groups, out);
    }
    if (job.patches != 0) {
        __syncthreads();
        if (threadIdx.x / LANES == 0) sound &= patch(tail, split, out);
    }
    return sound;
}

// Whether a job keeps inside of what there is: all that is not checked where it is used.
__device__ inline bool is_possible(const Batch& batch, const Job& job) {
    if (job.len > batch.output_len || job.out > batch.output_len - job.len) return false;
    if (job.kind == COPY) {
        return job.stored_len == job.len && job.stored <= batch.input_len && job.len <= batch.input_len - job.stored;
    }
    if (job.kind == REPEAT) return job.stored_len > 0 && job.len % job.stored_len == 0;
    if (job.len == 0 || (job.size != 1 && job.size != 2 && job.size != 4) || job.len % job.size != 0) return false;
    const u32 width = 8 * job.size;
    if (job.kind == DELTA) {
        return job.streams >= 1 && job.streams <= MAX_DELTA_STREAMS && (job.streams & (job.streams - 1)) == 0 &&
               job.shift < width && job.tables >= 2 && job.tables <= MAX_DELTA_TABLES && job.tables <= batch.table_count &&
               job.table <= batch.table_count - job.tables && batch.column_count >= CONTEXTS &&
               job.columns <= batch.column_count - CONTEXTS && job.patches <= 0xffff;
    }
    return job.kind == BLOCK && job.has_sign <= 1 && job.shift < width - job.has_sign && job.zeros <= job.shift &&
           job.sparse <= job.shift - job.zeros && job.shift - job.zeros - job.sparse + job.has_sign < 32 && job.streams >= 1 &&
           job.streams <= WARPS && job.phase_bits <= 2 && batch.table_count >= 1u << job.phase_bits &&
           job.table <= batch.table_count - (1u << job.phase_bits) && job.run > 0 && job.first_run > 0 && job.code_bits <= 8 &&
           job.step_shift < 32 && job.period > 0 && job.period <= batch.column_count &&
           job.columns <= batch.column_count - job.period && job.patches <= 0xffff &&
           job.tail_len >= 4 * static_cast<u64>(job.patches) && job.stored_tail_len <= job.tail_len;
}

// Decodes a chunk of elements.
template <u32 SIZE>
__device__ inline bool decode_elements(const Batch& batch, const Input& input, const Job& job, Shared& shared,
                                       DeltaShared& delta) {
    return job.kind == BLOCK ? decode_block<SIZE>(batch, input, job, shared)
                             : decode_delta<SIZE>(batch, input, job, delta);
}

extern "C" __global__ void __launch_bounds__(THREADS, 6) bigsmall_decode(const Batch batch) {
    __shared__ union {
        Shared block;
        DeltaShared delta;
    } shared;
    __shared__ u32 failed;
    const Job& job = batch.jobs[blockIdx.x];
    const Input input = {batch.input, batch.input_len};
    if (threadIdx.x == 0) failed = 0;
    __syncthreads();
    bool sound = is_possible(batch, job);
    if (sound) {
        u8* out = batch.output + job.out;
        if (job.kind == COPY) copy(input, job.stored, out, job.len);
        if (job.kind == REPEAT) repeat(input, job.stored, job.stored_len, out, job.len);
        const bool elements = job.kind == BLOCK || job.kind == DELTA;
        if (elements && job.size == 1) sound = decode_elements<1>(batch, input, job, shared.block, shared.delta);
        if (elements && job.size == 2) sound = decode_elements<2>(batch, input, job, shared.block, shared.delta);
        if (elements && job.size == 4) sound = decode_elements<4>(batch, input, job, shared.block, shared.delta);
    }
    if (!sound) failed = 1;
    __syncthreads();
    if (threadIdx.x == 0) batch.statuses[blockIdx.x] = failed ? REFUSED : DECODED;
}
