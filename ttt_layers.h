/*  ttt_layers.h - v0.2.0 - layers that learn at test time, and the attention they generalize.

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
        ttt_weights w = ttt_mixer_new(c, &d, &p, "layer");                      // its parameters
        ttt_tensor *x = ttt_randn(c, TTT_SHAPE(2, 128, 64)), *losses;           // (B,N,D)
        ttt_tensor *y = ttt_mixer_forward(c, &d, w, x, &losses);                // (B,N,D)
        if (ttt_ok(c)) printf("%g -> %g\n", losses->data[0], losses->data[1]);  // it has learned
        ttt_close(c);

    INDEX
        [1] PARAMETERS    tables of names, shapes and initializers; weights as arrays; a step of descent
        [2] PLAIN LAYERS  dense, layer norm, MLP block, patch embedding, positions
        [3] LEARNERS      the small models that learn inside a layer; your own
        [4] INNER LOOP    gradient steps on a learner, described once for the whole family
        [5] MIXERS        layers that let tokens see each other, by name; your own
        [6] UNMASKING     the attention map of any of them
        and in the implementation, which has the code of all these sections, op by op on the tape,
        [7] KERNELS       rows of the fused layers, one text for every instruction set
        [8] FUSED LAYERS  some layers as one op each: how they become fast
        [9] THE REGISTRY  one row a mixer
        More than 4,000 lines: a layer's fused form stands beside its definition, which is its oracle.

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

// ---- [1] PARAMETERS -----------------------------------------------------------------------------
// A layer declares its parameters as a table, and everything that deals with parameters goes over
// tables: initialization, counting, optimizer groups, checkpoints.
typedef enum ttt_init {
    TTT_INIT_ZERO,
    TTT_INIT_ONE,
    TTT_INIT_XAVIER,         // uniform, bound sqrt(6 / (fan_in + fan_out))            [Glorot 2010]
    TTT_INIT_UNIFORM_IN,     // uniform, bound sqrt(3 / fan_in): variance 1/fan_in
    TTT_INIT_UNIFORM_OUT,    // uniform, bound sqrt(3 / fan_out)
    TTT_INIT_LECUN,          // normal of variance 1/fan_in, cut off at two deviations (as flax does)
    TTT_INIT_NORMAL_IN,      // normal of variance 1/fan_in
    TTT_INIT_TINY,           // normal of deviation 1e-6
    TTT_INIT_SMALL,          // normal of deviation 0.02
    TTT_INIT_LOG_RATE,       // ln of uniform (0,16): how fast a head of gated DeltaNet forgets
    TTT_INIT_LOG_TIME        // softplus^-1 of a number log-uniform in [0.001,0.1], in units of that rate
} ttt_init;

enum {                     // flags of a row
    TTT_PARAM_DECAYS = 1,  // weight decay applies
    TTT_PARAM_INNER = 2    // starting weights of a learner (W0)
};

// A shape is written with letters, sizes that the layer's maker sets: "H D h" is (H,D,h). A number may
// stand before a letter or alone: "H 4h", "1 D".
typedef struct ttt_param_row {
    const char *name;             // "phi/kernel"
    const char *shape;            // "H D h"
    ttt_init init;
    const char *fan_in, *fan_out;  // sizes that the initializer divides by, as products of letters
    unsigned flags;
    unsigned only_if;             // present only if the maker's options have all these bits
} ttt_param_row;

typedef struct ttt_sizes {
    int64_t of[128];  // by letter: of['D'] = 64
} ttt_sizes;

typedef struct ttt_param {
    const char *name;  // with its layer's path: "Transformer/encoderblock_0/TTTLayer_0/phi/kernel"
    unsigned flags;
} ttt_param;

// A growing list of parameters, and their only owner, in the keep arena. Zero-initialize it.
typedef struct ttt_params {
    ttt_param *item;
    ttt_tensor **value;  // of each item
    int n, capacity;
} ttt_params;

// Weights are what a layer, a block or a whole model runs with: an array of tensors in the order of
// its list of parameters. They may be the parameters themselves, or any other tensors of those
// shapes: made from them by a step of descent, averaged, read from a file. So a model is a function
// of its weights, and a gradient can pass through whatever made them. The array is borrowed, and as
// old as the tensors in it: one that a step of descent made goes with the mark it was made after.
// To use it later is an error, TTT_ERR_RELEASED, as long as its memory holds nothing else; then
// anything may happen. A list that grows leaves its arrays valid.
typedef struct ttt_weights {
    ttt_tensor *const *at;
    int n;
} ttt_weights;

// Makes the parameters of a table, appends them to p under "prefix/name" and initializes each from
// the context's seed and its own name (so that adding a layer changes no other). Returns them as
// weights, in the order of the rows without the absent ones; as all functions named _new do. No
// weights after an error, TTT_ERR_ARGUMENT: a letter without a size, or a name that the list has
// already.
TTT_API ttt_weights ttt_params_add(ttt_ctx *c, const ttt_param_row *rows, int n_rows,
                                   unsigned options, const ttt_sizes *sizes, ttt_params *p,
                                   const char *prefix);
TTT_API ttt_weights ttt_params_weights(const ttt_params *p);                  // all of the list
TTT_API ttt_tensor *ttt_params_find(const ttt_params *p, const char *name);   // NULL if it is not there
TTT_API int64_t ttt_params_count(const ttt_params *p, unsigned flags);        // numbers in those with all the flags
// For each parameter, whether its name contains `part` (NULL: any does) and it has all the flags:
// which weights a step of descent moves. In the step arena; NULL after an error.
TTT_API bool *ttt_params_choose(ttt_ctx *c, const ttt_params *p, const char *part, unsigned flags);

// The first n weights, which *w then lacks: a model hands its sub-layers their parts, one after
// another. TTT_ERR_SHAPE naming `who` if there are fewer.
TTT_API ttt_weights ttt_weights_take(ttt_ctx *c, const char *who, ttt_weights *w, int n);
// The same numbers as leaves of their own, in the keep arena or in the step arena: a snapshot, an
// average's beginning. No weights after an error.
TTT_API ttt_weights ttt_weights_copy(ttt_ctx *c, ttt_weights w, bool keep);
// into += share (from - into), number by number and in place: 1 copies (puts weights back, loads
// them), 1/k keeps the mean of k, 1 - decay an exponential moving average. What was computed from
// `into` before has wrong gradients from then on, and no error says so. TTT_ERR_SHAPE if the shapes
// differ; nothing is changed then.
TTT_API ttt_result ttt_weights_blend(ttt_ctx *c, ttt_weights into, ttt_weights from,
                                     ttt_real share);

// How weights take a step down a loss. Zero is plain gradient descent with rate 0: set the rate.
typedef enum ttt_descent_rule {
    // g = d loss / d w:
    TTT_DESCENT_PLAIN,     // w' = w - rate g
    TTT_DESCENT_MOMENTUM,  // m = momentum m + g;  w' = w - rate m                 [Polyak 1964]
    TTT_DESCENT_ADAM       // m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
                           // w' = w - rate m^ / (sqrt v^ + eps), at step t       [Kingma 2015]
                           // m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t)
} ttt_descent_rule;

typedef struct ttt_descent {
    ttt_descent_rule rule;
    ttt_real rate;              // of every weight; or
    ttt_tensor *const *rates;   // one a weight, broadcast to its shape; gradients pass. NULL: none
    const bool *moves;          // one a weight, see ttt_params_choose: those that move. NULL: all
    ttt_real momentum;          // of the rule with momentum
    ttt_real beta1, beta2, eps; // of Adam; 0: 0.9, 0.999, 1e-8
    bool first_order;           // an outer gradient takes g for a constant (FOMAML) [1703.03400]
    bool untaped;               // the new weights are leaves, as they are with the tape off: an
                                // outer gradient finds nothing, zeros, behind them
} ttt_descent;

// What the rules with moments remember from step to step, on the tape like the weights, so that an
// outer gradient passes through it too. Zero-initialize it. It lives in the step arena, as the new
// weights do: to go on after a mark is released, keep m, v and the weights by ttt_weights_copy.
typedef struct ttt_descent_state {
    ttt_descent_rule rule;
    ttt_weights m, v;           // of the weights that move
    int steps;
} ttt_descent_state;

// One step: the weights w' after descending on `loss`, which was computed from w with the tape on;
// those that do not move are the same tensors. state: NULL for the plain rule. No weights after an
// error: TTT_ERR_SHAPE for a rate or a state that does not fit the weights, TTT_ERR_UNSET for a
// rule that lacks its state, TTT_ERR_ARGUMENT for a loss without a tape, an unknown rule, a state
// of another one or an option that the rule has not.
TTT_API ttt_weights ttt_descend(ttt_ctx *c, const ttt_descent *d, ttt_weights w, ttt_tensor *loss,
                                ttt_descent_state *state);

// ---- [2] PLAIN LAYERS ---------------------------------------------------------------------------
// Each is a table of parameters and a function of weights in the order of its rows; how many weights it was
// given is checked (TTT_ERR_SHAPE).
TTT_API ttt_weights ttt_dense_new(ttt_ctx *c, int64_t in, int64_t out, ttt_init kernel,
                                  ttt_params *p, const char *prefix);
// y = x kernel + bias, x (...,in)
TTT_API ttt_tensor *ttt_dense(ttt_ctx *c, ttt_weights w, ttt_tensor *x);

TTT_API ttt_weights ttt_layer_norm_new(ttt_ctx *c, int64_t D, ttt_params *p, const char *prefix);
// y = (x - mean) / sqrt(var + 1e-6) scale + bias over the last axis, biased variance     [Ba 2016]
#define TTT_LAYER_NORM_EPS 1e-6
TTT_API ttt_tensor *ttt_layer_norm(ttt_ctx *c, ttt_weights w, ttt_tensor *x);

TTT_API ttt_weights ttt_mlp_new(ttt_ctx *c, int64_t D, int64_t hidden, ttt_params *p,
                                const char *prefix);
TTT_API ttt_tensor *ttt_mlp(ttt_ctx *c, ttt_weights w, ttt_tensor *x);  // dense, GELU (tanh form), dense
// x + mlp(layer_norm(x)), the second half of a transformer's block, x (...,n,D), as one op; w: the
// norm's two, the MLP's four. For first-order gradients it keeps the hidden layer before GELU and
// nothing else.
TTT_API ttt_tensor *ttt_residual_mlp(ttt_ctx *c, ttt_weights w, ttt_tensor *x);

TTT_API ttt_weights ttt_patch_embed_new(ttt_ctx *c, int64_t patch, int64_t channels, int64_t D,
                                        ttt_params *p, const char *prefix);
// images (B,height,width,channels), sides divisible by the patch -> tokens (B,N,D), row by row:
// a convolution whose kernel (patch,patch,channels,D) and stride are the patch
TTT_API ttt_tensor *ttt_patch_embed(ttt_ctx *c, ttt_weights w, ttt_tensor *images);

// The fixed code of a grid, (1,rows*cols,D): [sin x o, cos x o, sin y o, cos y o] with
// o_j = 10000^(-j / (D/4 - 1)), j < D/4. Needs D divisible by 4.       [Beyer 2022, big_vision]
TTT_API ttt_tensor *ttt_sincos2d(ttt_ctx *c, int64_t rows, int64_t cols, int64_t D);

// (B,N,D) -> (B,H,N,D/H) and back: a head is a run of D/H neighboring features
TTT_API ttt_tensor *ttt_split_heads(ttt_ctx *c, ttt_tensor *x, int64_t H);
TTT_API ttt_tensor *ttt_join_heads(ttt_ctx *c, ttt_tensor *x);

// ---- [3] LEARNERS -------------------------------------------------------------------------------
// The model inside a layer. Weights have a leading axis H in the table; predict sees them as
// (B,H,a,b), or (B,H,1,a) for those with one axis more than H, so that each sequence and head has its
// own. To write one: a table, a predict, and this struct around them.
//     A whole network is a learner too: with .one_set its weights are one set for the call, in whatever
// shapes it has them, and every sequence learns in the same.
typedef struct ttt_learner {
    const char *name;
    const ttt_param_row *rows;
    int n_rows;
    // x (B,H,n,h) -> (B,H,n,h), with the weights of the rows that are present
    ttt_tensor *(*predict)(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x);
    int64_t flops;  // multiply-adds of one prediction of one head, in units of h^2 a token
    // Where the last layer is linear, the last weights are its kernel and (with biases) its bias,
    // and this gives what it reads: predict = features W (+ b). NULL if there is no such layer.
    // ttt_unmask lives by it.
    ttt_tensor *(*features)(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x);
    const void *desc;  // handed to the two
    bool one_set;
} ttt_learner;
#define TTT_MAX_INNER_STEPS 64

enum { TTT_LEARNER_BIAS = 1 };  // bit for only_if: the learner has biases
extern const ttt_learner ttt_learner_linear;  // f(z) = z W (+ b)
extern const ttt_learner ttt_learner_mlp;     // f(z) = GELU(z W1 (+ b1)) W2 (+ b2), 4h hidden

// ---- [4] INNER LOOP -----------------------------------------------------------------------------
// What a layer of the family does with a sequence:
//     W_0 = the trained start;  W_t+1 = W_t - eta_t d l(W_t; S_t) / dW,  t = 0 .. T-1;  then f_{W_T}(test)
// S_t is all tokens (full batch), or the t-th of T equal parts of the tokens in a given order
// (shuffled mini-batches). Every sequence and head learns for itself.
typedef struct ttt_inner {
    const ttt_learner *learner;
    ttt_tensor *train;  // (B,H,N,h), what the learner sees
    ttt_tensor *label;  // (B,H or 1,N,...), what its loss compares with
    // The loss summed over sequences and heads, from f(train part) and the label part.
    ttt_tensor *(*loss)(ttt_ctx *c, const void *arg, ttt_tensor *prediction, ttt_tensor *label);
    const void *loss_arg;
    int steps;                // T
    const ttt_real *rates;    // eta_t, constants; unless there are
    ttt_tensor *learned_rates;  // (T), a tensor that takes gradients
    ttt_tensor *order;        // NULL: full batches. Else integers (H,L), L <= N: the tokens of each head's T parts
    bool first_order;         // treat the inner gradients as constants (for comparison)
    struct ttt_unmasked *unmask;  // NULL, or receives what the steps wrote: key and value, see [6]
} ttt_inner;

// The weights w0 as the learner's table has them -> those after T steps, ready for predict. losses,
// if not NULL, receives (T+1): l before each step on that step's part, then with the final weights
// on all tokens; sum over heads, mean over sequences. No weights after an error: TTT_ERR_SHAPE if T
// parts do not divide L, or L is 0; TTT_ERR_UNSET without rates.
TTT_API ttt_weights ttt_inner_loop(ttt_ctx *c, const ttt_inner *in, ttt_weights w0,
                                   ttt_tensor **losses);

// ---- [5] MIXERS ---------------------------------------------------------------------------------
typedef struct ttt_mixer ttt_mixer;
struct ttt_unmasked;

typedef enum ttt_normalizer {
    TTT_NORMALIZER_ADAPTIVE,  // q_n . sum_m k_m
    TTT_NORMALIZER_CONSTANT,  // N h
    TTT_NORMALIZER_NONE       // 1
} ttt_normalizer;

typedef enum ttt_attention_kernel {     // what a token looks for in the list of all tokens
    TTT_ATTENTION_KERNEL_EXPONENTIAL,   // e^(q k / sqrt h): softmax attention
    TTT_ATTENTION_KERNEL_GAUSSIAN,      // e^(-|q - k|^2 / (2 b^2)), b the bandwidth
    TTT_ATTENTION_KERNEL_NEAREST        // Gaussian, but of the nearest keys alone
} ttt_attention_kernel;

// One description for all. Zero is the default; what a mixer does not have it ignores.
typedef struct ttt_mixer_desc {
    const ttt_mixer *mixer;  // required
    int64_t dim, heads;      // D and H, required; H divides D
    // layers that learn
    int inner_steps;             // T; 0: 1
    ttt_real inner_lr;           // eta, the same for every step: required, unless
    const ttt_real *inner_lrs;   // T of them (zeros are fine here)
    bool inner_sgd;              // shuffled mini-batches instead of full batches; T divides N
    ttt_tensor *order;           // integers (H,N) for it; NULL: drawn anew at each call
    bool learn_rates;            // the rates become a parameter, starting from those above
    bool no_inner_bias;          // learner without biases
    bool no_decoder_norm;        // reconstruction without layer norm
    bool zero_w0;                // start W0 at zero
    bool first_order;            // constants instead of inner gradients, for comparison
    bool no_fused;               // op by op on the tape: slower, and losses take gradients. Fused, asking for
                                 // losses may choose another form of a layer, and change y's last bits
    // linear attention
    bool identity_map;           // q, k as they are, not elu + 1
    ttt_normalizer normalizer;
    // memories that are written token by token
    bool causal;                 // a token sees itself and those before it (delta-net and titans always do)
    int64_t chunk;               // tokens taken at once: for linear attention and the delta rule only speed,
                                 // 1 the recurrence, N the parallel form; for ttt-* and titans the mini-batch
                                 // whose gradients are taken at the same weights. 0: 64 and 16; lact 2048
    bool no_short_conv;          // delta-net: no convolutions before q, k, v
    bool muon;                   // lact: orthogonalize each update
    // attention that does not look everywhere
    ttt_attention_kernel kernel;           // nadaraya-watson
    ttt_real bandwidth;          // 0: h^(1/4), where equal-norm keys make Gaussian and exponential equal
    int64_t neighbors;          // 0: 8
    int64_t window;              // longformer: tokens to each side. 0: 256; on a grid 7, or a third of its side
    int64_t globals;             // the first tokens, which see and are seen by all (longformer)
    int64_t compressed;          // linformer: keys left; 0: max_tokens / 4
    int64_t max_tokens;          // linformer and focused-linear: tokens that their tables are made for
    int64_t grid_rows, grid_cols;  // the tokens behind the globals are a grid, row by row; 0: they are a line
    int power;                   // focused-linear: 0: 3
    struct ttt_unmasked *unmask; // set by ttt_unmask: a forward that knows its matrix fills it in
} ttt_mixer_desc;

struct ttt_mixer {
    const char *name;    // "mttt-mlp"
    const char *module;  // what its parameters are filed under in a block: "TTTLayer_0"
    const ttt_param_row *rows;
    int n_rows;
    const ttt_learner *learner;  // NULL if nothing is learned inside; its table follows rows
    // x (B,N,D) -> (B,N,D), with one tensor a row in w, checked, and NULL for absent ones.
    // losses: NULL, or receives (T+1). It is NULL before, and mixers that do not learn leave it so
    ttt_tensor *(*forward)(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses);
    double (*flops)(const ttt_mixer_desc *d, int64_t N);  // forward, of one sequence
    // Numbers that must be remembered of N tokens to mix one more: what memory costs (4 bytes each).
    double (*state)(const ttt_mixer_desc *d, int64_t N);  // may be NULL
    // May be NULL. Says by ttt_fail which field of d is wrong, for N tokens or (N < 0) before they are known.
    void (*check)(ttt_ctx *c, const ttt_mixer_desc *d, int64_t N);
    unsigned without;            // options that its learner never has: TTT_LEARNER_BIAS
};

// The registered mixers by number, NULL past the end; by name, NULL if there is none such.
//   mttt-linear, mttt-mlp  learn a linear map or an MLP on the sequence          [arXiv 2310.13807]
//   ttt-linear, ttt-mlp    the same on heads that split the features             [arXiv 2407.04620]
//   titans                 an MLP written with momentum and forgetting           [arXiv 2501.00663]
//   lact                   a SwiGLU written a large chunk at a time              [arXiv 2505.23884]
//   vittt                  a GLU and a 3x3 convolution, one step on the image    [arXiv 2512.01643]
//   delta-net              a matrix in which a new value replaces the old one    [arXiv 2406.06484]
//   gated-delta-net        the same, which also forgets                          [arXiv 2412.06464]
//   linear-attention       phi(q) (phi(k)^T v) / normalizer                      [arXiv 2006.16236]
//   focused-linear         linear attention with sharper features                [arXiv 2308.00442]
//   self-attention         softmax(q k^T / sqrt h) v                             [Vaswani 2017]
//   nadaraya-watson        the same as a kernel estimate, other kernels too      [arXiv 2407.04620, Th. 2]
//   linformer              keys and values compressed along the sequence         [arXiv 2006.04768]
//   longformer             a window, and tokens that see all                     [arXiv 2004.05150]
//   none                   zero: tokens do not see each other
TTT_API const ttt_mixer *ttt_mixer_at(int i);
TTT_API const ttt_mixer *ttt_mixer_find(const char *name);

// Checks a description and makes the parameters it asks for; no weights after an error, which names
// the field.
TTT_API ttt_weights ttt_mixer_new(ttt_ctx *c, const ttt_mixer_desc *d, ttt_params *p,
                                  const char *prefix);
TTT_API int ttt_mixer_count(const ttt_mixer_desc *d);  // how many these are
// Errors: TTT_ERR_SHAPE if w are not weights that d asks for.
TTT_API ttt_tensor *ttt_mixer_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_weights w,
                                      ttt_tensor *x, ttt_tensor **losses);

// ---- [6] UNMASKING ------------------------------------------------------------------------------
// A layer that learns writes pairs (k^, v^) into weights and reads them with q^. If what is written to, and
// read from, is a linear last layer, then it is attention, whatever lies before it  [arXiv 2602.21204]:
//     y = M v^ + carry (q^ S_0),   M_ts = weight_ts <q^_t, k^_s>
// q^, k^: features that the last layer reads; v^: what it was told, minus the rate times the gradient of the
// loss in its output; S_0: its kernel before (biases count as a feature that is 1). For a learner that takes T
// steps there are P = T N pairs, in the order in which they were written; else P = N.
typedef struct ttt_unmasked {
    ttt_tensor *query, *key;  // (B,H,N,m), (B,H,P,m); NULL where the matrix is not made from features
    ttt_tensor *value;        // (B,H,P,h)
    ttt_tensor *start;        // S_0 (B,H,m,h); NULL: zero
    ttt_tensor *carry;        // (B,H,N,1), what is left of S_0 at each token; NULL: all of it
    ttt_tensor *matrix;       // M (B,H,N,P): the layer's attention map
    ttt_tensor *read;         // y (B,H,N,h) as the layer computed it, before what follows: norms, projection
    const char *equals;       // which known operator this is; or why there is none
    bool exact;               // y = M v^ + carry q^ S_0 holds
    double error;             // exact: max|y - (M v^ + carry q^ S_0)| / max|y|
} ttt_unmasked;
// Takes the layer apart for the input x (B,N,D); its numbers live in the step arena. Where no exact
// form exists (exact false), equals says why, and matrix (1,1,N,N) is the local linearization of
// the whole layer at the first sequence: the size of dy_i / dx_j (Frobenius norm), value, read and
// the rest NULL, and error how far that linear map is off for a small random move of x, in units of
// the largest change of y. It costs N D gradients. Errors: those of ttt_mixer_forward.
TTT_API ttt_result ttt_unmask(ttt_ctx *c, const ttt_mixer_desc *d, ttt_weights w, ttt_tensor *x,
                              ttt_unmasked *out);

#ifdef __cplusplus
}
#endif
#endif  // TTT_LAYERS_H

// ==================================================================================================
// ---- [7] KERNELS --------------------------------------------------------------------------------
// Rows of the fused layers: one text for every instruction set, its words explained in [8] of
// ttt_tensor.h. What S, P, sigma, pi and tau of the decoder are stands at ttt__decoder in [8].
#ifdef TTT__KERNELS

// One token of the decoder, see ttt__decoder: from its prediction e, u = e S + sigma, v = e P + pi, and its
// view x, y of the target to the gradient of the loss in e. Returns what of the loss depends on e.
typedef struct KN(decoded) {
    VEC rho, m, cr;       // 1 / deviation; the mean of dx^ x^; c rho
    double q2, q34, rs;
} KN(decoded);

INLINE void KN(decode_sums)(const ttt__decoder *p, const ttt_real *e, const ttt_real *u, const ttt_real *v, const ttt_real *x, int64_t i, int64_t n, VEC *sum) {
    VEC ev = KN(part)(e, i, n);
    sum[0] += ev * (KN(part)(u, i, n) + KN(part)(p->sigma, i, n));
    sum[1] += ev * (KN(part)(v, i, n) + KN(part)(p->pi, i, n));
    sum[2] += ev * (KN(part)(p->tau, i, n) - KN(part)(x, i, n));
}
INLINE KN(decoded) KN(decode_scalars)(const ttt__decoder *p, const VEC *sum, double x0) {
    KN(decoded) d;
    double D = (double)p->D, c = (double)p->c, q1 = KN(total)(sum[0]) + p->sigma0;
    d.q2 = KN(total)(sum[1]) + p->pi0;
    d.q34 = KN(total)(sum[2]) + p->tau0 - x0;
    d.rs = p->norm ? 1 / sqrt((q1 > 0 ? q1 : 0) / D + p->eps) : 1;
    d.rho = KN(splat)(NUM(d.rs));
    d.cr = KN(splat)(NUM(c * d.rs));
    d.m = KN(splat)(NUM(p->norm ? c / D * (d.rs * d.rs * d.q2 + d.rs * d.q34) : 0));
    return d;
}
INLINE VEC KN(decode_slope)(const ttt__decoder *p, const KN(decoded) *d, const ttt_real *u, const ttt_real *v, const ttt_real *x, int64_t i, int64_t n) {
    VEC slope = d->cr * (d->rho * KN(part)(v, i, n) + (KN(part)(p->tau, i, n) - KN(part)(x, i, n)));
    return p->norm ? slope - d->m * d->rho * d->rho * KN(part)(u, i, n) : slope;
}
KERNEL double KN(decode)(const ttt__decoder *p, const ttt_real *e, const ttt_real *u, const ttt_real *v, const ttt_real *x, ttt_real x0, ttt_real *de) {
    VEC sum[3] = { KN(splat)(0), KN(splat)(0), KN(splat)(0) };
#define TERM(i, n) KN(decode_sums)(p, e, u, v, x, i, n, sum)
    TTT__ROW_EACH(p->h, TERM)
#undef TERM
    KN(decoded) d = KN(decode_scalars)(p, sum, (double)x0);
#define TERM(i, n) KN(put)(de, i, n, KN(decode_slope)(p, &d, u, v, x, i, n))
    TTT__ROW_EACH(p->h, TERM)
#undef TERM
    return 0.5 * (double)p->c * (d.rs * d.rs * d.q2 + 2 * d.rs * d.q34);
}

// The same token backwards. In: w, the gradient of de. Out: the gradient of e in w, but for what comes
// through u and v, whose gradients replace them; added to: those of x, y and of the decoder's rows.
//   dv = c rho^2 w, du = -m rho^2 w, dx = -c rho w;  drho = 2 c rho <w,v> + c <w,tau - x> - 2 m rho <w,u>
//   dm = -rho^2 <w,u>: dq2 = dm c/D rho^2, dq3 = -dq4 = dm c/D rho, drho += dm c/D (2 rho q2 + q3 - q4)
//   dq1 = -drho rho^3 / (2 D);  q1 = <e,u> + <e,sigma> + sigma0, q2, q3, q4 likewise
INLINE void KN(grow)(ttt_real *y, int64_t i, int64_t n, VEC v) { KN(put)(y, i, n, KN(part)(y, i, n) + v); }

INLINE void KN(back_sums)(const ttt__decoder *p, const ttt_real *u, const ttt_real *v, const ttt_real *x, const ttt_real *w, int64_t i, int64_t n, VEC *sum) {
    VEC wv = KN(part)(w, i, n);
    sum[0] += wv * KN(part)(v, i, n);
    sum[1] += wv * KN(part)(u, i, n);
    sum[2] += wv * (KN(part)(p->tau, i, n) - KN(part)(x, i, n));
}
INLINE void KN(plain_back)(const ttt__decoder *p, ttt_real *v, ttt_real *w, ttt_real *dx, int64_t i, int64_t n) {  // without norm: de = c (v - x)
    VEC cw = KN(part)(w, i, n) * p->c;
    KN(put)(v, i, n, cw);
    KN(put)(w, i, n, cw * 0);
    KN(grow)(dx, i, n, -cw);
    KN(grow)(p->d_pi, i, n, cw);
}
INLINE void KN(back_rows)(const ttt__decoder *p, const KN(decoded) *d, const VEC *dq, const ttt_real *e, ttt_real *u, ttt_real *v, const ttt_real *x, ttt_real *w,
                          ttt_real *dx, int64_t i, int64_t n) {
    VEC ev = KN(part)(e, i, n), uv = KN(part)(u, i, n), vv = KN(part)(v, i, n), wv = KN(part)(w, i, n), crw = d->cr * wv, tx = KN(part)(p->tau, i, n) - KN(part)(x, i, n);
    VEC du = dq[0] * ev - d->m * d->rho * d->rho * wv, dv = crw * d->rho + dq[1] * ev, dt = crw + dq[2] * ev;
    KN(put)(u, i, n, du);
    KN(put)(v, i, n, dv);
    KN(put)(w, i, n, dq[0] * (uv + KN(part)(p->sigma, i, n)) + dq[1] * (vv + KN(part)(p->pi, i, n)) + dq[2] * tx);
    KN(grow)(dx, i, n, -dt);
    KN(grow)(p->d_sigma, i, n, du + dq[0] * ev);
    KN(grow)(p->d_pi, i, n, dv + dq[1] * ev);
    KN(grow)(p->d_tau, i, n, dt);
}
KERNEL void KN(decode_back)(const ttt__decoder *p, const ttt_real *e, ttt_real *u, ttt_real *v, const ttt_real *x, ttt_real x0, ttt_real *w, ttt_real *dx, ttt_real *dx0) {
    int64_t h = p->h;
    if (!p->norm) {
#define TERM(i, n) KN(plain_back)(p, v, w, dx, i, n)
        TTT__ROW_EACH(h, TERM)
#undef TERM
        return;
    }
    VEC sum[3] = { KN(splat)(0), KN(splat)(0), KN(splat)(0) }, with_w[3] = { sum[0], sum[0], sum[0] }, dq[3];
#define TERM(i, n) KN(decode_sums)(p, e, u, v, x, i, n, sum), KN(back_sums)(p, u, v, x, w, i, n, with_w)
    TTT__ROW_EACH(h, TERM)
#undef TERM
    KN(decoded) d = KN(decode_scalars)(p, sum, (double)x0);
    double D = (double)p->D, c = (double)p->c, r = d.rs, m = c / D * (r * r * d.q2 + r * d.q34);
    double wv = KN(total)(with_w[0]), wu = KN(total)(with_w[1]), wt = KN(total)(with_w[2]), dm = -r * r * wu;
    double dr = 2 * c * r * wv + c * wt - 2 * m * r * wu + dm * c / D * (2 * r * d.q2 + d.q34);
    double d1 = -0.5 * dr * r * r * r / D, d2 = dm * c / D * r * r, d3 = dm * c / D * r;
    dq[0] = KN(splat)(NUM(d1));
    dq[1] = KN(splat)(NUM(d2));
    dq[2] = KN(splat)(NUM(d3));
#define TERM(i, n) KN(back_rows)(p, &d, dq, e, u, v, x, w, dx, i, n)
    TTT__ROW_EACH(h, TERM)
#undef TERM
    *dx0 -= NUM(d3);
    p->d_scalars[0] += NUM(d1);
    p->d_scalars[1] += NUM(d2);
    p->d_scalars[2] += NUM(d3);
}

// GELU with its derivatives: a = gelu(z), a1 = gelu'(z), a2 = gelu''(z) (NULL: not wanted). In two passes, the first leaving
// e^-|u| in a: as one chain of operations it is so long that the processor cannot hold enough of them to be busy.
INLINE void KN(gelu_part)(const ttt_real *z, ttt_real *a, ttt_real *a1, ttt_real *a2, int64_t i, int64_t n) {
    VEC v = KN(part)(z, i, n), p, q, g = KN(sigmoids_from)(KN(part)(a, i, n), v, &p, &q), du = KN(gelu_du)(v);
    KN(put)(a, i, n, v * g);
    if (a1) KN(put)(a1, i, n, KN(alive)(p, g + v * p * du, g));
    if (a2) KN(put)(a2, i, n, KN(alive)(p, NUM(2) * p * du + v * (q * du * du + p * v * NUM(0.42812889763560147)), p));
}
KERNEL void KN(gelu_all)(int64_t n, const ttt_real *z, ttt_real *a, ttt_real *a1, ttt_real *a2) {
    enum { PASS = 1024 };
    for (int64_t from = 0; from < n; from += PASS) {
        int64_t to = TTT__MIN(from + PASS, n);
#define TERM(i, n) KN(put)(a, i, n, KN(gelu_fall)(KN(part)(z, i, n)))
        TTT__ROW_FROM(from, to, TERM)
#undef TERM
#define TERM(i, n) KN(gelu_part)(z, a, a1, a2, i, n)
        TTT__ROW_FROM(from, to, TERM)
#undef TERM
    }
}

// Of a gradient step backwards, see ttt__tile_back1, each in its place: a2 = ddz da a2, da = da a1, ddz = ddz a1.
INLINE void KN(gelu_step_part)(const ttt_real *a1, ttt_real *a2, ttt_real *da, ttt_real *ddz, int64_t i, int64_t n) {
    VEC d = KN(part)(da, i, n), one = KN(part)(a1, i, n), dd = KN(part)(ddz, i, n);
    KN(put)(a2, i, n, d * KN(part)(a2, i, n) * dd);
    KN(put)(da, i, n, d * one);
    KN(put)(ddz, i, n, dd * one);
}
KERNEL void KN(gelu_step)(int64_t n, const ttt_real *a1, ttt_real *a2, ttt_real *da, ttt_real *ddz) {
#define TERM(i, n) KN(gelu_step_part)(a1, a2, da, ddz, i, n)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

KERNEL void KN(add_product)(int64_t n, const ttt_real *a, const ttt_real *b, ttt_real *y) {  // y += a b
#define TERM(i, n) KN(grow)(y, i, n, KN(part)(a, i, n) * KN(part)(b, i, n))
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// y = elu(y) + 1 in place; its derivative at x is 1 where y > 1, else y itself.
INLINE void KN(elu1_part)(ttt_real *y, int64_t i, int64_t n) {
    VEC v = KN(part)(y, i, n);
    KN(put)(y, i, n, KN(select)(v > NUM(0), v + NUM(1), KN(exp_down)(v, v)));
}
KERNEL void KN(elu1)(int64_t n, ttt_real *y) {
#define TERM(i, n) KN(elu1_part)(y, i, n)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}
INLINE void KN(elu1_back_part)(const ttt_real *y, ttt_real *d, int64_t i, int64_t n) {
    VEC v = KN(part)(y, i, n);
    KN(put)(d, i, n, KN(part)(d, i, n) * KN(select)(v > NUM(1), KN(splat)(1), v));
}
KERNEL void KN(elu1_back)(int64_t n, const ttt_real *y, ttt_real *d) {
#define TERM(i, n) KN(elu1_back_part)(y, d, i, n)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

KERNEL void KN(softmax_back)(int64_t n, const ttt_real *p, ttt_real *d, ttt_real scale, ttt_real sum) {  // d = p (d - sum) scale
#define TERM(i, n) KN(put)(d, i, n, KN(part)(p, i, n) * (KN(part)(d, i, n) - sum) * scale)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// Layer norm of a row: y = x^ s + t, x^ = (x - mean) r. And back, with w = g s:
//   dx += r (w - mean w - x^ mean(w x^));  ds += g x^;  dt += g
KERNEL void KN(layer_norm)(int64_t n, const ttt_real *x, const ttt_real *s, const ttt_real *t, ttt_real *y) {
    ttt_real mean, r;
    KN(moments)(n, x, TTT_LAYER_NORM_EPS, true, &mean, &r);
#define TERM(i, n) KN(put)(y, i, n, (KN(part)(x, i, n) - mean) * r * KN(part)(s, i, n) + KN(part)(t, i, n))
    TTT__ROW_EACH(n, TERM)
#undef TERM
}
INLINE void KN(layer_norm_sums)(const ttt_real *x, const ttt_real *s, const ttt_real *g, ttt_real mean, ttt_real r, ttt_real *ds, ttt_real *dt, int64_t i, int64_t n, VEC *sum) {
    VEC gv = KN(part)(g, i, n), gx = gv * ((KN(part)(x, i, n) - mean) * r), sv = KN(part)(s, i, n);  // beyond the row g is zero
    sum[0] += gv * sv;
    sum[1] += gx * sv;
    KN(grow)(ds, i, n, gx);
    KN(grow)(dt, i, n, gv);
}
KERNEL void KN(layer_norm_back)(int64_t n, const ttt_real *x, const ttt_real *s, const ttt_real *g, ttt_real *dx, ttt_real *ds, ttt_real *dt) {
    VEC sum[2] = { KN(splat)(0), KN(splat)(0) };
    ttt_real mean, r;
    KN(moments)(n, x, TTT_LAYER_NORM_EPS, true, &mean, &r);
#define TERM(i, n) KN(layer_norm_sums)(x, s, g, mean, r, ds, dt, i, n, sum)
    TTT__ROW_EACH(n, TERM)
#undef TERM
    VEC w = KN(splat)(NUM(KN(total)(sum[0]) / (double)n)), wx = KN(splat)(NUM(KN(total)(sum[1]) / (double)n));
#define TERM(i, n) KN(grow)(dx, i, n, (KN(part)(g, i, n) * KN(part)(s, i, n) - w - (KN(part)(x, i, n) - mean) * r * wx) * r)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

static const ttt__layer_kernels KN(layer_table) = { KN(decode), KN(decode_back), KN(gelu_all), KN(gelu_step), KN(add_product), KN(elu1), KN(elu1_back),
                                                    KN(row_max), KN(exp_sum), KN(softmax_back), KN(layer_norm), KN(layer_norm_back) };

// ==================================================================================================
#elif defined(TTT_LAYERS_IMPLEMENTATION) || defined(TTT_IMPLEMENTATION)
#ifndef TTT_LAYERS_IMPLEMENTED
#define TTT_LAYERS_IMPLEMENTED

#ifndef TTT_TENSOR_IMPLEMENTATION
#define TTT_TENSOR_IMPLEMENTATION  // a header's macro implies those of the headers below it
#endif
#include "ttt_tensor.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- PARAMETERS ---------------------------------------------------------------------------------
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

static void ttt__initialize(ttt_tensor *t, const ttt_param_row *row, const ttt_sizes *sizes,
                            ttt_rng r) {
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
    case TTT_INIT_SMALL: ttt__fill_normal(t, &r, 0.02, HUGE_VAL); break;
    case TTT_INIT_LOG_RATE:
        for (int64_t i = 0; i < t->size; i++) t->data[i] = (ttt_real)log(16 * (1 - ttt_rng_uniform(&r)));
        break;
    case TTT_INIT_LOG_TIME:
        for (int64_t i = 0; i < t->size; i++) t->data[i] = (ttt_real)log(expm1(0.001 * pow(100, ttt_rng_uniform(&r))));
        break;
    }
}

// Room for n more at the end of the list. What was there moves, and views of it from before stay
// valid.
static bool ttt__params_room(ttt_ctx *c, ttt_params *p, int n) {
    if (p->n + n <= p->capacity) return true;
    int capacity = TTT__MAX(2 * p->capacity, TTT__MAX(64, p->n + n));
    ttt_param *item = (ttt_param *)ttt_alloc(c, (size_t)capacity * sizeof *item, true);
    ttt_tensor **value = (ttt_tensor **)ttt_alloc(c, (size_t)capacity * sizeof *value, true);
    if (!item || !value) return false;
    if (p->n) memcpy(item, p->item, (size_t)p->n * sizeof *item);
    if (p->n) memcpy(value, p->value, (size_t)p->n * sizeof *value);
    p->item = item;
    p->value = value;
    p->capacity = capacity;
    return true;
}

// "prefix/name", or the name alone; printf format. NULL after an error.
static const char *ttt__path(ttt_ctx *c, const char *prefix, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int tail = vsnprintf(NULL, 0, format, args);
    va_end(args);
    size_t head = prefix && *prefix ? strlen(prefix) + 1 : 0, length = head + (size_t)tail + 1;
    char *path = (char *)ttt_alloc(c, length, true);
    if (!path) return NULL;
    if (head) snprintf(path, head + 1, "%s/", prefix);
    va_start(args, format);
    vsnprintf(path + head, length - head, format, args);
    va_end(args);
    return path;
}

// One row's parameter at the end of p, where there is room for it.
static void ttt__params_add_row(ttt_ctx *c, const ttt_param_row *row, const ttt_sizes *sizes,
                                ttt_params *p, const char *prefix) {
    ttt_shape s = ttt_scalar_shape();
    const char *name = ttt__path(c, prefix, "%s", row->name);
    s.rank = ttt__read_sizes(row->shape, sizes, s.dim);
    if (name && s.rank < 0)
        ttt_fail(c, TTT_ERR_ARGUMENT,
                 "%s: its shape \"%s\" has a letter whose size is not set, or not above 0", name,
                 row->shape);
    else if (name && ttt_params_find(p, name))
        ttt_fail(c, TTT_ERR_ARGUMENT, "%s: there is a parameter of this name already", name);
    ttt_tensor *t = ttt_ok(c) ? ttt_zeros_kept(c, s) : NULL;
    if (!ttt_ok(c)) return;
    ttt__initialize(t, row, sizes, ttt_rng_fold(*ttt_ctx_rng(c), ttt__name_hash(name)));
    p->item[p->n].name = name;
    p->item[p->n].flags = row->flags;
    p->value[p->n++] = t;
}

static bool ttt__row_present(const ttt_param_row *row, unsigned options) {
    return (row->only_if & options) == row->only_if;
}
static int ttt__rows_present(const ttt_param_row *rows, int n_rows, unsigned options) {
    int n = 0;
    for (int i = 0; i < n_rows; i++) n += ttt__row_present(&rows[i], options);
    return n;
}

static ttt_weights ttt__no_weights(void) {
    ttt_weights w = { NULL, 0 };
    return w;
}
static ttt_weights ttt__weights(ttt_tensor *const *at, int n) {
    ttt_weights w = { at, n };
    return w;
}
// The end of the list, from parameter `first` on; after an error the list ends there again.
static ttt_weights ttt__params_since(ttt_ctx *c, ttt_params *p, int first) {
    if (!ttt_ok(c)) p->n = first;
    return ttt_ok(c) ? ttt__weights(p->value + first, p->n - first) : ttt__no_weights();
}

ttt_weights ttt_params_add(ttt_ctx *c, const ttt_param_row *rows, int n_rows, unsigned options,
                           const ttt_sizes *sizes, ttt_params *p, const char *prefix) {
    int first = p->n;
    if (!ttt_ok(c) || !ttt__params_room(c, p, ttt__rows_present(rows, n_rows, options)))
        return ttt__no_weights();
    for (int i = 0; i < n_rows && ttt_ok(c); i++)
        if (ttt__row_present(&rows[i], options)) ttt__params_add_row(c, &rows[i], sizes, p, prefix);
    return ttt__params_since(c, p, first);
}

ttt_weights ttt_params_weights(const ttt_params *p) { return ttt__weights(p->value, p->n); }

ttt_tensor *ttt_params_find(const ttt_params *p, const char *name) {
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->item[i].name, name) == 0) return p->value[i];
    return NULL;
}

int64_t ttt_params_count(const ttt_params *p, unsigned flags) {
    int64_t n = 0;
    for (int i = 0; i < p->n; i++)
        if ((p->item[i].flags & flags) == flags) n += p->value[i]->size;
    return n;
}

bool *ttt_params_choose(ttt_ctx *c, const ttt_params *p, const char *part, unsigned flags) {
    bool *chosen = (bool *)ttt_alloc(c, (size_t)p->n * sizeof *chosen, false);
    for (int i = 0; chosen && i < p->n; i++)
        chosen[i] = (!part || strstr(p->item[i].name, part)) && (p->item[i].flags & flags) == flags;
    return chosen;
}

// -- weights as arrays
static bool ttt__weights_alive(ttt_ctx *c, const char *who, ttt_weights w) {
    if (ttt_ok(c) && ttt__arena_released(&c->step, w.at))
        ttt_fail(c, TTT_ERR_RELEASED, "%s: the array of its weights was released", who);
    return ttt_ok(c);
}
static bool ttt__weights_expected(ttt_ctx *c, const char *who, ttt_weights w, int n) {
    if (ttt__weights_alive(c, who, w) && w.n != n)
        ttt_fail(c, TTT_ERR_SHAPE, "%s: %d weights; %d expected", who, w.n, n);
    return ttt_ok(c);
}

ttt_weights ttt_weights_take(ttt_ctx *c, const char *who, ttt_weights *w, int n) {
    if (ttt__weights_alive(c, who, *w) && (n < 0 || n > w->n))
        ttt_fail(c, TTT_ERR_SHAPE, "%s: %d weights expected, but only %d are left", who, n, w->n);
    if (!ttt_ok(c)) return ttt__no_weights();
    ttt_weights part = ttt__weights(w->at, n);
    w->at += n;
    w->n -= n;
    return part;
}

// The next one alone; the empty tensor if there is none.
static ttt_tensor *ttt__weight(ttt_ctx *c, const char *who, ttt_weights *w) {
    ttt_weights one = ttt_weights_take(c, who, w, 1);
    return ttt_ok(c) ? one.at[0] : &c->empty;
}

// Whether `who`'s weight `name`, NULL if it is absent, is what the description asks for.
static bool ttt__weight_good(ttt_ctx *c, const char *who, const char *name, ttt_tensor *w,
                             ttt_shape s) {
    ttt_text got, want;
    if (!ttt_ok(c) || (w && (!ttt__operands(c, name, &w, 1) || ttt_shape_equal(w->shape, s))))
        return ttt_ok(c);
    ttt_fail(c, TTT_ERR_SHAPE, "%s: weight %s is %s, but the description asks for %s; was it "
             "another when they were made?", who, name,
             w ? ttt_shape_text(w->shape, got) : "absent", ttt_shape_text(s, want));
    return false;
}

static ttt_tensor **ttt__weights_room(ttt_ctx *c, int n, bool keep) {
    return (ttt_tensor **)ttt_alloc(c, (size_t)n * sizeof(ttt_tensor *), keep);
}

static ttt_tensor *ttt__copy(ttt_ctx *c, const ttt_tensor *t, bool keep) {
    ttt_tensor *y = ttt_new_typed(c, t->shape, t->dtype, keep);
#define X(name, type, member, text) \
    if (ttt_ok(c) && t->member) memcpy(y->member, t->member, (size_t)t->size * sizeof(type));
    TTT_DTYPES(X)
#undef X
    return y;
}
ttt_weights ttt_weights_copy(ttt_ctx *c, ttt_weights w, bool keep) {
    if (!ttt__weights_alive(c, "weights_copy", w)) return ttt__no_weights();
    ttt_tensor **copy = ttt__weights_room(c, w.n, keep);
    for (int i = 0; copy && i < w.n && ttt__operand(c, "weights_copy", w.at[i], i, ~0); i++) {
        copy[i] = ttt__copy(c, w.at[i], keep);
    }
    return ttt_ok(c) ? ttt__weights(copy, w.n) : ttt__no_weights();
}

// Whether a and b, from weights `who` speaks of, are as many and have the same shapes.
static bool ttt__weights_alike(ttt_ctx *c, const char *who, ttt_weights a, ttt_weights b) {
    ttt_text t0, t1;
    if (!ttt__weights_alive(c, who, a) || !ttt__weights_expected(c, who, b, a.n)) return false;
    for (int i = 0; i < a.n && ttt__operand(c, who, a.at[i], i, TTT__REAL) &&
                    ttt__operand(c, who, b.at[i], i, TTT__REAL);
         i++)
        if (!ttt_shape_equal(a.at[i]->shape, b.at[i]->shape))
            ttt_fail(c, TTT_ERR_SHAPE, "%s: weight %d is %s in one array and %s in the other", who,
                     i, ttt_shape_text(a.at[i]->shape, t0), ttt_shape_text(b.at[i]->shape, t1));
    return ttt_ok(c);
}

ttt_result ttt_weights_blend(ttt_ctx *c, ttt_weights into, ttt_weights from, ttt_real share) {
    if (!ttt__weights_alike(c, "weights_blend", into, from)) return ttt_status(c);
    for (int i = 0; i < into.n; i++) {
        ttt_real *a = into.at[i]->data;
        const ttt_real *b = from.at[i]->data;
        if (share == 1) memmove(a, b, (size_t)into.at[i]->size * sizeof *a);
        else for (int64_t j = 0; j < into.at[i]->size; j++) a[j] += share * (b[j] - a[j]);
    }
    return ttt_status(c);
}

// -- a step of descent
// sqrt v with a finite slope where v is 0, as it is for a weight that no gradient has reached yet.
static ttt_tensor *ttt__root(ttt_ctx *c, ttt_tensor *v) {
    return ttt_mul(c, v, ttt_rsqrt(c, ttt_add_scalar(c, v, (ttt_real)1e-30)));
}

// m = keep m + add g; m NULL: zero
static ttt_tensor *ttt__moment(ttt_ctx *c, ttt_tensor *m, double keep, ttt_tensor *g, double add) {
    ttt_tensor *fresh = add == 1 ? g : ttt_scale(c, g, (ttt_real)add);
    return m ? ttt_add(c, ttt_scale(c, m, (ttt_real)keep), fresh) : fresh;
}

// The direction of weight i of those that move, by the rule, from its gradient.
static ttt_tensor *ttt__direction(ttt_ctx *c, const ttt_descent *d, ttt_descent_state *s,
                                  ttt_tensor **m, ttt_tensor **v, int i, ttt_tensor *g) {
    ttt_tensor *m0 = s && s->steps ? s->m.at[i] : NULL,
               *v0 = s && s->steps && s->v.n ? s->v.at[i] : NULL;
    double b1 = d->beta1 > 0 ? (double)d->beta1 : 0.9, b2 = d->beta2 > 0 ? (double)d->beta2 : 0.999;
    double eps = d->eps > 0 ? (double)d->eps : 1e-8;
    if (d->rule == TTT_DESCENT_PLAIN) return g;
    if (d->rule == TTT_DESCENT_MOMENTUM)
        return m[i] = ttt__moment(c, m0, (double)d->momentum, g, 1);
    m[i] = ttt__moment(c, m0, b1, g, 1 - b1);
    v[i] = ttt__moment(c, v0, b2, ttt_square(c, g), 1 - b2);
    ttt_tensor *mean = ttt_scale(c, m[i], (ttt_real)(1 / (1 - pow(b1, s->steps + 1))));
    ttt_tensor *size =
        ttt__root(c, ttt_scale(c, v[i], (ttt_real)(1 / (1 - pow(b2, s->steps + 1)))));
    return ttt_div(c, mean, ttt_add_scalar(c, size, (ttt_real)eps));
}

// now (n): the weights that move.
static bool ttt__descent_state_good(ttt_ctx *c, const ttt_descent *d, const ttt_descent_state *s,
                                    ttt_tensor *const *now, int n) {
    ttt_text t0, t1;
    if (!ttt_ok(c) || d->rule == TTT_DESCENT_PLAIN) return ttt_ok(c);
    if (!s)
        ttt_fail(c, TTT_ERR_UNSET, "descend: this rule needs a ttt_descent_state, which is NULL");
    if (!s || s->steps == 0) return ttt_ok(c);
    if (s->rule != d->rule) ttt_fail(c, TTT_ERR_ARGUMENT, "descend: the state is of another rule");
    else if (s->m.n != n)
        ttt_fail(c, TTT_ERR_SHAPE, "descend: the state is of %d moving weights, here %d move",
                 s->m.n, n);
    else if (d->rule == TTT_DESCENT_ADAM && s->v.n != n)
        ttt_fail(c, TTT_ERR_SHAPE, "descend: the state has %d second moments for %d moving weights",
                 s->v.n, n);
    const ttt_weights *moment[2] = { &s->m, &s->v };
    for (int k = 0; k <= (d->rule == TTT_DESCENT_ADAM); k++)
        for (int i = 0; i < n && ttt_ok(c) &&
                        ttt__operand(c, "descend: the state", moment[k]->at[i], i, TTT__REAL);
             i++)
            if (!ttt_shape_equal(moment[k]->at[i]->shape, now[i]->shape))
                ttt_fail(c, TTT_ERR_SHAPE,
                         "descend: the state of moving weight %d is %s, the weight %s", i,
                         ttt_shape_text(moment[k]->at[i]->shape, t0),
                         ttt_shape_text(now[i]->shape, t1));
    return ttt_ok(c);
}

// An option that the rule does not have is a mistake.
static bool ttt__descent_options_good(ttt_ctx *c, const ttt_descent *d) {
    if (!ttt_ok(c)) return false;
    if ((unsigned)d->rule > TTT_DESCENT_ADAM)
        ttt_fail(c, TTT_ERR_ARGUMENT, "descend: .rule %d is none", (int)d->rule);
    else if (d->rule != TTT_DESCENT_MOMENTUM && d->momentum != 0)
        ttt_fail(c, TTT_ERR_ARGUMENT, "descend: .momentum is set, which this rule has not");
    else if (d->rule != TTT_DESCENT_ADAM && (d->beta1 != 0 || d->beta2 != 0 || d->eps != 0))
        ttt_fail(c, TTT_ERR_ARGUMENT, "descend: .beta1, .beta2 or .eps is set, which are Adam's");
    else if (d->rates && d->rate != 0)
        ttt_fail(c, TTT_ERR_ARGUMENT, "descend: .rate and .rates are both set");
    return ttt_ok(c);
}

static bool ttt__descent_good(ttt_ctx *c, const ttt_descent *d, ttt_weights w) {
    ttt_text t0, t1;
    ttt_shape both;
    if (!ttt__descent_options_good(c, d)) return false;
    for (int i = 0; i < w.n && d->rates && ttt_ok(c); i++)
        if ((!d->moves || d->moves[i]) &&
            ttt__operand(c, "descend: rates", d->rates[i], i, TTT__REAL) &&
            ttt__operand(c, "descend: weights", w.at[i], i, TTT__REAL) &&
            (!ttt__broadcast_shape(d->rates[i]->shape, w.at[i]->shape, &both) ||
             !ttt_shape_equal(both, w.at[i]->shape)))
            ttt_fail(c, TTT_ERR_SHAPE, "descend: rate %d is %s, its weight %s", i,
                     ttt_shape_text(d->rates[i]->shape, t0), ttt_shape_text(w.at[i]->shape, t1));
    return ttt_ok(c);
}

// A loss that no op made, and that is not among the n tensors, was computed with the tape off.
static bool ttt__on_tape(ttt_ctx *c, const char *who, ttt_tensor *loss, ttt_tensor *const *wrt,
                         int n) {
    bool found = !ttt__operands(c, who, &loss, 1) || loss->op;
    for (int i = 0; i < n && !found; i++) found = wrt[i] == loss;
    if (!found)
        ttt_fail(c, TTT_ERR_ARGUMENT, "%s: the loss is not on the tape; was it computed while "
                 "ttt_set_recording was off?", who);
    return ttt_ok(c);
}

ttt_weights ttt_descend(ttt_ctx *c, const ttt_descent *d, ttt_weights w, ttt_tensor *loss,
                        ttt_descent_state *state) {
    if (!ttt__weights_alive(c, "descend", w)) return ttt__no_weights();
    if (state && !(ttt__weights_alive(c, "descend: the state", state->m) &&
                   ttt__weights_alive(c, "descend: the state", state->v)))
        return ttt__no_weights();
    ttt_tensor **after = ttt__weights_room(c, w.n, false), **now = ttt__weights_room(c, w.n, false);
    ttt_tensor **g = ttt__weights_room(c, w.n, false), **m = ttt__weights_room(c, w.n, false),
               **v = ttt__weights_room(c, w.n, false);
    int n = 0;
    for (int i = 0; i < w.n && ttt_ok(c); i++)
        if (!d->moves || d->moves[i]) now[n++] = w.at[i];
    if (!ttt__descent_good(c, d, w) || !ttt__descent_state_good(c, d, state, now, n) ||
        !ttt__on_tape(c, "descend", loss, now, n))
        return ttt__no_weights();
    bool recording = c->recording, taped = recording && !d->untaped;
    ttt_grad(c, loss, now, n, g, taped && !d->first_order ? TTT_GRAD_RECORD : TTT_GRAD_FIRST_ORDER);
    ttt_set_recording(c, taped);
    for (int i = 0, k = 0; i < w.n && ttt_ok(c); i++) {
        after[i] = w.at[i];
        if (d->moves && !d->moves[i]) continue;
        if (d->first_order) g[k] = ttt_detach(c, g[k]);
        ttt_tensor *u = ttt__direction(c, d, state, m, v, k, g[k]);
        u = d->rates ? ttt_mul(c, u, d->rates[i]) : ttt_scale(c, u, d->rate);
        after[i] = ttt_sub(c, now[k++], u);
    }
    ttt_set_recording(c, recording);
    if (!ttt_ok(c)) return ttt__no_weights();
    if (d->rule != TTT_DESCENT_PLAIN) {
        state->rule = d->rule;
        state->m = ttt__weights(m, n);
        state->v = d->rule == TTT_DESCENT_ADAM ? ttt__weights(v, n) : ttt__no_weights();
        state->steps++;
    }
    return ttt__weights(after, w.n);
}

// ---- PLAIN LAYERS -------------------------------------------------------------------------------
// The letters and, in the same order, their sizes.
static ttt_sizes ttt__sizes(const char *letters, int64_t a, int64_t b, int64_t c, int64_t d) {
    const int64_t size[4] = { a, b, c, d };
    ttt_sizes s = { { 0 } };
    for (int i = 0; letters[i]; i++) s.of[letters[i] & 127] = size[i];
    return s;
}

#define TTT__ROWS(table) table, (int)(sizeof(table) / sizeof(table)[0])

ttt_weights ttt_dense_new(ttt_ctx *c, int64_t in, int64_t out, ttt_init kernel, ttt_params *p,
                          const char *prefix) {
    ttt_param_row rows[] = {
        { "kernel", "I O", kernel, "I", "O", TTT_PARAM_DECAYS, 0 },
        { "bias", "O", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    };
    ttt_sizes s = ttt__sizes("IO", in, out, 0, 0);
    return ttt_params_add(c, TTT__ROWS(rows), 0, &s, p, prefix);
}
ttt_tensor *ttt_dense(ttt_ctx *c, ttt_weights w, ttt_tensor *x) {
    return ttt__weights_expected(c, "dense", w, 2) ? ttt_affine(c, x, w.at[0], w.at[1]) : &c->empty;
}

ttt_weights ttt_layer_norm_new(ttt_ctx *c, int64_t D, ttt_params *p, const char *prefix) {
    static const ttt_param_row rows[] = {
        { "scale", "D", TTT_INIT_ONE, NULL, NULL, 0, 0 },
        { "bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    };
    ttt_sizes s = ttt__sizes("D", D, 0, 0, 0);
    return ttt_params_add(c, TTT__ROWS(rows), 0, &s, p, prefix);
}
static ttt_tensor *ttt__layer_norm_tape(ttt_ctx *c, ttt_tensor *scale, ttt_tensor *bias, ttt_tensor *x) {
    ttt_tensor *z = ttt_layer_normalize(c, x, (ttt_real)TTT_LAYER_NORM_EPS);
    return ttt_add(c, ttt_mul(c, z, scale), bias);
}
static ttt_tensor *ttt__normed_fused(ttt_ctx *c, ttt_tensor *const *w, int n, ttt_tensor *x);
// With scale and bias by themselves, which may have axes that are broadcast: a row for each head.
static ttt_tensor *ttt__layer_norm(ttt_ctx *c, ttt_tensor *scale, ttt_tensor *bias, ttt_tensor *x) {
    ttt_tensor *w[2] = { scale, bias }, *y = ttt__normed_fused(c, w, 2, x);
    return y ? y : ttt__layer_norm_tape(c, scale, bias, x);
}
static int64_t ttt__last(const ttt_tensor *t) {
    return t->shape.rank ? t->shape.dim[t->shape.rank - 1] : 1;
}
ttt_tensor *ttt_layer_norm(ttt_ctx *c, ttt_weights w, ttt_tensor *x) {
    ttt_text t0, t1, t2;
    if (!ttt__weights_expected(c, "layer_norm", w, 2) || !ttt__operands(c, "layer_norm", w.at, 2) ||
        !ttt__operands(c, "layer_norm", &x, 1))
        return &c->empty;
    int64_t D = ttt__last(x);
    if (ttt__last(w.at[0]) != D || w.at[0]->size != D || ttt__last(w.at[1]) != D || w.at[1]->size != D)
        return ttt_fail(c, TTT_ERR_SHAPE, "layer_norm: scale %s and bias %s for rows of x %s",
                        ttt_shape_text(w.at[0]->shape, t0), ttt_shape_text(w.at[1]->shape, t1),
                        ttt_shape_text(x->shape, t2));
    return ttt__layer_norm(c, w.at[0], w.at[1], x);
}

ttt_weights ttt_mlp_new(ttt_ctx *c, int64_t D, int64_t hidden, ttt_params *p, const char *prefix) {
    static const ttt_param_row rows[] = {
        { "Dense_0/kernel", "D M", TTT_INIT_XAVIER, "D", "M", TTT_PARAM_DECAYS, 0 },
        { "Dense_0/bias", "M", TTT_INIT_TINY, NULL, NULL, 0, 0 },
        { "Dense_1/kernel", "M D", TTT_INIT_XAVIER, "M", "D", TTT_PARAM_DECAYS, 0 },
        { "Dense_1/bias", "D", TTT_INIT_TINY, NULL, NULL, 0, 0 },
    };
    ttt_sizes s = ttt__sizes("DM", D, hidden, 0, 0);
    return ttt_params_add(c, TTT__ROWS(rows), 0, &s, p, prefix);
}
static ttt_tensor *ttt__mlp_tape(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *x) {
    return ttt_affine(c, ttt_gelu(c, ttt_affine(c, x, w[0], w[1])), w[2], w[3]);
}
ttt_tensor *ttt_mlp(ttt_ctx *c, ttt_weights w, ttt_tensor *x) {
    return ttt__weights_expected(c, "mlp", w, 4) ? ttt__mlp_tape(c, w.at, x) : &c->empty;
}
static ttt_tensor *ttt__residual_mlp_tape(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *x) {
    return ttt_add(c, x, ttt__mlp_tape(c, w + 2, ttt__layer_norm_tape(c, w[0], w[1], x)));
}
ttt_tensor *ttt_residual_mlp(ttt_ctx *c, ttt_weights w, ttt_tensor *x) {
    if (!ttt__weights_expected(c, "residual_mlp", w, 6)) return &c->empty;
    ttt_tensor *y = ttt__normed_fused(c, w.at, 6, x);
    return y ? y : ttt__residual_mlp_tape(c, w.at, x);
}

ttt_weights ttt_patch_embed_new(ttt_ctx *c, int64_t patch, int64_t channels, int64_t D,
                                ttt_params *p, const char *prefix) {
    static const ttt_param_row rows[] = {
        { "kernel", "P P C D", TTT_INIT_LECUN, "P P C", "D", TTT_PARAM_DECAYS, 0 },
        { "bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    };
    ttt_sizes s = ttt__sizes("PCD", patch, channels, D, 0);
    return ttt_params_add(c, TTT__ROWS(rows), 0, &s, p, prefix);
}
ttt_tensor *ttt_patch_embed(ttt_ctx *c, ttt_weights w, ttt_tensor *images) {
    static const int order[6] = { 0, 1, 3, 2, 4, 5 };  // (B,rows,P,cols,P,C) -> (B,rows,cols,P,P,C)
    if (!ttt__weights_expected(c, "patch_embed", w, 2) || !ttt__operands(c, "patch_embed", w.at, 2))
        return &c->empty;
    ttt_shape k = w.at[0]->shape, s = images->shape;
    ttt_text t;
    if (k.rank != 4 || k.dim[0] != k.dim[1] || k.dim[0] < 1)
        return ttt_fail(c, TTT_ERR_SHAPE,
                        "patch_embed: a kernel of shape %s; (patch,patch,channels,D) expected",
                        ttt_shape_text(k, t));
    int64_t P = k.dim[0], C = k.dim[2], D = k.dim[3];
    if (s.rank != 4 || s.dim[3] != C || s.dim[1] % P || s.dim[2] % P)
        return ttt_fail(c, TTT_ERR_SHAPE,
                        "patch_embed: images of shape %s; (B,height,width,%lld) with sides "
                        "divisible by the patch, %lld, expected",
                        ttt_shape_text(s, t), (long long)C, (long long)P);
    int64_t B = s.dim[0], rows = s.dim[1] / P, cols = s.dim[2] / P;
    ttt_tensor *x = ttt_permute(c, ttt_reshape(c, images, TTT_SHAPE(B, rows, P, cols, P, C)), order);
    x = ttt_reshape(c, x, TTT_SHAPE(B, rows * cols, P * P * C));
    return ttt_affine(c, x, ttt_reshape(c, w.at[0], TTT_SHAPE(P * P * C, D)), w.at[1]);
}

// The code of the places 0 .. n-1 along one axis, (n,2 quarter): sines, then cosines.
static ttt_tensor *ttt__sincos(ttt_ctx *c, int64_t n, int64_t quarter) {
    ttt_tensor *t = ttt_new(c, TTT_SHAPE(n, 2 * quarter));
    for (int64_t j = 0; ttt_ok(c) && j < quarter; j++) {
        double omega = quarter > 1 ? pow(10000, -(double)j / (double)(quarter - 1)) : 1;
        for (int64_t i = 0; i < n; i++) {
            t->data[i * 2 * quarter + j] = (ttt_real)sin((double)i * omega);
            t->data[i * 2 * quarter + quarter + j] = (ttt_real)cos((double)i * omega);
        }
    }
    return t;
}
ttt_tensor *ttt_sincos2d(ttt_ctx *c, int64_t rows, int64_t cols, int64_t D) {
    int64_t half = D / 2;
    if (ttt_ok(c) && (D % 4 != 0 || D < 4))
        return ttt_fail(c, TTT_ERR_ARGUMENT, "sincos2d: width %lld; a multiple of 4 expected", (long long)D);
    ttt_tensor *t = ttt_new(c, TTT_SHAPE(1, rows * cols, D)), *x = ttt__sincos(c, cols, half / 2),
               *y = ttt__sincos(c, rows, half / 2);
    for (int64_t i = 0; ttt_ok(c) && i < rows * cols; i++) {
        memcpy(t->data + i * D, x->data + i % cols * half, (size_t)half * sizeof *t->data);
        memcpy(t->data + i * D + half, y->data + i / cols * half, (size_t)half * sizeof *t->data);
    }
    return t;
}

// max(x, 0) + e^min(x, 0). min(x, 0) is x - max(x, 0), so that at 0 one of the two has slope 1, and not both 0.
static ttt_tensor *ttt__elu1(ttt_ctx *c, ttt_tensor *x) {
    ttt_tensor *above = ttt_relu(c, x);
    return ttt_add(c, above, ttt_exp(c, ttt_sub(c, x, above)));
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

// ---- LEARNERS -----------------------------------------------------------------------------------
static ttt_tensor *ttt__affine_maybe(ttt_ctx *c, ttt_tensor *x, ttt_tensor *w, ttt_tensor *b) {
    return b ? ttt_affine(c, x, w, b) : ttt_matmul(c, x, w);
}

static ttt_tensor *ttt__linear_features(ttt_ctx *c, const void *desc, ttt_weights w,
                                        ttt_tensor *x) {
    (void)c, (void)desc, (void)w;
    return x;
}
static ttt_tensor *ttt__linear_predict(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    (void)desc;
    return ttt__affine_maybe(c, x, w.at[0], w.n > 1 ? w.at[1] : NULL);
}
static const ttt_param_row ttt__linear_rows[] = {
    { "inner_Dense_0/kernel", "H h h", TTT_INIT_XAVIER, "h", "h", TTT_PARAM_DECAYS | TTT_PARAM_INNER, 0 },
    { "inner_Dense_0/bias", "H h", TTT_INIT_ZERO, NULL, NULL, TTT_PARAM_INNER, TTT_LEARNER_BIAS },
};
const ttt_learner ttt_learner_linear = {
    "linear", TTT__ROWS(ttt__linear_rows), ttt__linear_predict, 1, ttt__linear_features, NULL, false,
};

// Two kernels, or four weights with the biases.
static ttt_tensor *ttt__mlp_features(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    (void)desc;
    return ttt_gelu(c, ttt__affine_maybe(c, x, w.at[0], w.n == 4 ? w.at[1] : NULL));
}
static ttt_tensor *ttt__mlp_predict(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    return ttt__affine_maybe(c, ttt__mlp_features(c, desc, w, x), w.at[w.n / 2],
                             w.n == 4 ? w.at[3] : NULL);
}
static const ttt_param_row ttt__mlp_rows[] = {
    { "inner_Dense_0/kernel", "H h 4h", TTT_INIT_XAVIER, "h", "4h", TTT_PARAM_DECAYS | TTT_PARAM_INNER, 0 },
    { "inner_Dense_0/bias", "H 4h", TTT_INIT_ZERO, NULL, NULL, TTT_PARAM_INNER, TTT_LEARNER_BIAS },
    { "inner_Dense_1/kernel", "H 4h h", TTT_INIT_XAVIER, "4h", "h", TTT_PARAM_DECAYS | TTT_PARAM_INNER, 0 },
    { "inner_Dense_1/bias", "H h", TTT_INIT_ZERO, NULL, NULL, TTT_PARAM_INNER, TTT_LEARNER_BIAS },
};
const ttt_learner ttt_learner_mlp = {
    "mlp", TTT__ROWS(ttt__mlp_rows), ttt__mlp_predict, 8, ttt__mlp_features, NULL, false,
};

// ---- INNER LOOP ---------------------------------------------------------------------------------
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
    return ttt_index_select(c, x, ttt_from_int(c, TTT_SHAPE(H, index ? n : 0), index));
}

static ttt_tensor *ttt__inner_loss(ttt_ctx *c, const ttt_inner *in, ttt_weights w,
                                   ttt_tensor *train, ttt_tensor *label) {
    return in->loss(c, in->loss_arg, in->learner->predict(c, in->learner->desc, w, train), label);
}
// What a step writes into a last layer that is linear: the features of its tokens, and -eta times
// the gradient of the loss in their predictions.
static void ttt__inner_pairs(ttt_ctx *c, const ttt_inner *in, ttt_weights w, int t,
                             ttt_tensor *rate, ttt_tensor **key, ttt_tensor **value) {
    ttt_tensor *train = ttt__part(c, in, in->train, t),
               *e = in->learner->predict(c, in->learner->desc, w, train), *g;
    ttt_grad(c, in->loss(c, in->loss_arg, e, ttt__part(c, in, in->label, t)), &e, 1, &g,
             TTT_GRAD_FIRST_ORDER);
    g = ttt_detach(c, g);
    *key = in->learner->features(c, in->learner->desc, w, train);
    *value = ttt_scale(c, rate ? ttt_mul(c, g, rate) : ttt_scale(c, g, in->rates[t]), -1);
}

// order: integers (H,L) for the mini-batches, or NULL.
static bool ttt__inner_good(ttt_ctx *c, int steps, bool has_rates, const ttt_tensor *order,
                            int64_t H) {
    if (!ttt_ok(c)) return false;
    int64_t L = order && order->index && order->shape.rank == 2 ? order->shape.dim[1] : -1;
    if (!has_rates) ttt_fail(c, TTT_ERR_UNSET, "inner loop: its rates (inner_lr) have no default and were not set");
    else if (steps < 1 || steps > TTT_MAX_INNER_STEPS)
        ttt_fail(c, TTT_ERR_ARGUMENT, "inner loop: %d steps; 1 to %d expected", steps, TTT_MAX_INNER_STEPS);
    else if (order && (L < 0 || order->shape.dim[0] != H))
        ttt_fail(c, TTT_ERR_SHAPE, "inner loop: the order of tokens must be integers of shape (%lld,L)", (long long)H);
    else if (order && (L % steps || L == 0))
        ttt_fail(c, TTT_ERR_SHAPE, "inner loop: %lld tokens cannot be cut into %d equal mini-batches (inner_steps with inner_sgd)", (long long)L, steps);
    return ttt_ok(c);
}

// The weights before the first step: of each sequence and head, unless they are one set.
static ttt_weights ttt__inner_start(ttt_ctx *c, const ttt_inner *in, ttt_weights w0) {
    if (in->learner->one_set) return w0;
    ttt_tensor **w = ttt__weights_room(c, w0.n, false);
    for (int i = 0; w && i < w0.n && ttt__operands(c, in->learner->name, &w0.at[i], 1); i++)
        w[i] = ttt__lift_weight(c, w0.at[i], in->train->shape.dim[0]);
    return ttt__weights(w, w0.n);
}

// Step t, and in `rate` the learned one, of all weights; NULL if it is a constant.
static ttt_weights ttt__inner_step(ttt_ctx *c, const ttt_inner *in, int t, bool record,
                                   ttt_weights w, ttt_tensor *loss, ttt_tensor *rate) {
    ttt_descent d;
    memset(&d, 0, sizeof d);
    d.rate = rate ? 0 : in->rates[t];
    ttt_tensor **same = rate ? ttt__weights_room(c, w.n, false) : NULL;
    for (int i = 0; same && i < w.n; i++) same[i] = rate;
    d.rates = same;
    d.first_order = in->first_order;
    d.untaped = !record;
    return ttt_descend(c, &d, w, loss, NULL);
}

ttt_weights ttt_inner_loop(ttt_ctx *c, const ttt_inner *in, ttt_weights w0, ttt_tensor **losses) {
    if (!ttt_ok(c) || !ttt__inner_good(c, in->steps, in->rates || in->learned_rates, in->order,
                                       in->train->shape.dim[1]))
        return ttt__no_weights();
    ttt_tensor *loss[TTT_MAX_INNER_STEPS + 1], *key[TTT_MAX_INNER_STEPS],
        *value[TTT_MAX_INNER_STEPS];
    bool record = ttt_set_recording(c, true);  // the inner gradient needs the tape even if nothing else does
    ttt_weights w = ttt__inner_start(c, in, w0);
    int T = in->steps;
    for (int t = 0; t < T && ttt_ok(c); t++) {
        ttt_tensor *rate = in->learned_rates ? ttt_slice(c, in->learned_rates, 0, t, 1) : NULL;
        if (in->unmask) ttt__inner_pairs(c, in, w, t, rate, &key[t], &value[t]);
        loss[t] = ttt__inner_loss(c, in, w, ttt__part(c, in, in->train, t),
                                  ttt__part(c, in, in->label, t));
        w = ttt__inner_step(c, in, t, record, w, loss[t], rate);
    }
    ttt_set_recording(c, record);
    if (!ttt_ok(c)) return ttt__no_weights();
    if (in->unmask) in->unmask->key = ttt_concat(c, key, T, 2), in->unmask->value = ttt_concat(c, value, T, 2);
    if (losses) {
        loss[T] = ttt__inner_loss(c, in, w, in->train, in->label);
        for (int t = 0; t <= T; t++) loss[t] = ttt_reshape(c, loss[t], TTT_SHAPE(1));
        *losses =
            ttt_scale(c, ttt_concat(c, loss, T + 1, 0), 1 / (ttt_real)in->train->shape.dim[0]);
    }
    return ttt_ok(c) ? w : ttt__no_weights();
}

// ---- MIXERS -------------------------------------------------------------------------------------
// -- MTTT: a learner that reconstructs the sequence from a view of itself.     [arXiv 2310.13807, §3]
// Heads do not split the features: each sees the whole token x (D) and maps it down to h.
//   train view  k = x phi + b_phi              test view  q = x psi + b_psi
//   reconstruction  r = LN( f_W(k) g + b_g )   loss  l = H / (2 |S| D) sum over S of |r - x|^2
//   output  y = sum over heads of f_W(q) h + b_h,  W after the inner loop
// x is input and target at once, and the outer gradient flows into both.
enum { TTT__DECODER_NORM = 2, TTT__LEARNED_RATES = 4 };  // options beside TTT_LEARNER_BIAS
#define TTT__MTTT_ROWS(X)                                                                          \
    X(PHI_KERNEL, "phi/kernel", "H D h", TTT_INIT_UNIFORM_IN, "D", "h", TTT_PARAM_DECAYS, 0)       \
    X(PHI_BIAS, "phi/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                \
    X(PSI_KERNEL, "psi/kernel", "H D h", TTT_INIT_UNIFORM_IN, "D", "h", TTT_PARAM_DECAYS, 0)       \
    X(PSI_BIAS, "psi/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                \
    X(G_KERNEL, "g/kernel", "H h D", TTT_INIT_UNIFORM_OUT, "h", "D", TTT_PARAM_DECAYS, 0)          \
    X(G_BIAS, "g_bias", "1 D", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                    \
    X(H_KERNEL, "h/kernel", "H h D", TTT_INIT_UNIFORM_OUT, "h", "D", TTT_PARAM_DECAYS, 0)          \
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
#define TTT__AS_ROW(id, name, shape, init, fan_in, fan_out, flags, only_if) { name, shape, init, fan_in, fan_out, flags, only_if },
static const ttt_param_row ttt__mttt_rows[] = { TTT__MTTT_ROWS(TTT__AS_ROW) };

// (H,a) -> (H,1,a): a row for each head, as affine wants its bias
static ttt_tensor *ttt__head_row(ttt_ctx *c, ttt_tensor *b) { return ttt_reshape(c, b, TTT_SHAPE(b->shape.dim[0], 1, b->shape.dim[1])); }

// l summed over sequences and heads; e (B,H,n,h), x (B,1 or H,n,D)
static ttt_tensor *ttt__mttt_loss(ttt_ctx *c, const void *arg, ttt_tensor *e, ttt_tensor *x) {
    ttt_tensor *const *w = (ttt_tensor *const *)arg;
    ttt_tensor *r = ttt_affine(c, e, w[TTT__MTTT_G_KERNEL], w[TTT__MTTT_G_BIAS]);
    if (!ttt_ok(c)) return r;
    if (w[TTT__MTTT_LN_SCALE])
        r = ttt__layer_norm(c, ttt__head_row(c, w[TTT__MTTT_LN_SCALE]),
                            ttt__head_row(c, w[TTT__MTTT_LN_BIAS]), r);
    int64_t H = e->shape.dim[1], n = e->shape.dim[2], D = x->shape.dim[3];
    return ttt_scale(c, ttt_sum(c, ttt_square(c, ttt_sub(c, r, x))), (ttt_real)H / (ttt_real)(2 * n * D));
}

// Of n tensors, one a row, those that are there.
static ttt_weights ttt__present(ttt_ctx *c, ttt_tensor *const *w, int n) {
    ttt_tensor **at = ttt__weights_room(c, n, false);
    int present = 0;
    for (int i = 0; at && i < n; i++)
        if (w[i]) at[present++] = w[i];
    return ttt__weights(at, present);
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

static void ttt__mttt_unmask(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *query, ttt_tensor *read);
static ttt_tensor *ttt__mttt_tape(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    int64_t B = x->shape.dim[0], N = x->shape.dim[1], D = d->dim, T = d->inner_steps ? d->inner_steps : 1;
    ttt_tensor *tokens = ttt_reshape(c, x, TTT_SHAPE(B, 1, N, D));
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
    in.unmask = d->unmask && in.learner->features ? d->unmask : NULL;
    ttt_weights after =
        ttt_inner_loop(c, &in, ttt__present(c, w + TTT__MTTT_W0, in.learner->n_rows), losses);
    if (!ttt_ok(c)) return ttt_detach(c, x);

    ttt_tensor *test = ttt_affine(c, tokens, w[TTT__MTTT_PSI_KERNEL], ttt__head_row(c, w[TTT__MTTT_PSI_BIAS]));
    ttt_tensor *read = in.learner->predict(c, in.learner->desc, after, test);
    if (d->unmask)
        ttt__mttt_unmask(c, d, w,
                         in.unmask ? in.learner->features(c, in.learner->desc, after, test) : NULL,
                         read);
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

// -- words that the mixers share
// What a mixer fills in for ttt_unmask, see [6].
static void ttt__unmask_matrix(ttt_ctx *c, ttt_unmasked *u, ttt_tensor *matrix, ttt_tensor *v, ttt_tensor *read);
static void ttt__unmask_features(ttt_ctx *c, ttt_unmasked *u, ttt_tensor *q, ttt_tensor *k, ttt_tensor *v, ttt_tensor *start, ttt_tensor *read);
static void ttt__unmask_weighted(ttt_ctx *c, ttt_unmasked *u, ttt_tensor *q, ttt_tensor *k, ttt_tensor *v, ttt_tensor *weights, bool bias, ttt_tensor *read);
static void ttt__unmask_start(ttt_ctx *c, ttt_unmasked *u, ttt_tensor *kernel, ttt_tensor *bias, ttt_tensor *carry);
static void ttt__linear_attention_unmask(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *q, ttt_tensor *k, ttt_tensor *v, ttt_tensor *y);

// Rows begin .. begin+n of the tokens of x (B,H,N,d); x itself if that is all, NULL if there is none.
static ttt_tensor *ttt__tokens(ttt_ctx *c, ttt_tensor *x, int64_t begin, int64_t n) {
    return !x || !ttt_ok(c) || n == x->shape.dim[2] ? x : ttt_slice(c, x, 2, begin, n);
}
// x times a kernel (D,.) without bias, heads apart: (B,H,N,./H)
static ttt_tensor *ttt__heads_of(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *x, ttt_tensor *kernel) {
    return ttt_split_heads(c, ttt_matmul(c, x, kernel), d->heads);
}
// A number for each head and token, x kernel (D,H) + bias: (B,H,N,1)
static ttt_tensor *ttt__gate(ttt_ctx *c, ttt_tensor *x, ttt_tensor *kernel, ttt_tensor *bias) {
    ttt_tensor *z = ttt__affine_maybe(c, x, kernel, bias);
    return ttt_ok(c) ? ttt_split_heads(c, z, kernel->shape.dim[1]) : z;
}
// ln(1 + e^x) = max(x,0) + ln(1 + e^-|x|). -|x| is x - 2 max(x,0), whose slope at 0 is 1: the sum's
// is then 1/2, as it should be.
static ttt_tensor *ttt__softplus(ttt_ctx *c, ttt_tensor *x) {
    ttt_tensor *above = ttt_relu(c, x);
    return ttt_add(
        c, above,
        ttt_log(c, ttt_add_scalar(c, ttt_exp(c, ttt_sub(c, x, ttt_scale(c, above, 2))), 1)));
}
static ttt_tensor *ttt__log_sigmoid(ttt_ctx *c, ttt_tensor *x) { return ttt_scale(c, ttt__softplus(c, ttt_scale(c, x, -1)), -1); }
// x / (|x|^2 + eps)^(1/2) over the last axis
static ttt_tensor *ttt__unit(ttt_ctx *c, ttt_tensor *x, double eps) {
    double h = ttt_ok(c) ? (double)x->shape.dim[x->shape.rank - 1] : 1;
    return ttt_scale(c, ttt_rms_normalize(c, x, (ttt_real)(eps / h)), (ttt_real)(1 / sqrt(h)));
}
static ttt_tensor *ttt__rms_norm(ttt_ctx *c, ttt_tensor *x, ttt_tensor *scale) {
    return ttt_mul(c, ttt_rms_normalize(c, x, (ttt_real)1e-5), scale);
}

// (n,n): 1 at k <= i, 0 above
static ttt_tensor *ttt__lower(ttt_ctx *c, int64_t n) {
    ttt_tensor *t = ttt_zeros(c, TTT_SHAPE(n, n));
    for (int64_t i = 0; ttt_ok(c) && i < n; i++)
        for (int64_t k = 0; k <= i; k++) t->data[i * n + k] = 1;
    return t;
}

// From the logarithms g (B,H,n,1) of what is kept at each token: since (B,H,n,1), what is left at token i
// of what was there before the first, e^(g_0 + .. + g_i), and between (B,H,n,n), what is left at i of what
// came in at k <= i, e^(g_k+1 + .. + g_i); 0 above.
static void ttt__decay(ttt_ctx *c, ttt_tensor *g, ttt_tensor **since, ttt_tensor **between) {
    if (!ttt_ok(c)) return;
    ttt_tensor *lower = ttt__lower(c, g->shape.dim[2]), *sum = ttt_matmul(c, lower, g);
    ttt_tensor *gap = ttt_mul(c, ttt_sub(c, sum, ttt_transpose(c, sum)), lower);  // 0 above: e^gap cannot overflow
    *since = ttt_exp(c, sum);
    *between = ttt_mul(c, ttt_exp(c, gap), lower);
}

// A depthwise convolution with zeros beyond the border: y_i = sum over taps t of kernel_t x_at(i,t), x (...,N,d),
// kernel (taps,d) or with the same leading sizes as x; at[i * taps + t] is a token or -1.
static ttt_tensor *ttt__taps(ttt_ctx *c, ttt_tensor *x, const int64_t *at, int64_t taps) {  // (...,N,taps,d)
    if (!ttt_ok(c) || !at) return x;
    ttt_shape s = x->shape;
    int axis = s.rank - 2;
    int64_t N = s.dim[axis], *index = (int64_t *)ttt_alloc(c, (size_t)(N * taps) * sizeof *index, false);
    for (int64_t i = 0; index && i < N * taps; i++) index[i] = at[i] < 0 ? N : at[i];
    ttt_tensor *padded = ttt_pad(c, x, axis, 0, N + 1),
               *rows = ttt_index_select(c, padded,
                                        ttt_from_int(c, TTT_SHAPE(index ? N * taps : 0), index));
    s.dim[s.rank] = s.dim[s.rank - 1];
    s.dim[s.rank - 1] = taps;
    s.rank++;
    return ttt_reshape(c, rows, s);
}
static ttt_tensor *ttt__depthwise(ttt_ctx *c, ttt_tensor *x, ttt_tensor *kernel, const int64_t *at, int64_t taps) {
    if (!ttt_ok(c)) return x;
    return ttt_reshape(c, ttt_sum_axis(c, ttt_mul(c, ttt__taps(c, x, at, taps), kernel), -2), x->shape);
}
// The taps of a square of `side` tokens around each token of a grid, and of the last `taps` tokens of a line.
static int64_t *ttt__grid_taps(ttt_ctx *c, int64_t rows, int64_t cols, int64_t side) {
    int64_t *at = (int64_t *)ttt_alloc(c, (size_t)(rows * cols * side * side) * sizeof *at, false), *p = at, reach = side / 2;
    for (int64_t i = 0; at && i < rows * cols; i++)
        for (int64_t y = i / cols - reach; y <= i / cols + reach; y++)
            for (int64_t x = i % cols - reach; x <= i % cols + reach; x++) *p++ = y < 0 || y >= rows || x < 0 || x >= cols ? -1 : y * cols + x;
    return at;
}
static int64_t *ttt__causal_taps(ttt_ctx *c, int64_t N, int64_t taps) {
    int64_t *at = (int64_t *)ttt_alloc(c, (size_t)(N * taps) * sizeof *at, false);
    for (int64_t i = 0; at && i < N * taps; i++) at[i] = i / taps - (taps - 1) + i % taps < 0 ? -1 : i / taps - (taps - 1) + i % taps;
    return at;
}

static bool ttt__need(ttt_ctx *c, bool good, const ttt_mixer_desc *d, const char *field, int64_t value, const char *expected) {
    if (!good && ttt_ok(c)) ttt_fail(c, TTT_ERR_ARGUMENT, "%s: .%s is %lld; %s", d->mixer->name, field, (long long)value, expected);
    return ttt_ok(c);
}
static void ttt__check_grid(ttt_ctx *c, const ttt_mixer_desc *d, int64_t N) {
    int64_t size = d->grid_rows * d->grid_cols;
    if (!ttt__need(c, d->grid_rows > 0, d, "grid_rows", d->grid_rows, "this layer sees tokens as a grid and needs its sides")) return;
    if (!ttt__need(c, d->grid_cols > 0, d, "grid_cols", d->grid_cols, "this layer sees tokens as a grid and needs its sides")) return;
    if (N >= 0) ttt__need(c, d->globals + size == N, d, "grid_rows", d->grid_rows, "globals + grid_rows x grid_cols must be the number of tokens");
}

// -- attention
// Y = softmax(scores + what may not be seen) V. With ttt_unmask, the matrix is the softmax itself.
static ttt_tensor *ttt__attend(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *scores, ttt_tensor *hidden, ttt_tensor *v) {
    ttt_tensor *a = ttt_softmax(c, hidden ? ttt_add(c, scores, hidden) : scores), *y = ttt_matmul(c, a, v);
    if (d->unmask) ttt__unmask_matrix(c, d->unmask, a, v, y);
    return y;
}
#define TTT__HIDDEN ((ttt_real)-1e30)  // added to a score whose key is not seen: e^x is exactly 0, and so is its gradient
// (n,N): hides from each of the first n tokens all that come later.
static ttt_tensor *ttt__future(ttt_ctx *c, int64_t n, int64_t N) {
    ttt_tensor *hidden = ttt_zeros(c, TTT_SHAPE(n, N));
    for (int64_t i = 0; ttt_ok(c) && i < n; i++)
        for (int64_t k = i + 1; k < N; k++) hidden->data[i * N + k] = TTT__HIDDEN;
    return hidden;
}

#define TTT__LINEAR_ATTENTION_ROWS(X)                                                              \
    X(Q_KERNEL, "query/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0)             \
    X(Q_BIAS, "query/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                  \
    X(K_KERNEL, "key/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0)               \
    X(K_BIAS, "key/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                    \
    X(V_KERNEL, "value/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0)             \
    X(V_BIAS, "value/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                  \
    X(O_KERNEL, "proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0)              \
    X(O_BIAS, "proj/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)
#define TTT__SELF_ATTENTION_ROWS(X)                                                                \
    X(Q_KERNEL, "query/kernel", "D H h", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0)           \
    X(Q_BIAS, "query/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                \
    X(K_KERNEL, "key/kernel", "D H h", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0)             \
    X(K_BIAS, "key/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                  \
    X(V_KERNEL, "value/kernel", "D H h", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0)           \
    X(V_BIAS, "value/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                \
    X(O_KERNEL, "out/kernel", "H h D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0)             \
    X(O_BIAS, "out/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)
enum {
#define X(id, name, shape, init, fan_in, fan_out, flags, only_if) TTT__ATTENTION_##id,
    TTT__LINEAR_ATTENTION_ROWS(X)
#undef X
    TTT__ATTENTION_N
};
static const ttt_param_row ttt__linear_attention_rows[] = { TTT__LINEAR_ATTENTION_ROWS(TTT__AS_ROW) };
static const ttt_param_row ttt__self_attention_rows[] = { TTT__SELF_ATTENTION_ROWS(TTT__AS_ROW) };

// x times the kernel of row `which`, whatever heads its shape shows, plus its bias: (B,N,D)
static ttt_tensor *ttt__project(ttt_ctx *c, ttt_tensor *const *w, int which, ttt_tensor *x) {
    int64_t D = x->shape.dim[2];
    return ttt_affine(c, x, ttt_reshape(c, w[which], TTT_SHAPE(D, D)), ttt_reshape(c, w[which + 1], TTT_SHAPE(D)));
}
static ttt_tensor *ttt__project_heads(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, int which, ttt_tensor *x) {
    return ttt_split_heads(c, ttt__project(c, w, which, x), d->heads);
}

// y = softmax(q k^T / sqrt h) v, heads apart                                         [Vaswani 2017]
static ttt_tensor *ttt__self_attention_tape(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    ttt_tensor *q = ttt__project_heads(c, d, w, TTT__ATTENTION_Q_KERNEL, x);
    ttt_tensor *k = ttt__project_heads(c, d, w, TTT__ATTENTION_K_KERNEL, x);
    ttt_tensor *v = ttt__project_heads(c, d, w, TTT__ATTENTION_V_KERNEL, x);
    ttt_real scale = (ttt_real)(1 / sqrt((double)(d->dim / d->heads)));
    if (d->unmask) d->unmask->equals = "softmax self-attention";
    ttt_tensor *y = ttt__attend(c, d, ttt_scale(c, ttt_matmul_t(c, q, k, false, true), scale), d->causal ? ttt__future(c, x->shape.dim[1], x->shape.dim[1]) : NULL, v);
    (void)losses;
    return ttt__project(c, w, TTT__ATTENTION_O_KERNEL, ttt_join_heads(c, y));
}
static double ttt__self_attention_flops(const ttt_mixer_desc *d, int64_t N) {
    double n = (double)N, D = (double)d->dim;
    return 2 * (4 * n * D * D + 2 * n * n * D);
}

// y = q (k^T v) / normalizer, q and k mapped by elu + 1 or as they are          [Katharopoulos 2020]
// Never N x N: k^T v is h x h, which is why its cost is linear in N.
static ttt_tensor *ttt__causal_linear(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *q, ttt_tensor *k, ttt_tensor *v);
static ttt_tensor *ttt__all_linear(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *q, ttt_tensor *k, ttt_tensor *v) {
    ttt_tensor *y = ttt_matmul(c, q, ttt_matmul_t(c, k, v, true, false));
    if (d->normalizer == TTT_NORMALIZER_NONE || !ttt_ok(c)) return y;
    if (d->normalizer == TTT_NORMALIZER_CONSTANT)
        return ttt_scale(c, y, 1 / (ttt_real)(v->shape.dim[2] * v->shape.dim[3]));
    return ttt_div(c, y, ttt_matmul_t(c, q, ttt_sum_axis(c, k, -2), false, true));
}
static ttt_tensor *ttt__linear_attention_tape(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    ttt_tensor *q = ttt__project(c, w, TTT__ATTENTION_Q_KERNEL, x), *k = ttt__project(c, w, TTT__ATTENTION_K_KERNEL, x);
    if (!d->identity_map) {
        q = ttt__elu1(c, q);
        k = ttt__elu1(c, k);
    }
    q = ttt_split_heads(c, q, d->heads);
    k = ttt_split_heads(c, k, d->heads);
    ttt_tensor *v = ttt__project_heads(c, d, w, TTT__ATTENTION_V_KERNEL, x);
    ttt_tensor *y = d->causal ? ttt__causal_linear(c, d, q, k, v) : ttt__all_linear(c, d, q, k, v);
    (void)losses;
    if (d->unmask) ttt__linear_attention_unmask(c, d, q, k, v, y);
    return ttt__project(c, w, TTT__ATTENTION_O_KERNEL, ttt_join_heads(c, y));
}
static double ttt__linear_attention_flops(const ttt_mixer_desc *d, int64_t N) {
    double n = (double)N, D = (double)d->dim, h = D / (double)d->heads;
    return 2 * (4 * n * D * D + 2 * n * D * h);
}

// Attention as learning without parameters: to train is to append (k_s, v_s) to a list, to predict is
// the Nadaraya-Watson estimate  f(q) = sum_s kappa(q, k_s) v_s / sum_s kappa(q, k_s) [Nadaraya 1964,
// Watson 1964]. With kappa = e^(q k / sqrt h) this is self-attention [arXiv 2407.04620, Theorem 2]; a
// Gaussian of b^2 = sqrt h is the same where keys have equal norms, since |q|^2 and |k|^2 drop out.
// Nearest: only the largest kernels count, as in k-NN attention [arXiv 2106.00515].
static int64_t ttt__neighbors(const ttt_mixer_desc *d) { return d->neighbors ? d->neighbors : 8; }
// 0 where a score is among the k largest of its row, HIDDEN elsewhere; of equal ones the first.
static ttt_tensor *ttt__all_but_nearest(ttt_ctx *c, const ttt_tensor *scores, int64_t k) {
    ttt_tensor *t = ttt_full(c, scores->shape, TTT__HIDDEN);
    int64_t N = ttt_ok(c) ? scores->shape.dim[scores->shape.rank - 1] : 0;
    for (int64_t r = 0; N > 0 && r < scores->size / N; r++) {
        const ttt_real *s = scores->data + r * N;
        ttt_real *seen = t->data + r * N;
        for (int64_t n = 0; n < TTT__MIN(k, N); n++) {
            int64_t best = -1;
            for (int64_t i = 0; i < N; i++)
                if (seen[i] != 0 && (best < 0 || s[i] > s[best])) best = i;
            seen[best] = 0;
        }
    }
    return t;
}
static ttt_tensor *ttt__kernel_scores(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *q, ttt_tensor *k) {
    double root = sqrt((double)(d->dim / d->heads)), b = d->bandwidth > 0 ? (double)d->bandwidth : sqrt(root);
    ttt_tensor *qk = ttt_matmul_t(c, q, k, false, true);
    if (d->kernel == TTT_ATTENTION_KERNEL_EXPONENTIAL)
        return ttt_scale(c, qk, (ttt_real)(1 / root));
    ttt_tensor *norms = ttt_transpose(c, ttt_sum_axis(c, ttt_square(c, k), -1));  // |q|^2 is the same for a row
    return ttt_scale(c, ttt_sub(c, qk, ttt_scale(c, norms, (ttt_real)0.5)), (ttt_real)(1 / (b * b)));
}
static ttt_tensor *ttt__nadaraya_watson_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    ttt_tensor *q = ttt__project_heads(c, d, w, TTT__ATTENTION_Q_KERNEL, x), *k = ttt__project_heads(c, d, w, TTT__ATTENTION_K_KERNEL, x);
    ttt_tensor *v = ttt__project_heads(c, d, w, TTT__ATTENTION_V_KERNEL, x), *scores = ttt__kernel_scores(c, d, q, k), *hidden = NULL;
    if (d->causal) hidden = ttt__future(c, x->shape.dim[1], x->shape.dim[1]);
    if (d->kernel == TTT_ATTENTION_KERNEL_NEAREST) {
        ttt_tensor *seen = hidden ? ttt_add(c, scores, hidden) : scores;
        ttt_tensor *others = ttt__all_but_nearest(c, seen, ttt__neighbors(d));
        hidden = hidden ? ttt_add(c, hidden, others) : others;
    }
    (void)losses;
    if (d->unmask)
        d->unmask->equals = d->kernel == TTT_ATTENTION_KERNEL_EXPONENTIAL
                                ? "softmax self-attention: the estimate with the exponential kernel"
                                : "a kernel estimate (Nadaraya-Watson)";
    ttt_tensor *y = ttt__attend(c, d, scores, hidden, v);
    return ttt__project(c, w, TTT__ATTENTION_O_KERNEL, ttt_join_heads(c, y));
}
static void ttt__nadaraya_watson_check(ttt_ctx *c, const ttt_mixer_desc *d, int64_t N) {
    if (!ttt__need(c, d->neighbors >= 0, d, "neighbors", d->neighbors, "at least 1 expected"))
        return;
    if (d->kernel == TTT_ATTENTION_KERNEL_NEAREST && N > 0)
        ttt__need(c, d->neighbors <= N, d, "neighbors", d->neighbors,
                  "no more than the number of tokens expected");
    if (ttt_ok(c) && !(d->bandwidth >= 0)) ttt_fail(c, TTT_ERR_ARGUMENT, "%s: .bandwidth is %g; above 0 expected", d->mixer->name, (double)d->bandwidth);
}
static double ttt__list_state(const ttt_mixer_desc *d, int64_t N) { return 2 * (double)N * (double)d->dim; }  // all keys and values

// Linformer: the N keys and values become K by two tables along the sequence, k~ = E^T k, v~ = F^T v,
// shared by the heads, so that attention costs N K. The tables know positions, not contents, and end at
// max_tokens; shorter sequences use their first rows.                             [arXiv 2006.04768]
enum { TTT__LINFORMER_E = TTT__ATTENTION_N, TTT__LINFORMER_F };
static const ttt_param_row ttt__linformer_rows[] = {
    TTT__LINEAR_ATTENTION_ROWS(TTT__AS_ROW)
    { "E", "N K", TTT_INIT_UNIFORM_IN, "3K", NULL, TTT_PARAM_DECAYS, 0 },  // bound 1/sqrt K, as lucidrains/linformer
    { "F", "N K", TTT_INIT_UNIFORM_IN, "3K", NULL, TTT_PARAM_DECAYS, 0 },
};
static int64_t ttt__compressed(const ttt_mixer_desc *d) { return d->compressed ? d->compressed : TTT__MAX(1, d->max_tokens / 4); }
static ttt_tensor *ttt__linformer_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    int64_t N = x->shape.dim[1];
    ttt_tensor *q = ttt__project_heads(c, d, w, TTT__ATTENTION_Q_KERNEL, x), *k = ttt__project_heads(c, d, w, TTT__ATTENTION_K_KERNEL, x);
    ttt_tensor *v = ttt__project_heads(c, d, w, TTT__ATTENTION_V_KERNEL, x), *E = w[TTT__LINFORMER_E], *F = w[TTT__LINFORMER_F];
    if (N < d->max_tokens) E = ttt_slice(c, E, 0, 0, N), F = ttt_slice(c, F, 0, 0, N);
    ttt_tensor *a = ttt_softmax(c, ttt_scale(c, ttt_matmul_t(c, q, ttt_matmul_t(c, E, k, true, false), false, true), (ttt_real)(1 / sqrt((double)(d->dim / d->heads)))));
    ttt_tensor *y = ttt_matmul(c, a, ttt_matmul_t(c, F, v, true, false));
    (void)losses;
    if (d->unmask) {
        d->unmask->equals = "softmax attention to a fixed number of sums over the tokens";
        ttt__unmask_matrix(c, d->unmask, ttt_matmul_t(c, a, F, false, true), v, y);
    }
    return ttt__project(c, w, TTT__ATTENTION_O_KERNEL, ttt_join_heads(c, y));
}
static void ttt__linformer_check(ttt_ctx *c, const ttt_mixer_desc *d, int64_t N) {
    if (!ttt__need(c, d->max_tokens > 0, d, "max_tokens", d->max_tokens, "the number of tokens that its tables are made for must be set")) return;
    if (!ttt__need(c, d->compressed >= 0, d, "compressed", d->compressed, "at least 1 expected")) return;
    ttt__need(c, N <= d->max_tokens, d, "max_tokens", d->max_tokens, "the sequence is longer than its tables");
}
static double ttt__linformer_flops(const ttt_mixer_desc *d, int64_t N) {
    double n = (double)N, D = (double)d->dim, K = (double)ttt__compressed(d);
    return 2 * (4 * n * D * D + 4 * n * K * D);
}
static double ttt__linformer_state(const ttt_mixer_desc *d, int64_t N) {
    (void)N;
    return 2 * (double)ttt__compressed(d) * (double)d->dim;
}

// -- Longformer: a token sees those at most `window` away, and all see and are seen by the first tokens,
// the globals, which have projections of their own for what they ask. Costs N window.  [arXiv 2004.05150]
// With .causal no token sees what comes later, nor does a global one.
// On a grid the window is a square, exactly, as in the "exact" mode of ViL              [arXiv 2103.15358].
// Never N x N: the line or grid is cut into tiles as long as the window, and a tile's queries are
// compared with the tiles around it, of which a mask hides what is too far.
#define TTT__LONGFORMER_GLOBAL 8  // option: there are globals
enum { TTT__LONGFORMER_Q = TTT__ATTENTION_N, TTT__LONGFORMER_K = TTT__LONGFORMER_Q + 2, TTT__LONGFORMER_V = TTT__LONGFORMER_K + 2 };
static const ttt_param_row ttt__longformer_rows[] = {
    TTT__LINEAR_ATTENTION_ROWS(TTT__AS_ROW)
    { "query_global/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, TTT__LONGFORMER_GLOBAL },
    { "query_global/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, TTT__LONGFORMER_GLOBAL },
    { "key_global/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, TTT__LONGFORMER_GLOBAL },
    { "key_global/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, TTT__LONGFORMER_GLOBAL },
    { "value_global/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, TTT__LONGFORMER_GLOBAL },
    { "value_global/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, TTT__LONGFORMER_GLOBAL },
};
static int64_t ttt__window(const ttt_mixer_desc *d) {
    if (d->window) return d->window;
    return d->grid_rows ? TTT__MAX(1, TTT__MIN(7, TTT__MAX(d->grid_rows, d->grid_cols) / 3)) : 256;
}
// One axis of the grid: tiles of `side` tokens, each with `around` tiles to look at.
typedef struct ttt__tiles {
    int64_t size, side, tiles, around;
} ttt__tiles;
static ttt__tiles ttt__tiles_of(int64_t size, int64_t window) {
    ttt__tiles a = { size, TTT__MAX(1, TTT__MIN(window, size)), 0, 0 };
    a.tiles = (size + a.side - 1) / a.side;
    a.around = TTT__MIN(3, a.tiles);
    return a;
}
// Tile i of those around a tile.
static int64_t ttt__tile_around(const ttt__tiles *a, int64_t tile, int64_t i) {
    return TTT__MAX(0, TTT__MIN(tile - 1, a->tiles - a->around)) + i;
}
// What the tiles hold, as numbers of tokens: queries (tiles,q), keys (tiles,k), what is hidden (tiles,q,k),
// and for each token of the grid its place among the queries. Places beyond the border hold token `globals`.
typedef struct ttt__tiling {
    ttt__tiles row, col;
    int64_t window, globals;
    bool causal;                 // and nothing that comes later
    int64_t tiles, q, k;
    int64_t *query, *key, *place;
    ttt_tensor *hidden;
} ttt__tiling;
// Token i of tile (tr,tc), or -1 beyond the border.
static int64_t ttt__in_tile(const ttt__tiling *t, int64_t tr, int64_t tc, int64_t i, int64_t *r, int64_t *cl) {
    *r = tr * t->row.side + i / t->col.side;
    *cl = tc * t->col.side + i % t->col.side;
    return *r < t->row.size && *cl < t->col.size ? *r * t->col.size + *cl : -1;
}
static void ttt__tiling_fill(ttt__tiling *t, int64_t tile) {
    int64_t tr = tile / t->col.tiles, tc = tile % t->col.tiles, kr, kc, qr, qc, g = t->globals;
    int64_t *key = t->key + tile * t->k;
    ttt_real *hidden = t->hidden->data + tile * t->q * t->k;
    for (int64_t i = 0; i < g; i++) key[i] = i;
    for (int64_t i = 0; i < t->q; i++) {
        int64_t token = ttt__in_tile(t, tr, tc, i, &qr, &qc);
        t->query[tile * t->q + i] = token < 0 ? g : g + token;
        if (token >= 0) t->place[token] = tile * t->q + i;
        for (int64_t j = 0; j < t->k - g; j++) {
            int64_t neighbor = j / t->q, across = t->col.around;
            int64_t nr = ttt__tile_around(&t->row, tr, neighbor / across);
            int64_t nc = ttt__tile_around(&t->col, tc, neighbor % across);
            int64_t other = ttt__in_tile(t, nr, nc, j % t->q, &kr, &kc);
            bool close = qr - kr <= t->window && kr - qr <= t->window && qc - kc <= t->window && kc - qc <= t->window;
            key[g + j] = other < 0 ? g : g + other;
            hidden[i * t->k + g + j] = other >= 0 && close && !(t->causal && other > token) ? 0 : TTT__HIDDEN;
        }
    }
}
static ttt__tiling ttt__tiling_of(ttt_ctx *c, int64_t rows, int64_t cols, int64_t window, int64_t globals, bool causal) {
    ttt__tiling t;
    memset(&t, 0, sizeof t);
    t.row = ttt__tiles_of(rows, window);
    t.col = ttt__tiles_of(cols, window);
    t.window = window;
    t.globals = globals;
    t.causal = causal;
    t.tiles = t.row.tiles * t.col.tiles;
    t.q = t.row.side * t.col.side;
    t.k = globals + t.row.around * t.col.around * t.q;
    t.query = (int64_t *)ttt_alloc(c, (size_t)(t.tiles * t.q) * sizeof *t.query, false);
    t.key = (int64_t *)ttt_alloc(c, (size_t)(t.tiles * t.k) * sizeof *t.key, false);
    t.place = (int64_t *)ttt_alloc(c, (size_t)(rows * cols) * sizeof *t.place, false);
    t.hidden = ttt_zeros(c, TTT_SHAPE(t.tiles, t.q, t.k));
    for (int64_t i = 0; ttt_ok(c) && i < t.tiles; i++) ttt__tiling_fill(&t, i);
    return t;
}
// q, k, v (.,1,N,h) -> what the tokens behind the globals see (.,1,N-globals,h); a: the softmax of the tiles.
static ttt_tensor *ttt__windowed(ttt_ctx *c, const ttt__tiling *t, ttt_tensor *q, ttt_tensor *k, ttt_tensor *v, ttt_tensor **a) {
    if (!ttt_ok(c)) return q;
    int64_t n = q->shape.dim[0], h = q->shape.dim[3];
    ttt_tensor *keys = ttt_from_int(c, TTT_SHAPE(t->tiles, t->k), t->key);
    q = ttt_index_select(c, ttt_scale(c, q, (ttt_real)(1 / sqrt((double)h))),
                         ttt_from_int(c, TTT_SHAPE(t->tiles, t->q), t->query));
    *a = ttt_softmax(
        c, ttt_add(c, ttt_matmul_t(c, q, ttt_index_select(c, k, keys), false, true), t->hidden));
    ttt_tensor *y = ttt_reshape(c, ttt_matmul(c, *a, ttt_index_select(c, v, keys)),
                                TTT_SHAPE(n, 1, t->tiles * t->q, h));
    return ttt_index_select(c, y,
                            ttt_from_int(c, TTT_SHAPE(1, t->row.size * t->col.size), t->place));
}
static void ttt__longformer_unmask(ttt_ctx *c, const ttt_mixer_desc *d, const ttt__tiling *t, const ttt_tensor *a, ttt_tensor *top, ttt_tensor *v, ttt_tensor *top_v, ttt_tensor *y);
static ttt_tensor *ttt__longformer_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    int64_t B = x->shape.dim[0], N = x->shape.dim[1], H = d->heads, h = d->dim / H, g = d->globals, BH = B * H;
    ttt_tensor *in[3], *a, *top_a = NULL, *top_v = NULL;
    for (int i = 0; i < 3; i++) in[i] = ttt_reshape(c, ttt__project_heads(c, d, w, TTT__ATTENTION_Q_KERNEL + 2 * i, x), TTT_SHAPE(BH, 1, N, h));
    ttt__tiling t = ttt__tiling_of(c, d->grid_rows ? d->grid_rows : 1, d->grid_rows ? d->grid_cols : N - g, ttt__window(d), g, d->causal);
    ttt_tensor *y = ttt__windowed(c, &t, in[0], in[1], in[2], &a);
    if (!ttt_ok(c)) return x;
    if (g) {
        ttt_tensor *first = ttt_slice(c, x, 1, 0, g), *all_k = ttt__project_heads(c, d, w, TTT__LONGFORMER_K, x);
        top_v = ttt__project_heads(c, d, w, TTT__LONGFORMER_V, x);
        ttt_tensor *asks = ttt_scale(c, ttt__project_heads(c, d, w, TTT__LONGFORMER_Q, first), (ttt_real)(1 / sqrt((double)h)));
        ttt_tensor *scores = ttt_matmul_t(c, asks, all_k, false, true);
        top_a = ttt_softmax(c, d->causal ? ttt_add(c, scores, ttt__future(c, g, N)) : scores);
        ttt_tensor *both[2] = { ttt_reshape(c, ttt_matmul(c, top_a, top_v), TTT_SHAPE(BH, 1, g, h)), y };
        y = ttt_concat(c, both, 2, 2);
    }
    y = ttt_reshape(c, y, TTT_SHAPE(B, H, N, h));
    (void)losses;
    if (d->unmask && ttt_ok(c)) ttt__longformer_unmask(c, d, &t, a, top_a, ttt_reshape(c, in[2], TTT_SHAPE(B, H, N, h)), top_v, y);
    return ttt__project(c, w, TTT__ATTENTION_O_KERNEL, ttt_join_heads(c, y));
}
static void ttt__longformer_check(ttt_ctx *c, const ttt_mixer_desc *d, int64_t N) {
    int64_t side = TTT__MAX(d->grid_rows, d->grid_cols);
    if (!ttt__need(c, d->window >= 0, d, "window", d->window, "at least 1 token to each side expected")) return;
    if (!ttt__need(c, d->globals >= 0 && (N <= 0 || d->globals < N), d, "globals", d->globals, "0 or more, and fewer than there are tokens, expected")) return;
    if (d->grid_rows == 0 && d->grid_cols == 0) return;
    ttt__check_grid(c, d, N);
    if (ttt_ok(c)) ttt__need(c, d->window <= side, d, "window", d->window, "the window is larger than the grid");
}
static double ttt__longformer_flops(const ttt_mixer_desc *d, int64_t N) {
    double n = (double)N, D = (double)d->dim, side = 2 * (double)ttt__window(d) + 1, seen = d->grid_rows ? side * side : side;
    seen = (seen < n ? seen : n) + (double)d->globals;
    return 2 * (4 * n * D * D + 2 * n * seen * D + (d->globals ? 2 * n * D * D + 2 * n * (double)d->globals * D : 0));
}
static double ttt__longformer_state(const ttt_mixer_desc *d, int64_t N) {
    double n = (double)N, seen = (double)(d->grid_rows ? (2 * ttt__window(d) + 1) * (2 * ttt__window(d) + 1) : 2 * ttt__window(d) + 1);
    return 2 * ((seen < n ? seen : n) + (double)d->globals) * (double)d->dim;
}

// -- Focused linear attention: the features of q and k are sharpened, f(x) = x^p |x| / |x^p| (which keeps
// their norm, taken over all heads at once as the official code does), and since a map q k^T of rank h
// blurs, a depthwise 5x5 convolution of the values, shared by the heads, gives back what is near.
//   k += P;  q, k = f((relu + 1e-6) / softplus(S));  y_i = q_i (1/N sum k_j^T v_j) / (q_i mean k + 1e-6) + conv(v)_i
//                                                                                 [arXiv 2308.00442]
enum { TTT__FOCUSED_P = TTT__ATTENTION_N, TTT__FOCUSED_S, TTT__FOCUSED_CONV, TTT__FOCUSED_BIAS };
static const ttt_param_row ttt__focused_rows[] = {
    TTT__LINEAR_ATTENTION_ROWS(TTT__AS_ROW)
    { "positional_encoding", "N D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    { "scale", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    { "dwc/kernel", "25 h", TTT_INIT_UNIFORM_IN, "75", NULL, TTT_PARAM_DECAYS, 0 },  // bound 1/5, as PyTorch's
    { "dwc/bias", "h", TTT_INIT_UNIFORM_IN, "75", NULL, 0, 0 },
};
static ttt_tensor *ttt__focus(ttt_ctx *c, ttt_tensor *x, ttt_tensor *unit, int p) {
    x = ttt_div(c, ttt_add_scalar(c, ttt_relu(c, x), (ttt_real)1e-6), unit);
    ttt_tensor *power = x;
    for (int i = 1; i < p; i++) power = ttt_mul(c, power, x);
    ttt_tensor *norm = ttt_sqrt(c, ttt_sum_axis(c, ttt_square(c, x), -1)), *other = ttt_sqrt(c, ttt_sum_axis(c, ttt_square(c, power), -1));
    return ttt_mul(c, power, ttt_div(c, norm, other));
}
static ttt_tensor *ttt__focused_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    int p = d->power ? d->power : 3;
    ttt_tensor *unit = ttt__softplus(c, w[TTT__FOCUSED_S]), *v = ttt__project_heads(c, d, w, TTT__ATTENTION_V_KERNEL, x);
    ttt_tensor *q = ttt__focus(c, ttt__project(c, w, TTT__ATTENTION_Q_KERNEL, x), unit, p);
    ttt_tensor *k = ttt__focus(c, ttt_add(c, ttt__project(c, w, TTT__ATTENTION_K_KERNEL, x), w[TTT__FOCUSED_P]), unit, p);
    if (!ttt_ok(c)) return x;
    q = ttt_split_heads(c, q, d->heads);
    k = ttt_split_heads(c, k, d->heads);
    ttt_real over_n = 1 / (ttt_real)x->shape.dim[1];
    ttt_tensor *z = ttt_reciprocal(
        c, ttt_add_scalar(c, ttt_matmul_t(c, q, ttt_mean_axis(c, k, -2), false, true),
                          (ttt_real)1e-6));
    ttt_tensor *y = ttt_mul(c, ttt_scale(c, ttt_matmul(c, q, ttt_matmul_t(c, k, v, true, false)), over_n), z);
    if (d->unmask) {
        d->unmask->equals = "linear attention with focused features; behind it stands a 5x5 depthwise convolution of v";
        ttt__unmask_features(c, d->unmask, ttt_mul(c, q, z), ttt_scale(c, k, over_n), v, NULL, y);
    }
    const int64_t *taps = ttt__grid_taps(c, d->grid_rows, d->grid_cols, 5);
    ttt_tensor *local = ttt__depthwise(c, v, w[TTT__FOCUSED_CONV], taps, 25);
    y = ttt_add(c, y, ttt_add(c, local, w[TTT__FOCUSED_BIAS]));
    (void)losses;
    return ttt__project(c, w, TTT__ATTENTION_O_KERNEL, ttt_join_heads(c, y));
}
static void ttt__focused_check(ttt_ctx *c, const ttt_mixer_desc *d, int64_t N) {
    if (!ttt__need(c, d->power >= 0 && d->power <= 64, d, "power", d->power, "1 to 64 expected")) return;
    if (!ttt__need(c, d->globals == 0, d, "globals", d->globals, "this layer has none")) return;
    ttt__check_grid(c, d, N);
    if (ttt_ok(c)) ttt__need(c, d->max_tokens == d->grid_rows * d->grid_cols, d, "max_tokens", d->max_tokens, "its positions are those of the grid: grid_rows x grid_cols expected");
}
static double ttt__focused_flops(const ttt_mixer_desc *d, int64_t N) { return ttt__linear_attention_flops(d, N) + 2 * 25 * (double)N * (double)d->dim; }
static double ttt__matrix_state(const ttt_mixer_desc *d, int64_t N) {  // h x h a head, and the normalizer
    double D = (double)d->dim, h = D / (double)d->heads;
    (void)N;
    return D * (h + 1);
}

// -- a matrix that is written token by token
// S_t = e^g_t S_t-1 + k_t^T u_t, o_t = q_t S_t, S_0 = 0. Linear attention: u = v, g = 0. The delta rule does
// not add v to what k finds in S but replaces it: u_t = beta_t (v_t - k_t e^g_t S_t-1), which is a step of
// gradient descent on |k S - v|^2 / 2 [arXiv 2406.06484]; the gated one forgets first [arXiv 2412.06464].
// All at once for n tokens, with G = g_0 + .. , D_ij = e^(G_i - G_j), i >= j [2406.06484, §3; 2412.06464]:
//     (1 + L) U = beta (V - e^G (K S)),  L = beta (K K^T) D below the diagonal
//     O = e^G (Q S) + ((Q K^T) D) U,     S <- e^G_n S + (e^(G_n - G) K)^T U
// n = 1 is the recurrence, n = N the parallel form. beta, g: (B,H,N,1) or NULL. u_all, if not NULL, receives U.
static ttt_tensor *ttt__scan(ttt_ctx *c, ttt_tensor *q, ttt_tensor *k, ttt_tensor *v, ttt_tensor *beta, ttt_tensor *g, int64_t chunk, ttt_tensor **u_all) {
    int64_t N = ttt_ok(c) ? q->shape.dim[2] : 0, n_chunks = (N + chunk - 1) / chunk;
    ttt_tensor **o = (ttt_tensor **)ttt_alloc(c, 2 * (size_t)(n_chunks + 1) * sizeof *o, false), *S = NULL;
    if (!o || N == 0) return v;
    for (int64_t i = 0, begin = 0; begin < N && ttt_ok(c); i++, begin += chunk) {
        int64_t n = TTT__MIN(chunk, N - begin);
        ttt_tensor *qc = ttt__tokens(c, q, begin, n), *kc = ttt__tokens(c, k, begin, n), *u = ttt__tokens(c, v, begin, n), *b = ttt__tokens(c, beta, begin, n);
        ttt_tensor *since = NULL, *between = NULL;
        if (g) ttt__decay(c, ttt__tokens(c, g, begin, n), &since, &between);
        else between = ttt__lower(c, n);
        if (b) {
            ttt_tensor *found = S ? ttt_matmul(c, kc, S) : NULL;
            if (found) u = ttt_sub(c, u, since ? ttt_mul(c, since, found) : found);
            u = ttt_solve_lower(c, ttt_mul(c, ttt_mul(c, ttt_matmul_t(c, kc, kc, false, true), between), b), ttt_mul(c, u, b), false);
        }
        o[i] = ttt_matmul(c, ttt_mul(c, ttt_matmul_t(c, qc, kc, false, true), between), u);
        if (S) {
            ttt_tensor *read = ttt_matmul(c, qc, S);
            o[i] = ttt_add(c, o[i], since ? ttt_mul(c, since, read) : read);
        }
        o[n_chunks + i] = u;
        if (begin + n == N) break;
        ttt_tensor *left = since ? ttt_mul(c, kc, ttt_transpose(c, ttt_slice(c, between, 2, n - 1, 1))) : kc, *add = ttt_matmul_t(c, left, u, true, false);
        if (S && since) S = ttt_mul(c, S, ttt_slice(c, since, 2, n - 1, 1));
        S = S ? ttt_add(c, S, add) : add;
    }
    if (u_all) *u_all = n_chunks > 1 ? ttt_concat(c, o + n_chunks, (int)n_chunks, 2) : o[n_chunks];
    return n_chunks > 1 ? ttt_concat(c, o, (int)n_chunks, 2) : o[0];
}
static int64_t ttt__chunk_or(const ttt_mixer_desc *d, int64_t usual) { return d->chunk ? d->chunk : usual; }
static void ttt__check_chunk(ttt_ctx *c, const ttt_mixer_desc *d, int64_t N) {
    (void)N;
    ttt__need(c, d->chunk >= 0, d, "chunk", d->chunk, "at least 1 token expected");
}

// Causal linear attention on mapped q, k: (B,H,N,h).
static ttt_tensor *ttt__causal_linear(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *q, ttt_tensor *k, ttt_tensor *v) {
    int64_t chunk = ttt__chunk_or(d, 64);
    ttt_tensor *y = ttt__scan(c, q, k, v, NULL, NULL, chunk, NULL);
    if (d->normalizer == TTT_NORMALIZER_CONSTANT && ttt_ok(c))
        return ttt_scale(c, y, 1 / (ttt_real)(v->shape.dim[2] * v->shape.dim[3]));
    if (d->normalizer == TTT_NORMALIZER_NONE || !ttt_ok(c)) return y;
    ttt_tensor *ones = ttt_full(c, TTT_SHAPE(v->shape.dim[0], v->shape.dim[1], v->shape.dim[2], 1), 1);  // the sum of keys: values of one
    return ttt_div(c, y, ttt__scan(c, q, k, ones, NULL, NULL, chunk, NULL));
}

#define TTT__SHORT_CONV 16  // option
// q, k, v = SiLU(causal depthwise convolution of 4 taps (x W)), q and k of length 1: the views of DeltaNet and Titans.
// w: three kernels, then those of the convolutions.
#define TTT__VIEW_ROWS                                                                             \
    { "q_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0 },                    \
    { "k_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0 },                    \
    { "v_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0 },
#define TTT__CONV_VIEW_ROWS                                                                        \
    TTT__VIEW_ROWS                                                                                 \
    { "q_conv/kernel", "4 D", TTT_INIT_UNIFORM_IN, "12", NULL, TTT_PARAM_DECAYS, TTT__SHORT_CONV }, /* bound 1/2, as PyTorch's */ \
    { "k_conv/kernel", "4 D", TTT_INIT_UNIFORM_IN, "12", NULL, TTT_PARAM_DECAYS, TTT__SHORT_CONV }, \
    { "v_conv/kernel", "4 D", TTT_INIT_UNIFORM_IN, "12", NULL, TTT_PARAM_DECAYS, TTT__SHORT_CONV },
static void ttt__conv_views(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **in) {
    const int64_t *at = d->no_short_conv ? NULL : ttt__causal_taps(c, x->shape.dim[1], 4);
    for (int i = 0; i < 3; i++) {
        in[i] = ttt_matmul(c, x, w[i]);
        if (at) in[i] = ttt__depthwise(c, in[i], w[3 + i], at, 4);
        in[i] = ttt_split_heads(c, ttt_silu(c, in[i]), d->heads);
        if (i < 2) in[i] = ttt__unit(c, in[i], 1e-6);
    }
}

// DeltaNet: these views, q / sqrt h, beta = sigmoid(x w) a head; RMS norm of each head, then W_o. Gated: forgets by g = -e^A softplus(x w_a + b),
// and its norm is gated by SiLU(x W_g).                       [fla-org/flash-linear-attention, layers/]
enum {
    TTT__DELTA_VIEWS, TTT__DELTA_BETA = TTT__DELTA_VIEWS + 6, TTT__DELTA_NORM, TTT__DELTA_O,
    TTT__DELTA_N, TTT__DELTA_A = TTT__DELTA_N, TTT__DELTA_A_LOG, TTT__DELTA_DT, TTT__DELTA_GATE, TTT__GATED_N
};
static const ttt_param_row ttt__delta_rows[] = {
    TTT__CONV_VIEW_ROWS
    { "b_proj/kernel", "D H", TTT_INIT_XAVIER, "D", "H", TTT_PARAM_DECAYS, 0 },
    { "o_norm/scale", "h", TTT_INIT_ONE, NULL, NULL, 0, 0 },
    { "o_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0 },
    { "a_proj/kernel", "D H", TTT_INIT_XAVIER, "D", "H", TTT_PARAM_DECAYS, 0 },  // from here the gated one's
    { "A_log", "H", TTT_INIT_LOG_RATE, NULL, NULL, 0, 0 },
    { "dt_bias", "H", TTT_INIT_LOG_TIME, NULL, NULL, 0, 0 },
    { "g_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0 },
};
static ttt_tensor *ttt__delta_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    bool gated = d->mixer->n_rows == TTT__GATED_N;
    int64_t N = x->shape.dim[1], H = d->heads;
    ttt_tensor *in[3], *g = NULL, *u = NULL;
    ttt__conv_views(c, d, w + TTT__DELTA_VIEWS, x, in);
    if (!ttt_ok(c)) return x;
    ttt_tensor *q = ttt_scale(c, in[0], (ttt_real)(1 / sqrt((double)(d->dim / H)))), *k = in[1];
    ttt_tensor *beta = ttt_sigmoid(c, ttt__gate(c, x, w[TTT__DELTA_BETA], NULL));
    if (gated) {
        ttt_tensor *rate = ttt_scale(c, ttt_exp(c, ttt_reshape(c, w[TTT__DELTA_A_LOG], TTT_SHAPE(H, 1, 1))), -1);
        g = ttt_mul(c, rate, ttt__softplus(c, ttt__gate(c, x, w[TTT__DELTA_A], w[TTT__DELTA_DT])));
    }
    ttt_tensor *o = ttt__scan(c, q, k, in[2], beta, g, ttt__chunk_or(d, 64), d->unmask ? &u : NULL);
    if (d->unmask) {
        ttt_tensor *since = NULL, *between = NULL;
        if (g) ttt__decay(c, g, &since, &between);
        else between = ttt__lower(c, N);
        d->unmask->equals = gated ? "the gated delta rule: causal linear attention with decay, whose values are what the memory did not yet know"
                                  : "the delta rule: causal linear attention whose values are what the memory did not yet know";
        ttt__unmask_weighted(c, d->unmask, q, k, u, between, false, o);
    }
    o = ttt__rms_norm(c, o, w[TTT__DELTA_NORM]);
    if (gated) o = ttt_mul(c, o, ttt_silu(c, ttt__heads_of(c, d, x, w[TTT__DELTA_GATE])));
    (void)losses;
    return ttt_matmul(c, ttt_join_heads(c, o), w[TTT__DELTA_O]);
}
// In chunks of n: 5 products of D^2 (6 gated), then K K^T, Q K^T and U n D each (U twice), three of D h.
static double ttt__delta_flops(const ttt_mixer_desc *d, int64_t N) {
    double n = (double)N, D = (double)d->dim, h = D / (double)d->heads, chunk = (double)TTT__MIN(N, ttt__chunk_or(d, 64));
    return 2 * n * ((d->mixer->n_rows == TTT__GATED_N ? 5 : 4) * D * D + 4 * chunk * D + 3 * D * h + (d->no_short_conv ? 0 : 12 * D));
}

// -- a learner of dense layers that is written token by token
// f(x) = z_L, z_l = x_l W_l + b_l, x_l+1 = GELU(z_l): one layer or two. What it is read out as is f(x), or with
// a norm x + LN(f(x)); its loss at a token |out - label|^2 / 2, label v or, with the norm, v - k for LN(f).
// Chunk by chunk, with the gradients g_l of all its tokens in z_l at the weights before the chunk, token t reads
//     W_t = carry_t W + momentum_t V - sum over s of A_ts x_s^T g_s,   V the velocity
// which is never made: z_t = carry_t (x_t W) + momentum_t (x_t V) - (A o x x^T) g is as good, the *dual form*
// [arXiv 2407.04620, §2.5], and one text for all whose A differs:
//   ttt, causal       A_ts = rate_s / (t + 1), s <= t, t the place in the chunk
//   ttt, all at once  A_ts = rate_s / N, for every t
//   titans            the chain of decays and momenta, see ttt__rule_weights
typedef struct ttt__memory {
    int layers;
    ttt_tensor *w[2], *b[2];    // (B,H,in,out), (B,H,1,out) or NULL
    ttt_tensor *vw[2], *vb[2];  // velocity, NULL: none yet
    ttt_tensor *scale, *shift;  // of the norm, (H,1,h); NULL: none
} ttt__memory;

static ttt_tensor *ttt__memory_norm(ttt_ctx *c, const ttt__memory *m, ttt_tensor *z) {
    return m->scale ? ttt__layer_norm(c, m->scale, m->shift, z) : z;
}
static ttt_tensor *ttt__memory_predict(ttt_ctx *c, const ttt__memory *m, ttt_tensor *x, ttt_tensor **last) {
    if (m->layers == 2) x = ttt_gelu(c, ttt__affine_maybe(c, x, m->w[0], m->b[0]));
    if (last) *last = x;
    return ttt__affine_maybe(c, x, m->w[m->layers - 1], m->b[m->layers - 1]);
}
// Inputs x and gradients g of each layer, for keys k and labels.
static void ttt__memory_gradients(ttt_ctx *c, const ttt__memory *m, ttt_tensor *k, ttt_tensor *label, ttt_tensor **x, ttt_tensor **g) {
    int last = m->layers - 1;
    ttt_tensor *z0 = m->layers == 2 ? ttt__affine_maybe(c, k, m->w[0], m->b[0]) : NULL;
    x[0] = k;
    if (z0) x[1] = ttt_gelu(c, z0);
    ttt_tensor *z = ttt__affine_maybe(c, x[last], m->w[last], m->b[last]), *error = ttt_sub(c, ttt__memory_norm(c, m, z), label);
    g[last] = m->scale ? ttt_normalize_d1(c, z, ttt_mul(c, error, m->scale), (ttt_real)TTT_LAYER_NORM_EPS, true) : error;
    if (z0) g[0] = ttt_mul(c, ttt_matmul_t(c, g[1], m->w[1], false, true), ttt_gelu_d1(c, z0));
}
typedef struct ttt__shares_of {     // of the gradients of a chunk of n tokens
    ttt_tensor *A;                   // (..,n,n)
    ttt_tensor *carry, *momentum;    // (B,H,n,1), NULL: 1 and 0
    ttt_tensor *end, *end_velocity;  // (..,1,n): what of each gradient is in the weights, and the velocity, after the chunk
    ttt_tensor *end_carry, *end_momentum, *end_keep;  // (B,H,1,1): W = end_carry W + end_momentum V - .., V = end_keep V - ..
} ttt__shares_of;
// f at token t's own weights, for queries q. Bias: a feature that is 1.
static ttt_tensor *ttt__memory_read(ttt_ctx *c, const ttt__memory *m, const ttt__shares_of *a, ttt_tensor *const *x, ttt_tensor *const *g, ttt_tensor *q, ttt_tensor **last) {
    for (int l = 0; l < m->layers; l++) {
        ttt_tensor *z = ttt__affine_maybe(c, q, m->w[l], m->b[l]), *alike = ttt_matmul_t(c, q, x[l], false, true);
        if (a->carry) z = ttt_mul(c, z, a->carry);
        if (m->vw[l]) z = ttt_add(c, z, ttt_mul(c, ttt__affine_maybe(c, q, m->vw[l], m->vb[l]), a->momentum));
        if (m->b[l]) alike = ttt_add_scalar(c, alike, 1);
        z = ttt_affine(c, ttt_mul(c, ttt_scale(c, a->A, -1), alike), g[l], z);
        if (l == m->layers - 1) {
            if (last) *last = q;
            return z;
        }
        q = ttt_gelu(c, z);
    }
    return q;
}
// keep w + push v + x^T step; w NULL (and v with it) or v NULL: zero; x NULL: a bias, whose input is 1
static ttt_tensor *ttt__memory_moved(ttt_ctx *c, ttt_tensor *w, ttt_tensor *keep, ttt_tensor *v, ttt_tensor *push, ttt_tensor *x, ttt_tensor *step) {
    ttt_tensor *sum = x ? NULL : ttt_sum_axis(c, step, -2);
    if (w && keep) w = ttt_mul(c, w, keep);
    if (v) w = ttt_add(c, w, ttt_mul(c, v, push));
    if (!w) return x ? ttt_matmul_t(c, x, step, true, false) : sum;
    return x ? ttt_matmul_add(c, x, step, true, false, w) : ttt_add(c, w, sum);
}
static ttt_tensor *ttt__memory_step(ttt_ctx *c, ttt_tensor *g, ttt_tensor *share) { return ttt_mul(c, g, ttt_scale(c, ttt_transpose(c, share), -1)); }
static void ttt__memory_write(ttt_ctx *c, ttt__memory *m, const ttt__shares_of *a, ttt_tensor *const *x, ttt_tensor *const *g) {
    for (int l = 0; l < m->layers; l++) {
        ttt_tensor *in = ttt__memory_step(c, g[l], a->end), *w = m->w[l], *b = m->b[l];
        m->w[l] = ttt__memory_moved(c, w, a->end_carry, m->vw[l], a->end_momentum, x[l], in);
        if (b) m->b[l] = ttt__memory_moved(c, b, a->end_carry, m->vb[l], a->end_momentum, NULL, in);
        if (!a->end_velocity) continue;
        in = ttt__memory_step(c, g[l], a->end_velocity);
        m->vw[l] = ttt__memory_moved(c, m->vw[l], a->end_keep, NULL, NULL, x[l], in);
        if (b) m->vb[l] = ttt__memory_moved(c, m->vb[l], a->end_keep, NULL, NULL, NULL, in);
    }
}

// How much of each gradient reaches whom.
typedef struct ttt__rule_of {
    ttt_tensor *rate;               // (B,H,N,1)
    ttt_tensor *keep, *momentum;    // logarithms of what is kept of the weights and of the velocity; NULL: no such
    bool causal;
    int64_t chunk;
    bool leaves;                    // the weights after the last chunk are wanted
} ttt__rule_of;
// The constants of ttt for tokens begin .. begin+n: 1/(place in the chunk + 1) in a token's own chunk, 1/(length of
// the chunk) after it; all at once 1/N.
static ttt_tensor *ttt__mean_weights(ttt_ctx *c, const ttt__rule_of *r, int64_t begin, int64_t n) {
    int64_t N = r->rate->shape.dim[2];
    ttt_tensor *t = ttt_zeros(c, TTT_SHAPE(n, n));
    for (int64_t i = 0; ttt_ok(c) && i < n; i++)
        for (int64_t k = 0; k < n; k++) {
            int64_t start = (begin + k) / r->chunk * r->chunk, length = TTT__MIN(r->chunk, N - start);
            int64_t seen = begin + i < start + length ? begin + i - start + 1 : length;
            if (!r->causal) seen = N;
            t->data[i * n + k] = r->causal && k > i ? 0 : 1 / (ttt_real)seen;
        }
    return t;
}
static ttt_tensor *ttt__last_row(ttt_ctx *c, ttt_tensor *a) { return ttt_ok(c) ? ttt_slice(c, a, -2, a->shape.dim[a->shape.rank - 2] - 1, 1) : a; }
// Titans: V_t = eta_t V_t-1 - theta_t g_t,  W_t = (1 - alpha_t) W_t-1 + V_t, so that with the products E of what is
// kept of W, and H of V, W_t = E_t W + sum over j <= t of E_t/E_j V_j,  V_j = H_j V - sum over s <= j of H_j/H_s theta_s g_s.
static void ttt__rule_weights(ttt_ctx *c, const ttt__rule_of *r, int64_t begin, int64_t n, ttt__shares_of *a) {
    ttt_tensor *rate = ttt_transpose(c, ttt__tokens(c, r->rate, begin, n)), *e, *between_e, *v, *between_v;
    memset(a, 0, sizeof *a);
    if (!r->keep) {
        a->A = ttt_mul(c, ttt__mean_weights(c, r, begin, n), rate);
        a->end = ttt__last_row(c, a->A);
        return;
    }
    ttt__decay(c, ttt__tokens(c, r->keep, begin, n), &e, &between_e);
    ttt__decay(c, ttt__tokens(c, r->momentum, begin, n), &v, &between_v);
    if (!ttt_ok(c)) return;
    a->A = ttt_mul(c, ttt_matmul(c, between_e, between_v), rate);
    a->carry = e;
    a->momentum = ttt_matmul(c, between_e, v);
    a->end = ttt__last_row(c, a->A);
    a->end_velocity = ttt_mul(c, ttt__last_row(c, between_v), rate);
    a->end_carry = ttt__last_row(c, a->carry);
    a->end_momentum = ttt__last_row(c, a->momentum);
    a->end_keep = ttt__last_row(c, v);
}

// The whole sequence: read-outs f (B,H,N,h), and in m the weights after it, if the rule leaves any.
// What ttt_unmask wants, by name: a token's read-out is  carry_t (x_t W_0) - sum A_ts (x_t x_s) g_s  in the last layer.
static ttt_tensor *ttt__memory_run(ttt_ctx *c, ttt__memory *m, const ttt__rule_of *r, ttt_tensor *q, ttt_tensor *k, ttt_tensor *label, ttt_unmasked *unmask) {
    enum { Z, QX, KX, G, KINDS };
    int64_t N = ttt_ok(c) ? k->shape.dim[2] : 0, chunk = r->causal ? r->chunk : TTT__MAX(N, 1), n_chunks = (N + chunk - 1) / chunk;
    ttt_tensor **part = (ttt_tensor **)ttt_alloc(c, KINDS * (size_t)(n_chunks + 1) * sizeof *part, false), *whole[KINDS], *w0, *b0;
    if (!part || N == 0) return label;
    w0 = m->w[m->layers - 1];
    b0 = m->b[m->layers - 1];
    for (int64_t i = 0; i < n_chunks && ttt_ok(c); i++) {
        int64_t n = TTT__MIN(chunk, N - i * chunk);
        ttt_tensor *x[2], *g[2], *qc = ttt__tokens(c, q, i * chunk, n), **p = part + i;
        ttt__shares_of a;
        ttt__memory_gradients(c, m, ttt__tokens(c, k, i * chunk, n), ttt__tokens(c, label, i * chunk, n), x, g);
        ttt__rule_weights(c, r, i * chunk, n, &a);
        if (!ttt_ok(c)) break;
        if (r->causal) p[Z * n_chunks] = ttt__memory_read(c, m, &a, x, g, qc, &p[QX * n_chunks]);
        if (r->leaves || !r->causal || i + 1 < n_chunks) ttt__memory_write(c, m, &a, x, g);
        if (!r->causal) p[Z * n_chunks] = ttt__memory_predict(c, m, qc, &p[QX * n_chunks]);
        p[KX * n_chunks] = x[m->layers - 1];
        p[G * n_chunks] = g[m->layers - 1];
    }
    for (int i = 0; i < KINDS && ttt_ok(c); i++)
        if (i == Z || unmask) whole[i] = n_chunks > 1 ? ttt_concat(c, part + i * n_chunks, (int)n_chunks, 2) : part[i * n_chunks];
    if (!ttt_ok(c)) return label;
    if (unmask) {
        ttt__shares_of a;
        ttt__rule_weights(c, r, 0, N, &a);
        ttt__unmask_weighted(c, unmask, whole[QX], whole[KX], ttt_scale(c, whole[G], -1), a.A, b0 != NULL, whole[Z]);
        ttt__unmask_start(c, unmask, w0, b0, a.carry);
    }
    return whole[Z];
}
static ttt__memory ttt__memory_of(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w0, int64_t B, ttt_tensor *scale, ttt_tensor *shift) {
    ttt__memory m;
    memset(&m, 0, sizeof m);
    m.layers = d->mixer->learner->n_rows / 2;
    for (int l = 0; l < m.layers && ttt_ok(c); l++) {
        m.w[l] = ttt__lift_weight(c, w0[2 * l], B);
        m.b[l] = w0[2 * l + 1] ? ttt__lift_weight(c, w0[2 * l + 1], B) : NULL;
    }
    m.scale = scale ? ttt__head_row(c, scale) : NULL;
    m.shift = shift ? ttt__head_row(c, shift) : NULL;
    return m;
}
// (2): the loss with the weights before and after, sum over heads, mean over sequences and tokens
static ttt_tensor *ttt__memory_losses(ttt_ctx *c, const ttt__memory *before, const ttt__memory *after, ttt_tensor *k, ttt_tensor *label) {
    ttt_tensor *l[2];
    for (int i = 0; i < 2; i++) {
        const ttt__memory *m = i ? after : before;
        ttt_tensor *error = ttt_sub(c, ttt__memory_norm(c, m, ttt__memory_predict(c, m, k, NULL)), label);
        l[i] = ttt_reshape(c, ttt_sum(c, ttt_square(c, error)), TTT_SHAPE(1));
    }
    if (!ttt_ok(c)) return label;
    return ttt_scale(c, ttt_concat(c, l, 2, 0), (ttt_real)0.5 / (ttt_real)(k->shape.dim[0] * k->shape.dim[2]));
}

// TTT-Linear and TTT-MLP: the learner's task is v - k from k, so that with the residual it returns v; each token has
// a learned rate, inner_lr sigmoid(x w + b) / h. Here for sequences that are seen at once: one step on all tokens, then
// every token reads (or, with .causal, mini-batches of `chunk` of which a token sees its past). out = q + LN(f(q)),
// LayerNorm over all heads, W_o. Without norm (no_decoder_norm): the task is v, and the read-out f(q).
// The language model's rotary code, convolutions and gate are not part of this layer.          [arXiv 2407.04620]
enum { TTT__TTT_Q, TTT__TTT_K, TTT__TTT_V, TTT__TTT_O, TTT__TTT_LR, TTT__TTT_LR_BIAS, TTT__TTT_SCALE, TTT__TTT_SHIFT, TTT__TTT_POST, TTT__TTT_W0 = TTT__TTT_POST + 2 };
static const ttt_param_row ttt__ttt_rows[] = {
    TTT__VIEW_ROWS
    { "o_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0 },
    { "learnable_ttt_lr/kernel", "D H", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_DECAYS, 0 },
    { "learnable_ttt_lr/bias", "H", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    { "ttt_norm/scale", "H h", TTT_INIT_ONE, NULL, NULL, 0, TTT__DECODER_NORM },
    { "ttt_norm/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, TTT__DECODER_NORM },
    { "post_norm/scale", "D", TTT_INIT_ONE, NULL, NULL, 0, 0 },
    { "post_norm/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
};
static ttt_tensor *ttt__ttt_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    int64_t h = d->dim / d->heads;
    ttt_tensor *q = ttt__heads_of(c, d, x, w[TTT__TTT_Q]), *k = ttt__heads_of(c, d, x, w[TTT__TTT_K]), *v = ttt__heads_of(c, d, x, w[TTT__TTT_V]);
    ttt_tensor *gate = ttt_sigmoid(c, ttt__gate(c, x, w[TTT__TTT_LR], w[TTT__TTT_LR_BIAS])), *label = w[TTT__TTT_SCALE] ? ttt_sub(c, v, k) : v;
    ttt__rule_of rule = { ttt_scale(c, gate, (d->inner_lrs ? d->inner_lrs[0] : d->inner_lr) / (ttt_real)h), NULL, NULL, d->causal, ttt__chunk_or(d, 16), losses != NULL };
    ttt__memory m = ttt__memory_of(c, d, w + TTT__TTT_W0, x->shape.dim[0], w[TTT__TTT_SCALE], w[TTT__TTT_SHIFT]), before = m;
    if (d->unmask) d->unmask->equals = d->mixer->learner == &ttt_learner_linear ? "linear attention whose values are the learner's errors" :
                                       "linear attention on the features of the learner's hidden layer, whose values are its errors";
    ttt_tensor *y = ttt__memory_run(c, &m, &rule, q, k, label, d->unmask);
    if (losses) *losses = ttt__memory_losses(c, &before, &m, k, label);
    if (m.scale) y = ttt_add(c, q, ttt__memory_norm(c, &m, y));
    return ttt_matmul(c,
                      ttt_layer_norm(c, ttt__weights(w + TTT__TTT_POST, 2), ttt_join_heads(c, y)),
                      w[TTT__TTT_O]);
}
static void ttt__ttt_check(ttt_ctx *c, const ttt_mixer_desc *d, int64_t N) {
    ttt__need(c, d->inner_steps <= 1, d, "inner_steps", d->inner_steps, "this layer takes one, whose rate a token learns");
    ttt__check_chunk(c, d, N);
}
// Views and output 4 D^2; the learner forwards, backwards and once more to be read; in dual form a chunk's products besides.
static double ttt__memory_flops(const ttt_mixer_desc *d, int64_t N) {
    double n = (double)N, D = (double)d->dim, h = D / (double)d->heads, f = (double)d->mixer->learner->flops * D * h;
    double layers = d->mixer->learner->n_rows / 2, chunk = d->causal ? 2 * layers * (layers > 1 ? 2.5 : 1) * (double)TTT__MIN(N, ttt__chunk_or(d, 16)) * D : 0;
    return 2 * n * (4 * D * D + (layers > 1 ? 3.5 : 3) * f + chunk);
}
static double ttt__memory_state(const ttt_mixer_desc *d, int64_t N) {
    double D = (double)d->dim, h = D / (double)d->heads;
    (void)N;
    return (double)d->mixer->learner->flops * D * h;
}

// Titans: the memory's weights have a velocity (what surprised lately) and a decay (what may be forgotten), each gated by
// the token: theta = inner_lr sigmoid(.), eta = sigmoid(.), alpha = sigmoid(.). Views as DeltaNet's (the paper, §4.4), memory
// x + LN(MLP(x)), error squared and averaged over h.
// Gradients are taken at the weights before a chunk; .chunk = 1 is the paper's rule, and not the same numbers.
// Layout of lucidrains/titans-pytorch (the authors' code is not public).                [arXiv 2501.00663]
enum { TTT__TITANS_VIEWS, TTT__TITANS_O = TTT__TITANS_VIEWS + 6, TTT__TITANS_RATE, TTT__TITANS_MOMENTUM = TTT__TITANS_RATE + 2,
       TTT__TITANS_DECAY = TTT__TITANS_MOMENTUM + 2, TTT__TITANS_SCALE = TTT__TITANS_DECAY + 2, TTT__TITANS_SHIFT, TTT__TITANS_W0 };
static const ttt_param_row ttt__titans_rows[] = {
    TTT__CONV_VIEW_ROWS
    { "o_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0 },
    { "rate/kernel", "D H", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_DECAYS, 0 },
    { "rate/bias", "H", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    { "momentum/kernel", "D H", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_DECAYS, 0 },
    { "momentum/bias", "H", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    { "decay/kernel", "D H", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_DECAYS, 0 },
    { "decay/bias", "H", TTT_INIT_LOG_TIME, NULL, NULL, 0, 0 },
    { "memory_norm/scale", "H h", TTT_INIT_ONE, NULL, NULL, 0, TTT__DECODER_NORM },
    { "memory_norm/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, TTT__DECODER_NORM },
};
static ttt_tensor *ttt__titans_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    ttt_tensor *in[3], *gate[3];
    ttt__conv_views(c, d, w + TTT__TITANS_VIEWS, x, in);
    for (int i = 0; i < 3; i++) gate[i] = ttt__gate(c, x, w[TTT__TITANS_RATE + 2 * i], w[TTT__TITANS_RATE + 2 * i + 1]);
    double h = (double)(d->dim / d->heads), step = 2 / h * (double)(d->inner_lrs ? d->inner_lrs[0] : d->inner_lr);  // from the mean's gradient to the half sum's
    ttt__rule_of rule = { ttt_scale(c, ttt_sigmoid(c, gate[0]), (ttt_real)step),
                          ttt__log_sigmoid(c, ttt_scale(c, gate[2], -1)), ttt__log_sigmoid(c, gate[1]), true, ttt__chunk_or(d, 16), losses != NULL };
    ttt__memory m = ttt__memory_of(c, d, w + TTT__TITANS_W0, x->shape.dim[0], w[TTT__TITANS_SCALE], w[TTT__TITANS_SHIFT]), before = m;
    ttt_tensor *label = m.scale ? ttt_sub(c, in[2], in[1]) : in[2];
    if (d->unmask) d->unmask->equals = "linear attention on the features of the learner's hidden layer, with momentum and decay as weights of past pairs";
    ttt_tensor *y = ttt__memory_run(c, &m, &rule, in[0], in[1], label, d->unmask);
    if (losses) *losses = ttt__memory_losses(c, &before, &m, in[1], label);
    if (m.scale) y = ttt_add(c, in[0], ttt__memory_norm(c, &m, y));
    return ttt_matmul(c, ttt_join_heads(c, y), w[TTT__TITANS_O]);
}
static double ttt__titans_flops(const ttt_mixer_desc *d, int64_t N) {
    ttt_mixer_desc causal = *d;
    causal.causal = true;
    return ttt__memory_flops(&causal, N);
}
static double ttt__titans_state(const ttt_mixer_desc *d, int64_t N) { return 2 * ttt__memory_state(d, N); }  // and the velocity

// -- LaCT: few, large updates. The learner is a SwiGLU, f(x) = (SiLU(x W_0) o x W_2) W_1; a chunk of tokens pushes it up
// the hill sum lr <f(k), v>, each weight with a rate of its own a token, softplus(x w + softplus^-1(0.01)); then every
// column of the weights is brought back to the length it had. q, k, v = SiLU(x W), q and k of length 1; RMS norm of each
// head. Here the chunk is the sequence, which is seen at once; with .causal a chunk is read before it is learned, with
// momentum m = the chunk's mean of sigmoid(x w), and softmax attention in a window as long as the chunk sees what is near.
// .muon: the update is made orthogonal first, by five steps of Newton and Schulz.          [arXiv 2505.23884]
enum { TTT__LACT_Q, TTT__LACT_K, TTT__LACT_V, TTT__LACT_O, TTT__LACT_LR, TTT__LACT_MOMENTUM, TTT__LACT_W, TTT__LACT_NORM = TTT__LACT_W + 3 };
#define TTT__CAUSAL 32  // option
static const ttt_param_row ttt__lact_rows[] = {
    TTT__VIEW_ROWS
    { "o_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0 },
    { "lr_proj/kernel", "D 3H", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_DECAYS, 0 },
    { "momentum_proj/kernel", "D H", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_DECAYS, TTT__CAUSAL },
    { "w0", "H h h", TTT_INIT_NORMAL_IN, "h", NULL, TTT_PARAM_INNER, 0 },
    { "w1", "H h h", TTT_INIT_NORMAL_IN, "h", NULL, TTT_PARAM_INNER, 0 },
    { "w2", "H h h", TTT_INIT_NORMAL_IN, "h", NULL, TTT_PARAM_INNER, 0 },
    { "o_norm/scale", "h", TTT_INIT_ONE, NULL, NULL, 0, 0 },
};
static ttt_tensor *ttt__column_norm(ttt_ctx *c, ttt_tensor *w) { return ttt_sqrt(c, ttt_sum_axis(c, ttt_square(c, w), -2)); }
// The nearest orthogonal matrix, nearly: X <- a X + (b A + c A^2) X, A = X X^T, whose polynomial brings all singular
// values close to 1. Coefficients of the official code (You Jiacheng's, 2025).          [Jordan 2024, Muon]
static ttt_tensor *ttt__orthogonal(ttt_ctx *c, ttt_tensor *g) {
    static const double step[5][3] = { { 4.0848, -6.8946, 2.9270 }, { 3.9505, -6.3029, 2.6377 }, { 3.7418, -5.5913, 2.3037 }, { 2.8769, -3.1427, 1.2046 }, { 2.8366, -3.0525, 1.2012 } };
    ttt_tensor *norm = ttt_sqrt(c, ttt_sum_axis(c, ttt_sum_axis(c, ttt_square(c, g), -1), -2)),
               *x = ttt_div(c, g, ttt_add_scalar(c, norm, (ttt_real)1e-7));
    for (int i = 0; i < 5; i++) {
        ttt_tensor *a = ttt_matmul_t(c, x, x, false, true), *b = ttt_add(c, ttt_scale(c, a, (ttt_real)step[i][1]), ttt_scale(c, ttt_matmul(c, a, a), (ttt_real)step[i][2]));
        x = ttt_add(c, ttt_scale(c, x, (ttt_real)step[i][0]), ttt_matmul(c, b, x));
    }
    return x;
}
typedef struct ttt__swiglu {
    ttt_tensor *w[3], *length[3];  // W_0, W_1, W_2 (B,H,h,h), and how long their columns shall be
    ttt_tensor *velocity[3];       // NULL: none yet
} ttt__swiglu;
static ttt_tensor *ttt__swiglu_hidden(ttt_ctx *c, const ttt__swiglu *m, ttt_tensor *x) { return ttt_mul(c, ttt_silu(c, ttt_matmul(c, x, m->w[0])), ttt_matmul(c, x, m->w[2])); }
static ttt_tensor *ttt__swiglu_read(ttt_ctx *c, const ttt__swiglu *m, ttt_tensor *x) { return ttt_matmul(c, ttt__swiglu_hidden(c, m, x), m->w[1]); }
// For each weight the sum over a chunk's tokens of  lr x^T (gradient of <f(k), v>).
static void ttt__swiglu_push(ttt_ctx *c, const ttt__swiglu *m, ttt_tensor *k, ttt_tensor *v, ttt_tensor *const *lr, ttt_tensor **push) {
    ttt_tensor *z = ttt_matmul(c, k, m->w[0]), *a = ttt_silu(c, z), *up = ttt_matmul(c, k, m->w[2]), *back = ttt_matmul_t(c, v, m->w[1], false, true);
    push[0] = ttt_matmul_t(c, ttt_mul(c, k, lr[0]), ttt_mul(c, ttt_mul(c, back, up), ttt_silu_d1(c, z)), true, false);
    push[1] = ttt_matmul_t(c, ttt_mul(c, ttt_mul(c, a, up), lr[1]), v, true, false);
    push[2] = ttt_matmul_t(c, ttt_mul(c, k, lr[2]), ttt_mul(c, back, a), true, false);
}
static ttt_tensor *ttt__as_long_as(ttt_ctx *c, ttt_tensor *w, ttt_tensor *length) {
    return ttt_div(c, length, ttt_add_scalar(c, ttt__column_norm(c, w), (ttt_real)1e-5));
}
static void ttt__swiglu_write(ttt_ctx *c, ttt__swiglu *m, ttt_tensor *k, ttt_tensor *v, ttt_tensor *const *lr, ttt_tensor *momentum, bool muon) {
    ttt_tensor *push[3];
    ttt__swiglu_push(c, m, k, v, lr, push);
    for (int i = 0; i < 3; i++) {
        m->velocity[i] = m->velocity[i] ? ttt_add(c, push[i], ttt_mul(c, m->velocity[i], momentum)) : push[i];
        ttt_tensor *to = ttt_add(c, m->w[i], muon ? ttt__orthogonal(c, m->velocity[i]) : m->velocity[i]);
        m->w[i] = ttt_mul(c, to, ttt__as_long_as(c, to, m->length[i]));
    }
}
// One chunk, no muon: the columns of what was there and of what was written are shortened alike.
static void ttt__lact_unmask(ttt_ctx *c, const ttt_mixer_desc *d, const ttt__swiglu *before, const ttt__swiglu *after, ttt_tensor *const *in, ttt_tensor *const *lr, ttt_tensor *read) {
    d->unmask->equals = d->causal ? "none: the weights are rescaled after every chunk" : d->muon ? "none: the update is made orthogonal as a whole" :
                                    "linear attention on the features of the learner's hidden layer, its columns rescaled";
    if (d->causal || d->muon) return;
    ttt_tensor *key = ttt_mul(c, ttt__swiglu_hidden(c, before, in[1]), lr[1]), *to = ttt_add(c, before->w[1], ttt_matmul_t(c, key, in[2], true, false));
    ttt_tensor *shorter = ttt__as_long_as(c, to, before->length[1]);
    ttt__unmask_features(c, d->unmask, ttt__swiglu_hidden(c, after, in[0]), key, ttt_mul(c, in[2], shorter), ttt_mul(c, before->w[1], shorter), read);
}
// The memory's part of the layer, (B,H,N,h) before its norm.
static ttt_tensor *ttt__lact_memory(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *const *in, ttt_tensor *const *lr, ttt_tensor *momentum) {
    int64_t B = in[0]->shape.dim[0], N = in[0]->shape.dim[2], chunk = d->causal ? ttt__chunk_or(d, 2048) : N, n_chunks = (N + chunk - 1) / chunk;
    ttt_tensor **o = (ttt_tensor **)ttt_alloc(c, (size_t)n_chunks * sizeof *o, false);
    ttt__swiglu m, before;
    memset(&m, 0, sizeof m);
    for (int i = 0; i < 3; i++) {
        m.w[i] = ttt__lift_weight(c, w[TTT__LACT_W + i], B);
        m.length[i] = ttt__column_norm(c, m.w[i]);
    }
    before = m;
    for (int64_t i = 0; o && i < n_chunks; i++) {
        int64_t begin = i * chunk, n = TTT__MIN(chunk, N - begin);
        ttt_tensor *part[3], *rate[3];
        for (int j = 0; j < 3; j++) part[j] = ttt__tokens(c, in[j], begin, n), rate[j] = ttt__tokens(c, lr[j], begin, n);
        if (d->causal) o[i] = ttt__swiglu_read(c, &m, part[0]);
        if (!d->causal || i < n_chunks - 1) ttt__swiglu_write(c, &m, part[1], part[2], rate, d->causal ? ttt_mean_axis(c, ttt__tokens(c, momentum, begin, n), 2) : NULL, d->muon);
        if (!d->causal) o[i] = ttt__swiglu_read(c, &m, part[0]);
    }
    if (!o || !ttt_ok(c)) return in[0];
    ttt_tensor *y = n_chunks > 1 ? ttt_concat(c, o, (int)n_chunks, 2) : o[0];
    if (d->unmask) ttt__lact_unmask(c, d, &before, &m, in, lr, y);
    return y;
}
// Softmax attention to the last `chunk` tokens, on the views as they were before SiLU.
static ttt_tensor *ttt__lact_window(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *raw) {
    ttt_shape s = raw[0]->shape;
    ttt_tensor *flat[3], *a;
    int64_t N = s.dim[2], window = TTT__MIN(ttt__chunk_or(d, 2048), N);
    for (int i = 0; i < 3; i++) flat[i] = ttt_reshape(c, raw[i], TTT_SHAPE(s.dim[0] * s.dim[1], 1, N, s.dim[3]));
    ttt__tiling t = ttt__tiling_of(c, 1, N, window - 1, 0, true);
    return ttt_reshape(c, ttt__windowed(c, &t, flat[0], flat[1], flat[2], &a), s);
}
static ttt_tensor *ttt__lact_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    static const int order[4] = { 2, 0, 1, 3 };
    int64_t B = x->shape.dim[0], N = x->shape.dim[1], H = d->heads;
    ttt_tensor *in[3], *raw[3], *lr[3];
    for (int i = 0; i < 3; i++) {
        raw[i] = ttt__heads_of(c, d, x, w[TTT__LACT_Q + i]);
        in[i] = i < 2 ? ttt__unit(c, ttt_silu(c, raw[i]), 1e-10) : ttt_silu(c, raw[i]);
    }
    ttt_tensor *rates = ttt_split_heads(c, ttt__softplus(c, ttt_add_scalar(c, ttt_matmul(c, x, w[TTT__LACT_LR]), (ttt_real)log(expm1(0.01)))), H);  // (B,H,N,3)
    ttt_tensor *momentum = d->causal ? ttt_sigmoid(c, ttt__gate(c, x, w[TTT__LACT_MOMENTUM], NULL)) : NULL;
    if (!ttt_ok(c) || N == 0) return x;
    rates = ttt_permute(c, ttt_reshape(c, rates, TTT_SHAPE(B * H, N, 3, 1)), order);
    for (int i = 0; i < 3; i++) lr[i] = ttt_reshape(c, ttt_slice(c, rates, 0, i, 1), TTT_SHAPE(B, H, N, 1));
    ttt_tensor *y = ttt__rms_norm(c, ttt__lact_memory(c, d, w, in, lr, momentum), w[TTT__LACT_NORM]);
    if (d->causal) y = ttt_add(c, y, ttt__lact_window(c, d, raw));
    (void)losses;
    return ttt_matmul(c, ttt_join_heads(c, y), w[TTT__LACT_O]);
}
static double ttt__lact_flops(const ttt_mixer_desc *d, int64_t N) {  // k: 4 products backwards and forwards, q: 3, of D h
    double n = (double)N, D = (double)d->dim, h = D / (double)d->heads, chunk = (double)TTT__MIN(N, ttt__chunk_or(d, 2048));
    return 2 * n * (4 * D * D + 9 * D * h + (d->causal ? 2 * chunk * D : 0));
}
static double ttt__lact_state(const ttt_mixer_desc *d, int64_t N) {
    double D = (double)d->dim, h = D / (double)d->heads;
    return (d->causal ? 6 : 3) * D * h + (d->causal ? 2 * (double)TTT__MIN(N, ttt__chunk_or(d, 2048)) * D : 0);
}

// -- ViTTT: the learner is a gated linear unit, f(k) = k W_1 o SiLU(k W_2), a head, and beside the heads a 3x3 depthwise
// convolution of h channels; both take one step of rate 1 on  -<f(k), v> / (3 N), the gradient of each column (each
// kernel) divided by its length + 1, and are read by q. In words of attention: linear attention, and linear attention
// in a window. Last layer: not linear.                    [arXiv 2512.01643; LeapLabTHU/ViTTT ttt_block.py]
enum { TTT__VITTT_QKV, TTT__VITTT_BIAS, TTT__VITTT_W1, TTT__VITTT_W2, TTT__VITTT_W3, TTT__VITTT_O, TTT__VITTT_O_BIAS };
static const ttt_param_row ttt__vittt_rows[] = {
    { "qkv/kernel", "D E", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0 },
    { "qkv/bias", "E", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    { "w1", "H h h", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_INNER, 0 },
    { "w2", "H h h", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_INNER, 0 },
    { "w3", "9 h", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_INNER, 0 },
    { "proj/kernel", "P D", TTT_INIT_XAVIER, "P", "D", TTT_PARAM_DECAYS, 0 },
    { "proj/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
};
static ttt_tensor *ttt__clipped_step(ttt_ctx *c, ttt_tensor *w, ttt_tensor *g) {
    return ttt_sub(c, w, ttt_div(c, g, ttt_add_scalar(c, ttt__column_norm(c, g), 1)));
}
static ttt_tensor *ttt__glu_read(ttt_ctx *c, ttt_tensor *w1, ttt_tensor *w2, ttt_tensor *x) { return ttt_mul(c, ttt_matmul(c, x, w1), ttt_silu(c, ttt_matmul(c, x, w2))); }
static ttt_tensor *ttt__vittt_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    int64_t B = x->shape.dim[0], N = x->shape.dim[1], D = d->dim, h = D / d->heads;
    ttt_tensor *all = ttt_affine(c, x, w[TTT__VITTT_QKV], w[TTT__VITTT_BIAS]), *in[3], *local[3];
    const int64_t *at = ttt__grid_taps(c, d->grid_rows, d->grid_cols, 3);
    for (int i = 0; i < 3; i++) {
        in[i] = ttt_split_heads(c, ttt_slice(c, all, 2, i * D, D), d->heads);
        local[i] = ttt_slice(c, all, 2, 3 * D + i * h, h);
    }
    if (!ttt_ok(c) || !at) return x;
    ttt_tensor *w1 = ttt__lift_weight(c, w[TTT__VITTT_W1], B), *w2 = ttt__lift_weight(c, w[TTT__VITTT_W2], B);
    ttt_real over = -1 / (ttt_real)(3 * TTT__MAX(N, 1));
    ttt_tensor *e = ttt_scale(c, in[2], over), *z1 = ttt_matmul(c, in[1], w1), *z2 = ttt_matmul(c, in[1], w2);
    ttt_tensor *g1 = ttt_matmul_t(c, in[1], ttt_mul(c, e, ttt_silu(c, z2)), true, false);
    ttt_tensor *g2 = ttt_matmul_t(c, in[1], ttt_mul(c, ttt_mul(c, e, z1), ttt_silu_d1(c, z2)), true, false);
    ttt_tensor *y = ttt__glu_read(c, ttt__clipped_step(c, w1, g1), ttt__clipped_step(c, w2, g2), in[0]);

    ttt_tensor *taps = ttt__taps(c, local[1], at, 9);
    ttt_tensor *e3 = ttt_reshape(c, ttt_scale(c, local[2], over), TTT_SHAPE(B, N, 1, h));
    ttt_tensor *g3 = ttt_reshape(c, ttt_sum_axis(c, ttt_mul(c, taps, e3), 1), TTT_SHAPE(B, 1, 9, h));  // a kernel of 9 is a column
    ttt_tensor *w3 = ttt__clipped_step(c, w[TTT__VITTT_W3], g3);
    ttt_tensor *both[2] = { ttt_join_heads(c, y), ttt__depthwise(c, local[0], w3, at, 9) };
    (void)losses;
    if (d->unmask) d->unmask->equals = "none: the last layer of its learner, a gated linear unit, is not linear";
    return ttt_affine(c, ttt_concat(c, both, 2, 2), w[TTT__VITTT_O], w[TTT__VITTT_O_BIAS]);
}
static void ttt__vittt_check(ttt_ctx *c, const ttt_mixer_desc *d, int64_t N) {
    if (ttt__need(c, d->globals == 0, d, "globals", d->globals, "this layer has none")) ttt__check_grid(c, d, N);
}
static double ttt__vittt_flops(const ttt_mixer_desc *d, int64_t N) {
    double n = (double)N, D = (double)d->dim, h = D / (double)d->heads;
    return 2 * n * (D * (3 * D + 3 * h) + (D + h) * D + 6 * D * h + 18 * h);
}
static double ttt__vittt_state(const ttt_mixer_desc *d, int64_t N) {
    double D = (double)d->dim, h = D / (double)d->heads;
    (void)N;
    return 2 * D * h + 9 * h;
}

// -- nothing: the block's MLP alone
static ttt_tensor *ttt__none_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    (void)w;
    (void)losses;
    if (d->unmask) d->unmask->equals = "none: tokens do not see each other";
    return ttt_zeros(c, x->shape);
}
static double ttt__none_flops(const ttt_mixer_desc *d, int64_t N) {
    (void)d;
    (void)N;
    return 0;
}

// ---- [8] FUSED LAYERS ---------------------------------------------------------------------------
// A layer as a single op, forwards and first-order backwards; its version on the tape is its composite,
// for higher orders and as its oracle. Three frames:
//   - the inner loop of MTTT (linear or MLP learner, with or without norm, descent or mini-batches):
//     a tile of tokens goes through learner, decoder, loss gradient and back while it is in the cache,
//     and all that is left of a step is the gradient of a head's few weights;
//   - whatever has the form  y = f(Q, K, V) W_o: softmax attention, linear attention, and the MTTT layer
//     that is linear attention;
//   - row by row: layer norm, and with it the MLP of a block.
// Work is cut into ranges of about 200 tokens of one sequence. Each range adds into a sum of its own, and
// the sums are joined in order, so that threads cannot change a bit. Sequences are taken in chunks of
// about 1,000 tokens, so that what passes from one phase to the next is still in the cache.

// The decoder z = x^ s + t, x^ = (r - mean r) rho, rho = (var r + eps)^(-1/2), r = e g + b_g, is D wide, and
// its input e only h. All that its loss c/2 |z - x|^2 and the gradient of that need of the wide rows
// are products which a head can make once, before any token is looked at. With the rows of g and b_g
// centered (G, b), M^T = G s and m = b s, and for a token x M and y = x m:
//     S = G G^T, sigma = b G^T, sigma0 = b b^T;   P = M^T M, pi = m M, pi0 = m m^T;   tau = t M, tau0 = t m^T
//     u = e S + sigma,  D var r = q1 = <e,u> + <e,sigma> + sigma0        v = e P + pi,  q2 = <e,v> + <e,pi> + pi0
//     q3 = <e,tau> + tau0,  q4 = <e,x M> + y
//     c/2 |z - x|^2 = c/2 (rho^2 q2 + 2 rho (q3 - q4) + |t|^2 - 2 <t,x> + |x|^2)
//     de = c rho (rho v + tau - x M) - m rho^2 u,  m = c/D (rho^2 q2 + rho (q3 - q4))
// Without norm rho = 1, s = 1, t = 0, m = 0, and nothing is centered: de = c (v - x M).
typedef struct ttt__decoder {
    int64_t h, D;
    bool norm;
    double eps;
    ttt_real c;                                      // H / (|S| D)
    const ttt_real *sigma, *pi, *tau;
    double sigma0, pi0, tau0;
    ttt_real *d_sigma, *d_pi, *d_tau, *d_scalars;    // their gradients
} ttt__decoder;
typedef struct ttt__layer_kernels {
    double (*decode)(const ttt__decoder *p, const ttt_real *e, const ttt_real *u, const ttt_real *v, const ttt_real *x, ttt_real x0, ttt_real *de);
    void (*decode_back)(const ttt__decoder *p, const ttt_real *e, ttt_real *u, ttt_real *v, const ttt_real *x, ttt_real x0, ttt_real *w, ttt_real *dx, ttt_real *dx0);
    void (*gelu_all)(int64_t n, const ttt_real *z, ttt_real *a, ttt_real *a1, ttt_real *a2);
    void (*gelu_step)(int64_t n, const ttt_real *a1, ttt_real *a2, ttt_real *da, ttt_real *ddz);
    void (*add_product)(int64_t n, const ttt_real *a, const ttt_real *b, ttt_real *y);
    void (*elu1)(int64_t n, ttt_real *y);
    void (*elu1_back)(int64_t n, const ttt_real *y, ttt_real *d);
    ttt_real (*row_max)(int64_t n, const ttt_real *a);
    double (*exp_sum)(int64_t n, const ttt_real *a, ttt_real *y, ttt_real scale, ttt_real shift);
    void (*softmax_back)(int64_t n, const ttt_real *p, ttt_real *d, ttt_real scale, ttt_real sum);
    void (*layer_norm)(int64_t n, const ttt_real *x, const ttt_real *s, const ttt_real *t, ttt_real *y);
    void (*layer_norm_back)(int64_t n, const ttt_real *x, const ttt_real *s, const ttt_real *g, ttt_real *dx, ttt_real *ds, ttt_real *dt);
} ttt__layer_kernels;
#define TTT__FOR_EACH_SET
#define TTT__KERNEL_FILE "ttt_layers.h"
#include "ttt_tensor.h"

static const ttt__layer_kernels *ttt__layer_kernels_of(const ttt_ctx *c) {
#if defined(TTT__X86)
    if (c->k == &ttt__table_avx512) return &ttt__layer_table_avx512;
    if (c->k == &ttt__table_avx2) return &ttt__layer_table_avx2;
    if (c->k == &ttt__table_sse2) return &ttt__layer_table_sse2;
#elif defined(TTT__NEON)
    if (c->k == &ttt__table_neon) return &ttt__layer_table_neon;
#elif defined(TTT__WASM)
    if (c->k == &ttt__table_simd128) return &ttt__layer_table_simd128;
#endif
    (void)c;
    return &ttt__layer_table_scalar;
}

enum { TTT__TILE_TOKENS = 64, TTT__RANGE_TOKENS = 200, TTT__CHUNK_TOKENS = 1024 };

// Sequences at a time: chunks of equal size (as nearly as may be), of at most CHUNK_TOKENS or one sequence.
static int64_t ttt__chunk_of(int64_t B, int64_t N) {
    int64_t most = TTT__MAX(1, TTT__CHUNK_TOKENS / TTT__MAX(N, 1)), chunks = (B + most - 1) / most;
    return chunks > 0 ? (B + chunks - 1) / chunks : 1;
}

// Cuts n into equal parts of at most `most`: the length of part i, and where it begins.
static int64_t ttt__piece(int64_t n, int64_t most, int64_t i, int64_t *from) {
    int64_t parts = (n + most - 1) / most;
    *from = n * i / parts;
    return i < parts ? n * (i + 1) / parts - *from : 0;
}

// A product of matrices inside a share: c (m,n) = init + op(a) op(b), rows ld apart.
typedef struct ttt__mat {
    const ttt_real *p;
    int64_t ld;
    bool t;  // stored transposed
} ttt__mat;
static ttt__mat ttt__plain(const ttt_real *p, int64_t ld) {
    ttt__mat m = { p, ld, false };
    return m;
}
static ttt__mat ttt__turned(const ttt_real *p, int64_t ld) {
    ttt__mat m = { p, ld, true };
    return m;
}
typedef struct ttt__hand {  // what a share computes with
    const ttt__kernels *k;
    const ttt__layer_kernels *lk;
    ttt_real *pack;
} ttt__hand;
static ttt__hand ttt__hand_of(const ttt_ctx *c, int thread) {
    ttt__hand h = { c->k, ttt__layer_kernels_of(c), c->pack[thread] };
    return h;
}
// Called in a hundred places, and too large to be in each of them.
static TTT__NOINLINE void ttt__mul_init(const ttt__hand *s, int64_t m, int64_t n, int64_t k, ttt__mat a, ttt__mat b, const ttt_real *init, int64_t init_ld, ttt_real *c, int64_t ld) {
    ttt__gemm g = { m, n, k, a.p, a.t ? 1 : a.ld, a.t ? a.ld : 1, b.p, b.t ? 1 : b.ld, b.t ? b.ld : 1, init, init_ld, c, ld, NULL, { NULL, NULL, 0 } };
    ttt__gemm_run(s->k, &g, s->pack);
}
static void ttt__mul_set(const ttt__hand *s, int64_t m, int64_t n, int64_t k, ttt__mat a, ttt__mat b, ttt_real *c, int64_t ld) { ttt__mul_init(s, m, n, k, a, b, NULL, 0, c, ld); }
static void ttt__mul_add(const ttt__hand *s, int64_t m, int64_t n, int64_t k, ttt__mat a, ttt__mat b, ttt_real *c, int64_t ld) { ttt__mul_init(s, m, n, k, a, b, c, ld, c, ld); }
// y (n,n) = a^T a of a (k,n). It is symmetric: only blocks on and right of its diagonal are multiplied, and those left of
// it are copied from them.
static void ttt__mul_gram(const ttt__hand *s, int64_t n, int64_t k, ttt__mat a, ttt_real *y) {
    enum { BLOCK = 16 };
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t end = TTT__MIN(i + BLOCK, n);
        ttt__mat right = { a.p + i * (a.t ? a.ld : 1), a.ld, a.t }, left = { right.p, a.ld, !a.t };  // a, a^T
        ttt__mul_set(s, end - i, n - i, k, left, right, y + i * n + i, n);
        for (int64_t r = i; r < end; r++)
            for (int64_t j = 0; j < i; j++) y[r * n + j] = y[j * n + r];
    }
}
// y (n) = init + the sum of a's rows, ld apart; without init, the sum.
static void ttt__rows_init(const ttt__hand *s, int64_t rows, int64_t n, const ttt_real *a, int64_t ld, const ttt_real *init, ttt_real *y) {
    ttt_real sum[64];
    for (int64_t j = 0; j < n; j += 64) {
        int64_t m = TTT__MIN(64, n - j);
        s->k->sum_rows(rows, m, ld, a + j, init ? sum : y + j);
        if (init) s->k->zip[TTT__ZIP_add](m, init + j, 1, sum, 1, y + j);
    }
}
static void ttt__rows_add(const ttt__hand *s, int64_t rows, int64_t n, const ttt_real *a, int64_t ld, ttt_real *y) { ttt__rows_init(s, rows, n, a, ld, y, y); }

// -- the learners, on a tile of q tokens of one head. Their weights are one block: w1 (h,m), b1 (m),
// w2 (m,h), b2 (h), the linear learner having only w1 (h,h) and b1; absent biases are left out.
typedef struct ttt__learner_shape {
    int64_t h, m;               // m = 0: linear
    int64_t w1, b1, w2, b2;     // offsets in the block, -1 if absent
    int64_t size;
} ttt__learner_shape;

static ttt__learner_shape ttt__learner_layout(int64_t h, bool mlp, bool bias) {
    ttt__learner_shape s = { h, mlp ? 4 * h : 0, 0, -1, -1, -1, 0 };
    int64_t wide = mlp ? 4 * h : h;
    s.size = h * wide;
    if (bias) s.b1 = s.size, s.size += wide;
    if (mlp) s.w2 = s.size, s.size += wide * h;
    if (mlp && bias) s.b2 = s.size, s.size += h;
    return s;
}

typedef struct ttt__tile {
    const ttt__hand *s;
    const ttt__learner_shape *shape;
    int64_t q;                       // tokens
    const ttt_real *k;               // their view (q,h), rows ldk apart
    int64_t ldk;
    const ttt_real *w, *wt;          // weights, and the transposes of w1 and w2 at the same offsets
    ttt_real *e;                     // prediction (q,h), rows lde apart
    int64_t lde;
    ttt_real *z, *a, *a1, *a2;       // MLP: z = k w1 + b1, a = gelu(z), its derivatives: (q,m) each
    ttt_real *t, *u;                 // MLP: room for two more
} ttt__tile;

static const ttt_real *ttt__at(const ttt_real *block, int64_t offset) { return block && offset >= 0 ? block + offset : NULL; }

// From z what does not take a product. `order`: 0 for the value, 1 with gelu', 2 with gelu'' besides.
static void ttt__tile_gelu(ttt__tile *t, int order) {
    if (t->shape->m) t->s->lk->gelu_all(t->q * t->shape->m, t->z, t->a, order > 0 ? t->a1 : NULL, order > 1 ? t->a2 : NULL);
}
// f(k) -> e, and z
static void ttt__tile_predict(ttt__tile *t, int order) {
    const ttt__learner_shape *s = t->shape;
    if (!s->m) {
        ttt__mul_init(t->s, t->q, s->h, s->h, ttt__plain(t->k, t->ldk), ttt__plain(t->w, s->h), ttt__at(t->w, s->b1), 0, t->e, t->lde);
        return;
    }
    ttt__mul_init(t->s, t->q, s->m, s->h, ttt__plain(t->k, t->ldk), ttt__plain(t->w, s->m), ttt__at(t->w, s->b1), 0, t->z, s->m);
    ttt__tile_gelu(t, order);
    ttt__mul_init(t->s, t->q, s->h, s->m, ttt__plain(t->a, s->m), ttt__plain(t->w + s->w2, s->h), ttt__at(t->w, s->b2), 0, t->e, t->lde);
}

// From the gradient de of the predictions: g = from + that of the weights, from NULL being zero. (linear:
// k^T de; MLP: a^T de and k^T dz, dz = (de w2^T) gelu'(z), which stays in t)
static void ttt__tile_gradient(ttt__tile *t, const ttt_real *de, int64_t ld, const ttt_real *from, ttt_real *g) {
    const ttt__learner_shape *s = t->shape;
    ttt__mat d = ttt__plain(de, ld);
    if (!s->m) {
        ttt__mul_init(t->s, s->h, s->h, t->q, ttt__turned(t->k, t->ldk), d, from, s->h, g, s->h);
        if (s->b1 >= 0) ttt__rows_init(t->s, t->q, s->h, de, ld, ttt__at(from, s->b1), g + s->b1);
        return;
    }
    ttt__mul_init(t->s, s->m, s->h, t->q, ttt__turned(t->a, s->m), d, ttt__at(from, s->w2), s->h, g + s->w2, s->h);
    if (s->b2 >= 0) ttt__rows_init(t->s, t->q, s->h, de, ld, ttt__at(from, s->b2), g + s->b2);
    ttt__mul_set(t->s, t->q, s->m, s->h, d, ttt__plain(t->wt + s->w2, s->m), t->t, s->m);
    t->s->k->zip[TTT__ZIP_mul](t->q * s->m, t->t, 1, t->a1, 1, t->t);
    ttt__mul_init(t->s, s->h, s->m, t->q, ttt__turned(t->k, t->ldk), ttt__plain(t->t, s->m), from, s->m, g, s->m);
    if (s->b1 >= 0) ttt__rows_init(t->s, t->q, s->m, t->t, s->m, ttt__at(from, s->b1), g + s->b1);
}

// The gradient step backwards, first half: from v, the gradient of the weights' gradient (vt: its
// transposes), that of de, into dde; to the views, dk; and to the weights, dw. What goes into a and z
// is left in t and u for the second half.
//   linear: g = k^T de:  dde = k v, dk += de v^T
//   MLP:    g1 = k^T dz, g2 = a^T de, dz = da gelu'(z), da = de w2^T:
//           ddz = k v1 + vb1;  dk += dz v1^T;  dda = ddz gelu'(z);  u = ddz da gelu''(z);
//           dde = dda w2 + a v2 + vb2;  dw2 += dda^T de;  t = de v2^T
// The MLP's buffers serve twice: t is da, then dz, then de v2^T, u is ddz, then dda; what u shall be takes the place of
// a2, and the two change places.
static void ttt__tile_back1(ttt__tile *t, const ttt_real *de, int64_t ld, const ttt_real *v, const ttt_real *vt, ttt_real *dde, ttt_real *dk, int64_t lddk, ttt_real *dw) {
    const ttt__learner_shape *s = t->shape;
    ttt__mat d = ttt__plain(de, ld), k = ttt__plain(t->k, t->ldk);
    if (!s->m) {
        ttt__mul_init(t->s, t->q, s->h, s->h, k, ttt__plain(v, s->h), ttt__at(v, s->b1), 0, dde, s->h);
        ttt__mul_add(t->s, t->q, s->h, s->h, d, ttt__plain(vt, s->h), dk, lddk);
        return;
    }
    ttt_real *da = t->t, *dz = da, *ddz = t->u, *dda = ddz;
    ttt__mul_set(t->s, t->q, s->m, s->h, d, ttt__plain(t->wt + s->w2, s->m), da, s->m);
    ttt__mul_init(t->s, t->q, s->m, s->h, k, ttt__plain(v, s->m), ttt__at(v, s->b1), 0, ddz, s->m);
    t->s->lk->gelu_step(t->q * s->m, t->a1, t->a2, da, ddz);
    ttt__mul_add(t->s, t->q, s->h, s->m, ttt__plain(dz, s->m), ttt__plain(vt, s->h), dk, lddk);
    ttt__mul_init(t->s, t->q, s->h, s->m, ttt__plain(dda, s->m), ttt__plain(t->w + s->w2, s->h), ttt__at(v, s->b2), 0, dde, s->h);
    ttt__mul_add(t->s, t->q, s->h, s->m, ttt__plain(t->a, s->m), ttt__plain(v + s->w2, s->h), dde, s->h);
    ttt__mul_add(t->s, s->m, s->h, t->q, ttt__turned(dda, s->m), d, dw + s->w2, s->h);
    ttt__mul_set(t->s, t->q, s->m, s->h, d, ttt__plain(vt + s->w2, s->m), t->t, s->m);
    t->u = t->a2;
    t->a2 = dda;
}

// Second half, and all there is for the test view (first: t and u hold nothing): from d, the gradient
// of the predictions e, to the weights and the views.
static void ttt__tile_back2(ttt__tile *t, const ttt_real *d, int64_t ld, bool first, ttt_real *dk, int64_t lddk, ttt_real *dw) {
    const ttt__learner_shape *s = t->shape;
    ttt__mat de = ttt__plain(d, ld), k = ttt__turned(t->k, t->ldk);
    if (!s->m) {
        ttt__mul_add(t->s, t->q, s->h, s->h, de, ttt__plain(t->wt, s->h), dk, lddk);
        ttt__mul_add(t->s, s->h, s->h, t->q, k, de, dw, s->h);
        if (s->b1 >= 0) ttt__rows_add(t->s, t->q, s->h, d, ld, dw + s->b1);
        return;
    }
    if (first) ttt__mul_set(t->s, t->q, s->m, s->h, de, ttt__plain(t->wt + s->w2, s->m), t->t, s->m);
    else ttt__mul_add(t->s, t->q, s->m, s->h, de, ttt__plain(t->wt + s->w2, s->m), t->t, s->m);
    ttt__mul_add(t->s, s->m, s->h, t->q, ttt__turned(t->a, s->m), de, dw + s->w2, s->h);
    if (s->b2 >= 0) ttt__rows_add(t->s, t->q, s->h, d, ld, dw + s->b2);
    if (first) t->s->k->zip[TTT__ZIP_mul](t->q * s->m, t->t, 1, t->a1, 1, t->u);
    else t->s->lk->add_product(t->q * s->m, t->t, t->a1, t->u);
    ttt__mul_add(t->s, t->q, s->h, s->m, ttt__plain(t->u, s->m), ttt__plain(t->wt, s->h), dk, lddk);
    ttt__mul_add(t->s, s->h, s->m, t->q, k, ttt__plain(t->u, s->m), dw, s->m);
    if (s->b1 >= 0) ttt__rows_add(t->s, t->q, s->m, t->u, s->m, dw + s->b1);
}

// -- the op
// What the tape keeps of a layer: its description, which of its inputs is which parameter, and what
// going backwards will want.
typedef struct ttt__mttt_arg {
    ttt_mixer_desc d;
    int T;
    ttt_real rates[TTT_MAX_INNER_STEPS];
    const int64_t *order;                // (H,L) or NULL
    int64_t L;
    signed char at[TTT__MTTT_W0 + 4];    // input number of each parameter row; -1: absent
    bool want_losses;
    ttt_tensor *losses;
    bool kept;                           // what follows is kept for the way back; else some of it is not there
    ttt_real *k, *q, *xm;                // views (B,N,D), heads side by side; xm: x M
    ttt_real *xm0;                       // x m, (B,N,H)
    ttt_real *w;                         // weights: W_0 (H,size), after each step (T,B,H,size); see ttt__w_of
    ttt_real *g;                         // inner gradients (T,B,H,size), if rates are learned
    ttt_real *e, *f;                     // predictions: of each step (T,B,H,n,h), and of the queries (B,N,D)
    ttt_real *e_z, *f_z;                 // MLP: their hidden numbers before GELU (T,B,H,n,m), (B,H,N,m)
    ttt_real *decoder;                   // products of the parameters, see ttt__decoder_begin
} ttt__mttt_arg;

typedef struct ttt__mttt {
    ttt_ctx *c;
    ttt__hand hand;
    const ttt__mttt_arg *a;
    int64_t B, N, D, H, h, n, R, rows;   // n: tokens of a step; R: ranges of a sequence, of at most `rows`
    int T, t;                            // steps; the one at work
    const int64_t *order;                // of the tokens, as a->order; NULL while all are read as they stand
    int64_t b0, bs;                      // the chunk of sequences at work
    ttt__learner_shape shape;
    const ttt_real *x, *phi, *phi_b, *psi, *psi_b, *hk, *h_b, *gk, *g_b, *scale, *shift;
    ttt_real *gc, *bc, *mt, *mk, *m0;    // G (H,h,D), b (D), M^T (H,h,D), M (H,D,h), m (H,D)
    ttt_real *w0_t;                      // W_0 transposed (H,size)
    ttt_real *S, *P, *rows3, *scalars;   // (H,h,h) twice; sigma, pi, tau (H,3,h); their scalars (H,3)
    ttt_real *part;                      // a block for each range and head of the chunk
    double *loss;                        // and its loss
    ttt_real *work;                      // room of each thread
    int64_t work_size;
    ttt_real *y;                         // forward: output
    // backward
    const ttt_real *dy;                  // NULL: forward
    ttt_real *dx, *df, *dq, *dk, *dxm, *dxm0;  // chunk buffers (rows,D), dxm0 (rows,H); dx of all
    ttt_real *dw;                        // gradient of the weights (bs,H,size)
    ttt_real *phi_t, *psi_t, *h_t;       // transposed (D,D)
    ttt_real *part_d, *dd;               // gradients of S, P, rows, scalars: of each range and head; of all, (H,block)
    ttt_real *dmt, *dm0;                 // of M^T (H,h,D), m (H,D)
} ttt__mttt;

static const ttt_real *ttt__param(const ttt_tensor *y, const ttt__mttt_arg *a, int row) { return a->at[row] < 0 ? NULL : y->in[(int)a->at[row]]->data; }
// Weights after t steps. Unless they are kept there is room for two steps of one chunk: a step takes the place of the one
// before the last, and a chunk that of the chunk before.
static ttt_real *ttt__w_of(const ttt__mttt *m, int t, int64_t b, int64_t h) {
    int64_t place = m->a->kept ? (t - 1) * m->B + b : (t - 1) % 2 * m->bs + b - m->b0;
    return m->a->w + (t == 0 ? h : m->H + place * m->H + h) * m->shape.size;
}
static ttt_real *ttt__part_of(const ttt__mttt *m, int64_t range, int64_t h) { return m->part + (range * m->H + h) * m->shape.size; }

// Room of a thread: tiles of the learner and the decoder, weights, two range-wide buffers.
static int64_t ttt__work_reals(const ttt__mttt *m) {
    int64_t q = TTT__TILE_TOKENS, wide = m->shape.m;
    return q * (7 * m->h + 6 * wide) + 3 * m->shape.size + 2 * m->rows * m->D;
}

// Shares of the work: range r of sequence b is share (b - b0) R + r.
typedef struct ttt__range {
    int64_t b, share, from, to;  // tokens (or places in the order)
    ttt__hand hand;
    ttt_real *tile_e, *tile_z, *dde, *tile_k, *tile_dk, *u, *v, *de, *wt, *dw, *dwt, *wide1, *wide2;
    ttt__tile t;
} ttt__range;

static ttt__range ttt__range_begin(const ttt__mttt *m, int64_t share, int thread, int64_t tokens) {
    ttt__range g;
    int64_t q = TTT__TILE_TOKENS, part = share % m->R;
    ttt_real *p = m->work + thread * m->work_size;
    memset(&g, 0, sizeof g);
    g.share = share;
    g.b = m->b0 + share / m->R;
    g.from = tokens * part / m->R;
    g.to = tokens * (part + 1) / m->R;
    g.hand = ttt__hand_of(m->c, thread);
#define ROOM(size) (p += (size), p - (size))
    g.tile_e = ROOM(q * m->h);
    g.dde = ROOM(q * m->h);
    g.tile_k = ROOM(q * m->h);
    g.tile_dk = ROOM(q * m->h);
    g.u = ROOM(q * m->h);
    g.v = ROOM(q * m->h);
    g.de = ROOM(q * m->h);
    g.tile_z = ROOM(q * m->shape.m);
    g.t.a = ROOM(q * m->shape.m);
    g.t.a1 = ROOM(q * m->shape.m);
    g.t.a2 = ROOM(q * m->shape.m);
    g.t.t = ROOM(q * m->shape.m);
    g.t.u = ROOM(q * m->shape.m);
    g.wt = ROOM(m->shape.size);
    g.dw = ROOM(m->shape.size);
    g.dwt = ROOM(m->shape.size);
    g.wide1 = ROOM(m->rows * m->D);
    g.wide2 = ROOM(m->rows * m->D);
#undef ROOM
    g.t.shape = &m->shape;
    return g;
}

// w2 of a block transposed, and w1 if it is for the way back, at the same offsets.
static void ttt__turn_block(const ttt__hand *s, const ttt__learner_shape *l, const ttt_real *w, ttt_real *wt, bool back) {
    int64_t wide = l->m ? l->m : l->h;
    if (back) s->k->transpose(l->h, wide, w, wide, wt, l->h);
    if (l->m) s->k->transpose(l->m, l->h, w + l->w2, l->h, wt + l->w2, l->m);
}
static void ttt__turn_start(const ttt__mttt *m) {
    for (int64_t h = 0; h < m->H; h++) ttt__turn_block(&m->hand, &m->shape, ttt__w_of(m, 0, 0, h), m->w0_t + h * m->shape.size, m->dy != NULL);
}
// The tile's weights: those after t steps.
static void ttt__tile_weights(const ttt__mttt *m, ttt__range *g, int t, int64_t h) {
    g->t.w = ttt__w_of(m, t, g->b, h);
    g->t.wt = t == 0 ? m->w0_t + h * m->shape.size : g->wt;
    if (t > 0) ttt__turn_block(&g->hand, &m->shape, g->t.w, g->wt, m->dy != NULL);
}

// Tokens [i, i+q) of step t for head h: where token j of the tile lies in its sequence.
static int64_t ttt__token(const ttt__mttt *m, int64_t h, int64_t i) { return m->order ? m->order[h * m->a->L + m->t * m->n + i] : i; }

// Points the tile at the views of these tokens, gathered if they are shuffled, and at the place of their predictions.
static void ttt__tile_views(const ttt__mttt *m, ttt__range *g, int64_t h, int64_t i, int64_t q) {
    const ttt_real *k = m->a->k + g->b * m->N * m->D + h * m->h;
    int64_t place = (((int64_t)m->t * m->B + g->b) * m->H + h) * m->n + i;
    bool kept = m->a->kept && m->t < m->T;
    g->t.s = &g->hand;
    g->t.q = q;
    g->t.k = k + i * m->D;
    g->t.ldk = m->D;
    g->t.e = kept ? m->a->e + place * m->h : g->tile_e;
    g->t.lde = m->h;
    g->t.z = kept ? m->a->e_z + place * m->shape.m : g->tile_z;
    if (!m->order) return;
    for (int64_t j = 0; j < q; j++) memcpy(g->tile_k + j * m->h, k + ttt__token(m, h, i + j) * m->D, (size_t)m->h * sizeof *k);
    g->t.k = g->tile_k;
    g->t.ldk = m->h;
}

static ttt__decoder ttt__decoder_of(const ttt__mttt *m, int64_t h, int64_t tokens) {
    const ttt_real *row = m->rows3 + 3 * h * m->h, *s = m->scalars + 3 * h;
    ttt__decoder p = { m->h, m->D, m->scale != NULL, TTT_LAYER_NORM_EPS, (ttt_real)((double)m->H / ((double)tokens * (double)m->D)), row, row + m->h,
                       row + 2 * m->h, (double)s[0], (double)s[1], (double)s[2], NULL, NULL, NULL, NULL };
    return p;
}

// What of a token's loss is the same for every prediction: c/2 |t - x|^2.
static double ttt__loss_rest(const ttt__mttt *m, const ttt__decoder *p, int64_t h, const ttt_real *x) {
    const ttt__kernels *k = m->hand.k;
    const ttt_real *t = m->scale ? m->shift + h * m->D : NULL;
    return 0.5 * (double)p->c * (k->dot(m->D, x, x) + (t ? k->dot(m->D, t, t) - 2 * k->dot(m->D, t, x) : 0));
}

// u and v of a tile whose predictions are there.
static void ttt__tile_decode(const ttt__mttt *m, ttt__range *g, const ttt__decoder *p, int64_t h, int64_t q) {
    int64_t hh = m->h * m->h;
    ttt__mat e = ttt__plain(g->t.e, m->h);
    if (p->norm) ttt__mul_init(&g->hand, q, m->h, m->h, e, ttt__plain(m->S + h * hh, m->h), p->sigma, 0, g->u, m->h);
    ttt__mul_init(&g->hand, q, m->h, m->h, e, ttt__plain(m->P + h * hh, m->h), p->pi, 0, g->v, m->h);
}

// The loss of one tile in step t and, into g->de, its gradient in the prediction, which is made here, but on the way back
// only found.
static double ttt__tile_loss(const ttt__mttt *m, ttt__range *g, const ttt__decoder *p, int64_t h, int64_t i, int64_t q, int order) {
    double loss = 0;
    ttt__tile_views(m, g, h, i, q);
    if (m->dy) ttt__tile_gelu(&g->t, order);
    else ttt__tile_predict(&g->t, order);
    ttt__tile_decode(m, g, p, h, q);
    for (int64_t j = 0; j < q; j++) {
        int64_t token = g->b * m->N + ttt__token(m, h, i + j), at = j * m->h;
        loss += g->hand.lk->decode(p, g->t.e + at, g->u + at, g->v + at, m->a->xm + token * m->D + h * m->h, m->a->xm0[token * m->H + h], g->de + at);
        if (m->a->want_losses) loss += ttt__loss_rest(m, p, h, m->x + token * m->D);
    }
    return loss;
}

static int64_t ttt__tile_size(const ttt__range *g) {  // even tiles of at most TILE_TOKENS
    int64_t rows = g->to - g->from, tiles = (rows + TTT__TILE_TOKENS - 1) / TTT__TILE_TOKENS;
    return (rows + tiles - 1) / tiles;
}

// Step t of one range: for every head what its tokens take off the weights. Sums of a sequence's first range
// begin with W_t and are its W_t+1; those of the others are added to it. Only rates that are learned want the
// gradient itself.
static void ttt__step_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *m = (const ttt__mttt *)arg;
    for (int64_t share = begin; share < end; share++) {
        ttt__range g = ttt__range_begin(m, share, thread, m->n);
        int64_t tile = ttt__tile_size(&g);
        bool descends = !m->a->d.learn_rates, first = share % m->R == 0;
        for (int64_t h = 0; h < m->H; h++) {
            ttt__decoder p = ttt__decoder_of(m, h, m->n);
            ttt_real *sum = descends && first ? ttt__w_of(m, m->t + 1, g.b, h) : ttt__part_of(m, share, h);
            double loss = 0;
            ttt__tile_weights(m, &g, m->t, h);
            const ttt_real *from = descends && first ? g.t.w : NULL;
            for (int64_t i = g.from; i < g.to; i += tile, from = sum) {
                int64_t q = i + tile < g.to ? tile : g.to - i;
                loss += ttt__tile_loss(m, &g, &p, h, i, q, 1);
                if (descends) g.hand.k->map[TTT__MAP_scale](q * m->h, g.de, g.de, -m->a->rates[m->t]);
                ttt__tile_gradient(&g.t, g.de, m->h, from, sum);
            }
            m->loss[share * m->H + h] = loss;
        }
    }
}

// The ranges' sums into one, W_t+1; or g, and W_t+1 = W_t - eta_t g. One share a sequence and head.
static void ttt__descend_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *m = (const ttt__mttt *)arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t b = m->b0 + i / m->H, h = i % m->H, size = m->shape.size;
        ttt_real *next = ttt__w_of(m, m->t + 1, b, h), *sum = m->a->d.learn_rates ? ttt__part_of(m, (b - m->b0) * m->R, h) : next;
        for (int64_t r = 1; r < m->R; r++) m->hand.k->zip[TTT__ZIP_add](size, sum, 1, ttt__part_of(m, (b - m->b0) * m->R + r, h), 1, sum);
        if (!m->a->d.learn_rates) continue;
        if (m->a->kept) memcpy(m->a->g + (((int64_t)m->t * m->B + b) * m->H + h) * size, sum, (size_t)size * sizeof *sum);
        m->hand.k->map[TTT__MAP_scale](size, sum, sum, m->a->rates[m->t]);
        m->hand.k->zip[TTT__ZIP_sub](size, ttt__w_of(m, m->t, b, h), 1, sum, 1, next);
    }
}

// Views of a range, heads side by side: K = x phi + b_phi, x M, and later Q = x psi + b_psi.
static void ttt__view_rows(const ttt__mttt *m, const ttt__range *g, const ttt_real *kernel, const ttt_real *bias, ttt_real *to) {
    for (int64_t h = 0; h < m->H; h++)
        ttt__mul_init(&g->hand, g->to - g->from, m->h, m->D, ttt__plain(m->x + (g->b * m->N + g->from) * m->D, m->D),
                      ttt__plain(kernel + h * m->D * m->h, m->h), bias ? bias + h * m->h : NULL, 0, to + h * m->h, m->D);
}
static void ttt__views_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *m = (const ttt__mttt *)arg;
    for (int64_t share = begin; share < end; share++) {
        ttt__range g = ttt__range_begin(m, share, thread, m->N);
        int64_t token = g.b * m->N + g.from, at = token * m->D;
        ttt__view_rows(m, &g, m->phi, m->phi_b, m->a->k + at);
        ttt__view_rows(m, &g, m->mk, NULL, m->a->xm + at);
        ttt__mul_set(&g.hand, g.to - g.from, m->H, m->D, ttt__plain(m->x + at, m->D), ttt__turned(m->m0, m->D), m->a->xm0 + token * m->H, m->H);
    }
}

// Where the hidden numbers of a range's queries go, from the i-th on.
static ttt_real *ttt__query_z(const ttt__mttt *m, const ttt__range *g, int64_t h, int64_t i) {
    return m->a->f_z ? m->a->f_z + ((g->b * m->H + h) * m->N + g->from + i) * m->shape.m : g->tile_z;
}

// Output of a range: y = sum over heads of f(q) h + b_h with the final weights; and the final loss.
static void ttt__output_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *m = (const ttt__mttt *)arg;
    for (int64_t share = begin; share < end; share++) {
        ttt__range g = ttt__range_begin(m, share, thread, m->N);
        int64_t rows = g.to - g.from, at = (g.b * m->N + g.from) * m->D, tile = ttt__tile_size(&g);
        ttt_real *q = m->a->q ? m->a->q + at : g.wide1, *f = m->a->f ? m->a->f + at : g.wide2;
        ttt__view_rows(m, &g, m->psi, m->psi_b, q);
        for (int64_t h = 0; h < m->H; h++) {
            ttt__decoder p = ttt__decoder_of(m, h, m->N);
            double loss = 0;
            g.t.w = ttt__w_of(m, m->T, g.b, h);
            for (int64_t i = 0; i < rows; i += tile) {
                int64_t n = i + tile < rows ? tile : rows - i;
                if (m->a->want_losses) loss += ttt__tile_loss(m, &g, &p, h, g.from + i, n, 0);
                g.t.s = &g.hand;
                g.t.q = n;
                g.t.k = q + i * m->D + h * m->h;
                g.t.e = f + i * m->D + h * m->h;
                g.t.ldk = g.t.lde = m->D;
                g.t.z = ttt__query_z(m, &g, h, i);
                ttt__tile_predict(&g.t, 0);
            }
            m->loss[share * m->H + h] = loss;
        }
        ttt__mul_init(&g.hand, rows, m->D, m->D, ttt__plain(f, m->D), ttt__plain(m->hk, m->D), m->h_b, 0, m->y + at, m->D);
    }
}

static void ttt__add_losses(const ttt__mttt *m, int t) {
    if (!m->a->want_losses) return;
    double sum = 0;
    for (int64_t i = 0; i < m->bs * m->R * m->H; i++) sum += m->loss[i];
    m->a->losses->data[t] += (ttt_real)(sum / (double)m->B);
}

static ttt_real *ttt__room_of(ttt_ctx *c, int64_t reals, bool step) {
    return (ttt_real *)ttt__arena_alloc(c, step ? &c->step : &c->scratch, (size_t)reals * sizeof(ttt_real));
}

// The products of the decoder of each head, see ttt__decoder.
static void ttt__center(const ttt__kernels *k, int64_t D, const ttt_real *a, ttt_real *y,
                        bool center) {
    k->map[TTT__MAP_add_scalar](D, a, y, center ? (ttt_real)(-k->sum(D, a) / (double)D) : 0);
}
static void ttt__decoder_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *m = (const ttt__mttt *)arg;
    int64_t D = m->D, n = m->h;
    const ttt__kernels *k = m->hand.k;
    ttt__hand hand = ttt__hand_of(m->c, thread);
    for (int64_t h = begin; h < end; h++) {
        ttt_real *gc = m->gc + h * n * D, *mt = m->mt + h * n * D, *mk = m->mk + h * D * n, *m0 = m->m0 + h * D, *row = m->rows3 + 3 * h * n, *s = m->scalars + 3 * h;
        const ttt_real *scale = m->scale ? m->scale + h * D : NULL, *shift = m->scale ? m->shift + h * D : NULL;
        for (int64_t j = 0; j < n; j++)
            ttt__center(k, D, m->gk + (h * n + j) * D, gc + j * D, scale != NULL);
        memset(row, 0, (size_t)(3 * n) * sizeof *row);
        memset(s, 0, 3 * sizeof *s);
        if (scale) {
            k->transpose(n, D, gc, D, mk, n);  // G^T, until it is M
            ttt__mul_gram(&hand, n, D, ttt__plain(mk, n), m->S + h * n * n);
            ttt__mul_set(&hand, 1, n, D, ttt__plain(m->bc, D), ttt__plain(mk, n), row, n);
            for (int64_t j = 0; j < n; j++) k->zip[TTT__ZIP_mul](D, gc + j * D, 1, scale, 1, mt + j * D);
            k->zip[TTT__ZIP_mul](D, m->bc, 1, scale, 1, m0);
        } else memcpy(m0, m->bc, (size_t)D * sizeof *m0);
        k->transpose(n, D, mt, D, mk, n);
        ttt__mul_gram(&hand, n, D, ttt__plain(mk, n), m->P + h * n * n);
        ttt__mul_set(&hand, 1, n, D, ttt__plain(m0, D), ttt__plain(mk, n), row + n, n);
        s[1] = (ttt_real)k->dot(D, m0, m0);
        if (!scale) continue;
        ttt__mul_set(&hand, 1, n, D, ttt__plain(shift, D), ttt__plain(mk, n), row + 2 * n, n);
        s[0] = (ttt_real)k->dot(D, m->bc, m->bc);
        s[2] = (ttt_real)k->dot(D, m0, shift);
    }
}
// The block of these products: made forwards, only found again on the way back.
static int64_t ttt__decoder_reals(const ttt__mttt *m) { return (m->scale ? 3 : 2) * m->D * m->D + 2 * m->D * m->h + (4 + m->H) * m->D + 3 * m->H; }
static void ttt__decoder_begin(ttt__mttt *m) {
    int64_t D = m->D, n = m->h;
    ttt_real *p = m->a->decoder;
#define ROOM(size) (p += (size), p - (size))
    m->gc = ROOM(D * D);
    m->mt = m->scale ? ROOM(D * D) : m->gc;
    m->mk = ROOM(D * D);
    m->bc = ROOM(D);
    m->m0 = ROOM(m->H * D);
    m->S = ROOM(D * n);
    m->P = ROOM(D * n);
    m->rows3 = ROOM(3 * D);
    m->scalars = ROOM(3 * m->H);
#undef ROOM
    if (m->dy) return;
    ttt__center(m->hand.k, D, m->g_b, m->bc, m->scale != NULL);
    ttt__parallel(m->c, -1, m->H, 1, ttt__decoder_share, m);
}

// What forward and backward have in common: sizes, parameters, room.
static bool ttt__mttt_setup(ttt__mttt *m, ttt_ctx *c, const ttt_tensor *y, const ttt_real *dy) {
    const ttt__mttt_arg *a = (const ttt__mttt_arg *)y->arg;
    const ttt_tensor *x = y->in[0];
    memset(m, 0, sizeof *m);
    m->dy = dy;
    m->c = c;
    m->a = a;
    m->hand = ttt__hand_of(c, 0);
    m->B = x->shape.dim[0];
    m->N = x->shape.dim[1];
    m->D = a->d.dim;
    m->H = a->d.heads;
    m->h = m->D / m->H;
    m->T = a->T;
    m->order = a->order;
    m->n = a->order ? a->L / a->T : m->N;
    m->R = a->order ? 1 : (m->N + TTT__RANGE_TOKENS - 1) / TTT__RANGE_TOKENS;
    m->shape = ttt__learner_layout(m->h, a->d.mixer->learner == &ttt_learner_mlp, !a->d.no_inner_bias);
    m->x = x->data;
    m->phi = ttt__param(y, a, TTT__MTTT_PHI_KERNEL);
    m->phi_b = ttt__param(y, a, TTT__MTTT_PHI_BIAS);
    m->psi = ttt__param(y, a, TTT__MTTT_PSI_KERNEL);
    m->psi_b = ttt__param(y, a, TTT__MTTT_PSI_BIAS);
    m->gk = ttt__param(y, a, TTT__MTTT_G_KERNEL);
    m->g_b = ttt__param(y, a, TTT__MTTT_G_BIAS);
    m->hk = ttt__param(y, a, TTT__MTTT_H_KERNEL);
    m->h_b = ttt__param(y, a, TTT__MTTT_H_BIAS);
    m->scale = ttt__param(y, a, TTT__MTTT_LN_SCALE);
    m->shift = ttt__param(y, a, TTT__MTTT_LN_BIAS);
    m->bs = ttt__chunk_of(m->B, m->N);
    m->rows = (m->N + m->R - 1) / m->R;
    m->work_size = ttt__work_reals(m);
    m->work = ttt__room_of(c, c->threads * m->work_size, false);
    m->w0_t = ttt__room_of(c, m->H * m->shape.size, false);
    m->part = ttt__room_of(c, m->bs * m->R * m->H * m->shape.size, false);
    m->loss = (double *)ttt__arena_alloc(c, &c->scratch, (size_t)(m->bs * m->R * m->H) * sizeof *m->loss);
    return !c->result;
}

// W_0: the trained start as one block a head.
static void ttt__mttt_start(ttt__mttt *m, const ttt_tensor *y) {
    const int64_t offset[4] = { m->shape.w1, m->shape.b1, m->shape.w2, m->shape.b2 };
    const int64_t wide = m->shape.m ? m->shape.m : m->h, size[4] = { m->h * wide, wide, wide * m->h, m->h };
    for (int i = 0; i < 4; i++) {
        const ttt_real *w = ttt__param(y, m->a, TTT__MTTT_W0 + i);
        for (int64_t h = 0; w && h < m->H; h++) memcpy(ttt__w_of(m, 0, 0, h) + offset[i], w + h * size[i], (size_t)size[i] * sizeof *w);
    }
    ttt__turn_start(m);
}

// Room of what going backwards wants: in the step arena if it may come to that, else in scratch.
static bool ttt__mttt_keep(ttt__mttt *m, ttt__mttt_arg *a) {
    bool keep = a->kept = m->c->recording && !m->c->numbers_only;
    a->k = ttt__room_of(m->c, m->B * m->N * m->D, keep);
    a->w = ttt__room_of(m->c, (1 + (keep ? a->T * m->B : TTT__MIN(a->T, 2) * m->bs)) * m->H * m->shape.size, keep);
    a->q = keep ? ttt__room_of(m->c, m->B * m->N * m->D, true) : NULL;
    a->xm = ttt__room_of(m->c, m->B * m->N * m->D, keep);
    a->xm0 = ttt__room_of(m->c, m->B * m->N * m->H, keep);
    a->g = keep && a->d.learn_rates ? ttt__room_of(m->c, a->T * m->B * m->H * m->shape.size, true) : NULL;
    a->e = keep ? ttt__room_of(m->c, a->T * m->B * m->n * m->D, true) : NULL;
    a->f = keep ? ttt__room_of(m->c, m->B * m->N * m->D, true) : NULL;
    a->e_z = keep ? ttt__room_of(m->c, a->T * m->B * m->n * m->H * m->shape.m, true) : NULL;
    a->f_z = keep ? ttt__room_of(m->c, m->B * m->N * m->H * m->shape.m, true) : NULL;
    a->decoder = ttt__room_of(m->c, ttt__decoder_reals(m), keep);
    return !m->c->result;
}

static void ttt__fused_mttt_forward(ttt_ctx *c, ttt_tensor *y) {
    ttt__mttt_arg *a = (ttt__mttt_arg *)(uintptr_t)y->arg;
    ttt_mark scratch = ttt__arena_mark(&c->scratch);
    ttt__mttt m;
    if (a->at[TTT__MTTT_RATES] >= 0)
        for (int t = 0; t < a->T; t++) a->rates[t] = y->in[(int)a->at[TTT__MTTT_RATES]]->data[t];
    for (int t = 0; t <= a->T && a->want_losses && y->size == 0; t++) a->losses->data[t] = (ttt_real)NAN;  // the mean of none
    if (y->size == 0) return;
    bool ready = ttt__mttt_setup(&m, c, y, NULL) && ttt__mttt_keep(&m, a);
    m.y = y->data;
    if (ready) {
        ttt__decoder_begin(&m);
        ttt__mttt_start(&m, y);
    }
    int64_t all = m.bs;
    for (m.b0 = 0; ready && m.b0 < m.B; m.b0 += all) {
        m.bs = TTT__MIN(all, m.B - m.b0);
        ttt__parallel(c, -1, m.bs * m.R, 1, ttt__views_share, &m);
        for (m.t = 0; m.t < m.T; m.t++) {
            ttt__parallel(c, -1, m.bs * m.R, 1, ttt__step_share, &m);
            ttt__add_losses(&m, m.t);
            if (m.R > 1 || a->d.learn_rates) ttt__parallel(c, -1, m.bs * m.H, 4, ttt__descend_share, &m);
        }
        m.order = NULL;  // the final loss is of all tokens as they stand
        ttt__parallel(c, -1, m.bs * m.R, 1, ttt__output_share, &m);
        m.order = a->order;
        ttt__add_losses(&m, m.T);
    }
    ttt__arena_release(&c->scratch, scratch);
}

// -- and backwards
// Output and test view of a range: dF = dy h^T; then through f at the final weights to dQ and dW.
static void ttt__output_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *m = (const ttt__mttt *)arg;
    for (int64_t share = begin; share < end; share++) {
        ttt__range g = ttt__range_begin(m, share, thread, m->N);
        int64_t rows = g.to - g.from, at = (g.b * m->N + g.from) * m->D, local = at - m->b0 * m->N * m->D, tile = ttt__tile_size(&g);
        ttt__mul_set(&g.hand, rows, m->D, m->D, ttt__plain(m->dy + at, m->D), ttt__plain(m->h_t, m->D), m->df + local, m->D);
        memset(m->dq + local, 0, (size_t)(rows * m->D) * sizeof *m->dq);
        for (int64_t h = 0; h < m->H; h++) {
            ttt_real *dw = ttt__part_of(m, share, h);
            memset(dw, 0, (size_t)m->shape.size * sizeof *dw);
            ttt__tile_weights(m, &g, m->T, h);
            for (int64_t i = 0; i < rows; i += tile) {
                int64_t q = i + tile < rows ? tile : rows - i, place = i * m->D + h * m->h;
                g.t.s = &g.hand;
                g.t.q = q;
                g.t.k = m->a->q + at + place;
                g.t.ldk = m->D;
                g.t.z = ttt__query_z(m, &g, h, i);
                ttt__tile_gelu(&g.t, 1);
                ttt__tile_back2(&g.t, m->df + local + place, m->D, true, m->dq + local + place, m->D, dw);
            }
        }
    }
}

// The block of gradients that a range and head adds to: of S, P, the three rows and their scalars.
static int64_t ttt__decoder_block(const ttt__mttt *m) { return 2 * m->h * m->h + 3 * m->h + 3; }

// Step t of a range, backwards. m->dw holds the gradient of W_t+1; of the inner gradient it is
// -eta_t dW. Through decoder and prediction it reaches the views, the decoder's products, and W_t.
static void ttt__step_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *m = (const ttt__mttt *)arg;
    int64_t size = m->shape.size, n = m->h, hh = n * n;
    for (int64_t share = begin; share < end; share++) {
        ttt__range g = ttt__range_begin(m, share, thread, m->n);
        int64_t tile = ttt__tile_size(&g), first = (g.b - m->b0) * m->N;
        for (int64_t h = 0; h < m->H; h++) {
            ttt__decoder p = ttt__decoder_of(m, h, m->n);
            ttt_real *dw = ttt__part_of(m, share, h), *dS = m->part_d + (share * m->H + h) * ttt__decoder_block(m), *dP = dS + hh;
            p.d_sigma = dP + hh;
            p.d_pi = p.d_sigma + n;
            p.d_tau = p.d_pi + n;
            p.d_scalars = p.d_tau + n;
            memset(dw, 0, (size_t)size * sizeof *dw);
            ttt__tile_weights(m, &g, m->t, h);
            m->hand.k->map[TTT__MAP_scale](size, m->dw + ((g.b - m->b0) * m->H + h) * size, g.dw, -m->a->rates[m->t]);
            ttt__turn_block(&g.hand, &m->shape, g.dw, g.dwt, true);
            for (int64_t i = g.from; i < g.to; i += tile) {
                int64_t q = i + tile < g.to ? tile : g.to - i, lddk = m->order ? n : m->D;
                ttt_real *dk = m->order ? g.tile_dk : m->dk + (first + i) * m->D + h * n;
                if (m->order) memset(dk, 0, (size_t)(q * n) * sizeof *dk);
                (void)ttt__tile_loss(m, &g, &p, h, i, q, 2);
                ttt__tile_back1(&g.t, g.de, n, g.dw, g.dwt, g.dde, dk, lddk, dw);
                for (int64_t j = 0; j < q; j++) {
                    int64_t token = ttt__token(m, h, i + j), at = j * n, local = first + token, all = g.b * m->N + token;
                    g.hand.lk->decode_back(&p, g.t.e + at, g.u + at, g.v + at, m->a->xm + all * m->D + h * n, m->a->xm0[all * m->H + h], g.dde + at,
                                           m->dxm + local * m->D + h * n, &m->dxm0[local * m->H + h]);
                }
                ttt__mat e = ttt__turned(g.t.e, n), du = ttt__plain(g.u, n), dv = ttt__plain(g.v, n);
                if (p.norm) ttt__mul_add(&g.hand, n, n, q, e, du, dS, n);
                if (p.norm) ttt__mul_add(&g.hand, q, n, n, du, ttt__plain(m->S + h * hh, n), g.dde, n);
                ttt__mul_add(&g.hand, n, n, q, e, dv, dP, n);
                ttt__mul_add(&g.hand, q, n, n, dv, ttt__plain(m->P + h * hh, n), g.dde, n);
                ttt__tile_back2(&g.t, g.dde, n, false, dk, lddk, dw);
                for (int64_t j = 0; j < q && m->order; j++) {
                    ttt_real *to = m->dk + (first + ttt__token(m, h, i + j)) * m->D + h * n;
                    g.hand.k->zip[TTT__ZIP_add](n, to, 1, dk + j * n, 1, to);
                }
            }
        }
    }
}

// dW (+)= the ranges' blocks, one share a sequence and head.
static void ttt__join_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *m = (const ttt__mttt *)arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        for (int64_t r = 0; r < m->R; r++) {
            ttt_real *to = m->dw + i * m->shape.size;
            m->hand.k->zip[TTT__ZIP_add](m->shape.size, to, 1, ttt__part_of(m, i / m->H * m->R + r, i % m->H), 1, to);
        }
}

// dx += dQ psi^T + dK phi^T + d(x M) M^T + d(x m) m of a range.
static void ttt__views_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *m = (const ttt__mttt *)arg;
    for (int64_t share = begin; share < end; share++) {
        ttt__range g = ttt__range_begin(m, share, thread, m->N);
        int64_t rows = g.to - g.from, at = (g.b * m->N + g.from) * m->D, local = at - m->b0 * m->N * m->D;
        ttt__mul_add(&g.hand, rows, m->D, m->D, ttt__plain(m->dq + local, m->D), ttt__plain(m->psi_t, m->D), m->dx + at, m->D);
        ttt__mul_add(&g.hand, rows, m->D, m->D, ttt__plain(m->dk + local, m->D), ttt__plain(m->phi_t, m->D), m->dx + at, m->D);
        ttt__mul_add(&g.hand, rows, m->D, m->D, ttt__plain(m->dxm + local, m->D), ttt__plain(m->mt, m->D), m->dx + at, m->D);
        ttt__mul_add(&g.hand, rows, m->D, m->H, ttt__plain(m->dxm0 + local / m->D * m->H, m->H), ttt__plain(m->m0, m->D), m->dx + at, m->D);
    }
}

// The gradients of parameters that are products over all tokens of a chunk, one head's a share:
// h (F^T dy), psi and phi (x^T dQ, x^T dK), and the decoder's M^T.
typedef struct ttt__mttt_sums {
    const ttt__mttt *m;
    ttt_real *dh, *dpsi, *dphi;
    int64_t from, rows;  // tokens of the chunk, so few that they stay in the cache for all heads
} ttt__mttt_sums;
static void ttt__sums_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt_sums *s = (const ttt__mttt_sums *)arg;
    const ttt__mttt *m = s->m;
    ttt__hand hand = ttt__hand_of(m->c, thread);
    int64_t rows = s->rows, local = s->from * m->D, first = m->b0 * m->N * m->D + local, hD = m->h * m->D;
    for (int64_t i = begin; i < end; i++) {
        int64_t h = i / 4, column = local + h * m->h;
        ttt__mat x = ttt__turned(m->x + first, m->D);
        if (i % 4 == 0) ttt__mul_add(&hand, m->h, m->D, rows, ttt__turned(m->a->f + first + h * m->h, m->D), ttt__plain(m->dy + first, m->D), s->dh + h * hD, m->D);
        if (i % 4 == 1) ttt__mul_add(&hand, m->D, m->h, rows, x, ttt__plain(m->dq + column, m->D), s->dpsi + h * hD, m->h);
        if (i % 4 == 2) ttt__mul_add(&hand, m->D, m->h, rows, x, ttt__plain(m->dk + column, m->D), s->dphi + h * hD, m->h);
        if (i % 4 == 3) ttt__mul_add(&hand, m->h, m->D, rows, ttt__turned(m->dxm + column, m->D), ttt__plain(m->x + first, m->D), m->dmt + h * hD, m->D);
    }
}

// d eta_t = - sum g . dW_t+1 over the chunk
static void ttt__rate_back(const ttt__mttt *m, ttt_real *d_rates) {
    int64_t n = m->H * m->shape.size;
    double sum = 0;
    for (int64_t b = 0; b < m->bs && m->a->g; b++) sum += m->c->k->dot(n, m->a->g + ((int64_t)m->t * m->B + m->b0 + b) * n, m->dw + b * n);
    if (m->a->g) d_rates[m->t] -= (ttt_real)sum;
}

// Where gradients go: the buffers asked for, zeroed unless added to, and room for those nobody wants.
static ttt_real *ttt__gradient_room(ttt_ctx *c, const ttt_tensor *y, ttt_tensor **into, const bool *add, int i) {
    int64_t n = y->in[i]->size;
    ttt_real *p = into[i] ? into[i]->data : ttt__room_of(c, n, false);
    if (p && !(into[i] && add[i])) memset(p, 0, (size_t)n * sizeof *p);
    return p;
}

// From the gradients of a head's products to those of g, b_g and the norm:
//   dM^T += (dP + dP^T) M^T + dpi^T m + dtau^T t;  dm += dpi M^T + 2 dpi0 m + dtau0 t;  dt += dtau M^T + dtau0 m
//   dG = (dS + dS^T) G + dsigma^T b + dM^T s;  db = dsigma G + 2 dsigma0 b + dm s;  ds += sum dM^T G + dm b
// and what comes out of centering a row is its gradient centered.
typedef struct ttt__decoder_gradients {
    const ttt__mttt *m;
    ttt_real *g, *b, *scale, *shift;  // b: of each head (H,D)
} ttt__decoder_gradients;
static void ttt__add_both(int64_t n, const ttt_real *a, ttt_real *y);

static void ttt__decoder_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__decoder_gradients *d = (const ttt__decoder_gradients *)arg;
    const ttt__mttt *m = d->m;
    int64_t D = m->D, n = m->h, hh = n * n;
    const ttt__kernels *k = m->hand.k;
    ttt__hand s = ttt__hand_of(m->c, thread);
    for (int64_t h = begin; h < end; h++) {
        const ttt_real *dS = m->dd + h * ttt__decoder_block(m), *dP = dS + hh, *row = dP + hh, *scalar = row + 3 * n;
        const ttt_real *gc = m->gc + h * n * D, *mt = m->mt + h * n * D, *m0 = m->m0 + h * D;
        ttt_real *dmt = m->dmt + h * n * D, *dm0 = m->dm0 + h * D, *db = d->b + h * D, *both = m->work + thread * m->work_size, *line = both + hh;
        memset(both, 0, (size_t)hh * sizeof *both);
        ttt__add_both(n, dP, both);
        ttt__mul_add(&s, n, D, n, ttt__plain(both, n), ttt__plain(mt, D), dmt, D);
        ttt__mul_add(&s, n, D, 1, ttt__plain(row + n, 1), ttt__plain(m0, D), dmt, D);
        ttt__mul_add(&s, 1, D, n, ttt__plain(row + n, n), ttt__plain(mt, D), dm0, D);
        for (int64_t i = 0; i < D; i++) dm0[i] += 2 * scalar[1] * m0[i];
        if (!m->scale) {
            k->zip[TTT__ZIP_add](n * D, d->g + h * n * D, 1, dmt, 1, d->g + h * n * D);
            memcpy(db, dm0, (size_t)D * sizeof *db);
            continue;
        }
        const ttt_real *scale = m->scale + h * D, *shift = m->shift + h * D;
        ttt__mul_add(&s, n, D, 1, ttt__plain(row + 2 * n, 1), ttt__plain(shift, D), dmt, D);
        ttt__mul_add(&s, 1, D, n, ttt__plain(row + 2 * n, n), ttt__plain(mt, D), d->shift + h * D, D);
        for (int64_t i = 0; i < D; i++) {
            dm0[i] += scalar[2] * shift[i];
            d->shift[h * D + i] += scalar[2] * m0[i];
            d->scale[h * D + i] += dm0[i] * m->bc[i];
            db[i] = 2 * scalar[0] * m->bc[i] + dm0[i] * scale[i];
        }
        ttt__mul_add(&s, 1, D, n, ttt__plain(row, n), ttt__plain(gc, D), db, D);
        for (int64_t j = 0; j < n; j++) {
            s.lk->add_product(D, dmt + j * D, gc + j * D, d->scale + h * D);
            k->zip[TTT__ZIP_mul](D, dmt + j * D, 1, scale, 1, dmt + j * D);
        }
        memset(both, 0, (size_t)hh * sizeof *both);
        ttt__add_both(n, dS, both);
        ttt__mul_add(&s, n, D, n, ttt__plain(both, n), ttt__plain(gc, D), dmt, D);
        ttt__mul_add(&s, n, D, 1, ttt__plain(row, 1), ttt__plain(m->bc, D), dmt, D);
        for (int64_t j = 0; j < n; j++) {
            ttt__center(k, D, dmt + j * D, line, true);
            k->zip[TTT__ZIP_add](D, d->g + (h * n + j) * D, 1, line, 1, d->g + (h * n + j) * D);
        }
    }
}
static void ttt__decoder_back(const ttt__mttt *m, ttt_real **d) {
    ttt_real *b = ttt__room_of(m->c, m->H * m->D, false), *line = ttt__room_of(m->c, m->D, false);
    ttt__decoder_gradients to = { m, d[TTT__MTTT_G_KERNEL], b, d[TTT__MTTT_LN_SCALE], d[TTT__MTTT_LN_BIAS] };
    if (m->c->result) return;
    ttt__parallel(m->c, -1, m->H, 1, ttt__decoder_back_share, &to);
    for (int64_t h = 0; h < m->H; h++) {
        ttt__center(m->hand.k, m->D, b + h * m->D, line, m->scale != NULL);
        m->hand.k->zip[TTT__ZIP_add](m->D, d[TTT__MTTT_G_BIAS], 1, line, 1, d[TTT__MTTT_G_BIAS]);
    }
}

// The parts of the chunk's ranges, joined in their order.
static void ttt__join_decoder(const ttt__mttt *m) {
    int64_t n = m->H * ttt__decoder_block(m);
    for (int64_t s = 0; s < m->bs * m->R; s++) m->hand.k->zip[TTT__ZIP_add](n, m->dd, 1, m->part_d + s * n, 1, m->dd);
}

// dW_0, summed over sequences, into the parameters it was copied from.
static void ttt__start_back(const ttt__mttt *m, ttt_real **d) {
    const int64_t offset[4] = { m->shape.w1, m->shape.b1, m->shape.w2, m->shape.b2 };
    const int64_t wide = m->shape.m ? m->shape.m : m->h, size[4] = { m->h * wide, wide, wide * m->h, m->h };
    for (int i = 0; i < 4; i++)
        for (int64_t j = 0; j < m->bs * m->H && d[TTT__MTTT_W0 + i]; j++) {
            ttt_real *to = d[TTT__MTTT_W0 + i] + j % m->H * size[i];
            m->hand.k->zip[TTT__ZIP_add](size[i], to, 1, m->dw + j * m->shape.size + offset[i], 1, to);
        }
}

static bool ttt__mttt_back_room(ttt__mttt *m) {
    int64_t chunk = m->bs * m->N * m->D, D = m->D;
    m->df = ttt__room_of(m->c, chunk, false);
    m->dq = ttt__room_of(m->c, chunk, false);
    m->dk = ttt__room_of(m->c, chunk, false);
    m->dw = ttt__room_of(m->c, m->bs * m->H * m->shape.size, false);
    m->phi_t = ttt__room_of(m->c, D * D, false);
    m->psi_t = ttt__room_of(m->c, D * D, false);
    m->h_t = ttt__room_of(m->c, D * D, false);
    m->dxm = ttt__room_of(m->c, chunk, false);
    m->dxm0 = ttt__room_of(m->c, m->bs * m->N * m->H, false);
    m->part_d = ttt__room_of(m->c, m->bs * m->R * m->H * ttt__decoder_block(m), false);
    m->dd = ttt__room_of(m->c, m->H * ttt__decoder_block(m), false);
    m->dmt = ttt__room_of(m->c, D * D, false);
    m->dm0 = ttt__room_of(m->c, m->H * D, false);
    if (m->c->result) return false;
    memset(m->dd, 0, (size_t)(m->H * ttt__decoder_block(m)) * sizeof *m->dd);
    memset(m->dmt, 0, (size_t)(D * D) * sizeof *m->dmt);
    memset(m->dm0, 0, (size_t)(m->H * D) * sizeof *m->dm0);
    for (int64_t h = 0; h < m->H; h++) {
        m->hand.k->transpose(D, m->h, m->phi + h * D * m->h, m->h, m->phi_t + h * m->h * D, D);
        m->hand.k->transpose(D, m->h, m->psi + h * D * m->h, m->h, m->psi_t + h * m->h * D, D);
    }
    m->hand.k->transpose(D, D, m->hk, D, m->h_t, D);
    return true;
}

static void ttt__mttt_chunk_back(ttt__mttt *m, ttt_real **d) {
    ttt_ctx *c = m->c;
    int64_t shares = m->bs * m->R, rows = m->bs * m->N, D = m->D;
    ttt__mttt_sums sums = { m, d[TTT__MTTT_H_KERNEL], d[TTT__MTTT_PSI_KERNEL], d[TTT__MTTT_PHI_KERNEL], 0, 0 };
    memset(m->dw, 0, (size_t)(m->bs * m->H * m->shape.size) * sizeof *m->dw);
    memset(m->dk, 0, (size_t)(rows * D) * sizeof *m->dk);
    memset(m->dxm, 0, (size_t)(rows * D) * sizeof *m->dxm);
    memset(m->dxm0, 0, (size_t)(rows * m->H) * sizeof *m->dxm0);
    memset(m->part_d, 0, (size_t)(shares * m->H * ttt__decoder_block(m)) * sizeof *m->part_d);
    ttt__parallel(c, -1, shares, 1, ttt__output_back_share, m);
    ttt__parallel(c, -1, m->bs * m->H, 4, ttt__join_share, m);
    for (m->t = m->T - 1; m->t >= 0; m->t--) {
        ttt__rate_back(m, d[TTT__MTTT_RATES]);
        ttt__parallel(c, -1, shares, 1, ttt__step_back_share, m);
        ttt__parallel(c, -1, m->bs * m->H, 4, ttt__join_share, m);
    }
    ttt__start_back(m, d);
    ttt__join_decoder(m);
    for (int64_t i = 0; (sums.rows = ttt__piece(rows, TTT__CHUNK_TOKENS, i, &sums.from)) > 0; i++) ttt__parallel(c, -1, 4 * m->H, 1, ttt__sums_share, &sums);
    ttt__mul_add(&m->hand, m->H, D, rows, ttt__turned(m->dxm0, m->H), ttt__plain(m->x + m->b0 * m->N * D, D), m->dm0, D);
    ttt__parallel(c, -1, shares, 1, ttt__views_back_share, m);
    ttt__rows_add(&m->hand, rows, D, m->dy + m->b0 * m->N * D, D, d[TTT__MTTT_H_BIAS]);
    ttt__rows_add(&m->hand, rows, D, m->dq, D, d[TTT__MTTT_PSI_BIAS]);
    ttt__rows_add(&m->hand, rows, D, m->dk, D, d[TTT__MTTT_PHI_BIAS]);
}

static void ttt__fused_mttt_back(ttt_ctx *c, ttt_tensor *y, const ttt_tensor *g, ttt_tensor **into, const bool *add) {
    const ttt__mttt_arg *a = (const ttt__mttt_arg *)y->arg;
    ttt_mark scratch = ttt__arena_mark(&c->scratch);
    ttt__mttt m;
    ttt_real *d[TTT__MTTT_W0 + 4] = { NULL };
    for (int row = 0; row < TTT__MTTT_W0 + 4; row++)
        if (a->at[row] >= 0) d[row] = ttt__gradient_room(c, y, into, add, a->at[row]);
    ttt_real *dx = ttt__gradient_room(c, y, into, add, 0);
    if (y->size > 0 && ttt__mttt_setup(&m, c, y, g->data) && ttt__mttt_back_room(&m)) {
        m.dx = dx;
        ttt__decoder_begin(&m);
        ttt__turn_start(&m);
        int64_t all = m.bs;
        for (m.b0 = 0; m.b0 < m.B; m.b0 += all) {
            m.bs = TTT__MIN(all, m.B - m.b0);
            ttt__mttt_chunk_back(&m, d);
        }
        ttt__decoder_back(&m, d);
    }
    ttt__arena_release(&c->scratch, scratch);
}

// x and the parameters that are there as inputs of one op, and which of them is which. A tensor given
// twice becomes a second node, with a gradient of its own: shares write all gradients at once.
static int ttt__list_inputs(ttt_ctx *c, ttt_tensor *x, ttt_tensor *const *w, int rows, ttt_tensor **in, signed char *at) {
    int n = 1;
    in[0] = x;
    for (int row = 0; row < rows; row++) {
        if (!w[row]) continue;
        at[row] = (signed char)n;
        in[n] = w[row];
        for (int i = 0; i < n; i++)
            if (w[row] == in[i]) in[n] = ttt_reshape(c, w[row], w[row]->shape);
        n++;
    }
    return n;
}

// The tape's version on the op's inputs.
static ttt_tensor *ttt__fused_mttt_composite(ttt_ctx *c, ttt_tensor *const *in, const ttt_tensor *y) {
    const ttt__mttt_arg *a = (const ttt__mttt_arg *)y->arg;
    ttt_tensor *w[TTT__MTTT_W0 + 4];
    ttt_mixer_desc d = a->d;
    for (int row = 0; row < TTT__MTTT_W0 + 4; row++) w[row] = a->at[row] < 0 ? NULL : in[(int)a->at[row]];
    d.inner_lrs = a->rates;
    if (a->order) d.order = ttt_from_int(c, TTT_SHAPE(d.heads, a->L), a->order);
    return ttt__mttt_tape(c, &d, w, in[0], NULL);
}

static int64_t ttt__fused_mttt_count(const ttt_tensor *y) {
    const ttt__mttt_arg *a = (const ttt__mttt_arg *)y->arg;
    return (int64_t)(ttt__mttt_flops(&a->d, y->shape.dim[1]) * (double)y->shape.dim[0]);
}
static const ttt_op ttt__op_fused_mttt = { "mttt", "y = f_W(x psi) h, W after T inner steps", -1, 0, 0, ttt__fused_mttt_forward, NULL,
                                           ttt__fused_mttt_composite, ttt__fused_mttt_back, ttt__fused_mttt_count };

// A layer as one node. losses, if wanted, are numbers: they cannot be differentiated.
static ttt_tensor *ttt__mttt_fused(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    ttt__mttt_arg a;
    ttt_tensor *in[TTT__MTTT_W0 + 5];
    memset(&a, 0, sizeof a);
    memset(a.at, -1, sizeof a.at);
    int n = ttt__list_inputs(c, x, w, TTT__MTTT_W0 + d->mixer->learner->n_rows, in, a.at);
    a.d = *d;
    a.T = d->inner_steps ? d->inner_steps : 1;
    for (int t = 0; t < a.T; t++) a.rates[t] = d->inner_lrs ? d->inner_lrs[t] : d->inner_lr;
    const ttt_tensor *order = !d->inner_sgd ? NULL : d->order ? d->order : ttt__draw_order(c, d->heads, x->shape.dim[1]);
    if (!ttt__inner_good(c, a.T, true, order, d->heads)) return ttt_detach(c, x);
    for (int64_t i = 0; order && i < order->size; i++)
        if (order->index[i] < 0 || order->index[i] >= x->shape.dim[1])
            return ttt_fail(c, TTT_ERR_ARGUMENT, "%s: token %lld in the order; 0..%lld expected", d->mixer->name, (long long)order->index[i], (long long)x->shape.dim[1] - 1);
    if (order) {
        a.order = order->index;
        a.L = order->shape.dim[1];
    }
    a.want_losses = losses != NULL;
    if (losses) *losses = a.losses = ttt_zeros(c, TTT_SHAPE(a.T + 1));
    ttt_tensor *y = ttt_apply(c, &ttt__op_fused_mttt, in, n, x->shape, &a, sizeof a);
    // made from the inputs, which stand before it on the tape; y stands behind
    if (losses && ttt_ok(c) && y->op) ttt__set_producer(c, a.losses, &ttt__op_unrecorded, in, n, NULL, 0);
    return y;
}

// -- linear attention, and the layer that is linear attention
// Per sequence and head, with K~ = [K 1] if the learner has a bias (else K) and likewise Q~:
//     C = K~^T V       A = K~^T K~       s = K^T 1       F = Q~ W (/ Q s)       y = F O + b_o
// Linear attention reads off W = C, or C / (N h). MTTT-Linear without decoder norm has V = (x - b_g) g^T,
// and its gradient at W is c (A W S - C) with S = g g^T and c = H / (N D) = 1 / (N h): after one pass over the
// tokens its T steps see them no more. From W_0 = 0 the first is W_1 = eta c C: linear attention
// again, at the same cost; A is then not even looked at.
typedef struct ttt__view {  // a projection: head i's kernel begins at kernel + i * head, rows `row` apart
    const ttt_real *kernel, *bias;
    int64_t row, head;
} ttt__view;

typedef struct ttt__qkv_arg {
    ttt_mixer_desc d;
    bool softmax;
    int T;
    ttt_real rates[TTT_MAX_INNER_STEPS];
    signed char at[TTT__MTTT_W0 + 2];    // input number of each parameter row; -1: absent
    bool from_zero;                      // as W_0 was when the layer ran
    ttt_real *q, *k, *v, *f;             // for the way back: (B,N,D) each, heads side by side
    ttt_real *sums;                      // (B,H,kept): C, s, and A if it is needed
    ttt_real *lse;                       // softmax: ln sum e^score of every query, (B,H,N)
    ttt_real *w;                         // (T+1,B,H,e h): W before each step and at last
} ttt__qkv_arg;

typedef struct ttt__qkv {
    ttt_ctx *c;
    ttt__hand hand;
    const ttt__qkv_arg *a;
    bool softmax, learns, bias, adaptive, mapped, needs_a;
    int64_t B, N, D, H, h, e, R, rows;   // e: rows of W, h or h + 1; R: ranges of a sequence, of at most `rows`
    int64_t b0, bs, part, kept;          // the chunk of sequences at work; reals of one block of sums, at work and in the arg
    const ttt_real *x, *o, *o_b, *g, *w0[2];
    ttt_real *S;                         // g g^T of every head (H,h,h), where steps want it
    ttt__view q, k, v;
    ttt_real rate_unit;                  // H / (N D), which is 1 / (N h); or 1 if Q s divides
    ttt_real *parts;                     // sums of each range and head
    ttt_real *y, *work;
    int64_t work_size;
    // backward
    const ttt_real *dy;
    ttt_real *dx, *dq, *dk, *dv, *df;    // of the chunk; dx of all
    ttt_real *q_t, *k_t, *v_t, *o_t;     // transposed kernels (D,D)
    ttt_real *dw0, *ds, *d_rates;        // of the chunk (bs,H,e h), (bs,H,h h), (bs,H,T)
    bool wants_w0;
} ttt__qkv;

static ttt_real *ttt__sums_of(const ttt__qkv *m, int64_t range, int64_t h) { return m->parts + (range * m->H + h) * m->part; }
static ttt_real *ttt__weights_of(const ttt__qkv *m, int t, int64_t b, int64_t h) {
    return m->a->w + (((int64_t)t * m->B + b) * m->H + h) * m->e * m->h;
}
// Whether the gradient of step t looks at its weights (and at A): those that are zero it need not.
static bool ttt__has_weights(const ttt__qkv_arg *a, int t) { return a->d.mixer->learner && (t > 0 || !a->from_zero); }
static ttt_real *ttt__kept_sums(const ttt__qkv *m, int64_t b, int64_t h) { return m->a->sums + (b * m->H + h) * m->kept; }

enum { TTT__QUERIES = 64, TTT__KEYS = 512 };  // a tile of scores: 128 kB, beside K and V in the second-level cache

// The share of a range, and the parts of its thread's room.
typedef struct ttt__lines {
    ttt__hand hand;
    int64_t b, rows, at, local;          // sequence; tokens; where they lie in (B,N,D), in the chunk
    ttt_real *room[2];                   // (rows,D) each
    ttt_real *small[7];                  // (h+1,h+1) each
    ttt_real *row;                       // (rows)
    ttt_real *turned[2], *scores[2];     // softmax: (h,N) each; (QUERIES,KEYS) each
} ttt__lines;

static ttt__lines ttt__lines_of(const ttt__qkv *m, int64_t share, int thread) {
    ttt__lines g;
    int64_t r = share % m->R, from = m->N * r / m->R, to = m->N * (r + 1) / m->R;
    ttt_real *p = m->work + thread * m->work_size;
    g.hand = ttt__hand_of(m->c, thread);
    g.b = m->b0 + share / m->R;
    g.rows = to - from;
    g.at = (g.b * m->N + from) * m->D;
    g.local = g.at - m->b0 * m->N * m->D;
    for (int i = 0; i < 2; i++, p += m->rows * m->D) g.room[i] = p;
    for (int i = 0; i < 7; i++, p += (m->h + 1) * (m->h + 1)) g.small[i] = p;
    g.row = p;
    p += m->rows;
    for (int i = 0; i < 2 && m->softmax; i++, p += m->h * m->N) g.turned[i] = p;
    for (int i = 0; i < 2 && m->softmax; i++, p += TTT__QUERIES * TTT__KEYS) g.scores[i] = p;
    return g;
}

// Rows of x times one head's kernel plus its bias, into columns of `to`.
static void ttt__view_head(const ttt__qkv *m, const ttt__lines *g, const ttt__view *v, int64_t h, ttt_real *to) {
    ttt__mul_init(&g->hand, g->rows, m->h, m->D, ttt__plain(m->x + g->at, m->D), ttt__plain(v->kernel + h * v->head, v->row),
                  v->bias ? v->bias + h * m->h : NULL, 0, to, m->D);
}
static void ttt__map_rows(const ttt__qkv *m, const ttt__lines *g, ttt_real *p) {  // elu + 1
    for (int64_t i = 0; i < g->rows && m->mapped; i++) g->hand.lk->elu1(m->h, p + i * m->D);
}
static void ttt__map_rows_back(const ttt__qkv *m, const ttt__lines *g, const ttt_real *p, ttt_real *d) {
    for (int64_t i = 0; i < g->rows && m->mapped; i++) g->hand.lk->elu1_back(m->h, p + i * m->D, d + i * m->D);
}

// Forward, first half: K and V of a range, and their sums.
static void ttt__qkv_sums_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__qkv *m = (const ttt__qkv *)arg;
    for (int64_t share = begin; share < end; share++) {
        ttt__lines g = ttt__lines_of(m, share, thread);
        for (int64_t h = 0; h < m->H; h++) {
            ttt_real *k = (m->a->k ? m->a->k + g.at : g.room[0]) + h * m->h, *v = (m->a->v ? m->a->v + g.at : g.room[1]) + h * m->h;
            ttt_real *sums = ttt__sums_of(m, share, h), *s = sums + m->e * m->h;
            ttt__view_head(m, &g, &m->k, h, k);
            ttt__view_head(m, &g, &m->v, h, v);
            if (m->softmax) continue;
            memset(sums, 0, (size_t)m->part * sizeof *sums);
            ttt__map_rows(m, &g, k);
            ttt__mul_set(&g.hand, m->h, m->h, g.rows, ttt__turned(k, m->D), ttt__plain(v, m->D), sums, m->h);
            if (m->bias) g.hand.k->sum_rows(g.rows, m->h, m->D, v, sums + m->h * m->h);
            if (m->adaptive || (m->bias && m->needs_a)) g.hand.k->sum_rows(g.rows, m->h, m->D, k, s);
            if (m->needs_a) ttt__mul_gram(&g.hand, m->h, g.rows, ttt__plain(k, m->D), s + m->h);
        }
    }
}

// A (e,e) from its sums: K^T K, bordered by s and N if there is a bias.
static void ttt__gram(const ttt__qkv *m, const ttt_real *sums, ttt_real *A) {
    const ttt_real *s = sums + m->e * m->h;
    for (int64_t i = 0; i < m->h; i++) {
        memcpy(A + i * m->e, s + m->h + i * m->h, (size_t)m->h * sizeof *A);
        if (m->bias) A[i * m->e + m->h] = A[m->h * m->e + i] = s[i];
    }
    if (m->bias) A[m->h * m->e + m->h] = (ttt_real)m->N;
}

static void ttt__join_sums(const ttt__qkv *m, int64_t b, int64_t h) {  // in order of the ranges, into the first
    for (int64_t r = 1; r < m->R; r++) {
        ttt_real *to = ttt__sums_of(m, b * m->R, h);
        m->hand.k->zip[TTT__ZIP_add](m->part, to, 1, ttt__sums_of(m, b * m->R + r, h), 1, to);
    }
}

// c times the gradient at w, A w S - C, into G, and A w into Aw. No A: w is zero.
static void ttt__slope(const ttt__qkv *m, const ttt__hand *s, const ttt_real *A, const ttt_real *C, const ttt_real *S, const ttt_real *w, ttt_real *Aw, ttt_real *G) {
    int64_t n = m->e * m->h;
    s->k->map[TTT__MAP_scale](n, C, G, -1);
    if (A) {
        ttt__mul_set(s, m->e, m->h, m->e, ttt__plain(A, m->e), ttt__plain(w, m->h), Aw, m->h);
        ttt__mul_add(s, m->e, m->h, m->h, ttt__plain(Aw, m->h), ttt__plain(S, m->h), G, m->h);
    }
    s->k->map[TTT__MAP_scale](n, G, G, m->rate_unit);
}
static void ttt__decoder_gram_share(void *arg, int64_t begin, int64_t end, int thread) {  // S = g g^T, one head a share
    const ttt__qkv *m = (const ttt__qkv *)arg;
    ttt__hand hand = ttt__hand_of(m->c, thread);
    for (int64_t h = begin; h < end; h++) {
        const ttt_real *g = m->g + h * m->h * m->D;
        ttt__mul_gram(&hand, m->h, m->D, ttt__turned(g, m->D), m->S + h * m->h * m->h);
    }
}

// Second half, one share a sequence and head: from the sums to the weights that are read with.
static void ttt__weights_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__qkv *m = (const ttt__qkv *)arg;
    for (int64_t i = begin; i < end; i++) {
        ttt__lines g = ttt__lines_of(m, i / m->H * m->R, thread);
        int64_t b = i / m->H, h = i % m->H, n = m->e * m->h;
        ttt_real *C = ttt__sums_of(m, b * m->R, h), *A = g.small[0], *Aw = g.small[1], *G = g.small[2];
        const ttt_real *S = m->S ? m->S + h * m->h * m->h : NULL;
        ttt__join_sums(m, b, h);
        if (m->a->sums) memcpy(ttt__kept_sums(m, g.b, h), C, (size_t)m->kept * sizeof *C);
        if (!m->learns) {
            m->hand.k->map[TTT__MAP_scale](n, C, ttt__weights_of(m, 0, g.b, h), m->rate_unit);
            continue;
        }
        ttt_real *w = ttt__weights_of(m, 0, g.b, h);
        memcpy(w, m->w0[0] + h * m->h * m->h, (size_t)(m->h * m->h) * sizeof *w);
        if (m->bias) memcpy(w + m->h * m->h, m->w0[1] + h * m->h, (size_t)m->h * sizeof *w);
        if (m->needs_a) ttt__gram(m, C, A);
        for (int t = 0; t < m->a->T; t++) {
            ttt_real *next = ttt__weights_of(m, t + 1, g.b, h);
            ttt__slope(m, &g.hand, ttt__has_weights(m->a, t) ? A : NULL, C, S, w, Aw, G);
            m->hand.k->map[TTT__MAP_scale](n, G, G, m->a->rates[t]);
            m->hand.k->zip[TTT__ZIP_sub](n, w, 1, G, 1, next);
            w = next;
        }
    }
}

// F = Q W of a head; with the adaptive normalizer each row divided by q s.
static void ttt__read_head(const ttt__qkv *m, const ttt__lines *g, int64_t h, const ttt_real *q, ttt_real *f) {
    const ttt_real *w = ttt__weights_of(m, m->learns ? m->a->T : 0, g->b, h);
    const ttt_real *s = (m->a->sums ? ttt__kept_sums(m, g->b, h) : ttt__sums_of(m, (g->b - m->b0) * m->R, h)) + m->e * m->h;
    ttt__mul_init(&g->hand, g->rows, m->h, m->h, ttt__plain(q, m->D), ttt__plain(w, m->h), m->bias ? w + m->h * m->h : NULL, 0, f, m->D);
    for (int64_t i = 0; i < g->rows && m->adaptive; i++)
        g->hand.k->map[TTT__MAP_scale](m->h, f + i * m->D, f + i * m->D, (ttt_real)(1 / g->hand.k->dot(m->h, q + i * m->D, s)));
}
static void ttt__qkv_output_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__qkv *m = (const ttt__qkv *)arg;
    for (int64_t share = begin; share < end; share++) {
        ttt__lines g = ttt__lines_of(m, share, thread);
        ttt_real *q = m->a->q ? m->a->q + g.at : g.room[0], *f = m->a->f ? m->a->f + g.at : g.room[1];
        for (int64_t h = 0; h < m->H && !m->softmax; h++) {
            ttt__view_head(m, &g, &m->q, h, q + h * m->h);
            ttt__map_rows(m, &g, q + h * m->h);
            ttt__read_head(m, &g, h, q + h * m->h, f + h * m->h);
        }
        ttt__mul_init(&g.hand, g.rows, m->D, m->D, ttt__plain(f, m->D), ttt__plain(m->o, m->D), m->o_b, 0, m->y + g.at, m->D);
    }
}

// Backwards, first part: dF = dy O^T, dQ = dF W^T, and the sums dW = Q~^T dF of a range. With the
// adaptive normalizer F = U / n, n = q s:  dU = dF / n, dn = -<dF, F> / n, dq += dn s, ds = sum dn
// q.
static void ttt__divide_back(const ttt__qkv *m, const ttt__lines *g, int64_t h, const ttt_real *q, const ttt_real *f, ttt_real *df, ttt_real *ds) {
    const ttt_real *s = ttt__kept_sums(m, g->b, h) + m->e * m->h;
    for (int64_t i = 0; i < g->rows; i++) {
        double n = 1 / g->hand.k->dot(m->h, q + i * m->D, s), d = -g->hand.k->dot(m->h, df + i * m->D, f + i * m->D) * n;
        g->hand.k->map[TTT__MAP_scale](m->h, df + i * m->D, df + i * m->D, (ttt_real)n);
        g->row[i] = (ttt_real)d;
    }
    ttt__mul_set(&g->hand, 1, m->h, g->rows, ttt__plain(g->row, g->rows), ttt__plain(q, m->D), ds, m->h);
}
static void ttt__qkv_output_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__qkv *m = (const ttt__qkv *)arg;
    for (int64_t share = begin; share < end; share++) {
        ttt__lines g = ttt__lines_of(m, share, thread);
        ttt__mul_set(&g.hand, g.rows, m->D, m->D, ttt__plain(m->dy + g.at, m->D), ttt__plain(m->o_t, m->D), m->df + g.local, m->D);
        for (int64_t h = 0; h < m->H && !m->softmax; h++) {
            const ttt_real *w = ttt__weights_of(m, m->learns ? m->a->T : 0, g.b, h), *q = m->a->q + g.at + h * m->h, *f = m->a->f + g.at + h * m->h;
            ttt_real *df = m->df + g.local + h * m->h, *dq = m->dq + g.local + h * m->h, *dw = ttt__sums_of(m, share, h), *ds = dw + m->e * m->h;
            memset(dw, 0, (size_t)m->part * sizeof *dw);
            if (m->adaptive) ttt__divide_back(m, &g, h, q, f, df, ds);
            ttt__mul_set(&g.hand, g.rows, m->h, m->h, ttt__plain(df, m->D), ttt__turned(w, m->h), dq, m->D);
            if (m->adaptive) ttt__mul_add(&g.hand, g.rows, m->h, 1, ttt__plain(g.row, 1), ttt__plain(ttt__kept_sums(m, g.b, h) + m->e * m->h, m->h), dq, m->D);
            ttt__map_rows_back(m, &g, q, dq);
            ttt__mul_set(&g.hand, m->h, m->h, g.rows, ttt__turned(q, m->D), ttt__plain(df, m->D), dw, m->h);
            if (m->bias) g.hand.k->sum_rows(g.rows, m->h, m->D, df, dw + m->h * m->h);
            if (m->wants_w0 && !m->needs_a) {
                const ttt_real *k = m->a->k + g.at + h * m->h;
                ttt__mul_gram(&g.hand, m->h, g.rows, ttt__plain(k, m->D), ds + m->h);
                if (m->bias) g.hand.k->sum_rows(g.rows, m->h, m->D, k, ds);
            }
        }
    }
}

// y (n,n) += a + a^T
static void ttt__add_both(int64_t n, const ttt_real *a, ttt_real *y) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) y[i * n + j] += a[i * n + j] + a[j * n + i];
}

// The T steps backwards, with W' = W - eta c (A W S - C), P = -eta c dW' S and A, S symmetric:
//   dW = dW' + A P;  dA += P W^T;  dS -= eta c (A W)^T dW';  dC += eta c dW';  d eta = -<dW', c (A W S - C)>
// In: dw, the gradient of W_T. Out: in dw that of W_0; dC in dc, dA in da (e,e), both zero before.
static void ttt__steps_back(const ttt__qkv *m, const ttt__lines *g, int64_t h, const ttt_real *sums, ttt_real *dw, ttt_real *dc, ttt_real *da, ttt_real *d_rates) {
    ttt_real *A = g->small[0], *Aw = g->small[1], *G = g->small[2], *P = g->small[3];
    int64_t n = m->e * m->h, hh = m->h * m->h;
    const ttt_real *S = m->S ? m->S + h * hh : NULL;
    const ttt__kernels *k = g->hand.k;
    if (m->needs_a || m->wants_w0) ttt__gram(m, sums, A);
    for (int t = m->a->T - 1; t >= 0; t--) {
        const ttt_real *w = ttt__weights_of(m, t, g->b, h);
        bool has_w = ttt__has_weights(m->a, t);
        ttt__slope(m, &g->hand, has_w ? A : NULL, ttt__kept_sums(m, g->b, h), S, w, Aw, G);
        if (d_rates) d_rates[t] = (ttt_real)-k->dot(n, dw, G);
        k->map[TTT__MAP_scale](n, dw, G, m->a->rates[t] * m->rate_unit);  // eta c dW'
        k->zip[TTT__ZIP_add](n, dc, 1, G, 1, dc);
        if (!has_w && !m->wants_w0) continue;
        k->map[TTT__MAP_scale](n, G, G, -1);
        if (has_w) ttt__mul_add(&g->hand, m->h, m->h, m->e, ttt__turned(Aw, m->h), ttt__plain(G, m->h), m->ds + ((g->b - m->b0) * m->H + h) * hh, m->h);
        ttt__mul_set(&g->hand, m->e, m->h, m->h, ttt__plain(G, m->h), ttt__plain(S, m->h), P, m->h);
        if (has_w) ttt__mul_add(&g->hand, m->e, m->e, m->h, ttt__plain(P, m->h), ttt__turned(w, m->h), da, m->e);
        ttt__mul_add(&g->hand, m->e, m->h, m->e, ttt__plain(A, m->e), ttt__plain(P, m->h), dw, m->h);
    }
}

// Second part, one share a sequence and head: from dW to what K and V need, left in the first range's
// block: dC, ds, and dA + dA^T.
static void ttt__weights_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__qkv *m = (const ttt__qkv *)arg;
    for (int64_t i = begin; i < end; i++) {
        ttt__lines g = ttt__lines_of(m, i / m->H * m->R, thread);
        int64_t h = i % m->H, n = m->e * m->h, e = m->e;
        ttt_real *block = ttt__sums_of(m, i / m->H * m->R, h), *ds = block + n, *dw = m->dw0 + i * n;
        ttt_real *da = g.small[4], *both = g.small[5], *dc = g.small[6];
        ttt__join_sums(m, i / m->H, h);
        if (!m->learns) {
            m->hand.k->map[TTT__MAP_scale](n, block, block, m->rate_unit);
            continue;
        }
        memcpy(dw, block, (size_t)n * sizeof *dw);
        memset(da, 0, (size_t)(e * e) * sizeof *da);
        memset(both, 0, (size_t)(e * e) * sizeof *both);
        memset(dc, 0, (size_t)n * sizeof *dc);
        ttt__steps_back(m, &g, h, m->needs_a ? ttt__kept_sums(m, g.b, h) : block, dw, dc, da, m->d_rates ? m->d_rates + i * m->a->T : NULL);
        memcpy(block, dc, (size_t)n * sizeof *dc);
        if (!m->needs_a) continue;
        ttt__add_both(e, da, both);
        for (int64_t r = 0; r < m->h; r++) {
            memcpy(ds + m->h + r * m->h, both + r * e, (size_t)m->h * sizeof *ds);
            if (m->bias) ds[r] = both[r * e + m->h];
        }
    }
}

// Third part: dV = K~ dC, dK = V dC^T + 1 ds + K (dA + dA^T) of a range, and dx.
static void ttt__qkv_views_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__qkv *m = (const ttt__qkv *)arg;
    bool has_s = m->adaptive || (m->bias && m->needs_a);
    for (int64_t share = begin; share < end; share++) {
        ttt__lines g = ttt__lines_of(m, share, thread);
        for (int64_t h = 0; h < m->H && !m->softmax; h++) {
            const ttt_real *block = ttt__sums_of(m, share / m->R * m->R, h), *ds = block + m->e * m->h;
            const ttt_real *k = m->a->k + g.at + h * m->h, *v = m->a->v + g.at + h * m->h;
            ttt_real *dk = m->dk + g.local + h * m->h, *dv = m->dv + g.local + h * m->h;
            ttt__mul_init(&g.hand, g.rows, m->h, m->h, ttt__plain(k, m->D), ttt__plain(block, m->h), m->bias ? block + m->h * m->h : NULL, 0, dv, m->D);
            ttt__mul_init(&g.hand, g.rows, m->h, m->h, ttt__plain(v, m->D), ttt__turned(block, m->h), has_s ? ds : NULL, 0, dk, m->D);
            if (m->needs_a) ttt__mul_add(&g.hand, g.rows, m->h, m->h, ttt__plain(k, m->D), ttt__plain(ds + m->h, m->h), dk, m->D);
            ttt__map_rows_back(m, &g, k, dk);
        }
        ttt__mul_add(&g.hand, g.rows, m->D, m->D, ttt__plain(m->dq + g.local, m->D), ttt__plain(m->q_t, m->D), m->dx + g.at, m->D);
        ttt__mul_add(&g.hand, g.rows, m->D, m->D, ttt__plain(m->dk + g.local, m->D), ttt__plain(m->k_t, m->D), m->dx + g.at, m->D);
        ttt__mul_add(&g.hand, g.rows, m->D, m->D, ttt__plain(m->dv + g.local, m->D), ttt__plain(m->v_t, m->D), m->dx + g.at, m->D);
    }
}

// -- softmax attention, in the same frame
// F = softmax(Q K^T / sqrt h) V. The scores are made, used and forgotten in tiles of queries
// and keys: the sums so far are scaled down when a tile brings a larger maximum [Milakov 2018, Dao 2022].
typedef struct ttt__softmax_tile {  // `q` queries of a head against keys from..from+n
    const ttt_real *query;
    int64_t q, from, n;
} ttt__softmax_tile;

static void ttt__scores(const ttt__qkv *m, const ttt__lines *g, const ttt__softmax_tile *t, ttt_real *to) {  // Q K^T
    ttt__mul_set(&g->hand, t->q, t->n, m->h, ttt__plain(t->query, m->D), ttt__plain(g->turned[0] + t->from, m->N), to, t->n);
}

static void ttt__turn_head(const ttt__qkv *m, const ttt__lines *g, int64_t h, const ttt_real *a, ttt_real *to) {  // (N,h) -> (h,N)
    g->hand.k->transpose(m->N, m->h, a + g->b * m->N * m->D + h * m->h, m->D, to, m->N);
}

// One sequence and head, forwards: Q of a tile of queries, then over the keys.
static void ttt__softmax_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__qkv *m = (const ttt__qkv *)arg;
    ttt_real scale = (ttt_real)(1 / sqrt((double)m->h)), max[TTT__QUERIES];
    double sum[TTT__QUERIES];
    for (int64_t i = begin; i < end; i++) {
        ttt__lines g = ttt__lines_of(m, i / m->H * m->R, thread);
        int64_t h = i % m->H, first;
        ttt_real *s = g.scores[0];
        ttt__softmax_tile t;
        ttt__turn_head(m, &g, h, m->a->k, g.turned[0]);
        for (int64_t a = 0; (t.q = ttt__piece(m->N, TTT__QUERIES, a, &first)) > 0; a++) {
            int64_t at = (g.b * m->N + first) * m->D + h * m->h;
            ttt_real *query = m->a->q + at, *f = m->a->f + at;
            g.at = at - h * m->h;
            g.rows = t.q;
            ttt__view_head(m, &g, &m->q, h, query);
            t.query = query;
            for (int64_t b = 0; (t.n = ttt__piece(m->N, TTT__KEYS, b, &t.from)) > 0; b++) {
                const ttt_real *v = m->a->v + (g.b * m->N + t.from) * m->D + h * m->h;
                ttt__scores(m, &g, &t, s);
                for (int64_t j = 0; j < t.q; j++) {
                    ttt_real top = scale * g.hand.lk->row_max(t.n, s + j * t.n);
                    if (b > 0 && top <= max[j]) top = max[j];
                    double less = b > 0 ? exp((double)max[j] - (double)top) : 0, part = g.hand.lk->exp_sum(t.n, s + j * t.n, s + j * t.n, scale, top);
                    sum[j] = b > 0 ? sum[j] * less + part : part;
                    if (b > 0 && less != 1) g.hand.k->map[TTT__MAP_scale](m->h, f + j * m->D, f + j * m->D, (ttt_real)less);
                    max[j] = top;
                }
                ttt__mul_init(&g.hand, t.q, m->h, t.n, ttt__plain(s, t.n), ttt__plain(v, m->D), b > 0 ? f : NULL, m->D, f, m->D);
            }
            for (int64_t j = 0; j < t.q; j++) {
                g.hand.k->map[TTT__MAP_scale](m->h, f + j * m->D, f + j * m->D, (ttt_real)(1 / sum[j]));
                if (m->a->lse) m->a->lse[(g.b * m->H + h) * m->N + first + j] = (ttt_real)((double)max[j] + log(sum[j]));
            }
        }
    }
}

// And backwards: with P = e^(Q K^T / sqrt h - lse), n_i = <dF_i, F_i>:
//   dV += P^T dF;  dS = P (dF V^T - n) / sqrt h;  dK += dS^T Q;  dQ += dS K
static void ttt__softmax_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__qkv *m = (const ttt__qkv *)arg;
    ttt_real scale = (ttt_real)(1 / sqrt((double)m->h));
    for (int64_t i = begin; i < end; i++) {
        ttt__lines g = ttt__lines_of(m, i / m->H * m->R, thread);
        int64_t h = i % m->H, first, sequence = g.b * m->N * m->D + h * m->h, local = (g.b - m->b0) * m->N * m->D + h * m->h;
        ttt_real *p = g.scores[0], *ds = g.scores[1];
        ttt__softmax_tile t;
        ttt__turn_head(m, &g, h, m->a->k, g.turned[0]);
        ttt__turn_head(m, &g, h, m->a->v, g.turned[1]);
        for (int64_t j = 0; j < m->N; j++) {
            memset(m->dk + local + j * m->D, 0, (size_t)m->h * sizeof *p);
            memset(m->dv + local + j * m->D, 0, (size_t)m->h * sizeof *p);
            memset(m->dq + local + j * m->D, 0, (size_t)m->h * sizeof *p);
        }
        for (int64_t b = 0; (t.n = ttt__piece(m->N, TTT__KEYS, b, &t.from)) > 0; b++) {
            const ttt_real *k = m->a->k + sequence + t.from * m->D;
            ttt_real *dk = m->dk + local + t.from * m->D, *dv = m->dv + local + t.from * m->D;
            for (int64_t a = 0; (t.q = ttt__piece(m->N, TTT__QUERIES, a, &first)) > 0; a++) {
                const ttt_real *df = m->df + local + first * m->D, *f = m->a->f + sequence + first * m->D, *lse = m->a->lse + (g.b * m->H + h) * m->N + first;
                t.query = m->a->q + sequence + first * m->D;
                ttt__scores(m, &g, &t, p);
                for (int64_t j = 0; j < t.q; j++) (void)g.hand.lk->exp_sum(t.n, p + j * t.n, p + j * t.n, scale, lse[j]);
                ttt__mul_add(&g.hand, t.n, m->h, t.q, ttt__turned(p, t.n), ttt__plain(df, m->D), dv, m->D);
                ttt__mul_set(&g.hand, t.q, t.n, m->h, ttt__plain(df, m->D), ttt__plain(g.turned[1] + t.from, m->N), ds, t.n);
                for (int64_t j = 0; j < t.q; j++)
                    g.hand.lk->softmax_back(t.n, p + j * t.n, ds + j * t.n, scale, (ttt_real)g.hand.k->dot(m->h, df + j * m->D, f + j * m->D));
                ttt__mul_add(&g.hand, t.n, m->h, t.q, ttt__turned(ds, t.n), ttt__plain(t.query, m->D), dk, m->D);
                ttt__mul_add(&g.hand, t.q, m->h, t.n, ttt__plain(ds, t.n), ttt__plain(k, m->D), m->dq + local + first * m->D, m->D);
            }
        }
    }
}

// Gradients of the parameters, summed over the chunk: four products a head, each head a share of its own.
typedef struct ttt__qkv_sums {
    const ttt__qkv *m;
    ttt_real *q, *k, *v, *o;  // v: of g (H,h,D) if the layer learns
    int64_t from, rows;       // tokens of the chunk, so few that they stay in the cache for all heads
} ttt__qkv_sums;
static void ttt__qkv_params_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__qkv_sums *s = (const ttt__qkv_sums *)arg;
    const ttt__qkv *m = s->m;
    int64_t local = s->from * m->D, first = m->b0 * m->N * m->D + local, rows = s->rows;
    ttt__hand hand = ttt__hand_of(m->c, thread);
    for (int64_t i = begin; i < end; i++) {
        int64_t h = i / 4, column = local + h * m->h, row = h * m->h * m->D;
        ttt__mat x = ttt__turned(m->x + first, m->D);
        if (i % 4 == 0) ttt__mul_add(&hand, m->D, m->h, rows, x, ttt__plain(m->dq + column, m->D), s->q + h * m->q.head, m->q.row);
        if (i % 4 == 1) ttt__mul_add(&hand, m->D, m->h, rows, x, ttt__plain(m->dk + column, m->D), s->k + h * m->k.head, m->k.row);
        if (i % 4 == 2 && m->learns) ttt__mul_add(&hand, m->h, m->D, rows, ttt__turned(m->dv + column, m->D), ttt__plain(m->x + first, m->D), s->v + row, m->D);
        if (i % 4 == 2 && !m->learns) ttt__mul_add(&hand, m->D, m->h, rows, x, ttt__plain(m->dv + column, m->D), s->v + h * m->v.head, m->v.row);
        if (i % 4 == 3) ttt__mul_add(&hand, m->h, m->D, rows, ttt__turned(m->a->f + first + h * m->h, m->D), ttt__plain(m->dy + first, m->D), s->o + row, m->D);
    }
}

// What reaches g, b_g, W_0 and the rates besides: V's bias is -b_g g^T, and S = g g^T.
static void ttt__learner_params_back(const ttt__qkv *m, const ttt_real *g_bias, ttt_real **d) {
    int64_t D = m->D, hh = m->h * m->h, n = m->e * m->h;
    const ttt__kernels *k = m->hand.k;
    ttt_real *sum = m->work, *both = m->work + D;
    k->sum_rows(m->bs * m->N, D, D, m->dv, sum);
    k->map[TTT__MAP_scale](D, sum, sum, -1);
    ttt__mul_add(&m->hand, 1, D, D, ttt__plain(sum, D), ttt__plain(m->g, D), d[TTT__MTTT_G_BIAS], D);
    ttt__mul_add(&m->hand, D, D, 1, ttt__plain(sum, 1), ttt__plain(g_bias, D), d[TTT__MTTT_G_KERNEL], D);
    for (int64_t h = 0; h < m->H && m->needs_a; h++) {
        memset(both, 0, (size_t)hh * sizeof *both);
        for (int64_t b = 0; b < m->bs; b++) ttt__add_both(m->h, m->ds + (b * m->H + h) * hh, both);
        ttt__mul_add(&m->hand, m->h, D, m->h, ttt__plain(both, m->h), ttt__plain(m->g + h * m->h * D, D), d[TTT__MTTT_G_KERNEL] + h * m->h * D, D);
    }
    for (int64_t i = 0; i < m->bs * m->H; i++) {
        int64_t h = i % m->H;
        k->zip[TTT__ZIP_add](hh, d[TTT__MTTT_W0] + h * hh, 1, m->dw0 + i * n, 1, d[TTT__MTTT_W0] + h * hh);
        if (m->bias) k->zip[TTT__ZIP_add](m->h, d[TTT__MTTT_W0 + 1] + h * m->h, 1, m->dw0 + i * n + hh, 1, d[TTT__MTTT_W0 + 1] + h * m->h);
        if (d[TTT__MTTT_RATES]) k->zip[TTT__ZIP_add](m->a->T, d[TTT__MTTT_RATES], 1, m->d_rates + i * m->a->T, 1, d[TTT__MTTT_RATES]);
    }
}

static const ttt_real *ttt__qkv_param(const ttt_tensor *y, int row) {
    const ttt__qkv_arg *a = (const ttt__qkv_arg *)y->arg;
    return a->at[row] < 0 ? NULL : y->in[(int)a->at[row]]->data;
}
static bool ttt__starts_at_zero(const ttt_tensor *y) {
    const ttt__qkv_arg *a = (const ttt__qkv_arg *)y->arg;
    for (int row = TTT__MTTT_W0; row < TTT__MTTT_W0 + 2; row++) {
        const ttt_tensor *w = a->at[row] < 0 ? NULL : y->in[(int)a->at[row]];
        for (int64_t i = 0; w && i < w->size; i++)
            if (w->data[i] != 0) return false;
    }
    return true;
}
static ttt__view ttt__view_of(const ttt_tensor *y, int row, int64_t step, int64_t head) {
    ttt__view v = { ttt__qkv_param(y, row), ttt__qkv_param(y, row + 1), step, head };
    return v;
}
// The rows of the kernels of Q, K, V and the output; their biases come after them.
enum { TTT__Q, TTT__K, TTT__V, TTT__O };
static int ttt__kernel_row(bool learns, int which) {
    static const int row[2][4] = {
        { TTT__ATTENTION_Q_KERNEL, TTT__ATTENTION_K_KERNEL, TTT__ATTENTION_V_KERNEL, TTT__ATTENTION_O_KERNEL },
        { TTT__MTTT_PSI_KERNEL, TTT__MTTT_PHI_KERNEL, TTT__MTTT_G_KERNEL, TTT__MTTT_H_KERNEL },
    };
    return row[learns][which];
}

// V's kernel g^T and bias -b_g g^T, of all heads.
static void ttt__decoder_view(ttt__qkv *m, const ttt_real *g_bias) {
    ttt_real *gt = ttt__room_of(m->c, m->D * m->D, false), *bias = ttt__room_of(m->c, m->D, false);
    m->v.kernel = gt;
    m->v.bias = bias;
    m->v.row = m->h;
    m->v.head = m->D * m->h;
    if (m->c->result) return;
    for (int64_t h = 0; h < m->H; h++) m->hand.k->transpose(m->h, m->D, m->g + h * m->h * m->D, m->D, gt + h * m->D * m->h, m->h);
    ttt__mul_set(&m->hand, 1, m->D, m->D, ttt__plain(g_bias, m->D), ttt__turned(m->g, m->D), bias, m->D);
    m->hand.k->map[TTT__MAP_scale](m->D, bias, bias, -1);
}

static bool ttt__qkv_setup(ttt__qkv *m, ttt_ctx *c, const ttt_tensor *y, bool wants_w0) {
    const ttt__qkv_arg *a = (const ttt__qkv_arg *)y->arg;
    memset(m, 0, sizeof *m);
    m->c = c;
    m->a = a;
    m->hand = ttt__hand_of(c, 0);
    m->x = y->in[0]->data;
    m->B = y->shape.dim[0];
    m->N = y->shape.dim[1];
    m->D = a->d.dim;
    m->H = a->d.heads;
    m->h = m->D / m->H;
    m->softmax = a->softmax;
    m->learns = a->d.mixer->learner != NULL;
    m->bias = m->learns && !a->d.no_inner_bias;
    m->adaptive = !m->softmax && !m->learns && a->d.normalizer == TTT_NORMALIZER_ADAPTIVE;
    m->mapped = !m->softmax && !m->learns && !a->d.identity_map;
    m->e = m->h + m->bias;
    m->rate_unit = m->adaptive ? 1 : (ttt_real)(1 / ((double)m->N * (double)m->h));
    m->R = (m->N + TTT__RANGE_TOKENS - 1) / TTT__RANGE_TOKENS;
    m->rows = (m->N + m->R - 1) / m->R;
    m->bs = ttt__chunk_of(m->B, m->N);
    m->work_size = 2 * m->rows * m->D + 7 * (m->h + 1) * (m->h + 1) + m->rows + 2 * m->D;
    if (m->softmax) m->work_size += 2 * m->h * m->N + 2 * TTT__QUERIES * TTT__KEYS;
    m->work = ttt__room_of(c, c->threads * m->work_size, false);
    int64_t step = m->learns ? m->h : m->D, head = m->learns ? m->D * m->h : m->h;  // (H,D,h) or (D,D)
    m->q = ttt__view_of(y, ttt__kernel_row(m->learns, TTT__Q), step, head);
    m->k = ttt__view_of(y, ttt__kernel_row(m->learns, TTT__K), step, head);
    m->o = ttt__qkv_param(y, ttt__kernel_row(m->learns, TTT__O));
    m->o_b = ttt__qkv_param(y, ttt__kernel_row(m->learns, TTT__O) + 1);
    if (m->learns) {
        m->w0[0] = ttt__qkv_param(y, TTT__MTTT_W0);
        m->w0[1] = ttt__qkv_param(y, TTT__MTTT_W0 + 1);
        m->needs_a = ttt__has_weights(a, a->T - 1);
        m->g = ttt__qkv_param(y, TTT__MTTT_G_KERNEL);
        ttt__decoder_view(m, ttt__qkv_param(y, TTT__MTTT_G_BIAS));
    } else {
        m->v = ttt__view_of(y, TTT__ATTENTION_V_KERNEL, step, head);
    }
    m->wants_w0 = wants_w0 && m->learns;
    m->kept = m->e * m->h + m->h + (m->needs_a ? m->h * m->h : 0);
    m->part = m->wants_w0 && !m->needs_a ? m->kept + m->h * m->h : m->kept;
    m->parts = ttt__room_of(c, m->bs * m->R * m->H * m->part, false);
    if (m->needs_a || m->wants_w0) {
        m->S = ttt__room_of(c, m->D * m->h, false);
        if (!c->result) ttt__parallel(c, -1, m->H, 1, ttt__decoder_gram_share, m);
    }
    return !c->result;
}

static void ttt__qkv_forward(ttt_ctx *c, ttt_tensor *y) {
    ttt__qkv_arg *a = (ttt__qkv_arg *)(uintptr_t)y->arg;
    ttt_mark scratch = ttt__arena_mark(&c->scratch);
    ttt__qkv m;
    bool keep = c->recording && !c->numbers_only;
    if (a->at[TTT__MTTT_RATES] >= 0 && a->d.mixer->learner)
        for (int t = 0; t < a->T; t++) a->rates[t] = y->in[(int)a->at[TTT__MTTT_RATES]]->data[t];
    if (y->size == 0) return;
    a->from_zero = a->d.mixer->learner && ttt__starts_at_zero(y);
    bool ready = ttt__qkv_setup(&m, c, y, false);
    ttt_real **kept[4] = { &a->q, &a->k, &a->v, &a->f };
    for (int i = 0; i < 4 && (keep || m.softmax); i++) *kept[i] = ttt__room_of(c, y->size, keep);
    if (keep && !m.softmax) a->sums = ttt__room_of(c, m.B * m.H * m.kept, true);
    if (keep && m.softmax) a->lse = ttt__room_of(c, m.B * m.H * m.N, true);
    if (!m.softmax) a->w = ttt__room_of(c, (a->T + 1) * m.B * m.H * m.e * m.h, keep);
    m.y = y->data;
    for (int64_t all = m.bs; ready && m.b0 < m.B && !c->result; m.b0 += all) {
        m.bs = TTT__MIN(all, m.B - m.b0);
        ttt__parallel(c, -1, m.bs * m.R, 1, ttt__qkv_sums_share, &m);
        if (m.softmax) ttt__parallel(c, -1, m.bs * m.H, 1, ttt__softmax_share, &m);
        else ttt__parallel(c, -1, m.bs * m.H, 4, ttt__weights_share, &m);
        ttt__parallel(c, -1, m.bs * m.R, 1, ttt__qkv_output_share, &m);
    }
    ttt__arena_release(&c->scratch, scratch);
}

static bool ttt__qkv_back_room(ttt__qkv *m) {
    int64_t chunk = m->bs * m->N * m->D, D = m->D, heads = m->bs * m->H;
    ttt_real **room[] = { &m->dq, &m->dk, &m->dv, &m->df }, **turned[] = { &m->q_t, &m->k_t, &m->v_t };
    const ttt__view *view[] = { &m->q, &m->k, &m->v };
    for (int i = 0; i < 4; i++) *room[i] = ttt__room_of(m->c, chunk, false);
    for (int i = 0; i < 3; i++) *turned[i] = ttt__room_of(m->c, D * D, false);
    m->o_t = ttt__room_of(m->c, D * D, false);
    m->dw0 = ttt__room_of(m->c, heads * m->e * m->h, false);
    m->ds = ttt__room_of(m->c, heads * m->h * m->h, false);
    m->d_rates = m->learns && m->a->d.learn_rates ? ttt__room_of(m->c, heads * m->a->T, false) : NULL;
    if (m->c->result) return false;
    for (int i = 0; i < 3; i++)
        for (int64_t h = 0; h < m->H; h++)
            m->hand.k->transpose(D, m->h, view[i]->kernel + h * view[i]->head, view[i]->row, *turned[i] + h * m->h * D, D);
    m->hand.k->transpose(D, D, m->o, D, m->o_t, D);
    return true;
}

static void ttt__qkv_chunk_back(ttt__qkv *m, const ttt_real *g_bias, ttt_real **d) {
    ttt_ctx *c = m->c;
    int row[4];
    for (int i = 0; i < 4; i++) row[i] = ttt__kernel_row(m->learns, i);
    ttt__qkv_sums sums = { m, d[row[TTT__Q]], d[row[TTT__K]], d[row[TTT__V]], d[row[TTT__O]], 0, 0 };
    memset(m->ds, 0, (size_t)(m->bs * m->H * m->h * m->h) * sizeof *m->ds);
    ttt__parallel(c, -1, m->bs * m->R, 1, ttt__qkv_output_back_share, m);
    if (m->softmax) ttt__parallel(c, -1, m->bs * m->H, 1, ttt__softmax_back_share, m);
    else ttt__parallel(c, -1, m->bs * m->H, 4, ttt__weights_back_share, m);
    ttt__parallel(c, -1, m->bs * m->R, 1, ttt__qkv_views_back_share, m);
    for (int64_t i = 0; (sums.rows = ttt__piece(m->bs * m->N, TTT__CHUNK_TOKENS, i, &sums.from)) > 0; i++) ttt__parallel(c, -1, 4 * m->H, 1, ttt__qkv_params_share, &sums);
    int64_t rows = m->bs * m->N, D = m->D;
    ttt__rows_add(&m->hand, rows, D, m->dy + m->b0 * m->N * D, D, d[row[TTT__O] + 1]);
    ttt__rows_add(&m->hand, rows, D, m->dq, D, d[row[TTT__Q] + 1]);
    ttt__rows_add(&m->hand, rows, D, m->dk, D, d[row[TTT__K] + 1]);
    if (m->learns) ttt__learner_params_back(m, g_bias, d);
    else ttt__rows_add(&m->hand, rows, D, m->dv, D, d[row[TTT__V] + 1]);
}

static void ttt__qkv_back(ttt_ctx *c, ttt_tensor *y, const ttt_tensor *g, ttt_tensor **into, const bool *add) {
    const ttt__qkv_arg *a = (const ttt__qkv_arg *)y->arg;
    ttt_mark scratch = ttt__arena_mark(&c->scratch);
    ttt__qkv m;
    ttt_real *d[TTT__MTTT_W0 + 2] = { NULL };
    bool learns = a->d.mixer->learner != NULL;
    int first = learns ? TTT__MTTT_W0 : 0;
    bool wants_w0 = learns && (into[(int)a->at[first]] || (a->at[first + 1] >= 0 && into[(int)a->at[first + 1]]));
    for (int row = 0; row < TTT__MTTT_W0 + 2; row++)
        if (a->at[row] >= 0) d[row] = ttt__gradient_room(c, y, into, add, a->at[row]);
    ttt_real *dx = ttt__gradient_room(c, y, into, add, 0);
    if (y->size > 0 && ttt__qkv_setup(&m, c, y, wants_w0) && ttt__qkv_back_room(&m)) {
        m.dx = dx;
        m.dy = g->data;
        for (int64_t all = m.bs; m.b0 < m.B; m.b0 += all) {
            m.bs = TTT__MIN(all, m.B - m.b0);
            ttt__qkv_chunk_back(&m, learns ? ttt__qkv_param(y, TTT__MTTT_G_BIAS) : NULL, d);
        }
    }
    ttt__arena_release(&c->scratch, scratch);
}

static ttt_tensor *ttt__qkv_composite(ttt_ctx *c, ttt_tensor *const *in, const ttt_tensor *y) {
    const ttt__qkv_arg *a = (const ttt__qkv_arg *)y->arg;
    ttt_tensor *w[TTT__MTTT_W0 + 4] = { NULL };
    ttt_mixer_desc d = a->d;
    for (int row = 0; row < TTT__MTTT_W0 + 2; row++) w[row] = a->at[row] < 0 ? NULL : in[(int)a->at[row]];
    d.inner_lrs = a->rates;
    if (d.mixer->learner) return ttt__mttt_tape(c, &d, w, in[0], NULL);
    return (a->softmax ? ttt__self_attention_tape : ttt__linear_attention_tape)(c, &d, w, in[0], NULL);
}
static int64_t ttt__qkv_count(const ttt_tensor *y) {
    const ttt__qkv_arg *a = (const ttt__qkv_arg *)y->arg;
    return (int64_t)(a->d.mixer->flops(&a->d, y->shape.dim[1]) * (double)y->shape.dim[0]);
}
static const ttt_op ttt__op_fused_qkv = { "linear mixer", "y = (x W_q) W(K^T V) W_o", -1, 0, 0, ttt__qkv_forward, NULL,
                                          ttt__qkv_composite, ttt__qkv_back, ttt__qkv_count };
static const ttt_op ttt__op_fused_softmax = { "softmax attention", "y = softmax(x W_q (x W_k)^T / sqrt h) x W_v W_o", -1, 0, 0, ttt__qkv_forward, NULL,
                                              ttt__qkv_composite, ttt__qkv_back, ttt__qkv_count };

static ttt_tensor *ttt__qkv_fused(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, bool softmax) {
    ttt__qkv_arg a;
    ttt_tensor *in[TTT__MTTT_W0 + 3];
    memset(&a, 0, sizeof a);
    memset(a.at, -1, sizeof a.at);
    int n = ttt__list_inputs(c, x, w, d->mixer->learner ? TTT__MTTT_W0 + 2 : TTT__ATTENTION_N, in, a.at);
    a.d = *d;
    a.softmax = softmax;
    if (d->mixer->learner) {
        a.T = d->inner_steps ? d->inner_steps : 1;
        for (int t = 0; t < a.T; t++) a.rates[t] = d->inner_lrs ? d->inner_lrs[t] : d->inner_lr;
    }
    return ttt_apply(c, softmax ? &ttt__op_fused_softmax : &ttt__op_fused_qkv, in, n, x->shape, &a, sizeof a);
}

// -- layer norm, and with it the MLP of a block
//     x^ = norm(x)     n = x^ s + t     [ z = n W_1 + b_1     a = gelu(z)     y = x + a W_2 + b_2 ]
// The first two alone are the layer norm, y = n; all are ttt_residual_mlp. Rows go through in ranges of 96, whose hidden
// numbers stay in the cache. For the way back z is kept; n and a are made again, which takes no product: a comes with
// gelu'(z), and that is wanted anyway.
enum { TTT__RANGE_ROWS = 96, TTT__CHUNK_ROWS = 12 * TTT__RANGE_ROWS };
enum { TTT__NORMED_S = 1, TTT__NORMED_T, TTT__NORMED_W1, TTT__NORMED_B1, TTT__NORMED_W2, TTT__NORMED_B2, TTT__NORMED_N };  // inputs behind x
typedef struct ttt__normed_arg {
    ttt_real *z;                     // (rows,M), if a gradient may be asked for
} ttt__normed_arg;
typedef struct ttt__normed {
    ttt_ctx *c;
    int64_t n, D, M;                 // rows, their length, hidden width (0: layer norm alone)
    const ttt_real *x, *s, *t, *w1, *b1, *w2, *b2;
    ttt_real *z, *y;
    ttt_real *work;                  // of each thread: (RANGE_ROWS, D) and (RANGE_ROWS, M)
    int64_t work_size;
    // backward, the chunk of rows from `first`
    int64_t first;
    const ttt_real *dy;
    ttt_real *w1_t, *w2_t;           // transposed
    ttt_real *dx, *norm, *a, *dz;    // dx of all, the others of the chunk
    ttt_real *part;                  // gradients of s and t, of each range: (ranges,2,D)
} ttt__normed;

static void ttt__normed_share_forward(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__normed *m = (const ttt__normed *)arg;
    ttt__hand hand = ttt__hand_of(m->c, thread);
    for (int64_t share = begin; share < end; share++) {
        int64_t from = share * TTT__RANGE_ROWS, rows = TTT__MIN((int64_t)TTT__RANGE_ROWS, m->n - from), D = m->D, M = m->M;
        ttt_real *norm = M ? m->work + thread * m->work_size : m->y + from * D, *a = norm + TTT__RANGE_ROWS * D, *z = m->z ? m->z + from * M : a;
        for (int64_t i = 0; i < rows; i++) hand.lk->layer_norm(D, m->x + (from + i) * D, m->s, m->t, norm + i * D);
        if (!M) continue;
        ttt__mul_init(&hand, rows, M, D, ttt__plain(norm, D), ttt__plain(m->w1, M), m->b1, 0, z, M);
        hand.k->map[TTT__MAP_gelu](rows * M, z, a, 0);
        ttt__gemm out = { rows, D, M, a, M, 1, m->w2, D, 1, m->b2, 0, m->y + from * D, D, NULL, { NULL, m->x + from * D, D } };
        ttt__gemm_run(hand.k, &out, hand.pack);
    }
}

// A range of the chunk: n, a and dz for the gradients of W_1 and W_2, which are sums over the chunk; and dx.
static void ttt__normed_share_back(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__normed *m = (const ttt__normed *)arg;
    ttt__hand hand = ttt__hand_of(m->c, thread);
    for (int64_t share = begin; share < end; share++) {
        int64_t local = share * TTT__RANGE_ROWS, from = m->first + local, rows = TTT__MIN((int64_t)TTT__RANGE_ROWS, m->n - from), D = m->D, M = m->M;
        const ttt_real *x = m->x + from * D, *dy = m->dy + from * D, *g = dy;
        ttt_real *ds = m->part + share * 2 * D, *dx = m->dx + from * D;
        memset(ds, 0, (size_t)(2 * D) * sizeof *ds);
        if (M) {
            ttt_real *back = m->work + thread * m->work_size, *a1 = back + TTT__RANGE_ROWS * D, *dz = m->dz + local * M;
            for (int64_t i = 0; i < rows; i++) hand.lk->layer_norm(D, x + i * D, m->s, m->t, m->norm + (local + i) * D);
            hand.lk->gelu_all(rows * M, m->z + from * M, m->a + local * M, a1, NULL);
            ttt__mul_set(&hand, rows, M, D, ttt__plain(dy, D), ttt__plain(m->w2_t, M), dz, M);
            hand.k->zip[TTT__ZIP_mul](rows * M, dz, 1, a1, 1, dz);
            ttt__mul_set(&hand, rows, D, M, ttt__plain(dz, M), ttt__plain(m->w1_t, D), back, D);
            hand.k->zip[TTT__ZIP_add](rows * D, dx, 1, dy, 1, dx);
            g = back;
        }
        for (int64_t i = 0; i < rows; i++) hand.lk->layer_norm_back(D, x + i * D, m->s, g + i * D, dx + i * D, ds, ds + D);
    }
}

static bool ttt__normed_setup(ttt__normed *m, ttt_ctx *c, const ttt_tensor *y) {
    memset(m, 0, sizeof *m);
    m->c = c;
    m->D = y->shape.dim[y->shape.rank - 1];
    m->n = y->size / m->D;
    m->x = y->in[0]->data;
    m->s = y->in[TTT__NORMED_S]->data;
    m->t = y->in[TTT__NORMED_T]->data;
    m->z = ((const ttt__normed_arg *)y->arg)->z;
    if (y->n_in < TTT__NORMED_N) return true;
    m->M = y->in[TTT__NORMED_B1]->size;
    m->w1 = y->in[TTT__NORMED_W1]->data;
    m->b1 = y->in[TTT__NORMED_B1]->data;
    m->w2 = y->in[TTT__NORMED_W2]->data;
    m->b2 = y->in[TTT__NORMED_B2]->data;
    m->work_size = TTT__RANGE_ROWS * (m->D + m->M);
    m->work = ttt__room_of(c, c->threads * m->work_size, false);
    return !c->result;
}

static void ttt__normed_forward(ttt_ctx *c, ttt_tensor *y) {
    ttt__normed_arg *a = (ttt__normed_arg *)(uintptr_t)y->arg;
    ttt_mark scratch = ttt__arena_mark(&c->scratch);
    ttt__normed m;
    if (y->size == 0) return;
    if (c->recording && !c->numbers_only && y->n_in == TTT__NORMED_N)
        a->z = ttt__room_of(c, y->size / y->shape.dim[y->shape.rank - 1] * y->in[TTT__NORMED_B1]->size, true);
    if (ttt__normed_setup(&m, c, y)) {
        m.y = y->data;
        ttt__parallel(c, -1, (m.n + TTT__RANGE_ROWS - 1) / TTT__RANGE_ROWS, 1 + 16384 / (TTT__RANGE_ROWS * m.D * (1 + m.M)), ttt__normed_share_forward, &m);
    }
    ttt__arena_release(&c->scratch, scratch);
}

static bool ttt__normed_back_room(ttt__normed *m) {
    int64_t chunk = TTT__MIN(m->n, (int64_t)TTT__CHUNK_ROWS);
    m->part = ttt__room_of(m->c, TTT__CHUNK_ROWS / TTT__RANGE_ROWS * 2 * m->D, false);
    if (!m->M) return !m->c->result;
    m->w1_t = ttt__room_of(m->c, m->D * m->M, false);
    m->w2_t = ttt__room_of(m->c, m->D * m->M, false);
    m->norm = ttt__room_of(m->c, chunk * m->D, false);
    m->a = ttt__room_of(m->c, chunk * m->M, false);
    m->dz = ttt__room_of(m->c, chunk * m->M, false);
    if (m->c->result) return false;
    m->c->k->transpose(m->D, m->M, m->w1, m->M, m->w1_t, m->D);
    m->c->k->transpose(m->M, m->D, m->w2, m->D, m->w2_t, m->M);
    return true;
}

// dw (m,n) += a^T b over the chunk's rows, by all threads; dbias += the rows of b.
static void ttt__normed_weights(const ttt__normed *t, int64_t m, int64_t n, int64_t rows, const ttt_real *a, const ttt_real *b, ttt_real *dw, ttt_real *dbias) {
    ttt__hand hand = ttt__hand_of(t->c, 0);
    ttt_gemm_desc d;
    memset(&d, 0, sizeof d);
    d.m = m, d.n = n, d.k = rows;
    d.a = a, d.ta = true;
    d.b = b;
    d.y = dw, d.add = dw;
    ttt_gemm(t->c, &d);
    ttt__rows_add(&hand, rows, n, b, n, dbias);
}

static void ttt__normed_back(ttt_ctx *c, ttt_tensor *y, const ttt_tensor *g, ttt_tensor **into, const bool *add) {
    ttt_mark scratch = ttt__arena_mark(&c->scratch);
    ttt_real *d[TTT__NORMED_N] = { NULL };
    ttt__normed m;
    for (int i = 0; i < y->n_in; i++) d[i] = ttt__gradient_room(c, y, into, add, i);
    if (y->size > 0 && ttt__normed_setup(&m, c, y) && ttt__normed_back_room(&m)) {
        m.dx = d[0];
        m.dy = g->data;
        for (; m.first < m.n; m.first += TTT__CHUNK_ROWS) {
            int64_t rows = TTT__MIN((int64_t)TTT__CHUNK_ROWS, m.n - m.first), ranges = (rows + TTT__RANGE_ROWS - 1) / TTT__RANGE_ROWS;
            ttt__parallel(c, -1, ranges, 1, ttt__normed_share_back, &m);
            for (int64_t i = 0; i < 2 * ranges; i++) {
                ttt_real *to = d[TTT__NORMED_S + i % 2];
                c->k->zip[TTT__ZIP_add](m.D, to, 1, m.part + i * m.D, 1, to);
            }
            if (!m.M) continue;
            ttt__normed_weights(&m, m.D, m.M, rows, m.norm, m.dz, d[TTT__NORMED_W1], d[TTT__NORMED_B1]);
            ttt__normed_weights(&m, m.M, m.D, rows, m.a, m.dy + m.first * m.D, d[TTT__NORMED_W2], d[TTT__NORMED_B2]);
        }
    }
    ttt__arena_release(&c->scratch, scratch);
}

static ttt_tensor *ttt__layer_norm_composite(ttt_ctx *c, ttt_tensor *const *in, const ttt_tensor *y) {
    (void)y;
    return ttt__layer_norm_tape(c, in[TTT__NORMED_S], in[TTT__NORMED_T], in[0]);
}
static ttt_tensor *ttt__residual_mlp_composite(ttt_ctx *c, ttt_tensor *const *in, const ttt_tensor *y) {
    (void)y;
    return ttt__residual_mlp_tape(c, in + TTT__NORMED_S, in[0]);
}
static int64_t ttt__layer_norm_count(const ttt_tensor *y) { return 8 * y->size; }
static int64_t ttt__residual_mlp_count(const ttt_tensor *y) { return y->size * (4 * y->in[TTT__NORMED_B1]->size + 8); }
static const ttt_op ttt__op_layer_norm = { "layer norm", "y = norm(x) s + t", TTT__NORMED_W1, 0, 0, ttt__normed_forward, NULL,
                                           ttt__layer_norm_composite, ttt__normed_back, ttt__layer_norm_count };
static const ttt_op ttt__op_residual_mlp = { "residual MLP", "y = x + gelu((norm(x) s + t) W_1 + b_1) W_2 + b_2", TTT__NORMED_N, 0, 0, ttt__normed_forward, NULL,
                                             ttt__residual_mlp_composite, ttt__normed_back, ttt__residual_mlp_count };

// One op of the norm's two weights, or these and the MLP's four. NULL if these shapes have no fused
// form (scale and bias of each head, say) or are wrong; the tape then runs them or reports the
// error.
static ttt_tensor *ttt__normed_fused(ttt_ctx *c, ttt_tensor *const *w, int n, ttt_tensor *x) {
    ttt_tensor *in[TTT__NORMED_N];
    signed char at[TTT__NORMED_N - 1];
    ttt__normed_arg a = { NULL };
    bool mlp = n > 2;
    const ttt_op *op = mlp ? &ttt__op_residual_mlp : &ttt__op_layer_norm;
    bool fits = ttt__operands(c, op->name, &x, 1) && ttt__operands(c, op->name, w, n) && x->shape.rank > (mlp ? 1 : 0);
    int64_t D = fits ? x->shape.dim[x->shape.rank - 1] : 0, M = fits && mlp ? w[3]->size : 0;
    ttt_shape row = TTT_SHAPE(D), hidden = TTT_SHAPE(M), wide = TTT_SHAPE(D, M), narrow = TTT_SHAPE(M, D);
    const ttt_shape *const shape[] = { &row, &row, &wide, &hidden, &narrow, &row };
    for (int i = 0; i < n && fits; i++) fits = ttt_shape_equal(w[i]->shape, *shape[i]);
    if (!fits || D == 0 || (mlp && M == 0)) return NULL;
    n = ttt__list_inputs(c, x, w, n, in, at);
    return ttt_apply(c, op, in, n, x->shape, &a, sizeof a);
}

// ---- [9] THE REGISTRY ---------------------------------------------------------------------------
static ttt_tensor *ttt__mttt_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    const ttt_learner *l = d->mixer->learner;
    bool known = l == &ttt_learner_linear || l == &ttt_learner_mlp;
    if (d->no_fused || d->unmask || d->first_order || !known) return ttt__mttt_tape(c, d, w, x, losses);
    bool sums_suffice = l == &ttt_learner_linear && d->no_decoder_norm && !d->inner_sgd && !losses;
    return sums_suffice ? ttt__qkv_fused(c, d, w, x, false) : ttt__mttt_fused(c, d, w, x, losses);
}
static ttt_tensor *ttt__linear_attention_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    bool tape = d->no_fused || d->unmask || d->causal || d->normalizer == TTT_NORMALIZER_NONE;
    return tape ? ttt__linear_attention_tape(c, d, w, x, losses) : ttt__qkv_fused(c, d, w, x, false);
}
static ttt_tensor *ttt__self_attention_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    return d->no_fused || d->unmask || d->causal ? ttt__self_attention_tape(c, d, w, x, losses) : ttt__qkv_fused(c, d, w, x, true);
}

static const ttt_mixer ttt__mixers[] = {
    { "mttt-linear", "TTTLayer_0", TTT__ROWS(ttt__mttt_rows), &ttt_learner_linear, ttt__mttt_forward, ttt__mttt_flops, ttt__memory_state, NULL, 0 },
    { "mttt-mlp", "TTTLayer_0", TTT__ROWS(ttt__mttt_rows), &ttt_learner_mlp, ttt__mttt_forward, ttt__mttt_flops, ttt__memory_state, NULL, 0 },
    { "ttt-linear", "TTTLinear_0", TTT__ROWS(ttt__ttt_rows), &ttt_learner_linear, ttt__ttt_forward, ttt__memory_flops, ttt__memory_state, ttt__ttt_check, 0 },
    { "ttt-mlp", "TTTMLP_0", TTT__ROWS(ttt__ttt_rows), &ttt_learner_mlp, ttt__ttt_forward, ttt__memory_flops, ttt__memory_state, ttt__ttt_check, 0 },
    { "titans", "NeuralMemory_0", TTT__ROWS(ttt__titans_rows), &ttt_learner_mlp, ttt__titans_forward, ttt__titans_flops, ttt__titans_state, ttt__ttt_check, TTT_LEARNER_BIAS },
    { "lact", "LaCT_0", TTT__ROWS(ttt__lact_rows), NULL, ttt__lact_forward, ttt__lact_flops, ttt__lact_state, ttt__check_chunk, 0 },
    { "vittt", "TTT_0", TTT__ROWS(ttt__vittt_rows), NULL, ttt__vittt_forward, ttt__vittt_flops, ttt__vittt_state, ttt__vittt_check, 0 },
    { "delta-net", "DeltaNet_0", ttt__delta_rows, TTT__DELTA_N, NULL, ttt__delta_forward, ttt__delta_flops, ttt__matrix_state, ttt__check_chunk, 0 },
    { "gated-delta-net", "GatedDeltaNet_0", ttt__delta_rows, TTT__GATED_N, NULL, ttt__delta_forward, ttt__delta_flops, ttt__matrix_state, ttt__check_chunk, 0 },
    { "linear-attention", "LinearAttention_0", TTT__ROWS(ttt__linear_attention_rows), NULL, ttt__linear_attention_forward, ttt__linear_attention_flops, ttt__matrix_state, ttt__check_chunk, 0 },
    { "focused-linear", "FocusedLinearAttention_0", TTT__ROWS(ttt__focused_rows), NULL, ttt__focused_forward, ttt__focused_flops, ttt__matrix_state, ttt__focused_check, 0 },
    { "self-attention", "MultiHeadDotProductAttention_0", TTT__ROWS(ttt__self_attention_rows), NULL, ttt__self_attention_forward, ttt__self_attention_flops, ttt__list_state, NULL, 0 },
    { "nadaraya-watson", "NadarayaWatson_0", TTT__ROWS(ttt__linear_attention_rows), NULL, ttt__nadaraya_watson_forward, ttt__self_attention_flops, ttt__list_state, ttt__nadaraya_watson_check, 0 },
    { "linformer", "Linformer_0", TTT__ROWS(ttt__linformer_rows), NULL, ttt__linformer_forward, ttt__linformer_flops, ttt__linformer_state, ttt__linformer_check, 0 },
    { "longformer", "Longformer_0", TTT__ROWS(ttt__longformer_rows), NULL, ttt__longformer_forward, ttt__longformer_flops, ttt__longformer_state, ttt__longformer_check, 0 },
    { "none", "none", NULL, 0, NULL, ttt__none_forward, ttt__none_flops, NULL, NULL, 0 },
};

const ttt_mixer *ttt_mixer_at(int i) { return i >= 0 && i < (int)(sizeof ttt__mixers / sizeof *ttt__mixers) ? &ttt__mixers[i] : NULL; }
const ttt_mixer *ttt_mixer_find(const char *name) {
    for (int i = 0; ttt_mixer_at(i); i++)
        if (strcmp(ttt_mixer_at(i)->name, name) == 0) return ttt_mixer_at(i);
    return NULL;
}

static bool ttt__mixer_good(ttt_ctx *c, const ttt_mixer_desc *d, int64_t N) {  // N < 0: not known yet
    if (!ttt_ok(c)) return false;
    if (!d->mixer) ttt_fail(c, TTT_ERR_UNSET, "mixer: .mixer is not set; ttt_mixer_find gives one by name");
    else if (d->dim < 1 || d->heads < 1) ttt_fail(c, TTT_ERR_UNSET, "%s: .dim is %lld and .heads %lld; both must be set", d->mixer->name, (long long)d->dim, (long long)d->heads);
    else if (d->dim % d->heads) ttt_fail(c, TTT_ERR_ARGUMENT, "%s: .dim %lld is not divisible by .heads %lld", d->mixer->name, (long long)d->dim, (long long)d->heads);
    else if (d->mixer->learner && d->inner_lr == 0 && !d->inner_lrs) ttt_fail(c, TTT_ERR_UNSET, "%s: .inner_lr has no default and was not set (.inner_lrs may hold zeros)", d->mixer->name);
    else if (d->inner_steps < 0 || d->inner_steps > TTT_MAX_INNER_STEPS) ttt_fail(c, TTT_ERR_ARGUMENT, "%s: .inner_steps is %d; 1 to %d expected", d->mixer->name, d->inner_steps, TTT_MAX_INNER_STEPS);
    else if (d->mixer->check) d->mixer->check(c, d, N);
    return ttt_ok(c);
}

static unsigned ttt__mixer_options(const ttt_mixer_desc *d) {
    unsigned options = 0;
    if (!d->no_inner_bias) options |= TTT_LEARNER_BIAS;
    if (!d->no_decoder_norm) options |= TTT__DECODER_NORM;
    if (d->learn_rates) options |= TTT__LEARNED_RATES;
    if (d->globals) options |= TTT__LONGFORMER_GLOBAL;
    if (!d->no_short_conv) options |= TTT__SHORT_CONV;
    if (d->causal) options |= TTT__CAUSAL;
    return options & ~d->mixer->without;
}
static ttt_sizes ttt__mixer_sizes(const ttt_mixer_desc *d) {
    int64_t D = d->dim, h = D / d->heads;
    ttt_sizes s = ttt__sizes("DHhT", D, d->heads, h, d->inner_steps ? d->inner_steps : 1);
    s.of[(int)'E'] = 3 * D + 3 * h;  // vittt's views, and what its branches give
    s.of[(int)'P'] = D + h;
    s.of[(int)'N'] = d->max_tokens;
    s.of[(int)'K'] = ttt__compressed(d);
    return s;
}

int ttt_mixer_count(const ttt_mixer_desc *d) {
    const ttt_mixer *m = d->mixer;
    if (!m) return 0;
    unsigned options = ttt__mixer_options(d);
    return ttt__rows_present(m->rows, m->n_rows, options) +
           (m->learner ? ttt__rows_present(m->learner->rows, m->learner->n_rows, options) : 0);
}

ttt_weights ttt_mixer_new(ttt_ctx *c, const ttt_mixer_desc *d, ttt_params *p, const char *prefix) {
    if (!ttt__mixer_good(c, d, -1)) return ttt__no_weights();
    const ttt_mixer *m = d->mixer;
    unsigned options = ttt__mixer_options(d);
    ttt_sizes s = ttt__mixer_sizes(d);
    int first = p->n;
    ttt_weights own = ttt_params_add(c, m->rows, m->n_rows, options, &s, p, prefix),
                inner = ttt__no_weights();
    if (m->learner)
        inner = ttt_params_add(c, m->learner->rows, m->learner->n_rows, options, &s, p, prefix);
    for (int i = 0, n = 0; i < m->n_rows && ttt_ok(c); i++) {
        if (!ttt__row_present(&m->rows[i], options)) continue;
        ttt_tensor *t = own.at[n++];
        for (int64_t k = 0; k < t->size && m->rows[i].only_if & TTT__LEARNED_RATES; k++)
            t->data[k] = d->inner_lrs ? d->inner_lrs[k] : d->inner_lr;
    }
    for (int i = 0; i < inner.n && d->zero_w0; i++)
        memset(inner.at[i]->data, 0, (size_t)inner.at[i]->size * sizeof(ttt_real));
    return ttt__params_since(c, p, first);
}

// Takes the weights of a table off *w, into one tensor a row with NULL for absent ones, and checks
// that they are what d asks for: a fused layer reads them by d alone.
static bool ttt__by_row(ttt_ctx *c, const ttt_mixer_desc *d, const ttt_param_row *rows, int n_rows,
                        ttt_weights *w, ttt_tensor **row) {
    ttt_sizes sizes = ttt__mixer_sizes(d);
    unsigned options = ttt__mixer_options(d);
    for (int i = 0; i < n_rows && ttt_ok(c); i++) {
        ttt_shape s = ttt_scalar_shape();
        row[i] = NULL;
        if (!ttt__row_present(&rows[i], options)) continue;
        s.rank = ttt__read_sizes(rows[i].shape, &sizes, s.dim);
        row[i] = w->n > 0 ? ttt__weight(c, d->mixer->name, w) : NULL;
        ttt__weight_good(c, d->mixer->name, rows[i].name, row[i], s);
    }
    return ttt_ok(c);
}

ttt_tensor *ttt_mixer_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_weights w, ttt_tensor *x,
                              ttt_tensor **losses) {
    if (losses) *losses = NULL;
    if (!ttt_ok(c) || !ttt__operands(c, d->mixer ? d->mixer->name : "mixer", &x, 1)) return &c->empty;
    if (!ttt__mixer_good(c, d, x->shape.rank == 3 ? x->shape.dim[1] : -1)) return &c->empty;
    if (x->shape.rank != 3 || x->shape.dim[2] != d->dim) {
        ttt_text t;
        return ttt_fail(c, TTT_ERR_SHAPE, "%s: x has shape %s; (B,N,%lld) expected", d->mixer->name, ttt_shape_text(x->shape, t), (long long)d->dim);
    }
    if (!ttt__weights_alive(c, d->mixer->name, w)) return &c->empty;
    const ttt_learner *l = d->mixer->learner;
    int n_rows = d->mixer->n_rows, n_inner = l ? l->n_rows : 0;
    ttt_tensor **row = ttt__weights_room(c, n_rows + n_inner, false);
    if (!row || !ttt__by_row(c, d, d->mixer->rows, n_rows, &w, row)) return &c->empty;
    if (l && !ttt__by_row(c, d, l->rows, n_inner, &w, row + n_rows)) return &c->empty;
    if (w.n > 0)
        return ttt_fail(c, TTT_ERR_SHAPE,
                        "%s: %d weights more than the %d that its description asks for",
                        d->mixer->name, w.n, ttt_mixer_count(d));
    return d->mixer->forward(c, d, row, x, losses);
}

// ---- UNMASKING ----------------------------------------------------------------------------------
static void ttt__unmask_matrix(ttt_ctx *c, ttt_unmasked *u, ttt_tensor *matrix, ttt_tensor *v, ttt_tensor *read) {
    (void)c;
    u->matrix = matrix;
    u->value = v;
    u->read = read;
}
static void ttt__unmask_features(ttt_ctx *c, ttt_unmasked *u, ttt_tensor *q, ttt_tensor *k, ttt_tensor *v, ttt_tensor *start, ttt_tensor *read) {
    u->query = q;
    u->key = k;
    u->start = start;
    ttt__unmask_matrix(c, u, ttt_matmul_t(c, q, k, false, true), v, read);
}
// x with a last feature that is 1, which a bias is the kernel's row of
static ttt_tensor *ttt__with_one(ttt_ctx *c, ttt_tensor *x) {
    if (!ttt_ok(c)) return x;
    ttt_shape s = x->shape;
    s.dim[s.rank - 1] = 1;
    ttt_tensor *both[2] = { x, ttt_full(c, s, 1) };
    return ttt_concat(c, both, 2, s.rank - 1);
}
static void ttt__unmask_weighted(ttt_ctx *c, ttt_unmasked *u, ttt_tensor *q, ttt_tensor *k, ttt_tensor *v, ttt_tensor *weights, bool bias, ttt_tensor *read) {
    if (bias) q = ttt__with_one(c, q), k = ttt__with_one(c, k);
    ttt__unmask_features(c, u, q, k, v, NULL, read);
    u->matrix = ttt_mul(c, u->matrix, weights);
}
static void ttt__unmask_start(ttt_ctx *c, ttt_unmasked *u, ttt_tensor *kernel, ttt_tensor *bias, ttt_tensor *carry) {
    ttt_tensor *both[2] = { kernel, bias };
    u->start = bias ? ttt_concat(c, both, 2, 2) : kernel;
    u->carry = carry;
}

static void ttt__linear_attention_unmask(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *q, ttt_tensor *k, ttt_tensor *v, ttt_tensor *y) {
    ttt_unmasked *u = d->unmask;
    u->equals = d->causal ? "causal linear attention" : "linear attention";
    if (!ttt_ok(c)) return;
    if (d->causal) ttt__unmask_weighted(c, u, q, k, v, ttt__lower(c, q->shape.dim[2]), false, y);
    else ttt__unmask_features(c, u, q, k, v, NULL, y);
    if (d->normalizer == TTT_NORMALIZER_CONSTANT)
        u->matrix = ttt_scale(c, u->matrix, 1 / (ttt_real)(v->shape.dim[2] * v->shape.dim[3]));
    if (d->normalizer == TTT_NORMALIZER_ADAPTIVE)
        u->matrix = ttt_div(c, u->matrix, ttt_sum_axis(c, u->matrix, -1));
}

static void ttt__mttt_unmask(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w, ttt_tensor *query, ttt_tensor *read) {
    ttt_unmasked *u = d->unmask;
    const ttt_learner *l = d->mixer->learner;
    ttt_tensor *const *last = w + TTT__MTTT_W0 + l->n_rows - 2;
    bool linear = l == &ttt_learner_linear, zero = true;
    if (!query) {
        u->equals = "none: the last layer of its learner is not linear";
        return;
    }
    if (!ttt_ok(c)) return;
    for (int i = 0; i < 2; i++)
        for (int64_t j = 0; last[i] && j < last[i]->size; j++) zero = zero && last[i]->data[j] == 0;
    if (linear && zero && d->inner_steps <= 1 && d->no_decoder_norm)
        u->equals = "linear attention (identity map, constant normalizer) with q = psi x, k = phi "
                    "x, v = eta (x - b_g) G^T";
    else u->equals = linear ? "linear attention whose values are the learner's errors" : "linear attention on the features of the learner's hidden layer, whose values are its errors";
    int64_t B = read->shape.dim[0];
    ttt_tensor *k = u->key, *v = u->value, *bias = last[1] ? ttt__lift_weight(c, last[1], B) : NULL;
    if (bias) query = ttt__with_one(c, query), k = ttt__with_one(c, k);
    ttt__unmask_features(c, u, query, k, v, NULL, read);
    ttt__unmask_start(c, u, ttt__lift_weight(c, last[0], B), bias, NULL);
}

static void ttt__longformer_unmask(ttt_ctx *c, const ttt_mixer_desc *d, const ttt__tiling *t, const ttt_tensor *a, ttt_tensor *top, ttt_tensor *v, ttt_tensor *top_v, ttt_tensor *y) {
    int64_t B = v->shape.dim[0], H = v->shape.dim[1], N = v->shape.dim[2], g = d->globals;
    ttt_tensor *local = ttt_zeros(c, TTT_SHAPE(B, H, N, N)), *both[2] = { local, NULL }, *values[2] = { v, top_v };
    for (int64_t r = 0; ttt_ok(c) && r < B * H * (N - g); r++) {
        int64_t bh = r / (N - g), place = t->place[r % (N - g)];
        const ttt_real *row = a->data + (bh * t->tiles * t->q + place) * t->k;
        ttt_real *to = local->data + (bh * N + g + r % (N - g)) * N;
        for (int64_t j = 0; j < t->k; j++) to[t->key[place / t->q * t->k + j]] += row[j];
    }
    if (g) both[1] = ttt_pad(c, top, 2, 0, N);
    d->unmask->equals = g ? "softmax attention in a window, with tokens that see all (the pairs are twice N: these have values of their own)" : "softmax attention in a window";
    ttt__unmask_matrix(c, d->unmask, g ? ttt_concat(c, both, 2, 3) : local, g ? ttt_concat(c, values, 2, 2) : v, y);
}

static double ttt__max_abs(const ttt_tensor *t) {
    double most = 0;
    for (int64_t i = 0; i < t->size; i++) most = fabs((double)t->data[i]) > most ? fabs((double)t->data[i]) : most;
    return most;
}
static void ttt__unmask_certify(ttt_ctx *c, ttt_unmasked *u) {
    ttt_tensor *y = ttt_matmul(c, u->matrix, u->value);
    if (u->start) {
        ttt_tensor *from = ttt_matmul(c, u->query, u->start);
        y = ttt_add(c, y, u->carry ? ttt_mul(c, from, u->carry) : from);
    }
    if (!ttt_ok(c)) return;
    double most = ttt__max_abs(u->read);
    u->exact = true;
    u->error = most > 0 ? ttt_max_abs_diff(y, u->read) / most : ttt__max_abs(y);
}
// Where there is no exact form: row by row the Jacobian of the whole layer.
static void ttt__unmask_linearize(ttt_ctx *c, const ttt_mixer_desc *d, ttt_weights w,
                                  ttt_tensor *all, ttt_unmasked *u) {
    int64_t N = all->shape.dim[1], D = all->shape.dim[2];
    ttt_tensor *x = ttt_detach(c, ttt_slice(c, all, 0, 0, 1)), *move = ttt_randn(c, x->shape);
    double size = sqrt((double)ttt_item(ttt_mean(c, ttt_square(c, x))));
    move = ttt_scale(c, move, (ttt_real)(0.01 * size));
    ttt_rng rng = *ttt_ctx_rng(c);
    ttt_tensor *y = ttt_mixer_forward(c, d, w, x, NULL);
    *ttt_ctx_rng(c) = rng;  // a drawn order of tokens is the same again
    ttt_tensor *moved = ttt_mixer_forward(c, d, w, ttt_add(c, x, move), NULL);
    u->matrix = ttt_zeros(c, TTT_SHAPE(1, 1, N, N));
    double off = 0, most = 0;
    for (int64_t i = 0; i < N * D && ttt_ok(c); i++) {
        ttt_mark m = ttt_mark_get(c);
        ttt_tensor *seed = ttt_zeros(c, y->shape), *g;
        if (ttt_ok(c)) seed->data[i] = 1;
        double along = 0;
        if (ttt_vjp(c, y, seed, &x, 1, &g, TTT_GRAD_FIRST_ORDER) != TTT_OK) break;
        for (int64_t j = 0; j < N * D; j++) {
            u->matrix->data[i / D * N + j / D] += g->data[j] * g->data[j];
            along += (double)g->data[j] * (double)move->data[j];
        }
        double change = (double)moved->data[i] - (double)y->data[i];
        off = fabs(change - along) > off ? fabs(change - along) : off;
        most = fabs(change) > most ? fabs(change) : most;
        ttt_mark_release(c, m);
    }
    u->error = most > 0 ? off / most : off;
    if (ttt_ok(c)) u->matrix = ttt_sqrt(c, u->matrix);
}
ttt_result ttt_unmask(ttt_ctx *c, const ttt_mixer_desc *d, ttt_weights w, ttt_tensor *x,
                      ttt_unmasked *out) {
    ttt_mixer_desc open = *d, closed = *d;
    bool recording = ttt_set_recording(c, true);
    memset(out, 0, sizeof *out);
    out->equals = "none: the layer does not say";
    open.unmask = out;
    closed.unmask = NULL;
    ttt_mixer_forward(c, &open, w, x, NULL);
    if (ttt_ok(c) && out->matrix) ttt__unmask_certify(c, out);
    else if (ttt_ok(c)) {
        const char *why = out->equals;
        memset(out, 0, sizeof *out);
        out->equals = why;
        ttt__unmask_linearize(c, &closed, w, x, out);
    }
    ttt_set_recording(c, recording);
    return ttt_status(c);
}

#ifdef __cplusplus
}
#endif

/*  REFERENCES
    Sun et al.: Learning to (learn at test time). arXiv 2310.13807; code: test-time-training/mttt.
    Katharopoulos et al.: Transformers are RNNs. arXiv 2006.16236. Vaswani et al.: Attention is all you
    need. arXiv 1706.03762. Milakov, Gimelshein: Online normalizer calculation for softmax. arXiv
    1805.02867. Dao et al.: FlashAttention. arXiv 2205.14135. Glorot, Bengio: Understanding the difficulty of training deep feedforward
    neural networks. AISTATS 2010. Ba et al.: Layer normalization. arXiv 1607.06450. Beyer et al.:
    Better plain ViT baselines for ImageNet-1k. arXiv 2205.01580. Sun et al.: Learning to (learn at test
    time): RNNs with expressive hidden states. arXiv 2407.04620. Test-time training with KV binding is
    secretly linear attention. arXiv 2602.21204. Wang et al.: Linformer. arXiv 2006.04768. Beltagy et al.: Longformer.
    arXiv 2004.05150. Zhang et al.: Multi-scale vision Longformer. arXiv 2103.15358. Han et al.: FLatten transformer.
    arXiv 2308.00442. Yang et al.: Parallelizing linear transformers with the delta rule. arXiv 2406.06484. Yang et al.:
    Gated delta networks. arXiv 2412.06464. Behrouz et al.: Titans. arXiv 2501.00663. Zhang et al.: Test-time training
    done right. arXiv 2505.23884. Han et al.: ViT^3, unlocking test-time training in vision. arXiv 2512.01643. Wang et
    al.: KVT, k-NN attention. arXiv 2106.00515. Nadaraya: On estimating regression. 1964. Watson: Smooth regression
    analysis. 1964. Jordan et al.: Muon. 2024.

    LICENSE: MIT No Attribution (MIT-0), see the end of ttt_tensor.h.
*/
#endif  // TTT_LAYERS_IMPLEMENTED
#endif  // TTT_LAYERS_IMPLEMENTATION
