/*  ttt_model.h - v0.6.0 - models made of layers that learn at test time, and their training.

    DO THIS
        #define TTT_IMPLEMENTATION      // in exactly one C or C++ file, before the include
        #include "ttt_model.h"          // includes the other three, which must lie beside it
    and compile with  cc -O2 file.c -lm .  Everywhere else just include it.

    AN EXAMPLE: one training step of a vision transformer whose token mixers are MLPs that learn
        ttt_params p = { 0 };
        ttt_vit_desc d = { 0 };
        d.image = 28; d.channels = 1; d.patch = 4; d.width = 48; d.depth = 2; d.classes = 10;
        d.mixer.mixer = ttt_mixer_find("mttt-mlp"); d.mixer.heads = 3; d.mixer.inner_lr = 1;
        ttt_vit_new(c, &d, &p, "");                                     // its parameters, into p
        ttt_optimizer_desc o = { 0 };
        o.lr = 2e-3f; o.weight_decay = 0.05f; o.warmup = 100; o.total = 2000;
        ttt_optimizer *opt = ttt_optimizer_new(c, &o, &p);

        ttt_mark m = ttt_mark_get(c);                                   // all below is this step's
        ttt_weights w = ttt_params_weights(&p);                         // or any others
        ttt_tensor *logits = ttt_vit_forward(c, &d, w, images, NULL);   // (B,28,28,1) -> (B,10)
        ttt_tensor *loss = ttt_cross_entropy_labels(c, logits, labels, -1);
        ttt_optimizer_step(c, opt, loss);                               // gradient, then update
        ttt_mark_release(c, m);

    INDEX
        [1] LOSSES        softmax and sigmoid cross-entropy, on labels too; accuracy, mixup
        [2] VIT           the vision transformer of the MTTT paper
        [3] LANGUAGE MODEL  tokens in, logits of the next out, by layers that learn as they read
        [4] OPTIMIZERS    Adam, AdamW, momentum, the chain of MTTT; clipping, warm-up, cosine
        [5] CHECKPOINTS   weights from files; all that is needed to go on as if never stopped
        [6] MODEL FOLDERS  language models in the layout of Hugging Face
        [7] GENERATION    text from a language model, piece by piece
        [8] AUDIT         does a model of sequences, anybody's, keep its promises?
        [9] KERNELS       the loops of the optimizers, one text for every instruction set
        and below TTT_MODEL_IMPLEMENTATION the first eight again, implemented.
*/
#if !defined(TTT_MODEL_H) && !defined(TTT__PART)
#define TTT_MODEL_H

#ifndef TTT_DATA_H
#include "ttt_data.h"
#endif
#ifndef TTT_LAYERS_H
#include "ttt_layers.h"
#endif

#define TTT__PART TTT__OPEN
#include TTT__TENSOR_FILE
#undef TTT__PART

// ---- [1] LOSSES ---------------------------------------------------------------------------------
// labels: integers (B) in 0..classes-1 -> (B,classes), 1 at the label. TTT_ERR_ARGUMENT outside.
TTT_API ttt_tensor *ttt_one_hot(ttt_ctx *ctx, ttt_tensor *labels, int64_t classes);
// logits (B,C), target (B,C), soft or one-hot -> ():
//   mean over B of - sum_c target log softmax(logits)
// An answer whose target is 0 adds 0, even if its logit is -infinity.
TTT_API ttt_tensor *ttt_cross_entropy(ttt_ctx *ctx, ttt_tensor *logits, ttt_tensor *target);
// logits (...,C), labels (...) of dtype INT -> ():  mean of - log softmax(logits)[label] over the
// labels other than `ignored` (PyTorch's ignore_index; -1 if there is nothing to ignore); the mean
// of none is 0. Logits of an ignored label may be anything, NaN too, and their gradient is 0; they
// cost nothing. TTT_ERR_ARGUMENT for any other label outside 0..C-1.
TTT_API ttt_tensor *ttt_cross_entropy_labels(ttt_ctx *ctx, ttt_tensor *logits, ttt_tensor *labels,
                                             int64_t ignored);
// logits (B,C), target (B,C) -> (), for C separate yes/no questions:
//   mean over B of - sum_c target log sigmoid(logits) + (1 - target) log sigmoid(-logits)
// A term whose factor is 0 is 0, even if the logit is infinite.
TTT_API ttt_tensor *ttt_binary_cross_entropy(ttt_ctx *ctx, ttt_tensor *logits, ttt_tensor *target);
// How many rows of logits (B,C) are largest at their label, of labels (B) of dtype INT. Of several
// equal logits the first counts as the largest. A row with NaN is wrong, and so is one whose label
// is outside 0..C-1 or not there; labels without a row do not count. -1 for anything else than a
// matrix of real numbers and integers.
TTT_API int64_t ttt_count_correct(const ttt_tensor *logits, const ttt_tensor *labels);
// Mixup as in MTTT's recipe: *x (B,...) becomes a new tensor, a x + (1 - a) x rolled by one along
// B, and so does *target; a, one for the batch, is the larger of a Dirichlet(p,p) pair. Both are
// leaves, because no gradient goes into data. p = 0 leaves the two as they are; TTT_ERR_ARGUMENT
// for a p below 0 or NaN.                                                              [Zhang 2018]
TTT_API void ttt_mixup(ttt_ctx *ctx, ttt_rng *rng, double p, ttt_tensor **x, ttt_tensor **target);

// ---- [2] VIT ------------------------------------------------------------------------------------
// patches + positions, after the global tokens if there are any
// -> depth blocks of  x += mixer(LN x);  x += MLP(LN x)
// -> LN -> mean over tokens -> tanh(dense) -> dense
// The model of arXiv 2310.13807, with flax's names of parameters.                     [Beyer 2022]
typedef struct ttt_vit_desc {
    int64_t image, channels, patch;  // required; square images, patch divides image
    int64_t width, depth, classes;   // required
    int64_t mlp;                     // hidden width of the block's MLP; 0: 4 width
    bool learned_positions;          // else fixed sines and cosines, which need width % 4 == 0
    ttt_mixer_desc mixer;            // .dim is set from width; .grid_rows, .grid_cols, .max_tokens
                                     // from the image if they are 0 and the mixer takes them. Its
                                     // .globals are learned tokens before the patches
    bool remat;                      // blocks keep only their input; gradients compute them again
} ttt_vit_desc;

// What a forward pass takes and gives beside images and logits. Zero, or NULL, is nothing.
typedef struct ttt_vit_call {
    ttt_tensor *order;    // integers (depth,H,N): token order of every layer's mini-batches
    bool want_losses;     // asks for the inner losses; .remat has no effect then
    ttt_tensor **losses;  // receives them: depth tensors (T+1), NULL where nothing learns inside
} ttt_vit_call;

// Checks a description and makes the parameters it asks for; no weights after an error.
TTT_API ttt_weights ttt_vit_new(ttt_ctx *ctx, const ttt_vit_desc *desc, ttt_params *params,
                                const char *prefix);
TTT_API int ttt_vit_count(const ttt_vit_desc *desc);  // how many these are
// images (B,image,image,channels) -> logits (B,classes).
// Errors: TTT_ERR_SHAPE if weights or images are not what desc asks for.
TTT_API ttt_tensor *ttt_vit_forward(ttt_ctx *ctx, const ttt_vit_desc *desc, ttt_weights weights,
                                    ttt_tensor *images, ttt_vit_call *call);
// N: patches and global tokens; -1 if that is no number
TTT_API int64_t ttt_vit_tokens(const ttt_vit_desc *desc);
// Forward pass of one image; NaN if sizes are missing, below 0 or beyond counting.
TTT_API double ttt_vit_flops(const ttt_vit_desc *desc);

// ---- [3] LANGUAGE MODEL -------------------------------------------------------------------------
// x = embedding of the tokens
// -> depth blocks of  [x += conv(RMSNorm x);]  x += mixer(RMSNorm x);  x += SwiGLU(RMSNorm x)
// -> RMSNorm -> logits x E^T, E the head or, if it is tied, the embedding
// With the mixers ttt-linear and ttt-mlp this is TTTForCausalLM; its convolution is causal,
// depthwise, with bias.                                                        [arXiv 2407.04620]
typedef struct ttt_lm_desc {
    int64_t vocab, width, depth;  // required: tokens are 0..vocab-1
    int64_t mlp;                  // hidden width of SwiGLU; 0: 8/3 width, to a multiple of 16
    bool pre_conv;                // a convolution before each mixer,
    int64_t conv;                 // of so many taps; 0: 4
    ttt_real norm_eps;            // of the RMS norms; 0: 1e-6
    bool tied;                    // the head is the embedding
    ttt_mixer_desc mixer;         // a causal one; .dim is set from width
    bool remat;                   // blocks keep only their input; gradients compute them again
} ttt_lm_desc;

// What a forward pass gives beside logits. Zero, or NULL, is nothing.
typedef struct ttt_lm_call {
    bool want_hidden;     // asks for what the layers say
    ttt_tensor **hidden;  // receives depth+1 tensors (B,L,D): after each block, after the last norm
} ttt_lm_call;

// The description of a model of the paper: "125m", "350m", "760m" or "1b", with ttt-linear and a
// vocabulary of 32,000. Change what you like. All zero for another name.
TTT_API ttt_lm_desc ttt_lm_preset(const char *name);
// Checks a description and makes the parameters it asks for; no weights after an error. They have
// the official code's names (see ttt_lm_write), with slashes: "model/layers/0/seq_norm/scale".
TTT_API ttt_weights ttt_lm_new(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_params *params,
                               const char *prefix);
TTT_API int ttt_lm_count(const ttt_lm_desc *desc);  // how many these are
// tokens (B,L) of dtype INT -> logits (B,L,vocab), of each token's successor. Errors: TTT_ERR_SHAPE
// if weights are not what desc asks for, TTT_ERR_ARGUMENT for a token outside the vocabulary.
TTT_API ttt_tensor *ttt_lm_forward(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_weights weights,
                                   ttt_tensor *tokens, ttt_lm_call *call);
// Reads more of each sequence: tokens (B,n) -> logits (B,n,vocab) of the successors, or with
// `last_only` (B,1,vocab) those of each lane's last new token. counts, the state and errors are as
// for ttt_mixer_stream, and so is what a way to cut a text changes: nothing, or little. Names of
// the state begin with those of the layers. Memory grows with n, by what one block takes: read long
// texts in pieces. Errors: as ttt_lm_forward, for the tokens that are counted.
TTT_API ttt_tensor *ttt_lm_stream(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_weights weights,
                                  ttt_stream *stream, ttt_tensor *tokens, const int64_t *counts,
                                  bool last_only);
// 16 hexadecimal digits that name a model: its description and all of its weights. In the step
// arena; NULL after an error.
TTT_API const char *ttt_lm_fingerprint(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_weights weights);
// logits (B,L,V) of ttt_lm_forward, tokens (B,L) -> (): the mean cross-entropy of position t
// against token t+1, in nats. Tokens below 0 are not looked for; the mean of none is 0.
TTT_API ttt_tensor *ttt_lm_loss(ttt_ctx *ctx, ttt_tensor *logits, ttt_tensor *tokens);
// Forward pass of one sequence of L tokens; NaN if sizes are missing or below 0.
TTT_API double ttt_lm_flops(const ttt_lm_desc *desc, int64_t L);

// ---- [4] OPTIMIZERS -----------------------------------------------------------------------------
// A rule is a row of facts: its name, what it keeps beside each parameter p, the options it takes,
// its update. With the gradient g clipped to global norm `clip`, k the number of the update from 0,
// u = m^ / (sqrt v^ + eps) Adam's direction (where a |g| above 1e19, whose square no float holds,
// counts as 1e19), and the schedule
//   s(k) = min(1, k / warmup) (1 + cos(pi clamp((k - warmup) / (total - warmup), 0, 1))) / 2 :
//   ttt_rule_adamw     p -= s lr (u + wd p)                                     [Loshchilov 2019]
//   ttt_rule_adam      p -= s lr u           with g + wd p in place of g        [Kingma 2015]
//   ttt_rule_momentum  p -= s lr m           m = momentum m + g + wd p          [Polyak 1964]
//   ttt_rule_mttt      p -= s (lr u + wd p)  the optax chain of the official code: decay is not
//                                            multiplied by the rate
// Decay reaches only parameters whose table says so. Note s(0) = 0 when there is warm-up.
#define TTT_RULES(X) X(adamw) X(adam) X(momentum) X(mttt)
typedef struct ttt_rule ttt_rule;
#define X(name) TTT_CONSTANT ttt_rule ttt_rule_##name;
TTT_RULES(X)
#undef X
TTT_API const ttt_rule *ttt_rule_at(int i);  // these by number from 0; NULL past the last

typedef struct ttt_optimizer_desc {
    const ttt_rule *rule;          // NULL: ttt_rule_adamw
    ttt_real lr;                   // required
    ttt_real weight_decay;         // wd
    ttt_real clip;                 // 0: no clipping
    int64_t warmup, total;         // in updates; total 0: no cosine
    int accumulate;                // steps whose gradients are averaged for one update; 0: 1
    bool freeze_inner;             // W0 stays as it is: no update, not in the clip norm
    // Of Adam and its kin:
    ttt_real beta1, beta2, eps;    // 0: 0.9, 0.999, 1e-8
    bool bf16_moment;              // m is stored in bfloat16, as MTTT's configurations do
    // Of momentum:
    ttt_real momentum;             // 0: plain gradient descent
} ttt_optimizer_desc;

// What a rule is told about the parameter that it updates. The gradient is `scale` times the
// gathered one; the scale includes clipping and the mean over the gathered steps.
typedef struct ttt_update {
    const ttt_optimizer_desc *desc;  // with its defaults filled in
    int64_t k;                       // number of the update from 0
    double s;                        // s(k) of the schedule
    ttt_real scale;                  // of the gathered gradient
    double norm;                     // of scale times all parameters' gradients: none is larger
    ttt_real decay;                  // wd; 0 for a parameter that does not decay
    int64_t n;                       // numbers in the parameter
    ttt_real *p;                     // these numbers, which the update changes
    const ttt_real *gathered;        // their gathered gradient
    ttt_tensor *const *state;        // the row's state tensors, which it changes too; 0 at first
} ttt_update;

// A program may write a row of its own and put it into a description. To add one to the library,
// write its formula and its name above, and its row and update in the implementation.
struct ttt_rule {
    const char *name;
    const char *state;    // names of the tensors it keeps, of the parameter's shape: "m v"
    const char *takes;    // the options it takes beside those of all rules: "beta1 beta2"
    double flops;         // of one number's update, for the profile
    void (*update)(ttt_ctx *ctx, const ttt_update *u);
};

typedef struct ttt_optimizer {
    ttt_optimizer_desc desc;   // with its defaults filled in
    ttt_params *params;
    int n;                     // parameters that are trained
    int *row;                  // their places in the list
    ttt_tensor **grad;         // the gathered gradient of each
    int n_state;               // state tensors of each
    ttt_tensor **state;        // (n,n_state): in the order of the parameters, then of the row
    int64_t updates;           // done
    int64_t skipped;           // left out because the gradient was not finite
    int gathered;              // steps since the last update
    double grad_norm;          // of the last update, before clipping
} ttt_optimizer;

// Trains the parameters in the list now. NULL after an error: TTT_ERR_UNSET without a rate,
// TTT_ERR_ARGUMENT for an option that is out of range or that the rule does not take.
TTT_API ttt_optimizer *ttt_optimizer_new(ttt_ctx *ctx, const ttt_optimizer_desc *desc,
                                         ttt_params *params);
// Adds d loss / d parameters to the gathered gradients; every `accumulate` steps makes one update.
// A gradient that is not finite is not an error: the update is left out and counted as skipped.
// TTT_ERR_ARGUMENT: the loss has no tape. After any error all is as it was: once there is memory
// again, say, ttt_clear and the same step give the same bits.
TTT_API ttt_result ttt_optimizer_step(ttt_ctx *ctx, ttt_optimizer *optimizer, ttt_tensor *loss);
TTT_API double ttt_schedule(const ttt_optimizer_desc *desc, int64_t k);  // s(k)

// ---- [5] CHECKPOINTS ----------------------------------------------------------------------------
#ifndef TTT_NO_STDIO
// The weights that a file holds for the parameters, found by name, in the order of the list: to run
// a model with, or to load by ttt_weights_blend(ctx, ttt_params_weights(params), weights, 1). They
// are the file's own tensors, cast to REAL if of another type. `name` is what errors call the file.
// No weights after an error: TTT_ERR_FORMAT if one is missing or has another shape.
TTT_API ttt_weights ttt_weights_find(ttt_ctx *ctx, const ttt_params *params, const char *name,
                                     const ttt_bundle *file);
// Writes parameters by name, the optimizer's state and counts unless it is NULL, with its gathered
// gradients if there are any, the context's random state, and the caller's notes (epoch, position
// in the data, ...).
TTT_API ttt_result ttt_checkpoint_save(ttt_ctx *ctx, const char *path, const ttt_params *params,
                                       const ttt_optimizer *optimizer, const ttt_note *notes,
                                       int64_t n_notes);
// Reads them back into parameters, optimizer (unless NULL) and context. Everything must be there in
// the right shape, of any type that ttt_weights_find takes; else nothing is changed. The file stays
// in *file (step arena), for its notes.
TTT_API ttt_result ttt_checkpoint_load(ttt_ctx *ctx, const char *path, ttt_params *params,
                                       ttt_optimizer *optimizer, ttt_bundle *file);
// Writes what a stream remembers; `owner` says of what it is, as ttt_lm_fingerprint does.
TTT_API ttt_result ttt_stream_save(ttt_ctx *ctx, const char *path, const ttt_stream *stream,
                                   const char *owner);
// Makes *stream what the file remembers. The same calls then give the same bits as if there had
// been no file. Takes memory as ttt_stream_copy does. TTT_ERR_FORMAT for a file that is no state,
// or that of another owner; *stream is as it was then.
TTT_API ttt_result ttt_stream_load(ttt_ctx *ctx, const char *path, ttt_stream *stream,
                                   const char *owner);

// ---- [6] MODEL FOLDERS --------------------------------------------------------------------------
// A language model as a folder in the layout of Hugging Face: config.json, and model.safetensors or
// several such files with model.safetensors.index.json, as the official code of TTT-LM (PyTorch)
// writes it. Names are our own with points for slashes, "weight" for kernel, scale and embedding,
// and a few words of the official layer; matrices are stored as (out,in), and turned here. Models
// with other mixers are kept in the same way; "mixer" in their config.json says which and how.
// A folder may also hold what the official JAX code saved and its authors released: the file
// streaming_params or streaming_train_state beside a config.json, which may have that code's keys
// ("seq_modeling_block", "conv_width").
typedef struct ttt_lm_folder {
    bool bf16;        // read: keep matrices as bfloat16, to compute with; write: all as bfloat16
    int64_t bos, eos; // tokens that begin and end a text, as config.json says; -1: it does not say.
                      // write: nor if both are 0
    const char **left;  // read: what nothing here has a use for, as "config.json: 'zzz'", in the
    int n_left;         // step arena, and how many things these are
} ttt_lm_folder;
// Reads a config.json. TTT_ERR_FORMAT names the key that is missing, of another kind, out of range,
// twice there or against another; *desc is all zero then. folder: NULL, or is told all but `bf16`.
TTT_API ttt_result ttt_lm_config_read(ttt_ctx *ctx, const char *path, ttt_lm_desc *desc,
                                      ttt_lm_folder *folder);
// Reads a folder: its description into *desc and its weights, of F64, F32, F16 or BF16, into
// *params, an empty list. Tensors are read by parts, so that it takes little more memory than the
// model. folder may be NULL. Errors: TTT_ERR_FILE, TTT_ERR_FORMAT, also where weights and config
// disagree, and for a shard whose name leads out of the folder. *desc and *params are all zero
// then.
TTT_API ttt_result ttt_lm_read(ttt_ctx *ctx, const char *path, ttt_lm_desc *desc,
                               ttt_params *params, ttt_lm_folder *folder);
// Writes config.json and model.safetensors into a folder, which must be there, from the parameters
// that ttt_lm_new or ttt_lm_read made, without their prefix. Read again, they have the same bits
// (unless folder->bf16 asks for 16). folder may be NULL. Errors: those of ttt_safetensors_write and
// ttt_file_begin; TTT_ERR_ARGUMENT for the parameters of another model.
TTT_API ttt_result ttt_lm_write(ttt_ctx *ctx, const char *path, const ttt_lm_desc *desc,
                                const ttt_params *params, const ttt_lm_folder *folder);
#endif

// ---- [7] GENERATION -----------------------------------------------------------------------------
// How a token is chosen from the logits of the next. Zero is greedy: the likeliest token.
typedef struct ttt_choice {
    ttt_real temperature;  // tokens are drawn by softmax(logits / temperature); 0: the likeliest,
                           // of equals the first
    int64_t top_k;         // of so many of the likeliest; 0: of all
    ttt_real top_p;        // of the likeliest that together have this probability; 0: of all
    ttt_real repetition;   // logits of tokens that were seen are divided by it, or, below 0,
                           // multiplied; 0: 1                                        [1909.05858]
} ttt_choice;
// A token of 0..vocab-1 by its logit; -1 after an error: TTT_ERR_ARGUMENT for a choice out of range
// or a logit that is NaN. seen: n_seen tokens; others than the vocabulary's do not count.
TTT_API int64_t ttt_choose(ttt_ctx *ctx, const ttt_choice *choice, ttt_rng *rng,
                           const ttt_real *logits, int64_t vocab, const int64_t *seen,
                           int64_t n_seen);

#ifndef TTT_NO_TOKENIZERS
typedef struct ttt_generate_desc {
    ttt_choice choice;
    uint64_t seed;              // of what is drawn
    int64_t tokens;             // required: at most so many new ones
    const int64_t *ends;        // tokens that end the text,
    int n_ends;                 // and how many there are
    const char *const *stops;   // texts that end it; neither they nor what follows is given out
    int n_stops;
    // Gets each piece of the text, n bytes, always whole characters of UTF-8, as soon as it is
    // sure. If it returns false, the text ends. NULL: nobody looks
    bool (*piece)(void *user, const char *text, size_t n);
    void *user;
} ttt_generate_desc;
typedef struct ttt_generated {
    int64_t read, made;  // tokens of the prompt, and new ones
    bool ended;          // by an end, a stop or the receiver of pieces; else there were enough
} ttt_generated;
// Reads the prompt, n bytes, behind what the stream has read, one lane, and goes on with it. The
// stream has then read all of both: the next prompt continues. A prompt may be empty where the
// tokenizer puts tokens around it and nothing has been read. *out (may be NULL) counts. Errors:
// those of ttt_encode and ttt_lm_stream, TTT_ERR_UNSET without tokens, TTT_ERR_ARGUMENT for an
// empty prompt; the stream may then have read a part.
TTT_API ttt_result ttt_generate(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_weights weights,
                                const ttt_tokenizer *tokenizer, ttt_stream *stream,
                                const char *prompt, size_t n, const ttt_generate_desc *how,
                                ttt_generated *out);
#endif

// ---- [8] AUDIT ----------------------------------------------------------------------------------
// Does a model of sequences keep its promises? A leak of the future, of a neighbor or of padding
// makes training look good and use fail. The audit asks any model, through one function of plain
// arrays, pairs of inputs whose answers must be the same, and reports the smallest pair it finds
// whose answers are not. A check is a row:
//   determinism  the same answers when asked again, and after other questions
//   causality    later tokens change nothing, NaN and infinity among them where vectors are taken
//   stream       a stream that reads all in one piece answers as one pass does
//   split        so does one that reads in pieces of any length, lanes resting at times
//   padding      neither the number nor the content of the tokens behind a lane's length matters
//   packing      segments of one lane answer as if alone
//   lanes        lanes do not see each other, and may change places
//   batch        nor does their number matter
typedef struct ttt_audit_input {
    int64_t B, L;             // lanes, and tokens of each
    const int64_t *ids;       // (B,L): the tokens; or
    const ttt_real *vectors;  // (B,L,D)
    const int64_t *lengths;   // (B): tokens that count, those behind them are padding. NULL: L each
    const int64_t *segments;  // (B,L): 1, 2, ...; those of one number are a sequence by itself, and
                              // share their lane with others. NULL: a lane is one sequence
} ttt_audit_input;

// Zero is no stream, no lengths, no segments, and a good default where nothing else is said.
typedef struct ttt_audit_desc {
    void *user;         // handed to the functions. They return TTT_OK; else the audit ends there
    // Writes out (B,L,V); what belongs to padding may be anything. Required.
    ttt_result (*forward)(void *user, const ttt_audit_input *in, ttt_real *out);
    // A stream: `begin` forgets all, and makes B lanes that have read nothing. `read` reads the
    // next L tokens of each lane, or as many as in->lengths says, 0 too, and answers as `forward`.
    ttt_result (*begin)(void *user, int64_t B);
    ttt_result (*read)(void *user, const ttt_audit_input *in, ttt_real *out);
    int64_t V;          // numbers of an answer; required
    int64_t vocab;      // tokens are ids 0 .. vocab - 1, at least two of them; or
    int64_t width;      // they are vectors of D numbers. Required, one of the two
    bool lengths;       // the model, and its stream, heed in->lengths; else they are always NULL
    bool segments;      // the model heeds in->segments
    bool finite;        // vectors must be finite: NaN and infinity are not tried
    int64_t B, L;       // of the questions; 0: 3 lanes of 12 tokens. One lane leaves out two checks
    ttt_real tolerance; // what may differ, as a share of the largest number in all answers to an
                        // input; 0: no bit
    uint64_t seed;      // of the tokens
} ttt_audit_desc;

typedef enum ttt_audit_verdict {
    TTT_AUDIT_PASSED,
    TTT_AUDIT_FAILED,
    TTT_AUDIT_NOT_APPLICABLE  // the model cannot express it, or does not answer twice the same
} ttt_audit_verdict;

typedef struct ttt_audit_row {
    const char *check;              // "causality"
    ttt_audit_verdict verdict;
    int64_t pairs;                  // of inputs that were compared
    const char *why;                // failed: what must not matter, but does; passed: ""
    // Of a check that failed, the shortest pair, of the fewest lanes, that shows it:
    ttt_audit_input first, second;  // in the step arena
    int64_t piece, other_piece;     // tokens that the stream read at once of each; 0: no stream
    int64_t lane, position;         // of `first`: the earliest token whose answers differ
    double size;                    // by how much, at most; infinite if one is not finite
} ttt_audit_row;

enum { TTT_AUDIT_CHECKS = 8 };
typedef struct ttt_audit_report {
    bool passed;  // no check failed
    ttt_audit_row row[TTT_AUDIT_CHECKS];
} ttt_audit_report;

// Asks, compares, and fills in the report; that a check failed is no error. Errors: TTT_ERR_UNSET
// and TTT_ERR_ARGUMENT for a description that lacks something or contradicts itself; what one of
// its functions returned.
TTT_API ttt_result ttt_audit(ttt_ctx *ctx, const ttt_audit_desc *desc, ttt_audit_report *report);
// The report as a table, with the inputs that prove what failed, in the step arena; "" after an
// error.
TTT_API const char *ttt_audit_text(ttt_ctx *ctx, const ttt_audit_report *report);

#define TTT__PART TTT__CLOSE
#include TTT__TENSOR_FILE
#undef TTT__PART
#endif  // TTT_MODEL_H

// =================================================================================================
// ---- [9] KERNELS --------------------------------------------------------------------------------
// The loops of the optimizers: one text for every instruction set, in the words that [8] of
// ttt_tensor.h explains. A loop passes once over a parameter p (n) and its gathered gradient g,
// makes a direction u of g' = pass.scale g + pass.l2 p, and steps:
//     p = p - pass.rate u - pass.decay p
#if defined(TTT__PART)
#if TTT__PART == TTT__MODEL_KERNELS
#undef TTT__PART
#define TTT__PART TTT__NEXT_SET
#include TTT__TENSOR_FILE
#undef TTT__PART
#define TTT__PART TTT__MODEL_KERNELS
#ifdef TTT__SET

// m = b1 m + (1-b1) g',  v = b2 v + (1-b2) g'^2,  u = (m c1) / (sqrt(v c2) + eps)     [Kingma 2015]
INLINE void KN(adam_part)(int64_t i, int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m,
                          ttt_real *v, const ttt__pass *pass) {
    VEC pv = KN(part)(p, i, n), gv = KN(part)(g, i, n) * pass->scale + pv * pass->l2;
    VEC mv = KN(part)(m, i, n) * pass->b1 + gv * (1 - pass->b1);
    VEC vv = KN(part)(v, i, n) * pass->b2 + gv * gv * (1 - pass->b2);
    VEC u = mv * pass->c1 / (KN(sqrt)(vv * pass->c2, pv) + pass->eps);
    KN(put)(m, i, n, mv);
    KN(put)(v, i, n, vv);
    KN(put)(p, i, n, pv - u * pass->rate - pv * pass->decay);
}
KERNEL void KN(adam)(int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, ttt_real *v,
                     const ttt__pass *pass) {
    const ttt__pass own = *pass;  // a copy that no store can change
#define TERM(i, n) KN(adam_part)(i, n, p, g, m, v, &own)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// m = b1 m + g',  u = m                                                               [Polyak 1964]
INLINE void KN(momentum_part)(int64_t i, int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m,
                              const ttt__pass *pass) {
    VEC pv = KN(part)(p, i, n), gv = KN(part)(g, i, n) * pass->scale + pv * pass->l2;
    VEC mv = KN(part)(m, i, n) * pass->b1 + gv;
    KN(put)(m, i, n, mv);
    KN(put)(p, i, n, pv - mv * pass->rate - pv * pass->decay);
}
KERNEL void KN(momentum)(int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m,
                         const ttt__pass *pass) {
    const ttt__pass own = *pass;
#define TERM(i, n) KN(momentum_part)(i, n, p, g, m, &own)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

static const ttt__rule_kernels KN(rule_table) = {
#define X(name, parameters) KN(name),
    TTT__RULE_KERNEL_LIST(X)
#undef X
};

#include TTT__THIS_FILE("ttt_model.h")  // once more, for the next set
#endif
#endif

// =================================================================================================
#elif defined(TTT_MODEL_IMPLEMENTATION) || defined(TTT_IMPLEMENTATION)
#ifndef TTT_MODEL_IMPLEMENTED
#define TTT_MODEL_IMPLEMENTED

#ifndef TTT_DATA_IMPLEMENTATION
#define TTT_DATA_IMPLEMENTATION  // a header's macro implies those of the headers below it
#endif
#ifndef TTT_LAYERS_IMPLEMENTATION
#define TTT_LAYERS_IMPLEMENTATION
#endif
#ifndef TTT_DATA_IMPLEMENTED
#include "ttt_data.h"
#endif
#ifndef TTT_LAYERS_IMPLEMENTED
#include "ttt_layers.h"
#endif

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TTT__PART TTT__OPEN
#include TTT__TENSOR_FILE
#undef TTT__PART
TTT__PRECISE

// What printf would print, in the step arena; NULL after an error.
static const char *ttt__text_of(ttt_ctx *ctx, const char *format, ...) {
    va_list args;
    va_start(args, format);
    size_t n = (size_t)vsnprintf(NULL, 0, format, args) + 1;
    va_end(args);
    char *text = (char *)ttt_alloc(ctx, n, false);
    va_start(args, format);
    if (text) vsnprintf(text, n, format, args);
    va_end(args);
    return text;
}

// ---- LOSSES -------------------------------------------------------------------------------------
ttt_tensor *ttt_one_hot(ttt_ctx *ctx, ttt_tensor *labels, int64_t classes) {
    if (!ttt__operand(ctx, "one_hot", labels, 0, TTT__INT)) return &ctx->empty;
    ttt_shape shape = TTT_SHAPE(labels->size, classes);
    if (!ttt__shape_good(ctx, "one_hot", shape, TTT_DTYPE_REAL)) return &ctx->empty;
    ttt_tensor *tensor = ttt_zeros(ctx, shape);
    for (int64_t i = 0; ttt_ok(ctx) && i < labels->size; i++) {
        int64_t label = labels->index ? labels->index[i] : -1;
        if (label < 0 || label >= classes)
            return ttt_fail(ctx, TTT_ERR_ARGUMENT, "one_hot: label %lld at place %lld; integers "
                            "0..%lld expected", (long long)label, (long long)i,
                            (long long)(classes - 1));
        tensor->data[i * classes + label] = 1;
    }
    return tensor;
}

static bool ttt__same_shape(ttt_ctx *ctx, const char *what, ttt_tensor *a, ttt_tensor *b) {
    ttt_text ta, tb;
    ttt_tensor *both[2] = { a, b };
    if (!ttt__operands(ctx, what, both, 2)) return false;
    if (a->shape.rank != 2 || !ttt_shape_equal(a->shape, b->shape))
        ttt_fail(ctx, TTT_ERR_SHAPE, "%s: logits %s, target %s; (B,C) both expected", what,
                 ttt_shape_text(a->shape, ta), ttt_shape_text(b->shape, tb));
    return ttt_ok(ctx);
}

// weight * value, and 0 where the weight is, though the value be infinite.
static ttt_tensor *ttt__weighted(ttt_ctx *ctx, ttt_tensor *weight, ttt_tensor *value) {
    return ttt_mul(ctx, weight, ttt_where(ctx, weight, value, ttt_scalar(ctx, 0)));
}
ttt_tensor *ttt_cross_entropy(ttt_ctx *ctx, ttt_tensor *logits, ttt_tensor *target) {
    if (!ttt__same_shape(ctx, "cross_entropy", logits, target)) return &ctx->empty;
    ttt_tensor *sum = ttt_sum(ctx, ttt__weighted(ctx, target, ttt_log_softmax(ctx, logits)));
    return ttt_scale(ctx, sum, -1 / (ttt_real)logits->shape.dim[0]);
}

static bool ttt__labels_good(ttt_ctx *ctx, const ttt_tensor *labels, int64_t C, int64_t ignored) {
    for (int64_t i = 0; i < labels->size && ttt_ok(ctx); i++) {
        int64_t label = labels->index[i];
        if (label != ignored && (label < 0 || label >= C))
            ttt_fail(ctx, TTT_ERR_ARGUMENT,
                     "cross_entropy_labels: label %lld at place %lld; 0..%lld expected, or "
                     "%lld to be ignored",
                     (long long)label, (long long)i, (long long)(C - 1), (long long)ignored);
    }
    return ttt_ok(ctx);
}

// Rows with an ignored label are left out first: they then cost nothing, and a NaN in them does not
// spread.
ttt_tensor *ttt_cross_entropy_labels(ttt_ctx *ctx, ttt_tensor *logits, ttt_tensor *labels,
                                     int64_t ignored) {
    const char *name = "cross_entropy_labels";
    if (!ttt__operand(ctx, name, logits, 0, TTT__REAL)) return ttt_detach(ctx, logits);
    if (!ttt__operand(ctx, name, labels, 1, TTT__INT)) return ttt_detach(ctx, logits);
    if (logits->shape.rank < 1 || !ttt_shape_equal(ttt__lead(logits->shape, 1), labels->shape)) {
        ttt_text t0, t1;
        return ttt_fail(ctx, TTT_ERR_SHAPE, "%s: logits %s, labels %s; (...,C) and (...) expected",
                        name, ttt_shape_text(logits->shape, t0), ttt_shape_text(labels->shape, t1));
    }
    int64_t n = 0, C = logits->shape.dim[logits->shape.rank - 1];
    if (!ttt__labels_good(ctx, labels, C, ignored)) return ttt_detach(ctx, logits);
    for (int64_t i = 0; i < labels->size; i++) n += labels->index[i] != ignored;
    // The rows that count, and the places of their labels in these rows, joined.
    ttt_tensor *rows = ttt_new_typed(ctx, TTT_SHAPE(n), TTT_DTYPE_INT, false);
    ttt_tensor *places = ttt_new_typed(ctx, TTT_SHAPE(n), TTT_DTYPE_INT, false);
    for (int64_t i = 0, k = 0; i < labels->size && ttt_ok(ctx); i++) {
        if (labels->index[i] == ignored) continue;
        rows->index[k] = i;
        places->index[k] = k * C + labels->index[i];
        k++;
    }
    ttt_tensor *counted = ttt_reshape(ctx, logits, TTT_SHAPE(labels->size, C));
    if (n < labels->size) counted = ttt_index_select(ctx, counted, rows);
    ttt_tensor *picked = ttt__pick(ctx, ttt_log_softmax(ctx, counted), places, TTT_SHAPE(n));
    return ttt_mean(ctx, ttt_scale(ctx, picked, -1));  // a negated mean of nothing would be -0
}

// - log sigmoid(z) = softplus(-z). The two answers apart: a difference of what they have in common
// would lose the small loss of a good answer, and be NaN for an infinite logit.
ttt_tensor *ttt_binary_cross_entropy(ttt_ctx *ctx, ttt_tensor *logits, ttt_tensor *target) {
    if (!ttt__same_shape(ctx, "binary_cross_entropy", logits, target))
        return &ctx->empty;
    ttt_tensor *no = ttt_add_scalar(ctx, ttt_scale(ctx, target, -1), 1);
    ttt_tensor *loss_of_yes = ttt_softplus(ctx, ttt_scale(ctx, logits, -1));
    ttt_tensor *loss_of_no = ttt_softplus(ctx, logits);
    ttt_tensor *sum = ttt_sum(ctx, ttt_add(ctx, ttt__weighted(ctx, target, loss_of_yes),
                                           ttt__weighted(ctx, no, loss_of_no)));
    return ttt_scale(ctx, sum, 1 / (ttt_real)logits->shape.dim[0]);
}

int64_t ttt_count_correct(const ttt_tensor *logits, const ttt_tensor *labels) {
    if (!ttt__lives(logits) || !ttt__lives(labels)) return -1;
    if (logits->shape.rank != 2 || !logits->data || !labels->index) return -1;
    int64_t right = 0, B = TTT__MIN(logits->shape.dim[0], labels->size), C = logits->shape.dim[1];
    for (int64_t b = 0; b < B; b++) {
        const int64_t label = labels->index[b];
        const ttt_real *row = logits->data + b * C;
        bool best = label >= 0 && label < C;
        for (int64_t i = 0; i < C && best; i++)  // false for NaN
            best = i < label ? row[i] < row[label] : row[i] <= row[label];
        right += best;
    }
    return right;
}

// A Dirichlet(p,p) pair is Beta(p,p). Up to p = 1 as in Joehnk 1964: u^(1/p) and v^(1/p) are drawn
// until their sum is at most 1; in logarithms, since both underflow for small p. Above, that would
// take 4^p draws, and the place of one coordinate on a sphere is drawn, as in Ulrich 1984.
static double ttt__beta(ttt_rng *rng, double p) {
    if (p > 1) {
        double radius = -expm1(2 * log(1 - ttt_rng_uniform(rng)) / (2 * p - 1));
        return 0.5 + 0.5 * sqrt(radius) * cos(2 * 3.14159265358979323846 * ttt_rng_uniform(rng));
    }
    for (;;) {
        double u = log(1 - ttt_rng_uniform(rng)), v = log(1 - ttt_rng_uniform(rng));
        double x = u / p, y = v / p, top = x > y ? x : y;
        if (!(top > -HUGE_VAL)) return u > v;  // p is so small that one of the pair is 1
        double sum = top + log(exp(x - top) + exp(y - top));
        if (sum <= 0) return exp(x - sum);
    }
}

// a t + (1 - a) t rolled by one along B, t (B,...)
static ttt_tensor *ttt__blend_rolled(ttt_ctx *ctx, const ttt_tensor *tensor, ttt_real a) {
    ttt_tensor *y = ttt_new(ctx, tensor->shape);
    int64_t B = tensor->shape.dim[0], n = tensor->size / B;
    for (int64_t i = 0; i < y->size; i++)
        y->data[i] = a * tensor->data[i] + (1 - a) * tensor->data[i < n ? i + (B - 1) * n : i - n];
    return y;
}

void ttt_mixup(ttt_ctx *ctx, ttt_rng *rng, double p, ttt_tensor **x, ttt_tensor **target) {
    if (!TTT__GIVEN("mixup", rng) || !TTT__GIVEN("mixup", x) || !TTT__GIVEN("mixup", target))
        return;
    if (!(p >= 0)) ttt_fail(ctx, TTT_ERR_ARGUMENT, "mixup: p is %g; 0 or more expected", p);
    if (p == 0 || !ttt__operands(ctx, "mixup", x, 1) || !ttt__operands(ctx, "mixup", target, 1) ||
        (*x)->size == 0)
        return;
    ttt_text t0, t1;
    if ((*x)->shape.rank < 1 || (*target)->shape.rank < 1 ||
        (*x)->shape.dim[0] != (*target)->shape.dim[0]) {
        ttt_fail(ctx, TTT_ERR_SHAPE,
                 "mixup: x %s and target %s; as many targets as examples expected",
                 ttt_shape_text((*x)->shape, t0), ttt_shape_text((*target)->shape, t1));
        return;
    }
    ttt_rng before = *rng;
    double a = ttt__beta(rng, p);
    a = a > 0.5 ? a : 1 - a;
    ttt_tensor *examples = ttt__blend_rolled(ctx, *x, (ttt_real)a),
               *targets = ttt__blend_rolled(ctx, *target, (ttt_real)a);
    if (!ttt_ok(ctx)) {
        *rng = before;
        return;
    }
    *x = examples;
    *target = targets;
}

// ---- VIT ----------------------------------------------------------------------------------------
static ttt_vit_desc ttt__vit_resolved(const ttt_vit_desc *given) {
    ttt_vit_desc desc = *given;
    desc.mixer.dim = desc.width;
    const ttt_mixer *mixer = desc.mixer.mixer;
    if (ttt_mixer_takes(mixer, "grid_rows") && !desc.mixer.grid_rows && !desc.mixer.grid_cols)
        desc.mixer.grid_rows = desc.mixer.grid_cols = desc.image / desc.patch;
    if (ttt_mixer_takes(mixer, "max_tokens") && !desc.mixer.max_tokens)
        desc.mixer.max_tokens = ttt_vit_tokens(&desc);
    if (!desc.mlp) desc.mlp = 4 * desc.width;
    return desc;
}

int64_t ttt_vit_tokens(const ttt_vit_desc *desc) {
    if (!desc) return -1;
    int64_t side = desc->patch > 0 ? desc->image / desc->patch : 0;
    int64_t patches = ttt_shape_size(TTT_SHAPE(side, side)), globals = desc->mixer.globals;
    return patches < 0 || globals > INT64_MAX - patches ? -1 : patches + globals;
}

#define TTT__MOST_BLOCKS 1000000  // so that parameters are counted by an int
#define TTT__MOST_WIDE (1 << 28)   // so that sums of widths are numbers
static bool ttt__vit_sizes_set(const ttt_vit_desc *desc) {
    return desc->image > 0 && desc->channels > 0 && desc->patch > 0 && desc->width > 0 &&
           desc->depth > 0 && desc->classes > 0;
}
static bool ttt__vit_good(ttt_ctx *ctx, const ttt_vit_desc *desc) {
    if (!TTT__GIVEN("vit", desc)) return false;
    if (!ttt__vit_sizes_set(desc))
        ttt_fail(ctx, TTT_ERR_UNSET, "vit: .image %lld, .channels %lld, .patch %lld, .width %lld, "
                 ".depth %lld, .classes %lld; all must be set", (long long)desc->image,
                 (long long)desc->channels, (long long)desc->patch, (long long)desc->width,
                 (long long)desc->depth, (long long)desc->classes);
    else if (desc->image % desc->patch)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "vit: .image %lld is not divisible by .patch %lld",
                 (long long)desc->image, (long long)desc->patch);
    else if (!desc->learned_positions && desc->width % 4)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "vit: .width %lld; a multiple of 4 expected without "
                 ".learned_positions", (long long)desc->width);
    else if (!desc->mixer.mixer)
        ttt_fail(ctx, TTT_ERR_UNSET, "vit: .mixer.mixer is not set; ttt_mixer_find gives one by "
                 "name");
    else if (desc->mixer.globals < 0)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "vit: .mixer.globals is %lld; 0 or more expected",
                 (long long)desc->mixer.globals);
    else if (ttt_vit_tokens(desc) < 0 || desc->depth > TTT__MOST_BLOCKS)
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "vit: .image %lld, .patch %lld, .mixer.globals %lld, .depth %lld; a countable "
                 "number of tokens, and %d blocks at most expected",
                 (long long)desc->image, (long long)desc->patch, (long long)desc->mixer.globals,
                 (long long)desc->depth, TTT__MOST_BLOCKS);
    if (!ttt_ok(ctx)) return false;
    int64_t N = ttt_vit_tokens(desc), parts = desc->mixer.inner_sgd ? desc->mixer.inner_steps : 1;
    if (parts > 1 && N % parts)
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "vit: %lld tokens cannot be cut into %lld equal mini-batches "
                 "(.inner_sgd with .inner_steps)",
                 (long long)N, (long long)parts);
    return ttt_ok(ctx);
}

static const ttt_param_row ttt__vit_positions_row = {
    "pos_embedding", "1 N D", TTT_INIT_NORMAL_IN, "D", NULL, 0, 0
};
static const ttt_param_row ttt__vit_globals_row = {
    "global_tokens", "1 G D", TTT_INIT_SMALL, NULL, NULL, 0, 0
};
static void ttt__vit_block_new(ttt_ctx *ctx, const ttt_vit_desc *desc, ttt_params *params,
                               const char *prefix) {
    const char *norm_0 = ttt__path(ctx, prefix, "LayerNorm_0"),
               *mixer = ttt__path(ctx, prefix, "%s", desc->mixer.mixer->module);
    const char *norm_1 = ttt__path(ctx, prefix, "LayerNorm_1"),
               *mlp = ttt__path(ctx, prefix, "MlpBlock_0");
    if (!ttt_ok(ctx)) return;
    ttt_layer_norm_new(ctx, desc->width, params, norm_0);
    ttt_mixer_new(ctx, &desc->mixer, params, mixer);
    ttt_layer_norm_new(ctx, desc->width, params, norm_1);
    ttt_mlp_new(ctx, desc->width, desc->mlp, params, mlp);
}
enum { TTT__DENSE_N = 2, TTT__NORM_N = 2, TTT__MLP_N = 4 };  // weights of these layers
static int ttt__vit_block_count(const ttt_vit_desc *desc) {
    return TTT__NORM_N + ttt_mixer_count(&desc->mixer) + TTT__NORM_N + TTT__MLP_N;
}

ttt_weights ttt_vit_new(ttt_ctx *ctx, const ttt_vit_desc *given, ttt_params *params,
                        const char *prefix) {
    if (!ttt__vit_good(ctx, given) || !TTT__GIVEN("vit", params)) return ttt__no_weights();
    ttt_vit_desc desc = ttt__vit_resolved(given);
    int64_t side = desc.image / desc.patch;
    ttt_sizes sizes = ttt__sizes("NDG", side * side, desc.width, desc.mixer.globals, 0);
    int first = params->n;
    ttt_patch_embed_new(ctx, desc.patch, desc.channels, desc.width, params,
                        ttt__path(ctx, prefix, "embedding"));
    if (desc.learned_positions)
        ttt_params_add(ctx, &ttt__vit_positions_row, 1, 0, &sizes, params, prefix);
    if (desc.mixer.globals)
        ttt_params_add(ctx, &ttt__vit_globals_row, 1, 0, &sizes, params, prefix);
    for (int64_t i = 0; i < desc.depth && ttt_ok(ctx); i++)
        ttt__vit_block_new(ctx, &desc, params,
                           ttt__path(ctx, prefix, "Transformer/encoderblock_%lld", (long long)i));
    ttt_layer_norm_new(ctx, desc.width, params, ttt__path(ctx, prefix, "Transformer/encoder_norm"));
    ttt_dense_new(ctx, desc.width, desc.width, TTT_INIT_LECUN, params,
                  ttt__path(ctx, prefix, "pre_logits"));
    ttt_dense_new(ctx, desc.width, desc.classes, TTT_INIT_ZERO, params,
                  ttt__path(ctx, prefix, "head"));
    return ttt__params_since(ctx, params, first);
}
int ttt_vit_count(const ttt_vit_desc *desc) {
    if (!desc) return 0;
    int64_t blocks = desc->depth * ttt__vit_block_count(desc);
    return TTT__DENSE_N + desc->learned_positions + (desc->mixer.globals > 0) + (int)blocks +
           TTT__NORM_N + 2 * TTT__DENSE_N;
}

// x += mixer(LN x);  x += MLP(LN x).  The block is a function of its input and its weights, as
// ttt_remat wants it.
typedef struct ttt__block_call {
    const ttt_vit_desc *d;
    const int64_t *order;  // of this block's mini-batches (H,N), or NULL
} ttt__block_call;
static ttt_tensor *ttt__vit_block_forward(ttt_ctx *ctx, const ttt__block_call *b,
                                          ttt_weights weights, ttt_tensor *x, ttt_tensor **losses) {
    ttt_mixer_desc desc = b->d->mixer;
    if (b->order && ttt_ok(ctx))
        desc.order = ttt_from_int(ctx, TTT_SHAPE(desc.heads, ttt_vit_tokens(b->d)), b->order);
    ttt_weights norm = ttt_weights_take(ctx, "vit block", &weights, TTT__NORM_N),
                mixer = ttt_weights_take(ctx, "vit block", &weights, ttt_mixer_count(&desc));
    x = ttt_add(ctx, x, ttt_mixer_forward(ctx, &desc, mixer, ttt_layer_norm(ctx, norm, x), losses));
    bool good = ttt__weight_good(ctx, "vit", "MlpBlock_0/Dense_0/kernel", weights.at[TTT__NORM_N],
                                 TTT_SHAPE(b->d->width, b->d->mlp), TTT__REAL);
    return good ? ttt_residual_mlp(ctx, weights, x) : x;
}
static ttt_tensor *ttt__vit_block_again(ttt_ctx *ctx, ttt_tensor *const *in, int n_in,
                                        const void *user) {
    return ttt__vit_block_forward(ctx, (const ttt__block_call *)user,
                                  ttt__weights(in + 1, n_in - 1), in[0], NULL);
}
// A block as one node that keeps its input alone. f gets x, then the weights.
static ttt_tensor *ttt__block_remat(ttt_ctx *ctx, ttt_remat_fn *f, ttt_weights weights,
                                    ttt_tensor *x, const void *user, size_t user_bytes) {
    ttt_tensor **in = ttt__weights_room(ctx, 1 + weights.n, false);
    if (!in) return x;
    in[0] = x;
    memcpy(in + 1, weights.at, (size_t)weights.n * sizeof *in);
    return ttt_remat(ctx, f, in, 1 + weights.n, x->shape, user, user_bytes);
}
static ttt_tensor *ttt__vit_block_run(ttt_ctx *ctx, const ttt_vit_desc *desc, int64_t i,
                                      ttt_weights weights, ttt_tensor *x, ttt_vit_call *call) {
    ttt__block_call b = { desc, call && call->order
                          ? call->order->index + i * desc->mixer.heads * ttt_vit_tokens(desc)
                          : NULL };
    if (call && call->want_losses) {
        call->losses[i] = NULL;
        return ttt__vit_block_forward(ctx, &b, weights, x, &call->losses[i]);
    }
    // without a tape nobody will ask for what is inside
    bool again = desc->remat || !ctx->recording;
    return again ? ttt__block_remat(ctx, ttt__vit_block_again, weights, x, &b, sizeof b)
                 : ttt__vit_block_forward(ctx, &b, weights, x, NULL);
}

static bool ttt__vit_inputs_good(ttt_ctx *ctx, const ttt_vit_desc *desc, ttt_weights weights,
                                 const ttt_tensor *images, const ttt_tensor *order) {
    int64_t N = ttt_vit_tokens(desc);
    ttt_text text;
    if (!ttt__vit_good(ctx, desc) ||
        !ttt__weights_expected(ctx, "vit", weights, ttt_vit_count(desc)) ||
        !ttt__living(ctx, "vit", images, 0))
        return false;
    if (order && !ttt__alive(ctx, order)) ttt__not_living(ctx, "vit", order, "order");
    if (!ttt_ok(ctx)) return false;
    if (images->shape.rank != 4 || images->shape.dim[1] != desc->image ||
        images->shape.dim[2] != desc->image)
        ttt_fail(ctx, TTT_ERR_SHAPE, "vit: images of shape %s; (B,%lld,%lld,%lld) expected",
                 ttt_shape_text(images->shape, text), (long long)desc->image,
                 (long long)desc->image, (long long)desc->channels);
    else if (order &&
             (order->dtype != TTT_DTYPE_INT || order->size != desc->depth * desc->mixer.heads * N))
        ttt_fail(ctx, TTT_ERR_SHAPE, "vit: an order of shape %s; integers (depth,heads,tokens) = "
                 "(%lld,%lld,%lld) expected", ttt_shape_text(order->shape, text),
                 (long long)desc->depth, (long long)desc->mixer.heads, (long long)N);
    return ttt_ok(ctx);
}

// Patches with their positions, after the global tokens if there are any.
static ttt_tensor *ttt__vit_embedded(ttt_ctx *ctx, const ttt_vit_desc *desc, ttt_weights *w,
                                     ttt_tensor *images) {
    int64_t side = desc->image / desc->patch, D = desc->width;
    ttt_weights embedding = ttt_weights_take(ctx, "vit", w, TTT__DENSE_N);
    ttt_shape kernel = TTT_SHAPE(desc->patch, desc->patch, desc->channels, D);
    if (!ttt_ok(ctx) || !ttt__weight_good(ctx, "vit", "embedding/kernel", embedding.at[0], kernel,
                                          TTT__REAL))
        return images;
    ttt_tensor *x = ttt_patch_embed(ctx, embedding, images);
    ttt_tensor *positions =
        desc->learned_positions ? ttt__weight(ctx, "vit", w) : ttt_sincos2d(ctx, side, side, D);
    x = ttt_add(ctx, x, positions);
    if (!desc->mixer.globals || !ttt_ok(ctx)) return x;
    ttt_tensor *both[2] = { ttt_broadcast(ctx, ttt__weight(ctx, "vit", w),
                                          TTT_SHAPE(x->shape.dim[0], desc->mixer.globals, D)),
                            x };
    return ttt_concat(ctx, both, 2, 1);
}

ttt_tensor *ttt_vit_forward(ttt_ctx *ctx, const ttt_vit_desc *given, ttt_weights weights,
                            ttt_tensor *images, ttt_vit_call *call) {
    if (!ttt__vit_inputs_good(ctx, given, weights, images, call ? call->order : NULL))
        return &ctx->empty;
    ttt_vit_desc *d = (ttt_vit_desc *)ttt_alloc(
        ctx, sizeof *d, false); // as old as the tape, whose blocks read it again
    if (!d) return &ctx->empty;
    *d = ttt__vit_resolved(given);
    if (call && call->want_losses)
        call->losses =
            (ttt_tensor **)ttt_alloc(ctx, (uint64_t)d->depth * sizeof *call->losses, false);
    ttt_tensor *x = ttt__vit_embedded(ctx, d, &weights, images);
    for (int64_t i = 0; i < d->depth && ttt_ok(ctx); i++)
        x = ttt__vit_block_run(
            ctx, d, i, ttt_weights_take(ctx, "vit", &weights, ttt__vit_block_count(d)), x, call);
    x = ttt_mean_axis(
        ctx, ttt_layer_norm(ctx, ttt_weights_take(ctx, "vit", &weights, TTT__NORM_N), x), 1);
    if (!ttt_ok(ctx)) return x;
    x = ttt_reshape(ctx, x, TTT_SHAPE(images->shape.dim[0], d->width));
    x = ttt_tanh(ctx, ttt_dense(ctx, ttt_weights_take(ctx, "vit", &weights, TTT__DENSE_N), x));
    return ttt__weight_good(ctx, "vit", "head/kernel", weights.at[0],
                            TTT_SHAPE(d->width, d->classes), TTT__REAL)
               ? ttt_dense(ctx, weights, x)
               : x;
}

double ttt_vit_flops(const ttt_vit_desc *given) {
    if (!given || !ttt__vit_sizes_set(given) || !given->mixer.mixer || ttt_vit_tokens(given) < 0)
        return (double)NAN;
    ttt_vit_desc desc = ttt__vit_resolved(given);
    int64_t N = ttt_vit_tokens(&desc);
    double n = (double)N, D = (double)desc.width,
           pixels = (double)desc.image * (double)desc.image * (double)desc.channels;
    double block = desc.mixer.mixer->flops(&desc.mixer, N) + 4 * n * D * (double)desc.mlp;
    return 2 * pixels * D + (double)desc.depth * block + 2 * D * (D + (double)desc.classes);
}

// ---- LANGUAGE MODEL -----------------------------------------------------------------------------
#define TTT__LM_MIXER_PATH "model/layers/%lld/seq_modeling_block"
#define TTT__LM_FIRST "model/embed_tokens/embedding"  // the first parameter
static ttt_real ttt__or_default(ttt_real value, double otherwise) {
    return value != 0 ? value : (ttt_real)otherwise;
}
static ttt_lm_desc ttt__lm_resolved(const ttt_lm_desc *given) {
    ttt_lm_desc desc = *given;
    desc.mixer.dim = desc.width;
    if (!desc.mlp) desc.mlp = (8 * desc.width + 47) / 48 * 16;
    if (!desc.conv) desc.conv = 4;
    desc.norm_eps = ttt__or_default(desc.norm_eps, 1e-6);
    return desc;
}

// The mixer ttt-linear or ttt-mlp as the official code has it.
static void ttt__lm_official_mixer(ttt_mixer_desc *desc, const ttt_mixer *mixer, int64_t heads) {
    desc->mixer = mixer;
    desc->heads = heads;
    desc->inner_lr = mixer == &ttt_mixer_ttt_mlp ? (ttt_real)0.1 : 1;
    desc->causal = desc->token_index = true;
    desc->chunk = 16;
    desc->rotary = 10000;
}

ttt_lm_desc ttt_lm_preset(const char *name) {
    static const struct {
        const char *name;
        int64_t width, depth, heads, mlp;
    } sizes[] = { { "125m", 768, 12, 12, 2048 },
                  { "350m", 1024, 24, 16, 2736 },
                  { "760m", 1536, 24, 16, 4096 },
                  { "1b", 2048, 24, 32, 5504 } };
    ttt_lm_desc desc;
    memset(&desc, 0, sizeof desc);
    for (size_t i = 0; name && i < sizeof sizes / sizeof *sizes; i++) {
        if (strcmp(sizes[i].name, name) != 0) continue;
        desc.vocab = 32000;
        desc.width = sizes[i].width;
        desc.depth = sizes[i].depth;
        desc.mlp = sizes[i].mlp;
        desc.tied = true;
        ttt__lm_official_mixer(&desc.mixer, &ttt_mixer_ttt_linear, sizes[i].heads);
    }
    return desc;
}

static bool ttt__lm_good(ttt_ctx *ctx, const ttt_lm_desc *desc) {
    if (!TTT__GIVEN("lm", desc)) return false;
    const ttt_mixer *mixer = desc->mixer.mixer;
    if (desc->vocab < 1 || desc->width < 1 || desc->depth < 1)
        ttt_fail(ctx, TTT_ERR_UNSET, "lm: .vocab %lld, .width %lld, .depth %lld; all must be set",
                 (long long)desc->vocab, (long long)desc->width, (long long)desc->depth);
    else if (desc->depth > TTT__MOST_BLOCKS || desc->width > TTT__MOST_WIDE)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "lm: .depth %lld, .width %lld; at most %d and %d expected",
                 (long long)desc->depth, (long long)desc->width, TTT__MOST_BLOCKS, TTT__MOST_WIDE);
    else if (desc->mlp < 0 || desc->conv < 0 || !(desc->norm_eps >= 0))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "lm: .mlp %lld, .conv %lld, .norm_eps %g; 0 or more "
                 "expected", (long long)desc->mlp, (long long)desc->conv, (double)desc->norm_eps);
    else if (desc->conv && !desc->pre_conv)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "lm: .conv has no effect without .pre_conv");
    else if (!mixer)
        ttt_fail(ctx, TTT_ERR_UNSET, "lm: .mixer.mixer is not set; ttt_mixer_find gives one by "
                 "name");
    else if (!desc->mixer.causal && !(mixer->flags & TTT_MIXER_CAUSAL))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "lm: the mixer %s %s, and would see the tokens that are to "
                 "be foretold", mixer->name,
                 ttt_mixer_takes(mixer, "causal") ? "needs .causal" : "cannot be causal");
    return ttt_ok(ctx);
}

static void ttt__lm_block_new(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_params *params,
                              const char *prefix) {
    static const ttt_param_row conv_rows[] = {
        { "kernel", "K D", TTT_INIT_UNIFORM_IN, "3K", NULL, TTT_PARAM_DECAYS, 0 },
        { "bias", "D", TTT_INIT_UNIFORM_IN, "3K", NULL, 0, 0 },  // bound 1/sqrt K, as PyTorch's
    };
    ttt_sizes sizes = ttt__sizes("KD", desc->conv, desc->width, 0, 0);
    if (desc->pre_conv) {
        ttt_rms_norm_new(ctx, desc->width, params, ttt__path(ctx, prefix, "conv/norm"));
        ttt_params_add(ctx, TTT__ROWS(conv_rows), 0, &sizes, params,
                       ttt__path(ctx, prefix, "conv/conv"));
    }
    ttt_rms_norm_new(ctx, desc->width, params, ttt__path(ctx, prefix, "seq_norm"));
    ttt_mixer_new(ctx, &desc->mixer, params, ttt__path(ctx, prefix, "seq_modeling_block"));
    ttt_rms_norm_new(ctx, desc->width, params, ttt__path(ctx, prefix, "ffn_norm"));
    ttt_swiglu_new(ctx, desc->width, desc->mlp, params, ttt__path(ctx, prefix, "mlp"));
}
enum { TTT__RMS_N = 1, TTT__CONV_N = 2, TTT__SWIGLU_N = 3 };  // weights of these layers
static int ttt__lm_block_count(const ttt_lm_desc *desc) {
    return (desc->pre_conv ? TTT__RMS_N + TTT__CONV_N : 0) + TTT__RMS_N +
           ttt_mixer_count(&desc->mixer) + TTT__RMS_N + TTT__SWIGLU_N;
}

// The embedding and the head have a row of D numbers for each token.
static const ttt_param_row ttt__lm_table_row = {
    "embedding", "V D", TTT_INIT_SMALL, NULL, NULL, TTT__FACTOR, 0
};
ttt_weights ttt_lm_new(ttt_ctx *ctx, const ttt_lm_desc *given, ttt_params *params,
                       const char *prefix) {
    if (!ttt__lm_good(ctx, given) || !TTT__GIVEN("lm", params)) return ttt__no_weights();
    ttt_lm_desc desc = ttt__lm_resolved(given);
    ttt_sizes sizes = ttt__sizes("VD", desc.vocab, desc.width, 0, 0);
    int first = params->n;
    ttt_params_add(ctx, &ttt__lm_table_row, 1, 0, &sizes, params,
                   ttt__path(ctx, prefix, "model/embed_tokens"));
    for (int64_t i = 0; i < desc.depth && ttt_ok(ctx); i++)
        ttt__lm_block_new(ctx, &desc, params,
                          ttt__path(ctx, prefix, "model/layers/%lld", (long long)i));
    ttt_rms_norm_new(ctx, desc.width, params, ttt__path(ctx, prefix, "model/norm"));
    if (!desc.tied)
        ttt_params_add(ctx, &ttt__lm_table_row, 1, 0, &sizes, params,
                       ttt__path(ctx, prefix, "lm_head"));
    return ttt__params_since(ctx, params, first);
}
int ttt_lm_count(const ttt_lm_desc *desc) {
    if (!desc) return 0;
    return 1 + (int)desc->depth * ttt__lm_block_count(desc) + TTT__RMS_N + !desc->tied;
}

// The first half of a block, in which tokens see each other: the weights it needs are taken. part:
// NULL, or that of block i in a stream.
static ttt_tensor *ttt__lm_mixed(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_weights *weights,
                                 ttt__stream_part *part, int64_t i, ttt_tensor *x) {
    ttt__stream_part here;
    memset(&here, 0, sizeof here);
    if (part) here = *part;
    if (desc->pre_conv) {
        ttt_weights norm = ttt_weights_take(ctx, "lm block", weights, TTT__RMS_N),
                    conv = ttt_weights_take(ctx, "lm block", weights, TTT__CONV_N);
        ttt_tensor *y = ttt_rms_norm(ctx, norm, desc->norm_eps, x);
        if (!ttt_ok(ctx)) return x;
        if (part) here.prefix = ttt__text_of(ctx, "model/layers/%lld", (long long)i);
        y = ttt__short_conv(ctx, part ? &here : NULL, "conv", y, conv.at[0]);
        x = ttt_add(ctx, x, ttt_add(ctx, y, conv.at[1]));
    }
    ttt_weights norm = ttt_weights_take(ctx, "lm block", weights, TTT__RMS_N),
                mixer = ttt_weights_take(ctx, "lm block", weights, ttt_mixer_count(&desc->mixer));
    ttt_tensor *y = ttt_rms_norm(ctx, norm, desc->norm_eps, x);
    if (part) here.prefix = ttt__text_of(ctx, TTT__LM_MIXER_PATH, (long long)i);
    y = part ? ttt__mixer_stream(ctx, &desc->mixer, mixer, &here, y)
             : ttt_mixer_forward(ctx, &desc->mixer, mixer, y, NULL);
    return ttt_add(ctx, x, y);
}
// The second half, which is row by row.
static ttt_tensor *ttt__lm_fed(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_weights weights,
                               ttt_tensor *x) {
    ttt_weights norm = ttt_weights_take(ctx, "lm block", &weights, TTT__RMS_N);
    return ttt_add(ctx, x, ttt_swiglu(ctx, weights, ttt_rms_norm(ctx, norm, desc->norm_eps, x)));
}
// The block is a function of its input and its weights, as ttt_remat wants it.
static ttt_tensor *ttt__lm_block_forward(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_weights weights,
                                         ttt_tensor *x) {
    x = ttt__lm_mixed(ctx, desc, &weights, NULL, 0, x);
    return ttt__lm_fed(ctx, desc, weights, x);
}
static ttt_tensor *ttt__lm_block_again(ttt_ctx *ctx, ttt_tensor *const *in, int n_in,
                                       const void *user) {
    return ttt__lm_block_forward(ctx, (const ttt_lm_desc *)user, ttt__weights(in + 1, n_in - 1),
                                 in[0]);
}
static ttt_tensor *ttt__lm_block_run(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_weights weights,
                                     ttt_tensor *x) {
    bool again = desc->remat || !ctx->recording;  // without a tape nobody asks for what is inside
    return again ? ttt__block_remat(ctx, ttt__lm_block_again, weights, x, desc, sizeof *desc)
                 : ttt__lm_block_forward(ctx, desc, weights, x);
}

// Whether all tokens, or those that are counted, are in the vocabulary.
static bool ttt__lm_tokens_good(ttt_ctx *ctx, const ttt_lm_desc *desc, const ttt_tensor *tokens,
                                const int64_t *counts) {
    ttt_text text;
    if (!ttt__operand(ctx, "lm", tokens, 0, TTT__INT)) return false;
    int64_t L = tokens->shape.rank == 2 ? tokens->shape.dim[1] : 0, at = 0;
    while (L > 0 && at < tokens->size &&
           ((tokens->index[at] >= 0 && tokens->index[at] < desc->vocab) ||
            (counts && at % L >= counts[at / L])))
        at++;
    if (tokens->shape.rank != 2)
        ttt_fail(ctx, TTT_ERR_SHAPE, "lm: tokens of shape %s; (B,L) expected",
                 ttt_shape_text(tokens->shape, text));
    else if (L < 1)
        ttt_fail(ctx, TTT_ERR_SHAPE, "lm: tokens of shape %s; a model cannot foretell from nothing",
                 ttt_shape_text(tokens->shape, text));
    else if (at < tokens->size)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "lm: token %lld at place %lld of sequence %lld; the "
                 "vocabulary has 0 to %lld", (long long)tokens->index[at], (long long)(at % L),
                 (long long)(at / L), (long long)desc->vocab - 1);
    return ttt_ok(ctx);
}

// x (B,L,D) after the last norm, which is handed over with its weights, and the logits (B,L,V).
static ttt_tensor *ttt__lm_logits(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_tensor *embedding,
                                  ttt_weights *weights, ttt_tensor *x) {
    ttt_tensor *head = desc->tied ? embedding : ttt__weight(ctx, "lm", weights);
    bool good = ttt__weight_good(ctx, "lm", "lm_head/embedding", head,
                                 TTT_SHAPE(desc->vocab, desc->width), TTT__REAL | TTT__BF16);
    return good ? ttt_matmul_t(ctx, x, head, false, true) : x;
}

ttt_tensor *ttt_lm_forward(ttt_ctx *ctx, const ttt_lm_desc *given, ttt_weights weights,
                           ttt_tensor *tokens, ttt_lm_call *call) {
    if (!ttt__lm_good(ctx, given) ||
        !ttt__weights_expected(ctx, "lm", weights, ttt_lm_count(given)) ||
        !ttt__lm_tokens_good(ctx, given, tokens, NULL))
        return &ctx->empty;
    ttt_lm_desc d = ttt__lm_resolved(given);
    ttt_tensor *embedding = ttt__weight(ctx, "lm", &weights), *x = embedding, **hidden = NULL;
    if (call && call->want_hidden)
        call->hidden = hidden = ttt__weights_room(ctx, (int)d.depth + 1, false);
    if (!ttt__weight_good(ctx, "lm", "model/embed_tokens/embedding", embedding,
                          TTT_SHAPE(d.vocab, d.width), TTT__REAL | TTT__BF16))
        return &ctx->empty;
    x = ttt_embedding(ctx, embedding, tokens);
    for (int64_t i = 0; i < d.depth && ttt_ok(ctx); i++) {
        ttt_weights block = ttt_weights_take(ctx, "lm", &weights, ttt__lm_block_count(&d));
        x = ttt__lm_block_run(ctx, &d, block, x);
        if (hidden) hidden[i] = x;
    }
    x = ttt_rms_norm(ctx, ttt_weights_take(ctx, "lm", &weights, TTT__RMS_N), d.norm_eps, x);
    if (hidden) hidden[d.depth] = x;
    return ttt__lm_logits(ctx, &d, embedding, &weights, x);
}

// -- streams
// What the end of the call will write, of those put down since `until`, goes from the step arena to
// the scratch arena, so that a block's memory can be given back.
static void ttt__lm_settle(ttt_ctx *ctx, ttt_stream *stream, const struct ttt__stream_put *until) {
    struct ttt__stream_put **link = &stream->pending;
    for (; *link != until && ttt_ok(ctx); link = &(*link)->next) {
        size_t numbers = (size_t)(*link)->n * sizeof(ttt_real);
        ttt__stream_put *put =
            (ttt__stream_put *)ttt__arena_alloc(ctx, &ctx->scratch, sizeof *put + numbers);
        if (!put) return;
        *put = **link;
        put->from = (ttt_real *)memcpy(put + 1, put->from, numbers);
        *link = put;
    }
}
// Block i of a stream, in place: x is nobody else's. Its halves, and rows of the second, give their
// memory back one by one.
static void ttt__lm_block_stream(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_weights weights,
                                 ttt__stream_part *part, int64_t i, ttt_tensor *x) {
    enum { TTT__FED = 256 };  // rows at a time
    int64_t D = desc->width, n = x->size / D;
    struct ttt__stream_put *until = part->stream->pending;
    ttt_mark mark = ttt_mark_get(ctx);
    const ttt_tensor *y = ttt__lm_mixed(ctx, desc, &weights, part, i, x);
    if (ttt_ok(ctx)) memcpy(x->data, y->data, (size_t)x->size * sizeof *x->data);
    ttt__lm_settle(ctx, part->stream, until);
    ttt_mark_release(ctx, mark);
    for (int64_t at = 0; at < n && ttt_ok(ctx); at += TTT__FED) {
        ttt_tensor *rows = ttt_slice(ctx, ttt_reshape(ctx, x, TTT_SHAPE(n, D)), 0, at,
                                     TTT__MIN((int64_t)TTT__FED, n - at));
        rows = ttt__lm_fed(ctx, desc, weights, rows);
        if (ttt_ok(ctx)) memcpy(x->data + at * D, rows->data, (size_t)rows->size * sizeof *x->data);
        ttt_mark_release(ctx, mark);
    }
}
// Tokens that are not counted are token 0, whose logits nobody sees.
static ttt_tensor *ttt__lm_counted(ttt_ctx *ctx, ttt_tensor *tokens, const int64_t *counts) {
    int64_t n = tokens->shape.dim[1];
    if (!counts) return tokens;
    ttt_tensor *y = ttt_new_typed(ctx, tokens->shape, TTT_DTYPE_INT, false);
    for (int64_t i = 0; i < y->size && ttt_ok(ctx); i++)
        y->index[i] = i % n < counts[i / n] ? tokens->index[i] : 0;
    return y;
}
// The last new row of each lane: (B,n,D) -> (B,1,D)
static ttt_tensor *ttt__lm_last(ttt_ctx *ctx, const ttt__stream_part *part, const ttt_tensor *x) {
    int64_t D = ttt__last(x);
    ttt_tensor *y = ttt_zeros(ctx, TTT_SHAPE(part->stream->lanes, 1, D));
    for (int64_t b = 0; b < part->stream->lanes && ttt_ok(ctx); b++)
        if (ttt__lane_new(part, b) > 0)
            memcpy(y->data + b * D, x->data + (b * part->n + ttt__lane_new(part, b) - 1) * D,
                   (size_t)D * sizeof *y->data);
    return y;
}
static ttt_tensor *ttt__lm_streamed(ttt_ctx *ctx, const ttt_lm_desc *d, ttt_weights weights,
                                    ttt__stream_part *part, ttt_tensor *tokens, bool last_only) {
    ttt_tensor *embedding = ttt__weight(ctx, "lm", &weights);
    if (!ttt__weight_good(ctx, "lm", "model/embed_tokens/embedding", embedding,
                          TTT_SHAPE(d->vocab, d->width), TTT__REAL | TTT__BF16))
        return &ctx->empty;
    ttt_tensor *x = ttt_embedding(ctx, embedding, ttt__lm_counted(ctx, tokens, part->counts));
    for (int64_t i = 0; i < d->depth && ttt_ok(ctx); i++) {
        ttt_weights block = ttt_weights_take(ctx, "lm", &weights, ttt__lm_block_count(d));
        ttt__lm_block_stream(ctx, d, block, part, i, x);
    }
    ttt_weights norm = ttt_weights_take(ctx, "lm", &weights, TTT__RMS_N);
    if (last_only && ttt_ok(ctx)) x = ttt__lm_last(ctx, part, x);
    x = ttt__lm_logits(ctx, d, embedding, &weights, ttt_rms_norm(ctx, norm, d->norm_eps, x));
    if (!ttt_ok(ctx)) return x;
    if (!last_only) return ttt__only_new(part, x);
    for (int64_t b = 0; b < part->stream->lanes; b++)
        if (ttt__lane_new(part, b) == 0)
            memset(x->data + b * d->vocab, 0, (size_t)d->vocab * sizeof *x->data);
    return x;
}
ttt_tensor *ttt_lm_stream(ttt_ctx *ctx, const ttt_lm_desc *given, ttt_weights weights,
                          ttt_stream *stream, ttt_tensor *tokens, const int64_t *counts,
                          bool last_only) {
    if (!ttt__lm_good(ctx, given) || !TTT__GIVEN("lm", stream) ||
        !ttt__weights_expected(ctx, "lm", weights, ttt_lm_count(given)) ||
        !ttt__operand(ctx, "lm", tokens, 0, TTT__INT))
        return &ctx->empty;
    int64_t B = tokens->shape.dim[0], n = tokens->shape.rank == 2 ? tokens->shape.dim[1] : 0;
    if ((tokens->shape.rank == 2 && !ttt__counts_good(ctx, "lm", B, n, counts)) ||
        !ttt__lm_tokens_good(ctx, given, tokens, counts))
        return &ctx->empty;
    ttt_lm_desc d = ttt__lm_resolved(given);
    ttt__stream_part part = { stream, NULL, counts, n };
    if (!ttt__stream_begin(ctx, "lm", stream, B)) return &ctx->empty;
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    bool recording = ttt_set_recording(ctx, false);
    ttt_tensor *y = ttt__lm_streamed(ctx, &d, weights, &part, tokens, last_only);
    ttt_set_recording(ctx, recording);
    ttt__stream_end(ctx, &part);
    ttt__arena_release(&ctx->scratch, scratch);
    return y;
}

// FNV-1a, eight bytes at a time
static uint64_t ttt__hash(uint64_t hash, const void *bytes, size_t n) {
    const char *p = (const char *)bytes;
    for (uint64_t word = 0; n > 0; word = 0) {
        size_t m = TTT__MIN(n, sizeof word);
        memcpy(&word, p, m);
        hash = (hash ^ word) * 1099511628211u;
        hash ^= hash >> 32;
        p += m;
        n -= m;
    }
    return hash;
}
// Defaults that a config.json spells out: the model has one name before and after.
static void ttt__lm_spell_out(ttt_mixer_desc *mixer) {
    bool official = mixer->mixer == &ttt_mixer_ttt_linear || mixer->mixer == &ttt_mixer_ttt_mlp;
    mixer->inner_lr = ttt__rate(mixer);
    if (official) mixer->chunk = ttt__chunk_or(mixer, 16);
    if (mixer->share_qk && !mixer->conv) mixer->conv = 4;
}
const char *ttt_lm_fingerprint(ttt_ctx *ctx, const ttt_lm_desc *given, ttt_weights weights) {
    if (!ttt__lm_good(ctx, given) ||
        !ttt__weights_expected(ctx, "lm_fingerprint", weights, ttt_lm_count(given)))
        return NULL;
    ttt_lm_desc d = ttt__lm_resolved(given);
    ttt__lm_spell_out(&d.mixer);
    const int64_t sizes[] = { d.vocab, d.width, d.depth, d.mlp, d.pre_conv, d.conv, d.tied,
                              d.mixer.heads };
    uint64_t hash = ttt__hash(14695981039346656037u, sizes, sizeof sizes);
    hash = ttt__hash(hash, &d.norm_eps, sizeof d.norm_eps);
    hash = ttt__hash(hash, d.mixer.mixer->name, strlen(d.mixer.mixer->name));
    for (int i = 0; i < TTT__N_OPTIONS; i++)
        if (!strchr(ttt__options[i].type, '*'))
            hash = ttt__hash(hash, (const char *)&d.mixer + ttt__options[i].at,
                             ttt__options[i].size);
    for (int i = 0; i < weights.n; i++) {
        const ttt_tensor *w = weights.at[i];
        hash = ttt__hash(hash, ttt__elements(w),
                         (size_t)w->size * ttt__element_bytes(w->dtype));
    }
    return ttt__text_of(ctx, "%08lx%08lx", (unsigned long)(hash >> 32),
                        (unsigned long)(hash & 0xffffffff));
}

ttt_tensor *ttt_lm_loss(ttt_ctx *ctx, ttt_tensor *logits, ttt_tensor *tokens) {
    ttt_text t0, t1;
    if (!ttt__operands(ctx, "lm_loss", &logits, 1) ||
        !ttt__operand(ctx, "lm_loss", tokens, 1, TTT__INT))
        return &ctx->empty;
    if (tokens->shape.rank != 2 || logits->shape.rank != 3 ||
        logits->shape.dim[0] != tokens->shape.dim[0] ||
        logits->shape.dim[1] != tokens->shape.dim[1])
        return ttt_fail(ctx, TTT_ERR_SHAPE, "lm_loss: logits %s and tokens %s; (B,L,V) and (B,L) "
                        "expected", ttt_shape_text(logits->shape, t0),
                        ttt_shape_text(tokens->shape, t1));
    int64_t L = tokens->shape.dim[1];
    ttt_tensor *next = ttt_new_typed(ctx, tokens->shape, TTT_DTYPE_INT, false);
    for (int64_t i = 0; i < tokens->size && ttt_ok(ctx); i++) {
        int64_t token = i % L + 1 < L ? tokens->index[i + 1] : -1;
        next->index[i] = token < 0 ? -1 : token;
    }
    return ttt_cross_entropy_labels(ctx, logits, next, -1);
}

double ttt_lm_flops(const ttt_lm_desc *given, int64_t L) {
    if (!given || given->vocab < 1 || given->width < 1 || given->depth < 1 || given->mlp < 0 ||
        !given->mixer.mixer || L < 0)
        return (double)NAN;
    ttt_lm_desc desc = ttt__lm_resolved(given);
    double n = (double)L, D = (double)desc.width;
    double block = desc.mixer.mixer->flops(&desc.mixer, L) + 6 * n * D * (double)desc.mlp +
                   (desc.pre_conv ? 2 * n * D * (double)desc.conv : 0);
    return (double)desc.depth * block + 2 * n * D * (double)desc.vocab;
}

// ---- OPTIMIZERS ---------------------------------------------------------------------------------
// The i-th word of a text, and its length; NULL if the text has fewer.
static const char *ttt__word(const char *text, int i, int *length) {
    const char *at = text ? text + strspn(text, " ") : "";
    for (; i > 0 && *at; i--) {
        at += strcspn(at, " ");
        at += strspn(at, " ");
    }
    *length = (int)strcspn(at, " ");
    return *at ? at : NULL;
}
static int ttt__count_words(const char *text) {
    int n = 0, length;
    while (ttt__word(text, n, &length)) n++;
    return n;
}

static bool ttt__rule_options_good(ttt_ctx *ctx, const ttt_optimizer_desc *desc) {
    const struct {
        const char *name;
        double value, limit;  // it is 0 or more, and below this
    } option[] = { { "beta1", (double)desc->beta1, 1 },
                   { "beta2", (double)desc->beta2, 1 },
                   { "eps", (double)desc->eps, HUGE_VAL },
                   { "bf16_moment", (double)desc->bf16_moment, HUGE_VAL },
                   { "momentum", (double)desc->momentum, HUGE_VAL } };
    for (size_t i = 0; i < sizeof option / sizeof *option && ttt_ok(ctx); i++) {
        if (!(option[i].value >= 0 && option[i].value < option[i].limit))
            ttt_fail(ctx, TTT_ERR_ARGUMENT, "optimizer: .%s is %g; 0 or more, and below %g "
                     "expected", option[i].name, option[i].value, option[i].limit);
        if (option[i].value != 0 && !ttt__has_word(desc->rule->takes, option[i].name))
            ttt_fail(ctx, TTT_ERR_ARGUMENT,
                     "optimizer: .%s is set, which the rule %s does not take; "
                     "its own options are: %s",
                     option[i].name, desc->rule->name,
                     desc->rule->takes ? desc->rule->takes : "none");
    }
    return ttt_ok(ctx);
}

static ttt_optimizer_desc ttt__optimizer_resolved(const ttt_optimizer_desc *given) {
    ttt_optimizer_desc desc = *given;
    desc.beta1 = ttt__or_default(desc.beta1, 0.9);
    desc.beta2 = ttt__or_default(desc.beta2, 0.999);
    desc.eps = ttt__or_default(desc.eps, 1e-8);
    if (!desc.accumulate) desc.accumulate = 1;
    return desc;
}

static bool ttt__optimizer_good(ttt_ctx *ctx, const ttt_optimizer_desc *desc) {
    if (!(desc->lr > 0))
        ttt_fail(ctx, TTT_ERR_UNSET, "optimizer: .lr is %g; a rate above 0 must be set",
                 (double)desc->lr);
    else if (desc->total && desc->total <= desc->warmup)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "optimizer: .total %lld must be above .warmup %lld",
                 (long long)desc->total, (long long)desc->warmup);
    else if (desc->warmup < 0 || desc->accumulate < 0 || !(desc->clip >= 0) ||
             !(desc->weight_decay >= 0))
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "optimizer: .warmup %lld, .accumulate %d, .clip %g, .weight_decay %g; 0 or more "
                 "expected", (long long)desc->warmup, desc->accumulate, (double)desc->clip,
                 (double)desc->weight_decay);
    return ttt__rule_options_good(ctx, desc);
}

ttt_optimizer *ttt_optimizer_new(ttt_ctx *ctx, const ttt_optimizer_desc *given,
                                 ttt_params *params) {
    if (!ttt__given(ctx, "optimizer", "desc", given != NULL) || !TTT__GIVEN("optimizer", params))
        return NULL;
    ttt_optimizer_desc desc = *given;
    if (!desc.rule) desc.rule = &ttt_rule_adamw;
    if (!ttt__optimizer_good(ctx, &desc)) return NULL;
    for (int i = 0; i < params->n; i++)
        if (!ttt__operand(ctx, params->item[i].name, params->value[i], 0, TTT__REAL)) return NULL;
    int n_state = ttt__count_words(desc.rule->state);
    ttt_optimizer *optimizer = (ttt_optimizer *)ttt_alloc(ctx, sizeof *optimizer, true);
    ttt_tensor **list = ttt__weights_room(ctx, (1 + n_state) * params->n, true);
    int *row = (int *)ttt_alloc(ctx, (uint64_t)params->n * sizeof *row, true);
    if (!optimizer || !list || !row) return NULL;
    memset(optimizer, 0, sizeof *optimizer);
    optimizer->desc = ttt__optimizer_resolved(&desc);
    optimizer->params = params;
    optimizer->row = row;
    optimizer->grad = list;
    optimizer->n_state = n_state;
    optimizer->state = list + params->n;
    for (int i = 0; i < params->n; i++) {
        if (desc.freeze_inner && (params->item[i].flags & TTT_PARAM_INNER)) continue;
        optimizer->row[optimizer->n] = i;
        optimizer->grad[optimizer->n] = ttt_zeros_kept(ctx, params->value[i]->shape);
        for (int k = 0; k < n_state; k++)
            optimizer->state[optimizer->n * n_state + k] =
                ttt_zeros_kept(ctx, params->value[i]->shape);
        optimizer->n++;
    }
    return ttt_ok(ctx) ? optimizer : NULL;
}

double ttt_schedule(const ttt_optimizer_desc *desc, int64_t k) {
    if (!desc) return (double)NAN;
    double rise = desc->warmup > 0 && k < desc->warmup ? (double)k / (double)desc->warmup : 1;
    if (!desc->total) return rise;
    double done = (double)(k - desc->warmup) / (double)(desc->total - desc->warmup);
    done = done < 0 ? 0 : done > 1 ? 1 : done;
    return rise * 0.5 * (1 + cos(3.14159265358979323846 * done));
}

// -- the rules
typedef struct ttt__pass {  // the numbers of one pass over a parameter, see [9]
    ttt_real scale, l2, b1, b2, c1, c2, eps, rate, decay;
} ttt__pass;

// X(name, parameters); what each does is written at its text in [9].
#define TTT__RULE_KERNEL_LIST(X)                                                                   \
    X(adam, (int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, ttt_real *v,                  \
             const ttt__pass *pass))                                                               \
    X(momentum, (int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, const ttt__pass *pass))
typedef struct ttt__rule_kernels {
#define X(name, parameters) void(*name) parameters;
    TTT__RULE_KERNEL_LIST(X)
#undef X
} ttt__rule_kernels;
#define TTT__PART TTT__MODEL_KERNELS
#include TTT__THIS_FILE("ttt_model.h")
#undef TTT__PART

static const ttt__rule_kernels *ttt__rule_kernels_of(const ttt_ctx *ctx) {
    static const ttt__rule_kernels *const all[] = {
#define X(name, here) &ttt__rule_table_##name,
        TTT__SETS(X)
#undef X
    };
    return all[ctx->k->set];
}

static ttt_real ttt__rounded_to_bf16(ttt_real x) {
    uint32_t bits = (uint32_t)ttt__bf16_of(x) << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return (ttt_real)f;
}

// Adam with the first moment stored in bfloat16 as optax does on a CPU: the decay that multiplies
// the stored moment is itself a bfloat16 (0.9 is 0.8984375); the update uses the moment before
// rounding.
static void ttt__adam_bf16(int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, ttt_real *v,
                           const ttt__pass *pass) {
    ttt_real b1 = ttt__rounded_to_bf16(pass->b1);
    for (int64_t i = 0; i < n; i++) {
        ttt_real gi = pass->scale * g[i] + pass->l2 * p[i];
        ttt_real moment = (1 - pass->b1) * gi + b1 * m[i];
        v[i] = (1 - pass->b2) * (gi * gi) + pass->b2 * v[i];
        m[i] = ttt__rounded_to_bf16(moment);
        ttt_real u = moment * pass->c1 / (TTT__ROOT(v[i] * pass->c2) + pass->eps);
        p[i] -= pass->rate * u + pass->decay * p[i];
    }
}

// What all rules have in common. Adam and its kin differ in where weight decay goes.
static ttt__pass ttt__pass_of(const ttt_update *update) {
    ttt__pass pass;
    memset(&pass, 0, sizeof pass);
    pass.scale = update->scale;
    pass.rate = (ttt_real)(update->s * (double)update->desc->lr);
    return pass;
}
// n numbers of a parameter from number i on; g, their gathered gradient.
static void ttt__adam_numbers(ttt_ctx *ctx, const ttt_update *update, int64_t i, int64_t n,
                              const ttt_real *g, const ttt__pass *pass) {
    ttt_real *p = update->p + i, *m = update->state[0]->data + i, *v = update->state[1]->data + i;
    if (update->desc->bf16_moment) ttt__adam_bf16(n, p, g, m, v, pass);
    else ttt__rule_kernels_of(ctx)->adam(n, p, g, m, v, pass);
}
// The largest g' whose square has a number, and which 16 bits can hold where m is in 16 bits.
static double ttt__largest_for_adam(const ttt_update *update) {
    return update->desc->bf16_moment ? TTT__MIN(1e38, TTT__LARGEST_TO_SQUARE)
                                     : TTT__LARGEST_TO_SQUARE;
}
// A larger g' counts as that: |u| stays near 1.
static void ttt__adam_of_large(ttt_ctx *ctx, const ttt_update *update, const ttt__pass *pass) {
    enum { BLOCK = 256 };
    double most = ttt__largest_for_adam(update) / (double)pass->scale;
    ttt_real g[BLOCK];
    for (int64_t i = 0; i < update->n; i += BLOCK) {
        int64_t n = TTT__MIN((int64_t)BLOCK, update->n - i);
        for (int64_t j = 0; j < n; j++) {
            double value = (double)update->gathered[i + j];
            g[j] = (ttt_real)(value > most ? most : value < -most ? -most : value);
        }
        ttt__adam_numbers(ctx, update, i, n, g, pass);
    }
}
static void ttt__adam_step(ttt_ctx *ctx, const ttt_update *update, ttt__pass pass) {
    const ttt_optimizer_desc *desc = update->desc;
    double t = (double)(update->k + 1);
    pass.b1 = desc->beta1;
    pass.b2 = desc->beta2;
    pass.c1 = (ttt_real)(1 / (1 - pow((double)desc->beta1, t)));
    pass.c2 = (ttt_real)(1 / (1 - pow((double)desc->beta2, t)));
    pass.eps = desc->eps;
    if (update->norm <= ttt__largest_for_adam(update))
        ttt__adam_numbers(ctx, update, 0, update->n, update->gathered, &pass);
    else ttt__adam_of_large(ctx, update, &pass);
}
static void ttt__adamw(ttt_ctx *ctx, const ttt_update *update) {
    ttt__pass pass = ttt__pass_of(update);
    pass.decay = pass.rate * update->decay;
    ttt__adam_step(ctx, update, pass);
}
static void ttt__adam(ttt_ctx *ctx, const ttt_update *update) {
    ttt__pass pass = ttt__pass_of(update);
    pass.l2 = update->decay;
    ttt__adam_step(ctx, update, pass);
}
static void ttt__mttt_chain(ttt_ctx *ctx, const ttt_update *update) {
    ttt__pass pass = ttt__pass_of(update);
    pass.decay = (ttt_real)update->s * update->decay;
    ttt__adam_step(ctx, update, pass);
}
static void ttt__momentum(ttt_ctx *ctx, const ttt_update *update) {
    ttt__pass pass = ttt__pass_of(update);
    pass.b1 = update->desc->momentum;
    pass.l2 = update->decay;
    ttt__rule_kernels_of(ctx)->momentum(update->n, update->p, update->gathered,
                                        update->state[0]->data, &pass);
}

#define TTT__OF_ADAM "m v", "beta1 beta2 eps bf16_moment", 19
TTT__CONSTANT ttt_rule ttt_rule_adamw = { "adamw", TTT__OF_ADAM, ttt__adamw };
TTT__CONSTANT ttt_rule ttt_rule_adam = { "adam", TTT__OF_ADAM, ttt__adam };
TTT__CONSTANT ttt_rule ttt_rule_momentum = { "momentum", "m", "momentum", 9, ttt__momentum };
TTT__CONSTANT ttt_rule ttt_rule_mttt = { "mttt", TTT__OF_ADAM, ttt__mttt_chain };

const ttt_rule *ttt_rule_at(int i) {
    static const ttt_rule *const all[] = {
#define X(name) &ttt_rule_##name,
        TTT_RULES(X)
#undef X
    };
    return i >= 0 && i < (int)(sizeof all / sizeof *all) ? all[i] : NULL;
}

// -- a step
// Rows of a profile, which are told apart by address.
static const char ttt__norm_row[] = "gradient norm", ttt__update_row[] = "optimizer";

// The gathered gradient's norm over all trained parameters, as the mean over the gathered steps.
// Where its square has no number, the lengths of the parameters are made one by one.
static double ttt__gradient_norm(ttt_ctx *ctx, const ttt_optimizer *optimizer) {
    double sum = 0, size = 0, scale = 1;
    int back = ttt__profile_begin(ctx, ttt__norm_row, false);
    for (int i = 0; i < optimizer->n; i++) {
        const ttt_tensor *grad = optimizer->grad[i];
        sum += ctx->k->dot(grad->size, grad->data, grad->data);
        size += (double)grad->size;
    }
    if (!ttt__ordinary(sum)) {
        double most = 0;
        for (int i = 0; i < optimizer->n && most >= 0; i++) {
            const ttt_tensor *grad = optimizer->grad[i];
            double largest = ttt__largest_size(grad->size, grad->data, 1);
            if (!(largest <= most)) most = largest;
        }
        scale = ttt__scale_for(most);
        sum = 0;
        for (int i = 0; i < optimizer->n; i++)
            sum += ttt__scaled_squares(optimizer->grad[i]->size, optimizer->grad[i]->data, 1, 0,
                                       scale);
    }
    if (back >= 0)
        ttt__profile_count(ttt__profile_end(ctx, back), 2 * size, size * sizeof(ttt_real));
    return sqrt(sum) / scale / optimizer->desc.accumulate;
}

// Gives every trained parameter to the rule. It reads p, g and its state, and writes p and state.
static void ttt__update_all(ttt_ctx *ctx, ttt_optimizer *optimizer, double clip_scale) {
    const ttt_rule *rule = optimizer->desc.rule;
    int back = ttt__profile_begin(ctx, ttt__update_row, false);
    double size = 0, moved = 3 + 2 * optimizer->n_state;
    ttt_update u;
    memset(&u, 0, sizeof u);
    u.desc = &optimizer->desc;
    u.k = optimizer->updates;
    u.s = ttt_schedule(&optimizer->desc, optimizer->updates);
    u.scale = (ttt_real)(clip_scale / optimizer->desc.accumulate);
    u.norm = clip_scale * optimizer->grad_norm;
    for (int i = 0; i < optimizer->n; i++) {
        bool decays = optimizer->params->item[optimizer->row[i]].flags & TTT_PARAM_DECAYS;
        u.decay = decays ? optimizer->desc.weight_decay : 0;
        u.n = optimizer->grad[i]->size;
        u.p = optimizer->params->value[optimizer->row[i]]->data;
        u.gathered = optimizer->grad[i]->data;
        u.state = optimizer->state + i * optimizer->n_state;
        rule->update(ctx, &u);
        size += (double)u.n;
    }
    if (back >= 0)
        ttt__profile_count(ttt__profile_end(ctx, back), rule->flops * size,
                           moved * size * sizeof(ttt_real));
    optimizer->updates++;
}

// Nothing has changed until nothing can fail any more: a step that failed can be made again. The
// first gradient is written over what is there, later ones are added when they are complete.
ttt_result ttt_optimizer_step(ttt_ctx *ctx, ttt_optimizer *optimizer, ttt_tensor *loss) {
    if (!TTT__GIVEN("optimizer_step", optimizer) || !ttt__profile_ready(ctx, ttt__norm_row) ||
        !ttt__profile_ready(ctx, ttt__update_row))
        return ttt_status(ctx);
    bool first = optimizer->gathered == 0;
    ttt_tensor **trained = ttt__weights_room(ctx, optimizer->n, false);
    for (int i = 0; trained && i < optimizer->n; i++)
        trained[i] = optimizer->params->value[optimizer->row[i]];
    if (!trained || !ttt__on_tape(ctx, "optimizer_step", loss, trained, optimizer->n))
        return ttt_status(ctx);
    if (ttt__grad(ctx, loss, trained, optimizer->n, optimizer->grad, TTT_GRAD_ADD, first) ||
        ++optimizer->gathered < optimizer->desc.accumulate)
        return ttt_status(ctx);
    optimizer->gathered = 0;
    optimizer->grad_norm = ttt__gradient_norm(ctx, optimizer);
    // NaN or infinite: weights keep their last good values
    if (!(optimizer->grad_norm < HUGE_VAL)) {
        optimizer->skipped++;
        return TTT_OK;
    }
    double clip = (double)optimizer->desc.clip;
    ttt__update_all(ctx, optimizer,
                    clip > 0 && optimizer->grad_norm >= clip ? clip / optimizer->grad_norm : 1);
    return ttt_status(ctx);
}

// ---- CHECKPOINTS --------------------------------------------------------------------------------
#ifndef TTT_NO_STDIO
ttt_weights ttt_weights_find(ttt_ctx *ctx, const ttt_params *params, const char *name,
                             const ttt_bundle *file) {
    ttt_text t0, t1;
    if (!TTT__GIVEN("weights_find", params) || !TTT__GIVEN("weights_find", name) ||
        !TTT__GIVEN("weights_find", file))
        return ttt__no_weights();
    ttt_tensor **found = ttt__weights_room(ctx, params->n, false);
    for (int i = 0; found && i < params->n && ttt_ok(ctx); i++) {
        const char *weight = params->item[i].name;
        ttt_tensor *tensor = ttt_bundle_find(file, weight);
        if (!tensor)
            ttt_fail(ctx, TTT_ERR_FORMAT, "%s: has no tensor \"%s\"; was it saved from another "
                     "model?", name, weight);
        else if (!ttt_shape_equal(tensor->shape, params->value[i]->shape))
            ttt_fail(ctx, TTT_ERR_FORMAT, "%s: \"%s\" has shape %s, the model expects %s", name,
                     weight, ttt_shape_text(tensor->shape, t0),
                     ttt_shape_text(params->value[i]->shape, t1));
        else found[i] = tensor->data ? tensor : ttt_cast(ctx, tensor, TTT_DTYPE_REAL);
    }
    return ttt_ok(ctx) ? ttt__weights(found, params->n) : ttt__no_weights();
}

static void ttt__list_add(ttt_ctx *ctx, ttt_params *list, const char *name, ttt_tensor *value) {
    if (!ttt_ok(ctx)) return;
    list->item[list->n].name = name;
    list->item[list->n].flags = 0;
    list->value[list->n++] = value;
}

// Everything in a checkpoint as one list, in the step arena, for writing and for reading: the
// parameters by name, the optimizer's state of each as a parameter named optimizer/m/NAME, and,
// between two updates, its gathered gradient as optimizer/gathered/NAME.
static ttt_params ttt__checkpoint_list(ttt_ctx *ctx, const ttt_params *params,
                                       const ttt_optimizer *optimizer, bool gathered) {
    int most = params->n + (optimizer ? (optimizer->n_state + gathered) * optimizer->n : 0);
    int length = 0;
    ttt_params list;
    memset(&list, 0, sizeof list);
    list.capacity = most;
    list.item = (ttt_param *)ttt_alloc(ctx, (uint64_t)most * sizeof *list.item, false);
    list.value = ttt__weights_room(ctx, most, false);
    for (int i = 0; i < params->n; i++)
        ttt__list_add(ctx, &list, params->item[i].name, params->value[i]);
    for (int i = 0; optimizer && i < optimizer->n; i++)
        for (int k = 0; k < optimizer->n_state; k++) {
            const char *state = ttt__word(optimizer->desc.rule->state, k, &length);
            const char *name = ttt__text_of(ctx, "optimizer/%.*s/%s", length, state,
                                            params->item[optimizer->row[i]].name);
            ttt__list_add(ctx, &list, name, optimizer->state[i * optimizer->n_state + k]);
        }
    for (int i = 0; optimizer && gathered && i < optimizer->n; i++)
        ttt__list_add(ctx, &list, ttt__text_of(ctx, "optimizer/gathered/%s",
                                               params->item[optimizer->row[i]].name),
                      optimizer->grad[i]);
    return list;
}

static void ttt__note_add(ttt_bundle *bundle, const char *key, const char *text) {
    bundle->notes[bundle->n_notes].key = key;
    bundle->notes[bundle->n_notes++].text = text;
}
enum { TTT__OWN_NOTES = 7 };  // at most
#define TTT__NOTE_GATHERED "optimizer.gathered"
#define TTT__NOTE_NORM "optimizer.grad_norm"  // the 64 bits of the double, which may be infinite
static uint64_t ttt__bits_of(double number) {
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}
static void ttt__own_notes_add(ttt_ctx *ctx, const ttt_optimizer *optimizer, ttt_bundle *bundle) {
    const ttt_rng *rng = ttt_ctx_rng(ctx);
    const unsigned s[3] = { rng->stream[0], rng->stream[1], rng->stream[2] };
    double norm = optimizer ? optimizer->grad_norm : 0;
    ttt__note_add(bundle, "rng.seed", ttt__text_of(ctx, "%llu", (unsigned long long)rng->seed));
    ttt__note_add(bundle, "rng.next", ttt__text_of(ctx, "%llu", (unsigned long long)rng->next));
    if (optimizer) {
        ttt__note_add(bundle, "optimizer.updates",
                      ttt__text_of(ctx, "%lld", (long long)optimizer->updates));
        ttt__note_add(bundle, "optimizer.skipped",
                      ttt__text_of(ctx, "%lld", (long long)optimizer->skipped));
        ttt__note_add(bundle, TTT__NOTE_NORM,
                      ttt__text_of(ctx, "%llu", (unsigned long long)ttt__bits_of(norm)));
    }
    if (optimizer && optimizer->gathered)
        ttt__note_add(bundle, TTT__NOTE_GATHERED, ttt__text_of(ctx, "%d", optimizer->gathered));
    if (s[0] || s[1] || s[2])
        ttt__note_add(bundle, "rng.stream", ttt__text_of(ctx, "%u %u %u", s[0], s[1], s[2]));
}

ttt_result ttt_checkpoint_save(ttt_ctx *ctx, const char *path, const ttt_params *params,
                               const ttt_optimizer *optimizer, const ttt_note *notes,
                               int64_t n_notes) {
    if (!TTT__GIVEN("checkpoint_save", params) ||
        (n_notes > 0 && !TTT__GIVEN("checkpoint_save", notes)))
        return ttt_status(ctx);
    ttt_mark mark = ttt_mark_get(ctx);
    ttt_params list =
        ttt__checkpoint_list(ctx, params, optimizer, optimizer && optimizer->gathered > 0);
    size_t most = (size_t)n_notes + TTT__OWN_NOTES;
    ttt_bundle b = { NULL, list.n, NULL, 0, NULL };
    b.tensors = (ttt_named *)ttt_alloc(ctx, (uint64_t)list.n * sizeof *b.tensors, false);
    b.notes = (ttt_note *)ttt_alloc(ctx, most * sizeof *b.notes, false);
    for (int i = 0; i < list.n && ttt_ok(ctx); i++) {
        b.tensors[i].name = list.item[i].name;
        b.tensors[i].tensor = list.value[i];
    }
    for (int64_t i = 0; i < n_notes && ttt_ok(ctx); i++)
        ttt__note_add(&b, notes[i].key, notes[i].text);
    if (ttt_ok(ctx)) ttt__own_notes_add(ctx, optimizer, &b);
    if (ttt_ok(ctx)) ttt_safetensors_write(ctx, path, &b, false);
    ttt_mark_release(ctx, mark);
    return ttt_status(ctx);
}

// A whole number from 0 to `most`, in digits alone.
static bool ttt__note_number(ttt_ctx *ctx, const char *path, const ttt_bundle *file,
                             const char *key, uint64_t most, uint64_t *out) {
    const char *text = ttt_bundle_note(file, key);
    bool good = text && *text;
    *out = 0;
    for (; good && *text; text++) {
        uint64_t digit = (uint64_t)((unsigned char)*text - '0');
        good = digit <= 9 && digit <= most && *out <= (most - digit) / 10;
        *out = 10 * *out + digit;
    }
    if (!good)
        ttt_fail(ctx, TTT_ERR_FORMAT, "%s: training cannot go on from this file: its note \"%s\" "
                 "is missing or is not a number from 0 to %llu", path, key,
                 (unsigned long long)most);
    return good;
}

// "rng.stream" is there only where the context drew from a stream with a name.
static bool ttt__note_stream(ttt_ctx *ctx, const char *path, const ttt_bundle *file, ttt_rng *rng) {
    const char *text = ttt_bundle_note(file, "rng.stream");
    unsigned s[3] = { 0, 0, 0 };
    if (text && (text[strspn(text, "0123456789 ")] ||
                 sscanf(text, "%10u %10u %10u", &s[0], &s[1], &s[2]) != 3)) {
        ttt_fail(ctx, TTT_ERR_FORMAT, "%s: its note \"rng.stream\" is not three numbers", path);
        return false;
    }
    for (int i = 0; i < 3; i++) rng->stream[i] = s[i];
    return true;
}

// What a checkpoint says of an optimizer beside its tensors. Only one taken between two updates has
// gathered steps.
typedef struct ttt__counts {
    uint64_t updates, skipped, gathered, norm;
} ttt__counts;
static bool ttt__note_counts(ttt_ctx *ctx, const char *path, const ttt_bundle *file,
                             const ttt_optimizer *optimizer, ttt__counts *counts) {
    const uint64_t most = INT64_MAX / 2;  // so that their sum is a number, too
    memset(counts, 0, sizeof *counts);
    if (!optimizer) return true;
    if (!ttt__note_number(ctx, path, file, "optimizer.updates", most, &counts->updates) ||
        !ttt__note_number(ctx, path, file, "optimizer.skipped", most, &counts->skipped) ||
        (ttt_bundle_note(file, TTT__NOTE_NORM) &&
         !ttt__note_number(ctx, path, file, TTT__NOTE_NORM, UINT64_MAX, &counts->norm)))
        return false;
    return !ttt_bundle_note(file, TTT__NOTE_GATHERED) ||
           ttt__note_number(ctx, path, file, TTT__NOTE_GATHERED,
                            (uint64_t)(optimizer->desc.accumulate - 1), &counts->gathered);
}

ttt_result ttt_checkpoint_load(ttt_ctx *ctx, const char *path, ttt_params *params,
                               ttt_optimizer *optimizer, ttt_bundle *file) {
    ttt_rng rng;
    ttt__counts counts;
    if (file) memset(file, 0, sizeof *file);
    if (!TTT__GIVEN("checkpoint_load", params) || !TTT__GIVEN("checkpoint_load", file) ||
        ttt_safetensors_read(ctx, path, file) != TTT_OK) return ttt_status(ctx);
    bool gathered = ttt_bundle_note(file, TTT__NOTE_GATHERED) != NULL;
    ttt_params list = ttt__checkpoint_list(ctx, params, optimizer, gathered);
    ttt_weights saved = ttt_weights_find(ctx, &list, path, file);
    if (!ttt_ok(ctx) || !ttt__note_number(ctx, path, file, "rng.seed", UINT64_MAX, &rng.seed) ||
        !ttt__note_number(ctx, path, file, "rng.next", UINT64_MAX, &rng.next) ||
        !ttt__note_stream(ctx, path, file, &rng) ||
        !ttt__note_counts(ctx, path, file, optimizer, &counts))
        return ttt_status(ctx);
    if (ttt_weights_blend(ctx, ttt_params_weights(&list), saved, 1) != TTT_OK)
        return ttt_status(ctx);
    *ttt_ctx_rng(ctx) = rng;
    if (optimizer) {
        optimizer->updates = (int64_t)counts.updates;
        optimizer->skipped = (int64_t)counts.skipped;
        optimizer->gathered = (int)counts.gathered;
        memcpy(&optimizer->grad_norm, &counts.norm, sizeof optimizer->grad_norm);
    }
    return TTT_OK;
}

// -- a stream's state as a file: its tensors, and "read"; notes say what it is
#define TTT__STATE_FORMAT "ttt stream 1"
ttt_result ttt_stream_save(ttt_ctx *ctx, const char *path, const ttt_stream *stream,
                           const char *owner) {
    if (!TTT__GIVEN("stream_save", path) || !TTT__GIVEN("stream_save", stream) ||
        !TTT__GIVEN("stream_save", owner))
        return ttt_status(ctx);
    if (!stream->lanes)
        ttt_fail(ctx, TTT_ERR_UNSET, "stream_save: the stream has read nothing yet");
    ttt_mark mark = ttt_mark_get(ctx);
    ttt_note notes[2] = { { "format", TTT__STATE_FORMAT }, { "owner", NULL } };
    ttt_bundle b = { NULL, stream->state.n + 1, notes, 2, NULL };
    notes[1].text = owner;
    b.tensors = (ttt_named *)ttt_alloc(ctx, (uint64_t)b.n_tensors * sizeof *b.tensors, false);
    for (int i = 0; i < stream->state.n && ttt_ok(ctx); i++) {
        b.tensors[i].name = stream->state.item[i].name;
        b.tensors[i].tensor = stream->state.value[i];
    }
    if (ttt_ok(ctx)) {
        b.tensors[stream->state.n].name = "read";
        b.tensors[stream->state.n].tensor = stream->read;
        ttt_safetensors_write(ctx, path, &b, false);
    }
    ttt_mark_release(ctx, mark);
    return ttt_status(ctx);
}

// Whether a file is a state of this owner, with places that a stream can be at.
static bool ttt__state_good(ttt_ctx *ctx, const char *path, const ttt_bundle *file,
                            const char *owner, const ttt_tensor *read) {
    const char *format = ttt_bundle_note(file, "format"), *of = ttt_bundle_note(file, "owner");
    if (!format || strcmp(format, TTT__STATE_FORMAT) != 0 || !of)
        return ttt__refuse(ctx, TTT_ERR_FORMAT, path, "it is no state of a stream ('%s')",
                           TTT__STATE_FORMAT);
    if (strcmp(of, owner) != 0)
        return ttt__refuse(ctx, TTT_ERR_FORMAT, path, "the state of another model: its owner is "
                           "%.40s, and this one is %.40s", of, owner);
    if (!read || read->dtype != TTT_DTYPE_INT || read->shape.rank != 1 || read->size < 1)
        return ttt__refuse(ctx, TTT_ERR_FORMAT, path, "'read' is missing, or not whole numbers");
    for (int64_t b = 0; b < read->size; b++)
        if (read->index[b] < 0 || read->index[b] > TTT__FAR)
            return ttt__refuse(ctx, TTT_ERR_FORMAT, path, "lane %lld has read %lld tokens",
                               (long long)b, (long long)read->index[b]);
    for (int64_t i = 0; i < file->n_tensors; i++) {
        ttt_shape shape = ttt_bundle_shape(file, i);
        if (strcmp(file->tensors[i].name, "read") != 0 &&
            (shape.rank < 1 || shape.dim[0] != read->size))
            return ttt__refuse(ctx, TTT_ERR_FORMAT, path, "'%.80s' is not of %lld lanes",
                               file->tensors[i].name, (long long)read->size);
    }
    return true;
}
ttt_result ttt_stream_load(ttt_ctx *ctx, const char *path, ttt_stream *stream, const char *owner) {
    ttt_bundle file;
    ttt_stream made;
    if (!TTT__GIVEN("stream_load", path) || !TTT__GIVEN("stream_load", stream) ||
        !TTT__GIVEN("stream_load", owner))
        return ttt_status(ctx);
    ttt_mark mark = ttt_mark_get(ctx);
    memset(&made, 0, sizeof made);
    if (ttt_safetensors_read(ctx, path, &file) != TTT_OK) return ttt_status(ctx);
    ttt_tensor *read = ttt_bundle_find(&file, "read");
    if (ttt__state_good(ctx, path, &file, owner, read)) {
        uint64_t n = (uint64_t)file.n_tensors;
        made.lanes = read->size;
        made.read = read;
        made.state.item = (ttt_param *)ttt_alloc(ctx, n * sizeof *made.state.item, false);
        made.state.value = (ttt_tensor **)ttt_alloc(ctx, n * sizeof *made.state.value, false);
    }
    for (int64_t i = 0; i < file.n_tensors && ttt_ok(ctx); i++) {
        ttt_tensor *tensor = ttt_bundle_at(&file, i);
        if (tensor == NULL || strcmp(file.tensors[i].name, "read") == 0) continue;
        if (!ttt__operand(ctx, file.tensors[i].name, tensor, 0, TTT__REAL)) break;
        memset(&made.state.item[made.state.n], 0, sizeof *made.state.item);
        made.state.item[made.state.n].name = file.tensors[i].name;
        made.state.value[made.state.n++] = tensor;
    }
    bool names = made.state.n > stream->state.n || !ttt__streams_alike(stream, &made);
    for (int i = 0; i < made.state.n && names && ttt_ok(ctx); i++)
        made.state.item[i].name = ttt__path(ctx, NULL, "%s", made.state.item[i].name);
    if (ttt_ok(ctx)) ttt_stream_copy(ctx, stream, &made);
    ttt_mark_release(ctx, mark);
    return ttt_status(ctx);
}

// ---- MODEL FOLDERS ------------------------------------------------------------------------------
// -- names: how a parameter is filed: by the official PyTorch code (ttt.py of
// https://github.com/test-time-training/ttt-lm-pytorch), or by the JAX code that trained the models
// which its authors released (ttt/models/model.py and ttt_layer.py of
// https://github.com/test-time-training/ttt-lm-jax)
enum { TTT__PYTORCH, TTT__JAX };
typedef struct ttt__filed {
    const char *name;  // the end of it
    bool turned;       // a matrix that is stored with its axes swapped
    int one;           // the axis of length 1 that its shape has more; 0: none
} ttt__filed;
// The first row whose end fits. The last three are not of the official model alone.
static const struct {
    const char *own_name;
    ttt__filed forms[2];  // PyTorch, JAX
} ttt__filed_rows[] = {
    { "learnable_ttt_lr/kernel",
      { { "learnable_ttt_lr_weight", true, 1 }, { "learnable_ttt_lr/kernel", true, 2 } } },
    { "learnable_ttt_lr/bias",
      { { "learnable_ttt_lr_bias", false, 1 }, { "learnable_ttt_lr/bias", false, 1 } } },
    { "ttt_norm/scale", { { "ttt_norm_weight", false, 0 }, { "ttt_norm/scale", false, 0 } } },
    { "ttt_norm/bias", { { "ttt_norm_bias", false, 0 }, { "ttt_norm/bias", false, 0 } } },
    { "post_norm/scale", { { "post_norm.weight", false, 0 }, { "post_norm/scale", false, 0 } } },
    { "token_index", { { "learnable_token_idx", false, 0 }, { "learnable_token_idx", false, 0 } } },
    { "inner_Dense_0/kernel", { { "W1", false, 0 }, { "ttt_dense_0", false, 0 } } },
    { "inner_Dense_0/bias", { { "b1", false, 1 }, { "ttt_bias_0", false, 1 } } },
    { "inner_Dense_1/kernel", { { "W2", false, 0 }, { "ttt_dense_1", false, 0 } } },
    { "inner_Dense_1/bias", { { "b2", false, 1 }, { "ttt_bias_1", false, 1 } } },
    { "q_proj/kernel", { { "q_proj.weight", true, 0 }, { "wq/kernel", false, 0 } } },
    { "k_proj/kernel", { { "k_proj.weight", true, 0 }, { "wk/kernel", false, 0 } } },
    { "v_proj/kernel", { { "v_proj.weight", true, 0 }, { "wv/kernel", false, 0 } } },
    { "o_proj/kernel", { { "o_proj.weight", true, 0 }, { "wo/kernel", false, 0 } } },
    { "g_proj/kernel", { { "g_proj.weight", true, 0 }, { "wg/kernel", false, 0 } } },
    { "conv_q/kernel", { { "conv_q.weight", true, 1 }, { "conv_q/kernel", false, 1 } } },
    { "conv_k/kernel", { { "conv_k.weight", true, 1 }, { "conv_k/kernel", false, 1 } } },
    { "conv/kernel", { { "conv.weight", true, 1 }, { "conv1/kernel", false, 1 } } },
    { "conv/bias", { { "conv.bias", false, 0 }, { "conv1/bias", false, 0 } } },
    { "conv/norm/scale", { { "conv.norm.weight", false, 0 },
                           { "conv/conv_norm/kernel", false, 0 } } },
    { "mlp/gate_proj/kernel", { { "mlp.gate_proj.weight", true, 0 },
                                { "feed_forward/w1/kernel", false, 0 } } },
    { "mlp/up_proj/kernel", { { "mlp.up_proj.weight", true, 0 },
                              { "feed_forward/w3/kernel", false, 0 } } },
    { "mlp/down_proj/kernel", { { "mlp.down_proj.weight", true, 0 },
                                { "feed_forward/w2/kernel", false, 0 } } },
    { "model/norm/scale", { { "model.norm.weight", false, 0 },
                            { "model/ln_f/kernel", false, 0 } } },
    { "embed_tokens/embedding", { { "embed_tokens.weight", false, 0 },
                                  { "wte/embedding", false, 0 } } },
    { "lm_head/embedding", { { "lm_head.weight", false, 0 }, { "lm_head/kernel", true, 0 } } },
    { "kernel", { { "weight", true, 0 }, { "kernel", false, 0 } } },
    { "scale", { { "weight", false, 0 }, { "kernel", false, 0 } } },
    { "embedding", { { "weight", false, 0 }, { "embedding", false, 0 } } },
};
// The name of a parameter there, and its row. NULL after an error.
static const char *ttt__filed_name(ttt_ctx *ctx, const char *own_name, int form, ttt__filed *row) {
    static const ttt__filed plain = { "", false, 0 };
    static const char blocks[] = "model/layers/";
    size_t n = strlen(own_name), head = n, skipped = 0;
    *row = plain;
    for (size_t i = 0; i < sizeof ttt__filed_rows / sizeof *ttt__filed_rows && head == n; i++) {
        size_t end = strlen(ttt__filed_rows[i].own_name);
        if (end > n || strcmp(own_name + n - end, ttt__filed_rows[i].own_name) != 0) continue;
        if (end < n && own_name[n - end - 1] != '/') continue;
        *row = ttt__filed_rows[i].forms[form];
        head = n - end;
    }
    if (form == TTT__JAX && strncmp(own_name, blocks, sizeof blocks - 1) == 0)
        skipped = sizeof blocks - 1;
    char *name = (char *)(uintptr_t)ttt__text_of(ctx, "%s%.*s%s", skipped ? "model/h/" : "",
                                                 (int)(head - skipped), own_name + skipped,
                                                 row->name);
    for (char *at = name; at && *at && form == TTT__PYTORCH; at++)
        if (*at == '/') *at = '.';
    return name;
}
static bool ttt__filed_turned(const ttt__filed *row, ttt_shape shape) {
    return row->turned && shape.rank == 2;
}
static ttt_shape ttt__filed_shape(const ttt__filed *row, ttt_shape shape) {
    if (ttt__filed_turned(row, shape)) shape = TTT_SHAPE(shape.dim[1], shape.dim[0]);
    if (!row->one || shape.rank == TTT_MAX_RANK) return shape;
    for (int i = shape.rank++; i > row->one; i--) shape.dim[i] = shape.dim[i - 1];
    shape.dim[row->one] = 1;
    return shape;
}
// Row i of n, of `from`, becomes column i of `to`, or for a tensor that is not turned row i.
static void ttt__put_rows(const ttt_tensor *from, int64_t n, ttt_tensor *to, int64_t begin,
                          bool turned) {
    int64_t m = n ? from->size / n : 0, N = turned ? to->shape.dim[1] : 0;
    size_t bytes = ttt__element_bytes(to->dtype);
    char *y = (char *)ttt__elements(to);
    const char *x = (const char *)ttt__elements(from);
    if (!turned) memcpy(y + (size_t)(begin * m) * bytes, x, (size_t)from->size * bytes);
    for (int64_t j = 0; j < m && turned; j++)
        for (int64_t i = 0; i < n; i++)
            memcpy(y + (size_t)(j * N + begin + i) * bytes, x + (size_t)(i * m + j) * bytes, bytes);
}

// -- config.json
// How an option of a mixer stands in a file: 'b' true or false, 'r' a real number, 'i' a whole one;
// 'p' is an array, which no file holds.
static char ttt__option_kind(const ttt__option *option) {
    if (strchr(option->type, '*')) return 'p';
    return strcmp(option->type, "bool") == 0 ? 'b' : strcmp(option->type, "ttt_real") == 0 ? 'r'
                                                                                          : 'i';
}
static bool ttt__read_option(const ttt__document *d, const ttt__value *mixer,
                             const ttt__option *option, ttt_mixer_desc *desc) {
    char *to = (char *)desc + option->at, kind = ttt__option_kind(option);
    int64_t whole = 0;
    double real = 0;
    bool flag = false;
    bool good = kind == 'b'   ? ttt__member_bool(d, mixer, option->name, &flag)
                : kind == 'r' ? ttt__member_real(d, mixer, option->name, -1e30, 1e30, &real)
                : kind == 'i'
                    ? ttt__member_int(d, mixer, option->name, 0, TTT__MOST_WIDE, &whole)
                    : true;
    int small = (int)whole;
    ttt_real number = (ttt_real)real;
    if (kind == 'b') memcpy(to, &flag, sizeof flag);
    else if (kind == 'r') memcpy(to, &number, sizeof number);
    else if (kind == 'i' && option->size == sizeof whole) memcpy(to, &whole, sizeof whole);
    else if (kind == 'i') memcpy(to, &small, sizeof small);
    return good;
}
// The mixer of a model that is not of the official kind.
static bool ttt__read_mixer(const ttt__document *d, const ttt__value *mixer, ttt_lm_desc *desc) {
    const ttt__value *name = ttt__member_needed(d, mixer, "name", '"');
    if (!name) return false;
    desc->mixer.mixer = ttt_mixer_find(name->text.at);
    if (!desc->mixer.mixer)
        return ttt__refuse(d->ctx, TTT_ERR_FORMAT, d->file, "'mixer' is '%.40s', which is unknown",
                           name->text.at);
    bool good = true;
    for (int i = 0; i < TTT__N_OPTIONS && good; i++)
        good = ttt__read_option(d, mixer, &ttt__options[i], &desc->mixer);
    return good;
}
// What the JAX code calls the layer; its name says whether there are a gate and shared queries.
static bool ttt__read_jax_mixer(const ttt__document *d, ttt__string *kind, ttt_mixer_desc *mixer) {
    static const char *const names[4] = { "ttt_linear", "ttt_mlp", "ttt_linear_base",
                                          "ttt_mlp_base" };
    ttt__string name = { "", 0 };
    if (!ttt__member_string(d, d->root, "seq_modeling_block", &name)) return false;
    for (int i = 0; i < 4; i++) {
        if (!ttt__string_is(name, names[i])) continue;
        kind->at = i % 2 ? "mlp" : "linear";
        kind->n = strlen(kind->at);
        mixer->share_qk = mixer->output_gate = i < 2;
        return true;
    }
    return name.n == 0 || ttt__refuse(d->ctx, TTT_ERR_FORMAT, d->file,
                                      "'seq_modeling_block' is '%.40s'; 'ttt_linear', 'ttt_mlp', "
                                      "'ttt_linear_base' or 'ttt_mlp_base' expected", name.at);
}
static bool ttt__read_official_mixer(const ttt__document *d, ttt_lm_desc *desc) {
    ttt__string kind = { "linear", 6 };
    double rate = 1, theta = 10000;
    int64_t chunk = 16;
    ttt_mixer_desc *mixer = &desc->mixer;
    if (!ttt__read_jax_mixer(d, &kind, mixer) ||
        !ttt__member_string(d, d->root, "ttt_layer_type", &kind) ||
        !ttt__member_real(d, d->root, "ttt_base_lr", 1e-30, 1e30, &rate) ||
        !ttt__member_real(d, d->root, "rope_theta", 1e-30, 1e30, &theta) ||
        !ttt__member_int(d, d->root, "mini_batch_size", 1, TTT__MOST_WIDE, &chunk) ||
        !ttt__member_bool(d, d->root, "share_qk", &mixer->share_qk) ||
        !ttt__member_bool(d, d->root, "use_gate", &mixer->output_gate))
        return false;
    if (!ttt__string_is(kind, "linear") && !ttt__string_is(kind, "mlp"))
        return ttt__refuse(d->ctx, TTT_ERR_FORMAT, d->file,
                           "'ttt_layer_type' is '%.40s'; 'linear' or 'mlp' expected", kind.at);
    bool mlp = ttt__string_is(kind, "mlp");
    ttt__lm_official_mixer(mixer, mlp ? &ttt_mixer_ttt_mlp : &ttt_mixer_ttt_linear, mixer->heads);
    mixer->inner_lr = (ttt_real)rate;
    mixer->rotary = (ttt_real)theta;
    mixer->chunk = chunk;
    if (mixer->share_qk) mixer->conv = desc->conv;
    return true;
}

// The sizes of a model, which have no default.
static bool ttt__read_lm_sizes(const ttt__document *d, ttt_lm_desc *desc) {
    const struct {
        const char *key;
        int64_t most, *to;
    } size[] = { { "vocab_size", TTT__MOST_WIDE, &desc->vocab },
                 { "hidden_size", TTT__MOST_WIDE, &desc->width },
                 { "intermediate_size", TTT__MOST_WIDE, &desc->mlp },
                 { "num_hidden_layers", TTT__MOST_BLOCKS, &desc->depth },
                 { "num_attention_heads", TTT__MOST_WIDE, &desc->mixer.heads } };
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        if (!ttt__member_needed(d, d->root, size[i].key, '0') ||
            !ttt__member_int(d, d->root, size[i].key, 1, size[i].most, size[i].to))
            return false;
    return desc->width % desc->mixer.heads == 0 ||
           ttt__refuse(d->ctx, TTT_ERR_FORMAT, d->file, "'hidden_size' %lld is not divisible by "
                       "'num_attention_heads' %lld", (long long)desc->width,
                       (long long)desc->mixer.heads);
}
static bool ttt__read_lm_desc(const ttt__document *d, ttt_lm_desc *desc, ttt_lm_folder *folder) {
    bool good;
    const ttt__value *mixer = ttt__member_kind(d, d->root, "mixer", '{', &good);
    ttt__string activation = { "silu", 4 },
                type = { mixer ? "ttt-lm" : "ttt", mixer ? 6u : 3u };
    double eps = 1e-6;
    desc->conv = 4;
    desc->tied = true;
    if (!good || !ttt__member_string(d, d->root, "model_type", &type) ||
        !ttt__member_string(d, d->root, "hidden_act", &activation) ||
        !ttt__read_lm_sizes(d, desc) ||
        !ttt__member_real(d, d->root, "rms_norm_eps", 1e-30, 1, &eps) ||
        !ttt__member_bool(d, d->root, "pre_conv", &desc->pre_conv) ||
        !ttt__member_int(d, d->root, "conv_kernel", 1, 1024, &desc->conv) ||
        !ttt__member_int(d, d->root, "conv_width", 1, 1024, &desc->conv) ||
        !ttt__member_bool(d, d->root, "tie_word_embeddings", &desc->tied) ||
        !ttt__member_int(d, d->root, "bos_token_id", 0, desc->vocab - 1, &folder->bos) ||
        !ttt__member_int(d, d->root, "eos_token_id", 0, desc->vocab - 1, &folder->eos))
        return false;
    desc->norm_eps = (ttt_real)eps;
    if (!ttt__string_is(type, mixer ? "ttt-lm" : "ttt"))
        return ttt__refuse(d->ctx, TTT_ERR_FORMAT, d->file,
                           "'model_type' is '%.40s'; '%s' expected", type.at,
                           mixer ? "ttt-lm" : "ttt");
    if (!ttt__string_is(activation, "silu"))
        return ttt__refuse(d->ctx, TTT_ERR_FORMAT, d->file,
                           "'hidden_act' is '%.40s'; 'silu' expected", activation.at);
    good = mixer ? ttt__read_mixer(d, mixer, desc) : ttt__read_official_mixer(d, desc);
    if (!desc->pre_conv) desc->conv = 0;
    return good;
}

static void ttt__left(ttt_ctx *ctx, ttt_lm_folder *folder, int most, const char *file,
                      const char *name) {
    if (!folder->left)
        folder->left = (const char **)ttt_alloc(ctx, (uint64_t)most * sizeof *folder->left, false);
    const char *text = ttt__text_of(ctx, "%s: '%s'", file, name);
    if (ttt_ok(ctx)) folder->left[folder->n_left++] = text;
}
// Whether a key within "mixer" is one that is read.
static bool ttt__is_option(ttt__string key) {
    bool is = ttt__string_is(key, "name");
    for (int i = 0; i < TTT__N_OPTIONS && !is; i++)
        is = ttt__option_kind(&ttt__options[i]) != 'p' &&
             ttt__string_is(key, ttt__options[i].name);
    return is;
}
// Keys that nothing above reads. What others write into such a file, and has no effect here, is
// not worth a word.
static void ttt__left_keys(const ttt__document *d, ttt_lm_folder *folder) {
    static const char known[] =
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads mixer "
        "model_type hidden_act rms_norm_eps pre_conv conv_kernel tie_word_embeddings bos_token_id "
        "eos_token_id ttt_layer_type ttt_base_lr rope_theta mini_batch_size share_qk use_gate "
        "seq_modeling_block conv_width max_sequence_length ttt_base_lr_init ttt_base_lr_warmup "
        "remat_mini_batch_group_size "
        "architectures torch_dtype dtype transformers_version _name_or_path initializer_range "
        "max_position_embeddings pad_token_id pretraining_tp scan_checkpoint_group_size use_cache "
        "auto_map";
    const ttt__value *mixer = ttt__member(d->root, "mixer");
    int most = (int)(d->root->end - d->root);
    for (const ttt__value *v = ttt__first_value(d->root); v < d->root->end; v = v->end)
        if (!ttt__has_word(known, v->key.at))
            ttt__left(d->ctx, folder, most, "config.json", v->key.at);
    if (!mixer || mixer->kind != '{') return;
    for (const ttt__value *v = ttt__first_value(mixer); v < mixer->end; v = v->end)
        if (!ttt__is_option(v->key))
            ttt__left(d->ctx, folder, most, "config.json", v->key.at);
}

// A file of JSON whose root is an object.
static bool ttt__read_json(ttt_ctx *ctx, const char *path, ttt__document *d) {
    size_t size;
    char *text = ttt_file_read(ctx, path, &size);
    if (!text || !ttt__document_of(ctx, path, text, size, d)) return false;
    return d->root->kind == '{' ||
           ttt__refuse(ctx, TTT_ERR_FORMAT, path, "it holds %s; an object expected",
                       ttt__json_kind_text(d->root->kind));
}

ttt_result ttt_lm_config_read(ttt_ctx *ctx, const char *path, ttt_lm_desc *desc,
                              ttt_lm_folder *folder) {
    ttt_lm_folder none, *about = folder ? folder : &none;
    ttt__document d;
    if (!TTT__GIVEN("lm_config_read", path) || !TTT__GIVEN("lm_config_read", desc))
        return ttt_status(ctx);
    memset(desc, 0, sizeof *desc);
    about->bos = about->eos = -1;
    about->left = NULL;
    about->n_left = 0;
    if (ttt__read_json(ctx, path, &d) && ttt__read_lm_desc(&d, desc, about)) {
        if (ttt__lm_good(ctx, desc)) ttt__left_keys(&d, about);
    }
    if (!ttt_ok(ctx)) memset(desc, 0, sizeof *desc);
    return ttt_status(ctx);
}

// -- weights
// The files of a folder that hold its tensors.
typedef struct ttt__lm_files {
    ttt_ctx *ctx;
    const char *folder;
    int n;
    const char **name;  // of each
    ttt_bundle *file;
    int form;           // of the names
    int64_t taken;      // tensors that the model asked for
} ttt__lm_files;

static bool ttt__lm_files_room(ttt__lm_files *files, int64_t most) {
    uint64_t n = (uint64_t)most;
    files->name = (const char **)ttt_alloc(files->ctx, n * sizeof *files->name, false);
    files->file = (ttt_bundle *)ttt_alloc(files->ctx, n * sizeof *files->file, false);
    return ttt_ok(files->ctx);
}
// Opens a file, unless it is open. NULL after an error.
static const ttt_bundle *ttt__lm_file(ttt__lm_files *files, const char *name) {
    ttt_ctx *ctx = files->ctx;
    for (int i = 0; i < files->n; i++)
        if (strcmp(files->name[i], name) == 0) return &files->file[i];
    const char *path = ttt__text_of(ctx, "%s/%s", files->folder, name);
    files->name[files->n] = name;
    if (!path || ttt_safetensors_open(ctx, path, &files->file[files->n]) != TTT_OK) return NULL;
    return &files->file[files->n++];
}
// A name that leads to no other folder.
static bool ttt__plain_name(const char *name) {
    return *name && !strpbrk(name, "/\\:") && strcmp(name, "..") != 0 && strcmp(name, ".") != 0;
}
static bool ttt__lm_shards(ttt__lm_files *files, const char *index) {
    ttt_ctx *ctx = files->ctx;
    ttt__document d;
    const char *path = ttt__text_of(ctx, "%s/%s", files->folder, index);
    if (!path || !ttt__read_json(ctx, path, &d)) return false;
    const ttt__value *map = ttt__member_needed(&d, d.root, "weight_map", '{');
    int64_t n = 0;
    if (!map) return false;
    for (const ttt__value *v = ttt__first_value(map); v < map->end; v = v->end) n++;
    if (!ttt__lm_files_room(files, n)) return false;
    for (const ttt__value *v = ttt__first_value(map); v < map->end; v = v->end) {
        if (v->kind != '"' || !ttt__plain_name(v->text.at))
            return ttt__refuse(ctx, TTT_ERR_FORMAT, path, "'%.80s' is in '%.80s'; a file of this "
                               "folder expected", v->key.at, v->text.at);
        const ttt_bundle *file = ttt__lm_file(files, v->text.at);
        if (file && ttt_bundle_place(file, v->key.at) < 0)
            ttt__refuse(ctx, TTT_ERR_FORMAT, path, "'%.80s' is said to be in %.80s, which lacks it",
                        v->key.at, v->text.at);
        if (!ttt_ok(ctx)) return false;
    }
    return true;
}
static bool ttt__file_there(ttt_ctx *ctx, const char *folder, const char *name) {
    const char *path = ttt__text_of(ctx, "%s/%s", folder, name);
    FILE *f = path ? fopen(path, "rb") : NULL;
    if (f) fclose(f);
    return f != NULL;
}
// What the JAX code saved: parameters alone, or with all that training needs.
static bool ttt__lm_released(ttt__lm_files *files, const char *name, const char *prefix) {
    const char *path = ttt__text_of(files->ctx, "%s/%s", files->folder, name);
    files->form = TTT__JAX;
    if (!path || !ttt__lm_files_room(files, 1)) return false;
    files->name[files->n] = name;
    return ttt__flax_open(files->ctx, path, prefix, &files->file[files->n++]) == TTT_OK;
}
static bool ttt__lm_files_open(ttt_ctx *ctx, const char *folder, ttt__lm_files *files) {
    static const char whole[] = "model.safetensors", index[] = "model.safetensors.index.json";
    memset(files, 0, sizeof *files);
    files->ctx = ctx;
    files->folder = folder;
    if (ttt__file_there(ctx, folder, whole))
        return ttt__lm_files_room(files, 1) && ttt__lm_file(files, whole);
    if (ttt__file_there(ctx, folder, index)) return ttt__lm_shards(files, index);
    if (ttt__file_there(ctx, folder, "streaming_params"))
        return ttt__lm_released(files, "streaming_params", "");
    if (ttt__file_there(ctx, folder, "streaming_train_state"))
        return ttt__lm_released(files, "streaming_train_state", "params/params/");
    return ttt__refuse(ctx, TTT_ERR_FILE, folder, "there is neither %s nor %s nor streaming_params "
                       "nor streaming_train_state in it", whole, index);
}

// Numbers of all tensors in the files, and at least how many the model has: a config.json that asks
// for far more than there is must not take the memory first.
static double ttt__lm_files_numbers(const ttt__lm_files *files) {
    double n = 0;
    for (int i = 0; i < files->n; i++)
        for (int64_t k = 0; k < files->file[i].n_tensors; k++)
            n += (double)ttt_shape_size(ttt_bundle_shape(&files->file[i], k));
    return n;
}
static double ttt__lm_numbers(const ttt_lm_desc *desc) {
    double D = (double)desc->width, tables = desc->tied ? 1 : 2;
    return tables * D * (double)desc->vocab + 3 * D * (double)desc->mlp * (double)desc->depth;
}

// Reads tensor i of a file into `to`, by some rows at a time.
static bool ttt__lm_fill(ttt_ctx *ctx, const ttt_bundle *file, int64_t i, const ttt__filed *row,
                         ttt_tensor *to) {
    ttt_shape shape = ttt_bundle_shape(file, i);
    int64_t rows = shape.rank ? shape.dim[0] : 0, width = rows ? to->size / rows : 0;
    int64_t most = TTT__MAX(1, ((int64_t)1 << 16) / TTT__MAX(width, 1));
    for (int64_t begin = 0; begin < rows && ttt_ok(ctx); begin += most) {
        int64_t n = TTT__MIN(most, rows - begin);
        ttt_mark mark = ttt_mark_get(ctx);
        ttt_tensor *part = ttt_bundle_rows(file, i, begin, n);
        if (part && !part->data && !part->bf16 && part->dtype != TTT_DTYPE_F16)
            ttt_fail(ctx, TTT_ERR_FORMAT, "'%.80s' holds %s; real numbers expected",
                     file->tensors[i].name, ttt__dtype_text(part->dtype));
        if (ttt_ok(ctx) && part->dtype != to->dtype) part = ttt_cast(ctx, part, TTT_DTYPE_REAL);
        if (ttt_ok(ctx) && part->dtype != to->dtype) part = ttt_cast(ctx, part, to->dtype);
        if (ttt_ok(ctx)) ttt__put_rows(part, n, to, begin, ttt__filed_turned(row, to->shape));
        ttt_mark_release(ctx, mark);
    }
    return ttt_ok(ctx);
}
static bool ttt__lm_read_weight(ttt__lm_files *files, const char *own_name, ttt_tensor *to) {
    ttt_ctx *ctx = files->ctx;
    ttt_text t0, t1;
    ttt__filed row;
    const char *name = ttt__filed_name(ctx, own_name, files->form, &row);
    int at = 0;
    if (!name) return false;
    while (at < files->n && ttt_bundle_place(&files->file[at], name) < 0) at++;
    if (at == files->n)
        return ttt__refuse(ctx, TTT_ERR_FORMAT, files->folder, "no tensor '%s', which config.json "
                           "asks for", name);
    int64_t i = ttt_bundle_place(&files->file[at], name);
    ttt_shape there = ttt_bundle_shape(&files->file[at], i),
              wants = ttt__filed_shape(&row, to->shape);
    if (!ttt_shape_equal(there, wants))
        return ttt__refuse(ctx, TTT_ERR_FORMAT, files->folder,
                           "'%s' has shape %s; config.json asks for %s", name,
                           ttt_shape_text(there, t0), ttt_shape_text(wants, t1));
    files->taken++;
    return ttt__lm_fill(ctx, &files->file[at], i, &row, to);
}
// Tensors that the model did not ask for.
static void ttt__left_tensors(ttt__lm_files *files, const ttt_params *params,
                              ttt_lm_folder *folder) {
    ttt_ctx *ctx = files->ctx;
    int64_t all = 0;
    ttt__filed row;
    for (int i = 0; i < files->n; i++) all += files->file[i].n_tensors;
    if (all == files->taken) return;
    const char **name = (const char **)ttt_alloc(ctx, (uint64_t)params->n * sizeof *name, false),
               **left = (const char **)ttt_alloc(
                   ctx, ((uint64_t)folder->n_left + (uint64_t)all) * sizeof *left, false);
    for (int i = 0; i < params->n && ttt_ok(ctx); i++)
        name[i] = ttt__filed_name(ctx, params->item[i].name, files->form, &row);
    if (!ttt_ok(ctx)) return;
    if (folder->n_left) memcpy(left, folder->left, (size_t)folder->n_left * sizeof *left);
    folder->left = left;
    for (int i = 0; i < files->n; i++)
        for (int64_t k = 0; k < files->file[i].n_tensors; k++) {
            int at = 0;
            while (at < params->n && strcmp(name[at], files->file[i].tensors[k].name) != 0) at++;
            if (at == params->n)
                ttt__left(ctx, folder, 0, files->name[i], files->file[i].tensors[k].name);
        }
}

ttt_result ttt_lm_read(ttt_ctx *ctx, const char *path, ttt_lm_desc *desc, ttt_params *params,
                       ttt_lm_folder *folder) {
    ttt_lm_folder none, *about = folder ? folder : &none;
    ttt__lm_files files;
    if (!folder) memset(&none, 0, sizeof none);
    if (!TTT__GIVEN("lm_read", path) || !TTT__GIVEN("lm_read", desc) ||
        !TTT__GIVEN("lm_read", params))
        return ttt_status(ctx);
    memset(desc, 0, sizeof *desc);
    memset(params, 0, sizeof *params);
    const char *config = ttt__text_of(ctx, "%s/config.json", path);
    if (!config || ttt_lm_config_read(ctx, config, desc, about) != TTT_OK) return ttt_status(ctx);
    params->blank = true;
    params->bf16 = about->bf16;
    if (ttt__lm_files_open(ctx, path, &files)) {
        double there = ttt__lm_files_numbers(&files), wants = ttt__lm_numbers(desc);
        if (wants > there)
            ttt__refuse(ctx, TTT_ERR_FORMAT, path, "config.json asks for at least %.0f numbers, "
                        "but the weights are %.0f", wants, there);
        ttt_lm_new(ctx, desc, params, "");
    }
    for (int i = 0; i < params->n && ttt_ok(ctx); i++)
        ttt__lm_read_weight(&files, params->item[i].name, params->value[i]);
    if (ttt_ok(ctx)) ttt__left_tensors(&files, params, about);
    params->blank = params->bf16 = false;
    if (!ttt_ok(ctx)) memset(params, 0, sizeof *params);
    if (!ttt_ok(ctx)) memset(desc, 0, sizeof *desc);
    return ttt_status(ctx);
}

// -- writing
// The shortest decimal that is this number.
static const char *ttt__real_text(double value, ttt_text text) {
    int digits = 1;
    ttt_real back;
    do {
        ttt__string written = { text, 0 };
        snprintf(text, sizeof(ttt_text), "%.*g", digits, value);
        for (char *at = text; *at; at++)
            if (*at == ',') *at = '.';  // some locales' point
        written.n = strlen(text);
        back = (ttt_real)ttt__real_of_text(written);
    } while (back != (ttt_real)value && ++digits < 18);
    return text;
}
static bool ttt__lm_is_official(const ttt_lm_desc *desc) {
    const ttt_mixer_desc *mixer = &desc->mixer;
    ttt_mixer_desc kept;
    memset(&kept, 0, sizeof kept);
    if (mixer->mixer != &ttt_mixer_ttt_linear && mixer->mixer != &ttt_mixer_ttt_mlp) return false;
    ttt__lm_official_mixer(&kept, mixer->mixer, mixer->heads);
    kept.dim = mixer->dim;
    kept.inner_lr = ttt__rate(mixer);
    kept.inner_lrs = mixer->inner_lrs;
    kept.rotary = mixer->rotary;
    kept.chunk = ttt__chunk_or(mixer, 16);
    kept.share_qk = mixer->share_qk;
    kept.output_gate = mixer->output_gate;
    kept.conv = mixer->conv;
    bool taps = !desc->pre_conv || !mixer->share_qk ||
                (desc->conv ? desc->conv : 4) == (mixer->conv ? mixer->conv : 4);
    bool same = kept.inner_lr > 0 && kept.rotary > 0 && taps;
    for (int i = 0; i < TTT__N_OPTIONS && same; i++) {
        const ttt__option *option = &ttt__options[i];
        char kind = ttt__option_kind(option);
        if (kind == 'p' || kind == 'r' || strcmp(option->name, "chunk") == 0) continue;
        same = memcmp((const char *)&kept + option->at, (const char *)mixer + option->at,
                      option->size) == 0;
    }
    return same;
}

// Lines of config.json, one after the other.
typedef struct ttt__config_text {
    ttt_ctx *ctx;
    ttt_file_writer w;
    int members;  // of the object that is open
} ttt__config_text;
static void ttt__config_line(ttt__config_text *to, const char *key, const char *format, ...) {
    va_list args;
    ttt_text value;
    char line[300];
    va_start(args, format);
    vsnprintf(value, sizeof value, format, args);
    va_end(args);
    int n = snprintf(line, sizeof line, "%s\n  \"%s\": %s", to->members++ ? "," : "{", key, value);
    ttt_file_put(&to->w, line, (size_t)n);
}
static void ttt__config_whole(ttt__config_text *to, const char *key, int64_t value) {
    ttt__config_line(to, key, "%lld", (long long)value);
}
static void ttt__config_real(ttt__config_text *to, const char *key, double value) {
    ttt_text text;
    ttt__config_line(to, key, "%s", ttt__real_text(value, text));
}
static void ttt__config_bool(ttt__config_text *to, const char *key, bool value) {
    ttt__config_line(to, key, value ? "true" : "false");
}

static void ttt__write_official_mixer(ttt__config_text *to, const ttt_lm_desc *desc) {
    const ttt_mixer_desc *mixer = &desc->mixer;
    int64_t conv = mixer->share_qk ? mixer->conv : desc->conv;
    bool mlp = mixer->mixer == &ttt_mixer_ttt_mlp;
    ttt__config_line(to, "model_type", "\"ttt\"");
    ttt__config_line(to, "architectures", "[\"TTTForCausalLM\"]");
    ttt__config_line(to, "ttt_layer_type", mlp ? "\"mlp\"" : "\"linear\"");
    ttt__config_real(to, "ttt_base_lr", (double)ttt__rate(mixer));
    ttt__config_real(to, "rope_theta", (double)mixer->rotary);
    ttt__config_whole(to, "mini_batch_size", ttt__chunk_or(mixer, 16));
    ttt__config_bool(to, "share_qk", mixer->share_qk);
    ttt__config_bool(to, "use_gate", mixer->output_gate);
    ttt__config_whole(to, "conv_kernel", conv ? conv : 4);
}
static void ttt__write_option(ttt__config_text *to, const ttt_mixer_desc *mixer,
                              const ttt__option *option) {
    const char *from = (const char *)mixer + option->at;
    char kind = ttt__option_kind(option);
    int small = 0;
    int64_t whole = 0;
    ttt_real real = 0;
    bool flag = false;
    if (kind == 'b') memcpy(&flag, from, sizeof flag);
    else if (kind == 'r') memcpy(&real, from, sizeof real);
    else if (kind == 'i' && option->size == sizeof whole) memcpy(&whole, from, sizeof whole);
    else if (kind == 'i') memcpy(&small, from, sizeof small);
    if (flag) ttt__config_bool(to, option->name, flag);
    else if (real != 0) ttt__config_real(to, option->name, (double)real);
    else if (whole || small) ttt__config_whole(to, option->name, whole + small);
}
static void ttt__write_mixer(ttt__config_text *to, const ttt_lm_desc *desc) {
    static const char key[] = ",\n  \"mixer\": ", close[] = "\n  }";
    ttt_mixer_desc mixer = desc->mixer;
    mixer.inner_lr = ttt__rate(&mixer);
    ttt__config_line(to, "model_type", "\"ttt-lm\"");
    if (desc->pre_conv) ttt__config_whole(to, "conv_kernel", desc->conv ? desc->conv : 4);
    int outside = to->members;
    ttt_file_put(&to->w, key, sizeof key - 1);
    to->members = 0;
    ttt__config_line(to, "name", "\"%s\"", mixer.mixer->name);
    for (int i = 0; i < TTT__N_OPTIONS; i++) ttt__write_option(to, &mixer, &ttt__options[i]);
    ttt_file_put(&to->w, close, sizeof close - 1);
    to->members = outside;
}
static ttt_result ttt__lm_config_write(ttt_ctx *ctx, const char *path, const ttt_lm_desc *given,
                                       const ttt_lm_folder *folder) {
    ttt_lm_desc desc = ttt__lm_resolved(given);
    ttt__config_text to;
    to.ctx = ctx;
    to.members = 0;
    if (!ttt_file_begin(ctx, &to.w, path)) return ttt_status(ctx);
    if (ttt__lm_is_official(&desc)) ttt__write_official_mixer(&to, &desc);
    else ttt__write_mixer(&to, &desc);
    ttt__config_whole(&to, "vocab_size", desc.vocab);
    ttt__config_whole(&to, "hidden_size", desc.width);
    ttt__config_whole(&to, "intermediate_size", desc.mlp);
    ttt__config_whole(&to, "num_hidden_layers", desc.depth);
    ttt__config_whole(&to, "num_attention_heads", desc.mixer.heads);
    ttt__config_real(&to, "rms_norm_eps", (double)desc.norm_eps);
    ttt__config_bool(&to, "pre_conv", desc.pre_conv);
    ttt__config_bool(&to, "tie_word_embeddings", desc.tied);
    ttt__config_line(&to, "hidden_act", "\"silu\"");
    ttt__config_line(&to, "torch_dtype", folder && folder->bf16 ? "\"bfloat16\"" : "\"float32\"");
    bool told = folder && (folder->bos || folder->eos);  // zero is nothing
    if (told && folder->bos >= 0) ttt__config_whole(&to, "bos_token_id", folder->bos);
    if (told && folder->eos >= 0) ttt__config_whole(&to, "eos_token_id", folder->eos);
    return ttt_file_finish(ctx, &to.w, ttt_file_put(&to.w, "\n}\n", 3));
}

// The tensor as it is filed: itself in another shape, or turned.
static ttt_tensor *ttt__filed_tensor(ttt_ctx *ctx, const ttt__filed *row, ttt_tensor *from) {
    bool turned = ttt__filed_turned(row, from->shape);
    ttt_tensor *to = ttt__tensor(ctx, ttt__filed_shape(row, from->shape), from->dtype, false,
                                 turned ? NULL : from);
    if (!to || !ttt_ok(ctx) || !turned) return to;
    ttt_shape shape = to->shape;
    to->shape = TTT_SHAPE(from->shape.dim[1], from->shape.dim[0]);
    ttt__put_rows(from, from->shape.dim[0], to, 0, true);
    to->shape = shape;
    return to;
}
// Whether the first parameter is that of a language model, behind any prefix.
static bool ttt__lm_named(ttt_ctx *ctx, const ttt_params *params) {
    const char *name = params->item[0].name;
    size_t n = strlen(name), end = strlen(TTT__LM_FIRST);
    if (n >= end && strcmp(name + n - end, TTT__LM_FIRST) == 0) return true;
    ttt_fail(ctx, TTT_ERR_ARGUMENT, "lm_write: the first parameter is '%.80s'; '%s' expected", name,
             TTT__LM_FIRST);
    return false;
}
ttt_result ttt_lm_write(ttt_ctx *ctx, const char *path, const ttt_lm_desc *desc,
                        const ttt_params *params, const ttt_lm_folder *folder) {
    ttt_note note = { "format", "pt" };
    ttt_bundle bundle = { NULL, 0, &note, 1, NULL };
    if (!TTT__GIVEN("lm_write", path) || !TTT__GIVEN("lm_write", params) ||
        !ttt__lm_good(ctx, desc) ||
        !ttt__weights_expected(ctx, "lm_write", ttt_params_weights(params), ttt_lm_count(desc)) ||
        !ttt__lm_named(ctx, params))
        return ttt_status(ctx);
    ttt_mark mark = ttt_mark_get(ctx);
    size_t prefix = strlen(params->item[0].name) - strlen(TTT__LM_FIRST);
    const char *file = ttt__text_of(ctx, "%s/model.safetensors", path),
               *config = ttt__text_of(ctx, "%s/config.json", path);
    bundle.tensors =
        (ttt_named *)ttt_alloc(ctx, (uint64_t)params->n * sizeof *bundle.tensors, false);
    for (; bundle.n_tensors < params->n && ttt_ok(ctx); bundle.n_tensors++) {
        ttt_named *to = &bundle.tensors[bundle.n_tensors];
        ttt__filed row;
        const char *own_name = params->item[bundle.n_tensors].name + prefix;
        to->name = ttt__filed_name(ctx, own_name, TTT__PYTORCH, &row);
        to->tensor = ttt__filed_tensor(ctx, &row, params->value[bundle.n_tensors]);
    }
    if (ttt_ok(ctx)) ttt_safetensors_write(ctx, file, &bundle, folder && folder->bf16);
    if (ttt_ok(ctx)) ttt__lm_config_write(ctx, config, desc, folder);
    ttt_mark_release(ctx, mark);
    return ttt_status(ctx);
}
#endif  // TTT_NO_STDIO

// ---- GENERATION ---------------------------------------------------------------------------------
typedef struct ttt__odds {
    double p;  // not yet divided by the sum
    int64_t token;
} ttt__odds;
static int ttt__by_odds(const void *a, const void *b) {
    const ttt__odds *x = (const ttt__odds *)a, *y = (const ttt__odds *)b;
    if (x->p != y->p) return x->p < y->p ? -1 : 1;
    return x->token > y->token ? -1 : x->token < y->token;  // of equals the first is likeliest
}
// Logits, of tokens that were seen lowered, into p; returns the likeliest, -1 after an error.
static int64_t ttt__lowered(ttt_ctx *ctx, const ttt_choice *choice, const ttt_real *logits,
                            int64_t vocab, const int64_t *seen, int64_t n_seen, ttt__odds *odds) {
    double by = choice->repetition > 0 ? (double)choice->repetition : 1;
    int64_t best = 0;
    for (int64_t i = 0; i < vocab; i++) {
        odds[i].token = i;
        odds[i].p = (double)logits[i];
        if (odds[i].p == odds[i].p) continue;
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "choose: the logit of token %lld is not a number",
                 (long long)i);
        return -1;
    }
    for (int64_t k = 0; k < n_seen && by != 1; k++) {
        if (seen[k] < 0 || seen[k] >= vocab) continue;
        double z = (double)logits[seen[k]];  // once, however often it was seen
        odds[seen[k]].p = z > 0 ? z / by : z * by;
    }
    for (int64_t i = 1; i < vocab; i++)
        if (odds[i].p > odds[best].p) best = i;
    return best;
}
// Draws among n odds, or among those of the likeliest that the choice leaves.
static int64_t ttt__drawn(ttt_ctx *ctx, const ttt_choice *choice, ttt_rng *rng, ttt__odds *odds,
                          int64_t n) {
    bool few = choice->top_k > 0 || choice->top_p > 0;
    double all = 0, kept = 0, most = choice->top_p > 0 ? (double)choice->top_p : 1;
    void **heap = few ? (void **)ttt_alloc(ctx, (uint64_t)n * sizeof *heap, false) : NULL;
    for (int64_t i = 0; i < n; i++) all += odds[i].p;
    for (int64_t i = 0; i < n && heap; i++) heap[i] = &odds[i];
    for (int64_t i = n / 2; i-- > 0 && heap;) ttt__sift(heap, i, n, ttt__by_odds);
    int64_t left = n, taken = 0;
    while (heap && left > 0 && (!choice->top_k || taken < choice->top_k) && kept < most * all) {
        void *likeliest = heap[0];
        heap[0] = heap[--left];
        heap[left] = likeliest;  // those that were taken stand at the end
        ttt__sift(heap, 0, left, ttt__by_odds);
        kept += ((const ttt__odds *)likeliest)->p;
        taken++;
    }
    double at = ttt_rng_uniform(rng) * (few ? kept : all);
    int64_t last = few && heap ? ((const ttt__odds *)heap[n - 1])->token : 0;
    for (int64_t i = 0; i < (few ? taken : n) && at >= 0 && (heap || !few); i++) {
        const ttt__odds *one = few ? (const ttt__odds *)heap[n - 1 - i] : &odds[i];
        at -= one->p;
        if (one->p > 0) last = one->token;
    }
    return last;
}
int64_t ttt_choose(ttt_ctx *ctx, const ttt_choice *choice, ttt_rng *rng, const ttt_real *logits,
                   int64_t vocab, const int64_t *seen, int64_t n_seen) {
    if (!TTT__GIVEN("choose", choice) || !TTT__GIVEN("choose", rng) ||
        !TTT__GIVEN("choose", logits) || (n_seen > 0 && !TTT__GIVEN("choose", seen)))
        return -1;
    if (!(choice->temperature >= 0) || choice->top_k < 0 || !(choice->top_p >= 0) ||
        !(choice->top_p <= 1) || !(choice->repetition >= 0) || vocab < 1)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "choose: .temperature %g, .top_k %lld, .top_p %g, "
                 ".repetition %g, %lld logits; 0 or more, .top_p at most 1 and a logit expected",
                 (double)choice->temperature, (long long)choice->top_k, (double)choice->top_p,
                 (double)choice->repetition, (long long)vocab);
    if (!ttt_ok(ctx)) return -1;
    ttt_mark mark = ttt_mark_get(ctx);
    ttt__odds *odds = (ttt__odds *)ttt_alloc(ctx, (uint64_t)vocab * sizeof *odds, false);
    int64_t token = odds ? ttt__lowered(ctx, choice, logits, vocab, seen, n_seen, odds) : -1;
    if (token >= 0 && choice->temperature > 0) {
        double top = odds[token].p;
        for (int64_t i = 0; i < vocab; i++)
            odds[i].p = odds[i].p == top ? 1 : exp((odds[i].p - top) / (double)choice->temperature);
        token = ttt__drawn(ctx, choice, rng, odds, vocab);
    }
    ttt_mark_release(ctx, mark);
    return ttt_ok(ctx) ? token : -1;
}

#ifndef TTT_NO_TOKENIZERS
// Text on its way out: what may become a stop is held back.
typedef struct ttt__outlet {
    const ttt_generate_desc *how;
    char *held;
    size_t n, room;
    bool closed;  // by a stop or its receiver
} ttt__outlet;
static void ttt__let_out(ttt__outlet *outlet, size_t n) {
    if (!n) return;
    if (outlet->how->piece && !outlet->how->piece(outlet->how->user, outlet->held, n))
        outlet->closed = true;
    outlet->n -= n;
    memmove(outlet->held, outlet->held + n, outlet->n);
}
// How much of the text may go: all but its longest end that begins a stop, or that stands before
// one; then the text ends.
static size_t ttt__sure(ttt__outlet *outlet) {
    for (size_t i = 0; i < outlet->n; i++)
        for (int k = 0; k < outlet->how->n_stops; k++) {
            size_t length = strlen(outlet->how->stops[k]), rest = outlet->n - i;
            if (!length || memcmp(outlet->held + i, outlet->how->stops[k],
                                  TTT__MIN(length, rest)) != 0) continue;
            outlet->closed = outlet->closed || length <= rest;
            return i;
        }
    return outlet->n;
}
static void ttt__put_out(ttt_ctx *ctx, ttt__outlet *outlet, const char *text, size_t n) {
    if (!n || outlet->closed || !ttt_ok(ctx)) return;
    if (outlet->n + n > outlet->room) {
        size_t room = 2 * (outlet->n + n) + 256;
        char *held = (char *)ttt__arena_alloc(ctx, &ctx->scratch, room);
        if (!held) return;
        if (outlet->n) memcpy(held, outlet->held, outlet->n);
        outlet->held = held;
        outlet->room = room;
    }
    memcpy(outlet->held + outlet->n, text, n);
    outlet->n += n;
    ttt__let_out(outlet, ttt__sure(outlet));
}

// Reads tokens (N) by pieces. *logits (vocab) receives those of the successor.
static bool ttt__read_tokens(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_weights weights,
                             ttt_stream *stream, const int64_t *tokens, int64_t N,
                             ttt_real *logits) {
    enum { TTT__PIECE = 256 };
    for (int64_t at = 0; at < N && ttt_ok(ctx); at += TTT__PIECE) {
        ttt_mark mark = ttt_mark_get(ctx);
        int64_t n = TTT__MIN((int64_t)TTT__PIECE, N - at);
        ttt_tensor *piece = ttt_from_int(ctx, TTT_SHAPE(1, n), tokens + at);
        ttt_tensor *y = ttt_lm_stream(ctx, desc, weights, stream, piece, NULL, true);
        if (ttt_ok(ctx)) memcpy(logits, y->data, (size_t)desc->vocab * sizeof *logits);
        ttt_mark_release(ctx, mark);
    }
    return ttt_ok(ctx);
}
static bool ttt__is_end(const ttt_generate_desc *how, int64_t token) {
    for (int i = 0; i < how->n_ends; i++)
        if (how->ends[i] == token) return true;
    return false;
}
static bool ttt__generate_good(ttt_ctx *ctx, const ttt_generate_desc *how, const ttt_stream *stream,
                               const ttt_tensor *prompt) {
    if (how->tokens < 1 || how->tokens > TTT__FAR)
        ttt_fail(ctx, TTT_ERR_UNSET, "generate: .tokens is %lld; how many new ones must be set",
                 (long long)how->tokens);
    else if (prompt->size == 0)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "generate: the prompt is empty; a model cannot go on from "
                 "nothing");
    else if (stream->lanes > 1)
        ttt_fail(ctx, TTT_ERR_SHAPE, "generate: a stream of %lld lanes; one expected",
                 (long long)stream->lanes);
    if (how->n_ends > 0) ttt__given(ctx, "generate", "ends", how->ends != NULL);
    if (how->n_stops > 0) ttt__given(ctx, "generate", "stops", how->stops != NULL);
    for (int i = 0; i < how->n_stops && ttt_ok(ctx); i++)
        ttt__given(ctx, "generate", "a stop", how->stops[i] != NULL);
    return ttt_ok(ctx);
}
// New tokens behind n that are in `tokens`, until there are enough or the text ends.
static void ttt__go_on(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_weights weights,
                       const ttt_tokenizer *tokenizer, ttt_stream *stream,
                       const ttt_generate_desc *how, int64_t *tokens, int64_t n, ttt_real *logits,
                       ttt_generated *out) {
    ttt_rng rng = ttt_rng_at(how->seed, 0, 0, 0);
    ttt__outlet outlet;
    ttt_decoder decoder;
    size_t length;
    memset(&outlet, 0, sizeof outlet);
    memset(&decoder, 0, sizeof decoder);
    outlet.how = how;
    decoder.tokenizer = tokenizer;
    decoder.skip_special = true;
    while (out->made < how->tokens && !out->ended && ttt_ok(ctx)) {
        int64_t token =
            ttt_choose(ctx, &how->choice, &rng, logits, desc->vocab, tokens, n + out->made);
        ttt_mark mark = ttt_mark_get(ctx);
        if (!ttt__read_tokens(ctx, desc, weights, stream, &token, 1, logits)) return;
        tokens[n + out->made++] = token;
        bool end = ttt__is_end(how, token);
        if (!end && ttt_token_text(tokenizer, token, NULL)) {  // a model may have more tokens
            const char *text = ttt_decoder_push(ctx, &decoder, token, &length);
            ttt__put_out(ctx, &outlet, text, length);
        }
        out->ended = end || outlet.closed;
        ttt_mark_release(ctx, mark);
    }
    const char *text = ttt_decoder_end(ctx, &decoder, &length);
    ttt__put_out(ctx, &outlet, text, length);
    if (!outlet.closed && ttt_ok(ctx)) ttt__let_out(&outlet, outlet.n);
}
ttt_result ttt_generate(ttt_ctx *ctx, const ttt_lm_desc *desc, ttt_weights weights,
                        const ttt_tokenizer *tokenizer, ttt_stream *stream, const char *prompt,
                        size_t n, const ttt_generate_desc *how, ttt_generated *out) {
    ttt_generated own, *counts = out ? out : &own;
    memset(counts, 0, sizeof *counts);
    if (!ttt__lm_good(ctx, desc) || !TTT__GIVEN("generate", tokenizer) ||
        !TTT__GIVEN("generate", stream) || !TTT__GIVEN("generate", prompt) ||
        !TTT__GIVEN("generate", how))
        return ttt_status(ctx);
    ttt_mark mark = ttt_mark_get(ctx), scratch = ttt__arena_mark(&ctx->scratch);
    ttt_tensor *first = ttt_encode(ctx, tokenizer, prompt, n, stream->lanes == 0);
    if (ttt_ok(ctx) && ttt__generate_good(ctx, how, stream, first)) {
        uint64_t room = (uint64_t)(first->size + how->tokens);
        int64_t *tokens = (int64_t *)ttt_alloc(ctx, room * sizeof *tokens, false);
        ttt_real *logits =
            (ttt_real *)ttt_alloc(ctx, (uint64_t)desc->vocab * sizeof *logits, false);
        if (ttt_ok(ctx)) memcpy(tokens, first->index, (size_t)first->size * sizeof *tokens);
        if (ttt_ok(ctx) &&
            ttt__read_tokens(ctx, desc, weights, stream, tokens, first->size, logits)) {
            counts->read = first->size;
            ttt__go_on(ctx, desc, weights, tokenizer, stream, how, tokens, first->size, logits,
                       counts);
        }
    }
    ttt__arena_release(&ctx->scratch, scratch);
    ttt_mark_release(ctx, mark);
    return ttt_status(ctx);
}
#endif  // TTT_NO_TOKENIZERS

// ---- AUDIT --------------------------------------------------------------------------------------
// Two inputs, of which some answers must agree: those to the tokens [begin, end) of each lane of
// `first` that has a partner. Before a check changes it, `second` is like `first`.
typedef struct ttt__audit_trial {
    ttt_audit_input first, second;
    int64_t *partner;            // (first.B): the lane of `second` that answers alike; -1: none
    int64_t begin, end, shift;   // token i of `first` is token i - shift of `second`
    int64_t piece, other_piece;  // tokens that a stream reads at once of each; 0: no stream
    bool rests;                  // lane b of `second` rests in the first b rounds
    bool between;                // the model is asked something else before `second`
    char why[100];
} ttt__audit_trial;

typedef struct ttt__audit {
    ttt_ctx *ctx;
    const ttt_audit_desc *desc;
    int64_t B, L;        // of the trials now
    int64_t versions;    // of a token that is changed
    unsigned expresses;  // what checks may need
} ttt__audit;

// A token is a function of the seed, its place and its version, so that short inputs are the
// beginnings of long ones. Version 0 is the usual, 1 another, 2 NaN, 3 infinity.
static void ttt__audit_write(const ttt__audit *a, const ttt_audit_input *in, int64_t lane,
                             int64_t position, int64_t version) {
    int64_t at = lane * in->L + position, vocab = a->desc->vocab, D = a->desc->width;
    ttt_rng usual = ttt_rng_at(a->desc->seed, (uint32_t)lane, (uint32_t)position, 0);
    ttt_rng other = ttt_rng_at(a->desc->seed, (uint32_t)lane, (uint32_t)position, 1);
    if (in->ids) {
        int64_t id = ttt_rng_below(&usual, vocab);
        if (version) id = (id + 1 + ttt_rng_below(&other, vocab - 1)) % vocab;
        ((int64_t *)in->ids)[at] = id;
    }
    for (int64_t i = 0; in->vectors && i < D; i++) {
        double v = version == 0 ? ttt_rng_normal(&usual) : version == 1 ? ttt_rng_normal(&other) :
                   version == 2 ? (double)NAN : (double)INFINITY;
        ((ttt_real *)in->vectors)[at * D + i] = (ttt_real)v;
    }
}
static void ttt__audit_change(const ttt__audit *a, const ttt_audit_input *in, int64_t lane,
                              int64_t from, int64_t to, int64_t version) {
    for (int64_t i = from; i < to; i++) ttt__audit_write(a, in, lane, i, version);
}
static const char *ttt__audit_version(int64_t version) {
    static const char *const names[] = { "as they were", "others", "NaN", "infinite" };
    return names[version];
}

// Room for B lanes of L tokens; no arrays after an error.
static ttt_audit_input ttt__audit_room(const ttt__audit *a, int64_t B, int64_t L) {
    const uint64_t tokens = (uint64_t)B * (uint64_t)L, D = (uint64_t)a->desc->width;
    ttt_audit_input in = { B, L, NULL, NULL, NULL, NULL };
    if (D) in.vectors = (ttt_real *)ttt_alloc(a->ctx, tokens * D * sizeof(ttt_real), false);
    else in.ids = (int64_t *)ttt_alloc(a->ctx, tokens * sizeof(int64_t), false);
    return in;
}
static int64_t *ttt__audit_numbers(const ttt__audit *a, int64_t n, int64_t value) {
    int64_t *number = (int64_t *)ttt_alloc(a->ctx, (uint64_t)n * sizeof *number, false);
    for (int64_t i = 0; number && i < n; i++) number[i] = value;
    return number;
}
static ttt_audit_input ttt__audit_tokens(const ttt__audit *a, int64_t version) {
    ttt_audit_input in = ttt__audit_room(a, a->B, a->L);
    for (int64_t b = 0; b < a->B && ttt_ok(a->ctx); b++)
        ttt__audit_change(a, &in, b, 0, a->L, version);
    return in;
}

// n tokens from one place to another.
static void ttt__audit_copy(const ttt__audit *a, const ttt_audit_input *to, int64_t lane,
                            int64_t position, const ttt_audit_input *from, int64_t from_lane,
                            int64_t from_position, int64_t n) {
    size_t D = from->ids ? 1 : (size_t)a->desc->width, count = (size_t)n * D;
    int64_t at = lane * to->L + position, from_at = from_lane * from->L + from_position;
    if (from->ids) memcpy((int64_t *)to->ids + at, from->ids + from_at, count * sizeof *to->ids);
    else memcpy((ttt_real *)to->vectors + at * (int64_t)D, from->vectors + from_at * (int64_t)D,
                count * sizeof *to->vectors);
}
// The tokens [from, from + L) of the first B lanes alone.
static ttt_audit_input ttt__audit_part(const ttt__audit *a, const ttt_audit_input *of, int64_t B,
                                       int64_t from, int64_t L) {
    ttt_audit_input in = ttt__audit_room(a, B, L);
    for (int64_t b = 0; b < B && ttt_ok(a->ctx); b++) ttt__audit_copy(a, &in, b, 0, of, b, from, L);
    return in;
}

// -- checks. Each makes its trial number i for the sizes in `a`; false if it has no more.
static bool ttt__audit_determinism(const ttt__audit *a, int64_t i, ttt__audit_trial *t) {
    (void)a;
    t->between = i == 1;
    snprintf(t->why, sizeof t->why, i ? "when asked again after other tokens" : "when asked again");
    return i < 2;
}

// The fewest tokens that are changed come first.
static bool ttt__audit_causality(const ttt__audit *a, int64_t i, ttt__audit_trial *t) {
    int64_t cut = a->L - 1 - i / a->versions, version = 1 + i % a->versions;
    if (cut < 1) return false;
    for (int64_t b = 0; b < a->B; b++) ttt__audit_change(a, &t->second, b, cut, a->L, version);
    t->end = cut;
    snprintf(t->why, sizeof t->why, "when tokens from %lld on are %s", (long long)cut,
             ttt__audit_version(version));
    return true;
}

static bool ttt__audit_stream(const ttt__audit *a, int64_t i, ttt__audit_trial *t) {
    t->other_piece = a->L;
    snprintf(t->why, sizeof t->why, "when a stream reads it");
    return i < 1;
}

static bool ttt__audit_split(const ttt__audit *a, int64_t i, ttt__audit_trial *t) {
    int64_t kinds = a->desc->lengths && a->B > 1 ? 2 : 1;
    t->piece = a->L;
    t->other_piece = 1 + i / kinds;
    t->rests = i % kinds == 1;
    snprintf(t->why, sizeof t->why, "when a stream reads %lld at once%s", (long long)t->other_piece,
             t->rests ? ", and lane b begins b rounds later" : "");
    return t->other_piece < a->L;
}

static bool ttt__audit_padding(const ttt__audit *a, int64_t i, ttt__audit_trial *t) {
    int64_t kinds = a->versions + 1, padded = 1 + i / kinds, version = (1 + i) % kinds;
    int64_t *lengths = ttt__audit_numbers(a, a->B, a->L - padded);
    if (padded >= a->L || !lengths) return false;
    t->first.lengths = lengths;
    if (version == 0) {
        t->second = ttt__audit_part(a, &t->first, a->B, 0, a->L - padded);
        snprintf(t->why, sizeof t->why, "when the padding behind %lld tokens is left out",
                 (long long)(a->L - padded));
        return true;
    }
    t->second.lengths = lengths;
    for (int64_t b = 0; b < a->B; b++) {
        lengths[b] = a->L - 1 - (padded - 1 + b) % (a->L - 1);
        ttt__audit_change(a, &t->second, b, lengths[b], a->L, version);
    }
    snprintf(t->why, sizeof t->why, "when tokens of padding are %s", ttt__audit_version(version));
    return true;
}

// Two segments: one is changed, or left out, and the other must not see it.
static bool ttt__audit_packing(const ttt__audit *a, int64_t i, ttt__audit_trial *t) {
    int64_t kinds = 2 * (a->versions + 1), border = 1 + i / kinds, version = i % kinds / 2;
    bool later = i % 2 == 0;  // the later segment is changed
    int64_t from = later ? 0 : border, to = later ? border : a->L;  // the other
    if (border >= a->L) return false;
    int64_t *segments = ttt__audit_numbers(a, a->B * a->L, 1);
    for (int64_t k = 0; segments && k < a->B * a->L; k++) segments[k] += k % a->L >= border;
    t->first.segments = t->second.segments = segments;
    t->begin = from;
    t->end = to;
    snprintf(t->why, sizeof t->why, "when the segment of tokens %s %lld is %s",
             later ? "from" : "before", (long long)border,
             version ? ttt__audit_version(version) : "left out");
    if (version == 0) {
        t->second = ttt__audit_part(a, &t->first, a->B, from, to - from);
        t->shift = from;
        return true;
    }
    for (int64_t b = 0; b < a->B; b++)
        ttt__audit_change(a, &t->second, b, later ? to : 0, later ? a->L : from, version);
    return true;
}

static bool ttt__audit_lanes(const ttt__audit *a, int64_t i, ttt__audit_trial *t) {
    int64_t lane = i / a->versions, version = 1 + i % a->versions;
    int64_t turn = i - a->B * a->versions + 1;
    if (lane < a->B) {
        ttt__audit_change(a, &t->second, lane, 0, a->L, version);
        t->partner[lane] = -1;
        snprintf(t->why, sizeof t->why, "when the tokens of lane %lld are %s", (long long)lane,
                 ttt__audit_version(version));
        return a->B > 1;
    }
    for (int64_t b = 0; b < a->B; b++) {
        t->partner[b] = (b + turn) % a->B;
        ttt__audit_copy(a, &t->second, t->partner[b], 0, &t->first, b, 0, a->L);
    }
    snprintf(t->why, sizeof t->why, "when lane b is lane b + %lld of %lld", (long long)turn,
             (long long)a->B);
    return turn < a->B;
}

static bool ttt__audit_batch(const ttt__audit *a, int64_t i, ttt__audit_trial *t) {
    int64_t B = i + 1;
    if (B >= a->B) return false;
    t->second = ttt__audit_part(a, &t->first, B, 0, a->L);
    for (int64_t b = B; b < a->B; b++) t->partner[b] = -1;
    snprintf(t->why, sizeof t->why, "when %lld of %lld lanes are there", (long long)B,
             (long long)a->B);
    return true;
}

enum {
    TTT__AUDIT_STREAM = 1,
    TTT__AUDIT_LENGTHS = 2,
    TTT__AUDIT_SEGMENTS = 4,
    TTT__AUDIT_LANES = 8
};
typedef struct ttt__audit_check {
    const char *name;
    unsigned needs;
    bool (*trial)(const ttt__audit *a, int64_t i, ttt__audit_trial *t);
} ttt__audit_check;
// In the order of the report. The first decides whether the others can be judged.
static const ttt__audit_check ttt__audit_checks[TTT_AUDIT_CHECKS] = {
    { "determinism", 0, ttt__audit_determinism },
    { "causality", 0, ttt__audit_causality },
    { "stream", TTT__AUDIT_STREAM, ttt__audit_stream },
    { "split", TTT__AUDIT_STREAM, ttt__audit_split },
    { "padding", TTT__AUDIT_LENGTHS, ttt__audit_padding },
    { "packing", TTT__AUDIT_SEGMENTS, ttt__audit_packing },
    { "lanes", TTT__AUDIT_LANES, ttt__audit_lanes },
    { "batch", TTT__AUDIT_LANES, ttt__audit_batch },
};

// -- asking
// How many tokens each lane reads in a round of a stream; the most of them.
static int64_t ttt__audit_counts(const ttt__audit_trial *t, const ttt_audit_input *in,
                                 int64_t piece, int64_t round, const int64_t *done,
                                 int64_t *counts) {
    int64_t most = 0;
    for (int64_t b = 0; b < in->B; b++) {
        bool rests = t->rests && in == &t->second && round < b;
        counts[b] = rests ? 0 : TTT__MIN(piece, in->L - done[b]);
        most = TTT__MAX(most, counts[b]);
    }
    return most;
}
static ttt_result ttt__audit_read(const ttt__audit *a, const ttt__audit_trial *t,
                                  const ttt_audit_input *in, int64_t piece, ttt_real *out) {
    const int64_t B = in->B, V = a->desc->V;
    int64_t *done = ttt__audit_numbers(a, B, 0), *counts = ttt__audit_numbers(a, B, 0);
    ttt_audit_input next = ttt__audit_room(a, B, piece);
    uint64_t bytes = (uint64_t)(B * piece * V) * sizeof(ttt_real);
    ttt_real *answers = (ttt_real *)ttt_alloc(a->ctx, bytes, false);
    if (!ttt_ok(a->ctx)) return ttt_status(a->ctx);
    ttt_result result = a->desc->begin(a->desc->user, B);
    for (int64_t round = 0; result == TTT_OK; round++) {
        next.L = ttt__audit_counts(t, in, piece, round, done, counts);
        if (next.L == 0) break;
        next.lengths = a->desc->lengths ? counts : NULL;
        for (int64_t b = 0; b < B; b++) {
            ttt__audit_change(a, &next, b, counts[b], next.L, 0);
            ttt__audit_copy(a, &next, b, 0, in, b, done[b], counts[b]);
        }
        memset(answers, 0xff, (size_t)bytes);
        result = a->desc->read(a->desc->user, &next, answers);
        for (int64_t b = 0; b < B; done[b] += counts[b], b++)
            memcpy(out + (b * in->L + done[b]) * V, answers + b * next.L * V,
                   (size_t)(counts[b] * V) * sizeof *out);
    }
    return result;
}

// The model's answers (B,L,V). What it does not write is not the same twice: `empty` stands there.
static ttt_real *ttt__audit_ask(const ttt__audit *a, const ttt__audit_trial *t,
                                const ttt_audit_input *in, int64_t piece, int empty) {
    uint64_t bytes = (uint64_t)(in->B * in->L * a->desc->V) * sizeof(ttt_real);
    ttt_real *out = (ttt_real *)ttt_alloc(a->ctx, bytes, false);
    if (!out || !ttt_ok(a->ctx)) return NULL;
    memset(out, empty, (size_t)bytes);
    ttt_result result = piece ? ttt__audit_read(a, t, in, piece, out)
                              : a->desc->forward(a->desc->user, in, out);
    if (result != TTT_OK)
        ttt_fail(a->ctx, result, "audit: the model says '%s' to %lld lanes of %lld tokens",
                 ttt_result_text(result), (long long)in->B, (long long)in->L);
    return ttt_ok(a->ctx) ? out : NULL;
}

// -- comparing
// How far two answers are apart; 0 if no bit differs, or none by more than `allowed`. One that is
// not a number is apart from all.
static double ttt__audit_apart(const ttt_real *x, const ttt_real *y, int64_t V, double allowed) {
    double most = 0;
    for (int64_t i = 0; i < V; i++) {
        double apart = fabs((double)x[i] - (double)y[i]);
        bool same = x[i] == x[i] && memcmp(&x[i], &y[i], sizeof *x) == 0;
        if (same || (allowed > 0 && apart <= allowed)) continue;
        if (!(apart < INFINITY)) return (double)INFINITY;
        most = fmax(most, apart > 0 ? apart : 1e-300);  // 0 and -0 are apart, too
    }
    return most;
}
// What of the largest of n numbers that are finite is within the tolerance.
static double ttt__audit_allowed(const ttt__audit *a, const ttt_real *x, int64_t n) {
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        if (fabs((double)x[i]) < INFINITY) most = fmax(most, fabs((double)x[i]));
    return most * (double)a->desc->tolerance;
}
// Whether answers that must agree do not; the first of them goes into the row.
static bool ttt__audit_differ(const ttt__audit *a, const ttt__audit_trial *t, const ttt_real *x,
                              const ttt_real *y, ttt_audit_row *row) {
    const int64_t V = a->desc->V, *lengths = t->first.lengths;
    const double allowed = ttt__audit_allowed(a, x, t->first.B * t->first.L * V);
    for (int64_t i = t->begin; i < t->end; i++)
        for (int64_t b = 0; b < t->first.B; b++) {
            int64_t at = b * t->first.L + i, to = t->partner[b] * t->second.L + i - t->shift;
            if (t->partner[b] < 0 || (lengths && i >= lengths[b])) continue;
            row->size = ttt__audit_apart(x + at * V, y + to * V, V, allowed);
            row->lane = b;
            row->position = i;
            if (row->size > 0) return true;
        }
    return false;
}

static bool ttt__audit_begin(const ttt__audit *a, ttt__audit_trial *t) {
    memset(t, 0, sizeof *t);
    t->first = ttt__audit_tokens(a, 0);
    t->second = ttt__audit_tokens(a, 0);
    t->partner = ttt__audit_numbers(a, a->B, 0);
    for (int64_t b = 0; t->partner && b < a->B; b++) t->partner[b] = b;
    t->end = a->L;
    return ttt_ok(a->ctx);
}
// Tries the check with the sizes in `a`. True if answers differ: the row then has the proof.
static bool ttt__audit_try(const ttt__audit *a, const ttt__audit_check *check, ttt_audit_row *row) {
    for (int64_t i = 0;; i++) {
        ttt_mark mark = ttt_mark_get(a->ctx);
        ttt__audit_trial *t = (ttt__audit_trial *)ttt_alloc(a->ctx, sizeof *t, false);
        if (!t || !ttt__audit_begin(a, t) || !check->trial(a, i, t) || !ttt_ok(a->ctx)) {
            ttt_mark_release(a->ctx, mark);
            return false;
        }
        ttt_real *x = ttt__audit_ask(a, t, &t->first, t->piece, 0);
        ttt_audit_input other = ttt__audit_tokens(a, 1);
        if (x && t->between) ttt__audit_ask(a, t, &other, 0, 0);
        ttt_real *y = x ? ttt__audit_ask(a, t, &t->second, t->other_piece, 0xff) : NULL;
        row->pairs++;
        if (y && ttt__audit_differ(a, t, x, y, row)) {
            row->first = t->first;
            row->second = t->second;
            row->piece = t->piece;
            row->other_piece = t->other_piece;
            row->why = t->why;
            return true;
        }
        ttt_mark_release(a->ctx, mark);
    }
}
// What fails at full size is looked for in shorter inputs of fewer lanes.
static void ttt__audit_judge(ttt__audit *a, const ttt__audit_check *check, ttt_audit_row *row) {
    const int64_t B = a->B, L = a->L;
    bool found = ttt__audit_try(a, check, row);
    row->verdict = found ? TTT_AUDIT_FAILED : TTT_AUDIT_PASSED;
    ttt_audit_row smaller = *row;
    for (a->L = 1; found && a->L <= L; a->L++)
        for (a->B = 1; a->B <= B; a->B++)
            if (ttt__audit_try(a, check, &smaller)) {
                *row = smaller;
                found = false;
                break;
            }
    a->B = B;
    a->L = L;
}

static const char *ttt__audit_lacks(unsigned what) {
    return what & TTT__AUDIT_STREAM ? "it has no stream" :
           what & TTT__AUDIT_LENGTHS ? "it does not heed lengths" :
           what & TTT__AUDIT_SEGMENTS ? "it does not heed segments" : "it takes one lane";
}
static bool ttt__audit_good(ttt_ctx *ctx, const ttt_audit_desc *d) {
    const char *wrong =
        !d->forward ? ".forward is not set" : !d->V ? ".V is not set" :
        !d->vocab && !d->width ? ".vocab or .width must be set" : NULL;
    if (wrong) {
        ttt_fail(ctx, TTT_ERR_UNSET, "audit: %s", wrong);
        return false;
    }
    const int64_t most = INT32_MAX;
    const double numbers = (double)TTT__MAX(d->B, 3) * (double)TTT__MAX(d->L, 12) *
                           (double)TTT__MAX(d->V, TTT__MAX(d->width, 1));
    wrong = d->V < 0 || d->V > most ? ".V is no number of numbers" :
            d->vocab && d->width ? "both .vocab and .width are set; tokens are ids or vectors" :
            d->vocab && d->vocab < 2 ? ".vocab must be 2 at the least" :
            d->width < 0 || d->width > most ? ".width is no number of numbers" :
            d->finite && d->vocab ? ".finite has no effect on ids" :
            !d->begin != !d->read ? "a stream is .begin and .read, not one of them" :
            d->B < 0 || d->B > most ? ".B must be 1 at the least, or 0" :
            d->L < 0 || d->L == 1 || d->L > most ? ".L must be 2 at the least, or 0" :
            numbers > 1e15 ? ".B, .L, .V and .width are more numbers than any memory holds" :
            !(d->tolerance >= 0 && d->tolerance < 1) ? ".tolerance must be from 0 to 1" : NULL;
    if (wrong) ttt_fail(ctx, TTT_ERR_ARGUMENT, "audit: %s", wrong);
    return !wrong;
}

ttt_result ttt_audit(ttt_ctx *ctx, const ttt_audit_desc *desc, ttt_audit_report *report) {
    if (!TTT__GIVEN("audit", desc) || !TTT__GIVEN("audit", report)) return ttt_status(ctx);
    memset(report, 0, sizeof *report);
    if (!ttt__audit_good(ctx, desc)) return ttt_status(ctx);
    ttt__audit a = { ctx, desc, desc->B ? desc->B : 3, desc->L ? desc->L : 12,
                     desc->vocab || desc->finite ? 1 : 3, 0 };
    if (desc->begin) a.expresses |= TTT__AUDIT_STREAM;
    if (desc->lengths) a.expresses |= TTT__AUDIT_LENGTHS;
    if (desc->segments) a.expresses |= TTT__AUDIT_SEGMENTS;
    if (a.B > 1) a.expresses |= TTT__AUDIT_LANES;
    report->passed = true;
    for (int i = 0; i < TTT_AUDIT_CHECKS && ttt_ok(ctx); i++) {
        const ttt__audit_check *check = &ttt__audit_checks[i];
        ttt_audit_row *row = &report->row[i];
        bool unsteady = report->row[0].verdict == TTT_AUDIT_FAILED;
        row->check = check->name;
        row->why = "";
        if (!unsteady && !(check->needs & ~a.expresses)) {
            ttt__audit_judge(&a, check, row);
            report->passed = report->passed && row->verdict == TTT_AUDIT_PASSED;
        } else {
            row->verdict = TTT_AUDIT_NOT_APPLICABLE;
            row->why = unsteady ? "it does not answer twice the same"
                                : ttt__audit_lacks(check->needs);
        }
    }
    if (!ttt_ok(ctx)) memset(report, 0, sizeof *report);
    return ttt_status(ctx);
}

// An input as "name  [1 4 1] [5 9 2]", a lane in each bracket; of vectors and of long lanes how
// many there are.
static const char *ttt__audit_input_text(ttt_ctx *ctx, const char *name,
                                         const ttt_audit_input *in) {
    const char *text = ttt__text_of(ctx, "    %-7s", name);
    if (!in->ids || in->B * in->L > 64)
        return ttt__text_of(ctx, "%s %lld x %lld %s\n", text, (long long)in->B,
                            (long long)in->L, in->ids ? "ids" : "vectors");
    for (int64_t k = 0; k < in->B * in->L && text; k++)
        text = ttt__text_of(ctx, "%s%s%lld", text, k % in->L ? " " : k ? "] [" : " [",
                            (long long)in->ids[k]);
    return ttt__text_of(ctx, "%s]\n", text ? text : "");
}
static const char *ttt__audit_row_text(ttt_ctx *ctx, const ttt_audit_row *row) {
    static const char *const verdicts[] = { "passed", "FAILED", "not applicable" };
    const char *verdict = verdicts[row->verdict];
    if (row->verdict != TTT_AUDIT_FAILED)
        return ttt__text_of(ctx, *row->why ? "%-12s %-15s %s\n" : "%-12s %s\n", row->check, verdict,
                            row->why);
    return ttt__text_of(ctx, "%-12s %-15s lane %lld, token %lld moves by %.3g %s\n%s%s",
                        row->check, verdict, (long long)row->lane, (long long)row->position,
                        row->size, row->why, ttt__audit_input_text(ctx, "first", &row->first),
                        ttt__audit_input_text(ctx, "second", &row->second));
}
const char *ttt_audit_text(ttt_ctx *ctx, const ttt_audit_report *report) {
    const char *text = "";
    if (!TTT__GIVEN("audit_text", report)) return "";
    for (int i = 0; i < TTT_AUDIT_CHECKS && ttt_ok(ctx) && report->row[i].check; i++)
        text = ttt__text_of(ctx, "%s%s", text, ttt__audit_row_text(ctx, &report->row[i]));
    return ttt_ok(ctx) ? text : "";
}

TTT__PRECISE_END
#define TTT__PART TTT__CLOSE
#include TTT__TENSOR_FILE
#undef TTT__PART

/*  REFERENCES
    Sun et al.: Learning to (learn at test time). arXiv 2310.13807; code: test-time-training/mttt.
    Beyer et al.: Better plain ViT baselines for ImageNet-1k. arXiv 2205.01580. Kingma, Ba: Adam.
    ICLR 2015. Loshchilov, Hutter: Decoupled weight decay regularization. ICLR 2019. Zhang et al.:
    mixup. ICLR 2018. Joehnk: Erzeugung von betaverteilten Zufallszahlen. Metrika 1964.
    Ulrich: Computer generation of distributions on the m-sphere. Applied Statistics 1984.

    LICENSE: MIT No Attribution (MIT-0), see the end of ttt_tensor.h.
*/
#endif  // TTT_MODEL_IMPLEMENTED
#endif  // TTT__KERNELS, TTT_MODEL_IMPLEMENTATION
