// Tests of the ops of ttt_tensor.h: their values on every instruction set, their derivatives, and
// the types that are stored. Products have their own file, test_products.c.
#include "tensor_test.h"
#include <limits.h>

// ---- every row of the op table ------------------------------------------------------------------
static void every_op_has_right_derivatives(void) {
    int rows = 0;
    for (op_inputs in; op_example(NULL, rows, NULL, &in), in.n; rows++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 3 });
        const ttt_op *op = ttt_op_table(rows);
        CHECK(op != NULL);
        if (!op) break;
        ttt_tensor *x[2];
        for (int i = 0; i < in.n; i++)
            x[i] = ttt_uniform(c, in.shape[i], REAL(op->lo), REAL(op->hi));
        CHECK(op_example(c, rows, x, &in)->op == op);
        check_orders(c, op->name, op_value, x, in.n, &rows, 2);
        CLOSE(c);
    }
    CHECK(rows > 40 && ttt_op_table(rows) == NULL && ttt_op_table(-1) == NULL);
}

// The recorded gradient and the fast one are the same numbers, for every op.
static void every_op_has_one_gradient(void) {
    ttt_ctx *c = open_ctx();
    for (int row = 0; ttt_op_table(row); row++) {
        const ttt_op *op = ttt_op_table(row);
        op_inputs in;
        op_example(NULL, row, NULL, &in);
        ttt_tensor *x[2], *fast[2], *recorded[2];
        for (int i = 0; i < in.n; i++)
            x[i] = ttt_uniform(c, in.shape[i], REAL(op->lo), REAL(op->hi));
        ttt_tensor *y = op_value(c, x, in.n, &row);
        ttt_grad(c, y, x, in.n, fast, TTT_GRAD_FIRST_ORDER);
        ttt_grad(c, y, x, in.n, recorded, TTT_GRAD_RECORD);
        for (int i = 0; i < in.n; i++) CHECK(difference(fast[i], recorded[i]) <= 4 * EPS);
    }
    CLOSE(c);
}

// ---- two operands, broadcast --------------------------------------------------------------------
typedef ttt_tensor *binary(ttt_ctx *c, ttt_tensor *a, ttt_tensor *b);
static const struct {
    const char *name;
    binary *op;
} binaries[] = {
#define X(name, formula, lo, hi, flops) { #name, ttt_##name },
    TTT_BINARY_OPS(X)
#undef X
};
static double binary_reference(const char *name, double a, double b) {
    if (!strcmp(name, "add")) return a + b;
    if (!strcmp(name, "sub")) return a - b;
    if (!strcmp(name, "mul")) return a * b;
    if (!strcmp(name, "div")) return a / b;
    return (double)NAN;
}
static ttt_tensor *call_binary(ttt_ctx *c, ttt_tensor *const *in, const void *i) {
    return binaries[*(const int *)i].op(c, in[0], in[1]);
}
static ttt_tensor *binary_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *i) {
    (void)n;
    return weigh(c, call_binary(c, x, i));
}

static void operands_broadcast_in_all_patterns(void) {
    const ttt_shape pattern[][3] = {
        { SCALAR, SCALAR, SCALAR },
        { TTT_SHAPE(2, 3), TTT_SHAPE(2, 3), TTT_SHAPE(2, 3) },
        { TTT_SHAPE(2, 3), SCALAR, TTT_SHAPE(2, 3) },
        { SCALAR, TTT_SHAPE(2, 3), TTT_SHAPE(2, 3) },
        { TTT_SHAPE(2, 3), TTT_SHAPE(3), TTT_SHAPE(2, 3) },              // a row
        { TTT_SHAPE(2, 1), TTT_SHAPE(2, 3), TTT_SHAPE(2, 3) },           // a column
        { TTT_SHAPE(4, 1), TTT_SHAPE(1, 5), TTT_SHAPE(4, 5) },           // both
        { TTT_SHAPE(2, 1, 4), TTT_SHAPE(2, 3, 4), TTT_SHAPE(2, 3, 4) },  // a middle axis
        { TTT_SHAPE(1, 3, 1), TTT_SHAPE(2, 3, 4), TTT_SHAPE(2, 3, 4) },  // all but the middle
        { TTT_SHAPE(2, 1, 3, 1), TTT_SHAPE(4, 1, 5), TTT_SHAPE(2, 4, 3, 5) },
        { TTT_SHAPE(1), TTT_SHAPE(1, 1, 1), TTT_SHAPE(1, 1, 1) },
        { TTT_SHAPE(3, 1), TTT_SHAPE(35), TTT_SHAPE(3, 35) },            // some vectors and a rest
        { TTT_SHAPE(2, 1, 1, 1, 1, 1, 1, 2), TTT_SHAPE(2, 1, 2, 1, 2, 1),
          TTT_SHAPE(2, 1, 2, 1, 2, 1, 2, 2) },
        { TTT_SHAPE(0, 3), TTT_SHAPE(1, 3), TTT_SHAPE(0, 3) },           // nothing
    };
    sets s = sets_open();
    for (int p = 0; p < COUNT(pattern); p++)
        for (int op = 0; op < COUNT(binaries); op++) {
            ttt_ctx *c = s.c[0];
            ttt_mark m = ttt_mark_get(c);
            ttt_shape all = pattern[p][2];
            ttt_tensor *x[2] = { ttt_uniform(c, pattern[p][0], REAL(0.5), 2),
                                 ttt_uniform(c, pattern[p][1], REAL(0.5), 2) };
            for (int64_t i = 0; i < ttt_shape_size(all); i++) {
                want[i] = binary_reference(binaries[op].name,
                                           (double)x[0]->data[place(x[0]->shape, all, i)],
                                           (double)x[1]->data[place(x[1]->shape, all, i)]);
                room[i] = EPS * fabs(want[i]);
            }
            check_sets(&s, binaries[op].name, all, call_binary, x, 2, &op);
            if (ttt_shape_size(all)) check_orders(c, binaries[op].name, binary_value, x, 2, &op, 2);
            ttt_mark_release(c, m);
        }
    sets_close(&s);
}

// ---- functions of one number --------------------------------------------------------------------
// REF(name, formula in double, bound, nudge): the error stays below `bound` ulps of the result, as
// if the argument had been off by `nudge` ulps at most (of 2^-24, relative). The nudge counts where
// the result says much about the last digit of the argument: at a root, and where an exponent
// u(a) was rounded. It is 0 where correct digits are asked for everywhere. Bounds hold for 70
// million bit patterns in all instruction sets, on glibc (the scalar set calls libm).
typedef struct {
    const char *name;
    ttt_tensor *(*op)(ttt_ctx *c, ttt_tensor *a);
    double (*ref)(double a);
    double bound, nudge;
} unary;
#define REF(name, formula, bound, nudge)                     \
    static double ref_##name(double a) { return formula; }   \
    static const unary unary_##name = { #name, ttt_##name, ref_##name, bound, nudge };
// The density of a normal number.
static double density(double a) { return exp(-a * a / 2) * 0.3989422804014327; }
// a p, or its limit where p has died out.
static double damp(double a, double p) { return p == 0 ? 0 : a * p; }
static double gelu_u(double a) { return 1.5957691216057308 * (a + 0.044715 * a * a * a); }
static double gelu_ddu(double a) { return 1.5957691216057308 * 6 * 0.044715 * a; }
static double gelu_du(double a) { return 1.5957691216057308 * (1 + 3 * 0.044715 * a * a); }
REF(exp, exp(a), 1.15, 0)
REF(log, log(a), 0.9, 0)
REF(tanh, tanh(a), 2.4, 0)
REF(sigmoid, a < 0 ? exp(a) / (1 + exp(a)) : 1 / (1 + exp(-a)), 2.6, 0)
static double sigmoid_d2(double a) {
    return ref_sigmoid(a) * ref_sigmoid(-a) * (ref_sigmoid(-a) - ref_sigmoid(a));
}
REF(sigmoid_d1, ref_sigmoid(a) * ref_sigmoid(-a), 6.2, 0)
REF(softplus, (a > 0 ? a : 0) + log1p(exp(-fabs(a))), 1.8, 0)
REF(gauss, exp(-a * a), 3.5, 0)
REF(erf, erf(a), 1.55, 0)
REF(abs, fabs(a), 0, 0)
REF(sign, a > 0 ? 1 : a < 0 ? -1 : 0, 0, 0)
REF(relu, a < 0 ? 0 : a, 0, 0)
REF(heaviside, a > 0 ? 1 : 0, 0, 0)
REF(square, a * a, 0.5, 0)
REF(sqrt, sqrt(a), 0.5, 0)
REF(rsqrt, 1 / sqrt(a), 1.5, 0)
REF(reciprocal, 1 / a, 0.5, 0)
REF(gelu, damp(a, ref_sigmoid(gelu_u(a))), 4, 3)
REF(gelu_d1, ref_sigmoid(gelu_u(a)) + damp(a * gelu_du(a), ref_sigmoid_d1(gelu_u(a))), 6, 4)
REF(gelu_d2,
    damp(2 * gelu_du(a) + a * gelu_ddu(a), ref_sigmoid_d1(gelu_u(a))) +
        damp(a * gelu_du(a) * gelu_du(a), sigmoid_d2(gelu_u(a))),
    14.5, 8)
REF(gelu_erf, damp(a, erfc(-a / sqrt(2)) / 2), 9, 0)
REF(gelu_erf_d1, erfc(-a / sqrt(2)) / 2 + damp(a, density(a)), 4.6, 3)
REF(gelu_erf_d2, damp(2 - a * a, density(a)), 6, 0)
REF(silu, damp(a, ref_sigmoid(a)), 5, 0)
REF(silu_d1, ref_sigmoid(a) + damp(a, ref_sigmoid_d1(a)), 6, 3)
REF(silu_d2, 2 * ref_sigmoid_d1(a) + damp(a, sigmoid_d2(a)), 7, 3)

static const unary *const unaries[] = {
#define X(name, formula, lo, hi, flops) &unary_##name,
    TTT_UNARY_OPS(X)
#undef X
};

static double ulp_of(double y) {
    y = fabs(y);
    if (DOUBLE) return y < DBL_MIN ? ldexp(1, -1074) : nextafter(y, 2 * y) - y;
    if (y < (double)FLT_MIN) return ldexp(1, -149);
    int e;
    frexp(y, &e);
    return ldexp(1, e - 24);
}

static ttt_tensor *call_unary(ttt_ctx *c, ttt_tensor *const *in, const void *u) {
    return ((const unary *)u)->op(c, in[0]);
}

// a y', by a difference.
static double steepness(const unary *u, double a) {
    double d = (u->ref(a * (1 + 1e-5)) - u->ref(a * (1 - 1e-5))) / 2e-5;
    return isfinite(d) ? fabs(d) : 0;
}

// want and room for u at the numbers x. A reference beyond the largest number wants infinity. In
// double the formula itself errs, like one whose argument is off by four ulps and whose tail loses
// digits below 1e-300; there the table of known values is the sharper test.
static void expect_unary(const unary *u, const ttt_tensor *x) {
    for (int64_t i = 0; i < x->size; i++) {
        double a = (double)x->data[i], y = u->ref(a), rounded = (double)(ttt_real)y;
        double nudge = u->nudge + (DOUBLE && u->bound > 1.6 ? 4 : 0);
        want[i] = isinf(rounded) ? rounded : y;
        room[i] = u->bound * (DOUBLE ? 2 : 1) * ulp_of(y) + (DOUBLE && u->bound > 1.6 ? 1e-300 : 0);
        if (nudge > 0) room[i] += nudge * EPS / 2 * steepness(u, a);
        if (isinf(rounded)) room[i] = 0;
    }
}

// Bit patterns of floats, spread evenly: every binade, sign and subnormal is visited.
static void functions_are_accurate_over_the_whole_range(void) {
    enum { BATCH = 1 << 16 };
    sets s = sets_open();
    uint32_t bits = 0;
    for (int batch = 0; batch < 16; batch++) {
        ttt_mark m = ttt_mark_get(s.c[0]);
        ttt_tensor *x = ttt_new(s.c[0], TTT_SHAPE(BATCH));
        for (int i = 0; i < BATCH; i++) {
            float f;
            do {
                bits += 4093;  // 2^32 / 2^20, made a prime
                memcpy(&f, &bits, 4);
            } while (!(f - f == 0));
            x->data[i] = REAL(f);
        }
        for (int u = 0; u < COUNT(unaries); u++) {
            expect_unary(unaries[u], x);
            check_sets(&s, unaries[u]->name, x->shape, call_unary, &x, 1, unaries[u]);
        }
        ttt_mark_release(s.c[0], m);
    }
    sets_close(&s);
}

// What libm says in double, or the limit.
static void functions_of_special_values(void) {
    const double max = (double)FLT_MAX, min = (double)FLT_MIN, inf = (double)INFINITY;
    const double special[] = { (double)NAN, inf, -inf, 0.0, -0.0, 1, -1, max, -max, 1e19, -1e19,
                               2e19, -2e19, 1e-20, min, -min, 1e-40, -1e-40, 1.4e-45, -1.4e-45,
                               88.72283, 88.73, -103.97, -104 };
    sets s = sets_open();
    ttt_tensor *x = row_of(s.c[0], COUNT(special), special);
    for (int u = 0; u < COUNT(unaries); u++) {
        expect_unary(unaries[u], x);
        check_sets(&s, unaries[u]->name, x->shape, call_unary, &x, 1, unaries[u]);
        for (int i = 0; i < s.n; i++) {
            ttt_tensor *y = unaries[u]->op(s.c[i], copy(s.c[i], x));
            for (int k = 3; k < 5; k++) {  // zeros keep the sign the formula gives
                bool minus = signbit(unaries[u]->ref(special[k])) != 0;
                bool good = (signbit(y->data[k]) != 0) == minus;
                if (!good)
                    printf("  %s: the sign of %s(%g)\n", ttt_isa(s.c[i]), unaries[u]->name,
                           special[k]);
                CHECK(good);
            }
        }
    }
    sets_close(&s);
}

// Values and two derivatives, by the walk, against 60 digits.
typedef struct {
    const char *name;
    float at;
    double y[4];  // and derivatives; the last only says how steep the one before it is
} known_value;
static const known_value known_values[] = {
#define F(name, a, y, y1, y2, y3) { #name, (float)(a), { y, y1, y2, y3 } },
#include "functions.h"
#undef F
};
static void check_known(ttt_ctx *c, const unary *u, const known_value *known) {
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(1), REAL(known->at)), *y = u->op(c, x);
    for (int order = 0; order < 3; order++) {
        char text[100];
        double exact = known->y[order], a = (double)known->at;
        want[0] = exact > 1 || exact < -1 ? (double)(ttt_real)exact : exact;
        room[0] = 8 * ulp_of(exact) + 4 * EPS / 2 * fabs(a * known->y[order + 1]);
        if (isinf(want[0])) room[0] = 0;
        snprintf(text, sizeof text, "%s of %g, derivative %d, %s", u->name, a, order, ttt_isa(c));
        check_within(text, y);
        if (order < 2)
            ttt_grad(c, ttt_sum(c, y), &x, 1, &y, order ? TTT_GRAD_FIRST_ORDER : TTT_GRAD_RECORD);
    }
}
static void functions_and_derivatives_equal_60_digits(void) {
    sets s = sets_open();
    for (int i = 0; i < s.n; i++)
        for (int k = 0; k < COUNT(known_values); k++) {
            ttt_mark m = ttt_mark_get(s.c[i]);
            int u = 0;
            while (strcmp(unaries[u]->name, known_values[k].name)) u++;
            check_known(s.c[i], unaries[u], &known_values[k]);
            ttt_mark_release(s.c[i], m);
        }
    sets_close(&s);
}

// The limits of the derivatives, where these have one.
static void derivatives_at_infinity_are_limits(void) {
    static const struct {
        const char *name;
        double slope[2];  // at -infinity and at +infinity; all second derivatives tend to 0
    } limits[] = { { "tanh", { 0, 0 } }, { "sigmoid", { 0, 0 } },  { "sigmoid_d1", { 0, 0 } },
                   { "gauss", { 0, 0 } }, { "erf", { 0, 0 } },     { "softplus", { 0, 1 } },
                   { "gelu", { 0, 1 } },  { "gelu_d1", { 0, 0 } }, { "gelu_d2", { 0, 0 } },
                   { "silu", { 0, 1 } },  { "silu_d1", { 0, 0 } }, { "silu_d2", { 0, 0 } },
                   { "gelu_erf", { 0, 1 } }, { "gelu_erf_d1", { 0, 0 } },
                   { "gelu_erf_d2", { 0, 0 } } };
    const double at[] = { -(double)INFINITY, -3e38, -1e19, -2000, 2000, 1e19, 3e38,
                          (double)INFINITY };
    sets s = sets_open();
    for (int i = 0; i < s.n; i++)
        for (int k = 0; k < COUNT(limits); k++) {
            ttt_tensor *x = row_of(s.c[i], 8, at), *g, *second;
            int u = 0;
            while (strcmp(unaries[u]->name, limits[k].name)) u++;
            ttt_grad(s.c[i], ttt_sum(s.c[i], unaries[u]->op(s.c[i], x)), &x, 1, &g,
                     TTT_GRAD_RECORD);
            ttt_grad(s.c[i], ttt_sum(s.c[i], g), &x, 1, &second, TTT_GRAD_FIRST_ORDER);
            for (int j = 0; j < 8; j++) {
                bool good = (double)g->data[j] == limits[k].slope[j > 3] && second->data[j] == 0;
                if (!good) printf("  %s at %g\n", limits[k].name, at[j]);
                CHECK(good);
            }
        }
    sets_close(&s);
}

// The result of an element does not depend on its place: the end of a row, which fills no vector,
// has the same bits.
static void functions_of_short_rows(void) {
    sets s = sets_open();
    for (int i = 0; i < s.n; i++) {
        ttt_ctx *c = s.c[i];
        ttt_tensor *x = ttt_uniform(c, TTT_SHAPE(130), REAL(0.1), 3);
        for (int u = 0; u < COUNT(unaries); u++) {
            ttt_tensor *all = unaries[u]->op(c, x);
            for (int n = 0; n <= 65; n++) {
                ttt_tensor *y = unaries[u]->op(c, ttt_slice(c, x, 0, n, n));
                CHECK(y->size == n &&
                      memcmp(y->data, all->data + n, (size_t)n * sizeof *y->data) == 0);
            }
        }
    }
    sets_close(&s);
}

static ttt_tensor *call_scale_shift(ttt_ctx *c, ttt_tensor *const *in, const void *scale) {
    return scale ? ttt_scale(c, in[0], REAL(1.1)) : ttt_add_scalar(c, in[0], REAL(1.1));
}
static void scale_and_shift(void) {
    sets s = sets_open();
    ttt_tensor *x = numbers(s.c[0], TTT_SHAPE(67));
    for (int scale = 0; scale < 2; scale++) {
        for (int i = 0; i < 67; i++) {
            want[i] = scale ? (double)REAL(1.1) * (double)x->data[i]
                            : (double)REAL(1.1) + (double)x->data[i];
            room[i] = EPS * fabs(want[i]);
        }
        check_sets(&s, "scale or shift", x->shape, call_scale_shift, &x, 1, scale ? "" : NULL);
    }
    sets_close(&s);
}

// ---- sums and repeats ---------------------------------------------------------------------------
static ttt_tensor *call_sum_to(ttt_ctx *c, ttt_tensor *const *in, const void *s) {
    return ttt_sum_to(c, in[0], *(const ttt_shape *)s);
}
static ttt_tensor *call_broadcast(ttt_ctx *c, ttt_tensor *const *in, const void *s) {
    return ttt_broadcast(c, in[0], *(const ttt_shape *)s);
}

// A row is summed in blocks of 1024, in several lanes, at most 256 additions in each, and a few to
// close it; the blocks are added in double. Rows are summed in blocks of 32, and then block by
// block. So no element passes more additions than this, and each errs by EPS/2 of the sum of
// magnitudes. (In the double build the reference may err as much as a plain sum.)
static double most_additions(double n) { return 1 + fmin(n, fmax(262, 33 + n / 32)); }

static void expect_sum_to(const ttt_tensor *a, ttt_shape s) {
    int64_t size = ttt_shape_size(s);
    for (int64_t i = 0; i < size; i++) want[i] = room[i] = 0;
    for (int64_t i = 0; i < a->size; i++) {
        want[place(s, a->shape, i)] += (double)a->data[i];
        room[place(s, a->shape, i)] += fabs((double)a->data[i]);
    }
    double terms = size ? (double)a->size / (double)size : 0;
    for (int64_t i = 0; i < size; i++)
        room[i] *= EPS / 2 * (most_additions(terms) + (DOUBLE ? terms : 0));
}

// Every subset of the axes of a tensor, kept with size 1 or dropped where they lead.
static void sums_over_every_group_of_axes(void) {
    const ttt_shape shape[6] = { TTT_SHAPE(7), TTT_SHAPE(3, 20), TTT_SHAPE(2, 3, 4, 5),
                                 TTT_SHAPE(3, 1, 35, 2), TTT_SHAPE(2, 3, 2, 3, 2, 17),
                                 TTT_SHAPE(2, 2, 2, 2, 2, 2, 2, 3) };
    sets s = sets_open();
    for (int i = 0; i < COUNT(shape); i++) {
        ttt_tensor *x = numbers(s.c[0], shape[i]);
        for (int axes = 0; axes < 1 << x->shape.rank; axes++) {
            ttt_shape to = x->shape, dropped = { 0 };
            for (int k = 0; k < to.rank; k++) if (axes >> k & 1) to.dim[k] = 1;
            expect_sum_to(x, to);
            check_sets(&s, "sum_to", to, call_sum_to, &x, 1, &to);
            int lead = 0;
            while (lead < to.rank && to.dim[lead] == 1) lead++;
            for (int k = lead; k < to.rank; k++) dropped.dim[dropped.rank++] = to.dim[k];
            check_sets(&s, "sum_to", dropped, call_sum_to, &x, 1, &dropped);
        }
    }
    sets_close(&s);
}

static void sums_of_all_row_lengths(void) {
    sets s = sets_open();
    for (int n = 0; n <= 140; n++) {
        ttt_shape row = TTT_SHAPE(2, 1), column = TTT_SHAPE(1, 2);
        ttt_tensor *x = numbers(s.c[0], TTT_SHAPE(2, n)), *y = numbers(s.c[0], TTT_SHAPE(n, 2));
        expect_sum_to(x, row);
        check_sets(&s, "sum of a row", row, call_sum_to, &x, 1, &row);
        expect_sum_to(y, column);
        check_sets(&s, "sum of rows", column, call_sum_to, &y, 1, &column);
    }
    sets_close(&s);
}

// The error of a million equal numbers, a plain float sum of which is off by a percent.
static void long_sums_are_accurate(void) {
    enum { N = 1 << 20 };
    const ttt_shape shape[][2] = { { TTT_SHAPE(N), SCALAR },
                                   { TTT_SHAPE(N, 1), TTT_SHAPE(1, 1) },
                                   { TTT_SHAPE(N / 16, 16), TTT_SHAPE(16) },
                                   { TTT_SHAPE(4, N / 4), TTT_SHAPE(4, 1) } };
    sets s = sets_open();
    for (int i = 0; i < COUNT(shape); i++) {
        ttt_mark m = ttt_mark_get(s.c[0]);
        ttt_tensor *x = ttt_full(s.c[0], shape[i][0], REAL(0.1));
        expect_sum_to(x, shape[i][1]);
        check_sets(&s, "long sum", shape[i][1], call_sum_to, &x, 1, &shape[i][1]);
        ttt_mark_release(s.c[0], m);
    }
    sets_close(&s);
}

static void broadcast_repeats(void) {
    const ttt_shape shape[][2] = {
        { SCALAR, TTT_SHAPE(3, 21) },
        { TTT_SHAPE(4), TTT_SHAPE(3, 4) },
        { TTT_SHAPE(3, 1), TTT_SHAPE(2, 3, 37) },
        { TTT_SHAPE(2, 1, 3, 1), TTT_SHAPE(2, 4, 3, 5) },
        { TTT_SHAPE(1, 5, 1), TTT_SHAPE(2, 5, 3) },
        { TTT_SHAPE(2, 3), TTT_SHAPE(2, 3) },
        { TTT_SHAPE(1), TTT_SHAPE(0) },
    };
    sets s = sets_open();
    for (int i = 0; i < COUNT(shape); i++) {
        ttt_shape to = shape[i][1];
        ttt_tensor *x = numbers(s.c[0], shape[i][0]);
        for (int64_t k = 0; k < ttt_shape_size(to); k++) {
            want[k] = (double)x->data[place(x->shape, to, k)];
            room[k] = 0;
        }
        check_sets(&s, "broadcast", to, call_broadcast, &x, 1, &to);
    }
    sets_close(&s);
}

static void sums_and_means_by_other_names(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = row_of(c, 6, (double[]){ 1, 2, 3, 4, 5, 6 }),
               *m = ttt_reshape(c, a, TTT_SHAPE(2, 3));
    CHECK(ttt_item(ttt_sum(c, m)) == 21 && ttt_sum(c, m)->shape.rank == 0);
    CHECK(ttt_item(ttt_mean(c, m)) == 3.5f);
    CHECK(ttt_item(ttt_mse(c, m, ttt_scalar(c, 1))) == REAL(55) / 6);
    CHECK_CLOSE(ttt_sum_axis(c, m, 0)->data, ((double[]){ 5, 7, 9 }), 3, 0, 0);
    CHECK_CLOSE(ttt_mean_axis(c, m, -1)->data, ((double[]){ 2, 5 }), 2, EPS, 0);
    CHECK(ttt_shape_equal(ttt_sum_axis(c, m, -2)->shape, TTT_SHAPE(1, 3)));
    CHECK(ttt_shape_equal(ttt_mean_axis(c, m, 1)->shape, TTT_SHAPE(2, 1)));
    CLOSE(c);
}

// ---- lengths ------------------------------------------------------------------------------------
// |w| and what is divided by it, in which w is 0 or has rows and columns of zeros.
typedef ttt_tensor *length_fn(ttt_ctx *c, ttt_tensor *w);
static ttt_tensor *root_of_squares(ttt_ctx *c, ttt_tensor *w) {
    return ttt_sqrt(c, ttt_sum_axis(c, ttt_square(c, w), -1));
}
static ttt_tensor *length_of_rows(ttt_ctx *c, ttt_tensor *w) { return ttt_norm_axis(c, w, -1); }
static ttt_tensor *length_of_columns(ttt_ctx *c, ttt_tensor *w) { return ttt_norm_axis(c, w, 0); }
static ttt_tensor *length_of_all(ttt_ctx *c, ttt_tensor *w) {
    return ttt_norm_axis(c, ttt_reshape(c, w, TTT_SHAPE(1, w->size)), -1);
}
static ttt_tensor *distance_by_deviation(ttt_ctx *c, ttt_tensor *w) {  // a standard deviation
    return ttt_sqrt(c, ttt_mean_axis(c, ttt_square(c, ttt_sub(c, w, ttt_mean_axis(c, w, -1))), -1));
}
static length_fn *const lengths[] = { root_of_squares, length_of_rows, length_of_columns,
                                      length_of_all, distance_by_deviation };
static ttt_tensor *shortened(ttt_ctx *c, ttt_tensor *const *x, int n, void *length) {
    (void)n;
    length_fn *const *f = length;
    return weigh(c, ttt_div(c, x[0], ttt_add_scalar(c, (*f)(c, x[0]), 1)));
}
static void lengths_of_zero_have_the_gradients_of_a_length(void) {
    ttt_ctx *c = open_ctx();
    for (int zeros = 0; zeros < 3; zeros++)
        for (int i = 0; i < COUNT(lengths); i++) {
            length_fn *f = lengths[i];
            ttt_tensor *w = ttt_zeros(c, TTT_SHAPE(3, 4)), *g, *second;
            if (zeros) w->data[5] = REAL(0.7), w->data[6] = REAL(-0.3);
            if (zeros > 1) w->data[1] = REAL(0.2);
            ttt_grad(c, ttt_sum(c, f(c, w)), &w, 1, &g, TTT_GRAD_RECORD);
            ttt_grad(c, weigh(c, g), &w, 1, &second, TTT_GRAD_FIRST_ORDER);
            for (int k = 0; k < 12; k++) {
                CHECK(isfinite(g->data[k]) && isfinite(second->data[k]));
                double largest = fmax(fabs((double)g->data[k]), fabs((double)second->data[k]));
                CHECK(zeros || largest < 1e-30);
            }
            for (int order = 1; order <= 2 && DOUBLE; order++) {
                double e = ttt_check_gradient(c, shortened, &w, 1, &f, order, 1e-7);
                if (!(e <= 1e-5)) printf("  length %d, order %d: off by %.1e\n", i, order, e);
                CHECK(e <= 1e-5);
            }
        }
    CLOSE(c);
}

// Numbers of every size: multiplied by 2^k, lengths and gradients are what they were, times a power
// of 2^k, as far as these have a number.
static void check_sizes(const char *what, ttt_tensor *y, const double *value, double factor) {
    for (int64_t i = 0; i < y->size; i++) {
        want[i] = (double)(ttt_real)(value[i] * factor);
        room[i] = 8 * EPS * fabs(value[i] * factor) + (DOUBLE ? 0 : ldexp(1, -148));
    }
    check_within(what, y);
}
static ttt_tensor *norm_at(ttt_ctx *c, int which, ttt_tensor *x) {
    switch (which) {
    case 0: return ttt_norm_axis(c, x, 1);
    case 1: return ttt_norm_axis(c, x, 0);
    case 2: return ttt_rstd(c, x, 0, false);
    case 3: return ttt_rstd(c, x, 0, true);
    case 4: return ttt_rms_normalize(c, x, 0);
    default: return ttt_layer_normalize(c, x, 0);
    }
}
static void norms_of_every_size(void) {
    static const int power[6] = { 1, 1, -1, -1, 0, 0 };
    enum { N = 3, D = 37 };
    double value[6][N * D], slope[6][N * D];
    sets s = sets_open();
    for (int i = 0; i < s.n; i++)
        for (int n = 0; n <= 2 * 8; n++) {
            int k = n ? (n % 2 ? 1 : -1) * (n + 1) / 2 * (DOUBLE ? 110 : 14) : 0;  // 0 first
            ttt_mark mark = ttt_mark_get(s.c[i]);
            ttt_tensor *x = ttt_new(s.c[i], TTT_SHAPE(N, D)), *g;
            for (int j = 0; j < N * D; j++)
                x->data[j] = REAL(ldexp(sin(3.0 * j) + (j == 7), k));
            for (int which = 0; which < 6; which++) {
                ttt_tensor *y = norm_at(s.c[i], which, x);
                char what[60];
                snprintf(what, sizeof what, "norm %d of numbers near 2^%d", which, k);
                for (int64_t j = 0; j < y->size && !n; j++) value[which][j] = (double)y->data[j];
                check_sizes(what, y, value[which], ldexp(1, power[which] * k));
                int p = power[which] - 1;
                if (abs(p * k) > (DOUBLE ? 1000 : 120)) continue;
                y = ttt_scale(s.c[i], y, REAL(ldexp(1, -power[which] * k)));
                ttt_grad(s.c[i], weigh(s.c[i], y), &x, 1, &g, TTT_GRAD_FIRST_ORDER);
                for (int64_t j = 0; j < g->size && !n; j++) slope[which][j] = (double)g->data[j];
                for (int64_t j = 0; j < g->size; j++) {
                    want[j] = ldexp(slope[which][j], -k);
                    room[j] = 64 * EPS * ldexp(1, -k) + (DOUBLE ? 0 : ldexp(1, -148));
                }
                check_within(what, g);
            }
            ttt_mark_release(s.c[i], mark);
        }
    sets_close(&s);
}

// Rows whose numbers are near the largest, and differ from their mean by more than it: normalized,
// and their gradients times a thousand, they are what they are a thousandth as large. Means, too.
static void the_largest_numbers_have_norms_and_means(void) {
    enum { N = 3, D = 37 };
    const double large = DOUBLE ? 1.7e308 : 3.4e38;
    sets s = sets_open();
    for (int i = 0; i < s.n; i++) {
        ttt_ctx *c = s.c[i];
        ttt_tensor *x = ttt_new(c, TTT_SHAPE(N, D)), *g[2];
        for (int j = 0; j < N * D; j++) x->data[j] = REAL(j % 5 ? -large : large * (j % 3 - 1.0));
        ttt_tensor *less = ttt_scale(c, x, REAL(1.0 / 1024));
        for (int which = 4; which < 6; which++) {
            ttt_tensor *y = norm_at(c, which, less);
            for (int64_t j = 0; j < y->size; j++) {
                want[j] = (double)y->data[j];
                room[j] = 32 * EPS;  // rstd is subnormal
            }
            check_within("normalized", norm_at(c, which, x));
            ttt_grad(c, weigh(c, norm_at(c, which, x)), &x, 1, &g[0], TTT_GRAD_FIRST_ORDER);
            ttt_grad(c, weigh(c, y), &less, 1, &g[1], TTT_GRAD_FIRST_ORDER);
            for (int64_t j = 0; j < y->size; j++) {
                want[j] = (double)g[1]->data[j] / 1024;
                room[j] = 1e-4 / large;
            }
            check_within("its gradient", g[0]);
        }
        for (int axis = 0; axis < 3; axis++) {
            ttt_tensor *a = axis == 2 ? ttt_mean(c, less) : ttt_mean_axis(c, less, axis);
            for (int64_t j = 0; j < a->size; j++) {
                want[j] = 1024 * (double)a->data[j];
                room[j] = 64 * EPS * large;
            }
            check_within("mean", axis == 2 ? ttt_mean(c, x) : ttt_mean_axis(c, x, axis));
        }
    }
    sets_close(&s);
}

// ---- moving elements ----------------------------------------------------------------------------
static ttt_tensor *call_permute(ttt_ctx *c, ttt_tensor *const *in, const void *order) {
    return ttt_permute(c, in[0], order);
}

// y[i0, i1, ...] = a[i at order]: element n of y comes from the place its indices have in a.
static ttt_shape expect_permute(const ttt_tensor *a, const int *order) {
    ttt_shape s = a->shape;
    for (int i = 0; i < s.rank; i++) s.dim[i] = a->shape.dim[order[i]];
    for (int64_t n = 0; n < a->size; n++) {
        int64_t index[TTT_MAX_RANK], rest = n, at = 0;
        for (int i = s.rank - 1; i >= 0; rest /= s.dim[i--]) index[order[i]] = rest % s.dim[i];
        for (int i = 0; i < s.rank; i++) at = at * a->shape.dim[i] + index[i];
        want[n] = (double)a->data[at];
        room[n] = 0;
    }
    return s;
}
static void permute_puts_axes_in_every_order(void) {
    const ttt_shape shape[5] = { TTT_SHAPE(2, 3, 4, 5), TTT_SHAPE(1, 4, 8, 16),
                                 TTT_SHAPE(3, 17, 1, 33), TTT_SHAPE(15, 2, 16, 7),
                                 TTT_SHAPE(2, 0, 3, 1) };
    sets s = sets_open();
    for (int i = 0; i < COUNT(shape); i++) {
        ttt_tensor *x = numbers(s.c[0], shape[i]);
        int orders = 0;
        for (int n = 0; n < 256; n++) {
            int order[4] = { n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6 };
            if ((1 << order[0] | 1 << order[1] | 1 << order[2] | 1 << order[3]) != 15) continue;
            ttt_shape to = expect_permute(x, order);
            check_sets(&s, "permute", to, call_permute, &x, 1, order);
            orders++;
        }
        CHECK(orders == 24);
    }
    ttt_tensor *x = numbers(s.c[0], TTT_SHAPE(2, 1, 3, 2, 1, 2, 3, 2));
    int order[8] = { 7, 2, 5, 0, 1, 4, 6, 3 };
    ttt_shape to = expect_permute(x, order);
    check_sets(&s, "permute of rank 8", to, call_permute, &x, 1, order);
    sets_close(&s);
}

static ttt_tensor *call_transpose(ttt_ctx *c, ttt_tensor *const *in, const void *arg) {
    (void)arg;
    return ttt_transpose(c, in[0]);
}
static void transpose_of_all_sizes(void) {
    sets s = sets_open();
    for (int m = 1; m <= 36; m++)
        for (int n = 1; n <= 36; n++) {
            ttt_mark mark = ttt_mark_get(s.c[0]);
            ttt_tensor *x = numbers(s.c[0], TTT_SHAPE(m, n));
            expect_permute(x, (int[]){ 1, 0 });
            check_sets(&s, "transpose", TTT_SHAPE(n, m), call_transpose, &x, 1, NULL);
            ttt_mark_release(s.c[0], mark);
        }
    sets_close(&s);
}

// Along each axis: cut a into three; pad each part and add, or join them again.
static void slice_place_and_concat_undo_each_other(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = numbers(c, TTT_SHAPE(4, 5, 6));
    for (int axis = -3; axis < 3; axis++) {
        int64_t length = a->shape.dim[(axis + 3) % 3], cut[4] = { 0, 1, 1, length };
        ttt_tensor *part[3], *sum = ttt_zeros(c, a->shape);
        for (int i = 0; i < 3; i++) {
            part[i] = ttt_slice(c, a, axis, cut[i], cut[i + 1] - cut[i]);
            CHECK(part[i]->shape.dim[(axis + 3) % 3] == cut[i + 1] - cut[i]);
            sum = ttt_add(c, sum, ttt_pad(c, part[i], axis, cut[i], length));
        }
        CHECK(same_bits(sum, a));
        CHECK(same_bits(ttt_concat(c, part, 3, axis), a));
        CHECK(same_bits(ttt_concat(c, (ttt_tensor *[]){ a }, 1, axis), a));
    }
    ttt_tensor *middle = ttt_slice(c, a, 1, 2, 2);  // a[:, 2:4, :]
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++)
            for (int k = 0; k < 6; k++)
                CHECK(middle->data[(i * 2 + j) * 6 + k] == a->data[(i * 5 + 2 + j) * 6 + k]);
    CLOSE(c);
}

static void reshape_and_detach_share_their_numbers(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = numbers(c, TTT_SHAPE(4, 6)), *r = ttt_reshape(c, a, TTT_SHAPE(2, 3, 4)),
               *d = ttt_detach(c, a);
    CHECK(r->data == a->data && d->data == a->data && d->op == NULL &&
          ttt_shape_equal(d->shape, a->shape));
    CHECK(ttt_item(ttt_reshape(c, ttt_full(c, TTT_SHAPE(1, 1), 3), SCALAR)) == 3);
    ttt_tensor *rows = ttt_from_int(c, TTT_SHAPE(3), (int64_t[]){ 2, 0, 1 }),
               *constant = ttt_detach(c, rows);
    CHECK(constant->dtype == TTT_DTYPE_INT && constant->index[0] == 2);
    CLOSE(c);
}

// Leading sizes of a and of the index, broadcast; repeated rows, and rows nobody asks for.
typedef struct {
    int64_t N;
} rows_arg;
static ttt_tensor *call_rows(ttt_ctx *c, ttt_tensor *const *in, const void *arg) {
    const rows_arg *r = arg;
    return r ? ttt_index_add(c, in[0], in[1], r->N) : ttt_index_select(c, in[0], in[1]);
}
static void index_select_and_index_add_by_hand(void) {
    const ttt_shape lead[][3] = {
        { SCALAR, SCALAR, SCALAR },
        { TTT_SHAPE(3), TTT_SHAPE(3), TTT_SHAPE(3) },
        { TTT_SHAPE(3), SCALAR, TTT_SHAPE(3) },
        { SCALAR, TTT_SHAPE(3), TTT_SHAPE(3) },
        { TTT_SHAPE(2, 1), TTT_SHAPE(3), TTT_SHAPE(2, 3) },
        { TTT_SHAPE(1, 2, 1), TTT_SHAPE(2, 1, 2), TTT_SHAPE(2, 2, 2) },
    };
    enum { N = 5, n = 7 };
    sets s = sets_open();
    ttt_ctx *c = s.c[0];
    for (int i = 0; i < COUNT(lead); i++)
        for (int64_t D = 1; D <= 35; D += 17) {
            ttt_shape la = lead[i][0], li = lead[i][1], all = lead[i][2], index_shape = li;
            index_shape.dim[index_shape.rank++] = n;
            int64_t rows[100], count = ttt_shape_size(all);
            for (int k = 0; k < 100; k++) rows[k] = k * k % 4;  // 0, 1; never row 2, 3, 4
            ttt_tensor *in[2] = { numbers(c, matrices(la, N, D)),
                                  ttt_from_int(c, index_shape, rows) };
            for (int64_t l = 0; l < count; l++)
                for (int64_t k = 0; k < n * D; k++) {
                    int64_t row = rows[place(li, all, l) * n + k / D];
                    want[l * n * D + k] =
                        (double)in[0]->data[(place(la, all, l) * N + row) * D + k % D];
                    room[l * n * D + k] = 0;
                }
            check_sets(&s, "index_select", matrices(all, n, D), call_rows, in, 2, NULL);
            in[0] = numbers(c, matrices(la, n, D));
            for (int64_t k = 0; k < count * N * D; k++) want[k] = room[k] = 0;
            for (int64_t l = 0; l < count; l++)
                for (int64_t k = 0; k < n * D; k++) {
                    int64_t row = rows[place(li, all, l) * n + k / D];
                    double a = (double)in[0]->data[place(la, all, l) * n * D + k];
                    want[(l * N + row) * D + k % D] += a;
                    room[(l * N + row) * D + k % D] += n * EPS * fabs(a);
                }
            check_sets(&s, "index_add", matrices(all, N, D), call_rows, in, 2, &(rows_arg){ N });
        }
    sets_close(&s);
}

// Rows of one table, for an index of any shape. The gradient of a row is the sum over all places
// that took it.
static ttt_tensor *call_embedding(ttt_ctx *c, ttt_tensor *const *in, const void *arg) {
    (void)arg;
    return ttt_embedding(c, in[0], in[1]);
}
static void embedding_gives_rows_of_a_table(void) {
    const ttt_shape shape[6] = { SCALAR,
                                 TTT_SHAPE(6),
                                 TTT_SHAPE(2, 3),
                                 TTT_SHAPE(3, 1, 2),
                                 TTT_SHAPE(1, 2, 1, 3, 1, 1, 1),
                                 TTT_SHAPE(2, 0) };
    const int64_t row[] = { 4, 0, 4, 2, 0, 4 };
    sets s = sets_open();
    ttt_ctx *c = s.c[0];
    for (int i = 0; i < COUNT(shape); i++)
        for (int64_t D = 0; D <= 35; D += 7) {
            ttt_tensor *in[2] = { numbers(c, TTT_SHAPE(5, D)), ttt_from_int(c, shape[i], row) }, *g;
            ttt_shape y = shape[i];
            y.dim[y.rank++] = D;
            for (int64_t k = 0; k < ttt_shape_size(y); k++) {
                want[k] = (double)in[0]->data[row[k / D] * D + k % D];
                room[k] = 0;
            }
            check_sets(&s, "embedding", y, call_embedding, in, 2, NULL);
            for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_RECORD; mode++) {
                ttt_grad(c, ttt_sum(c, ttt_square(c, ttt_embedding(c, in[0], in[1]))), in, 1, &g,
                         (ttt_grad_mode)mode);
                for (int64_t k = 0; k < 5 * D; k++) {
                    want[k] = 0;
                    for (int64_t q = 0; q < in[1]->size; q++)
                        want[k] += row[q] == k / D ? 2 * (double)in[0]->data[k] : 0;
                    room[k] = 3 * EPS * fabs(want[k]);
                }
                check_within("rows of an embedding's gradient", g);
            }
        }
    sets_close(&s);
}

// ---- ops by plain loops -------------------------------------------------------------------------
static const double inf = (double)INFINITY, nan_ = (double)NAN;

// d^order y / dx^order of an elementwise y = f(x): the sum of y is differentiated `order` times.
static ttt_tensor *derivative(ttt_ctx *c, ttt_tensor *y, ttt_tensor *x, int order,
                              ttt_grad_mode last) {
    for (; order > 0; order--)
        ttt_grad(c, ttt_sum(c, y), &x, 1, &y, order > 1 ? TTT_GRAD_RECORD : last);
    return y;
}
static void check_row(const char *what, const ttt_tensor *y, const double *values,
                      double tolerance) {
    for (int64_t i = 0; i < y->size; i++) {
        want[i] = values[i];
        room[i] = isfinite(values[i]) ? tolerance * fabs(values[i]) : 0;
    }
    check_within(what, y);
}

static ttt_tensor *call_clamp(ttt_ctx *c, ttt_tensor *const *in, const void *limit) {
    const ttt_real *l = limit;
    return ttt_clamp(c, in[0], l[0], l[1]);
}
static void clamp_keeps_what_lies_between(void) {
    sets s = sets_open();
    ttt_ctx *c = s.c[0];
    for (int n = 0; n < 70; n++) {
        ttt_tensor *x = numbers(c, TTT_SHAPE(n));
        for (int i = 0; i < n; i++) {
            want[i] = fmin(fmax((double)x->data[i], -0.5), 1);
            room[i] = 0;
        }
        check_sets(&s, "clamp", x->shape, call_clamp, &x, 1, (ttt_real[]){ REAL(-0.5), 1 });
    }
    const double at[] = { -inf, -3, -1, -0.5, 0, 2, 2.5, inf, nan_ };
    const double value[] = { -1, -1, -1, -0.5, 0, 2, 2, 2, nan_ },
                 slope[] = { 0, 0, 1, 1, 1, 1, 0, 0, 0 }, none[9] = { 0 };
    for (int i = 0; i < s.n; i++) {
        ttt_tensor *x = row_of(s.c[i], 9, at), *y = ttt_clamp(s.c[i], x, -1, 2);
        check_row("clamp at special numbers", y, value, 0);
        for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_RECORD; mode++)
            check_row("slope of clamp", derivative(s.c[i], y, x, 1, (ttt_grad_mode)mode), slope, 0);
        check_row("second derivative of clamp", derivative(s.c[i], y, x, 2, TTT_GRAD_FIRST_ORDER),
                  none, 0);
        check_row("clamp to one number", ttt_clamp(s.c[i], x, 2, 2),
                  (double[]){ 2, 2, 2, 2, 2, 2, 2, 2, nan_ }, 0);
        check_row("clamp from above only", ttt_clamp(s.c[i], x, REAL(-inf), 2),
                  (double[]){ -inf, -3, -1, -0.5, 0, 2, 2, 2, nan_ }, 0);
    }
    sets_close(&s);
}

// y^(k) = p (p-1) ... (p-k+1) a^(p-k) by C's pow in double. In float, pow is good to an ulp; a
// coefficient and the products with it round once each for every order.
static void powers_have_right_derivatives_everywhere(void) {
    const double a[] = { 0, -0.0, 1, -1, 2, -2, 0.3, 7, -1.5, inf, -inf, nan_ },
                 p[] = { 0, 1, 2, 3, 5, -1, -2, 0.5, 2.5, -0.5 };
    sets s = sets_open();
    for (int i = 0; i < s.n; i++)
        for (int k = 0; k < COUNT(p); k++)
            for (int order = 0; order <= 3; order++) {
                char what[60];
                double expected[COUNT(a)], factor = 1;
                ttt_mark m = ttt_mark_get(s.c[i]);
                ttt_tensor *x = row_of(s.c[i], COUNT(a), a), *y = ttt_pow(s.c[i], x, REAL(p[k]));
                for (int q = 0; q < order; q++) factor *= p[k] - q;
                for (int j = 0; j < COUNT(a); j++)
                    expected[j] = factor == 0 ? 0 : factor * pow((double)x->data[j], p[k] - order);
                snprintf(what, sizeof what, "derivative %d of a^%g", order, p[k]);
                check_row(what, derivative(s.c[i], y, x, order, TTT_GRAD_FIRST_ORDER), expected,
                          (2 + 2 * order) * EPS);
                ttt_mark_release(s.c[i], m);
            }
    sets_close(&s);
}

// Three shapes that are broadcast, and a condition of each type that it may have.
static ttt_tensor *call_where(ttt_ctx *c, ttt_tensor *const *in, const void *arg) {
    (void)arg;
    return ttt_where(c, in[0], in[1], in[2]);
}
static ttt_tensor *where_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *condition) {
    (void)n;
    return weigh(c, ttt_where(c, condition, x[0], x[1]));
}
static void where_takes_one_of_two(void) {
    const ttt_shape pattern[][4] = {  // the condition, a, b, y
        { SCALAR, SCALAR, SCALAR, SCALAR },
        { TTT_SHAPE(2, 3), TTT_SHAPE(2, 3), TTT_SHAPE(2, 3), TTT_SHAPE(2, 3) },
        { TTT_SHAPE(2, 3), SCALAR, SCALAR, TTT_SHAPE(2, 3) },
        { SCALAR, TTT_SHAPE(3), TTT_SHAPE(2, 1), TTT_SHAPE(2, 3) },
        { TTT_SHAPE(4, 1), TTT_SHAPE(5), TTT_SHAPE(4, 5), TTT_SHAPE(4, 5) },
        { TTT_SHAPE(2, 1, 1), TTT_SHAPE(1, 3, 1), TTT_SHAPE(1, 1, 37), TTT_SHAPE(2, 3, 37) },
        { TTT_SHAPE(3, 1, 4), TTT_SHAPE(2, 3, 1, 1), TTT_SHAPE(5, 1), TTT_SHAPE(2, 3, 5, 4) },
        { TTT_SHAPE(2048), TTT_SHAPE(2048), TTT_SHAPE(2048), TTT_SHAPE(2048) },
        { TTT_SHAPE(0, 1), TTT_SHAPE(3), TTT_SHAPE(0, 3), TTT_SHAPE(0, 3) },
    };
    sets s = sets_open();
    ttt_ctx *c = s.c[0];
    for (int p = 0; p < COUNT(pattern); p++)
        for (int type = TTT_DTYPE_REAL; type <= TTT_DTYPE_U8; type++) {
            ttt_mark m = ttt_mark_get(c);
            ttt_tensor *in[3] = { ttt_new_typed(c, pattern[p][0], (ttt_dtype)type, false), NULL,
                                  NULL };
            for (int i = 1; i < 3; i++) in[i] = ttt_uniform(c, pattern[p][i], REAL(0.5), 2);
            for (int64_t i = 0; i < in[0]->size; i++) {
                int v = (int)(i * i % 3);  // 0, 1, 1
                if (type == TTT_DTYPE_REAL)
                    in[0]->data[i] = v ? REAL(i % 2 ? -0.25 : nan_) : -REAL(0);
                else if (type == TTT_DTYPE_INT) in[0]->index[i] = v ? INT64_MIN : 0;
                else in[0]->u8[i] = (uint8_t)(v * 255);
            }
            for (int64_t i = 0; i < ttt_shape_size(pattern[p][3]); i++) {
                int64_t at = place(pattern[p][0], pattern[p][3], i);
                const ttt_tensor *from = at * at % 3 ? in[1] : in[2];
                want[i] = (double)from->data[place(from->shape, pattern[p][3], i)];
                room[i] = 0;
            }
            check_sets(&s, "where", pattern[p][3], call_where, in, 3, NULL);
            if (in[0]->size > 0 && in[0]->size < 100)
                check_orders(c, "where", where_value, in + 1, 2, in[0], 2);
            ttt_mark_release(c, m);
        }
    sets_close(&s);
}
static void where_lets_nothing_through_from_the_other(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *which = ttt_from_u8(c, TTT_SHAPE(4), (uint8_t[]){ 1, 0, 1, 0 });
    ttt_tensor *x[2] = { row_of(c, 4, (double[]){ 2, nan_, inf, inf }),
                         row_of(c, 4, (double[]){ nan_, 3, nan_, -inf }) },
               *g[2];
    ttt_tensor *y = ttt_where(c, which, x[0], x[1]),
               *seed = row_of(c, 4, (double[]){ inf, nan_, 5, 7 });
    check_row("where", y, (double[]){ 2, 3, inf, -inf }, 0);
    for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_RECORD; mode++) {
        ttt_vjp(c, y, seed, x, 2, g, (ttt_grad_mode)mode);
        check_row("gradient of where", g[0], (double[]){ inf, 0, 5, 0 }, 0);
        check_row("gradient of where", g[1], (double[]){ 0, nan_, 0, 7 }, 0);
    }
    ttt_grad(c, ttt_sum(c, ttt_where(c, x[0], ttt_square(c, x[0]), x[0])), x, 1, g,
             TTT_GRAD_FIRST_ORDER);
    check_row("a condition has no gradient", g[0], (double[]){ 4, nan_, inf, inf }, 0);
    CLOSE(c);
}

// The mask by its definition: number i of the seed's stream, from 0 to 2^32, against p.
static void dropout_is_its_definition(void) {
    const double p[] = { 0.1, 0.5, 0.9, 1 - 1.0 / (1 << 20), 1e-12 };
    const uint64_t seed = 0x123456789abcdef0u;
    sets s = sets_open();
    for (int i = 0; i < s.n; i++)
        for (int k = 0; k < COUNT(p); k++)
            for (int n = 0; n < 75; n++) {
                ttt_ctx *c = s.c[i];
                ttt_mark m = ttt_mark_get(c);
                ttt_tensor *x = numbers(c, TTT_SHAPE(n)),
                           *y = ttt_dropout_seeded(c, x, REAL(p[k]), seed);
                ttt_rng r = { seed, 0 };
                double q = (double)REAL(p[k]), mask[75], first[75], third[75];
                for (int j = 0; j < n; j++) {
                    mask[j] = ttt_rng_u32(&r) < floor(q * 4294967296.0) ? 0 : 1 / (1 - q);
                    want[j] = mask[j] * (double)x->data[j];
                    room[j] = 2 * EPS * fabs(want[j]);
                    first[j] = 3 * mask[j] * want[j] * want[j];
                    third[j] = 6 * mask[j] * mask[j] * mask[j];
                }
                check_within("dropout", y);
                ttt_tensor *cube = ttt_mul(c, y, ttt_square(c, y));  // for three orders
                for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_RECORD; mode++)
                    check_row("gradient of dropout", derivative(c, cube, x, 1, (ttt_grad_mode)mode),
                              first, 12 * EPS);
                check_row("third derivative of dropout",
                          derivative(c, cube, x, 3, TTT_GRAD_FIRST_ORDER), third, 24 * EPS);
                ttt_mark_release(c, m);
            }
    sets_close(&s);
}
static void dropout_draws_from_the_context(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *ones = ttt_full(c, TTT_SHAPE(100, 1000), 1);
    ttt_rng before = *ttt_ctx_rng(c);
    ttt_tensor *a = ttt_dropout(c, ones, REAL(0.25)), *b = ttt_dropout(c, ones, REAL(0.25));
    CHECK(!same_bits(a, b));
    *ttt_ctx_rng(c) = before;
    CHECK(same_bits(a, ttt_dropout(c, ones, REAL(0.25))));
    double deviation = sqrt(0.25 / 0.75 / 1e5);  // of the mean of 1e5 elements, from 1
    CHECK(fabs((double)ttt_item(ttt_mean(c, a)) - 1) < 5 * deviation);
    before = *ttt_ctx_rng(c);
    CHECK(ttt_dropout(c, ones, 0) == ones && ttt_ctx_rng(c)->next == before.next);
    ttt_tensor *bad = row_of(c, 64, (double[64]){ nan_, inf });
    CHECK(isnan(ttt_dropout_seeded(c, bad, REAL(0.5), 1)->data[0]));
    CLOSE(c);
}
static ttt_tensor *drop_and_square(ttt_ctx *c, ttt_tensor *const *in, int n, const void *user) {
    (void)n, (void)user;
    ttt_tensor *a = ttt_square(c, ttt_dropout(c, in[0], REAL(0.4)));
    return ttt_square(c, ttt_dropout(c, a, REAL(0.4)));
}
static void what_is_computed_again_drops_the_same(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = numbers(c, TTT_SHAPE(33));
    for (int order = 1; order <= 2; order++) {
        ttt_rng start = *ttt_ctx_rng(c);
        ttt_tensor *plain =
            derivative(c, drop_and_square(c, &x, 1, NULL), x, order, TTT_GRAD_FIRST_ORDER);
        ttt_rng end = *ttt_ctx_rng(c);
        *ttt_ctx_rng(c) = start;
        ttt_tensor *again = derivative(c, ttt_remat(c, drop_and_square, &x, 1, x->shape, NULL, 0),
                                       x, order, TTT_GRAD_FIRST_ORDER);
        CHECK(same_bits(plain, again) && ttt_ctx_rng(c)->next == end.next);
    }
    CLOSE(c);
}

// The largest along every axis, by its definition; small whole numbers, so that many are equal.
static ttt_tensor *max_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *axis) {
    (void)n;
    return weigh(c, ttt_max_axis(c, x[0], *(int *)axis));
}
static void check_largest(ttt_ctx *c, ttt_tensor *a, int axis) {
    ttt_shape kept = a->shape, gone = a->shape;
    int64_t n = kept.dim[axis], inner = 1;
    kept.dim[axis] = 1;
    for (int i = axis + 1; i < a->shape.rank; i++) inner *= gone.dim[i - 1] = gone.dim[i];
    gone.rank--;
    ttt_tensor *y = ttt_max_axis(c, a, axis), *at = ttt_argmax(c, a, axis - a->shape.rank), *g[2];
    CHECK(ttt_shape_equal(y->shape, kept) && ttt_shape_equal(at->shape, gone) &&
          at->dtype == TTT_DTYPE_INT && !at->op);
    double *slope = want + y->size;
    for (int64_t i = 0; i < a->size; i++) slope[i] = 0;
    for (int64_t i = 0; i < y->size; i++) {
        int64_t from = i / inner * n * inner + i % inner, best = 0;
        for (int64_t k = 0; k < n; k++) {
            double v = (double)a->data[from + k * inner], b = (double)a->data[from + best * inner];
            if (!isnan(b) && (isnan(v) || v > b)) best = k;
        }
        want[i] = (double)a->data[from + best * inner];
        room[i] = 0;
        slope[from + best * inner] = 1;
        CHECK(at->index[i] == best);
    }
    check_within("max_axis", y);
    for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_RECORD; mode++)
        ttt_grad(c, ttt_sum(c, y), &a, 1, &g[mode], (ttt_grad_mode)mode);
    for (int64_t i = 0; i < a->size; i++)
        CHECK((double)g[0]->data[i] == slope[i] && (double)g[1]->data[i] == slope[i]);
}
static void the_largest_along_every_axis(void) {
    const ttt_shape shape[6] = { TTT_SHAPE(1),       TTT_SHAPE(7),           TTT_SHAPE(3, 5),
                                 TTT_SHAPE(2, 3, 4), TTT_SHAPE(2, 1, 3, 17), TTT_SHAPE(2, 0, 3) };
    sets s = sets_open();
    for (int i = 0; i < s.n; i++)
        for (int k = 0; k < COUNT(shape); k++)
            for (int axis = 0; axis < shape[k].rank; axis++) {
                if (shape[k].dim[axis] == 0) continue;
                ttt_tensor *a = numbers(s.c[i], shape[k]);
                for (int j = 0; j < 3; j++) {
                    for (int64_t e = 0; e < a->size; e++) {
                        if (j == 1) a->data[e] = TTT__MATH(floor)(a->data[e]);
                        if (j == 2 && e % 5 == 1) a->data[e] = REAL(e % 2 ? -inf : nan_);
                    }
                    check_largest(s.c[i], a, axis);
                }
                ttt_tensor *apart = ttt_new(s.c[i], shape[k]);  // further than the checker's steps
                for (int64_t e = 0; e < a->size; e++)
                    apart->data[e] = REAL((double)(e * 29 % 103) / 4);
                if (i == 0 && a->size)
                    check_orders(s.c[i], "max_axis", max_value, &apart, 1, &axis, 2);
            }
    sets_close(&s);
}

// ---- depthwise convolutions ---------------------------------------------------------------------
// Sequences, rows and columns of tokens, channels, rows and columns of taps; axes as in conv1d and
// conv2d; whether each sequence has its own kernel.
typedef struct {
    int64_t B, rows, cols, C, S, T;
    int axes;
    bool each;
} conv_case;
static const conv_case convs[] = {
    { 2, 1, 70, 5, 1, 4, 1, false },  { 1, 1, 35, 16, 1, 3, 1, true },
    { 3, 1, 33, 33, 1, 1, 1, false }, { 2, 1, 2, 3, 1, 4, 1, true },  // fewer tokens than taps
    { 2, 1, 1, 64, 1, 9, 1, false },  { 2, 1, 0, 3, 1, 4, 1, false },
    { 2, 6, 7, 19, 3, 3, 2, true },   { 1, 4, 37, 40, 5, 5, 2, false },
    { 2, 1, 3, 4, 5, 5, 2, false },   { 2, 3, 1, 4, 1, 7, 2, true },   // smaller than the kernel
    { 1, 33, 2, 66, 3, 1, 2, false }, { 2, 2, 2, 0, 3, 3, 2, false },
    { 0, 2, 2, 3, 3, 3, 2, false },   { 2, 0, 4, 3, 3, 3, 2, true },
    { 1, 8, 33, 130, 3, 9, 2, false },
};
static ttt_shape conv_shape(const conv_case *k, bool sequences, int64_t rows, int64_t cols) {
    ttt_shape shape = { 0 };
    if (sequences) shape.dim[shape.rank++] = k->B;
    if (k->axes == 2) shape.dim[shape.rank++] = rows;
    shape.dim[shape.rank++] = cols;
    shape.dim[shape.rank++] = k->C;
    return shape;
}
static ttt_tensor *call_conv(ttt_ctx *c, ttt_tensor *const *in, const void *arg) {
    bool line = ((const conv_case *)arg)->axes == 1;
    return (line ? ttt_depthwise_conv1d : ttt_depthwise_conv2d)(c, in[0], in[1]);
}
static ttt_tensor *call_conv_kernel(ttt_ctx *c, ttt_tensor *const *in, const void *arg) {
    const conv_case *k = arg;
    ttt_shape taps = k->axes == 1 ? TTT_SHAPE(k->T) : TTT_SHAPE(k->S, k->T);
    return ttt_depthwise_kernel(c, in[0], in[1], taps);
}
// The definition as it stands: goes over all tokens and taps, and visits the token that is seen.
typedef void conv_visit(const conv_case *k, int64_t token, int64_t tap, int64_t seen, int64_t c);
static const ttt_tensor *conv_x, *conv_other;
static void visit_conv(const conv_case *k, int64_t token, int64_t tap, int64_t seen, int64_t c) {
    int64_t sequence = k->each ? token / (k->rows * k->cols) : 0;
    double weight = (double)conv_other->data[(sequence * k->S * k->T + tap) * k->C + c];
    double term = weight * (double)conv_x->data[seen * k->C + c];
    want[token * k->C + c] += term;
    room[token * k->C + c] += 8 * EPS * fabs(term);
}
static void visit_kernel(const conv_case *k, int64_t token, int64_t tap, int64_t seen, int64_t c) {
    int64_t at = (token / (k->rows * k->cols) * k->S * k->T + tap) * k->C + c;
    double g = (double)conv_other->data[token * k->C + c];
    double term = g * (double)conv_x->data[seen * k->C + c];
    want[at] += term;
    room[at] += 8 * EPS * fabs(term);
}
static void conv_reference(const conv_case *k, ttt_tensor *const *in, int64_t size,
                           conv_visit *visit) {
    int64_t s0 = k->S / 2, t0 = k->axes == 1 ? k->T - 1 : k->T / 2, tokens = k->rows * k->cols;
    for (int64_t i = 0; i < size; i++) want[i] = room[i] = 0;
    conv_x = in[0];
    conv_other = in[1];
    for (int64_t token = 0; token < k->B * tokens; token++)
        for (int64_t tap = 0; tap < k->S * k->T; tap++) {
            int64_t row = token % tokens / k->cols + tap / k->T - s0;
            int64_t col = token % k->cols + tap % k->T - t0;
            if (row < 0 || row >= k->rows || col < 0 || col >= k->cols) continue;
            int64_t seen = token / tokens * tokens + row * k->cols + col;
            for (int64_t c = 0; c < k->C; c++) visit(k, token, tap, seen, c);
        }
}
static void depthwise_convolutions_are_their_sums(void) {
    sets s = sets_open();
    for (int i = 0; i < COUNT(convs); i++) {
        const conv_case *k = &convs[i];
        ttt_shape shape = conv_shape(k, true, k->rows, k->cols);
        ttt_shape each = conv_shape(k, true, k->S, k->T);
        ttt_tensor *x = numbers(s.c[0], shape), *g = numbers(s.c[0], shape);
        ttt_tensor *kernel = numbers(s.c[0], conv_shape(k, k->each, k->S, k->T));
        ttt_tensor *conv[2] = { x, kernel }, *gradient[2] = { x, g };
        conv_reference(k, conv, x->size, visit_conv);
        check_sets(&s, "depthwise_conv", shape, call_conv, conv, 2, k);
        conv_reference(k, gradient, ttt_shape_size(each), visit_kernel);
        check_sets(&s, "depthwise_kernel", each, call_conv_kernel, gradient, 2, k);
    }
    sets_close(&s);
}
static ttt_tensor *conv_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *arg) {
    (void)n;
    return weigh(c, call_conv(c, x, arg));
}
static ttt_tensor *conv_kernel_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *arg) {
    (void)n;
    return weigh(c, call_conv_kernel(c, x, arg));
}
static void depthwise_convolutions_have_derivatives_of_every_order(void) {
    static const conv_case cases[] = {
        { 2, 1, 6, 3, 1, 4, 1, false }, { 2, 1, 3, 2, 1, 4, 1, true },
        { 2, 3, 4, 2, 3, 3, 2, false }, { 2, 2, 3, 2, 3, 5, 2, true },
    };
    for (int i = 0; i < COUNT(cases); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 4 });
        conv_case k = cases[i];
        ttt_shape shape = conv_shape(&k, true, k.rows, k.cols);
        ttt_tensor *x = ttt_uniform(c, shape, -1, 1), *g = ttt_uniform(c, shape, -1, 1);
        ttt_tensor *kernel = ttt_uniform(c, conv_shape(&k, k.each, k.S, k.T), -1, 1);
        check_orders(c, "depthwise_conv", conv_value, (ttt_tensor *[]){ x, kernel }, 2, &k, 3);
        check_orders(c, "depthwise_kernel", conv_kernel_value, (ttt_tensor *[]){ x, g }, 2, &k, 3);
        CLOSE(c);
    }
}
// A NaN reaches the tokens that see it, though a weight be 0, and no others.
static void depthwise_convolutions_pass_on_what_is_seen(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = numbers(c, TTT_SHAPE(40, 20)), *zero = ttt_zeros(c, TTT_SHAPE(4, 20));
    x->data[17 * 20 + 3] = REAL(NAN);
    ttt_tensor *y = ttt_depthwise_conv1d(c, x, zero);
    for (int64_t i = 0; i < y->size; i++)
        CHECK(!isnan(y->data[i]) == !(i % 20 == 3 && i / 20 >= 17 && i / 20 < 21));
    ttt_tensor *grid = ttt_reshape(c, x, TTT_SHAPE(5, 8, 20));  // token 17 is (2,1)
    y = ttt_depthwise_conv2d(c, grid, ttt_zeros(c, TTT_SHAPE(3, 3, 20)));
    for (int64_t i = 0; i < y->size; i++) {
        int64_t row = i / 160, col = i / 20 % 8;
        CHECK(!isnan(y->data[i]) == !(i % 20 == 3 && row >= 1 && row <= 3 && col <= 2));
    }
    CLOSE(c);
}
// A long line: the error of a tap's sum does not grow with it.
static void taps_of_long_lines_are_accurate(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(20000, 3), REAL(0.1));
    ttt_tensor *k = ttt_depthwise_kernel(c, x, x, TTT_SHAPE(2));
    double term = (double)x->data[0] * (double)x->data[0];
    CHECK(fabs((double)k->data[0] - 19999 * term) <= 20000 * term * 16 * EPS);
    CHECK(fabs((double)k->data[3] - 20000 * term) <= 20000 * term * 16 * EPS);
    CLOSE(c);
}

// ---- a triangular system ------------------------------------------------------------------------
// The solution, put back into the system, gives b. Nothing on or above the diagonal is read.
static void solve_lower_solves(void) {
    static const int64_t sizes[][2] = { { 5, 2 }, { 1, 1 }, { 1, 9 },
                                        { 2, 40 }, { 0, 3 }, { 3, 0 } };
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 5 });
    for (int i = 0; i < 2 * COUNT(sizes); i++) {
        int64_t n = sizes[i / 2][0], d = sizes[i / 2][1];
        bool t = i % 2;
        ttt_tensor *a = ttt_randn(c, TTT_SHAPE(3, n, n)), *b = ttt_randn(c, TTT_SHAPE(3, n, d)),
                   *S = ttt_zeros(c, a->shape);
        for (int64_t k = 0; k < S->size; k++)
            S->data[k] = k % n < k / n % n ? a->data[k] : k % n == k / n % n;
        ttt_tensor *y = ttt_solve_lower(c, a, b, t);
        CHECK(ttt_max_abs_diff(ttt_matmul_t(c, S, y, t, false), b) <= (DOUBLE ? 1e-13 : 1e-4));
        CHECK(ttt_max_abs_diff(y, ttt_solve_lower(c, S, b, t)) == 0);
    }
    CHECK(ttt_ok(c));
    ttt_close(c);
}

// ---- along the last axis ------------------------------------------------------------------------
typedef enum { SOFTMAX, LOG_SOFTMAX, NORMALIZE, NORMALIZE_D1, RSTD } row_op;
static const char *const row_name[] = { "softmax", "log_softmax", "normalize", "normalize_d1",
                                        "rstd" };
typedef struct {
    row_op op;
    double eps;
    bool centered;
} row_arg;
static ttt_tensor *call_row(ttt_ctx *c, ttt_tensor *const *in, const void *arg) {
    const row_arg *r = arg;
    switch (r->op) {
    case SOFTMAX: return ttt_softmax(c, in[0]);
    case LOG_SOFTMAX: return ttt_log_softmax(c, in[0]);
    case NORMALIZE:
        return (r->centered ? ttt_layer_normalize : ttt_rms_normalize)(c, in[0], REAL(r->eps));
    case NORMALIZE_D1: return ttt_normalize_d1(c, in[0], in[1], REAL(r->eps), r->centered);
    case RSTD: return ttt_rstd(c, in[0], REAL(r->eps), r->centered);
    }
    return NULL;
}

// softmax: e^(a-max) has the relative error of its rounded argument, |a - max| EPS/2, and a few
// ulps more; the sum and the division add one or two. log_softmax: a - max and the logarithm are
// rounded once each, so the error stays a few ulps of a result of at least that size, however large
// a is.
static void expect_softmax(const ttt_real *a, int64_t D, bool logarithm, double *y, double *r) {
    double max = (double)a[0], sum = 0;
    for (int64_t i = 1; i < D; i++) max = fmax(max, (double)a[i]);
    for (int64_t i = 0; i < D; i++) sum += exp((double)a[i] - max);
    for (int64_t i = 0; i < D; i++) {
        double below = (double)a[i] - max;
        y[i] = logarithm ? below - log(sum) : exp(below) / sum;
        r[i] = logarithm ? 3 * EPS * (1 + fabs(y[i])) : y[i] * EPS * (fabs(below) + 5) + ulp_of(0);
        y[i] = (double)(ttt_real)y[i];
        if (isinf(below) || isinf(y[i])) r[i] = 0;
    }
}

// The mean is rounded to a ttt_real, hence the terms with `shift`. The others are some roundings of
// the largest element.
static void expect_norm(const row_arg *arg, const ttt_real *a, const ttt_real *g, int64_t D,
                        double *y, double *room_y) {
    double mean = 0, variance = 0, mean_g = 0, mean_gx = 0, most_g = 0, most_x = 1;
    for (int64_t i = 0; i < D && arg->centered; i++) {
        mean += (double)a[i] / (double)D;
        mean_g += (double)g[i] / (double)D;
    }
    for (int64_t i = 0; i < D; i++)
        variance += ((double)a[i] - mean) * ((double)a[i] - mean) / (double)D;
    double r = 1 / sqrt(variance + (double)REAL(arg->eps)), shift = fabs(mean) * r;
    for (int64_t i = 0; i < D; i++) {
        double x = ((double)a[i] - mean) * r;
        mean_gx += (double)g[i] * x / (double)D;
        most_x = fmax(most_x, fabs(x));
        most_g = fmax(most_g, fabs((double)g[i]));
    }
    for (int64_t i = 0; i < D; i++) {
        double x = ((double)a[i] - mean) * r;
        if (arg->op == RSTD) {
            y[i] = r;
            room_y[i] = EPS * r * (6 + shift * shift * EPS);
        } else if (arg->op == NORMALIZE) {
            y[i] = x;
            room_y[i] = EPS * 6 * (shift + fabs(x) + 0.1);
        } else {
            y[i] = r * ((double)g[i] - mean_g - x * mean_gx);
            room_y[i] = EPS * 10 * r * most_g * most_x * (most_x + shift);
        }
    }
}

static void check_rows(sets *s, const row_arg *arg, ttt_tensor *const *in) {
    int64_t D = in[0]->shape.dim[in[0]->shape.rank - 1], rows = in[0]->size / D,
            width = arg->op == RSTD ? 1 : D;
    ttt_shape to = in[0]->shape;
    to.dim[to.rank - 1] = width;
    for (int64_t i = rows - 1; i >= 0; i--) {
        const ttt_real *a = in[0]->data + i * D;
        static double y[1 << 13], r[1 << 13];
        if (arg->op <= LOG_SOFTMAX) expect_softmax(a, D, arg->op == LOG_SOFTMAX, y, r);
        else expect_norm(arg, a, in[1]->data + i * D, D, y, r);
        memcpy(want + i * width, y, (size_t)width * sizeof *y);
        memcpy(room + i * width, r, (size_t)width * sizeof *r);
    }
    check_sets(s, row_name[arg->op], to, call_row, in, arg->op == NORMALIZE_D1 ? 2 : 1, arg);
}

static void row_ops_of_all_lengths(void) {
    sets s = sets_open();
    for (int64_t D = 1; D <= 71; D = D == 70 ? 4099 : D + 1)
        for (int k = 0; k < 16; k++) {
            row_arg arg = { (row_op)(k % 5), k < 8 ? 1e-5 : 0.1, k % 2 };
            ttt_mark m = ttt_mark_get(s.c[0]);
            ttt_tensor *in[2] = { numbers(s.c[0], TTT_SHAPE(3, D)),
                                  numbers(s.c[0], TTT_SHAPE(3, D)) };
            check_rows(&s, &arg, in);
            ttt_mark_release(s.c[0], m);
        }
    sets_close(&s);
}

// Rows far from zero: a variance computed as mean a^2 - mean^2 would be noise.
static void norms_of_rows_with_a_large_mean(void) {
    sets s = sets_open();
    ttt_tensor *in[2] = { ttt_uniform(s.c[0], TTT_SHAPE(4, 50), 999, 1001),
                          numbers(s.c[0], TTT_SHAPE(4, 50)) };
    for (int op = NORMALIZE; op <= RSTD; op++)
        check_rows(&s, &(row_arg){ (row_op)op, 1e-5, true }, in);
    sets_close(&s);
}

static void softmax_of_large_and_infinite_numbers(void) {
    const double inf = (double)INFINITY;
    const double rows[][5] = {
        { 1e4, 1e4, 1e4 - 1, 9990, 0 }, { -1e30, -1e30, -2e30, -1e30, -1e30 },
        { 88, 89, 90, 91, 92 },         { -inf, 0, -inf, 1, 2 },
        { -inf, -inf, -inf, -inf, -3 }, { 3e38, -3e38, 0, 1, 3e38 },
    };
    sets s = sets_open();
    for (int i = 0; i < COUNT(rows); i++)
        for (int op = SOFTMAX; op <= LOG_SOFTMAX; op++) {
            ttt_tensor *x = row_of(s.c[0], 5, rows[i]);
            check_rows(&s, &(row_arg){ (row_op)op, 0, false }, &x);
        }
    sets_close(&s);
}

// NaN anywhere in a row makes the whole row NaN. -infinity everywhere is a row that sees nothing:
// zeros, whose logarithms do not exist.
static void softmax_does_not_hide_nan(void) {
    sets s = sets_open();
    for (int n = 1; n < 40; n++)
        for (int at = 0; at <= n; at++)
            for (int op = SOFTMAX; op <= LOG_SOFTMAX; op++) {
                ttt_tensor *x = ttt_full(s.c[0], TTT_SHAPE(n), at == n ? -(ttt_real)INFINITY : 1);
                if (at < n) x->data[at] = (ttt_real)NAN;
                for (int i = 0; i < n; i++) want[i] = at == n && op == SOFTMAX ? 0 : (double)NAN;
                check_sets(&s, row_name[op], x->shape, call_row, &x, 1,
                           &(row_arg){ (row_op)op, 0, false });
            }
    sets_close(&s);
}

// ---- what is hidden -----------------------------------------------------------------------------
typedef void hidden_test(ttt_ctx *c, ttt_real value);
static void each_hidden(hidden_test *test) {
    const double any_number[] = { (double)NAN, (double)INFINITY, -(double)INFINITY, 1e34, 3e38 };
    for (int i = 0; ttt_isa_name(i); i++)
        for (int v = 0; v < COUNT(any_number); v++) {
            ttt_ctx *c = ttt_open(&(ttt_desc){ .isa = ttt_isa_name(i), .seed = 4 });
            test(c, REAL(any_number[v]));
            CHECK(ttt_ok(c));
            ttt_close(c);
        }
}

// Weights of which each row knows the rows of b up to its own, and of the last none.
static void hidden_rows_of_a_product(ttt_ctx *c, ttt_real value) {
    enum { N = 21, D = 9 };
    for (int ta = 0; ta < 2; ta++) {
        ttt_tensor *a = ttt_randn(c, TTT_SHAPE(2, 1, N, N)), *b = ttt_randn(c, TTT_SHAPE(3, N, D));
        ttt_tensor *add = ttt_randn(c, TTT_SHAPE(D)), *g[2];
        for (int64_t i = 0; i < a->size; i++)
            if (i % (N * N) / N < i % N || i % N == N - 1) a->data[i] = 0;
        if (ta) a = ttt_detach(c, ttt_transpose(c, a));
        ttt_tensor *y = ttt_mix(c, a, b, ta, add);
        CHECK(same_bits(y, ttt_matmul_add(c, a, b, ta, false, add)));
        ttt_tensor *other = ttt_from(c, b->shape, b->data);
        for (int64_t i = 0; i < D; i++) other->data[(2 * N - 1) * D + i] = value;  // last of b[1]
        CHECK(same_bits(y, ttt_mix(c, a, other, ta, add)));
        other->data[7 * D + 3] = value;  // row 7 of b[0]: seen by row 7 and those behind it
        ttt_tensor *z = ttt_mix(c, a, other, ta, add);
        for (int64_t i = 0; i < z->size; i++) {
            bool sees = i / (N * D) % 3 == 0 && i % (N * D) / D >= 7 && i % D == 3;
            CHECK(sees ? y->data[i] != z->data[i] : y->data[i] == z->data[i]);
            if (sees && value - value != 0) CHECK(z->data[i] - z->data[i] != 0);
        }
        // Backwards the same holds, with the rows of g in the place of those of b.
        ttt_tensor *seed = ttt_full(c, y->shape, 1);
        ttt_vjp(c, y, seed, (ttt_tensor *[]){ a, b }, 2, g, TTT_GRAD_FIRST_ORDER);
        ttt_tensor *whole = ttt_detach(c, g[1]);
        for (int64_t i = 0; i < D; i++) seed->data[i] = value;  // row 0 saw row 0 alone
        ttt_vjp(c, y, seed, (ttt_tensor *[]){ a, b }, 2, g, TTT_GRAD_FIRST_ORDER);
        for (int64_t i = D; i < N * D; i++) CHECK(g[1]->data[i] == whole->data[i]);
    }
}
static void a_zero_weight_takes_nothing(void) { each_hidden(hidden_rows_of_a_product); }

static void hidden_places_of_a_softmax(ttt_ctx *c, ttt_real value) {
    enum { N = 19 };
    ttt_tensor *a = ttt_randn(c, TTT_SHAPE(2, 3, N, N)), *seen = ttt_zeros(c, TTT_SHAPE(N, N));
    for (int i = 1; i < N; i++)  // row 0 sees nothing
        for (int k = 0; k <= i; k++) seen->data[i * N + k] = 1;
    ttt_tensor *y = ttt_softmax_seen(c, a, seen), *w = ttt_randn(c, a->shape), *g;
    ttt_vjp(c, y, w, &a, 1, &g, TTT_GRAD_FIRST_ORDER);
    ttt_tensor *other = ttt_from(c, a->shape, a->data), *other_w = ttt_from(c, w->shape, w->data);
    for (int64_t i = 0; i < a->size; i++) {
        bool hidden = seen->data[i % (N * N)] == 0;
        if (hidden) CHECK(y->data[i] == 0 && g->data[i] == 0);
        if (hidden) other->data[i] = other_w->data[i] = value;
    }
    ttt_tensor *z = ttt_softmax_seen(c, other, seen), *other_g;
    ttt_vjp(c, z, other_w, &other, 1, &other_g, TTT_GRAD_FIRST_ORDER);
    CHECK(same_bits(y, z) && same_bits(g, other_g));
    ttt_tensor *all = ttt_full(c, TTT_SHAPE(N), 1);
    CHECK(same_bits(ttt_softmax_seen(c, a, all), ttt_softmax(c, a)));
}
static void a_softmax_hides_what_is_not_seen(void) { each_hidden(hidden_places_of_a_softmax); }

static void a_row_that_sees_nothing_has_gradient_zero(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = ttt_full(c, TTT_SHAPE(2, 5), -(ttt_real)INFINITY), *g;
    ttt_tensor *y = ttt_softmax(c, a), *w = ttt_randn(c, a->shape);
    ttt_vjp(c, y, w, &a, 1, &g, TTT_GRAD_FIRST_ORDER);
    for (int i = 0; i < 10; i++) CHECK(y->data[i] == 0 && g->data[i] == 0);
    ttt_close(c);
}

static void sums_so_far_lose_nothing(void) {
    enum { N = 3000, D = 19 };
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = ttt_uniform(c, TTT_SHAPE(2, N, D), REAL(-1.01e-4), REAL(-1e-4)), *y[2];
    a->data[(N - 1) * D + 2] = (ttt_real)NAN;  // nothing before it notices
    for (int r = 0; r < 2; r++) y[r] = ttt_cumsum(c, r ? a : ttt_detach(c, a), 1, r);
    double worst = 0;
    for (int64_t j = 0; j < 2 * D; j++) {
        double sum[2] = { 0, 0 };
        for (int64_t i = 0; i < N; i++)
            for (int r = 0; r < 2; r++) {
                int64_t at = (j / D * N + (r ? N - 1 - i : i)) * D + j % D;
                sum[r] += (double)a->data[at];
                if (j == 2 && (r || i == N - 1)) CHECK(isnan(y[r]->data[at]));
                else worst = ttt_test_worse(worst, fabs((double)y[r]->data[at] / sum[r] - 1));
            }
    }
    CHECK(worst <= (DOUBLE ? 1e-14 : 6e-8));
    CHECK(same_bits(ttt_cumsum(c, ttt_reshape(c, a, TTT_SHAPE(2 * N, D)), -1, false),
                    ttt_reshape(c, ttt_cumsum(c, a, 2, false), TTT_SHAPE(2 * N, D))));
    ttt_close(c);
}

static void max_abs_diff_does_not_hide_nan(void) {
    ttt_ctx *c = open_ctx();
    double a[3] = { 1, (double)NAN, 2 }, b[3] = { 1, 5, 2.5 };
    CHECK(isnan(ttt_max_abs_diff(row_of(c, 3, a), row_of(c, 3, b))));
    CHECK(isnan(ttt_max_abs_diff(row_of(c, 3, b), row_of(c, 2, b))));
    a[1] = 5;
    CHECK(ttt_max_abs_diff(row_of(c, 3, a), row_of(c, 3, b)) == 0.5);
    CLOSE(c);
}

// ---- sizes that no tensor can have, and numbers that name nothing -------------------------------
// Each call gives an error that begins with the function's name and says what was expected; none
// wraps to a small size, and none gives an empty tensor without an error.
enum { NO_ENUM = 99 };
#define HUGE_SIZE ((int64_t)1 << 62)
#define WIDE ((int64_t)1 << 32)
#define OUT_OF_RANGE(X)                                                                            \
    X("new", ttt_zeros(c, TTT_SHAPE(WIDE, WIDE, WIDE)))                                            \
    X("new", ttt_new(c, TTT_SHAPE(-1)))                                                            \
    X("new", ttt_full(c, TTT_SHAPE(HUGE_SIZE), 1))                                                 \
    X("new", ttt_randn(c, TTT_SHAPE(WIDE, WIDE)))                                                  \
    X("new", ttt_uniform(c, TTT_SHAPE(3, -3), 0, 1))                                               \
    X("new", ttt_zeros_kept(c, TTT_SHAPE(HUGE_SIZE, 8)))                                           \
    X("new", ttt_from(c, TTT_SHAPE(WIDE, WIDE, 0 - 1), NULL))                                      \
    X("new", ttt_from_int(c, TTT_SHAPE(1, 1, 1, 1, 1, 1, 1, 1, 1), NULL))                          \
    X("pad", ttt_pad(c, x, 0, 0, INT64_MAX))                                                       \
    X("pad", ttt_pad(c, x, 0, INT64_MAX, INT64_MAX))                                               \
    X("pad", ttt_pad(c, x, 0, INT64_MIN, INT64_MIN))                                               \
    X("pad", ttt_pad(c, x, INT_MIN, 0, 3))                                                         \
    X("slice", ttt_slice(c, x, 0, INT64_MAX, INT64_MAX))                                           \
    X("slice", ttt_slice(c, x, 0, INT64_MIN, INT64_MIN))                                           \
    X("slice", ttt_slice(c, x, INT_MAX, 0, 1))                                                     \
    X("concat", ttt_concat(c, (ttt_tensor *[]){ none, none, none }, 3, 0))                         \
    X("concat", ttt_concat(c, &x, 0, 0))                                                           \
    X("concat", ttt_concat(c, &x, -3, 0))                                                          \
    X("concat", ttt_concat(c, &x, 1, 7))                                                           \
    X("index_add", ttt_index_add(c, pair, rows, -1))                                               \
    X("index_add", ttt_index_add(c, pair, rows, INT64_MAX))                                        \
    X("index_add", ttt_index_add(c, ttt_slice(c, pair, 0, 0, 0), ttt_from_int(c, TTT_SHAPE(0),     \
                                                                             NULL), -5))           \
    X("broadcast", ttt_broadcast(c, x, TTT_SHAPE(WIDE, WIDE, 2, 3, 4)))                            \
    X("broadcast", ttt_broadcast(c, x, TTT_SHAPE(-1, 2, 3, 4)))                                    \
    X("reshape", ttt_reshape(c, x, TTT_SHAPE(WIDE, WIDE, WIDE)))                                   \
    X("reshape", ttt_reshape(c, x, TTT_SHAPE(-1, 24)))                                             \
    X("matmul", ttt_matmul(c, ttt_new(c, TTT_SHAPE(WIDE, 0)), ttt_new(c, TTT_SHAPE(0, WIDE))))     \
    X("sum_axis", ttt_sum_axis(c, x, 9))                                                           \
    X("mean_axis", ttt_mean_axis(c, x, -9))                                                        \
    X("max_axis", ttt_max_axis(c, x, 3))                                                           \
    X("argmax", ttt_argmax(c, x, INT_MIN))                                                         \
    X("norm_axis", ttt_norm_axis(c, x, 3))                                                         \
    X("permute", ttt_permute(c, x, (int[]){ 0, 40, 1 }))                                           \
    X("new_typed", ttt_new_typed(c, TTT_SHAPE(1), (ttt_dtype)NO_ENUM, false))                      \
    X("cast", ttt_cast(c, x, (ttt_dtype)NO_ENUM))                                                  \
    X("grad", (ttt_grad(c, ttt_sum(c, x), &x, 1, g, (ttt_grad_mode)NO_ENUM), g[0]))                \
    X("grad", (ttt_vjp(c, x, x, &x, 1, g, (ttt_grad_mode)-1), g[0]))                               \
    X("grad", (ttt_grad(c, ttt_sum(c, x), &x, -1, g, TTT_GRAD_RECORD), NULL))                      \
    X("concat", ttt_apply(c, op_of_many(), &x, -1, TTT_SHAPE(1), NULL, 0))                     \
    X("remat", ttt_remat(c, NULL, &x, 1, TTT_SHAPE(1), "", SIZE_MAX - 3))
// An op of any number of inputs.
static const ttt_op *op_of_many(void) {
    int i = 0;
    while (strcmp(ttt_op_table(i)->name, "concat")) i++;
    return ttt_op_table(i);
}
static void sizes_and_names_out_of_range_are_errors(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = numbers(c, TTT_SHAPE(2, 3, 4)), *pair = numbers(c, TTT_SHAPE(2, 4)), *g[1];
    ttt_tensor *rows = ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 0, 1 });
    ttt_tensor *none = ttt_new(c, TTT_SHAPE(HUGE_SIZE, 0));
#define X(name, call)                                                           \
    {                                                                           \
        const ttt_tensor *y = call;                                             \
        size_t n = strlen(name);                                                \
        bool named = !strncmp(ttt_error(c), name, n) && ttt_error(c)[n] == ':';  \
        named = named && strstr(ttt_error(c), "expected");                      \
        if (!named) printf("  %s: \"%s\"\n", #call, ttt_error(c));              \
        CHECK(named);                                                           \
        CHECK(!y || y == &c->empty);                                            \
        ttt_clear(c);                                                           \
    }
    OUT_OF_RANGE(X)
#undef X
    CLOSE(c);
}

// Rows are summed in blocks of 1024.
static void softmax_of_long_rows(void) {
    static const int64_t length[] = { 1023, 1024, 1025, 2500, 5000 };
    sets s = sets_open();
    for (int i = 0; i < s.n * COUNT(length); i++) {
        ttt_ctx *c = s.c[i / COUNT(length)];
        int64_t n = length[i % COUNT(length)];
        ttt_tensor *a = ttt_uniform(c, TTT_SHAPE(2, n), -4, 4), *y = ttt_softmax(c, a),
                   *log_y = ttt_log_softmax(c, a);
        for (int64_t row = 0; row < 2 && ttt_ok(c); row++) {
            double sum = 0, off = 0, log_off = 0;
            for (int64_t k = 0; k < n; k++) sum += exp((double)a->data[row * n + k]);
            for (int64_t k = row * n; k < (row + 1) * n; k++) {
                double right = exp((double)a->data[k]) / sum;
                off = fmax(off, fabs((double)y->data[k] / right - 1));
                log_off = fmax(log_off, fabs((double)log_y->data[k] - log(right)));
            }
            CHECK(off < (DOUBLE ? 1e-14 : 2e-6) && log_off < (DOUBLE ? 1e-13 : 1e-5));
        }
    }
    sets_close(&s);
}

// ---- stored types -------------------------------------------------------------------------------
static ttt_tensor *stored(ttt_ctx *c, ttt_shape s, ttt_dtype dtype) {  // small numbers, in any type
    ttt_tensor *t = ttt_new_typed(c, s, dtype, false);
    for (int64_t i = 0; i < t->size; i++) {
        if (t->data) t->data[i] = REAL(i % 3);
        if (t->index) t->index[i] = i % 3;
        if (t->u8) t->u8[i] = (uint8_t)(i % 3);
        if (t->bf16) t->bf16[i] = ttt__bf16_of(REAL(i % 3));
        static const uint16_t half[3] = { 0, 0x3c00, 0x4000 };
        size_t bytes = t->stored ? ttt__element_bytes(dtype) : 0;
        if (bytes == 1) ((int8_t *)t->stored)[i] = (int8_t)(i % 3);
        if (bytes == 4) ((int32_t *)t->stored)[i] = (int32_t)(i % 3);
        if (bytes == 2)
            ((uint16_t *)t->stored)[i] = dtype == TTT_DTYPE_F16 ? half[i % 3] : (uint16_t)(i % 3);
    }
    return t;
}
static const char *const type_words[TTT__N_DTYPES] = {
    "real numbers", "integers", "bytes", "bfloat16", "half precision", "integers of 8 bits",
    "integers of 16 bits", "integers of 32 bits", "16 bits without sign", "32 bits without sign",
};

static void casts_keep_every_number(void) {
    sets s = sets_open();
    for (int i = 0; i < s.n; i++) {
        ttt_ctx *c = s.c[i];
        uint16_t half[65536], *h = half;
        uint8_t byte[256];
        for (int k = 0; k < 65536; k++) half[k] = (uint16_t)k;
        for (int k = 0; k < 256; k++) byte[k] = (uint8_t)k;
        ttt_tensor *all = ttt_cast(c, ttt_from_bf16(c, TTT_SHAPE(256, 256), half), TTT_DTYPE_REAL),
                   *back = ttt_cast(c, all, TTT_DTYPE_BF16);
        CHECK(all->dtype == TTT_DTYPE_REAL && !all->op && back->bf16 && !back->data &&
              ttt_shape_equal(back->shape, all->shape));
        for (int k = 0; k < 65536; k++) {
            uint32_t bits = (uint32_t)k << 16;
            float f;
            memcpy(&f, &bits, sizeof f);
            bool number = !isnan(f);
            CHECK(number ? (double)all->data[k] == (double)f &&
                               !signbit(all->data[k]) == !signbit(f) && back->bf16[k] == h[k]
                         : isnan(all->data[k]) && (back->bf16[k] & 0x7fff) > 0x7f80);
        }
        ttt_tensor *bytes = ttt_from_u8(c, TTT_SHAPE(256), byte),
                   *real = ttt_cast(c, bytes, TTT_DTYPE_REAL),
                   *whole = ttt_cast(c, bytes, TTT_DTYPE_INT);
        for (int k = 0; k < 256; k++) CHECK(real->data[k] == k && whole->index[k] == k);
        const int64_t large[] = {
            -5, 0, 1 << 24, (1 << 24) + 1, (1 << 24) + 3, INT64_MAX, INT64_MIN
        };
        ttt_tensor *r = ttt_cast(c, ttt_from_int(c, TTT_SHAPE(7), large), TTT_DTYPE_REAL);
        for (int k = 0; k < 7; k++) {
            volatile ttt_real rounded = (ttt_real)large[k];  // x87 rounds where it stores
            CHECK(r->data[k] == rounded);
        }
        for (int type = 0; type < TTT__N_DTYPES; type++) {
            ttt_tensor *t = stored(c, TTT_SHAPE(2, 3), (ttt_dtype)type),
                       *same = ttt_cast(c, t, (ttt_dtype)type);
            CHECK(same != t && same->dtype == t->dtype && same->shares == t);
            ttt_tensor *number = ttt_cast(c, t, TTT_DTYPE_REAL);
            for (int k = 0; k < 6; k++) CHECK(number->data[k] == k % 3);
            bool integers = strstr(type_words[type], "without") || type == TTT_DTYPE_U8 ||
                            strstr(type_words[type], "integers");
            ttt_tensor *place = ttt_cast(c, t, TTT_DTYPE_INT);
            for (int k = 0; k < 6 && integers; k++) CHECK(place->index[k] == k % 3);
            CHECK(ttt_ok(c) == integers);
            ttt_clear(c);
            ttt_tensor *none = ttt_new_typed(c, TTT_SHAPE(0), (ttt_dtype)type, false);
            CHECK(ttt_cast(c, none, TTT_DTYPE_REAL)->size == 0);
        }
    }
    sets_close(&s);
}
static void bfloat16_is_rounded_to_nearest_even(void) {
    ttt_ctx *c = open_ctx();
    const double one = 1.0 / 128;  // from 1 to the next bfloat16
    const double x[] = { 1 + one / 2, 1 + one * 1.5, 1 + one * 0.51, -1 - one * 0.49,
                         3.4e38, -3.4e38, 1e-45, -0.0, inf, nan_ };
    const double y[] = { 1, 1 + 2 * one, 1 + one, -1, inf, -inf, 0, 0, inf, nan_ };
    check_row("rounded to bfloat16",
              ttt_cast(c, ttt_cast(c, row_of(c, 10, x), TTT_DTYPE_BF16), TTT_DTYPE_REAL), y, 0);
    CLOSE(c);
}

static void tensors_of_every_type(void) {
    host h = { 0 };
    ttt_ctx *c = open_host(&h);
    const size_t bytes[TTT__N_DTYPES] = { sizeof(ttt_real), 8, 1, 2, 2, 1, 2, 4, 2, 4 };
    for (int type = 0; type < TTT__N_DTYPES; type++)
        for (int keep = 0; keep < 2; keep++) {
            ttt_mark m = ttt_mark_get(c);
            ttt_memory_report before = ttt_memory(c), after;
            ttt_tensor *t = ttt_new_typed(c, TTT_SHAPE(64, 3), (ttt_dtype)type, keep),
                       *again = ttt_detach(c, t);
            after = ttt_memory(c);
            const void *elements[] = { t->data, t->index, t->u8, t->bf16, t->stored },
                       *shared[] = { again->data, again->index, again->u8, again->bf16,
                                     again->stored };
            for (int k = 0; k < 5; k++)
                CHECK((elements[k] != NULL) == (k == (type < 4 ? type : 4)) &&
                      shared[k] == elements[k]);
            CHECK(t->dtype == (ttt_dtype)type && t->size == 192 && t->kept == (keep != 0) &&
                  again->dtype == t->dtype && again->shares == t);
            size_t used = keep ? after.keep - before.keep : after.step - before.step;
            CHECK(used >= 192 * bytes[type] + sizeof *t &&
                  used <= 192 * bytes[type] + (keep ? 1 : 2) * (sizeof(ttt__place) + 128));
            CHECK(type == TTT_DTYPE_REAL || (isnan(ttt_max_abs_diff(t, t)) &&
                                             isnan(ttt_item(stored(c, SCALAR, (ttt_dtype)type)))));
            CHECK(ttt_ok(c) == (type == TTT_DTYPE_REAL));
            ttt_clear(c);
            ttt_mark_release(c, m);
        }
    ttt_close(c);
    CHECK(h.living == 0);
}

// Every input of every op, by the examples of the table.
static void no_op_takes_what_is_only_stored(void) {
    ttt_ctx *c = open_ctx();
    for (int row = 0; ttt_op_table(row); row++) {
        const ttt_op *op = ttt_op_table(row);
        op_inputs in;
        op_example(NULL, row, NULL, &in);
        for (int i = 0; i < in.n; i++)
            for (int type = TTT_DTYPE_INT; type < TTT__N_DTYPES; type++) {
                ttt_tensor *x[2];
                for (int k = 0; k < in.n; k++)
                    x[k] = ttt_uniform(c, in.shape[k], REAL(op->lo), REAL(op->hi));
                x[i] = stored(c, in.shape[i], (ttt_dtype)type);
                ttt_tensor *y = op_example(c, row, x, &in);
                bool factor = i == 1 && type == TTT_DTYPE_BF16 && !strncmp(op->name, "matmul", 6);
                if (factor) CHECK(ttt_ok(c) && y->op == op);
                else FAILS(y, TTT_ERR_ARGUMENT, type_words[type], "real numbers", "expected");
            }
    }
    CLOSE(c);
}
static void stored_types_are_refused_by_name(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = numbers(c, TTT_SHAPE(2, 2)), *u = stored(c, TTT_SHAPE(2, 2), TTT_DTYPE_U8),
               *b = stored(c, TTT_SHAPE(2, 2), TTT_DTYPE_BF16), *out;
    ttt_tensor *i = stored(c, TTT_SHAPE(2, 2), TTT_DTYPE_INT);
    FAILS(ttt_matmul(c, b, a), TTT_ERR_ARGUMENT,
          "matmul: the first input holds bfloat16; real numbers expected");
    FAILS(ttt_matmul(c, a, u), TTT_ERR_ARGUMENT,
          "matmul: the second input holds bytes; real numbers or bfloat16 expected");
    FAILS(ttt_affine(c, a, b, b), TTT_ERR_ARGUMENT,
          "affine: the third input holds bfloat16; real numbers expected");
    FAILS(ttt_where(c, b, a, a), TTT_ERR_ARGUMENT,
          "where: the first input holds bfloat16; real numbers or integers or bytes expected");
    FAILS(ttt_where(c, u, a, u), TTT_ERR_ARGUMENT,
          "where: the third input holds bytes; real numbers expected");
    FAILS(ttt_index_select(c, a, u), TTT_ERR_SHAPE, "index_select", "integers");
    FAILS(ttt_index_add(c, a, u, 3), TTT_ERR_SHAPE, "index_add", "integers");
    FAILS(ttt_embedding(c, u, i), TTT_ERR_ARGUMENT,
          "embedding: the first input holds bytes; real numbers or bfloat16 expected");
    FAILS(ttt_embedding(c, a, u), TTT_ERR_ARGUMENT,
          "embedding: the second input holds bytes; integers expected");
    FAILS(ttt_max_axis(c, u, 0), TTT_ERR_ARGUMENT, "max_axis: the first input holds bytes");
    FAILS(ttt_argmax(c, i, 0), TTT_ERR_ARGUMENT, "argmax: the first input holds integers");
    FAILS(ttt_dropout(c, b, 0), TTT_ERR_ARGUMENT, "dropout: the first input holds bfloat16");
    FAILS(ttt_cast(c, a, TTT_DTYPE_U8), TTT_ERR_ARGUMENT, "cast: from real numbers to bytes",
          "expected");
    FAILS(ttt_cast(c, a, TTT_DTYPE_INT), TTT_ERR_ARGUMENT, "cast: from real numbers to integers",
          "expected");
    FAILS(ttt_cast(c, u, TTT_DTYPE_BF16), TTT_ERR_ARGUMENT, "cast: from bytes to bfloat16",
          "expected");
    FAILS(ttt_cast(c, b, TTT_DTYPE_INT), TTT_ERR_ARGUMENT, "cast: from bfloat16 to integers",
          "expected");
    FAILS(ttt_cast(c, a, (ttt_dtype)TTT__N_DTYPES), TTT_ERR_ARGUMENT,
          "cast: from real numbers to no element type");
    FAILS(ttt_cast(c, NULL, TTT_DTYPE_REAL), TTT_ERR_RELEASED, "cast");
    FAILS(ttt_new_typed(c, TTT_SHAPE(2), (ttt_dtype)99, false), TTT_ERR_ARGUMENT, "new_typed",
          "99");
    FAILS(ttt_new_typed(c, TTT_SHAPE(-2), TTT_DTYPE_U8, false), TTT_ERR_SHAPE, "(-2)");
    FAILS(ttt_from_bf16(c, TTT_SHAPE(-2), b->bf16), TTT_ERR_SHAPE, "(-2)");
    for (int k = 0; k < 2; k++) {
        ttt_grad(c, ttt_sum(c, ttt_matmul(c, a, b)), k ? &u : &b, 1, &out, TTT_GRAD_FIRST_ORDER);
        FAILS(out, TTT_ERR_ARGUMENT, "grad: wrt[0] holds", k ? "bytes" : "bfloat16",
              "real numbers expected");
        CHECK(isnan(ttt_check_gradient(c, op_value, k ? &u : &b, 1, NULL, 1, 1e-3)));
        FAILS(NULL, TTT_ERR_ARGUMENT, "check_gradient", k ? "bytes" : "bfloat16");
    }
    CLOSE(c);
}

static ttt_tensor *remat_product(ttt_ctx *c, ttt_tensor *const *in, int n, const void *user) {
    (void)n, (void)user;
    return ttt_tanh(
        c, ttt_matmul(c, ttt_where(c, in[2], in[0], ttt_cast(c, in[2], TTT_DTYPE_REAL)), in[1]));
}
static void stored_types_go_through_recomputation_and_profiles(void) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 1, .watch_nan = true });
    ttt_tensor *in[3] = { numbers(c, TTT_SHAPE(2, 3)), stored(c, TTT_SHAPE(3, 4), TTT_DTYPE_BF16),
                          stored(c, TTT_SHAPE(2, 3), TTT_DTYPE_U8) };
    for (int order = 1; order <= 2; order++)
        CHECK(same_bits(
            derivative(c, remat_product(c, in, 3, NULL), in[0], order, TTT_GRAD_FIRST_ORDER),
            derivative(c, ttt_remat(c, remat_product, in, 3, TTT_SHAPE(2, 4), NULL, 0), in[0],
                       order, TTT_GRAD_FIRST_ORDER)));
    ttt_profile_start(c);
    ttt_matmul(c, in[0], in[1]);
    ttt_cast(c, in[2], TTT_DTYPE_REAL);
    ttt_profile_row rows[10];
    int n = ttt_profile_rows(c, rows, 10), seen = 0;
    for (int i = 0; i < n; i++) {
        bool product = !strcmp(rows[i].name, "matmul"), cast = !strcmp(rows[i].name, "cast");
        CHECK(!product || rows[i].bytes == 2.0 * 12 + (double)sizeof(ttt_real) * (6 + 8));
        CHECK(!cast || rows[i].bytes == 6 + (double)sizeof(ttt_real) * 6);
        seen += product + cast;
    }
    CHECK(seen == 2);
    CLOSE(c);
}

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(every_op_has_right_derivatives),
        T(every_op_has_one_gradient),
        T(operands_broadcast_in_all_patterns),
        T(functions_are_accurate_over_the_whole_range),
        T(functions_of_special_values),
        T(functions_and_derivatives_equal_60_digits),
        T(derivatives_at_infinity_are_limits),
        T(functions_of_short_rows),
        T(scale_and_shift),
        T(sums_over_every_group_of_axes),
        T(sums_of_all_row_lengths),
        T(long_sums_are_accurate),
        T(broadcast_repeats),
        T(sums_and_means_by_other_names),
        T(lengths_of_zero_have_the_gradients_of_a_length),
        T(norms_of_every_size),
        T(the_largest_numbers_have_norms_and_means),
        T(permute_puts_axes_in_every_order),
        T(transpose_of_all_sizes),
        T(slice_place_and_concat_undo_each_other),
        T(reshape_and_detach_share_their_numbers),
        T(index_select_and_index_add_by_hand),
        T(embedding_gives_rows_of_a_table),
        T(clamp_keeps_what_lies_between),
        T(powers_have_right_derivatives_everywhere),
        T(where_takes_one_of_two),
        T(where_lets_nothing_through_from_the_other),
        T(dropout_is_its_definition),
        T(dropout_draws_from_the_context),
        T(what_is_computed_again_drops_the_same),
        T(the_largest_along_every_axis),
        T(depthwise_convolutions_are_their_sums),
        T(depthwise_convolutions_have_derivatives_of_every_order),
        T(depthwise_convolutions_pass_on_what_is_seen),
        T(taps_of_long_lines_are_accurate),
        T(solve_lower_solves),
        T(row_ops_of_all_lengths),
        T(norms_of_rows_with_a_large_mean),
        T(softmax_of_large_and_infinite_numbers),
        T(softmax_does_not_hide_nan),
        T(a_zero_weight_takes_nothing),
        T(a_softmax_hides_what_is_not_seen),
        T(a_row_that_sees_nothing_has_gradient_zero),
        T(sums_so_far_lose_nothing),
        T(max_abs_diff_does_not_hide_nan),
        T(sizes_and_names_out_of_range_are_errors),
        T(softmax_of_long_rows),
        T(casts_keep_every_number),
        T(bfloat16_is_rounded_to_nearest_even),
        T(tensors_of_every_type),
        T(no_op_takes_what_is_only_stored),
        T(stored_types_are_refused_by_name),
        T(stored_types_go_through_recomputation_and_profiles),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
