// golden.c - replays cases that the official codes computed: every output, inner loss, gradient and
// training step of each, from its own metadata.
//
//     sh tests/run.sh golden DIR      (it reads the paths of the .safetensors files on its input)
//
// A line for each case, way of computing and instruction set:
//     FAMILY CASE PATH ISA out=E grad=E traj=E final=E pass|FAIL|skip
// E is the largest error of that kind: max |a - b| of a tensor over its largest |b|. (A gradient is
// divided by at least 1e-3 of the largest gradient in the case.) A tolerance is 3 to 20 times the
// difference of the official float32 codes from float64. Where a float64 companion lies beside the
// case, the error of each tensor against it must also stay below 10 times the official error plus
// 1e-6. Training with a bfloat16 first moment is about 50 times less exact than in float32: it has
// tolerances of its own and shows in the verdict only, not in E.
//
// The cases in tests/golden are a tenth of a larger set. The JAX code of MTTT computed mttt_layer,
// attn and vit (github.com/test-time-training/mttt; jax 0.10.2, flax 0.12.8, optax 0.2.8); small
// JAX learners, with stop_gradient where the equations say so, computed meta; the PyTorch code of
// TTT-LM (test-time-training/ttt-lm-pytorch; torch 2.5.1, transformers 4.41.2) ttt_lm_layer. All
// ran in float32, on a CPU, from random numbers. The cases are small; together they notice a layer
// norm's epsilon of 1e-5, the other GELU, one token order for all heads, a decay multiplied by the
// rate, a missing inner step and a first-order gradient. The file of the vision transformer was too
// large and is an extract, as its metadata word `extract` says: it has every in.*, out.* and
// param.*, of final.* only the head and the inner learners, and no grad.*. What an extract lacks is
// not compared.
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "byol.h"

enum { KIND_OUT, KIND_GRAD, KIND_TRAJ, KIND_FINAL, KINDS };
static const char *const kind_name[KINDS] = { "out", "grad", "traj", "final" };

// The ways of computing a case: op by op, and by the fused ops where a family has them.
enum { TAPE, FUSED, WAYS };
static const char *const way_name[WAYS] = { "tape", "fused" };

enum { MOST = 16 };  // of anything that a case has a few of

typedef struct family family;
typedef struct {
    ttt_ctx *c;
    const family *family;
    int way;
    const char *path;
    ttt_bundle file, exact;  // the case; its float64 companion, or nothing
    bool *used;              // tensors of the case that were looked at
    bool extract;            // a cut-down case: tensors may be missing
    double worst[KINDS];     // -1: nothing compared
    double largest_gradient;
    char why[300];           // the first thing that failed
} replay;

struct family {
    const char *name;    // as printed
    const char *begins;  // how its metadata word begins
    void (*run)(replay *r);
    bool fused;          // has fused ops
    double tolerance[KINDS];
};

static void fail(replay *r, const char *format, ...) {
    va_list args;
    if (r->why[0]) return;
    va_start(args, format);
    vsnprintf(r->why, sizeof r->why, format, args);
    va_end(args);
}

// ---- metadata -----------------------------------------------------------------------------------
static const char *word(const replay *r, const char *key) {
    const char *text = ttt_bundle_note(&r->file, key);
    return text ? text : "";
}
static bool yes(const replay *r, const char *key) { return strcmp(word(r, key), "true") == 0; }
static double number(replay *r, const char *key) {
    char *end;
    double v = strtod(word(r, key), &end);
    if (end == word(r, key)) fail(r, "no number in metadata '%s'", key);
    return v;
}
// "[1.0, 0.5]" or "0.3": how many, written to out
static int numbers(replay *r, const char *key, ttt_real *out, int most) {
    const char *p = word(r, key);
    int n = 0;
    while (n < most) {
        char *end;
        p += strspn(p, "[, ");
        double v = strtod(p, &end);
        if (end == p) break;
        out[n++] = (ttt_real)v;
        p = end;
    }
    if (n == 0) fail(r, "no numbers in metadata '%s'", key);
    return n;
}

// ---- tensors of the case ------------------------------------------------------------------------
static const char *join(const char *a, const char *b) {
    static char text[4][400];
    static int which;
    char *t = text[which++ % 4];
    snprintf(t, sizeof text[0], "%s%s", a, b);
    return t;
}

static ttt_tensor *maybe(replay *r, const char *name) {
    for (int64_t i = 0; i < r->file.n_tensors; i++)
        if (strcmp(r->file.tensors[i].name, name) == 0) {
            r->used[i] = true;
            ttt_tensor *t = ttt_bundle_at(&r->file, i);
            return t && t->stored ? ttt_cast(r->c, t, TTT_DTYPE_INT) : t;
        }
    return NULL;
}
static ttt_tensor *need(replay *r, const char *name) {
    ttt_tensor *t = maybe(r, name);
    if (t) return t;
    fail(r, "the case has no tensor '%s'", name);
    return ttt_zeros(r->c, TTT_SHAPE(1, 1, 1, 1, 1));
}

// ---- comparing ----------------------------------------------------------------------------------
static double largest(const ttt_tensor *t) {
    double max = 0;
    for (int64_t i = 0; i < t->size; i++) max = fmax(max, fabs((double)t->data[i]));
    return max;
}

// max |a - b| / scale; infinite when anything is NaN or sizes differ
static double scaled_error(const ttt_tensor *a, const ttt_tensor *b, double scale) {
    double max = 0;
    if (a->size != b->size || !a->data || !b->data) return HUGE_VAL;
    for (int64_t i = 0; i < a->size; i++) {
        double d = fabs((double)a->data[i] - (double)b->data[i]);
        if (!(d <= max)) max = d == d ? d : HUGE_VAL;
    }
    return max == 0 ? 0 : scale > 0 ? max / scale : HUGE_VAL;
}

// The companion rule: our error against float64 <= 10 x the official code's + 1e-6. The bundle is
// read as ttt_real; its rounding to float adds half an ulp to both sides.
static void compare_exact(replay *r, const char *name, const ttt_tensor *got,
                          const ttt_tensor *official, double floor) {
    const ttt_tensor *exact = ttt_bundle_find(&r->exact, name);
    if (!exact) return;
    double scale = fmax(largest(exact), floor);
    double ours = scaled_error(got, exact, scale), theirs = scaled_error(official, exact, scale);
    if (!(ours <= 10 * theirs + 1e-6))
        fail(r, "%s: error %.2e against float64, the official code has %.2e", name, ours, theirs);
}

// The tensor of the case to compare with, or NULL: it may be missing from an extract only.
static const ttt_tensor *wanted(replay *r, const char *name) {
    const ttt_tensor *want = maybe(r, name);
    if (!want && !r->extract) fail(r, "the case has no tensor '%s'", name);
    return ttt_ok(r->c) ? want : NULL;
}

static void judge(replay *r, const char *name, double error, double tolerance) {
    if (!(error <= tolerance)) fail(r, "%s: error %.2e, %.0e allowed", name, error, tolerance);
}

static void compare_within(replay *r, int kind, const char *name, const ttt_tensor *got,
                           double floor, double tolerance) {
    const ttt_tensor *want = wanted(r, name);
    if (!want) return;
    double e = scaled_error(got, want, fmax(largest(want), floor));
    r->worst[kind] = fmax(r->worst[kind], e);
    judge(r, name, e, tolerance);
    compare_exact(r, name, got, want, floor);
}
// max |a - b| itself; no part of any E
static void compare_absolutely(replay *r, const char *name, const ttt_tensor *got,
                               double tolerance) {
    const ttt_tensor *want = wanted(r, name);
    if (want) judge(r, name, scaled_error(got, want, 1), tolerance);
}
static void compare(replay *r, int kind, const char *name, const ttt_tensor *got) {
    compare_within(r, kind, name, got, kind == KIND_GRAD ? 1e-3 * r->largest_gradient : 0,
                   r->family->tolerance[kind]);
}

// The gradient of a key bias under softmax is zero but for rounding. So it is compared with the
// largest gradient of the case, and not at all after training, where Adam would magnify the
// rounding.
static bool is_key_bias(const char *name) {
    return strstr(name, "key/bias") &&
           (strstr(name, "MultiHeadDotProduct") || strcmp(name, "key/bias") == 0);
}

static void find_largest_gradient(replay *r) {
    for (int64_t i = 0; i < r->file.n_tensors; i++) {
        if (strncmp(r->file.tensors[i].name, "grad.", 5) != 0) continue;
        const ttt_tensor *t = ttt_bundle_at(&r->file, i);
        if (t && t->data) r->largest_gradient = fmax(r->largest_gradient, largest(t));
    }
}

static void compare_gradient(replay *r, const char *name, const char *parameter,
                             const ttt_tensor *got, bool softmax) {
    if (softmax && is_key_bias(parameter))
        compare_within(r, KIND_GRAD, name, got, r->largest_gradient, 1e-5);
    else compare(r, KIND_GRAD, name, got);
}

// Fills every parameter of p from "prefix<name>". The official shapes may have an axis for the
// heads; only the number of elements must agree.
static void fill(replay *r, ttt_params *p, const char *prefix) {
    for (int i = 0; i < p->n; i++) {
        const ttt_tensor *t = need(r, join(prefix, p->item[i].name));
        if (t->size != p->value[i]->size || !t->data)
            fail(r, "%s%s has %lld numbers, the model %lld", prefix, p->item[i].name,
                 (long long)t->size, (long long)p->value[i]->size);
        else memcpy(p->value[i]->data, t->data, (size_t)t->size * sizeof(ttt_real));
    }
}

// ---- single layers ------------------------------------------------------------------------------
static ttt_mixer_desc learner_options(replay *r, ttt_real *rates) {
    ttt_mixer_desc d = { 0 };
    bool mlp = strcmp(word(r, "inner_encoder"), "mlp_2") == 0;
    d.mixer = ttt_mixer_find(mlp ? "mttt-mlp" : "mttt-linear");
    int n = numbers(r, "inner_lr", rates, MOST), asked = (int)number(r, "inner_itr");
    // The official code unrolls at most four steps, however many are asked for.
    d.inner_steps = asked < 4 ? asked : 4;
    for (; n < d.inner_steps; n++) rates[n] = rates[n - 1];
    d.inner_lrs = rates;
    d.inner_sgd = yes(r, "SGD");
    d.no_inner_bias = !yes(r, "inner_encoder_bias");
    d.no_decoder_norm = !yes(r, "decoder_LN");
    return d;
}

static void attention_options(replay *r, ttt_mixer_desc *d) {
    d->mixer = ttt_mixer_find("linear-attention");
    d->identity_map = !yes(r, "elu");
    bool constant = strcmp(word(r, "normalizer"), "constant") == 0;
    d->normalizer = constant ? TTT_NORMALIZER_CONSTANT : TTT_NORMALIZER_ADAPTIVE;
}

static ttt_tensor *first_columns(replay *r, const ttt_tensor *t, int64_t n) {
    int64_t index[4096], rows = t->shape.dim[0], columns = t->shape.dim[1];
    if (!t->index || rows * n > 4096) fail(r, "in.perm: integers, at most 4096, expected");
    for (int64_t i = 0; i < rows * n && !r->why[0]; i++)
        index[i] = t->index[i / n * columns + i % n];
    return ttt_from_int(r->c, TTT_SHAPE(rows, r->why[0] ? 0 : n), index);
}

// One mixer on in.x: outputs, and gradients of sum(y cotangent) where the case has them.
static void replay_mixer(replay *r, ttt_mixer_desc d, const char *params_prefix,
                         const char *out_prefix, bool gradients) {
    ttt_ctx *c = r->c;
    ttt_params p = { 0 };
    d.no_fused = r->way == TAPE;
    d.dim = (int64_t)number(r, "d");
    d.heads = (int64_t)number(r, "H");
    ttt_weights w = ttt_mixer_new(c, &d, &p, "");
    ttt_tensor *losses = NULL, *x = need(r, "in.x");
    if (!ttt_ok(c) || r->why[0]) return;
    fill(r, &p, params_prefix);
    if (d.inner_sgd) {
        // in.perm has a part for each step that was asked for; those that are taken come first.
        ttt_tensor *perm = need(r, "in.perm");
        int64_t part = perm->shape.dim[1] / (int64_t)number(r, "inner_itr");
        d.order = first_columns(r, perm, part * d.inner_steps);
    }
    // losses in a call of their own: a layer that is not asked for them may take a shorter way
    if (d.mixer->learner) {
        compare(r, KIND_OUT, join(out_prefix, "y"), ttt_mixer_forward(c, &d, w, x, &losses));
        compare(r, KIND_OUT, join(out_prefix, "inner_loss"), losses);
    }
    ttt_tensor *y = ttt_mixer_forward(c, &d, w, x, NULL);
    compare(r, KIND_OUT, join(out_prefix, "y"), y);
    if (!gradients || !ttt_ok(c)) return;
    maybe(r, "out.scalar");  // a canceling sum: y is judged instead
    ttt_tensor *wrt[64], *g[64];
    int n = 0;
    wrt[n++] = x;
    for (int i = 0; i < p.n; i++) wrt[n++] = p.value[i];
    ttt_grad(c, ttt_sum(c, ttt_mul(c, y, need(r, "in.cotangent"))), wrt, n, g,
             TTT_GRAD_FIRST_ORDER);
    bool softmax = d.mixer == &ttt_mixer_self_attention;
    compare(r, KIND_GRAD, "grad.in.x", g[0]);
    for (int i = 0; i < p.n; i++)
        compare_gradient(r, join("grad.param.", p.item[i].name), p.item[i].name, g[i + 1], softmax);
}

static void run_mttt_layer(replay *r) {
    ttt_real rates[MOST];
    replay_mixer(r, learner_options(r, rates), "param.", "out.", true);
}
static void run_linear_attention(replay *r) {
    ttt_mixer_desc d = { 0 };
    attention_options(r, &d);
    replay_mixer(r, d, "param.", "out.", true);
}
static void run_self_attention(replay *r) {
    ttt_mixer_desc d = { .mixer = ttt_mixer_find("self-attention") };
    replay_mixer(r, d, "param.", "out.", true);
}
static void run_equivalence(replay *r) {
    ttt_real rates[MOST];
    ttt_mixer_desc d = { 0 };
    attention_options(r, &d);
    replay_mixer(r, d, "param.linear_attention.", "out.linear_attention.", false);
    replay_mixer(r, learner_options(r, rates), "param.ttt.", "out.ttt.", false);
}

// ---- layers of the TTT language model -----------------------------------------------------------
// Parameters by both names. The official code stores matrices as (out,in), and kernels of
// convolutions as (D,1,taps): those are turned.
static const struct { const char *official, *ours; bool turned; } lm_names[] = {
    { "q_proj.weight", "q_proj/kernel", true },
    { "k_proj.weight", "k_proj/kernel", true },
    { "v_proj.weight", "v_proj/kernel", true },
    { "o_proj.weight", "o_proj/kernel", true },
    { "g_proj.weight", "g_proj/kernel", true },
    { "conv_q.weight", "conv_q/kernel", true },
    { "conv_q.bias", "conv_q/bias", false },
    { "conv_k.weight", "conv_k/kernel", true },
    { "conv_k.bias", "conv_k/bias", false },
    { "learnable_ttt_lr_weight", "learnable_ttt_lr/kernel", true },
    { "learnable_ttt_lr_bias", "learnable_ttt_lr/bias", false },
    { "learnable_token_idx", "token_index", false },
    { "ttt_norm_weight", "ttt_norm/scale", false },
    { "ttt_norm_bias", "ttt_norm/bias", false },
    { "post_norm.weight", "post_norm/scale", false },
    { "post_norm.bias", "post_norm/bias", false },
    { "W1", "inner_Dense_0/kernel", false },
    { "b1", "inner_Dense_0/bias", false },
    { "W2", "inner_Dense_1/kernel", false },
    { "b2", "inner_Dense_1/bias", false },
};
static int lm_name(replay *r, const char *ours) {
    for (int i = 0; i < (int)(sizeof lm_names / sizeof *lm_names); i++)
        if (strcmp(lm_names[i].ours, ours) == 0) return i;
    fail(r, "the official code has no parameter '%s'", ours);
    return 0;
}

static ttt_mixer_desc lm_layer_options(replay *r) {
    ttt_mixer_desc d = { .causal = true, .token_index = true, .no_fused = r->way == TAPE };
    bool mlp = strcmp(word(r, "ttt_layer_type"), "mlp") == 0;
    d.mixer = ttt_mixer_find(mlp ? "ttt-mlp" : "ttt-linear");
    d.dim = (int64_t)number(r, "hidden_size");
    d.heads = (int64_t)number(r, "num_attention_heads");
    d.chunk = (int64_t)number(r, "mini_batch_size");
    d.inner_lr = (ttt_real)number(r, "ttt_base_lr");
    d.rotary = (ttt_real)number(r, "rope_theta");
    d.share_qk = yes(r, "share_qk");
    if (d.share_qk) d.conv = (int64_t)number(r, "conv_kernel");
    d.output_gate = yes(r, "use_gate");
    return d;
}
static void fill_lm_layer(replay *r, const ttt_params *p) {
    for (int i = 0; i < p->n; i++) {
        int at = lm_name(r, p->item[i].name);
        ttt_tensor *to = p->value[i], *from = need(r, join("param.", lm_names[at].official));
        const int64_t *size = to->shape.dim;
        if (from->size != to->size) fail(r, "%s has another size", lm_names[at].official);
        else if (lm_names[at].turned)
            from = ttt_transpose(r->c, ttt_reshape(r->c, from, TTT_SHAPE(size[1], size[0])));
        if (ttt_ok(r->c) && from->size == to->size)
            memcpy(to->data, from->data, (size_t)to->size * sizeof(ttt_real));
    }
}

// What the layer's memory read and left of tokens begin .. begin+n: the official code takes all
// full mini-batches as one part, and the remainder as another.
typedef struct {
    ttt_mixer_desc d;
    ttt_tensor *in[TTT__MEMORY_INPUTS];  // those of tokens as (B,H,N,.)
    ttt_tensor *y;                       // what the memory answers (B,N,D)
} lm_memory;

static void compare_in_part(replay *r, int part, const char *name, ttt_tensor *got) {
    char full[80];
    snprintf(full, sizeof full, "out.part%d.%s", part, name);
    compare(r, KIND_OUT, full, got);
}
static void compare_lm_weights(replay *r, const lm_memory *m, int part, int64_t end) {
    ttt_ctx *c = r->c;
    ttt_tensor *first[3];
    for (int i = 0; i < 3; i++) first[i] = ttt_slice(c, m->in[i], 2, 0, end);
    ttt__memory memory = ttt__memory_of(c, &m->d, m->in + TTT__MEMORY_W0, first[0]->shape.dim[0],
                                        m->in[TTT__MEMORY_SCALE], m->in[TTT__MEMORY_SHIFT]);
    ttt__update_rule rule = { ttt_slice(c, m->in[TTT__MEMORY_RATE], 2, 0, end), NULL, NULL, true,
                              m->d.chunk, true, m->in[TTT__MEMORY_SHARE] };
    ttt__memory_run(c, &memory, &rule, first[TTT__MEMORY_Q], first[TTT__MEMORY_K],
                    ttt_sub(c, first[TTT__MEMORY_V], first[TTT__MEMORY_K]), NULL);
    if (!ttt_ok(c)) return;
    compare_in_part(r, part, "W1_states", memory.w[0]);
    compare_in_part(r, part, "b1_states", memory.b[0]);
    if (memory.layers == 1) return;
    compare_in_part(r, part, "W2_states", memory.w[1]);
    compare_in_part(r, part, "b2_states", memory.b[1]);
}
static void compare_lm_part(replay *r, const lm_memory *m, int part, int64_t begin, int64_t n) {
    static const char *const names[] = { "XQ", "XK", "XV", "ttt_lr_eta" };
    ttt_ctx *c = r->c;
    for (int i = 0; i < 4; i++)
        compare_in_part(r, part, names[i], ttt_slice(c, m->in[i], 2, begin, n));
    int64_t B = m->y->shape.dim[0], H = m->d.heads, chunk = n < m->d.chunk ? n : m->d.chunk;
    ttt_tensor *share = ttt_slice(c, m->in[TTT__MEMORY_SHARE], 1, 0, chunk);
    share = ttt_broadcast(c, ttt_reshape(c, share, TTT_SHAPE(H, 1, chunk, 1)),
                          TTT_SHAPE(B, H, n / chunk, chunk, 1));
    ttt_tensor *rate = ttt_slice(c, m->in[TTT__MEMORY_RATE], 2, begin, n);
    rate = ttt_reshape(c, rate, TTT_SHAPE(B, H, n / chunk, 1, chunk));
    compare_in_part(r, part, "token_eta", share);
    compare_in_part(r, part, "eta", ttt_mul(c, share, rate));
    compare_in_part(r, part, "inner_y", ttt_slice(c, m->y, 1, begin, n));
    compare_lm_weights(r, m, part, begin + n);
}
static void compare_lm_memory(replay *r, const ttt_mixer_desc *d, ttt_weights w, ttt_tensor *x) {
    ttt_ctx *c = r->c;
    const ttt_learner *learner = d->mixer->learner;
    lm_memory m = { .d = *d };
    ttt_tensor *row[MOST * 2] = { NULL };
    if (!ttt__by_row(c, d, d->mixer->rows, d->mixer->n_rows, &w, row) ||
        !ttt__by_row(c, d, learner->rows, learner->n_rows, &w, row + d->mixer->n_rows))
        return;
    ttt__ttt_inputs(c, d, row, x, m.in);
    m.y = ttt__whole(c, ttt__memory_answers(c, d, m.in, "", NULL));
    for (int i = 0; i <= TTT__MEMORY_RATE; i++) m.in[i] = ttt__swap_heads(c, m.in[i]);
    int64_t N = x->shape.dim[1], full = N / d->chunk * d->chunk;
    if (full > 0) compare_lm_part(r, &m, 0, 0, full);
    if (full < N) compare_lm_part(r, &m, full > 0, full, N - full);
}

static void run_lm_layer(replay *r) {
    ttt_ctx *c = r->c;
    ttt_params p = { 0 };
    ttt_mixer_desc d = lm_layer_options(r);
    ttt_weights w = ttt_mixer_new(c, &d, &p, "");
    ttt_tensor *x = need(r, "in.x"), *wrt[MOST * 2] = { x }, *g[MOST * 2];
    if (!ttt_ok(c) || r->why[0]) return;
    fill_lm_layer(r, &p);
    ttt_tensor *y = ttt_mixer_forward(c, &d, w, x, NULL);
    compare(r, KIND_OUT, "out.y", y);
    compare_lm_memory(r, &d, w, x);
    if (!ttt_ok(c)) return;
    maybe(r, "out.scalar");  // a canceling sum: y is judged instead
    for (int i = 0; i < p.n; i++) wrt[i + 1] = p.value[i];
    ttt_vjp(c, y, need(r, "in.cotangent"), wrt, p.n + 1, g, TTT_GRAD_FIRST_ORDER);
    compare(r, KIND_GRAD, "grad.in.x", g[0]);
    for (int i = 0; i < p.n && ttt_ok(c); i++) {
        int at = lm_name(r, p.item[i].name);
        compare(r, KIND_GRAD, join("grad.param.", lm_names[at].official),
                lm_names[at].turned ? ttt_transpose(c, g[i + 1]) : g[i + 1]);
    }
}

// ---- the whole model ----------------------------------------------------------------------------
typedef struct {
    ttt_params p;
    ttt_vit_desc vit;
    ttt_optimizer *opt;
    bool softmax;
} vit_model;

static bool make_vit(replay *r, vit_model *m, ttt_real *rates, bool bf16_moment) {
    ttt_vit_desc d = { .image = (int64_t)number(r, "image"),
                       .channels = need(r, "in.images")->shape.dim[4],
                       .patch = (int64_t)number(r, "patch"),
                       .width = (int64_t)number(r, "width"),
                       .depth = (int64_t)number(r, "depth"),
                       .classes = (int64_t)number(r, "num_classes"),
                       .mlp = (int64_t)number(r, "mlp_dim"),
                       .learned_positions = strcmp(word(r, "posemb"), "sincos2d") != 0 };
    const char *layer = word(r, "layer_type");
    if (strcmp(layer, "TTT") == 0) d.mixer = learner_options(r, rates);
    else if (strcmp(layer, "linear_attention") == 0) attention_options(r, &d.mixer);
    else if (strcmp(layer, "self_attention") == 0) d.mixer.mixer = ttt_mixer_find("self-attention");
    else fail(r, "unknown layer_type '%s'", layer);
    d.mixer.heads = (int64_t)number(r, "num_heads");
    d.mixer.no_fused = r->way == TAPE;
    m->softmax = strcmp(layer, "self_attention") == 0;
    m->p = (ttt_params){ 0 };
    m->vit = d;
    if (!r->why[0]) ttt_vit_new(r->c, &d, &m->p, "");
    if (r->why[0] || !ttt_ok(r->c)) return false;
    fill(r, &m->p, "param.");
    ttt_optimizer_desc o = { .rule = &ttt_rule_mttt,
                             .lr = (ttt_real)number(r, "lr"),
                             .weight_decay = (ttt_real)number(r, "wd"),
                             .beta1 = (ttt_real)number(r, "adam_b1"),
                             .beta2 = (ttt_real)number(r, "adam_b2"),
                             .eps = (ttt_real)number(r, "adam_eps"),
                             .clip = (ttt_real)number(r, "grad_clip_norm"),
                             .warmup = (int64_t)number(r, "warmup_steps"),
                             .total = (int64_t)number(r, "total_steps"),
                             .freeze_inner = strcmp(word(r, "train_init"), "false") == 0,
                             .bf16_moment = bf16_moment };
    m->opt = ttt_optimizer_new(r->c, &o, &m->p);
    return m->opt && !r->why[0];
}

// Item i along the first axis, as a tensor of its own.
static ttt_tensor *item_of(ttt_ctx *c, const ttt_tensor *t, int64_t i) {
    ttt_shape s = t->shape;
    for (int j = 1; j < s.rank; j++) s.dim[j - 1] = s.dim[j];
    s.dim[--s.rank] = 0;
    int64_t size = t->shape.dim[0] ? t->size / t->shape.dim[0] : 0;
    return t->index ? ttt_from_int(c, s, t->index + i * size) : ttt_from(c, s, t->data + i * size);
}

static ttt_tensor *vit_loss(replay *r, vit_model *m, int64_t step, ttt_vit_call *call,
                            ttt_tensor **logits) {
    ttt_ctx *c = r->c;
    ttt_tensor *perm = maybe(r, "in.perm"), *labels = item_of(c, need(r, "in.labels"), step);
    call->order = perm ? item_of(c, perm, step) : NULL;
    ttt_tensor *images = item_of(c, need(r, "in.images"), step);
    *logits = ttt_vit_forward(c, &m->vit, ttt_params_weights(&m->p), images, call);
    bool sigmoid = strcmp(word(r, "loss"), "sigmoid_xent") == 0;
    return (sigmoid ? ttt_binary_cross_entropy : ttt_cross_entropy)(c, *logits, labels);
}

// The layers' losses (depth,T+1) of a call, into `to`.
static void put_losses(const vit_model *m, const ttt_vit_call *call, ttt_real *to) {
    for (int64_t l = 0; l < m->vit.depth; l++)
        for (int64_t t = 0; t < call->losses[l]->size; t++) *to++ = call->losses[l]->data[t];
}

static void replay_gradients(replay *r, vit_model *m) {
    ttt_ctx *c = r->c;
    bool learns = m->vit.mixer.mixer->learner != NULL;
    ttt_vit_call call = { .want_losses = learns };
    ttt_tensor *logits, *wrt[512], *g[512], *loss = vit_loss(r, m, 0, &call, &logits);
    if (!ttt_ok(c)) return;
    compare(r, KIND_OUT, "out.logits", logits);
    compare(r, KIND_OUT, "out.loss", loss);
    if (learns) {
        ttt_tensor *inner = ttt_new(c, TTT_SHAPE(m->vit.depth, m->vit.mixer.inner_steps + 1));
        put_losses(m, &call, inner->data);
        compare(r, KIND_OUT, "out.inner_loss", inner);
    }
    for (int i = 0; i < m->p.n; i++) wrt[i] = m->p.value[i];
    ttt_grad(c, loss, wrt, m->p.n, g, TTT_GRAD_FIRST_ORDER);
    for (int i = 0; i < m->p.n; i++)
        compare_gradient(r, join("grad.param.", m->p.item[i].name), m->p.item[i].name, g[i],
                         m->softmax);
}

// Twelve updates: losses, norms, inner losses, schedule on the way, and the weights at the end.
static void replay_training(replay *r, vit_model *m, bool bf16) {
    ttt_ctx *c = r->c;
    int64_t steps = need(r, "in.images")->shape.dim[0], depth = m->vit.depth;
    int64_t T1 = m->vit.mixer.inner_steps + 1;
    bool learns = m->vit.mixer.mixer->learner != NULL;
    ttt_tensor *losses = ttt_zeros(c, TTT_SHAPE(steps)), *norms = ttt_zeros(c, TTT_SHAPE(steps));
    ttt_tensor *schedule = ttt_zeros(c, TTT_SHAPE(steps));
    ttt_tensor *inner = ttt_zeros(c, TTT_SHAPE(steps, depth, T1));
    for (int64_t k = 0; k < steps && ttt_ok(c); k++) {
        ttt_mark mark = ttt_mark_get(c);
        ttt_vit_call call = { .want_losses = learns };
        ttt_tensor *logits, *loss = vit_loss(r, m, k, &call, &logits);
        schedule->data[k] = (ttt_real)ttt_schedule(&m->opt->desc, k);
        ttt_optimizer_step(c, m->opt, loss);
        if (!ttt_ok(c)) return;
        losses->data[k] = ttt_item(loss);
        norms->data[k] = (ttt_real)m->opt->grad_norm;
        if (learns) put_losses(m, &call, inner->data + k * depth * T1);
        ttt_mark_release(c, mark);
    }
    if (bf16) {  // loss within 1e-4, weights within 2e-4: see the quirk in ttt_model.h
        compare_absolutely(r, "out.traj_loss_bf16mu", losses, 1e-4);
    } else {
        compare(r, KIND_TRAJ, "out.traj_loss", losses);
        compare(r, KIND_TRAJ, "out.traj_grad_norm", norms);
        compare(r, KIND_TRAJ, "out.schedule", schedule);
        if (learns) compare(r, KIND_TRAJ, "out.traj_inner_loss", inner);
    }
    for (int i = 0; i < m->p.n; i++) {
        const char *name = join(bf16 ? "final_bf16mu.param." : "final.param.", m->p.item[i].name);
        if (bf16 && !maybe(r, name)) continue;  // stored for some cases only
        if (m->softmax && is_key_bias(m->p.item[i].name)) maybe(r, name);
        else if (bf16) compare_absolutely(r, name, m->p.value[i], 2e-4);
        else compare(r, KIND_FINAL, name, m->p.value[i]);
    }
}

static void run_vit(replay *r) {
    ttt_real rates[MOST];
    vit_model m;
    // Gradients at the start; training; training with a bfloat16 moment.
    for (int pass = 0; pass < 3 && ttt_ok(r->c); pass++) {
        if (pass == 2 && !maybe(r, "out.traj_loss_bf16mu")) break;
        if (!make_vit(r, &m, rates, pass == 2)) return;
        if (pass == 0) replay_gradients(r, &m);
        else replay_training(r, &m, pass == 2);
    }
}

// ---- meta-learning ------------------------------------------------------------------------------
static activation *activation_of(replay *r) {
    static const struct { const char *name; activation *f; } all[] = {
        { "tanh", ttt_tanh }, { "relu", ttt_relu }, { "silu", ttt_silu }, { "swish", ttt_silu },
        { "gelu_erf", ttt_gelu_erf }, { "gelu_exact", ttt_gelu_erf },
        { "gelu_tanh", ttt_gelu }, { "gelu", ttt_gelu },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].name, word(r, "activation")) == 0) return all[i].f;
    fail(r, "unknown activation '%s'", word(r, "activation"));
    return ttt_tanh;
}

static ttt_weights read_weights(replay *r, const char *prefix, const char *const *names,
                                ttt_tensor **at) {
    ttt_weights w = { at, 0 };
    for (; names[w.n]; w.n++) at[w.n] = need(r, join(prefix, names[w.n]));
    return w;
}

static ttt_tensor *cross_entropy(replay *r, ttt_tensor *logits, ttt_tensor *labels) {
    int64_t classes = logits->shape.rank == 2 ? logits->shape.dim[1] : 1;
    return ttt_cross_entropy(r->c, logits, ttt_one_hot(r->c, labels, classes));
}

// Stacks T tensors of the same shape along a new first axis, without a tape.
static ttt_tensor *stack(ttt_ctx *c, ttt_tensor *const *t, int n) {
    ttt_shape s = t[0]->shape;
    for (int i = s.rank++; i > 0; i--) s.dim[i] = s.dim[i - 1];
    s.dim[0] = n;
    ttt_tensor *y = ttt_new(c, s);
    for (int i = 0; i < n && ttt_ok(c); i++)
        memcpy(y->data + i * t[0]->size, t[i]->data, (size_t)t[0]->size * sizeof(ttt_real));
    return y;
}

// In each task a copy of the network takes K steps on the support set; the loss is the mean over
// tasks of the adapted copies' losses on the query sets.                               [MAML, (b5)]
static void run_maml(replay *r) {
    static const char *const names[] = { "W1", "b1", "W2", "b2", NULL };
    enum { TASKS = 32 };
    ttt_ctx *c = r->c;
    int tasks = (int)number(r, "tasks"), K = (int)number(r, "inner_steps");
    bool first_order = yes(r, "first_order");
    activation *f = activation_of(r);
    ttt_tensor *start_at[MOST], *lr_at[MOST];
    ttt_weights start = read_weights(r, "param.", names, start_at);
    ttt_weights lr = read_weights(r, "lr.", names, lr_at);
    ttt_descent step = { .rates = lr.at, .first_order = first_order };
    ttt_tensor *support = need(r, "in.support_x"), *sy = need(r, "in.support_y");
    ttt_tensor *query = need(r, "in.query_x"), *qy = need(r, "in.query_y");
    ttt_tensor *loss = ttt_scalar(c, 0), *task_loss[TASKS], *logits[TASKS], *inner[TASKS];
    ttt_tensor *adapted[MOST][TASKS], *one[TASKS];
    if (r->why[0] || tasks > TASKS || K > TASKS) {
        fail(r, "more than %d tasks or steps", TASKS);
        return;
    }
    for (int t = 0; t < tasks; t++) {
        ttt_weights w = start;
        int64_t S = support->shape.dim[1], Q = query->shape.dim[1], D = support->shape.dim[2];
        ttt_tensor *x = ttt_reshape(c, ttt_slice(c, support, 0, t, 1), TTT_SHAPE(S, D));
        ttt_tensor *xq = ttt_reshape(c, ttt_slice(c, query, 0, t, 1), TTT_SHAPE(Q, D));
        for (int k = 0; k < K; k++) {
            one[k] = cross_entropy(r, two_layers(c, f, w, 0, x), item_of(c, sy, t));
            w = ttt_descend(c, &step, w, one[k], NULL);
        }
        inner[t] = stack(c, one, K);
        logits[t] = two_layers(c, f, w, 0, xq);
        task_loss[t] = cross_entropy(r, logits[t], item_of(c, qy, t));
        loss = ttt_add(c, loss, ttt_scale(c, task_loss[t], 1 / (ttt_real)tasks));
        for (int i = 0; i < w.n; i++) adapted[i][t] = w.at[i];
        if (!ttt_ok(c)) return;
    }
    compare(r, KIND_OUT, "out.loss", loss);
    compare(r, KIND_OUT, "out.task_loss", stack(c, task_loss, tasks));
    compare(r, KIND_OUT, "out.query_logits", stack(c, logits, tasks));
    compare(r, KIND_OUT, "out.inner_loss", stack(c, inner, tasks));
    for (int i = 0; i < start.n; i++)
        compare(r, KIND_OUT, join("out.adapted.", names[i]), stack(c, adapted[i], tasks));
    ttt_tensor *wrt[2 * MOST + 2], *g[2 * MOST + 2];
    int n = 0;
    for (int i = 0; i < start.n; i++) wrt[n++] = start.at[i];
    for (int i = 0; i < lr.n; i++) wrt[n++] = lr.at[i];
    wrt[n++] = support;
    wrt[n++] = query;
    ttt_grad(c, loss, wrt, n, g, TTT_GRAD_FIRST_ORDER);
    for (int i = 0; i < start.n; i++) compare(r, KIND_GRAD, join("grad.param.", names[i]), g[i]);
    for (int i = 0; i < lr.n; i++)
        compare(r, KIND_GRAD, join("grad.lr.", names[i]), g[start.n + i]);
    compare(r, KIND_GRAD, "grad.in.support_x", g[n - 2]);
    compare(r, KIND_GRAD, "grad.in.query_x", g[n - 1]);
}

static ttt_tensor *agreement(replay *r, activation *f, ttt_weights w, ttt_tensor *const *views) {
    ttt_real eps = (ttt_real)number(r, "norm_eps");
    ttt_tensor *target[2] = { byol_target(r->c, f, w, views[0], eps),
                              byol_target(r->c, f, w, views[1], eps) };
    return byol_loss(r->c, f, w, views, target, eps);
}

// All weights take steps on the BYOL loss of two views; the outer loss is the adapted classifier's.
static void run_byol(replay *r) {
    static const char *const names[] = { "enc1.W", "enc1.b", "enc2.W", "enc2.b",
                                         "proj.W", "proj.b", "pred1.W", "pred1.b",
                                         "pred2.W", "pred2.b", "cls.W", "cls.b", NULL };
    ttt_ctx *c = r->c;
    int K = (int)number(r, "inner_steps");
    ttt_real rates[MOST];
    int n_rates = numbers(r, "inner_lr", rates, MOST);
    activation *f = activation_of(r);
    ttt_tensor *start_at[MOST];
    ttt_weights start = read_weights(r, "param.", names, start_at), w = start;
    ttt_tensor *x = need(r, "in.x"), *views[2] = { need(r, "in.x1"), need(r, "in.x2") },
               *inner[MOST];
    if (r->why[0] || K + 1 > MOST) { fail(r, "more than %d steps", MOST - 1); return; }
    for (int k = 0; k < K; k++) {
        ttt_descent step = { .rate = rates[k < n_rates ? k : n_rates - 1] };
        inner[k] = agreement(r, f, w, views);
        w = ttt_descend(c, &step, w, inner[k], NULL);
    }
    inner[K] = agreement(r, f, w, views);
    ttt_tensor *logits = byol_classify(c, f, w, x),
               *loss = cross_entropy(r, logits, need(r, "in.y"));
    if (!ttt_ok(c)) return;
    compare(r, KIND_OUT, "out.loss", loss);
    compare(r, KIND_OUT, "out.logits", logits);
    compare(r, KIND_OUT, "out.inner_loss", stack(c, inner, K + 1));
    for (int i = 0; i < w.n; i++) compare(r, KIND_OUT, join("out.adapted.", names[i]), w.at[i]);
    ttt_tensor *wrt[MOST + 3], *g[MOST + 3];
    for (int i = 0; i < start.n; i++) wrt[i] = start.at[i];
    wrt[start.n] = x;
    wrt[start.n + 1] = views[0];
    wrt[start.n + 2] = views[1];
    ttt_grad(c, loss, wrt, start.n + 3, g, TTT_GRAD_FIRST_ORDER);
    for (int i = 0; i < start.n; i++) compare(r, KIND_GRAD, join("grad.param.", names[i]), g[i]);
    compare(r, KIND_GRAD, "grad.in.x", g[start.n]);
    compare(r, KIND_GRAD, "grad.in.x1", g[start.n + 1]);
    compare(r, KIND_GRAD, "grad.in.x2", g[start.n + 2]);
}

// ---- the TTT language model ---------------------------------------------------------------------
// The weights are the folder of the case.
static void open_lm(replay *r, ttt_lm_desc *d, ttt_params *p) {
    char folder[2000];
    ttt_lm_folder told = { 0 };
    snprintf(folder, sizeof folder, "%s", r->path);
    char *end = strrchr(folder, '/');
    if (end) *end = 0;
    ttt_lm_read(r->c, end ? folder : ".", d, p, &told);
    d->mixer.no_fused = r->way == TAPE;
    for (int i = 0; i < told.n_left; i++) fail(r, "left over: %s", told.left[i]);
}
static void replay_lm_gradients(replay *r, const ttt_lm_desc *d, const ttt_params *p) {
    ttt_ctx *c = r->c;
    ttt_lm_call call = { .want_hidden = true };
    ttt_tensor *tokens = need(r, "in.input_ids"), *g[512];
    ttt_tensor *logits = ttt_lm_forward(c, d, ttt_params_weights(p), tokens, &call);
    ttt_tensor *loss = ttt_lm_loss(c, logits, tokens);
    if (!ttt_ok(c)) return;
    compare(r, KIND_OUT, "out.logits", logits);
    compare(r, KIND_OUT, "out.loss", loss);
    compare(r, KIND_OUT, "out.hidden_states", stack(c, call.hidden, (int)d->depth + 1));
    ttt_grad(c, loss, p->value, p->n, g, TTT_GRAD_FIRST_ORDER);
    for (int i = 0; i < p->n && ttt_ok(c); i++) {
        ttt__filed row;
        const char *name = ttt__filed_name(c, p->item[i].name, TTT__PYTORCH, &row);
        compare(r, KIND_GRAD, join("grad.param.", name), ttt__filed_tensor(c, &row, g[i]));
    }
}
// The official cache of layer i (B,d,taps) has the last `taps` inputs of a convolution; ours the
// taps - 1 of them (B,taps - 1,d) that it still needs.
static void compare_lm_conv(replay *r, const ttt_stream *stream, int64_t i, const char *official,
                            const char *ours) {
    ttt_tensor *kept = NULL;
    char name[200];
    for (int k = 0; k < stream->state.n; k++) {
        snprintf(name, sizeof name, "model/layers/%d/%s", (int)i, ours);
        if (strcmp(stream->state.item[k].name, name) == 0) kept = stream->state.value[k];
    }
    snprintf(name, sizeof name, "out.cache.%d.conv.%s", (int)i, official);
    ttt_tensor *want = need(r, name);
    if (!kept || !ttt_ok(r->c) || want->shape.rank != 3) {
        fail(r, "%s: the stream has no state %s", name, ours);
        return;
    }
    want = ttt_slice(r->c, want, 2, 1, kept->shape.dim[1]);
    double e = scaled_error(ttt_transpose(r->c, kept), want, largest(want));
    r->worst[KIND_OUT] = fmax(r->worst[KIND_OUT], e);
    judge(r, name, e, r->family->tolerance[KIND_OUT]);
}
static void compare_lm_cache(replay *r, const ttt_lm_desc *d, ttt_weights w,
                             const ttt_stream *stream) {
    static const char *const names[4] = { "W1", "b1", "W2", "b2" };
    int rows = d->mixer.mixer->learner->n_rows, mixer_rows = ttt_mixer_count(&d->mixer);
    int block = (w.n - 2 - !d->tied) / (int)d->depth, skip = d->pre_conv ? 4 : 1;
    ttt_mixer_desc mixer = d->mixer;
    mixer.dim = d->width;
    for (int i = 0; i < (int)d->depth && ttt_ok(r->c); i++) {
        ttt_weights part = { w.at + 1 + i * block + skip, mixer_rows };
        ttt_tensor *value[4], *gradient[4];
        char prefix[100], name[100];
        snprintf(prefix, sizeof prefix, "model/layers/%d/seq_modeling_block", i);
        ttt_stream_learner(r->c, &mixer, part, stream, prefix, value, gradient);
        for (int k = 0; k < rows && ttt_ok(r->c); k++) {
            snprintf(name, sizeof name, "out.cache.%d.%s_states", i, names[k]);
            compare(r, KIND_OUT, name, value[k]);
            snprintf(name, sizeof name, "out.cache.%d.%s_grad", i, names[k]);
            compare(r, KIND_OUT, name, gradient[k]);
        }
        if (d->pre_conv) compare_lm_conv(r, stream, i, "pre_conv", "conv");
        if (!d->mixer.share_qk) continue;
        compare_lm_conv(r, stream, i, "ttt_conv_q", "seq_modeling_block/conv");
        compare_lm_conv(r, stream, i, "ttt_conv_k", "seq_modeling_block/conv");
    }
}
// The prompt, then token by token, each the likeliest.
static void replay_lm_stream(replay *r, const ttt_lm_desc *d, const ttt_params *p) {
    enum { NEW = 40 };
    ttt_ctx *c = r->c;
    ttt_weights w = ttt_params_weights(p);
    ttt_stream stream = { 0 };
    ttt_tensor *prompt = need(r, "in.prompt_ids"), *want = need(r, "out.generated"), *at[NEW];
    ttt_tensor *y = ttt_lm_stream(c, d, w, &stream, prompt, NULL, false);
    if (!ttt_ok(c) || want->shape.dim[1] != NEW || r->why[0]) return;
    int64_t B = prompt->shape.dim[0], P = prompt->shape.dim[1];
    compare(r, KIND_OUT, "out.prefill_logits", y);
    at[0] = ttt_reshape(c, ttt_slice(c, y, 1, P - 1, 1), TTT_SHAPE(B, d->vocab));
    for (int t = 0; t < NEW && ttt_ok(c); t++) {
        ttt_tensor *token = ttt_argmax(c, at[t], 1);
        for (int64_t b = 0; b < B; b++)
            if (token->index[b] != want->index[b * NEW + t])
                fail(r, "token %d of sequence %d is %d; %d expected", t, (int)b,
                     (int)token->index[b], (int)want->index[b * NEW + t]);
        if (t + 1 == NEW) break;
        token = ttt_from_int(c, TTT_SHAPE(B, 1), token->index);
        y = ttt_lm_stream(c, d, w, &stream, token, NULL, true);
        at[t + 1] = ttt_reshape(c, y, TTT_SHAPE(B, d->vocab));
    }
    if (!ttt_ok(c)) return;
    static const int order[3] = { 1, 0, 2 };
    compare(r, KIND_OUT, "out.decode_logits", ttt_permute(c, stack(c, at, NEW), order));
    compare_lm_cache(r, d, w, &stream);
    maybe(r, "out.decode_margin");  // how far ahead each token is: says that no rounding decides
}
static void run_ttt_lm(replay *r) {
    ttt_lm_desc d;
    ttt_params p;
    open_lm(r, &d, &p);
    if (!ttt_ok(r->c)) return;
    replay_lm_gradients(r, &d, &p);
    d.mixer.no_fused = false;  // of streams there is one form
    replay_lm_stream(r, &d, &p);
}

// ---- all cases ----------------------------------------------------------------------------------
static const family families[] = {  // tolerances: out, grad, traj, final
    { "mttt_layer", "mttt.TTTLayer", run_mttt_layer, true, { 1e-5, 1e-4, 0, 0 } },
    { "attn", "mttt.LinearAttention", run_linear_attention, true, { 5e-6, 2e-5, 0, 0 } },
    { "attn", "flax.MultiHeadDotProductAttention", run_self_attention, true, { 5e-6, 2e-5, 0, 0 } },
    { "attn", "equivalence TTT-Linear", run_equivalence, true, { 5e-6, 0, 0, 0 } },
    { "vit", "mttt.Model", run_vit, true, { 1e-5, 5e-5, 5e-5, 5e-5 } },
    { "meta", "MAML", run_maml, false, { 5e-6, 5e-5, 0, 0 } },
    { "meta", "BYOL", run_byol, false, { 5e-6, 5e-5, 0, 0 } },
    { "ttt_lm", "ttt-lm-pytorch TTTForCausalLM", run_ttt_lm, true, { 1e-5, 5e-5, 0, 0 } },
    { "ttt_lm_layer", "ttt-lm-pytorch TTT", run_lm_layer, true, { 1e-5, 2e-5, 0, 0 } },
};

static const family *family_of(const char *text) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strncmp(text, families[i].begins, strlen(families[i].begins)) == 0) return &families[i];
    return NULL;
}

static void print_line(const replay *r, const char *family, const char *name, const char *path,
                       const char *isa, const char *verdict) {
    printf("%s %s %s %s", family, name, path, isa);
    for (int k = 0; k < KINDS; k++) {
        if (r && r->worst[k] >= 0) printf(" %s=%.1e", kind_name[k], r->worst[k]);
        else printf(" %s=-", kind_name[k]);
    }
    printf(" %s\n", verdict);
    if (r && r->why[0]) printf("  %s\n", r->why);
}

static void load_companion(replay *r, const char *path) {
    char other[2000];
    size_t n = strlen(path), tail = strlen(".safetensors");
    if (n <= tail || n > sizeof other - 8) return;
    snprintf(other, sizeof other, "%.*s.f64.safetensors", (int)(n - tail), path);
    FILE *f = fopen(other, "rb");
    if (!f) return;
    fclose(f);
    ttt_safetensors_read(r->c, other, &r->exact);
}

// One case with one way of computing on one instruction set. Returns whether it passed.
static bool replay_once(const char *path, const char *isa, int way) {
    ttt_desc desc = { .isa = isa, .seed = 1, .threads = TTT_ALL_THREADS };
    replay r = { .way = way, .path = path, .c = ttt_open(&desc), .worst = { -1, -1, -1, -1 } };
    ttt_safetensors_read(r.c, path, &r.file);
    load_companion(&r, path);
    r.used = calloc((size_t)r.file.n_tensors + 1, sizeof *r.used);
    r.family = family_of(word(&r, "family"));
    r.extract = *word(&r, "extract") != 0;
    find_largest_gradient(&r);
    if (ttt_ok(r.c)) r.family->run(&r);
    if (!ttt_ok(r.c)) fail(&r, "%s", ttt_error(r.c));
    for (int64_t i = 0; i < r.file.n_tensors; i++)
        if (!r.used[i]) fail(&r, "nothing looked at the tensor '%s'", r.file.tensors[i].name);
    if (r.worst[KIND_OUT] < 0 && r.worst[KIND_TRAJ] < 0) fail(&r, "nothing was compared");
    print_line(&r, r.family->name, *word(&r, "case") ? word(&r, "case") : path, way_name[way], isa,
               r.why[0] ? "FAIL" : "pass");
    bool passed = !r.why[0];
    free(r.used);
    ttt_close(r.c);
    return passed;
}

enum { PASSED, FAILED, SKIPPED, NOT_A_CASE };
static int replay_case(const char *path) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_bundle b;
    char text[300], name[2000];
    ttt_safetensors_read(c, path, &b);
    if (!ttt_ok(c)) printf("- %s - - out=- grad=- traj=- final=- FAIL\n  %s\n", path, ttt_error(c));
    bool readable = ttt_ok(c);
    const char *family_note = readable ? ttt_bundle_note(&b, "family") : NULL;
    const char *case_note = readable ? ttt_bundle_note(&b, "case") : NULL;
    snprintf(text, sizeof text, "%s", family_note ? family_note : "");
    snprintf(name, sizeof name, "%s", case_note ? case_note : path);
    ttt_close(c);
    if (!readable) return FAILED;
    if (!*text) return NOT_A_CASE;
    const family *f = family_of(text);
    if (!f) {
        print_line(NULL, "-", name, "-", "-", "FAIL");
        printf("  unknown family '%s'\n", text);
        return FAILED;
    }
    if (!f->run) {
        print_line(NULL, f->name, name, "-", "-", "skip");
        return SKIPPED;
    }
    bool passed = true;
    for (int way = TAPE; way <= (f->fused ? FUSED : TAPE); way++)
        for (int i = 0; ttt_isa_name(i); i++)
            passed = replay_once(path, ttt_isa_name(i), way) && passed;
    return passed ? PASSED : FAILED;
}

int main(void) {
    char path[2000];
    int count[4] = { 0 };
    while (fgets(path, sizeof path, stdin)) {
        path[strcspn(path, "\r\n")] = 0;
        if (*path) count[replay_case(path)]++;
        fflush(stdout);
    }
    printf("%d passed, %d failed, %d skipped\n", count[PASSED], count[FAILED], count[SKIPPED]);
    return count[FAILED] > 0 || count[PASSED] + count[SKIPPED] == 0;
}
