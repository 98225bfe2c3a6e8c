// test_tokenizers.c - tests of ttt_data.h, section [10]: tokenizers made by hand, and others
// against the Python package `tokenizers`, which token_cases.py runs where it is installed.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifndef _WIN32
#include <sys/stat.h>
#include <unistd.h>
#endif

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

// Whether a text becomes these ids, a number and a blank for each.
static bool encodes(ttt_ctx *c, const ttt_tokenizer *t, const char *text, const char *expected) {
    char found[400] = "";
    ttt_tensor *tokens = ttt_encode(c, t, text, strlen(text), false);
    for (int64_t i = 0; i < tokens->size; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%d ", (int)tokens->index[i]);
    bool good = ttt_ok(c) && strcmp(found, expected) == 0;
    if (!good) printf("  \"%s\" becomes %s(%s), not %s\n", text, found, ttt_error(c), expected);
    return good;
}

static bool decodes(ttt_ctx *c, const ttt_tokenizer *t, const char *numbers, const char *expected) {
    int64_t ids[40];
    int n = 0;
    for (char *end; *numbers; numbers = end + (*end != 0)) ids[n++] = strtol(numbers, &end, 10);
    const char *text = ttt_decode(c, t, ttt_from_int(c, TTT_SHAPE(n), ids), false, NULL);
    bool good = text && strcmp(text, expected) == 0;
    if (!good) printf("  \"%s\", not \"%s\"; %s\n", text ? text : "", expected, ttt_error(c));
    return good;
}

// ---- made by hand -------------------------------------------------------------------------------
// A file with the given parts; `model` is what follows the type.
static char *file_of(const char *added, const char *normalizer, const char *pre, const char *post,
                     const char *decoder, const char *model) {
    static char json[4000];
    snprintf(json, sizeof json,
             "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[%s],"
             "\"normalizer\":%s,\"pre_tokenizer\":%s,\"post_processor\":%s,\"decoder\":%s,"
             "\"model\":{\"type\":\"BPE\",%s}}", added, normalizer, pre, post, decoder, model);
    return json;
}

#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true}"
#define SMALL_VOCAB                                                                                \
    "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"\\u0120\":3,\"ab\":4,\"bc\":5,\"abc\":6,\"\\u0120a\":7," \
    "\"aa\":8,\"\\u00c3\":9,\"\\u00a9\":10,\"'\":11,\"s\":12,\"'s\":13}"
#define SMALL SMALL_VOCAB ",\"merges\":[\"b c\",\"a b\",\"a bc\",\"\\u0120 a\",\"a a\",\"' s\"]"

static void bytes_are_their_own_ids(void) {
    ttt_ctx *c = ttt_open(NULL);
    const ttt_tokenizer *t = ttt_tokenizer_bytes(c);
    uint8_t all[256];
    size_t n;
    for (int i = 0; i < 256; i++) all[i] = (uint8_t)(255 - i);
    ttt_tensor *tokens = ttt_encode(c, t, (const char *)all, 256, true);
    CHECK(tokens->size == 256 && tokens->dtype == TTT_DTYPE_INT && ttt_vocab_size(t) == 256);
    for (int i = 0; i < 256; i++) CHECK(tokens->index[i] == 255 - i);
    const char *back = ttt_decode(c, t, tokens, true, &n);
    CHECK(n == 256 && memcmp(back, all, 256) == 0 && back[256] == 0);
    CHECK(ttt_token_id(t, "A", 1) == 65 && ttt_token_id(t, "\0", 1) == 0);
    CHECK(ttt_token_id(t, "AB", 2) == -1 && ttt_token_id(t, "", 0) == -1);
    CHECK(ttt_token_text(t, 200, &n)[0] == (char)200 && n == 1);
    CHECK(!ttt_token_text(t, 256, &n) && n == 0 && !ttt_token_text(t, -1, NULL));
    CHECK(ttt_encode(c, t, "", 0, true)->size == 0 && ttt_ok(c));
    ttt_close(c);
    CHECK(blocks_alive == 0);
}

static void the_lowest_rank_merges_first(void) {
    ttt_ctx *c = ttt_open(NULL);
    const ttt_tokenizer *t = tokenizer_of(c, file_of("", "null", BYTE_LEVEL, "null", BYTE_LEVEL,
                                                     SMALL));
    CHECK(ttt_vocab_size(t) == 14 && ttt_token_id(t, "abc", 3) == 6);
    CHECK(encodes(c, t, "abc", "6 ") && encodes(c, t, "ab", "4 ") && encodes(c, t, "aaa", "8 0 "));
    CHECK(encodes(c, t, "ab abc a", "4 3 6 7 "));  // words: " abc" has b c first, then a bc
    CHECK(encodes(c, t, "a's 's", "0 13 3 11 12 ") && encodes(c, t, "xaxbx", "4 "));
    CHECK(encodes(c, t, "\xc3\xa9", "9 10 ") && encodes(c, t, "", ""));
    CHECK(decodes(c, t, "4 3 6 9 10 13", "ab abc\xc3\xa9's"));
    CHECK(decodes(c, t, "9 0 10 9 9 10", "\xef\xbf\xbd" "a\xef\xbf\xbd\xef\xbf\xbd\xc3\xa9"));
    const ttt_tokenizer *pairs =
        tokenizer_of(c, file_of("", "null", BYTE_LEVEL, "null", BYTE_LEVEL, SMALL_VOCAB
                                ",\"merges\":[[\"a\",\"b\"],[\"a\",\"bc\"],[\"b\",\"c\"]],"
                                "\"ignore_merges\":true"));
    CHECK(encodes(c, pairs, "abc", "6 ") && encodes(c, pairs, "xabc", "4 2 "));
    ttt_close(c);
}

#define MARK "\\u2581"
#define LLAMA_VOCAB                                                                                \
    "\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"<0xC3>\":3,\"<0xA9>\":4,\"" MARK "\":5,"        \
    "\"a\":6,\"b\":7,\"" MARK "a\":8,\"ab\":9}"
#define LLAMA LLAMA_VOCAB ",\"merges\":[\"" MARK " a\",\"a b\"],\"unk_token\":\"<unk>\","          \
    "\"byte_fallback\":true,\"fuse_unk\":true"
#define NORMALIZER "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\""  \
    MARK "\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" MARK "\"}]}"
#define DECODER "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"          \
    "{\"String\":\"" MARK "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"                    \
    "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"
#define SPECIAL(id, content) "{\"id\":" #id ",\"content\":\"" content "\",\"normalized\":false,"   \
    "\"special\":true}"
#define LLAMA_ADDED SPECIAL(1, "<s>") "," SPECIAL(2, "</s>")
#define TEMPLATE(ids) "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"    \
    "\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],"            \
    "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[" ids "],\"tokens\":[\"<s>\"]}}}"

static const char *llama_file(void) {
    return file_of(LLAMA_ADDED, NORMALIZER, "null", TEMPLATE("1"), DECODER, LLAMA);
}

static void llama_has_bytes_for_what_it_lacks(void) {
    ttt_ctx *c = ttt_open(NULL);
    const ttt_tokenizer *t = tokenizer_of(c, llama_file());
    if (!ttt_ok(c)) printf("  %s\n", ttt_error(c));
    CHECK(encodes(c, t, "ab", "8 7 ") && encodes(c, t, " a", "5 8 "));
    CHECK(encodes(c, t, "\xc3\xa9xx\xc3\xa9""b", "5 3 4 3 4 0 7 "));  // as the package: the bytes
    CHECK(encodes(c, t, "a</s>b", "8 2 5 7 ") && encodes(c, t, "<s>", "1 "));
    CHECK(decodes(c, t, "8 7", "ab") && decodes(c, t, "5 8 3 4", " a\xc3\xa9"));
    CHECK(decodes(c, t, "3 4 3", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"));
    ttt_tensor *tokens = ttt_encode(c, t, "a", 1, true);
    CHECK(tokens->size == 2 && tokens->index[0] == 1 && tokens->index[1] == 8);
    CHECK(strcmp(ttt_decode(c, t, tokens, true, NULL), "a") == 0);
    CHECK(strcmp(ttt_decode(c, t, tokens, false, NULL), "<s> a") == 0);
    ttt_close(c);
}

static void text_must_be_utf8_and_ids_must_name_tokens(void) {
    ttt_ctx *c = ttt_open(NULL);
    const ttt_tokenizer *t = tokenizer_of(c, llama_file());
    static const int64_t wrong[] = { -1, 10, INT64_MAX };
    CHECK(ttt_encode(c, t, "ab\xc3", 3, false)->size == 0);
    CHECK(ttt_status(c) == TTT_ERR_ARGUMENT && strstr(ttt_error(c), "not UTF-8 at byte 2"));
    ttt_clear(c);
    CHECK(encodes(c, t, "", "") && ttt_ok(c));
    for (int i = 0; i < COUNT(wrong); i++) {
        ttt_decoder d = { .tokenizer = t };
        ttt_tensor *tokens = ttt_from_int(c, TTT_SHAPE(1), wrong + i);
        CHECK(!ttt_decode(c, t, tokens, false, NULL) && ttt_status(c) == TTT_ERR_ARGUMENT);
        CHECK(strstr(ttt_error(c), "names no token of the 10"));
        ttt_clear(c);
        CHECK(ttt_decoder_push(c, &d, wrong[i], NULL)[0] == 0 && !ttt_ok(c) && !d.begun);
        ttt_clear(c);
    }
    t = tokenizer_of(c, file_of("", "null", "null", "null", DECODER,
                                "\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"<unk>\""));
    CHECK(encodes(c, t, "aa", "0 0 ") && ttt_encode(c, t, "ax", 2, false)->size == 0);
    CHECK(strstr(ttt_error(c), "'x' is unknown, and the unk_token is not in the vocabulary"));
    ttt_close(c);
}

static void a_decoder_never_cuts_a_character(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_decoder d = { .tokenizer = ttt_tokenizer_bytes(c) };
    static const struct {
        int byte;
        const char *gives;
    } rows[] = {
        { 'a', "a" }, { 0xf0, "" }, { 0x9f, "" }, { 0x98, "" }, { 0x80, "\xf0\x9f\x98\x80" },
        { 0xc3, "" }, { 'b', "\xef\xbf\xbd" "b" }, { 0x80, "\xef\xbf\xbd" }, { 0xe2, "" },
        { 0x82, "" },
    };
    size_t n;
    for (int i = 0; i < COUNT(rows); i++) {
        const char *gives = ttt_decoder_push(c, &d, rows[i].byte, &n);
        CHECK(strcmp(gives, rows[i].gives) == 0 && n == strlen(gives));
    }
    CHECK(strcmp(ttt_decoder_end(c, &d, &n), "\xef\xbf\xbd") == 0 && n == 3);
    CHECK(strcmp(ttt_decoder_end(c, &d, &n), "") == 0 && n == 0);
    d.tokenizer = tokenizer_of(c, llama_file());
    d.skip_special = true;
    CHECK(*ttt_decoder_push(c, &d, 1, &n) == 0 && *ttt_decoder_push(c, &d, 5, &n) == 0);
    CHECK(strcmp(ttt_decoder_push(c, &d, 5, &n), " ") == 0 && *ttt_decoder_push(c, &d, 3, &n) == 0);
    CHECK(strcmp(ttt_decoder_push(c, &d, 4, &n), "\xc3\xa9") == 0);
    CHECK(*ttt_decoder_push(c, &d, 3, &n) == 0);
    CHECK(strcmp(ttt_decoder_push(c, &d, 9, &n), "\xef\xbf\xbd" "ab") == 0 && ttt_ok(c));
    ttt_close(c);
}

static void classes_of_characters_are_whole(void) {
    ttt__classes *classes = malloc(sizeof *classes);
    static const struct {
        int32_t code;
        char is;
    } rows[] = {
        { 0, '.' }, { ' ', 's' }, { '0', 'n' }, { 'A', 'L' }, { '_', 'w' }, { 0x7f, '.' },
        { 0x85, 's' }, { 0xb2, 'N' }, { 0xe9, 'L' }, { 0x301, 'w' }, { 0x661, 'n' },
        { 0x180e, '.' }, { 0x200b, '.' }, { 0x200d, 'w' }, { 0x2028, 's' }, { 0x2167, 'n' },
        { 0x2460, 'N' }, { 0x24b6, 'w' }, { 0x3000, 's' }, { 0x4e00, 'L' }, { 0x1c89, 'L' },
        { 0x1f600, '.' }, { 0x1d7d8, 'n' }, { 0x323af, 'L' }, { 0x323b0, '.' }, { 0x10ffff, '.' },
    };
    ttt__classes_set(classes);
    for (int i = 0; i < COUNT(rows); i++)
        CHECK(ttt__class_of(classes, rows[i].code) == rows[i].is);
    CHECK(classes->run[TTT__CLASS_RUNS - 1] >> 8 == 0xe01f0);  // behind the variation selectors
    free(classes);
}

// ---- broken files -------------------------------------------------------------------------------
#define WITH_MODEL(model) file_of("", "null", "null", "null", DECODER, model)
#define WITH_PRE(pre) file_of("", "null", pre, "null", BYTE_LEVEL, SMALL)
static void what_is_broken_is_named(void) {
    ttt_ctx *c = ttt_open(NULL);
    size_t keep = ttt_memory(c).keep;
#define X(file, why) CHECK(!tokenizer_of(c, file) && refused(c, why));
    X("", "byte 0: a value was expected") X("[]", "not an object") X("{}", "'model' is missing")
    X("{\"model\":1}", "'model' is a number; an object expected")
    X("{\"model\":{\"type\":\"WordPiece\"}}", "a model of type 'WordPiece'; only BPE")
    X("{\"model\":{\"type\":\"BPE\"}}", "'vocab' is missing")
    X("{\"model\":{\"vocab\":{}}}", "'merges' is missing")
    X("{\"model\":{\"vocab\":[],\"merges\":[]}}", "'vocab' is a list; an object expected")
    X("{\"padding\":{},\"model\":1}", "'padding' is set")
    X("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}", "'decoder' is missing")
    X(WITH_MODEL("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), "id 0 is that of two tokens")
    X(WITH_MODEL("\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]"), "the key 'a' occurs twice")
    X(WITH_MODEL("\"vocab\":{\"a\":-1},\"merges\":[]"), "'a' is -1; a whole number of 0..")
    X(WITH_MODEL("\"vocab\":{\"a\":4000000000},\"merges\":[]"), "'a' is 4000000000; a whole")
    X(WITH_MODEL("\"vocab\":{\"a\":9223372036854775808},\"merges\":[]"), "'a' is 92233720")
    X(WITH_MODEL("\"vocab\":{\"a\":0.5},\"merges\":[]"), "'a' is 0.5; a whole number")
    X(WITH_MODEL("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), "'a' is 0; a whole number")
    X(WITH_MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a b\"]"), "merge 0: the vocabulary lacks 'b'")
    X(WITH_MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a a\"]"), "merge 0: the vocabulary lacks 'aa'")
    X(WITH_MODEL("\"vocab\":{\"a\":0},\"merges\":[\"aa\"]"), "merge 0 is not \"a b\"")
    X(WITH_MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]"), "merge 0 is not")
    X(WITH_MODEL("\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]"), "merge 0 is not")
    X(WITH_MODEL("\"vocab\":{\"a\":0},\"merges\":[[\"a\",1]]"), "merge 0 is not")
    X(WITH_MODEL("\"vocab\":{\"a\":0},\"merges\":[3]"), "merge 0 is not")
    X(WITH_MODEL("\"vocab\":{\"\":0},\"merges\":[[\"\",\"\"]]"), "merge 0 is not")
    X(WITH_MODEL("\"dropout\":0.1," SMALL), "'dropout' is 0.1")
    X(WITH_MODEL("\"continuing_subword_prefix\":\"##\"," SMALL), "continuing_subword_prefix '##'")
    X(WITH_MODEL("\"end_of_word_suffix\":\"</w>\"," SMALL), "end_of_word_suffix '</w>'")
    X(WITH_MODEL("\"fuse_unk\":1," SMALL), "'fuse_unk' is a number; true or false")
    X(file_of("1", "null", "null", "null", DECODER, SMALL), "'content' is missing")
    X(file_of(SPECIAL(0, ""), "null", "null", "null", DECODER, SMALL), "without content")
    X(file_of(SPECIAL(0, "x"), "null", "null", "null", DECODER, SMALL), "the id 0 is that of two")
    X(file_of(SPECIAL(9, "a"), "null", "null", "null", DECODER, SMALL), "'a' has two ids, 0 and 9")
    X(file_of("", "{\"type\":\"NFC\"}", "null", "null", DECODER, SMALL),
      "normalizer 'NFC' is not understood here; known, in this order: Prepend, Replace")
    X(file_of("", "{\"type\":\"Prepend\",\"prepend\":\"x\"}", "null", "null", DECODER, SMALL),
      "'prepend' is 'x'; only '\xe2\x96\x81'")
    X(WITH_PRE("{\"type\":\"Whitespace\"}"), "pre_tokenizer 'Whitespace' is not understood")
    X(WITH_PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\w+\"},\"behavior\":\"Isolated\"}"),
      "a Split by '\\w+'")
    X(WITH_PRE("{\"type\":\"Sequence\",\"pretokenizers\":[" BYTE_LEVEL "," BYTE_LEVEL "]}"),
      "pre_tokenizer 'ByteLevel' is not understood here")
    X(WITH_PRE("{\"type\":\"Sequence\",\"pretokenizers\":[4]}"), "pre_tokenizer is a number")
    X(WITH_PRE("{\"type\":\"Metaspace\",\"replacement\":\"_\"}"), "'replacement' is '_'")
    X(file_of("", "null", "null", "{\"type\":\"BertProcessing\"}", DECODER, SMALL),
      "post_processor 'BertProcessing' is not understood")
    X(file_of("", "null", "null", TEMPLATE("99"), DECODER, SMALL), "'ids' is 99; a whole number")
    X(file_of("", "null", "null", "null", "{\"type\":\"WordPiece\"}", SMALL),
      "decoder 'WordPiece' is not understood")
    X(file_of("", "null", "null", "null", "null", SMALL), "'decoder' is missing")
#undef X
    CHECK(ttt_memory(c).keep == keep);
    ttt_close(c);
}

static void a_vocabulary_may_have_holes(void) {
    ttt_ctx *c = ttt_open(NULL);
    const ttt_tokenizer *t = tokenizer_of(c, WITH_MODEL("\"vocab\":{\"a\":7},\"merges\":[]"));
    static const int64_t hole = 3;
    CHECK(ttt_vocab_size(t) == 8 && ttt_token_id(t, "a", 1) == 7 && !ttt_token_text(t, 3, NULL));
    CHECK(encodes(c, t, "aba", "7 7 "));
    CHECK(!ttt_decode(c, t, ttt_from_int(c, TTT_SHAPE(1), &hole), false, NULL));
    CHECK(strstr(ttt_error(c), "the id 3 names no token"));
    ttt_close(c);
}

// Reads what may be broken and uses what comes of it. The memory is bounded by the text.
static bool survives(ttt_ctx *c, const char *json, size_t n) {
    ttt_mark mark = ttt_mark_get(c);
    size_t before = ttt_memory(c).keep;
    ttt_memory_reset(c);
    const ttt_tokenizer *t = ttt_tokenizer_parse(c, NULL, json, n);
    CHECK(ttt_memory(c).peak - before < 40 * n + 50000);
    CHECK(t || ttt_status(c) == TTT_ERR_FORMAT);
    if (t) {
        ttt_tensor *tokens = ttt_encode(c, t, "ab abc</s> 's\xc3\xa9", 15, true);
        if (ttt_ok(c)) CHECK(ttt_decode(c, t, tokens, true, NULL));
        CHECK(ttt_ok(c) || ttt_status(c) == TTT_ERR_ARGUMENT);  // an unk_token that is not there
    }
    ttt_clear(c);
    ttt_mark_release(c, mark);
    return t != NULL;
}

static void no_beginning_of_a_file_is_taken(void) {
    ttt_ctx *c = ttt_open(NULL);
    const char *json = llama_file();
    size_t n = strlen(json);
    for (size_t i = 0; i < n; i++) CHECK(!survives(c, json, i));
    CHECK(survives(c, json, n));
    ttt_close(c);
}

static void no_change_of_a_file_does_harm(void) {
    const char *signs = "\"{}[]:,\\u0129aeb\x80\xe2\0<>-.";
    int taken = 0;
    for (int kind = 0; kind < 2; kind++) {
        char json[4000], changed[4000];
        snprintf(json, sizeof json, "%s", kind ? llama_file() : file_of(
            SPECIAL(14, "</s>"), "null", BYTE_LEVEL, "null", BYTE_LEVEL, SMALL));
        size_t n = strlen(json);
        ttt_ctx *c = ttt_open(NULL);
        ttt_rng rng = ttt_rng_at(7, 0, (uint32_t)kind, 0);
        for (int round = 0; round < 1500; round++) {
            memcpy(changed, json, n);
            for (uint32_t i = ttt__below(&rng, 3) + 1; i > 0; i--)
                changed[ttt__below(&rng, (uint32_t)n)] = signs[ttt__below(&rng, 22)];
            taken += survives(c, changed, n);
            if (round % 100 < 99) continue;
            ttt_close(c);
            c = ttt_open(NULL);
        }
        ttt_close(c);
    }
    CHECK(taken > 100 && taken < 2900 && blocks_alive == 0);
}

static void memory_may_run_out_anywhere(void) {
    char json[4000];
    snprintf(json, sizeof json, "%s", llama_file());
    for (long n = 0, failed = 1; failed && n < 500; n++) {
        allocation_failed = false;
        ttt_desc desc = { 0 };
        allocations_left = n;
        ttt_ctx *c = ttt_open(&desc);
        const ttt_tokenizer *t = c ? tokenizer_of(c, json) : NULL;
        ttt_tensor *tokens = t ? ttt_encode(c, t, "ab ab aa", 8, true) : NULL;
        if (tokens) ttt_decode(c, t, tokens, false, NULL);
        allocations_left = -1;
        failed = allocation_failed;
        CHECK(failed ? ttt_status(c) == TTT_ERR_NO_MEMORY : ttt_ok(c));
        if (failed && c) {
            ttt_clear(c);
            t = tokenizer_of(c, json);
            CHECK(encodes(c, t, "ab", "8 7 "));
        }
        ttt_close(c);
        CHECK(blocks_alive == 0);
    }
}

// One word of 2^17 units, in which every two neighbors can merge.
static void a_long_word_takes_no_longer_than_short_ones(void) {
    enum { N = 1 << 17 };
    ttt_ctx *c = ttt_open(NULL);
    const ttt_tokenizer *t = tokenizer_of(
        c, WITH_MODEL("\"vocab\":{\"a\":0,\"aa\":1,\"aaaa\":2,\"aaaaaaaa\":3},"
                      "\"merges\":[\"a a\",\"aa aa\",\"aaaa aaaa\"]"));
    char *text = malloc(N);
    memset(text, 'a', N);
    ttt_tensor *tokens = ttt_encode(c, t, text, N - 1, false);
    CHECK(ttt_ok(c) && tokens->size == N / 8 - 1 + 3);
    CHECK(tokens->index[0] == 3 && tokens->index[N / 8 + 1] == 0);
    free(text);
    ttt_close(c);
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
                        const char *text, ttt_tensor *ids) {
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

#ifdef __SANITIZE_ADDRESS__
#define FAST false
#else
#define FAST (sizeof(void *) == 8)
#endif

// A folder below $TMPDIR or /tmp, where python3 finds the package; false where it does not.
static bool package_writes(char *folder, size_t room) {
#ifdef _WIN32
    return (void)folder, (void)room, false;
#else
    char command[2000];
    const char *tmp = getenv("TMPDIR"), *data = ttt_test_data();
    FILE *script = fopen("tests/token_cases.py", "rb");
    if (script) fclose(script);
    snprintf(folder, room, "%.200s/ttt_test_tokenizers_%ld", tmp && *tmp ? tmp : "/tmp",
             (long)getpid());
    if (!FAST) data = NULL;  // it takes python seconds to encode the long text
    snprintf(command, sizeof command, "python3 tests/token_cases.py '%s' '%.500s%s'", folder,
             data ? data : "", data ? "/data/tinyshakespeare/input.txt" : "");
    return script && system("python3 -c 'import tokenizers' >/dev/null 2>&1") == 0 &&
           mkdir(folder, 0700) == 0 && system(command) == 0;
#endif
}

static void remove_cases(const char *folder) {
    char command[400];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    CHECK(system(command) == 0);
}

static void all_is_as_the_package_has_it(void) {
    char folder[300], path[600], name[100], text[100];
    int n = 0;
    if (DOUBLE) SKIP("real numbers are of no matter to tokenizers");
    if (!package_writes(folder, sizeof folder)) SKIP("python3 with tokenizers is not there");
    snprintf(path, sizeof path, "%s/list", folder);
    FILE *f = fopen(path, "r");
    CHECK(f);
    for (; f && fscanf(f, "%99s %99s", name, text) == 2; n++) compare_case(folder, name, text);
    if (f) fclose(f);
    CHECK(n > 100);
    remove_cases(folder);
}

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(bytes_are_their_own_ids),
        T(the_lowest_rank_merges_first),
        T(llama_has_bytes_for_what_it_lacks),
        T(text_must_be_utf8_and_ids_must_name_tokens),
        T(a_decoder_never_cuts_a_character),
        T(classes_of_characters_are_whole),
        T(what_is_broken_is_named),
        T(a_vocabulary_may_have_holes),
        T(no_beginning_of_a_file_is_taken),
        T(no_change_of_a_file_does_harm),
        T(memory_may_run_out_anywhere),
        T(a_long_word_takes_no_longer_than_short_ones),
        T(all_is_as_the_package_has_it),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
