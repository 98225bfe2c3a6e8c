// Tests of what a context of ttt_tensor.h gives its ops: threads, memory, errors, random numbers
// and profiles.
#include "tensor_test.h"
#ifdef __linux__
#include <sys/stat.h>
#include <unistd.h>
#endif

// ---- threads ------------------------------------------------------------------------------------
// A tensor x (700,192), so large that each of eight threads gets a share, and what else ops need.
typedef struct {
    ttt_tensor *x, *positive, *row, *column, *batch, *rows;
} large;

// The kinds of product that threads share out differently: plain, a long sum, sums over a batch.
static ttt_tensor *large_products(ttt_ctx *c, const large *l) {
    ttt_tensor *x = l->x, *square = ttt_slice(c, x, 0, 0, 192);
    ttt_tensor *squares = ttt_broadcast(c, square, TTT_SHAPE(20, 192, 192));
    ttt_tensor *y[4] = {
        ttt_matmul(c, x, square),
        ttt_matmul_t(c, x, x, true, false),
        ttt_matmul_to(c, l->batch, l->batch, true, false, TTT_SHAPE(192, 192)),
        ttt_matmul_to(c, l->batch, squares, false, false, TTT_SHAPE(35, 192)),
    };
    return ttt_concat(c, y, 4, 0);
}
// A product is added to one row, to one matrix, to all of them; the last is shared out by columns.
static ttt_tensor *large_sums(ttt_ctx *c, const large *l) {
    ttt_tensor *x = l->x, *square = ttt_slice(c, x, 0, 0, 192);
    ttt_tensor *wide = ttt_slice(c, ttt_reshape(c, x, TTT_SHAPE(192, 700)), 0, 0, 48);
    wide = ttt_matmul_add(c, ttt_slice(c, x, 0, 0, 48), x, false, true, wide);
    ttt_tensor *y[4] = {
        ttt_matmul_add(c, l->batch, square, false, false, l->row),
        ttt_matmul_add(c, l->batch, square, false, false, ttt_slice(c, x, 0, 0, 35)),
        ttt_matmul_add(c, l->batch, square, false, false, l->batch),
        ttt_reshape(c, wide, TTT_SHAPE(5, 35, 192)),
    };
    return ttt_concat(c, y, 4, 0);
}
static ttt_tensor *large_choice(ttt_ctx *c, const large *l) {
    ttt_tensor *chosen = ttt_where(c, l->x, l->x, l->column);
    return ttt_where(c, ttt_heaviside(c, l->row), chosen, l->positive);
}
static ttt_tensor *large_solution(ttt_ctx *c, const large *l) {
    ttt_tensor *system = ttt_scale(c, ttt_slice(c, l->batch, 2, 0, 35), REAL(0.1));
    return ttt_solve_lower(c, system, l->batch, false);
}
static ttt_tensor *large_convolutions(ttt_ctx *c, const large *l) {
    ttt_tensor *kernel = ttt_reshape(c, ttt_slice(c, l->x, 0, 0, 25), TTT_SHAPE(5, 5, 192));
    ttt_tensor *grid = ttt_depthwise_conv2d(c, l->batch, kernel);
    return ttt_depthwise_conv1d(c, grid, ttt_slice(c, l->x, 0, 0, 4));
}
// The rows of TTT_OTHER_OPS, in their order.
#define LARGE_OPS(X)                                                                        \
    X(scale, ttt_scale(c, x, 3))                                                            \
    X(add_scalar, ttt_add_scalar(c, x, 3))                                                  \
    X(clamp, ttt_clamp(c, x, REAL(-0.5), 1))                                                \
    X(pow, ttt_pow(c, l->positive, REAL(2.5)))                                              \
    X(where, large_choice(c, l))                                                            \
    X(dropout, ttt_dropout(c, x, REAL(0.3)))                                                \
    X(matmul, large_products(c, l))                                                         \
    X(matmul_add, large_sums(c, l))                                                         \
    X(mix, ttt_mix(c, l->batch, l->batch, true, l->row))                                    \
    X(sum_to, ttt_add(c, ttt_sum_to(c, x, TTT_SHAPE(700, 1)),                               \
                      ttt_add(c, ttt_sum_to(c, x, TTT_SHAPE(192)), ttt_sum(c, x))))         \
    X(cumsum, ttt_add(c, ttt_cumsum(c, x, 0, false), ttt_cumsum(c, x, 1, true)))            \
    X(norm, ttt_norm_axis(c, x, 0))                                                         \
    X(broadcast, ttt_broadcast(c, x, TTT_SHAPE(3, 700, 192)))                               \
    X(reshape, ttt_reshape(c, x, TTT_SHAPE(192, 700)))                                      \
    X(permute, ttt_permute(c, l->batch, (int[]){ 1, 2, 0 }))                                \
    X(slice, ttt_slice(c, x, 0, 3, 600))                                                    \
    X(pad, ttt_pad(c, x, 1, 3, 200))                                                        \
    X(concat, ttt_concat(c, (ttt_tensor *[]){ x, x }, 2, 1))                                \
    X(index_select, ttt_mul(c, ttt_index_select(c, x, l->rows), ttt_max_axis(c, x, 0)))     \
    X(index_add, ttt_index_add(c, ttt_slice(c, x, 0, 0, 5), l->rows, 700))                  \
    X(depthwise_conv, large_convolutions(c, l))                                             \
    X(depthwise_kernel, ttt_depthwise_kernel(c, l->batch, l->batch, TTT_SHAPE(3, 5)))       \
    X(solve_lower, large_solution(c, l))                                                    \
    X(softmax, ttt_softmax(c, x))                                                           \
    X(softmax_seen, ttt_softmax_seen(c, x, ttt_heaviside(c, ttt_sub(c, x, l->row))))        \
    X(log_softmax, ttt_log_softmax(c, x))                                                   \
    X(normalize, ttt_layer_normalize(c, x, REAL(1e-5)))                                     \
    X(normalize_d1, ttt_normalize_d1(c, x, l->positive, REAL(1e-5), true))                  \
    X(rstd, ttt_rstd(c, x, REAL(1e-5), true))

// The result of op number `which`, and its name; NULL past the end.
static ttt_tensor *large_op(ttt_ctx *c, const large *l, int which, const char **name) {
    ttt_tensor *x = l->x;
    int i = 0;
#define X(op, formula, lo, hi, flops) \
    if (i++ == which) return *name = #op, ttt_##op(c, lo > 0 ? l->positive : x);
    TTT_UNARY_OPS(X)
#undef X
#define X(op, formula, lo, hi, flops) \
    if (i++ == which)                 \
        return *name = #op,           \
               ttt_##op(c, ttt_##op(c, x, l->positive), ttt_##op(c, l->row, l->column));
    TTT_BINARY_OPS(X)
#undef X
#define X(op, call) if (i++ == which) return *name = #op, call;
    LARGE_OPS(X)
#undef X
    return NULL;
}

// Hashes of every op's result and gradient. Returns their number.
static int large_ops(ttt_ctx *c, uint64_t *hashes) {
    large l;
    int n = 0;
    const char *name;
    l.x = numbers(c, TTT_SHAPE(700, 192));
    l.positive = ttt_uniform(c, TTT_SHAPE(700, 192), REAL(0.5), 2);
    l.row = ttt_uniform(c, TTT_SHAPE(192), REAL(0.5), 2);
    l.column = ttt_uniform(c, TTT_SHAPE(700, 1), REAL(0.5), 2);
    l.batch = ttt_reshape(c, l.x, TTT_SHAPE(20, 35, 192));
    l.rows = ttt_from_int(c, TTT_SHAPE(5), (int64_t[]){ 699, 0, 7, 7, 1 });
    for (;; n++) {
        ttt_mark m = ttt_mark_get(c);
        ttt_tensor *y = large_op(c, &l, n, &name), *g[2];
        if (!y) break;
        CHECK(ttt_op_table(n) && !strcmp(name, ttt_op_table(n)->name));
        ttt_grad(c, ttt_sum(c, ttt_square(c, y)), (ttt_tensor *[]){ l.x, l.positive }, 2, g,
                 TTT_GRAD_FIRST_ORDER);
        hashes[n] = hash(hash(hash(1, y), g[0]), g[1]);
        ttt_mark_release(c, m);
    }
    CHECK(ttt_op_table(n) == NULL);
    return n;
}

// The host's own loop over shares: backward, on one thread.
static void host_loop(void *user, int n, void (*task)(void *arg, int i), void *arg) {
    ((host *)user)->loops++;
    for (int i = n - 1; i >= 0; i--) task(arg, i);
}

static void the_number_of_threads_changes_no_bit(void) {
    static const int threads[] = { 1, 2, 3, 8, 8 };  // the last: by the host's loop
    uint64_t first[100], step = 0, other[100];
    for (int i = 0; i < COUNT(threads); i++) {
        host h = { 0 };
        ttt_desc own = { .seed = 1, .threads = threads[i] };
        ttt_desc lent = { .seed = 1, .threads = threads[i], .user = &h, .parallel_for = host_loop };
        ttt_ctx *c = ttt_open(i == 4 ? &lent : &own);
        int n = large_ops(c, i ? other : first), bad = -1;
        for (int k = 0; k < n && i; k++) if (other[k] != first[k]) bad = k;
        if (bad >= 0) printf("  %s with %d threads\n", ttt_op_table(bad)->name, threads[i]);
        CHECK(bad < 0);
        learner l = learner_new(c, 300, 40, 64);
        uint64_t hashed = learner_step(c, &l);
        if (i == 0) step = hashed;
        CHECK(hashed == step);
        CHECK(i < 4 || h.loops > n);
        CHECK(i < 4 || ttt_threads(c) == 8);
        CLOSE(c);
    }
}

static uint64_t seeded_steps(uint64_t seed, int threads) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = seed, .threads = threads });
    learner l = learner_new(c, 100, 24, 32);
    uint64_t h = 0;
    for (int i = 0; i < 10; i++) {
        ttt_mark m = ttt_mark_get(c);
        h ^= learner_step(c, &l) + (uint64_t)i;
        l.w[0]->data[i] += 1;
        ttt_mark_release(c, m);
    }
    h = ttt_ok(c) ? h : 0;
    ttt_close(c);
    return h;
}
#if defined(TTT_NO_THREADS) || defined(_WIN32)
static void two_contexts_in_two_threads(void) { SKIP("no POSIX threads"); }
#else
static void *other_thread(void *h) {
    *(uint64_t *)h = seeded_steps(*(uint64_t *)h, 2);
    return NULL;
}
static void two_contexts_in_two_threads(void) {
    uint64_t h[2] = { 11, 12 };
    pthread_t thread[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&thread[i], NULL, other_thread, &h[i]) == 0);
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    CHECK(h[0] == seeded_steps(11, 1) && h[1] == seeded_steps(12, 1) && h[0] != h[1] && h[0] != 0);
}
#endif

// What Linux says in its files about the CPUs that a process may use.
#if defined(TTT_NO_THREADS) || !defined(__linux__)
static void threads_are_as_many_as_the_process_may_use(void) { SKIP("no Linux, or no threads"); }
#else
static const char *written(const char *folder, const char *name, const char *text) {
    static char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
    return path;
}
static int cpus_of_mask(const char *folder, const char *text) {
    return ttt__cpus_allowed(written(folder, "status", text));
}
// With a quota above the process's group, in it, and for other things than CPUs; all of two kinds.
static int quota(const char *folder, const char *groups, const char *above, const char *own,
                 const char *own_period) {
    char unified[300], group[300];
    snprintf(unified, sizeof unified, "%s/cpu", folder);
    snprintf(group, sizeof group, "%s/cpu/mine", folder);
    written(unified, "cpu.max", above);
    written(group, own_period ? "cpu.cfs_quota_us" : "cpu.max", own);
    if (own_period) written(group, "cpu.cfs_period_us", own_period);
    int cpus = ttt__cpu_quotas(written(folder, "cgroup", groups), folder);
    static const char *const names[] = { "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us" };
    for (int i = 0; i < 3; i++) remove(written(group, names[i], ""));
    return cpus;
}
static void threads_are_as_many_as_the_process_may_use(void) {
    char folder[100], unified[120], group[120], tail[3000] = "Name:\tx\nCpus_allowed:\t";
    snprintf(folder, sizeof folder, "/tmp/ttt_test_cpus_%ld", (long)getpid());
    snprintf(unified, sizeof unified, "%s/cpu", folder);
    snprintf(group, sizeof group, "%s/cpu/mine", folder);
    CHECK(mkdir(folder, 0777) == 0 && mkdir(unified, 0777) == 0 && mkdir(group, 0777) == 0);
    CHECK(cpus_of_mask(folder, "Name:\tff\nCpus_allowed:\t1\nCpus_allowed_list:\t0-7\n") == 1);
    CHECK(cpus_of_mask(folder, "Cpus_allowed:\tf0,0000000a\nMems_allowed:\tff\n") == 6);
    for (int i = 0; i < 256; i++) strcat(tail, "80000001,");
    CHECK(cpus_of_mask(folder, strcat(tail, "3\nMems_allowed:\tff\n")) == 514);
    CHECK(cpus_of_mask(folder, "Name:\tx\n") == 0);
    CHECK(quota(folder, "0::/cpu/mine\n", "max 100000\n", "150000 100000\n", NULL) == 2);
    CHECK(quota(folder, "0::/cpu/mine\n", "100000 100000\n", "max 100000\n", NULL) == 1);
    CHECK(quota(folder, "0::/cpu\n", "max 100000\n", "1000 100000\n", NULL) == TTT_MAX_THREADS);
    CHECK(quota(folder, "7:pids:/\n1:cpu:/mine\n0::/\n", "", "50000\n", "100000\n") == 1);
    CHECK(quota(folder, "1:cpu:/mine\n", "", "-1\n", "100000\n") == TTT_MAX_THREADS);
    CHECK(quota(folder, "1:cpu:/gone/from/here\n", "300000 100000", "-1", "100000") == 3);
    remove(written(folder, "status", ""));
    remove(written(folder, "cgroup", ""));
    remove(written(unified, "cpu.max", ""));
    CHECK(rmdir(group) == 0 && rmdir(unified) == 0 && rmdir(folder) == 0);
    ttt_ctx *c = ttt_open(&(ttt_desc){ .threads = TTT_ALL_THREADS });
    CHECK(ttt_threads(c) == TTT__MIN(ttt__cores(), TTT_MAX_THREADS));
    CLOSE(c);
}
#endif

// ---- memory -------------------------------------------------------------------------------------
// A step that uses everything: all ops, recorded and unrecorded gradients, a learner, an op of the
// user.
static uint64_t whole_step(ttt_ctx *c, ttt_tensor *p, learner *l) {
    ttt_tensor *g, *y = all_ops(c, p);
    ttt_grad(c, y, &p, 1, &g, TTT_GRAD_RECORD);
    y = ttt_sum(c, ttt_square(c, g));
    mix user = { &mixes[1], USED_AGAIN };
    y = ttt_add(c, y, mix_value(c, (ttt_tensor *[]){ p, g }, 2, &user));
    ttt_grad(c, y, &p, 1, &g, TTT_GRAD_FIRST_ORDER);
    return hash(learner_step(c, l), g);
}

static void a_warm_step_takes_no_memory(void) {
    host h = { 0 };
    ttt_ctx *c = open_host(&h);
    learner l = learner_new(c, 6, 3, 4);
    ttt_tensor *p = normal_param(c, TTT_SHAPE(96), 1);
    ttt_memory_report warm = { 0 };
    uint64_t first = 0;
    long calls = 0;
    for (int step = 0; step < 5; step++) {
        ttt_mark m = ttt_mark_get(c);
        ttt_memory_reset(c);
        uint64_t hashed = whole_step(c, p, &l);
        ttt_memory_report now = ttt_memory(c);
        CHECK(now.peak >= now.keep + now.step + now.scratch && now.step > 0 && now.scratch == 0);
        ttt_mark_release(c, m);
        if (step == 0) first = hashed;
        if (step == 1) calls = h.calls, warm = now;
        CHECK(hashed == first);
        CHECK(step < 1 || (h.calls == calls && now.held == warm.held));
        CHECK(step < 1 || (now.peak == warm.peak && now.nodes == warm.nodes));
    }
    CHECK(ttt_memory(c).step == 0 && ttt_memory(c).keep > 0);
    CLOSE(c);
    CHECK(h.living == 0);
}

// Each allocation of a program fails in turn, alone or with all later ones. The error is reported,
// nothing leaks, and once there is memory again the same context computes the same numbers.
static void memory_may_run_out_anywhere(void) {
    uint64_t right = 0;
    for (int on = 0; on < 2; on++) {
        bool refused = true;
        for (int n = on ? 1 : 0; refused; n++) {  // n = 0: nothing fails
            host h = { .fail_at = n, .fail_on = on };
            ttt_ctx *c = open_host(&h);
            if (c) {
                ttt_mark m = ttt_mark_get(c);
                ttt_rng start = *ttt_ctx_rng(c);
                learner l = learner_new(c, 6, 3, 4);
                ttt_tensor *p = normal_param(c, TTT_SHAPE(96), 1);
                uint64_t hashed = whole_step(c, p, &l);
                refused = h.refused > 0;
                CHECK(ttt_status(c) == (refused ? TTT_ERR_NO_MEMORY : TTT_OK));
                CHECK(ttt_memory(c).scratch == 0);
                if (n == 0) right = hashed;
                CHECK(refused || hashed == right);
                h.fail_at = 0;
                ttt_clear(c);
                ttt_mark_release(c, m);
                *ttt_ctx_rng(c) = start;
                l = learner_new(c, 6, 3, 4);
                p = normal_param(c, TTT_SHAPE(96), 1);
                CHECK(whole_step(c, p, &l) == right);
                CLOSE(c);
            }
            CHECK(h.living == 0);
            CHECK(n < 1000);
            if (n == 0 || n >= 1000) refused = n == 0;
        }
    }
}

// A step of a length: tensors, some of them released on the way, a parameter now and then, and a
// gradient that needs workspace.
static void step_of_length(ttt_ctx *c, int64_t length) {
    ttt_mark outer = ttt_mark_get(c);
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(length, 8), 1), *y = x, *g;
    if (length % 50 == 0) ttt_zeros_kept(c, TTT_SHAPE(length, 8));
    for (int i = 0; i < 20; i++) {
        ttt_mark inner = ttt_mark_get(c);
        ttt_new(c, TTT_SHAPE(length, 200 + 10 * i));
        if (i % 3 == 0) ttt_mark_release(c, inner);
        y = ttt_add(c, y, ttt_square(c, y));
    }
    ttt_vjp(c, y, x, &x, 1, &g, TTT_GRAD_RECORD);
    ttt_vjp(c, g, x, &x, 1, &g, TTT_GRAD_FIRST_ORDER);
    ttt_mark_release(c, outer);
}
static int64_t random_length(ttt_rng *rng) { return 1 + ttt_rng_below(rng, 200); }

// What a context holds is at most twice what was needed at once so far, whatever the lengths of its
// steps were, beside a first chunk for each arena.
static void memory_held_is_at_most_twice_the_need(void) {
    enum { GROWING, SHRINKING, RANDOM, DOUBLING, LENGTHS };
    const size_t first_chunks = (size_t)3 << 16;
    for (int lengths = 0; lengths < LENGTHS; lengths++) {
        host h = { 0 };
        ttt_ctx *c = open_host(&h);
        size_t opened = h.bytes;
        ttt_rng rng = ttt_rng_at(1, 0, 0, 0);
        double worst = 0;
        for (int64_t i = 1; i <= 200; i++) {
            const int64_t length[] = { i, 201 - i, random_length(&rng), (int64_t)1 << i % 9 };
            step_of_length(c, length[lengths]);
            ttt_memory_report now = ttt_memory(c);
            CHECK(now.held == h.bytes - sizeof *c);
            double held = (double)(h.bytes - opened) - (double)first_chunks;
            worst = fmax(worst, held / (double)now.peak);
        }
        if (worst > 2) printf("  lengths %d: %.2f times the need is held\n", lengths, worst);
        CHECK(worst <= 2);
        CLOSE(c);
        CHECK(h.living == 0 && h.bytes == 0);
    }
}

static void memory_may_run_out_at_the_opening(void) {
    for (int n = 1; n < 12; n++) {
        host h = { .fail_at = n, .fail_on = 1 };
        ttt_close(ttt_open(&(ttt_desc){ .threads = 3, .user = &h }));
        CHECK(h.living == 0);
    }
}

static void parameters_survive_a_release(void) {
    ttt_ctx *c = open_ctx();
    ttt_mark outer = ttt_mark_get(c);
    ttt_tensor *w[3], *g[3];
    for (int i = 0; i < 3; i++) {
        numbers(c, TTT_SHAPE(50));
        ttt_mark inner = ttt_mark_get(c);
        numbers(c, TTT_SHAPE(5));
        w[i] = normal_param(c, TTT_SHAPE(4), 1);
        w[i]->data[0] = REAL(i);
        numbers(c, TTT_SHAPE(7));
        if (i != 1) ttt_mark_release(c, inner);
        for (int j = 0; j <= i; j++) CHECK(w[j]->data[0] == j);
    }
    ttt_mark_release(c, outer);
    CHECK(ttt_memory(c).nodes == 3 && ttt_memory(c).step == 0);
    for (int round = 0; round < 3; round++) {
        ttt_mark m = ttt_mark_get(c);
        ttt_tensor *y = ttt_sum(c, ttt_add(c, ttt_mul(c, w[0], w[1]), ttt_square(c, w[2])));
        ttt_grad(c, y, w, 3, g, TTT_GRAD_FIRST_ORDER);
        CHECK(same_bits(g[0], w[1]) && same_bits(g[1], w[0]) &&
              same_bits(g[2], ttt_scale(c, w[2], 2)));
        CHECK(w[0]->data[0] == 0 && w[1]->data[0] == 1 && w[2]->data[0] == 2);
        ttt_mark_release(c, m);
    }
    CLOSE(c);
}

// A tensor whose place on the tape is empty, or belongs to another now, is noticed before its shape
// is read.
#define RELEASED(call)                                                                          \
    do {                                                                                        \
        call;                                                                                   \
        if (!strstr(ttt_error(c), "released")) printf("  %s: \"%s\"\n", #call, ttt_error(c));   \
        CHECK(ttt_status(c) == TTT_ERR_RELEASED && strstr(ttt_error(c), "released"));           \
        ttt_clear(c);                                                                           \
    } while (0)
static void use_released(ttt_ctx *c, ttt_tensor *w, ttt_tensor *y, ttt_tensor *gone,
                         ttt_tensor *rows) {
    ttt_tensor *out;
#define X(name, formula, lo, hi, flops) RELEASED(ttt_##name(c, gone));
    TTT_UNARY_OPS(X)
#undef X
#define X(name, formula, lo, hi, flops) RELEASED(ttt_##name(c, w, gone));
    TTT_BINARY_OPS(X)
#undef X
    RELEASED(ttt_scale(c, gone, 2));
    RELEASED(ttt_matmul(c, gone, w));
    RELEASED(ttt_affine(c, w, w, gone));
    RELEASED(ttt_sum(c, gone));
    RELEASED(ttt_mean(c, gone));
    RELEASED(ttt_mean_axis(c, gone, 0));
    RELEASED(ttt_mse(c, w, gone));
    RELEASED(ttt_broadcast(c, gone, TTT_SHAPE(2, 3, 3)));
    RELEASED(ttt_reshape(c, gone, TTT_SHAPE(9)));
    RELEASED(ttt_permute(c, gone, (int[]){ 1, 0 }));
    RELEASED(ttt_transpose(c, gone));
    RELEASED(ttt_slice(c, gone, 0, 0, 1));
    RELEASED(ttt_pad(c, gone, 0, 0, 9));
    RELEASED(ttt_concat(c, (ttt_tensor *[]){ w, gone }, 2, 0));
    RELEASED(ttt_index_select(c, gone, rows));
    RELEASED(ttt_index_select(c, w, gone));
    RELEASED(ttt_index_add(c, gone, rows, 3));
    RELEASED(ttt_detach(c, gone));
    RELEASED(ttt_softmax(c, gone));
    RELEASED(ttt_normalize_d1(c, w, gone, 1, true));
    RELEASED(ttt_rstd(c, gone, 1, true));
    RELEASED(ttt_depthwise_conv1d(c, w, gone));
    RELEASED(ttt_depthwise_kernel(c, gone, w, TTT_SHAPE(3)));
    RELEASED(ttt_solve_lower(c, gone, gone, false));
    RELEASED(ttt_grad(c, gone, &w, 1, &out, TTT_GRAD_FIRST_ORDER));
    RELEASED(ttt_grad(c, y, &gone, 1, &out, TTT_GRAD_RECORD));
    RELEASED(ttt_grad(c, y, &w, 1, &gone, TTT_GRAD_ADD));
    RELEASED(ttt_vjp(c, w, gone, &w, 1, &out, TTT_GRAD_FIRST_ORDER));
}
static void released_tensors_are_not_used(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *w = normal_param(c, TTT_SHAPE(3, 3), 1),
               *rows = ttt_from_int(c, TTT_SHAPE(3), (int64_t[]){ 0, 1, 2 });
    ttt_tensor *y = ttt_sum(c, ttt_square(c, w));
    ttt_mark m = ttt_mark_get(c);
    for (int i = 0; i < 60; i++) numbers(c, SCALAR);
    ttt_tensor *gone = numbers(c, TTT_SHAPE(3, 3));
    ttt_mark_release(c, m);
    use_released(c, w, y, gone, rows);
    ttt_mark_release(c, m);
    ttt_full(c, TTT_SHAPE(100000), 3);  // numbers where the tensor was
    for (int i = 0; i < 70; i++) numbers(c, SCALAR);
    use_released(c, w, y, gone, rows);
    CLOSE(c);
}

// The same after others took its place, on the tape and in memory: one or many, of its shape or of
// another, once or again and again.
static void released_tensors_are_not_those_that_took_their_place(void) {
    static const int made[] = { 1, 3, 1500 };  // tensors of a step: the last need more places
    for (int k = 0; k < COUNT(made); k++)
        for (int64_t size = 3; size < 5; size++) {
            ttt_ctx *c = open_ctx();
            ttt_tensor *w = normal_param(c, TTT_SHAPE(3, 3), 1), *y = ttt_sum(c, ttt_square(c, w)),
                       *rows = ttt_from_int(c, TTT_SHAPE(3), (int64_t[]){ 0, 1, 2 });
            ttt_mark m = ttt_mark_get(c);
            ttt_tensor *gone = numbers(c, TTT_SHAPE(3, 3));
            for (int step = 0; step < (made[k] > 3 ? 3 : 1000); step++) {
                ttt_mark_release(c, m);
                for (int i = 0; i < made[k]; i++) ttt_full(c, TTT_SHAPE(3, size), 7);
                ttt_tensor *mine = ttt_zeros(c, TTT_SHAPE(3, 3));
                FAILS(ttt_add(c, gone, mine), TTT_ERR_RELEASED, "add", "the first input");
                if (step < 2) use_released(c, w, y, gone, rows);
            }
            ttt_tensor *kept = ttt_zeros_kept(c, TTT_SHAPE(3, 3));  // moves to gone's place
            ttt_mark_release(c, m);
            CHECK(ttt_ok(c) && kept->id == m.nodes && ttt_add(c, kept, kept)->size == 9);
            FAILS(ttt_exp(c, gone), TTT_ERR_RELEASED, "exp");
            CLOSE(c);
        }
}

static void released_memory_is_poisoned(void) {
#ifdef TTT_POISON
    ttt_ctx *c = open_ctx();
    ttt_mark m = ttt_mark_get(c);
    ttt_tensor *t = ttt_full(c, TTT_SHAPE(100), 1);
    ttt_real *data = t->data;
    ttt_mark_release(c, m);
    CHECK(isnan(data[0]) && isnan(data[99]));
    CLOSE(c);
#else
    SKIP("compiled without TTT_POISON");
#endif
}

static void alloc_is_aligned_and_bounded(void) {
    host h = { 0 };
    ttt_ctx *c = open_host(&h);
    for (size_t n = 0; n < 300; n += 7) {
        char *a = ttt_alloc(c, n, false), *b = ttt_alloc(c, n, true);
        CHECK(a && b && (uintptr_t)a % 64 == 0 && (uintptr_t)b % 64 == 0);
        if (a && b) memset(a, 1, n), memset(b, 1, n);
    }
    for (int i = 0; i < 3; i++) {
        static const size_t much[3] = { (size_t)-1, (size_t)-1 - 62, (size_t)-1 / 2 };
        CHECK(ttt_alloc(c, much[i], false) == NULL && ttt_status(c) == TTT_ERR_NO_MEMORY);
        ttt_clear(c);
    }
    CLOSE(c);
    CHECK(h.living == 0);
}

// ---- errors -------------------------------------------------------------------------------------

static void shapes_that_cannot_be(void) {
    host h = { 0 };
    ttt_ctx *c = open_host(&h);
    const int64_t G = (int64_t)1 << 31, E = (int64_t)1 << 62;
    const ttt_real one_real[1] = { 1 };
    const struct { ttt_shape s; const char *text; } bad[9] = {
        { TTT_SHAPE(-1), "(-1)" },
        { TTT_SHAPE(2, -3, 0), "(2,-3,0)" },
        { TTT_SHAPE(E), "4611686018427387904" },
        { TTT_SHAPE(G, G), "(2147483648,2147483648)" },
        { TTT_SHAPE(G, G, 2), "(2147483648,2147483648,2)" },
        { TTT_SHAPE(E, E, E, E), "4611686018427387904" },
        { TTT_SHAPE(INT64_MAX, INT64_MAX), "9223372036854775807" },
        { { 9, { 1, 1, 1, 1, 1, 1, 1, 1 } }, "9" },
        { { -1, { 0 } }, "-1" },
    };
    for (int i = 0; i < COUNT(bad); i++) {
        long calls = h.calls;
        FAILS(ttt_new(c, bad[i].s), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_zeros(c, bad[i].s), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_full(c, bad[i].s, 1), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_from(c, bad[i].s, one_real), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_from_int(c, bad[i].s, &G), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_randn(c, bad[i].s), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_uniform(c, bad[i].s, 0, 1), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_zeros_kept(c, bad[i].s), TTT_ERR_SHAPE, bad[i].text);
        CHECK(h.calls == calls);  // before any allocation
    }
    if (sizeof(size_t) == 8)
        FAILS(ttt_new(c, TTT_SHAPE(G, 1 << 20)), TTT_ERR_NO_MEMORY, "out of memory");
    ttt_tensor *one = ttt_zeros(c, TTT_SHAPE(1, 1));
    FAILS(ttt_broadcast(c, one, TTT_SHAPE(G, G)), TTT_ERR_SHAPE, "(2147483648,2147483648)");
    FAILS(ttt_pad(c, one, 0, 0, E), TTT_ERR_SHAPE, "4611686018427387904");
    FAILS(ttt_index_add(c, one, ttt_from_int(c, TTT_SHAPE(1), (int64_t[]){ 0 }), E), TTT_ERR_SHAPE,
          "4611686018427387904");
    CHECK(ttt_zeros(c, TTT_SHAPE(0, 3))->size == 0 && ttt_zeros(c, TTT_SHAPE(E, 0))->size == 0);
    CHECK(ttt_shape_size(SCALAR) == 1 && ttt_shape_size(TTT_SHAPE(2, 3)) == 6);
    CHECK(ttt_shape_size(TTT_SHAPE(E)) == E && ttt_shape_size(TTT_SHAPE(E, 2)) == -1);
    CLOSE(c);
    CHECK(h.living == 0);
}

// Shapes that do not fit: a (2,3), b (4), and others made here.
static void products_do_not_fit(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b) {
    ttt_tensor *x = numbers(c, TTT_SHAPE(2, 3, 4)), *w = numbers(c, TTT_SHAPE(4, 5));
    FAILS(ttt_matmul(c, w, x), TTT_ERR_SHAPE, "matmul", "(4,5)", "(2,3,4)", "(...,m,k)");
    FAILS(ttt_matmul(c, a, w), TTT_ERR_SHAPE, "matmul", "(2,3)", "(4,5)");
    FAILS(ttt_matmul_t(c, w, x, true, false), TTT_ERR_SHAPE, "matmul", "(4,5)^T", "(2,3,4)");
    FAILS(ttt_matmul_t(c, a, w, false, true), TTT_ERR_SHAPE, "matmul", "(2,3)", "(4,5)^T");
    FAILS(ttt_matmul(c, b, w), TTT_ERR_SHAPE, "matmul", "(4)", "(4,5)");
    FAILS(ttt_matmul(c, numbers(c, TTT_SHAPE(2, 3, 4)), numbers(c, TTT_SHAPE(3, 4, 5))),
          TTT_ERR_SHAPE, "matmul", "(2,3,4)", "(3,4,5)");
    FAILS(ttt_matmul_to(c, x, w, false, false, TTT_SHAPE(3, 4)), TTT_ERR_SHAPE, "matmul", "(2,3,5)",
          "(3,4)");
    FAILS(ttt_matmul_to(c, x, w, false, false, TTT_SHAPE(5)), TTT_ERR_SHAPE, "matmul", "(2,3,5)",
          "(5)");
    FAILS(ttt_matmul_to(c, x, w, false, false, TTT_SHAPE(3, 3, 5)), TTT_ERR_SHAPE, "matmul",
          "(2,3,5)", "(3,3,5)");
    FAILS(ttt_matmul_to(c, a, numbers(c, TTT_SHAPE(3, 5)), false, false, TTT_SHAPE(7, 2, 5)),
          TTT_ERR_SHAPE, "matmul", "(2,5)", "(7,2,5)");
    FAILS(ttt_affine(c, x, a, b), TTT_ERR_SHAPE, "affine", "(2,3,4)", "(2,3)");
    FAILS(ttt_affine(c, x, w, b), TTT_ERR_SHAPE, "affine", "(4)", "(2,3,5)");
    FAILS(ttt_affine(c, x, w, numbers(c, TTT_SHAPE(2, 5))), TTT_ERR_SHAPE, "affine", "(2,5)",
          "(2,3,5)");
    FAILS(ttt_affine(c, x, w, numbers(c, TTT_SHAPE(3, 1, 5))), TTT_ERR_SHAPE, "affine", "(3,1,5)",
          "(2,3,5)");
    FAILS(ttt_affine(c, x, w, ttt_scalar(c, 1)), TTT_ERR_SHAPE, "affine", "()", "(2,3,5)");
}
static void convolutions_do_not_fit(ttt_ctx *c, ttt_tensor *a, ttt_tensor *x) {
    ttt_tensor *grid = numbers(c, TTT_SHAPE(2, 3, 3, 4));
    FAILS(ttt_depthwise_conv1d(c, a, numbers(c, TTT_SHAPE(2, 4))), TTT_ERR_SHAPE,
          "depthwise_conv1d", "(2,3)", "(2,4)", "(taps,C)");
    FAILS(ttt_depthwise_conv1d(c, x, numbers(c, TTT_SHAPE(3, 2, 4))), TTT_ERR_SHAPE, "(3,2,4)");
    FAILS(ttt_depthwise_conv1d(c, x, ttt_zeros(c, TTT_SHAPE(0, 4))), TTT_ERR_SHAPE, "(0,4)");
    FAILS(ttt_depthwise_conv1d(c, x, numbers(c, TTT_SHAPE(4))), TTT_ERR_SHAPE, "(4)");
    FAILS(ttt_depthwise_conv1d(c, numbers(c, TTT_SHAPE(4)), x), TTT_ERR_SHAPE, "(4)");
    FAILS(ttt_depthwise_conv2d(c, grid, numbers(c, TTT_SHAPE(3, 2, 4))), TTT_ERR_SHAPE,
          "depthwise_conv2d", "(2,3,3,4)", "(3,2,4)", "(odd,odd,C)");
    FAILS(ttt_depthwise_conv2d(c, grid, numbers(c, TTT_SHAPE(2, 3, 4))), TTT_ERR_SHAPE, "(2,3,4)");
    FAILS(ttt_depthwise_conv2d(c, grid, numbers(c, TTT_SHAPE(3, 4))), TTT_ERR_SHAPE, "(3,4)");
    FAILS(ttt_depthwise_conv2d(c, a, grid), TTT_ERR_SHAPE, "(2,3)");
    FAILS(ttt_depthwise_kernel(c, x, a, TTT_SHAPE(3)), TTT_ERR_SHAPE, "depthwise_kernel", "(2,3,4)",
          "(2,3)", "(3)");
    FAILS(ttt_depthwise_kernel(c, grid, grid, TTT_SHAPE(3, 2)), TTT_ERR_SHAPE, "(3,2)");
    FAILS(ttt_depthwise_kernel(c, grid, grid, TTT_SHAPE(0)), TTT_ERR_SHAPE, "(0)");
    FAILS(ttt_depthwise_kernel(c, grid, grid, TTT_SHAPE(1, 1, 1)), TTT_ERR_SHAPE, "(1,1,1)");
    FAILS(ttt_depthwise_kernel(c, a, a, TTT_SHAPE(1, 1)), TTT_ERR_SHAPE, "(1,1)");
}
static void gradients_do_not_fit(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b) {
    ttt_tensor *out[1];
    ttt_grad(c, a, &a, 1, out, TTT_GRAD_FIRST_ORDER);
    FAILS(out[0], TTT_ERR_SHAPE, "(2,3)", "ttt_vjp");
    ttt_vjp(c, a, b, &a, 1, out, TTT_GRAD_RECORD);
    FAILS(out[0], TTT_ERR_SHAPE, "(2,3)", "(4)");
    out[0] = ttt_zeros(c, TTT_SHAPE(4, 3));
    ttt_grad(c, ttt_sum(c, a), &a, 1, out, TTT_GRAD_ADD);
    FAILS(NULL, TTT_ERR_SHAPE, "(2,3)", "(4,3)");
}
static void shapes_that_do_not_fit(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *s = ttt_scalar(c, 1), *x = numbers(c, TTT_SHAPE(2, 3, 4));
    ttt_tensor *a = numbers(c, TTT_SHAPE(2, 3)), *b = numbers(c, TTT_SHAPE(4));
    ttt_tensor *rows = ttt_from_int(c, TTT_SHAPE(3), (int64_t[]){ 0, 1, 0 });
#define X(name, formula, lo, hi, flops) \
    FAILS(ttt_##name(c, a, b), TTT_ERR_SHAPE, #name, "(2,3)", "(4)");
    TTT_BINARY_OPS(X)
#undef X
    FAILS(ttt_mse(c, a, b), TTT_ERR_SHAPE, "(2,3)", "(4)");
    products_do_not_fit(c, a, b);
    FAILS(ttt_sum_to(c, a, TTT_SHAPE(2, 2)), TTT_ERR_SHAPE, "sum_to", "(2,3)", "(2,2)");
    FAILS(ttt_sum_to(c, a, TTT_SHAPE(1, 2, 3)), TTT_ERR_SHAPE, "sum_to", "(2,3)", "(1,2,3)");
    FAILS(ttt_broadcast(c, a, TTT_SHAPE(4, 3)), TTT_ERR_SHAPE, "broadcast", "(2,3)", "(4,3)");
    FAILS(ttt_broadcast(c, a, TTT_SHAPE(3)), TTT_ERR_SHAPE, "broadcast", "(2,3)", "(3)");
    FAILS(ttt_broadcast(c, ttt_zeros(c, TTT_SHAPE(1)), TTT_SHAPE(-1)), TTT_ERR_SHAPE, "(-1)");
    FAILS(ttt_reshape(c, a, TTT_SHAPE(7)), TTT_ERR_SHAPE, "reshape", "(2,3)", "(7)");
    FAILS(ttt_reshape(c, a, TTT_SHAPE(-2, -3)), TTT_ERR_SHAPE, "reshape", "(2,3)", "(-2,-3)");
    FAILS(ttt_transpose(c, b), TTT_ERR_SHAPE, "transpose");
    FAILS(ttt_concat(c, (ttt_tensor *[]){ a, x }, 2, 0), TTT_ERR_SHAPE, "concat", "(2,3)",
          "(2,3,4)");
    FAILS(ttt_concat(c, (ttt_tensor *[]){ a, numbers(c, TTT_SHAPE(3, 2)) }, 2, 1), TTT_ERR_SHAPE,
          "concat", "(2,3)", "(3,2)");
    FAILS(ttt_index_select(c, b, rows), TTT_ERR_SHAPE, "index_select", "(4)", "(3)");
    FAILS(ttt_index_select(c, a, a), TTT_ERR_SHAPE, "index_select", "integers");
    FAILS(ttt_index_select(c, x, ttt_from_int(c, TTT_SHAPE(3, 1), (int64_t[]){ 0, 1, 0 })),
          TTT_ERR_SHAPE, "index_select", "(2,3,4)", "(3,1)");
    FAILS(ttt_index_add(c, a, rows, 5), TTT_ERR_SHAPE, "index_add", "2", "3");
    FAILS(ttt_where(c, a, a, b), TTT_ERR_SHAPE, "where", "(2,3)", "(4)");
    FAILS(ttt_where(c, b, a, a), TTT_ERR_SHAPE, "where", "(4)", "(2,3)");
    FAILS(ttt_max_axis(c, ttt_zeros(c, TTT_SHAPE(2, 0)), 1), TTT_ERR_SHAPE, "max_axis", "axis 1",
          "(2,0)", "expected");
    FAILS(ttt_argmax(c, ttt_zeros(c, TTT_SHAPE(0)), -1), TTT_ERR_SHAPE, "argmax", "axis -1", "(0)",
          "expected");
    FAILS(ttt_embedding(c, x, rows), TTT_ERR_SHAPE, "embedding", "(2,3,4)", "(3)", "expected");
    FAILS(ttt_embedding(c, a, ttt_from_int(c, TTT_SHAPE(1, 1, 1, 1, 1, 1, 1, 1), (int64_t[]){ 0 })),
          TTT_ERR_SHAPE, "embedding", "(1,1,1,1,1,1,1,1)", "expected");
    convolutions_do_not_fit(c, a, x);
    FAILS(ttt_solve_lower(c, a, a, false), TTT_ERR_SHAPE, "solve_lower", "(2,3)", "(...,n,n)");
    FAILS(ttt_softmax(c, s), TTT_ERR_SHAPE, "softmax", "()");
    FAILS(ttt_log_softmax(c, s), TTT_ERR_SHAPE, "log_softmax", "()");
    FAILS(ttt_layer_normalize(c, s, 1), TTT_ERR_SHAPE, "normalize", "()");
    FAILS(ttt_rstd(c, s, 1, true), TTT_ERR_SHAPE, "rstd", "()");
    FAILS(ttt_normalize_d1(c, a, b, 1, true), TTT_ERR_SHAPE, "normalize_d1", "(2,3)", "(4)");
    gradients_do_not_fit(c, a, b);
    CLOSE(c);
}

// Arguments out of range, for a (2,3).
static void axes_out_of_range(ttt_ctx *c, ttt_tensor *a) {
    FAILS(ttt_sum_axis(c, a, 2), TTT_ERR_ARGUMENT, "sum_axis", "axis 2", "(2,3)");
    FAILS(ttt_mean_axis(c, a, -3), TTT_ERR_ARGUMENT, "mean_axis", "axis -3", "(2,3)");
    FAILS(ttt_max_axis(c, a, 2), TTT_ERR_ARGUMENT, "max_axis", "axis 2", "(2,3)");
    FAILS(ttt_argmax(c, a, -3), TTT_ERR_ARGUMENT, "argmax", "axis -3", "(2,3)");
    FAILS(ttt_max_axis(c, ttt_scalar(c, 1), 0), TTT_ERR_ARGUMENT, "max_axis", "axis 0", "()");
    FAILS(ttt_permute(c, a, (int[]){ 0, 2 }), TTT_ERR_ARGUMENT, "permute", "order[1]");
    FAILS(ttt_permute(c, a, (int[]){ 1, 1 }), TTT_ERR_ARGUMENT, "permute", "order[1]");
    FAILS(ttt_permute(c, a, (int[]){ -1, 0 }), TTT_ERR_ARGUMENT, "permute", "order[0]");
    FAILS(ttt_concat(c, &a, 0, 0), TTT_ERR_ARGUMENT, "concat");
    FAILS(ttt_concat(c, &a, 1, 2), TTT_ERR_ARGUMENT, "concat", "axis 2");
}
static void numbers_out_of_range(ttt_ctx *c, ttt_tensor *a) {
    FAILS(ttt_clamp(c, a, 1, REAL(0.5)), TTT_ERR_ARGUMENT, "clamp", "1", "0.5",
          "lo <= hi expected");
    FAILS(ttt_clamp(c, a, REAL(NAN), 1), TTT_ERR_ARGUMENT, "clamp", "nan", "expected");
    FAILS(ttt_pow(c, a, REAL(INFINITY)), TTT_ERR_ARGUMENT, "pow", "inf", "expected");
    FAILS(ttt_pow(c, a, REAL(NAN)), TTT_ERR_ARGUMENT, "pow", "nan", "expected");
    const double share[] = { 1, -0.1, 2, (double)NAN };
    for (int i = 0; i < COUNT(share); i++) {
        FAILS(ttt_dropout(c, a, REAL(share[i])), TTT_ERR_ARGUMENT, "dropout",
              "0 <= p < 1 expected");
        FAILS(ttt_dropout_seeded(c, a, REAL(share[i]), 1), TTT_ERR_ARGUMENT, "dropout",
              "0 <= p < 1 expected");
    }
}
static void spans_out_of_range(ttt_ctx *c, ttt_tensor *a) {
    FAILS(ttt_slice(c, a, 2, 0, 1), TTT_ERR_ARGUMENT, "slice", "axis 2", "(2,3)");
    const int64_t most = INT64_MAX, least = INT64_MIN;
    const int64_t span[][2] = { { 0, 4 }, { 3, 1 }, { -1, 1 }, { 0, -1 },
                                { most, most }, { least, least }, { 2, most } };
    for (int i = 0; i < COUNT(span); i++)
        FAILS(ttt_slice(c, a, 1, span[i][0], span[i][1]), TTT_ERR_ARGUMENT, "slice", "(2,3)");
    const int64_t hole[][2] = { { 0, 2 }, { 1, 3 }, { -1, 5 },
                                { most, most }, { 0, least }, { 0, -1 } };
    for (int i = 0; i < COUNT(hole); i++)
        FAILS(ttt_pad(c, a, 1, hole[i][0], hole[i][1]), TTT_ERR_ARGUMENT, "pad", "(2,3)");
}
static void rows_out_of_range(ttt_ctx *c, ttt_tensor *a) {
    FAILS(ttt_embedding(c, a, ttt_from_int(c, TTT_SHAPE(1, 2), (int64_t[]){ 0, 2 })),
          TTT_ERR_ARGUMENT, "embedding", "index 2", "place 1", "0..1");
    FAILS(ttt_index_select(c, a, ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 0, 2 })),
          TTT_ERR_ARGUMENT, "index_select", "index 2");
    FAILS(ttt_index_select(c, a, ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 0, -1 })),
          TTT_ERR_ARGUMENT, "index_select", "index -1");
    FAILS(ttt_index_add(c, a, ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 0, 4 }), 4),
          TTT_ERR_ARGUMENT, "index_add", "index 4");
    FAILS(ttt_index_add(c, a, ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 0, 0 }), -1),
          TTT_ERR_ARGUMENT, "index_add");
}
static void arguments_out_of_range(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = numbers(c, TTT_SHAPE(2, 3)), *out;
    axes_out_of_range(c, a);
    numbers_out_of_range(c, a);
    spans_out_of_range(c, a);
    rows_out_of_range(c, a);
    const ttt_op *op = ttt_op_table(0);
    FAILS(ttt_apply(c, op, (ttt_tensor *[]){ a, a }, 2, a->shape, NULL, 0), TTT_ERR_ARGUMENT,
          op->name, "2 inputs", "1 expected");
    for (int i = 0; i < 2; i++) {  // order 0; no inputs
        CHECK(isnan(ttt_check_gradient(c, op_value, &a, 1 - i, NULL, i, 1e-3)));
        FAILS(NULL, TTT_ERR_ARGUMENT, "check_gradient");
    }
    for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_RECORD; mode++) {
        ttt_tensor *both = a;
        ttt_grad(c, ttt_sum(c, a), &both, 1, &both, (ttt_grad_mode)mode);
        FAILS(both, TTT_ERR_ARGUMENT, "grad", "same array");
    }
    ttt_tensor *many[65];
    for (int i = 0; i < 65; i++) many[i] = a;
    ttt_tensor *joined = ttt_concat(c, many, 65, 0);
    CHECK(ttt_ok(c) && joined->size == 65 * 6);
    for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_RECORD; mode++) {
        ttt_grad(c, ttt_sum(c, joined), &a, 1, &out, (ttt_grad_mode)mode);
        CHECK(ttt_ok(c) && out->size == 6 && out->data[0] == 65 && out->data[5] == 65);
    }
    CHECK(ttt_open(&(ttt_desc){ .isa = "abacus" }) == NULL);
    CHECK(isnan(ttt_item(a)) && ttt_status(c) == TTT_ERR_SHAPE);
    CHECK(strstr(ttt_error(c), "item: a tensor of shape (2,3); one number expected"));
    ttt_clear(c);
    ttt_close(NULL);
    CLOSE(c);
}

// More than eight axes: by hand, and by broadcasting leading sizes of an index and rows.
static void ranks_above_eight(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = numbers(c, TTT_SHAPE(4, 3));
    ttt_tensor *rows = ttt_from_int(c, TTT_SHAPE(1, 1, 1, 1, 1, 1, 1, 2), (int64_t[]){ 0, 1 });
    FAILS(ttt_index_select(c, a, rows), TTT_ERR_SHAPE, "index_select", "(4,3)");
    FAILS(ttt_index_add(c, numbers(c, TTT_SHAPE(2, 3)), rows, 4), TTT_ERR_SHAPE, "index_add",
          "(2,3)");
    FAILS(ttt_reshape(c, a, (ttt_shape){ 9, { 4, 3, 1, 1, 1, 1, 1, 1 } }), TTT_ERR_SHAPE,
          "reshape");
    FAILS(ttt_sum_to(c, a, (ttt_shape){ -1, { 0 } }), TTT_ERR_SHAPE, "sum_to");
    FAILS(ttt_broadcast(c, a, (ttt_shape){ 9, { 1, 1, 1, 1, 1, 1, 4, 3 } }), TTT_ERR_SHAPE,
          "broadcast");
    FAILS(ttt_zeros(c, TTT_SHAPE(1, 1, 1, 1, 1, 1, 1, 1, 2)), TTT_ERR_SHAPE, "tensor");
    CLOSE(c);
}

// Integers are row numbers, not operands: each op says so, and so does the gradient.
static void integers_are_no_operands(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = numbers(c, TTT_SHAPE(2, 2)),
               *i = ttt_from_int(c, TTT_SHAPE(2, 2), (int64_t[]){ 0, 1, 1, 0 });
    ttt_tensor *one = ttt_from_int(c, TTT_SHAPE(1), (int64_t[]){ 3 }),
               *pair = ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 0, 1 }), *out;
#define X(name, formula, lo, hi, flops) \
    FAILS(ttt_##name(c, i), TTT_ERR_ARGUMENT, #name, "integers");
    TTT_UNARY_OPS(X)
#undef X
#define X(name, formula, lo, hi, flops) \
    FAILS(ttt_##name(c, a, i), TTT_ERR_ARGUMENT, #name, "integers");
    TTT_BINARY_OPS(X)
#undef X
    FAILS(ttt_scale(c, i, 2), TTT_ERR_ARGUMENT, "scale", "integers");
    FAILS(ttt_matmul(c, a, i), TTT_ERR_ARGUMENT, "matmul", "integers");
    FAILS(ttt_affine(c, a, a, pair), TTT_ERR_ARGUMENT, "affine", "integers");
    FAILS(ttt_sum(c, i), TTT_ERR_ARGUMENT, "sum_to", "integers");
    FAILS(ttt_broadcast(c, i, TTT_SHAPE(3, 2, 2)), TTT_ERR_ARGUMENT, "broadcast", "integers");
    FAILS(ttt_transpose(c, i), TTT_ERR_ARGUMENT, "transpose", "integers");
    FAILS(ttt_slice(c, i, 0, 0, 1), TTT_ERR_ARGUMENT, "slice", "integers");
    FAILS(ttt_pad(c, i, 0, 0, 3), TTT_ERR_ARGUMENT, "pad", "integers");
    FAILS(ttt_concat(c, (ttt_tensor *[]){ a, i }, 2, 0), TTT_ERR_ARGUMENT, "concat", "integers");
    FAILS(ttt_index_select(c, i, one), TTT_ERR_ARGUMENT, "index_select");
    FAILS(ttt_index_add(c, i, i, 2), TTT_ERR_ARGUMENT, "index_add", "integers");
    FAILS(ttt_softmax(c, i), TTT_ERR_ARGUMENT, "softmax", "integers");
    FAILS(ttt_normalize_d1(c, a, i, 1, true), TTT_ERR_ARGUMENT, "normalize_d1", "integers");
    ttt_grad(c, ttt_sum(c, a), &i, 1, &out, TTT_GRAD_FIRST_ORDER);
    FAILS(out, TTT_ERR_ARGUMENT, "grad", "wrt[0]");
    ttt_vjp(c, a, i, &a, 1, &out, TTT_GRAD_FIRST_ORDER);
    FAILS(out, TTT_ERR_ARGUMENT, "grad", "integers");
    ttt_grad(c, one, &a, 1, &out, TTT_GRAD_FIRST_ORDER);
    FAILS(out, TTT_ERR_ARGUMENT, "grad", "integers");
    CHECK(isnan(ttt_item(one)) && ttt_status(c) == TTT_ERR_ARGUMENT);
    CHECK(strstr(ttt_error(c), "item: a tensor of integers"));
    ttt_clear(c);
    CLOSE(c);
}

static void tensors_of_another_context(void) {
    ttt_ctx *c = open_ctx(), *other = open_ctx();
    ttt_tensor *mine = numbers(c, TTT_SHAPE(2)), *theirs = numbers(other, TTT_SHAPE(2));
    FAILS(ttt_add(c, mine, theirs), TTT_ERR_RELEASED, "add", "the second input");
    FAILS(ttt_exp(c, theirs), TTT_ERR_RELEASED, "exp", "the first input");
    CLOSE(other);
    FAILS(ttt_exp(c, theirs), TTT_ERR_RELEASED, "exp", "the first input");
    CLOSE(c);
}

static void host_error(void *user, ttt_result r, const char *text) {
    host *h = user;
    h->errors++;
    h->error = (int)r;
    CHECK(strstr(text, "(2,3)") != NULL);
}

// The first error stays, and all later calls do nothing until ttt_clear.
static void the_first_error_stays(void) {
    host h = { 0 };
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 1, .user = &h, .on_error = host_error });
    ttt_tensor *a = numbers(c, TTT_SHAPE(2, 3)), *p = numbers(c, TTT_SHAPE(96)), *out[1] = { a },
               *sum = ttt_sum(c, a);
    CHECK(ttt_ok(c) && ttt_status(c) == TTT_OK && ttt_error(c)[0] == 0);
    ttt_memory_report before = ttt_memory(c);
    ttt_tensor *empty = ttt_add(c, a, p);
    char text[512];
    strcpy(text, ttt_error(c));
    CHECK(!ttt_ok(c) && empty->size == 0 && strstr(text, "(2,3)") && strstr(text, "(96)"));
    CHECK(h.errors == 1 && h.error == TTT_ERR_SHAPE);
    for (int row = 0; ttt_op_table(row); row++) {
        op_inputs in;
        CHECK(op_example(c, row, (ttt_tensor *[]){ a, a }, &in) == empty);
        CHECK(op_example(c, row, (ttt_tensor *[]){ empty, empty }, &in) == empty);
    }
    CHECK(ttt_zeros(c, TTT_SHAPE(2)) == empty && ttt_zeros_kept(c, TTT_SHAPE(2)) == empty &&
          ttt_randn(c, TTT_SHAPE(2)) == empty);
    CHECK(ttt_sum(c, a) == empty && ttt_mean_axis(c, a, 9) == empty && ttt_mse(c, a, p) == empty);
    CHECK(ttt_detach(c, a) == empty && ttt_matmul(c, a, a) == empty &&
          ttt_transpose(c, empty) == empty);
    CHECK(ttt_grad(c, sum, &a, 1, out, TTT_GRAD_FIRST_ORDER) == TTT_ERR_SHAPE && out[0] == empty);
    CHECK(ttt_fail(c, TTT_ERR_UNSET, "second") == empty && ttt_alloc(c, 8, false) == NULL &&
          isnan(ttt_item(empty)));
    CHECK(ttt_status(c) == TTT_ERR_SHAPE && !strcmp(ttt_error(c), text) && h.errors == 1);
    ttt_memory_report after = ttt_memory(c);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
    ttt_clear(c);
    CHECK(ttt_ok(c) && ttt_error(c)[0] == 0);
    CHECK(ttt_item(ttt_sum(c, a)) == ttt_item(sum));
    CHECK(ttt_add(c, p, a) == empty && h.errors == 2);  // and the handler hears of the next one
    ttt_close(c);
}

static void watch_nan_names_the_op(void) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 1, .watch_nan = true });
    for (int n = 1; n < 40; n++) {
        ttt_tensor *x = ttt_full(c, TTT_SHAPE(n), 1);
        ttt_log(c, ttt_exp(c, x));
        CHECK(ttt_ok(c));
        x->data[n - 1] = -1;
        FAILS(ttt_log(c, x), TTT_ERR_NOT_FINITE, "log");
        x->data[n - 1] = 0;
        FAILS(ttt_div(c, x, x), TTT_ERR_NOT_FINITE, "div");
        x->data[n - 1] = 1;
        FAILS(ttt_reciprocal(c, ttt_exp(c, ttt_scale(c, x, REAL(-1e5)))), TTT_ERR_NOT_FINITE,
              "reciprocal");
    }
    // The op may be in a rule: the derivative of a^(1/2) at 0 is 1/2 g 0^(-1/2).
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(2), 0), *g;
    ttt_grad(c, ttt_sum(c, ttt_pow(c, x, REAL(0.5))), &x, 1, &g, TTT_GRAD_FIRST_ORDER);
    FAILS(g, TTT_ERR_NOT_FINITE, "pow");
    CLOSE(c);
}

static void results_have_texts(void) {
    CHECK(!strcmp(ttt_result_text(TTT_OK), "no error"));
    for (int r = TTT_ERR_SHAPE; r <= TTT_ERR_FORMAT; r++)
        CHECK(strlen(ttt_result_text((ttt_result)r)) > 5);
    CHECK(!strcmp(ttt_result_text((ttt_result)1000), "not a result"));
    ttt_text text;
    CHECK(!strcmp(ttt_shape_text(SCALAR, text), "()") &&
          !strcmp(ttt_shape_text(TTT_SHAPE(2, 3, 4), text), "(2,3,4)"));
    const int64_t m = INT64_MAX;
    CHECK(strlen(ttt_shape_text(TTT_SHAPE(m, m, m, m, m, m, m, m), text)) < sizeof text);
}

// An op without a rule for its gradient is refused when it runs, not only when differentiated.
static void nothing_forward(ttt_ctx *c, ttt_tensor *y) {
    (void)c;
    memset(y->data, 0, (size_t)y->size * sizeof *y->data);
}
static void incomplete_ops_are_refused(void) {
    static const ttt_op none = { .name = "none", .n_in = 1, .forward = nothing_forward };
    ttt_ctx *c = ttt_open(NULL);
    ttt_tensor *x = ttt_scalar(c, 1);
    ttt_apply(c, &none, &x, 1, x->shape, NULL, 0);
    CHECK(ttt_status(c) == TTT_ERR_ARGUMENT && strstr(ttt_error(c), "none") &&
          strstr(ttt_error(c), "vjp"));
    ttt_close(c);
}

static void no_context_is_an_error_with_a_text(void) {
    CHECK(!ttt_ok(NULL) && ttt_status(NULL) == TTT_ERR_NO_MEMORY &&
          strstr(ttt_error(NULL), "ttt_open"));
}

// ---- random numbers -----------------------------------------------------------------------------
// Known answers of Random123, kat_vectors.
static void philox_known_answers(void) {
    enum { ONES = -1 };
    static const struct {
        uint32_t key[2], ctr[4], out[4];
    } known[] = {
        { { 0, 0 },
          { 0, 0, 0, 0 },
          { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { ONES, ONES },
          { ONES, ONES, ONES, ONES },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0xa4093822, 0x299f31d0 },
          { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (int i = 0; i < COUNT(known); i++) {
        uint32_t ctr[4];
        memcpy(ctr, known[i].ctr, sizeof ctr);
        ttt__philox(known[i].key, ctr);
        CHECK(memcmp(ctr, known[i].out, sizeof ctr) == 0);
    }
    ttt_rng r = ttt_rng_at(0, 0, 0, 0);  // the stream is the blocks in order
    for (int i = 0; i < 4; i++) CHECK(ttt_rng_u32(&r) == known[0].out[i]);
}

// A stream is named by words of Philox's counter: the third known answer again, block by block.
static void streams_are_philox_blocks(void) {
    ttt_rng r = ttt_rng_at(0x299f31d0a4093822u, 0x85a308d3, 0x13198a2e, 0x03707344);
    r.next = (uint64_t)4 * 0x243f6a88;
    CHECK(ttt_rng_u32(&r) == 0xd16cfe09 && ttt_rng_u32(&r) == 0x94fdcceb);
    CHECK(ttt_rng_u32(&r) == 0x5001e420 && ttt_rng_u32(&r) == 0x24126ea1);
    ttt_rng end = ttt_rng_at(7, 1, 2, 3), on = ttt_rng_at(7, 2, 2, 3);
    end.next = (uint64_t)1 << 34;  // behind the last number of a stream the one named a + 1 follows
    for (int i = 0; i < 9; i++) CHECK(ttt_rng_u32(&end) == ttt_rng_u32(&on));
}

static void streams_differ_by_name_and_resume(void) {
    uint32_t first[5];
    for (int i = 0; i < 5; i++) {
        ttt_rng r = ttt_rng_at(i == 1 ? (uint64_t)1 << 40 : 0, i == 2, i == 3, i == 4);
        first[i] = ttt_rng_u32(&r);
        for (int k = 0; k < i; k++) CHECK(first[k] != first[i]);
    }
    ttt_rng a = ttt_rng_at(5, 1, 2, 3);
    for (int i = 0; i < 6; i++) ttt_rng_u32(&a);
    ttt_rng b = a;  // a saved state, in the middle of a block
    for (int i = 0; i < 20; i++) CHECK(ttt_rng_u32(&a) == ttt_rng_u32(&b));
}

static void random_numbers_have_their_moments(void) {
    enum { N = 200000 };
    ttt_rng r = ttt_rng_at(5, 0, 0, 0);
    double u[5] = { 0 }, z[5] = { 0 };
    int below[7] = { 0 };
    for (int i = 0; i < N; i++) {
        double a = ttt_rng_uniform(&r), b = ttt_rng_normal(&r);
        int64_t k = ttt_rng_below(&r, 7);
        CHECK(a >= 0 && a < 1 && k >= 0 && k < 7);
        for (int p = 1; p < 5; p++) u[p] += pow(a, p) / N, z[p] += pow(b, p) / N;
        below[k]++;
    }
    // The moments of a normal number. An error of five standard deviations is allowed.
    static const double moment[5] = { 1, 0, 1, 0, 3 }, deviation[5] = { 0, 1, 1.42, 3.88, 9.8 };
    for (int p = 1; p < 5; p++) {
        CHECK(fabs(u[p] - 1.0 / (p + 1)) < 5 * 0.3 / sqrt(N));
        CHECK(fabs(z[p] - moment[p]) < 5 * deviation[p] / sqrt(N));
    }
    for (int k = 0; k < 7; k++) CHECK(abs(below[k] - N / 7) < 5 * 157);
    CHECK(ttt_rng_below(&r, 0) == 0 && ttt_rng_below(&r, 1) == 0);
    int64_t ones = 0, zeros = 0, limit = (int64_t)1 << 40;
    for (int i = 0; i < 200; i++) {  // every bit of a number beyond 32 bits is drawn
        int64_t k = ttt_rng_below(&r, limit);
        CHECK(k >= 0 && k < limit);
        ones |= k;
        zeros |= ~k;
    }
    CHECK(ones == limit - 1 && (zeros & (limit - 1)) == limit - 1);
}

// Streams folded from one stream, with neighboring numbers or seeds, or from each other are not
// correlated.
static void folded_streams_are_independent(void) {
    enum { N = 20000, S = 6 };
    ttt_rng base = ttt_rng_at(5, 0, 0, 0), s[S];
    s[0] = base;
    s[1] = ttt_rng_fold(base, 0);
    s[2] = ttt_rng_fold(base, 1);
    s[3] = ttt_rng_fold(base, (uint64_t)1 << 32);
    s[4] = ttt_rng_fold(ttt_rng_at(6, 0, 0, 0), 0);
    s[5] = ttt_rng_fold(s[1], 0);
    double correlation[S][S] = { { 0 } };
    for (int i = 0; i < N; i++) {
        double a[S];
        for (int k = 0; k < S; k++) a[k] = ttt_rng_uniform(&s[k]) - 0.5;
        for (int k = 0; k < S; k++)
            for (int l = 0; l < k; l++) correlation[k][l] += a[k] * a[l] * 12 / N;
    }
    for (int k = 0; k < S; k++)
        for (int l = 0; l < k; l++) CHECK(fabs(correlation[k][l]) < 5 / sqrt(N));
    ttt_rng moved = base;
    ttt_rng_u32(&moved);
    // Folding looks at the seed, not at how far the stream was read.
    CHECK(ttt_rng_fold(moved, 3).seed == ttt_rng_fold(base, 3).seed);
}

static void random_state_is_saved_and_restored(void) {
    ttt_ctx *c = open_ctx(), *same = open_ctx();
    ttt_tensor *a = ttt_randn(c, TTT_SHAPE(7));
    ttt_rng saved = *ttt_ctx_rng(c);
    ttt_tensor *b = ttt_randn(c, TTT_SHAPE(7));
    *ttt_ctx_rng(c) = saved;
    CHECK(same_bits(ttt_randn(c, TTT_SHAPE(7)), b) && !same_bits(a, b));
    CHECK(same_bits(ttt_randn(same, TTT_SHAPE(7)), a));
    ttt_tensor *u = ttt_uniform(c, TTT_SHAPE(1000), -3, 2);
    for (int i = 0; i < 1000; i++) CHECK(u->data[i] >= -3 && u->data[i] <= 2);
    CLOSE(same);
    CLOSE(c);
}

// ---- profiles -----------------------------------------------------------------------------------
// The row of a name, phase and kind; all zeros if there is none.
static ttt_profile_row row_named(const ttt_ctx *c, const char *name, ttt_phase phase, bool rule) {
    ttt_profile_row rows[100], none = { 0 };
    int n = ttt_profile_rows(c, rows, 100);
    for (int i = 0; i < n; i++)
        if (strcmp(rows[i].name, name) == 0 && rows[i].phase == phase && rows[i].rule == rule)
            return rows[i];
    return none;
}

static void a_profile_counts_calls_flops_and_bytes(void) {
    const double R = sizeof(ttt_real);
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = normal_param(c, TTT_SHAPE(2, 3, 4), 1),
               *b = normal_param(c, TTT_SHAPE(4, 5), 1), *wrt[2] = { a, b }, *g[2];
    ttt_sum(c, ttt_matmul(c, a, b));
    CHECK(ttt_profile_rows(c, NULL, 0) == 0);  // off until asked for
    ttt_profile_start(c);
    ttt_tensor *y = ttt_matmul(c, a, b), *loss = ttt_sum(c, y);
    ttt_profile_row r = row_named(c, "matmul", TTT_PHASE_FORWARD, false);
    CHECK(r.calls == 1 && r.flops == 2.0 * 2 * 3 * 4 * 5 && r.bytes == R * (24 + 20 + 30));
    ttt_grad(c, loss, wrt, 2, g, TTT_GRAD_FIRST_ORDER);
    r = row_named(c, "matmul", TTT_PHASE_BACKWARD, false);
    CHECK(r.calls == 2 && r.flops == 2 * 2.0 * 2 * 3 * 4 * 5 && r.bytes == 2 * R * (24 + 20 + 30));
    r = row_named(c, "matmul", TTT_PHASE_BACKWARD, true);
    CHECK(r.calls == 1 && r.flops == 0 && r.bytes == 0);
    CHECK(row_named(c, "walk", TTT_PHASE_BACKWARD, false).calls == 1 &&
          row_named(c, "walk", TTT_PHASE_RECORDED, false).calls == 0);
    ttt_grad(c, loss, wrt, 1, g, TTT_GRAD_RECORD);
    CHECK(row_named(c, "matmul", TTT_PHASE_RECORDED, false).calls == 1);
    ttt_tensor *part = ttt_slice(c, ttt_reshape(c, y, TTT_SHAPE(6, 5)), 0, 2, 1);
    r = row_named(c, "slice", TTT_PHASE_FORWARD, false);
    CHECK(part->size == 5 && r.calls == 1 && r.flops == 0 && r.bytes == R * (5 + 5));
    CHECK(row_named(c, "reshape", TTT_PHASE_FORWARD, false).bytes == 0);
    ttt_profile_stop(c);
    ttt_matmul(c, a, b);
    CHECK(row_named(c, "matmul", TTT_PHASE_FORWARD, false).calls == 1);
    ttt_profile_start(c);  // goes on
    ttt_matmul(c, a, b);
    CHECK(row_named(c, "matmul", TTT_PHASE_FORWARD, false).calls == 2);
    ttt_profile_clear(c);
    ttt_matmul(c, a, b);
    CHECK(row_named(c, "matmul", TTT_PHASE_FORWARD, false).calls == 1 &&
          row_named(c, "slice", TTT_PHASE_FORWARD, false).calls == 0);
    CLOSE(c);
}

static int64_t elements(const ttt_tensor *y) { return y->size; }
static void a_fast_rule_counts_once_or_twice(void) {
    const ttt_op op = { .name = "mixed fast", .n_in = 2, .forward = mix_forward,
                        .vjp = mix_rule, .fast = mix_fast, .flops = elements };
    const double R = sizeof(ttt_real);
    const ttt_real half = (ttt_real)0.5;
    ttt_ctx *c = open_ctx();
    ttt_tensor *in[2] = { normal_param(c, TTT_SHAPE(7), 1), normal_param(c, TTT_SHAPE(7), 1) },
               *g[2];
    for (int n = 1; n <= 2; n++) {
        ttt_profile_clear(c);
        ttt_profile_start(c);
        ttt_tensor *loss = ttt_sum(c, ttt_apply(c, &op, in, 2, in[0]->shape, &half, sizeof half));
        ttt_grad(c, loss, in, n, g, TTT_GRAD_FIRST_ORDER);
        ttt_profile_row r = row_named(c, "mixed fast", TTT_PHASE_BACKWARD, true);
        CHECK(r.calls == 1 && r.flops == 7 * n && r.bytes == R * 7 * (3 + n));
    }
    CLOSE(c);
}

// Ops that take a known time, one of them inside the rule of the other.
static void wait_for(double seconds) {
    for (double end = ttt_seconds() + seconds; ttt_seconds() < end;) {}
}
static void inner_forward(ttt_ctx *c, ttt_tensor *y) {
    nothing_forward(c, y);
    wait_for(0.02);
}
static void inner_rule(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d) {
    (void)c, (void)y;
    if (d[0]) d[0] = g;
}
static const ttt_op inner_op = {
    .name = "slow inner", .n_in = 1, .forward = inner_forward, .vjp = inner_rule
};
static void outer_rule(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d) {
    (void)y;
    wait_for(0.01);
    if (d[0]) d[0] = ttt_apply(c, &inner_op, &g, 1, g->shape, NULL, 0);
    wait_for(0.01);
}
static const ttt_op outer_op = {
    .name = "slow outer", .n_in = 1, .forward = nothing_forward, .vjp = outer_rule
};

static void times_of_a_profile_add_up_to_the_whole(void) {
    ttt_profile_row rows[100];
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = normal_param(c, TTT_SHAPE(3), 1), *g;
    ttt_limits peak = { 1e9, 1e9 };
    double sum = 0, begin = ttt_seconds();
    ttt_profile_start(c);
    double inside = ttt_seconds();
    ttt_grad(c, ttt_sum(c, ttt_apply(c, &outer_op, &x, 1, x->shape, NULL, 0)), &x, 1, &g,
             TTT_GRAD_FIRST_ORDER);
    wait_for(0.01);
    inside = ttt_seconds() - inside;
    ttt_profile_stop(c);
    double whole = ttt_seconds() - begin;
    // A busy machine can make anything longer, but the sum would show a time that counts twice.
    double rule = row_named(c, "slow outer", TTT_PHASE_BACKWARD, true).seconds,
           op = row_named(c, "slow inner", TTT_PHASE_BACKWARD, false).seconds;
    double outside = row_named(c, "outside ops", TTT_PHASE_FORWARD, false).seconds;
    CHECK(rule > 0.0199 && op > 0.0199 && outside > 0.0099);
    CHECK(row_named(c, "walk", TTT_PHASE_BACKWARD, false).seconds <
          whole - rule - op - outside + 1e-4);
    int n = ttt_profile_rows(c, rows, 100);
    for (int i = 0; i < n; i++) {
        sum += rows[i].seconds;
        CHECK(i == 0 || rows[i].seconds <= rows[i - 1].seconds);
    }
    CHECK(sum <= whole + 1e-4 && sum > inside - 1e-4);
    ttt_profile_row two[2];
    CHECK(ttt_profile_rows(c, two, 2) == n && two[0].name == rows[0].name &&
          two[1].name == rows[1].name);
    const char *text = ttt_profile_text(c, &peak, 1, 2), *end = strstr(text, "total");
    CHECK(strstr(text, "the rest") && end && strchr(end, '\n') && !strchr(end, '\n')[1]);
    CHECK(strstr(ttt_profile_text(c, NULL, 1, 100), "slow outer rule") &&
          !strstr(ttt_profile_text(c, NULL, 1, 100), "the rest"));
    CLOSE(c);
}

static void shares_of_the_peak(void) {
    const ttt_limits peak = { 100, 10 };
    const char *bound;
    ttt_profile_row r = { "x", TTT_PHASE_FORWARD, false, 1, 2, 100, 10 };
    CHECK(ttt_profile_share(&r, &peak, &bound) == 0.5 && strcmp(bound, "memory") == 0);
    r.bytes = 8;
    CHECK(ttt_profile_share(&r, &peak, &bound) == 0.5 && strcmp(bound, "compute") == 0);
    r.seconds = 10;
    CHECK(fabs(ttt_profile_share(&r, &peak, &bound) - 0.1) < 1e-15);  // 0.1 has more digits on x87
    CHECK(strcmp(bound, "neither") == 0);
    r.flops = r.bytes = 0;
    CHECK(ttt_profile_share(&r, &peak, NULL) == 0);
}

static void a_profile_changes_no_bit_and_may_run_out_of_memory(void) {
    uint64_t right = 0;
    bool refused = true;
    for (int n = 0; refused && n < 1000; n++) {  // n = 0: nothing fails, and nothing is profiled
        host h = { 0 };
        ttt_ctx *c = open_host(&h);
        learner l = learner_new(c, 6, 3, 4);
        ttt_tensor *p = normal_param(c, TTT_SHAPE(96), 1);
        h.calls = 0;
        h.fail_at = n;
        if (n) ttt_profile_start(c);
        uint64_t hashed = whole_step(c, p, &l);
        ttt_profile_stop(c);
        refused = n == 0 || h.refused > 0;
        if (n == 0) right = hashed;
        CHECK(ttt_status(c) == (h.refused ? TTT_ERR_NO_MEMORY : TTT_OK) &&
              (h.refused || hashed == right));
        ttt_close(c);
        CHECK(h.living == 0);
    }
    CHECK(!refused);
}

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(the_number_of_threads_changes_no_bit),
        T(two_contexts_in_two_threads),
        T(threads_are_as_many_as_the_process_may_use),
        T(a_warm_step_takes_no_memory),
        T(memory_may_run_out_anywhere),
        T(memory_held_is_at_most_twice_the_need),
        T(memory_may_run_out_at_the_opening),
        T(parameters_survive_a_release),
        T(released_tensors_are_not_used),
        T(released_tensors_are_not_those_that_took_their_place),
        T(released_memory_is_poisoned),
        T(alloc_is_aligned_and_bounded),
        T(shapes_that_cannot_be),
        T(shapes_that_do_not_fit),
        T(arguments_out_of_range),
        T(ranks_above_eight),
        T(integers_are_no_operands),
        T(tensors_of_another_context),
        T(the_first_error_stays),
        T(watch_nan_names_the_op),
        T(results_have_texts),
        T(philox_known_answers),
        T(streams_are_philox_blocks),
        T(streams_differ_by_name_and_resume),
        T(random_numbers_have_their_moments),
        T(folded_streams_are_independent),
        T(random_state_is_saved_and_restored),
        T(incomplete_ops_are_refused),
        T(no_context_is_an_error_with_a_text),
        T(a_profile_counts_calls_flops_and_bytes),
        T(a_fast_rule_counts_once_or_twice),
        T(times_of_a_profile_add_up_to_the_whole),
        T(shares_of_the_peak),
        T(a_profile_changes_no_bit_and_may_run_out_of_memory),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
