// Tests of the products of ttt_tensor.h: of all sizes and leading sizes, of plain arrays, and by a
// factor in bfloat16.
#include "tensor_test.h"

// ---- products -----------------------------------------------------------------------------------
typedef struct {
    bool ta, tb, adds;
    ttt_shape y;
} product;
static ttt_tensor *call_product(ttt_ctx *c, ttt_tensor *const *in, const void *arg) {
    const product *p = arg;
    return p->adds ? ttt_matmul_add(c, in[0], in[1], p->ta, p->tb, in[2])
                   : ttt_matmul_to(c, in[0], in[1], p->ta, p->tb, p->y);
}
static ttt_tensor *product_value(ttt_ctx *c, ttt_tensor *const *x, int n, void *arg) {
    (void)n;
    return weigh(c, call_product(c, x, arg));
}

// The plain double loop. A sum of n products, in any order, with or without fused multiplication,
// is off by at most n EPS/2 sum |a||b| [Higham 2002, section 3.1]; a bias is one more term. In the
// double build the reference may be off as much, hence twice that. Second-order terms get 1%.
static void expect_product(const product *p, ttt_tensor *const *in) {
    const ttt_tensor *a = in[0], *b = in[1], *add = p->adds ? in[2] : NULL;
    ttt_shape la = ttt__lead(a->shape, 2), lb = ttt__lead(b->shape, 2), ly = ttt__lead(p->y, 2);
    int64_t a0 = a->shape.dim[la.rank], a1 = a->shape.dim[la.rank + 1];
    int64_t b1 = b->shape.dim[lb.rank + 1], size = ttt_shape_size(p->y);
    int64_t m = p->y.dim[ly.rank], n = p->y.dim[ly.rank + 1], k = p->ta ? a0 : a1;
    ttt_shape all;
    ttt__broadcast_shape(la, lb, &all);
    int64_t products = ttt_shape_size(all);
    for (int64_t i = 0; i < size; i++) {
        want[i] = add ? (double)add->data[place(add->shape, p->y, i)] : 0;
        room[i] = fabs(want[i]);
    }
    for (int64_t l = 0; l < products; l++) {
        const ttt_real *pa = a->data + place(la, all, l) * m * k,
                       *pb = b->data + place(lb, all, l) * k * n;
        double *to = want + place(ly, all, l) * m * n, *size_of = room + (to - want);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++)
                for (int64_t q = 0; q < k; q++) {
                    double t = (double)pa[p->ta ? q * a1 + i : i * a1 + q] *
                               (double)pb[p->tb ? j * b1 + q : q * b1 + j];
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
    snprintf(what, sizeof what, "%s%s times %s%s", ttt_shape_text(in[0]->shape, ta),
             p->ta ? "^T" : "", ttt_shape_text(in[1]->shape, tb), p->tb ? "^T" : "");
    expect_product(p, in);
    check_sets(s, what, p->y, call_product, in, p->adds ? 3 : 2, p);
}

// Leading sizes of a, b, and of a result they can be summed to.
static void products_broadcast_and_sum_their_leading_sizes(void) {
    const ttt_shape lead[][3] = {
        { SCALAR, SCALAR, SCALAR },
        { TTT_SHAPE(2), TTT_SHAPE(2), TTT_SHAPE(2) },
        { TTT_SHAPE(2), TTT_SHAPE(2), SCALAR },  // dW of a batch: one longer sum
        { TTT_SHAPE(2), SCALAR, TTT_SHAPE(2) },  // the same weights for all: one taller a
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
            ttt_tensor *x[2] = {
                numbers(c, p.ta ? matrices(lead[l][0], k, m) : matrices(lead[l][0], m, k)),
                numbers(c, p.tb ? matrices(lead[l][1], n, k) : matrices(lead[l][1], k, n))
            };
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
        // several blocks of terms; the bias alone
        { TTT_SHAPE(7, 600), TTT_SHAPE(600, 19), TTT_SHAPE(1, 19), TTT_SHAPE(7, 19) },
        { TTT_SHAPE(3, 0), TTT_SHAPE(0, 2), TTT_SHAPE(2), TTT_SHAPE(3, 2) },
        // from here on a matrix is added: the same to all, to one taller a, to some, to each
        { TTT_SHAPE(5, 3), TTT_SHAPE(3, 4), TTT_SHAPE(5, 4), TTT_SHAPE(5, 4) },
        { TTT_SHAPE(2, 5, 3), TTT_SHAPE(3, 4), TTT_SHAPE(5, 4), TTT_SHAPE(2, 5, 4) },
        { TTT_SHAPE(2, 5, 3), TTT_SHAPE(3, 4), TTT_SHAPE(2, 5, 4), TTT_SHAPE(2, 5, 4) },
        { TTT_SHAPE(2, 3, 5, 3), TTT_SHAPE(3, 4), TTT_SHAPE(2, 1, 5, 4), TTT_SHAPE(2, 3, 5, 4) },
        { TTT_SHAPE(2, 1, 5, 3), TTT_SHAPE(3, 3, 4), TTT_SHAPE(2, 3, 5, 4), TTT_SHAPE(2, 3, 5, 4) },
        // single rows; many blocks; the matrix alone
        { TTT_SHAPE(2, 1, 3), TTT_SHAPE(2, 3, 4), TTT_SHAPE(2, 1, 4), TTT_SHAPE(2, 1, 4) },
        { TTT_SHAPE(3, 70, 600), TTT_SHAPE(600, 37), TTT_SHAPE(3, 70, 37), TTT_SHAPE(3, 70, 37) },
        { TTT_SHAPE(3, 0), TTT_SHAPE(0, 2), TTT_SHAPE(3, 2), TTT_SHAPE(3, 2) },
    };
    sets s = sets_open();
    ttt_ctx *c = s.c[0];
    for (int i = 0; i < COUNT(shape); i++)
        for (int t = 0; t < 4; t++) {
            product p = { t & 1, t >> 1, true, shape[i][3] };
            ttt_tensor *x[3] = { numbers(c, shape[i][0]), numbers(c, shape[i][1]),
                                 numbers(c, shape[i][2]) };
            for (int k = 0; k < 2; k++)
                if (k ? p.tb : p.ta) x[k] = ttt_transpose(c, x[k]);
            check_product(&s, &p, x);
            if (ttt_shape_size(p.y) < 200 && x[0]->size)
                check_orders(c, "matmul_add", product_value, x, 3, &p, 2);
        }
    sets_close(&s);
}

static void check_size(sets *s, int64_t m, int64_t k, int64_t n) {
    for (int t = 0; t < 4; t++) {
        ttt_ctx *c = s->c[0];
        ttt_mark mark = ttt_mark_get(c);
        product p = { t & 1, t >> 1, t == 0, TTT_SHAPE(m, n) };
        ttt_tensor *x[3] = { numbers(c, p.ta ? TTT_SHAPE(k, m) : TTT_SHAPE(m, k)),
                             numbers(c, p.tb ? TTT_SHAPE(n, k) : TTT_SHAPE(k, n)),
                             numbers(c, TTT_SHAPE(n)) };
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

// Sizes at the edges of tiles (6 rows), vectors (4, 8, 16), panels (to 64) and blocks (192, 512,
// 1536).
static void products_at_the_edges_of_tiles_and_blocks(void) {
    static const int64_t edge[] = { 1, 5, 6, 7, 15, 16, 17, 47, 48, 49, 63, 64, 65, 97, 191, 192,
                                    193, 511, 512, 513, 1535, 1536, 1537 };
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
    ttt_tensor *x[2] = { ttt_zeros(s.c[0], TTT_SHAPE(0, 2, 4)),
                         ttt_zeros(s.c[0], TTT_SHAPE(0, 4, 3)) };
    ttt_tensor *one[2] = { x[0], ttt_zeros(s.c[0], TTT_SHAPE(4, 3)) };
    ttt_tensor *other[2] = { ttt_zeros(s.c[0], TTT_SHAPE(1, 2, 4)), x[1] };
    for (int i = 0; i < 6; i++) want[i] = room[i] = 0;
    check_sets(&s, "empty batch", TTT_SHAPE(2, 3), sum_of_none, x, 2, NULL);
    check_sets(&s, "empty batch of a", TTT_SHAPE(2, 3), sum_of_none, one, 2, NULL);
    check_sets(&s, "empty batch of b", TTT_SHAPE(2, 3), sum_of_none, other, 2, NULL);
    sets_close(&s);
}

// ---- products of plain arrays -------------------------------------------------------------------
typedef struct {
    int m, n, k, ta, tb, half, bias, map, add, batch, gap;  // add: 1 another array, 2 y itself
} plain;

enum { PLAIN_MOST = 1 << 18 };
typedef struct {
    ttt_real a[PLAIN_MOST], b[PLAIN_MOST], bias[2000], add[PLAIN_MOST];
    ttt_real y[PLAIN_MOST], before[PLAIN_MOST];
    uint16_t half[PLAIN_MOST];
} plain_arrays;

static ttt_gemm_desc plain_desc(const plain *p, plain_arrays *x) {
    ttt_gemm_desc d = { .m = p->m, .n = p->n, .k = p->k, .a = x->a, .y = x->y,
                        .ta = p->ta, .tb = p->tb, .batch = p->batch };
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
            const ttt_real *a = x->a + z * d.a_step, *y = x->y + z * d.y_step + i * d.y_row;
            for (int64_t j = 0; j < p->n; j++) {
                double sum = p->bias ? (double)x->bias[j] : 0,
                       at = (double)(p->add == 2 ? x->before : x->add)[y - x->y + j];
                for (int64_t t = 0; t < p->k; t++)
                    sum += (double)a[p->ta ? t * d.a_row + i : i * d.a_row + t] *
                           (double)x->b[p->tb ? j * d.b_row + t : t * d.b_row + j];
                if (p->map) sum = fmax(sum, 0);
                if (p->add) sum += at;
                double e = fabs((double)y[j] - sum);
                if (!(e <= worst)) worst = e;
            }
            for (int64_t j = p->n; j < d.y_row && i + 1 < p->m; j++)
                kept = kept && y[j] == x->before[y - x->y + j];
        }
    if (!(worst <= (p->k + 4) * EPS) || !kept)
        printf("  %s: m=%d n=%d k=%d ta=%d tb=%d half=%d bias=%d map=%d add=%d batch=%d gap=%d, "
               "error %.1e\n", ttt_isa(c), p->m, p->n, p->k, p->ta, p->tb, p->half, p->bias,
               p->map, p->add, p->batch, p->gap, worst);
    CHECK(worst <= (p->k + 4) * EPS);
    CHECK(kept);
}

// Numbers in [-1,1] that bfloat16 holds exactly, so that both forms of b are the same matrix.
static void products_of_plain_arrays(void) {
    static const int sizes[][3] = { { 1, 1, 1 }, { 1, 200, 300 }, { 1, 67, 9 }, { 2, 33, 50 },
                                    { 5, 16, 64 }, { 16, 16, 64 }, { 17, 100, 600 },
                                    { 7, 130, 1 }, { 3, 5, 0 }, { 100, 70, 40 } };
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
                plain p = { .m = sizes[z][0], .n = sizes[z][1], .k = sizes[z][2],
                            .ta = form & 1, .tb = form >> 1 & 1, .half = form >> 2,
                            .bias = extra > 0, .map = extra == 2, .add = extra > 2 ? extra - 2 : 0,
                            .batch = 1 + extra % 2, .gap = extra % 3 * 5 };
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
    // what no array can have, in every product of sizes and steps
    const int64_t huge = (int64_t)1 << 62, most = INT64_MAX;
    REFUSED(d.m = huge);
    REFUSED(d.n = huge);
    REFUSED(d.k = huge);
    REFUSED(d.m = d.n = d.k = most);
    REFUSED(d.m = d.n = (int64_t)1 << 32, d.k = 1);
    REFUSED(d.batch = most);
    REFUSED(d.batch = most, d.y_step = most);
    REFUSED(d.batch = huge, d.k = 0, d.y_step = 16);
    REFUSED(d.a_row = most);
    REFUSED(d.b_row = most);
    REFUSED(d.y_row = most);
    REFUSED(d.batch = 3, d.y_step = 16, d.a_step = most);
    REFUSED(d.batch = 3, d.y_step = 16, d.b_step = huge);
    REFUSED(d.batch = 2, d.y_step = most);
#undef REFUSED
    ttt_gemm_desc none = good;
    none.m = 0;
    none.y = NULL;
    CHECK(ttt_gemm(c, &none) == TTT_OK);
    CLOSE(c);
}

// Every number is summed in one order: a row has the same bits alone as among others, and neither
// terms at the end of the sum that are zero change them nor threads.
static int64_t any_size(ttt_rng *r, int64_t most) {  // as often 1 to 2 as 1000 to 2000
    double size = exp(ttt_rng_uniform(r) * log((double)most + 1));
    return TTT__MIN((int64_t)size, most);
}
static bool same_rows(const ttt_gemm_desc *d, const ttt_real *want) {
    for (int64_t i = 0; i < d->m; i++, want += d->n)
        if (memcmp(d->y + i * d->y_row, want, (size_t)d->n * sizeof *want) != 0) return false;
    return true;
}
static void check_one_order(ttt_ctx *c, ttt_ctx *two, ttt_gemm_desc d, int64_t zeros, ttt_rng *r,
                            ttt_real *all) {
    ttt_gemm(c, &d);
    for (int64_t i = 0; i < d.m; i++)
        memcpy(all + i * d.n, d.y + i * d.y_row, (size_t)d.n * sizeof *all);
    ttt_gemm(two, &d);
    bool threads = same_rows(&d, all);
    d.k += zeros;
    ttt_gemm(c, &d);
    bool ended = same_rows(&d, all);
    d.k -= zeros;
    int64_t from = ttt_rng_below(r, d.m);
    const ttt_real *add = d.add;
    for (int rows = 1; rows <= 2 && from + rows <= d.m; rows++) {
        ttt_gemm_desc some = d;
        some.m = rows;
        some.a += from * (d.ta ? 1 : d.a_row);
        if (add) some.add += from * d.y_row;
        ttt_gemm(c, &some);
        bool alone = same_rows(&some, all + from * d.n);
        if (!alone || !threads || !ended)
            printf("  %s: m=%ld n=%ld k=%ld ta=%d tb=%d half=%d bias=%d add=%d: row %ld%s%s%s\n",
                   ttt_isa(c), (long)d.m, (long)d.n, (long)d.k, d.ta, d.tb, d.b_bf16 != NULL,
                   d.bias != NULL, add != NULL, (long)from, alone ? "" : ", alone",
                   threads ? "" : ", threads", ended ? "" : ", zeros");
        CHECK(alone && threads && ended);
    }
}
static void products_sum_in_one_order(void) {
    plain_arrays *x = (plain_arrays *)calloc(1, sizeof *x);
    sets s = sets_open();
    ttt_rng *r = ttt_ctx_rng(s.c[0]);
    for (int64_t i = 0; i < PLAIN_MOST; i++) {
        x->a[i] = REAL(ttt_rng_uniform(r) * 2 - 1);
        x->add[i] = REAL(ttt_rng_uniform(r));
        x->half[i] = (uint16_t)(ttt_rng_below(r, 256) + (0x3e00 | ttt_rng_below(r, 2) << 15));
        uint32_t bits = (uint32_t)x->half[i] << 16;
        float f;
        memcpy(&f, &bits, sizeof f);
        x->b[i] = REAL(f);
        if (i < COUNT(x->bias)) x->bias[i] = REAL(ttt_rng_uniform(r));
    }
    for (int i = 0; i < s.n; i++) {
        ttt_ctx *two = ttt_open(&(ttt_desc){ .isa = ttt_isa(s.c[i]), .threads = 2 });
        for (int round = 0; round < 96; round++) {
            int64_t m = 1 + ttt_rng_below(r, 40), k = any_size(r, 4000), zeros = any_size(r, 40);
            int64_t most = TTT__MIN(PLAIN_MOST / (k + zeros), 60000 / m);
            int64_t n = any_size(r, TTT__MIN(2000, most));
            ttt_gemm_desc d = { .m = m, .n = n, .k = k, .a = x->a, .y = x->y, .ta = round & 1,
                                .tb = round >> 1 & 1, .y_row = n };
            d.a_row = d.ta ? m : k + zeros;
            d.b_row = d.tb ? k + zeros : n;
            if (round & 4) d.b_bf16 = x->half;
            else d.b = x->b;
            if (round & 8) d.bias = x->bias;
            if (round & 16) d.add = x->add;
            for (int64_t at = 0; at < m * zeros; at++)
                x->a[d.ta ? k * m + at : at / zeros * d.a_row + k + at % zeros] = 0;
            check_one_order(s.c[i], two, d, zeros, r, x->before);
            for (int64_t at = 0; at < m * (k + zeros); at++)
                if (x->a[at] == 0) x->a[at] = REAL(ttt_rng_uniform(r) * 2 - 1);
        }
        CLOSE(two);
    }
    sets_close(&s);
    free(x);
}

// A product by a bfloat16 factor, and its gradients, have the bits of the product by the same
// numbers as reals.
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

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(products_broadcast_and_sum_their_leading_sizes),
        T(products_begin_with_every_sum),
        T(products_of_all_small_sizes),
        T(products_of_plain_arrays),
        T(products_of_plain_arrays_refuse),
        T(products_sum_in_one_order),
        T(products_at_the_edges_of_tiles_and_blocks),
        T(a_sum_over_an_empty_batch_is_zero),
        T(products_by_bfloat16_have_the_bits_of_reals),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
