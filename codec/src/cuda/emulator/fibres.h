// Runs the threads of a block.
#pragma once

#include <functional>
#include <random>

namespace emulator {

// Runs a block of so many threads, each of which does `kernel`, in an order that `random` decides.
void run_block(unsigned number, unsigned threads, std::mt19937& random, const std::function<void()>& kernel);

}  // namespace emulator
