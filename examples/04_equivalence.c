// 04_equivalence.c - why is the simplest layer that learns at test time linear attention?
//
//     cc -O2 -o lesson examples/04_equivalence.c -lm && ./lesson
//
// Take the layer of lesson 3 with a matrix as its learner, W0 = 0, no norm, no bias, and one step
// on all tokens. Before the step it answers every key with 0, so its error on token x is all of x.
// The step adds key times error for each token:
//     W = sum over tokens m of k_m^T v_m       v = x g^T: the error, back through the decoder g
// and a query gets  q W = sum over m of (q . k_m) v_m.  That is attention without its softmax, in
// other brackets: attention compares q with every key, the learner sums keys times values first.
//
// So linear attention learns at test time, if not much: it starts from nothing and takes one step.
// A learner can have more: a start that knows something, more steps, more than a matrix. First on a
// blackboard: two tokens of two numbers, one head, eta = 4, so that eta / (N h) = 1. (The output
// map, the same in both, is left out.) Then at the size of a small vision transformer, with biases.
//
// Output:
//
//     Both:
//         tokens x                          [  1   2]  [  3   1]
//         keys k = x phi                    [  1   3]  [  3   4]
//         queries q = x psi                 [  2   1]  [  1   3]
//     The learner:
//         start W0                          [  0   0]  [  0   0]
//         reconstructions r = k W0 g        [  0   0]  [  0   0]
//         errors r - x                      [ -1  -2]  [ -3  -1]
//         eta times slope of the loss in W  [ -5 -15]  [-10 -25]
//         W = W0 - eta slope                [  5  15]  [ 10  25]
//         answers q W                       [ 20  55]  [ 35  90]
//     Attention:
//         values v = x g^T                  [  2   3]  [  1   4]
//         scores q . k, a row a query       [  5  10]  [ 10  15]
//         sums of scores times values       [ 20  55]  [ 35  90]
//         keys times values, summed, k^T v  [  5  15]  [ 10  25]
//     ok: on the blackboard both give the same numbers
//     ok: the learner has learned the sum of keys times values
//     196 tokens, 384 wide, 6 heads. Differences, relative to the largest number:
//         output                       1.1e-06
//     ok: the layers give the same output
//         outer gradients, the worst   7.7e-07
//     ok: and the same outer gradients in the tokens and all shared parameters
//     What makes it more than linear attention; difference of the outputs:
//         a start W0 that is not zero       16.479
//         two steps                         0.696
//         layer norm in the decoder         10.657
//         a learner with a bias             0.074
//     ok: any of these makes it another layer
#define TTT_IMPLEMENTATION
#include "../ttt_layers.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N = 196, D = 384, H = 6 };
static const ttt_real eta = 4;

static void claim(bool holds, const char *text) {
    fprintf(holds ? stdout : stderr, "%s %s\n", holds ? "ok:" : "FAILED:", text);
    if (!holds) exit(1);
}

// ---- on a blackboard ----------------------------------------------------------------------------
static void show(const char *name, const ttt_tensor *t) {
    int rows = (int)t->shape.dim[0], cols = (int)t->shape.dim[1];
    printf("    %-32s", name);
    for (int i = 0; i < rows * cols; i++)
        printf("%s%3g%s", i % cols ? " " : "  [", (double)t->data[i], (i + 1) % cols ? "" : "]");
    puts("");
}
static ttt_tensor *matrix(ttt_ctx *c, ttt_real a, ttt_real b, ttt_real d, ttt_real e) {
    return ttt_from(c, TTT_SHAPE(2, 2), (ttt_real[]){ a, b, d, e });
}

static void on_a_blackboard(ttt_ctx *c) {
    ttt_tensor *x = matrix(c, 1, 2, 3, 1), *slope, *W = ttt_zeros(c, TTT_SHAPE(2, 2));
    ttt_tensor *phi = matrix(c, 1, 1, 0, 1), *k = ttt_matmul(c, x, phi);
    ttt_tensor *psi = matrix(c, 0, 1, 1, 0), *q = ttt_matmul(c, x, psi), *g = matrix(c, 0, 1, 1, 1);
    puts("Both:");
    show("tokens x", x);
    show("keys k = x phi", k);
    show("queries q = x psi", q);

    puts("The learner:");
    ttt_tensor *r = ttt_matmul(c, ttt_matmul(c, k, W), g);
    ttt_tensor *loss = ttt_scale(c, ttt_mse(c, r, x), (ttt_real)0.5);
    ttt_grad(c, loss, &W, 1, &slope, TTT_GRAD_FIRST_ORDER);
    show("start W0", W);
    show("reconstructions r = k W0 g", r);
    show("errors r - x", ttt_sub(c, r, x));
    slope = ttt_scale(c, slope, eta);
    show("eta times slope of the loss in W", slope);
    W = ttt_sub(c, W, ttt_detach(c, slope));
    ttt_tensor *learned = ttt_matmul(c, q, W);
    show("W = W0 - eta slope", W);
    show("answers q W", learned);

    puts("Attention:");
    ttt_tensor *v = ttt_matmul_t(c, x, g, false, true), *sum = ttt_matmul_t(c, k, v, true, false);
    ttt_tensor *scores = ttt_matmul_t(c, q, k, false, true), *attended = ttt_matmul(c, scores, v);
    show("values v = x g^T", v);
    show("scores q . k, a row a query", scores);
    show("sums of scores times values", attended);
    show("keys times values, summed, k^T v", sum);
    claim(ttt_max_abs_diff(attended, learned) == 0, "on the blackboard both give the same numbers");
    claim(ttt_max_abs_diff(sum, W) == 0, "the learner has learned the sum of keys times values");
}

// ---- at full size -------------------------------------------------------------------------------
// The layer of a description, with biases that are not zero. A parameter of the same name has the
// same numbers in every layer: they depend on the seed and on the name.
static ttt_weights make(ttt_ctx *c, ttt_mixer_desc *d) {
    ttt_params p = { 0 };
    d->mixer = ttt_mixer_find("mttt-linear");
    d->dim = D;
    d->heads = H;
    d->inner_lr = eta;
    d->no_fused = true;  // step by step on the tape, as in the definition
    ttt_weights w = ttt_mixer_new(c, d, &p, "layer");
    for (int i = 1; ttt_ok(c) && i < 8; i += 2)  // biases of phi, psi, g, h
        for (int64_t j = 0; j < w.at[i]->size; j++)
            w.at[i]->data[j] = (ttt_real)(0.1 * sin((double)(i + j)));
    return w;
}

// Its parameters as those of linear attention: made by operations, so that gradients pass through.
static void as_attention(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor **a) {
    static const int views[] = { 1, 0, 2 }, turned[] = { 2, 0, 1 };
    ttt_tensor *phi = w[0], *phi_bias = w[1], *psi = w[2], *psi_bias = w[3];
    ttt_tensor *g = w[4], *g_bias = w[5], *h = w[6], *h_bias = w[7];
    ttt_shape square = TTT_SHAPE(D, D), row = TTT_SHAPE(D);
    a[0] = ttt_reshape(c, ttt_permute(c, psi, views), square);  // query: (H,D,h) to (D,H h)
    a[1] = ttt_reshape(c, psi_bias, row);
    a[2] = ttt_reshape(c, ttt_permute(c, phi, views), square);  // key
    a[3] = ttt_reshape(c, phi_bias, row);
    a[4] = ttt_scale(c, ttt_reshape(c, ttt_permute(c, g, turned), square), eta);  // value: eta g^T
    a[5] = ttt_scale(c, ttt_reshape(c, ttt_matmul(c, g_bias, a[4]), row), -1);
    a[6] = ttt_reshape(c, h, square);  // output
    a[7] = ttt_reshape(c, h_bias, row);
}

// The difference, relative to the largest number.
static double apart(const ttt_tensor *a, const ttt_tensor *b) {
    double most = 0;
    for (int64_t i = 0; i < b->size; i++) most = fmax(most, fabs((double)b->data[i]));
    return ttt_max_abs_diff(a, b) / most;
}

int main(void) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 4 });
    if (!c) return 1;
    on_a_blackboard(c);

    ttt_mixer_desc d = { .zero_w0 = true, .no_inner_bias = true, .no_decoder_norm = true };
    ttt_mixer_desc da = { .mixer = ttt_mixer_find("linear-attention"), .dim = D, .heads = H,
                          .no_fused = true, .identity_map = true,
                          .normalizer = TTT_NORMALIZER_CONSTANT };
    ttt_weights w = make(c, &d);
    ttt_tensor *a[8], *wrt[9], *gm[9], *ga[9], *x = ttt_randn(c, TTT_SHAPE(1, N, D));
    ttt_tensor *some = ttt_randn(c, x->shape);  // the outer loss is <some, output>
    if (!ttt_ok(c)) return puts(ttt_error(c)), 1;
    as_attention(c, w.at, a);
    ttt_weights wa = { a, 8 };
    ttt_tensor *learned = ttt_mixer_forward(c, &d, w, x, NULL);
    ttt_tensor *attended = ttt_mixer_forward(c, &da, wa, x, NULL);
    for (int i = 0; i < 8; i++) wrt[i] = w.at[i];
    wrt[8] = x;
    ttt_grad(c, ttt_sum(c, ttt_mul(c, some, learned)), wrt, 9, gm, TTT_GRAD_FIRST_ORDER);
    ttt_grad(c, ttt_sum(c, ttt_mul(c, some, attended)), wrt, 9, ga, TTT_GRAD_FIRST_ORDER);
    if (!ttt_ok(c)) claim(false, ttt_error(c));
    printf("%d tokens, %d wide, %d heads. Differences, relative to the largest number:\n", N, D, H);
    printf("    %-28s %.1e\n", "output", apart(learned, attended));
    claim(apart(learned, attended) <= 2e-6, "the layers give the same output");
    int good = 0;
    double worst = 0;
    for (int i = 0; i < 9; i++) {
        worst = fmax(worst, apart(gm[i], ga[i]));
        good += apart(gm[i], ga[i]) <= 2e-6;
    }
    printf("    %-28s %.1e\n", "outer gradients, the worst", worst);
    claim(good == 9, "and the same outer gradients in the tokens and all shared parameters");

    puts("What makes it more than linear attention; difference of the outputs:");
    ttt_mixer_desc more[4] = { d, d, d, d };
    static const char *const what[4] = { "a start W0 that is not zero", "two steps",
                                         "layer norm in the decoder", "a learner with a bias" };
    more[0].zero_w0 = false;
    more[1].inner_steps = 2;
    more[2].no_decoder_norm = false;
    more[3].no_inner_bias = false;
    for (int i = 0; i < 4; i++) {
        ttt_weights v = make(c, &more[i]);
        double difference = apart(ttt_mixer_forward(c, &more[i], v, x, NULL), attended);
        printf("    %-34s%.3f\n", what[i], difference);
        good += difference > 1e-2;
    }
    claim(good == 9 + 4, "any of these makes it another layer");
    ttt_close(c);
    return fflush(stdout) || ferror(stdout);
}
