/*  ttt_model.h - v0.1.0 - models made of layers that learn at test time, and their training.

    DO THIS
        #define TTT_IMPLEMENTATION      // in exactly one C or C++ file, before the include
        #include "ttt_model.h"          // includes ttt_layers.h and ttt_tensor.h, which lie beside it
    and compile with  cc -O2 file.c -lm .  Everywhere else just include it.

    AN EXAMPLE: one training step of a vision transformer whose token mixers are MLPs that learn
        ttt_params p = { 0 };
        ttt_vit_desc d = { 0 };
        d.image = 28; d.channels = 1; d.patch = 4; d.width = 48; d.depth = 2; d.classes = 10;
        d.mixer.mixer = ttt_mixer_find("mttt-mlp"); d.mixer.heads = 3; d.mixer.inner_lr = 1;
        ttt_vit *vit = ttt_vit_new(c, &d, &p);
        ttt_optimizer_desc o = { 0 };
        o.lr = 2e-3f; o.weight_decay = 0.05f; o.warmup = 100; o.total = 2000;
        ttt_optimizer *opt = ttt_optimizer_new(c, &p, &o);

        ttt_mark m = ttt_mark_get(c);                                   // all below is this step's
        ttt_tensor *logits = ttt_vit_forward(c, vit, images, NULL);     // (B,28,28,1) -> (B,10)
        ttt_tensor *loss = ttt_cross_entropy(c, logits, ttt_one_hot(c, labels, 10));
        ttt_optimizer_step(c, opt, loss);                               // gradient, schedule, update
        ttt_mark_release(c, m);

    INDEX
        [1] LOSSES        softmax and sigmoid cross-entropy, accuracy, mixup
        [2] VIT           the vision transformer of the MTTT paper
        [3] OPTIMIZERS    Adam, AdamW, momentum, the chain of MTTT; clipping, warm-up, cosine
        [4] CHECKPOINTS   parameters and everything needed to go on as if never stopped
        and below TTT_MODEL_IMPLEMENTATION the same again, forwards.
*/
#ifndef TTT_MODEL_H
#define TTT_MODEL_H

#include "ttt_layers.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- [1] LOSSES ----------------------------------------------------------------------------------
// labels: integers (B) in 0..classes-1 -> (B,classes), 1 at the label. TTT_ERR_ARGUMENT outside.
TTT_API ttt_tensor *ttt_one_hot(ttt_ctx *c, ttt_tensor *labels, int64_t classes);
// logits (B,C), target (B,C), soft or one-hot -> ():  mean over B of - sum_c target log softmax(logits)
TTT_API ttt_tensor *ttt_cross_entropy(ttt_ctx *c, ttt_tensor *logits, ttt_tensor *target);
// the same with C separate yes/no questions:
//   mean over B of - sum_c target log sigmoid(logits) + (1 - target) log sigmoid(-logits)
TTT_API ttt_tensor *ttt_binary_cross_entropy(ttt_ctx *c, ttt_tensor *logits, ttt_tensor *target);
// How many of (B,C) have their largest logit at the label, the first of several equal ones counting as
// the largest. A row with NaN counts as wrong.
TTT_API int64_t ttt_count_correct(const ttt_tensor *logits, const ttt_tensor *labels);
// Mixup as in MTTT's recipe: a = max of a Dirichlet(p,p) pair, one for the batch; x becomes
// a x + (1 - a) x rolled by one, and the target likewise. In place; p = 0 leaves them.  [Zhang 2018]
TTT_API void ttt_mixup(ttt_rng *r, double p, ttt_tensor *x, ttt_tensor *target);

// ---- [2] VIT -------------------------------------------------------------------------------------
// patches -> + positions, behind the global tokens if there are any -> depth blocks of  x += mixer(LN x);  x += MLP(LN x)  -> LN -> mean over
// tokens -> tanh(dense) -> dense.   [Beyer 2022; the model of arXiv 2310.13807], with flax's names.
typedef struct ttt_vit_desc {
    int64_t image, channels, patch;  // required; square images, patch divides image
    int64_t width, depth, classes;   // required
    int64_t mlp;                     // hidden width of the block's MLP; 0: 4 width
    bool learned_positions;          // else the fixed sine and cosine code, which needs width % 4 == 0
    ttt_mixer_desc mixer;            // .dim is set from width; .grid_rows, .grid_cols and .max_tokens from the
                                     // image if they are 0. Its .globals are learned tokens before the patches
    bool remat;                      // blocks keep only their input and are computed again for gradients
} ttt_vit_desc;

typedef struct ttt_vit_block {
    ttt_tensor **norm_0, **mixer, **norm_1, **mlp;  // each layer's parameters
} ttt_vit_block;
typedef struct ttt_vit {
    ttt_vit_desc desc;
    int64_t tokens;
    ttt_tensor **embedding, *positions, *globals, **encoder_norm, **pre_logits, **head;
    ttt_vit_block *block;
} ttt_vit;

// What one forward pass may be given or asked for beside its images; NULL for nothing.
typedef struct ttt_vit_call {
    ttt_tensor *order;    // integers (depth,H,N): token order of every layer's mini-batches
    bool want_losses;     // then
    ttt_tensor **losses;  // receives depth pointers, each (T+1); NULL where nothing is learned inside
} ttt_vit_call;

TTT_API ttt_vit *ttt_vit_new(ttt_ctx *c, const ttt_vit_desc *d, ttt_params *p);  // NULL after an error
// images (B,image,image,channels) -> logits (B,classes)
TTT_API ttt_tensor *ttt_vit_forward(ttt_ctx *c, const ttt_vit *v, ttt_tensor *images, ttt_vit_call *call);
TTT_API double ttt_vit_flops(const ttt_vit *v);  // forward pass of one image

// ---- [3] OPTIMIZERS ------------------------------------------------------------------------------
// With the gradient g clipped to global norm `clip`, u the rule's direction, k the number of the
// update from 0, and the schedule
//   s(k) = min(1, k / warmup) (1 + cos(pi clamp((k - warmup) / (total - warmup), 0, 1))) / 2 :
//   TTT_RULE_ADAMW     p -= s lr (u + wd p)       u = m^ / (sqrt v^ + eps)      [Loshchilov 2019]
//   TTT_RULE_ADAM      p -= s lr u                with g + wd p in place of g   [Kingma 2015]
//   TTT_RULE_MOMENTUM  p -= s lr m                m = momentum m + g + wd p
//   TTT_RULE_MTTT      p -= s (lr u + wd p)       the optax chain of the official code: decay is not
//                                            multiplied by the rate
// Decay reaches only parameters whose table says so. Note s(0) = 0 when there is warm-up.
typedef enum ttt_rule { TTT_RULE_ADAMW, TTT_RULE_ADAM, TTT_RULE_MOMENTUM, TTT_RULE_MTTT } ttt_rule;

typedef struct ttt_optimizer_desc {
    ttt_rule rule;
    ttt_real lr;                   // required
    ttt_real weight_decay;
    ttt_real beta1, beta2, eps;    // 0: 0.9, 0.999, 1e-8
    ttt_real momentum;
    ttt_real clip;                 // 0: no clipping
    int64_t warmup, total;         // in updates; total 0: no cosine
    int accumulate;                // steps whose gradients are averaged for one update; 0: 1
    bool freeze_inner;             // W0 stays as it is: no update, not in the clip norm
    bool bf16_moment;              // first moment stored in bfloat16, as MTTT's configurations do
} ttt_optimizer_desc;

typedef struct ttt_optimizer {
    ttt_optimizer_desc desc;
    ttt_params *params;
    int n;                     // parameters that are trained
    ttt_param **param;     // these, with for each
    ttt_tensor **value, **grad, **m, **v;
    int64_t updates;           // done
    int64_t skipped;           // left out because the gradient was not finite
    int gathered;              // steps since the last update
    double grad_norm;          // of the last update, before clipping
} ttt_optimizer;

TTT_API ttt_optimizer *ttt_optimizer_new(ttt_ctx *c, ttt_params *p, const ttt_optimizer_desc *d);  // NULL after an error
// Adds d loss / d parameters to what was gathered; every `accumulate` steps, one update.
TTT_API ttt_result ttt_optimizer_step(ttt_ctx *c, ttt_optimizer *o, ttt_tensor *loss);
TTT_API double ttt_schedule(const ttt_optimizer_desc *d, int64_t k);  // s(k)

// ---- [4] CHECKPOINTS -----------------------------------------------------------------------------
#ifndef TTT_NO_STDIO
// Writes parameters by name, the optimizer's moments and counts if o is not NULL, the context's random
// state, and the caller's notes (epoch, position in the data, ...).
TTT_API ttt_result ttt_checkpoint_save(ttt_ctx *c, const char *path, const ttt_params *p, const ttt_optimizer *o,
                                       const ttt_note *notes, int64_t n_notes);
// Reads them back into p, o (if not NULL) and the context; everything must be there in the right shape,
// and nothing is changed otherwise. The file stays in *file (step arena), for its notes.
TTT_API ttt_result ttt_checkpoint_load(ttt_ctx *c, const char *path, ttt_params *p, ttt_optimizer *o, ttt_bundle *file);
#endif

#ifdef __cplusplus
}
#endif
#endif  // TTT_MODEL_H

// ==================================================================================================
#if defined(TTT_MODEL_IMPLEMENTATION) || defined(TTT_IMPLEMENTATION)
#ifndef TTT_MODEL_IMPLEMENTED
#define TTT_MODEL_IMPLEMENTED

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- [1] LOSSES ----------------------------------------------------------------------------------
ttt_tensor *ttt_one_hot(ttt_ctx *c, ttt_tensor *labels, int64_t classes) {
    ttt_tensor *t = ttt_zeros(c, TTT_SHAPE(labels->size, classes));
    for (int64_t i = 0; ttt_ok(c) && i < labels->size; i++) {
        int64_t label = labels->index ? labels->index[i] : -1;
        if (label < 0 || label >= classes)
            return ttt_fail(c, TTT_ERR_ARGUMENT, "one_hot: label %lld at place %lld; integers 0..%lld expected", (long long)label, (long long)i, (long long)(classes - 1));
        t->data[i * classes + label] = 1;
    }
    return t;
}

static bool ttt__same_shape(ttt_ctx *c, const char *what, const ttt_tensor *a, const ttt_tensor *b) {
    ttt_text ta, tb;
    if (ttt_ok(c) && (a->shape.rank != 2 || !ttt_shape_equal(a->shape, b->shape)))
        ttt_fail(c, TTT_ERR_SHAPE, "%s: logits %s, target %s; (B,C) both expected", what, ttt_shape_text(a->shape, ta), ttt_shape_text(b->shape, tb));
    return ttt_ok(c);
}

ttt_tensor *ttt_cross_entropy(ttt_ctx *c, ttt_tensor *logits, ttt_tensor *target) {
    if (!ttt__same_shape(c, "cross_entropy", logits, target)) return ttt_detach(c, logits);
    ttt_tensor *sum = ttt_sum(c, ttt_mul(c, target, ttt_log_softmax(c, logits)));
    return ttt_scale(c, sum, -1 / (ttt_real)logits->shape.dim[0]);
}

// log sigmoid(z) = min(z, 0) - log(1 + e^-|z|), and log sigmoid(-z) = log sigmoid(z) - z. -|z| is z - 2 max(z, 0), whose
// slope at 0 is 1: the sum's is then 1/2, as it shall be. A head that starts at zero has all its logits there.
ttt_tensor *ttt_binary_cross_entropy(ttt_ctx *c, ttt_tensor *logits, ttt_tensor *target) {
    if (!ttt__same_shape(c, "binary_cross_entropy", logits, target)) return ttt_detach(c, logits);
    ttt_tensor *above = ttt_relu(c, logits);
    ttt_tensor *tail = ttt_log(c, ttt_add_scalar(c, ttt_exp(c, ttt_sub(c, logits, ttt_scale(c, above, 2))), 1));
    ttt_tensor *no = ttt_add(c, above, tail);                                   // - log sigmoid(-z)
    ttt_tensor *sum = ttt_sum(c, ttt_sub(c, no, ttt_mul(c, target, logits)));
    return ttt_scale(c, sum, 1 / (ttt_real)logits->shape.dim[0]);
}

int64_t ttt_count_correct(const ttt_tensor *logits, const ttt_tensor *labels) {
    int64_t right = 0, B = logits->shape.dim[0], C = logits->shape.dim[1];
    for (int64_t b = 0; b < B && labels->index && labels->index[b] < C; b++) {
        const ttt_real *row = logits->data + b * C, at = row[labels->index[b]];
        bool best = true;
        for (int64_t i = 0; i < C; i++) best = best && (i < labels->index[b] ? row[i] < at : row[i] <= at);  // false if NaN
        right += best;
    }
    return right;
}

// Dirichlet(p,p) of two is Beta(p,p), drawn as Joehnk 1964 does: u^(1/p) and v^(1/p) until their sum
// is at most 1; in logarithms, since both underflow for small p.
static double ttt__beta(ttt_rng *r, double p) {
    for (;;) {
        double x = log(1 - ttt_rng_uniform(r)) / p, y = log(1 - ttt_rng_uniform(r)) / p;
        double top = x > y ? x : y, sum = top + log(exp(x - top) + exp(y - top));
        if (sum <= 0) return exp(x - sum);
    }
}

// t (B,...) = a t + (1 - a) t rolled by one along B
static void ttt__blend_rolled(ttt_tensor *t, ttt_real a) {
    int64_t B = t->shape.dim[0], n = B ? t->size / B : 0;
    for (int64_t j = 0; j < n; j++) {
        ttt_real last = t->data[(B - 1) * n + j];
        for (int64_t b = 0; b < B; b++) {
            ttt_real own = t->data[b * n + j];
            t->data[b * n + j] = a * own + (1 - a) * last;
            last = own;
        }
    }
}

void ttt_mixup(ttt_rng *r, double p, ttt_tensor *x, ttt_tensor *target) {
    if (p <= 0 || x->size == 0) return;
    double a = ttt__beta(r, p);
    a = a > 0.5 ? a : 1 - a;
    ttt__blend_rolled(x, (ttt_real)a);
    ttt__blend_rolled(target, (ttt_real)a);
}

// ---- [2] VIT -------------------------------------------------------------------------------------
static int64_t ttt__vit_tokens(const ttt_vit_desc *d) { return (d->image / d->patch) * (d->image / d->patch) + d->mixer.globals; }
static bool ttt__vit_good(ttt_ctx *c, const ttt_vit_desc *d) {
    if (!ttt_ok(c)) return false;
    if (d->image < 1 || d->channels < 1 || d->patch < 1 || d->width < 1 || d->depth < 1 || d->classes < 1)
        ttt_fail(c, TTT_ERR_UNSET, "vit: .image %lld, .channels %lld, .patch %lld, .width %lld, .depth %lld, .classes %lld; all must be set",
                 (long long)d->image, (long long)d->channels, (long long)d->patch, (long long)d->width, (long long)d->depth, (long long)d->classes);
    else if (d->image % d->patch) ttt_fail(c, TTT_ERR_ARGUMENT, "vit: .image %lld is not divisible by .patch %lld", (long long)d->image, (long long)d->patch);
    else if (d->mixer.globals < 0) ttt_fail(c, TTT_ERR_ARGUMENT, "vit: .mixer.globals is %lld; 0 or more expected", (long long)d->mixer.globals);
    int64_t N = ttt_ok(c) ? ttt__vit_tokens(d) : 0;
    if (ttt_ok(c) && d->mixer.inner_sgd && d->mixer.inner_steps > 1 && N % d->mixer.inner_steps)
        ttt_fail(c, TTT_ERR_ARGUMENT, "vit: %lld tokens cannot be cut into %d equal mini-batches (.inner_sgd with .inner_steps)", (long long)N, d->mixer.inner_steps);
    return ttt_ok(c);
}

static bool ttt__vit_block_new(ttt_ctx *c, ttt_vit *v, ttt_params *p, int64_t i) {
    const ttt_vit_desc *d = &v->desc;
    ttt_vit_block *b = &v->block[i];
    char name[160];
#define IN_BLOCK(part) (snprintf(name, sizeof name, "Transformer/encoderblock_%lld/%s", (long long)i, part), name)
    b->norm_0 = ttt_layer_norm_new(c, p, IN_BLOCK("LayerNorm_0"), d->width);
    b->mixer = ttt_mixer_new(c, &d->mixer, p, IN_BLOCK(d->mixer.mixer ? d->mixer.mixer->module : ""));
    b->norm_1 = ttt_layer_norm_new(c, p, IN_BLOCK("LayerNorm_1"), d->width);
    b->mlp = ttt_mlp_new(c, p, IN_BLOCK("MlpBlock_0"), d->width, d->mlp);
#undef IN_BLOCK
    return ttt_ok(c);
}

static ttt_tensor *ttt__vit_positions_new(ttt_ctx *c, const ttt_vit_desc *d, ttt_params *p) {
    static const ttt_param_row rows[] = { { "pos_embedding", "1 N D", TTT_INIT_NORMAL_IN, "D", NULL, 0, 0 } };
    int64_t side = d->image / d->patch;
    ttt_sizes s = ttt__sizes("ND", side * side, d->width, 0, 0);
    if (d->learned_positions) {
        ttt_tensor **w = ttt_params_add(c, p, "", TTT__ROWS(rows), 0, &s);
        return w ? w[0] : NULL;
    }
    ttt_tensor *code = ttt_sincos2d(c, side, side, d->width), *kept = ttt_zeros_kept(c, code->shape);
    if (ttt_ok(c)) memcpy(kept->data, code->data, (size_t)code->size * sizeof *code->data);
    return kept;
}

static ttt_tensor *ttt__vit_globals_new(ttt_ctx *c, const ttt_vit_desc *d, ttt_params *p) {
    static const ttt_param_row rows[] = { { "global_tokens", "1 G D", TTT_INIT_SMALL, NULL, NULL, 0, 0 } };
    ttt_sizes s = ttt__sizes("GD", d->mixer.globals, d->width, 0, 0);
    ttt_tensor **w = d->mixer.globals ? ttt_params_add(c, p, "", TTT__ROWS(rows), 0, &s) : NULL;
    return w ? w[0] : NULL;
}

ttt_vit *ttt_vit_new(ttt_ctx *c, const ttt_vit_desc *desc, ttt_params *p) {
    if (!ttt__vit_good(c, desc)) return NULL;
    ttt_vit *v = (ttt_vit *)ttt_alloc(c, sizeof *v, true);
    if (!v) return NULL;
    v->desc = *desc;
    v->tokens = ttt__vit_tokens(desc);
    ttt_mixer_desc *m = &v->desc.mixer;
    m->dim = desc->width;
    if (!m->grid_rows && !m->grid_cols) m->grid_rows = m->grid_cols = desc->image / desc->patch;
    if (!m->max_tokens) m->max_tokens = v->tokens;
    if (!desc->mlp) v->desc.mlp = 4 * desc->width;
    v->block = (ttt_vit_block *)ttt_alloc(c, (size_t)desc->depth * sizeof *v->block, true);
    if (!v->block) return NULL;
    v->embedding = ttt_patch_embed_new(c, p, "embedding", desc->patch, desc->channels, desc->width);
    v->positions = ttt__vit_positions_new(c, desc, p);
    v->globals = ttt__vit_globals_new(c, desc, p);
    for (int64_t i = 0; i < desc->depth; i++)
        if (!ttt__vit_block_new(c, v, p, i)) return NULL;
    v->encoder_norm = ttt_layer_norm_new(c, p, "Transformer/encoder_norm", desc->width);
    v->pre_logits = ttt_dense_new(c, p, "pre_logits", desc->width, desc->width, TTT_INIT_LECUN);
    v->head = ttt_dense_new(c, p, "head", desc->width, desc->classes, TTT_INIT_ZERO);
    return ttt_ok(c) ? v : NULL;
}

// x += mixer(LN x);  x += MLP(LN x)
// order: of this block's mini-batches (H,N), or NULL
static ttt_tensor *ttt__vit_block_forward(ttt_ctx *c, const ttt_vit *v, const ttt_vit_block *b, ttt_tensor *x, const int64_t *order, ttt_tensor **losses) {
    ttt_mixer_desc d = v->desc.mixer;
    if (order && ttt_ok(c)) d.order = ttt_from_int(c, TTT_SHAPE(d.heads, v->tokens), order);
    if (losses) *losses = NULL;
    x = ttt_add(c, x, ttt_mixer_forward(c, &d, b->mixer, ttt_layer_norm(c, b->norm_0, x), losses));
    return ttt_residual_mlp(c, b->norm_1, b->mlp, x);
}

// A block as a function of its input and its parameters, as ttt_remat wants it. A parameter that
// is absent has no place among the inputs.
typedef struct ttt__block_call {
    const ttt_vit *v;
    int64_t i;
    const int64_t *order;
} ttt__block_call;
enum { TTT__BLOCK_MOST = 48 };
// All of a block's parameters, with NULL for absent ones; 0 if a mixer of somebody's own has too many.
static int ttt__block_list(const ttt_vit *v, int64_t i, ttt_tensor **list) {
    const ttt_vit_block *b = &v->block[i];
    const ttt_mixer *m = v->desc.mixer.mixer;
    ttt_tensor **const part[4] = { b->norm_0, b->mixer, b->norm_1, b->mlp };
    const int count[4] = { 2, m->n_rows + (m->learner ? m->learner->n_rows : 0), 2, 4 };
    int n = 0;
    if (count[1] > TTT__BLOCK_MOST - 8) return 0;
    for (int p = 0; p < 4; p++)
        for (int j = 0; j < count[p]; j++) list[n++] = part[p][j];
    return n;
}
static ttt_tensor *ttt__vit_block_again(ttt_ctx *c, ttt_tensor *const *in, int n_in, const void *user) {
    const ttt__block_call *call = (const ttt__block_call *)user;
    ttt_tensor *list[TTT__BLOCK_MOST];
    int n = ttt__block_list(call->v, call->i, list), next = 1;
    for (int j = 0; j < n; j++)
        if (list[j]) list[j] = in[next++];
    ttt_vit_block b = { list, list + 2, list + n - 6, list + n - 4 };
    (void)n_in;
    return ttt__vit_block_forward(c, call->v, &b, in[0], call->order, NULL);
}
static ttt_tensor *ttt__vit_block_run(ttt_ctx *c, const ttt_vit *v, int64_t i, ttt_tensor *x, ttt_vit_call *call) {
    ttt__block_call again = { v, i, call && call->order ? call->order->index + i * v->desc.mixer.heads * v->tokens : NULL };
    bool want_losses = call && call->want_losses;
    bool once = !v->desc.remat && c->recording;  // without a tape nobody will ask for what is inside
    ttt_tensor *list[TTT__BLOCK_MOST], *in[TTT__BLOCK_MOST + 1] = { x };
    int n = once || want_losses ? 0 : ttt__block_list(v, i, list), n_in = 1;
    if (n == 0) return ttt__vit_block_forward(c, v, &v->block[i], x, again.order, want_losses ? &call->losses[i] : NULL);
    for (int j = 0; j < n; j++)
        if (list[j]) in[n_in++] = list[j];
    return ttt_remat(c, ttt__vit_block_again, in, n_in, x->shape, &again, sizeof again);
}

ttt_tensor *ttt_vit_forward(ttt_ctx *c, const ttt_vit *v, ttt_tensor *images, ttt_vit_call *call) {
    const ttt_vit_desc *d = &v->desc;
    ttt_text t;
    if (ttt_ok(c) && (images->shape.rank != 4 || images->shape.dim[1] != d->image || images->shape.dim[2] != d->image))
        return ttt_fail(c, TTT_ERR_SHAPE, "vit: images of shape %s; (B,%lld,%lld,%lld) expected", ttt_shape_text(images->shape, t),
                        (long long)d->image, (long long)d->image, (long long)d->channels);
    if (ttt_ok(c) && call && call->order && (call->order->dtype != TTT_DTYPE_INT || call->order->size != d->depth * d->mixer.heads * v->tokens))
        return ttt_fail(c, TTT_ERR_SHAPE, "vit: an order of shape %s; integers (depth,heads,tokens) = (%lld,%lld,%lld) expected",
                        ttt_shape_text(call->order->shape, t), (long long)d->depth, (long long)d->mixer.heads, (long long)v->tokens);
    if (call && call->want_losses) call->losses = (ttt_tensor **)ttt_alloc(c, (size_t)d->depth * sizeof *call->losses, false);
    ttt_tensor *x = ttt_add(c, ttt_patch_embed(c, v->embedding, images), v->positions);
    if (v->globals && ttt_ok(c)) {
        ttt_tensor *both[2] = { ttt_broadcast(c, v->globals, TTT_SHAPE(x->shape.dim[0], d->mixer.globals, d->width)), x };
        x = ttt_concat(c, both, 2, 1);
    }
    for (int64_t i = 0; i < d->depth && ttt_ok(c); i++) x = ttt__vit_block_run(c, v, i, x, call);
    x = ttt_mean_axis(c, ttt_layer_norm(c, v->encoder_norm, x), 1);
    if (!ttt_ok(c)) return x;
    x = ttt_reshape(c, x, TTT_SHAPE(images->shape.dim[0], d->width));
    return ttt_dense(c, v->head, ttt_tanh(c, ttt_dense(c, v->pre_logits, x)));
}

double ttt_vit_flops(const ttt_vit *v) {
    const ttt_vit_desc *d = &v->desc;
    double n = (double)v->tokens, D = (double)d->width, pixels = (double)(d->image * d->image * d->channels);
    double block = d->mixer.mixer->flops(&d->mixer, v->tokens) + 4 * n * D * (double)d->mlp;
    return 2 * pixels * D + (double)d->depth * block + 2 * D * (D + (double)d->classes);
}

// ---- [3] OPTIMIZERS ------------------------------------------------------------------------------
static ttt_real ttt__or_default(ttt_real value, double otherwise) { return value != 0 ? value : (ttt_real)otherwise; }

static bool ttt__optimizer_good(ttt_ctx *c, const ttt_optimizer_desc *d) {
    if (!ttt_ok(c)) return false;
    if (!(d->lr > 0)) ttt_fail(c, TTT_ERR_UNSET, "optimizer: .lr is %g; a rate above 0 must be set", (double)d->lr);
    else if (d->total && d->total <= d->warmup) ttt_fail(c, TTT_ERR_ARGUMENT, "optimizer: .total %lld must be above .warmup %lld", (long long)d->total, (long long)d->warmup);
    else if (d->warmup < 0 || d->accumulate < 0 || d->clip < 0 || d->weight_decay < 0)
        ttt_fail(c, TTT_ERR_ARGUMENT, "optimizer: .warmup, .accumulate, .clip and .weight_decay cannot be negative");
    return ttt_ok(c);
}

ttt_optimizer *ttt_optimizer_new(ttt_ctx *c, ttt_params *p, const ttt_optimizer_desc *d) {
    if (!ttt__optimizer_good(c, d)) return NULL;
    ttt_optimizer *o = (ttt_optimizer *)ttt_alloc(c, sizeof *o, true);
    void **list = (void **)ttt_alloc(c, 5 * (size_t)p->n * sizeof *list, true);
    if (!o || !list) return NULL;
    memset(o, 0, sizeof *o);
    o->desc = *d;
    o->desc.beta1 = ttt__or_default(d->beta1, 0.9);
    o->desc.beta2 = ttt__or_default(d->beta2, 0.999);
    o->desc.eps = ttt__or_default(d->eps, 1e-8);
    if (!d->accumulate) o->desc.accumulate = 1;
    o->params = p;
    o->param = (ttt_param **)list;
    o->value = (ttt_tensor **)(list + p->n);
    o->grad = o->value + p->n;
    o->m = o->grad + p->n;
    o->v = o->m + p->n;
    for (int i = 0; i < p->n; i++) {
        if (d->freeze_inner && (p->item[i].flags & TTT_PARAM_INNER)) continue;
        o->param[o->n] = &p->item[i];
        o->value[o->n] = p->item[i].value;
        o->grad[o->n] = ttt_zeros_kept(c, p->item[i].value->shape);
        o->m[o->n] = ttt_zeros_kept(c, p->item[i].value->shape);
        o->v[o->n] = d->rule == TTT_RULE_MOMENTUM ? NULL : ttt_zeros_kept(c, p->item[i].value->shape);
        o->n++;
    }
    return ttt_ok(c) ? o : NULL;
}

double ttt_schedule(const ttt_optimizer_desc *d, int64_t k) {
    double rise = d->warmup > 0 && k < d->warmup ? (double)k / (double)d->warmup : 1;
    if (!d->total) return rise;
    double done = (double)(k - d->warmup) / (double)(d->total - d->warmup);
    done = done < 0 ? 0 : done > 1 ? 1 : done;
    return rise * 0.5 * (1 + cos(3.14159265358979323846 * done));
}

// The nearest bfloat16: the upper half of a float, rounded to even.
static float ttt__to_bf16(double x) {
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if ((bits & 0x7fffffff) <= 0x7f800000) bits += 0x7fff + (bits >> 16 & 1);
    bits &= 0xffff0000;
    memcpy(&f, &bits, 4);
    return f;
}

// Adam with the first moment stored in bfloat16 as optax does on a CPU: the decay that multiplies the
// stored moment is itself a bfloat16 (0.9 is 0.8984375); the update uses the moment before rounding.
static void ttt__adam_bf16(int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, ttt_real *v, const ttt__update *k) {
    ttt_real b1 = (ttt_real)ttt__to_bf16((double)k->b1);
    for (int64_t i = 0; i < n; i++) {
        ttt_real gi = k->gradient * g[i] + k->l2 * p[i];
        ttt_real moment = (1 - k->b1) * gi + b1 * m[i];
        v[i] = (1 - k->b2) * (gi * gi) + k->b2 * v[i];
        m[i] = (ttt_real)ttt__to_bf16((double)moment);
        p[i] -= k->rate * (moment * k->c1 / (TTT__MATH(sqrt)(v[i] * k->c2) + k->eps)) + k->decay * p[i];
    }
}

// The gathered gradient's norm over all trained parameters, as the mean over the gathered steps.
static double ttt__gradient_norm(ttt_ctx *c, const ttt_optimizer *o) {
    double sum = 0, size = 0;
    int back = ttt__profile_begin(c, "gradient norm", false);
    for (int i = 0; i < o->n; i++) {
        sum += c->k->dot(o->grad[i]->size, o->grad[i]->data, o->grad[i]->data);
        size += (double)o->grad[i]->size;
    }
    if (back >= 0) ttt__profile_count(ttt__profile_end(c, back), 2 * size, size * sizeof(ttt_real));
    return sqrt(sum) / o->desc.accumulate;
}

static ttt__update ttt__update_of(const ttt_optimizer *o, double clip_scale) {
    const ttt_optimizer_desc *d = &o->desc;
    double s = ttt_schedule(d, o->updates), t = (double)(o->updates + 1);
    ttt__update k;
    memset(&k, 0, sizeof k);
    k.gradient = (ttt_real)(clip_scale / d->accumulate);
    k.b1 = d->rule == TTT_RULE_MOMENTUM ? d->momentum : d->beta1;
    k.b2 = d->beta2;
    k.c1 = (ttt_real)(1 / (1 - pow((double)d->beta1, t)));
    k.c2 = (ttt_real)(1 / (1 - pow((double)d->beta2, t)));
    k.eps = d->eps;
    k.rate = (ttt_real)(s * (double)d->lr);
    return k;
}

static void ttt__update_parameter(ttt_ctx *c, ttt_optimizer *o, int i, ttt__update k) {
    const ttt_optimizer_desc *d = &o->desc;
    int64_t n = o->value[i]->size;
    ttt_real *p = o->value[i]->data, *g = o->grad[i]->data, *m = o->m[i]->data;
    if (o->param[i]->flags & TTT_PARAM_DECAYS) {
        if (d->rule == TTT_RULE_ADAM || d->rule == TTT_RULE_MOMENTUM) k.l2 = d->weight_decay;
        if (d->rule == TTT_RULE_ADAMW) k.decay = k.rate * d->weight_decay;
        if (d->rule == TTT_RULE_MTTT) k.decay = (ttt_real)ttt_schedule(d, o->updates) * d->weight_decay;
    }
    if (d->rule == TTT_RULE_MOMENTUM) c->k->momentum(n, p, g, m, &k);
    else if (d->bf16_moment) ttt__adam_bf16(n, p, g, m, o->v[i]->data, &k);
    else c->k->adam(n, p, g, m, o->v[i]->data, &k);
}

ttt_result ttt_optimizer_step(ttt_ctx *c, ttt_optimizer *o, ttt_tensor *loss) {
    if (!ttt_ok(c)) return ttt_status(c);
    for (int i = 0; i < o->n && o->gathered == 0; i++) memset(o->grad[i]->data, 0, (size_t)o->grad[i]->size * sizeof(ttt_real));
    if (ttt_grad(c, loss, o->value, o->n, o->grad, TTT_GRAD_ADD) != TTT_OK || ++o->gathered < o->desc.accumulate) return ttt_status(c);
    o->gathered = 0;
    o->grad_norm = ttt__gradient_norm(c, o);
    if (!(o->grad_norm < HUGE_VAL)) {  // NaN or infinite: weights keep their last good values
        o->skipped++;
        return TTT_OK;
    }
    double clip = (double)o->desc.clip;
    ttt__update k = ttt__update_of(o, clip > 0 && o->grad_norm >= clip ? clip / o->grad_norm : 1);
    int back = ttt__profile_begin(c, "optimizer", false);
    double size = 0;
    for (int i = 0; i < o->n; i++) {
        ttt__update_parameter(c, o, i, k);
        size += (double)o->value[i]->size;
    }
    bool momentum = o->desc.rule == TTT_RULE_MOMENTUM;  // reads 3 numbers and writes 2 in 9 FLOPs; Adam 4, 3 and 19
    if (back >= 0) ttt__profile_count(ttt__profile_end(c, back), (momentum ? 9 : 19) * size, (momentum ? 5 : 7) * size * sizeof(ttt_real));
    o->updates++;
    return TTT_OK;
}

// ---- [4] CHECKPOINTS -----------------------------------------------------------------------------
#ifndef TTT_NO_STDIO
// Names inside the file: parameters as they are, moments under optimizer/m/ and optimizer/v/.
static const char *ttt__moment_name(ttt_ctx *c, const char *moment, const char *name) {
    size_t n = strlen(name) + 16;
    char *text = (char *)ttt_alloc(c, n, false);
    if (text) snprintf(text, n, "optimizer/%s/%s", moment, name);
    return text;
}

// Everything the file holds as one list: used to write it, to check it, and to fill it in.
static int64_t ttt__checkpoint_list(ttt_ctx *c, const ttt_params *p, const ttt_optimizer *o, ttt_named *list) {
    int64_t n = 0;
    for (int i = 0; i < p->n; i++) {
        list[n].name = p->item[i].name;
        list[n++].tensor = p->item[i].value;
    }
    for (int i = 0; o && i < o->n; i++) {
        list[n].name = ttt__moment_name(c, "m", o->param[i]->name);
        list[n++].tensor = o->m[i];
        if (!o->v[i]) continue;
        list[n].name = ttt__moment_name(c, "v", o->param[i]->name);
        list[n++].tensor = o->v[i];
    }
    return n;
}

static const char *ttt__text_of(ttt_ctx *c, const char *format, ...) {
    char *text = (char *)ttt_alloc(c, 64, false);
    va_list args;
    va_start(args, format);
    if (text) vsnprintf(text, 64, format, args);
    va_end(args);
    return text;
}

ttt_result ttt_checkpoint_save(ttt_ctx *c, const char *path, const ttt_params *p, const ttt_optimizer *o,
                               const ttt_note *notes, int64_t n_notes) {
    ttt_mark m = ttt_mark_get(c);
    ttt_named *list = (ttt_named *)ttt_alloc(c, 3 * (size_t)p->n * sizeof *list, false);
    ttt_note *all = (ttt_note *)ttt_alloc(c, ((size_t)n_notes + 4) * sizeof *all, false);
    ttt_bundle b = { list, 0, all, 0 };
    if (!list || !all) return ttt_status(c);
    b.n_tensors = ttt__checkpoint_list(c, p, o, list);
    for (int64_t i = 0; i < n_notes; i++) all[b.n_notes++] = notes[i];
    const ttt_rng *r = ttt_ctx_rng(c);
    const ttt_note own[4] = {
        { "rng.seed", ttt__text_of(c, "%llu", (unsigned long long)r->seed) },
        { "rng.next", ttt__text_of(c, "%llu", (unsigned long long)r->next) },
        { "optimizer.updates", ttt__text_of(c, "%lld", (long long)(o ? o->updates : 0)) },
        { "optimizer.skipped", ttt__text_of(c, "%lld", (long long)(o ? o->skipped : 0)) },
    };
    for (int i = 0; i < (o ? 4 : 2); i++) all[b.n_notes++] = own[i];
    ttt_safetensors_write(c, path, &b, false);
    ttt_mark_release(c, m);
    return ttt_status(c);
}

static bool ttt__note_number(ttt_ctx *c, const char *path, const ttt_bundle *file, const char *key, uint64_t *out) {
    const char *text = ttt_bundle_note(file, key);
    char *end = NULL;
    *out = text ? (uint64_t)strtoull(text, &end, 10) : 0;
    if (text && *text && *end == 0) return true;
    ttt_fail(c, TTT_ERR_FORMAT, "%s: not a checkpoint to go on from: its note \"%s\" is missing or no number", path, key);
    return false;
}

static bool ttt__checkpoint_fits(ttt_ctx *c, const char *path, const ttt_bundle *file, const ttt_named *list, int64_t n) {
    ttt_text t0, t1;
    for (int64_t i = 0; i < n && ttt_ok(c); i++) {
        const ttt_tensor *t = ttt_bundle_find(file, list[i].name);
        if (!t) ttt_fail(c, TTT_ERR_FORMAT, "%s: has no tensor \"%s\"; was it saved from another model?", path, list[i].name);
        else if (!ttt_shape_equal(t->shape, list[i].tensor->shape) || t->dtype != TTT_DTYPE_REAL)
            ttt_fail(c, TTT_ERR_FORMAT, "%s: \"%s\" has shape %s, the model expects %s", path, list[i].name,
                     ttt_shape_text(t->shape, t0), ttt_shape_text(list[i].tensor->shape, t1));
    }
    return ttt_ok(c);
}

ttt_result ttt_checkpoint_load(ttt_ctx *c, const char *path, ttt_params *p, ttt_optimizer *o, ttt_bundle *file) {
    ttt_named *list = (ttt_named *)ttt_alloc(c, 3 * (size_t)p->n * sizeof *list, false);
    uint64_t seed, next, updates = 0, skipped = 0;
    if (!list || ttt_safetensors_read(c, path, file) != TTT_OK) return ttt_status(c);
    int64_t n = ttt__checkpoint_list(c, p, o, list);
    if (!ttt__checkpoint_fits(c, path, file, list, n)) return ttt_status(c);
    if (!ttt__note_number(c, path, file, "rng.seed", &seed) || !ttt__note_number(c, path, file, "rng.next", &next)) return ttt_status(c);
    if (o && (!ttt__note_number(c, path, file, "optimizer.updates", &updates) || !ttt__note_number(c, path, file, "optimizer.skipped", &skipped)))
        return ttt_status(c);
    for (int64_t i = 0; i < n; i++)
        memcpy(list[i].tensor->data, ttt_bundle_find(file, list[i].name)->data, (size_t)list[i].tensor->size * sizeof(ttt_real));
    ttt_ctx_rng(c)->seed = seed;
    ttt_ctx_rng(c)->next = next;
    if (o) {
        o->updates = (int64_t)updates;
        o->skipped = (int64_t)skipped;
        o->gathered = 0;
    }
    return TTT_OK;
}
#endif  // TTT_NO_STDIO

#ifdef __cplusplus
}
#endif

/*  REFERENCES
    Sun et al.: Learning to (learn at test time). arXiv 2310.13807; code: test-time-training/mttt.
    Beyer et al.: Better plain ViT baselines for ImageNet-1k. arXiv 2205.01580. Kingma, Ba: Adam. ICLR
    2015. Loshchilov, Hutter: Decoupled weight decay regularization. ICLR 2019. Zhang et al.: mixup.
    ICLR 2018. Joehnk: Erzeugung von betaverteilten Zufallszahlen. Metrika 1964.

    LICENSE: MIT No Attribution (MIT-0), see the end of ttt_tensor.h.
*/
#endif  // TTT_MODEL_IMPLEMENTED
#endif  // TTT_MODEL_IMPLEMENTATION
