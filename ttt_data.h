// ttt_data.h - data for layers that learn: image sets read or drawn, then dealt out in batches.
// Version 0.1.0. Stands alone: needs nothing but libc and libm.
//
// Do this in exactly one C or C++ file, include the header plainly everywhere else, link with -lm:
//
//     #define TTT_DATA_IMPLEMENTATION
//     #include "ttt_data.h"
//
// Example: one epoch over Fashion-MNIST if it is there, otherwise over digits drawn on the spot.
//
//     static float x[128 * 28 * 28];
//     static int32_t y[128];
//     ttt_images set;
//     ttt_data_error err;
//     if (ttt_images_load_idx("data", "train", 10, &set, &err) != TTT_DATA_OK) {
//         puts(err.text);
//         if (ttt_images_draw(1, 0, 20000, &set, &err) != TTT_DATA_OK) return 1;
//     }
//     ttt_batches_desc desc = { .images = &set, .batch = 128, .shuffle = 1 };
//     ttt_batches it;
//     if (ttt_batches_open(&desc, &it, &err) != TTT_DATA_OK) return 1;
//     for (int n; (n = ttt_batches_next(&it, x, y)) > 0;) train(x, y, n);
//
// Index. Search for a mark, such as [4], to go from a declaration to its implementation.
//
//     [1] ERRORS          results, and one clear line of text
//     [2] RANDOM NUMBERS  the same on every machine
//     [3] GZIP            inflate, bounded
//     [4] IDX FILES       the format of the MNIST family
//     [5] IMAGE SETS      pixels and labels, from files
//     [6] DRAWN DIGITS    an image set that needs no files
//     [7] BATCHES         order, augmentation, normalization, resuming
//     [8] REFERENCES
//     [9] LICENSE
//
// Concepts
//
//     Shapes     (N,H,W,C) = images, height, width, channels; (B,H,W,C) = one batch. Row-major,
//                channels last, the first row is the top one.
//     Ownership  What a function gives you through an `out` pointer is yours: hand it to the
//                matching _free, which takes NULL, zeroed and already freed objects. Structs are
//                transparent; you may fill a ttt_images yourself, with memory of your own.
//     Errors     A function that can fail returns a ttt_data_result. On failure it writes one line
//                to `err` (may be NULL), zeroes its output and keeps no memory. On success `err` is
//                left as it was. Nothing here prints, exits or trusts a file. The comments name
//                the results that are possible, without their TTT_DATA_.
//     Threads    No global state: calls on different objects may run at the same time.
//
// Compile-time options, defined before the implementation is included
//
//     TTT_IMPLEMENTATION          the implementations of all ttt headers that are included
//     TTT_STATIC                  all functions private to the one file that includes the header
//     TTT_API                     what stands before every function, if neither of the above fits
//     TTT_NO_STDIO                leaves out what opens files (vsnprintf is still used for texts)
//     TTT_MALLOC(user, n), TTT_REALLOC(user, p, n), TTT_FREE(user, p)
//                                 your allocator, all three; `user` is NULL in this header
//     TTT_DATA_MAX_BYTES          no file read and no array made is larger; default 2^31 - 1

#ifndef TTT_DATA_H
#define TTT_DATA_H

#include <stddef.h>
#include <stdint.h>

#define TTT_DATA_VERSION "0.1.0"

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

// =================================================================================================
// [1] ERRORS
// =================================================================================================

#define TTT_DATA_RESULTS(X)                                                                        \
    X(TTT_DATA_OK, "no error")                                                                     \
    X(TTT_DATA_ARGUMENT, "an argument makes no sense")                                             \
    X(TTT_DATA_FILE, "the file cannot be opened or read")                                          \
    X(TTT_DATA_FORMAT, "the bytes are not what the format allows")                                 \
    X(TTT_DATA_TOO_BIG, "larger than the limit")                                                   \
    X(TTT_DATA_NO_MEMORY, "out of memory")

typedef enum {
#define TTT__DATA_ROW(name, text) name,
    TTT_DATA_RESULTS(TTT__DATA_ROW)
#undef TTT__DATA_ROW
    TTT_DATA_RESULT_COUNT
} ttt_data_result;

// What went wrong, in one line without a newline: the file or function, what was found there and
// what was expected. Longer lines are cut.
typedef struct {
    char text[512];
} ttt_data_error;

// The meaning of a result in a few words, as in the list above. Never NULL.
TTT_API const char *ttt_data_result_text(ttt_data_result r);

// =================================================================================================
// [2] RANDOM NUMBERS
// =================================================================================================

// A stream of random numbers, named by a seed and three words (a, b, c) of your choice; it holds
// 2^34 numbers. Streams with different names are independent, so "the crop of sample c in epoch b"
// has numbers of its own, whatever was drawn before it. A copy of the struct is a saved state.
// This header itself uses names with a >= 2^31.
// Source: Philox4x32-10 (Salmon 2011), counter = (block, a, b, c), key = seed.
typedef struct {
    uint32_t key[2], counter[4];
    uint32_t words[4]; // the current block
    int used;          // how many of its words are spent
} ttt_data_rng;

TTT_API ttt_data_rng ttt_data_rng_at(uint64_t seed, uint32_t a, uint32_t b, uint32_t c);

// 32 random bits. Spends one number of the stream, and so do uniform and below.
TTT_API uint32_t ttt_data_rng_bits(ttt_data_rng *rng);

// k / 2^24 with k = 0..2^24-1: in [0,1), every value exact in float.
TTT_API float ttt_data_rng_uniform(ttt_data_rng *rng);

// Mean 0, variance 1: sqrt(-2 ln u) cos(2 pi v), Box and Muller (1958), in double, rounded once.
// Spends two numbers. |value| < 6.7, as u >= 2^-32.
TTT_API float ttt_data_rng_normal(ttt_data_rng *rng);

// floor(bits n / 2^32): 0..n-1 (0 if n is 0). No value's probability is off by more than 2^-32.
TTT_API uint32_t ttt_data_rng_below(ttt_data_rng *rng, uint32_t n);

// order (n) = 0..n-1 in random order (Fisher and Yates). Spends n-1 numbers.
TTT_API void ttt_data_rng_permute(ttt_data_rng *rng, int32_t *order, int32_t n);

// =================================================================================================
// [3] GZIP
// =================================================================================================

// Inflates a whole gzip file (RFC 1952) of n bytes into out (capacity); *size = bytes written.
// Several members in a row are joined, as gzip does. Checksums and lengths are verified, bytes
// after the last member are refused. On failure *size is 0 and what stands in `out` is of no use.
// `name` is what errors call the file (NULL: "gzip in memory").
// Errors: FORMAT with the byte where it went wrong, TOO_BIG if more than `capacity` comes out.
TTT_API ttt_data_result ttt_gzip_inflate(const char *name, const void *bytes, size_t n,
                                         uint8_t *out, size_t capacity, size_t *size,
                                         ttt_data_error *err);

// =================================================================================================
// [4] IDX FILES
// =================================================================================================

// An IDX file (LeCun) is: two zero bytes, a type, a rank, that many 32-bit sizes, the elements; all
// big-endian. Here the elements are in the byte order of the host.
enum {
    TTT_IDX_U8 = 0x08,
    TTT_IDX_I8 = 0x09,
    TTT_IDX_I16 = 0x0B,
    TTT_IDX_I32 = 0x0C,
    TTT_IDX_F32 = 0x0D,
    TTT_IDX_F64 = 0x0E
};

#define TTT_IDX_MAX_RANK 8

typedef struct {
    int type; // TTT_IDX_U8 ... TTT_IDX_F64
    int rank; // 1..TTT_IDX_MAX_RANK
    int64_t shape[TTT_IDX_MAX_RANK];
    int64_t count; // product of the shape; may be 0
    void *data;    // `count` elements of `type`
} ttt_idx;

// The n bytes of an IDX file, plain or gzipped (told by the first two bytes). The size must be
// exactly the one that the header declares, and nothing larger is ever inflated or allocated.
// `name` is what errors call the file (NULL: "IDX in memory").
// Errors: FORMAT, TOO_BIG (declares more than TTT_DATA_MAX_BYTES), NO_MEMORY, ARGUMENT.
TTT_API ttt_data_result ttt_idx_parse(const char *name, const void *bytes, size_t n, ttt_idx *out,
                                      ttt_data_error *err);

#ifndef TTT_NO_STDIO
// Reads a file and parses it. Errors: FILE, and those of ttt_idx_parse.
TTT_API ttt_data_result ttt_idx_read(const char *path, ttt_idx *out, ttt_data_error *err);
#endif

TTT_API void ttt_idx_free(ttt_idx *idx);

// =================================================================================================
// [5] IMAGE SETS
// =================================================================================================

#define TTT_IMAGES_MAX_CHANNELS 4

typedef struct {
    int64_t count;               // N, 1..2^31-1
    int height, width, channels; // channels 1..TTT_IMAGES_MAX_CHANNELS
    int classes;
    uint8_t *pixels; // (N,H,W,C)
    int32_t *labels; // (N), 0..classes-1
} ttt_images;

// An image set from two parsed IDX arrays of unsigned bytes: pixels (N,H,W) and labels (N). Copies
// them; both stay yours. The names are what errors call the two (NULL: "images", "labels").
// Errors: FORMAT (type, rank, no images, counts differ, label not in 0..classes-1), NO_MEMORY,
// ARGUMENT.
TTT_API ttt_data_result ttt_images_from_idx(const char *pixels_name, const ttt_idx *pixels,
                                            const char *labels_name, const ttt_idx *labels,
                                            int classes, ttt_images *out, ttt_data_error *err);

#ifndef TTT_NO_STDIO
// Reads <dir>/<split>-images-idx3-ubyte and <dir>/<split>-labels-idx1-ubyte, or the same names with
// .gz; split is "train" or "t10k" in the MNIST family (MNIST, Fashion-MNIST, KMNIST: 10 classes).
// Errors: FILE, and those of ttt_idx_parse and ttt_images_from_idx.
TTT_API ttt_data_result ttt_images_load_idx(const char *dir, const char *split, int classes,
                                            ttt_images *out, ttt_data_error *err);

// Are the four files of the MNIST family in `dir`, plain or .gz? Loads nothing: for programs that
// look in several places. Errors: FILE, the text names the first one missing; ARGUMENT.
TTT_API ttt_data_result ttt_images_find_idx(const char *dir, ttt_data_error *err);
#endif

TTT_API void ttt_images_free(ttt_images *images);

// =================================================================================================
// [6] DRAWN DIGITS
// =================================================================================================

// `count` images (28,28,1) of 10 classes, numbers first..first+count-1 of the endless set that
// `seed` names. An image depends on (seed, its number) alone, so disjoint ranges make a training
// and a test set: say 0..19999 and 1000000..1004999.
//
// A digit is a few straight strokes, 2 px wide, on a grid 6 wide and 9 high. Its corners are moved
// by up to 0.4 grid units in x and in y; it is 12-19 px high, sheared by up to 0.2, rotated by up to
// 0.25 rad and shifted by up to 3.5 px in x and in y. One stray stroke, 4-9 px long, lies across
// the image. Where ink is 1 and paper 0, each pixel gets Gaussian noise of standard deviation 0.15,
// is clamped to 0..1 and rounded to 0..255.
//
// Labels: images 10k..10k+9 are the ten digits in random order, so any whole tens are balanced.
//
// Made to be hard for a linear classifier: ridge regression on the pixels (lambda 1, pixels/255 and
// a bias, 20,000 images) gets 60 % of 5,000 others right.
// Errors: ARGUMENT (first < 0, count < 1, first+count > 2^32), TOO_BIG, NO_MEMORY.
TTT_API ttt_data_result ttt_images_draw(uint64_t seed, int64_t first, int64_t count,
                                        ttt_images *out, ttt_data_error *err);

// =================================================================================================
// [7] BATCHES
// =================================================================================================

// x = (pixel / 255 - mean) / std, per channel. All zero means x = pixel / 255: a std of 0 counts
// as 1, which is also right for a channel that never varies.
typedef struct {
    float mean[TTT_IMAGES_MAX_CHANNELS], std[TTT_IMAGES_MAX_CHANNELS];
} ttt_pixel_norm;

// Mean and standard deviation (divisor N H W) of pixel / 255, per channel. Sums are exact.
// Errors: ARGUMENT (a field of `images` is out of its range).
TTT_API ttt_data_result ttt_images_measure(const ttt_images *images, ttt_pixel_norm *out,
                                           ttt_data_error *err);

// Random changes to training images, both off when zero. Made on pixels, before normalization.
typedef struct {
    int crop; // p: surround by p black pixels, then cut (H,W) out at a random place
    int flip; // 1: then mirror left-right with probability 1/2
} ttt_augment;

// Zero is the plain evaluation pass, except that `images` and `batch` are required.
typedef struct {
    const ttt_images *images; // borrowed: must outlive the iterator
    uint64_t seed;
    int batch;     // B, 1 or more
    int shuffle;   // 1: every epoch in an order of its own; 0: as stored
    int drop_last; // 1: leave out a last batch that is smaller than B
    ttt_augment augment;
    ttt_pixel_norm norm;
} ttt_batches_desc;

// Where an iterator stands is (epoch, position), nothing else: save the two, and ttt_batches_seek
// goes on from there with the same bits. The order of an epoch is drawn from (seed, epoch), the
// augmentation of a sample from (seed, epoch, its index in the set).
typedef struct {
    ttt_batches_desc desc;
    int64_t epoch;    // 0, 1, 2, ...
    int64_t position; // samples delivered in this epoch
    int32_t *order;   // (N) indices of the samples in the order of this epoch
    float value[TTT_IMAGES_MAX_CHANNELS][256]; // normalized value of each pixel value
} ttt_batches;

// Makes an iterator at (0, 0). The only place where it allocates: 4 bytes for each image.
// Errors: ARGUMENT (a field of desc or of its images is out of range), NO_MEMORY.
TTT_API ttt_data_result ttt_batches_open(const ttt_batches_desc *desc, ttt_batches *out,
                                         ttt_data_error *err);

// Writes the next n <= B samples: x (n,H,W,C), y (n); either may be NULL. Returns n. Returns 0 once
// at the end of each epoch, and is then at the start of the next one. (Always 0 if not open.)
TTT_API int ttt_batches_next(ttt_batches *it, float *x, int32_t *y);

// Goes to `position` of `epoch`. Errors: ARGUMENT (position not in 0..N, epoch not in 0..2^32-1),
// and then the iterator stays where it was.
TTT_API ttt_data_result ttt_batches_seek(ttt_batches *it, int64_t epoch, int64_t position,
                                         ttt_data_error *err);

TTT_API void ttt_batches_free(ttt_batches *it);

#ifdef __cplusplus
}
#endif

#endif // TTT_DATA_H

// =================================================================================================
// IMPLEMENTATION
// =================================================================================================

#if defined(TTT_IMPLEMENTATION) || defined(TTT_DATA_IMPLEMENTATION)
#ifndef TTT__DATA_IMPLEMENTED
#define TTT__DATA_IMPLEMENTED

#include <errno.h>
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

#ifndef TTT_DATA_MAX_BYTES
#define TTT_DATA_MAX_BYTES 2147483647
#endif

// =================================================================================================
// [1] ERRORS, implementation
// =================================================================================================

// Writes the line and returns r, so that a function can end with `return ttt__data_fail(...)`.
static ttt_data_result ttt__data_fail(ttt_data_error *err, ttt_data_result r, const char *format,
                                      ...) {
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return r;
}

// Sizes in texts: %llu wants exactly this type, on every platform.
typedef unsigned long long ttt__data_ull;

static ttt_data_result ttt__data_no_memory(const char *who, size_t bytes, ttt_data_error *err) {
    return ttt__data_fail(err, TTT_DATA_NO_MEMORY, "%s: no memory for %llu bytes", who,
                          (ttt__data_ull)bytes);
}

TTT_API const char *ttt_data_result_text(ttt_data_result r) {
    static const char *const texts[] = {
#define TTT__DATA_ROW(name, text) text,
        TTT_DATA_RESULTS(TTT__DATA_ROW)
#undef TTT__DATA_ROW
    };
    return (unsigned)r < TTT_DATA_RESULT_COUNT ? texts[r] : "unknown result";
}

// =================================================================================================
// [2] RANDOM NUMBERS, implementation
// =================================================================================================

// Philox4x32-10 (Salmon 2011): ctr = ten rounds of multiply, exchange and xor under a key. This
// stands in every ttt header that draws numbers; the guard lets them be included together.
#ifndef TTT__PHILOX
#define TTT__PHILOX
static void ttt__philox(const uint32_t key[2], uint32_t ctr[4]) {
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * ctr[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * ctr[2];
        ctr[0] = (uint32_t)(p1 >> 32) ^ ctr[1] ^ k0;
        ctr[1] = (uint32_t)p1;
        ctr[2] = (uint32_t)(p0 >> 32) ^ ctr[3] ^ k1;
        ctr[3] = (uint32_t)p0;
        k0 += 0x9E3779B9u; // golden ratio
        k1 += 0xBB67AE85u; // sqrt(3) - 1
    }
}
#endif

TTT_API ttt_data_rng ttt_data_rng_at(uint64_t seed, uint32_t a, uint32_t b, uint32_t c) {
    ttt_data_rng rng;
    memset(&rng, 0, sizeof rng);
    rng.key[0] = (uint32_t)seed;
    rng.key[1] = (uint32_t)(seed >> 32);
    rng.counter[1] = a;
    rng.counter[2] = b;
    rng.counter[3] = c;
    rng.used = 4; // no block yet
    return rng;
}

TTT_API uint32_t ttt_data_rng_bits(ttt_data_rng *rng) {
    if (rng->used == 4) {
        for (int i = 0; i < 4; i++) rng->words[i] = rng->counter[i];
        ttt__philox(rng->key, rng->words);
        rng->counter[0]++;
        rng->used = 0;
    }
    return rng->words[rng->used++];
}

TTT_API float ttt_data_rng_uniform(ttt_data_rng *rng) {
    return (float)(ttt_data_rng_bits(rng) >> 8) / 16777216.0f;
}

TTT_API float ttt_data_rng_normal(ttt_data_rng *rng) {
    double u = (ttt_data_rng_bits(rng) + 1.0) / 4294967296.0; // (0,1]: the logarithm is finite
    double v = ttt_data_rng_bits(rng) / 4294967296.0;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586477 * v));
}

TTT_API uint32_t ttt_data_rng_below(ttt_data_rng *rng, uint32_t n) {
    return (uint32_t)(((uint64_t)ttt_data_rng_bits(rng) * n) >> 32);
}

TTT_API void ttt_data_rng_permute(ttt_data_rng *rng, int32_t *order, int32_t n) {
    for (int32_t i = 0; i < n; i++) order[i] = i;
    for (int32_t i = n - 1; i > 0; i--) {
        int32_t j = (int32_t)ttt_data_rng_below(rng, (uint32_t)i + 1);
        int32_t swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
}

// The first word of the streams that this header draws from, and what the other two are.
#define TTT__DATA_STREAM_ORDER 0x80000001u   // epoch, 0
#define TTT__DATA_STREAM_AUGMENT 0x80000002u // epoch, sample
#define TTT__DATA_STREAM_LABEL 0x80000003u   // 0, image / 10
#define TTT__DATA_STREAM_IMAGE 0x80000004u   // 0, image

// =================================================================================================
// [3] GZIP, implementation
// =================================================================================================

// Deflate (RFC 1951) is Huffman codes for bytes and for "copy `length` bytes from `distance` back".
// The output itself is the window that copies reach into, so nothing but the code tables is kept.

#define TTT__HUFFMAN_MAX_BITS 15  // longest code of deflate
#define TTT__HUFFMAN_FAST_BITS 10 // codes up to this long are decoded by one look-up
#define TTT__HUFFMAN_SYMBOLS 288  // largest alphabet

// A Huffman code. Canonical: codes of one length are consecutive numbers, given in symbol order,
// and shorter codes come first; so the lengths alone define it (RFC 1951, 3.2.2).
typedef struct {
    uint16_t count[TTT__HUFFMAN_MAX_BITS + 1];  // codes of each length
    uint16_t symbol[TTT__HUFFMAN_SYMBOLS];      // symbols in the order of their codes
    uint16_t fast[1 << TTT__HUFFMAN_FAST_BITS]; // next bits -> 16 symbol + length; 0: a longer code
} ttt__huffman;

typedef struct {
    const uint8_t *in; // the gzip file
    size_t in_size, in_used;
    uint64_t bits; // taken from `in` but not used, the next one lowest
    int bit_count;
    uint8_t *out;
    size_t limit, size; // bytes that may be, and that were written
    size_t start;       // where the output of the current member begins
    ttt__huffman literal, distance;
    int fixed;           // the two codes are those of block type 1
    const char *problem; // what stopped it
    ttt_data_result result;
} ttt__inflate;

// Inner functions return a value >= 0, or -1 after recording what stopped them.
static int ttt__inflate_stop(ttt__inflate *s, ttt_data_result result, const char *problem) {
    s->result = result;
    s->problem = problem;
    return -1;
}

static int ttt__inflate_bad(ttt__inflate *s, const char *problem) {
    return ttt__inflate_stop(s, TTT_DATA_FORMAT, problem);
}

static int ttt__inflate_cut(ttt__inflate *s) {
    return ttt__inflate_bad(s, "the file ends in the middle");
}

// ---- bits and bytes ----

// Tops the bit buffer up to 57 bits or more: enough for a length, a distance and their extra bits.
static void ttt__inflate_refill(ttt__inflate *s) {
    while (s->bit_count <= 56 && s->in_used < s->in_size) {
        s->bits |= (uint64_t)s->in[s->in_used++] << s->bit_count;
        s->bit_count += 8;
    }
}

static void ttt__inflate_drop(ttt__inflate *s, int n) {
    s->bits >>= n;
    s->bit_count -= n;
}

// The next n <= 16 bits as a number, lowest bit first.
static int ttt__inflate_bits(ttt__inflate *s, int n) {
    if (s->bit_count < n) ttt__inflate_refill(s);
    if (s->bit_count < n) return ttt__inflate_cut(s);
    int value = (int)(s->bits & ((1u << n) - 1));
    ttt__inflate_drop(s, n);
    return value;
}

// Skips to a byte boundary and hands whole unused bytes back to the input.
static void ttt__inflate_align(ttt__inflate *s) {
    s->in_used -= (size_t)(s->bit_count / 8);
    s->bits = 0;
    s->bit_count = 0;
}

// Skips n whole bytes, which the caller then reads where they are.
static int ttt__inflate_skip(ttt__inflate *s, size_t n) {
    if (s->in_size - s->in_used < n) return ttt__inflate_cut(s);
    s->in_used += n;
    return 0;
}

// A little-endian number of n bytes.
static uint32_t ttt__inflate_number(const uint8_t *p, int n) {
    uint32_t value = 0;
    for (int i = 0; i < n; i++) value |= (uint32_t)p[i] << (8 * i);
    return value;
}

// ---- Huffman codes ----

static unsigned ttt__huffman_reversed(unsigned code, int length) {
    unsigned reversed = 0;
    for (int i = 0; i < length; i++) reversed |= ((code >> i) & 1u) << (length - 1 - i);
    return reversed;
}

// Every FAST_BITS-bit pattern that begins with the code leads to the symbol. Codes are packed with
// their first bit lowest, the reverse of how they count.
static void ttt__huffman_add_fast(ttt__huffman *h, unsigned code, int length, int symbol) {
    if (length > TTT__HUFFMAN_FAST_BITS) return;
    unsigned pattern = ttt__huffman_reversed(code, length);
    for (; pattern < 1u << TTT__HUFFMAN_FAST_BITS; pattern += 1u << length) {
        h->fast[pattern] = (uint16_t)(symbol * 16 + length);
    }
}

// lengths (n): bits of each symbol's code, 0 if it has none. Returns the share of all 15-bit
// patterns that no code begins with, times 2^15: 0 for a complete code, negative if codes overlap.
static int ttt__huffman_build(ttt__huffman *h, const uint8_t *lengths, int n) {
    unsigned next_code[TTT__HUFFMAN_MAX_BITS + 1] = { 0 };
    int next_place[TTT__HUFFMAN_MAX_BITS + 1] = { 0 };
    int unused = 1 << TTT__HUFFMAN_MAX_BITS;
    memset(h, 0, sizeof *h);
    for (int i = 0; i < n; i++) h->count[lengths[i]]++;
    h->count[0] = 0;
    for (int k = 1; k <= TTT__HUFFMAN_MAX_BITS; k++) {
        next_code[k] = (next_code[k - 1] + h->count[k - 1]) << 1;
        next_place[k] = next_place[k - 1] + h->count[k - 1];
        unused -= h->count[k] << (TTT__HUFFMAN_MAX_BITS - k);
    }
    if (unused < 0) return unused;
    for (int i = 0; i < n; i++) {
        if (lengths[i] == 0) continue;
        h->symbol[next_place[lengths[i]]++] = (uint16_t)i;
        ttt__huffman_add_fast(h, next_code[lengths[i]]++, lengths[i], i);
    }
    return unused;
}

// A code longer than the look-up: its bits are added one by one, until the number lies among the
// codes of that length.
static int ttt__huffman_decode_long(ttt__inflate *s, const ttt__huffman *h) {
    int code = 0, first = 0, place = 0; // first: lowest code of this length, place: its symbol
    for (int length = 1; length <= TTT__HUFFMAN_MAX_BITS; length++) {
        if (length > s->bit_count) return ttt__inflate_cut(s);
        code = code * 2 + (int)((s->bits >> (length - 1)) & 1);
        if (code - first < h->count[length]) {
            ttt__inflate_drop(s, length);
            return h->symbol[place + code - first];
        }
        place += h->count[length];
        first = (first + h->count[length]) * 2;
    }
    return ttt__inflate_bad(s, "bits that are no Huffman code");
}

static int ttt__huffman_decode(ttt__inflate *s, const ttt__huffman *h) {
    if (s->bit_count < TTT__HUFFMAN_MAX_BITS) ttt__inflate_refill(s);
    int entry = h->fast[s->bits & ((1u << TTT__HUFFMAN_FAST_BITS) - 1)];
    if (entry == 0) return ttt__huffman_decode_long(s, h);
    if (entry % 16 > s->bit_count) return ttt__inflate_cut(s);
    ttt__inflate_drop(s, entry % 16);
    return entry / 16;
}

// ---- the three kinds of block ----

// Appends n bytes; both kinds of source may overlap what is being written.
static int ttt__inflate_copy(ttt__inflate *s, const uint8_t *from, size_t n) {
    size_t room = s->limit - s->size;
    size_t fits = n < room ? n : room;
    uint8_t *to = s->out + s->size;
    for (size_t i = 0; i < fits; i++) to[i] = from[i];
    s->size += fits;
    if (fits < n) return ttt__inflate_stop(s, TTT_DATA_TOO_BIG, "inflates to more than the limit");
    return 0;
}

static int ttt__inflate_stored(ttt__inflate *s) {
    ttt__inflate_align(s);
    const uint8_t *p = s->in + s->in_used;
    if (ttt__inflate_skip(s, 4) < 0) return -1;
    uint32_t length = ttt__inflate_number(p, 2), check = ttt__inflate_number(p + 2, 2);
    if ((length ^ check) != 0xFFFF) {
        return ttt__inflate_bad(s, "a stored block whose length fails its check");
    }
    if (ttt__inflate_skip(s, length) < 0) return -1;
    return ttt__inflate_copy(s, p + 4, length);
}

// Lengths and distances are a base plus some extra bits (RFC 1951, 3.2.5).
static int ttt__inflate_extended(ttt__inflate *s, int base, int extra_bits) {
    int extra = ttt__inflate_bits(s, extra_bits);
    return extra < 0 ? -1 : base + extra;
}

static int ttt__inflate_match(ttt__inflate *s, int length_symbol) {
    static const uint16_t length_base[29] = { 3,  4,  5,  6,  7,  8,  9,  10, 11,  13,
                                              15, 17, 19, 23, 27, 31, 35, 43, 51,  59,
                                              67, 83, 99, 115, 131, 163, 195, 227, 258 };
    static const uint8_t length_extra[29] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                              2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0 };
    static const uint16_t distance_base[30] = {
        1,   2,   3,   4,   5,    7,    9,    13,   17,   25,   33,   49,    65,    97,    129,
        193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577,
    };
    int k = length_symbol - 257;
    if (k > 28) return ttt__inflate_bad(s, "a length symbol above 285");
    int length = ttt__inflate_extended(s, length_base[k], length_extra[k]);
    if (length < 0) return -1;
    int d = ttt__huffman_decode(s, &s->distance);
    if (d < 0) return -1;
    if (d > 29) return ttt__inflate_bad(s, "a distance symbol above 29");
    int distance = ttt__inflate_extended(s, distance_base[d], d < 2 ? 0 : d / 2 - 1);
    if (distance < 0) return -1;
    if ((size_t)distance > s->size - s->start) {
        return ttt__inflate_bad(s, "a distance to before the first byte");
    }
    return ttt__inflate_copy(s, s->out + s->size - distance, (size_t)length);
}

// Bytes and matches until the end of the block.
static int ttt__inflate_symbols(ttt__inflate *s) {
    for (;;) {
        int symbol = ttt__huffman_decode(s, &s->literal);
        if (symbol < 0) return -1;
        if (symbol == 256) return 0;
        if (symbol > 256) {
            if (ttt__inflate_match(s, symbol) < 0) return -1;
        } else {
            uint8_t byte = (uint8_t)symbol;
            if (ttt__inflate_copy(s, &byte, 1) < 0) return -1;
        }
    }
}

// The codes of block type 1 (RFC 1951, 3.2.6). They stay until a type 2 block brings others, so
// that many tiny blocks cost little.
static int ttt__inflate_fixed(ttt__inflate *s) {
    uint8_t lengths[288];
    if (!s->fixed) {
        memset(lengths, 8, 288);
        memset(lengths + 144, 9, 112);
        memset(lengths + 256, 7, 24);
        ttt__huffman_build(&s->literal, lengths, 288);
        memset(lengths, 5, 32);
        ttt__huffman_build(&s->distance, lengths, 32);
        s->fixed = 1;
    }
    return ttt__inflate_symbols(s);
}

// lengths (n) of a type 2 block: themselves Huffman coded, with repeats (RFC 1951, 3.2.7).
static int ttt__inflate_lengths(ttt__inflate *s, const ttt__huffman *h, uint8_t *lengths, int n) {
    for (int i = 0; i < n;) {
        int symbol = ttt__huffman_decode(s, h);
        if (symbol < 0) return -1;
        if (symbol < 16) {
            lengths[i++] = (uint8_t)symbol;
            continue;
        }
        if (symbol == 16 && i == 0) {
            return ttt__inflate_bad(s, "a repeat before the first code length");
        }
        uint8_t value = symbol == 16 ? lengths[i - 1] : 0;
        int repeat = symbol == 16   ? ttt__inflate_extended(s, 3, 2)
                     : symbol == 17 ? ttt__inflate_extended(s, 3, 3)
                                    : ttt__inflate_extended(s, 11, 7);
        if (repeat < 0) return -1;
        if (repeat > n - i) return ttt__inflate_bad(s, "too many code lengths");
        while (repeat-- > 0) lengths[i++] = value;
    }
    return 0;
}

// An incomplete code leaves bit patterns without meaning. As in zlib only one is let pass, which
// real compressors write: at most one distance (or only the end-of-block symbol), of length 1.
static int ttt__inflate_code(ttt__inflate *s, ttt__huffman *code, const uint8_t *lengths, int n) {
    int unused = ttt__huffman_build(code, lengths, n), codes = 0;
    for (int i = 0; i < n; i++) codes += lengths[i] != 0;
    if (unused < 0) return ttt__inflate_bad(s, "an over-subscribed Huffman code");
    if (unused > 0 && codes != code->count[1]) {
        return ttt__inflate_bad(s, "an incomplete Huffman code");
    }
    return 0;
}

static int ttt__inflate_dynamic(ttt__inflate *s) {
    static const uint8_t order[19] = { 16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                       11, 4,  12, 3, 13, 2, 14, 1, 15 };
    uint8_t lengths[286 + 30] = { 0 };
    int literals = ttt__inflate_extended(s, 257, 5);
    int distances = ttt__inflate_extended(s, 1, 5);
    int lengths_coded = ttt__inflate_extended(s, 4, 4);
    if (literals < 0 || distances < 0 || lengths_coded < 0) return -1;
    if (literals > 286 || distances > 30) {
        return ttt__inflate_bad(s, "more than 286 literals or 30 distances");
    }
    for (int i = 0; i < lengths_coded; i++) {
        int length = ttt__inflate_bits(s, 3);
        if (length < 0) return -1;
        lengths[order[i]] = (uint8_t)length;
    }
    s->fixed = 0;
    if (ttt__huffman_build(&s->literal, lengths, 19) != 0) {
        return ttt__inflate_bad(s, "the code of code lengths is not complete");
    }
    memset(lengths, 0, sizeof lengths);
    if (ttt__inflate_lengths(s, &s->literal, lengths, literals + distances) < 0) return -1;
    if (lengths[256] == 0) return ttt__inflate_bad(s, "no end-of-block code");
    if (ttt__inflate_code(s, &s->distance, lengths + literals, distances) < 0) return -1;
    if (ttt__inflate_code(s, &s->literal, lengths, literals) < 0) return -1;
    return ttt__inflate_symbols(s);
}

// One deflate stream: blocks until the one marked as the last.
static int ttt__inflate_stream(ttt__inflate *s) {
    for (int last = 0; !last;) {
        last = ttt__inflate_bits(s, 1);
        int type = last < 0 ? -1 : ttt__inflate_bits(s, 2);
        if (type < 0) return -1;
        int r = type == 0   ? ttt__inflate_stored(s)
                : type == 1 ? ttt__inflate_fixed(s)
                : type == 2 ? ttt__inflate_dynamic(s)
                            : ttt__inflate_bad(s, "a block of type 3");
        if (r < 0) return -1;
    }
    ttt__inflate_align(s);
    return 0;
}

// ---- gzip around deflate (RFC 1952) ----

// CRC-32 of n bytes: the remainder modulo the polynomial 0xEDB88320, bits reversed (RFC 1952, 8).
static uint32_t ttt__data_crc32(const uint8_t *bytes, size_t n) {
    uint32_t table[256], crc = 0xFFFFFFFFu;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++) {
            table[i] = (table[i] >> 1) ^ (table[i] & 1 ? 0xEDB88320u : 0);
        }
    }
    for (size_t i = 0; i < n; i++) crc = (crc >> 8) ^ table[(crc ^ bytes[i]) & 255];
    return ~crc;
}

static int ttt__gzip_skip_text(ttt__inflate *s) {
    size_t left = s->in_size - s->in_used;
    const uint8_t *end = (const uint8_t *)memchr(s->in + s->in_used, 0, left);
    return ttt__inflate_skip(s, end ? (size_t)(end - s->in) - s->in_used + 1 : left + 1);
}

static int ttt__gzip_header(ttt__inflate *s) {
    enum { HCRC = 2, EXTRA = 4, NAME = 8, COMMENT = 16, RESERVED = 0xE0 };
    const uint8_t *p = s->in + s->in_used;
    if (ttt__inflate_skip(s, 10) < 0) return -1;
    if (p[0] != 0x1F || p[1] != 0x8B) {
        return ttt__inflate_bad(s, "a member that does not begin with 1f 8b");
    }
    if (p[2] != 8) return ttt__inflate_bad(s, "a method other than 8");
    if (p[3] & RESERVED) return ttt__inflate_bad(s, "a reserved flag");
    if (p[3] & EXTRA) {
        const uint8_t *length = s->in + s->in_used;
        if (ttt__inflate_skip(s, 2) < 0) return -1;
        if (ttt__inflate_skip(s, ttt__inflate_number(length, 2)) < 0) return -1;
    }
    if ((p[3] & NAME) && ttt__gzip_skip_text(s) < 0) return -1;
    if ((p[3] & COMMENT) && ttt__gzip_skip_text(s) < 0) return -1;
    if (p[3] & HCRC) {
        const uint8_t *check = s->in + s->in_used;
        if (ttt__inflate_skip(s, 2) < 0) return -1;
        if ((ttt__data_crc32(p, (size_t)(check - p)) & 0xFFFF) != ttt__inflate_number(check, 2)) {
            return ttt__inflate_bad(s, "a header that fails its checksum");
        }
    }
    return 0;
}

static int ttt__gzip_trailer(ttt__inflate *s) {
    const uint8_t *p = s->in + s->in_used, *made = s->out + s->start;
    size_t size = s->size - s->start;
    if (ttt__inflate_skip(s, 8) < 0) return -1;
    if (ttt__data_crc32(made, size) != ttt__inflate_number(p, 4)) {
        return ttt__inflate_bad(s, "data that fail their CRC-32");
    }
    if ((uint32_t)(size & 0xFFFFFFFFu) != ttt__inflate_number(p + 4, 4)) {
        return ttt__inflate_bad(s, "a size other than the one stored");
    }
    return 0;
}

// Inflates a whole gzip file. With TOO_BIG the first `limit` bytes are in `out`.
static ttt_data_result ttt__gzip_run(ttt__inflate *s, const void *bytes, size_t n, uint8_t *out,
                                     size_t limit) {
    memset(s, 0, sizeof *s);
    s->in = (const uint8_t *)bytes;
    s->in_size = n;
    s->out = out;
    s->limit = limit;
    do {
        s->start = s->size;
        if (ttt__gzip_header(s) < 0 || ttt__inflate_stream(s) < 0 || ttt__gzip_trailer(s) < 0) {
            return s->result;
        }
    } while (s->in_used < s->in_size);
    return TTT_DATA_OK;
}

static ttt_data_result ttt__gzip_fail(const ttt__inflate *s, const char *name,
                                      ttt_data_error *err) {
    return ttt__data_fail(err, s->result, "%s: gzip: %s (near byte %llu of %llu)", name, s->problem,
                          (ttt__data_ull)s->in_used, (ttt__data_ull)s->in_size);
}

TTT_API ttt_data_result ttt_gzip_inflate(const char *name, const void *bytes, size_t n,
                                         uint8_t *out, size_t capacity, size_t *size,
                                         ttt_data_error *err) {
    ttt__inflate s;
    if (size) *size = 0;
    if (!bytes || !out || !size) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT, "ttt_gzip_inflate: a pointer is NULL");
    }
    if (ttt__gzip_run(&s, bytes, n, out, capacity) != TTT_DATA_OK) {
        return ttt__gzip_fail(&s, name ? name : "gzip in memory", err);
    }
    *size = s.size;
    return TTT_DATA_OK;
}

// =================================================================================================
// [4] IDX FILES, implementation
// =================================================================================================

#define TTT__IDX_HEADER_MAX (4 + 4 * TTT_IDX_MAX_RANK)

// Bytes of an element, 0 for a type that IDX does not have.
static size_t ttt__idx_width(int type) {
    switch (type) {
    case TTT_IDX_U8: return 1;
    case TTT_IDX_I8: return 1;
    case TTT_IDX_I16: return 2;
    case TTT_IDX_I32: return 4;
    case TTT_IDX_F32: return 4;
    case TTT_IDX_F64: return 8;
    default: return 0;
    }
}

// "60000 x 28 x 28" into text (size), for error texts.
static const char *ttt__idx_shape_text(const ttt_idx *idx, char *text, size_t size) {
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < idx->rank && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s%llu", i ? " x " : "",
                                 (ttt__data_ull)idx->shape[i]);
    }
    return text;
}

// Product of the shape, or -1 if the elements would take more than TTT_DATA_MAX_BYTES.
static int64_t ttt__idx_count(const ttt_idx *idx) {
    int64_t most = (int64_t)((uint64_t)TTT_DATA_MAX_BYTES / ttt__idx_width(idx->type));
    int64_t count = 1;
    for (int i = 0; i < idx->rank; i++) {
        if (idx->shape[i] == 0) return 0;
    }
    for (int i = 0; i < idx->rank; i++) {
        if (idx->shape[i] > most / count) return -1;
        count *= idx->shape[i];
    }
    return count;
}

// Fills all of out but its data. *total = bytes that the whole file must have.
static ttt_data_result ttt__idx_header(const char *name, const uint8_t *bytes, size_t n,
                                       ttt_idx *out, size_t *total, ttt_data_error *err) {
    char shape[128];
    if (n < 4) {
        return ttt__data_fail(err, TTT_DATA_FORMAT, "%s: %llu bytes, an IDX header has 8 or more",
                              name, (ttt__data_ull)n);
    }
    int type = bytes[2], rank = bytes[3];
    size_t header = 4 + 4 * (size_t)rank;
    if (bytes[0] || bytes[1] || !ttt__idx_width(type) || rank < 1 || rank > TTT_IDX_MAX_RANK) {
        return ttt__data_fail(err, TTT_DATA_FORMAT,
                              "%s: begins with %02x %02x %02x %02x, IDX expects 00 00, type 08, "
                              "09, 0b, 0c, 0d or 0e, rank 01 to %02x",
                              name, bytes[0], bytes[1], bytes[2], bytes[3], TTT_IDX_MAX_RANK);
    }
    if (n < header) {
        return ttt__data_fail(err, TTT_DATA_FORMAT,
                              "%s: %llu bytes, an IDX header of rank %d has %llu", name,
                              (ttt__data_ull)n, rank, (ttt__data_ull)header);
    }
    out->type = type;
    out->rank = rank;
    for (int i = 0; i < rank; i++) {
        const uint8_t *p = bytes + 4 + 4 * i;
        out->shape[i] = (int64_t)p[0] << 24 | (int64_t)p[1] << 16 | (int64_t)p[2] << 8 | p[3];
    }
    out->count = ttt__idx_count(out);
    if (out->count < 0) {
        return ttt__data_fail(err, TTT_DATA_TOO_BIG,
                              "%s: declares %s elements of %d bytes, more than "
                              "TTT_DATA_MAX_BYTES = %llu allows",
                              name, ttt__idx_shape_text(out, shape, sizeof shape),
                              (int)ttt__idx_width(type), (ttt__data_ull)TTT_DATA_MAX_BYTES);
    }
    *total = header + (size_t)out->count * ttt__idx_width(type);
    return TTT_DATA_OK;
}

static ttt_data_result ttt__idx_size_fail(const char *name, const ttt_idx *idx, size_t expected,
                                          const char *holds, size_t found, ttt_data_error *err) {
    char shape[128];
    return ttt__data_fail(err, TTT_DATA_FORMAT,
                          "%s: %llu bytes expected from its header (%s), %s %llu", name,
                          (ttt__data_ull)expected, ttt__idx_shape_text(idx, shape, sizeof shape),
                          holds, (ttt__data_ull)found);
}

// Copies `count` big-endian elements into the order of the host.
static void ttt__idx_to_host(uint8_t *to, const uint8_t *from, size_t count, size_t width) {
    const uint16_t one = 1;
    int host_is_little = *(const uint8_t *)&one;
    if (width == 1 || !host_is_little) {
        memcpy(to, from, count * width);
        return;
    }
    for (size_t i = 0; i < count * width; i += width) {
        for (size_t k = 0; k < width; k++) to[i + k] = from[i + width - 1 - k];
    }
}

static ttt_data_result ttt__idx_from_plain(const char *name, const uint8_t *bytes, size_t n,
                                           ttt_idx *out, ttt_data_error *err) {
    size_t total;
    ttt_data_result r = ttt__idx_header(name, bytes, n, out, &total, err);
    if (r != TTT_DATA_OK) return r;
    if (n != total) return ttt__idx_size_fail(name, out, total, "file has", n, err);
    size_t width = ttt__idx_width(out->type), size = (size_t)out->count * width;
    out->data = TTT_MALLOC(NULL, size ? size : 1);
    if (!out->data) return ttt__data_no_memory(name, size, err);
    ttt__idx_to_host((uint8_t *)out->data, bytes + (n - size), (size_t)out->count, width);
    return TTT_DATA_OK;
}

// Inflates the header alone to learn the size, then exactly that much: a small file that declares
// or holds far too much (a "bomb") costs neither time nor memory.
static ttt_data_result ttt__idx_from_gzip(const char *name, const uint8_t *bytes, size_t n,
                                          ttt_idx *out, ttt_data_error *err) {
    uint8_t header[TTT__IDX_HEADER_MAX];
    ttt__inflate s;
    size_t total;
    ttt_data_result r = ttt__gzip_run(&s, bytes, n, header, sizeof header);
    if (r != TTT_DATA_OK && r != TTT_DATA_TOO_BIG) return ttt__gzip_fail(&s, name, err);
    r = ttt__idx_header(name, header, s.size, out, &total, err);
    if (r != TTT_DATA_OK) return r;
    if (total / 1032 > n) { // two bits of deflate give 258 bytes at most
        return ttt__idx_size_fail(name, out, total, "gzip holds at most", n * 1032, err);
    }
    uint8_t *plain = (uint8_t *)TTT_MALLOC(NULL, total);
    if (!plain) return ttt__data_no_memory(name, total, err);
    r = ttt__gzip_run(&s, bytes, n, plain, total);
    if (r == TTT_DATA_TOO_BIG) {
        r = ttt__idx_size_fail(name, out, total, "gzip holds at least", total + 1, err);
    } else if (r != TTT_DATA_OK) {
        r = ttt__gzip_fail(&s, name, err);
    } else if (s.size < total) {
        r = ttt__idx_size_fail(name, out, total, "gzip holds", s.size, err);
    } else {
        r = ttt__idx_from_plain(name, plain, total, out, err);
    }
    TTT_FREE(NULL, plain);
    return r;
}

TTT_API ttt_data_result ttt_idx_parse(const char *name, const void *bytes, size_t n, ttt_idx *out,
                                      ttt_data_error *err) {
    const uint8_t *p = (const uint8_t *)bytes;
    if (out) memset(out, 0, sizeof *out);
    if (!p || !out) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT, "ttt_idx_parse: a pointer is NULL");
    }
    if (!name) name = "IDX in memory";
    int is_gzip = n >= 2 && p[0] == 0x1F && p[1] == 0x8B; // an IDX file begins with 00 00
    ttt_data_result r = is_gzip ? ttt__idx_from_gzip(name, p, n, out, err)
                                : ttt__idx_from_plain(name, p, n, out, err);
    if (r != TTT_DATA_OK) memset(out, 0, sizeof *out);
    return r;
}

#ifndef TTT_NO_STDIO
// Reads from f until it ends. Not by its size: ftell is too narrow on some systems, and pipes have
// none.
static ttt_data_result ttt__data_slurp(FILE *f, uint8_t **bytes, size_t *size) {
    size_t room = 0;
    for (size_t got = 1; got > 0; *size += got) {
        if (*size == room) {
            room = 2 * room + 65536;
            uint8_t *larger = (uint8_t *)TTT_REALLOC(NULL, *bytes, room);
            if (!larger) return TTT_DATA_NO_MEMORY;
            *bytes = larger;
        }
        got = fread(*bytes + *size, 1, room - *size, f);
        if (got > TTT_DATA_MAX_BYTES - *size) return TTT_DATA_TOO_BIG;
    }
    return ferror(f) ? TTT_DATA_FILE : TTT_DATA_OK;
}

// All bytes of a file, to be freed by the caller.
static ttt_data_result ttt__data_read_file(const char *path, uint8_t **bytes, size_t *size,
                                           ttt_data_error *err) {
    *bytes = NULL;
    *size = 0;
    FILE *f = fopen(path, "rb");
    ttt_data_result r = f ? ttt__data_slurp(f, bytes, size) : TTT_DATA_FILE;
    if (r != TTT_DATA_OK) {
        const char *why = r == TTT_DATA_FILE ? strerror(errno) : ttt_data_result_text(r);
        ttt__data_fail(err, r, "%s: cannot be %s: %s", path, f ? "read" : "opened", why);
        TTT_FREE(NULL, *bytes);
        *bytes = NULL;
    }
    if (f) fclose(f);
    return r;
}

TTT_API ttt_data_result ttt_idx_read(const char *path, ttt_idx *out, ttt_data_error *err) {
    uint8_t *bytes;
    size_t size;
    if (out) memset(out, 0, sizeof *out);
    if (!path || !out) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT, "ttt_idx_read: a pointer is NULL");
    }
    ttt_data_result r = ttt__data_read_file(path, &bytes, &size, err);
    if (r == TTT_DATA_OK) r = ttt_idx_parse(path, bytes, size, out, err);
    TTT_FREE(NULL, bytes);
    return r;
}
#endif

TTT_API void ttt_idx_free(ttt_idx *idx) {
    if (!idx) return;
    TTT_FREE(NULL, idx->data);
    memset(idx, 0, sizeof *idx);
}

// =================================================================================================
// [5] IMAGE SETS, implementation
// =================================================================================================

// Fills the sizes, with room for the pixels and labels. On failure nothing is kept.
static ttt_data_result ttt__images_alloc(ttt_images *out, int64_t count, int height, int width,
                                         int channels, int classes, ttt_data_error *err) {
    uint64_t pixels = (uint64_t)count * (uint64_t)height * (uint64_t)width * (uint64_t)channels;
    uint64_t labels = (uint64_t)count * sizeof(int32_t);
    if (pixels > TTT_DATA_MAX_BYTES || labels > TTT_DATA_MAX_BYTES) {
        return ttt__data_fail(err, TTT_DATA_TOO_BIG,
                              "image set (%lld,%d,%d,%d): pixels or labels larger than "
                              "TTT_DATA_MAX_BYTES = %llu",
                              (long long)count, height, width, channels,
                              (ttt__data_ull)TTT_DATA_MAX_BYTES);
    }
    out->pixels = (uint8_t *)TTT_MALLOC(NULL, (size_t)pixels);
    out->labels = (int32_t *)TTT_MALLOC(NULL, (size_t)labels);
    if (!out->pixels || !out->labels) {
        ttt_images_free(out);
        return ttt__data_no_memory("image set", (size_t)(pixels + labels), err);
    }
    out->count = count;
    out->height = height;
    out->width = width;
    out->channels = channels;
    out->classes = classes;
    return TTT_DATA_OK;
}

static ttt_data_result ttt__images_check_idx(const char *pixels_name, const ttt_idx *pixels,
                                             const char *labels_name, const ttt_idx *labels,
                                             ttt_data_error *err) {
    char shape[128];
    if (pixels->type != TTT_IDX_U8 || pixels->rank != 3 || pixels->count == 0) {
        return ttt__data_fail(err, TTT_DATA_FORMAT,
                              "%s: type %02x, shape %s; expected images: type 08, shape N x H x W, "
                              "none of them 0",
                              pixels_name, (unsigned)pixels->type,
                              ttt__idx_shape_text(pixels, shape, sizeof shape));
    }
    if (labels->type != TTT_IDX_U8 || labels->rank != 1) {
        return ttt__data_fail(err, TTT_DATA_FORMAT,
                              "%s: type %02x, shape %s; expected labels: type 08, shape N",
                              labels_name, (unsigned)labels->type,
                              ttt__idx_shape_text(labels, shape, sizeof shape));
    }
    if (labels->shape[0] != pixels->shape[0]) {
        return ttt__data_fail(err, TTT_DATA_FORMAT, "%s: %llu labels for the %llu images of %s",
                              labels_name, (ttt__data_ull)labels->shape[0],
                              (ttt__data_ull)pixels->shape[0], pixels_name);
    }
    return TTT_DATA_OK;
}

// Copies the labels of an IDX array, each below `classes`.
static ttt_data_result ttt__images_set_labels(ttt_images *images, const char *name,
                                              const ttt_idx *labels, ttt_data_error *err) {
    const uint8_t *from = (const uint8_t *)labels->data;
    for (int64_t i = 0; i < images->count; i++) {
        if (from[i] >= images->classes) {
            return ttt__data_fail(err, TTT_DATA_FORMAT,
                                  "%s: label %d of image %llu, expected 0 to %d", name, from[i],
                                  (ttt__data_ull)i, images->classes - 1);
        }
        images->labels[i] = from[i];
    }
    return TTT_DATA_OK;
}

TTT_API ttt_data_result ttt_images_from_idx(const char *pixels_name, const ttt_idx *pixels,
                                            const char *labels_name, const ttt_idx *labels,
                                            int classes, ttt_images *out, ttt_data_error *err) {
    if (out) memset(out, 0, sizeof *out);
    if (!pixels || !pixels->data || !labels || !labels->data || !out) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT, "ttt_images_from_idx: a pointer is NULL");
    }
    if (classes < 1) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT,
                              "ttt_images_from_idx: %d classes, expected 1 or more", classes);
    }
    if (!pixels_name) pixels_name = "images";
    if (!labels_name) labels_name = "labels";
    ttt_data_result r = ttt__images_check_idx(pixels_name, pixels, labels_name, labels, err);
    if (r != TTT_DATA_OK) return r;
    r = ttt__images_alloc(out, pixels->shape[0], (int)pixels->shape[1], (int)pixels->shape[2], 1,
                          classes, err);
    if (r != TTT_DATA_OK) return r;
    memcpy(out->pixels, pixels->data, (size_t)pixels->count);
    r = ttt__images_set_labels(out, labels_name, labels, err);
    if (r != TTT_DATA_OK) ttt_images_free(out);
    return r;
}

#ifndef TTT_NO_STDIO
enum { TTT__DATA_PATH = 1024 };

// path (TTT__DATA_PATH) = <dir>/<split>-<rest> or the same with .gz, whichever can be opened.
static ttt_data_result ttt__images_find_file(char *path, const char *dir, const char *split,
                                             const char *rest, ttt_data_error *err) {
    static const char *const endings[2] = { "", ".gz" };
    for (int i = 0; i < 2; i++) {
        int length = snprintf(path, TTT__DATA_PATH, "%s/%s-%s%s", dir, split, rest, endings[i]);
        if (length < 0 || length >= TTT__DATA_PATH) {
            return ttt__data_fail(err, TTT_DATA_ARGUMENT, "%.200s...: path longer than %d bytes",
                                  dir, TTT__DATA_PATH - 1);
        }
        FILE *f = fopen(path, "rb");
        if (!f) continue;
        fclose(f);
        return TTT_DATA_OK;
    }
    return ttt__data_fail(err, TTT_DATA_FILE, "%s/%s-%s: not there, and not with .gz either", dir,
                          split, rest);
}

#define TTT__PIXELS_NAME "images-idx3-ubyte"
#define TTT__LABELS_NAME "labels-idx1-ubyte"

TTT_API ttt_data_result ttt_images_load_idx(const char *dir, const char *split, int classes,
                                            ttt_images *out, ttt_data_error *err) {
    char pixels_path[TTT__DATA_PATH], labels_path[TTT__DATA_PATH];
    ttt_idx pixels, labels;
    memset(&pixels, 0, sizeof pixels);
    memset(&labels, 0, sizeof labels);
    if (out) memset(out, 0, sizeof *out);
    if (!dir || !split || !out) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT, "ttt_images_load_idx: a pointer is NULL");
    }
    ttt_data_result r = ttt__images_find_file(pixels_path, dir, split, TTT__PIXELS_NAME, err);
    if (r == TTT_DATA_OK) r = ttt__images_find_file(labels_path, dir, split, TTT__LABELS_NAME, err);
    if (r == TTT_DATA_OK) r = ttt_idx_read(pixels_path, &pixels, err);
    if (r == TTT_DATA_OK) r = ttt_idx_read(labels_path, &labels, err);
    if (r == TTT_DATA_OK) {
        r = ttt_images_from_idx(pixels_path, &pixels, labels_path, &labels, classes, out, err);
    }
    ttt_idx_free(&pixels);
    ttt_idx_free(&labels);
    return r;
}

TTT_API ttt_data_result ttt_images_find_idx(const char *dir, ttt_data_error *err) {
    static const char *const splits[2] = { "train", "t10k" };
    static const char *const rests[2] = { TTT__PIXELS_NAME, TTT__LABELS_NAME };
    char path[TTT__DATA_PATH];
    if (!dir) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT, "ttt_images_find_idx: a pointer is NULL");
    }
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 2; k++) {
            ttt_data_result r = ttt__images_find_file(path, dir, splits[i], rests[k], err);
            if (r != TTT_DATA_OK) return r;
        }
    }
    return TTT_DATA_OK;
}
#endif

TTT_API void ttt_images_free(ttt_images *images) {
    if (!images) return;
    TTT_FREE(NULL, images->pixels);
    TTT_FREE(NULL, images->labels);
    memset(images, 0, sizeof *images);
}

// =================================================================================================
// [6] DRAWN DIGITS, implementation
// =================================================================================================

#define TTT__DRAW_SIDE 28
#define TTT__DRAW_PIXELS (TTT__DRAW_SIDE * TTT__DRAW_SIDE)
#define TTT__DRAW_JITTER 0.4 // grid units, each way

// The digits as a pen writes them: two figures are a corner, x (0..6) then y (0..9, downwards);
// '-' draws a straight stroke to the next corner, ' ' lifts the pen.
static const char *const ttt__draw_digits[10] = {
    "20-40-62-67-49-29-07-02-20",
    "12-30-39 19-59",
    "02-20-40-62-63-09-69",
    "01-20-40-62-44-67-49-29-08 24-44",
    "49-40-06-66",
    "60-10-04-34-65-67-49-19-08",
    "50-20-03-07-29-49-67-65-44-05",
    "00-60-29",
    "44-62-40-20-02-24-44-66-67-49-29-07-06-24",
    "63-45-25-03-02-20-40-62-63-59-19",
};

typedef struct {
    double x, y;
} ttt__draw_point;

// How the digit lies on the image: point = center + (xx x + xy y, yx x + yy y).
typedef struct {
    double xx, xy, yx, yy;
    ttt__draw_point center;
} ttt__draw_pose;

// Uniform in [-most, most).
static double ttt__draw_offset(ttt_data_rng *rng, double most) {
    return most * (2.0 * ttt_data_rng_uniform(rng) - 1.0);
}

static ttt__draw_pose ttt__draw_random_pose(ttt_data_rng *rng) {
    ttt__draw_pose pose;
    double scale = (12.0 + 7.0 * ttt_data_rng_uniform(rng)) / 9.0; // 9 grid units are 12-19 px
    double angle = ttt__draw_offset(rng, 0.25), shear = ttt__draw_offset(rng, 0.2);
    double c = scale * cos(angle), s = scale * sin(angle);
    pose.xx = c; // rotation times shear times scale
    pose.xy = c * shear - s;
    pose.yx = s;
    pose.yy = s * shear + c;
    pose.center.x = (TTT__DRAW_SIDE - 1) / 2.0 + ttt__draw_offset(rng, 3.5);
    pose.center.y = (TTT__DRAW_SIDE - 1) / 2.0 + ttt__draw_offset(rng, 3.5);
    return pose;
}

// A jittered corner of a digit, in pixels.
static ttt__draw_point ttt__draw_corner(const char *figures, const ttt__draw_pose *pose,
                                        ttt_data_rng *rng) {
    ttt__draw_point p;
    double x = figures[0] - '0' - 3.0 + ttt__draw_offset(rng, TTT__DRAW_JITTER);
    double y = figures[1] - '0' - 4.5 + ttt__draw_offset(rng, TTT__DRAW_JITTER);
    p.x = pose->center.x + pose->xx * x + pose->xy * y;
    p.y = pose->center.y + pose->yx * x + pose->yy * y;
    return p;
}

static double ttt__draw_clamp(double v, double low, double high) {
    return v < low ? low : v > high ? high : v;
}

// Distance of (x,y) to the straight stroke from a to b.
static double ttt__draw_distance(double x, double y, ttt__draw_point a, ttt__draw_point b) {
    double dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy;
    double t = length2 > 0 ? ((x - a.x) * dx + (y - a.y) * dy) / length2 : 0;
    t = ttt__draw_clamp(t, 0, 1);
    dx = x - (a.x + t * dx);
    dy = y - (a.y + t * dy);
    return sqrt(dx * dx + dy * dy);
}

// Adds a stroke to ink (28,28). About 2 px wide: full ink in its middle, none beyond 1.1 px,
// a smooth edge between. Ink does not add up where strokes cross.
static void ttt__draw_stroke(double *ink, ttt__draw_point a, ttt__draw_point b) {
    const double reach = 1.1, last = TTT__DRAW_SIDE - 1; // beyond the image: no rows or columns
    int x0 = (int)ceil(ttt__draw_clamp((a.x < b.x ? a.x : b.x) - reach, 0, last + 1));
    int y0 = (int)ceil(ttt__draw_clamp((a.y < b.y ? a.y : b.y) - reach, 0, last + 1));
    int x1 = (int)floor(ttt__draw_clamp((a.x > b.x ? a.x : b.x) + reach, -1, last));
    int y1 = (int)floor(ttt__draw_clamp((a.y > b.y ? a.y : b.y) + reach, -1, last));
    for (int y = y0; y <= y1; y++) {
        for (int x = x0; x <= x1; x++) {
            double v = ttt__draw_clamp(reach - ttt__draw_distance(x, y, a, b), 0, 1);
            double *pixel = ink + y * TTT__DRAW_SIDE + x;
            if (v > *pixel) *pixel = v;
        }
    }
}

static void ttt__draw_digit(double *ink, int digit, ttt_data_rng *rng) {
    ttt__draw_pose pose = ttt__draw_random_pose(rng);
    const char *p = ttt__draw_digits[digit];
    ttt__draw_point from = ttt__draw_corner(p, &pose, rng);
    for (; p[2]; p += 3) {
        ttt__draw_point to = ttt__draw_corner(p + 3, &pose, rng);
        if (p[2] == '-') ttt__draw_stroke(ink, from, to);
        from = to;
    }
}

static void ttt__draw_stray(double *ink, ttt_data_rng *rng) {
    ttt__draw_point a, b;
    double angle = ttt__draw_offset(rng, 3.14159265358979323846);
    double length = 4.0 + 5.0 * ttt_data_rng_uniform(rng);
    a.x = TTT__DRAW_SIDE * (double)ttt_data_rng_uniform(rng);
    a.y = TTT__DRAW_SIDE * (double)ttt_data_rng_uniform(rng);
    b.x = a.x + length * cos(angle);
    b.y = a.y + length * sin(angle);
    ttt__draw_stroke(ink, a, b);
}

// The label of image i: its place in a random order of the ten digits, drawn anew for every ten.
static int32_t ttt__draw_label(uint64_t seed, uint32_t i) {
    int32_t order[10];
    ttt_data_rng rng = ttt_data_rng_at(seed, TTT__DATA_STREAM_LABEL, 0, i / 10);
    ttt_data_rng_permute(&rng, order, 10);
    return order[i % 10];
}

static void ttt__draw_image(uint64_t seed, uint32_t i, int32_t label, uint8_t *pixels) {
    double ink[TTT__DRAW_PIXELS] = { 0 };
    ttt_data_rng rng = ttt_data_rng_at(seed, TTT__DATA_STREAM_IMAGE, 0, i);
    ttt__draw_digit(ink, label, &rng);
    ttt__draw_stray(ink, &rng);
    for (int k = 0; k < TTT__DRAW_PIXELS; k++) {
        double v = ttt__draw_clamp(ink[k] + 0.15 * ttt_data_rng_normal(&rng), 0, 1);
        pixels[k] = (uint8_t)(v * 255 + 0.5);
    }
}

TTT_API ttt_data_result ttt_images_draw(uint64_t seed, int64_t first, int64_t count,
                                        ttt_images *out, ttt_data_error *err) {
    const int64_t numbers = (int64_t)1 << 32;
    if (out) memset(out, 0, sizeof *out);
    if (!out) return ttt__data_fail(err, TTT_DATA_ARGUMENT, "ttt_images_draw: a pointer is NULL");
    if (first < 0 || first >= numbers || count < 1 || count > numbers - first) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT,
                              "ttt_images_draw: first %lld, count %lld; expected first >= 0, "
                              "count >= 1, first + count <= 2^32",
                              (long long)first, (long long)count);
    }
    ttt_data_result r = ttt__images_alloc(out, count, TTT__DRAW_SIDE, TTT__DRAW_SIDE, 1, 10, err);
    if (r != TTT_DATA_OK) return r;
    for (int64_t i = 0; i < count; i++) {
        uint32_t number = (uint32_t)(first + i);
        out->labels[i] = ttt__draw_label(seed, number);
        ttt__draw_image(seed, number, out->labels[i], out->pixels + i * TTT__DRAW_PIXELS);
    }
    return TTT_DATA_OK;
}

// =================================================================================================
// [7] BATCHES, implementation
// =================================================================================================

#define TTT__CROP_MAX 32767 // keeps 2p+1 and the moved rows and columns well inside int

// `who` is the function that was given the images.
static ttt_data_result ttt__images_check(const char *who, const ttt_images *m,
                                         ttt_data_error *err) {
    if (!m || !m->pixels || !m->labels) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT, "%s: images, pixels or labels are NULL", who);
    }
    if (m->count < 1 || m->count > INT32_MAX || m->height < 1 || m->width < 1 ||
        m->channels < 1 || m->channels > TTT_IMAGES_MAX_CHANNELS) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT,
                              "%s: images of shape (%lld,%d,%d,%d), expected 1..2^31-1 of at least "
                              "1 x 1 with 1..%d channels",
                              who, (long long)m->count, m->height, m->width, m->channels,
                              TTT_IMAGES_MAX_CHANNELS);
    }
    return TTT_DATA_OK;
}

TTT_API ttt_data_result ttt_images_measure(const ttt_images *images, ttt_pixel_norm *out,
                                           ttt_data_error *err) {
    if (out) memset(out, 0, sizeof *out);
    ttt_data_result r = ttt__images_check("ttt_images_measure", images, err);
    if (r != TTT_DATA_OK) return r;
    if (!out) return ttt__data_fail(err, TTT_DATA_ARGUMENT, "ttt_images_measure: out is NULL");
    int64_t n = images->count * images->height * images->width;
    for (int c = 0; c < images->channels; c++) {
        uint64_t sum = 0, squares = 0; // exact
        for (int64_t i = 0; i < n; i++) {
            uint64_t v = images->pixels[i * images->channels + c];
            sum += v;
            squares += v * v;
        }
        double mean = (double)sum / (double)n;
        double variance = (double)squares / (double)n - mean * mean;
        out->mean[c] = (float)(mean / 255);
        out->std[c] = (float)(sqrt(variance > 0 ? variance : 0) / 255);
    }
    return TTT_DATA_OK;
}

static ttt_data_result ttt__batches_check(const ttt_batches_desc *d, ttt_data_error *err) {
    ttt_data_result r = ttt__images_check("ttt_batches_open", d->images, err);
    if (r != TTT_DATA_OK) return r;
    if (d->batch < 1 || (d->drop_last && d->batch > d->images->count)) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT,
                              "ttt_batches_open: batch %d, expected 1 or more, and with drop_last "
                              "at most the %lld images",
                              d->batch, (long long)d->images->count);
    }
    if (d->augment.crop < 0 || d->augment.crop > TTT__CROP_MAX) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT, "ttt_batches_open: crop %d, expected 0..%d",
                              d->augment.crop, TTT__CROP_MAX);
    }
    for (int c = 0; c < d->images->channels; c++) {
        double mean = (double)d->norm.mean[c], std = (double)d->norm.std[c];
        if (!(fabs(mean) < HUGE_VAL) || !(std >= 0 && std < HUGE_VAL)) { // also true for NaN
            return ttt__data_fail(err, TTT_DATA_ARGUMENT,
                                  "ttt_batches_open: mean %g and std %g of channel %d, expected "
                                  "finite and std >= 0",
                                  mean, std, c);
        }
    }
    return TTT_DATA_OK;
}

static void ttt__batches_set_values(ttt_batches *it) {
    const ttt_pixel_norm *norm = &it->desc.norm;
    for (int c = 0; c < it->desc.images->channels; c++) {
        double std = norm->std[c] > 0 ? (double)norm->std[c] : 1.0;
        for (int v = 0; v < 256; v++) {
            it->value[c][v] = (float)((v / 255.0 - (double)norm->mean[c]) / std);
        }
    }
}

static void ttt__batches_begin(ttt_batches *it, int64_t epoch) {
    int32_t n = (int32_t)it->desc.images->count;
    it->epoch = epoch;
    it->position = 0;
    if (it->desc.shuffle) {
        ttt_data_rng rng =
            ttt_data_rng_at(it->desc.seed, TTT__DATA_STREAM_ORDER, (uint32_t)epoch, 0);
        ttt_data_rng_permute(&rng, it->order, n);
    } else {
        for (int32_t i = 0; i < n; i++) it->order[i] = i;
    }
}

TTT_API ttt_data_result ttt_batches_open(const ttt_batches_desc *desc, ttt_batches *out,
                                         ttt_data_error *err) {
    if (out) memset(out, 0, sizeof *out);
    if (!desc || !out) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT, "ttt_batches_open: a pointer is NULL");
    }
    ttt_data_result r = ttt__batches_check(desc, err);
    if (r != TTT_DATA_OK) return r;
    size_t bytes = (size_t)desc->images->count * sizeof(int32_t);
    out->order = (int32_t *)TTT_MALLOC(NULL, bytes);
    if (!out->order) return ttt__data_no_memory("ttt_batches_open", bytes, err);
    out->desc = *desc;
    ttt__batches_set_values(out);
    ttt__batches_begin(out, 0);
    return TTT_DATA_OK;
}

// x (H,W,C) = image `index`, moved, mirrored and normalized. All three numbers are drawn whatever
// is switched on, so the flips do not change when the crop does.
static void ttt__batches_write(const ttt_batches *it, int32_t index, float *x) {
    const ttt_images *m = it->desc.images;
    int p = it->desc.augment.crop, h = m->height, w = m->width, channels = m->channels;
    const uint8_t *image = m->pixels + (size_t)index * (size_t)h * (size_t)w * (size_t)channels;
    ttt_data_rng rng = ttt_data_rng_at(it->desc.seed, TTT__DATA_STREAM_AUGMENT, (uint32_t)it->epoch,
                                       (uint32_t)index);
    int down = (int)ttt_data_rng_below(&rng, (uint32_t)(2 * p + 1)) - p;
    int right = (int)ttt_data_rng_below(&rng, (uint32_t)(2 * p + 1)) - p;
    int flip = ttt_data_rng_below(&rng, 2) == 1 && it->desc.augment.flip;
    for (int i = 0; i < h; i++) {
        for (int j = 0; j < w; j++) {
            int row = i + down, column = (flip ? w - 1 - j : j) + right;
            int inside = row >= 0 && row < h && column >= 0 && column < w;
            int64_t at = ((int64_t)row * w + column) * channels;
            for (int c = 0; c < channels; c++) *x++ = it->value[c][inside ? image[at + c] : 0];
        }
    }
}

TTT_API int ttt_batches_next(ttt_batches *it, float *x, int32_t *y) {
    if (!it || !it->order) return 0;
    const ttt_images *m = it->desc.images;
    int64_t left = m->count - it->position;
    int n = left < it->desc.batch ? (int)left : it->desc.batch;
    if (n == 0 || (n < it->desc.batch && it->desc.drop_last)) {
        ttt__batches_begin(it, it->epoch + 1);
        return 0;
    }
    size_t image_size = (size_t)m->height * (size_t)m->width * (size_t)m->channels;
    for (int i = 0; i < n; i++) {
        int32_t index = it->order[it->position + i];
        if (x) ttt__batches_write(it, index, x + (size_t)i * image_size);
        if (y) y[i] = m->labels[index];
    }
    it->position += n;
    return n;
}

TTT_API ttt_data_result ttt_batches_seek(ttt_batches *it, int64_t epoch, int64_t position,
                                         ttt_data_error *err) {
    if (!it || !it->order) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT, "ttt_batches_seek: the iterator is not open");
    }
    if (epoch < 0 || epoch > (int64_t)UINT32_MAX || position < 0 ||
        position > it->desc.images->count) {
        return ttt__data_fail(err, TTT_DATA_ARGUMENT,
                              "ttt_batches_seek: epoch %lld, position %lld; expected 0..2^32-1 and "
                              "0..%lld",
                              (long long)epoch, (long long)position,
                              (long long)it->desc.images->count);
    }
    ttt__batches_begin(it, epoch);
    it->position = position;
    return TTT_DATA_OK;
}

TTT_API void ttt_batches_free(ttt_batches *it) {
    if (!it) return;
    TTT_FREE(NULL, it->order);
    memset(it, 0, sizeof *it);
}

#endif // TTT__DATA_IMPLEMENTED
#endif // TTT_IMPLEMENTATION or TTT_DATA_IMPLEMENTATION

// =================================================================================================
// [8] REFERENCES
// =================================================================================================
//
//     Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011.
//     Box, Muller: A note on the generation of random normal deviates. Ann. Math. Stat. 29, 1958.
//     Deutsch: DEFLATE compressed data format specification version 1.3. RFC 1951, 1996.
//     Deutsch: GZIP file format specification version 4.3. RFC 1952, 1996.
//     LeCun, Cortes, Burges: The MNIST database of handwritten digits, "file formats".
//
// =================================================================================================
// [9] LICENSE: MIT No Attribution (MIT-0)
// =================================================================================================
//
// Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
// associated documentation files (the "Software"), to deal in the Software without restriction,
// including without limitation the rights to use, copy, modify, merge, publish, distribute,
// sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
// furnished to do so.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
// NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
// NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
// DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
