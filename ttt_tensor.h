/*  ttt_tensor.h - v0.1.0 - tensors whose gradients are tensors, in one C header.

    DO THIS
        #define TTT_IMPLEMENTATION      // in exactly one C or C++ file, before the include
        #include "ttt_tensor.h"
    and compile with  cc -O2 file.c -lm .  Everywhere else just include it.

    AN EXAMPLE: a gradient through a gradient step
        ttt_ctx *c = ttt_open(NULL);
        ttt_tensor *w = ttt_randn(c, TTT_SHAPE(4, 4)), *g, *meta;
        ttt_tensor *k = ttt_randn(c, TTT_SHAPE(9, 4)), *v = ttt_randn(c, TTT_SHAPE(9, 4));

        ttt_tensor *inner = ttt_mse(c, ttt_matmul(c, k, w), v);         // how badly w maps k to v
        ttt_grad(c, inner, &w, 1, &g, TTT_RECORD);                      // g = d inner / d w
        ttt_tensor *w1 = ttt_sub(c, w, ttt_scale(c, g, 0.1f));          // one step of learning
        ttt_tensor *outer = ttt_mse(c, ttt_matmul(c, k, w1), v);        // how good w became by it
        ttt_grad(c, outer, &w, 1, &meta, TTT_FIRST_ORDER);              // d outer / d w, through the step
        ttt_close(c);

    HOW A GRADIENT THROUGH AN INNER STEP COMES ABOUT
        1. Every operation runs at once and also writes itself on a list, the tape: ttt_matmul returns
           a tensor that holds its numbers, the op that made it, and the tensors it was made from.
        2. ttt_grad walks that list backwards from the loss. Each op has one rule (its vector-Jacobian
           product, "vjp"): given the gradient of its output, the gradient of each input. The rule of
           y = a b, for instance, is da = dy b^T, db = a^T dy.
        3. The rules are written in the operations of this very header. So, with TTT_RECORD, walking
           backwards writes new tensors on the same tape, and the gradient g above is a tensor like any
           other: made by matmul and scale from k, v and w.
        4. Then w1 = w - 0.1 g is ordinary arithmetic, and the second ttt_grad walks from `outer` through
           w1, through g, through the matmuls that computed g, back to w. Nothing special happens: the
           derivative of the inner step is there because the step itself is on the tape.
        5. Without TTT_RECORD the rules compute just numbers (faster, and their memory is reused). A
           gradient so made cannot be differentiated; trying to is an error, never a silently wrong
           first-order answer. Say ttt_detach where you do mean a constant.
        Sections [6] (the op table), [13] (each op's forward and rule, side by side) and [15] (the walk)
        are these five sentences in code.

    INDEX
        [1] OPTIONS           macros to define before the include
        [2] RESULTS           what can go wrong and how it is told
        [3] CONTEXT           memory, threads, errors: everything a program of yours shares
        [4] TENSORS           the struct, making them, reading them
        [5] OPERATIONS        what one can compute, with shapes and formulas
        [6] OP TABLE          one row per op; your own ops
        [7] GRADIENTS         ttt_grad, the gradient checker
        [8] FILES             named tensors in safetensors files; .npy
        and below TTT_TENSOR_IMPLEMENTATION
        [9] KERNELS           loops over numbers, one text for every instruction set
        [10] ARENAS, ERRORS   [11] THREADS   [12] TENSORS, APPLY   [13] OPS: forward and rule, in pairs
        [14] MATRIX PRODUCT   [15] THE WALK BACKWARDS   [16] FILES   [17] REFERENCES, LICENCE

    CONCEPTS
        Shapes are written with letters: (B,N,D) is batch, tokens, width; H heads; h = D/H head width.
        Data is contiguous, last index fastest. Element type is ttt_real: float, or double if everything
        is compiled with -DTTT_REAL=double (plain C loops then; gradient checks use it).
        A tensor is never changed after it was made, except parameters by optimisers (ttt_model.h).
        A context owns everything made in it. Memory comes from two arenas: `keep` for parameters,
        which live as long as the context, and `step` for everything else, which ttt_release rolls back
        to a mark. So a training loop allocates nothing once it has seen its first step:
            for (;;) { ttt_mark m = ttt_mark_get(c);  ...one step...  ttt_release(c, m); }
        The first error in a context is recorded and stays: later calls do nothing and return the
        context's empty tensor, until ttt_clear. So a whole computation needs one test at its end,
        if (!ttt_ok(c)) puts(ttt_error(c)). The library never prints and never exits.
        One context belongs to one thread at a time; two contexts share nothing.
*/
#ifndef TTT_TENSOR_H
#define TTT_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TTT_VERSION "0.1.0"

// ---- [1] OPTIONS ---------------------------------------------------------------------------------
// Define before the include, the same in every file of a program:
//   TTT_REAL             element type, float (default) or double
//   TTT_STATIC           make all functions static
//   TTT_MALLOC(user,n), TTT_REALLOC(user,p,n), TTT_FREE(user,p)    memory; `user` comes from ttt_desc
//   TTT_NO_THREADS       compile the thread pool out
//   TTT_NO_SIMD          plain C loops only
//   TTT_NO_STDIO         leave section [8] out
//   TTT_POISON           fill released memory with NaN patterns (also when NDEBUG is not defined and
//                        TTT_DEBUG is)
#ifndef TTT_REAL
#define TTT_REAL float
#endif
typedef TTT_REAL ttt_real;

#define TTT_MAX_RANK 8
#define TTT_MAX_THREADS 64

#ifndef TTT_API
#ifdef TTT_STATIC
#if defined(__GNUC__)
#define TTT_API static __attribute__((unused))
#else
#define TTT_API static
#endif
#else
#define TTT_API extern
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

// ---- [2] RESULTS ---------------------------------------------------------------------------------
#define TTT_RESULTS(X)                                                            \
    X(SHAPE, "shapes do not fit")                                                 \
    X(ARGUMENT, "an argument is out of range")                                    \
    X(UNSET, "an option that has no default was not set")                         \
    X(RELEASED, "a tensor was used after its memory was released")                \
    X(FIRST_ORDER, "a gradient that was not recorded would be differentiated")    \
    X(NOT_FINITE, "NaN or infinity appeared where it was being watched for")      \
    X(NO_MEMORY, "out of memory")                                                 \
    X(FILE, "a file could not be read or written")                                \
    X(FORMAT, "a file does not follow its format")

typedef enum ttt_result {
    TTT_OK,
#define X(name, text) TTT_ERR_##name,
    TTT_RESULTS(X)
#undef X
} ttt_result;

TTT_API const char *ttt_result_text(ttt_result r);

// ---- [3] CONTEXT ---------------------------------------------------------------------------------
typedef struct ttt_ctx ttt_ctx;
typedef struct ttt_tensor ttt_tensor;
typedef struct ttt_op ttt_op;

#define TTT_ALL_THREADS (-1)

// Zero is a good default for every field; ttt_open(NULL) takes all of them.
typedef struct ttt_desc {
    uint64_t seed;    // of the context's random numbers
    int threads;      // 0: one; TTT_ALL_THREADS: as many as the machine has. Same bits for any count.
    const char *isa;  // NULL: the best this machine has. Else one of ttt_isa_name's.
    bool watch_nan;   // look at every result, and fail naming the op that first made a NaN or infinity
    void *user;       // handed to the hooks below and to TTT_MALLOC
    void (*on_error)(void *user, ttt_result r, const char *text);  // called once, at the first error
    // Runs task(arg, i) for i = 0 .. n-1, in any order, at once or not, and returns when all are done;
    // n is never above `threads`. NULL: the library's own pool. Lets a host program lend its threads.
    void (*parallel_for)(void *user, int n, void (*task)(void *arg, int i), void *arg);
} ttt_desc;

// A new context, or NULL if there is no memory for one (or desc names an unknown isa).
TTT_API ttt_ctx *ttt_open(const ttt_desc *desc);
TTT_API void ttt_close(ttt_ctx *c);  // frees everything made in it; NULL is fine

TTT_API bool ttt_ok(const ttt_ctx *c);            // no error so far
TTT_API ttt_result ttt_status(const ttt_ctx *c);  // the first error's kind, TTT_OK if none
TTT_API const char *ttt_error(const ttt_ctx *c);  // its text: op, shapes, what was expected; "" if none
TTT_API void ttt_clear(ttt_ctx *c);               // forget it and go on
// Records an error of your own (printf format); returns the context's empty tensor.
TTT_API ttt_tensor *ttt_fail(ttt_ctx *c, ttt_result r, const char *format, ...);

// The i-th instruction set this program was built with and this machine can run, worst (0, "scalar")
// to best; NULL past the end.
TTT_API const char *ttt_isa_name(int i);
TTT_API const char *ttt_isa(const ttt_ctx *c);  // the one in use
TTT_API int ttt_threads(const ttt_ctx *c);      // threads in use

// Everything made after a mark is gone after its release, and the tape with it.
typedef struct ttt_mark {
    void *chunk;
    size_t used, bytes;
    int64_t nodes;
} ttt_mark;
TTT_API ttt_mark ttt_mark_get(ttt_ctx *c);
TTT_API void ttt_release(ttt_ctx *c, ttt_mark m);

// Bytes of a context now and at its highest since ttt_memory_reset: parameters and moments (keep),
// tensors of the current step (step), the workspace of gradients and products (scratch), and what the
// context holds from TTT_MALLOC in all.
typedef struct ttt_memory_report {
    size_t keep, step, scratch, held;
    size_t peak;  // highest keep + step + scratch
    int64_t nodes;
} ttt_memory_report;
TTT_API ttt_memory_report ttt_memory(const ttt_ctx *c);
TTT_API void ttt_memory_reset(ttt_ctx *c);
// n bytes, 64-byte aligned, as old as the tensors around them: from the step arena, or from keep.
TTT_API void *ttt_alloc(ttt_ctx *c, size_t n, bool keep);

// Random numbers: Philox4x32-10, a counter-based generator [Salmon 2011]: the i-th number of a seed is
// a function of (seed, i), equal on every platform. The state is the pair itself: save it, restore it.
typedef struct ttt_rng {
    uint64_t seed, next;
} ttt_rng;
TTT_API uint32_t ttt_rng_u32(ttt_rng *r);
TTT_API double ttt_rng_uniform(ttt_rng *r);             // [0,1), 32 bits
TTT_API double ttt_rng_normal(ttt_rng *r);              // mean 0, variance 1 (Box and Muller 1958)
TTT_API int64_t ttt_rng_below(ttt_rng *r, int64_t n);   // 0 .. n-1
TTT_API ttt_rng ttt_rng_fold(ttt_rng r, uint64_t data);  // a stream of its own for (r.seed, data)
TTT_API ttt_rng *ttt_ctx_rng(ttt_ctx *c);                // the context's own

// ---- [4] TENSORS ---------------------------------------------------------------------------------
typedef enum ttt_dtype {
    TTT_DTYPE_REAL,  // ttt_real in .data
    TTT_DTYPE_INT    // int64_t in .index: labels, token numbers, positions; not differentiated
} ttt_dtype;

typedef struct ttt_shape {
    int rank;
    int64_t dim[TTT_MAX_RANK];
} ttt_shape;

// TTT_SHAPE(2, 3, 4) in C and in C++; ttt_scalar_shape() is the shape of one number.
#define TTT_SHAPE(...) \
    TTT__SHAPE(__VA_ARGS__, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, 0)
#define TTT__SHAPE(a, b, c, d, e, f, g, h, ...) ttt_shape_of(a, b, c, d, e, f, g, h)
TTT_API ttt_shape ttt_shape_of(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f, int64_t g, int64_t h);
TTT_API ttt_shape ttt_scalar_shape(void);
TTT_API bool ttt_shape_equal(ttt_shape a, ttt_shape b);
TTT_API int64_t ttt_shape_size(ttt_shape s);  // number of elements; -1 if negative or beyond 2^62
// Writes "(2,3,4)" into text and returns it.
typedef char ttt_text[128];
TTT_API const char *ttt_shape_text(ttt_shape s, char *text /* ttt_text */);

struct ttt_tensor {
    ttt_real *data;    // the elements (dtype TTT_DTYPE_REAL)
    int64_t *index;    // the elements (dtype TTT_DTYPE_INT)
    ttt_dtype dtype;
    ttt_shape shape;
    int64_t size;      // number of elements
    const ttt_op *op;  // what made it; NULL for a leaf
    ttt_tensor **in;   // from what
    int n_in;
    const void *arg;   // and the op's other arguments
    int64_t id;        // place on the tape
    bool kept;         // lives in the keep arena: a parameter
    ttt_tensor *shares;  // whose elements these are, if another's (a reshape)
    void *block;         // workspace that a walk made: private
};

// New leaves. All fail with TTT_ERR_SHAPE on negative sizes or TTT_ERR_NO_MEMORY, and give the empty tensor.
TTT_API ttt_tensor *ttt_new(ttt_ctx *c, ttt_shape s);  // not initialised
TTT_API ttt_tensor *ttt_zeros(ttt_ctx *c, ttt_shape s);
TTT_API ttt_tensor *ttt_full(ttt_ctx *c, ttt_shape s, ttt_real v);
TTT_API ttt_tensor *ttt_scalar(ttt_ctx *c, ttt_real v);
TTT_API ttt_tensor *ttt_from(ttt_ctx *c, ttt_shape s, const ttt_real *values);      // copies
TTT_API ttt_tensor *ttt_from_int(ttt_ctx *c, ttt_shape s, const int64_t *values);   // copies; dtype INT
TTT_API ttt_tensor *ttt_randn(ttt_ctx *c, ttt_shape s);  // normal, by the context's random numbers
TTT_API ttt_tensor *ttt_uniform(ttt_ctx *c, ttt_shape s, ttt_real lo, ttt_real hi);
TTT_API ttt_tensor *ttt_param(ttt_ctx *c, ttt_shape s);  // zeros, in the keep arena
TTT_API ttt_real ttt_item(const ttt_tensor *t);          // the number in a tensor of one element
TTT_API double ttt_max_abs_diff(const ttt_tensor *a, const ttt_tensor *b);  // NaN if shapes differ

// ---- [5] OPERATIONS ------------------------------------------------------------------------------
// Every function here returns a new tensor on the tape, or the empty tensor after an error. Shapes of
// two operands are broadcast as in NumPy: aligned at the right, a size of 1 (or a missing one) repeats.

// One number in, one number out. A row is the whole declaration:
//   X(name, formula, lowest and highest argument of the gradient test, FLOPs an element)
// gives  ttt_tensor *ttt_<name>(ttt_ctx *c, ttt_tensor *a).  *_d1 and *_d2 are first and second
// derivatives, which the rules of [13] need; sign and step have derivative zero.
#define TTT_UNARY_OPS(X)                                                             \
    X(exp, "y = e^a", -2, 2, 12)                                                     \
    X(log, "y = ln a", 0.2, 3, 16)                                                   \
    X(tanh, "y = tanh a", -2, 2, 20)                                                 \
    X(sigmoid, "y = 1 / (1 + e^-a)", -3, 3, 16)                                      \
    X(erf, "y = 2/sqrt(pi) integral of e^-t^2 from 0 to a", -2, 2, 24)               \
    X(abs, "y = |a|", -2, 2, 1)                                                      \
    X(sign, "y = -1, 0 or 1", -2, 2, 1)                                              \
    X(relu, "y = max(a, 0)", -2, 2, 1)                                               \
    X(step, "y = 1 where a > 0, else 0", -2, 2, 1)                                   \
    X(square, "y = a^2", -2, 2, 1)                                                   \
    X(sqrt, "y = a^(1/2)", 0.3, 3, 8)                                                \
    X(rsqrt, "y = a^(-1/2)", 0.3, 3, 8)                                              \
    X(recip, "y = 1 / a", 0.3, 3, 1)                                                 \
    X(gelu, "y = a/2 (1 + tanh(sqrt(2/pi) (a + 0.044715 a^3)))", -3, 3, 22)          \
    X(gelu_d1, "y = gelu'(a)", -3, 3, 28)                                            \
    X(gelu_d2, "y = gelu''(a)", -3, 3, 32)                                           \
    X(gelu_erf, "y = a/2 (1 + erf(a / sqrt 2))", -3, 3, 28)                          \
    X(gelu_erf_d1, "y = gelu_erf'(a)", -3, 3, 40)                                    \
    X(gelu_erf_d2, "y = gelu_erf''(a) = (2 - a^2) e^(-a^2/2) / sqrt(2 pi)", -3, 3, 18) \
    X(silu, "y = a sigmoid(a)", -3, 3, 17)                                           \
    X(silu_d1, "y = silu'(a)", -3, 3, 20)                                            \
    X(silu_d2, "y = silu''(a)", -3, 3, 22)

// Two operands, broadcast: ttt_tensor *ttt_<name>(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b).
#define TTT_BINARY_OPS(X)              \
    X(add, "y = a + b", -2, 2, 1)      \
    X(sub, "y = a - b", -2, 2, 1)      \
    X(mul, "y = a b", -2, 2, 1)        \
    X(div, "y = a / b", 0.5, 2, 1)

#define X(name, formula, lo, hi, flops) TTT_API ttt_tensor *ttt_##name(ttt_ctx *c, ttt_tensor *a);
TTT_UNARY_OPS(X)
#undef X
#define X(name, formula, lo, hi, flops) \
    TTT_API ttt_tensor *ttt_##name(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b);
TTT_BINARY_OPS(X)
#undef X

TTT_API ttt_tensor *ttt_scale(ttt_ctx *c, ttt_tensor *a, ttt_real s);  // y = s a
TTT_API ttt_tensor *ttt_shift(ttt_ctx *c, ttt_tensor *a, ttt_real s);  // y = a + s

// Products. a (...,m,k), b (...,k,n), y (...,m,n); leading sizes are broadcast. ta: a is stored as
// (...,k,m); tb: b is stored as (...,n,k). Nothing is copied for either.
TTT_API ttt_tensor *ttt_matmul(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b);
TTT_API ttt_tensor *ttt_matmul_t(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb);
// The same, and summed over leading sizes until the result has the given shape: dW = sum_b x_b^T dy_b.
TTT_API ttt_tensor *ttt_matmul_to(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb, ttt_shape y);
// y = x w + b in one pass: x (...,m,k), w (...,k,n), b (n) or (...,1,n), leading sizes broadcast.
TTT_API ttt_tensor *ttt_affine(ttt_ctx *c, ttt_tensor *x, ttt_tensor *w, ttt_tensor *b);

// Sums. sum_to adds over every axis where s has 1 (or lacks it); broadcast is its opposite and its rule.
TTT_API ttt_tensor *ttt_sum_to(ttt_ctx *c, ttt_tensor *a, ttt_shape s);
TTT_API ttt_tensor *ttt_broadcast(ttt_ctx *c, ttt_tensor *a, ttt_shape s);
TTT_API ttt_tensor *ttt_sum(ttt_ctx *c, ttt_tensor *a);                 // of all elements: shape ()
TTT_API ttt_tensor *ttt_mean(ttt_ctx *c, ttt_tensor *a);                // likewise
TTT_API ttt_tensor *ttt_sum_axis(ttt_ctx *c, ttt_tensor *a, int axis);  // that axis stays, with size 1
TTT_API ttt_tensor *ttt_mean_axis(ttt_ctx *c, ttt_tensor *a, int axis); // negative axes count from the end
TTT_API ttt_tensor *ttt_mse(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b);  // mean (a - b)^2, shape ()

// Moving elements about.
TTT_API ttt_tensor *ttt_reshape(ttt_ctx *c, ttt_tensor *a, ttt_shape s);         // shares the data
TTT_API ttt_tensor *ttt_permute(ttt_ctx *c, ttt_tensor *a, const int *order);    // y axis i = a axis order[i]
TTT_API ttt_tensor *ttt_transpose(ttt_ctx *c, ttt_tensor *a);                    // the last two axes
TTT_API ttt_tensor *ttt_slice(ttt_ctx *c, ttt_tensor *a, int axis, int64_t begin, int64_t count);
// a placed at `begin` of an axis of length `length`, zeros around it; slice's opposite and its rule.
TTT_API ttt_tensor *ttt_place(ttt_ctx *c, ttt_tensor *a, int axis, int64_t begin, int64_t length);
TTT_API ttt_tensor *ttt_concat(ttt_ctx *c, ttt_tensor *const *a, int n, int axis);
// Rows by number: a (...,N,D), index (...,n) of dtype INT, leading sizes broadcast: y (...,n,D) with
// y[i] = a[index[i]]. An index outside 0..N-1 is an error. scatter is its opposite and its rule: adds
// row i of a (...,n,D) to row index[i] of y (...,N,D).
TTT_API ttt_tensor *ttt_gather(ttt_ctx *c, ttt_tensor *a, ttt_tensor *index);
TTT_API ttt_tensor *ttt_scatter(ttt_ctx *c, ttt_tensor *a, ttt_tensor *index, int64_t N);
TTT_API ttt_tensor *ttt_detach(ttt_ctx *c, ttt_tensor *a);  // the same numbers as a constant

// Along the last axis, of length D.
TTT_API ttt_tensor *ttt_softmax(ttt_ctx *c, ttt_tensor *a);      // y = e^a / sum e^a
TTT_API ttt_tensor *ttt_log_softmax(ttt_ctx *c, ttt_tensor *a);  // y = a - ln sum e^a
// x^ = (a - mu) r with r = (mean (a - mu)^2 + eps)^(-1/2); mu = mean a if centred (layer norm),
// else 0 (RMS norm). rstd gives r, shape (...,1); normalize_d1 is J g, J the (symmetric) Jacobian of
// normalize at a: J g = r (g - mean g - x^ mean(g x^)), the middle term only if centred.
TTT_API ttt_tensor *ttt_normalize(ttt_ctx *c, ttt_tensor *a, ttt_real eps, bool centred);
TTT_API ttt_tensor *ttt_normalize_d1(ttt_ctx *c, ttt_tensor *a, ttt_tensor *g, ttt_real eps, bool centred);
TTT_API ttt_tensor *ttt_rstd(ttt_ctx *c, ttt_tensor *a, ttt_real eps, bool centred);

// ---- [6] OP TABLE --------------------------------------------------------------------------------
// The other ops, one row each: X(name, inputs, formula, lowest and highest argument of the gradient
// test, FLOPs as a function of the result y, shapes of the test's inputs in[0] and in[1], an example
// call; the test supplies ttt_test_index). From the three lists are generated: names, prototypes, the table ttt_op_table, and a gradient
// test of orders 1 and 2 for every row. To add an op: write its row, and forward and rule in [13].
#define TTT_OTHER_OPS(X)                                                                           \
    X(scale, 1, "y = s a", -2, 2, y->size, TTT_SHAPE(2, 3), TTT_SHAPE(1),                          \
      ttt_scale(c, in[0], (ttt_real)1.5))                                                          \
    X(shift, 1, "y = a + s", -2, 2, y->size, TTT_SHAPE(2, 3), TTT_SHAPE(1),                        \
      ttt_shift(c, in[0], (ttt_real)1.5))                                                          \
    X(matmul, 2, "y = a b", -1, 1, ttt__matmul_flops(y), TTT_SHAPE(2, 1, 3, 4), TTT_SHAPE(3, 4, 2), \
      ttt_matmul(c, in[0], in[1]))                                                                 \
    X(affine, 3, "y = a w + b", -1, 1, ttt__matmul_flops(y), TTT_SHAPE(2, 3, 4), TTT_SHAPE(4, 4),   \
      ttt_affine(c, in[0], in[1], ttt_sum_to(c, in[1], TTT_SHAPE(1, 4))))                          \
    X(sum_to, 1, "y = sum of a over axes", -2, 2, y->in[0]->size, TTT_SHAPE(2, 3, 2), TTT_SHAPE(1), \
      ttt_sum_to(c, in[0], TTT_SHAPE(2, 1, 2)))                                                    \
    X(broadcast, 1, "y = a repeated", -2, 2, 0, TTT_SHAPE(2, 1, 2), TTT_SHAPE(1),                  \
      ttt_broadcast(c, in[0], TTT_SHAPE(3, 2, 4, 2)))                                              \
    X(reshape, 1, "y = a", -2, 2, 0, TTT_SHAPE(2, 3), TTT_SHAPE(1),                                \
      ttt_reshape(c, in[0], TTT_SHAPE(3, 2)))                                                      \
    X(permute, 1, "y = a, axes in another order", -2, 2, 0, TTT_SHAPE(2, 3, 4), TTT_SHAPE(1),      \
      ttt_transpose(c, in[0]))                                                                     \
    X(slice, 1, "y = a[begin .. begin+count)", -2, 2, 0, TTT_SHAPE(2, 5, 2), TTT_SHAPE(1),         \
      ttt_slice(c, in[0], 1, 1, 3))                                                                \
    X(place, 1, "y[begin .. ) = a, else 0", -2, 2, 0, TTT_SHAPE(2, 3, 2), TTT_SHAPE(1),            \
      ttt_place(c, in[0], 1, 1, 5))                                                                \
    X(concat, -1, "y = a, b, ... along an axis", -2, 2, 0, TTT_SHAPE(2, 3, 2), TTT_SHAPE(2, 1, 2), \
      ttt_concat(c, in, 2, 1))                                                                     \
    X(gather, 2, "y[i] = a[index[i]]", -2, 2, 0, TTT_SHAPE(2, 1, 4, 3), TTT_SHAPE(1),              \
      ttt_gather(c, in[0], ttt_test_index(c)))                                                    \
    X(scatter, 2, "y[index[i]] += a[i]", -2, 2, y->in[0]->size, TTT_SHAPE(2, 3, 5, 3), TTT_SHAPE(1), \
      ttt_scatter(c, in[0], ttt_test_index(c), 4))                                                \
    X(softmax, 1, "y = e^a / sum e^a", -2, 2, 15 * y->size, TTT_SHAPE(2, 4), TTT_SHAPE(1),         \
      ttt_softmax(c, in[0]))                                                                       \
    X(log_softmax, 1, "y = a - ln sum e^a", -2, 2, 15 * y->size, TTT_SHAPE(2, 4), TTT_SHAPE(1),    \
      ttt_log_softmax(c, in[0]))                                                                   \
    X(normalize, 1, "y = (a - mean) rstd", -2, 2, 6 * y->size, TTT_SHAPE(2, 5), TTT_SHAPE(1),      \
      ttt_normalize(c, in[0], (ttt_real)0.1, true))                                                \
    X(normalize_d1, 2, "y = J(a) b", -2, 2, 12 * y->size, TTT_SHAPE(2, 5), TTT_SHAPE(2, 5),        \
      ttt_normalize_d1(c, in[0], in[1], (ttt_real)0.1, true))                                      \
    X(rstd, 1, "y = (var a + eps)^(-1/2)", -2, 2, 4 * y->in[0]->size, TTT_SHAPE(2, 5), TTT_SHAPE(1), \
      ttt_rstd(c, in[0], (ttt_real)0.1, true))

// An op: what the tape knows about a kind of node. Yours look the same as the library's; ttt_apply
// runs one. Exactly one of vjp and composite must be there.
struct ttt_op {
    const char *name;
    const char *formula;
    int n_in;           // inputs; -1: any number
    double lo, hi;      // arguments for the gradient test
    // Writes y->data from y->in and y->arg.
    void (*forward)(ttt_ctx *c, ttt_tensor *y);
    // The rule. g has y's shape. On entry d[j] is NULL for each input whose gradient nobody asks for;
    // replace every other d[j] by that gradient, made of ops, in the shape of y->in[j] (or NULL: zero).
    void (*vjp)(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d);
    // Instead of a rule: the same value built from other ops. Differentiating it is then the rule.
    ttt_tensor *(*composite)(ttt_ctx *c, ttt_tensor *const *in, const ttt_tensor *y);
    // May be NULL. First-order gradients without tensors: where into[j] is not NULL, write the gradient
    // of input j into it, or add to what is there if add[j].
    void (*fast)(ttt_ctx *c, ttt_tensor *y, const ttt_tensor *g, ttt_tensor **into, const bool *add);
    int64_t (*flops)(const ttt_tensor *y);  // may be NULL
};

// Runs op on in[0..n): makes y of the given shape, with a copy of arg's bytes at y->arg.
TTT_API ttt_tensor *ttt_apply(ttt_ctx *c, const ttt_op *op, ttt_tensor *const *in, int n, ttt_shape shape,
                              const void *arg, size_t arg_bytes);
// The library's ops in the order of the three lists; NULL past the end.
TTT_API const ttt_op *ttt_op_table(int i);

// ---- [7] GRADIENTS -------------------------------------------------------------------------------
typedef enum ttt_mode {
    TTT_FIRST_ORDER,  // numbers only: fast; cannot be differentiated again
    TTT_RECORD,       // the gradient is on the tape, like any other tensor
    TTT_ADD           // as TTT_FIRST_ORDER, added to the tensors already in out[]
} ttt_mode;

// out[i] = dy / d wrt[i], for y of one element; zeros where y does not depend on wrt[i].
// Errors: y has more elements (TTT_ERR_SHAPE); y depends on wrt through a gradient taken without
// TTT_RECORD and not detached (TTT_ERR_FIRST_ORDER). All of out is then the empty tensor.
TTT_API ttt_result ttt_grad(ttt_ctx *c, ttt_tensor *y, ttt_tensor *const *wrt, int n, ttt_tensor **out, ttt_mode mode);
// The same for any y: out[i] = d <seed, y> / d wrt[i], seed of y's shape (a vector-Jacobian product).
TTT_API ttt_result ttt_vjp(ttt_ctx *c, ttt_tensor *y, ttt_tensor *seed, ttt_tensor *const *wrt, int n,
                           ttt_tensor **out, ttt_mode mode);
// Switches the tape off (results are then leaves: inference) or on; returns what it was.
TTT_API bool ttt_recording(ttt_ctx *c, bool on);

// Checks derivatives of f at x[0..n), leaves whose numbers it moves and puts back. Takes a random
// direction u and returns |a - b| / max(|b|, 1e-3): a the directional derivative of the given order
// (1, 2, ...) by ttt_grad, b the central difference (fourth-order, step h) of the analytic derivative
// one order lower. Build with -DTTT_REAL=double for more than three digits. NaN after an error.
typedef ttt_tensor *ttt_function(ttt_ctx *c, ttt_tensor *const *x, int n, void *user);  // one element
TTT_API double ttt_check_gradient(ttt_ctx *c, ttt_function *f, ttt_tensor *const *x, int n, void *user,
                                  int order, double h);

// ---- [8] FILES -----------------------------------------------------------------------------------
#ifndef TTT_NO_STDIO
// A list of named tensors with text notes, as a safetensors file holds it. All of it lives in the
// step arena.
typedef struct ttt_named {
    const char *name;
    ttt_tensor *tensor;
} ttt_named;
typedef struct ttt_note {
    const char *key, *text;
} ttt_note;
typedef struct ttt_bundle {
    ttt_named *tensors;
    int64_t n_tensors;
    ttt_note *notes;  // the file's __metadata__
    int64_t n_notes;
} ttt_bundle;

// Reads a safetensors file (https://github.com/huggingface/safetensors). F64, F32, F16, BF16 become
// real tensors; I8..I64, U8..U64 and BOOL integer tensors (a U64 tensor with a value above 2^63 - 1
// becomes a real one). Every length, offset and product is checked before anything is allocated.
// Errors: TTT_ERR_FILE, TTT_ERR_FORMAT (says what was wrong and where). *out is then empty.
TTT_API ttt_result ttt_safetensors_read(ttt_ctx *c, const char *path, ttt_bundle *out);
// Writes one, tensors in the given order, real ones as F32 (F64 in the double build) or, if bf16, as
// BF16 rounded to nearest even; integer ones as I64. The file appears whole or not at all: it is
// written under a temporary name beside it, flushed to the disk, then renamed.
TTT_API ttt_result ttt_safetensors_write(ttt_ctx *c, const char *path, const ttt_bundle *b, bool bf16);
TTT_API ttt_tensor *ttt_bundle_find(const ttt_bundle *b, const char *name);  // NULL if it is not there
TTT_API const char *ttt_bundle_note(const ttt_bundle *b, const char *key);   // likewise

// NumPy's .npy, versions 1 to 3, C and Fortran order, both byte orders, bool, integers, f2, f4, f8.
TTT_API ttt_result ttt_npy_read(ttt_ctx *c, const char *path, ttt_tensor **out);
TTT_API ttt_result ttt_npy_write(ttt_ctx *c, const char *path, const ttt_tensor *t);  // <f4, <f8 or <i8

// A whole file in the step arena, with a 0 behind it. NULL and TTT_ERR_FILE if it cannot be read.
TTT_API char *ttt_file_read(ttt_ctx *c, const char *path, size_t *size);
// A file that appears whole or not at all. Write to `stream`, then finish: false anywhere on the way
// makes finish remove the temporary file, leave the old one as it was, and record TTT_ERR_FILE.
typedef struct ttt_file_writer {
    void *stream;  // FILE *
    char path[1024], temporary[1064];
} ttt_file_writer;
TTT_API bool ttt_file_begin(ttt_ctx *c, ttt_file_writer *w, const char *path);
TTT_API bool ttt_file_put(ttt_file_writer *w, const void *bytes, size_t n);
TTT_API ttt_result ttt_file_finish(ttt_ctx *c, ttt_file_writer *w, bool good);
#endif

#ifdef __cplusplus
}
#endif
#endif  // TTT_TENSOR_H

// ==================================================================================================
// ---- [9] KERNELS ---------------------------------------------------------------------------------
// The loops that do the arithmetic. This text is compiled once for every instruction set: the list
// that follows it includes this header again, which then is only this section (and so does
// ttt_layers.h with its own). A vector is a plain C value here: GCC's and Clang's vector types have
// + - * / and comparisons. With one lane it is a ttt_real and the text is ordinary scalar C: the
// reference for the others, and what other compilers and the double build use. The words:
//   VEC, LANES      a vector and how many reals it has       MASK    what comparing two gives
//   KN(name)        the name with the set's suffix: ttt__exp_avx2
//   INLINE, KERNEL  before a function of vectors, which is never a call; before one that others call
#ifdef TTT__KERNELS
#if LANES == 1
typedef ttt_real VEC;
typedef int MASK;
INLINE VEC KN(load)(const ttt_real *p) { return *p; }
INLINE void KN(store)(ttt_real *p, VEC v) { *p = v; }
INLINE VEC KN(splat)(ttt_real s) { return s; }
INLINE VEC KN(select)(MASK m, VEC a, VEC b) { return m ? a : b; }
INLINE double KN(total)(VEC v) { return (double)v; }
INLINE VEC KN(exp)(VEC a, VEC s) { (void)s; return TTT__MATH(exp)(a); }
INLINE VEC KN(log)(VEC a, VEC s) { (void)s; return TTT__MATH(log)(a); }
INLINE VEC KN(tanh)(VEC a, VEC s) { (void)s; return TTT__MATH(tanh)(a); }
INLINE VEC KN(erf)(VEC a, VEC s) { (void)s; return TTT__MATH(erf)(a); }
INLINE VEC KN(sqrt)(VEC a, VEC s) { (void)s; return TTT__MATH(sqrt)(a); }
INLINE VEC KN(rsqrt)(VEC a, VEC s) { (void)s; return 1 / TTT__MATH(sqrt)(a); }
INLINE VEC KN(abs)(VEC a, VEC s) { (void)s; return TTT__MATH(fabs)(a); }
#else
typedef float VEC __attribute__((vector_size(4 * LANES)));
typedef int32_t MASK __attribute__((vector_size(4 * LANES)));
typedef float KN(unaligned) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
INLINE VEC KN(load)(const float *p) { return *(const KN(unaligned) *)p; }
INLINE void KN(store)(float *p, VEC v) { *(KN(unaligned) *)p = v; }
INLINE VEC KN(splat)(float s) { VEC z = { 0 }; return z + s; }
INLINE MASK KN(bits)(VEC v) { return (MASK)v; }
INLINE VEC KN(from_bits)(MASK m) { return (VEC)m; }
INLINE VEC KN(select)(MASK m, VEC a, VEC b) { return (VEC)((m & (MASK)a) | (~m & (MASK)b)); }

// Adds the lanes in pairs, always in the same order.
INLINE double KN(total)(VEC v) {
    float x[LANES];
    KN(store)(x, v);
    TTT__UNROLL for (int half = LANES / 2; half > 0; half /= 2)
        TTT__UNROLL for (int i = 0; i < half; i++) x[i] += x[i + half];
    return (double)x[0];
}

// 2^n times v for whole n in [-160, 160], in two factors so that a subnormal result is still right.
INLINE VEC KN(ldexp)(VEC v, MASK n) {
    MASK half = n >> 1;
    return v * KN(from_bits)((half + 127) << 23) * KN(from_bits)((n - half + 127) << 23);
}

// e^a = 2^n e^r with n = round(a / ln 2), |r| <= ln 2 / 2; e^r = 1 + r + r^2 P(r), P a minimax
// polynomial (relative error 3e-9). Adding and subtracting 1.5 2^23 rounds to a whole number, which
// then stands in the low bits. Below 1.5 ulp.
INLINE VEC KN(exp)(VEC a, VEC s) {
    (void)s;
    const float magic = 12582912.0f;
    VEC x = KN(select)(a < 89.0f, a, KN(splat)(89.0f));
    x = KN(select)(x > -105.0f, x, KN(splat)(-105.0f));
    VEC shifted = x * 1.44269504f + magic, n = shifted - magic;
    VEC r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    VEC p = r * 1.39504892e-3f + 8.36888956e-3f;
    p = p * r + 4.16662058e-2f;
    p = p * r + 1.66665188e-1f;
    p = p * r + 0.5f;
    VEC y = KN(ldexp)(p * (r * r) + r + 1.0f, KN(bits)(shifted) - KN(bits)(KN(splat)(magic)));
    return KN(select)(a == a, y, a);
}

// ln a = k ln 2 + ln(1 + f), a = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt 2);
// ln(1 + f) = f - f^2/2 + f^3 P(f). Subnormals are scaled up first. Below 1.5 ulp.
INLINE VEC KN(log)(VEC a, VEC s) {
    (void)s;
    MASK tiny = a < 1.17549435e-38f;
    VEC x = KN(select)(tiny, a * 8388608.0f, a);
    MASK bits = KN(bits)(x), k = ((bits - 0x3f3504f3) >> 23);  // 0x3f3504f3 is sqrt(1/2)
    VEC f = KN(from_bits)(bits - (k << 23)) - 1.0f;
    k = k - (tiny & 23);
    VEC n = KN(from_bits)(k + 0x4b400000) - 12582912.0f;  // the whole number k as a float
    VEC p = f * 0.0674660133f - 0.116756413f;
    p = p * f + 0.118881746f;
    p = p * f - 0.124055914f;
    p = p * f + 0.142195509f;
    p = p * f - 0.166679957f;
    p = p * f + 0.200021187f;
    p = p * f - 0.250000096f;
    p = p * f + 0.333333126f;
    VEC f2 = f * f, y = p * f * f2 + n * -2.12194440e-4f - f2 * 0.5f;
    y = y + f + n * 0.693359375f;
    y = KN(select)(a < 3.4028235e38f, y, a);                       // infinity and NaN stay
    y = KN(select)(a > 0.0f, y, KN(splat)(0.0f) / (a * 0.0f));     // ln of a negative number: NaN
    return KN(select)(a == 0.0f, KN(splat)(-1.0f) / KN(splat)(0.0f), y);
}

INLINE VEC KN(abs)(VEC a, VEC s) { (void)s; return KN(from_bits)(KN(bits)(a) & 0x7fffffff); }
INLINE VEC KN(copysign)(VEC a, VEC sign) {
    return KN(from_bits)((KN(bits)(a) & 0x7fffffff) | (KN(bits)(sign) & ~0x7fffffff));
}

// |a| < 0.625: a + a^3 P(a^2); else 1 - 2 / (e^2|a| + 1). Below 2 ulp.
INLINE VEC KN(tanh)(VEC a, VEC s) {
    VEC x = KN(abs)(a, s), z = a * a;
    VEC p = z * -5.71703656e-3f + 2.0650579e-2f;
    p = p * z - 5.37434953e-2f;
    p = p * z + 1.33314912e-1f;
    p = p * z - 3.33332839e-1f;
    VEC large = 1.0f - 2.0f / (KN(exp)(x + x, s) + 1.0f);
    return KN(select)(x < 0.625f, p * z * a + a, KN(copysign)(large, a));
}

// |a| < 1: a + a Q(a^2); else 1 - e^R(|a|), R a polynomial for ln erfc. Below 2 ulp.
INLINE VEC KN(erf)(VEC a, VEC s) {
    VEC x = KN(abs)(a, s), z = a * a;
    VEC q = z * 7.88911953e-5f - 8.02084128e-4f;
    q = q * z + 5.18953534e-3f;
    q = q * z - 2.68544446e-2f;
    q = q * z + 1.12836002e-1f;
    q = q * z - 3.76126271e-1f;
    q = q * z + 1.28379166e-1f;
    VEC t = KN(select)(x < 4.05f, x, KN(splat)(4.05f));
    VEC r = t * 7.84519481e-7f - 1.24527615e-5f;
    r = r * t + 6.43412763e-5f;
    r = r * t + 1.01761127e-4f;
    r = r * t - 3.3602729e-3f;
    r = r * t + 2.3836515e-2f;
    r = r * t - 1.06961505e-1f;
    r = r * t - 6.34196119e-1f;
    r = r * t - 1.12920386f;
    r = r * t + 1.25293818e-4f;
    VEC large = KN(copysign)(1.0f - KN(exp)(r, s), a);
    return KN(select)(x >= 1.0f, large, q * a + a);
}

// A first guess from the bits, then three Newton steps; [0.5, 2) times a power of four is all it sees.
INLINE VEC KN(rsqrt_core)(VEC x) {
    VEC r = KN(from_bits)(0x5f3759df - (KN(bits)(x) >> 1)), h = x * 0.5f;
    r = r * (1.5f - h * r * r);
    r = r * (1.5f - h * r * r);
    return r + r * (0.5f - h * r * r);
}
// Correctly rounded but for about one case in a hundred, then 1 ulp.
INLINE VEC KN(sqrt)(VEC a, VEC s) {
    (void)s;
    MASK tiny = a < 1e-30f;
    VEC x = KN(select)(tiny, a * 1.8446744e19f, a), r = KN(rsqrt_core)(x), y = x * r;
    y = y + 0.5f * r * (x - y * y);
    y = KN(select)(tiny, y * 2.3283064e-10f, y);
    y = KN(select)(a > 0.0f, y, KN(splat)(0.0f) / (a * 0.0f));
    return KN(select)((a == 0.0f) | ~(a < 3.4028235e38f), KN(select)(a < 0.0f, y, a), y);
}
INLINE VEC KN(rsqrt)(VEC a, VEC s) { return 1.0f / KN(sqrt)(a, s); }
#endif

// The other functions of one number; s is the scalar argument that scale and shift have.
INLINE VEC KN(scale)(VEC a, VEC s) { return a * s; }
INLINE VEC KN(shift)(VEC a, VEC s) { return a + s; }
INLINE VEC KN(square)(VEC a, VEC s) { (void)s; return a * a; }
INLINE VEC KN(recip)(VEC a, VEC s) { (void)s; return NUM(1) / a; }
INLINE VEC KN(relu)(VEC a, VEC s) { (void)s; return KN(select)(a < NUM(0), KN(splat)(0), a); }
INLINE VEC KN(step)(VEC a, VEC s) { (void)s; return KN(select)(a > NUM(0), KN(splat)(1), KN(splat)(0)); }
INLINE VEC KN(sign)(VEC a, VEC s) { return KN(step)(a, s) - KN(step)(-a, s); }

// e^-|a| never overflows, so both tails keep their digits.
INLINE VEC KN(sigmoid)(VEC a, VEC s) {
    VEC e = KN(exp)(-KN(abs)(a, s), s), one = KN(splat)(1);
    return KN(select)(a < NUM(0), e, one) / (one + e);
}

// gelu(a) = a sigmoid(u), u = 2 sqrt(2/pi) (a + 0.044715 a^3), since (1 + tanh(u/2)) / 2 = sigmoid(u).
INLINE VEC KN(gelu_u)(VEC a) { return a * NUM(1.5957691216057308) * (a * a * NUM(0.044715) + NUM(1)); }
INLINE VEC KN(gelu_du)(VEC a) { return a * a * NUM(0.21406444881780073) + NUM(1.5957691216057308); }
INLINE VEC KN(gelu)(VEC a, VEC s) { return a * KN(sigmoid)(KN(gelu_u)(a), s); }
INLINE VEC KN(gelu_d1)(VEC a, VEC s) {
    VEC g = KN(sigmoid)(KN(gelu_u)(a), s);
    return g + a * g * (NUM(1) - g) * KN(gelu_du)(a);
}
INLINE VEC KN(gelu_d2)(VEC a, VEC s) {
    VEC g = KN(sigmoid)(KN(gelu_u)(a), s), du = KN(gelu_du)(a), dg = g * (NUM(1) - g) * du;
    VEC ddg = dg * du * (NUM(1) - NUM(2) * g) + g * (NUM(1) - g) * a * NUM(0.42812889763560147);
    return NUM(2) * dg + a * ddg;
}

// gelu_erf(a) = a Phi(a), Phi the normal distribution, phi its density.
INLINE VEC KN(phi)(VEC a, VEC s) { return KN(exp)(a * a * NUM(-0.5), s) * NUM(0.3989422804014327); }
INLINE VEC KN(Phi)(VEC a, VEC s) { return KN(erf)(a * NUM(0.7071067811865476), s) * NUM(0.5) + NUM(0.5); }
INLINE VEC KN(gelu_erf)(VEC a, VEC s) { return a * KN(Phi)(a, s); }
INLINE VEC KN(gelu_erf_d1)(VEC a, VEC s) { return KN(Phi)(a, s) + a * KN(phi)(a, s); }
INLINE VEC KN(gelu_erf_d2)(VEC a, VEC s) { return (NUM(2) - a * a) * KN(phi)(a, s); }

INLINE VEC KN(silu)(VEC a, VEC s) { return a * KN(sigmoid)(a, s); }
INLINE VEC KN(silu_d1)(VEC a, VEC s) {
    VEC g = KN(sigmoid)(a, s);
    return g * (NUM(1) + a * (NUM(1) - g));
}
INLINE VEC KN(silu_d2)(VEC a, VEC s) {
    VEC g = KN(sigmoid)(a, s);
    return g * (NUM(1) - g) * (NUM(2) + a * (NUM(1) - NUM(2) * g));
}

INLINE VEC KN(add)(VEC a, VEC b) { return a + b; }
INLINE VEC KN(sub)(VEC a, VEC b) { return a - b; }
INLINE VEC KN(mul)(VEC a, VEC b) { return a * b; }
INLINE VEC KN(div)(VEC a, VEC b) { return a / b; }

// The first n < LANES elements of a vector; the others are zero.
INLINE VEC KN(load_part)(const ttt_real *p, int64_t n) {
    ttt_real x[LANES] = { 0 };
    for (int64_t i = 0; i < n; i++) x[i] = p[i];
    return KN(load)(x);
}
INLINE void KN(store_part)(ttt_real *p, VEC v, int64_t n) {
    ttt_real x[LANES];
    KN(store)(x, v);
    for (int64_t i = 0; i < n; i++) p[i] = x[i];
}

// y[i] = f(a[i]), for every op of one number.
#define X(name, formula, lo, hi, flops)                                                          \
    KERNEL void KN(map_##name)(int64_t n, const ttt_real *a, ttt_real *y, ttt_real scalar) {     \
        VEC s = KN(splat)(scalar);                                                               \
        int64_t i = 0;                                                                           \
        for (; i + LANES <= n; i += LANES) KN(store)(y + i, KN(name)(KN(load)(a + i), s));       \
        if (i < n) KN(store_part)(y + i, KN(name)(KN(load_part)(a + i, n - i), s), n - i);       \
    }
TTT_UNARY_OPS(X)
X(scale, , , , ) X(shift, , , , )
#undef X

// y[i] = f(a[i], b[i]), for every op of two; a step of 0 repeats the first element.
#define X(name, formula, lo, hi, flops)                                                          \
    KERNEL void KN(zip_##name)(int64_t n, const ttt_real *a, int a_step, const ttt_real *b,      \
                               int b_step, ttt_real *y) {                                        \
        VEC a0 = KN(splat)(n ? *a : 0), b0 = KN(splat)(n ? *b : 0);                              \
        int64_t i = 0;                                                                           \
        for (; i + LANES <= n; i += LANES)                                                       \
            KN(store)(y + i, KN(name)(a_step ? KN(load)(a + i) : a0, b_step ? KN(load)(b + i) : b0)); \
        if (i == n) return;                                                                      \
        if (a_step) a0 = KN(load_part)(a + i, n - i);                                            \
        if (b_step) b0 = KN(load_part)(b + i, n - i);                                            \
        KN(store_part)(y + i, KN(name)(a0, b0), n - i);                                          \
    }
TTT_BINARY_OPS(X)
#undef X

// sum of f(i) over a row in four vectors, closed into a double every 1024 elements so that the error
// does not grow with the row. PART loads elements i .. i+n-1, n <= LANES, zeros behind them.
INLINE VEC KN(part)(const ttt_real *p, int64_t i, int64_t n) {
    return n >= LANES ? KN(load)(p + i) : KN(load_part)(p + i, n);
}
INLINE void KN(put)(ttt_real *p, int64_t i, int64_t n, VEC v) {
    if (n >= LANES) KN(store)(p + i, v);
    else KN(store_part)(p + i, v, n);
}
// The same vector with zeros in all lanes but the first n.
INLINE VEC KN(first)(VEC v, int64_t n) {
    if (n >= LANES) return v;
    ttt_real x[LANES];
    KN(store)(x, v);
    return KN(load_part)(x, n);
}
#define TTT__ROW_SUM(result, n, term)                                            \
    double result = 0;                                                           \
    for (int64_t begin = 0; begin < (n); begin += 1024) {                        \
        int64_t end = begin + 1024 < (n) ? begin + 1024 : (n);                   \
        VEC acc[4] = { KN(splat)(0), KN(splat)(0), KN(splat)(0), KN(splat)(0) }; \
        int64_t i = begin;                                                       \
        for (; i + 4 * LANES <= end; i += 4 * LANES)                             \
            TTT__UNROLL for (int u = 0; u < 4; u++) acc[u] += term(i + u * LANES, LANES); \
        for (; i < end; i += LANES) acc[0] += term(i, end - i);                  \
        result += KN(total)((acc[0] + acc[1]) + (acc[2] + acc[3]));              \
    }

KERNEL double KN(sum)(int64_t n, const ttt_real *a) {
#define TERM(i, n) KN(part)(a, i, n)
    TTT__ROW_SUM(sum, n, TERM)
#undef TERM
    return sum;
}

KERNEL double KN(dot)(int64_t n, const ttt_real *a, const ttt_real *b) {
#define TERM(i, n) KN(part)(a, i, n) * KN(part)(b, i, n)
    TTT__ROW_SUM(sum, n, TERM)
#undef TERM
    return sum;
}

// y[j] = sum over r of a[r,j], a (rows,n): in blocks of 32 rows, so that rounding grows with rows / 32.
KERNEL void KN(sum_rows)(int64_t rows, int64_t n, int64_t stride, const ttt_real *a, ttt_real *y) {
    for (int64_t j = 0; j < n; j += LANES) {
        VEC total = KN(splat)(0);
        for (int64_t begin = 0; begin < rows; begin += 32) {
            int64_t end = begin + 32 < rows ? begin + 32 : rows;
            VEC block = KN(splat)(0);
            for (int64_t r = begin; r < end; r++) block += KN(part)(a + r * stride, j, n - j);
            total += block;
        }
        KN(put)(y, j, n - j, total);
    }
}

KERNEL ttt_real KN(row_max)(int64_t n, const ttt_real *a) {
    ttt_real max = a[0];
    if (n >= LANES) {
        VEC m = KN(load)(a);
        int64_t i = LANES;
        for (; i + LANES <= n; i += LANES) {
            VEC v = KN(load)(a + i);
            m = KN(select)((m > v) | (m != m), m, v);
        }
        ttt_real x[LANES];
        KN(store)(x, m);
        max = x[0];
        for (int l = 1; l < LANES; l++) max = x[l] > max || x[l] != x[l] ? x[l] : max;
        a += i;
        n -= i;
    }
    for (int64_t i = 0; i < n; i++) max = a[i] > max || a[i] != a[i] ? a[i] : max;
    return max;
}

KERNEL void KN(softmax)(int64_t n, const ttt_real *a, ttt_real *y) {
    KN(map_shift)(n, a, y, -KN(row_max)(n, a));
    KN(map_exp)(n, y, y, 0);
    KN(map_scale)(n, y, y, NUM(1 / KN(sum)(n, y)));
}

KERNEL void KN(log_softmax)(int64_t n, const ttt_real *a, ttt_real *y) {
    ttt_real max = KN(row_max)(n, a);
    KN(map_shift)(n, a, y, -max);
    KN(map_exp)(n, y, y, 0);
    KN(map_shift)(n, a, y, NUM(-((double)max + log(KN(sum)(n, y)))));
}

// mean and r = (mean (a - mean)^2 + eps)^(-1/2) of a row; mean is 0 unless centred.
INLINE VEC KN(deviation2)(const ttt_real *a, int64_t i, int64_t n, VEC mean) {
    VEC d = KN(first)(KN(part)(a, i, n) - mean, n);
    return d * d;
}
KERNEL void KN(moments)(int64_t n, const ttt_real *a, double eps, bool centred, ttt_real *mean, ttt_real *r) {
    *mean = centred ? NUM(KN(sum)(n, a) / (double)n) : 0;
    VEC m = KN(splat)(*mean);
#define TERM(i, n) KN(deviation2)(a, i, n, m)
    TTT__ROW_SUM(sum, n, TERM)
#undef TERM
    *r = NUM(1 / sqrt(sum / (double)n + eps));
}
KERNEL void KN(normalize)(int64_t n, const ttt_real *a, ttt_real *y, double eps, bool centred) {
    ttt_real mean, r;
    KN(moments)(n, a, eps, centred, &mean, &r);
    VEC m = KN(splat)(mean), rv = KN(splat)(r);
    for (int64_t i = 0; i < n; i += LANES) KN(put)(y, i, n - i, (KN(part)(a, i, n - i) - m) * rv);
}
// y = r (g - mean g - x^ mean(g x^)), x^ = (a - mean) r.
KERNEL void KN(normalize_d1)(int64_t n, const ttt_real *a, const ttt_real *g, ttt_real *y, double eps, bool centred) {
    ttt_real mean, r;
    KN(moments)(n, a, eps, centred, &mean, &r);
    VEC m = KN(splat)(mean), rv = KN(splat)(r);
#define TERM(i, n) KN(part)(g, i, n) * KN(first)((KN(part)(a, i, n) - m) * rv, n)
    TTT__ROW_SUM(gx, n, TERM)
#undef TERM
    VEC mean_g = KN(splat)(centred ? NUM(KN(sum)(n, g) / (double)n) : 0), mean_gx = KN(splat)(NUM(gx / (double)n));
    for (int64_t i = 0; i < n; i += LANES) {
        VEC x = (KN(part)(a, i, n - i) - m) * rv;
        KN(put)(y, i, n - i, (KN(part)(g, i, n - i) - mean_g - x * mean_gx) * rv);
    }
}

KERNEL bool KN(finite)(int64_t n, const ttt_real *a) {  // x - x is NaN for infinities and NaN alone
#define TERM(i, n) (KN(part)(a, i, n) - KN(part)(a, i, n))
    TTT__ROW_SUM(sum, n, TERM)
#undef TERM
    return sum == 0;
}

// One tile of a matrix product: c = init + a b, c of `rows` x `cols` vectors, the sums kept in
// registers while k runs. a is read where it lies, one number at a time, at any pair of strides (so
// its transpose costs nothing); b's rows must be contiguous. init may be NULL (zero), c itself
// (accumulate), or a row repeated (a bias, stride 0). rows and cols are constants where this is used.
INLINE void KN(tile)(int rows, int cols, int64_t k, const ttt_real *a, int64_t a_row, int64_t a_col,
                     const ttt_real *b, int64_t b_row, const ttt_real *init, int64_t init_row,
                     ttt_real *c, int64_t c_row) {
    VEC acc[TTT__TILE_ROWS][COLS];
    TTT__UNROLL for (int i = 0; i < rows; i++)
        TTT__UNROLL for (int j = 0; j < cols; j++)
            acc[i][j] = init ? KN(load)(init + i * init_row + j * LANES) : KN(splat)(0);
    for (; k > 0; k--, a += a_col, b += b_row) {
        VEC bv[COLS];
        TTT__UNROLL for (int j = 0; j < cols; j++) bv[j] = KN(load)(b + j * LANES);
        TTT__UNROLL for (int i = 0; i < rows; i++) {
            ttt_real s = a[i * a_row];
            TTT__UNROLL for (int j = 0; j < cols; j++) acc[i][j] += s * bv[j];
        }
    }
    TTT__UNROLL for (int i = 0; i < rows; i++)
        TTT__UNROLL for (int j = 0; j < cols; j++) KN(store)(c + i * c_row + j * LANES, acc[i][j]);
}
#define TILE(rows, cols)                                                                              \
    KERNEL void KN(tile_##rows##_##cols)(int64_t k, const ttt_real *a, int64_t a_row, int64_t a_col,  \
                                         const ttt_real *b, int64_t b_row, const ttt_real *init,      \
                                         int64_t init_row, ttt_real *c, int64_t c_row) {              \
        KN(tile)(rows, cols, k, a, a_row, a_col, b, b_row, init, init_row, c, c_row);                 \
    }
#define TILES(cols) TILE(1, cols) TILE(2, cols) TILE(3, cols) TILE(4, cols) TILE(5, cols) TILE(6, cols)
TILES(1)
TILES(2)
#if COLS == 4
TILES(3)
TILES(4)
#endif
#undef TILE
#undef TILES

// A LANES x LANES block read by rows and written by columns: y[j * y_row + i] = a[i * a_row + j].
// log2(LANES) rounds, each interleaving the first half of the rows with the second.
INLINE void KN(transpose_block)(const ttt_real *a, int64_t a_row, ttt_real *y, int64_t y_row) {
    VEC x[LANES], z[LANES];
    TTT__UNROLL for (int i = 0; i < LANES; i++) x[i] = KN(load)(a + i * a_row);
    TTT__UNROLL for (int round = 1; round < LANES; round *= 2) {
        TTT__UNROLL for (int i = 0; i < LANES / 2; i++) {
            z[2 * i] = ZIP_LOW(x[i], x[i + LANES / 2]);
            z[2 * i + 1] = ZIP_HIGH(x[i], x[i + LANES / 2]);
        }
        TTT__UNROLL for (int i = 0; i < LANES; i++) x[i] = z[i];
    }
    TTT__UNROLL for (int i = 0; i < LANES; i++) KN(store)(y + i * y_row, x[i]);
}
// y (n,m) = the transpose of a (m,n); y_row >= m.
KERNEL void KN(transpose)(int64_t m, int64_t n, const ttt_real *a, int64_t a_row, ttt_real *y, int64_t y_row) {
    int64_t m_whole = m - m % LANES, n_whole = n - n % LANES;
    for (int64_t i = 0; i < m_whole; i += LANES)
        for (int64_t j = 0; j < n_whole; j += LANES)
            KN(transpose_block)(a + i * a_row + j, a_row, y + j * y_row + i, y_row);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = i < m_whole ? n_whole : 0; j < n; j++) y[j * y_row + i] = a[i * a_row + j];
}

// One pass of an optimiser over a parameter p: with the gradient g' = k.gradient g + k.l2 p,
// Adam [Kingma 2015]: m = b1 m + (1-b1) g', v = b2 v + (1-b2) g'^2, u = (m c1) / (sqrt(v c2) + eps),
// c1 and c2 the bias corrections 1 / (1 - b^t); momentum: m = b1 m + g', u = m; then
// p = p - k.rate u - k.decay p.
KERNEL void KN(adam)(int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, ttt_real *v, const ttt__update *k) {
    VEC one = KN(splat)(1);
    for (int64_t i = 0; i < n; i += LANES) {
        VEC pv = KN(part)(p, i, n - i), gv = KN(part)(g, i, n - i) * k->gradient + pv * k->l2;
        VEC mv = KN(part)(m, i, n - i) * k->b1 + gv * (1 - k->b1);
        VEC vv = KN(part)(v, i, n - i) * k->b2 + gv * gv * (1 - k->b2);
        VEC u = mv * k->c1 / (KN(sqrt)(vv * k->c2, one) + k->eps);
        KN(put)(m, i, n - i, mv);
        KN(put)(v, i, n - i, vv);
        KN(put)(p, i, n - i, pv - u * k->rate - pv * k->decay);
    }
}
KERNEL void KN(momentum)(int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, const ttt__update *k) {
    for (int64_t i = 0; i < n; i += LANES) {
        VEC pv = KN(part)(p, i, n - i), gv = KN(part)(g, i, n - i) * k->gradient + pv * k->l2;
        VEC mv = KN(part)(m, i, n - i) * k->b1 + gv;
        KN(put)(m, i, n - i, mv);
        KN(put)(p, i, n - i, pv - mv * k->rate - pv * k->decay);
    }
}

static const ttt__kernels KN(table) = {
    TTT__TEXT(TTT__SET), LANES, COLS,
#define X(name, formula, lo, hi, flops) KN(map_##name),
    { TTT_UNARY_OPS(X) X(scale, , , , ) X(shift, , , , ) },
#undef X
#define X(name, formula, lo, hi, flops) KN(zip_##name),
    { TTT_BINARY_OPS(X) },
#undef X
    KN(sum), KN(dot), KN(sum_rows), KN(softmax), KN(log_softmax), KN(moments), KN(normalize), KN(normalize_d1),
    KN(finite), KN(transpose), KN(adam), KN(momentum),
#define TILES(cols) { KN(tile_1_##cols), KN(tile_2_##cols), KN(tile_3_##cols), KN(tile_4_##cols), KN(tile_5_##cols), KN(tile_6_##cols) }
#if COLS == 4
    { TILES(1), TILES(2), TILES(3), TILES(4) },
#else
    { TILES(1), TILES(2) },
#endif
#undef TILES
};

#undef TTT__ROW_SUM

// -- the list: TTT__KERNEL_FILE, once for every instruction set this compiler can make
#elif defined(TTT__FOR_EACH_SET)
#undef TTT__FOR_EACH_SET
#define TTT__KERNELS
#define KN(name) TTT__JOIN(name, TTT__SET)
#define VEC KN(v)
#define MASK KN(m)
#define LANES TTT__PASTE(TTT__LANES_, TTT__SET)
#define COLS TTT__PASTE(TTT__COLS_, TTT__SET)
#define ZIP_LOW TTT__PASTE(TTT__LOW_, TTT__SET)
#define ZIP_HIGH TTT__PASTE(TTT__HIGH_, TTT__SET)
#define NUM(x) ((ttt_real)(x))
#define KERNEL static TTT__PASTE(TTT__TARGET_, TTT__SET)
#define INLINE static TTT__INLINE TTT__PASTE(TTT__TARGET_, TTT__SET)
#define TTT__SET scalar
#include TTT__KERNEL_FILE
#undef TTT__SET
#if defined(TTT__X86)
#define TTT__SET sse2
#include TTT__KERNEL_FILE
#undef TTT__SET
#define TTT__SET avx2
#include TTT__KERNEL_FILE
#undef TTT__SET
#define TTT__SET avx512
#include TTT__KERNEL_FILE
#undef TTT__SET
#elif defined(TTT__NEON)
#define TTT__SET neon
#include TTT__KERNEL_FILE
#undef TTT__SET
#elif defined(TTT__WASM)
#define TTT__SET simd128
#include TTT__KERNEL_FILE
#undef TTT__SET
#endif
#undef TTT__KERNEL_FILE
#undef TTT__KERNELS
#undef KN
#undef VEC
#undef MASK
#undef LANES
#undef COLS
#undef ZIP_LOW
#undef ZIP_HIGH
#undef NUM
#undef KERNEL
#undef INLINE

// ==================================================================================================
#elif defined(TTT_TENSOR_IMPLEMENTATION) || defined(TTT_IMPLEMENTATION)
#ifndef TTT_TENSOR_IMPLEMENTED
#define TTT_TENSOR_IMPLEMENTED

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef TTT_MALLOC
#define TTT_MALLOC(user, n) ((void)(user), malloc(n))
#define TTT_REALLOC(user, p, n) ((void)(user), realloc(p, n))
#define TTT_FREE(user, p) ((void)(user), free(p))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// TTT__DOUBLE is 1 in the double build: TTT_REAL is pasted behind a prefix to look at it.
#define TTT__IS_float 0
#define TTT__IS_double 1
#define TTT__PASTE2(a, b) a##b
#define TTT__PASTE(a, b) TTT__PASTE2(a, b)
#define TTT__DOUBLE TTT__PASTE(TTT__IS_, TTT_REAL)
#if TTT__DOUBLE
#define TTT__MATH(name) name
#else
#define TTT__MATH(name) name##f
#endif

#define TTT__TEXT2(x) #x
#define TTT__TEXT(x) TTT__TEXT2(x)
#define TTT__JOIN2(name, set) ttt__##name##_##set
#define TTT__JOIN(name, set) TTT__JOIN2(name, set)

#if defined(__clang__)
#define TTT__UNROLL _Pragma("clang loop unroll(full)")
#define TTT__INLINE inline __attribute__((always_inline))
#define TTT__UNUSED __attribute__((unused))
#define TTT__FMA
#elif defined(__GNUC__)
#define TTT__UNROLL _Pragma("GCC unroll 16")
#define TTT__INLINE inline __attribute__((always_inline))
#define TTT__UNUSED __attribute__((unused))
#ifdef __STRICT_ANSI__  // with -std=c99 and the like GCC does not fuse a*b + c unless told so
#define TTT__FMA __attribute__((optimize("fp-contract=fast")))
#else
#define TTT__FMA
#endif
#else
#define TTT__UNROLL
#define TTT__INLINE inline
#define TTT__UNUSED
#define TTT__FMA
#endif

#define TTT__MIN(a, b) ((a) < (b) ? (a) : (b))
#define TTT__MAX(a, b) ((a) > (b) ? (a) : (b))

// Numbers of the ops of one and of two operands, which index the kernel table.
enum {
#define X(name, formula, lo, hi, flops) TTT__MAP_##name,
    TTT_UNARY_OPS(X) X(scale, , , , ) X(shift, , , , )
#undef X
    TTT__N_MAPS
};
enum {
#define X(name, formula, lo, hi, flops) TTT__ZIP_##name,
    TTT_BINARY_OPS(X)
#undef X
    TTT__N_ZIPS
};

#define TTT__TILE_ROWS 6
typedef void ttt__tile_fn(int64_t k, const ttt_real *a, int64_t a_row, int64_t a_col, const ttt_real *b,
                          int64_t b_row, const ttt_real *init, int64_t init_row, ttt_real *c, int64_t c_row);

typedef struct ttt__update {  // what an optimiser's pass needs to know, see `adam` in [9]
    ttt_real gradient, l2, b1, b2, c1, c2, eps, rate, decay;
} ttt__update;

// One row for each instruction set; what the functions do is written at their text in [9].
typedef struct ttt__kernels {
    const char *name;
    int lanes, tile_cols;
    void (*map[TTT__N_MAPS])(int64_t n, const ttt_real *a, ttt_real *y, ttt_real scalar);
    void (*zip[TTT__N_ZIPS])(int64_t n, const ttt_real *a, int a_step, const ttt_real *b, int b_step, ttt_real *y);
    double (*sum)(int64_t n, const ttt_real *a);
    double (*dot)(int64_t n, const ttt_real *a, const ttt_real *b);
    void (*sum_rows)(int64_t rows, int64_t n, int64_t stride, const ttt_real *a, ttt_real *y);
    void (*softmax)(int64_t n, const ttt_real *a, ttt_real *y);
    void (*log_softmax)(int64_t n, const ttt_real *a, ttt_real *y);
    void (*moments)(int64_t n, const ttt_real *a, double eps, bool centred, ttt_real *mean, ttt_real *r);
    void (*normalize)(int64_t n, const ttt_real *a, ttt_real *y, double eps, bool centred);
    void (*normalize_d1)(int64_t n, const ttt_real *a, const ttt_real *g, ttt_real *y, double eps, bool centred);
    bool (*finite)(int64_t n, const ttt_real *a);
    void (*transpose)(int64_t m, int64_t n, const ttt_real *a, int64_t a_row, ttt_real *y, int64_t y_row);
    void (*adam)(int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, ttt_real *v, const ttt__update *k);
    void (*momentum)(int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, const ttt__update *k);
    ttt__tile_fn *tile[4][TTT__TILE_ROWS];  // [vectors - 1][rows - 1]
} ttt__kernels;

// The instruction sets: lanes of a vector, columns of a tile in vectors (6 x 2 sums, 2 of b and 1 of a
// fill 16 registers; 6 x 4, 4 and 1 fill 32), the attribute that lets the compiler use them, and the
// two halves of interleaving two vectors.
#if defined(__GNUC__) && !defined(TTT_NO_SIMD) && !TTT__DOUBLE
#if defined(__x86_64__) || defined(__i386__)
#define TTT__X86
#elif defined(__aarch64__) || defined(__ARM_NEON)
#define TTT__NEON
#elif defined(__wasm_simd128__)
#define TTT__WASM
#endif
#endif

#define TTT__LANES_scalar 1
#define TTT__COLS_scalar 4
#define TTT__TARGET_scalar
#define TTT__LOW_scalar(a, b) ((void)(b), (a))
#define TTT__HIGH_scalar(a, b) ((void)(a), (b))

#define TTT__LANES_sse2 4
#define TTT__COLS_sse2 2
#define TTT__TARGET_sse2 __attribute__((target("sse2"))) TTT__FMA
#define TTT__LOW_sse2(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define TTT__HIGH_sse2(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)

#define TTT__LANES_neon 4
#define TTT__COLS_neon 4
#define TTT__TARGET_neon TTT__FMA
#define TTT__LOW_neon TTT__LOW_sse2
#define TTT__HIGH_neon TTT__HIGH_sse2

#define TTT__LANES_simd128 4
#define TTT__COLS_simd128 2
#define TTT__TARGET_simd128 TTT__FMA
#define TTT__LOW_simd128 TTT__LOW_sse2
#define TTT__HIGH_simd128 TTT__HIGH_sse2

#define TTT__LANES_avx2 8
#define TTT__COLS_avx2 2
#define TTT__TARGET_avx2 __attribute__((target("avx2,fma"))) TTT__FMA
#define TTT__LOW_avx2(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define TTT__HIGH_avx2(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)

#define TTT__LANES_avx512 16
#define TTT__COLS_avx512 4
#define TTT__TARGET_avx512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))) TTT__FMA
#define TTT__LOW_avx512(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define TTT__HIGH_avx512(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

#define TTT__FOR_EACH_SET
#define TTT__KERNEL_FILE "ttt_tensor.h"
#include "ttt_tensor.h"

// The i-th row that this machine can run.
static const ttt__kernels *ttt__kernels_get(int i) {
    const ttt__kernels *found[4];
    int n = 0;
    found[n++] = &ttt__table_scalar;
#if defined(TTT__X86)
    if (__builtin_cpu_supports("sse2")) found[n++] = &ttt__table_sse2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found[n++] = &ttt__table_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        found[n++] = &ttt__table_avx512;
#elif defined(TTT__NEON)
    found[n++] = &ttt__table_neon;
#elif defined(TTT__WASM)
    found[n++] = &ttt__table_simd128;
#endif
    return i >= 0 && i < n ? found[i] : NULL;
}

const char *ttt_isa_name(int i) {
    const ttt__kernels *k = ttt__kernels_get(i);
    return k ? k->name : NULL;
}

// ---- [10] ARENAS, ERRORS -------------------------------------------------------------------------
// An arena is a chain of chunks and a place in it. Allocating moves the place forward, releasing moves
// it back; chunks stay, so the same work a second time takes no memory from outside.
typedef struct ttt__chunk {
    struct ttt__chunk *next;
    size_t size;
} ttt__chunk;

typedef struct ttt__arena {
    ttt__chunk *first, *current;
    size_t used;   // in the current chunk
    size_t bytes;  // in use, all chunks
} ttt__arena;

#define TTT__ALIGN 64

typedef struct ttt__pool ttt__pool;

// A block of workspace that gradients reuse: see [15].
typedef struct ttt__block {
    struct ttt__block *next;  // in the list of free blocks
    size_t size;
    int uses;                 // how many hold it
} ttt__block;

struct ttt_ctx {
    ttt_desc desc;
    const ttt__kernels *k;
    ttt__arena keep, step, scratch;
    size_t held, peak;
    ttt_tensor **nodes;  // the tape: every living tensor in order of its making
    int64_t n_nodes, cap_nodes;
    bool recording;
    bool numbers_only;   // inside a first-order walk: tensors are scratch, and not on the tape
    ttt__block *free_blocks;
    ttt_tensor **made;   // numbers_only tensors made by the rule that runs now
    int64_t n_made, cap_made;
    ttt_rng rng;
    int threads;
    ttt__pool *pool;
    ttt_real *pack[TTT_MAX_THREADS];  // workspace of matrix products, one for each thread
    ttt_result result;
    char text[512];
    ttt_tensor empty;
    ttt_real nothing[1];
};

const char *ttt_result_text(ttt_result r) {
    switch (r) {
    case TTT_OK: return "no error";
#define X(name, text) case TTT_ERR_##name: return text;
    TTT_RESULTS(X)
#undef X
    }
    return "not a result";
}

bool ttt_ok(const ttt_ctx *c) { return c && c->result == TTT_OK; }
ttt_result ttt_status(const ttt_ctx *c) { return c->result; }
const char *ttt_error(const ttt_ctx *c) { return c->text; }
void ttt_clear(ttt_ctx *c) {
    c->result = TTT_OK;
    c->text[0] = 0;
}

ttt_tensor *ttt_fail(ttt_ctx *c, ttt_result r, const char *format, ...) {
    if (c->result == TTT_OK) {
        va_list args;
        va_start(args, format);
        vsnprintf(c->text, sizeof c->text, format, args);
        va_end(args);
        c->result = r;
        if (c->desc.on_error) c->desc.on_error(c->desc.user, r, c->text);
    }
    return &c->empty;
}

static size_t ttt__round_up(size_t n) { return (n + TTT__ALIGN - 1) / TTT__ALIGN * TTT__ALIGN; }
static char *ttt__chunk_data(ttt__chunk *k) { return (char *)k + ttt__round_up(sizeof *k); }

static void ttt__count_peak(ttt_ctx *c) {
    size_t now = c->keep.bytes + c->step.bytes + c->scratch.bytes;
    if (now > c->peak) c->peak = now;
}

// A chunk of at least n bytes behind the current one: the next in the chain if it is large enough,
// else a new one, twice as large as all before so that there are few.
static bool ttt__arena_grow(ttt_ctx *c, ttt__arena *a, size_t n) {
    ttt__chunk *next = a->current ? a->current->next : a->first;
    if (!next || next->size < n) {
        size_t size = TTT__MAX(n, TTT__MAX((size_t)1 << 16, a->bytes));
        size_t whole = size + ttt__round_up(sizeof(ttt__chunk)) + TTT__ALIGN;
        char *memory = size > (size_t)PTRDIFF_MAX / 2 ? NULL : (char *)TTT_MALLOC(c->desc.user, whole);
        if (!memory) {
            ttt_fail(c, TTT_ERR_NO_MEMORY, "out of memory: %.1f MB asked for, %.1f MB held", (double)whole / 1e6, (double)c->held / 1e6);
            return false;
        }
        c->held += whole;
        // The first bytes of the block keep the address to free; the chunk begins at an aligned one.
        char *aligned = memory + (TTT__ALIGN - (uintptr_t)memory % TTT__ALIGN);
        aligned[-1] = (char)(aligned - memory);
        ttt__chunk *chunk = (ttt__chunk *)(void *)aligned;
        chunk->size = size;
        chunk->next = next;
        if (a->current) a->current->next = chunk;
        else a->first = chunk;
        next = chunk;
    }
    a->current = next;
    a->used = 0;
    return true;
}

static void *ttt__arena_alloc(ttt_ctx *c, ttt__arena *a, size_t n) {
    n = ttt__round_up(n ? n : 1);
    if ((!a->current || a->used + n > a->current->size) && !ttt__arena_grow(c, a, n)) return NULL;
    void *p = ttt__chunk_data(a->current) + a->used;
    a->used += n;
    a->bytes += n;
    ttt__count_peak(c);
    return p;
}

static ttt_mark ttt__arena_mark(const ttt__arena *a) {
    ttt_mark m = { a->current, a->used, a->bytes, 0 };
    return m;
}

static void ttt__arena_release(ttt__arena *a, ttt_mark m) {
#if defined(TTT_POISON)
    for (ttt__chunk *k = m.chunk ? (ttt__chunk *)m.chunk : a->first; k; k = k->next) {
        size_t from = k == m.chunk ? m.used : 0, to = k == a->current ? a->used : k->size;
        memset(ttt__chunk_data(k) + from, 0xff, to - from);  // 0xffffffff is a NaN
        if (k == a->current) break;
    }
#endif
    a->current = (ttt__chunk *)m.chunk;
    a->used = m.used;
    a->bytes = m.bytes;
}

static void ttt__arena_free(ttt_ctx *c, ttt__arena *a) {
    for (ttt__chunk *k = a->first, *next; k; k = next) {
        next = k->next;
        TTT_FREE(c->desc.user, (char *)k - ((char *)k)[-1]);
    }
}

void *ttt_alloc(ttt_ctx *c, size_t n, bool keep) {
    return c->result ? NULL : ttt__arena_alloc(c, keep ? &c->keep : &c->step, n);
}

ttt_memory_report ttt_memory(const ttt_ctx *c) {
    ttt_memory_report m = { c->keep.bytes, c->step.bytes, c->scratch.bytes, c->held, c->peak, c->n_nodes };
    return m;
}

void ttt_memory_reset(ttt_ctx *c) {
    c->peak = 0;
    ttt__count_peak(c);
}

ttt_mark ttt_mark_get(ttt_ctx *c) {
    ttt_mark m = ttt__arena_mark(&c->step);
    m.nodes = c->n_nodes;
    return m;
}

// Parameters made since the mark stay on the tape, moved down to the places that became free.
void ttt_release(ttt_ctx *c, ttt_mark m) {
    int64_t n = m.nodes;
    for (int64_t i = m.nodes; i < c->n_nodes; i++)
        if (c->nodes[i]->kept) {
            c->nodes[n] = c->nodes[i];
            c->nodes[n]->id = n;
            n++;
        }
    c->n_nodes = n;
    ttt__arena_release(&c->step, m);
}

// Grows an array of pointers by doubling.
static bool ttt__reserve(ttt_ctx *c, ttt_tensor ***array, int64_t *cap, int64_t n) {
    if (n <= *cap) return true;
    int64_t bigger = TTT__MAX(256, 2 * n);
    ttt_tensor **p = (ttt_tensor **)TTT_REALLOC(c->desc.user, *array, (size_t)bigger * sizeof **array);
    if (!p) {
        ttt_fail(c, TTT_ERR_NO_MEMORY, "out of memory: a tape of %lld tensors", (long long)bigger);
        return false;
    }
    c->held += (size_t)(bigger - *cap) * sizeof **array;
    *array = p;
    *cap = bigger;
    return true;
}

// Random numbers. Philox4x32-10: ten rounds of multiplying and crossing a 128-bit counter, keyed.
#ifndef TTT__PHILOX
#define TTT__PHILOX
static void ttt__philox(const uint32_t key[2], uint32_t ctr[4]) {
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * ctr[0], p1 = (uint64_t)0xCD9E8D57u * ctr[2];
        uint32_t c1 = ctr[1], c3 = ctr[3];
        ctr[0] = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        ctr[1] = (uint32_t)p1;
        ctr[2] = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        ctr[3] = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}
#endif

// Number `next` is word next % 4 of block next / 4.
uint32_t ttt_rng_u32(ttt_rng *r) {
    uint32_t key[2] = { (uint32_t)r->seed, (uint32_t)(r->seed >> 32) };
    uint64_t block = r->next / 4;
    uint32_t ctr[4] = { (uint32_t)block, (uint32_t)(block >> 32), 0, 0 };
    ttt__philox(key, ctr);
    return ctr[r->next++ % 4];
}

double ttt_rng_uniform(ttt_rng *r) { return ttt_rng_u32(r) * (1.0 / 4294967296.0); }

double ttt_rng_normal(ttt_rng *r) {
    double u = 1 - ttt_rng_uniform(r), v = ttt_rng_uniform(r);  // u in (0,1]
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

int64_t ttt_rng_below(ttt_rng *r, int64_t n) {
    uint64_t high = ttt_rng_u32(r), low = ttt_rng_u32(r);
    return n > 0 ? (int64_t)((high << 32 | low) % (uint64_t)n) : 0;  // bias below n / 2^64
}

ttt_rng ttt_rng_fold(ttt_rng r, uint64_t data) {
    uint32_t key[2] = { (uint32_t)r.seed, (uint32_t)(r.seed >> 32) };
    uint32_t ctr[4] = { (uint32_t)data, (uint32_t)(data >> 32), 0x666f6c64u, 0 };  // "fold": apart from numbers
    ttt__philox(key, ctr);
    ttt_rng folded = { (uint64_t)ctr[1] << 32 | ctr[0], 0 };
    return folded;
}

ttt_rng *ttt_ctx_rng(ttt_ctx *c) { return &c->rng; }

// ---- [11] THREADS --------------------------------------------------------------------------------
// Work is a range 0..n of independent outputs, cut into one share for each thread. No sum ever crosses
// a share, so the number of threads cannot change a bit of the result.
typedef void ttt__range_fn(void *arg, int64_t begin, int64_t end, int thread);

typedef struct ttt__job {
    ttt__range_fn *run;
    void *arg;
    int64_t n;
    int shares;
} ttt__job;

static void ttt__job_share(void *job, int i) {
    const ttt__job *j = (const ttt__job *)job;
    j->run(j->arg, j->n * i / j->shares, j->n * (i + 1) / j->shares, i);
}

#if !defined(TTT_NO_THREADS) && (defined(__wasm__) || defined(__TINYC__) && defined(_WIN32))
#define TTT_NO_THREADS
#endif

#ifdef TTT_NO_THREADS
static int ttt__cores(void) { return 1; }
static ttt__pool *ttt__pool_open(ttt_ctx *c) { (void)c; return NULL; }
static void ttt__pool_close(ttt_ctx *c) { (void)c; }
static void ttt__pool_run(ttt__pool *p, ttt__job *job) { (void)p; (void)job; }
#else

#ifdef _WIN32
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
typedef CRITICAL_SECTION ttt__mutex;
typedef CONDITION_VARIABLE ttt__condition;
typedef HANDLE ttt__thread;
#define TTT__THREAD_FN(name, arg) static DWORD WINAPI name(LPVOID arg)
static void ttt__mutex_init(ttt__mutex *m) { InitializeCriticalSection(m); }
static void ttt__mutex_free(ttt__mutex *m) { DeleteCriticalSection(m); }
static void ttt__lock(ttt__mutex *m) { EnterCriticalSection(m); }
static void ttt__unlock(ttt__mutex *m) { LeaveCriticalSection(m); }
static void ttt__condition_init(ttt__condition *v) { InitializeConditionVariable(v); }
static void ttt__condition_free(ttt__condition *v) { (void)v; }
static void ttt__wait(ttt__condition *v, ttt__mutex *m) { SleepConditionVariableCS(v, m, INFINITE); }
static void ttt__wake_all(ttt__condition *v) { WakeAllConditionVariable(v); }
static bool ttt__thread_start(ttt__thread *t, LPTHREAD_START_ROUTINE run, void *arg) {
    *t = CreateThread(NULL, 0, run, arg, 0, NULL);
    return *t != NULL;
}
static void ttt__thread_join(ttt__thread t) {
    WaitForSingleObject(t, INFINITE);
    CloseHandle(t);
}
static int ttt__cores(void) {
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return (int)info.dwNumberOfProcessors;
}
#else
#include <pthread.h>
#include <unistd.h>
typedef pthread_mutex_t ttt__mutex;
typedef pthread_cond_t ttt__condition;
typedef pthread_t ttt__thread;
#define TTT__THREAD_FN(name, arg) static void *name(void *arg)
static void ttt__mutex_init(ttt__mutex *m) { pthread_mutex_init(m, NULL); }
static void ttt__mutex_free(ttt__mutex *m) { pthread_mutex_destroy(m); }
static void ttt__lock(ttt__mutex *m) { pthread_mutex_lock(m); }
static void ttt__unlock(ttt__mutex *m) { pthread_mutex_unlock(m); }
static void ttt__condition_init(ttt__condition *v) { pthread_cond_init(v, NULL); }
static void ttt__condition_free(ttt__condition *v) { pthread_cond_destroy(v); }
static void ttt__wait(ttt__condition *v, ttt__mutex *m) { pthread_cond_wait(v, m); }
static void ttt__wake_all(ttt__condition *v) { pthread_cond_broadcast(v); }
static bool ttt__thread_start(ttt__thread *t, void *(*run)(void *), void *arg) { return pthread_create(t, NULL, run, arg) == 0; }
static void ttt__thread_join(ttt__thread t) { pthread_join(t, NULL); }
static int ttt__cores(void) {
#ifdef _SC_NPROCESSORS_ONLN
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
#else
    return 1;
#endif
}
#endif

// Worker i waits for a job number it has not seen, runs share i, and says so. Waiting begins with a
// few thousand looks at the mutex, since the next job of a training step comes within microseconds
// and waking a sleeping thread takes tens.
#define TTT__LOOKS 4000
typedef struct ttt__worker {
    ttt__pool *pool;
    int index;
    ttt__thread thread;
} ttt__worker;

struct ttt__pool {
    ttt__mutex mutex;
    ttt__condition start, done;
    ttt__job job;     // a copy: a worker without a share in it may look late
    uint64_t number;  // of the job
    int pending;      // shares not finished
    int workers;
    bool quit;
    ttt__worker worker[TTT_MAX_THREADS];
};

TTT__THREAD_FN(ttt__worker_run, arg) {
    ttt__worker *w = (ttt__worker *)arg;
    ttt__pool *p = w->pool;
    uint64_t seen = 0;
    ttt__lock(&p->mutex);
    for (;;) {
        for (int look = 0; p->number == seen && !p->quit && look < TTT__LOOKS; look++) {
            ttt__unlock(&p->mutex);
            ttt__lock(&p->mutex);
        }
        while (p->number == seen && !p->quit) ttt__wait(&p->start, &p->mutex);
        if (p->quit) break;
        seen = p->number;
        ttt__job job = p->job;
        if (w->index >= job.shares) continue;
        ttt__unlock(&p->mutex);
        ttt__job_share(&job, w->index);
        ttt__lock(&p->mutex);
        if (--p->pending == 0) ttt__wake_all(&p->done);
    }
    ttt__unlock(&p->mutex);
    return 0;
}

static void ttt__pool_run(ttt__pool *p, ttt__job *job) {
    ttt__lock(&p->mutex);
    p->job = *job;
    p->number++;
    p->pending = job->shares - 1;
    ttt__wake_all(&p->start);
    ttt__unlock(&p->mutex);
    ttt__job_share(job, 0);
    ttt__lock(&p->mutex);
    for (int look = 0; p->pending > 0 && look < TTT__LOOKS; look++) {
        ttt__unlock(&p->mutex);
        ttt__lock(&p->mutex);
    }
    while (p->pending > 0) ttt__wait(&p->done, &p->mutex);
    ttt__unlock(&p->mutex);
}

static void ttt__pool_close(ttt_ctx *c) {
    ttt__pool *p = c->pool;
    if (!p) return;
    ttt__lock(&p->mutex);
    p->quit = true;
    ttt__wake_all(&p->start);
    ttt__unlock(&p->mutex);
    for (int i = 0; i < p->workers; i++) ttt__thread_join(p->worker[i].thread);
    ttt__condition_free(&p->start);
    ttt__condition_free(&p->done);
    ttt__mutex_free(&p->mutex);
    TTT_FREE(c->desc.user, p);
}

// The caller is thread 0; as many others as can be started.
static ttt__pool *ttt__pool_open(ttt_ctx *c) {
    ttt__pool *p = (ttt__pool *)TTT_MALLOC(c->desc.user, sizeof *p);
    if (!p) return NULL;
    memset(p, 0, sizeof *p);
    ttt__mutex_init(&p->mutex);
    ttt__condition_init(&p->start);
    ttt__condition_init(&p->done);
    for (int i = 0; i < c->threads - 1; i++) {
        ttt__worker *w = &p->worker[i];
        w->pool = p;
        w->index = i + 1;
        if (!ttt__thread_start(&w->thread, ttt__worker_run, w)) break;
        p->workers++;
    }
    c->threads = p->workers + 1;
    return p;
}
#endif  // TTT_NO_THREADS

// run(arg, begin, end, thread) over 0..n, at least `grain` outputs a share. `thread` is the caller's
// own number when it is inside a share already (the range then runs right here), else -1.
static void ttt__parallel(ttt_ctx *c, int thread, int64_t n, int64_t grain, ttt__range_fn *run, void *arg) {
    ttt__job job = { run, arg, n, (int)TTT__MIN((int64_t)c->threads, n / TTT__MAX(grain, 1)) };
    if (thread >= 0 || job.shares <= 1) {
        if (n > 0) run(arg, 0, n, TTT__MAX(thread, 0));
    } else if (c->desc.parallel_for) {
        c->desc.parallel_for(c->desc.user, job.shares, ttt__job_share, &job);
    } else {
        ttt__pool_run(c->pool, &job);
    }
}

// ---- [12] TENSORS, APPLY -------------------------------------------------------------------------
ttt_shape ttt_shape_of(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f, int64_t g, int64_t h) {
    ttt_shape s = { 0, { a, b, c, d, e, f, g, h } };
    while (s.rank < TTT_MAX_RANK && s.dim[s.rank] != INT64_MIN) s.rank++;
    for (int i = s.rank; i < TTT_MAX_RANK; i++) s.dim[i] = 0;
    return s;
}

ttt_shape ttt_scalar_shape(void) {
    ttt_shape s = { 0, { 0 } };
    return s;
}

bool ttt_shape_equal(ttt_shape a, ttt_shape b) {
    for (int i = 0; i < a.rank && a.rank == b.rank; i++)
        if (a.dim[i] != b.dim[i]) return false;
    return a.rank == b.rank;
}

int64_t ttt_shape_size(ttt_shape s) {
    const int64_t limit = (int64_t)1 << 62;
    int64_t n = 1;
    bool empty = false, large = false;
    for (int i = 0; i < s.rank; i++) {
        if (s.dim[i] < 0) return -1;
        if (s.dim[i] == 0) empty = true;
        else if (n > limit / s.dim[i]) large = true;
        else n *= s.dim[i];
    }
    return empty ? 0 : large ? -1 : n;
}

const char *ttt_shape_text(ttt_shape s, char *text) {
    size_t n = 0, size = sizeof(ttt_text);
    n += (size_t)snprintf(text, size, "(");
    for (int i = 0; i < s.rank && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%lld", i ? "," : "", (long long)s.dim[i]);
    if (n < size) snprintf(text + n, size - n, ")");
    return text;
}

#define TTT__SCRATCH ((int64_t)-1)  // the id of a tensor that a first-order walk made: never on the tape

static bool ttt__alive(const ttt_ctx *c, const ttt_tensor *t) {
    return t && (t->id == TTT__SCRATCH || (t->id >= 0 && t->id < c->n_nodes && c->nodes[t->id] == t));
}

// Workspace blocks: taken from the free ones if one fits well, else from the scratch arena.
static ttt__block *ttt__block_take(ttt_ctx *c, size_t size) {
    ttt__block **best = NULL;
    for (ttt__block **b = &c->free_blocks; *b; b = &(*b)->next)
        if ((*b)->size >= size && (*b)->size <= 2 * size + 1024 && (!best || (*b)->size < (*best)->size)) best = b;
    ttt__block *b = best ? *best : (ttt__block *)ttt__arena_alloc(c, &c->scratch, ttt__round_up(sizeof *b) + size);
    if (!b) return NULL;
    if (best) *best = b->next;
    else b->size = size;
    b->next = NULL;
    b->uses = 1;
    return b;
}

static void ttt__block_drop(ttt_ctx *c, ttt_tensor *t) {
    ttt__block *b = (ttt__block *)t->block;
    if (!b || --b->uses > 0) return;
    ttt_tensor *shared = t->shares;
    b->next = c->free_blocks;
    c->free_blocks = b;
    if (shared) ttt__block_drop(c, shared);
}

// Memory of a tensor struct and `bytes` more behind it, where the context's mode wants it.
static ttt_tensor *ttt__tensor_memory(ttt_ctx *c, size_t bytes, bool keep) {
    size_t head = ttt__round_up(sizeof(ttt_tensor));
    ttt__block *block = NULL;
    char *p;
    if (c->numbers_only) {
        if (!ttt__reserve(c, &c->made, &c->cap_made, c->n_made + 1)) return NULL;
        block = ttt__block_take(c, head + bytes);
        p = block ? (char *)block + ttt__round_up(sizeof *block) : NULL;
    } else {
        if (!ttt__reserve(c, &c->nodes, &c->cap_nodes, c->n_nodes + 1)) return NULL;
        p = (char *)ttt__arena_alloc(c, keep ? &c->keep : &c->step, head + bytes);
    }
    if (!p) return NULL;
    ttt_tensor *t = (ttt_tensor *)(void *)p;
    memset(t, 0, sizeof *t);
    t->block = block;
    t->kept = keep;
    t->id = c->numbers_only ? TTT__SCRATCH : c->n_nodes;
    if (c->numbers_only) c->made[c->n_made++] = t;
    else c->nodes[c->n_nodes++] = t;
    return t;
}

// A new tensor; `share` lends it its elements (a reshape), or is NULL. NULL after an error.
static ttt_tensor *ttt__tensor(ttt_ctx *c, ttt_shape s, ttt_dtype dtype, bool keep, ttt_tensor *share) {
    int64_t size = ttt_shape_size(s);
    size_t element = dtype == TTT_DTYPE_INT ? sizeof(int64_t) : sizeof(ttt_real);
    if (c->result) return NULL;
    if (size < 0 || size > (int64_t)(PTRDIFF_MAX / 2 / 8)) {
        ttt_text text;
        ttt_fail(c, TTT_ERR_SHAPE, "a tensor cannot have shape %s", ttt_shape_text(s, text));
        return NULL;
    }
    ttt_tensor *t = ttt__tensor_memory(c, share ? 0 : (size_t)size * element, keep);
    if (!t) return NULL;
    t->dtype = dtype;
    t->shape = s;
    t->size = size;
    if (share) {
        t->data = share->data;
        t->index = share->index;
        t->shares = share;
        if (t->block && share->block) ((ttt__block *)share->block)->uses++;
        return t;
    }
    void *elements = (char *)t + ttt__round_up(sizeof *t);
    if (dtype == TTT_DTYPE_INT) t->index = (int64_t *)elements;
    else t->data = (ttt_real *)elements;
    return t;
}

static ttt_tensor *ttt__or_empty(ttt_ctx *c, ttt_tensor *t) { return t ? t : &c->empty; }

ttt_tensor *ttt_new(ttt_ctx *c, ttt_shape s) { return ttt__or_empty(c, ttt__tensor(c, s, TTT_DTYPE_REAL, false, NULL)); }

ttt_tensor *ttt_full(ttt_ctx *c, ttt_shape s, ttt_real v) {
    ttt_tensor *t = ttt_new(c, s);
    for (int64_t i = 0; i < t->size; i++) t->data[i] = v;
    return t;
}

ttt_tensor *ttt_zeros(ttt_ctx *c, ttt_shape s) { return ttt_full(c, s, 0); }
ttt_tensor *ttt_scalar(ttt_ctx *c, ttt_real v) { return ttt_full(c, ttt_scalar_shape(), v); }

ttt_tensor *ttt_from(ttt_ctx *c, ttt_shape s, const ttt_real *values) {
    ttt_tensor *t = ttt_new(c, s);
    if (t->size) memcpy(t->data, values, (size_t)t->size * sizeof *values);
    return t;
}

ttt_tensor *ttt_from_int(ttt_ctx *c, ttt_shape s, const int64_t *values) {
    ttt_tensor *t = ttt__or_empty(c, ttt__tensor(c, s, TTT_DTYPE_INT, false, NULL));
    if (t->size) memcpy(t->index, values, (size_t)t->size * sizeof *values);
    return t;
}

ttt_tensor *ttt_randn(ttt_ctx *c, ttt_shape s) {
    ttt_tensor *t = ttt_new(c, s);
    for (int64_t i = 0; i < t->size; i++) t->data[i] = (ttt_real)ttt_rng_normal(&c->rng);
    return t;
}

ttt_tensor *ttt_uniform(ttt_ctx *c, ttt_shape s, ttt_real lo, ttt_real hi) {
    ttt_tensor *t = ttt_new(c, s);
    for (int64_t i = 0; i < t->size; i++) t->data[i] = (ttt_real)((double)lo + (double)(hi - lo) * ttt_rng_uniform(&c->rng));
    return t;
}

ttt_tensor *ttt_param(ttt_ctx *c, ttt_shape s) {
    ttt_tensor *t = ttt__or_empty(c, ttt__tensor(c, s, TTT_DTYPE_REAL, true, NULL));
    if (t->size) memset(t->data, 0, (size_t)t->size * sizeof(ttt_real));
    return t;
}

ttt_real ttt_item(const ttt_tensor *t) { return t->size == 1 && t->data ? t->data[0] : (ttt_real)NAN; }

double ttt_max_abs_diff(const ttt_tensor *a, const ttt_tensor *b) {
    double max = 0;
    if (!ttt_shape_equal(a->shape, b->shape) || !a->data || !b->data) return (double)NAN;
    for (int64_t i = 0; i < a->size; i++) {
        double d = fabs((double)a->data[i] - (double)b->data[i]);
        if (!(d <= max)) max = d;
    }
    return max;
}

bool ttt_recording(ttt_ctx *c, bool on) {
    bool was = c->recording;
    c->recording = on;
    return was;
}

// Writes the producer into y. While only numbers are wanted, `in` and `arg` are needed no longer than
// forward runs, and stay where the caller has them.
static bool ttt__set_producer(ttt_ctx *c, ttt_tensor *y, const ttt_op *op, ttt_tensor *const *in, int n,
                              const void *arg, size_t arg_bytes) {
    y->op = op;
    y->n_in = n;
    if (c->numbers_only) {
        y->arg = arg;
        y->in = (ttt_tensor **)(uintptr_t)in;
        return true;
    }
    y->in = (ttt_tensor **)ttt__arena_alloc(c, &c->step, (size_t)n * sizeof *in + arg_bytes);
    if (!y->in) return false;
    memcpy(y->in, in, (size_t)n * sizeof *in);
    y->arg = arg_bytes ? memcpy(y->in + n, arg, arg_bytes) : NULL;
    return true;
}

static void ttt__clear_producer(ttt_tensor *y) {
    y->op = NULL;
    y->in = NULL;
    y->n_in = 0;
    y->arg = NULL;
}

static bool ttt__inputs_good(ttt_ctx *c, const ttt_op *op, ttt_tensor *const *in, int n) {
    if (c->result) return false;
    if (op->n_in >= 0 && n != op->n_in) {
        ttt_fail(c, TTT_ERR_ARGUMENT, "%s: %d inputs given, %d expected", op->name, n, op->n_in);
        return false;
    }
    for (int i = 0; i < n; i++)
        if (!ttt__alive(c, in[i])) {
            ttt_fail(c, TTT_ERR_RELEASED, "%s: input %d is not a living tensor of this context; was it released?", op->name, i);
            return false;
        }
    return true;
}

static ttt_tensor *ttt__apply(ttt_ctx *c, const ttt_op *op, ttt_tensor *const *in, int n, ttt_shape shape,
                              const void *arg, size_t arg_bytes, ttt_tensor *share) {
    if (!ttt__inputs_good(c, op, in, n)) return &c->empty;
    ttt_tensor *y = ttt__tensor(c, shape, TTT_DTYPE_REAL, false, share);
    if (!y || !ttt__set_producer(c, y, op, in, n, arg, arg_bytes)) return &c->empty;
    op->forward(c, y);
    if (c->result) return &c->empty;
    if (c->desc.watch_nan && !c->k->finite(y->size, y->data))
        return ttt_fail(c, TTT_ERR_NOT_FINITE, "%s: the result has a NaN or an infinity", op->name);
    if (!c->recording || c->numbers_only) ttt__clear_producer(y);
    return y;
}

ttt_tensor *ttt_apply(ttt_ctx *c, const ttt_op *op, ttt_tensor *const *in, int n, ttt_shape shape,
                      const void *arg, size_t arg_bytes) {
    return ttt__apply(c, op, in, n, shape, arg, arg_bytes, NULL);
}

static ttt_tensor *ttt__apply1(ttt_ctx *c, const ttt_op *op, ttt_tensor *a, ttt_shape s, const void *arg, size_t n) {
    return ttt__apply(c, op, &a, 1, s, arg, n, NULL);
}

ttt_tensor *ttt_detach(ttt_ctx *c, ttt_tensor *a) {
    if (c->result) return &c->empty;
    if (!ttt__alive(c, a)) return ttt_fail(c, TTT_ERR_RELEASED, "detach: not a living tensor of this context; was it released?");
    return ttt__or_empty(c, ttt__tensor(c, a->shape, a->dtype, false, a));
}

// ---- [13] OPS: forward and rule, in pairs --------------------------------------------------------
// FORWARD(name) writes y->data; RULE(name) gives d[j], the gradient of input j, from g, that of y.
#define FORWARD(name) static void ttt__##name##_forward(ttt_ctx *c, ttt_tensor *y)
#define RULE(name) static void ttt__##name##_rule(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d)
#define A (y->in[0])
#define B (y->in[1])

static int64_t ttt__matmul_flops(const ttt_tensor *y);

// The table. Ops stand in the order of the lists; their functions are defined below.
#define X(name, formula, lo, hi, flops)                                                            \
    FORWARD(name);                                                                                 \
    RULE(name);                                                                                    \
    static int64_t ttt__##name##_flops(const ttt_tensor *y) { return flops * y->size; }            \
    static const ttt_op ttt__op_##name = { #name, formula, 1, lo, hi, ttt__##name##_forward,       \
                                           ttt__##name##_rule, NULL, NULL, ttt__##name##_flops };
TTT_UNARY_OPS(X)
#undef X
#define X(name, formula, lo, hi, flops)                                                            \
    FORWARD(name);                                                                                 \
    RULE(name);                                                                                    \
    static int64_t ttt__##name##_flops(const ttt_tensor *y) { return flops * y->size; }            \
    static const ttt_op ttt__op_##name = { #name, formula, 2, lo, hi, ttt__##name##_forward,       \
                                           ttt__##name##_rule, NULL, NULL, ttt__##name##_flops };
TTT_BINARY_OPS(X)
#undef X
#define X(name, n_in, formula, lo, hi, flops, shape0, shape1, example)                             \
    FORWARD(name);                                                                                 \
    RULE(name);                                                                                    \
    static int64_t ttt__count_##name(const ttt_tensor *y) { (void)y; return flops; }               \
    static const ttt_op ttt__op_##name = { #name, formula, n_in, lo, hi, ttt__##name##_forward,    \
                                           ttt__##name##_rule, NULL, NULL, ttt__count_##name };
TTT_OTHER_OPS(X)
#undef X

const ttt_op *ttt_op_table(int i) {
    static const ttt_op *const all[] = {
#define X(name, formula, lo, hi, flops) &ttt__op_##name,
        TTT_UNARY_OPS(X) TTT_BINARY_OPS(X)
#undef X
#define X(name, n_in, formula, lo, hi, flops, shape0, shape1, example) &ttt__op_##name,
        TTT_OTHER_OPS(X)
#undef X
        NULL
    };
    return i >= 0 && i < (int)(sizeof all / sizeof *all) ? all[i] : NULL;
}

// -- one number in, one number out
typedef struct ttt__map_job {
    void (*map)(int64_t n, const ttt_real *a, ttt_real *y, ttt_real scalar);
    const ttt_real *a;
    ttt_real *y, scalar;
} ttt__map_job;

// Threads share units of 64 elements, so that no element changes its lane with their number.
static void ttt__map_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__map_job *j = (const ttt__map_job *)arg;
    (void)thread;
    j->map((end - begin) * 64, j->a + begin * 64, j->y + begin * 64, j->scalar);
}

static void ttt__map(ttt_ctx *c, ttt_tensor *y, int which, ttt_real scalar) {
    ttt__map_job job = { c->k->map[which], A->data, y->data, scalar };
    int64_t units = y->size / 64, rest = y->size % 64;
    ttt__parallel(c, -1, units, 256, ttt__map_share, &job);
    job.map(rest, A->data + units * 64, y->data + units * 64, scalar);
}

#define X(name, formula, lo, hi, flops)                                                            \
    FORWARD(name) { ttt__map(c, y, TTT__MAP_##name, 0); }                                          \
    ttt_tensor *ttt_##name(ttt_ctx *c, ttt_tensor *a) {                                            \
        return ttt__apply1(c, &ttt__op_##name, a, a->shape, NULL, 0);                              \
    }
TTT_UNARY_OPS(X)
#undef X

FORWARD(scale) { ttt__map(c, y, TTT__MAP_scale, *(const ttt_real *)y->arg); }
FORWARD(shift) { ttt__map(c, y, TTT__MAP_shift, *(const ttt_real *)y->arg); }
ttt_tensor *ttt_scale(ttt_ctx *c, ttt_tensor *a, ttt_real s) { return ttt__apply1(c, &ttt__op_scale, a, a->shape, &s, sizeof s); }
ttt_tensor *ttt_shift(ttt_ctx *c, ttt_tensor *a, ttt_real s) { return ttt__apply1(c, &ttt__op_shift, a, a->shape, &s, sizeof s); }

RULE(scale) { d[0] = ttt_scale(c, g, *(const ttt_real *)y->arg); }
RULE(shift) { (void)c; (void)y; d[0] = g; }
RULE(exp) { d[0] = ttt_mul(c, g, y); }
RULE(log) { d[0] = ttt_div(c, g, A); }
RULE(tanh) { d[0] = ttt_sub(c, g, ttt_mul(c, g, ttt_square(c, y))); }                  // g (1 - y^2)
RULE(sigmoid) { d[0] = ttt_mul(c, g, ttt_sub(c, y, ttt_square(c, y))); }               // g y (1 - y)
RULE(erf) {                                                                            // g 2/sqrt(pi) e^-a^2
    d[0] = ttt_mul(c, g, ttt_scale(c, ttt_exp(c, ttt_scale(c, ttt_square(c, A), -1)), (ttt_real)1.1283791670955126));
}
RULE(abs) { d[0] = ttt_mul(c, g, ttt_sign(c, A)); }
RULE(sign) { (void)c; (void)y; (void)g; d[0] = NULL; }
RULE(relu) { d[0] = ttt_mul(c, g, ttt_step(c, A)); }
RULE(step) { (void)c; (void)y; (void)g; d[0] = NULL; }
RULE(square) { d[0] = ttt_scale(c, ttt_mul(c, g, A), 2); }
RULE(sqrt) { d[0] = ttt_scale(c, ttt_div(c, g, y), (ttt_real)0.5); }
RULE(rsqrt) { d[0] = ttt_scale(c, ttt_mul(c, g, ttt_mul(c, y, ttt_square(c, y))), (ttt_real)-0.5); }
RULE(recip) { d[0] = ttt_scale(c, ttt_mul(c, g, ttt_square(c, y)), -1); }
RULE(gelu) { d[0] = ttt_mul(c, g, ttt_gelu_d1(c, A)); }
RULE(gelu_d1) { d[0] = ttt_mul(c, g, ttt_gelu_d2(c, A)); }
// a sigmoid(u), u = k (a + 0.044715 a^3): with p = sigmoid'(u) = s - s^2, q = p' = p (1 - 2 s) and
// r = q' = p (1 - 6 p), the third derivative is
//   3 (q u'^2 + p u'') + a (r u'^3 + 3 q u' u'' + p u''').
RULE(gelu_d2) {
    const ttt_real k = (ttt_real)1.5957691216057308, k3 = (ttt_real)0.42812889763560147;  // u''' = 6 k 0.044715
    ttt_tensor *a2 = ttt_square(c, A);
    ttt_tensor *u = ttt_mul(c, A, ttt_shift(c, ttt_scale(c, a2, k3 / 6), k));
    ttt_tensor *u1 = ttt_shift(c, ttt_scale(c, a2, k3 / 2), k), *u2 = ttt_scale(c, A, k3);
    ttt_tensor *s = ttt_sigmoid(c, u), *p = ttt_sub(c, s, ttt_square(c, s));
    ttt_tensor *q = ttt_mul(c, p, ttt_shift(c, ttt_scale(c, s, -2), 1));
    ttt_tensor *r = ttt_mul(c, p, ttt_shift(c, ttt_scale(c, p, -6), 1));
    ttt_tensor *u1_2 = ttt_square(c, u1);
    ttt_tensor *first = ttt_add(c, ttt_mul(c, q, u1_2), ttt_mul(c, p, u2));
    ttt_tensor *second = ttt_add(c, ttt_mul(c, r, ttt_mul(c, u1, u1_2)),
                                 ttt_add(c, ttt_scale(c, ttt_mul(c, q, ttt_mul(c, u1, u2)), 3), ttt_scale(c, p, k3)));
    d[0] = ttt_mul(c, g, ttt_add(c, ttt_scale(c, first, 3), ttt_mul(c, A, second)));
}
RULE(gelu_erf) { d[0] = ttt_mul(c, g, ttt_gelu_erf_d1(c, A)); }
RULE(gelu_erf_d1) { d[0] = ttt_mul(c, g, ttt_gelu_erf_d2(c, A)); }
RULE(gelu_erf_d2) {  // ((2 - a^2) phi(a))' = (a^3 - 4 a) phi(a)
    ttt_tensor *a2 = ttt_square(c, A), *density = ttt_exp(c, ttt_scale(c, a2, (ttt_real)-0.5));
    ttt_tensor *cubic = ttt_mul(c, A, ttt_shift(c, a2, -4));
    d[0] = ttt_mul(c, g, ttt_scale(c, ttt_mul(c, cubic, density), (ttt_real)0.3989422804014327));
}
RULE(silu) { d[0] = ttt_mul(c, g, ttt_silu_d1(c, A)); }
RULE(silu_d1) { d[0] = ttt_mul(c, g, ttt_silu_d2(c, A)); }
RULE(silu_d2) {  // 3 q + a r, with p, q, r as for gelu_d2
    ttt_tensor *s = ttt_sigmoid(c, A), *p = ttt_sub(c, s, ttt_square(c, s));
    ttt_tensor *q = ttt_mul(c, p, ttt_shift(c, ttt_scale(c, s, -2), 1));
    ttt_tensor *r = ttt_mul(c, p, ttt_shift(c, ttt_scale(c, p, -6), 1));
    d[0] = ttt_mul(c, g, ttt_add(c, ttt_scale(c, q, 3), ttt_mul(c, A, r)));
}

// -- two operands, broadcast
// The common shape of two shapes aligned at the right; false if a size is neither equal nor 1.
static bool ttt__broadcast_shape(ttt_shape a, ttt_shape b, ttt_shape *out) {
    out->rank = TTT__MAX(a.rank, b.rank);
    for (int i = 0; i < TTT_MAX_RANK; i++) out->dim[i] = 0;
    for (int i = 1; i <= out->rank; i++) {
        int64_t m = i <= a.rank ? a.dim[a.rank - i] : 1, n = i <= b.rank ? b.dim[b.rank - i] : 1;
        if (m != n && m != 1 && n != 1) return false;
        out->dim[out->rank - i] = m == 1 ? n : m;
    }
    return true;
}

// Loops over a shape with up to three tensors that have strides of their own in it (0 where one is
// repeated), as few and as long as their strides allow. size[n-1] is the innermost.
typedef struct ttt__loops {
    int n;
    int64_t size[TTT_MAX_RANK], stride[3][TTT_MAX_RANK];
} ttt__loops;

// Strides of a tensor of shape s inside the larger shape `all`.
static void ttt__strides(ttt_shape s, ttt_shape all, int64_t *stride) {
    int64_t step = 1;
    for (int i = 1; i <= all.rank; i++) {
        int64_t size = i <= s.rank ? s.dim[s.rank - i] : 1;
        stride[all.rank - i] = size == 1 ? 0 : step;
        step *= size;
    }
}

// Joins neighbouring loops that all tensors walk through in one go, and drops those of length 1.
static void ttt__loops_join(ttt__loops *l, int tensors) {
    int n = 0;
    for (int i = 0; i < l->n; i++) {
        int64_t size = l->size[i];
        if (size == 1) continue;
        bool join = n > 0;
        for (int t = 0; t < tensors && join; t++) join = l->stride[t][n - 1] == l->stride[t][i] * size;
        if (join) l->size[n - 1] *= size;
        else l->size[n++] = size;
        for (int t = 0; t < tensors; t++) l->stride[t][n - 1] = l->stride[t][i];
    }
    if (n == 0) {
        l->size[n++] = 1;
        for (int t = 0; t < tensors; t++) l->stride[t][0] = 0;
    }
    l->n = n;
}

// Where tensor t stands at iteration `row` of the first n loops.
static int64_t ttt__loops_at(const ttt__loops *l, int n, int t, int64_t row) {
    int64_t at = 0;
    for (int i = n - 1; i >= 0; i--) {
        at += row % l->size[i] * l->stride[t][i];
        row /= l->size[i];
    }
    return at;
}

static int64_t ttt__loops_count(const ttt__loops *l, int n) {
    int64_t rows = 1;
    for (int i = 0; i < n; i++) rows *= l->size[i];
    return rows;
}

typedef struct ttt__zip_job {
    void (*zip)(int64_t n, const ttt_real *a, int a_step, const ttt_real *b, int b_step, ttt_real *y);
    const ttt_real *a, *b;
    ttt_real *y;
    ttt__loops loops;
} ttt__zip_job;

static void ttt__zip_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__zip_job *j = (const ttt__zip_job *)arg;
    const ttt__loops *l = &j->loops;
    int inner = l->n - 1;
    int64_t n = l->size[inner];
    (void)thread;
    for (int64_t row = begin; row < end; row++)
        j->zip(n, j->a + ttt__loops_at(l, inner, 0, row), l->stride[0][inner] != 0,
               j->b + ttt__loops_at(l, inner, 1, row), l->stride[1][inner] != 0, j->y + row * n);
}

static void ttt__zip(ttt_ctx *c, const ttt_real *a, ttt_shape a_shape, const ttt_real *b, ttt_shape b_shape,
                     ttt_tensor *y, int which) {
    ttt__zip_job job = { c->k->zip[which], a, b, y->data, { y->shape.rank, { 0 }, { { 0 } } } };
    ttt__loops *l = &job.loops;
    if (y->size == 0) return;
    memcpy(l->size, y->shape.dim, sizeof l->size);
    ttt__strides(a_shape, y->shape, l->stride[0]);
    ttt__strides(b_shape, y->shape, l->stride[1]);
    ttt__loops_join(l, 2);
    if (l->n == 1 && l->size[0] % 1024 == 0) {  // one long loop: cut it, for the threads
        l->n = 2;
        l->size[1] = 1024;
        l->size[0] /= 1024;
        for (int t = 0; t < 2; t++) {
            l->stride[t][1] = l->stride[t][0];
            l->stride[t][0] *= 1024;
        }
    }
    int64_t rows = ttt__loops_count(l, l->n - 1);
    ttt__parallel(c, -1, rows, 16384 / l->size[l->n - 1] + 1, ttt__zip_share, &job);
}

static ttt_tensor *ttt__binary(ttt_ctx *c, const ttt_op *op, ttt_tensor *a, ttt_tensor *b) {
    ttt_tensor *in[2] = { a, b };
    ttt_shape s;
    if (c->result) return &c->empty;
    if (!ttt__broadcast_shape(a->shape, b->shape, &s)) {
        ttt_text ta, tb;
        return ttt_fail(c, TTT_ERR_SHAPE, "%s: shapes %s and %s cannot be broadcast together", op->name,
                        ttt_shape_text(a->shape, ta), ttt_shape_text(b->shape, tb));
    }
    return ttt_apply(c, op, in, 2, s, NULL, 0);
}

#define X(name, formula, lo, hi, flops)                                                            \
    FORWARD(name) { ttt__zip(c, A->data, A->shape, B->data, B->shape, y, TTT__ZIP_##name); }       \
    ttt_tensor *ttt_##name(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b) {                             \
        return ttt__binary(c, &ttt__op_##name, a, b);                                              \
    }
TTT_BINARY_OPS(X)
#undef X

// The gradient of a repeated operand is the sum over its copies.
static ttt_tensor *ttt__fit(ttt_ctx *c, ttt_tensor *g, const ttt_tensor *to) {
    return ttt_shape_equal(g->shape, to->shape) ? g : ttt_sum_to(c, g, to->shape);
}

RULE(add) {
    if (d[0]) d[0] = ttt__fit(c, g, A);
    if (d[1]) d[1] = ttt__fit(c, g, B);
}
RULE(sub) {
    if (d[0]) d[0] = ttt__fit(c, g, A);
    if (d[1]) d[1] = ttt_scale(c, ttt__fit(c, g, B), -1);
}
RULE(mul) {
    if (d[0]) d[0] = ttt__fit(c, ttt_mul(c, g, B), A);
    if (d[1]) d[1] = ttt__fit(c, ttt_mul(c, g, A), B);
}
RULE(div) {
    ttt_tensor *q = ttt_div(c, g, B);
    if (d[0]) d[0] = ttt__fit(c, q, A);
    if (d[1]) d[1] = ttt_scale(c, ttt__fit(c, ttt_mul(c, q, y), B), -1);
}

// -- sums and repeats: (outer, n, inner) <-> (outer, 1, inner), one group of axes at a time
typedef struct ttt__sum_job {
    const ttt__kernels *k;
    const ttt_real *a;
    ttt_real *y;
    int64_t n, inner;
} ttt__sum_job;

static void ttt__sum_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__sum_job *j = (const ttt__sum_job *)arg;
    (void)thread;
    for (int64_t o = begin; o < end; o++)
        if (j->inner == 1) j->y[o] = (ttt_real)j->k->sum(j->n, j->a + o * j->n);
        else j->k->sum_rows(j->n, j->inner, j->inner, j->a + o * j->n * j->inner, j->y + o * j->inner);
}

// With a single outer row, shares are blocks of 64 columns instead.
static void ttt__sum_share_columns(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__sum_job *j = (const ttt__sum_job *)arg;
    int64_t from = begin * 64, to = TTT__MIN(end * 64, j->inner);
    (void)thread;
    j->k->sum_rows(j->n, to - from, j->inner, j->a + from, j->y + from);
}

static void ttt__sum_middle(ttt_ctx *c, const ttt_real *a, ttt_real *y, int64_t outer, int64_t n, int64_t inner) {
    ttt__sum_job job = { c->k, a, y, n, inner };
    if (outer == 1 && inner > 1) ttt__parallel(c, -1, (inner + 63) / 64, 1 + 16384 / (64 * n), ttt__sum_share_columns, &job);
    else ttt__parallel(c, -1, outer, 1 + 16384 / (n * inner), ttt__sum_share, &job);
}

// Sums a into y (y->shape has 1 where axes are summed): last group of summed axes first, through
// workspace of the scratch arena when several groups are needed.
static void ttt__sum_into(ttt_ctx *c, const ttt_tensor *a, ttt_tensor *y) {
    ttt__loops l = { a->shape.rank, { 0 }, { { 0 } } };
    if (a->size == 0) {
        for (int64_t i = 0; i < y->size; i++) y->data[i] = 0;
        return;
    }
    memcpy(l.size, a->shape.dim, sizeof l.size);
    ttt__strides(y->shape, a->shape, l.stride[0]);
    ttt__strides(a->shape, a->shape, l.stride[1]);
    ttt__loops_join(&l, 2);
    int groups = 0;
    for (int i = 0; i < l.n; i++) groups += l.stride[0][i] == 0 && l.size[i] > 1;
    if (groups == 0) memcpy(y->data, a->data, (size_t)a->size * sizeof *a->data);
    ttt_mark m = ttt__arena_mark(&c->scratch);
    const ttt_real *from = a->data;
    int64_t inner = 1, left = a->size;
    for (int i = l.n - 1; i >= 0; i--) {
        if (l.stride[0][i] == 0 && l.size[i] > 1) {
            left /= l.size[i];
            ttt_real *to = --groups == 0 ? y->data : (ttt_real *)ttt__arena_alloc(c, &c->scratch, (size_t)left * sizeof *to);
            if (!to) return;
            ttt__sum_middle(c, from, to, left / inner, l.size[i], inner);
            from = to;
        } else {
            inner *= l.size[i];
        }
    }
    ttt__arena_release(&c->scratch, m);
}

FORWARD(sum_to) { ttt__sum_into(c, A, y); }
RULE(sum_to) { d[0] = ttt_broadcast(c, g, A->shape); }
ttt_tensor *ttt_sum_to(ttt_ctx *c, ttt_tensor *a, ttt_shape s) {
    ttt_shape all;
    if (c->result) return &c->empty;
    if (!ttt__broadcast_shape(a->shape, s, &all) || !ttt_shape_equal(all, a->shape)) {
        ttt_text ta, ts;
        return ttt_fail(c, TTT_ERR_SHAPE, "sum_to: %s cannot be summed to %s", ttt_shape_text(a->shape, ta), ttt_shape_text(s, ts));
    }
    return ttt__apply1(c, &ttt__op_sum_to, a, s, NULL, 0);
}

// a repeated is a plus a zero that is repeated in every axis.
FORWARD(broadcast) {
    const ttt_real zero = 0;
    ttt__zip(c, A->data, A->shape, &zero, ttt_scalar_shape(), y, TTT__ZIP_add);
}
RULE(broadcast) { d[0] = ttt_sum_to(c, g, A->shape); }
ttt_tensor *ttt_broadcast(ttt_ctx *c, ttt_tensor *a, ttt_shape s) {
    ttt_shape all;
    if (c->result) return &c->empty;
    if (!ttt__broadcast_shape(a->shape, s, &all) || !ttt_shape_equal(all, s)) {
        ttt_text ta, ts;
        return ttt_fail(c, TTT_ERR_SHAPE, "broadcast: %s cannot be repeated to %s", ttt_shape_text(a->shape, ta), ttt_shape_text(s, ts));
    }
    return ttt__apply1(c, &ttt__op_broadcast, a, s, NULL, 0);
}

// An axis counted from either end; -1 after an error.
static int ttt__axis(ttt_ctx *c, const char *op, const ttt_tensor *a, int axis) {
    int i = axis < 0 ? axis + a->shape.rank : axis;
    if (!c->result && (i < 0 || i >= a->shape.rank)) {
        ttt_text t;
        ttt_fail(c, TTT_ERR_ARGUMENT, "%s: axis %d of a tensor of shape %s", op, axis, ttt_shape_text(a->shape, t));
    }
    return c->result ? -1 : i;
}

ttt_tensor *ttt_sum(ttt_ctx *c, ttt_tensor *a) { return ttt_sum_to(c, a, ttt_scalar_shape()); }
ttt_tensor *ttt_mean(ttt_ctx *c, ttt_tensor *a) { return ttt_scale(c, ttt_sum(c, a), 1 / (ttt_real)TTT__MAX(a->size, 1)); }
ttt_tensor *ttt_sum_axis(ttt_ctx *c, ttt_tensor *a, int axis) {
    int i = ttt__axis(c, "sum_axis", a, axis);
    ttt_shape s = a->shape;
    if (i >= 0) s.dim[i] = 1;
    return ttt_sum_to(c, a, s);
}
ttt_tensor *ttt_mean_axis(ttt_ctx *c, ttt_tensor *a, int axis) {
    int i = ttt__axis(c, "mean_axis", a, axis);
    return ttt_scale(c, ttt_sum_axis(c, a, axis), 1 / (ttt_real)(i >= 0 ? TTT__MAX(a->shape.dim[i], 1) : 1));
}
ttt_tensor *ttt_mse(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b) { return ttt_mean(c, ttt_square(c, ttt_sub(c, a, b))); }

// -- moving elements about
FORWARD(reshape) { (void)c; (void)y; }  // the data is shared
RULE(reshape) { d[0] = ttt_reshape(c, g, A->shape); }
ttt_tensor *ttt_reshape(ttt_ctx *c, ttt_tensor *a, ttt_shape s) {
    if (c->result) return &c->empty;
    if (ttt_shape_size(s) != a->size) {
        ttt_text ta, ts;
        return ttt_fail(c, TTT_ERR_SHAPE, "reshape: %s has %lld elements, %s has %lld", ttt_shape_text(a->shape, ta),
                        (long long)a->size, ttt_shape_text(s, ts), (long long)ttt_shape_size(s));
    }
    return ttt__apply(c, &ttt__op_reshape, &a, 1, s, NULL, 0, a);
}

typedef struct ttt__permute_job {
    const ttt__kernels *k;
    const ttt_real *a;
    ttt_real *y;
    ttt__loops loops;  // over y; stride 0: of a, 1: of y. Where rows do not stay whole, the innermost
                       // two loops are the axes that follow each other in a and in y.
    bool whole_rows;
} ttt__permute_job;

static void ttt__permute_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__permute_job *j = (const ttt__permute_job *)arg;
    const ttt__loops *l = &j->loops;
    int outer = l->n - (j->whole_rows ? 1 : 2);
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const ttt_real *a = j->a + ttt__loops_at(l, outer, 0, i);
        ttt_real *y = j->y + ttt__loops_at(l, outer, 1, i);
        if (j->whole_rows) memcpy(y, a, (size_t)l->size[outer] * sizeof *y);
        else j->k->transpose(l->size[outer + 1], l->size[outer], a, l->stride[0][outer + 1], y, l->stride[1][outer]);
    }
}

static void ttt__loops_swap(ttt__loops *l, int i, int j) {
    int64_t size = l->size[i], a = l->stride[0][i], y = l->stride[1][i];
    l->size[i] = l->size[j];
    l->stride[0][i] = l->stride[0][j];
    l->stride[1][i] = l->stride[1][j];
    l->size[j] = size;
    l->stride[0][j] = a;
    l->stride[1][j] = y;
}

FORWARD(permute) {
    const int *order = (const int *)y->arg;
    ttt__permute_job job = { c->k, A->data, y->data, { y->shape.rank, { 0 }, { { 0 } } }, true };
    ttt__loops *l = &job.loops;
    int64_t a_stride[TTT_MAX_RANK];
    if (y->size == 0) return;
    ttt__strides(A->shape, A->shape, a_stride);
    memcpy(l->size, y->shape.dim, sizeof l->size);
    for (int i = 0; i < l->n; i++) l->stride[0][i] = a_stride[order[i]];
    ttt__strides(y->shape, y->shape, l->stride[1]);
    ttt__loops_join(l, 2);
    int last = l->n - 1;
    if (l->stride[0][last] > 1) {  // bring the axis that is last in a next to the one that is last in y
        job.whole_rows = false;
        for (int i = 0; i < last; i++)
            if (l->stride[0][i] == 1) ttt__loops_swap(l, i, last - 1);
    }
    int64_t rows = ttt__loops_count(l, l->n - (job.whole_rows ? 1 : 2));
    ttt__parallel(c, -1, rows, 1 + 16384 * rows / y->size, ttt__permute_share, &job);
}
RULE(permute) {
    const int *order = (const int *)y->arg;
    int back[TTT_MAX_RANK];
    for (int i = 0; i < y->shape.rank; i++) back[order[i]] = i;
    d[0] = ttt_permute(c, g, back);
}
ttt_tensor *ttt_permute(ttt_ctx *c, ttt_tensor *a, const int *order) {
    ttt_shape s = a->shape;
    int seen = 0;
    if (c->result) return &c->empty;
    for (int i = 0; i < s.rank; i++) {
        if (order[i] < 0 || order[i] >= s.rank || (seen >> order[i] & 1))
            return ttt_fail(c, TTT_ERR_ARGUMENT, "permute: order[%d] is %d; each axis 0..%d must stand once", i, order[i], s.rank - 1);
        seen |= 1 << order[i];
        s.dim[i] = a->shape.dim[order[i]];
    }
    return ttt__apply1(c, &ttt__op_permute, a, s, order, (size_t)s.rank * sizeof *order);
}
ttt_tensor *ttt_transpose(ttt_ctx *c, ttt_tensor *a) {
    int order[TTT_MAX_RANK] = { 0, 1, 2, 3, 4, 5, 6, 7 }, r = a->shape.rank;
    if (!c->result && r < 2) return ttt_fail(c, TTT_ERR_SHAPE, "transpose: a tensor of rank %d has no two last axes", r);
    if (!c->result) {
        order[r - 2] = r - 1;
        order[r - 1] = r - 2;
    }
    return ttt_permute(c, a, order);
}

// Copies `count` places of an axis: (outer, a_length, inner) from a_begin to (outer, y_length, inner)
// at y_begin.
typedef struct ttt__span {
    int axis;
    int64_t begin, length;
} ttt__span;
static void ttt__copy_span(const ttt_tensor *a, int64_t a_begin, ttt_tensor *y, int64_t y_begin, int axis, int64_t count) {
    int64_t outer = 1, inner = 1, a_length = a->shape.dim[axis], y_length = y->shape.dim[axis];
    for (int i = 0; i < axis; i++) outer *= a->shape.dim[i];
    for (int i = axis + 1; i < a->shape.rank; i++) inner *= a->shape.dim[i];
    for (int64_t o = 0; o < outer && count * inner > 0; o++)
        memcpy(y->data + (o * y_length + y_begin) * inner, a->data + (o * a_length + a_begin) * inner,
               (size_t)(count * inner) * sizeof *y->data);
}

FORWARD(slice) {
    const ttt__span *s = (const ttt__span *)y->arg;
    (void)c;
    ttt__copy_span(A, s->begin, y, 0, s->axis, s->length);
}
RULE(slice) {
    const ttt__span *s = (const ttt__span *)y->arg;
    d[0] = ttt_place(c, g, s->axis, s->begin, A->shape.dim[s->axis]);
}
ttt_tensor *ttt_slice(ttt_ctx *c, ttt_tensor *a, int axis, int64_t begin, int64_t count) {
    ttt__span span = { ttt__axis(c, "slice", a, axis), begin, count };
    ttt_shape s = a->shape;
    if (span.axis < 0) return &c->empty;
    if (begin < 0 || count < 0 || begin > s.dim[span.axis] - count) {
        ttt_text t;
        return ttt_fail(c, TTT_ERR_ARGUMENT, "slice: %lld places from %lld on do not lie in axis %d of %s", (long long)count,
                        (long long)begin, axis, ttt_shape_text(s, t));
    }
    s.dim[span.axis] = count;
    return ttt__apply1(c, &ttt__op_slice, a, s, &span, sizeof span);
}

FORWARD(place) {
    const ttt__span *s = (const ttt__span *)y->arg;
    (void)c;
    memset(y->data, 0, (size_t)y->size * sizeof *y->data);
    ttt__copy_span(A, 0, y, s->begin, s->axis, A->shape.dim[s->axis]);
}
RULE(place) {
    const ttt__span *s = (const ttt__span *)y->arg;
    d[0] = ttt_slice(c, g, s->axis, s->begin, A->shape.dim[s->axis]);
}
ttt_tensor *ttt_place(ttt_ctx *c, ttt_tensor *a, int axis, int64_t begin, int64_t length) {
    ttt__span span = { ttt__axis(c, "place", a, axis), begin, length };
    ttt_shape s = a->shape;
    if (span.axis < 0) return &c->empty;
    if (begin < 0 || begin > length - s.dim[span.axis]) {
        ttt_text t;
        return ttt_fail(c, TTT_ERR_ARGUMENT, "place: axis %d of %s does not fit at %lld into %lld places", axis,
                        ttt_shape_text(s, t), (long long)begin, (long long)length);
    }
    s.dim[span.axis] = length;
    return ttt__apply1(c, &ttt__op_place, a, s, &span, sizeof span);
}

FORWARD(concat) {
    const ttt__span *s = (const ttt__span *)y->arg;
    int64_t at = 0;
    (void)c;
    for (int i = 0; i < y->n_in; i++) {
        ttt__copy_span(y->in[i], 0, y, at, s->axis, y->in[i]->shape.dim[s->axis]);
        at += y->in[i]->shape.dim[s->axis];
    }
}
RULE(concat) {
    const ttt__span *s = (const ttt__span *)y->arg;
    int64_t at = 0;
    for (int i = 0; i < y->n_in; i++) {
        int64_t count = y->in[i]->shape.dim[s->axis];
        if (d[i]) d[i] = ttt_slice(c, g, s->axis, at, count);
        at += count;
    }
}
ttt_tensor *ttt_concat(ttt_ctx *c, ttt_tensor *const *a, int n, int axis) {
    if (c->result) return &c->empty;
    if (n < 1) return ttt_fail(c, TTT_ERR_ARGUMENT, "concat: %d tensors given, at least one expected", n);
    ttt__span span = { ttt__axis(c, "concat", a[0], axis), 0, 0 };
    if (span.axis < 0) return &c->empty;
    ttt_shape s = a[0]->shape;
    for (int i = 0; i < n; i++) {
        ttt_shape one = a[i]->shape;
        span.length += one.rank > span.axis ? one.dim[span.axis] : 0;
        one.dim[span.axis] = s.dim[span.axis];
        if (!ttt_shape_equal(one, s)) {
            ttt_text t0, ti;
            return ttt_fail(c, TTT_ERR_SHAPE, "concat: %s and %s differ in more than axis %d", ttt_shape_text(s, t0),
                            ttt_shape_text(a[i]->shape, ti), axis);
        }
    }
    s.dim[span.axis] = span.length;
    return ttt_apply(c, &ttt__op_concat, a, n, s, &span, sizeof span);
}

// Rows by number. lead: the leading sizes that a, index and y share after broadcasting.
static ttt_shape ttt__lead(ttt_shape s, int last) {
    s.rank -= last;
    for (int i = TTT__MAX(s.rank, 0); i < TTT_MAX_RANK; i++) s.dim[i] = 0;
    return s;
}
typedef struct ttt__rows {
    ttt__loops lead;  // strides: 0 of a, 1 of index, in units of one whole (N,D) and (n)
    int64_t count;
} ttt__rows;
static ttt__rows ttt__rows_of(const ttt_tensor *a, const ttt_tensor *index) {
    ttt__rows r = { { 0, { 0 }, { { 0 } } }, 0 };
    ttt_shape la = ttt__lead(a->shape, 2), li = ttt__lead(index->shape, 1), all;
    ttt__broadcast_shape(la, li, &all);
    r.lead.n = all.rank;
    memcpy(r.lead.size, all.dim, sizeof all.dim);
    ttt__strides(la, all, r.lead.stride[0]);
    ttt__strides(li, all, r.lead.stride[1]);
    r.count = ttt__loops_count(&r.lead, r.lead.n);
    return r;
}

FORWARD(gather) {
    ttt__rows r = ttt__rows_of(A, B);
    int64_t D = y->shape.dim[y->shape.rank - 1], N = A->shape.dim[A->shape.rank - 2], n = B->shape.dim[B->shape.rank - 1];
    (void)c;
    for (int64_t l = 0; l < r.count; l++) {
        const ttt_real *a = A->data + ttt__loops_at(&r.lead, r.lead.n, 0, l) * N * D;
        const int64_t *index = B->index + ttt__loops_at(&r.lead, r.lead.n, 1, l) * n;
        for (int64_t i = 0; i < n; i++) memcpy(y->data + (l * n + i) * D, a + index[i] * D, (size_t)D * sizeof *a);
    }
}
RULE(gather) {
    if (d[0]) d[0] = ttt__fit(c, ttt_scatter(c, g, B, A->shape.dim[A->shape.rank - 2]), A);
    d[1] = NULL;
}
FORWARD(scatter) {
    ttt__rows r = ttt__rows_of(A, B);
    int64_t D = y->shape.dim[y->shape.rank - 1], N = y->shape.dim[y->shape.rank - 2], n = B->shape.dim[B->shape.rank - 1];
    memset(y->data, 0, (size_t)y->size * sizeof *y->data);
    for (int64_t l = 0; l < r.count; l++) {
        const ttt_real *a = A->data + ttt__loops_at(&r.lead, r.lead.n, 0, l) * n * D;
        const int64_t *index = B->index + ttt__loops_at(&r.lead, r.lead.n, 1, l) * n;
        for (int64_t i = 0; i < n; i++) {
            ttt_real *row = y->data + (l * N + index[i]) * D;
            c->k->zip[TTT__ZIP_add](D, row, 1, a + i * D, 1, row);
        }
    }
}
RULE(scatter) {
    if (d[0]) d[0] = ttt__fit(c, ttt_gather(c, g, B), A);
    d[1] = NULL;
}

// Checks what gather and scatter share; s becomes the common leading shape.
static bool ttt__rows_good(ttt_ctx *c, const char *op, const ttt_tensor *a, const ttt_tensor *index, int64_t N, ttt_shape *s) {
    ttt_text ta, ti;
    if (c->result) return false;
    if (a->shape.rank < 2 || index->shape.rank < 1 || index->dtype != TTT_DTYPE_INT ||
        !ttt__broadcast_shape(ttt__lead(a->shape, 2), ttt__lead(index->shape, 1), s)) {
        ttt_fail(c, TTT_ERR_SHAPE, "%s: rows of %s by an index of shape %s (integers, (...,n), expected)", op,
                 ttt_shape_text(a->shape, ta), ttt_shape_text(index->shape, ti));
        return false;
    }
    for (int64_t i = 0; i < index->size; i++)
        if (index->index[i] < 0 || index->index[i] >= N) {
            ttt_fail(c, TTT_ERR_ARGUMENT, "%s: index %lld at place %lld, but rows are 0..%lld", op,
                     (long long)index->index[i], (long long)i, (long long)(N - 1));
            return false;
        }
    s->dim[s->rank] = s->dim[s->rank + 1] = 0;
    s->rank += 2;
    s->dim[s->rank - 1] = a->shape.dim[a->shape.rank - 1];
    return true;
}
ttt_tensor *ttt_gather(ttt_ctx *c, ttt_tensor *a, ttt_tensor *index) {
    ttt_tensor *in[2] = { a, index };
    ttt_shape s;
    if (!ttt__rows_good(c, "gather", a, index, a->shape.rank < 2 ? 0 : a->shape.dim[a->shape.rank - 2], &s)) return &c->empty;
    s.dim[s.rank - 2] = index->shape.dim[index->shape.rank - 1];
    return ttt_apply(c, &ttt__op_gather, in, 2, s, NULL, 0);
}
ttt_tensor *ttt_scatter(ttt_ctx *c, ttt_tensor *a, ttt_tensor *index, int64_t N) {
    ttt_tensor *in[2] = { a, index };
    ttt_shape s;
    if (!ttt__rows_good(c, "scatter", a, index, N, &s)) return &c->empty;
    if (a->shape.dim[a->shape.rank - 2] != index->shape.dim[index->shape.rank - 1])
        return ttt_fail(c, TTT_ERR_SHAPE, "scatter: %lld rows, but %lld numbers of rows", (long long)a->shape.dim[a->shape.rank - 2],
                        (long long)index->shape.dim[index->shape.rank - 1]);
    s.dim[s.rank - 2] = N;
    return ttt_apply(c, &ttt__op_scatter, in, 2, s, NULL, 0);
}

// -- along the last axis
typedef struct ttt__norm {
    double eps;
    bool centred;
} ttt__norm;
typedef struct ttt__row_job {
    ttt_tensor *y;
    const ttt__kernels *k;
    void (*row)(const struct ttt__row_job *j, const ttt_real *a, const ttt_real *b, ttt_real *y, int64_t D);
} ttt__row_job;

// Runs j->row for every row of the first input, of length D.
static void ttt__rows_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__row_job *j = (const ttt__row_job *)arg;
    const ttt_tensor *y = j->y;
    int64_t D = A->shape.dim[A->shape.rank - 1], width = y->shape.dim[y->shape.rank - 1];
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        j->row(j, A->data + i * D, y->n_in > 1 ? B->data + i * D : NULL, y->data + i * width, D);
}
static void ttt__each_row(ttt_ctx *c, ttt_tensor *y, void (*row)(const ttt__row_job *, const ttt_real *, const ttt_real *, ttt_real *, int64_t)) {
    ttt__row_job job = { y, c->k, row };
    int64_t D = A->shape.dim[A->shape.rank - 1];
    if (A->size > 0) ttt__parallel(c, -1, A->size / D, 1 + 4096 / D, ttt__rows_share, &job);
}
static ttt_tensor *ttt__row_op(ttt_ctx *c, const ttt_op *op, ttt_tensor *const *in, int n, ttt_shape s, const void *arg, size_t bytes) {
    if (!c->result && (in[0]->shape.rank < 1 || (n > 1 && !ttt_shape_equal(in[0]->shape, in[1]->shape)))) {
        ttt_text t0, t1;
        return ttt_fail(c, TTT_ERR_SHAPE, "%s: shapes %s and %s; rank 1 or more, and equal shapes, expected", op->name,
                        ttt_shape_text(in[0]->shape, t0), ttt_shape_text(in[n - 1]->shape, t1));
    }
    return ttt_apply(c, op, in, n, s, arg, bytes);
}
#define ROW(name) static void ttt__##name##_row(const ttt__row_job *j, const ttt_real *a, const ttt_real *b, ttt_real *y, int64_t D)

ROW(softmax) { (void)b; j->k->softmax(D, a, y); }
FORWARD(softmax) { ttt__each_row(c, y, ttt__softmax_row); }
RULE(softmax) {  // y (g - sum g y)
    ttt_tensor *gy = ttt_mul(c, g, y);
    d[0] = ttt_sub(c, gy, ttt_mul(c, y, ttt_sum_axis(c, gy, -1)));
}
ttt_tensor *ttt_softmax(ttt_ctx *c, ttt_tensor *a) { return ttt__row_op(c, &ttt__op_softmax, &a, 1, a->shape, NULL, 0); }

ROW(log_softmax) { (void)b; j->k->log_softmax(D, a, y); }
FORWARD(log_softmax) { ttt__each_row(c, y, ttt__log_softmax_row); }
RULE(log_softmax) { d[0] = ttt_sub(c, g, ttt_mul(c, ttt_exp(c, y), ttt_sum_axis(c, g, -1))); }
ttt_tensor *ttt_log_softmax(ttt_ctx *c, ttt_tensor *a) { return ttt__row_op(c, &ttt__op_log_softmax, &a, 1, a->shape, NULL, 0); }

#define NORM ((const ttt__norm *)j->y->arg)
ROW(normalize) { (void)b; j->k->normalize(D, a, y, NORM->eps, NORM->centred); }
FORWARD(normalize) { ttt__each_row(c, y, ttt__normalize_row); }
RULE(normalize) {
    const ttt__norm *n = (const ttt__norm *)y->arg;
    d[0] = ttt_normalize_d1(c, A, g, (ttt_real)n->eps, n->centred);
}
ttt_tensor *ttt_normalize(ttt_ctx *c, ttt_tensor *a, ttt_real eps, bool centred) {
    ttt__norm n = { (double)eps, centred };
    return ttt__row_op(c, &ttt__op_normalize, &a, 1, a->shape, &n, sizeof n);
}

// With x = x^(a), r = rstd(a), D the length of a row, J v = normalize_d1(a, v), all sums over a row:
//   <u, J g> = r (sum u g - (sum u)(sum g)/D - (sum u x)(sum g x)/D),  J symmetric,
//   d r = -r^2 x/D . da,  d x = J da,  hence the gradient in a of <u, J g>:
//   -r/D ( x <u, J g> + (sum g x) J u + (sum u x) J g ).
// The middle product of the first line is there only if the norm is centred; J knows.
ROW(normalize_d1) { j->k->normalize_d1(D, a, b, y, NORM->eps, NORM->centred); }
FORWARD(normalize_d1) { ttt__each_row(c, y, ttt__normalize_d1_row); }
RULE(normalize_d1) {
    const ttt__norm *n = (const ttt__norm *)y->arg;
    ttt_real eps = (ttt_real)n->eps;
    ttt_tensor *u = g, *Ju = ttt_normalize_d1(c, A, u, eps, n->centred);
    if (d[0]) {
        ttt_tensor *x = ttt_normalize(c, A, eps, n->centred), *r = ttt_rstd(c, A, eps, n->centred);
        ttt_tensor *inner = ttt_sum_axis(c, ttt_mul(c, u, y), -1);
        ttt_tensor *gx = ttt_sum_axis(c, ttt_mul(c, B, x), -1), *ux = ttt_sum_axis(c, ttt_mul(c, u, x), -1);
        ttt_tensor *sum = ttt_add(c, ttt_mul(c, x, inner), ttt_add(c, ttt_mul(c, Ju, gx), ttt_mul(c, y, ux)));
        d[0] = ttt_mul(c, sum, ttt_scale(c, r, -1 / (ttt_real)A->shape.dim[A->shape.rank - 1]));
    }
    if (d[1]) d[1] = Ju;
}
ttt_tensor *ttt_normalize_d1(ttt_ctx *c, ttt_tensor *a, ttt_tensor *g, ttt_real eps, bool centred) {
    ttt__norm n = { (double)eps, centred };
    ttt_tensor *in[2] = { a, g };
    return ttt__row_op(c, &ttt__op_normalize_d1, in, 2, a->shape, &n, sizeof n);
}

ROW(rstd) {
    ttt_real mean;
    (void)b;
    j->k->moments(D, a, NORM->eps, NORM->centred, &mean, y);
}
FORWARD(rstd) { ttt__each_row(c, y, ttt__rstd_row); }
RULE(rstd) {  // -g r^2 x / D
    const ttt__norm *n = (const ttt__norm *)y->arg;
    ttt_tensor *x = ttt_normalize(c, A, (ttt_real)n->eps, n->centred);
    ttt_tensor *gr2 = ttt_scale(c, ttt_mul(c, g, ttt_square(c, y)), -1 / (ttt_real)A->shape.dim[A->shape.rank - 1]);
    d[0] = ttt_mul(c, x, gr2);
}
ttt_tensor *ttt_rstd(ttt_ctx *c, ttt_tensor *a, ttt_real eps, bool centred) {
    ttt__norm n = { (double)eps, centred };
    ttt_shape s = a->shape;
    if (s.rank > 0) s.dim[s.rank - 1] = 1;
    return ttt__row_op(c, &ttt__op_rstd, &a, 1, s, &n, sizeof n);
}
#undef NORM
#undef ROW

// ---- [14] MATRIX PRODUCT -------------------------------------------------------------------------
// One product C = init + A B of M x K by K x N numbers. A and B come with a stride for each index, so
// a transposed operand is just one with its strides exchanged. The work is cut three times:
//   - into blocks of at most 512 terms of the sum (KC): 6 rows of A of that length (12 kB) stay in the
//     first-level cache while a tile uses them, and a panel of B of that length (128 kB at 64 columns)
//     in the second;
//   - into panels of 4 vectors of columns (NR; 64 with AVX-512) by blocks of 192 rows (MC);
//   - into tiles of 6 rows (MR) by one panel, whose sums live in registers: see `tile` in [9].
// A is read in place. B is read in place too, if its rows are contiguous: copying it costs more than
// it saves. It is copied ("packed") panel by panel where it is transposed, where the last panel is not
// a whole number of vectors wide (then padded with zeros), and where many rows share it and it is
// either large or strided by a multiple of 4096 bytes (its rows would all fall in the same cache sets).
typedef struct ttt__gemm {
    int64_t m, n, k;
    const ttt_real *a;
    int64_t a_row, a_col;
    const ttt_real *b;
    int64_t b_row, b_col;  // one of them is 1
    const ttt_real *init;  // NULL: zero
    int64_t init_row;      // 0: the same row for all
    ttt_real *c;
    int64_t c_row;
} ttt__gemm;

#define TTT__KC ((int64_t)512)
#define TTT__MC ((int64_t)192)
#define TTT__NC ((int64_t)1536)
#define TTT__NR_MAX 64
#define TTT__PACK_REALS ((size_t)(TTT__KC + TTT__TILE_ROWS) * (TTT__NC + TTT__NR_MAX))

// b (k,n) with its columns padded to `width`, rows one behind the other.
static void ttt__pack(const ttt__kernels *kern, const ttt_real *b, int64_t b_row, int64_t b_col, int64_t k,
                      int64_t n, int64_t width, ttt_real *to) {
    if (b_col == 1)
        for (int64_t i = 0; i < k; i++) memcpy(to + i * width, b + i * b_row, (size_t)n * sizeof *b);
    else kern->transpose(n, k, b, b_col, to, width);
    for (int64_t i = 0; i < k && n < width; i++)
        for (int64_t j = n; j < width; j++) to[i * width + j] = 0;
}

// A block of rows times one panel of `width` columns, tile by tile; rows are spread evenly over tiles.
// If only `n` of the columns exist, each tile goes through `edge`, which has room for a whole one.
static void ttt__panel(const ttt__kernels *kern, const ttt__gemm *g, int64_t m, int64_t n, int64_t width, ttt_real *edge) {
    int64_t tiles = (m + TTT__TILE_ROWS - 1) / TTT__TILE_ROWS;
    ttt__tile_fn *const *tile = kern->tile[width / kern->lanes - 1];
    for (int64_t t = 0, i = 0; t < tiles; t++) {
        int64_t rows = m / tiles + (t < m % tiles);
        const ttt_real *init = g->init ? g->init + i * g->init_row : NULL;
        ttt_real *c = g->c + i * g->c_row;
        if (n == width) {
            tile[rows - 1](g->k, g->a + i * g->a_row, g->a_row, g->a_col, g->b, g->b_row, init, g->init_row, c, g->c_row);
        } else {
            tile[rows - 1](g->k, g->a + i * g->a_row, g->a_row, g->a_col, g->b, g->b_row, NULL, 0, edge, width);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t j = 0; j < n; j++) c[r * g->c_row + j] = edge[r * width + j] + (init ? init[r * g->init_row + j] : 0);
        }
        i += rows;
    }
}

// A block of at most KC terms: all panels of at most NC columns, all rows.
static void ttt__gemm_block(const ttt__kernels *kern, const ttt__gemm *g, bool pack, ttt_real *workspace) {
    int64_t lanes = kern->lanes, panel = lanes * kern->tile_cols;
    ttt_real *edge = workspace + (size_t)TTT__KC * (TTT__NC + TTT__NR_MAX);
    for (int64_t i = 0; i < g->m; i += TTT__MC) {
        int64_t m = TTT__MIN(TTT__MC, g->m - i);
        for (int64_t j = 0; j < g->n; j += panel) {
            int64_t n = TTT__MIN(panel, g->n - j), width = (n + lanes - 1) / lanes * lanes;
            ttt__gemm p = *g;
            p.a += i * g->a_row;
            p.b += j * g->b_col;
            p.c += i * g->c_row + j;
            if (p.init) p.init += i * g->init_row + j;
            if (pack || n < width) {
                ttt_real *packed = workspace + j * g->k;
                if (i == 0) ttt__pack(kern, p.b, g->b_row, g->b_col, g->k, n, width, packed);
                p.b = packed;
                p.b_row = width;
            }
            ttt__panel(kern, &p, m, n, width, edge);
        }
    }
}

static void ttt__gemm_run(const ttt__kernels *kern, const ttt__gemm *g, ttt_real *workspace) {
    bool aligned = g->b_row * (int64_t)sizeof(ttt_real) % 4096 == 0;
    bool pack = g->b_col != 1 || (g->m >= 96 && (aligned || g->k * g->n > 1 << 20));
    int64_t blocks = TTT__MAX(1, (g->k + TTT__KC - 1) / TTT__KC);
    for (int64_t j = 0; j < g->n; j += TTT__NC)
        for (int64_t b = 0; b < blocks; b++) {
            int64_t from = g->k * b / blocks, to = g->k * (b + 1) / blocks;
            ttt__gemm p = *g;
            p.n = TTT__MIN(TTT__NC, g->n - j);
            p.k = to - from;
            p.a += from * g->a_col;
            p.b += from * g->b_row + j * g->b_col;
            p.c += j;
            if (p.init) p.init += j;
            if (b > 0) {  // go on from what the block before left
                p.init = p.c;
                p.init_row = p.c_row;
            }
            ttt__gemm_block(kern, &p, pack, workspace);
        }
}

// -- batches of products
// Every iteration of `kept` is one product of the result; each is the sum over the iterations of
// `summed`. Strides: 0 of a, 1 of b, 2 of the bias, in elements; results lie one behind the other.
typedef struct ttt__product {
    ttt_ctx *c;
    ttt__gemm one;
    ttt__loops kept, summed;
    int64_t row_blocks, n_summed;
} ttt__product;

static void ttt__product_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__product *p = (const ttt__product *)arg;
    for (int64_t t = begin; t < end; t++) {
        int64_t which = t / p->row_blocks, block = t % p->row_blocks;
        int64_t from = p->one.m * block / p->row_blocks, to = p->one.m * (block + 1) / p->row_blocks;
        for (int64_t s = 0; s < p->n_summed; s++) {
            ttt__gemm g = p->one;
            g.m = to - from;
            g.a += ttt__loops_at(&p->kept, p->kept.n, 0, which) + ttt__loops_at(&p->summed, p->summed.n, 0, s) + from * g.a_row;
            g.b += ttt__loops_at(&p->kept, p->kept.n, 1, which) + ttt__loops_at(&p->summed, p->summed.n, 1, s);
            g.c += which * p->one.m * g.c_row + from * g.c_row;
            if (s > 0) {
                g.init = g.c;
                g.init_row = g.c_row;
            } else if (g.init == p->one.c) {
                g.init = g.c;
            } else if (g.init) {
                g.init += ttt__loops_at(&p->kept, p->kept.n, 2, which);
            }
            ttt__gemm_run(p->c->k, &g, p->c->pack[thread]);
        }
    }
}

// Leading sizes of a, b, bias and y become loops. Those that y lacks are summed over.
static void ttt__product_loops(ttt__product *p, const ttt_tensor *a, const ttt_tensor *b, const ttt_tensor *bias, ttt_shape y) {
    ttt_shape la = ttt__lead(a->shape, 2), lb = ttt__lead(b->shape, 2), ly = ttt__lead(y, 2), all;
    int64_t sa[TTT_MAX_RANK], sb[TTT_MAX_RANK], sc[TTT_MAX_RANK] = { 0 }, sy[TTT_MAX_RANK];
    int64_t a_size = a->shape.dim[la.rank] * a->shape.dim[la.rank + 1], b_size = b->shape.dim[lb.rank] * b->shape.dim[lb.rank + 1];
    ttt__broadcast_shape(la, lb, &all);
    ttt__strides(la, all, sa);
    ttt__strides(lb, all, sb);
    ttt__strides(ly, all, sy);
    if (bias) ttt__strides(ttt__lead(bias->shape, TTT__MIN(2, bias->shape.rank)), all, sc);
    for (int i = 0; i < all.rank; i++) {
        ttt__loops *l = sy[i] == 0 && all.dim[i] > 1 ? &p->summed : &p->kept;
        l->size[l->n] = all.dim[i];
        l->stride[0][l->n] = sa[i] * a_size;
        l->stride[1][l->n] = sb[i] * b_size;
        l->stride[2][l->n++] = sc[i] * y.dim[y.rank - 1];
    }
    ttt__loops_join(&p->kept, 3);
    ttt__loops_join(&p->summed, 3);
}

// Many products that are really one: rows of a that all meet the same b are one taller a; sums over
// products whose rows follow each other are one longer sum.
static void ttt__product_merge(ttt__product *p) {
    ttt__gemm *g = &p->one;
    ttt__loops *k = &p->kept, *s = &p->summed;
    bool no_sum = s->n == 1 && s->size[0] == 1;
    if (no_sum && k->n == 1 && k->stride[1][0] == 0 && k->stride[2][0] == 0 && g->a_col == 1 && k->stride[0][0] == g->m * g->a_row) {
        g->m *= k->size[0];
        k->size[0] = 1;
    }
    if (s->n == 1 && s->stride[0][0] == g->k * g->a_col && s->stride[1][0] == g->k * g->b_row && g->b_col == 1) {
        g->k *= s->size[0];
        s->size[0] = 1;
    }
}

// y = init + op(a) op(b) for whole tensors; init: NULL (zero), a bias tensor, or y itself (add to it).
static void ttt__product_run(ttt_ctx *c, const ttt_tensor *a, const ttt_tensor *b, bool ta, bool tb,
                             const ttt_tensor *init, ttt_tensor *y) {
    int ra = a->shape.rank, rb = b->shape.rank;
    int64_t a0 = a->shape.dim[ra - 2], a1 = a->shape.dim[ra - 1], b0 = b->shape.dim[rb - 2], b1 = b->shape.dim[rb - 1];
    ttt__product p;
    if (y->size == 0) return;
    memset(&p, 0, sizeof p);
    ttt__gemm one = { ta ? a1 : a0, tb ? b0 : b1, ta ? a0 : a1, a->data, ta ? 1 : a1, ta ? a1 : 1,
                      b->data, tb ? 1 : b1, tb ? b1 : 1, init ? init->data : NULL, 0, y->data, tb ? b0 : b1 };
    p.c = c;
    p.one = one;
    if (init == y) p.one.init_row = p.one.c_row;
    ttt__product_loops(&p, a, b, init == y ? NULL : init, y->shape);
    ttt__product_merge(&p);
    int64_t kept = ttt__loops_count(&p.kept, p.kept.n), m = p.one.m;
    p.n_summed = ttt__loops_count(&p.summed, p.summed.n);
    p.row_blocks = kept >= 4 * c->threads ? 1 : TTT__MIN(c->threads, (m + TTT__TILE_ROWS - 1) / TTT__TILE_ROWS);
    int64_t work = m * p.one.n * p.one.k * p.n_summed / p.row_blocks + 1;
    ttt__parallel(c, -1, kept * p.row_blocks, 1 + 100000 / work, ttt__product_share, &p);
}

typedef struct ttt__transposed {
    bool a, b;
} ttt__transposed;

static int64_t ttt__matmul_flops(const ttt_tensor *y) {
    const ttt__transposed *t = (const ttt__transposed *)y->arg;
    bool ta = y->op == &ttt__op_matmul && t->a;
    int64_t k = A->shape.dim[A->shape.rank - (ta ? 2 : 1)], m = A->shape.dim[A->shape.rank - (ta ? 1 : 2)];
    int64_t n = y->shape.dim[y->shape.rank - 1];
    ttt_shape all;
    ttt__broadcast_shape(ttt__lead(A->shape, 2), ttt__lead(B->shape, 2), &all);
    return 2 * m * n * k * ttt_shape_size(all);
}

FORWARD(matmul) {
    const ttt__transposed *t = (const ttt__transposed *)y->arg;
    ttt__product_run(c, A, B, t->a, t->b, NULL, y);
}
RULE(matmul) {  // y = a b: da = g b^T, db = a^T g; transposed operands likewise, read off the indices
    const ttt__transposed *t = (const ttt__transposed *)y->arg;
    if (d[0]) d[0] = t->a ? ttt_matmul_to(c, B, g, t->b, true, A->shape) : ttt_matmul_to(c, g, B, false, !t->b, A->shape);
    if (d[1]) d[1] = t->b ? ttt_matmul_to(c, g, A, true, t->a, B->shape) : ttt_matmul_to(c, A, g, !t->a, false, B->shape);
}

// Checks the operands and gives the shape of their product, all leading sizes broadcast.
static bool ttt__product_shape(ttt_ctx *c, const char *op, const ttt_tensor *a, const ttt_tensor *b, bool ta, bool tb, ttt_shape *s) {
    ttt_text t0, t1;
    int ra = a->shape.rank, rb = b->shape.rank;
    if (c->result) return false;
    if (ra < 2 || rb < 2 || a->shape.dim[ra - (ta ? 2 : 1)] != b->shape.dim[rb - (tb ? 1 : 2)] ||
        !ttt__broadcast_shape(ttt__lead(a->shape, 2), ttt__lead(b->shape, 2), s)) {
        ttt_fail(c, TTT_ERR_SHAPE, "%s: %s%s times %s%s; (...,m,k) times (...,k,n) expected", op, ttt_shape_text(a->shape, t0),
                 ta ? "^T" : "", ttt_shape_text(b->shape, t1), tb ? "^T" : "");
        return false;
    }
    s->rank += 2;
    s->dim[s->rank - 2] = a->shape.dim[ra - (ta ? 1 : 2)];
    s->dim[s->rank - 1] = b->shape.dim[rb - (tb ? 2 : 1)];
    return true;
}

ttt_tensor *ttt_matmul_to(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb, ttt_shape y) {
    ttt__transposed t = { ta, tb };
    ttt_tensor *in[2] = { a, b };
    ttt_shape s, all;
    if (!ttt__product_shape(c, "matmul", a, b, ta, tb, &s)) return &c->empty;
    bool fits = y.rank >= 2 && y.dim[y.rank - 2] == s.dim[s.rank - 2] && y.dim[y.rank - 1] == s.dim[s.rank - 1];
    if (!fits || !ttt__broadcast_shape(s, y, &all) || !ttt_shape_equal(s, all)) {
        ttt_text t0, t1;
        return ttt_fail(c, TTT_ERR_SHAPE, "matmul: a product of shape %s cannot be summed to %s", ttt_shape_text(s, t0), ttt_shape_text(y, t1));
    }
    return ttt_apply(c, &ttt__op_matmul, in, 2, y, &t, sizeof t);
}
ttt_tensor *ttt_matmul_t(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb) {
    ttt_shape s;
    if (!ttt__product_shape(c, "matmul", a, b, ta, tb, &s)) return &c->empty;
    return ttt_matmul_to(c, a, b, ta, tb, s);
}
ttt_tensor *ttt_matmul(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b) { return ttt_matmul_t(c, a, b, false, false); }

FORWARD(affine) { ttt__product_run(c, A, B, false, false, y->in[2], y); }
RULE(affine) {
    if (d[0]) d[0] = ttt_matmul_to(c, g, B, false, true, A->shape);
    if (d[1]) d[1] = ttt_matmul_to(c, A, g, true, false, B->shape);
    if (d[2]) d[2] = ttt__fit(c, g, y->in[2]);
}
ttt_tensor *ttt_affine(ttt_ctx *c, ttt_tensor *x, ttt_tensor *w, ttt_tensor *b) {
    ttt_tensor *in[3] = { x, w, b };
    ttt_shape s, all;
    if (!ttt__product_shape(c, "affine", x, w, false, false, &s)) return &c->empty;
    bool row = b->shape.rank == 1 || (b->shape.rank >= 2 && b->shape.dim[b->shape.rank - 2] == 1);
    if (!row || b->shape.dim[b->shape.rank - 1] != s.dim[s.rank - 1] || !ttt__broadcast_shape(s, b->shape, &all) || !ttt_shape_equal(s, all)) {
        ttt_text t0, t1;
        return ttt_fail(c, TTT_ERR_SHAPE, "affine: a bias of shape %s for a product of shape %s; (n) or (...,1,n) expected",
                        ttt_shape_text(b->shape, t0), ttt_shape_text(s, t1));
    }
    return ttt_apply(c, &ttt__op_affine, in, 3, s, NULL, 0);
}

// ---- [15] THE WALK BACKWARDS ---------------------------------------------------------------------
// What a gradient taken without TTT_RECORD is on the tape: something that came from y, but whose way
// back was not kept. It has a rule so that meeting it is an error instead of a missing term.
FORWARD(unrecorded) { (void)c; (void)y; }
RULE(unrecorded) {
    (void)y;
    (void)g;
    (void)d;
    ttt_fail(c, TTT_ERR_FIRST_ORDER, "grad: this would differentiate through a gradient that was taken without "
             "TTT_RECORD, and miss its second-order terms. Take it with TTT_RECORD, or ttt_detach it to mean a constant");
}
static const ttt_op ttt__op_unrecorded = { "unrecorded gradient", "dy/dw as numbers", 1, 0, 0, ttt__unrecorded_forward,
                                           ttt__unrecorded_rule, NULL, NULL, NULL };

// One walk. Slot i belongs to tape place base + i: the gradient gathered so far, and whether anything
// asked for lies below it.
typedef struct ttt__walk {
    ttt_ctx *c;
    int64_t base, n;
    ttt_tensor **grad;
    unsigned char *flags;
    bool record;
} ttt__walk;
enum {
    TTT__NEEDED = 1,  // some wrt is this or an ancestor of it
    TTT__WANTED = 2,  // it is a wrt
    TTT__FILLED = 4,  // grad[] is the caller's buffer (a leaf's) and holds numbers already
    TTT__FIXED = 8    // grad[] is the caller's buffer
};

static int64_t ttt__slot(const ttt__walk *w, const ttt_tensor *t) {
    int64_t i = t->id - w->base;
    return i >= 0 && i < w->n && (w->flags[i] & TTT__NEEDED) ? i : -1;
}

static bool ttt__walk_begin(ttt__walk *w, ttt_tensor *y, ttt_tensor *const *wrt, int n) {
    ttt_ctx *c = w->c;
    w->base = y->id;
    for (int i = 0; i < n; i++) w->base = TTT__MIN(w->base, wrt[i]->id);
    w->n = y->id - w->base + 1;
    w->grad = (ttt_tensor **)ttt__arena_alloc(c, &c->scratch, (size_t)w->n * sizeof *w->grad);
    w->flags = (unsigned char *)ttt__arena_alloc(c, &c->scratch, (size_t)w->n);
    if (!w->grad || !w->flags) return false;
    memset(w->grad, 0, (size_t)w->n * sizeof *w->grad);
    memset(w->flags, 0, (size_t)w->n);
    for (int i = 0; i < n; i++)
        if (wrt[i]->id <= y->id) w->flags[wrt[i]->id - w->base] = TTT__NEEDED | TTT__WANTED;
    for (int64_t i = 0; i < w->n; i++) {
        const ttt_tensor *t = c->nodes[w->base + i];
        for (int j = 0; j < t->n_in && !(w->flags[i] & TTT__NEEDED); j++)
            if (ttt__slot(w, t->in[j]) >= 0) w->flags[i] |= TTT__NEEDED;
    }
    return true;
}

// Whether tensor t's numbers are this slot's alone, so that they may be added to in place.
static bool ttt__own(const ttt_tensor *t) {
    const ttt__block *b = (const ttt__block *)t->block;
    return b && b->uses == 1 && !t->shares;
}

static void ttt__add_to(ttt_ctx *c, ttt_tensor *sum, const ttt_tensor *t) { ttt__zip(c, sum->data, sum->shape, t->data, t->shape, sum, TTT__ZIP_add); }

// Slot i's own buffer, to be written to by a fast rule; *filled tells whether to add.
static ttt_tensor *ttt__slot_buffer(ttt__walk *w, int64_t i, bool *filled) {
    ttt_ctx *c = w->c;
    ttt_tensor *t = w->grad[i];
    *filled = t != NULL;
    if (w->flags[i] & TTT__FIXED) {
        *filled = (w->flags[i] & TTT__FILLED) != 0;
        w->flags[i] |= TTT__FILLED;
        return t;
    }
    if (t && ttt__own(t)) return t;
    ttt_tensor *buffer = ttt__tensor(c, c->nodes[w->base + i]->shape, TTT_DTYPE_REAL, false, NULL);
    if (!buffer) return NULL;
    ((ttt__block *)buffer->block)->uses++;
    if (t) {
        memcpy(buffer->data, t->data, (size_t)t->size * sizeof *t->data);
        ttt__block_drop(c, t);
    }
    return w->grad[i] = buffer;
}

// Adds d to slot i's gradient: as a tensor if the walk records, else in place, or by taking d over.
static void ttt__gather_gradient(ttt__walk *w, int64_t i, ttt_tensor *d) {
    ttt_ctx *c = w->c;
    ttt_tensor *t = w->grad[i];
    if (w->record) {
        w->grad[i] = t ? ttt_add(c, t, d) : d;
    } else if (!t) {
        if (d->block) ((ttt__block *)d->block)->uses++;
        w->grad[i] = d;
    } else {
        bool filled;
        t = ttt__slot_buffer(w, i, &filled);
        if (t && filled) ttt__add_to(c, t, d);
        else if (t) memcpy(t->data, d->data, (size_t)d->size * sizeof *d->data);
    }
}

// The gradient of an op that is defined by others: rebuild it from them, on the tape, and walk there.
// If numbers are enough, the copy is built on detached inputs and forgotten at once.
static void ttt__composite_rule(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d, bool record) {
    ttt_mark m = ttt_mark_get(c);
    bool numbers_only = c->numbers_only, recording = ttt_recording(c, true);
    int n = 0, place[64] = { 0 };
    ttt_tensor *in[64] = { NULL }, *wrt[64] = { NULL }, *out[64] = { NULL };
    c->numbers_only = false;
    for (int j = 0; j < y->n_in && j < 64; j++) {
        in[j] = record || y->in[j]->dtype == TTT_DTYPE_INT ? y->in[j] : ttt_detach(c, y->in[j]);
        if (!d[j]) continue;
        place[n] = j;
        wrt[n++] = in[j];
    }
    ttt_vjp(c, y->op->composite(c, in, y), g, wrt, n, out, record ? TTT_RECORD : TTT_FIRST_ORDER);
    c->numbers_only = numbers_only;
    ttt_recording(c, recording);
    for (int i = 0; i < n && !c->result; i++) {
        d[place[i]] = out[i];
        if (record) continue;
        d[place[i]] = ttt_new(c, out[i]->shape);  // workspace again
        if (!c->result) memcpy(d[place[i]]->data, out[i]->data, (size_t)out[i]->size * sizeof *out[i]->data);
    }
    if (!record) ttt_release(c, m);
}

// One node: its rule, and its inputs' slots.
static void ttt__walk_node(ttt__walk *w, ttt_tensor *y, ttt_tensor *g) {
    ttt_ctx *c = w->c;
    ttt_tensor *d[64];
    int64_t slot[64];
    bool add[64];
    int n = y->n_in;
    int64_t n_made = c->n_made;
    if (n > 64) {
        ttt_fail(c, TTT_ERR_ARGUMENT, "grad: %s has %d inputs, 64 at most", y->op->name, n);
        return;
    }
    for (int j = 0; j < n; j++) slot[j] = ttt__slot(w, y->in[j]);
    if (!w->record && y->op->fast) {
        for (int j = 0; j < n; j++) d[j] = slot[j] < 0 ? NULL : ttt__slot_buffer(w, slot[j], &add[j]);
        if (!c->result) y->op->fast(c, y, g, d, add);
    } else {
        for (int j = 0; j < n; j++) d[j] = slot[j] < 0 ? NULL : y->in[j];
        if (y->op->vjp) y->op->vjp(c, y, g, d);
        else ttt__composite_rule(c, y, g, d, w->record);
        for (int j = 0; j < n && !c->result; j++)
            if (slot[j] >= 0 && d[j]) ttt__gather_gradient(w, slot[j], d[j]);
    }
    while (c->n_made > n_made) ttt__block_drop(c, c->made[--c->n_made]);
}

// From y down to the lowest wrt. A node's gradient is complete when the walk reaches it, since all
// that was made from it stands behind it on the tape.
static void ttt__walk_down(ttt__walk *w) {
    ttt_ctx *c = w->c;
    for (int64_t i = w->n - 1; i >= 0 && !c->result; i--) {
        ttt_tensor *y = c->nodes[w->base + i], *g = w->grad[i];
        bool below = false;
        for (int j = 0; j < y->n_in; j++) below = below || ttt__slot(w, y->in[j]) >= 0;
        if (!g || !below) continue;
        ttt__walk_node(w, y, g);
        if (!w->record && !(w->flags[i] & (TTT__WANTED | TTT__FIXED))) ttt__block_drop(c, g);
    }
}

// Recorded: the gradients are the tensors in the slots.
static void ttt__walk_recorded(ttt__walk *w, ttt_tensor *y, ttt_tensor *seed, ttt_tensor *const *wrt, int n, ttt_tensor **out) {
    w->grad[w->n - 1] = seed;
    ttt__walk_down(w);
    for (int i = 0; i < n && !w->c->result; i++) {
        int64_t slot = ttt__slot(w, wrt[i]);
        out[i] = slot >= 0 && w->grad[slot] ? w->grad[slot] : ttt_zeros(w->c, wrt[i]->shape);
    }
    (void)y;
}

// Numbers only: out[] are buffers of the caller; leaves gather straight into them, the gradients of
// inner nodes are copied at the end.
static void ttt__walk_numbers(ttt__walk *w, ttt_tensor *y, ttt_tensor *seed, ttt_tensor *const *wrt, int n, ttt_tensor **out, bool add) {
    ttt_ctx *c = w->c;
    for (int i = 0; i < n; i++) {
        int64_t slot = ttt__slot(w, wrt[i]);
        if (slot < 0 || wrt[i]->op || wrt[i] == y || w->grad[slot]) continue;
        w->grad[slot] = out[i];
        w->flags[slot] |= (unsigned char)(TTT__FIXED | (add ? TTT__FILLED : 0));
    }
    w->grad[w->n - 1] = seed;
    c->numbers_only = true;
    ttt__walk_down(w);
    c->numbers_only = false;
    for (int i = 0; i < n && !c->result; i++) {
        int64_t slot = ttt__slot(w, wrt[i]);
        ttt_tensor *g = slot >= 0 ? w->grad[slot] : NULL;
        bool written = g && !((w->flags[slot] & TTT__FIXED) && !(w->flags[slot] & TTT__FILLED));
        if (g == out[i] && written) continue;
        if (!written && !add) memset(out[i]->data, 0, (size_t)out[i]->size * sizeof *out[i]->data);
        else if (written && add) ttt__add_to(c, out[i], g);
        else if (written) memcpy(out[i]->data, g->data, (size_t)g->size * sizeof *g->data);
    }
}

static bool ttt__vjp_good(ttt_ctx *c, ttt_tensor *y, ttt_tensor *seed, ttt_tensor *const *wrt, int n) {
    ttt_text t0, t1;
    if (c->result) return false;
    if (!ttt__alive(c, y) || y->id == TTT__SCRATCH || !ttt__alive(c, seed)) {
        ttt_fail(c, TTT_ERR_RELEASED, "grad: y is not a living tensor of this context; was it released?");
        return false;
    }
    if (!ttt_shape_equal(seed->shape, y->shape)) {
        ttt_fail(c, TTT_ERR_SHAPE, "grad: a seed of shape %s for a y of shape %s", ttt_shape_text(seed->shape, t0), ttt_shape_text(y->shape, t1));
        return false;
    }
    for (int i = 0; i < n; i++)
        if (!ttt__alive(c, wrt[i]) || wrt[i]->id == TTT__SCRATCH || wrt[i]->dtype != TTT_DTYPE_REAL) {
            ttt_fail(c, TTT_ERR_ARGUMENT, "grad: wrt[%d] is not a living real tensor of this context", i);
            return false;
        }
    return true;
}

ttt_result ttt_vjp(ttt_ctx *c, ttt_tensor *y, ttt_tensor *seed, ttt_tensor *const *wrt, int n, ttt_tensor **out, ttt_mode mode) {
    ttt_mark workspace = ttt__arena_mark(&c->scratch);
    ttt__block *free_blocks = c->free_blocks;
    bool recording = ttt_recording(c, mode == TTT_RECORD);
    ttt__walk w = { c, 0, 0, NULL, NULL, mode == TTT_RECORD };
    bool good = ttt__vjp_good(c, y, seed, wrt, n);
    for (int i = 0; i < n && good && mode == TTT_FIRST_ORDER; i++) out[i] = ttt_new(c, wrt[i]->shape);
    c->free_blocks = NULL;
    if (good && !c->result && ttt__walk_begin(&w, y, wrt, n)) {
        if (w.record) ttt__walk_recorded(&w, y, seed, wrt, n, out);
        else ttt__walk_numbers(&w, y, seed, wrt, n, out, mode == TTT_ADD);
    }
    c->free_blocks = free_blocks;
    ttt__arena_release(&c->scratch, workspace);
    ttt_recording(c, recording);
    for (int i = 0; i < n && !c->result && mode == TTT_FIRST_ORDER && recording; i++)
        ttt__set_producer(c, out[i], &ttt__op_unrecorded, &y, 1, NULL, 0);
    for (int i = 0; i < n && c->result && mode != TTT_ADD; i++) out[i] = &c->empty;
    return c->result;
}

ttt_result ttt_grad(ttt_ctx *c, ttt_tensor *y, ttt_tensor *const *wrt, int n, ttt_tensor **out, ttt_mode mode) {
    if (!c->result && y->size != 1) {
        ttt_text t;
        ttt_fail(c, TTT_ERR_SHAPE, "grad: y has shape %s; one number expected (ttt_vjp takes any shape)", ttt_shape_text(y->shape, t));
    }
    return ttt_vjp(c, y, ttt_full(c, y->shape, 1), wrt, n, out, mode);
}

// -- the gradient checker
// The directional derivative of f of the given order along u, analytic; order 0 is f itself.
static double ttt__directional(ttt_ctx *c, ttt_function *f, ttt_tensor *const *x, int n, void *user, int order, ttt_tensor *const *u) {
    ttt_mark m = ttt_mark_get(c);
    ttt_tensor *y = f(c, x, n, user), *g[64];
    for (int k = 0; k < order; k++) {
        ttt_grad(c, y, x, n, g, k < order - 1 ? TTT_RECORD : TTT_FIRST_ORDER);
        y = ttt_scalar(c, 0);
        for (int i = 0; i < n; i++) y = ttt_add(c, y, ttt_sum(c, ttt_mul(c, g[i], u[i])));
    }
    double value = c->result ? (double)NAN : (double)ttt_item(y);
    ttt_release(c, m);
    return value;
}

static void ttt__move(ttt_tensor *const *x, int n, ttt_tensor *const *from, ttt_tensor *const *u, double h) {
    for (int i = 0; i < n; i++)
        for (int64_t j = 0; j < x[i]->size; j++) x[i]->data[j] = (ttt_real)((double)from[i]->data[j] + h * (double)u[i]->data[j]);
}

double ttt_check_gradient(ttt_ctx *c, ttt_function *f, ttt_tensor *const *x, int n, void *user, int order, double h) {
    static const double step[4] = { 1, -1, 2, -2 }, weight[4] = { 8, -8, -1, 1 };
    ttt_tensor *u[64], *from[64];
    double numeric = 0;
    if (!c->result && (n < 1 || n > 64 || order < 1)) ttt_fail(c, TTT_ERR_ARGUMENT, "check_gradient: 1 to 64 inputs and an order above 0 expected");
    if (c->result) return (double)NAN;
    ttt_mark m = ttt_mark_get(c);
    for (int i = 0; i < n; i++) {
        u[i] = ttt_uniform(c, x[i]->shape, -1, 1);
        from[i] = ttt_from(c, x[i]->shape, x[i]->data);
    }
    double analytic = ttt__directional(c, f, x, n, user, order, u);
    for (int k = 0; k < 4 && !c->result; k++) {
        ttt__move(x, n, from, u, step[k] * h);
        numeric += weight[k] * ttt__directional(c, f, x, n, user, order - 1, u) / (12 * h);
    }
    if (!c->result) ttt__move(x, n, from, u, 0);
    ttt_release(c, m);
    return c->result ? (double)NAN : fabs(analytic - numeric) / TTT__MAX(fabs(numeric), 1e-3);
}
#undef FORWARD
#undef RULE
#undef A
#undef B

// ---- [16] FILES ----------------------------------------------------------------------------------
#ifndef TTT_NO_STDIO
#include <errno.h>
#ifdef _WIN32
#include <io.h>
#include <process.h>
#ifndef _WINDOWS_
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#endif
#elif defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <unistd.h>
#if defined(__STRICT_ANSI__) && !defined(__cplusplus)  // hidden by -std=c99, there all the same
extern int fileno(FILE *stream);
extern int fsync(int descriptor);
#endif
#define TTT__POSIX_FILES
#endif

// -- whole files
static bool ttt__seek(FILE *f, int64_t at, int whence) {
#ifdef _WIN32
    return _fseeki64(f, at, whence) == 0;
#else
    return (long)at == at && fseek(f, (long)at, whence) == 0;
#endif
}

// Opens a file to read and tells its size; NULL after an error.
static FILE *ttt__file_open(ttt_ctx *c, const char *path, int64_t *size) {
    FILE *f = c->result ? NULL : fopen(path, "rb");
    if (c->result) return NULL;
    if (!f) {
        ttt_fail(c, TTT_ERR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
        return NULL;
    }
    bool good = ttt__seek(f, 0, SEEK_END);
#ifdef _WIN32
    *size = _ftelli64(f);
#else
    *size = ftell(f);
#endif
    if (good && *size >= 0 && *size < PTRDIFF_MAX && ttt__seek(f, 0, SEEK_SET)) return f;
    ttt_fail(c, TTT_ERR_FILE, "%s: cannot be read: its size cannot be told", path);
    fclose(f);
    return NULL;
}

static bool ttt__file_get(ttt_ctx *c, const char *path, FILE *f, void *to, size_t n) {
    if (fread(to, 1, n, f) == n) return true;
    ttt_fail(c, TTT_ERR_FILE, "%s: cannot be read: %s", path, ferror(f) ? strerror(errno) : "it ended early");
    return false;
}

char *ttt_file_read(ttt_ctx *c, const char *path, size_t *size) {
    int64_t n = 0;
    FILE *f = ttt__file_open(c, path, &n);
    char *text = f ? (char *)ttt_alloc(c, (size_t)n + 1, false) : NULL;
    if (text && ttt__file_get(c, path, f, text, (size_t)n)) text[n] = 0;
    if (f) fclose(f);
    *size = c->result ? 0 : (size_t)n;
    return c->result ? NULL : text;
}

// Written under a name that no other writer takes, then renamed: readers see the old or the new file.
bool ttt_file_begin(ttt_ctx *c, ttt_file_writer *w, const char *path) {
    if (c->result) return false;
    if (strlen(path) >= sizeof w->path) {
        ttt_fail(c, TTT_ERR_FILE, "%.80s...: its name is longer than %d bytes", path, (int)sizeof w->path - 1);
        return false;
    }
#ifdef TTT__POSIX_FILES
    unsigned long process = (unsigned long)getpid();
#elif defined(_WIN32)
    unsigned long process = (unsigned long)_getpid();
#else
    unsigned long process = 0;
#endif
    snprintf(w->path, sizeof w->path, "%s", path);
    snprintf(w->temporary, sizeof w->temporary, "%s.%lx.%lx.tmp", path, process, (unsigned long)((uintptr_t)c & 0xffffffff));
    w->stream = fopen(w->temporary, "wb");
    if (!w->stream) ttt_fail(c, TTT_ERR_FILE, "%s: cannot be written: %s", path, strerror(errno));
    return w->stream != NULL;
}

bool ttt_file_put(ttt_file_writer *w, const void *bytes, size_t n) { return fwrite(bytes, 1, n, (FILE *)w->stream) == n; }

// Everything to the disk. Each call is looked at: a full disk may show in any one of them only.
static bool ttt__file_flush(FILE *f) {
    if (fflush(f) != 0 || ferror(f)) return false;
#if defined(TTT__POSIX_FILES)
    return fsync(fileno(f)) == 0 || errno == EINVAL || errno == ENOSYS;  // not every file can be synced
#elif defined(_WIN32)
    return _commit(_fileno(f)) == 0;
#else
    return true;
#endif
}

static bool ttt__file_rename(const char *from, const char *to) {
#ifdef _WIN32
    return MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH) != 0;
#else
    return rename(from, to) == 0;
#endif
}

// Makes the new name itself last, where a folder can be synced.
static void ttt__folder_flush(const char *path) {
#ifdef TTT__POSIX_FILES
    char folder[1024];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int descriptor = open(folder, O_RDONLY);
    if (descriptor < 0) return;
    fsync(descriptor);
    close(descriptor);
#else
    (void)path;
#endif
}

ttt_result ttt_file_finish(ttt_ctx *c, ttt_file_writer *w, bool good) {
    int error = errno;
    good = good && !c->result;
    if (good && !ttt__file_flush((FILE *)w->stream)) {
        good = false;
        error = errno;
    }
    if (fclose((FILE *)w->stream) != 0 && good) {
        good = false;
        error = errno;
    }
    if (good && !ttt__file_rename(w->temporary, w->path)) {
        good = false;
        error = errno;
    }
    if (good) ttt__folder_flush(w->path);
    else remove(w->temporary);
    if (!good) ttt_fail(c, TTT_ERR_FILE, "%s: cannot be written: %s", w->path, strerror(error));
    return c->result;
}

// -- numbers as bytes, whatever the machine's own order
static uint64_t ttt__bytes(const unsigned char *p, int n, bool big) {
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint64_t)p[big ? n - 1 - i : i] << 8 * i;
    return v;
}
static float ttt__float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static double ttt__double_of(uint64_t bits) {
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}
// IEEE half precision: 1 sign, 5 exponent, 10 fraction bits
static float ttt__half_of(uint32_t bits) {
    uint32_t sign = (bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return ttt__float_of(sign | 0x7f800000 | fraction << 13);
    if (exponent > 0) return ttt__float_of(sign | (exponent + 112) << 23 | fraction << 13);
    float f = (float)fraction * 5.9604644775390625e-8f;  // subnormal: units of 2^-24
    return sign ? -f : f;
}

// The element types of files. `kind`: r real, i signed, u unsigned, b bool.
typedef struct ttt__file_type {
    const char *name, *numpy;  // in safetensors; in .npy behind its byte-order mark
    char kind;
    int bytes;
} ttt__file_type;
static const ttt__file_type ttt__file_types[] = {
    { "F64", "f8", 'r', 8 }, { "F32", "f4", 'r', 4 }, { "F16", "f2", 'r', 2 }, { "BF16", "", 'r', 2 },
    { "I64", "i8", 'i', 8 }, { "I32", "i4", 'i', 4 }, { "I16", "i2", 'i', 2 }, { "I8", "i1", 'i', 1 },
    { "U64", "u8", 'u', 8 }, { "U32", "u4", 'u', 4 }, { "U16", "u2", 'u', 2 }, { "U8", "u1", 'u', 1 },
    { "BOOL", "b1", 'b', 1 },
};
enum { TTT__N_FILE_TYPES = sizeof ttt__file_types / sizeof *ttt__file_types };

static const ttt__file_type *ttt__file_type_named(const char *name, bool numpy) {
    for (int i = 0; i < TTT__N_FILE_TYPES; i++) {
        const char *own = numpy ? ttt__file_types[i].numpy : ttt__file_types[i].name;
        if (*own && strcmp(own, name) == 0) return &ttt__file_types[i];
    }
    return NULL;
}

static ttt_real ttt__real_of(const ttt__file_type *type, uint64_t bits) {
    if (type->bytes == 8) return (ttt_real)ttt__double_of(bits);
    if (type->bytes == 4) return (ttt_real)ttt__float_of((uint32_t)bits);
    return (ttt_real)(*type->numpy ? ttt__half_of((uint32_t)bits) : ttt__float_of((uint32_t)bits << 16));
}
static int64_t ttt__int_of(const ttt__file_type *type, uint64_t bits) {
    int shift = 64 - 8 * type->bytes;
    if (type->kind == 'i' && type->bytes < 8 && (bits >> (8 * type->bytes - 1) & 1)) bits |= ~(uint64_t)0 << (64 - shift);
    int64_t v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

// Elements of a file into a tensor of its shape, in pieces. U64 numbers above 2^63 - 1 have no place in
// an int64_t: a tensor that has one becomes real.
static ttt_tensor *ttt__file_elements(ttt_ctx *c, const char *path, FILE *f, const ttt__file_type *type, ttt_shape s, bool big) {
    unsigned char piece[8 * 1024];
    ttt_tensor *t = ttt__or_empty(c, ttt__tensor(c, s, type->kind == 'r' ? TTT_DTYPE_REAL : TTT_DTYPE_INT, false, NULL));
    bool beyond = false;
    for (int64_t i = 0; i < t->size && !c->result;) {
        int64_t n = TTT__MIN(1024, t->size - i);
        if (!ttt__file_get(c, path, f, piece, (size_t)(n * type->bytes))) break;
        for (int64_t k = 0; k < n; k++) {
            uint64_t bits = ttt__bytes(piece + k * type->bytes, type->bytes, big);
            if (t->data) t->data[i + k] = ttt__real_of(type, bits);
            else t->index[i + k] = ttt__int_of(type, bits);
            beyond = beyond || (type->kind == 'u' && type->bytes == 8 && bits >> 63);
        }
        i += n;
    }
    if (!beyond || c->result) return t;
    ttt_tensor *real = ttt_new(c, s);
    for (int64_t i = 0; i < real->size; i++) real->data[i] = (ttt_real)(uint64_t)t->index[i];
    return real;
}

// -- JSON [RFC 8259], strict, read by asking for what is expected:
//     ttt__json_enter(j, '{'); while (ttt__json_key(j, &key)) { ...read or skip one value... }
//     ttt__json_enter(j, '['); while (ttt__json_item(j)) { ...one value... }
// The first thing that is wrong is kept in `why`, and everything answers no from then on.
typedef struct ttt__json {
    ttt_ctx *c;
    const char *begin, *p, *end;
    const char *why;    // NULL: nothing wrong so far
    int depth;
    uint64_t not_first;  // a bit for each level: a value was read there
} ttt__json;
#define TTT__JSON_DEPTH 64

static bool ttt__json_fail(ttt__json *j, const char *why) {
    if (!j->why) j->why = why;
    return false;
}
static char ttt__json_peek(ttt__json *j) {
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r')) j->p++;
    return j->p < j->end && !j->why ? *j->p : 0;
}
static bool ttt__json_take(ttt__json *j, char what) {
    if (ttt__json_peek(j) != what) return ttt__json_fail(j, what == '{' ? "an object was expected" : what == '[' ? "a list was expected" : what == '"' ? "a string was expected" : what == ':' ? "a colon was expected" : "a comma or the end was expected");
    j->p++;
    return true;
}
static bool ttt__json_enter(ttt__json *j, char open) {
    if (!ttt__json_take(j, open)) return false;
    if (j->depth == TTT__JSON_DEPTH) return ttt__json_fail(j, "it is nested more than 64 deep");
    j->not_first &= ~((uint64_t)1 << j->depth++);
    return true;
}
// Whether a value follows before `close`; takes the comma before it.
static bool ttt__json_more(ttt__json *j, char close) {
    uint64_t bit = (uint64_t)1 << (j->depth - 1);
    if (ttt__json_peek(j) == close) {
        j->p++;
        j->depth--;
        return false;
    }
    if ((j->not_first & bit) && !ttt__json_take(j, ',')) return false;
    j->not_first |= bit;
    return !j->why;
}
static bool ttt__json_item(ttt__json *j) { return ttt__json_more(j, ']'); }

static int ttt__hex(char ch) { return ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10 : -1; }
static int32_t ttt__json_u(ttt__json *j) {  // the four digits of \uXXXX
    int32_t v = 0;
    for (int i = 0; i < 4; i++, j->p++) {
        int digit = j->p < j->end ? ttt__hex(*j->p) : -1;
        if (digit < 0) return -1;
        v = 16 * v + digit;
    }
    return v;
}
static int ttt__put_utf8(char *to, int32_t code) {
    int n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const int lead[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    for (int i = n - 1; i > 0; i--, code >>= 6) to[i] = (char)(0x80 | (code & 0x3f));
    to[0] = (char)(lead[n] | code);
    return n;
}
// Length of the UTF-8 character at p, 0 if it is none (overlong forms and surrogates are none).
static int ttt__utf8_length(const char *p, const char *end) {
    const unsigned char *s = (const unsigned char *)p;
    int n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    if (n == 0 || end - p < n) return 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    bool bad = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f);
    return bad ? 0 : n;
}
// One escape behind its backslash, decoded to `to`; 0 if it is wrong.
static int ttt__json_escape(ttt__json *j, char *to) {
    static const char plain[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
    char ch = j->p < j->end ? *j->p++ : 0;
    const char *at = ch ? strchr(plain, ch) : NULL;
    if (at) {
        *to = meaning[at - plain];
        return 1;
    }
    int32_t code = ch == 'u' ? ttt__json_u(j) : -1;
    if (code >= 0xd800 && code < 0xdc00 && j->end - j->p >= 6 && j->p[0] == '\\' && j->p[1] == 'u') {  // a pair
        j->p += 2;
        int32_t low = ttt__json_u(j);
        code = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : -1;
    }
    if (code <= 0 || (code >= 0xd800 && code < 0xe000)) return 0;
    return ttt__put_utf8(to, code);
}
// A string, decoded into the step arena; NULL if there is none. It never grows by decoding.
static const char *ttt__json_string(ttt__json *j) {
    if (!ttt__json_take(j, '"')) return NULL;
    const char *close = j->p;
    while (close < j->end && *close != '"') close += *close == '\\' && close + 1 < j->end ? 2 : 1;
    char *text = close < j->end ? (char *)ttt_alloc(j->c, (size_t)(close - j->p) + 1, false) : NULL, *to = text;
    if (!text) return ttt__json_fail(j, "a string has no end"), (const char *)NULL;
    while (*j->p != '"') {
        int n = *j->p == '\\' ? 0 : (unsigned char)*j->p < 0x20 ? 0 : ttt__utf8_length(j->p, j->end);
        if (*j->p == '\\') {
            j->p++;
            n = ttt__json_escape(j, to);
        } else {
            for (int i = 0; i < n; i++) to[i] = *j->p++;
        }
        if (n == 0) return ttt__json_fail(j, "a string has a wrong escape, a control character or is not UTF-8"), (const char *)NULL;
        to += n;
    }
    j->p++;
    *to = 0;
    return text;
}
static bool ttt__json_key(ttt__json *j, const char **key) { return ttt__json_more(j, '}') && (*key = ttt__json_string(j)) != NULL && ttt__json_take(j, ':'); }

// The text of a number, of which JSON knows less than C: no +, no leading zeros, no bare point.
static size_t ttt__json_number(ttt__json *j, bool *whole) {
    ttt__json_peek(j);
    const char *p = j->p, *digits;
#define DIGITS() for (digits = p; p < j->end && *p >= '0' && *p <= '9'; p++) {}
    if (p < j->end && *p == '-') p++;
    DIGITS()
    bool good = p > digits && (*digits != '0' || p == digits + 1);
    *whole = true;
    if (p < j->end && *p == '.') {
        p++;
        DIGITS()
        good = good && p > digits;
        *whole = false;
    }
    if (p < j->end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < j->end && (*p == '+' || *p == '-')) p++;
        DIGITS()
        good = good && p > digits;
        *whole = false;
    }
#undef DIGITS
    if (!good || j->why) return ttt__json_fail(j, "a number was expected"), (size_t)0;
    return (size_t)(p - j->p);
}
static bool ttt__json_int(ttt__json *j, int64_t *v) {
    bool whole;
    size_t n = ttt__json_number(j, &whole);
    if (n == 0) return false;
    bool minus = *j->p == '-';
    uint64_t value = 0, limit = (uint64_t)INT64_MAX + minus;
    for (size_t i = minus; i < n && whole; i++) {
        uint64_t digit = (uint64_t)(j->p[i] - '0');
        if (value > (limit - digit) / 10) return ttt__json_fail(j, "a whole number is beyond 64 bits");
        value = 10 * value + digit;
    }
    if (!whole) return ttt__json_fail(j, "a whole number was expected");
    *v = minus ? (int64_t)(0 - value) : (int64_t)value;
    j->p += n;
    return true;
}
// -- safetensors: 8 bytes length n of the header, little-endian; the header, n bytes of JSON, padded by
// spaces: {"name":{"dtype":"F32","shape":[2,3],"data_offsets":[begin,end]}, ..., "__metadata__":{...}};
// then the data, which the tensors cover without hole or overlap.
#define TTT__SAFETENSORS_HEADER ((uint64_t)100000000)
typedef struct ttt__entry {
    const char *name;
    const ttt__file_type *type;
    ttt_shape shape;
    int64_t begin, end;
    int64_t place;  // in the header
} ttt__entry;
typedef struct ttt__safetensors {
    ttt_ctx *c;
    const char *path;
    ttt__entry *entry;
    int64_t n, capacity, data_size;
    ttt_bundle *out;
    int64_t notes_capacity;
} ttt__safetensors;

static bool ttt__format_fail(ttt_ctx *c, const char *path, const char *name, const char *what) {
    ttt_fail(c, TTT_ERR_FORMAT, "%s: %s%.100s%s%s", path, name ? "tensor \"" : "", name ? name : "", name ? "\": " : "", what);
    return false;
}

// Room for one more item in an array of the step arena.
static void *ttt__room(ttt_ctx *c, void *array, int64_t n, int64_t *capacity, size_t item) {
    if (n < *capacity) return array;
    int64_t more = TTT__MAX(64, 2 * n);
    void *p = ttt_alloc(c, (size_t)more * item, false);
    if (p && n) memcpy(p, array, (size_t)n * item);
    if (p) *capacity = more;
    return p;
}

static bool ttt__read_notes(ttt__safetensors *s, ttt__json *j) {
    const char *key;
    if (s->out->n_notes) return ttt__json_fail(j, "it has __metadata__ twice");
    if (!ttt__json_enter(j, '{')) return false;
    while (ttt__json_key(j, &key)) {
        s->out->notes = (ttt_note *)ttt__room(s->c, s->out->notes, s->out->n_notes, &s->notes_capacity, sizeof(ttt_note));
        const char *text = s->out->notes ? ttt__json_string(j) : NULL;
        if (!text) return false;
        ttt_note note = { key, text };
        s->out->notes[s->out->n_notes++] = note;
    }
    return !j->why;
}

static bool ttt__read_shape(ttt__json *j, ttt_shape *s) {
    *s = ttt_scalar_shape();
    if (!ttt__json_enter(j, '[')) return false;
    while (ttt__json_item(j)) {
        if (s->rank == TTT_MAX_RANK) return ttt__json_fail(j, "a tensor has more than 8 axes");
        if (!ttt__json_int(j, &s->dim[s->rank])) return false;
        if (s->dim[s->rank++] < 0) return ttt__json_fail(j, "a shape has a negative size");
    }
    return !j->why;
}

static bool ttt__read_offsets(ttt__json *j, ttt__entry *e) {
    return ttt__json_enter(j, '[') && ttt__json_item(j) && ttt__json_int(j, &e->begin) && ttt__json_item(j) && ttt__json_int(j, &e->end) &&
           (!ttt__json_item(j) || ttt__json_fail(j, "data_offsets has more than two numbers")) && !j->why;
}

static bool ttt__read_entry(ttt__safetensors *s, ttt__json *j, ttt__entry *e) {
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    int seen = 0;
    const char *key;
    if (!ttt__json_enter(j, '{')) return false;
    while (ttt__json_key(j, &key)) {
        int which = strcmp(key, "dtype") == 0 ? DTYPE : strcmp(key, "shape") == 0 ? SHAPE : strcmp(key, "data_offsets") == 0 ? OFFSETS : 0;
        if (which == 0) return ttt__json_fail(j, "a tensor has a key other than dtype, shape, data_offsets");
        if (seen & which) return ttt__json_fail(j, "a tensor has a key twice");
        seen |= which;
        if (which == DTYPE) {
            const char *name = ttt__json_string(j);
            e->type = name ? ttt__file_type_named(name, false) : NULL;
            if (!name) return false;
            if (!e->type) return ttt__json_fail(j, "a dtype is unknown or not supported");
        } else if (!(which == SHAPE ? ttt__read_shape(j, &e->shape) : ttt__read_offsets(j, e))) return ttt__json_fail(j, "data_offsets must be two whole numbers");
    }
    if (!j->why && seen != (DTYPE | SHAPE | OFFSETS)) return ttt__json_fail(j, "a tensor lacks dtype, shape or data_offsets");
    (void)s;
    return !j->why;
}

// The shape's bytes are the span's bytes, without a product that wraps around.
static bool ttt__entry_good(ttt__safetensors *s, const ttt__entry *e) {
    int64_t size = ttt_shape_size(e->shape);
    if (e->begin < 0 || e->end < e->begin || e->end > s->data_size) return ttt__format_fail(s->c, s->path, e->name, "its data_offsets do not lie in the data");
    if (size < 0 || size > INT64_MAX / 8 || size * e->type->bytes != e->end - e->begin) return ttt__format_fail(s->c, s->path, e->name, "its shape does not have the size of its data");
    return true;
}

static bool ttt__read_header(ttt__safetensors *s, const char *text, size_t n) {
    ttt__json j = { s->c, text, text, text + n, NULL, 0, 0 };
    const char *key = NULL;
    if (n == 0 || *text != '{') return ttt__format_fail(s->c, s->path, NULL, "its header does not begin with {");
    ttt__json_enter(&j, '{');
    while (ttt__json_key(&j, &key)) {
        if (strcmp(key, "__metadata__") == 0) {
            if (!ttt__read_notes(s, &j)) break;
            continue;
        }
        s->entry = (ttt__entry *)ttt__room(s->c, s->entry, s->n, &s->capacity, sizeof *s->entry);
        if (!s->entry) return false;
        ttt__entry *e = &s->entry[s->n];
        memset(e, 0, sizeof *e);
        e->name = key;
        e->place = s->n;
        if (!ttt__read_entry(s, &j, e) || !ttt__entry_good(s, e)) break;
        s->n++;
        key = NULL;
    }
    if (s->c->result) return false;
    ttt__json_peek(&j);
    if (!j.why && j.p < j.end) j.why = "something other than blanks follows the object";
    if (!j.why) return true;
    ttt_fail(s->c, TTT_ERR_FORMAT, "%s: byte %lld of its header%s%.100s%s: %s", s->path, (long long)(j.p - j.begin), key ? ", in \"" : "", key ? key : "", key ? "\"" : "", j.why);
    return false;
}

static int ttt__by_name(const void *a, const void *b) { return strcmp(((const ttt__entry *)a)->name, ((const ttt__entry *)b)->name); }
static int ttt__by_offset(const void *a, const void *b) {
    const ttt__entry *x = (const ttt__entry *)a, *y = (const ttt__entry *)b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

// No name twice, no byte unused or used twice. Leaves the entries in order of their data.
static bool ttt__entries_good(ttt__safetensors *s) {
    int64_t at = 0;
    if (s->n == 0) return s->data_size == 0 || ttt__format_fail(s->c, s->path, NULL, "it has data but no tensors");
    qsort(s->entry, (size_t)s->n, sizeof *s->entry, ttt__by_name);
    for (int64_t i = 1; i < s->n; i++)
        if (strcmp(s->entry[i - 1].name, s->entry[i].name) == 0) return ttt__format_fail(s->c, s->path, s->entry[i].name, "it is there twice");
    qsort(s->entry, (size_t)s->n, sizeof *s->entry, ttt__by_offset);
    for (int64_t i = 0; i < s->n; i++) {
        if (s->entry[i].begin != at) return ttt__format_fail(s->c, s->path, s->entry[i].name, s->entry[i].begin < at ? "its data overlaps another's" : "there is a hole before its data");
        at = s->entry[i].end;
    }
    return at == s->data_size || ttt__format_fail(s->c, s->path, NULL, "it has bytes behind the last tensor");
}

static bool ttt__read_tensors(ttt__safetensors *s, FILE *f) {
    s->out->tensors = (ttt_named *)ttt_alloc(s->c, (size_t)s->n * sizeof(ttt_named), false);
    for (int64_t i = 0; i < s->n && !s->c->result; i++) {
        const ttt__entry *e = &s->entry[i];
        ttt_named named = { e->name, ttt__file_elements(s->c, s->path, f, e->type, e->shape, false) };
        s->out->tensors[e->place] = named;
    }
    s->out->n_tensors = s->n;
    return !s->c->result;
}

ttt_result ttt_safetensors_read(ttt_ctx *c, const char *path, ttt_bundle *out) {
    ttt__safetensors s;
    unsigned char length[8];
    int64_t size = 0;
    memset(&s, 0, sizeof s);
    memset(out, 0, sizeof *out);
    s.c = c;
    s.path = path;
    s.out = out;
    FILE *f = ttt__file_open(c, path, &size);
    if (!f) return c->result;
    if (size < 8) ttt__format_fail(c, path, NULL, "it is shorter than the 8 bytes of its header's length");
    else ttt__file_get(c, path, f, length, 8);
    uint64_t n = c->result ? 0 : ttt__bytes(length, 8, false);
    if (!c->result && (n > TTT__SAFETENSORS_HEADER || n > (uint64_t)size - 8))
        ttt_fail(c, TTT_ERR_FORMAT, "%s: a header of %llu bytes, but the file has %lld and the limit is 100000000", path, (unsigned long long)n, (long long)size);
    char *header = c->result ? NULL : (char *)ttt_alloc(c, (size_t)n, false);
    s.data_size = size - 8 - (int64_t)n;
    bool good = header && ttt__file_get(c, path, f, header, (size_t)n) && ttt__read_header(&s, header, (size_t)n) && ttt__entries_good(&s) && ttt__read_tensors(&s, f);
    fclose(f);
    if (!good) memset(out, 0, sizeof *out);
    return c->result;
}

ttt_tensor *ttt_bundle_find(const ttt_bundle *b, const char *name) {
    for (int64_t i = 0; i < b->n_tensors; i++)
        if (strcmp(b->tensors[i].name, name) == 0) return b->tensors[i].tensor;
    return NULL;
}
const char *ttt_bundle_note(const ttt_bundle *b, const char *key) {
    for (int64_t i = 0; i < b->n_notes; i++)
        if (strcmp(b->notes[i].key, key) == 0) return b->notes[i].text;
    return NULL;
}

// A text that grows in the step arena.
typedef struct ttt__text {
    ttt_ctx *c;
    char *p;
    int64_t n, capacity;
} ttt__text;
static void ttt__text_add(ttt__text *t, const char *s, size_t n) {
    while (t->n + (int64_t)n + 1 > t->capacity) {
        int64_t from = t->capacity;
        t->p = (char *)ttt__room(t->c, t->p, from, &t->capacity, 1);
        if (!t->p) {
            t->n = t->capacity = 0;
            return;
        }
    }
    memcpy(t->p + t->n, s, n);
    t->n += (int64_t)n;
}
static void ttt__text_put(ttt__text *t, const char *s) { ttt__text_add(t, s, strlen(s)); }
static void ttt__text_number(ttt__text *t, int64_t v) {
    char digits[32];
    snprintf(digits, sizeof digits, "%lld", (long long)v);
    ttt__text_put(t, digits);
}
static bool ttt__text_quoted(ttt__text *t, const char *s) {
    const char *end = s + strlen(s);
    ttt__text_put(t, "\"");
    while (s < end) {
        int n = ttt__utf8_length(s, end);
        char escape[8];
        if (n == 0) return false;
        if (*s == '"' || *s == '\\' || (unsigned char)*s < 0x20) {
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)*s);
            ttt__text_put(t, escape);
        } else {
            ttt__text_add(t, s, (size_t)n);
        }
        s += n;
    }
    ttt__text_put(t, "\"");
    return true;
}

static const ttt__file_type *ttt__written_type(const ttt_tensor *t, bool bf16) {
    return ttt__file_type_named(t->dtype == TTT_DTYPE_INT ? "I64" : bf16 ? "BF16" : sizeof(ttt_real) == 8 ? "F64" : "F32", false);
}

static void ttt__text_entry(ttt__text *t, const ttt_tensor *a, const ttt__file_type *type, int64_t *at) {
    ttt__text_put(t, ":{\"dtype\":\"");
    ttt__text_put(t, type->name);
    ttt__text_put(t, "\",\"shape\":[");
    for (int i = 0; i < a->shape.rank; i++) {
        if (i) ttt__text_put(t, ",");
        ttt__text_number(t, a->shape.dim[i]);
    }
    ttt__text_put(t, "],\"data_offsets\":[");
    ttt__text_number(t, *at);
    ttt__text_put(t, ",");
    ttt__text_number(t, *at += a->size * type->bytes);
    ttt__text_put(t, "]}");
}

// The header with its length before it; data begins at a multiple of 8 bytes.
static bool ttt__header_text(ttt__text *t, const char *path, const ttt_bundle *b, bool bf16) {
    int64_t at = 0;
    ttt__text_add(t, "\0\0\0\0\0\0\0\0{", 9);
    if (b->n_notes) ttt__text_put(t, "\"__metadata__\":{");
    for (int64_t i = 0; i < b->n_notes; i++) {
        if (i) ttt__text_put(t, ",");
        bool good = ttt__text_quoted(t, b->notes[i].key);
        ttt__text_put(t, ":");
        if (!good || !ttt__text_quoted(t, b->notes[i].text)) return ttt__format_fail(t->c, path, NULL, "a note is not UTF-8");
    }
    if (b->n_notes) ttt__text_put(t, "}");
    for (int64_t i = 0; i < b->n_tensors && !t->c->result; i++) {
        const ttt_tensor *a = b->tensors[i].tensor;
        if (i || b->n_notes) ttt__text_put(t, ",");
        if (!ttt__text_quoted(t, b->tensors[i].name)) return ttt__format_fail(t->c, path, NULL, "the name of a tensor is not UTF-8");
        ttt__text_entry(t, a, ttt__written_type(a, bf16), &at);
    }
    ttt__text_put(t, "}");
    while (t->n % 8) ttt__text_put(t, " ");
    for (int i = 0; i < 8 && t->p; i++) t->p[i] = (char)((uint64_t)(t->n - 8) >> 8 * i);
    return !t->c->result;
}

static uint32_t ttt__bf16_bits(ttt_real v) {  // nearest even; a NaN stays one
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (f != f) return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static uint64_t ttt__element_bits(const ttt_tensor *t, const ttt__file_type *type, int64_t i) {
    uint64_t bits = 0;
    uint32_t bits32;
    if (t->index) memcpy(&bits, &t->index[i], 8);
    else if (type->bytes == 2) bits = ttt__bf16_bits(t->data[i]);
    else if (type->bytes == 8) memcpy(&bits, &t->data[i], sizeof(ttt_real));
    else {
        memcpy(&bits32, &t->data[i], sizeof bits32);
        bits = bits32;
    }
    return bits;
}
static bool ttt__put_elements(ttt_file_writer *w, const ttt_tensor *t, const ttt__file_type *type) {
    unsigned char piece[8 * 1024];
    for (int64_t i = 0; i < t->size;) {
        int64_t n = TTT__MIN(1024, t->size - i);
        for (int64_t k = 0; k < n; k++) {
            uint64_t bits = ttt__element_bits(t, type, i + k);
            for (int b = 0; b < type->bytes; b++) piece[k * type->bytes + b] = (unsigned char)(bits >> 8 * b);
        }
        if (!ttt_file_put(w, piece, (size_t)(n * type->bytes))) return false;
        i += n;
    }
    return true;
}

static int ttt__named_by_name(const void *a, const void *b) { return strcmp(((const ttt_named *)a)->name, ((const ttt_named *)b)->name); }
static bool ttt__bundle_good(ttt_ctx *c, const char *path, const ttt_bundle *b) {
    ttt_named *sorted = (ttt_named *)ttt_alloc(c, (size_t)b->n_tensors * sizeof *sorted, false);
    if (!sorted) return false;
    if (b->n_tensors) memcpy(sorted, b->tensors, (size_t)b->n_tensors * sizeof *sorted);
    if (b->n_tensors) qsort(sorted, (size_t)b->n_tensors, sizeof *sorted, ttt__named_by_name);
    for (int64_t i = 0; i < b->n_tensors; i++) {
        if (i && strcmp(sorted[i - 1].name, sorted[i].name) == 0) return ttt__format_fail(c, path, sorted[i].name, "it would be there twice");
        if (strcmp(sorted[i].name, "__metadata__") == 0) return ttt__format_fail(c, path, sorted[i].name, "the format keeps this name for its notes");
        if (!ttt__alive(c, sorted[i].tensor)) {
            ttt_fail(c, TTT_ERR_RELEASED, "%s: tensor \"%s\" is not a living tensor of this context", path, sorted[i].name);
            return false;
        }
    }
    return true;
}

ttt_result ttt_safetensors_write(ttt_ctx *c, const char *path, const ttt_bundle *b, bool bf16) {
    ttt_mark m = ttt_mark_get(c);
    ttt__text header = { c, NULL, 0, 0 };
    ttt_file_writer w;
    if (c->result) return c->result;
    if (ttt__bundle_good(c, path, b) && ttt__header_text(&header, path, b, bf16) && ttt_file_begin(c, &w, path)) {
        bool good = ttt_file_put(&w, header.p, (size_t)header.n);
        for (int64_t i = 0; i < b->n_tensors && good; i++) good = ttt__put_elements(&w, b->tensors[i].tensor, ttt__written_type(b->tensors[i].tensor, bf16));
        ttt_file_finish(c, &w, good);
    }
    ttt_release(c, m);
    return c->result;
}

// -- .npy: \x93NUMPY, version, length of the header (2 bytes, or 4 from version 2 on), the header, a
// Python literal {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }, the data.
typedef struct ttt__npy {
    const ttt__file_type *type;
    bool big, fortran;
    ttt_shape shape;
} ttt__npy;

static const char *ttt__npy_expect(const char *p, const char *what) {
    while (p && (*p == ' ' || *p == '\n')) p++;
    return p && strncmp(p, what, strlen(what)) == 0 ? p + strlen(what) : NULL;
}
// '<f4': byte order (< little, > big, | of no account), type
static const char *ttt__npy_descr(const char *p, ttt__npy *n) {
    char name[3] = { 0 };
    p = ttt__npy_expect(p, "'");
    if (!p || !*p || !strchr("<>|=", *p)) return NULL;
    n->big = *p == '>';
    for (int i = 0; i < 2 && p[1 + i]; i++) name[i] = p[1 + i];
    n->type = ttt__file_type_named(name, true);
    return n->type && (*p != '|' || n->type->bytes == 1) ? ttt__npy_expect(p + 3, "'") : NULL;
}
static const char *ttt__npy_shape(const char *p, ttt_shape *s) {
    *s = ttt_scalar_shape();
    p = ttt__npy_expect(p, "(");
    while (p && !ttt__npy_expect(p, ")")) {
        int64_t v = 0;
        while (*p == ' ') p++;
        const char *digits = p;
        for (; *p >= '0' && *p <= '9'; p++) {
            if (v > (INT64_MAX - 9) / 10) return NULL;
            v = 10 * v + (*p - '0');
        }
        if (p == digits || s->rank == TTT_MAX_RANK) return NULL;
        s->dim[s->rank++] = v;
        const char *comma = ttt__npy_expect(p, ",");
        if (!comma && (s->rank == 1 || !ttt__npy_expect(p, ")"))) return NULL;  // (3) is no tuple
        if (comma) p = comma;
    }
    return ttt__npy_expect(p, ")");
}
static bool ttt__npy_header(const char *p, ttt__npy *n) {
    int seen = 0;
    for (p = ttt__npy_expect(p, "{"); p && !ttt__npy_expect(p, "}");) {
        const char *q;
        if ((q = ttt__npy_expect(p, "'descr':")) != NULL) seen += 1, p = ttt__npy_descr(q, n);
        else if ((q = ttt__npy_expect(p, "'shape':")) != NULL) seen += 16, p = ttt__npy_shape(q, &n->shape);
        else if ((q = ttt__npy_expect(p, "'fortran_order':")) != NULL) {
            seen += 256;
            n->fortran = ttt__npy_expect(q, "True") != NULL;
            p = ttt__npy_expect(q, n->fortran ? "True" : "False");
        } else return false;
        if (p && ttt__npy_expect(p, ",")) p = ttt__npy_expect(p, ",");
        else if (p && !ttt__npy_expect(p, "}")) return false;
    }
    p = ttt__npy_expect(p, "}");
    while (p && (*p == ' ' || *p == '\n')) p++;
    return p && *p == 0 && seen == 1 + 16 + 256;
}

// Fortran order: the first index is fastest. Read as the reversed shape, then turned.
static ttt_tensor *ttt__npy_turn(ttt_ctx *c, ttt_tensor *t, ttt_shape s) {
    int64_t index[TTT_MAX_RANK] = { 0 };
    if (c->result) return t;
    ttt_tensor *y = ttt__or_empty(c, ttt__tensor(c, s, t->dtype, false, NULL));
    for (int64_t i = 0; i < y->size; i++) {  // index[] runs with the first fastest, as in the file
        int64_t at = 0;
        for (int k = 0; k < s.rank; k++) at = at * s.dim[k] + index[k];
        if (y->data) y->data[at] = t->data[i];
        else y->index[at] = t->index[i];
        for (int k = 0; k < s.rank && ++index[k] == s.dim[k]; k++) index[k] = 0;
    }
    return y;
}

static ttt_tensor *ttt__npy_read(ttt_ctx *c, const char *path, FILE *f, int64_t size) {
    unsigned char start[12] = { 0 };
    ttt__npy n;
    memset(&n, 0, sizeof n);
    if (size < 10 || !ttt__file_get(c, path, f, start, 10) || memcmp(start, "\x93NUMPY", 6) != 0 || start[6] < 1 || start[6] > 3)
        return ttt_fail(c, TTT_ERR_FORMAT, "%s: not an .npy file of version 1, 2 or 3", path);
    int wide = start[6] == 1 ? 2 : 4;
    if (wide == 4 && !ttt__file_get(c, path, f, start + 10, 2)) return &c->empty;
    int64_t length = (int64_t)ttt__bytes(start + 8, wide, false), data = size - 8 - wide - length;
    if (data < 0 || length > 1 << 20) return ttt_fail(c, TTT_ERR_FORMAT, "%s: a header of %lld bytes in a file of %lld", path, (long long)length, (long long)size);
    char *header = (char *)ttt_alloc(c, (size_t)length + 1, false);
    if (!header || !ttt__file_get(c, path, f, header, (size_t)length)) return &c->empty;
    header[length] = 0;
    if (strlen(header) != (size_t)length || !ttt__npy_header(header, &n))
        return ttt_fail(c, TTT_ERR_FORMAT, "%s: its header is not of the form {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} with bool, integers or f2, f4, f8", path);
    int64_t elements = ttt_shape_size(n.shape);
    if (elements < 0 || elements > INT64_MAX / 8 || elements * n.type->bytes != data)
        return ttt_fail(c, TTT_ERR_FORMAT, "%s: its shape does not have the size of its %lld bytes of data", path, (long long)data);
    ttt_tensor *t = ttt__file_elements(c, path, f, n.type, n.shape, n.big);
    return n.fortran && n.shape.rank > 1 ? ttt__npy_turn(c, t, n.shape) : t;
}

ttt_result ttt_npy_read(ttt_ctx *c, const char *path, ttt_tensor **out) {
    int64_t size = 0;
    FILE *f = ttt__file_open(c, path, &size);
    *out = f ? ttt__npy_read(c, path, f, size) : &c->empty;
    if (f) fclose(f);
    if (c->result) *out = &c->empty;
    return c->result;
}

ttt_result ttt_npy_write(ttt_ctx *c, const char *path, const ttt_tensor *t) {
    char text[320];
    ttt_file_writer w;
    const ttt__file_type *type = ttt__written_type(t, false);
    int n = snprintf(text + 10, sizeof text - 10, "{'descr': '<%s', 'fortran_order': False, 'shape': (", type->numpy) + 10;
    for (int i = 0; i < t->shape.rank; i++) n += snprintf(text + n, sizeof text - (size_t)n, "%lld,%s", (long long)t->shape.dim[i], i + 1 < t->shape.rank ? " " : "");
    n += snprintf(text + n, sizeof text - (size_t)n, "), }");
    while (n % 64 != 63) text[n++] = ' ';
    text[n++] = '\n';
    memcpy(text, "\x93NUMPY\1\0", 8);
    text[8] = (char)((n - 10) & 255);
    text[9] = (char)((n - 10) >> 8);
    if (!ttt_file_begin(c, &w, path)) return c->result;
    return ttt_file_finish(c, &w, ttt_file_put(&w, text, (size_t)n) && ttt__put_elements(&w, t, type));
}
#endif  // TTT_NO_STDIO

// -- opening and closing
static const ttt__kernels *ttt__kernels_named(const char *name) {
    const ttt__kernels *k = NULL, *next;
    for (int i = 0; (next = ttt__kernels_get(i)) != NULL; i++)
        if (!name || strcmp(name, next->name) == 0) k = next;
    return k;
}

ttt_ctx *ttt_open(const ttt_desc *desc) {
    ttt_desc zero;
    memset(&zero, 0, sizeof zero);
    if (!desc) desc = &zero;
    const ttt__kernels *k = ttt__kernels_named(desc->isa);
    ttt_ctx *c = k ? (ttt_ctx *)TTT_MALLOC(desc->user, sizeof *c) : NULL;
    if (!c) return NULL;
    memset(c, 0, sizeof *c);
    c->desc = *desc;
    c->k = k;
    c->recording = true;
    c->rng.seed = desc->seed;
    c->empty.data = c->nothing;
    c->empty.index = NULL;
    c->empty.id = c->empty.size = 0;
    int wanted = desc->threads < 0 ? ttt__cores() : TTT__MAX(1, desc->threads);
    c->threads = TTT__MIN(wanted, TTT_MAX_THREADS);
    if (c->threads > 1 && !desc->parallel_for && !(c->pool = ttt__pool_open(c))) c->threads = 1;
    for (int i = 0; i < c->threads; i++) {
        c->pack[i] = (ttt_real *)TTT_MALLOC(desc->user, TTT__PACK_REALS * sizeof(ttt_real));
        if (!c->pack[i]) {
            ttt_close(c);
            return NULL;
        }
        c->held += TTT__PACK_REALS * sizeof(ttt_real);
    }
    return c;
}

void ttt_close(ttt_ctx *c) {
    if (!c) return;
    ttt__pool_close(c);
    ttt__arena_free(c, &c->keep);
    ttt__arena_free(c, &c->step);
    ttt__arena_free(c, &c->scratch);
    for (int i = 0; i < TTT_MAX_THREADS; i++)
        if (c->pack[i]) TTT_FREE(c->desc.user, c->pack[i]);
    if (c->nodes) TTT_FREE(c->desc.user, c->nodes);
    if (c->made) TTT_FREE(c->desc.user, c->made);
    TTT_FREE(c->desc.user, c);
}

const char *ttt_isa(const ttt_ctx *c) { return c->k->name; }
int ttt_threads(const ttt_ctx *c) { return c->threads; }

#ifdef __cplusplus
}
#endif

/*  REFERENCES
    Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011.
    Box, Muller: A note on the generation of random normal deviates. 1958.
    Goto, van de Geijn: Anatomy of high-performance matrix multiplication. ACM TOMS 2008.
    Kingma, Ba: Adam: a method for stochastic optimization. ICLR 2015.
    Sun et al.: Learning to (learn at test time). arXiv 2310.13807.

    LICENCE: MIT No Attribution (MIT-0)
    Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
    associated documentation files (the "Software"), to deal in the Software without restriction,
    including without limitation the rights to use, copy, modify, merge, publish, distribute,
    sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
    furnished to do so. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND.
*/
#endif  // TTT_TENSOR_IMPLEMENTED
#endif  // TTT__KERNELS, TTT_TENSOR_IMPLEMENTATION
