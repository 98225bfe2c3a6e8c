// test_streams.c - sequences read piece by piece: every mixer that does, in every way to cut them,
// against one pass over the whole; lanes, forks, ways back, errors; what a learner has become.
#include <stdbool.h>
#include <stdlib.h>
static long grants = -1;  // how often memory is still given; -1: always
static bool served(void) { return grants < 0 || (grants > 0 && grants--); }
#define TTT_MALLOC(user, n) ((void)(user), served() ? malloc(n) : NULL)
#define TTT_REALLOC(user, p, n) ((void)(user), served() ? realloc(p, n) : NULL)
#define TTT_FREE(user, p) ((void)(user), free(p))
#define TTT_IMPLEMENTATION
#include "../ttt_layers.h"
#include "layer_form.h"
#include "ttt_test.h"

// Chunks that a sequence fills often, one that it does not, chunks of one; every option.
#define FORMS(X)                                                                                   \
    X("ttt-linear", .causal = true, .inner_lr = 1)                                                 \
    X("ttt-linear", .causal = true, .inner_lr = 1, .chunk = 5, .no_inner_bias = true)              \
    X("ttt-linear", .causal = true, .inner_lr = 1, .chunk = 100, .no_decoder_norm = true)          \
    X("ttt-linear", .causal = true, .inner_lr = 1, .chunk = 6, .rotary = 10000, .share_qk = true,  \
      .token_index = true, .output_gate = true)                                                    \
    X("ttt-mlp", .causal = true, .inner_lr = 1)                                                    \
    X("ttt-mlp", .causal = true, .inner_lr = 1, .rotary = 10, .share_qk = true, .conv = 2)         \
    X("ttt-mlp", .causal = true, .inner_lr = 1, .chunk = 5, .no_inner_bias = true)                 \
    X("ttt-mlp", .causal = true, .inner_lr = REAL(0.01), .chunk = 3, .no_decoder_norm = true)      \
    X("titans", .inner_lr = 1)                                                                     \
    X("titans", .inner_lr = 1, .chunk = 5, .no_short_conv = true)                                  \
    X("titans", .inner_lr = 1, .chunk = 1, .no_decoder_norm = true)                                \
    X("lact", .causal = true, .chunk = 100)                                                        \
    X("lact", .causal = true, .chunk = 8)                                                          \
    X("lact", .causal = true, .chunk = 5, .muon = true)                                            \
    X("delta-net", .dim = 0) X("delta-net", .chunk = 5) X("delta-net", .chunk = 1)                 \
    X("delta-net", .chunk = 20, .no_short_conv = true)                                             \
    X("gated-delta-net", .dim = 0) X("gated-delta-net", .chunk = 5)                                \
    X("gated-delta-net", .chunk = 20, .no_short_conv = true)                                       \
    X("kda", .dim = 0) X("kda", .chunk = 5, .no_short_conv = true)                                 \
    X("linear-attention", .causal = true)                                                          \
    X("linear-attention", .causal = true, .chunk = 5, .identity_map = true,                        \
      .normalizer = TTT_NORMALIZER_NONE)                                                           \
    X("linear-attention", .causal = true, .chunk = 20)                                             \
    X("self-attention", .causal = true)                                                            \
    X("nadaraya-watson", .causal = true, .kernel = TTT_ATTENTION_KERNEL_GAUSSIAN)                  \
    X("longformer", .causal = true, .window = 3)                                                   \
    X("longformer", .causal = true, .window = 4, .globals = 2)
static const form forms[] = {
#define X(name, ...) { name, { __VA_ARGS__ } },
    FORMS(X)
#undef X
};
// The head width: less than a vector, of parts of one, of several.
static const int64_t sizes[][2] = { { 12, 3 }, { 40, 2 }, { 36, 1 } };  // D, H

// Streams make leaves, and so does what they are compared with.
static layer untaped_layer(ttt_ctx *c, const form *f, int64_t B, int64_t N) {
    ttt_set_recording(c, false);
    return layer_like(c, f, B, N);
}
static layer layer_of(ttt_ctx *c, int number, int size, int64_t B, int64_t N) {
    form f = forms[number];
    f.d.dim = sizes[size][0];
    f.d.heads = sizes[size][1];
    return untaped_layer(c, &f, B, N);
}
static bool same(const ttt_real *a, const ttt_real *b, int64_t n) {
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}
// As one pass over the whole has it: to the bit, since all is one text; but that KDA goes token by
// token in a stream, and in blocks of tokens elsewhere.
static bool as_whole(const layer *l, const ttt_real *a, const ttt_real *b, int64_t n) {
    double most = 1, error = 0;
    if (l->d.mixer != &ttt_mixer_kda) return same(a, b, n);
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)b[i]));
        error = ttt_test_worse(error, fabs((double)a[i] - (double)b[i]));
    }
    return error <= (DOUBLE ? 1e-13 : 1e-5) * most;
}

static void every_streaming_mixer_has_a_form(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *mixer = ttt_mixer_at(i);
        bool found = !(mixer->flags & TTT_MIXER_STREAMS);
        for (int k = 0; k < COUNT(forms); k++)
            found = found || strcmp(forms[k].mixer, mixer->name) == 0;
        if (!found) printf("  %s has none\n", mixer->name);
        CHECK(found);
    }
}

// ---- ways to cut a sequence ---------------------------------------------------------------------
// All of x in pieces of `most` tokens or, if that is negative, of any number up to it.
static void read_in_pieces(ttt_ctx *c, const layer *l, int64_t most, ttt_tensor *y) {
    int64_t B = l->x->shape.dim[0], N = l->x->shape.dim[1], D = l->d.dim, n;
    ttt_stream stream = { 0 };
    for (int64_t at = 0; at < N && ttt_ok(c); at += n) {
        n = most > 0 ? most : 1 + (int64_t)ttt_rng_below(ttt_ctx_rng(c), (uint64_t)-most);
        if (n > N - at) n = N - at;
        ttt_tensor *piece = ttt_slice(c, l->x, 1, at, n);
        ttt_tensor *part = ttt_mixer_stream(c, &l->d, l->w, &stream, piece, NULL);
        for (int64_t b = 0; b < B && ttt_ok(c); b++)
            memcpy(y->data + (b * N + at) * D, part->data + b * n * D,
                   (size_t)(n * D) * sizeof *y->data);
    }
    CHECK(ttt_ok(c));
}
static void every_way_to_cut_gives_the_whole(void) {
    enum { N = 37 };
    static const int64_t most[] = { 1, N, 7, 5, -3, -20 };
    for (int set = 0; ttt_isa_name(set); set++)
        for (int i = 0; i < COUNT(forms); i++) {
            ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = (uint64_t)i, .isa = ttt_isa_name(set) });
            layer l = layer_of(c, i, (i + set) % COUNT(sizes), 2, N);
            ttt_tensor *y = ttt_zeros(c, l.x->shape), *first = ttt_zeros(c, l.x->shape);
            ttt_tensor *z = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
            for (int k = 0; k < COUNT(most); k++) {
                read_in_pieces(c, &l, most[k], y);
                if (k == 0) memcpy(first->data, y->data, (size_t)y->size * sizeof *y->data);
                bool good = as_whole(&l, y->data, z->data, y->size) &&
                            same(y->data, first->data, y->size);
                if (!good)
                    printf("  %s %s (form %d, D %d), pieces of %d: %g\n", ttt_isa_name(set),
                           l.d.mixer->name, i, (int)l.d.dim, (int)most[k],
                           ttt_max_abs_diff(y, z));
                CHECK(good);
            }
            ttt_close(c);
        }
}

// ---- lanes --------------------------------------------------------------------------------------
// Any number of new tokens in each lane, none too; NaN behind them.
static void lanes_are_alone(void) {
    enum { B = 4, N = 30 };
    for (int i = 0; i < COUNT(forms); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = (uint64_t)i, .threads = 1 + 3 * (i % 2) });
        layer l = layer_of(c, i, i % 2, B, N);
        int64_t D = l.d.dim, counts[B];
        ttt_stream stream = { 0 };
        ttt_tensor *y = ttt_zeros(c, l.x->shape);
        for (int call = 0; call < 40; call++) {
            int64_t n = 1 + (int64_t)ttt_rng_below(ttt_ctx_rng(c), 9);
            ttt_tensor *piece = ttt_full(c, TTT_SHAPE(B, n, D), REAL(NAN));
            for (int64_t b = 0; b < B; b++) {
                int64_t at = stream.lanes ? stream.read->index[b] : 0;
                counts[b] = (int64_t)ttt_rng_below(ttt_ctx_rng(c), (uint64_t)n + 1);
                if (counts[b] > N - at) counts[b] = N - at;
                memcpy(piece->data + b * n * D, l.x->data + (b * N + at) * D,
                       (size_t)(counts[b] * D) * sizeof(ttt_real));
            }
            ttt_tensor *part = ttt_mixer_stream(c, &l.d, l.w, &stream, piece, counts);
            for (int64_t b = 0; b < B; b++) {
                ttt_real *from = part->data + b * n * D;
                int64_t at = stream.read->index[b] - counts[b];
                memcpy(y->data + (b * N + at) * D, from, (size_t)(counts[b] * D) * sizeof *from);
                for (int64_t k = counts[b] * D; k < n * D; k++) CHECK(from[k] == 0);
            }
        }
        for (int64_t b = 0; b < B; b++) {
            ttt_tensor *alone = ttt_mixer_forward(c, &l.d, l.w, ttt_slice(c, l.x, 0, b, 1), NULL);
            bool good = as_whole(&l, y->data + b * N * D, alone->data, N * D);
            if (!good) printf("  %s (form %d), lane %d\n", l.d.mixer->name, i, (int)b);
            CHECK(good && stream.read->index[b] == N);
        }
        CHECK(ttt_ok(c));
        ttt_close(c);
    }
}

static void threads_change_no_bit(void) {
    for (int i = 0; i < COUNT(forms); i++) {
        ttt_ctx *c[2] = { ttt_open(&(ttt_desc){ .threads = 1 }),
                          ttt_open(&(ttt_desc){ .threads = 4 }) };
        ttt_tensor *y[2];
        for (int k = 0; k < 2; k++) {
            layer l = layer_of(c[k], i, 2, 3, 40);
            read_in_pieces(c[k], &l, 9, y[k] = ttt_zeros(c[k], l.x->shape));
        }
        CHECK(same(y[0]->data, y[1]->data, y[0]->size));
        ttt_close(c[0]);
        ttt_close(c[1]);
    }
}

// ---- states -------------------------------------------------------------------------------------
static ttt_tensor *next(ttt_ctx *c, const layer *l, ttt_stream *stream, int64_t at, int64_t n) {
    return ttt_mixer_stream(c, &l->d, l->w, stream, ttt_slice(c, l->x, 1, at, n), NULL);
}
static bool bits_equal(const ttt_tensor *a, const ttt_tensor *b) {
    return a->size == b->size && same(a->data, b->data, a->size);
}
static void forks_and_ways_back_give_the_same_bits(void) {
    for (int i = 0; i < COUNT(forms); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = (uint64_t)i });
        layer l = layer_of(c, i, 0, 2, 40);
        ttt_stream stream = { 0 }, fork = { 0 }, start = { 0 };
        ttt_tensor *first = next(c, &l, &stream, 0, 13);
        CHECK(ttt_stream_copy(c, &fork, &stream) == TTT_OK);
        ttt_tensor *second = next(c, &l, &stream, 13, 4), *third = next(c, &l, &stream, 17, 20);
        CHECK(bits_equal(next(c, &l, &fork, 13, 4), second));  // the fork goes the same way,
        next(c, &l, &fork, 0, 11);                             // then another
        CHECK(ttt_stream_copy(c, &fork, &start) == TTT_OK && fork.lanes == 0);
        CHECK(bits_equal(next(c, &l, &fork, 0, 13), first));
        CHECK(ttt_stream_copy(c, &stream, &fork) == TTT_OK && stream.read->index[1] == 13);
        CHECK(bits_equal(next(c, &l, &stream, 13, 4), second));
        CHECK(bits_equal(next(c, &l, &stream, 17, 20), third));
        ttt_stream_restart(&stream, 1);  // one lane, and then all
        CHECK(stream.read->index[0] == 37 && stream.read->index[1] == 0);
        ttt_tensor *again = next(c, &l, &stream, 0, 13);
        CHECK(same(again->data + 13 * l.d.dim, first->data + 13 * l.d.dim, 13 * l.d.dim));
        ttt_stream_restart(&stream, -1);
        CHECK(bits_equal(next(c, &l, &stream, 0, 13), first));
        if (!ttt_ok(c)) printf("  %s\n", ttt_error(c));
        CHECK(ttt_ok(c));
        ttt_close(c);
    }
}
// Lists of tokens grow; all else stays.
static void states_are_of_constant_size(void) {
    for (int i = 0; i < COUNT(forms); i++) {
        ttt_ctx *c = ttt_open(NULL);
        layer l = layer_of(c, i, 0, 1, 200);
        bool list = l.d.mixer == &ttt_mixer_self_attention ||
                    l.d.mixer == &ttt_mixer_nadaraya_watson;
        ttt_stream stream = { 0 };
        next(c, &l, &stream, 0, 1);
        int64_t before = 0, after = 0;
        for (int k = 0; k < stream.state.n; k++) before += stream.state.value[k]->size;
        next(c, &l, &stream, 1, 150);
        next(c, &l, &stream, 151, 49);
        for (int k = 0; k < stream.state.n; k++) after += stream.state.value[k]->size;
        CHECK(ttt_ok(c) && before > 0 && (list || after == before));
        ttt_close(c);
    }
}

// ---- errors -------------------------------------------------------------------------------------
// Memory ends at any allocation of a call: the stream stays, and the same call gives the same bits.
static void without_memory_a_stream_stays(void) {
    for (int i = 0; i < COUNT(forms) * 2; i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = (uint64_t)i });
        layer l = layer_of(c, i / 2, 0, 2, 40);
        ttt_stream stream = { 0 }, other = { 0 };
        if (i % 2) next(c, &l, &stream, 0, 7);
        CHECK(ttt_stream_copy(c, &other, &stream) == TTT_OK);
        ttt_tensor *want = next(c, &l, &other, 7, 20);
        for (long most = 0; most < 1000; most++) {
            ttt_mark mark = ttt_mark_get(c);
            ttt_tensor *x = ttt_slice(c, l.x, 1, 7, 20);
            grants = most;
            ttt_tensor *y = ttt_mixer_stream(c, &l.d, l.w, &stream, x, NULL);
            grants = -1;
            if (ttt_ok(c)) {
                CHECK(bits_equal(y, want));
                break;
            }
            CHECK(strstr(ttt_error(c), "out of memory") && stream.lanes == (i % 2 ? 2 : 0));
            CHECK(i % 2 == 0 || stream.read->index[1] == 7);
            ttt_clear(c);
            ttt_mark_release(c, mark);
        }
        ttt_close(c);
    }
}
static void refused(ttt_ctx *c, const char *part) {
    if (ttt_ok(c) || !strstr(ttt_error(c), part)) printf("  %s: \"%s\"\n", part, ttt_error(c));
    CHECK(!ttt_ok(c) && strstr(ttt_error(c), part));
    ttt_clear(c);
}
static void what_does_not_stream_is_refused(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_tensor *x = ttt_randn(c, TTT_SHAPE(2, 4, 12));
    for (int i = 0; ttt_mixer_at(i); i++) {
        ttt_mixer_desc all = { .inner_lr = 1, .grid_rows = 2, .grid_cols = 2, .max_tokens = 4 };
        ttt_mixer_desc d = ttt_mixer_offer(ttt_mixer_at(i), &all);
        ttt_params p = { 0 };
        ttt_stream stream = { 0 };
        d.dim = 12;
        d.heads = 3;
        ttt_weights w = ttt_mixer_new(c, &d, &p, "");
        ttt_mixer_stream(c, &d, w, &stream, x, NULL);
        if (!(d.mixer->flags & TTT_MIXER_STREAMS)) refused(c, "reads no stream");
        else if (!(d.mixer->flags & TTT_MIXER_CAUSAL)) refused(c, ".causal");
        CHECK(ttt_ok(c));
        d.no_fused = true;
        d.causal = !(d.mixer->flags & TTT_MIXER_CAUSAL);
        ttt_mixer_stream(c, &d, w, &stream, x, NULL);
        if (d.mixer->flags & TTT_MIXER_STREAMS) refused(c, ".no_fused");
        ttt_clear(c);
    }
    ttt_mixer_desc d = { .mixer = &ttt_mixer_linear_attention, .dim = 12, .heads = 3,
                         .causal = true, .normalizer = TTT_NORMALIZER_CONSTANT };
    ttt_params p = { 0 };
    ttt_stream stream = { 0 };
    ttt_weights w = ttt_mixer_new(c, &d, &p, "");
    ttt_mixer_stream(c, &d, w, &stream, x, NULL), refused(c, "normalizer");
    d.mixer = &ttt_mixer_delta_net;
    d.causal = false;
    d.normalizer = TTT_NORMALIZER_ADAPTIVE;
    d.chunk = (int64_t)1 << 40;
    w = ttt_mixer_new(c, &d, &p, "delta");
    ttt_mixer_stream(c, &d, w, &stream, x, NULL), refused(c, ".chunk");
    d.mixer = NULL;
    ttt_mixer_stream(c, &d, w, &stream, x, NULL), refused(c, ".mixer is not set");
    CHECK(stream.lanes == 0 && stream.state.n == 0);
    ttt_close(c);
}
static void foreign_states_are_refused(void) {
    ttt_ctx *c = ttt_open(NULL);
    layer l = layer_of(c, 1, 0, 2, 12);
    ttt_stream stream = { 0 };
    int64_t counts[2] = { 3, 5 };
    next(c, &l, &stream, 0, 7);
    ttt_tensor *piece = ttt_slice(c, l.x, 1, 7, 4);
    ttt_mixer_stream(c, &l.d, l.w, &stream, piece, counts), refused(c, "lane 1 has 5");
    counts[1] = -1;
    ttt_mixer_stream(c, &l.d, l.w, &stream, piece, counts), refused(c, "lane 1 has -1");
    ttt_mixer_stream(c, &l.d, l.w, &stream, ttt_slice(c, piece, 0, 0, 1), NULL);
    refused(c, "the stream has 2 lanes");
    l.d.chunk = 6;
    ttt_mixer_stream(c, &l.d, l.w, &stream, piece, NULL), refused(c, "of another layer");
    l.d.chunk = 5;
    layer mlp = layer_of(c, 6, 0, 2, 12);
    ttt_mixer_stream(c, &mlp.d, mlp.w, &stream, piece, NULL), refused(c, "of another layer");
    ttt_tensor *value[4], *gradient[4];
    ttt_stream_learner(c, &mlp.d, mlp.w, &stream, NULL, value, gradient);
    refused(c, "of another layer");
    ttt_stream_learner(c, &l.d, l.w, &stream, "layer 2", value, gradient), refused(c, "no state");
    layer delta = layer_of(c, COUNT(forms) - 1, 0, 2, 12);
    ttt_stream_learner(c, &delta.d, delta.w, &stream, NULL, value, gradient);
    refused(c, "no learner");
    ttt_params p = { 0 };  // what it would look for has another name
    ttt_mixer_desc list = { .mixer = &ttt_mixer_self_attention, .dim = 12, .heads = 2,
                            .causal = true };
    ttt_weights w = ttt_mixer_new(c, &list, &p, "list");
    ttt_mixer_stream(c, &list, w, &stream, piece, NULL), refused(c, "it has no state list/0");
    ttt_mixer_stream(c, &l.d, l.w, &stream, ttt_reshape(c, piece, TTT_SHAPE(8, 12)), NULL);
    refused(c, "x has shape (8,12); (B,n,D) expected");
    ttt_mixer_stream(c, &l.d, l.w, &stream, piece, NULL);
    CHECK(ttt_ok(c) && stream.read->index[0] == 11);
    ttt_close(c);
}

// ---- what a learner has become ------------------------------------------------------------------
// A chunk that ends takes the mean of the gradients that one which goes on has gathered.
static void a_learner_moves_by_what_it_gathered(void) {
    for (int i = 0; i < 8; i++) {
        if (forms[i].d.token_index) continue;  // a parameter as long as the chunk
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = (uint64_t)i });
        layer l = layer_of(c, i, i % 2, 2, 12);
        ttt_tensor *before[4], *gathered[4], *after[4], *none[4];
        ttt_stream stream = { 0 }, other = { 0 };
        l.d.chunk = 5;
        next(c, &l, &stream, 0, 4);
        ttt_stream_learner(c, &l.d, l.w, &stream, NULL, before, gathered);
        l.d.chunk = 4;
        next(c, &l, &other, 0, 4);
        ttt_stream_learner(c, &l.d, l.w, &other, NULL, after, none);
        CHECK(ttt_ok(c));
        for (int k = 0; k < l.d.mixer->learner->n_rows && ttt_ok(c); k++) {
            CHECK(!before[k] == !after[k] && !before[k] == !gathered[k]);
            for (int64_t j = 0; before[k] && j < before[k]->size; j++) {
                double want = (double)before[k]->data[j] - (double)gathered[k]->data[j] / 4;
                CHECK(fabs((double)after[k]->data[j] - want) <= (DOUBLE ? 1e-14 : 1e-6));
                CHECK(none[k]->data[j] == 0);
            }
        }
        ttt_close(c);
    }
}

// ---- lists of keys and values -------------------------------------------------------------------
// Lists that grow over several blocks, rings of tiles shorter and longer than the pieces, globals
// of more than one tile, windows longer than a tile.
static const form lists[] = {
    { "self-attention", { .dim = 8, .heads = 2, .causal = true } },
    { "self-attention", { .dim = 6, .heads = 1, .causal = true } },
    { "nadaraya-watson", { .dim = 8, .heads = 2, .causal = true } },
    { "nadaraya-watson", { .dim = 8, .heads = 4, .causal = true,
                           .kernel = TTT_ATTENTION_KERNEL_GAUSSIAN } },
    { "longformer", { .dim = 8, .heads = 2, .causal = true, .window = 1 } },
    { "longformer", { .dim = 8, .heads = 2, .causal = true, .window = 16 } },
    { "longformer", { .dim = 8, .heads = 2, .causal = true, .window = 70, .globals = 1 } },
    { "longformer", { .dim = 8, .heads = 2, .causal = true, .window = 3, .globals = 37 } },
    { "longformer", { .dim = 8, .heads = 2, .causal = true, .window = 600, .globals = 5 } },
    { "longformer", { .dim = 8, .heads = 2, .causal = true, .globals = 590 } },
    { "lact", { .dim = 8, .heads = 2, .causal = true, .chunk = 16 } },
    { "lact", { .dim = 8, .heads = 2, .causal = true, .chunk = 600 } },
    { "nadaraya-watson", { .dim = 8, .heads = 2, .causal = true, .neighbors = 3,
                           .kernel = TTT_ATTENTION_KERNEL_NEAREST } },
};
static int64_t long_enough(const form *f) {  // the nearest are found among all
    return f->d.neighbors ? 150 : 1100;
}

// Reads on in a stream, up to `end` tokens of each lane, in pieces of at most `most` tokens: any
// number of them in each lane, and NaN behind those. Answers go into y.
static void read_on(ttt_ctx *c, const layer *l, ttt_stream *stream, int64_t end, int most,
                    ttt_tensor *y) {
    int64_t B = l->x->shape.dim[0], N = l->x->shape.dim[1], D = l->d.dim, counts[8];
    for (bool more = true; more && ttt_ok(c);) {
        ttt_mark mark = ttt_mark_get(c);
        int64_t n = 1 + (int64_t)ttt_rng_below(ttt_ctx_rng(c), (uint64_t)most);
        ttt_tensor *piece = ttt_full(c, TTT_SHAPE(B, n, D), REAL(NAN));
        more = false;
        for (int64_t b = 0; b < B && ttt_ok(c); b++) {
            int64_t at = stream->lanes ? stream->read->index[b] : 0;
            counts[b] = most > 1 ? (int64_t)ttt_rng_below(ttt_ctx_rng(c), (uint64_t)n + 1) : 1;
            if (at + counts[b] > end) counts[b] = end - at;
            memcpy(piece->data + b * n * D, l->x->data + (b * N + at) * D,
                   (size_t)(counts[b] * D) * sizeof *piece->data);
        }
        ttt_tensor *some = ttt_mixer_stream(c, &l->d, l->w, stream, piece, counts);
        for (int64_t b = 0; b < B && ttt_ok(c); b++) {
            int64_t at = stream->read->index[b] - counts[b];
            memcpy(y->data + (b * N + at) * D, some->data + b * n * D,
                   (size_t)(counts[b] * D) * sizeof *y->data);
            for (int64_t i = counts[b] * D; i < n * D; i++) CHECK(some->data[b * n * D + i] == 0);
            more = more || stream->read->index[b] < end;
        }
        ttt_mark_release(c, mark);
    }
    CHECK(ttt_ok(c));
}
static void every_way_to_read_a_list_gives_the_same_bits(void) {
    static const int most[] = { 1, 7, 100, 700, 3000 };
    int sets = 0;
    while (ttt_isa_name(sets)) sets++;
    for (int i = 0; i < COUNT(lists) * COUNT(most); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){
            .seed = (uint64_t)i, .threads = 1 + i % 2, .isa = ttt_isa_name(i % sets) });
        int64_t N = long_enough(&lists[i / COUNT(most)]);
        layer l = untaped_layer(c, &lists[i / COUNT(most)], 2, N);
        int pieces = most[i % COUNT(most)];
        ttt_stream stream = { 0 };
        ttt_tensor *y = ttt_zeros(c, l.x->shape);
        ttt_tensor *z = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        read_on(c, &l, &stream, N, pieces, y);
        bool same = memcmp(y->data, z->data, (size_t)y->size * sizeof *y->data) == 0;
        if (!same)
            printf("  %s, %s, window %d, globals %d, pieces to %d: %g\n", ttt_isa(c),
                   l.d.mixer->name, (int)l.d.window, (int)l.d.globals, pieces,
                   ttt_max_abs_diff(y, z));
        CHECK(same);
        ttt_close(c);
    }
}
// From a fork at a token a stream goes on and is taken back there, again and again: it reads the
// same, and no memory is lost. Lists have grown since, and rings gone round.
static void ways_back_over_many_tiles_give_the_same_bits(void) {
    for (int i = 0; i < COUNT(lists); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = (uint64_t)i });
        int64_t N = long_enough(&lists[i]);
        layer l = untaped_layer(c, &lists[i], 2, N);
        ttt_stream stream = { 0 }, fork = { 0 };
        ttt_tensor *y = ttt_zeros(c, l.x->shape);
        ttt_tensor *z = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        read_on(c, &l, &stream, N / 3, 100, y);
        CHECK(ttt_stream_copy(c, &fork, &stream) == TTT_OK);
        size_t kept = 0;
        for (int time = 0; time < 4; time++) {
            for (int64_t k = N / 3 * l.d.dim; k < y->size / 2; k++) y->data[k] = 0;
            read_on(c, &l, &stream, N, time % 2 ? 50 : (int)N, y);
            CHECK(memcmp(y->data, z->data, (size_t)y->size * sizeof *y->data) == 0);
            CHECK(ttt_stream_copy(c, &stream, &fork) == TTT_OK);
            CHECK(stream.read->index[1] == N / 3 && (time < 2 || ttt_memory(c).keep == kept));
            kept = ttt_memory(c).keep;
        }
        ttt_stream_restart(&stream, 1);  // while the other lane goes on
        read_on(c, &l, &stream, N, 90, y);
        CHECK(memcmp(y->data, z->data, (size_t)y->size * sizeof *y->data) == 0);
        ttt_close(c);
    }
}
// A number that is not finite reaches those behind it alone, in its piece and in others.
static void a_token_that_is_not_finite_is_read_as_in_the_whole(void) {
    for (int i = 0; i < 2 * COUNT(lists); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = (uint64_t)i });
        int64_t N = long_enough(&lists[i / 2]), D = lists[i / 2].d.dim;
        layer l = untaped_layer(c, &lists[i / 2], 2, N);
        ttt_stream stream = { 0 };
        l.x->data[(N + N / 2) * D + 1] = i % 2 ? REAL(NAN) : REAL(3e38);
        ttt_tensor *y = ttt_zeros(c, l.x->shape);
        ttt_tensor *z = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        read_on(c, &l, &stream, N, 300, y);
        bool same = true;
        for (int64_t k = 0; k < y->size; k++)
            same = same && (y->data[k] == z->data[k] || (isnan(y->data[k]) && isnan(z->data[k])));
        if (!same) printf("  %s, window %d\n", l.d.mixer->name, (int)l.d.window);
        CHECK(same);
        ttt_close(c);
    }
}
// Memory ends at any allocation of a call in which a list grows and a ring goes round.
static void a_list_that_finds_no_memory_stays(void) {
    for (int i = 0; i < COUNT(lists); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = (uint64_t)i });
        int64_t N = long_enough(&lists[i]);
        layer l = untaped_layer(c, &lists[i], 1, N);
        ttt_stream stream = { 0 };
        ttt_tensor *z = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL), *y = z;
        ttt_mixer_stream(c, &l.d, l.w, &stream, ttt_slice(c, l.x, 1, 0, 100), NULL);
        for (long most = 0; most < 1000; most++) {
            ttt_mark mark = ttt_mark_get(c);
            ttt_tensor *rest = ttt_slice(c, l.x, 1, 100, N - 100);
            grants = most;
            y = ttt_mixer_stream(c, &l.d, l.w, &stream, rest, NULL);
            grants = -1;
            if (ttt_ok(c)) break;
            CHECK(strstr(ttt_error(c), "out of memory") && stream.read->index[0] == 100);
            ttt_clear(c);
            ttt_mark_release(c, mark);
        }
        CHECK(memcmp(y->data, z->data + 100 * l.d.dim, (size_t)y->size * sizeof *y->data) == 0);
        ttt_close(c);
    }
}
// With a window what is kept does not grow, and is not much more than what must be.
static void a_ring_is_of_constant_size(void) {
    for (int i = 0; i < COUNT(lists); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = (uint64_t)i });
        int64_t N = long_enough(&lists[i]);
        layer l = untaped_layer(c, &lists[i], 1, N);
        ttt_stream stream = { 0 };
        ttt_tensor *y = ttt_zeros(c, l.x->shape);
        double size[2] = { 0, 0 };
        for (int half = 0; half < 2; half++) {
            read_on(c, &l, &stream, half ? N : N / 2, 100, y);
            for (int k = 0; k < stream.state.n; k++)
                size[half] += (double)stream.state.value[k]->size;
        }
        bool window = l.d.window || l.d.globals || l.d.mixer == &ttt_mixer_lact;
        double least = l.d.mixer->state(&l.d, N), tile = 2 * 512 * (double)l.d.dim;
        CHECK(!window || size[0] == size[1]);
        if (l.d.mixer == &ttt_mixer_lact) least = size[1];  // it has a memory, too
        if (!(size[1] >= least && size[1] <= 2 * least + 4 * tile))
            printf("  %s, window %d, globals %d: %g numbers, %g needed\n", l.d.mixer->name,
                   (int)l.d.window, (int)l.d.globals, size[1], least);
        CHECK(size[1] >= least && size[1] <= 2 * least + 4 * tile);
        ttt_close(c);
    }
}
static void grids_read_no_stream(void) {
    ttt_ctx *c = ttt_open(NULL);
    form grid = { "longformer", { .dim = 8, .heads = 2, .causal = true, .window = 1,
                                  .grid_rows = 4, .grid_cols = 5 } };
    layer l = untaped_layer(c, &grid, 1, 20);
    ttt_stream stream = { 0 };
    ttt_mixer_stream(c, &l.d, l.w, &stream, l.x, NULL);
    CHECK(ttt_status(c) == TTT_ERR_ARGUMENT && strstr(ttt_error(c), "longformer: .grid_rows is 4"));
    CHECK(strstr(ttt_error(c), "a stream is a line"));
    ttt_close(c);
}

int main(int argc, char **argv) {
    static const ttt_test all[] = { T(every_streaming_mixer_has_a_form),
                                    T(every_way_to_cut_gives_the_whole),
                                    T(lanes_are_alone),
                                    T(threads_change_no_bit),
                                    T(forks_and_ways_back_give_the_same_bits),
                                    T(states_are_of_constant_size),
                                    T(without_memory_a_stream_stays),
                                    T(what_does_not_stream_is_refused),
                                    T(foreign_states_are_refused),
                                    T(a_learner_moves_by_what_it_gathered),
                                    T(every_way_to_read_a_list_gives_the_same_bits),
                                    T(ways_back_over_many_tiles_give_the_same_bits),
                                    T(a_token_that_is_not_finite_is_read_as_in_the_whole),
                                    T(a_list_that_finds_no_memory_stays),
                                    T(a_ring_is_of_constant_size),
                                    T(grids_read_no_stream),
                                    { 0 } };
    return ttt_test_main(argc, argv, all);
}
