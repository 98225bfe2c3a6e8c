// openmp.c - a program that has its own threads lends them to the library.
//
//     cc -O2 -fopenmp -o openmp examples/openmp.c -lm && ./openmp
//
// The library has a pool of threads. A host program with another pool (here OpenMP; a job system,
// a server) sets desc.parallel_for, so that the two do not fight over the cores. Work is cut by
// outputs and no sum crosses a cut, so the results are the same to the last bit. This program
// checks that and fails otherwise. Without -fopenmp it runs on one thread. Where other programs
// keep the cores busy, OpenMP's waiting threads spin and slow the rest: OMP_WAIT_POLICY=passive
// helps.
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "example.h"
#ifdef _OPENMP
#include <omp.h>
#endif

static const program this_program = {
    .name = "openmp",
    .purpose = "a program that has its own threads lends them to the library",
};

// This is all: call task(arg, i) for i = 0 .. n-1 in any order, and return when all are done.
static void openmp_for(void *user, int n, void (*task)(void *arg, int i), void *arg) {
    (void)user;
#ifdef _OPENMP
#pragma omp parallel for schedule(static, 1) num_threads(n)
#endif
    for (int i = 0; i < n; i++) task(arg, i);
}

// A few training steps of a small transformer whose mixers learn: the seconds of a step, and a
// number made of every bit of the weights.
typedef struct {
    double seconds;
    uint64_t bits;
} outcome;

static outcome train(const ttt_desc *desc) {
    enum { STEPS = 10, B = 32 };
    ttt_ctx *c = open_or_die(desc);
    ttt_params p = { 0 };
    ttt_vit_desc d = { .image = 28, .channels = 1, .patch = 4, .width = 96, .depth = 2,
                       .classes = 10 };
    d.mixer = (ttt_mixer_desc){ .mixer = ttt_mixer_find("mttt-mlp"), .heads = 3, .inner_steps = 1,
                                .inner_lr = 1 };
    ttt_optimizer_desc rule = { .lr = (ttt_real)1e-3, .clip = 1 };
    ttt_weights w = ttt_vit_new(c, &d, &p, "");
    ttt_optimizer *opt = ttt_optimizer_new(c, &rule, &p);
    outcome o = { 0, 14695981039346656037u };
    double begin = 0;
    for (int step = 0; opt && step <= STEPS; step++) {
        if (step == 1) begin = ttt_seconds();  // the first step takes memory, the others do not
        ttt_mark m = ttt_mark_get(c);
        int64_t label[B];
        for (int i = 0; i < B; i++) label[i] = i % 10;
        ttt_tensor *x = ttt_randn(c, TTT_SHAPE(B, 28, 28, 1));
        ttt_tensor *y = ttt_one_hot(c, ttt_from_int(c, TTT_SHAPE(B), label), 10);
        ttt_optimizer_step(c, opt, ttt_cross_entropy(c, ttt_vit_forward(c, &d, w, x, NULL), y));
        ttt_mark_release(c, m);
    }
    o.seconds = (ttt_seconds() - begin) / STEPS;
    need_ok(c, "training");
    for (int i = 0; i < p.n; i++) {  // FNV-1a
        const unsigned char *byte = (const unsigned char *)p.value[i]->data;
        size_t n = (size_t)p.value[i]->size * sizeof(ttt_real);
        for (size_t k = 0; k < n; k++) o.bits = (o.bits ^ byte[k]) * 1099511628211u;
    }
    ttt_close(c);
    return o;
}

int main(int argc, char **argv) {
    read_options(argc, argv, NULL);
#ifdef _OPENMP
    int threads = omp_get_max_threads() < TTT_MAX_THREADS ? omp_get_max_threads() : TTT_MAX_THREADS;
#else
    int threads = 1;
    puts("compiled without -fopenmp: one thread");
#endif
    outcome one = train(&(ttt_desc){ .seed = 1, .threads = 1 });
    outcome own = train(&(ttt_desc){ .seed = 1, .threads = threads });
    outcome host = train(&(ttt_desc){ .seed = 1, .threads = threads, .parallel_for = openmp_for });
    printf("one thread               %8.2f ms a step, weights %016llx\n", 1e3 * one.seconds,
           (unsigned long long)one.bits);
    printf("the library's %2d threads %8.2f ms a step, weights %016llx\n", threads,
           1e3 * own.seconds, (unsigned long long)own.bits);
    printf("OpenMP's %2d threads      %8.2f ms a step, weights %016llx\n", threads,
           1e3 * host.seconds, (unsigned long long)host.bits);
    bool same = one.bits == own.bits && one.bits == host.bits;
    puts(same ? "the same to the last bit" : "NOT THE SAME");
    return same ? 0 : 1;
}
