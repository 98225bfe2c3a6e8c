// Tests of ttt_tensor.h; its files are tested in test_files.c.
//
// The same text is compiled twice: with float, which tests every instruction set of this machine against
// sums in double, and with -DTTT_REAL=double, which tests derivatives to many digits. With TTT_POISON
// released memory is filled with NaN on top of that.

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// What a program lends to a context: counted memory that can be made to run out, an error handler, and
// threads. Contexts opened without one have memory too. New memory is full of NaN: nothing is zero by luck.
typedef struct {
    long calls, living;      // of the allocator; blocks not freed
    long fail_at, refused;   // the call that gets no memory, from 1; 0: none
    int fail_on;             // all later ones get none either
    int errors, error;       // calls of on_error, and its last result
    int loops;               // calls of parallel_for
} host;

static int host_refuses(host *h, size_t n) {
    h->calls++;
    int fails = h->fail_at && (h->calls == h->fail_at || (h->fail_on && h->calls > h->fail_at));
    fails = fails || n / 1024 > 1024 * 1024;  // no machine has a terabyte
    h->refused += fails;
    return fails;
}
static void *host_get(host *h, size_t n) {
    if (h && host_refuses(h, n)) return NULL;
    if (h) h->living++;
    void *p = malloc(n);
    return p ? memset(p, 0xff, n) : NULL;
}
static void *host_resize(host *h, void *p, size_t n) {
    if (h && host_refuses(h, n)) return NULL;
    if (h) h->living += p == NULL;
    return realloc(p, n);
}
static void host_free(host *h, void *p) {
    if (h) h->living--;
    free(p);
}
#define TTT_MALLOC(user, n) host_get((host *)(user), n)
#define TTT_REALLOC(user, p, n) host_resize((host *)(user), p, n)
#define TTT_FREE(user, p) host_free((host *)(user), p)

#define TTT_IMPLEMENTATION
#include "../ttt_tensor.h"
#include "ttt_test.h"
#include <float.h>

// ---- what all tests use --------------------------------------------------------------------------
#define DOUBLE (sizeof(ttt_real) == 8)
#define EPS (DOUBLE ? DBL_EPSILON : (double)FLT_EPSILON)  // from 1 to the next number; rounding errs by half
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
#define REAL(x) ((ttt_real)(x))
#define SCALAR ttt_scalar_shape()

static ttt_ctx *open_ctx(void) { return ttt_open(&(ttt_desc){ .seed = 1 }); }
static ttt_ctx *open_host(host *h) { return ttt_open(&(ttt_desc){ .seed = 1, .user = h }); }

// Closes a context in which nothing should have gone wrong.
#define CLOSE(c)                                         \
    do {                                                 \
        if (!ttt_ok(c)) printf("  %s\n", ttt_error(c));  \
        CHECK(ttt_ok(c));                                \
        ttt_close(c);                                    \
    } while (0)

static ttt_tensor *numbers(ttt_ctx *c, ttt_shape s) { return ttt_uniform(c, s, -2, 2); }
static ttt_tensor *row_of(ttt_ctx *c, int n, const double *values) {
    ttt_tensor *t = ttt_new(c, TTT_SHAPE(n));
    for (int i = 0; i < n; i++) t->data[i] = REAL(values[i]);
    return t;
}
static bool same_bits(const ttt_tensor *a, const ttt_tensor *b) {
    return ttt_shape_equal(a->shape, b->shape) && memcmp(a->data, b->data, (size_t)a->size * sizeof *a->data) == 0;
}
static uint64_t hash(uint64_t h, const ttt_tensor *t) {  // FNV-1a
    const unsigned char *bytes = (const unsigned char *)t->data;
    for (size_t i = 0; i < (size_t)t->size * sizeof *t->data; i++) h = (h ^ bytes[i]) * 0x100000001b3u;
    return h;
}

// Where element n of shape `all` falls in a tensor of shape s that is broadcast to `all`.
static int64_t place(ttt_shape s, ttt_shape all, int64_t n) {
    int64_t at = 0, step = 1;
    for (int i = 1; i <= all.rank; i++) {
        int64_t k = n % all.dim[all.rank - i];
        n /= all.dim[all.rank - i];
        if (i > s.rank) continue;
        at += s.dim[s.rank - i] == 1 ? 0 : k * step;
        step *= s.dim[s.rank - i];
    }
    return at;
}

// One number that every element of y moves, and not linearly: what derivatives are taken of.
static ttt_tensor *weigh(ttt_ctx *c, ttt_tensor *y) {
    ttt_tensor *w = ttt_new(c, y->shape);
    for (int64_t i = 0; i < w->size; i++) w->data[i] = REAL(0.3 + 0.17 * (double)(i % 7));
    return ttt_sum(c, ttt_mul(c, w, ttt_add(c, y, ttt_square(c, y))));
}

// What a result should be and how far from it it may lie, filled in by a reference in double.
enum { MOST = 1 << 18 };
static double want[MOST], room[MOST];

static void check_within(const char *what, const ttt_tensor *y) {
    int64_t worst = -1;
    double over = 0;
    for (int64_t i = 0; i < y->size; i++) {
        double got = (double)y->data[i], e = got == want[i] ? 0 : fabs(got - want[i]);
        if (isnan(want[i]) ? isnan(got) : e <= room[i]) continue;
        if (worst >= 0 && e - room[i] <= over) continue;
        worst = i;
        over = e - room[i];
    }
    if (worst >= 0)
        printf("  %s: [%ld] is %.9g, not %.9g +- %.1e\n", what, (long)worst, (double)y->data[worst], want[worst], room[worst]);
    CHECK(worst < 0);
}

// A context for each instruction set; all compute the same, and are held against the same reference.
typedef struct {
    int n;
    ttt_ctx *c[8];
} sets;
typedef ttt_tensor *call(ttt_ctx *c, ttt_tensor *const *in, const void *arg);

static sets sets_open(void) {
    sets s = { 0 };
    for (; ttt_isa_name(s.n); s.n++) s.c[s.n] = ttt_open(&(ttt_desc){ .seed = 1, .isa = ttt_isa_name(s.n) });
    return s;
}
static void sets_close(sets *s) {
    for (int i = 0; i < s->n; i++) CLOSE(s->c[i]);
}
static ttt_tensor *copy(ttt_ctx *c, const ttt_tensor *t) {
    switch (t->dtype) {
    case TTT_DTYPE_INT: return ttt_from_int(c, t->shape, t->index);
    case TTT_DTYPE_U8: return ttt_from_u8(c, t->shape, t->u8);
    case TTT_DTYPE_BF16: return ttt_from_bf16(c, t->shape, t->bf16);
    default: return ttt_from(c, t->shape, t->data);
    }
}
static void check_sets(sets *s, const char *what, ttt_shape shape, call *f, ttt_tensor *const *in, int n, const void *arg) {
    for (int i = 0; i < s->n; i++) {
        ttt_ctx *c = s->c[i];
        ttt_mark m = ttt_mark_get(c);
        ttt_tensor *x[4] = { NULL };
        for (int j = 0; j < n; j++) x[j] = copy(c, in[j]);
        ttt_tensor *y = f(c, x, arg);
        char text[100];
        snprintf(text, sizeof text, "%s, %s", what, ttt_isa(c));
        CHECK(ttt_shape_equal(y->shape, shape));
        check_within(text, y);
        ttt_mark_release(c, m);
    }
}

// Derivatives of f up to the given order, each against the difference quotient of the one below it. Its
// step h leaves an error of h^4 times a fifth derivative and one of EPS / h times f. In double both are
// below 1e-10. In float, h = 0.02, they are near 1e-6 and 1e-5, times sums of up to a hundred
// terms over a directional derivative that may be small: three digits are what remains.
#define DERIVATIVE_ERROR (DOUBLE ? 1e-6 : 5e-3)
static void check_orders(ttt_ctx *c, const char *what, ttt_function *f, ttt_tensor *const *x, int n, void *user, int orders) {
    for (int order = 1; order <= orders; order++) {
        double e = ttt_check_gradient(c, f, x, n, user, order, DOUBLE ? 1e-3 : 2e-2);
        if (!(e <= DERIVATIVE_ERROR)) printf("  %s, order %d: error %.1e %s\n", what, order, e, ttt_error(c));
        CHECK(e <= DERIVATIVE_ERROR);
    }
}

// Largest difference of two gradients, relative to the largest element.
static double difference(const ttt_tensor *a, const ttt_tensor *b) {
    double largest = 1e-30;
    for (int64_t i = 0; i < b->size; i++) largest = fmax(largest, fabs((double)b->data[i]));
    return ttt_max_abs_diff(a, b) / largest;
}

// ---- the op table --------------------------------------------------------------------------------
static ttt_tensor *ttt_test_index(ttt_ctx *c) {
    int64_t rows[] = { 2, 0, 3, 1, 1, 0, 1, 2, 3, 0, 3, 3, 1, 0, 2 };
    return ttt_from_int(c, TTT_SHAPE(3, 5), rows);
}

// Row `which` of the op table: the shapes of its inputs and, if there are inputs, its example call.
typedef struct {
    int n;
    ttt_shape shape[2];
} op_inputs;
static ttt_tensor *op_example(ttt_ctx *c, int which, ttt_tensor *const *in, op_inputs *inputs) {
    int row = 0;
#define X(name, formula, lo, hi, flops)                               \
    if (row++ == which) {                                             \
        *inputs = (op_inputs){ 1, { TTT_SHAPE(2, 3) } };              \
        return in ? ttt_##name(c, in[0]) : NULL;                      \
    }
    TTT_UNARY_OPS(X)
#undef X
#define X(name, formula, lo, hi, flops)                               \
    if (row++ == which) {                                             \
        *inputs = (op_inputs){ 2, { TTT_SHAPE(2, 3), TTT_SHAPE(3) } };\
        return in ? ttt_##name(c, in[0], in[1]) : NULL;               \
    }
    TTT_BINARY_OPS(X)
#undef X
#define X(name, n_in, formula, lo, hi, flops, shape0, shape1, example)                \
    if (row++ == which) {                                                             \
        *inputs = (op_inputs){ ttt_shape_size(shape1) == 1 ? 1 : 2, { shape0, shape1 } };  \
        return in ? example : NULL;                                                   \
    }
    TTT_OTHER_OPS(X)
#undef X
    inputs->n = 0;
    return NULL;
}
static ttt_tensor *op_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *which) {
    op_inputs inputs;
    (void)n;
    return weigh(c, op_example(c, *(int *)which, x, &inputs));
}

static void every_op_has_right_derivatives(void) {
    int rows = 0;
    for (op_inputs in; op_example(NULL, rows, NULL, &in), in.n; rows++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 3 });
        const ttt_op *op = ttt_op_table(rows);
        CHECK(op != NULL);
        if (!op) break;
        ttt_tensor *x[2];
        for (int i = 0; i < in.n; i++) x[i] = ttt_uniform(c, in.shape[i], REAL(op->lo), REAL(op->hi));
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
        for (int i = 0; i < in.n; i++) x[i] = ttt_uniform(c, in.shape[i], REAL(op->lo), REAL(op->hi));
        ttt_tensor *y = op_value(c, x, in.n, &row);
        ttt_grad(c, y, x, in.n, fast, TTT_GRAD_FIRST_ORDER);
        ttt_grad(c, y, x, in.n, recorded, TTT_GRAD_RECORD);
        for (int i = 0; i < in.n; i++) CHECK(difference(fast[i], recorded[i]) <= 4 * EPS);
    }
    CLOSE(c);
}

// ---- two operands, broadcast ---------------------------------------------------------------------
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
        { TTT_SHAPE(2, 3), TTT_SHAPE(3), TTT_SHAPE(2, 3) },               // a row
        { TTT_SHAPE(2, 1), TTT_SHAPE(2, 3), TTT_SHAPE(2, 3) },            // a column
        { TTT_SHAPE(4, 1), TTT_SHAPE(1, 5), TTT_SHAPE(4, 5) },            // both
        { TTT_SHAPE(2, 1, 4), TTT_SHAPE(2, 3, 4), TTT_SHAPE(2, 3, 4) },   // a middle axis
        { TTT_SHAPE(1, 3, 1), TTT_SHAPE(2, 3, 4), TTT_SHAPE(2, 3, 4) },   // all but the middle
        { TTT_SHAPE(2, 1, 3, 1), TTT_SHAPE(4, 1, 5), TTT_SHAPE(2, 4, 3, 5) },
        { TTT_SHAPE(1), TTT_SHAPE(1, 1, 1), TTT_SHAPE(1, 1, 1) },
        { TTT_SHAPE(3, 1), TTT_SHAPE(35), TTT_SHAPE(3, 35) },             // longer than a vector, with a rest
        { TTT_SHAPE(2, 1, 1, 1, 1, 1, 1, 2), TTT_SHAPE(2, 1, 2, 1, 2, 1), TTT_SHAPE(2, 1, 2, 1, 2, 1, 2, 2) },
        { TTT_SHAPE(0, 3), TTT_SHAPE(1, 3), TTT_SHAPE(0, 3) },            // nothing
    };
    sets s = sets_open();
    for (int p = 0; p < COUNT(pattern); p++)
        for (int op = 0; op < COUNT(binaries); op++) {
            ttt_ctx *c = s.c[0];
            ttt_mark m = ttt_mark_get(c);
            ttt_shape all = pattern[p][2];
            ttt_tensor *x[2] = { ttt_uniform(c, pattern[p][0], REAL(0.5), 2), ttt_uniform(c, pattern[p][1], REAL(0.5), 2) };
            for (int64_t i = 0; i < ttt_shape_size(all); i++) {
                want[i] = binary_reference(binaries[op].name, (double)x[0]->data[place(x[0]->shape, all, i)],
                                           (double)x[1]->data[place(x[1]->shape, all, i)]);
                room[i] = EPS * fabs(want[i]);
            }
            check_sets(&s, binaries[op].name, all, call_binary, x, 2, &op);
            if (ttt_shape_size(all)) check_orders(c, binaries[op].name, binary_value, x, 2, &op, 2);
            ttt_mark_release(c, m);
        }
    sets_close(&s);
}

// ---- products ------------------------------------------------------------------------------------
static ttt_shape matrices(ttt_shape lead, int64_t rows, int64_t columns) {
    lead.dim[lead.rank++] = rows;
    lead.dim[lead.rank++] = columns;
    return lead;
}

typedef struct {
    bool ta, tb, adds;
    ttt_shape y;
} product;
static ttt_tensor *call_product(ttt_ctx *c, ttt_tensor *const *in, const void *arg) {
    const product *p = arg;
    return p->adds ? ttt_matmul_add(c, in[0], in[1], p->ta, p->tb, in[2]) : ttt_matmul_to(c, in[0], in[1], p->ta, p->tb, p->y);
}
static ttt_tensor *product_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *arg) {
    (void)n;
    return weigh(c, call_product(c, x, arg));
}

// The plain double loop. A sum of n products, added in any order and with or without fused multiplication,
// is off by at most n EPS/2 sum |a||b| [Higham 2002, section 3.1], one more for a bias; in the double build
// the reference may be as wrong, hence twice that; 1% for the second-order terms.
static void expect_product(const product *p, ttt_tensor *const *in) {
    const ttt_tensor *a = in[0], *b = in[1], *add = p->adds ? in[2] : NULL;
    ttt_shape la = ttt__lead(a->shape, 2), lb = ttt__lead(b->shape, 2), ly = ttt__lead(p->y, 2), all;
    int64_t a0 = a->shape.dim[la.rank], a1 = a->shape.dim[la.rank + 1], b1 = b->shape.dim[lb.rank + 1];
    int64_t m = p->y.dim[ly.rank], n = p->y.dim[ly.rank + 1], k = p->ta ? a0 : a1, size = ttt_shape_size(p->y);
    ttt__broadcast_shape(la, lb, &all);
    int64_t products = ttt_shape_size(all);
    for (int64_t i = 0; i < size; i++) {
        want[i] = add ? (double)add->data[place(add->shape, p->y, i)] : 0;
        room[i] = fabs(want[i]);
    }
    for (int64_t l = 0; l < products; l++) {
        const ttt_real *pa = a->data + place(la, all, l) * m * k, *pb = b->data + place(lb, all, l) * k * n;
        double *to = want + place(ly, all, l) * m * n, *size_of = room + (to - want);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++)
                for (int64_t q = 0; q < k; q++) {
                    double t = (double)pa[p->ta ? q * a1 + i : i * a1 + q] * (double)pb[p->tb ? j * b1 + q : q * b1 + j];
                    to[i * n + j] += t;
                    size_of[i * n + j] += fabs(t);
                }
    }
    int64_t terms = k * (size ? products * m * n / size : 0) + 1;
    for (int64_t i = 0; i < size; i++) room[i] *= 1.01 * EPS / 2 * (double)terms * (DOUBLE ? 2 : 1);
}

static void check_product(sets *s, const product *p, ttt_tensor *const *in) {
    char what[100];
    ttt_text ta, tb;
    snprintf(what, sizeof what, "%s%s times %s%s", ttt_shape_text(in[0]->shape, ta), p->ta ? "^T" : "",
             ttt_shape_text(in[1]->shape, tb), p->tb ? "^T" : "");
    expect_product(p, in);
    check_sets(s, what, p->y, call_product, in, p->adds ? 3 : 2, p);
}

// Leading sizes of a, b, and of a result they can be summed to.
static void products_broadcast_and_sum_their_leading_sizes(void) {
    const ttt_shape lead[][3] = {
        { SCALAR, SCALAR, SCALAR },
        { TTT_SHAPE(2), TTT_SHAPE(2), TTT_SHAPE(2) },
        { TTT_SHAPE(2), TTT_SHAPE(2), SCALAR },                          // dW of a batch: one longer sum
        { TTT_SHAPE(2), SCALAR, TTT_SHAPE(2) },                          // the same weights for all: one taller a
        { SCALAR, TTT_SHAPE(3), TTT_SHAPE(3) },
        { SCALAR, TTT_SHAPE(3), TTT_SHAPE(1) },
        { TTT_SHAPE(2, 1), TTT_SHAPE(3), TTT_SHAPE(2, 3) },
        { TTT_SHAPE(2, 1), TTT_SHAPE(3), TTT_SHAPE(2, 1) },
        { TTT_SHAPE(2, 1), TTT_SHAPE(3), TTT_SHAPE(3) },
        { TTT_SHAPE(2, 3), TTT_SHAPE(2, 3), TTT_SHAPE(2, 1) },
        { TTT_SHAPE(2, 3), TTT_SHAPE(3), TTT_SHAPE(1, 3) },
        { TTT_SHAPE(3, 1, 2), TTT_SHAPE(1, 4, 2), TTT_SHAPE(3, 1, 1) },
        { TTT_SHAPE(1, 1, 2, 1, 1, 2), TTT_SHAPE(2, 1, 1, 1, 1, 1), TTT_SHAPE(2, 1, 2, 1, 1, 2) },
    };
    sets s = sets_open();
    ttt_ctx *c = s.c[0];
    for (int l = 0; l < COUNT(lead); l++)
        for (int t = 0; t < 8; t++) {
            ttt_mark mark = ttt_mark_get(c);
            bool small = t < 4;
            int64_t m = small ? 2 : 13, k = small ? 3 : 70, n = small ? 4 : 37;
            product p = { t & 1, t >> 1 & 1, false, matrices(lead[l][2], m, n) };
            ttt_tensor *x[2] = { numbers(c, p.ta ? matrices(lead[l][0], k, m) : matrices(lead[l][0], m, k)),
                                 numbers(c, p.tb ? matrices(lead[l][1], n, k) : matrices(lead[l][1], k, n)) };
            check_product(&s, &p, x);
            if (small) check_orders(c, "product", product_value, x, 2, &p, 2);
            ttt_mark_release(c, mark);
        }
    sets_close(&s);
}

static void products_begin_with_every_sum(void) {
    const ttt_shape shape[][4] = {  // a, b, what is added, y
        { TTT_SHAPE(5, 3), TTT_SHAPE(3, 4), TTT_SHAPE(4), TTT_SHAPE(5, 4) },
        { TTT_SHAPE(2, 5, 3), TTT_SHAPE(3, 4), TTT_SHAPE(4), TTT_SHAPE(2, 5, 4) },
        { TTT_SHAPE(2, 5, 3), TTT_SHAPE(2, 3, 4), TTT_SHAPE(2, 1, 4), TTT_SHAPE(2, 5, 4) },
        { TTT_SHAPE(2, 5, 3), TTT_SHAPE(3, 4), TTT_SHAPE(2, 1, 4), TTT_SHAPE(2, 5, 4) },
        { TTT_SHAPE(2, 1, 5, 3), TTT_SHAPE(3, 3, 4), TTT_SHAPE(3, 1, 4), TTT_SHAPE(2, 3, 5, 4) },
        { TTT_SHAPE(2, 1, 5, 3), TTT_SHAPE(3, 3, 4), TTT_SHAPE(2, 1, 1, 4), TTT_SHAPE(2, 3, 5, 4) },
        { TTT_SHAPE(7, 600), TTT_SHAPE(600, 19), TTT_SHAPE(1, 19), TTT_SHAPE(7, 19) },  // several blocks of terms
        { TTT_SHAPE(3, 0), TTT_SHAPE(0, 2), TTT_SHAPE(2), TTT_SHAPE(3, 2) },            // the bias alone
        { TTT_SHAPE(5, 3), TTT_SHAPE(3, 4), TTT_SHAPE(5, 4), TTT_SHAPE(5, 4) },         // from here a matrix is added
        { TTT_SHAPE(2, 5, 3), TTT_SHAPE(3, 4), TTT_SHAPE(5, 4), TTT_SHAPE(2, 5, 4) },   // the same to all
        { TTT_SHAPE(2, 5, 3), TTT_SHAPE(3, 4), TTT_SHAPE(2, 5, 4), TTT_SHAPE(2, 5, 4) },  // one taller a
        { TTT_SHAPE(2, 3, 5, 3), TTT_SHAPE(3, 4), TTT_SHAPE(2, 1, 5, 4), TTT_SHAPE(2, 3, 5, 4) },
        { TTT_SHAPE(2, 1, 5, 3), TTT_SHAPE(3, 3, 4), TTT_SHAPE(2, 3, 5, 4), TTT_SHAPE(2, 3, 5, 4) },
        { TTT_SHAPE(2, 1, 3), TTT_SHAPE(2, 3, 4), TTT_SHAPE(2, 1, 4), TTT_SHAPE(2, 1, 4) },  // single rows
        { TTT_SHAPE(3, 70, 600), TTT_SHAPE(600, 37), TTT_SHAPE(3, 70, 37), TTT_SHAPE(3, 70, 37) },
        { TTT_SHAPE(3, 0), TTT_SHAPE(0, 2), TTT_SHAPE(3, 2), TTT_SHAPE(3, 2) },
    };
    sets s = sets_open();
    ttt_ctx *c = s.c[0];
    for (int i = 0; i < COUNT(shape); i++)
        for (int t = 0; t < 4; t++) {
            product p = { t & 1, t >> 1, true, shape[i][3] };
            ttt_tensor *x[3] = { numbers(c, shape[i][0]), numbers(c, shape[i][1]), numbers(c, shape[i][2]) };
            for (int k = 0; k < 2; k++)
                if (k ? p.tb : p.ta) x[k] = ttt_transpose(c, x[k]);
            check_product(&s, &p, x);
            if (ttt_shape_size(p.y) < 200 && x[0]->size) check_orders(c, "matmul_add", product_value, x, 3, &p, 2);
        }
    sets_close(&s);
}

static void check_size(sets *s, int64_t m, int64_t k, int64_t n) {
    for (int t = 0; t < 4; t++) {
        ttt_ctx *c = s->c[0];
        ttt_mark mark = ttt_mark_get(c);
        product p = { t & 1, t >> 1, t == 0, TTT_SHAPE(m, n) };
        ttt_tensor *x[3] = { numbers(c, p.ta ? TTT_SHAPE(k, m) : TTT_SHAPE(m, k)),
                             numbers(c, p.tb ? TTT_SHAPE(n, k) : TTT_SHAPE(k, n)), numbers(c, TTT_SHAPE(n)) };
        check_product(s, &p, x);
        ttt_mark_release(c, mark);
    }
}

// Without terms (k = 0) the product is zero, or the bias.
static void products_of_all_small_sizes(void) {
    sets s = sets_open();
    for (int64_t m = 0; m <= 20; m++)
        for (int64_t k = 0; k <= 20; k++)
            for (int64_t n = 0; n <= 20; n++) check_size(&s, m, k, n);
    sets_close(&s);
}

// Sizes at the edges of tiles (6 rows), vectors (4, 8, 16), panels (to 64) and blocks (192, 512, 1536).
static void products_at_the_edges_of_tiles_and_blocks(void) {
    static const int64_t edge[] = { 1, 5, 6, 7, 15, 16, 17, 47, 48, 49, 63, 64, 65, 97, 191, 192, 193,
                                    511, 512, 513, 1535, 1536, 1537 };
    sets s = sets_open();
    for (int i = 0; i < COUNT(edge); i++) {
        check_size(&s, edge[i], 7, 19);
        check_size(&s, 7, edge[i], 19);
        check_size(&s, 7, 19, edge[i]);
    }
    check_size(&s, 193, 513, 65);
    check_size(&s, 13, 1025, 129);
    check_size(&s, 97, 40, 1024);   // rows of b that lie 4096 bytes apart: copied
    check_size(&s, 97, 700, 1601);  // a large b: copied, in two blocks of columns
    sets_close(&s);
}

static ttt_tensor *sum_of_none(ttt_ctx *c, ttt_tensor *const *in, const void *arg) {
    (void)arg;
    return ttt_matmul_to(c, in[0], in[1], false, false, TTT_SHAPE(2, 3));
}
static void a_sum_over_an_empty_batch_is_zero(void) {
    sets s = sets_open();
    ttt_tensor *x[2] = { ttt_zeros(s.c[0], TTT_SHAPE(0, 2, 4)), ttt_zeros(s.c[0], TTT_SHAPE(0, 4, 3)) };
    ttt_tensor *one[2] = { x[0], ttt_zeros(s.c[0], TTT_SHAPE(4, 3)) };
    ttt_tensor *other[2] = { ttt_zeros(s.c[0], TTT_SHAPE(1, 2, 4)), x[1] };
    for (int i = 0; i < 6; i++) want[i] = room[i] = 0;
    check_sets(&s, "empty batch", TTT_SHAPE(2, 3), sum_of_none, x, 2, NULL);
    check_sets(&s, "empty batch of a", TTT_SHAPE(2, 3), sum_of_none, one, 2, NULL);
    check_sets(&s, "empty batch of b", TTT_SHAPE(2, 3), sum_of_none, other, 2, NULL);
    sets_close(&s);
}

// ---- gradients through inner steps ---------------------------------------------------------------
// A learner of two layers, f(x) = norm(act(x w0) w1), that takes three steps on (k, v); the outer loss
// looks at (q, t). w[2] is the inner rate, learned too.
typedef struct {
    ttt_tensor *w[3], *k, *v, *q, *t;
    ttt_tensor *(*act)(ttt_ctx *c, ttt_tensor *a);
    bool centered, detach;
} learner;

static ttt_tensor *normal_param(ttt_ctx *c, ttt_shape s, double size) {
    ttt_tensor *p = ttt_zeros_kept(c, s);
    for (int64_t i = 0; i < p->size; i++) p->data[i] = REAL(size * ttt_rng_normal(ttt_ctx_rng(c)));
    return p;
}
static learner learner_new(ttt_ctx *c, int64_t N, int64_t D, int64_t W) {
    learner l = { .act = ttt_tanh, .centered = true };
    l.w[0] = normal_param(c, TTT_SHAPE(D, W), 0.6);
    l.w[1] = normal_param(c, TTT_SHAPE(W, D), 0.6);
    l.w[2] = normal_param(c, SCALAR, 0);
    if (ttt_ok(c)) l.w[2]->data[0] = REAL(0.2);
    l.k = normal_param(c, TTT_SHAPE(N, D), 1);
    l.v = normal_param(c, TTT_SHAPE(N, D), 1);
    l.q = normal_param(c, TTT_SHAPE(N, D), 1);
    l.t = normal_param(c, TTT_SHAPE(N, D), 1);
    return l;
}
static ttt_tensor *learner_loss(ttt_ctx *c, const learner *l, ttt_tensor *const *w, ttt_tensor *x, ttt_tensor *y) {
    ttt_tensor *f = ttt_matmul(c, l->act(c, ttt_matmul(c, x, w[0])), w[1]);
    return ttt_mse(c, (l->centered ? ttt_layer_normalize : ttt_rms_normalize)(c, f, REAL(0.1)), y);
}
static ttt_tensor *learner_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *user) {
    const learner *l = user;
    ttt_tensor *w[2] = { x[0], x[1] }, *g[2];
    (void)n;
    for (int step = 0; step < 3; step++) {
        ttt_grad(c, learner_loss(c, l, w, l->k, l->v), w, 2, g, TTT_GRAD_RECORD);
        for (int i = 0; i < 2; i++) {
            if (l->detach) g[i] = ttt_detach(c, g[i]);
            w[i] = ttt_sub(c, w[i], ttt_mul(c, g[i], x[2]));
        }
    }
    return learner_loss(c, l, w, l->q, l->t);
}
// One training step: the outer loss and its gradient, as one hash.
static uint64_t learner_step(ttt_ctx *c, learner *l) {
    ttt_tensor *g[3], *y = learner_value(c, l->w, 3, l);
    ttt_grad(c, y, l->w, 3, g, TTT_GRAD_FIRST_ORDER);
    uint64_t h = hash(0xcbf29ce484222325u, y);
    for (int i = 0; i < 3; i++) h = hash(h, g[i]);
    return h;
}

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
        ttt_tensor *loss = ttt_scale(c, ttt_sum(c, ttt_square(c, ttt_sub(c, ttt_matmul(c, k, w), v))), REAL(0.5));
        ttt_grad(c, loss, &w, 1, &g, detach ? TTT_GRAD_FIRST_ORDER : TTT_GRAD_RECORD);
        if (detach) g = ttt_detach(c, g);
        ttt_tensor *w1 = ttt_sub(c, w, ttt_scale(c, g, REAL(eta)));
        ttt_grad(c, ttt_sum(c, ttt_mul(c, C, w1)), &w, 1, &meta, TTT_GRAD_FIRST_ORDER);
        double hand[D * D];
        for (int i = 0; i < D * D; i++) {
            hand[i] = (double)C->data[i];
            for (int n = 0; n < N && !detach; n++)
                for (int p = 0; p < D; p++)
                    hand[i] -= eta * (double)k->data[n * D + i / D] * (double)k->data[n * D + p] * (double)C->data[p * D + i % D];
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

// ---- the guard -----------------------------------------------------------------------------------
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

// The walk need not pass the unrecorded gradient when it lies below every wrt, or does not depend on one.
static void an_unrecorded_gradient_off_the_way_is_fine(void) {
    unrecorded u = unrecorded_new();
    ttt_tensor *step = ttt_scale(u.c, u.g, 2), *out;
    ttt_grad(u.c, ttt_sum(u.c, ttt_square(u.c, step)), &step, 1, &out, TTT_GRAD_FIRST_ORDER);
    for (int i = 0; i < 3; i++) CHECK(out->data[i] == 2 * step->data[i]);
    ttt_grad(u.c, ttt_sum(u.c, ttt_mul(u.c, u.g, u.before)), &u.before, 1, &out, TTT_GRAD_RECORD);
    CHECK(same_bits(out, u.g));
    CLOSE(u.c);
}

// A vector-Jacobian product is linear in its seed: that is a way back too.
static void an_unrecorded_vjp_depends_on_its_seed(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *w = numbers(c, TTT_SHAPE(3)), *seed = numbers(c, TTT_SHAPE(3)), *y = ttt_exp(c, w), *g, *out;
    ttt_vjp(c, y, seed, &w, 1, &g, TTT_GRAD_RECORD);
    ttt_grad(c, ttt_sum(c, g), &seed, 1, &out, TTT_GRAD_FIRST_ORDER);
    CHECK(same_bits(out, y));
    ttt_vjp(c, y, seed, &w, 1, &g, TTT_GRAD_FIRST_ORDER);
    CHECK(ttt_grad(c, ttt_sum(c, g), &seed, 1, &out, TTT_GRAD_FIRST_ORDER) == TTT_ERR_FIRST_ORDER);
    ttt_close(c);
}

// ---- what ttt_grad gives -------------------------------------------------------------------------
// Calls ttt_grad in all three modes; each must give `hand`, one number for all elements of each wrt.
static void check_grad(ttt_ctx *c, ttt_tensor *y, ttt_tensor *const *wrt, int n, const double *hand) {
    for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_ADD; mode++) {
        ttt_tensor *out[8];
        for (int i = 0; i < n && mode == TTT_GRAD_ADD; i++) out[i] = ttt_full(c, wrt[i]->shape, REAL(10 * (i + 1)));
        CHECK(ttt_grad(c, y, wrt, n, out, (ttt_grad_mode)mode) == TTT_OK);
        for (int i = 0; i < n; i++) {
            CHECK(ttt_shape_equal(out[i]->shape, wrt[i]->shape));
            double sum = hand[i] + (mode == TTT_GRAD_ADD ? 10 * (i + 1) : 0);
            for (int64_t j = 0; j < out[i]->size; j++) {
                bool good = fabs((double)out[i]->data[j] - sum) <= 20 * EPS * fabs(sum);
                if (!good) printf("  mode %d, wrt %d: %g, not %g\n", mode, i, (double)out[i]->data[j], sum);
                CHECK(good);
            }
        }
    }
}

static void unused_inputs_get_zeros(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *before = numbers(c, TTT_SHAPE(2)), *x = numbers(c, TTT_SHAPE(3)), *between = ttt_exp(c, x);
    ttt_tensor *y = ttt_sum(c, x), *after = ttt_exp(c, y);
    check_grad(c, y, (ttt_tensor *[]){ before, x, between, after }, 4, (double[]){ 0, 1, 0, 0 });
    CHECK(ttt_grad(c, y, NULL, 0, NULL, TTT_GRAD_FIRST_ORDER) == TTT_OK);
    CLOSE(c);
}

static void an_input_may_be_asked_for_twice(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(3), 3), *h = ttt_scale(c, x, 2), *y = ttt_sum(c, ttt_square(c, h));
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
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(3), 1), *h = ttt_scale(c, x, 2), *y = ttt_zeros(c, TTT_SHAPE(3));
    for (int i = 1; i <= 100; i++) y = ttt_add(c, y, ttt_scale(c, i % 2 ? h : x, REAL(i)));
    y = ttt_add(c, y, ttt_add(c, h, h));
    check_grad(c, ttt_sum(c, y), (ttt_tensor *[]){ x, h }, 2, (double[]){ 2 * 2502 + 2550, 2502 });
    CLOSE(c);
}

// add hands one gradient to both operands; what either gets from elsewhere must not change the other's.
static void gradients_that_nodes_share_are_not_written_over(void) {
    for (int reshaped = 0; reshaped < 2; reshaped++)
        for (int swapped = 0; swapped < 2; swapped++) {
            ttt_ctx *c = open_ctx();
            ttt_tensor *x = ttt_full(c, TTT_SHAPE(2, 3), 1), *h1 = ttt_scale(c, x, 2), *h2 = ttt_scale(c, x, 3);
            ttt_tensor *u = ttt_square(c, swapped ? h2 : h1), *z = ttt_add(c, h1, h2);
            if (reshaped) z = ttt_add(c, ttt_reshape(c, h1, TTT_SHAPE(6)), ttt_reshape(c, h2, TTT_SHAPE(6)));
            if (reshaped) u = ttt_reshape(c, u, TTT_SHAPE(6));
            ttt_tensor *y = ttt_sum(c, ttt_add(c, z, u));
            const double hand[2][3] = { { 13, 5, 1 }, { 23, 1, 7 } };  // d/dx, d/dh1, d/dh2
            check_grad(c, y, (ttt_tensor *[]){ x, h1, h2 }, 3, hand[swapped]);
            CLOSE(c);
        }
}

// The same where one operand is computed again: the walk inside it must leave the other's gradient alone.
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
            ttt_tensor *h = ttt_scale(c, x, REAL(0.3)), *y = plus_cube(c, plus_cube(c, h, again, swapped), again, swapped);
            ttt_grad(c, weigh(c, ttt_sub(c, y, ttt_tanh(c, h))), &x, 1, &g[again], TTT_GRAD_FIRST_ORDER);
        }
        CHECK(difference(g[1], g[0]) <= 8 * EPS);
        CLOSE(c);
    }
}

static void a_chain_of_two_thousand_ops(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(3), 1), *y = x;
    for (int i = 0; i < 1000; i++) y = ttt_add_scalar(c, ttt_scale(c, y, i % 2 ? 2 : REAL(0.5)), REAL(0.25));
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

// A graph in which every op of the table feeds the next: p holds 96 numbers; an op's example reads its
// inputs from p, squeezed into the op's domain, and its result is folded into p again.
static ttt_tensor *all_ops(ttt_ctx *c, ttt_tensor *p) {
    for (int row = 0; ttt_op_table(row) && ttt_ok(c); row++) {
        const ttt_op *op = ttt_op_table(row);
        op_inputs want_in;
        ttt_tensor *in[2];
        op_example(NULL, row, NULL, &want_in);
        for (int i = 0; i < want_in.n; i++) {
            ttt_tensor *part = ttt_slice(c, p, 0, i, ttt_shape_size(want_in.shape[i]));
            part = ttt_add_scalar(c, ttt_scale(c, ttt_sigmoid(c, part), REAL(op->hi - op->lo)), REAL(op->lo));
            in[i] = ttt_reshape(c, part, want_in.shape[i]);
        }
        ttt_tensor *y = op_example(c, row, in, &want_in);
        p = ttt_tanh(c, ttt_add(c, p, ttt_pad(c, ttt_reshape(c, y, TTT_SHAPE(y->size)), 0, 0, 96)));
    }
    return ttt_sum(c, ttt_square(c, p));
}

// Up to three orders deep, so that rules of rules run; the recorded and the fast walk must agree. Their sums
// are taken in different orders, 49 ops deep: a few hundred roundings.
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

// ---- ops of the user -----------------------------------------------------------------------------
// y = a b^2 + s b, s at y->arg, given a rule, a composite, a fast rule, or several of them.
static void mix_forward(ttt_ctx *c, ttt_tensor *y) {
    (void)c;
    ttt_real s = *(const ttt_real *)y->arg;
    for (int64_t i = 0; i < y->size; i++) {
        ttt_real a = y->in[0]->data[i], b = y->in[1]->data[i];
        y->data[i] = a * b * b + s * b;
    }
}
static ttt_tensor *mix_composite(ttt_ctx *c, ttt_tensor *const *in, const ttt_tensor *y) {
    return ttt_add(c, ttt_mul(c, in[0], ttt_square(c, in[1])), ttt_scale(c, in[1], *(const ttt_real *)y->arg));
}
static void mix_rule(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d) {
    ttt_tensor *a = y->in[0], *b = y->in[1];
    if (d[0]) d[0] = ttt_mul(c, g, ttt_square(c, b));
    if (d[1]) d[1] = ttt_mul(c, g, ttt_add_scalar(c, ttt_scale(c, ttt_mul(c, a, b), 2), *(const ttt_real *)y->arg));
}
static void mix_fast(ttt_ctx *c, ttt_tensor *y, const ttt_tensor *g, ttt_tensor **into, const bool *add) {
    ttt_real s = *(const ttt_real *)y->arg;
    (void)c;
    for (int64_t i = 0; i < y->size; i++) {
        ttt_real a = y->in[0]->data[i], b = y->in[1]->data[i];
        if (into[0]) into[0]->data[i] = g->data[i] * b * b + (add[0] ? into[0]->data[i] : 0);
        if (into[1]) into[1]->data[i] = g->data[i] * (2 * a * b + s) + (add[1] ? into[1]->data[i] : 0);
    }
}
static const ttt_op mixes[] = {
    { .name = "mix by rule", .n_in = 2, .forward = mix_forward, .vjp = mix_rule },
    { .name = "mix by composite", .n_in = 2, .forward = mix_forward, .composite = mix_composite },
    { .name = "mix by fast rule and composite", .n_in = 2, .forward = mix_forward, .composite = mix_composite, .fast = mix_fast },
    { .name = "mix by fast and other rule", .n_in = 2, .forward = mix_forward, .vjp = mix_rule, .fast = mix_fast },
};

// How the op's operands hang together.
typedef enum { LEAVES, INNER_NODES, SAME_LEAF, SAME_NODE, ANCESTOR_FIRST, ANCESTOR_SECOND, USED_AGAIN, WIRINGS } wiring;
typedef struct {
    const ttt_op *op;  // NULL: the same in the library's ops
    wiring wires;
} mix;
static ttt_tensor *mix_apply(ttt_ctx *c, const ttt_op *op, ttt_tensor *a, ttt_tensor *b) {
    ttt_real s = REAL(1.5);
    ttt_tensor *in[2] = { a, b };
    if (op) return ttt_apply(c, op, in, 2, a->shape, &s, sizeof s);
    return ttt_add(c, ttt_mul(c, a, ttt_square(c, b)), ttt_scale(c, b, s));
}
static ttt_tensor *mix_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *user) {
    const mix *m = user;
    ttt_tensor *a = x[0], *b = x[1];
    (void)n;
    if (m->wires == INNER_NODES || m->wires == USED_AGAIN) a = ttt_tanh(c, a), b = ttt_sigmoid(c, b);
    if (m->wires == SAME_LEAF) b = a;
    if (m->wires == SAME_NODE) a = b = ttt_tanh(c, ttt_add(c, a, b));
    if (m->wires == ANCESTOR_FIRST) b = ttt_tanh(c, ttt_mul(c, a, b));
    if (m->wires == ANCESTOR_SECOND) a = ttt_tanh(c, ttt_mul(c, a, b));
    ttt_tensor *y = mix_apply(c, m->op, a, b);
    if (m->wires == USED_AGAIN) y = ttt_mul(c, mix_apply(c, m->op, a, y), ttt_add(c, a, b));
    return weigh(c, y);
}

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
                    if (!good) printf("  %s, wiring %d, order %d, input %d: fast %.1e, recorded %.1e\n", mixes[i].name, wires, order, j, f, r);
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
    ttt_tensor *x[2] = { numbers(c, TTT_SHAPE(2, 3)), numbers(c, TTT_SHAPE(2, 3)) }, *once[2], *more[2];
    mix user = { &mixes[2], LEAVES };
    ttt_tensor *y = mix_value(c, x, 2, &user);
    ttt_grad(c, y, x, 2, once, TTT_GRAD_FIRST_ORDER);
    for (int i = 0; i < 2; i++) more[i] = ttt_full(c, x[i]->shape, 1);
    ttt_grad(c, y, x, 2, more, TTT_GRAD_ADD);
    for (int i = 0; i < 2; i++) CHECK(ttt_max_abs_diff(more[i], ttt_add_scalar(c, once[i], 1)) <= 10 * EPS);
    CLOSE(c);
}

// A rule that forgets a factor, one that forgets a term of the second order only, and one of another shape.
static void wrong_rule(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d) { d[0] = ttt_mul(c, g, y->in[0]); }
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
    ttt_op op = { .name = "wrong square", .n_in = 1, .forward = square_forward, .vjp = wrong_shape };
    for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_RECORD; mode++) {
        ttt_ctx *c = open_ctx();
        ttt_tensor *x = numbers(c, TTT_SHAPE(1, 2)), *h = ttt_exp(c, x), *out;
        ttt_tensor *y = ttt_add(c, apply1_value(c, &h, 1, &op), ttt_sum(c, h));
        CHECK(ttt_grad(c, y, &x, 1, &out, (ttt_grad_mode)mode) == TTT_ERR_SHAPE);
        CHECK(strstr(ttt_error(c), "wrong square") && strstr(ttt_error(c), "(1,2)"));
        ttt_close(c);
    }
}

// ---- functions of one number ---------------------------------------------------------------------
// REF(name, formula in double, bound, floor): the error stays below `bound` ulps of max(|y|, floor). Floor 0
// asks for digits in every result. Where a result is a small difference of large parts (near a root, or in
// a tail that has died out) no such digits exist, and the floor is the size of the function, 1; for silu it
// is where sigmoid(a) becomes subnormal. Bounds are 10% above the worst of 70 million bit patterns in every
// instruction set, on glibc (the scalar set calls libm). Twice that in double, where the formula errs alike.
typedef struct {
    const char *name;
    ttt_tensor *(*op)(ttt_ctx *c, ttt_tensor *a);
    double (*ref)(double a);
    double bound, floor;
} unary;
#define REF(name, formula, bound, floor)                     \
    static double ref_##name(double a) { return formula; }   \
    static const unary unary_##name = { #name, ttt_##name, ref_##name, bound, floor };
static double density(double a) { return exp(-a * a / 2) * 0.3989422804014327; }  // the normal density
static double damp(double a, double p) { return p == 0 ? 0 : a * p; }  // a p, or its limit where p has died out
static double gelu_u(double a) { return 1.5957691216057308 * (a + 0.044715 * a * a * a); }
static double gelu_ddu(double a) { return 1.5957691216057308 * 6 * 0.044715 * a; }
static double gelu_du(double a) { return 1.5957691216057308 * (1 + 3 * 0.044715 * a * a); }
REF(exp, exp(a), 1.15, 0)
REF(log, log(a), 0.9, 0)
REF(tanh, tanh(a), 2.4, 0)
REF(sigmoid, a < 0 ? exp(a) / (1 + exp(a)) : 1 / (1 + exp(-a)), 2.6, 0)
REF(erf, erf(a), 1.55, 0)
REF(abs, fabs(a), 0, 0)
REF(sign, a > 0 ? 1 : a < 0 ? -1 : 0, 0, 0)
REF(relu, a < 0 ? 0 : a, 0, 0)
REF(heaviside, a > 0 ? 1 : 0, 0, 0)
REF(square, a * a, 0.5, 0)
REF(sqrt, sqrt(a), 0.5, 0)
REF(rsqrt, 1 / sqrt(a), 1.5, 0)
REF(reciprocal, 1 / a, 0.5, 0)
static double sigmoid_d1(double a) { return ref_sigmoid(a) * ref_sigmoid(-a); }
static double sigmoid_d2(double a) { return sigmoid_d1(a) * (ref_sigmoid(-a) - ref_sigmoid(a)); }
REF(gelu, a * ref_sigmoid(gelu_u(a)), 2.1, 1)
REF(gelu_d1, ref_sigmoid(gelu_u(a)) + damp(a * gelu_du(a), sigmoid_d1(gelu_u(a))), 2, 1)
REF(gelu_d2, damp(2 * gelu_du(a) + a * gelu_ddu(a), sigmoid_d1(gelu_u(a))) + damp(a * gelu_du(a) * gelu_du(a), sigmoid_d2(gelu_u(a))), 2.6, 1)
REF(gelu_erf, a * erfc(-a / sqrt(2)) / 2, 1.6, 1)
REF(gelu_erf_d1, erfc(-a / sqrt(2)) / 2 + damp(a, density(a)), 1.4, 1)
REF(gelu_erf_d2, damp(2 - a * a, density(a)), 1.2, 1)
REF(silu, a * ref_sigmoid(a), 3.3, 1e-30)
REF(silu_d1, ref_sigmoid(a) + damp(a, sigmoid_d1(a)), 1.8, 1)
REF(silu_d2, 2 * sigmoid_d1(a) + damp(a, sigmoid_d2(a)), 1.2, 1)

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

static ttt_tensor *call_unary(ttt_ctx *c, ttt_tensor *const *in, const void *u) { return ((const unary *)u)->op(c, in[0]); }

// want and room for u at the numbers x. A reference beyond the largest number wants infinity.
static void expect_unary(const unary *u, const ttt_tensor *x) {
    for (int64_t i = 0; i < x->size; i++) {
        double y = u->ref((double)x->data[i]), rounded = (double)(ttt_real)y;
        want[i] = isinf(rounded) ? rounded : y;
        room[i] = isinf(rounded) ? 0 : u->bound * (DOUBLE ? 2 : 1) * ulp_of(fmax(fabs(y), u->floor));
    }
}

// ---- products of plain arrays --------------------------------------------------------------------
typedef struct {
    int m, n, k, ta, tb, half, bias, map, add, batch, gap;  // add: 1 another array, 2 y itself
} plain;

enum { PLAIN_MOST = 1 << 18 };
typedef struct {
    ttt_real a[PLAIN_MOST], b[PLAIN_MOST], bias[2000], add[PLAIN_MOST], y[PLAIN_MOST], before[PLAIN_MOST];
    uint16_t half[PLAIN_MOST];
} plain_arrays;

static ttt_gemm_desc plain_desc(const plain *p, plain_arrays *x) {
    ttt_gemm_desc d = { .m = p->m, .n = p->n, .k = p->k, .a = x->a, .y = x->y, .ta = p->ta, .tb = p->tb, .batch = p->batch };
    d.a_row = (p->ta ? p->m : p->k) + p->gap;
    d.b_row = (p->tb ? p->k : p->n) + p->gap;
    d.y_row = p->n + p->gap;
    d.a_step = (p->ta ? p->k : p->m) * d.a_row;
    d.y_step = p->m * d.y_row;
    if (p->half) d.b_bf16 = x->half;
    else d.b = x->b;
    if (p->bias) d.bias = x->bias;
    if (p->map) d.map = "relu";
    if (p->add) d.add = p->add == 2 ? x->y : x->add;
    return d;
}

static void check_plain(ttt_ctx *c, const plain *p, plain_arrays *x) {
    ttt_gemm_desc d = plain_desc(p, x);
    memcpy(x->y, x->before, sizeof x->y);
    CHECK(ttt_gemm(c, &d) == TTT_OK);
    double worst = 0;
    bool kept = true;
    for (int64_t z = 0; z < p->batch; z++)
        for (int64_t i = 0; i < p->m; i++) {
            const ttt_real *y = x->y + z * d.y_step + i * d.y_row;
            for (int64_t j = 0; j < p->n; j++) {
                double sum = p->bias ? (double)x->bias[j] : 0, at = (double)(p->add == 2 ? x->before : x->add)[y - x->y + j];
                for (int64_t t = 0; t < p->k; t++)
                    sum += (double)x->a[z * d.a_step + (p->ta ? t * d.a_row + i : i * d.a_row + t)] *
                           (double)x->b[p->tb ? j * d.b_row + t : t * d.b_row + j];
                if (p->map) sum = fmax(sum, 0);
                if (p->add) sum += at;
                double e = fabs((double)y[j] - sum);
                if (!(e <= worst)) worst = e;
            }
            for (int64_t j = p->n; j < d.y_row && i + 1 < p->m; j++) kept = kept && y[j] == x->before[y - x->y + j];
        }
    if (!(worst <= (p->k + 4) * EPS) || !kept)
        printf("  %s: m=%d n=%d k=%d ta=%d tb=%d half=%d bias=%d map=%d add=%d batch=%d gap=%d: %.1e\n", ttt_isa(c), p->m, p->n, p->k,
               p->ta, p->tb, p->half, p->bias, p->map, p->add, p->batch, p->gap, worst);
    CHECK(worst <= (p->k + 4) * EPS);
    CHECK(kept);
}

// Numbers in [-1,1] that bfloat16 holds exactly, so that both forms of b are the same matrix.
static void products_of_plain_arrays(void) {
    static const int sizes[][3] = { { 1, 1, 1 }, { 1, 200, 300 }, { 1, 67, 9 }, { 2, 33, 50 }, { 5, 16, 64 }, { 16, 16, 64 }, { 17, 100, 600 }, { 7, 130, 1 }, { 3, 5, 0 }, { 100, 70, 40 } };
    plain_arrays *x = (plain_arrays *)calloc(1, sizeof *x);
    sets s = sets_open();
    ttt_ctx *two = ttt_open(&(ttt_desc){ .threads = 2 });
    for (int64_t i = 0; i < PLAIN_MOST; i++) {
        ttt_rng *r = ttt_ctx_rng(s.c[0]);
        int64_t q = ttt_rng_below(r, 255) - 127;
        float f = (float)q / 128;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        x->half[i] = (uint16_t)(bits >> 16);
        x->b[i] = REAL(f);
        x->a[i] = REAL(ttt_rng_uniform(r) * 2 - 1);
        x->add[i] = REAL(ttt_rng_uniform(r));
        x->before[i] = REAL(ttt_rng_uniform(r));
        if (i < 2000) x->bias[i] = REAL(ttt_rng_uniform(r));
    }
    for (int z = 0; z < COUNT(sizes); z++)
        for (int form = 0; form < 8; form++)
            for (int extra = 0; extra < 5; extra++) {
                plain p = { sizes[z][0], sizes[z][1], sizes[z][2], form & 1, form >> 1 & 1, form >> 2, extra > 0, extra == 2, extra > 2 ? extra - 2 : 0, 1 + extra % 2, extra % 3 * 5 };
                for (int i = 0; i < s.n; i++) check_plain(s.c[i], &p, x);
                check_plain(two, &p, x);
            }
    CLOSE(two);
    sets_close(&s);
    free(x);
}

static void products_of_plain_arrays_refuse(void) {
    static ttt_real a[64], b[64], y[64];
    static const uint16_t half[64];
    ttt_ctx *c = open_ctx();
    const ttt_gemm_desc good = { .m = 4, .n = 4, .k = 4, .a = a, .b = b, .y = y };
    CHECK(ttt_gemm(c, &good) == TTT_OK);
#define REFUSED(...)                                                                    \
    do {                                                                                \
        ttt_gemm_desc d = good;                                                         \
        __VA_ARGS__;                                                                    \
        CHECK(ttt_gemm(c, &d) == TTT_ERR_ARGUMENT && strstr(ttt_error(c), "gemm: "));   \
        ttt_clear(c);                                                                   \
    } while (0)
    REFUSED(d.m = -1);
    REFUSED(d.batch = -1);
    REFUSED(d.a_row = 3);
    REFUSED(d.b_row = 3);
    REFUSED(d.y_row = 3);
    REFUSED(d.a = NULL);
    REFUSED(d.b = NULL);
    REFUSED(d.b_bf16 = half);
    REFUSED(d.y = NULL);
    REFUSED(d.y = a);
    REFUSED(d.y = b + 15);
    REFUSED(d.bias = y + 3);
    REFUSED(d.add = y + 1);
    REFUSED(d.map = "gelu", d.add = y);
    REFUSED(d.map = "geluu");
    REFUSED(d.batch = 2, d.y_step = 15);
    REFUSED(d.batch = 2, d.m = 2, d.n = 1, d.k = 1, d.y_row = 2, d.y_step = 2);
    REFUSED(d.a_step = -1);
#undef REFUSED
    ttt_gemm_desc none = good;
    none.m = 0;
    none.y = NULL;
    CHECK(ttt_gemm(c, &none) == TTT_OK);
    CLOSE(c);
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

// What libm says in double, or the limit; only the gelus and silu of -infinity are NaN, 0 times infinity in
// their formulas, as in PyTorch.
static void functions_of_special_values(void) {
    const double max = (double)FLT_MAX, min = (double)FLT_MIN, inf = (double)INFINITY;
    const double special[] = { (double)NAN, inf, -inf, 0.0, -0.0, 1, -1, max, -max, 1e19, -1e19, 2e19, -2e19, 1e-20,
                               min, -min, 1e-40, -1e-40, 1.4e-45, -1.4e-45, 88.72283, 88.73, -103.97, -104 };
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
                if (!good) printf("  %s: the sign of %s(%g)\n", ttt_isa(s.c[i]), unaries[u]->name, special[k]);
                CHECK(good);
            }
        }
    }
    sets_close(&s);
}

// An element's result does not depend on its place: the rest of a row that fills no vector is computed alike.
static void functions_of_short_rows(void) {
    sets s = sets_open();
    for (int i = 0; i < s.n; i++) {
        ttt_ctx *c = s.c[i];
        ttt_tensor *x = ttt_uniform(c, TTT_SHAPE(130), REAL(0.1), 3);
        for (int u = 0; u < COUNT(unaries); u++) {
            ttt_tensor *all = unaries[u]->op(c, x);
            for (int n = 0; n <= 65; n++) {
                ttt_tensor *y = unaries[u]->op(c, ttt_slice(c, x, 0, n, n));
                CHECK(y->size == n && memcmp(y->data, all->data + n, (size_t)n * sizeof *y->data) == 0);
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
            want[i] = scale ? (double)REAL(1.1) * (double)x->data[i] : (double)REAL(1.1) + (double)x->data[i];
            room[i] = EPS * fabs(want[i]);
        }
        check_sets(&s, "scale or shift", x->shape, call_scale_shift, &x, 1, scale ? "" : NULL);
    }
    sets_close(&s);
}

// ---- sums and repeats ----------------------------------------------------------------------------
static ttt_tensor *call_sum_to(ttt_ctx *c, ttt_tensor *const *in, const void *s) {
    return ttt_sum_to(c, in[0], *(const ttt_shape *)s);
}
static ttt_tensor *call_broadcast(ttt_ctx *c, ttt_tensor *const *in, const void *s) {
    return ttt_broadcast(c, in[0], *(const ttt_shape *)s);
}

// A row is summed in blocks of 1024, in several lanes, at most 256 additions in each, and a few to close
// it; the blocks are added in double. Rows are summed in blocks of 32, and then block by block. So no
// element passes more additions than this, and each errs by EPS/2 of the sum of magnitudes. (In the double
// build the reference may err as much as a plain sum.)
static double most_additions(double n) { return 1 + fmin(n, fmax(262, 33 + n / 32)); }

static void expect_sum_to(const ttt_tensor *a, ttt_shape s) {
    int64_t size = ttt_shape_size(s);
    for (int64_t i = 0; i < size; i++) want[i] = room[i] = 0;
    for (int64_t i = 0; i < a->size; i++) {
        want[place(s, a->shape, i)] += (double)a->data[i];
        room[place(s, a->shape, i)] += fabs((double)a->data[i]);
    }
    double terms = size ? (double)a->size / (double)size : 0;
    for (int64_t i = 0; i < size; i++) room[i] *= EPS / 2 * (most_additions(terms) + (DOUBLE ? terms : 0));
}

// Every subset of the axes of a tensor, kept with size 1 or dropped where they lead.
static void sums_over_every_group_of_axes(void) {
    const ttt_shape shape[6] = { TTT_SHAPE(7), TTT_SHAPE(3, 20), TTT_SHAPE(2, 3, 4, 5), TTT_SHAPE(3, 1, 35, 2),
                                 TTT_SHAPE(2, 3, 2, 3, 2, 17), TTT_SHAPE(2, 2, 2, 2, 2, 2, 2, 3) };
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
    const ttt_shape shape[][2] = { { TTT_SHAPE(N), SCALAR }, { TTT_SHAPE(N, 1), TTT_SHAPE(1, 1) },
                                   { TTT_SHAPE(N / 16, 16), TTT_SHAPE(16) }, { TTT_SHAPE(4, N / 4), TTT_SHAPE(4, 1) } };
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
        { SCALAR, TTT_SHAPE(3, 21) }, { TTT_SHAPE(4), TTT_SHAPE(3, 4) }, { TTT_SHAPE(3, 1), TTT_SHAPE(2, 3, 37) },
        { TTT_SHAPE(2, 1, 3, 1), TTT_SHAPE(2, 4, 3, 5) }, { TTT_SHAPE(1, 5, 1), TTT_SHAPE(2, 5, 3) },
        { TTT_SHAPE(2, 3), TTT_SHAPE(2, 3) }, { TTT_SHAPE(1), TTT_SHAPE(0) },
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
    ttt_tensor *a = row_of(c, 6, (double[]){ 1, 2, 3, 4, 5, 6 }), *m = ttt_reshape(c, a, TTT_SHAPE(2, 3));
    CHECK(ttt_item(ttt_sum(c, m)) == 21 && ttt_sum(c, m)->shape.rank == 0);
    CHECK(ttt_item(ttt_mean(c, m)) == 3.5f);
    CHECK(ttt_item(ttt_mse(c, m, ttt_scalar(c, 1))) == REAL(55) / 6);
    CHECK_CLOSE(ttt_sum_axis(c, m, 0)->data, ((double[]){ 5, 7, 9 }), 3, 0, 0);
    CHECK_CLOSE(ttt_mean_axis(c, m, -1)->data, ((double[]){ 2, 5 }), 2, EPS, 0);
    CHECK(ttt_shape_equal(ttt_sum_axis(c, m, -2)->shape, TTT_SHAPE(1, 3)));
    CHECK(ttt_shape_equal(ttt_mean_axis(c, m, 1)->shape, TTT_SHAPE(2, 1)));
    CLOSE(c);
}

// ---- moving elements -----------------------------------------------------------------------------
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
    const ttt_shape shape[5] = { TTT_SHAPE(2, 3, 4, 5), TTT_SHAPE(1, 4, 8, 16), TTT_SHAPE(3, 17, 1, 33),
                                 TTT_SHAPE(15, 2, 16, 7), TTT_SHAPE(2, 0, 3, 1) };
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

// Along each axis: cut a into three, place each where it was, and add; or join them again.
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
            for (int k = 0; k < 6; k++) CHECK(middle->data[(i * 2 + j) * 6 + k] == a->data[(i * 5 + 2 + j) * 6 + k]);
    CLOSE(c);
}

static void reshape_and_detach_share_their_numbers(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = numbers(c, TTT_SHAPE(4, 6)), *r = ttt_reshape(c, a, TTT_SHAPE(2, 3, 4)), *d = ttt_detach(c, a);
    CHECK(r->data == a->data && d->data == a->data && d->op == NULL && ttt_shape_equal(d->shape, a->shape));
    CHECK(ttt_item(ttt_reshape(c, ttt_full(c, TTT_SHAPE(1, 1), 3), SCALAR)) == 3);
    ttt_tensor *rows = ttt_from_int(c, TTT_SHAPE(3), (int64_t[]){ 2, 0, 1 }), *constant = ttt_detach(c, rows);
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
            ttt_tensor *in[2] = { numbers(c, matrices(la, N, D)), ttt_from_int(c, index_shape, rows) };
            for (int64_t l = 0; l < count; l++)
                for (int64_t k = 0; k < n * D; k++) {
                    int64_t row = rows[place(li, all, l) * n + k / D];
                    want[l * n * D + k] = (double)in[0]->data[(place(la, all, l) * N + row) * D + k % D];
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

// Rows of one table, for an index of any shape; the gradient of a row is the sum over those who
// asked for it.
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

// ---- ops by plain loops --------------------------------------------------------------------------
static const double inf = (double)INFINITY, nan_ = (double)NAN;

// d^order y / dx^order of y = f(x), elementwise, as tensors: the sum of y is differentiated again
// and again.
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

// Three shapes that are broadcast; the condition in every type it may have. Where it chooses, the
// other is NaN.
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

// ---- along the last axis -------------------------------------------------------------------------
typedef enum { SOFTMAX, LOG_SOFTMAX, NORMALIZE, NORMALIZE_D1, RSTD } row_op;
static const char *const row_name[] = { "softmax", "log_softmax", "normalize", "normalize_d1", "rstd" };
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
    case NORMALIZE: return (r->centered ? ttt_layer_normalize : ttt_rms_normalize)(c, in[0], REAL(r->eps));
    case NORMALIZE_D1: return ttt_normalize_d1(c, in[0], in[1], REAL(r->eps), r->centered);
    case RSTD: return ttt_rstd(c, in[0], REAL(r->eps), r->centered);
    }
    return NULL;
}

// softmax: e^(a-max) has the relative error of its rounded argument, |a - max| EPS/2, and a few ulps more;
// the sum and the division add one or two. log_softmax: a - max and the logarithm are rounded once each,
// so the error stays a few ulps of a result of at least that size, however large a is.
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

// The mean is rounded to a ttt_real, hence the part with it; else some roundings of the largest element.
static void expect_norm(const row_arg *arg, const ttt_real *a, const ttt_real *g, int64_t D, double *y, double *room_y) {
    double mean = 0, variance = 0, mean_g = 0, mean_gx = 0, most_g = 0, most_x = 1;
    for (int64_t i = 0; i < D && arg->centered; i++) {
        mean += (double)a[i] / (double)D;
        mean_g += (double)g[i] / (double)D;
    }
    for (int64_t i = 0; i < D; i++) variance += ((double)a[i] - mean) * ((double)a[i] - mean) / (double)D;
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
    int64_t D = in[0]->shape.dim[in[0]->shape.rank - 1], rows = in[0]->size / D, width = arg->op == RSTD ? 1 : D;
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
            ttt_tensor *in[2] = { numbers(s.c[0], TTT_SHAPE(3, D)), numbers(s.c[0], TTT_SHAPE(3, D)) };
            check_rows(&s, &arg, in);
            ttt_mark_release(s.c[0], m);
        }
    sets_close(&s);
}

// Rows far from zero: a variance computed as mean a^2 - mean^2 would be noise.
static void norms_of_rows_with_a_large_mean(void) {
    sets s = sets_open();
    ttt_tensor *in[2] = { ttt_uniform(s.c[0], TTT_SHAPE(4, 50), 999, 1001), numbers(s.c[0], TTT_SHAPE(4, 50)) };
    for (int op = NORMALIZE; op <= RSTD; op++) check_rows(&s, &(row_arg){ (row_op)op, 1e-5, true }, in);
    sets_close(&s);
}

static void softmax_of_large_and_infinite_numbers(void) {
    const double inf = (double)INFINITY;
    const double rows[][5] = {
        { 1e4, 1e4, 1e4 - 1, 9990, 0 }, { -1e30, -1e30, -2e30, -1e30, -1e30 }, { 88, 89, 90, 91, 92 },
        { -inf, 0, -inf, 1, 2 }, { -inf, -inf, -inf, -inf, -3 }, { 3e38, -3e38, 0, 1, 3e38 },
    };
    sets s = sets_open();
    for (int i = 0; i < COUNT(rows); i++)
        for (int op = SOFTMAX; op <= LOG_SOFTMAX; op++) {
            ttt_tensor *x = row_of(s.c[0], 5, rows[i]);
            check_rows(&s, &(row_arg){ (row_op)op, 0, false }, &x);
        }
    sets_close(&s);
}

// NaN anywhere in a row, and a row without any finite number, make the whole row NaN.
static void softmax_does_not_hide_nan(void) {
    sets s = sets_open();
    for (int n = 1; n < 40; n++)
        for (int at = 0; at <= n; at++)
            for (int op = SOFTMAX; op <= LOG_SOFTMAX; op++) {
                ttt_tensor *x = ttt_full(s.c[0], TTT_SHAPE(n), at == n ? -(ttt_real)INFINITY : 1);
                if (at < n) x->data[at] = (ttt_real)NAN;
                for (int i = 0; i < n; i++) want[i] = (double)NAN;
                check_sets(&s, row_name[op], x->shape, call_row, &x, 1, &(row_arg){ (row_op)op, 0, false });
            }
    sets_close(&s);
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

// ---- threads -------------------------------------------------------------------------------------
// Every op on a tensor x (700,192) large enough that eight threads get a share of it, and what else it needs.
typedef struct {
    ttt_tensor *x, *positive, *row, *column, *batch, *rows;
} large;
#define LARGE_OPS(X)                                                                                        \
    X(scale, ttt_scale(c, x, 3))                                                                            \
    X(add_scalar, ttt_add_scalar(c, x, 3))                                                                            \
    X(clamp, ttt_clamp(c, x, REAL(-0.5), 1))                                                       \
    X(pow, ttt_pow(c, l->positive, REAL(2.5)))                                                     \
    X(where, ttt_where(c, ttt_heaviside(c, l->row), ttt_where(c, x, x, l->column), l->positive))   \
    X(dropout, ttt_dropout(c, x, REAL(0.3)))                                                       \
    X(matmul, ttt_concat(c, (ttt_tensor *[]){                                                               \
          ttt_matmul(c, x, ttt_slice(c, x, 0, 0, 192)), ttt_matmul_t(c, x, x, true, false),                 \
          ttt_matmul_to(c, l->batch, l->batch, true, false, TTT_SHAPE(192, 192)),                           \
          ttt_matmul_to(c, l->batch, ttt_broadcast(c, ttt_slice(c, x, 0, 0, 192), TTT_SHAPE(20, 192, 192)), \
                        false, false, TTT_SHAPE(35, 192)) }, 4, 0))                                         \
    X(matmul_add, ttt_concat(c, (ttt_tensor *[]){  /* added to: one row, one matrix, all of them; columns shared out */ \
          ttt_matmul_add(c, l->batch, ttt_slice(c, x, 0, 0, 192), false, false, l->row),                   \
          ttt_matmul_add(c, l->batch, ttt_slice(c, x, 0, 0, 192), false, false, ttt_slice(c, x, 0, 0, 35)), \
          ttt_matmul_add(c, l->batch, ttt_slice(c, x, 0, 0, 192), false, false, l->batch),                 \
          ttt_reshape(c, ttt_matmul_add(c, ttt_slice(c, x, 0, 0, 48), x, false, true,                      \
                                        ttt_slice(c, ttt_reshape(c, x, TTT_SHAPE(192, 700)), 0, 0, 48)), TTT_SHAPE(5, 35, 192)) }, 4, 0)) \
    X(sum_to, ttt_add(c, ttt_sum_to(c, x, TTT_SHAPE(700, 1)),                                                \
                      ttt_add(c, ttt_sum_to(c, x, TTT_SHAPE(192)), ttt_sum(c, x))))                         \
    X(broadcast, ttt_broadcast(c, x, TTT_SHAPE(3, 700, 192)))                                         \
    X(reshape, ttt_reshape(c, x, TTT_SHAPE(192, 700)))                                                \
    X(permute, ttt_permute(c, l->batch, (int[]){ 1, 2, 0 }))                                          \
    X(slice, ttt_slice(c, x, 0, 3, 600))                                                              \
    X(pad, ttt_pad(c, x, 1, 3, 200))                                                              \
    X(concat, ttt_concat(c, (ttt_tensor *[]){ x, x }, 2, 1))                                          \
    X(index_select, ttt_mul(c, ttt_index_select(c, x, l->rows), ttt_max_axis(c, x, 0))) \
    X(index_add, ttt_index_add(c, ttt_slice(c, x, 0, 0, 5), l->rows, 700))                                \
    X(solve_lower, ttt_solve_lower(c, ttt_scale(c, ttt_slice(c, l->batch, 2, 0, 35), REAL(0.1)), l->batch, false)) \
    X(softmax, ttt_softmax(c, x))                                                                     \
    X(log_softmax, ttt_log_softmax(c, x))                                                             \
    X(normalize, ttt_layer_normalize(c, x, REAL(1e-5)))                                               \
    X(normalize_d1, ttt_normalize_d1(c, x, l->positive, REAL(1e-5), true))                            \
    X(rstd, ttt_rstd(c, x, REAL(1e-5), true))

// One op, and its name; NULL past the end.
static ttt_tensor *large_op(ttt_ctx *c, const large *l, int which, const char **name) {
    ttt_tensor *x = l->x;
    int i = 0;
#define X(op, formula, lo, hi, flops) if (i++ == which) return *name = #op, ttt_##op(c, lo > 0 ? l->positive : x);
    TTT_UNARY_OPS(X)
#undef X
#define X(op, formula, lo, hi, flops) \
    if (i++ == which) return *name = #op, ttt_##op(c, ttt_##op(c, x, l->positive), ttt_##op(c, l->row, l->column));
    TTT_BINARY_OPS(X)
#undef X
#define X(op, call) if (i++ == which) return *name = #op, call;
    LARGE_OPS(X)
#undef X
    return NULL;
}

// What is found, put back into the system, gives b; what stands on the diagonal or above it is not read.
static void solve_lower_solves(void) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 5 });
    ttt_tensor *a = ttt_randn(c, TTT_SHAPE(3, 5, 5)), *b = ttt_randn(c, TTT_SHAPE(3, 5, 2)), *S = ttt_zeros(c, a->shape);
    for (int i = 0; i < 75; i++) S->data[i] = i % 5 < i / 5 % 5 ? a->data[i] : i % 5 == i / 5 % 5;
    for (int t = 0; t < 2; t++) {
        ttt_tensor *y = ttt_solve_lower(c, a, b, t);
        CHECK(ttt_max_abs_diff(ttt_matmul_t(c, S, y, t, false), b) <= (sizeof(ttt_real) == 8 ? 1e-13 : 1e-4));
        CHECK(ttt_max_abs_diff(y, ttt_solve_lower(c, S, b, t)) == 0);
    }
    CHECK(ttt_ok(c));
    ttt_close(c);
}

// Hashes of every op's result and gradient; how many there are.
static int large_ops(ttt_ctx *c, uint64_t *hashes) {
    large l;
    int n = 0;
    const char *name;
    l.x = numbers(c, TTT_SHAPE(700, 192));
    l.positive = ttt_uniform(c, TTT_SHAPE(700, 192), REAL(0.5), 2);
    l.row = ttt_uniform(c, TTT_SHAPE(192), REAL(0.5), 2);
    l.column = ttt_uniform(c, TTT_SHAPE(700, 1), REAL(0.5), 2);
    l.batch = ttt_reshape(c, l.x, TTT_SHAPE(20, 35, 192));
    l.rows = ttt_from_int(c, TTT_SHAPE(5), (int64_t[]){ 699, 0, 7, 7, 1 });
    for (;; n++) {
        ttt_mark m = ttt_mark_get(c);
        ttt_tensor *y = large_op(c, &l, n, &name), *g[2];
        if (!y) break;
        CHECK(ttt_op_table(n) && !strcmp(name, ttt_op_table(n)->name));
        ttt_grad(c, ttt_sum(c, ttt_square(c, y)), (ttt_tensor *[]){ l.x, l.positive }, 2, g, TTT_GRAD_FIRST_ORDER);
        hashes[n] = hash(hash(hash(1, y), g[0]), g[1]);
        ttt_mark_release(c, m);
    }
    CHECK(ttt_op_table(n) == NULL);
    return n;
}

// The host's own loop over shares: backwards, on one thread.
static void host_loop(void *user, int n, void (*task)(void *arg, int i), void *arg) {
    ((host *)user)->loops++;
    for (int i = n - 1; i >= 0; i--) task(arg, i);
}

static void the_number_of_threads_changes_no_bit(void) {
    static const int threads[] = { 1, 2, 3, 8, 8 };  // the last: by the host's loop
    uint64_t first[100], step = 0, other[100];
    for (int i = 0; i < COUNT(threads); i++) {
        host h = { 0 };
        ttt_desc own = { .seed = 1, .threads = threads[i] };
        ttt_desc lent = { .seed = 1, .threads = threads[i], .user = &h, .parallel_for = host_loop };
        ttt_ctx *c = ttt_open(i == 4 ? &lent : &own);
        int n = large_ops(c, i ? other : first), bad = -1;
        for (int k = 0; k < n && i; k++) if (other[k] != first[k]) bad = k;
        if (bad >= 0) printf("  %s with %d threads\n", ttt_op_table(bad)->name, threads[i]);
        CHECK(bad < 0);
        learner l = learner_new(c, 300, 40, 64);
        uint64_t hashed = learner_step(c, &l);
        if (i == 0) step = hashed;
        CHECK(hashed == step);
        CHECK(i < 4 || h.loops > n);
        CHECK(i < 4 || ttt_threads(c) == 8);
        CLOSE(c);
    }
}

static uint64_t seeded_steps(uint64_t seed, int threads) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = seed, .threads = threads });
    learner l = learner_new(c, 100, 24, 32);
    uint64_t h = 0;
    for (int i = 0; i < 10; i++) {
        ttt_mark m = ttt_mark_get(c);
        h ^= learner_step(c, &l) + (uint64_t)i;
        l.w[0]->data[i] += 1;
        ttt_mark_release(c, m);
    }
    h = ttt_ok(c) ? h : 0;
    ttt_close(c);
    return h;
}
#if defined(TTT_NO_THREADS) || defined(_WIN32)
static void two_contexts_in_two_threads(void) { SKIP("no POSIX threads"); }
#else
static void *other_thread(void *h) {
    *(uint64_t *)h = seeded_steps(*(uint64_t *)h, 2);
    return NULL;
}
static void two_contexts_in_two_threads(void) {
    uint64_t h[2] = { 11, 12 };
    pthread_t thread[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&thread[i], NULL, other_thread, &h[i]) == 0);
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    CHECK(h[0] == seeded_steps(11, 1) && h[1] == seeded_steps(12, 1) && h[0] != h[1] && h[0] != 0);
}
#endif

// ---- memory --------------------------------------------------------------------------------------
// A step that uses all there is: every op, recorded and unrecorded gradients, a learner, an op of the user.
static uint64_t whole_step(ttt_ctx *c, ttt_tensor *p, learner *l) {
    ttt_tensor *g, *y = all_ops(c, p);
    ttt_grad(c, y, &p, 1, &g, TTT_GRAD_RECORD);
    y = ttt_sum(c, ttt_square(c, g));
    mix user = { &mixes[1], USED_AGAIN };
    y = ttt_add(c, y, mix_value(c, (ttt_tensor *[]){ p, g }, 2, &user));
    ttt_grad(c, y, &p, 1, &g, TTT_GRAD_FIRST_ORDER);
    return hash(learner_step(c, l), g);
}

static void a_warm_step_takes_no_memory(void) {
    host h = { 0 };
    ttt_ctx *c = open_host(&h);
    learner l = learner_new(c, 6, 3, 4);
    ttt_tensor *p = normal_param(c, TTT_SHAPE(96), 1);
    ttt_memory_report warm = { 0 };
    uint64_t first = 0;
    long calls = 0;
    for (int step = 0; step < 5; step++) {
        ttt_mark m = ttt_mark_get(c);
        ttt_memory_reset(c);
        uint64_t hashed = whole_step(c, p, &l);
        ttt_memory_report now = ttt_memory(c);
        CHECK(now.peak >= now.keep + now.step + now.scratch && now.step > 0 && now.scratch == 0);
        ttt_mark_release(c, m);
        if (step == 0) first = hashed;
        if (step == 1) calls = h.calls, warm = now;
        CHECK(hashed == first);
        CHECK(step < 1 || (h.calls == calls && now.held == warm.held));
        CHECK(step < 1 || (now.peak == warm.peak && now.nodes == warm.nodes));
    }
    CHECK(ttt_memory(c).step == 0 && ttt_memory(c).keep > 0);
    CLOSE(c);
    CHECK(h.living == 0);
}

// The N-th allocation fails, once or from then on, for every N of a program's: the error is told, nothing
// leaks, and where memory is back the same context computes the same numbers.
static void memory_may_run_out_anywhere(void) {
    uint64_t right = 0;
    for (int on = 0; on < 2; on++) {
        bool refused = true;
        for (int n = on ? 1 : 0; refused; n++) {  // n = 0: nothing fails
            host h = { .fail_at = n, .fail_on = on };
            ttt_ctx *c = open_host(&h);
            if (c) {
                ttt_mark m = ttt_mark_get(c);
                ttt_rng start = *ttt_ctx_rng(c);
                learner l = learner_new(c, 6, 3, 4);
                ttt_tensor *p = normal_param(c, TTT_SHAPE(96), 1);
                uint64_t hashed = whole_step(c, p, &l);
                refused = h.refused > 0;
                CHECK(ttt_status(c) == (refused ? TTT_ERR_NO_MEMORY : TTT_OK));
                CHECK(ttt_memory(c).scratch == 0);
                if (n == 0) right = hashed;
                CHECK(refused || hashed == right);
                h.fail_at = 0;
                ttt_clear(c);
                ttt_mark_release(c, m);
                *ttt_ctx_rng(c) = start;
                l = learner_new(c, 6, 3, 4);
                p = normal_param(c, TTT_SHAPE(96), 1);
                CHECK(whole_step(c, p, &l) == right);
                CLOSE(c);
            }
            CHECK(h.living == 0);
            CHECK(n < 1000);
            if (n == 0 || n >= 1000) refused = n == 0;
        }
    }
}

static void memory_may_run_out_at_the_opening(void) {
    for (int n = 1; n < 12; n++) {
        host h = { .fail_at = n, .fail_on = 1 };
        ttt_close(ttt_open(&(ttt_desc){ .threads = 3, .user = &h }));
        CHECK(h.living == 0);
    }
}

static void parameters_survive_a_release(void) {
    ttt_ctx *c = open_ctx();
    ttt_mark outer = ttt_mark_get(c);
    ttt_tensor *w[3], *g[3];
    for (int i = 0; i < 3; i++) {
        numbers(c, TTT_SHAPE(50));
        ttt_mark inner = ttt_mark_get(c);
        numbers(c, TTT_SHAPE(5));
        w[i] = normal_param(c, TTT_SHAPE(4), 1);
        w[i]->data[0] = REAL(i);
        numbers(c, TTT_SHAPE(7));
        if (i != 1) ttt_mark_release(c, inner);
        for (int j = 0; j <= i; j++) CHECK(w[j]->data[0] == j);
    }
    ttt_mark_release(c, outer);
    CHECK(ttt_memory(c).nodes == 3 && ttt_memory(c).step == 0);
    for (int round = 0; round < 3; round++) {
        ttt_mark m = ttt_mark_get(c);
        ttt_tensor *y = ttt_sum(c, ttt_add(c, ttt_mul(c, w[0], w[1]), ttt_square(c, w[2])));
        ttt_grad(c, y, w, 3, g, TTT_GRAD_FIRST_ORDER);
        CHECK(same_bits(g[0], w[1]) && same_bits(g[1], w[0]) && same_bits(g[2], ttt_scale(c, w[2], 2)));
        CHECK(w[0]->data[0] == 0 && w[1]->data[0] == 1 && w[2]->data[0] == 2);
        ttt_mark_release(c, m);
    }
    CLOSE(c);
}

// A tensor whose place on the tape is empty or taken by another is found out, before its shape is read.
// (One whose very memory holds a new tensor cannot be: it is that tensor now.)
#define RELEASED(call)                                                                          \
    do {                                                                                        \
        call;                                                                                   \
        if (!strstr(ttt_error(c), "released")) printf("  %s: \"%s\"\n", #call, ttt_error(c));   \
        CHECK(ttt_status(c) == TTT_ERR_RELEASED && strstr(ttt_error(c), "released"));           \
        ttt_clear(c);                                                                           \
    } while (0)
static void use_released(ttt_ctx *c, ttt_tensor *w, ttt_tensor *y, ttt_tensor *gone, ttt_tensor *rows) {
    ttt_tensor *out;
#define X(name, formula, lo, hi, flops) RELEASED(ttt_##name(c, gone));
    TTT_UNARY_OPS(X)
#undef X
#define X(name, formula, lo, hi, flops) RELEASED(ttt_##name(c, w, gone));
    TTT_BINARY_OPS(X)
#undef X
    RELEASED(ttt_scale(c, gone, 2));
    RELEASED(ttt_matmul(c, gone, w));
    RELEASED(ttt_affine(c, w, w, gone));
    RELEASED(ttt_sum(c, gone));
    RELEASED(ttt_mean(c, gone));
    RELEASED(ttt_mean_axis(c, gone, 0));
    RELEASED(ttt_mse(c, w, gone));
    RELEASED(ttt_broadcast(c, gone, TTT_SHAPE(2, 3, 3)));
    RELEASED(ttt_reshape(c, gone, TTT_SHAPE(9)));
    RELEASED(ttt_permute(c, gone, (int[]){ 1, 0 }));
    RELEASED(ttt_transpose(c, gone));
    RELEASED(ttt_slice(c, gone, 0, 0, 1));
    RELEASED(ttt_pad(c, gone, 0, 0, 9));
    RELEASED(ttt_concat(c, (ttt_tensor *[]){ w, gone }, 2, 0));
    RELEASED(ttt_index_select(c, gone, rows));
    RELEASED(ttt_index_select(c, w, gone));
    RELEASED(ttt_index_add(c, gone, rows, 3));
    RELEASED(ttt_detach(c, gone));
    RELEASED(ttt_softmax(c, gone));
    RELEASED(ttt_normalize_d1(c, w, gone, 1, true));
    RELEASED(ttt_rstd(c, gone, 1, true));
    RELEASED(ttt_solve_lower(c, gone, gone, false));
    RELEASED(ttt_grad(c, gone, &w, 1, &out, TTT_GRAD_FIRST_ORDER));
    RELEASED(ttt_grad(c, y, &gone, 1, &out, TTT_GRAD_RECORD));
    RELEASED(ttt_grad(c, y, &w, 1, &gone, TTT_GRAD_ADD));
    RELEASED(ttt_vjp(c, w, gone, &w, 1, &out, TTT_GRAD_FIRST_ORDER));
}
static void released_tensors_are_not_used(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *w = normal_param(c, TTT_SHAPE(3, 3), 1), *rows = ttt_from_int(c, TTT_SHAPE(3), (int64_t[]){ 0, 1, 2 });
    ttt_tensor *y = ttt_sum(c, ttt_square(c, w));
    ttt_mark m = ttt_mark_get(c);
    for (int i = 0; i < 60; i++) numbers(c, SCALAR);
    ttt_tensor *gone = numbers(c, TTT_SHAPE(3, 3));
    ttt_mark_release(c, m);
    use_released(c, w, y, gone, rows);
    ttt_mark_release(c, m);
    ttt_full(c, TTT_SHAPE(100000), 3);  // numbers where the tensor was
    for (int i = 0; i < 70; i++) numbers(c, SCALAR);
    use_released(c, w, y, gone, rows);
    CLOSE(c);
}

static void released_memory_is_poisoned(void) {
#ifdef TTT_POISON
    ttt_ctx *c = open_ctx();
    ttt_mark m = ttt_mark_get(c);
    ttt_tensor *t = ttt_full(c, TTT_SHAPE(100), 1);
    ttt_real *data = t->data;
    ttt_mark_release(c, m);
    CHECK(isnan(data[0]) && isnan(data[99]));
    CLOSE(c);
#else
    SKIP("compiled without TTT_POISON");
#endif
}

static void alloc_is_aligned_and_bounded(void) {
    host h = { 0 };
    ttt_ctx *c = open_host(&h);
    for (size_t n = 0; n < 300; n += 7) {
        char *a = ttt_alloc(c, n, false), *b = ttt_alloc(c, n, true);
        CHECK(a && b && (uintptr_t)a % 64 == 0 && (uintptr_t)b % 64 == 0);
        if (a && b) memset(a, 1, n), memset(b, 1, n);
    }
    for (int i = 0; i < 3; i++) {
        static const size_t much[3] = { (size_t)-1, (size_t)-1 - 62, (size_t)-1 / 2 };
        CHECK(ttt_alloc(c, much[i], false) == NULL && ttt_status(c) == TTT_ERR_NO_MEMORY);
        ttt_clear(c);
    }
    CLOSE(c);
    CHECK(h.living == 0);
}

// ---- errors --------------------------------------------------------------------------------------
// `call` gives the empty tensor and this result, and its text has every one of the strings in it.
#define FAILS(call, result, ...) check_fails(c, __LINE__, call, result, (const char *[]){ __VA_ARGS__, NULL })
static void check_fails(ttt_ctx *c, int line, const ttt_tensor *y, ttt_result r, const char *const *parts) {
    bool good = ttt_status(c) == r && (!y || y == &c->empty);
    for (; *parts; parts++) good = good && strstr(ttt_error(c), *parts);
    if (!good) printf("  line %d: result %d, \"%s\"\n", line, (int)ttt_status(c), ttt_error(c));
    CHECK(good);
    ttt_clear(c);
}

static void shapes_that_cannot_be(void) {
    host h = { 0 };
    ttt_ctx *c = open_host(&h);
    const int64_t G = (int64_t)1 << 31, E = (int64_t)1 << 62;
    const ttt_real one_real[1] = { 1 };
    const struct { ttt_shape s; const char *text; } bad[9] = {
        { TTT_SHAPE(-1), "(-1)" },
        { TTT_SHAPE(2, -3, 0), "(2,-3,0)" },
        { TTT_SHAPE(E), "4611686018427387904" },
        { TTT_SHAPE(G, G), "(2147483648,2147483648)" },
        { TTT_SHAPE(G, G, 2), "(2147483648,2147483648,2)" },
        { TTT_SHAPE(E, E, E, E), "4611686018427387904" },
        { TTT_SHAPE(INT64_MAX, INT64_MAX), "9223372036854775807" },
        { { 9, { 1, 1, 1, 1, 1, 1, 1, 1 } }, "9" },
        { { -1, { 0 } }, "-1" },
    };
    for (int i = 0; i < COUNT(bad); i++) {
        long calls = h.calls;
        FAILS(ttt_new(c, bad[i].s), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_zeros(c, bad[i].s), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_full(c, bad[i].s, 1), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_from(c, bad[i].s, one_real), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_from_int(c, bad[i].s, &G), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_randn(c, bad[i].s), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_uniform(c, bad[i].s, 0, 1), TTT_ERR_SHAPE, bad[i].text);
        FAILS(ttt_zeros_kept(c, bad[i].s), TTT_ERR_SHAPE, bad[i].text);
        CHECK(h.calls == calls);  // before any allocation
    }
    if (sizeof(size_t) == 8) FAILS(ttt_new(c, TTT_SHAPE(G, 1 << 20)), TTT_ERR_NO_MEMORY, "out of memory");
    ttt_tensor *one = ttt_zeros(c, TTT_SHAPE(1, 1));
    FAILS(ttt_broadcast(c, one, TTT_SHAPE(G, G)), TTT_ERR_SHAPE, "(2147483648,2147483648)");
    FAILS(ttt_pad(c, one, 0, 0, E), TTT_ERR_SHAPE, "4611686018427387904");
    FAILS(ttt_index_add(c, one, ttt_from_int(c, TTT_SHAPE(1), (int64_t[]){ 0 }), E), TTT_ERR_SHAPE, "4611686018427387904");
    CHECK(ttt_zeros(c, TTT_SHAPE(0, 3))->size == 0 && ttt_zeros(c, TTT_SHAPE(E, 0))->size == 0);
    CHECK(ttt_shape_size(SCALAR) == 1 && ttt_shape_size(TTT_SHAPE(2, 3)) == 6);
    CHECK(ttt_shape_size(TTT_SHAPE(E)) == E && ttt_shape_size(TTT_SHAPE(E, 2)) == -1);
    CLOSE(c);
    CHECK(h.living == 0);
}

static void shapes_that_do_not_fit(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *s = ttt_scalar(c, 1), *a = numbers(c, TTT_SHAPE(2, 3)), *b = numbers(c, TTT_SHAPE(4));
    ttt_tensor *x = numbers(c, TTT_SHAPE(2, 3, 4)), *w = numbers(c, TTT_SHAPE(4, 5));
    ttt_tensor *rows = ttt_from_int(c, TTT_SHAPE(3), (int64_t[]){ 0, 1, 0 }), *out[2];
#define X(name, formula, lo, hi, flops) FAILS(ttt_##name(c, a, b), TTT_ERR_SHAPE, #name, "(2,3)", "(4)");
    TTT_BINARY_OPS(X)
#undef X
    FAILS(ttt_mse(c, a, b), TTT_ERR_SHAPE, "(2,3)", "(4)");
    FAILS(ttt_matmul(c, w, x), TTT_ERR_SHAPE, "matmul", "(4,5)", "(2,3,4)", "(...,m,k)");
    FAILS(ttt_matmul(c, a, w), TTT_ERR_SHAPE, "matmul", "(2,3)", "(4,5)");
    FAILS(ttt_matmul_t(c, w, x, true, false), TTT_ERR_SHAPE, "matmul", "(4,5)^T", "(2,3,4)");
    FAILS(ttt_matmul_t(c, a, w, false, true), TTT_ERR_SHAPE, "matmul", "(2,3)", "(4,5)^T");
    FAILS(ttt_matmul(c, b, w), TTT_ERR_SHAPE, "matmul", "(4)", "(4,5)");
    FAILS(ttt_matmul(c, numbers(c, TTT_SHAPE(2, 3, 4)), numbers(c, TTT_SHAPE(3, 4, 5))), TTT_ERR_SHAPE, "matmul", "(2,3,4)", "(3,4,5)");
    FAILS(ttt_matmul_to(c, x, w, false, false, TTT_SHAPE(3, 4)), TTT_ERR_SHAPE, "matmul", "(2,3,5)", "(3,4)");
    FAILS(ttt_matmul_to(c, x, w, false, false, TTT_SHAPE(5)), TTT_ERR_SHAPE, "matmul", "(2,3,5)", "(5)");
    FAILS(ttt_matmul_to(c, x, w, false, false, TTT_SHAPE(3, 3, 5)), TTT_ERR_SHAPE, "matmul", "(2,3,5)", "(3,3,5)");
    FAILS(ttt_matmul_to(c, a, numbers(c, TTT_SHAPE(3, 5)), false, false, TTT_SHAPE(7, 2, 5)), TTT_ERR_SHAPE, "matmul", "(2,5)", "(7,2,5)");
    FAILS(ttt_affine(c, x, a, b), TTT_ERR_SHAPE, "affine", "(2,3,4)", "(2,3)");
    FAILS(ttt_affine(c, x, w, b), TTT_ERR_SHAPE, "affine", "(4)", "(2,3,5)");
    FAILS(ttt_affine(c, x, w, numbers(c, TTT_SHAPE(2, 5))), TTT_ERR_SHAPE, "affine", "(2,5)", "(2,3,5)");
    FAILS(ttt_affine(c, x, w, numbers(c, TTT_SHAPE(3, 1, 5))), TTT_ERR_SHAPE, "affine", "(3,1,5)", "(2,3,5)");
    FAILS(ttt_affine(c, x, w, s), TTT_ERR_SHAPE, "affine", "()", "(2,3,5)");
    FAILS(ttt_sum_to(c, a, TTT_SHAPE(2, 2)), TTT_ERR_SHAPE, "sum_to", "(2,3)", "(2,2)");
    FAILS(ttt_sum_to(c, a, TTT_SHAPE(1, 2, 3)), TTT_ERR_SHAPE, "sum_to", "(2,3)", "(1,2,3)");
    FAILS(ttt_broadcast(c, a, TTT_SHAPE(4, 3)), TTT_ERR_SHAPE, "broadcast", "(2,3)", "(4,3)");
    FAILS(ttt_broadcast(c, a, TTT_SHAPE(3)), TTT_ERR_SHAPE, "broadcast", "(2,3)", "(3)");
    FAILS(ttt_broadcast(c, ttt_zeros(c, TTT_SHAPE(1)), TTT_SHAPE(-1)), TTT_ERR_SHAPE, "(-1)");
    FAILS(ttt_reshape(c, a, TTT_SHAPE(7)), TTT_ERR_SHAPE, "reshape", "(2,3)", "(7)");
    FAILS(ttt_reshape(c, a, TTT_SHAPE(-2, -3)), TTT_ERR_SHAPE, "reshape", "(2,3)", "(-2,-3)");
    FAILS(ttt_transpose(c, b), TTT_ERR_SHAPE, "transpose");
    FAILS(ttt_concat(c, (ttt_tensor *[]){ a, x }, 2, 0), TTT_ERR_SHAPE, "concat", "(2,3)", "(2,3,4)");
    FAILS(ttt_concat(c, (ttt_tensor *[]){ a, numbers(c, TTT_SHAPE(3, 2)) }, 2, 1), TTT_ERR_SHAPE, "concat", "(2,3)", "(3,2)");
    FAILS(ttt_index_select(c, b, rows), TTT_ERR_SHAPE, "index_select", "(4)", "(3)");
    FAILS(ttt_index_select(c, a, a), TTT_ERR_SHAPE, "index_select", "integers");
    FAILS(ttt_index_select(c, x, ttt_from_int(c, TTT_SHAPE(3, 1), (int64_t[]){ 0, 1, 0 })), TTT_ERR_SHAPE, "index_select", "(2,3,4)", "(3,1)");
    FAILS(ttt_index_add(c, a, rows, 5), TTT_ERR_SHAPE, "index_add", "2", "3");
    FAILS(ttt_where(c, a, a, b), TTT_ERR_SHAPE, "where", "(2,3)", "(4)");
    FAILS(ttt_where(c, b, a, a), TTT_ERR_SHAPE, "where", "(4)", "(2,3)");
    FAILS(ttt_max_axis(c, ttt_zeros(c, TTT_SHAPE(2, 0)), 1), TTT_ERR_SHAPE, "max_axis", "axis 1",
          "(2,0)", "expected");
    FAILS(ttt_argmax(c, ttt_zeros(c, TTT_SHAPE(0)), -1), TTT_ERR_SHAPE, "argmax", "axis -1", "(0)",
          "expected");
    FAILS(ttt_embedding(c, x, rows), TTT_ERR_SHAPE, "embedding", "(2,3,4)", "(3)", "expected");
    FAILS(ttt_embedding(c, a, ttt_from_int(c, TTT_SHAPE(1, 1, 1, 1, 1, 1, 1, 1), (int64_t[]){ 0 })),
          TTT_ERR_SHAPE, "embedding", "(1,1,1,1,1,1,1,1)", "expected");
    FAILS(ttt_solve_lower(c, a, a, false), TTT_ERR_SHAPE, "solve_lower", "(2,3)", "(...,n,n)");
    FAILS(ttt_softmax(c, s), TTT_ERR_SHAPE, "softmax", "()");
    FAILS(ttt_log_softmax(c, s), TTT_ERR_SHAPE, "log_softmax", "()");
    FAILS(ttt_layer_normalize(c, s, 1), TTT_ERR_SHAPE, "normalize", "()");
    FAILS(ttt_rstd(c, s, 1, true), TTT_ERR_SHAPE, "rstd", "()");
    FAILS(ttt_normalize_d1(c, a, b, 1, true), TTT_ERR_SHAPE, "normalize_d1", "(2,3)", "(4)");
    ttt_grad(c, a, &a, 1, out, TTT_GRAD_FIRST_ORDER);
    FAILS(out[0], TTT_ERR_SHAPE, "(2,3)", "ttt_vjp");
    ttt_vjp(c, a, b, &a, 1, out, TTT_GRAD_RECORD);
    FAILS(out[0], TTT_ERR_SHAPE, "(2,3)", "(4)");
    out[0] = ttt_zeros(c, TTT_SHAPE(4, 3));
    ttt_grad(c, ttt_sum(c, a), &a, 1, out, TTT_GRAD_ADD);
    FAILS(NULL, TTT_ERR_SHAPE, "(2,3)", "(4,3)");
    CLOSE(c);
}

static void arguments_out_of_range(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = numbers(c, TTT_SHAPE(2, 3)), *out;
    FAILS(ttt_sum_axis(c, a, 2), TTT_ERR_ARGUMENT, "sum_axis", "axis 2", "(2,3)");
    FAILS(ttt_mean_axis(c, a, -3), TTT_ERR_ARGUMENT, "mean_axis", "axis -3", "(2,3)");
    FAILS(ttt_max_axis(c, a, 2), TTT_ERR_ARGUMENT, "max_axis", "axis 2", "(2,3)");
    FAILS(ttt_argmax(c, a, -3), TTT_ERR_ARGUMENT, "argmax", "axis -3", "(2,3)");
    FAILS(ttt_max_axis(c, ttt_scalar(c, 1), 0), TTT_ERR_ARGUMENT, "max_axis", "axis 0", "()");
    FAILS(ttt_clamp(c, a, 1, REAL(0.5)), TTT_ERR_ARGUMENT, "clamp", "1", "0.5",
          "lo <= hi expected");
    FAILS(ttt_clamp(c, a, REAL(NAN), 1), TTT_ERR_ARGUMENT, "clamp", "nan", "expected");
    FAILS(ttt_pow(c, a, REAL(INFINITY)), TTT_ERR_ARGUMENT, "pow", "inf", "expected");
    FAILS(ttt_pow(c, a, REAL(NAN)), TTT_ERR_ARGUMENT, "pow", "nan", "expected");
    const double share[] = { 1, -0.1, 2, (double)NAN };
    for (int i = 0; i < COUNT(share); i++) {
        FAILS(ttt_dropout(c, a, REAL(share[i])), TTT_ERR_ARGUMENT, "dropout",
              "0 <= p < 1 expected");
        FAILS(ttt_dropout_seeded(c, a, REAL(share[i]), 1), TTT_ERR_ARGUMENT, "dropout",
              "0 <= p < 1 expected");
    }
    FAILS(ttt_embedding(c, a, ttt_from_int(c, TTT_SHAPE(1, 2), (int64_t[]){ 0, 2 })),
          TTT_ERR_ARGUMENT, "embedding", "index 2", "place 1", "0..1");
    FAILS(ttt_slice(c, a, 2, 0, 1), TTT_ERR_ARGUMENT, "slice", "axis 2", "(2,3)");
    const int64_t most = INT64_MAX, least = INT64_MIN;
    const int64_t span[][2] = { { 0, 4 }, { 3, 1 }, { -1, 1 }, { 0, -1 }, { most, most }, { least, least }, { 2, most } };
    for (int i = 0; i < COUNT(span); i++)
        FAILS(ttt_slice(c, a, 1, span[i][0], span[i][1]), TTT_ERR_ARGUMENT, "slice", "(2,3)");
    const int64_t hole[][2] = { { 0, 2 }, { 1, 3 }, { -1, 5 }, { most, most }, { 0, least }, { 0, -1 } };
    for (int i = 0; i < COUNT(hole); i++)
        FAILS(ttt_pad(c, a, 1, hole[i][0], hole[i][1]), TTT_ERR_ARGUMENT, "pad", "(2,3)");
    FAILS(ttt_permute(c, a, (int[]){ 0, 2 }), TTT_ERR_ARGUMENT, "permute", "order[1]");
    FAILS(ttt_permute(c, a, (int[]){ 1, 1 }), TTT_ERR_ARGUMENT, "permute", "order[1]");
    FAILS(ttt_permute(c, a, (int[]){ -1, 0 }), TTT_ERR_ARGUMENT, "permute", "order[0]");
    FAILS(ttt_concat(c, &a, 0, 0), TTT_ERR_ARGUMENT, "concat");
    FAILS(ttt_concat(c, &a, 1, 2), TTT_ERR_ARGUMENT, "concat", "axis 2");
    FAILS(ttt_index_select(c, a, ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 0, 2 })), TTT_ERR_ARGUMENT, "index_select", "index 2");
    FAILS(ttt_index_select(c, a, ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 0, -1 })), TTT_ERR_ARGUMENT, "index_select", "index -1");
    FAILS(ttt_index_add(c, a, ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 0, 4 }), 4), TTT_ERR_ARGUMENT, "index_add", "index 4");
    FAILS(ttt_index_add(c, a, ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 0, 0 }), -1), TTT_ERR_ARGUMENT, "index_add");
    const ttt_op *op = ttt_op_table(0);
    FAILS(ttt_apply(c, op, (ttt_tensor *[]){ a, a }, 2, a->shape, NULL, 0), TTT_ERR_ARGUMENT, op->name, "2 inputs", "1 expected");
    for (int i = 0; i < 2; i++) {  // order 0; no inputs
        CHECK(isnan(ttt_check_gradient(c, op_value, &a, 1 - i, NULL, i, 1e-3)));
        FAILS(NULL, TTT_ERR_ARGUMENT, "check_gradient");
    }
    for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_RECORD; mode++) {
        ttt_tensor *both = a;
        ttt_grad(c, ttt_sum(c, a), &both, 1, &both, (ttt_grad_mode)mode);
        FAILS(both, TTT_ERR_ARGUMENT, "grad", "same array");
    }
    ttt_tensor *many[65];
    for (int i = 0; i < 65; i++) many[i] = a;
    ttt_tensor *joined = ttt_concat(c, many, 65, 0);
    CHECK(ttt_ok(c) && joined->size == 65 * 6);
    for (int mode = TTT_GRAD_FIRST_ORDER; mode <= TTT_GRAD_RECORD; mode++) {
        ttt_grad(c, ttt_sum(c, joined), &a, 1, &out, (ttt_grad_mode)mode);
        CHECK(ttt_ok(c) && out->size == 6 && out->data[0] == 65 && out->data[5] == 65);
    }
    CHECK(ttt_open(&(ttt_desc){ .isa = "abacus" }) == NULL);
    CHECK(isnan(ttt_item(a)));
    ttt_close(NULL);
    CLOSE(c);
}

// More than eight axes: by hand, and by broadcasting leading sizes of an index and rows.
static void ranks_above_eight(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = numbers(c, TTT_SHAPE(4, 3));
    ttt_tensor *rows = ttt_from_int(c, TTT_SHAPE(1, 1, 1, 1, 1, 1, 1, 2), (int64_t[]){ 0, 1 });
    FAILS(ttt_index_select(c, a, rows), TTT_ERR_SHAPE, "index_select", "(4,3)");
    FAILS(ttt_index_add(c, numbers(c, TTT_SHAPE(2, 3)), rows, 4), TTT_ERR_SHAPE, "index_add", "(2,3)");
    FAILS(ttt_reshape(c, a, (ttt_shape){ 9, { 4, 3, 1, 1, 1, 1, 1, 1 } }), TTT_ERR_SHAPE, "reshape");
    FAILS(ttt_sum_to(c, a, (ttt_shape){ -1, { 0 } }), TTT_ERR_SHAPE, "sum_to");
    FAILS(ttt_broadcast(c, a, (ttt_shape){ 9, { 1, 1, 1, 1, 1, 1, 4, 3 } }), TTT_ERR_SHAPE, "broadcast");
    FAILS(ttt_zeros(c, TTT_SHAPE(1, 1, 1, 1, 1, 1, 1, 1, 2)), TTT_ERR_SHAPE, "tensor");
    CLOSE(c);
}

// Integers are row numbers, not operands: each op says so, and so does the gradient.
static void integers_are_no_operands(void) {
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = numbers(c, TTT_SHAPE(2, 2)), *i = ttt_from_int(c, TTT_SHAPE(2, 2), (int64_t[]){ 0, 1, 1, 0 });
    ttt_tensor *one = ttt_from_int(c, TTT_SHAPE(1), (int64_t[]){ 3 }), *pair = ttt_from_int(c, TTT_SHAPE(2), (int64_t[]){ 0, 1 }), *out;
#define X(name, formula, lo, hi, flops) FAILS(ttt_##name(c, i), TTT_ERR_ARGUMENT, #name, "integers");
    TTT_UNARY_OPS(X)
#undef X
#define X(name, formula, lo, hi, flops) FAILS(ttt_##name(c, a, i), TTT_ERR_ARGUMENT, #name, "integers");
    TTT_BINARY_OPS(X)
#undef X
    FAILS(ttt_scale(c, i, 2), TTT_ERR_ARGUMENT, "scale", "integers");
    FAILS(ttt_matmul(c, a, i), TTT_ERR_ARGUMENT, "matmul", "integers");
    FAILS(ttt_affine(c, a, a, pair), TTT_ERR_ARGUMENT, "affine", "integers");
    FAILS(ttt_sum(c, i), TTT_ERR_ARGUMENT, "sum_to", "integers");
    FAILS(ttt_broadcast(c, i, TTT_SHAPE(3, 2, 2)), TTT_ERR_ARGUMENT, "broadcast", "integers");
    FAILS(ttt_transpose(c, i), TTT_ERR_ARGUMENT, "transpose", "integers");
    FAILS(ttt_slice(c, i, 0, 0, 1), TTT_ERR_ARGUMENT, "slice", "integers");
    FAILS(ttt_pad(c, i, 0, 0, 3), TTT_ERR_ARGUMENT, "pad", "integers");
    FAILS(ttt_concat(c, (ttt_tensor *[]){ a, i }, 2, 0), TTT_ERR_ARGUMENT, "concat", "integers");
    FAILS(ttt_index_select(c, i, one), TTT_ERR_ARGUMENT, "index_select");
    FAILS(ttt_index_add(c, i, i, 2), TTT_ERR_ARGUMENT, "index_add", "integers");
    FAILS(ttt_softmax(c, i), TTT_ERR_ARGUMENT, "softmax", "integers");
    FAILS(ttt_normalize_d1(c, a, i, 1, true), TTT_ERR_ARGUMENT, "normalize_d1", "integers");
    ttt_grad(c, ttt_sum(c, a), &i, 1, &out, TTT_GRAD_FIRST_ORDER);
    FAILS(out, TTT_ERR_ARGUMENT, "grad", "wrt[0]");
    ttt_vjp(c, a, i, &a, 1, &out, TTT_GRAD_FIRST_ORDER);
    FAILS(out, TTT_ERR_ARGUMENT, "grad", "integers");
    ttt_grad(c, one, &a, 1, &out, TTT_GRAD_FIRST_ORDER);
    FAILS(out, TTT_ERR_ARGUMENT, "grad", "integers");
    CHECK(isnan(ttt_item(one)));
    CLOSE(c);
}

// ---- stored types --------------------------------------------------------------------------------
static ttt_tensor *stored(ttt_ctx *c, ttt_shape s, ttt_dtype dtype) {  // small numbers, in any type
    ttt_tensor *t = ttt_new_typed(c, s, dtype, false);
    for (int64_t i = 0; i < t->size; i++) {
        if (t->data) t->data[i] = REAL(i % 3);
        if (t->index) t->index[i] = i % 3;
        if (t->u8) t->u8[i] = (uint8_t)(i % 3);
        if (t->bf16) t->bf16[i] = ttt__bf16_of(REAL(i % 3));
    }
    return t;
}
static const char *const type_words[] = { "real numbers", "integers", "bytes", "bfloat16" };

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
        for (int k = 0; k < 7; k++) CHECK(r->data[k] == (ttt_real)large[k]);
        for (int type = 0; type < TTT__N_DTYPES; type++) {
            ttt_tensor *t = stored(c, TTT_SHAPE(2, 3), (ttt_dtype)type),
                       *same = ttt_cast(c, t, (ttt_dtype)type);
            CHECK(same != t && same->dtype == t->dtype && same->shares == t);
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
    const size_t bytes[] = { sizeof(ttt_real), 8, 1, 2 };
    for (int type = 0; type < TTT__N_DTYPES; type++)
        for (int keep = 0; keep < 2; keep++) {
            ttt_mark m = ttt_mark_get(c);
            ttt_memory_report before = ttt_memory(c), after;
            ttt_tensor *t = ttt_new_typed(c, TTT_SHAPE(64, 3), (ttt_dtype)type, keep),
                       *again = ttt_detach(c, t);
            after = ttt_memory(c);
            const void *elements[] = { t->data, t->index, t->u8, t->bf16 },
                       *shared[] = { again->data, again->index, again->u8, again->bf16 };
            for (int k = 0; k < 4; k++)
                CHECK((elements[k] != NULL) == (k == type) && shared[k] == elements[k]);
            CHECK(t->dtype == (ttt_dtype)type && t->size == 192 && t->kept == (keep != 0) &&
                  again->dtype == t->dtype && again->shares == t);
            size_t used = keep ? after.keep - before.keep : after.step - before.step;
            CHECK(used >= 192 * bytes[type] + sizeof *t &&
                  used <= 192 * bytes[type] + (keep ? 1 : 2) * (sizeof *t + 128));
            CHECK(type == TTT_DTYPE_REAL || (isnan(ttt_max_abs_diff(t, t)) &&
                                             isnan(ttt_item(stored(c, SCALAR, (ttt_dtype)type)))));
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
          "matmul: input 0 holds bfloat16; real numbers expected");
    FAILS(ttt_matmul(c, a, u), TTT_ERR_ARGUMENT,
          "matmul: input 1 holds bytes; real numbers or bfloat16 expected");
    FAILS(ttt_affine(c, a, b, b), TTT_ERR_ARGUMENT,
          "affine: input 2 holds bfloat16; real numbers expected");
    FAILS(ttt_where(c, b, a, a), TTT_ERR_ARGUMENT,
          "where: input 0 holds bfloat16; real numbers or integers or bytes expected");
    FAILS(ttt_where(c, u, a, u), TTT_ERR_ARGUMENT,
          "where: input 2 holds bytes; real numbers expected");
    FAILS(ttt_index_select(c, a, u), TTT_ERR_SHAPE, "index_select", "integers");
    FAILS(ttt_index_add(c, a, u, 3), TTT_ERR_SHAPE, "index_add", "integers");
    FAILS(ttt_embedding(c, b, i), TTT_ERR_ARGUMENT,
          "embedding: input 0 holds bfloat16; real numbers expected");
    FAILS(ttt_embedding(c, a, u), TTT_ERR_ARGUMENT,
          "embedding: input 1 holds bytes; integers expected");
    FAILS(ttt_max_axis(c, u, 0), TTT_ERR_ARGUMENT, "max_axis: input 0 holds bytes");
    FAILS(ttt_argmax(c, i, 0), TTT_ERR_ARGUMENT, "argmax: input 0 holds integers");
    FAILS(ttt_dropout(c, b, 0), TTT_ERR_ARGUMENT, "dropout: input 0 holds bfloat16");
    FAILS(ttt_cast(c, a, TTT_DTYPE_U8), TTT_ERR_ARGUMENT, "cast: from real numbers to bytes",
          "expected");
    FAILS(ttt_cast(c, a, TTT_DTYPE_INT), TTT_ERR_ARGUMENT, "cast: from real numbers to integers",
          "expected");
    FAILS(ttt_cast(c, u, TTT_DTYPE_BF16), TTT_ERR_ARGUMENT, "cast: from bytes to bfloat16",
          "expected");
    FAILS(ttt_cast(c, b, TTT_DTYPE_INT), TTT_ERR_ARGUMENT, "cast: from bfloat16 to integers",
          "expected");
    FAILS(ttt_cast(c, a, (ttt_dtype)9), TTT_ERR_ARGUMENT,
          "cast: from real numbers to no element type");
    FAILS(ttt_cast(c, NULL, TTT_DTYPE_REAL), TTT_ERR_RELEASED, "cast");
    FAILS(ttt_new_typed(c, TTT_SHAPE(2), (ttt_dtype)9, false), TTT_ERR_ARGUMENT, "new_typed", "9");
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

// A product by a bfloat16 factor has the bits of that by the same numbers as reals; so have its
// gradients.
static ttt_tensor *weighed_product(ttt_ctx *c, const product *p, ttt_tensor *a, ttt_tensor *b,
                                ttt_tensor *add) {
    ttt_tensor *y = p->adds ? ttt_matmul_add(c, a, b, p->ta, p->tb, add)
                            : ttt_matmul_to(c, a, b, p->ta, p->tb, p->y);
    return weigh(c, y);
}
static void check_bf16_product(ttt_ctx *c, const product *p, ttt_shape sa, ttt_shape sb) {
    ttt_mark m = ttt_mark_get(c);
    ttt_tensor *a = numbers(c, sa), *b = ttt_cast(c, numbers(c, sb), TTT_DTYPE_BF16),
               *wide = ttt_cast(c, b, TTT_DTYPE_REAL);
    ttt_tensor *add = numbers(c, TTT_SHAPE(p->y.dim[p->y.rank - 1])), *x[2] = { a, add }, *g[2][2],
               *gg[2][2];
    for (int k = 0; k < 2; k++) {
        ttt_tensor *loss = weighed_product(c, p, a, k ? wide : b, add), *sum;
        ttt_grad(c, loss, x, 2, g[k], TTT_GRAD_FIRST_ORDER);
        ttt_grad(c, loss, x, 1, gg[k], TTT_GRAD_RECORD);
        CHECK(same_bits(gg[k][0], g[k][0]));
        sum = ttt_sum(c, ttt_square(c, gg[k][0]));
        ttt_grad(c, sum, x, 2, gg[k], TTT_GRAD_FIRST_ORDER);
    }
    for (int i = 0; i < 2; i++) CHECK(same_bits(g[0][i], g[1][i]) && same_bits(gg[0][i], gg[1][i]));
    for (int k = 0; k < 2; k++)
        g[k][0] = call_product(c, (ttt_tensor *[]){ a, k ? wide : b, add }, p);
    CHECK(same_bits(g[0][0], g[1][0]));
    if (!p->adds && !p->ta && !p->tb && ttt_shape_equal(p->y, g[0][0]->shape) && sa.rank == 2 &&
        sb.rank == 2)
        CHECK(same_bits(g[0][0], ttt_matmul(c, a, b)) &&
              same_bits(ttt_affine(c, a, b, add), ttt_affine(c, a, wide, add)));
    if (!ttt_ok(c)) printf("  %s\n", ttt_error(c));
    ttt_mark_release(c, m);
}
static void products_by_bfloat16_have_the_bits_of_reals(void) {
    const ttt_shape lead[][3] = {
        { SCALAR, SCALAR, SCALAR },
        { TTT_SHAPE(2), SCALAR, TTT_SHAPE(2) },
        { SCALAR, TTT_SHAPE(3), TTT_SHAPE(3) },
        { TTT_SHAPE(2), TTT_SHAPE(2), SCALAR },
        { TTT_SHAPE(2, 1), TTT_SHAPE(3), TTT_SHAPE(2, 3) },
        { TTT_SHAPE(2, 1), TTT_SHAPE(3), TTT_SHAPE(3) },
    };
    const int64_t size[][3] = { { 1, 1, 1 },     { 1, 70, 37 },  { 3, 5, 2 },
                                { 7, 64, 64 },   { 13, 19, 33 }, { 17, 600, 65 },
                                { 1, 600, 130 }, { 200, 33, 1 }, { 4, 0, 3 } };
    sets s = sets_open();
    for (int i = 0; i < s.n; i++)
        for (int l = 0; l < COUNT(lead); l++)
            for (int z = 0; z < COUNT(size); z++)
                for (int t = 0; t < 8; t++) {
                    int64_t m = size[z][0], k = size[z][1], n = size[z][2];
                    product p = { t & 1, t >> 1 & 1, t >> 2 & 1, matrices(lead[l][2], m, n) };
                    ttt_shape all;
                    if (p.adds && (!ttt__broadcast_shape(lead[l][0], lead[l][1], &all) ||
                                   !ttt_shape_equal(all, lead[l][2])))
                        continue;  // no sum
                    check_bf16_product(
                        s.c[i], &p, p.ta ? matrices(lead[l][0], k, m) : matrices(lead[l][0], m, k),
                        p.tb ? matrices(lead[l][1], n, k) : matrices(lead[l][1], k, n));
                }
    sets_close(&s);
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

static void tensors_of_another_context(void) {
    ttt_ctx *c = open_ctx(), *other = open_ctx();
    ttt_tensor *mine = numbers(c, TTT_SHAPE(2)), *theirs = numbers(other, TTT_SHAPE(2));
    FAILS(ttt_add(c, mine, theirs), TTT_ERR_RELEASED, "add", "input 1");
    FAILS(ttt_exp(c, theirs), TTT_ERR_RELEASED, "exp", "input 0");
    CLOSE(other);
    CLOSE(c);
}

static void host_error(void *user, ttt_result r, const char *text) {
    host *h = user;
    h->errors++;
    h->error = (int)r;
    CHECK(strstr(text, "(2,3)") != NULL);
}

// The first error stays; all later calls do nothing; ttt_clear is the way back.
static void the_first_error_stays(void) {
    host h = { 0 };
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 1, .user = &h, .on_error = host_error });
    ttt_tensor *a = numbers(c, TTT_SHAPE(2, 3)), *p = numbers(c, TTT_SHAPE(96)), *out[1] = { a }, *sum = ttt_sum(c, a);
    CHECK(ttt_ok(c) && ttt_status(c) == TTT_OK && ttt_error(c)[0] == 0);
    ttt_memory_report before = ttt_memory(c);
    ttt_tensor *empty = ttt_add(c, a, p);
    char text[512];
    strcpy(text, ttt_error(c));
    CHECK(!ttt_ok(c) && empty->size == 0 && strstr(text, "(2,3)") && strstr(text, "(96)"));
    CHECK(h.errors == 1 && h.error == TTT_ERR_SHAPE);
    for (int row = 0; ttt_op_table(row); row++) {
        op_inputs in;
        CHECK(op_example(c, row, (ttt_tensor *[]){ a, a }, &in) == empty);
        CHECK(op_example(c, row, (ttt_tensor *[]){ empty, empty }, &in) == empty);
    }
    CHECK(ttt_zeros(c, TTT_SHAPE(2)) == empty && ttt_zeros_kept(c, TTT_SHAPE(2)) == empty && ttt_randn(c, TTT_SHAPE(2)) == empty);
    CHECK(ttt_sum(c, a) == empty && ttt_mean_axis(c, a, 9) == empty && ttt_mse(c, a, p) == empty);
    CHECK(ttt_detach(c, a) == empty && ttt_matmul(c, a, a) == empty && ttt_transpose(c, empty) == empty);
    CHECK(ttt_grad(c, sum, &a, 1, out, TTT_GRAD_FIRST_ORDER) == TTT_ERR_SHAPE && out[0] == empty);
    CHECK(ttt_fail(c, TTT_ERR_UNSET, "second") == empty && ttt_alloc(c, 8, false) == NULL && isnan(ttt_item(empty)));
    CHECK(ttt_status(c) == TTT_ERR_SHAPE && !strcmp(ttt_error(c), text) && h.errors == 1);
    ttt_memory_report after = ttt_memory(c);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
    ttt_clear(c);
    CHECK(ttt_ok(c) && ttt_error(c)[0] == 0);
    CHECK(ttt_item(ttt_sum(c, a)) == ttt_item(sum));
    CHECK(ttt_add(c, p, a) == empty && h.errors == 2);  // and the handler hears of the next one
    ttt_close(c);
}

static void watch_nan_names_the_op(void) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 1, .watch_nan = true });
    for (int n = 1; n < 40; n++) {
        ttt_tensor *x = ttt_full(c, TTT_SHAPE(n), 1);
        ttt_log(c, ttt_exp(c, x));
        CHECK(ttt_ok(c));
        x->data[n - 1] = -1;
        FAILS(ttt_log(c, x), TTT_ERR_NOT_FINITE, "log");
        x->data[n - 1] = 0;
        FAILS(ttt_div(c, x, x), TTT_ERR_NOT_FINITE, "div");
        x->data[n - 1] = 1;
        FAILS(ttt_reciprocal(c, ttt_exp(c, ttt_scale(c, x, REAL(-1e5)))), TTT_ERR_NOT_FINITE, "reciprocal");
    }
    ttt_tensor *x = ttt_full(c, TTT_SHAPE(2), 0), *g;  // the op may be in a rule: sqrt'(0) = 1/2 g / sqrt 0
    ttt_grad(c, ttt_sum(c, ttt_sqrt(c, x)), &x, 1, &g, TTT_GRAD_FIRST_ORDER);
    FAILS(g, TTT_ERR_NOT_FINITE, "div");
    CLOSE(c);
}

static void results_have_texts(void) {
    CHECK(!strcmp(ttt_result_text(TTT_OK), "no error"));
    for (int r = TTT_ERR_SHAPE; r <= TTT_ERR_FORMAT; r++) CHECK(strlen(ttt_result_text((ttt_result)r)) > 5);
    CHECK(!strcmp(ttt_result_text((ttt_result)1000), "not a result"));
    ttt_text text;
    CHECK(!strcmp(ttt_shape_text(SCALAR, text), "()") && !strcmp(ttt_shape_text(TTT_SHAPE(2, 3, 4), text), "(2,3,4)"));
    const int64_t m = INT64_MAX;
    CHECK(strlen(ttt_shape_text(TTT_SHAPE(m, m, m, m, m, m, m, m), text)) < sizeof text);
}

// ---- random numbers ------------------------------------------------------------------------------
// Known answers of Random123, kat_vectors.
static void philox_known_answers(void) {
    enum { ONES = -1 };
    static const struct { uint32_t key[2], ctr[4], out[4]; } known[] = {
        { { 0, 0 }, { 0, 0, 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { ONES, ONES }, { ONES, ONES, ONES, ONES }, { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0xa4093822, 0x299f31d0 }, { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (int i = 0; i < COUNT(known); i++) {
        uint32_t ctr[4];
        memcpy(ctr, known[i].ctr, sizeof ctr);
        ttt__philox(known[i].key, ctr);
        CHECK(memcmp(ctr, known[i].out, sizeof ctr) == 0);
    }
    ttt_rng r = ttt_rng_at(0, 0, 0, 0);  // the stream is the blocks in order
    for (int i = 0; i < 4; i++) CHECK(ttt_rng_u32(&r) == known[0].out[i]);
}

// A stream is named by words of Philox's counter: the third known answer again, block by block.
static void streams_are_philox_blocks(void) {
    ttt_rng r = ttt_rng_at(0x299f31d0a4093822u, 0x85a308d3, 0x13198a2e, 0x03707344);
    r.next = (uint64_t)4 * 0x243f6a88;
    CHECK(ttt_rng_u32(&r) == 0xd16cfe09 && ttt_rng_u32(&r) == 0x94fdcceb);
    CHECK(ttt_rng_u32(&r) == 0x5001e420 && ttt_rng_u32(&r) == 0x24126ea1);
    ttt_rng end = ttt_rng_at(7, 1, 2, 3), on = ttt_rng_at(7, 2, 2, 3);
    end.next = (uint64_t)1 << 34;  // behind the last number of a stream the one named a + 1 follows
    for (int i = 0; i < 9; i++) CHECK(ttt_rng_u32(&end) == ttt_rng_u32(&on));
}

static void streams_differ_by_name_and_resume(void) {
    uint32_t first[5];
    for (int i = 0; i < 5; i++) {
        ttt_rng r = ttt_rng_at(i == 1 ? (uint64_t)1 << 40 : 0, i == 2, i == 3, i == 4);
        first[i] = ttt_rng_u32(&r);
        for (int k = 0; k < i; k++) CHECK(first[k] != first[i]);
    }
    ttt_rng a = ttt_rng_at(5, 1, 2, 3);
    for (int i = 0; i < 6; i++) ttt_rng_u32(&a);
    ttt_rng b = a;  // a saved state, in the middle of a block
    for (int i = 0; i < 20; i++) CHECK(ttt_rng_u32(&a) == ttt_rng_u32(&b));
}

static void random_numbers_have_their_moments(void) {
    enum { N = 200000 };
    ttt_rng r = ttt_rng_at(5, 0, 0, 0);
    double u[5] = { 0 }, z[5] = { 0 };
    int below[7] = { 0 };
    for (int i = 0; i < N; i++) {
        double a = ttt_rng_uniform(&r), b = ttt_rng_normal(&r);
        int64_t k = ttt_rng_below(&r, 7);
        CHECK(a >= 0 && a < 1 && k >= 0 && k < 7);
        for (int p = 1; p < 5; p++) u[p] += pow(a, p) / N, z[p] += pow(b, p) / N;
        below[k]++;
    }
    // Moments of a normal number, and the standard deviations of its powers; five of them are allowed.
    static const double moment[5] = { 1, 0, 1, 0, 3 }, deviation[5] = { 0, 1, 1.42, 3.88, 9.8 };
    for (int p = 1; p < 5; p++) {
        CHECK(fabs(u[p] - 1.0 / (p + 1)) < 5 * 0.3 / sqrt(N));
        CHECK(fabs(z[p] - moment[p]) < 5 * deviation[p] / sqrt(N));
    }
    for (int k = 0; k < 7; k++) CHECK(abs(below[k] - N / 7) < 5 * 157);
    CHECK(ttt_rng_below(&r, 0) == 0 && ttt_rng_below(&r, 1) == 0);
}

// Streams folded from one, from neighboring data or seeds, and from each other do not resemble each other.
static void folded_streams_are_independent(void) {
    enum { N = 20000, S = 6 };
    ttt_rng base = ttt_rng_at(5, 0, 0, 0), s[S];
    s[0] = base;
    s[1] = ttt_rng_fold(base, 0);
    s[2] = ttt_rng_fold(base, 1);
    s[3] = ttt_rng_fold(base, (uint64_t)1 << 32);
    s[4] = ttt_rng_fold(ttt_rng_at(6, 0, 0, 0), 0);
    s[5] = ttt_rng_fold(s[1], 0);
    double correlation[S][S] = { { 0 } };
    for (int i = 0; i < N; i++) {
        double a[S];
        for (int k = 0; k < S; k++) a[k] = ttt_rng_uniform(&s[k]) - 0.5;
        for (int k = 0; k < S; k++)
            for (int l = 0; l < k; l++) correlation[k][l] += a[k] * a[l] * 12 / N;
    }
    for (int k = 0; k < S; k++)
        for (int l = 0; l < k; l++) CHECK(fabs(correlation[k][l]) < 5 / sqrt(N));
    ttt_rng moved = base;
    ttt_rng_u32(&moved);
    CHECK(ttt_rng_fold(moved, 3).seed == ttt_rng_fold(base, 3).seed);  // of the seed, not of how far it was read
}

static void random_state_is_saved_and_restored(void) {
    ttt_ctx *c = open_ctx(), *same = open_ctx();
    ttt_tensor *a = ttt_randn(c, TTT_SHAPE(7));
    ttt_rng saved = *ttt_ctx_rng(c);
    ttt_tensor *b = ttt_randn(c, TTT_SHAPE(7));
    *ttt_ctx_rng(c) = saved;
    CHECK(same_bits(ttt_randn(c, TTT_SHAPE(7)), b) && !same_bits(a, b));
    CHECK(same_bits(ttt_randn(same, TTT_SHAPE(7)), a));
    ttt_tensor *u = ttt_uniform(c, TTT_SHAPE(1000), -3, 2);
    for (int i = 0; i < 1000; i++) CHECK(u->data[i] >= -3 && u->data[i] <= 2);
    CLOSE(same);
    CLOSE(c);
}

// An op without a way back, or with two, is refused when it runs and not when somebody differentiates.
static void nothing_forward(ttt_ctx *c, ttt_tensor *y) {
    (void)c;
    memset(y->data, 0, (size_t)y->size * sizeof *y->data);
}
static void incomplete_ops_are_refused(void) {
    static const ttt_op none = { .name = "none", .n_in = 1, .forward = nothing_forward };
    ttt_ctx *c = ttt_open(NULL);
    ttt_tensor *x = ttt_scalar(c, 1);
    ttt_apply(c, &none, &x, 1, x->shape, NULL, 0);
    CHECK(ttt_status(c) == TTT_ERR_ARGUMENT && strstr(ttt_error(c), "none") && strstr(ttt_error(c), "vjp"));
    ttt_close(c);
}

static void no_context_is_an_error_with_a_text(void) {
    CHECK(!ttt_ok(NULL) && ttt_status(NULL) == TTT_ERR_NO_MEMORY && strstr(ttt_error(NULL), "ttt_open"));
}

// -- profiles
// The row of a name, phase and kind; all zeros if there is none.
static ttt_profile_row row_named(const ttt_ctx *c, const char *name, ttt_phase phase, bool rule) {
    ttt_profile_row rows[100], none = { 0 };
    int n = ttt_profile_rows(c, rows, 100);
    for (int i = 0; i < n; i++)
        if (strcmp(rows[i].name, name) == 0 && rows[i].phase == phase && rows[i].rule == rule) return rows[i];
    return none;
}

static void a_profile_counts_calls_flops_and_bytes(void) {
    const double R = sizeof(ttt_real);
    ttt_ctx *c = open_ctx();
    ttt_tensor *a = normal_param(c, TTT_SHAPE(2, 3, 4), 1), *b = normal_param(c, TTT_SHAPE(4, 5), 1), *wrt[2] = { a, b }, *g[2];
    ttt_sum(c, ttt_matmul(c, a, b));
    CHECK(ttt_profile_rows(c, NULL, 0) == 0);  // off until asked for
    ttt_profile_start(c);
    ttt_tensor *y = ttt_matmul(c, a, b), *loss = ttt_sum(c, y);
    ttt_profile_row r = row_named(c, "matmul", TTT_PHASE_FORWARD, false);
    CHECK(r.calls == 1 && r.flops == 2.0 * 2 * 3 * 4 * 5 && r.bytes == R * (24 + 20 + 30));
    ttt_grad(c, loss, wrt, 2, g, TTT_GRAD_FIRST_ORDER);
    r = row_named(c, "matmul", TTT_PHASE_BACKWARD, false);
    CHECK(r.calls == 2 && r.flops == 2 * 2.0 * 2 * 3 * 4 * 5 && r.bytes == 2 * R * (24 + 20 + 30));
    r = row_named(c, "matmul", TTT_PHASE_BACKWARD, true);
    CHECK(r.calls == 1 && r.flops == 0 && r.bytes == 0);
    CHECK(row_named(c, "walk", TTT_PHASE_BACKWARD, false).calls == 1 && row_named(c, "walk", TTT_PHASE_RECORDED, false).calls == 0);
    ttt_grad(c, loss, wrt, 1, g, TTT_GRAD_RECORD);
    CHECK(row_named(c, "matmul", TTT_PHASE_RECORDED, false).calls == 1);
    ttt_tensor *part = ttt_slice(c, ttt_reshape(c, y, TTT_SHAPE(6, 5)), 0, 2, 1);
    r = row_named(c, "slice", TTT_PHASE_FORWARD, false);
    CHECK(part->size == 5 && r.calls == 1 && r.flops == 0 && r.bytes == R * (5 + 5));
    CHECK(row_named(c, "reshape", TTT_PHASE_FORWARD, false).bytes == 0);
    ttt_profile_stop(c);
    ttt_matmul(c, a, b);
    CHECK(row_named(c, "matmul", TTT_PHASE_FORWARD, false).calls == 1);
    ttt_profile_start(c);  // goes on
    ttt_matmul(c, a, b);
    CHECK(row_named(c, "matmul", TTT_PHASE_FORWARD, false).calls == 2);
    ttt_profile_clear(c);
    ttt_matmul(c, a, b);
    CHECK(row_named(c, "matmul", TTT_PHASE_FORWARD, false).calls == 1 && row_named(c, "slice", TTT_PHASE_FORWARD, false).calls == 0);
    CLOSE(c);
}

static int64_t elements(const ttt_tensor *y) { return y->size; }
static void a_fast_rule_counts_once_or_twice(void) {
    const ttt_op op = { .name = "mixed fast", .n_in = 2, .forward = mix_forward, .vjp = mix_rule, .fast = mix_fast, .flops = elements };
    const double R = sizeof(ttt_real);
    const ttt_real half = (ttt_real)0.5;
    ttt_ctx *c = open_ctx();
    ttt_tensor *in[2] = { normal_param(c, TTT_SHAPE(7), 1), normal_param(c, TTT_SHAPE(7), 1) }, *g[2];
    for (int n = 1; n <= 2; n++) {
        ttt_profile_clear(c);
        ttt_profile_start(c);
        ttt_tensor *loss = ttt_sum(c, ttt_apply(c, &op, in, 2, in[0]->shape, &half, sizeof half));
        ttt_grad(c, loss, in, n, g, TTT_GRAD_FIRST_ORDER);
        ttt_profile_row r = row_named(c, "mixed fast", TTT_PHASE_BACKWARD, true);
        CHECK(r.calls == 1 && r.flops == 7 * n && r.bytes == R * 7 * (3 + n));
    }
    CLOSE(c);
}

// Ops that take a known time, one of them inside the rule of the other.
static void wait_for(double seconds) {
    for (double end = ttt_seconds() + seconds; ttt_seconds() < end;) {}
}
static void inner_forward(ttt_ctx *c, ttt_tensor *y) {
    nothing_forward(c, y);
    wait_for(0.02);
}
static void inner_rule(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d) {
    (void)c, (void)y;
    if (d[0]) d[0] = g;
}
static const ttt_op inner_op = { .name = "slow inner", .n_in = 1, .forward = inner_forward, .vjp = inner_rule };
static void outer_rule(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d) {
    (void)y;
    wait_for(0.01);
    if (d[0]) d[0] = ttt_apply(c, &inner_op, &g, 1, g->shape, NULL, 0);
    wait_for(0.01);
}
static const ttt_op outer_op = { .name = "slow outer", .n_in = 1, .forward = nothing_forward, .vjp = outer_rule };

static void times_of_a_profile_add_up_to_the_whole(void) {
    ttt_profile_row rows[100];
    ttt_ctx *c = open_ctx();
    ttt_tensor *x = normal_param(c, TTT_SHAPE(3), 1), *g;
    ttt_limits peak = { 1e9, 1e9 };
    double sum = 0, begin = ttt_seconds();
    ttt_profile_start(c);
    ttt_grad(c, ttt_sum(c, ttt_apply(c, &outer_op, &x, 1, x->shape, NULL, 0)), &x, 1, &g, TTT_GRAD_FIRST_ORDER);
    wait_for(0.01);
    ttt_profile_stop(c);
    double whole = ttt_seconds() - begin;
    // a busy machine can make anything longer, but a time that was counted twice would show in the sum
    double rule = row_named(c, "slow outer", TTT_PHASE_BACKWARD, true).seconds, op = row_named(c, "slow inner", TTT_PHASE_BACKWARD, false).seconds;
    double outside = row_named(c, "outside ops", TTT_PHASE_FORWARD, false).seconds;
    CHECK(rule > 0.0199 && op > 0.0199 && outside > 0.0099);
    CHECK(row_named(c, "walk", TTT_PHASE_BACKWARD, false).seconds < whole - rule - op - outside + 1e-4);
    int n = ttt_profile_rows(c, rows, 100);
    for (int i = 0; i < n; i++) {
        sum += rows[i].seconds;
        CHECK(i == 0 || rows[i].seconds <= rows[i - 1].seconds);
    }
    CHECK(sum <= whole + 1e-4 && sum > 0.9 * whole);
    ttt_profile_row two[2];
    CHECK(ttt_profile_rows(c, two, 2) == n && two[0].name == rows[0].name && two[1].name == rows[1].name);
    const char *text = ttt_profile_text(c, &peak, 1, 2), *end = strstr(text, "total");
    CHECK(strstr(text, "the rest") && end && strchr(end, '\n') && !strchr(end, '\n')[1]);
    CHECK(strstr(ttt_profile_text(c, NULL, 1, 100), "slow outer rule") && !strstr(ttt_profile_text(c, NULL, 1, 100), "the rest"));
    CLOSE(c);
}

static void shares_of_the_peak(void) {
    const ttt_limits peak = { 100, 10 };
    const char *bound;
    ttt_profile_row r = { "x", TTT_PHASE_FORWARD, false, 1, 2, 100, 10 };
    CHECK(ttt_profile_share(&r, &peak, &bound) == 0.5 && strcmp(bound, "memory") == 0);
    r.bytes = 8;
    CHECK(ttt_profile_share(&r, &peak, &bound) == 0.5 && strcmp(bound, "compute") == 0);
    r.seconds = 10;
    CHECK(ttt_profile_share(&r, &peak, &bound) == 0.1 && strcmp(bound, "neither") == 0);
    r.flops = r.bytes = 0;
    CHECK(ttt_profile_share(&r, &peak, NULL) == 0);
}

static void a_profile_changes_no_bit_and_may_run_out_of_memory(void) {
    uint64_t right = 0;
    bool refused = true;
    for (int n = 0; refused && n < 1000; n++) {  // n = 0: nothing fails, and nothing is profiled
        host h = { 0 };
        ttt_ctx *c = open_host(&h);
        learner l = learner_new(c, 6, 3, 4);
        ttt_tensor *p = normal_param(c, TTT_SHAPE(96), 1);
        h.calls = 0;
        h.fail_at = n;
        if (n) ttt_profile_start(c);
        uint64_t hashed = whole_step(c, p, &l);
        ttt_profile_stop(c);
        refused = n == 0 || h.refused > 0;
        if (n == 0) right = hashed;
        CHECK(ttt_status(c) == (h.refused ? TTT_ERR_NO_MEMORY : TTT_OK) && (h.refused || hashed == right));
        ttt_close(c);
        CHECK(h.living == 0);
    }
    CHECK(!refused);
}

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(solve_lower_solves),
        T(every_op_has_right_derivatives),
        T(every_op_has_one_gradient),
        T(operands_broadcast_in_all_patterns),
        T(products_broadcast_and_sum_their_leading_sizes),
        T(products_begin_with_every_sum),
        T(products_of_all_small_sizes),
        T(products_of_plain_arrays),
        T(products_of_plain_arrays_refuse),
        T(products_at_the_edges_of_tiles_and_blocks),
        T(a_sum_over_an_empty_batch_is_zero),
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
        T(a_vjp_takes_any_shape),
        T(nothing_is_taped_while_recording_is_off),
        T(a_graph_of_all_ops_has_one_gradient),
        T(ops_of_the_user_agree_however_they_are_made),
        T(fast_rules_add_to_what_is_there),
        T(the_checker_notices_a_wrong_rule),
        T(the_checker_puts_its_inputs_back_after_an_error),
        T(a_rule_of_the_wrong_shape_is_an_error),
        T(functions_are_accurate_over_the_whole_range),
        T(functions_of_special_values),
        T(functions_of_short_rows),
        T(scale_and_shift),
        T(sums_over_every_group_of_axes),
        T(sums_of_all_row_lengths),
        T(long_sums_are_accurate),
        T(broadcast_repeats),
        T(sums_and_means_by_other_names),
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
        T(row_ops_of_all_lengths),
        T(norms_of_rows_with_a_large_mean),
        T(softmax_of_large_and_infinite_numbers),
        T(softmax_does_not_hide_nan),
        T(max_abs_diff_does_not_hide_nan),
        T(the_number_of_threads_changes_no_bit),
        T(two_contexts_in_two_threads),
        T(a_warm_step_takes_no_memory),
        T(memory_may_run_out_anywhere),
        T(memory_may_run_out_at_the_opening),
        T(parameters_survive_a_release),
        T(released_tensors_are_not_used),
        T(released_memory_is_poisoned),
        T(alloc_is_aligned_and_bounded),
        T(shapes_that_cannot_be),
        T(shapes_that_do_not_fit),
        T(arguments_out_of_range),
        T(ranks_above_eight),
        T(integers_are_no_operands),
        T(casts_keep_every_number),
        T(bfloat16_is_rounded_to_nearest_even),
        T(tensors_of_every_type),
        T(no_op_takes_what_is_only_stored),
        T(stored_types_are_refused_by_name),
        T(products_by_bfloat16_have_the_bits_of_reals),
        T(stored_types_go_through_recomputation_and_profiles),
        T(tensors_of_another_context),
        T(the_first_error_stays),
        T(watch_nan_names_the_op),
        T(results_have_texts),
        T(philox_known_answers),
        T(streams_are_philox_blocks),
        T(streams_differ_by_name_and_resume),
        T(random_numbers_have_their_moments),
        T(folded_streams_are_independent),
        T(random_state_is_saved_and_restored),
        T(incomplete_ops_are_refused),
        T(no_context_is_an_error_with_a_text),
        T(a_profile_counts_calls_flops_and_bytes),
        T(a_fast_rule_counts_once_or_twice),
        T(times_of_a_profile_add_up_to_the_whole),
        T(shares_of_the_peak),
        T(a_profile_changes_no_bit_and_may_run_out_of_memory),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
