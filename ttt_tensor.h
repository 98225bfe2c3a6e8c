/*  ttt_tensor.h - v0.6.0 - tensors whose gradients are tensors, in one C header.

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
        ttt_tensor *outer = ttt_mse(c, ttt_matmul(c, k, w1), v);        // how badly w1 does
        ttt_grad(c, outer, &w, 1, &meta, TTT_GRAD_FIRST_ORDER);         // d outer / d w
        ttt_close(c);

    HOW A GRADIENT FLOWS THROUGH AN INNER STEP
        1. Every operation runs at once and also writes itself on a list, the tape: ttt_matmul
           returns a tensor that holds its numbers, the op that made it, and the tensors it was made
           from.
        2. ttt_grad walks that list backwards from the loss. Each op has one rule (its
           vector-Jacobian product, "vjp"): given the gradient of its output, the gradient of each
           input. The rule of y = a b, for instance, is da = dy b^T, db = a^T dy.
        3. The rules are written in the operations of this very header. So, with TTT_GRAD_RECORD,
           walking backwards writes new tensors on the same tape, and the gradient g above is a
           tensor like any other: made by matmul and scale from k, v and w.
        4. Then w1 = w - 0.1 g is ordinary arithmetic, and the second ttt_grad walks from `outer`
           through w1, through g, through the matmuls that computed g, back to w. Nothing special
           happens: the derivative of the inner step is there because the step itself is on the
           tape.
        5. Without TTT_GRAD_RECORD the rules compute just numbers (faster, and their memory is
           reused). Such a gradient cannot be differentiated; trying to is an error, never a
           silently wrong first-order answer. Say ttt_detach where you do mean a constant.
        Sections [6] (the op table), [12] (each op's forward and rule, side by side) and [14] (the
        walk) are these five sentences in code.

    INDEX
        [1] OPTIONS           macros to define before the include
        [2] RESULTS           what can go wrong and how you learn of it
        [3] CONTEXT           memory, threads, errors, profiles: what a whole program shares
        [4] TENSORS           the struct, making them, reading them
        [5] OPERATIONS        what one can compute, with shapes and formulas
        [6] OP TABLE          one row per op; your own ops
        [7] GRADIENTS         ttt_grad, the gradient checker
        and below TTT_TENSOR_IMPLEMENTATION
        [8] KERNELS           loops over numbers, one text for every instruction set
        [9] ARENAS, ERRORS          [10] THREADS, PROFILES      [11] TENSORS, APPLY
        [12] OPS: forward and rule, in pairs                    [13] MATRIX PRODUCT
        [14] THE WALK BACKWARDS     [15] OPENING, CLOSING, REFERENCES
        [16] NAMES            that a program may have as macros
        More than 7,000 lines: an op stands beside its rule and the kernel that makes it fast.

    CONCEPTS
        Shapes are written with letters: (B,N,D) is batch, tokens, width; H heads; h = D/H the
        width of a head. Data is contiguous, last index fastest. The element type is ttt_real:
        float, or double if everything is compiled with -DTTT_REAL=double (plain C loops then;
        gradient checks use it). Integers count and name. Bytes and bfloat16 are small: they are
        stored and read; no op gives them.
        No op changes a tensor. A function that changes one says so: optimizers,
        ttt_weights_blend, TTT_GRAD_ADD.
        A context owns everything made in it. Memory comes from two arenas: `keep` for parameters,
        which live as long as the context, and `step` for everything else. ttt_mark_release rolls
        `step` back to a mark, so a training loop allocates nothing after its first step:
            for (;;) { ttt_mark m = ttt_mark_get(c);  ...one step...  ttt_mark_release(c, m); }
        This header opens no file but those in which Linux says how many CPUs a process may use:
        ttt_data.h reads and writes files.
        The first error in a context is recorded and stays: later calls do nothing and return the
        context's empty tensor, until ttt_clear. So a whole computation needs one test at its end,
        if (!ttt_ok(c)) puts(ttt_error(c)). The library never prints and never exits.
        An argument that is NULL where an array, a struct, a text or a function must be is such an
        error, which names it; functions without a context then say "nothing": 0, NULL, false, or
        NaN. Where NULL means something, a comment says what.
        One context belongs to one thread at a time; two contexts share nothing.
*/
#if !defined(TTT_TENSOR_H) && !defined(TTT__PART)
#define TTT_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TTT_VERSION "0.6.0"

// ---- [1] OPTIONS --------------------------------------------------------------------------------
// Define before the include, the same in every file of a program:
//   TTT_REAL             element type, float (default) or double
//   TTT_TENSOR_IMPLEMENTATION    in place of TTT_IMPLEMENTATION, for the code of this header alone
//   TTT_STATIC           make all functions static
//   TTT_API              the words before every function, if neither static nor extern fits
//   TTT_MALLOC(user,n), TTT_REALLOC(user,p,n), TTT_FREE(user,p)    memory; `user` is ttt_desc's
//   TTT_NO_THREADS       compile the thread pool out
//   TTT_NO_SIMD          plain C loops only
//   TTT_POISON           fill released memory with NaN patterns
#ifndef TTT_REAL
#define TTT_REAL float
#endif

#define TTT_MAX_RANK 8
#define TTT_MAX_THREADS 64

// noinline: one of these inside another gains no time, and makes the program 7 % larger.
#ifndef TTT_API
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

// The rest of this section is about compilers. A reader goes on at [2].

// -- the words around a part of a header: its text stands between
//        #define TTT__PART TTT__OPEN             #define TTT__PART TTT__CLOSE
//        #include TTT__TENSOR_FILE       and     #include TTT__TENSOR_FILE
//        #undef TTT__PART                        #undef TTT__PART
// which put a program's own macros out of the way and back again: see [16]. A header finds its own
// parts in the same way, under whatever name it was opened.
#define TTT__OPEN 1
#define TTT__CLOSE 2
#define TTT__NEXT_SET 3
#define TTT__TENSOR_KERNELS 4
#define TTT__LAYERS_KERNELS 5
#define TTT__MODEL_KERNELS 6
#if defined(__has_include)
#if !__has_include("ttt_tensor.h")
#define TTT__RENAMED
#endif
#endif
#if defined(__FILE_NAME__)
#define TTT__THIS_FILE(name) __FILE_NAME__
#elif defined(TTT__RENAMED)
#define TTT__THIS_FILE(name) __FILE__
#else
#define TTT__THIS_FILE(name) name
#endif
#if defined(TTT__RENAMED)
#define TTT__TENSOR_FILE TTT__THIS_FILE("ttt_tensor.h")
#else
#define TTT__TENSOR_FILE "ttt_tensor.h"
#endif

// Without external names each file of a program has its own constants, too. In C++ only an unnamed
// namespace can say so before they are defined.
#if defined(TTT_STATIC) && defined(__cplusplus)
#define TTT__BEGIN namespace {
#define TTT__END }
#elif defined(__cplusplus)
#define TTT__BEGIN extern "C" {
#define TTT__END }
#else
#define TTT__BEGIN
#define TTT__END
#endif
#if defined(TTT_STATIC) && !defined(__cplusplus)
#define TTT_CONSTANT static const  // declares
#define TTT__CONSTANT static const TTT__UNUSED  // defines
#else
#define TTT_CONSTANT extern const
#define TTT__CONSTANT const
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define TTT__PRAGMA(words) __pragma(words)
#elif defined(__GNUC__)
#define TTT__PRAGMA(words) _Pragma(#words)
#else
#define TTT__PRAGMA(words)
#endif

// The implementation needs the arithmetic that it says: sums in its order, NaN, infinities, signed
// zeros. Between TTT__PRECISE and TTT__PRECISE_END -ffast-math and its parts (/fp:fast) change
// nothing. What their pragmas leave out:
//   Clang  fuses any a*b + c under -ffast-math, so it may always do so; it estimates sqrtf, see [8]
//   GCC    forgets NaN where comparisons are compiled for x86 (ieee-fp); takes glibc's vectors of
//          exp, which are less exact, where it makes vectors of a loop
#if defined(__wasm__)  // Clang has neither for it
#define TTT__PRECISE
#define TTT__PRECISE_END
#elif defined(__clang__)
#define TTT__PRECISE                                                                               \
    TTT__PRAGMA(float_control(precise, on, push)) TTT__PRAGMA(clang fp contract(fast))
#define TTT__PRECISE_END TTT__PRAGMA(float_control(pop))
#elif defined(_MSC_VER)
#define TTT__PRECISE TTT__PRAGMA(float_control(precise, on, push))
#define TTT__PRECISE_END TTT__PRAGMA(float_control(pop))
#elif defined(__GNUC__)
#if defined(__x86_64__) || defined(__i386__)
#define TTT__IEEE_TARGET __attribute__((target("ieee-fp")))
#define TTT__PRECISE_TARGET TTT__PRAGMA(GCC target("ieee-fp"))
#else
#define TTT__PRECISE_TARGET
#endif
#if defined(__FAST_MATH__)
#define TTT__PRECISE_LOOPS , "no-tree-loop-vectorize", "no-tree-slp-vectorize"
#else
#define TTT__PRECISE_LOOPS
#endif
#define TTT__PRAGMA_OF(words) TTT__PRAGMA(words)  // with macros in them
#define TTT__PRECISE                                                                               \
    TTT__PRAGMA(GCC push_options)                                                                  \
    TTT__PRAGMA_OF(GCC optimize("no-fast-math", "no-unsafe-math-optimizations",                    \
                                "no-associative-math", "no-reciprocal-math",                       \
                                "no-finite-math-only", "signed-zeros", "trapping-math"             \
                                TTT__PRECISE_LOOPS))                                               \
    TTT__PRECISE_TARGET
#define TTT__PRECISE_END TTT__PRAGMA(GCC pop_options)
#elif defined(__FAST_MATH__)
#error "this compiler has no word for precise arithmetic: leave out -ffast-math"
#else
#define TTT__PRECISE
#define TTT__PRECISE_END
#endif

// A prefix pasted to TTT_REAL gives a macro to look at: TTT__DOUBLE is 1 in the double build.
#define TTT__IS_float 1
#define TTT__IS_double 2
#define TTT__PASTE2(a, b) a##b
#define TTT__PASTE(a, b) TTT__PASTE2(a, b)
#define TTT__DOUBLE (TTT__PASTE(TTT__IS_, TTT_REAL) == 2)
#if TTT__PASTE(TTT__IS_, TTT_REAL) == 0
#error "TTT_REAL is float or double"
#elif TTT__DOUBLE
#define TTT__FIRST_REAL 2
#else
#define TTT__FIRST_REAL 1
#endif

#define TTT__PART TTT__OPEN
#include TTT__TENSOR_FILE
#undef TTT__PART

typedef TTT_REAL ttt_real;

// Files of one program that differ in TTT_REAL do not link: each refers to a constant that the
// implementation has in one of two names.
#if TTT__DOUBLE
#define ttt__real_is ttt_real_is_double
#else
#define ttt__real_is ttt_real_is_float
#endif
TTT_CONSTANT char ttt__real_is;
#if defined(__GNUC__) && !defined(TTT_STATIC)
static const char *const ttt__same_real __attribute__((used)) = &ttt__real_is;
#endif

// ---- [2] RESULTS --------------------------------------------------------------------------------
#define TTT_RESULTS(X)                                                                             \
    X(SHAPE, "shapes do not fit")                                                                  \
    X(ARGUMENT, "an argument is out of range")                                                     \
    X(UNSET, "an option that has no default was not set")                                          \
    X(RELEASED, "a tensor is NULL, or its memory was released before")                             \
    X(FIRST_ORDER, "a gradient that was not recorded would be differentiated")                     \
    X(NOT_FINITE, "NaN or infinity appeared where it was being watched for")                       \
    X(NO_MEMORY, "out of memory")                                                                  \
    X(TOO_BIG, "larger than the limit")                                                            \
    X(FILE, "a file could not be read or written")                                                 \
    X(FORMAT, "a file does not follow its format")

typedef enum ttt_result {
    TTT_OK,
#define X(name, text) TTT_ERR_##name,
    TTT_RESULTS(X)
#undef X
} ttt_result;

TTT_API const char *ttt_result_text(ttt_result result);

// ---- [3] CONTEXT --------------------------------------------------------------------------------
typedef struct ttt_ctx ttt_ctx;
typedef struct ttt_tensor ttt_tensor;
typedef struct ttt_op ttt_op;

#define TTT_ALL_THREADS (-1)

// Zero is a good default for every field; ttt_open(NULL) takes all of them.
typedef struct ttt_desc {
    uint64_t seed;    // of the context's random numbers
    int threads;      // 0: one; TTT_ALL_THREADS: as many as the process may use CPUs, which its
                      // affinity and its control groups' quotas say. Any count, same bits.
    const char *isa;  // NULL: the best that this machine has. Else one of ttt_isa_name's.
    bool watch_nan;   // check every result; fail naming the op that first makes a NaN or infinity
    void *user;       // handed to the hooks below and to TTT_MALLOC
    void (*on_error)(void *user, ttt_result result, const char *text);  // called at the first error
    // Lets a host program lend its threads; NULL: the library's own pool. It runs task(arg, i) for
    // i = 0 .. n-1, in any order, and returns when all are done; n is never above `threads`.
    void (*parallel_for)(void *user, int n, void (*task)(void *arg, int i), void *arg);
} ttt_desc;

// A new context, or NULL if there is no memory for one (or desc names an unknown isa). ttt_ok,
// ttt_status and ttt_error take NULL too, so one test at the end covers this as well. Subnormal
// numbers count from here on: a calling thread that flushes them to zero no longer does so.
// TTT_ERR_ARGUMENT if arithmetic is not that of IEEE 754, which flags like -ffast-math may cause
// where the compiler has no way to take them back.
TTT_API ttt_ctx *ttt_open(const ttt_desc *desc);
TTT_API void ttt_close(ttt_ctx *ctx);  // frees everything made in it; NULL is fine

TTT_API bool ttt_ok(const ttt_ctx *ctx);            // no error so far
TTT_API ttt_result ttt_status(const ttt_ctx *ctx);  // the first error's kind, TTT_OK if none
TTT_API const char *ttt_error(const ttt_ctx *ctx);  // its text: op, shapes, expectation; "" if none
// Forgets it, to go on. What failed changed nothing that lives longer than the step, and can be
// made again with the same bits; but put *ttt_ctx_rng back if it draws random numbers.
TTT_API void ttt_clear(ttt_ctx *ctx);
// Records an error of your own (printf format); returns the context's empty tensor.
TTT_API ttt_tensor *ttt_fail(ttt_ctx *ctx, ttt_result result, const char *format, ...);

// The i-th instruction set that this program was built with and this machine can run, from the
// worst (0, "scalar") to the best; NULL past the end.
TTT_API const char *ttt_isa_name(int i);
TTT_API const char *ttt_isa(const ttt_ctx *ctx);  // the one in use
TTT_API int ttt_threads(const ttt_ctx *ctx);      // threads in use

// What one thread can do at best on the context's instruction set: multiply-adds between registers
// (two FLOPs each), and reading memory that is in no cache. Measured at each call, in about 50 ms.
typedef struct ttt_limits {
    double flops, bytes;  // per second
} ttt_limits;
TTT_API ttt_limits ttt_measure_limits(ttt_ctx *ctx);
TTT_API double ttt_seconds(void);  // the system's clock, for differences; somebody may set it back

// Where the time goes. Between start and stop every op that runs in the context counts its calls,
// time, FLOPs and bytes, in a row for each name and phase. A moment is counted in one row only: an
// op inside a rule counts for the op, not for the rule. So the seconds of all rows add up to the
// time between start and stop. The row "outside ops" has the time of your own code, of making
// tensors and of whatever else is no op; "walk" has that of the way back through the tape.
//     ttt_profile_start(c);  ...some steps...  ttt_profile_stop(c);
//     ttt_limits peak = ttt_measure_limits(c);
//     puts(ttt_profile_text(c, &peak, steps, 20));
typedef enum ttt_phase {
    TTT_PHASE_FORWARD,   // called outside of any walk
    TTT_PHASE_RECORDED,  // run by a walk with TTT_GRAD_RECORD: the gradient of an inner step
    TTT_PHASE_BACKWARD   // run by a walk that wants numbers only
} ttt_phase;
TTT_API const char *ttt_phase_name(ttt_phase phase);

typedef struct ttt_profile_row {
    const char *name;  // the op's
    ttt_phase phase;
    bool rule;         // it is the op's rule. One made of ops has little time and no FLOPs
    int64_t calls;
    double seconds;    // of the calling thread
    double flops;      // by the op table; a fast rule counts them once for each input, up to twice
    double bytes;      // inputs read once, result written once, wherever they lie
} ttt_profile_row;

TTT_API void ttt_profile_start(ttt_ctx *ctx);  // adds to what was counted before
TTT_API void ttt_profile_stop(ttt_ctx *ctx);
TTT_API void ttt_profile_clear(ttt_ctx *ctx);  // forgets what was counted
// Writes the `most` rows with the largest times, largest first. Returns how many rows there are.
TTT_API int ttt_profile_rows(const ttt_ctx *ctx, ttt_profile_row *rows, int most);
// The share of the peak that a row reached, by FLOPs or by bytes, whichever is larger (the
// "roofline"). *bound (unless NULL) says which: "compute" or "memory"; "neither" below a quarter,
// where calls are small or the FLOPs are no multiply-adds. Bytes from a cache make shares above 1.
// A row with neither FLOPs nor bytes has share 0 and bound "".
TTT_API double ttt_profile_share(const ttt_profile_row *row, const ttt_limits *peak,
                                 const char **bound);
// The rows as a table: the `most` largest and a total, divided by `runs`, the number of equal parts
// (training steps) that were profiled. peak may be NULL. The text lies in the step arena; it is ""
// after an error.
TTT_API const char *ttt_profile_text(ttt_ctx *ctx, const ttt_limits *peak, int64_t runs, int most);

// Everything made after a mark is gone after its release, and the tape with it; parameters stay.
// Release marks in the reverse order of their taking, or the outer one alone: an inner one released
// after it would bring places back to life that hold something else by then. A released tensor is
// noticed until thousands of later ones were made: its address then may be that of another.
typedef struct ttt_mark {
    void *chunk;
    size_t used, bytes;
    int64_t nodes;
} ttt_mark;
TTT_API ttt_mark ttt_mark_get(ttt_ctx *ctx);
TTT_API void ttt_mark_release(ttt_ctx *ctx, ttt_mark mark);

// Bytes of a context. Beside workspace for products (3.4 MB a thread) and a megabyte and a half, it
// holds at most twice the highest keep + step + scratch that it ever had.
typedef struct ttt_memory_report {
    size_t keep;     // parameters and moments
    size_t step;     // tensors of the current step
    size_t scratch;  // workspace of gradients and sums
    size_t held;     // taken by TTT_MALLOC: also spare room, and that for products
    size_t peak;     // the highest keep + step + scratch since ttt_memory_reset
    int64_t nodes;   // tensors on the tape
} ttt_memory_report;
TTT_API ttt_memory_report ttt_memory(const ttt_ctx *ctx);
TTT_API void ttt_memory_reset(ttt_ctx *ctx);
// n bytes, aligned to 64, from the step arena, or from keep. NULL after an error. (A product of
// sizes in 64 bits does not wrap where size_t has 32.)
TTT_API void *ttt_alloc(ttt_ctx *ctx, uint64_t n, bool keep);

// Random numbers: Philox4x32-10, a counter-based generator [Salmon 2011]. Number `next` of a stream
// is a function of (seed, stream, next), equal on every platform. The struct is the whole state:
// copy it to save it.
typedef struct ttt_rng {
    uint64_t seed, next;
    uint32_t stream[3];
} ttt_rng;
// A stream at its first number. A seed and three words of your choice name it; take (seed, 0, 0, 0)
// if one sequence is enough. Streams with different names are independent, so "the crop of image c
// in epoch b" has numbers of its own, whatever was drawn before. A stream has 2^34 numbers, and
// then goes on into the one named (a + 1, b, c). ttt_data.h takes a = 2^31 + 1 .. 2^31 + 5.
TTT_API ttt_rng ttt_rng_at(uint64_t seed, uint32_t a, uint32_t b, uint32_t c);
TTT_API uint32_t ttt_rng_u32(ttt_rng *rng);
TTT_API double ttt_rng_uniform(ttt_rng *rng);              // in [0,1), 32 bits
TTT_API double ttt_rng_normal(ttt_rng *rng);               // mean 0, variance 1 [Box 1958]
TTT_API int64_t ttt_rng_below(ttt_rng *rng, int64_t n);    // 0 .. n-1
TTT_API ttt_rng ttt_rng_fold(ttt_rng rng, uint64_t data);  // seeded by rng's seed and data
TTT_API ttt_rng *ttt_ctx_rng(ttt_ctx *ctx);                // the context's own

// ---- [4] TENSORS --------------------------------------------------------------------------------
// Element types: X(name, C type, the tensor's pointer to the elements, what messages call them).
//   REAL  what ops compute with and what they give: the only one that is differentiated
//   INT   labels, token numbers, positions
//   U8    pixels as they are stored, for ttt_cast; a condition of ttt_where
//   BF16  weights as they are stored, each the upper half of a float: a product's right factor
//   F16 to U32  numbers as they are stored in files, for ttt_cast
#define TTT_DTYPES(X)                                                                              \
    X(REAL, ttt_real, data, "real numbers")                                                        \
    X(INT, int64_t, index, "integers")                                                             \
    X(U8, uint8_t, u8, "bytes")                                                                    \
    X(BF16, uint16_t, bf16, "bfloat16")                                                            \
    X(F16, uint16_t, stored, "numbers of half precision")                                          \
    X(I8, int8_t, stored, "integers of 8 bits")                                                    \
    X(I16, int16_t, stored, "integers of 16 bits")                                                 \
    X(I32, int32_t, stored, "integers of 32 bits")                                                 \
    X(U16, uint16_t, stored, "integers of 16 bits without sign")                                   \
    X(U32, uint32_t, stored, "integers of 32 bits without sign")

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
#define TTT_SHAPE(...)                                                                             \
    TTT__SHAPE(__VA_ARGS__, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN,      \
               INT64_MIN, INT64_MIN, INT64_MIN, 0)
#define TTT__SHAPE(a, b, c, d, e, f, g, h, more, ...) ttt_shape_of(a, b, c, d, e, f, g, h, more)
// A ninth size gives rank 9, which no tensor can have.
TTT_API ttt_shape ttt_shape_of(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
                               int64_t g, int64_t h, int64_t more);
TTT_API ttt_shape ttt_scalar_shape(void);
TTT_API bool ttt_shape_equal(ttt_shape a, ttt_shape b);
TTT_API int64_t ttt_shape_size(ttt_shape shape);  // elements; -1 if a size is < 0, or beyond 2^62
// Writes "(2,3,4)" into text, a ttt_text, and returns it.
typedef char ttt_text[128];
TTT_API const char *ttt_shape_text(ttt_shape shape, char *text);

struct ttt_tensor {
    ttt_real *data;      // the elements (dtype TTT_DTYPE_REAL)
    int64_t *index;      // the elements (dtype TTT_DTYPE_INT)
    uint8_t *u8;         // the elements (dtype TTT_DTYPE_U8)
    uint16_t *bf16;      // the elements (dtype TTT_DTYPE_BF16)
    void *stored;        // the elements (any other dtype)
    ttt_dtype dtype;     // says which of the five holds the elements; the others are NULL
    ttt_shape shape;
    int64_t size;        // number of elements
    const ttt_op *op;    // the op that made it; NULL for a leaf
    ttt_ctx *ctx;        // the context that owns it
    const ttt_tensor *self;  // its own address while it lives, for functions without a context
    ttt_tensor **in;     // the op's inputs
    int n_in;
    const void *arg;     // the op's other arguments
    int64_t id;          // place on the tape
    bool kept;           // lives in the keep arena: a parameter
    ttt_tensor *shares;  // the tensor that owns the elements, if another does (a reshape)
    void *block;         // workspace that a walk made: private
};

// New leaves. TTT_ERR_SHAPE for negative sizes.
TTT_API ttt_tensor *ttt_new(ttt_ctx *ctx, ttt_shape shape);  // not initialized
TTT_API ttt_tensor *ttt_zeros(ttt_ctx *ctx, ttt_shape shape);
TTT_API ttt_tensor *ttt_full(ttt_ctx *ctx, ttt_shape shape, ttt_real v);
TTT_API ttt_tensor *ttt_scalar(ttt_ctx *ctx, ttt_real v);
// Copies of plain arrays: dtype REAL, INT, U8, BF16.
TTT_API ttt_tensor *ttt_from(ttt_ctx *ctx, ttt_shape shape, const ttt_real *values);
TTT_API ttt_tensor *ttt_from_int(ttt_ctx *ctx, ttt_shape shape, const int64_t *values);
TTT_API ttt_tensor *ttt_from_u8(ttt_ctx *ctx, ttt_shape shape, const uint8_t *values);
TTT_API ttt_tensor *ttt_from_bf16(ttt_ctx *ctx, ttt_shape shape, const uint16_t *values);
// Of any type, not initialized, to be filled by the caller; in the keep arena if `keep`.
TTT_API ttt_tensor *ttt_new_typed(ttt_ctx *ctx, ttt_shape shape, ttt_dtype dtype, bool keep);
// The context's random numbers: normal with mean 0 and variance 1; uniform in [lo, hi).
// TTT_ERR_ARGUMENT unless lo <= hi and hi - lo is finite.
TTT_API ttt_tensor *ttt_randn(ttt_ctx *ctx, ttt_shape shape);
TTT_API ttt_tensor *ttt_uniform(ttt_ctx *ctx, ttt_shape shape, ttt_real lo, ttt_real hi);
TTT_API ttt_tensor *ttt_zeros_kept(ttt_ctx *ctx, ttt_shape shape);  // zeros, in the keep arena
// The number in a real tensor of one. Any other gives NaN, and TTT_ERR_SHAPE or TTT_ERR_ARGUMENT in
// its context; NULL and a released one give NaN alone, since they have none.
TTT_API ttt_real ttt_item(const ttt_tensor *tensor);
TTT_API double ttt_max_abs_diff(const ttt_tensor *a, const ttt_tensor *b);  // NaN if shapes differ
// The same numbers in another element type, as a constant: no gradient goes through. Any type
// becomes REAL, bytes and stored integers become INT, and REAL becomes BF16, rounded to nearest
// even; NaN stays NaN. A cast to the tensor's own type is ttt_detach. TTT_ERR_ARGUMENT for any
// other pair: the numbers might not fit.
TTT_API ttt_tensor *ttt_cast(ttt_ctx *ctx, ttt_tensor *tensor, ttt_dtype dtype);

// ---- [5] OPERATIONS -----------------------------------------------------------------------------
// Every function here returns a new tensor on the tape, or the empty tensor after an error. Shapes
// of two operands are broadcast as in NumPy: aligned at the right, a size of 1 (or a missing one)
// repeats.

// One number in, one number out. A row is the whole declaration:
//   X(name, formula, lowest and highest argument of the gradient test, FLOPs an element)
// gives  ttt_tensor *ttt_<name>(ttt_ctx *ctx, ttt_tensor *a).  *_d1 and *_d2 are first and second
// derivatives, which the rules of [12] need.
// Results and two derivatives are good to a few ulps of themselves (9 at most, 15 for gelu_d2), in
// the tails and for subnormals too. Near a root, and in the tails of gelu, whose exponent is
// rounded, it is as if the argument had been off by 3 ulps (gelu_d1 4, gelu_d2 8). What tends to a
// limit has it at infinity: silu(-infinity) = 0.
// sign and heaviside have derivative zero, and are 0 at NaN. The gradient of sqrt at 0 is as
// good as 0, g divided by twice the largest number, so that the root of a sum of squares has that
// of a length; ttt_pow(c, a, 0.5) has the infinite one.
#define TTT_UNARY_OPS(X)                                                                           \
    X(exp, "y = e^a", -2, 2, 12)                                                                   \
    X(log, "y = ln a", 0.2, 3, 16)                                                                 \
    X(tanh, "y = tanh a", -2, 2, 20)                                                               \
    X(sigmoid, "y = 1 / (1 + e^-a)", -3, 3, 16)                                                    \
    X(sigmoid_d1, "y = sigmoid'(a)", -3, 3, 18)                                                    \
    X(softplus, "y = ln(1 + e^a)", -3, 3, 30)                                                      \
    X(gauss, "y = e^(-a^2)", -2, 2, 18)                                                            \
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

// Two operands, broadcast: ttt_tensor *ttt_<name>(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b).
#define TTT_BINARY_OPS(X)                                                                          \
    X(add, "y = a + b", -2, 2, 1)                                                                  \
    X(sub, "y = a - b", -2, 2, 1)                                                                  \
    X(mul, "y = a b", -2, 2, 1)                                                                    \
    X(div, "y = a / b", 0.5, 2, 1)

#define X(name, formula, lo, hi, flops) TTT_API ttt_tensor *ttt_##name(ttt_ctx *ctx, ttt_tensor *a);
TTT_UNARY_OPS(X)
#undef X
#define X(name, formula, lo, hi, flops)                                                            \
    TTT_API ttt_tensor *ttt_##name(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b);
TTT_BINARY_OPS(X)
#undef X

TTT_API ttt_tensor *ttt_scale(ttt_ctx *ctx, ttt_tensor *a, ttt_real s);  // y = s a
TTT_API ttt_tensor *ttt_add_scalar(ttt_ctx *ctx, ttt_tensor *a, ttt_real s);  // y = a + s
// y = min(max(a, lo), hi); NaN stays. The gradient passes where lo <= a <= hi, as PyTorch has it.
// TTT_ERR_ARGUMENT unless lo <= hi.
TTT_API ttt_tensor *ttt_clamp(ttt_ctx *ctx, ttt_tensor *a, ttt_real lo, ttt_real hi);
// y = a^p as C's pow has it: a^0 = 1 for every a; NaN for a < 0 unless p is whole. The gradient is
// p a^(p-1), and so on, at a = 0 too: a^2 has 0, 2, 0. TTT_ERR_ARGUMENT unless p is finite.
TTT_API ttt_tensor *ttt_pow(ttt_ctx *ctx, ttt_tensor *a, ttt_real p);
// y = a where the condition is not 0, else b; all three are broadcast. The condition is real, INT
// or U8, and has no gradient. The element that is not taken has gradient 0, even if y's is infinite
// or NaN.
TTT_API ttt_tensor *ttt_where(ttt_ctx *ctx, ttt_tensor *condition, ttt_tensor *a, ttt_tensor *b);

// y = a m / (1 - p), each m 0 with probability p, else 1 [Srivastava 2014]. The mask is not stored:
// random number i of a seed decides about element i, in y and again in every gradient. The seed is
// given, or drawn from the context's random numbers. p = 0 gives a itself, and draws nothing.
// TTT_ERR_ARGUMENT unless 0 <= p < 1.
TTT_API ttt_tensor *ttt_dropout(ttt_ctx *ctx, ttt_tensor *a, ttt_real p);
TTT_API ttt_tensor *ttt_dropout_seeded(ttt_ctx *ctx, ttt_tensor *a, ttt_real p, uint64_t seed);

// Products. a (...,m,k), b (...,k,n), y (...,m,n); leading sizes are broadcast. ta: a is stored as
// (...,k,m); tb: b is stored as (...,n,k). Neither is copied. b may be BF16, and has no gradient
// then; the product has the same bits as one with ttt_cast(c, b, TTT_DTYPE_REAL).
// Every number is summed in one order: from what it is added to, or 0, term by term of k, and so on
// with the next product where leading sizes are summed. So a row has the same bits alone as among
// any others; for any way to store a and b, and any number of threads; and terms at the end that
// are 0 change no number. This holds for all products below, on each instruction set by itself.
TTT_API ttt_tensor *ttt_matmul(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b);
TTT_API ttt_tensor *ttt_matmul_t(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb);
// The same, summed over leading sizes until the result has the given shape, as in
// dW = sum_b x_b^T dy_b.
TTT_API ttt_tensor *ttt_matmul_to(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb,
                                  ttt_shape shape);
// y = a b + add in one pass: add (n), (...,1,n) or (...,m,n), leading sizes broadcast to those of
// the product.
TTT_API ttt_tensor *ttt_matmul_add(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb,
                                   ttt_tensor *add);
// y = x w + b, which is ttt_matmul_add(c, x, w, false, false, b).
TTT_API ttt_tensor *ttt_affine(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *w, ttt_tensor *b);
// y = a b + add (NULL: 0), where a zero of a takes nothing of b, even of what is infinite or NaN:
// 0 b = 0. So a token that a mask hides changes no bit of the others. Where b is finite, this is
// the product as above, bit for bit.
TTT_API ttt_tensor *ttt_mix(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b, bool ta, ttt_tensor *add);

// Products of plain arrays, without a tape: for each of `batch` matrices
//     y (m,n) = map(op(a) op(b) + bias) + add
// with op(a) (m,k) and op(b) (k,n). The matrices lie row by row. Zero is a good default for all but
// m, n, k, a, b or b_bf16, and y.
typedef struct ttt_gemm_desc {
    int64_t m, n, k;
    const ttt_real *a, *b;
    const uint16_t *b_bf16;          // in place of b: bfloat16, each the upper half of a float
    ttt_real *y;
    bool ta, tb;                     // a is stored as (k,m); b as (n,k)
    int64_t a_row, b_row, y_row;     // from one row to the next, in elements; 0: no gap
    int64_t batch;                   // 0: one
    int64_t a_step, b_step, y_step;  // from one matrix to the next; 0 for a, b: the same for all
    const ttt_real *bias;            // (n), added to every row; NULL: none
    const char *map;                 // an op of one number by its name, as "gelu"; NULL: none
    const ttt_real *add;             // (m,n), stored as y is; y itself for y += a b; NULL: none
} ttt_gemm_desc;
// TTT_ERR_ARGUMENT for negative sizes, a row step shorter than a row, sizes or steps that lead
// beyond 2^59 elements, a missing array, both b and b_bf16, results that overlap an operand or each
// other, a map with add = y (the sums begin with y, so it would be mapped too). C cannot check that
// the arrays are large enough. This is no op: profiles do not count it.
TTT_API ttt_result ttt_gemm(ttt_ctx *ctx, const ttt_gemm_desc *desc);

// Sums. sum_to adds along every axis that is 1 in the given shape (or that it lacks). broadcast
// repeats along them: each is the other's rule.
TTT_API ttt_tensor *ttt_sum_to(ttt_ctx *ctx, ttt_tensor *a, ttt_shape shape);
TTT_API ttt_tensor *ttt_broadcast(ttt_ctx *ctx, ttt_tensor *a, ttt_shape shape);
// Over all elements: shape (). The mean of nothing is 0.
TTT_API ttt_tensor *ttt_sum(ttt_ctx *ctx, ttt_tensor *a);
TTT_API ttt_tensor *ttt_mean(ttt_ctx *ctx, ttt_tensor *a);
// Along an axis, which stays, with size 1. Negative axes count from the end.
TTT_API ttt_tensor *ttt_sum_axis(ttt_ctx *ctx, ttt_tensor *a, int axis);
TTT_API ttt_tensor *ttt_mean_axis(ttt_ctx *ctx, ttt_tensor *a, int axis);
// Sums so far: y_i = a_0 + .. + a_i along an axis, or a_i + .. + a_n-1 if reverse; each is the
// other's rule. They are kept in double, so that a long one loses no more than a short one.
TTT_API ttt_tensor *ttt_cumsum(ttt_ctx *ctx, ttt_tensor *a, int axis, bool reverse);
// The length along an axis, which stays, with size 1: y = (sum a^2)^(1/2), wherever y has a number,
// though a^2 may have none. The gradient is a / y, and 0 where y is 0, as that of |a|.
TTT_API ttt_tensor *ttt_norm_axis(ttt_ctx *ctx, ttt_tensor *a, int axis);
// mean (a - b)^2, shape ()
TTT_API ttt_tensor *ttt_mse(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b);

// The largest along an axis. Of several equal ones it is the first, which has all of the gradient,
// as in PyTorch; NaN counts as the largest. TTT_ERR_SHAPE if the axis is empty. The axis
// stays, with size 1:
TTT_API ttt_tensor *ttt_max_axis(ttt_ctx *ctx, ttt_tensor *a, int axis);
// The place of the largest; the axis is dropped: (B,C) gives INT (B), good as labels. A constant.
TTT_API ttt_tensor *ttt_argmax(ttt_ctx *ctx, ttt_tensor *a, int axis);

// Moving elements about. reshape shares the elements; the others copy them.
TTT_API ttt_tensor *ttt_reshape(ttt_ctx *ctx, ttt_tensor *a, ttt_shape shape);
// Axis i of y is axis order[i] of a; ttt_transpose swaps the last two.
TTT_API ttt_tensor *ttt_permute(ttt_ctx *ctx, ttt_tensor *a, const int *order);
TTT_API ttt_tensor *ttt_transpose(ttt_ctx *ctx, ttt_tensor *a);
// y is `count` places of an axis, from `begin` on.
TTT_API ttt_tensor *ttt_slice(ttt_ctx *ctx, ttt_tensor *a, int axis, int64_t begin, int64_t count);
// slice's opposite and its rule: y has a at `begin` of an axis of the given length, else zeros.
TTT_API ttt_tensor *ttt_pad(ttt_ctx *ctx, ttt_tensor *a, int axis, int64_t begin, int64_t length);
TTT_API ttt_tensor *ttt_concat(ttt_ctx *ctx, ttt_tensor *const *a, int n, int axis);
// Rows by number: a (...,N,D), index (...,n) of dtype INT, leading sizes broadcast: y (...,n,D)
// with y[i] = a[index[i]]. TTT_ERR_ARGUMENT for an index outside 0..N-1. index_add is its opposite
// and its rule: it adds row i of a (...,n,D) to row index[i] of y (...,N,D).
TTT_API ttt_tensor *ttt_index_select(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *index);
TTT_API ttt_tensor *ttt_index_add(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *index, int64_t N);
// Rows of one table (V,D) for an index (...) of dtype INT, of any shape: y (...,D). The table may
// be BF16, and has no gradient then.
TTT_API ttt_tensor *ttt_embedding(ttt_ctx *ctx, ttt_tensor *table, ttt_tensor *index);
TTT_API ttt_tensor *ttt_detach(ttt_ctx *ctx, ttt_tensor *a);  // the same numbers as a constant

// Depthwise convolutions: each of C channels has a kernel of its own; beyond the border are zeros.
// The kernel is one for all sequences, or has x's leading sizes: one for each. y has x's shape.
// 1-D, causal: x (...,N,C), kernel (taps,C):  y_i = sum over t of kernel_t x_(i-taps+1+t)
// 2-D: x (...,rows,cols,C), kernel (S,T,C), S and T odd so that it has a middle:
//     y_ij = sum over s, t of kernel_st x_(i+s-S/2, j+t-T/2)
// PyTorch's conv1d and conv2d with groups = C have the same order of taps, and store the kernel as
// (C,1,taps) and (C,1,S,T). TTT_ERR_SHAPE for anything else.
TTT_API ttt_tensor *ttt_depthwise_conv1d(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *kernel);
TTT_API ttt_tensor *ttt_depthwise_conv2d(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *kernel);
// The gradient of <g, y> in a kernel for each sequence, g of x's shape. With `taps` (taps) it is
// that of conv1d, (...,taps,C); with (S,T) that of conv2d, (...,S,T,C):
//     k_st = sum over i, j of g_ij x_(i+s-S/2, j+t-T/2)
TTT_API ttt_tensor *ttt_depthwise_kernel(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *g,
                                         ttt_shape taps);

// y = (1 + L)^-1 b, or (1 + L)^-T b if transposed. L is the part of a (...,n,n) below its diagonal;
// b (...,n,d) has the same leading sizes. Substitution does it, at the cost of the product L b.
TTT_API ttt_tensor *ttt_solve_lower(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b, bool transposed);

// Along the last axis, of length D. A NaN makes its row NaN. -infinity is a place that is not seen:
// its e^a is 0, and a row that sees nothing is all 0, with gradient 0 (log_softmax has NaN there).
// A single +infinity takes all; of two nobody knows which is larger: NaN.
TTT_API ttt_tensor *ttt_softmax(ttt_ctx *ctx, ttt_tensor *a);      // y = e^a / sum e^a
TTT_API ttt_tensor *ttt_log_softmax(ttt_ctx *ctx, ttt_tensor *a);  // y = a - ln sum e^a
// The softmax of the places where `seen` is not 0; y is 0 elsewhere, whatever a has there, NaN too.
// seen has the last axes of a's shape, as (n,N) for a (B,H,n,N), and no gradient.
TTT_API ttt_tensor *ttt_softmax_seen(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *seen);
// y = (a - mu) r with r = (mean (a - mu)^2 + eps)^(-1/2); mu = mean a if centered (layer norm),
// else 0 (RMS norm). TTT_ERR_ARGUMENT unless eps >= 0.
TTT_API ttt_tensor *ttt_layer_normalize(ttt_ctx *ctx, ttt_tensor *a, ttt_real eps);  // centered
TTT_API ttt_tensor *ttt_rms_normalize(ttt_ctx *ctx, ttt_tensor *a, ttt_real eps);    // not centered
// J g, where J is the Jacobian of these at a, a symmetric matrix, and x^ the normalized row:
// J g = r (g - mean g - x^ mean(g x^)), with the middle term only if centered.
TTT_API ttt_tensor *ttt_normalize_d1(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *g, ttt_real eps,
                                     bool centered);
// r (...,1)
TTT_API ttt_tensor *ttt_rstd(ttt_ctx *ctx, ttt_tensor *a, ttt_real eps, bool centered);

// ---- [6] OP TABLE -------------------------------------------------------------------------------
// The other ops, one row each: X(name, inputs, formula, lowest and highest argument of the gradient
// test, FLOPs as a function of the result y, shapes of the test's inputs in[0] and in[1], an
// example call; the test supplies ttt_test_index). The four lists generate the names, the table
// ttt_op_table, and a gradient test of orders 1 and 2 for every row. To add an op, write its row,
// and in [12] its forward, its rule and the function that calls it.
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
    X(matmul, 2, "y = a b", -1, 1, ttt__matmul_flops(y),                                           \
      TTT_SHAPE(2, 1, 3, 4), TTT_SHAPE(3, 4, 2),                                                   \
      ttt_matmul(c, in[0], in[1]))                                                                 \
    X(matmul_add, 3, "y = a b + c", -1, 1, ttt__matmul_flops(y),                                   \
      TTT_SHAPE(2, 3, 4), TTT_SHAPE(4, 4),                                                         \
      ttt_matmul_add(c, in[0], in[1], false, true, in[0]))                                         \
    X(mix, -1, "y = a b + c, 0 b = 0", -1, 1, ttt__matmul_flops(y),                                \
      TTT_SHAPE(2, 1, 3, 4), TTT_SHAPE(3, 3, 4),                                                   \
      ttt_mix(c, in[0], in[1], true, ttt_slice(c, in[1], 1, 0, 1)))                                \
    X(sum_to, 1, "y = sum of a over axes", -2, 2, y->in[0]->size,                                  \
      TTT_SHAPE(2, 3, 2), TTT_SHAPE(1),                                                            \
      ttt_sum_to(c, in[0], TTT_SHAPE(2, 1, 2)))                                                    \
    X(cumsum, 1, "y = sums of a so far along an axis", -2, 2, y->size,                             \
      TTT_SHAPE(2, 3, 2), TTT_SHAPE(1),                                                            \
      ttt_cumsum(c, in[0], 1, true))                                                               \
    X(norm, 1, "y = (sum of a^2 along an axis)^(1/2)", -2, 2, 2 * y->in[0]->size,                  \
      TTT_SHAPE(2, 3, 2), TTT_SHAPE(1),                                                            \
      ttt_norm_axis(c, in[0], 1))                                                                  \
    X(broadcast, 1, "y = a repeated", -2, 2, 0, TTT_SHAPE(2, 1, 2), TTT_SHAPE(1),                  \
      ttt_broadcast(c, in[0], TTT_SHAPE(3, 2, 4, 2)))                                              \
    X(reshape, 1, "y = a", -2, 2, 0, TTT_SHAPE(2, 3), TTT_SHAPE(1),                                \
      ttt_reshape(c, in[0], TTT_SHAPE(3, 2)))                                                      \
    X(permute, 1, "y = a, axes in another order", -2, 2, 0, TTT_SHAPE(2, 3, 4), TTT_SHAPE(1),      \
      ttt_transpose(c, in[0]))                                                                     \
    X(pad, 1, "y[begin .. ) = a, else 0", -2, 2, 0, TTT_SHAPE(2, 3, 2), TTT_SHAPE(1),              \
      ttt_pad(c, in[0], 1, 1, 5))                                                                  \
    X(concat, -1, "y = a, b, ... along an axis", -2, 2, 0, TTT_SHAPE(2, 3, 2), TTT_SHAPE(2, 1, 2), \
      ttt_concat(c, in, 2, 1))                                                                     \
    X(index_add, 2, "y[index[i]] += a[i]", -2, 2, y->in[0]->size,                                  \
      TTT_SHAPE(2, 3, 5, 3), TTT_SHAPE(1),                                                         \
      ttt_index_add(c, in[0], ttt_test_index(c), 4))                                               \
    X(depthwise_conv, 2, "y_i = sum over t of b_t a_(i+t)", -1, 1, ttt__depthwise_flops(y),        \
      TTT_SHAPE(2, 3, 4, 2), TTT_SHAPE(3, 3, 2),                                                   \
      ttt_depthwise_conv2d(c, in[0], in[1]))                                                       \
    X(depthwise_kernel, 2, "y_t = sum over i of b_i a_(i+t)", -1, 1, ttt__depthwise_flops(y),      \
      TTT_SHAPE(2, 5, 2), TTT_SHAPE(2, 5, 2),                                                      \
      ttt_depthwise_kernel(c, in[0], in[1], TTT_SHAPE(3)))                                         \
    X(solve_lower, 2, "y = (1 + L)^-1 b, L below the diagonal of a", -1, 1,                        \
      y->size * y->shape.dim[y->shape.rank - 2], TTT_SHAPE(2, 4, 4), TTT_SHAPE(2, 4, 3),           \
      ttt_solve_lower(c, in[0], in[1], false))                                                     \
    X(softmax, 1, "y = e^a / sum e^a", -2, 2, 15 * y->size, TTT_SHAPE(2, 4), TTT_SHAPE(1),         \
      ttt_softmax(c, in[0]))                                                                       \
    X(softmax_seen, 2, "y = e^a / sum e^a where b is not 0, else 0", -2, 2, 15 * y->size,          \
      TTT_SHAPE(2, 2, 4), TTT_SHAPE(2, 4),                                                         \
      ttt_softmax_seen(c, in[0], ttt_heaviside(c, in[1])))                                         \
    X(log_softmax, 1, "y = a - ln sum e^a", -2, 2, 15 * y->size, TTT_SHAPE(2, 4), TTT_SHAPE(1),    \
      ttt_log_softmax(c, in[0]))                                                                   \
    X(normalize, 1, "y = (a - mean) rstd", -2, 2, 6 * y->size, TTT_SHAPE(2, 5), TTT_SHAPE(1),      \
      ttt_layer_normalize(c, in[0], (ttt_real)0.1))                                                \
    X(normalize_d1, 2, "y = J(a) b", -2, 2, 12 * y->size, TTT_SHAPE(2, 5), TTT_SHAPE(2, 5),        \
      ttt_normalize_d1(c, in[0], in[1], (ttt_real)0.1, true))                                      \
    X(rstd, 1, "y = (var a + eps)^(-1/2)", -2, 2, 4 * y->in[0]->size,                              \
      TTT_SHAPE(2, 5), TTT_SHAPE(1),                                                               \
      ttt_rstd(c, in[0], (ttt_real)0.1, true))
// Likewise, where y is a part of a. These have a fast rule, too: what is cut into many parts has
// one gradient, to which each adds its part.
#define TTT_PART_OPS(X)                                                                            \
    X(slice, 1, "y = a[begin .. begin+count)", -2, 2, 0, TTT_SHAPE(2, 5, 2), TTT_SHAPE(1),         \
      ttt_slice(c, in[0], 1, 1, 3))                                                                \
    X(index_select, 2, "y[i] = a[index[i]]", -2, 2, 0, TTT_SHAPE(2, 1, 4, 3), TTT_SHAPE(1),        \
      ttt_index_select(c, in[0], ttt_test_index(c)))

// An op: what the tape knows about a kind of node. Your own look like the library's; ttt_apply runs
// them. Give one of vjp and composite, and not both.
struct ttt_op {
    const char *name;
    const char *formula;
    int n_in;           // inputs; -1: any number
    double lo, hi;      // arguments for the gradient test
    // Writes y->data from y->in and y->arg.
    void (*forward)(ttt_ctx *ctx, ttt_tensor *y);
    // The rule. g, the gradient of y, has y's shape. On entry d[j] is NULL for each input whose
    // gradient nobody asks for; replace every other d[j] by that gradient, made of ops, in the
    // shape of y->in[j] (or NULL: zero).
    void (*vjp)(ttt_ctx *ctx, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d);
    // Instead of a rule: the same value built from other ops. Differentiating it is then the rule.
    ttt_tensor *(*composite)(ttt_ctx *ctx, ttt_tensor *const *in, const ttt_tensor *y);
    // May be NULL. First-order gradients without tensors: where into[j] is not NULL, write the
    // gradient of input j into it, or add to what is there if add[j].
    void (*fast)(ttt_ctx *ctx, ttt_tensor *y, const ttt_tensor *g, ttt_tensor **into,
                 const bool *add);
    int64_t (*flops)(const ttt_tensor *y);  // may be NULL
};

// Runs op on in[0..n): makes y of the given shape, with a copy of arg's bytes at y->arg.
TTT_API ttt_tensor *ttt_apply(ttt_ctx *ctx, const ttt_op *op, ttt_tensor *const *in, int n,
                              ttt_shape shape, const void *arg, size_t arg_bytes);
// The library's ops in the order of the four lists; NULL past the end.
TTT_API const ttt_op *ttt_op_table(int i);

// ---- [7] GRADIENTS ------------------------------------------------------------------------------
typedef enum ttt_grad_mode {
    TTT_GRAD_FIRST_ORDER,  // numbers only: fast; cannot be differentiated again
    TTT_GRAD_RECORD,       // the gradient is on the tape, like any other tensor
    // Like FIRST_ORDER, but adds to the numbers of the tensors that out[] holds, at the end, when
    // nothing can fail any more. These are not marked: differentiating through them misses a term
    // and is no error.
    TTT_GRAD_ADD
} ttt_grad_mode;

// out[i] = dy / d wrt[i], for y of one element; zeros where y does not depend on wrt[i].
// TTT_ERR_SHAPE if y has more elements; TTT_ERR_ARGUMENT if wrt and out are one array, or mode is
// no ttt_grad_mode; TTT_ERR_FIRST_ORDER if y depends on wrt through a gradient that was taken
// without TTT_GRAD_RECORD and not detached. After an error all of out is the empty tensor; with
// TTT_GRAD_ADD out stays as it was.
TTT_API ttt_result ttt_grad(ttt_ctx *ctx, ttt_tensor *y, ttt_tensor *const *wrt, int n,
                            ttt_tensor **out, ttt_grad_mode mode);
// The same for any y, with a seed of y's shape: out[i] = d <seed, y> / d wrt[i], a vector-Jacobian
// product.
TTT_API ttt_result ttt_vjp(ttt_ctx *ctx, ttt_tensor *y, ttt_tensor *seed, ttt_tensor *const *wrt,
                           int n, ttt_tensor **out, ttt_grad_mode mode);
// Switches the tape off (results are then leaves: inference) or on; returns what it was.
TTT_API bool ttt_set_recording(ttt_ctx *ctx, bool on);

// y = f(in), of the given shape, as one node that keeps only its inputs. What f makes on the way is
// forgotten, and made again, with the same bits, when a gradient is asked for: this costs another
// forward pass and saves the memory of everything inside [Chen 2016]. PyTorch calls it
// checkpointing, JAX remat. f must depend on nothing but `in`, the bytes at `user`, which are
// copied, and the context's random numbers.
typedef ttt_tensor *ttt_remat_fn(ttt_ctx *ctx, ttt_tensor *const *in, int n, const void *user);
TTT_API ttt_tensor *ttt_remat(ttt_ctx *ctx, ttt_remat_fn *f, ttt_tensor *const *in, int n,
                              ttt_shape shape, const void *user, size_t user_bytes);

// Checks derivatives of f, a function with a result of one element, at x[0..n), leaves whose
// numbers it moves and puts back. Takes a random direction and returns |a - b| / max(|b|, 1e-3): a
// is the directional derivative of the given order (1, 2, ...) by ttt_grad; b is the central
// difference (fourth-order, step h) of the analytic derivative one order lower. Build with
// -DTTT_REAL=double for more than three digits. NaN after an error.
typedef ttt_tensor *ttt_function(ttt_ctx *ctx, ttt_tensor *const *x, int n, void *user);
TTT_API double ttt_check_gradient(ttt_ctx *ctx, ttt_function *f, ttt_tensor *const *x, int n,
                                  void *user, int order, double h);

#define TTT__PART TTT__CLOSE
#include TTT__TENSOR_FILE
#undef TTT__PART
#endif  // TTT_TENSOR_H

// =================================================================================================
// ---- [8] KERNELS --------------------------------------------------------------------------------
// The loops that do the arithmetic. This text is compiled once for every instruction set: the list
// at its end includes this header again, which then is only this section (and so does ttt_layers.h
// with its own). A vector is a plain C value here: GCC's and Clang's vector types have + - * / and
// comparisons. With one lane it is a ttt_real and the text is ordinary scalar C: the reference for
// the others, and what other compilers and the double build use. The words:
//   VEC, LANES      a vector, and how many reals it has
//   MASK            what comparing two vectors gives
//   COLS            vectors in a row of the widest tile
//   KN(name)        the name with the set's suffix: ttt__exp_avx2
//   KERNEL          before a function that others call
//   INLINE          before a function of vectors, which never becomes a call
//   RARE            before one that runs once a row: it stays a call, and is compiled once
//   NUM(x)          a constant as a ttt_real
//   SQRT, ZIP_LOW, ZIP_HIGH, EVEN_PARTS, ODD_PARTS    see "the words of a set" below
#if defined(TTT__PART)
#if TTT__PART == TTT__TENSOR_KERNELS
#undef TTT__PART
#define TTT__PART TTT__NEXT_SET
#include TTT__TENSOR_FILE
#undef TTT__PART
#define TTT__PART TTT__TENSOR_KERNELS
#ifdef TTT__SET
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
INLINE VEC KN(log)(VEC a, VEC s) { (void)s; return TTT__MATH(log)(a); }
INLINE VEC KN(log_1_plus)(VEC e) { return TTT__MATH(log1p)(e); }
// The root of a small power has digits where the power has lost them.
INLINE VEC KN(squared)(VEC root) { return root * root; }
INLINE VEC KN(exp_fall)(VEC x) {
    return KN(squared)(TTT__MATH(exp)(x * NUM(-0.5)) * NUM(4294967296));
}
INLINE VEC KN(exp2_fall)(VEC x) {
    return KN(squared)(TTT__MATH(exp2)(x * NUM(-0.5)) * NUM(4294967296));
}
INLINE VEC KN(gauss_fall)(VEC x, ttt_real s) {
    VEC square = x * x, root = TTT__MATH(exp)(square * s * NUM(-0.5)) * NUM(4294967296);
    return KN(squared)(root) * (1 - NUM(ttt__lost_of_square((double)x, (double)square)) * s);
}
INLINE VEC KN(tanh)(VEC a, VEC s) { (void)s; return TTT__MATH(tanh)(a); }
INLINE VEC KN(erf)(VEC a, VEC s) { (void)s; return TTT__MATH(erf)(a); }
INLINE VEC KN(sqrt)(VEC a, VEC s) { (void)s; return TTT__ROOT(a); }
INLINE VEC KN(rsqrt)(VEC a, VEC s) { (void)s; return 1 / TTT__ROOT(a); }
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
#define TTT__FOLD_PARTS(v, f)                                                                      \
    v = f(EVEN_PARTS(v, v), ODD_PARTS(v, v));                                                      \
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

// 2^n v for whole n in [-160, 160], in two factors so that a subnormal result is right, too.
INLINE VEC KN(ldexp)(VEC v, MASK n) {
    MASK half = n >> 1;
    return v * KN(from_bits)((half + 127) << 23) * KN(from_bits)((n - half + 127) << 23);
}

// e^a = 2^n e^r with n = round(a / ln 2), |r| <= ln 2 / 2; e^r = 1 + r + r^2 P(r), P a minimax
// polynomial (relative error 3e-9). Adding 1.5 2^23 rounds to a whole number and leaves it in the
// low bits; subtracting gives it back as a float. Below 1.5 ulp.
INLINE VEC KN(exp_reduced)(VEC a, VEC n) {  // r
    VEC r = a - n * 0.693359375f;
    return r - n * -2.12194440e-4f;
}
INLINE VEC KN(exp_near)(VEC r) {  // e^r
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
    return KN(ldexp)(KN(exp_near)(KN(exp_reduced)(x, shifted - magic)),
                     KN(bits)(shifted) - KN(bits)(KN(splat)(magic)));
}
// The same for a < 60, most often e^-|a|. The power is 2^(n + 32) 2^-32: rounding leaves the
// exponent of the first factor, n + 32 + 127, in the low bits. Below -105 the last factor is 0, as
// the result is, since a product that underflows takes a hundred times as long.
INLINE VEC KN(exp_down)(VEC a, VEC s) {
    (void)s;
    const float magic = 12582912.0f + 159.0f;
    VEC x = KN(select)(a < -105.0f, KN(splat)(-105.0f), a), shifted = x * 1.44269504f + magic;
    VEC last = KN(select)(a < -105.0f, KN(splat)(0), KN(splat)(2.3283064e-10f));
    return KN(exp_near)(KN(exp_reduced)(x, shifted - magic)) *
           KN(from_bits)(KN(bits)(shifted) << 23) * last;
}
// 2^64 e^-x, 2^64 2^-x and 2^64 e^(-s x^2) for x >= 0 where that is above 2^-126. The exponent is
// n + 64 + 127.
INLINE VEC KN(exp_fall)(VEC x) {
    const float magic = 12582912.0f + 191.0f;
    VEC shifted = magic - x * 1.44269504f;
    return KN(exp_near)(KN(exp_reduced)(-x, shifted - magic)) *
           KN(from_bits)(KN(bits)(shifted) << 23);
}
// x^2 is the square of its upper half, which is exact, and a rest.
INLINE VEC KN(gauss_fall)(VEC x, float s) {
    const float magic = 12582912.0f + 191.0f;
    VEC upper = KN(from_bits)(KN(bits)(x) & ~0xfff), rest = (x - upper) * (x + upper);
    VEC a = upper * upper * -s, shifted = a * 1.44269504f + magic;
    return KN(exp_near)(KN(exp_reduced)(a, shifted - magic) - rest * s) *
           KN(from_bits)(KN(bits)(shifted) << 23);
}
INLINE VEC KN(exp2_fall)(VEC x) {
    const float magic = 12582912.0f + 191.0f;
    VEC shifted = magic - x, r = (magic - shifted) - x;
    // 2^r = 1 + r P(r), |r| <= 1/2 (relative error 3e-9)
    VEC p = r * 1.55946782e-4f + 1.34066439e-3f;
    p = p * r + 9.61769297e-3f;
    p = p * r + 5.55031055e-2f;
    p = p * r + 2.40226528e-1f;
    p = p * r + 6.93147215e-1f;
    return (p * r + 1.0f) * KN(from_bits)(KN(bits)(shifted) << 23);
}

// ln(1 + f) + n ln 2, 1 + f in [sqrt(1/2), sqrt 2); ln(1 + f) = f - f^2/2 + f^3 P(f).
INLINE VEC KN(log_near)(VEC f, VEC n) {
    VEC p = f * 0.0674660133f - 0.116756413f;
    p = p * f + 0.118881746f;
    p = p * f - 0.124055914f;
    p = p * f + 0.142195509f;
    p = p * f - 0.166679957f;
    p = p * f + 0.200021187f;
    p = p * f - 0.250000096f;
    p = p * f + 0.333333126f;
    VEC f2 = f * f, y = p * f * f2 + n * -2.12194440e-4f - f2 * 0.5f;
    return y + f + n * 0.693359375f;
}
// a = 2^k (1 + f). Subnormals are scaled up first. Below 1.5 ulp.
INLINE VEC KN(log)(VEC a, VEC s) {
    (void)s;
    MASK tiny = a < 1.17549435e-38f;
    VEC x = KN(select)(tiny, a * 8388608.0f, a);
    // 0x3f3504f3 is sqrt(1/2)
    MASK bits = KN(bits)(x) & 0x7fffffff, k = ((bits - 0x3f3504f3) >> 23);
    VEC f = KN(from_bits)(bits - (k << 23)) - 1.0f;
    k = k - (tiny & 23);
    VEC n = KN(from_bits)(k + 0x4b400000) - 12582912.0f;  // the whole number k as a float
    VEC y = KN(log_near)(f, n);
    y = KN(select)(a <= 3.4028235e38f, y, a);                      // infinity and NaN stay
    y = KN(select)(a > 0.0f, y, KN(splat)(0.0f) / (a * 0.0f));     // ln of a negative number: NaN
    return KN(select)(a == 0.0f, KN(splat)(-1.0f) / KN(splat)(0.0f), y);
}
// ln(1 + e) for e in [0,1], with the digits of a small e.
INLINE VEC KN(log_1_plus)(VEC e) {
    MASK large = e > 0.414213562f;
    return KN(log_near)(KN(select)(large, e * 0.5f - 0.5f, e),
                        KN(select)(large, KN(splat)(1.0f), KN(splat)(0.0f)));
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
INLINE VEC KN(heaviside)(VEC a, VEC s) {
    (void)s;
    return KN(select)(a > NUM(0), KN(splat)(1), KN(splat)(0));
}
INLINE VEC KN(sign)(VEC a, VEC s) { return KN(heaviside)(a, s) - KN(heaviside)(-a, s); }

// From e = e^-|a|, which never overflows, so that both tails keep their digits.
INLINE VEC KN(sigmoid_from)(VEC e, VEC a) {
    VEC one = KN(splat)(1);
    return KN(select)(a < NUM(0), e, one) / (one + e);
}
INLINE VEC KN(sigmoid)(VEC a, VEC s) {
    return KN(sigmoid_from)(KN(exp_down)(KN(below_zero)(a), s), a);
}

// ln(1 + e^a) = max(a, 0) + ln(1 + e^-|a|)
INLINE VEC KN(softplus)(VEC a, VEC s) {
    return KN(relu)(a, s) + KN(log_1_plus)(KN(exp_down)(KN(below_zero)(a), s));
}

// Gates: y = a S(a), where S rises from 0 to 1 and S(-a) = 1 - S(a). All is made from the tail
// T = S(-x), x = |a|, so that no digits are lost where T is small:
//   y = max(a, 0) - x T          y' = -t below 0, else 1 + t;  t = -(x T)'          y'' = t'
// T comes multiplied by 2^64: as a float it would lose its last digits before x T does. Where all
// three are 0 in any case, |a| is cut off, and nothing overflows.
#define TTT__LOWER NUM(1 / 18446744073709551616.0)
INLINE VEC KN(size_up_to)(VEC a, ttt_real most) {
    VEC x = KN(abs)(a, a);
    return KN(select)(x > most, KN(splat)(most), x);  // NaN stays
}
INLINE VEC KN(gate)(VEC a, VEC x, VEC T) { return KN(relu)(a, a) - x * T * TTT__LOWER; }
INLINE VEC KN(gate_d1)(VEC a, VEC t) {
    t = t * TTT__LOWER;
    return KN(select)(a < NUM(0), -t, NUM(1) + t);
}

// silu and gelu: S(a) = sigmoid(u(a)), u odd. T = e r with e = e^-u(x), r = 1 / (1 + e); hence
//   T' = -u' e r^2     t = e r (x u' r - 1)     y'' = e r^2 (2 u' + x (u'' - u'^2 (1 - e) r))
// E = 2^64 e.
INLINE VEC KN(tail_r)(VEC E) { return NUM(1) / (NUM(1) + E * TTT__LOWER); }
INLINE VEC KN(sigmoid_gate)(VEC a, VEC x, VEC E) { return KN(gate)(a, x, E * KN(tail_r)(E)); }
INLINE VEC KN(sigmoid_gate_d1)(VEC a, VEC x, VEC E, VEC du) {
    VEC r = KN(tail_r)(E);
    return KN(gate_d1)(a, E * r * (x * du * r - NUM(1)));
}
INLINE VEC KN(sigmoid_gate_d2)(VEC x, VEC E, VEC du, VEC ddu) {
    VEC r = KN(tail_r)(E), bend = ddu - du * du * (r - E * r * TTT__LOWER);
    return E * r * r * (NUM(2) * du + x * bend) * TTT__LOWER;
}

// silu: u = x. Its cut serves sigmoid's derivative e r^2, too.
#define TTT__SILU_CUT NUM(TTT__DOUBLE ? 753 : 109)
INLINE VEC KN(sigmoid_d1)(VEC a, VEC s) {
    VEC E = KN(exp_fall)(KN(size_up_to)(a, TTT__SILU_CUT)), r = KN(tail_r)(E);
    (void)s;
    return E * r * r * TTT__LOWER;
}
INLINE VEC KN(silu)(VEC a, VEC s) {
    VEC x = KN(size_up_to)(a, TTT__SILU_CUT);
    (void)s;
    return KN(sigmoid_gate)(a, x, KN(exp_fall)(x));
}
INLINE VEC KN(silu_d1)(VEC a, VEC s) {
    VEC x = KN(size_up_to)(a, TTT__SILU_CUT);
    (void)s;
    return KN(sigmoid_gate_d1)(a, x, KN(exp_fall)(x), KN(splat)(1));
}
INLINE VEC KN(silu_d2)(VEC a, VEC s) {
    VEC x = KN(size_up_to)(a, TTT__SILU_CUT);
    (void)s;
    return KN(sigmoid_gate_d2)(x, KN(exp_fall)(x), KN(splat)(1), KN(splat)(0));
}

// gelu: u = 2 sqrt(2/pi) (x + 0.044715 x^3), since (1 + tanh(u/2)) / 2 is sigmoid(u). gelu_fall is
// 2^64 e^-u = 2^64 2^-(u log2 e), with the constants 2 sqrt(2/pi) log2 e and 0.044715 of that.
INLINE VEC KN(gelu_size)(VEC a) { return KN(size_up_to)(a, NUM(TTT__DOUBLE ? 21.7 : 11.3)); }
INLINE VEC KN(gelu_fall)(VEC x) {
    return KN(exp2_fall)(x * (x * x * NUM(0.1029432395800235) + NUM(2.302208198144325)));
}
INLINE VEC KN(gelu_du)(VEC x) { return x * x * NUM(0.21406444881780073) + NUM(1.5957691216057308); }
INLINE VEC KN(gelu_ddu)(VEC x) { return x * NUM(0.42812889763560147); }
INLINE VEC KN(gelu)(VEC a, VEC s) {
    VEC x = KN(gelu_size)(a);
    (void)s;
    return KN(sigmoid_gate)(a, x, KN(gelu_fall)(x));
}
INLINE VEC KN(gelu_d1)(VEC a, VEC s) {
    VEC x = KN(gelu_size)(a);
    (void)s;
    return KN(sigmoid_gate_d1)(a, x, KN(gelu_fall)(x), KN(gelu_du)(x));
}
INLINE VEC KN(gelu_d2)(VEC a, VEC s) {
    VEC x = KN(gelu_size)(a);
    (void)s;
    return KN(sigmoid_gate_d2)(x, KN(gelu_fall)(x), KN(gelu_du)(x), KN(gelu_ddu)(x));
}

// gelu_erf: S is the normal distribution, T = e R with e = e^(-x^2/2) and Mills' ratio R, here
// divided by sqrt(2 pi); a quotient of polynomials with positive terms, which cancel nothing
// (relative error 6e-9 up to 14.85; in double 1e-18 up to 38.95). The density is
// f = e / sqrt(2 pi):
//   t = x f - T     y'' = (2 - x^2) f
#if TTT__DOUBLE
#define TTT__MILLS_P                                                                               \
    2.242241806791889e-07, 6.9770252251846411e-06, 0.00010658616188883181,                         \
    0.0010398239087726553, 0.0071234758492845487, 0.035670147798872232, 0.1320526613083792,        \
    0.35735719401447247, 0.67962376631142729, 0.82793337538715439, 0.5
#define TTT__MILLS_Q                                                                               \
    5.6204667114629622e-07, 1.7488808702291459e-05, 0.00026773393374291803,                        \
    0.0026239408192737174, 0.018121953762156823, 0.091983275718508548, 0.34833411001195203,        \
    0.98013557254357742, 2.0014871941187344, 2.8170578201800556, 2.4537513115771743, 1
#else
#define TTT__MILLS_P 4.14213816e-3f, 4.08070158e-2f, 0.183750254f, 0.438989554f, 0.5f
#define TTT__MILLS_Q 1.03826867e-2f, 0.102294231f, 0.470830594f, 1.20464164f, 1.6758641f, 1.0f
#endif
INLINE VEC KN(mills)(VEC x) {
    static const ttt_real P[] = { TTT__MILLS_P }, Q[] = { TTT__MILLS_Q };
    VEC p = KN(splat)(P[0]), q = KN(splat)(Q[0]);
    TTT__UNROLL for (int i = 1; i < (int)(sizeof P / sizeof *P); i++) p = p * x + P[i];
    TTT__UNROLL for (int i = 1; i < (int)(sizeof Q / sizeof *Q); i++) q = q * x + Q[i];
    return p / q;
}
INLINE VEC KN(normal_size)(VEC a) { return KN(size_up_to)(a, NUM(TTT__DOUBLE ? 38.9 : 14.8)); }
INLINE VEC KN(gelu_erf)(VEC a, VEC s) {
    VEC x = KN(normal_size)(a);
    (void)s;
    return KN(gate)(a, x, KN(gauss_fall)(x, NUM(0.5)) * KN(mills)(x));
}
INLINE VEC KN(gelu_erf_d1)(VEC a, VEC s) {
    VEC x = KN(normal_size)(a);
    (void)s;
    return KN(gate_d1)(a, KN(gauss_fall)(x, NUM(0.5)) *
                              (x * NUM(0.3989422804014327) - KN(mills)(x)));
}
// 2 - x^2 as a product, with the rest of sqrt 2, has its digits at the root, too.
INLINE VEC KN(gelu_erf_d2)(VEC a, VEC s) {
    const ttt_real root = NUM(1.4142135623730951);
    const ttt_real rest = TTT__DOUBLE ? NUM(-9.667293313452913e-17) : NUM(2.42032343e-8);
    VEC x = KN(normal_size)(a), parabola = (root - x + rest) * (root + x);
    (void)s;
    return KN(gauss_fall)(x, NUM(0.5)) * NUM(0.3989422804014327) * parabola * TTT__LOWER;
}
// e^(-a^2), of which erf is the integral.
INLINE VEC KN(gauss)(VEC a, VEC s) {
    (void)s;
    return KN(gauss_fall)(KN(size_up_to)(a, NUM(TTT__DOUBLE ? 27.4 : 10.4)), 1) * TTT__LOWER;
}

INLINE VEC KN(add)(VEC a, VEC b) { return a + b; }
INLINE VEC KN(sub)(VEC a, VEC b) { return a - b; }
INLINE VEC KN(mul)(VEC a, VEC b) { return a * b; }
INLINE VEC KN(div)(VEC a, VEC b) { return a / b; }

// The first n < LANES elements of a vector; the others are zero. Called once a row, so kept out of
// line.
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

// y[i] = f(a[i]), for every op of one number. The last elements go through a whole vector by a
// second call, so that f, which is long, is compiled into the function once.
#define X(name, formula, lo, hi, flops)                                                            \
    KERNEL void KN(map_##name)(int64_t n, const ttt_real *a, ttt_real *y, ttt_real scalar) {       \
        VEC s = KN(splat)(scalar);                                                                 \
        int64_t i = 0;                                                                             \
        for (; i + LANES <= n; i += LANES) KN(store)(y + i, KN(name)(KN(load)(a + i), s));         \
        if (LANES == 1 || i == n) return;                                                          \
        ttt_real x[LANES];                                                                         \
        KN(store)(x, KN(load_part)(a + i, n - i));                                                 \
        KN(map_##name)(LANES, x, x, scalar);                                                       \
        KN(store_part)(y + i, KN(load)(x), n - i);                                                 \
    }
TTT__MAP_LIST(X)
#undef X

// y[i] = f(a[i], b[i]), for every op of two; a step of 0 repeats the first element.
#define X(name, formula, lo, hi, flops)                                                            \
    KERNEL void KN(zip_##name)(int64_t n, const ttt_real *a, int a_step, const ttt_real *b,        \
                               int b_step, ttt_real *y) {                                          \
        VEC a0 = KN(splat)(n ? *a : 0), b0 = KN(splat)(n ? *b : 0);                                \
        int64_t i = 0;                                                                             \
        for (; i + LANES <= n; i += LANES)                                                         \
            KN(store)(y + i, KN(name)(a_step ? KN(load)(a + i) : a0,                               \
                                      b_step ? KN(load)(b + i) : b0));                             \
        if (i == n) return;                                                                        \
        if (a_step) a0 = KN(load_part)(a + i, n - i);                                              \
        if (b_step) b0 = KN(load_part)(b + i, n - i);                                              \
        KN(store_part)(y + i, KN(name)(a0, b0), n - i);                                            \
    }
TTT_BINARY_OPS(X)
#undef X

// Elements i .. i+n-1 of a row and zeros after them; a whole vector if n is LANES or more.
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
// Of an array that is bfloat16 if `half`, a constant at every call; and where its element i is.
INLINE VEC KN(any_part)(bool half, const void *p, int64_t i, int64_t n) {
    return half ? KN(part16)((const uint16_t *)p, i, n) : KN(part)((const ttt_real *)p, i, n);
}
INLINE const void *KN(any_at)(bool half, const void *p, int64_t i) {
    return half ? (const void *)((const uint16_t *)p + i) : (const void *)((const ttt_real *)p + i);
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
// The sum of term(i, n) over a row, in eight vectors: each addition waits four cycles for the one
// before it, and two can begin in a cycle. Closed into a double every 1024 elements, so that the
// error does not grow with the row.
#ifndef TTT__ROW_SUM
#define TTT__ROW_SUM(result, n, term)                                                              \
    double result = 0;                                                                             \
    for (int64_t begin = 0; begin < (n); begin += 1024) {                                          \
        int64_t end = begin + 1024 < (n) ? begin + 1024 : (n), i = begin;                          \
        VEC acc[8];                                                                                \
        TTT__UNROLL for (int u = 0; u < 8; u++) acc[u] = KN(splat)(0);                             \
        for (; i + 8 * LANES <= end; i += 8 * LANES)                                               \
            TTT__UNROLL for (int u = 0; u < 8; u++) acc[u] += term(i + u * LANES, LANES);          \
        if (i + 4 * LANES <= end) {  /* heads are often this narrow */                             \
            TTT__UNROLL for (int u = 0; u < 4; u++) acc[u] += term(i + u * LANES, LANES);          \
            i += 4 * LANES;                                                                        \
        }                                                                                          \
        for (; i + LANES <= end; i += LANES) acc[0] += term(i, LANES);                             \
        if (i < end) acc[0] += term(i, end - i);                                                   \
        acc[0] = ((acc[0] + acc[1]) + (acc[2] + acc[3])) +                                         \
                 ((acc[4] + acc[5]) + (acc[6] + acc[7]));                                          \
        result += KN(total)(acc[0]);                                                               \
    }
// A row in vectors, the last one perhaps not whole.
#define TTT__ROW_EACH(n, term) TTT__ROW_FROM(0, n, term)
#define TTT__ROW_FROM(from, to, term)                                                              \
    {                                                                                              \
        int64_t i = (from);                                                                        \
        for (; i + LANES <= (to); i += LANES) term(i, LANES);                                      \
        if (i < (to)) term(i, (to) - i);                                                           \
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

// y[j] = sum over r of a[r,j], a (rows,n). In blocks of 32 rows, so that rounding grows with a 32nd
// of the rows.
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

INLINE void KN(exp_part)(const ttt_real *a, ttt_real *y, int64_t i, int64_t n, VEC scale, VEC shift,
                         VEC *sum) {
    VEC e = KN(exp_down)(KN(part)(a, i, n) * scale - shift, shift);
    KN(put)(y, i, n, e);
    *sum += KN(first)(e, n);
}
// y = e^(scale a - shift), no power above 60; returns the sum, closed into a double every 1024
// elements as TTT__ROW_SUM does.
KERNEL double KN(exp_sum)(int64_t n, const ttt_real *a, ttt_real *y, ttt_real scale,
                          ttt_real shift) {
    double sum = 0;
    for (; n > 0; n -= 1024, a += 1024, y += 1024) {
        VEC scales = KN(splat)(scale), shifts = KN(splat)(shift), block = KN(splat)(0);
        int64_t length = n < 1024 ? n : 1024;
#define TERM(i, n) KN(exp_part)(a, y, i, n, scales, shifts, &block)
        TTT__ROW_EACH(length, TERM)
#undef TERM
        sum += KN(total)(block);
    }
    return sum;
}
// A row of -infinity, which sees nothing, gives 0.
KERNEL void KN(softmax)(int64_t n, const ttt_real *a, ttt_real *y) {
    ttt_real max = KN(row_max)(n, a);
    if (ttt__certain(n, a, max, y, 0, 1)) return;
    double sum = KN(exp_sum)(n, a, y, 1, max == -HUGE_VAL ? 0 : max);
    KN(map_scale)(n, y, y, NUM(sum == 0 ? 0 : 1 / sum));
}
// y[i] = a[i] where c[i] is not 0, else b[i]; a step of 0 repeats the first element.
INLINE VEC KN(picked)(VEC c, VEC a, VEC b) { return KN(select)(c != NUM(0), a, b); }
KERNEL void KN(pick)(int64_t n, const ttt_real *c, const ttt_real *a, int a_step,
                     const ttt_real *b, int b_step, ttt_real *y) {
    VEC a0 = KN(splat)(n ? *a : 0), b0 = KN(splat)(n ? *b : 0);
#define TERM(i, n)                                                                                 \
    KN(put)(y, i, n, KN(picked)(KN(part)(c, i, n), a_step ? KN(part)(a, i, n) : a0,                \
                                b_step ? KN(part)(b, i, n) : b0))
    TTT__ROW_EACH(n, TERM)
#undef TERM
}
KERNEL void KN(softmax_seen)(int64_t n, const ttt_real *a, const ttt_real *seen, ttt_real *y) {
    const ttt_real hidden = -(ttt_real)HUGE_VAL;
    KN(pick)(n, seen, a, 1, &hidden, 0, y);
    KN(softmax)(n, y, y);
}
KERNEL void KN(log_softmax)(int64_t n, const ttt_real *a, ttt_real *y) {
    ttt_real max = KN(row_max)(n, a);
    if (ttt__certain(n, a, max, y, -HUGE_VAL, 0)) return;
    VEC top = KN(splat)(max), log_sum = KN(splat)(NUM(log(KN(exp_sum)(n, a, y, 1, max))));
// One after the other: top + log_sum would round at the size of top.
#define TERM(i, n) KN(put)(y, i, n, KN(part)(a, i, n) - top - log_sum)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// The mean of a row, 0 unless centered, and rstd = (mean (a - mean)^2 + eps)^(-1/2).
INLINE VEC KN(deviation2)(const ttt_real *a, int64_t i, int64_t n, VEC mean) {
    VEC d = KN(first)(KN(part)(a, i, n) - mean, n);
    return d * d;
}
KERNEL ttt__moments KN(moments)(int64_t n, const ttt_real *a, double eps, bool centered) {
    // Divided beforehand: the end of the sum would have to wait for a division.
    double share = 1 / (double)n;
    ttt_real mean = centered ? NUM(KN(sum)(n, a) * share) : 0;
    VEC means = KN(splat)(mean);
    // The second pass finds the row in a cache, and has time to ask for the next row.
    const ttt_real *next = centered ? a + n : a;
#define TERM(i, n) (TTT__PREFETCH(next + (i)), KN(deviation2)(a, i, n, means))
    TTT__ROW_SUM(sum, n, TERM)
#undef TERM
    double variance = sum * share + eps;
    ttt_real rstd = NUM(1 / sqrt(variance));
    ttt__moments moments = { 1, mean, rstd, rstd };
    return ttt__ordinary(variance) ? moments : ttt__moments_scaled(n, a, eps, centered);
}
// Elements i .. i+n-1 of x^ = (a - mean) rstd.
INLINE VEC KN(normal)(const ttt_real *a, int64_t i, int64_t n, const ttt__moments *row) {
    return (KN(part)(a, i, n) * row->factor - row->mean) * row->scale;
}
KERNEL void KN(normalize)(int64_t n, const ttt_real *a, ttt_real *y, double eps, bool centered) {
    const ttt__moments row = KN(moments)(n, a, eps, centered);
#define TERM(i, n) KN(put)(y, i, n, KN(normal)(a, i, n, &row))
    TTT__ROW_EACH(n, TERM)
#undef TERM
}
// y = rstd (g - mean g - x^ mean(g x^)).
KERNEL void KN(normalize_d1)(int64_t n, const ttt_real *a, const ttt_real *g, ttt_real *y,
                             double eps, bool centered) {
    const ttt__moments row = KN(moments)(n, a, eps, centered);
#define TERM(i, n) KN(part)(g, i, n) * KN(first)(KN(normal)(a, i, n, &row), n)
    TTT__ROW_SUM(gx, n, TERM)
#undef TERM
    VEC mean_g = KN(splat)(centered ? NUM(KN(sum)(n, g) / (double)n) : 0);
    VEC mean_gx = KN(splat)(NUM(gx / (double)n));
#define TERM(i, n)                                                                                 \
    KN(put)(y, i, n, (KN(part)(g, i, n) - mean_g - KN(normal)(a, i, n, &row) * mean_gx) * row.rstd)
    TTT__ROW_EACH(n, TERM)
#undef TERM
}

// Rows of n: each pair of neighbors is turned as a point of the plane, y = a o c + a' o s, where in
// a' the two of a pair have changed places. turn: n numbers c, then n numbers s.
#if LANES == 1
INLINE VEC KN(partners)(const ttt_real *a, int64_t i, int64_t n, int64_t size) {
    (void)n;
    return (i ^ 1) < size ? a[i ^ 1] : 0;
}
#else
INLINE VEC KN(partners)(const ttt_real *a, int64_t i, int64_t n, int64_t size) {
    VEC v = KN(part)(a, i, n), low = ZIP_LOW(v, v), high = ZIP_HIGH(v, v);
    (void)size;
    return ZIP_LOW(ZIP_HIGH(low, high), ZIP_LOW(low, high));
}
#endif
KERNEL void KN(rotate)(int64_t rows, int64_t n, const ttt_real *a, const ttt_real *turn,
                       ttt_real *y) {
    const int64_t size = n;
    for (int64_t row = 0; row < rows; row++, a += size, y += size) {
#define TERM(i, n)                                                                                 \
    KN(put)(y, i, n, KN(part)(a, i, n) * KN(part)(turn, i, n) +                                    \
                     KN(partners)(a, i, n, size) * KN(part)(turn + size, i, n))
        TTT__ROW_EACH(size, TERM)
#undef TERM
    }
}

// True if there is no NaN or infinity: a - a is NaN for them, else 0.
KERNEL bool KN(finite)(int64_t n, const ttt_real *a) {
#define TERM(i, n) (KN(part)(a, i, n) - KN(part)(a, i, n))
    TTT__ROW_SUM(sum, n, TERM)
#undef TERM
    return sum == 0;
}

// The rows of a triangular system, in place and each with its sign changed, so that those above it
// are added: y_i = -(y_i + sum over k < i of a_ik y_k), y (n,d). `columns` vectors at a time, the
// last of which may not be whole: `whole` is how many numbers it has.
INLINE void KN(substitute_columns)(int columns, int64_t whole, int64_t n, const ttt_real *a,
                                   int64_t a_row, int64_t a_col, ttt_real *y, int64_t y_row) {
    for (int64_t i = 0; i < n; i++) {
        VEC sum[4];
        TTT__UNROLL for (int u = 0; u < columns; u++)
            sum[u] = KN(part)(y + i * y_row, u * LANES, whole);
        for (int64_t k = 0; k < i; k++) {
            VEC factor = KN(splat)(a[i * a_row + k * a_col]);
            TTT__UNROLL for (int u = 0; u < columns; u++)
                sum[u] += factor * KN(part)(y + k * y_row, u * LANES, whole);
        }
        TTT__UNROLL for (int u = 0; u < columns; u++)
            KN(put)(y + i * y_row, u * LANES, whole, -sum[u]);
    }
}
KERNEL void KN(substitute)(int64_t n, int64_t d, const ttt_real *a, int64_t a_row, int64_t a_col,
                           ttt_real *y, int64_t y_row) {
    int64_t j = 0;
    for (; j + 4 * LANES <= d; j += 4 * LANES)
        KN(substitute_columns)(4, LANES, n, a, a_row, a_col, y + j, y_row);
    for (; j < d; j += LANES)
        KN(substitute_columns)(1, d - j, n, a, a_row, a_col, y + j, y_row);
}

// Columns of a matrix that is stored by rows: y[t] is column t of LANES rows. A vector takes its
// parts of four numbers from rows four apart; what is left are transposes of four by four, one
// inside each part. Rows lie `row` bytes apart, for a number may also be a pair of bfloat16.
#if LANES > 1
INLINE VEC KN(load_parts)(const char *p, int64_t step) {
#if LANES == 4
    (void)step;
    return (VEC)TTT__FOUR(p);
#elif defined(TTT__JOINS) && LANES == 8
    return TTT__JOIN_8(p, p + step);
#elif defined(TTT__JOINS)
    return TTT__SHUFFLE(TTT__JOIN_8(p, p + step), TTT__JOIN_8(p + 2 * step, p + 3 * step),
                        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#else  // An older GCC cannot join vectors, but sets single numbers: the fewest if read as doubles.
    typedef double pair __attribute__((aligned(2), may_alias));
    double x __attribute__((vector_size(4 * LANES))) = { 0 };
    TTT__UNROLL for (int i = 0; i < LANES / 2; i++)
        x[i] = ((const pair *)(const void *)(p + i / 2 * step))[i % 2];
    return (VEC)x;
#endif
}
INLINE void KN(four_columns)(const void *a, int64_t row, VEC *y) {
    const char *p = (const char *)a;
    VEC x0 = KN(load_parts)(p, 4 * row), x1 = KN(load_parts)(p + row, 4 * row);
    VEC x2 = KN(load_parts)(p + 2 * row, 4 * row), x3 = KN(load_parts)(p + 3 * row, 4 * row);
    VEC low02 = ZIP_LOW(x0, x2), low13 = ZIP_LOW(x1, x3);
    VEC high02 = ZIP_HIGH(x0, x2), high13 = ZIP_HIGH(x1, x3);
    y[0] = ZIP_LOW(low02, low13);
    y[1] = ZIP_HIGH(low02, low13);
    y[2] = ZIP_LOW(high02, high13);
    y[3] = ZIP_HIGH(high02, high13);
}
#endif
// The same for eight columns of an array with rows of a_row elements, and for one.
INLINE void KN(columns)(bool half, const void *a, int64_t a_row, VEC *y) {
#if LANES == 1
    for (int t = 0; t < 8; t++) y[t] = KN(any_part)(half, a, t, 1);
    (void)a_row;
#else
    KN(four_columns)(a, (half ? 2 : 4) * a_row, y);
    if (!half) KN(four_columns)(KN(any_at)(half, a, 4), 4 * a_row, y + 4);
    else
        TTT__UNROLL for (int t = 3; t >= 0; t--) {  // the first of a pair is its lower half
            MASK pairs = KN(bits)(y[t]);
            y[2 * t + 1] = KN(from_bits)(pairs & ~0xffff);
            y[2 * t] = KN(from_bits)(pairs << 16);
        }
#endif
}
INLINE VEC KN(column)(bool half, const void *a, int64_t a_row) {
    ttt_real x[LANES];
    for (int l = 0; l < LANES; l++) KN(put)(x, l, 1, KN(any_part)(half, a, l * a_row, 1));
    return KN(load)(x);
}
// y (n,m) = the transpose of a (m,n); y_row >= m.
INLINE void KN(transposed)(bool half, int64_t m, int64_t n, const void *a, int64_t a_row,
                           ttt_real *y, int64_t y_row) {
    int64_t i = 0;
    for (; i + LANES <= m; i += LANES, a = KN(any_at)(half, a, LANES * a_row)) {
        int64_t j = 0;
        for (; j + 8 <= n; j += 8) {
            VEC x[8];
            KN(columns)(half, KN(any_at)(half, a, j), a_row, x);
            TTT__UNROLL for (int t = 0; t < 8; t++) KN(store)(y + (j + t) * y_row + i, x[t]);
        }
        for (; j < n; j++)
            KN(store)(y + j * y_row + i, KN(column)(half, KN(any_at)(half, a, j), a_row));
    }
    for (; i < m; i++, a = KN(any_at)(half, a, a_row))
        for (int64_t j = 0; j < n; j++) KN(put)(y, j * y_row + i, 1, KN(any_part)(half, a, j, 1));
}
KERNEL void KN(transpose)(int64_t m, int64_t n, const ttt_real *a, int64_t a_row, ttt_real *y,
                          int64_t y_row) {
    KN(transposed)(false, m, n, a, a_row, y, y_row);
}
KERNEL void KN(transpose16)(int64_t m, int64_t n, const uint16_t *a, int64_t a_row, ttt_real *y,
                            int64_t y_row) {
    KN(transposed)(true, m, n, a, a_row, y, y_row);
}

// One tile of a product, c = init + a b of `rows` x `cols` vectors, with its sums kept in registers
// while k runs. a is read where it lies, one number at a time, at any pair of strides (so its
// transpose costs nothing); b's rows must be contiguous. init may be NULL (zero), c itself
// (accumulate), or a row repeated (a bias, stride 0). rows and cols are constants at every call. So
// is `ahead`: if not 0, memory is asked for b so many columns further on.
INLINE void KN(tile)(int rows, int cols, bool half, int ahead, const ttt__gemm *gemm) {
    VEC acc[TTT__MAX_ROWS][COLS];
    const void *b = half ? (const void *)gemm->bf16 : (const void *)gemm->b;
    const ttt_real *a = gemm->a, *init = gemm->init;
    int64_t a_row = gemm->a_row, a_col = gemm->a_col, b_row = gemm->b_row;
    int64_t init_row = gemm->init_row, c_row = gemm->c_row;
    ttt_real *c = gemm->c;
    TTT__UNROLL for (int i = 0; i < rows; i++) {
        TTT__UNROLL for (int j = 0; j < cols; j++)
            acc[i][j] = init ? KN(load)(init + j * LANES) : KN(splat)(0);
        if (init) init += init_row;
    }
    // Sixteen rows need more addresses than there are registers; twice eight do not.
    const ttt_real *a8 = a + 8 * a_row;
    if (rows > 8) TTT__UNRELATED(a8);
    // Asked for now, c is at hand by the end of the sum; a shorter sum would end before.
    if (gemm->k >= 128)
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < cols; j++) TTT__PREFETCH(c + i * c_row + j * LANES);
    for (int64_t k = gemm->k; k > 0; k--, a += a_col, a8 += a_col) {
        VEC b_vec[COLS];
        TTT__UNROLL for (int j = 0; j < cols; j++) {
            b_vec[j] = KN(any_part)(half, b, j * LANES, LANES);
            if (ahead) TTT__PREFETCH(KN(any_at)(half, b, ahead + j * LANES));
        }
        b = KN(any_at)(half, b, b_row);
        TTT__UNROLL for (int i = 0; i < rows; i++) {
            ttt_real factor = i < 8 ? a[i * a_row] : a8[(i - 8) * a_row];
            TTT__UNROLL for (int j = 0; j < cols; j++) acc[i][j] += factor * b_vec[j];
        }
    }
    TTT__UNROLL for (int i = 0; i < rows; i++, c += c_row)
        TTT__UNROLL for (int j = 0; j < cols; j++) KN(store)(c + j * LANES, acc[i][j]);
}
// The same for few rows where b is stored as (n,k), and one vector of columns: b is transposed in
// registers, some terms at a time, while memory is asked for the vector after it.
INLINE void KN(tile_across)(int rows, bool half, const ttt__gemm *gemm) {
    const void *b = half ? (const void *)gemm->bf16 : (const void *)gemm->b;
    const ttt_real *a = gemm->a;
    int64_t a_row = gemm->a_row, a_col = gemm->a_col, b_col = gemm->b_col, i = 0;
    int line = half ? 4 : 2;  // so many times as many terms as are read at once
    VEC acc[TTT__TILE_ROWS], b_vec[8];
    TTT__UNROLL for (int r = 0; r < rows; r++)
        acc[r] = gemm->init ? KN(load)(gemm->init + r * gemm->init_row) : KN(splat)(0);
    for (; i + 8 <= gemm->k; i += 8, a += 8 * a_col) {
        for (int64_t row = LANES + i / 8 % line; row < 2 * LANES; row += line)
            TTT__PREFETCH(KN(any_at)(half, b, row * b_col + i));
        KN(columns)(half, KN(any_at)(half, b, i), b_col, b_vec);
        TTT__UNROLL for (int t = 0; t < 8; t++)
            TTT__UNROLL for (int r = 0; r < rows; r++)
                acc[r] += a[r * a_row + t * a_col] * b_vec[t];
    }
    for (; i < gemm->k; i++, a += a_col) {
        b_vec[0] = KN(column)(half, KN(any_at)(half, b, i), b_col);
        TTT__UNROLL for (int r = 0; r < rows; r++) acc[r] += a[r * a_row] * b_vec[0];
    }
    TTT__UNROLL for (int r = 0; r < rows; r++) KN(store)(gemm->c + r * gemm->c_row, acc[r]);
}
// n rounds of multiply-adds, in each as many independent ones as the widest tile has sums: as fast
// as this machine can do them.
KERNEL double KN(multiply_adds)(int64_t n) {
    VEC acc[TTT__TILE_ROWS][COLS];
    VEC scale = KN(splat)(NUM(0.5)), term = KN(splat)(1), all = KN(splat)(0);
    TTT__UNROLL for (int i = 0; i < TTT__TILE_ROWS; i++)
        TTT__UNROLL for (int j = 0; j < COLS; j++) acc[i][j] = KN(splat)(NUM(i * COLS + j));
    for (; n > 0; n--)
        TTT__UNROLL for (int i = 0; i < TTT__TILE_ROWS; i++)
            TTT__UNROLL for (int j = 0; j < COLS; j++) acc[i][j] = acc[i][j] * scale + term;
    TTT__UNROLL for (int i = 0; i < TTT__TILE_ROWS; i++)
        TTT__UNROLL for (int j = 0; j < COLS; j++) all += acc[i][j];
    return KN(total)(all);
}
#define TILE(rows, cols)                                                                           \
    KERNEL void KN(tile_##rows##_##cols)(const ttt__gemm *gemm) {                                  \
        KN(tile)(rows, cols, false, 0, gemm);                                                      \
    }
#define TILES_6(cols) TILE(1, cols) TILE(2, cols) TILE(3, cols)                                    \
    TILE(4, cols) TILE(5, cols) TILE(6, cols)
#define TILES_8(cols) TILES_6(cols) TILE(7, cols) TILE(8, cols)
#define TILES_12(cols) TILES_8(cols) TILE(9, cols) TILE(10, cols) TILE(11, cols) TILE(12, cols)
#define TILES_16(cols) TILES_12(cols) TILE(13, cols) TILE(14, cols) TILE(15, cols) TILE(16, cols)
// The tiles there are, narrowest first: X(columns in vectors, rows of the tallest).
#if LANES == 1
#define TILE_WIDTHS(X) X(1, 6) X(2, 6) X(3, 6) X(4, 6)
#elif COLS == 4
#define TILE_WIDTHS(X) X(1, 16) X(2, 12) X(3, 8) X(4, 6)
#else
#define TILE_WIDTHS(X) X(1, 12) X(2, 6)
#endif
#define X(cols, rows) TILES_##rows(cols)
TILE_WIDTHS(X)
#undef X
#undef TILE

// Tiles that ask for b in advance: of a packed panel that the first-level cache does not hold, the
// next rows; for few rows b is read where it lies, and the time is that of reading it. (Numbers one
// by one do not wait for memory, and WASM cannot ask for it.)
#if LANES > 1 && !defined(__wasm__)
#define X(rows)                                                                                    \
    KERNEL void KN(few_##rows)(const ttt__gemm *gemm) {                                            \
        KN(tile)(rows, COLS, false, COLS * LANES, gemm);                                           \
    }                                                                                              \
    KERNEL void KN(few16_##rows)(const ttt__gemm *gemm) {                                          \
        KN(tile)(rows, COLS, true, 2 * COLS * LANES, gemm);                                        \
    }                                                                                              \
    KERNEL void KN(packed_##rows)(const ttt__gemm *gemm) {                                         \
        KN(tile)(rows, COLS, false, 4 * COLS * LANES, gemm);                                       \
    }                                                                                              \
    KERNEL void KN(across_##rows)(const ttt__gemm *gemm) { KN(tile_across)(rows, false, gemm); }   \
    KERNEL void KN(across16_##rows)(const ttt__gemm *gemm) { KN(tile_across)(rows, true, gemm); }
TTT__EACH_ROWS(X)
#undef X
#endif

// bfloat16 to ttt_real: m rows of n numbers.
KERNEL void KN(widen)(int64_t m, int64_t n, const uint16_t *a, int64_t a_row, ttt_real *y,
                      int64_t y_row) {
    for (int64_t row = 0; row < m; row++, a += a_row, y += y_row) {
#define TERM(i, n) KN(put)(y, i, n, KN(part16)(a, i, n))
        TTT__ROW_EACH(n, TERM)
#undef TERM
    }
}

// A part of a depthwise convolution: `tokens` outputs from token j on, `vecs` vectors of channels
// from c on, of which the last has n numbers. All sums are in registers; tokens and vecs are
// constants at every call, and so is whether n is a whole vector: what is loaded in two ways, Clang
// does not always fuse with what it is added to.
INLINE void KN(convolve_part)(int tokens, int vecs, const ttt__taps *of, const ttt_real *kernel,
                              ttt_real *y, int64_t j, int64_t c, int64_t n) {
    VEC sum[4 * 2];
    TTT__UNROLL for (int u = 0; u < tokens * vecs; u++) sum[u] = KN(splat)(0);
    for (int64_t s = 0; s < of->rows; s++) {
        const ttt_real *x = of->x + s * of->x_row + j * of->step + c;
        const ttt_real *tap = kernel + of->tap + s * of->tap_row + c;
        for (int64_t t = 0; t < of->cols; t++, x += of->step, tap += of->tap_col)
            TTT__UNROLL for (int v = 0; v < vecs; v++) {
                VEC weight = KN(part)(tap, v * LANES, n);
                TTT__UNROLL for (int u = 0; u < tokens; u++)
                    sum[u * vecs + v] += weight * KN(part)(x + u * of->step, v * LANES, n);
            }
    }
    TTT__UNROLL for (int u = 0; u < tokens; u++)
        TTT__UNROLL for (int v = 0; v < vecs; v++)
            KN(put)(y + (j + u) * of->step + c, v * LANES, n, sum[u * vecs + v]);
}
INLINE void KN(convolve_tokens)(int tokens, int vecs, const ttt__taps *of, const ttt_real *kernel,
                                ttt_real *y, int64_t j) {
    int64_t c = 0, width = vecs * LANES;
    for (; c + width <= of->channels; c += width)
        KN(convolve_part)(tokens, vecs, of, kernel, y, j, c, LANES);
    for (; c + LANES <= of->channels; c += LANES)
        KN(convolve_part)(tokens, 1, of, kernel, y, j, c, LANES);
    if (c < of->channels) KN(convolve_part)(tokens, 1, of, kernel, y, j, c, of->channels % LANES);
}
// y_j = sum over the taps s, t of kernel_st x_(s,j+t)
KERNEL void KN(convolve)(const ttt__taps *taps, const ttt_real *kernel, ttt_real *y) {
    const ttt__taps own = *taps;  // a copy, which no store can change
    int64_t j = 0;
    for (; j + 4 <= own.tokens; j += 4) KN(convolve_tokens)(4, 2, &own, kernel, y, j);
    for (; j < own.tokens; j++) KN(convolve_tokens)(1, 4, &own, kernel, y, j);
}
// The same for what taps get: `cols` of them from tap t of a row on. In blocks of 32 tokens, as in
// sum_rows.
INLINE void KN(correlate_part)(int cols, int vecs, const ttt__taps *of, const ttt_real *g,
                               ttt_real *kernel, int64_t t, int64_t c, int64_t n) {
    VEC sum[4 * 2], block[4 * 2];
    const ttt_real *x = of->x + t * of->step + c;
    TTT__UNROLL for (int u = 0; u < cols * vecs; u++) sum[u] = KN(splat)(0);
    for (int64_t begin = 0; begin < of->tokens; begin += 32) {
        int64_t end = begin + 32 < of->tokens ? begin + 32 : of->tokens;
        TTT__UNROLL for (int u = 0; u < cols * vecs; u++) block[u] = KN(splat)(0);
        for (int64_t j = begin; j < end; j++, x += of->step)
            TTT__UNROLL for (int v = 0; v < vecs; v++) {
                VEC weight = KN(part)(g + j * of->step + c, v * LANES, n);
                TTT__UNROLL for (int u = 0; u < cols; u++)
                    block[u * vecs + v] += weight * KN(part)(x + u * of->step, v * LANES, n);
            }
        TTT__UNROLL for (int u = 0; u < cols * vecs; u++) sum[u] += block[u];
    }
    TTT__UNROLL for (int u = 0; u < cols; u++)
        TTT__UNROLL for (int v = 0; v < vecs; v++) {
            ttt_real *tap = kernel + of->tap + (t + u) * of->tap_col + c;
            KN(put)(tap, v * LANES, n, KN(part)(tap, v * LANES, n) + sum[u * vecs + v]);
        }
}
INLINE void KN(correlate_cols)(int cols, int vecs, const ttt__taps *of, const ttt_real *g,
                               ttt_real *kernel, int64_t t) {
    int64_t c = 0, width = vecs * LANES;
    for (; c + width <= of->channels; c += width)
        KN(correlate_part)(cols, vecs, of, g, kernel, t, c, LANES);
    for (; c + LANES <= of->channels; c += LANES)
        KN(correlate_part)(cols, 1, of, g, kernel, t, c, LANES);
    if (c < of->channels) KN(correlate_part)(cols, 1, of, g, kernel, t, c, of->channels % LANES);
}
// kernel_t += sum over j of g_j x_(j+t), for one row of taps
KERNEL void KN(correlate)(const ttt__taps *taps, const ttt_real *g, ttt_real *kernel) {
    const ttt__taps own = *taps;
    int64_t t = 0;
    for (; t + 4 <= own.cols; t += 4) KN(correlate_cols)(4, 2, &own, g, kernel, t);
    for (; t < own.cols; t++) KN(correlate_cols)(1, 4, &own, g, kernel, t);
}

static const ttt__kernels KN(table) = {
    TTT__TEXT(TTT__SET), TTT__PASTE(TTT__SET_, TTT__SET), LANES, COLS,
#define X(name, formula, lo, hi, flops) KN(map_##name),
    { TTT__MAP_LIST(X) },
#undef X
#define X(name, formula, lo, hi, flops) KN(zip_##name),
    { TTT_BINARY_OPS(X) },
#undef X
#define X(result, name, parameters) KN(name),
    TTT__KERNEL_LIST(X)
#undef X
#define TILE(rows, cols) KN(tile_##rows##_##cols),
#define X(cols, rows) { TILES_##rows(cols) },
    { TILE_WIDTHS(X) },
#undef X
#undef TILE
#define X(cols, rows) rows,
    { TILE_WIDTHS(X) },
#undef X
#if LANES > 1 && !defined(__wasm__)
    {
#define X(rows) KN(few_##rows),
        { TTT__EACH_ROWS(X) },
#undef X
#define X(rows) KN(few16_##rows),
        { TTT__EACH_ROWS(X) },
#undef X
#define X(rows) KN(across_##rows),
        { TTT__EACH_ROWS(X) },
#undef X
#define X(rows) KN(across16_##rows),
        { TTT__EACH_ROWS(X) },
#undef X
#define X(rows) KN(packed_##rows),
        { TTT__EACH_ROWS(X) },
#undef X
    },
#else
    { { NULL } },
#endif
};
#undef TILE_WIDTHS
#undef TILES_6
#undef TILES_8
#undef TILES_12
#undef TILES_16

#include TTT__THIS_FILE("ttt_tensor.h")  // once more, for the next set
#endif

// -- the words of the first set, and then of the one after TTT__SET, worst first; after the last,
// of none
#elif TTT__PART == TTT__NEXT_SET
#if !defined(TTT__SET)
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
#elif defined(TTT__X86) && LANES == 1
#undef TTT__SET
#define TTT__SET sse2
#elif defined(TTT__X86) && LANES == 4
#undef TTT__SET
#define TTT__SET avx2
#elif defined(TTT__X86) && LANES == 8
#undef TTT__SET
#define TTT__SET avx512
#elif defined(TTT__NEON) && LANES == 1
#undef TTT__SET
#define TTT__SET neon
#elif defined(TTT__WASM) && LANES == 1
#undef TTT__SET
#define TTT__SET simd128
#else
#undef TTT__SET
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
#endif
#endif  // TTT__PART == ...

// =================================================================================================
#elif defined(TTT_TENSOR_IMPLEMENTATION) || defined(TTT_IMPLEMENTATION)
#ifndef TTT_TENSOR_IMPLEMENTED
#define TTT_TENSOR_IMPLEMENTED
#if defined(__clang__) && defined(__FAST_MATH__) && TTT__DOUBLE
#error "no pragma makes Clang's doubles precise again: leave out -ffast-math (-Ofast)"
#endif

#include <float.h>
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
// Threads are left out where there are none.
#if defined(__has_include) && !defined(_WIN32)
#if !__has_include(<pthread.h>) && !defined(TTT_NO_THREADS)
#define TTT_NO_THREADS
#endif
#endif
#if !defined(TTT_NO_THREADS) && (defined(__wasm__) || defined(__TINYC__) && defined(_WIN32))
#define TTT_NO_THREADS
#endif
#if !defined(TTT_NO_THREADS) && !defined(_WIN32)
#include <pthread.h>
#include <unistd.h>
#endif

#define TTT__PART TTT__OPEN
#include TTT__TENSOR_FILE
#undef TTT__PART
TTT__PRECISE

#if defined(TTT_MALLOC) + defined(TTT_REALLOC) + defined(TTT_FREE) == 0
#define TTT_MALLOC(user, n) ((void)(user), malloc(n))
#define TTT_REALLOC(user, p, n) ((void)(user), realloc(p, n))
#define TTT_FREE(user, p) ((void)(user), free(p))
#elif defined(TTT_MALLOC) + defined(TTT_REALLOC) + defined(TTT_FREE) < 3
#error "TTT_MALLOC, TTT_REALLOC and TTT_FREE belong together: define all three or none"
#endif

// -- words for compilers
#if TTT__DOUBLE
#define TTT__MATH(name) name
#else
#define TTT__MATH(name) name##f
#endif

// Under -ffast-math Clang makes an estimate of sqrtf, but not of its own instruction.
#if defined(__clang__) && defined(__SSE__) && !TTT__DOUBLE
static inline float ttt__sqrtss(float a) {
    float y;
    __asm__("sqrtss %1, %0" : "=x"(y) : "x"(a));
    return y;
}
#define TTT__ROOT(a) ttt__sqrtss(a)
#else
#define TTT__ROOT(a) TTT__MATH(sqrt)(a)
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
#ifdef __FP_FAST_FMA  // of plain numbers it fuses some and not others, as loops happen to turn out
#define TTT__NO_FMA __attribute__((optimize("fp-contract=off")))
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
#ifndef TTT__NO_FMA
#define TTT__NO_FMA
#endif

TTT__CONSTANT char ttt__real_is = 0;

#define TTT__MIN(a, b) ((a) < (b) ? (a) : (b))
#define TTT__MAX(a, b) ((a) > (b) ? (a) : (b))

// -- sums of squares beyond the range of ttt_real
// Kernels sum squares as they are. Where the sum is so large or so small that squares may have
// overflowed, or lost digits, these slow loops take over; they divide the numbers by a power of two
// near the largest first.
#define TTT__LARGEST_TO_SQUARE (TTT__DOUBLE ? 1e154 : 1e19)  // about: its square has a number
static bool ttt__ordinary(double squares) { return squares > 1e-25 && squares < 1e37; }
// The largest |a[i * step]|; NaN if there is one.
static double ttt__largest_size(int64_t n, const ttt_real *a, int64_t step) {
    double most = 0;
    for (int64_t i = 0; i < n; i++) {
        double size = fabs((double)a[i * step]);
        if (!(size <= most)) most = size;
        if (!(most >= 0)) break;
    }
    return most;
}
// The power of two that brings `most` into [1/2, 1); 1 if there is none.
static double ttt__scale_for(double most) {
    int e = 0;
    if (most > 0 && most <= DBL_MAX) (void)frexp(most, &e);
    return ldexp(1, TTT__MIN(-e, 1000));
}
static double ttt__scaled_squares(int64_t n, const ttt_real *a, int64_t step, double mean,
                                  double scale) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i * step] * scale - mean * scale;
        sum += d * d;
    }
    return sum;
}
static double ttt__length(int64_t n, const ttt_real *a, int64_t step) {
    double scale = ttt__scale_for(ttt__largest_size(n, a, step));
    return sqrt(ttt__scaled_squares(n, a, step, 0, scale)) / scale;
}
// What rounding took from the square of x.
static double ttt__lost_of_square(double x, double square) {
    uint64_t bits;
    double upper;
    memcpy(&bits, &x, sizeof bits);
    bits &= ~(uint64_t)0x7ffffff;
    memcpy(&upper, &bits, sizeof upper);
    return upper * upper - square + (x - upper) * (x + upper);
}
// A row with a single +infinity: what the softmax tends to is `one` there and `none` elsewhere.
static bool ttt__certain(int64_t n, const ttt_real *a, ttt_real max, ttt_real *y, double none,
                         double one) {
    int64_t at = -1;
    if (!((double)max > DBL_MAX)) return false;
    for (int64_t i = 0; i < n; i++) {
        if (!((double)a[i] > DBL_MAX)) continue;
        if (at >= 0) return false;  // the answer would depend on which is larger: NaN
        at = i;
    }
    for (int64_t i = 0; i < n; i++) y[i] = (ttt_real)(i == at ? one : none);
    return true;
}
// The moments of a row: x^ = (factor a - mean) scale. The factor is 1, or 1/2 where a - mean may
// exceed the largest number; the mean is multiplied by it, and scale is rstd divided by it.
typedef struct ttt__moments {
    ttt_real factor, mean, scale, rstd;
} ttt__moments;
// See KN(moments).
static ttt__moments ttt__moments_scaled(int64_t n, const ttt_real *a, double eps, bool centered) {
    double most = ttt__largest_size(n, a, 1), scale = ttt__scale_for(most), sum = 0;
    double factor = most > (TTT__DOUBLE ? DBL_MAX : FLT_MAX) / 4 ? 0.5 : 1;
    for (int64_t i = 0; i < n && centered; i++) sum += (double)a[i] * scale;
    double mean = sum / (double)n / scale;
    double squares = ttt__scaled_squares(n, a, 1, (double)(ttt_real)mean, scale);
    double dev = sqrt(squares / (double)n) / scale, root = sqrt(eps);
    double large = TTT__MAX(dev, root), ratio = large > 0 ? TTT__MIN(dev, root) / large : 0;
    double rstd = dev >= 0 ? 1 / (large * sqrt(1 + ratio * ratio)) : dev;
    ttt__moments moments = { (ttt_real)factor, (ttt_real)(mean * factor), (ttt_real)(rstd / factor),
                             (ttt_real)rstd };
    return moments;
}

// -- the table of kernels, which each instruction set fills
// The kernels of one operand are those of the ops of one number, and two with a scalar argument.
#define TTT__MAP_LIST(X) TTT_UNARY_OPS(X) X(scale, , , , ) X(add_scalar, , , , )
// Numbers of the kernels of one and of two operands, which index the table.
enum {
#define X(name, formula, lo, hi, flops) TTT__MAP_##name,
    TTT__MAP_LIST(X)
#undef X
    TTT__N_MAPS
};
enum {
#define X(name, formula, lo, hi, flops) TTT__ZIP_##name,
    TTT_BINARY_OPS(X)
#undef X
    TTT__N_ZIPS
};

#define TTT__TILE_ROWS 6  // of the widest tile
#define TTT__MAX_ROWS 16  // of the narrowest
#define TTT__EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)

// One number to one number, and two to one: a kernel for each op.
typedef void ttt__map_fn(int64_t n, const ttt_real *a, ttt_real *y, ttt_real scalar);
typedef void ttt__zip_fn(int64_t n, const ttt_real *a, int a_step, const ttt_real *b, int b_step,
                         ttt_real *y);

// A product of matrices, c = map(init + a b) + add with c (m,n), a (m,k), b (k,n): see [13]. a and
// b have a stride for each index, so a transposed one just has its strides exchanged.
typedef struct ttt__finish {
    ttt__map_fn *map;     // NULL: none
    const ttt_real *add;  // NULL: none
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
    ttt__finish finish;    // done to a tile as soon as its sums are complete
} ttt__gemm;
// A tile of one: c = init + a b for as many rows and columns as the kernel's name says.
typedef void ttt__tile_fn(const ttt__gemm *gemm);

// A run of tokens that see the same taps of a depthwise convolution, all of them inside the border.
// Tap (s,t) of token j reads the channels at x + s x_row + (j + t) step.
typedef struct ttt__taps {
    int64_t tokens, channels, rows, cols;  // rows and columns of taps
    int64_t step;                          // from one token to the next
    const ttt_real *x;
    int64_t x_row;
    int64_t tap, tap_row, tap_col;         // of the kernel: its first tap, and to the next ones
} ttt__taps;

// The other kernels: X(result, name, parameters). Their text in [8] says what they do. To add one,
// write its row and that text.
#define TTT__KERNEL_LIST(X)                                                                        \
    X(double, sum, (int64_t n, const ttt_real *a))                                                 \
    X(double, dot, (int64_t n, const ttt_real *a, const ttt_real *b))                              \
    X(void, sum_rows,                                                                              \
      (int64_t rows, int64_t n, int64_t stride, const ttt_real *a, ttt_real *y))                   \
    X(void, softmax, (int64_t n, const ttt_real *a, ttt_real *y))                                  \
    X(void, pick,                                                                                  \
      (int64_t n, const ttt_real *c, const ttt_real *a, int a_step, const ttt_real *b, int b_step, \
       ttt_real *y))                                                                               \
    X(void, softmax_seen,                                                                          \
      (int64_t n, const ttt_real *a, const ttt_real *seen, ttt_real *y))                           \
    X(void, log_softmax, (int64_t n, const ttt_real *a, ttt_real *y))                              \
    X(ttt__moments, moments, (int64_t n, const ttt_real *a, double eps, bool centered))            \
    X(void, normalize, (int64_t n, const ttt_real *a, ttt_real *y, double eps, bool centered))     \
    X(void, normalize_d1,                                                                          \
      (int64_t n, const ttt_real *a, const ttt_real *g, ttt_real *y, double eps, bool centered))   \
    X(void, rotate,                                                                                \
      (int64_t rows, int64_t n, const ttt_real *a, const ttt_real *turn, ttt_real *y))             \
    X(bool, finite, (int64_t n, const ttt_real *a))                                                \
    X(void, transpose,                                                                             \
      (int64_t m, int64_t n, const ttt_real *a, int64_t a_row, ttt_real *y, int64_t y_row))        \
    X(void, transpose16,                                                                           \
      (int64_t m, int64_t n, const uint16_t *a, int64_t a_row, ttt_real *y, int64_t y_row))        \
    X(void, substitute,                                                                            \
      (int64_t n, int64_t d, const ttt_real *a, int64_t a_row, int64_t a_col, ttt_real *y,         \
       int64_t y_row))                                                                             \
    X(double, multiply_adds, (int64_t n))                                                          \
    X(void, widen,                                                                                 \
      (int64_t m, int64_t n, const uint16_t *a, int64_t a_row, ttt_real *y, int64_t y_row))        \
    X(void, convolve, (const ttt__taps *taps, const ttt_real *kernel, ttt_real *y))                \
    X(void, correlate, (const ttt__taps *taps, const ttt_real *g, ttt_real *kernel))

// One instruction set's kernels.
typedef struct ttt__kernels {
    const char *name;
    int set;               // TTT__SET_<name>: other tables of this set have the same place
    int lanes, tile_cols;  // of a vector; of the widest tile, in vectors
    ttt__map_fn *map[TTT__N_MAPS];
    ttt__zip_fn *zip[TTT__N_ZIPS];
#define X(result, name, parameters) result(*name) parameters;
    TTT__KERNEL_LIST(X)
#undef X
    ttt__tile_fn *tile[4][TTT__MAX_ROWS];  // [vectors - 1][rows - 1]
    int tile_rows[4];                      // [vectors - 1]: rows of the tallest tile of that width
    // Widest tiles that ask for b in advance: [2 if b is (n,k), and 1 if bfloat16; 4: packed]
    ttt__tile_fn *ahead[5][TTT__TILE_ROWS];
} ttt__kernels;

// -- the instruction sets that this compiler can make, worst first: X(name, if this machine has it)
// To add one, write its row here, its words below, and its three lines at the end of [8], since no
// macro can include a file. All else goes over the rows.
#if defined(__GNUC__) && !defined(TTT_NO_SIMD) && !TTT__DOUBLE
#if defined(__x86_64__) || defined(__i386__)
#define TTT__X86
#define TTT__VECTOR_SETS(X)                                                                        \
    X(sse2, __builtin_cpu_supports("sse2"))                                                        \
    X(avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))                       \
    X(avx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&           \
              __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
#elif defined(__aarch64__) || defined(__ARM_NEON)
#define TTT__NEON
#define TTT__VECTOR_SETS(X) X(neon, true)
#elif defined(__wasm_simd128__)
#define TTT__WASM
#define TTT__VECTOR_SETS(X) X(simd128, true)
#endif
#endif
#ifndef TTT__VECTOR_SETS
#define TTT__VECTOR_SETS(X)
#endif
#define TTT__SETS(X) X(scalar, true) TTT__VECTOR_SETS(X)

enum {
#define X(name, here) TTT__SET_##name,
    TTT__SETS(X)
#undef X
};

// The words of a set:
//   LANES      of a vector
//   COLS       of the widest tile, in vectors
//   TARGET     the attribute that lets the compiler use the set
//   SQRT       the instruction of a square root
//   LOW, HIGH  interleave the low or high halves of each part of four: steps of a transpose
//   EVEN, ODD  the even or odd parts of two vectors: steps of the sum of one
// A tile's sums, a row of b and a number of a have to fit the registers: 6 x 2, 2 and 1 of 16;
// 6 x 4, 4 and 1 of 32. Many sums are good for two reasons: each number that is loaded serves
// several of them; and a multiply-add takes four cycles, of which two can begin in each, so eight
// have to be in flight. So a narrower tile, at a matrix's right edge, is taller (TILE_WIDTHS in
// [8]).
#ifdef __GNUC__
typedef float ttt__four __attribute__((vector_size(16), aligned(2), may_alias));
#define TTT__FOUR(p) (*(const ttt__four *)(const void *)(p))
#endif
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define TTT__SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define TTT__JOINS  // two vectors into one that is longer
#define TTT__JOIN_8(p, q) TTT__SHUFFLE(TTT__FOUR(p), TTT__FOUR(q), 0, 1, 2, 3, 4, 5, 6, 7)
#else  // the older word for it
#define TTT__SHUFFLE(a, b, ...) __builtin_shuffle(a, b, __extension__(MASK){ __VA_ARGS__ })
#endif

#define TTT__LANES_scalar 1
#define TTT__COLS_scalar 4
#if defined(TTT__IEEE_TARGET)  // the pragma is lost where one function is compiled into another
#define TTT__TARGET_scalar TTT__IEEE_TARGET TTT__NO_FMA
#else
#define TTT__TARGET_scalar TTT__NO_FMA
#endif

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
#define TTT__TARGET_avx512                                                                         \
    __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))) TTT__FMA
#define TTT__LOW_avx512(a, b)                                                                      \
    TTT__SHUFFLE(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define TTT__HIGH_avx512(a, b)                                                                     \
    TTT__SHUFFLE(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define TTT__SQRT_avx512(y, a) __asm__("vsqrtps %1, %0" : "=v"(y) : "v"(a))
#define TTT__EVEN_avx512(a, b)                                                                     \
    TTT__SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
#define TTT__ODD_avx512(a, b)                                                                      \
    TTT__SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)

#define TTT__PART TTT__TENSOR_KERNELS
#include TTT__THIS_FILE("ttt_tensor.h")
#undef TTT__PART

// The i-th set that this machine can run, worst first; NULL past the end.
static const ttt__kernels *ttt__kernels_get(int i) {
    int n = 0;
#define X(name, here)                                                                              \
    if ((here) && n++ == i) return &ttt__table_##name;
    TTT__SETS(X)
#undef X
    return NULL;
}

const char *ttt_isa_name(int i) {
    const ttt__kernels *kernels = ttt__kernels_get(i);
    return kernels ? kernels->name : NULL;
}

// ---- [9] ARENAS, ERRORS -------------------------------------------------------------------------
// An arena is a chain of chunks and a place in it. Allocating moves the place forward, releasing
// moves it back; chunks stay, so the same work a second time takes no memory from outside. Those
// behind the place are given back only where a new one would make all of them together much more
// than twice the largest need so far.
typedef struct ttt__chunk {
    struct ttt__chunk *next;
    size_t size;
} ttt__chunk;

typedef struct ttt__arena {
    ttt__chunk *first, *current;
    size_t used;   // in the current chunk
    size_t bytes;  // in use, all chunks, and the tensors whose elements lie here
} ttt__arena;

#define TTT__ALIGN 64

// The structs of the tape's tensors lie apart from their elements, in places that are taken in
// turn, round and round. Where in its place a struct begins changes from turn to turn, so that a
// released tensor's address is long not that of another. So it can be noticed: no living tensor has
// its address. Places are never given back, so looking there is always allowed.
enum { TTT__PLACE_ROOM = 232, TTT__FIRST_PLACES = 1024 };
typedef struct ttt__place {
    uint64_t turn;
    char room[TTT__PLACE_ROOM];
} ttt__place;

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
    size_t most;         // the highest peak since the opening
    ttt_tensor **nodes;  // the tape: every living tensor, oldest first
    int64_t n_nodes, cap_nodes;
    ttt__chunk *places;  // of the tape's tensors
    ttt__chunk *place_chunk;  // the chunk whose turn it is, and the next place in it
    size_t next_place;
    int64_t n_places;
    bool recording;
    bool numbers_only;   // inside a first-order walk: tensors are scratch, and not on the tape
    ttt__block **free_blocks;  // lists of the innermost walk
    ttt_tensor **made;   // tensors made by the rule that runs now, if numbers_only
    int64_t n_made, cap_made;
    ttt_rng rng;
    int threads;
    ttt__pool *pool;
    ttt_real *pack[TTT_MAX_THREADS];  // workspace of matrix products, one for each thread
    ttt__profile profile;
    const char *file;  // that is being read or written: out of memory then names it
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

bool ttt_ok(const ttt_ctx *ctx) { return ctx && ctx->result == TTT_OK; }
ttt_result ttt_status(const ttt_ctx *ctx) { return ctx ? ctx->result : TTT_ERR_NO_MEMORY; }
const char *ttt_error(const ttt_ctx *ctx) {
    return ctx ? ctx->text : "there is no context: ttt_open gave NULL";
}
void ttt_clear(ttt_ctx *ctx) {
    ctx->result = TTT_OK;
    ctx->text[0] = 0;
}

ttt_tensor *ttt_fail(ttt_ctx *ctx, ttt_result result, const char *format, ...) {
    if (ctx->result == TTT_OK) {
        va_list args;
        int n = 0;
        if (!format) format = ttt_result_text(result);
        if (result == TTT_ERR_NO_MEMORY && ctx->file)
            n = snprintf(ctx->text, sizeof ctx->text, "%.200s: ", ctx->file);
        va_start(args, format);
        vsnprintf(ctx->text + n, sizeof ctx->text - (size_t)n, format, args);
        va_end(args);
        ctx->result = result;
        if (ctx->desc.on_error) ctx->desc.on_error(ctx->desc.user, result, ctx->text);
    }
    return &ctx->empty;
}

// True if an argument that must be there, an array, a struct, a text or a function, is not NULL.
static bool ttt__given(ttt_ctx *ctx, const char *who, const char *argument, bool given) {
    if (!ctx->result && !given)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%.200s: %.100s is NULL", who, argument);
    return !ctx->result;
}
#define TTT__GIVEN(who, argument) ttt__given(ctx, who, #argument, (argument) != NULL)

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

static void *ttt__elements(const ttt_tensor *tensor) {
#define X(name, type, member, text)                                                                \
    if (tensor->dtype == TTT_DTYPE_##name) return tensor->member;
    TTT_DTYPES(X)
#undef X
    return NULL;
}
static void ttt__set_elements(ttt_tensor *tensor, ttt_dtype dtype, void *elements) {
    tensor->data = NULL;
    tensor->index = NULL;
    tensor->u8 = NULL;
    tensor->bf16 = NULL;
    tensor->stored = NULL;
    tensor->dtype = dtype;
#define X(name, type, member, text)                                                                \
    if (dtype == TTT_DTYPE_##name) tensor->member = (type *)elements;
    TTT_DTYPES(X)
#undef X
}

static size_t ttt__round_up(size_t n) { return (n + TTT__ALIGN - 1) / TTT__ALIGN * TTT__ALIGN; }
static char *ttt__chunk_data(ttt__chunk *chunk) {
    return (char *)chunk + ttt__round_up(sizeof *chunk);
}

static size_t ttt__in_use(const ttt_ctx *ctx) {
    return ctx->keep.bytes + ctx->step.bytes + ctx->scratch.bytes;
}
static void ttt__count_peak(ttt_ctx *ctx) {
    ctx->peak = TTT__MAX(ctx->peak, ttt__in_use(ctx));
    ctx->most = TTT__MAX(ctx->most, ctx->peak);
}

static size_t ttt__chunk_whole(size_t size) {
    return size + ttt__round_up(sizeof(ttt__chunk)) + TTT__ALIGN;
}

// A new chunk for `size` bytes, or NULL. It begins at an aligned address; the byte before it says
// how far behind the address to free.
static ttt__chunk *ttt__chunk_new(ttt_ctx *ctx, size_t size) {
    size_t whole = ttt__chunk_whole(size);
    bool possible = size <= (size_t)PTRDIFF_MAX / 2;
    char *memory = possible ? (char *)TTT_MALLOC(ctx->desc.user, whole) : NULL;
    if (!memory) {
        ttt_fail(ctx, TTT_ERR_NO_MEMORY, "out of memory: %.1f MB asked for, %.1f MB held",
                 (double)whole / 1e6, (double)ctx->held / 1e6);
        return NULL;
    }
    ctx->held += whole;
    char *aligned = memory + (TTT__ALIGN - (uintptr_t)memory % TTT__ALIGN);
    aligned[-1] = (char)(aligned - memory);
    ttt__chunk *chunk = (ttt__chunk *)(void *)aligned;
    chunk->size = size;
    return chunk;
}

// Gives back a chunk and all that follow it.
static void ttt__chunks_free(ttt_ctx *ctx, ttt__chunk **first) {
    for (ttt__chunk *chunk = *first, *next; chunk; chunk = next) {
        next = chunk->next;
        ctx->held -= ttt__chunk_whole(chunk->size);
        TTT_FREE(ctx->desc.user, (char *)chunk - ((char *)chunk)[-1]);
    }
    *first = NULL;
}
static size_t ttt__chunks_size(const ttt__chunk *chunk) {
    size_t size = 0;
    for (; chunk; chunk = chunk->next) size += ttt__chunk_whole(chunk->size);
    return size;
}

// Where the chunks that an arena has in reserve begin.
static ttt__chunk **ttt__spare(ttt__arena *arena) {
    return arena->current ? &arena->current->next : &arena->first;
}

// The size of a new chunk for n bytes: all that the arena has in use, so that there are few chunks;
// but 8 MB at most, since a small thing behind a large file should not take as much again, and no
// more than keeps all chunks within twice the largest need and a megabyte, for which those in
// reserve are given back if they must. (With the megabyte, a small context does not give back in
// each step what the next one takes again. What is left over at the end of a chunk is less than the
// first thing in the next one, so n alone is always within it.)
static size_t ttt__chunk_size(ttt_ctx *ctx, const ttt__arena *arena, size_t n) {
    ttt__arena *all[3] = { &ctx->keep, &ctx->step, &ctx->scratch };
    size_t least = (size_t)1 << 16, slack = (size_t)1 << 20;
    size_t limit = 2 * TTT__MAX(ctx->most, ttt__in_use(ctx) + n) + slack;
    size_t usual = TTT__MAX(least, TTT__MIN(arena->bytes, (size_t)1 << 23));
    size_t size = TTT__MAX(n, usual), held = 0;
    for (int trim = 0; trim < 2; trim++) {
        held = ttt__chunks_size(ctx->places);
        for (int i = 0; i < 3; i++) {
            if (trim) ttt__chunks_free(ctx, ttt__spare(all[i]));
            held += ttt__chunks_size(all[i]->first);
        }
        if (held + ttt__chunk_whole(size) <= limit) return size;
    }
    size_t left = limit > held ? limit - held : 0;
    return TTT__MAX(n, TTT__MIN(size, TTT__MAX(least, left)));
}

// Goes on to a chunk of at least n bytes: the next in the chain if it is large enough, else a new
// one.
static bool ttt__arena_grow(ttt_ctx *ctx, ttt__arena *arena, size_t n) {
    ttt__chunk **next = ttt__spare(arena);
    if (!*next || (*next)->size < n) {
        ttt__chunk *chunk = ttt__chunk_new(ctx, ttt__chunk_size(ctx, arena, n));
        if (!chunk) return false;
        chunk->next = *next;
        *next = chunk;
    }
    arena->current = *next;
    arena->used = 0;
    return true;
}

static void *ttt__arena_alloc(ttt_ctx *ctx, ttt__arena *arena, uint64_t bytes) {
    if (bytes > (uint64_t)PTRDIFF_MAX / 2) {
        ttt_fail(ctx, TTT_ERR_NO_MEMORY, "out of memory: %.1f MB asked for", (double)bytes / 1e6);
        return NULL;
    }
    size_t n = ttt__round_up(bytes ? (size_t)bytes : 1);
    bool fits = arena->current && arena->used + n <= arena->current->size;
    if (!fits && !ttt__arena_grow(ctx, arena, n)) return NULL;
    void *p = ttt__chunk_data(arena->current) + arena->used;
    arena->used += n;
    arena->bytes += n;
    ttt__count_peak(ctx);
    return p;
}

// -- places of structs
// More places, half as many again, whose turn it is next.
static bool ttt__places_grow(ttt_ctx *ctx) {
    int64_t n = TTT__MAX(ctx->n_places / 2, (int64_t)TTT__FIRST_PLACES);
    ttt__chunk *chunk = ttt__chunk_new(ctx, (size_t)n * sizeof(ttt__place));
    if (!chunk) return false;
    memset(ttt__chunk_data(chunk), 0, chunk->size);
    chunk->next = ctx->places;
    ctx->places = ctx->place_chunk = chunk;
    ctx->next_place = 0;
    ctx->n_places += n;
    return true;
}

// Where the place's struct is in this turn.
static ttt_tensor *ttt__place_struct(ttt__place *place) {
    const size_t turns = (TTT__PLACE_ROOM - sizeof(ttt_tensor)) / sizeof place->turn + 1;
    return (ttt_tensor *)(void *)(place->room + place->turn % turns * sizeof place->turn);
}

// Whether memory that was a tensor's struct at some time, or is zero, is that of a living one.
static bool ttt__has_node(const ttt_ctx *ctx, const ttt_tensor *tensor) {
    return tensor->id >= 0 && tensor->id < ctx->n_nodes && ctx->nodes[tensor->id] == tensor;
}

// The next place whose struct is not alive: there are more than those of the tape.
static ttt__place *ttt__place_next(ttt_ctx *ctx) {
    for (;;) {
        ttt__chunk *chunk = ctx->place_chunk;
        if (ctx->next_place == chunk->size / sizeof(ttt__place)) {
            ctx->place_chunk = chunk->next ? chunk->next : ctx->places;
            ctx->next_place = 0;
            continue;
        }
        ttt__place *place = (ttt__place *)(void *)ttt__chunk_data(chunk) + ctx->next_place++;
        if (!ttt__has_node(ctx, ttt__place_struct(place))) return place;
    }
}

// Whether p points to where a struct of this context may begin.
static bool ttt__in_places(const ttt_ctx *ctx, const void *p) {
    ttt__chunk *chunk = ctx->place_chunk;  // where the newest are
    do {
        uintptr_t at = (uintptr_t)p - (uintptr_t)ttt__chunk_data(chunk);
        if (at < chunk->size) return at % sizeof(uint64_t) == 0;
        chunk = chunk->next ? chunk->next : ctx->places;
    } while (chunk != ctx->place_chunk);
    return false;
}

static ttt_mark ttt__arena_mark(const ttt__arena *arena) {
    ttt_mark mark = { arena->current, arena->used, arena->bytes, 0 };
    return mark;
}

static void ttt__arena_release(ttt__arena *arena, ttt_mark mark) {
#if defined(TTT_POISON)
    ttt__chunk *chunk = mark.chunk ? (ttt__chunk *)mark.chunk : arena->first;
    for (; chunk; chunk = chunk->next) {
        size_t from = chunk == mark.chunk ? mark.used : 0;
        size_t to = chunk == arena->current ? arena->used : chunk->size;
        memset(ttt__chunk_data(chunk) + from, 0xff, to - from);  // 0xffffffff is a NaN
        if (chunk == arena->current) break;
    }
#endif
    arena->current = (ttt__chunk *)mark.chunk;
    arena->used = mark.used;
    arena->bytes = mark.bytes;
}

// True if p lies in a part of the arena that was released and is not in use again.
TTT__UNUSED static bool ttt__arena_released(const ttt__arena *arena, const void *p) {
    bool behind = !arena->current;  // past the current chunk
    for (ttt__chunk *chunk = arena->first; chunk; chunk = chunk->next) {
        size_t at = (size_t)((uintptr_t)p - (uintptr_t)ttt__chunk_data(chunk));
        if (at < chunk->size) return behind || (chunk == arena->current && at >= arena->used);
        behind = behind || chunk == arena->current;
    }
    return false;
}

void *ttt_alloc(ttt_ctx *ctx, uint64_t n, bool keep) {
    return ctx->result ? NULL : ttt__arena_alloc(ctx, keep ? &ctx->keep : &ctx->step, n);
}

ttt_memory_report ttt_memory(const ttt_ctx *ctx) {
    ttt_memory_report report = { ctx->keep.bytes, ctx->step.bytes, ctx->scratch.bytes,
                                 ctx->held,       ctx->peak,       ctx->n_nodes };
    return report;
}

void ttt_memory_reset(ttt_ctx *ctx) {
    ctx->peak = 0;
    ttt__count_peak(ctx);
}

ttt_mark ttt_mark_get(ttt_ctx *ctx) {
    ttt_mark mark = ttt__arena_mark(&ctx->step);
    mark.nodes = ctx->n_nodes;
    return mark;
}

// Parameters made since the mark stay on the tape and move down to the places that became free.
void ttt_mark_release(ttt_ctx *ctx, ttt_mark mark) {
    int64_t n = mark.nodes;
    for (int64_t i = mark.nodes; i < ctx->n_nodes; i++) {
        ttt_tensor *tensor = ctx->nodes[i];
        if (tensor->kept) {
            ctx->nodes[n] = tensor;
            tensor->id = n++;
            continue;
        }
        tensor->self = NULL;
#if defined(TTT_POISON)
        memset(tensor, 0xff, sizeof *tensor);
#endif
    }
    ctx->n_nodes = n;
    ttt__arena_release(&ctx->step, mark);
}

// Grows an array of pointers by doubling.
static bool ttt__reserve(ttt_ctx *ctx, ttt_tensor ***array, int64_t *cap, int64_t n) {
    if (n <= *cap) return true;
    int64_t bigger = TTT__MAX(256, 2 * n);
    size_t one = sizeof **array;
    ttt_tensor **moved = (ttt_tensor **)TTT_REALLOC(ctx->desc.user, *array, (size_t)bigger * one);
    if (!moved) {
        ttt_fail(ctx, TTT_ERR_NO_MEMORY, "out of memory: a tape of %lld tensors",
                 (long long)bigger);
        return false;
    }
    ctx->held += (size_t)(bigger - *cap) * one;
    *array = moved;
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
    ttt_rng rng = { seed, 0, { a, b, c } };
    return rng;
}

// Block k = next / 4 of the stream has the numbers 4k .. 4k + 3. The counter is k plus the words of
// the stream's name.
static void ttt__rng_block(const ttt_rng *rng, uint32_t block[4]) {
    uint32_t key[2] = { (uint32_t)rng->seed, (uint32_t)(rng->seed >> 32) };
    uint64_t k = rng->next / 4;
    block[0] = (uint32_t)k;
    block[1] = (uint32_t)(k >> 32) + rng->stream[0];
    block[2] = rng->stream[1];
    block[3] = rng->stream[2];
    ttt__philox(key, block);
}

uint32_t ttt_rng_u32(ttt_rng *rng) {
    uint32_t block[4];
    if (!rng) return 0;
    ttt__rng_block(rng, block);
    return block[rng->next++ % 4];
}

double ttt_rng_uniform(ttt_rng *rng) { return ttt_rng_u32(rng) * (1.0 / 4294967296.0); }

double ttt_rng_normal(ttt_rng *rng) {
    double u = 1 - ttt_rng_uniform(rng), v = ttt_rng_uniform(rng);  // u in (0,1]
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

int64_t ttt_rng_below(ttt_rng *rng, int64_t n) {
    uint64_t high = ttt_rng_u32(rng), low = ttt_rng_u32(rng);
    return n > 0 ? (int64_t)((high << 32 | low) % (uint64_t)n) : 0;  // bias below n / 2^64
}

ttt_rng ttt_rng_fold(ttt_rng rng, uint64_t data) {
    uint32_t key[2] = { (uint32_t)rng.seed, (uint32_t)(rng.seed >> 32) };
    const uint32_t fold = 0x666f6c64u;  // "fold", so that no stream of numbers has this counter
    uint32_t ctr[4] = { (uint32_t)data, (uint32_t)(data >> 32), fold, 0 };
    ttt__philox(key, ctr);
    return ttt_rng_at((uint64_t)ctr[1] << 32 | ctr[0], 0, 0, 0);
}

ttt_rng *ttt_ctx_rng(ttt_ctx *ctx) { return &ctx->rng; }

// ---- [10] THREADS, PROFILES ---------------------------------------------------------------------
// Work is a range 0..n of independent outputs, cut into one share for each thread. No sum ever
// crosses a share, so the number of threads cannot change a bit of the result.
typedef void ttt__share_fn(void *arg, int64_t begin, int64_t end, int thread);

typedef struct ttt__job {
    ttt__share_fn *run;
    void *arg;
    int64_t n;
    int shares;
} ttt__job;

// Linking with -ffast-math makes a program flush subnormal numbers to zero. That is a state of each
// thread: this one and those that run shares go back to IEEE 754.
static void ttt__keep_subnormals(void) {
#if defined(__GNUC__) && defined(__SSE__)
    unsigned state;
    __asm__ __volatile__("stmxcsr %0" : "=m"(state));
    state &= ~0x8040u;  // FTZ and DAZ
    __asm__ __volatile__("ldmxcsr %0" : : "m"(state));
#elif defined(__GNUC__) && defined(__aarch64__)
    uint64_t state;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(state));
    state &= ~((uint64_t)1 << 24);  // FZ
    __asm__ __volatile__("msr fpcr, %0" : : "r"(state));
#endif
}

static void ttt__job_share(void *arg, int i) {
    ttt__keep_subnormals();
    const ttt__job *job = (const ttt__job *)arg;
    job->run(job->arg, job->n * i / job->shares, job->n * (i + 1) / job->shares, i);
}

#ifdef TTT_NO_THREADS
static int ttt__cores(void) { return 1; }
static ttt__pool *ttt__pool_open(ttt_ctx *ctx) { (void)ctx; return NULL; }
static void ttt__pool_close(ttt_ctx *ctx) { (void)ctx; }
static void ttt__pool_run(ttt__pool *pool, ttt__job *job) { (void)pool; (void)job; }
#else

#ifdef _WIN32
typedef CRITICAL_SECTION ttt__mutex;
typedef CONDITION_VARIABLE ttt__condition;
typedef HANDLE ttt__thread;
#define TTT__THREAD_FN(name, arg) static DWORD WINAPI name(LPVOID arg)
static void ttt__mutex_init(ttt__mutex *mutex) { InitializeCriticalSection(mutex); }
static void ttt__mutex_free(ttt__mutex *mutex) { DeleteCriticalSection(mutex); }
static void ttt__lock(ttt__mutex *mutex) { EnterCriticalSection(mutex); }
static void ttt__unlock(ttt__mutex *mutex) { LeaveCriticalSection(mutex); }
static void ttt__condition_init(ttt__condition *condition) {
    InitializeConditionVariable(condition);
}
static void ttt__condition_free(ttt__condition *condition) { (void)condition; }
static void ttt__wait(ttt__condition *condition, ttt__mutex *mutex) {
    SleepConditionVariableCS(condition, mutex, INFINITE);
}
static void ttt__wake_all(ttt__condition *condition) { WakeAllConditionVariable(condition); }
static bool ttt__thread_start(ttt__thread *thread, LPTHREAD_START_ROUTINE run, void *arg) {
    *thread = CreateThread(NULL, 0, run, arg, 0, NULL);
    return *thread != NULL;
}
static void ttt__thread_join(ttt__thread thread) {
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}
static int ttt__cores(void) {
    DWORD_PTR mine, all;
    SYSTEM_INFO info;
    int n = 0;
    GetSystemInfo(&info);
    if (!GetProcessAffinityMask(GetCurrentProcess(), &mine, &all)) mine = 0;
    for (; mine; mine &= mine - 1) n++;
    return n > 0 ? n : (int)info.dwNumberOfProcessors;  // no mask: more than 64, in groups
}
#else
typedef pthread_mutex_t ttt__mutex;
typedef pthread_cond_t ttt__condition;
typedef pthread_t ttt__thread;
#define TTT__THREAD_FN(name, arg) static void *name(void *arg)
static void ttt__mutex_init(ttt__mutex *mutex) { pthread_mutex_init(mutex, NULL); }
static void ttt__mutex_free(ttt__mutex *mutex) { pthread_mutex_destroy(mutex); }
static void ttt__lock(ttt__mutex *mutex) { pthread_mutex_lock(mutex); }
static void ttt__unlock(ttt__mutex *mutex) { pthread_mutex_unlock(mutex); }
static void ttt__condition_init(ttt__condition *condition) { pthread_cond_init(condition, NULL); }
static void ttt__condition_free(ttt__condition *condition) { pthread_cond_destroy(condition); }
static void ttt__wait(ttt__condition *condition, ttt__mutex *mutex) {
    pthread_cond_wait(condition, mutex);
}
static void ttt__wake_all(ttt__condition *condition) { pthread_cond_broadcast(condition); }
static bool ttt__thread_start(ttt__thread *thread, void *(*run)(void *), void *arg) {
    return pthread_create(thread, NULL, run, arg) == 0;
}
static void ttt__thread_join(ttt__thread thread) { pthread_join(thread, NULL); }

#ifdef __linux__
// -- how many CPUs Linux lets this thread use at once. Its files say it: sched_getaffinity would
// need a feature-test macro before a program's first include, and knows no quotas.

// CPUs in the hexadecimal mask behind "Cpus_allowed:" in a status file; 0 if there is none.
static int ttt__cpus_allowed(const char *status) {
    char line[1024];
    bool in_mask = false;
    int n = 0;
    FILE *f = fopen(status, "rb");
    while (f && fgets(line, sizeof line, f)) {  // the mask of a large machine comes in pieces
        const char *at = line;
        if (!in_mask && strncmp(line, "Cpus_allowed:", 13) == 0) in_mask = true, at += 13;
        for (; in_mask && *at; at++) {
            int digit = *at >= '0' && *at <= '9' ? *at - '0' : *at >= 'a' ? *at - 'a' + 10 : 0;
            for (; digit; digit &= digit - 1) n++;
        }
        if (in_mask && strchr(line, '\n')) break;
    }
    if (f) fclose(f);
    return n;
}

// The whole numbers that begin a file, two at most; returns how many there are.
static int ttt__file_numbers(const char *folder, const char *name, long long *a, long long *b) {
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    int n = f ? fscanf(f, "%lld %lld", a, b) : 0;
    if (f) fclose(f);
    return n;
}

// The CPUs that the quota of a control group comes to, rounded up, TTT_MAX_THREADS at most. Those
// of the groups above it count too: root/a/b, root/a, root. A quota is microseconds of CPU time in
// each period. Version 2 has both numbers in one file ("max" if there is no quota), version 1 in
// two (-1).
static int ttt__cpu_quota(const char *root, const char *group) {
    char folder[1024];
    long long quota = 0, period = 0, least = TTT_MAX_THREADS;
    snprintf(folder, sizeof folder, "%.500s%.500s", root, group);
    for (size_t end = strlen(folder); end >= strlen(root); end--) {
        if (folder[end] && folder[end] != '/') continue;
        folder[end] = 0;
        if (ttt__file_numbers(folder, "cpu.max", &quota, &period) != 2 &&
            (ttt__file_numbers(folder, "cpu.cfs_quota_us", &quota, &quota) != 1 ||
             ttt__file_numbers(folder, "cpu.cfs_period_us", &period, &period) != 1))
            continue;
        if (quota > 0 && period > 0) least = TTT__MIN(least, (quota - 1) / period + 1);
    }
    return (int)least;
}

// The same for all groups of a process. `groups` is a file with a line for each,
// "number:controllers:group"; `root` has a folder for each list of controllers, and the groups of
// version 2, whose list is empty.
static int ttt__cpu_quotas(const char *groups, const char *root) {
    char line[1024], folder[1024];
    int least = TTT_MAX_THREADS;
    FILE *f = fopen(groups, "rb");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        snprintf(folder, sizeof folder, "%.200s/%.200s", root, controllers + 1);
        least = TTT__MIN(least, ttt__cpu_quota(folder, group));
    }
    if (f) fclose(f);
    return least;
}
#endif

static int ttt__cores(void) {
    int n = 0;
#ifdef __linux__
    n = ttt__cpus_allowed("/proc/thread-self/status");
#endif
#ifdef _SC_NPROCESSORS_ONLN
    if (n == 0) n = (int)sysconf(_SC_NPROCESSORS_ONLN);
#endif
#ifdef __linux__
    n = TTT__MIN(n, ttt__cpu_quotas("/proc/self/cgroup", "/sys/fs/cgroup"));
#endif
    return TTT__MAX(n, 1);
}
#endif

// Worker i waits for a job number that it has not seen, runs share i, and says so. A wait begins
// with a few thousand looks at the mutex, since the next job of a training step comes within
// microseconds, while waking a sleeping thread takes tens of them. With more threads than CPUs, who
// looks keeps others from working: then nobody does.
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
    int looks;        // before a wait
    bool quit;
    ttt__worker worker[TTT_MAX_THREADS];
};

TTT__THREAD_FN(ttt__worker_run, arg) {
    ttt__worker *worker = (ttt__worker *)arg;
    ttt__pool *pool = worker->pool;
    uint64_t seen = 0;
    ttt__lock(&pool->mutex);
    for (;;) {
        for (int look = 0; pool->number == seen && !pool->quit && look < pool->looks; look++) {
            ttt__unlock(&pool->mutex);
            ttt__lock(&pool->mutex);
        }
        while (pool->number == seen && !pool->quit) ttt__wait(&pool->start, &pool->mutex);
        if (pool->quit) break;
        seen = pool->number;
        ttt__job job = pool->job;
        if (worker->index >= job.shares) continue;
        ttt__unlock(&pool->mutex);
        ttt__job_share(&job, worker->index);
        ttt__lock(&pool->mutex);
        if (--pool->pending == 0) ttt__wake_all(&pool->done);
    }
    ttt__unlock(&pool->mutex);
    return 0;
}

static void ttt__pool_run(ttt__pool *pool, ttt__job *job) {
    ttt__lock(&pool->mutex);
    pool->job = *job;
    pool->number++;
    pool->pending = job->shares - 1;
    ttt__wake_all(&pool->start);
    ttt__unlock(&pool->mutex);
    ttt__job_share(job, 0);
    ttt__lock(&pool->mutex);
    for (int look = 0; pool->pending > 0 && look < pool->looks; look++) {
        ttt__unlock(&pool->mutex);
        ttt__lock(&pool->mutex);
    }
    while (pool->pending > 0) ttt__wait(&pool->done, &pool->mutex);
    ttt__unlock(&pool->mutex);
}

static void ttt__pool_close(ttt_ctx *ctx) {
    ttt__pool *pool = ctx->pool;
    if (!pool) return;
    ttt__lock(&pool->mutex);
    pool->quit = true;
    ttt__wake_all(&pool->start);
    ttt__unlock(&pool->mutex);
    for (int i = 0; i < pool->workers; i++) ttt__thread_join(pool->worker[i].thread);
    ttt__condition_free(&pool->start);
    ttt__condition_free(&pool->done);
    ttt__mutex_free(&pool->mutex);
    TTT_FREE(ctx->desc.user, pool);
}

// The caller is thread 0. The pool has as many others as can be started.
static ttt__pool *ttt__pool_open(ttt_ctx *ctx) {
    ttt__pool *pool = (ttt__pool *)TTT_MALLOC(ctx->desc.user, sizeof *pool);
    if (!pool) return NULL;
    memset(pool, 0, sizeof *pool);
    ttt__mutex_init(&pool->mutex);
    ttt__condition_init(&pool->start);
    ttt__condition_init(&pool->done);
    pool->looks = ctx->threads <= ttt__cores() ? TTT__LOOKS : 0;
    for (int i = 0; i < ctx->threads - 1; i++) {
        ttt__worker *worker = &pool->worker[i];
        worker->pool = pool;
        worker->index = i + 1;
        if (!ttt__thread_start(&worker->thread, ttt__worker_run, worker)) break;
        pool->workers++;
    }
    ctx->threads = pool->workers + 1;
    return pool;
}
#endif  // TTT_NO_THREADS

// Calls run(arg, begin, end, thread) over 0..n, with at least `grain` outputs a share. A share
// should take some microseconds, or handing it out costs more than it saves: about 16000 numbers
// that are read and written, 4000 with sums along rows, 100000 multiply-adds of a product. `thread`
// is -1, or the caller's number if it is inside a share already: the range then runs right here.
static void ttt__parallel(ttt_ctx *ctx, int thread, int64_t n, int64_t grain, ttt__share_fn *run,
                          void *arg) {
    ttt__job job = { run, arg, n, (int)TTT__MIN((int64_t)ctx->threads, n / TTT__MAX(grain, 1)) };
    if (thread >= 0 || job.shares <= 1) {
        if (n > 0) run(arg, 0, n, TTT__MAX(thread, 0));
    } else if (ctx->desc.parallel_for) {
        ctx->desc.parallel_for(ctx->desc.user, job.shares, ttt__job_share, &job);
    } else {
        ttt__pool_run(ctx->pool, &job);
    }
}

// -- profiles. What is to be counted goes between begin and end:
//        int back = ttt__profile_begin(ctx, "name", false);
//        ...
//        if (back >= 0) ttt__profile_count(ttt__profile_end(c, back), flops, bytes);
// When profiling is off, that is one branch on each side. The time of finding the row and of
// counting is charged to the caller.
static bool ttt__profile_grow(ttt_ctx *ctx, ttt__profile *profile) {
    int cap = TTT__MAX(64, 2 * profile->cap);
    size_t bytes = (size_t)cap * sizeof *profile->rows;
    ttt_profile_row *rows = (ttt_profile_row *)TTT_REALLOC(ctx->desc.user, profile->rows, bytes);
    if (!rows) {
        ttt_fail(ctx, TTT_ERR_NO_MEMORY, "out of memory: a profile of %d rows", cap);
        return false;
    }
    ctx->held += (size_t)(cap - profile->cap) * sizeof *rows;
    profile->rows = rows;
    profile->cap = cap;
    return true;
}

// The row of a name in the current phase; -1 if there is no memory for a new one.
static int ttt__profile_row_of(ttt_ctx *ctx, const char *name, bool rule) {
    ttt__profile *profile = &ctx->profile;
    for (int i = 0; i < profile->n; i++) {
        const ttt_profile_row *row = &profile->rows[i];
        if (row->name == name && row->phase == profile->phase && row->rule == rule) return i;
    }
    if (profile->n == profile->cap && !ttt__profile_grow(ctx, profile)) return -1;
    ttt_profile_row fresh = { name, profile->phase, rule, 0, 0, 0, 0 };
    profile->rows[profile->n] = fresh;
    return profile->n++;
}

// Makes the row of a name, so that begin with the same address cannot fail.
TTT__UNUSED static bool ttt__profile_ready(ttt_ctx *ctx, const char *name) {
    return !ctx->profile.on || ttt__profile_row_of(ctx, name, false) >= 0;
}

// Ends the current row's turn, and begins that of `row`.
static void ttt__profile_turn(ttt__profile *profile, int row) {
    double now = profile->on ? ttt_seconds() : profile->since;
    profile->rows[profile->current].seconds += TTT__MAX(now - profile->since, 0);
    profile->since = now;
    profile->current = row;
}

// The row to go back to, or -1 if nothing is counted. `name` must live as long as the context: rows
// are told apart by its address.
static TTT__INLINE int ttt__profile_begin(ttt_ctx *ctx, const char *name, bool rule) {
    if (!ctx->profile.on) return -1;
    int back = ctx->profile.current, row = ttt__profile_row_of(ctx, name, rule);
    if (row < 0) return -1;
    ttt__profile_turn(&ctx->profile, row);
    return back;
}

// Ends the turn that begin began; the row is the caller's to count FLOPs and bytes in.
static ttt_profile_row *ttt__profile_end(ttt_ctx *ctx, int back) {
    ttt_profile_row *row = &ctx->profile.rows[ctx->profile.current];
    ttt__profile_turn(&ctx->profile, back);
    row->calls++;
    return row;
}

static void ttt__profile_count(ttt_profile_row *row, double flops, double bytes) {
    row->flops += flops;
    row->bytes += bytes;
}

static double ttt__tensor_bytes(const ttt_tensor *tensor) {
    return (double)tensor->size * (double)ttt__element_bytes(tensor->dtype);
}

// The bytes that an op reads. One without FLOPs moves elements, and reads no more of an input than
// it writes.
static double ttt__input_bytes(const ttt_tensor *y, double flops) {
    double bytes = 0, most = flops > 0 ? HUGE_VAL : ttt__tensor_bytes(y);
    for (int j = 0; j < y->n_in; j++)
        if (j == 0 || y->in[j] != y->in[0]) bytes += TTT__MIN(ttt__tensor_bytes(y->in[j]), most);
    return bytes;
}

static void ttt__profile_end_forward(ttt_ctx *ctx, int back, const ttt_tensor *y) {
    ttt_profile_row *row = ttt__profile_end(ctx, back);
    double flops = y->op->flops ? (double)y->op->flops(y) : 0;
    double bytes = y->shares ? 0 : ttt__input_bytes(y, flops) + ttt__tensor_bytes(y);
    ttt__profile_count(row, flops, bytes);
}

// A rule made of ops counts its calls only. A fast one wrote to into[], or added to what was there;
// one without FLOPs only moves numbers, and adds to no more of them than y has.
static void ttt__profile_end_rule(ttt_ctx *ctx, int back, const ttt_tensor *y,
                                  ttt_tensor *const *into, const bool *add) {
    ttt_profile_row *row = ttt__profile_end(ctx, back);
    double flops = y->op->flops ? (double)y->op->flops(y) : 0, gradient = ttt__tensor_bytes(y);
    int wanted = 0;
    if (!into) return;
    for (int j = 0; j < y->n_in; j++) {
        if (!into[j]) continue;
        wanted++;
        double whole = ttt__tensor_bytes(into[j]);
        row->bytes += !add[j] ? whole : 2 * (flops > 0 ? whole : TTT__MIN(whole, gradient));
    }
    ttt__profile_count(row, flops * TTT__MIN(wanted, 2), ttt__input_bytes(y, flops) + gradient);
}

void ttt_profile_start(ttt_ctx *ctx) {
    ttt__profile *profile = &ctx->profile;
    if (ctx->result || profile->on) return;
    if (profile->n == 0 && ttt__profile_row_of(ctx, "outside ops", false) < 0) return;
    profile->current = 0;
    profile->since = ttt_seconds();
    profile->on = true;
}

void ttt_profile_stop(ttt_ctx *ctx) {
    if (ctx->profile.on) ttt__profile_turn(&ctx->profile, 0);
    ctx->profile.on = false;
}

void ttt_profile_clear(ttt_ctx *ctx) {
    ttt__profile *profile = &ctx->profile;
    for (int i = 0; i < profile->n; i++) {
        profile->rows[i].calls = 0;
        profile->rows[i].seconds = profile->rows[i].flops = profile->rows[i].bytes = 0;
    }
    if (profile->on) profile->since = ttt_seconds();
}

int ttt_profile_rows(const ttt_ctx *ctx, ttt_profile_row *rows, int most) {
    const ttt__profile *profile = &ctx->profile;
    int n = 0;
    if (!rows) most = 0;
    for (int i = 0; i < profile->n; i++) {
        ttt_profile_row row = profile->rows[i];
        if (profile->on && i == profile->current)
            row.seconds += TTT__MAX(ttt_seconds() - profile->since, 0);
        if (row.calls == 0 && row.seconds <= 0) continue;
        int at = TTT__MIN(n, most);
        n++;
        while (at > 0 && rows[at - 1].seconds < row.seconds) at--;
        if (at >= most) continue;
        memmove(&rows[at + 1], &rows[at], (size_t)(TTT__MIN(n, most) - 1 - at) * sizeof *rows);
        rows[at] = row;
    }
    return n;
}

const char *ttt_phase_name(ttt_phase phase) {
    if (phase == TTT_PHASE_FORWARD) return "forward";
    return phase == TTT_PHASE_RECORDED ? "recorded" : "backward";
}

double ttt_profile_share(const ttt_profile_row *row, const ttt_limits *peak, const char **bound) {
    bool known = row && peak && row->seconds > 0 && peak->flops > 0 && peak->bytes > 0 &&
                 (row->flops > 0 || row->bytes > 0);
    double compute = known ? row->flops / row->seconds / peak->flops : 0;
    double memory = known ? row->bytes / row->seconds / peak->bytes : 0;
    double share = TTT__MAX(compute, memory);
    const char *larger = compute > memory ? "compute" : "memory";
    if (bound) *bound = !known ? "" : share < 0.25 ? "neither" : larger;
    return share;
}

// The table while it is written: the text so far, and what a row's numbers are compared with.
typedef struct ttt__profile_table {
    char *text;
    size_t size, used;
    double seconds, runs;
    const ttt_limits *peak;  // may be NULL
} ttt__profile_table;

static void ttt__profile_line(ttt__profile_table *table, const ttt_profile_row *row,
                              const char *phase) {
    const char *bound = "";
    char name[40], speed[64] = "";
    double share = table->peak ? ttt_profile_share(row, table->peak, &bound) : 0;
    double seconds = row->seconds > 0 ? row->seconds : HUGE_VAL;
    snprintf(name, sizeof name, "%.30s%s", row->name, row->rule ? " rule" : "");
    if (row->flops > 0 || row->bytes > 0)
        snprintf(speed, sizeof speed, "%9.2f %8.2f", row->flops / seconds * 1e-9,
                 row->bytes / seconds * 1e-9);
    if (*bound)
        snprintf(speed + strlen(speed), sizeof speed - strlen(speed), " %8.1f %% %s", 100 * share,
                 bound);
    table->used += (size_t)snprintf(
        table->text + table->used, table->size - table->used,
        "%-20s %-8s %6.1f %% %9.3f %9.1f %s\n", name, phase,
        table->seconds > 0 ? 100 * row->seconds / table->seconds : 0,
        1e3 * row->seconds / table->runs, (double)row->calls / table->runs, speed);
}

static void ttt__profile_add(ttt_profile_row *sum, const ttt_profile_row *row) {
    sum->calls += row->calls;
    sum->seconds += row->seconds;
    sum->flops += row->flops;
    sum->bytes += row->bytes;
}

const char *ttt_profile_text(ttt_ctx *ctx, const ttt_limits *peak, int64_t runs, int most) {
    int n = ttt_profile_rows(ctx, NULL, 0), shown = TTT__MIN(n, TTT__MAX(most, 0));
    ttt_profile_row all = { "total", TTT_PHASE_FORWARD, false, 0, 0, 0, 0 }, rest = all;
    ttt__profile_table table = { NULL, 160 * ((size_t)shown + 4), 0, 0, 1, peak };
    ttt_profile_row *rows =
        (ttt_profile_row *)ttt_alloc(ctx, ((uint64_t)n + 1) * sizeof *rows, false);
    table.text = (char *)ttt_alloc(ctx, table.size, false);
    if (!rows || !table.text) return "";
    n = TTT__MIN(n, ttt_profile_rows(ctx, rows, n));
    rest.name = "the rest";
    for (int i = 0; i < n; i++) {
        ttt__profile_add(&all, &rows[i]);
        if (i >= shown) ttt__profile_add(&rest, &rows[i]);
    }
    table.seconds = all.seconds;
    if (runs > 0) table.runs = (double)runs;
    table.used = (size_t)snprintf(table.text, table.size,
                                  "%-20s %-8s %8s %9s %9s %9s %8s%s\n", "op", "phase", "time", "ms",
                                  "calls", "GFLOP/s", "GB/s", peak ? "    of peak bound by" : "");
    for (int i = 0; i < shown; i++)
        ttt__profile_line(&table, &rows[i], ttt_phase_name(rows[i].phase));
    if (n > shown) ttt__profile_line(&table, &rest, "");
    ttt__profile_line(&table, &all, "");
    return table.text;
}

// ---- [11] TENSORS, APPLY ------------------------------------------------------------------------
// bfloat16 of a real, to nearest even. A double is first cut to 32 bits, with the last one set if
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

// A binary16 number: 1 sign, 5 exponent, 10 fraction bits. A binary32 holds every one of them.
static float ttt__half(uint16_t half) {
    uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
    uint32_t bits = (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
    float f = (float)fraction * 5.9604644775390625e-8f;  // subnormal: units of 2^-24
    if (exponent == 0) memcpy(&bits, &f, sizeof bits);
    bits |= sign;
    memcpy(&f, &bits, sizeof f);
    return f;
}

ttt_shape ttt_shape_of(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f, int64_t g,
                       int64_t h, int64_t more) {
    ttt_shape shape = { 0, { a, b, c, d, e, f, g, h } };
    while (shape.rank < TTT_MAX_RANK && shape.dim[shape.rank] != INT64_MIN) shape.rank++;
    for (int i = shape.rank; i < TTT_MAX_RANK; i++) shape.dim[i] = 0;
    if (more != INT64_MIN) shape.rank = TTT_MAX_RANK + 1;
    return shape;
}

ttt_shape ttt_scalar_shape(void) {
    ttt_shape shape = { 0, { 0 } };
    return shape;
}

// The size of an axis counted from the end: -1 is the last.
static int64_t ttt__dim(ttt_shape shape, int axis) { return shape.dim[shape.rank + axis]; }

static bool ttt__rank_good(ttt_shape shape) {
    return shape.rank >= 0 && shape.rank <= TTT_MAX_RANK;
}

bool ttt_shape_equal(ttt_shape a, ttt_shape b) {
    if (!ttt__rank_good(a) || !ttt__rank_good(b)) return false;
    for (int i = 0; i < a.rank && a.rank == b.rank; i++)
        if (a.dim[i] != b.dim[i]) return false;
    return a.rank == b.rank;
}

int64_t ttt_shape_size(ttt_shape shape) {
    const int64_t limit = (int64_t)1 << 62;
    int64_t n = 1;
    bool empty = false, large = false;
    if (!ttt__rank_good(shape)) return -1;
    for (int i = 0; i < shape.rank; i++) {
        if (shape.dim[i] < 0) return -1;
        if (shape.dim[i] == 0) empty = true;
        else if (n > limit / shape.dim[i]) large = true;
        else n *= shape.dim[i];
    }
    return empty ? 0 : large ? -1 : n;
}

const char *ttt_shape_text(ttt_shape shape, char *text) {
    size_t n = 0, size = sizeof(ttt_text);
    if (!text) return "";
    if (!ttt__rank_good(shape)) {
        snprintf(text, size, "(rank %d)", shape.rank);
        return text;
    }
    n += (size_t)snprintf(text, size, "(");
    for (int i = 0; i < shape.rank && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%lld", i ? "," : "", (long long)shape.dim[i]);
    if (n < size) snprintf(text + n, size - n, ")");
    return text;
}

// The id of a tensor that a first-order walk made: never on the tape. Not -1, which poisoned memory
// reads as.
#define TTT__SCRATCH INT64_MIN

// Whether it is a tensor of this context and not released. Only a walk has tensors off the tape.
static bool ttt__alive(const ttt_ctx *ctx, const ttt_tensor *tensor) {
    if (ttt__in_places(ctx, tensor)) return ttt__has_node(ctx, tensor);
    return tensor && ctx->scratch.bytes > 0 && tensor->id == TTT__SCRATCH;
}

// The list of free blocks that is for `size` bytes, and the size of all blocks of this list: up to
// fifteen units of 64 bytes, or of as many as it takes, doubled. So a free block is found without a
// search, and is at most an eighth too large.
enum { TTT__BLOCK_LISTS = 440 };  // for sizes below 2^62
static int ttt__block_list(size_t *size) {
    int shift = 6;
    size_t last = *size ? *size - 1 : 0;
    while (last >> shift >= 15) shift++;
    size_t units = (last >> shift) + 1;
    *size = units << shift;
    return (int)units + 8 * (shift - 6);
}

// A scratch tensor's block and struct stand before its elements.
static size_t ttt__block_head(void) {
    return ttt__round_up(sizeof(ttt__block)) + ttt__round_up(sizeof(ttt_tensor));
}

// A block of workspace for `size` bytes of elements: a free one up to twice as large, else a new
// one.
static ttt__block *ttt__block_take(ttt_ctx *ctx, size_t size) {
    ttt__block *block = NULL;
    int list = ttt__block_list(&size), end = TTT__MIN(list + 9, (int)TTT__BLOCK_LISTS);
    for (int i = list; i < end && !block; i++) {
        block = ctx->free_blocks[i];
        if (block) ctx->free_blocks[i] = block->next;
    }
    if (!block) {
        block = (ttt__block *)ttt__arena_alloc(ctx, &ctx->scratch, ttt__block_head() + size);
        if (!block) return NULL;
        block->size = size;
    }
    block->next = NULL;
    block->uses = 1;
    return block;
}

static void ttt__block_drop(ttt_ctx *ctx, ttt_tensor *tensor) {
    ttt__block *block = (ttt__block *)tensor->block;
    if (!block || --block->uses > 0) return;
    ttt_tensor *shared = tensor->shares;
    size_t size = block->size;
    ttt__block **list = &ctx->free_blocks[ttt__block_list(&size)];
    block->next = *list;
    *list = block;
    if (shared) ttt__block_drop(ctx, shared);
}

// A tensor of a first-order walk, in workspace, with room for `bytes` of elements.
static ttt_tensor *ttt__scratch_tensor(ttt_ctx *ctx, size_t bytes, void **elements) {
    if (!ttt__reserve(ctx, &ctx->made, &ctx->cap_made, ctx->n_made + 1)) return NULL;
    ttt__block *block = ttt__block_take(ctx, bytes);
    if (!block) return NULL;
    char *p = (char *)block + ttt__round_up(sizeof *block);
    ttt_tensor *tensor = (ttt_tensor *)(void *)p;
    *elements = (char *)block + ttt__block_head();
    memset(tensor, 0, sizeof *tensor);
    tensor->ctx = ctx;
    tensor->self = tensor;
    tensor->block = block;
    tensor->id = TTT__SCRATCH;
    return ctx->made[ctx->n_made++] = tensor;
}

// A tensor at the end of the tape. Beside its elements it takes a place, which counts as well.
static ttt_tensor *ttt__tape_tensor(ttt_ctx *ctx, size_t bytes, bool keep, void **elements) {
    ttt__arena *arena = keep ? &ctx->keep : &ctx->step;
    bool crowded = 4 * (ctx->n_nodes + 1) > 3 * ctx->n_places;
    if (!ttt__reserve(ctx, &ctx->nodes, &ctx->cap_nodes, ctx->n_nodes + 1)) return NULL;
    if (crowded && !ttt__places_grow(ctx)) return NULL;
    *elements = ttt__arena_alloc(ctx, arena, bytes);
    if (!*elements) return NULL;
    ttt__place *place = ttt__place_next(ctx);
    place->turn++;
    ttt_tensor *tensor = ttt__place_struct(place);
    memset(tensor, 0, sizeof *tensor);
    tensor->ctx = ctx;
    tensor->self = tensor;
    tensor->kept = keep;
    tensor->id = ctx->n_nodes;
    arena->bytes += sizeof *place + sizeof *ctx->nodes;
    ttt__count_peak(ctx);
    return ctx->nodes[ctx->n_nodes++] = tensor;
}

// True if a tensor of this type may have this shape: its bytes can be counted.
static bool ttt__shape_good(ttt_ctx *ctx, const char *who, ttt_shape shape, ttt_dtype dtype) {
    const int64_t most = (int64_t)((size_t)PTRDIFF_MAX / 2 / ttt__element_bytes(dtype));
    int64_t size = ttt_shape_size(shape);
    ttt_text text;
    if (!ctx->result && (size < 0 || size > most))
        ttt_fail(ctx, TTT_ERR_SHAPE,
                 "%s: a tensor cannot have shape %s; rank 8 at most, no negative size and no more "
                 "than %lld elements expected",
                 who, ttt_shape_text(shape, text), (long long)most);
    return !ctx->result;
}

// A new tensor, with the elements of `share` unless that is NULL (a reshape). NULL after an error.
static ttt_tensor *ttt__tensor(ttt_ctx *ctx, ttt_shape shape, ttt_dtype dtype, bool keep,
                               ttt_tensor *share) {
    int64_t size = ttt_shape_size(shape);
    if (!ttt__shape_good(ctx, "new", shape, dtype)) return NULL;
    size_t bytes = share ? 0 : (size_t)size * ttt__element_bytes(dtype);
    void *elements;
    ttt_tensor *tensor = ctx->numbers_only ? ttt__scratch_tensor(ctx, bytes, &elements)
                                           : ttt__tape_tensor(ctx, bytes, keep, &elements);
    if (!tensor) return NULL;
    tensor->shape = shape;
    tensor->size = size;
    tensor->shares = share;
    if (tensor->block && share && share->block) ((ttt__block *)share->block)->uses++;
    ttt__set_elements(tensor, dtype, share ? ttt__elements(share) : elements);
    return tensor;
}

static ttt_tensor *ttt__or_empty(ttt_ctx *ctx, ttt_tensor *tensor) {
    return tensor ? tensor : &ctx->empty;
}

ttt_tensor *ttt_new_typed(ttt_ctx *ctx, ttt_shape shape, ttt_dtype dtype, bool keep) {
    if ((unsigned)dtype >= TTT__N_DTYPES)
        return ttt_fail(ctx, TTT_ERR_ARGUMENT,
                        "new_typed: there is no element type %d; a ttt_dtype, 0..%d, expected",
                        (int)dtype, TTT__N_DTYPES - 1);
    return ttt__or_empty(ctx, ttt__tensor(ctx, shape, dtype, keep, NULL));
}
ttt_tensor *ttt_new(ttt_ctx *ctx, ttt_shape shape) {
    return ttt_new_typed(ctx, shape, TTT_DTYPE_REAL, false);
}

ttt_tensor *ttt_full(ttt_ctx *ctx, ttt_shape shape, ttt_real v) {
    ttt_tensor *tensor = ttt_new(ctx, shape);
    int back = ttt__profile_begin(ctx, "fill", false);
    for (int64_t i = 0; i < tensor->size; i++) tensor->data[i] = v;
    if (back >= 0) ttt__profile_count(ttt__profile_end(ctx, back), 0, ttt__tensor_bytes(tensor));
    return tensor;
}

ttt_tensor *ttt_zeros(ttt_ctx *ctx, ttt_shape shape) { return ttt_full(ctx, shape, 0); }
ttt_tensor *ttt_scalar(ttt_ctx *ctx, ttt_real v) { return ttt_full(ctx, ttt_scalar_shape(), v); }

#define FROM(function, name, type, member)                                                         \
    ttt_tensor *function(ttt_ctx *ctx, ttt_shape shape, const type *values) {                      \
        ttt_tensor *t = ttt_new_typed(ctx, shape, TTT_DTYPE_##name, false);                        \
        if (t->size && !TTT__GIVEN(#function, values)) return &ctx->empty;                         \
        if (t->size) memcpy(t->member, values, (size_t)t->size * sizeof *values);                  \
        return t;                                                                                  \
    }
FROM(ttt_from, REAL, ttt_real, data)
FROM(ttt_from_int, INT, int64_t, index)
FROM(ttt_from_u8, U8, uint8_t, u8)
FROM(ttt_from_bf16, BF16, uint16_t, bf16)
#undef FROM

ttt_tensor *ttt_randn(ttt_ctx *ctx, ttt_shape shape) {
    ttt_tensor *tensor = ttt_new(ctx, shape);
    for (int64_t i = 0; i < tensor->size; i++)
        tensor->data[i] = (ttt_real)ttt_rng_normal(&ctx->rng);
    return tensor;
}

ttt_tensor *ttt_uniform(ttt_ctx *ctx, ttt_shape shape, ttt_real lo, ttt_real hi) {
    if (!(hi - lo >= 0 && (double)(hi - lo) < HUGE_VAL))
        return ttt_fail(ctx, TTT_ERR_ARGUMENT, "uniform: from %g to %g; lo <= hi, and a distance "
                        "that is a number expected", (double)lo, (double)hi);
    ttt_tensor *tensor = ttt_new(ctx, shape);
    for (int64_t i = 0; i < tensor->size; i++)
        tensor->data[i] = (ttt_real)((double)lo + (double)(hi - lo) * ttt_rng_uniform(&ctx->rng));
    return tensor;
}

ttt_tensor *ttt_zeros_kept(ttt_ctx *ctx, ttt_shape shape) {
    ttt_tensor *tensor = ttt_new_typed(ctx, shape, TTT_DTYPE_REAL, true);
    if (tensor->size) memset(tensor->data, 0, (size_t)tensor->size * sizeof(ttt_real));
    return tensor;
}

// Whether it is a tensor and was not released, for a function that has no context to ask.
static bool ttt__lives(const ttt_tensor *tensor) { return tensor && tensor->self == tensor; }
ttt_real ttt_item(const ttt_tensor *tensor) {
    ttt_text shape;
    if (!ttt__lives(tensor)) return (ttt_real)NAN;
    if (tensor->size == 1 && tensor->data) return tensor->data[0];
    if (tensor->size == 1)
        ttt_fail(tensor->ctx, TTT_ERR_ARGUMENT, "item: a tensor of %s; real numbers expected",
                 ttt__dtype_text(tensor->dtype));
    else
        ttt_fail(tensor->ctx, TTT_ERR_SHAPE, "item: a tensor of shape %s; one number expected",
                 ttt_shape_text(tensor->shape, shape));
    return (ttt_real)NAN;
}

double ttt_max_abs_diff(const ttt_tensor *a, const ttt_tensor *b) {
    double max = 0;
    if (!ttt__lives(a) || !ttt__lives(b)) return (double)NAN;
    if (!ttt_shape_equal(a->shape, b->shape) || !a->data || !b->data) return (double)NAN;
    for (int64_t i = 0; i < a->size; i++) {
        double d = fabs((double)a->data[i] - (double)b->data[i]);
        if (d != d) return d;
        if (d > max) max = d;
    }
    return max;
}

bool ttt_set_recording(ttt_ctx *ctx, bool on) {
    bool was = ctx->recording;
    ctx->recording = on;
    return was;
}

// Writes into y what made it. If only numbers are wanted, nobody needs `in` and `arg` after
// forward, so they stay where the caller has them.
static bool ttt__set_producer(ttt_ctx *ctx, ttt_tensor *y, const ttt_op *op, ttt_tensor *const *in,
                              int n, const void *arg, size_t arg_bytes) {
    y->op = op;
    y->n_in = n;
    if (ctx->numbers_only) {
        y->arg = arg;
        y->in = (ttt_tensor **)(uintptr_t)in;
        return true;
    }
    y->in = (ttt_tensor **)ttt__arena_alloc(ctx, &ctx->step, (uint64_t)n * sizeof *in + arg_bytes);
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

// What messages call input i of an op.
static const char *ttt__input_text(int i, char *text) {
    static const char *const names[] = { "the first input", "the second input", "the third input" };
    if (i < (int)(sizeof names / sizeof *names)) return names[i];
    snprintf(text, sizeof(ttt_text), "input number %d", i + 1);
    return text;
}

static void ttt__not_living(ttt_ctx *ctx, const char *op, const ttt_tensor *tensor,
                            const char *input) {
    if (!tensor) ttt_fail(ctx, TTT_ERR_RELEASED, "%.200s: %.100s is NULL", op, input);
    else
        ttt_fail(ctx, TTT_ERR_RELEASED, "%.200s: %.100s is not a living tensor of this context; "
                 "was it released?", op, input);
}

// True if a tensor, input i of an op, is alive in this context. Nothing of it is read before.
static bool ttt__living(ttt_ctx *ctx, const char *op, const ttt_tensor *tensor, int i) {
    ttt_text input;
    if (!ctx->result && !ttt__alive(ctx, tensor))
        ttt__not_living(ctx, op, tensor, ttt__input_text(i, input));
    return !ctx->result;
}

// True if it is, and has one of the element types in the set `types` (TTT__REAL | ...).
static bool ttt__operand(ttt_ctx *ctx, const char *op, const ttt_tensor *tensor, int i, int types) {
    ttt_text input, expected = "";
    size_t n = 0;
    if (!ttt__living(ctx, op, tensor, i)) return false;
    if (types >> tensor->dtype & 1) return true;
    for (int dtype = 0; dtype < TTT__N_DTYPES; dtype++)
        if (types >> dtype & 1)
            n += (size_t)snprintf(expected + n, sizeof expected - n, "%s%s", n ? " or " : "",
                                  ttt__dtype_text((ttt_dtype)dtype));
    ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: %s holds %s; %s expected", op, ttt__input_text(i, input),
             ttt__dtype_text(tensor->dtype), expected);
    return false;
}
// True if all of in[0..n) are alive and real.
static bool ttt__operands(ttt_ctx *ctx, const char *op, ttt_tensor *const *in, int n) {
    for (int i = 0; i < n; i++)
        if (!ttt__operand(ctx, op, in[i], i, TTT__REAL)) return false;
    return !ctx->result;
}

static bool ttt__inputs_good(ttt_ctx *ctx, const ttt_op *op, ttt_tensor *const *in, int n) {
    if (!ctx->result && (op->n_in >= 0 ? n != op->n_in : n < 0))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: %d inputs given, %d%s expected", op->name, n,
                 TTT__MAX(op->n_in, 0), op->n_in < 0 ? " or more" : "");
    if (!ctx->result && !op->vjp == !op->composite)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: an op needs a vjp or a composite, and not both",
                 op->name);
    for (int i = 0; i < n && !ctx->result; i++) ttt__living(ctx, op->name, in[i], i);
    return !ctx->result;
}

// Runs an op on inputs that were found good; the result has the elements of `share` unless that is
// NULL.
static ttt_tensor *ttt__run(ttt_ctx *ctx, const ttt_op *op, ttt_tensor *const *in, int n,
                            ttt_shape shape, const void *arg, size_t arg_bytes, ttt_tensor *share) {
    if (!ttt__shape_good(ctx, op->name, shape, TTT_DTYPE_REAL)) return &ctx->empty;
    ttt_tensor *y = ttt__tensor(ctx, shape, TTT_DTYPE_REAL, false, share);
    if (!y || !ttt__set_producer(ctx, y, op, in, n, arg, arg_bytes)) return &ctx->empty;
    int back = ttt__profile_begin(ctx, op->name, false);
    op->forward(ctx, y);
    if (back >= 0) ttt__profile_end_forward(ctx, back, y);
    if (ctx->result) return &ctx->empty;
    if (ctx->desc.watch_nan && !ctx->k->finite(y->size, y->data))
        return ttt_fail(ctx, TTT_ERR_NOT_FINITE, "%s: the result has a NaN or an infinity",
                        op->name);
    if (!ctx->recording || ctx->numbers_only) ttt__clear_producer(y);
    return y;
}

ttt_tensor *ttt_apply(ttt_ctx *ctx, const ttt_op *op, ttt_tensor *const *in, int n, ttt_shape shape,
                      const void *arg, size_t arg_bytes) {
    if (!TTT__GIVEN("apply", op) || (n > 0 && !TTT__GIVEN(op->name, in)) ||
        (arg_bytes && !TTT__GIVEN(op->name, arg)) || !ttt__inputs_good(ctx, op, in, n))
        return &ctx->empty;
    return ttt__run(ctx, op, in, n, shape, arg, arg_bytes, NULL);
}

static ttt_tensor *ttt__apply1(ttt_ctx *ctx, const ttt_op *op, ttt_tensor *a, ttt_shape shape,
                               const void *arg, size_t n) {
    if (!ttt__operands(ctx, op->name, &a, 1)) return &ctx->empty;
    return ttt__run(ctx, op, &a, 1, shape, arg, n, NULL);
}
// The result has the shape of a.
static ttt_tensor *ttt__apply_alike(ttt_ctx *ctx, const ttt_op *op, ttt_tensor *a, const void *arg,
                                    size_t n) {
    if (!ttt__operands(ctx, op->name, &a, 1)) return &ctx->empty;
    return ttt__run(ctx, op, &a, 1, a->shape, arg, n, NULL);
}

ttt_tensor *ttt_detach(ttt_ctx *ctx, ttt_tensor *a) {
    if (!ttt__living(ctx, "detach", a, 0)) return &ctx->empty;
    return ttt__or_empty(ctx, ttt__tensor(ctx, a->shape, a->dtype, false, a));
}

static void ttt__convert(ttt_ctx *ctx, const ttt_tensor *tensor, ttt_tensor *y) {
    int64_t n = tensor->size;
    if (tensor->bf16) {
        ctx->k->widen(1, n, tensor->bf16, n, y->data, n);
    } else if (y->bf16) {
        for (int64_t i = 0; i < n; i++) y->bf16[i] = ttt__bf16_of(tensor->data[i]);
    } else if (tensor->dtype == TTT_DTYPE_F16) {
        const uint16_t *half = (const uint16_t *)tensor->stored;
        for (int64_t i = 0; i < n; i++) y->data[i] = (ttt_real)ttt__half(half[i]);
    } else {
#define X(name, type, member, text)                                                                \
    if (tensor->dtype == TTT_DTYPE_##name) {                                                       \
        const type *from = (const type *)tensor->member;                                           \
        if (y->index) for (int64_t i = 0; i < n; i++) y->index[i] = (int64_t)from[i];              \
        else for (int64_t i = 0; i < n; i++) y->data[i] = (ttt_real)from[i];                       \
    }
        TTT_DTYPES(X)
#undef X
    }
}
static bool ttt__convertible(const ttt_tensor *tensor, ttt_dtype dtype) {
    const int integers = TTT__U8 | TTT__I8 | TTT__I16 | TTT__I32 | TTT__U16 | TTT__U32;
    return dtype == TTT_DTYPE_REAL || (dtype == TTT_DTYPE_INT && integers >> tensor->dtype & 1) ||
           (dtype == TTT_DTYPE_BF16 && tensor->data);
}
ttt_tensor *ttt_cast(ttt_ctx *ctx, ttt_tensor *tensor, ttt_dtype dtype) {
    bool known = (unsigned)dtype < TTT__N_DTYPES;
    if (!ttt__living(ctx, "cast", tensor, 0)) return &ctx->empty;
    if (tensor->dtype == dtype) return ttt_detach(ctx, tensor);
    if (!ttt__convertible(tensor, dtype))
        return ttt_fail(ctx, TTT_ERR_ARGUMENT,
                        "cast: from %s to %s; any to real numbers, bytes and integers to integers "
                        "or real numbers to bfloat16 expected", ttt__dtype_text(tensor->dtype),
                        known ? ttt__dtype_text(dtype) : "no element type");
    ttt_tensor *y = ttt_new_typed(ctx, tensor->shape, dtype, false);
    int back = ttt__profile_begin(ctx, "cast", false);
    if (!ctx->result) ttt__convert(ctx, tensor, y);
    double bytes = ttt__tensor_bytes(tensor) + ttt__tensor_bytes(y);
    if (back >= 0) ttt__profile_count(ttt__profile_end(ctx, back), 0, bytes);
    return y;
}

// ---- [12] OPS: forward and rule, in pairs -------------------------------------------------------
// FORWARD(name) writes y->data; RULE(name) gives d[j], the gradient of input j, from g, that of y;
// FAST(name) writes it to into[j], or adds it.
#define FORWARD(name) static void ttt__##name##_forward(ttt_ctx *ctx, ttt_tensor *y)
#define RULE(name)                                                                                 \
    static void ttt__##name##_rule(ttt_ctx *ctx, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d)
#define FAST(name)                                                                                 \
    static void ttt__##name##_fast(ttt_ctx *ctx, ttt_tensor *y, const ttt_tensor *g,               \
                                   ttt_tensor **into, const bool *add)
#define A (y->in[0])
#define B (y->in[1])

static int64_t ttt__matmul_flops(const ttt_tensor *y);
static int64_t ttt__depthwise_flops(const ttt_tensor *y);

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
#define X(name, n_in, formula, lo, hi, flops, shape0, shape1, example)                             \
    FORWARD(name);                                                                                 \
    RULE(name);                                                                                    \
    FAST(name);                                                                                    \
    static int64_t ttt__count_##name(const ttt_tensor *y) { (void)y; return flops; }               \
    static const ttt_op ttt__op_##name = { #name, formula, n_in, lo, hi, ttt__##name##_forward,    \
                                           ttt__##name##_rule, NULL, ttt__##name##_fast,           \
                                           ttt__count_##name };
TTT_PART_OPS(X)
#undef X

const ttt_op *ttt_op_table(int i) {
    static const ttt_op *const all[] = {
#define X(name, formula, lo, hi, flops) &ttt__op_##name,
        TTT_UNARY_OPS(X) TTT_BINARY_OPS(X)
#undef X
#define X(name, n_in, formula, lo, hi, flops, shape0, shape1, example) &ttt__op_##name,
        TTT_OTHER_OPS(X) TTT_PART_OPS(X)
#undef X
        NULL
    };
    return i >= 0 && i < (int)(sizeof all / sizeof *all) ? all[i] : NULL;
}

// -- one number in, one number out
typedef struct ttt__map_job {
    ttt__map_fn *map;
    const ttt_real *a;
    ttt_real *y, scalar;
} ttt__map_job;

// Threads share units of 64 elements, so that no element changes its lane with their number.
static void ttt__map_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__map_job *job = (const ttt__map_job *)arg;
    (void)thread;
    job->map((end - begin) * 64, job->a + begin * 64, job->y + begin * 64, job->scalar);
}

static void ttt__map_numbers(ttt_ctx *ctx, int64_t n, const ttt_real *a, ttt_real *y, int which,
                             ttt_real scalar) {
    ttt__map_job job = { ctx->k->map[which], a, y, scalar };
    int64_t units = n / 64, rest = n % 64;
    ttt__parallel(ctx, -1, units, 256, ttt__map_share, &job);
    job.map(rest, a + units * 64, y + units * 64, scalar);
}
static void ttt__map(ttt_ctx *ctx, ttt_tensor *y, int which, ttt_real scalar) {
    ttt__map_numbers(ctx, y->size, A->data, y->data, which, scalar);
}

#define X(name, formula, lo, hi, flops)                                                            \
    FORWARD(name) { ttt__map(ctx, y, TTT__MAP_##name, 0); }                                        \
    ttt_tensor *ttt_##name(ttt_ctx *ctx, ttt_tensor *a) {                                          \
        return ttt__apply_alike(ctx, &ttt__op_##name, a, NULL, 0);                                 \
    }
TTT_UNARY_OPS(X)
#undef X

FORWARD(scale) { ttt__map(ctx, y, TTT__MAP_scale, *(const ttt_real *)y->arg); }
FORWARD(add_scalar) { ttt__map(ctx, y, TTT__MAP_add_scalar, *(const ttt_real *)y->arg); }
ttt_tensor *ttt_scale(ttt_ctx *ctx, ttt_tensor *a, ttt_real s) {
    return ttt__apply_alike(ctx, &ttt__op_scale, a, &s, sizeof s);
}
ttt_tensor *ttt_add_scalar(ttt_ctx *ctx, ttt_tensor *a, ttt_real s) {
    return ttt__apply_alike(ctx, &ttt__op_add_scalar, a, &s, sizeof s);
}

RULE(scale) { d[0] = ttt_scale(ctx, g, *(const ttt_real *)y->arg); }
RULE(add_scalar) { (void)ctx; (void)y; d[0] = g; }
RULE(exp) { d[0] = ttt_mul(ctx, g, y); }
RULE(log) { d[0] = ttt_div(ctx, g, A); }
// tanh a = 2 sigmoid(2 a) - 1; 1 - y^2 would lose the digits of the tails.
RULE(tanh) {
    d[0] = ttt_scale(ctx, ttt_mul(ctx, g, ttt_sigmoid_d1(ctx, ttt_scale(ctx, A, 2))), 4);
}
RULE(sigmoid) { d[0] = ttt_mul(ctx, g, ttt_sigmoid_d1(ctx, A)); }
RULE(sigmoid_d1) {  // -y tanh(a/2)
    ttt_tensor *slope = ttt_mul(ctx, y, ttt_tanh(ctx, ttt_scale(ctx, A, (ttt_real)0.5)));
    d[0] = ttt_scale(ctx, ttt_mul(ctx, g, slope), -1);
}
RULE(softplus) { d[0] = ttt_mul(ctx, g, ttt_sigmoid(ctx, A)); }
RULE(erf) {  // g 2/sqrt(pi) e^(-a^2)
    d[0] = ttt_mul(ctx, g, ttt_scale(ctx, ttt_gauss(ctx, A), (ttt_real)1.1283791670955126));
}
// A cut off where factors beside it are 0: infinity times 0 would be NaN.
static ttt_tensor *ttt__cut_off(ttt_ctx *ctx, ttt_tensor *a) {
    return ttt_clamp(ctx, a, -1000, 1000);
}
RULE(gauss) {  // -2 a y
    d[0] = ttt_scale(ctx, ttt_mul(ctx, g, ttt_mul(ctx, ttt__cut_off(ctx, A), y)), -2);
}
RULE(abs) { d[0] = ttt_mul(ctx, g, ttt_sign(ctx, A)); }
RULE(sign) { (void)ctx; (void)y; (void)g; d[0] = NULL; }
RULE(relu) { d[0] = ttt_mul(ctx, g, ttt_heaviside(ctx, A)); }
RULE(heaviside) { (void)ctx; (void)y; (void)g; d[0] = NULL; }
RULE(square) { d[0] = ttt_scale(ctx, ttt_mul(ctx, g, A), 2); }
// y to divide by, and where it is 0 so large a number that nothing is left.
static ttt_tensor *ttt__divisor(ttt_ctx *ctx, ttt_tensor *y) {
    return ttt_where(ctx, y, y, ttt_scalar(ctx, (ttt_real)(TTT__DOUBLE ? DBL_MAX : FLT_MAX)));
}
RULE(sqrt) { d[0] = ttt_scale(ctx, ttt_div(ctx, g, ttt__divisor(ctx, y)), (ttt_real)0.5); }
RULE(rsqrt) {
    d[0] = ttt_scale(ctx, ttt_mul(ctx, g, ttt_mul(ctx, y, ttt_square(ctx, y))), (ttt_real)-0.5);
}
RULE(reciprocal) { d[0] = ttt_scale(ctx, ttt_mul(ctx, g, ttt_square(ctx, y)), -1); }
RULE(gelu) { d[0] = ttt_mul(ctx, g, ttt_gelu_d1(ctx, A)); }
RULE(gelu_d1) { d[0] = ttt_mul(ctx, g, ttt_gelu_d2(ctx, A)); }
// a sigmoid(u), u = k (a + 0.044715 a^3): with p = sigmoid'(u), q = p' = -p tanh(u/2) and
// r = q' = p (1 - 6 p), the third derivative is
//   3 (q u'^2 + p u'') + a (r u'^3 + 3 q u' u'' + p u''').
static void ttt__sigmoid_slopes(ttt_ctx *ctx, ttt_tensor *u, ttt_tensor **slope) {
    ttt_tensor *p = slope[0] = ttt_sigmoid_d1(ctx, u);
    ttt_tensor *bend = ttt_tanh(ctx, ttt_scale(ctx, u, (ttt_real)0.5));
    slope[1] = ttt_scale(ctx, ttt_mul(ctx, p, bend), -1);
    slope[2] = ttt_mul(ctx, p, ttt_add_scalar(ctx, ttt_scale(ctx, p, -6), 1));
}
RULE(gelu_d2) {
    const ttt_real k = (ttt_real)1.5957691216057308;
    const ttt_real k3 = (ttt_real)0.42812889763560147;  // u''' = 6 k 0.044715
    ttt_tensor *a = ttt__cut_off(ctx, A), *a2 = ttt_square(ctx, a), *slope[3];
    ttt_tensor *u = ttt_mul(ctx, a, ttt_add_scalar(ctx, ttt_scale(ctx, a2, k3 / 6), k));
    ttt_tensor *u1 = ttt_add_scalar(ctx, ttt_scale(ctx, a2, k3 / 2), k),
               *u2 = ttt_scale(ctx, a, k3), *u1_2 = ttt_square(ctx, u1);
    ttt__sigmoid_slopes(ctx, u, slope);
    ttt_tensor *p = slope[0], *q = slope[1], *r = slope[2];
    ttt_tensor *first = ttt_add(ctx, ttt_mul(ctx, q, u1_2), ttt_mul(ctx, p, u2));
    ttt_tensor *cubic = ttt_mul(ctx, r, ttt_mul(ctx, u1, u1_2));
    ttt_tensor *mixed = ttt_scale(ctx, ttt_mul(ctx, q, ttt_mul(ctx, u1, u2)), 3);
    ttt_tensor *second = ttt_add(ctx, cubic, ttt_add(ctx, mixed, ttt_scale(ctx, p, k3)));
    d[0] = ttt_mul(ctx, g, ttt_add(ctx, ttt_scale(ctx, first, 3), ttt_mul(ctx, a, second)));
}
RULE(gelu_erf) { d[0] = ttt_mul(ctx, g, ttt_gelu_erf_d1(ctx, A)); }
RULE(gelu_erf_d1) { d[0] = ttt_mul(ctx, g, ttt_gelu_erf_d2(ctx, A)); }
RULE(gelu_erf_d2) {  // ((2 - a^2) phi(a))' = (a^3 - 4 a) phi(a)
    ttt_tensor *a = ttt__cut_off(ctx, A), *a2 = ttt_square(ctx, a),
               *density = ttt_exp(ctx, ttt_scale(ctx, a2, (ttt_real)-0.5));
    ttt_tensor *cubic = ttt_mul(ctx, a, ttt_add_scalar(ctx, a2, -4));
    d[0] =
        ttt_mul(ctx, g, ttt_scale(ctx, ttt_mul(ctx, cubic, density), (ttt_real)0.3989422804014327));
}
RULE(silu) { d[0] = ttt_mul(ctx, g, ttt_silu_d1(ctx, A)); }
RULE(silu_d1) { d[0] = ttt_mul(ctx, g, ttt_silu_d2(ctx, A)); }
RULE(silu_d2) {  // 3 q + a r, with q and r as for gelu_d2
    ttt_tensor *a = ttt__cut_off(ctx, A), *slope[3];
    ttt__sigmoid_slopes(ctx, a, slope);
    ttt_tensor *sum = ttt_add(ctx, ttt_scale(ctx, slope[1], 3), ttt_mul(ctx, a, slope[2]));
    d[0] = ttt_mul(ctx, g, sum);
}

// -- two operands, broadcast
// The common shape of two, aligned at the right; false if two sizes differ and neither is 1, or if
// a rank is impossible.
static bool ttt__broadcast_shape(ttt_shape a, ttt_shape b, ttt_shape *out) {
    out->rank = TTT__MAX(a.rank, b.rank);
    for (int i = 0; i < TTT_MAX_RANK; i++) out->dim[i] = 0;
    if (!ttt__rank_good(a) || !ttt__rank_good(b)) return false;
    for (int i = 1; i <= out->rank; i++) {
        int64_t a_size = i <= a.rank ? a.dim[a.rank - i] : 1;
        int64_t b_size = i <= b.rank ? b.dim[b.rank - i] : 1;
        if (a_size != b_size && a_size != 1 && b_size != 1) return false;
        out->dim[out->rank - i] = a_size == 1 ? b_size : a_size;
    }
    return true;
}

// Loops over a shape that visit up to three tensors, each with its own strides (0 along an axis
// where it is repeated), as few and as long as the strides allow. size[n-1] is the innermost.
typedef struct ttt__loops {
    int n;
    int64_t size[TTT_MAX_RANK], stride[3][TTT_MAX_RANK];
} ttt__loops;

// Strides of a tensor of the given shape inside the larger shape `all`.
static void ttt__strides(ttt_shape shape, ttt_shape all, int64_t *stride) {
    int64_t step = 1;
    for (int i = 1; i <= all.rank; i++) {
        int64_t size = i <= shape.rank ? shape.dim[shape.rank - i] : 1;
        stride[all.rank - i] = size == 1 ? 0 : step;
        step *= size;
    }
}

// Joins neighboring loops where every tensor's strides allow it, and drops those of length 1.
static void ttt__loops_join(ttt__loops *loops, int tensors) {
    int n = 0;
    for (int i = 0; i < loops->n; i++) {
        int64_t size = loops->size[i];
        if (size == 1) continue;
        bool join = n > 0;
        for (int t = 0; t < tensors && join; t++)
            join = loops->stride[t][n - 1] == loops->stride[t][i] * size;
        if (join) loops->size[n - 1] *= size;
        else loops->size[n++] = size;
        for (int t = 0; t < tensors; t++) loops->stride[t][n - 1] = loops->stride[t][i];
    }
    if (n == 0) {
        loops->size[n++] = 1;
        for (int t = 0; t < tensors; t++) loops->stride[t][0] = 0;
    }
    loops->n = n;
}

// The place of tensor t, in elements, at iteration `row` of the first n loops.
static int64_t ttt__loops_at(const ttt__loops *loops, int n, int t, int64_t row) {
    int64_t at = 0;
    for (int i = n - 1; i >= 0; i--) {
        at += row % loops->size[i] * loops->stride[t][i];
        row /= loops->size[i];
    }
    return at;
}

static int64_t ttt__loops_count(const ttt__loops *loops, int n) {
    int64_t rows = 1;
    for (int i = 0; i < n; i++) rows *= loops->size[i];
    return rows;
}

// Cuts a single long loop into pieces of 1024, so that threads can share it.
static void ttt__loops_cut(ttt__loops *loops, int tensors) {
    if (loops->n != 1 || loops->size[0] % 1024 != 0) return;
    loops->n = 2;
    loops->size[1] = 1024;
    loops->size[0] /= 1024;
    for (int t = 0; t < tensors; t++) {
        loops->stride[t][1] = loops->stride[t][0];
        loops->stride[t][0] *= 1024;
    }
}

typedef struct ttt__zip_job {
    ttt__zip_fn *zip;
    const ttt_real *a, *b;
    ttt_real *y;
    ttt__loops loops;
} ttt__zip_job;

static void ttt__zip_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__zip_job *job = (const ttt__zip_job *)arg;
    const ttt__loops *loops = &job->loops;
    int inner = loops->n - 1;
    int64_t n = loops->size[inner];
    (void)thread;
    for (int64_t row = begin; row < end; row++)
        job->zip(n, job->a + ttt__loops_at(loops, inner, 0, row), loops->stride[0][inner] != 0,
                 job->b + ttt__loops_at(loops, inner, 1, row), loops->stride[1][inner] != 0,
                 job->y + row * n);
}

static void ttt__zip(ttt_ctx *ctx, const ttt_real *a, ttt_shape a_shape, const ttt_real *b,
                     ttt_shape b_shape, ttt_tensor *y, int which) {
    ttt__zip_job job = { ctx->k->zip[which], a, b, y->data, { y->shape.rank, { 0 }, { { 0 } } } };
    ttt__loops *loops = &job.loops;
    if (y->size == 0) return;
    memcpy(loops->size, y->shape.dim, sizeof loops->size);
    ttt__strides(a_shape, y->shape, loops->stride[0]);
    ttt__strides(b_shape, y->shape, loops->stride[1]);
    ttt__loops_join(loops, 2);
    ttt__loops_cut(loops, 2);
    int64_t rows = ttt__loops_count(loops, loops->n - 1);
    ttt__parallel(ctx, -1, rows, 16384 / loops->size[loops->n - 1] + 1, ttt__zip_share, &job);
}

static ttt_tensor *ttt__binary(ttt_ctx *ctx, const ttt_op *op, ttt_tensor *a, ttt_tensor *b) {
    ttt_tensor *in[2] = { a, b };
    ttt_shape shape;
    if (!ttt__operands(ctx, op->name, in, 2)) return &ctx->empty;
    if (!ttt__broadcast_shape(a->shape, b->shape, &shape)) {
        ttt_text ta, tb;
        return ttt_fail(ctx, TTT_ERR_SHAPE, "%s: shapes %s and %s cannot be broadcast together",
                        op->name, ttt_shape_text(a->shape, ta), ttt_shape_text(b->shape, tb));
    }
    return ttt__run(ctx, op, in, 2, shape, NULL, 0, NULL);
}

#define X(name, formula, lo, hi, flops)                                                            \
    FORWARD(name) { ttt__zip(ctx, A->data, A->shape, B->data, B->shape, y, TTT__ZIP_##name); }     \
    ttt_tensor *ttt_##name(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b) {                           \
        return ttt__binary(ctx, &ttt__op_##name, a, b);                                            \
    }
TTT_BINARY_OPS(X)
#undef X

// The gradient of a repeated operand is the sum over its copies.
static ttt_tensor *ttt__fit(ttt_ctx *ctx, ttt_tensor *g, const ttt_tensor *to) {
    return ttt_shape_equal(g->shape, to->shape) ? g : ttt_sum_to(ctx, g, to->shape);
}

RULE(add) {
    if (d[0]) d[0] = ttt__fit(ctx, g, A);
    if (d[1]) d[1] = ttt__fit(ctx, g, B);
}
RULE(sub) {
    if (d[0]) d[0] = ttt__fit(ctx, g, A);
    if (d[1]) d[1] = ttt_scale(ctx, ttt__fit(ctx, g, B), -1);
}
RULE(mul) {
    if (d[0]) d[0] = ttt__fit(ctx, ttt_mul(ctx, g, B), A);
    if (d[1]) d[1] = ttt__fit(ctx, ttt_mul(ctx, g, A), B);
}
RULE(div) {
    ttt_tensor *q = ttt_div(ctx, g, B);
    if (d[0]) d[0] = ttt__fit(ctx, q, A);
    if (d[1]) d[1] = ttt_scale(ctx, ttt__fit(ctx, ttt_mul(ctx, q, y), B), -1);
}

// -- one of two, by a third
typedef struct ttt__where_job {
    const ttt__kernels *kernels;
    const ttt_tensor *condition;
    const ttt_real *a, *b;
    ttt_real *y;
    ttt__loops loops;  // strides 0 of the condition, 1 of a, 2 of b
} ttt__where_job;

// A table of two is faster than a branch, which the processor would guess wrong half of the time.
static void ttt__where_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__where_job *job = (const ttt__where_job *)arg;
    const ttt__loops *loops = &job->loops;
    int inner = loops->n - 1;
    int64_t n = loops->size[inner], step = loops->stride[0][inner];
    int64_t steps[2] = { loops->stride[2][inner], loops->stride[1][inner] };
    (void)thread;
    for (int64_t row = begin; row < end; row++) {
        int64_t at = ttt__loops_at(loops, inner, 0, row);
        const ttt_real *from[2] = { job->b + ttt__loops_at(loops, inner, 2, row),
                                    job->a + ttt__loops_at(loops, inner, 1, row) };
        ttt_real *y = job->y + row * n;
#define PICK(condition)                                                                            \
    for (int64_t i = 0; i < n; i++) {                                                              \
        int which = (condition)[at + i * step] != 0;                                               \
        y[i] = from[which][i * steps[which]];                                                      \
    }
        if (job->condition->u8) PICK(job->condition->u8)
        else if (job->condition->index) PICK(job->condition->index)
        else if (step == 0) PICK(job->condition->data)
        else job->kernels->pick(n, job->condition->data + at, from[1], steps[1] != 0, from[0],
                                steps[0] != 0, y);
#undef PICK
    }
}
FORWARD(where) {
    ttt__where_job job = { ctx->k, A, B->data, y->in[2]->data, y->data,
                           { y->shape.rank, { 0 }, { { 0 } } } };
    ttt__loops *loops = &job.loops;
    if (y->size == 0) return;
    memcpy(loops->size, y->shape.dim, sizeof loops->size);
    for (int t = 0; t < 3; t++) ttt__strides(y->in[t]->shape, y->shape, loops->stride[t]);
    ttt__loops_join(loops, 3);
    ttt__loops_cut(loops, 3);
    int64_t n = loops->size[loops->n - 1];
    ttt__parallel(ctx, -1, y->size / n, 1 + 16384 / n, ttt__where_share, &job);
}
// Products of g with zeros and ones would be NaN where g is infinite.
RULE(where) {
    ttt_tensor *zero = ttt_scalar(ctx, 0);
    d[0] = NULL;
    if (d[1]) d[1] = ttt__fit(ctx, ttt_where(ctx, A, g, zero), B);
    if (d[2]) d[2] = ttt__fit(ctx, ttt_where(ctx, A, zero, g), y->in[2]);
}
ttt_tensor *ttt_where(ttt_ctx *ctx, ttt_tensor *condition, ttt_tensor *a, ttt_tensor *b) {
    ttt_tensor *in[3] = { condition, a, b };
    ttt_shape shape;
    for (int i = 0; i < 3; i++)
        if (!ttt__operand(ctx, "where", in[i], i, i ? TTT__REAL : TTT__REAL | TTT__INT | TTT__U8))
            return &ctx->empty;
    if (!ttt__broadcast_shape(a->shape, b->shape, &shape) ||
        !ttt__broadcast_shape(condition->shape, shape, &shape)) {
        ttt_text t0, t1, t2;
        return ttt_fail(ctx, TTT_ERR_SHAPE, "where: %s, %s and %s cannot be broadcast together",
                        ttt_shape_text(condition->shape, t0), ttt_shape_text(a->shape, t1),
                        ttt_shape_text(b->shape, t2));
    }
    return ttt__run(ctx, &ttt__op_where, in, 3, shape, NULL, 0, NULL);
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
FORWARD(clamp) { ttt__parallel(ctx, -1, y->size, 16384, ttt__clamp_share, y); }
RULE(clamp) {
    const ttt_real *limit = (const ttt_real *)y->arg, *a = A->data;
    ttt_tensor *inside = ttt_new_typed(ctx, A->shape, TTT_DTYPE_U8, false);
    for (int64_t i = 0; i < inside->size; i++) inside->u8[i] = a[i] >= limit[0] && a[i] <= limit[1];
    d[0] = ttt_where(ctx, inside, g, ttt_scalar(ctx, 0));
}
ttt_tensor *ttt_clamp(ttt_ctx *ctx, ttt_tensor *a, ttt_real lo, ttt_real hi) {
    ttt_real limit[2] = { lo, hi };
    if (!ttt__operands(ctx, "clamp", &a, 1)) return &ctx->empty;
    if (!(lo <= hi))
        return ttt_fail(ctx, TTT_ERR_ARGUMENT, "clamp: lo is %g, hi %g; lo <= hi expected",
                        (double)lo, (double)hi);
    return ttt__apply_alike(ctx, &ttt__op_clamp, a, limit, sizeof limit);
}

static void ttt__pow_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt_tensor *y = (const ttt_tensor *)arg;
    ttt_real p = *(const ttt_real *)y->arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) y->data[i] = TTT__MATH(pow)(A->data[i], p);
}
FORWARD(pow) { ttt__parallel(ctx, -1, y->size, 1024, ttt__pow_share, y); }
RULE(pow) {  // g p a^(p-1), which for p = 0 would be 0 times infinity at a = 0
    ttt_real p = *(const ttt_real *)y->arg;
    d[0] = p == 0 ? NULL : ttt_scale(ctx, ttt_mul(ctx, g, ttt_pow(ctx, A, p - 1)), p);
}
ttt_tensor *ttt_pow(ttt_ctx *ctx, ttt_tensor *a, ttt_real p) {
    if (!ttt__operands(ctx, "pow", &a, 1)) return &ctx->empty;
    if (!(p - p == 0))
        return ttt_fail(ctx, TTT_ERR_ARGUMENT, "pow: exponent %g; a finite one expected",
                        (double)p);
    return ttt__apply_alike(ctx, &ttt__op_pow, a, &p, sizeof p);
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
FORWARD(dropout) { ttt__parallel(ctx, -1, (y->size + 3) / 4, 512, ttt__dropout_share, y); }
RULE(dropout) {
    const ttt__dropout *drop = (const ttt__dropout *)y->arg;
    d[0] = ttt_dropout_seeded(ctx, g, drop->p, drop->seed);
}
ttt_tensor *ttt_dropout_seeded(ttt_ctx *ctx, ttt_tensor *a, ttt_real p, uint64_t seed) {
    ttt__dropout drop = { seed, p };
    if (!ttt__operands(ctx, "dropout", &a, 1)) return &ctx->empty;
    if (!(p >= 0 && p < 1))
        return ttt_fail(ctx, TTT_ERR_ARGUMENT, "dropout: p is %g; 0 <= p < 1 expected", (double)p);
    return p == 0 ? a : ttt__apply_alike(ctx, &ttt__op_dropout, a, &drop, sizeof drop);
}
ttt_tensor *ttt_dropout(ttt_ctx *ctx, ttt_tensor *a, ttt_real p) {
    uint64_t seed = 0;
    if (!ctx->result && p > 0 && p < 1) {
        seed = ttt_rng_u32(&ctx->rng);
        seed |= (uint64_t)ttt_rng_u32(&ctx->rng) << 32;
    }
    return ttt_dropout_seeded(ctx, a, p, seed);
}

// -- sums and repeats: (outer, n, inner) <-> (outer, 1, inner), one group of axes at a time
typedef struct ttt__sum_job {
    const ttt__kernels *kernels;
    const ttt_real *a;
    ttt_real *y;
    int64_t n, inner;
} ttt__sum_job;

static void ttt__sum_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__sum_job *job = (const ttt__sum_job *)arg;
    (void)thread;
    int64_t n = job->n, inner = job->inner;
    for (int64_t i = begin; i < end; i++) {
        const ttt_real *a = job->a + i * n * inner;
        if (inner == 1) job->y[i] = (ttt_real)job->kernels->sum(n, a);
        else job->kernels->sum_rows(n, inner, inner, a, job->y + i * inner);
    }
}

// With a single outer row, shares are blocks of 64 columns instead.
static void ttt__sum_share_columns(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__sum_job *job = (const ttt__sum_job *)arg;
    int64_t from = begin * 64, to = TTT__MIN(end * 64, job->inner);
    (void)thread;
    job->kernels->sum_rows(job->n, to - from, job->inner, job->a + from, job->y + from);
}

static void ttt__sum_middle(ttt_ctx *ctx, const ttt_real *a, ttt_real *y, int64_t outer, int64_t n,
                            int64_t inner) {
    ttt__sum_job job = { ctx->k, a, y, n, inner };
    if (outer == 1 && inner > 1)
        ttt__parallel(ctx, -1, (inner + 63) / 64, 1 + 16384 / (64 * n), ttt__sum_share_columns,
                      &job);
    else ttt__parallel(ctx, -1, outer, 1 + 16384 / (n * inner), ttt__sum_share, &job);
}

// Sums a into y, whose shape has 1 where axes are summed. Of several groups of such axes the last
// is summed first, and the results between lie in the scratch arena.
static void ttt__sum_into(ttt_ctx *ctx, const ttt_tensor *a, ttt_tensor *y) {
    ttt__loops loops = { a->shape.rank, { 0 }, { { 0 } } };
    if (a->size == 0) {
        for (int64_t i = 0; i < y->size; i++) y->data[i] = 0;
        return;
    }
    memcpy(loops.size, a->shape.dim, sizeof loops.size);
    ttt__strides(y->shape, a->shape, loops.stride[0]);
    ttt__strides(a->shape, a->shape, loops.stride[1]);
    ttt__loops_join(&loops, 2);
    int groups = 0;
    for (int i = 0; i < loops.n; i++) groups += loops.stride[0][i] == 0 && loops.size[i] > 1;
    if (groups == 0) memcpy(y->data, a->data, (size_t)a->size * sizeof *a->data);
    ttt_mark mark = ttt__arena_mark(&ctx->scratch);
    const ttt_real *from = a->data;
    int64_t inner = 1, left = a->size;
    for (int i = loops.n - 1; i >= 0; i--) {
        if (loops.stride[0][i] == 0 && loops.size[i] > 1) {
            left /= loops.size[i];
            size_t bytes = (size_t)left * sizeof *from;
            bool last = --groups == 0;
            ttt_real *to = last ? y->data : (ttt_real *)ttt__arena_alloc(ctx, &ctx->scratch, bytes);
            if (!to) break;
            ttt__sum_middle(ctx, from, to, left / inner, loops.size[i], inner);
            from = to;
        } else {
            inner *= loops.size[i];
        }
    }
    ttt__arena_release(&ctx->scratch, mark);
}

FORWARD(sum_to) { ttt__sum_into(ctx, A, y); }
RULE(sum_to) { d[0] = ttt_broadcast(ctx, g, A->shape); }
ttt_tensor *ttt_sum_to(ttt_ctx *ctx, ttt_tensor *a, ttt_shape shape) {
    ttt_shape all;
    if (!ttt__operands(ctx, "sum_to", &a, 1)) return &ctx->empty;
    if (!ttt__broadcast_shape(a->shape, shape, &all) || !ttt_shape_equal(all, a->shape)) {
        ttt_text ta, ts;
        return ttt_fail(ctx, TTT_ERR_SHAPE, "sum_to: %s cannot be summed to %s",
                        ttt_shape_text(a->shape, ta), ttt_shape_text(shape, ts));
    }
    return ttt__apply1(ctx, &ttt__op_sum_to, a, shape, NULL, 0);
}

// A repeated a is a plus a zero that is repeated along every axis.
FORWARD(broadcast) {
    const ttt_real zero = 0;
    ttt__zip(ctx, A->data, A->shape, &zero, ttt_scalar_shape(), y, TTT__ZIP_add);
}
RULE(broadcast) { d[0] = ttt_sum_to(ctx, g, A->shape); }
ttt_tensor *ttt_broadcast(ttt_ctx *ctx, ttt_tensor *a, ttt_shape shape) {
    ttt_shape all;
    if (!ttt__operands(ctx, "broadcast", &a, 1)) return &ctx->empty;
    if (!ttt__broadcast_shape(a->shape, shape, &all) || !ttt_shape_equal(all, shape)) {
        ttt_text ta, ts;
        return ttt_fail(ctx, TTT_ERR_SHAPE, "broadcast: %s cannot be repeated to %s",
                        ttt_shape_text(a->shape, ta), ttt_shape_text(shape, ts));
    }
    return ttt__apply1(ctx, &ttt__op_broadcast, a, shape, NULL, 0);
}

// An axis counted from either end; -1 after an error.
static int ttt__axis(ttt_ctx *ctx, const char *op, const ttt_tensor *a, int axis) {
    if (!ttt__living(ctx, op, a, 0)) return -1;
    int i = axis < 0 ? axis + a->shape.rank : axis;
    if (i < 0 || i >= a->shape.rank) {
        ttt_text text;
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: axis %d of a tensor of shape %s; %d..%d expected", op,
                 axis, ttt_shape_text(a->shape, text), -a->shape.rank, a->shape.rank - 1);
    }
    return ctx->result ? -1 : i;
}

ttt_tensor *ttt_sum(ttt_ctx *ctx, ttt_tensor *a) { return ttt_sum_to(ctx, a, ttt_scalar_shape()); }
// The mean of n elements each, summed to a shape. Those whose sum has no number are divided first;
// the other means keep their bits.
static ttt_tensor *ttt__mean_to(ttt_ctx *ctx, ttt_tensor *a, ttt_shape shape, int64_t n) {
    ttt_real share = 1 / (ttt_real)TTT__MAX(n, 1);
    ttt_tensor *y = ttt_scale(ctx, ttt_sum_to(ctx, a, shape), share);
    if (ctx->result || ctx->k->finite(y->size, y->data)) return y;
    ttt_tensor *good = ttt_zeros(ctx, y->shape);
    for (int64_t i = 0; !ctx->result && i < y->size; i++)
        good->data[i] = y->data[i] - y->data[i] == 0;
    return ttt_where(ctx, good, y, ttt_sum_to(ctx, ttt_scale(ctx, a, share), shape));
}
ttt_tensor *ttt_mean(ttt_ctx *ctx, ttt_tensor *a) {
    if (!ttt__operands(ctx, "mean", &a, 1)) return &ctx->empty;
    return ttt__mean_to(ctx, a, ttt_scalar_shape(), a->size);
}
ttt_tensor *ttt_sum_axis(ttt_ctx *ctx, ttt_tensor *a, int axis) {
    int i = ttt__axis(ctx, "sum_axis", a, axis);
    if (i < 0) return &ctx->empty;
    ttt_shape shape = a->shape;
    shape.dim[i] = 1;
    return ttt_sum_to(ctx, a, shape);
}
ttt_tensor *ttt_mean_axis(ttt_ctx *ctx, ttt_tensor *a, int axis) {
    int i = ttt__axis(ctx, "mean_axis", a, axis);
    if (i < 0) return &ctx->empty;
    ttt_shape shape = a->shape;
    shape.dim[i] = 1;
    return ttt__mean_to(ctx, a, shape, a->shape.dim[i]);
}

// Sums so far, of columns side by side: (outer, n, inner).
typedef struct ttt__cumsum {
    int axis;
    bool reverse;
} ttt__cumsum;
enum { TTT__CUMSUM_COLUMNS = 16 };  // that go down together: one alone would wait for each addition
static void ttt__cumsum_columns(int64_t n, int64_t columns, int64_t step, const ttt_real *a,
                                ttt_real *y) {
    double sum[TTT__CUMSUM_COLUMNS] = { 0 };
    for (int64_t i = 0; i < n; i++, a += step, y += step)
        for (int64_t j = 0; j < columns; j++) {
            sum[j] += (double)a[j];
            y[j] = (ttt_real)sum[j];
        }
}
static void ttt__cumsum_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt_tensor *y = (const ttt_tensor *)arg;
    const ttt__cumsum *along = (const ttt__cumsum *)y->arg;
    int64_t n = y->shape.dim[along->axis], inner = 1;
    (void)thread;
    for (int i = along->axis + 1; i < y->shape.rank; i++) inner *= y->shape.dim[i];
    int64_t first = along->reverse ? (n - 1) * inner : 0, step = along->reverse ? -inner : inner;
    for (int64_t outer = begin; outer < end; outer++)
        for (int64_t j = 0; j < inner; j += TTT__CUMSUM_COLUMNS) {
            int64_t at = outer * n * inner + first + j;
            int64_t columns = TTT__MIN(inner - j, (int64_t)TTT__CUMSUM_COLUMNS);
            ttt__cumsum_columns(n, columns, step, A->data + at, y->data + at);
        }
}
FORWARD(cumsum) {
    int64_t outer = 1, n = y->size;
    for (int i = 0; i < ((const ttt__cumsum *)y->arg)->axis; i++) outer *= y->shape.dim[i];
    if (n > 0) ttt__parallel(ctx, -1, outer, 1 + 16384 / (n / outer), ttt__cumsum_share, y);
}
RULE(cumsum) {
    const ttt__cumsum *along = (const ttt__cumsum *)y->arg;
    d[0] = ttt_cumsum(ctx, g, along->axis, !along->reverse);
}
ttt_tensor *ttt_cumsum(ttt_ctx *ctx, ttt_tensor *a, int axis, bool reverse) {
    ttt__cumsum along = { ttt__axis(ctx, "cumsum", a, axis), reverse };
    if (along.axis < 0) return &ctx->empty;
    return ttt__apply1(ctx, &ttt__op_cumsum, a, a->shape, &along, sizeof along);
}

// Plain squares first; lengths for which these are not good are made again, one by one.
FORWARD(norm) {
    int axis = *(const int *)y->arg;
    int64_t n = A->shape.dim[axis], inner = 1;
    for (int i = axis + 1; i < A->shape.rank; i++) inner *= A->shape.dim[i];
    ttt_mark mark = ttt__arena_mark(&ctx->scratch);
    size_t bytes = (size_t)A->size * sizeof *A->data;
    ttt_real *squares = (ttt_real *)ttt__arena_alloc(ctx, &ctx->scratch, bytes);
    if (squares && A->size > 0) {
        ttt__map_numbers(ctx, A->size, A->data, squares, TTT__MAP_square, 0);
        ttt__sum_middle(ctx, squares, y->data, y->size / inner, n, inner);
    }
    for (int64_t i = 0; i < y->size && squares; i++) {
        double sum = n ? (double)y->data[i] : 0;
        const ttt_real *from = A->data + i / inner * n * inner + i % inner;
        y->data[i] = (ttt_real)(ttt__ordinary(sum) ? sqrt(sum) : ttt__length(n, from, inner));
    }
    ttt__arena_release(&ctx->scratch, mark);
}
RULE(norm) { d[0] = ttt_mul(ctx, ttt_div(ctx, A, ttt__divisor(ctx, y)), g); }
ttt_tensor *ttt_norm_axis(ttt_ctx *ctx, ttt_tensor *a, int axis) {
    int i = ttt__axis(ctx, "norm_axis", a, axis);
    if (i < 0) return &ctx->empty;
    ttt_shape shape = a->shape;
    shape.dim[i] = 1;
    return ttt__apply1(ctx, &ttt__op_norm, a, shape, &i, sizeof i);
}

ttt_tensor *ttt_mse(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b) {
    ttt_tensor *in[2] = { a, b };
    if (!ttt__operands(ctx, "mse", in, 2)) return &ctx->empty;
    return ttt_mean(ctx, ttt_square(ctx, ttt_sub(ctx, a, b)));
}

// -- moving elements about
FORWARD(reshape) { (void)ctx; (void)y; }  // the data is shared
RULE(reshape) { d[0] = ttt_reshape(ctx, g, A->shape); }
ttt_tensor *ttt_reshape(ttt_ctx *ctx, ttt_tensor *a, ttt_shape shape) {
    if (!ttt__operands(ctx, "reshape", &a, 1)) return &ctx->empty;
    if (ttt_shape_size(shape) != a->size) {
        ttt_text ta, ts;
        if (!ttt__shape_good(ctx, "reshape", shape, TTT_DTYPE_REAL)) return &ctx->empty;
        return ttt_fail(ctx, TTT_ERR_SHAPE,
                        "reshape: %s has %lld elements, %s has %lld; as many expected",
                        ttt_shape_text(a->shape, ta), (long long)a->size, ttt_shape_text(shape, ts),
                        (long long)ttt_shape_size(shape));
    }
    return ttt__run(ctx, &ttt__op_reshape, &a, 1, shape, NULL, 0, a);
}

typedef struct ttt__permute_job {
    const ttt__kernels *kernels;
    const ttt_real *a;
    ttt_real *y;
    ttt__loops loops;  // over y, with stride 0 of a and 1 of y
    bool whole_rows;   // else the innermost two loops are over the last axes of a and of y
} ttt__permute_job;

static void ttt__permute_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__permute_job *job = (const ttt__permute_job *)arg;
    const ttt__loops *loops = &job->loops;
    int outer = loops->n - (job->whole_rows ? 1 : 2);
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const ttt_real *a = job->a + ttt__loops_at(loops, outer, 0, i);
        ttt_real *y = job->y + ttt__loops_at(loops, outer, 1, i);
        int64_t n = loops->size[outer];
        if (job->whole_rows)
            memcpy(y, a, (size_t)n * sizeof *y);
        else
            job->kernels->transpose(loops->size[outer + 1], n, a, loops->stride[0][outer + 1], y,
                                    loops->stride[1][outer]);
    }
}

static void ttt__loops_swap(ttt__loops *loops, int i, int j) {
    int64_t size = loops->size[i], a = loops->stride[0][i], y = loops->stride[1][i];
    loops->size[i] = loops->size[j];
    loops->stride[0][i] = loops->stride[0][j];
    loops->stride[1][i] = loops->stride[1][j];
    loops->size[j] = size;
    loops->stride[0][j] = a;
    loops->stride[1][j] = y;
}

FORWARD(permute) {
    const int *order = (const int *)y->arg;
    ttt__permute_job job = { ctx->k, A->data, y->data, { y->shape.rank, { 0 }, { { 0 } } }, true };
    ttt__loops *loops = &job.loops;
    int64_t a_stride[TTT_MAX_RANK];
    if (y->size == 0) return;
    ttt__strides(A->shape, A->shape, a_stride);
    memcpy(loops->size, y->shape.dim, sizeof loops->size);
    for (int i = 0; i < loops->n; i++) loops->stride[0][i] = a_stride[order[i]];
    ttt__strides(y->shape, y->shape, loops->stride[1]);
    ttt__loops_join(loops, 2);
    int last = loops->n - 1;
    if (loops->stride[0][last] > 1) {  // brings the last axis of a next to the last axis of y
        job.whole_rows = false;
        for (int i = 0; i < last; i++)
            if (loops->stride[0][i] == 1) ttt__loops_swap(loops, i, last - 1);
    }
    int64_t rows = ttt__loops_count(loops, loops->n - (job.whole_rows ? 1 : 2));
    ttt__parallel(ctx, -1, rows, 1 + 16384 * rows / y->size, ttt__permute_share, &job);
}
RULE(permute) {
    const int *order = (const int *)y->arg;
    int back[TTT_MAX_RANK];
    for (int i = 0; i < y->shape.rank; i++) back[order[i]] = i;
    d[0] = ttt_permute(ctx, g, back);
}
ttt_tensor *ttt_permute(ttt_ctx *ctx, ttt_tensor *a, const int *order) {
    ttt_shape shape;
    int seen = 0;
    if (!ttt__operands(ctx, "permute", &a, 1) || !TTT__GIVEN("permute", order)) return &ctx->empty;
    shape = a->shape;
    for (int i = 0; i < shape.rank; i++) {
        if (order[i] < 0 || order[i] >= shape.rank || (seen >> order[i] & 1))
            return ttt_fail(ctx, TTT_ERR_ARGUMENT,
                            "permute: order[%d] is %d; each axis 0..%d once expected", i, order[i],
                            shape.rank - 1);
        seen |= 1 << order[i];
        shape.dim[i] = a->shape.dim[order[i]];
    }
    return ttt__apply1(ctx, &ttt__op_permute, a, shape, order, (size_t)shape.rank * sizeof *order);
}
ttt_tensor *ttt_transpose(ttt_ctx *ctx, ttt_tensor *a) {
    int order[TTT_MAX_RANK] = { 0, 1, 2, 3, 4, 5, 6, 7 }, r;
    if (!ttt__operands(ctx, "transpose", &a, 1)) return &ctx->empty;
    r = a->shape.rank;
    if (r < 2)
        return ttt_fail(ctx, TTT_ERR_SHAPE, "transpose: a tensor of rank %d has no two last axes",
                        r);
    order[r - 2] = r - 1;
    order[r - 1] = r - 2;
    return ttt_permute(ctx, a, order);
}

typedef struct ttt__span {
    int axis;
    int64_t begin, length;
} ttt__span;
// Copies `count` places of an axis, from a_begin in a (outer, a_length, inner) to y_begin in
// y (outer, y_length, inner).
static void ttt__copy_span(const ttt_tensor *a, int64_t a_begin, ttt_tensor *y, int64_t y_begin,
                           int axis, int64_t count) {
    int64_t outer = 1, inner = 1, a_length = a->shape.dim[axis], y_length = y->shape.dim[axis];
    for (int i = 0; i < axis; i++) outer *= a->shape.dim[i];
    for (int i = axis + 1; i < a->shape.rank; i++) inner *= a->shape.dim[i];
    size_t bytes = (size_t)(count * inner) * sizeof *y->data;
    for (int64_t i = 0; i < outer && bytes > 0; i++)
        memcpy(y->data + (i * y_length + y_begin) * inner,
               a->data + (i * a_length + a_begin) * inner, bytes);
}

FORWARD(slice) {
    const ttt__span *span = (const ttt__span *)y->arg;
    (void)ctx;
    ttt__copy_span(A, span->begin, y, 0, span->axis, span->length);
}
RULE(slice) {
    const ttt__span *span = (const ttt__span *)y->arg;
    d[0] = ttt_pad(ctx, g, span->axis, span->begin, A->shape.dim[span->axis]);
}
FAST(slice) {
    const ttt__span *span = (const ttt__span *)y->arg;
    ttt_tensor *to = into[0];
    int64_t outer = 1, inner = 1, length = to->shape.dim[span->axis];
    for (int i = 0; i < span->axis; i++) outer *= to->shape.dim[i];
    for (int i = span->axis + 1; i < to->shape.rank; i++) inner *= to->shape.dim[i];
    int64_t n = span->length * inner;
    if (!add[0]) memset(to->data, 0, (size_t)to->size * sizeof *to->data);
    for (int64_t i = 0; i < outer && n > 0; i++) {
        ttt_real *at = to->data + (i * length + span->begin) * inner;
        ctx->k->zip[TTT__ZIP_add](n, at, 1, g->data + i * n, 1, at);
    }
}
ttt_tensor *ttt_slice(ttt_ctx *ctx, ttt_tensor *a, int axis, int64_t begin, int64_t count) {
    ttt__span span = { ttt__axis(ctx, "slice", a, axis), begin, count };
    if (span.axis < 0) return &ctx->empty;
    ttt_shape shape = a->shape;
    if (begin < 0 || count < 0 || begin > shape.dim[span.axis] - count) {
        ttt_text text;
        return ttt_fail(ctx, TTT_ERR_ARGUMENT,
                        "slice: %lld places from %lld on go beyond axis %d of %s; places of it "
                        "expected",
                        (long long)count, (long long)begin, axis, ttt_shape_text(shape, text));
    }
    shape.dim[span.axis] = count;
    return ttt__apply1(ctx, &ttt__op_slice, a, shape, &span, sizeof span);
}

FORWARD(pad) {
    const ttt__span *span = (const ttt__span *)y->arg;
    (void)ctx;
    memset(y->data, 0, (size_t)y->size * sizeof *y->data);
    ttt__copy_span(A, 0, y, span->begin, span->axis, A->shape.dim[span->axis]);
}
RULE(pad) {
    const ttt__span *span = (const ttt__span *)y->arg;
    d[0] = ttt_slice(ctx, g, span->axis, span->begin, A->shape.dim[span->axis]);
}
ttt_tensor *ttt_pad(ttt_ctx *ctx, ttt_tensor *a, int axis, int64_t begin, int64_t length) {
    ttt__span span = { ttt__axis(ctx, "pad", a, axis), begin, length };
    if (span.axis < 0) return &ctx->empty;
    ttt_shape shape = a->shape;
    if (begin < 0 || length < 0 || begin > length - shape.dim[span.axis]) {
        ttt_text text;
        return ttt_fail(ctx, TTT_ERR_ARGUMENT,
                        "pad: axis %d of %s does not fit at %lld into %lld places; room for it "
                        "expected", axis,
                        ttt_shape_text(shape, text), (long long)begin, (long long)length);
    }
    shape.dim[span.axis] = length;
    return ttt__apply1(ctx, &ttt__op_pad, a, shape, &span, sizeof span);
}

FORWARD(concat) {
    const ttt__span *span = (const ttt__span *)y->arg;
    int64_t at = 0;
    (void)ctx;
    for (int i = 0; i < y->n_in; i++) {
        ttt__copy_span(y->in[i], 0, y, at, span->axis, y->in[i]->shape.dim[span->axis]);
        at += y->in[i]->shape.dim[span->axis];
    }
}
RULE(concat) {
    const ttt__span *span = (const ttt__span *)y->arg;
    int64_t at = 0;
    for (int i = 0; i < y->n_in; i++) {
        int64_t count = y->in[i]->shape.dim[span->axis];
        if (d[i]) d[i] = ttt_slice(ctx, g, span->axis, at, count);
        at += count;
    }
}
ttt_tensor *ttt_concat(ttt_ctx *ctx, ttt_tensor *const *a, int n, int axis) {
    if (!TTT__GIVEN("concat", a) || !ttt__operands(ctx, "concat", a, n)) return &ctx->empty;
    if (n < 1)
        return ttt_fail(ctx, TTT_ERR_ARGUMENT, "concat: %d tensors given, at least one expected",
                        n);
    ttt__span span = { ttt__axis(ctx, "concat", a[0], axis), 0, 0 };
    if (span.axis < 0) return &ctx->empty;
    ttt_shape shape = a[0]->shape;
    for (int i = 0; i < n; i++) {
        ttt_text t0, ti;
        ttt_shape one = a[i]->shape;
        int64_t length = one.rank > span.axis ? one.dim[span.axis] : 0;
        if (length > INT64_MAX - span.length)
            return ttt_fail(ctx, TTT_ERR_SHAPE, "concat: sizes along axis %d, of %s and before, "
                            "add up beyond 2^63; less expected", axis, ttt_shape_text(one, ti));
        span.length += length;
        one.dim[span.axis] = shape.dim[span.axis];
        if (!ttt_shape_equal(one, shape)) {
            return ttt_fail(ctx, TTT_ERR_SHAPE, "concat: %s and %s differ in more than axis %d",
                            ttt_shape_text(shape, t0), ttt_shape_text(a[i]->shape, ti), axis);
        }
    }
    shape.dim[span.axis] = span.length;
    return ttt__run(ctx, &ttt__op_concat, a, n, shape, &span, sizeof span, NULL);
}

// The leading sizes of a shape, without its last ones.
static ttt_shape ttt__lead(ttt_shape shape, int last) {
    shape.rank -= last;
    for (int i = TTT__MAX(shape.rank, 0); i < TTT_MAX_RANK; i++) shape.dim[i] = 0;
    return shape;
}
// Rows by number, for each of the leading sizes that table, rows and index share after
// broadcasting.
typedef struct ttt__rows_job {
    const ttt__kernels *kernels;
    ttt_real *table, *rows;  // (...,N,D), (...,n,D)
    const int64_t *index;    // (...,n)
    int64_t N, n, D;
    ttt__loops lead;  // strides: 0 of table, 1 of rows, 2 of index, in units of one whole of each
} ttt__rows_job;
static void ttt__index_select_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__rows_job *job = (const ttt__rows_job *)arg;
    const ttt__loops *lead = &job->lead;
    int64_t D = job->D, n = job->n;
    (void)thread;
    for (int64_t l = begin; l < end; l++) {
        const ttt_real *table = job->table + ttt__loops_at(lead, lead->n, 0, l) * job->N * D;
        ttt_real *rows = job->rows + ttt__loops_at(lead, lead->n, 1, l) * n * D;
        const int64_t *index = job->index + ttt__loops_at(lead, lead->n, 2, l) * n;
        for (int64_t i = 0; i < n; i++)
            memcpy(rows + i * D, table + index[i] * D, (size_t)D * sizeof *rows);
    }
}
static void ttt__index_add_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__rows_job *job = (const ttt__rows_job *)arg;
    const ttt__loops *lead = &job->lead;
    int64_t D = job->D, n = job->n;
    (void)thread;
    for (int64_t l = begin; l < end; l++) {
        ttt_real *table = job->table + ttt__loops_at(lead, lead->n, 0, l) * job->N * D;
        const ttt_real *rows = job->rows + ttt__loops_at(lead, lead->n, 1, l) * n * D;
        const int64_t *index = job->index + ttt__loops_at(lead, lead->n, 2, l) * n;
        for (int64_t i = 0; i < n; i++) {
            ttt_real *row = table + index[i] * D;
            job->kernels->zip[TTT__ZIP_add](D, row, 1, rows + i * D, 1, row);
        }
    }
}
// Threads share the leading places, unless several of them add to one table.
static void ttt__each_lead(ttt_ctx *ctx, const ttt_tensor *table, const ttt_tensor *rows,
                           const ttt_tensor *index, ttt__share_fn *share) {
    ttt__rows_job job = { ctx->k, table->data, rows->data, index->index, ttt__dim(table->shape, -2),
                          ttt__dim(index->shape, -1), ttt__dim(table->shape, -1),
                          { 0, { 0 }, { { 0 } } } };
    ttt_shape of_table = ttt__lead(table->shape, 2), of_rows = ttt__lead(rows->shape, 2);
    ttt_shape of_index = ttt__lead(index->shape, 1), all;
    ttt__broadcast_shape(of_table, of_index, &all);
    ttt__broadcast_shape(all, of_rows, &all);
    job.lead.n = all.rank;
    memcpy(job.lead.size, all.dim, sizeof all.dim);
    ttt__strides(of_table, all, job.lead.stride[0]);
    ttt__strides(of_rows, all, job.lead.stride[1]);
    ttt__strides(of_index, all, job.lead.stride[2]);
    int64_t one = job.n * job.D, count = ttt__loops_count(&job.lead, job.lead.n);
    bool shared = share == ttt__index_add_share && ttt_shape_size(of_table) < count;
    if (shared) share(&job, 0, count, 0);
    else ttt__parallel(ctx, -1, count, 1 + 16384 / (one + 1), share, &job);
}

FORWARD(index_select) { ttt__each_lead(ctx, A, y, B, ttt__index_select_share); }
RULE(index_select) {
    if (d[0]) d[0] = ttt__fit(ctx, ttt_index_add(ctx, g, B, ttt__dim(A->shape, -2)), A);
    d[1] = NULL;
}
FAST(index_select) {
    if (!add[0]) memset(into[0]->data, 0, (size_t)into[0]->size * sizeof *into[0]->data);
    ttt__each_lead(ctx, into[0], g, B, ttt__index_add_share);
}
FORWARD(index_add) {
    memset(y->data, 0, (size_t)y->size * sizeof *y->data);
    ttt__each_lead(ctx, y, A, B, ttt__index_add_share);
}
RULE(index_add) {
    if (d[0]) d[0] = ttt__fit(ctx, ttt_index_select(ctx, g, B), A);
    d[1] = NULL;
}

// Checks what index_select and index_add share, and gives the shape of the result, all but the
// number of rows.
static bool ttt__rows_good(ttt_ctx *ctx, const char *op, ttt_tensor *a, const ttt_tensor *index,
                           int64_t N, ttt_shape *shape) {
    ttt_text ta, ti;
    if (!ttt__operands(ctx, op, &a, 1) || !ttt__living(ctx, op, index, 1)) return false;
    if (a->shape.rank < 2 || index->shape.rank < 1 || index->dtype != TTT_DTYPE_INT ||
        !ttt__broadcast_shape(ttt__lead(a->shape, 2), ttt__lead(index->shape, 1), shape) ||
        shape->rank + 2 > TTT_MAX_RANK) {
        ttt_fail(ctx, TTT_ERR_SHAPE,
                 "%s: rows of %s by an index of shape %s (integers, (...,n), expected)", op,
                 ttt_shape_text(a->shape, ta), ttt_shape_text(index->shape, ti));
        return false;
    }
    if (N < 0)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: %lld rows; 0 or more expected", op, (long long)N);
    for (int64_t i = 0; i < index->size && !ctx->result; i++)
        if (index->index[i] < 0 || index->index[i] >= N) {
            ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: index %lld at place %lld, but rows are 0..%lld",
                     op, (long long)index->index[i], (long long)i, (long long)(N - 1));
        }
    if (ctx->result) return false;
    shape->dim[shape->rank] = shape->dim[shape->rank + 1] = 0;
    shape->rank += 2;
    shape->dim[shape->rank - 1] = ttt__dim(a->shape, -1);
    return true;
}
static ttt_tensor *ttt__select(ttt_ctx *ctx, const char *call, ttt_tensor *a, ttt_tensor *index) {
    ttt_tensor *in[2] = { a, index };
    ttt_shape shape;
    if (!ttt__operands(ctx, call, &a, 1)) return &ctx->empty;
    int64_t N = a->shape.rank < 2 ? 0 : ttt__dim(a->shape, -2);
    if (!ttt__rows_good(ctx, call, a, index, N, &shape)) return &ctx->empty;
    shape.dim[shape.rank - 2] = ttt__dim(index->shape, -1);
    return ttt__run(ctx, &ttt__op_index_select, in, 2, shape, NULL, 0, NULL);
}
ttt_tensor *ttt_index_select(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *index) {
    return ttt__select(ctx, "index_select", a, index);
}
ttt_tensor *ttt_index_add(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *index, int64_t N) {
    ttt_tensor *in[2] = { a, index };
    ttt_shape shape;
    if (!ttt__rows_good(ctx, "index_add", a, index, N, &shape)) return &ctx->empty;
    if (ttt__dim(a->shape, -2) != ttt__dim(index->shape, -1))
        return ttt_fail(ctx, TTT_ERR_SHAPE, "index_add: %lld rows, but %lld numbers of rows",
                        (long long)ttt__dim(a->shape, -2), (long long)ttt__dim(index->shape, -1));
    shape.dim[shape.rank - 2] = N;
    return ttt__run(ctx, &ttt__op_index_add, in, 2, shape, NULL, 0, NULL);
}

// The same integers as one long row.
static ttt_tensor *ttt__flat_index(ttt_ctx *ctx, ttt_tensor *index) {
    return ttt__or_empty(ctx,
                         ttt__tensor(ctx, TTT_SHAPE(index->size), TTT_DTYPE_INT, false, index));
}

// The index is flat, so that a gradient's rows are added to one table at once; leading sizes would
// each get a table of their own, to be summed.
static ttt_tensor *ttt__widened_rows(ttt_ctx *ctx, const ttt_tensor *table,
                                     const ttt_tensor *index, ttt_shape shape) {
    int64_t V = table->shape.dim[0], D = table->shape.dim[1];
    ttt_tensor *y = ttt_new(ctx, shape);
    for (int64_t i = 0; i < index->size && !ctx->result; i++) {
        int64_t at = index->index[i];
        if (at < 0 || at >= V)
            ttt_fail(ctx, TTT_ERR_ARGUMENT, "embedding: index %lld; 0..%lld expected",
                     (long long)at, (long long)V - 1);
        else ctx->k->widen(1, D, table->bf16 + at * D, D, y->data + i * D, D);
    }
    return y;
}
ttt_tensor *ttt_embedding(ttt_ctx *ctx, ttt_tensor *table, ttt_tensor *index) {
    if (!ttt__operand(ctx, "embedding", table, 0, TTT__REAL | TTT__BF16)) return &ctx->empty;
    if (!ttt__operand(ctx, "embedding", index, 1, TTT__INT)) return &ctx->empty;
    ttt_shape shape = index->shape;
    if (table->shape.rank != 2 || shape.rank == TTT_MAX_RANK) {
        ttt_text t0, t1;
        return ttt_fail(ctx, TTT_ERR_SHAPE,
                        "embedding: table %s, index %s; (V,D) and (...) expected",
                        ttt_shape_text(table->shape, t0), ttt_shape_text(shape, t1));
    }
    shape.dim[shape.rank++] = table->shape.dim[1];
    if (table->bf16) return ttt__widened_rows(ctx, table, index, shape);
    return ttt_reshape(ctx, ttt__select(ctx, "embedding", table, ttt__flat_index(ctx, index)),
                       shape);
}

// Elements of a by their places in memory, as a tensor of the given shape.
static ttt_tensor *ttt__pick(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *places, ttt_shape shape) {
    ttt_tensor *column = ttt_reshape(ctx, a, TTT_SHAPE(a->size, 1));
    return ttt_reshape(ctx, ttt_index_select(ctx, column, ttt__flat_index(ctx, places)), shape);
}

// -- the largest along an axis: (outer, n, inner) -> (outer, inner)
// NaN is not below or equal to anything, so it is taken, and then the search ends.
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
    bool in_memory;  // count places through all of a, else along the axis
    int64_t *place;
} ttt__largest_job;
static void ttt__largest_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__largest_job *job = (const ttt__largest_job *)arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t from = i / job->inner * job->n * job->inner + i % job->inner;
        int64_t at = ttt__largest(job->a + from, job->n, job->inner);
        job->place[i] = job->in_memory ? from + at * job->inner : at;
    }
}
static ttt_tensor *ttt__places_of_largest(ttt_ctx *ctx, const char *op, ttt_tensor *a, int axis,
                                          bool in_memory) {
    int at = ttt__operands(ctx, op, &a, 1) ? ttt__axis(ctx, op, a, axis) : -1;
    if (at < 0) return &ctx->empty;
    ttt_shape shape = a->shape;
    if (shape.dim[at] == 0) {
        ttt_text text;
        return ttt_fail(ctx, TTT_ERR_SHAPE, "%s: axis %d of %s is empty; size 1 or more expected",
                        op, axis, ttt_shape_text(shape, text));
    }
    ttt__largest_job job = { a->data, shape.dim[at], 1, in_memory, NULL };
    for (int i = at + 1; i < shape.rank; i++) {
        job.inner *= shape.dim[i];
        shape.dim[i - 1] = shape.dim[i];
    }
    ttt_tensor *y = ttt_new_typed(ctx, ttt__lead(shape, 1), TTT_DTYPE_INT, false);
    int back = ttt__profile_begin(ctx, op, false);
    double bytes = ttt__tensor_bytes(a) + ttt__tensor_bytes(y);
    job.place = y->index;
    ttt__parallel(ctx, -1, y->size, 1 + 4096 / job.n, ttt__largest_share, &job);
    if (back >= 0) ttt__profile_count(ttt__profile_end(ctx, back), (double)a->size, bytes);
    return y;
}
ttt_tensor *ttt_argmax(ttt_ctx *ctx, ttt_tensor *a, int axis) {
    return ttt__places_of_largest(ctx, "argmax", a, axis, false);
}
ttt_tensor *ttt_max_axis(ttt_ctx *ctx, ttt_tensor *a, int axis) {
    ttt_tensor *places = ttt__places_of_largest(ctx, "max_axis", a, axis, true);
    if (ctx->result) return &ctx->empty;
    ttt_shape shape = a->shape;
    shape.dim[axis < 0 ? axis + shape.rank : axis] = 1;
    return ttt__pick(ctx, a, places, shape);
}

// -- depthwise convolutions. Through tap (s,t) of a kernel (S,T,C), token (i,j) of a sequence
// (rows,cols,C) sees token (i + s - s0, j + t - t0), if there is one. A line is a single row. The
// gradient in x is the same with the kernel turned around; that in the kernel is the other op, and
// its gradients are convolutions again: so the two have derivatives of every order.
typedef struct ttt__depthwise {
    int axes;      // 1: of tokens in a line, which see those before them; 2: in rows and columns
    int64_t S, T;  // taps; S = 1 in a line
    bool turned;   // the last tap comes first
} ttt__depthwise;
typedef struct ttt__depthwise_job {
    const ttt__kernels *kernels;
    ttt__depthwise of;
    int64_t rows, cols, C, s0, t0;
    bool each;                  // each sequence has a kernel of its own
    const ttt_real *x, *other;  // the kernel, or g
    ttt_real *y;
} ttt__depthwise_job;
static ttt__depthwise_job ttt__depthwise_job_of(ttt_ctx *ctx, const ttt_tensor *y) {
    ttt__depthwise of = *(const ttt__depthwise *)y->arg;
    int64_t t0 = of.axes == 2 ? of.T / 2 : of.turned ? 0 : of.T - 1;
    ttt__depthwise_job job = { ctx->k, of, of.axes == 2 ? ttt__dim(A->shape, -3) : 1,
                               ttt__dim(A->shape, -2), ttt__dim(A->shape, -1), of.S / 2, t0,
                               B->shape.rank == A->shape.rank, A->data, B->data, y->data };
    return job;
}
static int64_t ttt__depthwise_flops(const ttt_tensor *y) {
    const ttt__depthwise *of = (const ttt__depthwise *)y->arg;
    return 2 * A->size * of->S * of->T;
}
// Token j of a row, which is counted over all sequences, and those before token `end` that see the
// same columns of taps; of taps rows s .. s_end.
static ttt__taps ttt__taps_of(const ttt__depthwise_job *job, int64_t row, int64_t j, int64_t end,
                              int64_t s, int64_t s_end) {
    int64_t C = job->C, T = job->of.T, step = job->of.turned ? -C : C;
    int64_t t = TTT__MAX(0, job->t0 - j), t_end = TTT__MIN(T, job->cols + job->t0 - j);
    int64_t alike = t_end - t == T ? job->cols + job->t0 - T + 1 - j : 1;
    int64_t tap = (s * T + t) * C, last = (job->of.S * T - 1) * C;
    int64_t seen = (row + s - job->s0) * job->cols + j + t - job->t0;
    ttt__taps taps = { TTT__MIN(alike, end - j), C, s_end - s, t_end - t, C,
                       job->x + seen * C, job->cols * C, job->of.turned ? last - tap : tap,
                       T * step, step };
    return taps;
}

// A share is 32 tokens of a row.
static void ttt__depthwise_conv_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__depthwise_job *job = (const ttt__depthwise_job *)arg;
    int64_t pieces = (job->cols + 31) / 32, kernel_size = job->of.S * job->of.T * job->C;
    (void)thread;
    for (int64_t share = begin; share < end; share++) {
        int64_t row = share / pieces, i = row % job->rows;
        int64_t j = share % pieces * 32, to = TTT__MIN(j + 32, job->cols);
        int64_t s = TTT__MAX(0, job->s0 - i), s_end = TTT__MIN(job->of.S, job->rows + job->s0 - i);
        const ttt_real *kernel = job->other + (job->each ? row / job->rows * kernel_size : 0);
        while (j < to) {
            ttt__taps taps = ttt__taps_of(job, row, j, to, s, s_end);
            job->kernels->convolve(&taps, kernel, job->y + (row * job->cols + j) * job->C);
            j += taps.tokens;
        }
    }
}
FORWARD(depthwise_conv) {
    ttt__depthwise_job job = ttt__depthwise_job_of(ctx, y);
    if (y->size == 0) return;
    int64_t shares = y->size / (job.cols * job.C) * ((job.cols + 31) / 32);
    int64_t work = 32 * job.C * job.of.S * job.of.T;
    ttt__parallel(ctx, -1, shares, 1 + 32768 / work, ttt__depthwise_conv_share, &job);
}
static ttt_tensor *ttt__depthwise_conv(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *kernel,
                                       ttt__depthwise of) {
    ttt_tensor *in[2] = { x, kernel };
    return ttt__run(ctx, &ttt__op_depthwise_conv, in, 2, x->shape, &of, sizeof of, NULL);
}

// A share is 64 channels of a row of taps. A sum over 1024 tokens is complete before it is added to
// others.
static void ttt__depthwise_kernel_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__depthwise_job *job = (const ttt__depthwise_job *)arg;
    int64_t C = job->C, S = job->of.S, blocks = (C + 63) / 64;
    (void)thread;
    for (int64_t share = begin; share < end; share++) {
        int64_t c = share % blocks * 64, s = share / blocks % S, sequence = share / blocks / S;
        int64_t width = TTT__MIN(64, C - c), row = sequence * job->rows, last = row + job->rows;
        ttt_real *kernel = job->y + sequence * S * job->of.T * C + c;
        for (int64_t t = 0; t < job->of.T; t++)
            memset(kernel + (s * job->of.T + t) * C, 0, (size_t)width * sizeof *kernel);
        if (s < job->s0) row += job->s0 - s;
        else last -= s - job->s0;
        for (; row < last; row++)
            for (int64_t j = 0; j < job->cols;) {
                int64_t to = TTT__MIN(j + 1024, job->cols);
                ttt__taps taps = ttt__taps_of(job, row, j, to, s, s + 1);
                taps.channels = width;
                taps.x += c;
                job->kernels->correlate(&taps, job->other + (row * job->cols + j) * C + c, kernel);
                j += taps.tokens;
            }
    }
}
FORWARD(depthwise_kernel) {
    ttt__depthwise_job job = ttt__depthwise_job_of(ctx, y);
    if (y->size == 0) return;
    int64_t shares = y->size / (job.of.T * job.C) * ((job.C + 63) / 64);
    int64_t work = 64 * job.rows * job.cols * job.of.T;
    ttt__parallel(ctx, -1, shares, 1 + 32768 / (1 + work), ttt__depthwise_kernel_share, &job);
}
// The kernel of each sequence of x.
static ttt_tensor *ttt__depthwise_kernel(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *g,
                                         ttt__depthwise of) {
    ttt_tensor *in[2] = { x, g };
    ttt_shape shape = x->shape;
    shape.dim[shape.rank - 2] = of.T;
    if (of.axes == 2) shape.dim[shape.rank - 3] = of.S;
    return ttt__run(ctx, &ttt__op_depthwise_kernel, in, 2, shape, &of, sizeof of, NULL);
}

RULE(depthwise_conv) {
    ttt__depthwise of = *(const ttt__depthwise *)y->arg, back = of, straight = of;
    back.turned = !of.turned;
    straight.turned = false;
    if (d[0]) d[0] = ttt__depthwise_conv(ctx, g, B, back);
    ttt_tensor *seen = of.turned ? g : A, *seeing = of.turned ? A : g;
    if (d[1]) d[1] = ttt__fit(ctx, ttt__depthwise_kernel(ctx, seen, seeing, straight), B);
}
RULE(depthwise_kernel) {
    ttt__depthwise of = *(const ttt__depthwise *)y->arg, back = of;
    back.turned = true;
    if (d[0]) d[0] = ttt__depthwise_conv(ctx, B, g, back);
    if (d[1]) d[1] = ttt__depthwise_conv(ctx, A, g, of);
}

static bool ttt__taps_good(ttt__depthwise of) {  // a kernel in two axes has a middle
    return of.S > 0 && of.T > 0 && (of.axes == 1 || (of.S % 2 == 1 && of.T % 2 == 1));
}
static ttt_tensor *ttt__depthwise_call(ttt_ctx *ctx, const char *call, ttt_tensor *x,
                                       ttt_tensor *kernel, int axes, const char *expected) {
    ttt_tensor *in[2] = { x, kernel };
    if (!ttt__operands(ctx, call, in, 2)) return &ctx->empty;
    if (x->shape.rank > axes && kernel->shape.rank > axes) {
        ttt__depthwise of = { axes, axes == 2 ? ttt__dim(kernel->shape, -3) : 1,
                              ttt__dim(kernel->shape, -2), false };
        ttt_shape lead = ttt__lead(kernel->shape, axes + 1);
        bool lead_fits = lead.rank == 0 || ttt_shape_equal(lead, ttt__lead(x->shape, axes + 1));
        bool channels_fit = ttt__dim(kernel->shape, -1) == ttt__dim(x->shape, -1);
        if (ttt__taps_good(of) && lead_fits && channels_fit)
            return ttt__depthwise_conv(ctx, x, kernel, of);
    }
    ttt_text tx, tk;
    return ttt_fail(ctx, TTT_ERR_SHAPE,
                    "%s: x %s, kernel %s; %s expected, the kernel with x's leading sizes or none",
                    call, ttt_shape_text(x->shape, tx), ttt_shape_text(kernel->shape, tk),
                    expected);
}
ttt_tensor *ttt_depthwise_conv1d(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *kernel) {
    return ttt__depthwise_call(ctx, "depthwise_conv1d", x, kernel, 1, "(...,N,C) and (taps,C)");
}
ttt_tensor *ttt_depthwise_conv2d(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *kernel) {
    return ttt__depthwise_call(ctx, "depthwise_conv2d", x, kernel, 2,
                               "(...,rows,cols,C) and (odd,odd,C)");
}
ttt_tensor *ttt_depthwise_kernel(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *g, ttt_shape taps) {
    ttt_tensor *in[2] = { x, g };
    if (!ttt__operands(ctx, "depthwise_kernel", in, 2)) return &ctx->empty;
    ttt__depthwise of = { taps.rank, taps.rank == 2 ? taps.dim[0] : 1,
                          taps.dim[taps.rank == 2 ? 1 : 0], false };
    bool axes_good = (of.axes == 1 || of.axes == 2) && x->shape.rank > of.axes;
    if (axes_good && ttt__taps_good(of) && ttt_shape_equal(x->shape, g->shape))
        return ttt__depthwise_kernel(ctx, x, g, of);
    ttt_text tx, tg, tt;
    return ttt_fail(ctx, TTT_ERR_SHAPE,
                    "depthwise_kernel: x %s, g %s, taps %s; equal shapes (...,N,C) with (taps), or "
                    "(...,rows,cols,C) with (odd,odd), expected",
                    ttt_shape_text(x->shape, tx), ttt_shape_text(g->shape, tg),
                    ttt_shape_text(taps, tt));
}

// -- along the last axis
typedef struct ttt__norm {
    double eps;
    bool centered;
} ttt__norm;
// One row of the inputs (b: NULL for ops of one) and of the result.
typedef struct ttt__row {
    const ttt__kernels *kernels;
    const ttt__norm *norm;  // the op's argument, if it has one
    int64_t D;              // length of the inputs' rows
    const ttt_real *a, *b;
    ttt_real *y;
    int64_t b_rows;         // softmax_seen: how many b has
} ttt__row;
typedef void ttt__row_fn(const ttt__row *row);
typedef struct ttt__row_job {
    ttt__row first;
    int64_t y_width;  // D, or 1
    ttt__row_fn *run;
} ttt__row_job;

static void ttt__rows_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__row_job *job = (const ttt__row_job *)arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        ttt__row row = job->first;
        row.a += i * row.D;
        if (row.b) row.b += i * row.D;
        row.y += i * job->y_width;
        job->run(&row);
    }
}
static void ttt__each_row(ttt_ctx *ctx, ttt_tensor *y, ttt__row_fn *run) {
    const ttt_real *b = y->n_in > 1 ? B->data : NULL;
    int64_t D = ttt__dim(A->shape, -1);
    ttt__row first = { ctx->k, (const ttt__norm *)y->arg, D, A->data, b, y->data, 0 };
    ttt__row_job job = { first, ttt__dim(y->shape, -1), run };
    if (A->size > 0) ttt__parallel(ctx, -1, A->size / D, 1 + 4096 / D, ttt__rows_share, &job);
}
// A row of the result is as long as one of the inputs, or has one number.
static ttt_tensor *ttt__row_op(ttt_ctx *ctx, const ttt_op *op, ttt_tensor *const *in, int n,
                               bool one, const void *arg, size_t bytes) {
    if (!ttt__operands(ctx, op->name, in, n)) return &ctx->empty;
    if (in[0]->shape.rank < 1 || (n > 1 && !ttt_shape_equal(in[0]->shape, in[1]->shape))) {
        ttt_text t0, t1;
        return ttt_fail(ctx, TTT_ERR_SHAPE,
                        "%s: shapes %s and %s; rank 1 or more, and equal shapes, expected",
                        op->name, ttt_shape_text(in[0]->shape, t0),
                        ttt_shape_text(in[n - 1]->shape, t1));
    }
    ttt_shape shape = in[0]->shape;
    if (one) shape.dim[shape.rank - 1] = 1;
    return ttt__run(ctx, op, in, n, shape, arg, bytes, NULL);
}
#define ROW(name) static void ttt__##name##_row(const ttt__row *row)

ROW(softmax) { row->kernels->softmax(row->D, row->a, row->y); }
FORWARD(softmax) { ttt__each_row(ctx, y, ttt__softmax_row); }
static ttt_tensor *ttt__softmax_back(ttt_ctx *ctx, ttt_tensor *y, ttt_tensor *g) {
    ttt_tensor *gy = ttt_mul(ctx, g, y);  // y (g - sum g y)
    return ttt_sub(ctx, gy, ttt_mul(ctx, y, ttt_sum_axis(ctx, gy, -1)));
}
RULE(softmax) { d[0] = ttt__softmax_back(ctx, y, g); }
ttt_tensor *ttt_softmax(ttt_ctx *ctx, ttt_tensor *a) {
    return ttt__row_op(ctx, &ttt__op_softmax, &a, 1, false, NULL, 0);
}

// Rows of `seen` repeat with those of a.
static void ttt__softmax_seen_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__row *first = (const ttt__row *)arg;
    int64_t D = first->D;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        first->kernels->softmax_seen(D, first->a + i * D, first->b + i % first->b_rows * D,
                                     first->y + i * D);
}
FORWARD(softmax_seen) {
    int64_t D = ttt__dim(y->shape, -1);
    if (y->size == 0) return;
    ttt__row first = { ctx->k, NULL, D, A->data, B->data, y->data, B->size / D };
    ttt__parallel(ctx, -1, y->size / D, 1 + 4096 / D, ttt__softmax_seen_share, &first);
}
// What is not seen has y = 0, and may have any g.
RULE(softmax_seen) {
    if (d[0])
        d[0] = ttt__softmax_back(ctx, y, ttt_where(ctx, B, g, ttt_scalar(ctx, 0)));
    d[1] = NULL;
}
ttt_tensor *ttt_softmax_seen(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *seen) {
    ttt_tensor *in[2] = { a, seen };
    if (!ttt__operands(ctx, "softmax_seen", in, 2)) return &ctx->empty;
    bool fits = a->shape.rank >= 1 && seen->shape.rank >= 1 && seen->shape.rank <= a->shape.rank;
    for (int i = 1; fits && i <= seen->shape.rank; i++)
        fits = ttt__dim(seen->shape, -i) == ttt__dim(a->shape, -i);
    if (!fits) {
        ttt_text t0, t1;
        return ttt_fail(ctx, TTT_ERR_SHAPE,
                        "softmax_seen: a %s, seen %s; the last axes of a expected",
                        ttt_shape_text(a->shape, t0), ttt_shape_text(seen->shape, t1));
    }
    return ttt__run(ctx, &ttt__op_softmax_seen, in, 2, a->shape, NULL, 0, NULL);
}

ROW(log_softmax) { row->kernels->log_softmax(row->D, row->a, row->y); }
FORWARD(log_softmax) { ttt__each_row(ctx, y, ttt__log_softmax_row); }
RULE(log_softmax) {
    d[0] = ttt_sub(ctx, g, ttt_mul(ctx, ttt_exp(ctx, y), ttt_sum_axis(ctx, g, -1)));
}
ttt_tensor *ttt_log_softmax(ttt_ctx *ctx, ttt_tensor *a) {
    return ttt__row_op(ctx, &ttt__op_log_softmax, &a, 1, false, NULL, 0);
}

ROW(normalize) {
    row->kernels->normalize(row->D, row->a, row->y, row->norm->eps, row->norm->centered);
}
FORWARD(normalize) { ttt__each_row(ctx, y, ttt__normalize_row); }
RULE(normalize) {
    const ttt__norm *norm = (const ttt__norm *)y->arg;
    d[0] = ttt_normalize_d1(ctx, A, g, (ttt_real)norm->eps, norm->centered);
}
static bool ttt__eps_good(ttt_ctx *ctx, const char *who, ttt_real eps) {
    if (!ctx->result && !(eps >= 0))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: eps is %g; 0 or more expected", who, (double)eps);
    return !ctx->result;
}
static ttt_tensor *ttt__normalize(ttt_ctx *ctx, ttt_tensor *a, ttt_real eps, bool centered) {
    ttt__norm norm = { (double)eps, centered };
    if (!ttt__eps_good(ctx, "normalize", eps)) return &ctx->empty;
    return ttt__row_op(ctx, &ttt__op_normalize, &a, 1, false, &norm, sizeof norm);
}
ttt_tensor *ttt_layer_normalize(ttt_ctx *ctx, ttt_tensor *a, ttt_real eps) {
    return ttt__normalize(ctx, a, eps, true);
}
ttt_tensor *ttt_rms_normalize(ttt_ctx *ctx, ttt_tensor *a, ttt_real eps) {
    return ttt__normalize(ctx, a, eps, false);
}

// With x = x^(a), r = rstd(a), J v = normalize_d1(a, v), D the length of a row, sums over a row:
//   <u, J g> = r (sum u g - (sum u)(sum g)/D - (sum u x)(sum g x)/D),  J symmetric,
//   d r = -r^2 x/D . da,  d x = J da,  hence the gradient in a of <u, J g>:
//   -r/D ( x <u, J g> + (sum g x) J u + (sum u x) J g ).
// Unless the norm is centered, the second product of the first line is missing; J takes care of it.
ROW(normalize_d1) {
    row->kernels->normalize_d1(row->D, row->a, row->b, row->y, row->norm->eps, row->norm->centered);
}
FORWARD(normalize_d1) { ttt__each_row(ctx, y, ttt__normalize_d1_row); }
RULE(normalize_d1) {
    const ttt__norm *norm = (const ttt__norm *)y->arg;
    ttt_real eps = (ttt_real)norm->eps;
    ttt_tensor *u = g, *Ju = ttt_normalize_d1(ctx, A, u, eps, norm->centered);
    if (d[0]) {
        ttt_tensor *x = ttt__normalize(ctx, A, eps, norm->centered);
        ttt_tensor *r = ttt_rstd(ctx, A, eps, norm->centered);
        ttt_tensor *inner = ttt_sum_axis(ctx, ttt_mul(ctx, u, y), -1);
        ttt_tensor *gx = ttt_sum_axis(ctx, ttt_mul(ctx, B, x), -1);
        ttt_tensor *ux = ttt_sum_axis(ctx, ttt_mul(ctx, u, x), -1);
        ttt_tensor *sum = ttt_add(ctx, ttt_mul(ctx, x, inner),
                                  ttt_add(ctx, ttt_mul(ctx, Ju, gx), ttt_mul(ctx, y, ux)));
        d[0] = ttt_mul(ctx, sum, ttt_scale(ctx, r, -1 / (ttt_real)ttt__dim(A->shape, -1)));
    }
    if (d[1]) d[1] = Ju;
}
ttt_tensor *ttt_normalize_d1(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *g, ttt_real eps,
                             bool centered) {
    ttt__norm norm = { (double)eps, centered };
    ttt_tensor *in[2] = { a, g };
    if (!ttt__eps_good(ctx, "normalize_d1", eps)) return &ctx->empty;
    return ttt__row_op(ctx, &ttt__op_normalize_d1, in, 2, false, &norm, sizeof norm);
}

ROW(rstd) {
    *row->y = row->kernels->moments(row->D, row->a, row->norm->eps, row->norm->centered).rstd;
}
FORWARD(rstd) { ttt__each_row(ctx, y, ttt__rstd_row); }
RULE(rstd) {  // -g r^2 x / D
    const ttt__norm *norm = (const ttt__norm *)y->arg;
    ttt_tensor *x = ttt__normalize(ctx, A, (ttt_real)norm->eps, norm->centered);
    ttt_tensor *gr2 = ttt_mul(ctx, g, ttt_square(ctx, y));
    d[0] = ttt_mul(ctx, x, ttt_scale(ctx, gr2, -1 / (ttt_real)ttt__dim(A->shape, -1)));
}
ttt_tensor *ttt_rstd(ttt_ctx *ctx, ttt_tensor *a, ttt_real eps, bool centered) {
    ttt__norm norm = { (double)eps, centered };
    if (!ttt__eps_good(ctx, "rstd", eps)) return &ctx->empty;
    return ttt__row_op(ctx, &ttt__op_rstd, &a, 1, true, &norm, sizeof norm);
}
#undef ROW

// ---- [13] MATRIX PRODUCT ------------------------------------------------------------------------
// One product C = init + A B of M x K by K x N numbers, see ttt__gemm. Each number of C begins with
// init and takes its K terms one after the other, in whatever order the numbers come about; where
// the sum is cut, it goes on from what was stored. All goes through `tile`, so that all sums are
// alike; nothing may sum in parts that are added later. The processor multiplies far
// faster than memory delivers, so the work is cut such that what was fetched is used often before
// it has to make room again. From the outside in, as [Goto 2008] does and names it:
//   - into NC = 1536 columns: what is packed of B, KC x NC (3 MB), stays in the last-level cache;
//   - into at most KC = 512 terms of the sum, in equal parts: 6 rows of A of that length (12 kB)
//     stay in the first-level cache while a tile uses them, and a panel of B of that length (128 kB
//     at 64 columns) in the second;
//   - into about MC = 384 rows: so much of A (768 kB) stays in the second-level cache too, while it
//     meets one panel after the other;
//   - into panels of NR columns, as wide as the widest tile (4 vectors, 64 columns, with AVX-512);
//   - into tiles, whose sums live in registers: see `tile` in [8]. A tile is as wide as its panel,
//     and 6 rows high, or up to 16 in a last panel that is narrower.
// A is read in place, and so is B if its rows are contiguous: copying it costs more than it saves.
// But blocks of A are copied if it is large, and transposed or with rows a multiple of 4096 bytes
// apart: terms of a row, or rows, would fall in the same cache sets.
// B is copied ("packed") panel by panel if it is transposed or bfloat16; the last panel if it is
// not a whole number of vectors wide (padded with zeros); and all of B if more than 1024 rows share
// it, or if at least 96 do and
//   - it is large (512 kB), or
//   - its rows lie a multiple of 4096 bytes apart, and would all fall in the same cache sets, or
//   - it is too large for the first-level cache (32 kB) and its panels have less than 64 columns: a
//     cache line or two of each row at a time.
// Few rows (FEW = 12) use b so little that reading it takes the time. It is then read where it lies
// and asked for in advance: by blocks of 16 terms, so in long runs, where its rows are contiguous;
// 16 rows of it at once, which are transposed in registers, where its columns are.
// The numbers were found by trying, most of them with AVX-512 and float.
#define TTT__KC ((int64_t)512)
#define TTT__MC ((int64_t)384)
#define TTT__NC ((int64_t)1536)
#define TTT__FEW ((int64_t)12)
#define TTT__FEW_TERMS ((int64_t)16)
#define TTT__NR_MAX ((int64_t)64)  // 4 vectors of AVX-512; also where columns are cut for threads
// What packing needs: KC x NC numbers of b (the last panel padded), a tile at the edge, and a block
// of a.
#define TTT__PACKED_REALS (TTT__KC * (TTT__NC + TTT__NR_MAX))
#define TTT__EDGE_REALS (TTT__MAX_ROWS * TTT__NR_MAX)
#define TTT__BLOCK_REALS (TTT__KC * TTT__MC * 3 / 2)
#define TTT__PACK_REALS ((size_t)(TTT__PACKED_REALS + TTT__EDGE_REALS + TTT__BLOCK_REALS))

// Leaves the first `from` columns out; or rows; or terms of the sum.
static void ttt__gemm_columns(ttt__gemm *gemm, int64_t from) {
    if (gemm->bf16) gemm->bf16 += from * gemm->b_col;
    else gemm->b += from * gemm->b_col;
    gemm->c += from;
    if (gemm->init) gemm->init += from;
    if (gemm->finish.add) gemm->finish.add += from;
}
static void ttt__gemm_rows(ttt__gemm *gemm, int64_t from) {
    gemm->a += from * gemm->a_row;
    gemm->c += from * gemm->c_row;
    if (gemm->init) gemm->init += from * gemm->init_row;
    if (gemm->finish.add) gemm->finish.add += from * gemm->finish.add_row;
}
static void ttt__gemm_terms(ttt__gemm *gemm, int64_t from) {
    gemm->a += from * gemm->a_col;
    if (gemm->bf16) gemm->bf16 += from * gemm->b_row;
    else gemm->b += from * gemm->b_row;
}

// What is done to m rows and n columns of c whose sums are complete.
static void ttt__finish_rows(const ttt__kernels *kernels, const ttt__gemm *gemm, int64_t m,
                             int64_t n) {
    const ttt__finish *finish = &gemm->finish;
    ttt_real *c = gemm->c;
    for (int64_t i = 0; i < m; i++, c += gemm->c_row) {
        if (finish->map) finish->map(n, c, c, 0);
        if (finish->add)
            kernels->zip[TTT__ZIP_add](n, c, 1, finish->add + i * finish->add_row, 1, c);
    }
}

// Copies b (k,n), padded with zeros to `width` columns, row after row.
static void ttt__pack(const ttt__kernels *kernels, const ttt__gemm *gemm, int64_t width,
                      ttt_real *to) {
    const ttt_real *b = gemm->b;
    const uint16_t *half = gemm->bf16;
    int64_t n = gemm->n, k = gemm->k, b_row = gemm->b_row, b_col = gemm->b_col;
    if (b_col != 1 && half) kernels->transpose16(n, k, half, b_col, to, width);
    else if (b_col != 1) kernels->transpose(n, k, b, b_col, to, width);
    else if (half) kernels->widen(k, n, half, b_row, to, width);
    else
        for (int64_t i = 0; i < k; i++)
            memcpy(to + i * width, b + i * b_row, (size_t)n * sizeof *b);
    for (int64_t i = 0; i < k && n < width; i++)
        for (int64_t j = n; j < width; j++) to[i * width + j] = 0;
}

// A tile of which only n columns exist: through `edge`, which has room for a whole one.
static void ttt__tile_at_edge(ttt__tile_fn *tile, const ttt__gemm *gemm, int64_t rows,
                              int64_t width, ttt_real *edge) {
    size_t bytes = (size_t)gemm->n * sizeof *edge;
    ttt__gemm whole = *gemm;
    if (gemm->init) {
        memset(edge, 0, (size_t)(rows * width) * sizeof *edge);
        for (int64_t i = 0; i < rows; i++)
            memcpy(edge + i * width, gemm->init + i * gemm->init_row, bytes);
        whole.init = edge;
        whole.init_row = width;
    }
    whole.c = edge;
    whole.c_row = width;
    tile(&whole);
    for (int64_t i = 0; i < rows; i++) memcpy(gemm->c + i * gemm->c_row, edge + i * width, bytes);
}

// A block of rows times one panel, of `width` columns with what is padded, tile by tile; rows are
// spread evenly over tiles, of which the tallest has `most`. gemm is used up: it ends below the
// last row.
static void ttt__panel(const ttt__kernels *kernels, ttt__tile_fn *const *tile, int64_t most,
                       ttt__gemm *gemm, int64_t width, ttt_real *edge) {
    int64_t m = gemm->m, n = gemm->n, tiles = (m + most - 1) / most;
    bool finish = gemm->finish.map || gemm->finish.add;
    for (int64_t t = 0; t < tiles; t++) {
        int64_t rows = m / tiles + (t < m % tiles);
        if (n == width) tile[rows - 1](gemm);
        else ttt__tile_at_edge(tile[rows - 1], gemm, rows, width, edge);
        if (finish) ttt__finish_rows(kernels, gemm, rows, n);
        ttt__gemm_rows(gemm, rows);
    }
}
// The same with b packed or such that tiles can read it in place.
static void ttt__panel_of_rows(const ttt__kernels *kernels, ttt__gemm *gemm, int64_t width,
                               ttt_real *edge) {
    int64_t cols = width / kernels->lanes - 1;
    ttt__panel(kernels, kernels->tile[cols], kernels->tile_rows[cols], gemm, width, edge);
}

// How b is read.
typedef struct ttt__way {
    bool pack;
    ttt__tile_fn *const *few;  // tiles for few rows, NULL if there are more
    int64_t panel, terms;      // columns of a panel; most terms of a block
} ttt__way;

static bool ttt__pages_apart(int64_t row) { return row * (int64_t)sizeof(ttt_real) % 4096 == 0; }
// Copies a (m,k) row after row.
static void ttt__pack_rows(const ttt__kernels *kernels, ttt__gemm *gemm, ttt_real *to) {
    int64_t m = gemm->m, k = gemm->k;
    if (gemm->a_col != 1) kernels->transpose(k, m, gemm->a, gemm->a_col, to, k);
    else
        for (int64_t i = 0; i < m; i++)
            memcpy(to + i * k, gemm->a + i * gemm->a_row, (size_t)k * sizeof *to);
    gemm->a = to;
    gemm->a_row = gemm->k;
    gemm->a_col = 1;
}
// A block of rows times one panel, which the first block of rows packs; the others find it packed.
static void ttt__block_by_panel(const ttt__kernels *kernels, ttt__gemm *gemm, const ttt__way *way,
                                bool first, ttt_real *packed, ttt_real *edge) {
    int64_t lanes = kernels->lanes, n = gemm->n, width = (n + lanes - 1) / lanes * lanes;
    bool whole = n == way->panel;
    if (way->few && whole) {
        ttt__panel(kernels, way->few, TTT__TILE_ROWS, gemm, n, NULL);
        return;
    }
    if (way->pack || n < width) {
        if (first) ttt__pack(kernels, gemm, width, packed);
        gemm->b = packed;
        gemm->b_row = width;
    }
    if (way->pack && whole && gemm->k >= 128 && kernels->ahead[4][0])
        ttt__panel(kernels, kernels->ahead[4], TTT__TILE_ROWS, gemm, n, NULL);
    else ttt__panel_of_rows(kernels, gemm, width, edge);
}
// A block of so many terms and at most NC columns: all rows, in blocks of about MC, times all
// panels.
static void ttt__gemm_block(const ttt__kernels *kernels, const ttt__gemm *gemm,
                            const ttt__way *way, ttt_real *workspace) {
    int64_t blocks = TTT__MAX(1, (gemm->m + TTT__MC / 2) / TTT__MC);
    ttt_real *edge = workspace + TTT__PACKED_REALS, *rows = edge + TTT__EDGE_REALS;
    for (int64_t block = 0; block < blocks; block++) {
        int64_t i = gemm->m * block / blocks;
        ttt__gemm some = *gemm;
        ttt__gemm_rows(&some, i);
        some.m = gemm->m * (block + 1) / blocks - i;
        bool apart = some.a_col != 1 || ttt__pages_apart(some.a_row);
        if (apart && some.n >= 128 && some.m * some.k > 1 << 13)
            ttt__pack_rows(kernels, &some, rows);
        for (int64_t j = 0; j < gemm->n; j += way->panel) {
            ttt_real *packed = workspace + (blocks > 1 ? j * gemm->k : 0);
            ttt__gemm part = some;
            ttt__gemm_columns(&part, j);
            part.n = TTT__MIN(way->panel, gemm->n - j);
            ttt__block_by_panel(kernels, &part, way, block == 0, packed, edge);
        }
    }
}

// A product of one block and one panel. Most small ones are, and over in 300 ns, of which the loops
// of ttt__gemm_blocks would take 20.
static void ttt__gemm_panel(const ttt__kernels *kernels, const ttt__gemm *gemm, bool pack,
                            ttt_real *workspace) {
    ttt__gemm part = *gemm;
    if (pack) {
        ttt__pack(kernels, gemm, gemm->n, workspace);
        part.b = workspace;
        part.b_row = gemm->n;
    }
    ttt__panel_of_rows(kernels, &part, gemm->n, NULL);
}

static void ttt__gemm_blocks(const ttt__kernels *kernels, const ttt__gemm *gemm,
                             const ttt__way *way, ttt_real *workspace) {
    int64_t blocks = TTT__MAX(1, (gemm->k + way->terms - 1) / way->terms);
    for (int64_t j = 0; j < gemm->n; j += TTT__NC)
        for (int64_t block = 0; block < blocks; block++) {
            int64_t from = gemm->k * block / blocks, to = gemm->k * (block + 1) / blocks;
            ttt__gemm part = *gemm;
            ttt__gemm_columns(&part, j);
            ttt__gemm_terms(&part, from);
            part.n = TTT__MIN(TTT__NC, gemm->n - j);
            part.k = to - from;
            if (block > 0) {  // goes on from the sums of the block before
                part.init = part.c;
                part.init_row = part.c_row;
            }
            if (block < blocks - 1) memset(&part.finish, 0, sizeof part.finish);
            ttt__gemm_block(kernels, &part, way, workspace);
        }
}

static ttt__way ttt__way_of(const ttt__kernels *kernels, const ttt__gemm *gemm) {
    int64_t m = gemm->m, size = gemm->k * gemm->n, widest = kernels->lanes * kernels->tile_cols;
    bool half = gemm->bf16 != NULL, across = gemm->b_col != 1;
    bool narrow = widest < TTT__NR_MAX && size > 1 << 13, large = size > 1 << 17;
    bool used_often = m >= 96 && (narrow || large || ttt__pages_apart(gemm->b_row));
    bool pack = half || across || m > 1024 || used_often;
    ttt__way way = { pack, NULL, widest, TTT__KC };
    bool reads = half || across || size > 1 << 18;
    if (!kernels->ahead[0][0] || m > TTT__FEW || !reads) return way;
    way.few = kernels->ahead[2 * across + half];
    if (across) way.panel = kernels->lanes;
    else way.terms = TTT__FEW_TERMS;
    return way;
}
static void ttt__gemm_run(const ttt__kernels *kernels, const ttt__gemm *gemm, ttt_real *workspace) {
    int64_t m = gemm->m, n = gemm->n, lanes = kernels->lanes;
    if (m == 0 || n == 0) return;  // a share of fewer rows or columns than threads
    ttt__way way = ttt__way_of(kernels, gemm);
    bool one_panel = m <= TTT__MC && gemm->k <= TTT__KC && n <= way.panel && n % lanes == 0;
    if (one_panel && !way.few) ttt__gemm_panel(kernels, gemm, way.pack, workspace);
    else ttt__gemm_blocks(kernels, gemm, &way, workspace);
}

// -- batches of products
// Every iteration of `kept` is one product of the result; each is the sum over the iterations of
// `summed`. Strides: 0 of a, 1 of b, 2 of init, in elements.
typedef struct ttt__product {
    ttt_ctx *ctx;
    ttt__gemm one;
    int64_t c_step;  // from one result to the next
    ttt__loops kept, summed;
    int64_t row_blocks, column_blocks, n_summed;
} ttt__product;

// Part i of n of a size, cut at multiples of `unit`, so that a cut never changes how a number is
// summed.
static int64_t ttt__cut(int64_t size, int64_t i, int64_t n, int64_t unit) {
    return i == n ? size : size * i / n / unit * unit;
}

// Summand s of one product of the result.
static ttt__gemm ttt__product_at(const ttt__product *product, int64_t which, int64_t s) {
    const ttt__loops *kept = &product->kept, *summed = &product->summed;
    ttt__gemm gemm = product->one;
    int64_t a = ttt__loops_at(kept, kept->n, 0, which) + ttt__loops_at(summed, summed->n, 0, s);
    int64_t b = ttt__loops_at(kept, kept->n, 1, which) + ttt__loops_at(summed, summed->n, 1, s);
    bool onto_c = gemm.init == gemm.c, bias = gemm.finish.add_row == 0;  // the same for all
    gemm.a += a;
    if (gemm.bf16) gemm.bf16 += b;
    else gemm.b += b;
    gemm.c += which * product->c_step;
    if (gemm.finish.add && !bias) gemm.finish.add += which * product->c_step;
    if (onto_c || s > 0) gemm.init = gemm.c;
    else if (gemm.init) gemm.init += ttt__loops_at(kept, kept->n, 2, which);
    if (s > 0) gemm.init_row = gemm.c_row;
    return gemm;
}

static void ttt__product_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__product *product = (const ttt__product *)arg;
    int64_t m = product->one.m, n = product->one.n;
    int64_t rows = product->row_blocks, columns = product->column_blocks;
    for (int64_t part = begin; part < end; part++) {
        int64_t column = part % columns, row = part / columns % rows, which = part / columns / rows;
        int64_t i = ttt__cut(m, row, rows, 1), i_end = ttt__cut(m, row + 1, rows, 1);
        int64_t j = ttt__cut(n, column, columns, TTT__NR_MAX);
        int64_t j_end = ttt__cut(n, column + 1, columns, TTT__NR_MAX);
        for (int64_t s = 0; s < product->n_summed; s++) {
            ttt__gemm gemm = ttt__product_at(product, which, s);
            gemm.m = i_end - i;
            gemm.n = j_end - j;
            ttt__gemm_rows(&gemm, i);
            ttt__gemm_columns(&gemm, j);
            ttt__gemm_run(product->ctx->k, &gemm, product->ctx->pack[thread]);
        }
    }
}

// Threads share many products whole, few by their rows, and rows too few for that by their columns.
static void ttt__product_start(ttt__product *product) {
    ttt_ctx *ctx = product->ctx;
    const ttt__gemm *one = &product->one;
    int64_t kept = ttt__loops_count(&product->kept, product->kept.n), threads = ctx->threads;
    int64_t tiles = TTT__MIN(threads, (one->m + TTT__TILE_ROWS - 1) / TTT__TILE_ROWS);
    int64_t panels = TTT__MIN(threads, (one->n + TTT__NR_MAX - 1) / TTT__NR_MAX);
    product->n_summed = ttt__loops_count(&product->summed, product->summed.n);
    product->row_blocks = kept >= 4 * threads ? 1 : tiles;
    product->column_blocks = kept * product->row_blocks >= threads ? 1 : panels;
    int64_t parts = product->row_blocks * product->column_blocks;
    if (kept * parts * product->n_summed == 1) {  // a single small one: no time for anything else
        ttt__gemm_run(ctx->k, one, ctx->pack[0]);
        return;
    }
    int64_t work = one->m * one->n * one->k * product->n_summed / parts + 1;
    ttt__parallel(ctx, -1, kept * parts, 1 + 100000 / work, ttt__product_share, product);
}

// Leading sizes of a, b, init and y become loops. Those that y lacks are summed over.
static void ttt__product_loops(ttt__product *product, const ttt_tensor *a, const ttt_tensor *b,
                               const ttt_tensor *init, ttt_shape y) {
    ttt_shape a_lead = ttt__lead(a->shape, 2), b_lead = ttt__lead(b->shape, 2), all;
    int64_t a_stride[TTT_MAX_RANK], b_stride[TTT_MAX_RANK], y_stride[TTT_MAX_RANK];
    int64_t init_stride[TTT_MAX_RANK] = { 0 };
    const ttt__gemm *one = &product->one;
    int64_t a_size = ttt__dim(a->shape, -2) * ttt__dim(a->shape, -1);
    int64_t b_size = ttt__dim(b->shape, -2) * ttt__dim(b->shape, -1);
    int64_t init_size = one->init_row ? one->m * one->init_row : one->n;
    ttt__broadcast_shape(a_lead, b_lead, &all);
    ttt__strides(a_lead, all, a_stride);
    ttt__strides(b_lead, all, b_stride);
    ttt__strides(ttt__lead(y, 2), all, y_stride);
    if (init) ttt__strides(ttt__lead(init->shape, TTT__MIN(2, init->shape.rank)), all, init_stride);
    for (int i = 0; i < all.rank; i++) {
        bool sum = y_stride[i] == 0 && all.dim[i] > 1;
        ttt__loops *loops = sum ? &product->summed : &product->kept;
        int at = loops->n++;
        loops->size[at] = all.dim[i];
        loops->stride[0][at] = a_stride[i] * a_size;
        loops->stride[1][at] = b_stride[i] * b_size;
        loops->stride[2][at] = init_stride[i] * init_size;
    }
    ttt__loops_join(&product->kept, 3);
    ttt__loops_join(&product->summed, 3);
}

// Products that are really one: rows of many a that meet the same b are the rows of one taller a;
// summed products whose rows follow each other are one product with a longer sum.
static void ttt__product_merge(ttt__product *product) {
    ttt__gemm *one = &product->one;
    ttt__loops *kept = &product->kept, *summed = &product->summed;
    bool no_sum = summed->n == 1 && summed->size[0] == 1;
    bool same_b = kept->n == 1 && kept->stride[1][0] == 0;
    if (no_sum && same_b && kept->stride[2][0] == one->m * one->init_row && one->a_col == 1 &&
        kept->stride[0][0] == one->m * one->a_row) {
        one->m *= kept->size[0];
        kept->size[0] = 1;
    }
    if (summed->n == 1 && summed->stride[0][0] == one->k * one->a_col &&
        summed->stride[1][0] == one->k * one->b_row && one->b_col == 1) {
        one->k *= summed->size[0];
        summed->size[0] = 1;
    }
}

typedef struct ttt__transposed {
    bool a, b;
} ttt__transposed;

// The strides of op(a) and op(b), whose rows lie a_row and b_row apart as they are stored.
static void ttt__gemm_strides(ttt__gemm *gemm, ttt__transposed transposed, int64_t a_row,
                              int64_t b_row) {
    gemm->a_row = transposed.a ? 1 : a_row;
    gemm->a_col = transposed.a ? a_row : 1;
    gemm->b_row = transposed.b ? 1 : b_row;
    gemm->b_col = transposed.b ? b_row : 1;
}

// y = init + op(a) op(b) for whole tensors. init: NULL (zero), a row or a matrix that is broadcast,
// or y itself (adds to it).
static void ttt__product_run(ttt_ctx *ctx, const ttt_tensor *a, const ttt_tensor *b,
                             ttt__transposed transposed, const ttt_tensor *init, ttt_tensor *y) {
    int64_t a_rows = ttt__dim(a->shape, -2), a_cols = ttt__dim(a->shape, -1);
    int64_t b_rows = ttt__dim(b->shape, -2), b_cols = ttt__dim(b->shape, -1);
    ttt__product product;
    ttt__gemm *one = &product.one;
    if (y->size == 0) return;
    memset(&product, 0, sizeof product);
    product.ctx = ctx;
    one->m = transposed.a ? a_cols : a_rows;
    one->n = transposed.b ? b_rows : b_cols;
    one->k = transposed.a ? a_rows : a_cols;
    one->a = a->data;
    one->b = b->data;
    one->bf16 = b->bf16;
    ttt__gemm_strides(one, transposed, a_cols, b_cols);
    one->c = y->data;
    one->c_row = one->n;
    product.c_step = one->m * one->c_row;
    if (init) one->init = init->data;
    bool matrix = init && init->shape.rank >= 2 && ttt__dim(init->shape, -2) > 1;
    if (matrix || init == y) one->init_row = one->c_row;
    ttt__product_loops(&product, a, b, init, y->shape);
    if (ttt__loops_count(&product.kept, product.kept.n) == 0) {  // a sum over no products
        memset(y->data, 0, (size_t)y->size * sizeof *y->data);
        return;
    }
    ttt__product_merge(&product);
    ttt__product_start(&product);
}

// -- the same for plain arrays
static bool ttt__overlap(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes) {
    uintptr_t a_at = (uintptr_t)a, b_at = (uintptr_t)b;
    return a && b && a_bytes > 0 && b_bytes > 0 && a_at < b_at + (uintptr_t)b_bytes &&
           b_at < a_at + (uintptr_t)a_bytes;
}
// No array has so many elements. Products stop there, so that sums of them are numbers, too.
#define TTT__TOO_MANY ((int64_t)1 << 59)
static int64_t ttt__times_at_most(int64_t a, int64_t b) {
    return b > 0 && a > TTT__TOO_MANY / b ? TTT__TOO_MANY : a * b;
}
// From the first to the last of the elements that (rows, n) matrices take.
static int64_t ttt__extent(int64_t rows, int64_t n, int64_t row, int64_t batch, int64_t step) {
    int64_t last = ttt__times_at_most(rows - 1, row) + ttt__times_at_most(n, 1);
    return rows == 0 || n == 0 ? 0 : ttt__times_at_most(batch - 1, step) + last;
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

// Fills in the defaults. Returns what is wrong with the sizes, or NULL.
static const char *ttt__gemm_sizes(ttt_gemm_desc *desc) {
    int64_t m = desc->m, n = desc->n, k = desc->k;
    int64_t a_cols = desc->ta ? m : k, b_cols = desc->tb ? k : n;
    if (m < 0 || n < 0 || k < 0 || desc->batch < 0) return "m, n, k and batch cannot be negative";
    if (desc->a_row == 0) desc->a_row = a_cols;
    if (desc->b_row == 0) desc->b_row = b_cols;
    if (desc->y_row == 0) desc->y_row = n;
    if (desc->batch == 0) desc->batch = 1;
    if (desc->a_row < a_cols) return "a_row is less than the length of a row of a";
    if (desc->b_row < b_cols) return "b_row is less than the length of a row of b";
    if (desc->y_row < n) return "y_row is less than n";
    if (desc->a_step < 0 || desc->b_step < 0 || desc->y_step < 0) return "steps cannot be negative";
    // Results may lie one after the other, or row by row beside each other.
    bool after = desc->y_step >= ttt__extent(m, n, desc->y_row, 1, 0);
    bool beside = desc->y_step >= n &&
                  desc->y_row >= ttt__extent(desc->batch, n, desc->y_step, 1, 0);
    bool empty = m == 0 || n == 0;
    return empty || desc->batch == 1 || after || beside ? NULL : "y_step makes results overlap";
}

// What is wrong with the arrays, or NULL. The sizes are good, and the result is not empty.
static const char *ttt__gemm_arrays(const ttt_gemm_desc *desc) {
    int64_t m = desc->m, n = desc->n, k = desc->k, batch = desc->batch;
    bool no_b = !desc->b && !desc->b_bf16;
    if (!desc->y || (k > 0 && (!desc->a || no_b))) return "an array is NULL";
    if (desc->b && desc->b_bf16) return "b and b_bf16 are both given";
    int64_t a_rows = desc->ta ? k : m, a_cols = desc->ta ? m : k;
    int64_t b_rows = desc->tb ? n : k, b_cols = desc->tb ? k : n;
    int64_t a_size = ttt__extent(a_rows, a_cols, desc->a_row, batch, desc->a_step);
    int64_t b_size = ttt__extent(b_rows, b_cols, desc->b_row, batch, desc->b_step);
    int64_t y_size = ttt__extent(m, n, desc->y_row, batch, desc->y_step);
    if (a_size >= TTT__TOO_MANY || b_size >= TTT__TOO_MANY || y_size >= TTT__TOO_MANY)
        return "sizes and steps lead beyond 2^59 elements; less expected";
    const int64_t real = (int64_t)sizeof(ttt_real);
    if (ttt__overlap(desc->y, real * y_size, desc->a, real * a_size) ||
        ttt__overlap(desc->y, real * y_size, desc->b, real * b_size) ||
        ttt__overlap(desc->y, real * y_size, desc->b_bf16, 2 * b_size) ||
        ttt__overlap(desc->y, real * y_size, desc->bias, real * n) ||
        (desc->add != desc->y && ttt__overlap(desc->y, real * y_size, desc->add, real * y_size)))
        return "y overlaps an operand";
    return NULL;
}

static const char *ttt__gemm_map(const ttt_gemm_desc *desc) {
    if (desc->map && ttt__map_find(desc->map) < 0)
        return "map is not the name of an op of one number";
    if (desc->map && desc->add == desc->y) return "map(ab) cannot be added to y itself";
    return NULL;
}

static ttt__gemm ttt__gemm_of(const ttt_ctx *ctx, const ttt_gemm_desc *desc) {
    ttt__transposed transposed = { desc->ta, desc->tb };
    ttt__gemm gemm;
    memset(&gemm, 0, sizeof gemm);
    gemm.m = desc->m;
    gemm.n = desc->n;
    gemm.k = desc->k;
    gemm.a = desc->a;
    gemm.b = desc->b;
    gemm.bf16 = desc->b_bf16;
    ttt__gemm_strides(&gemm, transposed, desc->a_row, desc->b_row);
    gemm.c = desc->y;
    gemm.c_row = desc->y_row;
    gemm.init = desc->bias;
    gemm.finish.add = desc->add;
    gemm.finish.add_row = desc->y_row;
    if (desc->map) gemm.finish.map = ctx->k->map[ttt__map_find(desc->map)];
    if (desc->add == desc->y) {  // then the sums begin with y, and the bias comes last
        gemm.init = desc->y;
        gemm.init_row = desc->y_row;
        gemm.finish.add = desc->bias;
        gemm.finish.add_row = 0;
    }
    return gemm;
}

ttt_result ttt_gemm(ttt_ctx *ctx, const ttt_gemm_desc *desc) {
    if (!TTT__GIVEN("gemm", desc)) return ctx->result;
    ttt_gemm_desc d = *desc;
    const char *wrong = ttt__gemm_sizes(&d);
    bool empty = d.m == 0 || d.n == 0;
    if (!wrong && !empty) wrong = ttt__gemm_arrays(&d);
    if (!wrong && !empty) wrong = ttt__gemm_map(&d);
    if (wrong) {
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "gemm: %s (m=%lld n=%lld k=%lld a_row=%lld b_row=%lld y_row=%lld batch=%lld "
                 "a_step=%lld b_step=%lld y_step=%lld)",
                 wrong, (long long)d.m, (long long)d.n, (long long)d.k, (long long)d.a_row,
                 (long long)d.b_row, (long long)d.y_row, (long long)d.batch, (long long)d.a_step,
                 (long long)d.b_step, (long long)d.y_step);
        return ctx->result;
    }
    if (empty) return TTT_OK;
    ttt__product product;
    product.ctx = ctx;
    product.one = ttt__gemm_of(ctx, &d);
    product.c_step = d.y_step;
    product.summed.n = 0;
    product.kept.n = 1;
    product.kept.size[0] = d.batch;
    product.kept.stride[0][0] = d.a_step;
    product.kept.stride[1][0] = d.b_step;
    product.kept.stride[2][0] = 0;
    ttt__product_start(&product);
    return ctx->result;
}

// -- the ops
static int64_t ttt__matmul_flops(const ttt_tensor *y) {
    const ttt__transposed *transposed = (const ttt__transposed *)y->arg;
    int64_t k = ttt__dim(A->shape, transposed->a ? -2 : -1);
    int64_t m = ttt__dim(A->shape, transposed->a ? -1 : -2), n = ttt__dim(y->shape, -1);
    ttt_shape all;
    ttt__broadcast_shape(ttt__lead(A->shape, 2), ttt__lead(B->shape, 2), &all);
    return 2 * ttt_shape_size(all) * m * n * k;
}

FORWARD(matmul) { ttt__product_run(ctx, A, B, *(const ttt__transposed *)y->arg, NULL, y); }
// g repeated over leading sizes that y was summed over and that a and b do not both have.
static ttt_tensor *ttt__unsum(ttt_ctx *ctx, ttt_tensor *g, const ttt_tensor *a,
                              const ttt_tensor *b) {
    ttt_shape a_lead = ttt__lead(a->shape, 2), b_lead = ttt__lead(b->shape, 2);
    ttt_shape g_lead = ttt__lead(g->shape, 2), with_a, with_b, all;
    ttt__broadcast_shape(g_lead, a_lead, &with_a);
    ttt__broadcast_shape(g_lead, b_lead, &with_b);
    ttt__broadcast_shape(a_lead, b_lead, &all);
    if (ttt_shape_equal(with_a, all) && ttt_shape_equal(with_b, all)) return g;
    all.dim[all.rank++] = ttt__dim(g->shape, -2);
    all.dim[all.rank++] = ttt__dim(g->shape, -1);
    return ttt_broadcast(ctx, g, all);
}
// y = a b: da = g b^T, db = a^T g, and likewise for transposed operands. If a is transposed, b is
// the left factor of da, which cannot be bfloat16.
RULE(matmul) {
    ttt__transposed transposed = *(const ttt__transposed *)y->arg;
    g = ttt__unsum(ctx, g, A, B);
    ttt_tensor *b = B->bf16 && transposed.a ? ttt_cast(ctx, B, TTT_DTYPE_REAL) : B;
    if (d[0])
        d[0] = transposed.a ? ttt_matmul_to(ctx, b, g, transposed.b, true, A->shape)
                            : ttt_matmul_to(ctx, g, b, false, !transposed.b, A->shape);
    if (d[1])
        d[1] = transposed.b ? ttt_matmul_to(ctx, g, A, true, transposed.a, B->shape)
                            : ttt_matmul_to(ctx, A, g, !transposed.a, false, B->shape);
}

// Checks the operands and gives the shape of their product, all leading sizes broadcast.
static bool ttt__product_shape(ttt_ctx *ctx, const char *op, ttt_tensor *a, ttt_tensor *b,
                               ttt__transposed transposed, ttt_shape *shape) {
    if (!ttt__operand(ctx, op, a, 0, TTT__REAL)) return false;
    if (!ttt__operand(ctx, op, b, 1, TTT__REAL | TTT__BF16)) return false;
    bool ranks = a->shape.rank >= 2 && b->shape.rank >= 2;
    int a_inner = transposed.a ? -2 : -1, b_inner = transposed.b ? -1 : -2;
    if (!ranks || ttt__dim(a->shape, a_inner) != ttt__dim(b->shape, b_inner) ||
        !ttt__broadcast_shape(ttt__lead(a->shape, 2), ttt__lead(b->shape, 2), shape)) {
        ttt_text ta, tb;
        ttt_fail(ctx, TTT_ERR_SHAPE, "%s: %s%s times %s%s; (...,m,k) times (...,k,n) expected", op,
                 ttt_shape_text(a->shape, ta), transposed.a ? "^T" : "",
                 ttt_shape_text(b->shape, tb), transposed.b ? "^T" : "");
        return false;
    }
    shape->rank += 2;
    shape->dim[shape->rank - 2] = ttt__dim(a->shape, transposed.a ? -1 : -2);
    shape->dim[shape->rank - 1] = ttt__dim(b->shape, transposed.b ? -2 : -1);
    return true;
}

ttt_tensor *ttt_matmul_to(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb,
                          ttt_shape shape) {
    ttt__transposed transposed = { ta, tb };
    ttt_tensor *in[2] = { a, b };
    ttt_shape whole, all;
    if (!ttt__product_shape(ctx, "matmul", a, b, transposed, &whole)) return &ctx->empty;
    bool fits = ttt__rank_good(shape) && shape.rank >= 2 &&
                ttt__dim(shape, -2) == ttt__dim(whole, -2) &&
                ttt__dim(shape, -1) == ttt__dim(whole, -1);
    if (!fits || !ttt__broadcast_shape(whole, shape, &all) || !ttt_shape_equal(whole, all)) {
        ttt_text t0, t1;
        return ttt_fail(ctx, TTT_ERR_SHAPE, "matmul: a product of shape %s cannot be summed to %s",
                        ttt_shape_text(whole, t0), ttt_shape_text(shape, t1));
    }
    return ttt__run(ctx, &ttt__op_matmul, in, 2, shape, &transposed, sizeof transposed, NULL);
}
ttt_tensor *ttt_matmul_t(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb) {
    ttt__transposed transposed = { ta, tb };
    ttt_shape shape;
    if (!ttt__product_shape(ctx, "matmul", a, b, transposed, &shape)) return &ctx->empty;
    return ttt_matmul_to(ctx, a, b, ta, tb, shape);
}
ttt_tensor *ttt_matmul(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b) {
    return ttt_matmul_t(ctx, a, b, false, false);
}

FORWARD(matmul_add) { ttt__product_run(ctx, A, B, *(const ttt__transposed *)y->arg, y->in[2], y); }
RULE(matmul_add) {
    ttt__matmul_rule(ctx, y, g, d);
    if (d[2]) d[2] = ttt__fit(ctx, g, y->in[2]);
}
// Whether `add` can be added to a product of this shape.
static bool ttt__addend_good(ttt_ctx *ctx, const char *call, const ttt_tensor *add,
                             ttt_shape shape) {
    ttt_shape all;
    if (!ttt__operand(ctx, call, add, 2, TTT__REAL)) return false;
    bool wide = add->shape.rank > 0 && ttt__dim(add->shape, -1) == ttt__dim(shape, -1);
    if (!wide || !ttt__broadcast_shape(shape, add->shape, &all) || !ttt_shape_equal(shape, all)) {
        ttt_text t0, t1;
        ttt_fail(ctx, TTT_ERR_SHAPE,
                 "%s: %s cannot be added to a product of shape %s; (n), (...,1,n) or "
                 "(...,m,n) expected",
                 call, ttt_shape_text(add->shape, t0), ttt_shape_text(shape, t1));
    }
    return !ctx->result;
}
static ttt_tensor *ttt__product_add(ttt_ctx *ctx, const char *call, ttt_tensor *a, ttt_tensor *b,
                                    ttt__transposed transposed, ttt_tensor *add) {
    ttt_tensor *in[3] = { a, b, add };
    ttt_shape shape;
    if (!ttt__product_shape(ctx, call, a, b, transposed, &shape)) return &ctx->empty;
    if (!ttt__addend_good(ctx, call, add, shape)) return &ctx->empty;
    return ttt__run(ctx, &ttt__op_matmul_add, in, 3, shape, &transposed, sizeof transposed, NULL);
}
ttt_tensor *ttt_matmul_add(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b, bool ta, bool tb,
                           ttt_tensor *add) {
    ttt__transposed transposed = { ta, tb };
    return ttt__product_add(ctx, "matmul_add", a, b, transposed, add);
}
ttt_tensor *ttt_affine(ttt_ctx *ctx, ttt_tensor *x, ttt_tensor *w, ttt_tensor *b) {
    ttt__transposed neither = { false, false };
    return ttt__product_add(ctx, "affine", x, w, neither, b);
}

// Adds to y what y = a b lacks if the elements of b that are NaN or infinite were taken for 0: all
// products with them, but those with a zero of a.
static void ttt__mix_rest(const ttt_tensor *a, const ttt_tensor *b, bool ta, ttt_tensor *y) {
    ttt_shape y_lead = ttt__lead(y->shape, 2);
    int64_t m = ttt__dim(y->shape, -2), n = ttt__dim(y->shape, -1), k = ttt__dim(b->shape, -2);
    int64_t row = ta ? 1 : k, col = ta ? m : 1;
    ttt__loops loops = { y_lead.rank, { 0 }, { { 0 } } };
    memcpy(loops.size, y_lead.dim, sizeof loops.size);
    ttt__strides(ttt__lead(a->shape, 2), y_lead, loops.stride[0]);
    ttt__strides(ttt__lead(b->shape, 2), y_lead, loops.stride[1]);
    for (int64_t matrix = 0; matrix < y->size / (m * n); matrix++) {
        const ttt_real *a_at = a->data + ttt__loops_at(&loops, loops.n, 0, matrix) * m * k;
        const ttt_real *b_at = b->data + ttt__loops_at(&loops, loops.n, 1, matrix) * k * n;
        ttt_real *y_at = y->data + matrix * m * n;
        for (int64_t i = 0; i < k * n; i++) {
            if (b_at[i] - b_at[i] == 0) continue;
            for (int64_t j = 0; j < m; j++) {
                ttt_real factor = a_at[j * row + i / n * col];
                if (factor != 0) y_at[j * n + i % n] += factor * b_at[i];
            }
        }
    }
}
// Whatever is finite goes through the product, so that it has the same bits beside what is not.
FORWARD(mix) {
    ttt__transposed transposed = *(const ttt__transposed *)y->arg;
    const ttt_tensor *add = y->n_in > 2 ? y->in[2] : NULL;
    if (y->size == 0) return;
    ttt_tensor finite = *B;
    ttt_mark mark = ttt__arena_mark(&ctx->scratch);
    bool all = ctx->k->finite(B->size, B->data);
    if (!all) {
        size_t bytes = (size_t)B->size * sizeof *finite.data;
        finite.data = (ttt_real *)ttt__arena_alloc(ctx, &ctx->scratch, bytes);
        for (int64_t i = 0; finite.data && i < B->size; i++)
            finite.data[i] = B->data[i] - B->data[i] == 0 ? B->data[i] : 0;
    }
    if (finite.data) ttt__product_run(ctx, A, &finite, transposed, add, y);
    if (finite.data && !all) ttt__mix_rest(A, B, transposed.a, y);
    ttt__arena_release(&ctx->scratch, mark);
}
// As matmul_add's; but what a zero of a did not take of b gets nothing of g.
RULE(mix) {
    bool ta = ((const ttt__transposed *)y->arg)->a;
    if (d[0])
        d[0] = ta ? ttt_matmul_to(ctx, B, g, false, true, A->shape)
                  : ttt_matmul_to(ctx, g, B, false, true, A->shape);
    if (d[1]) d[1] = ttt__fit(ctx, ttt_mix(ctx, A, g, !ta, NULL), B);
    if (y->n_in > 2 && d[2]) d[2] = ttt__fit(ctx, g, y->in[2]);
}
ttt_tensor *ttt_mix(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b, bool ta, ttt_tensor *add) {
    ttt__transposed transposed = { ta, false };
    ttt_tensor *in[3] = { a, b, add };
    ttt_shape shape;
    if (!ttt__operands(ctx, "mix", in, add ? 3 : 2)) return &ctx->empty;
    if (!ttt__product_shape(ctx, "mix", a, b, transposed, &shape)) return &ctx->empty;
    if (add && !ttt__addend_good(ctx, "mix", add, shape)) return &ctx->empty;
    return ttt__run(ctx, &ttt__op_mix, in, add ? 3 : 2, shape, &transposed, sizeof transposed,
                    NULL);
}

// -- a triangular system. The diagonal of ones is not stored, and nothing above it is read. Solved
// in blocks: what the rows solved before contribute is a product, and the rows of a block follow
// one after the other. Solved rows have their signs changed until all are there: products add.
typedef struct ttt__triangle {
    int64_t n;
    const ttt_real *a;
    int64_t a_row, a_col;   // steps from row to row and from column to column
    bool from_below;        // the last row is solved first: transposed
} ttt__triangle;
static void ttt__solve_triangle(const ttt__kernels *kernels, const ttt__triangle *triangle,
                                ttt_real *y, int64_t y_row, int64_t d, ttt_real *workspace) {
    enum { BLOCK = 16 };
    int64_t n = triangle->n, a_row = triangle->a_row, a_col = triangle->a_col;
    for (int64_t solved = 0, rows; solved < n; solved += rows) {
        rows = TTT__MIN((int64_t)BLOCK, n - solved);
        int64_t at = triangle->from_below ? n - solved - rows : solved;
        int64_t from = triangle->from_below ? at + rows : 0, sign = triangle->from_below ? -1 : 1;
        const ttt_real *a = triangle->a + at * a_row;
        ttt_real *block = y + at * y_row;
        ttt__gemm gemm = { rows, d, solved, a + from * a_col, a_row, a_col, y + from * y_row, y_row,
                           1, block, y_row, block, y_row, NULL, { NULL, NULL, 0 } };
        if (solved > 0) ttt__gemm_run(kernels, &gemm, workspace);
        int64_t first = triangle->from_below ? rows - 1 : 0;
        kernels->substitute(rows, d, a + at * a_col + first * (a_row + a_col), sign * a_row,
                            sign * a_col, block + first * y_row, sign * y_row);
    }
    for (int64_t i = 0; i < n; i++)
        kernels->map[TTT__MAP_scale](d, y + i * y_row, y + i * y_row, -1);
}
typedef struct ttt__solve_job {
    ttt_ctx *ctx;
    const ttt_tensor *a;
    ttt_tensor *y;
    bool transposed;
} ttt__solve_job;
static void ttt__solve_share(void *arg, int64_t begin, int64_t end, int thread) {
    const ttt__solve_job *job = (const ttt__solve_job *)arg;
    int64_t n = ttt__dim(job->y->shape, -2), d = ttt__dim(job->y->shape, -1);
    ttt__triangle triangle = { n, NULL, job->transposed ? 1 : n, job->transposed ? n : 1,
                               job->transposed };
    for (int64_t m = begin; m < end; m++) {
        triangle.a = job->a->data + m * n * n;
        ttt__solve_triangle(job->ctx->k, &triangle, job->y->data + m * n * d, d, d,
                            job->ctx->pack[thread]);
    }
}
FORWARD(solve_lower) {
    int64_t n = ttt__dim(y->shape, -2), d = ttt__dim(y->shape, -1);
    ttt__solve_job job = { ctx, A, y, *(const bool *)y->arg };
    if (y->size == 0) return;
    memcpy(y->data, B->data, (size_t)y->size * sizeof *y->data);
    ttt__parallel(ctx, -1, y->size / (n * d), 1 + 65536 / (n * n * d), ttt__solve_share, &job);
}
// With S = 1 + L: db = S^-T g, dS = -db y^T, and dL is the part of dS below the diagonal. With S^T
// in place of S, dS is transposed.
RULE(solve_lower) {
    bool transposed = *(const bool *)y->arg;
    ttt_tensor *db = ttt_solve_lower(ctx, A, g, !transposed);
    if (d[0]) {
        int64_t n = ttt__dim(A->shape, -1);
        ttt_tensor *below = ttt_zeros(ctx, TTT_SHAPE(n, n)), *less = ttt_scale(ctx, db, -1);
        for (int64_t i = 0; ttt_ok(ctx) && i < n; i++)
            for (int64_t k = 0; k < i; k++) below->data[i * n + k] = 1;
        ttt_tensor *left = transposed ? y : less, *right = transposed ? less : y;
        d[0] = ttt_where(ctx, below, ttt_matmul_t(ctx, left, right, false, true),
                         ttt_scalar(ctx, 0));
    }
    if (d[1]) d[1] = db;
}
ttt_tensor *ttt_solve_lower(ttt_ctx *ctx, ttt_tensor *a, ttt_tensor *b, bool transposed) {
    ttt_tensor *in[2] = { a, b };
    if (!ttt__operands(ctx, "solve_lower", in, 2)) return &ctx->empty;
    bool ranks = a->shape.rank >= 2 && b->shape.rank == a->shape.rank;
    if (!ranks || ttt__dim(a->shape, -1) != ttt__dim(a->shape, -2) ||
        ttt__dim(b->shape, -2) != ttt__dim(a->shape, -1) ||
        !ttt_shape_equal(ttt__lead(a->shape, 2), ttt__lead(b->shape, 2))) {
        ttt_text t0, t1;
        return ttt_fail(ctx, TTT_ERR_SHAPE,
                        "solve_lower: a %s, b %s; (...,n,n) and (...,n,d) with the same leading "
                        "sizes expected",
                        ttt_shape_text(a->shape, t0), ttt_shape_text(b->shape, t1));
    }
    return ttt__run(ctx, &ttt__op_solve_lower, in, 2, b->shape, &transposed, sizeof transposed,
                    NULL);
}

// ---- [14] THE WALK BACKWARDS --------------------------------------------------------------------
// The op of a gradient that was taken without TTT_GRAD_RECORD. It came from y, but its way back was
// not kept; its rule makes meeting it an error instead of a missing term.
FORWARD(unrecorded) { (void)ctx; (void)y; }
RULE(unrecorded) {
    (void)y;
    (void)g;
    (void)d;
    ttt_fail(ctx, TTT_ERR_FIRST_ORDER,
             "grad: this would differentiate through a gradient that was taken without "
             "TTT_GRAD_RECORD, and miss its second-order terms. Take it with TTT_GRAD_RECORD, or "
             "ttt_detach it to mean a constant");
}
static const ttt_op ttt__op_unrecorded = {
    "unrecorded gradient", "dy/dw as numbers", 2, 0, 0,
    ttt__unrecorded_forward, ttt__unrecorded_rule, NULL, NULL, NULL
};

// One walk. Slot i belongs to tape place base + i: it holds the gradient gathered so far, and says
// whether anything asked for lies below it.
typedef struct ttt__walk {
    ttt_ctx *ctx;
    bool record;
    ttt_tensor *y, *seed;
    ttt_tensor *const *wrt;
    ttt_tensor **out;
    int n_wrt;  // also of out
    int64_t base, n;
    ttt_tensor **grad;     // of each slot
    unsigned char *flags;  // of each slot
    // Of each input of the node at hand:
    ttt_tensor **d;  // its gradient
    int64_t *slot;
    bool *add;       // the gradient adds to what is there
} ttt__walk;
enum {
    TTT__NEEDED = 1,  // some wrt is this or an ancestor of it
    TTT__WANTED = 2,  // it is a wrt
    TTT__FILLED = 4,  // grad[] is the caller's buffer (a leaf's) and was written to
    TTT__FIXED = 8,   // grad[] is the caller's buffer
    TTT__TWICE = 16   // it is a wrt more than once
};

static int64_t ttt__slot(const ttt__walk *walk, const ttt_tensor *tensor) {
    int64_t i = tensor->id - walk->base;
    return i >= 0 && i < walk->n && (walk->flags[i] & TTT__NEEDED) ? i : -1;
}

// Marks the slots that the gradients flow through, and returns the most inputs that a node has.
static int ttt__walk_mark(ttt__walk *walk) {
    int most = 1;
    for (int i = 0; i < walk->n_wrt; i++) {
        if (walk->wrt[i]->id > walk->y->id) continue;
        unsigned char *flags = &walk->flags[walk->wrt[i]->id - walk->base];
        *flags = (unsigned char)(TTT__NEEDED | TTT__WANTED | (*flags ? TTT__TWICE : 0));
    }
    for (int64_t i = 0; i < walk->n; i++) {
        const ttt_tensor *tensor = walk->ctx->nodes[walk->base + i];
        most = TTT__MAX(most, tensor->n_in);
        for (int j = 0; j < tensor->n_in && !(walk->flags[i] & TTT__NEEDED); j++)
            if (ttt__slot(walk, tensor->in[j]) >= 0) walk->flags[i] |= TTT__NEEDED;
    }
    return most;
}

static void *ttt__walk_memory(ttt__walk *walk, int64_t n, size_t size) {
    return ttt__arena_alloc(walk->ctx, &walk->ctx->scratch, (uint64_t)n * size);
}
static bool ttt__walk_begin(ttt__walk *walk) {
    walk->base = walk->y->id;
    for (int i = 0; i < walk->n_wrt; i++) walk->base = TTT__MIN(walk->base, walk->wrt[i]->id);
    walk->n = walk->y->id - walk->base + 1;
    walk->grad = (ttt_tensor **)ttt__walk_memory(walk, walk->n, sizeof *walk->grad);
    walk->flags = (unsigned char *)ttt__walk_memory(walk, walk->n, sizeof *walk->flags);
    if (!walk->grad || !walk->flags) return false;
    memset(walk->grad, 0, (size_t)walk->n * sizeof *walk->grad);
    memset(walk->flags, 0, (size_t)walk->n * sizeof *walk->flags);
    int most = ttt__walk_mark(walk);
    walk->d = (ttt_tensor **)ttt__walk_memory(walk, most, sizeof *walk->d);
    walk->slot = (int64_t *)ttt__walk_memory(walk, most, sizeof *walk->slot);
    walk->add = (bool *)ttt__walk_memory(walk, most, sizeof *walk->add);
    return walk->d && walk->slot && walk->add;
}

// True if t's numbers belong to its slot alone, so that they may be added to in place.
static bool ttt__own(const ttt_tensor *tensor) {
    const ttt__block *block = (const ttt__block *)tensor->block;
    return block && block->uses == 1 && !tensor->shares;
}

static void ttt__add_to(ttt_ctx *ctx, ttt_tensor *sum, const ttt_tensor *tensor) {
    ttt__zip(ctx, sum->data, sum->shape, tensor->data, tensor->shape, sum, TTT__ZIP_add);
}

// A buffer that belongs to slot i alone, for a fast rule to write to; *filled says whether to add.
static ttt_tensor *ttt__slot_buffer(ttt__walk *walk, int64_t i, bool *filled) {
    ttt_ctx *ctx = walk->ctx;
    ttt_tensor *tensor = walk->grad[i];
    *filled = tensor != NULL;
    if (walk->flags[i] & TTT__FIXED) {
        *filled = (walk->flags[i] & TTT__FILLED) != 0;
        walk->flags[i] |= TTT__FILLED;
        return tensor;
    }
    if (tensor && ttt__own(tensor)) return tensor;
    ttt_shape shape = ctx->nodes[walk->base + i]->shape;
    ttt_tensor *buffer = ttt__tensor(ctx, shape, TTT_DTYPE_REAL, false, NULL);
    if (!buffer) return NULL;
    ctx->n_made--;  // it outlives this node, however often the node's inputs ask for it
    if (tensor) {
        memcpy(buffer->data, tensor->data, (size_t)tensor->size * sizeof *tensor->data);
        ttt__block_drop(ctx, tensor);
    }
    return walk->grad[i] = buffer;
}

// Adds d to slot i's gradient: as a tensor if the walk records, else in place, or by keeping d.
static void ttt__gather_gradient(ttt__walk *walk, int64_t i, ttt_tensor *d) {
    ttt_ctx *ctx = walk->ctx;
    ttt_tensor *tensor = walk->grad[i];
    if (walk->record) {
        walk->grad[i] = tensor ? ttt_add(ctx, tensor, d) : d;
    } else if (!tensor) {
        if (d->block) ((ttt__block *)d->block)->uses++;
        walk->grad[i] = d;
    } else {
        int back = ttt__profile_begin(ctx, "gather gradients", false);
        bool filled;
        tensor = ttt__slot_buffer(walk, i, &filled);
        if (tensor && filled) ttt__add_to(ctx, tensor, d);
        else if (tensor) memcpy(tensor->data, d->data, (size_t)d->size * sizeof *d->data);
        double flops = filled ? (double)d->size : 0, bytes = ttt__tensor_bytes(d);
        if (back >= 0)
            ttt__profile_count(ttt__profile_end(ctx, back), flops, bytes * (filled ? 3 : 2));
    }
}

// The gradient of an op that is defined by others: builds y again from them, on the tape, and walks
// there. The new nodes begin at stand-ins for the inputs, where the walk ends: an input may be made
// from another, or be the same. If numbers are enough, the stand-ins are detached, and all is
// forgotten at once.
static void ttt__composite_rule(ttt_ctx *ctx, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d,
                                bool record) {
    ttt_mark mark = ttt_mark_get(ctx);
    size_t n_in = (size_t)y->n_in;
    int n = 0, *place = (int *)ttt_alloc(ctx, n_in * sizeof *place, false);
    ttt_tensor **in = (ttt_tensor **)ttt_alloc(ctx, 3 * n_in * sizeof *in, false);
    if (!place || !in) return;
    ttt_tensor **wrt = in + n_in, **out = wrt + n_in;
    ttt_grad_mode mode = record ? TTT_GRAD_RECORD : TTT_GRAD_FIRST_ORDER;
    bool numbers_only = ctx->numbers_only, recording = ttt_set_recording(ctx, true);
    ctx->numbers_only = false;
    for (int j = 0; j < y->n_in; j++) {
        ttt_tensor *input = y->in[j];
        if (input->dtype != TTT_DTYPE_REAL) in[j] = input;
        else in[j] = record ? ttt_reshape(ctx, input, input->shape) : ttt_detach(ctx, input);
        if (!d[j]) continue;
        place[n] = j;
        wrt[n++] = in[j];
    }
    ttt_vjp(ctx, y->op->composite(ctx, in, y), g, wrt, n, out, mode);
    ctx->numbers_only = numbers_only;
    ttt_set_recording(ctx, recording);
    for (int i = 0; i < n && !ctx->result; i++) {
        ttt_tensor *gradient = out[i];
        size_t bytes = (size_t)gradient->size * sizeof *gradient->data;
        if (!record) gradient = ttt_new(ctx, gradient->shape);  // workspace again
        if (!record && !ctx->result) memcpy(gradient->data, out[i]->data, bytes);
        d[place[i]] = gradient;
    }
    if (!record) ttt_mark_release(ctx, mark);
}

// One node with a fast rule, which writes into the slots of its inputs.
static void ttt__walk_fast(ttt__walk *walk, ttt_tensor *y, ttt_tensor *g) {
    ttt_ctx *ctx = walk->ctx;
    for (int j = 0; j < y->n_in; j++) {
        int64_t slot = walk->slot[j];
        walk->d[j] = slot < 0 ? NULL : ttt__slot_buffer(walk, slot, &walk->add[j]);
    }
    int back = ttt__profile_begin(ctx, y->op->name, true);
    if (!ctx->result) y->op->fast(ctx, y, g, walk->d, walk->add);
    if (back >= 0) ttt__profile_end_rule(ctx, back, y, walk->d, walk->add);
}

// One node with a rule made of ops, whose results are gathered in the slots of its inputs.
static void ttt__walk_rule(ttt__walk *walk, ttt_tensor *y, ttt_tensor *g) {
    ttt_ctx *ctx = walk->ctx;
    ttt_tensor **d = walk->d;
    for (int j = 0; j < y->n_in; j++) d[j] = walk->slot[j] < 0 ? NULL : y->in[j];
    int back = ttt__profile_begin(ctx, y->op->name, true);
    if (y->op->vjp) y->op->vjp(ctx, y, g, d);
    else ttt__composite_rule(ctx, y, g, d, walk->record);
    if (back >= 0) ttt__profile_end_rule(ctx, back, y, NULL, NULL);
    for (int j = 0; j < y->n_in && !ctx->result; j++) {
        if (walk->slot[j] < 0 || !d[j] || ttt_shape_equal(d[j]->shape, y->in[j]->shape)) continue;
        ttt_text its, input, expected;
        ttt_fail(ctx, TTT_ERR_SHAPE,
                 "grad: the rule of %s gives a gradient of shape %s for %s, which has shape %s",
                 y->op->name, ttt_shape_text(d[j]->shape, its), ttt__input_text(j, input),
                 ttt_shape_text(y->in[j]->shape, expected));
    }
    for (int j = 0; j < y->n_in && !ctx->result; j++)
        if (walk->slot[j] >= 0 && d[j]) ttt__gather_gradient(walk, walk->slot[j], d[j]);
}

// From y down to the lowest wrt. A node's gradient is complete when the walk reaches it, since all
// that was made from it comes later on the tape.
static void ttt__walk_down(ttt__walk *walk) {
    ttt_ctx *ctx = walk->ctx;
    walk->grad[walk->n - 1] = walk->seed;
    for (int64_t i = walk->n - 1; i >= 0 && !ctx->result; i--) {
        ttt_tensor *y = ctx->nodes[walk->base + i], *g = walk->grad[i];
        int64_t n_made = ctx->n_made;
        bool below = false;
        for (int j = 0; j < y->n_in; j++) below = below || ttt__slot(walk, y->in[j]) >= 0;
        if (!g || !below) continue;
        for (int j = 0; j < y->n_in; j++) walk->slot[j] = ttt__slot(walk, y->in[j]);
        if (!walk->record && y->op->fast) ttt__walk_fast(walk, y, g);
        else ttt__walk_rule(walk, y, g);
        while (ctx->n_made > n_made) ttt__block_drop(ctx, ctx->made[--ctx->n_made]);
        if (!walk->record && !(walk->flags[i] & (TTT__WANTED | TTT__FIXED)))
            ttt__block_drop(ctx, g);
    }
}

// Recorded: the gradients are the tensors in the slots.
static void ttt__walk_recorded(ttt__walk *walk) {
    ttt_ctx *ctx = walk->ctx;
    ttt__walk_down(walk);
    for (int i = 0; i < walk->n_wrt && !ctx->result; i++) {
        int64_t slot = ttt__slot(walk, walk->wrt[i]);
        ttt_tensor *g = slot >= 0 ? walk->grad[slot] : NULL;
        walk->out[i] = g ? g : ttt_zeros(ctx, walk->wrt[i]->shape);
    }
}

// Numbers only: out[] are buffers of the caller. If they are written over, leaves gather straight
// into them. All else is copied, or added, at the end.
static void ttt__walk_numbers(ttt__walk *walk, bool add) {
    ttt_ctx *ctx = walk->ctx;
    for (int i = 0; i < walk->n_wrt; i++) {
        ttt_tensor *wrt = walk->wrt[i];
        int64_t slot = ttt__slot(walk, wrt);
        if (slot < 0 || add || wrt->op || wrt == walk->y || (walk->flags[slot] & TTT__TWICE))
            continue;
        walk->grad[slot] = walk->out[i];
        walk->flags[slot] |= TTT__FIXED;
    }
    // The walk drops the seed, but an outer walk may still hold it.
    if (walk->seed->block) ((ttt__block *)walk->seed->block)->uses++;
    ctx->numbers_only = true;
    ttt__walk_down(walk);
    ctx->numbers_only = false;
    for (int i = 0; i < walk->n_wrt && !ctx->result; i++) {
        int64_t slot = ttt__slot(walk, walk->wrt[i]);
        ttt_tensor *g = slot >= 0 ? walk->grad[slot] : NULL, *out = walk->out[i];
        size_t bytes = (size_t)out->size * sizeof *out->data;
        bool empty = g && (walk->flags[slot] & TTT__FIXED) && !(walk->flags[slot] & TTT__FILLED);
        bool written = g && !empty;
        if (g == out && written) continue;
        if (!written && !add) memset(out->data, 0, bytes);
        else if (written && add) ttt__add_to(ctx, out, g);
        else if (written) memcpy(out->data, g->data, bytes);
    }
}

// True if a tensor that ttt_grad was given is alive and real, and on the tape unless numbers are
// enough. It is element i of an array, or i is -1.
static bool ttt__grad_operand(ttt_ctx *ctx, const char *name, int i, const ttt_tensor *tensor,
                              bool on_tape) {
    bool alive = ttt__alive(ctx, tensor) && !(on_tape && tensor->id == TTT__SCRATCH);
    ttt_text element;
    if (ctx->result || (alive && tensor->dtype == TTT_DTYPE_REAL)) return !ctx->result;
    if (i < 0) snprintf(element, sizeof element, "%s", name);
    else snprintf(element, sizeof element, "%s[%d]", name, i);
    if (!alive) ttt__not_living(ctx, "grad", tensor, element);
    else
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "grad: %s holds %s; real numbers expected", element,
                 ttt__dtype_text(tensor->dtype));
    return false;
}

static bool ttt__vjp_good(ttt_ctx *ctx, const ttt__walk *walk, ttt_grad_mode mode) {
    ttt_text t0, t1;
    if (!ttt__grad_operand(ctx, "y", -1, walk->y, true)) return false;
    if (!ttt__grad_operand(ctx, "seed", -1, walk->seed, false)) return false;
    if ((unsigned)mode > TTT_GRAD_ADD || walk->n_wrt < 0)
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "grad: mode %d, %d tensors; a ttt_grad_mode, 0..%d, and 0 or more expected",
                 (int)mode, walk->n_wrt, (int)TTT_GRAD_ADD);
    if (walk->n_wrt > 0 && !(ttt__given(ctx, "grad", "wrt", walk->wrt != NULL) &&
                             ttt__given(ctx, "grad", "out", walk->out != NULL)))
        return false;
    if (walk->n_wrt > 0 && walk->wrt == walk->out)
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "grad: wrt and out are the same array; out is written to before wrt is read");
    if (!ttt_shape_equal(walk->seed->shape, walk->y->shape))
        ttt_fail(ctx, TTT_ERR_SHAPE, "grad: a seed of shape %s for a y of shape %s",
                 ttt_shape_text(walk->seed->shape, t0), ttt_shape_text(walk->y->shape, t1));
    for (int i = 0; i < walk->n_wrt && !ctx->result; i++) {
        const ttt_tensor *wrt = walk->wrt[i], *out = mode == TTT_GRAD_ADD ? walk->out[i] : NULL;
        if (!ttt__grad_operand(ctx, "wrt", i, wrt, true)) return false;
        if (mode != TTT_GRAD_ADD || !ttt__grad_operand(ctx, "out", i, out, false)) continue;
        if (!ttt_shape_equal(out->shape, wrt->shape))
            ttt_fail(ctx, TTT_ERR_SHAPE, "grad: out[%d] has shape %s, but wrt[%d] has %s", i,
                     ttt_shape_text(out->shape, t0), i, ttt_shape_text(wrt->shape, t1));
    }
    return !ctx->result;
}

// The walk, with its time in the row "walk" of the profile and its workspace released at the end.
static void ttt__walk_run(ttt__walk *walk, bool add) {
    ttt_ctx *ctx = walk->ctx;
    ttt_mark workspace = ttt__arena_mark(&ctx->scratch);
    ttt__block *lists[TTT__BLOCK_LISTS], **outer = ctx->free_blocks;
    ttt_phase phase = ctx->profile.phase;
    memset(lists, 0, sizeof lists);
    ctx->free_blocks = lists;
    ctx->profile.phase = TTT__MAX(phase, walk->record ? TTT_PHASE_RECORDED : TTT_PHASE_BACKWARD);
    int back = ttt__profile_begin(ctx, "walk", false);
    if (ttt__walk_begin(walk)) {
        if (walk->record) ttt__walk_recorded(walk);
        else ttt__walk_numbers(walk, add);
    }
    if (back >= 0) ttt__profile_end(ctx, back);
    ctx->profile.phase = phase;
    ctx->free_blocks = outer;
    ttt__arena_release(&ctx->scratch, workspace);
}

// ttt_vjp, where TTT_GRAD_ADD may write over what out[] holds. After an error that may be anything.
static ttt_result ttt__vjp(ttt_ctx *ctx, ttt_tensor *y, ttt_tensor *seed, ttt_tensor *const *wrt,
                           int n, ttt_tensor **out, ttt_grad_mode mode, bool over) {
    bool record = mode == TTT_GRAD_RECORD, recording = ttt_set_recording(ctx, record);
    ttt__walk walk = { ctx, record, y, seed, wrt, out, n, 0, 0, NULL, NULL, NULL, NULL, NULL };
    bool good = ttt__vjp_good(ctx, &walk, mode);
    for (int i = 0; i < n && good && mode == TTT_GRAD_FIRST_ORDER; i++)
        out[i] = ttt_new(ctx, wrt[i]->shape);
    if (good && !ctx->result) ttt__walk_run(&walk, mode == TTT_GRAD_ADD && !over);
    ttt_set_recording(ctx, recording);
    ttt_tensor *from[2] = { y, seed };
    for (int i = 0; i < n && !ctx->result && mode == TTT_GRAD_FIRST_ORDER && recording; i++)
        ttt__set_producer(ctx, out[i], &ttt__op_unrecorded, from, 2, NULL, 0);
    for (int i = 0; i < n && out && ctx->result && mode != TTT_GRAD_ADD; i++)
        out[i] = &ctx->empty;
    return ctx->result;
}

ttt_result ttt_vjp(ttt_ctx *ctx, ttt_tensor *y, ttt_tensor *seed, ttt_tensor *const *wrt, int n,
                   ttt_tensor **out, ttt_grad_mode mode) {
    return ttt__vjp(ctx, y, seed, wrt, n, out, mode, false);
}

static ttt_result ttt__grad(ttt_ctx *ctx, ttt_tensor *y, ttt_tensor *const *wrt, int n,
                            ttt_tensor **out, ttt_grad_mode mode, bool over) {
    if (!ttt__grad_operand(ctx, "y", -1, y, true)) {
        y = &ctx->empty;
    } else if (y->size != 1) {
        ttt_text text;
        ttt_fail(ctx, TTT_ERR_SHAPE,
                 "grad: y has shape %s; one number expected (ttt_vjp takes any shape)",
                 ttt_shape_text(y->shape, text));
    }
    return ttt__vjp(ctx, y, ttt_full(ctx, y->shape, 1), wrt, n, out, mode, over);
}
ttt_result ttt_grad(ttt_ctx *ctx, ttt_tensor *y, ttt_tensor *const *wrt, int n, ttt_tensor **out,
                    ttt_grad_mode mode) {
    return ttt__grad(ctx, y, wrt, n, out, mode, false);
}

// -- rematerialization: an op that is defined by the caller's function
typedef struct ttt__remat {
    ttt_remat_fn *f;
    ttt_rng rng;     // as it was when f ran first
    double user[1];  // the caller's bytes begin here
} ttt__remat;

FORWARD(remat) {
    ttt__remat *remat = (ttt__remat *)(uintptr_t)y->arg;
    ttt_mark mark = ttt_mark_get(ctx);
    bool recording = ttt_set_recording(ctx, false);
    remat->rng = ctx->rng;
    ttt_tensor *tensor = remat->f(ctx, y->in, y->n_in, remat->user);
    if (!ctx->result && !ttt_shape_equal(tensor->shape, y->shape)) {
        ttt_text its, expected;
        ttt_fail(ctx, TTT_ERR_SHAPE, "remat: the function gave shape %s; %s was announced",
                 ttt_shape_text(tensor->shape, its), ttt_shape_text(y->shape, expected));
    }
    if (!ctx->result) memcpy(y->data, tensor->data, (size_t)y->size * sizeof *y->data);
    ttt_set_recording(ctx, recording);
    ttt_mark_release(ctx, mark);
}
static ttt_tensor *ttt__remat_composite(ttt_ctx *ctx, ttt_tensor *const *in, const ttt_tensor *y) {
    const ttt__remat *remat = (const ttt__remat *)y->arg;
    ttt_rng now = ctx->rng;
    ctx->rng = remat->rng;
    ttt_tensor *tensor = remat->f(ctx, in, y->n_in, remat->user);
    ctx->rng = now;
    return tensor;
}
static const ttt_op ttt__op_remat = {
    "remat", "y = f(in), forgotten and made again", -1, 0, 0,
    ttt__remat_forward, NULL, ttt__remat_composite, NULL, NULL
};

ttt_tensor *ttt_remat(ttt_ctx *ctx, ttt_remat_fn *f, ttt_tensor *const *in, int n, ttt_shape shape,
                      const void *user, size_t user_bytes) {
    size_t head = offsetof(ttt__remat, user), bytes = head + (user_bytes ? user_bytes : 1);
    if (bytes < head)
        return ttt_fail(ctx, TTT_ERR_ARGUMENT, "remat: %llu bytes of the caller's; fewer expected",
                        (unsigned long long)user_bytes);
    if (!TTT__GIVEN("remat", f) || (user_bytes && !TTT__GIVEN("remat", user))) return &ctx->empty;
    ttt__remat *remat = (ttt__remat *)ttt_alloc(ctx, bytes, false);
    if (!remat) return &ctx->empty;
    remat->f = f;
    if (user_bytes) memcpy(remat->user, user, user_bytes);
    return ttt_apply(ctx, &ttt__op_remat, in, n, shape, remat, bytes);
}

// -- the gradient checker
// The function to check, and the direction u along which it is differentiated.
typedef struct ttt__check {
    ttt_function *f;
    ttt_tensor *const *x;
    int n;  // of x, from and u
    void *user;
    ttt_tensor **from, **u;  // x as it was; the direction
} ttt__check;

// The derivative of the given order, analytic; order 0 is f itself.
static double ttt__directional(ttt_ctx *ctx, const ttt__check *check, int order) {
    ttt_mark mark = ttt_mark_get(ctx);
    int n = check->n;
    ttt_tensor *y = check->f(ctx, check->x, n, check->user);
    ttt_tensor **g = (ttt_tensor **)ttt_alloc(ctx, (uint64_t)n * sizeof *g, false);
    for (int k = 1; k <= order && g; k++) {
        ttt_grad(ctx, y, check->x, n, g, k < order ? TTT_GRAD_RECORD : TTT_GRAD_FIRST_ORDER);
        y = ttt_scalar(ctx, 0);
        for (int i = 0; i < n; i++)
            y = ttt_add(ctx, y, ttt_sum(ctx, ttt_mul(ctx, g[i], check->u[i])));
    }
    double value = ctx->result ? (double)NAN : (double)ttt_item(y);
    ttt_mark_release(ctx, mark);
    return value;
}

// x = from + step u.
static void ttt__check_move(const ttt__check *check, double step) {
    for (int i = 0; i < check->n; i++) {
        const ttt_real *from = check->from[i]->data, *u = check->u[i]->data;
        ttt_real *x = check->x[i]->data;
        for (int64_t j = 0; j < check->x[i]->size; j++)
            x[j] = (ttt_real)((double)from[j] + step * (double)u[j]);
    }
}

double ttt_check_gradient(ttt_ctx *ctx, ttt_function *f, ttt_tensor *const *x, int n, void *user,
                          int order, double h) {
    static const double steps[4] = { 1, -1, 2, -2 }, weight[4] = { 8, -8, -1, 1 };
    double numeric = 0;
    if (!ctx->result && (n < 1 || order < 1))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "check_gradient: inputs and an order above 0 expected");
    if (!TTT__GIVEN("check_gradient", f) || !TTT__GIVEN("check_gradient", x) ||
        !ttt__operands(ctx, "check_gradient", x, n))
        return (double)NAN;
    ttt_mark mark = ttt_mark_get(ctx);
    ttt__check check = { f, x, n, user, NULL, NULL };
    check.u = (ttt_tensor **)ttt_alloc(ctx, (uint64_t)n * sizeof *check.u, false);
    check.from = (ttt_tensor **)ttt_alloc(ctx, (uint64_t)n * sizeof *check.from, false);
    if (!check.u || !check.from) return (double)NAN;
    for (int i = 0; i < n; i++) {
        check.u[i] = ttt_uniform(ctx, x[i]->shape, -1, 1);
        check.from[i] = ttt_from(ctx, x[i]->shape, x[i]->data);
    }
    double analytic = ttt__directional(ctx, &check, order);
    for (int k = 0; k < 4 && !ctx->result; k++) {
        ttt__check_move(&check, steps[k] * h);
        numeric += weight[k] * ttt__directional(ctx, &check, order - 1) / (12 * h);
    }
    for (int i = 0; i < n; i++) {
        const ttt_tensor *from = check.from[i];
        if (from->size == x[i]->size)
            memcpy(x[i]->data, from->data, (size_t)from->size * sizeof *from->data);
    }
    ttt_mark_release(ctx, mark);
    return ctx->result ? (double)NAN : fabs(analytic - numeric) / TTT__MAX(fabs(numeric), 1e-3);
}
#undef FORWARD
#undef RULE
#undef FAST
#undef A
#undef B

// ---- [15] OPENING, CLOSING, REFERENCES ----------------------------------------------------------
static const ttt__kernels *ttt__kernels_named(const char *name) {
    const ttt__kernels *kernels = NULL, *next;
    for (int i = 0; (next = ttt__kernels_get(i)) != NULL; i++)
        if (!name || strcmp(name, next->name) == 0) kernels = next;
    return kernels;
}

// What is wrong with the kernels' arithmetic; NULL if nothing is.
static const char *ttt__arithmetic_flaw(const ttt__kernels *kernels) {
    const ttt_real one = 1, none = (ttt_real)NAN;
    const ttt_real tiny = (ttt_real)(TTT__DOUBLE ? 2.3e-308 : 1.2e-38);
    ttt_real y;
    kernels->map[TTT__MAP_exp](1, &one, &y, 0);
    if (!(fabs((double)y - 2.718281828) < 1e-5)) return "sums are not taken in their order";
    if (kernels->finite(1, &none)) return "NaN is not noticed";
    kernels->map[TTT__MAP_scale](1, &tiny, &y, (ttt_real)0.25);
    return y > 0 ? NULL : "subnormal numbers are flushed to zero";
}

ttt_ctx *ttt_open(const ttt_desc *desc) {
    ttt_desc zero;
    memset(&zero, 0, sizeof zero);
    if (!desc) desc = &zero;
    const ttt__kernels *kernels = ttt__kernels_named(desc->isa);
    ttt_ctx *ctx = kernels ? (ttt_ctx *)TTT_MALLOC(desc->user, sizeof *ctx) : NULL;
    if (!ctx) return NULL;
    memset(ctx, 0, sizeof *ctx);
    ctx->desc = *desc;
    ctx->k = kernels;
    ctx->recording = true;
    ctx->rng.seed = desc->seed;
    ctx->empty.ctx = ctx;
    ctx->empty.self = &ctx->empty;
    ctx->empty.data = ctx->nothing;
    ctx->empty.index = NULL;
    ctx->empty.id = ctx->empty.size = 0;
    ttt__keep_subnormals();
    int wanted = desc->threads < 0 ? ttt__cores() : TTT__MAX(1, desc->threads);
    ctx->threads = TTT__MIN(wanted, TTT_MAX_THREADS);
    if (ctx->threads > 1 && !desc->parallel_for && !(ctx->pool = ttt__pool_open(ctx)))
        ctx->threads = 1;
    bool good = ttt__places_grow(ctx);
    for (int i = 0; i < ctx->threads && good; i++) {
        ctx->pack[i] = (ttt_real *)TTT_MALLOC(desc->user, TTT__PACK_REALS * sizeof(ttt_real));
        good = ctx->pack[i] != NULL;
        ctx->held += good ? TTT__PACK_REALS * sizeof(ttt_real) : 0;
    }
    const char *flaw = ttt__arithmetic_flaw(kernels);
    if (flaw)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "open: this program computes inexactly: %s; compile and "
                 "link it without -ffast-math, -Ofast and the like (/fp:fast)", flaw);
    if (good) return ctx;
    ttt_close(ctx);
    return NULL;
}

void ttt_close(ttt_ctx *ctx) {
    if (!ctx) return;
    ttt__pool_close(ctx);
    ttt__chunk **chains[4] = { &ctx->keep.first, &ctx->step.first, &ctx->scratch.first,
                               &ctx->places };
    for (int i = 0; i < 4; i++) ttt__chunks_free(ctx, chains[i]);
    for (int i = 0; i < TTT_MAX_THREADS; i++)
        if (ctx->pack[i]) TTT_FREE(ctx->desc.user, ctx->pack[i]);
    if (ctx->nodes) TTT_FREE(ctx->desc.user, ctx->nodes);
    if (ctx->made) TTT_FREE(ctx->desc.user, ctx->made);
    if (ctx->profile.rows) TTT_FREE(ctx->desc.user, ctx->profile.rows);
    TTT_FREE(ctx->desc.user, ctx);
}

const char *ttt_isa(const ttt_ctx *ctx) { return ctx->k->name; }
int ttt_threads(const ttt_ctx *ctx) { return ctx->threads; }

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
ttt_limits ttt_measure_limits(ttt_ctx *ctx) {
    const int64_t rounds = 500000, reals = ((int64_t)64 << 20) / (int64_t)sizeof(ttt_real);
    ttt_limits best = { 0, 0 };
    double seen = 0;
    ttt_real *memory = (ttt_real *)TTT_MALLOC(ctx->desc.user, (size_t)reals * sizeof *memory);
    if (!memory) {
        ttt_fail(ctx, TTT_ERR_NO_MEMORY, "measure_limits: no memory for 64 MB to read");
        return best;
    }
    for (int64_t i = 0; i < reals; i++) memory[i] = 1;
    for (int run = 0; run < 5; run++) {
        double begin = ttt_seconds();
        seen += ctx->k->multiply_adds(rounds);
        double middle = ttt_seconds();
        seen += ctx->k->sum(reals, memory);
        double end = ttt_seconds();
        double flops = 2.0 * TTT__TILE_ROWS * ctx->k->tile_cols * ctx->k->lanes * (double)rounds /
                       (middle - begin);
        double bytes = (double)reals * sizeof *memory / (end - middle);
        best.flops = TTT__MAX(best.flops, flops);
        // Depends on `seen`, so that the compiler leaves no run out.
        best.bytes = TTT__MAX(best.bytes, seen < 0 ? 0 : bytes);
    }
    TTT_FREE(ctx->desc.user, memory);
    return best;
}

TTT__PRECISE_END
#define TTT__PART TTT__CLOSE
#include TTT__TENSOR_FILE
#undef TTT__PART

/*  REFERENCES
    Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011.
    Box, Muller: A note on the generation of random normal deviates. 1958.
    Goto, van de Geijn: Anatomy of high-performance matrix multiplication. ACM TOMS 2008.
    Kingma, Ba: Adam: a method for stochastic optimization. ICLR 2015.
    Chen, Xu, Zhang, Guestrin: Training deep nets with sublinear memory cost. arXiv 1604.06174.
    Srivastava et al.: Dropout: a simple way to prevent neural networks from overfitting. JMLR 2014.
    Sun et al.: Learning to (learn at test time). arXiv 2310.13807.

    LICENSE: MIT No Attribution (MIT-0)
    Permission is hereby granted, free of charge, to any person obtaining a copy of this software
    and associated documentation files (the "Software"), to deal in the Software without
    restriction, including without limitation the rights to use, copy, modify, merge, publish,
    distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
    Software is furnished to do so. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND.
*/
#endif  // TTT_TENSOR_IMPLEMENTED
#endif  // TTT__PART, TTT_TENSOR_IMPLEMENTATION

// ---- [16] NAMES ---------------------------------------------------------------------------------
// Words that the headers have as names, or as macros of their own, and that a program may have as
// macros: all of up to four letters, all in capitals, and the common ones. While a part of a header
// is open they mean nothing else; when it closes, the program's macros are as they were. tcc has no
// _Pragma, so there they are lost. They stand twice since no macro can #undef;
// tests/test_builds.sh compares, and says which word is missing.
#if defined(TTT__PART)
#ifndef TTT__NAMES
#define TTT__NAMES(TTT__DO)                                                                        \
    TTT__DO(A) TTT__DO(B) TTT__DO(C) TTT__DO(D) TTT__DO(E) TTT__DO(F) TTT__DO(G) TTT__DO(H)        \
    TTT__DO(I) TTT__DO(J) TTT__DO(K) TTT__DO(L) TTT__DO(M) TTT__DO(N) TTT__DO(O) TTT__DO(P)        \
    TTT__DO(Q) TTT__DO(R) TTT__DO(S) TTT__DO(T) TTT__DO(U) TTT__DO(V) TTT__DO(W) TTT__DO(X)        \
    TTT__DO(Y) TTT__DO(Z) TTT__DO(a) TTT__DO(b) TTT__DO(c) TTT__DO(d) TTT__DO(e) TTT__DO(f)        \
    TTT__DO(g) TTT__DO(h) TTT__DO(i) TTT__DO(j) TTT__DO(k) TTT__DO(l) TTT__DO(m) TTT__DO(n)        \
    TTT__DO(o) TTT__DO(p) TTT__DO(q) TTT__DO(r) TTT__DO(s) TTT__DO(t) TTT__DO(u) TTT__DO(v)        \
    TTT__DO(w) TTT__DO(x) TTT__DO(y) TTT__DO(z) TTT__DO(COLS) TTT__DO(EVEN_PARTS)                  \
    TTT__DO(FAST) TTT__DO(FORWARD) TTT__DO(FROM) TTT__DO(INLINE) TTT__DO(KERNEL) TTT__DO(KN)       \
    TTT__DO(LANES) TTT__DO(MASK) TTT__DO(NUM) TTT__DO(ODD_PARTS) TTT__DO(PICK) TTT__DO(RARE)       \
    TTT__DO(ROW) TTT__DO(RULE) TTT__DO(SQRT) TTT__DO(TERM) TTT__DO(TILE) TTT__DO(TILES_12)         \
    TTT__DO(TILES_16) TTT__DO(TILES_6) TTT__DO(TILES_8) TTT__DO(TILE_WIDTHS) TTT__DO(VEC)          \
    TTT__DO(ZIP_HIGH) TTT__DO(ZIP_LOW) TTT__DO(BF16) TTT__DO(BLOCK) TTT__DO(FORMAT) TTT__DO(INT)   \
    TTT__DO(NAME) TTT__DO(K_D) TTT__DO(LINE) TTT__DO(P_1) TTT__DO(au) TTT__DO(axes)                \
    TTT__DO(ba) TTT__DO(d0) TTT__DO(d1) TTT__DO(d2) TTT__DO(fade)                                  \
    TTT__DO(grid) TTT__DO(gw) TTT__DO(how) TTT__DO(maps) TTT__DO(post) TTT__DO(some) TTT__DO(tap)  \
    TTT__DO(tape) TTT__DO(tg) TTT__DO(tk) TTT__DO(tt) TTT__DO(tx) TTT__DO(ua1) TTT__DO(uu)         \
    TTT__DO(vecs) TTT__DO(zu) TTT__DO(ids) TTT__DO(lane) TTT__DO(conv) TTT__DO(heap)               \
    TTT__DO(odds) TTT__DO(ring) TTT__DO(told)                                                      \
    TTT__DO(PASS) TTT__DO(REAL) TTT__DO(SHAPE) TTT__DO(U8) TTT__DO(abs) TTT__DO(add) TTT__DO(all)  \
    TTT__DO(any) TTT__DO(axis) TTT__DO(b1) TTT__DO(b2) TTT__DO(back) TTT__DO(base) TTT__DO(batch)  \
    TTT__DO(batches) TTT__DO(begin) TTT__DO(bias) TTT__DO(bit) TTT__DO(bits) TTT__DO(block)        \
    TTT__DO(blocks) TTT__DO(bound) TTT__DO(bytes) TTT__DO(call) TTT__DO(cap) TTT__DO(ceil)         \
    TTT__DO(center) TTT__DO(chunk) TTT__DO(clamp) TTT__DO(clip) TTT__DO(cols) TTT__DO(column)      \
    TTT__DO(columns) TTT__DO(concat) TTT__DO(copy) TTT__DO(cos) TTT__DO(count) TTT__DO(current)    \
    TTT__DO(data) TTT__DO(decay) TTT__DO(depth) TTT__DO(dim) TTT__DO(div) TTT__DO(dot)             \
    TTT__DO(drop) TTT__DO(edge) TTT__DO(end) TTT__DO(epoch) TTT__DO(eps) TTT__DO(erf)              \
    TTT__DO(error) TTT__DO(exp) TTT__DO(factor) TTT__DO(far) TTT__DO(fast) TTT__DO(file)           \
    TTT__DO(fill) TTT__DO(fine) TTT__DO(first) TTT__DO(flags) TTT__DO(floor) TTT__DO(format)       \
    TTT__DO(frame) TTT__DO(from) TTT__DO(gap) TTT__DO(gate) TTT__DO(gradient) TTT__DO(grain)       \
    TTT__DO(half) TTT__DO(head) TTT__DO(heads) TTT__DO(height) TTT__DO(hi) TTT__DO(hidden)         \
    TTT__DO(high) TTT__DO(image) TTT__DO(images) TTT__DO(in) TTT__DO(index) TTT__DO(inner)         \
    TTT__DO(input) TTT__DO(item) TTT__DO(job) TTT__DO(key) TTT__DO(keep) TTT__DO(kernel)           \
    TTT__DO(kind) TTT__DO(label) TTT__DO(labels) TTT__DO(large) TTT__DO(last) TTT__DO(layers)      \
    TTT__DO(least) TTT__DO(left) TTT__DO(length) TTT__DO(limit) TTT__DO(line) TTT__DO(lo)          \
    TTT__DO(local) TTT__DO(log) TTT__DO(loss) TTT__DO(low) TTT__DO(map) TTT__DO(mark)              \
    TTT__DO(mask) TTT__DO(max) TTT__DO(mean) TTT__DO(merge) TTT__DO(min) TTT__DO(mode)             \
    TTT__DO(model) TTT__DO(module) TTT__DO(momentum) TTT__DO(move) TTT__DO(mul) TTT__DO(name)      \
    TTT__DO(near) TTT__DO(next) TTT__DO(node) TTT__DO(norm) TTT__DO(now) TTT__DO(number)           \
    TTT__DO(offset) TTT__DO(op) TTT__DO(order) TTT__DO(out) TTT__DO(outer) TTT__DO(output)         \
    TTT__DO(pad) TTT__DO(pair) TTT__DO(part) TTT__DO(pass) TTT__DO(patch) TTT__DO(path)            \
    TTT__DO(phase) TTT__DO(phi) TTT__DO(pi) TTT__DO(pixels) TTT__DO(place) TTT__DO(pool)           \
    TTT__DO(pos) TTT__DO(position) TTT__DO(pow) TTT__DO(power) TTT__DO(prefix) TTT__DO(probe)      \
    TTT__DO(product) TTT__DO(range) TTT__DO(rank) TTT__DO(rate) TTT__DO(ready) TTT__DO(real)       \
    TTT__DO(record) TTT__DO(repeat) TTT__DO(result) TTT__DO(rho) TTT__DO(right) TTT__DO(room)      \
    TTT__DO(round) TTT__DO(row) TTT__DO(rows) TTT__DO(rule) TTT__DO(scale) TTT__DO(seed)           \
    TTT__DO(select) TTT__DO(set) TTT__DO(shape) TTT__DO(share) TTT__DO(shift) TTT__DO(side)        \
    TTT__DO(sigma) TTT__DO(sign) TTT__DO(sin) TTT__DO(size) TTT__DO(skip) TTT__DO(slice)           \
    TTT__DO(small) TTT__DO(softmax) TTT__DO(source) TTT__DO(span) TTT__DO(sqrt) TTT__DO(square)    \
    TTT__DO(start) TTT__DO(state) TTT__DO(step) TTT__DO(store) TTT__DO(stride) TTT__DO(string)     \
    TTT__DO(sub) TTT__DO(sum) TTT__DO(swap) TTT__DO(table) TTT__DO(tag) TTT__DO(tail)              \
    TTT__DO(take) TTT__DO(tanh) TTT__DO(target) TTT__DO(tau) TTT__DO(tensor) TTT__DO(term)         \
    TTT__DO(test) TTT__DO(text) TTT__DO(tile) TTT__DO(time) TTT__DO(token) TTT__DO(tokens)         \
    TTT__DO(top) TTT__DO(total) TTT__DO(type) TTT__DO(unit) TTT__DO(update) TTT__DO(user)          \
    TTT__DO(value) TTT__DO(vector) TTT__DO(view) TTT__DO(wait) TTT__DO(walk) TTT__DO(weight)       \
    TTT__DO(weights) TTT__DO(where) TTT__DO(width) TTT__DO(window) TTT__DO(word) TTT__DO(zero)     \
    TTT__DO(bos) TTT__DO(eos) TTT__DO(tied)                                                        \
    TTT__DO(col) TTT__DO(len) TTT__DO(ARGUMENT) TTT__DO(AW) TTT__DO(BH) TTT__DO(CRC) TTT__DO(F16)  \
    TTT__DO(FIRST_ORDER) TTT__DO(G_BIAS) TTT__DO(G_KERNEL) TTT__DO(H_BIAS) TTT__DO(H_KERNEL)       \
    TTT__DO(I16) TTT__DO(I32) TTT__DO(I8) TTT__DO(IDX) TTT__DO(KINDS) TTT__DO(KK) TTT__DO(KX)      \
    TTT__DO(K_BIAS) TTT__DO(K_KERNEL) TTT__DO(K_tr) TTT__DO(LN_BIAS) TTT__DO(LN_SCALE)             \
    TTT__DO(M_tr) TTT__DO(NOT_FINITE) TTT__DO(NO_MEMORY) TTT__DO(O_BIAS) TTT__DO(O_KERNEL)         \
    TTT__DO(O_tr) TTT__DO(PHI_BIAS) TTT__DO(PHI_KERNEL) TTT__DO(PSI_BIAS) TTT__DO(PSI_KERNEL)      \
    TTT__DO(QX) TTT__DO(Q_BIAS) TTT__DO(Q_KERNEL) TTT__DO(RATES) TTT__DO(RELEASED)                 \
    TTT__DO(TOO_BIG) TTT__DO(U16) TTT__DO(U32) TTT__DO(UNSET) TTT__DO(V_BIAS) TTT__DO(V_KERNEL)    \
    TTT__DO(V_tr) TTT__DO(W0) TTT__DO(W1) TTT__DO(W2) TTT__DO(W_tr) TTT__DO(a0) TTT__DO(a1)        \
    TTT__DO(a2) TTT__DO(acc) TTT__DO(arg) TTT__DO(args) TTT__DO(at) TTT__DO(avx2) TTT__DO(b0)      \
    TTT__DO(best) TTT__DO(beta) TTT__DO(bf16) TTT__DO(bh) TTT__DO(both) TTT__DO(byte) TTT__DO(c1)  \
    TTT__DO(c2) TTT__DO(c3) TTT__DO(check) TTT__DO(code) TTT__DO(crop) TTT__DO(ctx) TTT__DO(cut)   \
    TTT__DO(db) TTT__DO(desc) TTT__DO(dev) TTT__DO(dir) TTT__DO(done) TTT__DO(dots) TTT__DO(down)  \
    TTT__DO(du) TTT__DO(dx) TTT__DO(each) TTT__DO(ends) TTT__DO(f2) TTT__DO(fits) TTT__DO(flag)    \
    TTT__DO(flat) TTT__DO(flip) TTT__DO(fold) TTT__DO(form) TTT__DO(g1) TTT__DO(g2) TTT__DO(g3)    \
    TTT__DO(gelu) TTT__DO(gemm) TTT__DO(good) TTT__DO(grad) TTT__DO(group) TTT__DO(grow)           \
    TTT__DO(gx) TTT__DO(gy) TTT__DO(gz) TTT__DO(gzip) TTT__DO(hash) TTT__DO(held) TTT__DO(id)      \
    TTT__DO(info) TTT__DO(init) TTT__DO(into) TTT__DO(is) TTT__DO(isa) TTT__DO(its) TTT__DO(join)  \
    TTT__DO(json) TTT__DO(k0) TTT__DO(k1) TTT__DO(k3) TTT__DO(keys) TTT__DO(kit) TTT__DO(kr)       \
    TTT__DO(l2) TTT__DO(lanes) TTT__DO(lead) TTT__DO(learner) TTT__DO(less) TTT__DO(list)          \
    TTT__DO(look) TTT__DO(loops) TTT__DO(losses) TTT__DO(lr) TTT__DO(m0) TTT__DO(made)             \
    TTT__DO(mix) TTT__DO(mixer) TTT__DO(mlp) TTT__DO(more) TTT__DO(most) TTT__DO(neon)             \
    TTT__DO(none) TTT__DO(npy) TTT__DO(of) TTT__DO(off) TTT__DO(on) TTT__DO(one) TTT__DO(ones)     \
    TTT__DO(over) TTT__DO(own) TTT__DO(p0) TTT__DO(p1) TTT__DO(params) TTT__DO(peak)               \
    TTT__DO(pick) TTT__DO(plus) TTT__DO(pop) TTT__DO(psi) TTT__DO(push) TTT__DO(put)               \
    TTT__DO(quit) TTT__DO(raw) TTT__DO(relu) TTT__DO(rest) TTT__DO(rng) TTT__DO(root)              \
    TTT__DO(rules) TTT__DO(run) TTT__DO(runs) TTT__DO(s0) TTT__DO(same) TTT__DO(schedule)          \
    TTT__DO(seen) TTT__DO(self) TTT__DO(silu) TTT__DO(slot) TTT__DO(steps) TTT__DO(sums)           \
    TTT__DO(t0) TTT__DO(t1) TTT__DO(t2) TTT__DO(ta) TTT__DO(taps) TTT__DO(task) TTT__DO(tb)        \
    TTT__DO(thread) TTT__DO(threads) TTT__DO(tiny) TTT__DO(to) TTT__DO(trim) TTT__DO(turn)         \
    TTT__DO(u1) TTT__DO(u2) TTT__DO(u8) TTT__DO(up) TTT__DO(v0) TTT__DO(w0) TTT__DO(w1)            \
    TTT__DO(w2) TTT__DO(w3) TTT__DO(want) TTT__DO(who) TTT__DO(why) TTT__DO(wide) TTT__DO(work)    \
    TTT__DO(worker) TTT__DO(wrt) TTT__DO(x0) TTT__DO(x1) TTT__DO(x2) TTT__DO(x3) TTT__DO(xm)       \
    TTT__DO(yes) TTT__DO(z0) TTT__DO(z1) TTT__DO(z2) TTT__DO(zip) TTT__DO(COMMENT) TTT__DO(EXTRA)  \
    TTT__DO(HCRC) TTT__DO(RESERVED) TTT__DO(Ju) TTT__DO(a8) TTT__DO(adam) TTT__DO(asks)            \
    TTT__DO(bend) TTT__DO(big) TTT__DO(by) TTT__DO(cl) TTT__DO(crc)                                \
    TTT__DO(ctr) TTT__DO(cv)                                                                       \
    TTT__DO(ddu) TTT__DO(dy) TTT__DO(e3) TTT__DO(elu1) TTT__DO(flaw) TTT__DO(four) TTT__DO(gi)     \
    TTT__DO(got) TTT__DO(gr2) TTT__DO(gv) TTT__DO(here) TTT__DO(hex) TTT__DO(idx) TTT__DO(ink)     \
    TTT__DO(kc) TTT__DO(kept) TTT__DO(lk) TTT__DO(lost) TTT__DO(lse) TTT__DO(muon) TTT__DO(mv)     \
    TTT__DO(nc) TTT__DO(news) TTT__DO(no) TTT__DO(note) TTT__DO(nr) TTT__DO(open) TTT__DO(pack)    \
    TTT__DO(pi0) TTT__DO(pose) TTT__DO(pv) TTT__DO(qc) TTT__DO(qk) TTT__DO(qr) TTT__DO(rise)       \
    TTT__DO(rowP) TTT__DO(rowS) TTT__DO(rr) TTT__DO(rstd) TTT__DO(sink) TTT__DO(std)               \
    TTT__DO(tau0) TTT__DO(tc) TTT__DO(ti) TTT__DO(tr) TTT__DO(ts) TTT__DO(two) TTT__DO(used)       \
    TTT__DO(uses) TTT__DO(ux) TTT__DO(vb) TTT__DO(vjp) TTT__DO(vv) TTT__DO(vw) TTT__DO(was)        \
    TTT__DO(what) TTT__DO(with) TTT__DO(ww) TTT__DO(xM) TTT__DO(xx) TTT__DO(xy) TTT__DO(yx)        \
    TTT__DO(yy) TTT__DO(few) TTT__DO(way)
#define TTT__PUSH(name) TTT__PRAGMA(push_macro(#name))
#define TTT__POP(name) TTT__PRAGMA(pop_macro(#name))
#endif
#if TTT__PART == TTT__OPEN
#if TTT__PASTE(TTT__IS_, TTT_REAL) != TTT__FIRST_REAL
#error "TTT_REAL is not what it was when ttt_tensor.h was included first"
#endif
TTT__NAMES(TTT__PUSH)
#undef A
#undef B
#undef C
#undef D
#undef E
#undef F
#undef G
#undef H
#undef I
#undef J
#undef K
#undef L
#undef M
#undef N
#undef O
#undef P
#undef Q
#undef R
#undef S
#undef T
#undef U
#undef V
#undef W
#undef X
#undef Y
#undef Z
#undef a
#undef b
#undef c
#undef d
#undef e
#undef f
#undef g
#undef h
#undef i
#undef j
#undef k
#undef l
#undef m
#undef n
#undef o
#undef p
#undef q
#undef r
#undef s
#undef t
#undef u
#undef v
#undef w
#undef x
#undef y
#undef z
#undef COLS
#undef EVEN_PARTS
#undef FAST
#undef FORWARD
#undef FROM
#undef INLINE
#undef KERNEL
#undef KN
#undef LANES
#undef MASK
#undef NUM
#undef ODD_PARTS
#undef PICK
#undef RARE
#undef ROW
#undef RULE
#undef SQRT
#undef TERM
#undef TILE
#undef TILES_12
#undef TILES_16
#undef TILES_6
#undef TILES_8
#undef TILE_WIDTHS
#undef VEC
#undef ZIP_HIGH
#undef ZIP_LOW
#undef BF16
#undef BLOCK
#undef FORMAT
#undef INT
#undef NAME
#undef K_D
#undef LINE
#undef P_1
#undef au
#undef axes
#undef grid
#undef gw
#undef how
#undef maps
#undef post
#undef some
#undef tap
#undef tape
#undef tg
#undef tk
#undef tt
#undef tx
#undef ua1
#undef uu
#undef vecs
#undef zu
#undef ids
#undef conv
#undef heap
#undef odds
#undef ring
#undef told
#undef lane
#undef ba
#undef d0
#undef d1
#undef d2
#undef fade
#undef PASS
#undef REAL
#undef SHAPE
#undef U8
#undef abs
#undef add
#undef all
#undef any
#undef axis
#undef b1
#undef b2
#undef back
#undef base
#undef batch
#undef batches
#undef begin
#undef bias
#undef bit
#undef bits
#undef block
#undef blocks
#undef bound
#undef bytes
#undef call
#undef cap
#undef ceil
#undef center
#undef chunk
#undef clamp
#undef clip
#undef cols
#undef column
#undef columns
#undef concat
#undef copy
#undef cos
#undef count
#undef current
#undef data
#undef decay
#undef depth
#undef dim
#undef div
#undef dot
#undef drop
#undef edge
#undef end
#undef epoch
#undef eps
#undef erf
#undef error
#undef exp
#undef factor
#undef far
#undef fast
#undef file
#undef fill
#undef fine
#undef first
#undef flags
#undef floor
#undef format
#undef frame
#undef from
#undef gap
#undef gate
#undef gradient
#undef grain
#undef half
#undef head
#undef heads
#undef height
#undef hi
#undef hidden
#undef high
#undef image
#undef images
#undef in
#undef index
#undef inner
#undef input
#undef item
#undef job
#undef key
#undef keep
#undef kernel
#undef kind
#undef label
#undef labels
#undef large
#undef last
#undef layers
#undef least
#undef left
#undef length
#undef limit
#undef line
#undef lo
#undef local
#undef log
#undef loss
#undef low
#undef map
#undef mark
#undef mask
#undef max
#undef mean
#undef merge
#undef min
#undef mode
#undef model
#undef module
#undef momentum
#undef move
#undef mul
#undef name
#undef near
#undef next
#undef node
#undef norm
#undef now
#undef number
#undef offset
#undef op
#undef order
#undef out
#undef outer
#undef output
#undef pad
#undef pair
#undef part
#undef pass
#undef patch
#undef path
#undef phase
#undef phi
#undef pi
#undef pixels
#undef place
#undef pool
#undef pos
#undef position
#undef pow
#undef power
#undef prefix
#undef probe
#undef product
#undef range
#undef rank
#undef rate
#undef ready
#undef real
#undef record
#undef repeat
#undef result
#undef rho
#undef right
#undef room
#undef round
#undef row
#undef rows
#undef rule
#undef scale
#undef seed
#undef select
#undef set
#undef shape
#undef share
#undef shift
#undef side
#undef sigma
#undef sign
#undef sin
#undef size
#undef skip
#undef slice
#undef small
#undef softmax
#undef source
#undef span
#undef sqrt
#undef square
#undef start
#undef state
#undef step
#undef store
#undef stride
#undef string
#undef sub
#undef sum
#undef swap
#undef table
#undef tag
#undef tail
#undef take
#undef tanh
#undef target
#undef tau
#undef tensor
#undef term
#undef test
#undef text
#undef tile
#undef time
#undef token
#undef tokens
#undef top
#undef total
#undef type
#undef unit
#undef update
#undef user
#undef value
#undef vector
#undef view
#undef wait
#undef walk
#undef weight
#undef weights
#undef where
#undef width
#undef window
#undef word
#undef zero
#undef col
#undef len
#undef bos
#undef eos
#undef tied
#undef ARGUMENT
#undef AW
#undef BH
#undef CRC
#undef F16
#undef FIRST_ORDER
#undef G_BIAS
#undef G_KERNEL
#undef H_BIAS
#undef H_KERNEL
#undef I16
#undef I32
#undef I8
#undef IDX
#undef KINDS
#undef KK
#undef KX
#undef K_BIAS
#undef K_KERNEL
#undef K_tr
#undef LN_BIAS
#undef LN_SCALE
#undef M_tr
#undef NOT_FINITE
#undef NO_MEMORY
#undef O_BIAS
#undef O_KERNEL
#undef O_tr
#undef PHI_BIAS
#undef PHI_KERNEL
#undef PSI_BIAS
#undef PSI_KERNEL
#undef QX
#undef Q_BIAS
#undef Q_KERNEL
#undef RATES
#undef RELEASED
#undef TOO_BIG
#undef U16
#undef U32
#undef UNSET
#undef V_BIAS
#undef V_KERNEL
#undef V_tr
#undef W0
#undef W1
#undef W2
#undef W_tr
#undef a0
#undef a1
#undef a2
#undef acc
#undef arg
#undef args
#undef at
#undef avx2
#undef b0
#undef best
#undef beta
#undef bf16
#undef bh
#undef both
#undef byte
#undef c1
#undef c2
#undef c3
#undef check
#undef code
#undef crop
#undef ctx
#undef cut
#undef db
#undef desc
#undef dev
#undef dir
#undef done
#undef dots
#undef down
#undef du
#undef dx
#undef each
#undef ends
#undef f2
#undef fits
#undef flag
#undef flat
#undef flip
#undef fold
#undef form
#undef g1
#undef g2
#undef g3
#undef gelu
#undef gemm
#undef good
#undef grad
#undef group
#undef grow
#undef gx
#undef gy
#undef gz
#undef gzip
#undef hash
#undef held
#undef id
#undef info
#undef init
#undef into
#undef is
#undef isa
#undef its
#undef join
#undef json
#undef k0
#undef k1
#undef k3
#undef keys
#undef kit
#undef kr
#undef l2
#undef lanes
#undef lead
#undef learner
#undef less
#undef list
#undef look
#undef loops
#undef losses
#undef lr
#undef m0
#undef made
#undef mix
#undef mixer
#undef mlp
#undef more
#undef most
#undef neon
#undef none
#undef npy
#undef of
#undef off
#undef on
#undef one
#undef ones
#undef over
#undef own
#undef p0
#undef p1
#undef params
#undef peak
#undef pick
#undef plus
#undef pop
#undef psi
#undef push
#undef put
#undef quit
#undef raw
#undef relu
#undef rest
#undef rng
#undef root
#undef rules
#undef run
#undef runs
#undef s0
#undef same
#undef schedule
#undef seen
#undef self
#undef silu
#undef slot
#undef steps
#undef sums
#undef t0
#undef t1
#undef t2
#undef ta
#undef taps
#undef task
#undef tb
#undef thread
#undef threads
#undef tiny
#undef to
#undef trim
#undef turn
#undef u1
#undef u2
#undef u8
#undef up
#undef v0
#undef w0
#undef w1
#undef w2
#undef w3
#undef want
#undef who
#undef why
#undef wide
#undef work
#undef worker
#undef wrt
#undef x0
#undef x1
#undef x2
#undef x3
#undef xm
#undef yes
#undef z0
#undef z1
#undef z2
#undef zip
#undef COMMENT
#undef EXTRA
#undef HCRC
#undef RESERVED
#undef Ju
#undef a8
#undef adam
#undef asks
#undef bend
#undef big
#undef by
#undef cl
#undef crc
#undef ctr
#undef cv
#undef ddu
#undef dy
#undef e3
#undef elu1
#undef flaw
#undef four
#undef gi
#undef got
#undef gr2
#undef gv
#undef here
#undef hex
#undef idx
#undef ink
#undef kc
#undef kept
#undef lk
#undef lost
#undef lse
#undef muon
#undef mv
#undef nc
#undef news
#undef no
#undef note
#undef nr
#undef open
#undef pack
#undef pi0
#undef pose
#undef pv
#undef qc
#undef qk
#undef qr
#undef rise
#undef rowP
#undef rowS
#undef rr
#undef rstd
#undef sink
#undef std
#undef tau0
#undef tc
#undef ti
#undef tr
#undef ts
#undef two
#undef used
#undef uses
#undef ux
#undef vb
#undef vjp
#undef vv
#undef vw
#undef was
#undef what
#undef with
#undef ww
#undef xM
#undef xx
#undef xy
#undef yx
#undef yy
#undef few
#undef way
TTT__BEGIN
#elif TTT__PART == TTT__CLOSE
TTT__END
TTT__NAMES(TTT__POP)
#endif
#endif  // TTT__PART
