// bench.c - how fast the kernels, layers and models are on this machine.
//
//     cc -O2 -o bench examples/bench.c -lm && ./bench --filter 'gemm.*,layer.ttt_lin.*'
//
// One line a case:
//     ttt.t<threads>.<case> VALUE UNIT iqr=LOW-HIGH n=SAMPLES gflop=F peak=SHARE bytes=B
// VALUE is a median, iqr the quartiles around it; F the arithmetic of one run (products and
// functions, counted as if done naively); SHARE what it reached of the machine's limit, measured at
// the start: of multiply-adds, or for rows in GB/s of reading the second-level cache; B the bytes
// the case holds at its peak. Cases above 5e11 FLOPs, which softmax reaches in long sequences, are
// left out: they would take minutes, and gigabytes. With one thread the program is pinned to a core
// and time is processor time, so that other programs disturb little; with more it is the clock on
// the wall.
#ifdef __linux__
#define _GNU_SOURCE
#include <sched.h>
#endif
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "example.h"

#include <time.h>

// ---- options and the stopwatch ------------------------------------------------------------------
typedef struct {
    long long threads;
    const char *isa, *filter;
    double budget;  // seconds of timing a case
    bool list;
} options;
static options bench = { .threads = 1, .filter = "*", .budget = 0.5 };
static struct {
    double flops, l2;  // a second; l2 is bytes read
} peak;

static const option option_rows[] = {
    OPTION_WHOLE("--threads", threads, 0, TTT_MAX_THREADS,
                 "0: one for each CPU it may use (1)"),
    OPTION_CHOICE("--isa", isa, ttt_isa_name, "instruction set (the best there is)"),
    OPTION_TEXT("--filter", filter, "only the cases that match, as 'gemm.*,layer.*.fwd' (*)"),
    OPTION_REAL("--budget", budget, 0, 3600, "seconds of timing for each case (0.5)"),
    OPTION_MODE("--list", list, "", "--filter", "name the cases instead of running them"),
};
static const program this_program = {
    .name = "bench",
    .purpose = "how fast the kernels, layers and models are on this machine",
    .rows = option_rows,
    .n_rows = COUNT(option_rows),
};

static ttt_ctx *open_context(void) {
    ttt_desc machine = { .threads = thread_count(bench.threads), .isa = bench.isa };
    return open_or_die(&machine);
}

// `*` stands for anything, `?` for one character; a comma between patterns is "or".
static bool glob(const char *p, const char *end, const char *s) {
    for (; p < end && *p != '*'; p++, s++)
        if (!*s || (*p != '?' && *p != *s)) return false;
    if (p == end) return !*s;
    do {
        if (glob(p + 1, end, s)) return true;
    } while (*s++);
    return false;
}

static int n_matched;  // cases, so far

// True if the case is to be run; with --list it is named instead.
static bool wanted(const char *name) {
    for (const char *p = bench.filter; *p;) {
        const char *end = p + strcspn(p, ",");
        if (glob(p, end, name)) {
            n_matched++;
            if (bench.list) puts(name);
            return !bench.list;
        }
        p = *end ? end + 1 : end;
    }
    return false;
}

static double now(void) {
    return bench.threads == 1 ? (double)clock() / CLOCKS_PER_SEC : ttt_seconds();
}

typedef void run_fn(void *arg);
typedef struct {
    double seconds, low, high;  // of one run: median, quartiles
    int n;
} timing;

// Runs often enough that a sample takes 2 ms, and takes 5 to 200 samples, as the budget allows.
static timing measure(run_fn *run, void *arg) {
    double sample[200], begin, took = 0;
    int n = 0, runs = 1;
    run(arg);  // caches and arenas grow warm
    for (;; runs *= 2) {
        begin = now();
        for (int i = 0; i < runs; i++) run(arg);
        if ((took = now() - begin) >= 2e-3) break;
    }
    double end = ttt_seconds() + bench.budget;
    for (; n < 200 && (n < 5 || ttt_seconds() < end); n++) {
        begin = now();
        for (int i = 0; i < runs; i++) run(arg);
        sample[n] = (now() - begin) / runs;
    }
    qsort(sample, (size_t)n, sizeof *sample, by_value);
    return (timing){ sample[n / 2], sample[n / 4], sample[3 * n / 4], n };
}

// amount: what one run does, in the unit's numerator; 0: the unit is milliseconds.
static void report(const char *name, timing t, double amount, const char *unit, double flops,
                   double bytes) {
    bool rate = amount > 0;
    double value = rate ? amount / t.seconds : 1e3 * t.seconds;
    double low = rate ? amount / t.high : 1e3 * t.low, high = rate ? amount / t.low : 1e3 * t.high;
    double share = flops / t.seconds / peak.flops;
    if (strcmp(unit, "GB/s") == 0) share = peak.l2 > 0 ? value * 1e9 / peak.l2 : 0;
    printf("ttt.t%lld.%s %.4g %s iqr=%.4g-%.4g n=%d gflop=%.4g peak=%.3f bytes=%.0f\n",
           bench.threads, name, value, unit, low, high, t.n, flops / 1e9, share, bytes);
    fflush(stdout);
}

// ---- peak.*: the machine ------------------------------------------------------------------------
typedef struct {
    ttt_ctx *c;
    ttt_tensor *x[4];
    ttt_tensor *(*op)(ttt_ctx *c, ttt_tensor *a);
    float (*scalar)(float a);
} kernel;

static void run_sum(void *arg) {
    kernel *k = arg;
    ttt_mark m = ttt_mark_get(k->c);
    ttt_sum(k->c, k->x[0]);
    ttt_mark_release(k->c, m);
}
static double read_speed(ttt_ctx *c, const char *name, int64_t bytes) {
    kernel k = { .c = c };
    ttt_mark m = ttt_mark_get(c);
    k.x[0] = ttt_full(c, TTT_SHAPE(bytes / (int64_t)sizeof(ttt_real)), 1);
    need_ok(c, "reading memory");
    timing t = measure(run_sum, &k);
    if (name) report(name, t, (double)bytes / 1e9, "GB/s", 0, (double)bytes);
    ttt_mark_release(c, m);
    return (double)bytes / t.seconds;
}
static void peaks(void) {
    static const struct { const char *name; int64_t kilobytes; } level[] = {
        { "peak.read.16k", 16 }, { "peak.read.256k", 256 },
        { "peak.read.8M", 8192 }, { "peak.read.256M", 262144 } };
    ttt_ctx *c = open_context();
    if (!bench.list) {
        peak.flops = ttt_measure_limits(c).flops * ttt_threads(c);
        peak.l2 = read_speed(c, NULL, 256 << 10);
    }
    if (wanted("peak.fma"))
        printf("ttt.t%lld.peak.fma %.4g GFLOP/s iqr=- n=5 gflop=- peak=1.000 bytes=0\n",
               bench.threads, peak.flops / 1e9);
    for (int i = 0; i < 4; i++)
        if (wanted(level[i].name)) read_speed(c, level[i].name, level[i].kilobytes << 10);
    ttt_close(c);
}

// ---- gemm.*, gemv.*: products of matrices -------------------------------------------------------
// op M N K; six heads side by side in rows of 384 numbers for the two batched ones.
static const struct product {
    const char *name;
    bool ta, tb, half;
    int64_t m, n, k;
    int heads;
} products[] = {
    { "gemm.nn", 0, 0, 0, 1024, 1024, 1024, 0 },   { "gemm.nn", 0, 0, 0, 512, 512, 512, 0 },
    { "gemm.nn", 0, 0, 0, 256, 256, 256, 0 },      { "gemm.nt", 0, 1, 0, 512, 512, 512, 0 },
    { "gemm.tn", 1, 0, 0, 512, 512, 512, 0 },      { "gemm.nn", 0, 0, 0, 196, 384, 384, 0 },
    { "gemm.nt", 0, 1, 0, 196, 384, 384, 0 },      { "gemm.tn", 1, 0, 0, 384, 384, 196, 0 },
    { "gemm.nn", 0, 0, 0, 196, 1536, 384, 0 },     { "gemm.nn", 0, 0, 0, 196, 384, 1536, 0 },
    { "gemm.nn", 0, 0, 0, 1568, 384, 384, 0 },     { "gemm.nn", 0, 0, 0, 196, 64, 64, 0 },
    { "gemm.nt", 0, 1, 0, 196, 64, 64, 0 },        { "gemm.tn", 1, 0, 0, 64, 64, 196, 0 },
    { "gemm.nn", 0, 0, 0, 196, 384, 64, 0 },       { "gemm.nt", 0, 1, 0, 196, 64, 384, 0 },
    { "gemm.nn", 0, 0, 0, 16, 64, 64, 0 },         { "gemm.nt", 0, 1, 0, 16, 16, 64, 0 },
    { "gemm.nn", 0, 0, 0, 16, 64, 16, 0 },         { "gemm.tn", 1, 0, 0, 64, 64, 16, 0 },
    { "gemm.nn", 0, 0, 0, 16, 256, 64, 0 },        { "gemm.nn", 0, 0, 0, 16, 64, 256, 0 },
    { "gemm.b6h.nn", 0, 0, 0, 196, 64, 64, 6 },    { "gemm.b6h.tn", 1, 0, 0, 64, 64, 196, 6 },
    { "gemm.nt", 0, 1, 0, 512, 2048, 768, 0 },     { "gemm.nn", 0, 0, 0, 512, 2048, 768, 0 },
    { "gemv.nn", 0, 0, 0, 1, 3072, 768, 0 },       { "gemv.nt", 0, 1, 0, 1, 3072, 768, 0 },
    { "gemv.nt", 0, 1, 0, 1, 32000, 768, 0 },      { "gemv.bf16.nt", 0, 1, 1, 1, 32000, 768, 0 },
};

typedef struct {
    ttt_ctx *c;
    ttt_gemm_desc d;
} product_run;
static void run_product(void *arg) { ttt_gemm(((product_run *)arg)->c, &((product_run *)arg)->d); }

static void bench_product(const struct product *p) {
    char name[80];
    snprintf(name, sizeof name, "%s.%lldx%lldx%lld", p->name, (long long)p->m, (long long)p->n,
             (long long)p->k);
    if (!wanted(name)) return;
    ttt_ctx *c = open_context();
    int64_t batch = p->heads ? p->heads : 1;
    int64_t a_size = p->m * p->k * batch, b_size = p->k * p->n * batch;
    int64_t y_size = p->m * p->n * batch;
    ttt_tensor *a = ttt_uniform(c, TTT_SHAPE(a_size), -1, 1);
    ttt_tensor *b = ttt_uniform(c, TTT_SHAPE(b_size), -1, 1), *y = ttt_zeros(c, TTT_SHAPE(y_size));
    need_ok(c, name);
    product_run r = { c, { .m = p->m, .n = p->n, .k = p->k, .ta = p->ta, .tb = p->tb,
                           .a = a->data, .b = b->data, .y = y->data, .batch = batch } };
    if (p->heads) {  // heads lie side by side in rows of a, and of b or y
        r.d.a_row = 64 * batch;
        r.d.a_step = 64;
        if (p->ta) r.d.b_row = 64 * batch, r.d.b_step = 64, r.d.y_step = p->m * p->n;
        else r.d.b_step = p->k * p->n, r.d.y_row = 64 * batch, r.d.y_step = 64;
    }
    if (p->half) {  // any 16 bits will do that are not NaN
        uint16_t *half = ttt_alloc(c, (size_t)b_size * sizeof *half, false);
        need_ok(c, name);
        for (int64_t i = 0; i < b_size; i++) half[i] = (uint16_t)(0x3f00 + i % 97);
        r.d.b = NULL;
        r.d.b_bf16 = half;
    }
    timing t = measure(run_product, &r);
    need_ok(c, name);
    double flops = 2.0 * (double)(p->m * p->n * p->k * batch);
    double bytes = (double)(a_size + y_size) * sizeof(ttt_real) +
                   (double)b_size * (p->half ? 2 : sizeof(ttt_real));
    report(name, t, flops / 1e9, "GFLOP/s", flops, bytes);
    ttt_close(c);
}

// ---- kern.*: functions of single numbers and of rows, on 64 kB ----------------------------------
enum { KERNEL_REALS = 16384 };

static void run_map(void *arg) {
    kernel *k = arg;
    ttt_mark m = ttt_mark_get(k->c);
    k->op(k->c, k->x[0]);
    ttt_mark_release(k->c, m);
}
static ttt_tensor *layer_norm(ttt_ctx *c, ttt_tensor *x) {
    return ttt_layer_normalize(c, x, (ttt_real)1e-6);
}
static ttt_tensor *rms_norm(ttt_ctx *c, ttt_tensor *x) {
    return ttt_rms_normalize(c, x, (ttt_real)1e-6);
}
static ttt_tensor *layer_norm_d1(ttt_ctx *c, ttt_tensor *x) {
    return ttt_normalize_d1(c, x, x, (ttt_real)1e-6, true);
}

// The same functions as a plain loop over libm writes them.
static float libm_sigmoid(float a) { return 1 / (1 + expf(-a)); }
static float libm_silu(float a) { return a / (1 + expf(-a)); }
static float libm_gelu(float a) {
    return 0.5f * a * (1 + tanhf(0.7978845608f * (a + 0.044715f * a * a * a)));
}
static float libm_gelu_erf(float a) { return 0.5f * a * (1 + erff(a * 0.70710678f)); }
static void run_libm(void *arg) {
    kernel *k = arg;
    for (int64_t i = 0; i < k->x[0]->size; i++)
        k->x[1]->data[i] = (ttt_real)k->scalar((float)k->x[0]->data[i]);
}

// passes: how often the row is read or written, for GB/s; 0: a function of numbers, in Gelem/s
static void bench_kernel(const char *op, double passes, double flops,
                         ttt_tensor *(*f)(ttt_ctx *, ttt_tensor *), float (*scalar)(float)) {
    char name[80];
    snprintf(name, sizeof name, "kern.%s%s", op, scalar ? ".libm" : "");
    if (!wanted(name)) return;
    ttt_ctx *c = open_context();
    kernel k = { .c = c, .op = f, .scalar = scalar };
    ttt_set_recording(c, false);
    k.x[0] = ttt_uniform(c, TTT_SHAPE(KERNEL_REALS / 1024, 1024), (ttt_real)0.01, 4);
    k.x[1] = ttt_zeros(c, k.x[0]->shape);
    need_ok(c, name);
    timing t = measure(scalar ? run_libm : run_map, &k);
    need_ok(c, name);
    double n = KERNEL_REALS, bytes = n * sizeof(ttt_real);
    bool rows = passes > 0;
    report(name, t, (rows ? passes * bytes : n) / 1e9, rows ? "GB/s" : "Gelem/s", flops * n,
           (double)ttt_memory(c).peak);
    ttt_close(c);
}

typedef struct {
    ttt_ctx *c;
    ttt_params *p;
    ttt_optimizer *o;
} update;
// A whole step on the loss sum(p): the sum and its gradient, their norm, and the update, which
// reads p, g, m, v and writes p, m, v: ten passes in all.
static void run_adam(void *arg) {
    update *u = arg;
    ttt_mark m = ttt_mark_get(u->c);
    ttt_optimizer_step(u->c, u->o, ttt_sum(u->c, u->p->value[0]));
    ttt_mark_release(u->c, m);
}
static void bench_adam(void) {
    if (!wanted("kern.adam")) return;
    ttt_ctx *c = open_context();
    ttt_params p = { 0 };
    static const ttt_param_row row[] = { { "p", "N", TTT_INIT_ONE, NULL, NULL, 0, 0 } };
    ttt_sizes s = { { 0 } };
    s.of['N'] = KERNEL_REALS;
    ttt_params_add(c, row, 1, 0, &s, &p, "");
    ttt_optimizer_desc d = { .rule = &ttt_rule_adam, .lr = (ttt_real)1e-9 };
    update u = { c, &p, ttt_optimizer_new(c, &d, &p) };
    need_ok(c, "kern.adam");
    timing t = measure(run_adam, &u);
    need_ok(c, "kern.adam");
    report("kern.adam", t, 10.0 * KERNEL_REALS * sizeof(ttt_real) / 1e9, "GB/s",
           14.0 * KERNEL_REALS, (double)ttt_memory(c).peak);
    ttt_close(c);
}

static void kernels(void) {
#define X(name, formula, lo, hi, flops) bench_kernel(#name, 0, flops, ttt_##name, NULL);
    TTT_UNARY_OPS(X)
#undef X
    bench_kernel("exp", 0, 12, NULL, expf);
    bench_kernel("log", 0, 16, NULL, logf);
    bench_kernel("tanh", 0, 20, NULL, tanhf);
    bench_kernel("erf", 0, 24, NULL, erff);
    bench_kernel("sigmoid", 0, 16, NULL, libm_sigmoid);
    bench_kernel("silu", 0, 17, NULL, libm_silu);
    bench_kernel("gelu", 0, 22, NULL, libm_gelu);
    bench_kernel("gelu_erf", 0, 28, NULL, libm_gelu_erf);
    bench_kernel("softmax", 2, 16, ttt_softmax, NULL);
    bench_kernel("log_softmax", 2, 16, ttt_log_softmax, NULL);
    bench_kernel("layer_norm", 2, 7, layer_norm, NULL);
    bench_kernel("layer_norm_d1", 2, 14, layer_norm_d1, NULL);
    bench_kernel("rms_norm", 2, 5, rms_norm, NULL);
    bench_kernel("transpose", 2, 0, ttt_transpose, NULL);
    bench_kernel("sum", 1, 1, ttt_sum, NULL);
    bench_adam();
}

// ---- layer.*, mixer.*, grow.*: one token mixer, D = 384, H = 6 ----------------------------------
static const struct layer {
    const char *name;
    const ttt_mixer *mixer;
    int steps;
    bool sgd, plain;  // plain: W0 = 0, no norm, no bias; identity map, constant normalizer
} layers[] = {
    { "ttt_lin", &ttt_mixer_mttt_linear, 1, 0, 0 },
    { "ttt_linT4", &ttt_mixer_mttt_linear, 4, 1, 0 },
    { "ttt_mlp", &ttt_mixer_mttt_mlp, 1, 0, 0 },
    { "ttt_mlpT4", &ttt_mixer_mttt_mlp, 4, 1, 0 },
    { "linattn", &ttt_mixer_linear_attention, 1, 0, 0 },
    { "softattn", &ttt_mixer_self_attention, 1, 0, 0 },
    { "mttt_lin", &ttt_mixer_mttt_linear, 1, 0, 1 },
    { "mttt_linGD4", &ttt_mixer_mttt_linear, 4, 0, 1 },
    { "linattn_id", &ttt_mixer_linear_attention, 1, 0, 1 },
};
enum { N_LAYERS = COUNT(layers), N_MODEL_LAYERS = 6 };

static ttt_mixer_desc mixer_of(const struct layer *l) {
    ttt_mixer_desc d = { .inner_steps = l->steps, .inner_lr = 1, .inner_sgd = l->sgd,
                         .zero_w0 = l->plain, .no_decoder_norm = l->plain,
                         .no_inner_bias = l->plain, .identity_map = l->plain,
                         .normalizer = l->plain ? TTT_NORMALIZER_CONSTANT
                                                : TTT_NORMALIZER_ADAPTIVE };
    return ttt_mixer_offer(l->mixer, &d);
}

static void run_forward(void *arg) { layer_step(arg, false); }
static void run_gradients(void *arg) { layer_step(arg, true); }
static void bench_layer(const char *family, const char *layer, const ttt_mixer_desc *d, int64_t N,
                        int64_t B) {
    for (int backward = 0; backward < 2; backward++) {
        char name[120];
        layer_run r;
        run_fn *run = backward ? run_gradients : run_forward;
        snprintf(name, sizeof name, "%s.%s.N%lld.B%lld.%s", family, layer, (long long)N,
                 (long long)B, backward ? "fwdbwd" : "fwd");
        if (layer_flops(d, N, B, backward) > LAYER_FLOPS_MOST || !wanted(name)) continue;
        ttt_ctx *c = open_context();
        layer_open(&r, c, d, N, B);
        run(&r);
        ttt_memory_reset(c);
        timing t = measure(run, &r);
        report(name, t, 0, "ms", layer_flops(d, N, B, backward), (double)ttt_memory(c).peak);
        ttt_close(c);
    }
}
static void bench_family(const char *family, int64_t N) {
    char layer[64];
    ttt_mixer_desc d;
    for (int i = 0; family_at(i, N, layer, &d); i++) bench_layer(family, layer, &d, N, 1);
}

// ---- vit.*: inference and training of a whole model, 32 images ----------------------------------
typedef struct {
    ttt_ctx *c;
    ttt_vit_desc d;
    ttt_weights w;
    ttt_optimizer *o;
    ttt_tensor *images, *target;
    bool train;
} vit_run;
static void run_vit(void *arg) {
    vit_run *r = arg;
    ttt_mark m = ttt_mark_get(r->c);
    ttt_set_recording(r->c, r->train);
    ttt_tensor *logits = ttt_vit_forward(r->c, &r->d, r->w, r->images, NULL);
    if (r->train) ttt_optimizer_step(r->c, r->o, ttt_cross_entropy(r->c, logits, r->target));
    ttt_mark_release(r->c, m);
}
static void bench_vit(const struct layer *l, bool large, int what) {
    // the last computes blocks again for the gradient
    static const char *const name_of[] = { "infer", "train", "train_again" };
    bool train = what != 0;
    char name[80];
    snprintf(name, sizeof name, "vit.%s.%s.%s", l->name, large ? "tiny224" : "small32",
             name_of[what]);
    if (!wanted(name)) return;
    enum { IMAGES = 32 };
    ttt_ctx *c = open_context();
    ttt_params p = { 0 };
    ttt_vit_desc d = { .image = large ? 224 : 32, .channels = 3, .patch = large ? 16 : 4,
                       .width = 192, .depth = large ? 12 : 6, .classes = large ? 1000 : 10,
                       .remat = what == 2, .mixer = mixer_of(l) };
    ttt_optimizer_desc rule = { .rule = &ttt_rule_adam, .lr = (ttt_real)1e-3 };
    d.mixer.heads = 3;
    vit_run r = { .c = c, .d = d, .train = train };
    int64_t labels[IMAGES];
    for (int i = 0; i < IMAGES; i++) labels[i] = i % d.classes;
    r.w = ttt_vit_new(c, &d, &p, "");
    r.o = ttt_optimizer_new(c, &rule, &p);
    r.images = ttt_randn(c, TTT_SHAPE(IMAGES, d.image, d.image, 3));
    r.target = ttt_one_hot(c, ttt_from_int(c, TTT_SHAPE(IMAGES), labels), d.classes);
    need_ok(c, name);
    run_vit(&r);
    need_ok(c, name);
    ttt_memory_reset(c);
    timing t = measure(run_vit, &r);
    need_ok(c, name);
    report(name, t, IMAGES, "img/s", ttt_vit_flops(&r.d) * IMAGES * (train ? 3 : 1),
           (double)ttt_memory(c).peak);
    ttt_close(c);
}

static void layers_and_models(void) {
    for (int long_ = 0; long_ < 2; long_++)
        for (int B = 1; B <= 8; B += 7)
            for (int l = 0; l < N_LAYERS; l++) {
                ttt_mixer_desc d = mixer_of(&layers[l]);
                d.dim = LAYER_WIDTH;
                d.heads = LAYER_HEADS;
                bench_layer("layer", layers[l].name, &d, long_ ? 1024 : 196, B);
            }
    bench_family("mixer", 1024);
    for (int64_t N = 256; N <= 16384; N *= 2) bench_family("grow", N);
    for (int large = 0; large < 2; large++)
        for (int l = 0; l < N_MODEL_LAYERS; l++)
            for (int what = 0; what < 3 && layers[l].steps == 1; what++)
                bench_vit(&layers[l], large, what);
}

// ---- lm125m.*: reading and writing of a language model, one sequence ----------------------------
typedef struct {
    ttt_ctx *c;
    ttt_lm_desc d;
    ttt_weights w;
    ttt_stream s;
    ttt_tensor *tokens;
    bool goes_on;  // writes behind what was read, else reads a new text
} lm_run;
static void run_lm(void *arg) {
    lm_run *r = arg;
    ttt_mark m = ttt_mark_get(r->c);
    if (!r->goes_on) ttt_stream_restart(&r->s, -1);
    ttt_lm_stream(r->c, &r->d, r->w, &r->s, r->tokens, NULL, true);
    ttt_mark_release(r->c, m);
}
// Weights of bfloat16 have no numbers yet: any will do that are small, of both signs.
static void fill(const ttt_params *p) {
    for (int i = 0; i < p->n; i++)
        for (int64_t j = 0; j < p->value[i]->size; j++) {
            uint32_t sign = (uint32_t)j * 0x9e3779b1u >> 31;
            if (p->value[i]->bf16) p->value[i]->bf16[j] = (uint16_t)(0x3c00 | sign << 15);
            else p->value[i]->data[j] = (ttt_real)(sign ? -1 : 1) / 64;
        }
}
static void bench_lm(const char *learner, const ttt_mixer *mixer, const char *what, int64_t n,
                     bool half) {
    char name[80];
    snprintf(name, sizeof name, "lm125m.%s.%s", learner, what);
    if (!wanted(name)) return;
    ttt_ctx *c = open_context();
    ttt_params p = { .blank = half, .bf16 = half };
    lm_run r = { .c = c, .d = ttt_lm_preset("125m"), .goes_on = n == 1 };
    r.d.mixer.mixer = mixer;
    r.w = ttt_lm_new(c, &r.d, &p, "");
    need_ok(c, name);
    if (half) fill(&p);
    int64_t *token = ttt_alloc(c, (uint64_t)n * sizeof *token, false);
    need_ok(c, name);
    for (int64_t i = 0; i < n; i++) token[i] = i * 7919 % r.d.vocab;
    r.tokens = ttt_from_int(c, TTT_SHAPE(1, n), token);
    timing t = measure(run_lm, &r);
    need_ok(c, name);
    report(name, t, (double)n, "tok/s", ttt_lm_flops(&r.d, n), (double)ttt_memory(c).peak);
    ttt_close(c);
}
static void language_models(void) {
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "mlp" : "linear";
        const ttt_mixer *mixer = i ? &ttt_mixer_ttt_mlp : &ttt_mixer_ttt_linear;
        bench_lm(name, mixer, "prefill512", 512, false);
        bench_lm(name, mixer, "prefill2048", 2048, false);
        bench_lm(name, mixer, "decode", 1, false);
        bench_lm(name, mixer, "decode_bf16", 1, true);
    }
}

// ---- the whole ----------------------------------------------------------------------------------
static void pin(void) {
#ifdef __linux__
    cpu_set_t allowed, one;
    if (bench.threads > 1 || sched_getaffinity(0, sizeof allowed, &allowed)) return;
    size_t cpu = CPU_SETSIZE - 1;
    while (cpu > 0 && !CPU_ISSET(cpu, &allowed)) cpu--;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
#endif
}

int main(int argc, char **argv) {
    read_options(argc, argv, &bench);
    ttt_ctx *c = open_context();
    bench.threads = ttt_threads(c);
    ttt_close(c);
    pin();
    peaks();
    for (int i = 0; i < COUNT(products); i++) bench_product(&products[i]);
    kernels();
    layers_and_models();
    language_models();
    if (n_matched == 0) die("--filter '%s' matches no case; --list names them all", bench.filter);
    return 0;
}
