// 06_custom_learner.c - how do I write the model that learns inside the layer myself?
//
//     cc -O2 -o lesson examples/06_custom_learner.c -lm && ./lesson
//
// A learner is three things: a table of its weights, a function that predicts with them, and a
// struct around both. All the rest follows from the operations in `predict`: the gradient steps,
// the outer gradient through them, the starting weights as parameters of the network.
//
// Here it is the gated unit that large language models use as their MLP (SwiGLU, arXiv 2002.05202),
//     f(z) = (silu(z W_gate) * z W_value) W_out
// inside an MTTT layer (lesson 3). The task: a token is a point a of the plane and the height b of
// a saddle above it. For every fourth point b is hidden, and the network should find it. The saddle
// of every sequence is turned by an angle of its own, so only the other points tell b. A layer
// whose learner is a matrix answers with a linear function of a, and on a saddle no linear function
// is better than 0. A learner that is more than a matrix can do it.
//
// Output:
//
//     none         error on new sequences 3.928
//     mttt-linear  error on new sequences 3.929;  inner loss 0.594 before, 0.345 after 4 steps
//     What the network has to train; mix/gate, mix/value and mix/out are the learner's start:
//         embed/kernel           (4,16)
//         embed/bias             (16)
//         mix/phi/kernel         (1,16,16)
//         mix/phi/bias           (1,16)
//         mix/psi/kernel         (1,16,16)
//         mix/psi/bias           (1,16)
//         mix/g/kernel           (1,16,16)
//         mix/g_bias             (1,16)
//         mix/h/kernel           (1,16,16)
//         mix/h_bias             (1,16)
//         mix/decoder_LN/scale   (1,16)
//         mix/decoder_LN/bias    (1,16)
//         mix/gate               (1,16,32)
//         mix/value              (1,16,32)
//         mix/out                (1,32,16)
//         read/kernel            (16,1)
//         read/bias              (1)
//     The derivative of the loss in all of these is off by 3e-04 from a difference.
//     ok: outer gradients pass through the steps of a learner that the library does not know
//     mttt-swiglu  error on new sequences 0.352;  inner loss 0.890 before, 0.460 after 4 steps
//     ok: my learner learns inside the layer
//     ok: without the other points no answer is better than 0, which costs 4
//     ok: a matrix that learns does no better on a saddle
//     ok: my learner does
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N = 32, HIDE = 4, D = 16, H = 1, T = 4, B = 16, STEPS = 200, TESTS = 10 };

static void claim(bool holds, const char *text) {
    fprintf(holds ? stdout : stderr, "%s %s\n", holds ? "ok:" : "FAILED:", text);
    if (!holds) exit(1);
}

// ---- the learner --------------------------------------------------------------------------------
// Shapes: H heads of width h. Each head has its own weights (axis H); predict sees those of every
// sequence, (B,H,h,2h), and x (B,H,n,h).
static const ttt_param_row weights[] = {
    { "gate", "H h 2h", TTT_INIT_XAVIER, "h", "2h", TTT_PARAM_DECAYS | TTT_PARAM_INNER, 0 },
    { "value", "H h 2h", TTT_INIT_XAVIER, "h", "2h", TTT_PARAM_DECAYS | TTT_PARAM_INNER, 0 },
    { "out", "H 2h h", TTT_INIT_XAVIER, "2h", "h", TTT_PARAM_DECAYS | TTT_PARAM_INNER, 0 },
};
static ttt_tensor *predict(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    (void)desc;  // this learner has no options
    ttt_tensor *gate = ttt_silu(c, ttt_matmul(c, x, w.at[0])), *value = ttt_matmul(c, x, w.at[1]);
    return ttt_matmul(c, ttt_mul(c, gate, value), w.at[2]);
}
static const ttt_learner swiglu = {
    .name = "swiglu", .rows = weights, .n_rows = 3, .predict = predict,
    .flops = 6,  // 6 h^2 multiply-adds a token
};

// ---- the task -----------------------------------------------------------------------------------
// tokens (B,N,4): a, b or 0, whether b is shown. wanted (B,N,1): b. hidden (B,N,1): 1 if it counts.
typedef struct {
    ttt_tensor *tokens, *wanted, *hidden;
} saddles;

static saddles draw(ttt_ctx *c) {
    saddles s = { ttt_zeros(c, TTT_SHAPE(B, N, 4)), ttt_zeros(c, TTT_SHAPE(B, N, 1)),
                  ttt_zeros(c, TTT_SHAPE(B, N, 1)) };
    ttt_rng *r = ttt_ctx_rng(c);
    double angle = 0;
    for (int i = 0; ttt_ok(c) && i < B * N; i++) {
        if (i % N == 0) angle = 6.2831853 * ttt_rng_uniform(r);
        double a[2] = { ttt_rng_normal(r), ttt_rng_normal(r) };
        double C = cos(angle), S = sin(angle);
        double b = 2 * (C * a[0] + S * a[1]) * (C * a[1] - S * a[0]);
        bool hide = i % HIDE == 0;
        const double token[4] = { a[0], a[1], hide ? 0 : b, hide ? 0 : 1 };
        for (int j = 0; j < 4; j++) s.tokens->data[4 * i + j] = (ttt_real)token[j];
        s.wanted->data[i] = (ttt_real)b;
        s.hidden->data[i] = hide;
    }
    return s;
}

// ---- a network of one such layer ----------------------------------------------------------------
typedef struct {
    ttt_params p;
    ttt_mixer_desc d;
    ttt_weights embed, mix, read;
    saddles data;
} net;

static net make(ttt_ctx *c, const ttt_mixer *mixer) {
    net m = { .d = { .dim = D, .heads = H, .inner_steps = T, .inner_lr = 1 } };
    m.d = ttt_mixer_offer(mixer, &m.d);  // the mixer `none` takes no option
    m.embed = ttt_dense_new(c, 4, D, TTT_INIT_XAVIER, &m.p, "embed");
    m.mix = ttt_mixer_new(c, &m.d, &m.p, "mix");
    m.read = ttt_dense_new(c, D, 1, TTT_INIT_XAVIER, &m.p, "read");
    if (!ttt_ok(c)) claim(false, ttt_error(c));
    return m;
}

// The mean squared error at the hidden b. inner: NULL, or receives the layer's inner losses.
static ttt_tensor *loss_of(ttt_ctx *c, const net *m, ttt_tensor **inner) {
    ttt_tensor *x = ttt_dense(c, m->embed, m->data.tokens);
    x = ttt_add(c, x, ttt_mixer_forward(c, &m->d, m->mix, x, inner));
    ttt_tensor *error = ttt_sub(c, ttt_dense(c, m->read, x), m->data.wanted);
    error = ttt_mul(c, error, m->data.hidden);
    return ttt_scale(c, ttt_mean(c, ttt_square(c, error)), HIDE);
}
static ttt_tensor *loss_for_check(ttt_ctx *c, ttt_tensor *const *x, int n, void *m) {
    (void)x;
    (void)n;
    return loss_of(c, (const net *)m, NULL);
}

static void look_at(ttt_ctx *c, net *m) {
    puts("What the network has to train; mix/gate, mix/value and mix/out are the learner's start:");
    for (int i = 0; i < m->p.n; i++) {
        ttt_text shape;
        printf("    %-23s%s\n", m->p.item[i].name, ttt_shape_text(m->p.value[i]->shape, shape));
    }
    m->data = draw(c);
    double off = ttt_check_gradient(c, loss_for_check, m->p.value, m->p.n, m, 1, 2e-4);
    printf("The derivative of the loss in all of these is off by %.0e from a difference.\n", off);
    claim(off < 3e-2,
          "outer gradients pass through the steps of a learner that the library does not know");
}

static void train(ttt_ctx *c, net *m) {
    ttt_optimizer_desc o = { .lr = (ttt_real)0.01, .clip = 1, .warmup = 20, .total = STEPS };
    ttt_optimizer *opt = ttt_optimizer_new(c, &o, &m->p);
    for (int step = 0; step < STEPS; step++) {
        ttt_mark mark = ttt_mark_get(c);
        m->data = draw(c);
        ttt_optimizer_step(c, opt, loss_of(c, m, NULL));
        if (!ttt_ok(c)) claim(false, ttt_error(c));
        ttt_mark_release(c, mark);
    }
}

int main(void) {
    ttt_mixer mine = *ttt_mixer_find("mttt-linear");  // like this one, but with another learner
    mine.name = "mttt-swiglu";
    mine.learner = &swiglu;
    const ttt_mixer *const mixers[] = { ttt_mixer_find("none"), ttt_mixer_find("mttt-linear"),
                                        &mine };
    double error[3] = { 0 };
    for (int k = 0; k < 3; k++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 6 });
        if (!c) return 1;
        net m = make(c, mixers[k]);
        if (mixers[k] == &mine) look_at(c, &m);
        train(c, &m);
        ttt_set_recording(c, false);  // no outer gradient from here on; the learners still learn
        ttt_tensor *inner = NULL;
        for (int i = 0; i < TESTS; i++) {
            m.data = draw(c);
            error[k] += ttt_item(loss_of(c, &m, mixers[k]->learner ? &inner : NULL)) / TESTS;
        }
        if (!ttt_ok(c)) claim(false, ttt_error(c));
        printf("%-12s error on new sequences %.3f", mixers[k]->name, error[k]);
        if (inner)
            printf(";  inner loss %.3f before, %.3f after %d steps", (double)inner->data[0],
                   (double)inner->data[T], T);
        puts("");
        if (mixers[k] == &mine)
            claim(inner->data[T] < inner->data[0], "my learner learns inside the layer");
        ttt_close(c);
    }
    claim(error[0] > 3.5, "without the other points no answer is better than 0, which costs 4");
    claim(error[1] > 3.5, "a matrix that learns does no better on a saddle");
    claim(error[2] < 1, "my learner does");
    return fflush(stdout) || ferror(stdout);
}
