/*  ttt_data.h - v0.6.0 - what comes from files and goes to them: tensors, images, text.

    DO THIS
        #define TTT_IMPLEMENTATION      // in exactly one C or C++ file, before the include
        #include "ttt_data.h"           // includes ttt_tensor.h, which must lie beside it
    and compile with  cc -O2 file.c -lm .  Everywhere else just include it.

    AN EXAMPLE: one epoch over Fashion-MNIST if it is there, otherwise over digits drawn on the spot
        ttt_ctx *c = ttt_open(NULL);
        ttt_images set;
        if (ttt_images_missing_idx(c, "data")) ttt_images_draw(c, 1, 0, 20000, &set);
        else ttt_images_load_idx(c, "data", "train", 10, &set);
        ttt_batches_desc d = { 0 };
        d.images = &set;
        d.batch = 128;
        d.shuffle = true;
        ttt_batches *batches = ttt_batches_new(c, &d);
        ttt_mark m = ttt_mark_get(c);
        for (ttt_tensor *x, *y; ttt_batches_next(c, batches, &x, &y) > 0; ttt_mark_release(c, m))
            train(x, y);                                       // x (128,28,28,1), y (128) integers
        if (!ttt_ok(c)) puts(ttt_error(c));
        ttt_close(c);

    INDEX
        [1] OPTIONS       macros to define before the include
        [2] WHOLE FILES   read at once; written so that they appear whole or not at all
        [3] SAFETENSORS   named tensors and notes in a file
        [4] NPY           NumPy's file of one array
        [5] GZIP          inflate, bounded
        [6] IDX           the arrays of the MNIST family, plain or gzipped
        [7] IMAGE SETS    pixels and labels, from IDX files or from you
        [8] DRAWN DIGITS  an image set that needs no files
        [9] BATCHES       order, augmentation, normalization; resuming anywhere
        [10] TOKENIZERS   text to ids and back: bytes, and tokenizer.json
        and below TTT_DATA_IMPLEMENTATION
        [11] JSON         strict, for the library's own files
        and the same again, where [3] begins with what safetensors need: elements as bytes, names.

    CONCEPTS
        Shapes: images are (N,height,width,channels), a batch is (B,height,width,channels).
        Row-major, channels last, the first row is the top one.
        Nothing in a file is believed. A length is compared with the bytes that are there before
        anything is made of that size; every product and sum is checked. What is not understood is
        refused, and the error names the file, what was found and what was expected.
        Errors are recorded in the context, as everywhere in ttt. Functions return what ttt_status
        says; after an error they have zeroed what they should have filled. The comments name the
        possible errors other than TTT_ERR_NO_MEMORY.
        Memory: tensors, names and file texts live in the step arena. An image set and the order of
        its batches live in the keep arena; or fill a ttt_images with memory of your own.
*/
#if !defined(TTT_DATA_H) && !defined(TTT__PART)
#define TTT_DATA_H

#ifndef TTT_TENSOR_H
#include "ttt_tensor.h"
#endif

#define TTT__PART TTT__OPEN
#include TTT__TENSOR_FILE
#undef TTT__PART

// ---- [1] OPTIONS --------------------------------------------------------------------------------
// Those of ttt_tensor.h hold here, too. Define before the include, the same in every file of a
// program:
//   TTT_DATA_IMPLEMENTATION    in place of TTT_IMPLEMENTATION: only this header and ttt_tensor.h
//   TTT_NO_STDIO            leave out what opens files: [2], [3], [4], and parts of [6] and [7]
//   TTT_NO_IMAGES           leave out [5] to [9]
//   TTT_NO_TOKENIZERS       leave out [10]
//   TTT_IMAGES_MAX_BYTES    larger IDX files and image sets are refused; default 2^31 - 1
#ifndef TTT_IMAGES_MAX_BYTES
#define TTT_IMAGES_MAX_BYTES 2147483647
#endif

#ifndef TTT_NO_STDIO
// ---- [2] WHOLE FILES ----------------------------------------------------------------------------
// A whole file in the step arena, and a 0 after it. NULL and TTT_ERR_FILE if it cannot be read, or
// is not a regular file: a pipe would wait for its writer, a device may have no end.
// TTT_ERR_TOO_BIG beyond 2 GiB where positions have 32 bits. This holds for every file that this
// header reads.
TTT_API char *ttt_file_read(ttt_ctx *ctx, const char *path, size_t *size /* may be NULL */);

// A file that appears whole or not at all: it is written beside `path` under the name path.tmp-*,
// flushed to the disk, then renamed. begin refuses a path that holds anything but a regular file.
// Write with put (or to `stream`), then finish. If `good` is false, a put has failed or the context
// has an error, finish removes the temporary file, leaves the old one as it was, and records
// TTT_ERR_FILE. A process that is killed leaves its temporary file behind; the next begin for the
// same path on the same machine removes it.
typedef struct ttt_file_writer {
    void *stream;  // FILE *
    int error;     // errno of the first write that failed
    char path[1024], temporary[1064];
} ttt_file_writer;
TTT_API bool ttt_file_begin(ttt_ctx *ctx, ttt_file_writer *w, const char *path);
TTT_API bool ttt_file_put(ttt_file_writer *w, const void *bytes, size_t n);
TTT_API ttt_result ttt_file_finish(ttt_ctx *ctx, ttt_file_writer *w, bool good);

// Takes a lock, so that of several processes only one works on something: makes the file `path`,
// which must be new, and writes into it which process of which machine holds the lock. Remove the
// file to give the lock back. A lock whose process has ended is taken over if it was a process of
// this machine (or has this process's own number; a process takes a lock once). Otherwise
// TTT_ERR_FILE says who holds it, and which file to delete if nobody does.
TTT_API ttt_result ttt_file_lock(ttt_ctx *ctx, const char *path);

// ---- [3] SAFETENSORS ----------------------------------------------------------------------------
// A list of named tensors with text notes, as a safetensors file holds it. What a file gave lives
// in the step arena: its header, its elements, and a few words for each name. A tensor is made of
// them when it is asked for, by ttt_bundle_at or ttt_bundle_find, so that a file with many names
// costs little more memory than it has bytes.
typedef struct ttt_named {
    const char *name;
    ttt_tensor *tensor;  // in a bundle that was read: NULL, see ttt_bundle_at
} ttt_named;
typedef struct ttt_note {
    const char *key, *text;
} ttt_note;
typedef struct ttt_bundle {
    ttt_named *tensors;
    int64_t n_tensors;
    ttt_note *notes;  // the file's __metadata__
    int64_t n_notes;
    const struct ttt__stored *stored;  // what is behind the names; NULL in a bundle of your own
} ttt_bundle;

// Reads a safetensors file (https://github.com/huggingface/safetensors). Real numbers become the
// build's; everything else keeps its bits, until ttt_cast makes real numbers or INT of it:
//   F64, F32               REAL
//   BF16, F16              of that type
//   I64, U64               INT; a U64 tensor with a value above 2^63 - 1 becomes REAL
//   I8..I32, U8..U32       of that type
//   BOOL                   U8; a byte that is not 0 becomes 1
// Every length, offset and product is checked before memory is taken, which is never more than the
// file has bytes and 64 MB (in the double build twice the bytes). Errors: TTT_ERR_FILE,
// TTT_ERR_FORMAT (says what was wrong and where), TTT_ERR_TOO_BIG for more than 2^19 tensors or
// notes. *out then has no tensors and no notes.
TTT_API ttt_result ttt_safetensors_read(ttt_ctx *ctx, const char *path, ttt_bundle *out);
// The same, but only the header is read. The elements of a tensor are read each time it is asked
// for, so that a large file takes little memory. The file must stay as it is meanwhile.
TTT_API ttt_result ttt_safetensors_open(ttt_ctx *ctx, const char *path, ttt_bundle *out);
// Writes one: REAL tensors as F32 (F64 in the double build) or, if bf16, as BF16 rounded to nearest
// even; INT as I64, the others by their own names: a tensor that is read again has its type and its
// bits. The header lists tensors in the given order. In the data wide elements come first, so every
// element lies at a multiple of its size. Errors, before a file is touched:
// TTT_ERR_ARGUMENT (names and notes that are not UTF-8 or occur twice, the name __metadata__, a
// header above 100 MB), TTT_ERR_RELEASED; then those of ttt_file_begin and ttt_file_finish.
TTT_API ttt_result ttt_safetensors_write(ttt_ctx *ctx, const char *path, const ttt_bundle *bundle,
                                         bool bf16);
// Tensor i, 0..n_tensors-1, and the tensor of that name. One of a file is new each time, in the
// step arena, but its elements are those that were read. NULL if it is not there, or after an
// error.
TTT_API ttt_tensor *ttt_bundle_at(const ttt_bundle *bundle, int64_t i);
TTT_API ttt_tensor *ttt_bundle_find(const ttt_bundle *bundle, const char *name);
// Of a bundle that was read or opened: the place of the tensor of that name, -1 if it is not there;
// and as a tensor, n rows of tensor i along its first axis, from row `begin` on. NULL if they are
// not there, or after an error.
TTT_API int64_t ttt_bundle_place(const ttt_bundle *bundle, const char *name);
TTT_API ttt_tensor *ttt_bundle_rows(const ttt_bundle *bundle, int64_t i, int64_t begin, int64_t n);
// The shape of tensor i, without its elements; () if it is not there.
TTT_API ttt_shape ttt_bundle_shape(const ttt_bundle *bundle, int64_t i);
// The text of a note; NULL if it is not there.
TTT_API const char *ttt_bundle_note(const ttt_bundle *bundle, const char *key);

// ---- [4] NPY ------------------------------------------------------------------------------------
// NumPy's .npy, versions 1 to 3, C and Fortran order, both byte orders, bool, integers, f2, f4, f8.
// They become the types that ttt_safetensors_read gives them. Errors: TTT_ERR_FILE, TTT_ERR_FORMAT
// (for bytes after the data too); *out is then the empty tensor.
TTT_API ttt_result ttt_npy_read(ttt_ctx *ctx, const char *path, ttt_tensor **out);
// Writes REAL as <f4 (<f8 in the double build), INT as <i8, U8 as |u1, and so on. Errors:
// TTT_ERR_ARGUMENT for BF16, which .npy lacks; TTT_ERR_RELEASED; then those of ttt_file_begin and
// ttt_file_finish.
TTT_API ttt_result ttt_npy_write(ttt_ctx *ctx, const char *path, const ttt_tensor *tensor);
#endif  // TTT_NO_STDIO

#ifndef TTT_NO_IMAGES
// ---- [5] GZIP -----------------------------------------------------------------------------------
// Inflates a whole gzip file (RFC 1952) of n bytes into out (capacity); *size = bytes written.
// Several members in a row are joined, as gzip does. Checksums and lengths are verified, bytes
// after the last member are refused. After an error *size is 0 and the bytes in `out` are of no
// use. `name` is what errors call the file (NULL: "gzip in memory"). Errors: TTT_ERR_FORMAT with
// the byte where it went wrong, TTT_ERR_TOO_BIG if more than `capacity` comes out,
// TTT_ERR_ARGUMENT.
TTT_API ttt_result ttt_gzip_inflate(ttt_ctx *ctx, const char *name, const void *bytes, size_t n,
                                    uint8_t *out, size_t capacity, size_t *size);

// ---- [6] IDX ------------------------------------------------------------------------------------
// An IDX file is: two zero bytes, a type, a rank, that many 32-bit sizes, the elements; all
// big-endian. Here the elements are in the byte order of the machine.            [LeCun, MNIST]
enum {
    TTT_IDX_U8 = 0x08,
    TTT_IDX_I8 = 0x09,
    TTT_IDX_I16 = 0x0B,
    TTT_IDX_I32 = 0x0C,
    TTT_IDX_F32 = 0x0D,
    TTT_IDX_F64 = 0x0E
};

typedef struct ttt_idx {
    int type;  // TTT_IDX_U8 ... TTT_IDX_F64
    ttt_shape shape;
    int64_t count;  // product of the shape; may be 0
    void *data;     // `count` elements of `type`, in the step arena
} ttt_idx;

// The n bytes of an IDX file, plain or gzipped (told by the first two bytes). The size must be
// exactly the one that the header declares, and nothing larger is ever inflated or allocated.
// `name` is what errors call the file (NULL: "IDX in memory"). Errors: TTT_ERR_FORMAT,
// TTT_ERR_TOO_BIG (declares more than TTT_IMAGES_MAX_BYTES), TTT_ERR_ARGUMENT.
TTT_API ttt_result ttt_idx_parse(ttt_ctx *ctx, const char *name, const void *bytes, size_t n,
                                 ttt_idx *out);
#ifndef TTT_NO_STDIO
// Reads a file and parses it. Errors: TTT_ERR_FILE, and those of ttt_idx_parse.
TTT_API ttt_result ttt_idx_read(ttt_ctx *ctx, const char *path, ttt_idx *out);
#endif

// ---- [7] IMAGE SETS -----------------------------------------------------------------------------
#define TTT_IMAGES_MAX_CHANNELS 4

// The functions below fill one with memory of the keep arena. You may fill one with memory of your
// own.
typedef struct ttt_images {
    int64_t count;                // N, 1..2^31-1
    int height, width, channels;  // channels 1..TTT_IMAGES_MAX_CHANNELS
    int classes;
    uint8_t *pixels;  // (N,height,width,channels)
    int32_t *labels;  // (N), 0..classes-1
} ttt_images;

// An image set from two IDX arrays of unsigned bytes: pixels (N,height,width) and labels (N), both
// copied. The names are what errors call the two (NULL: "images", "labels").
// Errors: TTT_ERR_FORMAT (type, rank, no images, counts differ, a label not in 0..classes-1),
// TTT_ERR_TOO_BIG, TTT_ERR_ARGUMENT.
TTT_API ttt_result ttt_images_from_idx(ttt_ctx *ctx, const char *pixels_name, const ttt_idx *pixels,
                                       const char *labels_name, const ttt_idx *labels, int classes,
                                       ttt_images *out);
#ifndef TTT_NO_STDIO
// Reads <dir>/<split>-images-idx3-ubyte and <dir>/<split>-labels-idx1-ubyte, or the same names with
// .gz; split is "train" or "t10k" in the MNIST family (MNIST, Fashion-MNIST, KMNIST: 10 classes).
// What it reads into the step arena on the way is released. Errors: TTT_ERR_FILE, and those of
// ttt_idx_parse and ttt_images_from_idx.
TTT_API ttt_result ttt_images_load_idx(ttt_ctx *ctx, const char *dir, const char *split,
                                       int classes, ttt_images *out);
// Are the four files of the MNIST family in `dir`, plain or with .gz? NULL if so, else the path of
// the first that is missing (step arena). Loads nothing, and a missing file is not an error: for
// programs that look in several places. "" after an error.
TTT_API const char *ttt_images_missing_idx(ttt_ctx *ctx, const char *dir);
#endif

// x = (pixel / 255 - mean) / std, per channel. All zero means x = pixel / 255: a std of 0 counts as
// 1, which is also right for a channel that never varies.
typedef struct ttt_pixel_norm {
    float mean[TTT_IMAGES_MAX_CHANNELS], std[TTT_IMAGES_MAX_CHANNELS];
} ttt_pixel_norm;

// Mean and standard deviation (divisor N height width) of pixel / 255, per channel. Sums are exact.
// Errors: TTT_ERR_ARGUMENT (a field of `images` is out of its range).
TTT_API ttt_result ttt_images_measure(ttt_ctx *ctx, const ttt_images *images, ttt_pixel_norm *out);

// ---- [8] DRAWN DIGITS ---------------------------------------------------------------------------
// `count` images (28,28,1) of 10 classes, numbers first..first+count-1 of the endless set that
// `seed` names, the same bytes on every machine. An image depends on (seed, its number) alone, so
// disjoint ranges make a training and a test set: say 0..19999 and 1000000..1004999.
//
// A digit is a few straight strokes, 2 px wide, on a grid 6 wide and 9 high. Its corners are moved
// by up to 0.4 grid units in x and in y; it is 12-19 px high, sheared by up to 0.2, rotated by up
// to 0.25 rad and shifted by up to 3.5 px in x and in y. One stray stroke, 4-9 px long, lies across
// the image. Where ink is 1 and paper 0, each pixel gets Gaussian noise of standard deviation 0.15,
// is clamped to 0..1 and rounded to 0..255.
//
// Labels: images 10k..10k+9 are the ten digits in random order, so whole tens are balanced.
//
// Made to be hard for a linear classifier: ridge regression on the pixels (lambda 1, pixels/255 and
// a bias, 20,000 images) gets 60 % of 5,000 others right. Errors: TTT_ERR_ARGUMENT (first < 0,
// count < 1, first + count > 2^32), TTT_ERR_TOO_BIG.
TTT_API ttt_result ttt_images_draw(ttt_ctx *ctx, uint64_t seed, int64_t first, int64_t count,
                                   ttt_images *out);

// ---- [9] BATCHES --------------------------------------------------------------------------------
// Random changes to training images, both off when zero. Made on pixels, before normalization.
typedef struct ttt_augment {
    int crop;   // p: surround by p black pixels, then cut (height,width) out at a random place
    bool flip;  // then mirror left-right with probability 1/2
} ttt_augment;

// Zero is the plain evaluation pass, except that `images` and `batch` are required.
typedef struct ttt_batches_desc {
    const ttt_images *images;  // borrowed: must outlive the batches
    uint64_t seed;
    int batch;       // B, 1 or more
    bool shuffle;    // every epoch in an order of its own; otherwise as stored
    bool drop_last;  // leave out a last batch that is smaller than B
    ttt_augment augment;
    ttt_pixel_norm norm;
} ttt_batches_desc;

// Where batches stand is (epoch, position), nothing else: save the two, and ttt_batches_seek goes
// on from there with the same bits. The order of an epoch is drawn from (seed, epoch), the
// augmentation of a sample from (seed, epoch, its index in the set).
typedef struct ttt_batches {
    ttt_batches_desc desc;
    int64_t epoch;     // 0, 1, 2, ...
    int64_t position;  // samples delivered in this epoch
    int32_t *order;    // (N) indices of the samples in the order of this epoch
    float value[TTT_IMAGES_MAX_CHANNELS][256];  // normalized value of each pixel value
} ttt_batches;

// New batches at (0, 0). They and the order, 4 bytes for each image, live in the keep arena.
// NULL after an error: TTT_ERR_ARGUMENT (a field of desc or of its images is out of range).
TTT_API ttt_batches *ttt_batches_new(ttt_ctx *ctx, const ttt_batches_desc *desc);

// The next n <= B samples as tensors of the step arena: *x real (n,height,width,channels), *y
// integers (n); either may be NULL. Returns n. Returns 0, with empty tensors, once at the end of
// each epoch, and then stands at the start of the next; also after an error, without moving.
TTT_API int64_t ttt_batches_next(ttt_ctx *ctx, ttt_batches *batches, ttt_tensor **x,
                                 ttt_tensor **y);

// Goes to `position` of `epoch`. Errors: TTT_ERR_ARGUMENT (position not in 0..N, epoch not in
// 0..2^32-1), and then the batches stay where they were.
TTT_API ttt_result ttt_batches_seek(ttt_ctx *ctx, ttt_batches *batches, int64_t epoch,
                                    int64_t position);
#endif  // TTT_NO_IMAGES

#ifndef TTT_NO_TOKENIZERS
// ---- [10] TOKENIZERS ----------------------------------------------------------------------------
// Text to token ids and back, as the Python package `tokenizers` (Hugging Face) does it: the same
// ids and the same text. A tokenizer is read once, lives in the keep arena, never changes, and
// serves any number of contexts and threads.
//
// Of a tokenizer.json these parts are understood, alone or as a Sequence in this order; anything
// else is refused by its name:
//   model           BPE [Sennrich 2016], of which dropout, continuing_subword_prefix and
//                   end_of_word_suffix are refused; merges as "a b" and as ["a","b"]
//   normalizer      null, Prepend and Replace, both of a space by U+2581
//   pre_tokenizer   null; Split by the regular expressions of GPT-2, cl100k (GPT-4, Llama 3) and
//                   Qwen 2; ByteLevel; Metaspace by U+2581
//   post_processor  null, ByteLevel, TemplateProcessing (of one sequence)
//   decoder         ByteLevel; Metaspace; Replace, ByteFallback, Fuse, Strip
//   added_tokens    with all their flags
//   truncation, padding   null
// Classes of characters are those of Unicode 16.0, as in version 0.23 of that package.
typedef struct ttt_tokenizer ttt_tokenizer;

// The tokenizer whose 256 ids are the values of bytes. It takes any text and gives it back.
TTT_API const ttt_tokenizer *ttt_tokenizer_bytes(ttt_ctx *ctx);
// The tokenizer of a tokenizer.json, n bytes of text. `name` is what errors call it (NULL:
// "tokenizer in memory"). On the way it takes at most 40 times the bytes of the text. NULL after an
// error: TTT_ERR_FORMAT (says what is broken, missing, or not understood), TTT_ERR_TOO_BIG for
// 2 GiB and more, TTT_ERR_ARGUMENT.
TTT_API const ttt_tokenizer *ttt_tokenizer_parse(ttt_ctx *ctx, const char *name, const char *json,
                                                 size_t n);
#ifndef TTT_NO_STDIO
// Reads the file and parses it. Errors: TTT_ERR_FILE, and those of ttt_tokenizer_parse.
TTT_API const ttt_tokenizer *ttt_tokenizer_read(ttt_ctx *ctx, const char *path);
#endif

// Ids are 0 .. ttt_vocab_size-1. A vocabulary may have holes, ids without a token.
TTT_API int64_t ttt_vocab_size(const ttt_tokenizer *tokenizer);
// The id of a token as it stands in tokenizer.json, added tokens among them; -1 if there is none.
TTT_API int64_t ttt_token_id(const ttt_tokenizer *tokenizer, const char *token, size_t n);
// The token of that id, *n (may be NULL) its bytes, and a 0 after them. NULL if there is none.
TTT_API const char *ttt_token_text(const ttt_tokenizer *tokenizer, int64_t id, size_t *n);

// The ids, INT (N), of a text of n bytes. With add_special also those that the post-processor puts
// around it. A character that the vocabulary lacks becomes its bytes (byte_fallback), or else the
// unk_token, or else nothing. Errors: TTT_ERR_ARGUMENT for text that is not UTF-8, with the byte
// where it ceases to be (bytes: never), and for a character that needs an unk_token that is not in
// the vocabulary; TTT_ERR_TOO_BIG for 2^30 bytes and more.
TTT_API ttt_tensor *ttt_encode(ttt_ctx *ctx, const ttt_tokenizer *tokenizer, const char *text,
                               size_t n, bool add_special);
// The text of tokens, INT of any shape, in the step arena; *n (may be NULL) its bytes, and a 0
// after them. Without special tokens if skip_special (version 0.23 of the package forgets those
// that its normalizer changes). It is UTF-8, where U+FFFD stands for bytes that are not: one for
// each broken part (ByteLevel), or for each byte of a run of byte tokens that is not UTF-8 as a
// whole (ByteFallback). (The bytes of ttt_tokenizer_bytes come as they are.) NULL after an error:
// TTT_ERR_ARGUMENT for ids that name no token.
TTT_API char *ttt_decode(ttt_ctx *ctx, const ttt_tokenizer *tokenizer, ttt_tensor *tokens,
                         bool skip_special, size_t *n);

// Decodes one id after another. Set the first two, zero the others.
typedef struct ttt_decoder {
    const ttt_tokenizer *tokenizer;
    bool skip_special;
    bool begun;    // private, like all below: a token was decoded
    int stripped;  // blanks at the start that the decoder has removed
    int n_held;
    char held[4];  // the beginning of a character
} ttt_decoder;
// The bytes that id adds to the text (step arena), *n how many, and a 0 after them: whole
// characters only. What may become one is held back. "" after an error, those of ttt_decode; the
// decoder is then as it was.
TTT_API const char *ttt_decoder_push(ttt_ctx *ctx, ttt_decoder *decoder, int64_t id, size_t *n);
// The end: U+FFFD for what was held back. The decoder can then begin anew. What push and end have
// given is together the text of ttt_decode, but for this: of a run of byte tokens that is not UTF-8
// only the bad bytes become U+FFFD, since the good ones have been given already; and from
// ttt_tokenizer_bytes too comes only UTF-8.
TTT_API const char *ttt_decoder_end(ttt_ctx *ctx, ttt_decoder *decoder, size_t *n);
#endif  // TTT_NO_TOKENIZERS
// Batch number `step` of a seed: B windows of L tokens that begin anywhere in tokens (N), of dtype
// INT -> (B,L), a leaf. Every window has the same chance, at every step, and which they are depends
// on nothing else: to go on, save the step. TTT_ERR_ARGUMENT unless 1 <= L <= N and the step is in
// 0..2^32-1.
TTT_API ttt_tensor *ttt_token_windows(ttt_ctx *ctx, ttt_tensor *tokens, int64_t B, int64_t L,
                                      uint64_t seed, int64_t step);

#define TTT__PART TTT__CLOSE
#include TTT__TENSOR_FILE
#undef TTT__PART
#endif  // TTT_DATA_H

// =================================================================================================
#if !defined(TTT__PART) && (defined(TTT_DATA_IMPLEMENTATION) || defined(TTT_IMPLEMENTATION))
#ifndef TTT_DATA_IMPLEMENTED
#define TTT_DATA_IMPLEMENTED

#ifndef TTT_TENSOR_IMPLEMENTATION
#define TTT_TENSOR_IMPLEMENTATION  // a header's macro implies those of the headers below it
#endif
#ifndef TTT_TENSOR_IMPLEMENTED
#include "ttt_tensor.h"
#endif

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <sys/stat.h>
#elif defined(__unix__) || defined(__APPLE__)
#include <sys/stat.h>
#include <unistd.h>
#endif

#define TTT__PART TTT__OPEN
#include TTT__TENSOR_FILE
#undef TTT__PART
TTT__PRECISE

// Records an error of a file: "file: text", or "file: tensor 'part': text". Long names
// are cut, so that the reason always follows.
TTT__UNUSED static void ttt__refuse_part(ttt_ctx *ctx, ttt_result r, const char *file,
                                         const char *part, const char *format, va_list args) {
    char text[256];
    vsnprintf(text, sizeof text, format, args);
    if (part) ttt_fail(ctx, r, "%.150s: tensor '%.80s': %s", file, part, text);
    else ttt_fail(ctx, r, "%.200s: %s", file, text);
}

TTT__UNUSED static bool ttt__refuse(ttt_ctx *ctx, ttt_result r, const char *file,
                                    const char *format, ...) {
    va_list args;
    va_start(args, format);
    ttt__refuse_part(ctx, r, file, NULL, format, args);
    va_end(args);
    return false;
}

// Turns the bytes of each of n elements around.
TTT__UNUSED static void ttt__reverse_each(unsigned char *p, int64_t n, int bytes) {
    for (int64_t i = 0; i < n; i++, p += bytes)
        for (int a = 0, b = bytes - 1; a < b; a++, b--) {
            unsigned char swap = p[a];
            p[a] = p[b];
            p[b] = swap;
        }
}

// -- heap sort: n log n steps for any input, no memory, no recursion
typedef int ttt__compare_fn(const void *a, const void *b);

static void ttt__sift(void **p, int64_t i, int64_t n, ttt__compare_fn *compare) {
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && compare(p[child], p[child + 1]) < 0) child++;
        if (compare(p[i], p[child]) >= 0) return;
        void *swap = p[i];
        p[i] = p[child];
        p[child] = swap;
    }
}

static void ttt__sort(void **p, int64_t n, ttt__compare_fn *compare) {
    for (int64_t i = n / 2; i-- > 0;) ttt__sift(p, i, n, compare);
    for (int64_t i = n; --i > 0;) {
        void *swap = p[0];
        p[0] = p[i];
        p[i] = swap;
        ttt__sift(p, 0, i, compare);
    }
}

// ---- [11] JSON ----------------------------------------------------------------------------------
// RFC 8259, strict, for this library's own files, in two ways: as a cursor, which takes no memory,
// and as a document, whose values are found by their keys.
//
// -- the cursor. The caller asks for what it expects, in the order of the text:
//     ttt__json j = ttt__json_of(text, size);
//     ttt__json_enter(&j, '{');  while (ttt__json_key(&j, &key)) { ...one value, or json_skip... }
//     ttt__json_enter(&j, '[');  while (ttt__json_item(&j)) { ...one value... }
//     if (!ttt__json_end(&j)) ... j.why, at byte j.at - j.text
// Strings are decoded in place: the text is overwritten, and must outlive them. `why` keeps the
// first thing that is wrong; from then on every function returns false. To look ahead, copy the
// struct. A key that occurs twice is for the caller to notice.
#define TTT__JSON_DEPTH 64
typedef struct ttt__json {
    char *text, *at, *end;
    const char *why;  // NULL: nothing wrong so far
    int depth;
    bool first;      // just after the bracket that opened the innermost object or array
    bool takes_nul;  // \u0000, which a C string cannot hold: `length` tells where strings end
    size_t length;   // of the last string
} ttt__json;

static ttt__json ttt__json_of(char *text, size_t size) {
    ttt__json json = { text, text, text + size, NULL, 0, false, false, 0 };
    return json;
}

static bool ttt__json_fail(ttt__json *json, const char *why) {
    if (!json->why) json->why = why;
    return false;
}

// What comes next: { [ " and the like, t for true or false, n for null, 0 for a number. NUL at the
// end.
static char ttt__json_kind(ttt__json *json) {
    while (json->at < json->end &&
           (*json->at == ' ' || *json->at == '\n' || *json->at == '\r' || *json->at == '\t'))
        json->at++;
    if (json->why || json->at == json->end) return 0;
    if (*json->at == '-' || (*json->at >= '0' && *json->at <= '9')) return '0';
    return (char)(*json->at == 'f' ? 't' : *json->at);
}

static bool ttt__json_enter(ttt__json *json, char bracket) {
    if (ttt__json_kind(json) != bracket)
        return ttt__json_fail(json,
                              bracket == '{' ? "an object was expected" : "a list was expected");
    if (json->depth == TTT__JSON_DEPTH) return ttt__json_fail(json, "nested more than 64 deep");
    json->depth++;
    json->at++;
    return json->first = true;
}

// True before each value; false after the last, when the closing bracket has been read.
static bool ttt__json_more(ttt__json *json, char close) {
    char next = ttt__json_kind(json);
    bool first = json->first;
    json->first = false;
    if (json->why) return false;
    if (next == close) {
        json->at++;
        json->depth--;
        return false;
    }
    if (!first && next != ',')
        return ttt__json_fail(json, "a comma or a closing bracket was expected");
    if (!first) json->at++;
    return true;
}

static bool ttt__json_item(ttt__json *json) { return ttt__json_more(json, ']'); }

// How many of the bytes at p begin a UTF-8 character, or are one, which then has *whole bytes (RFC
// 3629: nothing overlong, no surrogates). A byte that begins none: 1, and *whole is 0.
static int ttt__utf8_part(const char *p, const char *end, int *whole) {
    const unsigned char *s = (const unsigned char *)p;
    *whole = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if ((s[0] >= 0x80 && s[0] < 0xc2) || s[0] > 0xf4) *whole = 0;
    int low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80, n = 1;
    int high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    for (; n < *whole && n < end - p && s[n] >= low && s[n] <= high; n++) {
        low = 0x80;
        high = 0xbf;
    }
    return n;
}

// The length of the character at p, 0 if there is none.
static int ttt__utf8(const char *p, const char *end) {
    int whole, n = ttt__utf8_part(p, end, &whole);
    return n == whole ? n : 0;
}

static int ttt__utf8_put(int32_t code, char *to) {
    static const int lead[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    int n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, code >>= 6) to[i] = (char)(0x80 | (code & 0x3f));
    to[0] = (char)(lead[n] | code);
    return n;
}

// The four digits of \uXXXX; -1 if they are not hexadecimal.
static int32_t ttt__json_hex(ttt__json *json) {
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    int32_t value = 0;
    for (int i = 0; i < 4; i++, json->at++) {
        const char *d = json->at < json->end && *json->at ? strchr(digits, *json->at) : NULL;
        if (!d && json->at < json->end && *json->at) d = strchr(digits + 16, *json->at);
        if (!d) return -1;
        value = value * 16 + (int32_t)((d - digits) % 16);
    }
    return value;
}

// Decodes what follows a backslash into `to`.
static int ttt__json_escape(ttt__json *json, char *to) {
    static const char from[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
    char letter = (char)(++json->at < json->end ? *json->at++ : 0);
    const char *plain = letter ? strchr(from, letter) : NULL;
    if (plain) {
        *to = meaning[plain - from];
        return 1;
    }
    int32_t code = letter == 'u' ? ttt__json_hex(json) : -1;
    if (code >= 0xd800 && code < 0xdc00 && json->end - json->at >= 6 && json->at[0] == '\\' &&
        json->at[1] == 'u') {
        json->at += 2;  // two halves of a character beyond U+FFFF
        int32_t low = ttt__json_hex(json);
        bool pair = low >= 0xdc00 && low < 0xe000;
        code = pair ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : -1;
    }
    bool good = code > 0 || (code == 0 && json->takes_nul);
    return good && (code < 0xd800 || code >= 0xe000) ? ttt__utf8_put(code, to) : 0;
}

// out may be NULL: the string is then checked, and left as it is.
static bool ttt__json_string(ttt__json *json, const char **out) {
    if (ttt__json_kind(json) != '"') return ttt__json_fail(json, "a string was expected");
    char *begin = ++json->at, *to = begin, escaped[4];
    while (json->at < json->end && *json->at != '"') {
        char *from = json->at;
        int n = 0;
        if (*from == '\\') n = ttt__json_escape(json, from = escaped);
        else if ((unsigned char)*from >= 0x20) json->at += n = ttt__utf8(from, json->end);
        if (n == 0)
            return ttt__json_fail(json, "a string has a wrong escape, a control character, or is "
                                  "not UTF-8");
        if (out) memmove(to, from, (size_t)n);
        to += n;
    }
    if (json->at == json->end) return ttt__json_fail(json, "a string has no end");
    json->at++;
    json->length = (size_t)(to - begin);
    if (!out) return true;
    *to = 0;  // on the closing quote or before it
    *out = begin;
    return true;
}

static bool ttt__json_key(ttt__json *json, const char **key) {
    if (!ttt__json_more(json, '}') || !ttt__json_string(json, key)) return false;
    if (ttt__json_kind(json) != ':') return ttt__json_fail(json, "a colon was expected");
    json->at++;
    return true;
}

static const char *ttt__digits(const char *p, const char *end) {
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p;
}

// The end of the number at j->at. JSON takes fewer forms than C: no +, no 01, no .5, no 5., no 0x.
static const char *ttt__json_number(ttt__json *json) {
    bool good = ttt__json_kind(json) == '0';
    const char *p = json->at + (good && *json->at == '-'), *q = ttt__digits(p, json->end);
    good = good && q > p && (*p != '0' || q == p + 1);
    if (q < json->end && *q == '.') {
        q = ttt__digits(p = q + 1, json->end);
        good = good && q > p;
    }
    if (q < json->end && (*q == 'e' || *q == 'E')) {
        p = q + 1;
        if (p < json->end && (*p == '+' || *p == '-')) p++;
        q = ttt__digits(p, json->end);
        good = good && q > p;
    }
    if (good) return q;
    ttt__json_fail(json, "a number was expected");
    return NULL;
}

// Counts below zero, where int64_t has one number more.
static bool ttt__json_int(ttt__json *json, int64_t *out) {
    const char *end = ttt__json_number(json), *p = json->at;
    int64_t value = 0;
    if (!end) return false;
    bool minus = *p == '-';
    for (p += minus; p < end; p++) {
        int digit = *p - '0';
        if (digit < 0 || digit > 9) return ttt__json_fail(json, "a whole number was expected");
        if (value < (INT64_MIN + digit) / 10)
            return ttt__json_fail(json, "a whole number is beyond 64 bits");
        value = value * 10 - digit;
    }
    if (!minus && value == INT64_MIN)
        return ttt__json_fail(json, "a whole number is beyond 64 bits");
    json->at += end - json->at;
    *out = minus ? value : -value;
    return true;
}

static bool ttt__json_word(ttt__json *json, const char *word) {
    size_t n = strlen(word);
    ttt__json_kind(json);
    if (json->why || (size_t)(json->end - json->at) < n || memcmp(json->at, word, n) != 0)
        return false;
    json->at += n;
    return true;
}

static bool ttt__json_bool(ttt__json *json, bool *out) {
    *out = ttt__json_word(json, "true");
    return *out || ttt__json_word(json, "false") ||
           ttt__json_fail(json, "true or false was expected");
}

static bool ttt__json_null(ttt__json *json) {
    return ttt__json_word(json, "null") || ttt__json_fail(json, "a value was expected");
}

// Any value. Calls itself, as deep as ttt__json_enter lets it.
static bool ttt__json_skip(ttt__json *json) {
    bool either;
    switch (ttt__json_kind(json)) {
    case '{':
        for (ttt__json_enter(json, '{'); ttt__json_key(json, NULL);) ttt__json_skip(json);
        return !json->why;
    case '[':
        for (ttt__json_enter(json, '['); ttt__json_item(json);) ttt__json_skip(json);
        return !json->why;
    case '"': return ttt__json_string(json, NULL);
    case 't': return ttt__json_bool(json, &either);
    case '0': {
        const char *end = ttt__json_number(json);
        if (end) json->at += end - json->at;
        return end != NULL;
    }
    default: return ttt__json_null(json);
    }
}

// Nothing but blanks is left, and nothing was wrong.
static bool ttt__json_end(ttt__json *json) {
    ttt__json_kind(json);
    return !json->why &&
           (json->at == json->end || ttt__json_fail(json, "something follows the end"));
}

// How many members the next object has. The reader is a copy: the caller's does not move.
TTT__UNUSED static int64_t ttt__json_count(ttt__json json) {
    int64_t n = 0;
    for (ttt__json_enter(&json, '{'); ttt__json_key(&json, NULL); n++) ttt__json_skip(&json);
    return n;
}

// -- the document: all values of a text in an array of the step arena, each before those inside it.
//     ttt__document d;
//     if (!ttt__document_of(ctx, file, text, size, &d)) return ...;      // the error is recorded
//     if (!ttt__member_int(&d, d.root, "vocab_size", 1, 99999, &vocab)) ...  // wrong: an error;
//     ...                                                        // absent or null: vocab stays
//     const ttt__value *list = ttt__member_needed(&d, d.root, "merges", '[');  // NULL: an error
//     for (const ttt__value *v = ttt__first_value(list); v < list->end; v = v->end) ...
// Strings are decoded in the text, which must outlive them, and have a 0 behind them. No key of an
// object occurs twice. A document takes at most 32 times the bytes of its text, usually 6 times.
typedef struct ttt__string {
    const char *at;
    size_t n;
} ttt__string;
typedef struct ttt__value {
    ttt__string key;   // of a member of an object
    ttt__string text;  // a string, decoded; of anything else the characters that stand there
    const struct ttt__value *end;  // what follows the last value inside it
    char kind;                     // what ttt__json_kind says
} ttt__value;
typedef struct ttt__document {
    ttt_ctx *ctx;
    const char *file;  // what errors call it
    ttt__value *root;
} ttt__document;

static bool ttt__string_is(ttt__string s, const char *text) {
    return s.n == strlen(text) && memcmp(s.at, text, s.n) == 0;
}

TTT__UNUSED static int ttt__string_order(ttt__string a, ttt__string b) {
    int order = memcmp(a.at, b.at, a.n < b.n ? a.n : b.n);
    return order ? order : a.n < b.n ? -1 : a.n > b.n;
}

static const char *ttt__json_kind_text(char kind) {
    switch (kind) {
    case '{': return "an object";
    case '[': return "a list";
    case '"': return "a string";
    case 't': return "true or false";
    case '0': return "a number";
    default: return "null";
    }
}

// How many values the next one is, with those inside it. The reader is a copy.
static int64_t ttt__json_values(ttt__json *json) {
    int64_t n = 1;
    char kind = ttt__json_kind(json);
    if (kind == '{') {
        ttt__json_enter(json, '{');
        while (ttt__json_key(json, NULL)) n += ttt__json_values(json);
    } else if (kind == '[') {
        ttt__json_enter(json, '[');
        while (ttt__json_item(json)) n += ttt__json_values(json);
    } else {
        ttt__json_skip(json);
    }
    return n;
}

// Writes the next value, and then those inside it. Returns what follows them.
static ttt__value *ttt__json_tree(ttt__json *json, ttt__value *v) {
    ttt__value *next = v + 1;
    const char *key;
    v->kind = ttt__json_kind(json);
    v->text.at = json->at;
    if (v->kind == '"') {
        ttt__json_string(json, &v->text.at);
    } else if (v->kind == '{') {
        ttt__json_enter(json, '{');
        while (ttt__json_key(json, &key)) {
            next->key.at = key;
            next->key.n = json->length;
            next = ttt__json_tree(json, next);
        }
    } else if (v->kind == '[') {
        ttt__json_enter(json, '[');
        while (ttt__json_item(json)) next = ttt__json_tree(json, next);
    } else {
        ttt__json_skip(json);
    }
    v->text.n = v->kind == '"' ? json->length : (size_t)(json->at - v->text.at);
    v->end = next;
    return next;
}

static int ttt__by_member_key(const void *a, const void *b) {
    return ttt__string_order(((const ttt__value *)a)->key, ((const ttt__value *)b)->key);
}

// A value's first, where it has any: loops end at its `end`.
static const ttt__value *ttt__first_value(const ttt__value *v) { return v + 1; }

// Refuses a key that occurs twice in an object. `members` has room for all values.
static bool ttt__keys_once(const ttt__document *d, const ttt__value *object, void **members) {
    int64_t n = 0;
    for (const ttt__value *v = ttt__first_value(object); v < object->end; v = v->end)
        members[n++] = (void *)(uintptr_t)v;
    ttt__sort(members, n, ttt__by_member_key);
    for (int64_t i = 1; i < n; i++)
        if (ttt__by_member_key(members[i - 1], members[i]) == 0)
            return ttt__refuse(d->ctx, TTT_ERR_FORMAT, d->file, "the key '%.80s' occurs twice",
                               ((const ttt__value *)members[i])->key.at);
    return true;
}

TTT__UNUSED static bool ttt__document_of(ttt_ctx *ctx, const char *file, char *text, size_t size,
                                         ttt__document *d) {
    ttt__json json = ttt__json_of(text, size), ahead = json;
    ahead.takes_nul = json.takes_nul = true;
    int64_t n = ttt__json_values(&ahead);
    d->ctx = ctx;
    d->file = file;
    d->root = NULL;
    if (!ttt__json_end(&ahead))
        return ttt__refuse(ctx, TTT_ERR_FORMAT, file, "byte %lld: %s",
                           (long long)(ahead.at - ahead.text), ahead.why);
    ttt__value *root = (ttt__value *)ttt_alloc(ctx, (uint64_t)n * sizeof *root, false);
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    void **members = root ? (void **)ttt__arena_alloc(ctx, &ctx->scratch,
                                                      (uint64_t)n * sizeof *members) : NULL;
    if (!members) return false;
    memset(root, 0, (size_t)n * sizeof *root);
    ttt__json_tree(&json, root);
    bool good = true;
    for (ttt__value *v = root; v < root->end && good; v++)
        good = v->kind != '{' || ttt__keys_once(d, v, members);
    ttt__arena_release(&ctx->scratch, scratch);
    if (good) d->root = root;
    return good;
}

// The member with that key; NULL if there is none, or if its value is null.
TTT__UNUSED static const ttt__value *ttt__member(const ttt__value *object, const char *key) {
    if (!object || object->kind != '{') return NULL;
    for (const ttt__value *v = ttt__first_value(object); v < object->end; v = v->end)
        if (ttt__string_is(v->key, key)) return v->kind == 'n' ? NULL : v;
    return NULL;
}

// The same, of that kind. NULL where it is absent or null, and, with an error, where it is not of
// that kind: *good becomes false.
static const ttt__value *ttt__member_kind(const ttt__document *d, const ttt__value *object,
                                          const char *key, char kind, bool *good) {
    const ttt__value *v = ttt__member(object, key);
    *good = !v || v->kind == kind ||
            ttt__refuse(d->ctx, TTT_ERR_FORMAT, d->file, "'%.80s' is %s; %s expected", key,
                        ttt__json_kind_text(v->kind), ttt__json_kind_text(kind));
    return *good ? v : NULL;
}

// The same; NULL and an error where it is absent.
TTT__UNUSED static const ttt__value *ttt__member_needed(const ttt__document *d,
                                                        const ttt__value *object,
                                                        const char *key, char kind) {
    bool good;
    const ttt__value *v = ttt__member_kind(d, object, key, kind, &good);
    if (!v && good)
        ttt__refuse(d->ctx, TTT_ERR_FORMAT, d->file, "'%.80s' is missing; %s expected", key,
                    ttt__json_kind_text(kind));
    return v;
}

// A whole number within bounds; `name` is what errors call it.
static bool ttt__int_of(const ttt__document *d, const ttt__value *v, const char *name, int64_t low,
                        int64_t high, int64_t *to) {
    ttt__json json = ttt__json_of((char *)(uintptr_t)v->text.at, v->text.n);
    int64_t value;
    if (v->kind != '0' || !ttt__json_int(&json, &value) || value < low || value > high)
        return ttt__refuse(d->ctx, TTT_ERR_FORMAT, d->file,
                           "'%.80s' is %.*s; a whole number of %lld..%lld expected", name,
                           (int)TTT__MIN(v->text.n, 40), v->text.at, (long long)low,
                           (long long)high);
    *to = value;
    return true;
}

// These leave *to as it was where the member is absent or null. False and an error if it is of
// another kind, or out of range.
TTT__UNUSED static bool ttt__member_int(const ttt__document *d, const ttt__value *object,
                                        const char *key, int64_t low, int64_t high, int64_t *to) {
    bool good;
    const ttt__value *v = ttt__member_kind(d, object, key, '0', &good);
    return v ? ttt__int_of(d, v, key, low, high, to) : good;
}

TTT__UNUSED static bool ttt__member_bool(const ttt__document *d, const ttt__value *object,
                                         const char *key, bool *to) {
    bool good;
    const ttt__value *v = ttt__member_kind(d, object, key, 't', &good);
    if (v) *to = v->text.at[0] == 't';
    return good;
}

TTT__UNUSED static bool ttt__member_string(const ttt__document *d, const ttt__value *object,
                                           const char *key, ttt__string *to) {
    bool good;
    const ttt__value *v = ttt__member_kind(d, object, key, '"', &good);
    if (v) *to = v->text;
    return good;
}

// The nearest double to a number of a JSON text. What the locale takes for a point, strtod wants.
static double ttt__real_of_text(ttt__string text) {
    char copy[64];
    int64_t n = 0;
    const char *point = localeconv()->decimal_point;
    for (size_t i = 0; i < text.n && n < 62; i++)
        copy[n++] = text.at[i] == '.' ? *point : text.at[i];
    copy[n] = 0;
    return text.n < 62 ? strtod(copy, NULL) : HUGE_VAL;
}

TTT__UNUSED static bool ttt__member_real(const ttt__document *d, const ttt__value *object,
                                         const char *key, double low, double high, double *to) {
    bool good;
    const ttt__value *v = ttt__member_kind(d, object, key, '0', &good);
    if (!v) return good;
    double value = ttt__real_of_text(v->text);
    if (!(value >= low && value <= high))
        return ttt__refuse(d->ctx, TTT_ERR_FORMAT, d->file,
                           "'%.80s' is %.*s; a number of %g..%g expected", key,
                           (int)TTT__MIN(v->text.n, 40), v->text.at, low, high);
    *to = value;
    return true;
}

#ifndef TTT_NO_STDIO
// ---- WHOLE FILES --------------------------------------------------------------------------------

enum { TTT__PATH = 1024, TTT__MACHINE = 256 };  // bytes of a path, of a machine's name

// How much of a path names the folder, with the separator behind it.
static int ttt__folder_length(const char *path) {
    int n = (int)strlen(path);
#ifdef _WIN32
    while (n > 0 && !strchr("/\\:", path[n - 1])) n--;
#else
    while (n > 0 && path[n - 1] != '/') n--;
#endif
    return n;
}

// -- what the C standard lacks: positions beyond 2 GiB (Windows; elsewhere `long` is as wide as a
// pointer, and a file that it cannot count is larger than memory), flushing to the disk, replacing
// a file in one step, what kind of file a path names, the files of a folder, other processes.
#if defined(_WIN32)
#define TTT__SEEK(stream, at, from) _fseeki64(stream, at, from)
#define TTT__TELL _ftelli64

static long ttt__process(void) { return (long)GetCurrentProcessId(); }
static bool ttt__process_ended(long id) {
    HANDLE process = OpenProcess(SYNCHRONIZE, FALSE, (DWORD)id);
    if (!process) return GetLastError() == ERROR_INVALID_PARAMETER;
    bool ended = WaitForSingleObject(process, 0) == WAIT_OBJECT_0;
    CloseHandle(process);
    return ended;
}
static void ttt__machine(char name[TTT__MACHINE]) {
    DWORD room = TTT__MACHINE;
    if (!GetComputerNameA(name, &room)) *name = 0;
}
static void ttt__visit_folder(const char *path, void (*visit)(const char *path, const char *name)) {
    char pattern[TTT__PATH + 1];
    WIN32_FIND_DATAA found;
    snprintf(pattern, sizeof pattern, "%.*s*", ttt__folder_length(path), path);
    HANDLE list = FindFirstFileA(pattern, &found);
    if (list == INVALID_HANDLE_VALUE) return;
    do visit(path, found.cFileName);
    while (FindNextFileA(list, &found));
    FindClose(list);
}
static FILE *ttt__create_new(const char *path) {
    int file = _open(path, _O_CREAT | _O_EXCL | _O_WRONLY | _O_BINARY, _S_IREAD | _S_IWRITE);
    return file < 0 ? NULL : _fdopen(file, "wb");
}
static bool ttt__regular_or_none(const char *path) {
    DWORD is = GetFileAttributesA(path);
    return is == INVALID_FILE_ATTRIBUTES ||
           !(is & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_DEVICE));
}
static bool ttt__to_disk(FILE *f) { return _commit(_fileno(f)) == 0; }
static bool ttt__replace(const char *from, const char *to) {
    if (MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)) return true;
    errno = GetLastError() == ERROR_DISK_FULL ? ENOSPC : EACCES;
    return false;
}
static void ttt__folder_to_disk(const char *path) { (void)path; }  // MOVEFILE_WRITE_THROUGH did it

#else
#define TTT__SEEK(stream, at, from) fseek(stream, (long)(at), from)
#define TTT__TELL ftell
// "x" (the file must be new) is in C11, and was in the libraries long before.
static FILE *ttt__create_new(const char *path) { return fopen(path, "wbx"); }
static bool ttt__replace(const char *from, const char *to) { return rename(from, to) == 0; }

#if defined(__unix__) || defined(__APPLE__)
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/utsname.h>
#include <unistd.h>
#ifndef __cplusplus  // -std=c99 and the like hide these; in brackets, since they may be macros
extern int(fileno)(FILE *);
extern int(fsync)(int);
extern int(kill)(pid_t, int);
#endif

static long ttt__process(void) { return (long)getpid(); }
// Linux: a process that has ended is there, in state Z, until its parent asks how it ended. Not
// every parent does.
static bool ttt__process_ended(long id) {
    char text[512];
    if (kill((pid_t)id, 0) != 0) return errno == ESRCH;
    snprintf(text, sizeof text, "/proc/%ld/stat", id);  // number (name) state ...
    FILE *f = fopen(text, "rb");
    const char *name_end = f && fgets(text, sizeof text, f) ? strrchr(text, ')') : NULL;
    if (f) fclose(f);
    return name_end && strncmp(name_end, ") Z", 3) == 0;
}
static void ttt__machine(char name[TTT__MACHINE]) {
    struct utsname is;
    snprintf(name, TTT__MACHINE, "%s", uname(&is) >= 0 ? is.nodename : "");
}
static void ttt__visit_folder(const char *path, void (*visit)(const char *path, const char *name)) {
    char folder[TTT__PATH];
    int n = ttt__folder_length(path);
    snprintf(folder, sizeof folder, "%.*s", n ? n : 1, n ? path : ".");
    DIR *list = opendir(folder);
    struct dirent *entry;
    if (!list) return;
    while ((entry = readdir(list)) != NULL) visit(path, entry->d_name);
    closedir(list);
}
// Whether a file can be there, or is. (Renaming over /dev/null would replace the device itself.)
static bool ttt__regular_or_none(const char *path) {
    struct stat is;
    return stat(path, &is) != 0 || S_ISREG(is.st_mode);
}
static bool ttt__to_disk(FILE *f) { return fsync(fileno(f)) == 0; }
// A new name is safe once its folder is on the disk. Not every system lets one open a folder, and
// the file is complete under either name: a failure here does not fail the write.
static void ttt__folder_to_disk(const char *path) {
    char folder[TTT__PATH];
    int n = ttt__folder_length(path);
    snprintf(folder, sizeof folder, "%.*s", n ? n : 1, n ? path : ".");
    FILE *f = fopen(folder, "rb");
    if (!f) return;
    ttt__to_disk(f);
    fclose(f);
}
#else
static long ttt__process(void) { return 0; }
static bool ttt__process_ended(long id) { return id < 0; }
static void ttt__machine(char name[TTT__MACHINE]) { *name = 0; }
static void ttt__visit_folder(const char *path, void (*visit)(const char *path, const char *name)) {
    (void)path, (void)visit;
}
static bool ttt__regular_or_none(const char *path) { return path != NULL; }
static bool ttt__to_disk(FILE *f) { return f != NULL; }
static void ttt__folder_to_disk(const char *path) { (void)path; }
#endif
#endif

// -- reading a file
typedef struct ttt__file {
    ttt_ctx *ctx;
    const char *path;
    FILE *stream;
    int64_t size;
} ttt__file;

static bool ttt__file_fail(ttt_ctx *ctx, const char *path, const char *what, int error) {
#ifdef EOVERFLOW  // positions of 32 bits: a file beyond 2 GiB is not opened, or not measured
    if (error == EOVERFLOW)
        return ttt__refuse(ctx, TTT_ERR_TOO_BIG, path, "%s: larger than this system's limit of "
                           "2 GiB", what);
#endif
    return ttt__refuse(ctx, TTT_ERR_FILE, path, "%s: %s", what,
                       error ? strerror(error) : "no reason known");
}

// Records TTT_ERR_FORMAT: "path: tensor 'name': ...", or without a tensor if name is NULL.
static bool ttt__bad(const ttt__file *f, const char *name, const char *format, ...) {
    va_list args;
    va_start(args, format);
    ttt__refuse_part(f->ctx, TTT_ERR_FORMAT, f->path, name, format, args);
    va_end(args);
    return false;
}

static void ttt__file_close(ttt__file *f) {
    fclose(f->stream);
    f->stream = NULL;
    f->ctx->file = NULL;
}

static bool ttt__regular_or_fail(ttt_ctx *ctx, const char *path, const char *what) {
    return ttt__regular_or_none(path) ||
           ttt__refuse(ctx, TTT_ERR_FILE, path, "%s: it is not a regular file", what);
}

// Opens a file to read it, and measures it.
static bool ttt__file_open(ttt_ctx *ctx, const char *path, ttt__file *f) {
    memset(f, 0, sizeof *f);
    f->ctx = ctx;
    f->path = path;
    if (!TTT__GIVEN("file", path)) return false;
    if (!ttt__regular_or_fail(ctx, f->path, "cannot be opened")) return false;
    errno = 0;
    f->stream = fopen(path, "rb");
    if (!f->stream) return ttt__file_fail(ctx, path, "cannot be opened", errno);
    bool good = TTT__SEEK(f->stream, 0, SEEK_END) == 0;
    f->size = good ? (int64_t)TTT__TELL(f->stream) : -1;
    ctx->file = f->path;
    if (f->size >= 0 && TTT__SEEK(f->stream, 0, SEEK_SET) == 0) return true;
    ttt__file_fail(ctx, f->path, "cannot be read", errno);
    ttt__file_close(f);
    return false;
}

static bool ttt__read(ttt__file *f, void *to, size_t n) {
    errno = 0;
    if (fread(to, 1, n, f->stream) == n) return true;
    if (ferror(f->stream)) return ttt__file_fail(f->ctx, f->path, "cannot be read", errno);
    ttt_fail(f->ctx, TTT_ERR_FILE, "%.200s: became shorter while it was read", f->path);
    return false;
}

static bool ttt__file_within(const ttt__file *f, int64_t limit) {
    return f->size <= limit || ttt__refuse(f->ctx, TTT_ERR_TOO_BIG, f->path,
                                           "%lld bytes, larger than the limit of %lld",
                                           (long long)f->size, (long long)limit);
}

// All bytes of a file, and a 0 after them.
static char *ttt__file_bytes(ttt_ctx *ctx, ttt__arena *arena, const char *path, int64_t limit,
                             size_t *size) {
    ttt__file f;
    char *text = NULL;
    *size = 0;
    if (!ttt__file_open(ctx, path, &f)) return NULL;
    if (ttt__file_within(&f, limit))
        text = (char *)ttt__arena_alloc(ctx, arena, (size_t)f.size + 1);
    if (text && !ttt__read(&f, text, (size_t)f.size)) text = NULL;
    ttt__file_close(&f);
    if (!text) return NULL;
    text[f.size] = 0;
    *size = (size_t)f.size;
    return text;
}

char *ttt_file_read(ttt_ctx *ctx, const char *path, size_t *size) {
    ttt_mark mark = ttt_mark_get(ctx);
    size_t n;
    char *text = ttt__file_bytes(ctx, &ctx->step, path, PTRDIFF_MAX / 2, &n);
    if (!text) ttt_mark_release(ctx, mark);
    if (size) *size = n;
    return text;
}

// -- writing a file under a name that nobody else uses, then renaming it over the old one; a crash
// leaves at most the new one behind. The name says whose it is: file.tmp-MACHINE-PROCESS-NUMBER.
static unsigned ttt__machine_number(const char *name) {
    uint32_t hash = 2166136261u;  // FNV-1a
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 16777619u;
    return (unsigned)hash;
}
static unsigned ttt__this_machine(void) {
    char name[TTT__MACHINE];
    ttt__machine(name);
    return ttt__machine_number(name);
}

// Removes `name`, a file in the folder of `path`, if it is a temporary one of `path` that an ended
// process of this machine has left. (Of other machines' processes nothing is known.)
static void ttt__sweep(const char *path, const char *name) {
    char left[TTT__PATH + 64];
    int folder = ttt__folder_length(path), number, end = 0;
    unsigned machine;
    long process;
    size_t n = strlen(path + folder);
    if (strncmp(name, path + folder, n) != 0 ||
        sscanf(name + n, ".tmp-%8x-%9ld-%3d%n", &machine, &process, &number, &end) != 3 ||
        name[n + (size_t)end] || machine != ttt__this_machine() || !ttt__process_ended(process))
        return;
    snprintf(left, sizeof left, "%.*s%s", folder, path, name);
    remove(left);
}

static bool ttt__create_temporary(ttt_file_writer *w) {
    ttt__visit_folder(w->path, ttt__sweep);
    for (int i = 0; i < 1000; i++) {
        snprintf(w->temporary, sizeof w->temporary, "%s.tmp-%08x-%ld-%d", w->path,
                 ttt__this_machine(), ttt__process(), i);
        errno = 0;
        w->stream = ttt__create_new(w->temporary);
        if (w->stream || errno != EEXIST) break;
    }
    return w->stream != NULL;
}

bool ttt_file_begin(ttt_ctx *ctx, ttt_file_writer *w, const char *path) {
    if (w) memset(w, 0, sizeof *w);
    if (!TTT__GIVEN("file_begin", w) || !TTT__GIVEN("file_begin", path)) return false;
    if (strlen(path) >= sizeof w->path) {
        ttt_fail(ctx, TTT_ERR_FILE, "%.200s: a path of at most %d bytes expected", path,
                 (int)sizeof w->path - 1);
        return false;
    }
    snprintf(w->path, sizeof w->path, "%s", path);
    if (!ttt__regular_or_fail(ctx, path, "cannot be written")) return false;
    if (!ttt__create_temporary(w)) return ttt__file_fail(ctx, path, "cannot be written", errno);
    ctx->file = w->path;
    return true;
}

static bool ttt__writer_fail(ttt_file_writer *w) {
    if (!w->error) w->error = errno ? errno : EIO;
    return false;
}

bool ttt_file_put(ttt_file_writer *w, const void *bytes, size_t n) {
    errno = 0;
    if (!w || !w->stream || w->error || (n && !bytes)) return false;
    return n == 0 || fwrite(bytes, 1, n, (FILE *)w->stream) == n || ttt__writer_fail(w);
}

// A full disk may show in fwrite alone, in fflush alone or in fclose alone: all three are checked.
ttt_result ttt_file_finish(ttt_ctx *ctx, ttt_file_writer *w, bool good) {
    if (!w) ttt__given(ctx, "file_finish", "w", false);
    if (!w) return ctx->result;
    FILE *f = (FILE *)w->stream;
    if (!f) ttt_fail(ctx, TTT_ERR_FILE, "file_finish: no file was begun");
    if (!f) return ctx->result;
    good = good && !w->error && !ctx->result;
    errno = 0;
    if (good && (fflush(f) != 0 || ferror(f) || !ttt__to_disk(f))) good = ttt__writer_fail(w);
    if (fclose(f) != 0 && good) good = ttt__writer_fail(w);
    if (good && !ttt__replace(w->temporary, w->path)) good = ttt__writer_fail(w);
    if (good) {
        ttt__folder_to_disk(w->path);
    } else {
        remove(w->temporary);
        ttt__file_fail(ctx, w->path, "was not written", w->error);
    }
    w->stream = NULL;
    ctx->file = NULL;
    return ctx->result;
}

// -- locks
typedef struct ttt__holder {
    long process;  // 0: not known
    char machine[TTT__MACHINE];
} ttt__holder;

static ttt__holder ttt__lock_holder(const char *path) {
    ttt__holder holder;
    memset(&holder, 0, sizeof holder);
    FILE *f = ttt__regular_or_none(path) ? fopen(path, "rb") : NULL;
    if (f && fscanf(f, "process %9ld on %255[^\n]", &holder.process, holder.machine) < 1)
        holder.process = 0;
    if (f) fclose(f);
    return holder;
}

static bool ttt__holder_ended(const ttt__holder *holder) {
    char here[TTT__MACHINE];
    ttt__machine(here);
    return holder->process > 0 && strcmp(holder->machine, here) == 0 &&
           (holder->process == ttt__process() || ttt__process_ended(holder->process));
}

// Makes the lock, which must be new. Returns 0, or the errno that says why it could not.
static int ttt__lock_make(const char *path) {
    char here[TTT__MACHINE];
    ttt__machine(here);
    errno = 0;
    FILE *f = ttt__create_new(path);
    if (!f) return errno ? errno : EIO;
    bool good = fprintf(f, "process %ld on %s\n", ttt__process(), here) > 0;
    good = fclose(f) == 0 && good;
    if (good) return 0;
    int error = errno ? errno : EIO;
    remove(path);
    return error;
}

// Removes a lock whose process has ended. Of several that see it only one may at a time, or the
// second would remove the lock that the first has just taken: so this takes a lock of its own.
static void ttt__lock_break(ttt_ctx *ctx, const char *path) {
    char guard[TTT__PATH];
    if (snprintf(guard, sizeof guard, "%s.break", path) >= (int)sizeof guard)
        ttt__file_fail(ctx, path, "cannot be taken over", ENAMETOOLONG);
    if (ttt_file_lock(ctx, guard) != TTT_OK) return;
    ttt__holder holder = ttt__lock_holder(path);
    if (ttt__holder_ended(&holder)) remove(path);
    remove(guard);
}

ttt_result ttt_file_lock(ttt_ctx *ctx, const char *path) {
    if (!TTT__GIVEN("ttt_file_lock", path)) return ctx->result;
    int error = ttt__lock_make(path);
    ttt__holder holder = ttt__lock_holder(path);
    if (error == EEXIST && ttt__holder_ended(&holder)) {
        ttt__lock_break(ctx, path);
        if (ctx->result) return ctx->result;
        error = ttt__lock_make(path);
        holder = ttt__lock_holder(path);
    }
    if (error && error != EEXIST) ttt__file_fail(ctx, path, "cannot be made", error);
    else if (error && holder.process)
        ttt__refuse(ctx, TTT_ERR_FILE, path, "process %ld on %.100s holds this lock; if it has "
                    "ended, delete this file", holder.process, holder.machine);
    else if (error)
        ttt__refuse(ctx, TTT_ERR_FILE, path, "a lock that does not say whose; if no process uses "
                    "it, delete this file");
    return ctx->result;
}

// ---- SAFETENSORS --------------------------------------------------------------------------------
// -- elements as bytes in either order, whatever the machine's own; IEEE 754 formats, and bfloat16,
// the upper half of a binary32
typedef struct ttt__type {
    char kind;  // f IEEE, h bfloat16, i signed, u unsigned, b bool
    unsigned char bytes;
    bool big;  // most significant byte first
} ttt__type;

static uint64_t ttt__bytes(const unsigned char *p, int n) {
    uint64_t bits = 0;
    for (int i = 0; i < n; i++) bits |= (uint64_t)p[i] << 8 * i;
    return bits;
}

static void ttt__put_bytes(unsigned char *p, uint64_t bits, int n) {
    for (int i = 0; i < n; i++) p[i] = (unsigned char)(bits >> 8 * i);
}

// A real from the bits of a binary32 or a binary64. Bits of the same width are moved, never
// computed with: a NaN keeps its payload.
#if TTT__DOUBLE
static void ttt__real_of_32(double *y, uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    *y = (double)f;
}
static void ttt__real_of_64(double *y, uint64_t bits) { memcpy(y, &bits, sizeof *y); }
#else
static void ttt__real_of_32(float *y, uint32_t bits) { memcpy(y, &bits, sizeof *y); }
static void ttt__real_of_64(float *y, uint64_t bits) {
    double d;
    memcpy(&d, &bits, sizeof d);
    *y = (float)d;
}
#endif

// Element i of an array of elements of 1, 2, 4 or 8 bytes, as a number that has its bits.
static uint64_t ttt__bits_at(const void *elements, int bytes, int64_t i) {
    const uint8_t *p = (const uint8_t *)elements + i * bytes;
    uint16_t two;
    uint32_t four;
    uint64_t eight;
    switch (bytes) {
    case 1: return *p;
    case 2: return memcpy(&two, p, sizeof two), two;
    case 4: return memcpy(&four, p, sizeof four), four;
    default: return memcpy(&eight, p, sizeof eight), eight;
    }
}

static void ttt__set_bits(void *elements, int bytes, int64_t i, uint64_t bits) {
    uint8_t *p = (uint8_t *)elements + i * bytes;
    uint16_t two = (uint16_t)bits;
    uint32_t four = (uint32_t)bits;
    switch (bytes) {
    case 1: *p = (uint8_t)bits; break;
    case 2: memcpy(p, &two, sizeof two); break;
    case 4: memcpy(p, &four, sizeof four); break;
    default: memcpy(p, &bits, sizeof bits);
    }
}

// The kinds of the rows of TTT_DTYPES. Their widths are those of the elements.
static const char ttt__kinds[TTT__N_DTYPES + 1] = "fiuhfiiiuu";

// What a file's type becomes: the row that is the same, or one that holds its numbers.
static ttt_dtype ttt__dtype_of(ttt__type type) {
    for (int dtype = 0; dtype < TTT__N_DTYPES; dtype++)
        if (ttt__kinds[dtype] == type.kind && ttt__element_bytes((ttt_dtype)dtype) == type.bytes)
            return (ttt_dtype)dtype;
    return type.kind == 'f' ? TTT_DTYPE_REAL : type.kind == 'b' ? TTT_DTYPE_U8 : TTT_DTYPE_INT;
}

// Reads n elements at p into elements i .. i+n-1. Only reals have another width than in the file.
static void ttt__decode(ttt__type type, const unsigned char *p, int64_t n, ttt_dtype dtype,
                        void *elements, int64_t i) {
    ttt_real *y = (ttt_real *)elements + (dtype == TTT_DTYPE_REAL ? i : 0);
    for (int64_t k = 0; k < n; k++, p += type.bytes) {
        uint64_t bits = ttt__bytes(p, type.bytes);
        if (dtype != TTT_DTYPE_REAL)
            ttt__set_bits(elements, type.bytes, i + k, type.kind == 'b' ? bits != 0 : bits);
        else if (type.bytes == 8) ttt__real_of_64(y + k, bits);
        else ttt__real_of_32(y + k, (uint32_t)bits);
    }
}

// An int64_t cannot hold U64 numbers above 2^63 - 1: elements among which there is one become real,
// in place. Returns their type.
static ttt_dtype ttt__wide_to_real(void *elements, int64_t size) {
    bool wide = false;
    for (int64_t i = 0; i < size; i++) wide = wide || ttt__bits_at(elements, 8, i) > INT64_MAX;
    for (int64_t i = 0; i < size && wide; i++) {  // real i never ends after integer i
        ttt_real value = (ttt_real)ttt__bits_at(elements, 8, i);
        memcpy((ttt_real *)elements + i, &value, sizeof value);
    }
    return wide ? TTT_DTYPE_REAL : TTT_DTYPE_INT;
}

// The place in row-major order of element k of Fortran order, in which the first index is fastest.
static int64_t ttt__row_major(ttt_shape shape, int64_t k) {
    int64_t at = 0;
    for (int d = 0; d < shape.rank; k /= shape.dim[d++]) at = at * shape.dim[d] + k % shape.dim[d];
    return at;
}

// Reads the next `size` elements of the file by small chunks: no second copy of them is ever in
// memory. Returns what they became.
#define TTT__CHUNK ((int64_t)1 << 16)
static ttt_dtype ttt__read_elements(ttt__file *f, ttt__type type, ttt_shape shape, bool fortran,
                                    void *elements) {
    ttt_mark scratch = ttt__arena_mark(&f->ctx->scratch);
    unsigned char *chunk =
        (unsigned char *)ttt__arena_alloc(f->ctx, &f->ctx->scratch, (size_t)TTT__CHUNK);
    int64_t size = ttt_shape_size(shape);
    ttt_dtype dtype = ttt__dtype_of(type);
    for (int64_t i = 0, n; chunk && i < size; i += n) {
        n = TTT__MIN(size - i, TTT__CHUNK / type.bytes);
        if (!ttt__read(f, chunk, (size_t)(n * type.bytes))) break;
        if (type.big) ttt__reverse_each(chunk, n, type.bytes);
        if (!fortran) ttt__decode(type, chunk, n, dtype, elements, i);
        for (int64_t k = 0; k < n && fortran; k++)
            ttt__decode(type, chunk + k * type.bytes, 1, dtype, elements,
                        ttt__row_major(shape, i + k));
    }
    ttt__arena_release(&f->ctx->scratch, scratch);
    bool unsigned_64 = type.kind == 'u' && type.bytes == 8 && !f->ctx->result;
    return unsigned_64 ? ttt__wide_to_real(elements, size) : dtype;
}

// How a tensor is written: as what it is, or reals as bfloat16.
static ttt_dtype ttt__written_dtype(const ttt_tensor *tensor, bool bf16) {
    return tensor->data && bf16 ? TTT_DTYPE_BF16 : tensor->dtype;
}
static ttt__type ttt__written_type(const ttt_tensor *tensor, bool bf16) {
    ttt_dtype dtype = ttt__written_dtype(tensor, bf16);
    ttt__type type = { ttt__kinds[dtype], (unsigned char)ttt__element_bytes(dtype), false };
    return type;
}

static uint64_t ttt__element_bits(const ttt_tensor *tensor, ttt__type type, int64_t i) {
    return tensor->data && type.kind == 'h' ? ttt__bf16_of(tensor->data[i])
                                            : ttt__bits_at(ttt__elements(tensor), type.bytes, i);
}

static bool ttt__write_tensor(ttt_ctx *ctx, ttt_file_writer *w, const ttt_tensor *tensor,
                              bool bf16) {
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    unsigned char *chunk =
        (unsigned char *)ttt__arena_alloc(ctx, &ctx->scratch, (size_t)TTT__CHUNK);
    ttt__type type = ttt__written_type(tensor, bf16);
    bool good = chunk != NULL;
    for (int64_t i = 0, n; good && i < tensor->size; i += n) {
        n = TTT__MIN(tensor->size - i, TTT__CHUNK / type.bytes);
        for (int64_t k = 0; k < n; k++)
            ttt__put_bytes(chunk + k * type.bytes, ttt__element_bits(tensor, type, i + k),
                           type.bytes);
        good = ttt_file_put(w, chunk, (size_t)(n * type.bytes));
    }
    ttt__arena_release(&ctx->scratch, scratch);
    return good;
}

// -- names: pointers to n structs into p, sorted.
static void ttt__sort_structs(void **p, void *structs, int64_t n, size_t size,
                              ttt__compare_fn *compare) {
    for (int64_t i = 0; i < n; i++) p[i] = (char *)structs + (size_t)i * size;
    ttt__sort(p, n, compare);
}

// For structs that begin with a name.
static const char *ttt__name_of(const void *a) { return *(const char *const *)a; }
static int ttt__by_name(const void *a, const void *b) {
    return strcmp(ttt__name_of(a), ttt__name_of(b));
}

// The same by name, and an error if one occurs twice. p is NULL where memory ran out.
static bool ttt__sort_names(ttt_ctx *ctx, const char *path, void **p, void *structs, int64_t n,
                            size_t size, ttt_result otherwise) {
    if (!p) return false;
    ttt__sort_structs(p, structs, n, size, ttt__by_name);
    for (int64_t i = 1; i < n; i++)
        if (ttt__by_name(p[i - 1], p[i]) == 0) {
            ttt_fail(ctx, otherwise, "%.200s: '%.80s' occurs twice", path, ttt__name_of(p[i]));
            return false;
        }
    return true;
}

// The one with that name among n sorted pointers; NULL if there is none.
static void *ttt__named(void *const *sorted, int64_t n, const char *name) {
    while (n > 0) {
        int64_t half = n / 2;
        int order = strcmp(name, ttt__name_of(sorted[half]));
        if (order == 0) return sorted[half];
        if (order > 0) sorted += half + 1;
        n = order > 0 ? n - half - 1 : half;
    }
    return NULL;
}

// -- safetensors: the length of the header (8 bytes, little-endian); the header, JSON, padded by
// blanks:
//     {"name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}, ...,
//      "__metadata__":{"key":"text"}}
// and the data, which the tensors cover without a hole and without overlap.
// https://github.com/huggingface/safetensors, "Format"
#define TTT__SAFETENSORS_HEADER 100000000
#define TTT__SAFETENSORS_NAMES ((int64_t)1 << 19)
typedef struct ttt__entry {
    ttt_shape shape;
    int64_t begin, end;  // bytes of the file's data, or, if they were read, of `elements`
    ttt__type type;
    ttt_dtype dtype;     // what the type became
} ttt__entry;

// What is behind the names of a bundle that was read.
struct ttt__stored {
    ttt_ctx *ctx;
    ttt__entry *entries;       // in the order of the names
    ttt_tensor *elements;      // of all tensors, as bytes, in the order of the file; or
    const char *path;          // the file that has them,
    int64_t data;              // from this byte on
    void **by_name, **by_key;  // pointers to the tensors and to the notes, sorted
};

typedef struct ttt__safetensors {
    ttt__file f;
    ttt__json j;
    int64_t data;  // bytes after the header
    struct ttt__stored *stored;
    ttt_bundle *out;
} ttt__safetensors;

// The names of the types, here and in NumPy.
static const struct {
    const char *name, *numpy;
    ttt__type type;
} ttt__safetensors_types[] = {
    { "F64", "float64", { 'f', 8, false } },   { "F32", "float32", { 'f', 4, false } },
    { "F16", "float16", { 'f', 2, false } },   { "BF16", "bfloat16", { 'h', 2, false } },
    { "I64", "int64", { 'i', 8, false } },     { "I32", "int32", { 'i', 4, false } },
    { "I16", "int16", { 'i', 2, false } },     { "I8", "int8", { 'i', 1, false } },
    { "U64", "uint64", { 'u', 8, false } },    { "U32", "uint32", { 'u', 4, false } },
    { "U16", "uint16", { 'u', 2, false } },    { "U8", "uint8", { 'u', 1, false } },
    { "BOOL", "bool", { 'b', 1, false } },
};

static bool ttt__read_dtype(ttt__safetensors *file, const char *name, ttt__entry *e) {
    const char *dtype;
    if (!ttt__json_string(&file->j, &dtype)) return false;
    for (size_t i = 0; i < sizeof ttt__safetensors_types / sizeof *ttt__safetensors_types; i++)
        if (strcmp(dtype, ttt__safetensors_types[i].name) == 0) {
            e->type = ttt__safetensors_types[i].type;
            return true;
        }
    return ttt__bad(&file->f, name,
                    "dtype %.20s: F64, F32, F16, BF16, I8..I64, U8..U64, BOOL expected", dtype);
}

static bool ttt__read_shape(ttt__safetensors *file, const char *name, ttt__entry *e) {
    e->shape = ttt_scalar_shape();
    if (!ttt__json_enter(&file->j, '[')) return false;
    while (ttt__json_item(&file->j)) {
        int64_t size;
        if (e->shape.rank == TTT_MAX_RANK)
            return ttt__bad(&file->f, name, "a shape of more than %d sizes is not supported",
                            TTT_MAX_RANK);
        if (!ttt__json_int(&file->j, &size)) return false;
        if (size < 0)
            return ttt__bad(&file->f, name, "the shape has the size %lld", (long long)size);
        e->shape.dim[e->shape.rank++] = size;
    }
    return !file->j.why;
}

static bool ttt__read_offset(ttt__json *json, int64_t *at) {
    return (ttt__json_item(json) || ttt__json_fail(json, "two offsets were expected")) &&
           ttt__json_int(json, at);
}

static bool ttt__read_offsets(ttt__json *json, ttt__entry *e) {
    bool two = ttt__json_enter(json, '[');
    two = two && ttt__read_offset(json, &e->begin) && ttt__read_offset(json, &e->end);
    if (!two || ttt__json_item(json)) return ttt__json_fail(json, "two offsets were expected");
    return !json->why;
}

// The shape needs just the bytes between the offsets, and the file has them. No product wraps
// around.
static bool ttt__entry_good(const ttt__safetensors *file, const char *name,
                            const ttt__entry *e) {
    ttt_text shape;
    int64_t size = ttt_shape_size(e->shape);
    if (e->begin < 0 || e->end < e->begin || e->end > file->data)
        return ttt__bad(&file->f, name,
                        "data_offsets [%lld,%lld] are not within the %lld bytes of data",
                        (long long)e->begin, (long long)e->end, (long long)file->data);
    if (size < 0 || size > INT64_MAX / e->type.bytes || size * e->type.bytes != e->end - e->begin)
        return ttt__bad(&file->f, name,
                        "shape %s of elements of %d bytes, but data_offsets span %lld bytes",
                        ttt_shape_text(e->shape, shape), e->type.bytes,
                        (long long)(e->end - e->begin));
    return true;
}

// Keys besides these three are left alone, as the reference reader does.
static bool ttt__read_entry(ttt__safetensors *file, const char *name, ttt__entry *e) {
    static const char *const keys[3] = { "dtype", "shape", "data_offsets" };
    bool seen[3] = { false, false, false };
    const char *key;
    ttt__json_enter(&file->j, '{');
    while (ttt__json_key(&file->j, &key)) {
        int k = 0;
        while (k < 3 && strcmp(key, keys[k]) != 0) k++;
        if (k < 3 && seen[k]) return ttt__bad(&file->f, name, "%s occurs twice", key);
        if (k < 3) seen[k] = true;
        if (!(k == 0   ? ttt__read_dtype(file, name, e)
              : k == 1 ? ttt__read_shape(file, name, e)
              : k == 2 ? ttt__read_offsets(&file->j, e)
              : ttt__json_skip(&file->j)))
            return false;
    }
    if (file->j.why) return false;
    for (int k = 0; k < 3; k++)
        if (!seen[k]) return ttt__bad(&file->f, name, "%s is missing", keys[k]);
    return ttt__entry_good(file, name, e);
}

// Room for `each` bytes for every name in the next object of the header; *n is their number.
static void *ttt__names_room(ttt__safetensors *file, size_t each, int64_t *n) {
    *n = ttt__json_count(file->j);
    if (*n <= TTT__SAFETENSORS_NAMES) return ttt_alloc(file->f.ctx, (uint64_t)*n * each, false);
    ttt__refuse(file->f.ctx, TTT_ERR_TOO_BIG, file->f.path, "%lld names; %lld is the limit",
                (long long)*n, (long long)TTT__SAFETENSORS_NAMES);
    return NULL;
}

static bool ttt__read_notes(ttt__safetensors *file) {
    ttt_bundle *out = file->out;
    ttt_note note;
    int64_t n;
    if (out->notes) return ttt__bad(&file->f, NULL, "__metadata__ occurs twice");
    out->notes = (ttt_note *)ttt__names_room(file, sizeof note + sizeof(void *), &n);
    if (!out->notes || !ttt__json_enter(&file->j, '{')) return false;
    file->stored->by_key = (void **)(void *)(out->notes + n);
    while (ttt__json_key(&file->j, &note.key)) {
        if (!ttt__json_string(&file->j, &note.text)) return false;
        out->notes[out->n_notes++] = note;
    }
    return !file->j.why &&
           ttt__sort_names(file->f.ctx, file->f.path, file->stored->by_key, out->notes,
                           out->n_notes, sizeof note, TTT_ERR_FORMAT);
}

// The header's text. It stays in the step arena, because names and notes are decoded in place.
static bool ttt__read_header(ttt__safetensors *file) {
    unsigned char length[8];
    if (file->f.size < 8)
        return ttt__bad(&file->f, NULL, "%d bytes, no room for a length", (int)file->f.size);
    if (!ttt__read(&file->f, length, 8)) return false;
    uint64_t n = ttt__bytes(length, 8);
    if (n > TTT__SAFETENSORS_HEADER || n > (uint64_t)file->f.size - 8)
        return ttt__bad(&file->f, NULL, "a header of %llu bytes; %lld follow, and %d is the limit",
                        (unsigned long long)n, (long long)file->f.size - 8,
                        TTT__SAFETENSORS_HEADER);
    char *text = (char *)ttt_alloc(file->f.ctx, (size_t)n, false);
    if (!text || !ttt__read(&file->f, text, (size_t)n)) return false;
    if (n == 0 || text[0] != '{')
        return ttt__bad(&file->f, NULL, "the header, byte 8, does not begin with {");
    file->j = ttt__json_of(text, (size_t)n);
    file->data = file->f.size - 8 - (int64_t)n;
    return true;
}

// *name is the one that an error is about.
static bool ttt__read_entries(ttt__safetensors *file, const char **name) {
    struct ttt__stored *stored = file->stored;
    ttt_bundle *out = file->out;
    size_t each = sizeof *stored->entries + sizeof *out->tensors + sizeof *stored->by_name;
    int64_t n;
    stored->entries = (ttt__entry *)ttt__names_room(file, each, &n);
    if (!stored->entries) return false;
    out->tensors = (ttt_named *)(void *)(stored->entries + n);
    stored->by_name = (void **)(void *)(out->tensors + n);
    ttt__json_enter(&file->j, '{');
    while (ttt__json_key(&file->j, name)) {
        if (strcmp(*name, "__metadata__") == 0) {
            if (!ttt__read_notes(file)) return false;
            continue;
        }
        ttt_named *to = out->tensors + out->n_tensors;
        to->name = *name;
        to->tensor = NULL;
        if (!ttt__read_entry(file, *name, stored->entries + out->n_tensors++)) return false;
    }
    return ttt__json_end(&file->j);
}

static int ttt__by_offset(const void *a, const void *b) {
    const ttt__entry *x = (const ttt__entry *)a, *y = (const ttt__entry *)b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

// Entries in the order of their data, which they cover without a hole and without an overlap. NULL
// after an error. They stand where the sorted names will.
static void **ttt__in_file_order(ttt__safetensors *file) {
    const ttt_bundle *out = file->out;
    void **p = file->stored->by_name;
    int64_t at = 0;
    ttt__sort_structs(p, file->stored->entries, out->n_tensors, sizeof *file->stored->entries,
                      ttt__by_offset);
    for (int64_t i = 0; i < out->n_tensors; i++) {
        const ttt__entry *e = (const ttt__entry *)p[i];
        if (e->begin != at) {
            ttt__bad(&file->f, out->tensors[e - file->stored->entries].name,
                     "data_offsets begin at %lld, the tensor before ends at %lld: %s",
                     (long long)e->begin, (long long)at, e->begin < at ? "an overlap" : "a hole");
            return NULL;
        }
        at = e->end;
    }
    int64_t rest = file->data - at;
    if (rest) ttt__bad(&file->f, NULL, "%lld bytes after the last tensor", (long long)rest);
    return rest ? NULL : p;
}

// Where the elements of each will lie: in the same order, at multiples of 8 bytes. Returns how many
// bytes they take.
static int64_t ttt__place_elements(void *const *entries, int64_t n) {
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        ttt__entry *e = (ttt__entry *)entries[i];
        e->begin = (at + 7) / 8 * 8;
        at = e->end =
            e->begin + ttt_shape_size(e->shape) * (int64_t)ttt__element_bytes(e->dtype);
    }
    return at;
}

static bool ttt__read_tensors(ttt__safetensors *file) {
    ttt_ctx *ctx = file->f.ctx;
    struct ttt__stored *stored = file->stored;
    int64_t n = file->out->n_tensors;
    void **p = ttt__in_file_order(file);
    if (!p) return false;
    for (int64_t i = 0; i < n; i++)
        stored->entries[i].dtype = ttt__dtype_of(stored->entries[i].type);
    if (!stored->path) {
        ttt_shape all = TTT_SHAPE(ttt__place_elements(p, n));
        stored->elements = ttt__tensor(ctx, all, TTT_DTYPE_U8, false, NULL);
    }
    for (int64_t i = 0; i < n && !ctx->result && stored->elements; i++) {
        ttt__entry *e = (ttt__entry *)p[i];
        e->dtype = ttt__read_elements(&file->f, e->type, e->shape, false,
                                      stored->elements->u8 + e->begin);
    }
    return !ctx->result && ttt__sort_names(ctx, file->f.path, p, file->out->tensors, n,
                                           sizeof *file->out->tensors, TTT_ERR_FORMAT);
}

// -- flax streams, in which the JAX code of TTT-LM keeps weights: objects of msgpack one behind the
// other, [["model","h","0",...], bytes], whose bytes are flax's own msgpack of one array: extension
// 1, and in it [[2,3], "float32", elements in C order].
// https://github.com/test-time-training/ttt-lm-jax, ttt/infra/checkpoint.py;
// https://github.com/google/flax, flax/serialization.py;
// https://github.com/msgpack/msgpack/blob/master/spec.md
typedef struct ttt__packed {
    char kind;  // one of the rows below
    int tag;    // of an extension, what it is
    int64_t n;  // items of an array or a map, bytes of the others, or the number
} ttt__packed;
// What the first byte says: the kind, and of how many bytes, or twice or four times or eight times
// as many, the length is, or the number. 0: the length is in the first byte.
static const struct {
    unsigned char first, last;
    char kind;  // u whole number, m map, a array, s string, b bytes, x extension
    unsigned char wide;
} ttt__packed_rows[] = {
    { 0x00, 0x7f, 'u', 0 }, { 0x80, 0x8f, 'm', 0 }, { 0x90, 0x9f, 'a', 0 },
    { 0xa0, 0xbf, 's', 0 }, { 0xc4, 0xc6, 'b', 1 }, { 0xc7, 0xc9, 'x', 1 },
    { 0xcc, 0xcf, 'u', 1 }, { 0xd4, 0xd8, 'x', 0 }, { 0xd9, 0xdb, 's', 1 },
    { 0xdc, 0xdd, 'a', 2 }, { 0xde, 0xdf, 'm', 2 },
};
typedef struct ttt__flax {
    ttt__file *f;
    int64_t at, end;  // the next byte, and where the innermost thing that has a length ends
    char name[512];   // the key path, with slashes
} ttt__flax;
// One array, and the next.
typedef struct ttt__flax_item {
    struct ttt__flax_item *next;
    const char *name;
    ttt__entry entry;
} ttt__flax_item;

static bool ttt__flax_bad(ttt__flax *r, int64_t at, const char *found, const char *expected) {
    return ttt__bad(r->f, *r->name ? r->name : NULL, "byte %lld: %s; %s expected", (long long)at,
                    found, expected);
}
static bool ttt__flax_go(ttt__flax *r, int64_t at) {
    r->at = at;
    errno = 0;
    return TTT__SEEK(r->f->stream, at, SEEK_SET) == 0 ||
           ttt__file_fail(r->f->ctx, r->f->path, "cannot be read", errno);
}
// The head of a thing of one of these kinds. What it says to follow is there.
static bool ttt__unpack(ttt__flax *r, const char *kinds, const char *expected, ttt__packed *to) {
    const int rows = (int)(sizeof ttt__packed_rows / sizeof *ttt__packed_rows);
    unsigned char b[9], c;
    int64_t at = r->at, left = r->end - at;
    int i = 0;
    if (left < 1) return ttt__flax_bad(r, at, "an end", expected);
    if (!ttt__read(r->f, &c, 1)) return false;
    while (i < rows && !(ttt__packed_rows[i].first <= c && c <= ttt__packed_rows[i].last)) i++;
    to->kind = i < rows ? ttt__packed_rows[i].kind : '?';
    if (!strchr(kinds, to->kind))
        return ttt__bad(r->f, *r->name ? r->name : NULL, "byte %lld: type 0x%02x; %s expected",
                        (long long)at, c, expected);
    int step = c - ttt__packed_rows[i].first, wide = ttt__packed_rows[i].wide;
    if (wide) wide <<= step;
    int rest = wide + (to->kind == 'x');
    uint64_t n = wide ? 0 : to->kind == 'x' ? (uint64_t)1 << step : (uint64_t)step;
    if (left <= rest) return ttt__flax_bad(r, at, "an end", expected);
    if (!ttt__read(r->f, b, (size_t)rest)) return false;
    for (int k = 0; k < wide; k++) n = n << 8 | b[k];
    to->tag = to->kind == 'x' ? b[wide] : 0;
    to->n = (int64_t)n;
    r->at += 1 + rest;
    if (n > INT64_MAX || (to->kind != 'u' && to->n > r->end - r->at))
        return ttt__bad(r->f, *r->name ? r->name : NULL,
                        "byte %lld: a length of %llu, but %lld bytes follow", (long long)at,
                        (unsigned long long)n, (long long)(r->end - r->at));
    return true;
}
static bool ttt__unpack_text(ttt__flax *r, const char *expected, char *to, size_t room) {
    ttt__packed p;
    int64_t at = r->at;
    if (!ttt__unpack(r, "s", expected, &p)) return false;
    if (p.n >= (int64_t)room) return ttt__flax_bad(r, at, "a string that is too long", expected);
    if (!ttt__read(r->f, to, (size_t)p.n)) return false;
    to[p.n] = 0;
    r->at += p.n;
    return strlen(to) == (size_t)p.n || ttt__flax_bad(r, at, "a string with a 0", expected);
}
static bool ttt__unpack_list(ttt__flax *r, const char *expected, int64_t least, int64_t most,
                             int64_t *n) {
    ttt__packed p;
    int64_t at = r->at;
    if (!ttt__unpack(r, "a", expected, &p)) return false;
    *n = p.n;
    return (least <= p.n && p.n <= most) ||
           ttt__flax_bad(r, at, "an array of another length", expected);
}
static bool ttt__unpack_path(ttt__flax *r) {
    int64_t n, used = 0;
    if (!ttt__unpack_list(r, "a key path", 1, 64, &n)) return false;
    for (int64_t i = 0; i < n; i++) {
        if (i) r->name[used++] = '/';
        r->name[used] = 0;
        if (!ttt__unpack_text(r, "a part of a key path", r->name + used,
                              sizeof r->name - 1 - (size_t)used))
            return false;
        used += (int64_t)strlen(r->name + used);
    }
    return true;
}
static bool ttt__unpack_type(ttt__flax *r, ttt__entry *e) {
    char name[24];
    int64_t at = r->at;
    if (!ttt__unpack_text(r, "the name of a type", name, sizeof name)) return false;
    for (size_t i = 0; i < sizeof ttt__safetensors_types / sizeof *ttt__safetensors_types; i++)
        if (strcmp(name, ttt__safetensors_types[i].numpy) == 0) {
            e->type = ttt__safetensors_types[i].type;
            e->dtype = ttt__dtype_of(e->type);
            return true;
        }
    return ttt__bad(r->f, r->name, "byte %lld: type %s: float64, float32, float16, bfloat16, "
                    "int8..int64, uint8..uint64, bool expected", (long long)at, name);
}
// An array that fills the bytes up to r->end. Its elements stay in the file.
static bool ttt__unpack_array(ttt__flax *r, ttt__entry *e) {
    static const char form[] = "an array of flax, [shape, type, elements],";
    ttt_text text;
    ttt__packed p;
    int64_t at = r->at, n;
    if (!ttt__unpack(r, "xm", form, &p)) return false;
    if (p.kind == 'm') return ttt__flax_bad(r, at, "a map (chunks of more than 1 GB?)", form);
    if (p.tag != 1) return ttt__flax_bad(r, at, "another extension", form);
    if (!ttt__unpack_list(r, form, 3, 3, &n) ||
        !ttt__unpack_list(r, "a shape of at most 8 sizes", 0, TTT_MAX_RANK, &n))
        return false;
    e->shape = ttt_scalar_shape();
    for (; e->shape.rank < n; e->shape.dim[e->shape.rank++] = p.n)
        if (!ttt__unpack(r, "u", "a size", &p)) return false;
    if (!ttt__unpack_type(r, e) || !ttt__unpack(r, "b", "elements", &p)) return false;
    e->begin = r->at;
    e->end = r->at + p.n;
    int64_t size = ttt_shape_size(e->shape);
    if (size < 0 || size > INT64_MAX / e->type.bytes || size * e->type.bytes != p.n)
        return ttt__bad(r->f, r->name, "byte %lld: shape %s of elements of %d bytes, but there are "
                        "%lld bytes", (long long)at, ttt_shape_text(e->shape, text), e->type.bytes,
                        (long long)p.n);
    return e->end == r->end || ttt__flax_bad(r, e->end, "bytes after an array", "its end");
}
// The next item, of which the array is read if the path begins with `prefix`. NULL in *to if not.
static bool ttt__unpack_item(ttt__flax *r, const char *prefix, ttt__flax_item **to) {
    ttt__packed p;
    ttt__entry e;
    int64_t n;
    size_t skipped = strlen(prefix);
    *r->name = 0;
    *to = NULL;
    r->end = r->f->size;
    if (!ttt__unpack_list(r, "[key path, bytes]", 2, 2, &n) || !ttt__unpack_path(r) ||
        !ttt__unpack(r, "b", "the bytes of an array", &p))
        return false;
    r->end = r->at + p.n;
    if (strncmp(r->name, prefix, skipped) == 0) {
        if (!ttt__unpack_array(r, &e)) return false;
        size_t length = strlen(r->name + skipped) + 1;
        *to = (ttt__flax_item *)ttt_alloc(r->f->ctx, sizeof **to + length, false);
        if (!*to) return false;
        (*to)->next = NULL;
        (*to)->name = (const char *)memcpy(*to + 1, r->name + skipped, length);
        (*to)->entry = e;
    }
    return ttt__flax_go(r, r->end);
}
static bool ttt__read_flax(ttt__safetensors *file, const char *prefix) {
    ttt_bundle *out = file->out;
    struct ttt__stored *stored = file->stored;
    size_t each = sizeof *stored->entries + sizeof *out->tensors + sizeof *stored->by_name;
    ttt__flax_item *first = NULL, *item, **last = &first;
    ttt__flax r;
    int64_t n = 0, i = 0;
    memset(&r, 0, sizeof r);
    r.f = &file->f;
    file->data = file->f.size;
    while (r.at < file->f.size && n < TTT__SAFETENSORS_NAMES) {
        if (!ttt__unpack_item(&r, prefix, &item)) return false;
        if (!item) continue;
        *last = item;
        last = &item->next;
        n++;
    }
    if (r.at < file->f.size)
        return ttt__refuse(file->f.ctx, TTT_ERR_TOO_BIG, file->f.path, "more than %lld names",
                           (long long)n);
    stored->entries = (ttt__entry *)ttt_alloc(file->f.ctx, (uint64_t)n * each, false);
    if (!stored->entries) return false;
    out->tensors = (ttt_named *)(void *)(stored->entries + n);
    stored->by_name = (void **)(void *)(out->tensors + n);
    out->n_tensors = n;
    for (item = first; item; item = item->next, i++) {
        stored->entries[i] = item->entry;
        out->tensors[i].name = item->name;
        out->tensors[i].tensor = NULL;
    }
    return ttt__sort_names(file->f.ctx, file->f.path, stored->by_name, out->tensors, n,
                           sizeof *out->tensors, TTT_ERR_FORMAT);
}

// With its elements or, if `path_kept`, without them. A flax stream if there is a prefix.
static ttt_result ttt__bundle_load(ttt_ctx *ctx, const char *who, const char *path,
                                   ttt_bundle *out, bool path_kept, const char *prefix) {
    ttt_mark step = ttt_mark_get(ctx), scratch = ttt__arena_mark(&ctx->scratch);
    ttt__safetensors file;
    const char *name = NULL;
    memset(&file, 0, sizeof file);
    if (out) memset(out, 0, sizeof *out);
    file.out = out;
    if (!TTT__GIVEN(who, out) || !ttt__file_open(ctx, path, &file.f)) return ctx->result;
    size_t length = strlen(path) + 1, room = sizeof *file.stored + (path_kept ? length : 0);
    file.stored = (struct ttt__stored *)ttt_alloc(ctx, room, false);
    if (file.stored) memset(file.stored, 0, sizeof *file.stored);
    if (file.stored && path_kept)
        file.stored->path = (const char *)memcpy(file.stored + 1, path, length);
    if (file.stored && prefix) ttt__read_flax(&file, prefix);
    else if (file.stored && ttt__read_header(&file) && ttt__read_entries(&file, &name))
        ttt__read_tensors(&file);
    if (file.j.why)
        ttt__bad(&file.f, name, "byte %lld: %s", (long long)(file.j.at - file.j.text) + 8,
                 file.j.why);
    ttt__file_close(&file.f);
    ttt__arena_release(&ctx->scratch, scratch);
    if (ctx->result) {
        memset(out, 0, sizeof *out);
        ttt_mark_release(ctx, step);
        return ctx->result;
    }
    file.stored->ctx = ctx;
    file.stored->data = file.f.size - file.data;
    out->stored = file.stored;
    return TTT_OK;
}
ttt_result ttt_safetensors_read(ttt_ctx *ctx, const char *path, ttt_bundle *out) {
    return ttt__bundle_load(ctx, "safetensors_read", path, out, false, NULL);
}
ttt_result ttt_safetensors_open(ttt_ctx *ctx, const char *path, ttt_bundle *out) {
    return ttt__bundle_load(ctx, "safetensors_open", path, out, true, NULL);
}
// The arrays of a flax stream whose paths begin with `prefix`, and without it their names.
TTT__UNUSED static ttt_result ttt__flax_open(ttt_ctx *ctx, const char *path, const char *prefix,
                                             ttt_bundle *out) {
    return ttt__bundle_load(ctx, "flax_open", path, out, true, prefix);
}

// The elements of a tensor of this shape, which begin `skip` elements behind the entry's first.
static ttt_tensor *ttt__stored_part(const struct ttt__stored *stored, const ttt__entry *e,
                                    ttt_shape shape, int64_t skip) {
    ttt_ctx *ctx = stored->ctx;
    ttt__file f;
    ttt_tensor *tensor = ttt__tensor(ctx, shape, e->dtype, false, stored->elements);
    if (!tensor || ctx->result) return NULL;
    if (stored->elements) {
        size_t skipped = (size_t)skip * ttt__element_bytes(e->dtype);
        ttt__set_elements(tensor, e->dtype, stored->elements->u8 + e->begin + skipped);
        return tensor;
    }
    if (!ttt__file_open(ctx, stored->path, &f)) return NULL;
    int64_t at = stored->data + e->begin + skip * e->type.bytes;
    errno = 0;
    if (TTT__SEEK(f.stream, at, SEEK_SET) != 0)
        ttt__file_fail(ctx, f.path, "cannot be read", errno);
    else ttt__read_elements(&f, e->type, shape, false, ttt__elements(tensor));
    ttt__file_close(&f);
    return ctx->result ? NULL : tensor;
}

ttt_tensor *ttt_bundle_at(const ttt_bundle *bundle, int64_t i) {
    if (!bundle || i < 0 || i >= bundle->n_tensors) return NULL;
    const struct ttt__stored *stored = bundle->stored;
    if (bundle->tensors[i].tensor || !stored) return bundle->tensors[i].tensor;
    return ttt__stored_part(stored, &stored->entries[i], stored->entries[i].shape, 0);
}

ttt_tensor *ttt_bundle_rows(const ttt_bundle *bundle, int64_t i, int64_t begin, int64_t n) {
    if (!bundle || !bundle->stored || i < 0 || i >= bundle->n_tensors) return NULL;
    const ttt__entry *e = &bundle->stored->entries[i];
    ttt_shape shape = e->shape;
    if (shape.rank < 1 || begin < 0 || n < 0 || begin > shape.dim[0] - n) return NULL;
    int64_t row = shape.dim[0] ? ttt_shape_size(shape) / shape.dim[0] : 0;
    shape.dim[0] = n;
    return ttt__stored_part(bundle->stored, e, shape, begin * row);
}

int64_t ttt_bundle_place(const ttt_bundle *bundle, const char *name) {
    if (!bundle || !bundle->stored || !name) return -1;
    const void *named = ttt__named(bundle->stored->by_name, bundle->n_tensors, name);
    return named ? (const ttt_named *)named - bundle->tensors : -1;
}

ttt_shape ttt_bundle_shape(const ttt_bundle *bundle, int64_t i) {
    bool there = bundle && bundle->stored && i >= 0 && i < bundle->n_tensors;
    return there ? bundle->stored->entries[i].shape : ttt_scalar_shape();
}

ttt_tensor *ttt_bundle_find(const ttt_bundle *bundle, const char *name) {
    if (!bundle || !name) return NULL;
    if (bundle->stored) return ttt_bundle_at(bundle, ttt_bundle_place(bundle, name));
    for (int64_t i = 0; i < bundle->n_tensors; i++)
        if (strcmp(bundle->tensors[i].name, name) == 0) return bundle->tensors[i].tensor;
    return NULL;
}

const char *ttt_bundle_note(const ttt_bundle *bundle, const char *key) {
    if (!bundle || !key) return NULL;
    if (bundle->stored) {
        void *note = ttt__named(bundle->stored->by_key, bundle->n_notes, key);
        return note ? ((ttt_note *)note)->text : NULL;
    }
    for (int64_t i = 0; i < bundle->n_notes; i++)
        if (strcmp(bundle->notes[i].key, key) == 0) return bundle->notes[i].text;
    return NULL;
}

// Text that the same calls make twice: first to count it (`to` is NULL), then to write it.
typedef struct ttt__sink {
    char *to;
    size_t n;
} ttt__sink;

static void ttt__say_bytes(ttt__sink *sink, const char *s, size_t n) {
    if (sink->to) memcpy(sink->to + sink->n, s, n);
    sink->n += n;
}

static void ttt__say(ttt__sink *sink, const char *s) { ttt__say_bytes(sink, s, strlen(s)); }

static void ttt__say_number(ttt__sink *sink, int64_t v) {
    char digits[32];
    snprintf(digits, sizeof digits, "%lld", (long long)v);
    ttt__say(sink, digits);
}

static void ttt__say_quoted(ttt__sink *sink, const char *s) {
    static const char hex[] = "0123456789abcdef";
    ttt__say(sink, "\"");
    for (; *s; s++) {
        char escape[6] = { '\\', 'u', '0', '0', hex[*s >> 4 & 15], hex[*s & 15] };
        if ((unsigned char)*s < 0x20) ttt__say_bytes(sink, escape, 6);
        else if (*s == '"' || *s == '\\') ttt__say_bytes(sink, escape, 1);
        if ((unsigned char)*s >= 0x20) ttt__say_bytes(sink, s, 1);
    }
    ttt__say(sink, "\"");
}

static void ttt__say_notes(ttt__sink *sink, const ttt_bundle *bundle) {
    ttt__say(sink, "\"__metadata__\":{");
    for (int64_t i = 0; i < bundle->n_notes; i++) {
        ttt__say(sink, i ? "," : "");
        ttt__say_quoted(sink, bundle->notes[i].key);
        ttt__say(sink, ":");
        ttt__say_quoted(sink, bundle->notes[i].text);
    }
    ttt__say(sink, "}");
}

static const char *ttt__type_name(ttt__type type) {
    int i = 0;
    while (ttt__safetensors_types[i].type.kind != type.kind ||
           ttt__safetensors_types[i].type.bytes != type.bytes)
        i++;
    return ttt__safetensors_types[i].name;
}

static void ttt__say_entry(ttt__sink *sink, const ttt_named *named, bool bf16, int64_t begin,
                           int64_t end) {
    const ttt_tensor *x = named->tensor;
    ttt__say_quoted(sink, named->name);
    ttt__say(sink, ":{\"dtype\":\"");
    ttt__say(sink, ttt__type_name(ttt__written_type(x, bf16)));
    ttt__say(sink, "\",\"shape\":[");
    for (int i = 0; i < x->shape.rank; i++) {
        ttt__say(sink, i ? "," : "");
        ttt__say_number(sink, x->shape.dim[i]);
    }
    ttt__say(sink, "],\"data_offsets\":[");
    ttt__say_number(sink, begin);
    ttt__say(sink, ",");
    ttt__say_number(sink, end);
    ttt__say(sink, "]}");
}

static int64_t ttt__written_bytes(const ttt_tensor *tensor, bool bf16) {
    return tensor->size * ttt__written_type(tensor, bf16).bytes;
}

// The order of the data, from wide elements to narrow ones. The header is padded to a multiple of 8
// bytes, so every tensor lies at a multiple of its element's size, which views need.
static const ttt_dtype ttt__data_order[TTT__N_DTYPES] = {
    TTT_DTYPE_INT, TTT_DTYPE_REAL, TTT_DTYPE_I32, TTT_DTYPE_U32, TTT_DTYPE_BF16,
    TTT_DTYPE_F16, TTT_DTYPE_I16,  TTT_DTYPE_U16, TTT_DTYPE_U8,  TTT_DTYPE_I8,
};

// Entries in the given order.
static void ttt__say_header(ttt__sink *sink, const ttt_bundle *bundle, bool bf16) {
    int64_t at[TTT__N_DTYPES], all = 0;  // where the data of each element type goes on
    for (int k = 0; k < TTT__N_DTYPES; k++) {
        at[ttt__data_order[k]] = all;
        for (int64_t i = 0; i < bundle->n_tensors; i++)
            if (ttt__written_dtype(bundle->tensors[i].tensor, bf16) == ttt__data_order[k])
                all += ttt__written_bytes(bundle->tensors[i].tensor, bf16);
    }
    ttt__say(sink, "{");
    if (bundle->n_notes) ttt__say_notes(sink, bundle);
    for (int64_t i = 0; i < bundle->n_tensors; i++) {
        const ttt_tensor *x = bundle->tensors[i].tensor;
        int64_t *begin = &at[ttt__written_dtype(x, bf16)];
        int64_t end = *begin + ttt__written_bytes(x, bf16);
        ttt__say(sink, i || bundle->n_notes ? "," : "");
        ttt__say_entry(sink, &bundle->tensors[i], bf16, *begin, end);
        *begin = end;
    }
    ttt__say(sink, "}");
    while (sink->n % 8) ttt__say(sink, " ");
}

static bool ttt__text_good(ttt_ctx *ctx, const char *path, const char *what, const char *s) {
    int n = 1;
    const char *end = s ? s + strlen(s) : NULL;
    for (const char *p = s; n && p < end; p += n) n = ttt__utf8(p, end);
    if (s && n) return true;
    ttt_fail(ctx, TTT_ERR_ARGUMENT, "%.200s: %s '%.80s' is not UTF-8", path, what,
             s ? s : "(NULL)");
    return false;
}

// All that can be wrong with a bundle is found before a file is touched.
static bool ttt__bundle_good(ttt_ctx *ctx, const char *path, const ttt_bundle *bundle) {
    for (int64_t i = 0; i < bundle->n_tensors; i++) {
        const ttt_named *x = &bundle->tensors[i];
        if (!ttt__text_good(ctx, path, "the name", x->name)) return false;
        if (strcmp(x->name, "__metadata__") == 0)
            ttt_fail(ctx, TTT_ERR_ARGUMENT, "%.200s: the name __metadata__ is taken by the notes",
                     path);
        if (!ctx->result && !ttt__alive(ctx, x->tensor)) {
            ttt_text name;
            snprintf(name, sizeof name, "'%.80s'", x->name);
            ttt__not_living(ctx, path, x->tensor, name);
        }
        if (ctx->result) return false;
    }
    for (int64_t i = 0; i < bundle->n_notes; i++)
        if (!ttt__text_good(ctx, path, "the key of a note", bundle->notes[i].key) ||
            !ttt__text_good(ctx, path, "the text of a note", bundle->notes[i].text))
            return false;
    size_t tensors = (size_t)bundle->n_tensors, notes = (size_t)bundle->n_notes;
    void **p = (void **)ttt__arena_alloc(ctx, &ctx->scratch, (tensors + notes) * sizeof *p);
    return ttt__sort_names(ctx, path, p, bundle->tensors, bundle->n_tensors,
                           sizeof *bundle->tensors, TTT_ERR_ARGUMENT) &&
           ttt__sort_names(ctx, path, p, bundle->notes, bundle->n_notes, sizeof *bundle->notes,
                           TTT_ERR_ARGUMENT);
}

// The length and the header, in the scratch arena.
static char *ttt__header_text(ttt_ctx *ctx, const char *path, const ttt_bundle *bundle, bool bf16,
                              size_t *n) {
    ttt__sink sink = { NULL, 0 };
    ttt__say_header(&sink, bundle, bf16);
    if (sink.n > TTT__SAFETENSORS_HEADER) {
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%.200s: a header of %.0f bytes; %d is the limit", path,
                 (double)sink.n, TTT__SAFETENSORS_HEADER);
        return NULL;
    }
    char *text = (char *)ttt__arena_alloc(ctx, &ctx->scratch, 8 + sink.n);
    if (!text) return NULL;
    *n = 8 + sink.n;
    ttt__put_bytes((unsigned char *)text, sink.n, 8);
    sink.to = text + 8;
    sink.n = 0;
    ttt__say_header(&sink, bundle, bf16);
    return text;
}

// The bundle with all its tensors; one that was read has them only for the asking.
static bool ttt__bundle_whole(ttt_ctx *ctx, const ttt_bundle *bundle, ttt_bundle *whole) {
    *whole = *bundle;
    if (!bundle->stored) return true;
    whole->stored = NULL;
    whole->tensors = (ttt_named *)ttt_alloc(
        ctx, (uint64_t)bundle->n_tensors * sizeof *whole->tensors, false);
    for (int64_t i = 0; i < bundle->n_tensors && !ctx->result; i++) {
        whole->tensors[i].name = bundle->tensors[i].name;
        whole->tensors[i].tensor = ttt_bundle_at(bundle, i);
    }
    return !ctx->result;
}

static void ttt__write_bundle(ttt_ctx *ctx, const char *path, const ttt_bundle *bundle,
                              bool bf16) {
    ttt_file_writer w;
    size_t n = 0;
    ctx->file = path;
    char *header =
        ttt__bundle_good(ctx, path, bundle) ? ttt__header_text(ctx, path, bundle, bf16, &n) : NULL;
    ctx->file = NULL;
    if (!header || !ttt_file_begin(ctx, &w, path)) return;
    bool good = ttt_file_put(&w, header, n);
    for (int k = 0; k < TTT__N_DTYPES; k++)
        for (int64_t i = 0; i < bundle->n_tensors && good; i++)
            if (ttt__written_dtype(bundle->tensors[i].tensor, bf16) == ttt__data_order[k])
                good = ttt__write_tensor(ctx, &w, bundle->tensors[i].tensor, bf16);
    ttt_file_finish(ctx, &w, good);
}

ttt_result ttt_safetensors_write(ttt_ctx *ctx, const char *path, const ttt_bundle *bundle,
                                 bool bf16) {
    ttt_mark step = ttt_mark_get(ctx), scratch = ttt__arena_mark(&ctx->scratch);
    ttt_bundle whole;
    if (!TTT__GIVEN("safetensors_write", path) || !TTT__GIVEN("safetensors_write", bundle))
        return ctx->result;
    if (ttt__bundle_whole(ctx, bundle, &whole)) ttt__write_bundle(ctx, path, &whole, bf16);
    ttt__arena_release(&ctx->scratch, scratch);
    ttt_mark_release(ctx, step);
    return ctx->result;
}

// ---- NPY ----------------------------------------------------------------------------------------
// The file is "\x93NUMPY", version (2 bytes), the length of the header (2 bytes, or 4 from version
// 2 on), the header, the data. The header is a Python dictionary of exactly three entries,
//     {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
// No other form is read, and nothing is evaluated as Python.
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#define TTT__NPY_HEADER 65536
typedef struct ttt__npy {
    ttt__file f;
    const char *begin, *at, *end;
    ttt__type type;
    bool fortran;
    ttt_shape shape;
    int64_t data;  // bytes after the header
} ttt__npy;

static bool ttt__npy_bad(ttt__npy *npy, const char *what) {
    return ttt__bad(&npy->f, NULL, "byte %d of the header: %s", (int)(npy->at - npy->begin), what);
}

// Takes `what` if it is what comes next.
static bool ttt__npy_take(ttt__npy *npy, const char *what) {
    size_t length = strlen(what);
    while (npy->at < npy->end &&
           (*npy->at == ' ' || *npy->at == '\n' || *npy->at == '\t' || *npy->at == '\r'))
        npy->at++;
    if ((size_t)(npy->end - npy->at) < length || memcmp(npy->at, what, length) != 0) return false;
    npy->at += length;
    return true;
}

// A short string in either kind of quotes, without escapes; false if there is none.
static bool ttt__npy_string(ttt__npy *npy, char text[16]) {
    char quote = 0;
    if (ttt__npy_take(npy, "'")) quote = '\'';
    else if (ttt__npy_take(npy, "\"")) quote = '"';
    for (int i = 0; quote && i < 16 && npy->at < npy->end; i++) {
        text[i] = *npy->at++;
        if (text[i] == quote) {
            text[i] = 0;
            return true;
        }
    }
    return false;
}

// Byte order (< little, > big, | where there is none), kind, width: "<f4".
static bool ttt__npy_descr(ttt__npy *npy) {
    static const char supported[] = "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 ";
    char text[16], name[4];
    if (!ttt__npy_string(npy, text))
        return ttt__npy_bad(npy, "a type like '<f4' expected, no structure");
    if (strlen(text) == 3) snprintf(name, sizeof name, "%.2s ", text + 1);
    if (strlen(text) != 3 || !strstr(supported, name) ||
        !strchr(text[2] == '1' ? "<>|" : "<>", text[0]))
        return ttt__bad(&npy->f, NULL,
                        "descr '%s' is not supported: bool, integers, f2, f4 and f8 are%s", text,
                        strchr(text, 'O') ? " (objects are pickles, which run code)" : "");
    npy->type.kind = text[1];
    npy->type.bytes = (unsigned char)(text[2] - '0');
    npy->type.big = text[0] == '>';
    return true;
}

// A tuple of sizes: () (3,) (2, 3). (3) is not one.
static bool ttt__npy_shape(ttt__npy *npy) {
    bool comma = true;
    npy->shape = ttt_scalar_shape();
    if (!ttt__npy_take(npy, "(")) return ttt__npy_bad(npy, "a tuple was expected");
    while (!ttt__npy_take(npy, ")")) {
        if (!comma) return ttt__npy_bad(npy, "a comma or ) was expected");
        if (npy->shape.rank == TTT_MAX_RANK)
            return ttt__npy_bad(npy, "more than 8 sizes are not supported");
        const char *end = ttt__digits(npy->at, npy->end);
        int64_t size = 0;
        if (end == npy->at || (*npy->at == '0' && end > npy->at + 1))
            return ttt__npy_bad(npy, "a size was expected");
        for (; npy->at < end; npy->at++) {
            if (size > (INT64_MAX - 9) / 10) return ttt__npy_bad(npy, "a size is beyond 64 bits");
            size = size * 10 + (*npy->at - '0');
        }
        npy->shape.dim[npy->shape.rank++] = size;
        comma = ttt__npy_take(npy, ",");
    }
    return npy->shape.rank != 1 || comma || ttt__npy_bad(npy, "one size in () is not a tuple");
}

static bool ttt__npy_order(ttt__npy *npy) {
    npy->fortran = ttt__npy_take(npy, "True");
    return npy->fortran || ttt__npy_take(npy, "False") ||
           ttt__npy_bad(npy, "True or False was expected");
}

static bool ttt__npy_header(ttt__npy *npy) {
    static const char *const keys[3] = { "descr", "fortran_order", "shape" };
    bool seen[3] = { false, false, false }, comma = true;
    char key[16];
    if (!ttt__npy_take(npy, "{")) return ttt__npy_bad(npy, "{ was expected");
    while (!ttt__npy_take(npy, "}")) {
        int k = 0;
        if (!comma || !ttt__npy_string(npy, key) || !ttt__npy_take(npy, ":"))
            return ttt__npy_bad(npy, "a comma or 'key': was expected");
        while (k < 3 && strcmp(key, keys[k]) != 0) k++;
        if (k == 3) return ttt__bad(&npy->f, NULL, "the header's key '%s' is not known", key);
        if (seen[k]) return ttt__bad(&npy->f, NULL, "the header's key '%s' occurs twice", key);
        seen[k] = true;
        ttt__npy_take(npy, "");  // blanks
        if (!(k == 0 ? ttt__npy_descr(npy) : k == 1 ? ttt__npy_order(npy) : ttt__npy_shape(npy)))
            return false;
        comma = ttt__npy_take(npy, ",");
    }
    for (int k = 0; k < 3; k++)
        if (!seen[k]) return ttt__bad(&npy->f, NULL, "the header lacks '%s'", keys[k]);
    ttt__npy_take(npy, "");
    return npy->at == npy->end || ttt__npy_bad(npy, "something follows }");
}

// Everything before the data.
static bool ttt__npy_start(ttt__npy *npy) {
    unsigned char start[12];
    int wide;
    if (npy->f.size < 10)
        return ttt__bad(&npy->f, NULL, "%d bytes: too short for an .npy file", (int)npy->f.size);
    if (!ttt__read(&npy->f, start, 10)) return false;
    if (memcmp(start, "\x93NUMPY", 6) != 0)
        return ttt__bad(&npy->f, NULL, "does not begin like an .npy file");
    if (start[6] < 1 || start[6] > 3 || start[7] != 0)
        return ttt__bad(&npy->f, NULL, "version %d.%d of the format is not known", start[6],
                        start[7]);
    wide = start[6] == 1 ? 2 : 4;
    if (wide == 4 && npy->f.size < 12)
        return ttt__bad(&npy->f, NULL, "ends in the length of its header");
    if (wide == 4 && !ttt__read(&npy->f, start + 10, 2)) return false;
    int64_t length = (int64_t)ttt__bytes(start + 8, wide), follow = npy->f.size - 8 - wide;
    if (length > follow || length > TTT__NPY_HEADER)
        return ttt__bad(&npy->f, NULL, "a header of %lld bytes; %lld follow, and %d is the limit",
                        (long long)length, (long long)follow, TTT__NPY_HEADER);
    char *text = (char *)ttt__arena_alloc(npy->f.ctx, &npy->f.ctx->scratch, (size_t)length);
    if (!text || !ttt__read(&npy->f, text, (size_t)length)) return false;
    npy->begin = npy->at = text;
    npy->end = text + length;
    npy->data = follow - length;
    return true;
}

static ttt_tensor *ttt__npy_read(ttt__npy *npy) {
    ttt_text text;
    if (!ttt__npy_start(npy) || !ttt__npy_header(npy)) return NULL;
    int64_t size = ttt_shape_size(npy->shape);
    if (size < 0 || size > INT64_MAX / npy->type.bytes || size * npy->type.bytes != npy->data) {
        ttt__bad(&npy->f, NULL, "shape %s of elements of %d bytes, but %lld bytes of data",
                 ttt_shape_text(npy->shape, text), npy->type.bytes, (long long)npy->data);
        return NULL;
    }
    ttt_tensor *tensor =
        ttt__tensor(npy->f.ctx, npy->shape, ttt__dtype_of(npy->type), false, NULL);
    if (!tensor) return NULL;
    void *elements = ttt__elements(tensor);
    ttt_dtype dtype =
        ttt__read_elements(&npy->f, npy->type, npy->shape, npy->fortran, elements);
    ttt__set_elements(tensor, dtype, elements);
    return npy->f.ctx->result ? NULL : tensor;
}

ttt_result ttt_npy_read(ttt_ctx *ctx, const char *path, ttt_tensor **out) {
    ttt_mark step = ttt_mark_get(ctx), scratch = ttt__arena_mark(&ctx->scratch);
    ttt__npy npy;
    memset(&npy, 0, sizeof npy);
    if (out) *out = &ctx->empty;
    if (!TTT__GIVEN("npy_read", out) || !ttt__file_open(ctx, path, &npy.f)) return ctx->result;
    ttt_tensor *tensor = ttt__npy_read(&npy);
    ttt__file_close(&npy.f);
    ttt__arena_release(&ctx->scratch, scratch);
    if (tensor) *out = tensor;
    else ttt_mark_release(ctx, step);
    return ctx->result;
}

ttt_result ttt_npy_write(ttt_ctx *ctx, const char *path, const ttt_tensor *tensor) {
    char text[512] = "\x93NUMPY\1";  // the next byte, 0, is the minor version
    size_t n = 10;
    ttt_file_writer w;
    if (TTT__GIVEN("npy_write", path) && !ttt__alive(ctx, tensor))
        ttt__not_living(ctx, path, tensor, "the tensor");
    if (!ctx->result && tensor->bf16)
        ttt__refuse(ctx, TTT_ERR_ARGUMENT, path, ".npy has no bfloat16; ttt_cast makes it real");
    if (ctx->result) return ctx->result;
    ttt__type type = ttt__written_type(tensor, false);
    n += (size_t)snprintf(text + n, sizeof text - n,
                          "{'descr': '%c%c%d', 'fortran_order': False, 'shape': (",
                          type.bytes > 1 ? '<' : '|', type.kind, type.bytes);
    for (int i = 0; i < tensor->shape.rank; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, i ? " %lld," : "%lld,",
                              (long long)tensor->shape.dim[i]);
    n += (size_t)snprintf(text + n, sizeof text - n, "), }");
    while (n % 64 != 63) text[n++] = ' ';
    text[n++] = '\n';
    ttt__put_bytes((unsigned char *)text + 8, n - 10, 2);
    if (!ttt_file_begin(ctx, &w, path)) return ctx->result;
    return ttt_file_finish(ctx, &w,
                           ttt_file_put(&w, text, n) && ttt__write_tensor(ctx, &w, tensor, false));
}
#endif  // TTT_NO_STDIO

#ifndef TTT_NO_IMAGES
// ---- GZIP ---------------------------------------------------------------------------------------

// Deflate (RFC 1951) is Huffman codes for bytes and for "copy `length` bytes from `distance` back".
// The output itself is the window that copies reach into, so nothing but the code tables is kept.

#define TTT__HUFFMAN_MAX_BITS 15  // longest code of deflate
#define TTT__HUFFMAN_FAST_BITS 10  // codes up to this long are decoded by one look-up
#define TTT__HUFFMAN_SYMBOLS 288  // largest alphabet

// A Huffman code. Canonical: codes of one length are consecutive numbers, given in symbol order,
// and shorter codes come first; so the lengths alone define it (RFC 1951, 3.2.2).
typedef struct {
    uint16_t count[TTT__HUFFMAN_MAX_BITS + 1];   // codes of each length
    uint16_t symbol[TTT__HUFFMAN_SYMBOLS];       // symbols in the order of their codes
    uint16_t fast[1 << TTT__HUFFMAN_FAST_BITS];  // next bits -> 16 symbol + length; 0: longer
} ttt__huffman;

typedef struct {
    const uint8_t *in;  // the gzip file
    size_t in_size, in_used;
    uint64_t bits;  // taken from `in` but not used, the next one lowest
    int bit_count;
    uint8_t *out;
    size_t limit, size;  // bytes that may be written, and that were
    size_t start;        // where the output of the current member begins
    ttt__huffman literal, distance;
    bool fixed;          // the two codes are those of block type 1
    const char *problem;  // what stopped it
    ttt_result result;
} ttt__inflate;

// Inner functions record what stopped them, and return false, or -1 in the place of a number.
static bool ttt__inflate_stop(ttt__inflate *stream, ttt_result result, const char *problem) {
    stream->result = result;
    stream->problem = problem;
    return false;
}

static bool ttt__inflate_bad(ttt__inflate *stream, const char *problem) {
    return ttt__inflate_stop(stream, TTT_ERR_FORMAT, problem);
}

static bool ttt__inflate_cut(ttt__inflate *stream) {
    return ttt__inflate_bad(stream, "the file ends in the middle");
}

// -- bits and bytes

// Tops the bit buffer up to 57 bits or more: enough for a length, a distance and their extra bits.
static void ttt__inflate_refill(ttt__inflate *stream) {
    while (stream->bit_count <= 56 && stream->in_used < stream->in_size) {
        stream->bits |= (uint64_t)stream->in[stream->in_used++] << stream->bit_count;
        stream->bit_count += 8;
    }
}

static void ttt__inflate_drop(ttt__inflate *stream, int n) {
    stream->bits >>= n;
    stream->bit_count -= n;
}

// The next n <= 16 bits as a number, lowest bit first.
static int ttt__inflate_bits(ttt__inflate *stream, int n) {
    if (stream->bit_count < n) ttt__inflate_refill(stream);
    if (stream->bit_count < n) return ttt__inflate_cut(stream), -1;
    int value = (int)(stream->bits & ((1u << n) - 1));
    ttt__inflate_drop(stream, n);
    return value;
}

// Skips to a byte boundary and hands whole unused bytes back to the input.
static void ttt__inflate_align(ttt__inflate *stream) {
    stream->in_used -= (size_t)(stream->bit_count / 8);
    stream->bits = 0;
    stream->bit_count = 0;
}

// Skips n whole bytes, which the caller then reads where they are.
static bool ttt__inflate_skip(ttt__inflate *stream, size_t n) {
    if (stream->in_size - stream->in_used < n) return ttt__inflate_cut(stream);
    stream->in_used += n;
    return true;
}

// A little-endian number of n bytes.
static uint32_t ttt__inflate_number(const uint8_t *p, int n) {
    uint32_t value = 0;
    for (int i = 0; i < n; i++) value |= (uint32_t)p[i] << (8 * i);
    return value;
}

// -- Huffman codes

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
    for (; pattern < 1u << TTT__HUFFMAN_FAST_BITS; pattern += 1u << length)
        h->fast[pattern] = (uint16_t)(symbol * 16 + length);
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
static int ttt__huffman_decode_long(ttt__inflate *stream, const ttt__huffman *h) {
    int code = 0, first = 0, place = 0;  // first: lowest code of this length, place: its symbol
    for (int length = 1; length <= TTT__HUFFMAN_MAX_BITS; length++) {
        if (length > stream->bit_count) return ttt__inflate_cut(stream), -1;
        code = code * 2 + (int)((stream->bits >> (length - 1)) & 1);
        if (code - first < h->count[length]) {
            ttt__inflate_drop(stream, length);
            return h->symbol[place + code - first];
        }
        place += h->count[length];
        first = (first + h->count[length]) * 2;
    }
    return ttt__inflate_bad(stream, "bits that are not a Huffman code"), -1;
}

static int ttt__huffman_decode(ttt__inflate *stream, const ttt__huffman *h) {
    if (stream->bit_count < TTT__HUFFMAN_MAX_BITS) ttt__inflate_refill(stream);
    int entry = h->fast[stream->bits & ((1u << TTT__HUFFMAN_FAST_BITS) - 1)];
    if (entry == 0) return ttt__huffman_decode_long(stream, h);
    if (entry % 16 > stream->bit_count) return ttt__inflate_cut(stream), -1;
    ttt__inflate_drop(stream, entry % 16);
    return entry / 16;
}

// -- the three kinds of block

// Appends n bytes; both kinds of source may overlap what is being written.
static bool ttt__inflate_copy(ttt__inflate *stream, const uint8_t *from, size_t n) {
    size_t room = stream->limit - stream->size;
    size_t fits = n < room ? n : room;
    uint8_t *to = stream->out + stream->size;
    for (size_t i = 0; i < fits; i++) to[i] = from[i];
    stream->size += fits;
    if (fits < n)
        return ttt__inflate_stop(stream, TTT_ERR_TOO_BIG, "inflates to more than the limit");
    return true;
}

static bool ttt__inflate_stored(ttt__inflate *stream) {
    ttt__inflate_align(stream);
    const uint8_t *p = stream->in + stream->in_used;
    if (!ttt__inflate_skip(stream, 4)) return false;
    uint32_t length = ttt__inflate_number(p, 2), check = ttt__inflate_number(p + 2, 2);
    if ((length ^ check) != 0xFFFF)
        return ttt__inflate_bad(stream, "a stored block whose length fails its check");
    if (!ttt__inflate_skip(stream, length)) return false;
    return ttt__inflate_copy(stream, p + 4, length);
}

// Lengths and distances are a base plus some extra bits (RFC 1951, 3.2.5).
static int ttt__inflate_extended(ttt__inflate *stream, int base, int extra_bits) {
    int extra = ttt__inflate_bits(stream, extra_bits);
    return extra < 0 ? -1 : base + extra;
}

static bool ttt__inflate_match(ttt__inflate *stream, int length_symbol) {
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
    if (k > 28) return ttt__inflate_bad(stream, "a length symbol above 285");
    int length = ttt__inflate_extended(stream, length_base[k], length_extra[k]);
    if (length < 0) return false;
    int d = ttt__huffman_decode(stream, &stream->distance);
    if (d < 0) return false;
    if (d > 29) return ttt__inflate_bad(stream, "a distance symbol above 29");
    int distance = ttt__inflate_extended(stream, distance_base[d], d < 2 ? 0 : d / 2 - 1);
    if (distance < 0) return false;
    if ((size_t)distance > stream->size - stream->start)
        return ttt__inflate_bad(stream, "a distance to before the first byte");
    return ttt__inflate_copy(stream, stream->out + stream->size - distance, (size_t)length);
}

// Bytes and matches until the end of the block.
static bool ttt__inflate_symbols(ttt__inflate *stream) {
    for (;;) {
        int symbol = ttt__huffman_decode(stream, &stream->literal);
        if (symbol < 0) return false;
        if (symbol == 256) return true;
        if (symbol > 256) {
            if (!ttt__inflate_match(stream, symbol)) return false;
        } else {
            uint8_t byte = (uint8_t)symbol;
            if (!ttt__inflate_copy(stream, &byte, 1)) return false;
        }
    }
}

// The codes of block type 1 (RFC 1951, 3.2.6). They stay until a type 2 block brings others, so
// that many tiny blocks cost little.
static bool ttt__inflate_fixed(ttt__inflate *stream) {
    uint8_t lengths[288];
    if (!stream->fixed) {
        memset(lengths, 8, 288);
        memset(lengths + 144, 9, 112);
        memset(lengths + 256, 7, 24);
        ttt__huffman_build(&stream->literal, lengths, 288);
        memset(lengths, 5, 32);
        ttt__huffman_build(&stream->distance, lengths, 32);
        stream->fixed = true;
    }
    return ttt__inflate_symbols(stream);
}

// lengths (n) of a type 2 block: themselves Huffman coded, with repeats (RFC 1951, 3.2.7).
static bool ttt__inflate_lengths(ttt__inflate *stream, const ttt__huffman *h, uint8_t *lengths,
                                 int n) {
    for (int i = 0; i < n;) {
        int symbol = ttt__huffman_decode(stream, h);
        if (symbol < 0) return false;
        if (symbol < 16) {
            lengths[i++] = (uint8_t)symbol;
            continue;
        }
        if (symbol == 16 && i == 0)
            return ttt__inflate_bad(stream, "a repeat before the first code length");
        uint8_t value = symbol == 16 ? lengths[i - 1] : 0;
        int repeat = symbol == 16   ? ttt__inflate_extended(stream, 3, 2)
                     : symbol == 17 ? ttt__inflate_extended(stream, 3, 3)
                                    : ttt__inflate_extended(stream, 11, 7);
        if (repeat < 0) return false;
        if (repeat > n - i) return ttt__inflate_bad(stream, "too many code lengths");
        while (repeat-- > 0) lengths[i++] = value;
    }
    return true;
}

// An incomplete code leaves bit patterns without meaning. Like zlib we accept only the one that
// real compressors write: at most one distance (or only the end-of-block symbol), of length 1.
static bool ttt__inflate_code(ttt__inflate *stream, ttt__huffman *code, const uint8_t *lengths,
                              int n) {
    int unused = ttt__huffman_build(code, lengths, n), codes = 0;
    for (int i = 0; i < n; i++) codes += lengths[i] != 0;
    if (unused < 0) return ttt__inflate_bad(stream, "an over-subscribed Huffman code");
    if (unused > 0 && codes != code->count[1])
        return ttt__inflate_bad(stream, "an incomplete Huffman code");
    return true;
}

static bool ttt__inflate_dynamic(ttt__inflate *stream) {
    static const uint8_t order[19] = { 16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                       11, 4,  12, 3, 13, 2, 14, 1, 15 };
    uint8_t lengths[286 + 30] = { 0 };
    int literals = ttt__inflate_extended(stream, 257, 5);
    int distances = ttt__inflate_extended(stream, 1, 5);
    int lengths_coded = ttt__inflate_extended(stream, 4, 4);
    if (literals < 0 || distances < 0 || lengths_coded < 0) return false;
    if (literals > 286 || distances > 30)
        return ttt__inflate_bad(stream, "more than 286 literals or 30 distances");
    for (int i = 0; i < lengths_coded; i++) {
        int length = ttt__inflate_bits(stream, 3);
        if (length < 0) return false;
        lengths[order[i]] = (uint8_t)length;
    }
    stream->fixed = false;
    if (ttt__huffman_build(&stream->literal, lengths, 19) != 0)
        return ttt__inflate_bad(stream, "the code of code lengths is not complete");
    memset(lengths, 0, sizeof lengths);
    if (!ttt__inflate_lengths(stream, &stream->literal, lengths, literals + distances))
        return false;
    if (lengths[256] == 0) return ttt__inflate_bad(stream, "no end-of-block code");
    if (!ttt__inflate_code(stream, &stream->distance, lengths + literals, distances)) return false;
    if (!ttt__inflate_code(stream, &stream->literal, lengths, literals)) return false;
    return ttt__inflate_symbols(stream);
}

// One deflate stream: blocks until the one marked as the last.
static bool ttt__inflate_stream(ttt__inflate *stream) {
    for (int last = 0; !last;) {
        last = ttt__inflate_bits(stream, 1);
        int type = last < 0 ? -1 : ttt__inflate_bits(stream, 2);
        if (type < 0) return false;
        bool good = type == 0   ? ttt__inflate_stored(stream)
                    : type == 1 ? ttt__inflate_fixed(stream)
                    : type == 2 ? ttt__inflate_dynamic(stream)
                                : ttt__inflate_bad(stream, "a block of type 3");
        if (!good) return false;
    }
    ttt__inflate_align(stream);
    return true;
}

// -- gzip around deflate (RFC 1952)

// CRC-32 of n bytes: the remainder modulo the polynomial 0xEDB88320, bits reversed (RFC 1952, 8).
static uint32_t ttt__crc32(const uint8_t *bytes, size_t n) {
    uint32_t table[256], crc = 0xFFFFFFFFu;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = (table[i] >> 1) ^ (table[i] & 1 ? 0xEDB88320u : 0);
    }
    for (size_t i = 0; i < n; i++) crc = (crc >> 8) ^ table[(crc ^ bytes[i]) & 255];
    return ~crc;
}

static bool ttt__gzip_skip_text(ttt__inflate *stream) {
    size_t left = stream->in_size - stream->in_used;
    const uint8_t *end = (const uint8_t *)memchr(stream->in + stream->in_used, 0, left);
    return ttt__inflate_skip(stream,
                             end ? (size_t)(end - stream->in) - stream->in_used + 1 : left + 1);
}

static bool ttt__gzip_header(ttt__inflate *stream) {
    enum { HCRC = 2, EXTRA = 4, NAME = 8, COMMENT = 16, RESERVED = 0xE0 };
    const uint8_t *p = stream->in + stream->in_used;
    if (!ttt__inflate_skip(stream, 10)) return false;
    if (p[0] != 0x1F || p[1] != 0x8B)
        return ttt__inflate_bad(stream, "a member that does not begin with 1f 8b");
    if (p[2] != 8) return ttt__inflate_bad(stream, "a method other than 8");
    if (p[3] & RESERVED) return ttt__inflate_bad(stream, "a reserved flag");
    if (p[3] & EXTRA) {
        const uint8_t *length = stream->in + stream->in_used;
        if (!ttt__inflate_skip(stream, 2)) return false;
        if (!ttt__inflate_skip(stream, ttt__inflate_number(length, 2))) return false;
    }
    if ((p[3] & NAME) && !ttt__gzip_skip_text(stream)) return false;
    if ((p[3] & COMMENT) && !ttt__gzip_skip_text(stream)) return false;
    if (p[3] & HCRC) {
        const uint8_t *check = stream->in + stream->in_used;
        if (!ttt__inflate_skip(stream, 2)) return false;
        if ((ttt__crc32(p, (size_t)(check - p)) & 0xFFFF) != ttt__inflate_number(check, 2))
            return ttt__inflate_bad(stream, "a header that fails its checksum");
    }
    return true;
}

static bool ttt__gzip_trailer(ttt__inflate *stream) {
    const uint8_t *p = stream->in + stream->in_used, *made = stream->out + stream->start;
    size_t size = stream->size - stream->start;
    if (!ttt__inflate_skip(stream, 8)) return false;
    if (ttt__crc32(made, size) != ttt__inflate_number(p, 4))
        return ttt__inflate_bad(stream, "data that fail their CRC-32");
    if ((uint32_t)(size & 0xFFFFFFFFu) != ttt__inflate_number(p + 4, 4))
        return ttt__inflate_bad(stream, "a size other than the one stored");
    return true;
}

// Inflates a whole gzip file. With TOO_BIG the first `limit` bytes are in `out`.
static ttt_result ttt__gzip_run(ttt__inflate *stream, const void *bytes, size_t n, uint8_t *out,
                                size_t limit) {
    memset(stream, 0, sizeof *stream);
    stream->in = (const uint8_t *)bytes;
    stream->in_size = n;
    stream->out = out;
    stream->limit = limit;
    do {
        stream->start = stream->size;
        if (!ttt__gzip_header(stream) || !ttt__inflate_stream(stream) || !ttt__gzip_trailer(stream))
            return stream->result;
    } while (stream->in_used < stream->in_size);
    return TTT_OK;
}

static bool ttt__gzip_fail(ttt_ctx *ctx, const ttt__inflate *stream, const char *name) {
    return ttt__refuse(ctx, stream->result, name, "gzip: %s (near byte %lld of %lld)",
                       stream->problem, (long long)stream->in_used, (long long)stream->in_size);
}

ttt_result ttt_gzip_inflate(ttt_ctx *ctx, const char *name, const void *bytes, size_t n,
                            uint8_t *out, size_t capacity, size_t *size) {
    ttt__inflate stream;
    if (size) *size = 0;
    if (!TTT__GIVEN("ttt_gzip_inflate", bytes) || !TTT__GIVEN("ttt_gzip_inflate", out) ||
        !TTT__GIVEN("ttt_gzip_inflate", size))
        return ctx->result;
    if (ttt__gzip_run(&stream, bytes, n, out, capacity) == TTT_OK) *size = stream.size;
    else ttt__gzip_fail(ctx, &stream, name ? name : "gzip in memory");
    return ctx->result;
}

// ---- IDX ----------------------------------------------------------------------------------------
#define TTT__IDX_HEADER_MAX (4 + 4 * TTT_MAX_RANK)

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

// Type and shape; the bytes of the header itself, 0 after an error.
static size_t ttt__idx_start(ttt_ctx *ctx, const char *name, const uint8_t *p, size_t n,
                             ttt_idx *out) {
    if (n < 4) {
        ttt__refuse(ctx, TTT_ERR_FORMAT, name, "%d bytes, an IDX header has 8 or more", (int)n);
        return 0;
    }
    int type = p[2], rank = p[3];
    size_t header = 4 + 4 * (size_t)rank;
    if (p[0] || p[1] || !ttt__idx_width(type) || rank < 1 || rank > TTT_MAX_RANK) {
        ttt__refuse(ctx, TTT_ERR_FORMAT, name,
                    "begins with %02x %02x %02x %02x, IDX expects 00 00, type 08, 09, 0b, 0c, 0d "
                    "or 0e, rank 01 to %02x",
                    p[0], p[1], p[2], p[3], TTT_MAX_RANK);
        return 0;
    }
    if (n < header) {
        ttt__refuse(ctx, TTT_ERR_FORMAT, name, "%d bytes, an IDX header of rank %d has %d", (int)n,
                    rank, (int)header);
        return 0;
    }
    out->type = type;
    out->shape.rank = rank;
    for (int i = 0; i < rank; i++) {
        const uint8_t *size = p + 4 + 4 * i;
        out->shape.dim[i] = (int64_t)size[0] << 24 | size[1] << 16 | size[2] << 8 | size[3];
    }
    return header;
}

// Fills all of out but its data. *total = bytes that the whole file must have.
static bool ttt__idx_header(ttt_ctx *ctx, const char *name, const uint8_t *bytes, size_t n,
                            ttt_idx *out, size_t *total) {
    ttt_text shape;
    size_t header = ttt__idx_start(ctx, name, bytes, n, out);
    if (!header) return false;
    size_t width = ttt__idx_width(out->type);
    out->count = ttt_shape_size(out->shape);
    if (out->count < 0 || (uint64_t)out->count > (uint64_t)TTT_IMAGES_MAX_BYTES / width)
        return ttt__refuse(ctx, TTT_ERR_TOO_BIG, name,
                           "declares %s elements of %d bytes, more than TTT_IMAGES_MAX_BYTES = "
                           "%lld allows",
                           ttt_shape_text(out->shape, shape), (int)width,
                           (long long)TTT_IMAGES_MAX_BYTES);
    *total = header + (size_t)out->count * width;
    return true;
}

static bool ttt__idx_size_fail(ttt_ctx *ctx, const char *name, const ttt_idx *idx, size_t expected,
                               const char *holds, size_t found) {
    ttt_text shape;
    return ttt__refuse(ctx, TTT_ERR_FORMAT, name, "%lld bytes expected from its header %s, %s %lld",
                       (long long)expected, ttt_shape_text(idx->shape, shape), holds,
                       (long long)found);
}

static size_t ttt__idx_bytes(const ttt_idx *idx) {
    return (size_t)idx->count * ttt__idx_width(idx->type);
}

// From the order of the file, big-endian, to that of the machine.
static void ttt__idx_to_host(ttt_idx *idx) {
    const uint16_t one = 1;
    bool little = *(const uint8_t *)&one == 1;
    if (little)
        ttt__reverse_each((uint8_t *)idx->data, idx->count, (int)ttt__idx_width(idx->type));
}

static bool ttt__idx_from_plain(ttt_ctx *ctx, ttt__arena *arena, const char *name,
                                const uint8_t *bytes, size_t n, ttt_idx *out) {
    size_t total;
    if (!ttt__idx_header(ctx, name, bytes, n, out, &total)) return false;
    if (n != total) return ttt__idx_size_fail(ctx, name, out, total, "file has", n);
    size_t size = ttt__idx_bytes(out);
    out->data = ttt__arena_alloc(ctx, arena, size);
    if (!out->data) return false;
    memcpy(out->data, bytes + (n - size), size);
    ttt__idx_to_host(out);
    return true;
}

// Inflates the header alone to learn the size, then exactly that much: a small file that holds far
// too much (a "bomb") costs neither time nor memory. One that declares far too much gets no more
// than TTT__IDX_TRIAL bytes before it has filled them.
#define TTT__IDX_TRIAL ((size_t)48 << 20)
static bool ttt__idx_from_gzip(ttt_ctx *ctx, ttt__arena *arena, const char *name,
                               const uint8_t *bytes, size_t n, ttt_idx *out) {
    uint8_t header[TTT__IDX_HEADER_MAX], *plain = NULL;
    ttt__inflate stream;
    size_t total, room = 0;
    ttt_result r = ttt__gzip_run(&stream, bytes, n, header, sizeof header);
    if (r != TTT_OK && r != TTT_ERR_TOO_BIG) return ttt__gzip_fail(ctx, &stream, name);
    if (!ttt__idx_header(ctx, name, header, stream.size, out, &total)) return false;
    if (total / 1032 > n)  // two bits of deflate give 258 bytes at most
        return ttt__idx_size_fail(ctx, name, out, total, "gzip holds at most", n * 1032);
    for (r = TTT_ERR_TOO_BIG; r == TTT_ERR_TOO_BIG && room < total;) {
        ttt_mark mark = ttt__arena_mark(arena);
        room = room || total < TTT__IDX_TRIAL ? total : TTT__IDX_TRIAL;
        plain = (uint8_t *)ttt__arena_alloc(ctx, arena, room);
        if (!plain) return false;
        r = ttt__gzip_run(&stream, bytes, n, plain, room);
        if (r == TTT_ERR_TOO_BIG) ttt__arena_release(arena, mark);
    }
    if (r == TTT_ERR_TOO_BIG)
        return ttt__idx_size_fail(ctx, name, out, total, "gzip holds at least", total + 1);
    if (r != TTT_OK) return ttt__gzip_fail(ctx, &stream, name);
    if (stream.size < total)
        return ttt__idx_size_fail(ctx, name, out, total, "gzip holds", stream.size);
    size_t size = ttt__idx_bytes(out);
    out->data = memmove(plain, plain + (total - size), size);
    ttt__idx_to_host(out);
    return true;
}

static bool ttt__idx_is_gzip(const uint8_t *p, size_t n) {  // an IDX file begins with 00 00
    return n >= 2 && p[0] == 0x1F && p[1] == 0x8B;
}

ttt_result ttt_idx_parse(ttt_ctx *ctx, const char *name, const void *bytes, size_t n,
                         ttt_idx *out) {
    const uint8_t *p = (const uint8_t *)bytes;
    if (out) memset(out, 0, sizeof *out);
    if (!TTT__GIVEN("ttt_idx_parse", bytes) || !TTT__GIVEN("ttt_idx_parse", out))
        return ctx->result;
    if (!name) name = "IDX in memory";
    ttt_mark step = ttt__arena_mark(&ctx->step);
    ctx->file = name;
    bool good = ttt__idx_is_gzip(p, n) ? ttt__idx_from_gzip(ctx, &ctx->step, name, p, n, out)
                                       : ttt__idx_from_plain(ctx, &ctx->step, name, p, n, out);
    ctx->file = NULL;
    if (good) return TTT_OK;
    ttt__arena_release(&ctx->step, step);
    memset(out, 0, sizeof *out);
    return ctx->result;
}

#ifndef TTT_NO_STDIO
// A plain file, of which the first n bytes were read: the elements are read to where they stay.
static bool ttt__idx_from_file(ttt__file *f, ttt__arena *arena, const uint8_t *start, size_t n,
                               ttt_idx *out) {
    size_t total;
    if (!ttt__idx_header(f->ctx, f->path, start, n, out, &total)) return false;
    if (f->size != (int64_t)total)
        return ttt__idx_size_fail(f->ctx, f->path, out, total, "file has", (size_t)f->size);
    size_t size = ttt__idx_bytes(out), begin = total - size;
    out->data = ttt__arena_alloc(f->ctx, arena, size);
    if (!out->data) return false;
    if (TTT__SEEK(f->stream, begin, SEEK_SET) != 0)
        return ttt__file_fail(f->ctx, f->path, "cannot be read", errno);
    if (!ttt__read(f, out->data, size)) return false;
    ttt__idx_to_host(out);
    return true;
}

// Reads a file, with the elements in the given arena; what else it takes is released.
static bool ttt__idx_read(ttt_ctx *ctx, ttt__arena *arena, const char *path, ttt_idx *out) {
    uint8_t start[TTT__IDX_HEADER_MAX];
    ttt_mark mark = ttt__arena_mark(arena), scratch = ttt__arena_mark(&ctx->scratch);
    ttt__file f;
    if (!ttt__file_open(ctx, path, &f)) return false;
    size_t n = (size_t)TTT__MIN(f.size, (int64_t)sizeof start);
    bool good = ttt__file_within(&f, TTT_IMAGES_MAX_BYTES) && ttt__read(&f, start, n);
    bool gzip = good && ttt__idx_is_gzip(start, n);
    if (good && !gzip) good = ttt__idx_from_file(&f, arena, start, n, out);
    ttt__file_close(&f);
    if (gzip) {
        char *bytes = ttt__file_bytes(ctx, &ctx->scratch, path, TTT_IMAGES_MAX_BYTES, &n);
        ctx->file = path;
        good = bytes && ttt__idx_from_gzip(ctx, arena, path, (const uint8_t *)bytes, n, out);
        ctx->file = NULL;
    }
    ttt__arena_release(&ctx->scratch, scratch);
    if (good) return true;
    ttt__arena_release(arena, mark);
    memset(out, 0, sizeof *out);
    return false;
}

ttt_result ttt_idx_read(ttt_ctx *ctx, const char *path, ttt_idx *out) {
    if (out) memset(out, 0, sizeof *out);
    if (TTT__GIVEN("ttt_idx_read", path) && TTT__GIVEN("ttt_idx_read", out))
        ttt__idx_read(ctx, &ctx->step, path, out);
    return ctx->result;
}
#endif

// ---- IMAGE SETS ---------------------------------------------------------------------------------
// Fills the sizes, with room for the labels and, unless they are given, for the pixels.
static bool ttt__images_alloc(ttt_ctx *ctx, int64_t count, int height, int width, int channels,
                              int classes, uint8_t *given, ttt_images *out) {
    uint64_t pixels = (uint64_t)count * (uint64_t)height * (uint64_t)width * (uint64_t)channels;
    uint64_t labels = (uint64_t)count * sizeof *out->labels;
    if (pixels > TTT_IMAGES_MAX_BYTES || labels > TTT_IMAGES_MAX_BYTES) {
        ttt_fail(ctx, TTT_ERR_TOO_BIG,
                 "image set (%lld,%d,%d,%d): pixels or labels larger than "
                 "TTT_IMAGES_MAX_BYTES = %lld",
                 (long long)count, height, width, channels, (long long)TTT_IMAGES_MAX_BYTES);
        return false;
    }
    uint8_t *p = given ? given : (uint8_t *)ttt_alloc(ctx, pixels, true);
    int32_t *l = (int32_t *)ttt_alloc(ctx, labels, true);
    if (!p || !l) return false;
    ttt_images made = { count, height, width, channels, classes, p, l };
    *out = made;
    return true;
}

static bool ttt__images_check_idx(ttt_ctx *ctx, const char *pixels_name, const ttt_idx *pixels,
                                  const char *labels_name, const ttt_idx *labels) {
    ttt_text shape;
    if (pixels->type != TTT_IDX_U8 || pixels->shape.rank != 3 || pixels->count == 0)
        return ttt__refuse(ctx, TTT_ERR_FORMAT, pixels_name,
                           "type %02x, shape %s; expected images: type 08, shape "
                           "(N,height,width), none of them 0",
                           (unsigned)pixels->type, ttt_shape_text(pixels->shape, shape));
    if (labels->type != TTT_IDX_U8 || labels->shape.rank != 1)
        return ttt__refuse(ctx, TTT_ERR_FORMAT, labels_name,
                           "type %02x, shape %s; expected labels: type 08, shape (N)",
                           (unsigned)labels->type, ttt_shape_text(labels->shape, shape));
    if (labels->shape.dim[0] != pixels->shape.dim[0])
        return ttt__refuse(ctx, TTT_ERR_FORMAT, labels_name,
                           "%lld labels for the %lld images of %.200s",
                           (long long)labels->shape.dim[0], (long long)pixels->shape.dim[0],
                           pixels_name);
    return true;
}

static bool ttt__images_check_labels(ttt_ctx *ctx, const char *name, const ttt_idx *labels,
                                     int classes) {
    const uint8_t *label = (const uint8_t *)labels->data;
    for (int64_t i = 0; i < labels->count; i++)
        if (label[i] >= classes)
            return ttt__refuse(ctx, TTT_ERR_FORMAT, name,
                               "label %d of image %lld, expected 0 to %d", label[i], (long long)i,
                               classes - 1);
    return true;
}

// The set of two arrays: with `own`, the pixels stay where they are, else they are copied.
static bool ttt__images_of_idx(ttt_ctx *ctx, const char *pixels_name, const ttt_idx *pixels,
                               const char *labels_name, const ttt_idx *labels, int classes,
                               bool own, ttt_images *out) {
    const int64_t *size = pixels->shape.dim;
    if (classes < 1) {
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "ttt_images_from_idx: %d classes, expected 1 or more",
                 classes);
        return false;
    }
    if (!ttt__images_check_idx(ctx, pixels_name, pixels, labels_name, labels) ||
        !ttt__images_check_labels(ctx, labels_name, labels, classes) ||
        !ttt__images_alloc(ctx, size[0], (int)size[1], (int)size[2], 1, classes,
                           own ? (uint8_t *)pixels->data : NULL, out))
        return false;
    if (!own) memcpy(out->pixels, pixels->data, (size_t)pixels->count);
    for (int64_t i = 0; i < out->count; i++) out->labels[i] = ((const uint8_t *)labels->data)[i];
    return true;
}

ttt_result ttt_images_from_idx(ttt_ctx *ctx, const char *pixels_name, const ttt_idx *pixels,
                               const char *labels_name, const ttt_idx *labels, int classes,
                               ttt_images *out) {
    const char *who = "ttt_images_from_idx";
    if (out) memset(out, 0, sizeof *out);
    if (TTT__GIVEN(who, pixels) && TTT__GIVEN(who, pixels->data) && TTT__GIVEN(who, labels) &&
        TTT__GIVEN(who, labels->data) && TTT__GIVEN(who, out))
        ttt__images_of_idx(ctx, pixels_name ? pixels_name : "images", pixels,
                           labels_name ? labels_name : "labels", labels, classes, false, out);
    return ctx->result;
}

#ifndef TTT_NO_STDIO
static const char *const ttt__idx_endings[2] = { "images-idx3-ubyte", "labels-idx1-ubyte" };

// A file that is there and cannot be opened counts: who reads it learns the reason.
static bool ttt__is_there(const char *path) {
    if (!ttt__regular_or_none(path)) return false;
    errno = 0;
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL || (errno != ENOENT && errno != ENOTDIR);
}

// The path <dir>/<split>-<ending>, or the same with .gz if only that is there, in the step arena.
// *found = whether one of them is.
static const char *ttt__idx_path(ttt_ctx *ctx, const char *dir, const char *split,
                                 const char *ending, bool *found) {
    size_t room = strlen(dir) + strlen(split) + strlen(ending) + sizeof "/-.gz";
    char *path = (char *)ttt_alloc(ctx, room, false);
    *found = false;
    if (!path) return NULL;
    int plain = snprintf(path, room, "%s/%s-%s", dir, split, ending);
    *found = ttt__is_there(path);
    if (*found) return path;
    memcpy(path + plain, ".gz", sizeof ".gz");
    *found = ttt__is_there(path);
    if (!*found) path[plain] = 0;
    return path;
}

ttt_result ttt_images_load_idx(ttt_ctx *ctx, const char *dir, const char *split, int classes,
                               ttt_images *out) {
    const char *path[2];
    ttt_idx idx[2];
    if (out) memset(out, 0, sizeof *out);
    if (!TTT__GIVEN("ttt_images_load_idx", dir) || !TTT__GIVEN("ttt_images_load_idx", split) ||
        !TTT__GIVEN("ttt_images_load_idx", out))
        return ctx->result;
    ttt_mark mark = ttt_mark_get(ctx), keep = ttt__arena_mark(&ctx->keep);
    for (int i = 0; i < 2 && !ctx->result; i++) {
        bool found;
        path[i] = ttt__idx_path(ctx, dir, split, ttt__idx_endings[i], &found);
        if (path[i] && !found)
            ttt__refuse(ctx, TTT_ERR_FILE, path[i], "not there, and not with .gz either");
    }
    for (int i = 0; i < 2 && !ctx->result; i++)  // the pixels are read to where they stay
        ttt__idx_read(ctx, i ? &ctx->step : &ctx->keep, path[i], &idx[i]);
    if (!ctx->result)
        ttt__images_of_idx(ctx, path[0], &idx[0], path[1], &idx[1], classes, true, out);
    ttt_mark_release(ctx, mark);
    if (ctx->result) ttt__arena_release(&ctx->keep, keep);
    return ctx->result;
}

const char *ttt_images_missing_idx(ttt_ctx *ctx, const char *dir) {
    static const char *const splits[2] = { "train", "t10k" };
    if (!TTT__GIVEN("ttt_images_missing_idx", dir)) return "";
    for (int i = 0; i < 4; i++) {
        ttt_mark mark = ttt_mark_get(ctx);
        bool found;
        const char *path = ttt__idx_path(ctx, dir, splits[i / 2], ttt__idx_endings[i % 2], &found);
        if (!found) return path ? path : "";
        ttt_mark_release(ctx, mark);
    }
    return NULL;
}
#endif

// `who` is the function that was given the images.
static bool ttt__images_check(ttt_ctx *ctx, const char *who, const ttt_images *m) {
    if (ctx->result) return false;
    if (!m || !m->pixels || !m->labels)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "%s: images, pixels or labels are NULL", who);
    else if (m->count < 1 || m->count > INT32_MAX || m->height < 1 || m->width < 1 ||
             m->channels < 1 || m->channels > TTT_IMAGES_MAX_CHANNELS)
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "%s: images of shape (%lld,%d,%d,%d), expected 1..2^31-1 of at least 1 x 1 with "
                 "1..%d channels",
                 who, (long long)m->count, m->height, m->width, m->channels,
                 TTT_IMAGES_MAX_CHANNELS);
    return !ctx->result;
}

ttt_result ttt_images_measure(ttt_ctx *ctx, const ttt_images *images, ttt_pixel_norm *out) {
    if (out) memset(out, 0, sizeof *out);
    if (!TTT__GIVEN("ttt_images_measure", images) || !TTT__GIVEN("ttt_images_measure", out) ||
        !ttt__images_check(ctx, "ttt_images_measure", images))
        return ctx->result;
    int64_t n = images->count * images->height * images->width;
    for (int k = 0; k < images->channels; k++) {
        uint64_t sum = 0, squares = 0;  // exact
        for (int64_t i = 0; i < n; i++) {
            uint64_t v = images->pixels[i * images->channels + k];
            sum += v;
            squares += v * v;
        }
        double mean = (double)sum / (double)n;
        double variance = (double)squares / (double)n - mean * mean;
        out->mean[k] = (float)(mean / 255);
        out->std[k] = (float)(sqrt(variance > 0 ? variance : 0) / 255);
    }
    return TTT_OK;
}

// ---- DRAWN DIGITS -------------------------------------------------------------------------------
// The first word of the streams that images and batches are drawn from, and what the other two are.
#define TTT__STREAM_ORDER 0x80000001u    // epoch, 0
#define TTT__STREAM_AUGMENT 0x80000002u  // epoch, sample
#define TTT__STREAM_LABEL 0x80000003u    // 0, image / 10
#define TTT__STREAM_IMAGE 0x80000004u    // 0, image

// floor(u32 n / 2^32): 0 .. n-1 (0 if n is 0). No value's probability is off by more than 2^-32.
static uint32_t ttt__below(ttt_rng *rng, uint32_t n) {
    return (uint32_t)(((uint64_t)ttt_rng_u32(rng) * n) >> 32);
}

// order (n) = 0 .. n-1 in random order (Fisher and Yates). Takes n-1 numbers.
static void ttt__shuffle(ttt_rng *rng, int32_t *order, int32_t n) {
    for (int32_t i = 0; i < n; i++) order[i] = i;
    for (int32_t i = n - 1; i > 0; i--) {
        int32_t j = (int32_t)ttt__below(rng, (uint32_t)i + 1);
        int32_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

// A stream from its first number on, read in blocks: Philox makes four numbers at once, and an
// image takes 1,600 of them. Real numbers are made of these in another way than in ttt_tensor.h,
// and that stays, because the bytes of the drawn set are fixed.
typedef struct ttt__draw_rng {
    ttt_rng r;
    uint32_t block[4];
} ttt__draw_rng;

static uint32_t ttt__draw_u32(ttt__draw_rng *d) {
    if (d->r.next % 4 == 0) ttt__rng_block(&d->r, d->block);
    return d->block[d->r.next++ % 4];
}

// k / 2^24 with k = 0 .. 2^24 - 1: in [0,1), every value exact in float.
static float ttt__draw_uniform(ttt__draw_rng *d) {
    return (float)(ttt__draw_u32(d) >> 8) / 16777216.0f;
}

// Mean 0, variance 1 (Box and Muller 1958); u is in (0,1], so that its logarithm is finite.
static float ttt__draw_normal(ttt__draw_rng *d) {
    double u = (ttt__draw_u32(d) + 1.0) / 4294967296.0, v = ttt__draw_u32(d) / 4294967296.0;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586477 * v));
}

#define TTT__DRAW_SIDE 28
#define TTT__DRAW_PIXELS (TTT__DRAW_SIDE * TTT__DRAW_SIDE)
#define TTT__DRAW_JITTER 0.4  // grid units, each way

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

typedef struct ttt__draw_point {
    double x, y;
} ttt__draw_point;

// How the digit lies on the image: point = center + (xx x + xy y, yx x + yy y).
typedef struct ttt__draw_pose {
    double xx, xy, yx, yy;
    ttt__draw_point center;
} ttt__draw_pose;

// Uniform in [-most, most).
static double ttt__draw_offset(ttt__draw_rng *d, double most) {
    return most * (2.0 * ttt__draw_uniform(d) - 1.0);
}

static ttt__draw_pose ttt__draw_random_pose(ttt__draw_rng *d) {
    ttt__draw_pose pose;
    double scale = (12.0 + 7.0 * ttt__draw_uniform(d)) / 9.0;  // 9 grid units are 12-19 px
    double angle = ttt__draw_offset(d, 0.25), shear = ttt__draw_offset(d, 0.2);
    double c = scale * cos(angle), s = scale * sin(angle);
    pose.xx = c;  // rotation times shear times scale
    pose.xy = c * shear - s;
    pose.yx = s;
    pose.yy = s * shear + c;
    pose.center.x = (TTT__DRAW_SIDE - 1) / 2.0 + ttt__draw_offset(d, 3.5);
    pose.center.y = (TTT__DRAW_SIDE - 1) / 2.0 + ttt__draw_offset(d, 3.5);
    return pose;
}

// A jittered corner of a digit, in pixels.
static ttt__draw_point ttt__draw_corner(const char *figures, const ttt__draw_pose *pose,
                                        ttt__draw_rng *d) {
    ttt__draw_point p;
    double x = figures[0] - '0' - 3.0 + ttt__draw_offset(d, TTT__DRAW_JITTER);
    double y = figures[1] - '0' - 4.5 + ttt__draw_offset(d, TTT__DRAW_JITTER);
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
    const double reach = 1.1, last = TTT__DRAW_SIDE - 1;  // beyond the image: no rows or columns
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

static void ttt__draw_digit(double *ink, int digit, ttt__draw_rng *d) {
    ttt__draw_pose pose = ttt__draw_random_pose(d);
    const char *p = ttt__draw_digits[digit];
    ttt__draw_point from = ttt__draw_corner(p, &pose, d);
    for (; p[2]; p += 3) {
        ttt__draw_point to = ttt__draw_corner(p + 3, &pose, d);
        if (p[2] == '-') ttt__draw_stroke(ink, from, to);
        from = to;
    }
}

static void ttt__draw_stray(double *ink, ttt__draw_rng *d) {
    ttt__draw_point a, b;
    double angle = ttt__draw_offset(d, 3.14159265358979323846);
    double length = 4.0 + 5.0 * ttt__draw_uniform(d);
    a.x = TTT__DRAW_SIDE * (double)ttt__draw_uniform(d);
    a.y = TTT__DRAW_SIDE * (double)ttt__draw_uniform(d);
    b.x = a.x + length * cos(angle);
    b.y = a.y + length * sin(angle);
    ttt__draw_stroke(ink, a, b);
}

// The label of image i: its place in a random order of the ten digits, drawn anew for every ten.
static int32_t ttt__draw_label(uint64_t seed, uint32_t i) {
    int32_t order[10];
    ttt_rng rng = ttt_rng_at(seed, TTT__STREAM_LABEL, 0, i / 10);
    ttt__shuffle(&rng, order, 10);
    return order[i % 10];
}

static void ttt__draw_image(uint64_t seed, uint32_t i, int32_t label, uint8_t *pixels) {
    double ink[TTT__DRAW_PIXELS] = { 0 };
    ttt__draw_rng d = { ttt_rng_at(seed, TTT__STREAM_IMAGE, 0, i), { 0, 0, 0, 0 } };
    ttt__draw_digit(ink, label, &d);
    ttt__draw_stray(ink, &d);
    for (int k = 0; k < TTT__DRAW_PIXELS; k++) {
        double v = ttt__draw_clamp(ink[k] + 0.15 * ttt__draw_normal(&d), 0, 1);
        pixels[k] = (uint8_t)(v * 255 + 0.5);
    }
}

ttt_result ttt_images_draw(ttt_ctx *ctx, uint64_t seed, int64_t first, int64_t count,
                           ttt_images *out) {
    const int64_t numbers = (int64_t)1 << 32;
    if (out) memset(out, 0, sizeof *out);
    if (!TTT__GIVEN("ttt_images_draw", out)) return ctx->result;
    if (first < 0 || first >= numbers || count < 1 || count > numbers - first) {
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "ttt_images_draw: first %lld, count %lld; expected first >= 0, count >= 1, "
                 "first + count <= 2^32",
                 (long long)first, (long long)count);
        return ctx->result;
    }
    if (!ttt__images_alloc(ctx, count, TTT__DRAW_SIDE, TTT__DRAW_SIDE, 1, 10, NULL, out))
        return ctx->result;
    for (int64_t i = 0; i < count; i++) {
        uint32_t number = (uint32_t)(first + i);
        out->labels[i] = ttt__draw_label(seed, number);
        ttt__draw_image(seed, number, out->labels[i], out->pixels + i * TTT__DRAW_PIXELS);
    }
    return TTT_OK;
}

// ---- BATCHES ------------------------------------------------------------------------------------
#define TTT__CROP_MAX 32767  // keeps 2p+1 and the moved rows and columns well inside int

// Here, and not in the middle of an epoch. Sets from files were checked when they were read.
static bool ttt__labels_check(ttt_ctx *ctx, const ttt_images *m) {
    for (int64_t i = 0; i < m->count && !ctx->result; i++)
        if (m->labels[i] < 0 || m->labels[i] >= m->classes)
            ttt_fail(ctx, TTT_ERR_ARGUMENT,
                     "ttt_batches_new: label %ld of image %lld, expected 0..%d",
                     (long)m->labels[i], (long long)i, m->classes - 1);
    return !ctx->result;
}

static bool ttt__batches_check(ttt_ctx *ctx, const ttt_batches_desc *desc) {
    if (!TTT__GIVEN("ttt_batches_new", desc)) return false;
    if (!ttt__images_check(ctx, "ttt_batches_new", desc->images)) return false;
    if (desc->batch < 1 || (desc->drop_last && desc->batch > desc->images->count))
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "ttt_batches_new: batch %d, expected 1 or more, and with drop_last at most the "
                 "%lld images",
                 desc->batch, (long long)desc->images->count);
    else if (desc->augment.crop < 0 || desc->augment.crop > TTT__CROP_MAX)
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "ttt_batches_new: crop %d, expected 0..%d",
                 desc->augment.crop, TTT__CROP_MAX);
    for (int k = 0; k < desc->images->channels; k++) {
        double mean = (double)desc->norm.mean[k], std = (double)desc->norm.std[k];
        if (!(fabs(mean) < HUGE_VAL) || !(std >= 0 && std < HUGE_VAL))  // also true for NaN
            ttt_fail(ctx, TTT_ERR_ARGUMENT,
                     "ttt_batches_new: mean %g and std %g of channel %d, expected finite and "
                     "std >= 0",
                     mean, std, k);
    }
    return !ctx->result && ttt__labels_check(ctx, desc->images);
}

static void ttt__batches_set_values(ttt_batches *batches) {
    const ttt_pixel_norm *norm = &batches->desc.norm;
    for (int k = 0; k < batches->desc.images->channels; k++) {
        double std = norm->std[k] > 0 ? (double)norm->std[k] : 1.0;
        for (int v = 0; v < 256; v++)
            batches->value[k][v] = (float)((v / 255.0 - (double)norm->mean[k]) / std);
    }
}

static void ttt__batches_begin(ttt_batches *batches, int64_t epoch) {
    int32_t n = (int32_t)batches->desc.images->count;
    batches->epoch = epoch;
    batches->position = 0;
    if (batches->desc.shuffle) {
        ttt_rng rng = ttt_rng_at(batches->desc.seed, TTT__STREAM_ORDER, (uint32_t)epoch, 0);
        ttt__shuffle(&rng, batches->order, n);
    } else {
        for (int32_t i = 0; i < n; i++) batches->order[i] = i;
    }
}

ttt_batches *ttt_batches_new(ttt_ctx *ctx, const ttt_batches_desc *desc) {
    if (!ttt__batches_check(ctx, desc)) return NULL;
    size_t bytes = (size_t)desc->images->count * sizeof(int32_t);
    ttt_batches *batches = (ttt_batches *)ttt_alloc(ctx, sizeof *batches, true);
    int32_t *order = (int32_t *)ttt_alloc(ctx, bytes, true);
    if (!batches || !order) return NULL;
    memset(batches, 0, sizeof *batches);
    batches->desc = *desc;
    batches->order = order;
    ttt__batches_set_values(batches);
    ttt__batches_begin(batches, 0);
    return batches;
}

// x (height,width,channels) = image `index`, moved, mirrored and normalized. All three numbers are
// drawn whatever is switched on, so the flips do not change when the crop does.
static void ttt__batches_write(const ttt_batches *batches, int32_t index, ttt_real *x) {
    const ttt_images *m = batches->desc.images;
    int p = batches->desc.augment.crop, h = m->height, w = m->width, channels = m->channels;
    const uint8_t *image = m->pixels + (size_t)index * (size_t)h * (size_t)w * (size_t)channels;
    ttt_rng rng = ttt_rng_at(batches->desc.seed, TTT__STREAM_AUGMENT, (uint32_t)batches->epoch,
                             (uint32_t)index);
    int down = (int)ttt__below(&rng, (uint32_t)(2 * p + 1)) - p;
    int right = (int)ttt__below(&rng, (uint32_t)(2 * p + 1)) - p;
    bool flip = ttt__below(&rng, 2) == 1 && batches->desc.augment.flip;
    for (int i = 0; i < h; i++) {
        for (int j = 0; j < w; j++) {
            int row = i + down, column = (flip ? w - 1 - j : j) + right;
            bool inside = row >= 0 && row < h && column >= 0 && column < w;
            int64_t at = ((int64_t)row * w + column) * channels;
            for (int k = 0; k < channels; k++)
                *x++ = (ttt_real)batches->value[k][inside ? image[at + k] : 0];
        }
    }
}

int64_t ttt_batches_next(ttt_ctx *ctx, ttt_batches *batches, ttt_tensor **x, ttt_tensor **y) {
    if (x) *x = &ctx->empty;
    if (y) *y = &ctx->empty;
    if (!TTT__GIVEN("ttt_batches_next", batches)) return 0;
    const ttt_images *m = batches->desc.images;
    int64_t left = m->count - batches->position, n = TTT__MIN(left, batches->desc.batch);
    if (n == 0 || (n < batches->desc.batch && batches->desc.drop_last)) {
        ttt__batches_begin(batches, batches->epoch + 1);
        return 0;
    }
    ttt_shape shape = TTT_SHAPE(n, m->height, m->width, m->channels);
    ttt_tensor *images = x ? ttt_new(ctx, shape) : NULL;
    ttt_tensor *labels = y ? ttt__tensor(ctx, TTT_SHAPE(n), TTT_DTYPE_INT, false, NULL) : NULL;
    if (ctx->result) return 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t index = batches->order[batches->position + i];
        if (images) ttt__batches_write(batches, index, images->data + i * (images->size / n));
        if (labels) labels->index[i] = m->labels[index];
    }
    if (x) *x = images;
    if (y) *y = labels;
    batches->position += n;
    return n;
}

ttt_result ttt_batches_seek(ttt_ctx *ctx, ttt_batches *batches, int64_t epoch, int64_t position) {
    if (!TTT__GIVEN("ttt_batches_seek", batches)) return ctx->result;
    if (epoch < 0 || epoch > (int64_t)UINT32_MAX || position < 0 ||
        position > batches->desc.images->count) {
        ttt_fail(ctx, TTT_ERR_ARGUMENT,
                 "ttt_batches_seek: epoch %lld, position %lld; expected 0..2^32-1 and 0..%lld",
                 (long long)epoch, (long long)position, (long long)batches->desc.images->count);
        return ctx->result;
    }
    ttt__batches_begin(batches, epoch);
    batches->position = position;
    return TTT_OK;
}
#endif  // TTT_NO_IMAGES

// The first word of the streams that windows are drawn from; the second is the step.
#define TTT__STREAM_WINDOWS 0x80000005u
ttt_tensor *ttt_token_windows(ttt_ctx *ctx, ttt_tensor *tokens, int64_t B, int64_t L,
                              uint64_t seed, int64_t step) {
    if (!ttt__operand(ctx, "ttt_token_windows", tokens, 0, TTT__INT)) return &ctx->empty;
    if (B < 0 || L < 1 || L > tokens->size || step < 0 || step > (int64_t)UINT32_MAX)
        return ttt_fail(ctx, TTT_ERR_ARGUMENT,
                        "ttt_token_windows: %lld windows of %lld tokens, step %lld; of %lld tokens "
                        "expected, and a step in 0..2^32-1", (long long)B, (long long)L,
                        (long long)step, (long long)tokens->size);
    ttt_rng rng = ttt_rng_at(seed, TTT__STREAM_WINDOWS, (uint32_t)step, 0);
    ttt_tensor *windows = ttt_new_typed(ctx, TTT_SHAPE(B, L), TTT_DTYPE_INT, false);
    for (int64_t b = 0; b < B && ttt_ok(ctx); b++) {
        int64_t from = ttt_rng_below(&rng, tokens->size - L + 1);
        memcpy(windows->index + b * L, tokens->index + from, (size_t)L * sizeof(int64_t));
    }
    return windows;
}

#ifndef TTT_NO_TOKENIZERS
// ---- TOKENIZERS ---------------------------------------------------------------------------------
// -- classes of characters: runs of code points of one class, from 0 on. Each is the letter of its
// class and its length, where none means 1:
//     L   letters, \p{L}                        s   white space, \s
//     n   numbers, \p{N}, that words have       w   all else that words have
//     N   the other numbers                     .   everything else
// Words have L, n and w, \w: Alphabetic, M, Nd, Pc, Join_Control.   [Unicode 16.0; UTS 18, annex C]
static const char *const ttt__class_runs[] = {
    ".9s5.18s.15n10.7L26.4w.L26.10s.26s.9L.7N2.L.3NL.N3.L23.L31.L458.4L12.14L5.7L.L.17w112L5.L2.2",
    "L4.L.6L.L3.L.L20.L83.L139.w7L166.L38.2L.6L41.8w45.w.w2.w2.w.8L27.4L4.29w11.5L43w21n10.4L2wL99",
    ".Lw7.2w6L2w2.w4L2n10L3.2L.16LwL30w27.2L89w11L.14n10L33w9L2.4L.2w.2L22w4Lw9Lw3Lw5.18L25w3.4L11",
    ".5L24.L6.8w9L42w24.w33L54w3Lw18Lw7L10w2.2n10.L16w3.L8.2L2.2L22.L7.L.3L4.2wLw7.2w2.2w3L.8w.4L2",
    ".L3w2.2n10L2.2N6.2L.w.2w3.L6.4L2.2L22.L7.L2.L2.L2.2w.w5.4w2.2w3.3w.7L4.L.7n10w2L3w.11w3.L9.L3",
    ".L22.L7.L2.L5.2wLw8.w3.w3.2L.15L2w2.2n10.9Lw6.w3.L8.2L2.2L22.L7.L2.L5.2wLw7.2w2.2w3.7w3.4L2.",
    "L3w2.2n10.LN6.10wL.L6.3L3.L4.3L2.L.L2.3L2.3L3.3L12.4w5.3w3.w4.2L.6w.14n10N3.13w5L8.L3.L23.L16",
    ".2wLw7.w3.w4.7w2.L3.2L.2L2w2.2n10.8N7.Lw3.L8.L3.L23.L10.L5.2wLw7.w3.w4.7w2.6L2.L2w2.2n10.L2w",
    ".12w4L9.L3.L41w2Lw7.w3.w4L.5L3wN7L3w2.2n10N9.L6.w3.L18.3L24.L9.L.2L7.3w.4w6.w.w8.6n10.2w2.13",
    "L48wL2w7.5L7w8.n10.39L2.L.L5.L24.L.L10wL2w9L.2L5.L.w7.n10.2L4.32L.23w2.6n10N10.w.w.w.4w2L8.",
    "L36.4w20.w2L5w11.w36.9w.57L43w20Ln10.6L6w4L4w3Lw3L2w7L3w4L13w12Lwn10w4.2L38.L.5L.2L43.L333.L4",
    ".2L7.L.L4.2L41.L4.2L33.L4.2L7.L.L4.2L15.L57.L4.2L67.2w3.9N20.3L16.16L86.2L6.3L620.2L17sL26.5",
    "L75.3n3L8.7L18w4.9L19w3.11L18w2.12L13.L3.w2.12L52w32.3L.4Lw.2n10.6N10.17w3.wn10.6L89.7L5w2L34",
    "wL.5L70.10L31.w12.4w12.10n10L30.2L5.11L44.4L26.6n10N.37L23w5.4L53w10.w29.2wn10.6n10.13L.8w31",
    ".49w5L47w17L8.3n10.17w9.12w3L30w13L2n10L44w14.12L36w20.8n10.3L3n10L36.2L11.5L43.2L3.16w3.w21",
    "L4wL6wL2w3L.5L192w64L278.2L6.2L38.2L6.2L8.L.L.L.L31.2L53.L7.L.3L3.L7.3L4.2L6.4L13.5L3.L7.3s11",
    ".w2.26s2.5s.15w2.19w.10s.16NL.2N6.5LN10.6L13.51w33.17L.4L.2L10.L.3L5.6L.L.L.L4.L11.2L4.5L5.4L",
    ".N16n35L2n4N.726N60.26w52N22.630N30.1132L229.6L4w3L2.9N.2L38.L.5L.2L56.7L.15wL23.9L7.L7.L7.L7",
    ".L7.L7.L7.L7.w32.47L.464s.4L2n.25n9w6.L5.2n3L2.4L86.2w2.2L3.L90.L4.5L43.L94.3N4.10L32.48L16",
    ".32N10.30N8.N15.32N10.39N15.320L6592.64L22157.67L46.2L269.3L16n10L2.20L47w4.w10.L31w2L70n10w2",
    ".37L9.2L103.2L67.2L2.L.L8.21L16wL3wL4wL23w5.4w.3N6.10L52.12w2L50w18.10n10.6w18L6.3L.L2wn10L28",
    "w8.2L23w13.12L29.3w4L47w14.14Ln10.6L5wL10n10L5.L41w14.9L3wL8w2.2n10.6L23.3Lw3L50wLw3L2w2L5w2L",
    "wL.24L3.2L11w5.2L3w2.10L6.2L6.2L6.9L7.L7.L43.L14.6L115w8.w2.2n10.6L11172.12L23.4L49.8452L366",
    ".2L106.38L7.12L5.5LwL10.L13.L5.L.L2.L2.L108.33L363.18L64.2L54.40L12.4w16.16w16.3w2.24w3.32L5.",
    "L135.19n10.7L26.4w.L26.11L89.3L6.2L6.2L6.2L3.35L12.L26.L19.L2.L15.2L14.34L123.12N45.12n53N4",
    ".17N2.113w.130L29.3L49.15wN27.4L32N4.9L20nL8n.5L38w5.5L30.2L36.4L8.n5.42L158.2n10.6L36.4L36.4",
    "L40.8L52.12L11.L15.L7.L2.L11.L15.L7.L2.3L52.12L311.9L22.10L8.24L6.L42.L9.69L6.2L.L44.L2.3L.2",
    "L23.2N8L23.2N7L31.8N9.48L19.L2.5N5L22N6.4L26.70L56.4N2L2N16.2N46Lw3.w2.5w4L4.L3.L29.2w3.4wN9",
    ".23L29N2.L29N3.32L8.L28w2.4N5.16L54.10L22.2N8L19.5N8L18.23N7.80L73.55L51.13L51.7N6L36w4.8n10",
    ".6n10L28.3w5.L23.218N31.L42.w2.3L2.16L3.55w4L29N10L.8L22w11N4.27L18w4.42L21N7.20L23.9w3L53w15",
    ".11N20n10wL2w2L.9w4L45w11.7w.13L25.7n10.6w3L36w14.n10.4Lw2L.8L35w.2L.9w3L48w14L4.4w4.w2n10L.L",
    ".4N20.11L18.L25w12.6wL2w.62L7.L.L4.L15.L10.7L47w12.5n10.6w4.L8.2L2.2L22.L7.L2.L5.w2Lw7.2w2.2",
    "w3.2L.6w.5L5w2.2w7.3w5.11L10.L.2L.L38.Lw9.w.2w.w4.w5LwL.13w2.29L53w18L4.5n10.4wL3.30L48w20L2.",
    "L.8n10.166L47w7.2w9.23L4w2.34L48w17.3L.11n10.38L43w13L.7n10.6n20.28L27.2w15.4n10N2.4L7.185L44",
    "w15.101L64n10N9.12L8.2L.2L8.L2.L24w6.w2.2w4LwLw2.12n10.70L8.2L39w7.2w7L.Lw.27Lw10L40w7Lw4.8w",
    ".8Lw11L46w16.3L.18L73.199L33.15n10.6L9.L37w8.w8L.15n10N19.5L30.2w22.w14.73L7.L2.L38w6.3w.w2.",
    "w7Lw.8n10.6L6.L2.L32w5.w2.w5L.7n10.310L19w4.9w2LwL13.L34w7.3w5.13n10w.85L.15N21.43L922.102",
    "n111.17L196.2636L97.15L1072.16wL6w15.10L3995.5L583.6841L30w18n10.1734L569.7L31.n10.6L79.n10.6",
    "L30.2w5.11L48w7.9L4.12n10.N7.L21.5L19.432L45.3n10.198L64N23.105L75.4wLw55.7w4L13.64L2.Lw.11w2",
    ".14L6136.8L1238.41L10.8935L4.L7.L2.L291.15L.29L3.2L.14L4.8L396.2308L107.5L13.3L9.7L10.3w2",
    ".4177n10.518w46.2w23.542w5.3w6.8w8.2w7.30w4.148w3.123N20.12N20.108N25.135L85.L71.L2.2L.2L2.2",
    "L4.L12.L.L7.L65.L4.2L8.L7.L28.L4.L5.L.3L7.L340.2L25.L25.L31.L25.L31.L25.L31.L25.L31.L25.L8.2",
    "n50.512w55.4w50.8w.14w.22w5.w15.1104L31.6L6.213w7.w17.2w7.w2.w5.5L62.33w.112L45.3w7L7.2n10.4L",
    ".321L30w.17L44w4n10.470L28w4n10.214L30w2Ln10.485L7.L4.L2.L15.L197.2N9w7.41L68w7L.4n10.791N59.",
    "N3.N4.76N45.N15.194L4.L27.L2.L.2L.L10.L4.L.L.6L.4L.L.L.L3.L2.L.2L.L.L.L.L.L2.L.2L4.L7.L4.L4.L",
    ".L10.L17.5L3.L5.L17.580N13.35w26.6w26.6w26.2662n10.1030L42720.32L4154.6L222.2L5762.14L7473.15",
    "L622.2466L542.1506L4939.5L4192.712016w240.196112"
};
#define TTT__LETTERS "L"
#define TTT__NUMBERS "nN"
#define TTT__OTHERS ".w"
#define TTT__WORDS "Lnw"
enum { TTT__CLASS_RUNS = 2012 };

typedef struct ttt__classes {
    uint32_t run[TTT__CLASS_RUNS];  // first code point * 256 + class, ascending
    char ascii[128];
} ttt__classes;

static char ttt__class_of(const ttt__classes *classes, int32_t code) {
    if (code < 128) return classes->ascii[code];
    int low = 0, high = TTT__CLASS_RUNS;  // the run is among low .. high-1
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (classes->run[middle] >> 8 <= (uint32_t)code) low = middle;
        else high = middle;
    }
    return (char)(classes->run[low] & 255);
}

static void ttt__classes_set(ttt__classes *classes) {
    uint32_t first = 0;
    int n = 0;
    for (size_t i = 0; i < sizeof ttt__class_runs / sizeof *ttt__class_runs; i++)
        for (const char *p = ttt__class_runs[i]; *p;) {
            classes->run[n++] = first << 8 | (unsigned char)*p++;
            uint32_t length = 0;
            for (; *p >= '0' && *p <= '9'; p++) length = 10 * length + (uint32_t)(*p - '0');
            first += length ? length : 1;
        }
    for (int code = 0, i = 0; code < 128; code++) {
        if (i + 1 < n && classes->run[i + 1] >> 8 == (uint32_t)code) i++;
        classes->ascii[code] = (char)(classes->run[i] & 255);
    }
}

// The code point at p, *n its bytes. The text is UTF-8.
static int32_t ttt__code_at(const char *p, int *n) {
    const unsigned char *s = (const unsigned char *)p;
    *n = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    int32_t code = *n == 1 ? s[0] : s[0] & (0x7f >> *n);
    for (int i = 1; i < *n; i++) code = code << 6 | (s[i] & 0x3f);
    return code;
}

static const char *ttt__code_before(const char *p) {
    do p--;
    while ((*p & 0xc0) == 0x80);
    return p;
}

static char ttt__class_at(const ttt__classes *classes, const char *p, int *n) {
    return ttt__class_of(classes, ttt__code_at(p, n));
}

// Where the characters of these classes that begin at p end.
static const char *ttt__skip(const ttt__classes *classes, const char *p, const char *end,
                             const char *which) {
    for (int n; p < end && strchr(which, ttt__class_at(classes, p, &n)); p += n) {}
    return p;
}

// -- regular expressions that cut a text into words. They take any text whole, so a text is its
// words in turn; each has a function that says where the word at p ends.
//     GPT-2's                                          as the others have it
//     's|'t|'re|'ve|'m|'ll|'d                          (?i:...)
//      ?\p{L}+                                         [^\r\n\p{L}\p{N}]?\p{L}+
//      ?\p{N}+                                         \p{N}{1,3} or \p{N}
//      ?[^\s\p{L}\p{N}]+                                ?[^\s\p{L}\p{N}]+[\r\n]*
//                                                      \s*[\r\n]+
//     \s+(?!\S)                                        the same
//     \s+                                              the same
enum { TTT__UNCUT = -1, TTT__GPT2 = 0 };  // or, as the others have it, the most digits of a word
static const struct {
    const char *regex;
    int kind;
} ttt__word_kinds[] = {
    { "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
      TTT__GPT2 },
    { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
      " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", 3 },
    { "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}|"
      " ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+", 3 },
    { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
      " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", 1 },
};

// NULL if there is none at p.
static const char *ttt__contraction_end(const char *p, const char *end, bool any_case) {
    static const char *const tails[] = { "s", "t", "re", "ve", "m", "ll", "d" };
    if (*p++ != '\'') return NULL;
    if (any_case && end - p >= 2 && memcmp(p, "\xc5\xbf", 2) == 0) return p + 2;  // long s
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        ptrdiff_t n = (ptrdiff_t)strlen(tails[i]), same = 0;
        while (same < n && p + same < end &&
               (any_case ? p[same] | 0x20 : p[same]) == tails[i][same])
            same++;
        if (same == n) return p + n;
    }
    return NULL;
}

// All blanks at the end of the text; before a word all but the last, which is the word's.
static const char *ttt__blanks_end(const ttt__classes *classes, const char *p, const char *end) {
    const char *q = ttt__skip(classes, p, end, "s"), *last = ttt__code_before(q);
    return q == end || last == p ? q : last;
}

static const char *ttt__word_end_gpt2(const ttt__classes *classes, const char *p,
                                      const char *end) {
    static const char *const kinds[] = { TTT__LETTERS, TTT__NUMBERS, TTT__OTHERS };
    const char *q = ttt__contraction_end(p, end, false), *from = p + (*p == ' ');
    for (int i = 0; i < 3 && !q; i++) {
        q = ttt__skip(classes, from, end, kinds[i]);
        if (q == from) q = NULL;
    }
    return q ? q : ttt__blanks_end(classes, p, end);
}

static bool ttt__is_newline(char c) { return c == '\r' || c == '\n'; }

static const char *ttt__word_end_gpt4(const ttt__classes *classes, const char *p, const char *end,
                                      int digits) {
    const char *q = ttt__contraction_end(p, end, true), *from = p;
    if (q) return q;
    int n;
    char kind = ttt__class_at(classes, p, &n);
    if (!strchr(TTT__LETTERS TTT__NUMBERS, kind) && !ttt__is_newline(*p)) from = p + n;
    q = ttt__skip(classes, from, end, TTT__LETTERS);
    if (q > from) return q;
    q = p;
    for (int i = 0; i < digits && q < end; i++, q += n)
        if (!strchr(TTT__NUMBERS, ttt__class_at(classes, q, &n))) break;
    if (q > p) return q;
    from = p + (*p == ' ');
    q = ttt__skip(classes, from, end, TTT__OTHERS);
    if (q > from) {
        while (q < end && ttt__is_newline(*q)) q++;
        return q;
    }
    for (q = ttt__skip(classes, p, end, "s"); q > p; q--)
        if (ttt__is_newline(q[-1])) return q;
    return ttt__blanks_end(classes, p, end);
}

// -- GPT-2 writes the 256 bytes as characters that print: those that do as themselves, the others,
// in their order, from U+0100 on.
static int32_t ttt__char_of_byte(int byte) {
    return byte <= 32 ? 256 + byte : byte >= 127 && byte <= 160 ? 162 + byte : byte == 173 ? 323
                                                                                           : byte;
}
// -1 if the character is none of them
static int ttt__byte_of_char(int32_t code) {
    int byte = (int)(code < 256 ? code : code <= 288 ? code - 256 : code <= 322 ? code - 162 : 173);
    return code <= 323 && ttt__char_of_byte(byte) == code ? byte : -1;
}

// -- tables: open addressing, at most half full
static uint64_t ttt__table_size(int64_t n) {
    uint64_t size = 16;
    while (size < 2 * (uint64_t)n) size *= 2;
    return size;
}

// From strings to their numbers in an array of strings.
typedef struct ttt__index {
    const ttt__string *strings;
    int32_t *slot;  // -1: free
    uint64_t mask;
} ttt__index;

static bool ttt__index_new(ttt_ctx *ctx, ttt__arena *arena, const ttt__string *strings, int64_t n,
                           ttt__index *index) {
    uint64_t size = ttt__table_size(n);
    index->strings = strings;
    index->mask = size - 1;
    index->slot = (int32_t *)ttt__arena_alloc(ctx, arena, size * sizeof *index->slot);
    if (index->slot) memset(index->slot, 0xff, (size_t)size * sizeof *index->slot);
    return index->slot != NULL;
}

// The slot that has the string, or is free for it.
static int32_t *ttt__index_slot(const ttt__index *index, ttt__string s) {
    uint64_t at = 14695981039346656037u;  // FNV-1a
    for (size_t i = 0; i < s.n; i++) at = (at ^ (unsigned char)s.at[i]) * 1099511628211u;
    for (at ^= at >> 32;; at++) {
        int32_t *slot = index->slot + (at & index->mask);
        if (*slot < 0) return slot;
        const ttt__string *there = index->strings + *slot;
        if (there->n == s.n && memcmp(there->at, s.at, s.n) == 0) return slot;
    }
}

// From pairs of numbers to a number.
typedef struct ttt__pair_table {
    uint64_t *key, mask;
    int32_t *value;  // -1: free
} ttt__pair_table;

static bool ttt__pairs_new(ttt_ctx *ctx, int64_t n, ttt__pair_table *pairs) {
    uint64_t size = ttt__table_size(n);
    pairs->mask = size - 1;
    pairs->key = (uint64_t *)ttt_alloc(ctx, size * sizeof *pairs->key, true);
    pairs->value = (int32_t *)ttt_alloc(ctx, size * sizeof *pairs->value, true);
    if (!pairs->key || !pairs->value) return false;
    memset(pairs->value, 0xff, (size_t)size * sizeof *pairs->value);
    return true;
}

static uint64_t ttt__pairs_at(const ttt__pair_table *pairs, int32_t a, int32_t b) {
    uint64_t key = (uint64_t)(uint32_t)a << 32 | (uint32_t)b, at = key * 0x9E3779B97F4A7C15u;
    for (at ^= at >> 32;; at++) {
        at &= pairs->mask;
        if (pairs->value[at] < 0 || pairs->key[at] == key) return at;
    }
}

static int32_t ttt__pairs_find(const ttt__pair_table *pairs, int32_t a, int32_t b) {
    return pairs->value[ttt__pairs_at(pairs, a, b)];
}

static void ttt__pairs_put(ttt__pair_table *pairs, int32_t a, int32_t b, int32_t value) {
    uint64_t at = ttt__pairs_at(pairs, a, b);
    pairs->key[at] = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    pairs->value[at] = value;
}

// -- the tokenizer
enum {
    TTT__IN_MODEL = 1,  // flags of tokens
    TTT__SPECIAL = 2,
    TTT__NO_UNK = -1,   // unk_token is null
    TTT__LOST_UNK = -2  // it is not in the vocabulary
};
enum { TTT__BYTES, TTT__BYTE_LEVEL, TTT__METASPACE, TTT__REPLACE };
enum { TTT__ALWAYS, TTT__FIRST, TTT__NEVER };
#define TTT__MARK "\xe2\x96\x81"  // U+2581, which stands for a blank

typedef struct ttt__added {
    ttt__string text;
    int32_t id;
    bool single_word, lstrip, rstrip;
} ttt__added;

// Added tokens that are looked for in the same text.
typedef struct ttt__added_list {
    ttt__added *at;      // by first byte; of one byte the longest comes first
    int32_t first[257];  // where those of a byte begin
} ttt__added_list;

typedef struct ttt__ids {
    int32_t *at;
    int64_t n, room;
} ttt__ids;

struct ttt_tokenizer {
    int64_t n;            // ids are 0 .. n-1
    ttt__string *tokens;  // .at is NULL in a hole
    ttt__string *texts;   // what they stand for: the same, but added tokens as they are looked for
    uint8_t *flags;
    ttt__index by_text;
    // the model, where a unit is a byte (ByteLevel) or else a character:
    ttt__pair_table units;   // (unit, 0) to its token
    ttt__pair_table merges;  // two tokens to the rank of their merge
    int32_t *merged;    // by rank: what the two become
    ttt__pair_table joins;   // two units that are neighbors in some merged token
    int32_t byte_token[256];  // of byte_fallback; -1: none
    int32_t unknown;
    bool byte_fallback, fuse_unk, ignore_merges;
    // before the model
    ttt__added_list added[2];  // looked for before and after the normalizer
    bool normal_prepend, normal_replace;
    bool byte_level, prefix_space, metaspace, metaspace_split;
    int metaspace_prefix;  // TTT__ALWAYS ...
    int words;             // TTT__UNCUT ...
    ttt__ids before, after;  // what the post-processor adds
    int decoder;           // TTT__BYTES ...
    bool decode_marks, decode_bytes;
    int strip;
    ttt__classes classes;
};

static const ttt__string ttt__nothing = { "", 0 };

// -- reading tokenizer.json
typedef struct ttt__token_file {
    ttt__document d;
    ttt_tokenizer *t;
    char *pool;  // where the next token's text goes, in the keep arena
    char *pair;  // room for the texts of two tokens
    int step;    // how far a Sequence has come
    int64_t n_tokens;
} ttt__token_file;

static bool ttt__wrong(const ttt__token_file *r, const char *format, ...) {
    va_list args;
    va_start(args, format);
    ttt__refuse_part(r->d.ctx, TTT_ERR_FORMAT, r->d.file, NULL, format, args);
    va_end(args);
    return false;
}

// A part, which is null or says its type, or each part of a Sequence of them. `take` returns false
// for a type that it does not know; `known` names those that it does.
typedef bool ttt__take_fn(ttt__token_file *r, const ttt__value *part, ttt__string type);
static bool ttt__take_part(ttt__token_file *r, const char *what, const ttt__value *part,
                           ttt__take_fn *take, const char *known) {
    ttt__string type = ttt__nothing;
    if (part->kind != '{')
        return ttt__wrong(r, "%s is %s; an object expected", what, ttt__json_kind_text(part->kind));
    if (!ttt__member_string(&r->d, part, "type", &type)) return false;
    if (take(r, part, type) && !r->d.ctx->result) return true;
    return !r->d.ctx->result &&
           ttt__wrong(r, "%s '%.60s' is not understood here; known, in this order: %s", what,
                      type.at, known);
}
static bool ttt__take_parts(ttt__token_file *r, const char *what, const char *list,
                            ttt__take_fn *take, const char *known) {
    const ttt__value *part = ttt__member(r->d.root, what), *type = ttt__member(part, "type");
    r->step = 0;
    if (!part) return true;
    if (!type || type->kind != '"' || !ttt__string_is(type->text, "Sequence"))
        return ttt__take_part(r, what, part, take, known);
    part = ttt__member_needed(&r->d, part, list, '[');
    if (!part) return false;
    for (const ttt__value *v = ttt__first_value(part); v < part->end; v = v->end)
        if (!ttt__take_part(r, what, v, take, known)) return false;
    return true;
}

// False, and no error, if the steps of a sequence are not in order.
static bool ttt__step(ttt__token_file *r, int step) {
    bool good = step > r->step;
    r->step = step;
    return good;
}

// The member has that text.
static bool ttt__must_be(ttt__token_file *r, const ttt__value *part, const char *key,
                         const char *text) {
    ttt__string s = ttt__nothing;
    if (!ttt__member_string(&r->d, part, key, &s)) return false;
    return ttt__string_is(s, text) ||
           ttt__wrong(r, "'%s' is '%.60s'; only '%s' is supported", key, s.at, text);
}

// {"pattern":{"String":"..."},"content":"..."}
static bool ttt__replaces(ttt__token_file *r, const ttt__value *part, const char *from,
                          const char *to) {
    const ttt__value *pattern = ttt__member_needed(&r->d, part, "pattern", '{');
    return pattern && ttt__must_be(r, pattern, "String", from) &&
           ttt__must_be(r, part, "content", to);
}

static bool ttt__take_normalizer(ttt__token_file *r, const ttt__value *part, ttt__string type) {
    ttt_tokenizer *t = r->t;
    if (ttt__string_is(type, "Prepend")) {
        t->normal_prepend = true;
        return ttt__step(r, 1) && ttt__must_be(r, part, "prepend", TTT__MARK);
    }
    t->normal_replace = ttt__string_is(type, "Replace");
    return t->normal_replace && ttt__step(r, 2) && ttt__replaces(r, part, " ", TTT__MARK);
}

static bool ttt__take_split(ttt__token_file *r, const ttt__value *part) {
    const ttt__value *pattern = ttt__member_needed(&r->d, part, "pattern", '{');
    ttt__string regex = ttt__nothing, behavior = ttt__nothing;
    bool invert = false;
    if (!pattern || !ttt__member_string(&r->d, pattern, "Regex", &regex) ||
        !ttt__member_string(&r->d, part, "behavior", &behavior) ||
        !ttt__member_bool(&r->d, part, "invert", &invert))
        return false;
    for (size_t i = 0; i < sizeof ttt__word_kinds / sizeof *ttt__word_kinds; i++)
        if (ttt__string_is(regex, ttt__word_kinds[i].regex)) r->t->words = ttt__word_kinds[i].kind;
    if (r->t->words == TTT__UNCUT)
        return ttt__wrong(r, "a Split by '%.120s'; only by the regular expressions of GPT-2, "
                          "cl100k and Qwen 2", regex.at);
    // they leave nothing between words: what is removed from there is nothing
    return ttt__string_is(behavior, invert ? "Removed" : "Isolated") ||
           ttt__string_is(behavior, "Isolated") ||
           ttt__wrong(r, "a Split whose behavior is '%.40s'; only Isolated is supported",
                      behavior.at);
}

static bool ttt__take_byte_level(ttt__token_file *r, const ttt__value *part) {
    ttt_tokenizer *t = r->t;
    bool split = t->words != TTT__UNCUT, regex = true;
    t->byte_level = t->prefix_space = true;
    if (!ttt__member_bool(&r->d, part, "add_prefix_space", &t->prefix_space) ||
        !ttt__member_bool(&r->d, part, "use_regex", &regex))
        return false;
    if (regex && !split) t->words = TTT__GPT2;
    return !(split && (regex || t->prefix_space)) ||
           ttt__wrong(r, "a ByteLevel behind a Split; only with use_regex and add_prefix_space "
                      "false");
}

static bool ttt__take_metaspace(ttt__token_file *r, const ttt__value *part, int *prefix) {
    static const char *const schemes[] = { "always", "first", "never" };
    ttt__string scheme = { schemes[0], 6 };
    bool add_prefix = true;
    if (!ttt__must_be(r, part, "replacement", TTT__MARK) ||
        !ttt__member_string(&r->d, part, "prepend_scheme", &scheme) ||
        !ttt__member_bool(&r->d, part, "add_prefix_space", &add_prefix))
        return false;
    for (*prefix = TTT__ALWAYS; *prefix <= TTT__NEVER; ++*prefix)
        if (ttt__string_is(scheme, schemes[*prefix]))
            return add_prefix || *prefix == TTT__NEVER ||
                   ttt__wrong(r, "a Metaspace whose add_prefix_space contradicts its "
                              "prepend_scheme");
    return ttt__wrong(r, "'prepend_scheme' is '%.40s'; always, first or never expected", scheme.at);
}

static bool ttt__take_pre_tokenizer(ttt__token_file *r, const ttt__value *part, ttt__string type) {
    ttt_tokenizer *t = r->t;
    if (ttt__string_is(type, "Split")) return ttt__step(r, 1) && ttt__take_split(r, part);
    if (ttt__string_is(type, "ByteLevel")) return ttt__step(r, 2) && ttt__take_byte_level(r, part);
    t->metaspace = ttt__string_is(type, "Metaspace") && r->step == 0;
    t->metaspace_split = true;
    return t->metaspace && ttt__step(r, 3) &&
           ttt__take_metaspace(r, part, &t->metaspace_prefix) &&
           ttt__member_bool(&r->d, part, "split", &t->metaspace_split);
}

static bool ttt__take_decoder(ttt__token_file *r, const ttt__value *part, ttt__string type) {
    static const char *const chain[] = { "Replace", "ByteFallback", "Fuse", "Strip" };
    ttt_tokenizer *t = r->t;
    int step = 0, prefix;
    int64_t start = 0, end_cut = 0;
    if (r->step == 0 && ttt__string_is(type, "ByteLevel"))
        t->decoder = TTT__BYTE_LEVEL;
    if (t->decoder == TTT__BYTE_LEVEL) return ttt__step(r, 9);
    if (r->step == 0 && ttt__string_is(type, "Metaspace")) {
        t->decoder = TTT__METASPACE;
        if (!ttt__take_metaspace(r, part, &prefix)) return false;
        t->strip = prefix != TTT__NEVER;
        return ttt__step(r, 9);
    }
    while (step < 4 && !ttt__string_is(type, chain[step])) step++;
    bool fused = r->step == 3;
    if (step == 4 || !ttt__step(r, step + 1)) return false;
    t->decoder = TTT__REPLACE;
    if (step == 0) t->decode_marks = true;
    if (step == 1) t->decode_bytes = true;
    if (step == 0) return ttt__replaces(r, part, TTT__MARK, " ");
    if (step < 3) return true;
    if (!fused || !ttt__must_be(r, part, "content", " ") ||
        !ttt__member_int(&r->d, part, "start", 0, INT32_MAX, &start) ||
        !ttt__member_int(&r->d, part, "stop", 0, 0, &end_cut))
        return false;
    t->strip = (int)start;
    return true;
}

static bool ttt__add_id(ttt_ctx *ctx, ttt__arena *arena, ttt__ids *list, int32_t id) {
    if (list->n == list->room) {
        int64_t room = TTT__MAX(64, 2 * list->room);
        int32_t *at = (int32_t *)ttt__arena_alloc(ctx, arena, (uint64_t)room * sizeof *at);
        if (!at) return false;
        if (list->n) memcpy(at, list->at, (size_t)list->n * sizeof *at);
        list->at = at;
        list->room = room;
    }
    list->at[list->n++] = id;
    return true;
}

static bool ttt__is_token(const ttt_tokenizer *t, int64_t id) {
    return id >= 0 && id < t->n && t->tokens[id].at;
}

// The ids of a special token of a template go in front of the text or behind it.
static bool ttt__take_special(ttt__token_file *r, const ttt__value *all, ttt__string name,
                              ttt__ids *to) {
    for (const ttt__value *v = ttt__first_value(all); v < all->end; v = v->end) {
        if (ttt__string_order(v->key, name) != 0) continue;
        const ttt__value *list = ttt__member_needed(&r->d, v, "ids", '[');
        if (!list) return false;
        for (const ttt__value *id = ttt__first_value(list); id < list->end; id = id->end) {
            int64_t value = 0;
            if (!ttt__int_of(&r->d, id, "ids", 0, r->t->n - 1, &value)) return false;
            if (!ttt__is_token(r->t, value))
                return ttt__wrong(r, "a template's id %lld names no token", (long long)value);
            if (!ttt__add_id(r->d.ctx, &r->d.ctx->keep, to, (int32_t)value)) return false;
        }
        return true;
    }
    return ttt__wrong(r, "the template's token '%.60s' is not among its special_tokens", name.at);
}

static bool ttt__take_template(ttt__token_file *r, const ttt__value *part) {
    const ttt__value *single = ttt__member_needed(&r->d, part, "single", '[');
    const ttt__value *tokens = single ? ttt__member_needed(&r->d, part, "special_tokens", '{')
                                      : NULL;
    int texts = 0;
    if (!tokens) return false;
    for (const ttt__value *v = ttt__first_value(single); v < single->end; v = v->end) {
        const ttt__value *text = ttt__member(v, "Sequence");
        const ttt__value *token = ttt__member(v, "SpecialToken");
        ttt__string id = ttt__nothing;
        if (!ttt__member_string(&r->d, text ? text : token, "id", &id)) return false;
        if (text && ttt__string_is(id, "A")) texts++;
        else if (text || !token) texts = 2;
        else if (!ttt__take_special(r, tokens, id, texts ? &r->t->after : &r->t->before))
            return false;
    }
    return texts == 1 || ttt__wrong(r, "a template 'single' of other parts than one text A and "
                                    "special tokens");
}

static bool ttt__take_post_processor(ttt__token_file *r, const ttt__value *part,
                                     ttt__string type) {
    if (ttt__string_is(type, "ByteLevel")) return ttt__step(r, 1);
    return ttt__string_is(type, "TemplateProcessing") && ttt__step(r, 2) &&
           ttt__take_template(r, part);
}

// -- the vocabulary. How many ids there are: one more than the largest. Each id may take memory, so
// none may be larger than the file: a vocabulary can have holes, but not be one.
static bool ttt__count_ids(ttt__token_file *r, const ttt__value *vocab, const ttt__value *added,
                           int64_t most, size_t *bytes) {
    int64_t id = 0;
    for (const ttt__value *v = ttt__first_value(vocab); v < vocab->end; v = v->end) {
        if (!ttt__int_of(&r->d, v, v->key.at, 0, most, &id)) return false;
        r->t->n = TTT__MAX(r->t->n, id + 1);
        r->n_tokens++;
        *bytes += v->key.n + 1;
    }
    for (const ttt__value *v = added ? ttt__first_value(added) : NULL; v && v < added->end;
         v = v->end) {
        const ttt__value *text = ttt__member_needed(&r->d, v, "content", '"');
        if (!text || !ttt__member_needed(&r->d, v, "id", '0') ||
            !ttt__member_int(&r->d, v, "id", 0, most, &id))
            return false;
        if (text->text.n == 0) return ttt__wrong(r, "an added token without content");
        r->t->n = TTT__MAX(r->t->n, id + 1);
        r->n_tokens++;
        *bytes += text->text.n + 1;
    }
    return true;
}

static bool ttt__add_token(ttt__token_file *r, ttt__string text, int64_t id, int flag) {
    ttt_tokenizer *t = r->t;
    int32_t *slot = ttt__index_slot(&t->by_text, text);
    if (*slot >= 0 && *slot != id)
        return ttt__wrong(r, "the token '%.60s' has two ids, %d and %lld", text.at, (int)*slot,
                          (long long)id);
    if (t->tokens[id].at && *slot < 0)
        return ttt__wrong(r, "the id %lld is that of two tokens, '%.60s' and '%.60s'",
                          (long long)id, t->tokens[id].at, text.at);
    t->flags[id] = (uint8_t)(t->flags[id] | flag);
    if (*slot >= 0) return true;
    t->tokens[id].at = (const char *)memcpy(r->pool, text.at, text.n + 1);
    t->tokens[id].n = text.n;
    r->pool += text.n + 1;
    *slot = (int32_t)id;
    return true;
}

// Room for all tokens, and then those of the model.
static bool ttt__read_vocabulary(ttt__token_file *r, const ttt__value *vocab,
                                 const ttt__value *added, size_t size) {
    ttt_ctx *ctx = r->d.ctx;
    ttt_tokenizer *t = r->t;
    size_t bytes = 0, longest = 0;
    int64_t id = 0;
    if (!ttt__count_ids(r, vocab, added, (int64_t)size, &bytes)) return false;
    t->tokens = (ttt__string *)ttt_alloc(ctx, (uint64_t)t->n * sizeof *t->tokens, true);
    t->flags = (uint8_t *)ttt_alloc(ctx, (uint64_t)t->n, true);
    r->pool = (char *)ttt_alloc(ctx, bytes, true);
    if (!t->tokens || !t->flags || !r->pool) return false;
    t->texts = t->tokens;
    memset(t->tokens, 0, (size_t)t->n * sizeof *t->tokens);
    memset(t->flags, 0, (size_t)t->n);
    if (!ttt__index_new(ctx, &ctx->keep, t->tokens, r->n_tokens, &t->by_text))
        return false;
    for (const ttt__value *v = ttt__first_value(vocab); v < vocab->end; v = v->end) {
        longest = TTT__MAX(longest, v->key.n);
        if (!ttt__int_of(&r->d, v, v->key.at, 0, t->n - 1, &id) ||
            !ttt__add_token(r, v->key, id, TTT__IN_MODEL))
            return false;
    }
    r->pair = (char *)ttt_alloc(ctx, 2 * longest + 1, false);
    return r->pair != NULL;
}

// A model's token; -1 if it has none with that text.
static int32_t ttt__model_token(const ttt_tokenizer *t, ttt__string text) {
    int32_t id = *ttt__index_slot(&t->by_text, text);
    return id >= 0 && (t->flags[id] & TTT__IN_MODEL) ? id : -1;
}

// The unit of the model that is written as the character at p; -1 if there is none.
static int32_t ttt__unit_of(const ttt_tokenizer *t, const char *p, int *n) {
    int32_t code = ttt__code_at(p, n);
    return t->byte_level ? ttt__byte_of_char(code) : code;
}

static bool ttt__read_units(ttt__token_file *r) {
    ttt_tokenizer *t = r->t;
    int n;
    if (!ttt__pairs_new(r->d.ctx, r->n_tokens, &t->units)) return false;
    for (int64_t id = 0; id < t->n; id++) {
        if (!(t->flags[id] & TTT__IN_MODEL) || t->tokens[id].n == 0) continue;
        int32_t unit = ttt__unit_of(t, t->tokens[id].at, &n);
        if (unit >= 0 && (size_t)n == t->tokens[id].n)
            ttt__pairs_put(&t->units, unit, 0, (int32_t)id);
    }
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        ttt__string s = { text, 6 };
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);
        t->byte_token[byte] = ttt__model_token(t, s);
    }
    return true;
}

// "a b" or ["a","b"]
static bool ttt__split_merge(ttt__token_file *r, const ttt__value *v, int64_t rank,
                             ttt__string part[2]) {
    const ttt__value *a = v + 1, *b = v + 2;
    const char *blank = v->kind == '"' ? (const char *)memchr(v->text.at, ' ', v->text.n) : NULL;
    if (v->kind == '[' && v->end - v == 3 && a->kind == '"' && b->kind == '"') {
        part[0] = a->text;
        part[1] = b->text;
    } else if (blank) {
        part[0].at = v->text.at;
        part[0].n = (size_t)(blank - v->text.at);
        part[1].at = blank + 1;
        part[1].n = v->text.n - part[0].n - 1;
    } else {
        part[0] = ttt__nothing;
    }
    return (part[0].n && part[1].n && (!blank || !memchr(part[1].at, ' ', part[1].n))) ||
           ttt__wrong(r, "merge %lld is not \"a b\" or [\"a\",\"b\"]", (long long)rank);
}

static bool ttt__read_merge(ttt__token_file *r, const ttt__value *v, int32_t rank) {
    ttt_tokenizer *t = r->t;
    ttt__string part[2] = { ttt__nothing, ttt__nothing }, both;
    int32_t id[2];
    int n;
    if (!ttt__split_merge(r, v, rank, part)) return false;
    for (int i = 0; i < 2; i++) {
        id[i] = ttt__model_token(t, part[i]);
        if (id[i] < 0)
            return ttt__wrong(r, "merge %ld: the vocabulary lacks '%.*s'", (long)rank,
                              (int)TTT__MIN(part[i].n, 60), part[i].at);
    }
    memcpy(r->pair, part[0].at, part[0].n);
    memcpy(r->pair + part[0].n, part[1].at, part[1].n);
    both.at = r->pair;
    both.n = part[0].n + part[1].n;
    t->merged[rank] = ttt__model_token(t, both);
    if (t->merged[rank] < 0)
        return ttt__wrong(r, "merge %ld: the vocabulary lacks '%.*s'", (long)rank,
                          (int)TTT__MIN(both.n, 60), both.at);
    ttt__pairs_put(&t->merges, id[0], id[1], rank);
    const char *last = ttt__code_before(part[0].at + part[0].n);
    ttt__pairs_put(&t->joins, ttt__unit_of(t, last, &n), ttt__unit_of(t, part[1].at, &n), 0);
    return true;
}

static bool ttt__read_merges(ttt__token_file *r, const ttt__value *merges) {
    ttt_tokenizer *t = r->t;
    int64_t n = 0;
    int32_t rank = 0;
    for (const ttt__value *v = ttt__first_value(merges); v < merges->end; v = v->end) n++;
    t->merged = (int32_t *)ttt_alloc(r->d.ctx, (uint64_t)n * sizeof *t->merged, true);
    if (!t->merged || !ttt__pairs_new(r->d.ctx, n, &t->merges) ||
        !ttt__pairs_new(r->d.ctx, n, &t->joins))
        return false;
    for (const ttt__value *v = ttt__first_value(merges); v < merges->end; v = v->end) {
        bool version = v->kind == '"' && strncmp(v->text.at, "#version", 8) == 0;
        if (!version && !ttt__read_merge(r, v, rank++)) return false;
    }
    return true;
}

static bool ttt__read_model(ttt__token_file *r, size_t size) {
    ttt_tokenizer *t = r->t;
    const ttt__document *d = &r->d;
    const ttt__value *model = ttt__member_needed(d, d->root, "model", '{');
    ttt__string type = { "BPE", 3 }, unknown = ttt__nothing;
    ttt__string prefix = ttt__nothing, suffix = ttt__nothing;
    double dropout = 0;
    if (!model || !ttt__member_string(d, model, "type", &type)) return false;
    if (!ttt__string_is(type, "BPE"))
        return ttt__wrong(r, "a model of type '%.60s'; only BPE is supported", type.at);
    const ttt__value *vocab = ttt__member_needed(d, model, "vocab", '{');
    const ttt__value *merges = vocab ? ttt__member_needed(d, model, "merges", '[') : NULL;
    if (!merges || !ttt__member_real(d, model, "dropout", 0, 0, &dropout) ||
        !ttt__member_string(d, model, "continuing_subword_prefix", &prefix) ||
        !ttt__member_string(d, model, "end_of_word_suffix", &suffix) ||
        !ttt__member_string(d, model, "unk_token", &unknown) ||
        !ttt__member_bool(d, model, "fuse_unk", &t->fuse_unk) ||
        !ttt__member_bool(d, model, "byte_fallback", &t->byte_fallback) ||
        !ttt__member_bool(d, model, "ignore_merges", &t->ignore_merges))
        return false;
    if (prefix.n || suffix.n)
        return ttt__wrong(r, "continuing_subword_prefix '%.40s', end_of_word_suffix '%.40s': only "
                          "null is supported", prefix.at, suffix.at);
    if (!ttt__read_vocabulary(r, vocab, ttt__member(d->root, "added_tokens"), size) ||
        !ttt__read_units(r) || !ttt__read_merges(r, merges))
        return false;
    t->unknown = !ttt__member(model, "unk_token") ? TTT__NO_UNK : ttt__model_token(t, unknown);
    if (ttt__member(model, "unk_token") && t->unknown < 0) t->unknown = TTT__LOST_UNK;
    return true;
}

// -- added tokens
static int ttt__by_first_byte(const void *a, const void *b) {
    const ttt__added *x = (const ttt__added *)a, *y = (const ttt__added *)b;
    int first = (unsigned char)*x->text.at - (unsigned char)*y->text.at;
    return first ? first : x->text.n > y->text.n ? -1 : x->text.n < y->text.n;
}

// The text with something in front and, with `marks`, U+2581 in place of each blank; or the text
// itself, if that is the same.
static ttt__string ttt__rewritten(ttt_ctx *ctx, ttt__arena *arena, ttt__string text,
                                  const char *prefix, bool marks) {
    size_t n_prefix = strlen(prefix);
    ttt__string result = ttt__nothing;
    if (n_prefix == 0 && !(marks && memchr(text.at, ' ', text.n))) return text;
    char *to = (char *)ttt__arena_alloc(ctx, arena, n_prefix + (marks ? 3 : 1) * (uint64_t)text.n);
    if (!to) return result;
    memcpy(to, prefix, n_prefix);
    result.at = to;
    result.n = n_prefix;
    for (size_t i = 0; i < text.n; i++) {
        bool mark = marks && text.at[i] == ' ';
        memcpy(to + result.n, mark ? TTT__MARK : text.at + i, mark ? 3 : 1);
        result.n += mark ? 3 : 1;
    }
    return result;
}

// A token as it is looked for: if it is `normalized`, in a text that went through the normalizer.
static bool ttt__read_added(ttt__token_file *r, const ttt__value *v, ttt__added *a,
                            bool *normalized) {
    const ttt__document *d = &r->d;
    ttt_tokenizer *t = r->t;
    bool special = false;
    int64_t id = 0;
    a->text = ttt__member(v, "content")->text;
    if (!ttt__member_int(d, v, "id", 0, t->n - 1, &id) ||
        !ttt__member_bool(d, v, "single_word", &a->single_word) ||
        !ttt__member_bool(d, v, "lstrip", &a->lstrip) ||
        !ttt__member_bool(d, v, "rstrip", &a->rstrip) ||
        !ttt__member_bool(d, v, "normalized", normalized) ||
        !ttt__member_bool(d, v, "special", &special) ||
        !ttt__add_token(r, a->text, id, special ? TTT__SPECIAL : 0))
        return false;
    a->id = (int32_t)id;
    a->text = ttt__rewritten(d->ctx, &d->ctx->keep, t->tokens[id],
                             *normalized && t->normal_prepend ? TTT__MARK : "",
                             *normalized && t->normal_replace);
    return !d->ctx->result;
}

static void ttt__sort_added(ttt__added_list *list, const ttt__added *from, const bool *normalized,
                            bool which, void **p, int64_t n) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        if (normalized[i] == which) p[count++] = (void *)(uintptr_t)(from + i);
    ttt__sort(p, count, ttt__by_first_byte);
    for (int64_t i = 0; i < count; i++) {
        list->at[i] = *(const ttt__added *)p[i];
        list->first[(unsigned char)*list->at[i].text.at + 1]++;
    }
    for (int byte = 0; byte < 256; byte++) list->first[byte + 1] += list->first[byte];
}

// A token that is looked for behind the normalizer stands for what it became there.
static bool ttt__set_texts(ttt__token_file *r, const ttt__added *all, int64_t n) {
    ttt_tokenizer *t = r->t;
    size_t bytes = (size_t)t->n * sizeof *t->texts;
    if (!t->normal_prepend && !t->normal_replace) return true;
    t->texts = (ttt__string *)ttt_alloc(r->d.ctx, bytes, true);
    if (!t->texts) return false;
    memcpy(t->texts, t->tokens, bytes);
    for (int64_t i = 0; i < n; i++) t->texts[all[i].id] = all[i].text;
    return true;
}

static bool ttt__read_added_tokens(ttt__token_file *r) {
    ttt_ctx *ctx = r->d.ctx;
    const ttt__value *list = ttt__member(r->d.root, "added_tokens");
    int64_t n = 0, i = 0;
    if (!list) return true;
    if (list->kind != '[')
        return ttt__wrong(r, "'added_tokens' is %s; a list expected",
                          ttt__json_kind_text(list->kind));
    for (const ttt__value *v = ttt__first_value(list); v < list->end; v = v->end) n++;
    uint64_t bytes = (uint64_t)n * sizeof(ttt__added);
    ttt__added *all = (ttt__added *)ttt_alloc(ctx, bytes, false);
    bool *normalized = (bool *)ttt_alloc(ctx, (uint64_t)n * sizeof *normalized, false);
    void **p = (void **)ttt_alloc(ctx, (uint64_t)n * sizeof *p, false);
    if (!all || !normalized || !p) return false;
    memset(all, 0, (size_t)bytes);
    for (const ttt__value *v = ttt__first_value(list); v < list->end; v = v->end, i++) {
        normalized[i] = true;
        if (!ttt__read_added(r, v, all + i, normalized + i)) return false;
    }
    for (int which = 0; which < 2; which++) {
        r->t->added[which].at = (ttt__added *)ttt_alloc(ctx, bytes, true);
        if (!r->t->added[which].at) return false;
        ttt__sort_added(r->t->added + which, all, normalized, which == 1, p, n);
    }
    return ttt__set_texts(r, all, n);
}

static bool ttt__read_tokenizer(ttt__token_file *r, size_t size) {
    static const char *const unset[] = { "truncation", "padding" };
    if (r->d.root->kind != '{') return ttt__wrong(r, "not an object");
    for (int i = 0; i < 2; i++)
        if (ttt__member(r->d.root, unset[i]))
            return ttt__wrong(r, "'%s' is set; only null is supported", unset[i]);
    return ttt__take_parts(r, "normalizer", "normalizers", ttt__take_normalizer,
                           "Prepend, Replace") &&
           ttt__take_parts(r, "pre_tokenizer", "pretokenizers", ttt__take_pre_tokenizer,
                           "Split, ByteLevel; or Metaspace") &&
           ttt__read_model(r, size) && ttt__read_added_tokens(r) &&
           ttt__take_parts(r, "post_processor", "processors", ttt__take_post_processor,
                           "ByteLevel, TemplateProcessing") &&
           (ttt__member_needed(&r->d, r->d.root, "decoder", '{') != NULL) &&
           ttt__take_parts(r, "decoder", "decoders", ttt__take_decoder,
                           "Replace, ByteFallback, Fuse, Strip; or ByteLevel, or Metaspace");
}

static ttt_tokenizer *ttt__tokenizer_new(ttt_ctx *ctx) {
    ttt_tokenizer *t = (ttt_tokenizer *)ttt_alloc(ctx, sizeof *t, true);
    if (!t) return NULL;
    memset(t, 0, sizeof *t);
    t->words = TTT__UNCUT;
    ttt__classes_set(&t->classes);
    return t;
}

// Of a text that is decoded in place. What fails leaves nothing in the keep arena.
static const ttt_tokenizer *ttt__tokenizer_of(ttt_ctx *ctx, const char *name, char *text,
                                              size_t size) {
    ttt_mark keep = ttt__arena_mark(&ctx->keep);
    ttt__token_file r;
    memset(&r, 0, sizeof r);
    if (size > INT32_MAX)
        ttt__refuse(ctx, TTT_ERR_TOO_BIG, name, "%llu bytes; 2 GiB is the limit",
                    (unsigned long long)size);
    bool good = !ctx->result && ttt__document_of(ctx, name, text, size, &r.d);
    r.t = good ? ttt__tokenizer_new(ctx) : NULL;
    if (r.t && ttt__read_tokenizer(&r, size)) return r.t;
    ttt__arena_release(&ctx->keep, keep);
    return NULL;
}

const ttt_tokenizer *ttt_tokenizer_parse(ttt_ctx *ctx, const char *name, const char *json,
                                         size_t n) {
    ttt_mark mark = ttt_mark_get(ctx);
    if (!TTT__GIVEN("tokenizer_parse", json)) return NULL;
    char *text = (char *)ttt_alloc(ctx, (uint64_t)n + 1, false);
    if (!text) return NULL;
    memcpy(text, json, n);
    const ttt_tokenizer *t = ttt__tokenizer_of(ctx, name ? name : "tokenizer in memory", text, n);
    ttt_mark_release(ctx, mark);
    return t;
}

#ifndef TTT_NO_STDIO
const ttt_tokenizer *ttt_tokenizer_read(ttt_ctx *ctx, const char *path) {
    ttt_mark mark = ttt_mark_get(ctx);
    size_t n;
    char *text = ttt_file_read(ctx, path, &n);
    const ttt_tokenizer *t = text ? ttt__tokenizer_of(ctx, path, text, n) : NULL;
    ttt_mark_release(ctx, mark);
    return t;
}
#endif

const ttt_tokenizer *ttt_tokenizer_bytes(ttt_ctx *ctx) {
    ttt_mark keep = ttt__arena_mark(&ctx->keep);
    ttt_tokenizer *t = ttt__tokenizer_new(ctx);
    char *text = (char *)ttt_alloc(ctx, 512, true);
    ttt__string *tokens = (ttt__string *)ttt_alloc(ctx, 256 * sizeof *tokens, true);
    uint8_t *flags = (uint8_t *)ttt_alloc(ctx, 256, true);
    bool good = t && text && tokens && flags &&
                ttt__index_new(ctx, &ctx->keep, tokens, 256, &t->by_text);
    if (!good) ttt__arena_release(&ctx->keep, keep);
    if (!good) return NULL;
    memset(text, 0, 512);
    memset(flags, TTT__IN_MODEL, 256);
    for (int byte = 0; byte < 256; byte++) {
        text[2 * byte] = (char)byte;
        tokens[byte].at = text + 2 * byte;
        tokens[byte].n = 1;
        *ttt__index_slot(&t->by_text, tokens[byte]) = byte;
    }
    t->n = 256;
    t->tokens = t->texts = tokens;
    t->flags = flags;
    return t;
}

int64_t ttt_vocab_size(const ttt_tokenizer *tokenizer) { return tokenizer ? tokenizer->n : 0; }

int64_t ttt_token_id(const ttt_tokenizer *tokenizer, const char *token, size_t n) {
    ttt__string s = { token, n };
    return tokenizer && token ? *ttt__index_slot(&tokenizer->by_text, s) : -1;
}

const char *ttt_token_text(const ttt_tokenizer *tokenizer, int64_t id, size_t *n) {
    bool there = tokenizer && ttt__is_token(tokenizer, id);
    if (n) *n = there ? tokenizer->tokens[id].n : 0;
    return there ? tokenizer->tokens[id].at : NULL;
}

// -- encoding. A text is cut at its added tokens; what lies between goes through the normalizer,
// is cut at added tokens once more, prepared, and cut into words. A word's units become tokens, and
// of all neighbors that can merge those of lowest rank do, the first of them first, until none can.
// No merge crosses a place whose two units are neighbors in no merged token: there words are cut
// smaller, which changes nothing and finds more of them among those that were encoded before.
typedef struct ttt__symbol {
    int32_t id, left, next;  // -1: none; id -1: merged into the one before
} ttt__symbol;

typedef struct ttt__encoder {
    ttt_ctx *ctx;
    const ttt_tokenizer *t;
    const char *text;  // the whole
    ttt__ids tokens;  // of the text so far
    ttt__symbol *symbols;
    uint64_t *queue;  // rank * 2^32 + place of the left one
    int64_t n_symbols, n_queue, room;
    ttt__index known;  // words that were encoded, and where theirs are among `tokens`
    ttt__string *words;
    int64_t *word_ids, *word_end;
    int32_t n_words, most_words;
    char *token;  // of ignore_merges: a word as a token is written
    size_t token_room;
} ttt__encoder;
enum { TTT__MOST_WORDS = 1 << 15 };

static void ttt__heap_push(uint64_t *queue, int64_t *n, uint64_t key) {
    int64_t i = (*n)++;
    for (; i > 0 && queue[(i - 1) / 2] > key; i = (i - 1) / 2) queue[i] = queue[(i - 1) / 2];
    queue[i] = key;
}

static uint64_t ttt__heap_pop(uint64_t *queue, int64_t *n) {
    uint64_t least = queue[0], key = queue[--*n];
    int64_t i = 0;
    for (int64_t child; (child = 2 * i + 1) < *n; i = child) {
        if (child + 1 < *n && queue[child + 1] < queue[child]) child++;
        if (queue[child] >= key) break;
        queue[i] = queue[child];
    }
    queue[i] = key;
    return least;
}

// Room for the symbols of a word of n bytes and for all merges that they can come to.
static bool ttt__reserve_symbols(ttt__encoder *e, int64_t n) {
    if (n <= e->room) return true;
    e->room = TTT__MAX(64, 2 * n);
    ttt__arena *scratch = &e->ctx->scratch;
    e->symbols = (ttt__symbol *)ttt__arena_alloc(e->ctx, scratch,
                                                 (uint64_t)e->room * sizeof *e->symbols);
    e->queue = (uint64_t *)ttt__arena_alloc(e->ctx, scratch,
                                           (uint64_t)e->room * 3 * sizeof *e->queue);
    return e->symbols && e->queue;
}

static void ttt__add_symbol(ttt__encoder *e, int32_t id) {
    ttt__symbol *s = e->symbols + e->n_symbols;
    s->id = id;
    s->left = (int32_t)e->n_symbols - 1;
    s->next = (int32_t)++e->n_symbols;
}

// The tokens of the bytes of a unit that has no token of its own. False if one of them has none.
static bool ttt__add_bytes(ttt__encoder *e, const char *p, int n) {
    char mapped[4];
    if (e->t->byte_level) {
        n = ttt__utf8_put(ttt__char_of_byte((unsigned char)*p), mapped);
        p = mapped;
    }
    for (int i = 0; i < n; i++)
        if (e->t->byte_token[(unsigned char)p[i]] < 0) return false;
    for (int i = 0; i < n; i++) ttt__add_symbol(e, e->t->byte_token[(unsigned char)p[i]]);
    return true;
}

// The next unit of a text, *n its bytes.
static int32_t ttt__unit_at(const ttt_tokenizer *t, const char *p, int *n) {
    *n = 1;
    return t->byte_level || (unsigned char)*p < 0x80 ? (unsigned char)*p : ttt__code_at(p, n);
}

// One unk_token for each unknown unit or, with fuse_unk, for all in a row. It is written when what
// follows is known; tokens of bytes do not count as known, in the package's code as here.
static void ttt__add_units(ttt__encoder *e, ttt__string word) {
    const ttt_tokenizer *t = e->t;
    bool pending = false;
    int n;
    e->n_symbols = 0;
    for (const char *p = word.at, *end = p + word.n; p < end; p += n) {
        int32_t id = ttt__pairs_find(&t->units, ttt__unit_at(t, p, &n), 0);
        if (id >= 0) {
            if (pending) ttt__add_symbol(e, t->unknown);
            pending = false;
            ttt__add_symbol(e, id);
        } else if (!(t->byte_fallback && ttt__add_bytes(e, p, n)) && t->unknown != TTT__NO_UNK) {
            if (t->unknown == TTT__LOST_UNK)
                ttt_fail(e->ctx, TTT_ERR_ARGUMENT, "encode: '%.*s' is unknown, and the "
                         "unk_token is not in the vocabulary", n, p);
            if (pending && !t->fuse_unk) ttt__add_symbol(e, t->unknown);
            pending = true;
        }
    }
    if (pending) ttt__add_symbol(e, t->unknown);
    if (e->n_symbols) e->symbols[e->n_symbols - 1].next = -1;
}

// Notes that symbol i and the next can merge, if they can.
static void ttt__note_merge(ttt__encoder *e, int32_t i) {
    const ttt__symbol *s = e->symbols + i;
    if (i < 0 || s->next < 0) return;
    int32_t rank = ttt__pairs_find(&e->t->merges, s->id, e->symbols[s->next].id);
    if (rank >= 0) ttt__heap_push(e->queue, &e->n_queue, (uint64_t)rank << 32 | (uint32_t)i);
}

static void ttt__merge_symbols(ttt__encoder *e) {
    const ttt_tokenizer *t = e->t;
    e->n_queue = 0;
    for (int64_t i = 0; i + 1 < e->n_symbols; i++) ttt__note_merge(e, (int32_t)i);
    while (e->n_queue > 0) {
        uint64_t top = ttt__heap_pop(e->queue, &e->n_queue);
        int32_t i = (int32_t)(top & 0xffffffff), merged = t->merged[top >> 32];
        ttt__symbol *s = e->symbols + i, *right = s->next < 0 ? NULL : e->symbols + s->next;
        if (s->id < 0 || !right) continue;
        int32_t rank = ttt__pairs_find(&t->merges, s->id, right->id);
        if (rank < 0 || t->merged[rank] != merged) continue;  // one of the two has merged
        s->id = merged;
        right->id = -1;
        s->next = right->next;
        if (s->next >= 0) e->symbols[s->next].left = i;
        ttt__note_merge(e, s->left);
        ttt__note_merge(e, i);
    }
}

static void ttt__know_word(ttt__encoder *e, ttt__string word, int64_t begin) {
    if (e->n_words == e->most_words) return;
    e->words[e->n_words] = word;
    e->word_ids[e->n_words] = begin;
    e->word_end[e->n_words] = e->tokens.n;
    *ttt__index_slot(&e->known, word) = e->n_words;
    e->n_words++;
}

// Once a word is known its ids are copied from where they are. The word itself stays where it is.
static void ttt__encode_word(ttt__encoder *e, ttt__string word) {
    int32_t known = *ttt__index_slot(&e->known, word);
    int64_t begin = e->tokens.n;
    ttt__arena *scratch = &e->ctx->scratch;
    if (known >= 0) {
        for (int64_t i = e->word_ids[known]; i < e->word_end[known]; i++)
            if (!ttt__add_id(e->ctx, scratch, &e->tokens, e->tokens.at[i])) return;
        return;
    }
    if (!ttt__reserve_symbols(e, 2 * (int64_t)word.n)) return;
    ttt__add_units(e, word);
    ttt__merge_symbols(e);
    for (int64_t i = 0; i < e->n_symbols; i++)
        if (e->symbols[i].id >= 0 && !ttt__add_id(e->ctx, scratch, &e->tokens, e->symbols[i].id))
            return;
    ttt__know_word(e, word, begin);
}

// ignore_merges: the id of a word that is a token as it stands; -1 if it is none.
static int32_t ttt__whole_token(ttt__encoder *e, ttt__string word) {
    if (!e->t->byte_level) return ttt__model_token(e->t, word);
    ttt__string token = { NULL, 0 };
    if (e->token_room < 2 * word.n) {
        e->token_room = 4 * word.n;
        e->token = (char *)ttt__arena_alloc(e->ctx, &e->ctx->scratch, e->token_room);
        if (!e->token) return -1;
    }
    for (size_t i = 0; i < word.n; i++)
        token.n += (size_t)ttt__utf8_put(ttt__char_of_byte((unsigned char)word.at[i]),
                                         e->token + token.n);
    token.at = e->token;
    return ttt__model_token(e->t, token);
}

static void ttt__encode_cut(ttt__encoder *e, ttt__string word) {
    const ttt_tokenizer *t = e->t;
    const char *begin = word.at, *end = word.at + word.n;
    int32_t whole = t->ignore_merges ? ttt__whole_token(e, word) : -1, before = -1;
    if (whole >= 0) {
        ttt__add_id(e->ctx, &e->ctx->scratch, &e->tokens, whole);
        return;
    }
    int n;
    for (const char *p = begin; p < end && !e->ctx->result; p += n) {
        int32_t unit = ttt__unit_at(t, p, &n);
        if (ttt__pairs_find(&t->units, unit, 0) < 0) unit = -1;  // cut at known units only
        if (before >= 0 && unit >= 0 && ttt__pairs_find(&t->joins, before, unit) < 0) {
            ttt__string part = { begin, (size_t)(p - begin) };
            ttt__encode_word(e, part);
            begin = p;
        }
        before = unit;
    }
    ttt__string last = { begin, (size_t)(end - begin) };
    if (!e->ctx->result) ttt__encode_word(e, last);
}

static bool ttt__begins(ttt__string text, const char *with) {
    size_t n = strlen(with);
    return text.n >= n && memcmp(text.at, with, n) == 0;
}

// The end of the word at p.
static const char *ttt__word_end(const ttt_tokenizer *t, const char *p, const char *end) {
    if (t->words == TTT__GPT2) return ttt__word_end_gpt2(&t->classes, p, end);
    if (t->words > 0) return ttt__word_end_gpt4(&t->classes, p, end, t->words);
    if (!t->metaspace || !t->metaspace_split) return end;
    for (p++; p < end; p++)  // each mark begins a word
        if (*p == TTT__MARK[0] && end - p >= 3 && memcmp(p, TTT__MARK, 3) == 0) return p;
    return end;
}

// A text without added tokens.
static void ttt__encode_plain(ttt__encoder *e, ttt__string text, bool first) {
    const ttt_tokenizer *t = e->t;
    const char *prefix = "";
    if (text.n == 0) return;
    if (t->prefix_space && *text.at != ' ') prefix = " ";
    if (t->metaspace && *text.at != ' ' && !ttt__begins(text, TTT__MARK) &&
        (t->metaspace_prefix == TTT__ALWAYS || (t->metaspace_prefix == TTT__FIRST && first)))
        prefix = TTT__MARK;
    text = ttt__rewritten(e->ctx, &e->ctx->scratch, text, prefix, t->metaspace);
    for (const char *p = text.at, *end = p + text.n; p < end && !e->ctx->result;) {
        const char *q = ttt__word_end(t, p, end);
        ttt__string word = { p, (size_t)(q - p) };
        ttt__encode_cut(e, word);
        p = q;
    }
}

// The added token that begins soonest at or after p, and of those the longest; NULL if none does.
static const ttt__added *ttt__find_added(const ttt__added_list *list, const char **p,
                                         const char *end) {
    if (!list->first[256]) return NULL;
    for (; *p < end; ++*p) {
        unsigned char byte = (unsigned char)**p;
        for (int32_t i = list->first[byte]; i < list->first[byte + 1]; i++) {
            const ttt__added *a = list->at + i;
            if (a->text.n <= (size_t)(end - *p) && memcmp(*p, a->text.at, a->text.n) == 0) return a;
        }
    }
    return NULL;
}

// Whether the character before or after the place p belongs to a word.
static bool ttt__in_word(const ttt__classes *classes, const char *p, const char *begin,
                         const char *end) {
    int n;
    const char *q = begin < p ? ttt__code_before(p) : p;
    return begin != end && q < end && strchr(TTT__WORDS, ttt__class_at(classes, q, &n));
}

static void ttt__encode_between(ttt__encoder *e, ttt__string text, bool normalized, bool first);

// Cuts the text at its added tokens. A token that would have to be a word of its own and is none
// counts as found all the same: no other is looked for inside it.
static void ttt__encode_split(ttt__encoder *e, ttt__string text, bool normalized, bool first) {
    const ttt_tokenizer *t = e->t;
    const char *done = text.at, *end = text.at + text.n, *p = text.at, *from;
    const ttt__added *a;
    for (; (a = ttt__find_added(&t->added[normalized], &p, end)) && !e->ctx->result;) {
        from = p;
        p += a->text.n;
        if (a->single_word && (ttt__in_word(&t->classes, from, text.at, from) ||
                               ttt__in_word(&t->classes, p, p, end)))
            continue;
        const char *to = a->rstrip ? ttt__skip(&t->classes, p, end, "s") : p;
        for (int n; a->lstrip && from > done; from = ttt__code_before(from))
            if (ttt__class_at(&t->classes, ttt__code_before(from), &n) != 's') break;
        if (done < from) {
            ttt__string part = { done, (size_t)(from - done) };
            ttt__encode_between(e, part, normalized, first && done == text.at);
        }
        ttt__add_id(e->ctx, &e->ctx->scratch, &e->tokens, a->id);
        done = to;
    }
    ttt__string rest = { done, (size_t)(end - done) };
    ttt__encode_between(e, rest, normalized, first && done == text.at);
}

// What lies between added tokens. `first`: at the beginning of the whole text.
static void ttt__encode_between(ttt__encoder *e, ttt__string text, bool normalized, bool first) {
    const ttt_tokenizer *t = e->t;
    if (text.n == 0 || e->ctx->result) return;
    if (normalized) {
        ttt__encode_plain(e, text, first);
        return;
    }
    text = ttt__rewritten(e->ctx, &e->ctx->scratch, text, t->normal_prepend ? TTT__MARK : "",
                          t->normal_replace);
    ttt__encode_split(e, text, true, first);
}

static bool ttt__encoder_new(ttt__encoder *e, size_t n) {
    ttt__arena *scratch = &e->ctx->scratch;
    e->most_words = n < TTT__MOST_WORDS ? (int32_t)n : TTT__MOST_WORDS;
    uint64_t most = (uint64_t)e->most_words;
    e->words = (ttt__string *)ttt__arena_alloc(e->ctx, scratch, most * sizeof *e->words);
    e->word_ids = (int64_t *)ttt__arena_alloc(e->ctx, scratch, most * sizeof *e->word_ids);
    e->word_end = (int64_t *)ttt__arena_alloc(e->ctx, scratch, most * sizeof *e->word_end);
    return e->words && e->word_ids && e->word_end &&
           ttt__index_new(e->ctx, scratch, e->words, e->most_words, &e->known);
}

static bool ttt__can_encode(ttt_ctx *ctx, const ttt_tokenizer *t, const char *text, size_t n) {
    if (n >= (size_t)1 << 30) {
        ttt_fail(ctx, TTT_ERR_TOO_BIG, "encode: a text of %llu bytes; less than 2^30 expected",
                 (unsigned long long)n);
        return false;
    }
    const char *p = text, *end = text + n;
    for (int length; t->decoder != TTT__BYTES && p < end; p += length) {
        length = ttt__utf8(p, end);
        if (length) continue;
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "encode: the text is not UTF-8 at byte %lld",
                 (long long)(p - text));
        return false;
    }
    return true;
}

static void ttt__copy_ids(int64_t **to, const ttt__ids *list) {
    for (int64_t i = 0; i < list->n; i++) *(*to)++ = list->at[i];
}

ttt_tensor *ttt_encode(ttt_ctx *ctx, const ttt_tokenizer *tokenizer, const char *text, size_t n,
                       bool add_special) {
    if (!TTT__GIVEN("encode", tokenizer) || !TTT__GIVEN("encode", text) ||
        !ttt__can_encode(ctx, tokenizer, text, n))
        return &ctx->empty;
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    bool bytes = tokenizer->decoder == TTT__BYTES;
    ttt__string whole = { text, n };
    ttt__encoder e;
    memset(&e, 0, sizeof e);
    e.ctx = ctx;
    e.t = tokenizer;
    if (!bytes && n && ttt__encoder_new(&e, n)) ttt__encode_split(&e, whole, false, true);
    int64_t size = bytes ? (int64_t)n : e.tokens.n;
    if (add_special) size += tokenizer->before.n + tokenizer->after.n;
    ttt_tensor *tokens = ttt_new_typed(ctx, TTT_SHAPE(size), TTT_DTYPE_INT, false);
    if (!ctx->result) {
        int64_t *to = tokens->index;
        if (add_special) ttt__copy_ids(&to, &tokenizer->before);
        for (size_t i = 0; bytes && i < n; i++) *to++ = (unsigned char)text[i];
        ttt__copy_ids(&to, &e.tokens);
        if (add_special) ttt__copy_ids(&to, &tokenizer->after);
    }
    ttt__arena_release(&ctx->scratch, scratch);
    return tokens;
}

// -- decoding
// Whether a token is written <0x00> .. <0xFF> and stands for that byte.
static bool ttt__byte_of_token(const ttt_tokenizer *t, ttt__string token, char *byte) {
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *high, *low;
    if (!t->decode_bytes || token.n != 6 || memcmp(token.at, "<0x", 3) != 0 || token.at[5] != '>')
        return false;
    if (!token.at[3] || !token.at[4] || !(high = strchr(digits, token.at[3])) ||
        !(low = strchr(digits, token.at[4])))
        return false;
    *byte = (char)((high - digits) % 16 * 16 + (low - digits) % 16);
    return true;
}

// Writes the bytes of a token, no more than it has itself; `first` is the first of a text. Returns
// how many.
static size_t ttt__decode_token(const ttt_tokenizer *t, ttt__string token, bool first, char *to) {
    const char *p = token.at, *end = p + token.n;
    size_t n = 0;
    int length;
    if (t->decoder == TTT__BYTES || ttt__byte_of_token(t, token, to)) {
        if (t->decoder == TTT__BYTES) *to = *p;
        return 1;
    }
    for (; t->decoder == TTT__BYTE_LEVEL && p < end; p += length) {
        int byte = ttt__byte_of_char(ttt__code_at(p, &length));
        if (byte < 0) break;
        to[n++] = (char)byte;
    }
    if (t->decoder == TTT__BYTE_LEVEL && p == end) return n;
    bool marks = t->decoder == TTT__METASPACE || t->decode_marks;
    bool drop = t->decoder == TTT__METASPACE && t->strip && first;
    for (n = 0, p = token.at; p < end;) {
        bool mark = marks && end - p >= 3 && memcmp(p, TTT__MARK, 3) == 0;
        if (!mark) to[n++] = *p;
        else if (!drop) to[n++] = ' ';
        p += mark ? 3 : 1;
    }
    return n;
}

// Copies the characters among n bytes; U+FFFD stands for each broken part, or with `each` for each
// of its bytes. Unless it is the end, the beginning of a character is left; *used tells.
static size_t ttt__mend(const char *from, size_t n, bool is_end, bool each, char *to,
                        size_t *used) {
    const char *p = from, *end = from + n;
    size_t written = 0;
    while (p < end) {
        int whole, part = ttt__utf8_part(p, end, &whole);
        if (part < whole && p + part == end && !is_end) break;
        if (part == whole) memcpy(to + written, p, (size_t)part);
        if (part == whole) written += (size_t)part;
        for (int i = 0; part != whole && i < (each ? part : 1); i++, written += 3)
            memcpy(to + written, "\xef\xbf\xbd", 3);
        p += part;
    }
    *used = (size_t)(p - from);
    return written;
}

static bool ttt__id_good(ttt_ctx *ctx, const ttt_tokenizer *t, int64_t id) {
    if (!ttt__is_token(t, id))
        ttt_fail(ctx, TTT_ERR_ARGUMENT, "decode: the id %lld names no token of the %lld",
                 (long long)id, (long long)t->n);
    return !ctx->result;
}

// A run of byte tokens is UTF-8 as a whole, or all of it is broken.
static size_t ttt__close_run(char *run, size_t n) {
    size_t good = 0;
    for (int length; good < n; good += (size_t)length) {
        length = ttt__utf8(run + good, run + n);
        if (length == 0) break;
    }
    if (good == n) return n;
    for (size_t i = 0; i < n; i++) memcpy(run + 3 * i, "\xef\xbf\xbd", 3);
    return 3 * n;
}

// All tokens, one behind the other. There is room for 3 bytes for each of theirs.
static size_t ttt__decode_all(const ttt_tokenizer *t, const ttt_tensor *tokens, bool skip_special,
                              char *to) {
    size_t n = 0, run = 0;  // run: bytes at the end that are from byte tokens
    bool first = true;
    char byte;
    for (int64_t i = 0; i < tokens->size; i++) {
        ttt__string token = t->texts[tokens->index[i]];
        if (skip_special && (t->flags[tokens->index[i]] & TTT__SPECIAL)) continue;
        bool in_run = ttt__byte_of_token(t, token, &byte);
        if (!in_run && run) n += ttt__close_run(to + n - run, run) - run;
        size_t more = ttt__decode_token(t, token, first, to + n);
        n += more;
        run = in_run ? run + more : 0;
        first = false;
    }
    return run ? n + ttt__close_run(to + n - run, run) - run : n;
}

char *ttt_decode(ttt_ctx *ctx, const ttt_tokenizer *tokenizer, ttt_tensor *tokens,
                 bool skip_special, size_t *n) {
    const ttt_tokenizer *t = tokenizer;
    uint64_t room = 0;
    if (n) *n = 0;
    if (!TTT__GIVEN("decode", tokenizer) || !ttt__operand(ctx, "decode", tokens, 0, TTT__INT))
        return NULL;
    for (int64_t i = 0; i < tokens->size && !ctx->result; i++)
        if (ttt__id_good(ctx, t, tokens->index[i]))
            room += 3 * (uint64_t)t->texts[tokens->index[i]].n;
    char *text = (char *)ttt_alloc(ctx, room + 1, false);
    if (!text) return NULL;
    ttt_mark scratch = ttt__arena_mark(&ctx->scratch);
    char *raw = (char *)ttt__arena_alloc(ctx, &ctx->scratch, room + 1);
    if (!raw) return NULL;
    size_t size = ttt__decode_all(t, tokens, skip_special, raw), used, cut = 0;
    if (t->decoder == TTT__REPLACE)
        while (cut < (size_t)t->strip && cut < size && raw[cut] == ' ') cut++;
    if (t->decoder == TTT__BYTES) memcpy(text, raw, size);
    else size = ttt__mend(raw + cut, size - cut, true, false, text, &used);
    text[size] = 0;
    if (n) *n = size;
    ttt__arena_release(&ctx->scratch, scratch);
    return text;
}

// Gives what the held bytes and n more have come to.
static const char *ttt__decoder_give(ttt_ctx *ctx, ttt_decoder *d, const char *raw, size_t n_raw,
                                     bool is_end, bool each, char *to, size_t *n) {
    const ttt_tokenizer *t = d->tokenizer;
    size_t used, cut = 0;
    *n = ttt__mend(raw, n_raw, is_end, each, to, &used);
    d->n_held = (int)(n_raw - used);
    memcpy(d->held, raw + used, n_raw - used);
    if (t->decoder == TTT__REPLACE)
        for (; cut < *n && d->stripped < t->strip; cut++, d->stripped++)
            if (to[cut] != ' ') break;
    if (cut < *n) d->stripped = t->strip;
    *n -= cut;
    to[cut + *n] = 0;
    return ctx->result ? "" : to + cut;
}

const char *ttt_decoder_push(ttt_ctx *ctx, ttt_decoder *decoder, int64_t id, size_t *n) {
    ttt_decoder *d = decoder;
    size_t none, size = 0;
    char byte;
    if (!n) n = &none;
    *n = 0;
    if (!TTT__GIVEN("decoder_push", decoder) ||
        !TTT__GIVEN("decoder_push", decoder->tokenizer) ||
        !ttt__id_good(ctx, d->tokenizer, id))
        return "";
    const ttt_tokenizer *t = d->tokenizer;
    if (d->skip_special && (t->flags[id] & TTT__SPECIAL)) return "";
    ttt__string token = t->texts[id];
    uint64_t room = 3 * ((uint64_t)token.n + sizeof d->held) + 1;
    char *to = (char *)ttt_alloc(ctx, 2 * room, false), *raw = to + room;
    if (!to) return "";
    bool is_byte = ttt__byte_of_token(t, token, &byte);
    if (t->decode_bytes && !is_byte) {  // the run ends: its bytes are no part of what follows
        size = ttt__mend(d->held, (size_t)d->n_held, true, true, raw, &none);
    } else {
        memcpy(raw, d->held, (size_t)d->n_held);
        size = (size_t)d->n_held;
    }
    size += ttt__decode_token(t, token, !d->begun, raw + size);
    d->begun = true;
    return ttt__decoder_give(ctx, d, raw, size, t->decode_bytes && !is_byte, t->decode_bytes, to,
                             n);
}

const char *ttt_decoder_end(ttt_ctx *ctx, ttt_decoder *decoder, size_t *n) {
    size_t none;
    if (!n) n = &none;
    *n = 0;
    if (!TTT__GIVEN("decoder_end", decoder) ||
        !TTT__GIVEN("decoder_end", decoder->tokenizer))
        return "";
    char raw[sizeof decoder->held];
    char *to = (char *)ttt_alloc(ctx, 3 * sizeof raw + 1, false);
    if (!to) return "";
    size_t held = (size_t)decoder->n_held;
    memcpy(raw, decoder->held, held);
    const char *text = ttt__decoder_give(ctx, decoder, raw, held, true,
                                         decoder->tokenizer->decode_bytes, to, n);
    decoder->begun = false;
    decoder->stripped = 0;
    return text;
}
#endif  // TTT_NO_TOKENIZERS

TTT__PRECISE_END
#define TTT__PART TTT__CLOSE
#include TTT__TENSOR_FILE
#undef TTT__PART

/*  REFERENCES
    Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011.
    Box, Muller: A note on the generation of random normal deviates. 1958.
    Bray (ed.): The JavaScript Object Notation (JSON) data interchange format. RFC 8259, 2017.
    Yergeau: UTF-8, a transformation format of ISO 10646. RFC 3629, 2003.
    Deutsch: DEFLATE compressed data format specification version 1.3. RFC 1951, 1996.
    Deutsch: GZIP file format specification version 4.3. RFC 1952, 1996.
    LeCun, Cortes, Burges: The MNIST database of handwritten digits, "file formats".
    Sennrich, Haddow, Birch: Neural machine translation of rare words with subword units. ACL 2016.
    Radford et al.: Language models are unsupervised multitask learners (GPT-2). 2019.
    Kudo, Richardson: SentencePiece. EMNLP 2018. Byte fallback, and U+2581 for blanks.
    The Unicode Standard, version 16.0: UnicodeData.txt, PropList.txt; UTS 18, annex C.
    https://github.com/huggingface/tokenizers, what a tokenizer.json means.

    LICENSE: MIT No Attribution (MIT-0)
    Permission is hereby granted, free of charge, to any person obtaining a copy of this software
    and associated documentation files (the "Software"), to deal in the Software without
    restriction, including without limitation the rights to use, copy, modify, merge, publish,
    distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
    Software is furnished to do so. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND.
*/
#endif  // TTT_DATA_IMPLEMENTED
#endif  // TTT_DATA_IMPLEMENTATION
