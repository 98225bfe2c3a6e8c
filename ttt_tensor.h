/*  ttt_tensor.h - v0.2.0 - tensors whose gradients are tensors, in one C header.

    DO THIS
        #define TTT_IMPLEMENTATION      // in exactly one C or C++ file, before the include
        #include "ttt_tensor.h"
    and compile with  cc -O2 file.c -lm .  Everywhere else just include it.

    AN EXAMPLE: a gradient through a gradient step
        ttt_ctx *c = ttt_open(NULL);
        ttt_tensor *w = ttt_randn(c, TTT_SHAPE(4, 4)), *g, *meta;
        ttt_tensor *k = ttt_randn(c, TTT_SHAPE(9, 4)), *v = ttt_randn(c, TTT_SHAPE(9, 4));

        ttt_tensor *inner = ttt_mse(c, ttt_matmul(c, k, w), v);         // how badly w maps k to v
        ttt_grad(c, inner, &w, 1, &g, TTT_GRAD_RECORD);                 // g = d inner / d w
        ttt_tensor *w1 = ttt_sub(c, w, ttt_scale(c, g, 0.1f));          // one step of learning
        ttt_tensor *outer = ttt_mse(c, ttt_matmul(c, k, w1), v);        // how good w became by it
        ttt_grad(c, outer, &w, 1, &meta, TTT_GRAD_FIRST_ORDER);         // d outer / d w, by the step
        ttt_close(c);

    HOW A GRADIENT THROUGH AN INNER STEP COMES ABOUT
        1. Every operation runs at once and also writes itself on a list, the tape: ttt_matmul returns
           a tensor that holds its numbers, the op that made it, and the tensors it was made from.
        2. ttt_grad walks that list backwards from the loss. Each op has one rule (its vector-Jacobian
           product, "vjp"): given the gradient of its output, the gradient of each input. The rule of
           y = a b, for instance, is da = dy b^T, db = a^T dy.
        3. The rules are written in the operations of this very header. So, with TTT_GRAD_RECORD, walking
           backwards writes new tensors on the same tape, and the gradient g above is a tensor like any
           other: made by matmul and scale from k, v and w.
        4. Then w1 = w - 0.1 g is ordinary arithmetic, and the second ttt_grad walks from `outer` through
           w1, through g, through the matmuls that computed g, back to w. Nothing special happens: the
           derivative of the inner step is there because the step itself is on the tape.
        5. Without TTT_GRAD_RECORD the rules compute just numbers (faster, and their memory is reused). A
           gradient so made cannot be differentiated; trying to is an error, never a silently wrong
           first-order answer. Say ttt_detach where you do mean a constant.
        Sections [6] (the op table), [12] (each op's forward and rule, side by side) and [14] (the walk)
        are these five sentences in code.

    INDEX
        [1] OPTIONS           macros to define before the include
        [2] RESULTS           what can go wrong and how it is told
        [3] CONTEXT           memory, threads, errors, profiles: everything a program of yours shares
        [4] TENSORS           the struct, making them, reading them
        [5] OPERATIONS        what one can compute, with shapes and formulas
        [6] OP TABLE          one row per op; your own ops
        [7] GRADIENTS         ttt_grad, the gradient checker
        and below TTT_TENSOR_IMPLEMENTATION
        [8] KERNELS           loops over numbers, one text for every instruction set
        [9] ARENAS, ERRORS   [10] THREADS   [11] TENSORS, APPLY   [12] OPS: forward and rule, in pairs
        [13] MATRIX PRODUCT   [14] THE WALK BACKWARDS   [15] OPENING, CLOSING, REFERENCES
        More than 4,000 lines: an op stands beside its rule and the kernel that makes it fast.

    CONCEPTS
        Shapes are written with letters: (B,N,D) is batch, tokens, width; H heads; h = D/H head width.
        Data is contiguous, last index fastest. Element type is ttt_real: float, or double if everything
        is compiled with -DTTT_REAL=double (plain C loops then; gradient checks use it). Integers
        count and name. Bytes and bfloat16 are small: they are stored and read; no op gives them.
        No op changes a tensor. What does says so: optimizers, ttt_weights_blend, TTT_GRAD_ADD.
        A context owns everything made in it. Memory comes from two arenas: `keep` for parameters,
        which live as long as the context, and `step` for everything else, which ttt_mark_release rolls back
        to a mark. So a training loop allocates nothing once it has seen its first step:
            for (;;) { ttt_mark m = ttt_mark_get(c);  ...one step...  ttt_mark_release(c, m); }
        It opens no file: what is read and written is in ttt_data.h.
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

#define TTT_VERSION "0.2.0"

// ---- [1] OPTIONS --------------------------------------------------------------------------------
// Define before the include, the same in every file of a program:
//   TTT_REAL             element type, float (default) or double
//   TTT_TENSOR_IMPLEMENTATION    in place of TTT_IMPLEMENTATION, to get this header's alone
//   TTT_STATIC           make all functions static
//   TTT_API              what stands before every function, if neither static nor extern fits
//   TTT_MALLOC(user,n), TTT_REALLOC(user,p,n), TTT_FREE(user,p)    memory; `user` comes from ttt_desc
//   TTT_NO_THREADS       compile the thread pool out
//   TTT_NO_SIMD          plain C loops only
//   TTT_POISON           fill released memory with NaN patterns
#ifndef TTT_REAL
#define TTT_REAL float
#endif
typedef TTT_REAL ttt_real;

#define TTT_MAX_RANK 8
#define TTT_MAX_THREADS 64

#ifndef TTT_API  // noinline: one of these inside another gains no time, and makes the program 7 % larger
#if defined(TTT_STATIC) && defined(__GNUC__)
#define TTT_API static __attribute__((unused, noinline))
#elif defined(TTT_STATIC)
#define TTT_API static
#elif defined(__GNUC__)
#define TTT_API extern __attribute__((noinline))
#else
#define TTT_API extern
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

// ---- [2] RESULTS --------------------------------------------------------------------------------
#define TTT_RESULTS(X)                                                            \
    X(SHAPE, "shapes do not fit")                                                 \
    X(ARGUMENT, "an argument is out of range")                                    \
    X(UNSET, "an option that has no default was not set")                         \
    X(RELEASED, "a tensor was used after its memory was released")                \
    X(FIRST_ORDER, "a gradient that was not recorded would be differentiated")    \
    X(NOT_FINITE, "NaN or infinity appeared where it was being watched for")      \
    X(NO_MEMORY, "out of memory")                                                 \
    X(TOO_BIG, "larger than the limit")                                           \
    X(FILE, "a file could not be read or written")                                \
    X(FORMAT, "a file does not follow its format")

typedef enum ttt_result {
    TTT_OK,
#define X(name, text) TTT_ERR_##name,
    TTT_RESULTS(X)
#undef X
} ttt_result;

TTT_API const char *ttt_result_text(ttt_result r);

// ---- [3] CONTEXT --------------------------------------------------------------------------------
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

// A new context, or NULL if there is no memory for one (or desc names an unknown isa). The three
// questions below take NULL too, so one test at the end covers this as well.
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

// What one thread can do at best on the context's instruction set, measured when asked (about 50 ms):
// multiply-adds between registers (two FLOPs each), and reading memory that is in no cache.
typedef struct ttt_limits {
    double flops, bytes;  // per second
} ttt_limits;
TTT_API ttt_limits ttt_measure_limits(ttt_ctx *c);
TTT_API double ttt_seconds(void);  // the system's clock, for differences; somebody may set it back

// Where the time goes. Between start and stop every op that runs in the context counts its calls, time,
// FLOPs and bytes, in a row for each name and phase. A moment is counted in one row only: what runs
// inside something else (the ops of a rule) belongs to itself. So the seconds of all rows add up to the
// time between start and stop. The row "outside ops" has the time of your own code, the making of
// tensors and whatever else is no op; "walk" that of finding the way back through the tape.
//     ttt_profile_start(c);  ...some steps...  ttt_profile_stop(c);
//     ttt_limits peak = ttt_measure_limits(c);
//     puts(ttt_profile_text(c, &peak, steps, 20));
typedef enum ttt_phase {
    TTT_PHASE_FORWARD,   // called outside of any walk
    TTT_PHASE_RECORDED,  // run by a walk with TTT_GRAD_RECORD: the gradient of an inner step
    TTT_PHASE_BACKWARD   // run by a walk that wants numbers only
} ttt_phase;
TTT_API const char *ttt_phase_name(ttt_phase p);

typedef struct ttt_profile_row {
    const char *name;  // the op's
    ttt_phase phase;
    bool rule;  // the op's rule, in that phase. If made of ops it has little time of its own, and no FLOPs
    int64_t calls;
    double seconds;  // of the calling thread
    double flops;    // by the op table; a fast rule counts its op's once, or twice for two inputs or more
    double bytes;    // inputs read once, result written once, wherever they lie
} ttt_profile_row;

TTT_API void ttt_profile_start(ttt_ctx *c);  // goes on adding where it was stopped
TTT_API void ttt_profile_stop(ttt_ctx *c);
TTT_API void ttt_profile_clear(ttt_ctx *c);  // forgets what was counted
// Writes the `most` rows with the largest times, largest first. Returns how many rows there are.
TTT_API int ttt_profile_rows(const ttt_ctx *c, ttt_profile_row *rows, int most);
// The share of the peak that a row reached, by FLOPs or by bytes, whichever is larger (the "roofline"), and
// in *bound (may be NULL) which: "compute" or "memory"; "neither" below a quarter, where calls are small
// or the FLOPs are no multiply-adds. Bytes from a cache make shares above 1. 0 and "" if it has neither.
TTT_API double ttt_profile_share(const ttt_profile_row *r, const ttt_limits *peak, const char **bound);
// The same as a table, `most` rows and a total, for one of `runs` equal parts of what was profiled (a
// training step). peak may be NULL. Lives in the step arena; "" after an error.
TTT_API const char *ttt_profile_text(ttt_ctx *c, const ttt_limits *peak, int64_t runs, int most);

// Everything made after a mark is gone after its release, and the tape with it; parameters stay. Marks
// are released in the reverse order of their taking, or the outer one alone: an inner one released after
// it would bring places back to life that hold something else by then.
typedef struct ttt_mark {
    void *chunk;
    size_t used, bytes;
    int64_t nodes;
} ttt_mark;
TTT_API ttt_mark ttt_mark_get(ttt_ctx *c);
TTT_API void ttt_mark_release(ttt_ctx *c, ttt_mark m);

// Bytes of a context now and at its highest since ttt_memory_reset: parameters and moments (keep),
// tensors of the current step (step), workspace of gradients and sums (scratch), and what the context holds
// from TTT_MALLOC in all: the arenas' spare room, and 3.4 MB for products on each thread, too.
typedef struct ttt_memory_report {
    size_t keep, step, scratch, held;
    size_t peak;  // highest keep + step + scratch
    int64_t nodes;
} ttt_memory_report;
TTT_API ttt_memory_report ttt_memory(const ttt_ctx *c);
TTT_API void ttt_memory_reset(ttt_ctx *c);
// n bytes, 64-byte aligned, as old as the tensors around them: from the step arena, or from keep.
TTT_API void *ttt_alloc(ttt_ctx *c, size_t n, bool keep);

// Random numbers: Philox4x32-10, a counter-based generator [Salmon 2011]: number `next` of a stream
// is a function of (seed, stream, next), equal on every platform. The state is the struct itself:
// save it, restore it.
typedef struct ttt_rng {
    uint64_t seed, next;
    uint32_t stream[3];
} ttt_rng;
// The stream that a seed and three words of your choice name, at its first number; (seed, 0, 0, 0)
// where one sequence is enough. Streams with different names are independent, so "the crop of image
// c in epoch b" has numbers of its own, whatever was drawn before. A stream has 2^34 numbers, and
// then goes on into the one named (a + 1, b, c). ttt_data.h takes a = 2^31 + 1 .. 2^31 + 4.
TTT_API ttt_rng ttt_rng_at(uint64_t seed, uint32_t a, uint32_t b, uint32_t c);
TTT_API uint32_t ttt_rng_u32(ttt_rng *r);
TTT_API double ttt_rng_uniform(ttt_rng *r);             // [0,1), 32 bits
TTT_API double ttt_rng_normal(ttt_rng *r);              // mean 0, variance 1 (Box and Muller 1958)
TTT_API int64_t ttt_rng_below(ttt_rng *r, int64_t n);   // 0 .. n-1
TTT_API ttt_rng ttt_rng_fold(ttt_rng r, uint64_t data);  // a seed of its own for (r.seed, data)
TTT_API ttt_rng *ttt_ctx_rng(ttt_ctx *c);                // the context's own

// ---- [4] TENSORS --------------------------------------------------------------------------------
// Element types: X(name, C type, the tensor's pointer to the elements, what messages call them).
//   REAL  what ops compute with and what they give: the only one that is differentiated
//   INT   labels, token numbers, positions
//   U8    pixels as they are stored, for ttt_cast; a condition of ttt_where
//   BF16  weights as they are stored, each the upper half of a float: a product's right factor
#define TTT_DTYPES(X)                       \
    X(REAL, ttt_real, data, "real numbers") \
    X(INT, int64_t, index, "integers")      \
    X(U8, uint8_t, u8, "bytes")             \
    X(BF16, uint16_t, bf16, "bfloat16")

typedef enum ttt_dtype {
#define X(name, type, member, text) TTT_DTYPE_##name,
    TTT_DTYPES(X)
#undef X
} ttt_dtype;

typedef struct ttt_shape {
    int rank;
    int64_t dim[TTT_MAX_RANK];
} ttt_shape;

// TTT_SHAPE(2, 3, 4) in C and in C++; ttt_scalar_shape() is the shape of one number.
#define TTT_SHAPE(...) \
    TTT__SHAPE(__VA_ARGS__, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, 0)
#define TTT__SHAPE(a, b, c, d, e, f, g, h, more, ...) ttt_shape_of(a, b, c, d, e, f, g, h, more)
// A ninth size gives rank 9, which no tensor can have.
TTT_API ttt_shape ttt_shape_of(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f, int64_t g, int64_t h, int64_t more);
TTT_API ttt_shape ttt_scalar_shape(void);
TTT_API bool ttt_shape_equal(ttt_shape a, ttt_shape b);
TTT_API int64_t ttt_shape_size(ttt_shape s);  // number of elements; -1 if negative or beyond 2^62
// Writes "(2,3,4)" into text and returns it.
typedef char ttt_text[128];
TTT_API const char *ttt_shape_text(ttt_shape s, char *text /* ttt_text */);

struct ttt_tensor {
    ttt_real *data;    // the elements (dtype TTT_DTYPE_REAL)
    int64_t *index;    // the elements (dtype TTT_DTYPE_INT)
    uint8_t *u8;       // the elements (dtype TTT_DTYPE_U8)
    uint16_t *bf16;    // the elements (dtype TTT_DTYPE_BF16)
    ttt_dtype dtype;   // tells which of the four it is; the others are NULL
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
TTT_API ttt_tensor *ttt_new(ttt_ctx *c, ttt_shape s);  // not initialized
TTT_API ttt_tensor *ttt_zeros(ttt_ctx *c, ttt_shape s);
TTT_API ttt_tensor *ttt_full(ttt_ctx *c, ttt_shape s, ttt_real v);
TTT_API ttt_tensor *ttt_scalar(ttt_ctx *c, ttt_real v);
TTT_API ttt_tensor *ttt_from(ttt_ctx *c, ttt_shape s, const ttt_real *values);      // copies
TTT_API ttt_tensor *ttt_from_int(ttt_ctx *c, ttt_shape s, const int64_t *values);   // copies; dtype INT
TTT_API ttt_tensor *ttt_from_u8(ttt_ctx *c, ttt_shape s, const uint8_t *values);     // copies; U8
TTT_API ttt_tensor *ttt_from_bf16(ttt_ctx *c, ttt_shape s, const uint16_t *values);  // copies; BF16
// Of any type, not initialized, to be filled by the caller; in the keep arena if `keep`.
TTT_API ttt_tensor *ttt_new_typed(ttt_ctx *c, ttt_shape s, ttt_dtype dtype, bool keep);
TTT_API ttt_tensor *ttt_randn(ttt_ctx *c, ttt_shape s);  // normal, by the context's random numbers
TTT_API ttt_tensor *ttt_uniform(ttt_ctx *c, ttt_shape s, ttt_real lo, ttt_real hi);
TTT_API ttt_tensor *ttt_zeros_kept(ttt_ctx *c, ttt_shape s);  // zeros, in the keep arena
TTT_API ttt_real ttt_item(const ttt_tensor *t);  // the number in a real tensor of one, else NaN
TTT_API double ttt_max_abs_diff(const ttt_tensor *a, const ttt_tensor *b);  // NaN if shapes differ
// The same numbers in another element type, as a constant: no gradient goes through. Any type
// becomes REAL, U8 becomes INT, and REAL becomes BF16; what has too many digits is rounded to
// nearest even, and NaN stays NaN. To its own type a tensor is cast by ttt_detach.
// TTT_ERR_ARGUMENT for any other pair: the numbers might not fit.
TTT_API ttt_tensor *ttt_cast(ttt_ctx *c, ttt_tensor *t, ttt_dtype dtype);

// ---- [5] OPERATIONS -----------------------------------------------------------------------------
// Every function here returns a new tensor on the tape, or the empty tensor after an error. Shapes of
// two operands are broadcast as in NumPy: aligned at the right, a size of 1 (or a missing one) repeats.

// One number in, one number out. A row is the whole declaration:
//   X(name, formula, lowest and highest argument of the gradient test, FLOPs an element)
// gives  ttt_tensor *ttt_<name>(ttt_ctx *c, ttt_tensor *a).  *_d1 and *_d2 are first and second
// derivatives, which the rules of [12] need; sign and heaviside have derivative zero, and are 0 at NaN.
#define TTT_UNARY_OPS(X)                                                                           \
    X(exp, "y = e^a", -2, 2, 12)                                                                   \
    X(log, "y = ln a", 0.2, 3, 16)                                                                 \
    X(tanh, "y = tanh a", -2, 2, 20)                                                               \
    X(sigmoid, "y = 1 / (1 + e^-a)", -3, 3, 16)                                                    \
    X(erf, "y = 2/sqrt(pi) integral of e^-t^2 from 0 to a", -2, 2, 24)                             \
    X(abs, "y = |a|", -2, 2, 1)                                                                    \
    X(sign, "y = -1, 0 or 1", -2, 2, 1)                                                            \
    X(relu, "y = max(a, 0)", -2, 2, 1)                                                             \
    X(heaviside, "y = 1 where a > 0, else 0", -2, 2, 1)                                            \
    X(square, "y = a^2", -2, 2, 1)                                                                 \
    X(sqrt, "y = a^(1/2)", 0.3, 3, 8)                                                              \
    X(rsqrt, "y = a^(-1/2)", 0.3, 3, 8)                                                            \
    X(reciprocal, "y = 1 / a", 0.3, 3, 1)                                                          \
    X(gelu, "y = a/2 (1 + tanh(sqrt(2/pi) (a + 0.044715 a^3)))", -3, 3, 22)                        \
    X(gelu_d1, "y = gelu'(a)", -3, 3, 28)                                                          \
    X(gelu_d2, "y = gelu''(a)", -3, 3, 32)                                                         \
    X(gelu_erf, "y = a/2 (1 + erf(a / sqrt 2))", -3, 3, 28)                                        \
    X(gelu_erf_d1, "y = gelu_erf'(a)", -3, 3, 40)                                                  \
    X(gelu_erf_d2, "y = gelu_erf''(a) = (2 - a^2) e^(-a^2/2) / sqrt(2 pi)", -3, 3, 18)             \
    X(silu, "y = a sigmoid(a)", -3, 3, 17)                                                         \
    X(silu_d1, "y = silu'(a)", -3, 3, 20)                                                          \
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
TTT_API ttt_tensor *ttt_add_scalar(ttt_ctx *c, ttt_tensor *a, ttt_real s);  // y = a + s
// y = min(max(a, lo), hi); NaN stays. The gradient passes where lo <= a <= hi, as PyTorch has it.
// TTT_ERR_ARGUMENT unless lo <= hi.
TTT_API ttt_tensor *ttt_clamp(ttt_ctx *c, ttt_tensor *a, ttt_real lo, ttt_real hi);
// y = a^p as C's pow has it: a^0 = 1 for every a; NaN for a < 0 unless p is whole. The gradient is
// p a^(p-1), and so on, at a = 0 too: a^2 has 0, 2, 0. TTT_ERR_ARGUMENT unless p is finite.
TTT_API ttt_tensor *ttt_pow(ttt_ctx *c, ttt_tensor *a, ttt_real p);
// y = a where the condition is not 0, else b; all three are broadcast. The condition is real, INT
// or U8, and has no gradient. What is not taken has gradient 0, be that of y infinite or NaN.
TTT_API ttt_tensor *ttt_where(ttt_ctx *c, ttt_tensor *condition, ttt_tensor *a, ttt_tensor *b);

// y = a m / (1 - p), each m 0 with probability p, else 1 [Srivastava 2014]. The mask is not stored:
// number i of the random numbers of a seed decides about element i, in y and again in every
// gradient. The seed is given, or drawn from the context's random numbers. p = 0 gives a itself,
// and draws nothing. TTT_ERR_ARGUMENT unless 0 <= p < 1.
TTT_API ttt_tensor *ttt_dropout(ttt_ctx *c, ttt_tensor *a, ttt_real p);
TTT_API ttt_tensor *ttt_dropout_seeded(ttt_ctx *c, ttt_tensor *a, ttt_real p, uint64_t seed);

// Products. a (...,m,k), b (...,k,n), y (...,m,n); leading sizes are broadcast. ta: a is stored as
// (...,k,m); tb: b is stored as (...,n,k). Nothing is copied for either. b may be BF16, and has no
// gradient then; the product has the bits of that by ttt_cast(c, b, TTT_DTYPE_REAL).
TTT_API ttt_tensor *ttt_matmul(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b);
TTT_API ttt_tensor *ttt_matmul_t(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb);
// The same, and summed over leading sizes until the result has the given shape: dW = sum_b x_b^T dy_b.
TTT_API ttt_tensor *ttt_matmul_to(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb, ttt_shape y);
// y = a b + add in one pass: add (n), (...,1,n) or (...,m,n), leading sizes broadcast to those of the product.
TTT_API ttt_tensor *ttt_matmul_add(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb, ttt_tensor *add);
TTT_API ttt_tensor *ttt_affine(ttt_ctx *c, ttt_tensor *x, ttt_tensor *w, ttt_tensor *b);  // y = x w + b

// Products of plain arrays, without a tape: for each of `batch` matrices
//     y (m,n) = map(op(a) op(b) + bias) + add
// with op(a) (m,k) and op(b) (k,n). The matrices lie row by row. Zero is a good default for all but
// m, n, k, a, b or b_bf16, and y.
typedef struct ttt_gemm_desc {
    int64_t m, n, k;
    const ttt_real *a, *b;
    const uint16_t *b_bf16;             // in place of b: bfloat16, each the upper half of a float
    ttt_real *y;
    bool ta, tb;                        // a is stored as (k,m); b as (n,k)
    int64_t a_row, b_row, y_row;        // from one row to the next, in elements; 0: no gap
    int64_t batch;                      // 0: one
    int64_t a_step, b_step, y_step;     // from one matrix to the next, in elements; 0 for a, b: the same
    const ttt_real *bias;               // (n), added to every row; NULL: none
    const char *map;                    // an op of one number by its name, as "gelu"; NULL: none
    const ttt_real *add;                // (m,n) with rows y_row apart and steps y_step, y itself for y += ab
} ttt_gemm_desc;
// TTT_ERR_ARGUMENT for negative sizes, a row shorter than what it holds, a missing array, b beside b_bf16,
// results that overlap an operand or each other, a map with add = y (the sums begin with y: it would be
// mapped too).
// Operands' sizes are not checked against memory: C cannot. No op: profiles do not count it.
TTT_API ttt_result ttt_gemm(ttt_ctx *c, const ttt_gemm_desc *d);

// Sums. sum_to adds over every axis where s has 1 (or lacks it); broadcast is its opposite and its rule.
TTT_API ttt_tensor *ttt_sum_to(ttt_ctx *c, ttt_tensor *a, ttt_shape s);
TTT_API ttt_tensor *ttt_broadcast(ttt_ctx *c, ttt_tensor *a, ttt_shape s);
TTT_API ttt_tensor *ttt_sum(ttt_ctx *c, ttt_tensor *a);                 // of all elements: shape ()
TTT_API ttt_tensor *ttt_mean(ttt_ctx *c, ttt_tensor *a);                // likewise; the mean of nothing is 0
TTT_API ttt_tensor *ttt_sum_axis(ttt_ctx *c, ttt_tensor *a, int axis);  // that axis stays, with size 1
TTT_API ttt_tensor *ttt_mean_axis(ttt_ctx *c, ttt_tensor *a, int axis); // negative axes count from the end
TTT_API ttt_tensor *ttt_mse(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b);  // mean (a - b)^2, shape ()

// The largest along an axis. Of several equal ones it is the first, which has all of the gradient,
// as in PyTorch; NaN counts as the largest. TTT_ERR_SHAPE if the axis is empty.
TTT_API ttt_tensor *ttt_max_axis(ttt_ctx *c, ttt_tensor *a, int axis);  // the axis stays, of size 1
// Its place along the axis, which goes: (B,C) gives INT (B), good as labels. A constant.
TTT_API ttt_tensor *ttt_argmax(ttt_ctx *c, ttt_tensor *a, int axis);

// Moving elements about.
TTT_API ttt_tensor *ttt_reshape(ttt_ctx *c, ttt_tensor *a, ttt_shape s);         // shares the data
TTT_API ttt_tensor *ttt_permute(ttt_ctx *c, ttt_tensor *a, const int *order);    // y axis i = a axis order[i]
TTT_API ttt_tensor *ttt_transpose(ttt_ctx *c, ttt_tensor *a);                    // the last two axes
TTT_API ttt_tensor *ttt_slice(ttt_ctx *c, ttt_tensor *a, int axis, int64_t begin, int64_t count);
// a placed at `begin` of an axis of length `length`, zeros around it; slice's opposite and its rule.
TTT_API ttt_tensor *ttt_pad(ttt_ctx *c, ttt_tensor *a, int axis, int64_t begin, int64_t length);
TTT_API ttt_tensor *ttt_concat(ttt_ctx *c, ttt_tensor *const *a, int n, int axis);
// Rows by number: a (...,N,D), index (...,n) of dtype INT, leading sizes broadcast: y (...,n,D) with
// y[i] = a[index[i]]. An index outside 0..N-1 is an error. index_add is its opposite and its rule: adds
// row i of a (...,n,D) to row index[i] of y (...,N,D).
TTT_API ttt_tensor *ttt_index_select(ttt_ctx *c, ttt_tensor *a, ttt_tensor *index);
TTT_API ttt_tensor *ttt_index_add(ttt_ctx *c, ttt_tensor *a, ttt_tensor *index, int64_t N);
// Rows of one table (V,D) for an index (...) of dtype INT, of any shape: y (...,D).
TTT_API ttt_tensor *ttt_embedding(ttt_ctx *c, ttt_tensor *table, ttt_tensor *index);
TTT_API ttt_tensor *ttt_detach(ttt_ctx *c, ttt_tensor *a);  // the same numbers as a constant

// y = (1 + L)^-1 b, or (1 + L)^-T b if transposed: L the part of a (...,n,n) below its diagonal, b (...,n,d)
// with the same leading sizes. By substitution, so it costs no more than the product.
TTT_API ttt_tensor *ttt_solve_lower(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b, bool transposed);

// Along the last axis, of length D.
TTT_API ttt_tensor *ttt_softmax(ttt_ctx *c, ttt_tensor *a);      // y = e^a / sum e^a
TTT_API ttt_tensor *ttt_log_softmax(ttt_ctx *c, ttt_tensor *a);  // y = a - ln sum e^a
// x^ = (a - mu) r with r = (mean (a - mu)^2 + eps)^(-1/2); mu = mean a if centered (layer norm),
// else 0 (RMS norm). rstd gives r, shape (...,1); normalize_d1 is J g, J the (symmetric) Jacobian of
// normalize at a: J g = r (g - mean g - x^ mean(g x^)), the middle term only if centered.
TTT_API ttt_tensor *ttt_layer_normalize(ttt_ctx *c, ttt_tensor *a, ttt_real eps);  // centered
TTT_API ttt_tensor *ttt_rms_normalize(ttt_ctx *c, ttt_tensor *a, ttt_real eps);    // not centered
TTT_API ttt_tensor *ttt_normalize_d1(ttt_ctx *c, ttt_tensor *a, ttt_tensor *g, ttt_real eps, bool centered);
TTT_API ttt_tensor *ttt_rstd(ttt_ctx *c, ttt_tensor *a, ttt_real eps, bool centered);

// ---- [6] OP TABLE -------------------------------------------------------------------------------
// The other ops, one row each: X(name, inputs, formula, lowest and highest argument of the gradient
// test, FLOPs as a function of the result y, shapes of the test's inputs in[0] and in[1], an example
// call; the test supplies ttt_test_index). From the three lists are generated: the names, the table
// ttt_op_table, and a gradient test of orders 1 and 2 for every row. To add an op: write its row, and
// forward, rule and the function that calls it in [12].
#define TTT_OTHER_OPS(X)                                                                           \
    X(scale, 1, "y = s a", -2, 2, y->size, TTT_SHAPE(2, 3), TTT_SHAPE(1),                          \
      ttt_scale(c, in[0], (ttt_real)1.5))                                                          \
    X(add_scalar, 1, "y = a + s", -2, 2, y->size, TTT_SHAPE(2, 3), TTT_SHAPE(1),                   \
      ttt_add_scalar(c, in[0], (ttt_real)1.5))                                                     \
    X(clamp, 1, "y = min(max(a, lo), hi)", -2, 2, 2 * y->size, TTT_SHAPE(2, 3), TTT_SHAPE(1),      \
      ttt_clamp(c, in[0], -1, (ttt_real)0.8))                                                      \
    X(pow, 1, "y = a^p", 0.3, 3, 40 * y->size, TTT_SHAPE(2, 3), TTT_SHAPE(1),                      \
      ttt_pow(c, in[0], (ttt_real)2.5))                                                            \
    X(where, 3, "y = a or b", -2, 2, 0, TTT_SHAPE(2, 1, 5), TTT_SHAPE(3, 1),                       \
      ttt_where(c, ttt_test_index(c), in[0], in[1]))                                               \
    X(dropout, 1, "y = a m / (1 - p)", -2, 2, 20 * y->size, TTT_SHAPE(3, 5), TTT_SHAPE(1),         \
      ttt_dropout_seeded(c, in[0], (ttt_real)0.4, 1))                                              \
    X(matmul, 2, "y = a b", -1, 1, ttt__matmul_flops(y), TTT_SHAPE(2, 1, 3, 4), TTT_SHAPE(3, 4, 2), \
      ttt_matmul(c, in[0], in[1]))                                                                 \
    X(matmul_add, 3, "y = a b + c", -1, 1, ttt__matmul_flops(y), TTT_SHAPE(2, 3, 4), TTT_SHAPE(4, 4), \
      ttt_matmul_add(c, in[0], in[1], false, true, in[0]))                                         \
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
    X(pad, 1, "y[begin .. ) = a, else 0", -2, 2, 0, TTT_SHAPE(2, 3, 2), TTT_SHAPE(1),              \
      ttt_pad(c, in[0], 1, 1, 5))                                                                  \
    X(concat, -1, "y = a, b, ... along an axis", -2, 2, 0, TTT_SHAPE(2, 3, 2), TTT_SHAPE(2, 1, 2), \
      ttt_concat(c, in, 2, 1))                                                                     \
    X(index_select, 2, "y[i] = a[index[i]]", -2, 2, 0, TTT_SHAPE(2, 1, 4, 3), TTT_SHAPE(1),        \
      ttt_index_select(c, in[0], ttt_test_index(c)))                                               \
    X(index_add, 2, "y[index[i]] += a[i]", -2, 2, y->in[0]->size, TTT_SHAPE(2, 3, 5, 3), TTT_SHAPE(1), \
      ttt_index_add(c, in[0], ttt_test_index(c), 4))                                               \
    X(solve_lower, 2, "y = (1 + L)^-1 b, L below the diagonal of a", -1, 1, y->size * y->shape.dim[y->shape.rank - 2], \
      TTT_SHAPE(2, 4, 4), TTT_SHAPE(2, 4, 3), ttt_solve_lower(c, in[0], in[1], false))             \
    X(softmax, 1, "y = e^a / sum e^a", -2, 2, 15 * y->size, TTT_SHAPE(2, 4), TTT_SHAPE(1),         \
      ttt_softmax(c, in[0]))                                                                       \
    X(log_softmax, 1, "y = a - ln sum e^a", -2, 2, 15 * y->size, TTT_SHAPE(2, 4), TTT_SHAPE(1),    \
      ttt_log_softmax(c, in[0]))                                                                   \
    X(normalize, 1, "y = (a - mean) rstd", -2, 2, 6 * y->size, TTT_SHAPE(2, 5), TTT_SHAPE(1),      \
      ttt_layer_normalize(c, in[0], (ttt_real)0.1))                                                \
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

// ---- [7] GRADIENTS ------------------------------------------------------------------------------
typedef enum ttt_grad_mode {
    TTT_GRAD_FIRST_ORDER,  // numbers only: fast; cannot be differentiated again
    TTT_GRAD_RECORD,       // the gradient is on the tape, like any other tensor
    TTT_GRAD_ADD           // as TTT_GRAD_FIRST_ORDER, added to the numbers of the tensors already in out[]. Those are
                      // not marked: to differentiate through them is a missing term, not an error
} ttt_grad_mode;

// out[i] = dy / d wrt[i], for y of one element; zeros where y does not depend on wrt[i]. wrt and out are
// different arrays.
// Errors: y has more elements (TTT_ERR_SHAPE); wrt and out are one array (TTT_ERR_ARGUMENT); y depends on
// wrt through a gradient taken without TTT_GRAD_RECORD and not detached (TTT_ERR_FIRST_ORDER). All of out is
// then the empty tensor; with TTT_GRAD_ADD it stays, and something may have been added.
TTT_API ttt_result ttt_grad(ttt_ctx *c, ttt_tensor *y, ttt_tensor *const *wrt, int n, ttt_tensor **out, ttt_grad_mode mode);
// The same for any y: out[i] = d <seed, y> / d wrt[i], seed of y's shape (a vector-Jacobian product).
TTT_API ttt_result ttt_vjp(ttt_ctx *c, ttt_tensor *y, ttt_tensor *seed, ttt_tensor *const *wrt, int n,
                           ttt_tensor **out, ttt_grad_mode mode);
// Switches the tape off (results are then leaves: inference) or on; returns what it was.
TTT_API bool ttt_set_recording(ttt_ctx *c, bool on);

// y = f(in), of the given shape, as one node that keeps only its inputs: what f makes on the way is
// forgotten, and made again, with the same bits, when a gradient is asked for. PyTorch says
// checkpointing, JAX remat. Costs another forward pass; saves the memory of everything inside [Chen 2016]. f must depend on nothing but in,
// the bytes at `user`, which are copied, and the context's random numbers.
typedef ttt_tensor *ttt_remat_fn(ttt_ctx *c, ttt_tensor *const *in, int n, const void *user);
TTT_API ttt_tensor *ttt_remat(ttt_ctx *c, ttt_remat_fn *f, ttt_tensor *const *in, int n, ttt_shape y, const void *user, size_t user_bytes);

// Checks derivatives of f at x[0..n), leaves whose numbers it moves and puts back. Takes a random
// direction u and returns |a - b| / max(|b|, 1e-3): a the directional derivative of the given order
// (1, 2, ...) by ttt_grad, b the central difference (fourth-order, step h) of the analytic derivative
// one order lower. Build with -DTTT_REAL=double for more than three digits. NaN after an error.
typedef ttt_tensor *ttt_function(ttt_ctx *c, ttt_tensor *const *x, int n, void *user);  // one element
TTT_API double ttt_check_gradient(ttt_ctx *c, ttt_function *f, ttt_tensor *const *x, int n, void *user,
                                  int order, double h);

#ifdef __cplusplus
}
#endif
#endif  // TTT_TENSOR_H

// =================================================================================================
// ---- [8] KERNELS --------------------------------------------------------------------------------
// The loops that do the arithmetic. This text is compiled once for every instruction set: the list
// that follows it includes this header again, which then is only this section (and so does
// ttt_layers.h with its own). A vector is a plain C value here: GCC's and Clang's vector types have
// + - * / and comparisons. With one lane it is a ttt_real and the text is ordinary scalar C: the
// reference for the others, and what other compilers and the double build use. The words:
//   VEC, LANES      a vector and how many reals it has       MASK    what comparing two gives
//   KN(name)        the name with the set's suffix: ttt__exp_avx2
//   INLINE, KERNEL  before a function of vectors, which is never a call; before one that others call
//   NUM(x)          a constant as a ttt_real                 COLS    vectors in a row of the widest tile
//   SQRT, ZIP_LOW, ZIP_HIGH, EVEN_PARTS, ODD_PARTS    see the list of instruction sets below
#ifdef TTT__KERNELS
#if LANES == 1
typedef ttt_real VEC;
typedef int MASK;
INLINE VEC KN(load)(const ttt_real *p) { return *p; }
INLINE void KN(store)(ttt_real *p, VEC v) { *p = v; }
INLINE VEC KN(splat)(ttt_real s) { return s; }
INLINE VEC KN(select)(MASK m, VEC a, VEC b) { return m ? a : b; }
INLINE VEC KN(larger)(VEC a, VEC b) { return a > b || a != a ? a : b; }  // NaN wins
INLINE double KN(total)(VEC v) { return (double)v; }
INLINE ttt_real KN(largest)(VEC v) { return v; }
INLINE VEC KN(exp)(VEC a, VEC s) { (void)s; return TTT__MATH(exp)(a); }
INLINE VEC KN(exp_down)(VEC a, VEC s) { (void)s; return TTT__MATH(exp)(a); }
INLINE VEC KN(exp2_down)(VEC a) { return TTT__MATH(exp2)(a); }
INLINE VEC KN(log)(VEC a, VEC s) { (void)s; return TTT__MATH(log)(a); }
INLINE VEC KN(tanh)(VEC a, VEC s) { (void)s; return TTT__MATH(tanh)(a); }
INLINE VEC KN(erf)(VEC a, VEC s) { (void)s; return TTT__MATH(erf)(a); }
INLINE VEC KN(sqrt)(VEC a, VEC s) { (void)s; return TTT__MATH(sqrt)(a); }
INLINE VEC KN(rsqrt)(VEC a, VEC s) { (void)s; return 1 / TTT__MATH(sqrt)(a); }
INLINE VEC KN(abs)(VEC a, VEC s) { (void)s; return TTT__MATH(fabs)(a); }
INLINE VEC KN(below_zero)(VEC a) { return -TTT__MATH(fabs)(a); }
#else
typedef float VEC __attribute__((vector_size(4 * LANES)));
typedef int32_t MASK __attribute__((vector_size(4 * LANES)));
#if LANES == 4
typedef struct KN(halves) { uint16_t x[LANES]; } KN(halves);
#else
typedef uint16_t KN(halves) __attribute__((vector_size(2 * LANES)));
#endif
typedef float KN(unaligned) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
INLINE VEC KN(load)(const float *p) { return *(const KN(unaligned) *)p; }
INLINE void KN(store)(float *p, VEC v) { *(KN(unaligned) *)p = v; }
INLINE VEC KN(splat)(float s) { VEC z = { 0 }; return z + s; }
INLINE MASK KN(bits)(VEC v) { return (MASK)v; }
INLINE VEC KN(from_bits)(MASK m) { return (VEC)m; }
INLINE VEC KN(select)(MASK m, VEC a, VEC b) { return (VEC)((m & (MASK)a) | (~m & (MASK)b)); }

// All lanes together, in pairs, always in the same order.
#if LANES == 4
#define TTT__FOLD_PARTS(v, f)
#elif LANES == 8
#define TTT__FOLD_PARTS(v, f) v = f(EVEN_PARTS(v, v), ODD_PARTS(v, v));
#else
#define TTT__FOLD_PARTS(v, f)               \
    v = f(EVEN_PARTS(v, v), ODD_PARTS(v, v)); \
    v = f(EVEN_PARTS(v, v), ODD_PARTS(v, v));
#endif
INLINE VEC KN(plus)(VEC a, VEC b) { return a + b; }
INLINE VEC KN(larger)(VEC a, VEC b) { return KN(select)((a > b) | (a != a), a, b); }  // NaN wins
INLINE double KN(total)(VEC v) {
    TTT__FOLD_PARTS(v, KN(plus))
    v = ZIP_LOW(v, v) + ZIP_HIGH(v, v);
    return (double)(v[0] + v[2]);
}
INLINE float KN(largest)(VEC v) {
    TTT__FOLD_PARTS(v, KN(larger))
    v = KN(larger)(ZIP_LOW(v, v), ZIP_HIGH(v, v));
    return v[0] > v[2] || v[0] != v[0] ? v[0] : v[2];
}
#undef TTT__FOLD_PARTS

// 2^n times v for whole n in [-160, 160], in two factors so that a subnormal result is still right.
INLINE VEC KN(ldexp)(VEC v, MASK n) {
    MASK half = n >> 1;
    return v * KN(from_bits)((half + 127) << 23) * KN(from_bits)((n - half + 127) << 23);
}

// e^a = 2^n e^r with n = round(a / ln 2), |r| <= ln 2 / 2; e^r = 1 + r + r^2 P(r), P a minimax
// polynomial (relative error 3e-9). Adding and subtracting 1.5 2^23 rounds to a whole number, which
// then stands in the low bits. Below 1.5 ulp.
INLINE VEC KN(exp_rest)(VEC a, VEC n) {  // e^r
    VEC r = a - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    VEC p = r * 1.39504892e-3f + 8.36888956e-3f;
    p = p * r + 4.16662058e-2f;
    p = p * r + 1.66665188e-1f;
    p = p * r + 0.5f;
    return p * (r * r) + r + 1.0f;
}
INLINE VEC KN(exp)(VEC a, VEC s) {
    (void)s;
    const float magic = 12582912.0f;
    VEC x = KN(select)(a > 89.0f, KN(splat)(89.0f), a);  // NaN stays
    x = KN(select)(x < -105.0f, KN(splat)(-105.0f), x);
    VEC shifted = x * 1.44269504f + magic;
    return KN(ldexp)(KN(exp_rest)(x, shifted - magic), KN(bits)(shifted) - KN(bits)(KN(splat)(magic)));
}
// The same for a < 60, most often e^-|a|: the power is 2^(n + 32) 2^-32, and the first factor's exponent,
// n + 32 + 127, comes out of the rounding as it is to stand.
INLINE VEC KN(exp_down)(VEC a, VEC s) {
    (void)s;
    const float magic = 12582912.0f + 159.0f;
    VEC x = KN(select)(a < -105.0f, KN(splat)(-105.0f), a), shifted = x * 1.44269504f + magic;
    return KN(exp_rest)(x, shifted - magic) * KN(from_bits)(KN(bits)(shifted) << 23) * 2.3283064e-10f;
}
// 2^a for a <= 0, where subnormals may be 0: a - n is exact, n + 127 is the exponent, and that of 0 is 0.
INLINE VEC KN(exp2_down)(VEC a) {
    const float magic = 12582912.0f + 127.0f;
    VEC x = KN(select)(a < -127.0f, KN(splat)(-127.0f), a), shifted = x + magic, r = x - (shifted - magic);
    VEC p = r * 1.55946782e-4f + 1.34066439e-3f;  // 2^r = 1 + r P(r), |r| <= 1/2 (relative error 3e-9)
    p = p * r + 9.61769297e-3f;
    p = p * r + 5.55031055e-2f;
    p = p * r + 2.40226528e-1f;
    p = p * r + 6.93147215e-1f;
    return (p * r + 1.0f) * KN(from_bits)(KN(bits)(shifted) << 23);
}

// ln a = k ln 2 + ln(1 + f), a = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt 2);
// ln(1 + f) = f - f^2/2 + f^3 P(f). Subnormals are scaled up first. Below 1.5 ulp.
INLINE VEC KN(log)(VEC a, VEC s) {
    (void)s;
    MASK tiny = a < 1.17549435e-38f;
    VEC x = KN(select)(tiny, a * 8388608.0f, a);
    MASK bits = KN(bits)(x) & 0x7fffffff, k = ((bits - 0x3f3504f3) >> 23);  // 0x3f3504f3 is sqrt(1/2)
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
    y = KN(select)(a <= 3.4028235e38f, y, a);                      // infinity and NaN stay
    y = KN(select)(a > 0.0f, y, KN(splat)(0.0f) / (a * 0.0f));     // ln of a negative number: NaN
    return KN(select)(a == 0.0f, KN(splat)(-1.0f) / KN(splat)(0.0f), y);
}

INLINE VEC KN(abs)(VEC a, VEC s) { (void)s; return KN(from_bits)(KN(bits)(a) & 0x7fffffff); }
INLINE VEC KN(below_zero)(VEC a) { return KN(from_bits)(KN(bits)(a) | ~0x7fffffff); }  // -|a|
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
    return KN(copysign)(KN(select)(x < 0.625f, p * z * x + x, large), a);
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
    VEC large = KN(copysign)(1.0f - KN(exp_down)(r, s), a);
    return KN(select)(x >= 1.0f, large, q * a + a);
}

// Correctly rounded: the machine's own instruction, for which compilers have no word on vectors.
INLINE VEC KN(sqrt)(VEC a, VEC s) {
    VEC y = s;
    SQRT(y, a);
    return y;
}
INLINE VEC KN(rsqrt)(VEC a, VEC s) { return 1.0f / KN(sqrt)(a, s); }
#endif

// The other functions of one number; s is the scalar argument that scale and add_scalar have.
INLINE VEC KN(scale)(VEC a, VEC s) { return a * s; }
INLINE VEC KN(add_scalar)(VEC a, VEC s) { return a + s; }
INLINE VEC KN(square)(VEC a, VEC s) { (void)s; return a * a; }
INLINE VEC KN(reciprocal)(VEC a, VEC s) { (void)s; return NUM(1) / a; }
INLINE VEC KN(relu)(VEC a, VEC s) { (void)s; return KN(select)(a < NUM(0), KN(splat)(0), a); }
INLINE VEC KN(heaviside)(VEC a, VEC s) { (void)s; return KN(select)(a > NUM(0), KN(splat)(1), KN(splat)(0)); }
INLINE VEC KN(sign)(VEC a, VEC s) { return KN(heaviside)(a, s) - KN(heaviside)(-a, s); }

// From e = e^-|a|, which never overflows, so that both tails keep their digits.
INLINE VEC KN(sigmoid_from)(VEC e, VEC a) {
    VEC one = KN(splat)(1);
    return KN(select)(a < NUM(0), e, one) / (one + e);
}
INLINE VEC KN(sigmoid)(VEC a, VEC s) { return KN(sigmoid_from)(KN(exp_down)(KN(below_zero)(a), s), a); }

// The same s, and its derivatives p = s (1 - s) and q = p (1 - 2 s), in which 1 - s would lose the digits of
// the upper tail.
INLINE VEC KN(sigmoids_from)(VEC e, VEC a, VEC *p, VEC *q) {
    VEC one = KN(splat)(1), r = one / (one + e);
    *p = e * r * r;
    *q = *p * r * KN(select)(a < NUM(0), one - e, e - one);
    return KN(select)(a < NUM(0), e, one) * r;
}
INLINE VEC KN(sigmoids)(VEC a, VEC s, VEC *p, VEC *q) { return KN(sigmoids_from)(KN(exp_down)(KN(below_zero)(a), s), a, p, q); }
// y where the factor p has not died out, else its limit there: 0 times a huge a would be NaN.
INLINE VEC KN(alive)(VEC p, VEC y, VEC limit) { return KN(select)(p == NUM(0), limit, y); }

// gelu(a) = a sigmoid(u), u = 2 sqrt(2/pi) (a + 0.044715 a^3), since (1 + tanh(u/2)) / 2 = sigmoid(u); u has a's sign.
// e^-|u| = 2^-|u log2 e|: the constants are 2 sqrt(2/pi) log2 e, and 0.044715 of that.
INLINE VEC KN(gelu_fall)(VEC a) { return KN(exp2_down)(KN(below_zero)(a * (a * a * NUM(0.1029432395800235) + NUM(2.302208198144325)))); }
INLINE VEC KN(gelu_du)(VEC a) { return a * a * NUM(0.21406444881780073) + NUM(1.5957691216057308); }
INLINE VEC KN(gelu)(VEC a, VEC s) { (void)s; return a * KN(sigmoid_from)(KN(gelu_fall)(a), a); }
INLINE VEC KN(gelu_d1)(VEC a, VEC s) {
    VEC p, q, g = KN(sigmoids_from)(KN(gelu_fall)(a), a, &p, &q);
    (void)s;
    return KN(alive)(p, g + a * p * KN(gelu_du)(a), g);
}
INLINE VEC KN(gelu_d2)(VEC a, VEC s) {
    VEC p, q, du = KN(gelu_du)(a);
    (void)s;
    (void)KN(sigmoids_from)(KN(gelu_fall)(a), a, &p, &q);
    return KN(alive)(p, NUM(2) * p * du + a * (q * du * du + p * a * NUM(0.42812889763560147)), p);
}

// gelu_erf(a) = a Phi(a), Phi the normal distribution, phi its density.
INLINE VEC KN(phi)(VEC a, VEC s) { return KN(exp_down)(a * a * NUM(-0.5), s) * NUM(0.3989422804014327); }
INLINE VEC KN(Phi)(VEC a, VEC s) { return KN(erf)(a * NUM(0.7071067811865476), s) * NUM(0.5) + NUM(0.5); }
INLINE VEC KN(gelu_erf)(VEC a, VEC s) { return a * KN(Phi)(a, s); }
INLINE VEC KN(gelu_erf_d1)(VEC a, VEC s) {
    VEC p = KN(phi)(a, s), P = KN(Phi)(a, s);
    return KN(alive)(p, P + a * p, P);
}
INLINE VEC KN(gelu_erf_d2)(VEC a, VEC s) {
    VEC p = KN(phi)(a, s);
    return KN(alive)(p, (NUM(2) - a * a) * p, p);
}

INLINE VEC KN(silu)(VEC a, VEC s) { return a * KN(sigmoid)(a, s); }
INLINE VEC KN(silu_d1)(VEC a, VEC s) {
    VEC p, q, g = KN(sigmoids)(a, s, &p, &q);
    return KN(alive)(p, g + a * p, g);
}
INLINE VEC KN(silu_d2)(VEC a, VEC s) {
    VEC p, q;
    (void)KN(sigmoids)(a, s, &p, &q);
    return KN(alive)(p, NUM(2) * p + a * q, p);
}

INLINE VEC KN(add)(VEC a, VEC b) { return a + b; }
INLINE VEC KN(sub)(VEC a, VEC b) { return a - b; }
INLINE VEC KN(mul)(VEC a, VEC b) { return a * b; }
INLINE VEC KN(div)(VEC a, VEC b) { return a / b; }

// The first n < LANES elements of a vector; the others are zero. Once a row, hence not compiled into each that wants it.
RARE VEC KN(load_part)(const ttt_real *p, int64_t n) {
    ttt_real x[LANES] = { 0 };
    for (int64_t i = 0; i < n; i++) x[i] = p[i];
    return KN(load)(x);
}
RARE void KN(store_part)(ttt_real *p, VEC v, int64_t n) {
    ttt_real x[LANES];
    KN(store)(x, v);
    for (int64_t i = 0; i < n; i++) p[i] = x[i];
}

// y[i] = f(a[i]), for every op of one number. What is left at the end goes through a whole vector by a
// second call, so that f, which is long, is compiled into the function once.
#define X(name, formula, lo, hi, flops)                                                          \
    KERNEL void KN(map_##name)(int64_t n, const ttt_real *a, ttt_real *y, ttt_real scalar) {     \
        VEC s = KN(splat)(scalar);                                                               \
        int64_t i = 0;                                                                           \
        for (; i + LANES <= n; i += LANES) KN(store)(y + i, KN(name)(KN(load)(a + i), s));       \
        if (LANES == 1 || i == n) return;                                                        \
        ttt_real x[LANES];                                                                       \
        KN(store)(x, KN(load_part)(a + i, n - i));                                               \
        KN(map_##name)(LANES, x, x, scalar);                                                     \
        KN(store_part)(y + i, KN(load)(x), n - i);                                               \
    }
TTT_UNARY_OPS(X)
X(scale, , , , ) X(add_scalar, , , , )
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

// Elements i .. i+n-1 of a row, zeros behind them; a whole vector if there are more than that.
INLINE VEC KN(part)(const ttt_real *p, int64_t i, int64_t n) {
    return n >= LANES ? KN(load)(p + i) : KN(load_part)(p + i, n);
}
// The same of bfloat16, which is the upper half of a float.
INLINE VEC KN(part16)(const uint16_t *p, int64_t i, int64_t n) {
#if LANES == 1
    uint32_t bits = (uint32_t)p[i] << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    (void)n;
    return NUM(y);
#else
    KN(halves) h = { 0 };
    if (n >= LANES) memcpy(&h, p + i, sizeof h);
    else memcpy(&h, p + i, (size_t)n * sizeof *p);
    MASK bits = { 0 };
#if LANES == 4  // converting 8 bytes at once would go through the old MMX registers
    TTT__UNROLL for (int l = 0; l < LANES; l++) bits[l] = h.x[l];
#else
    bits = __builtin_convertvector(h, MASK);
#endif
    return KN(from_bits)(bits << 16);
#endif
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
// The sum of term(i, n) over a row, in eight vectors: each addition waits four cycles for the one before
// it, and two can begin in a cycle. Closed into a double every 1024 elements, so that the error does not
// grow with the row.
#ifndef TTT__ROW_SUM
#define TTT__ROW_SUM(result, n, term)                                                               \
    double result = 0;                                                                              \
    for (int64_t begin = 0; begin < (n); begin += 1024) {                                           \
        int64_t end = begin + 1024 < (n) ? begin + 1024 : (n), i = begin;                           \
        VEC acc[8];                                                                                 \
        TTT__UNROLL for (int u = 0; u < 8; u++) acc[u] = KN(splat)(0);                              \
        for (; i + 8 * LANES <= end; i += 8 * LANES)                                                \
            TTT__UNROLL for (int u = 0; u < 8; u++) acc[u] += term(i + u * LANES, LANES);           \
        if (i + 4 * LANES <= end) {  /* heads are often this narrow */                              \
            TTT__UNROLL for (int u = 0; u < 4; u++) acc[u] += term(i + u * LANES, LANES);           \
            i += 4 * LANES;                                                                         \
        }                                                                                           \
        for (; i + LANES <= end; i += LANES) acc[0] += term(i, LANES);                              \
        if (i < end) acc[0] += term(i, end - i);                                                    \
        acc[0] = ((acc[0] + acc[1]) + (acc[2] + acc[3])) + ((acc[4] + acc[5]) + (acc[6] + acc[7])); \
        result += KN(total)(acc[0]);                                                                \
    }
// A row in vectors, the last one perhaps not whole.
#define TTT__ROW_EACH(n, term) TTT__ROW_FROM(0, n, term)
#define TTT__ROW_FROM(from, to, term)                          \
    {                                                          \
        int64_t i = (from);                                    \
        for (; i + LANES <= (to); i += LANES) term(i, LANES);  \
        if (i < (to)) term(i, (to) - i);                       \
    }
#endif

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
    VEC max = KN(splat)(a[0]);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) max = KN(larger)(max, KN(load)(a + i));
    for (; i < n; i++) max = KN(larger)(max, KN(splat)(a[i]));
    return KN(largest)(max);
}

INLINE void KN(exp_part)(const ttt_real *a, ttt_real *y, int64_t i, int64_t n, VEC scale, VEC shift, VEC *sum) {
    VEC e = KN(exp_down)(KN(part)(a, i, n) * scale - shift, shift);
    KN(put)(y, i, n, e);
    *sum += KN(first)(e, n);
}
// y = e^(scale a - shift), no power above 60; returns the sum, closed into a double every 1024 elements as TTT__ROW_SUM does.
KERNEL double KN(exp_sum)(int64_t n, const ttt_real *a, ttt_real *y, ttt_real scale, ttt_real shift) {
    double sum = 0;
    for (; n > 0; n -= 1024, a += 1024, y += 1024) {
        VEC f = KN(splat)(scale), s = KN(splat)(shift), block = KN(splat)(0);
        int64_t m = n < 1024 ? n : 1024;
#define TERM(i, n) KN(exp_part)(a, y, i, n, f, s, &block)
        TTT__ROW_EACH(m, TERM)
#undef TERM
        sum += KN(total)(block);
    }
    return sum;
}
KERNEL void KN(softmax)(int64_t n, const ttt_real *a, ttt_real *y) {
    double sum = KN(exp_sum)(n, a, y, 1, KN(row_max)(n, a));
    KN(map_scale)(n, y, y, NUM(1 / sum));
}
KERNEL void KN(log_softmax)(int64_t n, const ttt_real *a, ttt_real *y) {
    ttt_real max = KN(row_max)(n, a);
    VEC m = KN(splat)(max), log_sum = KN(splat)(NUM(log(KN(exp_sum)(n, a, y, 1, max))));
#define TERM(i, n) KN(put)(y, i, n, KN(part)(a, i, n) - m - log_sum)  // m + log_sum would round at the size of m
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// mean and r = (mean (a - mean)^2 + eps)^(-1/2) of a row; mean is 0 unless centered.
INLINE VEC KN(deviation2)(const ttt_real *a, int64_t i, int64_t n, VEC mean) {
    VEC d = KN(first)(KN(part)(a, i, n) - mean, n);
    return d * d;
}
KERNEL void KN(moments)(int64_t n, const ttt_real *a, double eps, bool centered, ttt_real *mean, ttt_real *r) {
    double share = 1 / (double)n;  // beforehand: a division at the end of a sum would be waited for
    *mean = centered ? NUM(KN(sum)(n, a) * share) : 0;
    VEC m = KN(splat)(*mean);
    const ttt_real *next = centered ? a + n : a;  // the second pass finds a row near, and has time to ask for the row after it
#define TERM(i, n) (TTT__PREFETCH(next + (i)), KN(deviation2)(a, i, n, m))
    TTT__ROW_SUM(sum, n, TERM)
#undef TERM
    *r = NUM(1 / sqrt(sum * share + eps));
}
KERNEL void KN(normalize)(int64_t n, const ttt_real *a, ttt_real *y, double eps, bool centered) {
    ttt_real mean, r;
    KN(moments)(n, a, eps, centered, &mean, &r);
    VEC m = KN(splat)(mean), rv = KN(splat)(r);
#define TERM(i, n) KN(put)(y, i, n, (KN(part)(a, i, n) - m) * rv)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}
// y = r (g - mean g - x^ mean(g x^)), x^ = (a - mean) r.
KERNEL void KN(normalize_d1)(int64_t n, const ttt_real *a, const ttt_real *g, ttt_real *y, double eps, bool centered) {
    ttt_real mean, r;
    KN(moments)(n, a, eps, centered, &mean, &r);
    VEC m = KN(splat)(mean), rv = KN(splat)(r);
#define TERM(i, n) KN(part)(g, i, n) * KN(first)((KN(part)(a, i, n) - m) * rv, n)
    TTT__ROW_SUM(gx, n, TERM)
#undef TERM
    VEC mean_g = KN(splat)(centered ? NUM(KN(sum)(n, g) / (double)n) : 0), mean_gx = KN(splat)(NUM(gx / (double)n));
#define TERM(i, n) KN(put)(y, i, n, (KN(part)(g, i, n) - mean_g - (KN(part)(a, i, n) - m) * rv * mean_gx) * rv)
    TTT__ROW_EACH(n, TERM)
#undef TERM
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
    VEC acc[TTT__MAX_ROWS][COLS];
    TTT__UNROLL for (int i = 0; i < rows; i++) {
        TTT__UNROLL for (int j = 0; j < cols; j++) acc[i][j] = init ? KN(load)(init + j * LANES) : KN(splat)(0);
        if (init) init += init_row;
    }
    const ttt_real *a8 = a + 8 * a_row;  // sixteen rows need more addresses than there are registers; twice eight do not
    if (rows > 8) TTT__UNRELATED(a8);
    if (k >= 128)  // asked for now, c is at hand by the end of the sum; a shorter one would end before
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < cols; j++) TTT__PREFETCH(c + i * c_row + j * LANES);
    for (; k > 0; k--, a += a_col, a8 += a_col, b += b_row) {
        VEC bv[COLS];
        TTT__UNROLL for (int j = 0; j < cols; j++) bv[j] = KN(load)(b + j * LANES);
        TTT__UNROLL for (int i = 0; i < rows; i++) {
            ttt_real s = i < 8 ? a[i * a_row] : a8[(i - 8) * a_row];
            TTT__UNROLL for (int j = 0; j < cols; j++) acc[i][j] += s * bv[j];
        }
    }
    TTT__UNROLL for (int i = 0; i < rows; i++, c += c_row)
        TTT__UNROLL for (int j = 0; j < cols; j++) KN(store)(c + j * LANES, acc[i][j]);
}
// n rounds of as many independent multiply-adds as a tile has sums: the fastest this machine can do them.
KERNEL double KN(multiply_adds)(int64_t n) {
    VEC acc[TTT__TILE_ROWS][COLS], scale = KN(splat)(NUM(0.5)), term = KN(splat)(1), all = KN(splat)(0);
    TTT__UNROLL for (int i = 0; i < TTT__TILE_ROWS; i++)
        TTT__UNROLL for (int j = 0; j < COLS; j++) acc[i][j] = KN(splat)(NUM(i * COLS + j));
    for (; n > 0; n--)
        TTT__UNROLL for (int i = 0; i < TTT__TILE_ROWS; i++)
            TTT__UNROLL for (int j = 0; j < COLS; j++) acc[i][j] = acc[i][j] * scale + term;
    TTT__UNROLL for (int i = 0; i < TTT__TILE_ROWS; i++)
        TTT__UNROLL for (int j = 0; j < COLS; j++) all += acc[i][j];
    return KN(total)(all);
}
#define TILE(rows, cols)                                                                              \
    KERNEL void KN(tile_##rows##_##cols)(int64_t k, const ttt_real *a, int64_t a_row, int64_t a_col,  \
                                         const ttt_real *b, int64_t b_row, const ttt_real *init,      \
                                         int64_t init_row, ttt_real *c, int64_t c_row) {              \
        KN(tile)(rows, cols, k, a, a_row, a_col, b, b_row, init, init_row, c, c_row);                 \
    }
#define TILES_6(cols) TILE(1, cols) TILE(2, cols) TILE(3, cols) TILE(4, cols) TILE(5, cols) TILE(6, cols)
#define TILES_8(cols) TILES_6(cols) TILE(7, cols) TILE(8, cols)
#define TILES_12(cols) TILES_8(cols) TILE(9, cols) TILE(10, cols) TILE(11, cols) TILE(12, cols)
#define TILES_16(cols) TILES_12(cols) TILE(13, cols) TILE(14, cols) TILE(15, cols) TILE(16, cols)
#if LANES == 1
TILES_6(1)
TILES_6(2)
TILES_6(3)
TILES_6(4)
#elif COLS == 4
TILES_16(1)
TILES_12(2)
TILES_8(3)
TILES_6(4)
#else
TILES_12(1)
TILES_6(2)
#endif
#undef TILE

// The two ways to multiply one row a (k) by a matrix; reading the matrix is what takes the time, so both
// go through it in the order in which it lies. b is float, or bfloat16 if that is what is given.
INLINE VEC KN(matrix_part)(const ttt_real *b, const uint16_t *bf16, int64_t i, int64_t n) {
    return bf16 ? KN(part16)(bf16, i, n) : KN(part)(b, i, n);
}
// b (n,k), y[j] = init[j] + <a, b[j]>: eight sums at once, since each addition waits four cycles for the
// one before it and two can begin in a cycle; and memory is asked for 4 kB ahead, a page, as the
// processor's own guess stops where a page ends.
INLINE void KN(dots)(int64_t n, int64_t k, const ttt_real *a, const ttt_real *b, const uint16_t *bf16,
                     int64_t b_row, const ttt_real *init, ttt_real *y) {
    for (int64_t j = 0; j < n; j++) {
        VEC acc[8];
        int64_t i = 0;
        TTT__UNROLL for (int u = 0; u < 8; u++) acc[u] = KN(splat)(0);
        for (; i + 8 * LANES <= k; i += 8 * LANES)
            TTT__UNROLL for (int u = 0; u < 8; u++) {
                if (bf16) TTT__PREFETCH(bf16 + i + u * LANES + 2048);
                else TTT__PREFETCH(b + i + u * LANES + 1024);
                acc[u] += KN(load)(a + i + u * LANES) * KN(matrix_part)(b, bf16, i + u * LANES, LANES);
            }
        for (; i < k; i += LANES) acc[0] += KN(part)(a, i, k - i) * KN(matrix_part)(b, bf16, i, k - i);
        TTT__UNROLL for (int half = 4; half > 0; half /= 2)
            TTT__UNROLL for (int u = 0; u < half; u++) acc[u] += acc[u + half];
        y[j] = NUM(KN(total)(acc[0])) + (init ? init[j] : 0);
        if (bf16) bf16 += b_row;
        else b += b_row;
    }
}
// y += a[0] b[0] + ... of `rows` rows of b, which is a constant where this is used.
INLINE void KN(add_rows)(int rows, int64_t n, const ttt_real *a, int64_t a_step, const ttt_real *b, const uint16_t *bf16,
                         int64_t b_row, ttt_real *y) {
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        VEC sum = KN(load)(y + j);
        if (rows == 1 && bf16) TTT__PREFETCH(bf16 + j + 2048);
        if (rows == 1 && b) TTT__PREFETCH(b + j + 1024);
        TTT__UNROLL for (int r = 0; r < rows; r++) sum += a[r * a_step] * KN(matrix_part)(b, bf16, j + r * b_row, LANES);
        KN(store)(y + j, sum);
    }
    if (j == n) return;
    VEC sum = KN(part)(y, j, n - j);
    for (int r = 0; r < rows; r++) sum += a[r * a_step] * KN(first)(KN(matrix_part)(b, bf16, j + r * b_row, n - j), n - j);
    KN(put)(y, j, n - j, sum);
}
// b (k,n), y = init + sum over i of a[i] b[i]: row by row, which reads b in one stream; or eight at a time, so that y
// is read and written seldom, if it is not small (16 kB) or b (16 MB) has to come from memory.
INLINE void KN(combine)(int64_t n, int64_t k, const ttt_real *a, int64_t a_step, const ttt_real *b,
                        const uint16_t *bf16, int64_t b_row, const ttt_real *init, ttt_real *y) {
    int64_t i = 0;
    for (int64_t j = 0; j < n; j += LANES) KN(put)(y, j, n - j, init ? KN(part)(init, j, n - j) : KN(splat)(0));
    for (; (n >= 4096 || n * k > 1 << 22) && i + 8 <= k; i += 8)
        KN(add_rows)(8, n, a + i * a_step, a_step, bf16 ? NULL : b + i * b_row, bf16 ? bf16 + i * b_row : NULL, b_row, y);
    for (; i < k; i++)
        KN(add_rows)(1, n, a + i * a_step, a_step, bf16 ? NULL : b + i * b_row, bf16 ? bf16 + i * b_row : NULL, b_row, y);
}
KERNEL void KN(row_by_columns)(int64_t n, int64_t k, const ttt_real *a, const ttt_real *b, const uint16_t *bf16,
                               int64_t b_row, const ttt_real *init, ttt_real *y) {
    if (bf16) KN(dots)(n, k, a, NULL, bf16, b_row, init, y);
    else KN(dots)(n, k, a, b, NULL, b_row, init, y);
}
KERNEL void KN(row_by_rows)(int64_t n, int64_t k, const ttt_real *a, int64_t a_step, const ttt_real *b,
                            const uint16_t *bf16, int64_t b_row, const ttt_real *init, ttt_real *y) {
    if (bf16) KN(combine)(n, k, a, a_step, NULL, bf16, b_row, init, y);
    else KN(combine)(n, k, a, a_step, b, NULL, b_row, init, y);
}
KERNEL void KN(widen)(int64_t n, const uint16_t *a, ttt_real *y) {  // bfloat16 to ttt_real
    for (int64_t i = 0; i < n; i += LANES) KN(put)(y, i, n - i, KN(part16)(a, i, n - i));
}

// LANES rows of four columns, read by rows and written by columns: y[j * y_row + i] = a[i * a_row + j]. A vector takes
// its parts of four numbers from rows four apart; what is left are transposes of four by four, one inside each part.
#if LANES > 1
INLINE VEC KN(load_parts)(const float *p, int64_t step) {
#if LANES == 4
    (void)step;
    return KN(load)(p);
#elif defined(TTT__JOINS) && LANES == 8
    return TTT__JOIN_8(p, p + step);
#elif defined(TTT__JOINS)
    return TTT__SHUFFLE(TTT__JOIN_8(p, p + step), TTT__JOIN_8(p + 2 * step, p + 3 * step), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#else  // an older GCC does not join vectors, but makes one of numbers; fewest if they are read as doubles
    typedef double pair __attribute__((aligned(4), may_alias));
    double x __attribute__((vector_size(4 * LANES)));
    TTT__UNROLL for (int i = 0; i < LANES / 2; i++) x[i] = ((const pair *)(p + i / 2 * step))[i % 2];
    return (VEC)x;
#endif
}
#endif
INLINE void KN(transpose_block)(const ttt_real *a, int64_t a_row, ttt_real *y, int64_t y_row) {
#if LANES == 1
    for (int j = 0; j < 4; j++) y[j * y_row] = a[j];
    (void)a_row;
#else
    VEC x0 = KN(load_parts)(a, 4 * a_row), x1 = KN(load_parts)(a + a_row, 4 * a_row);
    VEC x2 = KN(load_parts)(a + 2 * a_row, 4 * a_row), x3 = KN(load_parts)(a + 3 * a_row, 4 * a_row);
    VEC low02 = ZIP_LOW(x0, x2), low13 = ZIP_LOW(x1, x3), high02 = ZIP_HIGH(x0, x2), high13 = ZIP_HIGH(x1, x3);
    KN(store)(y, ZIP_LOW(low02, low13));
    KN(store)(y + y_row, ZIP_HIGH(low02, low13));
    KN(store)(y + 2 * y_row, ZIP_LOW(high02, high13));
    KN(store)(y + 3 * y_row, ZIP_HIGH(high02, high13));
#endif
}
// y (n,m) = the transpose of a (m,n); y_row >= m.
KERNEL void KN(transpose)(int64_t m, int64_t n, const ttt_real *a, int64_t a_row, ttt_real *y, int64_t y_row) {
    int64_t m_whole = m - m % LANES, n_whole = n - n % 4;
    for (int64_t i = 0; i < m_whole; i += LANES)
        for (int64_t j = 0; j < n_whole; j += 4)
            KN(transpose_block)(a + i * a_row + j, a_row, y + j * y_row + i, y_row);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = i < m_whole ? n_whole : 0; j < n; j++) y[j * y_row + i] = a[i * a_row + j];
}

// One pass of an optimizer over a parameter p: with the gradient g' = k.gradient g + k.l2 p,
// Adam [Kingma 2015]: m = b1 m + (1-b1) g', v = b2 v + (1-b2) g'^2, u = (m c1) / (sqrt(v c2) + eps),
// c1 and c2 the bias corrections 1 / (1 - b^t); momentum: m = b1 m + g', u = m; then
// p = p - k.rate u - k.decay p.
INLINE void KN(adam_part)(int64_t i, int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, ttt_real *v, const ttt__update *k) {
    VEC pv = KN(part)(p, i, n), gv = KN(part)(g, i, n) * k->gradient + pv * k->l2;
    VEC mv = KN(part)(m, i, n) * k->b1 + gv * (1 - k->b1);
    VEC vv = KN(part)(v, i, n) * k->b2 + gv * gv * (1 - k->b2);
    VEC u = mv * k->c1 / (KN(sqrt)(vv * k->c2, pv) + k->eps);
    KN(put)(m, i, n, mv);
    KN(put)(v, i, n, vv);
    KN(put)(p, i, n, pv - u * k->rate - pv * k->decay);
}
KERNEL void KN(adam)(int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, ttt_real *v, const ttt__update *k) {
    const ttt__update own = *k;  // which no store can change
#define TERM(i, n) KN(adam_part)(i, n, p, g, m, v, &own)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}
INLINE void KN(momentum_part)(int64_t i, int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, const ttt__update *k) {
    VEC pv = KN(part)(p, i, n), gv = KN(part)(g, i, n) * k->gradient + pv * k->l2;
    VEC mv = KN(part)(m, i, n) * k->b1 + gv;
    KN(put)(m, i, n, mv);
    KN(put)(p, i, n, pv - mv * k->rate - pv * k->decay);
}
KERNEL void KN(momentum)(int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, const ttt__update *k) {
    const ttt__update own = *k;
#define TERM(i, n) KN(momentum_part)(i, n, p, g, m, &own)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

static const ttt__kernels KN(table) = {
    TTT__TEXT(TTT__SET), LANES, COLS,
#define X(name, formula, lo, hi, flops) KN(map_##name),
    { TTT_UNARY_OPS(X) X(scale, , , , ) X(add_scalar, , , , ) },
#undef X
#define X(name, formula, lo, hi, flops) KN(zip_##name),
    { TTT_BINARY_OPS(X) },
#undef X
    KN(sum), KN(dot), KN(sum_rows), KN(softmax), KN(log_softmax), KN(moments), KN(normalize), KN(normalize_d1),
    KN(finite), KN(transpose), KN(adam), KN(momentum), KN(multiply_adds),
    KN(row_by_columns), KN(row_by_rows), KN(widen),
#define TILE(rows, cols) KN(tile_##rows##_##cols),
#if LANES == 1
    { { TILES_6(1) }, { TILES_6(2) }, { TILES_6(3) }, { TILES_6(4) } }, { 6, 6, 6, 6 },
#elif COLS == 4
    { { TILES_16(1) }, { TILES_12(2) }, { TILES_8(3) }, { TILES_6(4) } }, { 16, 12, 8, 6 },
#else
    { { TILES_12(1) }, { TILES_6(2) } }, { 12, 6 },
#endif
#undef TILE
#undef TILES_6
#undef TILES_8
#undef TILES_12
#undef TILES_16
};


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
#define SQRT TTT__PASTE(TTT__SQRT_, TTT__SET)
#define EVEN_PARTS TTT__PASTE(TTT__EVEN_, TTT__SET)
#define ODD_PARTS TTT__PASTE(TTT__ODD_, TTT__SET)
#define NUM(x) ((ttt_real)(x))
#define KERNEL static TTT__PASTE(TTT__TARGET_, TTT__SET)
#define INLINE static TTT__INLINE TTT__PASTE(TTT__TARGET_, TTT__SET)
#define RARE static TTT__NOINLINE TTT__PASTE(TTT__TARGET_, TTT__SET)
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
#undef SQRT
#undef EVEN_PARTS
#undef ODD_PARTS
#undef NUM
#undef KERNEL
#undef INLINE
#undef RARE

// =================================================================================================
#elif defined(TTT_TENSOR_IMPLEMENTATION) || defined(TTT_IMPLEMENTATION)
#ifndef TTT_TENSOR_IMPLEMENTED
#define TTT_TENSOR_IMPLEMENTED

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <sys/time.h>
#endif

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
#define TTT__NOINLINE __attribute__((noinline))
#define TTT__UNUSED __attribute__((unused))
#define TTT__PREFETCH(p) __builtin_prefetch(p)
#define TTT__UNRELATED(p) __asm__("" : "+r"(p))  // lets the compiler forget what p was made from
#define TTT__FMA
#elif defined(__GNUC__)
#define TTT__UNROLL _Pragma("GCC unroll 16")  // TTT__MAX_ROWS: no such loop is longer
#define TTT__INLINE inline __attribute__((always_inline))
#define TTT__NOINLINE __attribute__((noinline))
#define TTT__UNUSED __attribute__((unused))
#define TTT__PREFETCH(p) __builtin_prefetch(p)
#define TTT__UNRELATED(p) __asm__("" : "+r"(p))
#ifdef __STRICT_ANSI__  // with -std=c99 and the like GCC does not fuse a*b + c unless told so
#define TTT__FMA __attribute__((optimize("fp-contract=fast")))
#else
#define TTT__FMA
#endif
#else
#define TTT__UNROLL
#define TTT__INLINE inline
#define TTT__NOINLINE
#define TTT__UNUSED
#define TTT__PREFETCH(p) ((void)(p))
#define TTT__UNRELATED(p) ((void)(p))
#define TTT__FMA
#endif

#define TTT__MIN(a, b) ((a) < (b) ? (a) : (b))
#define TTT__MAX(a, b) ((a) > (b) ? (a) : (b))

// Numbers of the ops of one and of two operands, which index the kernel table.
enum {
#define X(name, formula, lo, hi, flops) TTT__MAP_##name,
    TTT_UNARY_OPS(X) X(scale, , , , ) X(add_scalar, , , , )
#undef X
    TTT__N_MAPS
};
enum {
#define X(name, formula, lo, hi, flops) TTT__ZIP_##name,
    TTT_BINARY_OPS(X)
#undef X
    TTT__N_ZIPS
};

#define TTT__TILE_ROWS 6   // of the widest tile
#define TTT__MAX_ROWS 16   // of the narrowest
typedef void ttt__tile_fn(int64_t k, const ttt_real *a, int64_t a_row, int64_t a_col, const ttt_real *b,
                          int64_t b_row, const ttt_real *init, int64_t init_row, ttt_real *c, int64_t c_row);

typedef struct ttt__update {  // what an optimizer's pass needs to know, see `adam` in [8]
    ttt_real gradient, l2, b1, b2, c1, c2, eps, rate, decay;
} ttt__update;

// One row for each instruction set; what the functions do is written at their text in [8].
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
    void (*moments)(int64_t n, const ttt_real *a, double eps, bool centered, ttt_real *mean, ttt_real *r);
    void (*normalize)(int64_t n, const ttt_real *a, ttt_real *y, double eps, bool centered);
    void (*normalize_d1)(int64_t n, const ttt_real *a, const ttt_real *g, ttt_real *y, double eps, bool centered);
    bool (*finite)(int64_t n, const ttt_real *a);
    void (*transpose)(int64_t m, int64_t n, const ttt_real *a, int64_t a_row, ttt_real *y, int64_t y_row);
    void (*adam)(int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, ttt_real *v, const ttt__update *k);
    void (*momentum)(int64_t n, ttt_real *p, const ttt_real *g, ttt_real *m, const ttt__update *k);
    double (*multiply_adds)(int64_t n);
    void (*row_by_columns)(int64_t n, int64_t k, const ttt_real *a, const ttt_real *b, const uint16_t *bf16,
                           int64_t b_row, const ttt_real *init, ttt_real *y);
    void (*row_by_rows)(int64_t n, int64_t k, const ttt_real *a, int64_t a_step, const ttt_real *b,
                        const uint16_t *bf16, int64_t b_row, const ttt_real *init, ttt_real *y);
    void (*widen)(int64_t n, const uint16_t *a, ttt_real *y);
    ttt__tile_fn *tile[4][TTT__MAX_ROWS];  // [vectors - 1][rows - 1]
    int tile_rows[4];                      // [vectors - 1]: rows of the tallest tile of that width
} ttt__kernels;

// The instruction sets: lanes of a vector, columns of the widest tile in vectors, the attribute that lets
// the compiler use them, the instruction of a square root, and the steps of a transpose: interleaving
// halves inside parts of four; taking even or odd parts of two vectors, for the sum of one.
// A tile's sums, a row of b and a number of a have to fit the registers: 6 x 2, 2 and 1 of 16; 6 x 4, 4
// and 1 of 32. Many sums are good for two reasons: each number that is loaded then serves several of
// them; and a multiply-add takes four cycles, of which two can begin in each, so that eight have to be on
// their way. A narrower tile, at a matrix's right edge, is therefore taller (tile_rows in [8]).
#if defined(__GNUC__) && !defined(TTT_NO_SIMD) && !TTT__DOUBLE
#if defined(__x86_64__) || defined(__i386__)
#define TTT__X86
#elif defined(__aarch64__) || defined(__ARM_NEON)
#define TTT__NEON
#elif defined(__wasm_simd128__)
#define TTT__WASM
#endif
#endif

#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define TTT__SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define TTT__JOINS  // two vectors into one that is longer
typedef float ttt__four __attribute__((vector_size(16), aligned(4), may_alias));
#define TTT__JOIN_8(p, q) TTT__SHUFFLE(*(const ttt__four *)(p), *(const ttt__four *)(q), 0, 1, 2, 3, 4, 5, 6, 7)
#else  // the older word for it
#define TTT__SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (MASK){ __VA_ARGS__ })
#endif

#define TTT__LANES_scalar 1
#define TTT__COLS_scalar 4
#define TTT__TARGET_scalar

#define TTT__LANES_sse2 4
#define TTT__COLS_sse2 2
#define TTT__TARGET_sse2 __attribute__((target("sse2"))) TTT__FMA
#define TTT__LOW_sse2(a, b) TTT__SHUFFLE(a, b, 0, 4, 1, 5)
#define TTT__HIGH_sse2(a, b) TTT__SHUFFLE(a, b, 2, 6, 3, 7)
#define TTT__SQRT_sse2(y, a) __asm__("sqrtps %1, %0" : "=x"(y) : "x"(a))

#define TTT__LANES_neon 4
#define TTT__COLS_neon 4
#define TTT__TARGET_neon TTT__FMA
#define TTT__LOW_neon TTT__LOW_sse2
#define TTT__HIGH_neon TTT__HIGH_sse2
#if defined(__aarch64__)
#define TTT__SQRT_neon(y, a) __asm__("fsqrt %0.4s, %1.4s" : "=w"(y) : "w"(a))
#else
#define TTT__SQRT_neon TTT__SQRT_simd128
#endif

#define TTT__LANES_simd128 4
#define TTT__COLS_simd128 2
#define TTT__TARGET_simd128 TTT__FMA
#define TTT__LOW_simd128 TTT__LOW_sse2
#define TTT__HIGH_simd128 TTT__HIGH_sse2
#define TTT__SQRT_simd128(y, a) for (int l = 0; l < LANES; l++) y[l] = __builtin_sqrtf(a[l])

#define TTT__LANES_avx2 8
#define TTT__COLS_avx2 2
#define TTT__TARGET_avx2 __attribute__((target("avx2,fma"))) TTT__FMA
#define TTT__LOW_avx2(a, b) TTT__SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define TTT__HIGH_avx2(a, b) TTT__SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define TTT__SQRT_avx2(y, a) __asm__("vsqrtps %1, %0" : "=x"(y) : "x"(a))
#define TTT__EVEN_avx2(a, b) TTT__SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define TTT__ODD_avx2(a, b) TTT__SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15)

#define TTT__LANES_avx512 16
#define TTT__COLS_avx512 4
#define TTT__TARGET_avx512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))) TTT__FMA
#define TTT__LOW_avx512(a, b) TTT__SHUFFLE(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define TTT__HIGH_avx512(a, b) TTT__SHUFFLE(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define TTT__SQRT_avx512(y, a) __asm__("vsqrtps %1, %0" : "=v"(y) : "v"(a))
#define TTT__EVEN_avx512(a, b) TTT__SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
#define TTT__ODD_avx512(a, b) TTT__SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)

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

// ---- [9] ARENAS, ERRORS -------------------------------------------------------------------------
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

// A block of workspace that gradients reuse: see [14].
typedef struct ttt__block {
    struct ttt__block *next;  // in the list of free blocks
    size_t size;
    int uses;                 // how many hold it
} ttt__block;

// Time is charged to one row at a time, the current one. rows[0] is "outside ops".
typedef struct ttt__profile {
    bool on;
    ttt_phase phase;  // of what runs now
    ttt_profile_row *rows;
    int n, cap, current;
    double since;     // when the current row's time was last charged
} ttt__profile;

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
    ttt__profile profile;
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
ttt_result ttt_status(const ttt_ctx *c) { return c ? c->result : TTT_ERR_NO_MEMORY; }
const char *ttt_error(const ttt_ctx *c) { return c ? c->text : "there is no context: ttt_open gave NULL"; }
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

// Element types: how many there are, and a bit for each, to make sets of them.
#define X(name, type, member, text) + 1
enum { TTT__N_DTYPES = 0 TTT_DTYPES(X) };
#undef X
enum {
#define X(name, type, member, text) TTT__##name = 1 << TTT_DTYPE_##name,
    TTT_DTYPES(X)
#undef X
};

static size_t ttt__element_bytes(ttt_dtype dtype) {
    static const size_t bytes[] = {
#define X(name, type, member, text) sizeof(type),
        TTT_DTYPES(X)
#undef X
    };
    return bytes[dtype];
}

static const char *ttt__dtype_text(ttt_dtype dtype) {
    static const char *const texts[] = {
#define X(name, type, member, text) text,
        TTT_DTYPES(X)
#undef X
    };
    return texts[dtype];
}

static size_t ttt__round_up(size_t n) { return (n + TTT__ALIGN - 1) / TTT__ALIGN * TTT__ALIGN; }
static char *ttt__chunk_data(ttt__chunk *k) { return (char *)k + ttt__round_up(sizeof *k); }

static void ttt__count_peak(ttt_ctx *c) {
    size_t now = c->keep.bytes + c->step.bytes + c->scratch.bytes;
    if (now > c->peak) c->peak = now;
}

// A chunk of at least n bytes behind the current one: the next in the chain if it is large enough,
// else a new one, as large as all that is in use, so that there are few.
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
    if (n > (size_t)PTRDIFF_MAX / 2) {
        ttt_fail(c, TTT_ERR_NO_MEMORY, "out of memory: %.1f MB asked for", (double)n / 1e6);
        return NULL;
    }
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

// True if p lies in a part of the arena that was released and not used again since.
TTT__UNUSED static bool ttt__arena_released(const ttt__arena *a, const void *p) {
    bool behind = !a->current;  // the current chunk
    for (ttt__chunk *k = a->first; k; k = k->next) {
        size_t at = (size_t)((uintptr_t)p - (uintptr_t)ttt__chunk_data(k));
        if (at < k->size) return behind || (k == a->current && at >= a->used);
        behind = behind || k == a->current;
    }
    return false;
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
void ttt_mark_release(ttt_ctx *c, ttt_mark m) {
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

ttt_rng ttt_rng_at(uint64_t seed, uint32_t a, uint32_t b, uint32_t c) {
    ttt_rng r = { seed, 0, { a, b, c } };
    return r;
}

// Block k = next / 4 of the stream has the numbers 4k .. 4k + 3. The counter is k, moved up by the
// stream's name.
static void ttt__rng_block(const ttt_rng *r, uint32_t block[4]) {
    uint32_t key[2] = { (uint32_t)r->seed, (uint32_t)(r->seed >> 32) };
    uint64_t k = r->next / 4;
    block[0] = (uint32_t)k;
    block[1] = (uint32_t)(k >> 32) + r->stream[0];
    block[2] = r->stream[1];
    block[3] = r->stream[2];
    ttt__philox(key, block);
}

uint32_t ttt_rng_u32(ttt_rng *r) {
    uint32_t block[4];
    ttt__rng_block(r, block);
    return block[r->next++ % 4];
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
    return ttt_rng_at((uint64_t)ctr[1] << 32 | ctr[0], 0, 0, 0);
}

ttt_rng *ttt_ctx_rng(ttt_ctx *c) { return &c->rng; }

// ---- [10] THREADS -------------------------------------------------------------------------------
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

// run(arg, begin, end, thread) over 0..n, at least `grain` outputs a share: so many that it takes some
// microseconds, below which handing it out costs more than it saves (about 16000 numbers that are read and
// written, 4000 with sums along rows, 100000 multiply-adds of a product). `thread` is the caller's own number
// when it is inside a share already (the range then runs right here), else -1.
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

// -- profiles. Whatever is to be counted stands between begin and end:
//        int back = ttt__profile_begin(c, "name", false);
//        ...
//        if (back >= 0) ttt__profile_count(ttt__profile_end(c, back), flops, bytes);
// Off, that is one branch on each side. Finding the row and counting are charged to whoever called.
static int ttt__profile_row_of(ttt_ctx *c, const char *name, bool rule) {
    ttt__profile *p = &c->profile;
    for (int i = 0; i < p->n; i++)
        if (p->rows[i].name == name && p->rows[i].phase == p->phase && p->rows[i].rule == rule) return i;
    if (p->n == p->cap) {
        int cap = TTT__MAX(64, 2 * p->cap);
        ttt_profile_row *rows = (ttt_profile_row *)TTT_REALLOC(c->desc.user, p->rows, (size_t)cap * sizeof *rows);
        if (!rows) {
            ttt_fail(c, TTT_ERR_NO_MEMORY, "out of memory: a profile of %d rows", cap);
            return -1;
        }
        c->held += (size_t)(cap - p->cap) * sizeof *rows;
        p->rows = rows;
        p->cap = cap;
    }
    ttt_profile_row fresh = { name, p->phase, rule, 0, 0, 0, 0 };
    p->rows[p->n] = fresh;
    return p->n++;
}

// Ends the current row's turn.
static void ttt__profile_turn(ttt__profile *p, int row) {
    double now = p->on ? ttt_seconds() : p->since;
    p->rows[p->current].seconds += TTT__MAX(now - p->since, 0);
    p->since = now;
    p->current = row;
}

// The row to go back to, or -1 if nothing is counted. `name` must live as long as the context: rows are
// told apart by its address.
static TTT__INLINE int ttt__profile_begin(ttt_ctx *c, const char *name, bool rule) {
    if (!c->profile.on) return -1;
    int back = c->profile.current, row = ttt__profile_row_of(c, name, rule);
    if (row < 0) return -1;
    ttt__profile_turn(&c->profile, row);
    return back;
}

// Ends the turn that begin began; the row is the caller's to count FLOPs and bytes in.
static ttt_profile_row *ttt__profile_end(ttt_ctx *c, int back) {
    ttt_profile_row *r = &c->profile.rows[c->profile.current];
    ttt__profile_turn(&c->profile, back);
    r->calls++;
    return r;
}

static void ttt__profile_count(ttt_profile_row *r, double flops, double bytes) {
    r->flops += flops;
    r->bytes += bytes;
}

static double ttt__tensor_bytes(const ttt_tensor *t) {
    return (double)t->size * (double)ttt__element_bytes(t->dtype);
}

// What an op reads. One without FLOPs moves elements, and needs no more of an input than it writes.
static double ttt__input_bytes(const ttt_tensor *y, double flops) {
    double bytes = 0, most = flops > 0 ? HUGE_VAL : ttt__tensor_bytes(y);
    for (int j = 0; j < y->n_in; j++)
        if (j == 0 || y->in[j] != y->in[0]) bytes += TTT__MIN(ttt__tensor_bytes(y->in[j]), most);
    return bytes;
}

static void ttt__profile_end_forward(ttt_ctx *c, int back, const ttt_tensor *y) {
    ttt_profile_row *r = ttt__profile_end(c, back);
    double flops = y->op->flops ? (double)y->op->flops(y) : 0;
    ttt__profile_count(r, flops, y->shares ? 0 : ttt__input_bytes(y, flops) + ttt__tensor_bytes(y));
}

// A rule made of ops counts its calls only. A fast one wrote to into[], or added to what was there.
static void ttt__profile_end_rule(ttt_ctx *c, int back, const ttt_tensor *y, ttt_tensor *const *into, const bool *add) {
    ttt_profile_row *r = ttt__profile_end(c, back);
    int wanted = 0;
    if (!into) return;
    for (int j = 0; j < y->n_in; j++) {
        if (!into[j]) continue;
        wanted++;
        r->bytes += ttt__tensor_bytes(into[j]) * (add[j] ? 2 : 1);
    }
    double flops = y->op->flops ? (double)y->op->flops(y) : 0;
    ttt__profile_count(r, flops * TTT__MIN(wanted, 2), ttt__input_bytes(y, flops) + ttt__tensor_bytes(y));  // the latter: y's gradient
}

void ttt_profile_start(ttt_ctx *c) {
    ttt__profile *p = &c->profile;
    if (c->result || p->on || (p->n == 0 && ttt__profile_row_of(c, "outside ops", false) < 0)) return;
    p->current = 0;
    p->since = ttt_seconds();
    p->on = true;
}

void ttt_profile_stop(ttt_ctx *c) {
    if (c->profile.on) ttt__profile_turn(&c->profile, 0);
    c->profile.on = false;
}

void ttt_profile_clear(ttt_ctx *c) {
    ttt__profile *p = &c->profile;
    for (int i = 0; i < p->n; i++) {
        p->rows[i].calls = 0;
        p->rows[i].seconds = p->rows[i].flops = p->rows[i].bytes = 0;
    }
    if (p->on) p->since = ttt_seconds();
}

int ttt_profile_rows(const ttt_ctx *c, ttt_profile_row *rows, int most) {
    const ttt__profile *p = &c->profile;
    int n = 0;
    for (int i = 0; i < p->n; i++) {
        ttt_profile_row r = p->rows[i];
        if (p->on && i == p->current) r.seconds += TTT__MAX(ttt_seconds() - p->since, 0);
        if (r.calls == 0 && r.seconds <= 0) continue;
        int at = TTT__MIN(n, most);
        n++;
        while (at > 0 && rows[at - 1].seconds < r.seconds) at--;
        if (at >= most) continue;
        memmove(&rows[at + 1], &rows[at], (size_t)(TTT__MIN(n, most) - 1 - at) * sizeof *rows);
        rows[at] = r;
    }
    return n;
}

const char *ttt_phase_name(ttt_phase p) {
    return p == TTT_PHASE_FORWARD ? "forward" : p == TTT_PHASE_RECORDED ? "recorded" : "backward";
}

double ttt_profile_share(const ttt_profile_row *r, const ttt_limits *peak, const char **bound) {
    bool known = r->seconds > 0 && peak->flops > 0 && peak->bytes > 0 && (r->flops > 0 || r->bytes > 0);
    double compute = known ? r->flops / r->seconds / peak->flops : 0, memory = known ? r->bytes / r->seconds / peak->bytes : 0;
    double share = TTT__MAX(compute, memory);
    if (bound) *bound = !known ? "" : share < 0.25 ? "neither" : compute > memory ? "compute" : "memory";
    return share;
}

static int ttt__profile_line(char *text, size_t size, const ttt_profile_row *r, double whole, double runs, const ttt_limits *peak, const char *phase) {
    const char *bound = "";
    char name[40], speed[64] = "";
    double share = peak ? ttt_profile_share(r, peak, &bound) : 0, s = r->seconds > 0 ? r->seconds : HUGE_VAL;
    snprintf(name, sizeof name, "%.30s%s", r->name, r->rule ? " rule" : "");
    if (r->flops > 0 || r->bytes > 0) snprintf(speed, sizeof speed, "%9.2f %8.2f", r->flops / s * 1e-9, r->bytes / s * 1e-9);
    if (*bound) snprintf(speed + strlen(speed), sizeof speed - strlen(speed), " %8.1f %% %s", 100 * share, bound);
    return snprintf(text, size, "%-20s %-8s %6.1f %% %9.3f %9.1f %s\n", name, phase, whole > 0 ? 100 * r->seconds / whole : 0,
                    1e3 * r->seconds / runs, (double)r->calls / runs, speed);
}

const char *ttt_profile_text(ttt_ctx *c, const ttt_limits *peak, int64_t runs, int most) {
    int n = ttt_profile_rows(c, NULL, 0), shown = TTT__MIN(n, TTT__MAX(most, 0));
    ttt_profile_row all = { "total", TTT_PHASE_FORWARD, false, 0, 0, 0, 0 }, rest = all;
    size_t line = 160, size = line * ((size_t)shown + 4), at = 0;
    ttt_profile_row *rows = (ttt_profile_row *)ttt_alloc(c, ((size_t)n + 1) * sizeof *rows, false);
    char *text = (char *)ttt_alloc(c, size, false);
    if (!rows || !text) return "";
    n = TTT__MIN(n, ttt_profile_rows(c, rows, n));
    rest.name = "the rest";
    for (int i = 0; i < n; i++)
        for (int k = 0; k < (i < shown ? 1 : 2); k++) {
            ttt_profile_row *sum = k ? &rest : &all;
            sum->calls += rows[i].calls;
            sum->seconds += rows[i].seconds;
            sum->flops += rows[i].flops;
            sum->bytes += rows[i].bytes;
        }
    double per = runs > 0 ? (double)runs : 1;
    at += (size_t)snprintf(text, size, "%-20s %-8s %8s %9s %9s %9s %8s%s\n", "op", "phase", "time", "ms", "calls", "GFLOP/s", "GB/s", peak ? "    of peak bound by" : "");
    for (int i = 0; i < shown; i++)
        at += (size_t)ttt__profile_line(text + at, size - at, &rows[i], all.seconds, per, peak, ttt_phase_name(rows[i].phase));
    if (n > shown) at += (size_t)ttt__profile_line(text + at, size - at, &rest, all.seconds, per, peak, "");
    ttt__profile_line(text + at, size - at, &all, all.seconds, per, peak, "");
    return text;
}

// ---- [11] TENSORS, APPLY ------------------------------------------------------------------------
// bfloat16 of a real, to nearest even. A double is first cut to binary32 with its last bit set if
// anything was lost ("round to odd"), else it would be rounded twice. A NaN stays one.
static uint16_t ttt__bf16_of(ttt_real v) {
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (v != v) return (uint16_t)(bits >> 16 | 0x40);
    if (TTT__DOUBLE && (double)f != (double)v)
        bits = (bits - (fabs((double)f) > fabs((double)v))) | 1;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

ttt_shape ttt_shape_of(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f, int64_t g, int64_t h, int64_t more) {
    ttt_shape s = { 0, { a, b, c, d, e, f, g, h } };
    while (s.rank < TTT_MAX_RANK && s.dim[s.rank] != INT64_MIN) s.rank++;
    for (int i = s.rank; i < TTT_MAX_RANK; i++) s.dim[i] = 0;
    if (more != INT64_MIN) s.rank = TTT_MAX_RANK + 1;
    return s;
}

ttt_shape ttt_scalar_shape(void) {
    ttt_shape s = { 0, { 0 } };
    return s;
}

static bool ttt__rank_good(ttt_shape s) { return s.rank >= 0 && s.rank <= TTT_MAX_RANK; }

bool ttt_shape_equal(ttt_shape a, ttt_shape b) {
    if (!ttt__rank_good(a) || !ttt__rank_good(b)) return false;
    for (int i = 0; i < a.rank && a.rank == b.rank; i++)
        if (a.dim[i] != b.dim[i]) return false;
    return a.rank == b.rank;
}

int64_t ttt_shape_size(ttt_shape s) {
    const int64_t limit = (int64_t)1 << 62;
    int64_t n = 1;
    bool empty = false, large = false;
    if (!ttt__rank_good(s)) return -1;
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
    if (!ttt__rank_good(s)) {
        snprintf(text, size, "(rank %d)", s.rank);
        return text;
    }
    n += (size_t)snprintf(text, size, "(");
    for (int i = 0; i < s.rank && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%lld", i ? "," : "", (long long)s.dim[i]);
    if (n < size) snprintf(text + n, size - n, ")");
    return text;
}

// The id of a tensor that a first-order walk made: never on the tape. Not -1, which poisoned memory reads as.
#define TTT__SCRATCH INT64_MIN

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
    if (c->result) return NULL;
    if (size < 0 || size > (int64_t)(PTRDIFF_MAX / 2 / 8)) {
        ttt_text text;
        ttt_fail(c, TTT_ERR_SHAPE, "a tensor cannot have shape %s", ttt_shape_text(s, text));
        return NULL;
    }
    size_t bytes = share ? 0 : (size_t)size * ttt__element_bytes(dtype);
    ttt_tensor *t = ttt__tensor_memory(c, bytes, keep);
    if (!t) return NULL;
    t->dtype = dtype;
    t->shape = s;
    t->size = size;
    t->shares = share;
    if (t->block && share && share->block) ((ttt__block *)share->block)->uses++;
    void *elements = (char *)t + ttt__round_up(sizeof *t);
#define X(name, type, member, text) \
    if (dtype == TTT_DTYPE_##name) t->member = share ? share->member : (type *)elements;
    TTT_DTYPES(X)
#undef X
    return t;
}

static ttt_tensor *ttt__or_empty(ttt_ctx *c, ttt_tensor *t) { return t ? t : &c->empty; }

ttt_tensor *ttt_new_typed(ttt_ctx *c, ttt_shape s, ttt_dtype dtype, bool keep) {
    if ((unsigned)dtype >= TTT__N_DTYPES)
        return ttt_fail(c, TTT_ERR_ARGUMENT, "new_typed: there is no element type %d", (int)dtype);
    return ttt__or_empty(c, ttt__tensor(c, s, dtype, keep, NULL));
}
ttt_tensor *ttt_new(ttt_ctx *c, ttt_shape s) { return ttt_new_typed(c, s, TTT_DTYPE_REAL, false); }

ttt_tensor *ttt_full(ttt_ctx *c, ttt_shape s, ttt_real v) {
    ttt_tensor *t = ttt_new(c, s);
    int back = ttt__profile_begin(c, "fill", false);
    for (int64_t i = 0; i < t->size; i++) t->data[i] = v;
    if (back >= 0) ttt__profile_count(ttt__profile_end(c, back), 0, ttt__tensor_bytes(t));
    return t;
}

ttt_tensor *ttt_zeros(ttt_ctx *c, ttt_shape s) { return ttt_full(c, s, 0); }
ttt_tensor *ttt_scalar(ttt_ctx *c, ttt_real v) { return ttt_full(c, ttt_scalar_shape(), v); }

#define FROM(function, name, type, member)                                                \
    ttt_tensor *function(ttt_ctx *c, ttt_shape s, const type *values) {                   \
        ttt_tensor *t = ttt_new_typed(c, s, TTT_DTYPE_##name, false);                     \
        if (t->size) memcpy(t->member, values, (size_t)t->size * sizeof *values);         \
        return t;                                                                         \
    }
FROM(ttt_from, REAL, ttt_real, data)
FROM(ttt_from_int, INT, int64_t, index)
FROM(ttt_from_u8, U8, uint8_t, u8)
FROM(ttt_from_bf16, BF16, uint16_t, bf16)
#undef FROM

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

ttt_tensor *ttt_zeros_kept(ttt_ctx *c, ttt_shape s) {
    ttt_tensor *t = ttt_new_typed(c, s, TTT_DTYPE_REAL, true);
    if (t->size) memset(t->data, 0, (size_t)t->size * sizeof(ttt_real));
    return t;
}

ttt_real ttt_item(const ttt_tensor *t) { return t->size == 1 && t->data ? t->data[0] : (ttt_real)NAN; }

double ttt_max_abs_diff(const ttt_tensor *a, const ttt_tensor *b) {
    double max = 0;
    if (!ttt_shape_equal(a->shape, b->shape) || !a->data || !b->data) return (double)NAN;
    for (int64_t i = 0; i < a->size; i++) {
        double d = fabs((double)a->data[i] - (double)b->data[i]);
        if (d != d) return d;
        if (d > max) max = d;
    }
    return max;
}

bool ttt_set_recording(ttt_ctx *c, bool on) {
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

// Whether t, input i of an op, is what it seems: to be asked before its shape is looked at.
static bool ttt__living(ttt_ctx *c, const char *op, const ttt_tensor *t, int i) {
    if (!c->result && !ttt__alive(c, t)) ttt_fail(c, TTT_ERR_RELEASED, "%s: input %d is not a living tensor of this context; was it released?", op, i);
    return !c->result;
}

// The same, and whether it is of one of the element types in the set `types` (TTT__REAL | ...).
static bool ttt__operand(ttt_ctx *c, const char *op, const ttt_tensor *t, int i, int types) {
    char expected[80] = "";
    size_t n = 0;
    if (!ttt__living(c, op, t, i)) return false;
    if (types >> t->dtype & 1) return true;
    for (int k = 0; k < TTT__N_DTYPES; k++)
        if (types >> k & 1)
            n += (size_t)snprintf(expected + n, sizeof expected - n, "%s%s", n ? " or " : "",
                                  ttt__dtype_text((ttt_dtype)k));
    ttt_fail(c, TTT_ERR_ARGUMENT, "%s: input %d holds %s; %s expected", op, i,
             ttt__dtype_text(t->dtype), expected);
    return false;
}
// The same for in[0..n), which have to be real.
static bool ttt__operands(ttt_ctx *c, const char *op, ttt_tensor *const *in, int n) {
    for (int i = 0; i < n; i++)
        if (!ttt__operand(c, op, in[i], i, TTT__REAL)) return false;
    return !c->result;
}

static bool ttt__inputs_good(ttt_ctx *c, const ttt_op *op, ttt_tensor *const *in, int n) {
    if (!c->result && op->n_in >= 0 && n != op->n_in) ttt_fail(c, TTT_ERR_ARGUMENT, "%s: %d inputs given, %d expected", op->name, n, op->n_in);
    if (!c->result && !op->vjp == !op->composite) ttt_fail(c, TTT_ERR_ARGUMENT, "%s: an op needs a vjp or a composite, and not both", op->name);
    for (int i = 0; i < n && !c->result; i++) ttt__living(c, op->name, in[i], i);
    return !c->result;
}

static ttt_tensor *ttt__apply(ttt_ctx *c, const ttt_op *op, ttt_tensor *const *in, int n, ttt_shape shape,
                              const void *arg, size_t arg_bytes, ttt_tensor *share) {
    if (!ttt__inputs_good(c, op, in, n)) return &c->empty;
    ttt_tensor *y = ttt__tensor(c, shape, TTT_DTYPE_REAL, false, share);
    if (!y || !ttt__set_producer(c, y, op, in, n, arg, arg_bytes)) return &c->empty;
    int back = ttt__profile_begin(c, op->name, false);
    op->forward(c, y);
    if (back >= 0) ttt__profile_end_forward(c, back, y);
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
    if (!ttt__operands(c, op->name, &a, 1)) return &c->empty;
    return ttt__apply(c, op, &a, 1, s, arg, n, NULL);
}

ttt_tensor *ttt_detach(ttt_ctx *c, ttt_tensor *a) {
    if (c->result) return &c->empty;
    if (!ttt__alive(c, a)) return ttt_fail(c, TTT_ERR_RELEASED, "detach: not a living tensor of this context; was it released?");
    return ttt__or_empty(c, ttt__tensor(c, a->shape, a->dtype, false, a));
}

static void ttt__convert(ttt_ctx *c, const ttt_tensor *t, ttt_tensor *y) {
    int64_t n = t->size;
    if (t->bf16) c->k->widen(n, t->bf16, y->data);
    else if (y->bf16) for (int64_t i = 0; i < n; i++) y->bf16[i] = ttt__bf16_of(t->data[i]);
    else if (y->index) for (int64_t i = 0; i < n; i++) y->index[i] = t->u8[i];
    else if (t->index) for (int64_t i = 0; i < n; i++) y->data[i] = (ttt_real)t->index[i];
    else for (int64_t i = 0; i < n; i++) y->data[i] = t->u8[i];
}
ttt_tensor *ttt_cast(ttt_ctx *c, ttt_tensor *t, ttt_dtype dtype) {
    bool known = (unsigned)dtype < TTT__N_DTYPES;
    if (!ttt__living(c, "cast", t, 0)) return &c->empty;
    if (t->dtype == dtype) return ttt_detach(c, t);
    if (dtype != TTT_DTYPE_REAL && !(dtype == TTT_DTYPE_INT && t->u8) &&
        !(dtype == TTT_DTYPE_BF16 && t->data))
        return ttt_fail(c, TTT_ERR_ARGUMENT, "cast: from %s to %s; any to real numbers, bytes to "
                        "integers or real numbers to bfloat16 expected", ttt__dtype_text(t->dtype),
                        known ? ttt__dtype_text(dtype) : "no element type");
    ttt_tensor *y = ttt_new_typed(c, t->shape, dtype, false);
    int back = ttt__profile_begin(c, "cast", false);
    if (!c->result) ttt__convert(c, t, y);
    double bytes = ttt__tensor_bytes(t) + ttt__tensor_bytes(y);
    if (back >= 0) ttt__profile_count(ttt__profile_end(c, back), 0, bytes);
    return y;
}

// ---- [12] OPS: forward and rule, in pairs -------------------------------------------------------
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
FORWARD(add_scalar) { ttt__map(c, y, TTT__MAP_add_scalar, *(const ttt_real *)y->arg); }
ttt_tensor *ttt_scale(ttt_ctx *c, ttt_tensor *a, ttt_real s) { return ttt__apply1(c, &ttt__op_scale, a, a->shape, &s, sizeof s); }
ttt_tensor *ttt_add_scalar(ttt_ctx *c, ttt_tensor *a, ttt_real s) { return ttt__apply1(c, &ttt__op_add_scalar, a, a->shape, &s, sizeof s); }

RULE(scale) { d[0] = ttt_scale(c, g, *(const ttt_real *)y->arg); }
RULE(add_scalar) { (void)c; (void)y; d[0] = g; }
RULE(exp) { d[0] = ttt_mul(c, g, y); }
RULE(log) { d[0] = ttt_div(c, g, A); }
RULE(tanh) { d[0] = ttt_sub(c, g, ttt_mul(c, g, ttt_square(c, y))); }                  // g (1 - y^2)
RULE(sigmoid) { d[0] = ttt_mul(c, g, ttt_sub(c, y, ttt_square(c, y))); }               // g y (1 - y)
RULE(erf) {                                                                            // g 2/sqrt(pi) e^-a^2
    d[0] = ttt_mul(c, g, ttt_scale(c, ttt_exp(c, ttt_scale(c, ttt_square(c, A), -1)), (ttt_real)1.1283791670955126));
}
RULE(abs) { d[0] = ttt_mul(c, g, ttt_sign(c, A)); }
RULE(sign) { (void)c; (void)y; (void)g; d[0] = NULL; }
RULE(relu) { d[0] = ttt_mul(c, g, ttt_heaviside(c, A)); }
RULE(heaviside) { (void)c; (void)y; (void)g; d[0] = NULL; }
RULE(square) { d[0] = ttt_scale(c, ttt_mul(c, g, A), 2); }
RULE(sqrt) { d[0] = ttt_scale(c, ttt_div(c, g, y), (ttt_real)0.5); }
RULE(rsqrt) { d[0] = ttt_scale(c, ttt_mul(c, g, ttt_mul(c, y, ttt_square(c, y))), (ttt_real)-0.5); }
RULE(reciprocal) { d[0] = ttt_scale(c, ttt_mul(c, g, ttt_square(c, y)), -1); }
RULE(gelu) { d[0] = ttt_mul(c, g, ttt_gelu_d1(c, A)); }
RULE(gelu_d1) { d[0] = ttt_mul(c, g, ttt_gelu_d2(c, A)); }
// a sigmoid(u), u = k (a + 0.044715 a^3): with p = sigmoid'(u) = s - s^2, q = p' = p (1 - 2 s) and
// r = q' = p (1 - 6 p), the third derivative is
//   3 (q u'^2 + p u'') + a (r u'^3 + 3 q u' u'' + p u''').
RULE(gelu_d2) {
    const ttt_real k = (ttt_real)1.5957691216057308, k3 = (ttt_real)0.42812889763560147;  // u''' = 6 k 0.044715
    ttt_tensor *a2 = ttt_square(c, A);
    ttt_tensor *u = ttt_mul(c, A, ttt_add_scalar(c, ttt_scale(c, a2, k3 / 6), k));
    ttt_tensor *u1 = ttt_add_scalar(c, ttt_scale(c, a2, k3 / 2), k), *u2 = ttt_scale(c, A, k3);
    ttt_tensor *s = ttt_sigmoid(c, u), *p = ttt_sub(c, s, ttt_square(c, s));
    ttt_tensor *q = ttt_mul(c, p, ttt_add_scalar(c, ttt_scale(c, s, -2), 1));
    ttt_tensor *r = ttt_mul(c, p, ttt_add_scalar(c, ttt_scale(c, p, -6), 1));
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
    ttt_tensor *cubic = ttt_mul(c, A, ttt_add_scalar(c, a2, -4));
    d[0] = ttt_mul(c, g, ttt_scale(c, ttt_mul(c, cubic, density), (ttt_real)0.3989422804014327));
}
RULE(silu) { d[0] = ttt_mul(c, g, ttt_silu_d1(c, A)); }
RULE(silu_d1) { d[0] = ttt_mul(c, g, ttt_silu_d2(c, A)); }
RULE(silu_d2) {  // 3 q + a r, with p, q, r as for gelu_d2
    ttt_tensor *s = ttt_sigmoid(c, A), *p = ttt_sub(c, s, ttt_square(c, s));
    ttt_tensor *q = ttt_mul(c, p, ttt_add_scalar(c, ttt_scale(c, s, -2), 1));
    ttt_tensor *r = ttt_mul(c, p, ttt_add_scalar(c, ttt_scale(c, p, -6), 1));
    d[0] = ttt_mul(c, g, ttt_add(c, ttt_scale(c, q, 3), ttt_mul(c, A, r)));
}

// -- two operands, broadcast
// The common shape of two shapes aligned at the right; false if a size is neither equal nor 1 (or a rank
// cannot be).
static bool ttt__broadcast_shape(ttt_shape a, ttt_shape b, ttt_shape *out) {
    out->rank = TTT__MAX(a.rank, b.rank);
    for (int i = 0; i < TTT_MAX_RANK; i++) out->dim[i] = 0;
    if (!ttt__rank_good(a) || !ttt__rank_good(b)) return false;
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

// Joins neighboring loops that all tensors walk through in one go, and drops those of length 1.
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

// One long loop is cut into pieces of 1024, so that threads can share it.
static void ttt__loops_cut(ttt__loops *l, int tensors) {
    if (l->n != 1 || l->size[0] % 1024 != 0) return;
    l->n = 2;
    l->size[1] = 1024;
    l->size[0] /= 1024;
    for (int t = 0; t < tensors; t++) {
        l->stride[t][1] = l->stride[t][0];
        l->stride[t][0] *= 1024;
    }
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
    ttt__loops_cut(l, 2);
    int64_t rows = ttt__loops_count(l, l->n - 1);
    ttt__parallel(c, -1, rows, 16384 / l->size[l->n - 1] + 1, ttt__zip_share, &job);
}

static ttt_tensor *ttt__binary(ttt_ctx *c, const ttt_op *op, ttt_tensor *a, ttt_tensor *b) {
    ttt_tensor *in[2] = { a, b };
    ttt_shape s;
    if (!ttt__operands(c, op->name, in, 2)) return &c->empty;
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

// -- one of two, by a third
typedef struct ttt__where_job {
    const ttt_tensor *condition;
    const ttt_real *a, *b;
    ttt_real *y;
    ttt__loops loops;  // strides 0 of the condition, 1 of a, 2 of b
} ttt__where_job;

// A table of two is faster than a branch, which the processor would guess wrong half of the time.
static void ttt__where_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__where_job *j = (const ttt__where_job *)arg;
    const ttt__loops *l = &j->loops;
    int inner = l->n - 1;
    int64_t n = l->size[inner], step = l->stride[0][inner];
    int64_t steps[2] = { l->stride[2][inner], l->stride[1][inner] };
    (void)thread;
    for (int64_t row = begin; row < end; row++) {
        int64_t at = ttt__loops_at(l, inner, 0, row);
        const ttt_real *from[2] = { j->b + ttt__loops_at(l, inner, 2, row),
                                    j->a + ttt__loops_at(l, inner, 1, row) };
        ttt_real *y = j->y + row * n;
#define PICK(condition)                                \
    for (int64_t i = 0; i < n; i++) {                  \
        int which = (condition)[at + i * step] != 0;   \
        y[i] = from[which][i * steps[which]];          \
    }
        if (j->condition->u8) PICK(j->condition->u8)
        else if (j->condition->index) PICK(j->condition->index)
        else PICK(j->condition->data)
#undef PICK
    }
}
FORWARD(where) {
    ttt__loops loops = { y->shape.rank, { 0 }, { { 0 } } };
    ttt__where_job job = { A, B->data, y->in[2]->data, y->data, loops };
    ttt__loops *l = &job.loops;
    if (y->size == 0) return;
    memcpy(l->size, y->shape.dim, sizeof l->size);
    for (int t = 0; t < 3; t++) ttt__strides(y->in[t]->shape, y->shape, l->stride[t]);
    ttt__loops_join(l, 3);
    ttt__loops_cut(l, 3);
    int64_t n = l->size[l->n - 1];
    ttt__parallel(c, -1, y->size / n, 1 + 16384 / n, ttt__where_share, &job);
}
// Products of g with zeros and ones would be NaN where g is infinite.
RULE(where) {
    ttt_tensor *zero = ttt_scalar(c, 0);
    d[0] = NULL;
    if (d[1]) d[1] = ttt__fit(c, ttt_where(c, A, g, zero), B);
    if (d[2]) d[2] = ttt__fit(c, ttt_where(c, A, zero, g), y->in[2]);
}
ttt_tensor *ttt_where(ttt_ctx *c, ttt_tensor *condition, ttt_tensor *a, ttt_tensor *b) {
    ttt_tensor *in[3] = { condition, a, b };
    ttt_shape s;
    for (int i = 0; i < 3; i++)
        if (!ttt__operand(c, "where", in[i], i, i ? TTT__REAL : TTT__REAL | TTT__INT | TTT__U8))
            return &c->empty;
    if (!ttt__broadcast_shape(a->shape, b->shape, &s) ||
        !ttt__broadcast_shape(condition->shape, s, &s)) {
        ttt_text t0, t1, t2;
        return ttt_fail(c, TTT_ERR_SHAPE, "where: %s, %s and %s cannot be broadcast together",
                        ttt_shape_text(condition->shape, t0), ttt_shape_text(a->shape, t1),
                        ttt_shape_text(b->shape, t2));
    }
    return ttt_apply(c, &ttt__op_where, in, 3, s, NULL, 0);
}

// -- one number in, one out, by a plain loop over a share of the elements
static void ttt__clamp_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt_tensor *y = (const ttt_tensor *)arg;
    const ttt_real *limit = (const ttt_real *)y->arg, *a = A->data, lo = limit[0], hi = limit[1];
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        ttt_real v = a[i] < lo ? lo : a[i];  // written so, each is one instruction, and NaN stays
        y->data[i] = v > hi ? hi : v;
    }
}
FORWARD(clamp) { ttt__parallel(c, -1, y->size, 16384, ttt__clamp_share, y); }
RULE(clamp) {
    const ttt_real *limit = (const ttt_real *)y->arg, *a = A->data;
    ttt_tensor *inside = ttt_new_typed(c, A->shape, TTT_DTYPE_U8, false);
    for (int64_t i = 0; i < inside->size; i++) inside->u8[i] = a[i] >= limit[0] && a[i] <= limit[1];
    d[0] = ttt_where(c, inside, g, ttt_scalar(c, 0));
}
ttt_tensor *ttt_clamp(ttt_ctx *c, ttt_tensor *a, ttt_real lo, ttt_real hi) {
    ttt_real limit[2] = { lo, hi };
    if (!ttt__operands(c, "clamp", &a, 1)) return &c->empty;
    if (!(lo <= hi))
        return ttt_fail(c, TTT_ERR_ARGUMENT, "clamp: lo is %g, hi %g; lo <= hi expected",
                        (double)lo, (double)hi);
    return ttt__apply1(c, &ttt__op_clamp, a, a->shape, limit, sizeof limit);
}

static void ttt__pow_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt_tensor *y = (const ttt_tensor *)arg;
    ttt_real p = *(const ttt_real *)y->arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) y->data[i] = TTT__MATH(pow)(A->data[i], p);
}
FORWARD(pow) { ttt__parallel(c, -1, y->size, 1024, ttt__pow_share, y); }
RULE(pow) {  // g p a^(p-1), which for p = 0 would be 0 times infinity at a = 0
    ttt_real p = *(const ttt_real *)y->arg;
    d[0] = p == 0 ? NULL : ttt_scale(c, ttt_mul(c, g, ttt_pow(c, A, p - 1)), p);
}
ttt_tensor *ttt_pow(ttt_ctx *c, ttt_tensor *a, ttt_real p) {
    if (!ttt__operands(c, "pow", &a, 1)) return &c->empty;
    if (!(p - p == 0))
        return ttt_fail(c, TTT_ERR_ARGUMENT, "pow: exponent %g; a finite one expected", (double)p);
    return ttt__apply1(c, &ttt__op_pow, a, a->shape, &p, sizeof p);
}

typedef struct ttt__dropout {
    uint64_t seed;
    ttt_real p;
} ttt__dropout;
// Threads share blocks of four elements: so many numbers come out of the generator at a time.
static void ttt__dropout_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt_tensor *y = (const ttt_tensor *)arg;
    const ttt__dropout *drop = (const ttt__dropout *)y->arg;
    uint32_t key[2] = { (uint32_t)drop->seed, (uint32_t)(drop->seed >> 32) };
    uint32_t least = (uint32_t)((double)drop->p * 4294967296.0);  // numbers below drop
    ttt_real scale[2] = { 0, (ttt_real)(1 / (1 - (double)drop->p)) };
    (void)thread;
    for (int64_t block = begin; block < end; block++) {
        uint32_t ctr[4] = { (uint32_t)block, (uint32_t)((uint64_t)block >> 32), 0, 0 };
        int64_t from = 4 * block, to = TTT__MIN(from + 4, y->size);
        ttt__philox(key, ctr);
        for (int64_t i = from; i < to; i++) y->data[i] = A->data[i] * scale[ctr[i - from] >= least];
    }
}
FORWARD(dropout) { ttt__parallel(c, -1, (y->size + 3) / 4, 512, ttt__dropout_share, y); }
RULE(dropout) {
    const ttt__dropout *drop = (const ttt__dropout *)y->arg;
    d[0] = ttt_dropout_seeded(c, g, drop->p, drop->seed);
}
ttt_tensor *ttt_dropout_seeded(ttt_ctx *c, ttt_tensor *a, ttt_real p, uint64_t seed) {
    ttt__dropout drop = { seed, p };
    if (!ttt__operands(c, "dropout", &a, 1)) return &c->empty;
    if (!(p >= 0 && p < 1))
        return ttt_fail(c, TTT_ERR_ARGUMENT, "dropout: p is %g; 0 <= p < 1 expected", (double)p);
    return p == 0 ? a : ttt__apply1(c, &ttt__op_dropout, a, a->shape, &drop, sizeof drop);
}
ttt_tensor *ttt_dropout(ttt_ctx *c, ttt_tensor *a, ttt_real p) {
    uint64_t seed = 0;
    if (!c->result && p > 0 && p < 1) {
        seed = ttt_rng_u32(&c->rng);
        seed |= (uint64_t)ttt_rng_u32(&c->rng) << 32;
    }
    return ttt_dropout_seeded(c, a, p, seed);
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
            if (!to) break;
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
    if (!ttt__operands(c, "sum_to", &a, 1)) return &c->empty;
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
    if (!ttt__operands(c, "broadcast", &a, 1)) return &c->empty;
    if (!ttt__broadcast_shape(a->shape, s, &all) || !ttt_shape_equal(all, s)) {
        ttt_text ta, ts;
        return ttt_fail(c, TTT_ERR_SHAPE, "broadcast: %s cannot be repeated to %s", ttt_shape_text(a->shape, ta), ttt_shape_text(s, ts));
    }
    return ttt__apply1(c, &ttt__op_broadcast, a, s, NULL, 0);
}

// An axis counted from either end; -1 after an error.
static int ttt__axis(ttt_ctx *c, const char *op, const ttt_tensor *a, int axis) {
    if (!ttt__living(c, op, a, 0)) return -1;
    int i = axis < 0 ? axis + a->shape.rank : axis;
    if (i < 0 || i >= a->shape.rank) {
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
    if (!ttt__operands(c, "reshape", &a, 1)) return &c->empty;
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
    ttt_shape s;
    int seen = 0;
    if (!ttt__operands(c, "permute", &a, 1)) return &c->empty;
    s = a->shape;
    for (int i = 0; i < s.rank; i++) {
        if (order[i] < 0 || order[i] >= s.rank || (seen >> order[i] & 1))
            return ttt_fail(c, TTT_ERR_ARGUMENT, "permute: order[%d] is %d; each axis 0..%d must stand once", i, order[i], s.rank - 1);
        seen |= 1 << order[i];
        s.dim[i] = a->shape.dim[order[i]];
    }
    return ttt__apply1(c, &ttt__op_permute, a, s, order, (size_t)s.rank * sizeof *order);
}
ttt_tensor *ttt_transpose(ttt_ctx *c, ttt_tensor *a) {
    int order[TTT_MAX_RANK] = { 0, 1, 2, 3, 4, 5, 6, 7 }, r;
    if (!ttt__operands(c, "transpose", &a, 1)) return &c->empty;
    r = a->shape.rank;
    if (r < 2) return ttt_fail(c, TTT_ERR_SHAPE, "transpose: a tensor of rank %d has no two last axes", r);
    order[r - 2] = r - 1;
    order[r - 1] = r - 2;
    return ttt_permute(c, a, order);
}

typedef struct ttt__span {
    int axis;
    int64_t begin, length;
} ttt__span;
// Copies `count` places of an axis: (outer, a_length, inner) from a_begin to (outer, y_length, inner)
// at y_begin.
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
    d[0] = ttt_pad(c, g, s->axis, s->begin, A->shape.dim[s->axis]);
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

FORWARD(pad) {
    const ttt__span *s = (const ttt__span *)y->arg;
    (void)c;
    memset(y->data, 0, (size_t)y->size * sizeof *y->data);
    ttt__copy_span(A, 0, y, s->begin, s->axis, A->shape.dim[s->axis]);
}
RULE(pad) {
    const ttt__span *s = (const ttt__span *)y->arg;
    d[0] = ttt_slice(c, g, s->axis, s->begin, A->shape.dim[s->axis]);
}
ttt_tensor *ttt_pad(ttt_ctx *c, ttt_tensor *a, int axis, int64_t begin, int64_t length) {
    ttt__span span = { ttt__axis(c, "pad", a, axis), begin, length };
    ttt_shape s = a->shape;
    if (span.axis < 0) return &c->empty;
    if (begin < 0 || length < 0 || begin > length - s.dim[span.axis]) {
        ttt_text t;
        return ttt_fail(c, TTT_ERR_ARGUMENT, "pad: axis %d of %s does not fit at %lld into %lld places", axis,
                        ttt_shape_text(s, t), (long long)begin, (long long)length);
    }
    s.dim[span.axis] = length;
    return ttt__apply1(c, &ttt__op_pad, a, s, &span, sizeof span);
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
    if (!ttt__operands(c, "concat", a, n)) return &c->empty;
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

typedef struct ttt__rows_job {
    const ttt__kernels *k;
    const ttt_tensor *y;
    ttt__rows r;
} ttt__rows_job;
static void ttt__index_select_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__rows_job *j = (const ttt__rows_job *)arg;
    const ttt_tensor *y = j->y;
    int64_t D = y->shape.dim[y->shape.rank - 1], N = A->shape.dim[A->shape.rank - 2], n = B->shape.dim[B->shape.rank - 1];
    (void)thread;
    for (int64_t l = begin; l < end; l++) {
        const ttt_real *a = A->data + ttt__loops_at(&j->r.lead, j->r.lead.n, 0, l) * N * D;
        const int64_t *index = B->index + ttt__loops_at(&j->r.lead, j->r.lead.n, 1, l) * n;
        for (int64_t i = 0; i < n; i++) memcpy(y->data + (l * n + i) * D, a + index[i] * D, (size_t)D * sizeof *a);
    }
}
static void ttt__index_add_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__rows_job *j = (const ttt__rows_job *)arg;
    const ttt_tensor *y = j->y;
    int64_t D = y->shape.dim[y->shape.rank - 1], N = y->shape.dim[y->shape.rank - 2], n = B->shape.dim[B->shape.rank - 1];
    (void)thread;
    for (int64_t l = begin; l < end; l++) {
        const ttt_real *a = A->data + ttt__loops_at(&j->r.lead, j->r.lead.n, 0, l) * n * D;
        const int64_t *index = B->index + ttt__loops_at(&j->r.lead, j->r.lead.n, 1, l) * n;
        for (int64_t i = 0; i < n; i++) {
            ttt_real *row = y->data + (l * N + index[i]) * D;
            j->k->zip[TTT__ZIP_add](D, row, 1, a + i * D, 1, row);
        }
    }
}
// Every leading place is somebody's alone.
static void ttt__each_lead(ttt_ctx *c, ttt_tensor *y, ttt__range_fn *share) {
    ttt__rows_job j = { c->k, y, ttt__rows_of(A, B) };
    int64_t one = B->shape.dim[B->shape.rank - 1] * y->shape.dim[y->shape.rank - 1];
    ttt__parallel(c, -1, j.r.count, 1 + 16384 / (one + 1), share, &j);
}

FORWARD(index_select) { ttt__each_lead(c, y, ttt__index_select_share); }
RULE(index_select) {
    if (d[0]) d[0] = ttt__fit(c, ttt_index_add(c, g, B, A->shape.dim[A->shape.rank - 2]), A);
    d[1] = NULL;
}
FORWARD(index_add) {
    memset(y->data, 0, (size_t)y->size * sizeof *y->data);
    ttt__each_lead(c, y, ttt__index_add_share);
}
RULE(index_add) {
    if (d[0]) d[0] = ttt__fit(c, ttt_index_select(c, g, B), A);
    d[1] = NULL;
}

// Checks what index_select and index_add share; s becomes the common leading shape.
static bool ttt__rows_good(ttt_ctx *c, const char *op, ttt_tensor *a, const ttt_tensor *index, int64_t N, ttt_shape *s) {
    ttt_text ta, ti;
    if (!ttt__operands(c, op, &a, 1) || !ttt__living(c, op, index, 1)) return false;
    if (a->shape.rank < 2 || index->shape.rank < 1 || index->dtype != TTT_DTYPE_INT ||
        !ttt__broadcast_shape(ttt__lead(a->shape, 2), ttt__lead(index->shape, 1), s) || s->rank + 2 > TTT_MAX_RANK) {
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
static ttt_tensor *ttt__select(ttt_ctx *c, const char *call, ttt_tensor *a, ttt_tensor *index) {
    ttt_tensor *in[2] = { a, index };
    ttt_shape s;
    if (!ttt__operands(c, call, &a, 1)) return &c->empty;
    int64_t N = a->shape.rank < 2 ? 0 : a->shape.dim[a->shape.rank - 2];
    if (!ttt__rows_good(c, call, a, index, N, &s)) return &c->empty;
    s.dim[s.rank - 2] = index->shape.dim[index->shape.rank - 1];
    return ttt_apply(c, &ttt__op_index_select, in, 2, s, NULL, 0);
}
ttt_tensor *ttt_index_select(ttt_ctx *c, ttt_tensor *a, ttt_tensor *index) {
    return ttt__select(c, "index_select", a, index);
}
ttt_tensor *ttt_index_add(ttt_ctx *c, ttt_tensor *a, ttt_tensor *index, int64_t N) {
    ttt_tensor *in[2] = { a, index };
    ttt_shape s;
    if (!ttt__rows_good(c, "index_add", a, index, N, &s)) return &c->empty;
    if (a->shape.dim[a->shape.rank - 2] != index->shape.dim[index->shape.rank - 1])
        return ttt_fail(c, TTT_ERR_SHAPE, "index_add: %lld rows, but %lld numbers of rows", (long long)a->shape.dim[a->shape.rank - 2],
                        (long long)index->shape.dim[index->shape.rank - 1]);
    s.dim[s.rank - 2] = N;
    return ttt_apply(c, &ttt__op_index_add, in, 2, s, NULL, 0);
}

// The same integers as one long row.
static ttt_tensor *ttt__flat_index(ttt_ctx *c, ttt_tensor *index) {
    return ttt__or_empty(c, ttt__tensor(c, TTT_SHAPE(index->size), TTT_DTYPE_INT, false, index));
}

// The index is flat, so that a gradient's rows are added to one table at once; leading sizes would
// each get a table of their own, to be summed.
ttt_tensor *ttt_embedding(ttt_ctx *c, ttt_tensor *table, ttt_tensor *index) {
    if (!ttt__operands(c, "embedding", &table, 1)) return &c->empty;
    if (!ttt__operand(c, "embedding", index, 1, TTT__INT)) return &c->empty;
    ttt_shape s = index->shape;
    if (table->shape.rank != 2 || s.rank == TTT_MAX_RANK) {
        ttt_text t0, t1;
        return ttt_fail(c, TTT_ERR_SHAPE, "embedding: table %s, index %s; (V,D) and (...) expected",
                        ttt_shape_text(table->shape, t0), ttt_shape_text(s, t1));
    }
    s.dim[s.rank++] = table->shape.dim[1];
    return ttt_reshape(c, ttt__select(c, "embedding", table, ttt__flat_index(c, index)), s);
}

// Elements of a by their places in memory, as a tensor of shape s.
static ttt_tensor *ttt__pick(ttt_ctx *c, ttt_tensor *a, ttt_tensor *places, ttt_shape s) {
    ttt_tensor *column = ttt_reshape(c, a, TTT_SHAPE(a->size, 1));
    return ttt_reshape(c, ttt_index_select(c, column, ttt__flat_index(c, places)), s);
}

// -- the largest along an axis: (outer, n, inner) -> (outer, inner)
// NaN is not below or equal to anything, so it is taken; and then the search ends.
static int64_t ttt__largest(const ttt_real *a, int64_t n, int64_t step) {
    ttt_real best = a[0];
    int64_t at = 0;
    for (int64_t i = 1; i < n && best == best; i++)
        if (!(a[i * step] <= best)) {
            best = a[i * step];
            at = i;
        }
    return at;
}
typedef struct ttt__largest_job {
    const ttt_real *a;
    int64_t n, inner;
    bool in_memory;  // places are counted through all of a, else along the axis
    int64_t *place;
} ttt__largest_job;
static void ttt__largest_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__largest_job *j = (const ttt__largest_job *)arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t from = i / j->inner * j->n * j->inner + i % j->inner;
        int64_t at = ttt__largest(j->a + from, j->n, j->inner);
        j->place[i] = j->in_memory ? from + at * j->inner : at;
    }
}
static ttt_tensor *ttt__places_of_largest(ttt_ctx *c, const char *op, ttt_tensor *a, int axis,
                                          bool in_memory) {
    int at = ttt__operands(c, op, &a, 1) ? ttt__axis(c, op, a, axis) : -1;
    if (at < 0) return &c->empty;
    ttt_shape s = a->shape;
    if (s.dim[at] == 0) {
        ttt_text t;
        return ttt_fail(c, TTT_ERR_SHAPE, "%s: axis %d of %s is empty; size 1 or more expected", op,
                        axis, ttt_shape_text(s, t));
    }
    ttt__largest_job job = { a->data, s.dim[at], 1, in_memory, NULL };
    for (int i = at + 1; i < s.rank; i++) {
        job.inner *= s.dim[i];
        s.dim[i - 1] = s.dim[i];
    }
    ttt_tensor *y = ttt_new_typed(c, ttt__lead(s, 1), TTT_DTYPE_INT, false);
    int back = ttt__profile_begin(c, op, false);
    double bytes = ttt__tensor_bytes(a) + ttt__tensor_bytes(y);
    job.place = y->index;
    ttt__parallel(c, -1, y->size, 1 + 4096 / job.n, ttt__largest_share, &job);
    if (back >= 0) ttt__profile_count(ttt__profile_end(c, back), (double)a->size, bytes);
    return y;
}
ttt_tensor *ttt_argmax(ttt_ctx *c, ttt_tensor *a, int axis) {
    return ttt__places_of_largest(c, "argmax", a, axis, false);
}
ttt_tensor *ttt_max_axis(ttt_ctx *c, ttt_tensor *a, int axis) {
    ttt_tensor *places = ttt__places_of_largest(c, "max_axis", a, axis, true);
    if (c->result) return &c->empty;
    ttt_shape s = a->shape;
    s.dim[axis < 0 ? axis + s.rank : axis] = 1;
    return ttt__pick(c, a, places, s);
}

// -- a triangular system. The diagonal of ones is not stored, and what is above it is not read.
typedef struct ttt__solve_job {
    const ttt_real *a;
    ttt_real *y;
    int64_t n, d;
    bool transposed;
} ttt__solve_job;
// Row i of y has b_i; what the rows before it (behind it, if transposed) contribute is taken off.
static void ttt__solve_row(const ttt__solve_job *j, const ttt_real *a, ttt_real *y, int64_t i) {
    int64_t from = j->transposed ? i + 1 : 0, to = j->transposed ? j->n : i;
    for (int64_t k = from; k < to; k++) {
        ttt_real l = j->transposed ? a[k * j->n + i] : a[i * j->n + k];
        for (int64_t t = 0; t < j->d; t++) y[i * j->d + t] -= l * y[k * j->d + t];
    }
}
static void ttt__solve_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__solve_job *j = (const ttt__solve_job *)arg;
    (void)thread;
    for (int64_t m = begin; m < end; m++)
        for (int64_t i = 0; i < j->n; i++)
            ttt__solve_row(j, j->a + m * j->n * j->n, j->y + m * j->n * j->d, j->transposed ? j->n - 1 - i : i);
}
FORWARD(solve_lower) {
    int64_t n = y->shape.dim[y->shape.rank - 2], d = y->shape.dim[y->shape.rank - 1];
    ttt__solve_job j = { A->data, y->data, n, d, *(const bool *)y->arg };
    if (y->size == 0) return;
    memcpy(y->data, B->data, (size_t)y->size * sizeof *y->data);
    ttt__parallel(c, -1, y->size / (n * d), 1 + 8192 / (n * n * d), ttt__solve_share, &j);
}
// With S = 1 + L: dS = -(S^-T g) y^T, of which L has the part below the diagonal; db = S^-T g.
RULE(solve_lower) {
    bool t = *(const bool *)y->arg;
    ttt_tensor *db = ttt_solve_lower(c, A, g, !t);
    if (d[0]) {
        int64_t n = A->shape.dim[A->shape.rank - 1];
        ttt_tensor *below = ttt_zeros(c, TTT_SHAPE(n, n));
        for (int64_t i = 0; ttt_ok(c) && i < n; i++)
            for (int64_t k = 0; k < i; k++) below->data[i * n + k] = -1;
        d[0] = ttt_mul(c, t ? ttt_matmul_t(c, y, db, false, true) : ttt_matmul_t(c, db, y, false, true), below);
    }
    if (d[1]) d[1] = db;
}
ttt_tensor *ttt_solve_lower(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b, bool transposed) {
    ttt_tensor *in[2] = { a, b };
    if (!ttt__operands(c, "solve_lower", in, 2)) return &c->empty;
    int ra = a->shape.rank, rb = b->shape.rank;
    if (ra < 2 || rb != ra || a->shape.dim[ra - 1] != a->shape.dim[ra - 2] || b->shape.dim[rb - 2] != a->shape.dim[ra - 1] ||
        !ttt_shape_equal(ttt__lead(a->shape, 2), ttt__lead(b->shape, 2))) {
        ttt_text t0, t1;
        return ttt_fail(c, TTT_ERR_SHAPE, "solve_lower: a %s, b %s; (...,n,n) and (...,n,d) with the same leading sizes expected",
                        ttt_shape_text(a->shape, t0), ttt_shape_text(b->shape, t1));
    }
    return ttt_apply(c, &ttt__op_solve_lower, in, 2, b->shape, &transposed, sizeof transposed);
}

// -- along the last axis
typedef struct ttt__norm {
    double eps;
    bool centered;
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
    if (!ttt__operands(c, op->name, in, n)) return &c->empty;
    if (in[0]->shape.rank < 1 || (n > 1 && !ttt_shape_equal(in[0]->shape, in[1]->shape))) {
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
ROW(normalize) { (void)b; j->k->normalize(D, a, y, NORM->eps, NORM->centered); }
FORWARD(normalize) { ttt__each_row(c, y, ttt__normalize_row); }
RULE(normalize) {
    const ttt__norm *n = (const ttt__norm *)y->arg;
    d[0] = ttt_normalize_d1(c, A, g, (ttt_real)n->eps, n->centered);
}
static ttt_tensor *ttt__normalize(ttt_ctx *c, ttt_tensor *a, ttt_real eps, bool centered) {
    ttt__norm n = { (double)eps, centered };
    return ttt__row_op(c, &ttt__op_normalize, &a, 1, a->shape, &n, sizeof n);
}
ttt_tensor *ttt_layer_normalize(ttt_ctx *c, ttt_tensor *a, ttt_real eps) { return ttt__normalize(c, a, eps, true); }
ttt_tensor *ttt_rms_normalize(ttt_ctx *c, ttt_tensor *a, ttt_real eps) { return ttt__normalize(c, a, eps, false); }

// With x = x^(a), r = rstd(a), D the length of a row, J v = normalize_d1(a, v), all sums over a row:
//   <u, J g> = r (sum u g - (sum u)(sum g)/D - (sum u x)(sum g x)/D),  J symmetric,
//   d r = -r^2 x/D . da,  d x = J da,  hence the gradient in a of <u, J g>:
//   -r/D ( x <u, J g> + (sum g x) J u + (sum u x) J g ).
// The middle product of the first line is there only if the norm is centered; J knows.
ROW(normalize_d1) { j->k->normalize_d1(D, a, b, y, NORM->eps, NORM->centered); }
FORWARD(normalize_d1) { ttt__each_row(c, y, ttt__normalize_d1_row); }
RULE(normalize_d1) {
    const ttt__norm *n = (const ttt__norm *)y->arg;
    ttt_real eps = (ttt_real)n->eps;
    ttt_tensor *u = g, *Ju = ttt_normalize_d1(c, A, u, eps, n->centered);
    if (d[0]) {
        ttt_tensor *x = ttt__normalize(c, A, eps, n->centered), *r = ttt_rstd(c, A, eps, n->centered);
        ttt_tensor *inner = ttt_sum_axis(c, ttt_mul(c, u, y), -1);
        ttt_tensor *gx = ttt_sum_axis(c, ttt_mul(c, B, x), -1), *ux = ttt_sum_axis(c, ttt_mul(c, u, x), -1);
        ttt_tensor *sum = ttt_add(c, ttt_mul(c, x, inner), ttt_add(c, ttt_mul(c, Ju, gx), ttt_mul(c, y, ux)));
        d[0] = ttt_mul(c, sum, ttt_scale(c, r, -1 / (ttt_real)A->shape.dim[A->shape.rank - 1]));
    }
    if (d[1]) d[1] = Ju;
}
ttt_tensor *ttt_normalize_d1(ttt_ctx *c, ttt_tensor *a, ttt_tensor *g, ttt_real eps, bool centered) {
    ttt__norm n = { (double)eps, centered };
    ttt_tensor *in[2] = { a, g };
    return ttt__row_op(c, &ttt__op_normalize_d1, in, 2, a->shape, &n, sizeof n);
}

ROW(rstd) {
    ttt_real mean;
    (void)b;
    j->k->moments(D, a, NORM->eps, NORM->centered, &mean, y);
}
FORWARD(rstd) { ttt__each_row(c, y, ttt__rstd_row); }
RULE(rstd) {  // -g r^2 x / D
    const ttt__norm *n = (const ttt__norm *)y->arg;
    ttt_tensor *x = ttt__normalize(c, A, (ttt_real)n->eps, n->centered);
    ttt_tensor *gr2 = ttt_scale(c, ttt_mul(c, g, ttt_square(c, y)), -1 / (ttt_real)A->shape.dim[A->shape.rank - 1]);
    d[0] = ttt_mul(c, x, gr2);
}
ttt_tensor *ttt_rstd(ttt_ctx *c, ttt_tensor *a, ttt_real eps, bool centered) {
    ttt__norm n = { (double)eps, centered };
    ttt_shape s = a->shape;
    if (s.rank > 0) s.dim[s.rank - 1] = 1;
    return ttt__row_op(c, &ttt__op_rstd, &a, 1, s, &n, sizeof n);
}
#undef NORM
#undef ROW

// ---- [13] MATRIX PRODUCT ------------------------------------------------------------------------
// One product C = init + A B of M x K by K x N numbers. A and B come with a stride for each index, so
// a transposed operand is just one with its strides exchanged. The processor multiplies far faster than
// memory delivers; so the work is cut such that whatever was fetched is used often before it has to make
// room again. From the outside in, as [Goto 2008] does and names it:
//   - into NC = 1536 columns: what is packed of B, KC x NC (3 MB), stays in the last-level cache;
//   - into KC = 512 terms of the sum at most, the parts of one length: 6 rows of A of that length (12 kB)
//     stay in the first-level cache while a tile uses them, and a panel of B of that length (128 kB at 64
//     columns) in the second;
//   - into MC = 192 rows: so much of A (384 kB) stays in the second-level cache too, while one panel
//     after the other meets it. 192 is a multiple of every tile's height;
//   - into panels of NR columns, as wide as the widest tile (4 vectors, 64 columns, with AVX-512);
//   - into tiles, whose sums live in registers: see `tile` in [8]. One is as wide as its panel, and 6 rows
//     high, or up to 16 in a last panel that is narrower.
// A is read in place. B is read in place too, if its rows are contiguous: copying it costs more than
// it saves. It is copied ("packed") panel by panel where it is transposed or bfloat16, where the last
// panel is not a whole number of vectors wide (then padded with zeros), where more than 1024 rows share
// it, and where at least 96 do and it is large (4 MB), or strided by a multiple of 4096 bytes (its rows
// would all fall in the same cache sets), or too large for the first-level cache (32 kB) and read in
// panels of less than 64 columns, a cache line or two of each row at a time.
// The numbers were found by trying, most of them with AVX-512 and float.
typedef struct ttt__finish {
    void (*map)(int64_t n, const ttt_real *a, ttt_real *y, ttt_real scalar);  // c = map(c), unless NULL
    const ttt_real *add;                                                      // then c += add, unless NULL
    int64_t add_row;
} ttt__finish;

typedef struct ttt__gemm {
    int64_t m, n, k;
    const ttt_real *a;
    int64_t a_row, a_col;
    const ttt_real *b;
    int64_t b_row, b_col;  // one of them is 1
    const ttt_real *init;  // NULL: zero
    int64_t init_row;      // 0: the same row for all, a bias
    ttt_real *c;
    int64_t c_row;
    const uint16_t *bf16;  // NULL, or what to read in place of b
    ttt__finish finish;    // what is done to a tile as soon as its sums are complete
} ttt__gemm;

#define TTT__KC ((int64_t)512)
#define TTT__MC ((int64_t)192)
#define TTT__NC ((int64_t)1536)
#define TTT__NR_MAX ((int64_t)64)  // 4 vectors of AVX-512; also where columns are cut for threads
// What packing needs: KC x NC numbers of b (the last panel padded), a tile at the edge, a panel widened.
#define TTT__PACK_REALS ((size_t)(TTT__KC * (TTT__NC + TTT__NR_MAX) + TTT__MAX_ROWS * TTT__NR_MAX + TTT__KC * TTT__NR_MAX))

static void ttt__gemm_columns(ttt__gemm *g, int64_t from) {  // goes on from column `from`
    if (g->bf16) g->bf16 += from * g->b_col;
    else g->b += from * g->b_col;
    g->c += from;
    if (g->init) g->init += from;
    if (g->finish.add) g->finish.add += from;
}
static void ttt__gemm_rows(ttt__gemm *g, int64_t from) {
    g->a += from * g->a_row;
    g->c += from * g->c_row;
    if (g->init) g->init += from * g->init_row;
    if (g->finish.add) g->finish.add += from * g->finish.add_row;
}

static void ttt__finish_rows(const ttt__finish *f, int64_t m, int64_t n, ttt_real *c, int64_t c_row, const ttt__kernels *kern) {
    for (int64_t i = 0; i < m; i++, c += c_row) {
        if (f->map) f->map(n, c, c, 0);
        if (f->add) kern->zip[TTT__ZIP_add](n, c, 1, f->add + i * f->add_row, 1, c);
    }
}

// Columns 0..n of b (k,n) padded to `width`, rows one behind the other. `wide` has room for a panel.
static void ttt__pack(const ttt__kernels *kern, const ttt__gemm *g, int64_t n, int64_t width, ttt_real *to, ttt_real *wide) {
    const ttt_real *b = g->b;
    int64_t b_row = g->b_row, b_col = g->b_col, k = g->k;
    bool transposed = b_col != 1;
    if (g->bf16 && transposed) {  // widened first, then like any other
        for (int64_t j = 0; j < n; j++) kern->widen(k, g->bf16 + j * b_col, wide + j * k);
        b = wide;
        b_col = k;
    }
    if (transposed) kern->transpose(n, k, b, b_col, to, width);
    else if (g->bf16) for (int64_t i = 0; i < k; i++) kern->widen(n, g->bf16 + i * b_row, to + i * width);
    else for (int64_t i = 0; i < k; i++) memcpy(to + i * width, b + i * b_row, (size_t)n * sizeof *b);
    for (int64_t i = 0; i < k && n < width; i++)
        for (int64_t j = n; j < width; j++) to[i * width + j] = 0;
}

// A block of m rows times one panel of `width` columns, tile by tile; rows are spread evenly over
// tiles. If only `n` of the columns exist, each tile goes through `edge`, which has room for a whole one.
// p is used up: it ends below the last row.
static void ttt__panel(const ttt__kernels *kern, ttt__gemm *p, int64_t m, int64_t n, int64_t width, ttt_real *edge) {
    int64_t cols = width / kern->lanes, most = kern->tile_rows[cols - 1], tiles = (m + most - 1) / most;
    ttt__tile_fn *const *tile = kern->tile[cols - 1];
    bool finish = p->finish.map || p->finish.add;
    for (int64_t t = 0; t < tiles; t++) {
        int64_t rows = m / tiles + (t < m % tiles);
        if (n == width) {
            tile[rows - 1](p->k, p->a, p->a_row, p->a_col, p->b, p->b_row, p->init, p->init_row, p->c, p->c_row);
        } else {
            tile[rows - 1](p->k, p->a, p->a_row, p->a_col, p->b, p->b_row, NULL, 0, edge, width);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t j = 0; j < n; j++) p->c[r * p->c_row + j] = edge[r * width + j] + (p->init ? p->init[r * p->init_row + j] : 0);
        }
        if (finish) ttt__finish_rows(&p->finish, rows, n, p->c, p->c_row, kern);
        ttt__gemm_rows(p, rows);
    }
}

// A block of at most KC terms: all panels of at most NC columns, all rows, in blocks of about MC. The first of them
// packs each panel, those behind find it packed.
static void ttt__gemm_block(const ttt__kernels *kern, const ttt__gemm *g, bool pack, ttt_real *workspace) {
    int64_t lanes = kern->lanes, panel = lanes * kern->tile_cols;
    ttt_real *edge = workspace + TTT__KC * (TTT__NC + TTT__NR_MAX), *wide = edge + TTT__MAX_ROWS * TTT__NR_MAX;
    int64_t blocks = TTT__MAX(1, (g->m + TTT__MC / 2) / TTT__MC);
    for (int64_t b = 0; b < blocks; b++) {
        int64_t i = g->m * b / blocks, m = g->m * (b + 1) / blocks - i;
        for (int64_t j = 0; j < g->n; j += panel) {
            int64_t n = TTT__MIN(panel, g->n - j), width = (n + lanes - 1) / lanes * lanes;
            ttt__gemm p = *g;
            ttt__gemm_rows(&p, i);
            ttt__gemm_columns(&p, j);
            if (pack || n < width) {
                ttt_real *packed = workspace + j * g->k;
                if (i == 0) ttt__pack(kern, &p, n, width, packed, wide);
                p.b = packed;
                p.b_row = width;
            }
            ttt__panel(kern, &p, m, n, width, edge);
        }
    }
}

// One row: nothing of b is used twice, so nothing is cut into blocks or copied. False if it is not one, or
// of numbers that lie apart, by a transposed b: such a one is rare, and takes the long way.
static bool ttt__gemm_row(const ttt__kernels *kern, const ttt__gemm *g) {
    if (g->m != 1 || (g->b_col != 1 && g->a_col != 1)) return false;
    if (g->b_col == 1) kern->row_by_rows(g->n, g->k, g->a, g->a_col, g->b, g->bf16, g->b_row, g->init, g->c);
    else kern->row_by_columns(g->n, g->k, g->a, g->b, g->bf16, g->b_col, g->init, g->c);
    ttt__finish_rows(&g->finish, 1, g->n, g->c, g->c_row, kern);
    return true;
}

static void ttt__gemm_run(const ttt__kernels *kern, const ttt__gemm *g, ttt_real *workspace) {
    if (g->m == 0 || g->n == 0 || ttt__gemm_row(kern, g)) return;  // none: more threads than rows or columns
    bool narrow = kern->lanes * kern->tile_cols < TTT__NR_MAX && g->k * g->n > 1 << 13;
    bool strided = g->b_row * (int64_t)sizeof(ttt_real) % 4096 == 0, large = g->k * g->n > 1 << 20;
    bool pack = g->bf16 || g->b_col != 1 || g->m > 1024 || (g->m >= 96 && (narrow || strided || large));
    int64_t blocks = TTT__MAX(1, (g->k + TTT__KC - 1) / TTT__KC);
    bool one_panel = g->m <= TTT__MC && g->n <= kern->lanes * kern->tile_cols && g->n % kern->lanes == 0;
    if (one_panel && blocks == 1 && !g->bf16) {  // most small products, over in 300 ns: the loops would take 20 of them
        ttt__gemm p = *g;
        if (pack) {
            ttt__pack(kern, g, g->n, g->n, workspace, NULL);
            p.b = workspace;
            p.b_row = g->n;
        }
        ttt__panel(kern, &p, g->m, g->n, g->n, NULL);
        return;
    }
    for (int64_t j = 0; j < g->n; j += TTT__NC)
        for (int64_t b = 0; b < blocks; b++) {
            int64_t from = g->k * b / blocks, to = g->k * (b + 1) / blocks;
            ttt__gemm p = *g;
            ttt__gemm_columns(&p, j);
            p.n = TTT__MIN(TTT__NC, g->n - j);
            p.k = to - from;
            p.a += from * g->a_col;
            if (p.bf16) p.bf16 += from * g->b_row;
            else p.b += from * g->b_row;
            if (b > 0) {  // go on from what the block before left
                p.init = p.c;
                p.init_row = p.c_row;
            }
            if (b < blocks - 1) memset(&p.finish, 0, sizeof p.finish);
            ttt__gemm_block(kern, &p, pack, workspace);
        }
}

// -- batches of products
// Every iteration of `kept` is one product of the result; each is the sum over the iterations of
// `summed`. Strides: 0 of a, 1 of b, 2 of init, in elements; results lie c_step apart.
typedef struct ttt__product {
    ttt_ctx *c;
    ttt__gemm one;
    int64_t c_step;  // from one result to the next
    ttt__loops kept, summed;
    int64_t row_blocks, column_blocks, n_summed;
} ttt__product;

// Part i of n of a size, cut at multiples of `unit`, so that a cut never changes how a number is summed.
static int64_t ttt__cut(int64_t size, int64_t i, int64_t n, int64_t unit) {
    return i == n ? size : size * i / n / unit * unit;
}

static void ttt__product_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__product *p = (const ttt__product *)arg;
    for (int64_t t = begin; t < end; t++) {
        int64_t column = t % p->column_blocks, row = t / p->column_blocks % p->row_blocks;
        int64_t which = t / p->column_blocks / p->row_blocks;
        int64_t i = ttt__cut(p->one.m, row, p->row_blocks, 1), j = ttt__cut(p->one.n, column, p->column_blocks, TTT__NR_MAX);
        for (int64_t s = 0; s < p->n_summed; s++) {
            ttt__gemm g = p->one;
            int64_t b = ttt__loops_at(&p->kept, p->kept.n, 1, which) + ttt__loops_at(&p->summed, p->summed.n, 1, s);
            g.m = ttt__cut(p->one.m, row + 1, p->row_blocks, 1) - i;
            g.n = ttt__cut(p->one.n, column + 1, p->column_blocks, TTT__NR_MAX) - j;
            g.a += ttt__loops_at(&p->kept, p->kept.n, 0, which) + ttt__loops_at(&p->summed, p->summed.n, 0, s);
            if (g.bf16) g.bf16 += b;
            else g.b += b;
            g.c += which * p->c_step;
            if (g.finish.add && g.finish.add_row) g.finish.add += which * p->c_step;  // without a row step: a bias
            if (g.init == p->one.c) g.init = g.c;
            else if (g.init) g.init += ttt__loops_at(&p->kept, p->kept.n, 2, which);
            if (s > 0) {
                g.init = g.c;
                g.init_row = g.c_row;
            }
            ttt__gemm_rows(&g, i);
            ttt__gemm_columns(&g, j);
            ttt__gemm_run(p->c->k, &g, p->c->pack[thread]);
        }
    }
}

// Many products are shared out whole; few, by their rows; rows too few for that, by their columns.
static void ttt__product_start(ttt__product *p) {
    int64_t kept = ttt__loops_count(&p->kept, p->kept.n), threads = p->c->threads;
    p->n_summed = ttt__loops_count(&p->summed, p->summed.n);
    p->row_blocks = kept >= 4 * threads ? 1 : TTT__MIN(threads, (p->one.m + TTT__TILE_ROWS - 1) / TTT__TILE_ROWS);
    p->column_blocks = kept * p->row_blocks >= threads ? 1 : TTT__MIN(threads, (p->one.n + TTT__NR_MAX - 1) / TTT__NR_MAX);
    int64_t parts = p->row_blocks * p->column_blocks;
    if (kept * parts * p->n_summed == 1) {  // a single small one: no time for anything else
        ttt__gemm_run(p->c->k, &p->one, p->c->pack[0]);
        return;
    }
    int64_t work = p->one.m * p->one.n * p->one.k * p->n_summed / parts + 1;
    ttt__parallel(p->c, -1, kept * parts, 1 + 100000 / work, ttt__product_share, p);
}

// Leading sizes of a, b, init and y become loops. Those that y lacks are summed over.
static void ttt__product_loops(ttt__product *p, const ttt_tensor *a, const ttt_tensor *b, const ttt_tensor *init, ttt_shape y) {
    ttt_shape la = ttt__lead(a->shape, 2), lb = ttt__lead(b->shape, 2), ly = ttt__lead(y, 2), all;
    int64_t sa[TTT_MAX_RANK], sb[TTT_MAX_RANK], sc[TTT_MAX_RANK] = { 0 }, sy[TTT_MAX_RANK];
    int64_t a_size = a->shape.dim[la.rank] * a->shape.dim[la.rank + 1], b_size = b->shape.dim[lb.rank] * b->shape.dim[lb.rank + 1];
    ttt__broadcast_shape(la, lb, &all);
    ttt__strides(la, all, sa);
    ttt__strides(lb, all, sb);
    ttt__strides(ly, all, sy);
    if (init) ttt__strides(ttt__lead(init->shape, TTT__MIN(2, init->shape.rank)), all, sc);
    int64_t init_size = p->one.init_row ? p->one.m * p->one.init_row : p->one.n;
    for (int i = 0; i < all.rank; i++) {
        ttt__loops *l = sy[i] == 0 && all.dim[i] > 1 ? &p->summed : &p->kept;
        l->size[l->n] = all.dim[i];
        l->stride[0][l->n] = sa[i] * a_size;
        l->stride[1][l->n] = sb[i] * b_size;
        l->stride[2][l->n++] = sc[i] * init_size;
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
    if (no_sum && k->n == 1 && k->stride[1][0] == 0 && k->stride[2][0] == g->m * g->init_row && g->a_col == 1 && k->stride[0][0] == g->m * g->a_row) {
        g->m *= k->size[0];
        k->size[0] = 1;
    }
    if (s->n == 1 && s->stride[0][0] == g->k * g->a_col && s->stride[1][0] == g->k * g->b_row && g->b_col == 1) {
        g->k *= s->size[0];
        s->size[0] = 1;
    }
}

// y = init + op(a) op(b) for whole tensors; init: NULL (zero), a row or a matrix that is broadcast, or y itself (add to it).
static void ttt__product_run(ttt_ctx *c, const ttt_tensor *a, const ttt_tensor *b, bool ta, bool tb,
                             const ttt_tensor *init, ttt_tensor *y) {
    int ra = a->shape.rank, rb = b->shape.rank;
    int64_t a0 = a->shape.dim[ra - 2], a1 = a->shape.dim[ra - 1], b0 = b->shape.dim[rb - 2], b1 = b->shape.dim[rb - 1];
    ttt__product p;
    if (y->size == 0) return;
    memset(&p, 0, sizeof p);
    ttt__gemm one = { ta ? a1 : a0, tb ? b0 : b1, ta ? a0 : a1, a->data, ta ? 1 : a1, ta ? a1 : 1,
                      b->data, tb ? 1 : b1, tb ? b1 : 1, init ? init->data : NULL, 0,
                      y->data, tb ? b0 : b1, b->bf16, { NULL, NULL, 0 } };
    p.c = c;
    p.one = one;
    p.c_step = one.m * one.c_row;
    bool matrix = init == y || (init && init->shape.rank >= 2 && init->shape.dim[init->shape.rank - 2] > 1);
    if (matrix) p.one.init_row = p.one.c_row;
    ttt__product_loops(&p, a, b, init, y->shape);
    if (ttt__loops_count(&p.kept, p.kept.n) == 0) {  // a sum over no products
        memset(y->data, 0, (size_t)y->size * sizeof *y->data);
        return;
    }
    ttt__product_merge(&p);
    ttt__product_start(&p);
}

// -- the same for plain arrays
static bool ttt__overlap(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes) {
    uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
    return a && b && a_bytes > 0 && b_bytes > 0 && x < y + (uintptr_t)b_bytes && y < x + (uintptr_t)a_bytes;
}
// From the first to the last of the elements that (rows, n) matrices take.
static int64_t ttt__extent(int64_t rows, int64_t n, int64_t row, int64_t batch, int64_t step) {
    return rows == 0 || n == 0 ? 0 : (batch - 1) * step + (rows - 1) * row + n;
}

static int ttt__map_find(const char *name) {
    static const char *const names[] = {
#define X(name, formula, lo, hi, flops) #name,
        TTT_UNARY_OPS(X)
#undef X
    };
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

// The defaults of d, or what is wrong with it.
static const char *ttt__gemm_resolve(ttt_gemm_desc *d) {
    if (d->m < 0 || d->n < 0 || d->k < 0 || d->batch < 0) return "m, n, k and batch cannot be negative";
    int64_t a_cols = d->ta ? d->m : d->k, b_cols = d->tb ? d->k : d->n;
    if (d->a_row == 0) d->a_row = a_cols;
    if (d->b_row == 0) d->b_row = b_cols;
    if (d->y_row == 0) d->y_row = d->n;
    if (d->batch == 0) d->batch = 1;
    if (d->a_row < a_cols) return "a_row is less than the length of a row of a";
    if (d->b_row < b_cols) return "b_row is less than the length of a row of b";
    if (d->y_row < d->n) return "y_row is less than n";
    if (d->a_step < 0 || d->b_step < 0 || d->y_step < 0) return "steps cannot be negative";
    if (d->m == 0 || d->n == 0) return NULL;
    bool apart = d->y_step >= (d->m - 1) * d->y_row + d->n;  // one behind the other; or row by row beside each other
    if (d->batch > 1 && !apart && (d->y_step < d->n || d->y_row < (d->batch - 1) * d->y_step + d->n)) return "y_step makes results overlap";
    if (!d->y || (d->k > 0 && (!d->a || (!d->b && !d->b_bf16)))) return "an array is NULL";
    if (d->b && d->b_bf16) return "b and b_bf16 are both given";
    int64_t size = (int64_t)sizeof(ttt_real), y_bytes = size * ttt__extent(d->m, d->n, d->y_row, d->batch, d->y_step);
    int64_t b_size = ttt__extent(d->tb ? d->n : d->k, b_cols, d->b_row, d->batch, d->b_step);
    if (ttt__overlap(d->y, y_bytes, d->a, size * ttt__extent(d->ta ? d->k : d->m, a_cols, d->a_row, d->batch, d->a_step)) ||
        ttt__overlap(d->y, y_bytes, d->b, size * b_size) || ttt__overlap(d->y, y_bytes, d->b_bf16, 2 * b_size) ||
        ttt__overlap(d->y, y_bytes, d->bias, size * d->n) || (d->add != d->y && ttt__overlap(d->y, y_bytes, d->add, y_bytes)))
        return "y overlaps an operand";
    if (d->map && ttt__map_find(d->map) < 0) return "map is not the name of an op of one number";
    if (d->map && d->add == d->y) return "map(ab) cannot be added to y itself";
    return NULL;
}

ttt_result ttt_gemm(ttt_ctx *c, const ttt_gemm_desc *desc) {
    if (c->result) return c->result;
    ttt_gemm_desc d = *desc;
    const char *wrong = ttt__gemm_resolve(&d);
    if (wrong) {
        ttt_fail(c, TTT_ERR_ARGUMENT, "gemm: %s (m=%lld n=%lld k=%lld a_row=%lld b_row=%lld y_row=%lld batch=%lld)", wrong, (long long)d.m,
                 (long long)d.n, (long long)d.k, (long long)d.a_row, (long long)d.b_row, (long long)d.y_row, (long long)d.batch);
        return c->result;
    }
    if (d.m == 0 || d.n == 0) return TTT_OK;
    ttt__product p;
    ttt__gemm one = { d.m, d.n, d.k, d.a, d.ta ? 1 : d.a_row, d.ta ? d.a_row : 1, d.b, d.tb ? 1 : d.b_row, d.tb ? d.b_row : 1,
                      d.bias, 0, d.y, d.y_row, d.b_bf16, { NULL, d.add, d.y_row } };
    if (d.map) one.finish.map = c->k->map[ttt__map_find(d.map)];
    if (d.add == d.y) {  // then the sums begin with it, and the bias comes last
        one.init = d.y;
        one.init_row = d.y_row;
        one.finish.add = d.bias;
        one.finish.add_row = 0;
    }
    p.c = c;
    p.one = one;
    p.c_step = d.y_step;
    p.summed.n = 0;
    p.kept.n = 1;
    p.kept.size[0] = d.batch;
    p.kept.stride[0][0] = d.a_step;
    p.kept.stride[1][0] = d.b_step;
    p.kept.stride[2][0] = 0;
    ttt__product_start(&p);
    return c->result;
}

typedef struct ttt__transposed {
    bool a, b;
} ttt__transposed;

static int64_t ttt__matmul_flops(const ttt_tensor *y) {
    const ttt__transposed *t = (const ttt__transposed *)y->arg;
    int64_t k = A->shape.dim[A->shape.rank - (t->a ? 2 : 1)], m = A->shape.dim[A->shape.rank - (t->a ? 1 : 2)];
    int64_t n = y->shape.dim[y->shape.rank - 1];
    ttt_shape all;
    ttt__broadcast_shape(ttt__lead(A->shape, 2), ttt__lead(B->shape, 2), &all);
    return 2 * m * n * k * ttt_shape_size(all);
}

FORWARD(matmul) {
    const ttt__transposed *t = (const ttt__transposed *)y->arg;
    ttt__product_run(c, A, B, t->a, t->b, NULL, y);
}
// g repeated over leading sizes that y was summed over and that a and b do not both have.
static ttt_tensor *ttt__unsum(ttt_ctx *c, ttt_tensor *g, const ttt_tensor *a, const ttt_tensor *b) {
    ttt_shape lg = ttt__lead(g->shape, 2), la = ttt__lead(a->shape, 2), lb = ttt__lead(b->shape, 2), ga, gb, all;
    ttt__broadcast_shape(lg, la, &ga);
    ttt__broadcast_shape(lg, lb, &gb);
    ttt__broadcast_shape(la, lb, &all);
    if (ttt_shape_equal(ga, all) && ttt_shape_equal(gb, all)) return g;
    all.dim[all.rank++] = g->shape.dim[lg.rank];
    all.dim[all.rank++] = g->shape.dim[lg.rank + 1];
    return ttt_broadcast(c, g, all);
}
// y = a b: da = g b^T, db = a^T g; transposed operands likewise, read off the indices. If a is one,
// b is the left factor of da, which cannot be bfloat16.
RULE(matmul) {
    const ttt__transposed *t = (const ttt__transposed *)y->arg;
    g = ttt__unsum(c, g, A, B);
    ttt_tensor *b = B->bf16 && t->a ? ttt_cast(c, B, TTT_DTYPE_REAL) : B;
    if (d[0])
        d[0] = t->a ? ttt_matmul_to(c, b, g, t->b, true, A->shape)
                    : ttt_matmul_to(c, g, b, false, !t->b, A->shape);
    if (d[1]) d[1] = t->b ? ttt_matmul_to(c, g, A, true, t->a, B->shape) : ttt_matmul_to(c, A, g, !t->a, false, B->shape);
}

// Checks the operands and gives the shape of their product, all leading sizes broadcast.
static bool ttt__product_shape(ttt_ctx *c, const char *op, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb, ttt_shape *s) {
    ttt_text t0, t1;
    if (!ttt__operand(c, op, a, 0, TTT__REAL)) return false;
    if (!ttt__operand(c, op, b, 1, TTT__REAL | TTT__BF16)) return false;
    int ra = a->shape.rank, rb = b->shape.rank;
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

FORWARD(matmul_add) {
    const ttt__transposed *t = (const ttt__transposed *)y->arg;
    ttt__product_run(c, A, B, t->a, t->b, y->in[2], y);
}
RULE(matmul_add) {
    ttt__matmul_rule(c, y, g, d);
    if (d[2]) d[2] = ttt__fit(c, g, y->in[2]);
}
static ttt_tensor *ttt__product_add(ttt_ctx *c, const char *call, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb, ttt_tensor *add) {
    ttt__transposed t = { ta, tb };
    ttt_tensor *in[3] = { a, b, add };
    ttt_shape s, all;
    if (!ttt__product_shape(c, call, a, b, ta, tb, &s)) return &c->empty;
    if (!ttt__operand(c, call, add, 2, TTT__REAL)) return &c->empty;
    bool wide = add->shape.rank > 0 && add->shape.dim[add->shape.rank - 1] == s.dim[s.rank - 1];
    if (!wide || !ttt__broadcast_shape(s, add->shape, &all) || !ttt_shape_equal(s, all)) {
        ttt_text t0, t1;
        return ttt_fail(c, TTT_ERR_SHAPE, "%s: %s cannot be added to a product of shape %s; (n), (...,1,n) or (...,m,n) expected", call,
                        ttt_shape_text(add->shape, t0), ttt_shape_text(s, t1));
    }
    return ttt_apply(c, &ttt__op_matmul_add, in, 3, s, &t, sizeof t);
}
ttt_tensor *ttt_matmul_add(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb, ttt_tensor *add) {
    return ttt__product_add(c, "matmul_add", a, b, ta, tb, add);
}
ttt_tensor *ttt_affine(ttt_ctx *c, ttt_tensor *x, ttt_tensor *w, ttt_tensor *b) { return ttt__product_add(c, "affine", x, w, false, false, b); }

// ---- [14] THE WALK BACKWARDS --------------------------------------------------------------------
// What a gradient taken without TTT_GRAD_RECORD is on the tape: something that came from y, but whose way
// back was not kept. It has a rule so that meeting it is an error instead of a missing term.
FORWARD(unrecorded) { (void)c; (void)y; }
RULE(unrecorded) {
    (void)y;
    (void)g;
    (void)d;
    ttt_fail(c, TTT_ERR_FIRST_ORDER, "grad: this would differentiate through a gradient that was taken without "
             "TTT_GRAD_RECORD, and miss its second-order terms. Take it with TTT_GRAD_RECORD, or ttt_detach it to mean a constant");
}
static const ttt_op ttt__op_unrecorded = { "unrecorded gradient", "dy/dw as numbers", 2, 0, 0, ttt__unrecorded_forward,
                                           ttt__unrecorded_rule, NULL, NULL, NULL };

// One walk. Slot i belongs to tape place base + i: the gradient gathered so far, and whether anything
// asked for lies below it.
typedef struct ttt__walk {
    ttt_ctx *c;
    int64_t base, n;
    ttt_tensor **grad;
    unsigned char *flags;
    bool record;
    // of the node at hand, for each input: its gradient, its slot, whether the gradient adds to what is there
    ttt_tensor **d;
    int64_t *slot;
    bool *add;
} ttt__walk;
enum {
    TTT__NEEDED = 1,  // some wrt is this or an ancestor of it
    TTT__WANTED = 2,  // it is a wrt
    TTT__FILLED = 4,  // grad[] is the caller's buffer (a leaf's) and holds numbers already
    TTT__FIXED = 8,   // grad[] is the caller's buffer
    TTT__TWICE = 16   // it is a wrt more than once
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
        if (wrt[i]->id <= y->id) {
            unsigned char *f = &w->flags[wrt[i]->id - w->base];
            *f = (unsigned char)(TTT__NEEDED | TTT__WANTED | (*f ? TTT__TWICE : 0));
        }
    int most = 1;  // inputs of one node
    for (int64_t i = 0; i < w->n; i++) {
        const ttt_tensor *t = c->nodes[w->base + i];
        most = TTT__MAX(most, t->n_in);
        for (int j = 0; j < t->n_in && !(w->flags[i] & TTT__NEEDED); j++)
            if (ttt__slot(w, t->in[j]) >= 0) w->flags[i] |= TTT__NEEDED;
    }
    w->d = (ttt_tensor **)ttt__arena_alloc(c, &c->scratch, (size_t)most * sizeof *w->d);
    w->slot = (int64_t *)ttt__arena_alloc(c, &c->scratch, (size_t)most * sizeof *w->slot);
    w->add = (bool *)ttt__arena_alloc(c, &c->scratch, (size_t)most * sizeof *w->add);
    return w->d && w->slot && w->add;
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
    c->n_made--;  // the slot's alone, however often this node's inputs ask for it
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
        int back = ttt__profile_begin(c, "gather gradients", false);
        bool filled;
        t = ttt__slot_buffer(w, i, &filled);
        if (t && filled) ttt__add_to(c, t, d);
        else if (t) memcpy(t->data, d->data, (size_t)d->size * sizeof *d->data);
        if (back >= 0) ttt__profile_count(ttt__profile_end(c, back), filled ? (double)d->size : 0, ttt__tensor_bytes(d) * (filled ? 3 : 2));
    }
}

// The gradient of an op that is defined by others: rebuild it from them, on the tape, and walk there.
// It is built on nodes of its own that stand for the inputs, where the walk ends: an input may be made
// from another, or be the same. If numbers are enough they are detached, and all is forgotten at once.
static void ttt__composite_rule(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d, bool record) {
    ttt_mark m = ttt_mark_get(c);
    int n = 0, *place = (int *)ttt_alloc(c, (size_t)y->n_in * sizeof *place, false);
    ttt_tensor **in = (ttt_tensor **)ttt_alloc(c, 3 * (size_t)y->n_in * sizeof *in, false), **wrt, **out;
    if (!place || !in) return;
    wrt = in + y->n_in;
    out = wrt + y->n_in;
    bool numbers_only = c->numbers_only, recording = ttt_set_recording(c, true);
    c->numbers_only = false;
    for (int j = 0; j < y->n_in; j++) {
        if (y->in[j]->dtype != TTT_DTYPE_REAL) in[j] = y->in[j];
        else in[j] = record ? ttt_reshape(c, y->in[j], y->in[j]->shape) : ttt_detach(c, y->in[j]);
        if (!d[j]) continue;
        place[n] = j;
        wrt[n++] = in[j];
    }
    ttt_vjp(c, y->op->composite(c, in, y), g, wrt, n, out, record ? TTT_GRAD_RECORD : TTT_GRAD_FIRST_ORDER);
    c->numbers_only = numbers_only;
    ttt_set_recording(c, recording);
    for (int i = 0; i < n && !c->result; i++) {
        d[place[i]] = out[i];
        if (record) continue;
        d[place[i]] = ttt_new(c, out[i]->shape);  // workspace again
        if (!c->result) memcpy(d[place[i]]->data, out[i]->data, (size_t)out[i]->size * sizeof *out[i]->data);
    }
    if (!record) ttt_mark_release(c, m);
}

// One node: its rule, and its inputs' slots.
static void ttt__walk_node(ttt__walk *w, ttt_tensor *y, ttt_tensor *g) {
    ttt_ctx *c = w->c;
    ttt_tensor **d = w->d;
    int64_t *slot = w->slot, n_made = c->n_made;
    bool *add = w->add;
    int n = y->n_in;
    for (int j = 0; j < n; j++) slot[j] = ttt__slot(w, y->in[j]);
    if (!w->record && y->op->fast) {
        for (int j = 0; j < n; j++) d[j] = slot[j] < 0 ? NULL : ttt__slot_buffer(w, slot[j], &add[j]);
        int back = ttt__profile_begin(c, y->op->name, true);
        if (!c->result) y->op->fast(c, y, g, d, add);
        if (back >= 0) ttt__profile_end_rule(c, back, y, d, add);
    } else {
        for (int j = 0; j < n; j++) d[j] = slot[j] < 0 ? NULL : y->in[j];
        int back = ttt__profile_begin(c, y->op->name, true);
        if (y->op->vjp) y->op->vjp(c, y, g, d);
        else ttt__composite_rule(c, y, g, d, w->record);
        if (back >= 0) ttt__profile_end_rule(c, back, y, NULL, NULL);
        for (int j = 0; j < n && !c->result; j++)
            if (slot[j] >= 0 && d[j] && !ttt_shape_equal(d[j]->shape, y->in[j]->shape)) {
                ttt_text t0, t1;
                ttt_fail(c, TTT_ERR_SHAPE, "grad: the rule of %s gives a gradient of shape %s for input %d of shape %s", y->op->name,
                         ttt_shape_text(d[j]->shape, t0), j, ttt_shape_text(y->in[j]->shape, t1));
            }
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
static void ttt__walk_recorded(ttt__walk *w, ttt_tensor *seed, ttt_tensor *const *wrt, int n, ttt_tensor **out) {
    w->grad[w->n - 1] = seed;
    ttt__walk_down(w);
    for (int i = 0; i < n && !w->c->result; i++) {
        int64_t slot = ttt__slot(w, wrt[i]);
        out[i] = slot >= 0 && w->grad[slot] ? w->grad[slot] : ttt_zeros(w->c, wrt[i]->shape);
    }
}

// Numbers only: out[] are buffers of the caller; leaves gather straight into them, the gradients of
// inner nodes are copied at the end.
static void ttt__walk_numbers(ttt__walk *w, ttt_tensor *y, ttt_tensor *seed, ttt_tensor *const *wrt, int n, ttt_tensor **out, bool add) {
    ttt_ctx *c = w->c;
    for (int i = 0; i < n; i++) {
        int64_t slot = ttt__slot(w, wrt[i]);
        if (slot < 0 || wrt[i]->op || wrt[i] == y || (w->flags[slot] & TTT__TWICE)) continue;
        w->grad[slot] = out[i];
        w->flags[slot] |= (unsigned char)(TTT__FIXED | (add ? TTT__FILLED : 0));
    }
    w->grad[w->n - 1] = seed;
    if (seed->block) ((ttt__block *)seed->block)->uses++;  // the walk drops it, but an outer walk may still hold it
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

// A tensor that ttt_grad was given: alive, on the tape or at least numbers, and real.
static bool ttt__grad_operand(ttt_ctx *c, const char *what, int i, const ttt_tensor *t, bool on_tape) {
    if (c->result) return false;
    if (!ttt__alive(c, t) || (on_tape && t->id == TTT__SCRATCH))
        ttt_fail(c, TTT_ERR_RELEASED, "grad: %s[%d] is not a living tensor of this context; was it released?", what, i);
    else if (t->dtype != TTT_DTYPE_REAL)
        ttt_fail(c, TTT_ERR_ARGUMENT, "grad: %s[%d] holds %s; real numbers expected", what, i,
                 ttt__dtype_text(t->dtype));
    return !c->result;
}

static bool ttt__vjp_good(ttt_ctx *c, ttt_tensor *y, ttt_tensor *seed, ttt_tensor *const *wrt, int n, ttt_tensor **out, ttt_grad_mode mode) {
    ttt_text t0, t1;
    if (!ttt__grad_operand(c, "y", 0, y, true) || !ttt__grad_operand(c, "seed", 0, seed, false)) return false;
    if (n > 0 && wrt == out) ttt_fail(c, TTT_ERR_ARGUMENT, "grad: wrt and out are the same array; out is written to before wrt is read");
    if (!ttt_shape_equal(seed->shape, y->shape))
        ttt_fail(c, TTT_ERR_SHAPE, "grad: a seed of shape %s for a y of shape %s", ttt_shape_text(seed->shape, t0), ttt_shape_text(y->shape, t1));
    for (int i = 0; i < n; i++) {
        if (!ttt__grad_operand(c, "wrt", i, wrt[i], true)) return false;
        if (mode != TTT_GRAD_ADD || !ttt__grad_operand(c, "out", i, out[i], false)) continue;
        if (!ttt_shape_equal(out[i]->shape, wrt[i]->shape))
            ttt_fail(c, TTT_ERR_SHAPE, "grad: out[%d] of shape %s, to be added to, for wrt[%d] of shape %s", i, ttt_shape_text(out[i]->shape, t0), i, ttt_shape_text(wrt[i]->shape, t1));
    }
    return !c->result;
}

ttt_result ttt_vjp(ttt_ctx *c, ttt_tensor *y, ttt_tensor *seed, ttt_tensor *const *wrt, int n, ttt_tensor **out, ttt_grad_mode mode) {
    ttt_mark workspace = ttt__arena_mark(&c->scratch);
    ttt__block *free_blocks = c->free_blocks;
    bool recording = ttt_set_recording(c, mode == TTT_GRAD_RECORD);
    ttt__walk w = { c, 0, 0, NULL, NULL, mode == TTT_GRAD_RECORD, NULL, NULL, NULL };
    bool good = ttt__vjp_good(c, y, seed, wrt, n, out, mode);
    for (int i = 0; i < n && good && mode == TTT_GRAD_FIRST_ORDER; i++) out[i] = ttt_new(c, wrt[i]->shape);
    c->free_blocks = NULL;
    ttt_phase phase = c->profile.phase;
    c->profile.phase = TTT__MAX(phase, w.record ? TTT_PHASE_RECORDED : TTT_PHASE_BACKWARD);
    int back = ttt__profile_begin(c, "walk", false);
    if (good && !c->result && ttt__walk_begin(&w, y, wrt, n)) {
        if (w.record) ttt__walk_recorded(&w, seed, wrt, n, out);
        else ttt__walk_numbers(&w, y, seed, wrt, n, out, mode == TTT_GRAD_ADD);
    }
    if (back >= 0) ttt__profile_end(c, back);
    c->profile.phase = phase;
    c->free_blocks = free_blocks;
    ttt__arena_release(&c->scratch, workspace);
    ttt_set_recording(c, recording);
    ttt_tensor *from[2] = { y, seed };
    for (int i = 0; i < n && !c->result && mode == TTT_GRAD_FIRST_ORDER && recording; i++)
        ttt__set_producer(c, out[i], &ttt__op_unrecorded, from, 2, NULL, 0);
    for (int i = 0; i < n && c->result && mode != TTT_GRAD_ADD; i++) out[i] = &c->empty;
    return c->result;
}

ttt_result ttt_grad(ttt_ctx *c, ttt_tensor *y, ttt_tensor *const *wrt, int n, ttt_tensor **out, ttt_grad_mode mode) {
    if (!ttt__grad_operand(c, "y", 0, y, true)) y = &c->empty;
    else if (y->size != 1) {
        ttt_text t;
        ttt_fail(c, TTT_ERR_SHAPE, "grad: y has shape %s; one number expected (ttt_vjp takes any shape)", ttt_shape_text(y->shape, t));
    }
    return ttt_vjp(c, y, ttt_full(c, y->shape, 1), wrt, n, out, mode);
}

// -- rematerialization: an op whose definition by others is the caller's function
typedef struct ttt__remat {
    ttt_remat_fn *f;
    ttt_rng rng;   // as it was at the first time
    double user[1];  // the bytes begin here
} ttt__remat;

FORWARD(remat) {
    ttt__remat *r = (ttt__remat *)(uintptr_t)y->arg;
    ttt_mark m = ttt_mark_get(c);
    ttt_text t0, t1;
    bool recording = ttt_set_recording(c, false);
    r->rng = c->rng;
    ttt_tensor *t = r->f(c, y->in, y->n_in, r->user);
    if (!c->result && !ttt_shape_equal(t->shape, y->shape))
        ttt_fail(c, TTT_ERR_SHAPE, "remat: the function gave shape %s; %s was announced", ttt_shape_text(t->shape, t0), ttt_shape_text(y->shape, t1));
    if (!c->result) memcpy(y->data, t->data, (size_t)y->size * sizeof *y->data);
    ttt_set_recording(c, recording);
    ttt_mark_release(c, m);
}
static ttt_tensor *ttt__remat_composite(ttt_ctx *c, ttt_tensor *const *in, const ttt_tensor *y) {
    const ttt__remat *r = (const ttt__remat *)y->arg;
    ttt_rng now = c->rng;
    c->rng = r->rng;
    ttt_tensor *t = r->f(c, in, y->n_in, r->user);
    c->rng = now;
    return t;
}
static const ttt_op ttt__op_remat = { "remat", "y = f(in), forgotten and made again", -1, 0, 0, ttt__remat_forward, NULL,
                                          ttt__remat_composite, NULL, NULL };

ttt_tensor *ttt_remat(ttt_ctx *c, ttt_remat_fn *f, ttt_tensor *const *in, int n, ttt_shape y, const void *user, size_t user_bytes) {
    size_t bytes = offsetof(ttt__remat, user) + (user_bytes ? user_bytes : 1);
    ttt__remat *r = (ttt__remat *)ttt_alloc(c, bytes, false);
    if (!r) return &c->empty;
    r->f = f;
    if (user_bytes) memcpy(r->user, user, user_bytes);
    return ttt_apply(c, &ttt__op_remat, in, n, y, r, bytes);
}

// -- the gradient checker
// The directional derivative of f of the given order along u, analytic; order 0 is f itself.
static double ttt__directional(ttt_ctx *c, ttt_function *f, ttt_tensor *const *x, int n, void *user, int order, ttt_tensor *const *u) {
    ttt_mark m = ttt_mark_get(c);
    ttt_tensor *y = f(c, x, n, user), **g = (ttt_tensor **)ttt_alloc(c, (size_t)n * sizeof *g, false);
    for (int k = 0; k < order && g; k++) {
        ttt_grad(c, y, x, n, g, k < order - 1 ? TTT_GRAD_RECORD : TTT_GRAD_FIRST_ORDER);
        y = ttt_scalar(c, 0);
        for (int i = 0; i < n; i++) y = ttt_add(c, y, ttt_sum(c, ttt_mul(c, g[i], u[i])));
    }
    double value = c->result ? (double)NAN : (double)ttt_item(y);
    ttt_mark_release(c, m);
    return value;
}

static void ttt__move(ttt_tensor *const *x, int n, ttt_tensor *const *from, ttt_tensor *const *u, double h) {
    for (int i = 0; i < n; i++)
        for (int64_t j = 0; j < x[i]->size; j++) x[i]->data[j] = (ttt_real)((double)from[i]->data[j] + h * (double)u[i]->data[j]);
}

double ttt_check_gradient(ttt_ctx *c, ttt_function *f, ttt_tensor *const *x, int n, void *user, int order, double h) {
    static const double step[4] = { 1, -1, 2, -2 }, weight[4] = { 8, -8, -1, 1 };
    double numeric = 0;
    if (!c->result && (n < 1 || order < 1)) ttt_fail(c, TTT_ERR_ARGUMENT, "check_gradient: inputs and an order above 0 expected");
    if (c->result || !ttt__operands(c, "check_gradient", x, n)) return (double)NAN;
    ttt_mark m = ttt_mark_get(c);
    ttt_tensor **u = (ttt_tensor **)ttt_alloc(c, (size_t)n * sizeof *u, false);
    ttt_tensor **from = (ttt_tensor **)ttt_alloc(c, (size_t)n * sizeof *from, false);
    if (!u || !from) return (double)NAN;
    for (int i = 0; i < n; i++) {
        u[i] = ttt_uniform(c, x[i]->shape, -1, 1);
        from[i] = ttt_from(c, x[i]->shape, x[i]->data);
    }
    double analytic = ttt__directional(c, f, x, n, user, order, u);
    for (int k = 0; k < 4 && !c->result; k++) {
        ttt__move(x, n, from, u, step[k] * h);
        numeric += weight[k] * ttt__directional(c, f, x, n, user, order - 1, u) / (12 * h);
    }
    for (int i = 0; i < n; i++)
        if (from[i]->size == x[i]->size) memcpy(x[i]->data, from[i]->data, (size_t)x[i]->size * sizeof *x[i]->data);
    ttt_mark_release(c, m);
    return c->result ? (double)NAN : fabs(analytic - numeric) / TTT__MAX(fabs(numeric), 1e-3);
}
#undef FORWARD
#undef RULE
#undef A
#undef B

// ---- [15] OPENING, CLOSING, REFERENCES ----------------------------------------------------------
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
    if (c->profile.rows) TTT_FREE(c->desc.user, c->profile.rows);
    TTT_FREE(c->desc.user, c);
}

const char *ttt_isa(const ttt_ctx *c) { return c->k->name; }
int ttt_threads(const ttt_ctx *c) { return c->threads; }

double ttt_seconds(void) {
#ifdef _WIN32
    LARGE_INTEGER ticks, rate;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&rate);
    return (double)ticks.QuadPart / (double)rate.QuadPart;
#else
    struct timeval t;
    gettimeofday(&t, NULL);
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
#endif
}

// The best of several short runs: other programs on the machine can only make a run slower.
ttt_limits ttt_measure_limits(ttt_ctx *c) {
    const int64_t rounds = 500000, reals = ((int64_t)64 << 20) / (int64_t)sizeof(ttt_real);
    ttt_limits best = { 0, 0 };
    double seen = 0;
    ttt_real *memory = (ttt_real *)TTT_MALLOC(c->desc.user, (size_t)reals * sizeof *memory);
    if (!memory) {
        ttt_fail(c, TTT_ERR_NO_MEMORY, "measure_limits: no memory for 64 MB to read");
        return best;
    }
    for (int64_t i = 0; i < reals; i++) memory[i] = 1;
    for (int run = 0; run < 5; run++) {
        double begin = ttt_seconds();
        seen += c->k->multiply_adds(rounds);
        double middle = ttt_seconds();
        seen += c->k->sum(reals, memory);
        double end = ttt_seconds();
        double flops = 2.0 * TTT__TILE_ROWS * c->k->tile_cols * c->k->lanes * (double)rounds / (middle - begin);
        double bytes = (double)reals * sizeof *memory / (end - middle);
        best.flops = TTT__MAX(best.flops, flops);
        best.bytes = TTT__MAX(best.bytes, seen < 0 ? 0 : bytes);  // looks at `seen`, so that no run is left out
    }
    TTT_FREE(c->desc.user, memory);
    return best;
}

#ifdef __cplusplus
}
#endif

/*  REFERENCES
    Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011.
    Box, Muller: A note on the generation of random normal deviates. 1958.
    Goto, van de Geijn: Anatomy of high-performance matrix multiplication. ACM TOMS 2008.
    Kingma, Ba: Adam: a method for stochastic optimization. ICLR 2015.
    Srivastava et al.: Dropout: a simple way to prevent neural networks from overfitting. JMLR 2014.
    Sun et al.: Learning to (learn at test time). arXiv 2310.13807.

    LICENSE: MIT No Attribution (MIT-0)
    Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
    associated documentation files (the "Software"), to deal in the Software without restriction,
    including without limitation the rights to use, copy, modify, merge, publish, distribute,
    sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
    furnished to do so. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND.
*/
#endif  // TTT_TENSOR_IMPLEMENTED
#endif  // TTT__KERNELS, TTT_TENSOR_IMPLEMENTATION
