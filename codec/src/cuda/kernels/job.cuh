// What the host tells the kernel: one job for each chunk, one block of four warps for each job.
//
// The host has checked every length in a job before. The kernel trusts none of them nevertheless: whatever a job says, no
// read leaves the buffers and no write the output of its chunk. `job.rs` declares the same structures.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;

// Lanes of a warp, and elements of a group.
constexpr u32 LANES = 32;
// Warps of a block: one decodes one stream.
constexpr u32 WARPS = 4;
constexpr u32 THREADS = WARPS * LANES;
// Groups of a quad, all of whose elements have one table and one offset.
constexpr u32 QUAD_GROUPS = 4;
constexpr u32 MAX_PHASES = 4;
constexpr u32 BUCKETS = 64;
constexpr u32 ALL_LANES = 0xffffffffu;

// How a chunk becomes its bytes.
constexpr u32 COPY = 0;
constexpr u32 REPEAT = 1;
constexpr u32 BLOCK = 2;
constexpr u32 DELTA = 3;

// What becomes of a job. Nothing says why: the host decodes a refused chunk again, and says it.
constexpr u32 DECODED = 0;
constexpr u32 REFUSED = 1;

// A frequency table by the alias method.
struct Table {
    // Of each bucket: threshold in bits 0..7, alias in bits 8..14, adjustment in bits 16..32.
    u32 buckets[BUCKETS];
    // Of each symbol: frequency in bits 0..13, key in bits 16..32.
    u32 symbols[BUCKETS];
};

// Positions are bytes of the input, unless said otherwise.
struct Job {
    // Where the bytes of the chunk begin in the output, and how many they are.
    u64 out;
    u32 len;
    u32 kind;
    // The stored bytes: those to copy, or to repeat.
    u32 stored;
    u32 stored_len;

    // All that follows is for a BLOCK, and some of it for a DELTA.
    // Bytes of an element, 1, 2 or 4, and whether it has a sign.
    u32 size;
    u32 has_sign;
    // Its split, and the bits of the sparse field, which is above the zeros. Of a DELTA the shift is the bits of the mantissa.
    u32 shift;
    u32 zeros;
    u32 sparse;
    u32 sparse_groups;
    // Patches, or outsiders.
    u32 patches;
    // The number of its first table among all.
    u32 table;
    u32 streams;
    // Of a DELTA the numbers of words are before the states, and the words of the other streams behind those of the first.
    u32 states;
    u32 words[WARPS];
    u32 word_counts[WARPS];
    // The tail: where its stored part is, how long that and all of it are. Planes are the first of it. Of a DELTA it is the outsiders.
    u32 tail;
    u32 stored_tail_len;
    u32 tail_len;
    u32 planes_len;

    // Normalisation: one table for each of `1 << phase_bits` phases. A block that is not normalised has one run, with code 0.
    u32 phase_bits;
    // Quads of a run, and how many of the first run are in this chunk.
    u32 run;
    u32 first_run;
    // The codes of runs: where they are packed, bits of one, what is added to each.
    u32 codes;
    u32 code_bits;
    i32 code_base;
    // Steps of an octave; a step is `1 << step_shift`.
    u32 octave;
    u32 step_shift;
    // The offsets of columns among all, how many there are (at least one), the column of the first element.
    u32 columns;
    u32 period;
    u32 column;

    // For a DELTA: how many tables it has, the elements of its base in the input, what is added to codes. The tables of its 64 contexts,
    // counted from the first one for differences, are at `columns`.
    u32 tables;
    u32 base;
    i32 origin;
};

// What all jobs of a launch share.
struct Batch {
    const u8* input;
    u8* output;
    const Job* jobs;
    const Table* tables;
    // In steps, modulo 2^16; and the tables of contexts.
    const u16* columns;
    // One for each job.
    u32* statuses;
    u64 output_len;
    u32 input_len;
    u32 table_count;
    u32 column_count;
    u32 padding;
};
