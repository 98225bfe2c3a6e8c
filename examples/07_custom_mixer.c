// 07_custom_mixer.c - how do I compare a token mixer of my own with attention and other mixers?
//
//     cc -O2 -o lesson examples/07_custom_mixer.c -lm && ./lesson
//
// A mixer is the part of a block that lets tokens see each other. Each mixer of the library, also
// attention, is one struct: a name, a table of parameters, a function from (B,N,D) to (B,N,D), and
// a count of its FLOPs. Write another and put it into a description; then models, optimizers,
// checkpoints and FLOP counts use it like their own. Here it is the token shift of RWKV (arXiv
// 2305.13048), the cheapest there is. A token sees the one before it, to a degree of its own for
// each feature:
//     y_n = (x_n + s * (x_n-1 - x_n)) W + b        s = sigmoid(mix), x_-1 = 0
// In a vision transformer it should tell textures apart: images of 4 x 4 patches, dark or bright.
// A patch is mostly like the one before it (smooth) or mostly the opposite (busy). Without a mixer
// a token knows only itself and its place, and the model must guess from the mean over all tokens.
// (The task is made for this mixer: the table shows how to compare, not which mixer is best.)
//
// Output:
//
//     Its derivatives are off by 1e-05 from differences, its second derivatives by 7e-07.
//     ok: gradients pass through the mixer, to the second order
//     Token 3 changes. The outputs change by 0.00 0.00 0.00 2.83 2.83 0.00
//     ok: a token is seen by itself and by the next, by no other
//     Textures told apart after 200 steps of 32 images, and FLOPs of the whole model for one image:
//         none              87.8 %    68160
//         self-attention    93.3 %   117312
//         mttt-linear       84.1 %   133696
//         token-shift      100.0 %    77376
//     ok: the model counts the mixer's FLOPs
//     ok: it is the cheapest that mixes
//     ok: it tells textures apart
//     ok: the rest of the model cannot do so without it
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SIDE = 8, PATCH = 2, GRID = SIDE / PATCH, B = 32, STEPS = 200, TESTS = 20 };

static void claim(bool holds, const char *text) {
    fprintf(holds ? stdout : stderr, "%s %s\n", holds ? "ok:" : "FAILED:", text);
    if (!holds) exit(1);
}

// ---- the mixer ----------------------------------------------------------------------------------
enum { MIX, KERNEL, BIAS };  // the rows of the table, and the places of their tensors in w
static const ttt_param_row rows[] = {
    { "mix", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },  // sigmoid(0): half and half
    { "kernel", "D D", TTT_INIT_XAVIER, "D", "D", TTT_PARAM_DECAYS, 0 },
    { "bias", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
};
static ttt_tensor *shift_forward(ttt_ctx *c, const ttt_mixer_desc *d, ttt_tensor *const *w,
                                 ttt_tensor *x, ttt_tensor **losses) {
    (void)d;
    (void)losses;  // it learns nothing inside
    int64_t N = x->shape.dim[1];
    ttt_tensor *before = ttt_pad(c, ttt_slice(c, x, 1, 0, N - 1), 1, 1, N);  // token n: x_n-1
    ttt_tensor *mixed = ttt_add(c, x, ttt_mul(c, ttt_sigmoid(c, w[MIX]), ttt_sub(c, before, x)));
    return ttt_affine(c, mixed, w[KERNEL], w[BIAS]);
}
static double shift_flops(const ttt_mixer_desc *d, int64_t N) {
    return (double)(N * (2 * d->dim * d->dim + 4 * d->dim));
}
static const ttt_mixer token_shift = {
    .name = "token-shift", .module = "TokenShift_0", .rows = rows, .n_rows = 3,
    .forward = shift_forward, .flops = shift_flops,
};

// ---- the task -----------------------------------------------------------------------------------
static ttt_tensor *draw(ttt_ctx *c, ttt_tensor **labels) {
    ttt_tensor *images = ttt_zeros(c, TTT_SHAPE(B, SIDE, SIDE, 1));
    ttt_rng *r = ttt_ctx_rng(c);
    int64_t label[B];
    for (int i = 0; ttt_ok(c) && i < B; i++) {
        label[i] = ttt_rng_below(r, 2);
        int color = ttt_rng_below(r, 2) ? 1 : -1;
        for (int n = 0; n < GRID * GRID; n++) {
            if (ttt_rng_uniform(r) < (label[i] ? 0.9 : 0.1)) color = -color;
            for (int k = 0; k < PATCH * PATCH; k++) {
                int row = n / GRID * PATCH + k / PATCH, col = n % GRID * PATCH + k % PATCH;
                double value = color + 0.3 * ttt_rng_normal(r);
                images->data[(i * SIDE + row) * SIDE + col] = (ttt_real)value;
            }
        }
    }
    *labels = ttt_from_int(c, TTT_SHAPE(B), label);
    return images;
}

// ---- what one wants to know of a new mixer ------------------------------------------------------
// A loss of tokens x[0] and weights x[1] ...
static ttt_tensor *some_loss(ttt_ctx *c, ttt_tensor *const *x, int n, void *d) {
    ttt_weights w = { x + 1, n - 1 };
    ttt_tensor *y = ttt_mixer_forward(c, (const ttt_mixer_desc *)d, w, x[0], NULL);
    return ttt_mean(c, ttt_square(c, y));
}

static void look_at(const ttt_mixer *mixer) {
    enum { N = 6, D = 8, WHO = 3 };
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 1 });
    ttt_params p = { 0 };
    ttt_mixer_desc d = { .mixer = mixer, .dim = D, .heads = 1 };
    if (!c) claim(false, "there is memory");
    ttt_weights w = ttt_mixer_new(c, &d, &p, "layer");
    if (!ttt_ok(c)) claim(false, ttt_error(c));
    ttt_tensor *all[] = { ttt_randn(c, TTT_SHAPE(1, N, D)), w.at[MIX], w.at[KERNEL], w.at[BIAS] };
    double first = ttt_check_gradient(c, some_loss, all, 4, &d, 1, 1e-2);
    double second = ttt_check_gradient(c, some_loss, all, 4, &d, 2, 1e-2);
    printf("Its derivatives are off by %.0e from differences, its second derivatives by %.0e.\n",
           first, second);
    claim(first < 1e-2 && second < 1e-2, "gradients pass through the mixer, to the second order");

    ttt_tensor *other = ttt_from(c, all[0]->shape, all[0]->data);
    for (int i = 0; i < D; i++) other->data[WHO * D + i] += 1;
    ttt_tensor *before = ttt_mixer_forward(c, &d, w, all[0], NULL);
    ttt_tensor *change = ttt_sub(c, ttt_mixer_forward(c, &d, w, other, NULL), before);
    if (!ttt_ok(c)) claim(false, ttt_error(c));
    printf("Token %d changes. The outputs change by", WHO);
    bool only = true;
    for (int n = 0; n < N; n++) {
        double sum = 0;
        for (int i = 0; i < D; i++) sum += fabs((double)change->data[n * D + i]);
        printf(" %.2f", sum);
        only = only && (sum != 0) == (n == WHO || n == WHO + 1);
    }
    puts("");
    claim(only, "a token is seen by itself and by the next, by no other");
    ttt_close(c);
}

// ---- in a vision transformer --------------------------------------------------------------------
// Trains one with this mixer. Returns the share of new images that it gets right, and its FLOPs.
static double accuracy(const ttt_mixer *mixer, double *flops) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 7 });
    ttt_params p = { 0 };
    ttt_vit_desc d = { .image = SIDE, .channels = 1, .patch = PATCH, .width = 16, .depth = 1,
                       .classes = 2 };
    d.mixer = (ttt_mixer_desc){ .mixer = mixer, .heads = 1 };  // .dim is .width
    if (mixer->learner) d.mixer.inner_lr = 1;
    if (!c) claim(false, "there is memory");
    ttt_weights w = ttt_vit_new(c, &d, &p, "");
    ttt_optimizer *opt = ttt_optimizer_new(c, &(ttt_optimizer_desc){ .lr = (ttt_real)0.003 }, &p);
    if (!ttt_ok(c)) claim(false, ttt_error(c));
    int64_t right = 0;
    for (int step = 0; step < STEPS + TESTS; step++) {
        ttt_mark m = ttt_mark_get(c);
        ttt_tensor *labels, *images = draw(c, &labels);
        ttt_tensor *logits = ttt_vit_forward(c, &d, w, images, NULL);
        ttt_tensor *loss = ttt_cross_entropy(c, logits, ttt_one_hot(c, labels, 2));
        if (step < STEPS) ttt_optimizer_step(c, opt, loss);
        else right += ttt_count_correct(logits, labels);
        if (!ttt_ok(c)) claim(false, ttt_error(c));
        ttt_mark_release(c, m);
    }
    *flops = ttt_vit_flops(&d);
    printf("    %-16s %5.1f %%   %6.0f\n", mixer->name, 100. * (double)right / (TESTS * B), *flops);
    ttt_close(c);
    return (double)right / (TESTS * B);
}

int main(void) {
    double flops[4];
    look_at(&token_shift);
    printf("Textures told apart after %d steps of %d images, and FLOPs of the whole model for one "
           "image:\n", STEPS, B);
    double none = accuracy(ttt_mixer_find("none"), &flops[0]);
    accuracy(ttt_mixer_find("self-attention"), &flops[1]);
    accuracy(ttt_mixer_find("mttt-linear"), &flops[2]);
    double mine = accuracy(&token_shift, &flops[3]);
    ttt_mixer_desc d = { .mixer = &token_shift, .dim = 16 };
    double of_mixer = shift_flops(&d, GRID * GRID);
    claim(flops[3] - flops[0] == of_mixer, "the model counts the mixer's FLOPs");
    claim(flops[3] < flops[1] && flops[3] < flops[2], "it is the cheapest that mixes");
    claim(mine > 0.98, "it tells textures apart");
    claim(none < 0.95, "the rest of the model cannot do so without it");
    return fflush(stdout) || ferror(stdout);
}
