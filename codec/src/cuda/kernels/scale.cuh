// What normalisation took from the elements of a stream, as a warp comes by them.
#pragma once

#include "memory.cuh"

// The runs of quads that a stream's groups are in, in order. The code of the run after is on its way from memory meanwhile.
struct Runs {
    const Input& input;
    const Job& job;
    u32 quad;
    u32 run;
    // Quads of this run from `quad` on.
    u32 left;
    i32 code;
    i32 next_code;

    __device__ Runs(const Input& input, const Job& job)
        : input(input), job(job), quad(0), run(0), left(job.first_run), code(load(0)), next_code(load(1)) {}

    __device__ i32 load(u32 run) const {
        const u64 bit = static_cast<u64>(run) * job.code_bits;
        const u32 packed = input.two_bytes(job.codes + bit / 8) >> bit % 8 & ((1u << job.code_bits) - 1);
        return static_cast<i32>(static_cast<u32>(job.code_base) + packed);
    }

    // Goes on to a quad that is this one or one after it.
    __device__ void go_to(u32 wanted) {
        while (quad < wanted) {
            const u32 step = min(wanted - quad, left);
            quad += step;
            left -= step;
            if (left == 0) {
                run++;
                left = job.run;
                code = next_code;
                next_code = load(run + 1);
            }
        }
    }

    __device__ u32 phase() const { return static_cast<u32>(code) & ((1u << job.phase_bits) - 1); }

    // In steps; only the low 16 bits count.
    __device__ u32 offset() const { return static_cast<u32>(code >> job.phase_bits) * job.octave; }
};

// The column that a lane's element is in.
struct Column {
    const u16* offsets;
    u32 period;
    u32 at;

    // The first element of the lane's stream is number `element` of its chunk.
    __device__ Column(const Batch& batch, const Job& job, u32 element)
        : offsets(batch.columns + job.columns),
          period(job.period),
          at(static_cast<u32>((static_cast<u64>(job.column) + element) % job.period)) {}

    // Goes on by so many columns, less than there are.
    __device__ void advance(u32 columns) {
        at += columns;
        if (at >= period) at -= period;
    }

    __device__ u32 offset() const { return offsets[at]; }
};
