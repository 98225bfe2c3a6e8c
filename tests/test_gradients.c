// Tests of ttt_grad and what it rests on: gradients through inner steps, the guard against
// first-order answers, each mode and each way to ask, ops of the user, and the gradient checker.
#include "tensor_test.h"

// ---- gradients through inner steps --------------------------------------------------------------
static void inner_steps_have_right_derivatives_of_four_orders(void) {
    static const struct {
        const char *name;
        ttt_tensor *(*act)(ttt_ctx *c, ttt_tensor *a);
        bool centered;
    } kind[] = {
        { "tanh, layer norm", ttt_tanh, true },
        { "gelu, layer norm", ttt_gelu, true },
        { "silu, RMS norm", ttt_silu, false },
    };
    for (int i = 0; i < COUNT(kind); i++) {
        ttt_ctx *c = open_ctx();
        learner l = learner_new(c, 4, 3, 4);
        l.act = kind[i].act;
        l.centered = kind[i].centered;
        check_orders(c, kind[i].name, learner_value, l.w, 3, &l, DOUBLE ? 4 : 1);
        CLOSE(c);
    }
}

static void inner_steps_have_one_gradient(void) {
    ttt_ctx *c = open_ctx();
    learner l = learner_new(c, 4, 3, 4);
    ttt_tensor *fast[3], *recorded[3], *y = learner_value(c, l.w, 3, &l);
    ttt_grad(c, y, l.w, 3, fast, TTT_GRAD_FIRST_ORDER);
    ttt_grad(c, y, l.w, 3, recorded, TTT_GRAD_RECORD);
    for (int i = 0; i < 3; i++) CHECK(difference(fast[i], recorded[i]) <= 50 * EPS);
    CLOSE(c);
}

// A linear learner, l = 1/2 sum (k w - v)^2, one step of rate eta from w, outer loss <C, w1>: the
// gradient is C - eta k^T k C; with the inner gradient detached it is C. Both by hand.
static void a_detached_inner_gradient_gives_the_first_order_formula(void) {
    enum { N = 5, D = 3 };
    ttt_ctx *c = open_ctx();
    ttt_tensor *w = numbers(c, TTT_SHAPE(D, D)), *C = numbers(c, TTT_SHAPE(D, D)), *g, *meta;
    ttt_tensor *k = numbers(c, TTT_SHAPE(N, D)), *v = numbers(c, TTT_SHAPE(N, D));
    const double eta = 0.25;
    for (int detach = 0; detach < 2; detach++) {
        ttt_tensor *error = ttt_sub(c, ttt_matmul(c, k, w), v);
        ttt_tensor *loss = ttt_scale(c, ttt_sum(c, ttt_square(c, error)), REAL(0.5));
        ttt_grad(c, loss, &w, 1, &g, detach ? TTT_GRAD_FIRST_ORDER : TTT_GRAD_RECORD);
        if (detach) g = ttt_detach(c, g);
        ttt_tensor *w1 = ttt_sub(c, w, ttt_scale(c, g, REAL(eta)));
        ttt_grad(c, ttt_sum(c, ttt_mul(c, C, w1)), &w, 1, &meta, TTT_GRAD_FIRST_ORDER);
        double hand[D * D];
        for (int i = 0; i < D * D; i++) {
            hand[i] = (double)C->data[i];
            for (int n = 0; n < N && !detach; n++)
                for (int p = 0; p < D; p++)
                    hand[i] -= eta * (double)k->data[n * D + i / D] * (double)k->data[n * D + p] *
                               (double)C->data[p * D + i % D];
        }
        CHECK_CLOSE(meta->data, hand, D * D, 0, detach ? 0 : 50 * EPS);
    }
    CLOSE(c);
}

// The same in the learner of two layers: only the outermost loss is differentiated.
static void detaching_changes_the_meta_gradient(void) {
    ttt_ctx *c = open_ctx();
    learner l = learner_new(c, 4, 3, 4);
    ttt_tensor *full[3], *first[3];
    ttt_grad(c, learner_value(c, l.w, 3, &l), l.w, 3, full, TTT_GRAD_FIRST_ORDER);
    l.detach = true;
    ttt_grad(c, learner_value(c, l.w, 3, &l), l.w, 3, first, TTT_GRAD_FIRST_ORDER);
    for (int i = 0; i < 3; i++) CHECK(difference(first[i], full[i]) > 1e-3);
    CLOSE(c);
}

// ---- the guard ----------------------------------------------------------------------------------
// w, and a gradient of a loss of w that was taken without recording.
typedef struct {
    ttt_ctx *c;
    ttt_tensor *before, *w, *loss, *g;
} unrecorded;
static unrecorded unrecorded_new(void) {
    unrecorded u = { .c = open_ctx() };
    u.before = numbers(u.c, TTT_SHAPE(3));
    u.w = numbers(u.c, TTT_SHAPE(3));
    u.loss = ttt_sum(u.c, ttt_exp(u.c, u.w));
    ttt_grad(u.c, u.loss, &u.w, 1, &u.g, TTT_GRAD_FIRST_ORDER);
    return u;
}

static void differentiating_an_unrecorded_gradient_is_an_error(void) {
    for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_RECORD; mode++) {
        unrecorded u = unrecorded_new();
        ttt_tensor *out, *y = ttt_sum(u.c, ttt_square(u.c, u.g));
        CHECK(ttt_ok(u.c));  // making it is fine
        CHECK(ttt_grad(u.c, y, &u.w, 1, &out, (ttt_grad_mode)mode) == TTT_ERR_FIRST_ORDER);
        CHECK(ttt_status(u.c) == TTT_ERR_FIRST_ORDER && out == &u.c->empty);
        CHECK(strstr(ttt_error(u.c), "TTT_GRAD_RECORD") && strstr(ttt_error(u.c), "ttt_detach"));
        ttt_clear(u.c);
        ttt_grad(u.c, u.loss, &u.w, 1, &out, TTT_GRAD_FIRST_ORDER);  // and the context goes on
        CHECK(same_bits(out, u.g));
        CLOSE(u.c);
    }
}

static void a_detached_gradient_is_a_constant(void) {
    unrecorded u = unrecorded_new();
    ttt_tensor *out, *constant = ttt_detach(u.c, u.g);
    CHECK(same_bits(constant, u.g));
    ttt_grad(u.c, ttt_sum(u.c, ttt_mul(u.c, constant, u.w)), &u.w, 1, &out, TTT_GRAD_FIRST_ORDER);
    CHECK(same_bits(out, u.g));
    CLOSE(u.c);
}

// The walk does not pass the unrecorded gradient if the gradient is older than every wrt, or does
// not depend on one.
static void an_unrecorded_gradient_off_the_way_is_fine(void) {
    unrecorded u = unrecorded_new();
    ttt_tensor *step = ttt_scale(u.c, u.g, 2), *out;
    ttt_grad(u.c, ttt_sum(u.c, ttt_square(u.c, step)), &step, 1, &out, TTT_GRAD_FIRST_ORDER);
    for (int i = 0; i < 3; i++) CHECK(out->data[i] == 2 * step->data[i]);
    ttt_grad(u.c, ttt_sum(u.c, ttt_mul(u.c, u.g, u.before)), &u.before, 1, &out, TTT_GRAD_RECORD);
    CHECK(same_bits(out, u.g));
    CLOSE(u.c);
}

// A vector-Jacobian product is linear in its seed, so it has a gradient there too.
static void an_unrecorded_vjp_depends_on_its_seed(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *w = numbers(c, TTT_SHAPE(3)), *seed = numbers(c, TTT_SHAPE(3)), *g, *out;
    ttt_tensor *y = ttt_exp(c, w);
    ttt_vjp(c, y, seed, &w, 1, &g, TTT_GRAD_RECORD);
    ttt_grad(c, ttt_sum(c, g), &seed, 1, &out, TTT_GRAD_FIRST_ORDER);
    CHECK(same_bits(out, y));
    ttt_vjp(c, y, seed, &w, 1, &g, TTT_GRAD_FIRST_ORDER);
    CHECK(ttt_grad(c, ttt_sum(c, g), &seed, 1, &out, TTT_GRAD_FIRST_ORDER) == TTT_ERR_FIRST_ORDER);
    ttt_close(c);
}

// ---- what ttt_grad gives ------------------------------------------------------------------------
// Calls ttt_grad in all three modes; each must give `hand`, one number for all elements of each
// wrt.
static void check_grad(ttt_ctx *c, ttt_tensor *y, ttt_tensor *const *wrt, int n,
                       const double *hand) {
    for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_ADD; mode++) {
        ttt_tensor *out[8];
        for (int i = 0; i < n && mode == TTT_GRAD_ADD; i++)
            out[i] = ttt_full(c, wrt[i]->shape, REAL(10 * (i + 1)));
        CHECK(ttt_grad(c, y, wrt, n, out, (ttt_grad_mode)mode) == TTT_OK);
        for (int i = 0; i < n; i++) {
            CHECK(ttt_shape_equal(out[i]->shape, wrt[i]->shape));
            double sum = hand[i] + (mode == TTT_GRAD_ADD ? 10 * (i + 1) : 0);
            for (int64_t j = 0; j < out[i]->size; j++) {
                double got = (double)out[i]->data[j];
                bool good = fabs(got - sum) <= 20 * EPS * fabs(sum);
                if (!good) printf("  mode %d, wrt %d: %g, not %g\n", mode, i, got, sum);
                CHECK(good);
            }
        }
    }
}

static void unused_inputs_get_zeros(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *before = numbers(c, TTT_SHAPE(2)), *x = numbers(c, TTT_SHAPE(3)),
               *between = ttt_exp(c, x);
    ttt_tensor *y = ttt_sum(c, x), *after = ttt_exp(c, y);
    check_grad(c, y, (ttt_tensor *[]){ before, x, between, after }, 4, (double[]){ 0, 1, 0, 0 });
    CHECK(ttt_grad(c, y, NULL, 0, NULL, TTT_GRAD_FIRST_ORDER) == TTT_OK);
    CLOSE(c);
}

static void an_input_may_be_asked_for_twice(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(3), 3), *h = ttt_scale(c, x, 2),
               *y = ttt_sum(c, ttt_square(c, h));
    check_grad(c, y, (ttt_tensor *[]){ x, h, x, h, x }, 5, (double[]){ 24, 12, 24, 12, 24 });
    CLOSE(c);
}

static void the_result_itself_may_be_asked_for(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(3), 3), *y = ttt_sum(c, x), *leaf = ttt_scalar(c, 5);
    check_grad(c, y, (ttt_tensor *[]){ y, x }, 2, (double[]){ 1, 1 });
    check_grad(c, y, &y, 1, (double[]){ 1 });
    check_grad(c, leaf, &leaf, 1, (double[]){ 1 });
    CLOSE(c);
}

static void an_inner_node_and_its_ancestor_may_be_asked_for(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(3), 3), *h = ttt_scale(c, x, 2), *h2 = ttt_square(c, h);
    ttt_tensor *y = ttt_sum(c, ttt_add(c, h2, x));
    check_grad(c, y, (ttt_tensor *[]){ h2, x, h }, 3, (double[]){ 1, 25, 12 });
    CLOSE(c);
}

static void a_node_may_be_used_many_times(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(3), 1), *h = ttt_scale(c, x, 2),
               *y = ttt_zeros(c, TTT_SHAPE(3));
    for (int i = 1; i <= 100; i++) y = ttt_add(c, y, ttt_scale(c, i % 2 ? h : x, REAL(i)));
    y = ttt_add(c, y, ttt_add(c, h, h));
    check_grad(c, ttt_sum(c, y), (ttt_tensor *[]){ x, h }, 2, (double[]){ 2 * 2502 + 2550, 2502 });
    CLOSE(c);
}

// add gives both operands the same gradient. What one of them gets from elsewhere must not change
// the gradient of the other.
static void gradients_that_nodes_share_are_not_written_over(void) {
    for (int reshaped = 0; reshaped < 2; reshaped++)
        for (int swapped = 0; swapped < 2; swapped++) {
            ttt_ctx *c = open_ctx();
            ttt_tensor *x = ttt_full(c, TTT_SHAPE(2, 3), 1), *h1 = ttt_scale(c, x, 2),
                       *h2 = ttt_scale(c, x, 3);
            ttt_tensor *u = ttt_square(c, swapped ? h2 : h1), *z = ttt_add(c, h1, h2);
            if (reshaped)
                z = ttt_add(c, ttt_reshape(c, h1, TTT_SHAPE(6)), ttt_reshape(c, h2, TTT_SHAPE(6)));
            if (reshaped) u = ttt_reshape(c, u, TTT_SHAPE(6));
            ttt_tensor *y = ttt_sum(c, ttt_add(c, z, u));
            const double hand[2][3] = { { 13, 5, 1 }, { 23, 1, 7 } };  // d/dx, d/dh1, d/dh2
            check_grad(c, y, (ttt_tensor *[]){ x, h1, h2 }, 3, hand[swapped]);
            CLOSE(c);
        }
}

// The same where one operand is computed again: the walk inside it must not change the gradient of
// the other.
static ttt_tensor *cube(ttt_ctx *c, ttt_tensor *const *in, int n, const void *user) {
    (void)n;
    (void)user;
    return ttt_mul(c, in[0], ttt_square(c, in[0]));
}
static ttt_tensor *plus_cube(ttt_ctx *c, ttt_tensor *x, int again, bool swapped) {
    ttt_tensor *y = again ? ttt_remat(c, cube, &x, 1, x->shape, NULL, 0) : cube(c, &x, 1, NULL);
    return swapped ? ttt_add(c, y, x) : ttt_add(c, x, y);
}
static void gradients_are_shared_with_what_is_computed_again(void) {
    for (int swapped = 0; swapped < 2; swapped++) {
        ttt_ctx *c = open_ctx();
        ttt_tensor *x = numbers(c, TTT_SHAPE(50)), *g[2];
        for (int again = 0; again < 2; again++) {
            ttt_tensor *h = ttt_scale(c, x, REAL(0.3)),
                       *y = plus_cube(c, plus_cube(c, h, again, swapped), again, swapped);
            ttt_grad(c, weigh(c, ttt_sub(c, y, ttt_tanh(c, h))), &x, 1, &g[again],
                     TTT_GRAD_FIRST_ORDER);
        }
        CHECK(difference(g[1], g[0]) <= 8 * EPS);
        CLOSE(c);
    }
}

static void a_chain_of_two_thousand_ops(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(3), 1), *y = x;
    for (int i = 0; i < 1000; i++)
        y = ttt_add_scalar(c, ttt_scale(c, y, i % 2 ? 2 : REAL(0.5)), REAL(0.25));
    check_grad(c, ttt_sum(c, y), &x, 1, (double[]){ 1 });
    CLOSE(c);
}

static void add_gathers_over_several_calls(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(3), 3), *sum = ttt_zeros(c, TTT_SHAPE(3));
    for (int i = 1; i <= 4; i++) {
        ttt_mark m = ttt_mark_get(c);
        ttt_grad(c, ttt_sum(c, ttt_scale(c, ttt_square(c, x), REAL(i))), &x, 1, &sum, TTT_GRAD_ADD);
        ttt_mark_release(c, m);
    }
    for (int i = 0; i < 3; i++) CHECK(sum->data[i] == 60);
    CLOSE(c);
}

// A gradient that fails on its way adds nothing: here at another input of the same sum, whose
// gradient was not recorded.
static void add_changes_nothing_after_an_error(void) {
    unrecorded u = unrecorded_new();
    ttt_tensor *x = ttt_full(u.c, TTT_SHAPE(3), 3), *sum = ttt_full(u.c, TTT_SHAPE(3), 7);
    ttt_tensor *wrt[2] = { x, u.w }, *out[2] = { sum, ttt_zeros(u.c, u.w->shape) };
    ttt_tensor *y = ttt_add(u.c, ttt_sum(u.c, ttt_square(u.c, u.g)), ttt_sum(u.c, x));
    CHECK(ttt_grad(u.c, y, wrt, 2, out, TTT_GRAD_ADD) == TTT_ERR_FIRST_ORDER);
    for (int i = 0; i < 3; i++) CHECK(sum->data[i] == 7);
    ttt_close(u.c);
}

// The same where each allocation fails in turn.
static void add_changes_nothing_without_memory(void) {
    bool failed = true;
    for (long n = 1; failed && n < 100; n++) {
        host h = { 0 };
        ttt_ctx *c = open_host(&h);
        ttt_tensor *x = ttt_full(c, TTT_SHAPE(50000), 1), *y = x;
        ttt_tensor *wrt[2] = { x, ttt_full(c, TTT_SHAPE(50000), 2) }, *out[2];
        for (int i = 0; i < 2; i++) out[i] = ttt_full(c, TTT_SHAPE(50000), 7);
        for (int i = 0; i < 5; i++) y = ttt_tanh(c, ttt_mul(c, y, wrt[1]));
        y = ttt_sum(c, ttt_add(c, y, wrt[1]));
        h.fail_at = h.calls + n;
        ttt_grad(c, y, wrt, 2, out, TTT_GRAD_ADD);
        failed = h.refused > 0;
        CHECK(ttt_status(c) == (failed ? TTT_ERR_NO_MEMORY : TTT_OK));
        for (int i = 0; i < 2; i++)
            for (int k = 0; k < 50000 && failed; k++) CHECK(out[i]->data[k] == 7);
        CHECK(failed || out[1]->data[0] != 7);
        ttt_close(c);
    }
    CHECK(!failed);
}

// Nodes with many inputs, in gradients of both orders and where they are made again.
static ttt_tensor *joined(ttt_ctx *c, ttt_tensor *const *in, int n, const void *user) {
    (void)user;
    return ttt_concat(c, in, n, 0);
}
static void an_op_has_any_number_of_inputs(void) {
    static const int inputs[] = { 64, 65, 128, 1000 };
    for (int k = 0; k < COUNT(inputs); k++)
        for (int again = 0; again < 2; again++) {
            ttt_ctx *c = open_ctx();
            int n = inputs[k];
            ttt_tensor *part[1000], *g[1000], *second[1000];
            for (int i = 0; i < n; i++) part[i] = ttt_full(c, TTT_SHAPE(2), REAL(i % 9 + 1));
            ttt_tensor *y = again ? ttt_remat(c, joined, part, n, TTT_SHAPE(2 * n), NULL, 0)
                                  : joined(c, part, n, NULL);
            y = ttt_sum(c, ttt_mul(c, y, ttt_square(c, y)));
            ttt_grad(c, y, part, n, g, TTT_GRAD_RECORD);
            ttt_grad(c, ttt_sum(c, ttt_concat(c, g, n, 0)), part, n, second,
                     TTT_GRAD_FIRST_ORDER);
            for (int i = 0; i < n && ttt_ok(c); i++) {
                CHECK(g[i]->data[1] == 3 * REAL((i % 9 + 1) * (i % 9 + 1)));
                CHECK(second[i]->data[1] == 6 * REAL(i % 9 + 1));
            }
            CLOSE(c);
        }
}

// Taking a free block looks at the first of a few lists, not at all blocks: one that would fit
// better but lies behind others stays where it is. So a walk's time is linear in the tape.
static void a_free_block_is_taken_without_a_search(void) {
    ttt_ctx *c = open_ctx();
    ttt__block *lists[TTT__BLOCK_LISTS] = { NULL }, *block[100];
    c->free_blocks = lists;
    for (int i = 0; i < 100; i++) block[i] = ttt__block_take(c, 5000);
    for (int i = 0; i < 100; i++) {
        ttt_tensor holds = { .block = block[i] };
        block[i]->uses = 1;
        ttt__block_drop(c, &holds);
    }
    for (int i = 0; i < 99; i++) block[i]->next = i % 2 ? block[98] : NULL;  // none is followed
    CHECK(ttt__block_take(c, 4999) == block[99]);
    size_t most = 0;
    for (size_t size = 1; size < (size_t)1 << 22; size += size / 50 + 1) {
        size_t whole = size;
        int list = ttt__block_list(&whole);
        CHECK(list >= 0 && list < TTT__BLOCK_LISTS && (size_t)list >= most && whole >= size);
        CHECK(whole % 64 == 0 && (whole - size < 64 || whole - size <= size / 7));
        most = (size_t)list;
    }
    size_t largest = ((size_t)1 << 62) - 1;
    CHECK(sizeof largest < 8 || ttt__block_list(&largest) < TTT__BLOCK_LISTS);
    c->free_blocks = NULL;
    CLOSE(c);
}

static void a_vjp_takes_any_shape(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = numbers(c, TTT_SHAPE(2, 3)), *seed = numbers(c, TTT_SHAPE(2, 3)), *g, *by_sum;
    ttt_tensor *y = ttt_exp(c, x);
    ttt_vjp(c, y, seed, &x, 1, &g, TTT_GRAD_FIRST_ORDER);
    ttt_grad(c, ttt_sum(c, ttt_mul(c, y, seed)), &x, 1, &by_sum, TTT_GRAD_FIRST_ORDER);
    CHECK(difference(g, by_sum) <= 2 * EPS);
    CLOSE(c);
}

static void nothing_is_taped_while_recording_is_off(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(3), 3), *y, *out;
    CHECK(ttt_set_recording(c, false));
    y = ttt_sum(c, ttt_square(c, x));
    CHECK(ttt_item(y) == 27 && y->op == NULL && y->n_in == 0);
    CHECK(!ttt_set_recording(c, true));
    ttt_grad(c, y, &x, 1, &out, TTT_GRAD_FIRST_ORDER);
    CHECK(out->data[0] == 0);
    CLOSE(c);
}

// Up to three orders deep, so that rules of rules run; the recorded and the fast walk must agree.
// Their sums are taken in different orders, 49 ops deep: a few hundred roundings.
static void a_graph_of_all_ops_has_one_gradient(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *p = numbers(c, TTT_SHAPE(96)), *y = all_ops(c, p), *fast, *recorded;
    for (int order = 1; order <= 3; order++) {
        ttt_grad(c, y, &p, 1, &fast, TTT_GRAD_FIRST_ORDER);
        ttt_grad(c, y, &p, 1, &recorded, TTT_GRAD_RECORD);
        double e = difference(fast, recorded);
        if (!(e <= 300 * EPS)) printf("  order %d: %g EPS\n", order, e / EPS);
        CHECK(e <= 300 * EPS);
        y = ttt_sum(c, ttt_square(c, recorded));
    }
    CLOSE(c);
}

// ---- ops of the user ----------------------------------------------------------------------------
static void ops_of_the_user_agree_however_they_are_made(void) {
    for (int wires = 0; wires < WIRINGS; wires++)
        for (int i = 0; i < COUNT(mixes); i++) {
            ttt_ctx *c = open_ctx();
            ttt_tensor *x[2] = { numbers(c, TTT_SHAPE(2, 3)), numbers(c, TTT_SHAPE(2, 3)) };
            mix plain = { NULL, (wiring)wires }, user = { &mixes[i], (wiring)wires };
            ttt_tensor *y = mix_value(c, x, 2, &plain), *z = mix_value(c, x, 2, &user);
            ttt_tensor *right[2], *fast[2], *recorded[2];
            for (int order = 1; order <= 3 && ttt_ok(c); order++) {
                ttt_grad(c, y, x, 2, right, TTT_GRAD_RECORD);
                ttt_grad(c, z, x, 2, fast, TTT_GRAD_FIRST_ORDER);
                ttt_grad(c, z, x, 2, recorded, TTT_GRAD_RECORD);
                y = z = ttt_scalar(c, 0);
                for (int j = 0; j < 2; j++) {
                    double f = difference(fast[j], right[j]), r = difference(recorded[j], right[j]);
                    bool good = f <= 100 * EPS && r <= 100 * EPS;
                    if (!good)
                        printf("  %s, wiring %d, order %d, input %d: fast %.1e, recorded %.1e\n",
                               mixes[i].name, wires, order, j, f, r);
                    CHECK(good);
                    y = ttt_add(c, y, ttt_sum(c, ttt_square(c, right[j])));
                    z = ttt_add(c, z, ttt_sum(c, ttt_square(c, recorded[j])));
                }
            }
            CLOSE(c);
        }
}

static void fast_rules_add_to_what_is_there(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x[2] = { numbers(c, TTT_SHAPE(2, 3)), numbers(c, TTT_SHAPE(2, 3)) };
    ttt_tensor *once[2], *more[2];
    mix user = { &mixes[2], LEAVES };
    ttt_tensor *y = mix_value(c, x, 2, &user);
    ttt_grad(c, y, x, 2, once, TTT_GRAD_FIRST_ORDER);
    for (int i = 0; i < 2; i++) more[i] = ttt_full(c, x[i]->shape, 1);
    ttt_grad(c, y, x, 2, more, TTT_GRAD_ADD);
    for (int i = 0; i < 2; i++)
        CHECK(ttt_max_abs_diff(more[i], ttt_add_scalar(c, once[i], 1)) <= 10 * EPS);
    CLOSE(c);
}

// What is cut into chunks, of which each is looked at with its neighbors, and put together again:
// with the gradient, the bytes that are moved and those that are held grow as its length does.
static ttt_tensor *in_chunks(ttt_ctx *c, ttt_tensor *x) {
    enum { CHUNK = 16, MOST = 256 };
    int64_t N = x->shape.dim[0], n = N / CHUNK;
    ttt_shape near_ones_of = TTT_SHAPE(n, 3 * CHUNK);
    ttt_tensor *part[MOST], *index = ttt_new_typed(c, near_ones_of, TTT_DTYPE_INT, false);
    for (int64_t i = 0; i < n; i++) part[i] = ttt_tanh(c, ttt_slice(c, x, 0, i * CHUNK, CHUNK));
    for (int64_t i = 0; i < index->size; i++)
        index->index[i] = (i / (3 * CHUNK) * CHUNK + i % (3 * CHUNK) + N - CHUNK) % N;
    ttt_tensor *near_ones = ttt_square(c, ttt_index_select(c, x, index));
    ttt_tensor *whole = ttt_concat(c, part, (int)n, 0);
    return ttt_add(c, weigh(c, near_ones), weigh(c, ttt_mul(c, whole, x)));
}
static void parts_of_a_tensor_cost_what_they_hold(void) {
    double moved[2] = { 0 }, held[2] = { 0 };
    for (int k = 0; k < 2; k++) {
        ttt_ctx *c = open_ctx();
        int64_t N = k ? 4096 : 256;
        ttt_tensor *x = numbers(c, TTT_SHAPE(N, 8)), *g, *recorded;
        ttt_profile_row rows[32];
        ttt_profile_start(c);
        ttt_grad(c, in_chunks(c, x), &x, 1, &g, TTT_GRAD_FIRST_ORDER);
        ttt_profile_stop(c);
        int n = ttt_profile_rows(c, rows, COUNT(rows));
        CHECK(n <= COUNT(rows));
        for (int i = 0; i < n; i++) moved[k] += rows[i].bytes / (double)N;
        held[k] = (double)ttt_memory(c).peak / (double)N;
        if (k == 0) {
            ttt_grad(c, in_chunks(c, x), &x, 1, &recorded, TTT_GRAD_RECORD);
            CHECK(difference(g, recorded) <= 50 * EPS);
        }
        CLOSE(c);
    }
    CHECK(moved[1] <= 1.02 * moved[0] && held[1] <= 1.02 * held[0]);
}

// A rule that forgets a factor, one that forgets a term of the second order only, and one of
// another shape.
static void wrong_rule(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d) {
    d[0] = ttt_mul(c, g, y->in[0]);
}
static void wrong_twice(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d) {
    d[0] = ttt_scale(c, ttt_mul(c, g, ttt_detach(c, y->in[0])), 2);
}
static void wrong_shape(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d) {
    (void)y;
    d[0] = ttt_sum(c, g);
}
static void square_forward(ttt_ctx *c, ttt_tensor *y) {
    (void)c;
    for (int64_t i = 0; i < y->size; i++) y->data[i] = y->in[0]->data[i] * y->in[0]->data[i];
}
static ttt_tensor *apply1_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *op) {
    (void)n;
    return weigh(c, ttt_apply(c, op, x, 1, x[0]->shape, NULL, 0));
}

static void the_checker_notices_a_wrong_rule(void) {
    ttt_op op = { .name = "wrong square", .n_in = 1, .forward = square_forward };
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = numbers(c, TTT_SHAPE(2, 3)), *old = copy(c, x);
    double h = DOUBLE ? 1e-3 : 2e-2;
    op.vjp = wrong_rule;
    CHECK(ttt_check_gradient(c, apply1_value, &x, 1, &op, 1, h) > 0.1);
    op.vjp = wrong_twice;
    CHECK(ttt_check_gradient(c, apply1_value, &x, 1, &op, 1, h) < DERIVATIVE_ERROR);
    CHECK(ttt_check_gradient(c, apply1_value, &x, 1, &op, 2, h) > 0.1);
    CHECK(same_bits(x, old));  // put back
    CLOSE(c);
}

// f fails at its third call, when the checker has moved x.
static ttt_tensor *fails_later(ttt_ctx *c, ttt_tensor *const *x, int n, void *calls) {
    (void)n;
    if (++*(int *)calls == 3) return ttt_fail(c, TTT_ERR_ARGUMENT, "enough");
    return ttt_sum(c, x[0]);
}
static void the_checker_puts_its_inputs_back_after_an_error(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = numbers(c, TTT_SHAPE(3)), *old = copy(c, x);
    int calls = 0;
    CHECK(isnan(ttt_check_gradient(c, fails_later, &x, 1, &calls, 1, 1e-2)));
    CHECK(calls == 3 && ttt_status(c) == TTT_ERR_ARGUMENT && same_bits(x, old));
    ttt_close(c);
}

static void a_rule_of_the_wrong_shape_is_an_error(void) {
    ttt_op op = { .name = "wrong square", .n_in = 1, .forward = square_forward };
    op.vjp = wrong_shape;
    for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_RECORD; mode++) {
        ttt_ctx *c = open_ctx();
        ttt_tensor *x = numbers(c, TTT_SHAPE(1, 2)), *h = ttt_exp(c, x), *out;
        ttt_tensor *y = ttt_add(c, apply1_value(c, &h, 1, &op), ttt_sum(c, h));
        CHECK(ttt_grad(c, y, &x, 1, &out, (ttt_grad_mode)mode) == TTT_ERR_SHAPE);
        CHECK(strstr(ttt_error(c), "wrong square") && strstr(ttt_error(c), "(1,2)"));
        ttt_close(c);
    }
}

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(inner_steps_have_right_derivatives_of_four_orders),
        T(inner_steps_have_one_gradient),
        T(a_detached_inner_gradient_gives_the_first_order_formula),
        T(detaching_changes_the_meta_gradient),
        T(differentiating_an_unrecorded_gradient_is_an_error),
        T(a_detached_gradient_is_a_constant),
        T(an_unrecorded_gradient_off_the_way_is_fine),
        T(an_unrecorded_vjp_depends_on_its_seed),
        T(unused_inputs_get_zeros),
        T(an_input_may_be_asked_for_twice),
        T(the_result_itself_may_be_asked_for),
        T(an_inner_node_and_its_ancestor_may_be_asked_for),
        T(a_node_may_be_used_many_times),
        T(gradients_that_nodes_share_are_not_written_over),
        T(gradients_are_shared_with_what_is_computed_again),
        T(a_chain_of_two_thousand_ops),
        T(add_gathers_over_several_calls),
        T(add_changes_nothing_after_an_error),
        T(add_changes_nothing_without_memory),
        T(an_op_has_any_number_of_inputs),
        T(a_free_block_is_taken_without_a_search),
        T(a_vjp_takes_any_shape),
        T(nothing_is_taped_while_recording_is_off),
        T(a_graph_of_all_ops_has_one_gradient),
        T(ops_of_the_user_agree_however_they_are_made),
        T(fast_rules_add_to_what_is_there),
        T(parts_of_a_tensor_cost_what_they_hold),
        T(the_checker_notices_a_wrong_rule),
        T(the_checker_puts_its_inputs_back_after_an_error),
        T(a_rule_of_the_wrong_shape_is_an_error),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
