// page.c - the numbers of the page beside it: an MTTT layer, and linear attention with the weights
// mapped.
//
//     sh examples/web/build.sh
//
// compiles this to WebAssembly and puts it into page.html, which becomes index.html: one file, to
// be opened from anywhere. The page calls setup once and update whenever a slider moves.
#define TTT_IMPLEMENTATION
#define TTT_STATIC
#define TTT_NO_THREADS
#define TTT_NO_FUSED  // layers op by op, as they are defined: a page smaller by a quarter
#include "../../ttt_layers.h"

#define EXPORT(name) __attribute__((export_name(#name), visibility("default")))
enum { D = 16, MOST = 64, KINDS = 3 };

// Named, and not found by name, so that no other mixer is linked.
static const ttt_mixer *const mixers[] = { &ttt_mixer_mttt_linear, &ttt_mixer_mttt_mlp,
                                           &ttt_mixer_linear_attention };
enum { ATTENTION = 2 };

// What printf brings is larger than a layer. This one knows what names and error messages need: %s,
// %d, %lld.
static size_t put(char *text, size_t size, size_t at, char letter) {
    if (at + 1 < size) text[at] = letter, text[at + 1] = 0;
    return at + 1;
}
int vsnprintf(char *restrict text, size_t size, const char *restrict f, va_list args) {
    size_t at = 0;
    if (size) *text = 0;
    for (; *f; f++) {
        bool wide = f[0] == '%' && f[1] == 'l' && f[2] == 'l' && f[3] == 'd';
        if (f[0] == '%' && f[1] == 's') {
            for (const char *s = va_arg(args, const char *); *s; s++) at = put(text, size, at, *s);
            f++;
        } else if (wide || (f[0] == '%' && f[1] == 'd')) {
            long long v = wide ? va_arg(args, long long) : va_arg(args, int);
            char digits[24], *p = digits;
            if (v < 0) at = put(text, size, at, '-');
            do *p++ = (char)('0' + llabs(v % 10));
            while (v /= 10);
            while (p > digits) at = put(text, size, at, *--p);
            f += wide ? 3 : 1;
        } else at = put(text, size, at, *f);
    }
    return (int)at;
}
int snprintf(char *restrict text, size_t size, const char *restrict format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, size, format, args);
    va_end(args);
    return n;
}
// For profiles and limits, which are not used here.
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    (void)zone;
    t->tv_sec = t->tv_usec = 0;
    return 0;
}

static ttt_ctx *c;
static ttt_params layers[2];  // of the two learners, with norm and with a start
static ttt_mark empty;
static float difference, unmasked;
static const char *equals;
static ttt_tensor *shown[6];

static ttt_mixer_desc describe(int mixer) {
    const ttt_mixer_desc d = { .dim = D, .heads = 1, .inner_lr = 1, .no_inner_bias = true,
                               .identity_map = true, .normalizer = TTT_NORMALIZER_CONSTANT };
    return ttt_mixer_offer(mixers[mixer], &d);
}

static void copy(const ttt_params *p, const char *from, const char *to) {
    ttt_tensor *a = ttt_params_find(p, from), *b = ttt_params_find(p, to);
    memcpy(b->data, a->data, (size_t)a->size * sizeof(ttt_real));
}

// Weights are drawn, not trained. So that one sees something in the maps, queries are made as keys
// are, and what h writes into the output is what g reads; so like tokens find each other.
EXPORT(setup) bool setup(void) {
    static const char *const biases[] = { "layer/phi/bias", "layer/psi/bias", "layer/g_bias",
                                          "layer/h_bias" };
    c = ttt_open(&(ttt_desc){ .seed = 3 });
    for (int learner = 0; learner < 2; learner++) {
        ttt_params *p = &layers[learner];
        ttt_mixer_desc d = describe(learner);
        ttt_mixer_new(c, &d, p, "layer");
        if (!ttt_ok(c)) return false;
        for (int i = 0; i < 4; i++) {
            ttt_tensor *b = ttt_params_find(p, biases[i]);
            for (int64_t j = 0; j < b->size; j++)
                b->data[j] = (ttt_real)(0.1 * sin((double)(2 * i + 1 + j)));
        }
        copy(p, "layer/phi/kernel", "layer/psi/kernel");
        copy(p, "layer/phi/bias", "layer/psi/bias");
        copy(p, "layer/g/kernel", "layer/h/kernel");
    }
    empty = ttt_mark_get(c);
    return ttt_ok(c);
}

// n tokens: six runs of noisy copies of three patterns.
static ttt_tensor *tokens(int n, int drawing) {
    static const int kind[] = { 0, 1, 0, 2, 1, 2 };
    ttt_tensor *x = ttt_new(c, TTT_SHAPE(1, n, D));
    for (int t = 0; ttt_ok(c) && t < n; t++) {
        ttt_rng stream = ttt_rng_at((uint64_t)drawing, 0, 0, 0);
        ttt_rng pattern = ttt_rng_fold(stream, (uint64_t)kind[t * 6 / n]);
        ttt_rng noise = ttt_rng_fold(stream, (uint64_t)(KINDS + t));
        for (int j = 0; j < D; j++) {
            double drawn = ttt_rng_normal(&pattern) + 0.35 * ttt_rng_normal(&noise);
            x->data[t * D + j] = (ttt_real)drawn;
        }
    }
    return x;
}

// The layer's parameters as those of linear attention, in the order of its rows and as in
// 04_equivalence.c (with one head views are square already).
enum { Q_KERNEL, Q_BIAS, K_KERNEL, K_BIAS, V_KERNEL, V_BIAS, O_KERNEL, O_BIAS, ROWS };
static ttt_tensor *as(const ttt_params *p, const char *name, ttt_shape s) {
    return ttt_reshape(c, ttt_params_find(p, name), s);
}
static void as_attention(const ttt_params *p, ttt_real eta, ttt_tensor **a) {
    ttt_shape square = TTT_SHAPE(D, D), row = TTT_SHAPE(D);
    a[Q_KERNEL] = as(p, "layer/psi/kernel", square);
    a[Q_BIAS] = as(p, "layer/psi/bias", row);
    a[K_KERNEL] = as(p, "layer/phi/kernel", square);
    a[K_BIAS] = as(p, "layer/phi/bias", row);
    a[V_KERNEL] = ttt_scale(c, ttt_transpose(c, as(p, "layer/g/kernel", square)), eta);
    ttt_tensor *shift = ttt_matmul(c, ttt_params_find(p, "layer/g_bias"), a[V_KERNEL]);
    a[V_BIAS] = ttt_scale(c, ttt_reshape(c, shift, row), -1);
    a[O_KERNEL] = as(p, "layer/h/kernel", square);
    a[O_BIAS] = as(p, "layer/h_bias", row);
}

// The weights of a layer with or without norm; `start` scales the learner's last kernel in W0; the
// linear learner has no other.
static ttt_weights as_learner(const ttt_params *p, bool norm, ttt_real start, ttt_tensor **w) {
    int n = 0;
    for (int i = 0; i < p->n; i++)
        if (norm || !strstr(p->item[i].name, "decoder_LN")) w[n++] = p->value[i];
    w[n - 1] = ttt_scale(c, w[n - 1], start);
    return (ttt_weights){ w, n };
}

// How many numbers a token has.
EXPORT(width) int width(void) { return D; }

// Computes everything anew for n tokens; false if the library reports an error.
EXPORT(update) bool update(int n, int drawing, ttt_real eta, int steps, int mlp, int norm,
                           ttt_real start) {
    ttt_mark_release(c, empty);
    ttt_clear(c);
    if (n < 1 || n > MOST) return false;
    ttt_tensor *w[16], *a[ROWS], *x = tokens(n, drawing), *losses;
    ttt_weights learner = as_learner(&layers[mlp], norm, start, w), attention = { a, ROWS };
    as_attention(&layers[mlp], eta, a);

    ttt_mixer_desc d = describe(mlp), da = describe(ATTENTION);
    d.inner_lr = eta;
    d.inner_steps = steps;
    d.no_decoder_norm = !norm;
    ttt_unmasked u, ua;
    ttt_tensor *learned = ttt_mixer_forward(c, &d, learner, x, &losses);
    ttt_tensor *attended = ttt_mixer_forward(c, &da, attention, x, NULL);
    ttt_unmask(c, &d, learner, x, &u);
    ttt_unmask(c, &da, attention, x, &ua);
    if (!ttt_ok(c)) return false;
    unmasked = (float)u.error;
    equals = u.equals;
    ttt_tensor *zero = ttt_zeros(c, attended->shape);
    difference = (float)(ttt_max_abs_diff(learned, attended) / ttt_max_abs_diff(attended, zero));
    shown[0] = x;          // (n,D)
    shown[1] = learned;    // (n,D)
    shown[2] = attended;   // (n,D)
    shown[3] = losses;     // (steps+1)
    shown[4] = u.matrix;   // (n,steps n): <q^,k^>; the rate counts with the values
    // (n,n): q k, the 1 / (n h) with the values likewise
    shown[5] = ttt_scale(c, ua.matrix, (ttt_real)(n * D));
    return ttt_ok(c);
}

EXPORT(numbers) const ttt_real *numbers(int which) { return shown[which]->data; }
// max|learned - attended| / max|attended|
EXPORT(apart) float apart(void) { return difference; }
// Of the output put together again from map and values, likewise.
EXPORT(map_error) float map_error(void) { return unmasked; }
EXPORT(operator) const char *operator_text(void) { return equals; }
EXPORT(error) const char *error_text(void) { return ttt_error(c); }
