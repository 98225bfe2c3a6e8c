// 01_gradient.c - how can one take the gradient of something that was itself made with a gradient?
//
//     cc -O2 -o lesson examples/01_gradient.c -lm && ./lesson
//
// A layer that learns at test time takes gradient steps on the input it reads. To train the network
// around it, we ask how the loss changes when the weights *before* those steps change. That is a
// gradient through a gradient.
//
// 1. On a blackboard. A learner with one weight w should map k = 2 to v = 6. Its loss is
//    (k w - v)^2, the slope of the loss is g = 2 k (k w - v), and it takes one step w1 = w - 1/4 g.
//    Then we test it: it should map 1 to 3, which costs L = (w1 - 3)^2. How does L depend on w?
//        dL/dw = dL/dw1 dw1/dw = 2 (w1 - 3) (1 - 1/4 2 k^2)
//    The last factor comes from the step, because g depends on w too. The "first-order" answer
//    takes g for a constant and puts 1 in its place. Here the factor is -1, as the step overshoots:
//    the first-order answer has the wrong sign.
// 2. On the tape. Every operation runs at once and also writes down what it was and what it read.
//    ttt_grad walks from the loss back to w and computes the gradient with the same operations.
//    With TTT_GRAD_RECORD it writes these down as well. Then g has a history like any other number,
//    and a second walk, from L, passes through it. There is no other trick.
// 3. At a larger size: two layers and three steps, against finite differences, which know no
//    calculus.
//
// Output:
//
//     The tape, oldest first. (The numbers of scale and add_scalar are not shown.)
//     ttt_grad wrote what stands between loss and g: #6 is dloss/dloss, #8 is dloss/d#4.
//         k    =   2   given
//         w    =   1   given
//         #3   =   2   mul k w
//         v    =   6   given
//         #4   =  -4   sub #3 v
//         loss =  16   square #4
//         #6   =   1   given
//         #7   =  -4   mul #6 #4
//         #8   =  -8   scale #7
//         g    = -16   mul #8 k
//         #10  =  -4   scale g
//         w1   =   5   sub w #10
//         #12  =   2   add_scalar w1
//         L    =   4   square #12
//     dL/dw through the step: -4;  with g for a constant: 4
//     ok: the tape has the gradient of the blackboard
//     ok: the first-order gradient has the wrong sign here
//     without TTT_GRAD_RECORD: "grad: this would differentiate through a gradient that was..."
//     ok: forgetting TTT_GRAD_RECORD is an error, not a wrong number
//
//     Two layers, 3 steps: the loss falls from 1.715 to 0.929.
//     Its derivative in some of the weights at the start:
//         difference   through the steps   first order
//          -0.031999           -0.031999     -0.035784
//           0.006056            0.006056      0.005847
//           0.004583            0.004583      0.029079
//           0.003603            0.003603     -0.000232
//           0.005079            0.005079      0.028655
//           0.009585            0.009585      0.013590
//           0.005901            0.005901     -0.006834
//           0.011852            0.011852      0.019351
//         mean error, as a share of the mean: 8.3e-09 through the steps, 0.58 first order
//     ok: no error on the way
//     ok: the gradient through three steps is the derivative that differences measure
//     ok: the first-order gradient is not
#define TTT_REAL double  // differences want more digits than floats have
#define TTT_IMPLEMENTATION
#include "../ttt_tensor.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void claim(bool holds, const char *text) {
    fprintf(holds ? stdout : stderr, "%s %s\n", holds ? "ok:" : "FAILED:", text);
    if (!holds) exit(1);
}

// ---- what the tape holds ------------------------------------------------------------------------
// Prints what t was made from, oldest first. Those in `known` have names, the others numbers.
static const char *name_of(ttt_tensor *const *known, const ttt_tensor *t, char *text) {
    static const char *const letters[] = { "w", "k", "v", "loss", "g", "w1", "L" };
    for (int i = 0; i < 7; i++)
        if (known[i] == t) return letters[i];
    snprintf(text, 24, "#%lld", (long long)t->id);
    return text;
}
static void print_tape(ttt_tensor *const *known, const ttt_tensor *t, bool *printed) {
    char a[24], b[24];
    if (printed[t->id]) return;
    printed[t->id] = true;
    for (int i = 0; i < t->n_in; i++) print_tape(known, t->in[i], printed);
    printf("    %-4s = %3g   %s", name_of(known, t, a), t->data[0], t->op ? t->op->name : "given");
    for (int i = 0; i < t->n_in; i++) printf(" %s", name_of(known, t->in[i], b));
    puts("");
}

static void on_a_blackboard(ttt_ctx *c) {
    ttt_tensor *w = ttt_scalar(c, 1), *k = ttt_scalar(c, 2), *v = ttt_scalar(c, 6), *g, *dL;
    ttt_tensor *loss = ttt_square(c, ttt_sub(c, ttt_mul(c, k, w), v));
    ttt_grad(c, loss, &w, 1, &g, TTT_GRAD_RECORD);
    ttt_tensor *w1 = ttt_sub(c, w, ttt_scale(c, g, 0.25));
    ttt_tensor *L = ttt_square(c, ttt_add_scalar(c, w1, -3));
    ttt_tensor *known[] = { w, k, v, loss, g, w1, L };
    bool printed[100] = { false };
    puts("The tape, oldest first. (The numbers of scale and add_scalar are not shown.)\n"
         "ttt_grad wrote what stands between loss and g: #6 is dloss/dloss, #8 is dloss/d#4.");
    print_tape(known, loss, printed);
    print_tape(known, L, printed);
    ttt_grad(c, L, &w, 1, &dL, TTT_GRAD_FIRST_ORDER);

    ttt_tensor *dL_first, *w1_first = ttt_sub(c, w, ttt_scale(c, ttt_detach(c, g), 0.25));
    ttt_tensor *L_first = ttt_square(c, ttt_add_scalar(c, w1_first, -3));
    ttt_grad(c, L_first, &w, 1, &dL_first, TTT_GRAD_FIRST_ORDER);
    double full = ttt_item(dL), first_order = ttt_item(dL_first);
    printf("dL/dw through the step: %g;  with g for a constant: %g\n", full, first_order);
    claim(full == 2 * (5 - 3) * (1 - 0.25 * 2 * 4), "the tape has the gradient of the blackboard");
    claim(first_order == 4, "the first-order gradient has the wrong sign here");

    // Nobody makes this mistake in silence: there is no path through an unrecorded gradient.
    ttt_grad(c, loss, &w, 1, &g, TTT_GRAD_FIRST_ORDER);
    ttt_tensor *careless = ttt_sub(c, w, ttt_scale(c, g, 0.25));
    L = ttt_square(c, ttt_add_scalar(c, careless, -3));
    ttt_grad(c, L, &w, 1, &dL, TTT_GRAD_FIRST_ORDER);
    printf("without TTT_GRAD_RECORD: \"%.58s...\"\n", ttt_error(c));
    claim(ttt_status(c) == TTT_ERR_FIRST_ORDER,
          "forgetting TTT_GRAD_RECORD is an error, not a wrong number");
    ttt_clear(c);
}

// ---- at a larger size ---------------------------------------------------------------------------
enum { TOKENS = 20, WIDTH = 8, STEPS = 3 };
typedef struct {
    ttt_tensor *k, *v;  // the learner should map k to v
    bool first_order;
} task;

static ttt_tensor *loss_of(ttt_ctx *c, const task *t, ttt_tensor *const *w) {
    ttt_tensor *hidden = ttt_tanh(c, ttt_matmul(c, t->k, w[0]));
    return ttt_mse(c, ttt_matmul(c, hidden, w[1]), t->v);
}
static ttt_tensor *loss_after_learning(ttt_ctx *c, const task *t, ttt_tensor *const *w0) {
    ttt_tensor *w[2] = { w0[0], w0[1] }, *g[2];
    for (int step = 0; step < STEPS; step++) {
        ttt_grad(c, loss_of(c, t, w), w, 2, g, TTT_GRAD_RECORD);
        for (int i = 0; i < 2; i++) {
            if (t->first_order) g[i] = ttt_detach(c, g[i]);
            w[i] = ttt_sub(c, w[i], ttt_scale(c, g[i], 0.8));
        }
    }
    return loss_of(c, t, w);
}

int main(void) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 1 });
    if (!c) return 1;
    on_a_blackboard(c);

    task t = { .first_order = false };
    t.k = ttt_randn(c, TTT_SHAPE(TOKENS, WIDTH));
    t.v = ttt_randn(c, TTT_SHAPE(TOKENS, WIDTH));
    ttt_tensor *w0[2], *full[2], *first[2];
    for (int i = 0; i < 2; i++) w0[i] = ttt_scale(c, ttt_randn(c, TTT_SHAPE(WIDTH, WIDTH)), 0.5);
    ttt_tensor *after = loss_after_learning(c, &t, w0);
    printf("\nTwo layers, %d steps: the loss falls from %.3f to %.3f.\n", STEPS,
           ttt_item(loss_of(c, &t, w0)), ttt_item(after));
    ttt_grad(c, after, w0, 2, full, TTT_GRAD_FIRST_ORDER);
    t.first_order = true;
    ttt_grad(c, loss_after_learning(c, &t, w0), w0, 2, first, TTT_GRAD_FIRST_ORDER);

    puts("Its derivative in some of the weights at the start:\n"
         "    difference   through the steps   first order");
    double all = 0, off = 0, off_first = 0, h = 1e-4;
    ttt_mark m = ttt_mark_get(c);
    for (int i = 0; i < 2; i++)
        for (int64_t j = 0; j < w0[i]->size; j++) {
            ttt_real start = w0[i]->data[j], value[2];
            // Move one weight, learn again, look at the loss.
            for (int side = 0; side < 2; side++) {
                w0[i]->data[j] = start + (side ? h : -h);
                value[side] = ttt_item(loss_after_learning(c, &t, w0));
                ttt_mark_release(c, m);
            }
            w0[i]->data[j] = start;
            double difference = (value[1] - value[0]) / (2 * h);
            double d = full[i]->data[j], d_first = first[i]->data[j];
            if (j % 20 == 0) printf("    %10.6f   %17.6f   %11.6f\n", difference, d, d_first);
            all += fabs(difference);
            off += fabs(difference - d);
            off_first += fabs(difference - d_first);
        }
    printf("    mean error, as a share of the mean: %.1e through the steps, %.2f first order\n",
           off / all, off_first / all);
    claim(ttt_ok(c), "no error on the way");
    claim(off <= 1e-6 * all,
          "the gradient through three steps is the derivative that differences measure");
    claim(off_first >= 0.1 * all, "the first-order gradient is not");
    ttt_close(c);
    return fflush(stdout) || ferror(stdout);
}
