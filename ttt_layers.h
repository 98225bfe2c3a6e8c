/*  ttt_layers.h - v0.6.0 - layers that learn at test time, and the attention they generalize.

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
        [1] PARAMETERS    tables of names, shapes, initializers; weights; a step of descent
        [2] PLAIN LAYERS  dense, norms, MLP, SwiGLU, patch embedding, positions
        [3] LEARNERS      the small models that learn inside a layer; your own
        [4] INNER LOOP    gradient steps on a learner, described once for the whole family
        [5] MIXERS        layers that let tokens see each other, by name; your own
        [6] STREAMS       causal mixers that read a sequence piece by piece
        [7] UNMASKING     the attention map of any of them
        and in the implementation, which has the code of these sections, op by op on the tape,
        [8] KERNELS       rows of the fused layers, one text for every instruction set
        [9] FUSED LAYERS  some layers as one op each: how they become fast
        [10] THE REGISTRY  mixers by name, their options, what all of them need
        More than 10,000 lines, over half of them [8] and [9]: the fused forms of layers, each
        of which has its definition on the tape as its oracle.

    CONCEPTS
        A layer of this kind has two sets of numbers. Its *outer* parameters are trained as in
        any network, and stay. Its *inner* weights W are born with each sequence as a copy of W0
        (an outer parameter), take a few gradient steps on a small task made from that very
        sequence, produce the output, and are forgotten. The steps are operations on the tape
        like all others, so the outer gradient passes through them: the outer parameters learn
        to make the inner learning useful.
        Letters: B sequences, N tokens, D width, H heads, h = D/H head width, T inner steps,
        eta rates.
*/
#if !defined(TTT_LAYERS_H) && !defined(TTT__PART)
#define TTT_LAYERS_H

#ifndef TTT_TENSOR_H
#include "ttt_tensor.h"
#endif

#define TTT__PART TTT__OPEN
#include TTT__TENSOR_FILE
#undef TTT__PART

// Options beside those of ttt_tensor.h, to define before the include in every file of a program:
//   TTT_LAYERS_IMPLEMENTATION   in place of TTT_IMPLEMENTATION: only this header and ttt_tensor.h
//   TTT_NO_FUSED                leave out [8] and [9]: a smaller program whose layers are slower,
//                               and do not stream

// ---- [1] PARAMETERS -----------------------------------------------------------------------------
// A layer declares its parameters as a table, and everything that deals with parameters goes over
// tables: initialization, counting, optimizer groups, checkpoints.
typedef enum ttt_init {
    TTT_INIT_ZERO,
    TTT_INIT_ONE,
    TTT_INIT_XAVIER,         // uniform, bound sqrt(6 / (fan_in + fan_out))            [Glorot 2010]
    TTT_INIT_UNIFORM_IN,     // uniform, bound sqrt(3 / fan_in): variance 1/fan_in
    TTT_INIT_UNIFORM_OUT,    // uniform, bound sqrt(3 / fan_out)
    TTT_INIT_LECUN,          // normal of variance 1/fan_in, cut off at two deviations, as in flax
    TTT_INIT_NORMAL_IN,      // normal of variance 1/fan_in
    TTT_INIT_TINY,           // normal of deviation 1e-6
    TTT_INIT_SMALL,          // normal of deviation 0.02
    TTT_INIT_LOG_RATE,       // ln of uniform (0,16): how fast a head of gated DeltaNet forgets
    TTT_INIT_LOG_TIME,       // softplus^-1 of a number log-uniform in [0.001,0.1], in its units
    TTT_INIT_LOG_RATE_1      // ln of uniform (1,16): how fast a head of KDA forgets
} ttt_init;

enum {                     // flags of a row
    TTT_PARAM_DECAYS = 1,  // weight decay applies
    TTT_PARAM_INNER = 2,   // starting weights of a learner (W0)
    TTT_PARAM_FACTOR = 4   // only ever the right factor of a product, so it may be BF16
};

// A shape is written with letters, sizes that the layer's maker sets: "H D h" is (H,D,h). A number
// may stand before a letter or alone: "H 4h", "1 D".
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
    bool blank;  // parameters are added without numbers, which are about to be read from a file,
    bool bf16;   // and those with the flag TTT_PARAM_FACTOR as BF16, to compute with, not to train
} ttt_params;

// Weights are what a layer, a block or a whole model runs with: an array of tensors in the order of
// its list of parameters. They may be the parameters themselves, or any other tensors of those
// shapes: made from them by a step of descent, averaged, read from a file. So a model is a function
// of its weights, and a gradient can pass through whatever made them. The array is borrowed, and
// lives as long as the tensors in it: one that a step of descent made is gone when a mark before it
// is released. Using it then is an error, TTT_ERR_RELEASED, until its memory is used again; after
// that anything may happen. When a list grows, its arrays stay valid.
typedef struct ttt_weights {
    ttt_tensor *const *at;
    int n;
} ttt_weights;

// Makes the parameters of a table, appends them to params under "prefix/name" ("name" alone where
// the prefix is NULL or empty, here and in all functions named _new) and initializes each from the
// context's seed and its own name (so that adding a layer changes no other). Returns them
// as weights, in the order of the rows that are present, as all functions named _new do. No
// weights after an error, TTT_ERR_ARGUMENT: a letter without a size, or a name that the list has
// already.
TTT_API ttt_weights ttt_params_add(ttt_ctx *ctx, const ttt_param_row *rows, int n_rows,
                                   unsigned options, const ttt_sizes *sizes, ttt_params *params,
                                   const char *prefix);
TTT_API ttt_weights ttt_params_weights(const ttt_params *params);  // all of the list
TTT_API ttt_tensor *ttt_params_find(const ttt_params *params, const char *name);  // NULL if absent
// How many numbers the parameters with all these flags hold.
TTT_API int64_t ttt_params_count(const ttt_params *params, unsigned flags);
// For each parameter, whether its name contains `part` (NULL: any does) and it has all the flags:
// which weights a step of descent moves. In the step arena; NULL after an error.
TTT_API bool *ttt_params_choose(ttt_ctx *ctx, const ttt_params *params, const char *part,
                                unsigned flags);

// Takes the first n weights off *w and returns them: a model hands its sub-layers their parts, one
// after another. TTT_ERR_SHAPE naming `who` if there are fewer.
TTT_API ttt_weights ttt_weights_take(ttt_ctx *ctx, const char *who, ttt_weights *w, int n);
// The same numbers as leaves of their own, in the keep arena or in the step arena: a snapshot, or
// the start of an average. No weights after an error.
TTT_API ttt_weights ttt_weights_copy(ttt_ctx *ctx, ttt_weights weights, bool keep);
// into += share (from - into), number by number and in place: 1 copies (puts weights back, loads
// them), 1/k keeps the mean of k, 1 - decay an exponential moving average. Results that were
// computed from `into` then have wrong gradients, and no error says so. TTT_ERR_SHAPE if the shapes
// differ; nothing is changed then.
TTT_API ttt_result ttt_weights_blend(ttt_ctx *ctx, ttt_weights into, ttt_weights from,
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
// of another one or an option that the rule lacks.
TTT_API ttt_weights ttt_descend(ttt_ctx *ctx, const ttt_descent *descent, ttt_weights weights,
                                ttt_tensor *loss, ttt_descent_state *state);

// ---- [2] PLAIN LAYERS ---------------------------------------------------------------------------
// Each is a table of parameters and a function of weights in the order of its rows. Another number
// of weights is TTT_ERR_SHAPE.
TTT_API ttt_weights ttt_dense_new(ttt_ctx *ctx, int64_t in, int64_t out, ttt_init kernel,
                                  ttt_params *params, const char *prefix);
// y = x kernel + bias, x (...,in)
TTT_API ttt_tensor *ttt_dense(ttt_ctx *ctx, ttt_weights weights, ttt_tensor *x);

TTT_API ttt_weights ttt_layer_norm_new(ttt_ctx *ctx, int64_t D, ttt_params *params,
                                       const char *prefix);
// y = (x - mean) / sqrt(var + 1e-6) scale + bias over the last axis, biased variance     [Ba 2016]
#define TTT_LAYER_NORM_EPS 1e-6
TTT_API ttt_tensor *ttt_layer_norm(ttt_ctx *ctx, ttt_weights weights, ttt_tensor *x);

TTT_API ttt_weights ttt_mlp_new(ttt_ctx *ctx, int64_t D, int64_t hidden, ttt_params *params,
                                const char *prefix);
// dense, GELU (tanh form), dense
TTT_API ttt_tensor *ttt_mlp(ttt_ctx *ctx, ttt_weights weights, ttt_tensor *x);
// x + mlp(layer_norm(x)), the second half of a transformer's block, x (...,n,D), as one op;
// weights: the norm's two, the MLP's four. For first-order gradients it keeps the hidden layer
// before GELU and nothing else.
TTT_API ttt_tensor *ttt_residual_mlp(ttt_ctx *ctx, ttt_weights weights, ttt_tensor *x);

TTT_API ttt_weights ttt_rms_norm_new(ttt_ctx *ctx, int64_t D, ttt_params *params,
                                     const char *prefix);
// y = x / sqrt(mean x^2 + eps) scale over the last axis                               [Zhang 2019]
TTT_API ttt_tensor *ttt_rms_norm(ttt_ctx *ctx, ttt_weights weights, ttt_real eps, ttt_tensor *x);
TTT_API ttt_weights ttt_swiglu_new(ttt_ctx *ctx, int64_t D, int64_t hidden, ttt_params *params,
                                   const char *prefix);
// (silu(x gate) o x up) down, the MLP of Llama: three kernels, no bias                [2002.05202]
TTT_API ttt_tensor *ttt_swiglu(ttt_ctx *ctx, ttt_weights weights, ttt_tensor *x);

TTT_API ttt_weights ttt_patch_embed_new(ttt_ctx *ctx, int64_t patch, int64_t channels, int64_t D,
                                        ttt_params *params, const char *prefix);
// images (B,height,width,channels), sides divisible by the patch -> tokens (B,N,D), row by row:
// a convolution whose kernel (patch,patch,channels,D) and stride are the patch
TTT_API ttt_tensor *ttt_patch_embed(ttt_ctx *ctx, ttt_weights weights, ttt_tensor *images);

// The fixed code of a grid, (1,rows*cols,D): [sin x o, cos x o, sin y o, cos y o] with
// o_j = 10000^(-j / (D/4 - 1)), j < D/4. Needs D divisible by 4.       [Beyer 2022, big_vision]
TTT_API ttt_tensor *ttt_sincos2d(ttt_ctx *ctx, int64_t rows, int64_t cols, int64_t D);

// (B,N,D) -> (B,H,N,D/H) and back: a head is a run of D/H neighboring features
TTT_API ttt_tensor *ttt_split_heads(ttt_ctx *ctx, ttt_tensor *x, int64_t H);
TTT_API ttt_tensor *ttt_join_heads(ttt_ctx *ctx, ttt_tensor *x);

// ---- [3] LEARNERS -------------------------------------------------------------------------------
// The model inside a layer. Weights have a leading axis H in the table; predict sees them as
// (B,H,a,b), or (B,H,1,a) for those with one axis more than H, so that each sequence and head has
// its own. To write one: a table, a predict, and this struct around them.
//     A whole network is a learner too: with .one_set its weights are one set for the call, in
// whatever shapes it has them, and every sequence learns in the same.
typedef struct ttt_learner {
    const char *name;
    const ttt_param_row *rows;
    int n_rows;
    // x (B,H,n,h) -> (B,H,n,h), with the weights of the rows that are present
    ttt_tensor *(*predict)(ttt_ctx *ctx, const void *desc, ttt_weights w, ttt_tensor *x);
    int64_t flops;  // multiply-adds of one prediction of one head, in units of h^2 a token
    // If the last layer is linear, its kernel (H,m,h) and, if it has one, its bias (H,h) are the
    // last weights, and this gives what it reads, (B,H,n,m): predict = features W (+ b). Else NULL.
    // Only ttt_unmask calls it, and says so by an error if it is not that.
    ttt_tensor *(*features)(ttt_ctx *ctx, const void *desc, ttt_weights w, ttt_tensor *x);
    const void *desc;  // handed to predict and features
    bool one_set;
} ttt_learner;

enum { TTT_LEARNER_BIAS = 1 };  // bit for only_if: the learner has biases
TTT_CONSTANT ttt_learner ttt_learner_linear;  // f(z) = z W (+ b)
TTT_CONSTANT ttt_learner ttt_learner_mlp;     // f(z) = GELU(z W1 (+ b1)) W2 (+ b2), 4h hidden

// ---- [4] INNER LOOP -----------------------------------------------------------------------------
// What a layer of the family does with a sequence:
//     W_0 = the trained start
//     W_t+1 = W_t - eta_t d l(W_t; S_t) / dW,  t = 0 .. T-1
//     output f_{W_T}(test)
// S_t is all tokens (full batch), or the t-th of T equal parts of the tokens in a given order
// (shuffled mini-batches). Every sequence and head learns for itself.
typedef struct ttt_inner {
    const ttt_learner *learner;
    ttt_tensor *train;  // (B,H,N,h), what the learner sees
    ttt_tensor *label;  // (B,H or 1,N,...), what its loss compares with
    // The loss summed over sequences and heads, from f(train part) and the label part.
    ttt_tensor *(*loss)(ttt_ctx *ctx, const void *arg, ttt_tensor *prediction, ttt_tensor *label);
    const void *loss_arg;
    int steps;                // T
    const ttt_real *rates;    // eta_t as T constants, or
    ttt_tensor *learned_rates;  // as a tensor (T) that takes gradients
    ttt_tensor *order;        // NULL: full batches. Else integers (H,L), L <= N: the tokens of each
                              // head's T parts
    bool first_order;         // treat the inner gradients as constants (for comparison)
    struct ttt_unmasked *unmask;  // NULL, or receives what the steps wrote: key and value, see [6]
} ttt_inner;

// Takes the weights w0, in the order of the learner's table, and returns those after T steps, ready
// for predict. losses, unless NULL, receives (T+1): l before each step on that step's part, then
// with the final weights on all tokens; sum over heads, mean over sequences. No weights after an
// error: TTT_ERR_SHAPE if T parts do not divide L, or L is 0; TTT_ERR_UNSET without rates.
TTT_API ttt_weights ttt_inner_loop(ttt_ctx *ctx, const ttt_inner *in, ttt_weights w0,
                                   ttt_tensor **losses);

// ---- [5] MIXERS ---------------------------------------------------------------------------------
// A mixer is what lets the tokens of a block see each other. Each is one constant, a row that holds
// all facts about it; to add one of your own, fill in another and put it into a description.
typedef struct ttt_mixer ttt_mixer;
struct ttt_unmasked;
struct ttt__stream_part;

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

// The options of all mixers, X(type, field, with, meaning). A meaning begins with the mixers that
// take the option; to set it for another is an error. So is an option that has no effect because
// `with`, which the mixer takes too, is not set. Zero is the default of each.
#define TTT_MIXER_OPTIONS(X)                                                                       \
    /* learners and their inner steps */                                                           \
    X(int, inner_steps, NULL, "mttt-*: T, the gradient steps; 0: 1")                               \
    X(ttt_real, inner_lr, NULL,                                                                    \
      "mttt-*, ttt-*, titans: eta, the same for every step; required, unless there is .inner_lrs") \
    X(const ttt_real *, inner_lrs, NULL, "mttt-*, ttt-*, titans: T rates, of which any may be 0")  \
    X(bool, inner_sgd, NULL, "mttt-*: shuffled mini-batches, not full batches; T divides N")       \
    X(ttt_tensor *, order, "inner_sgd", "mttt-*: integers (H,N); NULL: drawn anew at each call")   \
    X(bool, learn_rates, NULL, "mttt-*: the rates become a parameter, starting from those above")  \
    X(bool, no_inner_bias, NULL, "mttt-*, ttt-*: a learner without biases")                        \
    X(bool, no_decoder_norm, NULL, "mttt-*, ttt-*, titans: reconstruct without layer norm")        \
    X(bool, zero_w0, NULL, "mttt-*, ttt-*, titans: W0 starts at zero")                             \
    X(bool, first_order, NULL, "mttt-*: inner gradients as constants, for comparison")             \
    /* who sees whom, and how many at once */                                                      \
    X(bool, causal, NULL,                                                                          \
      "ttt-*, lact, linear-attention, self-attention, nadaraya-watson, longformer: a token sees "  \
      "itself and those before it; titans, *delta-net and kda always do")                          \
    X(int64_t, chunk, "causal",                                                                    \
      "ttt-*, titans, lact, *delta-net, kda, linear-attention: tokens taken at once. *delta-net, " \
      "kda, linear-attention: only speed, 1 is the recurrence, N the parallel form; 0: 64. "       \
      "Others: gradients are taken at the weights before the chunk; 0: 16, lact 2048")             \
    X(int64_t, window, NULL,                                                                       \
      "longformer: tokens to each side; 0: 256, on a grid 7 or a third of its side")               \
    X(int64_t, globals, NULL, "longformer: the first tokens, which see and are seen by all")       \
    X(int64_t, grid_rows, NULL,                                                                    \
      "vittt, focused-linear, longformer: the tokens after the globals are a grid, row by row; "   \
      "0: longformer has a line, the others need it")                                              \
    X(int64_t, grid_cols, "grid_rows", "vittt, focused-linear, longformer: its other side")        \
    /* features and tables */                                                                      \
    X(bool, identity_map, NULL, "linear-attention: q, k as they are, not elu + 1")                 \
    X(ttt_normalizer, normalizer, NULL, "linear-attention: what sums over tokens are divided by")  \
    X(int, power, NULL, "focused-linear: the power that sharpens its features; 0: 3")              \
    X(ttt_attention_kernel, kernel, NULL, "nadaraya-watson: what a token looks for")               \
    X(ttt_real, bandwidth, "kernel",                                                               \
      "nadaraya-watson: 0: h^(1/4), where keys of equal norm make all kernels equal")              \
    X(int64_t, neighbors, "kernel", "nadaraya-watson: how many keys are the nearest; 0: 8")        \
    X(int64_t, max_tokens, NULL, "linformer, focused-linear: N that tables are made for; needed")  \
    X(int64_t, compressed, NULL, "linformer: keys left; 0: max_tokens / 4")                        \
    X(bool, no_short_conv, NULL, "titans, *delta-net, kda: no convolutions before q, k, v")        \
    X(bool, muon, NULL, "lact: orthogonalize each update")                                         \
    /* of the TTT language model */                                                                \
    X(ttt_real, rotary, "causal",                                                                  \
      "ttt-*: theta: q and k are turned by their place in the chunk; 0: they are not")             \
    X(bool, token_index, "causal", "ttt-*: how much a place in the chunk takes is learned")        \
    X(bool, share_qk, NULL, "ttt-*: q and k are two causal convolutions of one product")           \
    X(int64_t, conv, "share_qk", "ttt-*: taps of these convolutions; 0: 4")                        \
    X(bool, output_gate, NULL, "ttt-*: GELU(x W_g) gates the output")

// One description for all mixers.
typedef struct ttt_mixer_desc {
    const ttt_mixer *mixer;       // required
    int64_t dim, heads;           // D and H, required; H divides D
#define X(type, field, with, meaning) type field;
    TTT_MIXER_OPTIONS(X)
#undef X
    // Any mixer: op by op on the tape, which is slower; losses then take gradients. Without this
    // flag, asking for losses may choose another form of the layer and change the last bits of y.
    bool no_fused;
    struct ttt_unmasked *unmask;  // set by ttt_unmask; a forward that knows its matrix fills it in
    struct ttt__stream_part *stream;  // set by ttt_mixer_stream; see ttt__stream_part
} ttt_mixer_desc;

// x (B,N,D) -> (B,N,D). w has a tensor for each row of the table and then of the learner's table,
// checked; NULL for a row that is absent. *losses, unless losses is NULL, receives (T+1); it is
// NULL before, and mixers that do not learn leave it so.
typedef ttt_tensor *ttt_mixer_fn(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                                 ttt_tensor *x, ttt_tensor **losses);

enum {                        // flags of a mixer
    TTT_MIXER_CAUSAL = 1,     // a token never sees a later one; others may take .causal for that
    TTT_MIXER_GRID = 2,       // tokens are a grid: .grid_rows and .grid_cols are required
    TTT_MIXER_UNBIASED = 4,   // its learner has no biases
    TTT_MIXER_STREAMS = 8     // can read piece by piece, see [6], when it is causal
};

struct ttt_mixer {
    const char *name;    // "mttt-mlp"
    const char *module;  // what its parameters are filed under in a block: "TTTLayer_0"
    const char *what;    // in a few words, for tables and help
    const char *source;  // where it is from: "arXiv 2310.13807"
    const ttt_param_row *rows;
    int n_rows;
    const ttt_learner *learner;  // NULL if nothing is learned inside; its table follows rows
    const char *takes;           // the options that its functions read, "causal chunk"; NULL: none
    unsigned flags;
    ttt_mixer_fn *forward;       // its definition, op by op
    // May be NULL. The same as one op, or from parts that are one op each; the result is NULL where
    // these options have no such form. It may be `forward` itself, which then heeds .no_fused.
    ttt_mixer_fn *fused;
    double (*flops)(const ttt_mixer_desc *desc, int64_t N);  // forward, of one sequence
    // May be NULL. How many numbers must be remembered of N tokens to mix one more.
    double (*state)(const ttt_mixer_desc *desc, int64_t N);
    // May be NULL. Says by ttt_fail which option has a wrong value, for N tokens or (N < 0) before
    // they are known.
    void (*check)(ttt_ctx *ctx, const ttt_mixer_desc *desc, int64_t N);
};

// The rows of the library: ttt_mixer_mttt_linear, ... A program that names them so, and calls
// neither ttt_mixer_at nor ttt_mixer_find, links no other.
#define TTT_MIXERS(X)                                                                              \
    X(mttt_linear) X(mttt_mlp) X(ttt_linear) X(ttt_mlp) X(titans) X(lact) X(vittt) X(delta_net)    \
    X(gated_delta_net) X(kda) X(linear_attention) X(focused_linear) X(self_attention)              \
    X(nadaraya_watson) X(linformer) X(longformer) X(none)
#define X(id) TTT_CONSTANT ttt_mixer ttt_mixer_##id;
TTT_MIXERS(X)
#undef X
TTT_API const ttt_mixer *ttt_mixer_at(int i);               // by number; NULL past the end
TTT_API const ttt_mixer *ttt_mixer_find(const char *name);  // "titans"; NULL if there is none such
TTT_API bool ttt_mixer_takes(const ttt_mixer *mixer, const char *option);  // an option: "causal"
// The description of a mixer with those of the options in desc that have an effect there, for
// programs that offer the same options to many mixers.
TTT_API ttt_mixer_desc ttt_mixer_offer(const ttt_mixer *mixer, const ttt_mixer_desc *desc);

// Checks a description and makes the parameters it asks for; no weights after an error, which names
// the field: TTT_ERR_UNSET if it is required, TTT_ERR_ARGUMENT if its value is wrong or it is an
// option that the mixer does not take.
TTT_API ttt_weights ttt_mixer_new(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_params *params,
                                  const char *prefix);
TTT_API int ttt_mixer_count(const ttt_mixer_desc *desc);  // how many these are
// In a causal layer a token changes no bit before it, NaN and infinity neither; but gradients are
// sums over all tokens, so one that is not finite spoils theirs. Weights of rows with the flag
// TTT_PARAM_FACTOR may be BF16, and have no gradient then. Errors: as ttt_mixer_new, and
// TTT_ERR_SHAPE for other weights than desc asks for.
TTT_API ttt_tensor *ttt_mixer_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_weights weights,
                                      ttt_tensor *x, ttt_tensor **losses);

// ---- [6] STREAMS --------------------------------------------------------------------------------
// A causal layer can read a sequence in pieces of any length, and gives what it would have given
// for the whole: y of a token depends on those before it by a state, which is a list of tensors.
//     ttt_stream stream = { 0 };
//     y = ttt_mixer_stream(c, &d, w, &stream, prompt, NULL);           // (B,n,D), many tokens
//     y = ttt_mixer_stream(c, &d, w, &stream, next_token, NULL);       // (B,1,D), one more
// Mixers with the flag TTT_MIXER_STREAMS do it. Every way to cut a sequence gives the same bits,
// whatever the other lanes do, and so does ttt_mixer_forward with the whole; but kda goes token by
// token only in streams, and differs from the whole by rounding.
//     The state is of constant size, except that layers which look back at all tokens keep them:
// these lists grow. Its tensors live in the keep arena.
typedef struct ttt_stream {
    int64_t lanes;      // B sequences, each at its own place; 0: none have been read
    ttt_tensor *read;   // integers (B): how many tokens of each
    ttt_params state;   // what these tokens left, by name, (B,...) each
    struct ttt__stream_put *pending;  // inside a call: what its end will write into the state,
    int n_before;                     // and how many tensors it had, -1 if it was new
} ttt_stream;

// Reads more of each sequence: x (B,n,D) -> (B,n,D). counts: how many of the n tokens each lane
// has, the others are not looked at and give zeros; 0: the lane rests. NULL: n each. Nothing is put
// on the tape. After an error the stream is as it was. Errors: as ttt_mixer_forward;
// TTT_ERR_ARGUMENT for a description that does not stream; TTT_ERR_SHAPE if the stream has another
// B, or the state of another layer, as far as names and shapes tell.
TTT_API ttt_tensor *ttt_mixer_stream(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_weights weights,
                                     ttt_stream *stream, ttt_tensor *x, const int64_t *counts);
// Makes *into what *from is now: a fork, if *into is zero; a way back, if it is older or newer than
// *from, which takes no memory. Between others the tensors that *into had stay in the keep arena:
// to begin anew time and again use ttt_stream_restart, not a copy of zero. After an error *into is
// as it was.
TTT_API ttt_result ttt_stream_copy(ttt_ctx *ctx, ttt_stream *into, const ttt_stream *from);
// What a layer's learner has become; prefix: of the layer's state, NULL for that of
// ttt_mixer_stream. For each row i of the learner's table value[i], the weight as it was before the
// chunk that is being read, of each sequence: (B,H,..); and gradient[i], the sum over the tokens of
// that chunk so far of rate times inner gradient. NULL where a row is absent. In the step arena.
// Errors: TTT_ERR_ARGUMENT for a mixer without a learner or streams, TTT_ERR_UNSET if the stream
// has not read with this layer, TTT_ERR_SHAPE if it has with another.
TTT_API ttt_result ttt_stream_learner(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_weights weights,
                                      const ttt_stream *stream, const char *prefix,
                                      ttt_tensor **value, ttt_tensor **gradient);
// The lane begins again, with a new sequence; -1: all do. Does nothing for a lane that is not
// there.
TTT_API void ttt_stream_restart(ttt_stream *stream, int64_t lane);

// ---- [7] UNMASKING ------------------------------------------------------------------------------
// A layer that learns writes pairs (k^, v^) into weights and reads them with q^. If these weights
// are a linear last layer, the layer is attention, whatever lies before it [arXiv 2602.21204]:
//     y = M v^ + carry (q^ S_0),   M_ts = weight_ts <q^_t, k^_s>
// q^, k^: features that the last layer reads; v^: what it was told, which is minus the rate times
// the gradient of the loss in its output; S_0: its kernel at the start (a bias counts as a feature
// that is 1). For a learner that takes T steps there are P = T N pairs, in the order in which they
// were written; else P = N.
typedef struct ttt_unmasked {
    ttt_tensor *query, *key;  // (B,H,N,m), (B,H,P,m); NULL if no features make the matrix
    ttt_tensor *value;        // (B,H,P,h)
    ttt_tensor *start;        // S_0 (B,H,m,h); NULL: zero
    ttt_tensor *carry;        // (B,H,N,1), what is left of S_0 at each token; NULL: all of it
    ttt_tensor *matrix;       // M (B,H,N,P): the layer's attention map
    ttt_tensor *read;         // y (B,H,N,h) as the layer computed it, before norms and projection
    const char *equals;       // which known operator this is; or why there is none
    bool exact;               // y = M v^ + carry q^ S_0 holds
    double error;             // exact: max|y - (M v^ + carry q^ S_0)| / max|y|
} ttt_unmasked;
// Takes the layer apart for the input x (B,N,D); its numbers live in the step arena. If no exact
// form exists, exact is false and equals says why. Then matrix (1,1,N,N) is the local linearization
// of the whole layer at the first sequence, the size of dy_i / dx_j (Frobenius norm); value, read
// and the rest are NULL; error says how far this linear map is off for a small random move of x,
// relative to the largest change of y. It costs N D gradients. Errors: those of ttt_mixer_forward.
TTT_API ttt_result ttt_unmask(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_weights weights,
                              ttt_tensor *x, ttt_unmasked *out);

#define TTT__PART TTT__CLOSE
#include TTT__TENSOR_FILE
#undef TTT__PART
#endif  // TTT_LAYERS_H

// =================================================================================================
// ---- [8] KERNELS --------------------------------------------------------------------------------
// Rows of the fused layers: one text for every instruction set, in the words of [8] of
// ttt_tensor.h.
#if defined(TTT__PART)
#if TTT__PART == TTT__LAYERS_KERNELS
#undef TTT__PART
#define TTT__PART TTT__NEXT_SET
#include TTT__TENSOR_FILE
#undef TTT__PART
#define TTT__PART TTT__LAYERS_KERNELS
#ifdef TTT__SET

// The decoder of MTTT at one token. From the prediction e, h numbers, it makes a row of D, and the
// loss compares it with the token x. With the norm's scale and shift:
//   r = e g + b_g, less its mean      w = r o scale      rho = 1 / sqrt(|r|^2 / D + eps)
//   loss = c/2 |rho w + shift - x|^2,   c = H / (n D), n tokens of the step
// The routines never see a row of D. Of g and b_g with centered rows (G of each head, b of all), a
// head makes once
//   M^T = G o scale   S = G G^T   sigma = b G^T   sigma0 = b b^T   tau = shift M   tau0 = shift m^T
//   m = b o scale     P = M^T M   pi = m M        pi0 = m m^T
// and a token xM = x M, xm = x m^T, so that r = e G + b and w = e M^T + m. For a prediction they
// get
//   rowS = e S + sigma,   rowP = e P + pi
// and in |e G + b|^2 = e S e^T + 2 e sigma^T + sigma0 half of the middle is in rowS already:
//   |r|^2 = <e, rowS + sigma> + sigma0                 |w|^2 = <e, rowP + pi> + pi0
//   toward = <w, shift - x> = <e, tau - xM> + tau0 - xm
//   loss = c/2 (rho^2 |w|^2 + 2 rho toward) + c/2 |shift - x|^2
//   slope = c/D (rho^2 |w|^2 + rho toward)
//   g_e = c rho (rho rowP + tau - xM) - slope rho^2 rowS
// where |r|^2, a sum of squares, is 0 at the least. (slope: of the loss in rho, times rho / D.)
// Without norm rho = 1, scale = 1, shift = 0, slope = 0, nothing is centered, rowS is not used,
// and g_e = c (rowP - xM).
typedef struct KN(decoded) {
    double inv_std, ww, toward;  // rho, |w|^2, <w, shift - x>
    VEC rho, c_rho, slope;
} KN(decoded);

// <e, rowS + sigma>, <e, rowP + pi> and <e, tau - xM>
INLINE void KN(decode_dots)(const ttt__decoder *decoder, const ttt_real *e, const ttt_real *rowS,
                            const ttt_real *rowP, const ttt_real *xM, int64_t i, int64_t n,
                            VEC *dot) {
    VEC e_i = KN(part)(e, i, n);
    dot[0] += e_i * (KN(part)(rowS, i, n) + KN(part)(decoder->sigma, i, n));
    dot[1] += e_i * (KN(part)(rowP, i, n) + KN(part)(decoder->pi, i, n));
    dot[2] += e_i * (KN(part)(decoder->tau, i, n) - KN(part)(xM, i, n));
}
INLINE KN(decoded) KN(decode_scalars)(const ttt__decoder *decoder, const VEC *dot, double xm) {
    KN(decoded) d;
    double D = (double)decoder->D, c = (double)decoder->c, rr = KN(total)(dot[0]) + decoder->sigma0;
    d.ww = KN(total)(dot[1]) + decoder->pi0;
    d.toward = KN(total)(dot[2]) + decoder->tau0 - xm;
    d.inv_std = decoder->norm ? 1 / sqrt((rr > 0 ? rr : 0) / D + decoder->eps) : 1;
    double rho = d.inv_std, slope = c / D * (rho * rho * d.ww + rho * d.toward);
    d.rho = KN(splat)(NUM(rho));
    d.c_rho = KN(splat)(NUM(c * rho));
    d.slope = KN(splat)(NUM(decoder->norm ? slope : 0));
    return d;
}
INLINE VEC KN(decode_gradient)(const ttt__decoder *decoder, const KN(decoded) * d,
                               const ttt_real *rowS, const ttt_real *rowP, const ttt_real *xM,
                               int64_t i, int64_t n) {
    VEC tau_less_xM = KN(part)(decoder->tau, i, n) - KN(part)(xM, i, n);
    VEC g_e = d->c_rho * (d->rho * KN(part)(rowP, i, n) + tau_less_xM);
    return decoder->norm ? g_e - d->slope * d->rho * d->rho * KN(part)(rowS, i, n) : g_e;
}
// Writes g_e; returns the loss without its last term, which does not depend on e.
KERNEL double KN(decode)(const ttt__decoder *decoder, const ttt_real *e, const ttt_real *rowS,
                         const ttt_real *rowP, const ttt_real *xM, ttt_real xm, ttt_real *g_e) {
    VEC dot[3] = { KN(splat)(0), KN(splat)(0), KN(splat)(0) };
#define TERM(i, n) KN(decode_dots)(decoder, e, rowS, rowP, xM, i, n, dot)
    TTT__ROW_EACH(decoder->h, TERM)
#undef TERM
    KN(decoded) d = KN(decode_scalars)(decoder, dot, (double)xm);
#define TERM(i, n) KN(put)(g_e, i, n, KN(decode_gradient)(decoder, &d, rowS, rowP, xM, i, n))
    TTT__ROW_EACH(decoder->h, TERM)
#undef TERM
    return 0.5 * (double)decoder->c * (d.inv_std * d.inv_std * d.ww + 2 * d.inv_std * d.toward);
}

// The same token backwards, from v, the outer gradient in g_e:
//   d_rowP = c rho^2 v + d_|w|^2 e          d_rowS = -slope rho^2 v + d_|r|^2 e
//   d_slope = -rho^2 <v, rowS>
//   d_rho = 2 c rho <v, rowP> + c <v, tau - xM> - 2 slope rho <v, rowS>
//           + d_slope c/D (2 rho |w|^2 + toward)
//   d_|r|^2 = -d_rho rho^3 / (2 D)    d_|w|^2 = d_slope c/D rho^2    d_toward = d_slope c/D rho
// and on through these three, as they are written above:
//   d_sigma = d_rowS + d_|r|^2 e     d_pi = d_rowP + d_|w|^2 e
//   d_tau = c rho v + d_toward e = -d_xM
//   d_e = d_|r|^2 (rowS + sigma) + d_|w|^2 (rowP + pi) + d_toward (tau - xM)
INLINE void KN(grow)(ttt_real *y, int64_t i, int64_t n, VEC v) {
    KN(put)(y, i, n, KN(part)(y, i, n) + v);
}
// <v, rowP>, <v, rowS> and <v, tau - xM>
INLINE void KN(back_dots)(const ttt__decoder *decoder, const ttt_real *rowS, const ttt_real *rowP,
                          const ttt_real *xM, const ttt_real *v, int64_t i, int64_t n, VEC *dot) {
    VEC v_i = KN(part)(v, i, n);
    dot[0] += v_i * KN(part)(rowP, i, n);
    dot[1] += v_i * KN(part)(rowS, i, n);
    dot[2] += v_i * (KN(part)(decoder->tau, i, n) - KN(part)(xM, i, n));
}
// Without norm g_e = c (rowP - xM) depends on e through rowP alone. So the gradient in e itself is
// 0, or NaN where v is: 0 times v.
INLINE void KN(plain_back)(const ttt__decoder *decoder, ttt_real *rowP, ttt_real *v, ttt_real *d_xM,
                           int64_t i, int64_t n) {
    VEC cv = KN(part)(v, i, n) * decoder->c;
    KN(put)(rowP, i, n, cv);
    KN(put)(v, i, n, cv * 0);
    KN(grow)(d_xM, i, n, -cv);
    KN(grow)(decoder->d_pi, i, n, cv);
}
// d: the gradients in |r|^2, |w|^2 and toward
INLINE void KN(back_rows)(const ttt__decoder *decoder, const KN(decoded) *here, const VEC *d,
                          const ttt_real *e, ttt_real *rowS, ttt_real *rowP, const ttt_real *xM,
                          ttt_real *v, ttt_real *d_xM, int64_t i, int64_t n) {
    VEC e_i = KN(part)(e, i, n), rowS_i = KN(part)(rowS, i, n), rowP_i = KN(part)(rowP, i, n);
    VEC v_i = KN(part)(v, i, n), c_rho_v = here->c_rho * v_i;
    VEC tau_less_xM = KN(part)(decoder->tau, i, n) - KN(part)(xM, i, n);
    VEC d_rowS = d[0] * e_i - here->slope * here->rho * here->rho * v_i;
    VEC d_rowP = c_rho_v * here->rho + d[1] * e_i, d_tau = c_rho_v + d[2] * e_i;
    KN(put)(rowS, i, n, d_rowS);
    KN(put)(rowP, i, n, d_rowP);
    KN(put)(v, i, n, d[0] * (rowS_i + KN(part)(decoder->sigma, i, n)) +
                         d[1] * (rowP_i + KN(part)(decoder->pi, i, n)) + d[2] * tau_less_xM);
    KN(grow)(d_xM, i, n, -d_tau);
    KN(grow)(decoder->d_sigma, i, n, d_rowS + d[0] * e_i);
    KN(grow)(decoder->d_pi, i, n, d_rowP + d[1] * e_i);
    KN(grow)(decoder->d_tau, i, n, d_tau);
}
// Into rowS (if there is a norm), rowP and v go the outer gradients in them and in e, the last
// without what comes through the other two. Added to: the gradients in xM, xm and the head's rows
// and scalars.
KERNEL void KN(decode_back)(const ttt__decoder *decoder, const ttt_real *e, ttt_real *rowS,
                            ttt_real *rowP, const ttt_real *xM, ttt_real xm, ttt_real *v,
                            ttt_real *d_xM, ttt_real *d_xm) {
    VEC zero = KN(splat)(0), dot[3] = { zero, zero, zero }, with_v[3] = { zero, zero, zero }, d[3];
    if (!decoder->norm) {
#define TERM(i, n) KN(plain_back)(decoder, rowP, v, d_xM, i, n)
        TTT__ROW_EACH(decoder->h, TERM)
#undef TERM
        return;
    }
#define TERM(i, n)                                                                                 \
    KN(decode_dots)                                                                                \
    (decoder, e, rowS, rowP, xM, i, n, dot), KN(back_dots)(decoder, rowS, rowP, xM, v, i, n, with_v)
    TTT__ROW_EACH(decoder->h, TERM)
#undef TERM
    KN(decoded) here = KN(decode_scalars)(decoder, dot, (double)xm);
    double D = (double)decoder->D, c = (double)decoder->c, rho = here.inv_std;
    double slope = c / D * (rho * rho * here.ww + rho * here.toward);
    double v_rowP = KN(total)(with_v[0]), v_rowS = KN(total)(with_v[1]),
           v_toward = KN(total)(with_v[2]);
    double d_slope = -rho * rho * v_rowS;
    double d_rho = 2 * c * rho * v_rowP + c * v_toward - 2 * slope * rho * v_rowS +
                   d_slope * c / D * (2 * rho * here.ww + here.toward);
    double d_rr = -0.5 * d_rho * rho * rho * rho / D;
    double d_ww = d_slope * c / D * rho * rho, d_toward = d_slope * c / D * rho;
    d[0] = KN(splat)(NUM(d_rr));
    d[1] = KN(splat)(NUM(d_ww));
    d[2] = KN(splat)(NUM(d_toward));
#define TERM(i, n) KN(back_rows)(decoder, &here, d, e, rowS, rowP, xM, v, d_xM, i, n)
    TTT__ROW_EACH(decoder->h, TERM)
#undef TERM
    *d_xm -= NUM(d_toward);
    decoder->d_scalars[0] += NUM(d_rr);
    decoder->d_scalars[1] += NUM(d_ww);
    decoder->d_scalars[2] += NUM(d_toward);
}

// GELU with its derivatives: a = gelu(z), a1 = gelu'(z), a2 = gelu''(z) (NULL: not wanted). In two
// passes, the first leaving 2^64 e^-|u| in a: as one chain of operations it is so long that the
// processor cannot hold enough of them to be busy.
INLINE void KN(gelu_part)(const ttt_real *z, ttt_real *a, ttt_real *a1, ttt_real *a2, int64_t i,
                          int64_t n) {
    VEC v = KN(part)(z, i, n), E = KN(part)(a, i, n), x = KN(gelu_size)(v), du = KN(gelu_du)(x);
    KN(put)(a, i, n, KN(sigmoid_gate)(v, x, E));
    if (a1) KN(put)(a1, i, n, KN(sigmoid_gate_d1)(v, x, E, du));
    if (a2) KN(put)(a2, i, n, KN(sigmoid_gate_d2)(x, E, du, KN(gelu_ddu)(x)));
}
KERNEL void KN(gelu_all)(int64_t n, const ttt_real *z, ttt_real *a, ttt_real *a1, ttt_real *a2) {
    enum { PASS = 1024 };
    for (int64_t from = 0; from < n; from += PASS) {
        int64_t to = TTT__MIN(from + PASS, n);
#define TERM(i, n) KN(put)(a, i, n, KN(gelu_fall)(KN(gelu_size)(KN(part)(z, i, n))))
        TTT__ROW_FROM(from, to, TERM)
#undef TERM
#define TERM(i, n) KN(gelu_part)(z, a, a1, a2, i, n)
        TTT__ROW_FROM(from, to, TERM)
#undef TERM
    }
}

// The middle of a gradient step backwards, see ttt__tile_back_gradient. Each takes the place of
// what it is made from: d_z = d_g_z o g_a o gelu''(z) that of a2, g_z = g_a o gelu'(z), d_g_a =
// d_g_z o gelu'(z).
INLINE void KN(gelu_step_part)(const ttt_real *a1, ttt_real *a2, ttt_real *g_a, ttt_real *d_g_z,
                               int64_t i, int64_t n) {
    VEC g = KN(part)(g_a, i, n), slope = KN(part)(a1, i, n), d = KN(part)(d_g_z, i, n);
    KN(put)(a2, i, n, g * KN(part)(a2, i, n) * d);
    KN(put)(g_a, i, n, g * slope);
    KN(put)(d_g_z, i, n, d * slope);
}
KERNEL void KN(gelu_step)(int64_t n, const ttt_real *a1, ttt_real *a2, ttt_real *g_a,
                          ttt_real *d_g_z) {
#define TERM(i, n) KN(gelu_step_part)(a1, a2, g_a, d_g_z, i, n)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// y += a o b
KERNEL void KN(add_times)(int64_t n, const ttt_real *a, const ttt_real *b, ttt_real *y) {
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

// y = e^y in place, y <= 0, what is left of something; and 0 where that is below 1e-30 (with
// double, 1e-290). So little is lost beside anything else, but products with it would be denormal,
// and those take processors ten times as long.
INLINE void KN(fade_part)(ttt_real *y, int64_t i, int64_t n) {
    VEC v = KN(part)(y, i, n), least = KN(splat)(sizeof(ttt_real) == 8 ? NUM(-667) : NUM(-69));
    VEC left = KN(select)(v < least, least, v);
    KN(put)(y, i, n, KN(select)(v < least, KN(splat)(0), KN(exp_down)(left, left)));
}
KERNEL void KN(fade)(int64_t n, ttt_real *y) {
#define TERM(i, n) KN(fade_part)(y, i, n)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// d = p o (d - sum) scale, where p are the weights of a row and sum = <d, p>
KERNEL void KN(softmax_back)(int64_t n, const ttt_real *p, ttt_real *d, ttt_real scale,
                             ttt_real sum) {
#define TERM(i, n) KN(put)(d, i, n, KN(part)(p, i, n) * (KN(part)(d, i, n) - sum) * scale)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// Layer norm of a row: y = x^ o scale + shift, x^ = (x - mean) inv_std. Backwards, from d_y, with
// g = d_y o scale:
//   d_x += inv_std (g - mean g - x^ mean(g o x^))     d_scale += d_y o x^     d_shift += d_y
KERNEL void KN(layer_norm)(int64_t n, const ttt_real *x, const ttt_real *scale,
                           const ttt_real *shift, ttt_real *y) {
    const ttt__moments row = KN(moments)(n, x, TTT_LAYER_NORM_EPS, true);
#define TERM(i, n)                                                                                 \
    KN(put)(y, i, n, KN(normal)(x, i, n, &row) * KN(part)(scale, i, n) + KN(part)(shift, i, n))
    TTT__ROW_EACH(n, TERM)
#undef TERM
}
// Beyond the row d_y is zero, and adds nothing.
INLINE void KN(layer_norm_sums)(const ttt_real *x, const ttt_real *scale, const ttt_real *d_y,
                                const ttt__moments *row, ttt_real *d_scale, ttt_real *d_shift,
                                int64_t i, int64_t n, VEC *sum) {
    VEC d = KN(part)(d_y, i, n), dx = d * KN(normal)(x, i, n, row);
    VEC by = KN(part)(scale, i, n);
    sum[0] += d * by;
    sum[1] += dx * by;
    KN(grow)(d_scale, i, n, dx);
    KN(grow)(d_shift, i, n, d);
}
KERNEL void KN(layer_norm_back)(int64_t n, const ttt_real *x, const ttt_real *scale,
                                const ttt_real *d_y, ttt_real *d_x, ttt_real *d_scale,
                                ttt_real *d_shift) {
    VEC sum[2] = { KN(splat)(0), KN(splat)(0) };
    const ttt__moments row = KN(moments)(n, x, TTT_LAYER_NORM_EPS, true);
#define TERM(i, n) KN(layer_norm_sums)(x, scale, d_y, &row, d_scale, d_shift, i, n, sum)
    TTT__ROW_EACH(n, TERM)
#undef TERM
    VEC mean_g = KN(splat)(NUM(KN(total)(sum[0]) / (double)n));
    VEC mean_gx = KN(splat)(NUM(KN(total)(sum[1]) / (double)n));
#define TERM(i, n)                                                                                 \
    KN(grow)(d_x, i, n, (KN(part)(d_y, i, n) * KN(part)(scale, i, n) - mean_g -                    \
                         KN(normal)(x, i, n, &row) * mean_gx) * row.rstd)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// A row of focused linear attention, see ttt__focus: with u = (relu(x) + 1e-6) / (unit size) and
// w = u^p, y = size w |u| / |w|. The size is 1, or the row's largest where squares would not be
// ordinary numbers. Backwards, with u' = p u^(p-1) and sums over the row:
//   d_u = (d_y |u|/|w| - w <d_y, w> |u|/|w|^3) u' + u <d_y, w> / (|u| |w|)
//   d_x += d_u / unit where x > 0           d_unit -= d_u u size / unit
// (larger, not relu: GCC for Windows reads a vector that a mask selects as if the stack were
// aligned.)
INLINE VEC KN(focus_base)(const ttt_real *x, const ttt_real *unit, ttt_real size, int64_t i,
                          int64_t n) {
    VEC u = (KN(larger)(KN(part)(x, i, n), KN(splat)(0)) + NUM(1e-6)) / KN(part)(unit, i, n);
    return KN(first)(size == 1 ? u : u / size, n);
}
INLINE VEC KN(whole_power)(VEC u, int p) {
    VEC w = KN(splat)(1);
    for (int k = 0; k < p; k++) w = w * u;
    return w;
}
INLINE void KN(focus_terms)(const ttt_real *x, const ttt_real *unit, ttt_real size, int p,
                            const ttt_real *g, int64_t i, int64_t n, VEC *sum) {
    VEC u = KN(focus_base)(x, unit, size, i, n), w = KN(whole_power)(u, p);
    sum[0] += u * u;
    sum[1] += w * w;
    if (g) sum[2] += w * KN(part)(g, i, n);
}
// |u|^2, |w|^2 and, if there is a g, <g, w>
RARE void KN(focus_sums)(int64_t n, const ttt_real *x, const ttt_real *unit, ttt_real size, int p,
                         const ttt_real *g, double *sums) {
    VEC sum[3] = { KN(splat)(0), KN(splat)(0), KN(splat)(0) };
#define TERM(i, n) KN(focus_terms)(x, unit, size, p, g, i, n, sum)
    TTT__ROW_EACH(n, TERM)
#undef TERM
    for (int k = 0; k < 3; k++) sums[k] = KN(total)(sum[k]);
}
// The size; and the sums with it.
RARE ttt_real KN(focus_size)(int64_t n, const ttt_real *x, const ttt_real *unit, int p,
                             const ttt_real *g, double *sums) {
    KN(focus_sums)(n, x, unit, 1, p, g, sums);
    if (ttt__ordinary(sums[0]) && ttt__ordinary(sums[1])) return 1;
    VEC most = KN(splat)(0);
#define TERM(i, n) most = KN(larger)(KN(focus_base)(x, unit, 1, i, n), most)
    TTT__ROW_EACH(n, TERM)
#undef TERM
    ttt_real size = KN(largest)(most);
    KN(focus_sums)(n, x, unit, size, p, g, sums);
    return size;
}
KERNEL void KN(focus)(int64_t n, const ttt_real *x, const ttt_real *unit, int p, ttt_real *y) {
    double sums[3];
    ttt_real size = KN(focus_size)(n, x, unit, p, NULL, sums);
    ttt_real length = NUM((double)size * sqrt(sums[0] / sums[1]));
#define TERM(i, n)                                                                                 \
    KN(put)(y, i, n, KN(whole_power)(KN(focus_base)(x, unit, size, i, n), p) * length)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}
INLINE void KN(focus_back_part)(const ttt_real *x, const ttt_real *unit, ttt_real size, int p,
                                const ttt_real *d_y, const ttt_real *factor, ttt_real *d_x,
                                ttt_real *d_unit, int64_t i, int64_t n) {
    VEC u = KN(focus_base)(x, unit, size, i, n), power = KN(whole_power)(u, p - 1);
    VEC d = (KN(part)(d_y, i, n) * factor[0] - power * u * factor[1]) * power * NUM(p);
    d = (d + u * factor[2]) / KN(part)(unit, i, n);
    KN(grow)(d_x, i, n, KN(select)(KN(part)(x, i, n) > NUM(0), d, KN(splat)(0)));
    KN(grow)(d_unit, i, n, d * u * -size);
}
KERNEL void KN(focus_back)(int64_t n, const ttt_real *x, const ttt_real *unit, int p,
                           const ttt_real *d_y, ttt_real *d_x, ttt_real *d_unit) {
    double sums[3];
    ttt_real size = KN(focus_size)(n, x, unit, p, d_y, sums);
    double uu = sqrt(sums[0]), ww = sqrt(sums[1]), gw = sums[2];
    const ttt_real factor[3] = { NUM(uu / ww), NUM(gw * uu / (ww * ww * ww)), NUM(gw / (uu * ww)) };
#define TERM(i, n) KN(focus_back_part)(x, unit, size, p, d_y, factor, d_x, d_unit, i, n)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// y = by a + keep y
KERNEL void KN(blend)(int64_t n, ttt_real by, const ttt_real *a, ttt_real keep, ttt_real *y) {
#define TERM(i, n) KN(put)(y, i, n, by * KN(part)(a, i, n) + keep * KN(part)(y, i, n))
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// A token of the delta rule with a decay for each channel, in a memory S (h,h), see ttt__scan. A
// column of S goes its own way: row by row, `columns` vectors at a time of n numbers in all,
//     S_c = kept_c S_c    u = beta (v - k S)    S_c += k_c u    y = q S
INLINE void KN(delta_columns)(int columns, int64_t n, const ttt__delta_token *of, int64_t j) {
    ttt_real *S = of->S + j;
    VEC asked[4], u[4], answer[4];
    TTT__UNROLL for (int i = 0; i < columns; i++) asked[i] = answer[i] = KN(splat)(0);
    for (int64_t c = 0; c < of->h; c++)
        TTT__UNROLL for (int i = 0; i < columns; i++) {
            VEC left = of->kept[c] * KN(part)(S + c * of->h, i * LANES, n);
            KN(put)(S + c * of->h, i * LANES, n, left);
            asked[i] += of->k[c] * left;
        }
    TTT__UNROLL for (int i = 0; i < columns; i++)
        u[i] = of->beta * (KN(part)(of->v + j, i * LANES, n) - asked[i]);
    for (int64_t c = 0; c < of->h; c++)
        TTT__UNROLL for (int i = 0; i < columns; i++) {
            VEC now = KN(part)(S + c * of->h, i * LANES, n) + of->k[c] * u[i];
            KN(put)(S + c * of->h, i * LANES, n, now);
            answer[i] += of->q[c] * now;
        }
    TTT__UNROLL for (int i = 0; i < columns; i++) KN(put)(of->y + j, i * LANES, n, answer[i]);
}
KERNEL void KN(delta)(const ttt__delta_token *of) {
    int64_t j = 0;
    for (; j + 4 * LANES <= of->h; j += 4 * LANES) KN(delta_columns)(4, LANES, of, j);
    for (; j < of->h; j += LANES) KN(delta_columns)(1, of->h - j, of, j);
}

// The gradient g of a memory's loss |LN(e) - label|^2 / 2 in its prediction e, a row of h numbers.
// x^ is e normalized, r = rstd, J the derivative of x^ in e, which is symmetric:
//   error = x^ o scale + shift - label    u = error o scale
//   g = J u = r (u - mean u - x^ mean(u x^))
// And back from v, the outer gradient in g; how J depends on e, the rule of normalize_d1 says:
//   d_u = J v    d_error = d_u o scale = -d_label    d_scale += d_u o error + d_error o x^
//   d_shift += d_error
//   d_e = J (d_error o scale) - r (x^ mean(v g) + d_u mean(u x^) + g mean(v x^))
// Beyond the row scale is zero, and so are u and d_error.
typedef struct KN(error_row) {
    const ttt_real *e, *label, *scale, *shift;
    ttt__moments moments;
} KN(error_row);
INLINE KN(error_row) KN(error_row_of)(int64_t n, const ttt_real *e, const ttt_real *label,
                                      const ttt_real *scale, const ttt_real *shift) {
    KN(error_row) row = { e, label, scale, shift, KN(moments)(n, e, TTT_LAYER_NORM_EPS, true) };
    return row;
}
INLINE VEC KN(error_at)(const KN(error_row) *row, VEC x, int64_t i, int64_t n) {
    return x * KN(part)(row->scale, i, n) + KN(part)(row->shift, i, n) - KN(part)(row->label, i, n);
}
// u into g, and the sums of u and u x^
INLINE void KN(error_sums)(const KN(error_row) *row, ttt_real *g, int64_t i, int64_t n, VEC *sum) {
    VEC x = KN(normal)(row->e, i, n, &row->moments);
    VEC u = KN(error_at)(row, x, i, n) * KN(part)(row->scale, i, n);
    sum[0] += u;
    sum[1] += u * x;
    if (g) KN(put)(g, i, n, u);
}
// J of y in place, from the means of y and y x^
INLINE VEC KN(normal_d1)(const KN(error_row) *row, VEC x, VEC y, const VEC *mean) {
    return (y - mean[0] - x * mean[1]) * row->moments.rstd;
}
INLINE void KN(mean_of_each)(int sums, int64_t n, VEC *sum) {
    for (int i = 0; i < sums; i++) sum[i] = KN(splat)(NUM(KN(total)(sum[i]) / (double)n));
}
KERNEL void KN(norm_error)(int64_t n, const ttt_real *e, const ttt_real *label,
                           const ttt_real *scale, const ttt_real *shift, ttt_real *g) {
    KN(error_row) row = KN(error_row_of)(n, e, label, scale, shift);
    VEC of_u[2] = { KN(splat)(0), KN(splat)(0) };
#define TERM(i, n) KN(error_sums)(&row, g, i, n, of_u)
    TTT__ROW_EACH(n, TERM)
#undef TERM
    KN(mean_of_each)(2, n, of_u);
#define TERM(i, n)                                                                                 \
    KN(put)(g, i, n, KN(normal_d1)(&row, KN(normal)(e, i, n, &row.moments),                        \
                                   KN(part)(g, i, n), of_u))
    TTT__ROW_EACH(n, TERM)
#undef TERM
}
// d_error, with its sign changed, into d_label; more to d_scale and d_shift; and the sums of
// t = d_error o scale, t x^ and v g.
INLINE void KN(error_back_sums)(const KN(error_row) *row, const VEC *of_u, const VEC *of_v,
                                const ttt_real *v, ttt_real *d_label, ttt_real *d_scale,
                                ttt_real *d_shift, int64_t i, int64_t n, VEC *sum) {
    VEC x = KN(normal)(row->e, i, n, &row->moments), scale = KN(part)(row->scale, i, n);
    VEC error = KN(error_at)(row, x, i, n), v_i = KN(part)(v, i, n);
    VEC d_u = KN(normal_d1)(row, x, v_i, of_v), d_error = d_u * scale;
    sum[0] += d_error * scale;
    sum[1] += d_error * scale * x;
    sum[2] += v_i * KN(normal_d1)(row, x, error * scale, of_u);
    KN(put)(d_label, i, n, -d_error);
    KN(grow)(d_scale, i, n, d_u * error + d_error * x);
    KN(grow)(d_shift, i, n, d_error);
}
INLINE VEC KN(error_back_at)(const KN(error_row) *row, const VEC *of_u, const VEC *of_v,
                             const VEC *of_t, const ttt_real *v, int64_t i, int64_t n) {
    VEC x = KN(normal)(row->e, i, n, &row->moments), scale = KN(part)(row->scale, i, n);
    VEC g = KN(normal_d1)(row, x, KN(error_at)(row, x, i, n) * scale, of_u);
    VEC d_u = KN(normal_d1)(row, x, KN(part)(v, i, n), of_v);
    return KN(normal_d1)(row, x, d_u * scale * scale, of_t) -
           (x * of_t[2] + d_u * of_u[1] + g * of_v[1]) * row->moments.rstd;
}
// v becomes d_e.
KERNEL void KN(norm_error_back)(int64_t n, const ttt_real *e, const ttt_real *label,
                                const ttt_real *scale, const ttt_real *shift, ttt_real *v,
                                ttt_real *d_label, ttt_real *d_scale, ttt_real *d_shift) {
    KN(error_row) row = KN(error_row_of)(n, e, label, scale, shift);
    VEC zero = KN(splat)(0), of_u[2] = { zero, zero }, of_v[2] = { zero, zero },
        of_t[3] = { zero, zero, zero };
#define TERM(i, n)                                                                                 \
    (KN(error_sums)(&row, NULL, i, n, of_u), of_v[0] += KN(part)(v, i, n),                         \
     of_v[1] += KN(part)(v, i, n) * KN(normal)(e, i, n, &row.moments))
    TTT__ROW_EACH(n, TERM)
#undef TERM
    KN(mean_of_each)(2, n, of_u);
    KN(mean_of_each)(2, n, of_v);
#define TERM(i, n)                                                                                 \
    KN(error_back_sums)(&row, of_u, of_v, v, d_label, d_scale, d_shift, i, n, of_t)
    TTT__ROW_EACH(n, TERM)
#undef TERM
    KN(mean_of_each)(3, n, of_t);
#define TERM(i, n) KN(put)(v, i, n, KN(error_back_at)(&row, of_u, of_v, of_t, v, i, n))
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// Gated units, see ttt__glu_work: of rows of z and u side by side, s = a o u with a = SiLU(z), and
// with a1, a2 = SiLU's slope and bend.
INLINE void KN(silu_parts)(VEC z, VEC *a, VEC *a1, VEC *a2) {
    VEC one = KN(splat)(1), x = KN(size_up_to)(z, TTT__SILU_CUT), E = KN(exp_fall)(x);
    *a = KN(sigmoid_gate)(z, x, E);
    *a1 = KN(sigmoid_gate_d1)(z, x, E, one);
    *a2 = KN(sigmoid_gate_d2)(x, E, one, KN(splat)(0));
}
KERNEL void KN(glu_read)(const ttt__glu_rows *of) {
    for (int64_t row = 0; row < of->rows; row++) {
        const ttt_real *z = of->zu + row * 2 * of->h, *u = z + of->h;
        ttt_real *s = of->s + row * of->s_down;
#define TERM(i, n) KN(put)(s, i, n, KN(silu)(KN(part)(z, i, n), KN(splat)(0)) * KN(part)(u, i, n))
        TTT__ROW_EACH(of->h, TERM)
#undef TERM
    }
}
// Into the places of z and u go d_z = d_s o u o a1 and d_u = d_s o a.
INLINE void KN(glu_read_back_part)(ttt_real *z, ttt_real *u, const ttt_real *d_s, ttt_real *s,
                                   int64_t i, int64_t n) {
    VEC a, a1, a2, here = KN(part)(u, i, n), d = KN(part)(d_s, i, n);
    KN(silu_parts)(KN(part)(z, i, n), &a, &a1, &a2);
    KN(put)(s, i, n, a * here);
    KN(put)(z, i, n, d * here * a1);
    KN(put)(u, i, n, d * a);
}
KERNEL void KN(glu_read_back)(const ttt__glu_rows *of) {
    for (int64_t row = 0; row < of->rows; row++) {
        ttt_real *z = of->zu + row * 2 * of->h, *s = of->s + row * of->s_down;
        const ttt_real *d_s = of->d_s + row * of->d_s_down;
#define TERM(i, n) KN(glu_read_back_part)(z, z + of->h, d_s, s, i, n)
        TTT__ROW_EACH(of->h, TERM)
#undef TERM
    }
}
// What a token pushes: into the places of z and u go P_0 = r_0 back o u o a1 and P_2 = r_2 back o
// a, into s P_1 = r_1 a o u.
INLINE void KN(glu_push_part)(ttt_real *z, ttt_real *u, const ttt_real *back, ttt_real *s,
                              const VEC *r, int64_t i, int64_t n) {
    VEC a, a1, a2, here = KN(part)(u, i, n), b = KN(part)(back, i, n);
    KN(silu_parts)(KN(part)(z, i, n), &a, &a1, &a2);
    KN(put)(s, i, n, r[1] * a * here);
    KN(put)(z, i, n, r[0] * b * here * a1);
    KN(put)(u, i, n, r[2] * b * a);
}
INLINE void KN(glu_rates)(const ttt__glu_rows *of, int64_t row, VEC *r) {
    for (int j = 0; j < 3; j++) r[j] = KN(splat)(of->rates[row * of->rates_down + j]);
}
KERNEL void KN(glu_push)(const ttt__glu_rows *of) {
    for (int64_t row = 0; row < of->rows; row++) {
        ttt_real *z = of->zu + row * 2 * of->h, *s = of->s + row * of->s_down;
        const ttt_real *back = of->back + row * of->back_down;
        VEC r[3];
        KN(glu_rates)(of, row, r);
#define TERM(i, n) KN(glu_push_part)(z, z + of->h, back, s, r, i, n)
        TTT__ROW_EACH(of->h, TERM)
#undef TERM
    }
}
// And backwards, from the gradients in P_0, P_2 (side by side in d_zu) and P_1 (in d_s):
//   d_r_0 = <d_P_0, back o u o a1>    d_r_1 = <d_P_1, a o u>    d_r_2 = <d_P_2, back o a>
//   d_back = r_0 d_P_0 o u o a1 + r_2 d_P_2 o a
//   d_u = r_0 d_P_0 o back o a1 + r_1 d_P_1 o a
//   d_z = (r_1 d_P_1 o u + r_2 d_P_2 o back) o a1 + r_0 d_P_0 o back o u o a2
// d_z and d_u take the places of d_P_0 and d_P_2, d_back that of d_P_1; P those of before.
INLINE void KN(glu_push_back_part)(ttt_real *z, const ttt_real *back, ttt_real *s, ttt_real *d_z,
                                   ttt_real *d_s, int64_t h, const VEC *r, VEC *d_r, int64_t i,
                                   int64_t n) {
    VEC a, a1, a2, u = KN(part)(z + h, i, n), b = KN(part)(back, i, n);
    VEC d0 = KN(part)(d_z, i, n), d1 = KN(part)(d_s, i, n), d2 = KN(part)(d_z + h, i, n);
    KN(silu_parts)(KN(part)(z, i, n), &a, &a1, &a2);
    VEC ua1 = u * a1, au = a * u, ba = b * a;
    d_r[0] += d0 * b * ua1;
    d_r[1] += d1 * au;
    d_r[2] += d2 * ba;
    KN(put)(s, i, n, r[1] * au);
    KN(put)(z, i, n, r[0] * b * ua1);
    KN(put)(z + h, i, n, r[2] * ba);
    d0 *= r[0], d1 *= r[1], d2 *= r[2];
    KN(put)(d_s, i, n, d0 * ua1 + d2 * a);
    KN(put)(d_z + h, i, n, d0 * b * a1 + d1 * a);
    KN(put)(d_z, i, n, (d1 * u + d2 * b) * a1 + d0 * b * u * a2);
}
KERNEL void KN(glu_push_back)(const ttt__glu_rows *of) {
    for (int64_t row = 0; row < of->rows; row++) {
        ttt_real *z = of->zu + row * 2 * of->h, *s = of->s + row * of->s_down;
        ttt_real *d_z = of->d_zu + row * 2 * of->h, *d_s = of->d_s + row * of->d_s_down;
        const ttt_real *back = of->back + row * of->back_down;
        VEC zero = KN(splat)(0), r[3], d_r[3] = { zero, zero, zero };
        KN(glu_rates)(of, row, r);
#define TERM(i, n) KN(glu_push_back_part)(z, back, s, d_z, d_s, of->h, r, d_r, i, n)
        TTT__ROW_EACH(of->h, TERM)
#undef TERM
        for (int j = 0; j < 3; j++)
            of->d_rates[row * of->d_rates_down + j] += NUM(KN(total)(d_r[j]));
    }
}

static const ttt__layer_kernels KN(layer_table) = {
#define X(result, name, parameters) KN(name),
    TTT__LAYER_KERNEL_LIST(X)
#undef X
};

#include TTT__THIS_FILE("ttt_layers.h")  // once more, for the next set
#endif
#endif

// =================================================================================================
#elif defined(TTT_LAYERS_IMPLEMENTATION) || defined(TTT_IMPLEMENTATION)
#ifndef TTT_LAYERS_IMPLEMENTED
#define TTT_LAYERS_IMPLEMENTED

#ifndef TTT_TENSOR_IMPLEMENTATION
#define TTT_TENSOR_IMPLEMENTATION  // a header's macro implies those of the headers below it
#endif
#ifndef TTT_TENSOR_IMPLEMENTED
#include "ttt_tensor.h"
#endif

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TTT__PART TTT__OPEN
#include TTT__TENSOR_FILE
#undef TTT__PART
TTT__PRECISE

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
            value = TTT__MAX(value, 1);
            value = value > INT64_MAX / size ? INT64_MAX : value * size;  // no tensor is so large
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

static void ttt__fill_uniform(ttt_tensor *tensor, ttt_rng *rng, double bound) {
    for (int64_t i = 0; i < tensor->size; i++)
        tensor->data[i] = (ttt_real)(bound * (2 * ttt_rng_uniform(rng) - 1));
}

static void ttt__fill_normal(ttt_tensor *tensor, ttt_rng *rng, double deviation, double cut) {
    for (int64_t i = 0; i < tensor->size; i++) {
        double z = ttt_rng_normal(rng);
        while (fabs(z) > cut) z = ttt_rng_normal(rng);
        tensor->data[i] = (ttt_real)(deviation * z);
    }
}

static void ttt__initialize(ttt_tensor *tensor, const ttt_param_row *row, const ttt_sizes *sizes,
                            ttt_rng rng) {
    double in = ttt__fan(row->fan_in, sizes), out = ttt__fan(row->fan_out, sizes);
    switch (row->init) {
    case TTT_INIT_ZERO: break;  // parameters are born zero
    case TTT_INIT_ONE:
        for (int64_t i = 0; i < tensor->size; i++) tensor->data[i] = 1;
        break;
    case TTT_INIT_XAVIER: ttt__fill_uniform(tensor, &rng, sqrt(6 / (in + out))); break;
    case TTT_INIT_UNIFORM_IN: ttt__fill_uniform(tensor, &rng, sqrt(3 / in)); break;
    case TTT_INIT_UNIFORM_OUT: ttt__fill_uniform(tensor, &rng, sqrt(3 / out)); break;
    // a normal cut at two deviations has 0.8796 of the deviation: made up for
    case TTT_INIT_LECUN:
        ttt__fill_normal(tensor, &rng, sqrt(1 / in) / 0.87962566103423978, 2);
        break;
    case TTT_INIT_NORMAL_IN: ttt__fill_normal(tensor, &rng, sqrt(1 / in), HUGE_VAL); break;
    case TTT_INIT_TINY: ttt__fill_normal(tensor, &rng, 1e-6, HUGE_VAL); break;
    case TTT_INIT_SMALL: ttt__fill_normal(tensor, &rng, 0.02, HUGE_VAL); break;
    case TTT_INIT_LOG_RATE:
        for (int64_t i = 0; i < tensor->size; i++)
            tensor->data[i] = (ttt_real)log(16 * (1 - ttt_rng_uniform(&rng)));
        break;
    case TTT_INIT_LOG_RATE_1:
        for (int64_t i = 0; i < tensor->size; i++)
            tensor->data[i] = (ttt_real)log(1 + 15 * ttt_rng_uniform(&rng));
        break;
    case TTT_INIT_LOG_TIME:
        for (int64_t i = 0; i < tensor->size; i++)
            tensor->data[i] = (ttt_real)log(expm1(0.001 * pow(100, ttt_rng_uniform(&rng))));
        break;
    }
}

// Room for n more at the end of the list. What was there moves, and views of it from before stay
// valid.
static bool ttt__params_room(ttt_ctx *ctx, ttt_params *params, int n) {
    if (params->n + n <= params->capacity) return true;
    int capacity = TTT__MAX(2 * params->capacity, TTT__MAX(64, params->n + n));
    ttt_param *item = (ttt_param *)ttt_alloc(ctx, (uint64_t)capacity * sizeof *item, true);
    ttt_tensor **value = (ttt_tensor **)ttt_alloc(ctx, (uint64_t)capacity * sizeof *value, true);
    if (!item || !value) return false;
    if (params->n) memcpy(item, params->item, (size_t)params->n * sizeof *item);
    if (params->n) memcpy(value, params->value, (size_t)params->n * sizeof *value);
    params->item = item;
    params->value = value;
    params->capacity = capacity;
    return true;
}

// "prefix/name", or the name alone; printf format. NULL after an error.
static const char *ttt__path(ttt_ctx *ctx, const char *prefix, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int tail = vsnprintf(NULL, 0, format, args);
    va_end(args);
    size_t head = prefix && *prefix ? strlen(prefix) + 1 : 0, length = head + (size_t)tail + 1;
    char *path = (char *)ttt_alloc(ctx, length, true);
    if (!path) return NULL;
    if (head) snprintf(path, head + 1, "%s/", prefix);
    va_start(args, format);
    vsnprintf(path + head, length - head, format, args);
    va_end(args);
    return path;
}

// Whether a path is "prefix/name".
static bool ttt__is_path(const char *path, const char *prefix, const char *name) {
    size_t head = prefix && *prefix ? strlen(prefix) : 0;
    if (head && (strncmp(path, prefix, head) != 0 || path[head] != '/')) return false;
    return strcmp(path + (head ? head + 1 : 0), name) == 0;
}

// One row's parameter at the end of params, where there is room for it.
static void ttt__params_add_row(ttt_ctx *ctx, const ttt_param_row *row, const ttt_sizes *sizes,
                                ttt_params *params, const char *prefix) {
    ttt_shape shape = ttt_scalar_shape();
    const char *name = ttt__path(ctx, prefix, "%s", row->name);
    shape.rank = ttt__read_sizes(row->shape, sizes, shape.dim);
    if (name && shape.rank < 0)
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "%s: its shape \"%s\" has a letter whose size is not set, or not above 0", name,
                 row->shape);
    else if (name && ttt_params_find(params, name))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: there is a parameter of this name already", name);
    else if (name && (unsigned)row->init > TTT_INIT_LOG_RATE_1)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: there is no initializer %d; a ttt_init expected", name,
                 (int)row->init);
    if (!ttt__shape_good(ctx, name, shape, TTT_DTYPE_REAL)) return;
    bool half = params->blank && params->bf16 && row->flags & TTT_PARAM_FACTOR;
    ttt_tensor *tensor = !params->blank
                             ? ttt_zeros_kept(ctx, shape)
                             : ttt_new_typed(ctx, shape, half ? TTT_DTYPE_BF16 : TTT_DTYPE_REAL,
                                             true);
    if (!ttt_ok(ctx)) return;
    if (!params->blank)
        ttt__initialize(tensor, row, sizes, ttt_rng_fold(*ttt_ctx_rng(ctx), ttt__name_hash(name)));
    params->item[params->n].name = name;
    params->item[params->n].flags = row->flags;
    params->value[params->n++] = tensor;
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
    ttt_weights weights = { NULL, 0 };
    return weights;
}
static ttt_weights ttt__weights(ttt_tensor *const *at, int n) {
    ttt_weights weights = { at, n };
    return weights;
}
// The end of the list, from parameter `first` on; after an error the list ends there again.
static ttt_weights ttt__params_since(ttt_ctx *ctx, ttt_params *params, int first) {
    if (!ttt_ok(ctx)) params->n = first;
    return ttt_ok(ctx) ? ttt__weights(params->value + first, params->n - first) : ttt__no_weights();
}

ttt_weights ttt_params_add(ttt_ctx *ctx, const ttt_param_row *rows, int n_rows, unsigned options,
                           const ttt_sizes *sizes, ttt_params *params, const char *prefix) {
    if ((n_rows > 0 && !TTT__GIVEN("params_add", rows)) || !TTT__GIVEN("params_add", sizes) ||
        !TTT__GIVEN("params_add", params) ||
        !ttt__params_room(ctx, params, ttt__rows_present(rows, n_rows, options)))
        return ttt__no_weights();
    int first = params->n;
    for (int i = 0; i < n_rows && ttt_ok(ctx); i++)
        if (ttt__row_present(&rows[i], options))
            ttt__params_add_row(ctx, &rows[i], sizes, params, prefix);
    return ttt__params_since(ctx, params, first);
}

ttt_weights ttt_params_weights(const ttt_params *params) {
    return params ? ttt__weights(params->value, params->n) : ttt__no_weights();
}

ttt_tensor *ttt_params_find(const ttt_params *params, const char *name) {
    for (int i = 0; params && name && i < params->n; i++)
        if (strcmp(params->item[i].name, name) == 0) return params->value[i];
    return NULL;
}

int64_t ttt_params_count(const ttt_params *params, unsigned flags) {
    int64_t n = 0;
    for (int i = 0; params && i < params->n; i++)
        if ((params->item[i].flags & flags) == flags) n += params->value[i]->size;
    return n;
}

bool *ttt_params_choose(ttt_ctx *ctx, const ttt_params *params, const char *part, unsigned flags) {
    if (!TTT__GIVEN("params_choose", params)) return NULL;
    bool *chosen = (bool *)ttt_alloc(ctx, (uint64_t)params->n * sizeof *chosen, false);
    for (int i = 0; chosen && i < params->n; i++)
        chosen[i] = (!part || strstr(params->item[i].name, part)) &&
                    (params->item[i].flags & flags) == flags;
    return chosen;
}

// -- weights as arrays
static bool ttt__weights_alive(ttt_ctx *ctx, const char *who, ttt_weights weights) {
    if (weights.n > 0) ttt__given(ctx, who, "the array of its weights", weights.at != NULL);
    if (ttt_ok(ctx) && ttt__arena_released(&ctx->step, weights.at))
        ttt_fail(ctx, TTT_ERR_RELEASED, "%s: the array of its weights was released", who);
    return ttt_ok(ctx);
}
// The same of each of the weights, too.
static bool ttt__weights_living(ttt_ctx *ctx, const char *who, ttt_weights weights) {
    bool good = ttt__weights_alive(ctx, who, weights);
    for (int i = 0; i < weights.n && good; i++) {
        ttt_text text;
        good = ttt__alive(ctx, weights.at[i]);
        if (good) continue;
        snprintf(text, sizeof text, "weight %d", i);
        ttt__not_living(ctx, who, weights.at[i], text);
    }
    return good;
}
static bool ttt__weights_expected(ttt_ctx *ctx, const char *who, ttt_weights weights, int n) {
    if (ttt_ok(ctx) && weights.n != n)
        ttt_fail(ctx, TTT_ERR_SHAPE, "%s: %d weights; %d expected", who, weights.n, n);
    return ttt__weights_living(ctx, who, weights);
}

ttt_weights ttt_weights_take(ttt_ctx *ctx, const char *who, ttt_weights *w, int n) {
    if (!who) who = "weights_take";
    if (TTT__GIVEN(who, w) && ttt__weights_alive(ctx, who, *w) && (n < 0 || n > w->n))
        ttt_fail(ctx, TTT_ERR_SHAPE, "%s: %d weights expected, but only %d are left", who, n, w->n);
    if (!ttt_ok(ctx)) return ttt__no_weights();
    ttt_weights part = ttt__weights(w->at, n);
    w->at += n;
    w->n -= n;
    return part;
}

// The next one alone; the empty tensor if there is none.
static ttt_tensor *ttt__weight(ttt_ctx *ctx, const char *who, ttt_weights *w) {
    ttt_weights one = ttt_weights_take(ctx, who, w, 1);
    return ttt_ok(ctx) ? one.at[0] : &ctx->empty;
}

// Whether `who`'s weight `name`, NULL if it is absent, is what the description asks for, with one
// of the element types (TTT__REAL | ...).
static bool ttt__weight_good(ttt_ctx *ctx, const char *who, const char *name, ttt_tensor *w,
                             ttt_shape shape, int types) {
    ttt_text got, want;
    if (!ttt_ok(ctx) ||
        (w && (!ttt__operand(ctx, name, w, 0, types) || ttt_shape_equal(w->shape, shape))))
        return ttt_ok(ctx);
    ttt_fail(ctx, TTT_ERR_SHAPE, "%s: weight %s is %s, but the description asks for %s; was it "
             "another when they were made?", who, name,
             w ? ttt_shape_text(w->shape, got) : "absent", ttt_shape_text(shape, want));
    return false;
}

static int ttt__weight_types(unsigned flags) {
    return flags & TTT_PARAM_FACTOR ? TTT__REAL | TTT__BF16 : TTT__REAL;
}

static ttt_tensor **ttt__weights_room(ttt_ctx *ctx, int n, bool keep) {
    return (ttt_tensor **)ttt_alloc(ctx, (uint64_t)n * sizeof(ttt_tensor *), keep);
}

static ttt_tensor *ttt__copy(ttt_ctx *ctx, const ttt_tensor *tensor, bool keep) {
    ttt_tensor *y = ttt_new_typed(ctx, tensor->shape, tensor->dtype, keep);
#define X(name, type, member, text)                                                                \
    if (ttt_ok(ctx) && tensor->member)                                                             \
        memcpy(y->member, tensor->member, (size_t)tensor->size * sizeof(type));
    TTT_DTYPES(X)
#undef X
    return y;
}
ttt_weights ttt_weights_copy(ttt_ctx *ctx, ttt_weights weights, bool keep) {
    if (!ttt__weights_alive(ctx, "weights_copy", weights)) return ttt__no_weights();
    ttt_tensor **copy = ttt__weights_room(ctx, weights.n, keep);
    for (int i = 0;
         copy && i < weights.n && ttt__operand(ctx, "weights_copy", weights.at[i], i, ~0); i++) {
        copy[i] = ttt__copy(ctx, weights.at[i], keep);
    }
    return ttt_ok(ctx) ? ttt__weights(copy, weights.n) : ttt__no_weights();
}

// Whether a and b, from weights `who` speaks of, are as many and have the same shapes.
static bool ttt__weights_alike(ttt_ctx *ctx, const char *who, ttt_weights a, ttt_weights b) {
    ttt_text t0, t1;
    if (!ttt__weights_alive(ctx, who, a) || !ttt__weights_expected(ctx, who, b, a.n)) return false;
    for (int i = 0; i < a.n && ttt__operand(ctx, who, a.at[i], i, TTT__REAL) &&
         ttt__operand(ctx, who, b.at[i], i, TTT__REAL);
         i++)
        if (!ttt_shape_equal(a.at[i]->shape, b.at[i]->shape))
            ttt_fail(ctx, TTT_ERR_SHAPE, "%s: weight %d is %s in one array and %s in the other",
                     who, i, ttt_shape_text(a.at[i]->shape, t0),
                     ttt_shape_text(b.at[i]->shape, t1));
    return ttt_ok(ctx);
}

ttt_result ttt_weights_blend(ttt_ctx *ctx, ttt_weights into, ttt_weights from, ttt_real share) {
    if (!ttt__weights_alike(ctx, "weights_blend", into, from)) return ttt_status(ctx);
    for (int i = 0; i < into.n; i++) {
        ttt_real *a = into.at[i]->data;
        const ttt_real *b = from.at[i]->data;
        if (share == 1) memmove(a, b, (size_t)into.at[i]->size * sizeof *a);
        else for (int64_t j = 0; j < into.at[i]->size; j++) a[j] += share * (b[j] - a[j]);
    }
    return ttt_status(ctx);
}

// -- a step of descent
// m = keep m + add g; m NULL: zero
static ttt_tensor *ttt__moment(ttt_ctx *ctx, ttt_tensor *m, double keep, ttt_tensor *g,
                               double add) {
    ttt_tensor *fresh = add == 1 ? g : ttt_scale(ctx, g, (ttt_real)add);
    return m ? ttt_add(ctx, ttt_scale(ctx, m, (ttt_real)keep), fresh) : fresh;
}

// The direction of weight i of those that move, by the rule, from its gradient.
static ttt_tensor *ttt__direction(ttt_ctx *ctx, const ttt_descent *descent, ttt_descent_state *s,
                                  ttt_tensor **m, ttt_tensor **v, int i, ttt_tensor *g) {
    ttt_tensor *m0 = s && s->steps ? s->m.at[i] : NULL,
               *v0 = s && s->steps && s->v.n ? s->v.at[i] : NULL;
    double b1 = descent->beta1 > 0 ? (double)descent->beta1 : 0.9,
           b2 = descent->beta2 > 0 ? (double)descent->beta2 : 0.999;
    double eps = descent->eps > 0 ? (double)descent->eps : 1e-8;
    if (descent->rule == TTT_DESCENT_PLAIN) return g;
    if (descent->rule == TTT_DESCENT_MOMENTUM)
        return m[i] = ttt__moment(ctx, m0, (double)descent->momentum, g, 1);
    ttt_tensor *square = ttt_square(ctx, g);
    if (ttt_ok(ctx) && !ctx->k->finite(square->size, square->data)) {  // as the optimizer's rule
        const ttt_real most = (ttt_real)TTT__LARGEST_TO_SQUARE;
        square = ttt_square(ctx, g = ttt_clamp(ctx, g, -most, most));
    }
    m[i] = ttt__moment(ctx, m0, b1, g, 1 - b1);
    v[i] = ttt__moment(ctx, v0, b2, square, 1 - b2);
    ttt_tensor *mean = ttt_scale(ctx, m[i], (ttt_real)(1 / (1 - pow(b1, s->steps + 1))));
    ttt_tensor *size =
        ttt_sqrt(ctx, ttt_scale(ctx, v[i], (ttt_real)(1 / (1 - pow(b2, s->steps + 1)))));
    return ttt_div(ctx, mean, ttt_add_scalar(ctx, size, (ttt_real)eps));
}

// now (n): the weights that move.
static bool ttt__descent_state_good(ttt_ctx *ctx, const ttt_descent *descent,
                                    const ttt_descent_state *s, ttt_tensor *const *now, int n) {
    ttt_text t0, t1;
    if (!ttt_ok(ctx) || descent->rule == TTT_DESCENT_PLAIN) return ttt_ok(ctx);
    if (!s)
        ttt_fail(ctx, TTT_ERR_UNSET, "descend: this rule needs a ttt_descent_state, which is NULL");
    if (!s || s->steps == 0) return ttt_ok(ctx);
    if (s->rule != descent->rule)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "descend: the state is of another rule");
    else if (s->m.n != n)
        ttt_fail(ctx, TTT_ERR_SHAPE, "descend: the state is of %d moving weights, here %d move",
                 s->m.n, n);
    else if (descent->rule == TTT_DESCENT_ADAM && s->v.n != n)
        ttt_fail(ctx, TTT_ERR_SHAPE,
                 "descend: the state has %d second moments for %d moving weights", s->v.n, n);
    const ttt_weights *moment[2] = { &s->m, &s->v };
    for (int k = 0; k <= (descent->rule == TTT_DESCENT_ADAM); k++)
        for (int i = 0; i < n && ttt_ok(ctx) &&
             ttt__operand(ctx, "descend: the state", moment[k]->at[i], i, TTT__REAL);
             i++)
            if (!ttt_shape_equal(moment[k]->at[i]->shape, now[i]->shape))
                ttt_fail(ctx, TTT_ERR_SHAPE,
                         "descend: the state of moving weight %d is %s, the weight %s", i,
                         ttt_shape_text(moment[k]->at[i]->shape, t0),
                         ttt_shape_text(now[i]->shape, t1));
    return ttt_ok(ctx);
}

// An option that the rule does not have is a mistake.
static bool ttt__descent_options_good(ttt_ctx *ctx, const ttt_descent *descent) {
    static const char *const rules[] = { "plain", "momentum", "adam" };
    if (!ttt_ok(ctx)) return false;
    bool known = (unsigned)descent->rule <= TTT_DESCENT_ADAM;
    const char *name = known ? rules[descent->rule] : "";
    if (!known)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "descend: .rule %d is none", (int)descent->rule);
    else if (descent->rule != TTT_DESCENT_MOMENTUM && descent->momentum != 0)
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "descend: .momentum is set, which the rule %s does not take", name);
    else if (descent->rule != TTT_DESCENT_ADAM &&
             (descent->beta1 != 0 || descent->beta2 != 0 || descent->eps != 0))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "descend: .%s is set, which the rule %s does not take",
                 descent->beta1 != 0 ? "beta1" : descent->beta2 != 0 ? "beta2" : "eps", name);
    else if (descent->rates && descent->rate != 0)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "descend: .rate and .rates are both set");
    return ttt_ok(ctx);
}

static bool ttt__descent_good(ttt_ctx *ctx, const ttt_descent *descent, ttt_weights weights) {
    ttt_text t0, t1;
    ttt_shape both;
    if (!ttt__descent_options_good(ctx, descent)) return false;
    for (int i = 0; i < weights.n && descent->rates && ttt_ok(ctx); i++)
        if ((!descent->moves || descent->moves[i]) &&
            ttt__operand(ctx, "descend: rates", descent->rates[i], i, TTT__REAL) &&
            ttt__operand(ctx, "descend: weights", weights.at[i], i, TTT__REAL) &&
            (!ttt__broadcast_shape(descent->rates[i]->shape, weights.at[i]->shape, &both) ||
             !ttt_shape_equal(both, weights.at[i]->shape)))
            ttt_fail(ctx, TTT_ERR_SHAPE, "descend: rate %d is %s, its weight %s", i,
                     ttt_shape_text(descent->rates[i]->shape, t0),
                     ttt_shape_text(weights.at[i]->shape, t1));
    return ttt_ok(ctx);
}

// A loss that no op made, and that is not among the n tensors, was computed with the tape off.
static bool ttt__on_tape(ttt_ctx *ctx, const char *who, ttt_tensor *loss, ttt_tensor *const *wrt,
                         int n) {
    bool found = !ttt__operands(ctx, who, &loss, 1) || loss->op;
    for (int i = 0; i < n && !found; i++) found = wrt[i] == loss;
    if (!found)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: the loss is not on the tape; was it computed while "
                 "ttt_set_recording was off?", who);
    return ttt_ok(ctx);
}

ttt_weights ttt_descend(ttt_ctx *ctx, const ttt_descent *descent, ttt_weights weights,
                        ttt_tensor *loss, ttt_descent_state *state) {
    if (!TTT__GIVEN("descend", descent) || !ttt__weights_living(ctx, "descend", weights))
        return ttt__no_weights();
    if (state && !(ttt__weights_living(ctx, "descend: the state", state->m) &&
                   ttt__weights_living(ctx, "descend: the state", state->v)))
        return ttt__no_weights();
    ttt_tensor **after = ttt__weights_room(ctx, weights.n, false),
               **now = ttt__weights_room(ctx, weights.n, false);
    ttt_tensor **g = ttt__weights_room(ctx, weights.n, false),
               **m = ttt__weights_room(ctx, weights.n, false),
               **v = ttt__weights_room(ctx, weights.n, false);
    int n = 0;
    for (int i = 0; i < weights.n && ttt_ok(ctx); i++)
        if (!descent->moves || descent->moves[i]) now[n++] = weights.at[i];
    if (!ttt__descent_good(ctx, descent, weights) ||
        !ttt__descent_state_good(ctx, descent, state, now, n) ||
        !ttt__on_tape(ctx, "descend", loss, now, n))
        return ttt__no_weights();
    bool recording = ctx->recording, taped = recording && !descent->untaped;
    ttt_grad(ctx, loss, now, n, g,
             taped && !descent->first_order ? TTT_GRAD_RECORD : TTT_GRAD_FIRST_ORDER);
    ttt_set_recording(ctx, taped);
    for (int i = 0, k = 0; i < weights.n && ttt_ok(ctx); i++) {
        after[i] = weights.at[i];
        if (descent->moves && !descent->moves[i]) continue;
        if (descent->first_order) g[k] = ttt_detach(ctx, g[k]);
        ttt_tensor *u = ttt__direction(ctx, descent, state, m, v, k, g[k]);
        u = descent->rates ? ttt_mul(ctx, u, descent->rates[i]) : ttt_scale(ctx, u, descent->rate);
        after[i] = ttt_sub(ctx, now[k++], u);
    }
    ttt_set_recording(ctx, recording);
    if (!ttt_ok(ctx)) return ttt__no_weights();
    if (descent->rule != TTT_DESCENT_PLAIN) {
        state->rule = descent->rule;
        state->m = ttt__weights(m, n);
        state->v = descent->rule == TTT_DESCENT_ADAM ? ttt__weights(v, n) : ttt__no_weights();
        state->steps++;
    }
    return ttt__weights(after, weights.n);
}

// ---- PLAIN LAYERS -------------------------------------------------------------------------------
// The letters and, in the same order, their sizes.
static ttt_sizes ttt__sizes(const char *letters, int64_t a, int64_t b, int64_t c, int64_t d) {
    const int64_t size[4] = { a, b, c, d };
    ttt_sizes sizes = { { 0 } };
    for (int i = 0; letters[i]; i++) sizes.of[letters[i] & 127] = size[i];
    return sizes;
}

#define TTT__ROWS(table) table, (int)(sizeof(table) / sizeof(table)[0])
#define TTT__FACTOR (TTT_PARAM_DECAYS | TTT_PARAM_FACTOR)

ttt_weights ttt_dense_new(ttt_ctx *ctx, int64_t in, int64_t out, ttt_init kernel,
                          ttt_params *params, const char *prefix) {
    ttt_param_row rows[] = {
        { "kernel", "I O", kernel, "I", "O", TTT_PARAM_DECAYS, 0 },
        { "bias", "O", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    };
    ttt_sizes sizes = ttt__sizes("IO", in, out, 0, 0);
    return ttt_params_add(ctx, TTT__ROWS(rows), 0, &sizes, params, prefix);
}
ttt_tensor *ttt_dense(ttt_ctx *ctx, ttt_weights weights, ttt_tensor *x) {
    bool good = ttt__weights_expected(ctx, "dense", weights, 2) && ttt__living(ctx, "dense", x, 0);
    return good ? ttt_affine(ctx, x, weights.at[0], weights.at[1]) : &ctx->empty;
}

ttt_weights ttt_layer_norm_new(ttt_ctx *ctx, int64_t D, ttt_params *params, const char *prefix) {
    static const ttt_param_row rows[] = {
        { "scale", "D", TTT_INIT_ONE, NULL, NULL, 0, 0 },
        { "bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    };
    ttt_sizes sizes = ttt__sizes("D", D, 0, 0, 0);
    return ttt_params_add(ctx, TTT__ROWS(rows), 0, &sizes, params, prefix);
}
static ttt_tensor *ttt__layer_norm_tape(ttt_ctx *ctx, ttt_tensor *scale, ttt_tensor *bias,
                                        ttt_tensor *x) {
    ttt_tensor *z = ttt_layer_normalize(ctx, x, (ttt_real)TTT_LAYER_NORM_EPS);
    return ttt_add(ctx, ttt_mul(ctx, z, scale), bias);
}
// As one op, see [8]; NULL if there is no such form.
#ifdef TTT_NO_FUSED
static ttt_tensor *ttt__normed_fused(ttt_ctx *ctx, ttt_tensor *const *w, int n, ttt_tensor *x) {
    (void)ctx, (void)w, (void)n, (void)x;
    return NULL;
}
#else
static ttt_tensor *ttt__normed_fused(ttt_ctx *ctx, ttt_tensor *const *w, int n, ttt_tensor *x);
#endif
// With scale and bias by themselves, which may have axes that are broadcast: a row for each head.
static ttt_tensor *ttt__layer_norm(ttt_ctx *ctx, ttt_tensor *scale, ttt_tensor *bias,
                                   ttt_tensor *x) {
    ttt_tensor *w[2] = { scale, bias }, *y = ttt__normed_fused(ctx, w, 2, x);
    return y ? y : ttt__layer_norm_tape(ctx, scale, bias, x);
}
static int64_t ttt__last(const ttt_tensor *tensor) {
    return tensor->shape.rank ? tensor->shape.dim[tensor->shape.rank - 1] : 1;
}
ttt_tensor *ttt_layer_norm(ttt_ctx *ctx, ttt_weights weights, ttt_tensor *x) {
    ttt_text t0, t1, t2;
    if (!ttt__weights_expected(ctx, "layer_norm", weights, 2) ||
        !ttt__operands(ctx, "layer_norm", weights.at, 2) ||
        !ttt__operands(ctx, "layer_norm", &x, 1))
        return &ctx->empty;
    int64_t D = ttt__last(x);
    if (ttt__last(weights.at[0]) != D || weights.at[0]->size != D ||
        ttt__last(weights.at[1]) != D || weights.at[1]->size != D)
        return ttt_fail(ctx, TTT_ERR_SHAPE, "layer_norm: scale %s and bias %s for rows of x %s",
                        ttt_shape_text(weights.at[0]->shape, t0),
                        ttt_shape_text(weights.at[1]->shape, t1), ttt_shape_text(x->shape, t2));
    return ttt__layer_norm(ctx, weights.at[0], weights.at[1], x);
}

ttt_weights ttt_mlp_new(ttt_ctx *ctx, int64_t D, int64_t hidden, ttt_params *params,
                        const char *prefix) {
    static const ttt_param_row rows[] = {
        { "Dense_0/kernel", "D M", TTT_INIT_XAVIER, "D", "M", TTT_PARAM_DECAYS, 0 },
        { "Dense_0/bias", "M", TTT_INIT_TINY, NULL, NULL, 0, 0 },
        { "Dense_1/kernel", "M D", TTT_INIT_XAVIER, "M", "D", TTT_PARAM_DECAYS, 0 },
        { "Dense_1/bias", "D", TTT_INIT_TINY, NULL, NULL, 0, 0 },
    };
    ttt_sizes sizes = ttt__sizes("DM", D, hidden, 0, 0);
    return ttt_params_add(ctx, TTT__ROWS(rows), 0, &sizes, params, prefix);
}
static ttt_tensor *ttt__mlp_tape(ttt_ctx *ctx, ttt_tensor *const *w, ttt_tensor *x) {
    return ttt_affine(ctx, ttt_gelu(ctx, ttt_affine(ctx, x, w[0], w[1])), w[2], w[3]);
}
ttt_tensor *ttt_mlp(ttt_ctx *ctx, ttt_weights weights, ttt_tensor *x) {
    bool good = ttt__weights_expected(ctx, "mlp", weights, 4) && ttt__living(ctx, "mlp", x, 0);
    return good ? ttt__mlp_tape(ctx, weights.at, x) : &ctx->empty;
}
static ttt_tensor *ttt__residual_mlp_tape(ttt_ctx *ctx, ttt_tensor *const *w, ttt_tensor *x) {
    return ttt_add(ctx, x, ttt__mlp_tape(ctx, w + 2, ttt__layer_norm_tape(ctx, w[0], w[1], x)));
}
ttt_tensor *ttt_residual_mlp(ttt_ctx *ctx, ttt_weights weights, ttt_tensor *x) {
    if (!ttt__weights_expected(ctx, "residual_mlp", weights, 6) ||
        !ttt__living(ctx, "residual_mlp", x, 0))
        return &ctx->empty;
    ttt_tensor *y = ttt__normed_fused(ctx, weights.at, 6, x);
    return y ? y : ttt__residual_mlp_tape(ctx, weights.at, x);
}

ttt_weights ttt_rms_norm_new(ttt_ctx *ctx, int64_t D, ttt_params *params, const char *prefix) {
    static const ttt_param_row rows[] = { { "scale", "D", TTT_INIT_ONE, NULL, NULL, 0, 0 } };
    ttt_sizes sizes = ttt__sizes("D", D, 0, 0, 0);
    return ttt_params_add(ctx, TTT__ROWS(rows), 0, &sizes, params, prefix);
}
static ttt_tensor *ttt__rms_norm(ttt_ctx *ctx, ttt_tensor *scale, double eps, ttt_tensor *x) {
    return ttt_mul(ctx, ttt_rms_normalize(ctx, x, (ttt_real)eps), scale);
}
ttt_tensor *ttt_rms_norm(ttt_ctx *ctx, ttt_weights weights, ttt_real eps, ttt_tensor *x) {
    ttt_text t0, t1;
    if (!ttt__weights_expected(ctx, "rms_norm", weights, 1) ||
        !ttt__operands(ctx, "rms_norm", weights.at, 1) || !ttt__operands(ctx, "rms_norm", &x, 1))
        return &ctx->empty;
    if (ttt__last(weights.at[0]) != ttt__last(x) || weights.at[0]->size != ttt__last(x))
        return ttt_fail(ctx, TTT_ERR_SHAPE, "rms_norm: scale %s for rows of x %s",
                        ttt_shape_text(weights.at[0]->shape, t0), ttt_shape_text(x->shape, t1));
    return ttt__rms_norm(ctx, weights.at[0], (double)eps, x);
}

ttt_weights ttt_swiglu_new(ttt_ctx *ctx, int64_t D, int64_t hidden, ttt_params *params,
                           const char *prefix) {
    static const ttt_param_row rows[] = {
        { "gate_proj/kernel", "D M", TTT_INIT_SMALL, "D", "M", TTT__FACTOR, 0 },
        { "up_proj/kernel", "D M", TTT_INIT_SMALL, "D", "M", TTT__FACTOR, 0 },
        { "down_proj/kernel", "M D", TTT_INIT_SMALL, "M", "D", TTT__FACTOR, 0 },
    };
    ttt_sizes sizes = ttt__sizes("DM", D, hidden, 0, 0);
    return ttt_params_add(ctx, TTT__ROWS(rows), 0, &sizes, params, prefix);
}
ttt_tensor *ttt_swiglu(ttt_ctx *ctx, ttt_weights weights, ttt_tensor *x) {
    if (!ttt__weights_expected(ctx, "swiglu", weights, 3) || !ttt__living(ctx, "swiglu", x, 0))
        return &ctx->empty;
    ttt_tensor *gate = ttt_silu(ctx, ttt_matmul(ctx, x, weights.at[0])),
               *up = ttt_matmul(ctx, x, weights.at[1]);
    return ttt_matmul(ctx, ttt_mul(ctx, gate, up), weights.at[2]);
}

ttt_weights ttt_patch_embed_new(ttt_ctx *ctx, int64_t patch, int64_t channels, int64_t D,
                                ttt_params *params, const char *prefix) {
    static const ttt_param_row rows[] = {
        { "kernel", "P P C D", TTT_INIT_LECUN, "P P C", "D", TTT_PARAM_DECAYS, 0 },
        { "bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    };
    ttt_sizes sizes = ttt__sizes("PCD", patch, channels, D, 0);
    return ttt_params_add(ctx, TTT__ROWS(rows), 0, &sizes, params, prefix);
}
ttt_tensor *ttt_patch_embed(ttt_ctx *ctx, ttt_weights weights, ttt_tensor *images) {
    static const int order[6] = { 0, 1, 3, 2, 4, 5 };  // (B,rows,P,cols,P,C) -> (B,rows,cols,P,P,C)
    if (!ttt__weights_expected(ctx, "patch_embed", weights, 2) ||
        !ttt__operands(ctx, "patch_embed", weights.at, 2) ||
        !ttt__operands(ctx, "patch_embed", &images, 1))
        return &ctx->empty;
    ttt_shape k = weights.at[0]->shape, s = images->shape;
    ttt_text text;
    if (k.rank != 4 || k.dim[0] != k.dim[1] || k.dim[0] < 1)
        return ttt_fail(ctx, TTT_ERR_SHAPE,
                        "patch_embed: a kernel of shape %s; (patch,patch,channels,D) expected",
                        ttt_shape_text(k, text));
    int64_t P = k.dim[0], C = k.dim[2], D = k.dim[3];
    if (s.rank != 4 || s.dim[3] != C || s.dim[1] % P || s.dim[2] % P)
        return ttt_fail(ctx, TTT_ERR_SHAPE,
                        "patch_embed: images of shape %s; (B,height,width,%lld) with sides "
                        "divisible by the patch, %lld, expected",
                        ttt_shape_text(s, text), (long long)C, (long long)P);
    int64_t B = s.dim[0], rows = s.dim[1] / P, cols = s.dim[2] / P;
    ttt_tensor *x =
        ttt_permute(ctx, ttt_reshape(ctx, images, TTT_SHAPE(B, rows, P, cols, P, C)), order);
    x = ttt_reshape(ctx, x, TTT_SHAPE(B, rows * cols, P * P * C));
    return ttt_affine(ctx, x, ttt_reshape(ctx, weights.at[0], TTT_SHAPE(P * P * C, D)),
                      weights.at[1]);
}

// The code of the places 0 .. n-1 along one axis, (n,2 quarter): sines, then cosines.
static ttt_tensor *ttt__sincos(ttt_ctx *ctx, int64_t n, int64_t quarter) {
    ttt_tensor *tensor = ttt_new(ctx, TTT_SHAPE(n, 2 * quarter));
    for (int64_t j = 0; ttt_ok(ctx) && j < quarter; j++) {
        double omega = quarter > 1 ? pow(10000, -(double)j / (double)(quarter - 1)) : 1;
        for (int64_t i = 0; i < n; i++) {
            tensor->data[i * 2 * quarter + j] = (ttt_real)sin((double)i * omega);
            tensor->data[i * 2 * quarter + quarter + j] = (ttt_real)cos((double)i * omega);
        }
    }
    return tensor;
}
ttt_tensor *ttt_sincos2d(ttt_ctx *ctx, int64_t rows, int64_t cols, int64_t D) {
    int64_t half = D / 2;
    if (ttt_ok(ctx) && (D % 4 != 0 || D < 4 || rows < 1 || cols < 1))
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "sincos2d: a grid of %lld rows and %lld columns, width %lld; sizes above 0, and a "
                 "width that is a multiple of 4 expected",
                 (long long)rows, (long long)cols, (long long)D);
    if (!ttt__shape_good(ctx, "sincos2d", TTT_SHAPE(rows, cols, D), TTT_DTYPE_REAL))
        return &ctx->empty;
    ttt_tensor *tensor = ttt_new(ctx, TTT_SHAPE(1, rows * cols, D)),
               *x = ttt__sincos(ctx, cols, half / 2), *y = ttt__sincos(ctx, rows, half / 2);
    for (int64_t i = 0; ttt_ok(ctx) && i < rows * cols; i++) {
        memcpy(tensor->data + i * D, x->data + i % cols * half,
               (size_t)half * sizeof *tensor->data);
        memcpy(tensor->data + i * D + half, y->data + i / cols * half,
               (size_t)half * sizeof *tensor->data);
    }
    return tensor;
}

// max(x, 0) + e^min(x, 0). min(x, 0) is x - max(x, 0), so that at 0 one of the two has slope 1,
// and not both 0.
static ttt_tensor *ttt__elu1(ttt_ctx *ctx, ttt_tensor *x) {
    ttt_tensor *above = ttt_relu(ctx, x);
    return ttt_add(ctx, above, ttt_exp(ctx, ttt_sub(ctx, x, above)));
}

ttt_tensor *ttt_split_heads(ttt_ctx *ctx, ttt_tensor *x, int64_t H) {
    static const int order[4] = { 0, 2, 1, 3 };
    ttt_text text;
    if (!ttt__operands(ctx, "split_heads", &x, 1)) return &ctx->empty;
    const int64_t *s = x->shape.dim;
    if (x->shape.rank != 3 || H < 1 || s[2] % H)
        return ttt_fail(ctx, TTT_ERR_SHAPE,
                        "split_heads: %s into %lld heads; (B,N,D) and a divisor of D expected",
                        ttt_shape_text(x->shape, text), (long long)H);
    return ttt_permute(ctx, ttt_reshape(ctx, x, TTT_SHAPE(s[0], s[1], H, s[2] / H)), order);
}
ttt_tensor *ttt_join_heads(ttt_ctx *ctx, ttt_tensor *x) {
    static const int order[4] = { 0, 2, 1, 3 };
    ttt_text text;
    if (!ttt__operands(ctx, "join_heads", &x, 1)) return &ctx->empty;
    const int64_t *s = x->shape.dim;
    if (x->shape.rank != 4)
        return ttt_fail(ctx, TTT_ERR_SHAPE, "join_heads: %s; (B,H,N,h) expected",
                        ttt_shape_text(x->shape, text));
    int64_t D = ttt_shape_size(TTT_SHAPE(s[1], s[3]));
    return ttt_reshape(ctx, ttt_permute(ctx, x, order), TTT_SHAPE(s[0], s[2], D));
}

// ---- LEARNERS -----------------------------------------------------------------------------------
static ttt_tensor *ttt__affine_maybe(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *w, ttt_tensor *b) {
    return b ? ttt_affine(ctx, x, w, b) : ttt_matmul(ctx, x, w);
}

static ttt_tensor *ttt__linear_features(ttt_ctx *ctx, const void *desc, ttt_weights weights,
                                        ttt_tensor *x) {
    (void)ctx, (void)desc, (void)weights;
    return x;
}
static ttt_tensor *ttt__linear_predict(ttt_ctx *ctx, const void *desc, ttt_weights weights,
                                       ttt_tensor *x) {
    (void)desc;
    return ttt__affine_maybe(ctx, x, weights.at[0], weights.n > 1 ? weights.at[1] : NULL);
}
enum { TTT__INNER_KERNEL = TTT_PARAM_DECAYS | TTT_PARAM_INNER };
static const ttt_param_row ttt__linear_rows[] = {
    { "inner_Dense_0/kernel", "H h h", TTT_INIT_XAVIER, "h", "h", TTT__INNER_KERNEL, 0 },
    { "inner_Dense_0/bias", "H h", TTT_INIT_ZERO, NULL, NULL, TTT_PARAM_INNER, TTT_LEARNER_BIAS },
};
TTT__CONSTANT ttt_learner ttt_learner_linear = {
    "linear", TTT__ROWS(ttt__linear_rows), ttt__linear_predict, 1, ttt__linear_features, NULL,
    false,
};

// Two kernels, or four weights with the biases.
static ttt_tensor *ttt__mlp_features(ttt_ctx *ctx, const void *desc, ttt_weights weights,
                                     ttt_tensor *x) {
    (void)desc;
    return ttt_gelu(
        ctx, ttt__affine_maybe(ctx, x, weights.at[0], weights.n == 4 ? weights.at[1] : NULL));
}
static ttt_tensor *ttt__mlp_predict(ttt_ctx *ctx, const void *desc, ttt_weights weights,
                                    ttt_tensor *x) {
    return ttt__affine_maybe(ctx, ttt__mlp_features(ctx, desc, weights, x),
                             weights.at[weights.n / 2], weights.n == 4 ? weights.at[3] : NULL);
}
static const ttt_param_row ttt__mlp_rows[] = {
    { "inner_Dense_0/kernel", "H h 4h", TTT_INIT_XAVIER, "h", "4h", TTT__INNER_KERNEL, 0 },
    { "inner_Dense_0/bias", "H 4h", TTT_INIT_ZERO, NULL, NULL, TTT_PARAM_INNER, TTT_LEARNER_BIAS },
    { "inner_Dense_1/kernel", "H 4h h", TTT_INIT_XAVIER, "4h", "h", TTT__INNER_KERNEL, 0 },
    { "inner_Dense_1/bias", "H h", TTT_INIT_ZERO, NULL, NULL, TTT_PARAM_INNER, TTT_LEARNER_BIAS },
};
TTT__CONSTANT ttt_learner ttt_learner_mlp = {
    "mlp", TTT__ROWS(ttt__mlp_rows), ttt__mlp_predict, 8, ttt__mlp_features, NULL, false,
};

// How many dense layers, with GELU between, a learner consists of; 0: it is another kind of model,
// and has no fused form.
static int ttt__dense_layers(const ttt_learner *learner) {
    if (learner->rows == ttt__linear_rows && learner->predict == ttt__linear_predict) return 1;
    if (learner->rows == ttt__mlp_rows && learner->predict == ttt__mlp_predict) return 2;
    return 0;
}

static double ttt__max_abs(const ttt_tensor *tensor) {
    double most = 0;
    for (int64_t i = 0; i < tensor->size; i++)
        most = fabs((double)tensor->data[i]) > most ? fabs((double)tensor->data[i]) : most;
    return most;
}
// Whether the last of a learner's n weights is a bias.
static bool ttt__ends_in_bias(const ttt_learner *learner, int n) {
    int last = learner->n_rows - 1;
    while (n < learner->n_rows && last > 0 && learner->rows[last].only_if) last--;
    const char *second = last < 0 ? NULL : strchr(learner->rows[last].shape, ' ');
    return second && !strchr(second + 1, ' ');
}
// What the last layer reads where the learner predicts e for x, (B,H,n,m). A program may have
// written it: checks that e is made from it.
static ttt_tensor *ttt__features_for(ttt_ctx *ctx, const ttt_learner *learner, ttt_weights weights,
                                     ttt_tensor *x, ttt_tensor *e) {
    ttt_tensor *f = learner->features(ctx, learner->desc, weights, x);
    bool biased = ttt__ends_in_bias(learner, weights.n);
    int at = weights.n - 1 - biased;
    if (!ttt_ok(ctx)) return f;
    const ttt_tensor *kernel = at < 0 ? NULL : weights.at[at];
    ttt_shape shape = x->shape;
    if (kernel) shape.dim[3] = kernel->shape.dim[2];
    ttt_text its, expected;
    if (!kernel || !ttt_shape_equal(f->shape, shape))
        return ttt_fail(ctx, TTT_ERR_SHAPE,
                        "unmask: the features of learner %s have shape %s; %s, which its last "
                        "kernel reads, expected",
                        learner->name, ttt_shape_text(f->shape, its),
                        ttt_shape_text(shape, expected));
    ttt_tensor *p = ttt__affine_maybe(ctx, f, weights.at[at], biased ? weights.at[at + 1] : NULL);
    double off = ttt_ok(ctx) ? ttt_max_abs_diff(p, e) : 0, size = ttt__max_abs(e);
    if (off > 1e-3 * size)
        return ttt_fail(ctx, TTT_ERR_ARGUMENT,
                        "unmask: the features of learner %s times its last kernel are off its "
                        "predictions by %g of %g; equal ones expected", learner->name, off, size);
    return f;
}

// ---- INNER LOOP ---------------------------------------------------------------------------------
// A weight of every head becomes one of every sequence and head: (H,a,b) -> (B,H,a,b). It must be
// a tensor of its own before the first step, so that the gradient in it is each sequence's own and
// not the sum over the batch.
static ttt_tensor *ttt__lift_weight(ttt_ctx *ctx, ttt_tensor *w0, int64_t B) {
    ttt_shape shape = w0->shape;
    if (shape.rank == 2) w0 = ttt_reshape(ctx, w0, TTT_SHAPE(shape.dim[0], 1, shape.dim[1]));
    shape = w0->shape;
    return ttt_broadcast(ctx, w0, TTT_SHAPE(B, shape.dim[0], shape.dim[1], shape.dim[2]));
}

// Part t of T of the tokens of x (B,.,N,d) in the order of each head; x itself if there is none.
static ttt_tensor *ttt__part(ttt_ctx *ctx, const ttt_inner *in, ttt_tensor *x, int t) {
    if (!in->order || !ttt_ok(ctx)) return x;
    int64_t H = in->order->shape.dim[0], L = in->order->shape.dim[1], n = L / in->steps;
    int64_t *index = (int64_t *)ttt_alloc(ctx, (uint64_t)(H * n) * sizeof *index, false);
    for (int64_t h = 0; index && h < H; h++)
        memcpy(index + h * n, in->order->index + h * L + t * n, (size_t)n * sizeof *index);
    return ttt_index_select(ctx, x, ttt_from_int(ctx, TTT_SHAPE(H, index ? n : 0), index));
}

static ttt_tensor *ttt__inner_loss(ttt_ctx *ctx, const ttt_inner *in, ttt_weights weights,
                                   ttt_tensor *train, ttt_tensor *label) {
    return in->loss(ctx, in->loss_arg, in->learner->predict(ctx, in->learner->desc, weights, train),
                    label);
}
// What a step writes into a last layer that is linear: the features of its tokens, and -eta times
// the gradient of the loss in their predictions.
static void ttt__inner_pairs(ttt_ctx *ctx, const ttt_inner *in, ttt_weights weights, int t,
                             ttt_tensor *rate, ttt_tensor **key, ttt_tensor **value) {
    ttt_tensor *train = ttt__part(ctx, in, in->train, t),
               *e = in->learner->predict(ctx, in->learner->desc, weights, train), *g;
    ttt_grad(ctx, in->loss(ctx, in->loss_arg, e, ttt__part(ctx, in, in->label, t)), &e, 1, &g,
             TTT_GRAD_FIRST_ORDER);
    g = ttt_detach(ctx, g);
    *key = ttt__features_for(ctx, in->learner, weights, train, e);
    *value = ttt_scale(ctx, rate ? ttt_mul(ctx, g, rate) : ttt_scale(ctx, g, in->rates[t]), -1);
}

// order: integers (H,L) for the mini-batches, or NULL.
static bool ttt__inner_good(ttt_ctx *ctx, int steps, bool has_rates, const ttt_tensor *order,
                            int64_t H) {
    if (!ttt_ok(ctx)) return false;
    int64_t L = order && order->index && order->shape.rank == 2 ? order->shape.dim[1] : -1;
    if (!has_rates)
        ttt_fail(ctx, TTT_ERR_UNSET,
                 "inner loop: its rates (inner_lr) have no default and were not set");
    else if (steps < 1)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "inner loop: %d steps; at least 1 expected", steps);
    else if (order && (L < 0 || order->shape.dim[0] != H))
        ttt_fail(ctx, TTT_ERR_SHAPE,
                 "inner loop: the order of tokens must be integers of shape (%lld,L)",
                 (long long)H);
    else if (order && (L % steps || L == 0))
        ttt_fail(ctx, TTT_ERR_SHAPE,
                 "inner loop: %lld tokens cannot be cut into %d equal mini-batches (inner_steps "
                 "with inner_sgd)",
                 (long long)L, steps);
    return ttt_ok(ctx);
}

// Whether the tensors that a description names are there. Only the first must be given.
static bool ttt__inner_tensors_good(ttt_ctx *ctx, const ttt_inner *in, ttt_weights w0) {
    if (!TTT__GIVEN("inner_loop", in) || !TTT__GIVEN("inner_loop", in->learner) ||
        !TTT__GIVEN("inner_loop", in->loss))
        return false;
    static const char *const names[4] = { "train", "label", "learned_rates", "order" };
    const ttt_tensor *const tensors[4] = { in->train, in->label, in->learned_rates, in->order };
    for (int i = 0; i < 4 && ttt_ok(ctx); i++)
        if ((i == 0 || tensors[i]) && !ttt__alive(ctx, tensors[i]))
            ttt__not_living(ctx, "inner_loop", tensors[i], names[i]);
    return ttt_ok(ctx) && ttt__weights_living(ctx, "inner_loop", w0);
}

// The weights before the first step: of each sequence and head, unless they are one set.
static ttt_weights ttt__inner_start(ttt_ctx *ctx, const ttt_inner *in, ttt_weights w0) {
    if (in->learner->one_set) return w0;
    ttt_tensor **w = ttt__weights_room(ctx, w0.n, false);
    for (int i = 0; w && i < w0.n && ttt__operands(ctx, in->learner->name, &w0.at[i], 1); i++)
        w[i] = ttt__lift_weight(ctx, w0.at[i], in->train->shape.dim[0]);
    return ttt__weights(w, w0.n);
}

// Step t, and in `rate` the learned one, of all weights; NULL if it is a constant.
static ttt_weights ttt__inner_step(ttt_ctx *ctx, const ttt_inner *in, int t, bool record,
                                   ttt_weights weights, ttt_tensor *loss, ttt_tensor *rate) {
    ttt_descent d;
    memset(&d, 0, sizeof d);
    d.rate = rate ? 0 : in->rates[t];
    ttt_tensor **same = rate ? ttt__weights_room(ctx, weights.n, false) : NULL;
    for (int i = 0; same && i < weights.n; i++) same[i] = rate;
    d.rates = same;
    d.first_order = in->first_order;
    d.untaped = !record;
    return ttt_descend(ctx, &d, weights, loss, NULL);
}

// The T + 1 losses as one tensor: means over the sequences.
static ttt_tensor *ttt__inner_losses(ttt_ctx *ctx, const ttt_inner *in, ttt_tensor **loss) {
    for (int t = 0; t <= in->steps; t++) loss[t] = ttt_reshape(ctx, loss[t], TTT_SHAPE(1));
    return ttt_scale(ctx, ttt_concat(ctx, loss, in->steps + 1, 0),
                     1 / (ttt_real)in->train->shape.dim[0]);
}

ttt_weights ttt_inner_loop(ttt_ctx *ctx, const ttt_inner *in, ttt_weights w0, ttt_tensor **losses) {
    if (!ttt__inner_tensors_good(ctx, in, w0) ||
        !ttt__inner_good(ctx, in->steps, in->rates || in->learned_rates, in->order,
                         in->train->shape.dim[1]))
        return ttt__no_weights();
    int T = in->steps;
    size_t size = ((size_t)T + 1) * sizeof(ttt_tensor *);
    ttt_tensor **loss = (ttt_tensor **)ttt_alloc(ctx, size, false);
    ttt_tensor **key = (ttt_tensor **)ttt_alloc(ctx, in->unmask ? size : 0, false);
    ttt_tensor **value = (ttt_tensor **)ttt_alloc(ctx, in->unmask ? size : 0, false);
    bool record = ttt_set_recording(ctx, true);  // the inner gradient needs the tape in any case
    ttt_weights weights = ttt__inner_start(ctx, in, w0);
    for (int t = 0; t < T && ttt_ok(ctx); t++) {
        ttt_tensor *rate = in->learned_rates ? ttt_slice(ctx, in->learned_rates, 0, t, 1) : NULL;
        if (in->unmask) ttt__inner_pairs(ctx, in, weights, t, rate, &key[t], &value[t]);
        loss[t] = ttt__inner_loss(ctx, in, weights, ttt__part(ctx, in, in->train, t),
                                  ttt__part(ctx, in, in->label, t));
        weights = ttt__inner_step(ctx, in, t, record, weights, loss[t], rate);
    }
    ttt_set_recording(ctx, record);
    if (!ttt_ok(ctx)) return ttt__no_weights();
    if (in->unmask) {
        in->unmask->key = ttt_concat(ctx, key, T, 2);
        in->unmask->value = ttt_concat(ctx, value, T, 2);
    }
    if (losses) {
        loss[T] = ttt__inner_loss(ctx, in, weights, in->train, in->label);
        *losses = ttt__inner_losses(ctx, in, loss);
    }
    return ttt_ok(ctx) ? weights : ttt__no_weights();
}

// ---- MIXERS -------------------------------------------------------------------------------------
// Each is a formula, a table of parameters, functions, and the row that holds them together.
enum {  // bits for only_if, beside TTT_LEARNER_BIAS: see ttt__mixer_bits
    TTT__DECODER_NORM = 2,
    TTT__LEARNED_RATES = 4,
    TTT__GLOBALS = 8,
    TTT__SHORT_CONV = 16,
    TTT__CAUSAL = 32,
    TTT__TOKEN_INDEX = 64,
    TTT__OWN_KEYS = 128,
    TTT__SHARED_QK = 256,
    TTT__OUTPUT_GATE = 512
};
#define TTT__AS_ROW(id, name, shape, init, fan_in, fan_out, flags, only_if)                        \
    { name, shape, init, fan_in, fan_out, flags, only_if },

// -- streams: what a layer remembers of the tokens it has read
// A forward function serves streams too. It finds desc->stream, and the few helpers in which tokens
// see other tokens take what is kept of the earlier ones from there: ttt__short_conv, ttt__answers,
// ttt__attention_of. All else is row by row.
//     A call first computes, then writes. What lies behind the tokens that `read` counts may be
// overwritten at once, since nobody reads it; for all else a helper puts down what is to be
// written, and the end of the call, where nothing can fail, writes it.
typedef struct ttt__stream_put {
    struct ttt__stream_put *next;
    ttt_real *to;
    const ttt_real *from;
    int64_t n;
} ttt__stream_put;
// A layer's part of a stream, during a call that reads `n` rows in each lane.
typedef struct ttt__stream_part {
    ttt_stream *stream;
    const char *prefix;     // of the names of its state; NULL: none
    const int64_t *counts;  // NULL: n each
    int64_t n;
} ttt__stream_part;
static int64_t ttt__lane_read(const ttt__stream_part *part, int64_t lane) {
    return part->stream->read->index[lane];
}
static int64_t ttt__lane_new(const ttt__stream_part *part, int64_t lane) {
    return part->counts ? part->counts[lane] : part->n;
}
// The state of this name; NULL if there is none.
static ttt_tensor *ttt__stream_find(const ttt_stream *stream, const char *prefix,
                                    const char *name) {
    for (int i = 0; i < stream->state.n; i++)
        if (ttt__is_path(stream->state.item[i].name, prefix, name)) return stream->state.value[i];
    return NULL;
}
static bool ttt__stream_begun(const ttt_stream *stream) {
    int64_t b = 0;
    while (b < stream->lanes && stream->read->index[b] == 0) b++;
    return b < stream->lanes;
}
// The same: zeros, if it is new, which with tokens read only a part of a list may be, that `grows`.
// NULL after an error.
static ttt_tensor *ttt__stream_state(ttt_ctx *ctx, const ttt__stream_part *part, const char *name,
                                     ttt_shape shape, bool grows) {
    ttt_params *state = &part->stream->state;
    ttt_tensor *found = ttt__stream_find(part->stream, part->prefix, name);
    ttt_text text[2];
    if (found && !ttt_shape_equal(found->shape, shape))
        ttt_fail(ctx, TTT_ERR_SHAPE,
                 "stream: its state %s%s%s has shape %s; %s expected, so it is of another layer",
                 part->prefix ? part->prefix : "", part->prefix ? "/" : "", name,
                 ttt_shape_text(found->shape, text[0]), ttt_shape_text(shape, text[1]));
    if (!found && !grows && ttt__stream_begun(part->stream))
        ttt_fail(ctx, TTT_ERR_SHAPE, "stream: it has no state %s%s%s, so it is of another layer",
                 part->prefix ? part->prefix : "", part->prefix ? "/" : "", name);
    if (found || !ttt_ok(ctx)) return ttt_ok(ctx) ? found : NULL;
    if (!ttt__params_room(ctx, state, 1)) return NULL;
    const char *path = ttt__path(ctx, part->prefix, "%s", name);
    ttt_tensor *made = ttt_zeros_kept(ctx, shape);
    if (!path || !ttt_ok(ctx)) return NULL;
    state->item[state->n].name = path;
    state->item[state->n].flags = 0;
    state->value[state->n++] = made;
    return made;
}
// When the call ends, n numbers go from a tensor of this call to the state.
static void ttt__stream_write(ttt_ctx *ctx, const ttt__stream_part *part, ttt_real *to,
                              const ttt_real *from, int64_t n) {
    ttt__stream_put *put = (ttt__stream_put *)ttt_alloc(ctx, sizeof *put, false);
    if (!put) return;
    put->next = part->stream->pending;
    put->to = to;
    put->from = from;
    put->n = n;
    part->stream->pending = put;
}
// The first call of a stream says how many lanes it has.
static bool ttt__stream_begin(ttt_ctx *ctx, const char *who, ttt_stream *stream, int64_t B) {
    stream->pending = NULL;
    stream->n_before = stream->lanes ? stream->state.n : -1;
    if (stream->lanes && stream->lanes != B)
        ttt_fail(ctx, TTT_ERR_SHAPE, "%s: %lld sequences; the stream has %lld lanes", who,
                 (long long)B, (long long)stream->lanes);
    if (!stream->lanes && ttt_ok(ctx)) {
        stream->read = ttt_new_typed(ctx, TTT_SHAPE(B), TTT_DTYPE_INT, true);
        if (!ttt_ok(ctx)) return false;
        memset(stream->read->index, 0, (size_t)B * sizeof *stream->read->index);
        stream->lanes = B;
    }
    return ttt_ok(ctx);
}
static bool ttt__counts_good(ttt_ctx *ctx, const char *who, int64_t B, int64_t n,
                             const int64_t *counts) {
    for (int64_t b = 0; counts && b < B && ttt_ok(ctx); b++)
        if (counts[b] < 0 || counts[b] > n)
            ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: lane %lld has %lld new tokens; 0 to %lld expected",
                     who, (long long)b, (long long)counts[b], (long long)n);
    return ttt_ok(ctx);
}
// Unless there was an error, the state is written, and the lanes have read their new tokens. After
// one, the stream has what it had.
static void ttt__stream_end(ttt_ctx *ctx, const ttt__stream_part *part) {
    ttt_stream *stream = part->stream;
    for (ttt__stream_put *put = stream->pending; put && ttt_ok(ctx); put = put->next)
        memcpy(put->to, put->from, (size_t)put->n * sizeof *put->to);
    for (int64_t b = 0; b < stream->lanes && ttt_ok(ctx); b++)
        stream->read->index[b] = ttt__lane_read(part, b) + ttt__lane_new(part, b);
    if (!ttt_ok(ctx)) stream->state.n = TTT__MAX(0, stream->n_before);
    if (!ttt_ok(ctx) && stream->n_before < 0) stream->lanes = 0;
    stream->pending = NULL;
}
// Zeros for the rows of y (B,n,...) beyond each lane's.
static ttt_tensor *ttt__only_new(const ttt__stream_part *part, ttt_tensor *y) {
    int64_t row = part->n > 0 ? y->size / (part->stream->lanes * part->n) : 0;
    for (int64_t b = 0; b < part->stream->lanes; b++) {
        int64_t count = ttt__lane_new(part, b);
        memset(y->data + (b * part->n + count) * row, 0,
               (size_t)((part->n - count) * row) * sizeof *y->data);
    }
    return y;
}

// A causal depthwise convolution of x (B,n,C) with kernel (taps,C). In a stream it goes on behind
// the last taps - 1 rows of each lane, which are kept under this name: they change the first rows.
static ttt_tensor *ttt__short_conv(ttt_ctx *ctx, ttt__stream_part *part, const char *name,
                                   ttt_tensor *x, ttt_tensor *kernel) {
    if (!ttt_ok(ctx)) return &ctx->empty;
    ttt_tensor *y = ttt_depthwise_conv1d(ctx, x, kernel);
    if (!part || kernel->shape.dim[0] == 1) return y;
    int64_t B = x->shape.dim[0], n = x->shape.dim[1], C = x->shape.dim[2];
    int64_t before = kernel->shape.dim[0] - 1, first = TTT__MIN(before, n);
    ttt_tensor *kept = ttt__stream_state(ctx, part, name, TTT_SHAPE(B, before, C), false);
    if (!kept) return &ctx->empty;
    ttt_tensor *both[2] = { kept, ttt_slice(ctx, x, 1, 0, first) };
    ttt_tensor *begin = ttt_concat(ctx, both, 2, 1);
    ttt_tensor *changed = ttt_depthwise_conv1d(ctx, begin, kernel);
    for (int64_t b = 0; b < B && ttt_ok(ctx); b++) {
        int64_t count = ttt__lane_new(part, b), size = before + first;
        memcpy(y->data + b * n * C, changed->data + (b * size + before) * C,
               (size_t)(first * C) * sizeof *y->data);
        ttt__stream_write(ctx, part, kept->data + b * before * C,
                          count > first ? x->data + (b * n + count - before) * C
                                        : begin->data + (b * size + count) * C,
                          before * C);
    }
    return y;
}

// Whether two streams have the same tensors, as far as both have any: lists grow.
static bool ttt__streams_alike(const ttt_stream *a, const ttt_stream *b) {
    if (a->lanes != b->lanes) return false;
    for (int i = 0; i < TTT__MIN(a->state.n, b->state.n); i++)
        if (strcmp(a->state.item[i].name, b->state.item[i].name) != 0 ||
            !ttt_shape_equal(a->state.value[i]->shape, b->state.value[i]->shape))
            return false;
    return true;
}
ttt_result ttt_stream_copy(ttt_ctx *ctx, ttt_stream *into, const ttt_stream *from) {
    if (!TTT__GIVEN("stream_copy", into) || !TTT__GIVEN("stream_copy", from) || into == from)
        return ttt_status(ctx);
    ttt_stream copy = *into;
    if (!ttt__streams_alike(into, from)) {
        memset(&copy, 0, sizeof copy);
        copy.lanes = from->lanes;
        if (from->lanes) copy.read = ttt__copy(ctx, from->read, true);
    }
    ttt__params_room(ctx, &copy.state, TTT__MAX(0, from->state.n - copy.state.n));
    for (int i = copy.state.n; i < from->state.n && ttt_ok(ctx); i++) {
        copy.state.item[i] = from->state.item[i];
        copy.state.value[i] = ttt_zeros_kept(ctx, from->state.value[i]->shape);
        copy.state.n = i + 1;
    }
    if (!ttt_ok(ctx)) return ttt_status(ctx);
    for (int64_t b = 0; b < from->lanes; b++) copy.read->index[b] = from->read->index[b];
    for (int i = 0; i < copy.state.n; i++) {  // what `from` does not have yet, it would find zero
        ttt_tensor *to = copy.state.value[i];
        size_t bytes = (size_t)to->size * sizeof *to->data;
        if (i < from->state.n) memcpy(to->data, from->state.value[i]->data, bytes);
        else memset(to->data, 0, bytes);
    }
    *into = copy;
    return ttt_status(ctx);
}
void ttt_stream_restart(ttt_stream *stream, int64_t lane) {
    for (int64_t b = 0; stream && b < stream->lanes; b++) {
        if (lane >= 0 && lane != b) continue;
        stream->read->index[b] = 0;
        for (int i = 0; i < stream->state.n; i++) {
            ttt_tensor *state = stream->state.value[i];
            int64_t part = state->size / stream->lanes;
            memset(state->data + b * part, 0, (size_t)part * sizeof *state->data);
        }
    }
}

// Forms of one op, see [9].
#ifdef TTT_NO_FUSED
#define TTT__FUSED(form) NULL
#else
#define TTT__FUSED(form) form
static ttt_mixer_fn ttt__mttt_as_op, ttt__linear_attention_as_op;
#endif
// A memory that is written token by token or chunk by chunk: from queries (B,N,H,h) and what else
// it reads, tokens as (B,N,H,width), to its answers (B,N,H,h).
typedef ttt_tensor *ttt__memory_fn(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *in,
                                   int64_t chunk);
#ifndef TTT_NO_FUSED
static ttt__memory_fn ttt__scan_as_op, ttt__causal_linear_as_op, ttt__means_as_op, ttt__lact_as_op,
    ttt__vittt_as_op, ttt__memory_as_op;
#endif
// As one op if there is such a form, it has these options (else it gives NULL), and nobody wants
// the tape; op by op if not.
static ttt_tensor *ttt__answers(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt__memory_fn *as_op,
                                ttt__memory_fn *tape, ttt_tensor *const *in, int64_t chunk) {
    bool whole = as_op && !desc->no_fused && !desc->unmask;
    ttt_tensor *y = whole ? as_op(ctx, desc, in, chunk) : NULL;
    if (!y && desc->stream)
        return ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: no stream reads it with these options",
                        desc->mixer->name);
    return y ? y : tape(ctx, desc, in, chunk);
}

// -- MTTT: a learner that reconstructs the sequence from a view of itself.  [arXiv 2310.13807, §3]
// Heads do not split the features: each sees the whole token x (D) and maps it down to h.
//   train view  k = x phi + b_phi              test view  q = x psi + b_psi
//   reconstruction  r = LN( f_W(k) g + b_g )   loss  l = H / (2 |S| D) sum over S of |r - x|^2
//   output  y = sum over heads of f_W(q) h + b_h,  W after the inner loop
// x is input and target at once, and the outer gradient flows into both.
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
static const ttt_param_row ttt__mttt_rows[] = { TTT__MTTT_ROWS(TTT__AS_ROW) };

// (H,a) -> (H,1,a): a row for each head, as affine wants its bias
static ttt_tensor *ttt__head_row(ttt_ctx *ctx, ttt_tensor *b) {
    return ttt_reshape(ctx, b, TTT_SHAPE(b->shape.dim[0], 1, b->shape.dim[1]));
}

// l summed over sequences and heads; e (B,H,n,h), x (B,1 or H,n,D)
static ttt_tensor *ttt__mttt_loss(ttt_ctx *ctx, const void *arg, ttt_tensor *e, ttt_tensor *x) {
    ttt_tensor *const *w = (ttt_tensor *const *)arg;
    ttt_tensor *r = ttt_affine(ctx, e, w[TTT__MTTT_G_KERNEL], w[TTT__MTTT_G_BIAS]);
    if (!ttt_ok(ctx)) return r;
    if (w[TTT__MTTT_LN_SCALE])
        r = ttt__layer_norm(ctx, ttt__head_row(ctx, w[TTT__MTTT_LN_SCALE]),
                            ttt__head_row(ctx, w[TTT__MTTT_LN_BIAS]), r);
    int64_t H = e->shape.dim[1], n = e->shape.dim[2], D = x->shape.dim[3];
    return ttt_scale(ctx, ttt_sum(ctx, ttt_square(ctx, ttt_sub(ctx, r, x))),
                     (ttt_real)H / (ttt_real)(2 * n * D));
}

// Of n tensors, one a row, those that are there.
static ttt_weights ttt__present(ttt_ctx *ctx, ttt_tensor *const *w, int n) {
    ttt_tensor **at = ttt__weights_room(ctx, n, false);
    int present = 0;
    for (int i = 0; at && i < n; i++)
        if (w[i]) at[present++] = w[i];
    return ttt__weights(at, present);
}

// A random order of N tokens for each of H heads, the same for all sequences of the batch.
static ttt_tensor *ttt__draw_order(ttt_ctx *ctx, int64_t H, int64_t N) {
    int64_t *index = (int64_t *)ttt_alloc(ctx, (uint64_t)(H * N) * sizeof *index, false);
    for (int64_t h = 0; index && h < H; h++)
        for (int64_t i = 0; i < N; i++) {  // Fisher and Yates, inside out
            int64_t j = ttt_rng_below(ttt_ctx_rng(ctx), i + 1);
            index[h * N + i] = index[h * N + j];
            index[h * N + j] = i;
        }
    return ttt_from_int(ctx, TTT_SHAPE(H, index ? N : 0), index);
}

// T, and the rates eta_t of the steps, in the step arena.
static int ttt__steps(const ttt_mixer_desc *desc) {
    return desc->inner_steps ? desc->inner_steps : 1;
}
static ttt_real *ttt__rates(ttt_ctx *ctx, const ttt_mixer_desc *desc) {
    int T = ttt__steps(desc);
    ttt_real *rates = (ttt_real *)ttt_alloc(ctx, (uint64_t)T * sizeof *rates, false);
    for (int t = 0; rates && t < T; t++)
        rates[t] = desc->inner_lrs ? desc->inner_lrs[t] : desc->inner_lr;
    return rates;
}

static void ttt__mttt_unmask(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                             ttt_tensor *query, ttt_tensor *read);
static ttt_tensor *ttt__mttt_tape(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                                  ttt_tensor *x, ttt_tensor **losses) {
    int64_t B = x->shape.dim[0], N = x->shape.dim[1], D = desc->dim;
    ttt_tensor *tokens = ttt_reshape(ctx, x, TTT_SHAPE(B, 1, N, D));
    ttt_inner in;
    memset(&in, 0, sizeof in);
    in.learner = desc->mixer->learner;
    in.train =
        ttt_affine(ctx, tokens, w[TTT__MTTT_PHI_KERNEL], ttt__head_row(ctx, w[TTT__MTTT_PHI_BIAS]));
    in.label = tokens;
    in.loss = ttt__mttt_loss;
    in.loss_arg = w;
    in.steps = ttt__steps(desc);
    in.rates = ttt__rates(ctx, desc);
    in.learned_rates = w[TTT__MTTT_RATES];
    in.first_order = desc->first_order;
    if (desc->inner_sgd)
        in.order = desc->order ? desc->order : ttt__draw_order(ctx, desc->heads, N);
    in.unmask = desc->unmask && in.learner->features ? desc->unmask : NULL;
    ttt_weights after =
        ttt_inner_loop(ctx, &in, ttt__present(ctx, w + TTT__MTTT_W0, in.learner->n_rows), losses);
    if (!ttt_ok(ctx)) return ttt_detach(ctx, x);

    ttt_tensor *test =
        ttt_affine(ctx, tokens, w[TTT__MTTT_PSI_KERNEL], ttt__head_row(ctx, w[TTT__MTTT_PSI_BIAS]));
    ttt_tensor *read = in.learner->predict(ctx, in.learner->desc, after, test);
    if (desc->unmask)
        ttt__mttt_unmask(ctx, desc, w,
                         in.unmask ? ttt__features_for(ctx, in.learner, after, test, read) : NULL,
                         read);
    ttt_tensor *y =
        ttt_matmul_to(ctx, read, w[TTT__MTTT_H_KERNEL], false, false, TTT_SHAPE(B, 1, N, D));
    return ttt_add(ctx, ttt_reshape(ctx, y, TTT_SHAPE(B, N, D)), w[TTT__MTTT_H_BIAS]);
}

// Views 2 N D^2, output N D^2; each step reads f forwards and backwards (3 passes of its products)
// and the decoder twice, for H heads; one more prediction for the output. Two FLOPs a multiply-add.
static double ttt__mttt_flops(const ttt_mixer_desc *desc, int64_t N) {
    double n = (double)N, D = (double)desc->dim, h = D / (double)desc->heads, T = ttt__steps(desc);
    double f = (double)desc->mixer->learner->flops * n * D * h;  // one prediction of all heads
    double steps = desc->inner_sgd ? 1 : T;  // mini-batches: each token is seen once
    bool linear = ttt__dense_layers(desc->mixer->learner) == 1;
    double backward = linear ? 1 : 1.5;  // nobody needs the gradient of the first layer's input
    return 2 * (3 * n * D * D + steps * (f + backward * f + 2 * n * D * D) + f);
}
static double ttt__memory_state(const ttt_mixer_desc *desc, int64_t N) {  // the learner's weights
    double D = (double)desc->dim, h = D / (double)desc->heads;
    (void)N;
    return (double)desc->mixer->learner->flops * D * h;
}

#define TTT__MTTT_TAKES                                                                            \
    "inner_steps inner_lr inner_lrs inner_sgd order learn_rates no_inner_bias no_decoder_norm "    \
    "zero_w0 first_order"
TTT__CONSTANT ttt_mixer ttt_mixer_mttt_linear = {
    "mttt-linear", "TTTLayer_0", "a linear map that learns on the sequence", "arXiv 2310.13807",
    TTT__ROWS(ttt__mttt_rows), &ttt_learner_linear, TTT__MTTT_TAKES, 0,
    ttt__mttt_tape, TTT__FUSED(ttt__mttt_as_op), ttt__mttt_flops, ttt__memory_state, NULL,
};
TTT__CONSTANT ttt_mixer ttt_mixer_mttt_mlp = {
    "mttt-mlp", "TTTLayer_0", "an MLP that learns on the sequence", "arXiv 2310.13807",
    TTT__ROWS(ttt__mttt_rows), &ttt_learner_mlp, TTT__MTTT_TAKES, 0,
    ttt__mttt_tape, TTT__FUSED(ttt__mttt_as_op), ttt__mttt_flops, ttt__memory_state, NULL,
};

// -- words that the mixers share
// What a mixer fills in for ttt_unmask, see [6].
static void ttt__unmask_matrix(ttt_ctx *ctx, ttt_unmasked *unmasked, ttt_tensor *matrix,
                               ttt_tensor *v, ttt_tensor *read);
static void ttt__unmask_features(ttt_ctx *ctx, ttt_unmasked *unmasked, ttt_tensor *q, ttt_tensor *k,
                                 ttt_tensor *v, ttt_tensor *start, ttt_tensor *read);
static void ttt__unmask_weighted(ttt_ctx *ctx, ttt_unmasked *unmasked, ttt_tensor *q, ttt_tensor *k,
                                 ttt_tensor *v, ttt_tensor *weights, bool bias, ttt_tensor *read);
static void ttt__unmask_start(ttt_ctx *ctx, ttt_unmasked *unmasked, ttt_tensor *kernel,
                              ttt_tensor *bias, ttt_tensor *carry);

// Rows begin .. begin+n of the tokens of x (B,H,N,d): x itself if that is all, NULL if x is.
static ttt_tensor *ttt__tokens(ttt_ctx *ctx, ttt_tensor *x, int64_t begin, int64_t n) {
    return !x || !ttt_ok(ctx) || n == x->shape.dim[2] ? x : ttt_slice(ctx, x, 2, begin, n);
}
// Heads beside each other: (B,N,D) -> (B,N,H,D/H), which moves nothing, and back.
static ttt_tensor *ttt__beside(ttt_ctx *ctx, ttt_tensor *x, int64_t H) {
    if (!ttt_ok(ctx)) return x;
    const int64_t *s = x->shape.dim;
    return ttt_reshape(ctx, x, TTT_SHAPE(s[0], s[1], H, s[2] / H));
}
static ttt_tensor *ttt__whole(ttt_ctx *ctx, ttt_tensor *x) {
    if (!ttt_ok(ctx)) return x;
    const int64_t *s = x->shape.dim;
    return ttt_reshape(ctx, x, TTT_SHAPE(s[0], s[1], s[2] * s[3]));
}
// (B,N,H,d) <-> (B,H,N,d)
static ttt_tensor *ttt__swap_heads(ttt_ctx *ctx, ttt_tensor *x) {
    static const int order[4] = { 0, 2, 1, 3 };
    return ttt_permute(ctx, x, order);
}
// A number for each token and head, x kernel (D,H) + bias: (B,N,H,1)
static ttt_tensor *ttt__gates(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *kernel, ttt_tensor *bias) {
    ttt_tensor *z = ttt__affine_maybe(ctx, x, kernel, bias);
    return ttt_ok(ctx) ? ttt__beside(ctx, z, kernel->shape.dim[1]) : z;
}
static ttt_tensor *ttt__log_sigmoid(ttt_ctx *ctx, ttt_tensor *x) {
    return ttt_scale(ctx, ttt_softplus(ctx, ttt_scale(ctx, x, -1)), -1);
}
// x / (|x|^2 + eps)^(1/2) over the last axis
static ttt_tensor *ttt__unit(ttt_ctx *ctx, ttt_tensor *x, double eps) {
    double h = ttt_ok(ctx) ? (double)x->shape.dim[x->shape.rank - 1] : 1;
    return ttt_scale(ctx, ttt_rms_normalize(ctx, x, (ttt_real)(eps / h)), (ttt_real)(1 / sqrt(h)));
}
// A view of given length: length s / (|s|^2 + eps)^(1/2) over the last axis, with s = SiLU(x)
typedef ttt_tensor *ttt__sized_fn(ttt_ctx *ctx, ttt_tensor *x, double eps, double length);
#ifndef TTT_NO_FUSED
static ttt__sized_fn ttt__sized_as_op;
#endif
static ttt_tensor *ttt__sized_tape(ttt_ctx *ctx, ttt_tensor *x, double eps, double length) {
    return ttt_scale(ctx, ttt__unit(ctx, ttt_silu(ctx, x), eps), (ttt_real)length);
}
static ttt_tensor *ttt__sized(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *x, double eps,
                              double length) {
    ttt__sized_fn *as_op = TTT__FUSED(ttt__sized_as_op);
    return (as_op && !desc->no_fused ? as_op : ttt__sized_tape)(ctx, x, eps, length);
}

// Who sees whom. By definition a token changes nothing before it, whatever it holds; so what a mask
// hides is not multiplied by 0, which would leave NaN of NaN, but left out: by ttt__only here, and
// by ttt_mix and ttt_softmax_seen.
//     (n,N): 1 at k <= i + more, 0 above
static ttt_tensor *ttt__lower(ttt_ctx *ctx, int64_t n, int64_t N, int64_t more) {
    ttt_tensor *tensor = ttt_zeros(ctx, TTT_SHAPE(n, N));
    for (int64_t i = 0; ttt_ok(ctx) && i < n; i++)
        for (int64_t k = 0; k <= i + more && k < N; k++) tensor->data[i * N + k] = 1;
    return tensor;
}
// x where seen is not 0, else 0
static ttt_tensor *ttt__only(ttt_ctx *ctx, ttt_tensor *seen, ttt_tensor *x) {
    return ttt_where(ctx, seen, x, ttt_scalar(ctx, 0));
}

// From the logarithms g (B,H,n,1) of what is kept at each token: since (B,H,n,1), what is left at
// token i of what was there before the first, e^(g_0 + .. + g_i), and between (B,H,n,n), what is
// left at i of what came in at k <= i, e^(g_k+1 + .. + g_i); 0 above. Every exponent is a sum of
// its own, as in listing 1 of arXiv 2405.21060: a difference of two sums that begin at the first
// token would lose a weak decay behind strong ones.
static void ttt__decay(ttt_ctx *ctx, ttt_tensor *g, ttt_tensor **since, ttt_tensor **between) {
    if (!ttt_ok(ctx)) return;
    int64_t n = g->shape.dim[2];
    ttt_tensor *steps = ttt__only(ctx, ttt__lower(ctx, n, n, -1), g);  // g_i at k < i
    *since = ttt_exp(ctx, ttt_cumsum(ctx, g, 2, false));
    *between = ttt__only(ctx, ttt__lower(ctx, n, n, 0),
                         ttt_exp(ctx, ttt_cumsum(ctx, steps, 2, false)));
}

static bool ttt__need(ttt_ctx *ctx, bool good, const ttt_mixer_desc *desc, const char *field,
                      int64_t value, const char *expected) {
    if (!good && ttt_ok(ctx))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: .%s is %lld; %s", desc->mixer->name, field,
                 (long long)value, expected);
    return ttt_ok(ctx);
}
static void ttt__check_grid(ttt_ctx *ctx, const ttt_mixer_desc *desc, int64_t N) {
    int64_t size = ttt_shape_size(TTT_SHAPE(desc->grid_rows, desc->grid_cols));
    if (!ttt__need(ctx, desc->grid_rows > 0, desc, "grid_rows", desc->grid_rows,
                   "this layer sees tokens as a grid and needs its sides"))
        return;
    if (!ttt__need(ctx, desc->grid_cols > 0, desc, "grid_cols", desc->grid_cols,
                   "this layer sees tokens as a grid and needs its sides"))
        return;
    if (N >= 0)
        ttt__need(ctx, size == N - TTT__MAX(desc->globals, 0), desc, "grid_rows", desc->grid_rows,
                  "globals + grid_rows x grid_cols must be the number of tokens");
}

// More tokens than any sequence has; sums with it are numbers.
#define TTT__FAR ((int64_t)1 << 40)
static int64_t ttt__chunk_or(const ttt_mixer_desc *desc, int64_t usual) {
    return desc->chunk ? TTT__MIN(desc->chunk, TTT__FAR) : usual;
}
static void ttt__check_chunk(ttt_ctx *ctx, const ttt_mixer_desc *desc, int64_t N) {
    (void)N;
    ttt__need(ctx, desc->chunk >= 0, desc, "chunk", desc->chunk, "at least 1 token expected");
}

// -- attention
// Which keys a query sees. Tokens are first the `globals`, whom all see, then a grid with rows of
// `cols`; a query sees those at most `window` rows and columns away. A line is a grid of one row.
// Query i is token globals + i.
typedef struct ttt__sight {
    int64_t globals, cols, window;
    bool causal;  // and none that comes after the query
} ttt__sight;
// The sum over i < n of min(i, most)
static double ttt__sum_of_least(int64_t n, int64_t most) {
    double m = (double)TTT__MIN(n - 1, most);
    return m * (m + 1) / 2 + ((double)n - 1 - m) * m;
}
// How many pairs of n queries and N keys see each other.
static double ttt__pairs(const ttt__sight *sight, int64_t n, int64_t N) {
    int64_t cols = TTT__MIN(sight->cols, n), rows = cols > 0 ? n / cols : 0;
    if (n <= 0 || (!sight->causal && sight->window >= N)) return (double)n * (double)N;
    double above = ttt__sum_of_least(rows, sight->window), r = (double)rows;
    double left = ttt__sum_of_least(cols, sight->window), c = (double)cols;
    return (double)n * (double)sight->globals +
           (sight->causal ? above * (c + 2 * left) + r * (c + left)
                          : (r + 2 * above) * (c + 2 * left));
}

// What is common to all layers that are softmax attention: each head reads
//     F = softmax(scale (Q K^T + 1 c^T)) V
// from Q, of n queries, and K and V, of N keys; c has a number for each key.
typedef struct ttt__attention {
    ttt__sight sight;
    int64_t heads;
    double scale;
    int64_t nearest;  // if not 0, only so many keys count, those with the largest scores,
    int64_t before;   // and so many came before the first query
    const char *list; // what a stream calls the list of its keys and values
} ttt__attention;
// The usual one: softmax(Q K^T / sqrt h) V                                          [Vaswani 2017]
static ttt__attention ttt__usual_attention(const ttt_mixer_desc *desc) {
    ttt__attention how = { { 0, TTT__FAR, TTT__FAR, desc->causal }, desc->heads,
                           1 / sqrt((double)(desc->dim / desc->heads)), 0, 0,
                           "list" };
    return how;
}
// 1 where a score is among the k largest of those in its row that are seen (n,N), else 0; of equal
// ones the first. NaN counts as the largest.
static ttt_tensor *ttt__nearest(ttt_ctx *ctx, const ttt_tensor *scores, const ttt_tensor *seen,
                                int64_t k) {
    ttt_tensor *near_ones = ttt_zeros(ctx, scores->shape);
    int64_t N = ttt_ok(ctx) ? scores->shape.dim[scores->shape.rank - 1] : 0;
    for (int64_t r = 0; N > 0 && r < scores->size / N; r++) {
        const ttt_real *s = scores->data + r * N;
        const ttt_real *row = seen ? seen->data + r * N % seen->size : NULL;
        ttt_real *taken = near_ones->data + r * N;
        for (int64_t n = 0; n < k; n++) {
            int64_t best = -1;
            for (int64_t i = 0; i < N; i++)
                if (taken[i] == 0 && (!row || row[i] != 0) && (best < 0 || !(s[i] <= s[best])))
                    best = i;
            if (best < 0) break;
            taken[best] = 1;
        }
    }
    return near_ones;
}
// Y = A V, A the softmax of the scores that are seen (NULL: all).
static ttt_tensor *ttt__attend(ttt_ctx *ctx, ttt_tensor *scores, ttt_tensor *seen, ttt_tensor *v,
                               ttt_tensor **a) {
    *a = seen ? ttt_softmax_seen(ctx, scores, seen) : ttt_softmax(ctx, scores);
    return seen ? ttt_mix(ctx, *a, v, false, NULL) : ttt_matmul(ctx, *a, v);
}
static ttt_tensor *ttt__windowed(ttt_ctx *ctx, const ttt__attention *how, ttt_tensor *q,
                                 ttt_tensor *k, ttt_tensor *v, ttt_tensor **a);
// From in, which is q (B,n,D), k and v (B,N,D), heads side by side, and c (B,N,H), or NULL where it
// is 0 or there is a window; *a becomes the softmax, heads apart. By definition:
static ttt_tensor *ttt__attention_tape(ttt_ctx *ctx, const ttt__attention *how,
                                       ttt_tensor *const *in, ttt_tensor **a) {
    ttt_tensor *apart[4] = { NULL }, *seen = NULL;
    for (int i = 0; i < 4; i++)
        if (in[i]) apart[i] = ttt_split_heads(ctx, in[i], how->heads);
    if (!ttt_ok(ctx)) return in[0];
    int64_t n = in[0]->shape.dim[1], N = in[1]->shape.dim[1];
    if (how->sight.window < TTT__FAR)
        return ttt_join_heads(ctx, ttt__windowed(ctx, how, apart[0], apart[1], apart[2], a));
    ttt_tensor *scores = ttt_matmul_t(ctx, apart[0], apart[1], false, true);
    if (apart[3]) scores = ttt_add(ctx, scores, ttt_transpose(ctx, apart[3]));
    scores = ttt_scale(ctx, scores, (ttt_real)how->scale);
    if (how->sight.causal) seen = ttt__lower(ctx, n, N, how->before);
    if (how->nearest) seen = ttt__nearest(ctx, scores, seen, how->nearest);
    return ttt_join_heads(ctx, ttt__attend(ctx, scores, seen, apart[2], a));
}
#ifndef TTT_NO_FUSED
static ttt_tensor *ttt__attention_as_op(ttt_ctx *ctx, const ttt__attention *how,
                                        ttt_tensor *const *in);
static ttt_tensor *ttt__attention_in_stream(ttt_ctx *ctx, const ttt__stream_part *part,
                                            const ttt__attention *how, ttt_tensor *const *in);
#endif
// As one op, unless the description or `nearest` asks for more than that has. In a stream q, k, v
// and c are of the new tokens.
static ttt_tensor *ttt__attention_of(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                     const ttt__attention *how, ttt_tensor *q, ttt_tensor *k,
                                     ttt_tensor *v, ttt_tensor *c, ttt_tensor **a) {
    ttt_tensor *in[4] = { q, k, v, c };
#ifndef TTT_NO_FUSED
    if (desc->stream) return ttt__attention_in_stream(ctx, desc->stream, how, in);
    if (!desc->no_fused && !desc->unmask && !how->nearest)
        return ttt__attention_as_op(ctx, how, in);
#endif
    (void)desc;
    return ttt__attention_tape(ctx, how, in, a);
}
static void ttt__unmask_attention(ttt_ctx *ctx, const ttt_mixer_desc *desc, const char *equals,
                                  ttt_tensor *a, ttt_tensor *v, ttt_tensor *y) {
    if (!desc->unmask) return;
    desc->unmask->equals = equals;
    ttt__unmask_matrix(ctx, desc->unmask, a, ttt_split_heads(ctx, v, desc->heads),
                       ttt_split_heads(ctx, y, desc->heads));
}

#define TTT__LINEAR_ATTENTION_ROWS(X)                                                              \
    X(Q_KERNEL, "query/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0)                  \
    X(Q_BIAS, "query/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                  \
    X(K_KERNEL, "key/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0)                    \
    X(K_BIAS, "key/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                    \
    X(V_KERNEL, "value/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0)                  \
    X(V_BIAS, "value/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                  \
    X(O_KERNEL, "proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0)                   \
    X(O_BIAS, "proj/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)
#define TTT__SELF_ATTENTION_ROWS(X)                                                                \
    X(Q_KERNEL, "query/kernel", "D H h", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0)                \
    X(Q_BIAS, "query/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                \
    X(K_KERNEL, "key/kernel", "D H h", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0)                  \
    X(K_BIAS, "key/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                  \
    X(V_KERNEL, "value/kernel", "D H h", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0)                \
    X(V_BIAS, "value/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, 0)                                \
    X(O_KERNEL, "out/kernel", "H h D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0)                  \
    X(O_BIAS, "out/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0)
enum {
#define X(id, name, shape, init, fan_in, fan_out, flags, only_if) TTT__ATTENTION_##id,
    TTT__LINEAR_ATTENTION_ROWS(X)
#undef X
    TTT__ATTENTION_N
};
static const ttt_param_row ttt__linear_attention_rows[] = {
    TTT__LINEAR_ATTENTION_ROWS(TTT__AS_ROW)
};
static const ttt_param_row ttt__self_attention_rows[] = { TTT__SELF_ATTENTION_ROWS(TTT__AS_ROW) };

// A kernel (D,D), whatever heads its shape shows. The tape does not reshape what it cannot make, as
// bfloat16: that is the same memory once more.
static ttt_tensor *ttt__square(ttt_ctx *ctx, ttt_tensor *kernel, int64_t D) {
    const ttt_shape shape = TTT_SHAPE(D, D);
    if (!ttt_ok(ctx) || kernel->dtype == TTT_DTYPE_REAL) return ttt_reshape(ctx, kernel, shape);
    return ttt__or_empty(ctx, ttt__tensor(ctx, shape, kernel->dtype, false, kernel));
}
// x times the kernel of row `which`, plus its bias: (B,N,D)
static ttt_tensor *ttt__project(ttt_ctx *ctx, ttt_tensor *const *w, int which, ttt_tensor *x) {
    int64_t D = x->shape.dim[2];
    return ttt_affine(ctx, x, ttt__square(ctx, w[which], D),
                      ttt_reshape(ctx, w[which + 1], TTT_SHAPE(D)));
}

static ttt_tensor *ttt__self_attention_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                               ttt_tensor *const *w, ttt_tensor *x,
                                               ttt_tensor **losses) {
    ttt__attention how = ttt__usual_attention(desc);
    ttt_tensor *q = ttt__project(ctx, w, TTT__ATTENTION_Q_KERNEL, x), *a = NULL;
    ttt_tensor *k = ttt__project(ctx, w, TTT__ATTENTION_K_KERNEL, x);
    ttt_tensor *v = ttt__project(ctx, w, TTT__ATTENTION_V_KERNEL, x);
    ttt_tensor *y = ttt__attention_of(ctx, desc, &how, q, k, v, NULL, &a);
    (void)losses;
    ttt__unmask_attention(ctx, desc, "softmax self-attention", a, v, y);
    return ttt__project(ctx, w, TTT__ATTENTION_O_KERNEL, y);
}
// Four products by D D numbers, and two for each pair, of D.
static double ttt__attention_flops(const ttt_mixer_desc *desc, const ttt__sight *sight,
                                   int64_t N) {
    double n = (double)N, D = (double)desc->dim;
    return 2 * (4 * n * D * D + 2 * ttt__pairs(sight, N - sight->globals, N) * D);
}
static double ttt__self_attention_flops(const ttt_mixer_desc *desc, int64_t N) {
    ttt__attention how = ttt__usual_attention(desc);
    return ttt__attention_flops(desc, &how.sight, N);
}
// All keys and values, and where a kernel asks for them the lengths of keys.
static double ttt__list_state(const ttt_mixer_desc *desc, int64_t N) {
    bool norms = desc->kernel != TTT_ATTENTION_KERNEL_EXPONENTIAL;
    return (double)N * (double)(2 * desc->dim + (norms ? desc->heads : 0));
}

TTT__CONSTANT ttt_mixer ttt_mixer_self_attention = {
    "self-attention", "MultiHeadDotProductAttention_0", "softmax(q k^T / sqrt h) v",
    "arXiv 1706.03762", TTT__ROWS(ttt__self_attention_rows), NULL, "causal", TTT_MIXER_STREAMS,
    ttt__self_attention_forward, TTT__FUSED(ttt__self_attention_forward),
    ttt__self_attention_flops, ttt__list_state, NULL,
};

// y = phi(q) (phi(k)^T v) / normalizer, phi = elu + 1 or the identity          [Katharopoulos 2020]
// Never N x N: phi(k)^T v is h x h, which is why its cost is linear in N.
//
// The adaptive normalizer makes y a ratio of two sums of phi(q_ic) phi(k_jc). These products may
// all be too small for a number, as e^-1000 is, where the ratio is an ordinary one. But a factor
// of a query cancels, and one of a channel c may pass from the keys to the queries:
//     phi(q_ic) phi(k_jc) = (phi(q_ic) e^(R_ic - M_i)) e^(R_jc - R_ic) (phi(k_jc) e^-R_jc) e^M_i
// R_ic is the logarithm of the channel's largest key up to token i (of all keys, unless causal),
// M_i that of the query's largest phi(q_ic) e^R_ic; both are whole numbers, whose sums are exact,
// and 0 where they are above -20: usual numbers keep all their bits. Causal, R may grow from token
// to token, and e^(R_jc - R_ic) is a decay, the g of a scan. All of them are constants, for y does
// not depend on them.
typedef struct ttt__features {
    ttt_tensor *q, *k;  // phi of queries and keys, (B,H,N,h)
    ttt_tensor *g;      // logarithms of decays, likewise; NULL: none
} ttt__features;
typedef struct ttt__shifts {
    ttt_tensor *q, *k, *g;  // R_ic - M_i, -R_ic and R_i-1c - R_ic, for i = 0 0
    bool any_g;             // whether some of g are not 0
} ttt__shifts;

// ln phi(x) as a whole number if it is below -20; else, and if x is NaN, 0.
static ttt_real ttt__log_small(const ttt_mixer_desc *desc, ttt_real x) {
    const double least = sizeof(ttt_real) == 8 ? -700 : -80;  // e^-least is a number
    double log_phi = (double)x;
    if (desc->identity_map) log_phi = x == 0 ? -HUGE_VAL : log(fabs((double)x));
    if (!(log_phi < -20)) return 0;
    return (ttt_real)TTT__MAX(floor(log_phi), desc->identity_map ? least : -1e30);
}
static bool ttt__all_small(const ttt_mixer_desc *desc, const ttt_real *x, int64_t n, int64_t step) {
    for (int64_t i = 0; i < n; i++)
        if (ttt__log_small(desc, x[i * step]) == 0) return false;
    return true;
}
// Whether some R or M of one sequence and head, whose rows begin at `at`, is not 0. R never falls.
static bool ttt__shifts_head(const ttt_mixer_desc *desc, const ttt_tensor *q, const ttt_tensor *k,
                             int64_t at) {
    int64_t N = q->shape.dim[2], h = q->shape.dim[3];
    for (int64_t c = 0; c < h; c++)
        if (ttt__all_small(desc, k->data + at + c, desc->causal ? 1 : N, h)) return true;
    for (int64_t i = 0; i < N; i++)
        if (ttt__all_small(desc, q->data + at + i * h, h, 1)) return true;
    return false;
}
// The shifts of that head.
static void ttt__shift_head(const ttt_mixer_desc *desc, const ttt_tensor *q, const ttt_tensor *k,
                            int64_t at, ttt__shifts *to) {
    int64_t N = q->shape.dim[2], h = q->shape.dim[3];
    for (int64_t i = 0; i < N * h; i++) {  // -R so far
        ttt_real less = -ttt__log_small(desc, k->data[at + i]);
        to->k->data[at + i] = i < h ? less : TTT__MIN(less, to->k->data[at + i - h]);
    }
    for (int64_t i = 0; i < N * h && !desc->causal; i++)
        to->k->data[at + i] = to->k->data[at + (N - 1) * h + i % h];
    for (int64_t i = 0; i < N; i++) {
        ttt_real *less = to->k->data + at + i * h, *own = to->q->data + at + i * h, top = less[0];
        ttt_real *decay = to->g->data + at + i * h, most = -(ttt_real)HUGE_VAL;
        for (int64_t c = 1; c < h; c++) top = TTT__MIN(top, less[c]);
        for (int64_t c = 0; c < h; c++) {
            own[c] = top - less[c];  // R_ic, but for a number that is the query's
            ttt_real of_query = ttt__log_small(desc, q->data[at + i * h + c]);
            most = TTT__MAX(most, of_query + own[c]);
            decay[c] = i > 0 ? less[c] - less[c - h] : 0;
            to->any_g = to->any_g || decay[c] != 0;
        }
        for (int64_t c = 0; c < h; c++) own[c] -= most;
    }
}
// phi(x) e^shift
static ttt_tensor *ttt__phi(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *x,
                            ttt_tensor *shift) {
    if (!shift) return desc->identity_map ? x : ttt__elu1(ctx, x);
    if (desc->identity_map) return ttt_mul(ctx, x, ttt_exp(ctx, shift));
    ttt_tensor *above = ttt_relu(ctx, x), *below = ttt_sub(ctx, x, above);
    return ttt_mul(ctx, ttt_add_scalar(ctx, above, 1), ttt_exp(ctx, ttt_add(ctx, below, shift)));
}
static ttt__features ttt__features_of(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *q,
                                      ttt_tensor *k) {
    ttt__shifts by;
    memset(&by, 0, sizeof by);
    bool shifts = false, ratio = desc->normalizer == TTT_NORMALIZER_ADAPTIVE && ttt_ok(ctx);
    int64_t head = ratio ? q->shape.dim[2] * q->shape.dim[3] : 1;
    for (int64_t at = 0; ratio && !shifts && at < q->size; at += head)
        shifts = ttt__shifts_head(desc, q, k, at);
    if (shifts) {
        by.q = ttt_zeros(ctx, q->shape);
        by.k = ttt_zeros(ctx, q->shape);
        by.g = ttt_zeros(ctx, q->shape);
        for (int64_t at = 0; ttt_ok(ctx) && at < q->size; at += head)
            ttt__shift_head(desc, q, k, at, &by);
    }
    ttt__features of = { ttt__phi(ctx, desc, q, by.q), ttt__phi(ctx, desc, k, by.k),
                         by.any_g ? by.g : NULL };
    return of;
}
static ttt_tensor *ttt__causal_linear(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                      const ttt__features *of, ttt_tensor *v, int64_t chunk);
static ttt_tensor *ttt__all_linear(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                   const ttt__features *of, ttt_tensor *v) {
    ttt_tensor *y = ttt_matmul(ctx, of->q, ttt_matmul_t(ctx, of->k, v, true, false));
    if (desc->normalizer == TTT_NORMALIZER_NONE || !ttt_ok(ctx)) return y;
    if (desc->normalizer == TTT_NORMALIZER_CONSTANT)
        return ttt_scale(ctx, y, 1 / (ttt_real)(v->shape.dim[2] * v->shape.dim[3]));
    return ttt_div(ctx, y,
                   ttt_matmul_t(ctx, of->q, ttt_sum_axis(ctx, of->k, -2), false, true));
}
static void ttt__linear_attention_unmask(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                         const ttt__features *of, ttt_tensor *v, ttt_tensor *y);
enum { TTT__SCAN_Q, TTT__SCAN_K, TTT__SCAN_V, TTT__SCAN_BETA, TTT__SCAN_G, TTT__SCAN_INPUTS };
// y from queries, keys and values, as a memory
static ttt_tensor *ttt__linear_tape(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *in,
                                    int64_t chunk) {
    ttt_tensor *q = ttt__swap_heads(ctx, in[TTT__SCAN_Q]),
               *k = ttt__swap_heads(ctx, in[TTT__SCAN_K]),
               *v = ttt__swap_heads(ctx, in[TTT__SCAN_V]);
    ttt__features of = ttt__features_of(ctx, desc, q, k);
    ttt_tensor *y = desc->causal ? ttt__causal_linear(ctx, desc, &of, v, chunk)
                                 : ttt__all_linear(ctx, desc, &of, v);
    if (desc->unmask) ttt__linear_attention_unmask(ctx, desc, &of, v, y);
    return ttt__swap_heads(ctx, y);
}
static ttt_tensor *ttt__linear_attention_tape(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                              ttt_tensor *const *w, ttt_tensor *x,
                                              ttt_tensor **losses) {
    static const int rows[] = { TTT__ATTENTION_Q_KERNEL, TTT__ATTENTION_K_KERNEL,
                                TTT__ATTENTION_V_KERNEL };
    ttt_tensor *in[TTT__SCAN_INPUTS] = { NULL };
    (void)losses;
    for (int i = 0; i < 3; i++)
        in[i] = ttt__beside(ctx, ttt__project(ctx, w, rows[i], x), desc->heads);
    ttt_tensor *y = ttt__answers(ctx, desc, TTT__FUSED(ttt__causal_linear_as_op), ttt__linear_tape,
                                 in, ttt__chunk_or(desc, 64));
    return ttt__project(ctx, w, TTT__ATTENTION_O_KERNEL, ttt__whole(ctx, y));
}
static double ttt__linear_attention_flops(const ttt_mixer_desc *desc, int64_t N) {
    double n = (double)N, D = (double)desc->dim, h = D / (double)desc->heads;
    return 2 * (4 * n * D * D + 2 * n * D * h);
}
// h x h a head, and the normalizer
static double ttt__matrix_state(const ttt_mixer_desc *desc, int64_t N) {
    double D = (double)desc->dim, h = D / (double)desc->heads;
    (void)N;
    return D * (h + 1);
}
static void ttt__linear_attention_check(ttt_ctx *ctx, const ttt_mixer_desc *desc, int64_t N) {
    if (ttt__need(ctx, (unsigned)desc->normalizer <= TTT_NORMALIZER_NONE, desc, "normalizer",
                  (int64_t)desc->normalizer, "one of ttt_normalizer expected") &&
        ttt__need(ctx, !desc->stream || desc->normalizer != TTT_NORMALIZER_CONSTANT, desc,
                  "normalizer", (int64_t)desc->normalizer,
                  "the constant one divides by N, which a stream does not know"))
        ttt__check_chunk(ctx, desc, N);
}

TTT__CONSTANT ttt_mixer ttt_mixer_linear_attention = {
    "linear-attention", "LinearAttention_0", "phi(q) (phi(k)^T v) / normalizer", "arXiv 2006.16236",
    TTT__ROWS(ttt__linear_attention_rows), NULL, "causal chunk identity_map normalizer",
    TTT_MIXER_STREAMS,
    ttt__linear_attention_tape, TTT__FUSED(ttt__linear_attention_as_op),
    ttt__linear_attention_flops, ttt__matrix_state, ttt__linear_attention_check,
};

// Attention as learning without parameters: to train is to append (k_s, v_s) to a list, to predict
// is the estimate  f(q) = sum_s kappa(q, k_s) v_s / sum_s kappa(q, k_s)  [Nadaraya 1964, Watson
// 1964]. With kappa = e^(q k / sqrt h) this is self-attention [arXiv 2407.04620, Theorem 2]; a
// Gaussian of b^2 = sqrt h is the same where keys have equal norms, since |q|^2 and |k|^2 drop out.
// Nearest: only the largest kernels count, as in k-NN attention [arXiv 2106.00515].
static int64_t ttt__neighbors(const ttt_mixer_desc *desc) {
    return desc->neighbors ? desc->neighbors : 8;
}
// f(q) of q, k, v (B,N,D); a: what unmasks it. Scores are q k, or, but for what is the same for all
// keys of a query, -|q - k|^2 / 2.
static ttt_tensor *ttt__kernel_estimate(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *q,
                                        ttt_tensor *k, ttt_tensor *v, ttt_tensor **a) {
    ttt__attention how = ttt__usual_attention(desc);
    ttt_tensor *norms = NULL;
    if (desc->kernel != TTT_ATTENTION_KERNEL_EXPONENTIAL) {
        double b = (double)desc->bandwidth;
        if (b > 0) how.scale = 1 / (b * b);
        norms = ttt_square(ctx, ttt__beside(ctx, k, desc->heads));
        norms = ttt_scale(ctx, ttt__whole(ctx, ttt_sum_axis(ctx, norms, -1)), (ttt_real)-0.5);
    }
    if (desc->kernel == TTT_ATTENTION_KERNEL_NEAREST) how.nearest = ttt__neighbors(desc);
    return ttt__attention_of(ctx, desc, &how, q, k, v, norms, a);
}
static ttt_tensor *ttt__nadaraya_watson_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                                ttt_tensor *const *w, ttt_tensor *x,
                                                ttt_tensor **losses) {
    ttt_tensor *q = ttt__project(ctx, w, TTT__ATTENTION_Q_KERNEL, x), *a = NULL;
    ttt_tensor *k = ttt__project(ctx, w, TTT__ATTENTION_K_KERNEL, x);
    ttt_tensor *v = ttt__project(ctx, w, TTT__ATTENTION_V_KERNEL, x);
    if (!ttt_ok(ctx)) return x;
    ttt_tensor *y = ttt__kernel_estimate(ctx, desc, q, k, v, &a);
    (void)losses;
    ttt__unmask_attention(ctx, desc,
                          desc->kernel == TTT_ATTENTION_KERNEL_EXPONENTIAL
                              ? "softmax self-attention: the estimate with the exponential kernel"
                              : "a kernel estimate (Nadaraya-Watson)",
                          a, v, y);
    return ttt__project(ctx, w, TTT__ATTENTION_O_KERNEL, y);
}
static void ttt__nadaraya_watson_check(ttt_ctx *ctx, const ttt_mixer_desc *desc, int64_t N) {
    bool nearest = desc->kernel == TTT_ATTENTION_KERNEL_NEAREST;
    if (!ttt__need(ctx, (unsigned)desc->kernel <= TTT_ATTENTION_KERNEL_NEAREST, desc, "kernel",
                   (int64_t)desc->kernel, "one of ttt_attention_kernel expected"))
        return;
    if (!ttt__need(ctx, desc->neighbors >= 0, desc, "neighbors", desc->neighbors,
                   "at least 1 expected"))
        return;
    if (!ttt__need(ctx, nearest || !desc->neighbors, desc, "neighbors", desc->neighbors,
                   "only TTT_ATTENTION_KERNEL_NEAREST has them"))
        return;
    if (nearest && N > 0 && !desc->stream)
        ttt__need(ctx, desc->neighbors <= N, desc, "neighbors", desc->neighbors,
                  "no more than the number of tokens expected");
    if (ttt_ok(ctx) && !(desc->bandwidth >= 0))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: .bandwidth is %g; above 0 expected", desc->mixer->name,
                 (double)desc->bandwidth);
}
TTT__CONSTANT ttt_mixer ttt_mixer_nadaraya_watson = {
    "nadaraya-watson", "NadarayaWatson_0", "attention as a kernel estimate, other kernels too",
    "arXiv 2407.04620, Theorem 2", TTT__ROWS(ttt__linear_attention_rows), NULL,
    "causal kernel bandwidth neighbors", TTT_MIXER_STREAMS,
    ttt__nadaraya_watson_forward, TTT__FUSED(ttt__nadaraya_watson_forward),
    ttt__self_attention_flops, ttt__list_state, ttt__nadaraya_watson_check,
};

// Linformer: the N keys and values become K by two tables along the sequence, k~ = E^T k,
// v~ = F^T v, shared by the heads, so that attention costs N K. The tables know positions, not
// contents, and end at max_tokens; shorter sequences use their first rows.      [arXiv 2006.04768]
enum { TTT__LINFORMER_E = TTT__ATTENTION_N, TTT__LINFORMER_F };
static const ttt_param_row ttt__linformer_rows[] = {
    TTT__LINEAR_ATTENTION_ROWS(TTT__AS_ROW)
    // bound 1/sqrt K, as in lucidrains/linformer
    { "E", "N K", TTT_INIT_UNIFORM_IN, "3K", NULL, TTT_PARAM_DECAYS, 0 },
    { "F", "N K", TTT_INIT_UNIFORM_IN, "3K", NULL, TTT_PARAM_DECAYS, 0 },
};
static int64_t ttt__compressed(const ttt_mixer_desc *desc) {
    return desc->compressed ? desc->compressed : TTT__MAX(1, desc->max_tokens / 4);
}
static ttt_tensor *ttt__linformer_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                          ttt_tensor *const *w, ttt_tensor *x,
                                          ttt_tensor **losses) {
    int64_t N = x->shape.dim[1];
    ttt__attention how = ttt__usual_attention(desc);
    ttt_tensor *q = ttt__project(ctx, w, TTT__ATTENTION_Q_KERNEL, x);
    ttt_tensor *k = ttt__project(ctx, w, TTT__ATTENTION_K_KERNEL, x);
    ttt_tensor *v = ttt__project(ctx, w, TTT__ATTENTION_V_KERNEL, x);
    ttt_tensor *E = w[TTT__LINFORMER_E], *F = w[TTT__LINFORMER_F], *a = NULL;
    if (N < desc->max_tokens) E = ttt_slice(ctx, E, 0, 0, N), F = ttt_slice(ctx, F, 0, 0, N);
    ttt_tensor *few_k = ttt_matmul_t(ctx, E, k, true, false);  // (B,K,D)
    ttt_tensor *few_v = ttt_matmul_t(ctx, F, v, true, false);
    ttt_tensor *y = ttt__attention_of(ctx, desc, &how, q, few_k, few_v, NULL, &a);
    (void)losses;
    if (desc->unmask)
        ttt__unmask_attention(ctx, desc, "softmax attention to a fixed number of sums over the "
                              "tokens", ttt_matmul_t(ctx, a, F, false, true), v, y);
    return ttt__project(ctx, w, TTT__ATTENTION_O_KERNEL, y);
}
static void ttt__linformer_check(ttt_ctx *ctx, const ttt_mixer_desc *desc, int64_t N) {
    if (!ttt__need(ctx, desc->max_tokens > 0, desc, "max_tokens", desc->max_tokens,
                   "the number of tokens that its tables are made for must be set"))
        return;
    if (!ttt__need(ctx, desc->compressed >= 0, desc, "compressed", desc->compressed,
                   "at least 1 expected"))
        return;
    ttt__need(ctx, N <= desc->max_tokens, desc, "max_tokens", desc->max_tokens,
              "the sequence is longer than its tables");
}
static double ttt__linformer_flops(const ttt_mixer_desc *desc, int64_t N) {
    double n = (double)N, D = (double)desc->dim, K = (double)ttt__compressed(desc);
    return 2 * (4 * n * D * D + 4 * n * K * D);
}
static double ttt__linformer_state(const ttt_mixer_desc *desc, int64_t N) {
    (void)N;
    return 2 * (double)ttt__compressed(desc) * (double)desc->dim;
}

TTT__CONSTANT ttt_mixer ttt_mixer_linformer = {
    "linformer", "Linformer_0", "attention to keys and values compressed along the sequence",
    "arXiv 2006.04768", TTT__ROWS(ttt__linformer_rows), NULL, "max_tokens compressed", 0,
    ttt__linformer_forward, TTT__FUSED(ttt__linformer_forward), ttt__linformer_flops,
    ttt__linformer_state, ttt__linformer_check,
};

// -- Longformer: a token sees those at most `window` away, and all see and are seen by the first
// tokens, the globals, which have projections of their own for what they ask. It costs N window.
// With .causal no token sees a later one, nor does a global one.                [arXiv 2004.05150]
// On a grid the window is a square, as in the "exact" mode of ViL               [arXiv 2103.15358].
// Never N x N: the line or grid is cut into tiles as long as the window, and a tile's queries are
// compared with the tiles around it, of which a mask hides what is too far: what that holds changes
// nothing.
enum {
    TTT__LONGFORMER_Q = TTT__ATTENTION_N,
    TTT__LONGFORMER_K = TTT__LONGFORMER_Q + 2,
    TTT__LONGFORMER_V = TTT__LONGFORMER_K + 2
};
static const ttt_param_row ttt__longformer_rows[] = {
    TTT__LINEAR_ATTENTION_ROWS(TTT__AS_ROW)
    { "query_global/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, TTT__GLOBALS },
    { "query_global/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, TTT__GLOBALS },
    { "key_global/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, TTT__GLOBALS },
    { "key_global/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, TTT__GLOBALS },
    { "value_global/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, TTT__GLOBALS },
    { "value_global/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, TTT__GLOBALS },
};
static int64_t ttt__window(const ttt_mixer_desc *desc) {
    if (desc->window) return desc->window;
    return desc->grid_rows
               ? TTT__MAX(1, TTT__MIN(7, TTT__MAX(desc->grid_rows, desc->grid_cols) / 3))
               : 256;
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
// What the tiles hold, as numbers of tokens: queries (tiles,q), keys (tiles,k), which of these they
// see (tiles,q,k), and for each token of the grid its place among the queries. Places beyond the
// border hold query 0 and key `globals`, unseen.
typedef struct ttt__tiling {
    ttt__sight sight;
    ttt__tiles row, col;
    int64_t tiles, q, k;
    int64_t *query, *key, *place;
    ttt_tensor *seen;
} ttt__tiling;
// Token i of tile (tr,tc), or -1 beyond the border.
static int64_t ttt__in_tile(const ttt__tiling *tiling, int64_t tr, int64_t tc, int64_t i,
                            int64_t *r, int64_t *cl) {
    *r = tr * tiling->row.side + i / tiling->col.side;
    *cl = tc * tiling->col.side + i % tiling->col.side;
    return *r < tiling->row.size && *cl < tiling->col.size ? *r * tiling->col.size + *cl : -1;
}
static void ttt__tiling_fill(ttt__tiling *tiling, int64_t tile) {
    int64_t tr = tile / tiling->col.tiles, tc = tile % tiling->col.tiles, kr, kc, qr, qc,
            g = tiling->sight.globals, window = tiling->sight.window;
    int64_t *key = tiling->key + tile * tiling->k;
    ttt_real *seen = tiling->seen->data + tile * tiling->q * tiling->k;
    for (int64_t i = 0; i < g; i++) key[i] = i;
    for (int64_t i = 0; i < tiling->q; i++) {
        int64_t token = ttt__in_tile(tiling, tr, tc, i, &qr, &qc);
        tiling->query[tile * tiling->q + i] = TTT__MAX(token, 0);
        if (token >= 0) tiling->place[token] = tile * tiling->q + i;
        for (int64_t j = 0; j < g; j++) seen[i * tiling->k + j] = 1;
        for (int64_t j = 0; j < tiling->k - g; j++) {
            int64_t neighbor = j / tiling->q, across = tiling->col.around;
            int64_t nr = ttt__tile_around(&tiling->row, tr, neighbor / across);
            int64_t nc = ttt__tile_around(&tiling->col, tc, neighbor % across);
            int64_t other = ttt__in_tile(tiling, nr, nc, j % tiling->q, &kr, &kc);
            bool close = qr - kr <= window && kr - qr <= window && qc - kc <= window &&
                         kc - qc <= window;
            key[g + j] = other < 0 ? g : g + other;
            seen[i * tiling->k + g + j] =
                other >= 0 && close && !(tiling->sight.causal && other > token);
        }
    }
}
// Of n queries.
static ttt__tiling ttt__tiling_of(ttt_ctx *ctx, const ttt__sight *sight, int64_t n) {
    ttt__tiling tiling;
    int64_t cols = TTT__MAX(TTT__MIN(sight->cols, n), 1);
    memset(&tiling, 0, sizeof tiling);
    tiling.sight = *sight;
    tiling.row = ttt__tiles_of(n / cols, sight->window);
    tiling.col = ttt__tiles_of(cols, sight->window);
    tiling.tiles = tiling.row.tiles * tiling.col.tiles;
    tiling.q = tiling.row.side * tiling.col.side;
    tiling.k = sight->globals + tiling.row.around * tiling.col.around * tiling.q;
    tiling.query = (int64_t *)ttt_alloc(
        ctx, (uint64_t)(tiling.tiles * tiling.q) * sizeof *tiling.query, false);
    tiling.key = (int64_t *)ttt_alloc(
        ctx, (uint64_t)(tiling.tiles * tiling.k) * sizeof *tiling.key, false);
    tiling.place = (int64_t *)ttt_alloc(ctx, (uint64_t)n * sizeof *tiling.place, false);
    tiling.seen = ttt_zeros(ctx, TTT_SHAPE(tiling.tiles, tiling.q, tiling.k));
    for (int64_t i = 0; ttt_ok(ctx) && i < tiling.tiles; i++) ttt__tiling_fill(&tiling, i);
    return tiling;
}
// Heads apart: q (B,H,n,h), k and v (B,H,N,h); a: the softmax of the tiles.
static ttt_tensor *ttt__windowed(ttt_ctx *ctx, const ttt__attention *how, ttt_tensor *q,
                                 ttt_tensor *k, ttt_tensor *v, ttt_tensor **a) {
    ttt_shape shape = q->shape;
    int64_t BH = shape.dim[0] * shape.dim[1], n = shape.dim[2], N = k->shape.dim[2],
            h = shape.dim[3];
    if (q->size == 0) return q;
    ttt__tiling tiling = ttt__tiling_of(ctx, &how->sight, n);
    if (!ttt_ok(ctx)) return q;
    ttt_tensor *keys = ttt_from_int(ctx, TTT_SHAPE(tiling.tiles, tiling.k), tiling.key);
    ttt_tensor *queries = ttt_from_int(ctx, TTT_SHAPE(tiling.tiles, tiling.q), tiling.query);
    q = ttt_reshape(ctx, ttt_scale(ctx, q, (ttt_real)how->scale), TTT_SHAPE(BH, 1, n, h));
    q = ttt_index_select(ctx, q, queries);
    k = ttt_index_select(ctx, ttt_reshape(ctx, k, TTT_SHAPE(BH, 1, N, h)), keys);
    v = ttt_index_select(ctx, ttt_reshape(ctx, v, TTT_SHAPE(BH, 1, N, h)), keys);
    ttt_tensor *y = ttt__attend(ctx, ttt_matmul_t(ctx, q, k, false, true), tiling.seen, v, a);
    y = ttt_reshape(ctx, y, TTT_SHAPE(BH, 1, tiling.tiles * tiling.q, h));
    y = ttt_index_select(ctx, y, ttt_from_int(ctx, TTT_SHAPE(1, n), tiling.place));
    return ttt_reshape(ctx, y, shape);
}
static ttt__attention ttt__in_window(const ttt_mixer_desc *desc) {
    ttt__attention how = ttt__usual_attention(desc);
    how.sight.globals = desc->globals;
    how.sight.window = TTT__MIN(ttt__window(desc), TTT__FAR - 1);
    if (desc->grid_rows) how.sight.cols = desc->grid_cols;
    return how;
}
static void ttt__longformer_unmask(ttt_ctx *ctx, const ttt_mixer_desc *desc, const ttt_tensor *a,
                                   ttt_tensor *top, ttt_tensor *v, ttt_tensor *top_v,
                                   ttt_tensor *y);
// A stream: y has what the others read; those of the new tokens that are globals read apart, from a
// list of their own.
static ttt_tensor *ttt__longformer_stream(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                          ttt_tensor *const *w, ttt_tensor *x, ttt_tensor *y) {
    ttt__stream_part *part = desc->stream, top = *part;
    int64_t B = x->shape.dim[0], D = desc->dim, any = 0, n = TTT__MIN(part->n, desc->globals);
    int64_t *counts = (int64_t *)ttt_alloc(ctx, (uint64_t)B * sizeof *counts, false);
    ttt__attention all = ttt__usual_attention(desc);
    ttt_mixer_desc apart = *desc;
    for (int64_t b = 0; counts && b < B; b++) {
        int64_t left = TTT__MAX(0, desc->globals - ttt__lane_read(part, b));
        counts[b] = TTT__MIN(ttt__lane_new(part, b), left);
        any = TTT__MAX(any, counts[b]);
    }
    if (any) {
        all.list = "globals";
        top.counts = counts;
        top.n = n;
        apart.stream = &top;
        x = ttt_slice(ctx, x, 1, 0, n);
        ttt_tensor *q = ttt__project(ctx, w, TTT__LONGFORMER_Q, x), *a;
        ttt_tensor *k = ttt__project(ctx, w, TTT__LONGFORMER_K, x);
        ttt_tensor *v = ttt__project(ctx, w, TTT__LONGFORMER_V, x);
        ttt_tensor *of_top = ttt__attention_of(ctx, &apart, &all, q, k, v, NULL, &a);
        for (int64_t b = 0; b < B && ttt_ok(ctx); b++)
            memcpy(y->data + b * part->n * D, of_top->data + b * n * D,
                   (size_t)(counts[b] * D) * sizeof *y->data);
    }
    return ttt__project(ctx, w, TTT__ATTENTION_O_KERNEL, y);
}
static ttt_tensor *ttt__longformer_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                           ttt_tensor *const *w, ttt_tensor *x,
                                           ttt_tensor **losses) {
    int64_t N = x->shape.dim[1], g = desc->globals;
    ttt__attention near_ones = ttt__in_window(desc), all = ttt__usual_attention(desc);
    bool apart = g && !desc->stream;
    ttt_tensor *rest = apart ? ttt_slice(ctx, x, 1, g, N - g) : x, *a = NULL, *top_a = NULL;
    if (!ttt_ok(ctx)) return x;
    ttt_tensor *q = ttt__project(ctx, w, TTT__ATTENTION_Q_KERNEL, rest), *top_v = NULL;
    ttt_tensor *k = ttt__project(ctx, w, TTT__ATTENTION_K_KERNEL, x);
    ttt_tensor *v = ttt__project(ctx, w, TTT__ATTENTION_V_KERNEL, x);
    ttt_tensor *y = ttt__attention_of(ctx, desc, &near_ones, q, k, v, NULL, &a);
    if (desc->stream && g) return ttt__longformer_stream(ctx, desc, w, x, y);
    if (g) {
        ttt_tensor *top_q = ttt__project(ctx, w, TTT__LONGFORMER_Q, ttt_slice(ctx, x, 1, 0, g));
        ttt_tensor *top_k = ttt__project(ctx, w, TTT__LONGFORMER_K, x);
        top_v = ttt__project(ctx, w, TTT__LONGFORMER_V, x);
        ttt_tensor *both[2] = { NULL, y };
        both[0] = ttt__attention_of(ctx, desc, &all, top_q, top_k, top_v, NULL, &top_a);
        y = ttt_concat(ctx, both, 2, 1);
    }
    (void)losses;
    if (desc->unmask && ttt_ok(ctx)) ttt__longformer_unmask(ctx, desc, a, top_a, v, top_v, y);
    return ttt__project(ctx, w, TTT__ATTENTION_O_KERNEL, y);
}
static void ttt__longformer_check(ttt_ctx *ctx, const ttt_mixer_desc *desc, int64_t N) {
    int64_t side = TTT__MAX(desc->grid_rows, desc->grid_cols);
    if (!ttt__need(ctx, desc->window >= 0, desc, "window", desc->window,
                   "at least 1 token to each side expected"))
        return;
    bool fewer = N <= 0 || desc->globals < N || desc->stream;
    if (!ttt__need(ctx, desc->globals >= 0 && fewer, desc, "globals", desc->globals,
                   "0 or more, and fewer than there are tokens, expected"))
        return;
    if (desc->grid_rows == 0 && desc->grid_cols == 0) return;
    if (!ttt__need(ctx, !desc->stream, desc, "grid_rows", desc->grid_rows,
                   "a stream is a line; 0 expected"))
        return;
    ttt__check_grid(ctx, desc, N);
    if (ttt_ok(ctx))
        ttt__need(ctx, desc->window <= side, desc, "window", desc->window,
                  "the window is larger than the grid");
}
// The globals have three projections of their own, and see all.
static double ttt__longformer_flops(const ttt_mixer_desc *desc, int64_t N) {
    ttt__attention near_ones = ttt__in_window(desc), all = ttt__usual_attention(desc);
    double n = (double)N, D = (double)desc->dim;
    return ttt__attention_flops(desc, &near_ones.sight, N) +
           (desc->globals ? 4 * n * D * D + 4 * ttt__pairs(&all.sight, desc->globals, N) * D : 0);
}
static double ttt__longformer_state(const ttt_mixer_desc *desc, int64_t N) {
    double n = (double)N, seen = (double)((desc->causal ? 1 : 2) * ttt__window(desc) + 1);
    if (desc->grid_rows) seen *= (double)(2 * ttt__window(desc) + 1);
    return 2 * ((seen < n ? seen : n) + (double)desc->globals) * (double)desc->dim;
}

TTT__CONSTANT ttt_mixer ttt_mixer_longformer = {
    "longformer", "Longformer_0", "attention in a window, and tokens that see all",
    "arXiv 2004.05150", TTT__ROWS(ttt__longformer_rows), NULL,
    "causal window globals grid_rows grid_cols", TTT_MIXER_STREAMS,
    ttt__longformer_forward, TTT__FUSED(ttt__longformer_forward), ttt__longformer_flops,
    ttt__longformer_state, ttt__longformer_check,
};

// -- Focused linear attention: the features of q and k are sharpened, f(x) = x^p |x| / |x^p|, which
// keeps their norm (taken over all heads at once, as the official code does). Since a map q k^T of
// rank h blurs, a depthwise 5x5 convolution of the values, shared by the heads, gives back what is
// near.                                                                         [arXiv 2308.00442]
//   k += P;  q, k = f((relu + 1e-6) / softplus(S))
//   y_i = q_i (1/N sum k_j^T v_j) / (q_i mean k + 1e-6) + conv(v)_i
enum { TTT__FOCUSED_P = TTT__ATTENTION_N, TTT__FOCUSED_S, TTT__FOCUSED_CONV, TTT__FOCUSED_BIAS };
static const ttt_param_row ttt__focused_rows[] = {
    TTT__LINEAR_ATTENTION_ROWS(TTT__AS_ROW)
    { "positional_encoding", "N D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    { "scale", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    // bound 1/5, as PyTorch's
    { "dwc/kernel", "25 h", TTT_INIT_UNIFORM_IN, "75", NULL, TTT_PARAM_DECAYS, 0 },
    { "dwc/bias", "h", TTT_INIT_UNIFORM_IN, "75", NULL, 0, 0 },
};
// (...,1): 1, or the largest of a row where its p-th power is too large or too small for a number,
// or nearly so. A constant, since f(x) = size f(x / size).
static ttt_tensor *ttt__row_sizes(ttt_ctx *ctx, ttt_tensor *x, int p) {
    bool recording = ttt_set_recording(ctx, false);
    ttt_tensor *size = ttt_max_axis(ctx, x, -1);
    for (int64_t i = 0; ttt_ok(ctx) && i < size->size; i++) {
        double power = pow((double)size->data[i], p);
        if (!(power < 1e-18 || power > 1e17)) size->data[i] = 1;
    }
    ttt_set_recording(ctx, recording);
    return size;
}
typedef ttt_tensor *ttt__focus_fn(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *unit, int p);
#ifndef TTT_NO_FUSED
static ttt__focus_fn ttt__focus_as_op;
#endif
static ttt_tensor *ttt__focus(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *unit, int p) {
    x = ttt_div(ctx, ttt_add_scalar(ctx, ttt_relu(ctx, x), (ttt_real)1e-6), unit);
    if (!ttt_ok(ctx) || x->size == 0) return x;
    ttt_tensor *size = ttt__row_sizes(ctx, x, p);
    x = ttt_div(ctx, x, size);
    ttt_tensor *power = x;
    for (int i = 1; i < p; i++) power = ttt_mul(ctx, power, x);
    ttt_tensor *norm = ttt_norm_axis(ctx, x, -1), *other = ttt_norm_axis(ctx, power, -1);
    return ttt_mul(ctx, ttt_mul(ctx, power, ttt_div(ctx, norm, other)), size);
}
// The convolution of v (B,N,D), its kernel repeated for each head, without bias.
static ttt_tensor *ttt__focused_conv(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                                     ttt_tensor *v) {
    int64_t D = desc->dim, H = desc->heads, h = D / H;
    if (!ttt_ok(ctx)) return v;
    ttt_tensor *kernel = ttt_reshape(ctx, w[TTT__FOCUSED_CONV], TTT_SHAPE(25, 1, h));
    kernel = ttt_reshape(ctx, ttt_broadcast(ctx, kernel, TTT_SHAPE(25, H, h)), TTT_SHAPE(5, 5, D));
    ttt_shape grid = TTT_SHAPE(v->shape.dim[0], desc->grid_rows, desc->grid_cols, D);
    ttt_tensor *local = ttt_depthwise_conv2d(ctx, ttt_reshape(ctx, v, grid), kernel);
    return ttt_reshape(ctx, local, v->shape);
}
// y W_o + b_o, where y still lacks the bias b of the convolution, which is that of all tokens: so
// b W_o + b_o takes the place of b_o.
static ttt_tensor *ttt__focused_output(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                       ttt_tensor *const *w, ttt_tensor *y) {
    int64_t D = desc->dim, H = desc->heads;
    ttt_tensor *b = ttt_broadcast(ctx, w[TTT__FOCUSED_BIAS], TTT_SHAPE(1, H, D / H));
    b = ttt__project(ctx, w, TTT__ATTENTION_O_KERNEL, ttt_reshape(ctx, b, TTT_SHAPE(1, 1, D)));
    return ttt_affine(ctx, y, ttt__square(ctx, w[TTT__ATTENTION_O_KERNEL], D),
                      ttt_reshape(ctx, b, TTT_SHAPE(D)));
}
// y_i = q_i (mean k_j^T v_j) / (q_i mean k + 1e-6), on heads side by side
enum { TTT__MEANS_Q, TTT__MEANS_K, TTT__MEANS_V, TTT__MEANS_INPUTS };
static ttt_tensor *ttt__means_tape(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *in,
                                   int64_t chunk) {
    ttt_tensor *q = ttt__swap_heads(ctx, in[TTT__MEANS_Q]),
               *k = ttt__swap_heads(ctx, in[TTT__MEANS_K]),
               *v = ttt__swap_heads(ctx, in[TTT__MEANS_V]);
    ttt_real over_n = 1 / (ttt_real)chunk;
    ttt_tensor *z = ttt_reciprocal(
        ctx, ttt_add_scalar(ctx, ttt_matmul_t(ctx, q, ttt_mean_axis(ctx, k, -2), false, true),
                            (ttt_real)1e-6));
    ttt_tensor *means = ttt_scale(ctx, ttt_matmul_t(ctx, k, v, true, false), over_n);
    ttt_tensor *y = ttt_mul(ctx, ttt_matmul(ctx, q, means), z);
    if (desc->unmask) {
        desc->unmask->equals = "linear attention with focused features; behind it stands a 5x5 "
                               "depthwise convolution of v";
        ttt__unmask_features(ctx, desc->unmask, ttt_mul(ctx, q, z), ttt_scale(ctx, k, over_n), v,
                             NULL, y);
    }
    return ttt__swap_heads(ctx, y);
}
static ttt_tensor *ttt__focused_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                        ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    ttt__focus_fn *as_op = TTT__FUSED(ttt__focus_as_op);
    ttt__focus_fn *focus = as_op && !desc->no_fused ? as_op : ttt__focus;
    ttt_tensor *unit = ttt_softplus(ctx, w[TTT__FOCUSED_S]), *in[TTT__MEANS_INPUTS];
    ttt_tensor *q = ttt__project(ctx, w, TTT__ATTENTION_Q_KERNEL, x),
               *k = ttt__project(ctx, w, TTT__ATTENTION_K_KERNEL, x),
               *v = ttt__project(ctx, w, TTT__ATTENTION_V_KERNEL, x);
    int p = desc->power ? desc->power : 3;
    q = focus(ctx, q, unit, p);
    k = focus(ctx, ttt_add(ctx, k, w[TTT__FOCUSED_P]), unit, p);
    if (!ttt_ok(ctx)) return x;
    in[TTT__MEANS_Q] = ttt__beside(ctx, q, desc->heads);
    in[TTT__MEANS_K] = ttt__beside(ctx, k, desc->heads);
    in[TTT__MEANS_V] = ttt__beside(ctx, v, desc->heads);
    ttt_tensor *y = ttt__answers(ctx, desc, TTT__FUSED(ttt__means_as_op), ttt__means_tape, in,
                                 x->shape.dim[1]);
    y = ttt_add(ctx, ttt__whole(ctx, y), ttt__focused_conv(ctx, desc, w, v));
    (void)losses;
    return ttt__focused_output(ctx, desc, w, y);
}
static void ttt__focused_check(ttt_ctx *ctx, const ttt_mixer_desc *desc, int64_t N) {
    (void)N;
    if (!ttt__need(ctx, desc->power >= 0 && desc->power <= 64, desc, "power", desc->power,
                   "1 to 64 expected"))
        return;
    int64_t size = ttt_shape_size(TTT_SHAPE(desc->grid_rows, desc->grid_cols));
    ttt__need(ctx, desc->max_tokens == size, desc, "max_tokens", desc->max_tokens,
              "its positions are those of the grid: grid_rows x grid_cols expected");
}
static double ttt__focused_flops(const ttt_mixer_desc *desc, int64_t N) {
    return ttt__linear_attention_flops(desc, N) + 2 * 25 * (double)N * (double)desc->dim;
}

TTT__CONSTANT ttt_mixer ttt_mixer_focused_linear = {
    "focused-linear", "FocusedLinearAttention_0", "linear attention with sharper features",
    "arXiv 2308.00442", TTT__ROWS(ttt__focused_rows), NULL, "max_tokens grid_rows grid_cols power",
    TTT_MIXER_GRID, ttt__focused_forward, TTT__FUSED(ttt__focused_forward), ttt__focused_flops,
    ttt__matrix_state, ttt__focused_check,
};

// -- a matrix that is written token by token
// S_t = e^g_t S_t-1 + k_t^T u_t, o_t = q_t S_t, S_0 = 0. Linear attention: u = v, g = 0. The delta
// rule does not add v to what k finds in S but replaces it: u_t = beta_t (v_t - k_t e^g_t S_t-1),
// which is a step of gradient descent on |k S - v|^2 / 2 [arXiv 2406.06484]; the gated one forgets
// first [2412.06464], and KDA forgets each row of S, a channel of the keys, by itself [2510.26692].
// All at once for n tokens, with the decays D_ij = e^(g_j+1 + .. + g_i), i >= j, of what came in at
// j, and e^G_i = e^(g_0 + .. + g_i) of what was there before  [2406.06484, §3; 2412.06464]:
//     (1 + L) U = beta (V - e^G (K S)),  L = beta (K K^T) D below the diagonal
//     O = e^G (Q S) + ((Q K^T) D) U,     S <- e^G_n S + (D_n K)^T U
// where each channel c has its own D and G, e^G goes to its row of S, and (K K^T) D becomes
// sum over c of k_ic D_ijc k_jc. n = 1 is the recurrence, n = N the parallel form.
//
// For that sum D_ijc has to be a factor at i times a factor at j. But e^-G_j would overflow, and
// G_i - G_j, a difference of large numbers, would lose a weak decay. So cut the tokens into blocks
// of 1, 2, 4 .. : any two lie, for just one of these lengths, in the left and the right block of a
// pair. What fades from j to the border of the two is one factor, from there to i is the other.
enum { TTT__BLOCK_LENGTHS = 63 };
typedef struct ttt__decays {
    ttt_tensor *g;        // (B,H,n,1), or (B,H,n,h) of each channel, at most 0; NULL: nothing fades
    ttt_tensor *since;    // e^G, of g's shape; NULL: 1
    ttt_tensor *seen;     // (n,n), 1 where i >= j
    ttt_tensor *between;  // D (B,H,n,n), 0 above the diagonal; NULL: each channel has its own, as
    ttt_tensor *at_i[TTT__BLOCK_LENGTHS], *at_j[TTT__BLOCK_LENGTHS];  // factors (B,H,n,h)
} ttt__decays;

// (n,n), 1 where tokens i and j are so related in blocks of some length, else 0: i is in the block
// of j and not before j, in it and before j, or in the right block of a pair and j in the left.
typedef enum { TTT__NOT_BEFORE, TTT__BEFORE, TTT__RIGHT_OF } ttt__relation;
static ttt_tensor *ttt__related(ttt_ctx *ctx, int64_t n, int64_t block, ttt__relation relation) {
    ttt_tensor *tensor = ttt_zeros(ctx, TTT_SHAPE(n, n));
    for (int64_t i = 0; ttt_ok(ctx) && i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            int64_t of_i = i / block, of_j = j / block;
            bool yes = relation == TTT__RIGHT_OF ? of_i == of_j + 1 && of_j % 2 == 0
                       : relation == TTT__BEFORE ? of_i == of_j && i < j
                                                 : of_i == of_j && i >= j;
            tensor->data[i * n + j] = yes;
        }
    return tensor;
}
// e^(the sum of g over the tokens that are so related to each)
static ttt_tensor *ttt__faded(ttt_ctx *ctx, ttt_tensor *g, int64_t block, ttt__relation relation) {
    if (!ttt_ok(ctx)) return g;
    ttt_tensor *related = ttt__related(ctx, g->shape.dim[2], block, relation);
    return ttt_exp(ctx, ttt_mix(ctx, related, g, false, NULL));
}
static void ttt__decays_of(ttt_ctx *ctx, ttt_tensor *g, int64_t n, ttt__decays *decays) {
    memset(decays, 0, sizeof *decays);
    decays->g = g;
    decays->seen = ttt__lower(ctx, n, n, 0);
    if (!ttt_ok(ctx)) return;
    if (!g) decays->between = decays->seen;
    else if (g->shape.dim[3] == 1) ttt__decay(ctx, g, &decays->since, &decays->between);
    else {
        decays->since = ttt__faded(ctx, g, n, TTT__NOT_BEFORE);
        for (int64_t i = 0, block = 1; block < n; i++, block *= 2) {
            decays->at_i[i] = ttt__faded(ctx, g, block, TTT__NOT_BEFORE);
            decays->at_j[i] = ttt__faded(ctx, g, block, TTT__BEFORE);
        }
    }
}

// (A B^T) D, a and b (B,H,n,h) -> (B,H,n,n)
static ttt_tensor *ttt__decayed_product(ttt_ctx *ctx, const ttt__decays *decays, ttt_tensor *a,
                                        ttt_tensor *b) {
    ttt_tensor *all = ttt_matmul_t(ctx, a, b, false, true);
    if (!decays->g) return ttt__only(ctx, decays->seen, all);
    if (decays->between || !ttt_ok(ctx))
        return ttt__only(ctx, decays->seen, ttt_mul(ctx, all, decays->between));
    int64_t n = a->shape.dim[2];
    ttt_tensor *y = ttt__only(ctx, ttt__related(ctx, n, 1, TTT__NOT_BEFORE), all);  // i = j
    for (int64_t i = 0, block = 1; block < n; i++, block *= 2) {
        ttt_tensor *to_border = ttt_mul(ctx, b, decays->at_j[i]),
                   *from = ttt_mul(ctx, a, decays->at_i[i]);
        ttt_tensor *pairs = ttt_matmul_t(ctx, from, to_border, false, true);
        y = ttt_add(ctx, y, ttt__only(ctx, ttt__related(ctx, n, block, TTT__RIGHT_OF), pairs));
    }
    return y;
}
// e^G (X S), x (B,H,n,h): what is read of the state from before the chunk
static ttt_tensor *ttt__decayed_read(ttt_ctx *ctx, const ttt__decays *decays, ttt_tensor *x,
                                     ttt_tensor *S) {
    if (!decays->between) return ttt_matmul(ctx, ttt_mul(ctx, x, decays->since), S);
    ttt_tensor *read = ttt_matmul(ctx, x, S);
    return decays->since ? ttt_mul(ctx, decays->since, read) : read;
}
// D_n K: what is left of the keys k (B,H,n,h) at the chunk's last token
static ttt_tensor *ttt__decayed_keys(ttt_ctx *ctx, const ttt__decays *decays, ttt_tensor *k,
                                     int64_t n) {
    if (!decays->since) return k;
    return ttt_mul(ctx, k,
                   decays->between
                   ? ttt_transpose(ctx, ttt_slice(ctx, decays->between, 2, n - 1, 1))
                   : ttt__faded(ctx, decays->g, n, TTT__BEFORE));
}

// O (B,H,N,h), `chunk` tokens at a time. beta: (B,H,N,1) or NULL; g as above. u_all, if not NULL,
// receives U.
static ttt_tensor *ttt__scan(ttt_ctx *ctx, ttt_tensor *q, ttt_tensor *k, ttt_tensor *v,
                             ttt_tensor *beta, ttt_tensor *g, int64_t chunk, ttt_tensor **u_all) {
    int64_t N = ttt_ok(ctx) ? q->shape.dim[2] : 0, n_chunks = (N + chunk - 1) / chunk;
    ttt_tensor **o = (ttt_tensor **)ttt_alloc(ctx, 2 * (uint64_t)(n_chunks + 1) * sizeof *o, false);
    ttt_tensor *S = NULL;
    if (!o || N == 0) return v;
    for (int64_t i = 0, begin = 0; begin < N && ttt_ok(ctx); i++, begin += chunk) {
        int64_t n = TTT__MIN(chunk, N - begin);
        ttt_tensor *qc = ttt__tokens(ctx, q, begin, n), *kc = ttt__tokens(ctx, k, begin, n),
                   *u = ttt__tokens(ctx, v, begin, n), *b = ttt__tokens(ctx, beta, begin, n);
        ttt__decays decays;
        ttt__decays_of(ctx, ttt__tokens(ctx, g, begin, n), n, &decays);
        if (b) {
            if (S) u = ttt_sub(ctx, u, ttt__decayed_read(ctx, &decays, kc, S));
            ttt_tensor *news = ttt_mul(ctx, u, b),
                       *known = ttt_mul(ctx, ttt__decayed_product(ctx, &decays, kc, kc), b);
            u = ttt_solve_lower(ctx, known, news, false);
        }
        o[i] = ttt_mix(ctx, ttt__decayed_product(ctx, &decays, qc, kc), u, false, NULL);
        if (S) o[i] = ttt_add(ctx, o[i], ttt__decayed_read(ctx, &decays, qc, S));
        o[n_chunks + i] = u;
        if (begin + n == N) break;
        ttt_tensor *add = ttt_matmul_t(ctx, ttt__decayed_keys(ctx, &decays, kc, n), u, true, false);
        if (S && decays.since)
            S = ttt_mul(ctx, S, ttt_transpose(ctx, ttt_slice(ctx, decays.since, 2, n - 1, 1)));
        S = S ? ttt_add(ctx, S, add) : add;
    }
    if (u_all)
        *u_all = n_chunks > 1 ? ttt_concat(ctx, o + n_chunks, (int)n_chunks, 2) : o[n_chunks];
    return n_chunks > 1 ? ttt_concat(ctx, o, (int)n_chunks, 2) : o[0];
}

// The same of tokens (B,N,H,.), as a memory.
static void ttt__scan_unmask(ttt_ctx *ctx, ttt_unmasked *unmask, ttt_tensor *const *in,
                             ttt_tensor *u, ttt_tensor *o) {
    ttt_tensor *q = in[TTT__SCAN_Q], *k = in[TTT__SCAN_K];
    ttt__decays left;
    if (!ttt_ok(ctx)) return;
    ttt__decays_of(ctx, in[TTT__SCAN_G], o->shape.dim[2], &left);
    if (left.between) ttt__unmask_weighted(ctx, unmask, q, k, u, left.between, false, o);
    else ttt__unmask_matrix(ctx, unmask, ttt__decayed_product(ctx, &left, q, k), u, o);
}
static ttt_tensor *ttt__scan_tape(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *in,
                                  int64_t chunk) {
    ttt_tensor *a[TTT__SCAN_INPUTS], *u = NULL;
    for (int i = 0; i < TTT__SCAN_INPUTS; i++) a[i] = in[i] ? ttt__swap_heads(ctx, in[i]) : NULL;
    ttt_tensor *o = ttt__scan(ctx, a[TTT__SCAN_Q], a[TTT__SCAN_K], a[TTT__SCAN_V],
                              a[TTT__SCAN_BETA], a[TTT__SCAN_G], chunk, desc->unmask ? &u : NULL);
    if (desc->unmask) ttt__scan_unmask(ctx, desc->unmask, a, u, o);
    return ttt__swap_heads(ctx, o);
}

// Causal linear attention: (B,H,N,h).
static ttt_tensor *ttt__causal_linear(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                      const ttt__features *of, ttt_tensor *v, int64_t chunk) {
    ttt_tensor *y = ttt__scan(ctx, of->q, of->k, v, NULL, of->g, chunk, NULL);
    if (desc->normalizer == TTT_NORMALIZER_CONSTANT && ttt_ok(ctx))
        return ttt_scale(ctx, y, 1 / (ttt_real)(v->shape.dim[2] * v->shape.dim[3]));
    if (desc->normalizer == TTT_NORMALIZER_NONE || !ttt_ok(ctx)) return y;
    ttt_tensor *ones =
        ttt_full(ctx, TTT_SHAPE(v->shape.dim[0], v->shape.dim[1], v->shape.dim[2], 1),
                 1); // the sum of keys: values of one
    return ttt_div(ctx, y, ttt__scan(ctx, of->q, of->k, ones, NULL, of->g, chunk, NULL));
}

// q, k, v = SiLU(causal depthwise convolution of 4 taps (x W)), k of length 1 and q of `q_length`:
// the views of DeltaNet and Titans, heads side by side: (B,N,H,h). w: three kernels, then those of
// the convolutions, of bound 1/2 as PyTorch's.
#define TTT__VIEW_ROWS                                                                             \
    { "q_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0 },                         \
    { "k_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0 },                         \
    { "v_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0 },
#define TTT__CONV_VIEW_ROWS                                                                        \
    TTT__VIEW_ROWS                                                                                 \
    { "q_conv/kernel", "4 D", TTT_INIT_UNIFORM_IN, "12", NULL, TTT_PARAM_DECAYS,                   \
      TTT__SHORT_CONV },                                                                           \
    { "k_conv/kernel", "4 D", TTT_INIT_UNIFORM_IN, "12", NULL, TTT_PARAM_DECAYS,                   \
      TTT__SHORT_CONV },                                                                           \
    { "v_conv/kernel", "4 D", TTT_INIT_UNIFORM_IN, "12", NULL, TTT_PARAM_DECAYS,                   \
      TTT__SHORT_CONV },
static void ttt__conv_views(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                            double q_length, ttt_tensor *x, ttt_tensor **in) {
    static const char *const names[3] = { "q_conv", "k_conv", "v_conv" };
    for (int i = 0; i < 3; i++) {
        in[i] = ttt_matmul(ctx, x, w[i]);
        if (!desc->no_short_conv)
            in[i] = ttt__short_conv(ctx, desc->stream, names[i], in[i], w[3 + i]);
        in[i] = ttt__beside(ctx, in[i], desc->heads);
        in[i] = i < 2 ? ttt__sized(ctx, desc, in[i], 1e-6, i == 0 ? q_length : 1)
                      : ttt_silu(ctx, in[i]);
    }
}

// DeltaNet: these views, q / sqrt h, beta = sigmoid(x w) a head; RMS norm of each head, then W_o.
// The gated one forgets by g = -e^A softplus(x w_a + b), and SiLU(x W_g) gates its norm.
//                                                      [fla-org/flash-linear-attention, layers/]
enum {
    TTT__DELTA_VIEWS, TTT__DELTA_BETA = TTT__DELTA_VIEWS + 6, TTT__DELTA_NORM, TTT__DELTA_O,
    TTT__DELTA_A, TTT__DELTA_A_LOG, TTT__DELTA_DT, TTT__DELTA_GATE  // the gated one's
};
#define TTT__DELTA_ROWS                                                                            \
    TTT__CONV_VIEW_ROWS                                                                            \
    { "b_proj/kernel", "D H", TTT_INIT_XAVIER, "D", "H", TTT__FACTOR, 0 },                         \
    { "o_norm/scale", "h", TTT_INIT_ONE, NULL, NULL, 0, 0 },                                       \
    { "o_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0 },
static const ttt_param_row ttt__delta_rows[] = { TTT__DELTA_ROWS };
static const ttt_param_row ttt__gated_delta_rows[] = {
    TTT__DELTA_ROWS
    { "a_proj/kernel", "D H", TTT_INIT_XAVIER, "D", "H", TTT__FACTOR, 0 },
    { "A_log", "H", TTT_INIT_LOG_RATE, NULL, NULL, 0, 0 },
    { "dt_bias", "H", TTT_INIT_LOG_TIME, NULL, NULL, 0, 0 },
    { "g_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0 },
};
// q / sqrt h, k, v (B,N,H,h), and beta (B,N,H,1)
static void ttt__delta_views(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                             ttt_tensor *x, ttt_tensor **in) {
    double q_length = 1 / sqrt((double)(desc->dim / desc->heads));
    ttt__conv_views(ctx, desc, w + TTT__DELTA_VIEWS, q_length, x, in);
    in[TTT__SCAN_BETA] = ttt_sigmoid(ctx, ttt__gates(ctx, x, w[TTT__DELTA_BETA], NULL));
    in[TTT__SCAN_G] = NULL;
}
// What the memory answers, normed (B,N,H,h). in[TTT__SCAN_G]: logarithms of what it keeps at each
// token, one for all or one for each channel; NULL: it keeps everything.
static ttt_tensor *ttt__delta_read(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                                   ttt_tensor *const *in, const char *equals) {
    if (desc->unmask) desc->unmask->equals = equals;
    ttt_tensor *o = ttt__answers(ctx, desc, TTT__FUSED(ttt__scan_as_op), ttt__scan_tape, in,
                                 ttt__chunk_or(desc, 64));
    return ttt__rms_norm(ctx, w[TTT__DELTA_NORM], 1e-5, o);
}
static ttt_tensor *ttt__delta_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                      ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    ttt_tensor *in[TTT__SCAN_INPUTS];
    (void)losses;
    ttt__delta_views(ctx, desc, w, x, in);
    ttt_tensor *o = ttt__delta_read(ctx, desc, w, in,
                                    "the delta rule: causal linear attention whose values are what "
                                    "the memory did not yet know");
    return ttt_matmul(ctx, ttt__whole(ctx, o), w[TTT__DELTA_O]);
}
// -e^A softplus(z), A (H): the logarithm of what a head keeps. e^A may be too large for a number,
// and the softplus too small, where their product is not. So below `low`, where softplus(z) is
// softplus(low) e^(z - low), z goes into the exponent. And e^60 is enough of it: already times
// softplus(low) that leaves nothing of the memory, and a gradient of 0 stays one.
static ttt_tensor *ttt__log_kept(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *A,
                                 ttt_tensor *z) {
    const ttt_real low = sizeof(ttt_real) == 8 ? -37 : -17, least = -(ttt_real)HUGE_VAL;
    z = ttt_clamp(ctx, z, least, (ttt_real)3e38);
    ttt_tensor *beyond = ttt_add_scalar(ctx, z, -low), *none = ttt_scalar(ctx, 0);
    ttt_tensor *is_low = ttt_heaviside(ctx, ttt_scale(ctx, beyond, -1));
    ttt_tensor *exponent = ttt_add(ctx, ttt_reshape(ctx, A, TTT_SHAPE(desc->heads, 1)),
                                   ttt_where(ctx, is_low, beyond, none));
    ttt_tensor *rate = ttt_exp(ctx, ttt_clamp(ctx, exponent, least, 60));
    z = ttt_where(ctx, is_low, ttt_scalar(ctx, low), z);
    return ttt_mul(ctx, ttt_scale(ctx, rate, -1), ttt_softplus(ctx, z));
}
static ttt_tensor *ttt__gated_delta_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                            ttt_tensor *const *w, ttt_tensor *x,
                                            ttt_tensor **losses) {
    ttt_tensor *in[TTT__SCAN_INPUTS];
    (void)losses;
    ttt__delta_views(ctx, desc, w, x, in);
    ttt_tensor *z = ttt__gates(ctx, x, w[TTT__DELTA_A], w[TTT__DELTA_DT]);
    in[TTT__SCAN_G] = ttt__log_kept(ctx, desc, w[TTT__DELTA_A_LOG], z);
    ttt_tensor *o = ttt__delta_read(ctx, desc, w, in,
                                    "the gated delta rule: causal linear attention with decay, "
                                    "whose values are what the memory did not yet know");
    ttt_tensor *gate = ttt_silu(ctx, ttt_matmul(ctx, x, w[TTT__DELTA_GATE]));
    return ttt_matmul(ctx, ttt_mul(ctx, ttt__whole(ctx, o), gate), w[TTT__DELTA_O]);
}
// In chunks of n: 4 products of D^2, then K K^T, Q K^T and U n D each (U twice), three of D h.
static double ttt__delta_flops(const ttt_mixer_desc *desc, int64_t N) {
    double n = (double)N, D = (double)desc->dim, h = D / (double)desc->heads,
           chunk = (double)TTT__MIN(N, ttt__chunk_or(desc, 64));
    return 2 * n * (4 * D * D + 4 * chunk * D + 3 * D * h + (desc->no_short_conv ? 0 : 12 * D));
}
// and the output's gate
static double ttt__gated_delta_flops(const ttt_mixer_desc *desc, int64_t N) {
    return ttt__delta_flops(desc, N) + 2 * (double)N * (double)desc->dim * (double)desc->dim;
}

// KDA: forgets by g = -e^A softplus(x F_0 F_1 + b), one for each channel of the keys; the norm is
// gated by sigmoid(x G_0 G_1 + b).           [arXiv 2510.26692; fla-org/flash-linear-attention]
enum {
    TTT__KDA_F_0 = TTT__DELTA_O + 1, TTT__KDA_F_1, TTT__KDA_A_LOG, TTT__KDA_DT,
    TTT__KDA_G_0, TTT__KDA_G_1, TTT__KDA_G_BIAS
};
static const ttt_param_row ttt__kda_rows[] = {
    TTT__DELTA_ROWS
    { "f_proj/0/kernel", "D h", TTT_INIT_XAVIER, "D", "h", TTT__FACTOR, 0 },
    { "f_proj/1/kernel", "h D", TTT_INIT_XAVIER, "h", "D", TTT__FACTOR, 0 },
    { "A_log", "H", TTT_INIT_LOG_RATE_1, NULL, NULL, 0, 0 },
    { "dt_bias", "D", TTT_INIT_LOG_TIME, NULL, NULL, 0, 0 },
    { "g_proj/0/kernel", "D h", TTT_INIT_XAVIER, "D", "h", TTT__FACTOR, 0 },
    { "g_proj/1/kernel", "h D", TTT_INIT_XAVIER, "h", "D", TTT__FACTOR, 0 },
    { "g_proj/1/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
};
// x first second + bias: a number for each channel (B,N,H,h), by way of h numbers
static ttt_tensor *ttt__low_rank(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *x,
                                 ttt_tensor *first, ttt_tensor *second, ttt_tensor *bias) {
    ttt_tensor *z = ttt__affine_maybe(ctx, ttt_matmul(ctx, x, first), second, bias);
    return ttt__beside(ctx, z, desc->heads);
}
static ttt_tensor *ttt__kda_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                                    ttt_tensor *x, ttt_tensor **losses) {
    ttt_tensor *in[TTT__SCAN_INPUTS];
    (void)losses;
    ttt__delta_views(ctx, desc, w, x, in);
    ttt_tensor *z = ttt__low_rank(ctx, desc, x, w[TTT__KDA_F_0], w[TTT__KDA_F_1], w[TTT__KDA_DT]);
    in[TTT__SCAN_G] = ttt__log_kept(ctx, desc, w[TTT__KDA_A_LOG], z);
    ttt_tensor *o = ttt__delta_read(ctx, desc, w, in,
                                    "the delta rule with a decay for each channel of the keys: "
                                    "causal attention whose weights are sums over decayed "
                                    "channels, and whose values are what the memory did not yet "
                                    "know");
    ttt_tensor *gate =
        ttt__low_rank(ctx, desc, x, w[TTT__KDA_G_0], w[TTT__KDA_G_1], w[TTT__KDA_G_BIAS]);
    o = ttt_mul(ctx, o, ttt_sigmoid(ctx, gate));
    return ttt_matmul(ctx, ttt__whole(ctx, o), w[TTT__DELTA_O]);
}
// For each length of block K K^T and Q K^T again, and sums of g before and after.
static double ttt__kda_flops(const ttt_mixer_desc *desc, int64_t N) {
    double n = (double)N, D = (double)desc->dim, h = D / (double)desc->heads, lengths = 0;
    int64_t chunk = TTT__MIN(N, ttt__chunk_or(desc, 64));
    for (int64_t block = 1; block < chunk; block *= 2) lengths++;
    return ttt__delta_flops(desc, N) + 2 * n * (4 * D * h + 4 * lengths * (double)chunk * D);
}

TTT__CONSTANT ttt_mixer ttt_mixer_delta_net = {
    "delta-net", "DeltaNet_0", "a matrix in which a new value replaces the old one",
    "arXiv 2406.06484", TTT__ROWS(ttt__delta_rows), NULL, "chunk no_short_conv",
    TTT_MIXER_CAUSAL | TTT_MIXER_STREAMS,
    ttt__delta_forward, TTT__FUSED(ttt__delta_forward), ttt__delta_flops, ttt__matrix_state,
    ttt__check_chunk,
};
TTT__CONSTANT ttt_mixer ttt_mixer_gated_delta_net = {
    "gated-delta-net", "GatedDeltaNet_0", "the same, which also forgets", "arXiv 2412.06464",
    TTT__ROWS(ttt__gated_delta_rows), NULL, "chunk no_short_conv",
    TTT_MIXER_CAUSAL | TTT_MIXER_STREAMS,
    ttt__gated_delta_forward, TTT__FUSED(ttt__gated_delta_forward), ttt__gated_delta_flops,
    ttt__matrix_state, ttt__check_chunk,
};
TTT__CONSTANT ttt_mixer ttt_mixer_kda = {
    "kda", "KimiDeltaAttention_0", "the same, which forgets each channel by itself",
    "arXiv 2510.26692", TTT__ROWS(ttt__kda_rows), NULL, "chunk no_short_conv",
    TTT_MIXER_CAUSAL | TTT_MIXER_STREAMS,
    ttt__kda_forward, TTT__FUSED(ttt__kda_forward), ttt__kda_flops, ttt__matrix_state,
    ttt__check_chunk,
};

// -- a learner of dense layers that is written token by token
// f(x) = z_L, z_l = x_l W_l + b_l, x_l+1 = GELU(z_l): one layer or two. The output is f(x), or with
// a norm x + LN(f(x)); the loss at a token is |f - v|^2 / 2 or, with a norm,
// |LN(f) - (v - k)|^2 / 2. Chunk by chunk, with the gradients g_l of all its tokens in z_l at the
// weights before the chunk, token t reads
//     W_t = carry_t W + momentum_t V - sum over s of A_ts x_s^T g_s,   V the velocity
// which is never made: z_t = carry_t (x_t W) + momentum_t (x_t V) - (A o x x^T) g is the same, the
// *dual form* [arXiv 2407.04620, §2.5], and one text serves all whose A differs:
//   ttt, causal       A_ts = c_t rate_s, s <= t, t the place in the chunk; c_t = 1 / (t + 1)
//   ttt, all at once  A_ts = rate_s / N, for every t
//   titans            the chain of decays and momenta, see ttt__rule_weights
typedef struct ttt__memory {
    int layers;
    ttt_tensor *w[2], *b[2];    // (B,H,in,out), (B,H,1,out) or NULL
    ttt_tensor *vw[2], *vb[2];  // velocity, NULL: none yet
    ttt_tensor *scale, *shift;  // of the norm, (H,1,h); NULL: none
} ttt__memory;

static ttt_tensor *ttt__memory_norm(ttt_ctx *ctx, const ttt__memory *memory, ttt_tensor *z) {
    return memory->scale ? ttt__layer_norm(ctx, memory->scale, memory->shift, z) : z;
}
static ttt_tensor *ttt__memory_predict(ttt_ctx *ctx, const ttt__memory *memory, ttt_tensor *x,
                                       ttt_tensor **last) {
    if (memory->layers == 2)
        x = ttt_gelu(ctx, ttt__affine_maybe(ctx, x, memory->w[0], memory->b[0]));
    if (last) *last = x;
    return ttt__affine_maybe(ctx, x, memory->w[memory->layers - 1], memory->b[memory->layers - 1]);
}
// Inputs x and gradients g of each layer, for keys k and labels.
static void ttt__memory_gradients(ttt_ctx *ctx, const ttt__memory *memory, ttt_tensor *k,
                                  ttt_tensor *label, ttt_tensor **x, ttt_tensor **g) {
    int last = memory->layers - 1;
    ttt_tensor *z0 =
        memory->layers == 2 ? ttt__affine_maybe(ctx, k, memory->w[0], memory->b[0]) : NULL;
    x[0] = k;
    if (z0) x[1] = ttt_gelu(ctx, z0);
    ttt_tensor *z = ttt__affine_maybe(ctx, x[last], memory->w[last], memory->b[last]),
               *error = ttt_sub(ctx, ttt__memory_norm(ctx, memory, z), label);
    g[last] = memory->scale ? ttt_normalize_d1(ctx, z, ttt_mul(ctx, error, memory->scale),
                                               (ttt_real)TTT_LAYER_NORM_EPS, true)
                       : error;
    if (z0)
        g[0] =
            ttt_mul(ctx, ttt_matmul_t(ctx, g[1], memory->w[1], false, true), ttt_gelu_d1(ctx, z0));
}
// How the gradients of a chunk of n tokens are weighted.
typedef struct ttt__chunk_weights {
    ttt_tensor *A;                  // (..,n,n), of which only
    ttt_tensor *seen;               // (n,n) counts, s <= t; NULL: all
    ttt_tensor *carry, *momentum;   // (B,H,n,1), NULL: 1 and 0
    // After the chunk  W = end_carry W + end_momentum V - sum end x^T g,
    //                  V = end_keep V - sum end_velocity x^T g
    ttt_tensor *end, *end_velocity;                   // (..,1,n)
    ttt_tensor *end_carry, *end_momentum, *end_keep;  // (B,H,1,1)
} ttt__chunk_weights;
// f at token t's own weights, for queries q. Bias: a feature that is 1.
static ttt_tensor *ttt__memory_read(ttt_ctx *ctx, const ttt__memory *memory,
                                    const ttt__chunk_weights *a, ttt_tensor *const *x,
                                    ttt_tensor *const *g, ttt_tensor *q, ttt_tensor **last) {
    for (int l = 0; l < memory->layers; l++) {
        ttt_tensor *z = ttt__affine_maybe(ctx, q, memory->w[l], memory->b[l]),
                   *alike = ttt_matmul_t(ctx, q, x[l], false, true);
        if (a->carry) z = ttt_mul(ctx, z, a->carry);
        if (memory->vw[l])
            z = ttt_add(
                ctx, z,
                ttt_mul(ctx, ttt__affine_maybe(ctx, q, memory->vw[l], memory->vb[l]), a->momentum));
        if (memory->b[l]) alike = ttt_add_scalar(ctx, alike, 1);
        alike = ttt_mul(ctx, ttt_scale(ctx, a->A, -1), alike);
        z = ttt_mix(ctx, ttt__only(ctx, a->seen, alike), g[l], false, z);
        if (l == memory->layers - 1) {
            if (last) *last = q;
            return z;
        }
        q = ttt_gelu(ctx, z);
    }
    return q;
}
// keep w + push v + x^T step. w NULL (and v with it) or v NULL: zero. x NULL: a bias, whose input
// is 1.
static ttt_tensor *ttt__memory_moved(ttt_ctx *ctx, ttt_tensor *w, ttt_tensor *keep, ttt_tensor *v,
                                     ttt_tensor *push, ttt_tensor *x, ttt_tensor *step) {
    ttt_tensor *sum = x ? NULL : ttt_sum_axis(ctx, step, -2);
    if (w && keep) w = ttt_mul(ctx, w, keep);
    if (v) w = ttt_add(ctx, w, ttt_mul(ctx, v, push));
    if (!w) return x ? ttt_matmul_t(ctx, x, step, true, false) : sum;
    return x ? ttt_matmul_add(ctx, x, step, true, false, w) : ttt_add(ctx, w, sum);
}
static ttt_tensor *ttt__memory_step(ttt_ctx *ctx, ttt_tensor *g, ttt_tensor *share) {
    return ttt_mul(ctx, g, ttt_scale(ctx, ttt_transpose(ctx, share), -1));
}
static void ttt__memory_write(ttt_ctx *ctx, ttt__memory *memory, const ttt__chunk_weights *a,
                              ttt_tensor *const *x, ttt_tensor *const *g) {
    for (int l = 0; l < memory->layers; l++) {
        ttt_tensor *in = ttt__memory_step(ctx, g[l], a->end), *w = memory->w[l], *b = memory->b[l];
        memory->w[l] =
            ttt__memory_moved(ctx, w, a->end_carry, memory->vw[l], a->end_momentum, x[l], in);
        if (b)
            memory->b[l] =
                ttt__memory_moved(ctx, b, a->end_carry, memory->vb[l], a->end_momentum, NULL, in);
        if (!a->end_velocity) continue;
        in = ttt__memory_step(ctx, g[l], a->end_velocity);
        memory->vw[l] = ttt__memory_moved(ctx, memory->vw[l], a->end_keep, NULL, NULL, x[l], in);
        if (b)
            memory->vb[l] =
                ttt__memory_moved(ctx, memory->vb[l], a->end_keep, NULL, NULL, NULL, in);
    }
}

// How much of each gradient reaches which token. keep, momentum: logarithms of what is kept of the
// weights and of the velocity; NULL: there is no such thing.
typedef struct ttt__update_rule {
    ttt_tensor *rate;  // (B,H,N,1), and so are:
    ttt_tensor *keep, *momentum;
    bool causal;
    int64_t chunk;
    bool leaves;        // the weights after the last chunk are wanted
    ttt_tensor *share;  // without gates: c (H or 1,places of a chunk); NULL: means
} ttt__update_rule;
// c without an index: 1/(place + 1), the mean of the gradients so far; (1,places)
static ttt_tensor *ttt__mean_shares(ttt_ctx *ctx, int64_t places) {
    ttt_tensor *share = ttt_new(ctx, TTT_SHAPE(1, places));
    for (int64_t i = 0; ttt_ok(ctx) && i < places; i++) share->data[i] = 1 / (ttt_real)(i + 1);
    return share;
}
// What is in c for tokens begin .. begin+n, (H or 1,n,n): that of the reader's place in the chunk
// that a token is in or, when that chunk is over, of the chunk's last place.
static ttt_tensor *ttt__place_shares(ttt_ctx *ctx, const ttt__update_rule *r, int64_t begin,
                                     int64_t n) {
    int64_t N = r->rate->shape.dim[2];
    int64_t *place = (int64_t *)ttt_alloc(ctx, (uint64_t)(n * n) * sizeof *place, false);
    for (int64_t i = 0; place && i < n; i++)
        for (int64_t k = 0; k < n; k++) {
            int64_t start = (begin + k) / r->chunk * r->chunk;
            int64_t last = TTT__MIN(start + r->chunk, N) - 1;
            place[i * n + k] = k > i ? 0 : TTT__MIN(begin + i, last) - start;
        }
    ttt_tensor *c = r->share ? r->share : ttt__mean_shares(ctx, TTT__MIN(r->chunk, N));
    if (!ttt_ok(ctx)) return c;
    const int64_t *size = c->shape.dim;
    c = ttt_reshape(ctx, c, TTT_SHAPE(size[0], size[1], 1));
    c = ttt_index_select(ctx, c, ttt_from_int(ctx, TTT_SHAPE(n * n), place));
    c = ttt_reshape(ctx, c, TTT_SHAPE(size[0], n, n));
    return ttt__only(ctx, ttt__lower(ctx, n, n, 0), c);
}
static ttt_tensor *ttt__last_row(ttt_ctx *ctx, ttt_tensor *a) {
    return ttt_ok(ctx) ? ttt_slice(ctx, a, -2, a->shape.dim[a->shape.rank - 2] - 1, 1) : a;
}
// Titans: V_t = eta_t V_t-1 - theta_t g_t,  W_t = (1 - alpha_t) W_t-1 + V_t. With the products E of
// what is kept of W, and H of what is kept of V:
//     W_t = E_t W + sum over j <= t of E_t/E_j V_j
//     V_j = H_j V - sum over s <= j of H_j/H_s theta_s g_s
static void ttt__rule_weights(ttt_ctx *ctx, const ttt__update_rule *r, int64_t begin, int64_t n,
                              ttt__chunk_weights *a) {
    ttt_tensor *rate = ttt_transpose(ctx, ttt__tokens(ctx, r->rate, begin, n));
    ttt_tensor *e, *between_e, *v, *between_v;
    memset(a, 0, sizeof *a);
    if (!r->causal) {
        a->end = ttt_ok(ctx) ? ttt_scale(ctx, rate, 1 / (ttt_real)n) : rate;
        return;
    }
    a->seen = ttt__lower(ctx, n, n, 0);
    if (!r->keep) {
        a->A = ttt_mul(ctx, ttt__place_shares(ctx, r, begin, n), rate);
        a->end = ttt__last_row(ctx, a->A);
        return;
    }
    ttt__decay(ctx, ttt__tokens(ctx, r->keep, begin, n), &e, &between_e);
    ttt__decay(ctx, ttt__tokens(ctx, r->momentum, begin, n), &v, &between_v);
    if (!ttt_ok(ctx)) return;
    a->A = ttt_mul(ctx, ttt_mix(ctx, between_e, between_v, false, NULL), rate);
    a->carry = e;
    a->momentum = ttt_mix(ctx, between_e, v, false, NULL);
    a->end = ttt__last_row(ctx, a->A);
    a->end_velocity = ttt_mul(ctx, ttt__last_row(ctx, between_v), rate);
    a->end_carry = ttt__last_row(ctx, a->carry);
    a->end_momentum = ttt__last_row(ctx, a->momentum);
    a->end_keep = ttt__last_row(ctx, v);
}

// The whole sequence: read-outs f (B,H,N,h), and in m the weights after it, if the rule leaves any.
// For ttt_unmask: in the last layer a token's read-out is
// carry_t (x_t W_0) - sum A_ts (x_t x_s) g_s.
static ttt_tensor *ttt__memory_run(ttt_ctx *ctx, ttt__memory *memory, const ttt__update_rule *r,
                                   ttt_tensor *q, ttt_tensor *k, ttt_tensor *label,
                                   ttt_unmasked *unmask) {
    enum { Z, QX, KX, G, KINDS };
    int64_t N = ttt_ok(ctx) ? k->shape.dim[2] : 0, chunk = r->causal ? r->chunk : TTT__MAX(N, 1);
    int64_t n_chunks = (N + chunk - 1) / chunk;
    ttt_tensor **part =
        (ttt_tensor **)ttt_alloc(ctx, KINDS * (uint64_t)(n_chunks + 1) * sizeof *part, false);
    if (!part || N == 0) return label;
    ttt_tensor *whole[KINDS], *w0 = memory->w[memory->layers - 1],
                              *b0 = memory->b[memory->layers - 1];
    for (int64_t i = 0; i < n_chunks && ttt_ok(ctx); i++) {
        int64_t n = TTT__MIN(chunk, N - i * chunk);
        ttt_tensor *x[2], *g[2], *qc = ttt__tokens(ctx, q, i * chunk, n), **p = part + i;
        ttt__chunk_weights a;
        ttt__memory_gradients(ctx, memory, ttt__tokens(ctx, k, i * chunk, n),
                              ttt__tokens(ctx, label, i * chunk, n), x, g);
        ttt__rule_weights(ctx, r, i * chunk, n, &a);
        if (!ttt_ok(ctx)) break;
        if (r->causal)
            p[Z * n_chunks] = ttt__memory_read(ctx, memory, &a, x, g, qc, &p[QX * n_chunks]);
        if (r->leaves || !r->causal || i + 1 < n_chunks) ttt__memory_write(ctx, memory, &a, x, g);
        if (!r->causal) p[Z * n_chunks] = ttt__memory_predict(ctx, memory, qc, &p[QX * n_chunks]);
        p[KX * n_chunks] = x[memory->layers - 1];
        p[G * n_chunks] = g[memory->layers - 1];
    }
    for (int i = 0; i < KINDS && ttt_ok(ctx); i++)
        if (i == Z || unmask)
            whole[i] = n_chunks > 1 ? ttt_concat(ctx, part + i * n_chunks, (int)n_chunks, 2)
                                    : part[i * n_chunks];
    if (!ttt_ok(ctx)) return label;
    if (unmask) {
        ttt__chunk_weights a;
        ttt__rule_weights(ctx, r, 0, N, &a);
        if (!a.A && ttt_ok(ctx))  // every token reads the last weights
            a.A = ttt_broadcast(ctx, a.end, TTT_SHAPE(q->shape.dim[0], q->shape.dim[1], N, N));
        ttt__unmask_weighted(ctx, unmask, whole[QX], whole[KX], ttt_scale(ctx, whole[G], -1), a.A,
                             b0 != NULL, whole[Z]);
        ttt__unmask_start(ctx, unmask, w0, b0, a.carry);
    }
    return whole[Z];
}
static ttt_real ttt__rate(const ttt_mixer_desc *desc) {
    return desc->inner_lrs ? desc->inner_lrs[0] : desc->inner_lr;
}
static ttt__memory ttt__memory_of(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w0,
                                  int64_t B, ttt_tensor *scale, ttt_tensor *shift) {
    ttt__memory memory;
    memset(&memory, 0, sizeof memory);
    memory.layers = ttt__dense_layers(desc->mixer->learner);
    for (int l = 0; l < memory.layers && ttt_ok(ctx); l++) {
        memory.w[l] = ttt__lift_weight(ctx, w0[2 * l], B);
        memory.b[l] = w0[2 * l + 1] ? ttt__lift_weight(ctx, w0[2 * l + 1], B) : NULL;
    }
    memory.scale = scale ? ttt__head_row(ctx, scale) : NULL;
    memory.shift = shift ? ttt__head_row(ctx, shift) : NULL;
    return memory;
}
// (2): the loss with the weights before and after, sum over heads, mean over sequences and tokens
static ttt_tensor *ttt__memory_losses(ttt_ctx *ctx, const ttt__memory *before,
                                      const ttt__memory *after, ttt_tensor *k, ttt_tensor *label) {
    ttt_tensor *l[2];
    for (int i = 0; i < 2; i++) {
        const ttt__memory *memory = i ? after : before;
        ttt_tensor *error = ttt_sub(
            ctx, ttt__memory_norm(ctx, memory, ttt__memory_predict(ctx, memory, k, NULL)), label);
        l[i] = ttt_reshape(ctx, ttt_sum(ctx, ttt_square(ctx, error)), TTT_SHAPE(1));
    }
    if (!ttt_ok(ctx)) return label;
    return ttt_scale(ctx, ttt_concat(ctx, l, 2, 0),
                     (ttt_real)0.5 / (ttt_real)(k->shape.dim[0] * k->shape.dim[2]));
}

// The memory between the views and what it answers: f or, with a norm, q + LN(f). Tokens (B,N,H,.);
// scale and shift (H,h), c (H,chunk) or NULL where it is 1/(place + 1), and the learner's weights.
enum {
    TTT__MEMORY_Q, TTT__MEMORY_K, TTT__MEMORY_V, TTT__MEMORY_RATE, TTT__MEMORY_KEEP,
    TTT__MEMORY_MOMENTUM, TTT__MEMORY_SCALE, TTT__MEMORY_SHIFT, TTT__MEMORY_SHARE, TTT__MEMORY_W0,
    TTT__MEMORY_INPUTS = TTT__MEMORY_W0 + 4
};
static bool ttt__memory_causal(const ttt_mixer_desc *desc) {
    return desc->causal || (desc->mixer->flags & TTT_MIXER_CAUSAL);
}
static ttt_tensor *ttt__memory_op_by_op(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                        ttt_tensor *const *in, int64_t chunk,
                                        ttt_tensor **losses) {
    ttt_tensor *first[TTT__MEMORY_SCALE];
    for (int i = 0; i < TTT__MEMORY_SCALE; i++)
        first[i] = in[i] ? ttt__swap_heads(ctx, in[i]) : NULL;
    ttt_tensor *q = first[TTT__MEMORY_Q], *k = first[TTT__MEMORY_K], *label = first[TTT__MEMORY_V];
    ttt__update_rule rule = { first[TTT__MEMORY_RATE],     first[TTT__MEMORY_KEEP],
                              first[TTT__MEMORY_MOMENTUM], ttt__memory_causal(desc),
                              chunk,                       losses != NULL,
                              in[TTT__MEMORY_SHARE] };
    if (!ttt_ok(ctx)) return label;
    ttt__memory memory = ttt__memory_of(ctx, desc, in + TTT__MEMORY_W0, q->shape.dim[0],
                                        in[TTT__MEMORY_SCALE], in[TTT__MEMORY_SHIFT]),
                before = memory;
    if (memory.scale) label = ttt_sub(ctx, label, k);
    ttt_tensor *y = ttt__memory_run(ctx, &memory, &rule, q, k, label, desc->unmask);
    if (losses) *losses = ttt__memory_losses(ctx, &before, &memory, k, label);
    if (memory.scale) y = ttt_add(ctx, q, ttt__memory_norm(ctx, &memory, y));
    return ttt__swap_heads(ctx, y);
}
static ttt_tensor *ttt__memory_tape(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *in,
                                    int64_t chunk) {
    return ttt__memory_op_by_op(ctx, desc, in, chunk, NULL);
}
// Losses are of the weights before and after all tokens, which one op does not show.
static ttt_tensor *ttt__memory_answers(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                       ttt_tensor *const *in, const char *equals,
                                       ttt_tensor **losses) {
    int64_t N = ttt_ok(ctx) ? in[0]->shape.dim[1] : 0;
    int64_t chunk = ttt__memory_causal(desc) ? ttt__chunk_or(desc, 16) : TTT__MAX(N, 1);
    if (desc->unmask) desc->unmask->equals = equals;
    if (losses) return ttt__memory_op_by_op(ctx, desc, in, chunk, losses);
    return ttt__answers(ctx, desc, TTT__FUSED(ttt__memory_as_op), ttt__memory_tape, in, chunk);
}

// Rotary positions: of the token at place p, features 2i and 2i+1 of q and k are turned together,
// as a point of the plane, by the angle p theta^(-2i/h); the last of an odd h stays. So products
// of q and k depend on how far apart two tokens are. Here p counts from the beginning of the chunk,
// as the official code has it, and a token is turned by the same bits however the sequence was cut.
//                                                                    [Su 2021, arXiv 2104.09864]
typedef struct ttt__rotary {
    ttt_mixer_desc d;
    bool back;            // by the opposite angle, which is the gradient
} ttt__rotary;
typedef struct ttt__rotary_job {
    const ttt__rotary *of;
    const ttt_tensor *x;  // (B,N,H,h)
    ttt_real *y, *turns;  // a row for each place: h cosines, h sines with their signs
    int64_t chunk;
    const ttt__kernels *kernels;
} ttt__rotary_job;
// Where in its chunk a sequence begins, or goes on.
static int64_t ttt__first_place(const ttt_mixer_desc *desc, int64_t sequence) {
    return desc->stream ? ttt__lane_read(desc->stream, sequence) % ttt__chunk_or(desc, 16) : 0;
}
static ttt_real *ttt__turns_at(const ttt__rotary_job *job, int64_t sequence, int64_t token) {
    int64_t place = (ttt__first_place(&job->of->d, sequence) + token) % job->chunk;
    return job->turns + place * 2 * ttt__last(job->x);
}
static void ttt__rotary_turn(const ttt__rotary *of, int64_t place, int64_t h, ttt_real *turn) {
    for (int64_t i = 0; i < h; i++) {
        double angle = (double)place * pow((double)of->d.rotary, -(double)(i / 2 * 2) / (double)h);
        bool alone = i == h - 1 && i % 2 == 0, first = i % 2 == 0;
        turn[i] = (ttt_real)(alone ? 1 : cos(angle));
        turn[h + i] = (ttt_real)(alone ? 0 : first != of->back ? -sin(angle) : sin(angle));
    }
}
// The rows of places that have tokens; the others stay zero, as no cosine is.
static void ttt__rotary_turns(const ttt__rotary_job *job) {
    int64_t B = job->x->shape.dim[0], N = job->x->shape.dim[1], h = ttt__last(job->x);
    for (int64_t b = 0; b < B; b++)
        for (int64_t t = 0; t < N && t < job->chunk; t++) {
            ttt_real *turn = ttt__turns_at(job, b, t);
            if (turn[0] == 0) ttt__rotary_turn(job->of, (turn - job->turns) / (2 * h), h, turn);
        }
}
static void ttt__rotary_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__rotary_job *job = (const ttt__rotary_job *)arg;
    int64_t N = job->x->shape.dim[1], H = job->x->shape.dim[2], h = ttt__last(job->x);
    (void)thread;
    for (int64_t token = begin; token < end; token++)
        job->kernels->rotate(H, h, job->x->data + token * H * h,
                             ttt__turns_at(job, token / N, token % N), job->y + token * H * h);
}
static void ttt__rotary_forward(ttt_ctx *ctx, ttt_tensor *y) {
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    ttt__rotary_job job = { (const ttt__rotary *)y->arg, y->in[0], y->data, NULL, 0, ctx->k };
    int64_t B = y->shape.dim[0], N = y->shape.dim[1], rows = 0;
    job.chunk = ttt__chunk_or(&job.of->d, 16);
    for (int64_t b = 0; b < B; b++) rows = TTT__MAX(rows, ttt__first_place(&job.of->d, b) + N);
    uint64_t bytes = (uint64_t)(TTT__MIN(rows, job.chunk) * 2 * ttt__last(y)) * sizeof(ttt_real);
    if (y->size > 0) job.turns = (ttt_real *)ttt__arena_alloc(ctx, &ctx->scratch, bytes);
    if (job.turns) {
        memset(job.turns, 0, (size_t)bytes);
        ttt__rotary_turns(&job);
        ttt__parallel(ctx, -1, B * N, 1 + 16384 * B * N / y->size, ttt__rotary_share, &job);
    }
    ttt__arena_release(&ctx->scratch, scratch);
}
static ttt_tensor *ttt__rotate(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *x, bool back);
static void ttt__rotary_rule(ttt_ctx *ctx, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d) {
    const ttt__rotary *of = (const ttt__rotary *)y->arg;
    if (d[0]) d[0] = ttt__rotate(ctx, &of->d, g, !of->back);
}
static int64_t ttt__rotary_count(const ttt_tensor *y) { return 3 * y->size; }
static const ttt_op ttt__op_rotary = {
    "rotary", "y = x, pairs of features turned by their token's place", 1, 0, 0,
    ttt__rotary_forward, ttt__rotary_rule, NULL, NULL, ttt__rotary_count,
};
// x (B,N,H,h) with each token turned by its place in the chunk, forwards or back.
static ttt_tensor *ttt__rotate(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *x, bool back) {
    ttt__rotary of;
    if (!ttt_ok(ctx)) return &ctx->empty;
    memset(&of, 0, sizeof of);
    of.d = *desc;
    of.back = back;
    return ttt_apply(ctx, &ttt__op_rotary, &x, 1, x->shape, &of, sizeof of);
}

// TTT-Linear and TTT-MLP: the learner's task is to give v - k for k, so that with the residual it
// gives v. Each token has a learned rate. One step is taken on all tokens, then every token reads;
// with .causal there are mini-batches of `chunk`, of which a token sees its past:
//     q, k, v = x W_q, x W_k, x W_v             rate = inner_lr sigmoid(x w + b) / h
//     l(W; s) = |LN(f_W(k_s)) - (v_s - k_s)|^2 / 2
//     W_t = W - c_t sum over s <= t of rate_s dl(W; s)/dW    c_t = 1 / (t + 1)
//     y_t = q_t + LN(f_W_t(q_t)),               out = post_norm(y) W_o, over all heads
// where W is as the last mini-batch left it, and t the place in this one. c times the whole sum:
// an early token's part becomes less as the mini-batch fills. The official code of the language
// model has more, which are options:
//     .rotary        q and k are turned by t, see ttt__rotate
//     .token_index   c_t = max(0, 1 / (t + 1) + index_t), index a parameter
//     .share_qk      q = conv_q(x W_q) + b_q, k = conv_k(x W_q) + b_k, causal and depthwise
//     .output_gate   out = (GELU(x W_g) o post_norm(y)) W_o
// With .no_decoder_norm the task is v, and the read-out f(q).
//                                          [arXiv 2407.04620; test-time-training/ttt-lm-pytorch]
enum {
    TTT__TTT_Q, TTT__TTT_K, TTT__TTT_V, TTT__TTT_O, TTT__TTT_LR, TTT__TTT_LR_BIAS, TTT__TTT_SCALE,
    TTT__TTT_SHIFT, TTT__TTT_POST, TTT__TTT_INDEX = TTT__TTT_POST + 2, TTT__TTT_CONV_Q,
    TTT__TTT_CONV_K = TTT__TTT_CONV_Q + 2, TTT__TTT_GATE = TTT__TTT_CONV_K + 2, TTT__TTT_W0
};
#define TTT__TTT_CONV_ROWS(name)                                                                   \
    { name "/kernel", "C D", TTT_INIT_UNIFORM_IN, "3C", NULL, TTT_PARAM_DECAYS, TTT__SHARED_QK },  \
    { name "/bias", "D", TTT_INIT_UNIFORM_IN, "3C", NULL, 0, TTT__SHARED_QK },
static const ttt_param_row ttt__ttt_rows[] = {
    { "q_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0 },
    { "k_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, TTT__OWN_KEYS },
    { "v_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0 },
    { "o_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0 },
    { "learnable_ttt_lr/kernel", "D H", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_DECAYS, 0 },
    { "learnable_ttt_lr/bias", "H", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    { "ttt_norm/scale", "H h", TTT_INIT_ONE, NULL, NULL, 0, TTT__DECODER_NORM },
    { "ttt_norm/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, TTT__DECODER_NORM },
    { "post_norm/scale", "D", TTT_INIT_ONE, NULL, NULL, 0, 0 },
    { "post_norm/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    { "token_index", "M", TTT_INIT_ZERO, NULL, NULL, 0, TTT__TOKEN_INDEX },
    TTT__TTT_CONV_ROWS("conv_q")
    TTT__TTT_CONV_ROWS("conv_k")
    { "g_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, TTT__OUTPUT_GATE },
};
static int64_t ttt__conv_taps(const ttt_mixer_desc *desc) { return desc->conv ? desc->conv : 4; }
// q, k, v (B,N,H,h)
static void ttt__ttt_views(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                           ttt_tensor *x, ttt_tensor **in) {
    ttt_tensor *shared = desc->share_qk ? ttt_matmul(ctx, x, w[TTT__TTT_Q]) : NULL;
    for (int i = 0; i < 3; i++) {
        ttt_tensor *const *conv = w + (i == 0 ? TTT__TTT_CONV_Q : TTT__TTT_CONV_K);
        if (shared && i < 2)
            in[i] = ttt_add(
                ctx, ttt__short_conv(ctx, desc->stream, "conv", shared, conv[0]), conv[1]);
        else in[i] = ttt_matmul(ctx, x, w[TTT__TTT_Q + i]);
        in[i] = ttt__beside(ctx, in[i], desc->heads);
        if (desc->rotary != 0 && i < 2) in[i] = ttt__rotate(ctx, desc, in[i], false);
    }
}
// c of each head: its gradient is the sum over heads
static ttt_tensor *ttt__learned_shares(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                       ttt_tensor *index) {
    int64_t places = ttt__chunk_or(desc, 16);
    ttt_tensor *c = ttt_add(ctx, ttt__mean_shares(ctx, places), index);
    c = ttt_clamp(ctx, c, 0, (ttt_real)HUGE_VAL);
    return ttt_broadcast(ctx, c, TTT_SHAPE(desc->heads, places));
}
// All that the memory reads.
static void ttt__ttt_inputs(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                            ttt_tensor *x, ttt_tensor **in) {
    double h = (double)(desc->dim / desc->heads);
    memset(in, 0, TTT__MEMORY_INPUTS * sizeof *in);
    ttt__ttt_views(ctx, desc, w, x, in);
    ttt_tensor *gate = ttt_sigmoid(ctx, ttt__gates(ctx, x, w[TTT__TTT_LR], w[TTT__TTT_LR_BIAS]));
    in[TTT__MEMORY_RATE] = ttt_scale(ctx, gate, ttt__rate(desc) / (ttt_real)h);
    in[TTT__MEMORY_SCALE] = w[TTT__TTT_SCALE];
    in[TTT__MEMORY_SHIFT] = w[TTT__TTT_SHIFT];
    if (desc->token_index)
        in[TTT__MEMORY_SHARE] = ttt__learned_shares(ctx, desc, w[TTT__TTT_INDEX]);
    for (int i = 0; i < desc->mixer->learner->n_rows; i++)
        in[TTT__MEMORY_W0 + i] = w[TTT__TTT_W0 + i];
}
static ttt_tensor *ttt__ttt_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                                    ttt_tensor *x, ttt_tensor **losses) {
    ttt_tensor *in[TTT__MEMORY_INPUTS];
    ttt__ttt_inputs(ctx, desc, w, x, in);
    ttt_tensor *y = ttt__memory_answers(
        ctx, desc, in,
        ttt__dense_layers(desc->mixer->learner) == 1
            ? "linear attention whose values are the learner's errors"
            : "linear attention on the features of the learner's hidden layer, whose values are "
              "its errors",
        losses);
    ttt_weights post = ttt__weights(w + TTT__TTT_POST, 2);
    y = ttt_layer_norm(ctx, post, ttt__whole(ctx, y));
    if (desc->output_gate)
        y = ttt_mul(ctx, ttt_gelu(ctx, ttt_matmul(ctx, x, w[TTT__TTT_GATE])), y);
    return ttt_matmul(ctx, y, w[TTT__TTT_O]);
}
// Views and output 4 D^2; the learner forwards, backwards and once more to be read; in dual form
// also the products of a chunk.
static double ttt__memory_flops_in(const ttt_mixer_desc *desc, int64_t N, bool chunks) {
    double n = (double)N, D = (double)desc->dim, h = D / (double)desc->heads;
    double f = (double)desc->mixer->learner->flops * D * h, chunk = 0;
    int layers = ttt__dense_layers(desc->mixer->learner);
    if (chunks)
        chunk = layers * (layers > 1 ? 5 : 2) * (double)TTT__MIN(N, ttt__chunk_or(desc, 16));
    return 2 * n * (4 * D * D + (layers > 1 ? 3.5 : 3) * f + chunk * D);
}
static void ttt__memory_check(ttt_ctx *ctx, const ttt_mixer_desc *desc, int64_t N) {
    const ttt_learner *learner = desc->mixer->learner;
    if (!learner || !ttt__dense_layers(learner))
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "%s: the learner %s; ttt_learner_linear or ttt_learner_mlp expected",
                 desc->mixer->name, learner ? learner->name : "is missing");
    else ttt__check_chunk(ctx, desc, N);
}
// A convolution of t taps is t D multiply-adds a token, a rotation 3/2 D.
static double ttt__ttt_flops(const ttt_mixer_desc *desc, int64_t N) {
    double n = (double)N, D = (double)desc->dim, taps = (double)ttt__conv_taps(desc), more = 0;
    if (desc->share_qk) more += 2 * taps * D - D * D;
    if (desc->rotary != 0) more += 3 * D;
    if (desc->output_gate) more += D * D;
    return ttt__memory_flops_in(desc, N, desc->causal) + 2 * n * more;
}
static void ttt__ttt_check(ttt_ctx *ctx, const ttt_mixer_desc *desc, int64_t N) {
    double theta = (double)desc->rotary;
    if (!(theta >= 0 && theta <= DBL_MAX))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: .rotary is %g; a positive theta expected",
                 desc->mixer->name, theta);
    ttt__need(ctx, theta == 0 || desc->dim > desc->heads, desc, "rotary", (int64_t)theta,
              "heads of one feature have no pairs to turn");
    ttt__need(ctx, desc->conv >= 0, desc, "conv", desc->conv, "at least 1 tap expected");
    if (ttt_ok(ctx)) ttt__memory_check(ctx, desc, N);
}

#define TTT__TTT_TAKES                                                                             \
    "inner_lr inner_lrs no_inner_bias no_decoder_norm zero_w0 causal chunk rotary token_index "    \
    "share_qk conv output_gate"
TTT__CONSTANT ttt_mixer ttt_mixer_ttt_linear = {
    "ttt-linear", "TTTLinear_0", "a linear map that learns, on heads that split the features",
    "arXiv 2407.04620", TTT__ROWS(ttt__ttt_rows), &ttt_learner_linear, TTT__TTT_TAKES,
    TTT_MIXER_STREAMS, ttt__ttt_forward, TTT__FUSED(ttt__ttt_forward), ttt__ttt_flops,
    ttt__memory_state, ttt__ttt_check,
};
TTT__CONSTANT ttt_mixer ttt_mixer_ttt_mlp = {
    "ttt-mlp", "TTTMLP_0", "an MLP that learns, on heads that split the features",
    "arXiv 2407.04620", TTT__ROWS(ttt__ttt_rows), &ttt_learner_mlp, TTT__TTT_TAKES,
    TTT_MIXER_STREAMS, ttt__ttt_forward, TTT__FUSED(ttt__ttt_forward), ttt__ttt_flops,
    ttt__memory_state, ttt__ttt_check,
};

// Titans: the memory's weights have a velocity (what surprised lately) and a decay (what may be
// forgotten), each gated by the token: theta = inner_lr sigmoid(.), eta = sigmoid(.),
// alpha = sigmoid(.). Views as DeltaNet's (the paper, §4.4), memory x + LN(MLP(x)), error squared
// and averaged over h. Gradients are taken at the weights before a chunk; .chunk = 1 is the paper's
// rule, and gives other numbers. Layout of lucidrains/titans-pytorch (the authors' code is not
// public).                                                                      [arXiv 2501.00663]
enum {
    TTT__TITANS_VIEWS, TTT__TITANS_O = TTT__TITANS_VIEWS + 6, TTT__TITANS_RATE,
    TTT__TITANS_MOMENTUM = TTT__TITANS_RATE + 2, TTT__TITANS_DECAY = TTT__TITANS_MOMENTUM + 2,
    TTT__TITANS_SCALE = TTT__TITANS_DECAY + 2, TTT__TITANS_SHIFT, TTT__TITANS_W0
};
static const ttt_param_row ttt__titans_rows[] = {
    TTT__CONV_VIEW_ROWS
    { "o_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0 },
    { "rate/kernel", "D H", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_DECAYS, 0 },
    { "rate/bias", "H", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    { "momentum/kernel", "D H", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_DECAYS, 0 },
    { "momentum/bias", "H", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    { "decay/kernel", "D H", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_DECAYS, 0 },
    { "decay/bias", "H", TTT_INIT_LOG_TIME, NULL, NULL, 0, 0 },
    { "memory_norm/scale", "H h", TTT_INIT_ONE, NULL, NULL, 0, TTT__DECODER_NORM },
    { "memory_norm/bias", "H h", TTT_INIT_ZERO, NULL, NULL, 0, TTT__DECODER_NORM },
};
static ttt_tensor *ttt__titans_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                       ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    ttt_tensor *in[TTT__MEMORY_INPUTS] = { NULL }, *gate[3];
    ttt__conv_views(ctx, desc, w + TTT__TITANS_VIEWS, 1, x, in);
    for (int i = 0; i < 3; i++)
        gate[i] = ttt__gates(ctx, x, w[TTT__TITANS_RATE + 2 * i], w[TTT__TITANS_RATE + 2 * i + 1]);
    // 2/h: from the gradient of the mean to that of half the sum
    double step = 2 / (double)(desc->dim / desc->heads) * (double)ttt__rate(desc);
    in[TTT__MEMORY_RATE] = ttt_scale(ctx, ttt_sigmoid(ctx, gate[0]), (ttt_real)step);
    in[TTT__MEMORY_KEEP] = ttt__log_sigmoid(ctx, ttt_scale(ctx, gate[2], -1));
    in[TTT__MEMORY_MOMENTUM] = ttt__log_sigmoid(ctx, gate[1]);
    in[TTT__MEMORY_SCALE] = w[TTT__TITANS_SCALE];
    in[TTT__MEMORY_SHIFT] = w[TTT__TITANS_SHIFT];
    for (int i = 0; i < desc->mixer->learner->n_rows; i++)
        in[TTT__MEMORY_W0 + i] = w[TTT__TITANS_W0 + i];
    ttt_tensor *y = ttt__memory_answers(ctx, desc, in,
                                        "linear attention on the features of the learner's hidden "
                                        "layer, with momentum and decay as weights of past pairs",
                                        losses);
    return ttt_matmul(ctx, ttt__whole(ctx, y), w[TTT__TITANS_O]);
}
static double ttt__titans_flops(const ttt_mixer_desc *desc, int64_t N) {
    return ttt__memory_flops_in(desc, N, true);
}
static double ttt__titans_state(const ttt_mixer_desc *desc, int64_t N) {  // and the velocity
    return 2 * ttt__memory_state(desc, N);
}

TTT__CONSTANT ttt_mixer ttt_mixer_titans = {
    "titans", "NeuralMemory_0", "an MLP written with momentum and forgetting", "arXiv 2501.00663",
    TTT__ROWS(ttt__titans_rows), &ttt_learner_mlp,
    "inner_lr inner_lrs no_decoder_norm zero_w0 chunk no_short_conv",
    TTT_MIXER_CAUSAL | TTT_MIXER_UNBIASED | TTT_MIXER_STREAMS,
    ttt__titans_forward, TTT__FUSED(ttt__titans_forward), ttt__titans_flops, ttt__titans_state,
    ttt__memory_check,
};

// -- LaCT: few, large updates. The learner is a SwiGLU, f(x) = (SiLU(x W_0) o x W_2) W_1. A chunk
// of tokens pushes it up the hill sum lr <f(k), v>, with a rate of its own for each weight and
// token, softplus(x w + softplus^-1(0.01)); then every column of the weights is brought back to
// the length it had. q, k, v = SiLU(x W), q and k of length 1; RMS norm of each head. The chunk is
// the whole sequence, which is seen at once; with .causal a chunk is read before it is learned,
// with momentum m = the chunk's mean of sigmoid(x w), and softmax attention in a window as long as
// the chunk sees what is near. .muon: the update is made orthogonal first, by five steps of Newton
// and Schulz.
//                                                                               [arXiv 2505.23884]
enum {
    TTT__LACT_Q, TTT__LACT_K, TTT__LACT_V, TTT__LACT_O, TTT__LACT_LR, TTT__LACT_MOMENTUM,
    TTT__LACT_W, TTT__LACT_NORM = TTT__LACT_W + 3
};
static const ttt_param_row ttt__lact_rows[] = {
    TTT__VIEW_ROWS
    { "o_proj/kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0 },
    { "lr_proj/kernel", "D 3H", TTT_INIT_SMALL, NULL, NULL, TTT__FACTOR, 0 },
    { "momentum_proj/kernel", "D H", TTT_INIT_SMALL, NULL, NULL, TTT__FACTOR, TTT__CAUSAL },
    { "w0", "H h h", TTT_INIT_NORMAL_IN, "h", NULL, TTT_PARAM_INNER, 0 },
    { "w1", "H h h", TTT_INIT_NORMAL_IN, "h", NULL, TTT_PARAM_INNER, 0 },
    { "w2", "H h h", TTT_INIT_NORMAL_IN, "h", NULL, TTT_PARAM_INNER, 0 },
    { "o_norm/scale", "h", TTT_INIT_ONE, NULL, NULL, 0, 0 },
};
// Nearly the nearest orthogonal matrix: X <- a X + (b A + c A^2) X, A = X X^T, a polynomial that
// brings all singular values close to 1. Coefficients of the official code (You Jiacheng's, 2025).
//                                                                               [Jordan 2024, Muon]
enum { TTT__MUON_STEPS = 5 };
static const double ttt__muon[TTT__MUON_STEPS][3] = { { 4.0848, -6.8946, 2.9270 },
                                                      { 3.9505, -6.3029, 2.6377 },
                                                      { 3.7418, -5.5913, 2.3037 },
                                                      { 2.8769, -3.1427, 1.2046 },
                                                      { 2.8366, -3.0525, 1.2012 } };
static ttt_tensor *ttt__orthogonal(ttt_ctx *ctx, ttt_tensor *g) {
    if (!ttt_ok(ctx)) return g;
    ttt_shape flat = g->shape;
    flat.dim[flat.rank - 1] *= flat.dim[flat.rank - 2];
    flat.dim[flat.rank - 2] = 1;
    // One length of all: a length of lengths would have the wrong curvature where a row is 0.
    ttt_tensor *norm = ttt_norm_axis(ctx, ttt_reshape(ctx, g, flat), -1),
               *x = ttt_div(ctx, g, ttt_add_scalar(ctx, norm, (ttt_real)1e-7));
    for (int i = 0; i < TTT__MUON_STEPS; i++) {
        ttt_tensor *a = ttt_matmul_t(ctx, x, x, false, true),
                   *b = ttt_add(ctx, ttt_scale(ctx, a, (ttt_real)ttt__muon[i][1]),
                                ttt_scale(ctx, ttt_matmul(ctx, a, a), (ttt_real)ttt__muon[i][2]));
        x = ttt_add(ctx, ttt_scale(ctx, x, (ttt_real)ttt__muon[i][0]), ttt_matmul(ctx, b, x));
    }
    return x;
}
typedef struct ttt__swiglu {
    ttt_tensor *w[3], *length[3];  // W_0, W_1, W_2 (B,H,h,h), and how long their columns are to be
    ttt_tensor *velocity[3];       // NULL: none yet
} ttt__swiglu;
static ttt_tensor *ttt__swiglu_hidden(ttt_ctx *ctx, const ttt__swiglu *m, ttt_tensor *x) {
    return ttt_mul(ctx, ttt_silu(ctx, ttt_matmul(ctx, x, m->w[0])), ttt_matmul(ctx, x, m->w[2]));
}
static ttt_tensor *ttt__swiglu_read(ttt_ctx *ctx, const ttt__swiglu *m, ttt_tensor *x) {
    return ttt_matmul(ctx, ttt__swiglu_hidden(ctx, m, x), m->w[1]);
}
// For each weight the sum over a chunk's tokens of  lr x^T (gradient of <f(k), v>).
static void ttt__swiglu_push(ttt_ctx *ctx, const ttt__swiglu *m, ttt_tensor *k, ttt_tensor *v,
                             ttt_tensor *const *lr, ttt_tensor **push) {
    ttt_tensor *z = ttt_matmul(ctx, k, m->w[0]), *a = ttt_silu(ctx, z),
               *up = ttt_matmul(ctx, k, m->w[2]),
               *back = ttt_matmul_t(ctx, v, m->w[1], false, true);
    push[0] = ttt_matmul_t(ctx, ttt_mul(ctx, k, lr[0]),
                           ttt_mul(ctx, ttt_mul(ctx, back, up), ttt_silu_d1(ctx, z)), true, false);
    push[1] = ttt_matmul_t(ctx, ttt_mul(ctx, ttt_mul(ctx, a, up), lr[1]), v, true, false);
    push[2] = ttt_matmul_t(ctx, ttt_mul(ctx, k, lr[2]), ttt_mul(ctx, back, a), true, false);
}
static ttt_tensor *ttt__as_long_as(ttt_ctx *ctx, ttt_tensor *w, ttt_tensor *length) {
    return ttt_div(ctx, length, ttt_add_scalar(ctx, ttt_norm_axis(ctx, w, -2), (ttt_real)1e-5));
}
static void ttt__swiglu_write(ttt_ctx *ctx, ttt__swiglu *m, ttt_tensor *k, ttt_tensor *v,
                              ttt_tensor *const *lr, ttt_tensor *momentum, bool muon) {
    ttt_tensor *push[3];
    ttt__swiglu_push(ctx, m, k, v, lr, push);
    for (int i = 0; i < 3; i++) {
        m->velocity[i] = m->velocity[i]
                             ? ttt_add(ctx, push[i], ttt_mul(ctx, m->velocity[i], momentum))
                             : push[i];
        ttt_tensor *to =
            ttt_add(ctx, m->w[i], muon ? ttt__orthogonal(ctx, m->velocity[i]) : m->velocity[i]);
        m->w[i] = ttt_mul(ctx, to, ttt__as_long_as(ctx, to, m->length[i]));
    }
}
// One chunk, no muon: the columns of what was there and of what was written are shortened alike.
static void ttt__lact_unmask(ttt_ctx *ctx, const ttt_mixer_desc *desc, const ttt__swiglu *before,
                             const ttt__swiglu *after, ttt_tensor *const *in, ttt_tensor *const *lr,
                             ttt_tensor *read) {
    desc->unmask->equals = desc->causal ? "none: the weights are rescaled after every chunk"
                        : desc->muon ? "none: the update is made orthogonal as a whole"
                                  : "linear attention on the features of the learner's hidden "
                                    "layer, its columns rescaled";
    if (desc->causal || desc->muon) return;
    ttt_tensor *key = ttt_mul(ctx, ttt__swiglu_hidden(ctx, before, in[1]), lr[1]),
               *to = ttt_add(ctx, before->w[1], ttt_matmul_t(ctx, key, in[2], true, false));
    ttt_tensor *shorter = ttt__as_long_as(ctx, to, before->length[1]);
    ttt__unmask_features(ctx, desc->unmask, ttt__swiglu_hidden(ctx, after, in[0]), key,
                         ttt_mul(ctx, in[2], shorter), ttt_mul(ctx, before->w[1], shorter), read);
}
// What the memory reads: views (B,N,H,h), rates (B,N,H,3) and, in causal layers, momentum (B,N,H,1)
// of tokens; weights (H,h,h). ViTTT's reads neither rates nor W_1.
enum {
    TTT__GLU_Q, TTT__GLU_K, TTT__GLU_V, TTT__GLU_RATES, TTT__GLU_MOMENTUM,
    TTT__GLU_W0, TTT__GLU_W1, TTT__GLU_W2, TTT__GLU_INPUTS
};
static ttt_tensor *ttt__lact_tape(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *all,
                                  int64_t chunk) {
    int64_t B = all[0]->shape.dim[0], N = all[0]->shape.dim[1], n_chunks = (N + chunk - 1) / chunk;
    ttt_tensor **o = (ttt_tensor **)ttt_alloc(ctx, (uint64_t)n_chunks * sizeof *o, false);
    ttt_tensor *in[TTT__GLU_W0], *lr[3];
    ttt__swiglu m, before;
    memset(&m, 0, sizeof m);
    for (int i = 0; i < TTT__GLU_W0; i++) in[i] = all[i] ? ttt__swap_heads(ctx, all[i]) : NULL;
    for (int i = 0; i < 3; i++) {
        m.w[i] = ttt__lift_weight(ctx, all[TTT__GLU_W0 + i], B);
        m.length[i] = ttt_norm_axis(ctx, m.w[i], -2);
        lr[i] = ttt_slice(ctx, in[TTT__GLU_RATES], 3, i, 1);
    }
    before = m;
    for (int64_t i = 0; o && i < n_chunks; i++) {
        int64_t begin = i * chunk, n = TTT__MIN(chunk, N - begin);
        ttt_tensor *part[3], *rate[3];
        for (int j = 0; j < 3; j++)
            part[j] = ttt__tokens(ctx, in[j], begin, n),
            rate[j] = ttt__tokens(ctx, lr[j], begin, n);
        ttt_tensor *momentum = ttt__tokens(ctx, in[TTT__GLU_MOMENTUM], begin, n);
        if (desc->causal) o[i] = ttt__swiglu_read(ctx, &m, part[0]);
        if (!desc->causal || i < n_chunks - 1)
            ttt__swiglu_write(ctx, &m, part[1], part[2], rate,
                              momentum ? ttt_mean_axis(ctx, momentum, 2) : NULL, desc->muon);
        if (!desc->causal) o[i] = ttt__swiglu_read(ctx, &m, part[0]);
    }
    if (!o || !ttt_ok(ctx)) return all[0];
    ttt_tensor *y = n_chunks > 1 ? ttt_concat(ctx, o, (int)n_chunks, 2) : o[0];
    if (desc->unmask) ttt__lact_unmask(ctx, desc, &before, &m, in, lr, y);
    return ttt__swap_heads(ctx, y);
}
// Softmax attention to the last `chunk` tokens, on the views as they were before SiLU.
static ttt__attention ttt__lact_window(const ttt_mixer_desc *desc) {
    ttt__attention how = ttt__usual_attention(desc);
    how.sight.window = ttt__chunk_or(desc, 2048) - 1;
    return how;
}
static ttt_tensor *ttt__lact_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                                     ttt_tensor *x, ttt_tensor **losses) {
    int64_t N = x->shape.dim[1], H = desc->heads;
    ttt_tensor *in[TTT__GLU_INPUTS] = { NULL }, *raw[3], *a;
    for (int i = 0; i < 3; i++) {
        raw[i] = ttt_matmul(ctx, x, w[TTT__LACT_Q + i]);
        ttt_tensor *heads = ttt__beside(ctx, raw[i], H);
        in[i] = i < 2 ? ttt__sized(ctx, desc, heads, 1e-10, 1) : ttt_silu(ctx, heads);
        in[TTT__GLU_W0 + i] = w[TTT__LACT_W + i];
    }
    ttt_tensor *rates = ttt_matmul(ctx, x, w[TTT__LACT_LR]);
    rates = ttt_softplus(ctx, ttt_add_scalar(ctx, rates, (ttt_real)log(expm1(0.01))));
    in[TTT__GLU_RATES] = ttt__beside(ctx, rates, H);  // (B,N,H,3)
    if (desc->causal)
        in[TTT__GLU_MOMENTUM] =
            ttt_sigmoid(ctx, ttt__gates(ctx, x, w[TTT__LACT_MOMENTUM], NULL));
    (void)losses;
    if (!ttt_ok(ctx) || N == 0) return x;
    ttt_tensor *y = ttt__answers(ctx, desc, TTT__FUSED(ttt__lact_as_op), ttt__lact_tape, in,
                                 desc->causal ? ttt__chunk_or(desc, 2048) : N);
    y = ttt__whole(ctx, ttt__rms_norm(ctx, w[TTT__LACT_NORM], 1e-5, y));
    ttt__attention how = ttt__lact_window(desc);
    if (desc->causal)
        y = ttt_add(ctx, y,
                    ttt__attention_of(ctx, desc, &how, raw[0], raw[1], raw[2], NULL, &a));
    return ttt_matmul(ctx, y, w[TTT__LACT_O]);
}
// Of D h, 3 products for q, and for k of a written chunk 3 forwards and 3 for the gradients; Newton
// and Schulz take 5 steps of 3 products on each of the 3 H updates (h,h) of such a chunk.
static double ttt__lact_flops(const ttt_mixer_desc *desc, int64_t N) {
    double n = (double)N, D = (double)desc->dim, h = D / (double)desc->heads;
    double chunk = (double)TTT__MIN(N, ttt__chunk_or(desc, 2048));
    double writes = desc->causal ? ceil(n / TTT__MAX(chunk, 1)) - 1 : 1;
    double written = desc->causal ? chunk * writes : n, muon = desc->muon ? 45 * writes : 0;
    ttt__attention window = ttt__lact_window(desc);
    double pairs = desc->causal ? ttt__pairs(&window.sight, N, N) : 0;
    return 2 * (n * (4 * D * D + 3 * D * h) + 2 * pairs * D + D * h * (6 * written + muon * h));
}
static double ttt__lact_state(const ttt_mixer_desc *desc, int64_t N) {
    double D = (double)desc->dim, h = D / (double)desc->heads;
    return (desc->causal ? 6 : 3) * D * h +
           (desc->causal ? 2 * (double)TTT__MIN(N, ttt__chunk_or(desc, 2048)) * D : 0);
}

TTT__CONSTANT ttt_mixer ttt_mixer_lact = {
    "lact", "LaCT_0", "a SwiGLU written a large chunk at a time", "arXiv 2505.23884",
    TTT__ROWS(ttt__lact_rows), NULL, "causal chunk muon", TTT_MIXER_STREAMS,
    ttt__lact_forward, TTT__FUSED(ttt__lact_forward), ttt__lact_flops, ttt__lact_state,
    ttt__check_chunk,
};

// -- ViTTT: the learner is a gated linear unit, f(k) = k W_1 o SiLU(k W_2), a head, and beside the
// heads a 3x3 depthwise convolution of h channels. Both take one step of rate 1 on
// -<f(k), v> / (3 N), the gradient of each column (each kernel) divided by its length + 1, and are
// read by q. In words of attention: linear attention, and linear attention in a window. The last
// layer is not linear.
//                                              [arXiv 2512.01643; LeapLabTHU/ViTTT ttt_block.py]
enum {
    TTT__VITTT_QKV, TTT__VITTT_BIAS, TTT__VITTT_W1, TTT__VITTT_W2, TTT__VITTT_W3, TTT__VITTT_O,
    TTT__VITTT_O_BIAS
};
static const ttt_param_row ttt__vittt_rows[] = {
    { "qkv/kernel", "D E", TTT_INIT_XAVIER, "D", "D", TTT__FACTOR, 0 },
    { "qkv/bias", "E", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    { "w1", "H h h", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_INNER, 0 },
    { "w2", "H h h", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_INNER, 0 },
    { "w3", "9 h", TTT_INIT_SMALL, NULL, NULL, TTT_PARAM_INNER, 0 },
    { "proj/kernel", "P D", TTT_INIT_XAVIER, "P", "D", TTT__FACTOR, 0 },
    { "proj/bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
};
static ttt_tensor *ttt__clipped_step(ttt_ctx *ctx, ttt_tensor *w, ttt_tensor *g) {
    return ttt_sub(ctx, w, ttt_div(ctx, g, ttt_add_scalar(ctx, ttt_norm_axis(ctx, g, -2), 1)));
}
static ttt_real ttt__vittt_rate(int64_t N) { return -1 / (ttt_real)(3 * TTT__MAX(N, 1)); }
static ttt_tensor *ttt__vittt_tape(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *in,
                                   int64_t chunk) {
    ttt_tensor *q = ttt__swap_heads(ctx, in[TTT__GLU_Q]), *k = ttt__swap_heads(ctx, in[TTT__GLU_K]),
               *v = ttt__swap_heads(ctx, in[TTT__GLU_V]);
    if (!ttt_ok(ctx)) return in[0];
    ttt_tensor *w1 = ttt__lift_weight(ctx, in[TTT__GLU_W2], q->shape.dim[0]),
               *w2 = ttt__lift_weight(ctx, in[TTT__GLU_W0], q->shape.dim[0]);
    ttt_tensor *e = ttt_scale(ctx, v, ttt__vittt_rate(chunk)), *z1 = ttt_matmul(ctx, k, w1),
               *z2 = ttt_matmul(ctx, k, w2);
    ttt_tensor *g1 = ttt_matmul_t(ctx, k, ttt_mul(ctx, e, ttt_silu(ctx, z2)), true, false);
    ttt_tensor *g2 = ttt_matmul_t(
        ctx, k, ttt_mul(ctx, ttt_mul(ctx, e, z1), ttt_silu_d1(ctx, z2)), true, false);
    (void)desc;
    w1 = ttt__clipped_step(ctx, w1, g1);
    w2 = ttt__clipped_step(ctx, w2, g2);
    return ttt__swap_heads(ctx, ttt_mul(ctx, ttt_matmul(ctx, q, w1),
                                        ttt_silu(ctx, ttt_matmul(ctx, q, w2))));
}
static ttt_tensor *ttt__vittt_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                      ttt_tensor *const *w, ttt_tensor *x, ttt_tensor **losses) {
    int64_t B = x->shape.dim[0], N = x->shape.dim[1], D = desc->dim, h = D / desc->heads;
    ttt_tensor *all = ttt_affine(ctx, x, w[TTT__VITTT_QKV], w[TTT__VITTT_BIAS]);
    ttt_tensor *in[TTT__GLU_INPUTS] = { NULL }, *local[3];
    ttt_shape grid = TTT_SHAPE(B, desc->grid_rows, desc->grid_cols, h);
    for (int i = 0; i < 3; i++) {
        in[i] = ttt__beside(ctx, ttt_slice(ctx, all, 2, i * D, D), desc->heads);
        local[i] = ttt_reshape(ctx, ttt_slice(ctx, all, 2, 3 * D + i * h, h), grid);
    }
    if (!ttt_ok(ctx)) return x;
    in[TTT__GLU_W0] = w[TTT__VITTT_W2];  // through SiLU, as there
    in[TTT__GLU_W2] = w[TTT__VITTT_W1];
    ttt_tensor *y =
        ttt__answers(ctx, desc, TTT__FUSED(ttt__vittt_as_op), ttt__vittt_tape, in, N);

    ttt_tensor *e3 = ttt_scale(ctx, local[2], ttt__vittt_rate(N)),
               *g3 = ttt_depthwise_kernel(ctx, local[1], e3, TTT_SHAPE(3, 3));
    g3 = ttt_reshape(ctx, g3, TTT_SHAPE(B, 9, h));  // a kernel of 9 is a column
    ttt_tensor *w3 = ttt__clipped_step(ctx, w[TTT__VITTT_W3], g3);
    ttt_tensor *read =
        ttt_depthwise_conv2d(ctx, local[0], ttt_reshape(ctx, w3, TTT_SHAPE(B, 3, 3, h)));
    ttt_tensor *both[2] = { ttt__whole(ctx, y), ttt_reshape(ctx, read, TTT_SHAPE(B, N, h)) };
    (void)losses;
    if (desc->unmask)
        desc->unmask->equals =
            "none: the last layer of its learner, a gated linear unit, is not linear";
    return ttt_affine(ctx, ttt_concat(ctx, both, 2, 2), w[TTT__VITTT_O], w[TTT__VITTT_O_BIAS]);
}
static double ttt__vittt_flops(const ttt_mixer_desc *desc, int64_t N) {
    double n = (double)N, D = (double)desc->dim, h = D / (double)desc->heads;
    return 2 * n * (D * (3 * D + 3 * h) + (D + h) * D + 6 * D * h + 18 * h);
}
static double ttt__vittt_state(const ttt_mixer_desc *desc, int64_t N) {
    double D = (double)desc->dim, h = D / (double)desc->heads;
    (void)N;
    return 2 * D * h + 9 * h;
}

TTT__CONSTANT ttt_mixer ttt_mixer_vittt = {
    "vittt", "TTT_0", "a GLU and a 3x3 convolution, one step on the image", "arXiv 2512.01643",
    TTT__ROWS(ttt__vittt_rows), NULL, "grid_rows grid_cols", TTT_MIXER_GRID,
    ttt__vittt_forward, TTT__FUSED(ttt__vittt_forward), ttt__vittt_flops, ttt__vittt_state,
    NULL,
};

// -- nothing: the block's MLP alone
static ttt_tensor *ttt__none_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                                     ttt_tensor *x, ttt_tensor **losses) {
    (void)w;
    (void)losses;
    if (desc->unmask) desc->unmask->equals = "none: tokens do not see each other";
    return ttt_zeros(ctx, x->shape);
}
static double ttt__none_flops(const ttt_mixer_desc *desc, int64_t N) {
    (void)desc;
    (void)N;
    return 0;
}

TTT__CONSTANT ttt_mixer ttt_mixer_none = {
    "none", "none", "tokens do not see each other", "a baseline",
    NULL, 0, NULL, NULL, 0, ttt__none_forward, NULL, ttt__none_flops, NULL, NULL,
};

// ---- [9] FUSED LAYERS ---------------------------------------------------------------------------
#ifndef TTT_NO_FUSED
// A layer as a single op, forwards and first-order backwards; its version on the tape is its
// composite, for higher orders and as its oracle. Five frames:
//   - the inner loop of MTTT (linear or MLP learner, with or without norm, descent or
//     mini-batches): a tile of tokens goes through learner, decoder, loss gradient and back while
//     it is in the cache, and all that is left of a step is the gradient in a head's few weights;
//   - what reads sums over all tokens, y = Q W(K^T V) W_o: linear attention, and the MTTT layer
//     that is linear attention;
//   - softmax attention, from views to what they read: of all, of what came before, in a window;
//   - memories that are written a chunk of tokens after the other: one frame, and for each kind a
//     few functions that know one chunk; the rest of such a layer are ops of the tape;
//   - row by row: layer norm, and with it the MLP of a block; focused features; views of a length.
//
// LETTERS of the first frame; the others have pages of their own.
//   sizes    B sequences, N tokens of each, D width, H heads, h = D/H head width, wide = 4h hidden
//            numbers of an MLP, T inner steps, n tokens of a tile. Each step reads all N tokens, or
//            one of T equal parts of L shuffled ones; before step t the weights are W_t
//   tokens   x, and its views k = x phi + b_phi (train) and q = x psi + b_psi (test), one head
//            wide; y = the sum over heads of f out + b_out, what it gives (out: the paper's h)
//   learner  W, its weights: kernels w1, w2 and biases b1, b2; z = k w1 + b1, a = gelu(z),
//            a1 = gelu'(z) and a2 = gelu''(z); e = f_W(k), the prediction for a view,
//            and f = f_W(q), the prediction for a query
//   decoder  the kernel g of a head, the bias b_g of all, the norm's scale and shift of a head; its
//            products G, M, m, S, P, sigma, pi, tau are explained in [8]
//   g_e      the inner gradient: of the layer's own loss, in e; so with g_z, g_a, and g_W, of which
//            each step takes eta times away: W' = W - eta g_W. (g alone is the decoder's kernel.)
//   d_e      the outer gradient: of what the network is trained for, in e; so with all others, and
//            d_g_e is the outer gradient in the inner one
//   V        short for d_g_W, which is -eta times the outer gradient in W'; V1, vb1, V2, vb2
//   _tr      at the end: transposed
// A kernel is a matrix among the parameters; what [8] holds is called routines.
//
// WORK. A chunk is some sequences, about 1,000 tokens, so that what passes from one phase to the
// next is still in the cache; it is one sequence at least. A range is about 200 tokens of a
// sequence; or all, if they are shuffled: then any token may add to any row of the sequence. A tile
// is at most 64 tokens of a range, of one head. A phase cuts a chunk into shares; ttt__parallel
// gives them to the threads (-1: the caller is not one of its shares), at least so many at a time
// as it is told, and returns when all are done. Each range adds into sums of its own, which are
// joined in order, so that threads cannot change a bit. (Without learned rates and with one range
// to a sequence, W' is there after `step`.)
//   phase       a share is           reads                    writes                 ttt__..._share
//   start       (calling thread)     the learner's parameters W0
//   decoder     a head               g, b_g, scale, shift     G, M, m, S, P ... tau0 decoder
//     then, for each chunk,
//   views       a range              x, phi, M, m             k, xM, xm              views
//   step        a range              k, xM, xm, S, P, W       e, z; W - eta sum g_W  step
//   descend     a sequence and head  the ranges' sums         W', and learned: g_W   descend
//   output      a range              x, psi, W, out           q, f, z of f, y        output
//     and backwards
//   output      a range              d_y, q, z of f, W        d_f, d_q, sums of d_W  output_back
//   join        a sequence and head  the ranges' sums         d_W                    join
//   rates       (calling thread)     g_W, d_W                 d_eta
//   step        a range              d_W, k, xM, xm, e, z, W  d_k, d_xM, d_xm, sums  step_back
//                                                             of d_W, d_S ... d_tau0
//   start       (calling thread)     d_W                      d_W0
//   join        (calling thread)     sums of d_S ... d_tau0   d_S ... d_tau0
//   kernels     a kernel and head    x, f, d_y, d_q, d_k,     d_phi, d_psi, d_out,   kernel_sums
//                                    d_xM, d_xm               d_M; d_m, d_ of biases
//   views       a range              d_q, d_k, d_xM, d_xm     d_x                    views_back
//     and at the end
//   decoder     a head               d_M, d_m, d_S ... d_tau0 d_g, d_b_g, d_scale,   decoder_back
//                                                             d_shift

// What decode and decode_back of [8] are told of one head.
typedef struct ttt__decoder {
    int64_t h, D;
    bool norm;
    double eps;
    ttt_real c;  // H / (n D), n tokens of the step
    const ttt_real *sigma, *pi, *tau;
    double sigma0, pi0, tau0;
    ttt_real *d_sigma, *d_pi, *d_tau, *d_scalars;  // their outer gradients, which it adds to
} ttt__decoder;
// What the routines of gated units are told of some tokens; how far from a row to the next.
typedef struct ttt__glu_rows {
    int64_t rows, h;
    ttt_real *zu, *d_zu;                     // rows of 2 h
    ttt_real *s, *d_s;                       // of h
    const ttt_real *back, *rates;            // of h; of 3
    ttt_real *d_rates;
    int64_t s_down, d_s_down, back_down, rates_down, d_rates_down;
} ttt__glu_rows;
// What delta is told of a token: rows of h numbers.
typedef struct ttt__delta_token {
    int64_t h;
    const ttt_real *kept, *k, *v, *q;
    ttt_real beta;
    ttt_real *S, *y;
} ttt__delta_token;
// X(result, name, parameters); what each does is written at its text in [8].
#define TTT__LAYER_KERNEL_LIST(X)                                                                  \
    X(double, decode,                                                                              \
      (const ttt__decoder *decoder, const ttt_real *e, const ttt_real *rowS, const ttt_real *rowP, \
       const ttt_real *xM, ttt_real xm, ttt_real *g_e))                                            \
    X(void, decode_back,                                                                           \
      (const ttt__decoder *decoder, const ttt_real *e, ttt_real *rowS, ttt_real *rowP,             \
       const ttt_real *xM, ttt_real xm, ttt_real *v, ttt_real *d_xM, ttt_real *d_xm))              \
    X(void, gelu_all, (int64_t n, const ttt_real *z, ttt_real *a, ttt_real *a1, ttt_real *a2))     \
    X(void, gelu_step,                                                                             \
      (int64_t n, const ttt_real *a1, ttt_real *a2, ttt_real *g_a, ttt_real *d_g_z))               \
    X(void, add_times, (int64_t n, const ttt_real *a, const ttt_real *b, ttt_real *y))             \
    X(void, elu1, (int64_t n, ttt_real *y))                                                        \
    X(void, elu1_back, (int64_t n, const ttt_real *y, ttt_real *d))                                \
    X(void, fade, (int64_t n, ttt_real *y))                                                        \
    X(void, delta, (const ttt__delta_token *of))                                                   \
    X(ttt_real, row_max, (int64_t n, const ttt_real *a))                                           \
    X(double, exp_sum,                                                                             \
      (int64_t n, const ttt_real *a, ttt_real *y, ttt_real scale, ttt_real shift))                 \
    X(void, softmax_back,                                                                          \
      (int64_t n, const ttt_real *p, ttt_real *d, ttt_real scale, ttt_real sum))                   \
    X(void, glu_read, (const ttt__glu_rows *of))                                                   \
    X(void, glu_read_back, (const ttt__glu_rows *of))                                              \
    X(void, glu_push, (const ttt__glu_rows *of))                                                   \
    X(void, glu_push_back, (const ttt__glu_rows *of))                                              \
    X(void, layer_norm,                                                                            \
      (int64_t n, const ttt_real *x, const ttt_real *scale, const ttt_real *shift, ttt_real *y))   \
    X(void, blend, (int64_t n, ttt_real by, const ttt_real *a, ttt_real keep, ttt_real *y))        \
    X(void, norm_error,                                                                            \
      (int64_t n, const ttt_real *e, const ttt_real *label, const ttt_real *scale,                 \
       const ttt_real *shift, ttt_real *g))                                                        \
    X(void, norm_error_back,                                                                       \
      (int64_t n, const ttt_real *e, const ttt_real *label, const ttt_real *scale,                 \
       const ttt_real *shift, ttt_real *v, ttt_real *d_label, ttt_real *d_scale,                   \
       ttt_real *d_shift))                                                                         \
    X(void, layer_norm_back,                                                                       \
      (int64_t n, const ttt_real *x, const ttt_real *scale, const ttt_real *d_y, ttt_real *d_x,    \
       ttt_real *d_scale, ttt_real *d_shift))                                                      \
    X(void, focus, (int64_t n, const ttt_real *x, const ttt_real *unit, int p, ttt_real *y))       \
    X(void, focus_back,                                                                            \
      (int64_t n, const ttt_real *x, const ttt_real *unit, int p, const ttt_real *d_y,             \
       ttt_real *d_x, ttt_real *d_unit))
typedef struct ttt__layer_kernels {
#define X(result, name, parameters) result(*name) parameters;
    TTT__LAYER_KERNEL_LIST(X)
#undef X
} ttt__layer_kernels;
#define TTT__PART TTT__LAYERS_KERNELS
#include TTT__THIS_FILE("ttt_layers.h")
#undef TTT__PART

static const ttt__layer_kernels *ttt__layer_kernels_of(const ttt_ctx *ctx) {
    static const ttt__layer_kernels *const all[] = {
#define X(name, here) &ttt__layer_table_##name,
        TTT__SETS(X)
#undef X
    };
    return all[ctx->k->set];
}

enum { TTT__TILE_TOKENS = 64, TTT__RANGE_TOKENS = 200, TTT__CHUNK_TOKENS = 1024 };

// -- what the fused layers are written in

// Cuts n into equal parts of at most `most`: the length of part i, and where it begins.
static int64_t ttt__piece(int64_t n, int64_t most, int64_t i, int64_t *from) {
    int64_t parts = (n + most - 1) / most;
    *from = n * i / parts;
    return i < parts ? n * (i + 1) / parts - *from : 0;
}

// A matrix that knows its size. A transposed one is the same numbers with the two steps exchanged.
typedef struct ttt__mat {
    ttt_real *at;          // NULL: absent
    int64_t rows, cols;
    int64_t down, across;  // from a number to the one below it, to the one right of it
} ttt__mat;
static ttt__mat ttt__strided(ttt_real *at, int64_t rows, int64_t cols, int64_t down) {
    ttt__mat m = { at, rows, cols, down, 1 };
    return m;
}
static ttt__mat ttt__matrix(ttt_real *at, int64_t rows, int64_t cols) {
    return ttt__strided(at, rows, cols, cols);
}
static ttt__mat ttt__column(ttt_real *at, int64_t rows) { return ttt__matrix(at, rows, 1); }
static ttt__mat ttt__absent(void) { return ttt__matrix(NULL, 0, 0); }
static ttt__mat ttt__transpose_of(ttt__mat m) {
    ttt__mat t = { m.at, m.cols, m.rows, m.across, m.down };
    return t;
}

// Sizes are checked in debug builds: a product of matrices that do not fit stops the program.
#if defined(TTT_POISON)
#define TTT__FITS(condition) assert(condition)
#else
#define TTT__FITS(condition) ((void)0)
#endif
static ttt__mat ttt__rows_at(ttt__mat m, int64_t from, int64_t rows) {
    TTT__FITS(from >= 0 && rows >= 0 && from + rows <= m.rows);
    if (m.at) m.at += from * m.down;
    m.rows = rows;
    return m;
}
static ttt__mat ttt__cols_at(ttt__mat m, int64_t from, int64_t cols) {
    TTT__FITS(from >= 0 && cols >= 0 && from + cols <= m.cols);
    if (m.at) m.at += from * m.across;
    m.cols = cols;
    return m;
}

// Matrices of one size, `apart` numbers from one to the next: one a head, or a sequence and head.
typedef struct ttt__stack {
    ttt__mat first;
    int64_t apart;
} ttt__stack;
static ttt__stack ttt__stacked(ttt_real *at, int64_t rows, int64_t cols) {  // (...,rows,cols)
    ttt__stack s = { ttt__matrix(at, rows, cols), rows * cols };
    return s;
}
static ttt__stack ttt__side_by_side(ttt__mat all, int64_t cols) {  // (rows, heads x cols)
    ttt__stack s = { all, cols };
    s.first.cols = cols;
    return s;
}
static ttt__stack ttt__same_for_all(ttt__mat m) {
    ttt__stack s = { m, 0 };
    return s;
}
static ttt__mat ttt__of(ttt__stack s, int64_t i) {
    if (s.first.at) s.first.at += i * s.apart;
    return s.first;
}

// What a thread computes with.
typedef struct ttt__kit {
    const ttt__kernels *k;
    const ttt__layer_kernels *lk;
    ttt_real *pack;  // where a product copies its right factor, see [13] of ttt_tensor.h
} ttt__kit;
static ttt__kit ttt__kit_of(const ttt_ctx *ctx, int thread) {
    ttt__kit kit = { ctx->k, ttt__layer_kernels_of(ctx), ctx->pack[thread] };
    return kit;
}

// y = init + a b. init: absent, of y's size, or one row for all of y's (down = 0).
// Called in a hundred places, and too large to be in each of them.
static TTT__NOINLINE void ttt__product_from(const ttt__kit *kit, ttt__mat y, ttt__mat init,
                                            ttt__mat a, ttt__mat b) {
    TTT__FITS(y.rows == a.rows && y.cols == b.cols && a.cols == b.rows && y.across == 1);
    TTT__FITS(!init.at || (init.cols == y.cols && (init.rows == y.rows || init.down == 0)));
    ttt__gemm gemm = { y.rows, y.cols, a.cols, a.at, a.down, a.across, b.at, b.down, b.across,
                       init.at, init.down, y.at, y.down, NULL, { NULL, NULL, 0 } };
    ttt__gemm_run(kit->k, &gemm, kit->pack);
}
static void ttt__set_product(const ttt__kit *kit, ttt__mat y, ttt__mat a, ttt__mat b) {
    ttt__product_from(kit, y, ttt__absent(), a, b);
}
static void ttt__add_product(const ttt__kit *kit, ttt__mat y, ttt__mat a, ttt__mat b) {
    ttt__product_from(kit, y, y, a, b);
}
// y = x w + bias, which may be absent
static void ttt__affine(const ttt__kit *kit, ttt__mat y, ttt__mat x, ttt__mat w, ttt__mat bias) {
    bias.down = 0;
    ttt__product_from(kit, y, bias, x, w);
}
// y = a^T a. It is symmetric: only blocks on and right of its diagonal are multiplied, and those
// left of it are copied from them.
static void ttt__gram(const ttt__kit *kit, ttt__mat y, ttt__mat a) {
    enum { BLOCK = 16 };
    for (int64_t i = 0, n = a.cols; i < n; i += BLOCK) {
        int64_t end = TTT__MIN(i + BLOCK, n);
        ttt__mat rows = ttt__rows_at(y, i, end - i);
        ttt__set_product(kit, ttt__cols_at(rows, i, n - i),
                         ttt__transpose_of(ttt__cols_at(a, i, end - i)), ttt__cols_at(a, i, n - i));
        for (int64_t r = i; r < end; r++)
            for (int64_t j = 0; j < i; j++) y.at[r * y.down + j] = y.at[j * y.down + r];
    }
}

// Number by number, of matrices that lie in one piece.
static int64_t ttt__numbers(ttt__mat m) {
    TTT__FITS(m.rows < 2 || m.cols == 0 || (m.down == m.cols && m.across == 1));
    return m.rows * m.cols;
}
static void ttt__clear(ttt__mat y) {
    if (y.at) memset(y.at, 0, (size_t)ttt__numbers(y) * sizeof *y.at);
}
static void ttt__assign(ttt__mat y, ttt__mat a) {
    TTT__FITS(!y.at || ttt__numbers(y) == ttt__numbers(a));
    if (y.at) memcpy(y.at, a.at, (size_t)ttt__numbers(y) * sizeof *y.at);
}
// y = scale a;  y += a;  y = a - b;  y = a o b;  y += a o b
static void ttt__scaled(const ttt__kit *kit, ttt__mat y, ttt__mat a, ttt_real scale) {
    TTT__FITS(ttt__numbers(y) == ttt__numbers(a));
    kit->k->map[TTT__MAP_scale](ttt__numbers(y), a.at, y.at, scale);
}
static void ttt__plus(const ttt__kit *kit, ttt__mat y, ttt__mat a) {
    TTT__FITS(ttt__numbers(y) == ttt__numbers(a));
    kit->k->zip[TTT__ZIP_add](ttt__numbers(y), y.at, 1, a.at, 1, y.at);
}
static void ttt__minus(const ttt__kit *kit, ttt__mat y, ttt__mat a, ttt__mat b) {
    TTT__FITS(ttt__numbers(y) == ttt__numbers(a) && ttt__numbers(a) == ttt__numbers(b));
    kit->k->zip[TTT__ZIP_sub](ttt__numbers(y), a.at, 1, b.at, 1, y.at);
}
static void ttt__times(const ttt__kit *kit, ttt__mat y, ttt__mat a, ttt__mat b) {
    TTT__FITS(ttt__numbers(y) == ttt__numbers(a) && ttt__numbers(a) == ttt__numbers(b));
    kit->k->zip[TTT__ZIP_mul](ttt__numbers(y), a.at, 1, b.at, 1, y.at);
}
static void ttt__add_times(const ttt__kit *kit, ttt__mat y, ttt__mat a, ttt__mat b) {
    TTT__FITS(ttt__numbers(y) == ttt__numbers(a) && ttt__numbers(a) == ttt__numbers(b));
    kit->lk->add_times(ttt__numbers(y), a.at, b.at, y.at);
}
static double ttt__dot(const ttt__kit *kit, ttt__mat a, ttt__mat b) {
    TTT__FITS(ttt__numbers(a) == ttt__numbers(b));
    return kit->k->dot(ttt__numbers(a), a.at, b.at);
}
static void ttt__transpose(const ttt__kit *kit, ttt__mat y, ttt__mat a) {  // y = a^T, copied
    TTT__FITS(y.rows == a.cols && y.cols == a.rows && y.across == 1 && a.across == 1);
    kit->k->transpose(a.rows, a.cols, a.at, a.down, y.at, y.down);
}
static void ttt__add_both(ttt__mat y, ttt__mat a) {  // y += a + a^T
    TTT__FITS(y.rows == y.cols && y.rows == a.rows && y.cols == a.cols);
    for (int64_t i = 0; i < y.rows; i++)
        for (int64_t j = 0; j < y.cols; j++)
            y.at[i * y.down + j] += a.at[i * a.down + j] + a.at[j * a.down + i];
}

// Row by row, of matrices whose rows may lie apart: y_i = by_i a_i, by a column (absent: 1);
// y_i = a_i; y_i += a_i.
static void ttt__scale_rows(const ttt__kit *kit, ttt__mat y, ttt__mat a, ttt__mat by) {
    TTT__FITS(y.rows == a.rows && y.cols == a.cols && (!by.at || by.rows == a.rows));
    if (!by.at && y.at == a.at) return;
    for (int64_t i = 0; i < a.rows; i++)
        kit->k->map[TTT__MAP_scale](a.cols, a.at + i * a.down, y.at + i * y.down,
                                    by.at ? by.at[i * by.down] : 1);
}
static void ttt__gather(const ttt__kit *kit, ttt__mat y, ttt__mat a) {
    ttt__scale_rows(kit, y, a, ttt__absent());
}
// y_i = a_i op b_i, TTT__ZIP_add and the like
static void ttt__zip_rows(const ttt__kit *kit, int op, ttt__mat y, ttt__mat a, ttt__mat b) {
    TTT__FITS(y.rows == a.rows && y.cols == a.cols && b.rows == a.rows && b.cols == a.cols);
    for (int64_t i = 0; i < a.rows; i++)
        kit->k->zip[op](a.cols, a.at + i * a.down, 1, b.at + i * b.down, 1, y.at + i * y.down);
}
static void ttt__add_rows(const ttt__kit *kit, ttt__mat y, ttt__mat a) {
    ttt__zip_rows(kit, TTT__ZIP_add, y, y, a);
}
// x_i += <a_i, b_i>; an absent x wants nothing
static void ttt__add_row_dots(const ttt__kit *kit, ttt__mat x, ttt__mat a, ttt__mat b) {
    TTT__FITS(!x.at || (x.rows == a.rows && a.rows == b.rows && a.cols == b.cols));
    for (int64_t i = 0; x.at && i < a.rows; i++)
        x.at[i * x.down] += (ttt_real)kit->k->dot(a.cols, a.at + i * a.down, b.at + i * b.down);
}

// Lower matrices are 0 above the diagonal, which ends in the last corner: one that has more columns
// than rows is the lower part of a square. Products read them in blocks of rows, and there only the
// zeros of the blocks on the diagonal.
enum { TTT__LOWER_BLOCK = 16 };
static void ttt__clear_above(ttt__mat y, int diagonal) {
    for (int64_t i = 0, from = y.cols - y.rows + diagonal; i + from < y.cols; i++)
        memset(y.at + i * y.down + i + from, 0, (size_t)(y.cols - i - from) * sizeof *y.at);
}
// y = a b below the diagonal and, if diagonal is 1, on it
static void ttt__set_lower_product(const ttt__kit *kit, ttt__mat y, ttt__mat a, ttt__mat b,
                                   int diagonal) {
    for (int64_t i = 0, end, cols; i < y.rows; i = end) {
        end = TTT__MIN(i + TTT__LOWER_BLOCK, y.rows);
        cols = y.cols - y.rows + end;
        ttt__set_product(kit, ttt__cols_at(ttt__rows_at(y, i, end - i), 0, cols),
                         ttt__rows_at(a, i, end - i), ttt__cols_at(b, 0, cols));
    }
    ttt__clear_above(y, diagonal);
}
// True if a lies in one piece and all of it is finite. Else y = a where that is finite, and 0
// elsewhere.
static bool ttt__all_finite(const ttt__kit *kit, ttt__mat y, ttt__mat a) {
    if (a.down == a.cols && kit->k->finite(ttt__numbers(a), a.at)) return true;
    for (int64_t i = 0; i < a.rows; i++)
        for (int64_t j = 0; j < a.cols; j++) {
            ttt_real number = a.at[i * a.down + j];
            y.at[i * y.down + j] = number - number == 0 ? number : 0;
        }
    return false;
}
// y += a b, of what is not finite in b and meets no 0 of a
static void ttt__add_not_finite(ttt__mat y, ttt__mat a, ttt__mat b) {
    for (int64_t k = 0; k < b.rows; k++)
        for (int64_t j = 0; j < b.cols; j++) {
            ttt_real number = b.at[k * b.down + j];
            for (int64_t i = 0; i < y.rows && number - number != 0; i++) {
                ttt_real factor = a.at[i * a.down + k * a.across];
                if (factor != 0) y.at[i * y.down + j] += factor * number;
            }
        }
}
// y += a b or, if transposed, a^T b, of a lower matrix a. A zero of a takes nothing of b, whatever
// that is: see ttt_mix. `spare` has b's size.
static void ttt__add_lower_product(const ttt__kit *kit, ttt__mat y, ttt__mat a, ttt__mat b,
                                   bool transposed, ttt__mat spare) {
    bool all = ttt__all_finite(kit, spare, b);
    int64_t n = a.rows, before = a.cols - n;
    TTT__FITS(!transposed || before == 0);
    if (transposed) a = ttt__transpose_of(a);
    for (int64_t i = 0, end; i < n; i = end) {
        end = TTT__MIN(i + TTT__LOWER_BLOCK, n);
        int64_t from = transposed ? i : 0, terms = transposed ? n - i : before + end;
        ttt__add_product(kit, ttt__rows_at(y, i, end - i),
                         ttt__cols_at(ttt__rows_at(a, i, end - i), from, terms),
                         ttt__rows_at(all ? b : spare, from, terms));
    }
    if (!all) ttt__add_not_finite(y, a, b);
}
// y = (1 + L)^-1 y or, if transposed, (1 + L)^-T y; L is what lies below the diagonal of a
static void ttt__solve(const ttt__kit *kit, ttt__mat y, ttt__mat a, bool transposed) {
    TTT__FITS(a.rows == a.cols && a.rows == y.rows && y.across == 1);
    ttt__triangle triangle = { a.rows, a.at, transposed ? 1 : a.down, transposed ? a.down : 1,
                               transposed };
    ttt__solve_triangle(kit->k, &triangle, y.at, y.down, y.cols, kit->pack);
}

// y = init + the sum of a's rows; an absent init is zero, and an absent y wants nothing.
static void ttt__row_sum_from(const ttt__kit *kit, ttt__mat y, ttt__mat init, ttt__mat a) {
    ttt_real sum[64];
    TTT__FITS(!y.at || (y.rows == 1 && y.cols == a.cols && a.across == 1));
    for (int64_t j = 0; y.at && j < a.cols; j += 64) {
        int64_t n = TTT__MIN(64, a.cols - j);
        kit->k->sum_rows(a.rows, n, a.down, a.at + j, init.at ? sum : y.at + j);
        if (init.at) kit->k->zip[TTT__ZIP_add](n, init.at + j, 1, sum, 1, y.at + j);
    }
}
static void ttt__set_row_sum(const ttt__kit *kit, ttt__mat y, ttt__mat a) {
    ttt__row_sum_from(kit, y, ttt__absent(), a);
}
static void ttt__add_row_sum(const ttt__kit *kit, ttt__mat y, ttt__mat a) {
    ttt__row_sum_from(kit, y, y, a);
}

// Memory is handed out from a room, one matrix after the other. A room without memory only counts.
typedef struct ttt__room {
    ttt_real *at;
    int64_t used;
} ttt__room;
static ttt__mat ttt__take(ttt__room *room, int64_t rows, int64_t cols) {
    ttt__mat m = ttt__matrix(room->at ? room->at + room->used : NULL, rows, cols);
    room->used += rows * cols;
    return m;
}
static ttt__mat ttt__take_if(bool wanted, ttt__room *room, int64_t rows, int64_t cols) {
    return wanted ? ttt__take(room, rows, cols) : ttt__absent();
}
// rows x cols numbers that live as long as the op's node, or only as long as it computes.
static ttt_real *ttt__alloc_numbers(ttt_ctx *ctx, int64_t rows, int64_t cols, bool keep) {
    double bytes = (double)rows * (double)cols * sizeof(ttt_real);
    if (bytes < 1e18)
        return (ttt_real *)ttt__arena_alloc(ctx, keep ? &ctx->step : &ctx->scratch,
                                            (uint64_t)(rows * cols) * sizeof(ttt_real));
    ttt_fail(ctx, TTT_ERR_NO_MEMORY, "out of memory: %.1f MB asked for", bytes / 1e6);
    return NULL;
}
static ttt__mat ttt__scratch(ttt_ctx *ctx, int64_t rows, int64_t cols) {
    return ttt__matrix(ttt__alloc_numbers(ctx, rows, cols, false), rows, cols);
}

// -- what the ops of whole layers have in common: y (B,N,D) from x (B,N,D) and parameters
typedef struct ttt__frame {
    ttt_ctx *ctx;
    ttt__kit kit;                    // of the thread that calls
    const ttt_tensor *node;          // its inputs are x and the parameters
    const signed char *input;        // which input a parameter row is; -1: absent
    int64_t B, N, D, H, h;
    int64_t ranges, range_rows;  // ranges of a sequence; tokens of the longest
    int64_t chunk;               // sequences of a chunk, at most
    int64_t first, count;        // the chunk at work: its first sequence, and how many
    ttt__mat x, y, d_y, d_x;     // (B N, D); d_y and d_x are absent forwards
    ttt_real *room;              // scratch memory of each thread
    int64_t room_size;
} ttt__frame;

// The range that is share number `share` of a chunk, of `tokens` tokens a sequence.
typedef struct ttt__range {
    int64_t b, from, rows;  // sequence; first token; how many
    int64_t at, local;      // where this token is in (B N, D), and in the chunk's (count N, D);
                            // without meaning if tokens are shuffled
} ttt__range;
static ttt__range ttt__range_of(const ttt__frame *frame, int64_t share, int64_t tokens) {
    ttt__range s;
    int64_t part = share % frame->ranges;
    s.b = frame->first + share / frame->ranges;
    s.from = tokens * part / frame->ranges;
    s.rows = tokens * (part + 1) / frame->ranges - s.from;
    s.at = s.b * frame->N + s.from;
    s.local = s.at - frame->first * frame->N;
    return s;
}

static void ttt__frame_begin(ttt__frame *frame, ttt_ctx *ctx, const ttt_tensor *node, int64_t H,
                             const signed char *input, int64_t ranges) {
    const ttt_tensor *x = node->in[0];
    memset(frame, 0, sizeof *frame);
    frame->ctx = ctx;
    frame->kit = ttt__kit_of(ctx, 0);
    frame->node = node;
    frame->input = input;
    frame->B = x->shape.dim[0];
    frame->N = x->shape.dim[1];
    frame->D = x->shape.dim[2];
    frame->H = H;
    frame->h = frame->D / H;
    frame->ranges = ranges ? ranges : (frame->N + TTT__RANGE_TOKENS - 1) / TTT__RANGE_TOKENS;
    frame->range_rows = (frame->N + frame->ranges - 1) / frame->ranges;
    // as many sequences as CHUNK_TOKENS allow, at least one; chunks are as equal as may be
    int64_t most = TTT__MAX(1, TTT__CHUNK_TOKENS / frame->N), chunks = (frame->B + most - 1) / most;
    frame->chunk = (frame->B + chunks - 1) / chunks;
    frame->x = ttt__matrix(x->data, frame->B * frame->N, frame->D);
    frame->y = ttt__matrix(node->data, frame->B * frame->N, frame->D);
}
// Goes on to the next chunk of sequences; false behind the last.
static bool ttt__next_chunk(ttt__frame *frame) {
    frame->first += frame->count;
    frame->count = TTT__MIN(frame->chunk, frame->B - frame->first);
    return frame->count > 0;
}
static ttt__room ttt__room_of(const ttt__frame *frame, int thread) {
    ttt__room room = { frame->room + thread * frame->room_size, 0 };
    return room;
}

// The numbers of a parameter; NULL if it is absent.
static ttt_real *ttt__param(const ttt__frame *frame, int row) {
    return frame->input[row] < 0 ? NULL : frame->node->in[(int)frame->input[row]]->data;
}
static ttt__mat ttt__param_row(const ttt__frame *frame, int row, int64_t cols) {
    return ttt__matrix(ttt__param(frame, row), 1, cols);
}

// A view of the tokens x, of every head: x kernel + bias. The heads' biases lie side by side.
typedef struct ttt__view {
    ttt__stack kernel;
    ttt__mat bias;  // (1,D), or absent
} ttt__view;
// That of one head, into `to`.
static void ttt__see(const ttt__kit *kit, ttt__mat to, ttt__mat x, const ttt__view *view,
                     int64_t head) {
    ttt__affine(kit, to, x, ttt__of(view->kernel, head),
                ttt__of(ttt__side_by_side(view->bias, to.cols), head));
}

// Those of all heads, side by side.
static void ttt__see_all(const ttt__kit *kit, ttt__mat to, ttt__mat x, const ttt__view *view,
                         int64_t H) {
    int64_t h = to.cols / H;
    for (int64_t head = 0; head < H; head++)
        ttt__see(kit, ttt__cols_at(to, head * h, h), x, view, head);
}

// Gradients of kernels are products over all tokens of a chunk: into += left^T right. There are
// four, and each of each head is a share.
typedef struct ttt__kernel_sum {
    ttt__stack left, right, into;
} ttt__kernel_sum;
typedef struct ttt__kernel_sums {
    const ttt__frame *frame;
    ttt__kernel_sum of[4];
    int64_t from, rows;  // tokens of the chunk, so few that they stay in the cache for all heads
} ttt__kernel_sums;
static void ttt__kernel_sums_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__kernel_sums *sums = (const ttt__kernel_sums *)arg;
    ttt__kit kit = ttt__kit_of(sums->frame->ctx, thread);
    for (int64_t i = begin; i < end; i++) {
        const ttt__kernel_sum *sum = &sums->of[i % 4];
        ttt__mat left = ttt__rows_at(ttt__of(sum->left, i / 4), sums->from, sums->rows);
        ttt__mat right = ttt__rows_at(ttt__of(sum->right, i / 4), sums->from, sums->rows);
        ttt__add_product(&kit, ttt__of(sum->into, i / 4), ttt__transpose_of(left), right);
    }
}
static void ttt__add_kernel_sums(ttt__kernel_sums *sums) {
    const ttt__frame *frame = sums->frame;
    int64_t tokens = frame->count * frame->N;
    for (int64_t i = 0; (sums->rows = ttt__piece(tokens, TTT__CHUNK_TOKENS, i, &sums->from)) > 0;
         i++)
        ttt__parallel(frame->ctx, -1, 4 * frame->H, 1, ttt__kernel_sums_share, sums);
}

// Where gradients go: the buffers asked for, zeroed unless added to, and room for those nobody
// wants.
static ttt_real *ttt__gradient_room(ttt_ctx *ctx, const ttt_tensor *y, ttt_tensor **into,
                                    const bool *add, int i) {
    int64_t n = y->in[i]->size;
    ttt_real *p = into[i] ? into[i]->data : ttt__alloc_numbers(ctx, n, 1, false);
    if (p && !(into[i] && add[i])) memset(p, 0, (size_t)n * sizeof *p);
    return p;
}

// x and the parameters that are there as inputs of one op, and which of them is which. A tensor
// given twice becomes a second node, with a gradient of its own: shares write all gradients at
// once.
static int ttt__list_inputs(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *const *w, int rows,
                            ttt_tensor **in, signed char *input) {
    int n = 1;
    in[0] = x;
    for (int row = 0; row < rows; row++) {
        if (!w[row]) continue;
        input[row] = (signed char)n;
        in[n] = w[row];
        for (int i = 0; i < n; i++)
            if (w[row] == in[i]) in[n] = ttt_reshape(ctx, w[row], w[row]->shape);
        n++;
    }
    return n;
}

// -- a learner, on a tile of n tokens of one head
//
// Its weights, or gradients in them, are one block of numbers with named parts. Absent biases have
// no numbers, and the linear learner has no second layer.
typedef struct ttt__parts {
    ttt__mat all;             // the block as one row, (1,size)
    ttt__mat w1, b1, w2, b2;  // (h,wide), (1,wide), (wide,h), (1,h); linear: (h,h), (1,h)
} ttt__parts;
typedef struct ttt__layout {
    int64_t h, wide, size;    // wide: 0 if the learner is linear; size: of a block
    bool bias;
} ttt__layout;

static ttt__parts ttt__parts_at(const ttt__layout *layout, ttt_real *block) {
    ttt__room room = { block, 0 };
    ttt__parts parts;
    int64_t h = layout->h, first = layout->wide ? layout->wide : h;
    parts.w1 = ttt__take(&room, h, first);
    parts.b1 = layout->bias ? ttt__take(&room, 1, first) : ttt__absent();
    parts.w2 = layout->wide ? ttt__take(&room, layout->wide, h) : ttt__absent();
    parts.b2 = layout->wide && layout->bias ? ttt__take(&room, 1, h) : ttt__absent();
    parts.all = ttt__matrix(block, 1, room.used);
    return parts;
}
static ttt__parts ttt__no_parts(void) {
    ttt__parts none = { ttt__absent(), ttt__absent(), ttt__absent(), ttt__absent(), ttt__absent() };
    return none;
}
static ttt__layout ttt__layout_of(int64_t h, bool mlp, bool bias) {
    ttt__layout layout = { h, mlp ? 4 * h : 0, 0, bias };
    layout.size = ttt__parts_at(&layout, NULL).all.cols;
    return layout;
}
// The kernels of a block transposed, each at its own place of another block.
static ttt__parts ttt__transposed_at(const ttt__layout *layout, ttt_real *block) {
    ttt__parts parts = ttt__parts_at(layout, block);
    parts.w1 = ttt__matrix(parts.w1.at, parts.w1.cols, parts.w1.rows);
    parts.w2 = ttt__matrix(parts.w2.at, parts.w2.cols, parts.w2.rows);
    return parts;
}
// Only the way back reads the first layer's.
static void ttt__transpose_parts(const ttt__kit *kit, const ttt__parts *W_tr, const ttt__parts *W,
                                 bool first_layer) {
    if (first_layer) ttt__transpose(kit, W_tr->w1, W->w1);
    if (W->w2.at) ttt__transpose(kit, W_tr->w2, W->w2);
}

// Where a tile holds queries, k stands for q, and e for f.
typedef struct ttt__tile {
    const ttt__kit *kit;
    bool mlp;
    ttt__parts W, W_tr;        // weights, and their kernels transposed
    ttt__mat k, e;             // (n,h)
    ttt__mat z, a, a1, a2;     // MLP: (n,wide)
    ttt__mat room[2];          // MLP: two more of that size
} ttt__tile;

// From z what does not take a product: a, with 1 or 2 slopes also a1, with 2 also a2.
static void ttt__tile_gelu(const ttt__tile *tile, int slopes) {
    if (tile->mlp)
        tile->kit->lk->gelu_all(ttt__numbers(tile->z), tile->z.at, tile->a.at,
                                slopes > 0 ? tile->a1.at : NULL, slopes > 1 ? tile->a2.at : NULL);
}
// e = f_W(k):  linear k w1 + b1,  MLP gelu(k w1 + b1) w2 + b2
static void ttt__tile_predict(const ttt__tile *tile, int slopes) {
    const ttt__kit *kit = tile->kit;
    const ttt__parts *W = &tile->W;
    if (!tile->mlp) {
        ttt__affine(kit, tile->e, tile->k, W->w1, W->b1);
        return;
    }
    ttt__affine(kit, tile->z, tile->k, W->w1, W->b1);
    ttt__tile_gelu(tile, slopes);
    ttt__affine(kit, tile->e, tile->a, W->w2, W->b2);
}

// From g_e (or g_e times a number) to the gradient in the weights: sum = from + it.
//   linear  g_w1 = k^T g_e
//   MLP     g_w2 = a^T g_e,  g_z = (g_e w2^T) o gelu'(z),  g_w1 = k^T g_z
// and the gradient in a bias is the sum of the rows of g_z, or of g_e.
static void ttt__tile_gradient(const ttt__tile *tile, ttt__mat g_e, const ttt__parts *from,
                               const ttt__parts *sum) {
    const ttt__kit *kit = tile->kit;
    ttt__mat g_z = tile->mlp ? tile->room[0] : g_e;
    if (tile->mlp) {
        ttt__product_from(kit, sum->w2, from->w2, ttt__transpose_of(tile->a), g_e);
        ttt__row_sum_from(kit, sum->b2, from->b2, g_e);
        ttt__set_product(kit, g_z, g_e, tile->W_tr.w2);
        ttt__times(kit, g_z, g_z, tile->a1);
    }
    ttt__product_from(kit, sum->w1, from->w1, ttt__transpose_of(tile->k), g_z);
    ttt__row_sum_from(kit, sum->b1, from->b1, g_z);
}

// ttt__tile_gradient backwards: from V, the outer gradient in g_W (V_tr: its kernels transposed),
// to those in g_e, in the views (added to d_k) and in the weights (added to d_W).
//   linear  g_w1 = k^T g_e:  d_g_e = k V1 + vb1,  d_k += g_e V1^T
//   MLP     d_g_z = k V1 + vb1,   d_k += g_z V1^T,   d_g_a = d_g_z o gelu'(z)
//           d_g_e = d_g_a w2 + a V2 + vb2,   d_w2 += d_g_a^T g_e
//           and for ttt__tile_back_predict  d_a = g_e V2^T,  d_z = d_g_z o g_a o gelu''(z)
// Three buffers do for seven matrices: the routine gelu_step puts g_z, d_g_a and d_z in the places
// of g_a, d_g_z and gelu''(z), and d_a takes that of g_z.
static void ttt__tile_back_gradient(ttt__tile *tile, ttt__mat g_e, const ttt__parts *V,
                                    const ttt__parts *V_tr, ttt__mat d_g_e, ttt__mat d_k,
                                    const ttt__parts *d_W) {
    const ttt__kit *kit = tile->kit;
    if (!tile->mlp) {
        ttt__affine(kit, d_g_e, tile->k, V->w1, V->b1);
        ttt__add_product(kit, d_k, g_e, V_tr->w1);
        return;
    }
    ttt__mat g_a = tile->room[0], g_z = g_a, d_a = g_z;
    ttt__mat d_g_z = tile->room[1], d_g_a = d_g_z, d_z = tile->a2;
    ttt__set_product(kit, g_a, g_e, tile->W_tr.w2);
    ttt__affine(kit, d_g_z, tile->k, V->w1, V->b1);
    kit->lk->gelu_step(ttt__numbers(g_a), tile->a1.at, tile->a2.at, g_a.at, d_g_z.at);
    ttt__add_product(kit, d_k, g_z, V_tr->w1);
    ttt__affine(kit, d_g_e, d_g_a, tile->W.w2, V->b2);
    ttt__add_product(kit, d_g_e, tile->a, V->w2);
    ttt__add_product(kit, d_W->w2, ttt__transpose_of(d_g_a), g_e);
    ttt__set_product(kit, d_a, g_e, V_tr->w2);
    tile->room[1] = d_z;
    tile->a2 = d_g_a;  // its room is free
}

// ttt__tile_predict backwards: from d_e to the weights and the views. After ttt__tile_back_gradient
// (`more`) there are already d_a in room[0] and d_z in room[1]; queries have no more than d_e.
//   linear  d_k += d_e w1^T,   d_w1 += k^T d_e
//   MLP     d_a += d_e w2^T,   d_w2 += a^T d_e,   d_z += d_a o gelu'(z),
//           d_k += d_z w1^T,   d_w1 += k^T d_z
// and the gradients in the biases are the sums of the rows of d_z and d_e.
static void ttt__tile_back_predict(const ttt__tile *tile, ttt__mat d_e, bool more, ttt__mat d_k,
                                   const ttt__parts *d_W) {
    const ttt__kit *kit = tile->kit;
    ttt__mat d_a = tile->room[0], d_z = tile->mlp ? tile->room[1] : d_e;
    if (tile->mlp) {
        ttt__product_from(kit, d_a, more ? d_a : ttt__absent(), d_e, tile->W_tr.w2);
        ttt__add_product(kit, d_W->w2, ttt__transpose_of(tile->a), d_e);
        ttt__add_row_sum(kit, d_W->b2, d_e);
        if (more) kit->lk->add_times(ttt__numbers(d_a), d_a.at, tile->a1.at, d_z.at);
        else ttt__times(kit, d_z, d_a, tile->a1);
    }
    ttt__add_product(kit, d_k, d_z, tile->W_tr.w1);
    ttt__add_product(kit, d_W->w1, ttt__transpose_of(tile->k), d_z);
    ttt__add_row_sum(kit, d_W->b1, d_z);
}

// -- the inner loop of MTTT as one op
//
// What the tape keeps of a layer: its description, which input of the node each row of its
// parameter table is, and what going backwards will want. Where no way back may come (`kept` is
// false), only k, xM, xm, W0, W and the decoder's products are there, in scratch memory.
typedef struct ttt__mttt_arg {
    ttt_mixer_desc d;
    int T;
    ttt_real *rates;          // (T)
    const int64_t *order;     // (H,L) or NULL
    int64_t L;
    signed char input[TTT__MTTT_W0 + 4];  // -1: absent
    bool want_losses;
    ttt_tensor *losses;       // (T+1)
    bool kept;
    ttt__mat k, q, xM, xm;    // (B N, D), heads side by side; xm (B N, H)
    ttt__stack e, z;          // of the views in each step: (T,B,H) of (tokens of a step, h or wide)
    ttt__mat f;               // of the queries: (B N, D) ...
    ttt__stack query_z;       // ... and (B,H) of (N,wide)
    ttt__stack W0, W;         // blocks: W_0 (H); after each step (T,B,H), see ttt__W_at
    ttt__stack g_W;           // blocks of inner gradients (T,B,H), if rates are learned
    ttt_real *decoder;        // the decoder's products
} ttt__mttt_arg;

// The decoder's products of every head, see [8].
typedef struct ttt__decoder_products {
    ttt__stack G, M_tr, M;    // (h,D), (h,D), (D,h)
    ttt__mat b, m;            // (1,D): of all heads; (H,D)
    ttt__stack S, P;          // (h,h)
    ttt__stack rows;          // (3,h): sigma, pi, tau
    ttt__mat scalars;         // (H,3): sigma0, pi0, tau0
} ttt__decoder_products;
// The outer gradients in one head's S, P, rows and scalars, as one row and by name.
typedef struct ttt__decoder_block {
    ttt__mat all, S, P, rows, scalars;
} ttt__decoder_block;

typedef struct ttt__mttt {
    ttt__frame frame;
    const ttt__mttt_arg *arg;
    ttt__layout layout;
    int T, t;                   // steps; the one at work
    int64_t step_tokens;        // N, or L / T
    const int64_t *order;       // as arg->order; NULL while all tokens are read as they stand
    ttt__view phi, psi, see_M;  // see_M: x M
    ttt__mat out, out_bias;     // kernels (h,D) of all heads, one below the other; (1,D)
    ttt__stack g_kernel;        // (h,D)
    ttt_real *scale, *shift;    // of the norm, (H,D); NULL: without norm
    ttt__decoder_products decoder;
    ttt__stack W0_tr;         // blocks of kernels transposed
    ttt__stack sums;          // a block of each range of the chunk and head: what it adds
    double *loss;             // and its loss
    bool back;                // forwards predictions are computed, backwards found saved
    // backward: outer gradients. Those of tokens are of the chunk
    ttt__mat d_f, d_q, d_k, d_xM, d_xm;  // (count N, D); d_xm (count N, H)
    ttt__stack d_W;           // blocks (count,H)
    ttt__mat phi_tr, psi_tr, out_tr;  // kernels transposed, (D,D)
    ttt_real *d_sums, *d_decoder;  // blocks of the decoder: of each range and head; of each head
    ttt__stack d_M_tr;        // (h,D)
    ttt__mat d_m;             // (H,D)
} ttt__mttt;

// The story, forwards. See the table of phases.
static ttt__share_fn ttt__decoder_share, ttt__views_share, ttt__step_share, ttt__descend_share,
    ttt__output_share;
static bool ttt__mttt_begin(ttt__mttt *job, ttt_ctx *ctx, const ttt_tensor *node);
static bool ttt__mttt_keep(ttt__mttt *job, ttt__mttt_arg *arg);
static void ttt__mttt_start(ttt__mttt *job);
static void ttt__add_losses(const ttt__mttt *job, int t);

static void ttt__mttt_chunk(ttt__mttt *job) {
    ttt_ctx *ctx = job->frame.ctx;
    int64_t ranges = job->frame.count * job->frame.ranges, heads = job->frame.count * job->frame.H;
    ttt__parallel(ctx, -1, ranges, 1, ttt__views_share, job);
    for (job->t = 0; job->t < job->T; job->t++) {
        ttt__parallel(ctx, -1, ranges, 1, ttt__step_share, job);
        ttt__add_losses(job, job->t);
        if (job->frame.ranges > 1 || job->arg->d.learn_rates)
            ttt__parallel(ctx, -1, heads, 4, ttt__descend_share, job);
    }
    job->order = NULL;  // the final loss is of all tokens as they stand
    ttt__parallel(ctx, -1, ranges, 1, ttt__output_share, job);
    job->order = job->arg->order;
    ttt__add_losses(job, job->T);
}
static void ttt__fused_mttt_forward(ttt_ctx *ctx, ttt_tensor *y) {
    ttt__mttt_arg *arg = (ttt__mttt_arg *)(uintptr_t)y->arg;
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    ttt__mttt job;
    if (arg->input[TTT__MTTT_RATES] >= 0)
        memcpy(arg->rates, y->in[(int)arg->input[TTT__MTTT_RATES]]->data,
               (size_t)arg->T * sizeof *arg->rates);
    for (int t = 0; t <= arg->T && arg->want_losses && y->size == 0; t++)
        arg->losses->data[t] = (ttt_real)NAN;  // the mean of none
    if (y->size > 0 && ttt__mttt_begin(&job, ctx, y) && ttt__mttt_keep(&job, arg)) {
        ttt__mttt_start(&job);
        while (ttt__next_chunk(&job.frame)) ttt__mttt_chunk(&job);
    }
    ttt__arena_release(&ctx->scratch, scratch);
}

// -- the decoder
// One room for its products: made forwards, only found again on the way back.
static ttt__decoder_products ttt__decoder_products_in(const ttt__mttt *job, ttt__room *room) {
    ttt__decoder_products p;
    int64_t D = job->frame.D, H = job->frame.H, h = job->frame.h;
    p.G = ttt__stacked(ttt__take(room, D, D).at, h, D);
    p.M_tr = job->scale ? ttt__stacked(ttt__take(room, D, D).at, h, D) : p.G;
    p.M = ttt__stacked(ttt__take(room, D, D).at, D, h);
    p.b = ttt__take(room, 1, D);
    p.m = ttt__take(room, H, D);
    p.S = ttt__stacked(ttt__take(room, D, h).at, h, h);
    p.P = ttt__stacked(ttt__take(room, D, h).at, h, h);
    p.rows = ttt__stacked(ttt__take(room, 3, D).at, 3, h);
    p.scalars = ttt__take(room, H, 3);
    return p;
}
// y = a, less its mean if it is to be centered.
static void ttt__center(const ttt__kit *kit, ttt__mat y, ttt__mat a, bool center) {
    int64_t n = ttt__numbers(a);
    kit->k->map[TTT__MAP_add_scalar](
        n, a.at, y.at, center ? (ttt_real)(-kit->k->sum(n, a.at) / (double)n) : 0);
}
// The products of one head a share.
static void ttt__decoder_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *job = (const ttt__mttt *)arg;
    const ttt__decoder_products *all = &job->decoder;
    int64_t D = job->frame.D, h = job->frame.h;
    ttt__kit kit = ttt__kit_of(job->frame.ctx, thread);
    for (int64_t head = begin; head < end; head++) {
        ttt__mat G = ttt__of(all->G, head), M_tr = ttt__of(all->M_tr, head),
                 M = ttt__of(all->M, head);
        ttt__mat b = all->b, m = ttt__rows_at(all->m, head, 1), rows = ttt__of(all->rows, head);
        ttt__mat scalars = ttt__rows_at(all->scalars, head, 1);
        bool norm = job->scale != NULL;
        ttt__mat scale = ttt__matrix(norm ? job->scale + head * D : NULL, 1, D);
        ttt__mat shift = ttt__matrix(norm ? job->shift + head * D : NULL, 1, D);
        for (int64_t j = 0; j < h; j++)
            ttt__center(&kit, ttt__rows_at(G, j, 1),
                        ttt__rows_at(ttt__of(job->g_kernel, head), j, 1), norm);
        ttt__clear(rows);
        ttt__clear(scalars);
        if (norm) {
            ttt__transpose(&kit, M, G);  // G^T, until it is M
            ttt__gram(&kit, ttt__of(all->S, head), M);
            ttt__set_product(&kit, ttt__rows_at(rows, 0, 1), b, M);
            for (int64_t j = 0; j < h; j++)
                ttt__times(&kit, ttt__rows_at(M_tr, j, 1), ttt__rows_at(G, j, 1), scale);
            ttt__times(&kit, m, b, scale);
        } else ttt__assign(m, b);
        ttt__transpose(&kit, M, M_tr);
        ttt__gram(&kit, ttt__of(all->P, head), M);
        ttt__set_product(&kit, ttt__rows_at(rows, 1, 1), m, M);
        scalars.at[1] = (ttt_real)ttt__dot(&kit, m, m);
        if (!norm) continue;
        ttt__set_product(&kit, ttt__rows_at(rows, 2, 1), shift, M);
        scalars.at[0] = (ttt_real)ttt__dot(&kit, b, b);
        scalars.at[2] = (ttt_real)ttt__dot(&kit, m, shift);
    }
}

// Backwards the routine adds to the gradients in `d`.
static ttt__decoder ttt__decoder_of(const ttt__mttt *job, int64_t head, int64_t tokens,
                                    const ttt__decoder_block *d) {
    const ttt__frame *frame = &job->frame;
    const ttt_real *row = ttt__of(job->decoder.rows, head).at;
    const ttt_real *scalar = ttt__rows_at(job->decoder.scalars, head, 1).at;
    ttt__decoder decoder;
    decoder.h = frame->h;
    decoder.D = frame->D;
    decoder.norm = job->scale != NULL;
    decoder.eps = TTT_LAYER_NORM_EPS;
    decoder.c = (ttt_real)((double)frame->H / ((double)tokens * (double)frame->D));
    decoder.sigma = row;
    decoder.pi = row + decoder.h;
    decoder.tau = row + 2 * decoder.h;
    decoder.sigma0 = (double)scalar[0];
    decoder.pi0 = (double)scalar[1];
    decoder.tau0 = (double)scalar[2];
    decoder.d_sigma = d ? d->rows.at : NULL;
    decoder.d_pi = d ? d->rows.at + decoder.h : NULL;
    decoder.d_tau = d ? d->rows.at + 2 * decoder.h : NULL;
    decoder.d_scalars = d ? d->scalars.at : NULL;
    return decoder;
}

// The part of a token's loss that does not depend on the prediction: c/2 |shift - x|^2. It takes no
// product, so that the calling thread's kit does.
static double ttt__loss_rest(const ttt__mttt *job, const ttt__decoder *decoder, int64_t head,
                             ttt__mat x) {
    const ttt__kit *kit = &job->frame.kit;
    double square = ttt__dot(kit, x, x);
    if (job->shift) {
        ttt__mat shift = ttt__matrix(job->shift + head * decoder->D, 1, decoder->D);
        square += ttt__dot(kit, shift, shift) - 2 * ttt__dot(kit, shift, x);
    }
    return 0.5 * (double)decoder->c * square;
}

// -- a range at work
//
// The weights after t steps. Unless they are kept there is room for two steps of one chunk: the
// weights after step t+1 take the place of those after t-1, and a chunk that of the chunk before.
static ttt__parts ttt__W_at(const ttt__mttt *job, int t, int64_t b, int64_t head) {
    const ttt__frame *frame = &job->frame;
    int64_t kept = (int64_t)(t - 1) * frame->B + b;
    int64_t passing = (t - 1) % 2 * frame->count + b - frame->first;
    int64_t i = (job->arg->kept ? kept : passing) * frame->H + head;
    ttt__mat block = t == 0 ? ttt__of(job->arg->W0, head) : ttt__of(job->arg->W, i);
    return ttt__parts_at(&job->layout, block.at);
}
// What range `range` of the chunk adds to a head's W, to g_W, or to d_W.
static ttt__parts ttt__sum_at(const ttt__mttt *job, int64_t range, int64_t head) {
    return ttt__parts_at(&job->layout, ttt__of(job->sums, range * job->frame.H + head).at);
}

// A thread at work on a range: its tokens, its kit, its room.
typedef struct ttt__work {
    ttt__range range;
    ttt__kit kit;
    ttt__tile tile;
    ttt__mat e, z, k, d_k;  // the tile's, where they are not kept or have to be gathered
    ttt__mat rowS, rowP;    // e S + sigma, e P + pi; backwards their outer gradients
    ttt__mat g_e, d_g_e;    // inner gradient in e; outer gradient in that, then in e
    ttt_real *W_tr;         // room for transposed kernels
    ttt__parts V, V_tr;     // the outer gradient in g_W, and its kernels transposed
    ttt__mat q, f;          // of the range, (rows,D), where they are not kept
} ttt__work;

// Hands out a thread's room; and so tells its size.
static void ttt__work_room(ttt__work *work, const ttt__mttt *job, ttt__room *room) {
    int64_t h = job->frame.h, wide = job->layout.wide, size = job->layout.size;
    ttt__mat *narrow[] = { &work->e,  &work->k,   &work->d_k,  &work->rowS,
                           &work->rowP, &work->g_e, &work->d_g_e };
    ttt__mat *hidden[] = { &work->z,       &work->tile.a,       &work->tile.a1,
                           &work->tile.a2, &work->tile.room[0], &work->tile.room[1] };
    for (int i = 0; i < 7; i++) *narrow[i] = ttt__take(room, TTT__TILE_TOKENS, h);
    for (int i = 0; i < 6; i++) *hidden[i] = ttt__take(room, TTT__TILE_TOKENS, wide);
    work->W_tr = ttt__take(room, 1, size).at;
    work->V = ttt__parts_at(&job->layout, ttt__take(room, 1, size).at);
    work->V_tr = ttt__transposed_at(&job->layout, ttt__take(room, 1, size).at);
    work->q = ttt__take(room, job->frame.range_rows, job->frame.D);
    work->f = ttt__take(room, job->frame.range_rows, job->frame.D);
}
static void ttt__work_begin(ttt__work *work, const ttt__mttt *job, int64_t share, int thread,
                            int64_t tokens) {
    ttt__room room = ttt__room_of(&job->frame, thread);
    ttt__work_room(work, job, &room);
    work->range = ttt__range_of(&job->frame, share, tokens);
    work->kit = ttt__kit_of(job->frame.ctx, thread);
    work->tile.kit = &work->kit;
    work->tile.mlp = job->layout.wide > 0;
}
// Tiles of a range are even, and have at most TILE_TOKENS tokens.
static int64_t ttt__tile_size(const ttt__work *work) {
    int64_t tiles = (work->range.rows + TTT__TILE_TOKENS - 1) / TTT__TILE_TOKENS;
    return (work->range.rows + tiles - 1) / tiles;
}
static void ttt__tile_begin(ttt__work *work, int64_t n) {
    ttt__mat *all[] = { &work->e,           &work->k,       &work->d_k,     &work->rowS,
                        &work->rowP,          &work->g_e,     &work->d_g_e,   &work->z,
                        &work->tile.a,      &work->tile.a1, &work->tile.a2, &work->tile.room[0],
                        &work->tile.room[1] };
    for (int i = 0; i < 13; i++) all[i]->rows = n;
}

// The tile's weights are those after t steps.
static void ttt__tile_weights(const ttt__mttt *job, ttt__work *work, int t, int64_t head) {
    ttt_real *transposed = t == 0 ? ttt__of(job->W0_tr, head).at : work->W_tr;
    work->tile.W = ttt__W_at(job, t, work->range.b, head);
    work->tile.W_tr = ttt__transposed_at(&job->layout, transposed);
    if (t > 0)
        ttt__transpose_parts(&work->kit, &work->tile.W_tr, &work->tile.W, job->back);
}

// Where the i-th token of step t for a head lies in its sequence.
static int64_t ttt__token(const ttt__mttt *job, int64_t head, int64_t i) {
    return job->order ? job->order[head * job->arg->L + job->t * job->step_tokens + i] : i;
}

// Points the tile at the views of its n tokens from the i-th on, gathered if they are shuffled,
// and at the place of their predictions.
static void ttt__tile_views(const ttt__mttt *job, ttt__work *work, int64_t head, int64_t i,
                            int64_t n) {
    const ttt__frame *frame = &job->frame;
    ttt__mat sequence = ttt__rows_at(job->arg->k, work->range.b * frame->N, frame->N);
    ttt__mat k = ttt__cols_at(sequence, head * frame->h, frame->h);
    int64_t place = ((int64_t)job->t * frame->B + work->range.b) * frame->H + head;
    bool kept = job->arg->kept && job->t < job->T;
    ttt__tile_begin(work, n);
    work->tile.e = kept ? ttt__rows_at(ttt__of(job->arg->e, place), i, n) : work->e;
    work->tile.z = kept ? ttt__rows_at(ttt__of(job->arg->z, place), i, n) : work->z;
    work->tile.k = job->order ? work->k : ttt__rows_at(k, i, n);
    for (int64_t j = 0; j < n && job->order; j++)
        ttt__assign(ttt__rows_at(work->k, j, 1), ttt__rows_at(k, ttt__token(job, head, i + j), 1));
}

// The loss of one tile in step t and, into work->g_e, its gradient in the prediction. Forwards
// computes the prediction; backwards finds it saved.
static double ttt__tile_loss_gradient(const ttt__mttt *job, ttt__work *work,
                                      const ttt__decoder *decoder, int64_t head, int64_t i,
                                      int64_t n, int slopes) {
    const ttt__frame *frame = &job->frame;
    const ttt__mttt_arg *arg = job->arg;
    ttt__tile *tile = &work->tile;
    double loss = 0;
    ttt__tile_views(job, work, head, i, n);
    if (job->back) ttt__tile_gelu(tile, slopes);
    else ttt__tile_predict(tile, slopes);
    if (decoder->norm)
        ttt__affine(&work->kit, work->rowS, tile->e, ttt__of(job->decoder.S, head),
                    ttt__rows_at(ttt__of(job->decoder.rows, head), 0, 1));
    ttt__affine(&work->kit, work->rowP, tile->e, ttt__of(job->decoder.P, head),
                ttt__rows_at(ttt__of(job->decoder.rows, head), 1, 1));
    for (int64_t j = 0; j < n; j++) {
        int64_t token = work->range.b * frame->N + ttt__token(job, head, i + j), at = j * frame->h;
        const ttt_real *xM = arg->xM.at + token * frame->D + head * frame->h;
        loss +=
            work->kit.lk->decode(decoder, tile->e.at + at, work->rowS.at + at, work->rowP.at + at,
                                 xM, arg->xm.at[token * frame->H + head], work->g_e.at + at);
        if (arg->want_losses && !job->back)
            loss += ttt__loss_rest(job, decoder, head, ttt__rows_at(frame->x, token, 1));
    }
    return loss;
}

// -- phases forwards
// Views of a range, heads side by side: k = x phi + b_phi, x M, and x m.
static void ttt__views_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *job = (const ttt__mttt *)arg;
    const ttt__frame *frame = &job->frame;
    ttt__kit kit = ttt__kit_of(frame->ctx, thread);
    for (int64_t share = begin; share < end; share++) {
        ttt__range range = ttt__range_of(frame, share, frame->N);
        ttt__mat x = ttt__rows_at(frame->x, range.at, range.rows);
        ttt__see_all(&kit, ttt__rows_at(job->arg->k, range.at, range.rows), x, &job->phi, frame->H);
        ttt__see_all(&kit, ttt__rows_at(job->arg->xM, range.at, range.rows), x, &job->see_M,
                     frame->H);
        ttt__set_product(&kit, ttt__rows_at(job->arg->xm, range.at, range.rows), x,
                         ttt__transpose_of(job->decoder.m));
    }
}

// A step of one range: for every head what its tokens add to the weights, -eta g_W. The first
// range of a sequence begins its sum with W, and so makes W'; the sums of the others are added to
// that. If rates are learned, all ranges sum up g_W itself, which is wanted.
static void ttt__step_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *job = (const ttt__mttt *)arg;
    bool descends = !job->arg->d.learn_rates;
    for (int64_t share = begin; share < end; share++) {
        ttt__work work;
        ttt__work_begin(&work, job, share, thread, job->step_tokens);
        int64_t tile = ttt__tile_size(&work), rows = work.range.rows;
        bool from_W = descends && share % job->frame.ranges == 0;
        for (int64_t head = 0; head < job->frame.H; head++) {
            ttt__decoder decoder = ttt__decoder_of(job, head, job->step_tokens, NULL);
            ttt__tile_weights(job, &work, job->t, head);
            ttt__parts from = from_W ? work.tile.W : ttt__no_parts();
            ttt__parts sum = from_W ? ttt__W_at(job, job->t + 1, work.range.b, head) :
                                      ttt__sum_at(job, share, head);
            double loss = 0;
            for (int64_t i = 0; i < rows; i += tile, from = sum) {  // tiles go on from the last
                loss += ttt__tile_loss_gradient(job, &work, &decoder, head, work.range.from + i,
                                                TTT__MIN(tile, rows - i), 1);
                if (descends) ttt__scaled(&work.kit, work.g_e, work.g_e, -job->arg->rates[job->t]);
                ttt__tile_gradient(&work.tile, work.g_e, &from, &sum);
            }
            job->loss[share * job->frame.H + head] = loss;
        }
    }
}

// The ranges' sums into one, W'; or into g_W, and W' = W - eta g_W. It takes no product, so that
// the calling thread's kit does for all.
static void ttt__descend_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *job = (const ttt__mttt *)arg;
    const ttt__frame *frame = &job->frame;
    const ttt__kit *kit = &frame->kit;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t sequence = i / frame->H, b = frame->first + sequence, head = i % frame->H;
        bool learned = job->arg->d.learn_rates;
        ttt__mat W = ttt__W_at(job, job->t, b, head).all;
        ttt__mat next = ttt__W_at(job, job->t + 1, b, head).all;
        ttt__mat sum = learned ? ttt__sum_at(job, sequence * frame->ranges, head).all : next;
        for (int64_t r = 1; r < frame->ranges; r++)
            ttt__plus(kit, sum, ttt__sum_at(job, sequence * frame->ranges + r, head).all);
        if (!learned) continue;
        ttt__assign(ttt__of(job->arg->g_W, ((int64_t)job->t * frame->B + b) * frame->H + head),
                    sum);
        ttt__scaled(kit, sum, sum, job->arg->rates[job->t]);
        ttt__minus(kit, next, W, sum);
    }
}

// Points the tile at n queries of a range from the i-th on, and at the hidden numbers of their
// predictions.
static void ttt__tile_queries(const ttt__mttt *job, ttt__work *work, int64_t head, int64_t i,
                              int64_t n, ttt__mat q) {
    const ttt__frame *frame = &job->frame;
    ttt__tile_begin(work, n);
    work->tile.k = ttt__rows_at(ttt__cols_at(q, head * frame->h, frame->h), i, n);
    work->tile.z = job->arg->kept
                       ? ttt__rows_at(ttt__of(job->arg->query_z, work->range.b * frame->H + head),
                                      work->range.from + i, n)
                       : work->z;
}
// Output of a range: y = sum over heads of f out + b_out with the final weights; and the final
// loss.
static void ttt__output_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *job = (const ttt__mttt *)arg;
    const ttt__frame *frame = &job->frame;
    for (int64_t share = begin; share < end; share++) {
        ttt__work work;
        ttt__work_begin(&work, job, share, thread, frame->N);
        int64_t rows = work.range.rows, at = work.range.at, tile = ttt__tile_size(&work);
        ttt__mat q =
            ttt__rows_at(job->arg->kept ? job->arg->q : work.q, job->arg->kept ? at : 0, rows);
        ttt__mat f =
            ttt__rows_at(job->arg->kept ? job->arg->f : work.f, job->arg->kept ? at : 0, rows);
        ttt__see_all(&work.kit, q, ttt__rows_at(frame->x, at, rows), &job->psi, frame->H);
        for (int64_t head = 0; head < frame->H; head++) {
            ttt__decoder decoder = ttt__decoder_of(job, head, frame->N, NULL);
            double loss = 0;
            work.tile.W = ttt__W_at(job, job->T, work.range.b, head);
            for (int64_t i = 0; i < rows; i += tile) {
                int64_t n = TTT__MIN(tile, rows - i);
                if (job->arg->want_losses)
                    loss += ttt__tile_loss_gradient(job, &work, &decoder, head, work.range.from + i,
                                                    n, 0);
                ttt__tile_queries(job, &work, head, i, n, q);
                work.tile.e = ttt__rows_at(ttt__cols_at(f, head * frame->h, frame->h), i, n);
                ttt__tile_predict(&work.tile, 0);
            }
            job->loss[share * frame->H + head] = loss;
        }
        ttt__affine(&work.kit, ttt__rows_at(frame->y, at, rows), f, job->out, job->out_bias);
    }
}

static void ttt__add_losses(const ttt__mttt *job, int t) {
    double sum = 0;
    if (!job->arg->want_losses) return;
    for (int64_t i = 0; i < job->frame.count * job->frame.ranges * job->frame.H; i++)
        sum += job->loss[i];
    job->arg->losses->data[t] += (ttt_real)(sum / (double)job->frame.B);
}

// -- backwards
static ttt__share_fn ttt__output_back_share, ttt__join_share, ttt__step_back_share,
    ttt__views_back_share, ttt__decoder_back_share;
static bool ttt__mttt_begin_back(ttt__mttt *job);
static void ttt__rate_back(const ttt__mttt *job, ttt_real *d_rates);
static void ttt__start_back(const ttt__mttt *job, ttt_real **d);
static void ttt__clear_chunk(const ttt__mttt *job);
static void ttt__join_decoder(const ttt__mttt *job);
static void ttt__kernels_back(const ttt__mttt *job, ttt_real **d);
static void ttt__decoder_back(const ttt__mttt *job, ttt_real **d);

// The story again, the other way round. d: gradients of the parameters, by row.
static void ttt__mttt_chunk_back(ttt__mttt *job, ttt_real **d) {
    ttt_ctx *ctx = job->frame.ctx;
    int64_t ranges = job->frame.count * job->frame.ranges, heads = job->frame.count * job->frame.H;
    ttt__clear_chunk(job);
    ttt__parallel(ctx, -1, ranges, 1, ttt__output_back_share, job);
    ttt__parallel(ctx, -1, heads, 4, ttt__join_share, job);
    for (job->t = job->T - 1; job->t >= 0; job->t--) {
        ttt__rate_back(job, d[TTT__MTTT_RATES]);
        ttt__parallel(ctx, -1, ranges, 1, ttt__step_back_share, job);
        ttt__parallel(ctx, -1, heads, 4, ttt__join_share, job);
    }
    ttt__start_back(job, d);
    ttt__join_decoder(job);
    ttt__kernels_back(job, d);
    ttt__parallel(ctx, -1, ranges, 1, ttt__views_back_share, job);
}
static void ttt__fused_mttt_back(ttt_ctx *ctx, ttt_tensor *y, const ttt_tensor *d_y,
                                 ttt_tensor **into, const bool *add) {
    const ttt__mttt_arg *arg = (const ttt__mttt_arg *)y->arg;
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    ttt__mttt job;
    ttt_real *d[TTT__MTTT_W0 + 4] = { NULL };
    for (int row = 0; row < TTT__MTTT_W0 + 4; row++)
        if (arg->input[row] >= 0) d[row] = ttt__gradient_room(ctx, y, into, add, arg->input[row]);
    ttt_real *d_x = ttt__gradient_room(ctx, y, into, add, 0);
    if (y->size > 0 && ttt__mttt_begin(&job, ctx, y)) {
        job.back = true;
        job.frame.d_y = ttt__matrix(d_y->data, job.frame.B * job.frame.N, job.frame.D);
        job.frame.d_x = ttt__matrix(d_x, job.frame.B * job.frame.N, job.frame.D);
        if (ttt__mttt_begin_back(&job)) {
            while (ttt__next_chunk(&job.frame)) ttt__mttt_chunk_back(&job, d);
            ttt__decoder_back(&job, d);
        }
    }
    ttt__arena_release(&ctx->scratch, scratch);
}

// Output and test view of a range: d_f = d_y out^T; then through f at the final weights to d_q and
// d_W.
static void ttt__output_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *job = (const ttt__mttt *)arg;
    const ttt__frame *frame = &job->frame;
    for (int64_t share = begin; share < end; share++) {
        ttt__work work;
        ttt__work_begin(&work, job, share, thread, frame->N);
        int64_t rows = work.range.rows, h = frame->h, tile = ttt__tile_size(&work);
        ttt__mat q = ttt__rows_at(job->arg->q, work.range.at, rows);
        ttt__mat d_f = ttt__rows_at(job->d_f, work.range.local, rows);
        ttt__mat d_q = ttt__rows_at(job->d_q, work.range.local, rows);
        ttt__set_product(&work.kit, d_f, ttt__rows_at(frame->d_y, work.range.at, rows),
                         job->out_tr);
        ttt__clear(d_q);
        for (int64_t head = 0; head < frame->H; head++) {
            ttt__parts d_W = ttt__sum_at(job, share, head);
            ttt__clear(d_W.all);
            ttt__tile_weights(job, &work, job->T, head);
            for (int64_t i = 0; i < rows; i += tile) {
                int64_t n = TTT__MIN(tile, rows - i);
                ttt__tile_queries(job, &work, head, i, n, q);
                ttt__tile_gelu(&work.tile, 1);
                ttt__tile_back_predict(&work.tile,
                                       ttt__rows_at(ttt__cols_at(d_f, head * h, h), i, n), false,
                                       ttt__rows_at(ttt__cols_at(d_q, head * h, h), i, n), &d_W);
            }
        }
    }
}

// d_W += the ranges' sums.
static void ttt__join_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *job = (const ttt__mttt *)arg;
    int64_t H = job->frame.H, ranges = job->frame.ranges;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        for (int64_t r = 0; r < ranges; r++)
            ttt__plus(&job->frame.kit, ttt__of(job->d_W, i),
                      ttt__sum_at(job, i / H * ranges + r, i % H).all);
}

// The i-th block of gradients in the decoder's products.
static int64_t ttt__decoder_block_size(const ttt__mttt *job) {
    return 2 * job->frame.h * job->frame.h + 3 * job->frame.h + 3;
}
static ttt__decoder_block ttt__decoder_block_at(const ttt__mttt *job, ttt_real *blocks, int64_t i) {
    int64_t h = job->frame.h, size = ttt__decoder_block_size(job);
    ttt__room room = { blocks + i * size, 0 };
    ttt__decoder_block d;
    d.all = ttt__matrix(room.at, 1, size);
    d.S = ttt__take(&room, h, h);
    d.P = ttt__take(&room, h, h);
    d.rows = ttt__take(&room, 3, h);
    d.scalars = ttt__take(&room, 1, 3);
    return d;
}

// A tile of a step backwards: through the gradient to d_g_e, through the decoder to d_e, through
// the prediction. rowS = e S + sigma is a product too: d_S += e^T d_rowS, d_e += d_rowS S. So with
// P.
static void ttt__tile_step_back(const ttt__mttt *job, ttt__work *work, int64_t head, int64_t i,
                                int64_t n, const ttt__decoder *decoder, const ttt__decoder_block *d,
                                const ttt__parts *d_W) {
    const ttt__frame *frame = &job->frame;
    int64_t h = frame->h, sequence = (work->range.b - frame->first) * frame->N;
    ttt__mat d_views = ttt__cols_at(ttt__rows_at(job->d_k, sequence, frame->N), head * h, h);
    (void)ttt__tile_loss_gradient(job, work, decoder, head, i, n, 2);
    ttt__mat d_k = job->order ? work->d_k : ttt__rows_at(d_views, i, n);
    if (job->order) ttt__clear(d_k);
    ttt__tile_back_gradient(&work->tile, work->g_e, &work->V, &work->V_tr, work->d_g_e, d_k, d_W);
    for (int64_t j = 0; j < n; j++) {
        int64_t token = ttt__token(job, head, i + j), at = j * h, local = sequence + token;
        int64_t all = work->range.b * frame->N + token;
        work->kit.lk->decode_back(decoder, work->tile.e.at + at, work->rowS.at + at,
                                  work->rowP.at + at, job->arg->xM.at + all * frame->D + head * h,
                                  job->arg->xm.at[all * frame->H + head], work->d_g_e.at + at,
                                  job->d_xM.at + local * frame->D + head * h,
                                  &job->d_xm.at[local * frame->H + head]);
    }
    ttt__mat e_tr = ttt__transpose_of(work->tile.e), d_rowS = work->rowS, d_rowP = work->rowP,
             d_e = work->d_g_e;
    if (decoder->norm) {
        ttt__add_product(&work->kit, d->S, e_tr, d_rowS);
        ttt__add_product(&work->kit, d_e, d_rowS, ttt__of(job->decoder.S, head));
    }
    ttt__add_product(&work->kit, d->P, e_tr, d_rowP);
    ttt__add_product(&work->kit, d_e, d_rowP, ttt__of(job->decoder.P, head));
    ttt__tile_back_predict(&work->tile, d_e, true, d_k, d_W);
    for (int64_t j = 0; j < n && job->order; j++)
        ttt__plus(&work->kit, ttt__rows_at(d_views, ttt__token(job, head, i + j), 1),
                  ttt__rows_at(d_k, j, 1));
}
// A step of a range, backwards. From W' = W - eta g_W, where d_W is the gradient in W', V = -eta
// d_W. Through step, decoder and prediction it reaches the views, the decoder's products, and W.
// What goes straight from W' to W is in d_W already.
static void ttt__step_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *job = (const ttt__mttt *)arg;
    int64_t H = job->frame.H;
    for (int64_t share = begin; share < end; share++) {
        ttt__work work;
        ttt__work_begin(&work, job, share, thread, job->step_tokens);
        int64_t tile = ttt__tile_size(&work), rows = work.range.rows, from = work.range.from;
        for (int64_t head = 0; head < H; head++) {
            ttt__decoder_block d = ttt__decoder_block_at(job, job->d_sums, share * H + head);
            ttt__decoder decoder = ttt__decoder_of(job, head, job->step_tokens, &d);
            ttt__parts d_W = ttt__sum_at(job, share, head);
            ttt__mat d_next = ttt__of(job->d_W, (work.range.b - job->frame.first) * H + head);
            ttt__clear(d_W.all);
            ttt__tile_weights(job, &work, job->t, head);
            ttt__scaled(&work.kit, work.V.all, d_next, -job->arg->rates[job->t]);
            ttt__transpose_parts(&work.kit, &work.V_tr, &work.V, true);
            for (int64_t i = 0; i < rows; i += tile)
                ttt__tile_step_back(job, &work, head, from + i, TTT__MIN(tile, rows - i), &decoder,
                                    &d, &d_W);
        }
    }
}

// d_x += d_q psi^T + d_k phi^T + d_xM M^T + d_xm m of a range.
static void ttt__views_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__mttt *job = (const ttt__mttt *)arg;
    const ttt__frame *frame = &job->frame;
    ttt__kit kit = ttt__kit_of(frame->ctx, thread);
    ttt__mat M_tr = ttt__matrix(job->decoder.M_tr.first.at, frame->D, frame->D);
    for (int64_t share = begin; share < end; share++) {
        ttt__range range = ttt__range_of(frame, share, frame->N);
        int64_t rows = range.rows, local = range.local;
        ttt__mat d_x = ttt__rows_at(frame->d_x, range.at, rows);
        ttt__add_product(&kit, d_x, ttt__rows_at(job->d_q, local, rows), job->psi_tr);
        ttt__add_product(&kit, d_x, ttt__rows_at(job->d_k, local, rows), job->phi_tr);
        ttt__add_product(&kit, d_x, ttt__rows_at(job->d_xM, local, rows), M_tr);
        ttt__add_product(&kit, d_x, ttt__rows_at(job->d_xm, local, rows), job->decoder.m);
    }
}

// What all tokens of a chunk meet: the kernels out, psi, phi and their biases, and M^T and m.
static void ttt__kernels_back(const ttt__mttt *job, ttt_real **d) {
    const ttt__frame *frame = &job->frame;
    int64_t D = frame->D, h = frame->h, rows = frame->count * frame->N,
            at = frame->first * frame->N;
    ttt__mat x = ttt__rows_at(frame->x, at, rows), d_y = ttt__rows_at(frame->d_y, at, rows);
    ttt__mat f = ttt__rows_at(job->arg->f, at, rows), d_q = ttt__rows_at(job->d_q, 0, rows);
    ttt__mat d_k = ttt__rows_at(job->d_k, 0, rows), d_xM = ttt__rows_at(job->d_xM, 0, rows);
    ttt__stack all_x = ttt__same_for_all(x), all_dy = ttt__same_for_all(d_y);
    ttt__kernel_sums sums = {
        frame,
        { { ttt__side_by_side(f, h), all_dy, ttt__stacked(d[TTT__MTTT_H_KERNEL], h, D) },
          { all_x, ttt__side_by_side(d_q, h), ttt__stacked(d[TTT__MTTT_PSI_KERNEL], D, h) },
          { all_x, ttt__side_by_side(d_k, h), ttt__stacked(d[TTT__MTTT_PHI_KERNEL], D, h) },
          { ttt__side_by_side(d_xM, h), all_x, job->d_M_tr } },
        0, 0,
    };
    ttt__add_kernel_sums(&sums);
    ttt__add_product(&frame->kit, job->d_m, ttt__transpose_of(ttt__rows_at(job->d_xm, 0, rows)), x);
    ttt__add_row_sum(&frame->kit, ttt__matrix(d[TTT__MTTT_H_BIAS], 1, D), d_y);
    ttt__add_row_sum(&frame->kit, ttt__matrix(d[TTT__MTTT_PSI_BIAS], 1, D), d_q);
    ttt__add_row_sum(&frame->kit, ttt__matrix(d[TTT__MTTT_PHI_BIAS], 1, D), d_k);
}

// From W' = W - eta g_W: d_eta = - sum g_W . d_W over the chunk
static void ttt__rate_back(const ttt__mttt *job, ttt_real *d_rates) {
    const ttt__frame *frame = &job->frame;
    int64_t H = frame->H, n = H * job->layout.size;
    double sum = 0;
    if (!d_rates) return;
    for (int64_t b = 0; b < frame->count; b++) {
        int64_t place = ((int64_t)job->t * frame->B + frame->first + b) * H;
        sum += ttt__dot(&frame->kit, ttt__matrix(ttt__of(job->arg->g_W, place).at, 1, n),
                        ttt__matrix(ttt__of(job->d_W, b * H).at, 1, n));
    }
    d_rates[job->t] -= (ttt_real)sum;
}

// d_W0, summed over sequences, into the parameters it was copied from.
static void ttt__start_back(const ttt__mttt *job, ttt_real **d) {
    for (int64_t i = 0; i < job->frame.count * job->frame.H; i++) {
        ttt__parts p = ttt__parts_at(&job->layout, ttt__of(job->d_W, i).at);
        const ttt__mat part[4] = { p.w1, p.b1, p.w2, p.b2 };
        for (int row = 0; row < 4; row++) {
            ttt_real *to = d[TTT__MTTT_W0 + row];
            int64_t rows = part[row].rows, cols = part[row].cols;
            if (to)
                ttt__plus(&job->frame.kit, ttt__of(ttt__stacked(to, rows, cols), i % job->frame.H),
                          part[row]);
        }
    }
}

// The ranges' blocks of the chunk, joined in their order.
static void ttt__join_decoder(const ttt__mttt *job) {
    int64_t H = job->frame.H, size = ttt__decoder_block_size(job);
    for (int64_t s = 0; s < job->frame.count * job->frame.ranges; s++)
        ttt__plus(&job->frame.kit, ttt__matrix(job->d_decoder, 1, H * size),
                  ttt__matrix(job->d_sums + s * H * size, 1, H * size));
}

// From the gradients in a head's products to those in g, b_g and the norm:
//   d_M^T += (d_P + d_P^T) M^T + d_pi^T m + d_tau^T shift
//   d_m += d_pi M^T + 2 d_pi0 m + d_tau0 shift
//   d_shift += d_tau M^T + d_tau0 m
//   d_G = (d_S + d_S^T) G + d_sigma^T b + d_M^T o scale
//   d_b = d_sigma G + 2 d_sigma0 b + d_m o scale
//   d_scale += d_m o b + the rows of d_M^T o G
// Backwards, centering a row centers its gradient. Without norm G is g, M^T is G, m is b.
typedef struct ttt__decoder_gradients {
    const ttt__mttt *job;
    ttt_real *d_g, *d_scale, *d_shift;  // (H,h,D), (H,D), (H,D)
    ttt__mat d_b;                       // (H,D), of each head
} ttt__decoder_gradients;

// d_M^T and d_m, and d_shift; what ttt__kernels_back put into the first two is there already.
static void ttt__products_back(const ttt__decoder_gradients *to, const ttt__kit *kit, int64_t head,
                               const ttt__decoder_block *d, ttt__mat symmetric, ttt__mat d_M_tr,
                               ttt__mat d_m) {
    const ttt__mttt *job = to->job;
    int64_t D = job->frame.D;
    ttt__mat M_tr = ttt__of(job->decoder.M_tr, head), m = ttt__rows_at(job->decoder.m, head, 1);
    ttt__mat d_pi = ttt__rows_at(d->rows, 1, 1), d_tau = ttt__rows_at(d->rows, 2, 1);
    ttt__clear(symmetric);
    ttt__add_both(symmetric, d->P);
    ttt__add_product(kit, d_M_tr, symmetric, M_tr);
    ttt__add_product(kit, d_M_tr, ttt__column(d_pi.at, d_pi.cols), m);
    ttt__add_product(kit, d_m, d_pi, M_tr);
    for (int64_t i = 0; i < D; i++) d_m.at[i] += 2 * d->scalars.at[1] * m.at[i];
    if (!job->scale) return;
    ttt__mat shift = ttt__matrix(job->shift + head * D, 1, D);
    ttt__mat d_shift = ttt__matrix(to->d_shift + head * D, 1, D);
    ttt__add_product(kit, d_M_tr, ttt__column(d_tau.at, d_tau.cols), shift);
    ttt__add_product(kit, d_shift, d_tau, M_tr);
    for (int64_t i = 0; i < D; i++) {
        d_m.at[i] += d->scalars.at[2] * shift.at[i];
        d_shift.at[i] += d->scalars.at[2] * m.at[i];
    }
}
// d_G, into d_M^T's place, d_b and d_scale.
static void ttt__scale_back(const ttt__decoder_gradients *to, const ttt__kit *kit, int64_t head,
                            const ttt__decoder_block *d, ttt__mat symmetric, ttt__mat d_M_tr,
                            ttt__mat d_m) {
    const ttt__mttt *job = to->job;
    int64_t D = job->frame.D;
    ttt__mat G = ttt__of(job->decoder.G, head), b = job->decoder.b, d_G = d_M_tr;
    ttt__mat scale = ttt__matrix(job->scale + head * D, 1, D);
    ttt__mat d_scale = ttt__matrix(to->d_scale + head * D, 1, D),
             d_b = ttt__rows_at(to->d_b, head, 1);
    ttt__mat d_sigma = ttt__rows_at(d->rows, 0, 1);
    for (int64_t i = 0; i < D; i++) {
        d_scale.at[i] += d_m.at[i] * b.at[i];
        d_b.at[i] = 2 * d->scalars.at[0] * b.at[i] + d_m.at[i] * scale.at[i];
    }
    ttt__add_product(kit, d_b, d_sigma, G);
    for (int64_t j = 0; j < G.rows; j++) {
        ttt__mat row = ttt__rows_at(d_M_tr, j, 1);
        kit->lk->add_times(D, row.at, ttt__rows_at(G, j, 1).at, d_scale.at);
        ttt__times(kit, row, row, scale);
    }
    ttt__clear(symmetric);
    ttt__add_both(symmetric, d->S);
    ttt__add_product(kit, d_G, symmetric, G);
    ttt__add_product(kit, d_G, ttt__column(d_sigma.at, d_sigma.cols), b);
}
static void ttt__decoder_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__decoder_gradients *to = (const ttt__decoder_gradients *)arg;
    const ttt__mttt *job = to->job;
    int64_t D = job->frame.D, h = job->frame.h;
    ttt__kit kit = ttt__kit_of(job->frame.ctx, thread);
    for (int64_t head = begin; head < end; head++) {
        ttt__room room = ttt__room_of(&job->frame, thread);
        ttt__mat symmetric = ttt__take(&room, h, h), line = ttt__take(&room, 1, D);
        ttt__decoder_block d = ttt__decoder_block_at(job, job->d_decoder, head);
        ttt__mat d_M_tr = ttt__of(job->d_M_tr, head), d_m = ttt__rows_at(job->d_m, head, 1);
        ttt__mat d_g = ttt__of(ttt__stacked(to->d_g, h, D), head);
        ttt__products_back(to, &kit, head, &d, symmetric, d_M_tr, d_m);
        if (!job->scale) {
            ttt__plus(&kit, d_g, d_M_tr);
            ttt__assign(ttt__rows_at(to->d_b, head, 1), d_m);
            continue;
        }
        ttt__scale_back(to, &kit, head, &d, symmetric, d_M_tr, d_m);
        for (int64_t j = 0; j < h; j++) {
            ttt__center(&kit, line, ttt__rows_at(d_M_tr, j, 1), true);
            ttt__plus(&kit, ttt__rows_at(d_g, j, 1), line);
        }
    }
}
static void ttt__decoder_back(const ttt__mttt *job, ttt_real **d) {
    const ttt__frame *frame = &job->frame;
    ttt__mat b = ttt__scratch(frame->ctx, frame->H, frame->D),
             line = ttt__scratch(frame->ctx, 1, frame->D);
    ttt__decoder_gradients to = { job, d[TTT__MTTT_G_KERNEL], d[TTT__MTTT_LN_SCALE],
                                  d[TTT__MTTT_LN_BIAS], b };
    if (frame->ctx->result) return;
    ttt__parallel(frame->ctx, -1, frame->H, 1, ttt__decoder_back_share, &to);
    for (int64_t head = 0; head < frame->H; head++) {
        ttt__center(&frame->kit, line, ttt__rows_at(b, head, 1), job->scale != NULL);
        ttt__plus(&frame->kit, ttt__matrix(d[TTT__MTTT_G_BIAS], 1, frame->D), line);
    }
}

// -- what forward and backward have in common: sizes, parameters, room
static bool ttt__mttt_begin(ttt__mttt *job, ttt_ctx *ctx, const ttt_tensor *node) {
    const ttt__mttt_arg *arg = (const ttt__mttt_arg *)node->arg;
    ttt__frame *frame = &job->frame;
    memset(job, 0, sizeof *job);
    ttt__frame_begin(frame, ctx, node, arg->d.heads, arg->input, arg->order ? 1 : 0);  // see WORK
    int64_t D = frame->D, H = frame->H, h = frame->h;
    job->arg = arg;
    job->T = arg->T;
    job->order = arg->order;
    job->step_tokens = arg->order ? arg->L / arg->T : frame->N;
    job->layout =
        ttt__layout_of(h, ttt__dense_layers(arg->d.mixer->learner) == 2, !arg->d.no_inner_bias);
    job->phi.kernel = ttt__stacked(ttt__param(frame, TTT__MTTT_PHI_KERNEL), D, h);
    job->phi.bias = ttt__param_row(frame, TTT__MTTT_PHI_BIAS, D);
    job->psi.kernel = ttt__stacked(ttt__param(frame, TTT__MTTT_PSI_KERNEL), D, h);
    job->psi.bias = ttt__param_row(frame, TTT__MTTT_PSI_BIAS, D);
    job->g_kernel = ttt__stacked(ttt__param(frame, TTT__MTTT_G_KERNEL), h, D);
    job->out = ttt__matrix(ttt__param(frame, TTT__MTTT_H_KERNEL), D, D);
    job->out_bias = ttt__param_row(frame, TTT__MTTT_H_BIAS, D);
    job->scale = ttt__param(frame, TTT__MTTT_LN_SCALE);
    job->shift = ttt__param(frame, TTT__MTTT_LN_BIAS);
    ttt__work work;
    ttt__room count = { NULL, 0 };
    ttt__work_room(&work, job, &count);
    frame->room_size = count.used;
    frame->room = ttt__alloc_numbers(ctx, ctx->threads, frame->room_size, false);
    int64_t size = job->layout.size, blocks = frame->chunk * frame->ranges * H;
    job->W0_tr = ttt__stacked(ttt__alloc_numbers(ctx, H, size, false), 1, size);
    job->sums = ttt__stacked(ttt__alloc_numbers(ctx, blocks, size, false), 1, size);
    job->loss =
        (double *)ttt__arena_alloc(ctx, &ctx->scratch, (uint64_t)blocks * sizeof *job->loss);
    return !ctx->result;
}

// Room of what going backwards wants, which lives as long as the node if a way back may come.
static bool ttt__mttt_keep(ttt__mttt *job, ttt__mttt_arg *arg) {
    const ttt__frame *frame = &job->frame;
    ttt_ctx *ctx = frame->ctx;
    int64_t tokens = frame->B * frame->N, D = frame->D, H = frame->H, h = frame->h;
    int64_t size = job->layout.size, wide = job->layout.wide, n = job->step_tokens;
    bool keep = arg->kept = ctx->recording && !ctx->numbers_only;
    int64_t steps = keep ? (int64_t)arg->T * frame->B : TTT__MIN(arg->T, 2) * frame->chunk;
    int64_t learners = (int64_t)arg->T * frame->B * H;
    ttt__room count = { NULL, 0 };
    (void)ttt__decoder_products_in(job, &count);
    arg->k = ttt__matrix(ttt__alloc_numbers(ctx, tokens, D, keep), tokens, D);
    arg->W0 = ttt__stacked(ttt__alloc_numbers(ctx, H, size, keep), 1, size);
    arg->W = ttt__stacked(ttt__alloc_numbers(ctx, steps * H, size, keep), 1, size);
    arg->xM = ttt__matrix(ttt__alloc_numbers(ctx, tokens, D, keep), tokens, D);
    arg->xm = ttt__matrix(ttt__alloc_numbers(ctx, tokens, H, keep), tokens, H);
    arg->decoder = ttt__alloc_numbers(ctx, count.used, 1, keep);
    if (!keep) return !ctx->result;
    arg->q = ttt__matrix(ttt__alloc_numbers(ctx, tokens, D, true), tokens, D);
    arg->f = ttt__matrix(ttt__alloc_numbers(ctx, tokens, D, true), tokens, D);
    if (arg->d.learn_rates)
        arg->g_W = ttt__stacked(ttt__alloc_numbers(ctx, learners, size, true), 1, size);
    arg->e = ttt__stacked(ttt__alloc_numbers(ctx, learners * n, h, true), n, h);
    arg->z = ttt__stacked(ttt__alloc_numbers(ctx, learners * n, wide, true), n, wide);
    arg->query_z = ttt__stacked(ttt__alloc_numbers(ctx, tokens * H, wide, true), frame->N, wide);
    return !ctx->result;
}

// Where the decoder's products are; and W_0's kernels transposed.
static void ttt__find_products(ttt__mttt *job) {
    ttt__room room = { job->arg->decoder, 0 };
    job->decoder = ttt__decoder_products_in(job, &room);
    job->see_M.kernel = job->decoder.M;
    job->see_M.bias = ttt__absent();
    for (int64_t head = 0; head < job->frame.H; head++) {
        ttt__parts W0 = ttt__parts_at(&job->layout, ttt__of(job->arg->W0, head).at);
        ttt__parts W0_tr = ttt__transposed_at(&job->layout, ttt__of(job->W0_tr, head).at);
        ttt__transpose_parts(&job->frame.kit, &W0_tr, &W0, job->back);
    }
}
// Makes W_0, the trained start as one block a head, and the decoder's products.
static void ttt__mttt_start(ttt__mttt *job) {
    const ttt__frame *frame = &job->frame;
    for (int64_t head = 0; head < frame->H; head++) {
        ttt__parts p = ttt__parts_at(&job->layout, ttt__of(job->arg->W0, head).at);
        const ttt__mat part[4] = { p.w1, p.b1, p.w2, p.b2 };
        for (int row = 0; row < 4; row++)
            if (part[row].at)
                ttt__assign(part[row], ttt__of(ttt__stacked(ttt__param(frame, TTT__MTTT_W0 + row),
                                                            part[row].rows, part[row].cols), head));
    }
    ttt__find_products(job);
    ttt__center(&frame->kit, job->decoder.b, ttt__param_row(frame, TTT__MTTT_G_BIAS, frame->D),
                job->scale != NULL);
    ttt__parallel(frame->ctx, -1, frame->H, 1, ttt__decoder_share, job);
}

static bool ttt__mttt_begin_back(ttt__mttt *job) {
    const ttt__frame *frame = &job->frame;
    ttt_ctx *ctx = frame->ctx;
    int64_t D = frame->D, H = frame->H, h = frame->h, tokens = frame->chunk * frame->N;
    int64_t size = job->layout.size, block = ttt__decoder_block_size(job);
    ttt__mat *room[] = { &job->d_f, &job->d_q, &job->d_k, &job->d_xM };
    for (int i = 0; i < 4; i++) *room[i] = ttt__scratch(ctx, tokens, D);
    job->d_xm = ttt__scratch(ctx, tokens, H);
    job->d_W = ttt__stacked(ttt__alloc_numbers(ctx, frame->chunk * H, size, false), 1, size);
    ttt__mat *transposed[] = { &job->phi_tr, &job->psi_tr, &job->out_tr };
    for (int i = 0; i < 3; i++) *transposed[i] = ttt__scratch(ctx, D, D);
    job->d_sums = ttt__alloc_numbers(ctx, frame->chunk * frame->ranges * H, block, false);
    job->d_decoder = ttt__alloc_numbers(ctx, H, block, false);
    ttt__mat d_M_tr = ttt__scratch(ctx, D, D);
    job->d_M_tr = ttt__stacked(d_M_tr.at, h, D);
    job->d_m = ttt__scratch(ctx, H, D);
    if (ctx->result) return false;
    ttt__clear(ttt__matrix(job->d_decoder, H, block));
    ttt__clear(d_M_tr);
    ttt__clear(job->d_m);
    for (int64_t head = 0; head < H; head++) {
        ttt__transpose(&frame->kit, ttt__rows_at(job->phi_tr, head * h, h),
                       ttt__of(job->phi.kernel, head));
        ttt__transpose(&frame->kit, ttt__rows_at(job->psi_tr, head * h, h),
                       ttt__of(job->psi.kernel, head));
    }
    ttt__transpose(&frame->kit, job->out_tr, job->out);
    ttt__find_products(job);
    return true;
}
// What a chunk adds to begins with zero.
static void ttt__clear_chunk(const ttt__mttt *job) {
    int64_t tokens = job->frame.count * job->frame.N, heads = job->frame.count * job->frame.H;
    int64_t block = ttt__decoder_block_size(job);
    ttt__clear(ttt__matrix(job->d_W.first.at, heads, job->layout.size));
    ttt__clear(ttt__rows_at(job->d_k, 0, tokens));
    ttt__clear(ttt__rows_at(job->d_xM, 0, tokens));
    ttt__clear(ttt__rows_at(job->d_xm, 0, tokens));
    ttt__clear(ttt__matrix(job->d_sums, heads * job->frame.ranges, block));
}

// The tape's version on the op's inputs.
static ttt_tensor *ttt__fused_mttt_composite(ttt_ctx *ctx, ttt_tensor *const *in,
                                             const ttt_tensor *y) {
    const ttt__mttt_arg *arg = (const ttt__mttt_arg *)y->arg;
    ttt_tensor *w[TTT__MTTT_W0 + 4];
    ttt_mixer_desc desc = arg->d;
    for (int row = 0; row < TTT__MTTT_W0 + 4; row++)
        w[row] = arg->input[row] < 0 ? NULL : in[(int)arg->input[row]];
    desc.inner_lrs = arg->rates;
    if (arg->order) desc.order = ttt_from_int(ctx, TTT_SHAPE(desc.heads, arg->L), arg->order);
    return ttt__mttt_tape(ctx, &desc, w, in[0], NULL);
}

static int64_t ttt__fused_mttt_count(const ttt_tensor *y) {
    const ttt__mttt_arg *arg = (const ttt__mttt_arg *)y->arg;
    return (int64_t)(ttt__mttt_flops(&arg->d, y->shape.dim[1]) * (double)y->shape.dim[0]);
}
static const ttt_op ttt__op_fused_mttt = {
    "mttt", "y = f_W(x psi) h, W after T inner steps", -1, 0, 0, ttt__fused_mttt_forward, NULL,
    ttt__fused_mttt_composite, ttt__fused_mttt_back, ttt__fused_mttt_count,
};

// A layer as one node. losses, if wanted, are numbers: they cannot be differentiated.
static ttt_tensor *ttt__mttt_fused(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                                   ttt_tensor *x, ttt_tensor **losses) {
    ttt__mttt_arg a;
    ttt_tensor *in[TTT__MTTT_W0 + 5];
    int64_t N = x->shape.dim[1];
    memset(&a, 0, sizeof a);
    memset(a.input, -1, sizeof a.input);
    int n = ttt__list_inputs(ctx, x, w, TTT__MTTT_W0 + desc->mixer->learner->n_rows, in, a.input);
    a.d = *desc;
    a.T = ttt__steps(desc);
    a.rates = ttt__rates(ctx, desc);
    const ttt_tensor *order = !desc->inner_sgd ? NULL
                              : desc->order    ? desc->order
                                            : ttt__draw_order(ctx, desc->heads, N);
    if (!a.rates || !ttt__inner_good(ctx, a.T, true, order, desc->heads)) return ttt_detach(ctx, x);
    for (int64_t i = 0; order && i < order->size; i++)
        if (order->index[i] < 0 || order->index[i] >= N)
            return ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: token %lld in the order; 0..%lld expected",
                            desc->mixer->name, (long long)order->index[i], (long long)N - 1);
    if (order) {
        a.order = order->index;
        a.L = order->shape.dim[1];
    }
    a.want_losses = losses != NULL;
    if (losses) *losses = a.losses = ttt_zeros(ctx, TTT_SHAPE((int64_t)a.T + 1));
    ttt_tensor *y = ttt_apply(ctx, &ttt__op_fused_mttt, in, n, x->shape, &a, sizeof a);
    // The losses are made from the inputs, which stand before them on the tape, not from y.
    if (losses && ttt_ok(ctx) && y->op)
        ttt__set_producer(ctx, a.losses, &ttt__op_unrecorded, in, n, NULL, 0);
    return y;
}

// -- attention through sums: y = F O + b_o, where each head reads F from its Q, K and V
// What the letters are, in formulas and in code. Q to G are those of one sequence and head:
//   B, N, D, H, h    sequences, tokens, width, heads, width of a head: D = H h
//   Q, K, V (N,h)    views of the tokens x (N,D): Q = x W_q + b_q, and so on
//   Q~, K~           [Q 1] and [K 1] if the learner has a bias, else Q and K
//   F (N,h)          what the queries read; the F of all heads, side by side, times O (D,D) is y
//   C = K~^T V       A = K~^T K~       s = 1^T K (1,h)
//   W                the weights, of C's size: F = Q~ W
//   g, b_g, S        the decoder of MTTT: g (h,D) of each head, b_g (1,D); S = g g^T (h,h)
//   unit             H / (N D) = 1 / (N h)
//   R = A W S - C    G = unit R: the inner gradient at W
//   d_X, X_tr         the outer gradient in X; X transposed, a copy
// Linear attention [Katharopoulos 2020] reads with W = unit C; or with W = C, and then divides each
// row of F by Q s. MTTT-Linear without decoder norm has V = (x - b_g) g^T, and its steps are
//     W_t+1 = W_t - eta_t G_t = W_t - eta_t unit (A W_t S - C):
// after one pass over the tokens they see them no more. From W_0 = 0 the first is W_1 = eta unit C:
// linear attention again, at the same cost; A is then not even looked at.
//
//   ttt__...              one share is     reads                  writes
//   forwards
//     linear_gather       a range          x                      K, V, C, s, K^T K
//     linear_learn        sequence, head   C, A, S, W_0           W_1 .. W_T, or unit C
//     linear_read         a range          x, W_T, s              Q, F, y
//   backwards
//     linear_read_back    a range          d_y, Q, F, W_T, s      d_F, d_Q, d_W_T, d_s
//     linear_learn_back   sequence, head   d_W_T, W, C, A, S      d_C, d_s, d_A, d_S, d_W_0, d_eta
//     linear_gather_back  a range          d_C, d_s, d_A, K, V,   d_V, d_K, d_x
//                                          d_Q
//   both, at last; then the calling thread adds to the gradients of biases, W_0 and eta
//     kernel_sums_share   kernel, head     x, d_Q, d_K, d_V,      d_W_q, d_W_k, d_W_v (or d_g), d_O
//                                          F, d_y

// What the node keeps. Matrices of tokens are (B N,D), heads side by side; (B H) means one row or
// matrix for each sequence and head.
typedef struct ttt__qkv_arg {
    ttt_mixer_desc d;
    bool from_zero;                         // as W_0 was when the layer ran
    int steps;                              // 0: the layer does not learn
    ttt_real *rates;                        // eta of each step
    signed char input[TTT__MTTT_W0 + 2];    // which input a parameter row is; -1: absent
    ttt__mat Q, K, V, F;
    ttt__mat sums;                          // (B H) rows: C, s, and A if it is needed
    ttt__stack W;                           // (T+1) times (B H): before each step, and at last
} ttt__qkv_arg;

// The parameter rows of kernels; the row of its bias follows each.
typedef struct ttt__qkv_rows {
    int Q, K, V, O;
} ttt__qkv_rows;
static const ttt__qkv_rows ttt__attention_kernels = {
    TTT__ATTENTION_Q_KERNEL, TTT__ATTENTION_K_KERNEL,
    TTT__ATTENTION_V_KERNEL, TTT__ATTENTION_O_KERNEL,
};
static const ttt__qkv_rows ttt__mttt_kernels = {
    TTT__MTTT_PSI_KERNEL, TTT__MTTT_PHI_KERNEL, TTT__MTTT_G_KERNEL, TTT__MTTT_H_KERNEL,
};

// A phase does one share of its work, with what its thread has for that.
typedef struct ttt__qkv ttt__qkv;
typedef struct ttt__qkv_work ttt__qkv_work;
typedef void ttt__qkv_phase(const ttt__qkv *job, const ttt__qkv_work *work, int64_t share);

struct ttt__qkv {
    ttt__frame frame;
    const ttt__qkv_arg *arg;
    ttt__qkv_rows row;
    bool learns, biased;                    // W has a last row, for the 1 of [K 1]
    bool mapped;                            // Q and K go through elu + 1
    bool divides;                           // F is divided by Q s
    bool needs_A, needs_s, wants_W0;
    ttt__mat lost;                          // of each range of the chunk: a divisor was lost
    ttt_real unit;                          // 1 where F is divided
    int64_t W_rows;
    ttt__view see_Q, see_K, see_V;
    ttt__mat O, O_bias;
    ttt__mat g, g_bias;                     // (D,D), the heads one below the other; (1,D)
    ttt__stack W0, W0_bias;
    ttt__stack S;
    ttt__mat range_sums;                    // a row for each range of the chunk and head
    // backward, of the chunk:
    ttt__mat d_Q, d_K, d_V, d_F;            // (chunk N,D)
    ttt__stack d_W0, d_S;
    ttt__mat d_rates;                       // absent unless they are learned
    ttt__mat W_q_tr, W_k_tr, W_v_tr, O_tr;  // (D,D)
    ttt__mat d_row, d_square;               // (1,D), (h,h): room for a sum over the chunk
    ttt_real *const *gradient;              // of each parameter row
    ttt__qkv_phase *phase;                  // the one at work
};

// The sums of one range and head, or of one sequence and head: the parts of a row. On the way back
// the places hold their gradients.
typedef struct ttt__linear_sums {
    ttt__mat all;                           // the whole row
    ttt__mat C, s, KK;                      // KK = K^T K; with s and N it makes A
} ttt__linear_sums;
static ttt__linear_sums ttt__linear_sums_in(const ttt__qkv *job, ttt_real *at, bool with_KK) {
    int64_t h = job->frame.h;
    ttt__linear_sums sums;
    ttt__room room = { at, 0 };
    sums.C = ttt__take(&room, job->W_rows, h);
    sums.s = ttt__take(&room, 1, h);
    sums.KK = with_KK ? ttt__take(&room, h, h) : ttt__absent();
    sums.all = ttt__matrix(at, 1, room.used);
    return sums;
}
// Of a range of the chunk, and of a head. d_W_0 wants A even if no step did.
static bool ttt__range_has_KK(const ttt__qkv *job) { return job->needs_A || job->wants_W0; }
static ttt__linear_sums ttt__range_sums(const ttt__qkv *job, int64_t range, int64_t head) {
    ttt__mat row = ttt__rows_at(job->range_sums, range * job->frame.H + head, 1);
    return ttt__linear_sums_in(job, row.at, ttt__range_has_KK(job));
}
// Of sequence and head number `pair` of all.
static ttt__linear_sums ttt__kept_sums(const ttt__qkv *job, int64_t pair) {
    return ttt__linear_sums_in(job, ttt__rows_at(job->arg->sums, pair, 1).at, job->needs_A);
}
static ttt__mat ttt__linear_weights(const ttt__qkv *job, int step, int64_t pair) {
    return ttt__of(job->arg->W, step * job->frame.B * job->frame.H + pair);
}
static ttt__mat ttt__last_weights(const ttt__qkv *job, int64_t b, int64_t head) {
    return ttt__linear_weights(job, job->arg->steps, b * job->frame.H + head);
}
// Whether the gradient of a step looks at its weights, and at A: those that are zero it need not.
static bool ttt__sees_weights(const ttt__qkv_arg *arg, int step) {
    return arg->steps > 0 && (step > 0 || !arg->from_zero);
}

// The kernels of all heads, of a parameter or its gradient: (H,D,h) in MTTT, (D,D) in attention.
static ttt__stack ttt__head_kernels(const ttt__qkv *job, ttt_real *at) {
    int64_t D = job->frame.D, h = job->frame.h;
    return job->learns ? ttt__stacked(at, D, h) : ttt__side_by_side(ttt__matrix(at, D, D), h);
}

// What a thread works with. Phases go through the heads of a range one after the other, and put
// into `spare`, (range,D), the views of all heads that the node does not keep.
struct ttt__qkv_work {
    ttt__kit kit;
    ttt__mat spare[2];
    ttt__mat A, AW, G, d_RS, d_A, d_C;  // AW = A W, d_RS = d_R S
    ttt__mat d_norm;                    // one number a token
};
static ttt__qkv_work ttt__qkv_work_in(const ttt__qkv *job, ttt__room *room, int thread) {
    const ttt__frame *frame = &job->frame;
    ttt__qkv_work work;
    memset(&work, 0, sizeof work);
    work.kit = ttt__kit_of(frame->ctx, thread);
    for (int i = 0; i < 2; i++) work.spare[i] = ttt__take(room, frame->range_rows, frame->D);
    work.A = ttt__take(room, job->W_rows, job->W_rows);
    work.AW = ttt__take(room, job->W_rows, frame->h);
    work.G = ttt__take(room, job->W_rows, frame->h);
    work.d_RS = ttt__take(room, job->W_rows, frame->h);
    work.d_A = ttt__take(room, job->W_rows, job->W_rows);
    work.d_C = ttt__take(room, job->W_rows, frame->h);
    work.d_norm = ttt__take(room, frame->range_rows, 1);
    return work;
}

// Rows of some tokens, of all heads or of one. Matrices that nobody keeps are absent.
typedef struct ttt__qkv_views {
    ttt__mat Q, K, V, F;
    ttt__mat d_Q, d_K, d_V, d_F;
} ttt__qkv_views;
static ttt__mat ttt__rows_or(ttt__mat all, int64_t from, int64_t rows, ttt__mat spare) {
    if (!all.at) all = spare, from = 0;
    return all.at ? ttt__rows_at(all, from, rows) : ttt__absent();
}
static ttt__qkv_views ttt__qkv_views_of(const ttt__qkv *job, const ttt__qkv_work *work,
                                        const ttt__range *range) {
    const ttt__qkv_arg *arg = job->arg;
    int64_t at = range->at, local = range->local, rows = range->rows;
    ttt__qkv_views of;
    of.Q = ttt__rows_or(arg->Q, at, rows, work->spare[0]);
    of.K = ttt__rows_or(arg->K, at, rows, work->spare[0]);
    of.V = ttt__rows_or(arg->V, at, rows, work->spare[1]);
    of.F = ttt__rows_or(arg->F, at, rows, work->spare[1]);
    of.d_Q = ttt__rows_or(job->d_Q, local, rows, ttt__absent());
    of.d_K = ttt__rows_or(job->d_K, local, rows, ttt__absent());
    of.d_V = ttt__rows_or(job->d_V, local, rows, ttt__absent());
    of.d_F = ttt__rows_or(job->d_F, local, rows, ttt__absent());
    return of;
}
// These rows of one head.
static ttt__qkv_views ttt__one_head(ttt__qkv_views of, int64_t head, int64_t h) {
    ttt__mat *each[] = { &of.Q, &of.K, &of.V, &of.F, &of.d_Q, &of.d_K, &of.d_V, &of.d_F };
    for (int i = 0; i < 8; i++)
        if (each[i]->at) *each[i] = ttt__cols_at(*each[i], head * h, h);
    return of;
}

// -- attention, forwards
static ttt__qkv_phase ttt__linear_gather, ttt__linear_learn, ttt__linear_read;
static bool ttt__qkv_begin(ttt__qkv *job, ttt_ctx *ctx, const ttt_tensor *y, bool wants_W0);
static bool ttt__qkv_keep(ttt__qkv *job, ttt__qkv_arg *arg);
static bool ttt__starts_at_zero(const ttt_tensor *y);

static void ttt__qkv_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__qkv *job = (const ttt__qkv *)arg;
    ttt__room room = ttt__room_of(&job->frame, thread);
    ttt__qkv_work work = ttt__qkv_work_in(job, &room, thread);
    for (int64_t share = begin; share < end; share++) job->phase(job, &work, share);
}
static void ttt__qkv_run(ttt__qkv *job, ttt__qkv_phase *phase, int64_t shares, int64_t grain) {
    job->phase = phase;
    ttt__parallel(job->frame.ctx, -1, shares, grain, ttt__qkv_share, job);
}

static void ttt__qkv_chunk(ttt__qkv *job) {
    int64_t ranges = job->frame.count * job->frame.ranges, pairs = job->frame.count * job->frame.H;
    ttt__qkv_run(job, ttt__linear_gather, ranges, 1);
    ttt__qkv_run(job, ttt__linear_learn, pairs, 4);
    ttt__qkv_run(job, ttt__linear_read, ranges, 1);
}
static bool ttt__qkv_lost(const ttt__qkv *job) {
    for (int64_t range = 0; range < job->frame.count * job->frame.ranges; range++)
        if (job->lost.at[range] != 0) return true;
    return false;
}
static void ttt__qkv_by_definition(ttt_ctx *ctx, ttt_tensor *y);
static void ttt__qkv_forward(ttt_ctx *ctx, ttt_tensor *y) {
    ttt__qkv_arg *arg = (ttt__qkv_arg *)(uintptr_t)y->arg;
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    ttt__qkv job;
    if (arg->input[TTT__MTTT_RATES] >= 0)  // learned
        memcpy(arg->rates, y->in[(int)arg->input[TTT__MTTT_RATES]]->data,
               (size_t)arg->steps * sizeof *arg->rates);
    if (y->size == 0) return;
    arg->from_zero = arg->steps > 0 && ttt__starts_at_zero(y);
    bool lost = false;
    if (ttt__qkv_begin(&job, ctx, y, false) && ttt__qkv_keep(&job, arg))
        while (!lost && ttt__next_chunk(&job.frame)) {
            ttt__qkv_chunk(&job);
            lost = ttt__qkv_lost(&job);
        }
    ttt__arena_release(&ctx->scratch, scratch);
    if (lost) ttt__qkv_by_definition(ctx, y);
}

// y = x~ w: x w, plus the last row of w if it has one for the 1 of [x 1].
static void ttt__tilde_product(const ttt__kit *kit, ttt__mat y, ttt__mat x, ttt__mat w) {
    ttt__mat bias = w.rows > x.cols ? ttt__rows_at(w, x.cols, 1) : ttt__absent();
    ttt__affine(kit, y, x, ttt__rows_at(w, 0, x.cols), bias);
}
// y = x~^T a: x^T a, and below it the sum of a's rows if y has a row for it.
static void ttt__tilde_t_product(const ttt__kit *kit, ttt__mat y, ttt__mat x, ttt__mat a) {
    ttt__set_product(kit, ttt__rows_at(y, 0, x.cols), ttt__transpose_of(x), a);
    if (y.rows > x.cols) ttt__set_row_sum(kit, ttt__rows_at(y, x.cols, 1), a);
}
// X = elu(X) + 1 where views are mapped; and d_X from the gradient in what became of X.
static void ttt__map_rows(const ttt__qkv *job, const ttt__kit *kit, ttt__mat X) {
    for (int64_t i = 0; i < X.rows && job->mapped; i++)
        kit->lk->elu1(X.cols, ttt__rows_at(X, i, 1).at);
}
static void ttt__map_rows_back(const ttt__qkv *job, const ttt__kit *kit, ttt__mat X, ttt__mat d_X) {
    for (int64_t i = 0; i < X.rows && job->mapped; i++)
        kit->lk->elu1_back(X.cols, ttt__rows_at(X, i, 1).at, ttt__rows_at(d_X, i, 1).at);
}

// K and V of a range, and what is summed over it.
static void ttt__linear_gather(const ttt__qkv *job, const ttt__qkv_work *work, int64_t share) {
    const ttt__frame *frame = &job->frame;
    const ttt__kit *kit = &work->kit;
    ttt__range range = ttt__range_of(frame, share, frame->N);
    ttt__mat x = ttt__rows_at(frame->x, range.at, range.rows);
    ttt__qkv_views all = ttt__qkv_views_of(job, work, &range);
    for (int64_t head = 0; head < frame->H; head++) {
        ttt__qkv_views one = ttt__one_head(all, head, frame->h);
        ttt__linear_sums sums = ttt__range_sums(job, share, head);
        ttt__see(kit, one.K, x, &job->see_K, head);                 // K = x W_k + b_k
        ttt__see(kit, one.V, x, &job->see_V, head);                 // V = x W_v + b_v
        ttt__map_rows(job, kit, one.K);
        ttt__clear(sums.all);
        ttt__tilde_t_product(kit, sums.C, one.K, one.V);         // C = K~^T V
        if (job->needs_s) ttt__set_row_sum(kit, sums.s, one.K);  // s = 1^T K
        if (job->needs_A) ttt__gram(kit, sums.KK, one.K);        // K^T K
    }
}

// The sums of all ranges, of sequence and head number `share` of the chunk: joined in order, in
// the place of the first; and where a range of that sequence finds them.
static ttt__linear_sums ttt__join_sums(const ttt__qkv *job, const ttt__kit *kit, int64_t share) {
    int64_t head = share % job->frame.H, first = share / job->frame.H * job->frame.ranges;
    ttt__linear_sums joined = ttt__range_sums(job, first, head);
    for (int64_t i = 1; i < job->frame.ranges; i++)
        ttt__plus(kit, joined.all, ttt__range_sums(job, first + i, head).all);
    return joined;
}
static ttt__linear_sums ttt__joined_sums(const ttt__qkv *job, int64_t range, int64_t head) {
    return ttt__range_sums(job, range - range % job->frame.ranges, head);
}
// A = K~^T K~: K^T K, bordered by s and N if the learner has a bias.
static void ttt__border(ttt__mat A, const ttt__linear_sums *sums, int64_t N) {
    int64_t h = sums->KK.rows;
    for (int64_t i = 0; i < h; i++) {
        ttt_real *row = A.at + i * A.down;
        memcpy(row, sums->KK.at + i * h, (size_t)h * sizeof *row);
        if (A.rows > h) row[h] = A.at[h * A.down + i] = sums->s.at[i];
    }
    if (A.rows > h) A.at[h * A.down + h] = (ttt_real)N;
}
// G = unit (A W S - C). A step that does not see its weights, W = 0, has no A.
static void ttt__inner_gradient(const ttt__qkv *job, const ttt__qkv_work *work, int step,
                                ttt__mat S, ttt__mat W, ttt__mat C) {
    const ttt__kit *kit = &work->kit;
    ttt__scaled(kit, work->G, C, -1);
    if (ttt__sees_weights(job->arg, step)) {
        ttt__set_product(kit, work->AW, work->A, W);
        ttt__add_product(kit, work->G, work->AW, S);
    }
    ttt__scaled(kit, work->G, work->G, job->unit);
}
// From the sums to W_T, of sequence and head number `pair` of all.
static void ttt__linear_steps(const ttt__qkv *job, const ttt__qkv_work *work, int64_t pair,
                              const ttt__linear_sums *sums) {
    const ttt__kit *kit = &work->kit;
    int64_t head = pair % job->frame.H, h = job->frame.h;
    ttt__mat W = ttt__linear_weights(job, 0, pair), S = ttt__of(job->S, head);
    ttt__assign(ttt__rows_at(W, 0, h), ttt__of(job->W0, head));
    if (job->biased) ttt__assign(ttt__rows_at(W, h, 1), ttt__of(job->W0_bias, head));
    if (job->needs_A) ttt__border(work->A, sums, job->frame.N);
    for (int step = 0; step < job->arg->steps; step++) {
        ttt__mat next = ttt__linear_weights(job, step + 1, pair);
        ttt__inner_gradient(job, work, step, S, W, sums->C);
        ttt__scaled(kit, work->G, work->G, job->arg->rates[step]);
        ttt__minus(kit, next, W, work->G);                        // W_t+1 = W_t - eta G
        W = next;
    }
}
// Of a sequence and head: W = unit C, or the weights after all steps.
static void ttt__linear_learn(const ttt__qkv *job, const ttt__qkv_work *work, int64_t share) {
    int64_t pair = job->frame.first * job->frame.H + share;
    ttt__linear_sums sums = ttt__join_sums(job, &work->kit, share);
    if (job->arg->sums.at) ttt__assign(ttt__kept_sums(job, pair).all, sums.all);
    if (job->learns) ttt__linear_steps(job, work, pair, &sums);
    else ttt__scaled(&work->kit, ttt__linear_weights(job, 0, pair), sums.C, job->unit);
}

// The rows of F divided by Q s. False if that is so small that it may have lost digits, see
// ttt__features: the definition knows how to keep them.
static bool ttt__divide_rows(const ttt__kit *kit, ttt__mat F, ttt__mat Q, ttt__mat s) {
    bool good = true;
    for (int64_t i = 0; i < F.rows; i++) {
        ttt__mat row = ttt__rows_at(F, i, 1);
        double divisor = ttt__dot(kit, ttt__rows_at(Q, i, 1), s);
        good = good && !(fabs(divisor) < 1e-17);
        ttt__scaled(kit, row, row, (ttt_real)(1 / divisor));
    }
    return good;
}
// Q and F of a range, with W_T; and the output.
static void ttt__linear_read(const ttt__qkv *job, const ttt__qkv_work *work, int64_t share) {
    const ttt__frame *frame = &job->frame;
    const ttt__kit *kit = &work->kit;
    ttt__range range = ttt__range_of(frame, share, frame->N);
    ttt__mat x = ttt__rows_at(frame->x, range.at, range.rows);
    ttt__mat y = ttt__rows_at(frame->y, range.at, range.rows);
    ttt__qkv_views all = ttt__qkv_views_of(job, work, &range);
    bool good = true;
    for (int64_t head = 0; head < frame->H; head++) {
        ttt__qkv_views one = ttt__one_head(all, head, frame->h);
        ttt__mat s = ttt__joined_sums(job, share, head).s;
        ttt__see(kit, one.Q, x, &job->see_Q, head);                 // Q = x W_q + b_q
        ttt__map_rows(job, kit, one.Q);
        ttt__tilde_product(kit, one.F, one.Q, ttt__last_weights(job, range.b, head));  // F = Q~ W_T
        if (job->divides && !ttt__divide_rows(kit, one.F, one.Q, s)) good = false;
    }
    job->lost.at[share] = !good;
    ttt__affine(kit, y, all.F, job->O, job->O_bias);              // y = F O + b_o
}

// -- attention, backwards
static ttt__qkv_phase ttt__linear_read_back, ttt__linear_learn_back, ttt__linear_gather_back;
static bool ttt__qkv_back_begin(ttt__qkv *job, const ttt_tensor *d_y, ttt_real *d_x);
static void ttt__qkv_kernels_back(const ttt__qkv *job);
static void ttt__qkv_biases_back(const ttt__qkv *job);
static void ttt__qkv_decoder_back(const ttt__qkv *job);
static void ttt__qkv_start_back(const ttt__qkv *job);

static void ttt__qkv_chunk_back(ttt__qkv *job) {
    int64_t ranges = job->frame.count * job->frame.ranges, pairs = job->frame.count * job->frame.H;
    ttt__qkv_run(job, ttt__linear_read_back, ranges, 1);
    ttt__qkv_run(job, ttt__linear_learn_back, pairs, 4);
    ttt__qkv_run(job, ttt__linear_gather_back, ranges, 1);
    ttt__qkv_kernels_back(job);
    ttt__qkv_biases_back(job);
    if (!job->learns) return;
    ttt__qkv_decoder_back(job);
    ttt__qkv_start_back(job);
}
static void ttt__qkv_back(ttt_ctx *ctx, ttt_tensor *y, const ttt_tensor *d_y, ttt_tensor **into,
                          const bool *add) {
    const ttt__qkv_arg *arg = (const ttt__qkv_arg *)y->arg;
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    ttt__qkv job;
    ttt_real *gradient[TTT__MTTT_W0 + 2] = { NULL };
    bool wants_W0 = false;
    for (int row = 0; row < TTT__MTTT_W0 + 2; row++) {
        if (arg->input[row] < 0) continue;
        gradient[row] = ttt__gradient_room(ctx, y, into, add, arg->input[row]);
        if (row >= TTT__MTTT_W0 && into[(int)arg->input[row]]) wants_W0 = true;
    }
    ttt_real *d_x = ttt__gradient_room(ctx, y, into, add, 0);
    if (y->size > 0 && ttt__qkv_begin(&job, ctx, y, wants_W0) &&
        ttt__qkv_back_begin(&job, d_y, d_x)) {
        job.gradient = gradient;
        while (ttt__next_chunk(&job.frame)) ttt__qkv_chunk_back(&job);
    }
    ttt__arena_release(&ctx->scratch, scratch);
}

// From the views of a range to its tokens: d_x += d_Q W_q^T + d_K W_k^T + d_V W_v^T
static void ttt__qkv_views_back(const ttt__qkv *job, const ttt__kit *kit,
                                const ttt__qkv_views *all, const ttt__range *range) {
    ttt__mat d_x = ttt__rows_at(job->frame.d_x, range->at, range->rows);
    ttt__add_product(kit, d_x, all->d_Q, job->W_q_tr);
    ttt__add_product(kit, d_x, all->d_K, job->W_k_tr);
    ttt__add_product(kit, d_x, all->d_V, job->W_v_tr);
}

// F = U / norm, norm = Q s, row by row:  d_U = d_F / norm, which takes the place of d_F;
// d_norm = -<d_F, F> / norm;  d_s = d_norm^T Q
static void ttt__divide_rows_back(const ttt__kit *kit, const ttt__qkv_views *one, ttt__mat s,
                                  ttt__mat d_norm, ttt__mat d_s) {
    for (int64_t i = 0; i < one->F.rows; i++) {
        ttt__mat d_row = ttt__rows_at(one->d_F, i, 1);
        double inverse = 1 / ttt__dot(kit, ttt__rows_at(one->Q, i, 1), s);
        d_norm.at[i] = (ttt_real)(-ttt__dot(kit, d_row, ttt__rows_at(one->F, i, 1)) * inverse);
        ttt__scaled(kit, d_row, d_row, (ttt_real)inverse);
    }
    ttt__set_product(kit, d_s, ttt__transpose_of(d_norm), one->Q);
}
// From d_y of a range to d_Q, d_s and d_W, which takes the place of C. Where no step saw A but
// d_W_0 wants it, what A is made of is summed here, in its own places.
static void ttt__linear_read_back(const ttt__qkv *job, const ttt__qkv_work *work, int64_t share) {
    const ttt__frame *frame = &job->frame;
    const ttt__kit *kit = &work->kit;
    ttt__range range = ttt__range_of(frame, share, frame->N);
    ttt__qkv_views all = ttt__qkv_views_of(job, work, &range);
    ttt__mat d_norm = ttt__rows_at(work->d_norm, 0, range.rows);
    ttt__mat d_y = ttt__rows_at(frame->d_y, range.at, range.rows);
    ttt__set_product(kit, all.d_F, d_y, job->O_tr);               // d_F = d_y O^T
    for (int64_t head = 0; head < frame->H; head++) {
        ttt__qkv_views one = ttt__one_head(all, head, frame->h);
        ttt__mat W = ttt__rows_at(ttt__last_weights(job, range.b, head), 0, frame->h);
        ttt__mat s = ttt__kept_sums(job, range.b * frame->H + head).s;
        ttt__linear_sums sums = ttt__range_sums(job, share, head);
        ttt__clear(sums.all);
        if (job->divides) ttt__divide_rows_back(kit, &one, s, d_norm, sums.s);
        ttt__set_product(kit, one.d_Q, one.d_F, ttt__transpose_of(W));  // d_Q = d_F W^T
        if (job->divides) ttt__add_product(kit, one.d_Q, d_norm, s);    //     + d_norm s
        ttt__map_rows_back(job, kit, one.Q, one.d_Q);
        ttt__tilde_t_product(kit, sums.C, one.Q, one.d_F);              // d_W = Q~^T d_F
        if (!job->wants_W0 || job->needs_A) continue;
        ttt__gram(kit, sums.KK, one.K);
        if (job->biased) ttt__set_row_sum(kit, sums.s, one.K);
    }
}

// One step backwards: W' = W - eta G, G = unit R, R = A W S - C, A and S symmetric. d_W holds the
// gradient in W', then that in W. With d_R = -eta unit d_W':
//   d_C -= d_R;  d_A += d_R S W^T;  d_S += (A W)^T d_R;  d_W = d_W' + A d_R S;  d_eta = -<d_W', G>
// Of sequence and head number `share` of the chunk, as below.
static void ttt__linear_step_back(const ttt__qkv *job, const ttt__qkv_work *work, int step,
                                  int64_t share, ttt__mat d_W) {
    const ttt__kit *kit = &work->kit;
    int64_t pair = job->frame.first * job->frame.H + share;
    ttt__mat W = ttt__linear_weights(job, step, pair), S = ttt__of(job->S, share % job->frame.H);
    ttt__mat d_R = work->G, d_RS = work->d_RS;
    bool sees_weights = ttt__sees_weights(job->arg, step);
    ttt__inner_gradient(job, work, step, S, W, ttt__kept_sums(job, pair).C);
    if (job->d_rates.at)
        ttt__rows_at(job->d_rates, share, 1).at[step] = (ttt_real)-ttt__dot(kit, d_W, work->G);
    ttt__scaled(kit, d_R, d_W, -(job->arg->rates[step] * job->unit));
    ttt__minus(kit, work->d_C, work->d_C, d_R);
    if (!sees_weights && !job->wants_W0) return;
    if (sees_weights)
        ttt__add_product(kit, ttt__of(job->d_S, share), ttt__transpose_of(work->AW), d_R);
    ttt__set_product(kit, d_RS, d_R, S);
    if (sees_weights) ttt__add_product(kit, work->d_A, d_RS, ttt__transpose_of(W));
    ttt__add_product(kit, d_W, work->A, d_RS);
}
// All steps backwards. In: d_W_T, in the place of C. Out: d_C, in the same place; what K wants of
// d_A, which is d_A + d_A^T, in the places of s and K^T K; and d_W_0.
static void ttt__linear_steps_back(const ttt__qkv *job, const ttt__qkv_work *work,
                                   int64_t share, ttt__linear_sums sums) {
    int64_t h = job->frame.h;
    ttt__linear_sums kept = ttt__kept_sums(job, job->frame.first * job->frame.H + share);
    ttt__mat d_W = ttt__of(job->d_W0, share), d_A = work->d_A;
    ttt__assign(d_W, sums.C);
    ttt__clear(work->d_C);
    ttt__clear(d_A);
    ttt__clear(ttt__of(job->d_S, share));
    if (ttt__range_has_KK(job)) ttt__border(work->A, job->needs_A ? &kept : &sums, job->frame.N);
    for (int step = job->arg->steps - 1; step >= 0; step--)
        ttt__linear_step_back(job, work, step, share, d_W);
    ttt__assign(sums.C, work->d_C);
    if (!job->needs_A) return;
    ttt__clear(sums.KK);
    ttt__add_both(sums.KK, ttt__rows_at(ttt__cols_at(d_A, 0, h), 0, h));
    for (int64_t i = 0; i < h && job->biased; i++)
        sums.s.at[i] = d_A.at[i * d_A.down + h] + d_A.at[h * d_A.down + i];
}
// From d_W_T of a sequence and head to d_C and, if the layer learns, to the rest.
static void ttt__linear_learn_back(const ttt__qkv *job, const ttt__qkv_work *work, int64_t share) {
    ttt__linear_sums sums = ttt__join_sums(job, &work->kit, share);
    if (job->learns) ttt__linear_steps_back(job, work, share, sums);
    else ttt__scaled(&work->kit, sums.C, sums.C, job->unit);      // d_C = unit d_W
}

// From the gradients in the sums of a sequence to d_V, d_K and d_x of a range.
static void ttt__linear_gather_back(const ttt__qkv *job, const ttt__qkv_work *work, int64_t share) {
    const ttt__frame *frame = &job->frame;
    const ttt__kit *kit = &work->kit;
    ttt__range range = ttt__range_of(frame, share, frame->N);
    ttt__qkv_views all = ttt__qkv_views_of(job, work, &range);
    for (int64_t head = 0; head < frame->H; head++) {
        ttt__qkv_views one = ttt__one_head(all, head, frame->h);
        ttt__linear_sums d = ttt__joined_sums(job, share, head);
        ttt__mat d_C_tr = ttt__transpose_of(ttt__rows_at(d.C, 0, frame->h));
        ttt__mat d_s = job->needs_s ? d.s : ttt__absent();
        ttt__tilde_product(kit, one.d_V, one.K, d.C);                   // d_V = K~ d_C
        ttt__affine(kit, one.d_K, one.V, d_C_tr, d_s);                  // d_K = V d_C^T + 1 d_s
        if (job->needs_A) ttt__add_product(kit, one.d_K, one.K, d.KK);  //     + K (d_A + d_A^T)
        ttt__map_rows_back(job, kit, one.K, one.d_K);
    }
    ttt__qkv_views_back(job, kit, &all, &range);
}

static ttt__mat ttt__of_chunk(const ttt__frame *frame, ttt__mat all) {
    return ttt__rows_at(all, frame->first * frame->N, frame->count * frame->N);
}
// d_W_q += x^T d_Q;  d_W_k += x^T d_K;  d_W_v += x^T d_V;  d_O += F^T d_y. If the layer learns, V's
// kernel is g^T, and d_g += d_V^T x.
static void ttt__qkv_kernels_back(const ttt__qkv *job) {
    const ttt__frame *frame = &job->frame;
    int64_t D = frame->D, h = frame->h, tokens = frame->count * frame->N;
    ttt__stack x = ttt__same_for_all(ttt__of_chunk(frame, frame->x));
    ttt__stack d_y = ttt__same_for_all(ttt__of_chunk(frame, frame->d_y));
    ttt__stack F = ttt__side_by_side(ttt__of_chunk(frame, job->arg->F), h);
    ttt__stack d_Q = ttt__side_by_side(ttt__rows_at(job->d_Q, 0, tokens), h);
    ttt__stack d_K = ttt__side_by_side(ttt__rows_at(job->d_K, 0, tokens), h);
    ttt__stack d_V = ttt__side_by_side(ttt__rows_at(job->d_V, 0, tokens), h);
    ttt__stack d_W_q = ttt__head_kernels(job, job->gradient[job->row.Q]);
    ttt__stack d_W_k = ttt__head_kernels(job, job->gradient[job->row.K]);
    ttt__stack d_W_v = ttt__head_kernels(job, job->gradient[job->row.V]);
    ttt__stack d_g = ttt__stacked(job->gradient[job->row.V], h, D);
    ttt__stack d_O = ttt__stacked(job->gradient[job->row.O], h, D);
    ttt__kernel_sum to_V = { x, d_V, d_W_v }, to_g = { d_V, x, d_g };
    ttt__kernel_sums sums = {
        frame,
        { { x, d_Q, d_W_q }, { x, d_K, d_W_k }, job->learns ? to_g : to_V, { F, d_y, d_O } },
        0, 0,
    };
    ttt__add_kernel_sums(&sums);
}
static void ttt__bias_back(const ttt__qkv *job, int kernel, ttt__mat d_rows) {
    ttt_real *bias = job->gradient[kernel + 1];
    ttt__add_row_sum(&job->frame.kit, ttt__matrix(bias, 1, job->frame.D), d_rows);
}
static void ttt__qkv_biases_back(const ttt__qkv *job) {
    int64_t tokens = job->frame.count * job->frame.N;
    ttt__bias_back(job, job->row.O, ttt__of_chunk(&job->frame, job->frame.d_y));
    ttt__bias_back(job, job->row.Q, ttt__rows_at(job->d_Q, 0, tokens));
    ttt__bias_back(job, job->row.K, ttt__rows_at(job->d_K, 0, tokens));
    if (!job->learns) ttt__bias_back(job, job->row.V, ttt__rows_at(job->d_V, 0, tokens));
}
// What else g and b_g do: V's bias is -b_g g^T of all heads, S = g g^T. With v = -1^T d_V (1,D),
//   d_b_g += v g;  d_g += v^T b_g + (d_S + d_S^T) g
static void ttt__qkv_decoder_back(const ttt__qkv *job) {
    const ttt__frame *frame = &job->frame;
    const ttt__kit *kit = &frame->kit;
    int64_t D = frame->D, h = frame->h, H = frame->H;
    ttt__mat d_g = ttt__matrix(job->gradient[TTT__MTTT_G_KERNEL], D, D);
    ttt__mat d_g_bias = ttt__matrix(job->gradient[TTT__MTTT_G_BIAS], 1, D);
    ttt__mat v = job->d_row, d_S_both = job->d_square;
    ttt__set_row_sum(kit, v, ttt__rows_at(job->d_V, 0, frame->count * frame->N));
    ttt__scaled(kit, v, v, -1);
    ttt__add_product(kit, d_g_bias, v, job->g);
    ttt__add_product(kit, d_g, ttt__column(v.at, D), job->g_bias);
    for (int64_t head = 0; head < H && job->needs_A; head++) {
        ttt__clear(d_S_both);
        for (int64_t b = 0; b < frame->count; b++)
            ttt__add_both(d_S_both, ttt__of(job->d_S, b * H + head));
        ttt__add_product(kit, ttt__rows_at(d_g, head * h, h), d_S_both,
                         ttt__rows_at(job->g, head * h, h));
    }
}
// d_W_0 and d_eta are sums over sequences; those of d_eta over heads, too.
static void ttt__qkv_start_back(const ttt__qkv *job) {
    const ttt__kit *kit = &job->frame.kit;
    int64_t h = job->frame.h, H = job->frame.H;
    ttt__stack d_W0 = ttt__stacked(job->gradient[TTT__MTTT_W0], h, h);
    ttt__stack d_bias = ttt__stacked(job->gradient[TTT__MTTT_W0 + 1], 1, h);
    ttt__mat d_rates = ttt__matrix(job->gradient[TTT__MTTT_RATES], 1, job->arg->steps);
    for (int64_t pair = 0; pair < job->frame.count * H; pair++) {
        ttt__mat d_W = ttt__of(job->d_W0, pair);
        ttt__plus(kit, ttt__of(d_W0, pair % H), ttt__rows_at(d_W, 0, h));
        if (job->biased) ttt__plus(kit, ttt__of(d_bias, pair % H), ttt__rows_at(d_W, h, 1));
        if (d_rates.at) ttt__plus(kit, d_rates, ttt__rows_at(job->d_rates, pair, 1));
    }
}

// -- attention: sizes, options, parameters, room
static bool ttt__starts_at_zero(const ttt_tensor *y) {
    const ttt__qkv_arg *arg = (const ttt__qkv_arg *)y->arg;
    for (int row = TTT__MTTT_W0; row < TTT__MTTT_W0 + 2; row++) {
        const ttt_tensor *start = arg->input[row] < 0 ? NULL : y->in[(int)arg->input[row]];
        for (int64_t i = 0; start && i < start->size; i++)
            if (start->data[i] != 0) return false;
    }
    return true;
}
static void ttt__qkv_options(ttt__qkv *job) {
    const ttt__qkv_arg *arg = job->arg;
    bool linear = arg->steps == 0;
    job->learns = arg->steps > 0;
    job->biased = job->learns && !arg->d.no_inner_bias;
    job->mapped = linear && !arg->d.identity_map;
    job->divides = linear && arg->d.normalizer == TTT_NORMALIZER_ADAPTIVE;
    job->needs_A = ttt__sees_weights(arg, arg->steps - 1);
    job->needs_s = job->divides || (job->biased && job->needs_A);
    double numbers = (double)job->frame.N * (double)job->frame.h;
    job->unit = job->divides ? 1 : (ttt_real)(1 / numbers);
    job->W_rows = job->frame.h + job->biased;
    job->row = job->learns ? ttt__mttt_kernels : ttt__attention_kernels;
}
static ttt__view ttt__qkv_view(const ttt__qkv *job, int row) {
    ttt__view view;
    view.kernel = ttt__head_kernels(job, ttt__param(&job->frame, row));
    view.bias = ttt__param_row(&job->frame, row + 1, job->frame.D);
    return view;
}
// V = (x - b_g) g^T as a view: kernel g^T and bias -b_g g^T, of all heads.
static bool ttt__see_decoder(ttt__qkv *job) {
    const ttt__frame *frame = &job->frame;
    int64_t D = frame->D, h = frame->h;
    ttt__view *view = &job->see_V;
    view->kernel = ttt__stacked(ttt__alloc_numbers(frame->ctx, D, D, false), D, h);
    view->bias = ttt__scratch(frame->ctx, 1, D);
    if (frame->ctx->result) return false;
    for (int64_t head = 0; head < frame->H; head++)
        ttt__transpose(&frame->kit, ttt__of(view->kernel, head),
                       ttt__rows_at(job->g, head * h, h));
    ttt__set_product(&frame->kit, view->bias, job->g_bias, ttt__transpose_of(job->g));
    ttt__scaled(&frame->kit, view->bias, view->bias, -1);
    return true;
}
// S = g g^T of a head
static void ttt__decoder_gram(const ttt__qkv *job, const ttt__qkv_work *work, int64_t head) {
    ttt__mat g = ttt__rows_at(job->g, head * job->frame.h, job->frame.h);
    ttt__gram(&work->kit, ttt__of(job->S, head), ttt__transpose_of(g));
}
static bool ttt__qkv_learner(ttt__qkv *job) {
    const ttt__frame *frame = &job->frame;
    int64_t D = frame->D, h = frame->h;
    job->W0 = ttt__stacked(ttt__param(frame, TTT__MTTT_W0), h, h);
    job->W0_bias = ttt__stacked(ttt__param(frame, TTT__MTTT_W0 + 1), 1, h);
    job->g = ttt__matrix(ttt__param(frame, TTT__MTTT_G_KERNEL), D, D);
    job->g_bias = ttt__param_row(frame, TTT__MTTT_G_BIAS, D);
    if (!ttt__see_decoder(job)) return false;
    if (!ttt__range_has_KK(job)) return true;
    job->S = ttt__stacked(ttt__alloc_numbers(frame->ctx, D, h, false), h, h);
    if (frame->ctx->result) return false;
    ttt__qkv_run(job, ttt__decoder_gram, frame->H, 1);
    return true;
}
static bool ttt__qkv_room(ttt__qkv *job) {
    ttt__frame *frame = &job->frame;
    ttt__room measure = { NULL, 0 };
    (void)ttt__qkv_work_in(job, &measure, 0);
    frame->room_size = measure.used;
    frame->room = ttt__alloc_numbers(frame->ctx, frame->ctx->threads, frame->room_size, false);
    int64_t ranges = frame->chunk * frame->ranges;
    job->range_sums = ttt__scratch(frame->ctx, ranges * frame->H,
                                   ttt__linear_sums_in(job, NULL, ttt__range_has_KK(job)).all.cols);
    job->lost = ttt__scratch(frame->ctx, ranges, 1);
    return !frame->ctx->result;
}
static bool ttt__qkv_begin(ttt__qkv *job, ttt_ctx *ctx, const ttt_tensor *y, bool wants_W0) {
    memset(job, 0, sizeof *job);
    job->arg = (const ttt__qkv_arg *)y->arg;
    job->wants_W0 = wants_W0;
    ttt__frame_begin(&job->frame, ctx, y, job->arg->d.heads, job->arg->input, 0);
    ttt__qkv_options(job);
    job->see_Q = ttt__qkv_view(job, job->row.Q);
    job->see_K = ttt__qkv_view(job, job->row.K);
    if (!job->learns) job->see_V = ttt__qkv_view(job, job->row.V);
    job->O = ttt__matrix(ttt__param(&job->frame, job->row.O), job->frame.D, job->frame.D);
    job->O_bias = ttt__param_row(&job->frame, job->row.O + 1, job->frame.D);
    return ttt__qkv_room(job) && (!job->learns || ttt__qkv_learner(job));
}

// What the way back wants lives as long as the node, if there may be a way back; else it lives as
// long as the op computes, or is absent.
static bool ttt__qkv_keep(ttt__qkv *job, ttt__qkv_arg *arg) {
    const ttt__frame *frame = &job->frame;
    ttt_ctx *ctx = frame->ctx;
    bool keep = ctx->recording && !ctx->numbers_only;
    int64_t tokens = frame->B * frame->N, pairs = frame->B * frame->H, D = frame->D, h = frame->h;
    ttt__mat *views[] = { &arg->Q, &arg->K, &arg->V, &arg->F };
    for (int i = 0; i < 4 && keep; i++)
        *views[i] = ttt__matrix(ttt__alloc_numbers(ctx, tokens, D, keep), tokens, D);
    int64_t size = ttt__linear_sums_in(job, NULL, job->needs_A).all.cols;
    if (keep) arg->sums = ttt__matrix(ttt__alloc_numbers(ctx, pairs, size, true), pairs, size);
    int64_t weights = (arg->steps + 1) * pairs;
    arg->W = ttt__stacked(ttt__alloc_numbers(ctx, weights, job->W_rows * h, keep), job->W_rows, h);
    return !ctx->result;
}

// Backwards: room, and the kernels transposed.
static void ttt__transpose_view(const ttt__qkv *job, ttt__mat to, const ttt__view *view) {
    int64_t h = job->frame.h;
    for (int64_t head = 0; head < job->frame.H; head++)
        ttt__transpose(&job->frame.kit, ttt__rows_at(to, head * h, h),
                       ttt__of(view->kernel, head));
}
static bool ttt__qkv_back_begin(ttt__qkv *job, const ttt_tensor *d_y, ttt_real *d_x) {
    ttt__frame *frame = &job->frame;
    ttt_ctx *ctx = frame->ctx;
    int64_t D = frame->D, h = frame->h, tokens = frame->chunk * frame->N;
    int64_t pairs = frame->chunk * frame->H;
    ttt__mat *of_tokens[] = { &job->d_Q, &job->d_K, &job->d_V, &job->d_F };
    ttt__mat *transposed[] = { &job->W_q_tr, &job->W_k_tr, &job->W_v_tr, &job->O_tr };
    frame->d_y = ttt__matrix(d_y->data, frame->B * frame->N, D);
    frame->d_x = ttt__matrix(d_x, frame->B * frame->N, D);
    for (int i = 0; i < 4; i++) *of_tokens[i] = ttt__scratch(ctx, tokens, D);
    for (int i = 0; i < 4; i++) *transposed[i] = ttt__scratch(ctx, D, D);
    if (job->learns) {
        job->d_W0 = ttt__stacked(ttt__alloc_numbers(ctx, pairs * job->W_rows, h, false),
                                 job->W_rows, h);
        job->d_S = ttt__stacked(ttt__alloc_numbers(ctx, pairs * h, h, false), h, h);
        job->d_row = ttt__scratch(ctx, 1, D);
        job->d_square = ttt__scratch(ctx, h, h);
    }
    if (job->arg->input[TTT__MTTT_RATES] >= 0)
        job->d_rates = ttt__scratch(ctx, pairs, job->arg->steps);
    if (ctx->result) return false;
    ttt__transpose_view(job, job->W_q_tr, &job->see_Q);
    ttt__transpose_view(job, job->W_k_tr, &job->see_K);
    ttt__transpose_view(job, job->W_v_tr, &job->see_V);
    ttt__transpose(&frame->kit, job->O_tr, job->O);
    return true;
}

// -- attention: the ops
static ttt_tensor *ttt__qkv_composite(ttt_ctx *ctx, ttt_tensor *const *in, const ttt_tensor *y) {
    const ttt__qkv_arg *arg = (const ttt__qkv_arg *)y->arg;
    ttt_tensor *w[TTT__MTTT_W0 + 4] = { NULL };
    ttt_mixer_desc desc = arg->d;
    for (int row = 0; row < TTT__MTTT_W0 + 2; row++)
        if (arg->input[row] >= 0) w[row] = in[(int)arg->input[row]];
    desc.inner_lrs = arg->rates;
    if (arg->steps > 0) return ttt__mttt_tape(ctx, &desc, w, in[0], NULL);
    return ttt__linear_attention_tape(ctx, &desc, w, in[0], NULL);
}
static int64_t ttt__qkv_count(const ttt_tensor *y) {
    const ttt__qkv_arg *arg = (const ttt__qkv_arg *)y->arg;
    double of_sequence = arg->d.mixer->flops(&arg->d, y->shape.dim[1]);
    return (int64_t)(of_sequence * (double)y->shape.dim[0]);
}
// An op that does not know more than its definition.
static const ttt_op ttt__op_qkv_by_definition = {
    "linear mixer, by its definition", "y = (x W_q) W(K^T V) W_o", -1, 0, 0,
    ttt__qkv_by_definition, NULL, ttt__qkv_composite, NULL, ttt__qkv_count,
};
static void ttt__qkv_by_definition(ttt_ctx *ctx, ttt_tensor *y) {
    ttt_mark mark = ttt_mark_get(ctx);
    bool numbers_only = ctx->numbers_only, recording = ttt_set_recording(ctx, false);
    ctx->numbers_only = false;
    ttt_tensor *value = ttt__qkv_composite(ctx, y->in, y);
    if (ttt_ok(ctx)) memcpy(y->data, value->data, (size_t)y->size * sizeof *y->data);
    ctx->numbers_only = numbers_only;
    ttt_set_recording(ctx, recording);
    ttt_mark_release(ctx, mark);
    y->op = &ttt__op_qkv_by_definition;  // and so is its gradient
}
static const ttt_op ttt__op_fused_qkv = {
    "linear mixer", "y = (x W_q) W(K^T V) W_o", -1, 0, 0,
    ttt__qkv_forward, NULL, ttt__qkv_composite, ttt__qkv_back, ttt__qkv_count,
};

static ttt_tensor *ttt__qkv_fused(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                                  ttt_tensor *x) {
    ttt__qkv_arg arg;
    ttt_tensor *in[TTT__MTTT_W0 + 3];
    bool learns = desc->mixer->learner != NULL;
    int rows = learns ? TTT__MTTT_W0 + 2 : TTT__ATTENTION_N;
    memset(&arg, 0, sizeof arg);
    memset(arg.input, -1, sizeof arg.input);
    int n = ttt__list_inputs(ctx, x, w, rows, in, arg.input);
    arg.d = *desc;
    if (learns) {
        arg.steps = ttt__steps(desc);
        arg.rates = ttt__rates(ctx, desc);
    }
    return ttt_apply(ctx, &ttt__op_fused_qkv, in, n, x->shape, &arg, sizeof arg);
}

// -- softmax attention: F = softmax(scale (Q K^T + 1 c^T)) V, see ttt__attention
// What the letters are, in formulas and in code; all but the sizes are of one sequence and head:
//   n, N, D, H, h    queries, keys, width, heads, width of a head: D = H h
//   Q, F (n,h)       what the queries ask, and what they read
//   K, V (N,h)       keys and values; c (N,1), what is added to the scores of a key
//   P (n,N)          the softmax; 0 where a query does not see a key
//   lse (n,1)        ln sum e^score of every query: all that stays of the scores
//   d_X, X_tr        the outer gradient in X; X transposed, a copy
// Scores are made, used and forgotten in tiles [Milakov 2018, Dao 2022]: a patch of neighboring
// queries, a piece of a line or a square of a grid, and a patch of the keys that any of them sees.
// Keys that none of them sees are never looked at; of the others, each query hides what it does not
// see. A patch that is no run of tokens is gathered into the thread's room, and results from there
// are put back.
//
//   ttt__...             one share is     reads                    writes
//     softmax_read       sequence, head   Q, K, V, c               F, lse
//     softmax_read_back  sequence, head   d_F, Q, K, V, c, F, lse  d_Q, d_K, d_V, d_c
enum { TTT__QUERIES = 64, TTT__KEYS = 512 };  // a tile of 128 kB: stays in the second-level cache
// Keys of a line are taken in tiles that begin at multiples of their length, whoever asks: so what
// a query reads is summed in one order.
static int64_t ttt__tile_keys(const ttt__sight *sight) {
    if (!sight->causal || sight->window >= TTT__KEYS) return TTT__KEYS;
    return TTT__MAX(16, (sight->window + 15) / 16 * 16);  // a stream keeps whole ones
}

// -- softmax attention: the list of a stream
// Keys and values of the tokens that were read lie in tiles of `side` tokens. Of a head a tile is
//     K^T (h,side), c (1,side) if there is one, V (side,h)
// which a query reads as it lies, from the first number to the last. First come the tiles of the
// globals, then those of the line, a ring of as many as a window needs; without one, it never
// closes. Blocks of 1, 1, 2, 4, 8, ... tiles, or of all if they are few, are made when they are
// needed: so a list grows, but copies nothing and leaves nothing behind.
//     New tokens are written behind those that `read` counts. In a ring the place of a new tile may
// still have tokens that the next query sees. Then it is written apart, and moves as the call ends.
enum { TTT__BLOCKS = 48 };  // more tokens than any sequence has
typedef struct ttt__list {
    const ttt__stream_part *part;
    const char *name;
    ttt__sight sight;
    int64_t H, h, terms;            // terms: 1 if there is a c
    int64_t side, globals, circle;  // tokens of a tile; tiles of the globals, and of the ring
    ttt_real *block[TTT__BLOCKS];
    int64_t span;                   // a lane looks at so many tiles of the line at most
    ttt_real **tile;                // (B,globals + span): where; t of the line is at t mod span
} ttt__list;
static int64_t ttt__list_head(const ttt__list *list) {  // numbers of a tile and head
    return (2 * list->h + list->terms) * list->side;
}
// Behind a block that ends with this tile, where does the next one end?
static int64_t ttt__list_next(const ttt__list *list, int64_t end) {
    int64_t all = list->globals + list->circle;
    if (end == 0) return all <= 8 ? all : 1;
    return TTT__MIN(2 * end, all);
}
// What n tokens from this one on wrote into their tile: K^T (h,n), c (1,n), V (n,h).
typedef struct ttt__entries {
    ttt__mat K, K_tr, c, V;       // K (n,h) is absent in a list
} ttt__entries;
static ttt__entries ttt__list_at(const ttt__list *list, int64_t lane, int64_t head, int64_t token,
                                 int64_t n) {
    int64_t side = list->side, h = list->h, line = token - list->sight.globals, at = token % side;
    int64_t tile = token / side;
    if (line >= 0) tile = list->globals + line / side % list->span, at = line % side;
    ttt_real *numbers = list->tile[lane * (list->globals + list->span) + tile] +
                        head * ttt__list_head(list);
    ttt_real *c = numbers + h * side, *V = c + list->terms * side;
    ttt__entries entries;
    entries.K = ttt__absent();
    entries.K_tr = ttt__cols_at(ttt__matrix(numbers, h, side), at, n);
    entries.c = list->terms ? ttt__cols_at(ttt__matrix(c, 1, side), at, n) : ttt__absent();
    entries.V = ttt__rows_at(ttt__matrix(V, side, h), at, n);
    return entries;
}
// Writes what is new in a lane: the first rows of K, V and c.
static void ttt__list_append(const ttt__kit *kit, const ttt__list *list, int64_t lane,
                             int64_t head, ttt__mat K, ttt__mat V, ttt__mat c) {
    int64_t read = ttt__lane_read(list->part, lane), count = ttt__lane_new(list->part, lane);
    for (int64_t i = 0, n; i < count; i += n) {
        int64_t g = list->sight.globals, line = read + i - g, at = line < 0 ? read + i : line;
        n = TTT__MIN(count - i, list->side - at % list->side);
        if (line < 0) n = TTT__MIN(n, -line);
        ttt__entries entries = ttt__list_at(list, lane, head, read + i, n);
        ttt__transpose(kit, entries.K_tr, ttt__rows_at(K, i, n));
        ttt__gather(kit, entries.V, ttt__rows_at(V, i, n));
        if (c.at) ttt__transpose(kit, entries.c, ttt__rows_at(c, i, n));
    }
}
// Where the state keeps a tile of a lane.
static ttt_real *ttt__list_kept(const ttt__list *list, int64_t lane, int64_t tile) {
    int64_t from = 0, end = ttt__list_next(list, 0), g = list->globals;
    int block = 0;
    if (tile >= g) tile = g + (tile - g) % list->circle;
    for (; tile >= end; end = ttt__list_next(list, end), block++) from = end;
    return list->block[block] +
           (lane * (end - from) + tile - from) * list->H * ttt__list_head(list);
}
// Where tile t of the line is in a call that ends with tile `last`.
static ttt_real *ttt__list_place(ttt_ctx *ctx, const ttt__list *list, int64_t lane, int64_t t,
                                 int64_t last) {
    int64_t side = list->side, circle = list->circle, numbers = list->H * ttt__list_head(list);
    int64_t line = ttt__lane_read(list->part, lane) - list->sight.globals;  // the next token
    ttt_real *kept = ttt__list_kept(list, lane, list->globals + t), *apart;
    bool is_new = t * side >= line, in_use = (t - circle + 1) * side > line - list->sight.window;
    if (t < circle || !is_new || !in_use) return kept;
    apart = ttt__alloc_numbers(ctx, 1, numbers, true);
    if (!apart) return NULL;
    if (t == last) memset(apart, 0, (size_t)numbers * sizeof *apart);  // it may not be full
    if (t + circle > last) ttt__stream_write(ctx, list->part, kept, apart, numbers);
    return apart;
}
// The tiles of the line that this call of a lane looks at.
typedef struct ttt__tile_span {
    int64_t first, last;
} ttt__tile_span;
static ttt__tile_span ttt__list_span(const ttt__list *list, int64_t lane) {
    int64_t line = ttt__lane_read(list->part, lane) - list->sight.globals;
    int64_t end = line + ttt__lane_new(list->part, lane);
    ttt__tile_span span = { TTT__MAX(0, line - list->sight.window) / list->side, -1 };
    if (end > 0) span.last = (end - 1) / list->side;
    return span;
}
// Finds the blocks in the state, or makes them.
static void ttt__list_blocks(ttt_ctx *ctx, ttt__list *list, int64_t tiles) {
    int64_t from = 0, end = ttt__list_next(list, 0);
    char name[64];
    for (int block = 0; from < tiles && ttt_ok(ctx); block++) {
        snprintf(name, sizeof name, "%s/%d", list->name, block);
        ttt_shape shape = TTT_SHAPE(list->part->stream->lanes, end - from, list->H,
                                    2 * list->h + list->terms, list->side);
        const ttt_tensor *kept = ttt__stream_state(ctx, list->part, name, shape, block > 0);
        if (kept) list->block[block] = kept->data;
        from = end;
        end = ttt__list_next(list, end);
    }
}
static void ttt__list_tiles(ttt_ctx *ctx, ttt__list *list) {
    int64_t B = list->part->stream->lanes, most = 1;
    for (int64_t b = 0; b < B; b++) {
        ttt__tile_span span = ttt__list_span(list, b);
        list->span = TTT__MAX(list->span, span.last - span.first + 1);
        most = TTT__MAX(most, span.last + 1);
    }
    int64_t width = list->globals + list->span;
    list->tile = (ttt_real **)ttt_alloc(ctx, (uint64_t)(B * width) * sizeof *list->tile, false);
    ttt__list_blocks(ctx, list, list->globals + TTT__MIN(most, list->circle));
    for (int64_t b = 0; b < B && ttt_ok(ctx); b++) {
        ttt__tile_span span = ttt__list_span(list, b);
        ttt_real **tile = list->tile + b * width;
        for (int64_t t = 0; t < list->globals; t++) tile[t] = ttt__list_kept(list, b, t);
        for (int64_t t = span.first; t <= span.last && ttt_ok(ctx); t++)
            tile[list->globals + t % list->span] = ttt__list_place(ctx, list, b, t, span.last);
    }
}

enum { TTT__SOFTMAX_K, TTT__SOFTMAX_V, TTT__SOFTMAX_C, TTT__SOFTMAX_N };  // inputs behind q
typedef struct ttt__softmax_arg {
    ttt__attention how;
    signed char input[TTT__SOFTMAX_N];  // which input k, v and c are; -1: absent
    ttt__mat lse;                       // (B n,H), if there may be a way back
    const ttt__list *list;              // of a stream, which has no way back
} ttt__softmax_arg;

typedef struct ttt__softmax {
    ttt_ctx *ctx;
    const ttt__attention *how;
    const ttt__list *list;
    int64_t B, n, N, H, h;
    ttt__mat Q, K, V, c, F, lse;        // of all sequences and heads: (B n,D), (B N,D), (B N,H)
    ttt__mat d_Q, d_K, d_V, d_c, d_F;   // absent forwards
    bool mixes;                         // not all is seen, nor finite: see ttt__add_seen
    ttt_real *room;
    int64_t room_size;
} ttt__softmax;

// A rectangle of tokens: `rows` times `cols` neighbors, from one row to the next `step` tokens.
typedef struct ttt__patch {
    int64_t first, rows, cols, step;
} ttt__patch;
static int64_t ttt__in_patch(const ttt__patch *patch, int64_t i) {
    return patch->first + i / patch->cols * patch->step + i % patch->cols;
}
// How many columns a patch of n queries has at most: 8 x 8 make it full. Where the grid has fewer
// rows or columns, it has more of the other.
static int64_t ttt__patch_cols(const ttt__sight *sight, int64_t n) {
    const int64_t side = 8;  // side^2 = TTT__QUERIES
    int64_t cols = TTT__MIN(sight->cols, n), rows = n / cols;
    return TTT__MIN(cols, TTT__QUERIES / TTT__MIN(rows, TTT__MAX(side, TTT__QUERIES / cols)));
}
// Whether patches are pieces of several rows.
static bool ttt__cuts_rows(const ttt__sight *sight, int64_t n) {
    return n > sight->cols && ttt__patch_cols(sight, n) < sight->cols;
}

// One sequence and head at work.
typedef struct ttt__reading {
    ttt__kit kit;
    const ttt__attention *how;
    ttt__mat Q, K, V, c, F, lse, d_Q, d_K, d_V, d_c, d_F;
    ttt__mat K_tr, V_tr, c_tr, d_c_tr;  // (h,N), (1,N); K_tr and V_tr if nothing is gathered
    ttt__mat scores, d_scores;          // of a tile
    ttt__mat some_Q, some_F, some_K, some_V, some_d_Q, some_d_F, some_d_K, some_d_V;  // gathered
    ttt__mat finite;                    // room for what is finite of a factor
    bool mixes;
    int64_t N, before;                  // all keys; how many tokens come before the first query
    const ttt__list *list;              // where the keys of a stream are, and whose they are
    int64_t lane, head;
} ttt__reading;
static ttt__reading ttt__reading_room(const ttt__softmax *job, ttt__room *room) {
    ttt__reading work;
    bool back = job->d_F.at != NULL, gathers = ttt__cuts_rows(&job->how->sight, job->n);
    memset(&work, 0, sizeof work);
    work.K_tr = ttt__take_if(!gathers && !job->list, room, job->h, job->N);
    work.V_tr = ttt__take_if(!gathers && back, room, job->h, job->N);
    work.c_tr = ttt__take_if(job->c.at && !job->list, room, 1, job->N);
    work.d_c_tr = ttt__take_if(job->d_c.at, room, 1, job->N);
    work.scores = ttt__take(room, TTT__QUERIES, TTT__KEYS);
    work.d_scores = ttt__take_if(back, room, TTT__QUERIES, TTT__KEYS);
    work.finite = ttt__take(room, TTT__KEYS, job->h);
    ttt__mat *forwards[] = { &work.some_Q, &work.some_F, &work.some_K, &work.some_V };
    ttt__mat *backwards[] = { &work.some_d_Q, &work.some_d_F, &work.some_d_K, &work.some_d_V };
    for (int i = 0; i < 4 && gathers; i++) {
        int64_t most = i < 2 ? (int64_t)TTT__QUERIES : (int64_t)TTT__KEYS;
        *forwards[i] = ttt__take(room, most, job->h);
        *backwards[i] = ttt__take_if(back, room, most, job->h);
    }
    return work;
}
static ttt__mat ttt__head_rows(ttt__mat all, int64_t b, int64_t rows, int64_t head, int64_t cols) {
    return all.at ? ttt__cols_at(ttt__rows_at(all, b * rows, rows), head * cols, cols) : all;
}
// In a stream the new tokens, whose rows these are, go behind those of the list. Globals ask
// elsewhere.
static void ttt__read_from_list(ttt__reading *work, const ttt__list *list, int64_t lane,
                                int64_t head) {
    int64_t read = ttt__lane_read(list->part, lane), count = ttt__lane_new(list->part, lane);
    int64_t g = list->sight.globals, first = TTT__MAX(0, TTT__MIN(count, g - read));
    ttt__list_append(&work->kit, list, lane, head, work->K, work->V, work->c);
    work->Q = ttt__rows_at(work->Q, first, count - first);
    work->F = ttt__rows_at(work->F, first, count - first);
    work->before = read + first - g;
    work->N = read + count;
    work->list = list;
    work->lane = lane;
    work->head = head;
}
static ttt__reading ttt__reading_of(const ttt__softmax *job, int64_t share, int thread) {
    ttt__room room = { job->room + thread * job->room_size, 0 };
    ttt__reading work = ttt__reading_room(job, &room);
    int64_t b = share / job->H, head = share % job->H, n = job->n, N = job->N, h = job->h;
    work.kit = ttt__kit_of(job->ctx, thread);
    work.how = job->how;
    work.mixes = job->mixes;
    work.Q = ttt__head_rows(job->Q, b, n, head, h);
    work.F = ttt__head_rows(job->F, b, n, head, h);
    work.lse = ttt__head_rows(job->lse, b, n, head, 1);
    work.K = ttt__head_rows(job->K, b, N, head, h);
    work.V = ttt__head_rows(job->V, b, N, head, h);
    work.c = ttt__head_rows(job->c, b, N, head, 1);
    work.d_Q = ttt__head_rows(job->d_Q, b, n, head, h);
    work.d_F = ttt__head_rows(job->d_F, b, n, head, h);
    work.d_K = ttt__head_rows(job->d_K, b, N, head, h);
    work.d_V = ttt__head_rows(job->d_V, b, N, head, h);
    work.d_c = ttt__head_rows(job->d_c, b, N, head, 1);
    if (work.K_tr.at) ttt__transpose(&work.kit, work.K_tr, work.K);
    if (work.V_tr.at) ttt__transpose(&work.kit, work.V_tr, work.V);
    if (work.c_tr.at) ttt__transpose(&work.kit, work.c_tr, work.c);
    if (work.d_c_tr.at) ttt__clear(work.d_c_tr);
    work.N = N;
    if (job->list) ttt__read_from_list(&work, job->list, b, head);
    return work;
}

// -- softmax attention: tiles
// Patch number `number` of n queries; its rows are 0 behind the last. A square has few neighbors:
// keys that its queries meet together, and one by one do not see.
static ttt__patch ttt__query_patch(const ttt__sight *sight, int64_t n, int64_t number) {
    ttt__patch patch = { 0, 0, 0, TTT__MIN(sight->cols, n) };
    int64_t most = ttt__patch_cols(sight, n), across = (patch.step + most - 1) / most, left;
    patch.cols = ttt__piece(patch.step, most, number % across, &left);
    patch.rows = ttt__piece(n / patch.step, TTT__QUERIES / most, number / across, &patch.first);
    patch.first = patch.first * patch.step + left;
    return patch;
}
// What tile `number` of those that from..end lies in has of it.
static ttt__patch ttt__part_of_line(int64_t from, int64_t end, int64_t tile, int64_t number) {
    int64_t first = (from / tile + number) * tile, begin = TTT__MAX(from, first);
    int64_t n = TTT__MIN(end, first + tile) - begin;
    ttt__patch patch = { begin, n > 0, n, n };
    return patch;
}
// Patch number `number` of the N keys that some of these queries see, at most TTT__KEYS of them;
// its rows are 0 behind the last. First come the globals, then tiles of a line, or pieces of a
// rectangle of the grid: some of its rows, or a part of one.
static ttt__patch ttt__key_patch(const ttt__sight *sight, int64_t N, const ttt__patch *query,
                                 int64_t number) {
    int64_t g = sight->globals, tile = ttt__tile_keys(sight), of_globals = (g + tile - 1) / tile;
    int64_t n = N - g;
    ttt__patch patch = { 0, 1, 0, TTT__MIN(sight->cols, n) };
    if (number < of_globals) return ttt__part_of_line(0, g, tile, number);
    int64_t window = sight->window, from_row, from_col;
    int64_t row = query->first / sight->cols, col = query->first % sight->cols;
    int64_t top = TTT__MAX(row - window, 0), left = TTT__MAX(col - window, 0);
    int64_t bottom = row + query->rows + (sight->causal ? 0 : window);
    bottom = TTT__MIN(bottom, n / patch.step);
    bool above = !sight->causal || bottom - top > 1;  // some see what is right of all of them
    int64_t right = TTT__MIN(col + query->cols + (above ? window : 0), patch.step);
    int64_t most = TTT__MAX(1, TTT__KEYS / (right - left));  // rows
    int64_t across = (right - left + TTT__KEYS - 1) / TTT__KEYS;
    number -= of_globals;
    if (patch.step == n) {
        patch = ttt__part_of_line(left, right, tile, number);
        patch.first += g;
        return patch;
    }
    patch.rows = ttt__piece(bottom - top, most, number / across, &from_row);
    patch.cols = ttt__piece(right - left, TTT__KEYS, number % across, &from_col);
    patch.first = g + (top + from_row) * patch.step + left + from_col;
    return patch;
}
// Those of all tokens' rows that are a patch: where they are if it is a run, else a copy of them.
static ttt__mat ttt__patch_of(const ttt__kit *kit, ttt__mat all, const ttt__patch *patch,
                              ttt__mat room) {
    if (!room.at || patch->rows == 1)
        return ttt__rows_at(all, patch->first, patch->rows * patch->cols);
    for (int64_t i = 0; i < patch->rows; i++)
        ttt__gather(kit, ttt__rows_at(room, i * patch->cols, patch->cols),
                    ttt__rows_at(all, patch->first + i * patch->step, patch->cols));
    return ttt__rows_at(room, 0, patch->rows * patch->cols);
}
// Puts what was computed in ttt__patch_of back where it belongs.
static void ttt__put_patch(const ttt__kit *kit, ttt__mat all, const ttt__patch *patch,
                           ttt__mat some) {
    if (some.at == ttt__rows_at(all, patch->first, 1).at) return;
    for (int64_t i = 0; i < patch->rows; i++)
        ttt__gather(kit, ttt__rows_at(all, patch->first + i * patch->step, patch->cols),
                    ttt__rows_at(some, i * patch->cols, patch->cols));
}
// What a query sees of a patch of keys: places from .. end of its row of scores, in which the
// others become `hidden`.
typedef struct ttt__seen {
    int64_t from, end;
} ttt__seen;
static ttt__seen ttt__hide(const ttt__sight *sight, int64_t query, const ttt__patch *keys,
                           ttt__mat row, ttt_real hidden) {
    ttt__seen seen = { 0, row.cols };
    int64_t first = keys->first - sight->globals, cols = sight->cols, window = sight->window;
    if (first < 0) return seen;  // globals
    int64_t down = query / cols - first / cols, right = query % cols - first % cols;
    int64_t top = TTT__MAX(down - window, 0), bottom = TTT__MIN(down + window, keys->rows - 1);
    int64_t begin = TTT__MAX(right - window, 0), end = TTT__MIN(right + window + 1, keys->cols);
    seen.end = 0;
    if (sight->causal) bottom = TTT__MIN(bottom, down);
    for (int64_t i = top; i <= bottom; i++) {
        int64_t low = i * keys->cols + begin, high = i * keys->cols + end;
        if (sight->causal && i == down) high = TTT__MIN(high, i * keys->cols + right + 1);
        if (low >= high) continue;
        if (seen.end == 0) seen.from = seen.end = low;
        while (seen.end < low) row.at[seen.end++] = hidden;
        seen.end = high;
    }
    return seen;
}
static ttt__mat ttt__only_seen(ttt__mat row, ttt__seen seen) {
    return ttt__cols_at(row, seen.from, seen.end - seen.from);
}
static void ttt__clear_unseen(ttt__mat row, ttt__seen seen) {
    ttt__clear(ttt__cols_at(row, 0, seen.from));
    ttt__clear(ttt__cols_at(row, seen.end, row.cols - seen.end));
}
// y += a b, where a 0 of a takes nothing of b, whatever b has there, as in ttt_mix: so what a query
// does not see changes no bit of it. All that is finite goes through the product first.
static void ttt__add_seen(const ttt__reading *work, ttt__mat y, ttt__mat a, ttt__mat b) {
    ttt__mat finite = ttt__rows_at(work->finite, 0, b.rows);
    bool all = !work->mixes || ttt__all_finite(&work->kit, finite, b);
    ttt__add_product(&work->kit, y, a, all ? b : finite);
    if (!all) ttt__add_not_finite(y, a, b);
}

// Keys or values of a patch, transposed: columns of the copy, if there is one. A product copies a
// transposed right factor itself, so for gathered ones there is none.
static ttt__mat ttt__patch_tr(ttt__mat all_tr, ttt__mat some, const ttt__patch *patch) {
    return all_tr.at ? ttt__cols_at(all_tr, patch->first, some.rows) : ttt__transpose_of(some);
}
static ttt__entries ttt__entries_of(const ttt__reading *work, const ttt__patch *keys) {
    int64_t n = keys->rows * keys->cols;
    if (work->list) return ttt__list_at(work->list, work->lane, work->head, keys->first, n);
    ttt__entries entries;
    entries.K = ttt__patch_of(&work->kit, work->K, keys, work->some_K);
    entries.K_tr = ttt__patch_tr(work->K_tr, entries.K, keys);
    entries.c = work->c_tr.at ? ttt__cols_at(work->c_tr, keys->first, n) : work->c_tr;
    entries.V = ttt__patch_of(&work->kit, work->V, keys, work->some_V);
    return entries;
}
// Q K^T + 1 c^T of a tile
static ttt__mat ttt__tile_scores(const ttt__reading *work, ttt__mat Q,
                                 const ttt__entries *entries) {
    ttt__mat scores = ttt__matrix(work->scores.at, Q.rows, entries->K_tr.cols);
    ttt__affine(&work->kit, scores, Q, entries->K_tr, entries->c);
    return scores;
}
// Scores become e^(scale score - shift); returns their sum. A shift of +infinity is a score's: what
// is as large counts as 1, and all else is nothing beside it.
static double ttt__exp_row(const ttt__kit *kit, ttt__mat row, ttt_real scale, ttt_real shift) {
    double sum = 0;
    if (shift != HUGE_VAL) return kit->lk->exp_sum(row.cols, row.at, row.at, scale, shift);
    for (int64_t i = 0; i < row.cols; i++) {
        ttt_real score = scale * row.at[i];
        row.at[i] = score == HUGE_VAL ? 1 : score == score ? 0 : score;
        sum += (double)row.at[i];
    }
    return sum;
}

// -- softmax attention, forwards
// The softmax of a query after some runs of keys. Its F is the sum of e^(score - max) v so far; it
// is scaled down when a run brings a larger maximum.
typedef struct ttt__softmax_state {
    ttt_real max;
    double sum;                         // of e^(score - max)
} ttt__softmax_state;
// Adds what is seen of a run. scores (1,keys) become e^(score - max).
static void ttt__softmax_add(const ttt__kit *kit, ttt__softmax_state *state, ttt__mat scores,
                             ttt_real scale, ttt__mat F) {
    ttt_real max = scale * kit->lk->row_max(scores.cols, scores.at);
    if (max == -HUGE_VAL) max = -(ttt_real)3e38;  // then e^(score - max) is 0, not NaN
    if (max <= state->max) max = state->max;
    double shrink = max == state->max ? 1 : exp((double)state->max - (double)max);
    if (shrink != 1 && state->sum != 0) ttt__scaled(kit, F, F, (ttt_real)shrink);
    state->sum = state->sum * shrink + ttt__exp_row(kit, scores, scale, max);
    state->max = max;
}
// Divides by the sum. Two scores of +infinity: nobody knows which is larger.
static void ttt__softmax_finish(const ttt__kit *kit, const ttt__softmax_state *state, ttt__mat F,
                                ttt__mat lse) {
    double sum = state->max == HUGE_VAL && state->sum != 1 ? (double)NAN : state->sum;
    bool nothing = sum == 0;            // is seen: F and all weights are 0
    ttt__scaled(kit, F, F, nothing ? 0 : (ttt_real)(1 / sum));
    if (lse.at) *lse.at = nothing ? 0 : (ttt_real)((double)state->max + log(sum));
}
// Reads for the queries of a patch. False if not all of it is finite.
static bool ttt__softmax_patch(const ttt__reading *work, const ttt__patch *queries) {
    const ttt__kit *kit = &work->kit;
    const ttt__sight *sight = &work->how->sight;
    ttt__mat Q = ttt__patch_of(kit, work->Q, queries, work->some_Q);
    ttt__mat F = ttt__patch_of(kit, work->F, queries, work->some_F);
    ttt__softmax_state state[TTT__QUERIES];
    ttt__patch keys, asked = *queries;
    bool finite = true;
    asked.first += work->before;
    for (int64_t i = 0; i < Q.rows; i++) {
        state[i].max = -(ttt_real)HUGE_VAL;
        state[i].sum = 0;
        ttt__clear(ttt__rows_at(F, i, 1));
    }
    for (int64_t j = 0; (keys = ttt__key_patch(sight, work->N, &asked, j)).rows > 0; j++) {
        ttt__entries entries = ttt__entries_of(work, &keys);
        ttt__mat P = ttt__tile_scores(work, Q, &entries);
        for (int64_t i = 0; i < Q.rows; i++) {
            ttt__mat row = ttt__rows_at(P, i, 1);
            ttt__seen seen = ttt__hide(sight, ttt__in_patch(&asked, i), &keys, row,
                                       -(ttt_real)HUGE_VAL);
            ttt__clear_unseen(row, seen);
            if (seen.end > seen.from)
                ttt__softmax_add(kit, &state[i], ttt__only_seen(row, seen),
                                 (ttt_real)work->how->scale, ttt__rows_at(F, i, 1));
        }
        ttt__add_seen(work, F, P, entries.V);  // F += e^(scores - max) V
    }
    for (int64_t i = 0; i < Q.rows; i++) {
        ttt__mat row = ttt__rows_at(F, i, 1), lse = work->lse;
        if (lse.at) lse = ttt__rows_at(lse, ttt__in_patch(queries, i), 1);
        ttt__softmax_finish(kit, &state[i], row, lse);
        finite = finite && kit->k->finite(row.cols, row.at);
    }
    ttt__put_patch(kit, work->F, queries, F);
    return finite;
}
// What is not finite in a key's value must reach no query that does not see it. Where that may have
// happened the answers are not finite, and are read again, with care.
static void ttt__softmax_read(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__softmax *job = (const ttt__softmax *)arg;
    ttt__patch queries;
    for (int64_t share = begin; share < end; share++) {
        ttt__reading work = ttt__reading_of(job, share, thread);
        const ttt__sight *sight = &job->how->sight;
        int64_t n = work.Q.rows;
        for (int64_t i = 0; n > 0 && (queries = ttt__query_patch(sight, n, i)).rows > 0; i++) {
            work.mixes = false;
            work.mixes = !ttt__softmax_patch(&work, &queries) && job->mixes;
            if (work.mixes) (void)ttt__softmax_patch(&work, &queries);
        }
    }
}

// -- softmax attention, backwards
// The queries of a patch.
typedef struct ttt__asked {
    ttt__patch patch;
    ttt__mat Q, d_Q, d_F;
    double sums[TTT__QUERIES];  // <d_F, F> of each
} ttt__asked;
// What is not finite in a query must not reach the keys that it does not see: 0 NaN is not 0.
static bool ttt__is_lost(const ttt__asked *asked, int64_t i) {
    return !(asked->sums[i] - asked->sums[i] == 0);
}
// One tile: these queries, and a patch of keys.
//   P = e^(scale (Q K^T + 1 c^T) - lse):  d_V += P^T d_F;  d_P = d_F V^T
//   d_scores = scale P o (d_P - sums)
//   d_K += d_scores^T Q;  d_Q += d_scores K;  d_c += d_scores^T 1
static void ttt__softmax_tile_back(const ttt__reading *work, const ttt__asked *asked,
                                   const ttt__patch *keys) {
    const ttt__kit *kit = &work->kit;
    const ttt__sight *sight = &work->how->sight;
    ttt_real scale = (ttt_real)work->how->scale;
    ttt__entries entries = ttt__entries_of(work, keys);
    ttt__mat d_K = ttt__patch_of(kit, work->d_K, keys, work->some_d_K);
    ttt__mat d_V = ttt__patch_of(kit, work->d_V, keys, work->some_d_V);
    ttt__mat P = ttt__tile_scores(work, asked->Q, &entries);
    ttt__mat d_P = ttt__matrix(work->d_scores.at, P.rows, P.cols), d_scores = d_P;  // in its place
    ttt__seen seen[TTT__QUERIES];
    for (int64_t i = 0; i < P.rows; i++) {
        int64_t query = ttt__in_patch(&asked->patch, i);
        ttt__mat row = ttt__rows_at(P, i, 1);
        seen[i] = ttt__hide(sight, query, keys, row, -(ttt_real)HUGE_VAL);
        ttt__clear_unseen(row, seen[i]);
        ttt_real lse = *ttt__rows_at(work->lse, query, 1).at;
        (void)ttt__exp_row(kit, ttt__only_seen(row, seen[i]), scale, lse);
        if (ttt__is_lost(asked, i)) (void)ttt__hide(sight, query, keys, row, 0);
        if (lse == HUGE_VAL) seen[i].end = seen[i].from;  // one key has all: no score changes that
    }
    ttt__add_seen(work, d_V, ttt__transpose_of(P), asked->d_F);
    ttt__set_product(kit, d_P, asked->d_F, ttt__patch_tr(work->V_tr, entries.V, keys));
    for (int64_t i = 0; i < P.rows; i++) {
        ttt__mat row = ttt__rows_at(P, i, 1), d_row = ttt__rows_at(d_P, i, 1);
        ttt__clear_unseen(d_row, seen[i]);
        for (int64_t j = seen[i].from; j < seen[i].end && work->mixes; j++)
            if (row.at[j] == 0) d_row.at[j] = 0;
        kit->lk->softmax_back(seen[i].end - seen[i].from, row.at + seen[i].from,
                              d_row.at + seen[i].from, scale, (ttt_real)asked->sums[i]);
        if (ttt__is_lost(asked, i))
            (void)ttt__hide(sight, ttt__in_patch(&asked->patch, i), keys, d_row, 0);
    }
    ttt__add_seen(work, d_K, ttt__transpose_of(d_scores), asked->Q);
    ttt__add_seen(work, asked->d_Q, d_scores, entries.K);
    if (work->d_c.at)
        ttt__add_row_sum(kit, ttt__cols_at(work->d_c_tr, keys->first, P.cols), d_scores);
    ttt__put_patch(kit, work->d_K, keys, d_K);
    ttt__put_patch(kit, work->d_V, keys, d_V);
}
static void ttt__softmax_patch_back(const ttt__reading *work, const ttt__patch *queries) {
    const ttt__kit *kit = &work->kit;
    const ttt__sight *sight = &work->how->sight;
    ttt__asked asked;
    ttt__patch keys;
    asked.patch = *queries;
    asked.Q = ttt__patch_of(kit, work->Q, queries, work->some_Q);
    asked.d_Q = ttt__patch_of(kit, work->d_Q, queries, work->some_d_Q);
    asked.d_F = ttt__patch_of(kit, work->d_F, queries, work->some_d_F);
    for (int64_t i = 0; i < asked.Q.rows; i++)
        asked.sums[i] = ttt__dot(kit, ttt__rows_at(asked.d_F, i, 1),
                                 ttt__rows_at(work->F, ttt__in_patch(queries, i), 1));
    for (int64_t j = 0; (keys = ttt__key_patch(sight, work->K.rows, queries, j)).rows > 0; j++)
        ttt__softmax_tile_back(work, &asked, &keys);
    ttt__put_patch(kit, work->d_Q, queries, asked.d_Q);
}
static void ttt__softmax_read_back(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__softmax *job = (const ttt__softmax *)arg;
    ttt__patch queries;
    for (int64_t share = begin; share < end; share++) {
        ttt__reading work = ttt__reading_of(job, share, thread);
        for (int64_t i = 0; (queries = ttt__query_patch(&job->how->sight, job->n, i)).rows > 0; i++)
            ttt__softmax_patch_back(&work, &queries);
        for (int64_t i = 0; i < job->N && work.d_c.at; i++)
            work.d_c.at[i * work.d_c.down] += work.d_c_tr.at[i];
    }
}

// -- softmax attention: the op
static ttt_tensor *ttt__softmax_input(const ttt_tensor *y, int which) {
    const ttt__softmax_arg *arg = (const ttt__softmax_arg *)y->arg;
    return arg->input[which] < 0 ? NULL : y->in[(int)arg->input[which]];
}
static ttt__mat ttt__tokens_of(const ttt_tensor *tensor) {
    if (!tensor) return ttt__absent();
    int64_t width = tensor->shape.dim[2];
    return ttt__matrix(tensor->data, tensor->shape.dim[0] * tensor->shape.dim[1], width);
}
static ttt__softmax ttt__softmax_of(ttt_ctx *ctx, const ttt_tensor *y) {
    const ttt__softmax_arg *arg = (const ttt__softmax_arg *)y->arg;
    const ttt_tensor *k = ttt__softmax_input(y, TTT__SOFTMAX_K);
    ttt__softmax job;
    memset(&job, 0, sizeof job);
    job.ctx = ctx;
    job.how = &arg->how;
    job.list = arg->list;
    job.B = y->shape.dim[0];
    job.n = y->shape.dim[1];
    job.N = k->shape.dim[1];
    job.H = arg->how.heads;
    job.h = y->shape.dim[2] / job.H;
    job.Q = ttt__tokens_of(y->in[0]);
    job.K = ttt__tokens_of(k);
    job.V = ttt__tokens_of(ttt__softmax_input(y, TTT__SOFTMAX_V));
    job.c = ttt__tokens_of(ttt__softmax_input(y, TTT__SOFTMAX_C));
    job.F = ttt__tokens_of(y);
    job.lse = arg->lse;
    return job;
}
static void ttt__softmax_run(ttt__softmax *job, ttt__share_fn *share) {
    ttt__room measure = { NULL, 0 };
    const ttt__mat *factors[] = { &job->V, &job->d_F, &job->Q, &job->K };
    bool all_seen = job->how->sight.window >= TTT__FAR && !job->how->sight.causal;
    job->mixes = !all_seen && !job->d_F.at;
    for (int i = 0; i < 4 && !all_seen && !job->mixes; i++)
        job->mixes = !job->ctx->k->finite(ttt__numbers(*factors[i]), factors[i]->at);
    (void)ttt__reading_room(job, &measure);
    job->room_size = measure.used;
    job->room = ttt__alloc_numbers(job->ctx, job->ctx->threads, measure.used, false);
    if (job->room) ttt__parallel(job->ctx, -1, job->B * job->H, 1, share, job);
}
static void ttt__attention_forward(ttt_ctx *ctx, ttt_tensor *y) {
    ttt__softmax_arg *arg = (ttt__softmax_arg *)(uintptr_t)y->arg;
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    if (y->size == 0) return;
    ttt__softmax job = ttt__softmax_of(ctx, y);
    int64_t rows = job.B * job.n;
    if (job.list) memset(y->data, 0, (size_t)y->size * sizeof *y->data);
    if (ctx->recording && !ctx->numbers_only)
        arg->lse = job.lse = ttt__matrix(ttt__alloc_numbers(ctx, rows, job.H, true), rows, job.H);
    if (!ctx->result) ttt__softmax_run(&job, ttt__softmax_read);
    ttt__arena_release(&ctx->scratch, scratch);
}
static void ttt__attention_back(ttt_ctx *ctx, ttt_tensor *y, const ttt_tensor *d_y,
                                ttt_tensor **into, const bool *add) {
    const ttt__softmax_arg *arg = (const ttt__softmax_arg *)y->arg;
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    if (y->size == 0) return;
    ttt__softmax job = ttt__softmax_of(ctx, y);
    ttt__mat *of_inputs[] = { &job.d_K, &job.d_V, &job.d_c };
    job.d_F = ttt__matrix(d_y->data, job.F.rows, job.F.cols);
    job.d_Q = job.Q;
    job.d_Q.at = ttt__gradient_room(ctx, y, into, add, 0);
    for (int i = 0; i < TTT__SOFTMAX_N; i++) {
        if (arg->input[i] < 0) continue;
        *of_inputs[i] = ttt__tokens_of(ttt__softmax_input(y, i));
        of_inputs[i]->at = ttt__gradient_room(ctx, y, into, add, arg->input[i]);
    }
    if (!ctx->result) ttt__softmax_run(&job, ttt__softmax_read_back);
    ttt__arena_release(&ctx->scratch, scratch);
}
static ttt_tensor *ttt__attention_composite(ttt_ctx *ctx, ttt_tensor *const *in,
                                            const ttt_tensor *y) {
    const ttt__softmax_arg *arg = (const ttt__softmax_arg *)y->arg;
    ttt_tensor *given[1 + TTT__SOFTMAX_N] = { in[0], NULL, NULL, NULL }, *a;
    for (int i = 0; i < TTT__SOFTMAX_N; i++)
        if (arg->input[i] >= 0) given[1 + i] = in[(int)arg->input[i]];
    return ttt__attention_tape(ctx, &arg->how, given, &a);
}
static int64_t ttt__attention_count(const ttt_tensor *y) {
    const ttt__softmax_arg *arg = (const ttt__softmax_arg *)y->arg;
    const ttt__sight *sight = &arg->how.sight;
    int64_t B = y->shape.dim[0], N = ttt__softmax_input(y, TTT__SOFTMAX_K)->shape.dim[1];
    double pairs = arg->list ? 0 : (double)B * ttt__pairs(sight, y->shape.dim[1], N);
    for (int64_t b = 0; arg->list && b < B; b++) {
        int64_t read = ttt__lane_read(arg->list->part, b);
        int64_t all = read + ttt__lane_new(arg->list->part, b);
        pairs += ttt__pairs(sight, all, all) - ttt__pairs(sight, read, read);
    }
    return (int64_t)(4 * pairs * (double)y->shape.dim[2]);
}
static const ttt_op ttt__op_attention = {
    "softmax attention", "y = softmax(s (q k^T + c)) v of each head", -1, 0, 0,
    ttt__attention_forward, NULL, ttt__attention_composite, ttt__attention_back,
    ttt__attention_count,
};
// list: of a stream; else NULL
static ttt_tensor *ttt__attention_op(ttt_ctx *ctx, const ttt__attention *how, const ttt__list *list,
                                     ttt_tensor *const *in) {
    ttt__softmax_arg arg;
    ttt_tensor *listed[1 + TTT__SOFTMAX_N];
    if (!ttt_ok(ctx)) return in[0];
    memset(&arg, 0, sizeof arg);
    memset(arg.input, -1, sizeof arg.input);
    arg.how = *how;
    arg.list = list;
    int n = ttt__list_inputs(ctx, in[0], in + 1, TTT__SOFTMAX_N, listed, arg.input);
    return ttt_apply(ctx, &ttt__op_attention, listed, n, in[0]->shape, &arg, sizeof arg);
}
static ttt_tensor *ttt__attention_as_op(ttt_ctx *ctx, const ttt__attention *how,
                                        ttt_tensor *const *in) {
    return ttt__attention_op(ctx, how, NULL, in);
}
// The nearest are chosen on the tape, for which what a lane read is copied from its list, after the
// new tokens went there: k, v (1,N,D) and c (1,N,H).
static void ttt__list_copy(const ttt__kit *kit, const ttt__list *list, int64_t lane,
                           ttt_tensor *const *to) {
    int64_t N = to[1]->shape.dim[1], h = list->h;
    for (int64_t token = 0, n; token < N; token += n) {
        n = TTT__MIN(list->side, N - token);
        for (int64_t head = 0; head < list->H; head++) {
            ttt__entries entries = ttt__list_at(list, lane, head, token, n);
            ttt__mat rows[3];
            for (int i = 0; i < 3; i++)
                rows[i] = ttt__rows_at(ttt__tokens_of(to[1 + i]), token, n);
            ttt__transpose(kit, ttt__cols_at(rows[0], head * h, h), entries.K_tr);
            ttt__gather(kit, ttt__cols_at(rows[1], head * h, h), entries.V);
            ttt__transpose(kit, ttt__cols_at(rows[2], head, 1), entries.c);
        }
    }
}
static void ttt__nearest_of_lane(ttt_ctx *ctx, const ttt__list *list, const ttt__attention *how,
                                 ttt_tensor *const *in, int64_t lane, ttt_tensor *y) {
    int64_t n = y->shape.dim[1], D = y->shape.dim[2], H = list->H, h = list->h;
    int64_t count = ttt__lane_new(list->part, lane);
    ttt__kit kit = ttt__kit_of(ctx, 0);
    ttt__attention of_lane = *how;
    ttt_tensor *all[4], *a;
    of_lane.before = ttt__lane_read(list->part, lane);
    for (int64_t head = 0; head < H; head++)
        ttt__list_append(&kit, list, lane, head,
                         ttt__head_rows(ttt__tokens_of(in[1]), lane, n, head, h),
                         ttt__head_rows(ttt__tokens_of(in[2]), lane, n, head, h),
                         ttt__head_rows(ttt__tokens_of(in[3]), lane, n, head, 1));
    all[0] = ttt_slice(ctx, ttt_slice(ctx, in[0], 0, lane, 1), 1, 0, count);
    for (int i = 1; i < 4; i++)
        all[i] = ttt_zeros(ctx, TTT_SHAPE(1, of_lane.before + count, i < 3 ? D : H));
    if (ttt_ok(ctx)) ttt__list_copy(&kit, list, lane, all);
    ttt_tensor *answer = ttt__attention_tape(ctx, &of_lane, all, &a);
    if (ttt_ok(ctx))
        memcpy(y->data + lane * n * D, answer->data, (size_t)(count * D) * sizeof *y->data);
}
static ttt_tensor *ttt__nearest_in_stream(ttt_ctx *ctx, const ttt__list *list,
                                          const ttt__attention *how, ttt_tensor *const *in) {
    ttt_tensor *y = ttt_zeros(ctx, in[0]->shape);
    for (int64_t b = 0; ttt_ok(ctx) && b < y->shape.dim[0]; b++)
        if (ttt__lane_new(list->part, b) > 0) ttt__nearest_of_lane(ctx, list, how, in, b, y);
    return y;
}
static const ttt__list *ttt__list_of(ttt_ctx *ctx, const ttt__stream_part *part,
                                     const ttt__attention *how, ttt_tensor *const *in) {
    ttt__list *list = (ttt__list *)ttt_alloc(ctx, sizeof *list, false);
    if (!ttt_ok(ctx)) return NULL;
    memset(list, 0, sizeof *list);
    list->part = part;
    list->name = how->list;
    list->sight = how->sight;
    list->H = how->heads;
    list->h = in[0]->shape.dim[2] / how->heads;
    list->terms = in[3] != NULL;
    list->side = ttt__tile_keys(&how->sight);
    list->globals = (how->sight.globals + list->side - 1) / list->side;
    list->circle = TTT__FAR;
    if (how->sight.window < TTT__FAR)  // all that the next query sees
        list->circle = 1 + (how->sight.window + list->side - 1) / list->side;
    ttt__list_tiles(ctx, list);
    return list;
}
static ttt_tensor *ttt__attention_in_stream(ttt_ctx *ctx, const ttt__stream_part *part,
                                            const ttt__attention *how, ttt_tensor *const *in) {
    const ttt__list *list = ttt__list_of(ctx, part, how, in);
    if (how->nearest) return ttt__nearest_in_stream(ctx, list, how, in);
    return ttt__attention_op(ctx, how, list, in);
}

// -- memories written in chunks: what tokens read of a state that they write, chunk after chunk
// One op from the views of all heads and their gates to what the memory answers; products with
// kernels, convolutions and norms around it are ops of the tape. Tokens lie as (B,N,H,width), heads
// side by side: cutting a token into heads moves nothing. A sequence of a head is one share of the
// work, and goes through its chunks in order, each a few matrices that stay in the cache:
//     (y, state) <- forward(inputs of the chunk, state)
// Its gradients go through the same chunks from the last to the first, and need the state before
// each. Forward keeps that of every k-th chunk (none where no way back may come); the states of
// such a segment are made again from it, by the same `forward`, which then writes no y.
//
// A call of a stream may begin and end within a chunk. So `forward` takes some tokens of a chunk,
// and has left what it needs of those before them, keys and gradients, in a block, `open`; the
// state is written when the chunk is full. Each row of its matrices is made once, from the same
// numbers in the same order, wherever calls end.
//
// What differs is a kind: a row of functions that know one chunk. They find its rows of each input
// as matrices; a state and `open` are blocks of numbers which are theirs to divide.
//
// LETTERS
//   sizes    B sequences of N tokens; H heads; n tokens of a chunk, the last may be shorter
//   in, y    inputs, by the kind's own numbers, and the answers: rows of the chunk, of the head
//   state    S before the chunk, S' after it;  d_state  from the gradient in S' to that in S
//   before   in a stream: the chunk has so many tokens from earlier calls
//   pair     a sequence and head, number b H + head
//
//   phase     a share is         reads                   writes                  ttt__...
//   read      a pair             in                      y, every k-th S         chunked_read
//   stream    a pair             in, S, open             y, S', open             chunked_stream
//     and backwards
//   read      a pair             in, d_y, the kept S     d_in; of parameters     chunked_read_back
//                                                        each pair's own
//   join      (calling thread)   the pairs' gradients    d_in of parameters      chunked_join
enum { TTT__CHUNKED_INPUTS = 13 };
typedef struct ttt__chunk_work ttt__chunk_work;
typedef struct ttt__chunked_kind ttt__chunked_kind;
typedef void ttt__chunk_fn(ttt__chunk_work *chunk);

// What the tape keeps.
typedef struct ttt__chunked_arg {
    const ttt__chunked_kind *kind;
    ttt_mixer_desc d;            // the layer's options
    int64_t B, N, H;
    int64_t chunk, chunks;       // tokens of a chunk, chunks of a sequence
    int64_t every;               // of so many chunks the first one's state is kept,
    ttt__mat states;             // a row each, pair after pair; absent: no way back may come
    signed char input[TTT__CHUNKED_INPUTS];  // which input of the node; -1: absent
} ttt__chunked_arg;

// Some tokens of a pair, at work.
struct ttt__chunk_work {
    const ttt__kit *kit;
    const ttt__chunked_arg *arg;
    int64_t from, rows;                   // its first token here, and how many
    int64_t before;                       // and how many come before these, see ttt__take_open
    bool whole;                           // all tokens of the chunk are here
    bool last;                            // what it writes nobody reads
    ttt__mat in[TTT__CHUNKED_INPUTS];     // of tokens: their rows; of a parameter: the head's part
    ttt__mat d_in[TTT__CHUNKED_INPUTS];   // backwards, to be added to; all that are there
    ttt__mat y, d_y;                      // backwards y is there to be read; it is absent where
                                          // forward is called for the state alone
    ttt_real *state, *d_state;            // forwards S becomes S'; backwards it stays as it is
    bool back;
    ttt__room room;                       // scratch memory, anew for each chunk
    ttt__room open;                       // what is kept of a chunk that is not whole
};

struct ttt__chunked_kind {
    ttt_op op;                            // its name and formula; the functions are the frame's
    int of_tokens;                        // so many inputs are of tokens, those behind parameters
    int64_t (*state_size)(const ttt__chunk_work *chunk);
    // Takes from chunk->room what forward, or if chunk->back also backward, works with: their first
    // step, and alone, from a room without memory, the measure of it.
    ttt__chunk_fn *take;
    ttt__chunk_fn *start, *start_back;    // parameters <-> the first state; NULL: that is zero
    ttt__chunk_fn *forward, *backward;
    double (*flops)(const ttt__chunk_work *chunk);  // of a chunk of so many rows, forwards
    ttt__memory_fn *tape;                 // the same on the tape: for higher orders, and the oracle
};

typedef struct ttt__chunked {
    ttt_ctx *ctx;
    const ttt_tensor *node;
    const ttt__chunked_arg *arg;
    const ttt_tensor *d_y;                       // NULL forwards
    ttt_real *gradient[TTT__CHUNKED_INPUTS];     // backwards; of parameters: a part for each pair
    ttt_real *room;                              // of each thread
    int64_t room_size, state_size;
    ttt__stack memory, open;                     // a stream's state, of each pair,
    ttt__stack next_memory, next_open;           // and where its next one is made
} ttt__chunked;

// -- chunks of a pair
// Rows `from` .. `from + rows` of the tokens (B,N,H,width) at `at`, of one pair.
static ttt__mat ttt__pair_rows(const ttt__chunked_arg *arg, ttt_real *at, int64_t width,
                               int64_t pair, const ttt__chunk_work *chunk) {
    int64_t token = pair / arg->H * arg->N + chunk->from, head = pair % arg->H;
    if (at) at += (token * arg->H + head) * width;
    return ttt__strided(at, chunk->rows, width, arg->H * width);
}
// The part of a parameter (H,..,width) that is a head's.
static ttt__mat ttt__parameter_part(const ttt_tensor *parameter, int64_t H, int64_t head) {
    int64_t width = ttt__last(parameter), part = parameter->size / H;
    return ttt__matrix(parameter->data + head * part, part / width, width);
}
// Some tokens of a pair: their inputs, their answers, and the gradients in both.
static ttt__chunk_work ttt__chunk_at(const ttt__chunked *job, const ttt__kit *kit, int64_t pair,
                                     int64_t from, int64_t rows) {
    const ttt__chunked_arg *arg = job->arg;
    ttt__chunk_work chunk;
    memset(&chunk, 0, sizeof chunk);
    chunk.kit = kit;
    chunk.arg = arg;
    chunk.back = job->d_y != NULL;
    chunk.from = from;
    chunk.rows = rows;
    chunk.whole = true;
    for (int j = 0; j < TTT__CHUNKED_INPUTS; j++) {
        if (arg->input[j] < 0) continue;
        const ttt_tensor *input = job->node->in[(int)arg->input[j]];
        int64_t width = ttt__last(input);
        ttt_real *d_at = job->gradient[j];
        if (j < arg->kind->of_tokens) {
            chunk.in[j] = ttt__pair_rows(arg, input->data, width, pair, &chunk);
            chunk.d_in[j] = ttt__pair_rows(arg, d_at, width, pair, &chunk);
        } else {
            chunk.in[j] = ttt__parameter_part(input, arg->H, pair % arg->H);
            chunk.d_in[j] = chunk.in[j];
            chunk.d_in[j].at = d_at ? d_at + pair * ttt__numbers(chunk.in[j]) : NULL;
        }
    }
    int64_t width = ttt__last(job->node);
    chunk.y = ttt__pair_rows(arg, job->node->data, width, pair, &chunk);
    chunk.d_y = ttt__pair_rows(arg, chunk.back ? job->d_y->data : NULL, width, pair, &chunk);
    return chunk;
}
// Chunk number i of a pair.
static ttt__chunk_work ttt__chunk_of(const ttt__chunked *job, const ttt__kit *kit, int64_t pair,
                                     int64_t i) {
    int64_t size = job->arg->chunk, left = job->arg->N - i * size;
    ttt__chunk_work chunk = ttt__chunk_at(job, kit, pair, i * size, TTT__MIN(size, left));
    chunk.last = left <= size;
    return chunk;
}
// (rows,cols) for these tokens of a chunk, below those of the tokens before them, which an earlier
// call of the stream has left there. If the chunk is whole they are needed only for the moment.
static ttt__mat ttt__take_open(ttt__chunk_work *chunk, int64_t rows, int64_t cols) {
    rows += chunk->before;
    if (!chunk->whole && chunk->open.at)
        return ttt__rows_at(ttt__take(&chunk->open, chunk->arg->chunk, cols), 0, rows);
    chunk->open.used += cols;  // a measure: numbers of a token
    return ttt__take(&chunk->room, rows, cols);
}
// Asks the memory for the rows of a chunk while another one is computed: they lie apart, where no
// processor expects them.
static void ttt__ask_for(ttt__mat m) {
    enum { LINE = 64 / sizeof(ttt_real) };
    for (int64_t i = 0; m.at && i < m.rows; i++)
        for (int64_t j = 0; j < m.cols; j += LINE) TTT__PREFETCH(m.at + i * m.down + j);
}
static void ttt__chunk_ahead(const ttt__chunked *job, int64_t pair, int64_t from) {
    const ttt__chunked_arg *arg = job->arg;
    if (from < 0 || from >= arg->N || arg->chunk > TTT__TILE_TOKENS) return;
    ttt__chunk_work chunk =
        ttt__chunk_at(job, NULL, pair, from, TTT__MIN(arg->chunk, arg->N - from));
    for (int j = 0; j < job->arg->kind->of_tokens; j++) {
        ttt__ask_for(chunk.in[j]);
        ttt__ask_for(chunk.d_in[j]);
    }
    ttt__ask_for(chunk.d_y);
}
static int64_t ttt__segments(const ttt__chunked_arg *arg) {
    return (arg->chunks + arg->every - 1) / arg->every;
}
static ttt__mat ttt__kept_state(const ttt__chunked_arg *arg, int64_t pair, int64_t segment) {
    return ttt__rows_at(arg->states, pair * ttt__segments(arg) + segment, 1);
}

// All chunks of a pair, forwards.
static void ttt__chunked_read(const ttt__chunked *job, const ttt__kit *kit, ttt__room room,
                              int64_t pair) {
    const ttt__chunked_arg *arg = job->arg;
    ttt__mat state = ttt__take(&room, 1, job->state_size);
    for (int64_t i = 0; i < arg->chunks; i++) {
        ttt__chunk_work chunk = ttt__chunk_of(job, kit, pair, i);
        chunk.state = state.at;
        chunk.room = room;
        if (i == 0) ttt__clear(state);
        if (i == 0 && arg->kind->start) arg->kind->start(&chunk);
        if (arg->states.at && i % arg->every == 0)
            ttt__assign(ttt__kept_state(arg, pair, i / arg->every), state);
        chunk.room = room;
        ttt__chunk_ahead(job, pair, chunk.from + arg->chunk);
        arg->kind->forward(&chunk);
    }
}
// And backwards, a segment at a time. Its first state was kept; row i of `states` is that before
// its chunk i + 1.
static void ttt__chunked_read_back(const ttt__chunked *job, const ttt__kit *kit, ttt__room room,
                                   int64_t pair) {
    const ttt__chunked_arg *arg = job->arg;
    ttt__mat states = ttt__take(&room, arg->every - 1, job->state_size);
    ttt__mat d_state = ttt__take(&room, 1, job->state_size);
    ttt__clear(d_state);
    for (int64_t segment = ttt__segments(arg) - 1; segment >= 0; segment--) {
        int64_t first = segment * arg->every, count = TTT__MIN(arg->every, arg->chunks - first);
        ttt__mat state = ttt__kept_state(arg, pair, segment);
        for (int64_t i = 0; i + 1 < count; i++) {
            ttt__chunk_work chunk = ttt__chunk_of(job, kit, pair, first + i);
            ttt__assign(ttt__rows_at(states, i, 1), state);
            state = ttt__rows_at(states, i, 1);
            chunk.state = state.at;
            chunk.y = ttt__absent();
            chunk.room = room;
            arg->kind->forward(&chunk);
        }
        for (int64_t i = count - 1; i >= 0; i--) {
            ttt__chunk_work chunk = ttt__chunk_of(job, kit, pair, first + i);
            state = i > 0 ? ttt__rows_at(states, i - 1, 1) : ttt__kept_state(arg, pair, segment);
            chunk.state = state.at;
            chunk.d_state = d_state.at;
            chunk.room = room;
            ttt__chunk_ahead(job, pair, chunk.from - arg->chunk);
            arg->kind->backward(&chunk);
            chunk.room = room;
            if (first + i == 0 && arg->kind->start_back) arg->kind->start_back(&chunk);
        }
    }
}
// What a call does to the state of a lane: the weights are new if it begins or ends a chunk of its
// own; the open rows are others if it goes on behind that.
typedef struct ttt__lane {
    int64_t read, end;
    bool new_memory, new_open;
} ttt__lane;
static ttt__lane ttt__lane_of(const ttt__chunked_arg *arg, int64_t lane) {
    int64_t read = ttt__lane_read(arg->d.stream, lane);
    int64_t end = read + ttt__lane_new(arg->d.stream, lane);
    bool ends = end / arg->chunk > read / arg->chunk;
    ttt__lane of = { read, end, ends || (read == 0 && end > 0), ends && end % arg->chunk != 0 };
    return of;
}
// The new tokens of a pair. The rows of `open` behind those of the tokens read may be written at
// once; a chunk that only begins here has rows of its own, since the others may still be needed.
static void ttt__chunked_stream(const ttt__chunked *job, const ttt__kit *kit, ttt__room room,
                                int64_t pair) {
    const ttt__chunked_arg *arg = job->arg;
    ttt__lane lane = ttt__lane_of(arg, pair / arg->H);
    int64_t size = arg->chunk, read = lane.read, end = lane.end, rows;
    ttt__mat state = ttt__of(lane.new_memory ? job->next_memory : job->memory, pair);
    if (lane.new_memory && read > 0) ttt__assign(state, ttt__of(job->memory, pair));
    if (lane.new_memory && read == 0) ttt__clear(state);
    if (lane.new_open) ttt__clear(ttt__of(job->next_open, pair));
    for (int64_t at = read; at < end; at += rows) {
        rows = job->open.first.cols ? TTT__MIN(size - at % size, end - at) : end - at;
        ttt__chunk_work chunk = ttt__chunk_at(job, kit, pair, at - read, rows);
        chunk.before = at % size;
        chunk.last = (at + rows) % size != 0;
        chunk.whole = chunk.before == 0 && !chunk.last;
        chunk.state = state.at;
        chunk.room = room;
        if (at == 0 && arg->kind->start) arg->kind->start(&chunk);
        chunk.room = room;
        chunk.open.used = 0;
        chunk.open.at = ttt__of(at == read ? job->open : job->next_open, pair).at;
        ttt__chunk_ahead(job, pair, chunk.from + rows);
        arg->kind->forward(&chunk);
    }
    ttt__chunk_work rest = ttt__chunk_at(job, kit, pair, end - read, arg->N - (end - read));
    for (int64_t i = 0; i < rest.rows; i++) ttt__clear(ttt__rows_at(rest.y, i, 1));
}
static void ttt__chunked_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__chunked *job = (const ttt__chunked *)arg;
    ttt__kit kit = ttt__kit_of(job->ctx, thread);
    ttt__room room = { job->room + thread * job->room_size, 0 };
    for (int64_t pair = begin; pair < end; pair++)
        if (job->d_y) ttt__chunked_read_back(job, &kit, room, pair);
        else if (job->arg->d.stream) ttt__chunked_stream(job, &kit, room, pair);
        else ttt__chunked_read(job, &kit, room, pair);
}

// -- chunks: room, and the op
// A part of a stream's state, and, if some lane needs it, the room where its next one is made.
static ttt__stack ttt__state_stack(ttt_ctx *ctx, const ttt__stream_part *part, const char *name,
                                   ttt_shape shape, bool is_new, ttt__stack *next) {
    int64_t pairs = shape.dim[0] * shape.dim[1], size = 0;
    ttt_tensor *state = ttt__stream_state(ctx, part, name, shape, false);
    if (state && pairs > 0) size = state->size / pairs;
    *next = ttt__stacked(is_new ? ttt__alloc_numbers(ctx, pairs, size, true) : NULL, 1, size);
    return ttt__stacked(state ? state->data : NULL, 1, size);
}
// `width`: numbers of a token that `open` keeps.
static bool ttt__chunked_state(ttt__chunked *job, int64_t width) {
    const ttt__chunked_arg *arg = job->arg;
    const ttt__stream_part *part = arg->d.stream;
    bool new_memory = false, new_open = false;
    for (int64_t lane = 0; lane < arg->B; lane++) {
        new_memory = new_memory || ttt__lane_of(arg, lane).new_memory;
        new_open = new_open || ttt__lane_of(arg, lane).new_open;
    }
    job->memory = ttt__state_stack(job->ctx, part, "memory",
                                   TTT_SHAPE(arg->B, arg->H, job->state_size), new_memory,
                                   &job->next_memory);
    job->open = job->next_open = ttt__stacked(NULL, 1, 0);
    if (width > 0)
        job->open = ttt__state_stack(job->ctx, part, "open",
                                     TTT_SHAPE(arg->B, arg->H, arg->chunk, width), new_open,
                                     &job->next_open);
    return ttt_ok(job->ctx);
}
static void ttt__chunked_keep_state(const ttt__chunked *job) {
    const ttt__chunked_arg *arg = job->arg;
    const ttt__stream_part *part = arg->d.stream;
    for (int64_t b = 0; part && b < arg->B; b++) {
        ttt__lane lane = ttt__lane_of(arg, b);
        if (lane.new_memory)
            ttt__stream_write(job->ctx, part, ttt__of(job->memory, b * arg->H).at,
                              ttt__of(job->next_memory, b * arg->H).at,
                              arg->H * job->memory.apart);
        if (lane.new_open && job->open.apart > 0)
            ttt__stream_write(job->ctx, part, ttt__of(job->open, b * arg->H).at,
                              ttt__of(job->next_open, b * arg->H).at, arg->H * job->open.apart);
    }
}
// Room for each thread: of the longest chunk, and the states that go with it.
static bool ttt__chunked_begin(ttt__chunked *job, ttt_ctx *ctx, const ttt_tensor *node,
                               const ttt_tensor *d_y) {
    memset(job, 0, sizeof *job);
    job->ctx = ctx;
    job->node = node;
    job->arg = (const ttt__chunked_arg *)node->arg;
    job->d_y = d_y;
    ttt__kit kit = ttt__kit_of(ctx, 0);
    ttt__chunk_work chunk = ttt__chunk_of(job, &kit, 0, 0);
    chunk.whole = !job->arg->d.stream;
    if (!chunk.whole) chunk.before = job->arg->chunk - chunk.rows;
    job->arg->kind->take(&chunk);
    job->state_size = job->arg->kind->state_size(&chunk);
    job->room_size = chunk.room.used + (d_y ? job->arg->every : 1) * job->state_size;
    job->room = ttt__alloc_numbers(ctx, ctx->threads, job->room_size, false);
    return !ctx->result && (chunk.whole || ttt__chunked_state(job, chunk.open.used));
}
// States are kept for each chunk where that adds little to the inputs, else for so many that those
// of a segment and the kept ones are as few as may be.
static bool ttt__chunked_keep(ttt__chunked_arg *arg, const ttt__chunked *job) {
    ttt_ctx *ctx = job->ctx;
    int64_t size = job->state_size, numbers = 0, pairs = arg->B * arg->H;
    for (int i = 0; i < job->node->n_in; i++) numbers += job->node->in[i]->size;
    arg->every = 1;
    while (arg->every * arg->every < arg->chunks &&
           pairs * ttt__segments(arg) * size > numbers)
        arg->every++;
    int64_t rows = pairs * ttt__segments(arg);
    if (ctx->recording && !ctx->numbers_only)
        arg->states = ttt__matrix(ttt__alloc_numbers(ctx, rows, size, true), rows, size);
    return !ctx->result;
}
static void ttt__chunked_forward(ttt_ctx *ctx, ttt_tensor *y) {
    ttt__chunked_arg *arg = (ttt__chunked_arg *)(uintptr_t)y->arg;
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    ttt__chunked job;
    if (y->size > 0 && ttt__chunked_begin(&job, ctx, y, NULL) && ttt__chunked_keep(arg, &job))
        ttt__parallel(ctx, -1, arg->B * arg->H, 1, ttt__chunked_share, &job);
    if (y->size > 0 && !ctx->result) ttt__chunked_keep_state(&job);
    ttt__arena_release(&ctx->scratch, scratch);
}

// Where the pairs put gradients: those of tokens where they belong, those of parameters each pair
// into a part of its own.
static bool ttt__chunked_sums(ttt__chunked *job, ttt_real *const *sum) {
    const ttt__chunked_arg *arg = job->arg;
    for (int i = 0; i < TTT__CHUNKED_INPUTS; i++) {
        job->gradient[i] = sum[i];
        if (!sum[i] || i < arg->kind->of_tokens) continue;
        ttt__mat own = ttt__scratch(job->ctx, arg->B, job->node->in[(int)arg->input[i]]->size);
        ttt__clear(own);
        job->gradient[i] = own.at;
    }
    return !job->ctx->result;
}
// The gradient in a parameter is the sum over the sequences of those that the pairs found.
static void ttt__chunked_join(const ttt__chunked *job, int input, ttt_real *into) {
    int64_t size = job->node->in[(int)job->arg->input[input]]->size;
    ttt__kit kit = ttt__kit_of(job->ctx, 0);
    for (int64_t b = 0; b < job->arg->B; b++)
        ttt__plus(&kit, ttt__matrix(into, 1, size),
                  ttt__matrix(job->gradient[input] + b * size, 1, size));
}
static void ttt__chunked_back(ttt_ctx *ctx, ttt_tensor *y, const ttt_tensor *d_y,
                              ttt_tensor **into, const bool *add) {
    const ttt__chunked_arg *arg = (const ttt__chunked_arg *)y->arg;
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    ttt_real *sum[TTT__CHUNKED_INPUTS] = { NULL };
    ttt__chunked job;
    for (int i = 0; i < TTT__CHUNKED_INPUTS; i++)
        if (arg->input[i] >= 0) sum[i] = ttt__gradient_room(ctx, y, into, add, arg->input[i]);
    if (y->size > 0 && ttt__chunked_begin(&job, ctx, y, d_y) && ttt__chunked_sums(&job, sum)) {
        ttt__parallel(ctx, -1, arg->B * arg->H, 1, ttt__chunked_share, &job);
        for (int i = arg->kind->of_tokens; i < TTT__CHUNKED_INPUTS; i++)
            if (sum[i]) ttt__chunked_join(&job, i, sum[i]);
    }
    ttt__arena_release(&ctx->scratch, scratch);
}
static ttt_tensor *ttt__chunked_composite(ttt_ctx *ctx, ttt_tensor *const *in,
                                          const ttt_tensor *y) {
    const ttt__chunked_arg *arg = (const ttt__chunked_arg *)y->arg;
    ttt_tensor *by_number[TTT__CHUNKED_INPUTS];
    for (int i = 0; i < TTT__CHUNKED_INPUTS; i++)
        by_number[i] = arg->input[i] < 0 ? NULL : in[(int)arg->input[i]];
    return arg->kind->tape(ctx, &arg->d, by_number, arg->chunk);
}
static int64_t ttt__chunked_count(const ttt_tensor *y) {
    const ttt__chunked_arg *arg = (const ttt__chunked_arg *)y->arg;
    ttt__chunked job;
    if (y->size == 0) return 0;
    memset(&job, 0, sizeof job);
    job.node = y;
    job.arg = arg;
    ttt__chunk_work first = ttt__chunk_of(&job, NULL, 0, 0);
    ttt__chunk_work last = ttt__chunk_of(&job, NULL, 0, arg->chunks - 1);
    double of_pair = (double)(arg->chunks - 1) * arg->kind->flops(&first) +
                     arg->kind->flops(&last);
    return (int64_t)(of_pair * (double)(arg->B * arg->H));
}
#define TTT__CHUNKED_OP(name, formula)                                                             \
    { name, formula, -1, 0, 0, ttt__chunked_forward, NULL, ttt__chunked_composite,                 \
      ttt__chunked_back, ttt__chunked_count }

static ttt_tensor *ttt__chunked_as_op(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                      const ttt__chunked_kind *kind, ttt_tensor *const *in,
                                      int n, int64_t chunk) {
    ttt__chunked_arg arg;
    ttt_tensor *given[TTT__CHUNKED_INPUTS];
    if (!ttt_ok(ctx)) return &ctx->empty;
    memset(&arg, 0, sizeof arg);
    memset(arg.input, -1, sizeof arg.input);
    arg.input[0] = 0;
    int n_in = ttt__list_inputs(ctx, in[0], in + 1, n - 1, given, arg.input + 1);
    if (!ttt_ok(ctx)) return &ctx->empty;
    const int64_t *size = in[0]->shape.dim;
    if (desc->stream && chunk > 1 << 24)
        return ttt_fail(ctx, TTT_ERR_ARGUMENT,
                        "%s: .chunk = %lld; a stream, which keeps the tokens of a chunk, takes at "
                        "most %d", desc->mixer->name, (long long)chunk, 1 << 24);
    arg.kind = kind;
    arg.d = *desc;
    arg.B = size[0];
    arg.N = size[1];
    arg.H = size[2];
    arg.chunk = TTT__MAX(1, desc->stream ? chunk : TTT__MIN(chunk, arg.N));
    arg.chunks = (arg.N + arg.chunk - 1) / arg.chunk;
    return ttt_apply(ctx, &kind->op, given, n_in, in[0]->shape, &arg, sizeof arg);
}

// -- chunks: a matrix that is written token by token, see ttt__scan
// In the letters of ttt__scan, of one head, rows of matrices being the n tokens of a chunk; A o B
// is their product number by number, b o A that of each row with its number, < the part below the
// diagonal, <= that and the diagonal. D and G are absent, and 1, where nothing fades; beta is
// absent in linear attention: then U = V. In a stream K and U are those of all tokens of the chunk
// so far, but only the new ones ask, and get a row of U.
//   forward      A = (K K^T) o D <     L = beta o A      E = V - e^G o (K S)     P = (Q K^T) o D <=
//                (1 + L) U = beta o E                    K_D: what is left of K at the end
//                O = e^G o (Q S) + P U                   S' = e^G_n S + K_D^T U
//   backward     d_U = P^T d_O + K_D d_S'                d_R = (1 + L)^-T d_U
//     in P       d_P = d_O U^T <=                        d_Q += (d_P o D) K,  d_K += (d_P o D)^T Q
//     in L       d_L = -d_R U^T <                        M = beta o d_L o D
//                d_K += (M + M^T) K                      d_beta = <d_R, E> + <d_L, A>, row by row
//     in E       d_V += beta o d_R                       d_KS = -e^G o beta o d_R
//     reads      d_Q += (e^G o d_O) S^T                  d_K += d_KS S^T
//     writes     d_K += kept o (U d_S'^T)
//     in S       d_S = e^G_n d_S' + Q^T (e^G o d_O) + K^T d_KS
// Linear attention maps its queries and keys first, Q = elu(Q) + 1, and what is read is O / norm,
//                norm = Q s + P 1, row by row            s' = s + 1^T K
//   backward     d_O becomes d_O / norm                  d_norm = -<d_O, y> / norm
//                d_P += d_norm 1^T <=                    d_Q += d_norm s
//                d_K += 1 d_s'                           d_s = d_s' + d_norm^T Q
// or O / (N h), or O itself. A query all of whose features would vanish is shifted, see
// ttt__features; what shifts of keys would need is the tape's.
// The gradient in an exponent is that in the power times the power, X_ij for D_ij and x_i for
// e^G_i; since these exponents are the sums of g over tokens j + 1 .. i and 0 .. i,
//                d_g_m = the sum over i >= m of (x_i + the sum over j < m of X_ij)
// a sum over what really reaches across m, and no difference of large ones.
typedef struct ttt__scan_work {
    bool maps, divides;            // linear attention's
    ttt__mat S, s, d_S, d_s;       // the state and its gradient, (h,h) and (1,h)
    ttt__mat Q, V, E, norm;        // of the n new tokens: (n,h), norm (n,1)
    ttt__mat K, U, K_tr;           // of all tokens of the chunk: (all,h), (h,all)
    ttt__mat g, D, since;          // (all,1), (all,all), e^G (all,1); of the new ones:
    ttt__mat D_new, since_new;
    ttt__mat kept, K_D, spare;     // D's last row as a column; (all,h)
    ttt__mat P, A, L;              // (n,all)
    ttt__mat K_new, U_new;         // rows of K and U
    // backwards
    ttt__mat d_Q, d_K, d_U, d_O;   // (n,h); d_R and d_KS take the place of d_U
    ttt__mat U_tr, S_tr, d_norm;   // (h,n), (h,h), (n,1)
    ttt__mat rows;                 // for this and that (n,h)
    ttt__mat X, x, d_P;            // (n,n), (n,1); d_L and M take the place of d_P
} ttt__scan_work;
static bool ttt__scan_divides(const ttt__chunk_work *chunk) {
    return chunk->arg->d.normalizer == TTT_NORMALIZER_ADAPTIVE;
}
static int64_t ttt__scan_state(const ttt__chunk_work *chunk) {
    int64_t h = chunk->in[TTT__SCAN_V].cols;
    return h * h + (ttt__scan_divides(chunk) ? h : 0);
}
static ttt__scan_work ttt__scan_work_in(ttt__chunk_work *chunk) {
    int64_t n = chunk->rows, before = chunk->before, all = before + n;
    int64_t h = chunk->in[TTT__SCAN_V].cols;
    bool rule = chunk->in[TTT__SCAN_BETA].at != NULL, fades = chunk->in[TTT__SCAN_G].at != NULL;
    ttt__room *room = &chunk->room;
    ttt__scan_work work;
    ttt__mat *of_tokens_back[] = { &work.d_Q, &work.d_K, &work.d_U, &work.d_O, &work.rows };
    for (int i = 0; i < 5; i++) *of_tokens_back[i] = ttt__take_if(chunk->back, room, n, h);
    work.Q = ttt__take(room, n, h);
    work.K = ttt__take_open(chunk, n, h);
    work.U = ttt__take_open(chunk, n, h);
    work.g = fades ? ttt__take_open(chunk, n, 1) : ttt__absent();
    work.K_new = ttt__rows_at(work.K, before, n);
    work.U_new = ttt__rows_at(work.U, before, n);
    work.V = rule ? ttt__take(room, n, h) : work.U_new;
    work.spare = ttt__take(room, all, h);
    work.maps = !chunk->arg->d.identity_map;
    work.divides = ttt__scan_divides(chunk);
    work.S = ttt__matrix(chunk->state, h, h);
    work.s = ttt__matrix(work.divides && chunk->state ? chunk->state + h * h : NULL, 1, h);
    work.d_S = ttt__matrix(chunk->d_state, h, h);
    work.d_s = ttt__matrix(work.divides && chunk->d_state ? chunk->d_state + h * h : NULL, 1, h);
    work.K_tr = ttt__take(room, h, all);
    work.D = ttt__take_if(fades, room, all, all);
    work.since = ttt__take_if(fades, room, all, 1);
    work.D_new = fades ? ttt__rows_at(work.D, before, n) : ttt__absent();
    work.since_new = fades ? ttt__rows_at(work.since, before, n) : ttt__absent();
    work.kept = ttt__take_if(fades, room, all, 1);
    work.K_D = fades ? ttt__take(room, all, h) : work.K;
    work.P = ttt__take(room, n, all);
    work.A = ttt__take_if(rule, room, n, all);
    work.L = ttt__take_if(rule, room, n, all);
    work.E = ttt__take_if(rule, room, n, h);
    work.norm = ttt__take_if(work.divides, room, n, 1);
    work.d_norm = ttt__take_if(chunk->back && work.divides, room, n, 1);
    work.U_tr = ttt__take_if(chunk->back, room, h, n);
    work.S_tr = ttt__take_if(chunk->back, room, h, h);
    work.X = ttt__take_if(chunk->back && fades, room, n, n);
    work.x = ttt__take_if(chunk->back && fades, room, n, 1);
    work.d_P = ttt__take_if(chunk->back, room, n, n);
    return work;
}
static void ttt__scan_take(ttt__chunk_work *chunk) { (void)ttt__scan_work_in(chunk); }

// The logarithm by which row i of the queries is shifted: 0 unless all of its features are small.
static ttt_real ttt__query_shift(const ttt__chunk_work *chunk, int64_t i) {
    ttt__mat row = ttt__rows_at(chunk->in[TTT__SCAN_Q], i, 1);
    if (!ttt__all_small(&chunk->arg->d, row.at, row.cols, 1)) return 0;
    ttt_real most = ttt__log_small(&chunk->arg->d, row.at[0]);
    for (int64_t c = 1; c < row.cols; c++)
        most = TTT__MAX(most, ttt__log_small(&chunk->arg->d, row.at[c]));
    return most + 1;
}
// Shifts the queries before they are mapped; unmapped, their gradients like themselves.
static void ttt__shift_queries(const ttt__chunk_work *chunk, const ttt__scan_work *work,
                               ttt__mat Q) {
    for (int64_t i = 0; i < Q.rows && work->divides; i++) {
        ttt_real shift = ttt__query_shift(chunk, i), *row = Q.at + i * Q.down;
        int op = work->maps ? TTT__MAP_add_scalar : TTT__MAP_scale;
        if (shift != 0)
            chunk->kit->k->map[op](Q.cols, row, row,
                                   work->maps ? -shift : (ttt_real)exp(-(double)shift));
    }
}
static void ttt__scan_gather(const ttt__chunk_work *chunk, const ttt__scan_work *work) {
    const ttt__kit *kit = chunk->kit;
    ttt__gather(kit, work->Q, chunk->in[TTT__SCAN_Q]);
    ttt__gather(kit, work->K_new, chunk->in[TTT__SCAN_K]);
    ttt__gather(kit, work->V, chunk->in[TTT__SCAN_V]);
    ttt__shift_queries(chunk, work, work->Q);
    if (work->maps) kit->lk->elu1(ttt__numbers(work->Q), work->Q.at);
    if (work->maps) kit->lk->elu1(ttt__numbers(work->K_new), work->K_new.at);
    ttt__transpose(kit, work->K_tr, work->K);
}
// D, whose exponents are sums of their own, row i from the one above it; e^G; what is kept of each
// row of K at the end.
static void ttt__scan_decays(const ttt__chunk_work *chunk, const ttt__scan_work *work) {
    const ttt__kit *kit = chunk->kit;
    ttt__mat g = work->g, D = work->D, since = work->since;
    int64_t all = D.rows, before = chunk->before;
    if (!g.at) return;
    ttt__gather(kit, ttt__rows_at(g, before, chunk->rows), chunk->in[TTT__SCAN_G]);
    for (int64_t i = 0; i < all; i++) {
        ttt_real *row = D.at + i * all;
        if (i > 0) kit->k->map[TTT__MAP_add_scalar](i, row - all, row, g.at[i]);
        row[i] = 0;
        since.at[i] = i > 0 ? since.at[i - 1] + g.at[i] : g.at[i];
    }
    for (int64_t i = before; i < all; i++) kit->lk->fade(i + 1, D.at + i * all);
    ttt__clear_above(D, 1);
    kit->lk->fade(all, since.at);
    ttt__assign(work->kept, ttt__rows_at(D, all - 1, 1));
    ttt__scale_rows(kit, work->K_D, work->K, work->kept);
}
// The new rows of U, from beta o E in their place: what those before contribute is known.
static void ttt__scan_solve(const ttt__chunk_work *chunk, const ttt__scan_work *work) {
    const ttt__kit *kit = chunk->kit;
    int64_t before = chunk->before;
    if (before > 0) {
        ttt__scaled(kit, work->U_new, work->U_new, -1);
        ttt__add_product(kit, work->U_new, ttt__cols_at(work->L, 0, before),
                         ttt__rows_at(work->U, 0, before));
        ttt__scaled(kit, work->U_new, work->U_new, -1);
    }
    ttt__solve(kit, work->U_new, ttt__cols_at(work->L, before, chunk->rows), false);
}
// U, and what it is made of.
static void ttt__scan_values(const ttt__chunk_work *chunk, const ttt__scan_work *work) {
    const ttt__kit *kit = chunk->kit;
    ttt__mat beta = chunk->in[TTT__SCAN_BETA];
    if (!beta.at) return;                                           // U = V
    ttt__set_product(kit, work->E, work->K_new, work->S);
    ttt__scale_rows(kit, work->E, work->E, work->since_new);
    ttt__minus(kit, work->E, work->V, work->E);                     // E = V - e^G o (K S)
    ttt__set_lower_product(kit, work->A, work->K_new, work->K_tr, 0);
    if (work->D.at) ttt__times(kit, work->A, work->A, work->D_new);  // A = (K K^T) o D <
    ttt__scale_rows(kit, work->L, work->A, beta);                   // L = beta o A
    ttt__scale_rows(kit, work->U_new, work->E, beta);
    ttt__scan_solve(chunk, work);                                   // (1 + L) U = beta o E
}
static void ttt__scan_scores(const ttt__chunk_work *chunk, const ttt__scan_work *work) {
    ttt__set_lower_product(chunk->kit, work->P, work->Q, work->K_tr, 1);
    if (work->D.at) ttt__times(chunk->kit, work->P, work->P, work->D_new);  // P = (Q K^T) o D <=
    if (!work->divides) return;
    ttt__set_product(chunk->kit, work->norm, work->Q, ttt__transpose_of(work->s));
    for (int64_t i = 0; i < chunk->rows; i++)                           // norm = Q s + P 1
        work->norm.at[i] += (ttt_real)chunk->kit->k->sum(chunk->before + i + 1,
                                                         work->P.at + i * work->P.down);
}
// From rows of O to those of y, and from the gradients in these to those in O.
static void ttt__scan_normalize(const ttt__chunk_work *chunk, const ttt__scan_work *work,
                                ttt__mat rows) {
    double numbers = (double)chunk->arg->N * (double)rows.cols;
    bool constant = chunk->arg->d.normalizer == TTT_NORMALIZER_CONSTANT;
    for (int64_t i = 0; i < rows.rows && (constant || work->divides); i++) {
        ttt__mat row = ttt__rows_at(rows, i, 1);
        double norm = constant ? numbers : (double)work->norm.at[i];
        ttt__scaled(chunk->kit, row, row, (ttt_real)(1 / norm));
    }
}
static void ttt__scan_forward(ttt__chunk_work *chunk) {
    const ttt__kit *kit = chunk->kit;
    ttt__scan_work work = ttt__scan_work_in(chunk);
    ttt__scan_gather(chunk, &work);
    ttt__scan_decays(chunk, &work);
    ttt__scan_values(chunk, &work);
    if (chunk->y.at) {                                              // O = e^G o (Q S) + P U
        ttt__scan_scores(chunk, &work);
        ttt__set_product(kit, chunk->y, work.Q, work.S);
        ttt__scale_rows(kit, chunk->y, chunk->y, work.since_new);
        ttt__add_lower_product(kit, chunk->y, work.P, work.U, false, work.spare);
        ttt__scan_normalize(chunk, &work, chunk->y);
    }
    if (chunk->last) return;
    if (work.D.at) ttt__scaled(kit, work.S, work.S, work.since.at[work.since.rows - 1]);
    ttt__add_product(kit, work.S, ttt__transpose_of(work.K_D), work.U);  // S' = e^G_n S + K_D^T U
    ttt__add_row_sum(kit, work.s, work.K);                               // s' = s + 1^T K
}

// What tokens write into S', and what is left of S in it.
static void ttt__scan_write_back(const ttt__chunk_work *chunk, const ttt__scan_work *work) {
    const ttt__kit *kit = chunk->kit;
    int64_t last = chunk->rows - 1;
    ttt__set_product(kit, work->d_U, work->K_D, work->d_S);         // d_U = K_D d_S'
    ttt__set_product(kit, work->d_K, work->U, ttt__transpose_of(work->d_S));
    for (int64_t i = 0; i < chunk->rows && work->divides; i++)      // d_K += 1 d_s'
        ttt__plus(kit, ttt__rows_at(work->d_K, i, 1), work->d_s);
    if (!work->D.at) return;
    ttt__clear(work->X);
    ttt__clear(work->x);
    ttt__add_row_dots(kit, ttt__transpose_of(ttt__rows_at(work->X, last, 1)), work->K_D, work->d_K);
    ttt__scale_rows(kit, work->d_K, work->d_K, work->kept);         // d_K = kept o (U d_S'^T)
    ttt__scaled(kit, work->d_S, work->d_S, work->since.at[last]);   // d_S = e^G_n d_S'
    work->x.at[last] = (ttt_real)ttt__dot(kit, work->S, work->d_S);
}
// From d_y to d_O, and what y = O / norm does to the norm.
static void ttt__scan_normalize_back(const ttt__chunk_work *chunk, const ttt__scan_work *work) {
    ttt__gather(chunk->kit, work->d_O, chunk->d_y);
    ttt__scan_normalize(chunk, work, work->d_O);
    if (!work->divides) return;
    ttt__clear(work->d_norm);
    ttt__add_row_dots(chunk->kit, work->d_norm, work->d_O, chunk->y);
    ttt__scaled(chunk->kit, work->d_norm, work->d_norm, -1);            // d_norm = -<d_y, y> / norm
}
// norm = Q s + P 1 backwards
static void ttt__scan_norm_back(const ttt__chunk_work *chunk, const ttt__scan_work *work) {
    const ttt__kit *kit = chunk->kit;
    if (!work->divides) return;
    for (int64_t i = 0; i < chunk->rows; i++) {                         // d_P += d_norm 1^T <=
        ttt_real *row = work->d_P.at + i * work->d_P.down;
        kit->k->map[TTT__MAP_add_scalar](i + 1, row, row, work->d_norm.at[i]);
    }
    ttt__add_product(kit, work->d_Q, work->d_norm, work->s);            // d_Q += d_norm s
    ttt__add_product(kit, work->d_s, ttt__transpose_of(work->d_norm), work->Q);
}
// What tokens X, queries or keys, read of S: d_X = d_read S^T, d_S += X^T d_read
static void ttt__scan_read_back(const ttt__kit *kit, const ttt__scan_work *work, ttt__mat X,
                                ttt__mat d_read, ttt__mat d_X) {
    ttt__set_product(kit, d_X, d_read, work->S_tr);
    ttt__add_row_dots(kit, work->x, X, d_X);
    ttt__add_product(kit, work->d_S, ttt__transpose_of(X), d_read);
}
// d_U += P^T d_O;  d_Q = (e^G o d_O) S^T + (d_P o D) K;  d_K += (d_P o D)^T Q
static void ttt__scan_scores_back(const ttt__chunk_work *chunk, const ttt__scan_work *work) {
    const ttt__kit *kit = chunk->kit;
    ttt__add_lower_product(kit, work->d_U, work->P, work->d_O, true, work->spare);
    ttt__set_lower_product(kit, work->d_P, work->d_O, work->U_tr, 1);
    if (work->D.at) {
        ttt__add_times(kit, work->X, work->d_P, work->P);
        ttt__times(kit, work->d_P, work->d_P, work->D);
    }
    ttt__scale_rows(kit, work->d_O, work->d_O, work->since);
    ttt__scan_read_back(kit, work, work->Q, work->d_O, work->d_Q);
    ttt__scan_norm_back(chunk, work);
    ttt__add_lower_product(kit, work->d_Q, work->d_P, work->K, false, work->spare);
    ttt__add_lower_product(kit, work->d_K, work->d_P, work->Q, true, work->spare);
}
// From d_U to what U is made of, d_V excepted.
static void ttt__scan_values_back(const ttt__chunk_work *chunk, const ttt__scan_work *work) {
    const ttt__kit *kit = chunk->kit;
    ttt__mat d_R = work->d_U, d_L = work->d_P, M = d_L, d_KS = work->rows;
    ttt__mat beta = chunk->in[TTT__SCAN_BETA], d_beta = chunk->d_in[TTT__SCAN_BETA];
    if (!beta.at) return;
    ttt__solve(kit, d_R, work->L, true);                            // d_R = (1 + L)^-T d_U
    ttt__add_row_dots(kit, d_beta, d_R, work->E);
    ttt__set_lower_product(kit, d_L, d_R, work->U_tr, 0);
    ttt__scaled(kit, d_L, d_L, -1);                                 // d_L = -d_R U^T <
    ttt__add_row_dots(kit, d_beta, d_L, work->A);
    if (work->D.at) ttt__add_times(kit, work->X, d_L, work->L);
    ttt__scale_rows(kit, M, d_L, beta);
    if (work->D.at) ttt__times(kit, M, M, work->D);                 // M = beta o d_L o D
    ttt__add_lower_product(kit, work->d_K, M, work->K, false, work->spare);
    ttt__add_lower_product(kit, work->d_K, M, work->K, true, work->spare);
    ttt__scale_rows(kit, d_R, d_R, beta);
    ttt__scaled(kit, d_KS, d_R, -1);
    ttt__scale_rows(kit, d_KS, d_KS, work->since);
    ttt__scan_read_back(kit, work, work->K, d_KS, work->spare);
    ttt__plus(kit, work->d_K, work->spare);
}
// d_g_m = the sum over i >= m of (x_i + the sum over j < m of X_ij); x gathers the inner sums.
static void ttt__scan_decays_back(const ttt__chunk_work *chunk, const ttt__scan_work *work) {
    const ttt__kit *kit = chunk->kit;
    ttt__mat d_g = chunk->d_in[TTT__SCAN_G], X_tr = work->P;
    if (!d_g.at) return;
    ttt__transpose(kit, X_tr, work->X);
    for (int64_t m = 0, n = chunk->rows; m < n; m++) {
        d_g.at[m * d_g.down] += (ttt_real)kit->k->sum(n - m, work->x.at + m);
        ttt__plus(kit, ttt__transpose_of(work->x), ttt__rows_at(X_tr, m, 1));
    }
}
static void ttt__scan_backward(ttt__chunk_work *chunk) {
    const ttt__kit *kit = chunk->kit;
    ttt__scan_work work = ttt__scan_work_in(chunk);
    ttt__scan_gather(chunk, &work);
    ttt__scan_decays(chunk, &work);
    ttt__scan_values(chunk, &work);
    ttt__scan_scores(chunk, &work);
    ttt__scan_normalize_back(chunk, &work);
    ttt__transpose(kit, work.U_tr, work.U);
    ttt__transpose(kit, work.S_tr, work.S);
    ttt__scan_write_back(chunk, &work);
    ttt__scan_scores_back(chunk, &work);
    ttt__scan_values_back(chunk, &work);
    ttt__scan_decays_back(chunk, &work);
    if (work.maps) kit->lk->elu1_back(ttt__numbers(work.Q), work.Q.at, work.d_Q.at);
    else ttt__shift_queries(chunk, &work, work.d_Q);
    if (work.maps) kit->lk->elu1_back(ttt__numbers(work.K), work.K.at, work.d_K.at);
    ttt__add_rows(kit, chunk->d_in[TTT__SCAN_Q], work.d_Q);
    ttt__add_rows(kit, chunk->d_in[TTT__SCAN_K], work.d_K);
    ttt__add_rows(kit, chunk->d_in[TTT__SCAN_V], work.d_U);         // d_V = beta o d_R
}
// K K^T, Q K^T, U twice; three products with S. Linear attention has half of that.
static double ttt__scan_chunk_flops(const ttt__chunk_work *chunk) {
    bool rule = chunk->in[TTT__SCAN_BETA].at != NULL;
    double n = (double)chunk->rows, h = (double)chunk->in[TTT__SCAN_V].cols;
    double states = (rule ? 2 : 1) + !chunk->last;  // reads, and the write
    return 2 * n * h * ((rule ? 4 : 2) * n + states * h);
}
static const ttt__chunked_kind ttt__scan_kind = {
    TTT__CHUNKED_OP("token by token", "S_t = e^g_t S_t-1 + k_t^T u_t, y_t = q_t S_t"),
    TTT__SCAN_INPUTS, ttt__scan_state, ttt__scan_take, NULL, NULL, ttt__scan_forward,
    ttt__scan_backward, ttt__scan_chunk_flops, ttt__scan_tape,
};
// With a decay for each channel of the keys a stream goes token by token: every token ends a chunk,
// so nothing is kept open, and any number of tokens is taken at once.
static void ttt__channels_forward(ttt__chunk_work *chunk) {
    const ttt__mat *in = chunk->in;
    int64_t h = in[TTT__SCAN_V].cols;
    ttt__mat kept = ttt__take(&chunk->room, 1, h);
    for (int64_t t = 0; t < chunk->rows && kept.at; t++) {
        ttt__delta_token of = { h, kept.at, ttt__rows_at(in[TTT__SCAN_K], t, 1).at,
                                ttt__rows_at(in[TTT__SCAN_V], t, 1).at,
                                ttt__rows_at(in[TTT__SCAN_Q], t, 1).at,
                                *ttt__rows_at(in[TTT__SCAN_BETA], t, 1).at, chunk->state,
                                ttt__rows_at(chunk->y, t, 1).at };
        ttt__assign(kept, ttt__rows_at(in[TTT__SCAN_G], t, 1));
        chunk->kit->lk->fade(h, kept.at);
        chunk->kit->lk->delta(&of);
    }
}
static double ttt__channels_flops(const ttt__chunk_work *chunk) {
    double h = (double)chunk->in[TTT__SCAN_V].cols;
    return 7 * (double)chunk->rows * h * h;
}
static const ttt__chunked_kind ttt__channels_kind = {
    TTT__CHUNKED_OP("token by token, each channel", "S_t = e^g_t S_t-1 + k_t^T u_t, y_t = q_t S_t"),
    TTT__SCAN_INPUTS, ttt__scan_state, ttt__channels_forward, NULL, NULL, ttt__channels_forward,
    NULL, ttt__channels_flops, ttt__scan_tape,
};
// The delta rule's queries and keys are mapped before, and O is its answer.
static ttt_tensor *ttt__scan_as_op(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *in,
                                   int64_t chunk) {
    ttt_mixer_desc plain = *desc;
    plain.identity_map = true;
    plain.normalizer = TTT_NORMALIZER_NONE;
    bool channels = in[TTT__SCAN_G] && ttt_ok(ctx) && in[TTT__SCAN_G]->shape.dim[3] != 1;
    if (channels && !desc->stream) return NULL;
    return ttt__chunked_as_op(ctx, &plain, channels ? &ttt__channels_kind : &ttt__scan_kind, in,
                              TTT__SCAN_INPUTS, channels ? 1 : chunk);
}
static const ttt__chunked_kind ttt__causal_linear_kind = {
    TTT__CHUNKED_OP("causal linear attention", "y_t = q_t S_t / q_t s_t, S_t = S_t-1 + k_t^T v_t"),
    TTT__SCAN_INPUTS, ttt__scan_state, ttt__scan_take, NULL, NULL, ttt__scan_forward,
    ttt__scan_backward, ttt__scan_chunk_flops, ttt__linear_tape,
};
// Where keys have to be shifted is known from their first token: R is 0 from there on, or not. A
// stream takes it for 0: it gives 0/0 where all features of all keys so far are too small.
static ttt_tensor *ttt__causal_linear_as_op(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                            ttt_tensor *const *in, int64_t chunk) {
    const ttt_tensor *k = in[TTT__SCAN_K];
    if (!desc->causal) return NULL;
    int64_t first = ttt_ok(ctx) && desc->normalizer == TTT_NORMALIZER_ADAPTIVE && !desc->stream
                        ? k->shape.dim[2] * k->shape.dim[3] : 0;
    for (int64_t i = 0; i < first * k->shape.dim[0] && k->size > 0; i++)
        if (ttt__log_small(desc, k->data[i / first * first * k->shape.dim[1] + i % first]) != 0)
            return NULL;
    return ttt__chunked_as_op(ctx, desc, &ttt__causal_linear_kind, in, TTT__SCAN_INPUTS, chunk);
}

// -- chunks: focused linear attention, see ttt__means_tape. All tokens are one chunk: the state is
// what it begins with, the means of all keys and values. Tokens go through in tiles.
//   start        C = 1/N K^T V,  s = 1/N 1^T K
//   forward      y = (Q C) / norm, row by row, norm = Q s + 1e-6
//   backward     d_U = d_y / norm               R = d_U C^T        d_norm = -<R, Q> / norm
//                d_Q += R + d_norm s            d_C += Q^T d_U     d_s += d_norm^T Q
//   start_back   d_K += 1/N (V d_C^T + 1 d_s)   d_V += 1/N K d_C
enum { TTT__MEANS_TILE = 64 };
typedef struct ttt__means_work {
    ttt__mat C, s, d_C, d_s;       // the state and its gradient: (h,h), (1,h)
    ttt__mat inverse, d_norm;      // of a tile: 1 / norm; (rows,1)
    ttt__mat d_U, R;               // (rows,h)
} ttt__means_work;
static int64_t ttt__means_state(const ttt__chunk_work *chunk) {
    int64_t h = chunk->in[TTT__MEANS_K].cols;
    return h * h + h;
}
static ttt__means_work ttt__means_work_in(ttt__chunk_work *chunk) {
    int64_t h = chunk->in[TTT__MEANS_K].cols;
    ttt__room *room = &chunk->room, state = { chunk->state, 0 }, d_state = { chunk->d_state, 0 };
    ttt__means_work work;
    work.C = ttt__take(&state, h, h);
    work.s = ttt__take(&state, 1, h);
    work.d_C = ttt__take(&d_state, h, h);
    work.d_s = ttt__take(&d_state, 1, h);
    work.inverse = ttt__take(room, TTT__MEANS_TILE, 1);
    work.d_norm = ttt__take(room, TTT__MEANS_TILE, 1);
    work.d_U = ttt__take(room, TTT__MEANS_TILE, h);
    work.R = ttt__take(room, TTT__MEANS_TILE, h);
    return work;
}
static void ttt__means_take(ttt__chunk_work *chunk) { (void)ttt__means_work_in(chunk); }

static void ttt__means_start(ttt__chunk_work *chunk) {
    const ttt__kit *kit = chunk->kit;
    ttt__means_work work = ttt__means_work_in(chunk);
    ttt_real over_n = 1 / (ttt_real)chunk->rows;
    int64_t from, rows;
    for (int64_t i = 0; (rows = ttt__piece(chunk->rows, TTT__MEANS_TILE, i, &from)) > 0; i++) {
        ttt__mat K = ttt__rows_at(chunk->in[TTT__MEANS_K], from, rows);
        ttt__mat V = ttt__rows_at(chunk->in[TTT__MEANS_V], from, rows);
        ttt__add_product(kit, work.C, ttt__transpose_of(K), V);
        ttt__add_row_sum(kit, work.s, K);
    }
    ttt__scaled(kit, work.C, work.C, over_n);                           // C = 1/N K^T V
    ttt__scaled(kit, work.s, work.s, over_n);                           // s = 1/N 1^T K
}
// 1 / norm of each row
static ttt__mat ttt__means_inverse(const ttt__kit *kit, const ttt__means_work *work, ttt__mat Q) {
    ttt__mat inverse = ttt__rows_at(work->inverse, 0, Q.rows);
    for (int64_t i = 0; i < Q.rows; i++)
        inverse.at[i] = (ttt_real)(1 / (ttt__dot(kit, ttt__rows_at(Q, i, 1), work->s) + 1e-6));
    return inverse;
}
static void ttt__means_forward(ttt__chunk_work *chunk) {
    const ttt__kit *kit = chunk->kit;
    ttt__means_work work = ttt__means_work_in(chunk);
    int64_t from, rows;
    for (int64_t i = 0; (rows = ttt__piece(chunk->rows, TTT__MEANS_TILE, i, &from)) > 0; i++) {
        ttt__mat Q = ttt__rows_at(chunk->in[TTT__MEANS_Q], from, rows);
        ttt__mat y = ttt__rows_at(chunk->y, from, rows);
        ttt__set_product(kit, y, Q, work.C);
        ttt__scale_rows(kit, y, y, ttt__means_inverse(kit, &work, Q));  // y = (Q C) / norm
    }
}
static void ttt__means_backward(ttt__chunk_work *chunk) {
    const ttt__kit *kit = chunk->kit;
    ttt__means_work work = ttt__means_work_in(chunk);
    int64_t from, rows;
    for (int64_t i = 0; (rows = ttt__piece(chunk->rows, TTT__MEANS_TILE, i, &from)) > 0; i++) {
        ttt__mat Q = ttt__rows_at(chunk->in[TTT__MEANS_Q], from, rows);
        ttt__mat d_Q = ttt__rows_at(chunk->d_in[TTT__MEANS_Q], from, rows);
        ttt__mat d_U = ttt__rows_at(work.d_U, 0, rows), R = ttt__rows_at(work.R, 0, rows);
        ttt__mat inverse = ttt__means_inverse(kit, &work, Q);
        ttt__mat d_norm = ttt__rows_at(work.d_norm, 0, rows);
        ttt__scale_rows(kit, d_U, ttt__rows_at(chunk->d_y, from, rows), inverse);
        ttt__set_product(kit, R, d_U, ttt__transpose_of(work.C));       // R = d_U C^T
        ttt__clear(d_norm);
        ttt__add_row_dots(kit, d_norm, R, Q);
        ttt__times(kit, d_norm, d_norm, inverse);
        ttt__scaled(kit, d_norm, d_norm, -1);                           // d_norm = -<R, Q> / norm
        ttt__add_rows(kit, d_Q, R);
        ttt__add_product(kit, d_Q, d_norm, work.s);                     // d_Q += R + d_norm s
        ttt__add_product(kit, work.d_C, ttt__transpose_of(Q), d_U);
        ttt__add_product(kit, work.d_s, ttt__transpose_of(d_norm), Q);
    }
}
static void ttt__means_start_back(ttt__chunk_work *chunk) {
    const ttt__kit *kit = chunk->kit;
    ttt__means_work work = ttt__means_work_in(chunk);
    ttt_real over_n = 1 / (ttt_real)chunk->rows;
    int64_t from, rows;
    ttt__scaled(kit, work.d_C, work.d_C, over_n);
    ttt__scaled(kit, work.d_s, work.d_s, over_n);
    for (int64_t i = 0; (rows = ttt__piece(chunk->rows, TTT__MEANS_TILE, i, &from)) > 0; i++) {
        ttt__mat K = ttt__rows_at(chunk->in[TTT__MEANS_K], from, rows);
        ttt__mat V = ttt__rows_at(chunk->in[TTT__MEANS_V], from, rows);
        ttt__mat d_K = ttt__rows_at(chunk->d_in[TTT__MEANS_K], from, rows);
        ttt__mat d_V = ttt__rows_at(chunk->d_in[TTT__MEANS_V], from, rows), R;
        R = ttt__rows_at(work.R, 0, rows);
        ttt__affine(kit, R, V, ttt__transpose_of(work.d_C), work.d_s);
        ttt__add_rows(kit, d_K, R);                                     // d_K += V d_C^T + 1 d_s
        ttt__add_product(kit, d_V, K, work.d_C);                        // d_V += K d_C
    }
}
static double ttt__means_flops(const ttt__chunk_work *chunk) {
    double n = (double)chunk->rows, h = (double)chunk->in[TTT__MEANS_K].cols;
    return 2 * n * h * (2 * h + 2);
}
static const ttt__chunked_kind ttt__means_kind = {
    TTT__CHUNKED_OP("means", "y = q (mean k^T v) / (q mean k + 1e-6)"),
    TTT__MEANS_INPUTS, ttt__means_state, ttt__means_take, ttt__means_start, ttt__means_start_back,
    ttt__means_forward, ttt__means_backward, ttt__means_flops, ttt__means_tape,
};
static ttt_tensor *ttt__means_as_op(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *in,
                                    int64_t chunk) {
    return ttt__chunked_as_op(ctx, desc, &ttt__means_kind, in, TTT__MEANS_INPUTS, chunk);
}

// -- chunks: a gated unit that is written a large chunk at a time, see LaCT and ViTTT
// LaCT's learner is f(x) = s W_1 with s = a o u, a = SiLU(z), z = x W_0, u = x W_2. ViTTT's has no
// last layer, f(x) = s: where W_1 is absent, so is all it takes part in. A chunk writes sums over
// its tokens, with a rate for each weight and token (ViTTT: one for all, -1/(3N)):
//   G_0 = K^T P_0    G_2 = K^T P_2    G_1 = P_1^T V
//   P_0 = r_0 back o u o SiLU'(z)     P_2 = r_2 back o a      P_1 = r_1 a o u      back = V W_1^T
// (ViTTT: back = V). A causal chunk is read with the weights that it finds, and then written; else
// all tokens are written into the first state, by `start`. Each column x of X gets a length:
//   LaCT   M' = mean(m) M + G    X = W + O     W' = X by,      by = L / (|x| + 1e-5)
//   ViTTT                        X = G         W' = W + X by,  by = -1 / (|x| + 1)
// O is M' or, with .muon, M' made orthogonal. L: how long the columns of W were at first. W_0 and
// W_2 lie side by side, "gates", as z and u do; W_1 is "last". A chunk goes through in tiles, so
// its length is no matter of memory; what a tile makes on the way forwards it makes again on the
// way back.
//
//   ttt__glu_...   one call is   reads                       writes
//     start        a pair        the parameters [Q .. r]     W, L [and M, X]
//     forward      a chunk       Q, W [K, V, r, m]           y [W, M, X]
//     backward     a chunk       d_y, Q, W, d_W' ..          d_Q, d_W [d_K, d_V, d_r, d_m ..]
//     start_back   a pair        d_W, d_L                    d_W_0 .. [d_K, d_V, d_r]
// [written: in forward if causal, in start if not]
typedef struct ttt__glu_weights {
    ttt__mat gates, last;              // (h,2h), (h,h)
    ttt__mat all;                      // both as one row
} ttt__glu_weights;
typedef struct ttt__glu_state {
    ttt__glu_weights W, M;
    ttt__glu_weights X;                // of the last write; no input of the next
    ttt__glu_weights L;                // (1,2h), (1,h)
} ttt__glu_state;
static ttt__glu_weights ttt__glu_take(ttt__room *room, const ttt__chunk_work *chunk, int64_t rows) {
    bool has_last = chunk->in[TTT__GLU_W1].at != NULL;
    int64_t h = chunk->in[TTT__GLU_Q].cols;
    ttt__glu_weights weights;
    weights.gates = ttt__take(room, rows, 2 * h);
    weights.last = ttt__take_if(has_last, room, rows, h);
    weights.all = ttt__matrix(weights.gates.at, 1, rows * (has_last ? 3 * h : 2 * h));
    return weights;
}
static ttt__glu_state ttt__glu_state_in(const ttt__chunk_work *chunk, ttt__room *room) {
    ttt__glu_state state;
    int64_t h = chunk->in[TTT__GLU_Q].cols;
    state.W = ttt__glu_take(room, chunk, h);
    state.M = ttt__glu_take(room, chunk, h);
    state.X = ttt__glu_take(room, chunk, h);
    state.L = ttt__glu_take(room, chunk, 1);
    return state;
}
// Its matrices one by one: W_0, W_2 and, if there is one, W_1, or what lies in their places; and
// those of the parameters.
static ttt__mat ttt__glu_matrix(const ttt__glu_weights *weights, int i) {
    int64_t h = weights->gates.cols / 2;
    return i < 2 ? ttt__cols_at(weights->gates, i * h, h) : weights->last;
}
static ttt__mat ttt__glu_parameter(const ttt__mat *in, int i) {
    static const int number[3] = { TTT__GLU_W0, TTT__GLU_W2, TTT__GLU_W1 };
    return in[number[i]];
}
static int ttt__glu_matrices(const ttt__glu_weights *weights) { return weights->last.at ? 3 : 2; }
static int64_t ttt__glu_state_size(const ttt__chunk_work *chunk) {
    ttt__room measure = { NULL, 0 };
    (void)ttt__glu_state_in(chunk, &measure);
    return measure.used;
}

typedef struct ttt__glu_work {
    ttt__glu_state S, d_S;
    ttt__glu_weights G;                // and d_G
    ttt__mat gates_tr, last_tr;        // of the weights at work
    ttt__mat G_gates_tr, G_last_tr;    // of d_G
    ttt__mat by, dots;                 // (1,2h)
    ttt__mat zu, s, back, d_zu, d_s;   // of a tile
    ttt__mat rate, lost;               // ViTTT's rates of a token, and where their gradients go
    ttt__mat Z[TTT__MUON_STEPS + 1];   // .muon: (h,h), before each step and at last
    ttt__mat A, T, B, d_A, d_B, Z_tr;  // (h,h)
    ttt__glu_state other;              // backwards: before the write or after it
} ttt__glu_work;
static ttt__glu_work ttt__glu_work_in(ttt__chunk_work *chunk) {
    int64_t n = TTT__TILE_TOKENS, h = chunk->in[TTT__GLU_Q].cols;
    bool back = chunk->back, has_last = chunk->in[TTT__GLU_W1].at != NULL;
    ttt__room state = { chunk->state, 0 }, d_state = { chunk->d_state, 0 }, *room = &chunk->room;
    ttt__glu_work work;
    memset(&work, 0, sizeof work);
    work.S = ttt__glu_state_in(chunk, &state);
    work.d_S = ttt__glu_state_in(chunk, &d_state);
    work.G = ttt__glu_take(room, chunk, h);
    work.gates_tr = ttt__take(room, 2 * h, h);
    work.last_tr = ttt__take_if(has_last, room, h, h);
    work.by = ttt__take(room, 1, 2 * h);
    work.zu = ttt__take(room, n, 2 * h);
    work.s = ttt__take(room, n, h);
    work.back = ttt__take_if(has_last, room, n, h);
    work.rate = ttt__take(room, 1, 3);
    if (work.rate.at)
        for (int i = 0; i < 3; i++) work.rate.at[i] = ttt__vittt_rate(chunk->arg->N);
    ttt__mat *of_muon[] = { &work.A, &work.T, &work.B, &work.d_A, &work.d_B, &work.Z_tr };
    for (int i = 0; i < 6; i++) *of_muon[i] = ttt__take_if(chunk->arg->d.muon, room, h, h);
    for (int i = 0; i <= TTT__MUON_STEPS; i++)
        work.Z[i] = ttt__take_if(chunk->arg->d.muon, room, h, h);
    if (!back) return work;
    work.G_gates_tr = ttt__take(room, 2 * h, h);
    work.G_last_tr = ttt__take_if(has_last, room, h, h);
    work.dots = ttt__take(room, 1, 2 * h);
    work.d_zu = ttt__take(room, n, 2 * h);
    work.d_s = ttt__take(room, n, h);
    work.lost = ttt__take(room, 1, 3);
    work.other = ttt__glu_state_in(chunk, room);
    return work;
}
// All tokens of the chunk. In a stream what they write is kept until it is full.
static ttt__chunk_work ttt__glu_written(ttt__chunk_work *chunk) {
    ttt__chunk_work all = *chunk;
    if (chunk->whole) return all;
    all.rows += chunk->before;
    all.y = ttt__absent();
    for (int i = TTT__GLU_K; i <= TTT__GLU_MOMENTUM; i++) {
        ttt__mat news = chunk->in[i];
        all.in[i] = ttt__take_open(chunk, chunk->rows, news.cols);
        if (all.in[i].at)
            ttt__gather(chunk->kit, ttt__rows_at(all.in[i], chunk->before, news.rows), news);
    }
    all.in[TTT__GLU_Q] = all.in[TTT__GLU_K];
    return all;
}
static void ttt__glu_take_all(ttt__chunk_work *chunk) {
    (void)ttt__glu_work_in(chunk);
    (void)ttt__glu_written(chunk);
}
static void ttt__glu_transpose(const ttt__kit *kit, ttt__mat gates_tr, ttt__mat last_tr,
                               const ttt__glu_weights *W) {
    ttt__transpose(kit, gates_tr, W->gates);
    if (W->last.at) ttt__transpose(kit, last_tr, W->last);
}

// A tile's views and answers, and what the routines are told of it.
typedef struct ttt__glu_tile {
    ttt__mat q, k, v, y, d_q, d_k, d_v, d_y, zu, s, back, d_zu, d_s;
    ttt__glu_rows of;
} ttt__glu_tile;
static ttt__glu_tile ttt__glu_tile_of(const ttt__chunk_work *chunk, const ttt__glu_work *work,
                                      int64_t from, int64_t rows) {
    const ttt__mat *in = chunk->in, *d_in = chunk->d_in;
    ttt__mat rates = in[TTT__GLU_RATES], d_rates = d_in[TTT__GLU_RATES];
    ttt__glu_tile tile;
    tile.q = ttt__rows_at(in[TTT__GLU_Q], from, rows);
    tile.k = ttt__rows_at(in[TTT__GLU_K], from, rows);
    tile.v = ttt__rows_at(in[TTT__GLU_V], from, rows);
    tile.y = ttt__rows_or(chunk->y, from, rows, ttt__absent());
    tile.d_q = ttt__rows_or(d_in[TTT__GLU_Q], from, rows, ttt__absent());
    tile.d_k = ttt__rows_or(d_in[TTT__GLU_K], from, rows, ttt__absent());
    tile.d_v = ttt__rows_or(d_in[TTT__GLU_V], from, rows, ttt__absent());
    tile.d_y = ttt__rows_or(chunk->d_y, from, rows, ttt__absent());
    tile.zu = ttt__rows_at(work->zu, 0, rows);
    tile.s = ttt__rows_at(work->s, 0, rows);
    tile.back = work->back.at ? ttt__rows_at(work->back, 0, rows) : tile.v;
    tile.d_zu = chunk->back ? ttt__rows_at(work->d_zu, 0, rows) : ttt__absent();
    tile.d_s = chunk->back ? ttt__rows_at(work->d_s, 0, rows) : ttt__absent();
    rates = rates.at ? ttt__rows_at(rates, from, rows) : work->rate;
    d_rates = d_rates.at ? ttt__rows_at(d_rates, from, rows) : work->lost;
    ttt__glu_rows of = { rows, tile.q.cols, tile.zu.at, tile.d_zu.at, tile.s.at, tile.d_s.at,
                         tile.back.at, rates.at, d_rates.at, tile.s.down, tile.d_s.down,
                         tile.back.down, rates.rows > 1 || rows == 1 ? rates.down : 0,
                         d_rates.rows > 1 || rows == 1 ? d_rates.down : 0 };
    tile.of = of;
    return tile;
}

// y = f(q)
static void ttt__glu_read_tile(const ttt__kit *kit, const ttt__glu_work *work,
                               ttt__glu_tile *tile) {
    const ttt__glu_weights *W = &work->S.W;
    ttt__set_product(kit, tile->zu, tile->q, W->gates);
    if (!W->last.at) tile->of.s = tile->y.at, tile->of.s_down = tile->y.down;
    kit->lk->glu_read(&tile->of);
    if (W->last.at) ttt__set_product(kit, tile->y, tile->s, W->last);
}
// d_s = d_y W_1^T, d_W_1 += s^T d_y, d_q += [d_z d_u] [W_0 W_2]^T, d_[W_0 W_2] += q^T [d_z d_u]
static void ttt__glu_read_back_tile(const ttt__kit *kit, const ttt__glu_work *work,
                                    ttt__glu_tile *tile) {
    const ttt__glu_weights *W = &work->S.W, *d_W = &work->d_S.W;
    ttt__set_product(kit, tile->zu, tile->q, W->gates);
    if (W->last.at) ttt__set_product(kit, tile->d_s, tile->d_y, work->last_tr);
    else tile->of.d_s = tile->d_y.at, tile->of.d_s_down = tile->d_y.down;
    kit->lk->glu_read_back(&tile->of);
    ttt__mat d_zu = tile->zu;
    if (W->last.at) ttt__add_product(kit, d_W->last, ttt__transpose_of(tile->s), tile->d_y);
    ttt__add_product(kit, tile->d_q, d_zu, work->gates_tr);
    ttt__add_product(kit, d_W->gates, ttt__transpose_of(tile->q), d_zu);
}
// What the weights W push: G += .
static void ttt__glu_push_tile(const ttt__kit *kit, const ttt__glu_work *work,
                               const ttt__glu_weights *W, ttt__glu_tile *tile) {
    ttt__set_product(kit, tile->zu, tile->k, W->gates);
    if (W->last.at) ttt__set_product(kit, tile->back, tile->v, work->last_tr);
    kit->lk->glu_push(&tile->of);
    ttt__mat P = tile->zu, P_1 = tile->s;
    ttt__add_product(kit, work->G.gates, ttt__transpose_of(tile->k), P);
    if (W->last.at) ttt__add_product(kit, work->G.last, ttt__transpose_of(P_1), tile->v);
}
// d_P_0, d_P_2 = K d_G_0, K d_G_2;  d_P_1 = V d_G_1^T;  then, with the routine's d_z, d_u, d_back,
//   d_K += P d_G^T + [d_z d_u] [W_0 W_2]^T     d_[W_0 W_2] += K^T [d_z d_u]
//   d_V += P_1 d_G_1 + d_back W_1              d_W_1 += d_back^T V
static void ttt__glu_push_back_tile(const ttt__kit *kit, const ttt__glu_work *work,
                                    const ttt__glu_weights *W, ttt__glu_tile *tile) {
    const ttt__glu_weights *d_W = &work->d_S.W, *d_G = &work->G;
    ttt__set_product(kit, tile->zu, tile->k, W->gates);
    ttt__set_product(kit, tile->d_zu, tile->k, d_G->gates);
    if (W->last.at) {
        ttt__set_product(kit, tile->back, tile->v, work->last_tr);
        ttt__set_product(kit, tile->d_s, tile->v, work->G_last_tr);
    } else ttt__clear(tile->d_s);
    kit->lk->glu_push_back(&tile->of);
    ttt__mat P = tile->zu, P_1 = tile->s, d_back = tile->d_s;
    ttt__add_product(kit, tile->d_k, P, work->G_gates_tr);
    ttt__add_product(kit, tile->d_k, tile->d_zu, work->gates_tr);
    ttt__add_product(kit, d_W->gates, ttt__transpose_of(tile->k), tile->d_zu);
    if (!W->last.at) {
        ttt__add_rows(kit, tile->d_v, d_back);
        return;
    }
    ttt__add_product(kit, tile->d_v, P_1, d_G->last);
    ttt__add_product(kit, tile->d_v, d_back, W->last);
    ttt__add_product(kit, d_W->last, ttt__transpose_of(d_back), tile->v);
}

// Lengths of columns, (1,cols).
static void ttt__column_lengths(const ttt__kit *kit, ttt__mat length, ttt__mat x) {
    ttt__clear(length);
    for (int64_t i = 0; i < x.rows; i++)
        ttt__add_times(kit, length, ttt__rows_at(x, i, 1), ttt__rows_at(x, i, 1));
    for (int64_t j = 0; j < x.cols; j++) {
        double sum = (double)length.at[j];
        length.at[j] = (ttt_real)(ttt__ordinary(sum) ? sqrt(sum)
                                                     : ttt__length(x.rows, x.at + j, x.down));
    }
}
// W' from X, columns of one matrix, and back: in the place of d_W' d_X, and d_L added to.
//   d_x = by d_w' - x <d_w', x> by / ((|x| + eps) |x|)      d_L = <d_w', x> / (|x| + eps)
static void ttt__glu_columns(const ttt__kit *kit, const ttt__glu_work *work, ttt__mat W,
                             ttt__mat X, ttt__mat L, bool rescaled) {
    ttt__mat by = ttt__cols_at(work->by, 0, X.cols);
    ttt__column_lengths(kit, by, X);
    for (int64_t j = 0; j < X.cols; j++)
        by.at[j] = rescaled ? L.at[j] / (by.at[j] + (ttt_real)1e-5) : -1 / (by.at[j] + 1);
    if (rescaled) ttt__clear(W);
    for (int64_t i = 0; i < X.rows; i++)
        ttt__add_times(kit, ttt__rows_at(W, i, 1), ttt__rows_at(X, i, 1), by);
}
static void ttt__glu_columns_back(const ttt__kit *kit, const ttt__glu_work *work, ttt__mat d_W,
                                  ttt__mat X, ttt__mat L, ttt__mat d_L, bool rescaled) {
    ttt__mat by = ttt__cols_at(work->by, 0, X.cols), dots = ttt__cols_at(work->dots, 0, X.cols);
    ttt__column_lengths(kit, by, X);
    ttt__clear(dots);
    for (int64_t i = 0; i < X.rows; i++)
        ttt__add_times(kit, dots, ttt__rows_at(d_W, i, 1), ttt__rows_at(X, i, 1));
    for (int64_t j = 0; j < X.cols; j++) {
        ttt_real length = by.at[j], longer = length + (rescaled ? (ttt_real)1e-5 : 1);
        by.at[j] = (rescaled ? L.at[j] : -1) / longer;
        dots.at[j] /= longer;
        if (rescaled) d_L.at[j] += dots.at[j];
        dots.at[j] *= length > 0 || length != length ? -by.at[j] / length : 0;
    }
    for (int64_t i = 0; i < X.rows; i++) {
        ttt__mat d = ttt__rows_at(d_W, i, 1);
        ttt__times(kit, d, d, by);
        ttt__add_times(kit, d, ttt__rows_at(X, i, 1), dots);
    }
}
// A matrix m made nearly orthogonal, Z_5 of steps Z, see ttt__orthogonal; gives |m|.
//   Z_0 = m / (|m| + 1e-7)      A = Z Z^T     T = b 1 + c A     B = a 1 + A T     Z' = B Z
static void ttt__add_diagonal(ttt__mat y, double number) {
    for (int64_t i = 0; i < y.rows; i++) y.at[i * y.down + i] += (ttt_real)number;
}
static void ttt__muon_factors(const ttt__kit *kit, const ttt__glu_work *work, int step) {
    ttt__transpose(kit, work->Z_tr, work->Z[step]);
    ttt__set_product(kit, work->A, work->Z[step], work->Z_tr);
    ttt__scaled(kit, work->T, work->A, (ttt_real)ttt__muon[step][2]);
    ttt__add_diagonal(work->T, ttt__muon[step][1]);
    ttt__set_product(kit, work->B, work->A, work->T);
    ttt__add_diagonal(work->B, ttt__muon[step][0]);
}
static ttt_real ttt__muon_run(const ttt__kit *kit, const ttt__glu_work *work, ttt__mat m) {
    ttt__mat Z = work->Z[0];
    ttt__gather(kit, Z, m);
    double sum = ttt__dot(kit, Z, Z);
    ttt_real length =
        (ttt_real)(ttt__ordinary(sum) ? sqrt(sum) : ttt__length(ttt__numbers(Z), Z.at, 1));
    ttt__scaled(kit, Z, Z, 1 / (length + (ttt_real)1e-7));
    for (int step = 0; step < TTT__MUON_STEPS; step++) {
        ttt__muon_factors(kit, work, step);
        ttt__set_product(kit, work->Z[step + 1], work->B, work->Z[step]);
    }
    return length;
}
// And back, from the gradient in Z_5 to that in m, in the same place. A, T and B are symmetric:
//   d_B = d_Z' Z^T    d_A = d_B T + c A d_B    d_Z = B d_Z' + (d_A + d_A^T) Z
//   d_m = d_Z_0 / (|m| + 1e-7) - Z_0 <d_Z_0, Z_0> / |m|
static void ttt__muon_back(const ttt__kit *kit, const ttt__glu_work *work, ttt__mat m,
                           ttt__mat d) {
    ttt_real length = ttt__muon_run(kit, work, m);
    ttt__mat d_Z = work->Z[TTT__MUON_STEPS], next = work->Z_tr, both = work->B;
    ttt__gather(kit, d_Z, d);
    for (int step = TTT__MUON_STEPS - 1; step >= 0; step--) {
        ttt__muon_factors(kit, work, step);
        ttt__set_product(kit, work->d_B, d_Z, work->Z_tr);
        ttt__set_product(kit, work->d_A, work->d_B, work->T);
        ttt__scaled(kit, work->d_B, work->d_B, (ttt_real)ttt__muon[step][2]);
        ttt__add_product(kit, work->d_A, work->A, work->d_B);
        ttt__set_product(kit, next, work->B, d_Z);
        ttt__clear(both);
        ttt__add_both(both, work->d_A);
        ttt__add_product(kit, next, both, work->Z[step]);
        ttt__assign(d_Z, next);
    }
    ttt_real along = (ttt_real)ttt__dot(kit, d_Z, work->Z[0]);
    ttt__scaled(kit, d_Z, d_Z, 1 / (length + (ttt_real)1e-7));
    ttt__scaled(kit, next, work->Z[0], length == 0 ? 0 : -along / length);
    ttt__plus(kit, d_Z, next);
    ttt__gather(kit, d, d_Z);
}
static ttt_real ttt__glu_momentum(const ttt__chunk_work *chunk) {
    ttt__mat m = chunk->in[TTT__GLU_MOMENTUM];
    double sum = 0;
    for (int64_t i = 0; m.at && i < m.rows; i++) sum += (double)m.at[i * m.down];
    return m.at ? (ttt_real)(sum / (double)m.rows) : 0;
}
// The state after the chunk is written into it.
static void ttt__glu_write(const ttt__chunk_work *chunk, const ttt__glu_work *work,
                           const ttt__glu_state *S) {
    const ttt__kit *kit = chunk->kit;
    bool rescaled = S->W.last.at != NULL;
    ttt__clear(work->G.all);
    ttt__glu_transpose(kit, work->gates_tr, work->last_tr, &S->W);
    for (int64_t i = 0, from, n; (n = ttt__piece(chunk->rows, TTT__TILE_TOKENS, i, &from)) > 0;
         i++) {
        ttt__glu_tile tile = ttt__glu_tile_of(chunk, work, from, n);
        ttt__glu_push_tile(kit, work, &S->W, &tile);
    }
    ttt__scaled(kit, S->M.all, S->M.all, ttt__glu_momentum(chunk));
    ttt__plus(kit, S->M.all, work->G.all);
    ttt__assign(S->X.all, S->M.all);
    for (int i = 0; i < ttt__glu_matrices(&S->X) && chunk->arg->d.muon; i++) {
        (void)ttt__muon_run(kit, work, ttt__glu_matrix(&S->M, i));
        ttt__gather(kit, ttt__glu_matrix(&S->X, i), work->Z[TTT__MUON_STEPS]);
    }
    if (rescaled) ttt__plus(kit, S->X.all, S->W.all);
    ttt__glu_columns(kit, work, S->W.gates, S->X.gates, S->L.gates, rescaled);
    if (rescaled) ttt__glu_columns(kit, work, S->W.last, S->X.last, S->L.last, true);
}
// From the gradient in the state after the write to that in the state before it.
static void ttt__glu_write_back(const ttt__chunk_work *chunk, const ttt__glu_work *work,
                                const ttt__glu_state *before, const ttt__glu_state *after) {
    const ttt__kit *kit = chunk->kit;
    const ttt__glu_state *d_S = &work->d_S;
    const ttt__glu_weights *d_G = &work->G, *X = &after->X, *L = &after->L;
    ttt__mat m = chunk->in[TTT__GLU_MOMENTUM], d_m = chunk->d_in[TTT__GLU_MOMENTUM];
    bool rescaled = before->W.last.at != NULL;
    ttt__assign(d_G->all, d_S->W.all);
    ttt__glu_columns_back(kit, work, d_G->gates, X->gates, L->gates, d_S->L.gates, rescaled);
    if (rescaled) {
        ttt__glu_columns_back(kit, work, d_G->last, X->last, L->last, d_S->L.last, true);
        ttt__assign(d_S->W.all, d_G->all);
    }
    for (int i = 0; i < ttt__glu_matrices(d_G) && chunk->arg->d.muon; i++)
        ttt__muon_back(kit, work, ttt__glu_matrix(&after->M, i), ttt__glu_matrix(d_G, i));
    if (m.at) {
        ttt__plus(kit, d_G->all, d_S->M.all);
        double d_mean = ttt__dot(kit, d_G->all, before->M.all) / (double)m.rows;
        for (int64_t i = 0; i < m.rows; i++) d_m.at[i * d_m.down] += (ttt_real)d_mean;
        ttt__scaled(kit, d_S->M.all, d_G->all, ttt__glu_momentum(chunk));
    }
    ttt__glu_transpose(kit, work->gates_tr, work->last_tr, &before->W);
    ttt__glu_transpose(kit, work->G_gates_tr, work->G_last_tr, d_G);
    for (int64_t i = 0, from, n; (n = ttt__piece(chunk->rows, TTT__TILE_TOKENS, i, &from)) > 0;
         i++) {
        ttt__glu_tile tile = ttt__glu_tile_of(chunk, work, from, n);
        ttt__glu_push_back_tile(kit, work, &before->W, &tile);
    }
}

// The first state: the parameters, and how long their columns are; written, unless causal.
static void ttt__glu_parameters(const ttt__chunk_work *chunk, const ttt__glu_state *S) {
    const ttt__kit *kit = chunk->kit;
    for (int i = 0; i < ttt__glu_matrices(&S->W); i++) {
        ttt__gather(kit, ttt__glu_matrix(&S->W, i), ttt__glu_parameter(chunk->in, i));
        ttt__column_lengths(kit, ttt__glu_matrix(&S->L, i), ttt__glu_matrix(&S->W, i));
    }
}
static bool ttt__glu_writes(const ttt__chunk_work *chunk) {
    return !chunk->arg->d.causal || !chunk->last;
}
static void ttt__glu_start(ttt__chunk_work *chunk) {
    ttt__glu_work work = ttt__glu_work_in(chunk);
    ttt__glu_parameters(chunk, &work.S);
    if (!chunk->arg->d.causal) ttt__glu_write(chunk, &work, &work.S);
}
// d_into += d_W + W d_L / L, of one matrix
static void ttt__glu_parameter_back(const ttt__kit *kit, ttt__mat d_into, ttt__mat W, ttt__mat L,
                                    ttt__mat d_W, ttt__mat d_L) {
    for (int64_t j = 0; j < L.cols; j++) d_L.at[j] = L.at[j] == 0 ? 0 : d_L.at[j] / L.at[j];
    for (int64_t i = 0; i < W.rows; i++) {
        ttt__plus(kit, ttt__rows_at(d_into, i, 1), ttt__rows_at(d_W, i, 1));
        ttt__add_times(kit, ttt__rows_at(d_into, i, 1), ttt__rows_at(W, i, 1), d_L);
    }
}
static void ttt__glu_start_back(ttt__chunk_work *chunk) {
    const ttt__kit *kit = chunk->kit;
    ttt__glu_work work = ttt__glu_work_in(chunk);
    const ttt__glu_state *first = &work.other, *d_S = &work.d_S;
    ttt__glu_parameters(chunk, first);
    if (!chunk->arg->d.causal) ttt__glu_write_back(chunk, &work, first, &work.S);
    for (int i = 0; i < ttt__glu_matrices(&first->W); i++)
        ttt__glu_parameter_back(kit, ttt__glu_parameter(chunk->d_in, i),
                                ttt__glu_matrix(&first->W, i), ttt__glu_matrix(&first->L, i),
                                ttt__glu_matrix(&d_S->W, i), ttt__glu_matrix(&d_S->L, i));
}

static void ttt__glu_forward(ttt__chunk_work *chunk) {
    ttt__glu_work work = ttt__glu_work_in(chunk);
    for (int64_t i = 0, from, n;
         chunk->y.at && (n = ttt__piece(chunk->rows, TTT__TILE_TOKENS, i, &from)) > 0; i++) {
        ttt__glu_tile tile = ttt__glu_tile_of(chunk, &work, from, n);
        ttt__glu_read_tile(chunk->kit, &work, &tile);
    }
    ttt__chunk_work written = ttt__glu_written(chunk);
    if (chunk->arg->d.causal && ttt__glu_writes(chunk)) ttt__glu_write(&written, &work, &work.S);
}
static void ttt__glu_backward(ttt__chunk_work *chunk) {
    ttt__glu_work work = ttt__glu_work_in(chunk);
    if (chunk->arg->d.causal && ttt__glu_writes(chunk)) {
        memcpy(work.other.W.all.at, chunk->state,
               (size_t)ttt__glu_state_size(chunk) * sizeof(ttt_real));
        ttt__glu_write(chunk, &work, &work.other);
        ttt__glu_write_back(chunk, &work, &work.S, &work.other);
    }
    ttt__glu_transpose(chunk->kit, work.gates_tr, work.last_tr, &work.S.W);
    for (int64_t i = 0, from, n; (n = ttt__piece(chunk->rows, TTT__TILE_TOKENS, i, &from)) > 0;
         i++) {
        ttt__glu_tile tile = ttt__glu_tile_of(chunk, &work, from, n);
        ttt__glu_read_back_tile(chunk->kit, &work, &tile);
    }
}
// For q, and twice for k of what is written: two gates, and the last layer.
static double ttt__glu_flops(const ttt__chunk_work *chunk) {
    double layers = chunk->in[TTT__GLU_W1].at ? 3 : 2, h = (double)chunk->in[TTT__GLU_Q].cols;
    return 2 * (double)chunk->rows * h * h * layers * (ttt__glu_writes(chunk) ? 3 : 1);
}
static const ttt__chunked_kind ttt__lact_kind = {
    TTT__CHUNKED_OP("gated unit, written in chunks", "y = (SiLU(q W_0) o q W_2) W_1"),
    TTT__GLU_W0, ttt__glu_state_size, ttt__glu_take_all, ttt__glu_start, ttt__glu_start_back,
    ttt__glu_forward, ttt__glu_backward, ttt__glu_flops, ttt__lact_tape,
};
static const ttt__chunked_kind ttt__vittt_kind = {
    TTT__CHUNKED_OP("gated unit, written once", "y = SiLU(q W_0) o q W_2"),
    TTT__GLU_W0, ttt__glu_state_size, ttt__glu_take_all, ttt__glu_start, ttt__glu_start_back,
    ttt__glu_forward, ttt__glu_backward, ttt__glu_flops, ttt__vittt_tape,
};
static ttt_tensor *ttt__lact_as_op(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *in,
                                   int64_t chunk) {
    return ttt__chunked_as_op(ctx, desc, &ttt__lact_kind, in, TTT__GLU_INPUTS, chunk);
}
static ttt_tensor *ttt__vittt_as_op(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *in,
                                    int64_t chunk) {
    return ttt__chunked_as_op(ctx, desc, &ttt__vittt_kind, in, TTT__GLU_INPUTS, chunk);
}

// -- chunks: a learner of dense layers, see ttt__memory
// The letters, of the n tokens of a chunk:
//   q, k, v (n,h)   the views; the label is v or, with a norm, v - k; y is f or, with it, q + LN(f)
//   W, V            the learner's weights and (titans) their velocity, before the chunk
//   e, g_e          the prediction for k, and the gradient of the inner loss in it
//   x, g            of a layer: what it reads for k, and the gradient in what it gives, times the
//                   token's rate: in the last layer rate g_e, before it g_z = (g w2^T) o gelu'(z)
//   u, o            of a layer: what it reads for q, and what it gives
//   P, S (n,n)      of a layer: u x^T + 1 (the 1 is a bias's), and C o P; both lower
//   c, m, C         token t reads at the weights c_t W + m_t V + sum of C_ts x_s^T g_s, s <= t
//   c_n, m_n, C_n   those of the last token, which are what is left by the chunk; and m', C' (in
//                   code, the last row of H) of the velocity: V' = m' V + sum of C'_s x_s^T g_s
// A layer forwards, which is the dual form [arXiv 2407.04620, §2.5]:
//   read   o = (c o u) w + (m o u) v + b + S g
//   write  w' = c_n w + m_n v + (C_n o x)^T g,  v' = m' v + (C' o x)^T g,  b' = b + C_n g
// Backwards the write, from d_w', d_v' and d_b', and then the read, from d_o:
//   d_g = (C_n o x) d_w' + (C' o x) d_v' + C_n^T d_b'      d_w = c_n d_w', d_v = m_n d_w' + m' d_v'
//   d_x = C_n o (g d_w'^T) + C' o (g d_v'^T)               d_C_n = <x, g d_w'^T>, d_C' = ..
//   d_u = c o (d_o w^T) + m o (d_o v^T) + d_P x            d_w += (c o u)^T d_o, d_v += ..
//   d_x += d_P^T u,  d_g += S^T d_o,  d_P = C o d_S        d_c = <u, d_o w^T>, d_m = ..
//   where d_S = d_o g^T, of which only s <= t counts       d_C += P o d_S
// Only titans has V and gates, and it has no biases. In a stream k, v, q and what is made of them
// are of the n tokens of a call; x, g and the shares are also of those before them in the chunk.
typedef struct ttt__dense_weights {
    ttt__mat w, b, v;
} ttt__dense_weights;
typedef struct ttt__dense_layer {
    ttt__dense_weights at, d;        // before the chunk, then after it; d: their outer gradients
    ttt__mat x, g;                   // (all,.)
    ttt__mat u, o, P, S;
    ttt__mat d_x, d_g, d_u, d_o;
} ttt__dense_layer;
typedef struct ttt__dense {
    const ttt__kit *kit;
    int64_t n, before, all;          // tokens; all: with those before them
    int last;                        // the last layer: 0 or 1
    bool norm, gated, back;
    ttt__layout layout;
    ttt__mat in[TTT__MEMORY_W0], d_in[TTT__MEMORY_W0], y, d_y;  // of tokens: of these n
    ttt__tile tile;                  // the keys
    ttt__dense_layer layer[2];
    ttt__mat label, g_e, d_label;
    ttt__mat slope;                  // gelu' of what the first layer gives for q
    ttt__mat C, H, d_C, d_H, gates;  // see ttt__dense_shares
    ttt__mat d_S;                    // (n,all)
    ttt_real *spare, *d_spare;       // see ttt__dense_spare
    ttt_real *turned;                // see ttt__dense_turned
} ttt__dense;

// What of tokens is needed until their chunk is full.
static void ttt__dense_kept(ttt__dense *dense, ttt__chunk_work *chunk) {
    int64_t n = dense->n, h = dense->layout.h, wide = dense->layout.wide;
    ttt__dense_layer *first = &dense->layer[0], *last = &dense->layer[dense->last];
    first->x = ttt__take_open(chunk, n, h);
    last->g = ttt__take_open(chunk, n, h);
    if (wide > 0) last->x = ttt__take_open(chunk, n, wide);
    if (wide > 0) first->g = ttt__take_open(chunk, n, wide);
    if (dense->gated) dense->gates = ttt__take_open(chunk, n, 2);
}
// What tokens are worked on with. The first of two layers gives wide rows, the second reads them.
static void ttt__dense_room(ttt__dense *dense, ttt__chunk_work *chunk) {
    int64_t n = dense->n, all = dense->all, h = dense->layout.h, wide = dense->layout.wide;
    int64_t most = TTT__MAX(h, wide);
    bool back = dense->back;
    ttt__room *room = &chunk->room;
    ttt__tile *tile = &dense->tile;
    ttt__dense_layer *first = &dense->layer[0], *last = &dense->layer[dense->last];
    ttt__mat *narrow[] = { &first->u,   &dense->label, &dense->g_e,  &tile->e,    &last->o,
                           &last->d_g,  &last->d_o,    &first->d_x,  &first->d_u, &dense->d_label };
    ttt__mat *hidden[] = { &tile->z,    &tile->a1,     &tile->room[0], &first->o, &last->u,
                           &tile->a2,   &last->d_x,    &tile->room[1], &last->d_u, &dense->slope };
    ttt__mat *square[] = { &first->P, &first->S, &last->P, &last->S, &dense->d_S };
    ttt__mat *shares[] = { &dense->C, &dense->H, &dense->d_C, &dense->d_H };
    ttt__dense_kept(dense, chunk);
    for (int i = 0; i < (back ? 10 : 5); i++) *narrow[i] = ttt__take(room, n, h);
    for (int i = 0; i < (back ? 10 : 5) && wide > 0; i++) *hidden[i] = ttt__take(room, n, wide);
    for (int i = 0; i < 5; i++) *square[i] = ttt__take(room, n, all);
    for (int i = 0; i < (back ? 4 : 2); i++) *shares[i] = ttt__take(room, all + 1, all + 2);
    dense->spare = ttt__take(room, all, most).at;
    dense->d_spare = ttt__take_if(back, room, n, most).at;
    dense->turned = ttt__take(room, n, most).at;
    if (dense->last) first->d_g = tile->room[1];
}
// Of a matrix of all tokens the rows of the new ones.
static ttt__mat ttt__dense_new(const ttt__dense *dense, ttt__mat m) {
    return ttt__rows_at(m, dense->before, dense->n);
}
// The weights of a layer in a state, which is W and behind it V; or the gradients in them.
static ttt__dense_weights ttt__dense_weights_in(const ttt__dense *dense, ttt_real *state, int l) {
    ttt__parts W = ttt__parts_at(&dense->layout, state), V = ttt__no_parts();
    if (dense->gated && state) V = ttt__parts_at(&dense->layout, state + dense->layout.size);
    ttt__dense_weights first = { W.w1, W.b1, V.w1 }, last = { W.w2, W.b2, V.w2 };
    return l ? last : first;
}
static ttt__layout ttt__dense_layout(const ttt__chunk_work *chunk) {
    const ttt__mat *w = chunk->in + TTT__MEMORY_W0;
    return ttt__layout_of(w[0].rows, w[2].at != NULL, w[1].at != NULL);
}
// Room for rows that are needed for a moment, as wide as those a layer reads or gives.
static ttt__mat ttt__dense_spare(const ttt__dense *dense, int64_t rows, int64_t cols) {
    return ttt__matrix(dense->spare, rows, cols);
}
// y = a w^T, by way of w a^T: a has few rows, and w, which has many numbers, is read as it lies.
static void ttt__dense_turned(const ttt__dense *dense, ttt__mat y, ttt__mat a, ttt__mat w) {
    ttt__mat turned = ttt__matrix(dense->turned, w.rows, a.rows);
    ttt__set_product(dense->kit, turned, w, ttt__transpose_of(a));
    ttt__transpose(dense->kit, y, turned);
}
// Points at n tokens of the chunk, from number `from` on, and at the weights.
static ttt__dense ttt__dense_in(ttt__chunk_work *chunk, int64_t from, int64_t n) {
    ttt__dense dense;
    memset(&dense, 0, sizeof dense);
    dense.kit = dense.tile.kit = chunk->kit;
    dense.n = n;
    dense.before = chunk->before;
    dense.all = chunk->before + n;
    dense.back = chunk->back;
    dense.layout = ttt__dense_layout(chunk);
    dense.last = dense.tile.mlp = dense.layout.wide > 0;
    dense.norm = chunk->in[TTT__MEMORY_SCALE].at != NULL;
    dense.gated = chunk->in[TTT__MEMORY_KEEP].at != NULL;
    for (int i = 0; i < TTT__MEMORY_W0; i++) {
        bool tokens = i < TTT__MEMORY_SCALE;
        dense.in[i] = tokens ? ttt__rows_or(chunk->in[i], from, n, ttt__absent()) : chunk->in[i];
        dense.d_in[i] = tokens ? ttt__rows_or(chunk->d_in[i], from, n, ttt__absent())
                               : chunk->d_in[i];
    }
    dense.y = ttt__rows_or(chunk->y, from, n, ttt__absent());
    dense.d_y = ttt__rows_or(chunk->d_y, from, n, ttt__absent());
    ttt__dense_room(&dense, chunk);
    dense.tile.k = ttt__dense_new(&dense, dense.layer[0].x);
    if (dense.last) dense.tile.a = ttt__dense_new(&dense, dense.layer[1].x);
    dense.tile.W = ttt__parts_at(&dense.layout, chunk->state);
    for (int l = 0; l <= dense.last; l++) {
        dense.layer[l].at = ttt__dense_weights_in(&dense, chunk->state, l);
        dense.layer[l].d = ttt__dense_weights_in(&dense, chunk->d_state, l);
    }
    return dense;
}
static void ttt__dense_take(ttt__chunk_work *chunk) {
    (void)ttt__dense_in(chunk, 0, chunk->rows);
}
static int64_t ttt__dense_state(const ttt__chunk_work *chunk) {
    return ttt__dense_layout(chunk).size * (chunk->in[TTT__MEMORY_KEEP].at ? 2 : 1);
}

// The learner's parameters are the first W, or get the gradient in it.
static void ttt__dense_start(ttt__chunk_work *chunk) {
    ttt__layout layout = ttt__dense_layout(chunk);
    ttt__parts W = ttt__parts_at(&layout, chunk->state);
    const ttt__mat part[4] = { W.w1, W.b1, W.w2, W.b2 };
    for (int i = 0; i < 4; i++) ttt__assign(part[i], chunk->in[TTT__MEMORY_W0 + i]);
}
static void ttt__dense_start_back(ttt__chunk_work *chunk) {
    ttt__layout layout = ttt__dense_layout(chunk);
    ttt__parts d_W = ttt__parts_at(&layout, chunk->d_state);
    const ttt__mat part[4] = { d_W.w1, d_W.b1, d_W.w2, d_W.b2 };
    for (int i = 0; i < 4; i++)
        if (part[i].at) ttt__plus(chunk->kit, chunk->d_in[TTT__MEMORY_W0 + i], part[i]);
}

// -- chunks of a learner of dense layers, forwards
// The prediction for the keys, the error, and g of the last layer. times: of the rate.
static void ttt__dense_learn(const ttt__dense *dense, int slopes, ttt_real times) {
    const ttt__kit *kit = dense->kit;
    const ttt__mat *in = dense->in;
    ttt__mat g = ttt__dense_new(dense, dense->layer[dense->last].g);
    ttt__mat label = dense->label, e = dense->tile.e;
    ttt__gather(kit, dense->tile.k, in[TTT__MEMORY_K]);
    ttt__gather(kit, label, in[TTT__MEMORY_V]);
    if (dense->norm) ttt__minus(kit, label, label, dense->tile.k);
    ttt__tile_predict(&dense->tile, slopes);
    if (!dense->norm) ttt__minus(kit, dense->g_e, e, label);
    for (int64_t at = 0; at < ttt__numbers(g) && dense->norm; at += g.cols)
        kit->lk->norm_error(g.cols, e.at + at, label.at + at, in[TTT__MEMORY_SCALE].at,
                            in[TTT__MEMORY_SHIFT].at, dense->g_e.at + at);
    ttt__scale_rows(kit, g, dense->g_e, in[TTT__MEMORY_RATE]);
    if (times != 1) ttt__scaled(kit, g, g, times);
}
// g_z; what it is before the slope, g w2^T, stays in room[0].
static void ttt__dense_hidden_gradient(const ttt__dense *dense) {
    ttt__mat g_a = dense->tile.room[0];
    if (!dense->last) return;
    ttt__dense_turned(dense, g_a, ttt__dense_new(dense, dense->layer[1].g), dense->tile.W.w2);
    ttt__times(dense->kit, ttt__dense_new(dense, dense->layer[0].g), g_a, dense->tile.a1);
}

// How much of a gradient is in the weights after each token, C, and in the velocity, H. Row 0 is
// before the chunk; columns are the gradients of its n tokens, then V, then W. By definition
//   ttt     C_ts = -c_t, s <= t; without an index c_t = 1 / (t + 1)
//   titans  V_t = momentum_t V_t-1 - g_t,  W_t = keep_t W_t-1 + V_t. So
//           H_t = momentum_t H_t-1 - 1 at t,  C_t = keep_t C_t-1 + H_t
// in which nothing is divided, and nothing taken away that was added: weak gates are exact behind
// strong ones.
static void ttt__dense_shares(const ttt__dense *dense) {
    const ttt__kit *kit = dense->kit;
    int64_t n = dense->n, all = dense->all, width = all + 2;
    ttt__clear(dense->C);
    dense->C.at[all + 1] = 1;
    if (!dense->gated) {
        const ttt_real *c = dense->in[TTT__MEMORY_SHARE].at;
        for (int64_t t = dense->before; t < all; t++)
            for (int64_t s = 0; s <= t; s++)
                dense->C.at[(t + 1) * width + s] = c ? -c[t] : -1 / (ttt_real)(t + 1);
        return;
    }
    ttt__clear(dense->H);
    dense->H.at[all] = 1;
    ttt__mat news = ttt__dense_new(dense, dense->gates);
    ttt__gather(kit, ttt__cols_at(news, 0, 1), dense->in[TTT__MEMORY_KEEP]);
    ttt__gather(kit, ttt__cols_at(news, 1, 1), dense->in[TTT__MEMORY_MOMENTUM]);
    kit->k->map[TTT__MAP_exp](2 * n, news.at, news.at, 0);
    for (int64_t t = 0; t < all; t++) {
        ttt_real *C_t = dense->C.at + (t + 1) * width, *H_t = dense->H.at + (t + 1) * width;
        const ttt_real *gates = dense->gates.at + 2 * t;
        kit->lk->blend(width, gates[1], H_t - width, 1, H_t);
        H_t[t] = -1;
        kit->lk->blend(width, gates[0], C_t - width, 1, C_t);
        kit->lk->blend(width, 1, H_t, 1, C_t);
    }
}
// A column of C: of W or V in each token's weights. And its last row, as a column: of each token's
// gradient in what is left.
static ttt__mat ttt__share_in_each(const ttt__dense *dense, ttt__mat C, int64_t i) {
    return ttt__cols_at(ttt__rows_at(C, dense->before + 1, dense->n), i, 1);
}
static ttt__mat ttt__share_of_each(const ttt__dense *dense, ttt__mat C) {
    return ttt__transpose_of(ttt__cols_at(ttt__rows_at(C, dense->all, 1), 0, dense->all));
}

static void ttt__dense_read_layer(const ttt__dense *dense, const ttt__dense_layer *layer) {
    const ttt__kit *kit = dense->kit;
    int64_t n = dense->n, all = dense->all;
    ttt__mat P = layer->P, scaled = ttt__dense_spare(dense, n, layer->u.cols);
    if (!dense->gated) ttt__affine(kit, layer->o, layer->u, layer->at.w, layer->at.b);
    else {
        ttt__scale_rows(kit, scaled, layer->u, ttt__share_in_each(dense, dense->C, all + 1));
        ttt__set_product(kit, layer->o, scaled, layer->at.w);
        ttt__scale_rows(kit, scaled, layer->u, ttt__share_in_each(dense, dense->C, all));
        ttt__add_product(kit, layer->o, scaled, layer->at.v);
    }
    ttt__set_lower_product(kit, P, layer->u, ttt__transpose_of(layer->x), 1);
    ttt__clear(layer->S);
    for (int64_t i = 0; i < n; i++)
        for (int64_t s = 0, t = dense->before + i; s <= t; s++) {
            if (layer->at.b.at) P.at[i * all + s] += 1;
            layer->S.at[i * all + s] = dense->C.at[(t + 1) * (all + 2) + s] * P.at[i * all + s];
        }
    ttt__add_lower_product(kit, layer->o, layer->S, layer->g, false,
                           ttt__dense_spare(dense, all, layer->g.cols));
}
// f, the last layer's o: each token's answer at its own weights.
static void ttt__dense_read(const ttt__dense *dense) {
    const ttt__dense_layer *first = &dense->layer[0];
    ttt__gather(dense->kit, first->u, dense->in[TTT__MEMORY_Q]);
    ttt__dense_read_layer(dense, first);
    if (!dense->last) return;
    dense->kit->lk->gelu_all(ttt__numbers(first->o), first->o.at, dense->layer[1].u.at,
                             dense->slope.at, NULL);
    ttt__dense_read_layer(dense, &dense->layer[1]);
}
// y = q + LN(f), or f
static void ttt__dense_answer(const ttt__dense *dense, ttt__mat f) {
    const ttt__kit *kit = dense->kit;
    ttt__mat y = dense->y;
    for (int64_t t = 0; t < f.rows; t++)
        if (dense->norm)
            kit->lk->layer_norm(f.cols, f.at + t * f.cols, dense->in[TTT__MEMORY_SCALE].at,
                                dense->in[TTT__MEMORY_SHIFT].at, y.at + t * y.down);
        else memcpy(y.at + t * y.down, f.at + t * f.cols, (size_t)f.cols * sizeof *f.at);
    if (dense->norm) ttt__add_rows(kit, y, dense->layer[0].u);
}

static void ttt__dense_write_layer(const ttt__dense *dense, const ttt__dense_layer *layer) {
    const ttt__kit *kit = dense->kit;
    int64_t all = dense->all;
    ttt__mat scaled = ttt__dense_spare(dense, all, layer->x.cols);
    ttt__mat w = layer->at.w, v = layer->at.v, C_n = ttt__share_of_each(dense, dense->C);
    if (dense->gated) kit->lk->blend(ttt__numbers(w), C_n.at[all], v.at, C_n.at[all + 1], w.at);
    ttt__scale_rows(kit, scaled, layer->x, C_n);
    ttt__add_product(kit, w, ttt__transpose_of(scaled), layer->g);
    if (layer->at.b.at) ttt__add_product(kit, layer->at.b, ttt__transpose_of(C_n), layer->g);
    if (!dense->gated) return;
    ttt__mat H_n = ttt__share_of_each(dense, dense->H);
    ttt__scaled(kit, v, v, H_n.at[all]);
    ttt__scale_rows(kit, scaled, layer->x, H_n);
    ttt__add_product(kit, v, ttt__transpose_of(scaled), layer->g);
}
static void ttt__dense_forward(ttt__chunk_work *chunk) {
    ttt__dense dense = ttt__dense_in(chunk, 0, chunk->rows);
    ttt__dense_learn(&dense, 1, 1);
    ttt__dense_hidden_gradient(&dense);
    ttt__dense_shares(&dense);
    if (chunk->y.at) {
        ttt__dense_read(&dense);
        ttt__dense_answer(&dense, dense.layer[dense.last].o);
    }
    for (int l = 0; l <= dense.last && !chunk->last; l++)
        ttt__dense_write_layer(&dense, &dense.layer[l]);
}

// -- chunks of a learner of dense layers, backwards
static void ttt__dense_write_layer_back(const ttt__dense *dense, const ttt__dense_layer *layer) {
    const ttt__kit *kit = dense->kit;
    int64_t n = dense->n;
    ttt__mat scaled = ttt__dense_spare(dense, dense->n, layer->x.cols),
             d_scaled = ttt__matrix(dense->d_spare, n, layer->x.cols);
    ttt__mat w = layer->at.w, v = layer->at.v, d_w = layer->d.w, d_v = layer->d.v;
    ttt__mat C_n = ttt__share_of_each(dense, dense->C),
             d_C_n = ttt__share_of_each(dense, dense->d_C);
    ttt__scale_rows(kit, scaled, layer->x, C_n);
    ttt__set_product(kit, layer->d_g, scaled, d_w);
    if (layer->d.b.at) ttt__add_product(kit, layer->d_g, C_n, layer->d.b);
    ttt__dense_turned(dense, d_scaled, layer->g, d_w);
    ttt__scale_rows(kit, layer->d_x, d_scaled, C_n);
    ttt__add_row_dots(kit, d_C_n, layer->x, d_scaled);
    for (int64_t s = 0; s < n && layer->d.b.at; s++)
        d_C_n.at[s] += (ttt_real)ttt__dot(kit, ttt__rows_at(layer->g, s, 1), layer->d.b);
    if (!dense->gated) return;
    ttt__mat H_n = ttt__share_of_each(dense, dense->H),
             d_H_n = ttt__share_of_each(dense, dense->d_H);
    ttt__scale_rows(kit, scaled, layer->x, H_n);
    ttt__add_product(kit, layer->d_g, scaled, d_v);
    ttt__dense_turned(dense, d_scaled, layer->g, d_v);
    ttt__add_row_dots(kit, d_H_n, layer->x, d_scaled);
    ttt__scale_rows(kit, d_scaled, d_scaled, H_n);
    ttt__plus(kit, layer->d_x, d_scaled);
    d_C_n.at[n] += (ttt_real)ttt__dot(kit, v, d_w);
    d_C_n.at[n + 1] += (ttt_real)ttt__dot(kit, w, d_w);
    d_H_n.at[n] += (ttt_real)ttt__dot(kit, v, d_v);
    kit->lk->blend(ttt__numbers(d_v), C_n.at[n], d_w.at, H_n.at[n], d_v.at);
    ttt__scaled(kit, d_w, d_w, C_n.at[n + 1]);
}

// What was read of w, or v, from before the chunk; `share` is its column of C.
static void ttt__dense_carried_back(const ttt__dense *dense, const ttt__dense_layer *layer,
                                    int64_t share, ttt__mat w, ttt__mat d_w) {
    const ttt__kit *kit = dense->kit;
    ttt__mat scaled = ttt__dense_spare(dense, dense->n, layer->u.cols),
             d_scaled = ttt__matrix(dense->d_spare, dense->n, layer->u.cols);
    ttt__mat c = ttt__share_in_each(dense, dense->C, share);
    ttt__dense_turned(dense, d_scaled, layer->d_o, w);
    ttt__add_row_dots(kit, ttt__share_in_each(dense, dense->d_C, share), layer->u, d_scaled);
    ttt__scale_rows(kit, d_scaled, d_scaled, c);
    ttt__plus(kit, layer->d_u, d_scaled);
    ttt__scale_rows(kit, scaled, layer->u, c);
    ttt__add_product(kit, d_w, ttt__transpose_of(scaled), layer->d_o);
}
static void ttt__dense_read_layer_back(const ttt__dense *dense, const ttt__dense_layer *layer) {
    const ttt__kit *kit = dense->kit;
    int64_t n = dense->n;
    ttt__mat d_S = dense->d_S, d_P = d_S;
    if (dense->gated) {
        ttt__clear(layer->d_u);
        ttt__dense_carried_back(dense, layer, n + 1, layer->at.w, layer->d.w);
        ttt__dense_carried_back(dense, layer, n, layer->at.v, layer->d.v);
    } else {
        ttt__dense_turned(dense, layer->d_u, layer->d_o, layer->at.w);
        ttt__add_product(kit, layer->d.w, ttt__transpose_of(layer->u), layer->d_o);
        ttt__add_row_sum(kit, layer->d.b, layer->d_o);
    }
    ttt__set_lower_product(kit, d_S, layer->d_o, ttt__transpose_of(layer->g), 1);
    for (int64_t t = 0; t < n; t++)
        for (int64_t s = 0; s <= t; s++) {
            int64_t at = t * n + s, share = (t + 1) * (n + 2) + s;
            dense->d_C.at[share] += layer->P.at[at] * d_S.at[at];
            d_P.at[at] *= dense->C.at[share];
        }
    ttt__mat spare = ttt__dense_spare(dense, dense->n, layer->x.cols);
    ttt__add_lower_product(kit, layer->d_u, d_P, layer->x, false, spare);
    ttt__add_lower_product(kit, layer->d_x, d_P, layer->u, true, spare);
    ttt__add_lower_product(kit, layer->d_g, layer->S, layer->d_o, true,
                           ttt__dense_spare(dense, n, layer->d_o.cols));
}
static void ttt__dense_read_back(ttt__dense *dense) {
    ttt__dense_layer *first = &dense->layer[0];
    if (dense->last) {
        ttt__dense_read_layer_back(dense, &dense->layer[1]);
        first->d_o = dense->layer[1].d_u;
        ttt__times(dense->kit, first->d_o, first->d_o, dense->slope);
    }
    ttt__dense_read_layer_back(dense, first);
    ttt__add_rows(dense->kit, dense->d_in[TTT__MEMORY_Q], first->d_u);
}
// d_f, and the residual's part of d_q
static void ttt__dense_answer_back(const ttt__dense *dense, ttt__mat f, ttt__mat d_f) {
    ttt__mat d_y = dense->d_y;
    ttt__clear(d_f);
    for (int64_t t = 0; t < f.rows; t++)
        if (dense->norm)
            dense->kit->lk->layer_norm_back(
                f.cols, f.at + t * f.cols, dense->in[TTT__MEMORY_SCALE].at, d_y.at + t * d_y.down,
                d_f.at + t * f.cols, dense->d_in[TTT__MEMORY_SCALE].at,
                dense->d_in[TTT__MEMORY_SHIFT].at);
        else memcpy(d_f.at + t * f.cols, d_y.at + t * d_y.down, (size_t)f.cols * sizeof *d_f.at);
    if (dense->norm) ttt__add_rows(dense->kit, dense->d_in[TTT__MEMORY_Q], d_y);
}

// The gradient in c, from those in the shares. And the gates': through the recurrence from the last
// token to the first. That in a logarithm is that in the gate times the gate.
static void ttt__dense_shares_back(const ttt__dense *dense) {
    const ttt__kit *kit = dense->kit;
    int64_t width = dense->n + 2;
    ttt__mat d_keep = dense->d_in[TTT__MEMORY_KEEP], d_momentum = dense->d_in[TTT__MEMORY_MOMENTUM];
    ttt_real *d_c = dense->d_in[TTT__MEMORY_SHARE].at;
    for (int64_t t = 0; t < dense->n && d_c; t++)
        for (int64_t s = 0; s <= t; s++) d_c[t] -= dense->d_C.at[(t + 1) * width + s];
    for (int64_t t = dense->n - 1; t >= 0 && dense->gated; t--) {
        int64_t row = (t + 1) * width, before = t * width;
        ttt_real keep = dense->gates.at[2 * t], momentum = dense->gates.at[2 * t + 1];
        ttt_real *d_C_t = dense->d_C.at + row, *d_H_t = dense->d_H.at + row;
        kit->lk->blend(width, 1, d_C_t, 1, d_H_t);
        d_keep.at[t * d_keep.down] +=
            keep * (ttt_real)kit->k->dot(width, dense->C.at + before, d_C_t);
        kit->lk->blend(width, keep, d_C_t, 1, d_C_t - width);
        d_momentum.at[t * d_momentum.down] +=
            momentum * (ttt_real)kit->k->dot(width, dense->H.at + before, d_H_t);
        kit->lk->blend(width, momentum, d_H_t, 1, d_H_t - width);
    }
}

// Through g_z = (g w2^T) o gelu'(z), from d_g_z. As in ttt__tile_back_gradient, a part of d_z is
// left in the place of gelu''(z).
static void ttt__dense_hidden_gradient_back(const ttt__dense *dense) {
    const ttt__tile *tile = &dense->tile;
    const ttt__dense_layer *last = &dense->layer[1];
    ttt__mat d_g_z = dense->layer[0].d_g, d_g_a = d_g_z;
    if (!dense->last) return;
    dense->kit->lk->gelu_step(ttt__numbers(d_g_z), tile->a1.at, tile->a2.at, tile->room[0].at,
                              d_g_z.at);
    ttt__add_product(dense->kit, last->d_g, d_g_a, tile->W.w2);
    ttt__add_product(dense->kit, last->d.w, ttt__transpose_of(d_g_a), last->g);
}
// From d_g of the last layer to d_e, in the same place; and to the rate, the label and the norm.
static void ttt__dense_error_back(const ttt__dense *dense, ttt_real times) {
    const ttt__kit *kit = dense->kit;
    const ttt__mat *in = dense->in, *d_in = dense->d_in;
    ttt__mat d_e = dense->layer[dense->last].d_g, d_label = dense->d_label;
    ttt__mat d_k = dense->layer[0].d_x;
    if (times != 1) ttt__scaled(kit, d_e, d_e, times);
    ttt__add_row_dots(kit, d_in[TTT__MEMORY_RATE], d_e, dense->g_e);
    ttt__scale_rows(kit, d_e, d_e, in[TTT__MEMORY_RATE]);
    if (!dense->norm) ttt__scaled(kit, d_label, d_e, -1);
    for (int64_t at = 0; at < ttt__numbers(d_e) && dense->norm; at += d_e.cols)
        kit->lk->norm_error_back(d_e.cols, dense->tile.e.at + at, dense->label.at + at,
                                 in[TTT__MEMORY_SCALE].at, in[TTT__MEMORY_SHIFT].at, d_e.at + at,
                                 d_label.at + at, d_in[TTT__MEMORY_SCALE].at,
                                 d_in[TTT__MEMORY_SHIFT].at);
    ttt__add_rows(kit, d_in[TTT__MEMORY_V], d_label);
    if (dense->norm) ttt__minus(kit, d_k, d_k, d_label);
}

// Through what a layer gives for the keys, from the gradient d in it.
static void ttt__dense_predict_layer_back(const ttt__dense *dense, const ttt__dense_layer *layer,
                                          ttt__mat d) {
    ttt__mat d_x = ttt__dense_spare(dense, dense->n, layer->x.cols);
    ttt__dense_turned(dense, d_x, d, layer->at.w);
    ttt__plus(dense->kit, layer->d_x, d_x);
    ttt__add_product(dense->kit, layer->d.w, ttt__transpose_of(layer->x), d);
    ttt__add_row_sum(dense->kit, layer->d.b, d);
}
static void ttt__dense_predict_back(const ttt__dense *dense) {
    const ttt__dense_layer *first = &dense->layer[0], *last = &dense->layer[dense->last];
    ttt__mat d_z = dense->last ? dense->tile.a2 : first->d_g;
    if (dense->last) {
        ttt__dense_predict_layer_back(dense, last, last->d_g);
        ttt__add_times(dense->kit, d_z, last->d_x, dense->tile.a1);
    }
    ttt__dense_predict_layer_back(dense, first, d_z);
}
static void ttt__dense_backward(ttt__chunk_work *chunk) {
    ttt__dense dense = ttt__dense_in(chunk, 0, chunk->rows);
    ttt__dense_layer *first = &dense.layer[0], *last = &dense.layer[dense.last];
    ttt__dense_learn(&dense, 2, 1);
    ttt__dense_hidden_gradient(&dense);
    ttt__dense_shares(&dense);
    ttt__dense_read(&dense);
    ttt__clear(dense.d_C);
    ttt__clear(dense.d_H);
    for (int l = 0; l <= dense.last; l++) ttt__dense_write_layer_back(&dense, &dense.layer[l]);
    ttt__dense_answer_back(&dense, last->o, last->d_o);
    ttt__dense_read_back(&dense);
    ttt__dense_shares_back(&dense);
    ttt__dense_hidden_gradient_back(&dense);
    ttt__dense_error_back(&dense, 1);
    ttt__dense_predict_back(&dense);
    ttt__add_rows(dense.kit, chunk->d_in[TTT__MEMORY_K], first->d_x);
}

// -- chunks of a learner of dense layers: all at once
// One chunk, all N tokens: every token is written, and then every token reads. A tile of it is one
// as MTTT has them, but that the rate, a token's own times -1/N, is in g; so nothing is N x N.
typedef struct ttt__at_once {
    ttt__layout layout;
    ttt__parts W, W_tr;          // before the chunk, and the kernels transposed: first W'
    ttt__parts next;             // W', after the chunk
    ttt__parts d_next, d_next_tr, d_W;
} ttt__at_once;
static ttt__at_once ttt__at_once_in(ttt__chunk_work *chunk) {
    ttt__at_once all;
    ttt__room *room = &chunk->room;
    all.layout = ttt__dense_layout(chunk);
    int64_t size = all.layout.size;
    ttt__parts state = ttt__parts_at(&all.layout, chunk->state),
               other = ttt__parts_at(&all.layout, ttt__take(room, 1, size).at);
    all.W = chunk->back ? state : other;
    all.next = chunk->back ? other : state;
    all.W_tr = ttt__transposed_at(&all.layout, ttt__take(room, 1, size).at);
    all.d_W = ttt__parts_at(&all.layout, chunk->d_state);
    all.d_next = ttt__parts_at(&all.layout, ttt__take_if(chunk->back, room, 1, size).at);
    all.d_next_tr = ttt__transposed_at(&all.layout, ttt__take_if(chunk->back, room, 1, size).at);
    return all;
}
// Tile number i; without tokens behind the last.
static ttt__dense ttt__at_once_tile(const ttt__chunk_work *chunk, const ttt__at_once *all,
                                    int64_t i) {
    ttt__chunk_work again = *chunk;
    int64_t from, n = ttt__piece(chunk->rows, TTT__TILE_TOKENS, i, &from);
    ttt__dense dense = ttt__dense_in(&again, n > 0 ? from : 0, n);
    dense.tile.W = all->W;
    dense.tile.W_tr = all->W_tr;
    return dense;
}
static void ttt__at_once_take(ttt__chunk_work *chunk) {
    (void)ttt__at_once_in(chunk);
    const int64_t tile = TTT__TILE_TOKENS;
    (void)ttt__dense_in(chunk, 0, TTT__MIN(chunk->rows, tile));
}
// next = W and what all tokens write
static void ttt__at_once_write(const ttt__chunk_work *chunk, const ttt__at_once *all) {
    ttt__transpose_parts(chunk->kit, &all->W_tr, &all->W, chunk->back);
    ttt__dense dense;
    for (int64_t i = 0; (dense = ttt__at_once_tile(chunk, all, i)).n > 0; i++) {
        ttt__dense_learn(&dense, 1, -1 / (ttt_real)chunk->rows);
        ttt__tile_gradient(&dense.tile, dense.layer[dense.last].g, i > 0 ? &all->next : &all->W,
                           &all->next);
    }
}
static void ttt__at_once_forward(ttt__chunk_work *chunk) {
    ttt__at_once all = ttt__at_once_in(chunk);
    ttt__dense dense;
    ttt__assign(all.W.all, all.next.all);
    ttt__at_once_write(chunk, &all);
    for (int64_t i = 0; (dense = ttt__at_once_tile(chunk, &all, i)).n > 0; i++) {
        dense.tile.W = all.next;
        dense.tile.k = dense.layer[0].u;
        ttt__gather(chunk->kit, dense.tile.k, dense.in[TTT__MEMORY_Q]);
        ttt__tile_predict(&dense.tile, 0);
        ttt__dense_answer(&dense, dense.tile.e);
    }
}
// Through the answers, at W', to the queries and W'.
static void ttt__at_once_read_back(const ttt__chunk_work *chunk, const ttt__at_once *all) {
    ttt__dense dense;
    ttt__transpose_parts(chunk->kit, &all->W_tr, &all->next, true);
    for (int64_t i = 0; (dense = ttt__at_once_tile(chunk, all, i)).n > 0; i++) {
        ttt__mat d_f = dense.layer[dense.last].d_o, d_q = dense.layer[0].d_u;
        dense.tile.W = all->next;
        dense.tile.k = dense.layer[0].u;
        ttt__gather(chunk->kit, dense.tile.k, dense.in[TTT__MEMORY_Q]);
        ttt__tile_predict(&dense.tile, 1);
        ttt__dense_answer_back(&dense, dense.tile.e, d_f);
        ttt__clear(d_q);
        ttt__tile_back_predict(&dense.tile, d_f, false, d_q, &all->d_W);
        ttt__add_rows(chunk->kit, dense.d_in[TTT__MEMORY_Q], d_q);
    }
}
static void ttt__at_once_backward(ttt__chunk_work *chunk) {
    ttt__at_once all = ttt__at_once_in(chunk);
    ttt__dense dense;
    ttt__at_once_write(chunk, &all);
    ttt__at_once_read_back(chunk, &all);
    ttt__assign(all.d_next.all, all.d_W.all);
    ttt__transpose_parts(chunk->kit, &all.d_next_tr, &all.d_next, true);
    ttt__transpose_parts(chunk->kit, &all.W_tr, &all.W, true);
    for (int64_t i = 0; (dense = ttt__at_once_tile(chunk, &all, i)).n > 0; i++) {
        ttt__dense_layer *last = &dense.layer[dense.last];
        ttt__mat d_k = dense.layer[0].d_x;
        ttt__dense_learn(&dense, 2, -1 / (ttt_real)chunk->rows);
        ttt__clear(d_k);
        ttt__tile_back_gradient(&dense.tile, last->g, &all.d_next, &all.d_next_tr, last->d_g, d_k,
                                &all.d_W);
        ttt__dense_error_back(&dense, -1 / (ttt_real)chunk->rows);
        ttt__tile_back_predict(&dense.tile, last->d_g, true, d_k, &all.d_W);
        ttt__add_rows(chunk->kit, dense.d_in[TTT__MEMORY_K], d_k);
    }
}

// The kernels meet a token forwards, backwards, when it is read and when it is written, w1 once
// less; those of the velocity when it is read and written; a last chunk is not written. And, unless
// all at once, what the tokens of a chunk are to each other.
static double ttt__dense_flops(const ttt__chunk_work *chunk) {
    const ttt__mat *w = chunk->in + TTT__MEMORY_W0;
    double n = (double)chunk->rows, first = (double)(w[0].rows * w[0].cols), wide = 0;
    double h = (double)w[0].rows, weights = first * (w[2].at ? 7 : 3);
    if (w[2].at) wide = (double)w[0].cols;
    if (chunk->in[TTT__MEMORY_KEEP].at) weights += first * (w[2].at ? 4 : 2);
    bool at_once = !ttt__memory_causal(&chunk->arg->d);
    if (!at_once && chunk->last)
        weights -= first * (w[2].at ? 2 : 1) * (chunk->in[TTT__MEMORY_KEEP].at ? 2 : 1);
    return 2 * n * weights + (at_once ? 0 : 2 * n * n * (2 * h + 2 * wide));
}
static const ttt__chunked_kind ttt__dense_kind = {
    TTT__CHUNKED_OP("learner, in chunks", "y_t = f(q_t), W_t = c_t W + m_t V + sum C_ts x_s^T g_s"),
    TTT__MEMORY_SCALE, ttt__dense_state, ttt__dense_take, ttt__dense_start, ttt__dense_start_back,
    ttt__dense_forward, ttt__dense_backward, ttt__dense_flops, ttt__memory_tape,
};
static const ttt__chunked_kind ttt__at_once_kind = {
    TTT__CHUNKED_OP("learner, all at once", "y = f_W'(q), W' = W - sum rate_s / N x_s^T g_s"),
    TTT__MEMORY_SCALE, ttt__dense_state, ttt__at_once_take, ttt__dense_start,
    ttt__dense_start_back, ttt__at_once_forward, ttt__at_once_backward, ttt__dense_flops,
    ttt__memory_tape,
};

// -- chunks of a learner of dense layers: what a stream has learned, see ttt_stream_learner
// Of one pair: W, and the gradients of the tokens in a chunk that is not full.
static void ttt__learned_pair(const ttt__kit *kit, ttt__chunk_work *chunk, int64_t pair,
                              ttt_tensor *const *value, ttt_tensor *const *gradient) {
    ttt__dense dense;
    memset(&dense, 0, sizeof dense);
    dense.layout = ttt__dense_layout(chunk);
    dense.last = dense.layout.wide > 0;
    dense.n = chunk->rows;
    ttt__dense_kept(&dense, chunk);
    ttt__parts W = ttt__parts_at(&dense.layout, chunk->state);
    const ttt__mat part[4] = { W.w1, W.b1, W.w2, W.b2 };
    for (int i = 0; i < 4; i++) {
        if (!value[i]) continue;
        const ttt__dense_layer *layer = &dense.layer[i / 2];
        ttt__mat to = part[i], sum = part[i];
        to.at = value[i]->data + pair * ttt__numbers(to);
        sum.at = gradient[i]->data + pair * ttt__numbers(sum);
        ttt__assign(to, part[i]);
        if (i % 2 == 0) ttt__set_product(kit, sum, ttt__transpose_of(layer->x), layer->g);
        else ttt__set_row_sum(kit, sum, layer->g);
    }
}
// `first` has room for the weights before anything was read.
static void ttt__learned(ttt_ctx *ctx, const ttt_stream *stream, const ttt_tensor *memory,
                         const ttt_tensor *open, ttt_tensor *const *w0, ttt_real *first,
                         ttt_tensor *const *value, ttt_tensor *const *gradient) {
    int64_t H = memory->shape.dim[1], pairs = memory->shape.dim[0] * H;
    ttt__kit kit = ttt__kit_of(ctx, 0);
    ttt__chunked_arg arg;
    memset(&arg, 0, sizeof arg);
    arg.chunk = open->shape.dim[2];
    for (int64_t pair = 0; pair < pairs; pair++) {
        int64_t read = stream->read->index[pair / H];
        ttt__chunk_work chunk;
        memset(&chunk, 0, sizeof chunk);
        chunk.arg = &arg;
        chunk.rows = read % arg.chunk;
        chunk.state = read == 0 ? first : memory->data + pair * memory->shape.dim[2];
        chunk.open.at = open->data + pair * (open->size / pairs);
        for (int i = 0; i < 4; i++)
            if (w0[i])
                chunk.in[TTT__MEMORY_W0 + i] = ttt__parameter_part(w0[i], H, pair % H);
        if (read == 0) ttt__dense_start(&chunk);
        ttt__learned_pair(&kit, &chunk, pair, value, gradient);
    }
}
static ttt_tensor *ttt__memory_as_op(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                     ttt_tensor *const *in, int64_t chunk) {
    const ttt__chunked_kind *kind =
        ttt__memory_causal(desc) ? &ttt__dense_kind : &ttt__at_once_kind;
    return ttt__chunked_as_op(ctx, desc, kind, in, TTT__MEMORY_INPUTS, chunk);
}

// -- layer norm, and with it the MLP of a block
//     normed = x^ scale + shift, x^ = norm(x)         [ z = normed W_1 + b_1     a = gelu(z)
//                                                       y = x + a W_2 + b_2 ]
// The first line alone is the layer norm, y = normed; all are ttt_residual_mlp. The features of
// focused linear attention are made row by row, too: y = focus(x), with scale the unit of x and no
// shift. A matrix has a row for each row of x: D wide in x, y and normed, M wide in z and a. Rows
// go through in ranges of 96; their hidden numbers then stay in the cache. For the way back z is
// kept; normed and a are made again, which takes no product: a comes with gelu'(z), and that is
// wanted anyway.
//
//   ttt__...              one share is     reads                  writes
//   forwards
//     normed_share        a range          x                      z, y
//   backwards, in chunks of ranges
//     normed_back_share   a range          d_y, x, z               normed, a, d_z, d_x, d_scale,
//                                                                d_shift
//     normed_weights      as ttt_gemm's    normed, d_z, a, d_y     d_W_1, d_b_1, d_W_2, d_b_2
enum { TTT__RANGE_ROWS = 96, TTT__CHUNK_ROWS = 12 * TTT__RANGE_ROWS };
enum {  // inputs behind x
    TTT__NORMED_SCALE = 1, TTT__NORMED_SHIFT,
    TTT__NORMED_W1, TTT__NORMED_B1, TTT__NORMED_W2, TTT__NORMED_B2,
    TTT__NORMED_N
};
typedef struct ttt__normed_arg {
    ttt_real *z;                            // (rows,M), if a gradient may be asked for
    int power;                              // of the features; 0: a norm
} ttt__normed_arg;
typedef struct ttt__normed {
    ttt_ctx *ctx;
    int64_t rows, D, M;          // M = 0: layer norm or features alone
    int power;
    ttt__mat x, y, z, d_y, d_x;  // of all rows; d_y and d_x are absent forwards
    ttt__mat scale, shift, W1, b1, W2, b2;
    ttt_real *room;                         // of each thread
    int64_t room_size;
    // backward, of the chunk of rows that begins with `first`:
    int64_t first;
    ttt__mat normed, a, d_z;
    ttt__mat d_norm;                        // a row for each range: d_scale, then d_shift
    ttt__mat W1_tr, W2_tr;
} ttt__normed;

// What a thread works with: a range of rows.
typedef struct ttt__normed_work {
    ttt__kit kit;
    ttt__mat wide, hidden;                  // (RANGE_ROWS,D), (RANGE_ROWS,M)
} ttt__normed_work;
static ttt__normed_work ttt__normed_work_in(const ttt__normed *job, ttt__room *room, int thread) {
    ttt__normed_work work;
    work.kit = ttt__kit_of(job->ctx, thread);
    work.wide = ttt__take(room, TTT__RANGE_ROWS, job->D);
    work.hidden = ttt__take(room, TTT__RANGE_ROWS, job->M);
    return work;
}
static ttt__normed_work ttt__normed_work_of(const ttt__normed *job, int thread) {
    ttt__room room = { NULL, 0 };
    if (job->room) room.at = job->room + thread * job->room_size;
    return ttt__normed_work_in(job, &room, thread);
}

static int64_t ttt__row_ranges(int64_t rows) {
    return (rows + TTT__RANGE_ROWS - 1) / TTT__RANGE_ROWS;
}

// -- normed, forwards
static ttt__share_fn ttt__normed_share, ttt__normed_back_share;
static bool ttt__normed_begin(ttt__normed *job, ttt_ctx *ctx, const ttt_tensor *y);
static bool ttt__normed_back_begin(ttt__normed *job, const ttt_tensor *d_y, ttt_real *d_x);

static void ttt__normed_forward(ttt_ctx *ctx, ttt_tensor *y) {
    ttt__normed_arg *arg = (ttt__normed_arg *)(uintptr_t)y->arg;
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    ttt__normed job;
    if (y->size == 0) return;
    if (ctx->recording && !ctx->numbers_only && y->n_in == TTT__NORMED_N)
        arg->z = ttt__alloc_numbers(ctx, y->size / ttt__last(y), y->in[TTT__NORMED_B1]->size, true);
    if (ttt__normed_begin(&job, ctx, y)) {
        int64_t grain = 1 + 16384 / (TTT__RANGE_ROWS * job.D * (1 + job.M));
        ttt__parallel(ctx, -1, ttt__row_ranges(job.rows), grain, ttt__normed_share, &job);
    }
    ttt__arena_release(&ctx->scratch, scratch);
}

static void ttt__norm_rows(const ttt__normed *job, const ttt__kit *kit, ttt__mat normed,
                           ttt__mat x) {
    for (int64_t i = 0; i < x.rows; i++) {
        ttt_real *from = ttt__rows_at(x, i, 1).at, *to = ttt__rows_at(normed, i, 1).at;
        if (job->power) kit->lk->focus(job->D, from, job->scale.at, job->power, to);
        else kit->lk->layer_norm(job->D, from, job->scale.at, job->shift.at, to);
    }
}
static void ttt__norm_rows_back(const ttt__normed *job, const ttt__kit *kit, ttt__mat x,
                                ttt__mat d_normed, ttt__mat d_x, ttt__mat d_norm) {
    ttt_real *d_scale = d_norm.at, *d_shift = d_norm.at + job->D;
    for (int64_t i = 0; i < x.rows; i++) {
        ttt_real *from = ttt__rows_at(x, i, 1).at, *d_row = ttt__rows_at(d_normed, i, 1).at;
        ttt_real *to = ttt__rows_at(d_x, i, 1).at;
        if (job->power)
            kit->lk->focus_back(job->D, from, job->scale.at, job->power, d_row, to, d_scale);
        else kit->lk->layer_norm_back(job->D, from, job->scale.at, d_row, to, d_scale, d_shift);
    }
}
// y = residual + (x w + bias)
static void ttt__residual_affine(const ttt__kit *kit, ttt__mat y, ttt__mat residual, ttt__mat x,
                                 ttt__mat w, ttt__mat bias) {
    ttt__gemm gemm = { y.rows, y.cols, x.cols, x.at, x.down, x.across, w.at, w.down, w.across,
                       bias.at, 0, y.at, y.down, NULL, { NULL, residual.at, residual.down } };
    ttt__gemm_run(kit->k, &gemm, kit->pack);
}
static void ttt__normed_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__normed *job = (const ttt__normed *)arg;
    ttt__normed_work work = ttt__normed_work_of(job, thread);
    const ttt__kit *kit = &work.kit;
    for (int64_t share = begin; share < end; share++) {
        int64_t from = share * TTT__RANGE_ROWS;
        int64_t rows = TTT__MIN((int64_t)TTT__RANGE_ROWS, job->rows - from);
        ttt__mat x = ttt__rows_at(job->x, from, rows), y = ttt__rows_at(job->y, from, rows);
        ttt__mat normed = job->M ? ttt__rows_at(work.wide, 0, rows) : y;
        ttt__norm_rows(job, kit, normed, x);
        if (!job->M) continue;
        ttt__mat a = ttt__rows_at(work.hidden, 0, rows), z = a;
        if (job->z.at) z = ttt__rows_at(job->z, from, rows);
        ttt__affine(kit, z, normed, job->W1, job->b1);                // z = normed W_1 + b_1
        kit->k->map[TTT__MAP_gelu](ttt__numbers(z), z.at, a.at, 0);   // a = gelu(z)
        ttt__residual_affine(kit, y, x, a, job->W2, job->b2);         // y = x + a W_2 + b_2
    }
}

// -- normed, backwards
static void ttt__normed_weights(const ttt__normed *job, ttt__mat x, ttt__mat d_rows,
                                ttt_real *d_kernel, ttt_real *d_bias);
static void ttt__normed_chunk_back(ttt__normed *job, ttt_real *const *gradient) {
    int64_t rows = TTT__MIN((int64_t)TTT__CHUNK_ROWS, job->rows - job->first);
    int64_t ranges = ttt__row_ranges(rows), D = job->D;
    ttt__kit kit = ttt__kit_of(job->ctx, 0);
    ttt__mat d_scale = ttt__matrix(gradient[TTT__NORMED_SCALE], 1, D);
    ttt__mat d_shift = ttt__matrix(gradient[TTT__NORMED_SHIFT], 1, D);
    ttt__parallel(job->ctx, -1, ranges, 1, ttt__normed_back_share, job);
    for (int64_t i = 0; i < ranges; i++) {
        ttt__mat of_range = ttt__rows_at(job->d_norm, i, 1);
        ttt__plus(&kit, d_scale, ttt__cols_at(of_range, 0, D));
        if (!job->power) ttt__plus(&kit, d_shift, ttt__cols_at(of_range, D, D));
    }
    if (!job->M) return;
    ttt__normed_weights(job, ttt__rows_at(job->normed, 0, rows), ttt__rows_at(job->d_z, 0, rows),
                        gradient[TTT__NORMED_W1], gradient[TTT__NORMED_B1]);
    ttt__normed_weights(job, ttt__rows_at(job->a, 0, rows),
                        ttt__rows_at(job->d_y, job->first, rows), gradient[TTT__NORMED_W2],
                        gradient[TTT__NORMED_B2]);
}
static void ttt__normed_back(ttt_ctx *ctx, ttt_tensor *y, const ttt_tensor *d_y, ttt_tensor **into,
                             const bool *add) {
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    ttt_real *gradient[TTT__NORMED_N] = { NULL };
    ttt__normed job;
    for (int i = 0; i < y->n_in; i++) gradient[i] = ttt__gradient_room(ctx, y, into, add, i);
    if (y->size > 0 && ttt__normed_begin(&job, ctx, y) &&
        ttt__normed_back_begin(&job, d_y, gradient[0]))
        for (; job.first < job.rows; job.first += TTT__CHUNK_ROWS)
            ttt__normed_chunk_back(&job, gradient);
    ttt__arena_release(&ctx->scratch, scratch);
}

// A range of the MLP, from the gradient in y to that in normed:
//   d_z = (d_y W_2^T) o gelu'(z);  d_normed = d_z W_1^T;  d_x += d_y
// Leaves normed, a and d_z for the gradients of the weights, which are sums over the chunk.
static ttt__mat ttt__mlp_rows_back(const ttt__normed *job, const ttt__normed_work *work,
                                   int64_t local, int64_t rows) {
    const ttt__kit *kit = &work->kit;
    int64_t from = job->first + local;
    ttt__mat z = ttt__rows_at(job->z, from, rows), d_y = ttt__rows_at(job->d_y, from, rows);
    ttt__mat a = ttt__rows_at(job->a, local, rows), d_z = ttt__rows_at(job->d_z, local, rows);
    ttt__mat slope = ttt__rows_at(work->hidden, 0, rows);
    ttt__mat d_normed = ttt__rows_at(work->wide, 0, rows);
    ttt__norm_rows(job, kit, ttt__rows_at(job->normed, local, rows),
                   ttt__rows_at(job->x, from, rows));
    kit->lk->gelu_all(ttt__numbers(z), z.at, a.at, slope.at, NULL);
    ttt__set_product(kit, d_z, d_y, job->W2_tr);
    ttt__times(kit, d_z, d_z, slope);
    ttt__set_product(kit, d_normed, d_z, job->W1_tr);
    ttt__plus(kit, ttt__rows_at(job->d_x, from, rows), d_y);
    return d_normed;
}
static void ttt__normed_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__normed *job = (const ttt__normed *)arg;
    ttt__normed_work work = ttt__normed_work_of(job, thread);
    for (int64_t share = begin; share < end; share++) {
        int64_t local = share * TTT__RANGE_ROWS, from = job->first + local;
        int64_t rows = TTT__MIN((int64_t)TTT__RANGE_ROWS, job->rows - from);
        ttt__mat x = ttt__rows_at(job->x, from, rows), d_x = ttt__rows_at(job->d_x, from, rows);
        ttt__mat d_normed = job->M ? ttt__mlp_rows_back(job, &work, local, rows)
                                   : ttt__rows_at(job->d_y, from, rows);
        ttt__mat d_norm = ttt__rows_at(job->d_norm, share, 1);
        ttt__clear(d_norm);
        ttt__norm_rows_back(job, &work.kit, x, d_normed, d_x, d_norm);
    }
}
// d_kernel += x^T d_rows over the rows of a chunk, by all threads; d_bias += their sum.
static void ttt__normed_weights(const ttt__normed *job, ttt__mat x, ttt__mat d_rows,
                                ttt_real *d_kernel, ttt_real *d_bias) {
    ttt__kit kit = ttt__kit_of(job->ctx, 0);
    ttt_gemm_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.m = x.cols, desc.n = d_rows.cols, desc.k = x.rows;
    desc.a = x.at, desc.ta = true;
    desc.b = d_rows.at;
    desc.y = d_kernel, desc.add = d_kernel;
    ttt_gemm(job->ctx, &desc);
    ttt__add_row_sum(&kit, ttt__matrix(d_bias, 1, d_rows.cols), d_rows);
}

// -- normed: sizes, parameters, room; and the ops
static bool ttt__normed_begin(ttt__normed *job, ttt_ctx *ctx, const ttt_tensor *y) {
    int64_t D = ttt__last(y), rows = y->size / D;
    memset(job, 0, sizeof *job);
    job->ctx = ctx;
    job->D = D;
    job->rows = rows;
    job->x = ttt__matrix(y->in[0]->data, rows, D);
    job->y = ttt__matrix(y->data, rows, D);
    job->power = ((const ttt__normed_arg *)y->arg)->power;
    job->scale = ttt__matrix(y->in[TTT__NORMED_SCALE]->data, 1, D);
    if (!job->power) job->shift = ttt__matrix(y->in[TTT__NORMED_SHIFT]->data, 1, D);
    if (y->n_in < TTT__NORMED_N) return true;
    int64_t M = job->M = y->in[TTT__NORMED_B1]->size;
    job->z = ttt__matrix(((const ttt__normed_arg *)y->arg)->z, rows, M);
    job->W1 = ttt__matrix(y->in[TTT__NORMED_W1]->data, D, M);
    job->b1 = ttt__matrix(y->in[TTT__NORMED_B1]->data, 1, M);
    job->W2 = ttt__matrix(y->in[TTT__NORMED_W2]->data, M, D);
    job->b2 = ttt__matrix(y->in[TTT__NORMED_B2]->data, 1, D);
    ttt__room measure = { NULL, 0 };
    (void)ttt__normed_work_in(job, &measure, 0);
    job->room_size = measure.used;
    job->room = ttt__alloc_numbers(ctx, ctx->threads, job->room_size, false);
    return !ctx->result;
}
static bool ttt__normed_back_begin(ttt__normed *job, const ttt_tensor *d_y, ttt_real *d_x) {
    ttt_ctx *ctx = job->ctx;
    int64_t rows = TTT__MIN(job->rows, (int64_t)TTT__CHUNK_ROWS), D = job->D, M = job->M;
    job->d_y = ttt__matrix(d_y->data, job->rows, D);
    job->d_x = ttt__matrix(d_x, job->rows, D);
    job->d_norm = ttt__scratch(ctx, ttt__row_ranges(rows), 2 * D);
    if (!M) return !ctx->result;
    job->W1_tr = ttt__scratch(ctx, M, D);
    job->W2_tr = ttt__scratch(ctx, D, M);
    job->normed = ttt__scratch(ctx, rows, D);
    job->a = ttt__scratch(ctx, rows, M);
    job->d_z = ttt__scratch(ctx, rows, M);
    if (ctx->result) return false;
    ttt__kit kit = ttt__kit_of(ctx, 0);
    ttt__transpose(&kit, job->W1_tr, job->W1);
    ttt__transpose(&kit, job->W2_tr, job->W2);
    return true;
}

static ttt_tensor *ttt__layer_norm_composite(ttt_ctx *ctx, ttt_tensor *const *in,
                                             const ttt_tensor *y) {
    (void)y;
    return ttt__layer_norm_tape(ctx, in[TTT__NORMED_SCALE], in[TTT__NORMED_SHIFT], in[0]);
}
static ttt_tensor *ttt__residual_mlp_composite(ttt_ctx *ctx, ttt_tensor *const *in,
                                               const ttt_tensor *y) {
    (void)y;
    return ttt__residual_mlp_tape(ctx, in + TTT__NORMED_SCALE, in[0]);
}
static int64_t ttt__layer_norm_count(const ttt_tensor *y) { return 8 * y->size; }
static int64_t ttt__residual_mlp_count(const ttt_tensor *y) {
    return y->size * (4 * y->in[TTT__NORMED_B1]->size + 8);
}
static const ttt_op ttt__op_layer_norm = {
    "layer norm", "y = norm(x) s + t", TTT__NORMED_W1, 0, 0,
    ttt__normed_forward, NULL, ttt__layer_norm_composite, ttt__normed_back, ttt__layer_norm_count,
};
static const ttt_op ttt__op_residual_mlp = {
    "residual MLP", "y = x + gelu((norm(x) s + t) W_1 + b_1) W_2 + b_2", TTT__NORMED_N, 0, 0,
    ttt__normed_forward, NULL,
    ttt__residual_mlp_composite, ttt__normed_back, ttt__residual_mlp_count,
};

// One op of the norm's two weights, or these and the MLP's four. NULL if these shapes have no fused
// form (scale and bias of each head, say) or are wrong; the tape then runs them or reports the
// error.
static ttt_tensor *ttt__normed_fused(ttt_ctx *ctx, ttt_tensor *const *w, int n, ttt_tensor *x) {
    ttt_tensor *in[TTT__NORMED_N];
    signed char input[TTT__NORMED_N - 1];
    ttt__normed_arg arg = { NULL, 0 };
    bool mlp = n > 2;
    const ttt_op *op = mlp ? &ttt__op_residual_mlp : &ttt__op_layer_norm;
    bool fits = ttt__operands(ctx, op->name, &x, 1) && ttt__operands(ctx, op->name, w, n) &&
                x->shape.rank > (mlp ? 1 : 0);
    int64_t D = fits ? x->shape.dim[x->shape.rank - 1] : 0, M = fits && mlp ? w[3]->size : 0;
    ttt_shape row = TTT_SHAPE(D), hidden = TTT_SHAPE(M);
    ttt_shape wide = TTT_SHAPE(D, M), narrow = TTT_SHAPE(M, D);
    const ttt_shape *const shape[] = { &row, &row, &wide, &hidden, &narrow, &row };
    for (int i = 0; i < n && fits; i++) fits = ttt_shape_equal(w[i]->shape, *shape[i]);
    if (!fits || D == 0 || (mlp && M == 0)) return NULL;
    n = ttt__list_inputs(ctx, x, w, n, in, input);
    return ttt_apply(ctx, op, in, n, x->shape, &arg, sizeof arg);
}

static ttt_tensor *ttt__focus_composite(ttt_ctx *ctx, ttt_tensor *const *in, const ttt_tensor *y) {
    return ttt__focus(ctx, in[0], in[TTT__NORMED_SCALE], ((const ttt__normed_arg *)y->arg)->power);
}
static int64_t ttt__focus_count(const ttt_tensor *y) {
    return y->size * (8 + 2 * ((const ttt__normed_arg *)y->arg)->power);
}
static const ttt_op ttt__op_focus = {
    "focused features", "y = u^p |u| / |u^p|, u = (relu(x) + 1e-6) / unit", 2, 0, 0,
    ttt__normed_forward, NULL, ttt__focus_composite, ttt__normed_back, ttt__focus_count,
};
static ttt_tensor *ttt__focus_as_op(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *unit, int p) {
    ttt_tensor *in[2] = { x, unit };
    ttt__normed_arg arg = { NULL, p };
    return ttt_apply(ctx, &ttt__op_focus, in, 2, x->shape, &arg, sizeof arg);
}

// -- views of a given length, see ttt__sized. Three ops on the tape; here a range of rows goes
// through all of them while it is in the cache. With r = length / (|s|^2 + eps)^(1/2),
//   y = r s, s = SiLU(x)          d_x += SiLU'(x) o J d_y, J as that of ttt_normalize_d1
typedef struct ttt__sized_arg {
    double eps, length;
} ttt__sized_arg;
typedef struct ttt__sized_job {
    ttt_ctx *ctx;
    ttt__sized_arg of;
    ttt__mat x, y, d_y, d_x;   // of all rows; d_y and d_x are absent forwards
    ttt_real *room;            // backwards, of each thread: two ranges
} ttt__sized_job;
static ttt__sized_job ttt__sized_job_of(ttt_ctx *ctx, const ttt_tensor *y) {
    int64_t h = ttt__last(y), rows = y->size / h;
    ttt__sized_job job;
    memset(&job, 0, sizeof job);
    job.ctx = ctx;
    job.of = *(const ttt__sized_arg *)y->arg;
    job.of.eps /= (double)h;  // from sums to means, and back
    job.of.length /= sqrt((double)h);
    job.x = ttt__matrix(y->in[0]->data, rows, h);
    job.y = ttt__matrix(y->data, rows, h);
    return job;
}
static void ttt__sized_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__sized_job *job = (const ttt__sized_job *)arg;
    ttt__kit kit = ttt__kit_of(job->ctx, thread);
    int64_t h = job->x.cols, from, rows;
    for (int64_t share = begin; share < end; share++) {
        rows = ttt__piece(job->x.rows, TTT__RANGE_ROWS, share, &from);
        ttt_real *y = ttt__rows_at(job->y, from, rows).at;
        kit.k->map[TTT__MAP_silu](rows * h, ttt__rows_at(job->x, from, rows).at, y, 0);
        for (int64_t i = 0; i < rows; i++)
            kit.k->normalize(h, y + i * h, y + i * h, job->of.eps, false);
        kit.k->map[TTT__MAP_scale](rows * h, y, y, (ttt_real)job->of.length);
    }
}
static void ttt__sized_back_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__sized_job *job = (const ttt__sized_job *)arg;
    ttt__kit kit = ttt__kit_of(job->ctx, thread);
    int64_t h = job->x.cols, from, rows;
    ttt_real *s = job->room + 2 * thread * TTT__RANGE_ROWS * h, *d_s = s + TTT__RANGE_ROWS * h;
    for (int64_t share = begin; share < end; share++) {
        rows = ttt__piece(job->x.rows, TTT__RANGE_ROWS, share, &from);
        const ttt_real *x = ttt__rows_at(job->x, from, rows).at;
        const ttt_real *d_y = ttt__rows_at(job->d_y, from, rows).at;
        kit.k->map[TTT__MAP_silu](rows * h, x, s, 0);
        for (int64_t i = 0; i < rows; i++)
            kit.k->normalize_d1(h, s + i * h, d_y + i * h, d_s + i * h, job->of.eps, false);
        kit.k->map[TTT__MAP_scale](rows * h, d_s, d_s, (ttt_real)job->of.length);
        kit.k->map[TTT__MAP_silu_d1](rows * h, x, s, 0);
        kit.lk->add_times(rows * h, s, d_s, ttt__rows_at(job->d_x, from, rows).at);
    }
}
static void ttt__sized_forward(ttt_ctx *ctx, ttt_tensor *y) {
    if (y->size == 0) return;
    ttt__sized_job job = ttt__sized_job_of(ctx, y);
    int64_t grain = 1 + 4096 / (TTT__RANGE_ROWS * job.x.cols);
    ttt__parallel(ctx, -1, ttt__row_ranges(job.x.rows), grain, ttt__sized_share, &job);
}
static void ttt__sized_back(ttt_ctx *ctx, ttt_tensor *y, const ttt_tensor *d_y, ttt_tensor **into,
                            const bool *add) {
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    ttt_real *d_x = ttt__gradient_room(ctx, y, into, add, 0);
    if (y->size > 0) {
        ttt__sized_job job = ttt__sized_job_of(ctx, y);
        int64_t h = job.x.cols, grain = 1 + 4096 / (TTT__RANGE_ROWS * h);
        job.d_y = ttt__matrix(d_y->data, job.x.rows, h);
        job.d_x = ttt__matrix(d_x, job.x.rows, h);
        job.room = ttt__alloc_numbers(ctx, 2 * ctx->threads * TTT__RANGE_ROWS, h, false);
        if (!ctx->result)
            ttt__parallel(ctx, -1, ttt__row_ranges(job.x.rows), grain, ttt__sized_back_share, &job);
    }
    ttt__arena_release(&ctx->scratch, scratch);
}
static ttt_tensor *ttt__sized_composite(ttt_ctx *ctx, ttt_tensor *const *in, const ttt_tensor *y) {
    const ttt__sized_arg *of = (const ttt__sized_arg *)y->arg;
    return ttt__sized_tape(ctx, in[0], of->eps, of->length);
}
static int64_t ttt__sized_count(const ttt_tensor *y) { return 23 * y->size; }
static const ttt_op ttt__op_sized = {
    "view of a length", "y = length s / (|s|^2 + eps)^(1/2), s = silu(x)", 1, 0, 0,
    ttt__sized_forward, NULL, ttt__sized_composite, ttt__sized_back, ttt__sized_count,
};
static ttt_tensor *ttt__sized_as_op(ttt_ctx *ctx, ttt_tensor *x, double eps, double length) {
    ttt__sized_arg arg = { eps, length };
    if (!ttt_ok(ctx)) return &ctx->empty;
    return ttt_apply(ctx, &ttt__op_sized, &x, 1, x->shape, &arg, sizeof arg);
}

// -- the mixers that have a form of one op: NULL where these options have none
static ttt_tensor *ttt__mttt_as_op(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                                   ttt_tensor *x, ttt_tensor **losses) {
    int layers = ttt__dense_layers(desc->mixer->learner);
    bool sums_suffice = layers == 1 && desc->no_decoder_norm && !desc->inner_sgd && !losses;
    if (!layers || desc->first_order) return NULL;
    return sums_suffice ? ttt__qkv_fused(ctx, desc, w, x)
                        : ttt__mttt_fused(ctx, desc, w, x, losses);
}
static ttt_tensor *ttt__linear_attention_as_op(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                               ttt_tensor *const *w, ttt_tensor *x,
                                               ttt_tensor **losses) {
    if (desc->causal) return ttt__linear_attention_tape(ctx, desc, w, x, losses);
    bool all_real = true;
    for (int i = 0; i < desc->mixer->n_rows; i++)
        all_real = all_real && w[i]->dtype == TTT_DTYPE_REAL;
    if (desc->normalizer == TTT_NORMALIZER_NONE || !all_real) return NULL;
    return ttt__qkv_fused(ctx, desc, w, x);
}
#endif  // TTT_NO_FUSED

// ---- [10] THE REGISTRY --------------------------------------------------------------------------
const ttt_mixer *ttt_mixer_at(int i) {
#define X(id) &ttt_mixer_##id,
    static const ttt_mixer *const all[] = { TTT_MIXERS(X) };
#undef X
    return i >= 0 && i < (int)(sizeof all / sizeof *all) ? all[i] : NULL;
}
const ttt_mixer *ttt_mixer_find(const char *name) {
    for (int i = 0; name && ttt_mixer_at(i); i++)
        if (strcmp(ttt_mixer_at(i)->name, name) == 0) return ttt_mixer_at(i);
    return NULL;
}

// -- options
typedef struct ttt__option {
    const char *name, *with, *meaning, *type;
    size_t at, size;  // in ttt_mixer_desc
} ttt__option;
#define X(type, field, with, meaning)                                                              \
    { #field, with, meaning, #type, offsetof(ttt_mixer_desc, field), sizeof(type) },
static const ttt__option ttt__options[] = { TTT_MIXER_OPTIONS(X) };
#undef X
enum { TTT__N_OPTIONS = sizeof ttt__options / sizeof *ttt__options };

static bool ttt__option_set(const ttt_mixer_desc *desc, const ttt__option *option) {
    const char *value = (const char *)desc + option->at;
    for (size_t i = 0; i < option->size; i++)
        if (value[i]) return true;
    return false;
}

// Whether a word stands in a text, which may be NULL, with blanks between its words.
static bool ttt__has_word(const char *text, const char *word) {
    size_t n = strlen(word);
    for (const char *at = text; at && (at = strstr(at, word)) != NULL; at++)
        if ((at == text || at[-1] == ' ') && (at[n] == ' ' || !at[n])) return true;
    return false;
}
bool ttt_mixer_takes(const ttt_mixer *mixer, const char *option) {
    return mixer && option && ttt__has_word(mixer->takes, option);
}

// The option without which o has no effect on this mixer and which is not set, or NULL.
static const ttt__option *ttt__option_lacks(const ttt_mixer *mixer, const ttt_mixer_desc *desc,
                                            const ttt__option *option) {
    for (int i = 0; i < TTT__N_OPTIONS && option->with && ttt_mixer_takes(mixer, option->with); i++)
        if (strcmp(ttt__options[i].name, option->with) == 0)
            return ttt__option_set(desc, &ttt__options[i]) ? NULL : &ttt__options[i];
    return NULL;
}

ttt_mixer_desc ttt_mixer_offer(const ttt_mixer *mixer, const ttt_mixer_desc *desc) {
    ttt_mixer_desc taken;
    memset(&taken, 0, sizeof taken);
    if (desc) taken = *desc;
    taken.mixer = mixer;
    for (int i = 0; i < TTT__N_OPTIONS && mixer && desc; i++) {
        const ttt__option *option = &ttt__options[i];
        if (!ttt_mixer_takes(mixer, option->name) || ttt__option_lacks(mixer, desc, option))
            memset((char *)&taken + option->at, 0, option->size);
    }
    return taken;
}

static bool ttt__options_good(ttt_ctx *ctx, const ttt_mixer_desc *desc) {
    const ttt_mixer *mixer = desc->mixer;
    for (int i = 0; i < TTT__N_OPTIONS && ttt_ok(ctx); i++) {
        const ttt__option *option = &ttt__options[i], *lacks;
        if (!ttt__option_set(desc, option)) continue;
        if (!ttt_mixer_takes(mixer, option->name))
            ttt_fail(ctx, TTT_ERR_ARGUMENT,
                     "%s: .%s is set, which it does not take; it takes: %s. For %s", mixer->name,
                     option->name, mixer->takes ? mixer->takes : "no option", option->meaning);
        else if ((lacks = ttt__option_lacks(mixer, desc, option)) != NULL)
            ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: .%s has no effect without .%s", mixer->name,
                     option->name, lacks->name);
    }
    return ttt_ok(ctx);
}

// -- descriptions
// The rates of a mixer that has inner steps, and how many these are.
static void ttt__check_steps(ttt_ctx *ctx, const ttt_mixer_desc *desc) {
    const char *name = desc->mixer->name;
    if (desc->inner_lr == 0 && !desc->inner_lrs)
        ttt_fail(ctx, TTT_ERR_UNSET, "%s: .inner_lr has no default and was not set (.inner_lrs may "
                 "hold zeros)", name);
    else if (desc->inner_lr != 0 && desc->inner_lrs)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: .inner_lr has no effect beside .inner_lrs", name);
    else if (desc->inner_steps < 0)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: .inner_steps is %d; at least 1 expected", name,
                 desc->inner_steps);
}
// N < 0: not known yet.
static bool ttt__mixer_good(ttt_ctx *ctx, const ttt_mixer_desc *desc, int64_t N) {
    if (!TTT__GIVEN("mixer", desc)) return false;
    const ttt_mixer *mixer = desc->mixer;
    if (!mixer)
        ttt_fail(ctx, TTT_ERR_UNSET, "mixer: .mixer is not set; ttt_mixer_find gives one by name");
    else if (desc->dim < 1 || desc->heads < 1)
        ttt_fail(ctx, TTT_ERR_UNSET, "%s: .dim is %lld and .heads %lld; both must be set",
                 mixer->name, (long long)desc->dim, (long long)desc->heads);
    else if (desc->dim % desc->heads)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: .dim %lld is not divisible by .heads %lld",
                 mixer->name, (long long)desc->dim, (long long)desc->heads);
    if (!ttt_ok(ctx) || !ttt__options_good(ctx, desc)) return false;
    if (ttt_mixer_takes(mixer, "inner_lr")) ttt__check_steps(ctx, desc);
    if (ttt_ok(ctx) && mixer->flags & TTT_MIXER_GRID) ttt__check_grid(ctx, desc, N);
    if (ttt_ok(ctx) && mixer->check) mixer->check(ctx, desc, N);
    return ttt_ok(ctx);
}

// Which rows of the tables are present: the bits that their only_if asks for.
static unsigned ttt__mixer_bits(const ttt_mixer_desc *desc) {
    unsigned bits = 0;
    if (!desc->no_inner_bias && !(desc->mixer->flags & TTT_MIXER_UNBIASED))
        bits |= TTT_LEARNER_BIAS;
    if (!desc->no_decoder_norm) bits |= TTT__DECODER_NORM;
    if (desc->learn_rates) bits |= TTT__LEARNED_RATES;
    if (desc->globals) bits |= TTT__GLOBALS;
    if (!desc->no_short_conv) bits |= TTT__SHORT_CONV;
    if (desc->causal) bits |= TTT__CAUSAL;
    if (desc->token_index) bits |= TTT__TOKEN_INDEX;
    bits |= desc->share_qk ? TTT__SHARED_QK : TTT__OWN_KEYS;
    if (desc->output_gate) bits |= TTT__OUTPUT_GATE;
    return bits;
}
static ttt_sizes ttt__mixer_sizes(const ttt_mixer_desc *desc) {
    // No tensor is so wide; from here on sums of widths are numbers.
    int64_t D = TTT__MIN(desc->dim, INT64_MAX / 8), h = D / desc->heads;
    ttt_sizes sizes = ttt__sizes("DHhT", D, desc->heads, h, ttt__steps(desc));
    sizes.of[(int)'E'] = 3 * D + 3 * h;  // vittt's views, and what its branches give
    sizes.of[(int)'P'] = D + h;
    sizes.of[(int)'N'] = desc->max_tokens;
    sizes.of[(int)'K'] = ttt__compressed(desc);
    sizes.of[(int)'M'] = ttt__chunk_or(desc, 16);
    sizes.of[(int)'C'] = ttt__conv_taps(desc);
    return sizes;
}

int ttt_mixer_count(const ttt_mixer_desc *desc) {
    const ttt_mixer *mixer = desc ? desc->mixer : NULL;
    if (!mixer) return 0;
    unsigned bits = ttt__mixer_bits(desc);
    return ttt__rows_present(mixer->rows, mixer->n_rows, bits) +
           (mixer->learner ? ttt__rows_present(mixer->learner->rows, mixer->learner->n_rows, bits)
                           : 0);
}

ttt_weights ttt_mixer_new(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_params *params,
                          const char *prefix) {
    if (!ttt__mixer_good(ctx, desc, -1) || !TTT__GIVEN(desc->mixer->name, params))
        return ttt__no_weights();
    const ttt_mixer *mixer = desc->mixer;
    unsigned bits = ttt__mixer_bits(desc);
    ttt_sizes sizes = ttt__mixer_sizes(desc);
    int first = params->n;
    ttt_weights own = ttt_params_add(ctx, mixer->rows, mixer->n_rows, bits, &sizes, params, prefix),
                inner = ttt__no_weights();
    if (mixer->learner)
        inner = ttt_params_add(ctx, mixer->learner->rows, mixer->learner->n_rows, bits, &sizes,
                               params, prefix);
    for (int i = 0, n = 0; i < mixer->n_rows && ttt_ok(ctx); i++) {
        if (!ttt__row_present(&mixer->rows[i], bits)) continue;
        ttt_tensor *tensor = own.at[n++];
        for (int64_t k = 0; k < tensor->size && mixer->rows[i].only_if & TTT__LEARNED_RATES; k++)
            tensor->data[k] = desc->inner_lrs ? desc->inner_lrs[k] : desc->inner_lr;
    }
    for (int i = 0; i < inner.n && desc->zero_w0; i++)
        memset(inner.at[i]->data, 0, (size_t)inner.at[i]->size * sizeof(ttt_real));
    return ttt__params_since(ctx, params, first);
}

// Takes the weights of a table off *w, into one tensor a row with NULL for absent ones, and checks
// that they are what desc asks for: a fused layer reads them by desc alone.
static bool ttt__by_row(ttt_ctx *ctx, const ttt_mixer_desc *desc, const ttt_param_row *rows,
                        int n_rows, ttt_weights *w, ttt_tensor **row) {
    ttt_sizes sizes = ttt__mixer_sizes(desc);
    unsigned bits = ttt__mixer_bits(desc);
    for (int i = 0; i < n_rows && ttt_ok(ctx); i++) {
        ttt_shape shape = ttt_scalar_shape();
        row[i] = NULL;
        if (!ttt__row_present(&rows[i], bits)) continue;
        shape.rank = ttt__read_sizes(rows[i].shape, &sizes, shape.dim);
        row[i] = w->n > 0 ? ttt__weight(ctx, desc->mixer->name, w) : NULL;
        ttt__weight_good(ctx, desc->mixer->name, rows[i].name, row[i], shape,
                         ttt__weight_types(rows[i].flags));
    }
    return ttt_ok(ctx);
}

// The weights of a layer by the rows of its table and its learner's. NULL after an error.
static ttt_tensor **ttt__mixer_rows(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_weights weights) {
    if (!ttt__weights_alive(ctx, desc->mixer->name, weights)) return NULL;
    const ttt_learner *learner = desc->mixer->learner;
    int n_rows = desc->mixer->n_rows, n_inner = learner ? learner->n_rows : 0;
    ttt_tensor **row = ttt__weights_room(ctx, n_rows + n_inner, false);
    if (!row || !ttt__by_row(ctx, desc, desc->mixer->rows, n_rows, &weights, row)) return NULL;
    if (learner && !ttt__by_row(ctx, desc, learner->rows, n_inner, &weights, row + n_rows))
        return NULL;
    if (weights.n > 0)
        ttt_fail(ctx, TTT_ERR_SHAPE,
                 "%s: %d weights more than the %d that its description asks for",
                 desc->mixer->name, weights.n, ttt_mixer_count(desc));
    return ttt_ok(ctx) ? row : NULL;
}
ttt_tensor *ttt_mixer_forward(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_weights weights,
                              ttt_tensor *x, ttt_tensor **losses) {
    if (losses) *losses = NULL;
    if (!TTT__GIVEN("mixer", desc) ||
        !ttt__operands(ctx, desc->mixer ? desc->mixer->name : "mixer", &x, 1))
        return &ctx->empty;
    if (!ttt__mixer_good(ctx, desc, x->shape.rank == 3 ? x->shape.dim[1] : -1)) return &ctx->empty;
    if (desc->order && !ttt__alive(ctx, desc->order))
        ttt__not_living(ctx, desc->mixer->name, desc->order, "order");
    if (!ttt_ok(ctx)) return &ctx->empty;
    if (x->shape.rank != 3 || x->shape.dim[2] != desc->dim) {
        ttt_text text;
        return ttt_fail(ctx, TTT_ERR_SHAPE, "%s: x has shape %s; (B,N,%lld) expected",
                        desc->mixer->name, ttt_shape_text(x->shape, text), (long long)desc->dim);
    }
    ttt_tensor **row = ttt__mixer_rows(ctx, desc, weights);
    if (!row) return &ctx->empty;
    bool whole = desc->mixer->fused && !desc->no_fused && !desc->unmask && !desc->stream;
    ttt_tensor *y = whole ? desc->mixer->fused(ctx, desc, row, x, losses) : NULL;
    return y ? y : desc->mixer->forward(ctx, desc, row, x, losses);
}

// The same inside a call that begins and ends itself, as a layer of a model.
static ttt_tensor *ttt__mixer_stream(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_weights weights,
                                     ttt__stream_part *part, ttt_tensor *x) {
    ttt_mixer_desc open = *desc;
    const char *name = desc->mixer ? desc->mixer->name : "mixer";
    bool causal = desc->causal || (desc->mixer && desc->mixer->flags & TTT_MIXER_CAUSAL);
#ifdef TTT_NO_FUSED
    ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: compiled with TTT_NO_FUSED, which leaves streams out",
             name);
#endif
    if (desc->mixer && !(desc->mixer->flags & TTT_MIXER_STREAMS))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: it needs the whole sequence, and reads no stream",
                 name);
    else if (desc->mixer && !causal)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: a stream needs .causal", name);
    else if (desc->no_fused)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: .no_fused is set; a stream has no form op by op",
                 name);
    if (!ttt_ok(ctx)) return &ctx->empty;
    open.stream = part;
    bool recording = ttt_set_recording(ctx, false);
    ttt_tensor *y = ttt_mixer_forward(ctx, &open, weights, x, NULL);
    ttt_set_recording(ctx, recording);
    return y;
}
ttt_tensor *ttt_mixer_stream(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_weights weights,
                             ttt_stream *stream, ttt_tensor *x, const int64_t *counts) {
    if (!TTT__GIVEN("mixer_stream", desc) || !TTT__GIVEN("mixer_stream", stream) ||
        !ttt__operands(ctx, "mixer_stream", &x, 1))
        return &ctx->empty;
    ttt_text text;
    if (x->shape.rank != 3)
        return ttt_fail(ctx, TTT_ERR_SHAPE, "mixer_stream: x has shape %s; (B,n,D) expected",
                        ttt_shape_text(x->shape, text));
    int64_t B = x->shape.dim[0], n = x->shape.dim[1];
    ttt__stream_part part = { stream, NULL, counts, n };
    if (!ttt__counts_good(ctx, "mixer_stream", B, n, counts) ||
        !ttt__stream_begin(ctx, "mixer_stream", stream, B))
        return &ctx->empty;
    ttt_tensor *y = ttt__mixer_stream(ctx, desc, weights, &part, x);
    if (ttt_ok(ctx)) ttt__only_new(&part, y);
    ttt__stream_end(ctx, &part);
    return y;
}

ttt_result ttt_stream_learner(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_weights weights,
                              const ttt_stream *stream, const char *prefix, ttt_tensor **value,
                              ttt_tensor **gradient) {
    if (!TTT__GIVEN("stream_learner", stream) || !TTT__GIVEN("stream_learner", value) ||
        !TTT__GIVEN("stream_learner", gradient) || !ttt__mixer_good(ctx, desc, -1))
        return ttt_status(ctx);
    const ttt_learner *learner = desc->mixer->learner;
    const ttt_tensor *memory = ttt__stream_find(stream, prefix, "memory"),
                     *open = ttt__stream_find(stream, prefix, "open");
    ttt_tensor **row = ttt__mixer_rows(ctx, desc, weights);
    if (!learner || !(desc->mixer->flags & TTT_MIXER_STREAMS))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: no learner of its streams", desc->mixer->name);
    else if (!memory || !open)
        ttt_fail(ctx, TTT_ERR_UNSET, "%s: the stream has no state of it", desc->mixer->name);
    if (!ttt_ok(ctx)) return ttt_status(ctx);
    ttt_tensor *w0[4] = { NULL }, *to[4] = { NULL }, *sum[4] = { NULL };
    int64_t size = 0;
    for (int i = 0; i < learner->n_rows; i++) {
        w0[i] = row[desc->mixer->n_rows + i];
        size += w0[i] ? w0[i]->size / desc->heads : 0;
    }
    if (memory->shape.dim[1] != desc->heads || memory->shape.dim[2] % size)
        ttt_fail(ctx, TTT_ERR_SHAPE, "%s: the stream's state is of another layer",
                 desc->mixer->name);
    for (int i = 0; i < learner->n_rows && ttt_ok(ctx); i++) {
        ttt_shape shape = TTT_SHAPE(stream->lanes);
        for (int j = 0; w0[i] && j < w0[i]->shape.rank; j++)
            shape.dim[shape.rank++] = w0[i]->shape.dim[j];
        value[i] = to[i] = w0[i] ? ttt_zeros(ctx, shape) : NULL;
        gradient[i] = sum[i] = w0[i] ? ttt_zeros(ctx, shape) : NULL;
    }
#ifndef TTT_NO_FUSED
    ttt_real *first = ttt_ok(ctx) ? ttt__alloc_numbers(ctx, 1, memory->shape.dim[2], true) : NULL;
    if (first) ttt__learned(ctx, stream, memory, open, w0, first, to, sum);
#endif
    return ttt_status(ctx);
}

// ---- UNMASKING ----------------------------------------------------------------------------------
static void ttt__unmask_matrix(ttt_ctx *ctx, ttt_unmasked *unmasked, ttt_tensor *matrix,
                               ttt_tensor *v, ttt_tensor *read) {
    (void)ctx;
    unmasked->matrix = matrix;
    unmasked->value = v;
    unmasked->read = read;
}
static void ttt__unmask_features(ttt_ctx *ctx, ttt_unmasked *unmasked, ttt_tensor *q, ttt_tensor *k,
                                 ttt_tensor *v, ttt_tensor *start, ttt_tensor *read) {
    unmasked->query = q;
    unmasked->key = k;
    unmasked->start = start;
    ttt__unmask_matrix(ctx, unmasked, ttt_matmul_t(ctx, q, k, false, true), v, read);
}
// x with a last feature that is 1, which a bias is the kernel's row of
static ttt_tensor *ttt__with_one(ttt_ctx *ctx, ttt_tensor *x) {
    if (!ttt_ok(ctx)) return x;
    ttt_shape shape = x->shape;
    shape.dim[shape.rank - 1] = 1;
    ttt_tensor *both[2] = { x, ttt_full(ctx, shape, 1) };
    return ttt_concat(ctx, both, 2, shape.rank - 1);
}
static void ttt__unmask_weighted(ttt_ctx *ctx, ttt_unmasked *unmasked, ttt_tensor *q, ttt_tensor *k,
                                 ttt_tensor *v, ttt_tensor *weights, bool bias, ttt_tensor *read) {
    if (bias) q = ttt__with_one(ctx, q), k = ttt__with_one(ctx, k);
    ttt__unmask_features(ctx, unmasked, q, k, v, NULL, read);
    unmasked->matrix = ttt_mul(ctx, unmasked->matrix, weights);
}
static void ttt__unmask_start(ttt_ctx *ctx, ttt_unmasked *unmasked, ttt_tensor *kernel,
                              ttt_tensor *bias, ttt_tensor *carry) {
    ttt_tensor *both[2] = { kernel, bias };
    unmasked->start = bias ? ttt_concat(ctx, both, 2, 2) : kernel;
    unmasked->carry = carry;
}

static void ttt__linear_attention_unmask(ttt_ctx *ctx, const ttt_mixer_desc *desc,
                                         const ttt__features *of, ttt_tensor *v, ttt_tensor *y) {
    ttt_unmasked *unmasked = desc->unmask;
    unmasked->equals = desc->causal ? "causal linear attention" : "linear attention";
    if (!ttt_ok(ctx)) return;
    ttt__decays left;
    ttt__decays_of(ctx, of->g, y->shape.dim[2], &left);
    if (of->g)
        ttt__unmask_matrix(ctx, unmasked, ttt__decayed_product(ctx, &left, of->q, of->k), v, y);
    else if (desc->causal)
        ttt__unmask_weighted(ctx, unmasked, of->q, of->k, v, left.between, false, y);
    else ttt__unmask_features(ctx, unmasked, of->q, of->k, v, NULL, y);
    if (desc->normalizer == TTT_NORMALIZER_CONSTANT)
        unmasked->matrix =
            ttt_scale(ctx, unmasked->matrix, 1 / (ttt_real)(v->shape.dim[2] * v->shape.dim[3]));
    if (desc->normalizer == TTT_NORMALIZER_ADAPTIVE)
        unmasked->matrix = ttt_div(ctx, unmasked->matrix, ttt_sum_axis(ctx, unmasked->matrix, -1));
}

static void ttt__mttt_unmask(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_tensor *const *w,
                             ttt_tensor *query, ttt_tensor *read) {
    ttt_unmasked *unmasked = desc->unmask;
    const ttt_learner *learner = desc->mixer->learner;
    ttt_weights w0 = ttt__present(ctx, w + TTT__MTTT_W0, learner->n_rows);
    bool linear = ttt__dense_layers(learner) == 1, zero = true;
    if (!query) {
        unmasked->equals = "none: the last layer of its learner is not linear";
        return;
    }
    if (!ttt_ok(ctx)) return;
    bool biased = ttt__ends_in_bias(learner, w0.n);
    ttt_tensor *const *last = w0.at + w0.n - 1 - biased;  // kernel and bias
    for (int i = 0; i <= biased; i++)
        for (int64_t j = 0; j < last[i]->size; j++) zero = zero && last[i]->data[j] == 0;
    if (linear && zero && desc->inner_steps <= 1 && desc->no_decoder_norm)
        unmasked->equals =
            "linear attention (identity map, constant normalizer) with q = psi x, k = phi "
            "x, v = eta (x - b_g) G^T";
    else
        unmasked->equals = linear ? "linear attention whose values are the learner's errors"
                           : "linear attention on the features of the learner's hidden layer, "
                             "whose values are its errors";
    int64_t B = read->shape.dim[0];
    ttt_tensor *k = unmasked->key, *v = unmasked->value,
               *bias = biased ? ttt__lift_weight(ctx, last[1], B) : NULL;
    if (bias) query = ttt__with_one(ctx, query), k = ttt__with_one(ctx, k);
    ttt__unmask_features(ctx, unmasked, query, k, v, NULL, read);
    ttt__unmask_start(ctx, unmasked, ttt__lift_weight(ctx, last[0], B), bias, NULL);
}

static void ttt__longformer_unmask(ttt_ctx *ctx, const ttt_mixer_desc *desc, const ttt_tensor *a,
                                   ttt_tensor *top, ttt_tensor *v, ttt_tensor *top_v,
                                   ttt_tensor *y) {
    int64_t B = v->shape.dim[0], H = desc->heads, N = v->shape.dim[1], g = desc->globals;
    ttt__attention near_ones = ttt__in_window(desc);
    ttt__tiling tiling = ttt__tiling_of(ctx, &near_ones.sight, N - g);
    ttt_tensor *local = ttt_zeros(ctx, TTT_SHAPE(B, H, N, N)), *both[2] = { local, NULL },
               *values[2] = { v, top_v };
    for (int64_t r = 0; ttt_ok(ctx) && r < B * H * (N - g); r++) {
        int64_t bh = r / (N - g), place = tiling.place[r % (N - g)];
        const ttt_real *row = a->data + (bh * tiling.tiles * tiling.q + place) * tiling.k;
        ttt_real *to = local->data + (bh * N + g + r % (N - g)) * N;
        for (int64_t j = 0; j < tiling.k; j++)
            to[tiling.key[place / tiling.q * tiling.k + j]] += row[j];
    }
    if (g) both[1] = ttt_pad(ctx, top, 2, 0, N);
    ttt__unmask_attention(ctx, desc,
                          g ? "softmax attention in a window, with tokens that see all (the pairs "
                              "are twice N: these have values of their own)"
                            : "softmax attention in a window",
                          g ? ttt_concat(ctx, both, 2, 3) : local,
                          g ? ttt_concat(ctx, values, 2, 1) : v, y);
}

static void ttt__unmask_certify(ttt_ctx *ctx, ttt_unmasked *unmasked) {
    ttt_tensor *y = ttt_matmul(ctx, unmasked->matrix, unmasked->value);
    if (unmasked->start) {
        ttt_tensor *from = ttt_matmul(ctx, unmasked->query, unmasked->start);
        y = ttt_add(ctx, y, unmasked->carry ? ttt_mul(ctx, from, unmasked->carry) : from);
    }
    if (!ttt_ok(ctx)) return;
    double most = ttt__max_abs(unmasked->read);
    unmasked->exact = true;
    unmasked->error = most > 0 ? ttt_max_abs_diff(y, unmasked->read) / most : ttt__max_abs(y);
}
// Where there is no exact form: row by row the Jacobian of the whole layer.
static void ttt__unmask_linearize(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_weights weights,
                                  ttt_tensor *all, ttt_unmasked *unmasked) {
    int64_t N = all->shape.dim[1], D = all->shape.dim[2];
    ttt_tensor *x = ttt_detach(ctx, ttt_slice(ctx, all, 0, 0, 1)), *move = ttt_randn(ctx, x->shape);
    double size = sqrt((double)ttt_item(ttt_mean(ctx, ttt_square(ctx, x))));
    move = ttt_scale(ctx, move, (ttt_real)(0.01 * size));
    ttt_rng rng = *ttt_ctx_rng(ctx);
    ttt_tensor *y = ttt_mixer_forward(ctx, desc, weights, x, NULL);
    *ttt_ctx_rng(ctx) = rng;  // a drawn order of tokens is the same again
    ttt_tensor *moved = ttt_mixer_forward(ctx, desc, weights, ttt_add(ctx, x, move), NULL);
    unmasked->matrix = ttt_zeros(ctx, TTT_SHAPE(1, 1, N, N));
    double off = 0, most = 0;
    for (int64_t i = 0; i < N * D && ttt_ok(ctx); i++) {
        ttt_mark mark = ttt_mark_get(ctx);
        ttt_tensor *seed = ttt_zeros(ctx, y->shape), *g;
        if (ttt_ok(ctx)) seed->data[i] = 1;
        double along = 0;
        if (ttt_vjp(ctx, y, seed, &x, 1, &g, TTT_GRAD_FIRST_ORDER) != TTT_OK) break;
        for (int64_t j = 0; j < N * D; j++) {
            unmasked->matrix->data[i / D * N + j / D] += g->data[j] * g->data[j];
            along += (double)g->data[j] * (double)move->data[j];
        }
        double change = (double)moved->data[i] - (double)y->data[i];
        off = fabs(change - along) > off ? fabs(change - along) : off;
        most = fabs(change) > most ? fabs(change) : most;
        ttt_mark_release(ctx, mark);
    }
    unmasked->error = most > 0 ? off / most : off;
    if (ttt_ok(ctx)) unmasked->matrix = ttt_sqrt(ctx, unmasked->matrix);
}
ttt_result ttt_unmask(ttt_ctx *ctx, const ttt_mixer_desc *desc, ttt_weights weights, ttt_tensor *x,
                      ttt_unmasked *out) {
    if (!TTT__GIVEN("unmask", desc) || !TTT__GIVEN("unmask", out)) return ttt_status(ctx);
    ttt_mixer_desc open = *desc, closed = *desc;
    bool recording = ttt_set_recording(ctx, true);
    memset(out, 0, sizeof *out);
    out->equals = "none: the layer does not say";
    open.unmask = out;
    closed.unmask = NULL;
    ttt_mixer_forward(ctx, &open, weights, x, NULL);
    if (ttt_ok(ctx) && out->matrix) ttt__unmask_certify(ctx, out);
    else if (ttt_ok(ctx)) {
        const char *why = out->equals;
        memset(out, 0, sizeof *out);
        out->equals = why;
        ttt__unmask_linearize(ctx, &closed, weights, x, out);
    }
    ttt_set_recording(ctx, recording);
    return ttt_status(ctx);
}

TTT__PRECISE_END
#define TTT__PART TTT__CLOSE
#include TTT__TENSOR_FILE
#undef TTT__PART

/*  REFERENCES
    Sun et al.: Learning to (learn at test time). arXiv 2310.13807; code: test-time-training/mttt.
    Katharopoulos et al.: Transformers are RNNs. arXiv 2006.16236. Vaswani et al.: Attention is
    all you need. arXiv 1706.03762. Milakov, Gimelshein: Online normalizer calculation for
    softmax. arXiv 1805.02867. Dao et al.: FlashAttention. arXiv 2205.14135. Glorot, Bengio:
    Understanding the difficulty of training deep feedforward neural networks. AISTATS 2010. Ba et
    al.: Layer normalization. arXiv 1607.06450. Beyer et al.: Better plain ViT baselines for
    ImageNet-1k. arXiv 2205.01580. Sun et al.: Learning to (learn at test time): RNNs with
    expressive hidden states. arXiv 2407.04620; code: test-time-training/ttt-lm-pytorch. Su et al.:
    RoFormer. arXiv 2104.09864. Test-time training with KV binding is secretly linear attention.
    arXiv 2602.21204. Wang et al.: Linformer. arXiv 2006.04768. Beltagy et al.:
    Longformer. arXiv 2004.05150. Zhang et al.: Multi-scale vision Longformer. arXiv 2103.15358.
    Han et al.: FLatten transformer. arXiv 2308.00442. Yang et al.: Parallelizing linear
    transformers with the delta rule. arXiv 2406.06484. Yang et al.: Gated delta networks. arXiv
    2412.06464. Behrouz et al.: Titans. arXiv 2501.00663. Zhang et al.: Test-time training done
    right. arXiv 2505.23884. Han et al.: ViT^3, unlocking test-time training in vision. arXiv
    2512.01643. Wang et al.: KVT, k-NN attention. arXiv 2106.00515. Nadaraya: On estimating
    regression. 1964. Watson: Smooth regression analysis. 1964. Jordan et al.: Muon. 2024.
    Kimi Team: Kimi Linear. arXiv 2510.26692.

    LICENSE: MIT No Attribution (MIT-0), see the end of ttt_tensor.h.
*/
#endif  // TTT_LAYERS_IMPLEMENTED
#endif  // TTT_LAYERS_IMPLEMENTATION
