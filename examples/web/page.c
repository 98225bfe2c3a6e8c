// page.c - the numbers of the page beside it: an MTTT layer, and linear attention with the weights mapped.
//
//     sh examples/web/build.sh
//
// compiles this to WebAssembly and puts it into page.html, which becomes index.html: one file, to be opened
// from anywhere. The page calls setup once and update whenever a slider moves.
#define TTT_IMPLEMENTATION
#define TTT_STATIC
#define TTT_NO_THREADS
#include "../../ttt_layers.h"

#define EXPORT(name) __attribute__((export_name(#name), visibility("default")))
enum { D = 16, MOST = 64, KINDS = 3 };

// Rows of the registry, as they are for .no_fused: the definitions, op by op. ttt_mixer_find knows all mixers
// and would bring the code of every one: three times the size of the page.
static const ttt_mixer mixers[] = {
    { "mttt-linear", "TTTLayer_0", TTT__ROWS(ttt__mttt_rows), &ttt_learner_linear, ttt__mttt_tape, ttt__mttt_flops, NULL, NULL, 0 },
    { "mttt-mlp", "TTTLayer_0", TTT__ROWS(ttt__mttt_rows), &ttt_learner_mlp, ttt__mttt_tape, ttt__mttt_flops, NULL, NULL, 0 },
    { "linear-attention", "LinearAttention_0", TTT__ROWS(ttt__linear_attention_rows), NULL, ttt__linear_attention_tape, ttt__linear_attention_flops, NULL, NULL, 0 },
};

// What printf brings is larger than a layer. This one knows what names and error messages need: %s, %d, %lld.
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
int gettimeofday(struct timeval *restrict t, void *restrict zone) {  // for profiles and limits, not used here
    (void)zone;
    t->tv_sec = t->tv_usec = 0;
    return 0;
}

static ttt_ctx *c;
static ttt_weights weights[2];  // of the two learners, with norm and with a start
static ttt_mark empty;
static float difference, unmasked;
static const char *equals;
static ttt_tensor *shown[6];

static ttt_mixer_desc describe(int mixer) {
    ttt_mixer_desc d = { .mixer = &mixers[mixer], .dim = D, .heads = 1, .inner_lr = 1, .no_inner_bias = true, .no_fused = true };
    return d;
}

// Weights are drawn, not trained. So that one sees something in the maps, queries are made as keys are, and
// what h writes into the output is what g reads; so like tokens find each other.
EXPORT(setup) bool setup(void) {
    c = ttt_open(&(ttt_desc){ .seed = 3 });
    for (int learner = 0; learner < 2; learner++) {
        ttt_params p = { 0 };
        ttt_mixer_desc d = describe(learner);
        weights[learner] = ttt_mixer_new(c, &d, &p, "layer");
        if (!ttt_ok(c)) return false;
        ttt_tensor *const *w = weights[learner].at;
        for (int i = TTT__MTTT_PHI_BIAS; i <= TTT__MTTT_H_BIAS; i += 2)  // biases of phi, psi, g, h
            for (int64_t j = 0; j < w[i]->size; j++) w[i]->data[j] = (ttt_real)(0.1 * sin((double)(i + j)));
        for (int i = TTT__MTTT_PHI_KERNEL; i <= TTT__MTTT_PHI_BIAS; i++) memcpy(w[i + 2]->data, w[i]->data, (size_t)w[i]->size * sizeof(ttt_real));
        memcpy(w[TTT__MTTT_H_KERNEL]->data, w[TTT__MTTT_G_KERNEL]->data, D * D * sizeof(ttt_real));
    }
    empty = ttt_mark_get(c);
    return ttt_ok(c);
}

// n tokens: six runs of noisy copies of three patterns.
static ttt_tensor *tokens(int n, int drawing) {
    static const int kind[] = { 0, 1, 0, 2, 1, 2 };
    ttt_tensor *x = ttt_new(c, TTT_SHAPE(1, n, D));
    for (int t = 0; ttt_ok(c) && t < n; t++) {
        ttt_rng pattern = ttt_rng_fold(ttt_rng_at((uint64_t)drawing, 0, 0, 0), (uint64_t)kind[t * 6 / n]);
        ttt_rng noise = ttt_rng_fold(ttt_rng_at((uint64_t)drawing, 0, 0, 0), (uint64_t)(KINDS + t));
        for (int j = 0; j < D; j++) x->data[t * D + j] = (ttt_real)(ttt_rng_normal(&pattern) + 0.35 * ttt_rng_normal(&noise));
    }
    return x;
}

// The layer's parameters as those of linear attention, as in 04_equivalence.c (with one head views are square already).
static void as_attention(ttt_tensor *const *w, ttt_real eta, ttt_tensor **a) {
    ttt_shape square = TTT_SHAPE(D, D), row = TTT_SHAPE(D);
    a[TTT__ATTENTION_Q_KERNEL] = ttt_reshape(c, w[TTT__MTTT_PSI_KERNEL], square);
    a[TTT__ATTENTION_Q_BIAS] = ttt_reshape(c, w[TTT__MTTT_PSI_BIAS], row);
    a[TTT__ATTENTION_K_KERNEL] = ttt_reshape(c, w[TTT__MTTT_PHI_KERNEL], square);
    a[TTT__ATTENTION_K_BIAS] = ttt_reshape(c, w[TTT__MTTT_PHI_BIAS], row);
    a[TTT__ATTENTION_V_KERNEL] = ttt_scale(c, ttt_transpose(c, ttt_reshape(c, w[TTT__MTTT_G_KERNEL], square)), eta);
    a[TTT__ATTENTION_V_BIAS] = ttt_scale(c, ttt_reshape(c, ttt_matmul(c, w[TTT__MTTT_G_BIAS], a[TTT__ATTENTION_V_KERNEL]), row), -1);
    a[TTT__ATTENTION_O_KERNEL] = ttt_reshape(c, w[TTT__MTTT_H_KERNEL], square);
    a[TTT__ATTENTION_O_BIAS] = ttt_reshape(c, w[TTT__MTTT_H_BIAS], row);
}

// Computes everything anew for n tokens; false if the library reports an error. `start` scales the learner's
// last kernel in W0; the linear learner has no other.
EXPORT(update) bool update(int n, int drawing, ttt_real eta, int steps, int mlp, int norm, ttt_real start) {
    ttt_mark_release(c, empty);
    ttt_clear(c);
    if (n < 1 || n > MOST) return false;
    ttt_tensor *w[TTT__MTTT_W0 + 4], *a[TTT__ATTENTION_N], *x = tokens(n, drawing);
    ttt_weights chosen = { w, 0 }, mapped = { a, TTT__ATTENTION_N };
    for (int i = 0; i < weights[mlp].n; i++)
        if (norm || (i != TTT__MTTT_LN_SCALE && i != TTT__MTTT_LN_BIAS)) w[chosen.n++] = weights[mlp].at[i];
    w[chosen.n - 1] = ttt_scale(c, w[chosen.n - 1], start);
    as_attention(w, eta, a);

    ttt_mixer_desc d = describe(mlp), da = describe(2);
    d.inner_lr = eta;
    d.inner_steps = steps;
    d.no_decoder_norm = !norm;
    da.identity_map = true;
    da.normalizer = TTT_NORMALIZER_CONSTANT;
    ttt_unmasked u = { 0 }, ua = { 0 };
    d.unmask = &u;  // as ttt_unmask does, and the losses from the same pass
    da.unmask = &ua;
    ttt_tensor *losses, *learned = ttt_mixer_forward(c, &d, chosen, x, &losses), *attended = ttt_mixer_forward(c, &da, mapped, x, NULL);
    if (!ttt_ok(c)) return false;
    ttt__unmask_certify(c, &u);
    unmasked = (float)u.error;
    equals = u.equals;
    difference = (float)(ttt_max_abs_diff(learned, attended) / ttt__max_abs(attended));
    shown[0] = x;                                            // (n,D)
    shown[1] = learned;                                      // (n,D)
    shown[2] = attended;                                     // (n,D)
    shown[3] = losses;                                       // (steps+1)
    shown[4] = u.matrix;                                     // (n,steps n): <q^,k^>; the rate counts with the values
    shown[5] = ttt_scale(c, ua.matrix, (ttt_real)(n * D));   // (n,n): q k, the 1 / (n h) with the values likewise
    return ttt_ok(c);
}

EXPORT(numbers) const ttt_real *numbers(int which) { return shown[which]->data; }
EXPORT(apart) float apart(void) { return difference; }  // max|learned - attended| / max|attended|
EXPORT(map_error) float map_error(void) { return unmasked; }  // of the output put together again from map and values, likewise
EXPORT(operator) const char *operator_text(void) { return equals; }
EXPORT(error) const char *error_text(void) { return ttt_error(c); }
