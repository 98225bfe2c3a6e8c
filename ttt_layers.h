/*  ttt_layers.h - v0.1.0 - layers that learn at test time, and the attention they generalise.

    DO THIS
        #define TTT_IMPLEMENTATION      // in exactly one C or C++ file, before the include
        #include "ttt_layers.h"         // includes ttt_tensor.h, which must lie beside it
    and compile with  cc -O2 file.c -lm .  Everywhere else just include it.

    AN EXAMPLE: one layer whose hidden state is an MLP that takes a gradient step on what it reads
        ttt_ctx *c = ttt_open(NULL);
        ttt_params p = { 0 };
        ttt_mixer_desc d = { 0 };
        d.mixer = ttt_mixer_find("mttt-mlp");
        d.dim = 64;
        d.heads = 4;
        d.inner_lr = 1;
        ttt_tensor **w = ttt_mixer_new(c, &d, &p, "layer");                     // its parameters
        ttt_tensor *x = ttt_randn(c, TTT_SHAPE(2, 128, 64)), *losses;           // (B,N,D)
        ttt_tensor *y = ttt_mixer_forward(c, &d, w, x, &losses);                // (B,N,D)
        if (ttt_ok(c)) printf("%g -> %g\n", losses->data[0], losses->data[1]);  // it has learnt
        ttt_close(c);

    INDEX
        [1] PARAMETERS    tables of names, shapes and initialisers; everything iterates them
        [2] PLAIN LAYERS  dense, layer norm, MLP block, patch embedding, positions
        [3] LEARNERS      the small models that learn inside a layer; your own
        [4] INNER LOOP    gradient steps on a learner, described once for the whole family
        [5] MIXERS        layers that let tokens see each other, by name; your own
        and below TTT_LAYERS_IMPLEMENTATION the same again, forwards.

    CONCEPTS
        A layer of this kind has two sets of numbers. Its *outer* parameters are trained as in any
        network, and stay. Its *inner* weights W are born with each sequence as a copy of W0 (an outer
        parameter), take a few gradient steps on a small task made from that very sequence, produce the
        output, and are forgotten. The steps are operations on the tape like all others, so the outer
        gradient passes through them: the outer parameters learn to make the inner learning useful.
        Letters: B sequences, N tokens, D width, H heads, h = D/H head width, T inner steps, eta rates.
*/
#ifndef TTT_LAYERS_H
#define TTT_LAYERS_H

#include "ttt_tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- [1] PARAMETERS ------------------------------------------------------------------------------
// A layer declares its parameters as a table, and everything that deals with parameters goes over
// tables: initialisation, counting, optimiser groups, checkpoints.
typedef enum ttt_init {
    TTT_INIT_ZERO,
    TTT_INIT_ONE,
    TTT_INIT_XAVIER,         // uniform, bound sqrt(6 / (fan_in + fan_out))            [Glorot 2010]
    TTT_INIT_UNIFORM_IN,     // uniform, bound sqrt(3 / fan_in): variance 1/fan_in
    TTT_INIT_UNIFORM_OUT,    // uniform, bound sqrt(3 / fan_out)
    TTT_INIT_LECUN,          // normal of variance 1/fan_in, cut off at two deviations (as flax does)
    TTT_INIT_NORMAL_IN,      // normal of variance 1/fan_in
    TTT_INIT_TINY            // normal of deviation 1e-6
} ttt_init;

enum {                     // flags of a row
    TTT_DECAYS = 1,        // weight decay applies
    TTT_INNER = 2          // starting weights of a learner (W0)
};

// A shape is written with letters, sizes that the layer's maker sets: "H D h" is (H,D,h). A number may
// stand before a letter or alone: "H 4h", "1 D".
typedef struct ttt_param_row {
    const char *name;             // "phi/kernel"
    const char *shape;            // "H D h"
    ttt_init init;
    const char *fan_in, *fan_out;  // sizes that the initialiser divides by, as products of letters
    unsigned flags;
    unsigned only_if;             // present only if the maker's options have all these bits
} ttt_param_row;

typedef struct ttt_sizes {
    int64_t of[128];  // by letter: of['D'] = 64
} ttt_sizes;

typedef struct ttt_parameter {
    const char *name;  // with its layer's path: "Transformer/encoderblock_0/TTTLayer_0/phi/kernel"
    ttt_tensor *value;
    unsigned flags;
} ttt_parameter;

// A growing list of parameters. Zero-initialise it; it lives in the keep arena.
typedef struct ttt_params {
    ttt_parameter *item;
    int n, capacity;
} ttt_params;

// Makes the parameters of a table, appends them to p under "prefix/name" and initialises each from the
// context's seed and its own name (so that adding a layer changes no other). Returns one tensor a row,
// NULL for absent ones; NULL after an error (TTT_ERR_ARGUMENT: a letter without a size).
TTT_API ttt_tensor **ttt_params_add(ttt_ctx *c, ttt_params *p, const char *prefix, const ttt_param_row *rows,
                                    int n_rows, unsigned options, const ttt_sizes *sizes);
TTT_API ttt_tensor *ttt_params_find(const ttt_params *p, const char *name);   // NULL if it is not there
TTT_API int64_t ttt_params_count(const ttt_params *p, unsigned flags);        // numbers in those with all the flags

// ---- [2] PLAIN LAYERS ----------------------------------------------------------------------------
// Each is a table of parameters (w[] in the order of its rows) and a function.
TTT_API ttt_tensor **ttt_dense_new(ttt_ctx *c, ttt_params *p, const char *prefix, int64_t in, int64_t out, ttt_init kernel);
// y = x kernel + bias, x (...,in)
TTT_API ttt_tensor *ttt_dense(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *x);

TTT_API ttt_tensor **ttt_layer_norm_new(ttt_ctx *c, ttt_params *p, const char *prefix, int64_t D);
// y = (x - mean) / sqrt(var + 1e-6) scale + bias over the last axis, biased variance     [Ba 2016]
#define TTT_LAYER_NORM_EPS 1e-6
TTT_API ttt_tensor *ttt_layer_norm(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *x);
TTT_API ttt_tensor *ttt_layer_norm_with(ttt_ctx *c, ttt_tensor *scale, ttt_tensor *bias, ttt_tensor *x);

TTT_API ttt_tensor **ttt_mlp_new(ttt_ctx *c, ttt_params *p, const char *prefix, int64_t D, int64_t hidden);
TTT_API ttt_tensor *ttt_mlp(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *x);  // dense, GELU (tanh form), dense

TTT_API ttt_tensor **ttt_embed_new(ttt_ctx *c, ttt_params *p, const char *prefix, int64_t patch, int64_t channels, int64_t D);
// images (B,height,width,channels), sides divisible by the patch -> tokens (B,N,D), row by row:
// a convolution whose kernel (patch,patch,channels,D) and stride are the patch
TTT_API ttt_tensor *ttt_embed(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *images);

// The fixed code of a grid, (1,rows*cols,D): [sin x o, cos x o, sin y o, cos y o] with
// o_j = 10000^(-j / (D/4 - 1)), j < D/4. Needs D divisible by 4.       [Beyer 2022, big_vision]
TTT_API ttt_tensor *ttt_sincos2d(ttt_ctx *c, int64_t rows, int64_t cols, int64_t D);

TTT_API ttt_tensor *ttt_elu1(ttt_ctx *c, ttt_tensor *x);  // elu(x) + 1: x + 1 if x > 0, else e^x
// (B,N,D) -> (B,H,N,D/H) and back: a head is a run of D/H neighbouring features
TTT_API ttt_tensor *ttt_split_heads(ttt_ctx *c, ttt_tensor *x, int64_t H);
TTT_API ttt_tensor *ttt_join_heads(ttt_ctx *c, ttt_tensor *x);

// ---- [3] LEARNERS --------------------------------------------------------------------------------
// The model inside a layer. Weights have a leading axis H in the table; predict sees them as
// (B,H,a,b), or (B,H,1,a) for those with one axis more than H, so that each sequence and head has its
// own. To write one: a table, a predict, and this struct around them.
typedef struct ttt_learner {
    const char *name;
    const ttt_param_row *rows;
    int n_rows;
    // x (B,H,n,h) -> (B,H,n,h)
    ttt_tensor *(*predict)(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *x);
    int64_t flops;  // multiply-adds of one prediction of one head, in units of h^2 a token
} ttt_learner;
#define TTT_MAX_WEIGHTS 16      // of one learner
#define TTT_MAX_INNER_STEPS 64

enum { TTT_WITH_BIAS = 1 };  // bit for only_if: the learner has biases
extern const ttt_learner ttt_learner_linear;  // f(z) = z W (+ b)
extern const ttt_learner ttt_learner_mlp;     // f(z) = GELU(z W1 (+ b1)) W2 (+ b2), 4h hidden

// ---- [4] INNER LOOP ------------------------------------------------------------------------------
// What a layer of the family does with a sequence:
//     W_0 = the trained start;  W_t+1 = W_t - eta_t d l(W_t; S_t) / dW,  t = 0 .. T-1;  then f_{W_T}(test)
// S_t is all tokens (descent), or the t-th of T equal parts of the tokens in a given order (shuffled
// mini-batches). Every sequence and head learns for itself.
typedef struct ttt_inner {
    const ttt_learner *learner;
    ttt_tensor *train;  // (B,H,N,h), what the learner sees
    ttt_tensor *label;  // (B,H or 1,N,...), what its loss compares with
    // The loss summed over sequences and heads, from f(train part) and the label part.
    ttt_tensor *(*loss)(ttt_ctx *c, const void *arg, ttt_tensor *prediction, ttt_tensor *label);
    const void *loss_arg;
    int steps;                // T
    const ttt_real *rates;    // eta_t, constants; or
    ttt_tensor *learned_rates;  // (T), a tensor that takes gradients
    ttt_tensor *order;        // NULL: descent. Else integers (H,L), L <= N: the tokens of each head's T parts
    bool first_order;         // treat the inner gradients as constants (for comparison)
} ttt_inner;

// W0 (one tensor a weight, leading axis H, NULL where absent) -> w, the weights after T steps, ready
// for predict. losses, if not NULL, receives (T+1): l before each step on that step's part, then with
// the final weights on all tokens; sum over heads, mean over sequences.
// Errors: TTT_ERR_SHAPE if T parts do not divide L; TTT_ERR_UNSET without rates.
TTT_API ttt_result ttt_inner_loop(ttt_ctx *c, const ttt_inner *in, ttt_tensor *const *w0, ttt_tensor **w, ttt_tensor **losses);

// ---- [5] MIXERS ----------------------------------------------------------------------------------
typedef struct ttt_mixer ttt_mixer;

typedef enum ttt_normaliser {
    TTT_NORMALISER_ADAPTIVE,  // q_n . sum_m k_m
    TTT_NORMALISER_CONSTANT   // N h
} ttt_normaliser;

// One description for all. Zero is the default; what a mixer does not have it ignores.
typedef struct ttt_mixer_desc {
    const ttt_mixer *mixer;  // required
    int64_t dim, heads;      // D and H, required; H divides D
    // layers that learn
    int inner_steps;             // T; 0: 1
    ttt_real inner_lr;           // eta, the same for every step: required, unless
    const ttt_real *inner_lrs;   // T of them (zeros are fine here)
    bool inner_sgd;              // shuffled mini-batches instead of descent; T divides N
    ttt_tensor *order;           // integers (H,N) for it; NULL: drawn anew at each call
    bool learn_rates;            // the rates become a parameter, starting from those above
    bool no_inner_bias;          // learner without biases
    bool no_decoder_norm;        // reconstruction without layer norm
    bool zero_w0;                // start W0 at zero
    bool first_order;            // constants instead of inner gradients, for comparison
    // linear attention
    bool identity_map;           // q, k as they are, not elu + 1
    ttt_normaliser normaliser;
} ttt_mixer_desc;

struct ttt_mixer {
    const char *name;    // "mttt-mlp"
    const char *module;  // what its parameters are filed under in a block: "TTTLayer_0"
    const ttt_param_row *rows;
    int n_rows;
    const ttt_learner *learner;  // NULL if nothing is learnt inside; its table follows rows
    // x (B,N,D) -> (B,N,D). losses: NULL, or receives (T+1); mixers that do not learn leave it alone
    ttt_tensor *(*forward)(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses);
    double (*flops)(const ttt_mixer_desc *d, int64_t N);  // forward, of one sequence
};

// The registered mixers by number, NULL past the end; by name, NULL if there is none such.
//   mttt-linear, mttt-mlp  learn a linear map or an MLP on the sequence          [arXiv 2310.13807]
//   self-attention         softmax(q k^T / sqrt h) v                             [Vaswani 2017]
//   linear-attention       phi(q) (phi(k)^T v) / normaliser                      [Katharopoulos 2020]
//   none                   zero: tokens do not see each other
TTT_API const ttt_mixer *ttt_mixer_at(int i);
TTT_API const ttt_mixer *ttt_mixer_find(const char *name);

// Checks a description and makes the parameters it asks for; NULL after an error, which names the field.
TTT_API ttt_tensor **ttt_mixer_new(ttt_ctx *c, const ttt_mixer_desc *d, ttt_params *p, const char *prefix);
TTT_API ttt_tensor *ttt_mixer_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses);

#ifdef __cplusplus
}
#endif
#endif  // TTT_LAYERS_H

// ==================================================================================================
#if defined(TTT_LAYERS_IMPLEMENTATION) || defined(TTT_IMPLEMENTATION)
#ifndef TTT_LAYERS_IMPLEMENTED
#define TTT_LAYERS_IMPLEMENTED

#include <math.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- [1] PARAMETERS ------------------------------------------------------------------------------
// Reads "H 4h" as sizes; returns how many, or -1 if a letter has none.
static int ttt__read_sizes(const char *text, const ttt_sizes *sizes, int64_t *out) {
    int n = 0;
    while (*text) {
        int64_t value = 0;
        if (*text == ' ') {
            text++;
            continue;
        }
        for (; *text >= '0' && *text <= '9'; text++) value = 10 * value + (*text - '0');
        if (*text && *text != ' ') {
            int64_t size = sizes->of[*text++ & 127];
            if (size <= 0) return -1;
            value = (value ? value : 1) * size;
        }
        if (n == TTT_MAX_RANK) return -1;
        out[n++] = value;
    }
    return n;
}

static double ttt__fan(const char *text, const ttt_sizes *sizes) {
    int64_t size[TTT_MAX_RANK];
    int n = text ? ttt__read_sizes(text, sizes, size) : 0;
    double product = 1;
    for (int i = 0; i < n; i++) product *= (double)size[i];
    return product;
}

// FNV-1a, to give every name a random stream of its own.
static uint64_t ttt__name_hash(const char *s) {
    uint64_t h = 14695981039346656037u;
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

static void ttt__fill_uniform(ttt_tensor *t, ttt_rng *r, double bound) {
    for (int64_t i = 0; i < t->size; i++) t->data[i] = (ttt_real)(bound * (2 * ttt_rng_uniform(r) - 1));
}

static void ttt__fill_normal(ttt_tensor *t, ttt_rng *r, double deviation, double cut) {
    for (int64_t i = 0; i < t->size; i++) {
        double z = ttt_rng_normal(r);
        while (fabs(z) > cut) z = ttt_rng_normal(r);
        t->data[i] = (ttt_real)(deviation * z);
    }
}

static void ttt__initialise(ttt_tensor *t, const ttt_param_row *row, const ttt_sizes *sizes, ttt_rng r) {
    double in = ttt__fan(row->fan_in, sizes), out = ttt__fan(row->fan_out, sizes);
    switch (row->init) {
    case TTT_INIT_ZERO: break;  // parameters are born zero
    case TTT_INIT_ONE:
        for (int64_t i = 0; i < t->size; i++) t->data[i] = 1;
        break;
    case TTT_INIT_XAVIER: ttt__fill_uniform(t, &r, sqrt(6 / (in + out))); break;
    case TTT_INIT_UNIFORM_IN: ttt__fill_uniform(t, &r, sqrt(3 / in)); break;
    case TTT_INIT_UNIFORM_OUT: ttt__fill_uniform(t, &r, sqrt(3 / out)); break;
    // a normal cut at two deviations has 0.8796 of the deviation: made up for
    case TTT_INIT_LECUN: ttt__fill_normal(t, &r, sqrt(1 / in) / 0.87962566103423978, 2); break;
    case TTT_INIT_NORMAL_IN: ttt__fill_normal(t, &r, sqrt(1 / in), HUGE_VAL); break;
    case TTT_INIT_TINY: ttt__fill_normal(t, &r, 1e-6, HUGE_VAL); break;
    }
}

static ttt_parameter *ttt__params_slot(ttt_ctx *c, ttt_params *p) {
    if (p->n == p->capacity) {
        int capacity = p->n ? 2 * p->n : 64;
        ttt_parameter *item = (ttt_parameter *)ttt_alloc(c, (size_t)capacity * sizeof *item, true);
        if (!item) return NULL;
        if (p->n) memcpy(item, p->item, (size_t)p->n * sizeof *item);
        p->item = item;
        p->capacity = capacity;
    }
    return &p->item[p->n];
}

// One row's parameter at the end of p.
static ttt_tensor *ttt__params_add_row(ttt_ctx *c, ttt_params *p, const char *prefix, const ttt_param_row *row, const ttt_sizes *sizes) {
    ttt_shape s = ttt_scalar_shape();
    s.rank = ttt__read_sizes(row->shape, sizes, s.dim);
    if (s.rank < 0) {
        ttt_fail(c, TTT_ERR_ARGUMENT, "%s/%s: its shape \"%s\" has a letter whose size is not set", prefix, row->name, row->shape);
        return NULL;
    }
    ttt_parameter *item = ttt__params_slot(c, p);
    size_t length = strlen(prefix) + strlen(row->name) + 2;
    char *name = (char *)ttt_alloc(c, length, true);
    ttt_tensor *t = ttt_param(c, s);
    if (!item || !name || !ttt_ok(c)) return NULL;
    snprintf(name, length, "%s%s%s", prefix, *prefix ? "/" : "", row->name);
    item->name = name;
    item->value = t;
    item->flags = row->flags;
    p->n++;
    ttt__initialise(t, row, sizes, ttt_rng_fold(*ttt_ctx_rng(c), ttt__name_hash(name)));
    return t;
}

// Appends to w the tensors of a table.
static bool ttt__params_add_to(ttt_ctx *c, ttt_params *p, const char *prefix, const ttt_param_row *rows, int n_rows,
                               unsigned options, const ttt_sizes *sizes, ttt_tensor **w) {
    for (int i = 0; i < n_rows; i++) {
        w[i] = NULL;
        if ((rows[i].only_if & options) != rows[i].only_if) continue;
        if (!(w[i] = ttt__params_add_row(c, p, prefix, &rows[i], sizes))) return false;
    }
    return true;
}

ttt_tensor **ttt_params_add(ttt_ctx *c, ttt_params *p, const char *prefix, const ttt_param_row *rows, int n_rows,
                            unsigned options, const ttt_sizes *sizes) {
    ttt_tensor **w = (ttt_tensor **)ttt_alloc(c, (size_t)n_rows * sizeof *w, true);
    return w && ttt__params_add_to(c, p, prefix, rows, n_rows, options, sizes, w) ? w : NULL;
}

ttt_tensor *ttt_params_find(const ttt_params *p, const char *name) {
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->item[i].name, name) == 0) return p->item[i].value;
    return NULL;
}

int64_t ttt_params_count(const ttt_params *p, unsigned flags) {
    int64_t n = 0;
    for (int i = 0; i < p->n; i++)
        if ((p->item[i].flags & flags) == flags) n += p->item[i].value->size;
    return n;
}

// ---- [2] PLAIN LAYERS ----------------------------------------------------------------------------
// The letters and, in the same order, their sizes.
static ttt_sizes ttt__sizes(const char *letters, int64_t a, int64_t b, int64_t c, int64_t d) {
    const int64_t size[4] = { a, b, c, d };
    ttt_sizes s = { { 0 } };
    for (int i = 0; letters[i]; i++) s.of[letters[i] & 127] = size[i];
    return s;
}

#define TTT__ROWS(table) table, (int)(sizeof(table) / sizeof(table)[0])

ttt_tensor **ttt_dense_new(ttt_ctx *c, ttt_params *p, const char *prefix, int64_t in, int64_t out, ttt_init kernel) {
    ttt_param_row rows[] = {
        { "kernel", "I O", kernel, "I", "O", TTT_DECAYS, 0 },
        { "bias", "O", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    };
    ttt_sizes s = ttt__sizes("IO", in, out, 0, 0);
    return ttt_params_add(c, p, prefix, TTT__ROWS(rows), 0, &s);
}
ttt_tensor *ttt_dense(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *x) { return ttt_affine(c, x, w[0], w[1]); }

ttt_tensor **ttt_layer_norm_new(ttt_ctx *c, ttt_params *p, const char *prefix, int64_t D) {
    static const ttt_param_row rows[] = {
        { "scale", "D", TTT_INIT_ONE, NULL, NULL, 0, 0 },
        { "bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    };
    ttt_sizes s = ttt__sizes("D", D, 0, 0, 0);
    return ttt_params_add(c, p, prefix, TTT__ROWS(rows), 0, &s);
}
ttt_tensor *ttt_layer_norm_with(ttt_ctx *c, ttt_tensor *scale, ttt_tensor *bias, ttt_tensor *x) {
    ttt_tensor *z = ttt_normalize(c, x, (ttt_real)TTT_LAYER_NORM_EPS, true);
    return ttt_add(c, ttt_mul(c, z, scale), bias);
}
ttt_tensor *ttt_layer_norm(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *x) { return ttt_layer_norm_with(c, w[0], w[1], x); }

ttt_tensor **ttt_mlp_new(ttt_ctx *c, ttt_params *p, const char *prefix, int64_t D, int64_t hidden) {
    static const ttt_param_row rows[] = {
        { "Dense_0/kernel", "D M", TTT_INIT_XAVIER, "D", "M", TTT_DECAYS, 0 },
        { "Dense_0/bias", "M", TTT_INIT_TINY, NULL, NULL, 0, 0 },
        { "Dense_1/kernel", "M D", TTT_INIT_XAVIER, "M", "D", TTT_DECAYS, 0 },
        { "Dense_1/bias", "D", TTT_INIT_TINY, NULL, NULL, 0, 0 },
    };
    ttt_sizes s = ttt__sizes("DM", D, hidden, 0, 0);
    return ttt_params_add(c, p, prefix, TTT__ROWS(rows), 0, &s);
}
ttt_tensor *ttt_mlp(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *x) {
    return ttt_affine(c, ttt_gelu(c, ttt_affine(c, x, w[0], w[1])), w[2], w[3]);
}

ttt_tensor **ttt_embed_new(ttt_ctx *c, ttt_params *p, const char *prefix, int64_t patch, int64_t channels, int64_t D) {
    static const ttt_param_row rows[] = {
        { "kernel", "P P C D", TTT_INIT_LECUN, "P P C", "D", TTT_DECAYS, 0 },
        { "bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    };
    ttt_sizes s = ttt__sizes("PCD", patch, channels, D, 0);
    return ttt_params_add(c, p, prefix, TTT__ROWS(rows), 0, &s);
}
ttt_tensor *ttt_embed(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *images) {
    static const int order[6] = { 0, 1, 3, 2, 4, 5 };  // (B,rows,P,cols,P,C) -> (B,rows,cols,P,P,C)
    if (!ttt_ok(c)) return ttt_detach(c, images);
    ttt_shape k = w[0]->shape, s = images->shape;
    int64_t P = k.dim[0], C = k.dim[2], D = k.dim[3];
    if (s.rank != 4 || s.dim[3] != C || s.dim[1] % P || s.dim[2] % P) {
        ttt_text t;
        return ttt_fail(c, TTT_ERR_SHAPE, "embed: images of shape %s; (B,height,width,%lld) with sides divisible by the patch, %lld, expected",
                        ttt_shape_text(s, t), (long long)C, (long long)P);
    }
    int64_t B = s.dim[0], rows = s.dim[1] / P, cols = s.dim[2] / P;
    ttt_tensor *x = ttt_permute(c, ttt_reshape(c, images, TTT_SHAPE(B, rows, P, cols, P, C)), order);
    x = ttt_reshape(c, x, TTT_SHAPE(B, rows * cols, P * P * C));
    return ttt_affine(c, x, ttt_reshape(c, w[0], TTT_SHAPE(P * P * C, D)), w[1]);
}

ttt_tensor *ttt_sincos2d(ttt_ctx *c, int64_t rows, int64_t cols, int64_t D) {
    int64_t quarter = D / 4;
    if (ttt_ok(c) && (D % 4 != 0 || D < 4))
        return ttt_fail(c, TTT_ERR_ARGUMENT, "sincos2d: width %lld; a multiple of 4 expected", (long long)D);
    ttt_tensor *t = ttt_new(c, TTT_SHAPE(1, rows * cols, D));
    for (int64_t i = 0; ttt_ok(c) && i < rows * cols; i++)
        for (int64_t j = 0; j < quarter; j++) {
            double omega = quarter > 1 ? pow(10000, -(double)j / (double)(quarter - 1)) : 1;
            double x = (double)(i % cols) * omega, y = (double)(i / cols) * omega;
            ttt_real *code = t->data + i * D + j;
            code[0] = (ttt_real)sin(x);
            code[quarter] = (ttt_real)cos(x);
            code[2 * quarter] = (ttt_real)sin(y);
            code[3 * quarter] = (ttt_real)cos(y);
        }
    return t;
}

// max(x, 0) + e^min(x, 0)
ttt_tensor *ttt_elu1(ttt_ctx *c, ttt_tensor *x) {
    ttt_tensor *below = ttt_scale(c, ttt_relu(c, ttt_scale(c, x, -1)), -1);
    return ttt_add(c, ttt_relu(c, x), ttt_exp(c, below));
}

ttt_tensor *ttt_split_heads(ttt_ctx *c, ttt_tensor *x, int64_t H) {
    static const int order[4] = { 0, 2, 1, 3 };
    const int64_t *s = x->shape.dim;
    if (!ttt_ok(c)) return ttt_detach(c, x);
    return ttt_permute(c, ttt_reshape(c, x, TTT_SHAPE(s[0], s[1], H, s[2] / H)), order);
}
ttt_tensor *ttt_join_heads(ttt_ctx *c, ttt_tensor *x) {
    static const int order[4] = { 0, 2, 1, 3 };
    const int64_t *s = x->shape.dim;
    if (!ttt_ok(c)) return ttt_detach(c, x);
    return ttt_reshape(c, ttt_permute(c, x, order), TTT_SHAPE(s[0], s[2], s[1] * s[3]));
}

// ---- [3] LEARNERS --------------------------------------------------------------------------------
static ttt_tensor *ttt__affine_maybe(ttt_ctx *c, ttt_tensor *x, ttt_tensor *w, ttt_tensor *b) {
    return b ? ttt_affine(c, x, w, b) : ttt_matmul(c, x, w);
}

static ttt_tensor *ttt__linear_predict(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *x) { return ttt__affine_maybe(c, x, w[0], w[1]); }
static const ttt_param_row ttt__linear_rows[] = {
    { "inner_Dense_0/kernel", "H h h", TTT_INIT_XAVIER, "h", "h", TTT_DECAYS | TTT_INNER, 0 },
    { "inner_Dense_0/bias", "H h", TTT_INIT_ZERO, NULL, NULL, TTT_INNER, TTT_WITH_BIAS },
};
const ttt_learner ttt_learner_linear = { "linear", TTT__ROWS(ttt__linear_rows), ttt__linear_predict, 1 };

static ttt_tensor *ttt__mlp_predict(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *x) {
    return ttt__affine_maybe(c, ttt_gelu(c, ttt__affine_maybe(c, x, w[0], w[1])), w[2], w[3]);
}
static const ttt_param_row ttt__mlp_rows[] = {
    { "inner_Dense_0/kernel", "H h 4h", TTT_INIT_XAVIER, "h", "4h", TTT_DECAYS | TTT_INNER, 0 },
    { "inner_Dense_0/bias", "H 4h", TTT_INIT_ZERO, NULL, NULL, TTT_INNER, TTT_WITH_BIAS },
    { "inner_Dense_1/kernel", "H 4h h", TTT_INIT_XAVIER, "4h", "h", TTT_DECAYS | TTT_INNER, 0 },
    { "inner_Dense_1/bias", "H h", TTT_INIT_ZERO, NULL, NULL, TTT_INNER, TTT_WITH_BIAS },
};
const ttt_learner ttt_learner_mlp = { "mlp", TTT__ROWS(ttt__mlp_rows), ttt__mlp_predict, 8 };

// ---- [4] INNER LOOP ------------------------------------------------------------------------------
// A weight of every head becomes one of every sequence and head: (H,a,b) -> (B,H,a,b). It must be a
// tensor of its own before the first step, so that the gradient in it is each sequence's own and not
// the sum over the batch.
static ttt_tensor *ttt__lift_weight(ttt_ctx *c, ttt_tensor *w0, int64_t B) {
    ttt_shape s = w0->shape;
    if (s.rank == 2) w0 = ttt_reshape(c, w0, TTT_SHAPE(s.dim[0], 1, s.dim[1]));
    s = w0->shape;
    return ttt_broadcast(c, w0, TTT_SHAPE(B, s.dim[0], s.dim[1], s.dim[2]));
}

// Part t of T of the tokens of x (B,.,N,d) in the order of each head; x itself if there is none.
static ttt_tensor *ttt__part(ttt_ctx *c, const ttt_inner *in, ttt_tensor *x, int t) {
    if (!in->order || !ttt_ok(c)) return x;
    int64_t H = in->order->shape.dim[0], L = in->order->shape.dim[1], n = L / in->steps;
    int64_t *index = (int64_t *)ttt_alloc(c, (size_t)(H * n) * sizeof *index, false);
    for (int64_t h = 0; index && h < H; h++) memcpy(index + h * n, in->order->index + h * L + t * n, (size_t)n * sizeof *index);
    return ttt_gather(c, x, ttt_from_int(c, TTT_SHAPE(H, index ? n : 0), index));
}

// eta_t g
static ttt_tensor *ttt__times_rate(ttt_ctx *c, const ttt_inner *in, int t, ttt_tensor *g) {
    if (in->learned_rates) return ttt_mul(c, g, ttt_slice(c, in->learned_rates, 0, t, 1));
    return ttt_scale(c, g, in->rates[t]);
}

// The gradient of a step's loss in each weight. On the tape if an outer gradient may want to pass.
static void ttt__inner_gradient(ttt_ctx *c, const ttt_inner *in, ttt_tensor *loss, ttt_tensor *const *w, int n, ttt_tensor **g, bool record) {
    ttt_grad(c, loss, w, n, g, record && !in->first_order ? TTT_RECORD : TTT_FIRST_ORDER);
    for (int i = 0; i < n && in->first_order; i++) g[i] = ttt_detach(c, g[i]);
}

static ttt_tensor *ttt__inner_loss(ttt_ctx *c, const ttt_inner *in, ttt_tensor *const *w, ttt_tensor *train, ttt_tensor *label) {
    return in->loss(c, in->loss_arg, in->learner->predict(c, w, train), label);
}

static bool ttt__inner_good(ttt_ctx *c, const ttt_inner *in) {
    if (!ttt_ok(c)) return false;
    int64_t L = in->order && in->order->shape.rank == 2 ? in->order->shape.dim[1] : -1;
    if (!in->rates && !in->learned_rates) ttt_fail(c, TTT_ERR_UNSET, "inner loop: its rates (inner_lr) have no default and were not set");
    else if (in->steps < 1 || in->steps > TTT_MAX_INNER_STEPS)
        ttt_fail(c, TTT_ERR_ARGUMENT, "inner loop: %d steps; 1 to %d expected", in->steps, TTT_MAX_INNER_STEPS);
    else if (in->learner->n_rows > TTT_MAX_WEIGHTS)
        ttt_fail(c, TTT_ERR_ARGUMENT, "inner loop: the learner %s has %d weights; %d at most", in->learner->name, in->learner->n_rows, TTT_MAX_WEIGHTS);
    else if (in->order && (L < 0 || in->order->shape.dim[0] != in->train->shape.dim[1]))
        ttt_fail(c, TTT_ERR_SHAPE, "inner loop: the order of tokens must be integers of shape (%lld,L)", (long long)in->train->shape.dim[1]);
    else if (in->order && L % in->steps)
        ttt_fail(c, TTT_ERR_SHAPE, "inner loop: %lld tokens cannot be cut into %d equal mini-batches (inner_steps with inner_sgd)", (long long)L, in->steps);
    return ttt_ok(c);
}

ttt_result ttt_inner_loop(ttt_ctx *c, const ttt_inner *in, ttt_tensor *const *w0, ttt_tensor **w, ttt_tensor **losses) {
    if (!ttt__inner_good(c, in)) return ttt_status(c);
    int n = 0, place[TTT_MAX_WEIGHTS], T = in->steps;
    int64_t B = in->train->shape.dim[0];
    ttt_tensor *now[TTT_MAX_WEIGHTS], *g[TTT_MAX_WEIGHTS], *loss[TTT_MAX_INNER_STEPS + 1];
    bool record = ttt_recording(c, true);  // the inner gradient needs the tape even if nothing else does
    for (int i = 0; i < in->learner->n_rows; i++) {
        w[i] = w0[i] ? ttt__lift_weight(c, w0[i], B) : NULL;
        if (w[i]) place[n++] = i;
    }
    for (int t = 0; t < T; t++) {
        ttt_tensor *l = ttt__inner_loss(c, in, w, ttt__part(c, in, in->train, t), ttt__part(c, in, in->label, t));
        for (int i = 0; i < n; i++) now[i] = w[place[i]];
        ttt__inner_gradient(c, in, l, now, n, g, record);
        for (int i = 0; i < n; i++) w[place[i]] = ttt_sub(c, now[i], ttt__times_rate(c, in, t, g[i]));
        loss[t] = l;
    }
    ttt_recording(c, record);
    if (losses) {
        loss[T] = ttt__inner_loss(c, in, w, in->train, in->label);
        for (int t = 0; t <= T; t++) loss[t] = ttt_reshape(c, loss[t], TTT_SHAPE(1));
        *losses = ttt_scale(c, ttt_concat(c, loss, T + 1, 0), 1 / (ttt_real)B);
    }
    return ttt_status(c);
}

// ---- [5] MIXERS ----------------------------------------------------------------------------------
// -- MTTT: a learner that reconstructs the sequence from a view of itself.     [arXiv 2310.13807, §3]
// Heads do not split the features: each sees the whole token x (D) and maps it down to h.
//   train view  k = x phi + b_phi              test view  q = x psi + b_psi
//   reconstruction  r = LN( f_W(k) g + b_g )   loss  l = H / (2 |S| D) sum over S of |r - x|^2
//   output  y = sum over heads of f_W(q) h + b_h,  W after the inner loop
// x is input and target at once, and the outer gradient flows into both.
enum { TTT__DECODER_NORM = 2, TTT__LEARNED_RATES = 4 };  // options beside TTT_WITH_BIAS
#define TTT__MTTT_ROWS(X)                                                                          \
    X(PHI_KERNEL, "phi/kernel", "H D h", TTT_INIT_UNIFORM_IN, "D", "h", TTT_DECAYS, 0)             \
    X(PHI_BIAS, "phi/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                \
    X(PSI_KERNEL, "psi/kernel", "H D h", TTT_INIT_UNIFORM_IN, "D", "h", TTT_DECAYS, 0)             \
    X(PSI_BIAS, "psi/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                \
    X(G_KERNEL, "g/kernel", "H h D", TTT_INIT_UNIFORM_OUT, "h", "D", TTT_DECAYS, 0)                \
    X(G_BIAS, "g_bias", "1 D", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                    \
    X(H_KERNEL, "h/kernel", "H h D", TTT_INIT_UNIFORM_OUT, "h", "D", TTT_DECAYS, 0)                \
    X(H_BIAS, "h_bias", "1 D", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                    \
    X(LN_SCALE, "decoder_LN/scale", "H D", TTT_INIT_ONE, NULL, NULL, 0, TTT__DECODER_NORM)         \
    X(LN_BIAS, "decoder_LN/bias", "H D", TTT_INIT_ZERO, NULL, NULL, 0, TTT__DECODER_NORM)          \
    X(RATES, "inner_lr", "T", TTT_INIT_ZERO, NULL, NULL, 0, TTT__LEARNED_RATES)
enum {
#define X(id, name, shape, init, fan_in, fan_out, flags, only_if) TTT__MTTT_##id,
    TTT__MTTT_ROWS(X)
#undef X
    TTT__MTTT_W0  // the learner's rows follow
};
static const ttt_param_row ttt__mttt_rows[] = {
#define X(id, name, shape, init, fan_in, fan_out, flags, only_if) { name, shape, init, fan_in, fan_out, flags, only_if },
    TTT__MTTT_ROWS(X)
#undef X
};

// (H,a) -> (H,1,a): a row for each head, as affine wants its bias
static ttt_tensor *ttt__head_row(ttt_ctx *c, ttt_tensor *b) { return ttt_reshape(c, b, TTT_SHAPE(b->shape.dim[0], 1, b->shape.dim[1])); }

// l summed over sequences and heads; e (B,H,n,h), x (B,1 or H,n,D)
static ttt_tensor *ttt__mttt_loss(ttt_ctx *c, const void *arg, ttt_tensor *e, ttt_tensor *x) {
    ttt_tensor *const *w = (ttt_tensor *const *)arg;
    ttt_tensor *r = ttt_affine(c, e, w[TTT__MTTT_G_KERNEL], w[TTT__MTTT_G_BIAS]);
    if (!ttt_ok(c)) return r;
    if (w[TTT__MTTT_LN_SCALE])
        r = ttt_layer_norm_with(c, ttt__head_row(c, w[TTT__MTTT_LN_SCALE]), ttt__head_row(c, w[TTT__MTTT_LN_BIAS]), r);
    int64_t H = e->shape.dim[1], n = e->shape.dim[2], D = x->shape.dim[3];
    return ttt_scale(c, ttt_sum(c, ttt_square(c, ttt_sub(c, r, x))), (ttt_real)H / (ttt_real)(2 * n * D));
}

// A random order of N tokens for each of H heads, the same for all sequences of the batch.
static ttt_tensor *ttt__draw_order(ttt_ctx *c, int64_t H, int64_t N) {
    int64_t *index = (int64_t *)ttt_alloc(c, (size_t)(H * N) * sizeof *index, false);
    for (int64_t h = 0; index && h < H; h++)
        for (int64_t i = 0; i < N; i++) {  // Fisher and Yates, inside out
            int64_t j = ttt_rng_below(ttt_ctx_rng(c), i + 1);
            index[h * N + i] = index[h * N + j];
            index[h * N + j] = i;
        }
    return ttt_from_int(c, TTT_SHAPE(H, index ? N : 0), index);
}

static ttt_tensor *ttt__mttt_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    int64_t B = x->shape.dim[0], N = x->shape.dim[1], D = d->dim, T = d->inner_steps ? d->inner_steps : 1;
    ttt_tensor *tokens = ttt_reshape(c, x, TTT_SHAPE(B, 1, N, D)), *inner_w[TTT_MAX_WEIGHTS];
    ttt_real same[TTT_MAX_INNER_STEPS];
    ttt_inner in;
    memset(&in, 0, sizeof in);
    for (int t = 0; t < T; t++) same[t] = d->inner_lr;
    in.learner = d->mixer->learner;
    in.train = ttt_affine(c, tokens, w[TTT__MTTT_PHI_KERNEL], ttt__head_row(c, w[TTT__MTTT_PHI_BIAS]));
    in.label = tokens;
    in.loss = ttt__mttt_loss;
    in.loss_arg = w;
    in.steps = (int)T;
    in.rates = d->inner_lrs ? d->inner_lrs : same;
    in.learned_rates = w[TTT__MTTT_RATES];
    in.first_order = d->first_order;
    if (d->inner_sgd) in.order = d->order ? d->order : ttt__draw_order(c, d->heads, N);
    if (ttt_inner_loop(c, &in, w + TTT__MTTT_W0, inner_w, losses) != TTT_OK) return ttt_detach(c, x);

    ttt_tensor *test = ttt_affine(c, tokens, w[TTT__MTTT_PSI_KERNEL], ttt__head_row(c, w[TTT__MTTT_PSI_BIAS]));
    ttt_tensor *read = in.learner->predict(c, inner_w, test);
    ttt_tensor *y = ttt_matmul_to(c, read, w[TTT__MTTT_H_KERNEL], false, false, TTT_SHAPE(B, 1, N, D));
    return ttt_add(c, ttt_reshape(c, y, TTT_SHAPE(B, N, D)), w[TTT__MTTT_H_BIAS]);
}

// Views 2 N D^2, output N D^2; each step reads f forwards and backwards (3 passes of its products) and
// the decoder twice, for H heads; one more prediction for the output. Two FLOPs a multiply-add.
static double ttt__mttt_flops(const ttt_mixer_desc *d, int64_t N) {
    double n = (double)N, D = (double)d->dim, h = D / (double)d->heads, T = d->inner_steps ? d->inner_steps : 1;
    double f = (double)d->mixer->learner->flops * n * D * h;  // one prediction of all heads
    double steps = d->inner_sgd ? 1 : T;                      // mini-batches: each token is seen once
    double backward = d->mixer->learner == &ttt_learner_linear ? 1 : 1.5;  // the first layer needs no input gradient
    return 2 * (3 * n * D * D + steps * (f + backward * f + 2 * n * D * D) + f);
}

// -- attention
#define TTT__LINEAR_ATTENTION_ROWS(X)                                                              \
    X(Q_KERNEL, "query/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_DECAYS, 0)                   \
    X(Q_BIAS, "query/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                  \
    X(K_KERNEL, "key/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_DECAYS, 0)                     \
    X(K_BIAS, "key/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                    \
    X(V_KERNEL, "value/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_DECAYS, 0)                   \
    X(V_BIAS, "value/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                  \
    X(O_KERNEL, "proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_DECAYS, 0)                    \
    X(O_BIAS, "proj/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)
#define TTT__SELF_ATTENTION_ROWS(X)                                                                \
    X(Q_KERNEL, "query/kernel", "D H h", TTT_INIT_XAVIER, "D", "D", TTT_DECAYS, 0)                 \
    X(Q_BIAS, "query/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                \
    X(K_KERNEL, "key/kernel", "D H h", TTT_INIT_XAVIER, "D", "D", TTT_DECAYS, 0)                   \
    X(K_BIAS, "key/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                  \
    X(V_KERNEL, "value/kernel", "D H h", TTT_INIT_XAVIER, "D", "D", TTT_DECAYS, 0)                 \
    X(V_BIAS, "value/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                \
    X(O_KERNEL, "out/kernel", "H h D", TTT_INIT_XAVIER, "D", "D", TTT_DECAYS, 0)                   \
    X(O_BIAS, "out/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)
enum {
#define X(id, name, shape, init, fan_in, fan_out, flags, only_if) TTT__ATTENTION_##id,
    TTT__LINEAR_ATTENTION_ROWS(X)
#undef X
    TTT__ATTENTION_N
};
#define X(id, name, shape, init, fan_in, fan_out, flags, only_if) { name, shape, init, fan_in, fan_out, flags, only_if },
static const ttt_param_row ttt__linear_attention_rows[] = { TTT__LINEAR_ATTENTION_ROWS(X) };
static const ttt_param_row ttt__self_attention_rows[] = { TTT__SELF_ATTENTION_ROWS(X) };
#undef X

// x times the kernel of row `which`, whatever heads its shape shows, plus its bias: (B,N,D)
static ttt_tensor *ttt__project(ttt_ctx *c, ttt_tensor *const *w, int which, ttt_tensor *x) {
    int64_t D = x->shape.dim[2];
    return ttt_affine(c, x, ttt_reshape(c, w[which], TTT_SHAPE(D, D)), ttt_reshape(c, w[which + 1], TTT_SHAPE(D)));
}
static ttt_tensor *ttt__project_heads(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, int which, ttt_tensor *x) {
    return ttt_split_heads(c, ttt__project(c, w, which, x), d->heads);
}

// y = softmax(q k^T / sqrt h) v, heads apart                                         [Vaswani 2017]
static ttt_tensor *ttt__self_attention_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    ttt_tensor *q = ttt__project_heads(c, d, w, TTT__ATTENTION_Q_KERNEL, x);
    ttt_tensor *k = ttt__project_heads(c, d, w, TTT__ATTENTION_K_KERNEL, x);
    ttt_tensor *v = ttt__project_heads(c, d, w, TTT__ATTENTION_V_KERNEL, x);
    ttt_real scale = (ttt_real)(1 / sqrt((double)(d->dim / d->heads)));
    ttt_tensor *a = ttt_softmax(c, ttt_scale(c, ttt_matmul_t(c, q, k, false, true), scale));
    (void)losses;
    return ttt__project(c, w, TTT__ATTENTION_O_KERNEL, ttt_join_heads(c, ttt_matmul(c, a, v)));
}
static double ttt__self_attention_flops(const ttt_mixer_desc *d, int64_t N) {
    double n = (double)N, D = (double)d->dim;
    return 2 * (4 * n * D * D + 2 * n * n * D);
}

// y = q (k^T v) / normaliser, q and k mapped by elu + 1 or as they are          [Katharopoulos 2020]
// Never N x N: k^T v is h x h, which is why its cost is linear in N.
static ttt_tensor *ttt__linear_attention_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    ttt_tensor *q = ttt__project(c, w, TTT__ATTENTION_Q_KERNEL, x), *k = ttt__project(c, w, TTT__ATTENTION_K_KERNEL, x);
    if (!d->identity_map) {
        q = ttt_elu1(c, q);
        k = ttt_elu1(c, k);
    }
    q = ttt_split_heads(c, q, d->heads);
    k = ttt_split_heads(c, k, d->heads);
    ttt_tensor *v = ttt__project_heads(c, d, w, TTT__ATTENTION_V_KERNEL, x);
    ttt_tensor *y = ttt_matmul(c, q, ttt_matmul_t(c, k, v, true, false));
    if (d->normaliser == TTT_NORMALISER_CONSTANT)
        y = ttt_scale(c, y, 1 / (ttt_real)(x->shape.dim[1] * (d->dim / d->heads)));
    else y = ttt_div(c, y, ttt_matmul_t(c, q, ttt_sum_axis(c, k, -2), false, true));
    (void)losses;
    return ttt__project(c, w, TTT__ATTENTION_O_KERNEL, ttt_join_heads(c, y));
}
static double ttt__linear_attention_flops(const ttt_mixer_desc *d, int64_t N) {
    double n = (double)N, D = (double)d->dim, h = D / (double)d->heads;
    return 2 * (4 * n * D * D + 2 * n * D * h);
}

// -- nothing: the block's MLP alone
static ttt_tensor *ttt__none_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    (void)d;
    (void)w;
    (void)losses;
    return ttt_zeros(c, x->shape);
}
static double ttt__none_flops(const ttt_mixer_desc *d, int64_t N) {
    (void)d;
    (void)N;
    return 0;
}

// -- the registry
static const ttt_mixer ttt__mixers[] = {
    { "mttt-linear", "TTTLayer_0", TTT__ROWS(ttt__mttt_rows), &ttt_learner_linear, ttt__mttt_forward, ttt__mttt_flops },
    { "mttt-mlp", "TTTLayer_0", TTT__ROWS(ttt__mttt_rows), &ttt_learner_mlp, ttt__mttt_forward, ttt__mttt_flops },
    { "self-attention", "MultiHeadDotProductAttention_0", TTT__ROWS(ttt__self_attention_rows), NULL, ttt__self_attention_forward, ttt__self_attention_flops },
    { "linear-attention", "LinearAttention_0", TTT__ROWS(ttt__linear_attention_rows), NULL, ttt__linear_attention_forward, ttt__linear_attention_flops },
    { "none", "none", NULL, 0, NULL, ttt__none_forward, ttt__none_flops },
};

const ttt_mixer *ttt_mixer_at(int i) { return i >= 0 && i < (int)(sizeof ttt__mixers / sizeof *ttt__mixers) ? &ttt__mixers[i] : NULL; }
const ttt_mixer *ttt_mixer_find(const char *name) {
    for (int i = 0; ttt_mixer_at(i); i++)
        if (strcmp(ttt_mixer_at(i)->name, name) == 0) return ttt_mixer_at(i);
    return NULL;
}

static bool ttt__mixer_good(ttt_ctx *c, const ttt_mixer_desc *d) {
    if (!ttt_ok(c)) return false;
    if (!d->mixer) ttt_fail(c, TTT_ERR_UNSET, "mixer: .mixer is not set; ttt_mixer_find gives one by name");
    else if (d->dim < 1 || d->heads < 1) ttt_fail(c, TTT_ERR_UNSET, "%s: .dim is %lld and .heads %lld; both must be set", d->mixer->name, (long long)d->dim, (long long)d->heads);
    else if (d->dim % d->heads) ttt_fail(c, TTT_ERR_ARGUMENT, "%s: .dim %lld is not divisible by .heads %lld", d->mixer->name, (long long)d->dim, (long long)d->heads);
    else if (d->mixer->learner && d->inner_lr == 0 && !d->inner_lrs) ttt_fail(c, TTT_ERR_UNSET, "%s: .inner_lr has no default and was not set (.inner_lrs may hold zeros)", d->mixer->name);
    else if (d->inner_steps < 0 || d->inner_steps > TTT_MAX_INNER_STEPS) ttt_fail(c, TTT_ERR_ARGUMENT, "%s: .inner_steps is %d; 1 to %d expected", d->mixer->name, d->inner_steps, TTT_MAX_INNER_STEPS);
    return ttt_ok(c);
}

ttt_tensor **ttt_mixer_new(ttt_ctx *c, const ttt_mixer_desc *d, ttt_params *p, const char *prefix) {
    if (!ttt__mixer_good(c, d)) return NULL;
    const ttt_mixer *m = d->mixer;
    int T = d->inner_steps ? d->inner_steps : 1, n_inner = m->learner ? m->learner->n_rows : 0;
    unsigned options = 0;
    if (!d->no_inner_bias) options |= TTT_WITH_BIAS;
    if (!d->no_decoder_norm) options |= TTT__DECODER_NORM;
    if (d->learn_rates) options |= TTT__LEARNED_RATES;
    ttt_sizes s = ttt__sizes("DHhT", d->dim, d->heads, d->dim / d->heads, T);
    ttt_tensor **w = (ttt_tensor **)ttt_alloc(c, (size_t)(m->n_rows + n_inner) * sizeof *w, true);
    if (!w || !ttt__params_add_to(c, p, prefix, m->rows, m->n_rows, options, &s, w)) return NULL;
    if (n_inner && !ttt__params_add_to(c, p, prefix, m->learner->rows, n_inner, options, &s, w + m->n_rows)) return NULL;
    for (int i = 0; i < n_inner && d->zero_w0; i++)
        if (w[m->n_rows + i]) memset(w[m->n_rows + i]->data, 0, (size_t)w[m->n_rows + i]->size * sizeof(ttt_real));
    for (int t = 0; t < T && m->learner && d->learn_rates; t++) w[TTT__MTTT_RATES]->data[t] = d->inner_lrs ? d->inner_lrs[t] : d->inner_lr;
    return w;
}

ttt_tensor *ttt_mixer_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    if (!ttt__mixer_good(c, d)) return ttt_detach(c, x);
    if (x->shape.rank != 3 || x->shape.dim[2] != d->dim) {
        ttt_text t;
        return ttt_fail(c, TTT_ERR_SHAPE, "%s: x has shape %s; (B,N,%lld) expected", d->mixer->name, ttt_shape_text(x->shape, t), (long long)d->dim);
    }
    return d->mixer->forward(c, d, w, x, losses);
}

#ifdef __cplusplus
}
#endif

/*  REFERENCES
    Sun et al.: Learning to (learn at test time). arXiv 2310.13807; code: test-time-training/mttt.
    Katharopoulos et al.: Transformers are RNNs. arXiv 2006.16236. Vaswani et al.: Attention is all you
    need. arXiv 1706.03762. Glorot, Bengio: Understanding the difficulty of training deep feedforward
    neural networks. AISTATS 2010. Ba et al.: Layer normalization. arXiv 1607.06450. Beyer et al.:
    Better plain ViT baselines for ImageNet-1k. arXiv 2205.01580.

    LICENCE: MIT No Attribution (MIT-0), see the end of ttt_tensor.h.
*/
#endif  // TTT_LAYERS_IMPLEMENTED
#endif  // TTT_LAYERS_IMPLEMENTATION
