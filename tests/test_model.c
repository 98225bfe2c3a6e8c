// Tests of ttt_model.h.
#include <stdbool.h>
#include <stdlib.h>
static long mallocs;          // how often the library asked for memory
static bool out_of_memory;    // and whether it gets none
static bool served(void) {
    mallocs++;
    return !out_of_memory;
}
#define TTT_MALLOC(user, n) ((void)(user), served() ? malloc(n) : NULL)
#define TTT_REALLOC(user, p, n) ((void)(user), served() ? realloc(p, n) : NULL)
#define TTT_FREE(user, p) ((void)(user), free(p))
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "ttt_test.h"
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

#define DOUBLE (sizeof(ttt_real) == 8)
#define REAL(x) ((ttt_real)(x))
#define EPS (DOUBLE ? 2.3e-16 : 1.2e-7)

// A small model with its optimizer, images and labels.
typedef struct {
    ttt_ctx *c;
    ttt_params p;
    ttt_vit_desc vit;
    ttt_optimizer *opt;
} model;

static const ttt_vit_desc small = {
    .image = 8, .channels = 2, .patch = 2, .width = 12, .depth = 2, .classes = 5
};
static ttt_vit_desc with_mixer(const char *name) {
    ttt_vit_desc d = small;
    d.mixer = (ttt_mixer_desc){ .heads = 3, .inner_lr = 1 };
    d.mixer = ttt_mixer_offer(ttt_mixer_find(name), &d.mixer);
    return d;
}

static model make_model(ttt_vit_desc d, ttt_optimizer_desc o, int threads) {
    model m = { .c = ttt_open(&(ttt_desc){ .seed = 3, .threads = threads }) };
    m.vit = d;
    ttt_vit_new(m.c, &d, &m.p, "");
    ttt_params *kept = ttt_alloc(m.c, sizeof *kept, true);
    *kept = m.p;
    if (!o.lr) o.lr = (ttt_real)0.01;
    m.opt = ttt_optimizer_new(m.c, &o, kept);
    return m;
}

static ttt_tensor *images(ttt_ctx *c, int64_t B, uint64_t seed) {
    ttt_rng r = ttt_rng_at(seed, 0, 0, 0);
    ttt_tensor *x = ttt_new(c, TTT_SHAPE(B, 8, 8, 2));
    for (int64_t i = 0; i < x->size; i++) x->data[i] = (ttt_real)ttt_rng_normal(&r);
    return x;
}
static ttt_tensor *targets(ttt_ctx *c, int64_t B) {
    int64_t label[64];
    for (int64_t b = 0; b < B; b++) label[b] = b * 3 % 5;
    return ttt_one_hot(c, ttt_from_int(c, TTT_SHAPE(B), label), 5);
}
static ttt_tensor *logits_of(model *m, ttt_tensor *x, ttt_vit_call *call) {
    return ttt_vit_forward(m->c, &m->vit, ttt_params_weights(&m->p), x, call);
}
static ttt_tensor *loss_of(model *m, int64_t B, uint64_t seed) {
    ttt_tensor *logits = logits_of(m, images(m->c, B, seed), NULL);
    return ttt_cross_entropy(m->c, logits, targets(m->c, B));
}
static double step(model *m, int64_t B, uint64_t seed) {
    ttt_mark mark = ttt_mark_get(m->c);
    ttt_tensor *loss = loss_of(m, B, seed);
    double value = (double)ttt_item(loss);
    ttt_optimizer_step(m->c, m->opt, loss);
    ttt_mark_release(m->c, mark);
    return value;
}

// A hash of all parameters' bits.
static uint64_t bits_of(const model *m) {
    uint64_t h = 14695981039346656037u;
    for (int i = 0; i < m->p.n; i++)
        for (size_t j = 0; j < (size_t)m->p.value[i]->size * sizeof(ttt_real); j++)
            h = (h ^ ((const unsigned char *)m->p.value[i]->data)[j]) * 1099511628211u;
    return h;
}

// ---- losses -------------------------------------------------------------------------------------
static void losses_equal_their_formulas(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_real logit[6] = { 1, -2, 3, 0, 40, -40 },
             target[6] = { 0, (ttt_real)0.25, (ttt_real)0.75, 1, 0, 0 };
    ttt_tensor *z = ttt_from(c, TTT_SHAPE(2, 3), logit), *t = ttt_from(c, TTT_SHAPE(2, 3), target);
    double softmax = 0, sigmoid = 0;
    for (int b = 0; b < 2; b++) {
        double sum = 0;
        for (int i = 0; i < 3; i++) sum += exp((double)logit[b * 3 + i]);
        for (int i = b * 3; i < b * 3 + 3; i++) {
            double v = (double)logit[i], y = (double)target[i];
            softmax -= y * (v - log(sum)) / 2;
            sigmoid += (y * log1p(exp(-v)) + (1 - y) * log1p(exp(v))) / 2;
        }
    }
    CHECK(fabs((double)ttt_item(ttt_cross_entropy(c, z, t)) - softmax) < 1e-5);
    CHECK(fabs((double)ttt_item(ttt_binary_cross_entropy(c, z, t)) - sigmoid) < 1e-5);
    // the logits of a head that starts at zero: sigmoid - target
    ttt_tensor *start = ttt_zeros_kept(c, TTT_SHAPE(2, 3)), *g;
    ttt_grad(c, ttt_binary_cross_entropy(c, start, t), &start, 1, &g, TTT_GRAD_FIRST_ORDER);
    for (int i = 0; i < 6; i++)
        CHECK(fabs((double)g->data[i] - (0.5 - (double)target[i]) / 2) < 1e-6);
    ttt_cross_entropy(c, z, ttt_zeros(c, TTT_SHAPE(2, 4)));
    CHECK(ttt_status(c) == TTT_ERR_SHAPE && strstr(ttt_error(c), "(2,4)"));
    ttt_close(c);
}

// Rows of logits and labels, some of them to be ignored.
static const ttt_real label_logits[12] = { 1, -2, 3, 0, 40, -40, 5, 5, 5, -1, 0, 2 };
static ttt_tensor *labels_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *labels) {
    (void)n;
    return ttt_square(c, ttt_cross_entropy_labels(c, x[0], labels, -100));
}
static void labels_give_the_loss_of_their_one_hot_rows(void) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 1 });
    const int64_t label[4] = { 2, 0, 1, 0 }, some[4] = { -100, 0, -100, 2 }, first[1] = { 2 },
                  none[4] = { 0, 0, 0, 0 };
    double each[4], hand = 0, loss[2], e = DOUBLE ? 1e-14 : 2e-6;
    ttt_tensor *z = ttt_from(c, TTT_SHAPE(4, 3), label_logits),
               *hot = ttt_one_hot(c, ttt_from_int(c, TTT_SHAPE(4), label), 3), *g[2], *gg[2];
    for (int b = 0; b < 4; b++) {
        const ttt_real *row = label_logits + 3 * b;
        each[b] = log(exp((double)row[0]) + exp((double)row[1]) + exp((double)row[2])) -
                  (double)row[label[b]];
        hand += each[b] / 4;
    }
    for (int k = 0; k < 2; k++) {  // by labels (2,2) beside logits (2,2,3); by one-hot rows
        ttt_tensor *y = k ? ttt_cross_entropy(c, z, hot)
                          : ttt_cross_entropy_labels(c, ttt_reshape(c, z, TTT_SHAPE(2, 2, 3)),
                                                     ttt_from_int(c, TTT_SHAPE(2, 2), label), -1);
        CHECK(y->shape.rank == 0);
        loss[k] = (double)ttt_item(y);
        ttt_grad(c, y, &z, 1, &g[k], TTT_GRAD_RECORD);
        ttt_grad(c, ttt_sum(c, ttt_square(c, g[k])), &z, 1, &gg[k], TTT_GRAD_FIRST_ORDER);
    }
    CHECK(fabs(loss[0] - hand) < e * hand && fabs(loss[0] - loss[1]) < e * hand);
    CHECK(ttt_max_abs_diff(g[0], g[1]) < e && ttt_max_abs_diff(gg[0], gg[1]) < e);
    ttt_tensor *l = ttt_from_int(c, TTT_SHAPE(4), some),
               *y = ttt_cross_entropy_labels(c, z, l, -100);
    CHECK(fabs((double)ttt_item(y) - (each[1] + log(exp(-1.0) + 1 + exp(2.0)) - 2) / 2) < e * 20);
    CHECK(ttt_item(ttt_cross_entropy_labels(c, ttt_from(c, TTT_SHAPE(3), label_logits),
                                            ttt_from_int(c, ttt_scalar_shape(), first), 0)) > 0);
    for (int order = 1; order <= 3; order++)
        CHECK(ttt_check_gradient(c, labels_value, &z, 1, l, order, DOUBLE ? 1e-3 : 2e-2) <=
              (DOUBLE ? 1e-6 : 5e-3));
    // nothing counts: 0 and not -0, and no gradient; 0 may be the label that is ignored
    y = ttt_cross_entropy_labels(c, z, ttt_from_int(c, TTT_SHAPE(4), none), 0);
    ttt_grad(c, y, &z, 1, &g[0], TTT_GRAD_FIRST_ORDER);
    CHECK(ttt_item(y) == 0 && !signbit(ttt_item(y)) &&
          ttt_max_abs_diff(g[0], ttt_zeros(c, z->shape)) == 0);
    CHECK(ttt_item(ttt_cross_entropy_labels(c, ttt_zeros(c, TTT_SHAPE(0, 3)),
                                            ttt_from_int(c, TTT_SHAPE(0), NULL), -1)) == 0);
    CHECK(ttt_ok(c));
    ttt_close(c);
}

static void labels_leave_out_what_is_ignored(void) {
    ttt_ctx *c = ttt_open(NULL);
    const ttt_real inf = (ttt_real)INFINITY,
                   row[9] = { (ttt_real)NAN, inf, 0, -inf, 1, 1, -inf, -inf, -inf };
    const int64_t label[3] = { -7, 1, -7 };
    ttt_tensor *z = ttt_from(c, TTT_SHAPE(3, 3), row), *l = ttt_from_int(c, TTT_SHAPE(3), label),
               *g[2];
    ttt_tensor *y = ttt_cross_entropy_labels(c, z, l, -7);
    CHECK(fabs((double)ttt_item(y) - log(2)) < 1e-6);  // a class at -infinity counts for nothing
    ttt_grad(c, y, &z, 1, &g[0], TTT_GRAD_RECORD);
    ttt_grad(c, ttt_sum(c, ttt_square(c, g[0])), &z, 1, &g[1], TTT_GRAD_FIRST_ORDER);
    for (int i = 0; i < 9; i++) {
        CHECK(fabs((double)g[0]->data[i] - (i == 4 ? -0.5 : i == 5 ? 0.5 : 0)) < 1e-6);
        CHECK(fabs((double)g[1]->data[i] - (i == 4 ? -0.5 : i == 5 ? 0.5 : 0)) < 1e-6);
    }
    CHECK(ttt_ok(c));
    const char *const words[][3] = {
        { "cross_entropy_labels: label -7 at place 0", "0..2 expected", "or -1 to be ignored" },
        { "cross_entropy_labels: logits (3,3), labels (3,1)", "(...,C)", "expected" },
        { "cross_entropy_labels: the second input holds real numbers", "integers", "expected" },
        { "cross_entropy_labels: the first input holds integers", "real numbers", "expected" },
        { "cross_entropy_labels: logits (), labels ()", "(...,C)", "expected" }
    };
    for (int i = 0; i < 5; i++) {
        if (i == 0) ttt_cross_entropy_labels(c, z, l, -1);
        if (i == 1) ttt_cross_entropy_labels(c, z, ttt_from_int(c, TTT_SHAPE(3, 1), label), -7);
        if (i == 2) ttt_cross_entropy_labels(c, z, z, -7);
        if (i == 3) ttt_cross_entropy_labels(c, l, l, -7);
        if (i == 4)
            ttt_cross_entropy_labels(c, ttt_scalar(c, 1),
                                     ttt_from_int(c, ttt_scalar_shape(), label), -7);
        CHECK(ttt_status(c) == (i == 1 || i == 4 ? TTT_ERR_SHAPE : TTT_ERR_ARGUMENT));
        for (int k = 0; k < 3; k++) CHECK(strstr(ttt_error(c), words[i][k]));
        ttt_clear(c);
    }
    ttt_close(c);
}

static void right_answers_are_counted_and_nan_is_wrong(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_real logit[8] = { 1, 2, 5, 4, (ttt_real)NAN, 0, 3, (ttt_real)NAN };
    int64_t label[4] = { 1, 1, 1, 0 };
    CHECK(ttt_count_correct(ttt_from(c, TTT_SHAPE(4, 2), logit),
                            ttt_from_int(c, TTT_SHAPE(4), label)) == 1);
    ttt_real even[6] = { 0 };  // logits that say nothing: only the first class counts
    int64_t each[3] = { 0, 1, 0 };
    CHECK(ttt_count_correct(ttt_from(c, TTT_SHAPE(3, 2), even),
                            ttt_from_int(c, TTT_SHAPE(3), each)) == 2);
    int64_t ignored[3] = { -100, 9, 0 };  // no labels count as wrong
    CHECK(ttt_count_correct(ttt_from(c, TTT_SHAPE(3, 2), even),
                            ttt_from_int(c, TTT_SHAPE(3), ignored)) == 1);
    int64_t bad[2] = { 0, 7 };
    ttt_one_hot(c, ttt_from_int(c, TTT_SHAPE(2), bad), 5);
    CHECK(ttt_status(c) == TTT_ERR_ARGUMENT && strstr(ttt_error(c), "label 7"));
    ttt_close(c);
}

static void mixup_blends_with_the_neighbor(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_rng r = ttt_rng_at(5, 0, 0, 0);
    double mean = 0, least = 1;
    for (int k = 0; k < 2000; k++) {
        ttt_mark m = ttt_mark_get(c);
        ttt_real v[3] = { 1, 10, 100 };
        ttt_tensor *x = ttt_from(c, TTT_SHAPE(3, 1), v), *y = ttt_from(c, TTT_SHAPE(3, 1), v);
        ttt_tensor *plain = x;
        ttt_mixup(c, &r, 0.2, &x, &y);
        CHECK(plain->data[0] == 1 && plain->data[1] == 10 && plain->data[2] == 100);  // as it was
        double a = ((double)x->data[1] - 1) / 9;  // 10 a + 1 (1 - a)
        mean += a / 2000;
        least = fmin(least, a);
        CHECK(fabs((double)x->data[0] - (a * 1 + (1 - a) * 100)) < 1e-3 &&
              fabs((double)x->data[2] - (a * 100 + (1 - a) * 10)) < 1e-3);
        CHECK(ttt_max_abs_diff(x, y) == 0);
        ttt_mark_release(c, m);
    }
    // the larger of a Beta(0.2,0.2) pair has mean 0.8988 (by numerical integration), deviation 0.13
    CHECK(fabs(mean - 0.8988) < 0.015 && least >= 0.5 - 1e-6);
    ttt_close(c);
}

static void mixup_refuses_what_it_cannot_blend(void) {
    for (int i = 0; i < 3; i++) {
        ttt_ctx *c = ttt_open(NULL);
        const uint8_t bytes[2] = { 1, 2 };
        const int64_t label[2] = { 0, 1 };
        ttt_tensor *x =
            i == 0 ? ttt_from_u8(c, TTT_SHAPE(2), bytes) : ttt_zeros(c, TTT_SHAPE(2, 3));
        ttt_tensor *y = ttt_zeros(c, TTT_SHAPE(2, 5));
        if (i == 1) y = ttt_from_int(c, TTT_SHAPE(2), label);
        if (i == 2) y = ttt_scalar(c, 1);
        ttt_mixup(c, ttt_ctx_rng(c), 0.2, &x, &y);
        CHECK(ttt_status(c) == (i == 2 ? TTT_ERR_SHAPE : TTT_ERR_ARGUMENT) &&
              strstr(ttt_error(c), "mixup"));
        ttt_close(c);
    }
}

// ---- ViT ----------------------------------------------------------------------------------------
static void vit_has_shapes_names_and_counts(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        model m = make_model(with_mixer(ttt_mixer_at(i)->name), (ttt_optimizer_desc){ 0 }, 1);
        ttt_tensor *y = logits_of(&m, images(m.c, 3, 1), NULL);
        CHECK(ttt_ok(m.c) && y->shape.rank == 2 && y->shape.dim[0] == 3 && y->shape.dim[1] == 5);
        for (int64_t j = 0; j < y->size; j++) CHECK(y->data[j] == 0);  // the head starts at zero
        CHECK(ttt_params_find(&m.p, "Transformer/encoderblock_1/MlpBlock_0/Dense_1/kernel"));
        CHECK(!ttt_params_find(&m.p, "pos_embedding") && ttt_params_find(&m.p, "head/bias"));
        CHECK(ttt_vit_flops(&m.vit) > 0);
        ttt_close(m.c);
    }
}

static void learned_positions_are_a_parameter(void) {
    ttt_vit_desc d = with_mixer("none");
    d.learned_positions = true;
    model m = make_model(d, (ttt_optimizer_desc){ 0 }, 1);
    ttt_tensor *t = ttt_params_find(&m.p, "pos_embedding");
    CHECK(t && t->size == 16 * 12);
    ttt_close(m.c);
}

static void inner_losses_of_every_layer_are_reported(void) {
    ttt_vit_desc d = with_mixer("mttt-mlp");
    d.mixer.inner_steps = 2;
    model m = make_model(d, (ttt_optimizer_desc){ 0 }, 1);
    ttt_vit_call call = { .want_losses = true };
    logits_of(&m, images(m.c, 3, 1), &call);
    CHECK(ttt_ok(m.c));
    for (int i = 0; i < 2; i++)
        CHECK(call.losses[i] && call.losses[i]->size == 3 &&
              call.losses[i]->data[2] < call.losses[i]->data[0]);
    ttt_close(m.c);
}

static ttt_tensor *vit_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *user) {
    (void)c;
    (void)x;
    (void)n;
    return loss_of(user, 2, 4);
}
static void gradients_of_the_whole_model(void) {
    if (!DOUBLE) SKIP("needs the double build");
    for (int i = 0; ttt_mixer_at(i); i++) {
        model m = make_model(with_mixer(ttt_mixer_at(i)->name), (ttt_optimizer_desc){ 0 }, 1);
        ttt_rng r = ttt_rng_at(8, 0, 0, 0);
        ttt_tensor *head = ttt_params_find(&m.p, "head/kernel");
        for (int64_t j = 0; j < head->size; j++)
            head->data[j] = (ttt_real)(0.3 * ttt_rng_normal(&r));
        int n = m.p.n < 64 ? m.p.n : 64;
        ttt_tensor *wrt[64];
        for (int j = 0; j < n; j++) wrt[j] = m.p.value[j];
        for (int order = 1; order <= 2; order++) {
            // elu'' jumps: keep close
            double e = ttt_check_gradient(m.c, vit_value, wrt, n, &m, order, 1e-5);
            if (!(e < 1e-6))
                printf("  %s order %d: %.2e %s\n", ttt_mixer_at(i)->name, order, e, ttt_error(m.c));
            CHECK(e < 1e-6);
        }
        ttt_close(m.c);
    }
}

static void wrong_models_name_the_field(void) {
#define VIT(side, p, w, ...) \
    { .image = side, .channels = 1, .patch = p, .width = w, .depth = 1, .classes = 2, __VA_ARGS__ }
    static const struct {
        ttt_vit_desc d;
        const char *word;
    } wrong[] = {
        { VIT(8, 3, 12, .mlp = 24), ".patch 3" },
        { VIT(0, 2, 12, .mlp = 24), ".image 0" },
        { VIT(8, 2, 13, .mlp = 24), "13" },
        { VIT(6, 2, 12, .mixer = { .inner_sgd = true, .inner_steps = 2 }), "mini-batches" },
        { VIT(8, 2, 12, .mixer = { .heads = 5, .inner_lr = 1 }), ".heads 5" },
        { VIT(8, 2, 12, .mixer = { .heads = 3, .inner_lr = 1, .globals = 1 }), ".globals" },
    };
#undef VIT
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt_params p = { 0 };
        ttt_vit_desc d = wrong[i].d;
        d.mixer.mixer = ttt_mixer_find("mttt-linear");
        CHECK(ttt_vit_new(c, &d, &p, "").n == 0);
        if (!strstr(ttt_error(c), wrong[i].word)) printf("  got: %s\n", ttt_error(c));
        CHECK(strstr(ttt_error(c), wrong[i].word) != NULL);
        ttt_close(c);
    }
    model m = make_model(with_mixer("none"), (ttt_optimizer_desc){ 0 }, 1);
    logits_of(&m, ttt_zeros(m.c, TTT_SHAPE(2, 9, 9, 2)), NULL);
    CHECK(ttt_status(m.c) == TTT_ERR_SHAPE && strstr(ttt_error(m.c), "(2,9,9,2)"));
    ttt_close(m.c);
}

// ---- optimizers ---------------------------------------------------------------------------------
static void schedule_follows_the_formula(void) {
    ttt_optimizer_desc d = { .warmup = 4, .total = 12 };
    CHECK(ttt_schedule(&d, 0) == 0 && ttt_schedule(&d, 1) == 0.25 && ttt_schedule(&d, 4) == 1);
    CHECK(fabs(ttt_schedule(&d, 8) - 0.5) < 1e-12 && fabs(ttt_schedule(&d, 12)) < 1e-12 &&
          fabs(ttt_schedule(&d, 99)) < 1e-12);
    CHECK(ttt_schedule(&(ttt_optimizer_desc){ 0 }, 5) == 1);
}

// The kernels of every instruction set beside double: a step from random moments.
static void optimizer_kernels_of_every_set(void) {
    const ttt__pass k = { REAL(0.5), REAL(0.01), REAL(0.9),  REAL(0.99), REAL(1.5),
                          2,         REAL(1e-4), REAL(0.1), REAL(0.02) };
    const double b1 = (double)k.b1, b2 = (double)k.b2;
    for (int i = 0; ttt_isa_name(i); i++)
        for (int n = 0; n < 70; n++)
            for (int adam = 0; adam < 2; adam++) {
                ttt_ctx *c = ttt_open(&(ttt_desc){ .isa = ttt_isa_name(i), .seed = 1 });
                ttt_shape shape = TTT_SHAPE(n);
                ttt_tensor *p = ttt_randn(c, shape), *g = ttt_randn(c, shape);
                ttt_tensor *m = ttt_randn(c, shape), *v = ttt_square(c, ttt_randn(c, shape));
                double wp[70], wm[70], wv[70], dot = 0, size = 0;
                for (int j = 0; j < n; j++) {
                    double p0 = (double)p->data[j], m0 = (double)m->data[j];
                    double v0 = (double)v->data[j], g0 = (double)g->data[j];
                    double grad = (double)k.scale * g0 + (double)k.l2 * p0;
                    dot += g0 * m0;
                    size += fabs(g0 * m0);
                    wm[j] = adam ? b1 * m0 + (1 - b1) * grad : b1 * m0 + grad;
                    wv[j] = adam ? b2 * v0 + (1 - b2) * grad * grad : v0;
                    double root = sqrt(wv[j] * (double)k.c2) + (double)k.eps;
                    double u = adam ? wm[j] * (double)k.c1 / root : wm[j];
                    wp[j] = p0 * (1 - (double)k.decay) - (double)k.rate * u;
                }
                CHECK(fabs(c->k->dot(n, g->data, m->data) - dot) <= (n + 2) * EPS * size);
                const ttt__rule_kernels *rule = ttt__rule_kernels_of(c);
                if (adam) rule->adam(n, p->data, g->data, m->data, v->data, &k);
                else rule->momentum(n, p->data, g->data, m->data, &k);
                CHECK_CLOSE(m->data, wm, n, 20 * EPS, 4 * EPS);
                CHECK_CLOSE(v->data, wv, n, 20 * EPS, 4 * EPS);
                CHECK_CLOSE(p->data, wp, n, 20 * EPS, 20 * EPS);
                ttt_close(c);
            }
}

// The rules once more, for one number p, in double: what it is after update k.
typedef struct {
    double m, v;
} moments;
static const double LR = 0.1, BETA1 = 0.9, BETA2 = 0.999, MOMENTUM = 0.8;
static double adam_direction(double g, int k, moments *s) {
    s->m = BETA1 * s->m + (1 - BETA1) * g;
    s->v = BETA2 * s->v + (1 - BETA2) * g * g;
    return s->m / (1 - pow(BETA1, k + 1)) / (sqrt(s->v / (1 - pow(BETA2, k + 1))) + 1e-8);
}
static double by_adamw(double p, double g, double wd, double rate, int k, moments *s) {
    return p - rate * LR * (adam_direction(g, k, s) + wd * p);
}
static double by_adam(double p, double g, double wd, double rate, int k, moments *s) {
    return p - rate * LR * adam_direction(g + wd * p, k, s);
}
static double by_momentum(double p, double g, double wd, double rate, int k, moments *s) {
    (void)k;
    s->m = MOMENTUM * s->m + g + wd * p;
    return p - rate * LR * s->m;
}
static double by_mttt(double p, double g, double wd, double rate, int k, moments *s) {
    return p - rate * (LR * adam_direction(g, k, s) + wd * p);
}
typedef double by_hand(double p, double g, double wd, double rate, int k, moments *s);
static by_hand *formula_of(const ttt_rule *rule) {
    static const struct {
        const char *name;
        by_hand *step;
    } row[] = { { "adamw", by_adamw },
                { "adam", by_adam },
                { "momentum", by_momentum },
                { "mttt", by_mttt } };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (strcmp(row[i].name, rule->name) == 0) return row[i].step;
    return NULL;
}

// The gradient of sum((x w + b)^2) in w (3,2), row by row, and in b (2): v holds both.
static void dense_gradient(const ttt_real *x, const double *v, double *g) {
    for (int j = 0; j < 2; j++) {
        double out = v[6 + j];
        for (int i = 0; i < 3; i++) out += (double)x[i] * v[i * 2 + j];
        g[6 + j] = 2 * out;
        for (int i = 0; i < 3; i++) g[i * 2 + j] = 2 * out * (double)x[i];
    }
}

// Three updates of one decaying and one plain parameter, against the formulas.
static void update_thrice(const ttt_rule *rule, by_hand *formula) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_params p = { 0 };
    ttt_weights w = ttt_dense_new(c, 3, 2, TTT_INIT_XAVIER, &p, "dense");
    ttt_optimizer_desc d = { .rule = rule, .lr = REAL(LR), .weight_decay = REAL(0.3), .clip = 1,
                             .warmup = 2, .total = 9 };
    if (rule == &ttt_rule_momentum) d.momentum = REAL(MOMENTUM);
    ttt_optimizer *o = ttt_optimizer_new(c, &d, &p);
    double v[8], g[8];
    moments s[8] = { { 0 } };
    for (int i = 0; i < 8; i++) v[i] = (double)(i < 6 ? w.at[0]->data[i] : w.at[1]->data[i - 6]);
    for (int k = 0; k < 3; k++) {
        ttt_real x[3] = { 1, REAL(-0.5), REAL(k + 1) };
        ttt_tensor *y = ttt_dense(c, w, ttt_from(c, TTT_SHAPE(1, 3), x));
        double norm = 0;
        dense_gradient(x, v, g);
        for (int i = 0; i < 8; i++) norm += g[i] * g[i];
        norm = sqrt(norm);
        ttt_optimizer_step(c, o, ttt_sum(c, ttt_square(c, y)));
        CHECK(fabs(o->grad_norm - norm) < 1e-4 * norm);
        double clip = norm >= 1 ? 1 / norm : 1, rate = ttt_schedule(&d, k);
        for (int i = 0; i < 8; i++)
            v[i] = formula(v[i], g[i] * clip, i < 6 ? 0.3 : 0, rate, k, &s[i]);
        CHECK_CLOSE(w.at[0]->data, v, 6, 1e-4, 1e-5);
        CHECK_CLOSE(w.at[1]->data, v + 6, 2, 1e-4, 1e-5);
    }
    ttt_close(c);
}
static void updates_equal_their_formulas(void) {
    for (int i = 0; ttt_rule_at(i); i++) {
        by_hand *formula = formula_of(ttt_rule_at(i));
        CHECK(formula != NULL);
        if (formula) update_thrice(ttt_rule_at(i), formula);
    }
}

// All options, X(name, type, a value other than the one in `usual`), in the order of the struct.
#define OPTIONS(X)                                                                                 \
    X(lr, ttt_real, 0.02) X(weight_decay, ttt_real, 0.1) X(clip, ttt_real, 0.01)                   \
    X(warmup, int64_t, 3) X(total, int64_t, 20) X(accumulate, int, 2) X(freeze_inner, bool, true)  \
    X(beta1, ttt_real, 0.5) X(beta2, ttt_real, 0.9) X(eps, ttt_real, 0.01)                         \
    X(bf16_moment, bool, true) X(momentum, ttt_real, 0.6)
static const ttt_optimizer_desc usual = { .lr = REAL(0.01) };

// The weights' bits after four steps; 0 if there is no such optimizer, and then why.
static uint64_t trained_bits(ttt_optimizer_desc d, char *why, size_t room) {
    model m = make_model(with_mixer("mttt-linear"), d, 1);
    for (int k = 0; m.opt && k < 4; k++) step(&m, 4, (uint64_t)k);
    uint64_t bits = m.opt ? bits_of(&m) : 0;
    snprintf(why, room, "%s", ttt_error(m.c));
    ttt_close(m.c);
    return bits;
}

// An option of all rules, or one of the rule's own, changes the result; any other is refused.
static void judge_option(const ttt_rule *rule, const char *name, ttt_optimizer_desc d) {
    char why[400], dotted[40], usual_why[400];
    ttt_optimizer_desc base = usual;
    d.rule = base.rule = rule;
    snprintf(dotted, sizeof dotted, ".%s ", name);
    uint64_t plain = trained_bits(base, usual_why, sizeof usual_why),
             bits = trained_bits(d, why, sizeof why);
    bool own = ttt__has_word("beta1 beta2 eps bf16_moment momentum", name);
    bool taken = !own || ttt__has_word(rule->takes, name);
    bool refused = bits == 0 && strstr(why, dotted) && strstr(why, rule->name);
    bool changes = bits != 0 && bits != plain && !*why;
    if (taken ? !changes : !refused)
        printf("  %s: .%s neither works nor is refused: '%s'\n", rule->name, name, why);
    CHECK(plain != 0 && !*usual_why && (taken ? changes : refused));
}
static void every_option_of_an_optimizer_works_or_is_refused(void) {
#define X(name, type, value) type name;
    typedef struct {
        const ttt_rule *rule;
        OPTIONS(X)
    } listed;
#undef X
    CHECK(sizeof(listed) == sizeof(ttt_optimizer_desc));  // else the list lacks an option
    for (int i = 0; ttt_rule_at(i); i++) {
        ttt_optimizer_desc d;
#define X(name, type, value)  \
    d = usual;                \
    d.name = (type)(value);   \
    judge_option(ttt_rule_at(i), #name, d);
        OPTIONS(X)
#undef X
    }
}

static void wrong_optimizers_name_the_field(void) {
    static const struct {
        ttt_optimizer_desc d;
        const char *word;
    } wrong[] = { { { .clip = 1 }, ".lr is 0" },
                  { { .lr = 1, .warmup = 5, .total = 5 }, ".total 5" },
                  { { .lr = 1, .clip = -1 }, ".clip" },
                  { { .lr = 1, .momentum = 1 }, "adamw" } };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt_params p = { 0 };
        CHECK(ttt_optimizer_new(c, &wrong[i].d, &p) == NULL);
        CHECK(!ttt_ok(c) && strstr(ttt_error(c), wrong[i].word));
        ttt_close(c);
    }
}

// A rule that only a program has: p goes down by the rate where the gradient is positive.
static void sign_update(ttt_ctx *c, const ttt_update *u) {
    (void)c;
    for (int64_t i = 0; i < u->n; i++)
        u->p[i] -= REAL(u->s) * u->desc->lr * REAL((u->gathered[i] > 0) - (u->gathered[i] < 0));
}
static const ttt_rule sign_rule = { .name = "sign", .flops = 3, .update = sign_update };

static void a_program_adds_a_rule(void) {
    char why[400];
    model m = make_model(with_mixer("none"), (ttt_optimizer_desc){ .rule = &sign_rule }, 1);
    ttt_tensor *bias = ttt_params_find(&m.p, "head/bias");
    step(&m, 4, 1);
    for (int64_t i = 0; i < bias->size; i++) CHECK(fabs(fabs((double)bias->data[i]) - 0.01) < 1e-9);
    ttt_close(m.c);
    CHECK(trained_bits((ttt_optimizer_desc){ .rule = &sign_rule, .eps = 1 }, why, sizeof why) == 0);
    CHECK(strstr(why, ".eps is set, which the rule sign does not take; its own options are: none"));
}

static void accumulated_gradients_are_the_mean(void) {
    ttt_optimizer_desc o = { .rule = &ttt_rule_momentum, .momentum = REAL(0.5) };
    model one = make_model(with_mixer("mttt-linear"), o, 1);
    o.accumulate = 2;
    model two = make_model(with_mixer("mttt-linear"), o, 1);
    for (int k = 0; k < 3; k++) {
        step(&one, 4, 9);
        step(&two, 4, 9);
        step(&two, 4, 9);
    }
    CHECK(one.opt->updates == 3 && two.opt->updates == 3);
    for (int i = 0; i < one.p.n; i++)
        CHECK(ttt_max_abs_diff(one.p.value[i], two.p.value[i]) < 1e-5);
    ttt_close(one.c);
    ttt_close(two.c);
}

static void frozen_starts_stay(void) {
#define LAYER "Transformer/encoderblock_0/TTTLayer_0/"
    ttt_optimizer_desc o = { .freeze_inner = true, .weight_decay = REAL(0.1) };
    model m = make_model(with_mixer("mttt-mlp"), o, 1);
    ttt_tensor *w0 = ttt_params_find(&m.p, LAYER "inner_Dense_0/kernel"),
               *before = ttt_from(m.c, w0->shape, w0->data);
    ttt_tensor *phi = ttt_params_find(&m.p, LAYER "phi/kernel"),
               *phi_before = ttt_from(m.c, phi->shape, phi->data);
#undef LAYER
    for (int k = 0; k < 3; k++) step(&m, 4, 1);
    CHECK(ttt_max_abs_diff(w0, before) == 0);
    CHECK(ttt_max_abs_diff(phi, phi_before) > 0);
    ttt_close(m.c);
}

static void a_gradient_that_is_not_finite_changes_nothing(void) {
    model m = make_model(with_mixer("none"), (ttt_optimizer_desc){ 0 }, 1);
    step(&m, 4, 1);
    uint64_t before = bits_of(&m);
    ttt_tensor *head = ttt_params_find(&m.p, "head/bias");
    ttt_tensor *huge = ttt_exp(m.c, ttt_add_scalar(m.c, head, 800));
    ttt_optimizer_step(m.c, m.opt, ttt_sum(m.c, ttt_scale(m.c, huge, 1)));
    CHECK(ttt_ok(m.c) && m.opt->skipped == 1 && bits_of(&m) == before);
    step(&m, 4, 1);
    CHECK(m.opt->updates == 2 && bits_of(&m) != before);
    ttt_close(m.c);
}

static void training_lowers_the_loss_of_every_mixer(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        model m = make_model(with_mixer(ttt_mixer_at(i)->name), (ttt_optimizer_desc){ 0 }, 1);
        double first = step(&m, 10, 1), last = 0;
        for (int k = 0; k < 40; k++) last = step(&m, 10, 1);
        if (!(last < 0.25 * first)) printf("  %s: %g -> %g\n", ttt_mixer_at(i)->name, first, last);
        CHECK(last < 0.25 * first);
        ttt_close(m.c);
    }
}

static void the_same_bits_for_any_number_of_threads(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        uint64_t bits[4];
        static const int threads[4] = { 1, 2, 3, 8 };
        for (int k = 0; k < 4; k++) {
            ttt_optimizer_desc o = { .clip = 1, .weight_decay = REAL(0.1) };
            model m = make_model(with_mixer(ttt_mixer_at(i)->name), o, threads[k]);
            for (int s = 0; s < 3; s++) step(&m, 32, (uint64_t)s);
            bits[k] = bits_of(&m);
            ttt_close(m.c);
        }
        CHECK(bits[1] == bits[0] && bits[2] == bits[0] && bits[3] == bits[0]);
    }
}

// Training with blocks kept and with blocks computed again gives the same bits, in less memory.
static void recomputed_blocks_give_the_same_bits(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        size_t peak[2];
        model m[2];
        for (int again = 0; again < 2; again++) {
            ttt_vit_desc d = with_mixer(ttt_mixer_at(i)->name);
            d.depth = 6;
            d.remat = again;
            // orders are drawn: the same ones the second time
            d.mixer.inner_sgd = ttt_mixer_takes(d.mixer.mixer, "inner_sgd");
            m[again] = make_model(d, (ttt_optimizer_desc){ 0 }, 1);
            ttt_memory_reset(m[again].c);
            for (int s = 0; s < 3; s++) step(&m[again], 8, (uint64_t)s);
            peak[again] = ttt_memory(m[again].c).peak;
            CHECK(ttt_ok(m[again].c));
        }
        CHECK(bits_of(&m[0]) == bits_of(&m[1]));
        CHECK(peak[1] < peak[0]);
        ttt_close(m[0].c);
        ttt_close(m[1].c);
    }
}

static void warm_steps_allocate_nothing(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        ttt_vit_desc d = with_mixer(ttt_mixer_at(i)->name);
        d.mixer.inner_steps = 2;
        d.mixer.inner_sgd = true;
        d.mixer = ttt_mixer_offer(d.mixer.mixer, &d.mixer);
        model m = make_model(d, (ttt_optimizer_desc){ .clip = 1 }, 2);
        step(&m, 16, 1);
        step(&m, 16, 2);
        long before = mallocs;
        size_t peak[3];
        for (int k = 0; k < 3; k++) {
            ttt_memory_reset(m.c);
            step(&m, 16, (uint64_t)k);
            peak[k] = ttt_memory(m.c).peak;
        }
        CHECK(mallocs == before);
        CHECK(peak[0] == peak[1] && peak[1] == peak[2]);
        ttt_close(m.c);
    }
}

// ---- checkpoints --------------------------------------------------------------------------------
#ifndef TTT_NO_STDIO
static const char *temporary(const char *name) {
    static char path[4][256];
    static int which;
    const char *dir = getenv("TMPDIR");
    char *p = path[which++ % 4];
    long id = 0;
#if defined(__unix__) || defined(__APPLE__)
    id = (long)getpid();
#endif
    snprintf(p, sizeof path[0], "%s/ttt_test_model_%ld_%s", dir && *dir ? dir : "/tmp", id, name);
    return p;
}

static void resume(const ttt_rule *rule) {
    ttt_vit_desc d = with_mixer("mttt-mlp");
    d.mixer.inner_sgd = true;  // so that random numbers matter
    d.mixer.inner_steps = 2;
    ttt_optimizer_desc o = { .rule = rule, .weight_decay = REAL(0.1), .warmup = 2, .total = 8,
                             .clip = 1 };
    const char *path = temporary("checkpoint.safetensors");
    model a = make_model(d, o, 1), b = make_model(d, o, 2);
    for (int k = 0; k < 3; k++) step(&a, 8, (uint64_t)k);
    ttt_note note = { "position", "3" };
    CHECK(ttt_checkpoint_save(a.c, path, &a.p, a.opt, &note, 1) == TTT_OK);
    for (int k = 3; k < 6; k++) step(&a, 8, (uint64_t)k);
    ttt_bundle file;
    step(&b, 8, 77);  // something else before
    CHECK(ttt_checkpoint_load(b.c, path, &b.p, b.opt, &file) == TTT_OK);
    CHECK(ttt_bundle_note(&file, "position") &&
          strcmp(ttt_bundle_note(&file, "position"), "3") == 0);
    for (int k = 3; k < 6; k++) step(&b, 8, (uint64_t)k);
    CHECK(bits_of(&a) == bits_of(&b));
    remove(path);
    ttt_close(a.c);
    ttt_close(b.c);
}
static void resuming_gives_the_same_bits(void) {
    for (int i = 0; ttt_rule_at(i); i++) resume(ttt_rule_at(i));
}

// Names of tensors in a checkpoint are a format: files of earlier versions have them.
static void a_checkpoint_holds_the_states_of_the_rule(void) {
    static const struct {
        const ttt_rule *rule;
        bool m, v;
    } row[] = { { &ttt_rule_adamw, true, true }, { &ttt_rule_momentum, true, false },
                { &sign_rule, false, false } };
    for (int i = 0; i < 3; i++) {
        const char *path = temporary("states.safetensors");
        model a = make_model(with_mixer("none"), (ttt_optimizer_desc){ .rule = row[i].rule }, 1);
        ttt_bundle file;
        step(&a, 4, 1);
        CHECK(ttt_checkpoint_save(a.c, path, &a.p, a.opt, NULL, 0) == TTT_OK);
        CHECK(ttt_safetensors_read(a.c, path, &file) == TTT_OK);
        CHECK(file.n_tensors == a.p.n * (1 + row[i].m + row[i].v));
        CHECK((ttt_bundle_find(&file, "optimizer/m/head/bias") != NULL) == row[i].m);
        CHECK((ttt_bundle_find(&file, "optimizer/v/head/bias") != NULL) == row[i].v);
        CHECK(strcmp(ttt_bundle_note(&file, "optimizer.updates"), "1") == 0);
        remove(path);
        ttt_close(a.c);
    }
}

static void saving_without_memory_leaves_nothing_behind(void) {
    model a = make_model(with_mixer("none"), (ttt_optimizer_desc){ 0 }, 1);
    size_t before = ttt_memory(a.c).step;
    out_of_memory = true;
    ttt_result result = ttt_checkpoint_save(a.c, temporary("never"), &a.p, a.opt, NULL, 1 << 20);
    out_of_memory = false;
    CHECK(result == TTT_ERR_NO_MEMORY && ttt_memory(a.c).step == before);
    ttt_close(a.c);
}

static void the_random_stream_is_in_the_checkpoint(void) {
    const char *path = temporary("stream.safetensors");
    model a = make_model(with_mixer("none"), (ttt_optimizer_desc){ 0 }, 1);
    ttt_rng *r = ttt_ctx_rng(a.c);
    ttt_bundle file;
    for (int i = 0; i < 2; i++) {
        *r = i ? ttt_rng_at(8, 0, 0, 0) : ttt_rng_at(7, 1, 2, UINT32_MAX);
        ttt_rng_u32(r);
        ttt_rng saved = *r;
        CHECK(ttt_checkpoint_save(a.c, path, &a.p, NULL, NULL, 0) == TTT_OK);
        *r = ttt_rng_at(9, 3, 4, 5);
        CHECK(ttt_checkpoint_load(a.c, path, &a.p, NULL, &file) == TTT_OK);
        CHECK(r->seed == saved.seed && r->next == 1);
        CHECK(memcmp(r->stream, saved.stream, sizeof r->stream) == 0);
        CHECK((ttt_bundle_note(&file, "rng.stream") != NULL) == (i == 0));
    }
    remove(path);
    ttt_close(a.c);
}

static void a_checkpoint_of_another_model_is_refused(void) {
    const char *path = temporary("other.safetensors");
    model a = make_model(with_mixer("none"), (ttt_optimizer_desc){ 0 }, 1),
          b = make_model(with_mixer("self-attention"), (ttt_optimizer_desc){ 0 }, 1);
    ttt_bundle file;
    CHECK(ttt_checkpoint_save(a.c, path, &a.p, NULL, NULL, 0) == TTT_OK);
    uint64_t before = bits_of(&b);
    CHECK(ttt_checkpoint_load(b.c, path, &b.p, NULL, &file) == TTT_ERR_FORMAT);
    CHECK(strstr(ttt_error(b.c), "MultiHeadDotProductAttention_0") && strstr(ttt_error(b.c), path));
    CHECK(bits_of(&b) == before);
    step(&a, 8, 1);
    before = bits_of(&a);
    // it has no moments
    CHECK(ttt_checkpoint_load(a.c, path, &a.p, a.opt, &file) == TTT_ERR_FORMAT);
    CHECK(strstr(ttt_error(a.c), "optimizer/m/") && bits_of(&a) == before);
    remove(path);
    ttt_close(a.c);
    ttt_close(b.c);
}

static void forged_numbers_of_a_checkpoint_are_refused(void) {
    static const struct { const char *key, *text; } forged[] = {
        { "optimizer.updates", "-1" }, { "optimizer.updates", " 1" }, { "optimizer.updates", "+1" },
        { "optimizer.updates", "" }, { "optimizer.updates", "nan" }, { "optimizer.updates", "1e3" },
        { "optimizer.updates", "9223372036854775807" }, { "optimizer.skipped", "-1" },
        { "optimizer.skipped", "0x10" }, { "rng.seed", "-1" }, { "rng.next", "2.5" },
        { "rng.seed", "18446744073709551616" }, { "rng.stream", "1 2" }, { "rng.stream", "-1 2 3" },
        { "rng.stream", "1 2 3 x" } };
    const char *path = temporary("forged.safetensors");
    for (int i = 0; i < COUNT(forged); i++) {
        model a = make_model(with_mixer("none"), (ttt_optimizer_desc){ 0 }, 1);
        ttt_bundle file;
        step(&a, 4, 1);
        *ttt_ctx_rng(a.c) = ttt_rng_at(7, 1, 2, 3);  // so that there is a stream
        CHECK(ttt_checkpoint_save(a.c, path, &a.p, a.opt, NULL, 0) == TTT_OK);
        CHECK(ttt_safetensors_read(a.c, path, &file) == TTT_OK);
        for (int64_t k = 0; k < file.n_notes; k++)
            if (strcmp(file.notes[k].key, forged[i].key) == 0) file.notes[k].text = forged[i].text;
        CHECK(ttt_safetensors_write(a.c, path, &file, false) == TTT_OK);
        uint64_t before = bits_of(&a);
        CHECK(ttt_checkpoint_load(a.c, path, &a.p, a.opt, &file) == TTT_ERR_FORMAT);
        CHECK(strstr(ttt_error(a.c), forged[i].key) && bits_of(&a) == before);
        CHECK(a.opt->updates == 1 && a.opt->skipped == 0);
        remove(path);
        ttt_close(a.c);
    }
}

// A model's parameters in a file of their own, and the file read again.
static ttt_bundle through_a_file(const model *m, const char *path, bool bf16) {
    ttt_named named[100];
    ttt_bundle b = { named, m->p.n, NULL, 0 }, file;
    for (int i = 0; i < m->p.n && i < 100; i++) {
        named[i].name = m->p.item[m->p.n - 1 - i].name;  // in another order
        named[i].tensor = m->p.value[m->p.n - 1 - i];
    }
    CHECK(m->p.n <= 100 && ttt_safetensors_write(m->c, path, &b, bf16) == TTT_OK);
    CHECK(ttt_safetensors_read(m->c, path, &file) == TTT_OK);
    remove(path);
    return file;
}

static bool same_bits(const ttt_tensor *a, const ttt_tensor *b) {
    return a->size == b->size && memcmp(a->data, b->data, (size_t)a->size * sizeof *a->data) == 0;
}

static void the_weights_of_a_file_run_and_load(void) {
    for (int bf16 = 0; bf16 < 2; bf16++) {
        model m = make_model(with_mixer("mttt-mlp"), (ttt_optimizer_desc){ 0 }, 1);
        const char *path = temporary("weights.safetensors");
        for (uint64_t k = 0; k < 3; k++) step(&m, 8, k);
        ttt_bundle file = through_a_file(&m, path, bf16);
        ttt_weights w = ttt_weights_find(m.c, &m.p, path, &file), own = ttt_params_weights(&m.p);
        CHECK(w.n == m.p.n && ttt_ok(m.c));
        for (int i = 0; i < w.n; i++) {
            ttt_dtype dtype = bf16 ? TTT_DTYPE_BF16 : TTT_DTYPE_REAL;
            ttt_tensor *rounded = ttt_cast(m.c, own.at[i], dtype);
            CHECK(same_bits(w.at[i], ttt_cast(m.c, rounded, TTT_DTYPE_REAL)));
            // only what has another type is copied
            CHECK((w.at[i] == ttt_bundle_find(&file, m.p.item[i].name)) == !bf16);
        }
        step(&m, 8, 9);
        uint64_t before = bits_of(&m);
        ttt_tensor *x = images(m.c, 4, 5);
        ttt_tensor *run = ttt_vit_forward(m.c, &m.vit, w, x, NULL);
        ttt_tensor *other = ttt_vit_forward(m.c, &m.vit, own, x, NULL);
        CHECK(bits_of(&m) == before && !same_bits(run, other));
        CHECK(ttt_weights_blend(m.c, own, w, 1) == TTT_OK);
        CHECK(same_bits(run, ttt_vit_forward(m.c, &m.vit, own, x, NULL)));
        ttt_close(m.c);
    }
}

static void a_checkpoint_may_hold_other_types(void) {
    ttt_ctx *c = ttt_open(NULL);
    const char *path = temporary("types.safetensors");
    static const int64_t kernel[6] = { 1, -2, 3, -4, 5, -6 };
    static const uint8_t bias[2] = { 7, 255 };
    ttt_params p = { 0 };
    ttt_weights w = ttt_dense_new(c, 3, 2, TTT_INIT_XAVIER, &p, "dense");
    ttt_named named[2] = { { "dense/kernel", ttt_from_int(c, TTT_SHAPE(3, 2), kernel) },
                           { "dense/bias", ttt_from_u8(c, TTT_SHAPE(2), bias) } };
    ttt_note note[2] = { { "rng.seed", "1" }, { "rng.next", "2" } };
    ttt_bundle b = { named, 2, note, 2 }, file;
    CHECK(ttt_safetensors_write(c, path, &b, false) == TTT_OK);
    CHECK(ttt_checkpoint_load(c, path, &p, NULL, &file) == TTT_OK);
    CHECK_CLOSE(w.at[0]->data, kernel, 6, 0, 0);
    CHECK_CLOSE(w.at[1]->data, bias, 2, 0, 0);
    remove(path);
    ttt_close(c);
}

static void weights_that_a_file_lacks_are_named(void) {
    for (int missing = 0; missing < 2; missing++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt_params p = { 0 };
        ttt_dense_new(c, 3, 2, TTT_INIT_XAVIER, &p, "dense");
        ttt_named named[2] = { { "dense/kernel", ttt_zeros(c, TTT_SHAPE(3, 2)) },
                               { "dense/bias", ttt_zeros(c, TTT_SHAPE(3)) } };
        ttt_bundle b = { named, 2 - missing, NULL, 0 };
        ttt_weights w = ttt_weights_find(c, &p, "a.safetensors", &b);
        CHECK(w.n == 0 && !w.at && ttt_status(c) == TTT_ERR_FORMAT);
        CHECK(strstr(ttt_error(c), "a.safetensors: "));
        const char *why = missing ? "has no tensor \"dense/bias\""
                                  : "\"dense/bias\" has shape (3), the model expects (2)";
        CHECK(strstr(ttt_error(c), why));
        ttt_close(c);
    }
}
#endif

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(losses_equal_their_formulas),
        T(labels_give_the_loss_of_their_one_hot_rows),
        T(labels_leave_out_what_is_ignored),
        T(right_answers_are_counted_and_nan_is_wrong),
        T(mixup_blends_with_the_neighbor),
        T(mixup_refuses_what_it_cannot_blend),
        T(vit_has_shapes_names_and_counts),
        T(learned_positions_are_a_parameter),
        T(inner_losses_of_every_layer_are_reported),
        T(gradients_of_the_whole_model),
        T(wrong_models_name_the_field),
        T(schedule_follows_the_formula),
        T(optimizer_kernels_of_every_set),
        T(updates_equal_their_formulas),
        T(every_option_of_an_optimizer_works_or_is_refused),
        T(wrong_optimizers_name_the_field),
        T(a_program_adds_a_rule),
        T(accumulated_gradients_are_the_mean),
        T(frozen_starts_stay),
        T(a_gradient_that_is_not_finite_changes_nothing),
        T(training_lowers_the_loss_of_every_mixer),
        T(the_same_bits_for_any_number_of_threads),
        T(recomputed_blocks_give_the_same_bits),
        T(warm_steps_allocate_nothing),
#ifndef TTT_NO_STDIO
        T(resuming_gives_the_same_bits),
        T(a_checkpoint_holds_the_states_of_the_rule),
        T(saving_without_memory_leaves_nothing_behind),
        T(the_random_stream_is_in_the_checkpoint),
        T(a_checkpoint_of_another_model_is_refused),
        T(forged_numbers_of_a_checkpoint_are_refused),
        T(the_weights_of_a_file_run_and_load),
        T(a_checkpoint_may_hold_other_types),
        T(weights_that_a_file_lacks_are_named),
#endif
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
