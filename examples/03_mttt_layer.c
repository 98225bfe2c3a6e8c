// 03_mttt_layer.c - what is inside an MTTT layer, and how long do its inner weights live?
//
//     cc -O2 -o lesson examples/03_mttt_layer.c -lm && ./lesson
//
// Like attention, the layer takes a sequence of N tokens, D wide, and returns one of the same shape
// in which the tokens have seen each other. It has no keys and values. Each of its H heads has a
// learner f_W (lesson 2) and sets it a puzzle made from the sequence itself: guess the token x from
// a narrow view of x.
//     learn:  x --phi--> k --f_W--> e --g--> LN --> r        W should make r like x: loss |r - x|^2
//     use:    x --psi--> q --f_W--> e --h--> sum over heads = y
// phi and psi make views of width h = D/H ("by what is this token known?", "what does it ask?"); g
// and h lead back from width h to D. All four, the LN (layer norm) and the start W0 are outer
// parameters: trained with the network, the same for all sequences. Nobody says which views make a
// good puzzle; the outer gradient finds out.
//
// W itself lives for one sequence. It is born as a copy of W0, takes T gradient steps on all N
// tokens, answers for the same N tokens, and is forgotten. So no sequence leaves a trace in
// another. And W is all that the tokens of a sequence share: if it learns nothing, they do not see
// each other. This program builds the layer from plain operations, one sequence and one head at a
// time, and checks all of this against ttt_mixer_forward.
//
// Output:
//
//     Outer parameters of the layer:
//         layer/phi/kernel            (2,8,4)
//         layer/phi/bias              (2,4)
//         layer/psi/kernel            (2,8,4)
//         layer/psi/bias              (2,4)
//         layer/g/kernel              (2,4,8)
//         layer/g_bias                (1,8)
//         layer/h/kernel              (2,4,8)
//         layer/h_bias                (1,8)
//         layer/decoder_LN/scale      (2,8)
//         layer/decoder_LN/bias       (2,8)
//         layer/inner_Dense_0/kernel  (2,4,4)
//         layer/inner_Dense_0/bias    (2,4)
//     The lives of the inner weights:
//       sequence 0, head 0: loss 2.639 -> 1.411 -> 1.224 (r = 0: 1.317); W moves by 1.38, |W0| 1.78
//       sequence 0, head 1: loss 3.117 -> 2.352 -> 2.002 (r = 0: 1.317); W moves by 1.35, |W0| 2.09
//       sequence 1, head 0: loss 2.278 -> 1.541 -> 1.106 (r = 0: 0.664); W moves by 1.23, |W0| 1.78
//       sequence 1, head 1: loss 2.209 -> 2.001 -> 1.778 (r = 0: 0.664); W moves by 0.77, |W0| 2.09
//     Hand and library differ by 1e-15 in the output, by 9e-14 in all outer gradients.
//     ok: ttt_mixer_forward gives the same output
//     ok: and its outer gradients are the same
//     ok: and its inner losses, summed over heads, averaged over sequences
//     How much the output for a token changes if another token changes:
//         one of the other sequence               0
//         one of its own                          1.793
//         one of its own, if W learns at rate 0   0
//     ok: sequences do not see each other, to the last bit
//     ok: tokens of a sequence do
//     ok: through nothing but what W has learned
//     ok: W was forgotten: the same sequences give the same output again
#define TTT_REAL double
#define TTT_IMPLEMENTATION
#include "../ttt_layers.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { B = 2, N = 6, D = 8, H = 2, T = 2 };
static const ttt_real rate = 1;

static void claim(bool holds, const char *text) {
    fprintf(holds ? stdout : stderr, "%s %s\n", holds ? "ok:" : "FAILED:", text);
    if (!holds) exit(1);
}

// ---- by hand ------------------------------------------------------------------------------------
// The part of a parameter that belongs to a head: (H,a,b) -> (a,b), (H,a) -> (1,a).
static ttt_tensor *of_head(ttt_ctx *c, const ttt_params *p, const char *name, int64_t head) {
    ttt_tensor *t = ttt_slice(c, ttt_params_find(p, name), 0, head, 1);
    int64_t a = t->shape.dim[1], b = t->shape.dim[2];
    return ttt_reshape(c, t, t->shape.rank == 3 ? TTT_SHAPE(a, b) : TTT_SHAPE(1, a));
}

static double distance(const ttt_tensor *a, const ttt_tensor *b) {
    double sum = 0;
    for (int64_t i = 0; i < a->size; i++) sum += pow(a->data[i] - b->data[i], 2);
    return sqrt(sum);
}

// The share of one head in the output for one sequence x (N,D). Adds T+1 losses to `losses`.
static ttt_tensor *head_by_hand(ttt_ctx *c, const ttt_params *p, int64_t head, ttt_tensor *x,
                                double *losses) {
    ttt_tensor *phi = of_head(c, p, "layer/phi/kernel", head);
    ttt_tensor *psi = of_head(c, p, "layer/psi/kernel", head);
    ttt_tensor *k = ttt_affine(c, x, phi, of_head(c, p, "layer/phi/bias", head));  // (N,h)
    ttt_tensor *q = ttt_affine(c, x, psi, of_head(c, p, "layer/psi/bias", head));  // (N,h)
    ttt_tensor *g = of_head(c, p, "layer/g/kernel", head);
    ttt_tensor *g_bias = ttt_params_find(p, "layer/g_bias");
    ttt_tensor *scale_bias[2] = { of_head(c, p, "layer/decoder_LN/scale", head),
                                  of_head(c, p, "layer/decoder_LN/bias", head) };
    ttt_weights norm = { scale_bias, 2 };

    // W is born.
    ttt_tensor *W0 = of_head(c, p, "layer/inner_Dense_0/kernel", head);
    ttt_tensor *W[2] = { W0, of_head(c, p, "layer/inner_Dense_0/bias", head) }, *slope[2];
    printf(" loss");
    for (int t = 0; t <= T; t++) {
        ttt_tensor *e = ttt_affine(c, k, W[0], W[1]);                          // f_W(k), (N,h)
        ttt_tensor *r = ttt_layer_norm(c, norm, ttt_affine(c, e, g, g_bias));  // (N,D)
        ttt_tensor *loss = ttt_scale(c, ttt_mse(c, r, x), H / 2.);             // H/2 mean (r - x)^2
        losses[t] += ttt_item(loss) / B;
        printf("%s %.3f", t ? " ->" : "", ttt_item(loss));
        if (t == T) break;
        ttt_grad(c, loss, W, 2, slope, TTT_GRAD_RECORD);
        // W learns.
        for (int i = 0; i < 2; i++) W[i] = ttt_sub(c, W[i], ttt_scale(c, slope[i], rate));
    }
    double silent = H / 2. * ttt_item(ttt_mean(c, ttt_square(c, x)));  // of r = 0
    printf(" (r = 0: %.3f); W moves by %.2f, |W0| %.2f\n", silent, distance(W[0], W0),
           distance(W0, ttt_zeros(c, W0->shape)));
    // W answers, and is forgotten.
    ttt_tensor *answers = ttt_affine(c, q, W[0], W[1]);
    return ttt_matmul(c, answers, of_head(c, p, "layer/h/kernel", head));
}

static ttt_tensor *layer_by_hand(ttt_ctx *c, const ttt_params *p, ttt_tensor *x, double *losses) {
    ttt_tensor *y[B];
    for (int64_t b = 0; b < B; b++) {
        ttt_tensor *x_b = ttt_reshape(c, ttt_slice(c, x, 0, b, 1), TTT_SHAPE(N, D));
        y[b] = ttt_params_find(p, "layer/h_bias");
        for (int64_t head = 0; head < H; head++) {
            printf("  sequence %d, head %d:", (int)b, (int)head);
            y[b] = ttt_add(c, y[b], head_by_hand(c, p, head, x_b, losses));
        }
        y[b] = ttt_reshape(c, y[b], TTT_SHAPE(1, N, D));
    }
    return ttt_concat(c, y, B, 0);
}

// ---- who sees whom ------------------------------------------------------------------------------
// How much the output for token 0 of sequence 0 changes if token 3 of sequence b changes.
static double influence(ttt_ctx *c, const ttt_mixer_desc *d, ttt_weights w, ttt_tensor *x, int b) {
    ttt_tensor *other = ttt_from(c, x->shape, x->data);
    ttt_real *token = other->data + (b * N + 3) * D;
    for (int i = 0; i < D; i++) token[i] = 1 - token[i];
    ttt_tensor *before = ttt_mixer_forward(c, d, w, x, NULL);
    ttt_tensor *change = ttt_sub(c, ttt_mixer_forward(c, d, w, other, NULL), before);
    double sum = 0;
    for (int i = 0; i < D; i++) sum += fabs(change->data[i]);
    return sum;
}

int main(void) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 5 });
    if (!c) return 1;
    ttt_params p = { 0 };
    ttt_mixer_desc d = { .mixer = ttt_mixer_find("mttt-linear"), .dim = D, .heads = H,
                         .inner_steps = T, .inner_lr = rate };
    ttt_weights w = ttt_mixer_new(c, &d, &p, "layer");
    ttt_tensor *x = ttt_randn(c, TTT_SHAPE(B, N, D)), *losses, *wrt[32], *hand_g[32], *g[32];
    if (!ttt_ok(c)) return puts(ttt_error(c)), 1;
    puts("Outer parameters of the layer:");
    for (int i = 0; i < p.n; i++) {
        ttt_text shape;
        printf("    %-27s %s\n", p.item[i].name, ttt_shape_text(p.value[i]->shape, shape));
        wrt[i] = p.value[i];
        // Many parameters start at 0 or 1, which would hide mistakes.
        for (int64_t j = 0; j < wrt[i]->size; j++)
            wrt[i]->data[j] += 0.1 * ttt_rng_normal(ttt_ctx_rng(c));
    }
    puts("The lives of the inner weights:");
    double hand_losses[T + 1] = { 0 }, apart = 0;
    ttt_tensor *hand = layer_by_hand(c, &p, x, hand_losses);
    ttt_tensor *y = ttt_mixer_forward(c, &d, w, x, &losses);
    ttt_tensor *some = ttt_randn(c, x->shape);  // an outer loss: <some, y>
    ttt_grad(c, ttt_sum(c, ttt_mul(c, some, hand)), wrt, p.n, hand_g, TTT_GRAD_FIRST_ORDER);
    ttt_grad(c, ttt_sum(c, ttt_mul(c, some, y)), wrt, p.n, g, TTT_GRAD_FIRST_ORDER);
    if (!ttt_ok(c)) claim(false, ttt_error(c));
    for (int i = 0; i < p.n; i++) apart += ttt_max_abs_diff(hand_g[i], g[i]);
    printf("Hand and library differ by %.0e in the output, by %.0e in all outer gradients.\n",
           ttt_max_abs_diff(hand, y), apart);
    claim(ttt_max_abs_diff(hand, y) <= 1e-12, "ttt_mixer_forward gives the same output");
    claim(apart <= 1e-11, "and its outer gradients are the same");
    apart = 0;
    for (int t = 0; t <= T; t++) apart += fabs(hand_losses[t] - losses->data[t]);
    claim(apart <= 1e-12, "and its inner losses, summed over heads, averaged over sequences");

    ttt_real no_rates[T] = { 0 };
    ttt_mixer_desc idle = d;
    idle.inner_lr = 0;
    idle.inner_lrs = no_rates;  // gradient steps of length zero: nothing is learned
    double other_sequence = influence(c, &d, w, x, 1);
    double own = influence(c, &d, w, x, 0), untaught = influence(c, &idle, w, x, 0);
    puts("How much the output for a token changes if another token changes:");
    printf("    one of the other sequence               %g\n", other_sequence);
    printf("    one of its own                          %.3f\n", own);
    printf("    one of its own, if W learns at rate 0   %g\n", untaught);
    claim(other_sequence == 0, "sequences do not see each other, to the last bit");
    claim(own > 1e-3, "tokens of a sequence do");
    claim(untaught == 0, "through nothing but what W has learned");
    ttt_tensor *again = ttt_mixer_forward(c, &d, w, x, NULL);
    claim(ttt_max_abs_diff(again, y) == 0,
          "W was forgotten: the same sequences give the same output again");
    ttt_close(c);
    return fflush(stdout) || ferror(stdout);
}
