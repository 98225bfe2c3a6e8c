// test_data.c - tests of ttt_data.h, sections [5] to [9]: gzip, IDX, image sets, drawn digits, and
// batches; test_files.c has the rest. The tests write the files they need to a folder of their own
// under $TMPDIR or /tmp and remove them; they look for the large ones in $TTT_TEST_DATA.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _WIN32
#include <direct.h>
#define make_dir(path) _mkdir(path)
#define remove_dir(path) _rmdir(path)
#else
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#define make_dir(path) mkdir(path, 0700)
#define remove_dir(path) rmdir(path)
#endif

// Memory of the library under test: counted, and failing at allocation number `memory_fails_at`.
static long memory_live, memory_calls, memory_fails_at = -1;

static void *memory_realloc(void *old, size_t n) {
    if (memory_calls++ == memory_fails_at) return NULL;
    void *p = realloc(old, n);
    if (p && !old) memory_live++;
    return p;
}

static void memory_free(void *p) {
    if (p) memory_live--;
    free(p);
}

#define TTT_MALLOC(user, n) ((void)(user), memory_realloc(NULL, n))
#define TTT_REALLOC(user, p, n) ((void)(user), memory_realloc(p, n))
#define TTT_FREE(user, p) ((void)(user), memory_free(p))
#define TTT_IMAGES_MAX_BYTES 67108864 // small, so that it can be reached
#define TTT_IMPLEMENTATION
#include "../ttt_data.h"
#include "ttt_test.h"

static ttt_ctx *ctx; // of most tests

// What the call being tested returned, and its error text. The context is well again after each.
static ttt_result last;
static char err_text[512];

static ttt_result told(ttt_result r) {
    CHECK(r == ttt_status(ctx));
    last = r;
    strcpy(err_text, ttt_error(ctx));
    ttt_clear(ctx);
    return r;
}

static int err_has(const char *part) {
    if (strstr(err_text, part)) return 1;
    printf("  error text is \"%s\"\n", err_text);
    return 0;
}

static int all_zero(const void *object, size_t n) {
    const unsigned char *p = (const unsigned char *)object;
    for (size_t i = 0; i < n; i++) {
        if (p[i]) return 0;
    }
    return 1;
}

#define FNV_START 14695981039346656037u

static uint64_t fnv1a(uint64_t hash, const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

// ---- bytes under construction ----

typedef struct {
    uint8_t at[4096];
    size_t n;
    int bit; // bits used of the last byte, 0 = it is full
} bytes;

static void put(bytes *b, const void *from, size_t n) {
    memcpy(b->at + b->n, from, n);
    b->n += n;
    b->bit = 0;
}

static void put_byte(bytes *b, unsigned v) {
    uint8_t byte = (uint8_t)v;
    put(b, &byte, 1);
}

static void put_little(bytes *b, uint32_t v, int n) {
    for (int i = 0; i < n; i++) put_byte(b, v >> (8 * i) & 255);
}

static void put_big(bytes *b, uint32_t v) {
    for (int i = 3; i >= 0; i--) put_byte(b, v >> (8 * i) & 255);
}

static void put_hex(bytes *b, const char *hex) { // with spaces wherever they help
    unsigned v;
    int used;
    for (; sscanf(hex, "%2x%n", &v, &used) == 1; hex += used) put_byte(b, v);
}

static void put_bit(bytes *b, unsigned bit) {
    if (b->bit == 0) {
        put_byte(b, 0);
        b->bit = 8;
    }
    b->at[b->n - 1] = (uint8_t)(b->at[b->n - 1] | bit << (8 - b->bit));
    b->bit--;
}

// A deflate stream in words: "5/3" is the number 5 in 3 bits, lowest first; "b011" are bits as they
// come; a count before x repeats the word: "4x0/3".
static void put_deflate(bytes *b, const char *words) {
    char word[64];
    int used;
    for (; sscanf(words, "%63s%n", word, &used) == 1; words += used) {
        unsigned value, width, times = 1;
        const char *w = strchr(word, 'x') ? strchr(word, 'x') + 1 : word;
        if (w != word) times = (unsigned)atoi(word);
        while (times-- > 0) {
            for (const char *p = w + 1; *w == 'b' && *p; p++) put_bit(b, *p == '1');
            if (*w != 'b' && sscanf(w, "%u/%u", &value, &width) == 2) {
                for (unsigned i = 0; i < width; i++) put_bit(b, value >> i & 1);
            }
        }
    }
}

// Bit by bit: a second opinion on the library's table.
static uint32_t crc32_of(const uint8_t *p, size_t n) {
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < 8 * n; i++) {
        uint32_t bit = (crc ^ (uint32_t)(p[i / 8] >> (i % 8))) & 1;
        crc = crc >> 1 ^ (bit ? 0xEDB88320u : 0);
    }
    return ~crc;
}

static const char plain_header[] = "1f8b0800000000000003";

static void put_gzip_end(bytes *b, const uint8_t *data, size_t n) {
    put_little(b, crc32_of(data, n), 4);
    put_little(b, (uint32_t)n, 4);
}

// One gzip member with the data in a stored block.
static void put_gzip(bytes *b, const char *header, const uint8_t *data, size_t n) {
    put_hex(b, header);
    put_byte(b, 1);
    put_little(b, (uint32_t)n, 2);
    put_little(b, (uint32_t)n ^ 0xFFFF, 2);
    put(b, data, n);
    put_gzip_end(b, data, n);
}

// Two images of 3 x 4, pixels 0..23; or labels.
static bytes idx_images(void) {
    bytes b = { .n = 0 };
    put_hex(&b, "00000803");
    put_big(&b, 2), put_big(&b, 3), put_big(&b, 4);
    for (unsigned i = 0; i < 24; i++) put_byte(&b, i);
    return b;
}

static bytes idx_labels(unsigned n, const char *hex) {
    bytes b = { .n = 0 };
    put_hex(&b, "00000801");
    put_big(&b, n);
    put_hex(&b, hex);
    return b;
}

// ---- a folder for files ----

static char folder[512];

static const char *path_of(const char *name) {
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int folder_make(void) {
    const char *base = getenv("TMPDIR");
    for (int i = 0; i < 1000 && !*folder; i++) {
        snprintf(folder, sizeof folder, "%s/ttt_test_data_%lx_%d", base && *base ? base : "/tmp",
                 (unsigned long)time(NULL), i);
        if (make_dir(folder) != 0) *folder = 0;
    }
    return *folder != 0;
}

static void file_write(const char *name, const bytes *b) {
    FILE *f = fopen(path_of(name), "wb");
    CHECK(f && fwrite(b->at, 1, b->n, f) == b->n);
    if (f) fclose(f);
}

static const char *const set_files[] = {
    "train-images-idx3-ubyte",    "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte",
    "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte",     "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte",     "t10k-labels-idx1-ubyte.gz",
};

static void set_remove(void) {
    for (size_t i = 0; i < sizeof set_files / sizeof *set_files; i++) remove(path_of(set_files[i]));
}

static ttt_result set_load(ttt_images *set) {
    return told(ttt_images_load_idx(ctx, folder, "train", 10, set));
}

// ---- errors -------------------------------------------------------------------------------------
static void long_names_are_cut(void) {
    char path[2000];
    ttt_idx idx;
    ttt_images set;
    memset(path, 'a', sizeof path);
    path[sizeof path - 1] = 0;
    CHECK(told(ttt_idx_read(ctx, path, &idx)) == TTT_ERR_FILE && err_has("a: cannot be opened: "));
    CHECK(strlen(err_text) < 300);
#ifdef _WIN32
    const char *reason = "not there";  // so it says of a name too long
#else
    const char *reason = "cannot be opened";
#endif
    CHECK(told(ttt_images_load_idx(ctx, path, "train", 10, &set)) == TTT_ERR_FILE &&
          err_has(reason));
}

static void nothing_happens_after_an_error(void) {
    bytes b = idx_images();
    ttt_idx idx;
    ttt_images set;
    ttt_pixel_norm norm;
    ttt_batches_desc desc = { .images = &set, .batch = 1 };
    ttt_tensor *x = NULL, *y = NULL;
    size_t size = 1;
    uint8_t out[1];
    CHECK(told(ttt_images_draw(ctx, 1, 0, 1, &set)) == TTT_OK);
    ttt_batches *it = ttt_batches_new(ctx, &desc);
    ttt_fail(ctx, TTT_ERR_SHAPE, "before");
    CHECK(!ttt_batches_new(ctx, &desc));
    CHECK(ttt_batches_next(ctx, it, &x, &y) == 0 && x && y && x->size == 0 && y->size == 0);
    CHECK(ttt_batches_seek(ctx, it, 1, 0) == TTT_ERR_SHAPE && it->epoch == 0 && it->position == 0);
    CHECK(ttt_idx_parse(ctx, NULL, b.at, b.n, &idx) == TTT_ERR_SHAPE && all_zero(&idx, sizeof idx));
    CHECK(ttt_images_measure(ctx, &set, &norm) == TTT_ERR_SHAPE && all_zero(&norm, sizeof norm));
    CHECK(ttt_images_draw(ctx, 1, 0, 1, &set) == TTT_ERR_SHAPE && all_zero(&set, sizeof set));
    CHECK(ttt_gzip_inflate(ctx, NULL, "a", 1, out, 1, &size) == TTT_ERR_SHAPE && size == 0);
    CHECK(!strcmp(ttt_images_missing_idx(ctx, folder), ""));
    CHECK(told(ttt_status(ctx)) == TTT_ERR_SHAPE && !strcmp(err_text, "before"));
}

// ---- the random numbers of drawn digits and batches ---------------------------------------------
static ttt__draw_rng draw_rng(uint64_t seed) {
    ttt__draw_rng d = { ttt_rng_at(seed, 0, 0, 0), { 0 } };
    return d;
}

// A stream whose next two numbers are these.
static ttt__draw_rng draw_block(uint32_t second, uint32_t third) {
    ttt__draw_rng d = { ttt_rng_at(0, 0, 0, 0), { 0, second, third, 0 } };
    d.r.next = 1;
    return d;
}

static void blocks_are_the_stream(void) {
    ttt__draw_rng d = { ttt_rng_at(7, 1, 2, 3), { 0 } };
    ttt_rng r = d.r;
    for (int i = 0; i < 23; i++) CHECK(ttt__draw_u32(&d) == ttt_rng_u32(&r));
}

// Moments of n draws against the exact ones, within 5 standard errors.
static void uniform_moments(void) {
    enum { N = 200000 };
    ttt__draw_rng rng = draw_rng(7);
    double sum = 0, squares = 0, low = 1, high = 0;
    for (int i = 0; i < N; i++) {
        double u = ttt__draw_uniform(&rng);
        sum += u, squares += u * u;
        low = u < low ? u : low, high = u > high ? u : high;
    }
    CHECK(fabs(sum / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
    CHECK(fabs(squares / N - 1.0 / 3) < 5 * sqrt(4.0 / 45 / N));
    CHECK(low >= 0 && low < 1e-4 && high < 1 && high > 1 - 1e-4);
    rng = draw_block(0xffffffff, 0xff); // both ends
    CHECK(ttt__draw_uniform(&rng) == 1 - 1.0f / 16777216);
    CHECK(ttt__draw_uniform(&rng) == 0);
}

static void normal_moments(void) {
    enum { N = 200000 };
    ttt__draw_rng rng = draw_rng(8);
    double m[5] = { 0 }, neighbors = 0, before = 0;
    for (int i = 0; i < N; i++) {
        double v = ttt__draw_normal(&rng), power = 1;
        for (int k = 1; k <= 4; k++) m[k] += power *= v;
        neighbors += v * before;
        before = v;
    }
    CHECK(fabs(m[1] / N) < 5 * sqrt(1.0 / N));
    CHECK(fabs(m[2] / N - 1) < 5 * sqrt(2.0 / N));
    CHECK(fabs(m[3] / N) < 5 * sqrt(15.0 / N));
    CHECK(fabs(m[4] / N - 3) < 5 * sqrt(96.0 / N));
    CHECK(fabs(neighbors / N) < 5 * sqrt(1.0 / N));
    rng = draw_block(0, 0); // u = 2^-32, v = 0: the largest value
    float most[1] = { ttt__draw_normal(&rng) }, expected[1] = { 6.660434f };
    CHECK_CLOSE(most, expected, 1, 1e-6, 0);
}

static void below_is_even(void) {
    enum { N = 70000 };
    int count[7] = { 0 };
    ttt_rng rng = ttt_rng_at(9, 0, 0, 0);
    for (int i = 0; i < N; i++) {
        uint32_t v = ttt__below(&rng, 7);
        CHECK(v < 7);
        count[v % 7]++;
    }
    double chi2 = 0;
    for (int i = 0; i < 7; i++) chi2 += (count[i] - N / 7) * (double)(count[i] - N / 7) / (N / 7);
    CHECK(chi2 < 27.9); // 6 degrees of freedom: once in 10,000 seeds
    CHECK(ttt__below(&rng, 1) == 0 && ttt__below(&rng, 0) == 0);
}

static void permutation_is_one(void) {
    enum { N = 1000 };
    int32_t order[N], again[N];
    char seen[N] = { 0 };
    int stayed = 0;
    ttt_rng a = ttt_rng_at(3, 1, 0, 0), b = a;
    ttt__shuffle(&a, order, N);
    ttt__shuffle(&b, again, N);
    for (int i = 0; i < N; i++) {
        CHECK(order[i] >= 0 && order[i] < N && !seen[order[i]]);
        seen[order[i]] = 1;
        stayed += order[i] == i;
    }
    CHECK(stayed < 10);
    CHECK(!memcmp(order, again, sizeof order));
    ttt__shuffle(&a, order, 0);
    ttt__shuffle(&a, order, 1);
    CHECK(order[0] == 0);
}

// All 6 orders of 3 are equally likely.
static void permutation_is_even(void) {
    enum { N = 60000 };
    int count[27] = { 0 };
    ttt_rng rng = ttt_rng_at(4, 0, 0, 0);
    for (int i = 0; i < N; i++) {
        int32_t p[3];
        ttt__shuffle(&rng, p, 3);
        count[p[0] * 9 + p[1] * 3 + p[2]]++;
    }
    double chi2 = 0;
    for (int i = 0; i < 27; i++) {
        double off = count[i] - N / 6;
        if (count[i]) chi2 += off * off / (N / 6);
    }
    CHECK(chi2 < 25.7); // 5 degrees of freedom: once in 10,000 seeds
}

// ---- [5] gzip -----------------------------------------------------------------------------------
static uint8_t inflated[4096];
static size_t inflated_size;

static ttt_result inflate_bytes(const bytes *b, size_t capacity) {
    return told(ttt_gzip_inflate(ctx, "t.gz", b->at, b->n, inflated, capacity, &inflated_size));
}

// A gzip file with this deflate stream, and a trailer that fits the data.
static bytes gzip_of(const char *deflate, const void *data, size_t n) {
    bytes b = { .n = 0 };
    put_hex(&b, plain_header);
    put_deflate(&b, deflate);
    put_gzip_end(&b, (const uint8_t *)data, n);
    return b;
}

static int inflates_to(const bytes *b, const void *data, size_t n) {
    ttt_result r = inflate_bytes(b, sizeof inflated);
    if (r != TTT_OK) printf("  %s\n", err_text);
    return r == TTT_OK && inflated_size == n && !memcmp(inflated, data, n);
}

static void inflate_stored(void) {
    // The 5 bits up to the next byte may be anything.
    bytes b = gzip_of("1/1 0/2 5/5 3/16 65532/16 97/8 98/8 99/8", "abc", 3);
    CHECK(inflates_to(&b, "abc", 3));
    b = gzip_of("0/1 0/2 0/5 2/16 65533/16 97/8 98/8 "
                "0/1 0/2 0/5 0/16 65535/16 "
                "1/1 0/2 0/5 1/16 65534/16 99/8", "abc", 3);
    CHECK(inflates_to(&b, "abc", 3));
}

static void inflate_fixed_by_hand(void) {
    // Codes of RFC 1951, 3.2.6: 'a' = 0x30 + 97 in 8 bits, 200 = 110010000 + (200 - 144) in 9, the
    // end = 7 zeros, length 3 = 257 = 0000001, length 258 = 285 = 11000101; distance 1 = 00000,
    // distance 2 = 00001.
    uint8_t expected[264] = { 'a', 200, 'a', 200, 'a' };
    memset(expected + 5, 'a', 258);
    bytes b = gzip_of("1/1 1/2 b10010001 b111001000 b0000001 b00001 b11000101 b00000 b0000000",
                      expected, 263);
    CHECK(inflates_to(&b, expected, 263));
    b = gzip_of("0/1 1/2 b0000000 1/1 1/2 b0000000", "", 0); // two empty blocks
    CHECK(inflates_to(&b, "", 0));
}

// Raw deflate of 199 bytes by zlib 1.2.13, level 9: one fixed block.
// A number of so many bits, the highest first.
static void put_code(bytes *b, unsigned code, int width) {
    while (width-- > 0) put_bit(b, code >> width & 1);
}

// What stands for v in the tables of RFC 1951, 3.2.5, where each power of two has `parts` symbols:
// *symbol, and what is left in as many extra bits as it returns.
static int extra_bits(unsigned v, unsigned parts, unsigned *symbol, unsigned *extra) {
    int bits = 0;
    while (v >> bits >= 2 * parts) bits++;
    *symbol = v < 2 * parts ? v : (unsigned)bits * parts + (v >> bits);
    *extra = v & ((1u << bits) - 1);
    return bits;
}

// "Copy length bytes from distance back" in the fixed code.
static void put_match(bytes *b, unsigned length, unsigned distance) {
    unsigned symbol, extra;
    int bits = extra_bits(length - 3, 4, &symbol, &extra);
    if (length == 258) symbol = 28, bits = 0;
    if (symbol + 1 < 24) put_code(b, symbol + 1, 7);
    else put_code(b, 192 + symbol + 1 - 24, 8);
    for (int i = 0; i < bits; i++) put_bit(b, extra >> i & 1);
    bits = extra_bits(distance - 1, 2, &symbol, &extra);
    put_code(b, symbol, 5);
    for (int i = 0; i < bits; i++) put_bit(b, extra >> i & 1);
}

static void inflate_every_length(void) {
    uint8_t expected[259];
    memset(expected, 'a', sizeof expected);
    for (unsigned length = 3; length <= 258; length++) {
        bytes b = { .n = 0 };
        put_hex(&b, plain_header);
        put_deflate(&b, "1/1 1/2 b10010001");
        put_match(&b, length, 1);
        put_deflate(&b, "b0000000");
        put_gzip_end(&b, expected, length + 1);
        CHECK(inflates_to(&b, expected, length + 1));
    }
}

// 32 kB as they are, then three bytes from the least and from the most of each distance symbol.
static void inflate_every_distance(void) {
    enum { WINDOW = 32768, MATCHES = 60, ALL = WINDOW + 3 * MATCHES };
    static uint8_t expected[ALL], file[WINDOW + 1000], out[ALL];
    bytes start = { .n = 0 }, end = { .n = 0 };
    size_t n = WINDOW;
    for (size_t i = 0; i < n; i++) expected[i] = (uint8_t)(i * i / 3 + i / 256);
    put_hex(&start, plain_header);
    put_byte(&start, 0), put_little(&start, WINDOW, 2), put_little(&start, WINDOW ^ 0xFFFF, 2);
    put_deflate(&end, "1/1 1/2");
    for (unsigned first = 1, next, k = 0; first < WINDOW; first = next, k++) {
        next = first + (k < 4 ? 1u : 1u << (k / 2 - 1));
        for (int last = 0; last < 2; last++) {
            unsigned distance = last ? next - 1 : first;
            put_match(&end, 3, distance);
            for (int i = 0; i < 3; i++, n++) expected[n] = expected[n - distance];
        }
    }
    CHECK(n == ALL);
    put_deflate(&end, "b0000000");
    put_gzip_end(&end, expected, n);
    memcpy(file, start.at, start.n);
    memcpy(file + start.n, expected, WINDOW);
    memcpy(file + start.n + WINDOW, end.at, end.n);
    size_t size = start.n + WINDOW + end.n, got;
    CHECK(told(ttt_gzip_inflate(ctx, "t.gz", file, size, out, ALL, &got)) == TTT_OK);
    CHECK(got == ALL && !memcmp(out, expected, ALL));
}

static void inflate_fixed_by_zlib(void) {
    static const char text[] = "she sells sea shells by the sea shore; the shells she sells are "
                               "sea shells, she is sure. she sells no seaside shells; sure she "
                               "sells no shore. "
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    bytes b = { .n = 0 };
    put_hex(&b, plain_header);
    put_hex(&b, "2bce4855284ecdc9290692890ac519606652a54209581c24925f946a0de142248be13a128b529174"
                "e9806532810a4a8b52f59094e5e583541567a6c08cb0062b415301b2474f21914c0000");
    put_gzip_end(&b, (const uint8_t *)text, sizeof text - 1);
    CHECK(inflates_to(&b, text, sizeof text - 1));
}

// Raw deflate by zlib 1.2.13, level 9: one dynamic block, its code lengths with repeats 16, 17, 18.
static void inflate_dynamic_by_zlib(void) {
    uint8_t data[400];
    bytes b = { .n = 0 };
    for (int i = 0; i < 400; i++) data[i] = (uint8_t)(i * i / 3 % 13 + 97);
    put_hex(&b, plain_header);
    put_hex(&b, "edcab90900300c03c0592524e307efdf2653a44a7b1c4045ad8ac93626c3922307ee4ba5ad108"
                "1dfdeb403");
    put_gzip_end(&b, data, 400);
    CHECK(inflates_to(&b, data, 400));
}

// A code with every length from 1 to 15: symbols 0..14 and the end. The look-up decodes the short
// codes, the bit-by-bit search the others. Code lengths 1..15 and 18 have codes of 4 bits: k-1 and
// 1111.
static const char every_length[] =
    "1/1 2/2 0/5 0/5 15/4 2x0/3 4/3 0/3 15x4/3 "
    "b0000 b0001 b0010 b0011 b0100 b0101 b0110 b0111 b1000 b1001 b1010 b1011 b1100 b1101 b1110 "
    "b1111 127/7 b1111 92/7 b1110 b0000 ";

static void inflate_every_code_length(void) {
    static const uint8_t data[] = { 14, 13, 0, 12, 11, 10, 9, 1, 8, 7, 14, 6, 5, 4, 3, 2, 1, 0 };
    char words[2048];
    strcpy(words, every_length);
    for (size_t i = 0; i < sizeof data; i++) {
        strcat(words, " b");
        for (int k = 0; k < data[i]; k++) strcat(words, "1");
        strcat(words, "0");
    }
    strcat(words, " b111111111111111");
    bytes b = gzip_of(words, data, sizeof data);
    CHECK(inflates_to(&b, data, sizeof data));
}

// Blocks of types 1, 2 and 1: the codes of one do not stay for the next.
static void inflate_blocks_of_all_kinds(void) {
    char words[2048];
    snprintf(words, sizeof words, "0/1 1/2 b10010001 b0000000 0%s b10 b111111111111111 "
             "0/1 1/2 b10010010 b0000000 1/1 1/2 b10010011 b0000000", every_length + 1);
    bytes b = gzip_of(words, "a\1bc", 4);
    CHECK(inflates_to(&b, "a\1bc", 4));
}

static void inflate_bad_streams(void) {
    // Code lengths {1, 18}: 1 = 0, 18 = 1; {2, 18}: 2 = 0, 18 = 1; {16, 18}: 16 = 0, 18 = 1.
    // 256 zeros are 18 + 127 and 18 + 107.
#define ONES_HEADER "14/4 2x0/3 1/3 14x0/3 1/3 "
#define TWOS_HEADER "12/4 2x0/3 1/3 12x0/3 1/3 "
#define ZEROS_256 "b1 127/7 b1 107/7 "
    // {0, 2, 18}: 18 = 0, 0 = 10, 2 = 11.
#define ZERO_TWO_HEADER "12/4 2x0/3 1/3 2/3 11x0/3 2/3 "
#define ZEROS_256_OF_TWO "b0 127/7 b0 107/7 "
    static const struct {
        const char *deflate, *problem;
    } cases[] = {
        { "1/1 3/2", "block of type 3" },
        { "1/1 0/2 0/5 3/16 65533/16 97/8 98/8 99/8", "length fails its check" },
        { "1/1 1/2 b11000110 b00000 b0000000", "length symbol above 285" },
        { "1/1 1/2 b10010001 b0000001 b11110 b0000000", "distance symbol above 29" },
        { "1/1 1/2 b10010001 b0000001 b00001 b0000000", "before the first byte" },
        { "1/1 2/2 30/5 0/5 0/4", "more than 286" },
        { "1/1 2/2 0/5 30/5 0/4", "or 30 distances" },
        // The code of the code lengths incomplete, then over-subscribed.
        { "1/1 2/2 0/5 0/5 0/4 1/3 3x0/3", "code of code lengths" },
        { "1/1 2/2 0/5 0/5 0/4 1/3 1/3 1/3 0/3", "code of code lengths" },
        { "1/1 2/2 0/5 0/5 0/4 1/3 0/3 1/3 0/3 b0 0/2", "repeat before the first" },
        { "1/1 2/2 0/5 0/5 0/4 1/3 0/3 1/3 0/3 b1 127/7 b1 110/7", "too many code lengths" },
        { "1/1 2/2 0/5 0/5 " ONES_HEADER "b0 b0 " ZEROS_256, "no end-of-block" },
        // Literals, then distances.
        { "1/1 2/2 0/5 0/5 " ONES_HEADER "b0 b0 b1 127/7 b1 105/7 b0 b0", "over-subscribed" },
        { "1/1 2/2 0/5 2/5 " ONES_HEADER ZEROS_256 "b0 b0 b0 b0", "over-subscribed" },
        { "1/1 2/2 0/5 0/5 " ZERO_TWO_HEADER ZEROS_256_OF_TWO "b11 b10", "incomplete Huffman" },
        { "1/1 2/2 0/5 0/5 " TWOS_HEADER ZEROS_256 "b0 b0", "incomplete Huffman" },
        // Distance 1 of a code that has only 0.
        { "1/1 2/2 1/5 0/5 " ONES_HEADER ZEROS_256 "b0 b0 b0 b1 b1", "not a Huffman code" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes b = gzip_of(cases[i].deflate, "", 0);
        CHECK(inflate_bytes(&b, sizeof inflated) == TTT_ERR_FORMAT);
        CHECK(inflated_size == 0 && err_has("t.gz: gzip: ") && err_has(cases[i].problem));
    }
}

// A single distance of length 1, or none: incomplete codes that compressors do write.
static void inflate_permits_one_distance(void) {
    bytes b = gzip_of("1/1 2/2 0/5 0/5 " ONES_HEADER ZEROS_256 "b0 b0 b0", "", 0);
    CHECK(inflates_to(&b, "", 0));
    // Code lengths {0, 1, 18}: 18 = 0, 0 = 10, 1 = 11.
    b = gzip_of("1/1 2/2 0/5 0/5 14/4 2x0/3 1/3 2/3 13x0/3 2/3 " ZEROS_256_OF_TWO "b11 b10 b0", "",
                0);
    CHECK(inflates_to(&b, "", 0));
}

static bytes gzip_every_field(void) {
    bytes b = { .n = 0 };
    put_hex(&b, "1f8b081e000000000003"); // FHCRC, FEXTRA, FNAME, FCOMMENT
    put_hex(&b, "0400 61626364 6e616d6500 636f6d6d656e7400");
    put_little(&b, crc32_of(b.at, b.n) & 0xFFFF, 2);
    put_hex(&b, "010200fdff6162");
    put_gzip_end(&b, (const uint8_t *)"ab", 2);
    return b;
}

static void gzip_headers(void) {
    bytes b = gzip_every_field();
    CHECK(inflates_to(&b, "ab", 2));
    b.at[28] ^= 1; // the comment
    CHECK(inflate_bytes(&b, 10) == TTT_ERR_FORMAT && err_has("header that fails its checksum"));
    static const struct {
        const char *header, *problem;
    } bad[] = {
        { "1f8c0800000000000003", "does not begin with 1f 8b" },
        { "1e8b0800000000000003", "does not begin with 1f 8b" },
        { "1f8b0700000000000003", "method other than 8" },
        { "1f8b0820000000000003", "reserved flag" },
        { "1f8b0804000000000003ffff", "ends in the middle" }, // extra field of 65535 bytes
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bytes c = { .n = 0 };
        put_gzip(&c, bad[i].header, (const uint8_t *)"ab", 2);
        CHECK(inflate_bytes(&c, 10) == TTT_ERR_FORMAT && err_has(bad[i].problem));
    }
    bytes unterminated = { .n = 0 };
    put_hex(&unterminated, "1f8b08080000000000036162636465");
    CHECK(inflate_bytes(&unterminated, 10) == TTT_ERR_FORMAT && err_has("ends in the middle"));
}

static void gzip_trailers(void) {
    bytes b = { .n = 0 };
    put_gzip(&b, plain_header, (const uint8_t *)"abc", 3);
    b.at[b.n - 1] ^= 1;
    CHECK(inflate_bytes(&b, 10) == TTT_ERR_FORMAT && err_has("size other than the one stored"));
    b.at[b.n - 1] ^= 1;
    b.at[b.n - 5] ^= 1;
    CHECK(inflate_bytes(&b, 10) == TTT_ERR_FORMAT && err_has("CRC-32"));
}

static void gzip_members(void) {
    bytes b = { .n = 0 };
    put_gzip(&b, plain_header, (const uint8_t *)"abc", 3);
    put_gzip(&b, plain_header, (const uint8_t *)"", 0);
    put_gzip(&b, plain_header, (const uint8_t *)"de", 2);
    CHECK(inflates_to(&b, "abcde", 5));
    bytes trailing = b;
    put_byte(&trailing, 0);
    CHECK(inflate_bytes(&trailing, 10) == TTT_ERR_FORMAT && err_has("ends in the middle"));
    put_hex(&trailing, "00000000000000000000");
    CHECK(inflate_bytes(&trailing, 10) == TTT_ERR_FORMAT && err_has("does not begin with 1f 8b"));
    // A member cannot copy from the one before it.
    bytes reaching = gzip_of("1/1 1/2 b10010001 b0000000", "a", 1);
    bytes second = gzip_of("1/1 1/2 b0000001 b00000 b0000000", "aaa", 3);
    put(&reaching, second.at, second.n);
    CHECK(inflate_bytes(&reaching, 10) == TTT_ERR_FORMAT && err_has("before the first byte"));
}

static void gzip_capacity(void) {
    bytes b = gzip_of("1/1 1/2 b10010001 b11000101 b00000 b0000000", "", 0); // 1 + 258 bytes
    memset(inflated, 7, sizeof inflated);
    for (size_t capacity = 0; capacity < 259; capacity++) {
        CHECK(inflate_bytes(&b, capacity) == TTT_ERR_TOO_BIG && inflated_size == 0);
        CHECK(inflated[capacity] == 7 && inflated[259] == 7); // not touched
    }
    CHECK(inflate_bytes(&b, 259) == TTT_ERR_FORMAT); // the trailer is for no bytes
    bytes stored = { .n = 0 };
    put_gzip(&stored, plain_header, (const uint8_t *)"abcdef", 6);
    CHECK(inflate_bytes(&stored, 5) == TTT_ERR_TOO_BIG && err_has("limit"));
    CHECK(inflate_bytes(&stored, 6) == TTT_OK && inflated_size == 6);
}

// Cut at any byte: refused. Any single bit flipped: refused, or the same data (the time stamp).
static void gzip_cut_or_flipped(void) {
    char words[2048];
    snprintf(words, sizeof words, "%s b10 b1111111111110 b111111111111111", every_length);
    static const uint8_t data[] = { 1, 12 };
    bytes files[2] = { gzip_of(words, data, 2), gzip_every_field() };
    for (int f = 0; f < 2; f++) {
        const void *expected = f == 0 ? (const void *)data : (const void *)"ab";
        CHECK(inflates_to(&files[f], expected, 2));
        for (size_t n = 0; n < files[f].n; n++) {
            uint8_t *cut = (uint8_t *)malloc(n ? n : 1); // a sanitizer sees a step past its end
            memcpy(cut, files[f].at, n);
            CHECK(told(ttt_gzip_inflate(ctx, NULL, cut, n, inflated, 100, &inflated_size)) ==
                  TTT_ERR_FORMAT);
            free(cut);
        }
        for (size_t bit = 0; bit < 8 * files[f].n; bit++) {
            bytes b = files[f];
            b.at[bit / 8] = (uint8_t)(b.at[bit / 8] ^ 1u << bit % 8);
            ttt_result r = inflate_bytes(&b, 100);
            CHECK(r != TTT_OK || (inflated_size == 2 && !memcmp(inflated, expected, 2)));
        }
    }
}

static void gzip_arguments(void) {
    size_t n = 1;
    CHECK(told(ttt_gzip_inflate(ctx, NULL, NULL, 1, inflated, 1, &n)) == TTT_ERR_ARGUMENT &&
          n == 0);
    CHECK(told(ttt_gzip_inflate(ctx, NULL, "a", 1, NULL, 1, &n)) == TTT_ERR_ARGUMENT &&
          err_has("NULL"));
    CHECK(told(ttt_gzip_inflate(ctx, NULL, "a", 1, inflated, 1, NULL)) == TTT_ERR_ARGUMENT);
    CHECK(told(ttt_gzip_inflate(ctx, NULL, "a", 1, inflated, 1, &n)) == TTT_ERR_FORMAT &&
          err_has("gzip in memory: "));
}

// ---- [6] IDX ------------------------------------------------------------------------------------
static ttt_result parse(const bytes *b, ttt_idx *idx) {
    return told(ttt_idx_parse(ctx, "t-ubyte", b->at, b->n, idx));
}

static void idx_shape_and_data(void) {
    bytes b = idx_images();
    ttt_idx idx;
    CHECK(parse(&b, &idx) == TTT_OK);
    CHECK(idx.type == TTT_IDX_U8 && idx.shape.rank == 3 && idx.count == 24);
    CHECK(ttt_shape_equal(idx.shape, TTT_SHAPE(2, 3, 4)));
    CHECK(idx.data && !memcmp(idx.data, b.at + 16, 24));
}

// Two elements of each type, in the byte order of the host.
static void idx_types(void) {
    ttt_idx idx;
    bytes b = { .n = 0 };
    put_hex(&b, "00000801 00000002 80ff");
    CHECK(parse(&b, &idx) == TTT_OK && ((uint8_t *)idx.data)[0] == 128 &&
          ((uint8_t *)idx.data)[1] == 255);
    b.n = 0;
    put_hex(&b, "00000901 00000002 80ff");
    CHECK(parse(&b, &idx) == TTT_OK && ((int8_t *)idx.data)[0] == -128 &&
          ((int8_t *)idx.data)[1] == -1);
    b.n = 0;
    put_hex(&b, "00000b01 00000002 0102fffe");
    CHECK(parse(&b, &idx) == TTT_OK && ((int16_t *)idx.data)[0] == 258 &&
          ((int16_t *)idx.data)[1] == -2);
    b.n = 0;
    put_hex(&b, "00000c01 00000002 01020304fffffffd");
    CHECK(parse(&b, &idx) == TTT_OK && ((int32_t *)idx.data)[0] == 0x01020304 &&
          ((int32_t *)idx.data)[1] == -3);
    b.n = 0;
    put_hex(&b, "00000d01 00000002 3fc00000c0000000");
    CHECK(parse(&b, &idx) == TTT_OK && ((float *)idx.data)[0] == 1.5f &&
          ((float *)idx.data)[1] == -2);
    b.n = 0;
    put_hex(&b, "00000e01 00000002 3ff8000000000000c000000000000000");
    CHECK(parse(&b, &idx) == TTT_OK && ((double *)idx.data)[0] == 1.5 &&
          ((double *)idx.data)[1] == -2);
}

static void idx_ranks(void) {
    for (unsigned rank = 0; rank <= 9; rank++) {
        bytes b = { .n = 0 };
        ttt_idx idx;
        put_hex(&b, "000008"), put_byte(&b, rank);
        for (unsigned i = 0; i < rank; i++) put_big(&b, 1);
        put_byte(&b, 42);
        CHECK(parse(&b, &idx) == (rank >= 1 && rank <= 8 ? TTT_OK : TTT_ERR_FORMAT));
        CHECK(rank < 1 || rank > 8 ? all_zero(&idx, sizeof idx) : *(uint8_t *)idx.data == 42);
    }
}

static void idx_empty_arrays(void) {
    bytes b = { .n = 0 };
    ttt_idx idx;
    put_hex(&b, "00000e03 ffffffff ffffffff 00000000"); // no elements, whatever the other sizes
    CHECK(parse(&b, &idx) == TTT_OK && idx.count == 0 && idx.data);
}

static void idx_bad(void) {
    static const struct {
        const char *hex;
        ttt_result result;
        const char *text;
    } cases[] = {
        { "", TTT_ERR_FORMAT, "t-ubyte: 0 bytes, an IDX header has 8 or more" },
        { "000008", TTT_ERR_FORMAT, "t-ubyte: 3 bytes" },
        { "01000801 00000000", TTT_ERR_FORMAT, "begins with 01 00 08 01" },
        { "00010801 00000000", TTT_ERR_FORMAT, "begins with 00 01 08 01" },
        { "00000a01 00000000", TTT_ERR_FORMAT, "begins with 00 00 0a 01" },
        { "00000803 00000002 000000", TTT_ERR_FORMAT, "11 bytes, an IDX header of rank 3 has 16" },
        { "00000801 00000003 0102", TTT_ERR_FORMAT,
          "11 bytes expected from its header (3), file has 10" },
        { "00000802 00000001 00000002 010203", TTT_ERR_FORMAT,
          "14 bytes expected from its header (1,2), file has 15" },
        { "00000802 00010000 00010000", TTT_ERR_TOO_BIG,
          "declares (65536,65536) elements of 1 bytes" },
        { "00000e02 ffffffff ffffffff", TTT_ERR_TOO_BIG, "elements of 8 bytes" },
        { "00000801 80000000", TTT_ERR_TOO_BIG, "declares (2147483648) elements" },
        { "00000b01 40000000", TTT_ERR_TOO_BIG, "elements of 2 bytes" },
        { "00000e01 10000000", TTT_ERR_TOO_BIG, "elements of 8 bytes" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes b = { .n = 0 };
        ttt_idx idx;
        put_hex(&b, cases[i].hex);
        CHECK(parse(&b, &idx) == cases[i].result && err_has(cases[i].text));
        CHECK(all_zero(&idx, sizeof idx));
    }
}

static void idx_gzipped(void) {
    bytes plain = idx_images(), b = { .n = 0 };
    ttt_idx idx;
    put_gzip(&b, plain_header, plain.at, 9); // two members that meet inside the header
    put_gzip(&b, plain_header, plain.at + 9, plain.n - 9);
    CHECK(parse(&b, &idx) == TTT_OK && idx.count == 24 &&
          !memcmp(idx.data, plain.at + 16, 24));
    plain.at[7] = 3; // three images declared
    b.n = 0;
    put_gzip(&b, plain_header, plain.at, plain.n);
    CHECK(parse(&b, &idx) == TTT_ERR_FORMAT &&
          err_has("t-ubyte: 52 bytes expected from its header (3,3,4)"));
    CHECK(err_has("gzip holds 40") && all_zero(&idx, sizeof idx));
    plain.at[7] = 1;
    b.n = 0;
    put_gzip(&b, plain_header, plain.at, plain.n);
    CHECK(parse(&b, &idx) == TTT_ERR_FORMAT && err_has("28 bytes expected"));
    CHECK(err_has("gzip holds at least 29"));
    plain.at[7] = 2;
    b.n = 0;
    put_gzip(&b, plain_header, plain.at, plain.n);
    b.at[b.n - 1] ^= 1;
    CHECK(parse(&b, &idx) == TTT_ERR_FORMAT && err_has("t-ubyte: gzip: "));
}

// Neither a huge declaration nor a huge content makes it allocate more than what fits together.
static void idx_bombs(void) {
    bytes declared = { .n = 0 }, b = { .n = 0 };
    ttt_idx idx;
    put_hex(&declared, "00000801 03000000");
    put_gzip(&b, plain_header, declared.at, declared.n);
    ttt_memory_reset(ctx);
    size_t before = ttt_memory(ctx).peak;
    CHECK(parse(&b, &idx) == TTT_ERR_FORMAT && ttt_memory(ctx).peak == before);
    CHECK(err_has("50331656 bytes expected") && err_has("gzip holds at most"));
    // Four bytes are declared; 1000 matches of 258 bytes follow.
    b = gzip_of("0/1 0/2 0/5 8/16 65527/16 2x0/8 8/8 1/8 3x0/8 4/8 "
                "1/1 1/2 1000xb1100010100000 b0000000", "", 0);
    CHECK(parse(&b, &idx) == TTT_ERR_FORMAT && ttt_memory(ctx).peak <= before + 64); // 12, rounded
    CHECK(err_has("12 bytes expected") && err_has("gzip holds at least 13"));
}

static void idx_files(void) {
    bytes plain = idx_images(), packed = { .n = 0 };
    ttt_idx idx;
    put_gzip(&packed, plain_header, plain.at, plain.n);
    file_write(set_files[0], &packed); // gzip is told by its bytes, not by its name
    file_write(set_files[1], &plain);
    for (int i = 0; i < 2; i++) {
        CHECK(told(ttt_idx_read(ctx, path_of(set_files[i]), &idx)) == TTT_OK && idx.count == 24);
    }
    plain.n = 20;
    file_write(set_files[0], &plain);
    CHECK(told(ttt_idx_read(ctx, path_of(set_files[0]), &idx)) == TTT_ERR_FORMAT);
    CHECK(err_has(path_of(set_files[0])) &&
          err_has("40 bytes expected from its header (2,3,4), file has 20"));
    set_remove();
    CHECK(told(ttt_idx_read(ctx, path_of(set_files[0]), &idx)) == TTT_ERR_FILE);
    CHECK(err_has(path_of(set_files[0])) && err_has("cannot be opened"));
    CHECK(told(ttt_idx_read(ctx, folder, &idx)) == TTT_ERR_FILE && err_has(folder));
}

// What the context of one reading holds, beyond what any has. The error's text begins with the
// path and has `says`; NULL: there is none.
static size_t held_by_reading(const char *name, const char *says) {
    ttt_ctx *own = ttt_open(NULL);
    size_t before = ttt_memory(own).held;
    ttt_idx idx;
    CHECK((ttt_idx_read(own, path_of(name), &idx) == TTT_ERR_FORMAT) == (says != NULL));
    CHECK(!says || (strstr(ttt_error(own), path_of(name)) && strstr(ttt_error(own), says)));
    size_t held = ttt_memory(own).held - before;
    ttt_close(own);
    return held;
}

// An IDX file of n zeros, 3 MB say, that declares as many elements of one row.
static void idx_write_zeros(const char *name, unsigned type, uint32_t declared, size_t n) {
    uint8_t *zeros = (uint8_t *)calloc(n, 1);
    const uint8_t start[8] = { 0, 0, (uint8_t)type, 1, (uint8_t)(declared >> 24),
                               (uint8_t)(declared >> 16), (uint8_t)(declared >> 8),
                               (uint8_t)declared };
    FILE *f = fopen(path_of(name), "wb");
    CHECK(f && fwrite(start, 1, 8, f) == 8 && fwrite(zeros, 1, n, f) == n);
    if (f) fclose(f);
    free(zeros);
}

// The elements are read to where they stay: there is never a copy of the file beside them.
static void idx_takes_the_bytes_of_its_elements(void) {
    enum { N = 3000000 };
    static const struct {
        unsigned type;
        int bytes;
    } rows[] = { { 0x08, 1 }, { 0x09, 1 }, { 0x0b, 2 }, { 0x0c, 4 }, { 0x0d, 4 }, { 0x0e, 8 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        idx_write_zeros(set_files[0], rows[i].type, (uint32_t)(N / rows[i].bytes), N);
        CHECK(held_by_reading(set_files[0], NULL) < N + 200000);
        idx_write_zeros(set_files[0], rows[i].type, (uint32_t)(40000000 / rows[i].bytes), N);
        CHECK(held_by_reading(set_files[0], "file has 3000008") < 200000);
    }
    set_remove();
}

// A set takes its pixels and four bytes for each label, and a chunk may be as large as all before.
static void an_image_set_is_read_to_where_it_stays(void) {
    enum { N = 3000 };
    bytes pixels = { .n = 0 };
    put_hex(&pixels, "00000803"), put_big(&pixels, N), put_big(&pixels, 28), put_big(&pixels, 28);
    FILE *f = fopen(path_of(set_files[0]), "wb");
    CHECK(f && fwrite(pixels.at, 1, pixels.n, f) == pixels.n);
    for (int i = 0; i < N * 784 && f; i++) fputc(i % 251, f);
    if (f) fclose(f);
    idx_write_zeros(set_files[2], 8, N, N);
    ttt_ctx *own = ttt_open(NULL);
    size_t before = ttt_memory(own).held;
    ttt_images set;
    CHECK(ttt_images_load_idx(own, folder, "train", 10, &set) == TTT_OK);
    CHECK(set.count == N && set.pixels[0] == 0 && set.pixels[N * 784 - 1] == (N * 784 - 1) % 251);
    CHECK(ttt_memory(own).peak < N * 784 + 5 * N + 200000);
    CHECK(ttt_memory(own).held - before < 2 * N * 784 + 200000);
    idx_write_zeros(set_files[2], 8, N - 1, N - 1);  // a failure gives the pixels back
    size_t kept = ttt_memory(own).keep;
    CHECK(ttt_images_load_idx(own, folder, "train", 10, &set) == TTT_ERR_FORMAT);
    CHECK(ttt_memory(own).keep == kept && !set.pixels);
    ttt_close(own);
    set_remove();
}

// Within the 1032 times that deflate can do, but not what it holds: refused before there is room
// for all that is declared.
static void idx_gzip_that_declares_too_much(void) {
    enum { N = 60000 };
    static uint8_t plain[N] = { 0, 0, 8, 1, 3, 0x90 };  // 59.8 million
    bytes start = { .n = 0 }, end = { .n = 0 };
    put_hex(&start, plain_header), put_byte(&start, 1);
    put_little(&start, N, 2), put_little(&start, N ^ 0xFFFF, 2);
    put_gzip_end(&end, plain, N);
    FILE *f = fopen(path_of(set_files[0]), "wb");
    CHECK(f && fwrite(start.at, 1, start.n, f) == start.n && fwrite(plain, 1, N, f) == N);
    CHECK(f && fwrite(end.at, 1, end.n, f) == end.n && fclose(f) == 0);
    CHECK(held_by_reading(set_files[0], "(59768832), gzip holds 60000") < 52000000);
    set_remove();
}

// Longer than one step of the growing buffer.
static void idx_large_file(void) {
    enum { N = 300000 };
    uint8_t *data = (uint8_t *)malloc(N);
    ttt_idx idx;
    FILE *f = fopen(path_of(set_files[0]), "wb");
    for (int i = 0; i < N; i++) data[i] = (uint8_t)((unsigned)i * 7919u >> 8);
    bytes header = { .n = 0 };
    put_hex(&header, "00000801"), put_big(&header, N);
    CHECK(f && fwrite(header.at, 1, header.n, f) == header.n && fwrite(data, 1, N, f) == N);
    if (f) fclose(f);
    CHECK(told(ttt_idx_read(ctx, path_of(set_files[0]), &idx)) == TTT_OK);
    CHECK(idx.count == N && !memcmp(idx.data, data, N));
    set_remove();
    free(data);
}

static void idx_file_above_the_limit(void) {
    ttt_idx idx;
    FILE *f = fopen(path_of(set_files[0]), "wb");
    CHECK(f && fseek(f, TTT_IMAGES_MAX_BYTES, SEEK_SET) == 0 && fputc(0, f) == 0); // mostly a hole
    if (f) fclose(f);
    CHECK(told(ttt_idx_read(ctx, path_of(set_files[0]), &idx)) == TTT_ERR_TOO_BIG);
    CHECK(err_has(path_of(set_files[0])) && err_has("larger than the limit"));
    set_remove();
}

static void idx_arguments(void) {
    ttt_idx idx;
    CHECK(told(ttt_idx_parse(ctx, NULL, NULL, 0, &idx)) == TTT_ERR_ARGUMENT &&
          all_zero(&idx, sizeof idx));
    CHECK(told(ttt_idx_parse(ctx, NULL, "", 0, NULL)) == TTT_ERR_ARGUMENT);
    CHECK(told(ttt_idx_parse(ctx, NULL, "", 0, &idx)) == TTT_ERR_FORMAT &&
          err_has("IDX in memory: "));
    CHECK(told(ttt_idx_read(ctx, NULL, &idx)) == TTT_ERR_ARGUMENT && err_has("ttt_idx_read"));
    CHECK(told(ttt_idx_read(ctx, "x", NULL)) == TTT_ERR_ARGUMENT);
}

// Every row of the list of hostile files: "accept" loads, "reject" gives a text naming the file.
static void hostile_files(void) {
    char line[512], path[1024], name[256], verdict[16];
    const char *data = ttt_test_data();
    if (!data) SKIP("TTT_TEST_DATA is not set");
    snprintf(path, sizeof path, "%s/hostile/expected.tsv", data);
    FILE *list = fopen(path, "r");
    if (!list) SKIP("no hostile files");
    int rows = 0;
    while (fgets(line, sizeof line, list)) {
        if (sscanf(line, "%255s %15s", name, verdict) != 2) continue;
        if (strncmp(name, "idx/", 4) && strncmp(name, "gz/", 3)) continue;
        ttt_idx idx;
        snprintf(path, sizeof path, "%s/hostile/%s", data, name);
        ttt_result r = told(ttt_idx_read(ctx, path, &idx));
        int refused = r == TTT_ERR_FORMAT || r == TTT_ERR_TOO_BIG;
        int right = !strcmp(verdict, "accept") ? r == TTT_OK : refused && err_has(path);
        if (!right) printf("  %s: expected %s, got \"%s\"\n", name, verdict, err_text);
        CHECK(right);
        rows++;
    }
    fclose(list);
    CHECK(rows >= 25);
}

// ---- [7] image sets -----------------------------------------------------------------------------
static void write_set(const char *images_name, const bytes *images, const char *labels_name,
                      const bytes *labels) {
    set_remove();
    file_write(images_name, images);
    file_write(labels_name, labels);
}

static void images_from_files(void) {
    bytes images = idx_images(), labels = idx_labels(2, "0903"), packed = { .n = 0 };
    ttt_images set;
    put_gzip(&packed, plain_header, labels.at, labels.n);
    write_set(set_files[0], &images, set_files[3], &packed);
    CHECK(set_load(&set) == TTT_OK);
    CHECK(set.count == 2 && set.height == 3 && set.width == 4 && set.channels == 1 &&
          set.classes == 10);
    CHECK(!memcmp(set.pixels, images.at + 16, 24) && set.labels[0] == 9 && set.labels[1] == 3);
    CHECK(told(ttt_images_load_idx(ctx, folder, "train", 9, &set)) == TTT_ERR_FORMAT);
    CHECK(err_has(path_of(set_files[3])) && err_has("label 9 of image 0, expected 0 to 8"));
    CHECK(all_zero(&set, sizeof set));
    set_remove();
}

static void images_bad_sets(void) {
    bytes images = idx_images(), labels = idx_labels(2, "0903");
    bytes three = idx_labels(3, "010203"), ten = idx_labels(2, "010a"), none = { .n = 0 },
          wide = { .n = 0 };
    ttt_images set;
    put_hex(&none, "00000803 00000000 0000001c 0000001c");
    put_hex(&wide, "00000b01 00000002 00000001");
    const struct {
        const bytes *images, *labels;
        int names; // file that the text must name
        const char *text;
    } cases[] = {
        { &images, &three, 2, "3 labels for the 2 images of " },
        { &images, &ten, 2, "label 10 of image 1, expected 0 to 9" },
        { &images, &images, 2, "type 08, shape (2,3,4); expected labels" },
        { &images, &wide, 2, "type 0b, shape (2); expected labels" },
        { &labels, &labels, 0, "type 08, shape (2); expected images" },
        { &none, &labels, 0, "shape (0,28,28); expected images" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_set(set_files[0], cases[i].images, set_files[2], cases[i].labels);
        CHECK(set_load(&set) == TTT_ERR_FORMAT);
        CHECK(err_has(path_of(set_files[cases[i].names])) && err_has(cases[i].text));
        CHECK(all_zero(&set, sizeof set));
    }
    set_remove();
}

static void images_missing_files(void) {
    bytes images = idx_images(), labels = idx_labels(2, "0903");
    ttt_images set;
    set_remove();
    CHECK(set_load(&set) == TTT_ERR_FILE && err_has(path_of(set_files[0])) &&
          err_has("not with .gz either"));
    for (int i = 0; i < 8; i += 2) {
        const char *missing = ttt_images_missing_idx(ctx, folder);
        CHECK(missing && !strcmp(missing, path_of(set_files[i])) && ttt_ok(ctx)); // no error
        file_write(set_files[i + (i == 4)], i % 4 ? &labels : &images); // one of the four with .gz
    }
    CHECK(!ttt_images_missing_idx(ctx, folder) && ttt_ok(ctx));
    remove(path_of(set_files[2]));
    CHECK(set_load(&set) == TTT_ERR_FILE && err_has(path_of(set_files[2])) &&
          all_zero(&set, sizeof set));
    set_remove();
}

// Why a file cannot be read, in the system's words, and which one: too many open files are not a
// file that is not there.
#ifdef _WIN32
static void reasons_are_told_apart(void) { SKIP("no limit of open files can be set"); }
#else
static void reasons_are_told_apart(void) {
    bytes images = idx_images();
    ttt_images set;
    struct rlimit limit, none;
    set_remove();
    file_write(set_files[0], &images);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = limit;
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    CHECK(set_load(&set) == TTT_ERR_FILE && err_has(path_of(set_files[0])));
    CHECK(err_has(strerror(EMFILE)) && !err_has("not there"));
    CHECK(ttt_images_missing_idx(ctx, folder) == NULL);  // as far as one can see
    CHECK(!ttt_file_read(ctx, path_of(set_files[0]), NULL) && told(TTT_ERR_FILE) &&
          err_has(path_of(set_files[0])) && err_has(strerror(EMFILE)));
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK(!ttt_file_read(ctx, folder, NULL) && told(TTT_ERR_FILE) && err_has("not a regular file"));
    set_remove();
    CHECK(!ttt_file_read(ctx, path_of(set_files[0]), NULL) && told(TTT_ERR_FILE) &&
          err_has(path_of(set_files[0])) && err_has(strerror(ENOENT)));
}
#endif

static void images_arguments(void) {
    ttt_images set;
    ttt_idx idx = { .type = 0 };
    CHECK(told(ttt_images_load_idx(ctx, NULL, "train", 10, &set)) == TTT_ERR_ARGUMENT &&
          all_zero(&set, sizeof set));
    CHECK(told(ttt_images_load_idx(ctx, ".", NULL, 10, &set)) == TTT_ERR_ARGUMENT);
    CHECK(told(ttt_images_load_idx(ctx, ".", "train", 10, NULL)) == TTT_ERR_ARGUMENT);
    CHECK(!strcmp(ttt_images_missing_idx(ctx, NULL), "") &&
          told(ttt_status(ctx)) == TTT_ERR_ARGUMENT);
    CHECK(told(ttt_images_from_idx(ctx, NULL, &idx, NULL, &idx, 10, &set)) == TTT_ERR_ARGUMENT);
    CHECK(told(ttt_images_from_idx(ctx, NULL, NULL, NULL, NULL, 10, NULL)) == TTT_ERR_ARGUMENT);
    bytes images = idx_images(), labels = idx_labels(2, "0903");
    ttt_idx a, b;
    CHECK(parse(&images, &a) == TTT_OK && parse(&labels, &b) == TTT_OK);
    CHECK(told(ttt_images_from_idx(ctx, NULL, &a, NULL, &b, 0, &set)) == TTT_ERR_ARGUMENT &&
          err_has("0 classes"));
    CHECK(told(ttt_images_from_idx(ctx, NULL, &b, NULL, &a, 10, &set)) == TTT_ERR_FORMAT &&
          err_has("images: "));
    CHECK(told(ttt_images_from_idx(ctx, NULL, &a, NULL, &a, 10, &set)) == TTT_ERR_FORMAT &&
          err_has("labels: "));
    CHECK(told(ttt_images_from_idx(ctx, NULL, &a, NULL, &b, 10, &set)) == TTT_OK);
    CHECK(set.pixels != a.data && set.count == 2); // a copy
}

// The labels are larger than the pixels: both count.
static void images_above_the_limit(void) {
    enum { N = 20000000 };
    uint8_t *none = (uint8_t *)calloc(N, 1);
    ttt_idx pixels = { TTT_IDX_U8, TTT_SHAPE(N, 1, 1), N, none }, labels = pixels;
    ttt_images set;
    labels.shape = TTT_SHAPE(N);
    ttt_images_from_idx(ctx, NULL, &pixels, NULL, &labels, 10, &set);
    CHECK(told(ttt_status(ctx)) == TTT_ERR_TOO_BIG);
    CHECK(err_has("(20000000,1,1,1)") && all_zero(&set, sizeof set));
    free(none);
}

static void check_fashion(const char *dir, const char *split, int64_t count, double mean,
                          const int32_t *first) {
    ttt_images set;
    ttt_pixel_norm norm;
    ttt_result r = told(ttt_images_load_idx(ctx, dir, split, 10, &set));
    CHECK(r == TTT_OK);
    if (r != TTT_OK) return;
    CHECK(set.count == count && set.height == 28 && set.width == 28 && set.channels == 1);
    CHECK(!memcmp(set.labels, first, 10 * sizeof *first));
    CHECK(told(ttt_images_measure(ctx, &set, &norm)) == TTT_OK);
    CHECK(fabs(255 * (double)norm.mean[0] - mean) < 1e-4);
}

static void fashion_mnist(void) {
    static const int32_t train[10] = { 9, 0, 0, 3, 0, 2, 7, 2, 5, 5 },
                         test[10] = { 9, 2, 1, 1, 6, 1, 4, 6, 5, 7 };
    char dir[1024];
    if (!ttt_test_data()) SKIP("TTT_TEST_DATA is not set");
    snprintf(dir, sizeof dir, "%s/data/fashion-mnist", ttt_test_data());
    if (ttt_images_missing_idx(ctx, dir)) SKIP("no Fashion-MNIST");
    check_fashion(dir, "train", 60000, 72.9404, train);
    check_fashion(dir, "t10k", 10000, 73.1466, test);
}

// ---- [8] drawn digits ---------------------------------------------------------------------------
static void drawn_images_depend_on_their_number(void) {
    ttt_images all, part, other;
    CHECK(told(ttt_images_draw(ctx, 1, 0, 50, &all)) == TTT_OK);
    CHECK(told(ttt_images_draw(ctx, 1, 33, 9, &part)) == TTT_OK);
    CHECK(told(ttt_images_draw(ctx, 2, 0, 50, &other)) == TTT_OK);
    CHECK(all.count == 50 && all.height == 28 && all.width == 28 && all.channels == 1 &&
          all.classes == 10);
    CHECK(!memcmp(all.pixels + 33 * 784, part.pixels, 9 * 784));
    CHECK(!memcmp(all.labels + 33, part.labels, 9 * sizeof(int32_t)));
    for (int i = 0; i < 50; i++) {
        CHECK(memcmp(all.pixels + i * 784, other.pixels + i * 784, 784));
        for (int k = 0; k < i; k++) CHECK(memcmp(all.pixels + i * 784, all.pixels + k * 784, 784));
    }
}

static void drawn_labels_are_balanced(void) {
    ttt_images set;
    CHECK(told(ttt_images_draw(ctx, 5, 70, 1000, &set)) == TTT_OK);
    int place[10][10] = { { 0 } }; // how often each digit stands at each place of its ten
    for (int i = 0; i < 1000; i += 10) {
        int seen = 0;
        for (int k = 0; k < 10; k++) {
            CHECK(set.labels[i + k] >= 0 && set.labels[i + k] < 10);
            seen |= 1 << set.labels[i + k];
            place[k][set.labels[i + k]]++;
        }
        CHECK(seen == 1023);
    }
    for (int k = 0; k < 100; k++) { // 10 expected
        CHECK(place[k / 10][k % 10] > 0 && place[k / 10][k % 10] < 25);
    }
}

// The same bytes on every machine, forever: results of examples and tests depend on them.
static void drawn_bytes_are_fixed(void) {
    ttt_images set;
    CHECK(told(ttt_images_draw(ctx, 1, 0, 200, &set)) == TTT_OK);
    uint64_t hash = fnv1a(FNV_START, set.pixels, 200 * 784);
    if (hash != 0xbf6e801ca1c4a374u) printf("  hash is 0x%llxu\n", (unsigned long long)hash);
    CHECK(hash == 0xbf6e801ca1c4a374u);
    static const int32_t labels[10] = { 6, 8, 1, 5, 9, 0, 7, 4, 3, 2 };
    CHECK(!memcmp(set.labels, labels, sizeof labels));
}

// The same for a thousand others, up to the last number that there is.
static void a_thousand_drawn_images_are_fixed(void) {
    ttt_images set;
    uint8_t labels[1000];
    CHECK(told(ttt_images_draw(ctx, 2310, 4294960000, 1000, &set)) == TTT_OK);
    for (int i = 0; i < 1000; i++) labels[i] = (uint8_t)set.labels[i];
    uint64_t hash = fnv1a(fnv1a(FNV_START, set.pixels, 1000 * 784), labels, 1000);
    if (hash != 0x824cc292968a5364u) printf("  hash is 0x%llx\n", (unsigned long long)hash);
    CHECK(hash == 0x824cc292968a5364u);
}

// Paper is dark and ink is bright, both with noise, and there is as much ink as digits have.
static void drawn_images_look_like_digits(void) {
    ttt_images set;
    CHECK(told(ttt_images_draw(ctx, 3, 0, 500, &set)) == TTT_OK);
    double corner = 0, full = 0;
    int ink = 0;
    for (int i = 0; i < 500; i++) {
        const uint8_t *p = set.pixels + i * 784;
        corner += p[0] / 255.0 / 500;
        for (int k = 0; k < 784; k++) ink += p[k] > 150, full += p[k] == 255;
    }
    // Clamped noise of deviation 0.15 has mean 0.15 / sqrt(2 pi) = 0.06; ink is rare in a corner.
    CHECK(corner > 0.045 && corner < 0.085);
    CHECK(ink / 500 > 45 && ink / 500 < 130);
    CHECK(full / 500 > 5 && full / 500 < 60); // pixels near the middle of a stroke, noise upwards
}

static void drawn_arguments(void) {
    static const int64_t bad[][2] = { { -1, 5 },
                                      { 0, 0 },
                                      { 0, -1 },
                                      { (int64_t)1 << 32, 1 },
                                      { ((int64_t)1 << 32) - 1, 2 },
                                      { 0, INT64_MAX },
                                      { INT64_MAX, INT64_MAX } };
    ttt_images set;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(told(ttt_images_draw(ctx, 1, bad[i][0], bad[i][1], &set)) == TTT_ERR_ARGUMENT);
        CHECK(err_has("ttt_images_draw: first ") && all_zero(&set, sizeof set));
    }
    CHECK(told(ttt_images_draw(ctx, 1, 0, 1, NULL)) == TTT_ERR_ARGUMENT);
    CHECK(told(ttt_images_draw(ctx, 1, 0, 3000000, &set)) == TTT_ERR_TOO_BIG &&
          err_has("(3000000,28,28,1)"));
    CHECK(told(ttt_images_draw(ctx, 1, ((int64_t)1 << 32) - 1, 1, &set)) == TTT_OK); // the last one
}

// ---- [9] batches --------------------------------------------------------------------------------
// A set of n images (3,5,2) of random bytes, its label the index: memory of the test.
typedef struct {
    ttt_images set;
    uint8_t pixels[64 * 30];
    int32_t labels[64];
} small_set;

static const ttt_images *small_make(small_set *s, int n) {
    ttt_rng rng = ttt_rng_at(99, 0, 0, 0);
    for (int i = 0; i < n * 30; i++) s->pixels[i] = (uint8_t)ttt_rng_u32(&rng);
    for (int i = 0; i < n; i++) s->labels[i] = i;
    ttt_images set = { n, 3, 5, 2, n, s->pixels, s->labels };
    s->set = set;
    return &s->set;
}

static ttt_batches *open_batches(const ttt_batches_desc *desc) {
    ttt_batches *it = ttt_batches_new(ctx, desc);
    CHECK((told(ttt_status(ctx)) == TTT_OK) == (it != NULL));
    return it;
}

// The next batch copied out of its tensors, whose shapes are checked.
static int next_batch(ttt_batches *it, ttt_real *x, int32_t *y) {
    ttt_mark m = ttt_mark_get(ctx);
    ttt_tensor *images = NULL, *labels = NULL;
    int64_t n = ttt_batches_next(ctx, it, x ? &images : NULL, y ? &labels : NULL);
    const ttt_images *set = it ? it->desc.images : NULL;
    if (x) {
        CHECK(images->dtype == TTT_DTYPE_REAL);
        CHECK(n ? ttt_shape_equal(images->shape,
                                  TTT_SHAPE(n, set->height, set->width, set->channels))
                : images->size == 0);
        memcpy(x, images->data, (size_t)images->size * sizeof *x);
    }
    if (y && n) {
        CHECK(labels->dtype == TTT_DTYPE_INT && ttt_shape_equal(labels->shape, TTT_SHAPE(n)));
    }
    for (int64_t i = 0; y && i < n; i++) y[i] = (int32_t)labels->index[i];
    ttt_mark_release(ctx, m);
    return (int)n;
}

// The labels of one epoch into order; the number of batches.
static int epoch_labels(ttt_batches *it, int32_t *order, int *n) {
    int batches = 0, got;
    for (*n = 0; (got = next_batch(it, NULL, order + *n)) > 0; *n += got) batches++;
    return batches;
}

static void batches_in_order(void) {
    small_set s;
    ttt_real x[4 * 30];
    int32_t y[4];
    ttt_batches_desc desc = { .images = small_make(&s, 10), .batch = 4 };
    ttt_batches *it;
    CHECK((it = open_batches(&desc)) != NULL && it->epoch == 0 && it->position == 0);
    long calls = 0;
    for (int epoch = 0; epoch < 2; epoch++) {
        for (int b = 0; b < 3; b++) {
            CHECK(it->epoch == epoch && it->position == 4 * b);
            int n = next_batch(it, x, y);
            CHECK(n == (b < 2 ? 4 : 2));
            for (int i = 0; i < n; i++) CHECK(y[i] == 4 * b + i);
            for (int i = 0; i < n * 30; i++) CHECK(x[i] == (float)(s.pixels[b * 120 + i] / 255.0));
            if (epoch == 0 && b == 0) calls = memory_calls; // the step arena is warm
        }
        CHECK(next_batch(it, x, y) == 0);
    }
    CHECK(it->epoch == 2 && it->position == 0);
    CHECK(memory_calls == calls);
    CHECK(next_batch(NULL, x, y) == 0 && told(ttt_status(ctx)) == TTT_ERR_ARGUMENT);
}

static void batches_shuffled(void) {
    small_set s;
    int32_t orders[4][64];
    int n;
    ttt_batches_desc desc = { .images = small_make(&s, 50), .batch = 8, .shuffle = 1, .seed = 11 };
    ttt_batches *it;
    CHECK((it = open_batches(&desc)) != NULL);
    for (int e = 0; e < 3; e++) {
        int seen[50] = { 0 };
        CHECK(epoch_labels(it, orders[e], &n) == 7 && n == 50);
        for (int i = 0; i < 50; i++)
            CHECK(orders[e][i] >= 0 && orders[e][i] < 50 && !seen[orders[e][i]]++);
        for (int k = 0; k < e; k++) CHECK(memcmp(orders[k], orders[e], sizeof seen));
    }
    desc.batch = 50; // the order does not depend on the batch size
    CHECK((it = open_batches(&desc)) != NULL);
    CHECK(epoch_labels(it, orders[3], &n) == 1 &&
          !memcmp(orders[0], orders[3], 50 * sizeof(int32_t)));
    desc.seed = 12;
    CHECK((it = open_batches(&desc)) != NULL);
    CHECK(epoch_labels(it, orders[3], &n) == 1 &&
          memcmp(orders[0], orders[3], 50 * sizeof(int32_t)));
}

static void batches_drop_last(void) {
    small_set s;
    int32_t order[64];
    int n;
    ttt_batches_desc desc = { .images = small_make(&s, 10), .batch = 4, .drop_last = 1 };
    ttt_batches *it;
    CHECK((it = open_batches(&desc)) != NULL);
    CHECK(epoch_labels(it, order, &n) == 2 && n == 8);
    CHECK(epoch_labels(it, order, &n) == 2 && n == 8 && it->epoch == 2);
    desc.batch = 10;
    CHECK((it = open_batches(&desc)) != NULL && epoch_labels(it, order, &n) == 1 &&
          n == 10);
    desc.batch = 11;
    CHECK(!open_batches(&desc) && last == TTT_ERR_ARGUMENT && err_has("batch 11") &&
          err_has("10 images"));
}

// Runs 3 epochs; then from every point of them another iterator goes on, with the same bits.
static void batches_resume(void) {
    enum { STEPS = 3 * 5, SIZE = 4 * 30 }; // 18 images in batches of 4: 5 an epoch
    small_set s;
    static ttt_real x[STEPS][SIZE], again[SIZE];
    int32_t y[STEPS][4], y_again[4];
    int64_t at[STEPS][2];
    int n[STEPS], step = 0;
    ttt_batches_desc desc = {
        small_make(&s, 18), 3, 4, 1, 0, { 2, 1 }, { { 0.5f, 0.4f }, { 0.2f, 0.3f } }
    };
    ttt_batches *it, *other;
    CHECK((it = open_batches(&desc)) != NULL &&
          (other = open_batches(&desc)) != NULL);
    while (step < STEPS) {
        at[step][0] = it->epoch, at[step][1] = it->position;
        n[step] = next_batch(it, x[step], y[step]);
        step += n[step] > 0;
    }
    for (int from = STEPS - 1; from >= 0; from--) {
        CHECK(told(ttt_batches_seek(ctx, other, at[from][0], at[from][1])) == TTT_OK);
        for (step = from; step < STEPS;) {
            int m = next_batch(other, again, y_again);
            if (m == 0) continue;
            CHECK(m == n[step] && !memcmp(again, x[step], sizeof(ttt_real) * 30 * (size_t)m));
            CHECK(!memcmp(y_again, y[step], sizeof(int32_t) * (size_t)m));
            step++;
        }
    }
}

// The reference: pads with zeros, cuts at (down, right), mirrors; each a step of its own.
static void augment_slowly(const uint8_t *image, int p, int down, int right, int flip,
                           uint8_t *out) {
    uint8_t padded[(3 + 2 * 4) * (5 + 2 * 4) * 2] = { 0 };
    int width = 5 + 2 * p;
    for (int i = 0; i < 3; i++) memcpy(padded + ((i + p) * width + p) * 2, image + i * 10, 10);
    for (int i = 0; i < 3; i++) memcpy(out + i * 10, padded + ((i + down) * width + right) * 2, 10);
    for (int i = 0; i < 3 && flip; i++) {
        for (int j = 0; j < 2; j++) {
            for (int c = 0; c < 2; c++) {
                uint8_t swapped = out[i * 10 + j * 2 + c];
                out[i * 10 + j * 2 + c] = out[i * 10 + (4 - j) * 2 + c];
                out[i * 10 + (4 - j) * 2 + c] = swapped;
            }
        }
    }
}

// Which (down, right, flip) makes x from the image? As a number, or -1 if none does.
static int augmentation_of(const uint8_t *image, const ttt_real *x, int p) {
    for (int k = 0; k < (2 * p + 1) * (2 * p + 1) * 2; k++) {
        uint8_t expected[30];
        int same = 1;
        augment_slowly(image, p, k / 2 / (2 * p + 1), k / 2 % (2 * p + 1), k % 2, expected);
        for (int i = 0; i < 30; i++) same = same && x[i] == (float)(expected[i] / 255.0);
        if (same) return k;
    }
    return -1;
}

// Every crop and flip occurs, about equally often, and nothing else.
static void check_augmentation(int p, int flip) {
    small_set s;
    ttt_real x[30];
    int32_t y;
    int kinds = (2 * p + 1) * (2 * p + 1) * 2, count[25 * 2] = { 0 }, draws = 0;
    ttt_batches_desc desc = {
        .images = small_make(&s, 60), .batch = 1, .shuffle = 1, .augment = { p, flip }
    };
    ttt_batches *it;
    CHECK((it = open_batches(&desc)) != NULL);
    while (it->epoch < 100) {
        if (next_batch(it, x, &y) == 0) continue;
        int k = augmentation_of(s.pixels + y * 30, x, p);
        CHECK(k >= 0);
        count[k < 0 ? 0 : k]++;
        draws++;
    }
    double expected = (double)draws / (flip ? kinds : kinds / 2);
    for (int k = 0; k < kinds; k++) {
        if (k % 2 && !flip) CHECK(count[k] == 0);
        else CHECK(fabs(count[k] - expected) <= 5 * sqrt(expected));
    }
}

static void augmentation_matches_reference(void) {
    check_augmentation(0, 0);
    check_augmentation(0, 1);
    check_augmentation(1, 0);
    check_augmentation(2, 1);
}

// A sample's crop depends on (seed, epoch, index): not on the order, the batch or the flip flag.
static void augmentation_depends_on_sample(void) {
    small_set s;
    ttt_real x[64 * 30], other[64 * 30];
    int32_t y[64];
    ttt_batches_desc desc = { .images = small_make(&s, 40), .batch = 40, .augment = { 2, 0 } };
    ttt_batches *it;
    CHECK((it = open_batches(&desc)) != NULL && next_batch(it, x, y) == 40);
    CHECK(next_batch(it, other, y) == 0 && next_batch(it, other, y) == 40);
    CHECK(memcmp(x, other, sizeof(ttt_real) * 40 * 30)); // another epoch, other crops
    desc.shuffle = 1, desc.batch = 1;
    CHECK((it = open_batches(&desc)) != NULL);
    while (next_batch(it, other, y) > 0)
        CHECK(!memcmp(other, x + y[0] * 30, sizeof(ttt_real) * 30));
    desc.augment.flip = 1;
    CHECK((it = open_batches(&desc)) != NULL);
    while (next_batch(it, other, y) > 0) {
        int plain = augmentation_of(s.pixels + y[0] * 30, x + y[0] * 30, 2);
        int flipped = augmentation_of(s.pixels + y[0] * 30, other, 2);
        CHECK(plain / 2 == flipped / 2); // the same crop
    }
}

// The bits of a shuffled, augmented, normalized epoch: results of training depend on them.
static void batches_are_fixed(void) {
    enum { B = 64 };
    static ttt_real x[B * 784];
    int32_t y[B];
    ttt_images set;
    ttt_pixel_norm norm;
    ttt_batches *it;
    int n;
    CHECK(told(ttt_images_draw(ctx, 2310, 4294960000, 1000, &set)) == TTT_OK);
    CHECK(told(ttt_images_measure(ctx, &set, &norm)) == TTT_OK);
    ttt_batches_desc desc = { &set, 42, B, true, false, { 2, true }, norm };
    CHECK((it = open_batches(&desc)) != NULL && ttt_batches_seek(ctx, it, 3, 0) == TTT_OK);
    uint64_t hash = FNV_START;
    while ((n = next_batch(it, x, y)) > 0) {
        for (int i = 0; i < n * 784; i++) {
            float value = (float)x[i];
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            const uint8_t little[4] = { (uint8_t)bits, (uint8_t)(bits >> 8), (uint8_t)(bits >> 16),
                                        (uint8_t)(bits >> 24) };
            hash = fnv1a(hash, little, 4);
        }
        for (int i = 0; i < n; i++) hash = fnv1a(hash, (const uint8_t[]){ (uint8_t)y[i] }, 1);
    }
    if (hash != 0x43e43fb57c1a5296u) printf("  hash is 0x%llx\n", (unsigned long long)hash);
    CHECK(hash == 0x43e43fb57c1a5296u);
}

static void normalization(void) {
    small_set s;
    const ttt_images *set = small_make(&s, 20);
    ttt_pixel_norm norm;
    ttt_real x[20 * 30];
    CHECK(told(ttt_images_measure(ctx, set, &norm)) == TTT_OK);
    CHECK(norm.mean[2] == 0 && norm.std[2] == 0); // channels it does not have
    ttt_batches_desc desc = { .images = set, .batch = 20, .norm = norm };
    ttt_batches *it;
    CHECK((it = open_batches(&desc)) != NULL &&
          next_batch(it, x, NULL) == 20);
    for (int c = 0; c < 2; c++) {
        double sum = 0, squares = 0;
        for (int i = c; i < 600; i += 2) {
            sum += (double)x[i];
            squares += (double)x[i] * (double)x[i];
            float expected[1] = { (s.pixels[i] / 255.0f - norm.mean[c]) / norm.std[c] };
            CHECK_CLOSE(&x[i], expected, 1, 1e-5, 1e-6);
        }
        CHECK(fabs(sum / 300) < 1e-6 && fabs(squares / 300 - 1) < 1e-6);
    }
    // Padding is black before it is normalized: a crop far away gives the value of a zero pixel.
    desc.augment.crop = 1000;
    CHECK((it = open_batches(&desc)) != NULL &&
          next_batch(it, x, NULL) == 20);
    float black[2] = { -norm.mean[0] / norm.std[0], -norm.mean[1] / norm.std[1] };
    CHECK_CLOSE(x, black, 2, 1e-5, 0);
}

static void constant_channel_is_not_divided_by_zero(void) {
    small_set s;
    const ttt_images *set = small_make(&s, 4);
    ttt_pixel_norm norm;
    ttt_real x[4 * 30];
    memset(s.pixels, 51, sizeof s.pixels);
    CHECK(told(ttt_images_measure(ctx, set, &norm)) == TTT_OK && norm.std[0] == 0 &&
          norm.mean[0] == 0.2f);
    ttt_batches_desc desc = { .images = set, .batch = 4, .norm = norm };
    ttt_batches *it;
    CHECK((it = open_batches(&desc)) != NULL && next_batch(it, x, NULL) == 4);
    for (int i = 0; i < 120; i++) CHECK(fabs((double)x[i]) < 1e-7);
}

static int refuses(ttt_batches_desc desc, const char *text) {
    return !open_batches(&desc) && last == TTT_ERR_ARGUMENT && err_has(text);
}

static void batches_arguments(void) {
    small_set s;
    ttt_batches_desc good = { .images = small_make(&s, 10), .batch = 4 }, bad = good;
    CHECK(!open_batches(NULL) && last == TTT_ERR_ARGUMENT && err_has("NULL"));
    bad.images = NULL;
    CHECK(refuses(bad, "images, pixels or labels are NULL"));
    bad = good, bad.batch = 0;
    CHECK(refuses(bad, "batch 0"));
    bad = good, bad.augment.crop = -1;
    CHECK(refuses(bad, "crop -1"));
    bad = good, bad.augment.crop = 40000;
    CHECK(refuses(bad, "crop 40000"));
    bad = good, bad.norm.std[1] = -1;
    CHECK(refuses(bad, "channel 1"));
    bad = good, bad.norm.mean[0] = (float)NAN;
    CHECK(refuses(bad, "channel 0"));
    bad = good, bad.norm.std[0] = (float)INFINITY;
    CHECK(refuses(bad, "channel 0"));
    s.set.channels = 5;
    CHECK(refuses(good, "(10,3,5,5)"));
    s.set.channels = 2, s.set.height = 0;
    CHECK(refuses(good, "(10,0,5,2)"));
    s.set.height = 3, s.set.count = (int64_t)1 << 31;
    CHECK(refuses(good, "expected 1..2^31-1"));
    s.set.count = 10, s.set.labels = NULL;
    CHECK(refuses(good, "NULL"));
    ttt_pixel_norm norm;
    CHECK(told(ttt_images_measure(ctx, &s.set, &norm)) == TTT_ERR_ARGUMENT &&
          err_has("ttt_images_measure"));
    CHECK(told(ttt_images_measure(ctx, NULL, &norm)) == TTT_ERR_ARGUMENT &&
          told(ttt_images_measure(ctx, small_make(&s, 2), NULL)) == TTT_ERR_ARGUMENT);
}

static void seek_arguments(void) {
    small_set s;
    ttt_batches_desc desc = { .images = small_make(&s, 10), .batch = 4, .shuffle = 1 };
    ttt_batches *it;
    CHECK(told(ttt_batches_seek(ctx, NULL, 0, 0)) == TTT_ERR_ARGUMENT && err_has("NULL"));
    CHECK((it = open_batches(&desc)) != NULL);
    CHECK(told(ttt_batches_seek(ctx, it, 2, 3)) == TTT_OK);
    CHECK(told(ttt_batches_seek(ctx, it, 0, 11)) == TTT_ERR_ARGUMENT && err_has("position 11") &&
          err_has("0..10"));
    CHECK(told(ttt_batches_seek(ctx, it, 0, -1)) == TTT_ERR_ARGUMENT);
    CHECK(told(ttt_batches_seek(ctx, it, -1, 0)) == TTT_ERR_ARGUMENT);
    CHECK(told(ttt_batches_seek(ctx, it, (int64_t)1 << 32, 0)) == TTT_ERR_ARGUMENT);
    CHECK(it->epoch == 2 && it->position == 3); // stayed where it was
    CHECK(told(ttt_batches_seek(ctx, it, 7, 10)) == TTT_OK); // the end of an epoch
    CHECK(next_batch(it, NULL, NULL) == 0 && it->epoch == 8 && it->position == 0);
}

// ---- memory -------------------------------------------------------------------------------------
// Files, drawing and batches: every allocation of the header. `own` is NULL if it had no memory.
static ttt_result use_everything(ttt_ctx *own) {
    ttt_images loaded, drawn;
    ttt_tensor *x, *y;
    if (!own) return TTT_ERR_NO_MEMORY;
    ttt_result r = ttt_images_load_idx(own, folder, "train", 10, &loaded);
    CHECK(r == TTT_OK || all_zero(&loaded, sizeof loaded));
    r = ttt_images_draw(own, 1, 0, 3, &drawn);
    CHECK(r == TTT_OK || all_zero(&drawn, sizeof drawn));
    const char *missing = ttt_images_missing_idx(own, folder);
    CHECK(missing && (*missing != 0) == ttt_ok(own));
    ttt_batches_desc desc = { .images = &drawn, .batch = 2 };
    ttt_batches *it = ttt_batches_new(own, &desc);
    CHECK((it != NULL) == ttt_ok(own));
    CHECK((ttt_batches_next(own, it, &x, &y) == 2) == ttt_ok(own));
    return ttt_status(own);
}

// ---- windows of tokens --------------------------------------------------------------------------
// Token i of the text is i, so that a window tells where it begins.
static ttt_tensor *counting(int64_t n) {
    ttt_tensor *text = ttt_new_typed(ctx, TTT_SHAPE(n), TTT_DTYPE_INT, false);
    for (int64_t i = 0; i < n; i++) text->index[i] = i;
    return text;
}
static void windows_begin_anywhere(void) {
    enum { N = 12, L = 5, B = 400, PLACES = N - L + 1 };
    ttt_mark m = ttt_mark_get(ctx);
    int begun[PLACES] = { 0 };
    ttt_tensor *text = counting(N);
    for (int step = 0; step < 4; step++) {
        ttt_tensor *w = ttt_token_windows(ctx, text, B, L, 3, step);
        CHECK(ttt_ok(ctx) && ttt_shape_equal(w->shape, TTT_SHAPE(B, L)));
        for (int64_t i = 0; i < w->size; i++)
            CHECK(w->index[i] == w->index[i / L * L] + i % L && w->index[i] < N);
        for (int b = 0; b < B; b++) begun[w->index[b * L]]++;
    }
    for (int i = 0; i < PLACES; i++) CHECK(begun[i] > 150 && begun[i] < 250);  // 200 expected
    ttt_tensor *all = ttt_token_windows(ctx, text, 2, N, 3, 0);
    CHECK(all->index[0] == 0 && all->index[2 * N - 1] == N - 1);
    ttt_mark_release(ctx, m);
}
static void windows_are_those_of_their_step(void) {
    ttt_mark m = ttt_mark_get(ctx);
    ttt_tensor *text = counting(1000), *w[4];
    for (int i = 0; i < 4; i++) w[i] = ttt_token_windows(ctx, text, 8, 10, 3 + (i == 2), i == 3);
    for (int i = 1; i < 4; i++)
        CHECK((memcmp(w[0]->index, w[i]->index, 80 * sizeof(int64_t)) == 0) == (i == 1));
    ttt_mark_release(ctx, m);
}
static void windows_arguments(void) {
    ttt_mark m = ttt_mark_get(ctx);
    ttt_tensor *text = counting(9), *real = ttt_zeros(ctx, TTT_SHAPE(9));
    static const int64_t bad[][3] = { { -1, 2, 0 }, { 1, 0, 0 }, { 1, 10, 0 }, { 1, 2, -1 },
                                      { 1, 2, (int64_t)1 << 32 } };
    for (int i = 0; i < 5; i++) {
        ttt_token_windows(ctx, text, bad[i][0], bad[i][1], 1, bad[i][2]);
        CHECK(told(ttt_status(ctx)) == TTT_ERR_ARGUMENT && err_has("ttt_token_windows"));
    }
    ttt_token_windows(ctx, real, 1, 2, 1, 0);
    CHECK(told(ttt_status(ctx)) == TTT_ERR_ARGUMENT && err_has("ttt_token_windows"));
    ttt_mark_release(ctx, m);
}

static void every_allocation_may_fail(void) {
    bytes images = idx_images(), labels = idx_labels(2, "0903"), packed = { .n = 0 };
    long live = memory_live;
    put_gzip(&packed, plain_header, images.at, images.n);
    write_set(set_files[1], &packed, set_files[2], &labels);
    int n = 0;
    for (ttt_result r = TTT_ERR_NO_MEMORY; r != TTT_OK && n < 100; n++) {
        memory_calls = 0, memory_fails_at = n;
        ttt_ctx *own = ttt_open(NULL);
        r = use_everything(own);
        CHECK(r == TTT_OK || r == TTT_ERR_NO_MEMORY);
        if (own && r != TTT_OK) CHECK(strstr(ttt_error(own), "memory"));
        ttt_close(own);
        CHECK(memory_live == live);
    }
    memory_fails_at = -1;
    CHECK(n == 8);  // the context 3, a chunk of each arena 3, the tape 1; all well 1
    set_remove();
}

static void nothing_leaked(void) {
    ttt_close(ctx);
    CHECK(memory_live == 0);
    ctx = ttt_open(NULL);
}

static const ttt_test all[] = {
    T(long_names_are_cut),
    T(nothing_happens_after_an_error),
    T(blocks_are_the_stream),
    T(uniform_moments),
    T(normal_moments),
    T(below_is_even),
    T(permutation_is_one),
    T(permutation_is_even),
    T(inflate_stored),
    T(inflate_fixed_by_hand),
    T(inflate_every_length),
    T(inflate_every_distance),
    T(inflate_fixed_by_zlib),
    T(inflate_dynamic_by_zlib),
    T(inflate_every_code_length),
    T(inflate_blocks_of_all_kinds),
    T(inflate_bad_streams),
    T(inflate_permits_one_distance),
    T(gzip_headers),
    T(gzip_trailers),
    T(gzip_members),
    T(gzip_capacity),
    T(gzip_cut_or_flipped),
    T(gzip_arguments),
    T(idx_shape_and_data),
    T(idx_types),
    T(idx_ranks),
    T(idx_empty_arrays),
    T(idx_bad),
    T(idx_gzipped),
    T(idx_bombs),
    T(idx_files),
        T(idx_takes_the_bytes_of_its_elements),
    T(an_image_set_is_read_to_where_it_stays),
    T(idx_gzip_that_declares_too_much),
    T(idx_large_file),
    T(idx_file_above_the_limit),
    T(idx_arguments),
    T(hostile_files),
    T(images_from_files),
    T(images_bad_sets),
    T(images_missing_files),
    T(reasons_are_told_apart),
    T(images_arguments),
    T(images_above_the_limit),
    T(fashion_mnist),
    T(drawn_images_depend_on_their_number),
    T(drawn_labels_are_balanced),
    T(drawn_bytes_are_fixed),
    T(a_thousand_drawn_images_are_fixed),
    T(drawn_images_look_like_digits),
    T(drawn_arguments),
    T(batches_in_order),
    T(batches_shuffled),
    T(batches_drop_last),
    T(batches_resume),
    T(augmentation_matches_reference),
    T(augmentation_depends_on_sample),
    T(batches_are_fixed),
    T(normalization),
    T(constant_channel_is_not_divided_by_zero),
    T(batches_arguments),
    T(seek_arguments),
    T(windows_begin_anywhere),
    T(windows_are_those_of_their_step),
    T(windows_arguments),
    T(every_allocation_may_fail),
    T(nothing_leaked),
    { 0 },
};

int main(int argc, char **argv) {
    if (!folder_make()) {
        puts("cannot make a folder for files");
        return 1;
    }
    ctx = ttt_open(NULL);
    int failed = ttt_test_main(argc, argv, all);
    ttt_close(ctx);
    remove_dir(folder);
    return failed;
}
