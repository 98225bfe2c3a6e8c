// layer_form.h - layers by mixer and options, with parameters away from their initial values, for
// test_mixers.c and test_streams.c.
#ifndef LAYER_FORM_H
#define LAYER_FORM_H

#include "../ttt_layers.h"
#include "ttt_test.h"

typedef struct {
    const char *mixer;
    ttt_mixer_desc d;
} form;

// The layer of a form with parameters of its own, and an input of B sequences.
typedef struct {
    ttt_mixer_desc d;
    ttt_params p;
    ttt_weights w;
    ttt_tensor *x;
} layer;
static layer layer_like(ttt_ctx *c, const form *f, int64_t B, int64_t N) {
    layer l = { .d = f->d };
    l.d.mixer = ttt_mixer_find(f->mixer);
    l.w = ttt_mixer_new(c, &l.d, &l.p, "");
    for (int i = 0; i < l.w.n; i++)
        for (int64_t j = 0; j < l.w.at[i]->size; j++)
            l.w.at[i]->data[j] += REAL(0.2 * ttt_rng_normal(ttt_ctx_rng(c)));
    l.x = ttt_randn(c, TTT_SHAPE(B, N, l.d.dim));
    CHECK(ttt_ok(c));
    return l;
}
#endif
