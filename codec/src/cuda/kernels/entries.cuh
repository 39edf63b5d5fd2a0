// Lists of elements that are put right at the end, each with its distance to the one before.
#pragma once

#include "job.cuh"

// Goes through a list, with one warp: `gap` gives the distance of an entry to the one before, `apply` does what is to be done at
// its position and gives whether that is possible. False if it is not for some entry.
template <typename Gap, typename Apply>
__device__ inline bool for_each_entry(u32 count, const Gap& gap, const Apply& apply) {
    const u32 lane = threadIdx.x % LANES;
    bool possible = true;
    u32 position = 0;
    for (u32 first = 0; first < count; first += LANES) {
        const u32 entry = first + lane;
        const bool exists = entry < count;
        const u32 distance = exists ? gap(entry) : 0;
        u32 sum = distance;
        for (u32 lanes = 1; lanes < LANES; lanes *= 2) {
            const u32 before = __shfl_up_sync(ALL_LANES, sum, lanes);
            if (lane >= lanes) sum += before;
        }
        // Several entries of one element come one after the other, which no writer needs.
        const bool together = __ballot_sync(ALL_LANES, exists && distance == 0 && lane > 0) != 0;
        for (u32 turn = 0; turn < (together ? LANES : 1); turn++) {
            if (exists && (!together || turn == lane)) possible = apply(entry, position + sum) && possible;
            __syncwarp();
        }
        position += __shfl_sync(ALL_LANES, sum, LANES - 1);
    }
    return possible;
}
