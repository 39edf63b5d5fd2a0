// Runs batches that come on standard input, and writes what becomes of them to standard output.
//
// A batch is six numbers of 64 bits (bytes of input, bytes of output, jobs, tables, columns, seed), then all of these; the answer is
// the statuses and the output. Each is in memory of its own, exactly as large as it is, so that a sanitizer sees the first byte
// beyond.

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "fibres.h"
#include "warp.h"

#include "../kernels/decode.cu"

namespace {

template <typename T>
std::unique_ptr<T[]> read(u64 count) {
    std::unique_ptr<T[]> items(new T[count]);
    if (std::fread(items.get(), sizeof(T), count, stdin) != count) {
        std::fprintf(stderr, "emulator: a batch is cut short\n");
        std::exit(2);
    }
    return items;
}

}  // namespace

int main() {
    u64 numbers[6];
    while (std::fread(numbers, sizeof numbers, 1, stdin) == 1) {
        const auto [input_len, output_len, job_count, table_count, column_count, seed] = numbers;
        const auto input = read<u8>(input_len);
        const auto output = read<u8>(output_len);
        const auto jobs = read<Job>(job_count);
        const auto tables = read<Table>(table_count);
        const auto columns = read<u16>(column_count);
        std::unique_ptr<u32[]> statuses(new u32[job_count]);
        std::fill_n(statuses.get(), job_count, 0xaaaaaaaau);
        Batch batch = {};
        batch.input = input.get();
        batch.output = output.get();
        batch.jobs = jobs.get();
        batch.tables = tables.get();
        batch.columns = columns.get();
        batch.statuses = statuses.get();
        batch.output_len = output_len;
        batch.input_len = static_cast<u32>(input_len);
        batch.table_count = static_cast<u32>(table_count);
        batch.column_count = static_cast<u32>(column_count);
        std::mt19937 random(static_cast<unsigned>(seed));
        std::vector<unsigned> blocks(job_count);
        std::iota(blocks.begin(), blocks.end(), 0);
        std::shuffle(blocks.begin(), blocks.end(), random);
        for (unsigned block : blocks) emulator::run_block(block, THREADS, random, [&] { bigsmall_decode(batch); });
        std::fwrite(statuses.get(), sizeof(u32), job_count, stdout);
        std::fwrite(output.get(), 1, output_len, stdout);
        std::fflush(stdout);
    }
}
