// Tests of ttt_model.h's language model.
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "ttt_test.h"

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

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(presets_are_those_of_the_paper),
        T(every_causal_mixer_makes_a_model_that_foretells),
        T(the_loss_is_of_each_next_token),
        T(gradients_agree_with_differences),
        T(blocks_that_are_made_again_give_the_same_bits),
        T(what_is_wrong_with_a_description_is_named),
        T(what_is_wrong_with_tokens_is_named),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
