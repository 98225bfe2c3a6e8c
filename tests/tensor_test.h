// tensor_test.h - what the four suites of ttt_tensor.h share: memory that can be made to run out, a
// context for each instruction set, results expected from plain sums in double, the examples of
// the op table, a learner, and an op of the user.
//
// A suite includes only this header, which brings the implementation. A suite is compiled twice:
// with float it tests every instruction set of this machine against sums in double; with
// -DTTT_REAL=double it tests derivatives to many digits. TTT_POISON fills released memory with NaN.
#ifndef TENSOR_TEST_H
#define TENSOR_TEST_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// What a program lends to a context: counted memory that can be made to run out, an error handler,
// and threads. A context opened without a host has memory too. New memory is full of NaN, so that
// nothing is zero by luck.
typedef struct {
    long calls, living;      // of the allocator; blocks not freed
    size_t bytes;            // in these blocks
    long fail_at, refused;   // the call that gets no memory, from 1; 0: none
    int fail_on;             // all later ones get none either
    int errors, error;       // calls of on_error, and its last result
    int loops;               // calls of parallel_for
} host;

static inline int host_refuses(host *h, size_t n) {
    h->calls++;
    int fails = h->fail_at && (h->calls == h->fail_at || (h->fail_on && h->calls > h->fail_at));
    fails = fails || n / 1024 > 1024 * 1024;  // no machine has a terabyte
    h->refused += fails;
    return fails;
}
// A block's size stands before it, in room that keeps it aligned.
enum { HOST_HEAD = 32 };
static inline void *host_resize(host *h, void *p, size_t n) {
    if (h && host_refuses(h, n)) return NULL;
    char *old = p ? (char *)p - HOST_HEAD : NULL;
    size_t was = old ? *(size_t *)(void *)old : 0;
    if (h) h->living += p == NULL;
    if (h) h->bytes += n - was;
    char *block = realloc(old, n + HOST_HEAD);
    if (!block) return NULL;
    *(size_t *)(void *)block = n;
    return block + HOST_HEAD;
}
static inline void *host_get(host *h, size_t n) {
    void *p = host_resize(h, NULL, n);
    return p ? memset(p, 0xff, n) : NULL;
}
static inline void host_free(host *h, void *p) {
    char *block = (char *)p - HOST_HEAD;
    if (h) h->living--;
    if (h) h->bytes -= *(size_t *)(void *)block;
    free(block);
}
#define TTT_MALLOC(user, n) host_get((host *)(user), n)
#define TTT_REALLOC(user, p, n) host_resize((host *)(user), p, n)
#define TTT_FREE(user, p) host_free((host *)(user), p)

#define TTT_IMPLEMENTATION
#include "../ttt_tensor.h"
#include "ttt_test.h"
#include <float.h>

// ---- contexts and tensors -----------------------------------------------------------------------
// From 1 to the next number; rounding errs by half of it.
#define EPS (DOUBLE ? DBL_EPSILON : (double)FLT_EPSILON)
#define SCALAR ttt_scalar_shape()

static inline ttt_ctx *open_ctx(void) { return ttt_open(&(ttt_desc){ .seed = 1 }); }
static inline ttt_ctx *open_host(host *h) { return ttt_open(&(ttt_desc){ .seed = 1, .user = h }); }

// Closes a context in which nothing should have gone wrong.
#define CLOSE(c)                                         \
    do {                                                 \
        if (!ttt_ok(c)) printf("  %s\n", ttt_error(c));  \
        CHECK(ttt_ok(c));                                \
        ttt_close(c);                                    \
    } while (0)

static inline ttt_tensor *numbers(ttt_ctx *c, ttt_shape s) { return ttt_uniform(c, s, -2, 2); }
static inline ttt_tensor *row_of(ttt_ctx *c, int n, const double *values) {
    ttt_tensor *t = ttt_new(c, TTT_SHAPE(n));
    for (int i = 0; i < n; i++) t->data[i] = REAL(values[i]);
    return t;
}
static inline bool same_bits(const ttt_tensor *a, const ttt_tensor *b) {
    return ttt_shape_equal(a->shape, b->shape) &&
           memcmp(a->data, b->data, (size_t)a->size * sizeof *a->data) == 0;
}
static inline uint64_t hash(uint64_t h, const ttt_tensor *t) {  // FNV-1a
    const unsigned char *bytes = (const unsigned char *)t->data;
    for (size_t i = 0; i < (size_t)t->size * sizeof *t->data; i++)
        h = (h ^ bytes[i]) * 0x100000001b3u;
    return h;
}

// The shape of matrices (rows,columns) with these leading sizes.
static inline ttt_shape matrices(ttt_shape lead, int64_t rows, int64_t columns) {
    lead.dim[lead.rank++] = rows;
    lead.dim[lead.rank++] = columns;
    return lead;
}

// Where element n of shape `all` falls in a tensor of shape s that is broadcast to `all`.
static inline int64_t place(ttt_shape s, ttt_shape all, int64_t n) {
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

// One number to differentiate: it depends on every element of y, and not linearly.
static inline ttt_tensor *weigh(ttt_ctx *c, ttt_tensor *y) {
    ttt_tensor *w = ttt_new(c, y->shape);
    for (int64_t i = 0; i < w->size; i++) w->data[i] = REAL(0.3 + 0.17 * (double)(i % 7));
    return ttt_sum(c, ttt_mul(c, w, ttt_add(c, y, ttt_square(c, y))));
}

// What a result should be and how far off it may be; a reference in double fills them in.
enum { MOST = 1 << 18 };
static double want[MOST], room[MOST];

static inline void check_within(const char *what, const ttt_tensor *y) {
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
        printf("  %s: [%ld] is %.9g, not %.9g +- %.1e\n", what, (long)worst, (double)y->data[worst],
               want[worst], room[worst]);
    CHECK(worst < 0);
}

// A context for each instruction set. All compute the same and are held against one reference.
typedef struct {
    int n;
    ttt_ctx *c[8];
} sets;
typedef ttt_tensor *call(ttt_ctx *c, ttt_tensor *const *in, const void *arg);

static inline sets sets_open(void) {
    sets s = { 0 };
    for (; ttt_isa_name(s.n); s.n++)
        s.c[s.n] = ttt_open(&(ttt_desc){ .seed = 1, .isa = ttt_isa_name(s.n) });
    return s;
}
static inline void sets_close(sets *s) {
    for (int i = 0; i < s->n; i++) CLOSE(s->c[i]);
}
static inline ttt_tensor *copy(ttt_ctx *c, const ttt_tensor *t) {
    switch (t->dtype) {
    case TTT_DTYPE_INT: return ttt_from_int(c, t->shape, t->index);
    case TTT_DTYPE_U8: return ttt_from_u8(c, t->shape, t->u8);
    case TTT_DTYPE_BF16: return ttt_from_bf16(c, t->shape, t->bf16);
    default: return ttt_from(c, t->shape, t->data);
    }
}
static inline void check_sets(sets *s, const char *what, ttt_shape shape, call *f,
                              ttt_tensor *const *in, int n, const void *arg) {
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

// Derivatives of f up to the given order, each against the difference quotient of the one below it.
// The step h of the quotient leaves two errors: h^4 times a fifth derivative, and EPS / h times f.
// In double both are below 1e-10. In float, with h = 0.02, they are near 1e-6 and 1e-5. They grow
// with sums of up to a hundred terms and are divided by a directional derivative that may be small,
// so three digits remain.
#define DERIVATIVE_ERROR (DOUBLE ? 1e-6 : 5e-3)
static inline void check_orders(ttt_ctx *c, const char *what, ttt_function *f, ttt_tensor *const *x,
                                int n, void *user, int orders) {
    for (int order = 1; order <= orders; order++) {
        double e = ttt_check_gradient(c, f, x, n, user, order, DOUBLE ? 1e-3 : 2e-2);
        if (!(e <= DERIVATIVE_ERROR))
            printf("  %s, order %d: error %.1e %s\n", what, order, e, ttt_error(c));
        CHECK(e <= DERIVATIVE_ERROR);
    }
}

// Largest difference of two gradients, relative to the largest element.
static inline double difference(const ttt_tensor *a, const ttt_tensor *b) {
    double largest = 1e-30;
    for (int64_t i = 0; i < b->size; i++) largest = fmax(largest, fabs((double)b->data[i]));
    return ttt_max_abs_diff(a, b) / largest;
}

// ---- the examples of the op table ---------------------------------------------------------------
static inline ttt_tensor *ttt_test_index(ttt_ctx *c) {
    int64_t rows[] = { 2, 0, 3, 1, 1, 0, 1, 2, 3, 0, 3, 3, 1, 0, 2 };
    return ttt_from_int(c, TTT_SHAPE(3, 5), rows);
}

// Row `which` of the op table: the shapes of its inputs and, if there are inputs, its example call.
typedef struct {
    int n;
    ttt_shape shape[2];
} op_inputs;
static inline ttt_tensor *op_example(ttt_ctx *c, int which, ttt_tensor *const *in,
                                     op_inputs *inputs) {
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
    TTT_OTHER_OPS(X) TTT_PART_OPS(X)
#undef X
    inputs->n = 0;
    return NULL;
}
static inline ttt_tensor *op_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *which) {
    op_inputs inputs;
    (void)n;
    return weigh(c, op_example(c, *(int *)which, x, &inputs));
}

// A graph in which every op of the table feeds the next. p holds 96 numbers. An op's example reads
// its inputs from p, squeezed into the op's domain, and its result is added to p.
static inline ttt_tensor *all_ops(ttt_ctx *c, ttt_tensor *p) {
    for (int row = 0; ttt_op_table(row) && ttt_ok(c); row++) {
        const ttt_op *op = ttt_op_table(row);
        op_inputs want_in;
        ttt_tensor *in[2];
        op_example(NULL, row, NULL, &want_in);
        for (int i = 0; i < want_in.n; i++) {
            ttt_tensor *part = ttt_slice(c, p, 0, i, ttt_shape_size(want_in.shape[i]));
            part = ttt_scale(c, ttt_sigmoid(c, part), REAL(op->hi - op->lo));
            part = ttt_add_scalar(c, part, REAL(op->lo));
            in[i] = ttt_reshape(c, part, want_in.shape[i]);
        }
        ttt_tensor *y = op_example(c, row, in, &want_in);
        p = ttt_tanh(c, ttt_add(c, p, ttt_pad(c, ttt_reshape(c, y, TTT_SHAPE(y->size)), 0, 0, 96)));
    }
    return ttt_sum(c, ttt_square(c, p));
}

// ---- a learner ----------------------------------------------------------------------------------
// A learner of two layers, f(x) = norm(act(x w0) w1), that takes three steps on (k, v); the outer
// loss looks at (q, t). w[2] is the inner rate, learned too.
typedef struct {
    ttt_tensor *w[3], *k, *v, *q, *t;
    ttt_tensor *(*act)(ttt_ctx *c, ttt_tensor *a);
    bool centered, detach;
} learner;

static inline ttt_tensor *normal_param(ttt_ctx *c, ttt_shape s, double size) {
    ttt_tensor *p = ttt_zeros_kept(c, s);
    for (int64_t i = 0; i < p->size; i++) p->data[i] = REAL(size * ttt_rng_normal(ttt_ctx_rng(c)));
    return p;
}
static inline learner learner_new(ttt_ctx *c, int64_t N, int64_t D, int64_t W) {
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
static inline ttt_tensor *learner_loss(ttt_ctx *c, const learner *l, ttt_tensor *const *w,
                                       ttt_tensor *x, ttt_tensor *y) {
    ttt_tensor *f = ttt_matmul(c, l->act(c, ttt_matmul(c, x, w[0])), w[1]);
    return ttt_mse(c, (l->centered ? ttt_layer_normalize : ttt_rms_normalize)(c, f, REAL(0.1)), y);
}
static inline ttt_tensor *learner_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *user) {
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
static inline uint64_t learner_step(ttt_ctx *c, learner *l) {
    ttt_tensor *g[3], *y = learner_value(c, l->w, 3, l);
    ttt_grad(c, y, l->w, 3, g, TTT_GRAD_FIRST_ORDER);
    uint64_t h = hash(0xcbf29ce484222325u, y);
    for (int i = 0; i < 3; i++) h = hash(h, g[i]);
    return h;
}

// ---- an op of the user --------------------------------------------------------------------------
// y = a b^2 + s b, s at y->arg, given a rule, a composite, a fast rule, or several of them.
static inline void mix_forward(ttt_ctx *c, ttt_tensor *y) {
    (void)c;
    ttt_real s = *(const ttt_real *)y->arg;
    for (int64_t i = 0; i < y->size; i++) {
        ttt_real a = y->in[0]->data[i], b = y->in[1]->data[i];
        y->data[i] = a * b * b + s * b;
    }
}
static inline ttt_tensor *mix_composite(ttt_ctx *c, ttt_tensor *const *in, const ttt_tensor *y) {
    return ttt_add(c, ttt_mul(c, in[0], ttt_square(c, in[1])),
                   ttt_scale(c, in[1], *(const ttt_real *)y->arg));
}
static inline void mix_rule(ttt_ctx *c, ttt_tensor *y, ttt_tensor *g, ttt_tensor **d) {
    ttt_tensor *a = y->in[0], *b = y->in[1];
    if (d[0]) d[0] = ttt_mul(c, g, ttt_square(c, b));
    if (d[1]) {
        ttt_tensor *twice = ttt_scale(c, ttt_mul(c, a, b), 2);
        d[1] = ttt_mul(c, g, ttt_add_scalar(c, twice, *(const ttt_real *)y->arg));
    }
}
static inline void mix_fast(ttt_ctx *c, ttt_tensor *y, const ttt_tensor *g, ttt_tensor **into,
                            const bool *add) {
    ttt_real s = *(const ttt_real *)y->arg;
    (void)c;
    for (int64_t i = 0; i < y->size; i++) {
        ttt_real a = y->in[0]->data[i], b = y->in[1]->data[i];
        if (into[0]) into[0]->data[i] = g->data[i] * b * b + (add[0] ? into[0]->data[i] : 0);
        if (into[1])
            into[1]->data[i] = g->data[i] * (2 * a * b + s) + (add[1] ? into[1]->data[i] : 0);
    }
}
static const ttt_op mixes[] = {
    { .name = "mix by rule", .n_in = 2, .forward = mix_forward, .vjp = mix_rule },
    { .name = "mix by composite", .n_in = 2, .forward = mix_forward, .composite = mix_composite },
    { .name = "mix by fast rule and composite", .n_in = 2, .forward = mix_forward,
      .composite = mix_composite, .fast = mix_fast },
    { .name = "mix by fast and other rule", .n_in = 2, .forward = mix_forward,
      .vjp = mix_rule, .fast = mix_fast },
};

// How the operands of the op depend on each other.
typedef enum {
    LEAVES, INNER_NODES, SAME_LEAF, SAME_NODE, ANCESTOR_FIRST, ANCESTOR_SECOND, USED_AGAIN, WIRINGS
} wiring;
typedef struct {
    const ttt_op *op;  // NULL: the same in the library's ops
    wiring wires;
} mix;
static inline ttt_tensor *mix_apply(ttt_ctx *c, const ttt_op *op, ttt_tensor *a, ttt_tensor *b) {
    ttt_real s = REAL(1.5);
    ttt_tensor *in[2] = { a, b };
    if (op) return ttt_apply(c, op, in, 2, a->shape, &s, sizeof s);
    return ttt_add(c, ttt_mul(c, a, ttt_square(c, b)), ttt_scale(c, b, s));
}
static inline ttt_tensor *mix_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *user) {
    const mix *m = user;
    ttt_tensor *a = x[0], *b = x[1];
    (void)n;
    if (m->wires == INNER_NODES || m->wires == USED_AGAIN)
        a = ttt_tanh(c, a), b = ttt_sigmoid(c, b);
    if (m->wires == SAME_LEAF) b = a;
    if (m->wires == SAME_NODE) a = b = ttt_tanh(c, ttt_add(c, a, b));
    if (m->wires == ANCESTOR_FIRST) b = ttt_tanh(c, ttt_mul(c, a, b));
    if (m->wires == ANCESTOR_SECOND) a = ttt_tanh(c, ttt_mul(c, a, b));
    ttt_tensor *y = mix_apply(c, m->op, a, b);
    if (m->wires == USED_AGAIN) y = ttt_mul(c, mix_apply(c, m->op, a, y), ttt_add(c, a, b));
    return weigh(c, y);
}

// ---- errors -------------------------------------------------------------------------------------
// `call` gives the empty tensor and this result, and its text has each of the strings in it.
#define FAILS(call, result, ...) \
    check_fails(c, __LINE__, call, result, (const char *[]){ __VA_ARGS__, NULL })
static inline void check_fails(ttt_ctx *c, int line, const ttt_tensor *y, ttt_result r,
                               const char *const *parts) {
    bool good = ttt_status(c) == r && (!y || y == &c->empty);
    for (; *parts; parts++) good = good && strstr(ttt_error(c), *parts);
    if (!good) printf("  line %d: result %d, \"%s\"\n", line, (int)ttt_status(c), ttt_error(c));
    CHECK(good);
    ttt_clear(c);
}

#endif
