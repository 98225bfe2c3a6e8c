// Tests of ttt_model.h's language model.
#include <stdbool.h>
#include <stdlib.h>
static long mallocs;   // how often the library asked for memory
static long fails_at;  // and got none, from 1; 0: at none
static bool fails_on;  // and at all later ones
static bool served(void) {
    mallocs++;
    return !fails_at || !(mallocs == fails_at || (fails_on && mallocs > fails_at));
}
#define TTT_MALLOC(user, n) ((void)(user), served() ? malloc(n) : NULL)
#define TTT_REALLOC(user, p, n) ((void)(user), served() ? realloc(p, n) : NULL)
#define TTT_FREE(user, p) ((void)(user), free(p))
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "ttt_test.h"
#ifdef _WIN32
#include <direct.h>
#include <process.h>
#else
#include <sys/stat.h>
#include <unistd.h>
#endif

// ---- models -------------------------------------------------------------------------------------
enum { VOCAB = 11, MOST = 64 };

static ttt_lm_desc small(const char *mixer) {
    ttt_lm_desc d = { .vocab = VOCAB, .width = 12, .depth = 2, .mlp = 20 };
    d.mixer = (ttt_mixer_desc){ .heads = 3, .inner_lr = 1, .causal = true, .chunk = 4 };
    d.mixer = ttt_mixer_offer(ttt_mixer_find(mixer), &d.mixer);
    return d;
}
// Weights that all matter: those that begin with zeros do not stay so.
static ttt_weights make(ttt_ctx *c, const ttt_lm_desc *d, ttt_params *p) {
    ttt_weights w = ttt_lm_new(c, d, p, "");
    ttt_rng r = ttt_rng_at(7, 0, 0, 0);
    for (int i = 0; i < w.n; i++)
        for (int64_t k = 0; k < w.at[i]->size; k++)
            w.at[i]->data[k] += REAL(0.1) * (ttt_real)ttt_rng_normal(&r);
    return w;
}
static ttt_tensor *some_tokens(ttt_ctx *c, int64_t B, int64_t L) {
    ttt_tensor *t = ttt_new_typed(c, TTT_SHAPE(B, L), TTT_DTYPE_INT, true);
    ttt_rng r = ttt_rng_at(8, 0, 0, 0);
    for (int64_t i = 0; i < t->size; i++) t->index[i] = ttt_rng_below(&r, VOCAB);
    return t;
}
static bool same_bits(const ttt_tensor *a, const ttt_tensor *b) {
    return a->size == b->size && a->size > 0 &&
           !memcmp(a->data, b->data, (size_t)a->size * sizeof *a->data);
}
// Whether an error was recorded that has `part` in its text; forgets it.
static bool told(ttt_ctx *c, const char *part) {
    bool good = !ttt_ok(c) && strstr(ttt_error(c), part);
    if (!good) printf("  \"%s\" lacks \"%s\"\n", ttt_error(c), part);
    ttt_clear(c);
    return good;
}

static void presets_are_those_of_the_paper(void) {
    // numbers of the official models with their tied heads, in millions
    static const struct { const char *name; double numbers; } all[] = {
        { "125m", 110.1 }, { "350m", 336.7 }, { "760m", 732.2 }, { "1b", 1282.9 }
    };
    for (int i = 0; i < COUNT(all); i++) {
        ttt_lm_desc d = ttt_lm_preset(all[i].name);
        double D = (double)d.width, n = (double)d.vocab * D;
        n += (double)d.depth * (4 * D * D + 3 * D * (double)d.mlp + D * D / (double)d.mixer.heads);
        CHECK(fabs(n / 1e6 - all[i].numbers) < 0.06);
        CHECK(d.mixer.chunk == 16 && d.mixer.causal && d.tied && d.mixer.inner_lr == 1);
    }
    CHECK(ttt_lm_preset("126m").width == 0);
}

static void every_causal_mixer_makes_a_model_that_foretells(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *mixer = ttt_mixer_at(i);
        if (!(mixer->flags & TTT_MIXER_CAUSAL) && !ttt_mixer_takes(mixer, "causal")) continue;
        ttt_ctx *c = ttt_open(NULL);
        ttt_lm_desc d = small(mixer->name);
        ttt_params p = { 0 };
        ttt_weights w = make(c, &d, &p);
        ttt_tensor *tokens = some_tokens(c, 2, 9);
        CHECK(w.n == ttt_lm_count(&d) && w.n == p.n);
        ttt_lm_call call = { .want_hidden = true };
        ttt_tensor *y = ttt_lm_forward(c, &d, w, tokens, &call);
        CHECK(ttt_shape_equal(y->shape, TTT_SHAPE(2, 9, VOCAB)));
        CHECK(call.hidden && ttt_shape_equal(call.hidden[2]->shape, TTT_SHAPE(2, 9, 12)));
        CHECK(ttt_lm_flops(&d, 9) > 0);
        // a token changes nothing before it
        int64_t was = tokens->index[5];
        tokens->index[5] = (was + 1) % VOCAB;
        ttt_tensor *other = ttt_lm_forward(c, &d, w, tokens, NULL);
        tokens->index[5] = was;
        if (!ttt_ok(c)) printf("  %s: %s\n", mixer->name, ttt_error(c));
        CHECK(ttt_ok(c) && !memcmp(y->data, other->data, 5 * VOCAB * sizeof *y->data));
        CHECK(memcmp(y->data + 5 * VOCAB, other->data + 5 * VOCAB, VOCAB * sizeof *y->data) != 0);
        ttt_close(c);
    }
}

static void the_loss_is_of_each_next_token(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_tensor *logits = ttt_randn(c, TTT_SHAPE(2, 4, VOCAB)), *tokens = some_tokens(c, 2, 4);
    double sum = 0;
    int n = 0;
    tokens->index[6] = -1;
    for (int i = 0; i < 8; i++) {
        if (i % 4 == 3 || tokens->index[i + 1] < 0) continue;
        double all = 0;
        for (int v = 0; v < VOCAB; v++) all += exp((double)logits->data[i * VOCAB + v]);
        sum += log(all) - (double)logits->data[i * VOCAB + tokens->index[i + 1]];
        n++;
    }
    CHECK(n == 5 && fabs((double)ttt_item(ttt_lm_loss(c, logits, tokens)) - sum / n) < 1e-5);
    CHECK(ttt_item(ttt_lm_loss(c, ttt_zeros(c, TTT_SHAPE(1, 1, 3)), some_tokens(c, 1, 1))) == 0);
    ttt_lm_loss(c, logits, some_tokens(c, 2, 5));
    CHECK(told(c, "lm_loss: logits (2,4,11) and tokens (2,5)"));
    ttt_close(c);
}

// A model's loss as a function of its weights, for ttt_check_gradient.
typedef struct {
    ttt_lm_desc d;
    ttt_tensor *tokens;
} of_weights;
static ttt_tensor *loss_of_weights(ttt_ctx *c, ttt_tensor *const *w, int n, void *user) {
    const of_weights *m = (const of_weights *)user;
    ttt_weights weights = { w, n };
    return ttt_lm_loss(c, ttt_lm_forward(c, &m->d, weights, m->tokens, NULL), m->tokens);
}
static void gradients_agree_with_differences(void) {
    if (!DOUBLE) SKIP("differences need double");
    static const char *const mixers[] = { "ttt-linear", "ttt-mlp", "gated-delta-net" };
    for (int i = 0; i < COUNT(mixers); i++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt_params p = { 0 };
        of_weights m = { .d = small(mixers[i]), .tokens = some_tokens(c, 2, 7) };
        m.d.pre_conv = true;
        m.d.tied = i == 1;
        make(c, &m.d, &p);
        CHECK(ttt_check_gradient(c, loss_of_weights, p.value, p.n, &m, 1, 3e-6) < 1e-6);
        CHECK(ttt_ok(c));
        ttt_close(c);
    }
}

static void blocks_that_are_made_again_give_the_same_bits(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_params p = { 0 };
    ttt_lm_desc d = small("ttt-mlp");
    d.pre_conv = d.tied = true;
    ttt_weights w = make(c, &d, &p);
    ttt_tensor *tokens = some_tokens(c, 2, 9), *g[2][MOST], *y[3];
    for (int again = 0; again < 2; again++) {
        d.remat = again;
        y[again] = ttt_lm_forward(c, &d, w, tokens, NULL);
        ttt_grad(c, ttt_lm_loss(c, y[again], tokens), p.value, p.n, g[again],
                 TTT_GRAD_FIRST_ORDER);
    }
    ttt_set_recording(c, false);
    y[2] = ttt_lm_forward(c, &d, w, tokens, NULL);
    CHECK(ttt_ok(c) && same_bits(y[0], y[1]) && same_bits(y[0], y[2]));
    for (int i = 0; i < p.n; i++) CHECK(same_bits(g[0][i], g[1][i]));
    ttt_close(c);
}

static void what_is_wrong_with_a_description_is_named(void) {
    static const char *const parts[] = {
        "lm: .vocab 0, .width 12, .depth 2", "lm: .vocab 11, .width 0", "lm: .depth 2000000",
        "lm: .mlp -1", ".norm_eps -1", ".conv has no effect", ".mixer.mixer is not set",
        "lm: the mixer ttt-linear needs .causal", "lm: the mixer linformer cannot be causal",
        "not divisible by .heads 5", ".vocab -1"
    };
    for (int i = 0; i < COUNT(parts); i++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt_params p = { 0 };
        ttt_lm_desc d = small("ttt-linear");
        if (i == 0) d.vocab = 0;
        if (i == 1) d.width = 0;
        if (i == 2) d.depth = 2000000;
        if (i == 3) d.mlp = -1;
        if (i == 4) d.norm_eps = -1;
        if (i == 5) d.conv = 3;
        if (i == 6) d.mixer.mixer = NULL;
        if (i == 7) d.mixer.causal = false, d.mixer.chunk = 0;
        if (i == 8) d.mixer = (ttt_mixer_desc){ .mixer = ttt_mixer_find("linformer"), .heads = 3 };
        if (i == 9) d.mixer.heads = 5;
        if (i == 10) d.vocab = -1;
        CHECK(ttt_lm_new(c, &d, &p, "").n == 0);
        CHECK(told(c, parts[i]));
        ttt_close(c);
    }
}

static void what_is_wrong_with_tokens_is_named(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_params p = { 0 };
    ttt_lm_desc d = small("linear-attention");
    ttt_weights w = make(c, &d, &p);
    ttt_tensor *tokens = some_tokens(c, 2, 4);
    tokens->index[6] = VOCAB;
    ttt_lm_forward(c, &d, w, tokens, NULL);
    CHECK(told(c, "lm: token 11 at place 2 of sequence 1; the vocabulary has 0 to 10"));
    tokens->index[6] = -1;
    ttt_lm_forward(c, &d, w, tokens, NULL);
    CHECK(told(c, "lm: token -1 at place 2 of sequence 1"));
    ttt_lm_forward(c, &d, w, some_tokens(c, 2, 0), NULL);
    CHECK(told(c, "(2,0)"));
    ttt_lm_forward(c, &d, w, ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 1, 2 }), NULL);
    CHECK(told(c, "lm: tokens of shape (2); (B,L) expected"));
    ttt_lm_forward(c, &d, w, ttt_zeros(c, TTT_SHAPE(2, 2)), NULL);
    CHECK(told(c, "lm: "));
    w.n--;
    ttt_lm_forward(c, &d, w, tokens, NULL);
    CHECK(told(c, "lm: "));
    ttt_close(c);
}

// ---- folders ------------------------------------------------------------------------------------
static char folder[60];  // of this process: the suite may run twice at the same time
static const char *in_folder(const char *name) {
    static char path[4][300];
    static int which;
    char *text = path[which++ % 4];
    snprintf(text, sizeof path[0], "%s/%s", folder, name);
    return text;
}
static void make_folder(void) {
    snprintf(folder, sizeof folder, "test_language.%ld", (long)getpid());
#ifdef _WIN32
    _mkdir(folder);
#else
    mkdir(folder, 0777);
#endif
}
static void remove_folder(void) {
    static const char *const files[] = { "config.json", "model.safetensors", "a.safetensors",
                                         "model.safetensors.index.json", "b.safetensors",
                                         "streaming_params", "streaming_train_state" };
    for (int i = 0; i < COUNT(files); i++) remove(in_folder(files[i]));
#ifdef _WIN32
    _rmdir(folder);
#else
    rmdir(folder);
#endif
}
static void write_file(const char *path, const char *text, size_t n) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(text, 1, n, f) == n);
    if (f) fclose(f);
}

static bool same_tensors(const ttt_params *a, const ttt_params *b) {
    bool same = a->n == b->n;
    for (int i = 0; i < a->n && same; i++)
        same = strcmp(a->item[i].name, b->item[i].name) == 0 &&
               ttt_shape_equal(a->value[i]->shape, b->value[i]->shape) &&
               same_bits(a->value[i], b->value[i]);
    return same;
}
static bool same_desc(const ttt_lm_desc *a, const ttt_lm_desc *b) {
    ttt_lm_desc x = ttt__lm_resolved(a), y = ttt__lm_resolved(b);
    if (!x.pre_conv) x.conv = 0;
    if (!y.pre_conv) y.conv = 0;
    for (int i = 0; i < TTT__N_OPTIONS; i++)
        if (memcmp((char *)&x.mixer + ttt__options[i].at, (char *)&y.mixer + ttt__options[i].at,
                   ttt__options[i].size) != 0) {
            printf("  .%s differs\n", ttt__options[i].name);
            return false;
        }
    return x.vocab == y.vocab && x.width == y.width && x.depth == y.depth && x.mlp == y.mlp &&
           x.pre_conv == y.pre_conv && x.conv == y.conv && x.norm_eps == y.norm_eps &&
           x.tied == y.tied && x.mixer.mixer == y.mixer.mixer && x.mixer.heads == y.mixer.heads;
}
static void comes_back(ttt_ctx *c, const ttt_lm_desc *d) {
    ttt_params p = { 0 }, q;
    ttt_lm_desc e;
    ttt_lm_folder asked = { .bos = 3, .eos = 5 }, told = { 0 };
    make(c, d, &p);
    CHECK(ttt_lm_write(c, folder, d, &p, &asked) == TTT_OK);
    CHECK(ttt_lm_read(c, folder, &e, &q, &told) == TTT_OK);
    if (!ttt_ok(c)) printf("  %s: %s\n", d->mixer.mixer->name, ttt_error(c));
    CHECK(same_desc(d, &e) && same_tensors(&p, &q) && told.n_left == 0);
    CHECK(told.bos == 3 && told.eos == 5);
    const char *before = ttt_lm_fingerprint(c, d, ttt_params_weights(&p)),
               *after = ttt_lm_fingerprint(c, &e, ttt_params_weights(&q));
    CHECK(before && after && !strcmp(before, after));  // so states of it are still its own
    ttt_clear(c);
}
static void every_model_comes_back_from_its_folder(void) {
    make_folder();
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *mixer = ttt_mixer_at(i);
        if (!(mixer->flags & TTT_MIXER_CAUSAL) && !ttt_mixer_takes(mixer, "causal")) continue;
        ttt_ctx *c = ttt_open(NULL);
        ttt_lm_desc d = small(mixer->name);
        comes_back(c, &d);
        ttt_close(c);
    }
    ttt_ctx *c = ttt_open(NULL);
    ttt_lm_desc d = small("ttt-mlp");  // the official kind
    d.mixer.token_index = true;
    d.mixer.rotary = 500;
    d.mixer.inner_lr = REAL(0.1);
    d.norm_eps = REAL(1e-5);
    comes_back(c, &d);
    d.tied = d.pre_conv = d.mixer.share_qk = d.mixer.output_gate = true;
    d.conv = d.mixer.conv = 3;
    comes_back(c, &d);
    d.conv = 2;  // which the official config.json cannot say
    comes_back(c, &d);
    ttt_close(c);
    remove_folder();
}

static void a_folder_has_no_prefix_and_may_have_one_token_for_both_ends(void) {
    make_folder();
    ttt_ctx *c = ttt_open(NULL);
    ttt_params p = { 0 }, q;
    ttt_lm_desc d = small("ttt-linear"), e;
    ttt_lm_folder asked = { .bos = 4, .eos = 4 }, told_of = { 0 };
    ttt_weights w = ttt_lm_new(c, &d, &p, "some/prefix");
    CHECK(ttt_lm_write(c, folder, &d, &p, &asked) == TTT_OK);
    CHECK(ttt_lm_read(c, folder, &e, &q, &told_of) == TTT_OK && q.n == p.n);
    if (!ttt_ok(c)) printf("  %s\n", ttt_error(c));
    for (int i = 0; i < q.n && ttt_ok(c); i++) CHECK(same_bits(q.value[i], w.at[i]));
    CHECK(told_of.bos == 4 && told_of.eos == 4 && told_of.n_left == 0);
    p.item[0].name = "elsewhere";
    ttt_lm_write(c, folder, &d, &p, NULL);
    CHECK(told(c, "the first parameter is 'elsewhere'"));
    ttt_close(c);
    remove_folder();
}

static void a_folder_in_bfloat16_is_computed_with(void) {
    make_folder();
    ttt_ctx *c = ttt_open(NULL);
    ttt_params p = { 0 }, q, r;
    ttt_lm_desc d = small("ttt-linear"), e;
    ttt_lm_folder half = { .bf16 = true };
    ttt_tensor *tokens = some_tokens(c, 2, 9);
    d.tied = true;
    make(c, &d, &p);
    // 16 bits in the file, then floats; floats in the file, then 16 bits where products take them
    CHECK(ttt_lm_write(c, folder, &d, &p, &half) == TTT_OK);
    CHECK(ttt_lm_read(c, folder, &e, &q, NULL) == TTT_OK);
    CHECK(ttt_lm_write(c, folder, &d, &q, NULL) == TTT_OK);
    CHECK(ttt_lm_read(c, folder, &e, &r, &half) == TTT_OK);
    ttt_tensor *y = ttt_lm_forward(c, &d, ttt_params_weights(&q), tokens, NULL),
               *z = ttt_lm_forward(c, &d, ttt_params_weights(&r), tokens, NULL);
    CHECK(ttt_ok(c) && same_bits(y, z));
    CHECK(r.value[0]->bf16 && ttt_params_find(&r, "model/layers/1/mlp/up_proj/kernel")->bf16);
    CHECK(ttt_params_find(&r, "model/norm/scale")->data);
    CHECK(ttt_lm_write(c, folder, &d, &r, NULL) == TTT_OK);  // both in one file
    CHECK(ttt_lm_read(c, folder, &e, &q, NULL) == TTT_OK && same_tensors(&q, &q));
    z = ttt_lm_forward(c, &d, ttt_params_weights(&q), tokens, NULL);
    CHECK(ttt_ok(c) && same_bits(y, z));
    ttt_optimizer_new(c, &(ttt_optimizer_desc){ .lr = 1 }, &r);
    CHECK(told(c, "embed_tokens"));
    ttt_close(c);
    remove_folder();
}

// The folder's tensors in two files, every second in each, and their index; the tensor that is
// missing from it, if any, and what the index says in place of "a.safetensors".
static void write_shards(ttt_ctx *c, const char *as) {
    ttt_bundle all, part[2] = { { 0 } };
    ttt_named tensors[2][MOST];
    char text[9000];
    size_t n = 0;
    remove(in_folder("model.safetensors.index.json"));
    CHECK(ttt_safetensors_read(c, in_folder("model.safetensors"), &all) == TTT_OK);
    n += (size_t)snprintf(text, sizeof text, "{\"metadata\":{},\"weight_map\":{");
    for (int i = 0; i < all.n_tensors; i++) {
        ttt_bundle *to = &part[i % 2];
        to->tensors = tensors[i % 2];
        to->tensors[to->n_tensors].name = all.tensors[i].name;
        to->tensors[to->n_tensors++].tensor = ttt_bundle_at(&all, i);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s\"%s\":\"%s\"", i ? "," : "",
                              all.tensors[i].name, i % 2 ? "b.safetensors" : as);
    }
    n += (size_t)snprintf(text + n, sizeof text - n, "}}");
    ttt_safetensors_write(c, in_folder("a.safetensors"), &part[0], false);
    ttt_safetensors_write(c, in_folder("b.safetensors"), &part[1], false);
    write_file(in_folder("model.safetensors.index.json"), text, n);
    CHECK(ttt_ok(c));
}
static void a_model_in_shards_is_read_from_its_own_folder_alone(void) {
    static const struct { const char *as, *error; } bad[] = {
        { "../a.safetensors", "a file of this folder expected" },
        { "/etc/passwd", "a file of this folder expected" },
        { "..", "a file of this folder expected" },
        { "c:a.safetensors", "a file of this folder expected" },
        { "b\\\\a.safetensors", "a file of this folder expected" },
        { "", "a file of this folder expected" },
        { "c.safetensors", "c.safetensors" },
        { "b.safetensors", "which lacks it" },
    };
    make_folder();
    ttt_ctx *c = ttt_open(NULL);
    ttt_params p = { 0 }, q;
    ttt_lm_desc d = small("linear-attention"), e;
    make(c, &d, &p);
    ttt_lm_write(c, folder, &d, &p, NULL);
    write_shards(c, "a.safetensors");
    rename(in_folder("model.safetensors"), in_folder("kept"));
    CHECK(ttt_lm_read(c, folder, &e, &q, NULL) == TTT_OK && same_tensors(&p, &q));
    for (int i = 0; i < COUNT(bad); i++) {
        rename(in_folder("kept"), in_folder("model.safetensors"));
        write_shards(c, bad[i].as);
        rename(in_folder("model.safetensors"), in_folder("kept"));
        ttt_lm_read(c, folder, &e, &q, NULL);
        CHECK(told(c, bad[i].error) && q.n == 0 && e.width == 0);
    }
    remove(in_folder("kept"));
    ttt_close(c);
    remove_folder();
}

// What a text has in place of `from` is `to`.
static void replaced(char *text, size_t most, const char *from, const char *to) {
    char *at = strstr(text, from);
    CHECK(at && strlen(text) + strlen(to) < most);
    if (!at) return;
    memmove(at + strlen(to), at + strlen(from), strlen(at + strlen(from)) + 1);
    memcpy(at, to, strlen(to));
}
static void what_is_wrong_with_a_folder_is_named(void) {
    static const struct { const char *from, *to, *error; } bad[] = {
        { "\"hidden_size\": 12,", "", "'hidden_size' is missing" },
        { "\"hidden_size\": 12", "\"hidden_size\": \"12\"", "'hidden_size' is a string" },
        { "\"hidden_size\": 12", "\"hidden_size\": 12.5", "'hidden_size' is 12.5" },
        { "\"hidden_size\": 12", "\"hidden_size\": 13", "'hidden_size' 13 is not divisible" },
        { "\"hidden_size\": 12", "\"hidden_size\": 15", "has shape (11,12); config.json asks for" },
        { "\"vocab_size\": 11", "\"vocab_size\": 9999999", "config.json asks for at least" },
        { "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "model.layers.2." },
        { "\"vocab_size\": 11", "\"vocab_size\": 11, \"vocab_size\": 12", "occurs twice" },
        { "\"silu\"", "\"gelu\"", "'hidden_act' is 'gelu'" },
        { "\"linear\"", "\"cubic\"", "'ttt_layer_type' is 'cubic'" },
        { "\"ttt\"", "\"llama\"", "'model_type' is 'llama'" },
        { "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": -1", "'rms_norm_eps' is -1" },
        { "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": 0", "is a number" },
        { "\"pre_conv\": false", "\"pre_conv\": true", "no tensor 'model.layers.0.conv" },
        { "\"pre_conv\": false", "\"mixer\": {\"name\": \"none\"}", "'model_type' is 'ttt'" },
        { "{", "[", "config.json" },
    };
    make_folder();
    ttt_ctx *c = ttt_open(NULL);
    ttt_params p = { 0 }, q;
    ttt_lm_desc d = small("ttt-linear"), e;
    d.mixer.rotary = 100;
    d.mixer.token_index = true;
    make(c, &d, &p);
    ttt_lm_write(c, folder, &d, &p, NULL);
    size_t size;
    const char *config = ttt_file_read(c, in_folder("config.json"), &size);
    for (int i = 0; i < COUNT(bad); i++) {
        char text[2000];
        snprintf(text, sizeof text, "%s", config);
        replaced(text, sizeof text, bad[i].from, bad[i].to);
        write_file(in_folder("config.json"), text, strlen(text));
        ttt_lm_read(c, folder, &e, &q, NULL);
        CHECK(told(c, bad[i].error) && q.n == 0 && e.width == 0);
    }
    write_file(in_folder("config.json"), config, size);
    char *weights = ttt_file_read(c, in_folder("model.safetensors"), &size);
    write_file(in_folder("model.safetensors"), weights, size - 9);
    ttt_lm_read(c, folder, &e, &q, NULL);
    CHECK(told(c, "model.safetensors") && q.n == 0);
    remove(in_folder("model.safetensors"));
    ttt_lm_read(c, folder, &e, &q, NULL);
    CHECK(told(c, "neither model.safetensors nor"));
    remove(in_folder("config.json"));
    ttt_lm_read(c, folder, &e, &q, NULL);
    CHECK(told(c, "config.json"));
    ttt_close(c);
    remove_folder();
}
static void what_a_folder_has_too_much_is_told(void) {
    make_folder();
    ttt_ctx *c = ttt_open(NULL);
    ttt_params p = { 0 }, q;
    ttt_lm_desc d = small("ttt-linear"), e;
    ttt_lm_folder folder_told = { 0 };
    d.mixer.rotary = 100;
    d.mixer.token_index = true;
    make(c, &d, &p);
    ttt_lm_write(c, folder, &d, &p, NULL);
    char text[2000];
    snprintf(text, sizeof text, "%s", ttt_file_read(c, in_folder("config.json"), NULL));
    replaced(text, sizeof text, "\"tie_word_embeddings\": false",
             "\"zzz\": {\"a\": [1, null]}, \"use_cache\": false");
    write_file(in_folder("config.json"), text, strlen(text));
    CHECK(ttt_lm_read(c, folder, &e, &q, &folder_told) == TTT_OK && e.tied);
    CHECK(folder_told.n_left == 2 && folder_told.bos == -1 && folder_told.eos == -1);
    if (folder_told.n_left == 2) {
        CHECK(!strcmp(folder_told.left[0], "config.json: 'zzz'"));
        CHECK(!strcmp(folder_told.left[1], "model.safetensors: 'lm_head.weight'"));
    }
    d = small("ttt-linear");  // not the official kind: the mixer is an object of its own
    memset(&p, 0, sizeof p);
    make(c, &d, &p);
    ttt_lm_write(c, folder, &d, &p, NULL);
    snprintf(text, sizeof text, "%s", ttt_file_read(c, in_folder("config.json"), NULL));
    replaced(text, sizeof text, "\"name\":", "\"chnk\": 8, \"name\":");
    write_file(in_folder("config.json"), text, strlen(text));
    CHECK(ttt_lm_read(c, folder, &e, &q, &folder_told) == TTT_OK && folder_told.n_left == 1);
    CHECK(folder_told.n_left == 1 && !strcmp(folder_told.left[0], "config.json: 'chnk'"));
    ttt_close(c);
    remove_folder();
}

// ---- the released form --------------------------------------------------------------------------
// What the authors' JAX code saves, written here from the layout's own words, with the names and
// shapes of ttt/models/model.py and ttt_layer.py of ttt-lm-jax.
typedef struct {
    unsigned char *at;
    size_t n, most;
} bytes;
static void put(bytes *o, const void *from, size_t n) {
    CHECK(o->n + n <= o->most);
    if (o->n + n <= o->most) memcpy(o->at + o->n, from, n);
    o->n += n;
}
// The shortest head of msgpack, as its writers choose.
static void put_head(bytes *o, char kind, size_t n) {
    static const struct { char kind; int small, most, first[3]; } rows[] = {
        { 'u', 0x00, 127, { 0xcc, 0xcd, 0xce } }, { 'a', 0x90, 15, { 0, 0xdc, 0xdd } },
        { 's', 0xa0, 31, { 0xd9, 0xda, 0xdb } }, { 'b', 0, -1, { 0xc4, 0xc5, 0xc6 } },
        { 'x', 0, -1, { 0xc7, 0xc8, 0xc9 } },
    };
    int i = 0, wide = n > 0xffff ? 2 : n > 0xff;
    while (rows[i].kind != kind) i++;
    unsigned char b[7] = { (unsigned char)(rows[i].small + (int)n) };
    size_t length = 1;
    if (kind == 'x' && n == 16) b[0] = 0xd8;
    else if ((long)n > rows[i].most) {
        b[0] = (unsigned char)rows[i].first[wide];
        for (int k = (1 << wide) - 1; k >= 0; k--) b[length++] = (unsigned char)(n >> 8 * k);
    }
    if (kind == 'x') b[length++] = 1;
    put(o, b, length);
}
static void put_text(bytes *o, const char *text, size_t n) {
    put_head(o, 's', n);
    put(o, text, n);
}
// An item: the parts of its path end at points.
static void put_array(bytes *o, const char *prefix, const char *path, ttt_shape shape,
                      const char *type, const void *elements, size_t n) {
    static unsigned char room[2][40000];
    bytes array = { room[0], 0, sizeof room[0] }, outer = { room[1], 0, sizeof room[1] };
    char all[200];
    size_t parts = 1;
    put_head(&array, 'a', 3);
    put_head(&array, 'a', (size_t)shape.rank);
    for (int i = 0; i < shape.rank; i++) put_head(&array, 'u', (size_t)shape.dim[i]);
    put_text(&array, type, strlen(type));
    put_head(&array, 'b', n);
    put(&array, elements, n);
    put_head(&outer, 'x', array.n);
    put(&outer, array.at, array.n);
    snprintf(all, sizeof all, "%s%s", prefix, path);
    for (const char *at = all; *at; at++) parts += *at == '.';
    put_head(o, 'a', 2);
    put_head(o, 'a', parts);
    for (const char *at = all, *end; parts-- > 0; at = end + 1) {
        for (end = at; *end && *end != '.';) end++;
        put_text(o, at, (size_t)(end - at));
    }
    put_head(o, 'b', outer.n);
    put(o, outer.at, outer.n);
}

// Names of ours and theirs; the axis of length 1 that theirs have more, and what is turned.
static const struct { const char *ours, *theirs; int one; bool turned; } released[] = {
    { "model/embed_tokens/embedding", "model.wte.embedding", 0, false },
    { "model/norm/scale", "model.ln_f.kernel", 0, false },
    { "lm_head/embedding", "lm_head.kernel", 0, true },
    { "conv/norm/scale", "conv.conv_norm.kernel", 0, false },
    { "conv/conv/kernel", "conv.conv1.kernel", 1, false },
    { "conv/conv/bias", "conv.conv1.bias", 0, false },
    { "seq_norm/scale", "seq_norm.kernel", 0, false },
    { "seq_modeling_block/q_proj/kernel", "seq_modeling_block.wq.kernel", 0, false },
    { "seq_modeling_block/k_proj/kernel", "seq_modeling_block.wk.kernel", 0, false },
    { "seq_modeling_block/v_proj/kernel", "seq_modeling_block.wv.kernel", 0, false },
    { "seq_modeling_block/o_proj/kernel", "seq_modeling_block.wo.kernel", 0, false },
    { "seq_modeling_block/g_proj/kernel", "seq_modeling_block.wg.kernel", 0, false },
    { "seq_modeling_block/learnable_ttt_lr/kernel",
      "seq_modeling_block.learnable_ttt_lr/kernel", 2, true },
    { "seq_modeling_block/learnable_ttt_lr/bias",
      "seq_modeling_block.learnable_ttt_lr/bias", 1, false },
    { "seq_modeling_block/ttt_norm/scale", "seq_modeling_block.ttt_norm/scale", 0, false },
    { "seq_modeling_block/ttt_norm/bias", "seq_modeling_block.ttt_norm/bias", 0, false },
    { "seq_modeling_block/post_norm/scale", "seq_modeling_block.post_norm.scale", 0, false },
    { "seq_modeling_block/post_norm/bias", "seq_modeling_block.post_norm.bias", 0, false },
    { "seq_modeling_block/token_index", "seq_modeling_block.learnable_token_idx", 0, false },
    { "seq_modeling_block/conv_q/kernel", "seq_modeling_block.conv_q.kernel", 1, false },
    { "seq_modeling_block/conv_q/bias", "seq_modeling_block.conv_q.bias", 0, false },
    { "seq_modeling_block/conv_k/kernel", "seq_modeling_block.conv_k.kernel", 1, false },
    { "seq_modeling_block/conv_k/bias", "seq_modeling_block.conv_k.bias", 0, false },
    { "seq_modeling_block/inner_Dense_0/kernel", "seq_modeling_block.ttt_dense_0", 0, false },
    { "seq_modeling_block/inner_Dense_0/bias", "seq_modeling_block.ttt_bias_0", 1, false },
    { "seq_modeling_block/inner_Dense_1/kernel", "seq_modeling_block.ttt_dense_1", 0, false },
    { "seq_modeling_block/inner_Dense_1/bias", "seq_modeling_block.ttt_bias_1", 1, false },
    { "ffn_norm/scale", "ffn_norm.kernel", 0, false },
    { "mlp/gate_proj/kernel", "feed_forward.w1.kernel", 0, false },
    { "mlp/up_proj/kernel", "feed_forward.w3.kernel", 0, false },
    { "mlp/down_proj/kernel", "feed_forward.w2.kernel", 0, false },
};
// A parameter under their name and in their shape, of `real` or in 16 bits.
static void put_released(bytes *o, const char *prefix, const char *name, const ttt_tensor *w,
                         bool bf16) {
    static ttt_real turned[4000];
    static uint16_t halves[4000];
    const char *type = bf16 ? "bfloat16" : sizeof(ttt_real) == 8 ? "float64" : "float32";
    char path[200], block[20] = "";
    int i = 0, layer = 0;
    if (sscanf(name, "model/layers/%d/", &layer) == 1) {
        name = strchr(name + strlen("model/layers/"), '/') + 1;
        snprintf(block, sizeof block, "model.h.%d.", layer);
    }
    while (i < COUNT(released) && strcmp(released[i].ours, name) != 0) i++;
    CHECK(i < COUNT(released) && w->size <= COUNT(turned));
    if (i == COUNT(released)) return;
    ttt_shape shape = w->shape;
    memcpy(turned, w->data, (size_t)w->size * sizeof *turned);
    if (released[i].turned) {
        shape = TTT_SHAPE(w->shape.dim[1], w->shape.dim[0]);
        for (int64_t a = 0; a < shape.dim[0]; a++)
            for (int64_t b = 0; b < shape.dim[1]; b++)
                turned[a * shape.dim[1] + b] = w->data[b * shape.dim[0] + a];
    }
    if (released[i].one) {
        for (int k = shape.rank++; k > released[i].one; k--) shape.dim[k] = shape.dim[k - 1];
        shape.dim[released[i].one] = 1;
    }
    for (int64_t k = 0; k < w->size; k++) {
        float f = (float)turned[k];
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        halves[k] = (uint16_t)(bits >> 16);
    }
    snprintf(path, sizeof path, "%s%s", block, released[i].theirs);
    put_array(o, prefix, path, shape, type, bf16 ? (void *)halves : (void *)turned,
              (size_t)w->size * (bf16 ? 2 : sizeof *turned));
}
static void write_released_config(const char *layer) {
    char text[900];
    int n = snprintf(text, sizeof text,
                     "{\"vocab_size\": 11, \"num_hidden_layers\": 2, \"hidden_size\": 4, "
                     "\"num_attention_heads\": 2, \"intermediate_size\": 5, \"pre_conv\": true, "
                     "\"max_sequence_length\": 64, \"initializer_range\": 0.02, \"rms_norm_eps\": "
                     "1e-6, \"use_cache\": true, \"tie_word_embeddings\": false, "
                     "\"conv_width\": 3, \"seq_modeling_block\": \"%s\", \"ttt_base_lr\": 1.0, "
                     "\"ttt_base_lr_init\": -1.0, \"ttt_base_lr_warmup\": -1, "
                     "\"mini_batch_size\": 4, \"remat_mini_batch_group_size\": 4, "
                     "\"rope_theta\": 10000.0}", layer);
    write_file(in_folder("config.json"), text, (size_t)n);
}
static bytes released_bytes(const ttt_params *p, const char *prefix, bool bf16) {
    static unsigned char room[60000];
    bytes o = { room, 0, sizeof room };
    for (int i = 0; i < p->n; i++)
        put_released(&o, prefix, p->item[i].name, p->value[i], bf16);
    return o;
}
static void write_bytes(const char *name, bytes o) {
    write_file(in_folder(name), (const char *)o.at, o.n);
}

static void what_the_authors_released_is_read(void) {
    static const char *const layers[] = { "ttt_linear", "ttt_mlp", "ttt_linear_base",
                                          "ttt_mlp_base" };
    make_folder();
    for (int i = 0; i < COUNT(layers); i++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt_lm_desc d, e;
        ttt_params p = { 0 }, q;
        ttt_lm_folder about = { 0 };
        ttt_real step = 7;
        write_released_config(layers[i]);
        CHECK(ttt_lm_config_read(c, in_folder("config.json"), &d, NULL) == TTT_OK);
        CHECK(d.mixer.share_qk == (i < 2) && d.mixer.output_gate == (i < 2) && d.conv == 3);
        CHECK(d.mixer.mixer == (i % 2 ? &ttt_mixer_ttt_mlp : &ttt_mixer_ttt_linear));
        make(c, &d, &p);
        // with what training needs
        bytes o = released_bytes(&p, "params.params.", false);
        put(&o, "\x92\x91\xa4step\xc4\x01\x07", 10);
        put_array(&o, "", "opt_state.0.mu", TTT_SHAPE(1), "float32", &step, 4);
        write_bytes("streaming_train_state", o);
        CHECK(ttt_lm_read(c, folder, &e, &q, &about) == TTT_OK && about.n_left == 0);
        CHECK(same_desc(&d, &e) && same_tensors(&p, &q));
        // parameters alone
        write_bytes("streaming_params", released_bytes(&p, "", false));
        CHECK(ttt_lm_read(c, folder, &e, &q, &about) == TTT_OK && about.n_left == 0);
        CHECK(same_desc(&d, &e) && same_tensors(&p, &q));
        // in 16 bits
        write_bytes("streaming_params", released_bytes(&p, "", true));
        CHECK(ttt_lm_read(c, folder, &e, &q, NULL) == TTT_OK && q.n == p.n);
        for (int k = 0; k < q.n; k++)
            for (int64_t j = 0; j < q.value[k]->size; j++) {
                float f = (float)p.value[k]->data[j];
                uint32_t bits;
                memcpy(&bits, &f, sizeof bits);
                bits &= 0xffff0000u;
                memcpy(&f, &bits, sizeof f);
                if (q.value[k]->data[j] != REAL(f)) CHECK(!"16 bits");
            }
        if (!ttt_ok(c)) printf("  %s: %s\n", layers[i], ttt_error(c));
        ttt_close(c);
        remove_folder();
        make_folder();
    }
    remove_folder();
}

// Flax keeps an array above 1 GB in chunks. Here in three: 8, 5 and 7 numbers of (5,4).
static void arrays_in_chunks_are_one(void) {
    static unsigned char room[3][2000];
    static const size_t ends[] = { 8, 13, 20 };
    static const char shape[] = "\xa5shape\x82\xa1" "0\x05\xa1" "1\x04\xa6" "chunks\x83";
    bytes o = { room[0], 0, sizeof room[0] }, map = { room[1], 0, sizeof room[1] };
    float x[20];
    for (int i = 0; i < 20; i++) x[i] = (float)i + 0.5f;
    put(&map, "\x83\xb9__msgpack_chunked_array__\xc3", 28);
    put(&map, shape, sizeof shape - 1);
    for (size_t i = 0, at = 0; i < 3; at = ends[i++]) {
        bytes part = { room[2], 0, sizeof room[2] };
        size_t n = ends[i] - at;
        char key[2] = { (char)('0' + i), 0 };
        put(&part, "\x93\x91", 2);
        put_head(&part, 'u', n);
        put_text(&part, "float32", 7);
        put_head(&part, 'b', n * sizeof *x);
        put(&part, x + at, n * sizeof *x);
        put_text(&map, key, 1);
        put_head(&map, 'x', part.n);
        put(&map, part.at, part.n);
    }
    put(&o, "\x92\x91\xa1x", 4);
    put_head(&o, 'b', map.n);
    put(&o, map.at, map.n);
    make_folder();
    ttt_ctx *c = ttt_open(NULL);
    ttt_bundle all;
    write_bytes("streaming_params", o);
    ttt__flax_open(c, in_folder("streaming_params"), "", &all);
    CHECK(ttt_ok(c) && ttt_shape_equal(ttt_bundle_shape(&all, 0), TTT_SHAPE(5, 4)));
    for (int begin = 0; begin < 5; begin++)
        for (int n = 1; begin + n <= 5 && ttt_ok(c); n++) {
            ttt_tensor *rows = ttt_bundle_rows(&all, 0, begin, n);
            CHECK(rows && rows->size == 4 * n);
            for (int i = 0; rows && i < 4 * n; i++) CHECK(rows->data[i] == REAL(x[4 * begin + i]));
        }
    for (size_t n = 1; n < o.n; n++) {
        bytes cut = { o.at, n, n };
        write_bytes("streaming_params", cut);
        CHECK(ttt__flax_open(c, in_folder("streaming_params"), "", &all) != TTT_OK);
        CHECK(all.n_tensors == 0);
        ttt_clear(c);
    }
    for (size_t i = 0; i < o.n; i++) {  // one bit of each byte is another
        unsigned char bit = (unsigned char)(1 << i % 8);
        o.at[i] ^= bit;
        write_bytes("streaming_params", o);
        if (ttt__flax_open(c, in_folder("streaming_params"), "", &all) == TTT_OK)
            CHECK(ttt_bundle_at(&all, 0));
        o.at[i] ^= bit;
        ttt_clear(c);
    }
    ttt_close(c);
    remove_folder();
}

static void what_is_wrong_with_what_was_released_is_named(void) {
    static const struct { const char *from, *to; size_t n; const char *error; } bad[] = {
        { "wq", "wz", 2, "no tensor 'model/h/0/seq_modeling_block/wq/kernel'" },
        { "ln_f\xa6kernel\xc4", "ln_f\xa6kernel\xc0", 12, "type 0xc0; the bytes" },
        { "\x93\x91\x04", "\x93\x91\x05", 3, "shape (5) of elements" },
        { "\x93\x91\x04", "\x93\x90\x04", 3, "type 0x04; the name of a type expected" },
        { "\x93\x91\x04", "\x92\x91\x04", 3, "an array of another length" },
        { "float", "flout", 5, ": type flout" },
        { "\x93\x92\x0b\x04", "\x93\x92\x04\x0b", 4, "'model/wte/embedding' has shape (4,11)" },
        { "conv_q\xa6kernel", "conv_k\xa6kernel", 13, "occurs twice" },
        { "\x92\x93\xa5model\xa3wte", "\x93\x93\xa5model\xa3wte", 12, "byte 0: an array of" },
        { "\x92\x93\xa5model\xa3wte", "\x92\x83\xa5model\xa3wte", 12, "byte 1: type 0x83" },
        { "\x92\x93\xa5model\xa3wte", "\x92\x93\xa5mo\0el\xa3wte", 12, "byte 2: a string with" },
    };
    make_folder();
    ttt_ctx *c = ttt_open(NULL);
    ttt_lm_desc d, e;
    ttt_params p = { 0 }, q;
    ttt_lm_folder about = { 0 };
    write_released_config("ttt_linear");
    ttt_lm_config_read(c, in_folder("config.json"), &d, NULL);
    make(c, &d, &p);
    for (int i = 0; i < COUNT(bad); i++) {
        bytes o = released_bytes(&p, "", false);
        size_t at = 0;
        while (at + bad[i].n < o.n && memcmp(o.at + at, bad[i].from, bad[i].n) != 0) at++;
        CHECK(at + bad[i].n < o.n);
        memcpy(o.at + at, bad[i].to, bad[i].n);
        write_bytes("streaming_params", o);
        ttt_lm_read(c, folder, &e, &q, NULL);
        CHECK(told(c, bad[i].error) && q.n == 0 && e.width == 0);
    }
    bytes o = released_bytes(&p, "", false);
    put_array(&o, "", "model.h.0.zzz", TTT_SHAPE(1), "float32", "1234", 4);
    write_bytes("streaming_params", o);
    CHECK(ttt_lm_read(c, folder, &e, &q, &about) == TTT_OK && about.n_left == 1);
    CHECK(about.n_left == 1 && !strcmp(about.left[0], "streaming_params: 'model/h/0/zzz'"));
    put(&o, "\x92\x91\xa1y\xc4\x01\x80", 7);  // flax would begin chunks with a map
    write_bytes("streaming_params", o);
    ttt_lm_read(c, folder, &e, &q, &about);
    CHECK(told(c, "a map of another length; an array of flax in chunks expected"));
    write_released_config("self_attention");
    ttt_lm_read(c, folder, &e, &q, &about);
    CHECK(told(c, "'seq_modeling_block' is 'self_attention'"));
    ttt_close(c);
    remove_folder();
}
static void what_was_released_is_read_whole_or_not_at_all(void) {
    make_folder();
    ttt_ctx *c = ttt_open(NULL);
    ttt_lm_desc d, e;
    ttt_params p = { 0 }, q;
    write_released_config("ttt_linear");
    ttt_lm_config_read(c, in_folder("config.json"), &d, NULL);
    make(c, &d, &p);
    bytes o = released_bytes(&p, "", true);
    ttt_mark mark = ttt_mark_get(c);
    ttt_bundle all;
    int whole = 0;
    // cut at each byte, of which only the ends of items end a stream
    for (size_t n = 0; n < o.n; n++) {
        bytes cut = { o.at, n, n };
        write_bytes("streaming_params", cut);
        ttt__flax_open(c, in_folder("streaming_params"), "", &all);
        whole += ttt_ok(c);
        CHECK(ttt_ok(c) || (all.n_tensors == 0 && strstr(ttt_error(c), "end")) ||
              strstr(ttt_error(c), "bytes follow"));
        ttt_clear(c);
        if (n % 16 == 0) {
            ttt_lm_read(c, folder, &e, &q, NULL);
            CHECK(!ttt_ok(c) && q.n == 0 && e.width == 0);
            ttt_clear(c);
        }
        ttt_mark_release(c, mark);
    }
    CHECK(whole == p.n);
    // with a byte that is another: read or refused
    ttt_rng r = ttt_rng_at(9, 0, 0, 0);
    for (int i = 0; i < 1000; i++) {
        unsigned char *at = o.at + ttt_rng_below(&r, (int64_t)o.n), was = *at;
        *at = (unsigned char)ttt_rng_below(&r, 256);
        write_bytes("streaming_params", o);
        ttt_lm_read(c, folder, &e, &q, NULL);
        CHECK(ttt_ok(c) == (q.n > 0) && ttt_ok(c) == (e.width > 0));
        ttt_clear(c);
        ttt_mark_release(c, mark);
        *at = was;
    }
    ttt_close(c);
    remove_folder();
}

// ---- streams ------------------------------------------------------------------------------------
// Mixers that read streams, and whether each way to cut gives the same bits.
static bool streams(const ttt_mixer *mixer) { return mixer->flags & TTT_MIXER_STREAMS; }
static bool by_bits(const ttt_mixer *mixer) {
    static const char *const names[] = { "ttt-linear", "ttt-mlp", "linear-attention",
                                         "self-attention" };
    for (int i = 0; i < COUNT(names); i++)
        if (strcmp(mixer->name, names[i]) == 0) return true;
    return false;
}
static bool alike(const ttt_mixer *mixer, const ttt_real *a, const ttt_real *b, int64_t n) {
    double most = 0, far_off = 0;
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)b[i]));
        far_off = ttt_test_worse(far_off, fabs((double)a[i] - (double)b[i]));
    }
    return by_bits(mixer) ? !memcmp(a, b, (size_t)n * sizeof *a) : far_off <= 1e-5 * most;
}
static ttt_lm_desc streaming(const ttt_mixer *mixer) {
    ttt_lm_desc d = small(mixer->name);
    d.pre_conv = true;
    if (mixer == &ttt_mixer_ttt_linear || mixer == &ttt_mixer_ttt_mlp) {
        d.mixer.rotary = 100;
        d.mixer.token_index = d.mixer.share_qk = d.mixer.output_gate = true;
        d.mixer.inner_lr = REAL(0.3);
    }
    return d;
}
static void however_a_text_is_cut_the_model_says_the_same(void) {
    enum { L = 13 };
    static const int64_t cuts[][6] = { { 13 }, { 1, 1, 1, 1, 1, 8 }, { 5, 7, 1 }, { 4, 4, 4, 1 } };
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *mixer = ttt_mixer_at(i);
        if (!streams(mixer)) continue;
        ttt_ctx *c = ttt_open(NULL);
        ttt_lm_desc d = streaming(mixer);
        ttt_params p = { 0 };
        ttt_weights w = make(c, &d, &p);
        ttt_tensor *tokens = some_tokens(c, 1, L);
        ttt_tensor *y = ttt_lm_forward(c, &d, w, tokens, NULL);
        for (int k = 0; k < COUNT(cuts); k++) {
            ttt_stream stream = { 0 };
            int64_t at = 0;
            for (int j = 0; at < L && ttt_ok(c); j++) {
                int64_t n = cuts[k][j];
                ttt_tensor *part = ttt_from_int(c, TTT_SHAPE(1, n), tokens->index + at);
                bool last = j % 2;
                ttt_tensor *z = ttt_lm_stream(c, &d, w, &stream, part, NULL, last);
                ttt_real *want = y->data + (at + (last ? n - 1 : 0)) * VOCAB;
                bool good = ttt_ok(c) && z->size == (last ? 1 : n) * VOCAB &&
                            alike(mixer, z->data, want, z->size);
                if (!good) printf("  %s, cut %d: %s\n", mixer->name, k, ttt_error(c));
                CHECK(good);
                at += n;
            }
            CHECK(stream.read && stream.read->index[0] == L);
        }
        ttt_close(c);
    }
}
static void lanes_are_as_if_they_were_alone(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_lm_desc d = streaming(&ttt_mixer_ttt_mlp);
    ttt_params p = { 0 };
    ttt_weights w = make(c, &d, &p);
    ttt_tensor *tokens = some_tokens(c, 3, 6);
    const int64_t counts[3] = { 6, 0, 3 };
    ttt_stream all = { 0 }, alone = { 0 };
    ttt_lm_stream(c, &d, w, &all, tokens, NULL, true);
    tokens->index[17] = 9999;  // of lane 2, behind what counts
    ttt_tensor *y = ttt_lm_stream(c, &d, w, &all, tokens, counts, false),
               *z = ttt_lm_stream(c, &d, w, &all, tokens, (int64_t[]){ 0, 2, 1 }, true);
    tokens->index[17] = 0;
    CHECK(ttt_ok(c) && all.read->index[0] == 12 && all.read->index[2] == 10);
    for (int64_t i = 0; i < 6 * VOCAB; i++) CHECK(y->data[6 * VOCAB + i] == 0);
    for (int64_t i = 0; i < VOCAB; i++) CHECK(z->data[i] == 0);
    ttt_tensor *third = ttt_from_int(c, TTT_SHAPE(1, 6), (int64_t[]){ 0, 1, 2, 3, 4, 5 });
    memcpy(third->index, some_tokens(c, 3, 6)->index + 12, 6 * sizeof(int64_t));
    ttt_lm_stream(c, &d, w, &alone, third, NULL, true);
    ttt_tensor *part = ttt_from_int(c, TTT_SHAPE(1, 3), third->index);
    ttt_tensor *x = ttt_lm_stream(c, &d, w, &alone, part, NULL, false);
    CHECK(ttt_ok(c) && !memcmp(x->data, y->data + 12 * VOCAB, 3 * VOCAB * sizeof *x->data));
    part = ttt_from_int(c, TTT_SHAPE(1, 1), third->index);
    x = ttt_lm_stream(c, &d, w, &alone, part, NULL, true);
    CHECK(ttt_ok(c) && !memcmp(x->data, z->data + 2 * VOCAB, VOCAB * sizeof *x->data));
    ttt_close(c);
}
static void a_state_is_a_file_of_its_own_model(void) {
    char path[60];
    snprintf(path, sizeof path, "test_language.%ld.state", (long)getpid());
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *mixer = ttt_mixer_at(i);
        if (!streams(mixer)) continue;
        ttt_ctx *c = ttt_open(NULL);
        ttt_lm_desc d = streaming(mixer);
        ttt_params p = { 0 };
        ttt_weights w = make(c, &d, &p);
        ttt_stream stream = { 0 }, again = { 0 }, fork = { 0 };
        ttt_tensor *tokens = some_tokens(c, 2, 7);
        ttt_lm_stream(c, &d, w, &stream, tokens, NULL, true);
        const char *owner = ttt_lm_fingerprint(c, &d, w);
        ttt_stream_copy(c, &fork, &stream);
        CHECK(ttt_stream_save(c, path, &stream, owner) == TTT_OK);
        CHECK(ttt_stream_load(c, path, &again, owner) == TTT_OK);
        ttt_tensor *x = ttt_lm_stream(c, &d, w, &stream, tokens, NULL, false),
                   *y = ttt_lm_stream(c, &d, w, &again, tokens, NULL, false),
                   *z = ttt_lm_stream(c, &d, w, &fork, tokens, NULL, false);
        CHECK(ttt_ok(c) && same_bits(x, y) && same_bits(x, z));
        ttt_tensor *const where = again.read;  // loaded once more it takes no new memory
        CHECK(ttt_stream_load(c, path, &again, owner) == TTT_OK && again.read == where);
        y = ttt_lm_stream(c, &d, w, &again, tokens, NULL, false);
        CHECK(ttt_ok(c) && same_bits(x, y));
        w.at[2]->data[0] += 1;
        const char *other = ttt_lm_fingerprint(c, &d, w);
        CHECK(ttt_ok(c) && strcmp(other, owner) != 0);
        ttt_stream_load(c, path, &again, other);
        CHECK(told(c, "the state of another model") && again.read->index[0] == 14);
        ttt_close(c);
    }
    remove(path);
}
static void a_call_that_fails_leaves_the_stream_as_it_was(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_lm_desc d = streaming(&ttt_mixer_ttt_linear);
    ttt_params p = { 0 };
    ttt_weights w = make(c, &d, &p);
    ttt_stream stream = { 0 }, other = { 0 };
    ttt_tensor *tokens = some_tokens(c, 2, 7);
    ttt_lm_stream(c, &d, w, &stream, ttt_from_int(c, TTT_SHAPE(1, 1), (int64_t[]){ 99 }), NULL, 1);
    CHECK(told(c, "lm: token 99 at place 0 of sequence 0") && stream.lanes == 0);
    ttt_lm_stream(c, &d, w, &stream, some_tokens(c, 1, 0), NULL, true);
    CHECK(told(c, "foretell from nothing"));
    ttt_lm_stream(c, &d, w, &stream, tokens, NULL, true);
    ttt_lm_stream(c, &d, w, &other, tokens, NULL, true);
    ttt_lm_stream(c, &d, w, &stream, some_tokens(c, 3, 7), NULL, true);
    CHECK(told(c, "the stream has 2 lanes"));
    ttt_lm_stream(c, &d, w, &stream, tokens, (int64_t[]){ 8, 1 }, true);
    CHECK(told(c, "lane 0 has 8 new tokens"));
    ttt_tensor *x = ttt_lm_stream(c, &d, w, &stream, tokens, NULL, true),
               *y = ttt_lm_stream(c, &d, w, &other, tokens, NULL, true);
    CHECK(ttt_ok(c) && same_bits(x, y));
    ttt_close(c);
}

// ---- generation ---------------------------------------------------------------------------------
static void tokens_are_drawn_as_often_as_their_odds_say(void) {
    ttt_ctx *c = ttt_open(NULL);
    const ttt_real logits[5] = { 1, 3, REAL(2.5), -INFINITY, 0 };
    static const struct { ttt_choice choice; double p[5]; } all[] = {
        { { 1, 0, 0, 0 }, { 0.075416, 0.557246, 0.337993, 0, 0.027744 } },
        { { 2, 0, 0, 0 }, { 0.171088, 0.465065, 0.362191, 0, 0.103770 } },
        { { 1, 2, 0, 0 }, { 0, 0.622459, 0.377541, 0, 0 } },
        { { 1, 0, REAL(0.5), 0 }, { 0, 1, 0, 0, 0 } },
        { { 1, 0, REAL(0.9), 0 }, { 0.077696, 0.574094, 0.348209, 0, 0 } },
        { { 0, 0, 0, 0 }, { 0, 1, 0, 0, 0 } },
        { { 0, 0, 0, 3 }, { 0, 0, 1, 0, 0 } },
    };
    enum { N = 40000 };
    for (int i = 0; i < COUNT(all); i++) {
        ttt_rng rng = ttt_rng_at(5, 0, 0, 0);
        const int64_t seen[3] = { 1, 1, 77 };
        double p[5] = { 0 };
        for (int k = 0; k < N; k++) {
            int64_t t = ttt_choose(c, &all[i].choice, &rng, logits, 5, seen, 3);
            if (t >= 0) p[t] += 1. / N;
        }
        double sum = 0;
        for (int t = 0; t < 5; t++) sum += all[i].p[t];
        for (int t = 0; t < 5; t++) CHECK(fabs(p[t] - all[i].p[t] / sum) < 0.012);
    }
    ttt_rng rng = ttt_rng_at(5, 0, 0, 0);
    const ttt_choice odd = { -1, 0, 0, 0 };
    CHECK(ttt_choose(c, &odd, &rng, logits, 5, NULL, 0) == -1 && told(c, ".temperature -1"));
    const ttt_real broken[2] = { 0, NAN };
    CHECK(ttt_choose(c, &all[0].choice, &rng, broken, 2, NULL, 0) == -1);
    CHECK(told(c, "the logit of token 1"));
    ttt_close(c);
}

typedef struct {
    char text[4000];
    size_t n, most;
    bool broken;  // a piece was not whole UTF-8
} heard;
static bool hear(void *user, const char *text, size_t n) {
    heard *h = (heard *)user;
    for (size_t i = 0, k; i < n; i += k) {
        k = (size_t)ttt__utf8(text + i, text + n);
        if (k == 0) h->broken = true;
        if (k == 0) break;
    }
    if (h->n + n < sizeof h->text) memcpy(h->text + h->n, text, n);
    h->n += n;
    h->text[h->n] = 0;
    return h->n < h->most;
}
static void text_is_generated_in_whole_characters(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_lm_desc d = streaming(&ttt_mixer_ttt_linear);
    ttt_params p = { 0 };
    d.vocab = 256;
    ttt_weights w = make(c, &d, &p);
    const ttt_tokenizer *bytes = ttt_tokenizer_bytes(c);
    heard h = { .most = 9999 }, again = { .most = 9999 }, cut = { .most = 9999 };
    ttt_generate_desc how = { .tokens = 200, .seed = 4, .piece = hear, .user = &h,
                              .choice = { .temperature = 1 } };
    ttt_stream stream = { 0 }, other = { 0 };
    ttt_generated count;
    CHECK(ttt_generate(c, &d, w, bytes, &stream, "to be", 5, &how, &count) == TTT_OK);
    CHECK(count.read == 5 && count.made == 200 && !count.ended && h.n > 0 && !h.broken);
    CHECK(stream.read->index[0] == 205);
    // the same again; and up to where a text that stands in it stops it
    how.user = &again;
    CHECK(ttt_generate(c, &d, w, bytes, &other, "to be", 5, &how, NULL) == TTT_OK);
    CHECK(h.n == again.n && !memcmp(h.text, again.text, h.n));
    char stop[8] = { 0 };
    size_t from = h.n / 2;
    while (from + 6 < h.n && strlen(h.text + from) < 6) from++;
    memcpy(stop, h.text + from, 6);
    for (from = 0; memcmp(h.text + from, stop, 6) != 0;) from++;  // where it stands first
    const char *stops[2] = { "never", stop };
    memset(&other, 0, sizeof other);
    how.user = &cut;
    how.stops = stops;
    how.n_stops = 2;
    CHECK(ttt_generate(c, &d, w, bytes, &other, "to be", 5, &how, &count) == TTT_OK);
    CHECK(count.ended && cut.n == from && !memcmp(h.text, cut.text, cut.n));
    // the first byte may be no character yet
    ttt_generate_desc one = { .tokens = 1, .choice = { .temperature = 1 } };
    for (one.seed = 0; one.seed < 8; one.seed++) {
        ttt_stream fresh = { 0 };
        CHECK(ttt_generate(c, &d, w, bytes, &fresh, "x", 1, &one, &count) == TTT_OK);
        CHECK(count.made == 1 && fresh.read->index[0] == 2);
    }
    // a prompt goes on behind what was read
    how.n_stops = 0;
    how.ends = (int64_t[]){ -5 };
    how.n_ends = 1;
    CHECK(ttt_generate(c, &d, w, bytes, &other, "x", 1, &how, &count) == TTT_OK);
    CHECK(count.read == 1 && !count.ended);
    cut.most = 1;
    CHECK(ttt_generate(c, &d, w, bytes, &other, "x", 1, &how, &count) == TTT_OK && count.ended);
    ttt_generate(c, &d, w, bytes, &other, "", 0, &how, &count);
    CHECK(told(c, "the prompt is empty"));
    how.tokens = 0;
    ttt_generate(c, &d, w, bytes, &other, "x", 1, &how, &count);
    CHECK(told(c, "generate: .tokens is 0"));
    ttt_close(c);
}
static void tokens_that_the_tokenizer_lacks_say_nothing(void) {
    static const char json[] = "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 5}, "
                               "\"merges\": []}, \"decoder\": {\"type\": \"Fuse\"}}";
    ttt_ctx *c = ttt_open(NULL);
    ttt_lm_desc d = streaming(&ttt_mixer_ttt_linear);  // VOCAB tokens: 1 to 4 are holes here
    ttt_params p = { 0 };
    ttt_weights w = make(c, &d, &p);
    const ttt_tokenizer *tokenizer = ttt_tokenizer_parse(c, NULL, json, strlen(json));
    heard h = { .most = 9999 };
    ttt_generate_desc how = { .tokens = 60, .choice = { .temperature = 1 }, .piece = hear,
                              .user = &h };
    ttt_stream stream = { 0 };
    ttt_generated count;
    CHECK(ttt_generate(c, &d, w, tokenizer, &stream, "ab", 2, &how, &count) == TTT_OK);
    if (!ttt_ok(c)) printf("  %s\n", ttt_error(c));
    CHECK(count.made == 60 && stream.read->index[0] == 62);
    CHECK(h.n > 0 && strspn(h.text, "ab") == h.n);
    ttt_close(c);
}

// ---- memory that runs out -----------------------------------------------------------------------
// From now on allocation n fails, if n > 0.
static void fail_at(long n, bool on) {
    mallocs = 0;
    fails_at = n;
    fails_on = on;
}
// Leaves so many bytes in one of the context's arenas; whoever needs more must ask for memory.
enum { ARENAS = 3 };
static void fill(ttt_ctx *c, int which, size_t left) {
    ttt__arena *arena = which == 0 ? &c->step : which == 1 ? &c->keep : &c->scratch;
    size_t rest = arena->current ? arena->current->size - arena->used : 0;
    if (rest > left) ttt__arena_alloc(c, arena, rest - left);
}
// Whether the call before lacked memory; then there is some again.
static bool lacked(ttt_ctx *c) {
    bool lacks = ttt_status(c) == TTT_ERR_NO_MEMORY;
    CHECK(lacks || ttt_ok(c));
    CHECK(!lacks || fails_at);
    if (lacks) fails_at = 0;
    if (lacks) ttt_clear(c);
    return lacks;
}
static void a_folder_read_without_memory_is_not_half_there(void) {
    make_folder();
    ttt_ctx *c = ttt_open(NULL);
    ttt_lm_desc d, e;
    ttt_params p = { 0 }, q;
    write_released_config("ttt_mlp");
    ttt_lm_config_read(c, in_folder("config.json"), &d, NULL);
    make(c, &d, &p);
    for (int form = 0; form < 2; form++) {
        int failures = 0;
        if (form == 0) write_bytes("streaming_params", released_bytes(&p, "", false));
        else CHECK(ttt_lm_write(c, folder, &d, &p, NULL) == TTT_OK);
        for (int k = 0; k < 220; k++) {
            ttt_ctx *other = ttt_open(NULL);
            ttt_lm_folder about = { .bf16 = k % 2 };
            if (k < 16) fail_at(k / 2 + 1, k % 4 > 1);
            else {
                ttt_lm_read(other, folder, &e, &q, NULL);  // so that there are arenas
                fill(other, k % ARENAS, (size_t)(k - 16) / ARENAS * 192);
                fail_at(1, false);
            }
            ttt_lm_read(other, folder, &e, &q, &about);
            if (lacked(other)) {
                CHECK(q.n == 0 && q.item == NULL && e.width == 0 && e.mixer.mixer == NULL);
                failures++;
            }
            fail_at(0, false);
            CHECK(ttt_lm_read(other, folder, &e, &q, NULL) == TTT_OK);
            CHECK(same_desc(&d, &e) && same_tensors(&p, &q));
            ttt_close(other);
        }
        CHECK(failures > 60);
    }
    ttt_close(c);
    remove_folder();
}

// Three calls of a stream, each made again if it had no memory: at allocation n or, if `left` is
// not below 0, where one of the arenas needs more bytes. A hash of what they say.
static uint64_t stubborn_stream(const ttt_lm_desc *d, long n, bool on, long left, int *errors) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_params p = { 0 };
    ttt_weights w = make(c, d, &p);
    ttt_stream stream = { 0 };
    uint64_t h = 1;
    *errors = 0;
    ttt_tensor *tokens = some_tokens(c, 2, 9);
    fail_at(n, on);
    for (int k = 0; k < 3; k++) {
        ttt_tensor *y;
        int64_t lanes = stream.lanes;
        if (left >= 0) fill(c, (int)(n % ARENAS), (size_t)left);
        if (left >= 0) fail_at(1, on);
        do {
            y = ttt_lm_stream(c, d, w, &stream, tokens, (int64_t[]){ 9, 2 * k }, false);
            CHECK(ttt_ok(c) || stream.lanes == lanes);
            *errors += !ttt_ok(c);
        } while (lacked(c));
        for (int64_t i = 0; i < y->size; i++) {
            uint64_t bits = 0;
            memcpy(&bits, &y->data[i], sizeof y->data[i]);
            h = (h ^ bits) * 1099511628211u;
        }
    }
    fail_at(0, false);
    ttt_close(c);
    return h;
}
static void a_stream_that_had_no_memory_goes_on_with_the_same_bits(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *mixer = ttt_mixer_at(i);
        if (!streams(mixer)) continue;
        ttt_lm_desc d = streaming(mixer);
        int errors = 1, failures = 0;
        uint64_t right = stubborn_stream(&d, 0, false, -1, &errors);
        CHECK(errors == 0);
        for (long n = 1; n < 120; n++) {
            long left = n < 12 ? -1 : (n - 12) / ARENAS * 320;
            uint64_t got = stubborn_stream(&d, n, n % 2, left, &errors);
            if (got != right) printf("  %s, %ld\n", mixer->name, n);
            CHECK(got == right && errors <= 3);
            failures += errors;
        }
        CHECK(failures > 50);
    }
}

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(presets_are_those_of_the_paper),
        T(every_causal_mixer_makes_a_model_that_foretells),
        T(the_loss_is_of_each_next_token),
        T(gradients_agree_with_differences),
        T(blocks_that_are_made_again_give_the_same_bits),
        T(what_is_wrong_with_a_description_is_named),
        T(what_is_wrong_with_tokens_is_named),
        T(however_a_text_is_cut_the_model_says_the_same),
        T(lanes_are_as_if_they_were_alone),
        T(a_state_is_a_file_of_its_own_model),
        T(a_call_that_fails_leaves_the_stream_as_it_was),
        T(tokens_are_drawn_as_often_as_their_odds_say),
        T(text_is_generated_in_whole_characters),
        T(tokens_that_the_tokenizer_lacks_say_nothing),
        T(every_model_comes_back_from_its_folder),
        T(a_folder_has_no_prefix_and_may_have_one_token_for_both_ends),
        T(a_folder_in_bfloat16_is_computed_with),
        T(a_model_in_shards_is_read_from_its_own_folder_alone),
        T(what_is_wrong_with_a_folder_is_named),
        T(what_a_folder_has_too_much_is_told),
        T(what_the_authors_released_is_read),
        T(arrays_in_chunks_are_one),
        T(what_is_wrong_with_what_was_released_is_named),
        T(what_was_released_is_read_whole_or_not_at_all),
        T(a_folder_read_without_memory_is_not_half_there),
        T(a_stream_that_had_no_memory_goes_on_with_the_same_bits),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
