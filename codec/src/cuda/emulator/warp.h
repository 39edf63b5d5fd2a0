// What a compiler for graphics processors brings along, for one that compiles for this processor: enough of it to run the
// kernels of this folder's neighbour as they are.
//
// Each thread of a block is a fibre. It runs until it comes to an operation of its warp or a barrier of its block, where it
// waits until all others are there too. Fibres run in an order that a seed decides, so that what works by the luck of an order
// fails for some seed; that the threads of a warp come to different operations ends the program, and so does one that leaves
// the others waiting.
#pragma once

#include <algorithm>

#define __device__
#define __global__
#define __launch_bounds__(...)
// What blocks share is in one place, to be made unreadable between blocks.
#define __shared__ static __attribute__((section("block_memory")))
#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())

using std::max;
using std::min;

namespace emulator {

struct Index {
    unsigned x;
};

Index thread_index();
Index block_index();

// Operations that all threads of a warp, or a block, do together.
enum class Operation { BALLOT, SHUFFLE, SHUFFLE_UP, WARP_BARRIER, BLOCK_BARRIER };

// Waits until all lanes of the warp are there, each with a value. Gives the values.
const unsigned* exchange(Operation operation, unsigned mask, unsigned value);

// Waits until all threads of the block are there.
void block_barrier();

inline unsigned lane() { return thread_index().x % 32; }

}  // namespace emulator

inline unsigned __ballot_sync(unsigned mask, bool predicate) {
    const unsigned* values = emulator::exchange(emulator::Operation::BALLOT, mask, predicate);
    unsigned ballot = 0;
    for (unsigned lane = 0; lane < 32; lane++) ballot |= values[lane] << lane;
    return ballot;
}

inline unsigned __shfl_sync(unsigned mask, unsigned value, unsigned source) {
    return emulator::exchange(emulator::Operation::SHUFFLE, mask, value)[source % 32];
}

inline unsigned __shfl_up_sync(unsigned mask, unsigned value, unsigned distance) {
    const unsigned* values = emulator::exchange(emulator::Operation::SHUFFLE_UP, mask, value);
    const unsigned lane = emulator::lane();
    return values[lane >= distance ? lane - distance : lane];
}

inline void __syncwarp() { emulator::exchange(emulator::Operation::WARP_BARRIER, 0xffffffffu, 0); }

inline void __syncthreads() { emulator::block_barrier(); }

inline unsigned __popc(unsigned bits) { return static_cast<unsigned>(__builtin_popcount(bits)); }

inline unsigned __ffs(unsigned bits) { return static_cast<unsigned>(__builtin_ffs(static_cast<int>(bits))); }
