// 02_inner_loop.c - what does a layer that learns at test time do with a sequence?
//
//     cc -O2 -o lesson examples/02_inner_loop.c -lm && ./lesson
//
// Attention keeps every key and value of a sequence and compares. The layers of this library keep
// none: they *learn* the sequence, as one learns a data set. Every token says "the value of key k
// is v". A few steps of gradient descent fit a small model, here just a matrix W, to these pairs.
// Then the model answers queries. That is the inner loop:
//     loss      l(W) = 1/2 mean over tokens of |k W - v|^2         how badly W knows the sequence
//     T times   W = W - eta K^T (K W - V) / N                      the last factor is dl/dW
//     output    q W                                                the answer to a query q
// W is forgotten afterwards. Two things stay: the W0 from which it starts and the rates eta. They
// are parameters, and the *outer* loop trains them through these steps (lesson 1), so that T steps
// get as far as possible: learning to learn. Here every sequence follows a rule V = K A of its own.
// All rules have a part in common, which W0 can hold; the steps must learn the rest.
//
// Output:
//
//     A sequence, learned at rates 0.2 from W0 = 0 (which answers 0):
//         loss after 0 steps  2.7307 #######################################################
//         loss after 1 steps  1.6342 #################################
//         loss after 2 steps  1.0270 #####################
//         loss after 3 steps  0.6769 ##############
//         loss after 4 steps  0.4658 #########
//     ok: every step lowers the loss
//     ok: ttt_inner_loop reports the same losses
//     ok: and learns the same W
//     On other keys its error is 0.836. The derivative in the rate of the first step:
//         -1.175760 by differences, -1.175760 by hand, -1.175760 by ttt_inner_loop
//     ok: differences measure the outer gradient in a rate
//     ok: ttt_inner_loop has the same outer gradient in W0
//     ok: and in the rates
//     Learning to learn, on other sequences (linear steps in any order give the same W):
//         outer step   0: error 0.8207; rate of each step 0.20
//         outer step 100: error 0.0248; rate of each step 0.64
//         outer step 200: error 0.0227; rate of each step 0.68
//         outer step 300: error 0.0106; rate of each step 0.64
//     The first sequence again, from the trained W0 at the trained rates:
//         loss after 0 steps  0.5802 ############
//         loss after 1 steps  0.0861 ##
//         loss after 2 steps  0.0206
//         loss after 3 steps  0.0063
//         loss after 4 steps  0.0024
//     On the same other keys its error is 0.006; it was 0.836.
//     ok: with the same number of steps the error is less than a twentieth
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

// ---- sequences ----------------------------------------------------------------------------------
// B sequences of shape (B,H,N,width), with one head. The rule of each is A = common + own.
typedef struct {
    ttt_tensor *k, *v, *q, *answer;
} sequences;

static sequences draw(ttt_ctx *c, ttt_tensor *common, int64_t B) {
    sequences s;
    s.k = ttt_randn(c, TTT_SHAPE(B, 1, N, WIDTH));
    s.q = ttt_randn(c, TTT_SHAPE(B, 1, N, WIDTH));
    ttt_tensor *A = ttt_randn(c, TTT_SHAPE(B, 1, WIDTH, WIDTH));
    A = ttt_add(c, common, ttt_scale(c, A, 0.3));
    s.v = ttt_matmul(c, s.k, A);
    s.answer = ttt_matmul(c, s.q, A);
    return s;
}

// 1/2 mean over tokens of |got - wanted|^2, summed over sequences.
static ttt_tensor *half_squares(ttt_ctx *c, const void *arg, ttt_tensor *got, ttt_tensor *wanted) {
    (void)arg;
    return ttt_scale(c, ttt_sum(c, ttt_square(c, ttt_sub(c, got, wanted))), 0.5 / N);
}

// ---- the inner loop, by hand and by the library -------------------------------------------------
static ttt_tensor *loop_by_hand(ttt_ctx *c, sequences s, ttt_tensor *W0, ttt_tensor *rates,
                                double *losses) {
    ttt_tensor *W = W0;
    for (int t = 0; t < T; t++) {
        ttt_tensor *error = ttt_sub(c, ttt_matmul(c, s.k, W), s.v);  // K W - V, (1,1,N,width)
        ttt_tensor *slope = ttt_scale(c, ttt_matmul_t(c, s.k, error, true, false), 1. / N);
        losses[t] = ttt_item(half_squares(c, NULL, ttt_matmul(c, s.k, W), s.v));
        W = ttt_sub(c, W, ttt_mul(c, slope, ttt_slice(c, rates, 0, t, 1)));
    }
    losses[T] = ttt_item(half_squares(c, NULL, ttt_matmul(c, s.k, W), s.v));
    return W;
}

// The same in words: the learner, what it sees, what it should say, its loss, steps and rates.
static ttt_tensor *loop_by_library(ttt_ctx *c, sequences s, ttt_tensor *W0, ttt_tensor *rates,
                                   ttt_tensor **losses) {
    ttt_inner in = { .learner = &ttt_learner_linear, .train = s.k, .label = s.v,
                     .loss = half_squares, .steps = T, .learned_rates = rates };
    ttt_weights w0 = { &W0, 1 }, w = ttt_inner_loop(c, &in, w0, losses);  // a matrix and no bias
    return ttt_ok(c) ? w.at[0] : W0;
}

// The error of W's answers to the queries, a mean over sequences: what the outer loop lowers.
static ttt_tensor *outer_loss(ttt_ctx *c, sequences s, ttt_tensor *W) {
    ttt_tensor *sum = half_squares(c, NULL, ttt_matmul(c, s.q, W), s.answer);
    return ttt_scale(c, sum, 1. / (double)s.q->shape.dim[0]);
}

static void print_losses(const char *title, const double *losses) {
    static const char bar[] = "############################################################";
    puts(title);
    for (int t = 0; t <= T; t++)
        printf("    loss after %d steps %7.4f %.*s\n", t, losses[t],
               (int)fmin(60, 20 * losses[t] + 0.5), bar);
}

// ---- 1. one sequence: hand and library agree, in values and in outer gradients ------------------
static double compare(ttt_ctx *c, sequences one, ttt_tensor *const *outer) {
    double losses[T + 1], apart = 0, falls = 0;
    ttt_tensor *reported, *hand_g[2], *library_g[2];
    ttt_tensor *hand_W = loop_by_hand(c, one, outer[0], outer[1], losses);
    ttt_tensor *library_W = loop_by_library(c, one, outer[0], outer[1], &reported);
    ttt_tensor *hand = outer_loss(c, one, hand_W), *library = outer_loss(c, one, library_W);
    ttt_grad(c, hand, outer, 2, hand_g, TTT_GRAD_FIRST_ORDER);
    ttt_grad(c, library, outer, 2, library_g, TTT_GRAD_FIRST_ORDER);
    if (!ttt_ok(c)) claim(false, ttt_error(c));
    print_losses("A sequence, learned at rates 0.2 from W0 = 0 (which answers 0):", losses);
    for (int t = 0; t < T; t++) falls += losses[t + 1] < losses[t];
    for (int t = 0; t <= T; t++) apart += fabs(losses[t] - reported->data[t]);
    claim(falls == T, "every step lowers the loss");
    claim(apart <= 1e-12, "ttt_inner_loop reports the same losses");
    hand_W = ttt_reshape(c, hand_W, library_W->shape);
    claim(ttt_max_abs_diff(hand_W, library_W) <= 1e-12, "and learns the same W");

    double h = 1e-4, moved[2], unused[T + 1];
    for (int side = 0; side < 2; side++) {
        outer[1]->data[0] = 0.2 + (side ? h : -h);
        ttt_tensor *W = loop_by_hand(c, one, outer[0], outer[1], unused);
        moved[side] = ttt_item(outer_loss(c, one, W));
    }
    outer[1]->data[0] = 0.2;
    double difference = (moved[1] - moved[0]) / (2 * h), slope = hand_g[1]->data[0];
    printf("On other keys its error is %.3f. The derivative in the rate of the first step:\n"
           "    %.6f by differences, %.6f by hand, %.6f by ttt_inner_loop\n",
           ttt_item(hand), difference, slope, library_g[1]->data[0]);
    claim(fabs(difference / slope - 1) <= 1e-6, "differences measure the outer gradient in a rate");
    for (int i = 0; i < 2; i++)
        claim(ttt_max_abs_diff(hand_g[i], library_g[i]) <= 1e-12,
              i ? "and in the rates" : "ttt_inner_loop has the same outer gradient in W0");
    return ttt_item(hand);
}

// ---- 2. the outer loop: gradient descent on W0 and the rates, with new sequences each time ------
static void learn_to_learn(ttt_ctx *c, ttt_tensor *common, ttt_tensor *const *outer) {
    puts("Learning to learn, on other sequences (linear steps in any order give the same W):");
    ttt_mark m = ttt_mark_get(c);
    for (int step = 0; step <= 300; step++) {
        ttt_tensor *g[2];
        sequences s = draw(c, common, BATCH);
        ttt_tensor *loss = outer_loss(c, s, loop_by_library(c, s, outer[0], outer[1], NULL));
        ttt_grad(c, loss, outer, 2, g, TTT_GRAD_FIRST_ORDER);
        if (!ttt_ok(c)) claim(false, ttt_error(c));
        double rate = outer[1]->data[0], error = ttt_item(loss);
        if (step % 100 == 0)
            printf("    outer step %3d: error %.4f; rate of each step %.2f\n", step, error, rate);
        for (int64_t j = 0; j < outer[0]->size; j++) outer[0]->data[j] -= 0.3 * g[0]->data[j];
        for (int64_t j = 0; j < T; j++) outer[1]->data[j] -= 0.05 * g[1]->data[j];
        ttt_mark_release(c, m);
    }
}

int main(void) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 2 });
    if (!c) return 1;
    ttt_params p = { 0 };
    static const ttt_param_row rows[] = {
        { "W0", "H h h", TTT_INIT_ZERO, NULL, NULL, TTT_PARAM_INNER, 0 },
        { "rates", "T", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
    };
    ttt_sizes sizes = { .of = { ['H'] = 1, ['h'] = WIDTH, ['T'] = T } };
    ttt_tensor *const *outer = ttt_params_add(c, rows, 2, 0, &sizes, &p, "loop").at;  // W0, rates
    ttt_tensor *common = ttt_scale(c, ttt_randn(c, TTT_SHAPE(WIDTH, WIDTH)), 0.5);
    if (!outer) return 1;
    for (int t = 0; t < T; t++) outer[1]->data[t] = 0.2;

    sequences one = draw(c, common, 1);
    double losses[T + 1], error = compare(c, one, outer);
    learn_to_learn(c, common, outer);
    ttt_tensor *W = loop_by_hand(c, one, outer[0], outer[1], losses);
    double trained = ttt_item(outer_loss(c, one, W));
    print_losses("The first sequence again, from the trained W0 at the trained rates:", losses);
    printf("On the same other keys its error is %.3f; it was %.3f.\n", trained, error);
    claim(trained < error / 20, "with the same number of steps the error is less than a twentieth");
    ttt_close(c);
    return fflush(stdout) || ferror(stdout);
}
