// test_tokenizers.c - tests of ttt_data.h, section [10]: tokenizers, by hand-made tokenizer.json and
// against the Python package `tokenizers`, which token_cases.py runs where it is installed.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Memory of the library under test fails at allocation number `allocations_left`.
static long allocations_left = -1, blocks_alive;
static bool allocation_failed;

static void *memory_realloc(void *old, size_t n) {
    if (allocations_left == 0) allocation_failed = true;
    if (allocations_left == 0) return NULL;
    if (allocations_left > 0) allocations_left--;
    void *p = realloc(old, n);
    if (p && !old) blocks_alive++;
    return p;
}
static void memory_free(void *p) {
    if (p) blocks_alive--;
    free(p);
}
#define TTT_MALLOC(user, n) ((void)(user), memory_realloc(NULL, n))
#define TTT_REALLOC(user, p, n) ((void)(user), memory_realloc(p, n))
#define TTT_FREE(user, p) ((void)(user), memory_free(p))
#define TTT_IMPLEMENTATION
#include "../ttt_data.h"
#include "ttt_test.h"

static const ttt_tokenizer *tokenizer_of(ttt_ctx *c, const char *json) {
    return ttt_tokenizer_parse(c, "t.json", json, strlen(json));
}

// Whether the error is TTT_ERR_FORMAT and has that text. The context is well again.
static bool refused(ttt_ctx *c, const char *part) {
    bool good = ttt_status(c) == TTT_ERR_FORMAT && strstr(ttt_error(c), part);
    if (!good) printf("  \"%s\" lacks \"%s\"\n", ttt_error(c), part);
    ttt_clear(c);
    return good;
}

// ---- against the package ------------------------------------------------------------------------
typedef struct {
    char *at;
    size_t n;
} bytes;

static bytes read_case(ttt_ctx *c, const char *folder, const char *name, const char *text,
                       const char *what) {
    char path[600];
    bytes b;
    snprintf(path, sizeof path, "%s/%s%s%s%s%s", folder, name, *text ? "." : "", text,
             *what ? "." : "", what);
    b.at = ttt_file_read(c, path, &b.n);
    return b;
}

static bool same_ids(const char *name, const char *text, const ttt_tensor *ours, bytes theirs) {
    int64_t i = 0, n = (int64_t)theirs.n / 4;
    for (; i < n && i < ours->size; i++) {
        int32_t id;
        memcpy(&id, theirs.at + 4 * i, 4);
        if (ours->index[i] != id) break;
    }
    if (i == n && n == ours->size) return true;
    printf("  %s, %s: %lld ids for %lld, the same up to %lld\n", name, text,
           (long long)ours->size, (long long)n, (long long)i);
    return false;
}

static bool same_text(const char *name, const char *text, bytes ours, bytes theirs) {
    size_t i = 0;
    while (i < ours.n && i < theirs.n && ours.at[i] == theirs.at[i]) i++;
    if (i == ours.n && i == theirs.n) return true;
    printf("  %s, %s: %llu bytes for %llu, the same up to %llu\n", name, text,
           (unsigned long long)ours.n, (unsigned long long)theirs.n, (unsigned long long)i);
    return false;
}

static ttt_tensor *ids_of(ttt_ctx *c, bytes b) {
    ttt_tensor *ids = ttt_new_typed(c, TTT_SHAPE((int64_t)b.n / 4), TTT_DTYPE_INT, false);
    for (int64_t i = 0; i < ids->size; i++) {
        int32_t id;
        memcpy(&id, b.at + 4 * i, 4);
        ids->index[i] = id;
    }
    return ids;
}

// The text that a decoder gives piece by piece, each of whole characters.
static bytes streamed(ttt_ctx *c, const ttt_tokenizer *t, const ttt_tensor *ids, bool skip) {
    ttt_decoder d = { .tokenizer = t, .skip_special = skip };
    bytes text = { malloc((size_t)ids->size * 200 + 16), 0 };
    for (int64_t i = 0; i <= ids->size; i++) {
        ttt_mark mark = ttt_mark_get(c);
        size_t n;
        const char *piece = i < ids->size ? ttt_decoder_push(c, &d, ids->index[i], &n)
                                          : ttt_decoder_end(c, &d, &n);
        for (size_t at = 0, length; at < n; at += length) {
            length = (size_t)ttt__utf8(piece + at, piece + n);
            CHECK(length > 0);
            if (!length) break;
        }
        CHECK(piece[n] == 0);
        memcpy(text.at + text.n, piece, n);
        text.n += n;
        ttt_mark_release(c, mark);
    }
    CHECK(ttt_ok(c) && !d.begun && d.n_held == 0);
    return text;
}

static void decode_case(ttt_ctx *c, const ttt_tokenizer *t, const char *folder, const char *name,
                        const char *text, const ttt_tensor *ids) {
    for (int skip = 0; skip < 2; skip++) {
        bytes ours, theirs = read_case(c, folder, name, text, skip ? "skipped" : "whole");
        ours.at = ttt_decode(c, t, ids, skip, &ours.n);
        CHECK(ours.at && same_text(name, text, ours, theirs));
        bytes pieces = streamed(c, t, ids, skip);
        bool known = strcmp(text, "random") != 0 || !t->decode_bytes;
        if (known) CHECK(same_text(name, text, pieces, theirs));
        free(pieces.at);
    }
}

static void compare_case(const char *folder, const char *name, const char *text) {
    char path[600];
    ttt_ctx *c = ttt_open(NULL);
    snprintf(path, sizeof path, "%s/%s.json", folder, name);
    const ttt_tokenizer *t = ttt_tokenizer_read(c, path);
    bytes special = read_case(c, folder, name, text, "special");
    if (!ttt_ok(c)) printf("  %s\n", ttt_error(c));
    CHECK(ttt_ok(c));
    if (ttt_ok(c) && strcmp(text, "random") != 0) {
        bytes source = read_case(c, folder, text, "txt", "");
        for (int add = !strcmp(text, "long"); add < 2; add++) {
            ttt_tensor *ids = ttt_encode(c, t, source.at, source.n, add);
            if (!ttt_ok(c)) printf("  %s\n", ttt_error(c));
            CHECK(ttt_ok(c));
            CHECK(same_ids(name, text, ids,
                           add ? special : read_case(c, folder, name, text, "bare")));
        }
    }
    if (ttt_ok(c)) decode_case(c, t, folder, name, text, ids_of(c, special));
    CHECK(ttt_ok(c));
    ttt_close(c);
    CHECK(blocks_alive == 0);
}

static void all_is_as_the_package_has_it(void) {
    const char *folder = "/tmp/tok21/c2";
    char path[600], name[100], text[100];
    snprintf(path, sizeof path, "%s/list", folder);
    FILE *f = fopen(path, "r");
    CHECK(f);
    while (f && fscanf(f, "%99s %99s", name, text) == 2) compare_case(folder, name, text);
    if (f) fclose(f);
}

int main(int argc, char **argv) {
    static const ttt_test all[] = { T(all_is_as_the_package_has_it), { 0 } };
    return ttt_test_main(argc, argv, all);
}
