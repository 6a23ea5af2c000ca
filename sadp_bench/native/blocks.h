/* Blocks of work on a team of threads.

   The number of blocks does not depend on the threads, and sums of blocks are added in the blocks' order. So the numbers are
   the same for every number of threads. Nothing here includes a header of torch or Python. The caller passes the function that
   starts a team, GOMP_parallel of the OpenMP that torch runs on, so that there is one pool of threads. */

#ifndef SADP_BENCH_BLOCKS_H
#define SADP_BENCH_BLOCKS_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__GLIBC__)
/* The names of instruction sets select a version by support. "arch=" selects it by the processor's name, and an AMD processor
   then runs the slowest version. */
#define EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EACH_PROCESSOR
#endif

enum { MOST_BLOCKS = 64 };

typedef void (*team)(void (*)(void *), void *, unsigned threads, unsigned flags);

typedef struct job {
    const void *of; /* the subject of the work */
    int (*work)(const struct job *, int64_t first, int64_t end, double *sums); /* returns 0, or 1 without memory */
    int64_t units, blocks, width; /* width: numbers in a block's sums */
    double *sums;                 /* [blocks, width] */
    atomic_long next;
    atomic_int failed;
} job;

static void take_blocks(void *data) {
    job *j = data;
    for (long k; (k = atomic_fetch_add(&j->next, 1)) < j->blocks;)
        if (j->work(j, j->units * k / j->blocks, j->units * (k + 1) / j->blocks, j->sums + k * j->width))
            atomic_store(&j->failed, 1);
}

/* Does all units of work, and adds up the sums of the blocks in `total`, [width]. Returns 0, or 1 without memory. */
static int run(const void *of, team start, int threads, int (*work)(const job *, int64_t, int64_t, double *), int64_t units,
               double *total, int64_t width) {
    job j = {.of = of, .work = work, .units = units, .blocks = units < MOST_BLOCKS ? units : MOST_BLOCKS, .width = width};
    j.sums = calloc((size_t)(j.blocks * width + 1), sizeof(double));
    if (!j.sums) return 1;
    atomic_init(&j.next, 0);
    atomic_init(&j.failed, 0);
    if (start && threads > 1)
        start(take_blocks, &j, (unsigned)threads, 0);
    else
        take_blocks(&j);
    for (int64_t i = 0; i < width; i++) {
        total[i] = 0;
        for (int64_t k = 0; k < j.blocks; k++) total[i] += j.sums[k * width + i];
    }
    free(j.sums);
    return atomic_load(&j.failed);
}

#endif
