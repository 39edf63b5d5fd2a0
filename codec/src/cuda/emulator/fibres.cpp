// The threads of a block as fibres of one thread.

#include "fibres.h"

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "warp.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

// The linker's names for the ends of what blocks share.
extern "C" char __start_block_memory[];
extern "C" char __stop_block_memory[];

namespace emulator {
namespace {

constexpr unsigned LANES = 32;
constexpr size_t STACK_BYTES = 128 << 10;

struct Fibre {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    void* kept_by_sanitizer = nullptr;
    bool ended = false;
    bool waits = false;
    Operation at = Operation::BLOCK_BARRIER;
    // How many operations of its warp it has come to.
    unsigned operations = 0;
};

// What the lanes of a warp exchange, by the parity of the operation: no lane is two operations ahead of another.
struct Warp {
    unsigned values[2][LANES];
};

std::vector<Fibre> fibres;
std::vector<Warp> warps;
unsigned running = 0;
unsigned block = 0;
ucontext_t scheduler;
void* scheduler_kept = nullptr;
const void* scheduler_stack = nullptr;
size_t scheduler_stack_bytes = 0;
const std::function<void()>* work = nullptr;

// AddressSanitizer wants to know on which stack the thread is.
void before_switch([[maybe_unused]] void** kept, [[maybe_unused]] const void* stack, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(kept, stack, bytes);
#endif
}

void after_switch([[maybe_unused]] void* kept, [[maybe_unused]] const void** from, [[maybe_unused]] size_t* bytes) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(kept, from, bytes);
#endif
}

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "emulator: block %u, thread %u: %s\n", block, running, what);
    std::abort();
}

void run_fibre() {
    after_switch(nullptr, &scheduler_stack, &scheduler_stack_bytes);
    (*work)();
    Fibre& fibre = fibres[running];
    fibre.ended = true;
    before_switch(nullptr, scheduler_stack, scheduler_stack_bytes);
    swapcontext(&fibre.context, &scheduler);
}

// Gives the processor back until the others are where this thread is.
void wait_at(Operation operation) {
    Fibre& fibre = fibres[running];
    fibre.waits = true;
    fibre.at = operation;
    before_switch(&fibre.kept_by_sanitizer, scheduler_stack, scheduler_stack_bytes);
    swapcontext(&fibre.context, &scheduler);
    after_switch(fibre.kept_by_sanitizer, nullptr, nullptr);
}

void resume(unsigned number) {
    running = number;
    Fibre& fibre = fibres[number];
    before_switch(&scheduler_kept, fibre.stack.get(), STACK_BYTES);
    swapcontext(&scheduler, &fibre.context);
    after_switch(scheduler_kept, nullptr, nullptr);
}

void start(Fibre& fibre) {
    if (!fibre.stack) fibre.stack.reset(new char[STACK_BYTES]);
    fibre.ended = fibre.waits = false;
    fibre.operations = 0;
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.get();
    fibre.context.uc_stack.ss_size = STACK_BYTES;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, run_fibre, 0);
}

// Lets the threads from `first` to `end` go on if all of them are at the same operation, which is one of those that they do
// together.
bool release(unsigned first, unsigned end, bool of_block) {
    for (unsigned number = first; number < end; number++) {
        const Fibre& fibre = fibres[number];
        if (!fibre.waits || (fibre.at == Operation::BLOCK_BARRIER) != of_block) return false;
    }
    for (unsigned number = first; number < end; number++) {
        running = number;
        if (fibres[number].at != fibres[first].at) fail("the lanes of a warp are at different operations");
        fibres[number].waits = false;
    }
    return true;
}

}  // namespace

Index thread_index() { return {running}; }

Index block_index() { return {block}; }

const unsigned* exchange(Operation operation, unsigned mask, unsigned value) {
    if (mask != 0xffffffffu) fail("not all lanes are asked for");
    unsigned* values = warps[running / LANES].values[fibres[running].operations++ % 2];
    values[running % LANES] = value;
    wait_at(operation);
    return values;
}

void block_barrier() { wait_at(Operation::BLOCK_BARRIER); }

void run_block(unsigned number, unsigned threads, std::mt19937& random, const std::function<void()>& kernel) {
    block = number;
    work = &kernel;
    fibres.resize(threads);
    warps.resize(threads / LANES);
    std::memset(__start_block_memory, 0xaa, static_cast<size_t>(__stop_block_memory - __start_block_memory));
    for (Fibre& fibre : fibres) start(fibre);
    std::vector<unsigned> order(threads);
    std::iota(order.begin(), order.end(), 0);
    for (unsigned ended = 0; ended < threads;) {
        if (random() % 8 == 0) std::shuffle(order.begin(), order.end(), random);
        bool advanced = false;
        for (unsigned thread : order) {
            if (fibres[thread].ended || fibres[thread].waits) continue;
            resume(thread);
            ended += fibres[thread].ended;
            advanced = true;
        }
        for (unsigned first = 0; first < threads; first += LANES) advanced |= release(first, first + LANES, false);
        advanced |= release(0, threads, true);
        if (!advanced) fail("it waits for threads that do not come");
    }
}

}  // namespace emulator
