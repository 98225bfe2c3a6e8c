// Tests of ttt_layers.h.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Memory that can be made to run out: allocation number fail_at fails. New memory is full of NaN.
static long mallocs, fail_at;
static size_t most_bytes = SIZE_MAX;
static void *get(size_t n) {
    void *p = ++mallocs == fail_at || n > most_bytes ? NULL : malloc(n);
    return p ? memset(p, 0xff, n) : NULL;
}
#define TTT_MALLOC(user, n) ((void)(user), get(n))
#define TTT_REALLOC(user, p, n) ((void)(user), ++mallocs == fail_at ? NULL : realloc(p, n))
#define TTT_FREE(user, p) ((void)(user), free(p))

#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "byol.h"
#include "ttt_test.h"

static ttt_ctx *open_ctx(void) { return ttt_open(&(ttt_desc){ .seed = 7 }); }

// A small MTTT layer with every parameter away from its initial value, so that nothing hides.
typedef struct {
    ttt_mixer_desc d;
    ttt_params p;
    ttt_weights w;
    ttt_tensor *x;
} layer;

// Tables and grids of N tokens, for those that need them.
static void fit_tokens(ttt_mixer_desc *d, int64_t N) {
    if (ttt_mixer_takes(d->mixer, "max_tokens") && !d->max_tokens) d->max_tokens = N > 0 ? N : 1;
    if (!(d->mixer->flags & TTT_MIXER_GRID)) return;
    d->grid_rows = N % 2 ? 1 : 2;
    d->grid_cols = N / d->grid_rows;
}
// A rate with which a learner of all tokens, or one that goes on and on, stays within bounds.
static ttt_real rate_for(const ttt_mixer *m) {
    if (m == &ttt_mixer_titans) return REAL(0.002);
    return ttt_mixer_takes(m, "inner_steps") ? REAL(0.7) : REAL(0.05);
}
static layer make_layer(ttt_ctx *c, const char *mixer, ttt_mixer_desc d, int64_t B, int64_t N) {
    layer l = { .d = d };
    const ttt_mixer *m = l.d.mixer = ttt_mixer_find(mixer);
    if (!l.d.dim) l.d.dim = 6;
    if (!l.d.heads) l.d.heads = 2;
    if (ttt_mixer_takes(m, "inner_lr") && !d.inner_lr && !d.inner_lrs) l.d.inner_lr = REAL(0.5);
    fit_tokens(&l.d, N);
    l.w = ttt_mixer_new(c, &l.d, &l.p, "layer");
    ttt_rng r = ttt_rng_at(99, 0, 0, 0);
    for (int i = 0; i < l.p.n; i++)
        for (int64_t j = 0; j < l.p.value[i]->size; j++)
            l.p.value[i]->data[j] += (ttt_real)(0.3 * ttt_rng_normal(&r));
    l.x = ttt_zeros_kept(c, TTT_SHAPE(B, N, l.d.dim));
    for (int64_t j = 0; j < l.x->size; j++) l.x->data[j] = (ttt_real)ttt_rng_normal(&r);
    return l;
}

// A number that weighs every output differently; the function that gradient checks look at.
static ttt_tensor *weigh(ttt_ctx *c, ttt_tensor *y) {
    ttt_tensor *w = ttt_new(c, y->shape);
    for (int64_t i = 0; i < w->size; i++) w->data[i] = (ttt_real)(0.2 + 0.1 * (double)(i % 7));
    return ttt_sum(c, ttt_mul(c, w, y));
}
static ttt_tensor *layer_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *user) {
    layer *l = user;
    (void)x;
    (void)n;
    ttt_tensor *y = ttt_mixer_forward(c, &l->d, l->w, l->x, NULL);
    return weigh(c, ttt_add(c, y, ttt_square(c, y)));
}

// x and all parameters of a layer as one list
static int wrt_of(layer *l, ttt_tensor **wrt) {
    int n = 0;
    wrt[n++] = l->x;
    for (int i = 0; i < l->p.n; i++) wrt[n++] = l->p.value[i];
    return n;
}

// ---- parameters ---------------------------------------------------------------------------------
static void parameters_have_the_shapes_and_names_of_the_official_code(void) {
    ttt_ctx *c = open_ctx();
    layer l = make_layer(c, "mttt-mlp", (ttt_mixer_desc){ .dim = 12, .heads = 3 }, 1, 4);
    static const struct {
        const char *name;
        int64_t a, b, c;
    } want[] = {
        { "phi/kernel", 3, 12, 4 },
        { "phi/bias", 3, 4, 0 },
        { "psi/kernel", 3, 12, 4 },
        { "g/kernel", 3, 4, 12 },
        { "g_bias", 1, 12, 0 },
        { "h/kernel", 3, 4, 12 },
        { "h_bias", 1, 12, 0 },
        { "decoder_LN/scale", 3, 12, 0 },
        { "inner_Dense_0/kernel", 3, 4, 16 },
        { "inner_Dense_0/bias", 3, 16, 0 },
        { "inner_Dense_1/kernel", 3, 16, 4 },
        { "inner_Dense_1/bias", 3, 4, 0 },
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        char name[64];
        snprintf(name, sizeof name, "layer/%s", want[i].name);
        ttt_tensor *t = ttt_params_find(&l.p, name);
        CHECK(t != NULL);
        if (!t) continue;
        CHECK(t->shape.rank == (want[i].c ? 3 : 2));
        CHECK(t->shape.dim[0] == want[i].a && t->shape.dim[1] == want[i].b &&
              (!want[i].c || t->shape.dim[2] == want[i].c));
    }
    CHECK(ttt_params_find(&l.p, "layer/nothing") == NULL);
    CHECK(ttt_params_count(&l.p, TTT_PARAM_INNER) == 3 * (4 * 16 + 16 + 16 * 4 + 4));
    ttt_close(c);
}

static void options_leave_parameters_out(void) {
    ttt_ctx *c = open_ctx();
    ttt_mixer_desc d = { .no_inner_bias = true, .no_decoder_norm = true, .learn_rates = true,
                         .inner_steps = 3 };
    layer l = make_layer(c, "mttt-linear", d, 1, 4);
    CHECK(ttt_params_find(&l.p, "layer/decoder_LN/scale") == NULL);
    CHECK(ttt_params_find(&l.p, "layer/inner_Dense_0/bias") == NULL);
    CHECK(ttt_params_find(&l.p, "layer/inner_lr") &&
          ttt_params_find(&l.p, "layer/inner_lr")->size == 3);
    ttt_close(c);
}

// Mean and extremes of what the initializers draw, from 40,000 numbers each.
static void initializers_have_the_spread_they_promise(void) {
    const struct {
        ttt_init init;
        double bound, variance;
    } want[] = {
        { TTT_INIT_XAVIER, sqrt(6. / 500), 2. / 500 },
        { TTT_INIT_UNIFORM_IN, sqrt(3. / 100), 1. / 100 },
        { TTT_INIT_UNIFORM_OUT, sqrt(3. / 400), 1. / 400 },
        { TTT_INIT_LECUN, 2.0 / 10 / 0.87962566, 1. / 100 },
        { TTT_INIT_NORMAL_IN, 6. / 10, 1. / 100 },
        { TTT_INIT_TINY, 6e-6, 1e-12 },
        { TTT_INIT_ZERO, 0, 0 },
        { TTT_INIT_ONE, 1, 1 },
    };
    ttt_ctx *c = open_ctx();
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        ttt_params p = { 0 };
        ttt_weights w = ttt_dense_new(c, 100, 400, want[i].init, &p, "dense");
        double sum = 0, squares = 0, most = 0;
        for (int64_t j = 0; j < w.at[0]->size; j++) {
            double v = (double)w.at[0]->data[j];
            sum += v;
            squares += v * v;
            if (fabs(v) > most) most = fabs(v);
        }
        squares /= (double)w.at[0]->size;
        sum /= (double)w.at[0]->size;
        CHECK(most <= want[i].bound * 1.0001);
        CHECK(want[i].init == TTT_INIT_TINY || want[i].init == TTT_INIT_NORMAL_IN ||
              most >= want[i].bound * 0.99);
        CHECK(fabs(squares - want[i].variance) <= 0.03 * want[i].variance);
        CHECK(want[i].init == TTT_INIT_ONE || fabs(sum) <= 5 * sqrt(want[i].variance / 40000));
    }
    ttt_close(c);
}

static void initial_values_depend_on_seed_and_name_only(void) {
    ttt_ctx *a = open_ctx(), *b = open_ctx();
    ttt_params pa = { 0 }, pb = { 0 };
    ttt_weights wa = ttt_dense_new(a, 5, 5, TTT_INIT_XAVIER, &pa, "one");
    ttt_dense_new(b, 3, 3, TTT_INIT_XAVIER, &pb, "other");
    ttt_weights wb = ttt_dense_new(b, 5, 5, TTT_INIT_XAVIER, &pb, "one"),
                wc = ttt_dense_new(b, 5, 5, TTT_INIT_XAVIER, &pb, "two");
    CHECK(ttt_max_abs_diff(wa.at[0], wb.at[0]) == 0);
    CHECK(ttt_max_abs_diff(wa.at[0], wc.at[0]) > 0.01);
    ttt_close(a);
    ttt_close(b);
}

// ---- plain layers -------------------------------------------------------------------------------
static void embedding_is_a_strided_convolution(void) {
    ttt_ctx *c = open_ctx();
    ttt_params p = { 0 };
    ttt_weights w = ttt_patch_embed_new(c, 2, 3, 5, &p, "embedding");
    ttt_tensor *x = ttt_randn(c, TTT_SHAPE(2, 4, 6, 3));
    for (int i = 0; i < 5; i++) w.at[1]->data[i] = (ttt_real)i;
    ttt_tensor *y = ttt_patch_embed(c, w, x);
    ttt_text t;
    CHECK(strcmp(ttt_shape_text(y->shape, t), "(2,6,5)") == 0);
    for (int b = 0; b < 2; b++)
        for (int row = 0; row < 2; row++)
            for (int col = 0; col < 3; col++)
                for (int o = 0; o < 5; o++) {
                    const ttt_real *pixels = x->data + ((b * 4 + row * 2) * 6 + col * 2) * 3;
                    double sum = o;
                    for (int i = 0; i < 2; i++)
                        for (int j = 0; j < 2; j++)
                            for (int k = 0; k < 3; k++)
                                sum += (double)pixels[(i * 6 + j) * 3 + k] *
                                       (double)w.at[0]->data[((i * 2 + j) * 3 + k) * 5 + o];
                    CHECK(fabs(sum - (double)y->data[((b * 6) + row * 3 + col) * 5 + o]) < 1e-5);
                }
    ttt_close(c);
}

static void positions_follow_the_formula(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *t = ttt_sincos2d(c, 3, 4, 8);
    for (int n = 0; n < 12; n++)
        for (int j = 0; j < 2; j++) {
            double omega = pow(10000, -j / 1.0), x = n % 4 * omega, y = n / 4 * omega;
            double want[4] = { sin(x), cos(x), sin(y), cos(y) };
            for (int k = 0; k < 4; k++)
                CHECK(fabs(want[k] - (double)t->data[n * 8 + k * 2 + j]) < 1e-6);
        }
    ttt_sincos2d(c, 3, 4, 6);
    CHECK(ttt_status(c) == TTT_ERR_ARGUMENT && strstr(ttt_error(c), "6"));
    ttt_close(c);
}

static void layer_norm_has_mean_zero_and_variance_one(void) {
    ttt_ctx *c = open_ctx();
    ttt_params p = { 0 };
    ttt_weights w = ttt_layer_norm_new(c, 5, &p, "norm");
    ttt_tensor *y = ttt_layer_norm(c, w, ttt_randn(c, TTT_SHAPE(3, 5)));
    for (int r = 0; r < 3; r++) {
        double sum = 0, squares = 0;
        for (int j = 0; j < 5; j++) {
            sum += (double)y->data[r * 5 + j];
            squares += (double)y->data[r * 5 + j] * (double)y->data[r * 5 + j];
        }
        CHECK(fabs(sum) < 1e-5 && fabs(squares / 5 - 1) < 1e-4);
    }
    ttt_close(c);
}

static void elu1_is_elu_plus_one(void) {
    ttt_ctx *c = open_ctx();
    ttt_real v[4] = { -3, (ttt_real)-0.5, 0, 2 };
    ttt_tensor *y = ttt__elu1(c, ttt_from(c, TTT_SHAPE(4), v));
    double want[4] = { exp(-3), exp(-0.5), 1, 3 };
    CHECK_CLOSE(y->data, want, 4, 1e-6, 0);
    ttt_close(c);
}

// Both are smooth at 0, where parameters start and blank tokens are. They are made of max(x, 0),
// which is not.
static void slopes_at_zero_are_those_of_the_function(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = ttt_zeros_kept(c, TTT_SHAPE(1)), *g, *second;
    ttt_grad(c, ttt__elu1(c, x), &x, 1, &g, TTT_GRAD_RECORD);
    CHECK(ttt_item(g) == 1);
    ttt_grad(c, ttt_softplus(c, x), &x, 1, &g, TTT_GRAD_RECORD);
    ttt_grad(c, g, &x, 1, &second, TTT_GRAD_RECORD);
    CHECK(ttt_item(g) == REAL(0.5) && ttt_item(second) == REAL(0.25));
    ttt_close(c);
}

// ---- the MTTT layer -----------------------------------------------------------------------------
// The layer once more, in plain double loops from equations (b1), with gradients of the linear
// learner derived by hand. Of the library it uses only the numbers of the parameters.
typedef struct {
    int B, N, D, H, h, T;
    double lr;
    bool bias, norm, sgd;
    const int64_t *order;
} by_hand_sizes;

static double at(const layer *l, const char *name, int64_t i) {
    char full[64];
    snprintf(full, sizeof full, "layer/%s", name);
    ttt_tensor *t = ttt_params_find(&l->p, full);
    return t ? (double)t->data[i] : 0;
}

// One token of one head: the gradient of its loss in the learner's output e (h). Returns the loss.
static double token_gradient(const layer *l, by_hand_sizes s, int head, const double *e,
                             const double *x, double *de) {
    double r[64], z[64], dr[64], mean = 0, var = 0, mg = 0, mgz = 0, loss = 0;
    for (int j = 0; j < s.D; j++) {
        r[j] = at(l, "g_bias", j);
        for (int i = 0; i < s.h; i++) r[j] += e[i] * at(l, "g/kernel", (head * s.h + i) * s.D + j);
        mean += r[j] / s.D;
    }
    for (int j = 0; j < s.D; j++) var += (r[j] - mean) * (r[j] - mean) / s.D;
    double rs = 1 / sqrt(var + 1e-6);
    for (int j = 0; j < s.D; j++) {
        z[j] = (r[j] - mean) * rs;
        double scale = at(l, "decoder_LN/scale", head * s.D + j);
        double out = s.norm ? z[j] * scale + at(l, "decoder_LN/bias", head * s.D + j) : r[j];
        loss += 0.5 * (out - x[j]) * (out - x[j]);
        dr[j] = (out - x[j]) * (s.norm ? scale : 1);
        mg += dr[j] / s.D;
        mgz += dr[j] * z[j] / s.D;
    }
    for (int j = 0; j < s.D && s.norm; j++) dr[j] = rs * (dr[j] - mg - z[j] * mgz);
    for (int i = 0; i < s.h; i++) {
        de[i] = 0;
        for (int j = 0; j < s.D; j++)
            de[i] += dr[j] * at(l, "g/kernel", (head * s.h + i) * s.D + j);
    }
    return loss;
}

static void view(const layer *l, by_hand_sizes s, const char *kernel, const char *bias, int head,
                 const double *x, double *k) {
    for (int i = 0; i < s.h; i++) {
        k[i] = at(l, bias, head * s.h + i);
        for (int j = 0; j < s.D; j++) k[i] += x[j] * at(l, kernel, (head * s.D + j) * s.h + i);
    }
}

// y (B,N,D) and losses (T+1) of a linear learner
static void mttt_linear_by_hand(const layer *l, by_hand_sizes s, double *y, double *losses) {
    double W[16][16], b[16], k[16], e[16], de[16], gW[16][16], gb[16], x[64];
    for (int i = 0; i < s.B * s.N * s.D; i++) y[i] = at(l, "h_bias", i % s.D);
    for (int t = 0; t <= s.T; t++) losses[t] = 0;
    for (int seq = 0; seq < s.B; seq++)
        for (int head = 0; head < s.H; head++) {
            for (int i = 0; i < s.h; i++) {
                b[i] = s.bias ? at(l, "inner_Dense_0/bias", head * s.h + i) : 0;
                for (int j = 0; j < s.h; j++)
                    W[i][j] = at(l, "inner_Dense_0/kernel", (head * s.h + i) * s.h + j);
            }
            for (int t = 0; t <= s.T; t++) {
                int part = s.sgd && t < s.T, n = part ? s.N / s.T : s.N, first = part ? t * n : 0;
                double scale = (double)s.H / (n * s.D), loss = 0;
                memset(gW, 0, sizeof gW);
                memset(gb, 0, sizeof gb);
                for (int m = first; m < first + n; m++) {
                    int token = s.sgd ? (int)s.order[head * s.N + m] : m;
                    for (int j = 0; j < s.D; j++)
                        x[j] = (double)l->x->data[(seq * s.N + token) * s.D + j];
                    view(l, s, "phi/kernel", "phi/bias", head, x, k);
                    for (int i = 0; i < s.h; i++) {
                        e[i] = b[i];
                        for (int j = 0; j < s.h; j++) e[i] += k[j] * W[j][i];
                    }
                    loss += token_gradient(l, s, head, e, x, de);
                    for (int i = 0; i < s.h; i++) {
                        gb[i] += scale * de[i];
                        for (int j = 0; j < s.h; j++) gW[j][i] += scale * k[j] * de[i];
                    }
                }
                losses[t] += scale * loss / s.B;
                if (t == s.T) break;
                for (int i = 0; i < s.h; i++) {
                    if (s.bias) b[i] -= s.lr * gb[i];
                    for (int j = 0; j < s.h; j++) W[j][i] -= s.lr * gW[j][i];
                }
            }
            for (int m = 0; m < s.N; m++) {
                for (int j = 0; j < s.D; j++) x[j] = (double)l->x->data[(seq * s.N + m) * s.D + j];
                view(l, s, "psi/kernel", "psi/bias", head, x, k);
                for (int i = 0; i < s.h; i++) {
                    e[i] = b[i];
                    for (int j = 0; j < s.h; j++) e[i] += k[j] * W[j][i];
                }
                double *out = y + (seq * s.N + m) * s.D;
                for (int j = 0; j < s.D; j++)
                    for (int i = 0; i < s.h; i++)
                        out[j] += e[i] * at(l, "h/kernel", (head * s.h + i) * s.D + j);
            }
        }
}

static void mttt_linear_equals_loops_by_hand(void) {
    ttt_ctx *c = open_ctx();
    const int64_t order[16] = { 3, 1, 0, 7, 5, 2, 6, 4, 0, 2, 4, 6, 1, 3, 5, 7 };
    for (int variant = 0; variant < 16; variant++) {
        ttt_mark m = ttt_mark_get(c);
        int steps = variant & 8 ? 4 : 1 + variant % 2;
        by_hand_sizes s = { 2, 8, 6, 2, 3, steps, 0.5, variant & 1, variant & 2, variant & 4,
                            order };
        if (s.sgd && 8 % s.T) s.T = 2;
        ttt_mixer_desc d = { .inner_steps = s.T, .no_inner_bias = !s.bias,
                             .no_decoder_norm = !s.norm, .inner_sgd = s.sgd };
        layer l = make_layer(c, "mttt-linear", d, s.B, s.N);
        if (s.sgd) l.d.order = ttt_from_int(c, TTT_SHAPE(2, 8), order);
        double y[2 * 8 * 6], losses[5];
        ttt_tensor *got_losses, *got = ttt_mixer_forward(c, &l.d, l.w, l.x, &got_losses);
        CHECK(ttt_ok(c));
        mttt_linear_by_hand(&l, s, y, losses);
        CHECK_CLOSE(got->data, y, got->size, 0, DOUBLE ? 1e-12 : 2e-5);
        CHECK_CLOSE(got_losses->data, losses, s.T + 1, DOUBLE ? 1e-12 : 1e-5, 0);
        ttt_mark_release(c, m);
    }
    ttt_close(c);
}

// The directional derivative of order k against the central difference of the one of order k - 1.
static void check_orders(ttt_ctx *c, const char *what, ttt_function *f, ttt_tensor *const *wrt,
                         int n, void *user, int orders, double limit) {
    for (int order = 1; order <= orders; order++) {
        double e = ttt_check_gradient(c, f, wrt, n, user, order, 1e-4);
        if (!(e <= limit)) printf("  %s order %d: %.2e %s\n", what, order, e, ttt_error(c));
        CHECK(e <= limit);
    }
}

static void check_mixer(const char *mixer, ttt_mixer_desc d, int orders, double limit) {
    ttt_ctx *c = open_ctx();
    layer l = make_layer(c, mixer, d, 2, 4);
    if (d.inner_sgd) {
        const int64_t order[8] = { 3, 1, 0, 2, 0, 2, 1, 3 };
        l.d.order = ttt_from_int(c, TTT_SHAPE(2, 4), order);
    }
    ttt_tensor *wrt[32];
    int n = wrt_of(&l, wrt);
    check_orders(c, mixer, layer_value, wrt, n, &l, orders, limit);
    ttt_close(c);
}

static double largest(const ttt_tensor *a) {
    double most = 1e-30;
    for (int64_t i = 0; i < a->size; i++) most = fmax(most, fabs((double)a->data[i]));
    return most;
}
static double difference(const ttt_tensor *a, const ttt_tensor *b) {
    return ttt_max_abs_diff(a, b) / largest(b);
}

// Outputs, inner losses and all gradients of a mixer, fused and op by op on the tape. L: length of
// an order with repetitions; 0: all tokens, shuffled.
static void check_fused(const ttt_desc *o, ttt_mixer_desc d, int64_t B, int64_t N, int64_t L) {
    ttt_ctx *c = ttt_open(o);
    ttt_params p = { 0 };
    ttt_tensor *wrt[64], *g[3][64], *y[3], *losses[3] = { NULL, NULL, NULL };
    if (!d.dim) d.dim = 24;
    if (!d.heads) d.heads = 3;
    if (d.mixer->learner && !d.inner_lr) d.inner_lr = rate_for(d.mixer);
    fit_tokens(&d, N);
    ttt_weights w = ttt_mixer_new(c, &d, &p, "l");
    ttt_tensor *x = ttt_randn(c, TTT_SHAPE(B, N, d.dim)), *seed = ttt_randn(c, x->shape);
    int n = 0;
    for (; n < p.n; n++) {
        wrt[n] = p.value[n];
        bool zero = d.zero_w0 && (p.item[n].flags & TTT_PARAM_INNER);
        for (int64_t j = 0; j < wrt[n]->size && !zero; j++)
            wrt[n]->data[j] += REAL(0.1 * ttt_rng_normal(ttt_ctx_rng(c)));
    }
    wrt[n++] = x;
    if (d.inner_sgd) d.order = ttt__draw_order(c, d.heads, L ? L : N);
    for (int64_t i = 0; L && d.inner_sgd && i < d.order->size; i++)
        d.order->index[i] = ttt_rng_below(ttt_ctx_rng(c), N);
    for (int way = 0; way < 3; way++) {  // 0: on the tape; fused, 1 without losses, 2 with them
        d.no_fused = way == 0;
        y[way] = ttt_mixer_forward(c, &d, w, x, d.mixer->learner && way != 1 ? &losses[way] : NULL);
        ttt_vjp(c, y[way], seed, wrt, n, g[way], TTT_GRAD_FIRST_ORDER);
    }
    ttt_set_recording(c, false);  // nothing is kept, and the numbers are the same
    ttt_tensor *untaped = ttt_mixer_forward(c, &d, w, x, NULL);
    CHECK(ttt_ok(c) && memcmp(untaped->data, y[1]->data, (size_t)x->size * sizeof *x->data) == 0);
    double out = ttt_test_worse(difference(y[1], y[0]), difference(y[2], y[0]));
    double grad = 0, most = 0, bound = DOUBLE ? 1e-12 : 2e-5;
    // Rounding grows with the steps, and by what Muon makes of singular values that are next to
    // nothing; so may be the loss of one number.
    if (d.inner_steps > 3 || d.dim == 1 || (d.muon && !DOUBLE)) bound *= 1000;
    // Two numbers that LaCT reads may both be next to nothing, and its norm makes them 300 times
    // as large; in double that is within the bound.
    if (d.mixer == &ttt_mixer_lact && d.dim == 2 * d.heads && !DOUBLE) bound *= 10;
    if (losses[0]) out = ttt_test_worse(out, difference(losses[2], losses[0]));
    for (int i = 0; i < n; i++) most = fmax(most, largest(g[0][i]));
    // Some are zero but for rounding: a softmax does not see the bias of its keys.
    for (int i = 0; i < 2 * n; i++) {
        const ttt_tensor *got = g[1 + i % 2][i / 2], *right = g[0][i / 2];
        double unit = fmax(largest(right), most / 100);
        grad = ttt_test_worse(grad, ttt_max_abs_diff(got, right) / unit);
    }
    if (!(out <= bound) || !(grad <= 10 * bound))
        printf("  %s on %s, %d threads: T=%d bias=%d norm=%d sgd=%d rates=%d zero=%d identity=%d "
               "normalizer=%d B=%lld N=%lld D=%lld H=%lld: out %.1e grad %.1e %s\n",
               d.mixer->name, ttt_isa(c), ttt_threads(c), d.inner_steps, !d.no_inner_bias,
               !d.no_decoder_norm, d.inner_sgd, d.learn_rates, d.zero_w0, d.identity_map,
               (int)d.normalizer, (long long)B, (long long)N, (long long)d.dim, (long long)d.heads,
               out, grad, ttt_error(c));
    CHECK(out <= bound);
    CHECK(grad <= 10 * bound);
    ttt_close(c);
}
static void fused_layers_equal_their_definition(void) {
    // Several, one, and (with the first set, since sets do not cut) cut-up ranges of tokens.
    static const int64_t size[][2] = { { 2, 66 }, { 1, 3 }, { 6, 210 } };
    for (int isa = 0; ttt_isa_name(isa); isa++)
        for (int m = 0; ttt_mixer_at(m); m++)
            for (int options = 0; options < 32; options++) {
                const ttt_mixer *mixer = ttt_mixer_at(m);
                bool learns = mixer->learner && mixer->fused != mixer->forward;  // others: below
                if (!mixer->fused || (!learns && options > 3)) continue;
                ttt_mixer_desc d = { .identity_map = options & 1 };
                d.normalizer = options & 2 ? TTT_NORMALIZER_CONSTANT : TTT_NORMALIZER_ADAPTIVE;
                ttt_mixer_desc learner = {
                    .inner_steps = options & 1 ? 3 : 1, .no_inner_bias = options >> 1 & 1,
                    .no_decoder_norm = options >> 2 & 1, .inner_sgd = options >> 3 & 1,
                    .learn_rates = options >> 4 & 1,
                };
                d = ttt_mixer_offer(mixer, learns ? &learner : &d);
                const int64_t *n = size[isa ? (options + options / 2) % 2 : options % 3];
                check_fused(&(ttt_desc){ .isa = ttt_isa_name(isa), .threads = 1 + options % 2 }, d,
                            n[0], n[1], 0);
            }
}

// Sizes at which a vector, tile, range or chunk holds one thing, or one too many; orders that are
// shorter than the sequence and repeat tokens; W_0 = 0, with which a linear learner saves sums.
static void fused_layers_of_unusual_sizes(void) {
    static const struct {
        int64_t B, N, dim, heads, L;
        int steps;
    } size[] = {
        { 2, 1, 6, 3, 1, 1 },     { 1, 6, 1, 1, 4, 2 },     { 3, 5, 4, 4, 15, 3 },
        { 2, 7, 5, 1, 6, 2 },     { 1, 9, 72, 1, 8, 1 },    { 2, 65, 68, 4, 130, 2 },
        { 5, 450, 4, 2, 300, 3 }, { 7, 300, 4, 2, 299, 1 }, { 1, 1030, 6, 2, 129, 1 },
        { 1, 70, 6, 2, 128, 64 },
    };
    for (size_t s = 0; s < sizeof size / sizeof *size; s++)
        for (int m = 0; ttt_mixer_at(m); m++)
            for (int options = 0; options < 16; options++) {
                ttt_mixer_desc d = { .mixer = ttt_mixer_at(m), .dim = size[s].dim,
                                     .heads = size[s].heads, .inner_steps = size[s].steps };
                d.inner_lr = size[s].steps > 3 ? REAL(0.02) : 0;
                // Those whose form is `forward` have sizes of their own below.
                if (!d.mixer->fused || d.mixer->fused == d.mixer->forward) continue;
                if (d.mixer->learner ? options % 2 != (int)s % 2 : options > 1) continue;
                d.identity_map = d.no_inner_bias = options & 1;
                d.no_decoder_norm = options >> 1 & 1;
                d.inner_sgd = options >> 2 & 1;
                d.zero_w0 = d.learn_rates = options >> 3 & 1;
                d.normalizer = d.identity_map ? TTT_NORMALIZER_CONSTANT : TTT_NORMALIZER_ADAPTIVE;
                d = ttt_mixer_offer(d.mixer, &d);
                check_fused(&(ttt_desc){ .threads = 3 }, d, size[s].B, size[s].N, size[s].L);
            }
}

// Learners that are written in chunks: chunks and tiles that do not divide the sequence, are longer
// or hold one token; all at once.
static void learners_in_chunks_equal_their_definition(void) {
    static const char *const name[] = { "ttt-linear", "ttt-mlp", "titans" };
    static const int64_t tokens[] = { 1, 15, 17, 70, 150 }, chunk[] = { 0, 1, 5, 64, 300 };
    for (int m = 0; m < 3; m++)
        for (int options = 0; options < 8; options++)
            for (int i = 0; i < 5; i++) {
                ttt_mixer_desc d = { .causal = options & 1, .no_decoder_norm = options >> 1 & 1,
                                     .no_inner_bias = options >> 2 & 1,
                                     .chunk = chunk[(i + options) % 5],
                                     .rotary = (i + options) % 3 ? 50 : 0,
                                     .token_index = i & 1, .share_qk = i >> 1 & 1,
                                     .output_gate = i % 3 == 1 };
                if (m < 2 && !d.causal) d.chunk = 0;
                d = ttt_mixer_offer(ttt_mixer_find(name[m]), &d);
                check_fused(&(ttt_desc){ .threads = 1 + i % 2, .isa = i % 3 ? NULL : "scalar" }, d,
                            1 + i % 2, tokens[i], 0);
            }
}

// Heads as wide as no vector is, of an odd number of features or of one.
static void learners_of_any_head_size_equal_their_definition(void) {
    static const char *const name[] = { "ttt-linear", "ttt-mlp" };
    static const int64_t dim[] = { 24, 20, 3, 1, 34 }, heads[] = { 1, 4, 3, 1, 2 };
    for (int isa = 0; ttt_isa_name(isa); isa++)
        for (int i = 0; i < 10; i++) {
            ttt_mixer_desc d = { .mixer = ttt_mixer_find(name[i % 2]), .dim = dim[i / 2],
                                 .heads = heads[i / 2], .causal = true, .chunk = 7,
                                 .token_index = true, .share_qk = true, .conv = 1 + i / 2,
                                 .output_gate = true };
            d.no_decoder_norm = dim[i / 2] == 3;  // for a norm of one feature all is rounding
            if (d.dim > d.heads) d.rotary = 10;
            check_fused(&(ttt_desc){ .isa = ttt_isa_name(isa) }, d, 2, 17, 0);
        }
}

// Tokens are turned by their place in the chunk: by the same bits in every chunk, back to what they
// were by the gradient, and so that products tell how far apart two of them are.
static void rotations_depend_on_the_place_in_the_chunk(void) {
    enum { CHUNK = 4, H = 2, h = 5 };
    ttt_ctx *c = open_ctx();
    ttt_mixer_desc d = { .causal = true, .chunk = CHUNK, .rotary = 10 };
    ttt_tensor *one = ttt_randn(c, TTT_SHAPE(1, 1, H, h)), *g;
    ttt_tensor *x = ttt_broadcast(c, one, TTT_SHAPE(2, 3 * CHUNK - 1, H, h));
    ttt_tensor *y = ttt__rotate(c, &d, x, false);
    for (int64_t i = 0; i < y->size; i++) {
        int64_t token = i / (H * h) % (3 * CHUNK - 1), at = token % CHUNK * H * h + i % (H * h);
        CHECK(y->data[i] == y->data[at]);
        if (i % h == h - 1 || token % CHUNK == 0) CHECK(y->data[i] == x->data[i]);
    }
    for (int k = 0; k < 2; k++) {  // the second pair's angle is 10^(-2/5) of the first one's
        const ttt_real *a = x->data + 2 * k, *b = y->data + 3 * H * h + 2 * k;
        double angle = 3 * pow(10, -0.4 * k), re = (double)a[0], im = (double)a[1];
        CHECK(fabs((double)b[0] - (re * cos(angle) - im * sin(angle))) < 1e-6);
        CHECK(fabs((double)b[1] - (re * sin(angle) + im * cos(angle))) < 1e-6);
    }
    ttt_vjp(c, y, y, &x, 1, &g, TTT_GRAD_RECORD);
    CHECK(ttt_ok(c) && ttt_max_abs_diff(g, x) < 1e-6);
    ttt_close(c);
}

// Gated units, all at once and in chunks: of one token, shorter and longer than a tile, that divide
// the sequence or do not, in segments of several; widths beside those of vectors.
static void fused_gated_units_equal_their_definition(void) {
    static const struct {
        const char *mixer;
        int64_t B, N, dim, chunk;
        bool muon;
    } forms[] = {
        { "lact", 2, 130, 51, 0 },   { "lact", 1, 65, 192, 0 },  { "lact", 2, 1, 6, 1 },
        { "lact", 2, 40, 51, 1 },    { "lact", 1, 150, 24, 37 }, { "lact", 2, 150, 6, 50 },
        { "lact", 1, 270, 51, 130 }, { "lact", 1, 70, 24, 100 }, { "vittt", 2, 130, 51, 0 },
        { "vittt", 1, 64, 192, 0 },  { "vittt", 3, 7, 6, 0 },
        { "lact", 2, 70, 51, 0, true }, { "lact", 1, 150, 24, 37, true },
    };
    for (int isa = 0; ttt_isa_name(isa); isa++)
        for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
            ttt_mixer_desc d = { .mixer = ttt_mixer_find(forms[i].mixer), .dim = forms[i].dim,
                                 .heads = 3, .causal = forms[i].chunk > 0,
                                 .chunk = forms[i].chunk, .muon = forms[i].muon };
            check_fused(&(ttt_desc){ .isa = ttt_isa_name(isa), .threads = 1 + (int)i % 3 }, d,
                        forms[i].B, forms[i].N, 0);
        }
}

// Softmax attention in all its forms. Windows narrower and wider than a tile and than the sequence,
// grids with rows shorter and longer than a tile, globals more than a tile of keys has; sizes
// beside multiples.
typedef struct {
    const char *mixer;
    int64_t N;
    ttt_mixer_desc d;
} attention_form;
static const attention_form attention_forms[] = {
    { "self-attention", 1, { .heads = 3 } },
    { "self-attention", 65, { .heads = 3 } },
    { "self-attention", 601, { .heads = 3 } },
    { "self-attention", 1, { .causal = true } },
    { "self-attention", 64, { .causal = true } },
    { "self-attention", 65, { .causal = true } },
    { "self-attention", 601, { .causal = true } },
    { "nadaraya-watson", 601, { .heads = 3 } },
    { "nadaraya-watson", 130, { .causal = true } },
    { "nadaraya-watson", 601, { .kernel = TTT_ATTENTION_KERNEL_GAUSSIAN } },
    { "nadaraya-watson", 130, { .kernel = TTT_ATTENTION_KERNEL_GAUSSIAN, .causal = true,
                                .bandwidth = REAL(0.8) } },
    { "nadaraya-watson", 30, { .kernel = TTT_ATTENTION_KERNEL_NEAREST, .neighbors = 3 } },
    { "linformer", 130, { .heads = 3 } },
    { "linformer", 40, { .max_tokens = 70, .compressed = 9 } },
    { "longformer", 1, { .heads = 3 } },
    { "longformer", 9, { .window = 1, .causal = true } },
    { "longformer", 300, { .window = 1 } },
    { "longformer", 300, { .window = 70 } },
    { "longformer", 601, { .window = 290 } },
    { "longformer", 100, { .window = 900 } },
    { "longformer", 601, { .window = 33, .causal = true } },
    { "longformer", 601, { .window = 300, .causal = true, .globals = 3 } },
    { "longformer", 140, { .window = 5, .globals = 130 } },
    { "longformer", 600, { .window = 20, .globals = 520 } },
    { "longformer", 12, { .window = 2, .grid_rows = 3, .grid_cols = 4 } },
    { "longformer", 150, { .window = 2, .grid_rows = 15, .grid_cols = 10 } },
    { "longformer", 153, { .window = 3, .grid_rows = 15, .grid_cols = 10, .globals = 3 } },
    { "longformer", 153, { .window = 3, .grid_rows = 15, .grid_cols = 10, .globals = 3,
                           .causal = true } },
    { "longformer", 702, { .window = 4, .grid_rows = 7, .grid_cols = 100, .globals = 2,
                           .causal = true } },
    { "longformer", 700, { .window = 2, .grid_rows = 7, .grid_cols = 100 } },
    { "longformer", 1200, { .window = 550, .grid_rows = 2, .grid_cols = 600 } },
    { "longformer", 130, { .window = 9, .grid_rows = 1, .grid_cols = 130 } },
    { "longformer", 132, { .window = 9, .grid_rows = 130, .grid_cols = 1, .globals = 2 } },
    { "longformer", 437, { .window = 3, .grid_rows = 19, .grid_cols = 23, .causal = true } },
    { "longformer", 800, { .window = 11, .grid_rows = 25, .grid_cols = 32 } },
    { "longformer", 803, { .window = 30, .grid_rows = 25, .grid_cols = 32, .globals = 3 } },
    { "lact", 100, { .causal = true } },
    { "lact", 90, { .causal = true, .chunk = 1 } },
    { "lact", 150, { .causal = true, .chunk = 37 } },
};
enum { ATTENTION_FORMS = sizeof attention_forms / sizeof *attention_forms };
// Each on the machine's best instruction set and, in turn, on another.
static void fused_attention_equals_its_definition(void) {
    int sets = 0;
    while (ttt_isa_name(sets)) sets++;
    for (int i = 0; i < 2 * ATTENTION_FORMS; i++) {
        const attention_form *f = &attention_forms[i / 2];
        ttt_mixer_desc d = f->d;
        ttt_desc o = { .isa = i % 2 ? ttt_isa_name(i / 2 % sets) : NULL, .threads = 1 + i / 2 % 3 };
        d.mixer = ttt_mixer_find(f->mixer);
        d.dim = i / 2 % 2 ? 15 : 48;
        d.heads = 3;
        check_fused(&o, d, f->N < 500 ? 1 + f->N % 2 : 1, f->N, 0);
    }
}

// On any grid the patches of queries are all queries, each once, and a query meets no more keys
// than there are around 8 x 8 of them: what a token costs does not grow with the grid.
static void a_query_meets_few_keys_on_any_grid(void) {
    enum { MOST = 128 };
    static char met[MOST * MOST];
    for (int64_t rows = 1; rows <= MOST; rows += rows < 10 ? 1 : 59)
        for (int64_t cols = 1; cols <= MOST; cols *= 2)
            for (int64_t window = 1; window <= 7; window += 3) {
                ttt__sight sight = { 0, cols, window, false };
                int64_t n = rows * cols, number = 0, pairs = 0, queries = 0;
                ttt__patch query, key;
                memset(met, 0, sizeof met);
                while ((query = ttt__query_patch(&sight, n, number++)).rows > 0) {
                    int64_t size = query.rows * query.cols;
                    for (int64_t i = 0; i < size; i++) met[ttt__in_patch(&query, i)]++;
                    for (int64_t j = 0; (key = ttt__key_patch(&sight, n, &query, j)).rows > 0; j++)
                        pairs += size * key.rows * key.cols;
                    queries += size;
                }
                CHECK(queries == n && memchr(met, 0, (size_t)n) == NULL);
                CHECK(pairs <= n * (8 + 2 * window) * (8 + 2 * window));
            }
}

// FLOPs of softmax attention: those of its products, and of every pair that sees each other.
static bool sees(const ttt_mixer_desc *d, int64_t window, int64_t N, int64_t query, int64_t key) {
    int64_t g = d->globals, cols = d->grid_cols ? d->grid_cols : N;
    int64_t down = llabs((query - g) / cols - (key - g) / cols);
    int64_t right = llabs((query - g) % cols - (key - g) % cols);
    if (d->causal && key > query) return false;
    return query < g || key < g || (down <= window && right <= window);
}
static void flops_count_the_pairs_that_see_each_other(void) {
    enum { D = 12, H = 3 };
    for (int i = 0; i < ATTENTION_FORMS; i++) {
        ttt_mixer_desc d = attention_forms[i].d;
        int64_t N = attention_forms[i].N, window = N;
        double pairs = 0, products = 4 * D * D, written = 0;
        d.mixer = ttt_mixer_find(attention_forms[i].mixer);
        d.dim = D;
        d.heads = H;
        if (d.mixer == &ttt_mixer_linformer) continue;
        if (d.mixer == &ttt_mixer_longformer) window = d.window ? d.window : 256;
        if (d.mixer == &ttt_mixer_lact) {
            window = (d.chunk ? d.chunk : 2048) - 1;
            products += 3 * D * D / H;
            written = 6.0 * D * D / H * (double)((N - 1) / (window + 1) * (window + 1));
        }
        if (d.globals) products += 2 * D * D;
        for (int64_t q = 0; q < N; q++)
            for (int64_t k = 0; k < N; k++) pairs += sees(&d, window, N, q, k);
        CHECK(d.mixer->flops(&d, N) == 2 * (products * (double)N + written + 2 * pairs * D));
    }
}

// Memories that are written token by token, as one op and on the tape: chunks that do not divide
// the sequence, of one token, longer than all; gates of any strength, a token's own or all alike.
static double gate_of(int kind, ttt_rng *rng) {
    static const double strong[] = { -1e-8, -0.1, -3, -60, -300, -1e30, -HUGE_VAL, 0 };
    if (kind < 8) return strong[kind] * (kind < 5 ? ttt_rng_uniform(rng) : 1);
    return strong[ttt_rng_below(rng, 8)];
}
static void check_memory(const char *isa, bool rule, int gates, int64_t N, int64_t chunk,
                         ttt_mixer_desc d) {
    enum { B = 2, H = 3, WIDTH = 20 };
    ttt_ctx *c = ttt_open(&(ttt_desc){ .isa = isa, .seed = 3, .threads = 2 });
    ttt_tensor *in[TTT__SCAN_INPUTS] = { NULL }, *wrt[TTT__SCAN_INPUTS], *y[2], *g[2][8];
    ttt__memory_fn *one_op = rule ? ttt__scan_as_op : ttt__causal_linear_as_op;
    ttt__memory_fn *tape = rule ? ttt__scan_tape : ttt__linear_tape;
    int n = 0;
    for (int i = 0; i < 3; i++) in[i] = ttt_randn(c, TTT_SHAPE(B, N, H, WIDTH));
    for (int i = 0; i < 2 && rule; i++) in[i] = ttt__unit(c, in[i], 1e-6);
    if (rule) in[TTT__SCAN_BETA] = ttt_sigmoid(c, ttt_randn(c, TTT_SHAPE(B, N, H, 1)));
    if (rule && gates >= 0) in[TTT__SCAN_G] = ttt_zeros(c, TTT_SHAPE(B, N, H, 1));
    for (int64_t i = 0; rule && gates >= 0 && i < B * N * H; i++)
        in[TTT__SCAN_G]->data[i] = REAL(gate_of(gates, ttt_ctx_rng(c)));
    for (int i = 0; i < TTT__SCAN_INPUTS; i++)
        if (in[i]) wrt[n++] = in[i];
    ttt_tensor *seed = ttt_randn(c, in[0]->shape);
    for (int way = 0; way < 2; way++) {
        y[way] = (way ? one_op : tape)(c, &d, in, chunk);
        ttt_vjp(c, y[way], seed, wrt, n, g[way], TTT_GRAD_FIRST_ORDER);
    }
    double out = difference(y[1], y[0]), grad = 0, most = 0, bound = DOUBLE ? 1e-12 : 2e-5;
    for (int i = 0; i < n; i++) most = fmax(most, largest(g[0][i]));
    for (int i = 0; i < n; i++)
        grad = ttt_test_worse(grad, ttt_max_abs_diff(g[1][i], g[0][i]) /
                                        fmax(largest(g[0][i]), most / 100));
    if (!(out <= bound && grad <= 10 * bound))
        printf("  %s, rule %d, gates %d, N %d, chunk %d, normalizer %d: out %.1e grad %.1e %s\n",
               isa, rule, gates, (int)N, (int)chunk, (int)d.normalizer, out, grad, ttt_error(c));
    CHECK(ttt_ok(c) && out <= bound && grad <= 10 * bound);
    ttt_close(c);
}
static void memories_of_tokens_equal_their_tape(void) {
    static const int64_t size[][2] = { { 1, 64 }, { 7, 1 }, { 15, 5 }, { 17, 16 }, { 33, 17 },
                                       { 66, 64 }, { 70, 1000 } };
    for (int isa = 0; ttt_isa_name(isa); isa++)
        for (int s = 0; s < 7; s++) {
            int64_t N = size[s][0], chunk = size[s][1];
            ttt_mixer_desc d = { .mixer = &ttt_mixer_linear_attention, .causal = true };
            for (int gates = -1; gates < 9; gates += isa ? 9 : 1)
                check_memory(ttt_isa_name(isa), true, gates, N, chunk, d);
            for (int i = 0; i < 6; i++) {
                d.identity_map = i / 3;
                d.normalizer = (ttt_normalizer)(i % 3);
                if (!d.identity_map || d.normalizer != TTT_NORMALIZER_ADAPTIVE)  // sums of any sign
                    check_memory(ttt_isa_name(isa), false, -1, N, chunk, d);
            }
        }
}

// What goes row by row: layer norm, with it the MLP of a block, the features of focused linear
// attention, views of a given length; fused and as defined.
typedef enum { NORM, MLP, FEATURES, VIEW, ROW_KINDS } row_kind;
typedef struct {
    row_kind kind;
    ttt_tensor *in[7];  // x, the norm's scale and bias, and the MLP's four; or x and its unit
    int n;
} normed;
static normed make_normed(ttt_ctx *c, ttt_shape x, row_kind kind, int64_t M) {
    static const int n[ROW_KINDS] = { 3, 7, 2, 1 };
    int64_t D = x.dim[x.rank - 1];
    const ttt_shape shape[7] = { x, TTT_SHAPE(D), TTT_SHAPE(D), TTT_SHAPE(D, M), TTT_SHAPE(M),
                                 TTT_SHAPE(M, D), TTT_SHAPE(D) };
    normed l = { kind, { NULL }, n[kind] };
    for (int i = 0; i < l.n; i++) l.in[i] = ttt_randn(c, shape[i]);
    if (kind == FEATURES) l.in[1] = ttt_uniform(c, shape[1], REAL(0.5), 2);
    return l;
}
static ttt_tensor *normed_forward(ttt_ctx *c, const normed *l, bool fused) {
    ttt_weights w = { l->in + 1, l->n - 1 };
    ttt_tensor *x = l->in[0];
    switch (l->kind) {
    case NORM:
        return fused ? ttt_layer_norm(c, w, x) : ttt__layer_norm_tape(c, l->in[1], l->in[2], x);
    case MLP: return fused ? ttt_residual_mlp(c, w, x) : ttt__residual_mlp_tape(c, w.at, x);
    case FEATURES: return (fused ? ttt__focus_as_op : ttt__focus)(c, x, l->in[1], 3);
    default: return (fused ? ttt__sized_as_op : ttt__sized_tape)(c, x, 1e-3, 0.7);
    }
}
static ttt_tensor *normed_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *user) {
    (void)x;
    (void)n;
    return weigh(c, ttt_square(c, normed_forward(c, user, true)));
}
static void check_normed(const ttt_desc *o, ttt_shape x, row_kind kind, int64_t M) {
    ttt_ctx *c = ttt_open(o);
    normed l = make_normed(c, x, kind, M);
    ttt_tensor *seed = ttt_randn(c, x), *y[2], *g[2][7];
    for (int fused = 0; fused < 2; fused++) {
        y[fused] = normed_forward(c, &l, fused);
        ttt_vjp(c, y[fused], seed, l.in, l.n, g[fused], TTT_GRAD_FIRST_ORDER);
    }
    // One number less its mean is rounding alone.
    double bound = (DOUBLE ? 1e-13 : 5e-6) * (x.dim[x.rank - 1] == 1 ? 1000 : 1), scale = 0;
    if (!(difference(y[1], y[0]) <= bound))
        printf("  %s, kind %d, %lld numbers of %lld, M=%lld: off by %.1e\n", ttt_isa(c), (int)kind,
               (long long)l.in[0]->size, (long long)x.dim[x.rank - 1], (long long)M,
               difference(y[1], y[0]));
    CHECK(ttt_ok(c) && y[1]->n_in == l.n && difference(y[1], y[0]) <= bound);
    for (int i = 0; i < l.n; i++) scale = fmax(scale, largest(g[0][i]) / 100);
    for (int i = 0; i < l.n; i++) {
        double e = ttt_max_abs_diff(g[1][i], g[0][i]) / fmax(scale, largest(g[0][i]));
        if (!(e <= 4 * bound))
            printf("  %s, kind %d, %lld numbers of %lld, M=%lld: gradient %d off by %.1e\n",
                   ttt_isa(c), (int)kind, (long long)l.in[0]->size, (long long)x.dim[x.rank - 1],
                   (long long)M, i, e);
        CHECK(e <= 4 * bound);
    }
    ttt_close(c);
}
static void what_is_fused_row_by_row_equals_its_definition(void) {
    const struct {
        ttt_shape x;
        int64_t M;
    } size[] = {
        { TTT_SHAPE(1, 1), 1 },      { TTT_SHAPE(1, 5), 7 },       { TTT_SHAPE(2, 3, 16), 64 },
        { TTT_SHAPE(96, 20), 33 },   { TTT_SHAPE(3, 65, 24), 96 }, { TTT_SHAPE(1153, 4), 6 },
        { TTT_SHAPE(5, 500, 3), 5 },
    };
    for (int isa = 0; ttt_isa_name(isa); isa++)
        for (size_t s = 0; s < sizeof size / sizeof *size; s++)
            for (int kind = 0; kind < ROW_KINDS; kind++)
                check_normed(&(ttt_desc){ .isa = ttt_isa_name(isa), .threads = 1 + (int)s % 3 },
                             size[s].x, (row_kind)kind, size[s].M);
}

// Rows of the largest numbers: norms as of rows a thousandth as large.
static void fused_norms_reach_the_largest_numbers(void) {
    for (int isa = 0; ttt_isa_name(isa); isa++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .isa = ttt_isa_name(isa) });
        ttt_params p = { 0 };
        ttt_weights norm = ttt_layer_norm_new(c, 21, &p, "norm");
        ttt_mlp_new(c, 21, 8, &p, "mlp");
        const double large = DOUBLE ? 1.7e308 : 3.4e38;
        ttt_tensor *x = ttt_new(c, TTT_SHAPE(1, 3, 21)), *g[2][2];
        for (int64_t i = 0; i < x->size; i++) x->data[i] = REAL(i % 4 ? -large : large);
        ttt_tensor *less = ttt_scale(c, x, REAL(1.0 / 1024));
        ttt_tensor *y = ttt_layer_norm(c, norm, x), *z = ttt_layer_norm(c, norm, less);
        CHECK(difference(y, z) <= 32 * (DOUBLE ? 2.3e-16 : 1.2e-7));
        for (int i = 0; i < 2; i++)
            ttt_grad(c, weigh(c, i ? z : y), norm.at, 2, g[i], TTT_GRAD_FIRST_ORDER);
        for (int i = 0; i < 2; i++) CHECK(difference(g[0][i], g[1][i]) <= 1e-5);
        y = ttt_sub(c, ttt_residual_mlp(c, ttt_params_weights(&p), ttt_scale(c, x, 0.5)),
                    ttt_scale(c, x, 0.5));
        CHECK(ttt_ok(c) && c->k->finite(y->size, y->data));
        ttt_close(c);
    }
}

// The profile counts for it about what it counts for the ops of its definition.
static void what_is_fused_row_by_row_counts_its_flops(void) {
    for (int kind = 0; kind < ROW_KINDS; kind++) {
        double flops[2] = { 0, 0 };
        for (int fused = 0; fused < 2; fused++) {
            ttt_ctx *c = ttt_open(NULL);
            normed l = make_normed(c, TTT_SHAPE(2, 64, 20), (row_kind)kind, 70);
            ttt_profile_row row[40];
            ttt_profile_start(c);
            normed_forward(c, &l, fused);
            ttt_profile_stop(c);
            for (int i = 0, n = ttt_profile_rows(c, row, 40); i < n; i++)
                flops[fused] += row[i].flops;
            CHECK(ttt_ok(c));
            ttt_close(c);
        }
        CHECK(flops[1] > flops[0] / 2 && flops[1] < 2 * flops[0]);
    }
}

static void what_is_fused_row_by_row_keeps_what_others_promise(void) {
    for (int i = 0; i < ROW_KINDS; i++) {
        row_kind kind = (row_kind)i;
        ttt_shape shape = TTT_SHAPE(2, 640, 20);
        ttt_tensor *g[7], *alone, *first;
        ttt_real *kept[8] = { NULL };
        // The same bits with one thread and eight; gradients alone and added.
        for (int threads = 1; threads < 9; threads += 7) {
            ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 7, .threads = threads });
            normed l = make_normed(c, shape, kind, 70);
            ttt_tensor *y = normed_value(c, NULL, 0, &l);
            ttt_grad(c, y, l.in, l.n, g, TTT_GRAD_FIRST_ORDER);
            for (int k = 0; k < l.n; k++) {
                size_t bytes = (size_t)g[k]->size * sizeof(ttt_real);
                ttt_grad(c, y, &l.in[k], 1, &alone, TTT_GRAD_FIRST_ORDER);
                CHECK(memcmp(alone->data, g[k]->data, bytes) == 0);
                ttt_tensor *three = ttt_scale(c, alone, 2);
                ttt_grad(c, y, &l.in[k], 1, &three, TTT_GRAD_ADD);
                CHECK(difference(three, ttt_scale(c, alone, 3)) <= (DOUBLE ? 1e-13 : 1e-5));
                if (threads == 1) memcpy(kept[k] = malloc(bytes), g[k]->data, bytes);
                else CHECK(memcmp(kept[k], g[k]->data, bytes) == 0);
            }
            int last = kind == VIEW ? 0 : 1;
            l.in[2] = l.in[1];  // one tensor twice: the sum of both gradients
            for (int fused = 0; fused < 2; fused++)
                ttt_grad(c, weigh(c, ttt_square(c, normed_forward(c, &l, fused))), &l.in[last], 1,
                         &g[fused], TTT_GRAD_FIRST_ORDER);
            CHECK(ttt_ok(c) && difference(g[1], g[0]) <= (DOUBLE ? 1e-13 : 1e-5));
            ttt_close(c);
        }
        for (int k = 0; k < 8; k++) free(kept[k]);
        ttt_ctx *c = open_ctx();
        normed l = make_normed(c, TTT_SHAPE(2, 3, 5), kind, 6);
        if (DOUBLE) check_orders(c, "fused norm", normed_value, l.in, l.n, &l, 3, 1e-6);
        ttt_grad(c, normed_value(c, NULL, 0, &l), l.in, 1, &first, TTT_GRAD_FIRST_ORDER);
        ttt_grad(c, weigh(c, first), l.in, 1, &alone, TTT_GRAD_FIRST_ORDER);
        CHECK(ttt_status(c) == TTT_ERR_FIRST_ORDER);
        ttt_clear(c);
        l = make_normed(c, TTT_SHAPE(0, 5), kind, 6);
        ttt_tensor *sum = ttt_sum(c, normed_forward(c, &l, true));
        CHECK(ttt_grad(c, sum, l.in, l.n, g, TTT_GRAD_FIRST_ORDER) == TTT_OK);
        CHECK(kind == VIEW || g[1]->data[0] == 0);
        l.in[1] = ttt_randn(c, TTT_SHAPE(4));
        if (l.n >= 3) normed_forward(c, &l, true);
        CHECK(l.n < 3 || (ttt_status(c) == TTT_ERR_SHAPE && strstr(ttt_error(c), "(4)")));
        ttt_close(c);
        for (int n = 1, refused = 1; refused && n < 100; n++) {
            c = open_ctx();
            mallocs = 0;
            fail_at = n;
            l = make_normed(c, shape, kind, 70);
            ttt_grad(c, normed_value(c, NULL, 0, &l), l.in, l.n, g, TTT_GRAD_FIRST_ORDER);
            refused = mallocs >= n;
            CHECK(ttt_status(c) == (refused ? TTT_ERR_NO_MEMORY : TTT_OK) &&
                  ttt_memory(c).scratch == 0);
            fail_at = 0;
            ttt_close(c);
        }
    }
}

// ---- what fused layers promise beside their numbers ---------------------------------------------
// Every mixer with eight combinations of options.
static bool variant(int i, ttt_mixer_desc *d) {
    const ttt_mixer *m = ttt_mixer_at(i / 8);
    int options = i % 8;
    if (!m) return false;
    *d = (ttt_mixer_desc){ .mixer = m, .dim = 12, .heads = 3, .inner_lr = rate_for(m) };
    if (ttt_mixer_takes(m, "inner_steps")) {
        d->inner_steps = options & 1 ? 1 : 2;
        d->no_decoder_norm = options >> 1 & 1;
        d->inner_sgd = options >> 2 & 1;
        d->learn_rates = d->zero_w0 = options & 1;
    } else {
        d->causal = options & 1;
        d->chunk = options >> 1 & 1 ? 5 : 0;
        d->identity_map = options >> 1 & 1;
        d->no_decoder_norm = d->muon = d->no_short_conv = options >> 2 & 1;
        d->kernel = (ttt_attention_kernel)(options % 3);
        d->neighbors = d->kernel == TTT_ATTENTION_KERNEL_NEAREST;
        d->window = 1;
        d->rotary = options >> 1 & 1 ? 100 : 0;
        d->token_index = options >> 1 & 1;
        d->share_qk = d->output_gate = options >> 2 & 1;
    }
    *d = ttt_mixer_offer(m, d);
    return true;
}

static uint64_t hash(uint64_t h, const ttt_tensor *t) {  // FNV-1a
    const unsigned char *bytes = (const unsigned char *)t->data;
    for (size_t i = 0; i < (size_t)t->size * sizeof *t->data; i++)
        h = (h ^ bytes[i]) * 0x100000001b3u;
    return h;
}

// A layer's output, losses and gradients, as one number.
static uint64_t layer_step(ttt_ctx *c, const char *mixer, ttt_mixer_desc d, int64_t B, int64_t N) {
    layer l = make_layer(c, mixer, d, B, N);
    if (!ttt_ok(c)) return 0;
    ttt_tensor *wrt[32], *g[32], *losses = ttt_scalar(c, 0);
    ttt_tensor **told = d.mixer->learner && d.inner_sgd ? &losses : NULL;
    ttt_tensor *y = ttt_mixer_forward(c, &l.d, l.w, l.x, told);
    int n = wrt_of(&l, wrt);
    if (ttt_grad(c, weigh(c, ttt_square(c, y)), wrt, n, g, TTT_GRAD_FIRST_ORDER) != TTT_OK)
        return 0;
    uint64_t h = hash(hash(1, y), losses);
    for (int i = 0; i < n; i++) h = hash(h, g[i]);
    return h;
}

static void the_number_of_threads_changes_no_bit(void) {
    ttt_mixer_desc d;
    for (int i = 0; variant(i, &d); i++) {
        const int threads[3] = { 1, 3, 8 };
        uint64_t bits[3];
        for (int k = 0; k < 3; k++) {
            ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 7, .threads = threads[k] });
            bits[k] = layer_step(c, d.mixer->name, d, 5, 210);
            CHECK(ttt_ok(c) && bits[k] == bits[0]);
            ttt_close(c);
        }
    }
}

// Each allocation fails in turn: the error is reported, no workspace stays taken, and then the same
// context computes the same numbers.
static void memory_may_run_out_anywhere(void) {
    ttt_mixer_desc d;
    for (int i = 0; variant(i, &d); i++) {
        // ranges of layers that are one op; tiles of others; next to nothing on the tape
        bool ranges = d.mixer->fused && d.mixer->fused != d.mixer->forward;
        int64_t N = ranges ? 402 : d.mixer->fused ? 70 : 22;
        uint64_t right = 0;
        bool refused = true;
        for (long n = 0; refused && n < 200; n++) {  // n = 0: nothing fails
            ttt_ctx *c = open_ctx();
            ttt_mark m = ttt_mark_get(c);
            ttt_rng start = *ttt_ctx_rng(c);
            mallocs = 0;
            fail_at = n;
            uint64_t bits = layer_step(c, d.mixer->name, d, 2, N);
            refused = n == 0 || mallocs >= n;
            CHECK(ttt_status(c) == (refused && n ? TTT_ERR_NO_MEMORY : TTT_OK));
            CHECK(ttt_memory(c).scratch == 0);
            if (n == 0) right = bits;
            fail_at = 0;
            ttt_clear(c);
            ttt_mark_release(c, m);
            *ttt_ctx_rng(c) = start;
            CHECK(layer_step(c, d.mixer->name, d, 2, N) == right);
            ttt_close(c);
        }
    }
}

static void any_gradient_may_be_asked_for_alone_or_added(void) {
    ttt_mixer_desc d;
    for (int i = 0; variant(i, &d); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 7, .threads = 3 });
        layer l = make_layer(c, d.mixer->name, d, 2, 14);
        if (d.zero_w0)
            for (int j = 0; j < l.p.n; j++)
                if (l.p.item[j].flags & TTT_PARAM_INNER)
                    memset(l.p.value[j]->data, 0, (size_t)l.p.value[j]->size * sizeof(ttt_real));
        ttt_tensor *wrt[32], *all[32], *alone, *y = layer_value(c, NULL, 0, &l);
        int n = wrt_of(&l, wrt);
        ttt_grad(c, y, wrt, n, all, TTT_GRAD_FIRST_ORDER);
        for (int j = 0; j < n; j++) {
            ttt_grad(c, y, &wrt[j], 1, &alone, TTT_GRAD_FIRST_ORDER);
            size_t bytes = (size_t)alone->size * sizeof *alone->data;
            CHECK(memcmp(alone->data, all[j]->data, bytes) == 0);
            ttt_tensor *three = ttt_full(c, alone->shape, 3);
            ttt_grad(c, y, &wrt[j], 1, &three, TTT_GRAD_ADD);
            CHECK(ttt_max_abs_diff(three, ttt_add_scalar(c, alone, 3)) <=
                  (DOUBLE ? 1e-12 : 2e-5) * fmax(3, largest(alone)));
        }
        CHECK(ttt_ok(c));
        ttt_close(c);
    }
}

// Rows a and b of the parameters are one tensor: its gradient is the sum of theirs.
static void check_tied(const char *mixer, bool norm, int a, int b) {
    for (int threads = 1; threads < 9; threads += 7) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 7, .threads = threads });
        ttt_mixer_desc d = { .dim = 24, .heads = 4, .no_decoder_norm = !norm };
        layer l = make_layer(c, mixer, d, 4, 250);
        memcpy(l.w.at[b]->data, l.w.at[a]->data, (size_t)l.w.at[a]->size * sizeof(ttt_real));
        ttt_tensor *wrt[2] = { l.w.at[a], l.w.at[b] }, *g[2], *tied;
        ttt_grad(c, layer_value(c, NULL, 0, &l), wrt, 2, g, TTT_GRAD_FIRST_ORDER);
        l.p.value[b] = l.p.value[a];
        ttt_grad(c, layer_value(c, NULL, 0, &l), wrt, 1, &tied, TTT_GRAD_FIRST_ORDER);
        CHECK(ttt_ok(c) && difference(tied, ttt_add(c, g[0], g[1])) <= (DOUBLE ? 1e-13 : 1e-5));
        ttt_close(c);
    }
}
static void one_tensor_may_be_several_parameters(void) {
    check_tied("mttt-mlp", true, TTT__MTTT_PHI_KERNEL, TTT__MTTT_PSI_KERNEL);
    check_tied("mttt-linear", false, TTT__MTTT_G_KERNEL, TTT__MTTT_H_KERNEL);
    check_tied("self-attention", true, TTT__ATTENTION_Q_KERNEL, TTT__ATTENTION_K_KERNEL);
    check_tied("linear-attention", true, TTT__ATTENTION_Q_BIAS, TTT__ATTENTION_K_BIAS);
}

// A fused layer's losses are numbers: asking for their gradient is an error, not a zero.
static void inner_losses_of_fused_layers_are_not_differentiated(void) {
    for (int later = 0; later < 2; later++) {
        ttt_ctx *c = open_ctx();
        layer l = make_layer(c, "mttt-mlp", (ttt_mixer_desc){ 0 }, 1, 4);
        ttt_tensor *losses, *g, *y = ttt_mixer_forward(c, &l.d, l.w, l.x, &losses);
        ttt_tensor *sum = ttt_sum(c, losses);
        ttt_grad(c, later ? ttt_add(c, sum, ttt_sum(c, y)) : sum, &l.x, 1, &g,
                 TTT_GRAD_FIRST_ORDER);
        CHECK(ttt_status(c) == TTT_ERR_FIRST_ORDER);
        ttt_clear(c);
        y = ttt_sum(c, ttt_add(c, y, ttt_scale(c, ttt_detach(c, sum), 2)));
        CHECK(ttt_grad(c, y, &l.x, 1, &g, TTT_GRAD_FIRST_ORDER) == TTT_OK);
        ttt_close(c);
    }
}

// A fused layer inside a block that is computed again, differentiated twice.
static ttt_tensor *layer_again(ttt_ctx *c, ttt_tensor *const *in, int n, const void *user) {
    const layer *l = *(layer *const *)user;
    ttt_weights w = { in + 1, n - 1 };
    return ttt_add(c, in[0], ttt_mixer_forward(c, &l->d, w, ttt_tanh(c, in[0]), NULL));
}
static void second_order_through_recomputed_fused_layers(void) {
    ttt_mixer_desc d;
    for (int i = 0; variant(i, &d); i++) {
        ttt_ctx *c = open_ctx();
        layer l = make_layer(c, d.mixer->name, d, 2, 6), *user = &l;
        if (d.inner_sgd) l.d.order = ttt__draw_order(c, d.heads, 6);
        ttt_tensor *in[32], *g[2][32], *first;
        int n = wrt_of(&l, in);
        for (int again = 0; again < 2; again++) {
            ttt_tensor *y = again ? ttt_remat(c, layer_again, in, n, l.x->shape, &user, sizeof user)
                                  : layer_again(c, in, n, &user);
            ttt_grad(c, weigh(c, ttt_square(c, ttt_add(c, y, l.x))), &l.x, 1, &first,
                     TTT_GRAD_RECORD);
            ttt_grad(c, weigh(c, ttt_square(c, first)), in, n, g[again], TTT_GRAD_FIRST_ORDER);
        }
        CHECK(ttt_ok(c));
        for (int j = 0; j < n && ttt_ok(c); j++) {
            // Some are zero but for rounding: that of a key's bias under a softmax.
            double scale = fmax(largest(g[0][0]), largest(g[0][j]));
            CHECK(ttt_max_abs_diff(g[0][j], g[1][j]) <= (DOUBLE ? 1e-13 : 1e-5) * scale);
        }
        ttt_close(c);
    }
}

static void empty_sequences_and_batches(void) {
    ttt_mixer_desc d;
    for (int i = 0; variant(i, &d); i++)
        for (int which = 0; which < 2; which++) {
            if (d.mixer->flags & TTT_MIXER_GRID && !which) continue;  // no grid has no tokens
            ttt_ctx *c = open_ctx();
            layer l = make_layer(c, d.mixer->name, d, which ? 0 : 2, which ? 4 : 0);
            ttt_tensor *wrt[32], *g[32], *y = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
            int n = wrt_of(&l, wrt);
            if (d.mixer->learner && d.inner_sgd && !which) {  // no tokens for its mini-batches
                CHECK(ttt_status(c) == TTT_ERR_SHAPE);
            } else {
                CHECK(ttt_ok(c) && ttt_shape_equal(y->shape, l.x->shape));
                CHECK(ttt_grad(c, ttt_sum(c, y), wrt, n, g, TTT_GRAD_FIRST_ORDER) == TTT_OK);
                for (int j = 0; j < n; j++)
                    for (int64_t k = 0; k < g[j]->size; k++) CHECK(g[j]->data[k] == 0);
            }
            ttt_close(c);
        }
}

static void gradients_pass_through_inner_steps_to_order_4(void) {
    if (!DOUBLE) SKIP("needs the double build");
    check_mixer("mttt-linear", (ttt_mixer_desc){ .inner_steps = 2 }, 4, 1e-6);
    check_mixer("mttt-mlp", (ttt_mixer_desc){ .inner_steps = 2 }, 4, 1e-6);
}

static void gradients_of_every_mixer_and_option(void) {
    if (!DOUBLE) SKIP("needs the double build");
    check_mixer("mttt-mlp", (ttt_mixer_desc){ .inner_steps = 2, .inner_sgd = true }, 2, 1e-7);
    check_mixer("mttt-mlp", (ttt_mixer_desc){ .inner_steps = 2, .learn_rates = true }, 3, 1e-6);
    check_mixer("mttt-linear", (ttt_mixer_desc){ .no_inner_bias = true, .no_decoder_norm = true },
                3, 1e-7);
    check_mixer("mttt-linear",
                (ttt_mixer_desc){ .inner_steps = 3, .no_decoder_norm = true, .inner_sgd = false },
                2, 1e-7);
    check_mixer("self-attention", (ttt_mixer_desc){ 0 }, 3, 1e-7);
    ttt_mixer_desc lm = { .causal = true, .chunk = 3, .rotary = 10, .token_index = true,
                          .share_qk = true, .conv = 2, .output_gate = true };
    check_mixer("ttt-linear", lm, 2, 1e-7);
    check_mixer("ttt-mlp", lm, 2, 1e-7);
    check_mixer("linear-attention", (ttt_mixer_desc){ 0 }, 3, 1e-7);
    check_mixer("linear-attention",
                (ttt_mixer_desc){ .identity_map = true, .normalizer = TTT_NORMALIZER_CONSTANT }, 3,
                1e-7);
}

// phi acts on the output only through the inner gradient: without that, it has another gradient.
static void outer_gradients_need_the_inner_ones(void) {
    ttt_ctx *c = open_ctx();
    layer l = make_layer(c, "mttt-mlp", (ttt_mixer_desc){ .inner_steps = 2 }, 2, 8);
    ttt_tensor *phi = ttt_params_find(&l.p, "layer/phi/kernel"), *full, *cut;
    ttt_grad(c, layer_value(c, NULL, 0, &l), &phi, 1, &full, TTT_GRAD_FIRST_ORDER);
    l.d.first_order = true;
    ttt_grad(c, layer_value(c, NULL, 0, &l), &phi, 1, &cut, TTT_GRAD_FIRST_ORDER);
    CHECK(ttt_ok(c));
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < full->size; i++) {
        difference += pow((double)(full->data[i] - cut->data[i]), 2);
        norm += pow((double)full->data[i], 2);
    }
    CHECK(norm > 0 && sqrt(difference / norm) >= 0.05);
    l.d.first_order = false;
    if (DOUBLE) CHECK(ttt_check_gradient(c, layer_value, &phi, 1, &l, 1, 1e-4) <= 1e-6);
    ttt_close(c);
}

static void inner_steps_lower_the_inner_loss(void) {
    ttt_ctx *c = open_ctx();
    ttt_mixer_desc d = { .dim = 32, .heads = 4, .inner_steps = 4, .inner_lr = 1 };
    layer l = make_layer(c, "mttt-mlp", d, 2, 32);
    ttt_tensor *losses;
    ttt_mixer_forward(c, &l.d, l.w, l.x, &losses);
    CHECK(losses->size == 5);
    for (int t = 0; t < 4; t++) CHECK(losses->data[t + 1] < losses->data[t]);
    ttt_close(c);
}

// A hundred steps, fused and on the tape.
static void more_than_64_steps(void) {
    for (int norm = 0; norm < 2; norm++) {
        ttt_ctx *c = open_ctx();
        ttt_mixer_desc d = { .inner_steps = 100, .inner_lr = REAL(0.01), .no_decoder_norm = !norm };
        layer l = make_layer(c, "mttt-linear", d, 2, 5);
        ttt_tensor *losses, *fused = ttt_mixer_forward(c, &l.d, l.w, l.x, &losses);
        ttt_tensor *without = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        l.d.no_fused = true;
        ttt_tensor *tape = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        CHECK(losses->size == 101 && losses->data[100] < losses->data[0]);
        CHECK(ttt_max_abs_diff(fused, tape) <= 1e-5);
        CHECK(ttt_max_abs_diff(without, tape) <= 1e-5);
        ttt_close(c);
    }
}
// A copy of a learner runs as the learner does; one that is changed runs op by op, and the layers
// that are written for dense learners refuse it.
static ttt_tensor *doubled_predict(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    return ttt_scale(c, ttt_learner_mlp.predict(c, desc, w, x), 2);
}
static void copied_and_changed_learners(void) {
    static const char *const mixers[] = { "mttt-linear", "mttt-mlp" };
    for (int i = 0; i < 4; i++) {
        ttt_ctx *c = open_ctx();
        layer l = make_layer(c, mixers[i % 2], (ttt_mixer_desc){ .inner_steps = 2 }, 2, 5);
        ttt_mixer copy = *l.d.mixer;
        ttt_learner learner = *copy.learner;
        if (i == 3) learner.predict = doubled_predict;
        copy.learner = &learner;
        l.d.mixer = &copy;
        ttt_tensor *fused = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        l.d.no_fused = true;
        CHECK(ttt_max_abs_diff(fused, ttt_mixer_forward(c, &l.d, l.w, l.x, NULL)) <= 1e-5);
        CHECK(ttt_ok(c));
        copy = *ttt_mixer_find("ttt-mlp");
        copy.learner = i == 2 ? NULL : &learner;
        l.d = (ttt_mixer_desc){ .mixer = &copy, .dim = 6, .heads = 2, .inner_lr = 1 };
        ttt_params p = { 0 };
        ttt_mixer_new(c, &l.d, &p, "x");
        CHECK(i < 2 ? ttt_ok(c) : strstr(ttt_error(c), "ttt_learner_mlp expected") != NULL);
        ttt_close(c);
    }
}

static void more_steps_than_memory_holds(void) {
    for (int options = 0; options < 4; options++) {
        ttt_ctx *c = open_ctx();
        ttt_mixer_desc d = { .no_decoder_norm = options & 1, .no_fused = options >> 1 };
        layer l = make_layer(c, "mttt-linear", d, 2, 5);
        l.d.inner_steps = 1 << 30;
        most_bytes = 1 << 28;
        ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        most_bytes = SIZE_MAX;
        CHECK(ttt_status(c) == TTT_ERR_NO_MEMORY);
        CHECK(strstr(ttt_error(c), DOUBLE ? "8589.9 MB" : "4295.0 MB"));
        ttt_close(c);
    }
}

static void rates_per_step_and_learned_agree(void) {
    ttt_ctx *c = open_ctx();
    ttt_real rates[3] = { (ttt_real)0.7, 0, (ttt_real)0.2 };
    ttt_mixer_desc d = { .inner_steps = 3, .inner_lrs = rates };
    layer fixed = make_layer(c, "mttt-linear", d, 1, 5);
    d.learn_rates = true;
    layer learned = make_layer(c, "mttt-linear", d, 1, 5);
    for (int i = 0; i < learned.p.n; i++) {
        ttt_tensor *same = ttt_params_find(&fixed.p, learned.p.item[i].name),
                   *t = learned.p.value[i];
        memcpy(t->data, same ? same->data : rates, (size_t)t->size * sizeof *t->data);
    }
    ttt_tensor *a = ttt_mixer_forward(c, &fixed.d, fixed.w, fixed.x, NULL),
               *b = ttt_mixer_forward(c, &learned.d, learned.w, fixed.x, NULL);
    CHECK(ttt_max_abs_diff(a, b) <= 1e-6);
    ttt_close(c);
}

// ---- meta-learning ------------------------------------------------------------------------------
static ttt_tensor *random_leaf(ttt_ctx *c, ttt_shape s, double mean, double deviation) {
    ttt_tensor *t = ttt_zeros_kept(c, s);
    for (int64_t i = 0; i < t->size; i++)
        t->data[i] = (ttt_real)(mean + deviation * ttt_rng_normal(ttt_ctx_rng(c)));
    return t;
}

// Rows of which one number is 1: the i-th example is of class 2 i modulo the classes.
static ttt_tensor *some_labels(ttt_ctx *c, int64_t n, int64_t classes) {
    ttt_tensor *t = ttt_zeros(c, TTT_SHAPE(n, classes));
    for (int64_t i = 0; i < n; i++) t->data[i * classes + 2 * i % classes] = 1;
    return t;
}

enum { MOST = 16 };
static int add_dense(ttt_ctx *c, ttt_tensor **at, int n, int64_t in, int64_t out) {
    at[n++] = random_leaf(c, TTT_SHAPE(in, out), 0, 0.6);
    at[n++] = random_leaf(c, TTT_SHAPE(out), 0, 0.6);
    return n;
}

typedef struct {
    ttt_tensor *start[MOST], *rate[MOST];  // a rate for every number of each weight
    int n;
    ttt_tensor *support, *query, *support_y, *query_y;
    bool first_order;
} maml;

// The loss on the query set after two steps on the support set.                 [Finn et al. 2017]
static ttt_tensor *maml_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *user) {
    maml *m = user;
    ttt_descent step = { .rates = m->rate, .first_order = m->first_order };
    ttt_weights w = { m->start, m->n };
    (void)x;
    (void)n;
    for (int t = 0; t < 2; t++) {
        ttt_tensor *logits = two_layers(c, ttt_gelu, w, 0, m->support);
        w = ttt_descend(c, &step, w, ttt_cross_entropy(c, logits, m->support_y), NULL);
    }
    return ttt_cross_entropy(c, two_layers(c, ttt_gelu, w, 0, m->query), m->query_y);
}

static void gradients_pass_through_two_steps_of_maml(void) {
    if (!DOUBLE) SKIP("needs the double build");
    ttt_ctx *c = open_ctx();
    maml m = { 0 };
    ttt_tensor *wrt[2 * MOST + 2];
    int n = 0;
    m.n = add_dense(c, m.start, add_dense(c, m.start, 0, 4, 6), 6, 3);
    wrt[n++] = m.support = random_leaf(c, TTT_SHAPE(5, 4), 0, 1);
    wrt[n++] = m.query = random_leaf(c, TTT_SHAPE(7, 4), 0, 1);
    m.support_y = some_labels(c, 5, 3);
    m.query_y = some_labels(c, 7, 3);
    for (int i = 0; i < m.n; i++) {
        wrt[n++] = m.start[i];
        wrt[n++] = m.rate[i] = random_leaf(c, m.start[i]->shape, 0.5, 0.1);
    }
    check_orders(c, "maml", maml_value, wrt, n, &m, 3, 1e-7);
    m.first_order = true;  // another gradient altogether
    CHECK(ttt_check_gradient(c, maml_value, wrt, n, &m, 1, 1e-4) > 1e-3);
    ttt_close(c);
}

enum { BYOL_BATCH = 4, BYOL_WIDTH = 3 };
typedef struct {
    ttt_tensor *start[MOST];
    int n;
    ttt_tensor *x, *views[2], *labels;
    ttt_real home;  // start[0]'s first number where derivatives are asked for
    bool moving;    // let the targets follow what differences move
    ttt_real target[2][2][BYOL_BATCH * BYOL_WIDTH];  // of each step and view, at home
} byol;

// A stop-gradient makes targets constants, but they depend on what differences move. So at home,
// where the analytic derivative is taken, they are computed, detached and kept. Away from home, for
// the differences, they are the kept numbers.
static ttt_tensor *target_of(ttt_ctx *c, byol *b, ttt_weights w, int step, int view) {
    ttt_real *kept = b->target[step][view];
    if (b->start[0]->data[0] != b->home && !b->moving)
        return ttt_from(c, TTT_SHAPE(BYOL_BATCH, BYOL_WIDTH), kept);
    ttt_tensor *t = byol_target(c, ttt_tanh, w, b->views[view], (ttt_real)1e-12);
    if (ttt_ok(c)) memcpy(kept, t->data, sizeof b->target[step][view]);
    return t;
}

// The classifier's loss after two steps of all weights on the agreement of two views.
//                                                                              [Grill et al. 2020]
static ttt_tensor *byol_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *user) {
    byol *b = user;
    ttt_descent step = { .rate = (ttt_real)0.4 };
    ttt_weights w = { b->start, b->n };
    (void)x;
    (void)n;
    for (int t = 0; t < 2; t++) {
        ttt_tensor *target[2] = { target_of(c, b, w, t, 0), target_of(c, b, w, t, 1) };
        ttt_tensor *loss = byol_loss(c, ttt_tanh, w, b->views, target, REAL(1e-12));
        w = ttt_descend(c, &step, w, loss, NULL);
    }
    return ttt_cross_entropy(c, byol_classify(c, ttt_tanh, w, b->x), b->labels);
}

static void gradients_pass_through_two_steps_of_byol(void) {
    if (!DOUBLE) SKIP("needs the double build");
    ttt_ctx *c = open_ctx();
    byol b = { 0 };
    static const int64_t sizes[6][2] = { { 4, 5 },          { 5, 4 },          { 4, BYOL_WIDTH },
                                         { BYOL_WIDTH, 5 }, { 5, BYOL_WIDTH }, { 4, 3 } };
    ttt_tensor *wrt[MOST + 3];
    int n = 0;
    for (int i = 0; i < 6; i++) b.n = add_dense(c, b.start, b.n, sizes[i][0], sizes[i][1]);
    for (int i = 0; i < b.n; i++) wrt[n++] = b.start[i];
    for (int i = 0; i < 2; i++)
        wrt[n++] = b.views[i] = random_leaf(c, TTT_SHAPE(BYOL_BATCH, 4), 0, 1);
    wrt[n++] = b.x = random_leaf(c, TTT_SHAPE(BYOL_BATCH, 4), 0, 1);
    b.labels = some_labels(c, BYOL_BATCH, 3);
    b.home = b.start[0]->data[0];
    check_orders(c, "byol", byol_value, wrt, n, &b, 3, 1e-7);
    b.moving = true;  // differences see what a stop-gradient hides
    CHECK(ttt_check_gradient(c, byol_value, wrt, n, &b, 1, 1e-4) > 1e-3);
    ttt_close(c);
}

// ---- the equivalence ----------------------------------------------------------------------------
// One full-batch step of size eta from W0 = 0, without bias and norm, is linear attention with
// identity map and constant normalizer: query psi, key phi, value eta [g_1^T ..], value bias -eta
// b_g g^T, out h.
static void mttt_linear_is_linear_attention(void) {
    ttt_ctx *c = open_ctx();
    int D = 6, H = 2, h = 3;
    ttt_real eta = (ttt_real)0.5;
    ttt_mixer_desc learner = { .inner_lr = eta, .no_inner_bias = true, .no_decoder_norm = true };
    layer l = make_layer(c, "mttt-linear", learner, 2, 5);
    ttt_tensor *w0 = ttt_params_find(&l.p, "layer/inner_Dense_0/kernel");
    memset(w0->data, 0, (size_t)w0->size * sizeof *w0->data);
    ttt_mixer_desc attention = { .identity_map = true, .normalizer = TTT_NORMALIZER_CONSTANT };
    layer a = make_layer(c, "linear-attention", attention, 2, 5);
    for (int head = 0; head < H; head++)
        for (int i = 0; i < h; i++) {
            double bias = 0;
            for (int j = 0; j < D; j++) {
                ttt_params_find(&a.p, "layer/query/kernel")->data[j * D + head * h + i] =
                    (ttt_real)at(&l, "psi/kernel", (head * D + j) * h + i);
                ttt_params_find(&a.p, "layer/key/kernel")->data[j * D + head * h + i] =
                    (ttt_real)at(&l, "phi/kernel", (head * D + j) * h + i);
                ttt_params_find(&a.p, "layer/value/kernel")->data[j * D + head * h + i] =
                    (ttt_real)((double)eta * at(&l, "g/kernel", (head * h + i) * D + j));
                ttt_params_find(&a.p, "layer/proj/kernel")->data[(head * h + i) * D + j] =
                    (ttt_real)at(&l, "h/kernel", (head * h + i) * D + j);
                bias -=
                    (double)eta * at(&l, "g_bias", j) * at(&l, "g/kernel", (head * h + i) * D + j);
            }
            ttt_params_find(&a.p, "layer/query/bias")->data[head * h + i] =
                (ttt_real)at(&l, "psi/bias", head * h + i);
            ttt_params_find(&a.p, "layer/key/bias")->data[head * h + i] =
                (ttt_real)at(&l, "phi/bias", head * h + i);
            ttt_params_find(&a.p, "layer/value/bias")->data[head * h + i] = (ttt_real)bias;
        }
    for (int j = 0; j < D; j++)
        ttt_params_find(&a.p, "layer/proj/bias")->data[j] = (ttt_real)at(&l, "h_bias", j);
    a.x = l.x;
    ttt_tensor *gl, *yl = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
    ttt_tensor *ga, *ya = ttt_mixer_forward(c, &a.d, a.w, a.x, NULL);
    CHECK(ttt_max_abs_diff(yl, ya) <= (DOUBLE ? 1e-13 : 1e-5));
    ttt_grad(c, layer_value(c, NULL, 0, &l), &l.x, 1, &gl, TTT_GRAD_FIRST_ORDER);
    ttt_grad(c, layer_value(c, NULL, 0, &a), &a.x, 1, &ga, TTT_GRAD_FIRST_ORDER);
    CHECK(ttt_max_abs_diff(gl, ga) <= (DOUBLE ? 1e-12 : 1e-4));
    ttt_close(c);
}

// ---- attention ----------------------------------------------------------------------------------
static void attention_equals_loops_by_hand(void) {
    ttt_ctx *c = open_ctx();
    enum { B = 2, N = 5, D = 6, H = 2, h = 3 };
    // Softmax; then linear, with elu or the identity, adaptive or constant.
    for (int kind = 0; kind < 5; kind++) {
        ttt_mixer_desc d = { .identity_map = kind >= 3 };
        if (kind && kind % 2 == 0) d.normalizer = TTT_NORMALIZER_CONSTANT;
        layer l = make_layer(c, kind ? "linear-attention" : "self-attention", d, B, N);
        ttt_tensor *got = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        double q[N][D], k[N][D], v[N][D], y[N][D];
        double (*const to[3])[D] = { q, k, v };
        for (int b = 0; b < B; b++) {
            for (int n = 0; n < N; n++)
                for (int j = 0; j < D; j++)
                    for (int which = 0; which < 3; which++) {
                        double s = (double)l.w.at[2 * which + 1]->data[j];
                        for (int i = 0; i < D; i++)
                            s += (double)l.x->data[(b * N + n) * D + i] *
                                 (double)l.w.at[2 * which]->data[i * D + j];
                        if (kind && !d.identity_map && which < 2) s = s > 0 ? s + 1 : exp(s);
                        to[which][n][j] = s;
                    }
            memset(y, 0, sizeof y);
            for (int head = 0; head < H; head++)
                for (int n = 0; n < N; n++) {
                    double a[N], sum = 0;
                    for (int m = 0; m < N; m++) {
                        a[m] = 0;
                        for (int i = head * h; i < head * h + h; i++) a[m] += q[n][i] * k[m][i];
                        if (!kind) a[m] = exp(a[m] / sqrt(h));
                        sum += a[m];
                    }
                    if (kind && d.normalizer == TTT_NORMALIZER_CONSTANT) sum = N * h;
                    for (int m = 0; m < N; m++)
                        for (int i = head * h; i < head * h + h; i++)
                            y[n][i] += a[m] / sum * v[m][i];
                }
            for (int n = 0; n < N; n++)
                for (int j = 0; j < D; j++) {
                    double s = (double)l.w.at[7]->data[j], scale = 1;
                    for (int i = 0; i < D; i++) {
                        s += y[n][i] * (double)l.w.at[6]->data[i * D + j];
                        scale += fabs(y[n][i]);
                    }
                    CHECK(fabs(s - (double)got->data[(b * N + n) * D + j]) <
                          (DOUBLE ? 1e-12 : 1e-5) * scale);
                }
        }
    }
    ttt_close(c);
}

static void none_gives_zero(void) {
    ttt_ctx *c = open_ctx();
    layer l = make_layer(c, "none", (ttt_mixer_desc){ 0 }, 1, 3);
    ttt_tensor *y = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
    for (int64_t i = 0; i < y->size; i++) CHECK(y->data[i] == 0);
    CHECK(ttt_ok(c) && l.p.n == 0);
    ttt_close(c);
}

// d = 384, H = 6, N = 196: 318 and 250 million multiply-adds.
static void flops_of_the_papers_layers(void) {
    ttt_mixer_desc d = { .mixer = ttt_mixer_find("mttt-linear"), .dim = 384, .heads = 6 };
    CHECK(fabs(d.mixer->flops(&d, 196) / (2 * 196 * (5. * 384 * 384 + 3. * 384 * 64)) - 1) < 1e-12);
    d.mixer = ttt_mixer_find("mttt-mlp");
    double flops = 2 * 196 * (5. * 384 * 384 + 28. * 384 * 64);
    CHECK(fabs(d.mixer->flops(&d, 196) / flops - 1) < 1e-12);
    d.mixer = ttt_mixer_find("linear-attention");
    CHECK(fabs(d.mixer->flops(&d, 196) / (2 * 196 * (4. * 384 * 384 + 2. * 384 * 64)) - 1) < 1e-12);
}

// ---- a learner of one's own ---------------------------------------------------------------------
static ttt_tensor *quadratic_predict(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    (void)desc;
    return ttt_add(c, ttt_matmul(c, x, w.at[0]), ttt_matmul(c, ttt_square(c, x), w.at[1]));
}
static ttt_tensor *half_squares(ttt_ctx *c, const void *arg, ttt_tensor *prediction,
                                ttt_tensor *label) {
    (void)arg;
    return ttt_scale(c, ttt_sum(c, ttt_square(c, ttt_sub(c, prediction, label))), (ttt_real)0.5);
}
static void a_learner_of_ones_own_learns(void) {
    static const ttt_param_row rows[] = {
        { "a", "H h h", TTT_INIT_XAVIER, "h", "h", TTT_PARAM_INNER, 0 },
        { "b", "H h h", TTT_INIT_ZERO, NULL, NULL, TTT_PARAM_INNER, 0 }
    };
    static const ttt_learner quadratic = { "quadratic", rows, 2, quadratic_predict, 2 };
    ttt_ctx *c = open_ctx();
    ttt_params p = { 0 };
    ttt_sizes s = { { 0 } };
    s.of['H'] = 2;
    s.of['h'] = 3;
    ttt_real rates[4] = { (ttt_real)0.01, (ttt_real)0.01, (ttt_real)0.01, (ttt_real)0.01 };
    ttt_weights w0 = ttt_params_add(c, rows, 2, 0, &s, &p, "learner");
    ttt_tensor *losses, *g;
    ttt_inner in = { .learner = &quadratic, .loss = half_squares, .steps = 4, .rates = rates };
    in.train = ttt_randn(c, TTT_SHAPE(2, 2, 10, 3));
    in.label = ttt_randn(c, TTT_SHAPE(2, 2, 10, 3));
    ttt_weights w = ttt_inner_loop(c, &in, w0, &losses);
    CHECK(ttt_ok(c) && w.n == 2);
    CHECK(losses->data[4] < losses->data[0]);
    ttt_tensor *sum = ttt_sum(c, ttt_square(c, w.at[1]));
    CHECK(ttt_grad(c, sum, &w0.at[0], 1, &g, TTT_GRAD_FIRST_ORDER) == TTT_OK);
    double most = 0;
    for (int64_t i = 0; i < g->size; i++) most = fmax(most, fabs((double)g->data[i]));
    CHECK(most > 0);
    ttt_close(c);
}

// ---- errors -------------------------------------------------------------------------------------
static void expect_error(ttt_mixer_desc d, int64_t N, ttt_result r, const char *word) {
    ttt_ctx *c = open_ctx();
    ttt_params p = { 0 };
    ttt_weights w = ttt_mixer_new(c, &d, &p, "layer");
    if (ttt_ok(c)) ttt_mixer_forward(c, &d, w, ttt_randn(c, TTT_SHAPE(1, N, 6)), NULL);
    if (ttt_status(c) != r || !strstr(ttt_error(c), word)) printf("  got: %s\n", ttt_error(c));
    CHECK(ttt_status(c) == r);
    CHECK(strstr(ttt_error(c), word) != NULL);
    ttt_close(c);
}
static void wrong_descriptions_name_the_field(void) {
    const ttt_mixer *m = ttt_mixer_find("mttt-linear");
    expect_error((ttt_mixer_desc){ .dim = 6, .heads = 2 }, 4, TTT_ERR_UNSET, ".mixer");
    ttt_mixer_desc good = { .mixer = m, .dim = 6, .heads = 2, .inner_lr = 1 }, d = good;
    d.dim = 0;
    expect_error(d, 4, TTT_ERR_UNSET, ".dim");
    d = good, d.heads = 4;
    expect_error(d, 4, TTT_ERR_ARGUMENT, ".heads");
    d = good, d.inner_lr = 0;
    expect_error(d, 4, TTT_ERR_UNSET, ".inner_lr");
    d = good, d.inner_steps = -1;
    expect_error(d, 4, TTT_ERR_ARGUMENT, ".inner_steps");
    d = good, d.inner_steps = 3, d.inner_sgd = true;
    expect_error(d, 4, TTT_ERR_SHAPE, "inner_steps");
    d = good, d.dim = 12;
    expect_error(d, 4, TTT_ERR_SHAPE, "(1,4,6)");
    CHECK(ttt_mixer_find("nonsense") == NULL);
}

// Parameters made for one description and used with another.
static void parameters_that_do_not_fit_are_refused(void) {
    static const struct {
        const char *mixer;
        ttt_mixer_desc made, used;
        const char *word;
    } all[] = {
        { "mttt-mlp", { .no_inner_bias = true }, { 0 }, "inner_Dense_0/bias" },
        { "mttt-mlp", { 0 }, { .no_inner_bias = true }, "inner_Dense_1/kernel" },
        { "mttt-linear", { 0 }, { .no_decoder_norm = true }, "inner_Dense_0/kernel" },
        { "mttt-linear",
          { .learn_rates = true },
          { .learn_rates = true, .inner_steps = 3 },
          "inner_lr" },
        { "self-attention", { 0 }, { .heads = 3 }, "query/kernel" },
        { "mttt-linear", { 0 }, { .heads = 1 }, "phi/kernel" },
        { "mttt-linear", { .no_inner_bias = true }, { 0 }, "inner_Dense_0/bias is absent" },
        { "mttt-linear", { 0 }, { .no_inner_bias = true }, "1 weights more than the 11" },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ttt_ctx *c = open_ctx();
        layer l = make_layer(c, all[i].mixer, all[i].made, 1, 4);
        ttt_mixer_desc d = all[i].used;
        d.mixer = l.d.mixer;
        d.dim = 6;
        d.inner_lr = l.d.inner_lr;
        if (!d.heads) d.heads = 2;
        ttt_mixer_forward(c, &d, l.w, l.x, NULL);
        CHECK(ttt_status(c) == TTT_ERR_SHAPE && strstr(ttt_error(c), all[i].word));
        ttt_close(c);
    }
}

// Sizes that no tensor has and numbers that name nothing: an error that says what was expected, and
// never an empty tensor, or a small one, without an error.
#define SIZES_OUT_OF_RANGE(X)                                                                      \
    X("sincos2d", ttt_sincos2d(c, WIDE, WIDE, 8)->size)                                            \
    X("sincos2d", ttt_sincos2d(c, HUGE_SIZE, 4, 8)->size)                                          \
    X("sincos2d", ttt_sincos2d(c, HUGE_SIZE, 1, 8)->size)                                          \
    X("sincos2d", ttt_sincos2d(c, INT64_MAX, INT64_MAX, INT64_MAX - 3)->size)                      \
    X("sincos2d", ttt_sincos2d(c, -1, -1, 8)->size)                                                \
    X("sincos2d", ttt_sincos2d(c, 0, 2, 8)->size)                                                  \
    X("sincos2d", ttt_sincos2d(c, 2, 2, 0)->size)                                                  \
    X("sincos2d", ttt_sincos2d(c, 2, 2, INT64_MIN)->size)                                          \
    X("sincos2d", ttt_sincos2d(c, 2, 2, 6)->size)                                                  \
    X("split_heads", ttt_split_heads(c, x, 0)->size)                                               \
    X("split_heads", ttt_split_heads(c, x, -2)->size)                                              \
    X("split_heads", ttt_split_heads(c, x, 3)->size)                                               \
    X("split_heads", ttt_split_heads(c, x, INT64_MAX)->size)                                       \
    X("split_heads", ttt_split_heads(c, x, INT64_MIN)->size)                                       \
    X("split_heads", ttt_split_heads(c, ttt_reshape(c, x, TTT_SHAPE(24)), 2)->size)                \
    X("join_heads", ttt_join_heads(c, x)->size)                                                    \
    X("a/kernel", ttt_dense_new(c, WIDE, WIDE, TTT_INIT_XAVIER, &p, "a").n)                        \
    X("a/kernel", ttt_dense_new(c, 2, 2, (ttt_init)99, &p, "a").n)                                 \
    X("a/kernel", ttt_dense_new(c, 2, 2, (ttt_init)-1, &p, "a").n)                                 \
    X("a/scale", ttt_layer_norm_new(c, HUGE_SIZE, &p, "a").n)                                      \
    X("a/Dense_0/kernel", ttt_mlp_new(c, INT64_MAX, INT64_MAX, &p, "a").n)                         \
    X("a/kernel", ttt_patch_embed_new(c, WIDE, WIDE, WIDE, &p, "a").n)                             \
    X("a/kernel", ttt_patch_embed_new(c, HUGE_SIZE, 4, 1, &p, "a").n)
static void sizes_and_names_out_of_range_are_errors(void) {
    const int64_t HUGE_SIZE = (int64_t)1 << 62, WIDE = (int64_t)1 << 32;
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = ttt_randn(c, TTT_SHAPE(2, 3, 4));
    ttt_params p = { 0 };
#define X(name, call)                                                              \
    {                                                                              \
        int64_t size = (int64_t)(call);                                            \
        size_t n = strlen(name);                                                   \
        bool named = !strncmp(ttt_error(c), name, n) && ttt_error(c)[n] == ':' &&  \
                     strstr(ttt_error(c), "expected");                             \
        if (!named) printf("  %s: \"%s\"\n", #call, ttt_error(c));                 \
        CHECK(named && size == 0 && p.n == 0);                                     \
        ttt_clear(c);                                                              \
    }
    SIZES_OUT_OF_RANGE(X)
#undef X
    ttt_close(c);
}

static void only_living_real_tensors_are_mixed(void) {
    for (int m = 0; ttt_mixer_at(m); m++) {
        ttt_ctx *c = open_ctx();
        const int64_t whole[6] = { 0 };
        layer l = make_layer(c, ttt_mixer_at(m)->name, (ttt_mixer_desc){ 0 }, 1, 4);
        ttt_mixer_forward(c, &l.d, l.w, ttt_from_int(c, TTT_SHAPE(1, 1, 6), whole), NULL);
        CHECK(ttt_status(c) == TTT_ERR_ARGUMENT && strstr(ttt_error(c), ttt_mixer_at(m)->name));
        ttt_clear(c);
        ttt_mark mark = ttt_mark_get(c);
        ttt_tensor *gone = ttt_randn(c, TTT_SHAPE(1, 4, 6));
        ttt_mark_release(c, mark);
        ttt_mixer_forward(c, &l.d, l.w, gone, NULL);
        CHECK(ttt_status(c) == TTT_ERR_RELEASED);
        ttt_close(c);
    }
}

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(parameters_have_the_shapes_and_names_of_the_official_code),
        T(options_leave_parameters_out),
        T(initializers_have_the_spread_they_promise),
        T(initial_values_depend_on_seed_and_name_only),
        T(embedding_is_a_strided_convolution),
        T(positions_follow_the_formula),
        T(layer_norm_has_mean_zero_and_variance_one),
        T(elu1_is_elu_plus_one), T(slopes_at_zero_are_those_of_the_function),
        T(mttt_linear_equals_loops_by_hand),
        T(fused_layers_equal_their_definition),
        T(fused_layers_of_unusual_sizes),
        T(memories_of_tokens_equal_their_tape),
        T(learners_in_chunks_equal_their_definition),
        T(learners_of_any_head_size_equal_their_definition),
        T(rotations_depend_on_the_place_in_the_chunk),
        T(fused_gated_units_equal_their_definition),
        T(fused_attention_equals_its_definition),
        T(a_query_meets_few_keys_on_any_grid),
        T(flops_count_the_pairs_that_see_each_other),
        T(what_is_fused_row_by_row_equals_its_definition),
        T(what_is_fused_row_by_row_counts_its_flops),
        T(what_is_fused_row_by_row_keeps_what_others_promise),
        T(fused_norms_reach_the_largest_numbers),
        T(the_number_of_threads_changes_no_bit),
        T(memory_may_run_out_anywhere),
        T(any_gradient_may_be_asked_for_alone_or_added),
        T(one_tensor_may_be_several_parameters),
        T(inner_losses_of_fused_layers_are_not_differentiated),
        T(second_order_through_recomputed_fused_layers),
        T(empty_sequences_and_batches),
        T(gradients_pass_through_inner_steps_to_order_4),
        T(gradients_of_every_mixer_and_option),
        T(outer_gradients_need_the_inner_ones),
        T(gradients_pass_through_two_steps_of_maml),
        T(gradients_pass_through_two_steps_of_byol),
        T(inner_steps_lower_the_inner_loss),
        T(more_than_64_steps),
        T(more_steps_than_memory_holds),
        T(copied_and_changed_learners),
        T(rates_per_step_and_learned_agree),
        T(mttt_linear_is_linear_attention),
        T(attention_equals_loops_by_hand),
        T(none_gives_zero),
        T(flops_of_the_papers_layers),
        T(a_learner_of_ones_own_learns),
        T(wrong_descriptions_name_the_field),
        T(parameters_that_do_not_fit_are_refused),
        T(sizes_and_names_out_of_range_are_errors),
        T(only_living_real_tensors_are_mixed),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
