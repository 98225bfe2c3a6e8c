// 08_weights_as_arrays.c - what is a network, if its weights are just an array?
//
//     cc -O2 -o lesson examples/08_weights_as_arrays.c -lm && ./lesson
//
// In this library a network is a function of a description, weights and an input. The weights are
// an array of tensors, ttt_weights { at, n }, in the order of the network's parameters. They may be
// the parameters or any other tensors of these shapes. ttt_descend makes such an array: the weights
// after one step of gradient descent on a loss. The step is ordinary arithmetic on the tape (lesson
// 1), so a network that runs with the new weights passes a gradient back to the old ones.
//     So a whole network can do what the layers of this library do inside: learn at test time. Here
// each task is a sine wave with a height and a phase of its own. The network sees ten points of it
// and must find others. No network can know all waves beforehand, but it can learn to learn them:
// train the weights so that the answers are right *after* one step on ten points. That is MAML
// [Finn et al. 2017, arXiv 1703.03400], and its outer gradient is one call.
//
// Output:
//
//     One network on ten points of a sine wave, with
//         its own weights      error 4.4628
//         those after a step   error 1.4642
//         the middle of both   error 2.6935
//     ok: the step lowers the error
//     ok: and leaves the network's own weights as they were
//     How the answers after the step depend on one weight before it:
//         0.00926904 by differences, 0.00926904 by ttt_grad
//     ok: the gradient passes through the step
//     Errors on new waves after      0       1       2       3       4       5 steps
//         from drawn weights      1.7182  0.9948  0.8946  0.8840  0.8908  0.9007
//         from trained weights    0.9036  0.1573  0.0898  0.0703  0.0594  0.0536
//     ok: after one step the trained weights have less than a quarter of the error
//     ok: they do not know the waves beforehand: they have learned to learn
#define TTT_REAL double
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HIDDEN = 40, POINTS = 10, TASKS = 10, OUTER_STEPS = 2000 };

static void claim(bool holds, const char *text) {
    fprintf(holds ? stdout : stderr, "%s %s\n", holds ? "ok:" : "FAILED:", text);
    if (!holds) exit(1);
}

// ---- a network ----------------------------------------------------------------------------------
// Its list of parameters, and its function. Each layer takes the next weights of the array.
static ttt_weights network_new(ttt_ctx *c, ttt_params *p) {
    ttt_dense_new(c, 1, HIDDEN, TTT_INIT_XAVIER, p, "first");
    ttt_dense_new(c, HIDDEN, HIDDEN, TTT_INIT_XAVIER, p, "second");
    ttt_dense_new(c, HIDDEN, 1, TTT_INIT_XAVIER, p, "last");
    return ttt_params_weights(p);
}
static ttt_tensor *network(ttt_ctx *c, ttt_weights w, ttt_tensor *x) {
    x = ttt_tanh(c, ttt_dense(c, ttt_weights_take(c, "network", &w, 2), x));
    x = ttt_tanh(c, ttt_dense(c, ttt_weights_take(c, "network", &w, 2), x));
    return ttt_dense(c, w, x);
}

// ---- tasks --------------------------------------------------------------------------------------
// A sine wave, y = height sin(x + phase): points (n,1) to learn from, and others to answer for.
typedef struct {
    ttt_tensor *x, *y, *asked, *answer;
} task;

static ttt_tensor *wave(ttt_ctx *c, const ttt_tensor *x, double height, double phase) {
    ttt_tensor *y = ttt_new(c, x->shape);
    for (int64_t i = 0; ttt_ok(c) && i < y->size; i++)
        y->data[i] = height * sin(x->data[i] + phase);
    return y;
}
static task draw(ttt_ctx *c) {
    double height = 0.5 + 2 * ttt_rng_uniform(ttt_ctx_rng(c)),
           phase = 3.14159265358979 * ttt_rng_uniform(ttt_ctx_rng(c));
    task t = { .x = ttt_uniform(c, TTT_SHAPE(POINTS, 1), -3, 3),
               .asked = ttt_uniform(c, TTT_SHAPE(POINTS, 1), -3, 3) };
    t.y = wave(c, t.x, height, phase);
    t.answer = wave(c, t.asked, height, phase);
    return t;
}

static ttt_tensor *error_on_points(ttt_ctx *c, ttt_weights w, const task *t) {
    return ttt_mse(c, network(c, w, t->x), t->y);
}
static ttt_tensor *error_of_answers(ttt_ctx *c, ttt_weights w, const task *t) {
    return ttt_mse(c, network(c, w, t->asked), t->answer);
}

// The weights after `steps` steps on the points of a task.
static ttt_weights learned(ttt_ctx *c, ttt_weights w, const task *t, int steps) {
    ttt_descent step = { .rate = 0.02 };
    for (int i = 0; i < steps; i++) w = ttt_descend(c, &step, w, error_on_points(c, w, t), NULL);
    return w;
}

// ---- 1. other weights ---------------------------------------------------------------------------
static void run_with_other_weights(ttt_ctx *c, ttt_weights w) {
    task t = draw(c);
    double own = ttt_item(error_on_points(c, w, &t));
    ttt_weights after = learned(c, w, &t, 1), middle = ttt_weights_copy(c, w, false);
    ttt_weights_blend(c, middle, after, 0.5);
    printf("One network on ten points of a sine wave, with\n");
    printf("    its own weights      error %.4f\n", own);
    printf("    those after a step   error %.4f\n", ttt_item(error_on_points(c, after, &t)));
    printf("    the middle of both   error %.4f\n", ttt_item(error_on_points(c, middle, &t)));
    claim(ttt_item(error_on_points(c, after, &t)) < own, "the step lowers the error");
    claim(ttt_item(error_on_points(c, w, &t)) == own,
          "and leaves the network's own weights as they were");
}

// ---- 2. a gradient through the step -------------------------------------------------------------
static double after_a_step(ttt_ctx *c, ttt_weights w, const task *t, double *number, double value) {
    double before = *number;
    *number = value;
    double error = ttt_item(error_of_answers(c, learned(c, w, t, 1), t));
    *number = before;
    return error;
}
static void differentiate_through_a_step(ttt_ctx *c, ttt_weights w) {
    task t = draw(c);
    double *number = &w.at[2]->data[7], move = 1e-5;
    double above = after_a_step(c, w, &t, number, *number + move);
    double below = after_a_step(c, w, &t, number, *number - move);
    double difference = (above - below) / (2 * move);
    ttt_tensor *g;
    ttt_grad(c, error_of_answers(c, learned(c, w, &t, 1), &t), &w.at[2], 1, &g,
             TTT_GRAD_FIRST_ORDER);
    printf("How the answers after the step depend on one weight before it:\n");
    printf("    %.8f by differences, %.8f by ttt_grad\n", difference, g->data[7]);
    claim(fabs(difference - g->data[7]) < 1e-6 * (1 + fabs(difference)),
          "the gradient passes through the step");
}

// ---- 3. learning to learn -----------------------------------------------------------------------
static void learn_to_learn(ttt_ctx *c, ttt_params *p) {
    ttt_optimizer_desc o = { .lr = 0.003 };
    ttt_optimizer *opt = ttt_optimizer_new(c, &o, p);
    for (int i = 0; i < OUTER_STEPS && ttt_ok(c); i++) {
        ttt_mark m = ttt_mark_get(c);
        ttt_tensor *loss = ttt_scalar(c, 0);
        for (int k = 0; k < TASKS; k++) {
            task t = draw(c);
            ttt_weights after = learned(c, ttt_params_weights(p), &t, 1);
            loss = ttt_add(c, loss, ttt_scale(c, error_of_answers(c, after, &t), 1.0 / TASKS));
        }
        ttt_optimizer_step(c, opt, loss);  // d loss / d weights, through each task's step
        ttt_mark_release(c, m);
    }
}

// The mean error of answers on 100 new waves, after each number of steps.
enum { MOST_STEPS = 5 };
static void measure(ttt_ctx *c, ttt_weights w, double *error) {
    ttt_rng rng = *ttt_ctx_rng(c);
    *ttt_ctx_rng(c) = ttt_rng_fold(rng, 100);  // the same waves each time
    for (int s = 0; s <= MOST_STEPS; s++) error[s] = 0;
    for (int k = 0; k < 100; k++) {
        ttt_mark m = ttt_mark_get(c);
        task t = draw(c);
        for (int s = 0; s <= MOST_STEPS; s++)
            error[s] += ttt_item(error_of_answers(c, learned(c, w, &t, s), &t)) / 100;
        ttt_mark_release(c, m);
    }
    *ttt_ctx_rng(c) = rng;
}
static void show(const char *who, const double *error) {
    printf("    %-22s", who);
    for (int s = 0; s <= MOST_STEPS; s++) printf(" %7.4f", error[s]);
    puts("");
}

int main(void) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 1 });
    ttt_params p = { 0 };
    ttt_weights w = network_new(c, &p);
    double drawn[MOST_STEPS + 1], trained[MOST_STEPS + 1];

    run_with_other_weights(c, w);
    differentiate_through_a_step(c, w);

    measure(c, w, drawn);
    learn_to_learn(c, &p);
    measure(c, w, trained);
    printf("Errors on new waves after      0       1       2       3       4       5 steps\n");
    show("from drawn weights", drawn);
    show("from trained weights", trained);
    claim(trained[1] < 0.25 * drawn[1],
          "after one step the trained weights have less than a quarter of the error");
    claim(trained[0] > 4 * trained[1],
          "they do not know the waves beforehand: they have learned to learn");
    if (!ttt_ok(c)) fprintf(stderr, "%s\n", ttt_error(c));
    int failed = !ttt_ok(c) || fflush(stdout) || ferror(stdout);
    ttt_close(c);
    return failed;
}
