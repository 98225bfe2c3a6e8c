// 02_inner_loop.c - what does a layer that learns at test time do with a sequence?
//
//     cc -O2 -o lesson examples/02_inner_loop.c -lm && ./lesson
//
// Attention keeps every key and value of a sequence and compares. The layers of this library keep none: they
// *learn* the sequence, as one learns a data set. Every token says "to this key k belongs that value v". A small
// model, here just a matrix W, is fitted to these pairs by a few steps of gradient descent, and is then asked
// about keys of its choice. That is the inner loop:
//     loss      l(W) = 1/2 mean over tokens of |k W - v|^2         how badly W knows the sequence
//     T times   W = W - eta K^T (K W - V) / N                      the last factor is dl/dW
//     output    q W                                                what it says about a query q
// W is forgotten afterwards. Two things are not: the W0 it starts from and the rates eta. They are parameters,
// as other layers have them, and the *outer* loop trains them through these steps (lesson 1), so that T steps
// come as far as they can: learning to learn. Here every sequence follows a rule V = K A of its own. All rules
// have something in common; W0 can know that beforehand, and only the rest is left to learn from the sequence.
//
// Output:
//
//     A sequence, learned from W0 = 0 at rates 0.2:
//         loss after 0 steps  2.7307 #######################################################
//         loss after 1 steps  1.6342 #################################
//         loss after 2 steps  1.0270 #####################
//         loss after 3 steps  0.6769 ##############
//         loss after 4 steps  0.4658 #########
//     ok: every step lowers the loss
//     ok: ttt_inner_loop reports the same losses
//     ok: and learns the same W
//     Asked about other keys, it errs by 0.836. Derivative of that in the rate of the first step:
//         -1.175760 by differences, -1.175760 by hand, -1.175760 by ttt_inner_loop
//     ok: the outer gradient in a rate is what differences measure
//     ok: ttt_inner_loop has the same outer gradient in W0
//     ok: and in the rates
//     Learning to learn, on other sequences (the rates stay equal: a linear learner's steps may come in any order):
//         outer step   0: answers err by 0.8207; rate of each step 0.20
//         outer step 100: answers err by 0.0248; rate of each step 0.64
//         outer step 200: answers err by 0.0227; rate of each step 0.68
//         outer step 300: answers err by 0.0106; rate of each step 0.64
//     The first sequence again, from the trained W0 at the trained rates:
//         loss after 0 steps  0.5802 ############
//         loss after 1 steps  0.0861 ##
//         loss after 2 steps  0.0206
//         loss after 3 steps  0.0063
//         loss after 4 steps  0.0024
//     Asked about the same other keys, it errs by 0.006; it was 0.836.
//     ok: with the same number of steps it errs by less than a twentieth
#define TTT_REAL double
#define TTT_IMPLEMENTATION
#include "../ttt_layers.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N = 16, WIDTH = 4, T = 4, BATCH = 16 };

static void claim(bool holds, const char *text) {
    fprintf(holds ? stdout : stderr, "%s %s\n", holds ? "ok:" : "FAILED:", text);
    if (!holds) exit(1);
}

// ---- sequences -----------------------------------------------------------------------------------
// B sequences as the library wants them, (B,H,N,width), with one head. The rule of each is A = common + own.
typedef struct {
    ttt_tensor *k, *v, *q, *answer;
} sequences;

static sequences draw(ttt_ctx *c, ttt_tensor *common, int64_t B) {
    sequences s = { .k = ttt_randn(c, TTT_SHAPE(B, 1, N, WIDTH)), .q = ttt_randn(c, TTT_SHAPE(B, 1, N, WIDTH)) };
    ttt_tensor *A = ttt_add(c, common, ttt_scale(c, ttt_randn(c, TTT_SHAPE(B, 1, WIDTH, WIDTH)), 0.3));
    s.v = ttt_matmul(c, s.k, A);
    s.answer = ttt_matmul(c, s.q, A);
    return s;
}

// 1/2 mean over tokens of |got - wanted|^2, summed over sequences
static ttt_tensor *half_squares(ttt_ctx *c, const void *unused, ttt_tensor *got, ttt_tensor *wanted) {
    (void)unused;
    return ttt_scale(c, ttt_sum(c, ttt_square(c, ttt_sub(c, got, wanted))), 0.5 / N);
}

// ---- the inner loop, by hand and by the library --------------------------------------------------
static ttt_tensor *loop_by_hand(ttt_ctx *c, sequences s, ttt_tensor *W0, ttt_tensor *rates, double *losses) {
    ttt_tensor *W = W0;
    for (int t = 0; t < T; t++) {
        ttt_tensor *error = ttt_sub(c, ttt_matmul(c, s.k, W), s.v);                      // (1,1,N,width)
        ttt_tensor *slope = ttt_scale(c, ttt_matmul_t(c, s.k, error, true, false), 1. / N);  // K^T error / N
        losses[t] = ttt_item(half_squares(c, NULL, ttt_matmul(c, s.k, W), s.v));
        W = ttt_sub(c, W, ttt_mul(c, slope, ttt_slice(c, rates, 0, t, 1)));
    }
    losses[T] = ttt_item(half_squares(c, NULL, ttt_matmul(c, s.k, W), s.v));
    return W;
}

// The same in words: which learner, what it sees and is to say, what counts as bad, how many steps.
static ttt_tensor *loop_by_library(ttt_ctx *c, sequences s, ttt_tensor *W0, ttt_tensor *rates, ttt_tensor **losses) {
    ttt_inner in = { .learner = &ttt_learner_linear, .train = s.k, .label = s.v, .loss = half_squares, .steps = T, .learned_rates = rates };
    ttt_weights w0 = { &W0, 1 }, w = ttt_inner_loop(c, &in, w0, losses);  // a matrix and no bias
    return ttt_ok(c) ? w.at[0] : W0;
}

// How wrong are W's answers to the queries? The mean over sequences: what the outer loop lowers.
static ttt_tensor *outer_loss(ttt_ctx *c, sequences s, ttt_tensor *W) {
    return ttt_scale(c, half_squares(c, NULL, ttt_matmul(c, s.q, W), s.answer), 1. / (double)s.q->shape.dim[0]);
}

static void print_losses(const char *title, const double *losses) {
    static const char bar[] = "############################################################";
    puts(title);
    for (int t = 0; t <= T; t++) printf("    loss after %d steps %7.4f %.*s\n", t, losses[t], (int)fmin(60, 20 * losses[t] + 0.5), bar);
}

int main(void) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 2 });
    if (!c) return 1;
    ttt_params p = { 0 };
    static const ttt_param_row rows[] = { { "W0", "H h h", TTT_INIT_ZERO, NULL, NULL, TTT_PARAM_INNER, 0 },
                                          { "rates", "T", TTT_INIT_ZERO, NULL, NULL, 0, 0 } };
    ttt_sizes sizes = { .of = { ['H'] = 1, ['h'] = WIDTH, ['T'] = T } };
    ttt_tensor *const *outer = ttt_params_add(c, rows, 2, 0, &sizes, &p, "loop").at;  // W0 and the rates
    ttt_tensor *common = ttt_scale(c, ttt_randn(c, TTT_SHAPE(WIDTH, WIDTH)), 0.5);
    if (!outer) return 1;
    for (int t = 0; t < T; t++) outer[1]->data[t] = 0.2;

    // One sequence. Hand and library agree, in values and in outer gradients.
    sequences one = draw(c, common, 1);
    double losses[T + 1], apart = 0, falls = 0;
    ttt_tensor *reported, *hand_g[2], *library_g[2];
    ttt_tensor *hand_W = loop_by_hand(c, one, outer[0], outer[1], losses), *library_W = loop_by_library(c, one, outer[0], outer[1], &reported);
    ttt_tensor *hand = outer_loss(c, one, hand_W), *library = outer_loss(c, one, library_W);
    ttt_grad(c, hand, outer, 2, hand_g, TTT_GRAD_FIRST_ORDER);
    ttt_grad(c, library, outer, 2, library_g, TTT_GRAD_FIRST_ORDER);
    if (!ttt_ok(c)) claim(false, ttt_error(c));
    print_losses("A sequence, learned from W0 = 0 at rates 0.2:", losses);
    for (int t = 0; t < T; t++) falls += losses[t + 1] < losses[t];
    for (int t = 0; t <= T; t++) apart += fabs(losses[t] - reported->data[t]);
    claim(falls == T, "every step lowers the loss");
    claim(apart <= 1e-12, "ttt_inner_loop reports the same losses");
    claim(ttt_max_abs_diff(ttt_reshape(c, hand_W, library_W->shape), library_W) <= 1e-12, "and learns the same W");

    double h = 1e-4, moved[2], unused[T + 1];
    for (int side = 0; side < 2; side++) {
        outer[1]->data[0] = 0.2 + (side ? h : -h);
        moved[side] = ttt_item(outer_loss(c, one, loop_by_hand(c, one, outer[0], outer[1], unused)));
    }
    outer[1]->data[0] = 0.2;
    double difference = (moved[1] - moved[0]) / (2 * h), slope = hand_g[1]->data[0];
    printf("Asked about other keys, it errs by %.3f. Derivative of that in the rate of the first step:\n"
           "    %.6f by differences, %.6f by hand, %.6f by ttt_inner_loop\n", ttt_item(hand), difference, slope, library_g[1]->data[0]);
    claim(fabs(difference - slope) <= 1e-6 * fabs(slope), "the outer gradient in a rate is what differences measure");
    claim(ttt_max_abs_diff(hand_g[0], library_g[0]) <= 1e-12, "ttt_inner_loop has the same outer gradient in W0");
    claim(ttt_max_abs_diff(hand_g[1], library_g[1]) <= 1e-12, "and in the rates");

    // The outer loop: gradient descent on W0 and the rates, new sequences each time.
    ttt_mark m = ttt_mark_get(c);
    puts("Learning to learn, on other sequences (the rates stay equal: a linear learner's steps may come in any order):");
    for (int step = 0; step <= 300; step++) {
        ttt_tensor *g[2];
        sequences s = draw(c, common, BATCH);
        ttt_tensor *loss = outer_loss(c, s, loop_by_library(c, s, outer[0], outer[1], NULL));
        ttt_grad(c, loss, outer, 2, g, TTT_GRAD_FIRST_ORDER);
        if (!ttt_ok(c)) claim(false, ttt_error(c));
        if (step % 100 == 0) printf("    outer step %3d: answers err by %.4f; rate of each step %.2f\n", step, ttt_item(loss), outer[1]->data[0]);
        for (int64_t j = 0; j < outer[0]->size; j++) outer[0]->data[j] -= 0.3 * g[0]->data[j];
        for (int64_t j = 0; j < T; j++) outer[1]->data[j] -= 0.05 * g[1]->data[j];
        ttt_mark_release(c, m);
    }
    ttt_tensor *W = loop_by_hand(c, one, outer[0], outer[1], losses);
    print_losses("The first sequence again, from the trained W0 at the trained rates:", losses);
    printf("Asked about the same other keys, it errs by %.3f; it was %.3f.\n", ttt_item(outer_loss(c, one, W)), ttt_item(hand));
    claim(ttt_item(outer_loss(c, one, W)) < ttt_item(hand) / 20, "with the same number of steps it errs by less than a twentieth");
    ttt_close(c);
    return 0;
}
