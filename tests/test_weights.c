// test_weights.c - models as functions of their weights: parts, copies, averages, steps of descent.
#include <math.h>
#include <stdio.h>
#include <string.h>

#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "ttt_test.h"

static ttt_ctx *open_ctx(void) { return ttt_open(&(ttt_desc){ .seed = 5 }); }

static bool same_bits(const ttt_tensor *a, const ttt_tensor *b) {
    return ttt_shape_equal(a->shape, b->shape) && a->data && b->data &&
           memcmp(a->data, b->data, (size_t)a->size * sizeof(ttt_real)) == 0;
}

// A small vision transformer with something in every weight.
typedef struct {
    ttt_ctx *c;
    ttt_vit_desc d;
    ttt_params p;
    ttt_weights w;
    ttt_tensor *images;
} model;
static model make_model(const char *mixer, int64_t depth) {
    model m = {
        .c = open_ctx(),
        .d = { .image = 8, .channels = 2, .patch = 2, .width = 12, .depth = depth, .classes = 5 }
    };
    m.d.mixer = (ttt_mixer_desc){ .heads = 3, .inner_lr = 1 };
    m.d.mixer = ttt_mixer_offer(ttt_mixer_find(mixer), &m.d.mixer);
    m.w = ttt_vit_new(m.c, &m.d, &m.p, "net");
    for (int i = 0; i < m.w.n; i++)
        for (int64_t j = 0; j < m.w.at[i]->size; j++)
            m.w.at[i]->data[j] += REAL(0.1 * ttt_rng_normal(ttt_ctx_rng(m.c)));
    m.images = ttt_randn(m.c, TTT_SHAPE(3, 8, 8, 2));
    return m;
}
static ttt_tensor *logits(model *m, ttt_weights w) {
    return ttt_vit_forward(m->c, &m->d, w, m->images, NULL);
}

// ---- a model runs with any weights --------------------------------------------------------------
static void a_model_runs_with_weights_that_are_not_its_own(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        model m = make_model(ttt_mixer_at(i)->name, 2);
        CHECK(m.w.n == m.p.n && m.w.n == ttt_vit_count(&m.d) &&
              ttt_params_weights(&m.p).n == m.p.n);
        ttt_weights other = ttt_weights_copy(m.c, m.w, false);
        ttt_tensor *own = logits(&m, m.w), *copied = logits(&m, other);
        CHECK(ttt_ok(m.c) && same_bits(own, copied));
        for (int k = 0; ttt_ok(m.c) && k < other.n; k++)
            for (int64_t j = 0; j < other.at[k]->size; j++) other.at[k]->data[j] += REAL(0.05);
        ttt_tensor *with_other = logits(&m, other);
        // The parameters are as they were.
        CHECK(!same_bits(own, with_other) && same_bits(own, logits(&m, m.w)));
        CHECK(ttt_weights_blend(m.c, m.w, other, 1) == TTT_OK);
        CHECK(same_bits(with_other, logits(&m, m.w)));
        ttt_close(m.c);
    }
}

static void names_have_the_prefix_and_parts_their_order(void) {
    model m = make_model("mttt-linear", 1);
    static const char *const first[] = { "net/embedding/kernel", "net/embedding/bias",
                                         "net/Transformer/encoderblock_0/LayerNorm_0/scale" };
    for (int i = 0; i < 3; i++)
        CHECK(strcmp(m.p.item[i].name, first[i]) == 0 &&
              ttt_params_find(&m.p, first[i]) == m.w.at[i]);
    ttt_weights rest = m.w, embedding = ttt_weights_take(m.c, "test", &rest, 2);
    CHECK(embedding.n == 2 && embedding.at[0] == m.w.at[0] && rest.n == m.w.n - 2 &&
          rest.at[0] == m.w.at[2]);
    ttt_weights_take(m.c, "the head", &rest, rest.n + 1);
    CHECK(ttt_status(m.c) == TTT_ERR_SHAPE && strstr(ttt_error(m.c), "the head"));
    ttt_close(m.c);
}

// The list grows, and weights handed out before stay right.
static void views_outlive_the_growth_of_the_list(void) {
    ttt_ctx *c = open_ctx();
    ttt_params p = { 0 };
    ttt_weights first = ttt_dense_new(c, 3, 2, TTT_INIT_XAVIER, &p, "first");
    ttt_tensor *x = ttt_randn(c, TTT_SHAPE(4, 3)), *before = ttt_dense(c, first, x);
    char name[16];
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "%d", i);
        ttt_dense_new(c, 3, 2, TTT_INIT_XAVIER, &p, name);
    }
    CHECK(ttt_ok(c) && p.n == 602 && same_bits(before, ttt_dense(c, first, x)) &&
          p.value[0] == first.at[0]);
    ttt_close(c);
}

static void wrong_lengths_name_the_layer(void) {
    static const char *const word[] = { "dense", "layer_norm", "mlp", "residual_mlp",
                                        "patch_embed", "vit", "vit" };
    for (int i = 0; i < 7; i++) {
        model m = make_model("none", 1);
        ttt_weights three = m.w, short_of_one = m.w;
        three.n = 3;
        short_of_one.n--;
        ttt_tensor *x = ttt_zeros(m.c, TTT_SHAPE(2, 4, 12)), *y = NULL;
        if (i == 0) y = ttt_dense(m.c, three, x);
        if (i == 1) y = ttt_layer_norm(m.c, three, x);
        if (i == 2) y = ttt_mlp(m.c, three, x);
        if (i == 3) y = ttt_residual_mlp(m.c, three, x);
        if (i == 4) y = ttt_patch_embed(m.c, three, m.images);
        if (i == 5) y = logits(&m, short_of_one);
        if (i == 6) y = logits(&m, (ttt_weights){ NULL, 0 });
        CHECK(y && ttt_status(m.c) == TTT_ERR_SHAPE &&
              strncmp(ttt_error(m.c), word[i], strlen(word[i])) == 0);
        ttt_close(m.c);
    }
}

// Arrays and tensors of a step that is over.
static void released_weights_are_refused(void) {
    for (int i = 0; i < 4; i++) {
        model m = make_model("mttt-mlp", 1);
        ttt_tensor *x = ttt_zeros(m.c, TTT_SHAPE(1, 4, 12));
        ttt_mark mark = ttt_mark_get(m.c);
        ttt_weights copy = ttt_weights_copy(m.c, m.w, false);
        ttt_mark_release(m.c, mark);
        m.d.mixer.dim = 12;
        ttt_descent step = { .rate = REAL(0.1) };
        if (i == 0) logits(&m, copy);
        if (i == 1) ttt_mixer_forward(m.c, &m.d.mixer, copy, x, NULL);
        if (i == 2) ttt_weights_blend(m.c, m.w, copy, 1);
        if (i == 3) ttt_descend(m.c, &step, copy, ttt_sum(m.c, m.images), NULL);
        CHECK(ttt_status(m.c) == TTT_ERR_RELEASED);
        ttt_close(m.c);
    }
}

// ---- averages -----------------------------------------------------------------------------------
static void blends_make_means_and_copies(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a[2] = { ttt_randn(c, TTT_SHAPE(3, 4)), ttt_randn(c, TTT_SHAPE(5)) };
    ttt_weights w = { a, 2 }, mean = ttt_weights_copy(c, w, true);
    CHECK(mean.at[0]->kept && mean.at[0] != a[0]);
    double sum[12] = { 0 };
    for (int k = 0; k < 4; k++) {  // the mean of four
        ttt_tensor *b[2] = { ttt_randn(c, TTT_SHAPE(3, 4)), ttt_randn(c, TTT_SHAPE(5)) };
        for (int j = 0; j < 12; j++) sum[j] += (double)b[0]->data[j] / 4;
        CHECK(ttt_weights_blend(c, mean, (ttt_weights){ b, 2 }, REAL(1) / REAL(k + 1)) == TTT_OK);
    }
    CHECK_CLOSE(mean.at[0]->data, sum, 12, 1e-5, 1e-6);
    ttt_tensor *wrong[2] = { ttt_randn(c, TTT_SHAPE(3, 4)), ttt_randn(c, TTT_SHAPE(4)) };
    ttt_tensor *before = ttt_from(c, TTT_SHAPE(3, 4), a[0]->data);
    CHECK(ttt_weights_blend(c, w, (ttt_weights){ wrong, 2 }, 1) == TTT_ERR_SHAPE &&
          strstr(ttt_error(c), "(5)") && strstr(ttt_error(c), "(4)"));
    ttt_clear(c);
    CHECK(ttt_weights_blend(c, w, (ttt_weights){ wrong, 1 }, 1) == TTT_ERR_SHAPE);
    ttt_clear(c);
    CHECK(same_bits(a[0], before));
    const uint16_t half[3] = { 0x3f80, 0x7fc1, 0xc000 };
    ttt_tensor *stored[2] = { ttt_from_bf16(c, TTT_SHAPE(3), half), a[1] };
    ttt_weights copy = ttt_weights_copy(c, (ttt_weights){ stored, 2 }, true);
    CHECK(copy.n == 2 && copy.at[0]->dtype == TTT_DTYPE_BF16 &&
          memcmp(copy.at[0]->bf16, half, sizeof half) == 0 && same_bits(copy.at[1], a[1]));
    ttt_close(c);
}

// ---- steps of descent ---------------------------------------------------------------------------
enum { MOST = 8 };
typedef struct {
    ttt_ctx *c;
    ttt_tensor *start[4], *support, *query, *support_y, *query_y;
    ttt_descent step;
    int steps;
} task;
static task make_task(void) {
    task t = { .c = open_ctx(), .steps = 2 };
    const ttt_shape s[4] = { TTT_SHAPE(4, 6), TTT_SHAPE(6), TTT_SHAPE(6, 3), TTT_SHAPE(3) };
    for (int i = 0; i < 4; i++) {
        t.start[i] = ttt_zeros_kept(t.c, s[i]);
        for (int64_t j = 0; j < t.start[i]->size; j++)
            t.start[i]->data[j] = REAL(0.5 * ttt_rng_normal(ttt_ctx_rng(t.c)));
    }
    t.support = ttt_randn(t.c, TTT_SHAPE(5, 4));
    t.query = ttt_randn(t.c, TTT_SHAPE(7, 4));
    t.support_y = ttt_randn(t.c, TTT_SHAPE(5, 3));
    t.query_y = ttt_randn(t.c, TTT_SHAPE(7, 3));
    t.step.rate = REAL(0.3);
    return t;
}
static ttt_weights start_of(task *t) { return (ttt_weights){ t->start, 4 }; }
static ttt_tensor *support_loss(task *t, ttt_weights w) {
    return ttt_mse(t->c, ttt_mlp(t->c, w, t->support), t->support_y);
}
static ttt_tensor *query_loss(task *t, ttt_weights w) {
    return ttt_mse(t->c, ttt_mlp(t->c, w, t->query), t->query_y);
}
static ttt_weights adapted(task *t) {
    ttt_weights w = start_of(t);
    ttt_descent_state state = { 0 };
    for (int k = 0; k < t->steps; k++)
        w = ttt_descend(t->c, &t->step, w, support_loss(t, w), &state);
    return w;
}

// Second-order MAML, once as it was written before there was ttt_descend: the same bits, gradients
// too.
static void maml_by_hand_and_by_descend_has_the_same_bits(void) {
    task t = make_task();
    ttt_ctx *c = t.c;
    ttt_tensor *w[4], *g[4], *by_hand[4], *by_descend[4];
    for (int i = 0; i < 4; i++) w[i] = t.start[i];
    for (int k = 0; k < 2; k++) {
        ttt_tensor *hidden = ttt_gelu(c, ttt_affine(c, t.support, w[0], w[1]));
        ttt_grad(c, ttt_mse(c, ttt_affine(c, hidden, w[2], w[3]), t.support_y), w, 4, g,
                 TTT_GRAD_RECORD);
        for (int i = 0; i < 4; i++) w[i] = ttt_sub(c, w[i], ttt_scale(c, g[i], REAL(0.3)));
    }
    ttt_tensor *loss = ttt_mse(
        c, ttt_affine(c, ttt_gelu(c, ttt_affine(c, t.query, w[0], w[1])), w[2], w[3]), t.query_y);
    ttt_grad(c, loss, t.start, 4, by_hand, TTT_GRAD_FIRST_ORDER);

    ttt_weights v = adapted(&t);
    ttt_tensor *same = query_loss(&t, v);
    ttt_grad(c, same, t.start, 4, by_descend, TTT_GRAD_FIRST_ORDER);
    CHECK(ttt_ok(c) && same_bits(loss, same));
    for (int i = 0; i < 4; i++)
        CHECK(same_bits(w[i], v.at[i]) && same_bits(by_hand[i], by_descend[i]));
    ttt_close(c);
}

// What an outer gradient sees: everything, the weights alone, or nothing; the numbers are the same.
static void a_step_is_taped_or_not(void) {
    ttt_tensor *loss[3], *g[3];
    task t[3];
    for (int k = 0; k < 3; k++) {
        t[k] = make_task();
        t[k].step.first_order = k == 1;
        t[k].step.untaped = k == 2;
        loss[k] = query_loss(&t[k], adapted(&t[k]));
        ttt_grad(t[k].c, loss[k], t[k].start, 1, &g[k], TTT_GRAD_FIRST_ORDER);
        CHECK(ttt_ok(t[k].c));
    }
    CHECK(same_bits(loss[0], loss[1]) && same_bits(loss[0], loss[2]));
    CHECK(!same_bits(g[0], g[1]));
    for (int64_t j = 0; j < g[2]->size; j++) CHECK(g[2]->data[j] == 0);
    CHECK(adapted(&t[2]).at[0]->op == NULL && adapted(&t[0]).at[0]->op != NULL);
    ttt_tensor *taped = support_loss(&t[0], start_of(&t[0]));
    ttt_set_recording(t[0].c, false);  // the tape is off for the step alone
    CHECK(ttt_descend(t[0].c, &t[0].step, start_of(&t[0]), taped, NULL).at[0]->op == NULL);
    for (int k = 0; k < 3; k++) ttt_close(t[k].c);
}

static void only_the_chosen_weights_move(void) {
    model m = make_model("mttt-mlp", 1);
    ttt_tensor *loss = ttt_sum(m.c, ttt_square(m.c, logits(&m, m.w)));
    const struct {
        const char *part;
        unsigned flags;
    } choice[] = { { "head", 0 },
                   { NULL, TTT_PARAM_INNER },
                   { "LayerNorm_0", 0 },
                   { NULL, 0 },
                   { "nothing", 0 } };
    const int want[] = { 2, 4, 2, m.p.n, 0 };
    for (int k = 0; k < 5; k++) {
        bool *moves = ttt_params_choose(m.c, &m.p, choice[k].part, choice[k].flags);
        ttt_descent step = { .rate = REAL(0.1), .moves = moves };
        ttt_weights w = ttt_descend(m.c, &step, m.w, loss, NULL);
        int moved = 0;
        for (int i = 0; i < w.n; i++) {
            CHECK((w.at[i] == m.w.at[i]) == !moves[i]);
            moved += moves[i];
        }
        CHECK(ttt_ok(m.c) && w.n == m.w.n && moved == want[k]);
    }
    ttt_close(m.c);
}

// A rate for every number of a weight, for each weight, and through them a gradient (Meta-SGD).
static ttt_tensor *value_after_steps(ttt_ctx *c, ttt_tensor *const *x, int n, void *user) {
    (void)c, (void)x, (void)n;
    task *t = user;
    return query_loss(t, adapted(t));
}
static void gradients_pass_through_every_rule_and_rate(void) {
    if (!DOUBLE) SKIP("needs the double build");
    for (int rule = TTT_DESCENT_PLAIN; rule <= TTT_DESCENT_ADAM; rule++)
        for (int rates = 0; rates < 2; rates++) {
            task t = make_task();
            ttt_tensor *rate[4], *wrt[MOST];
            for (int i = 0; i < 4; i++) {
                rate[i] = ttt_zeros_kept(t.c, i % 2 ? TTT_SHAPE(1) : t.start[i]->shape);
                for (int64_t j = 0; j < rate[i]->size; j++)
                    rate[i]->data[j] = REAL(0.1 + 0.01 * (double)j);
                wrt[i] = t.start[i];
                wrt[4 + i] = rate[i];
            }
            t.step.rule = (ttt_descent_rule)rule;
            t.step.rate = rates ? 0 : REAL(0.05);
            t.step.momentum = rule == TTT_DESCENT_MOMENTUM ? REAL(0.7) : 0;
            if (rates) t.step.rates = rate;
            t.steps = 3;
            for (int order = 1; order <= 2; order++) {
                double e =
                    ttt_check_gradient(t.c, value_after_steps, wrt, rates ? 8 : 4, &t, order, 1e-5);
                if (!(e < 1e-5))
                    printf("  rule %d, rates %d, order %d: %.2e %s\n", rule, rates, order, e,
                           ttt_error(t.c));
                CHECK(e < 1e-5);
            }
            ttt_close(t.c);
        }
}

// The rules with moments are the optimizers' of ttt_model.h.
static void steps_equal_the_optimizers(void) {
    for (int adam = 0; adam < 2; adam++) {
        task t = make_task();
        ttt_params p = { 0 };
        ttt_dense_new(t.c, 4, 6, TTT_INIT_XAVIER, &p, "a");
        ttt_dense_new(t.c, 6, 3, TTT_INIT_XAVIER, &p, "b");
        ttt_optimizer_desc o = { .rule = adam ? &ttt_rule_adam : &ttt_rule_momentum,
                                 .lr = REAL(0.02),
                                 .momentum = adam ? 0 : REAL(0.9) };
        ttt_optimizer *opt = ttt_optimizer_new(t.c, &o, &p);
        t.step.rule = adam ? TTT_DESCENT_ADAM : TTT_DESCENT_MOMENTUM;
        t.step.rate = REAL(0.02);
        t.step.momentum = adam ? 0 : REAL(0.9);
        t.step.untaped = true;
        ttt_weights w = ttt_weights_copy(t.c, ttt_params_weights(&p), false);
        ttt_descent_state state = { 0 };
        for (int k = 0; k < 5; k++) {
            ttt_optimizer_step(t.c, opt, support_loss(&t, ttt_params_weights(&p)));
            w = ttt_descend(t.c, &t.step, w, support_loss(&t, w), &state);
            CHECK(ttt_ok(t.c) && state.steps == k + 1);
            for (int i = 0; i < w.n; i++)
                CHECK(ttt_max_abs_diff(w.at[i], p.value[i]) <= (DOUBLE ? 1e-13 : 2e-6));
        }
        ttt_close(t.c);
    }
}

// Gradients whose squares have no number: Adam's steps are of the rate's size, and stay so.
static void adam_descends_by_its_rate_whatever_the_gradient(void) {
    const double sizes[] = { 1, 1e20, 1e37 };
    for (int i = 0; i < COUNT(sizes); i++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt_real size = REAL(DOUBLE ? pow(sizes[i], 8.1) : sizes[i]);
        ttt_tensor *at = ttt_zeros(c, TTT_SHAPE(3)), *start = at, *g;
        ttt_weights w = { &at, 1 };
        ttt_descent d = { .rule = TTT_DESCENT_ADAM, .rate = REAL(0.01) };
        ttt_descent_state state = { 0 };
        for (int k = 0; k < 3; k++)
            w = ttt_descend(c, &d, w, ttt_sum(c, ttt_scale(c, w.at[0], -size)), &state);
        for (int j = 0; j < 3 && ttt_ok(c); j++)
            CHECK(fabs((double)w.at[0]->data[j] - 0.03) < 1e-4);
        ttt_grad(c, ttt_sum(c, w.at[0]), &start, 1, &g, TTT_GRAD_FIRST_ORDER);
        CHECK(ttt_ok(c) && g->data[0] == 1);
        ttt_close(c);
    }
}

// A weight that no gradient has reached: Adam moves it nowhere, and the outer gradient is finite.
static void adam_passes_a_gradient_where_there_was_none(void) {
    task t = make_task();
    t.step.rule = TTT_DESCENT_ADAM;
    t.steps = 2;
    ttt_tensor *idle = ttt_zeros_kept(t.c, TTT_SHAPE(3)),
               *at[5] = { t.start[0], t.start[1], t.start[2], t.start[3], idle }, *g[5];
    ttt_weights w = { at, 5 };
    ttt_descent_state state = { 0 };
    for (int k = 0; k < 2; k++) {
        ttt_weights four = { w.at, 4 };
        w = ttt_descend(t.c, &t.step, w, support_loss(&t, four), &state);
    }
    ttt_weights four = { w.at, 4 };
    ttt_grad(t.c, ttt_add(t.c, query_loss(&t, four), ttt_sum(t.c, w.at[4])), at, 5, g,
             TTT_GRAD_FIRST_ORDER);
    CHECK(ttt_ok(t.c));
    for (int i = 0; i < 5; i++)
        for (int64_t j = 0; j < g[i]->size; j++) CHECK(isfinite((double)g[i]->data[j]));
    for (int j = 0; j < 3; j++) CHECK(w.at[4]->data[j] == 0 && g[4]->data[j] == 1);
    ttt_close(t.c);
}

static void wrong_steps_are_refused(void) {
    task t = make_task();
    ttt_tensor *rate[4];
    for (int i = 0; i < 4; i++) rate[i] = ttt_scalar(t.c, REAL(0.1));
    rate[2] = ttt_zeros(t.c, TTT_SHAPE(5));
    t.step.rates = rate;
    t.step.rate = 0;
    CHECK(ttt_descend(t.c, &t.step, start_of(&t), support_loss(&t, start_of(&t)), NULL).n == 0);
    CHECK(ttt_status(t.c) == TTT_ERR_SHAPE && strstr(ttt_error(t.c), "rate 2") &&
          strstr(ttt_error(t.c), "(5)") && strstr(ttt_error(t.c), "(6,3)"));
    ttt_clear(t.c);
    t.step.rates = NULL;
    t.step.rule = TTT_DESCENT_ADAM;
    CHECK(ttt_descend(t.c, &t.step, start_of(&t), support_loss(&t, start_of(&t)), NULL).n == 0);
    CHECK(ttt_status(t.c) == TTT_ERR_UNSET && strstr(ttt_error(t.c), "ttt_descent_state"));
    ttt_clear(t.c);
    ttt_descent_state state = { 0 };
    const bool first[4] = { true, false, false, false };
    ttt_descend(t.c, &t.step, start_of(&t), support_loss(&t, start_of(&t)), &state);
    t.step.moves = first;
    CHECK(ttt_ok(t.c) &&
          ttt_descend(t.c, &t.step, start_of(&t), support_loss(&t, start_of(&t)), &state).n == 0);
    CHECK(ttt_status(t.c) == TTT_ERR_SHAPE && strstr(ttt_error(t.c), "4 moving weights, here 1"));
    ttt_close(t.c);
}

// An option that has no effect is a mistake.
static void options_that_a_rule_lacks_are_refused(void) {
    static const char *const word[] = { ".momentum", ".momentum", ".beta1", ".eps", ".rates",
                                        ".rule" };
    for (int i = 0; i < 6; i++) {
        task t = make_task();
        ttt_descent_state state = { 0 };
        ttt_tensor *rate[4] = { t.start[0], t.start[1], t.start[2], t.start[3] };
        if (i == 0) t.step.momentum = REAL(0.5);
        if (i == 1) t.step.rule = TTT_DESCENT_ADAM, t.step.momentum = REAL(0.5);
        if (i == 2) t.step.beta1 = REAL(0.5);
        if (i == 3) t.step.rule = TTT_DESCENT_MOMENTUM, t.step.eps = REAL(0.5);
        if (i == 4) t.step.rates = rate;
        if (i == 5) t.step.rule = (ttt_descent_rule)7;
        CHECK(ttt_descend(t.c, &t.step, start_of(&t), support_loss(&t, start_of(&t)), &state).n ==
              0);
        CHECK(ttt_status(t.c) == TTT_ERR_ARGUMENT && strstr(ttt_error(t.c), word[i]));
        ttt_close(t.c);
    }
}

// A state belongs to its rule, to the weights that moved, and to the arena it was made in.
static void states_of_something_else_are_refused(void) {
    static const struct {
        ttt_result result;
        const char *word;
    } want[] = {
        { TTT_ERR_SHAPE, "second moments" },
        { TTT_ERR_ARGUMENT, "another rule" },
        { TTT_ERR_SHAPE, "moving weight 0 is (4,6), the weight (6)" },
        { TTT_ERR_RELEASED, "the state" },
    };
    for (int i = -1; i < 3; i++) {
        task t = make_task();
        const bool kernel[4] = { true, false, false, false },
                   bias[4] = { false, true, false, false };
        ttt_descent_state state = { 0 };
        t.step.rule = i < 0 ? TTT_DESCENT_ADAM : TTT_DESCENT_MOMENTUM;
        t.step.moves = kernel;
        ttt_tensor *loss = support_loss(&t, start_of(&t));
        ttt_mark mark = ttt_mark_get(t.c);
        ttt_descend(t.c, &t.step, start_of(&t), loss, &state);
        CHECK(ttt_ok(t.c) && state.steps == 1);
        if (i == -1) state.v.n = 0;
        if (i == 0) t.step.rule = TTT_DESCENT_ADAM;
        if (i == 1) t.step.moves = bias;
        if (i == 2) ttt_mark_release(t.c, mark);
        CHECK(ttt_descend(t.c, &t.step, start_of(&t), loss, &state).n == 0);
        CHECK(ttt_status(t.c) == want[i + 1].result && strstr(ttt_error(t.c), want[i + 1].word));
        ttt_close(t.c);
    }
}

// Without a tape there is no gradient, and a step would move nothing and say nothing.
static void a_loss_without_a_tape_is_refused(void) {
    for (int optimizer = 0; optimizer < 2; optimizer++) {
        task t = make_task();
        ttt_params p = { 0 };
        ttt_mlp_new(t.c, 4, 6, &p, "mlp");
        ttt_optimizer_desc o = { .lr = REAL(0.1) };
        ttt_optimizer *opt = ttt_optimizer_new(t.c, &o, &p);
        ttt_set_recording(t.c, false);
        ttt_tensor *loss = support_loss(&t, start_of(&t));
        if (optimizer) ttt_optimizer_step(t.c, opt, loss);
        else ttt_descend(t.c, &t.step, start_of(&t), loss, NULL);
        CHECK(ttt_status(t.c) == TTT_ERR_ARGUMENT && strstr(ttt_error(t.c), "ttt_set_recording"));
        ttt_close(t.c);
    }
    task t = make_task();  // a weight that is the loss itself has a gradient
    ttt_tensor *one = ttt_scalar(t.c, 2);
    ttt_weights w = ttt_descend(t.c, &t.step, (ttt_weights){ &one, 1 }, one, NULL);
    CHECK(ttt_ok(t.c) && fabs((double)ttt_item(w.at[0]) - 1.7) < 1e-6);
    ttt_close(t.c);
}

// Names make a parameter's start and its place in a file: two of one name are a mistake.
static void a_name_is_given_once(void) {
    ttt_ctx *c = open_ctx();
    ttt_params p = { 0 };
    ttt_dense_new(c, 3, 2, TTT_INIT_XAVIER, &p, "dense");
    CHECK(ttt_dense_new(c, 3, 2, TTT_INIT_XAVIER, &p, "dense").n == 0);
    CHECK(ttt_status(c) == TTT_ERR_ARGUMENT && strstr(ttt_error(c), "dense/kernel"));
    ttt_clear(c);
    CHECK(ttt_dense_new(c, 3, 2, TTT_INIT_XAVIER, &p, NULL).n == 2 &&
          ttt_params_find(&p, "kernel"));
    ttt_close(c);
}

// A model that could not be made leaves nothing in the list, and can be made once the mistake is
// corrected.
static void a_failed_model_leaves_no_parameters(void) {
    model m = make_model("mttt-mlp", 2);
    ttt_params p = { 0 };
    ttt_dense_new(m.c, 3, 2, TTT_INIT_XAVIER, &p, "before");
    m.d.mixer.inner_lr = 0;
    CHECK(ttt_vit_new(m.c, &m.d, &p, "vit").n == 0 && ttt_status(m.c) == TTT_ERR_UNSET && p.n == 2);
    ttt_clear(m.c);
    m.d.mixer.inner_lr = 1;
    CHECK(ttt_vit_new(m.c, &m.d, &p, "vit").n == ttt_vit_count(&m.d) &&
          p.n == 2 + ttt_vit_count(&m.d));
    ttt_close(m.c);
}

static void weights_of_another_model_are_refused(void) {
    static const char *const word[] = { "embedding/kernel", "Dense_0/kernel", "head/kernel" };
    for (int i = 0; i < 3; i++) {
        model m = make_model("none", 1);
        if (i == 0) m.d.patch = 4;
        if (i == 1) m.d.mlp = 7;
        if (i == 2) m.d.classes = 4;
        logits(&m, m.w);
        CHECK(ttt_status(m.c) == TTT_ERR_SHAPE && strstr(ttt_error(m.c), word[i]));
        ttt_close(m.c);
    }
}

// ---- a whole network as a learner ---------------------------------------------------------------
static ttt_tensor *vit_predict(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    return ttt_vit_forward(c, desc, w, x, NULL);
}
static ttt_tensor *squares(ttt_ctx *c, const void *arg, ttt_tensor *prediction, ttt_tensor *label) {
    (void)arg;
    return ttt_mse(c, prediction, label);
}
static void a_whole_network_is_a_learner(void) {
    model m = make_model("mttt-linear", 6);
    CHECK(m.w.n > 64);  // of any size
    const ttt_learner network = {
        .name = "vit", .predict = vit_predict, .desc = &m.d, .one_set = true
    };
    const ttt_real rates[2] = { REAL(0.05), REAL(0.02) };
    ttt_tensor *target = ttt_randn(m.c, TTT_SHAPE(3, 5)), *losses, *g[2];
    ttt_inner in = { .learner = &network,
                     .train = m.images,
                     .label = target,
                     .loss = squares,
                     .steps = 2,
                     .rates = rates };
    ttt_weights w = ttt_inner_loop(m.c, &in, m.w, &losses), v = m.w;
    for (int k = 0; k < 2; k++) {
        ttt_descent step = { .rate = rates[k] };
        v = ttt_descend(m.c, &step, v, ttt_mse(m.c, logits(&m, v), target), NULL);
    }
    CHECK(ttt_ok(m.c) && w.n == m.w.n && v.n == m.w.n && losses->size == 3 &&
          losses->data[2] < losses->data[0]);
    for (int i = 0; i < w.n; i++) CHECK(same_bits(w.at[i], v.at[i]));
    // the gradient of what comes out, in a weight from before the steps
    ttt_grad(m.c, ttt_sum(m.c, ttt_square(m.c, logits(&m, w))), m.w.at, 2, g, TTT_GRAD_FIRST_ORDER);
    double most = 0;
    for (int64_t j = 0; j < g[0]->size; j++) most = fmax(most, fabs((double)g[0]->data[j]));
    CHECK(ttt_ok(m.c) && most > 0);
    ttt_close(m.c);
}

// The whole network inside one node that is computed again, with more than 64 weights.
static ttt_tensor *vit_again(ttt_ctx *c, ttt_tensor *const *in, int n, const void *user) {
    return ttt_vit_forward(c, *(const ttt_vit_desc *const *)user, (ttt_weights){ in + 1, n - 1 },
                           in[0], NULL);
}
static void a_network_of_many_weights_is_computed_again(void) {
    model m = make_model("mttt-linear", 6);
    const ttt_vit_desc *d = &m.d;
    ttt_tensor *in[200] = { m.images }, *once[2], *again[2];
    for (int i = 0; i < m.w.n; i++) in[1 + i] = m.w.at[i];
    ttt_tensor *y = logits(&m, m.w),
               *r = ttt_remat(m.c, vit_again, in, 1 + m.w.n, y->shape, &d, sizeof d);
    ttt_grad(m.c, ttt_sum(m.c, ttt_square(m.c, y)), m.w.at, 2, once, TTT_GRAD_FIRST_ORDER);
    ttt_grad(m.c, ttt_sum(m.c, ttt_square(m.c, r)), m.w.at, 2, again, TTT_GRAD_FIRST_ORDER);
    CHECK(ttt_ok(m.c) && same_bits(y, r) && same_bits(once[0], again[0]) &&
          same_bits(once[1], again[1]));
    ttt_close(m.c);
}

int main(int argc, char **argv) {
    static const ttt_test tests[] = {
        T(a_model_runs_with_weights_that_are_not_its_own),
        T(names_have_the_prefix_and_parts_their_order),
        T(views_outlive_the_growth_of_the_list),
        T(wrong_lengths_name_the_layer),
        T(released_weights_are_refused),
        T(blends_make_means_and_copies),
        T(maml_by_hand_and_by_descend_has_the_same_bits),
        T(a_step_is_taped_or_not),
        T(only_the_chosen_weights_move),
        T(gradients_pass_through_every_rule_and_rate),
        T(steps_equal_the_optimizers),
        T(adam_descends_by_its_rate_whatever_the_gradient),
        T(adam_passes_a_gradient_where_there_was_none),
        T(wrong_steps_are_refused),
        T(options_that_a_rule_lacks_are_refused),
        T(states_of_something_else_are_refused),
        T(a_loss_without_a_tape_is_refused),
        T(a_name_is_given_once),
        T(a_failed_model_leaves_no_parameters),
        T(weights_of_another_model_are_refused),
        T(a_whole_network_is_a_learner),
        T(a_network_of_many_weights_is_computed_again),
        { 0 },
    };
    return ttt_test_main(argc, argv, tests);
}
