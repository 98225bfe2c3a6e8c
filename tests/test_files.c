// test_files.c - tests of ttt_data.h, sections [2] to [4]: whole files, safetensors, .npy, and the
// JSON reader below them. test_data.c has the rest.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#ifdef _WIN32
#include <direct.h>
#include <process.h>
#define mkdir(path, mode) _mkdir(path)
#define rmdir _rmdir
#define getpid _getpid
#define fileno _fileno
#define NULL_DEVICE "NUL"
#else
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#define NULL_DEVICE "/dev/null"
#endif

// Memory that can be made to fail: the allocation after `allocations_left` others gives NULL, and
// so do all later ones if fail_for_good. Negative: none fails.
static long allocations_left = -1, blocks_alive;
static bool fail_for_good, allocation_failed;
// Bytes that are taken, and the most that ever were. Each block begins with its size.
static size_t bytes_alive, bytes_most;
enum { BLOCK_HEAD = 16 };
static void *test_realloc(void *p, size_t n) {
    size_t was = 0;
    if (allocations_left == 0) {
        if (!fail_for_good) allocations_left = -1;
        allocation_failed = true;
        return NULL;
    }
    if (allocations_left > 0) allocations_left--;
    char *old = p ? (char *)p - BLOCK_HEAD : NULL;
    if (old) memcpy(&was, old, sizeof was);
    char *q = (char *)realloc(old, n + BLOCK_HEAD);
    if (!q) return NULL;
    memcpy(q, &n, sizeof n);
    blocks_alive += !p;
    bytes_alive += n - was;
    if (bytes_alive > bytes_most) bytes_most = bytes_alive;
    return q + BLOCK_HEAD;
}
static void test_free(void *p) {
    size_t n;
    if (!p) return;
    memcpy(&n, (char *)p - BLOCK_HEAD, sizeof n);
    bytes_alive -= n;
    blocks_alive--;
    free((char *)p - BLOCK_HEAD);
}
#define TTT_MALLOC(user, n) ((void)(user), test_realloc(NULL, n))
#define TTT_REALLOC(user, p, n) ((void)(user), test_realloc(p, n))
#define TTT_FREE(user, p) ((void)(user), test_free(p))
// How often two names were compared.
static long comparisons;
static int counted_strcmp(const char *a, const char *b) {
    comparisons++;
    return strcmp(a, b);
}
#undef strcmp
#define strcmp counted_strcmp
#define TTT_IMPLEMENTATION
#include "../ttt_data.h"
#include "ttt_test.h"

#define REAL_NAME (DOUBLE ? "F64" : "F32")

// One tensor in the header of a safetensors file, and the header of a file of one.
#define ENTRY(name, dtype, shape, offsets) \
    "\"" name "\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ONE(dtype, shape, offsets) "{" ENTRY("w", dtype, shape, offsets) "}"
#define F32(shape, offsets) ONE("\"F32\"", shape, offsets)

// ---- a folder of our own, and files in it -------------------------------------------------------
static char folder[600];
static char made[400][64];
static int n_made;
static const char *self;  // this program

static void make_folder(void) {
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.400s/ttt_test_files_%ld",
             parent && *parent ? parent : "/tmp", (long)getpid());
    mkdir(folder, 0777);
}

// The path of a file in the folder, removed at the end. Good until 8 others were asked for.
static const char *at(const char *name) {
    static char paths[8][800];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    for (int i = 0; i < n_made; i++)
        if (strcmp(made[i], name) == 0) return path;
    snprintf(made[n_made++ % COUNT(made)], sizeof made[0], "%s", name);
    return path;
}

// Whether the folder holds nothing but files that a test asked for: then removing those empties it.
static bool remove_folder(void) {
    for (int i = 0; i < n_made; i++) remove(at(made[i]));
    n_made = 0;
    return rmdir(folder) == 0;
}

static void put(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(bytes, 1, n, f) == n);
    CHECK(f && fclose(f) == 0);
}

// Bytes of a file in a block to free; NULL if there is none.
static unsigned char *get(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    unsigned char *p = f ? (unsigned char *)malloc(1 << 22) : NULL;
    *n = p ? fread(p, 1, 1 << 22, f) : 0;
    if (f) fclose(f);
    return p;
}

static size_t safetensors_bytes(unsigned char *to, const char *header, const void *data, size_t n) {
    size_t length = strlen(header);
    for (int i = 0; i < 8; i++) to[i] = (unsigned char)((uint64_t)length >> 8 * i);
    memcpy(to + 8, header, length);
    if (n) memcpy(to + 8 + length, data, n);
    return 8 + length + n;
}

static const char *safetensors(const char *name, const char *header, const void *data, size_t n) {
    unsigned char *p = (unsigned char *)malloc(8 + strlen(header) + n);
    const char *path = at(name);
    put(path, p, safetensors_bytes(p, header, data, n));
    free(p);
    return path;
}

static bool exists(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

// Whether the context's error is of kind r and its text holds both; clears it.
static bool says(ttt_ctx *c, ttt_result r, const char *a, const char *b) {
    bool good = ttt_status(c) == r && strstr(ttt_error(c), a) && strstr(ttt_error(c), b);
    if (!good)
        printf("  %d \"%s\"\n    where %d with \"%s\" and \"%s\" was expected\n", ttt_status(c),
               ttt_error(c), r, a, b);
    ttt_clear(c);
    return good;
}

static ttt_result save(ttt_ctx *c, const char *path, const char *name, ttt_tensor *t, bool bf16) {
    ttt_named named = { name, t };
    ttt_bundle b = { &named, 1, NULL, 0 };
    return ttt_safetensors_write(c, path, &b, bf16);
}

static const void *elements(const ttt_tensor *t) {
#define X(name, type, member, text) if (t->member) return t->member;
    TTT_DTYPES(X)
#undef X
    return NULL;
}
static bool same(const ttt_tensor *a, const ttt_tensor *b) {
    if (!a || !b || a->dtype != b->dtype || a->size != b->size) return false;
    size_t bytes = (size_t)a->size * ttt__element_bytes(a->dtype);
    return ttt_shape_equal(a->shape, b->shape) && memcmp(elements(a), elements(b), bytes) == 0;
}

// Any numbers of a type, all of its bits among them.
static ttt_tensor *numbers(ttt_ctx *c, ttt_shape s, ttt_dtype dtype) {
    ttt_tensor *t = ttt_new_typed(c, s, dtype, false), *normal = ttt_randn(c, s);
    for (int64_t k = 0; k < t->size; k++) {
        if (t->data) t->data[k] = normal->data[k];
        if (t->index) t->index[k] = (k % 2 ? INT64_MIN : INT64_MAX) / (k / 2 + 1);
        if (t->u8) t->u8[k] = (uint8_t)(37 * k);
        if (t->bf16) t->bf16[k] = (uint16_t)(40503 * k);
    }
    for (size_t k = 0; t->stored && k < (size_t)t->size * ttt__element_bytes(t->dtype); k++)
        ((uint8_t *)t->stored)[k] = (uint8_t)(101 * k + k / 256);
    return t;
}

// The sign, of zeros and NaNs as well.
static bool minus(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits >> 63 != 0;
}

// ---- safetensors: what is written comes back ----------------------------------------------------
static const ttt_shape *test_shapes(int *n) {
    static ttt_shape s[9];
    s[0] = ttt_scalar_shape();
    s[1] = TTT_SHAPE(0);
    s[2] = TTT_SHAPE(1);
    s[3] = TTT_SHAPE(7);
    s[4] = TTT_SHAPE(2, 3);
    s[5] = TTT_SHAPE(2, 0, 4);
    s[6] = TTT_SHAPE(1, 2, 1, 2, 1, 2, 1, 3);
    s[7] = TTT_SHAPE(3, 5, 7);
    s[8] = TTT_SHAPE(70001);  // more than one chunk
    *n = COUNT(s);
    return s;
}

static void every_shape_comes_back(void) {
    int n;
    const ttt_shape *s = test_shapes(&n);
    const char *path = at("shape.safetensors"), *npy = at("shape.npy"), *none = at("none.npy");
    for (int i = 0; i < TTT__N_DTYPES * n; i++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt_tensor *t = numbers(c, s[i / TTT__N_DTYPES], (ttt_dtype)(i % TTT__N_DTYPES)), *back;
        ttt_bundle b;
        CHECK(save(c, path, "w", t, false) == TTT_OK);
        CHECK(ttt_safetensors_read(c, path, &b) == TTT_OK && b.n_tensors == 1 && b.n_notes == 0);
        CHECK(same(t, ttt_bundle_find(&b, "w")));
        if (t->bf16) {
            CHECK(ttt_npy_write(c, none, t) == TTT_ERR_ARGUMENT && !exists(none));
            CHECK(says(c, TTT_ERR_ARGUMENT, "none.npy: .npy has no bfloat16", "ttt_cast"));
            t = ttt_cast(c, t, TTT_DTYPE_REAL);
        }
        CHECK(ttt_npy_write(c, npy, t) == TTT_OK && ttt_npy_read(c, npy, &back) == TTT_OK);
        CHECK(same(t, back) && ttt_ok(c));
        ttt_close(c);
    }
}

// Payloads of NaNs (signaling ones too), infinities, minus zero and subnormals are moved; nothing
// computes with them.
static void every_bit_comes_back(void) {
    static const uint32_t bits32[12] = {
        0x7fc00001, 0x7f800001, 0xffc12345, 0xff812345, 0x7f800000, 0xff800000,
        0x80000000, 0,          1,          0x807fffff, 0x7f7fffff, 0x3f800001,
    };
    static const uint64_t bits64[12] = {
        0x7ff8000000000001, 0x7ff0000000000001, 0xfff8123456789abc, 0xfff0000000012345,
        0x7ff0000000000000, 0xfff0000000000000, 0x8000000000000000, 0,
        1,                  0x800fffffffffffff, 0x7fefffffffffffff, 0x3ff0000000000001,
    };
    ttt_ctx *c = ttt_open(NULL);
    ttt_tensor *t = ttt_new(c, TTT_SHAPE(3, 4)), *back;
    memcpy(t->data, DOUBLE ? (const void *)bits64 : (const void *)bits32, 12 * sizeof(ttt_real));
    const char *path = at("bits.safetensors"), *npy = at("bits.npy");
    ttt_bundle b;
    CHECK(save(c, path, "w", t, false) == TTT_OK && ttt_safetensors_read(c, path, &b) == TTT_OK);
    CHECK(same(t, ttt_bundle_find(&b, "w")));
    CHECK(ttt_npy_write(c, npy, t) == TTT_OK && ttt_npy_read(c, npy, &back) == TTT_OK &&
          same(t, back));
    ttt_close(c);
}

static void bf16_is_rounded_to_nearest_even(void) {
    static const uint32_t pair[][2] = {
        { 0x3f800000, 0x3f80 }, { 0x3f808000, 0x3f80 }, { 0x3f818000, 0x3f82 },
        { 0x3f808001, 0x3f81 }, { 0x3f807fff, 0x3f80 }, { 0x7f7fffff, 0x7f80 },
        { 0x7f7f7fff, 0x7f7f }, { 0x7f7f8000, 0x7f80 }, { 0x80000000, 0x8000 },
        { 0xff800000, 0xff80 }, { 0x00008000, 0x0000 }, { 0x00008001, 0x0001 },
        { 0x80018000, 0x8002 }, { 0xbfffffff, 0xc000 },
    };
    ttt_ctx *c = ttt_open(NULL);
    ttt_tensor *t = ttt_new(c, TTT_SHAPE(COUNT(pair) + 2));
    for (int i = 0; i < COUNT(pair); i++) ttt__real_of_32(t->data + i, pair[i][0]);
    ttt__real_of_32(t->data + COUNT(pair), 0x7f800001);  // NaNs whose payload is lost
    ttt__real_of_32(t->data + COUNT(pair) + 1, 0xffffffff);
    const char *path = at("bf16.safetensors");
    ttt_bundle b;
    size_t n;
    CHECK(save(c, path, "w", t, true) == TTT_OK && ttt_safetensors_read(c, path, &b) == TTT_OK);
    ttt_tensor *stored = ttt_bundle_find(&b, "w"), *back = NULL;
    CHECK(stored && stored->dtype == TTT_DTYPE_BF16 && stored->bf16 && !stored->data);
    if (stored) back = ttt_cast(c, stored, TTT_DTYPE_REAL);
    unsigned char *p = get(path, &n), *data = p + n - 2 * t->size;
    CHECK(p && strstr((char *)p + 8, "\"BF16\""));
    for (int i = 0; i < COUNT(pair) && p && back; i++) {
        ttt_real expected;
        ttt__real_of_32(&expected, pair[i][1] << 16);
        CHECK((uint32_t)(data[2 * i] | data[2 * i + 1] << 8) == pair[i][1]);
        CHECK(stored->bf16[i] == pair[i][1]);
        CHECK(memcmp(&expected, back->data + i, sizeof expected) == 0);
    }
    for (int i = COUNT(pair); back && i < t->size; i++) CHECK(back->data[i] != back->data[i]);
    free(p);
    ttt_close(c);
}

// In the double build: 1 + 2^-8 + 2^-40 lies above the middle of two bfloat16; rounded to float
// first it would be the middle, and go down.
static void bf16_of_a_double_is_rounded_once(void) {
#if TTT__DOUBLE
    CHECK(ttt__bf16_of(1 + ldexp(1, -8) + ldexp(1, -40)) == 0x3f81);
    CHECK(ttt__bf16_of(1 + ldexp(1, -8) - ldexp(1, -40)) == 0x3f80);
    CHECK(ttt__bf16_of(1 + ldexp(1, -8)) == 0x3f80);
    CHECK(ttt__bf16_of(-1 - ldexp(3, -8) - ldexp(1, -40)) == 0xbf82);
    CHECK(ttt__bf16_of(1e300) == 0x7f80 && ttt__bf16_of(-1e300) == 0xff80 &&
          ttt__bf16_of(1e-300) == 0);
#else
    SKIP("this is the float build");
#endif
}

static double half_value(uint32_t h) {
    int exponent = (int)(h >> 10 & 31), fraction = (int)(h & 1023);
    double v = exponent == 31 ? fraction ? (double)NAN : (double)INFINITY
               : exponent     ? ldexp(1024 + fraction, exponent - 25)
                              : ldexp(fraction, -24);
    return h & 0x8000 ? -v : v;
}

static void every_half_is_read(void) {
    static unsigned char data[4 * 65536];
    for (uint32_t i = 0; i < 2 * 65536; i++) ttt__put_bytes(data + 2 * i, i & 0xffff, 2);
    ttt_ctx *c = ttt_open(NULL);
    ttt_bundle b;
    const char *header = "{" ENTRY("h", "\"F16\"", "[65536]", "[0,131072]") ","
                         ENTRY("b", "\"BF16\"", "[65536]", "[131072,262144]") "}";
    const char *path = safetensors("half.safetensors", header, data, sizeof data);
    CHECK(ttt_safetensors_read(c, path, &b) == TTT_OK);
    ttt_tensor *half = ttt_bundle_find(&b, "h"), *stored = ttt_bundle_find(&b, "b"), *brain = NULL;
    CHECK(stored && stored->dtype == TTT_DTYPE_BF16 && half && half->dtype == TTT_DTYPE_F16);
    if (stored) brain = ttt_cast(c, stored, TTT_DTYPE_REAL);
    for (uint32_t i = 0; i < 65536 && half; i++) CHECK(((uint16_t *)half->stored)[i] == i);
    if (half) half = ttt_cast(c, half, TTT_DTYPE_REAL);
    int wrong = 0;
    for (uint32_t i = 0; i < 65536 && half && brain; i++) {
        double v = half_value(i);
        uint32_t bits = i << 16;
        float f;
        memcpy(&f, &bits, sizeof f);
        wrong += v != v ? half->data[i] == half->data[i] : (double)half->data[i] != v;
        wrong += f != f ? brain->data[i] == brain->data[i] : (float)brain->data[i] != f;
        wrong += stored->bf16[i] != i;  // NaNs keep their payloads
    }
    CHECK(half && brain && wrong == 0);
    CHECK(half && minus((double)half->data[0x8000]) && brain && minus((double)brain->data[0x8000]));
    ttt_close(c);
}

static void integers_and_bytes_of_every_width_are_read(void) {
    static const struct {
        const char *dtype;
        ttt_dtype becomes;
        uint64_t bits;
        int64_t value;
    } rows[] = {
        { "U8", TTT_DTYPE_U8, 0xff, 255 }, { "U8", TTT_DTYPE_U8, 2, 2 },
        { "BOOL", TTT_DTYPE_U8, 0, 0 }, { "BOOL", TTT_DTYPE_U8, 1, 1 },
        { "BOOL", TTT_DTYPE_U8, 2, 1 }, { "BOOL", TTT_DTYPE_U8, 0xff, 1 },
        { "I8", TTT_DTYPE_I8, 0xff, -1 }, { "I8", TTT_DTYPE_I8, 0x7f, 127 },
        { "I8", TTT_DTYPE_I8, 0x80, -128 }, { "U16", TTT_DTYPE_U16, 0xfffe, 65534 },
        { "I16", TTT_DTYPE_I16, 0xfffe, -2 }, { "U32", TTT_DTYPE_U32, 0xfffffffd, 4294967293 },
        { "I32", TTT_DTYPE_I32, 0xfffffffd, -3 }, { "I32", TTT_DTYPE_I32, 0x7fffffff, 2147483647 },
        { "I64", TTT_DTYPE_INT, 0x8000000000000000, INT64_MIN },
        { "I64", TTT_DTYPE_INT, 0x0123456789abcdef, 0x0123456789abcdef },
        { "U64", TTT_DTYPE_INT, 0x7fffffffffffffff, INT64_MAX },
    };
    ttt_ctx *c = ttt_open(NULL);
    for (int i = 0; i < COUNT(rows); i++) {
        unsigned char data[8];
        char header[120];
        ttt_bundle b;
        ttt__put_bytes(data, rows[i].bits, 8);
        size_t n = ttt__element_bytes(rows[i].becomes);
        snprintf(header, sizeof header, ONE("\"%s\"", "[1]", "[0,%d]"), rows[i].dtype, (int)n);
        const char *path = safetensors("int.safetensors", header, data, n);
        CHECK(ttt_safetensors_read(c, path, &b) == TTT_OK);
        ttt_tensor *t = ttt_bundle_find(&b, "w");
        CHECK(t && t->dtype == rows[i].becomes && !t->data);
        if (t) t = ttt_cast(c, t, TTT_DTYPE_INT);
        CHECK(t && t->index[0] == rows[i].value);
        if (t) t = ttt_cast(c, ttt_bundle_find(&b, "w"), TTT_DTYPE_REAL);
        CHECK(t && t->data[0] == (ttt_real)rows[i].value);
    }
    ttt_close(c);
}

static void wide_unsigned_numbers_become_real(void) {
    unsigned char data[24];
    ttt_bundle b;
    ttt_ctx *c = ttt_open(NULL);
    ttt__put_bytes(data, 3, 8);
    ttt__put_bytes(data + 8, UINT64_MAX - 2047, 8);
    ttt__put_bytes(data + 16, (uint64_t)1 << 63, 8);
    const char *header = ONE("\"U64\"", "[3]", "[0,24]");
    const char *path = safetensors("wide.safetensors", header, data, 24);
    CHECK(ttt_safetensors_read(c, path, &b) == TTT_OK);
    ttt_tensor *t = ttt_bundle_find(&b, "w");
    CHECK(t && t->dtype == TTT_DTYPE_REAL && t->data && !t->index);
    CHECK(t && t->data[0] == 3 && t->data[1] == (ttt_real)(UINT64_MAX - 2047) &&
          t->data[2] == (ttt_real)9223372036854775808.0);
    CHECK(t && ttt_ok(c) && ttt_add(c, t, t)->data[0] == 6);  // an ordinary leaf
    ttt_close(c);
}

// The very bytes: what other readers of the format get to see.
static void the_bytes_of_a_small_file(void) {
    ttt_ctx *c = ttt_open(NULL);
    const int64_t label[2] = { 1, -2 };
    ttt_named named[3] = { { "w", ttt_full(c, TTT_SHAPE(1, 3), (ttt_real)1.5) },
                           { "label", ttt_from_int(c, TTT_SHAPE(2), label) },
                           { "s", ttt_scalar(c, 2) } };
    ttt_note note[1] = { { "step", "12" } };
    ttt_bundle b = { named, 3, note, 1 };
    char header[400];
    int width = (int)sizeof(ttt_real);
    size_t n, h;
    const char *path = at("small.safetensors");
    snprintf(header, sizeof header,
             "{\"__metadata__\":{\"step\":\"12\"}," ENTRY("w", "\"%s\"", "[1,3]", "[16,%d]") ","
             ENTRY("label", "\"I64\"", "[2]", "[0,16]") ","
             ENTRY("s", "\"%s\"", "[]", "[%d,%d]") "}",
             REAL_NAME, 16 + 3 * width, REAL_NAME, 16 + 3 * width, 16 + 4 * width);
    while (strlen(header) % 8) strcat(header, " ");
    h = strlen(header);
    CHECK(ttt_safetensors_write(c, path, &b, false) == TTT_OK);
    unsigned char *p = get(path, &n);
    CHECK(p && n == 8 + h + 16 + 4 * (size_t)width && p[0] == (h & 255) && p[1] == h >> 8);
    CHECK(p && memcmp(p + 8, header, h) == 0);
    CHECK(p && p[8 + h] == 1 && memcmp(p + 8 + h + 8, "\xfe\xff\xff\xff\xff\xff\xff\xff", 8) == 0);
    CHECK(p && p[8 + h + 16 + (size_t)width - 1] == 0x3f && p[n - 1] == 0x40);
    free(p);
    // They come back in the order in which they were given.
    CHECK(ttt_safetensors_read(c, path, &b) == TTT_OK && b.n_tensors == 3);
    for (int i = 0; i < 3 && b.n_tensors == 3; i++)
        CHECK(strcmp(b.tensors[i].name, named[i].name) == 0 &&
              same(ttt_bundle_at(&b, i), named[i].tensor));
    ttt_close(c);
}

static void data_begins_at_a_multiple_of_eight(void) {
    ttt_ctx *c = ttt_open(NULL);
    const char *path = at("aligned.safetensors");
    for (int length = 0; length < 16; length++) {
        char name[20] = "";
        while ((int)strlen(name) < length) strcat(name, "x");
        CHECK(save(c, path, name, ttt_scalar(c, 1), false) == TTT_OK);
        size_t n;
        unsigned char *p = get(path, &n);
        CHECK(p && p[0] % 8 == 0 && n == 8 + (size_t)p[0] + sizeof(ttt_real));
        free(p);
    }
    ttt_close(c);
}

// Types in the worst order and odd numbers of elements: all lie at multiples of their sizes.
static void every_element_lies_at_a_multiple_of_its_size(void) {
    static const ttt_dtype dtypes[] = { TTT_DTYPE_U8,  TTT_DTYPE_BF16, TTT_DTYPE_REAL,
                                        TTT_DTYPE_INT, TTT_DTYPE_U8,   TTT_DTYPE_REAL,
                                        TTT_DTYPE_BF16, TTT_DTYPE_INT };
    static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g", "h" };
    const char *path = at("order.safetensors");
    for (int bf16 = 0; bf16 < 2; bf16++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt_named named[COUNT(dtypes)];
        ttt_bundle b = { named, COUNT(dtypes), NULL, 0 }, back;
        for (int i = 0; i < COUNT(dtypes); i++) {
            named[i].name = names[i];
            named[i].tensor = numbers(c, TTT_SHAPE(2 * (i % 3) + 1), dtypes[i]);
        }
        CHECK(ttt_safetensors_write(c, path, &b, bf16) == TTT_OK);
        CHECK(ttt_safetensors_read(c, path, &back) == TTT_OK && back.n_tensors == b.n_tensors);
        size_t n;
        char *text = ttt_file_read(c, path, &n), *p = text ? text + 8 : NULL;
        for (int i = 0; i < COUNT(dtypes) && p && back.n_tensors == b.n_tensors; i++) {
            ttt_tensor *t = named[i].tensor;
            ttt_dtype stored = t->data && bf16 ? TTT_DTYPE_BF16 : dtypes[i];
            int64_t begin = -1;
            p = strstr(p, "\"data_offsets\":[");  // entries have the given order
            CHECK(p && sscanf(p + 16, "%lld", (long long *)&begin) == 1);
            CHECK(begin >= 0 && begin % (int64_t)ttt__element_bytes(stored) == 0);
            CHECK(strcmp(back.tensors[i].name, names[i]) == 0);
            CHECK(same(ttt_cast(c, t, stored), ttt_bundle_at(&back, i)));
            if (p) p++;
        }
        CHECK(p && ttt_ok(c));
        ttt_close(c);
    }
}

static void names_and_notes_come_back(void) {
    static const char *const text[] = {
        "", "a\"b\\c/d", "tab\tline\nreturn\rbell\a\x01\x1f\x7f",
        "caf\xc3\xa9 \xe9\x87\x8d \xf0\x9f\x9c\x82", "__metadata", "{\"}:,[]", "\\u0041"
    };
    ttt_named named[COUNT(text)];
    ttt_note note[COUNT(text)];
    ttt_bundle b = { named, COUNT(text), note, COUNT(text) }, back, none = { NULL, 0, NULL, 0 };
    const char *path = at("names.safetensors");
    ttt_ctx *c = ttt_open(NULL);
    for (int i = 0; i < COUNT(text); i++) {
        named[i].name = note[i].key = text[i];
        named[i].tensor = ttt_full(c, TTT_SHAPE(i), (ttt_real)i);
        note[i].text = text[COUNT(text) - 1 - i];
    }
    CHECK(ttt_safetensors_write(c, path, &b, false) == TTT_OK &&
          ttt_safetensors_read(c, path, &back) == TTT_OK);
    CHECK(back.n_tensors == b.n_tensors && back.n_notes == b.n_notes);
    for (int i = 0; i < COUNT(text) && back.n_notes == b.n_notes; i++) {
        CHECK(same(ttt_bundle_find(&back, text[i]), named[i].tensor));
        CHECK(strcmp(back.notes[i].key, text[i]) == 0);
        CHECK(ttt_bundle_note(&back, text[i]) &&
              strcmp(ttt_bundle_note(&back, text[i]), note[i].text) == 0);
    }
    CHECK(!ttt_bundle_find(&back, "nothing") && !ttt_bundle_note(&back, "nothing"));
    CHECK(!ttt_bundle_find(&none, "") && !ttt_bundle_note(&none, ""));
    CHECK(ttt_safetensors_write(c, path, &none, false) == TTT_OK &&
          ttt_safetensors_read(c, path, &back) == TTT_OK);
    CHECK(back.n_tensors == 0 && back.n_notes == 0);
    ttt_close(c);
}

static void escapes_and_odd_orders_are_read(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_bundle b;
    static const unsigned char data[5] = { 7, 0, 0, 0xc0, 0x3f };
    const char *header =
        "{\"\\u0077\":{\"data_offsets\":[1,5],\"later\":{\"a\":[1e3,null,true]},"
        "\"shap\\u0065\":[ ],\"dtype\":\"F\\u00332\"},\r\n"
        "\t\"b\":{\"shape\":[1,1],\"dtype\":\"U8\",\"data_offsets\":[0,1]},"
        "\"__metadata__\":{\"\\ud83d\\ude00\":\"\\\"\\/\\b\\f\\n\\r\\t\\\\\"}} \n ";
    CHECK(ttt_safetensors_read(c, safetensors("odd.safetensors", header, data, 5), &b) == TTT_OK);
    ttt_tensor *w = ttt_bundle_find(&b, "w"), *u = ttt_bundle_find(&b, "b");
    CHECK(w && w->shape.rank == 0 && w->data[0] == (ttt_real)1.5);
    CHECK(u && u->shape.rank == 2 && u->u8[0] == 7);
    CHECK(b.n_tensors == 2 && strcmp(b.tensors[0].name, "w") == 0);
    const char *note = ttt_bundle_note(&b, "\xf0\x9f\x98\x80");
    CHECK(note && strcmp(note, "\"/\b\f\n\r\t\\") == 0);
    ttt_close(c);
}

// ---- safetensors: what is wrong is refused, with its reason -------------------------------------
// A header, how many bytes of data follow it, and two parts of the error's text: what and where.
static const struct {
    const char *header;
    int data;
    const char *says, *where;
} header_faults[] = {
    { "", 0, "does not begin with {", "byte 8" },
    { " {}", 0, "does not begin with {", "byte 8" },
    { "[]", 0, "does not begin with {", "byte 8" },
    { "{", 0, "a string was expected", "byte 9" },
    { "{}x", 0, "something follows", "byte 10" },
    { "{},", 0, "something follows", "byte 10" },
    { "{}", 3, "3 bytes after the last tensor", "" },
    { "{\"w\":1}", 0, "an object was expected", "'w'" },
    { "{\"w\":[]}", 0, "an object was expected", "'w'" },
    { "{\"w\" 1}", 0, "a colon was expected", "'w'" },
    { "{\"w\":{},}", 0, "dtype is missing", "'w'" },
    { F32("[1]", "[0,4]") ",", 4, "something follows", "" },
    { "{\"__metadata__\":{},}", 0, "a string was expected", "byte 27" },
    { ONE("\"F8_E4M3\"", "[1]", "[0,1]"), 1, "dtype F8_E4M3", "'w'" },
    { ONE("\"f32\"", "[1]", "[0,4]"), 4, "dtype f32", "'w'" },
    { ONE("\"\"", "[1]", "[0,4]"), 4, "dtype", "'w'" },
    { ONE("32", "[1]", "[0,4]"), 4, "a string was expected", "'w'" },
    { F32("1", "[0,4]"), 4, "a list was expected", "'w'" },
    { F32("[1", "[0,4]"), 4, "a number was expected", "'w'" },
    { F32("[1,]", "[0,4]"), 4, "a number was expected", "'w'" },
    { F32("[,1]", "[0,4]"), 4, "a number was expected", "'w'" },
    { F32("[-1]", "[0,4]"), 4, "the size -1", "'w'" },
    { F32("[-2,-3]", "[0,24]"), 24, "the size -2", "'w'" },
    { F32("[1.0]", "[0,4]"), 4, "a whole number was expected", "'w'" },
    { F32("[1e0]", "[0,4]"), 4, "a whole number was expected", "'w'" },
    { F32("[01]", "[0,4]"), 4, "a number was expected", "'w'" },
    { F32("[+1]", "[0,4]"), 4, "a number was expected", "'w'" },
    { F32("[0x1]", "[0,4]"), 4, "a comma or a closing bracket", "'w'" },
    { F32("[\"1\"]", "[0,4]"), 4, "a number was expected", "'w'" },
    { F32("[true]", "[0,4]"), 4, "a number was expected", "'w'" },
    { F32("[null]", "[0,4]"), 4, "a number was expected", "'w'" },
    { F32("[18446744073709551617]", "[0,4]"), 4, "beyond 64 bits", "'w'" },
    { F32("[9223372036854775808]", "[0,4]"), 4, "beyond 64 bits", "'w'" },
    { F32("[9223372036854775807]", "[0,4]"), 4, "shape (9223372036854775807)", "'w'" },
    { F32("[4611686018427387904]", "[0,0]"), 0, "span 0 bytes", "'w'" },
    { F32("[4294967296,4294967296]", "[0,0]"), 0, "span 0 bytes", "'w'" },
    { F32("[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "more than 8 sizes", "'w'" },
    { F32("[2]", "[0,4]"), 4, "shape (2) of elements of 4 bytes, but data_offsets span 4",
      "'w'" },
    { F32("[0]", "[0,4]"), 4, "span 4 bytes", "'w'" },
    { F32("[1]", "[]"), 4, "two offsets", "'w'" },
    { F32("[1]", "[0]"), 4, "two offsets", "'w'" },
    { F32("[1]", "[0,4,4]"), 4, "two offsets", "'w'" },
    { F32("[1]", "[0,4,]"), 4, "two offsets", "'w'" },
    { F32("[1]", "[0,8]"), 4, "[0,8] are not within the 4 bytes", "'w'" },
    { F32("[1]", "[-4,0]"), 4, "[-4,0]", "'w'" },
    { F32("[1]", "[4,0]"), 4, "[4,0]", "'w'" },
    { F32("[1]", "[0,1e400]"), 4, "a whole number was expected", "'w'" },
    { F32("[1]", "[4,8]"), 8, "begin at 4, the tensor before ends at 0: a hole", "'w'" },
    { F32("[1]", "[0,4]"), 8, "4 bytes after the last tensor", "" },
    { "{\"w\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype is missing", "'w'" },
    { "{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape is missing", "'w'" },
    { "{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets is missing", "'w'" },
    { ONE("\"F32\",\"dtype\":\"F32\"", "[1]", "[0,4]"), 4, "dtype occurs twice", "'w'" },
    { ONE("\"U8\"", "[1]", "[0,1],\"x\":nul"), 1, "a value was expected", "'w'" },
    { "{" ENTRY("a", "\"U8\"", "[2]", "[0,2]") "," ENTRY("b", "\"U8\"", "[2]", "[1,3]") "}",
      3, "an overlap", "'b'" },
    { "{" ENTRY("a", "\"U8\"", "[1]", "[0,1]") ","
      ENTRY("\\u0061", "\"U8\"", "[1]", "[1,2]") "}",
      2, "occurs twice", "'a'" },
    { "{\"__metadata__\":[]}", 0, "an object was expected", "__metadata__" },
    { "{\"__metadata__\":{\"a\":1}}", 0, "a string was expected", "__metadata__" },
    { "{\"__metadata__\":{\"a\":null}}", 0, "a string was expected", "__metadata__" },
    { "{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "occurs twice", "'a'" },
    { "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ occurs twice", "" },
    { "{\"w\\u0000\":{}}", 0, "wrong escape", "byte" },
    { "{\"\\ud800\":{}}", 0, "wrong escape", "byte" },
    { "{\"\\ud800\\u0041\":{}}", 0, "wrong escape", "byte" },
    { "{\"\\udc00\":{}}", 0, "wrong escape", "byte" },
    { "{\"\\u00g0\":{}}", 0, "wrong escape", "byte" },
    { "{\"\\x\":{}}", 0, "wrong escape", "byte" },
    { "{\"\\", 0, "wrong escape", "byte" },
    { "{\"abc", 0, "a string has no end", "byte 13" },
    { "{\"a\nb\":{}}", 0, "control character", "byte" },
    { "{\"\xc0\xaf\":{}}", 0, "not UTF-8", "byte" },
    { "{\"\xed\xa0\x80\":{}}", 0, "not UTF-8", "byte" },
    { "{\"\xf4\x90\x80\x80\":{}}", 0, "not UTF-8", "byte" },
    { "{\"\xe2\x82\":{}}", 0, "not UTF-8", "byte" },
    { "{\"\xff\":{}}", 0, "not UTF-8", "byte" },
};

static void every_fault_of_a_header_is_named(void) {
    static const unsigned char zeros[32];
    ttt_ctx *c = ttt_open(NULL);
    for (int i = 0; i < COUNT(header_faults); i++) {
        ttt_bundle b = { NULL, 99, NULL, 99 };
        const char *header = header_faults[i].header;
        size_t n = (size_t)header_faults[i].data, before = ttt_memory(c).step;
        const char *path = safetensors("fault.safetensors", header, zeros, n);
        CHECK(ttt_safetensors_read(c, path, &b) == TTT_ERR_FORMAT);
        CHECK(!b.tensors && !b.n_tensors && !b.notes && !b.n_notes);
        CHECK(strstr(ttt_error(c), path));
        bool said = says(c, TTT_ERR_FORMAT, header_faults[i].says, header_faults[i].where);
        CHECK(said);
        if (!said) printf("    reading %s\n", header_faults[i].header);
        CHECK(ttt_memory(c).step == before);
    }
    ttt_close(c);
    CHECK(blocks_alive == 0);
}

static void every_fault_of_a_length_is_named(void) {
    static const struct {
        const char *bytes;
        int n;
        const char *says;
    } rows[] = {
        { "", 0, "0 bytes" },
        { "\2\0\0\0\0\0\0", 7, "7 bytes" },
        { "\2\0\0\0\0\0\0\0", 8, "a header of 2 bytes; 0 follow" },
        { "\3\0\0\0\0\0\0\0{}", 10, "a header of 3 bytes; 2 follow" },
        { "\0\0\0\0\0\0\0\2{}", 10, "a header of 144115188075855872 bytes" },
        { "\2\0\0\0\1\0\0\0{}", 10, "a header of 4294967298 bytes" },
        { "\377\377\377\377\377\377\377\377{}", 10, "a header of 18446744073709551615 bytes" },
        { "\2\0\0\0\0\0\0\200{}", 10, "a header of 9223372036854775810 bytes" },
        { "\1\341\365\5\0\0\0\0{}", 10,
          "a header of 100000001 bytes; 2 follow, and 100000000 is the limit" },
        { "\5\0\0\0\0\0\0\0{}\0\0\0", 13, "something follows" },
    };
    ttt_ctx *c = ttt_open(NULL);
    for (int i = 0; i < COUNT(rows); i++) {
        ttt_bundle b;
        const char *path = at("length.safetensors");
        put(path, rows[i].bytes, (size_t)rows[i].n);
        CHECK(ttt_safetensors_read(c, path, &b) == TTT_ERR_FORMAT);
        CHECK(says(c, TTT_ERR_FORMAT, rows[i].says, path));
    }
    CHECK(ttt_memory(c).held < 10000000);
    ttt_close(c);
}

static size_t small_file(unsigned char *p) {
    static const unsigned char data[12] = { 0, 0, 0xc0, 0x3f, 0, 0, 0, 0x40, 1, 0xfe, 0xff, 5 };
    const char *header = "{\"__metadata__\":{\"k\":\"v\\n\"},"
                         ENTRY("w", "\"F32\"", "[2]", "[0,8]") ","
                         ENTRY("i", "\"I16\"", "[1,1]", "[9,11]") ","
                         ENTRY("u", "\"U8\"", "[]", "[8,9]") ","
                         ENTRY("z", "\"BOOL\"", "[1]", "[11,12]") "} ";
    return safetensors_bytes(p, header, data, 12);
}

// Cut at every byte, and each bit of the header turned: an error that names the file, or a load.
static void cut_and_damaged_files_never_crash(void) {
    unsigned char p[600];
    size_t n = small_file(p);
    const char *path = at("damaged.safetensors");
    int loads = 0;
    ttt_ctx *c = ttt_open(NULL);
    ttt_bundle b;
    for (size_t cut = 0; cut <= n; cut++) {
        put(path, p, cut);
        ttt_result r = ttt_safetensors_read(c, path, &b);
        CHECK(r == (cut == n ? TTT_OK : TTT_ERR_FORMAT) &&
              (r == TTT_OK || strstr(ttt_error(c), path)));
        CHECK(b.n_tensors == (r ? 0 : 4));
        ttt_clear(c);
    }
    for (size_t bit = 0; bit < 8 * (n - 12); bit++) {
        ttt_mark m = ttt_mark_get(c);
        p[bit / 8] ^= (unsigned char)(1 << bit % 8);
        put(path, p, n);
        p[bit / 8] ^= (unsigned char)(1 << bit % 8);
        ttt_result r = ttt_safetensors_read(c, path, &b);
        CHECK(r == TTT_OK ||
              (r == TTT_ERR_FORMAT && strstr(ttt_error(c), path) && b.n_tensors == 0));
        CHECK(r != TTT_OK || (b.n_tensors == 4 && ttt_bundle_at(&b, 3)->size == 1));
        loads += r == TTT_OK;
        ttt_clear(c);
        ttt_mark_release(c, m);
    }
    CHECK(loads > 20 && loads < 200);  // letters of names, blanks
    ttt_close(c);
    CHECK(blocks_alive == 0);
}

static void many_tensors_open_in_no_time(void) {
    enum { N = 20000 };
    ttt_ctx *c = ttt_open(NULL);
    static char name[N][24];
    static ttt_named named[N];
    ttt_bundle b = { named, N, NULL, 0 }, back;
    const char *path = at("many.safetensors");
    for (int i = 0; i < N; i++) {
        snprintf(name[i], sizeof name[i], "layer.%d.w", (i * 7919) % N);
        named[i].name = name[i];
        named[i].tensor = ttt_full(c, TTT_SHAPE(1), (ttt_real)i);
    }
    comparisons = 0;
    CHECK(ttt_safetensors_write(c, path, &b, false) == TTT_OK &&
          ttt_safetensors_read(c, path, &back) == TTT_OK);
    CHECK(comparisons > 0 && comparisons < 8 * 15 * (long)N);  // sorted, not searched: 2^15 > N
    CHECK(back.n_tensors == N);
    for (int i = 0; i < N && back.n_tensors == N; i++)
        CHECK(strcmp(back.tensors[i].name, name[i]) == 0 &&
              ttt_bundle_find(&back, name[i])->data[0] == (ttt_real)i);
    snprintf(name[N - 1], sizeof name[0], "%s", name[3]);
    CHECK(ttt_safetensors_write(c, path, &b, false) == TTT_ERR_ARGUMENT);
    CHECK(says(c, TTT_ERR_ARGUMENT, name[3], "occurs twice"));
    ttt_close(c);
}

static void a_name_is_found_without_asking_all(void) {
    enum { N = 4096 };
    static char name[N][16];
    static ttt_named named[N];
    static ttt_note note[N];
    ttt_bundle b = { named, N, note, N }, back;
    ttt_ctx *c = ttt_open(NULL);
    for (int i = 0; i < N; i++) {
        snprintf(name[i], sizeof name[i], "w.%d", (i * 1237) % N);
        named[i].name = note[i].key = note[i].text = name[i];
        named[i].tensor = ttt_full(c, TTT_SHAPE(1), (ttt_real)i);
    }
    const char *path = at("names.safetensors");
    CHECK(ttt_safetensors_write(c, path, &b, false) == TTT_OK);
    CHECK(ttt_safetensors_read(c, path, &back) == TTT_OK && back.n_tensors == N);
    for (int i = 0; i < N && back.n_tensors == N; i++) {
        comparisons = 0;
        ttt_tensor *t = ttt_bundle_find(&back, name[i]);
        const char *text = ttt_bundle_note(&back, name[i]);
        CHECK(comparisons <= 2 * 13 && t && t->data[0] == (ttt_real)i);
        CHECK(text && strcmp(text, name[i]) == 0);
    }
    comparisons = 0;
    CHECK(!ttt_bundle_find(&back, "w.") && !ttt_bundle_find(&back, "x"));
    CHECK(!ttt_bundle_note(&back, "") && comparisons <= 3 * 13);
    ttt_close(c);
}

// ---- what is read takes little more than the file has -------------------------------------------
static const struct {
    const char *name, *descr;  // in safetensors, in .npy
    int bytes;
} file_types[] = {
    { "F64", "<f8", 8 }, { "F32", "<f4", 4 }, { "F16", "<f2", 2 }, { "BF16", NULL, 2 },
    { "I64", "<i8", 8 }, { "I32", "<i4", 4 }, { "I16", "<i2", 2 }, { "I8", "|i1", 1 },
    { "U64", "<u8", 8 }, { "U32", "<u4", 4 }, { "U16", ">u2", 2 }, { "U8", "|u1", 1 },
    { "BOOL", "|b1", 1 },
};

// Makes a file that begins with n bytes and goes on with zeros.
static void put_sparse(const char *path, const void *begin, size_t n, long zeros) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(begin, 1, n, f) == n && fseek(f, zeros - 1, SEEK_CUR) == 0);
    CHECK(f && fputc(0, f) == 0 && fclose(f) == 0);
}

// A chunk of memory may be as large as what the context has already, but not larger than 8 MB.
enum { SLACK = (1 << 23) + 300000 };

// The most bytes that reading a file takes at any time; and then, what asking for all tensors does.
static size_t bytes_to_read(const char *path, ttt_result expected, size_t *to_ask) {
    ttt_ctx *c = ttt_open(NULL);
    size_t before = bytes_alive, n = strlen(path);
    ttt_bundle b = { NULL, 0, NULL, 0 };
    ttt_tensor *t;
    bytes_most = bytes_alive;
    ttt_result r = strcmp(path + n - 4, ".npy") == 0 ? ttt_npy_read(c, path, &t)
                                                     : ttt_safetensors_read(c, path, &b);
    CHECK(r == expected);
    size_t most = bytes_most - before;
    for (int64_t i = 0; i < b.n_tensors; i++) CHECK(ttt_bundle_at(&b, i) != NULL);
    *to_ask = bytes_most - before - most;
    ttt_close(c);
    return most;
}

// One tensor of each type, then many: elements are as wide as in the file, and lie there once.
static void numbers_take_the_bytes_they_have_in_the_file(void) {
    enum { N = 1 << 22, PARTS = 64 };
    const char *path = at("width.safetensors"), *array = at("width.npy");
    static char header[PARTS * 100];
    for (int i = 0; i < 2 * COUNT(file_types); i++) {
        const char *name = file_types[i / 2].name, *descr = file_types[i / 2].descr;
        int bytes = file_types[i / 2].bytes, parts = i % 2 ? PARTS : 1, one = N / parts;
        size_t wide = DOUBLE && strcmp(name, "F32") == 0 ? 2 : 1, n = 8, to_ask;
        for (int k = 0; k < parts; k++)
            n += (size_t)snprintf(header + n, sizeof header - n,
                                  "%c\"%d\":{\"dtype\":\"%s\",\"shape\":[%d],"
                                  "\"data_offsets\":[%d,%d]}", k ? ',' : '{', k, name, one / bytes,
                                  k * one, (k + 1) * one);
        header[n++] = '}';
        for (int k = 0; k < 8; k++) header[k] = (char)((uint64_t)(n - 8) >> 8 * k);
        put_sparse(path, header, n, N);
        CHECK(bytes_to_read(path, TTT_OK, &to_ask) <= wide * N + 300000 && to_ask <= SLACK);
        if (!descr) continue;
        n = (size_t)snprintf(header, sizeof header, "\x93NUMPY\1%c%c%c%-117s\n", 0, 118, 0, "");
        snprintf(header + 10, 118, "{'descr': '%s', 'fortran_order': False, 'shape': (%d,), }",
                 descr, N / bytes);
        for (size_t k = strlen(header + 10) + 10; k < n - 1; k++) header[k] = ' ';
        put_sparse(array, header, n, N);
        CHECK(bytes_to_read(array, TTT_OK, &to_ask) <= wide * N + 300000);
    }
}

// The first small thing behind a large file does not take as much again.
static void a_tensor_of_a_large_file_takes_little(void) {
    enum { N = 3 << 23 };
    const char *path = at("large.safetensors");
    const char *header = ONE("\"U8\"", "[25165824]", "[0,25165824]");
    unsigned char begin[200];
    size_t to_ask;
    put_sparse(path, begin, safetensors_bytes(begin, header, NULL, 0), N);
    CHECK(bytes_to_read(path, TTT_OK, &to_ask) <= N + 300000 && to_ask <= SLACK);
}

// A file of names and hardly anything else: 112 bytes for each, so that the most there may be,
// 2^19, take 59 MB. (Twice as much is allowed here, since these files are smaller than a chunk.)
static void names_take_little_and_have_a_limit(void) {
    enum { N = 20000, TOO_MANY = (1 << 19) + 1 };
    const char *path = at("empty.safetensors");
    char *header = (char *)malloc(100 * N);
    for (int size = 0; size < 2; size++) {
        size_t n = 0, to_ask;
        for (int k = 0; k < N; k++)
            n += (size_t)snprintf(header + n, 100 * N - n,
                                  "%c\"%x\":{\"dtype\":\"U8\",\"shape\":[%d],"
                                  "\"data_offsets\":[%d,%d]}", k ? ',' : '{', k, size, k * size,
                                  (k + 1) * size);
        snprintf(header + n, 100 * N - n, "}");
        safetensors("empty.safetensors", header, header, (size_t)(N * size));
        CHECK(bytes_to_read(path, TTT_OK, &to_ask) <=
              2 * (n + N * (size_t)(112 + size)) + 600000);
    }
    free(header);
    for (int notes = 0; notes < 2; notes++) {
        const char *begin = notes ? "{\"__metadata__\":{\"\":0" : "{\"\":0";
        size_t n = strlen(begin), to_ask;
        header = (char *)malloc(5 * TOO_MANY + 100);
        memcpy(header, begin, n);
        for (int k = 1; k < TOO_MANY; k++) memcpy(header + n, ",\"\":0", 5), n += 5;
        memcpy(header + n, "}}", 3);
        header[n + 1 + (size_t)notes] = 0;
        safetensors("empty.safetensors", header, NULL, 0);
        CHECK(bytes_to_read(path, TTT_ERR_TOO_BIG, &to_ask) <= 2 * n + 300000);
        free(header);
    }
}

// Devices that never end or have no size.
static void devices_are_no_files(void) {
    static const char *const devices[] = { "/dev/zero", "/dev/random", "/dev/full", "/dev/tty" };
    for (int i = 0; i < 3 * COUNT(devices); i++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt_bundle b;
        ttt_tensor *t;
        ttt_idx idx;
        const char *path = devices[i / 3];
        size_t before = bytes_alive;
        bytes_most = bytes_alive;
        if (i % 3 == 0) ttt_safetensors_read(c, path, &b);
        if (i % 3 == 1) ttt_npy_read(c, path, &t);
        if (i % 3 == 2) ttt_idx_read(c, path, &idx);
        CHECK(!ttt_ok(c) && strstr(ttt_error(c), path) && bytes_most - before < 300000);
        ttt_close(c);
    }
}

// What was read can be written again, though no tensor was asked for; and one may be put in its
// place.
static void a_file_that_was_read_can_be_written(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_tensor *t = numbers(c, TTT_SHAPE(5), TTT_DTYPE_I16), *other = ttt_scalar(c, 7);
    ttt_named named[2] = { { "a", t }, { "b", ttt_scalar(c, 3) } };
    ttt_bundle b = { named, 2, NULL, 0 }, read, again;
    const char *path = at("first.safetensors"), *second = at("second.safetensors");
    CHECK(ttt_safetensors_write(c, path, &b, false) == TTT_OK);
    CHECK(ttt_safetensors_read(c, path, &read) == TTT_OK);
    CHECK(!ttt_bundle_at(&read, -1) && !ttt_bundle_at(&read, 2) && !ttt_bundle_at(&b, 2));
    CHECK(ttt_bundle_at(&b, 0) == t && ttt_bundle_find(&b, "a") == t);
    read.tensors[1].tensor = other;
    CHECK(ttt_bundle_find(&read, "b") == other);
    CHECK(ttt_safetensors_write(c, second, &read, false) == TTT_OK);
    CHECK(ttt_safetensors_read(c, second, &again) == TTT_OK && again.n_tensors == 2);
    CHECK(same(ttt_bundle_find(&again, "a"), t) && same(ttt_bundle_find(&again, "b"), other));
    ttt_mark m = ttt_mark_get(c);
    CHECK(same(ttt_bundle_find(&again, "a"), t));
    ttt_mark_release(c, m);  // that tensor, not what it shows
    ttt_full(c, TTT_SHAPE(100), 1);
    CHECK(same(ttt_bundle_find(&again, "a"), t));
    ttt_close(c);
}

static void the_writer_refuses_what_it_could_not_read(void) {
    ttt_ctx *c = ttt_open(NULL), *other = ttt_open(NULL);
    ttt_tensor *t = ttt_full(c, TTT_SHAPE(2), 1), *stranger = ttt_full(other, TTT_SHAPE(2), 1);
    ttt_named named[2] = { { "a", t }, { "b", t } };
    ttt_note note[2] = { { "k", "v" }, { "l", "v" } };
    ttt_bundle b = { named, 2, note, 2 };
    const char *path = at("refused.safetensors");
    put(path, "old", 3);
#define REFUSES(change, undo, result, text)                        \
    change;                                                        \
    CHECK(ttt_safetensors_write(c, path, &b, false) == (result));  \
    CHECK(says(c, result, text, path));                            \
    undo
    REFUSES(named[1].name = "a", named[1].name = "b", TTT_ERR_ARGUMENT, "'a' occurs twice");
    REFUSES(named[1].name = "x\xff", named[1].name = "b", TTT_ERR_ARGUMENT, "not UTF-8");
    REFUSES(named[1].name = NULL, named[1].name = "b", TTT_ERR_ARGUMENT, "the name");
    REFUSES(named[1].name = "__metadata__", named[1].name = "b", TTT_ERR_ARGUMENT, "__metadata__");
    REFUSES(named[1].tensor = NULL, named[1].tensor = t, TTT_ERR_RELEASED, "'b'");
    REFUSES(named[1].tensor = stranger, named[1].tensor = t, TTT_ERR_RELEASED, "'b'");
    REFUSES(note[1].key = "k", note[1].key = "l", TTT_ERR_ARGUMENT, "'k' occurs twice");
    REFUSES(note[1].key = NULL, note[1].key = "l", TTT_ERR_ARGUMENT, "the key of a note");
    REFUSES(note[1].text = NULL, note[1].text = "v", TTT_ERR_ARGUMENT, "the text of a note");
    REFUSES(note[1].text = "\xc3", note[1].text = "v", TTT_ERR_ARGUMENT, "the text of a note");
    ttt_fail(c, TTT_ERR_SHAPE, "something before");  // a failed context saves nothing
    CHECK(ttt_safetensors_write(c, path, &b, false) == TTT_ERR_SHAPE &&
          ttt_npy_write(c, path, t) == TTT_ERR_SHAPE);
    CHECK(says(c, TTT_ERR_SHAPE, "something before", ""));
    size_t n;
    unsigned char *p = get(path, &n);
    CHECK(p && n == 3 && memcmp(p, "old", 3) == 0);
    free(p);
    CHECK(ttt_safetensors_write(c, path, &b, false) == TTT_OK);
    ttt_close(c);
    ttt_close(other);
}

// ---- .npy ---------------------------------------------------------------------------------------
static const char *npy(const char *name, int version, const char *header, const void *data,
                       size_t n) {
    unsigned char p[600] = "\x93NUMPY";
    size_t length = strlen(header), start = version == 1 ? 10 : 12;
    p[6] = (unsigned char)version;
    for (size_t i = 8; i < start; i++) p[i] = (unsigned char)(length >> 8 * (i - 8));
    memcpy(p + start, header, length);
    if (n) memcpy(p + start + length, data, n);
    put(at(name), p, start + length + n);
    return at(name);
}

#define NPY(descr, fortran, shape) \
    "{'descr': " descr ", 'fortran_order': " fortran ", 'shape': " shape ", }"
static void every_npy_type_is_read(void) {
    enum { reals = TTT_DTYPE_REAL, integers = TTT_DTYPE_INT, bytes = TTT_DTYPE_U8,
           halves = TTT_DTYPE_F16 };
    static const struct {
        const char *descr, *bytes;  // two elements
        int n;
        double a, b;
        int dtype;
    } rows[] = {
        { "'<f4'", "\0\0\300\77\0\0\0\300", 8, 1.5, -2, reals },
        { "'>f4'", "\77\300\0\0\300\0\0\0", 8, 1.5, -2, reals },
        { "'<f2'", "\0\74\0\300", 4, 1, -2, halves },
        { "'>f2'", "\74\0\300\0", 4, 1, -2, halves },
        { "'<f8'", "\0\0\0\0\0\0\370\77\0\0\0\0\0\0\0\300", 16, 1.5, -2, reals },
        { "'>f8'", "\77\370\0\0\0\0\0\0\300\0\0\0\0\0\0\0", 16, 1.5, -2, reals },
        { "'|b1'", "\0\1", 2, 0, 1, bytes },
        { "'|b1'", "\2\377", 2, 1, 1, bytes },
        { "'|u1'", "\0\377", 2, 0, 255, bytes },
        { "'|i1'", "\1\377", 2, 1, -1, TTT_DTYPE_I8 },
        { "'<u2'", "\1\2\376\377", 4, 513, 65534, TTT_DTYPE_U16 },
        { "'>u2'", "\1\2\377\376", 4, 258, 65534, TTT_DTYPE_U16 },
        { "'<i2'", "\1\2\376\377", 4, 513, -2, TTT_DTYPE_I16 },
        { "'>i2'", "\1\2\377\376", 4, 258, -2, TTT_DTYPE_I16 },
        { "'<u4'", "\1\0\0\0\376\377\377\377", 8, 1, 4294967294.0, TTT_DTYPE_U32 },
        { "'>u4'", "\0\0\0\1\377\377\377\376", 8, 1, 4294967294.0, TTT_DTYPE_U32 },
        { "'<i4'", "\1\0\0\0\376\377\377\377", 8, 1, -2, TTT_DTYPE_I32 },
        { "'>i4'", "\0\0\0\1\377\377\377\376", 8, 1, -2, TTT_DTYPE_I32 },
        { "\"<i8\"", "\1\0\0\0\0\0\0\0\376\377\377\377\377\377\377\377", 16, 1, -2, integers },
        { "'>i8'", "\0\0\0\0\0\0\0\1\377\377\377\377\377\377\377\376", 16, 1, -2, integers },
        { "'<u8'", "\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0", 16, 1, 2, integers },
        { "'>u8'", "\200\0\0\0\0\0\0\0\0\0\0\0\0\0\0\2", 16, 9223372036854775808.0, 2, reals },
    };
    ttt_ctx *c = ttt_open(NULL);
    for (int i = 0; i < 3 * COUNT(rows); i++) {
        char header[200];
        ttt_tensor *t;
        snprintf(header, sizeof header, NPY("%s", "False", "(2,)") "   \n", rows[i / 3].descr);
        size_t n = (size_t)rows[i / 3].n;
        const char *path = npy("type.npy", i % 3 + 1, header, rows[i / 3].bytes, n);
        CHECK(ttt_npy_read(c, path, &t) == TTT_OK);
        CHECK(t->size == 2 && t->shape.rank == 1 && (int)t->dtype == rows[i / 3].dtype);
        if (t->stored)
            t = ttt_cast(c, t, t->dtype == TTT_DTYPE_F16 ? TTT_DTYPE_REAL : TTT_DTYPE_INT);
        for (int k = 0; k < 2 && t->size == 2; k++) {
            double v = t->data ? (double)t->data[k] : t->u8 ? t->u8[k] : (double)t->index[k];
            CHECK(v == (k ? rows[i / 3].b : rows[i / 3].a));
        }
        if (!ttt_ok(c)) puts(ttt_error(c));
        ttt_clear(c);
    }
    ttt_close(c);
}

static void fortran_order_is_turned(void) {
    unsigned char data[24], big[24 * 4];
    ttt_ctx *c = ttt_open(NULL);
    ttt_tensor *t;
    for (int i = 0; i < 24; i++) {
        data[i] = (unsigned char)i;
        memset(big + 4 * i, 0, 3);
        big[4 * i + 3] = (unsigned char)i;
    }
    for (int k = 0; k < 2; k++) {
        const char *path = k ? npy("fortran.npy", 1, NPY("'>i4'", "True", "(2, 3, 4)"), big, 96)
                             : npy("fortran.npy", 1, NPY("'|u1'", "True", "(2, 3, 4)"), data, 24);
        CHECK(ttt_npy_read(c, path, &t) == TTT_OK && ttt_shape_equal(t->shape, TTT_SHAPE(2, 3, 4)));
        t = ttt_cast(c, t, TTT_DTYPE_INT);
        for (int64_t i = 0; i < 24 && t->size == 24; i++)
            CHECK(t->index[i] == i / 12 + 2 * (i / 4 % 3) + 6 * (i % 4));
    }
    const char *path = npy("fortran.npy", 1, NPY("'|u1'", "True", "()"), data, 1);
    CHECK(ttt_npy_read(c, path, &t) == TTT_OK && t->size == 1);
    path = npy("fortran.npy", 1, NPY("'|u1'", "True", "(0, 5)"), data, 0);
    CHECK(ttt_npy_read(c, path, &t) == TTT_OK && t->size == 0);
    ttt_close(c);
}

// A header, how many bytes of data follow it, and a part of the error's text.
static const struct {
    const char *header;
    int data;
    const char *says;
} npy_faults[] = {
    { "", 0, "{ was expected" },
    { "{", 0, "'key': was expected" },
    { "{}", 0, "lacks 'descr'" },
    { "{'descr': '<f4', 'shape': (1,), }", 4, "lacks 'fortran_order'" },
    { "{'descr': '<f4', 'fortran_order': False, }", 4, "lacks 'shape'" },
    { NPY("'<f4', 'descr': '<f4'", "False", "(1,)"), 4, "'descr' occurs twice" },
    { NPY("'<f4', 'extra': 1", "False", "(1,)"), 4, "'extra' is not known" },
    { "{'descr': '<f4' 'fortran_order': False, 'shape': (1,), }", 4, "a comma" },
    { NPY("'<f4'", "False", "(1,)") "x", 4, "something follows" },
    { NPY("'|O'", "False", "(1,)"), 4, "objects are pickles" },
    { NPY("'<f3'", "False", "(1,)"), 3, "descr '<f3' is not supported" },
    { NPY("'<f16'", "False", "(1,)"), 16, "descr '<f16' is not supported" },
    { NPY("'<c8'", "False", "(1,)"), 8, "descr '<c8' is not supported" },
    { NPY("'<U1'", "False", "(1,)"), 4, "descr '<U1' is not supported" },
    { NPY("'|S4'", "False", "(1,)"), 4, "descr '|S4' is not supported" },
    { NPY("'|V4'", "False", "(1,)"), 4, "descr '|V4' is not supported" },
    { NPY("'<M8[s]'", "False", "(1,)"), 8, "descr '<M8[s]' is not supported" },
    { NPY("'|f4'", "False", "(1,)"), 4, "descr '|f4' is not supported" },
    { NPY("'=f4'", "False", "(1,)"), 4, "descr '=f4' is not supported" },
    { NPY("'f4'", "False", "(1,)"), 4, "descr 'f4' is not supported" },
    { NPY("'<b2'", "False", "(1,)"), 2, "descr '<b2' is not supported" },
    { NPY("'< f'", "False", "(1,)"), 4, "descr '< f' is not supported" },
    { NPY("[('a', '<f4')]", "False", "(1,)"), 4, "no structure" },
    { NPY("'<f4", "False", "(1,)"), 4, "descr '<f4, ' is not supported" },
    { NPY("<f4", "False", "(1,)"), 4, "no structure" },
    { NPY("'float32 in words'", "False", "(1,)"), 4, "no structure" },
    { NPY("'<f4'", "0", "(1,)"), 4, "True or False" },
    { NPY("'<f4'", "False", "1"), 4, "a tuple was expected" },
    { NPY("'<f4'", "False", "(1)"), 4, "not a tuple" },
    { NPY("'<f4'", "False", "(1 1)"), 4, "a comma or )" },
    { NPY("'<f4'", "False", "(-1,)"), 4, "a size was expected" },
    { NPY("'<f4'", "False", "(1.0,)"), 4, "a comma or )" },
    { NPY("'<f4'", "False", "(1L,)"), 4, "a comma or )" },
    { NPY("'<f4'", "False", "(0x1,)"), 4, "a comma or )" },
    { NPY("'<f4'", "False", "(01,)"), 4, "a size was expected" },
    { NPY("'<f4'", "False", "(,)"), 4, "a size was expected" },
    { NPY("'<f4'", "False", "(1*1,)"), 4, "a comma or )" },
    { NPY("'<f4'", "False", "(99999999999999999999,)"), 4, "beyond 64 bits" },
    { NPY("'<f4'", "False", "(4294967296, 4294967296)"), 4, "shape (4294967296,4294967296)" },
    { NPY("'<f4'", "False", "(4611686018427387904,)"), 0, "shape (4611686018427387904)" },
    { NPY("'<f4'", "False", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), 4, "more than 8 sizes" },
    { NPY("'<f4'", "False", "(1, 1"), 4, "a size was expected" },
    { NPY("'<f4'", "False", "(2,)"), 7, "but 7 bytes of data" },
    { NPY("'<f4'", "False", "(2,)"), 9, "but 9 bytes of data" },
    { NPY("'<f4'", "False", "()"), 0, "but 0 bytes of data" },
};

static void every_fault_of_an_npy_is_named(void) {
    static const unsigned char zeros[32];
    ttt_ctx *c = ttt_open(NULL);
    for (int i = 0; i < COUNT(npy_faults); i++) {
        ttt_tensor *t = NULL;
        size_t n = (size_t)npy_faults[i].data, before = ttt_memory(c).step;
        const char *path = npy("fault.npy", 1, npy_faults[i].header, zeros, n);
        CHECK(ttt_npy_read(c, path, &t) == TTT_ERR_FORMAT && t && t->size == 0);
        bool said = says(c, TTT_ERR_FORMAT, npy_faults[i].says, path);
        CHECK(said);
        if (!said) printf("    reading %s\n", npy_faults[i].header);
        CHECK(ttt_memory(c).step == before);
    }
    for (int version = 0; version < 6; version++) {  // 0.0, 4.0, 255.0, 1.1, 2.1, 3.255
        static const char *const bytes[6] = { "\0\0", "\4\0", "\377\0", "\1\1", "\2\1", "\3\377" };
        unsigned char p[16] = "\x93NUMPY";
        ttt_tensor *t = NULL;
        memcpy(p + 6, bytes[version], 2);
        put(at("version.npy"), p, sizeof p);
        CHECK(ttt_npy_read(c, at("version.npy"), &t) == TTT_ERR_FORMAT &&
              says(c, TTT_ERR_FORMAT, "version.npy", "is not known"));
    }
    ttt_close(c);
}

static void cut_and_damaged_npy_never_crash(void) {
    ttt_ctx *c = ttt_open(NULL);
    const char *path = at("damaged.npy");
    ttt_tensor *t, *w = ttt_full(c, TTT_SHAPE(2, 3), 1);
    CHECK(ttt_npy_write(c, path, w) == TTT_OK);
    size_t n, data = 6 * sizeof(ttt_real);
    unsigned char *p = get(path, &n);
    CHECK(p && n == 128 + data);
    for (size_t cut = 0; cut < n; cut++) {
        put(path, p, cut);
        CHECK(ttt_npy_read(c, path, &t) == TTT_ERR_FORMAT);
        CHECK(says(c, TTT_ERR_FORMAT, path, ""));
    }
    for (size_t bit = 0; bit < 8 * (n - data); bit++) {
        ttt_mark m = ttt_mark_get(c);
        p[bit / 8] ^= (unsigned char)(1 << bit % 8);
        put(path, p, n);
        p[bit / 8] ^= (unsigned char)(1 << bit % 8);
        ttt_result r = ttt_npy_read(c, path, &t);
        CHECK(r == TTT_OK ? t->size > 0 : r == TTT_ERR_FORMAT && strstr(ttt_error(c), path));
        ttt_clear(c);
        ttt_mark_release(c, m);
    }
    free(p);
    ttt_close(c);
    CHECK(blocks_alive == 0);
}

// ---- the hostile corpus -------------------------------------------------------------------------
static bool read_any(ttt_ctx *c, const char *path, ttt_bundle *b, ttt_named *one) {
    size_t n = strlen(path);
    if (strcmp(path + n - 4, ".npy") != 0) return ttt_safetensors_read(c, path, b) == TTT_OK;
    memset(b, 0, sizeof *b);
    one->name = "";
    if (ttt_npy_read(c, path, &one->tensor) != TTT_OK) return false;
    b->tensors = one;
    b->n_tensors = 1;
    return true;
}

static void the_hostile_corpus_is_judged_right(void) {
    if (!ttt_test_data()) SKIP("TTT_TEST_DATA is not set");
    char path[1000], line[500];
    int seen = 0;
    snprintf(path, sizeof path, "%s/hostile/expected.tsv", ttt_test_data());
    FILE *f = fopen(path, "rb");
    if (!f) SKIP("TTT_TEST_DATA has no hostile/expected.tsv");
    while (fgets(line, sizeof line, f)) {
        char *verdict = strchr(line, '\t');
        ttt_named one;
        ttt_bundle b;
        if (!verdict || (strncmp(line, "safetensors/", 12) != 0 && strncmp(line, "npy/", 4) != 0))
            continue;
        *verdict++ = 0;
        ttt_ctx *c = ttt_open(NULL);
        snprintf(path, sizeof path, "%.480s/hostile/%s", ttt_test_data(), line);
        comparisons = 0;
        bool loads = read_any(c, path, &b, &one);
        bool good = strncmp(verdict, "accept", 6) == 0
                        ? loads
                        : !loads && ttt_status(c) == TTT_ERR_FORMAT && strstr(ttt_error(c), path);
        if (!good) printf("  %s: %s, but \"%s\"\n", line, verdict, ttt_error(c));
        CHECK(good && comparisons < 1 << 20 && ttt_memory(c).held < 64000000);
        ttt_close(c);
        seen++;
    }
    fclose(f);
    CHECK(seen >= 80);
}

typedef struct {
    const char *file, *name;
    ttt_shape shape;
    double v[6];
} hostile_value;
static void check_hostile_values(const hostile_value *rows, int n) {
    for (int i = 0; i < n; i++) {
        ttt_ctx *c = ttt_open(NULL);
        char path[1000];
        ttt_named one;
        ttt_bundle b;
        bool is_npy = strncmp(rows[i].file, "npy", 3) == 0;
        snprintf(path, sizeof path, "%s/hostile/%s.%s", ttt_test_data(), rows[i].file,
                 is_npy ? "npy" : "safetensors");
        CHECK(read_any(c, path, &b, &one));
        ttt_tensor *t = ttt_bundle_find(&b, rows[i].name);
        CHECK(t && ttt_shape_equal(t->shape, rows[i].shape));
        if (t) t = ttt_cast(c, t, TTT_DTYPE_REAL);
        for (int64_t k = 0; t && k < t->size && k < 6; k++) {
            double v = (double)t->data[k];
            bool right = v == rows[i].v[k] && minus(v) == minus(rows[i].v[k]);
            if (!right) printf("  %s [%d] %g\n", rows[i].file, (int)k, v);
            CHECK(right);
        }
        ttt_close(c);
    }
}
static void check_safetensors_values(void) {
    static const double inf = (double)INFINITY;
    const hostile_value rows[] = {
        { "safetensors/a_simple", "w", TTT_SHAPE(2, 3), { 1, 2, 3, 4, 5, 6 } },
        { "safetensors/a_space_padding", "w", TTT_SHAPE(2, 3), { 1, 2, 3, 4, 5, 6 } },
        { "safetensors/a_scalar", "s", ttt_scalar_shape(), { 42 } },
        { "safetensors/a_zero_size", "w", TTT_SHAPE(2, 3), { 1, 2, 3, 4, 5, 6 } },
        { "safetensors/a_zero_size", "z", TTT_SHAPE(0, 5), { 0 } },
        { "safetensors/a_zero_dim_huge", "z", TTT_SHAPE(1099511627776, 0), { 0 } },
        { "safetensors/a_unicode_name", "poids.\xc3\xa9.\xe9\x87\x8d\xe3\x81\xbf.\xf0\x9f\x9c\x82",
          TTT_SHAPE(2, 3), { 1, 2, 3, 4, 5, 6 } },
        { "safetensors/a_escaped_name", "a\"b\\c\xc3\xa9\xf0\x9f\x98\x80",
          TTT_SHAPE(2, 3), { 1, 2, 3, 4, 5, 6 } },
        { "safetensors/a_key_order", "w", TTT_SHAPE(2, 3), { 1, 2, 3, 4, 5, 6 } },
        { "safetensors/a_whitespace", "w", TTT_SHAPE(2, 3), { 1, 2, 3, 4, 5, 6 } },
        { "safetensors/a_header_order_not_offset_order", "a", TTT_SHAPE(1), { 1 } },
        { "safetensors/a_header_order_not_offset_order", "b", TTT_SHAPE(1), { 2 } },
        { "safetensors/a_bf16", "w", TTT_SHAPE(4), { 1, -2, inf, ldexp(1, -133) } },
        { "safetensors/a_f16", "w", TTT_SHAPE(5), { 1, -2, 65504, ldexp(1, -24), -0.0 } },
        { "safetensors/a_f64", "w", TTT_SHAPE(2), { 1.5, -2.25 } },
        { "safetensors/a_i64", "w", TTT_SHAPE(3), { 0, -1, 9007199254740992.0 } },
        { "safetensors/a_ints_bool", "a", TTT_SHAPE(3), { 0, 128, 255 } },
        { "safetensors/a_ints_bool", "b", TTT_SHAPE(1), { -128 } },
        { "safetensors/a_ints_bool", "c", TTT_SHAPE(2), { 0, 1 } },
        { "safetensors/a_ints_bool", "d", TTT_SHAPE(1), { -2 } },
        { "safetensors/a_ints_bool", "e", TTT_SHAPE(1), { -3 } },
        { "safetensors/a_unaligned_f32", "w", TTT_SHAPE(2), { 1.5, -2 } },
        { "safetensors/a_3000_tensors", "layer.2999.w", TTT_SHAPE(1), { 2999 } },
    };
    check_hostile_values(rows, COUNT(rows));
}
static void check_npy_values(void) {
    const hostile_value rows[] = {
        { "npy/a_f4", "", TTT_SHAPE(2, 3), { 1, 2, 3, 4, 5, 6 } },
        { "npy/a_v2", "", TTT_SHAPE(2, 3), { 1, 2, 3, 4, 5, 6 } },
        { "npy/a_v3", "", TTT_SHAPE(2, 3), { 1, 2, 3, 4, 5, 6 } },
        { "npy/a_scalar", "", ttt_scalar_shape(), { 42 } },
        { "npy/a_zero", "", TTT_SHAPE(0, 3), { 0 } },
        { "npy/a_u1", "", TTT_SHAPE(4), { 0, 1, 128, 255 } },
        { "npy/a_f8", "", TTT_SHAPE(2), { 1.5, -2 } },
        { "npy/a_i8", "", TTT_SHAPE(2), { -1, 7 } },
        { "npy/e_fortran", "", TTT_SHAPE(2, 3), { 1, 3, 5, 2, 4, 6 } },
        { "npy/e_big_endian", "", TTT_SHAPE(2, 3), { 1, 2, 3, 4, 5, 6 } },
    };
    check_hostile_values(rows, COUNT(rows));
}
static void the_hostile_corpus_has_the_right_values(void) {
    if (!ttt_test_data()) SKIP("TTT_TEST_DATA is not set");
    check_safetensors_values();
    check_npy_values();
    ttt_ctx *c = ttt_open(NULL);
    char path[1000];
    ttt_bundle b;
    snprintf(path, sizeof path, "%s/hostile/safetensors/a_metadata_only.safetensors",
             ttt_test_data());
    CHECK(ttt_safetensors_read(c, path, &b) == TTT_OK && b.n_tensors == 0 && b.n_notes == 1);
    CHECK(ttt_bundle_note(&b, "format") && strcmp(ttt_bundle_note(&b, "format"), "pt") == 0);
    snprintf(path, sizeof path, "%s/hostile/safetensors/a_nan_inf.safetensors", ttt_test_data());
    static const uint32_t bits[4] = { 0x7fc00001, 0x7f800000, 0xff800000, 0x80000000 };
    ttt_tensor *t = ttt_safetensors_read(c, path, &b) == TTT_OK ? ttt_bundle_find(&b, "w") : NULL;
    for (int i = 0; i < 4 && t; i++) {
        ttt_real v;
        ttt__real_of_32(&v, bits[i]);
        CHECK(memcmp(&v, t->data + i, sizeof v) == 0);
    }
    CHECK(t && t->size == 4);
    ttt_close(c);
}

// What is wrong with these is their JSON, so the reader alone must see it.
static void the_hostile_json_is_refused(void) {
    static const struct {
        const char *file;
        bool good;
    } rows[] = {
        { "a_ok", true }, { "a_unknown_key", true }, { "a_escaped_key", true }, { "a_crlf", true },
        { "a_exp", true }, { "r_empty", false }, { "r_truncated", false },
        { "r_trailing_comma", false }, { "r_comment", false }, { "r_nan", false },
        { "r_deep", false }, { "r_nul_inside", false }, { "e_bom", false },
    };
    if (!ttt_test_data()) SKIP("TTT_TEST_DATA is not set");
    for (int i = 0; i < COUNT(rows); i++) {
        ttt_ctx *c = ttt_open(NULL);
        char path[1000];
        size_t n;
        snprintf(path, sizeof path, "%s/hostile/config/%s.json", ttt_test_data(), rows[i].file);
        char *text = ttt_file_read(c, path, &n);
        CHECK(text);
        ttt__json j = ttt__json_of(text, n);
        if (text && (ttt__json_skip(&j) && ttt__json_end(&j)) != rows[i].good)
            printf("  %s: %s\n", rows[i].file, j.why);
        CHECK(text && !j.why == rows[i].good);
        ttt_close(c);
    }
}

// ---- JSON ---------------------------------------------------------------------------------------
static bool json_good(const char *text) {
    char copy[400];
    size_t n = strlen(text);
    memcpy(copy, text, n);  // without its 0: the end is where the size says
    ttt__json j = ttt__json_of(copy, n);
    bool good = ttt__json_skip(&j) && ttt__json_end(&j);
    if (memcmp(copy, text, n) != 0) return !good;  // skipping changes nothing
    return good;
}

static void json_is_taken_strictly(void) {
    static const char *const good[] = {
        "{}", "[]", " [ ] ", "1", "-0", "-1.5e-10", "1E+2", "0.0", "10", "\"\"", "true", "false",
        "null", "[1,2 , 3]", "{\"a\":{\"b\":[{}]},\"c\":\"\"}", "\"\\u00e9\\ud834\\udd1e\"",
        "\"\x7f\"", "[[],[[]],{}]", "{\"a\":1,\"a\":2}", "\t\r\n 1"
    };
    static const char *const bad[] = {
        "", " ", "{", "}", "[", "]", "{]", "[}", "[1}", "{\"a\":1]", "[1,]", "[,1]", "[1 2]",
        "{\"a\":1,}", "{,}", "{a:1}", "{'a':1}", "{\"a\"}", "{\"a\":}", "{\"a\":1 \"b\":2}",
        "{1:2}", "01", "-", "+1", ".5", "5.", "1e", "1e+", "0x10", "1.e1", "--1", "1 1", "NaN",
        "Infinity", "-Infinity", "tru", "truex", "nul", "True", "\"", "\"a", "'a'", "\"\\\"",
        "\"\\u12\"", "\"\\ud800\"", "\"\\udc00\\ud800\"", "\"\\u0000\"", "\"\\a\"", "\"\n\"",
        "\"\t\"", "// c\n1", "/**/1", "[1]]", "{}{}", "\xef\xbb\xbf{}", "\"\xc1\xbf\"",
        "\"\xe0\x9f\xbf\"", "\"\xf0\x8f\xbf\xbf\"", "\"\xf5\x80\x80\x80\"", "\"\x80\"",
        "\"\xc3\"", "1,", "[\"a\",\n4\n,1,", "[\"a\"\"b\"]"
    };
    for (int i = 0; i < COUNT(good); i++) {
        if (!json_good(good[i])) printf("  refused: %s\n", good[i]);
        CHECK(json_good(good[i]));
    }
    for (int i = 0; i < COUNT(bad); i++) {
        if (json_good(bad[i])) printf("  taken: %s\n", bad[i]);
        CHECK(!json_good(bad[i]));
    }
}

static void json_depth_has_a_limit(void) {
    for (int depth = 63; depth <= 66; depth++) {
        char text[400] = "";
        for (int i = 0; i < depth; i++) strcat(text, i % 2 ? "{\"\":" : "[");
        strcat(text, "1");
        for (int i = depth; i-- > 0;) strcat(text, i % 2 ? "}" : "]");
        CHECK(json_good(text) == (depth <= 64));
    }
}

static bool json_text(const char *text, const char *expected) {
    char copy[200];
    const char *out = NULL;
    snprintf(copy, sizeof copy, "%s", text);
    ttt__json j = ttt__json_of(copy, strlen(copy));
    return ttt__json_string(&j, &out) && ttt__json_end(&j) && strcmp(out, expected) == 0;
}

static void json_strings_are_decoded(void) {
    CHECK(json_text("\"\"", "") && json_text(" \"abc\" ", "abc"));
    CHECK(json_text("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"));
    CHECK(json_text("\"\\u0041\\u00E9\\u00e9\\u07ff\\u0800\\uFFFF\"",
                    "A\xc3\xa9\xc3\xa9\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf"));
    CHECK(json_text("\"\\ud800\\udc00\\uDBFF\\uDFFF\"", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"));
    CHECK(json_text("\"a\xe2\x82\xac\\n\xf0\x9d\x84\x9e\"", "a\xe2\x82\xac\n\xf0\x9d\x84\x9e"));
}

static bool json_whole(const char *text, int64_t *v) {
    char copy[100];
    snprintf(copy, sizeof copy, "%s", text);
    ttt__json j = ttt__json_of(copy, strlen(copy));
    return ttt__json_int(&j, v) && ttt__json_end(&j);
}

static void json_integers_are_whole_and_in_range(void) {
    int64_t v = 5;
    CHECK(json_whole("0", &v) && v == 0);
    CHECK(json_whole("-7", &v) && v == -7);
    CHECK(json_whole("9223372036854775807", &v) && v == INT64_MAX);
    CHECK(json_whole("-9223372036854775808", &v) && v == INT64_MIN);
    CHECK(!json_whole("9223372036854775808", &v) && !json_whole("-9223372036854775809", &v));
    CHECK(!json_whole("18446744073709551680", &v) && !json_whole("100000000000000000000", &v));
    CHECK(!json_whole("1.0", &v) && !json_whole("1e3", &v) && !json_whole("\"1\"", &v));
    CHECK(!json_whole("true", &v) && !json_whole("", &v));
}

static void json_walks_what_it_is_asked_for(void) {
    char text[] = "{\"n\":3,\"list\":[1.5,\"x\",true,null,false],\"skip\":{\"a\":[[]]},"
                  "\"last\":\"\\u00e9\"}";
    ttt__json j = ttt__json_of(text, strlen(text));
    const char *key, *s = NULL;
    int64_t n = 0;
    bool yes = false, no = true;
    CHECK(ttt__json_count(j) == 4);
    CHECK(ttt__json_enter(&j, '{') && ttt__json_key(&j, &key) && strcmp(key, "n") == 0 &&
          ttt__json_int(&j, &n) && n == 3);
    CHECK(ttt__json_key(&j, &key) && strcmp(key, "list") == 0 && ttt__json_kind(&j) == '[' &&
          ttt__json_enter(&j, '['));
    CHECK(ttt__json_item(&j) && ttt__json_kind(&j) == '0' && ttt__json_skip(&j));
    CHECK(ttt__json_item(&j) && ttt__json_kind(&j) == '"' && ttt__json_string(&j, &s) &&
          strcmp(s, "x") == 0);
    CHECK(ttt__json_item(&j) && ttt__json_kind(&j) == 't' && ttt__json_bool(&j, &yes) && yes);
    CHECK(ttt__json_item(&j) && ttt__json_kind(&j) == 'n' && ttt__json_null(&j));
    CHECK(ttt__json_item(&j) && ttt__json_kind(&j) == 't' && ttt__json_bool(&j, &no) && !no);
    CHECK(!ttt__json_item(&j) && ttt__json_key(&j, &key) && ttt__json_skip(&j));
    CHECK(ttt__json_key(&j, &key) && ttt__json_string(&j, &s) && strcmp(s, "\xc3\xa9") == 0 &&
          !ttt__json_key(&j, &key));
    CHECK(ttt__json_end(&j) && !j.why && j.depth == 0);
}

static bool document(ttt_ctx *c, char *text, ttt__document *d) {
    return ttt__document_of(c, "file.json", text, strlen(text), d);
}

static bool refused_because(ttt_ctx *c, const char *part) {
    bool good = ttt_status(c) == TTT_ERR_FORMAT && strstr(ttt_error(c), "file.json: ") &&
                strstr(ttt_error(c), part);
    if (!good) printf("  \"%s\" lacks \"%s\"\n", ttt_error(c), part);
    ttt_clear(c);
    return good;
}

static void json_documents_are_found_by_key(void) {
    ttt_ctx *c = ttt_open(NULL);
    char text[] = "{\"n\":3,\"real\":-2.5e-3,\"yes\":true,\"none\":null,\"s\":\"\\u0000\\u00e9\","
                  "\"list\":[[1],{\"n\":7},\"x\"]}";
    ttt__document d;
    int64_t n = 0;
    double real = 0;
    bool yes = false;
    ttt__string s = { NULL, 0 };
    CHECK(document(c, text, &d));
    CHECK(ttt__member_int(&d, d.root, "n", 0, 9, &n) && n == 3);
    CHECK(ttt__member_real(&d, d.root, "real", -1, 1, &real) && real == -2.5e-3);
    CHECK(ttt__member_bool(&d, d.root, "yes", &yes) && yes);
    CHECK(ttt__member_string(&d, d.root, "s", &s) && s.n == 3);
    CHECK(s.at && memcmp(s.at, "\0\xc3\xa9", 4) == 0);
    CHECK(!ttt__member(d.root, "none") && !ttt__member(d.root, "other") && !ttt__member(NULL, "n"));
    CHECK(ttt__member_int(&d, d.root, "none", 0, 9, &n) && n == 3);
    const ttt__value *list = ttt__member_needed(&d, d.root, "list", '[');
    const ttt__value *v = ttt__first_value(list);
    CHECK(v->kind == '[' && v->end[-1].kind == '0' && (v = v->end)->kind == '{');
    CHECK(ttt__member_int(&d, v, "n", 0, 9, &n) && n == 7);
    CHECK((v = v->end)->kind == '"' && v->end == list->end && list->end == d.root->end);
    CHECK(!ttt__member_int(&d, d.root, "n", 4, 9, &n) && n == 7);
    CHECK(refused_because(c, "'n' is 3; a whole number of 4..9 expected"));
    CHECK(!ttt__member_int(&d, d.root, "real", 0, 9, &n));
    CHECK(refused_because(c, "'real' is -2.5e-3"));
    CHECK(!ttt__member_real(&d, d.root, "n", 0, 1, &real) && refused_because(c, "'n' is 3"));
    CHECK(!ttt__member_bool(&d, d.root, "list", &yes) &&
          refused_because(c, "'list' is a list; true or false expected"));
    CHECK(!ttt__member_needed(&d, d.root, "none", '{') &&
          refused_because(c, "'none' is missing; an object expected"));
    ttt_close(c);
}

static void json_documents_are_checked_whole(void) {
    static const struct {
        const char *text, *why;
    } rows[] = {
        { "{\"a\":1,", "byte 7: a string was expected" }, { "", "byte 0: a value" },
        { "{\"a\":{\"b\":1,\"c\":[],\"b\":2}}", "the key 'b' occurs twice" },
        { "[{\"a\":1},{\"\\u0061\":1,\"a\":2}]", "the key 'a' occurs twice" },
    };
    ttt_ctx *c = ttt_open(NULL);
    for (int i = 0; i < COUNT(rows); i++) {
        char text[100];
        ttt__document d;
        snprintf(text, sizeof text, "%s", rows[i].text);
        CHECK(!document(c, text, &d) && !d.root && refused_because(c, rows[i].why));
    }
    ttt_close(c);
}

// ---- whole files --------------------------------------------------------------------------------
static void whole_files_are_read(void) {
    ttt_ctx *c = ttt_open(NULL);
    size_t n = 99;
    put(at("whole"), "ab\0cd", 5);
    char *text = ttt_file_read(c, at("whole"), &n);
    CHECK(text && n == 5 && memcmp(text, "ab\0cd", 6) == 0);
    put(at("whole"), "", 0);
    text = ttt_file_read(c, at("whole"), &n);
    CHECK(text && n == 0 && text[0] == 0 && ttt_file_read(c, at("whole"), NULL));
    size_t before = ttt_memory(c).step;
    n = 99;
    CHECK(!ttt_file_read(c, at("missing"), &n) && n == 0 &&
          says(c, TTT_ERR_FILE, "missing", strerror(ENOENT)));
    CHECK(!ttt_file_read(c, folder, &n) && n == 0 && says(c, TTT_ERR_FILE, folder, ":"));
    CHECK(!ttt_file_read(c, NULL, &n) && says(c, TTT_ERR_ARGUMENT, "path is NULL", ""));
    CHECK(ttt_memory(c).step == before);
    ttt_bundle b;
    ttt_tensor *t;
    CHECK(ttt_safetensors_read(c, at("missing"), &b) == TTT_ERR_FILE &&
          says(c, TTT_ERR_FILE, "missing", strerror(ENOENT)));
    CHECK(ttt_npy_read(c, at("missing"), &t) == TTT_ERR_FILE && t->size == 0 &&
          says(c, TTT_ERR_FILE, "missing", strerror(ENOENT)));
    CHECK(ttt_safetensors_read(c, folder, &b) == TTT_ERR_FILE &&
          says(c, TTT_ERR_FILE, folder, ":"));
    ttt_fail(c, TTT_ERR_SHAPE, "before");
    CHECK(!ttt_file_read(c, at("whole"), &n) && says(c, TTT_ERR_SHAPE, "before", ""));
    ttt_close(c);
}

static bool holds(const char *path, const char *text) {
    size_t n;
    unsigned char *p = get(path, &n);
    bool good = p && n == strlen(text) && memcmp(p, text, n) == 0;
    free(p);
    return good;
}

static void a_file_appears_whole_or_not_at_all(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_file_writer w, v;
    const char *path = at("atomic");
    CHECK(ttt_file_begin(c, &w, path) && !exists(path) && exists(w.temporary));
    CHECK(ttt_file_put(&w, "one", 3) && ttt_file_put(&w, "", 0) && !exists(path));
    CHECK(ttt_file_finish(c, &w, true) == TTT_OK && holds(path, "one") && !exists(w.temporary));
    CHECK(ttt_file_begin(c, &w, path) && ttt_file_put(&w, "two", 3));
    CHECK(ttt_file_finish(c, &w, false) == TTT_ERR_FILE && holds(path, "one") &&
          !exists(w.temporary));
    CHECK(says(c, TTT_ERR_FILE, path, "was not written"));
    // Two write at once: the last one wins.
    CHECK(ttt_file_begin(c, &w, path) && ttt_file_begin(c, &v, path));
    CHECK(strcmp(w.temporary, v.temporary) != 0);
    CHECK(ttt_file_put(&w, "first", 5) && ttt_file_put(&v, "second", 6) &&
          ttt_file_put(&w, "!", 1));
    CHECK(ttt_file_finish(c, &v, true) == TTT_OK && holds(path, "second"));
    CHECK(ttt_file_finish(c, &w, true) == TTT_OK && holds(path, "first!"));
    CHECK(ttt_file_begin(c, &w, path) && ttt_file_put(&w, "x", 1));
    ttt_fail(c, TTT_ERR_SHAPE, "meanwhile");  // a context that failed finishes nothing
    CHECK(ttt_file_finish(c, &w, true) == TTT_ERR_SHAPE && holds(path, "first!") &&
          !exists(w.temporary));
    CHECK(says(c, TTT_ERR_SHAPE, "meanwhile", ""));
    ttt_close(c);
}

#if defined(__unix__) || defined(__APPLE__)
// The number of a process that has ended.
static long ended_process(void) {
    pid_t child = fork();
    if (child == 0) _exit(0);
    while (waitpid(child, NULL, 0) != child) {}
    return (long)child;
}

// A file `atomic.tmp-MACHINE-PROCESS-...`, as a process that was killed leaves it.
static const char *leftover(unsigned machine, long process, const char *end) {
    char name[64];
    snprintf(name, sizeof name, "atomic.tmp-%08x-%ld%s", machine, process, end);
    const char *path = at(name);
    put(path, "x", 1);
    return path;
}

static void what_a_killed_process_leaves_is_removed(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_file_writer w;
    long ended = ended_process();
    unsigned here = ttt__this_machine();
    const char *path = at("atomic");
    const char *left = leftover(here, ended, "-0"), *second = leftover(here, ended, "-7");
    const char *living = leftover(here, (long)getppid(), "-0");
    const char *elsewhere = leftover(here + 1, ended, "-0");
    const char *user = leftover(here, ended, "-0.old");
    put(at("other.tmp"), "x", 1);
    CHECK(ttt_file_begin(c, &w, path) && ttt_file_finish(c, &w, true) == TTT_OK);
    CHECK(!exists(left) && !exists(second));
    CHECK(exists(living) && exists(elsewhere) && exists(user) && exists(at("other.tmp")));
    ttt_close(c);
}

// In a folder whose path has almost as many bytes as a path may have, too.
static void long_paths_are_swept_like_short_ones(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_file_writer w;
    char deep[1024], left[1100];
    size_t ends[9], n = strlen(folder), n_ends = 0;
    memcpy(deep, folder, n + 1);
    while (n < 1010) {
        size_t more = 1010 - n < 200 ? 1010 - n : 200;
        memset(deep + n, 'd', more + 1);
        deep[n] = '/';
        deep[n += more + 1] = 0;
        ends[n_ends++] = n;
        CHECK(mkdir(deep, 0777) == 0);
    }
    snprintf(left, sizeof left, "%s/f.tmp-%08x-%ld-0", deep, ttt__this_machine(), ended_process());
    put(left, "x", 1);
    snprintf(deep + n, sizeof deep - n, "/f");
    CHECK(ttt_file_begin(c, &w, deep) && ttt_file_finish(c, &w, true) == TTT_OK);
    CHECK(ttt_ok(c) && exists(deep) && !exists(left));
    remove(left);
    remove(deep);
    while (n_ends > 0) {
        deep[ends[--n_ends]] = 0;
        CHECK(rmdir(deep) == 0);
    }
    ttt_close(c);
}

// The child is killed in the middle of one save after the other; what is there is whole, and the
// next save leaves nothing beside it.
static void a_kill_leaves_a_whole_file(void) {
    static char text[200000];
    const char *path = at("killed");
    ttt_ctx *c = ttt_open(NULL);
    ttt_file_writer w;
    size_t n;
    for (int round = 0; round < 10; round++) {
        pid_t child = fork();
        for (int i = 0; child == 0; i++) {
            memset(text, 'a' + i % 26, sizeof text);
            if (!ttt_file_begin(c, &w, path)) _exit(1);
            for (size_t k = 0; k < sizeof text; k += 1000) ttt_file_put(&w, text + k, 1000);
            ttt_file_finish(c, &w, true);
        }
        struct timespec pause = { 0, 3000000L + 700000L * round };
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
        CHECK(waitpid(child, NULL, 0) == child);
        unsigned char *p = get(path, &n);
        CHECK(!p || n == 5 || (n == sizeof text && memcmp(p, p + 1, n - 1) == 0));
        free(p);
        CHECK(ttt_file_begin(c, &w, path) && ttt_file_put(&w, "whole", 5));
        CHECK(ttt_file_finish(c, &w, true) == TTT_OK && holds(path, "whole"));
    }
    ttt_close(c);  // that nothing lies beside it is checked by remove_folder
}

static void a_lock_is_held_by_one_process(void) {
    ttt_ctx *c = ttt_open(NULL);
    const char *path = at("lock");
    char text[600], number[32];
    CHECK(ttt_file_lock(c, path) == TTT_OK && exists(path));
    pid_t child = fork();  // another process is refused
    if (child == 0) {
        snprintf(number, sizeof number, "process %ld", (long)getppid());
        ttt_file_lock(c, path);
        _exit(!strstr(ttt_error(c), "delete this file") || !says(c, TTT_ERR_FILE, path, number));
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    remove(path);
    child = fork();  // one that ends without giving it back has lost it
    if (child == 0) _exit(ttt_file_lock(c, path) != TTT_OK);
    CHECK(waitpid(child, &status, 0) == child && status == 0 && exists(path));
    CHECK(ttt_file_lock(c, path) == TTT_OK);
#ifdef __linux__
    remove(path);
    child = fork();  // so has one that nobody has waited for
    if (child == 0) _exit(ttt_file_lock(c, path) != TTT_OK);
    CHECK(waitid(P_PID, (id_t)child, &(siginfo_t){ 0 }, WEXITED | WNOWAIT) == 0);
    CHECK(ttt_file_lock(c, path) == TTT_OK);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
#endif
    snprintf(text, sizeof text, "process %ld on a.n.other", ended_process());
    static const char *const kept[] = { NULL, "", "junk", "process -1 on x", "process 0 on x" };
    for (int i = 0; i < COUNT(kept); i++) {  // another machine's, and what is none
        put(path, kept[i] ? kept[i] : text, strlen(kept[i] ? kept[i] : text));
        CHECK(ttt_file_lock(c, path) == TTT_ERR_FILE && says(c, TTT_ERR_FILE, path, "delete"));
        CHECK(exists(path));
    }
    remove(path);
    CHECK(ttt_file_lock(c, at("none/lock")) == TTT_ERR_FILE &&
          says(c, TTT_ERR_FILE, "none/lock", strerror(ENOENT)));
    CHECK(ttt_file_lock(c, NULL) == TTT_ERR_ARGUMENT);
    ttt_clear(c);
    ttt_close(c);
}

// Many find the lock of an ended process at once: one takes it over.
static void a_lock_is_taken_over_once(void) {
    enum { PROCESSES = 8, ROUNDS = 5 };
    ttt_ctx *c = ttt_open(NULL);
    const char *path = at("lock"), *won = at("won");
    struct timespec pause = { 0, 1000000 };
    for (int round = 0; round < ROUNDS; round++) {
        int winners = 0, status = -1;
        pid_t child = fork();
        if (child == 0) _exit(ttt_file_lock(c, path) != TTT_OK);
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        remove(won);
        for (int i = 0; i < PROCESSES; i++)
            if (fork() == 0) {
                bool mine = ttt_file_lock(c, path) == TTT_OK;
                for (int k = 0; mine && k < 5000 && !exists(won); k++)
                    nanosleep(&pause, NULL);  // keeps it until all have tried
                _exit(mine);
            }
        for (int i = 0; i < PROCESSES; i++) {
            if (i == PROCESSES - 1) put(won, "", 0);
            CHECK(waitpid(-1, &status, 0) > 0);
            winners += WEXITSTATUS(status);
        }
        CHECK(winners == 1 && !exists(at("lock.break")));
        remove(path);
    }
    char text[600];  // while another process does that, nobody else may
    ttt__machine(text + snprintf(text, 64, "process %ld on ", ended_process()));
    put(path, text, strlen(text));
    ttt__machine(text + snprintf(text, 64, "process %ld on ", (long)getppid()));
    put(at("lock.break"), text, strlen(text));
    CHECK(ttt_file_lock(c, path) == TTT_ERR_FILE && says(c, TTT_ERR_FILE, "lock.break", "holds"));
    CHECK(exists(path));
    ttt_close(c);
}

static void what_is_no_regular_file_is_refused(void) {
    ttt_ctx *c = ttt_open(NULL);
    const char *pipe = at("pipe");
    alarm(60);  // ends a program that waits for the pipe's other end
    CHECK(mkfifo(pipe, 0600) == 0);
    const char *const path[] = { pipe, "/dev/zero", "/dev/tty", folder };
    for (int i = 0; i < COUNT(path); i++) {
        ttt_file_writer w;
        ttt_bundle b;
        ttt_tensor *t;
        CHECK(!ttt_file_read(c, path[i], NULL) &&
              says(c, TTT_ERR_FILE, path[i], "not a regular file"));
        CHECK(ttt_safetensors_read(c, path[i], &b) == TTT_ERR_FILE && b.n_tensors == 0);
        CHECK(says(c, TTT_ERR_FILE, path[i], "not a regular file"));
        CHECK(ttt_npy_read(c, path[i], &t) == TTT_ERR_FILE);
        CHECK(says(c, TTT_ERR_FILE, path[i], "not a regular file"));
        ttt_idx idx;
        CHECK(ttt_idx_read(c, path[i], &idx) == TTT_ERR_FILE);
        CHECK(says(c, TTT_ERR_FILE, path[i], "not a regular file"));
        CHECK(!ttt_file_begin(c, &w, path[i]) &&
              says(c, TTT_ERR_FILE, path[i], "not a regular file"));
    }
    ttt_images set;  // looked for, and not waited for
    put(at("train-images-idx3-ubyte"), "", 0);
    CHECK(mkfifo(at("train-labels-idx1-ubyte"), 0600) == 0);
    CHECK(strstr(ttt_images_missing_idx(c, folder), "train-labels-idx1-ubyte"));
    CHECK(ttt_images_load_idx(c, folder, "train", 10, &set) != TTT_OK);
    alarm(0);
    ttt_clear(c);
    ttt_close(c);
}
#endif

static void a_writer_that_cannot_begin_says_why(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_file_writer w;
    char path[1200];
    snprintf(path, sizeof path, "%s/none/file", folder);
    CHECK(!ttt_file_begin(c, &w, path) && !w.stream &&
          says(c, TTT_ERR_FILE, path, strerror(ENOENT)));
    CHECK(!ttt_file_put(&w, "x", 1) && ttt_file_finish(c, &w, true) == TTT_ERR_FILE);
    ttt_clear(c);
    CHECK(!ttt_file_begin(c, &w, folder) && !w.stream &&
          says(c, TTT_ERR_FILE, folder, "cannot be written"));
    CHECK(!ttt_file_begin(c, &w, NULL) && says(c, TTT_ERR_ARGUMENT, "path is NULL", ""));
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = 0;
    CHECK(!ttt_file_begin(c, &w, path) && says(c, TTT_ERR_FILE, "ppp", "at most 1023 bytes"));
    put(at("plain"), "x", 1);
    snprintf(path, sizeof path, "%s/plain/file", folder);
    CHECK(save(c, path, "w", ttt_scalar(c, 1), false) == TTT_ERR_FILE &&
          says(c, TTT_ERR_FILE, path, "cannot be written"));
    CHECK(ttt_npy_write(c, path, ttt_scalar(c, 1)) == TTT_ERR_FILE &&
          says(c, TTT_ERR_FILE, path, "cannot be written"));
#ifndef _WIN32
    // Renaming onto a device would replace it, where that is allowed.
    CHECK(!ttt_file_begin(c, &w, NULL_DEVICE) &&
          says(c, TTT_ERR_FILE, NULL_DEVICE, "cannot be written"));
#endif
    ttt_close(c);
}

// A full disk: much data fails in fwrite, little in fflush only. Each time nothing changes.
static void a_full_disk_leaves_the_old_file(void) {
    FILE *full = fopen("/dev/full", "wb");
    if (!full) SKIP("there is no /dev/full");
    fclose(full);
    static const char much[1 << 18];
    const char *path = at("full");
    for (int little = 0; little < 2; little++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt_file_writer w;
        put(path, "old", 3);
        CHECK(ttt_file_begin(c, &w, path));
        fclose((FILE *)w.stream);
        w.stream = fopen("/dev/full", "wb");
        CHECK(ttt_file_put(&w, much, little ? 10 : sizeof much) == (little == 1));
        CHECK(little || !ttt_file_put(&w, much, 1));  // and stays failed
        CHECK(ttt_file_finish(c, &w, true) == TTT_ERR_FILE &&
              says(c, TTT_ERR_FILE, path, strerror(ENOSPC)));
        CHECK(holds(path, "old") && !exists(w.temporary));
        ttt_close(c);
    }
}

// In a process of its own (`self --save path`), since the limit is the process's.
static int save_as_child(const char *path) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_result r = save(c, path, "w", ttt_full(c, TTT_SHAPE(1 << 18), 1), false);
    bool named =
        r == TTT_ERR_FILE && strstr(ttt_error(c), path) && strstr(ttt_error(c), "was not written");
    ttt_close(c);
    return r == TTT_OK ? 10 : named ? 11 : 12;
}

static void a_size_limit_leaves_the_old_file(void) {
#ifdef _WIN32
    SKIP("needs a POSIX shell");
#else
    char command[2600];
    const char *path = at("limit");
    put(path, "old", 3);
    snprintf(command, sizeof command,
             "exec 2>/dev/null; trap '' XFSZ; ulimit -f 8 || exit 77; exec '%s' --save '%s'", self,
             path);
    int status = system(command);
    if (status != 11 << 8) SKIP("the shell cannot limit the size of files");
    CHECK(holds(path, "old"));
    snprintf(command, sizeof command, "exec '%s' --save '%s'", self, path);
    CHECK(system(command) == 10 << 8 && !holds(path, "old"));
#endif
}

static void a_read_only_folder_leaves_the_old_file(void) {
#ifdef _WIN32
    SKIP("needs POSIX permissions");
#else
    char command[1400], locked[700], path[720];
    snprintf(locked, sizeof locked, "%s/locked", folder);
    snprintf(path, sizeof path, "%s/file", locked);
    CHECK(mkdir(locked, 0777) == 0);
    put(path, "old", 3);
    snprintf(command, sizeof command, "chmod 555 '%s'", locked);
    bool changed = system(command) == 0;
    ttt_ctx *c = ttt_open(NULL);
    ttt_result r = save(c, path, "w", ttt_scalar(c, 1), false);
    bool kept = holds(path, "old"),
         said = r == TTT_OK || says(c, TTT_ERR_FILE, path, strerror(EACCES));
    ttt_close(c);
    snprintf(command, sizeof command, "chmod 755 '%s'", locked);
    changed = system(command) == 0 && changed;
    remove(path);
    rmdir(locked);
    if (!changed || r == TTT_OK) SKIP("this user may write anywhere");
    CHECK(kept && said);
#endif
}

// ---- memory that runs out -----------------------------------------------------------------------
static ttt_result everything(ttt_ctx *c) {
    const char *path = at("memory.safetensors"), *array = at("memory.npy");
    static const int64_t label[2] = { 4, 5 };
    size_t n;
    ttt_tensor *back, *w = ttt_full(c, TTT_SHAPE(300, 300), 2);
    ttt_named named[2] = { { "w", w }, { "label", ttt_from_int(c, TTT_SHAPE(2), label) } };
    ttt_note note[1] = { { "a", "b" } };
    ttt_bundle b = { named, 2, note, 1 }, read;
    ttt_safetensors_write(c, path, &b, true);
    ttt_safetensors_read(c, path, &read);
    ttt_npy_write(c, array, w);
    ttt_npy_read(c, array, &back);
    ttt_file_read(c, path, &n);
    if (ttt_ok(c)) {
        CHECK(same(w, back) && n > 180000);
        ttt_tensor *cast = ttt_cast(c, ttt_bundle_find(&read, "w"), TTT_DTYPE_REAL);
        if (ttt_ok(c)) CHECK(same(w, cast));
    } else CHECK(read.n_tensors == 0 || read.n_tensors == 2);
    return ttt_status(c);
}

// Whatever allocation fails while a file is read or written, the text names the file.
static void out_of_memory_names_the_file(void) {
    const char *path[2] = { at("named.safetensors"), at("named.npy") };
    int failures[4] = { 0 };
    for (int call = 0; call < 4; call++)
        for (long n = 0, failed = 1; failed && n < 100; n++) {
            ttt_ctx *c = ttt_open(NULL);
            ttt_tensor *w = ttt_full(c, TTT_SHAPE(200, 300), 2), *back;
            ttt_named named[1] = { { "w", w } };
            ttt_bundle b = { named, 1, NULL, 0 }, read;
            size_t size;
            if (call == 0) ttt_npy_write(c, path[1], w);
            allocations_left = n;
            if (call == 0) ttt_safetensors_write(c, path[0], &b, false);
            if (call == 1) ttt_safetensors_read(c, path[0], &read);
            if (call == 2) ttt_npy_read(c, path[1], &back);
            if (call == 3) ttt_file_read(c, path[0], &size);
            failed = allocation_failed;
            allocations_left = -1;
            allocation_failed = false;
            CHECK(ttt_ok(c) == !failed);
            if (failed) CHECK(strstr(ttt_error(c), path[call == 2]) == ttt_error(c));
            if (failed) CHECK(strstr(ttt_error(c), ": out of memory"));
            failures[call] += failed != 0;
            ttt_clear(c);
            ttt_new(c, TTT_SHAPE(1));  // the file is done with
            allocations_left = 0;
            ttt_alloc(c, (size_t)1 << 26, false);
            allocations_left = -1;
            allocation_failed = false;
            CHECK(!strncmp(ttt_error(c), "out of memory", 13));
            ttt_close(c);
        }
    for (int call = 0; call < 4; call++) CHECK(failures[call] > 0);
}

static void memory_may_run_out_at_any_moment(void) {
    int failures[2] = { 0, 0 };
    for (int mode = 0; mode < 2; mode++)
        for (long n = 0;; n++) {
            fail_for_good = mode == 1;
            allocations_left = n;
            ttt_ctx *c = ttt_open(NULL);
            ttt_result r = c ? everything(c) : TTT_ERR_NO_MEMORY;
            bool failed = allocation_failed;
            allocations_left = -1;
            allocation_failed = false;
            CHECK(!failed || r == TTT_ERR_NO_MEMORY);
            if (c && failed) {  // and afterwards it all works
                ttt_clear(c);
                CHECK(everything(c) == TTT_OK);
            }
            ttt_close(c);
            CHECK(blocks_alive == 0);
            failures[mode] += failed;
            if (!failed || n > 1000) break;
        }
    CHECK(failures[0] > 5 && failures[1] > 5);
}

// ---- other programs -----------------------------------------------------------------------------
static const char *const script =
    "import sys, numpy as np, safetensors\n"
    "from safetensors.numpy import load_file, save_file\n"
    "d = sys.argv[1] + '/'\n"
    "raw = lambda path: open(d + path, 'rb').read()\n"
    "t = load_file(d + 'py_ours.safetensors')\n"
    "real = np.dtype(sys.argv[2])\n"
    "assert list(t) and t['w'].dtype == real and t['w'].shape == (3, 4)\n"
    "assert t['w'].tobytes() == raw('py_bits')\n"
    "assert t['empty'].shape == (0, 5) and t['scalar'].shape == () and t['scalar'] == 2.5\n"
    "assert t['label'].dtype == np.int64 and t['label'].tolist() == [-2**63, 2**63 - 1, 0]\n"
    "with safetensors.safe_open(d + 'py_ours.safetensors', 'np') as f:\n"
    "    assert f.metadata() == {'k\"\\n': 'caf\\u00e9 \\U0001f702'}, f.metadata()\n"
    "assert 'n\\u00e9\"\\n' in t\n"
    "assert t['bytes'].dtype == np.uint8 and t['bytes'].tolist() == [0, 7, 255]\n"
    "stored = dict(safetensors.deserialize(raw('py_bf16.safetensors')))['stored']\n"
    "assert stored['dtype'] == 'BF16' and stored['data'] == b'\\x81\\x7f\\x80?', stored\n"
    "half = dict(safetensors.deserialize(raw('py_bf16.safetensors')))['w']\n"
    "assert half['dtype'] == 'BF16' and half['shape'] == [3, 4] and len(half['data']) == 24\n"
    "a = np.load(d + 'py_ours.npy', allow_pickle=False)\n"
    "assert a.dtype == real and a.shape == (3, 4) and a.tobytes() == raw('py_bits')\n"
    "assert a.flags.c_contiguous\n"
    "assert np.load(d + 'py_label.npy').tolist() == [-2**63, 2**63 - 1, 0]\n"
    "assert np.load(d + 'py_scalar.npy').shape == () and np.load(d + 'py_scalar.npy') == 2.5\n"
    "assert np.load(d + 'py_empty.npy').shape == (0, 5)\n"
    "u = np.load(d + 'py_bytes.npy')\n"
    "assert u.dtype == np.uint8 and u.tolist() == [0, 7, 255]\n"
    "save_file({**t, 'f16': np.array([1.5, -0.0], np.float16),\n"
    "           'u8': np.array([[0, 255]], np.uint8), 'i16': np.array([-2], np.int16),\n"
    "           'b': np.array([True, False]), 'u64': np.array([2**63 - 1], np.uint64)},\n"
    "          d + 'py_theirs.safetensors', metadata={'by': 'python'})\n"
    "np.save(d + 'py_theirs.npy', a)\n"
    "np.save(d + 'py_fortran.npy', np.asfortranarray(a))\n"
    "np.save(d + 'py_big.npy', a.astype(a.dtype.newbyteorder('>'), order='F'))\n"
    "np.save(d + 'py_bool.npy', np.array([[True, False]]))\n"
    "np.save(d + 'py_int.npy', np.array(-7, np.int32))\n";

static bool python_works(void) {
#ifdef _WIN32
    return false;
#else
    return system("python3 -c 'import safetensors, numpy' >/dev/null 2>&1") == 0;
#endif
}

static void write_for_python(ttt_ctx *c, ttt_tensor *w) {
    static const int64_t label[3] = { INT64_MIN, INT64_MAX, 0 };
    ttt_tensor *l = ttt_from_int(c, TTT_SHAPE(3), label), *s = ttt_scalar(c, (ttt_real)2.5),
               *e = ttt_zeros(c, TTT_SHAPE(0, 5));
    static const uint8_t bytes[3] = { 0, 7, 255 };
    static const uint16_t halves[2] = { 0x7f81, 0x3f80 };
    ttt_tensor *u = ttt_from_u8(c, TTT_SHAPE(3), bytes);
    ttt_tensor *h = ttt_from_bf16(c, TTT_SHAPE(2), halves);
    ttt_named named[7] = { { "w", w }, { "n\xc3\xa9\"\n", s }, { "scalar", s }, { "label", l },
                           { "empty", e }, { "bytes", u }, { "stored", h } };
    ttt_note note[1] = { { "k\"\n", "caf\xc3\xa9 \xf0\x9f\x9c\x82" } };
    ttt_bundle b = { named, 6, note, 1 };  // NumPy has no bfloat16
    CHECK(ttt_safetensors_write(c, at("py_ours.safetensors"), &b, false) == TTT_OK);
    b.n_tensors = 7;
    CHECK(ttt_safetensors_write(c, at("py_bf16.safetensors"), &b, true) == TTT_OK);
    ttt_npy_write(c, at("py_ours.npy"), w);
    ttt_npy_write(c, at("py_label.npy"), l);
    ttt_npy_write(c, at("py_scalar.npy"), s);
    ttt_npy_write(c, at("py_empty.npy"), e);
    ttt_npy_write(c, at("py_bytes.npy"), u);
    CHECK(ttt_ok(c));
    unsigned char bits[12 * 8];
    for (int i = 0; i < 12; i++)
        ttt__put_bytes(bits + i * (int)sizeof(ttt_real),
                       ttt__element_bits(w, ttt__written_type(w, false), i), sizeof(ttt_real));
    put(at("py_bits"), bits, 12 * sizeof(ttt_real));
}

static void python_reads_ours_and_we_read_pythons(void) {
    if (!python_works()) SKIP("python3 with safetensors and numpy is not there");
    static const char *const files[4] = { "py_theirs.npy", "py_fortran.npy", "py_big.npy", NULL };
    static const uint32_t bits[4] = { 0x7fc00001, 0xff800000, 0x80000000, 1 };
    char command[1600];
    ttt_ctx *c = ttt_open(NULL);
    ttt_tensor *w = ttt_randn(c, TTT_SHAPE(3, 4)), *t = NULL;
    for (int i = 0; i < 4; i++) ttt__real_of_32(w->data + 3 * i, bits[i]);
    write_for_python(c, w);
    put(at("py_script"), script, strlen(script));
    snprintf(command, sizeof command, "python3 '%s' '%s' %s", at("py_script"), folder,
             DOUBLE ? "'<f8'" : "'<f4'");
    CHECK(system(command) == 0);
    ttt_bundle b;
    CHECK(ttt_safetensors_read(c, at("py_theirs.safetensors"), &b) == TTT_OK && b.n_tensors == 11);
    CHECK(same(w, ttt_bundle_find(&b, "w")) && ttt_bundle_note(&b, "by"));
    CHECK((t = ttt_bundle_find(&b, "f16")) != NULL && t->dtype == TTT_DTYPE_F16);
    if (t) t = ttt_cast(c, t, TTT_DTYPE_REAL);
    CHECK(t && t->data[0] == (ttt_real)1.5 && minus((double)t->data[1]));
    CHECK((t = ttt_bundle_find(&b, "u8")) != NULL && t->dtype == TTT_DTYPE_U8);
    CHECK(t && t->u8[1] == 255 && ttt_shape_equal(t->shape, TTT_SHAPE(1, 2)));
    CHECK((t = ttt_bundle_find(&b, "i16")) != NULL && t->dtype == TTT_DTYPE_I16 &&
          ttt_cast(c, t, TTT_DTYPE_INT)->index[0] == -2);
    CHECK((t = ttt_bundle_find(&b, "b")) != NULL && t->dtype == TTT_DTYPE_U8);
    CHECK(t && t->u8[0] == 1 && t->u8[1] == 0);
    CHECK((t = ttt_bundle_find(&b, "u64")) != NULL && t->dtype == TTT_DTYPE_INT &&
          t->index[0] == INT64_MAX);
    CHECK((t = ttt_bundle_find(&b, "label")) != NULL && t->index[0] == INT64_MIN &&
          t->index[1] == INT64_MAX);
    for (int i = 0; files[i]; i++) CHECK(ttt_npy_read(c, at(files[i]), &t) == TTT_OK && same(w, t));
    CHECK(ttt_npy_read(c, at("py_bool.npy"), &t) == TTT_OK && t->dtype == TTT_DTYPE_U8);
    CHECK(t->size == 2 && t->u8[0] == 1 && t->u8[1] == 0);
    CHECK(ttt_npy_read(c, at("py_int.npy"), &t) == TTT_OK && t->shape.rank == 0 &&
          ttt_cast(c, t, TTT_DTYPE_INT)->index[0] == -7);
    at("py_theirs.safetensors");
    if (!ttt_ok(c)) printf("  %s\n", ttt_error(c));
    ttt_close(c);
}

// ---- positions beyond 4 GB: a sparse file, read into 2 GB of memory -----------------------------
static void files_beyond_four_gigabytes(void) {
    if (!getenv("TTT_TEST_LARGE"))
        SKIP("TTT_TEST_LARGE is not set (it takes 4 GB of disk and of memory)");
    if (sizeof(void *) < 8) SKIP("needs 64-bit pointers");
    const char *header = "{" ENTRY("a", "\"F64\"", "[536870913]", "[0,4294967304]") ","
                         ENTRY("b", "\"F32\"", "[2]", "[4294967304,4294967312]") "}";
    const char *path = safetensors("large.safetensors", header, NULL, 0);
    size_t n;
    free(get(path, &n));
    FILE *f = fopen(path, "r+b");
    CHECK(f && TTT__SEEK(f, 8, SEEK_END) == 0);
    for (int i = 0; i < 4; i++) CHECK(f && TTT__SEEK(f, 1 << 30, SEEK_CUR) == 0);
    CHECK(f && fwrite("\0\0\200\77\0\0\0\100", 1, 8, f) == 8);
    CHECK(f && fclose(f) == 0);
    ttt_ctx *c = ttt_open(NULL);
    ttt_bundle b;
    CHECK(ttt_safetensors_read(c, path, &b) == TTT_OK);
    ttt_tensor *t = ttt_bundle_find(&b, "b");
    CHECK(t && t->data[0] == 1 && t->data[1] == 2);
    ttt_close(c);
    remove(path);
}

// Where positions have 32 bits, that is an error which says so, in every reader.
static void files_beyond_two_gibibytes_are_too_large_for_32_bits(void) {
    if (sizeof(TTT__TELL(stdin)) == sizeof(int64_t)) SKIP("positions have 64 bits");
    char command[600];
    const char *path = at("two.gigabytes");
    snprintf(command, sizeof command, "dd if=%s of=%s bs=1 seek=3221225472 2>%s", NULL_DEVICE, path,
             NULL_DEVICE);
    if (system(command) != 0) SKIP("no dd that makes a sparse file");
    ttt_ctx *c = ttt_open(NULL);
    ttt_bundle b;
    ttt_tensor *t;
    ttt_idx idx;
    CHECK(!ttt_file_read(c, path, NULL) && says(c, TTT_ERR_TOO_BIG, path, "2 GiB"));
    CHECK(ttt_safetensors_read(c, path, &b) && says(c, TTT_ERR_TOO_BIG, path, "2 GiB"));
    CHECK(ttt_npy_read(c, path, &t) && says(c, TTT_ERR_TOO_BIG, path, "2 GiB"));
    CHECK(ttt_idx_read(c, path, &idx) && says(c, TTT_ERR_TOO_BIG, path, "2 GiB"));
    ttt_close(c);
    remove(path);
}

// The number that the system gives the next file: it grows with every one that stays open.
static int next_descriptor(void) {
    FILE *f = fopen(at("descriptor"), "wb");
    int n = f ? fileno(f) : -1;
    if (f) fclose(f);
    return n;
}
static int first_descriptor;

static void no_file_is_left_over_or_open(void) {
    CHECK(next_descriptor() == first_descriptor);
    CHECK(remove_folder());
    make_folder();
}

static const ttt_test all[] = {
    T(every_shape_comes_back),
    T(every_bit_comes_back),
    T(bf16_is_rounded_to_nearest_even),
    T(bf16_of_a_double_is_rounded_once),
    T(every_half_is_read),
    T(integers_and_bytes_of_every_width_are_read),
    T(wide_unsigned_numbers_become_real),
    T(the_bytes_of_a_small_file),
    T(data_begins_at_a_multiple_of_eight),
    T(every_element_lies_at_a_multiple_of_its_size),
    T(names_and_notes_come_back),
    T(escapes_and_odd_orders_are_read),
    T(every_fault_of_a_header_is_named),
    T(every_fault_of_a_length_is_named),
    T(cut_and_damaged_files_never_crash),
    T(many_tensors_open_in_no_time),
    T(a_name_is_found_without_asking_all),
    T(numbers_take_the_bytes_they_have_in_the_file),
    T(a_tensor_of_a_large_file_takes_little),
    T(names_take_little_and_have_a_limit),
    T(devices_are_no_files),
    T(a_file_that_was_read_can_be_written),
    T(the_writer_refuses_what_it_could_not_read),
    T(every_npy_type_is_read),
    T(fortran_order_is_turned),
    T(every_fault_of_an_npy_is_named),
    T(cut_and_damaged_npy_never_crash),
    T(the_hostile_corpus_is_judged_right),
    T(the_hostile_corpus_has_the_right_values),
    T(the_hostile_json_is_refused),
    T(json_is_taken_strictly),
    T(json_depth_has_a_limit),
    T(json_strings_are_decoded),
    T(json_integers_are_whole_and_in_range),
    T(json_walks_what_it_is_asked_for),
    T(json_documents_are_found_by_key),
    T(json_documents_are_checked_whole),
    T(whole_files_are_read),
    T(a_file_appears_whole_or_not_at_all),
#if defined(__unix__) || defined(__APPLE__)
    T(what_a_killed_process_leaves_is_removed),
        T(long_paths_are_swept_like_short_ones),
    T(a_kill_leaves_a_whole_file),
    T(a_lock_is_held_by_one_process),
    T(a_lock_is_taken_over_once),
    T(what_is_no_regular_file_is_refused),
#endif
    T(a_writer_that_cannot_begin_says_why),
    T(a_full_disk_leaves_the_old_file),
    T(a_size_limit_leaves_the_old_file),
    T(a_read_only_folder_leaves_the_old_file),
    T(out_of_memory_names_the_file),
    T(memory_may_run_out_at_any_moment),
    T(python_reads_ours_and_we_read_pythons),
    T(files_beyond_four_gigabytes),
    T(files_beyond_two_gibibytes_are_too_large_for_32_bits),
    T(no_file_is_left_over_or_open),
    { 0 }
};

int main(int argc, char **argv) {
    self = argv[0];
    if (argc == 3 && strcmp(argv[1], "--save") == 0) return save_as_child(argv[2]);
    make_folder();
    first_descriptor = next_descriptor();
    int failed = ttt_test_main(argc, argv, all);
    remove_folder();
    return failed;
}
