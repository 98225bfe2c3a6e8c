// Tests of ttt_model.h.
#include <stdbool.h>
#include <stdlib.h>
static long mallocs;        // how often the library asked for memory
static bool out_of_memory;  // whether it gets none,
static long fails_at;       // or none at this call, from 1, 0: at none,
static bool fails_on;       // and at all later ones
static bool scarce;         // or only as much as `grants` says
static long grants;
static bool served(void) {
    mallocs++;
    bool fails = fails_at && (mallocs == fails_at || (fails_on && mallocs > fails_at));
    return !out_of_memory && !fails && !(scarce && grants-- <= 0);
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
    ttt_clear(c);
    const int64_t classes[] = { -1, 0, INT64_MAX, (int64_t)1 << 62 };
    for (int i = 0; i < COUNT(classes); i++) {
        ttt_one_hot(c, ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 0, 0 }), classes[i]);
        CHECK(!ttt_ok(c) && strstr(ttt_error(c), "one_hot: ") && strstr(ttt_error(c), "expected"));
        ttt_clear(c);
    }
    ttt_close(c);
}

// Where an answer is certain, what it adds or how it grows is 0 times infinity in the formula.
#define INF ((double)INFINITY)
typedef struct {
    bool sigmoid;
    double logit[3], target[3], loss, slope[3];
} certain;
static const certain certain_losses[] = {
    { false, { -INF, 1, 2 }, { 0, 0, 1 }, 0.31326168751822286, { 0, 0.2689414213699951,
                                                                 -0.2689414213699951 } },
    { false, { -INF, 1, 1 }, { 0, 0.25, 0.75 }, 0.6931471805599453, { 0, 0.25, -0.25 } },
    { false, { 3e38, -3e38, 0 }, { 1, 0, 0 }, 0, { 0, 0, 0 } },
    { false, { -3e38, 5, -INF }, { 0, 1, 0 }, 0, { 0, 0, 0 } },
    { false, { 0, -3e38, -INF }, { 1, 0, 0 }, 0, { 0, 0, 0 } },
    { false, { INF, 1, -INF }, { 1, 0, 0 }, 0, { 0, 0, 0 } },
    { false, { INF, 1, -3e38 }, { 0.5, 0.5, 0 }, INF, { 0.5, -0.5, 0 } },
    { false, { -INF, 1, 1 }, { 0.5, 0.5, 0 }, INF, { -0.5, 0, 0.5 } },
    { true, { INF, -INF, 0 }, { 1, 0, 0.5 }, 0.6931471805599453, { 0, 0, 0 } },
    { true, { 3e38, -3e38, 30 }, { 1, 0, 1 }, 9.3576229688397368e-14,
      { 0, 0, -9.357622968839299e-14 } },
    { true, { 100, -20, 0 }, { 1, 0, 1 }, 0.69314718262109893, { -3.720075976020836e-44,
                                                            2.0611536181902037e-09, -0.5 } },
    { true, { INF, 0, -INF }, { 0, 1, 0.25 }, INF, { 1, -0.5, -0.25 } },
};
static void losses_of_certain_answers(void) {
    for (int isa = 0; ttt_isa_name(isa); isa++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .isa = ttt_isa_name(isa) });
        for (int k = 0; k < COUNT(certain_losses); k++) {
            const certain *one = &certain_losses[k];
            ttt_tensor *z = ttt_zeros(c, TTT_SHAPE(1, 3)), *t = ttt_zeros(c, TTT_SHAPE(1, 3));
            for (int i = 0; i < 3; i++)
                z->data[i] = REAL(one->logit[i]), t->data[i] = REAL(one->target[i]);
            ttt_tensor *both[2] = { z, t }, *g[2];
            ttt_tensor *loss = one->sigmoid ? ttt_binary_cross_entropy(c, z, t)
                                            : ttt_cross_entropy(c, z, t);
            double value = (double)ttt_item(loss), e = 4 * EPS;
            ttt_grad(c, loss, both, 2, g, TTT_GRAD_RECORD);
            bool good = value == one->loss || fabs(value - one->loss) <= e * one->loss;
            for (int i = 0; i < 3; i++) {
                double slope = (double)g[0]->data[i];
                good = good && fabs(slope - one->slope[i]) <= e * fabs(one->slope[i]) + 1e-44;
                good = good && !isnan(g[1]->data[i]);
            }
            ttt_grad(c, ttt_sum(c, ttt_square(c, g[0])), both, 1, g + 1, TTT_GRAD_FIRST_ORDER);
            for (int i = 0; i < 3; i++) good = good && isfinite(g[1]->data[i]);
            if (!good)
                printf("  case %d, %s: %g %g %g %g\n", k, ttt_isa(c), value,
                       (double)g[0]->data[0], (double)g[0]->data[1], (double)g[0]->data[2]);
            CHECK(good && ttt_ok(c));
        }
        ttt_close(c);
    }
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

static void a_bad_label_costs_its_own_row_and_no_other(void) {
    enum { B = 5, C = 3 };
    static const int64_t bad[] = { -1, C, -100, INT64_MIN, INT64_MAX, (int64_t)1 << 32 };
    ttt_ctx *c = ttt_open(NULL);
    ttt_real logit[B * C] = { 9, 1, 2, 1, 9, 2, 1, 2, 9, 9, 1, 1, 1, 9, 1 };
    const int64_t label[B + 2] = { 0, 1, 2, 0, 1, 0, 0 };
    ttt_tensor *z = ttt_from(c, TTT_SHAPE(B, C), logit);
    for (int i = 0; i < B * COUNT(bad); i++) {
        ttt_tensor *l = ttt_from_int(c, TTT_SHAPE(B), label);
        l->index[i % B] = bad[i / B];
        CHECK(ttt_count_correct(z, l) == B - 1);
    }
    for (int n = 0; n <= B + 2; n++)  // a row without a label is wrong
        CHECK(ttt_count_correct(z, ttt_from_int(c, TTT_SHAPE(n), label)) == (n < B ? n : B));
    ttt_tensor *l = ttt_from_int(c, TTT_SHAPE(B), label);
    for (int i = 0; i < B; i++) z->data[i * C + (i + 1) % C] = (ttt_real)(i % 2 ? NAN : INFINITY);
    CHECK(ttt_count_correct(z, l) == 0);
    CHECK(ttt_count_correct(ttt_zeros(c, TTT_SHAPE(0, C)), l) == 0);
    CHECK(ttt_count_correct(ttt_zeros(c, TTT_SHAPE(B, 0)), l) == 0);
    CHECK(ttt_count_correct(z, z) == -1 && ttt_count_correct(l, l) == -1);
    CHECK(ttt_count_correct(ttt_zeros(c, TTT_SHAPE(C)), l) == -1);
    CHECK(ttt_count_correct(NULL, l) == -1 && ttt_count_correct(z, NULL) == -1);
    CHECK(ttt_ok(c));
    ttt_close(c);
}

// All that takes labels or numbers of rows: the error says which value stands where, and what may.
static void bad_labels_and_numbers_of_rows_are_named(void) {
    static const int64_t bad[] = { -1, 4, INT64_MIN, INT64_MAX };
    ttt_ctx *c = ttt_open(NULL);
    int64_t value[3] = { 0, 3, 1 };
    uint8_t pixels[3] = { 0 };
    int32_t own[3] = { 0, 3, 1 };
    ttt_images set = { 3, 1, 1, 1, 4, pixels, own };
    ttt_batches_desc desc = { .images = &set, .batch = 1 };
    for (int i = 0; i < 6 * 3 * COUNT(bad); i++) {
        int what = i % 6, place = i / 6 % 3;
        int64_t wrong = bad[i / 18];
        char text[32], where[32];
        ttt_tensor *index = ttt_from_int(c, TTT_SHAPE(3), value);
        ttt_tensor *rows = ttt_zeros(c, TTT_SHAPE(4, 2));
        if (what == 5) wrong = wrong > 4 ? INT32_MAX : wrong < -1 ? INT32_MIN : wrong;
        index->index[place] = wrong;
        for (int k = 0; k < 3; k++) own[k] = (int32_t)index->index[k];
        snprintf(text, sizeof text, " %lld ", (long long)wrong);
        snprintf(where, sizeof where, "%s %d", what == 5 ? "image" : "place", place);
        if (what == 0) ttt_one_hot(c, index, 4);
        if (what == 1) ttt_cross_entropy_labels(c, ttt_zeros(c, TTT_SHAPE(3, 4)), index, -100);
        if (what == 2) ttt_index_select(c, rows, index);
        if (what == 3) ttt_index_add(c, ttt_zeros(c, TTT_SHAPE(3, 2)), index, 4);
        if (what == 4) ttt_embedding(c, rows, index);
        if (what == 5) CHECK(!ttt_batches_new(c, &desc));
        CHECK(ttt_status(c) == TTT_ERR_ARGUMENT && strstr(ttt_error(c), text));
        CHECK(strstr(ttt_error(c), where) && strstr(ttt_error(c), "0..3"));
        ttt_clear(c);
    }
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

// The variance of Beta(p,p) is 1 / (4 (2p + 1)), whatever p is; a draw always ends.
static void mixup_draws_from_its_distribution_for_any_parameter(void) {
    static const double p[] = { 1e-320, 1e-300, 1e-5, 0.01, 0.5, 1, 1.0001, 3, 30, 100, 1e300 };
    ttt_ctx *c = ttt_open(NULL);
    ttt_rng r = ttt_rng_at(5, 0, 0, 0);
    for (int i = 0; i < COUNT(p); i++) {
        double square = 0, variance = 1 / (4 * (2 * p[i] + 1));
        for (int k = 0; k < 2000; k++) {
            ttt_mark m = ttt_mark_get(c);
            ttt_real v[2] = { -1, 1 };
            ttt_tensor *x = ttt_from(c, TTT_SHAPE(2), v), *y = x;
            ttt_mixup(c, &r, p[i], &x, &y);  // 1 - 2 a, 2 a - 1
            square += pow((double)x->data[0] / 2, 2) / 2000;
            ttt_mark_release(c, m);
        }
        CHECK(fabs(square - variance) <= 0.1 * variance + 1e-12);
    }
    for (int i = 0; i < 2; i++) {
        ttt_tensor *x = ttt_zeros(c, TTT_SHAPE(2, 3)), *y = x;
        ttt_mixup(c, &r, i ? (double)NAN : -1, &x, &y);
        CHECK(ttt_status(c) == TTT_ERR_ARGUMENT && strstr(ttt_error(c), "mixup: p is"));
        ttt_clear(c);
    }
    ttt_close(c);
}

// Without memory the two stay as they are, and so do the random numbers.
static void mixup_without_memory_changes_nothing(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_rng r = ttt_rng_at(5, 0, 0, 0), start = r;
    ttt_tensor *x = ttt_zeros(c, TTT_SHAPE(2, 9000)), *y = ttt_zeros(c, TTT_SHAPE(2, 90000));
    ttt_tensor *old_x = x, *old_y = y;
    out_of_memory = true;
    ttt_mixup(c, &r, 0.2, &x, &y);
    out_of_memory = false;
    CHECK(ttt_status(c) == TTT_ERR_NO_MEMORY && x == old_x && y == old_y);
    CHECK(memcmp(&r, &start, sizeof r) == 0);
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
        const int64_t none[] = { 0, -8, INT64_MIN };  // sizes of no model
        for (int k = 0; k < 18; k++) {
            ttt_vit_desc d = with_mixer(ttt_mixer_at(i)->name);
            int64_t *size[6] = { &d.image, &d.channels, &d.patch, &d.width, &d.depth, &d.classes };
            *size[k / 3] = none[k % 3];
            CHECK(isnan(ttt_vit_flops(&d)));
        }
        ttt_vit_desc huge = with_mixer(ttt_mixer_at(i)->name);
        huge.image = (int64_t)1 << 40;
        CHECK(!(ttt_vit_flops(&huge) <= 0));
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

// Global tokens stand before the patches, which have the code of their places added.
static void tokens_are_globals_and_then_patches(void) {
    for (int learned = 0; learned < 2; learned++) {
        ttt_vit_desc d = with_mixer("longformer");
        d.learned_positions = learned;
        d.mixer.globals = 3;
        model m = make_model(d, (ttt_optimizer_desc){ 0 }, 1);
        ttt_ctx *c = m.c;
        ttt_weights w = ttt_params_weights(&m.p);
        ttt_tensor *x = images(c, 2, 1), *globals = ttt_params_find(&m.p, "global_tokens");
        CHECK(globals && globals->size == 3 * 12);
        ttt_tensor *y = ttt__vit_embedded(c, &d, &w, x);
        ttt_tensor *patches = ttt_patch_embed(c, (ttt_weights){ m.p.value, 2 }, x);
        ttt_tensor *code = learned ? ttt_params_find(&m.p, "pos_embedding")
                                   : ttt_sincos2d(c, 4, 4, 12);
        CHECK(ttt_ok(c) && y->size == 2 * 19 * 12);
        for (int64_t i = 0; ttt_ok(c) && i < y->size; i++) {
            int64_t b = i / (19 * 12), at = i % (19 * 12) - 3 * 12;
            double want = at < 0 ? (double)globals->data[at + 3 * 12]
                                 : (double)patches->data[b * 16 * 12 + at] + (double)code->data[at];
            CHECK(fabs((double)y->data[i] - want) < 1e-6);
        }
        ttt_close(c);
    }
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
        { VIT(INT64_MAX, 1, 12, .mlp = 24), ".image 9223372036854775807" },
        { VIT((int64_t)1 << 33, 1, 12, .mixer = { .heads = 2, .globals = INT64_MAX }), ".globals" },
        { VIT(8, 2, 12, .depth = (int64_t)1 << 40), ".depth 1099511627776" },
        { VIT(8, 2, (int64_t)1 << 60, .mixer = { .heads = 2, .inner_lr = 1 }),
          "1152921504606846976" },
        { VIT(8, 2, 12, .mlp = (int64_t)1 << 60, .mixer = { .heads = 2, .inner_lr = 1 }),
          "MlpBlock" },
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
                  { { .lr = 1, .clip = -1 }, ".clip -1" },
                  { { .lr = 1, .clip = REAL(NAN) }, ".clip nan" },
                  { { .lr = 1, .warmup = -1 }, ".warmup -1" },
                  { { .lr = 1, .accumulate = -1 }, ".accumulate -1" },
                  { { .lr = 1, .weight_decay = -1 }, ".weight_decay -1" },
                  { { .lr = 1, .beta1 = 1 }, ".beta1 is 1" },
                  { { .lr = 1, .beta2 = -1 }, ".beta2 is -1" },
                  { { .lr = 1, .eps = REAL(NAN) }, ".eps is nan" },
                  { { .lr = 1, .rule = &ttt_rule_momentum, .momentum = -1 }, ".momentum is -1" },
                  { { .lr = 1, .weight_decay = REAL(NAN) }, ".weight_decay nan" },
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

// Whatever size gradients have, their norm is right and no update is left out.
static void finite_gradients_of_every_size_are_used(void) {
    const int power[] = { -140, -80, -60, 0, 60, 64, 100, 120 };
    for (int i = 0; i < COUNT(power); i++) {
        double size = ldexp(1, DOUBLE ? 7 * power[i] : power[i]);
        model m = make_model(with_mixer("none"), (ttt_optimizer_desc){ .clip = 1 }, 1);
        ttt_tensor *bias = ttt_params_find(&m.p, "head/bias");
        ttt_optimizer_step(m.c, m.opt, ttt_sum(m.c, ttt_scale(m.c, bias, REAL(size))));
        double norm = size * sqrt((double)bias->size);
        CHECK(ttt_ok(m.c) && m.opt->skipped == 0 && m.opt->updates == 1);
        CHECK(fabs(m.opt->grad_norm - norm) <= 1e-6 * norm);
        ttt_close(m.c);
    }
}

// Unclipped gradients whose squares have no number: Adam's steps are of the rate's size, and its
// moments are finite.
static void adam_steps_by_its_rate_whatever_the_gradient(void) {
    const double sizes[] = { 1e18, 1e20, 3e25, 1e37 };
    for (int i = 0; i < 4 * COUNT(sizes); i++) {
        double size = DOUBLE ? pow(sizes[i / 4], 8.1) : sizes[i / 4];
        ttt_optimizer_desc o = { .rule = &ttt_rule_adam, .beta2 = REAL(0.9) };
        o.clip = i % 2;
        o.bf16_moment = i / 2 % 2;
        model m = make_model(with_mixer("none"), o, 1);
        ttt_tensor *bias = ttt_params_find(&m.p, "head/bias");
        for (int k = 0; k < 4; k++)
            ttt_optimizer_step(m.c, m.opt, ttt_sum(m.c, ttt_scale(m.c, bias, REAL(-size))));
        for (int64_t j = 0; j < bias->size; j++)  // a moment of 16 bits has 8 digits
            CHECK(fabs((double)bias->data[j] - 4 * 0.01) < (o.bf16_moment ? 4e-4 : 1e-5));
        // Clipped, the gradient is as long as any: 1 in all, whatever it was.
        double v = (double)m.opt->state[2 * m.opt->n - 1]->data[0], one = 1 - pow(0.9, 4);
        if (o.clip > 0) CHECK(fabs(v * (double)bias->size / one - 1) < 1e-3);
        for (int j = 0; j < 2 * m.opt->n; j++)
            CHECK(m.c->k->finite(m.opt->state[j]->size, m.opt->state[j]->data));
        CHECK(ttt_ok(m.c) && m.opt->skipped == 0);
        ttt_close(m.c);
    }
}

// The least loss: with this rate a single step may go astray, and rounding decides which one.
static void training_lowers_the_loss_of_every_mixer(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        model m = make_model(with_mixer(ttt_mixer_at(i)->name), (ttt_optimizer_desc){ 0 }, 1);
        double first = step(&m, 10, 1), least = first;
        for (int k = 0; k < 60; k++) {
            double loss = step(&m, 10, 1);
            least = loss < least ? loss : least;
        }
        if (!(least < 0.2 * first))
            printf("  %s: %g -> %g\n", ttt_mixer_at(i)->name, first, least);
        CHECK(least < 0.2 * first);
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

// ---- tensors that are not there -----------------------------------------------------------------
// What calls are given beside the tensor `no`, which is not there: NULL, or released.
typedef struct {
    ttt_ctx *c;
    ttt_tensor *no;
    ttt_tensor *x, *s, *rows;  // (6,6), one number, integers (6)
    ttt_tensor *heads;         // (1,2,6,3)
    ttt_params params;         // of two numbers (6,6)
    ttt_tensor *out[2], *pair[2], *six[6], *learned[2];
} given;

// Weights of n tensors, of which number i is not there.
static ttt_weights lacking(given *g, int n, int i) {
    for (int k = 0; k < n; k++) g->six[k] = k == i ? g->no : g->x;
    return (ttt_weights){ g->six, n };
}
static ttt_tensor *const *pair(given *g, ttt_tensor *a, ttt_tensor *b) {
    g->pair[0] = a, g->pair[1] = b;
    return g->pair;
}
static ttt_tensor *first_of(ttt_ctx *c, ttt_tensor *const *in, int n, const void *user) {
    (void)n, (void)user;
    return ttt_scale(c, in[0], 2);
}
static ttt_tensor *sum_of(ttt_ctx *c, ttt_tensor *const *in, int n, void *user) {
    (void)n, (void)user;
    return ttt_sum(c, in[0]);
}
static ttt_tensor *squares(ttt_ctx *c, const void *arg, ttt_tensor *a, ttt_tensor *b) {
    (void)arg;
    return ttt_mse(c, a, b);
}
static ttt_weights learn(given *g, int which) {
    static const ttt_real rate = 1;
    ttt_inner in = { .learner = &ttt_learner_linear, .train = g->heads, .label = g->heads,
                     .loss = squares, .steps = 1, .rates = &rate };
    ttt_tensor *w0[2] = { ttt_zeros(g->c, TTT_SHAPE(2, 3, 3)), ttt_zeros(g->c, TTT_SHAPE(2, 3)) };
    if (which == 0) in.train = g->no;
    if (which == 1) in.label = g->no;
    if (which == 2) in.learned_rates = g->no, in.rates = NULL;
    if (which == 3) in.order = g->no;
    if (which == 4) w0[0] = g->no;
    if (which == 5) w0[1] = g->no;
    return ttt_inner_loop(g->c, &in, (ttt_weights){ w0, 2 }, NULL);
}
// A step of descent that lacks its loss, a weight, a rate, a first or a second moment.
static ttt_weights descend(given *g, int which) {
    ttt_tensor *w = g->x, *loss = ttt_sum(g->c, ttt_square(g->c, w)), *no = g->no;
    ttt_descent d = { .rule = TTT_DESCENT_ADAM, .rate = 1 };
    ttt_descent_state s = { TTT_DESCENT_ADAM, { &g->x, 1 }, { &g->x, 1 }, 1 };
    if (which == 0) loss = no;
    if (which == 1) w = no;
    if (which == 2) d.rates = &no, d.rate = 0;
    if (which == 3) s.m.at = &no;
    if (which == 4) s.v.at = &no;
    return ttt_descend(g->c, &d, (ttt_weights){ &w, 1 }, loss, &s);
}
static void mixup(given *g, ttt_tensor *x, ttt_tensor *y) {
    ttt_mixup(g->c, ttt_ctx_rng(g->c), 0.2, &x, &y);
}
static ttt_result npy_of(given *g) {
    return ttt_npy_write(g->c, "npy_write", g->no);
}
static ttt_result bundle_of(given *g) {
    ttt_named named = { "safetensors_write", g->no };
    ttt_bundle bundle = { &named, 1, NULL, 0 };
    return ttt_safetensors_write(g->c, "never", &bundle, false);
}

// X(function, name in the message, call) for every place of every function that takes a tensor or
// weights, but for the ops of one and two numbers, which come from their rows.
#define LACKING_TENSOR(X)                                                                          \
    X(ttt_cast, "cast", ttt_cast(c, no, TTT_DTYPE_BF16))                                           \
    X(ttt_token_windows, "token_windows", ttt_token_windows(c, no, 1, 2, 1, 0))                    \
    X(ttt_scale, "scale", ttt_scale(c, no, 2))                                                     \
    X(ttt_add_scalar, "add_scalar", ttt_add_scalar(c, no, 2))                                      \
    X(ttt_clamp, "clamp", ttt_clamp(c, no, 0, 1))                                                  \
    X(ttt_pow, "pow", ttt_pow(c, no, 2))                                                           \
    X(ttt_where, "where", ttt_where(c, no, x, x))                                                  \
    X(ttt_where, "where", ttt_where(c, x, no, x))                                                  \
    X(ttt_where, "where", ttt_where(c, x, x, no))                                                  \
    X(ttt_dropout, "dropout", ttt_dropout(c, no, 0))                                               \
    X(ttt_dropout_seeded, "dropout", ttt_dropout_seeded(c, no, REAL(0.5), 1))                      \
    X(ttt_matmul, "matmul", ttt_matmul(c, no, x))                                                  \
    X(ttt_matmul, "matmul", ttt_matmul(c, x, no))                                                  \
    X(ttt_matmul_t, "matmul", ttt_matmul_t(c, no, x, true, false))                                 \
    X(ttt_matmul_t, "matmul", ttt_matmul_t(c, x, no, false, true))                                 \
    X(ttt_matmul_to, "matmul", ttt_matmul_to(c, no, x, false, false, x->shape))                    \
    X(ttt_matmul_to, "matmul", ttt_matmul_to(c, x, no, false, false, x->shape))                    \
    X(ttt_matmul_add, "matmul_add", ttt_matmul_add(c, no, x, false, false, x))                     \
    X(ttt_matmul_add, "matmul_add", ttt_matmul_add(c, x, no, false, false, x))                     \
    X(ttt_matmul_add, "matmul_add", ttt_matmul_add(c, x, x, false, false, no))                     \
    X(ttt_affine, "affine", ttt_affine(c, no, x, x))                                               \
    X(ttt_affine, "affine", ttt_affine(c, x, no, x))                                               \
    X(ttt_affine, "affine", ttt_affine(c, x, x, no))                                               \
    X(ttt_sum_to, "sum_to", ttt_sum_to(c, no, x->shape))                                           \
    X(ttt_broadcast, "broadcast", ttt_broadcast(c, no, x->shape))                                  \
    X(ttt_sum, "sum", ttt_sum(c, no))                                                              \
    X(ttt_mean, "mean", ttt_mean(c, no))                                                           \
    X(ttt_sum_axis, "sum_axis", ttt_sum_axis(c, no, 0))                                            \
    X(ttt_mean_axis, "mean_axis", ttt_mean_axis(c, no, 0))                                         \
    X(ttt_mse, "mse", ttt_mse(c, no, x))                                                           \
    X(ttt_mse, "mse", ttt_mse(c, x, no))                                                           \
    X(ttt_max_axis, "max_axis", ttt_max_axis(c, no, 0))                                            \
    X(ttt_argmax, "argmax", ttt_argmax(c, no, 0))                                                  \
    X(ttt_reshape, "reshape", ttt_reshape(c, no, x->shape))                                        \
    X(ttt_permute, "permute", ttt_permute(c, no, (int[]){ 1, 0 }))                                 \
    X(ttt_transpose, "transpose", ttt_transpose(c, no))                                            \
    X(ttt_slice, "slice", ttt_slice(c, no, 0, 0, 1))                                               \
    X(ttt_pad, "pad", ttt_pad(c, no, 0, 0, 9))                                                     \
    X(ttt_concat, "concat", ttt_concat(c, pair(g, no, x), 2, 0))                                   \
    X(ttt_concat, "concat", ttt_concat(c, pair(g, x, no), 2, 0))                                   \
    X(ttt_index_select, "index_select", ttt_index_select(c, no, g->rows))                          \
    X(ttt_index_select, "index_select", ttt_index_select(c, x, no))                                \
    X(ttt_index_add, "index_add", ttt_index_add(c, no, g->rows, 6))                                \
    X(ttt_index_add, "index_add", ttt_index_add(c, x, no, 6))                                      \
    X(ttt_embedding, "embedding", ttt_embedding(c, no, g->rows))                                   \
    X(ttt_embedding, "embedding", ttt_embedding(c, x, no))                                         \
    X(ttt_detach, "detach", ttt_detach(c, no))                                                     \
    X(ttt_depthwise_conv1d, "depthwise_conv1d", ttt_depthwise_conv1d(c, no, x))                    \
    X(ttt_depthwise_conv1d, "depthwise_conv1d", ttt_depthwise_conv1d(c, x, no))                    \
    X(ttt_depthwise_conv2d, "depthwise_conv2d", ttt_depthwise_conv2d(c, no, x))                    \
    X(ttt_depthwise_conv2d, "depthwise_conv2d", ttt_depthwise_conv2d(c, x, no))                    \
    X(ttt_depthwise_kernel, "depthwise_kernel", ttt_depthwise_kernel(c, no, x, TTT_SHAPE(1)))      \
    X(ttt_depthwise_kernel, "depthwise_kernel", ttt_depthwise_kernel(c, x, no, TTT_SHAPE(1)))      \
    X(ttt_solve_lower, "solve_lower", ttt_solve_lower(c, no, x, false))                            \
    X(ttt_solve_lower, "solve_lower", ttt_solve_lower(c, x, no, false))                            \
    X(ttt_softmax, "softmax", ttt_softmax(c, no))                                                  \
    X(ttt_softmax_seen, "softmax_seen", ttt_softmax_seen(c, no, x))                                \
    X(ttt_softmax_seen, "softmax_seen", ttt_softmax_seen(c, x, no))                                \
    X(ttt_mix, "mix", ttt_mix(c, no, x, false, NULL))                                              \
    X(ttt_mix, "mix", ttt_mix(c, x, no, false, x))                                                 \
    X(ttt_cumsum, "cumsum", ttt_cumsum(c, no, 0, false))                                           \
    X(ttt_norm_axis, "norm_axis", ttt_norm_axis(c, no, 0))                                         \
    X(ttt_log_softmax, "log_softmax", ttt_log_softmax(c, no))                                      \
    X(ttt_layer_normalize, "normalize", ttt_layer_normalize(c, no, 1))                             \
    X(ttt_rms_normalize, "normalize", ttt_rms_normalize(c, no, 1))                                 \
    X(ttt_normalize_d1, "normalize_d1", ttt_normalize_d1(c, no, x, 1, true))                       \
    X(ttt_normalize_d1, "normalize_d1", ttt_normalize_d1(c, x, no, 1, true))                       \
    X(ttt_rstd, "rstd", ttt_rstd(c, no, 1, true))                                                  \
    X(ttt_apply, "exp", ttt_apply(c, ttt_op_table(0), &g->no, 1, x->shape, NULL, 0))               \
    X(ttt_grad, "y", ttt_grad(c, no, &g->x, 1, g->out, TTT_GRAD_FIRST_ORDER))                      \
    X(ttt_grad, "wrt[0]", ttt_grad(c, g->s, &g->no, 1, g->out, TTT_GRAD_RECORD))                   \
    X(ttt_grad, "out[0]", ttt_grad(c, g->s, &g->s, 1, &g->no, TTT_GRAD_ADD))                       \
    X(ttt_vjp, "y", ttt_vjp(c, no, x, &g->x, 1, g->out, TTT_GRAD_FIRST_ORDER))                     \
    X(ttt_vjp, "seed", ttt_vjp(c, x, no, &g->x, 1, g->out, TTT_GRAD_RECORD))                       \
    X(ttt_vjp, "wrt[1]", ttt_vjp(c, x, x, pair(g, x, no), 2, g->out, TTT_GRAD_RECORD))             \
    X(ttt_vjp, "out[0]", ttt_vjp(c, x, x, &g->x, 1, &g->no, TTT_GRAD_ADD))                         \
    X(ttt_remat, "remat", ttt_remat(c, first_of, &g->no, 1, x->shape, NULL, 0))                    \
    X(ttt_check_gradient, "check_gradient", ttt_check_gradient(c, sum_of, &g->no, 1, NULL, 1, 1))

#define LACKING_WEIGHT(X)                                                                          \
    X(ttt_weights_copy, "weights_copy", ttt_weights_copy(c, lacking(g, 2, 1), false))              \
    X(ttt_weights_blend, "weights_blend",                                                          \
      ttt_weights_blend(c, ttt_params_weights(&g->params), lacking(g, 2, 1), 1))                   \
    X(ttt_weights_blend, "weights_blend",                                                          \
      ttt_weights_blend(c, lacking(g, 2, 0), ttt_params_weights(&g->params), 1))                   \
    X(ttt_descend, "descend", descend(g, 0))                                                       \
    X(ttt_descend, "descend", descend(g, 1))                                                       \
    X(ttt_descend, "descend", descend(g, 2))                                                       \
    X(ttt_descend, "descend", descend(g, 3))                                                       \
    X(ttt_descend, "descend", descend(g, 4))                                                       \
    X(ttt_dense, "dense", ttt_dense(c, lacking(g, 2, 0), x))                                       \
    X(ttt_dense, "dense", ttt_dense(c, lacking(g, 2, 1), x))                                       \
    X(ttt_dense, "dense", ttt_dense(c, lacking(g, 2, 2), no))                                      \
    X(ttt_layer_norm, "layer_norm", ttt_layer_norm(c, lacking(g, 2, 0), x))                        \
    X(ttt_layer_norm, "layer_norm", ttt_layer_norm(c, lacking(g, 2, 1), x))                        \
    X(ttt_layer_norm, "layer_norm", ttt_layer_norm(c, lacking(g, 2, 2), no))                       \
    X(ttt_mlp, "mlp", ttt_mlp(c, lacking(g, 4, 0), x))                                             \
    X(ttt_mlp, "mlp", ttt_mlp(c, lacking(g, 4, 3), x))                                             \
    X(ttt_mlp, "mlp", ttt_mlp(c, lacking(g, 4, 4), no))                                            \
    X(ttt_residual_mlp, "residual_mlp", ttt_residual_mlp(c, lacking(g, 6, 0), x))                  \
    X(ttt_residual_mlp, "residual_mlp", ttt_residual_mlp(c, lacking(g, 6, 5), x))                  \
    X(ttt_residual_mlp, "residual_mlp", ttt_residual_mlp(c, lacking(g, 6, 6), no))                 \
    X(ttt_rms_norm, "rms_norm", ttt_rms_norm(c, lacking(g, 1, 0), 1, x))                           \
    X(ttt_rms_norm, "rms_norm", ttt_rms_norm(c, lacking(g, 1, 1), 1, no))                          \
    X(ttt_swiglu, "swiglu", ttt_swiglu(c, lacking(g, 3, 0), x))                                    \
    X(ttt_swiglu, "swiglu", ttt_swiglu(c, lacking(g, 3, 2), x))                                    \
    X(ttt_swiglu, "swiglu", ttt_swiglu(c, lacking(g, 3, 3), no))                                   \
    X(ttt_patch_embed, "patch_embed", ttt_patch_embed(c, lacking(g, 2, 0), x))                     \
    X(ttt_patch_embed, "patch_embed", ttt_patch_embed(c, lacking(g, 2, 1), x))                     \
    X(ttt_patch_embed, "patch_embed", ttt_patch_embed(c, lacking(g, 2, 2), no))                    \
    X(ttt_split_heads, "split_heads", ttt_split_heads(c, no, 2))                                   \
    X(ttt_join_heads, "join_heads", ttt_join_heads(c, no))                                         \
    X(ttt_inner_loop, "inner_loop", learn(g, 0))                                                   \
    X(ttt_inner_loop, "", learn(g, 1))                                                             \
    X(ttt_inner_loop, "inner", learn(g, no ? 2 : 0))                                               \
    X(ttt_inner_loop, "inner_loop", learn(g, no ? 3 : 0))                                          \
    X(ttt_inner_loop, "inner_loop", learn(g, 4))                                                   \
    X(ttt_inner_loop, "inner_loop", learn(g, 5))                                                   \
    X(ttt_npy_write, "npy_write", npy_of(g))                                                       \
    X(ttt_safetensors_write, "safetensors_write", bundle_of(g))                                    \
    X(ttt_decode, "decode", ttt_decode(c, ttt_tokenizer_bytes(c), no, false, NULL))                \
    X(ttt_one_hot, "one_hot", ttt_one_hot(c, no, 3))                                               \
    X(ttt_cross_entropy, "cross_entropy", ttt_cross_entropy(c, no, x))                             \
    X(ttt_cross_entropy, "cross_entropy", ttt_cross_entropy(c, x, no))                             \
    X(ttt_cross_entropy_labels, "cross_entropy_labels",                                            \
      ttt_cross_entropy_labels(c, no, g->rows, -1))                                                \
    X(ttt_cross_entropy_labels, "cross_entropy_labels", ttt_cross_entropy_labels(c, x, no, -1))    \
    X(ttt_binary_cross_entropy, "binary_cross_entropy", ttt_binary_cross_entropy(c, no, x))        \
    X(ttt_lm_loss, "lm_loss", ttt_lm_loss(c, no, g->rows))                                         \
    X(ttt_lm_loss, "lm_loss", ttt_lm_loss(c, x, no))                                               \
    X(ttt_binary_cross_entropy, "binary_cross_entropy", ttt_binary_cross_entropy(c, x, no))        \
    X(ttt_mixup, "mixup", mixup(g, no, x))                                                         \
    X(ttt_mixup, "mixup", mixup(g, x, no))

// These have tests of their own below, give NaN or -1 since they have no context, give tensors and
// take none, or look at no tensor.
static const char *const lacking_elsewhere[] = {
    "ttt_mixer_forward", "ttt_mixer_stream", "ttt_stream_learner", "ttt_unmask", "ttt_vit_forward",
    "ttt_lm_forward", "ttt_lm_stream", "ttt_lm_fingerprint", "ttt_generate",
    "ttt_optimizer_step",
    "ttt_item",
    "ttt_max_abs_diff", "ttt_count_correct", "ttt_npy_read", "ttt_batches_next", "ttt_weights_take"
};

static void refuses(given *g, const char *function, const char *name) {
    const char *why = g->no ? "released" : "NULL", *text = ttt_error(g->c);
    bool good = !ttt_ok(g->c) && strstr(text, name) &&
                (strstr(text, why) || (!g->no && strstr(text, "is absent")));
    if (!good) printf("  %s, %s: \"%s\"\n", function, why, ttt_error(g->c));
    CHECK(good);
    ttt_clear(g->c);
}
static void refuse_tensors(given *g) {
    ttt_ctx *c = g->c;
    ttt_tensor *no = g->no, *x = g->x;
#define X(op, formula, lo, hi, flops) ttt_##op(c, no), refuses(g, "ttt_" #op, #op);
    TTT_UNARY_OPS(X)
#undef X
#define X(op, formula, lo, hi, flops)                   \
    ttt_##op(c, no, x), refuses(g, "ttt_" #op, #op);    \
    ttt_##op(c, x, no), refuses(g, "ttt_" #op, #op);
    TTT_BINARY_OPS(X)
#undef X
#define X(function, name, call) (void)(call), refuses(g, #function, name);
    LACKING_TENSOR(X)
    LACKING_WEIGHT(X)
#undef X
}

static ttt_mixer_desc any_mixer(int i) {
    ttt_mixer_desc d = { .inner_lr = 1, .grid_rows = 2, .grid_cols = 3, .max_tokens = 6 };
    d = ttt_mixer_offer(ttt_mixer_at(i), &d);
    d.dim = 6;
    d.heads = 2;
    return d;
}
static void refuse_streams(given *g, const ttt_mixer_desc *desc, ttt_weights weights,
                           ttt_tensor *x) {
    ttt_stream stream = { 0 };
    ttt_mixer_desc d = *desc;
    ttt_tensor *w[64], *value[4], *gradient[4];
    if (!(d.mixer->flags & TTT_MIXER_STREAMS) || d.no_fused) return;
    const char *name = g->no ? d.mixer->rows[0].name : d.mixer->name;
    d.causal = !(d.mixer->flags & TTT_MIXER_CAUSAL);
    d.grid_rows = d.grid_cols = 0;
    ttt_mixer_stream(g->c, &d, weights, &stream, g->no, NULL);
    refuses(g, "ttt_mixer_stream", "mixer_stream");
    memcpy(w, weights.at, (size_t)weights.n * sizeof *w);
    w[0] = g->no;
    ttt_mixer_stream(g->c, &d, (ttt_weights){ w, weights.n }, &stream, x, NULL);
    refuses(g, "ttt_mixer_stream", name);
    ttt_stream_learner(g->c, &d, (ttt_weights){ w, weights.n }, &stream, "", value, gradient);
    refuses(g, "ttt_stream_learner", name);
}
// Every mixer with every weight, its input and its order of tokens.
static void refuse_mixers(given *g) {
    ttt_tensor *x = ttt_zeros(g->c, TTT_SHAPE(1, 6, 6)), *w[64], **losses = NULL;
    ttt_unmasked unmasked;
    for (int i = 0; ttt_mixer_at(i); i++)
        for (int fused = 0; fused < 2; fused++) {
            ttt_mixer_desc d = any_mixer(i);
            ttt_params p = { 0 };
            ttt_weights weights = ttt_mixer_new(g->c, &d, &p, "");
            d.no_fused = !fused;
            ttt_mixer_forward(g->c, &d, weights, g->no, losses);
            refuses(g, d.mixer->name, d.mixer->name);
            ttt_unmask(g->c, &d, weights, g->no, &unmasked);
            refuses(g, "ttt_unmask", d.mixer->name);
            refuse_streams(g, &d, weights, x);
            for (int k = 0; k < weights.n; k++) {
                memcpy(w, weights.at, (size_t)weights.n * sizeof *w);
                w[k] = g->no;
                ttt_mixer_forward(g->c, &d, (ttt_weights){ w, weights.n }, x, losses);
                refuses(g, d.mixer->name, g->no ? p.item[k].name : d.mixer->name);
            }
            if (!ttt_mixer_takes(d.mixer, "order") || !g->no) continue;
            d.inner_sgd = true;
            d.order = g->no;
            ttt_mixer_forward(g->c, &d, weights, x, losses);
            refuses(g, d.mixer->name, d.mixer->name);
        }
}
static void refuse_language(given *g) {
    ttt_lm_desc d = { .vocab = 3, .width = 6, .depth = 1, .pre_conv = true,
                      .mixer = { .heads = 2, .causal = true } };
    ttt_params p = { 0 };
    d.mixer.mixer = ttt_mixer_find("linear-attention");
    ttt_weights weights = ttt_lm_new(g->c, &d, &p, "");
    ttt_tensor *w[64], *x = ttt_from_int(g->c, TTT_SHAPE(1, 2), (int64_t[]){ 0, 2 });
    ttt_stream stream = { 0 };
    ttt_lm_forward(g->c, &d, weights, g->no, NULL);
    refuses(g, "ttt_lm_forward", "lm");
    ttt_lm_stream(g->c, &d, weights, &stream, g->no, NULL, true);
    refuses(g, "ttt_lm_stream", "lm");
    for (int k = 0; k < weights.n; k++) {
        memcpy(w, weights.at, (size_t)weights.n * sizeof *w);
        w[k] = g->no;
        ttt_lm_forward(g->c, &d, (ttt_weights){ w, weights.n }, x, NULL);
        refuses(g, p.item[k].name, "");
        ttt_lm_stream(g->c, &d, (ttt_weights){ w, weights.n }, &stream, x, NULL, true);
        refuses(g, p.item[k].name, "");
        ttt_lm_fingerprint(g->c, &d, (ttt_weights){ w, weights.n });
        refuses(g, p.item[k].name, "");
    }
}
static void refuse_models(given *g) {
    ttt_vit_desc d = with_mixer("mttt-linear");
    ttt_params p = { 0 };
    ttt_weights weights = ttt_vit_new(g->c, &d, &p, "");
    ttt_optimizer *optimizer =
        ttt_optimizer_new(g->c, &(ttt_optimizer_desc){ .lr = 1 }, &p);
    ttt_tensor *w[64], *x = ttt_zeros(g->c, TTT_SHAPE(1, 8, 8, 2));
    ttt_vit_forward(g->c, &d, weights, g->no, NULL);
    refuses(g, "ttt_vit_forward", "vit");
    for (int k = 0; k < weights.n; k++) {
        memcpy(w, weights.at, (size_t)weights.n * sizeof *w);
        w[k] = g->no;
        ttt_vit_forward(g->c, &d, (ttt_weights){ w, weights.n }, x, NULL);
        refuses(g, p.item[k].name, "");
    }
    ttt_vit_call call = { .order = g->no };
    if (g->no) ttt_vit_forward(g->c, &d, weights, x, &call), refuses(g, "order", "vit");
    ttt_optimizer_step(g->c, optimizer, g->no);
    refuses(g, "ttt_optimizer_step", "optimizer_step");
    refuse_language(g);
}

static void a_tensor_that_is_not_there_is_an_error_of_every_call(void) {
    for (int released = 0; released < 2; released++) {
        given g = { .c = ttt_open(NULL) };
        ttt_mark m = ttt_mark_get(g.c);
        g.no = released ? ttt_zeros(g.c, TTT_SHAPE(6, 6)) : NULL;
        ttt_mark_release(g.c, m);
        const int64_t rows[6] = { 0, 1, 2, 3, 4, 5 };
        ttt_real values[36] = { 0 };
        g.x = ttt_from(g.c, TTT_SHAPE(6, 6), values);
        g.s = ttt_scalar(g.c, 1);
        g.rows = ttt_from_int(g.c, TTT_SHAPE(6), rows);
        g.heads = ttt_zeros(g.c, TTT_SHAPE(1, 2, 6, 3));
        g.params = (ttt_params){ NULL, g.learned, 2, 2 };
        g.learned[0] = g.learned[1] = g.x;
        refuse_tensors(&g);
        refuse_mixers(&g);
        refuse_models(&g);
        CHECK(ttt_ok(g.c));
        ttt_close(g.c);
    }
    CHECK(isnan(ttt_item(NULL)) && isnan(ttt_max_abs_diff(NULL, NULL)));
    CHECK(ttt_count_correct(NULL, NULL) == -1);
}

// ---- arguments that are NULL --------------------------------------------------------------------
// X(function, argument, call) for every argument of a function that is an array, a struct, a text
// or a function and must be there: the error names it. (Tensors have their own lists above.)
#define LACKING_ARGUMENT(X)                                                                        \
    X(ttt_from, values, ttt_from(c, x->shape, NULL))                                               \
    X(ttt_from_int, values, ttt_from_int(c, x->shape, NULL))                                       \
    X(ttt_from_u8, values, ttt_from_u8(c, x->shape, NULL))                                         \
    X(ttt_from_bf16, values, ttt_from_bf16(c, x->shape, NULL))                                     \
    X(ttt_gemm, desc, ttt_gemm(c, NULL))                                                           \
    X(ttt_permute, order, ttt_permute(c, x, NULL))                                                 \
    X(ttt_concat, a, ttt_concat(c, NULL, 2, 0))                                                    \
    X(ttt_apply, op, ttt_apply(c, NULL, &x, 1, x->shape, NULL, 0))                                 \
    X(ttt_apply, in, ttt_apply(c, ttt_op_table(0), NULL, 1, x->shape, NULL, 0))                    \
    X(ttt_apply, arg, ttt_apply(c, ttt_op_table(0), &x, 1, x->shape, NULL, 8))                     \
    X(ttt_grad, wrt, ttt_grad(c, g->s, NULL, 1, g->out, TTT_GRAD_RECORD))                          \
    X(ttt_grad, out, ttt_grad(c, g->s, &x, 1, NULL, TTT_GRAD_FIRST_ORDER))                         \
    X(ttt_vjp, wrt, ttt_vjp(c, x, x, NULL, 1, g->out, TTT_GRAD_FIRST_ORDER))                       \
    X(ttt_vjp, out, ttt_vjp(c, x, x, &x, 1, NULL, TTT_GRAD_ADD))                                   \
    X(ttt_remat, f, ttt_remat(c, NULL, &x, 1, x->shape, NULL, 0))                                  \
    X(ttt_remat, in, ttt_remat(c, first_of, NULL, 1, x->shape, NULL, 0))                           \
    X(ttt_remat, user, ttt_remat(c, first_of, &x, 1, x->shape, NULL, 8))                           \
    X(ttt_check_gradient, f, ttt_check_gradient(c, NULL, &x, 1, NULL, 1, 1))                       \
    X(ttt_check_gradient, x, ttt_check_gradient(c, sum_of, NULL, 1, NULL, 1, 1))                   \
    X(ttt_params_add, rows, ttt_params_add(c, NULL, 1, 0, &sizes, p, ""))                          \
    X(ttt_params_add, sizes, ttt_params_add(c, rows, 1, 0, NULL, p, ""))                           \
    X(ttt_params_add, params, ttt_params_add(c, rows, 1, 0, &sizes, NULL, ""))                     \
    X(ttt_params_choose, params, ttt_params_choose(c, NULL, NULL, 0))                              \
    X(ttt_weights_take, w, ttt_weights_take(c, "who", NULL, 1))                                    \
    X(ttt_descend, descent, ttt_descend(c, NULL, lacking(g, 2, 2), x, NULL))                       \
    X(ttt_dense_new, params, ttt_dense_new(c, 2, 2, TTT_INIT_ZERO, NULL, ""))                      \
    X(ttt_layer_norm_new, params, ttt_layer_norm_new(c, 2, NULL, ""))                              \
    X(ttt_mlp_new, params, ttt_mlp_new(c, 2, 2, NULL, ""))                                         \
    X(ttt_rms_norm_new, params, ttt_rms_norm_new(c, 2, NULL, ""))                                  \
    X(ttt_swiglu_new, params, ttt_swiglu_new(c, 2, 2, NULL, ""))                                   \
    X(ttt_patch_embed_new, params, ttt_patch_embed_new(c, 2, 2, 2, NULL, ""))                      \
    X(ttt_inner_loop, in, ttt_inner_loop(c, NULL, lacking(g, 2, 2), NULL))                         \
    X(ttt_mixer_new, desc, ttt_mixer_new(c, NULL, p, ""))                                          \
    X(ttt_mixer_new, params, ttt_mixer_new(c, &mixer, NULL, ""))                                   \
    X(ttt_mixer_forward, desc, ttt_mixer_forward(c, NULL, lacking(g, 2, 2), x, NULL))              \
    X(ttt_mixer_stream, desc, ttt_mixer_stream(c, NULL, lacking(g, 2, 2), &stream, x, NULL))       \
    X(ttt_mixer_stream, stream, ttt_mixer_stream(c, &mixer, lacking(g, 2, 2), NULL, x, NULL))      \
    X(ttt_stream_copy, into, ttt_stream_copy(c, NULL, &stream))                                    \
    X(ttt_stream_copy, from, ttt_stream_copy(c, &stream, NULL))                                    \
    X(ttt_stream_learner, desc,                                                                    \
      ttt_stream_learner(c, NULL, lacking(g, 2, 2), &stream, "", &some, &some))                    \
    X(ttt_stream_learner, stream,                                                                  \
      ttt_stream_learner(c, &mixer, lacking(g, 2, 2), NULL, "", &some, &some))                     \
    X(ttt_stream_learner, value,                                                                   \
      ttt_stream_learner(c, &mixer, lacking(g, 2, 2), &stream, "", NULL, &some))                   \
    X(ttt_stream_learner, gradient,                                                                \
      ttt_stream_learner(c, &mixer, lacking(g, 2, 2), &stream, "", &some, NULL))                   \
    X(ttt_unmask, desc, ttt_unmask(c, NULL, lacking(g, 2, 2), x, &unmasked))                       \
    X(ttt_unmask, out, ttt_unmask(c, &mixer, lacking(g, 2, 2), x, NULL))                           \
    X(ttt_file_read, path, ttt_file_read(c, NULL, NULL))                                           \
    X(ttt_file_begin, w, ttt_file_begin(c, NULL, "never"))                                         \
    X(ttt_file_begin, path, ttt_file_begin(c, &writer, NULL))                                      \
    X(ttt_file_finish, w, ttt_file_finish(c, NULL, true))                                          \
    X(ttt_file_lock, path, ttt_file_lock(c, NULL))                                                 \
    X(ttt_safetensors_read, path, ttt_safetensors_read(c, NULL, &bundle))                          \
    X(ttt_safetensors_read, out, ttt_safetensors_read(c, "never", NULL))                           \
    X(ttt_safetensors_open, path, ttt_safetensors_open(c, NULL, &bundle))                          \
    X(ttt_safetensors_open, out, ttt_safetensors_open(c, "never", NULL))                           \
    X(ttt_safetensors_write, path, ttt_safetensors_write(c, NULL, &bundle, false))                 \
    X(ttt_safetensors_write, bundle, ttt_safetensors_write(c, "never", NULL, false))               \
    X(ttt_npy_read, path, ttt_npy_read(c, NULL, g->out))                                           \
    X(ttt_npy_read, out, ttt_npy_read(c, "never", NULL))                                           \
    X(ttt_npy_write, path, ttt_npy_write(c, NULL, x))                                              \
    X(ttt_gzip_inflate, bytes, ttt_gzip_inflate(c, NULL, NULL, 9, byte, 9, &size))                 \
    X(ttt_gzip_inflate, out, ttt_gzip_inflate(c, NULL, byte, 9, NULL, 9, &size))                   \
    X(ttt_gzip_inflate, size, ttt_gzip_inflate(c, NULL, byte, 9, byte, 9, NULL))                   \
    X(ttt_idx_parse, bytes, ttt_idx_parse(c, NULL, NULL, 9, &idx))                                 \
    X(ttt_idx_parse, out, ttt_idx_parse(c, NULL, byte, 9, NULL))                                   \
    X(ttt_idx_read, path, ttt_idx_read(c, NULL, &idx))                                             \
    X(ttt_idx_read, out, ttt_idx_read(c, "never", NULL))                                           \
    X(ttt_images_from_idx, pixels, ttt_images_from_idx(c, NULL, NULL, NULL, &full, 9, &set))       \
    X(ttt_images_from_idx, labels, ttt_images_from_idx(c, NULL, &full, NULL, NULL, 9, &set))       \
    X(ttt_images_from_idx, out, ttt_images_from_idx(c, NULL, &full, NULL, &full, 9, NULL))         \
    X(ttt_images_load_idx, dir, ttt_images_load_idx(c, NULL, "train", 9, &set))                    \
    X(ttt_images_load_idx, split, ttt_images_load_idx(c, "never", NULL, 9, &set))                  \
    X(ttt_images_load_idx, out, ttt_images_load_idx(c, "never", "train", 9, NULL))                 \
    X(ttt_images_missing_idx, dir, ttt_images_missing_idx(c, NULL))                                \
    X(ttt_images_measure, images, ttt_images_measure(c, NULL, &norm))                              \
    X(ttt_images_measure, out, ttt_images_measure(c, &set, NULL))                                  \
    X(ttt_images_draw, out, ttt_images_draw(c, 1, 0, 1, NULL))                                     \
    X(ttt_batches_new, desc, ttt_batches_new(c, NULL))                                             \
    X(ttt_batches_next, batches, ttt_batches_next(c, NULL, NULL, NULL))                            \
    X(ttt_batches_seek, batches, ttt_batches_seek(c, NULL, 0, 0))                                  \
    X(ttt_tokenizer_parse, json, ttt_tokenizer_parse(c, NULL, NULL, 9))                            \
    X(ttt_tokenizer_read, path, ttt_tokenizer_read(c, NULL))                                       \
    X(ttt_encode, tokenizer, ttt_encode(c, NULL, "a", 1, false))                                   \
    X(ttt_encode, text, ttt_encode(c, ttt_tokenizer_bytes(c), NULL, 1, false))                     \
    X(ttt_decode, tokenizer, ttt_decode(c, NULL, x, false, &size))                                 \
    X(ttt_decoder_push, decoder, ttt_decoder_push(c, NULL, 0, &size))                              \
    X(ttt_decoder_end, decoder, ttt_decoder_end(c, NULL, &size))                                   \
    X(ttt_mixup, rng, ttt_mixup(c, NULL, 1, &x, &x))                                               \
    X(ttt_mixup, x, ttt_mixup(c, ttt_ctx_rng(c), 1, NULL, &x))                                     \
    X(ttt_mixup, target, ttt_mixup(c, ttt_ctx_rng(c), 1, &x, NULL))                                \
    X(ttt_vit_new, desc, ttt_vit_new(c, NULL, p, ""))                                              \
    X(ttt_vit_new, params, ttt_vit_new(c, &vit, NULL, ""))                                         \
    X(ttt_vit_forward, desc, ttt_vit_forward(c, NULL, lacking(g, 2, 2), x, NULL))                  \
    X(ttt_lm_new, desc, ttt_lm_new(c, NULL, p, ""))                                                \
    X(ttt_lm_new, params, ttt_lm_new(c, &lm, NULL, ""))                                            \
    X(ttt_lm_forward, desc, ttt_lm_forward(c, NULL, lacking(g, 2, 2), x, NULL))                    \
    X(ttt_lm_config_read, path, ttt_lm_config_read(c, NULL, &lm, NULL))                            \
    X(ttt_lm_stream, desc, ttt_lm_stream(c, NULL, none, &stream, x, NULL, false))                  \
    X(ttt_lm_stream, stream, ttt_lm_stream(c, &lm, none, NULL, x, NULL, false))                    \
    X(ttt_lm_fingerprint, desc, ttt_lm_fingerprint(c, NULL, none))                                 \
    X(ttt_choose, choice, ttt_choose(c, NULL, ttt_ctx_rng(c), g->x->data, 2, NULL, 0))             \
    X(ttt_choose, rng, ttt_choose(c, &choice, NULL, g->x->data, 2, NULL, 0))                       \
    X(ttt_choose, logits, ttt_choose(c, &choice, ttt_ctx_rng(c), NULL, 2, NULL, 0))                \
    X(ttt_choose, seen, ttt_choose(c, &choice, ttt_ctx_rng(c), g->x->data, 2, NULL, 1))            \
    X(ttt_generate, desc, ttt_generate(c, NULL, none, bytes, &stream, "", 0, &how, NULL))          \
    X(ttt_generate, tokenizer, ttt_generate(c, &lm, none, NULL, &stream, "", 0, &how, NULL))       \
    X(ttt_generate, stream, ttt_generate(c, &lm, none, bytes, NULL, "", 0, &how, NULL))            \
    X(ttt_generate, prompt, ttt_generate(c, &lm, none, bytes, &stream, NULL, 0, &how, NULL))       \
    X(ttt_generate, how, ttt_generate(c, &lm, none, bytes, &stream, "", 0, NULL, NULL))            \
    X(ttt_stream_save, path, ttt_stream_save(c, NULL, &stream, ""))                                \
    X(ttt_stream_save, stream, ttt_stream_save(c, "never", NULL, ""))                              \
    X(ttt_stream_save, owner, ttt_stream_save(c, "never", &stream, NULL))                          \
    X(ttt_stream_load, path, ttt_stream_load(c, NULL, &stream, ""))                                \
    X(ttt_stream_load, stream, ttt_stream_load(c, "never", NULL, ""))                              \
    X(ttt_stream_load, owner, ttt_stream_load(c, "never", &stream, NULL))                          \
    X(ttt_lm_config_read, desc, ttt_lm_config_read(c, "never", NULL, NULL))                        \
    X(ttt_lm_read, path, ttt_lm_read(c, NULL, &other, p, NULL))                                    \
    X(ttt_lm_read, desc, ttt_lm_read(c, "never", NULL, p, NULL))                                   \
    X(ttt_lm_read, params, ttt_lm_read(c, "never", &other, NULL, NULL))                            \
    X(ttt_lm_write, path, ttt_lm_write(c, NULL, &lm, p, NULL))                                     \
    X(ttt_lm_write, desc, ttt_lm_write(c, "never", NULL, p, NULL))                                 \
    X(ttt_lm_write, params, ttt_lm_write(c, "never", &lm, NULL, NULL))                             \
    X(ttt_optimizer_new, desc, ttt_optimizer_new(c, NULL, p))                                      \
    X(ttt_optimizer_new, params, ttt_optimizer_new(c, &recipe, NULL))                              \
    X(ttt_optimizer_step, optimizer, ttt_optimizer_step(c, NULL, g->s))                            \
    X(ttt_audit, desc, ttt_audit(c, NULL, &report))                                                \
    X(ttt_audit, report, ttt_audit(c, &audit, NULL))                                               \
    X(ttt_audit_text, report, ttt_audit_text(c, NULL))                                             \
    X(ttt_weights_find, params, ttt_weights_find(c, NULL, "name", &bundle))                        \
    X(ttt_weights_find, name, ttt_weights_find(c, p, NULL, &bundle))                               \
    X(ttt_weights_find, file, ttt_weights_find(c, p, "name", NULL))                                \
    X(ttt_checkpoint_save, path, ttt_checkpoint_save(c, NULL, p, NULL, NULL, 0))                   \
    X(ttt_checkpoint_save, params, ttt_checkpoint_save(c, "never", NULL, NULL, NULL, 0))           \
    X(ttt_checkpoint_save, notes, ttt_checkpoint_save(c, "never", p, NULL, NULL, 1))               \
    X(ttt_checkpoint_load, path, ttt_checkpoint_load(c, NULL, p, NULL, &bundle))                   \
    X(ttt_checkpoint_load, params, ttt_checkpoint_load(c, "never", NULL, NULL, &bundle))           \
    X(ttt_checkpoint_load, file, ttt_checkpoint_load(c, "never", p, NULL, NULL))

// What calls with NULL where it has a meaning need.
static bool is_open(const ttt_desc *desc) {
    ttt_ctx *c = ttt_open(desc);
    bool good = ttt_ok(c);
    ttt_close(c);
    return good;
}
// Whether the call before failed with a text that has `part` in it; forgets the error.
static bool told(ttt_ctx *c, const char *part) {
    bool good = !ttt_ok(c) && strstr(ttt_error(c), part);
    ttt_clear(c);
    return good;
}
static bool steps_without_state(given *g) {
    ttt_descent d = { .rate = 1 };
    return ttt_descend(g->c, &d, (ttt_weights){ &g->x, 1 },
                       ttt_sum(g->c, ttt_square(g->c, g->x)), NULL).n == 1;
}
static bool mixes_without_losses(ttt_ctx *c, const ttt_mixer_desc *d) {
    ttt_params p = { 0 };
    ttt_tensor *x = ttt_zeros(c, TTT_SHAPE(1, 2, 4));
    return ttt_mixer_forward(c, d, ttt_mixer_new(c, d, &p, ""), x, NULL)->size == 8;
}
// And what its learner, if it had one, would have become: its state has no prefix.
static bool streams_without_counts(ttt_ctx *c, const ttt_mixer_desc *d) {
    ttt_params p = { 0 };
    ttt_stream stream = { 0 };
    ttt_mixer_desc learns = { .mixer = &ttt_mixer_ttt_linear, .inner_lr = 1, .causal = true };
    learns.dim = d->dim, learns.heads = d->heads;
    ttt_tensor *x = ttt_zeros(c, TTT_SHAPE(1, 2, 4)), *value[2], *gradient[2];
    ttt_weights w = ttt_mixer_new(c, &learns, &p, "");
    return ttt_mixer_stream(c, &learns, w, &stream, x, NULL)->size == 8 &&
           ttt_stream_learner(c, &learns, w, &stream, NULL, value, gradient) == TTT_OK;
}
static bool classifies_without_call(ttt_ctx *c, const ttt_vit_desc *d) {
    ttt_params p = { 0 };
    ttt_tensor *x = ttt_zeros(c, TTT_SHAPE(1, 8, 8, 2));
    return ttt_vit_forward(c, d, ttt_vit_new(c, d, &p, ""), x, NULL)->size == 5;
}
static bool foretells_without_call(ttt_ctx *c, const ttt_lm_desc *d) {
    ttt_params p = { 0 };
    ttt_tensor *tokens = ttt_from_int(c, TTT_SHAPE(1, 2), (int64_t[]){ 1, 2 });
    ttt_weights w = ttt_lm_new(c, d, &p, "");
    ttt_stream stream = { 0 };
    return ttt_lm_forward(c, d, w, tokens, NULL)->size == 2 * 3 &&
           ttt_lm_stream(c, d, w, &stream, tokens, NULL, true)->size == 3;
}
static bool images_without_names(ttt_ctx *c, const ttt_idx *idx) {
    ttt_images set;
    ttt_images_from_idx(c, NULL, idx, NULL, idx, 9, &set);
    return told(c, "images: ");
}
static bool next_without_tensors(ttt_ctx *c) {
    ttt_images set;
    ttt_images_draw(c, 1, 0, 2, &set);
    ttt_batches_desc d = { .images = &set, .batch = 2 };
    return ttt_batches_next(c, ttt_batches_new(c, &d), NULL, NULL) == 2;
}
static bool saves_without_optimizer(ttt_ctx *c, ttt_params *p) {
    const char *path = "test_model.null";
    ttt_bundle file;
    size_t size;
    bool good = ttt_checkpoint_save(c, path, p, NULL, NULL, 0) == TTT_OK &&
                ttt_checkpoint_load(c, path, p, NULL, &file) == TTT_OK &&
                ttt_file_read(c, path, NULL) && ttt_file_read(c, path, &size);
    remove(path);
    return good;
}

// X(function, argument, what is true then) for the others, where NULL has a meaning.
static bool decodes_without_sizes(ttt_ctx *c) {
    ttt_decoder d = { .tokenizer = ttt_tokenizer_bytes(c) };
    ttt_tensor *ids = ttt_encode(c, d.tokenizer, "A\xc3", 2, false);
    return strcmp(ttt_decode(c, d.tokenizer, ids, false, NULL), "A\xc3") == 0 &&
           strcmp(ttt_decoder_push(c, &d, 'A', NULL), "A") == 0 &&
           strcmp(ttt_decoder_push(c, &d, 0xc3, NULL), "") == 0 &&
           strcmp(ttt_decoder_end(c, &d, NULL), "\xef\xbf\xbd") == 0;
}
#define ABSENT_ARGUMENT(X)                                                                         \
    X(ttt_open, desc, is_open(NULL))                                                               \
    X(ttt_fail, format, (ttt_fail(c, TTT_ERR_UNSET, NULL), told(c, "was not set")))                \
    X(ttt_profile_rows, rows, ttt_profile_rows(c, NULL, 9) == 0)                                   \
    X(ttt_profile_share, row, ttt_profile_share(NULL, &peak, &text) == 0 && !*text)                \
    X(ttt_profile_share, peak, ttt_profile_share(&row, NULL, &text) == 0 && !*text)                \
    X(ttt_profile_share, bound, ttt_profile_share(&row, &peak, NULL) == 0)                         \
    X(ttt_profile_text, peak, *ttt_profile_text(c, NULL, 1, 9))                                    \
    X(ttt_rng_u32, rng, ttt_rng_u32(NULL) == 0)                                                    \
    X(ttt_rng_uniform, rng, ttt_rng_uniform(NULL) == 0)                                            \
    X(ttt_rng_normal, rng, ttt_rng_normal(NULL) == 0)                                              \
    X(ttt_rng_below, rng, ttt_rng_below(NULL, 9) == 0)                                             \
    X(ttt_shape_text, text, !*ttt_shape_text(x->shape, NULL))                                      \
    X(ttt_check_gradient, user, ttt_check_gradient(c, sum_of, &x, 1, NULL, 1, 1) >= 0)             \
    X(ttt_params_add, prefix, ttt_params_add(c, rows, 1, 0, &sizes, p, NULL).n == 1)               \
    X(ttt_dense_new, prefix, ttt_dense_new(c, 2, 2, TTT_INIT_ZERO, p, NULL).n == 2)                \
    X(ttt_layer_norm_new, prefix, ttt_layer_norm_new(c, 2, p, NULL).n == 2)                        \
    X(ttt_mlp_new, prefix, ttt_mlp_new(c, 2, 2, p, NULL).n == 4)                                   \
    X(ttt_rms_norm_new, prefix, ttt_rms_norm_new(c, 2, p, NULL).n == 1)                            \
    X(ttt_swiglu_new, prefix, ttt_swiglu_new(c, 2, 2, p, NULL).n == 3)                             \
    X(ttt_patch_embed_new, prefix, ttt_patch_embed_new(c, 2, 2, 2, p, NULL).n == 2)                \
    X(ttt_mixer_new, prefix, ttt_mixer_new(c, &mixer, p, NULL).n > 0)                              \
    X(ttt_vit_new, prefix, ttt_vit_new(c, &vit, p, NULL).n > 0)                                    \
    X(ttt_lm_new, prefix, ttt_lm_new(c, &lm, p, NULL).n > 0)                                       \
    X(ttt_params_weights, params, ttt_params_weights(NULL).n == 0)                                 \
    X(ttt_params_find, params, !ttt_params_find(NULL, "name"))                                     \
    X(ttt_params_find, name, !ttt_params_find(p, NULL))                                            \
    X(ttt_params_count, params, ttt_params_count(NULL, 0) == 0)                                    \
    X(ttt_params_choose, part, ttt_params_choose(c, &g->params, NULL, 0)[1])                       \
    X(ttt_weights_take, who, ttt_weights_take(c, NULL, &none, 0).n == 0)                           \
    X(ttt_descend, state, steps_without_state(g))                                                  \
    X(ttt_inner_loop, losses, learn(g, -1).n == 2)                                                 \
    X(ttt_mixer_find, name, !ttt_mixer_find(NULL))                                                 \
    X(ttt_mixer_takes, mixer, !ttt_mixer_takes(NULL, "causal"))                                    \
    X(ttt_mixer_takes, option, !ttt_mixer_takes(mixer.mixer, NULL))                                \
    X(ttt_mixer_offer, mixer, !ttt_mixer_offer(NULL, &mixer).mixer)                                \
    X(ttt_mixer_offer, desc, ttt_mixer_offer(mixer.mixer, NULL).mixer == mixer.mixer)              \
    X(ttt_mixer_count, desc, ttt_mixer_count(NULL) == 0)                                           \
    X(ttt_mixer_forward, losses, mixes_without_losses(c, &mixer))                                  \
    X(ttt_mixer_stream, counts, streams_without_counts(c, &mixer))                                 \
    X(ttt_stream_learner, prefix, streams_without_counts(c, &mixer))                               \
    X(ttt_stream_restart, stream, (ttt_stream_restart(NULL, 0), true))                             \
    X(ttt_file_read, size, saves_without_optimizer(c, p))                                          \
    X(ttt_file_put, w, !ttt_file_put(NULL, "", 1))                                                 \
    X(ttt_file_put, bytes, !ttt_file_put(&writer, NULL, 1))                                        \
    X(ttt_bundle_at, bundle, !ttt_bundle_at(NULL, 0))                                              \
    X(ttt_bundle_find, bundle, !ttt_bundle_find(NULL, "name"))                                     \
    X(ttt_bundle_find, name, !ttt_bundle_find(&bundle, NULL))                                      \
    X(ttt_bundle_place, bundle, ttt_bundle_place(NULL, "name") == -1)                              \
    X(ttt_bundle_place, name, ttt_bundle_place(&bundle, NULL) == -1)                               \
    X(ttt_bundle_rows, bundle, !ttt_bundle_rows(NULL, 0, 0, 0))                                    \
    X(ttt_bundle_shape, bundle, ttt_bundle_shape(NULL, 0).rank == 0)                               \
    X(ttt_bundle_note, bundle, !ttt_bundle_note(NULL, "key"))                                      \
    X(ttt_bundle_note, key, !ttt_bundle_note(&bundle, NULL))                                       \
    X(ttt_gzip_inflate, name, (ttt_gzip_inflate(c, NULL, "", 0, byte, 9, &size), told(c, "gzip"))) \
    X(ttt_idx_parse, name, (ttt_idx_parse(c, NULL, "", 0, &idx), told(c, "IDX")))                  \
    X(ttt_images_from_idx, pixels_name, images_without_names(c, &full))                            \
    X(ttt_images_from_idx, labels_name, images_without_names(c, &full))                            \
    X(ttt_batches_next, x, next_without_tensors(c))                                                \
    X(ttt_batches_next, y, next_without_tensors(c))                                                \
    X(ttt_tokenizer_parse, name, (ttt_tokenizer_parse(c, NULL, "", 0), told(c, "tokenizer in")))   \
    X(ttt_vocab_size, tokenizer, ttt_vocab_size(NULL) == 0)                                        \
    X(ttt_token_id, tokenizer, ttt_token_id(NULL, "a", 1) == -1)                                   \
    X(ttt_token_id, token, ttt_token_id(ttt_tokenizer_bytes(c), NULL, 1) == -1)                    \
    X(ttt_token_text, tokenizer, !ttt_token_text(NULL, 0, &size))                                  \
    X(ttt_token_text, n, ttt_token_text(ttt_tokenizer_bytes(c), 65, NULL)[0] == 'A')               \
    X(ttt_decode, n, decodes_without_sizes(c))                                                     \
    X(ttt_decoder_push, n, decodes_without_sizes(c))                                               \
    X(ttt_decoder_end, n, decodes_without_sizes(c))                                                \
    X(ttt_vit_count, desc, ttt_vit_count(NULL) == 0)                                               \
    X(ttt_vit_forward, call, classifies_without_call(c, &vit))                                     \
    X(ttt_vit_tokens, desc, ttt_vit_tokens(NULL) == -1)                                            \
    X(ttt_vit_flops, desc, isnan(ttt_vit_flops(NULL)))                                             \
    X(ttt_lm_preset, name, ttt_lm_preset(NULL).width == 0)                                         \
    X(ttt_lm_count, desc, ttt_lm_count(NULL) == 0)                                                 \
    X(ttt_lm_forward, call, foretells_without_call(c, &lm))                                        \
    X(ttt_lm_stream, counts, foretells_without_call(c, &lm))                                       \
    X(ttt_generate, out, (ttt_generate(c, &lm, none, bytes, &stream, "", 0, &how, NULL),           \
      told(c, "generate")))                                                                        \
    X(ttt_lm_flops, desc, isnan(ttt_lm_flops(NULL, 1)))                                            \
    X(ttt_lm_config_read, folder, (ttt_lm_config_read(c, "never", &other, NULL), told(c, "never")))\
    X(ttt_lm_read, folder, (ttt_lm_read(c, "never", &other, p, NULL), told(c, "never")))           \
    X(ttt_lm_write, folder, (ttt_lm_write(c, "never", &lm, p, NULL), told(c, "lm_write")))         \
    X(ttt_schedule, desc, isnan(ttt_schedule(NULL, 0)))                                            \
    X(ttt_checkpoint_save, optimizer, saves_without_optimizer(c, p))                               \
    X(ttt_checkpoint_load, optimizer, saves_without_optimizer(c, p))

static void without(given *g, const char *function, const char *argument) {
    ttt_text text;
    snprintf(text, sizeof text, ": %s is NULL", argument);
    bool good = ttt_status(g->c) == TTT_ERR_ARGUMENT && strstr(ttt_error(g->c), text);
    if (!good) printf("  %s without %s: \"%s\"\n", function, argument, ttt_error(g->c));
    CHECK(good);
    ttt_clear(g->c);
}
static void an_argument_that_is_NULL_is_named_or_has_a_meaning(void) {
    given given_here = { .c = ttt_open(NULL) }, *g = &given_here;
    ttt_ctx *c = g->c;
    ttt_tensor *x = ttt_zeros(c, TTT_SHAPE(2, 2));
    ttt_vit_desc vit = with_mixer("linear-attention");
    ttt_mixer_desc mixer = vit.mixer;
    mixer.dim = 4, mixer.heads = 2;
    ttt_tensor *some = NULL;
    ttt_lm_desc lm = { .vocab = 3, .width = 4, .depth = 1, .mixer = mixer };
    lm.mixer.causal = true;
    const ttt_tokenizer *bytes = ttt_tokenizer_bytes(c);
    ttt_generate_desc how = { .tokens = 0 };
    ttt_choice choice = { 0 };
    ttt_lm_desc other;
    ttt_stream stream = { 0 };
    ttt_params params = { 0 }, *p = &params;
    ttt_param_row rows[1] = { { "row", "D", TTT_INIT_ZERO, NULL, NULL, 0, 0 } };
    ttt_sizes sizes = ttt__sizes("D", 2, 0, 0, 0);
    ttt_optimizer_desc recipe = { .lr = 1 };
    ttt_audit_desc audit = { 0 };
    ttt_audit_report report;
    ttt_weights none = { NULL, 0 };
    ttt_unmasked unmasked;
    ttt_file_writer writer = { 0 };
    ttt_bundle bundle = { 0 };
    ttt_idx idx, full = { .data = &idx };
    ttt_images set = { 0 };
    ttt_pixel_norm norm;
    ttt_profile_row row = { 0 };
    ttt_limits peak = { 1, 1 };
    uint8_t byte[9] = { 0 };
    size_t size;
    const char *text;
    g->s = ttt_scalar(c, 1);
    g->x = x;
    g->heads = ttt_zeros(c, TTT_SHAPE(1, 2, 6, 3));
    g->params = (ttt_params){ (ttt_param[2]){ { "a", 0 }, { "b", 0 } }, g->learned, 2, 2 };
    g->learned[0] = g->learned[1] = x;
#define X(function, argument, call) (void)(call), without(g, #function, #argument);
    LACKING_ARGUMENT(X)
#undef X
    ttt_inner inner = { .learner = &ttt_learner_linear, .train = g->heads, .label = g->heads };
    ttt_inner_loop(c, &inner, none, NULL), without(g, "ttt_inner_loop", "in->loss");
    inner.learner = NULL;
    ttt_inner_loop(c, &inner, none, NULL), without(g, "ttt_inner_loop", "in->learner");
    none.n = 2;
    ttt_dense(c, none, x), without(g, "ttt_dense", "the array of its weights");
    ttt_mixer_forward(c, &mixer, none, g->heads, NULL), ttt_clear(c);
    none.n = 0;
#define X(function, argument, truth)                                                               \
    params.n = 0;                                                                                  \
    CHECK(truth);                                                                                  \
    if (!ttt_ok(c)) printf("  %s without %s: %s\n", #function, #argument, ttt_error(c));           \
    CHECK(ttt_ok(c));
    ABSENT_ARGUMENT(X)
#undef X
    ttt_close(c);
}

// The two lists are complete: they have every argument of the four headers' functions that is a
// pointer to anything but a tensor or the context, or a function.
static bool argument_listed(const char *function, const char *argument) {
#define X(name, its, call) if (!strcmp(function, #name) && !strcmp(argument, #its)) return true;
    LACKING_ARGUMENT(X)
    ABSENT_ARGUMENT(X)
#undef X
    return false;
}

// The list of calls is complete: it has every function of the four headers whose parameters name a
// tensor or weights.
static bool listed(const char *function) {
#define X(name, message, call) if (!strcmp(function, #name)) return true;
    LACKING_TENSOR(X)
    LACKING_WEIGHT(X)
#undef X
    for (int i = 0; i < COUNT(lacking_elsewhere); i++)
        if (!strcmp(function, lacking_elsewhere[i])) return true;
    return false;
}
static void arguments_are_listed(const char *function, char *arguments) {
    for (char *one = strtok(arguments, ","); one; one = strtok(NULL, ",")) {
        char *comment = strstr(one, "/*"), *name;
        if (comment) *comment = 0;
        for (size_t n = strlen(one); n && (one[n - 1] == ' ' || one[n - 1] == '\n'); n--)
            one[n - 1] = 0;
        bool pointer = strchr(one, '*') || strstr(one, "_fn ") || strstr(one, "ttt_function ");
        if (!pointer || strstr(one, "ttt_ctx *")) continue;
        name = one + strlen(one);
        while (name > one && name[-1] != ' ' && name[-1] != '*') name--;
        bool tensor = strstr(one, "ttt_tensor *") && !strstr(one, "*const *") && !strstr(one, "**");
        if (tensor || argument_listed(function, name)) continue;
        printf("  %s without %s is not listed\n", function, name);
        CHECK(false);
    }
}
static void all_are_listed(char *text) {
    for (char *at = text, *end; (at = strstr(at, "\nTTT_API ")) != NULL; at = end) {
        char *open = strchr(at, '('), *name = open;
        end = strchr(at, ';');
        if (!open || !end) break;
        *end = *open = 0;
        while (name > at && name[-1] != ' ' && name[-1] != '*') name--;
        bool takes = strstr(open + 1, "ttt_tensor *") || strstr(open + 1, "ttt_weights ");
        if (takes && !listed(name)) printf("  %s is not listed\n", name);
        CHECK(!takes || listed(name));
        if (end[-1] == ')') end[-1] = 0;
        arguments_are_listed(name, open + 1);
        *open = '(';
        *end = ';';
    }
}
static void the_list_of_calls_is_complete(void) {
    static const char *const headers[] = { "ttt_tensor.h", "ttt_layers.h", "ttt_data.h",
                                           "ttt_model.h" };
    for (int i = 0; i < COUNT(headers); i++) {
        FILE *f = fopen(headers[i], "rb");
        if (!f) SKIP("the headers are not in this folder");
        char *text = calloc(1, 1 << 20);
        CHECK(fread(text, 1, (1 << 20) - 1, f) > 10000 && feof(f));
        fclose(f);
        all_are_listed(text);
        free(text);
    }
}

// Mixers go through 150 chunks or 75 inner steps, each of which gives one input of a concatenation.
static void mixers_learn_through_any_number_of_chunks(void) {
    enum { N = 150 };
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *mixer = ttt_mixer_at(i);
        if (!ttt_mixer_takes(mixer, "chunk") && !ttt_mixer_takes(mixer, "inner_steps")) continue;
        ttt_ctx *c = ttt_open(NULL);
        ttt_params p = { 0 };
        ttt_mixer_desc d = { .inner_lr = REAL(0.01), .chunk = 1, .causal = true, .inner_steps = 75,
                             .inner_sgd = true };
        d = ttt_mixer_offer(mixer, &d);
        d.dim = 4;
        d.heads = 2;
        d.no_fused = true;
        ttt_weights w = ttt_mixer_new(c, &d, &p, "");
        ttt_tensor *x = ttt_uniform(c, TTT_SHAPE(1, N, 4), -1, 1), *g;
        ttt_tensor *y = ttt_mixer_forward(c, &d, w, x, NULL);
        ttt_grad(c, ttt_sum(c, ttt_square(c, y)), &x, 1, &g, TTT_GRAD_FIRST_ORDER);
        if (!ttt_ok(c)) printf("  %s: %s\n", mixer->name, ttt_error(c));
        CHECK(ttt_ok(c) && g->size == 4 * N);
        for (int64_t k = 0; k < g->size; k++) CHECK(isfinite(g->data[k]));
        ttt_close(c);
    }
}

// ---- memory that runs out -----------------------------------------------------------------------
static long errors_seen;
// Whether a call must be made again: the context had no memory for it, and has some now. Where it
// is scarce, one more allocation is granted each time, so that each fails once.
static bool again(ttt_ctx *c) {
    static long tries;
    bool lacks = ttt_status(c) == TTT_ERR_NO_MEMORY;
    CHECK(lacks || ttt_ok(c));
    tries = lacks ? tries + 1 : 0;
    grants = tries;
    errors_seen += lacks;
    if (lacks) fails_at = 0;
    if (lacks && c) ttt_clear(c);
    return lacks;
}

// Steps of growing batches, so that each needs more memory than those before.
static void growing_step(model *m, int k) {
    ttt_rng rng = *ttt_ctx_rng(m->c);
    do {
        *ttt_ctx_rng(m->c) = rng;
        step(m, 1 + 6 * k, (uint64_t)k);
    } while (again(m->c));
}

// All that a model has trained, its states and counts.
static uint64_t training_bits(const model *m) {
    uint64_t h = bits_of(m);
    for (int i = 0; i < m->opt->n * m->opt->n_state; i++)
        for (int64_t j = 0; j < m->opt->state[i]->size; j++)
            h = (h ^ (uint64_t)(1e9 * (double)m->opt->state[i]->data[j] + 1e12)) * 1099511628211u;
    return h ^ (uint64_t)(m->opt->updates * 1000 + m->opt->gathered * 100 + m->opt->skipped);
}

// A whole run that makes again what had no memory.
static uint64_t stubborn_run(ttt_vit_desc d, ttt_optimizer_desc o, bool profiled) {
    model m = { .vit = d };
    mallocs = errors_seen = grants = 0;
    do m.c = ttt_open(&(ttt_desc){ .seed = 3 });
    while (again(m.c));
    do ttt_vit_new(m.c, &d, &m.p, "");
    while (again(m.c));
    do m.opt = ttt_optimizer_new(m.c, &o, &m.p);
    while (again(m.c));
    if (profiled) {
        do ttt_profile_start(m.c);
        while (again(m.c));
    }
    for (int k = 0; k < 4; k++) growing_step(&m, k);
    scarce = false;
    fails_at = 0;
    uint64_t h = training_bits(&m);
    ttt_close(m.c);
    return h;
}

// A model with little to compute, whose mixer draws random numbers if it can.
static ttt_vit_desc little_with(const ttt_mixer *mixer) {
    ttt_vit_desc d = small;
    d.patch = 4;
    d.depth = 1;
    d.mixer = (ttt_mixer_desc){ .heads = 3, .inner_lr = 1, .inner_steps = 2, .inner_sgd = true };
    d.mixer = ttt_mixer_offer(mixer, &d.mixer);
    return d;
}
static ttt_optimizer_desc clipped(int rule, int accumulate) {
    return (ttt_optimizer_desc){ .rule = ttt_rule_at(rule), .lr = REAL(0.01), .clip = 1,
                                 .weight_decay = REAL(0.1), .accumulate = accumulate };
}

// Every allocation of a run fails once, one after another: all mixers, rules, with and without
// gathered gradients. What is made again gives the same bits.
static void runs_short_of_memory_everywhere_end_with_the_same_bits(void) {
    for (int i = 0; ttt_mixer_at(i); i++)
        for (int k = 0; ttt_rule_at(k / 2); k++) {
            ttt_vit_desc d = little_with(ttt_mixer_at(i));
            ttt_optimizer_desc o = clipped(k / 2, 1 + k % 2 * 2);
            uint64_t right = stubborn_run(d, o, false);
            scarce = true;
            uint64_t got = stubborn_run(d, o, (i + k / 2) % 2);
            if (got != right)
                printf("  %s, %s, accumulate %d\n", d.mixer.mixer->name, o.rule->name,
                       o.accumulate);
            CHECK(got == right && errors_seen > 5);
        }
}

// Each allocation fails in turn, alone or with all later ones until the error is seen.
static void a_step_that_had_no_memory_is_made_again_with_the_same_bits(void) {
    for (int k = 0; ttt_rule_at(k); k++)
        for (int kind = 0; kind < 4; kind++) {
            ttt_vit_desc d = little_with(&ttt_mixer_mttt_linear);
            ttt_optimizer_desc o = clipped(k, 1 + kind / 2);
            uint64_t right = stubborn_run(d, o, false);
            bool failed = true;
            for (long n = 1; failed && n < 1000; n++) {
                fails_at = n;
                fails_on = kind % 2;
                CHECK(stubborn_run(d, o, n % 2) == right);
                failed = errors_seen > 0;
                CHECK(errors_seen <= 1);
            }
            CHECK(!failed);
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
    CHECK(b.opt->grad_norm > 0 && b.opt->updates == 3 && a.opt->updates == 6);
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

// A run that stops after any of its steps, between two updates too, goes on with the same bits,
// also where memory runs out while it saves and loads.
static void stop_after(int stop, const ttt_rule *rule, bool short_of_memory) {
    const char *path = temporary("between.safetensors");
    ttt_optimizer_desc o = { .rule = rule, .clip = 1, .accumulate = 3 };
    model a = make_model(little_with(&ttt_mixer_mttt_mlp), o, 1),
          b = make_model(little_with(&ttt_mixer_mttt_mlp), o, 1);
    ttt_bundle file;
    for (int k = 0; k < stop; k++) step(&a, 4, (uint64_t)k);
    step(&b, 4, 99);  // something else before
    ttt_mark mark = ttt_mark_get(b.c);
    scarce = short_of_memory;
    grants = 0;
    do ttt_checkpoint_save(a.c, path, &a.p, a.opt, NULL, 0);
    while (again(a.c));
    do {
        ttt_mark_release(b.c, mark);
        ttt_checkpoint_load(b.c, path, &b.p, b.opt, &file);
    } while (again(b.c));
    scarce = false;
    CHECK(b.opt->gathered == stop % 3 && training_bits(&a) == training_bits(&b));
    CHECK(b.opt->grad_norm == a.opt->grad_norm);
    CHECK((ttt_bundle_find(&file, "optimizer/gathered/head/bias") != NULL) == (stop % 3 > 0));
    for (int k = stop; k < 7; k++) step(&a, 4, (uint64_t)k), step(&b, 4, (uint64_t)k);
    CHECK(training_bits(&a) == training_bits(&b));
    remove(path);
    ttt_close(a.c);
    ttt_close(b.c);
}
static void resuming_between_gathered_steps_gives_the_same_bits(void) {
    for (int i = 0; ttt_rule_at(i); i++)
        for (int stop = 0; stop < 7; stop++) stop_after(stop, ttt_rule_at(i), (stop + i) % 2);
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
    ttt_note first = { "of many", "that are not looked at" };
    ttt_result result = ttt_checkpoint_save(a.c, temporary("never"), &a.p, a.opt, &first, 1 << 20);
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

// Counts that are none, or do not fit, change nothing.
static void forged_numbers_of_a_checkpoint_are_refused(void) {
    static const struct { const char *key, *text; } forged[] = {
        { "optimizer.updates", "-1" }, { "optimizer.updates", " 1" }, { "optimizer.updates", "+1" },
        { "optimizer.updates", "" }, { "optimizer.updates", "nan" }, { "optimizer.updates", "1e3" },
        { "optimizer.updates", "9223372036854775807" }, { "optimizer.skipped", "-1" },
        { "optimizer.skipped", "0x10" }, { "rng.seed", "-1" }, { "rng.next", "2.5" },
        { "rng.seed", "18446744073709551616" }, { "rng.stream", "1 2" }, { "rng.stream", "-1 2 3" },
        { "rng.stream", "1 2 3 x" }, { "optimizer.gathered", "2" }, { "optimizer.gathered", "-1" },
        { "optimizer.gathered", "18446744073709551617" }, { "optimizer.updates", "-3" },
        { "optimizer.updates", "9223372036854775808" }, { "optimizer.updates", " 3" },
        { "optimizer.skipped", "1e3" }, { "rng.next", "18446744073709551616" } };
    const char *path = temporary("forged.safetensors");
    for (int i = 0; i < COUNT(forged); i++) {
        model a = make_model(with_mixer("none"), (ttt_optimizer_desc){ .accumulate = 2 }, 1);
        ttt_bundle file;
        for (int n = 1; n <= 3; n++) step(&a, 4, n);  // an update, and half of the next
        *ttt_ctx_rng(a.c) = ttt_rng_at(7, 1, 2, 3);  // so that there is a stream
        CHECK(ttt_checkpoint_save(a.c, path, &a.p, a.opt, NULL, 0) == TTT_OK);
        CHECK(ttt_safetensors_read(a.c, path, &file) == TTT_OK);
        for (int64_t k = 0; k < file.n_notes; k++)
            if (strcmp(file.notes[k].key, forged[i].key) == 0) file.notes[k].text = forged[i].text;
        CHECK(ttt_safetensors_write(a.c, path, &file, false) == TTT_OK);
        uint64_t before = bits_of(&a), training = training_bits(&a);
        CHECK(ttt_checkpoint_load(a.c, path, &a.p, a.opt, &file) == TTT_ERR_FORMAT);
        CHECK(strstr(ttt_error(a.c), forged[i].key) && bits_of(&a) == before);
        CHECK(a.opt->updates == 1 && a.opt->skipped == 0 && training_bits(&a) == training);
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
            CHECK((w.at[i]->data == ttt_bundle_find(&file, m.p.item[i].name)->data) == !bf16);
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
        T(losses_of_certain_answers),
        T(labels_give_the_loss_of_their_one_hot_rows),
        T(labels_leave_out_what_is_ignored),
        T(right_answers_are_counted_and_nan_is_wrong),
        T(a_bad_label_costs_its_own_row_and_no_other),
        T(bad_labels_and_numbers_of_rows_are_named),
        T(mixup_blends_with_the_neighbor),
        T(mixup_draws_from_its_distribution_for_any_parameter),
        T(mixup_without_memory_changes_nothing),
        T(mixup_refuses_what_it_cannot_blend),
        T(vit_has_shapes_names_and_counts),
        T(learned_positions_are_a_parameter),
        T(tokens_are_globals_and_then_patches),
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
        T(finite_gradients_of_every_size_are_used),
        T(adam_steps_by_its_rate_whatever_the_gradient),
        T(training_lowers_the_loss_of_every_mixer),
        T(the_same_bits_for_any_number_of_threads),
        T(recomputed_blocks_give_the_same_bits),
        T(warm_steps_allocate_nothing),
        T(mixers_learn_through_any_number_of_chunks),
        T(runs_short_of_memory_everywhere_end_with_the_same_bits),
        T(a_step_that_had_no_memory_is_made_again_with_the_same_bits),
        T(a_tensor_that_is_not_there_is_an_error_of_every_call),
        T(an_argument_that_is_NULL_is_named_or_has_a_meaning),
        T(the_list_of_calls_is_complete),
#ifndef TTT_NO_STDIO
        T(resuming_gives_the_same_bits),
        T(resuming_between_gathered_steps_gives_the_same_bits),
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
