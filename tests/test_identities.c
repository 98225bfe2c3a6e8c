// test_identities.c - layers that look different and are the same. Each identity is checked on
// outputs and on outer gradients; a third side, changed on purpose, must come out different.
#define TTT_IMPLEMENTATION
#include "../ttt_layers.h"

#include "ttt_test.h"

enum { MOST = 16, B = 2, H = 2, N = 7, h = 4, D = H * h };

// A side of an identity: a function of the same random leaves x.
typedef ttt_tensor *side(ttt_ctx *c, ttt_tensor *const *x);
#define SIDE(name, value) \
    static ttt_tensor *name(ttt_ctx *c, ttt_tensor *const *x) { return value; }

typedef struct {
    ttt_tensor *y, *g[MOST];  // value, and gradients of <cotangent, y> in the leaves
} outcome;

static outcome evaluate(ttt_ctx *c, side *f, ttt_tensor *const *x, int n) {
    outcome o = { f(c, x), { NULL } };
    ttt_rng r = ttt_rng_at(5, 0, 0, 0);
    ttt_tensor *cotangent = ttt_new(c, o.y->shape);
    for (int64_t i = 0; i < cotangent->size; i++) cotangent->data[i] = (ttt_real)ttt_rng_normal(&r);
    ttt_vjp(c, o.y, cotangent, x, n, o.g, TTT_GRAD_FIRST_ORDER);
    if (!ttt_ok(c)) printf("  %s\n", ttt_error(c));
    return o;
}

static double largest(const ttt_tensor *a) {
    double most = 0;
    for (int64_t i = 0; i < a->size; i++) most = fmax(most, fabs((double)a->data[i]));
    return most;
}
// The worst difference, in units of the largest value or gradient of its tensor. Where a gradient
// is zero in theory (that of a key's bias under softmax), the unit is a tenth of the largest
// gradient there is.
static double apart(const outcome *a, const outcome *b, int n) {
    double worst = ttt_max_abs_diff(a->y, b->y) / largest(b->y), most = 0;
    for (int i = 0; i < n; i++) most = fmax(most, largest(b->g[i]));
    for (int i = 0; i < n; i++) {
        double unit = fmax(largest(b->g[i]), 0.1 * most);
        worst = ttt_test_worse(worst, ttt_max_abs_diff(a->g[i], b->g[i]) / unit);
    }
    return worst;
}

// Leaves of these shapes, drawn; left and right must agree on all, and broken with neither.
static void check_same(const char *what, const ttt_shape *leaf, int n, side *left, side *right,
                       side *broken) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 11 });
    ttt_tensor *x[MOST];
    for (int i = 0; i < n; i++)
        x[i] = ttt_detach(c, ttt_scale(c, ttt_randn(c, leaf[i]), (ttt_real)0.7));
    outcome a = evaluate(c, left, x, n), b = evaluate(c, right, x, n);
    double same = apart(&a, &b, n);
    CHECK(ttt_ok(c) && same <= (DOUBLE ? 1e-10 : 1e-5));
    if (!(same <= (DOUBLE ? 1e-10 : 1e-5))) printf("  %s: %g apart\n", what, same);
    if (broken) {
        outcome z = evaluate(c, broken, x, n);
        CHECK(ttt_ok(c) && apart(&z, &b, n) >= 1e-3);
    }
    ttt_close(c);
}

static ttt_weights weights(ttt_tensor *const *at, int n) { return (ttt_weights){ at, n }; }
static const ttt_real eta = REAL(0.5);
static ttt_mixer_desc describe(const char *mixer) {
    const ttt_mixer_desc d = { .dim = D, .heads = H, .inner_lr = eta };
    return ttt_mixer_offer(ttt_mixer_find(mixer), &d);
}

// ---- 1. MTTT-Linear is linear attention ---------------------------------------------------------
// x; phi, its bias; psi, its bias; g, its bias; h, its bias
#define MTTT_LEAVES                                                             \
    { TTT_SHAPE(B, N, D),  TTT_SHAPE(H, D, h), TTT_SHAPE(H, h),                 \
      TTT_SHAPE(H, D, h),  TTT_SHAPE(H, h),    TTT_SHAPE(H, h, D),              \
      TTT_SHAPE(1, D),     TTT_SHAPE(H, h, D), TTT_SHAPE(1, D) }
static ttt_tensor *mttt_from_zero(ttt_ctx *c, ttt_tensor *const *x, bool no_fused) {
    ttt_mixer_desc d = describe("mttt-linear");
    d.no_decoder_norm = d.no_inner_bias = true;
    d.no_fused = no_fused;
    ttt_tensor *zero = ttt_zeros(c, TTT_SHAPE(H, h, h));
    ttt_tensor *w[9] = { x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8], zero };
    return ttt_mixer_forward(c, &d, weights(w, 9), x[0], NULL);
}
SIDE(mttt_tape, mttt_from_zero(c, x, true))
SIDE(mttt_fused, mttt_from_zero(c, x, false))
// The map: W_q = psi, W_k = phi, W_v = eta g^T, b_v = -eta b_g g^T, W_o = h.
static ttt_tensor *mapped(ttt_ctx *c, ttt_tensor *const *x, ttt_normalizer normalizer) {
    static const int in[3] = { 1, 0, 2 }, turned[3] = { 2, 0, 1 };
    ttt_mixer_desc d = describe("linear-attention");
    d.identity_map = true;
    d.normalizer = normalizer;
    ttt_shape square = TTT_SHAPE(D, D), row = TTT_SHAPE(D);
    ttt_tensor *v = ttt_reshape(c, ttt_permute(c, x[5], turned), square);
    v = ttt_scale(c, v, eta);
    ttt_tensor *w[8] = {
        ttt_reshape(c, ttt_permute(c, x[3], in), square), ttt_reshape(c, x[4], row),
        ttt_reshape(c, ttt_permute(c, x[1], in), square), ttt_reshape(c, x[2], row),
        v, ttt_reshape(c, ttt_scale(c, ttt_matmul(c, x[6], v), -1), row),
        ttt_reshape(c, x[7], square), ttt_reshape(c, x[8], row),
    };
    return ttt_mixer_forward(c, &d, weights(w, 8), x[0], NULL);
}
SIDE(mapped_right, mapped(c, x, TTT_NORMALIZER_CONSTANT))
SIDE(mapped_wrong, mapped(c, x, TTT_NORMALIZER_NONE))
static void mttt_linear_is_linear_attention(void) {
    const ttt_shape leaf[] = MTTT_LEAVES;
    check_same("tape", leaf, 9, mttt_tape, mapped_right, mapped_wrong);
    check_same("fused", leaf, 9, mttt_fused, mapped_right, mapped_wrong);
}

// ---- 2. the kernel learner is self-attention; 8. so are its restrictions that restrict nothing --
// x; query, key, value, output, each kernel and bias
#define ATTENTION_LEAVES                                                        \
    { TTT_SHAPE(B, N, D), TTT_SHAPE(D, D), TTT_SHAPE(D), TTT_SHAPE(D, D),       \
      TTT_SHAPE(D), TTT_SHAPE(D, D), TTT_SHAPE(D), TTT_SHAPE(D, D), TTT_SHAPE(D) }
static ttt_tensor *self_attention(ttt_ctx *c, ttt_tensor *const *x) {
    ttt_mixer_desc d = describe("self-attention");
    ttt_tensor *w[8];
    for (int i = 0; i < 8; i += 2) {
        w[i] = ttt_reshape(c, x[1 + i], i < 6 ? TTT_SHAPE(D, H, h) : TTT_SHAPE(H, h, D));
        w[i + 1] = i < 6 ? ttt_reshape(c, x[2 + i], TTT_SHAPE(H, h)) : x[2 + i];
    }
    return ttt_mixer_forward(c, &d, weights(w, 8), x[0], NULL);
}
static ttt_tensor *estimate(ttt_ctx *c, ttt_tensor *const *x, ttt_attention_kernel kernel) {
    ttt_mixer_desc d = describe("nadaraya-watson");
    d.kernel = kernel;
    return ttt_mixer_forward(c, &d, weights(x + 1, 8), x[0], NULL);
}
SIDE(exponential, estimate(c, x, TTT_ATTENTION_KERNEL_EXPONENTIAL))
SIDE(gaussian, estimate(c, x, TTT_ATTENTION_KERNEL_GAUSSIAN))
// q, k, v (B,N,D), the keys of each head brought to one length or not; b^2 = sqrt h
static ttt_tensor *gauss_of(ttt_ctx *c, ttt_tensor *const *x, bool equal,
                            ttt_attention_kernel kernel) {
    ttt_mixer_desc d = describe("nadaraya-watson");
    ttt_tensor *k = x[1], *a;
    d.kernel = kernel;
    if (equal) k = ttt__whole(c, ttt__unit(c, ttt__beside(c, k, H), 0));
    return ttt__kernel_estimate(c, &d, x[0], k, x[2], &a);
}
SIDE(equal_gauss, gauss_of(c, x, true, TTT_ATTENTION_KERNEL_GAUSSIAN))
SIDE(equal_softmax, gauss_of(c, x, true, TTT_ATTENTION_KERNEL_EXPONENTIAL))
SIDE(unequal_gauss, gauss_of(c, x, false, TTT_ATTENTION_KERNEL_GAUSSIAN))
static void kernel_learner_is_self_attention(void) {
    const ttt_shape leaf[] = ATTENTION_LEAVES, tokens = TTT_SHAPE(B, N, D);
    const ttt_shape qkv[] = { tokens, tokens, tokens };
    check_same("exponential", leaf, 9, exponential, self_attention, gaussian);
    check_same("gaussian", qkv, 3, equal_gauss, equal_softmax, unequal_gauss);
}

static ttt_tensor *windowed(ttt_ctx *c, ttt_tensor *const *x, int64_t window) {
    ttt_mixer_desc d = describe("longformer");
    d.window = window;
    return ttt_mixer_forward(c, &d, weights(x + 1, 8), x[0], NULL);
}
SIDE(window_n, windowed(c, x, N))
SIDE(window_below_n, windowed(c, x, N - 1))  // reaches all just as well
SIDE(window_short, windowed(c, x, N - 2))
static ttt_tensor *tabled(ttt_ctx *c, ttt_tensor *const *x, int64_t off_diagonal) {
    ttt_mixer_desc d = describe("linformer");
    ttt_tensor *one = ttt_zeros(c, TTT_SHAPE(N, N));
    ttt_tensor *w[10] = { x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8], one, one };
    for (int i = 0; i < N; i++) one->data[i * N + i] = 1;
    if (off_diagonal) one->data[1] = 1;
    d.max_tokens = d.compressed = N;
    return ttt_mixer_forward(c, &d, weights(w, 10), x[0], NULL);
}
SIDE(table_of_ones, tabled(c, x, 0))
SIDE(table_off, tabled(c, x, 1))
static void unrestricted_attention_is_self_attention(void) {
    const ttt_shape leaf[] = ATTENTION_LEAVES;
    check_same("longformer", leaf, 9, window_n, self_attention, window_short);
    check_same("longformer, N - 1", leaf, 9, window_below_n, self_attention, NULL);
    check_same("linformer", leaf, 9, table_of_ones, self_attention, table_off);
}

// ---- 3. and 4. the recurrences ------------------------------------------------------------------
// Leaves q, k, v (B,H,N,h), then logits of beta and of what is kept (B,H,N,1).
#define STATE_LEAVES                                                            \
    { TTT_SHAPE(B, H, N, h), TTT_SHAPE(B, H, N, h), TTT_SHAPE(B, H, N, h),      \
      TTT_SHAPE(B, H, N, 1), TTT_SHAPE(B, H, N, 1) }

// A linear learner without norm, from W0 = 0, whose gradients simply add up: no decay, no velocity.
static ttt_tensor *learner_from_zero(ttt_ctx *c, ttt_tensor *const *x, ttt_tensor *rate,
                                     int64_t chunk) {
    ttt__memory m = { .layers = 1, .w = { ttt_zeros(c, TTT_SHAPE(B, H, h, h)) } };
    ttt_tensor *no_decay = ttt_zeros(c, rate->shape), *no_velocity = ttt_full(c, rate->shape, -1e9);
    ttt__update_rule rule = { rate, no_decay, no_velocity, true, chunk, false };
    return ttt__memory_run(c, &m, &rule, x[0], x[1], x[2], NULL);
}
SIDE(one_descent, learner_from_zero(c, x, ttt_full(c, x[3]->shape, 1), N))
SIDE(parallel, ttt__scan(c, x[0], x[1], x[2], NULL, NULL, N, NULL))
SIDE(chunked, ttt__scan(c, x[0], x[1], x[2], NULL, NULL, 3, NULL))
SIDE(recurrent, ttt__scan(c, x[0], x[1], x[2], NULL, NULL, 1, NULL))
SIDE(not_causal, ttt_matmul(c, x[0], ttt_matmul_t(c, x[1], x[2], true, false)))
// Tokens 3..5 before 0..2.
static ttt_tensor *threes_swapped(ttt_ctx *c, ttt_tensor *x) {
    ttt_tensor *part[3] = { ttt_slice(c, x, 2, 3, 3), ttt_slice(c, x, 2, 0, 3),
                            ttt_slice(c, x, 2, 6, N - 6) };
    return ttt_concat(c, part, 3, 2);
}
static ttt_tensor *chunks_swapped(ttt_ctx *c, ttt_tensor *const *x) {
    ttt_tensor *moved[3];
    for (int i = 0; i < 3; i++) {
        moved[i] = threes_swapped(c, x[i]);
    }
    ttt_tensor *y = ttt__scan(c, moved[0], moved[1], moved[2], NULL, NULL, 3, NULL);
    return threes_swapped(c, y);
}
static void causal_linear_learner_is_causal_linear_attention(void) {
    const ttt_shape leaf[] = STATE_LEAVES;
    check_same("learner", leaf, 5, one_descent, parallel, not_causal);
    check_same("chunked", leaf, 5, chunked, parallel, chunks_swapped);
    check_same("recurrent", leaf, 5, recurrent, parallel, chunks_swapped);
}

static ttt_tensor *beta_of(ttt_ctx *c, ttt_tensor *const *x) { return ttt_sigmoid(c, x[3]); }
static ttt_tensor *kept(ttt_ctx *c, ttt_tensor *const *x) { return ttt__log_sigmoid(c, x[4]); }
// Token by token as the papers print it: S <- e^g S;  S <- S + beta k^T (v - k S);  o = q S
// g: one for all of S (B,H,N,1), or one for each of its rows (B,H,N,h); NULL: 0
static ttt_tensor *delta_by_hand(ttt_ctx *c, ttt_tensor *const *x, ttt_tensor *g, bool replaces) {
    ttt_tensor *S = ttt_zeros(c, TTT_SHAPE(B, H, h, h)), *o[N];
    ttt_tensor *beta = beta_of(c, x), *keep = g ? ttt_exp(c, g) : NULL;
    for (int t = 0; t < N; t++) {
        ttt_tensor *q = ttt_slice(c, x[0], 2, t, 1), *k = ttt_slice(c, x[1], 2, t, 1);
        ttt_tensor *v = ttt_slice(c, x[2], 2, t, 1), *rate = ttt_slice(c, beta, 2, t, 1);
        if (g) S = ttt_mul(c, S, ttt_transpose(c, ttt_slice(c, keep, 2, t, 1)));
        ttt_tensor *news = replaces ? ttt_sub(c, v, ttt_matmul(c, k, S)) : v;
        S = ttt_add(c, S, ttt_matmul_t(c, k, ttt_mul(c, news, rate), true, false));
        o[t] = ttt_matmul(c, q, S);
    }
    return ttt_concat(c, o, N, 2);
}
SIDE(delta_loop, delta_by_hand(c, x, NULL, true))
SIDE(delta_adds, delta_by_hand(c, x, NULL, false))
SIDE(gated_loop, delta_by_hand(c, x, kept(c, x), true))
SIDE(delta_whole, ttt__scan(c, x[0], x[1], x[2], beta_of(c, x), NULL, N, NULL))
SIDE(delta_chunks, ttt__scan(c, x[0], x[1], x[2], beta_of(c, x), NULL, 3, NULL))
SIDE(gated_whole, ttt__scan(c, x[0], x[1], x[2], beta_of(c, x), kept(c, x), N, NULL))
SIDE(gated_chunks, ttt__scan(c, x[0], x[1], x[2], beta_of(c, x), kept(c, x), 3, NULL))
// TTT-Linear, mini-batches of one token, no norm and so no residual, W0 = 0
static ttt_tensor *ttt_linear(ttt_ctx *c, ttt_tensor *const *x, int64_t mini_batch) {
    ttt__memory m = { .layers = 1, .w = { ttt_zeros(c, TTT_SHAPE(B, H, h, h)) } };
    ttt__update_rule rule = { beta_of(c, x), NULL, NULL, true, mini_batch, false };
    return ttt__memory_run(c, &m, &rule, x[0], x[1], x[2], NULL);
}
SIDE(ttt_linear_1, ttt_linear(c, x, 1))
SIDE(ttt_linear_2, ttt_linear(c, x, 2))
static void delta_rule_is_ttt_linear_with_mini_batches_of_one(void) {
    const ttt_shape leaf[] = STATE_LEAVES;
    check_same("ttt", leaf, 5, ttt_linear_1, delta_loop, ttt_linear_2);
    check_same("whole", leaf, 5, delta_whole, delta_loop, delta_adds);
    check_same("chunks", leaf, 5, delta_chunks, delta_loop, gated_loop);
    check_same("gated, whole", leaf, 5, gated_whole, gated_loop, delta_loop);
    check_same("gated, chunks", leaf, 5, gated_chunks, gated_loop, delta_loop);
}

// KDA: each channel of the keys fades by itself.
static ttt_tensor *kept_each(ttt_ctx *c, ttt_tensor *const *x) { return ttt__log_sigmoid(c, x[5]); }
SIDE(kda_loop, delta_by_hand(c, x, kept_each(c, x), true))
SIDE(kda_whole, ttt__scan(c, x[0], x[1], x[2], beta_of(c, x), kept_each(c, x), N, NULL))
SIDE(kda_chunks, ttt__scan(c, x[0], x[1], x[2], beta_of(c, x), kept_each(c, x), 3, NULL))
SIDE(kda_tokens, ttt__scan(c, x[0], x[1], x[2], beta_of(c, x), kept_each(c, x), 1, NULL))
static void kda_is_its_recurrence(void) {
    const ttt_shape one = TTT_SHAPE(B, H, N, 1), all = TTT_SHAPE(B, H, N, h),
                    leaf[] = { all, all, all, one, one, all };
    check_same("whole", leaf, 6, kda_whole, kda_loop, gated_loop);
    check_same("chunks", leaf, 6, kda_chunks, kda_loop, gated_loop);
    check_same("tokens", leaf, 6, kda_tokens, kda_loop, gated_loop);
}

// Leaves: x; the nine weights that both layers have; A_log and dt_bias of a head; and the factors,
// of rank h, of the kernel that gives a head's decay.
enum { SHARED = 9 };
#define DECAY_LEAVES                                                            \
    { TTT_SHAPE(B, N, D), TTT_SHAPE(D, D), TTT_SHAPE(D, D), TTT_SHAPE(D, D),    \
      TTT_SHAPE(4, D),    TTT_SHAPE(4, D), TTT_SHAPE(4, D), TTT_SHAPE(D, H),    \
      TTT_SHAPE(h),       TTT_SHAPE(D, D), TTT_SHAPE(H),    TTT_SHAPE(H),       \
      TTT_SHAPE(D, h),    TTT_SHAPE(h, H) }
// What the memory answers, before the norm's gate: there the two layers differ.
static ttt_tensor *answer(ttt_ctx *c, const char *mixer, ttt_tensor *const *x,
                          ttt_tensor *const *own, int n_own) {
    ttt_mixer_desc d = describe(mixer);
    ttt_unmasked u = { 0 };
    ttt_tensor *w[SHARED + 8];
    for (int i = 0; i < SHARED; i++) w[i] = x[1 + i];
    for (int i = 0; i < n_own; i++) w[SHARED + i] = own[i];
    d.unmask = &u;
    ttt_mixer_forward(c, &d, weights(w, SHARED + n_own), x[0], NULL);
    return u.read;
}
static ttt_tensor *gated_answer(ttt_ctx *c, ttt_tensor *const *x) {
    ttt_tensor *own[4] = { ttt_matmul(c, x[12], x[13]), x[10], x[11],
                           ttt_zeros(c, TTT_SHAPE(D, D)) };
    return answer(c, "gated-delta-net", x, own, 4);
}
static ttt_tensor *of_each_channel(ttt_ctx *c, ttt_tensor *a, int64_t rows) {  // (rows,D)
    ttt_tensor *apart = ttt_reshape(c, a, TTT_SHAPE(rows, H, 1));
    return ttt_reshape(c, ttt_broadcast(c, apart, TTT_SHAPE(rows, H, h)), TTT_SHAPE(rows, D));
}
static ttt_tensor *kda_answer(ttt_ctx *c, ttt_tensor *const *x, bool alike) {
    ttt_tensor *dt = alike ? of_each_channel(c, x[11], 1) : ttt_sum_axis(c, x[1], 0);
    ttt_tensor *own[7] = { x[12], of_each_channel(c, x[13], h), x[10],
                           ttt_reshape(c, dt, TTT_SHAPE(D)), ttt_zeros(c, TTT_SHAPE(D, h)),
                           ttt_zeros(c, TTT_SHAPE(h, D)), ttt_zeros(c, TTT_SHAPE(D)) };
    return answer(c, "kda", x, own, 7);
}
SIDE(kda_alike, kda_answer(c, x, true))
SIDE(kda_unlike, kda_answer(c, x, false))
static void kda_with_equal_gates_is_gated_delta_net(void) {
    const ttt_shape leaf[] = DECAY_LEAVES;
    check_same("gates", leaf, 14, kda_alike, gated_answer, kda_unlike);
}

// S and o of one head after token t, in double: the recurrence from above.
static void kda_token(double S[h][h], const ttt_real *q, const ttt_real *k, const ttt_real *v,
                      const ttt_real *g, double beta, double *o) {
    for (int j = 0; j < h; j++) {
        double news = (double)v[j];
        o[j] = 0;
        for (int i = 0; i < h; i++) S[i][j] *= exp((double)g[i]);
        for (int i = 0; i < h; i++) news -= (double)k[i] * S[i][j];
        for (int i = 0; i < h; i++) S[i][j] += beta * news * (double)k[i];
        for (int i = 0; i < h; i++) o[j] += (double)q[i] * S[i][j];
    }
}
// Decays from none to e^-400 a token: what fades at once takes nothing from what fades slowly.
static void strong_decays_leave_weak_ones_exact(void) {
    enum { LONG = 50 };
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 4 });
    ttt_shape shape = TTT_SHAPE(1, 1, LONG, h);
    ttt_tensor *q = ttt_randn(c, shape), *k = ttt_scale(c, ttt_randn(c, shape), REAL(0.3));
    ttt_tensor *v = ttt_randn(c, shape), *g = ttt_new(c, shape);
    ttt_tensor *beta = ttt_full(c, TTT_SHAPE(1, 1, LONG, 1), REAL(0.5));
    double S[h][h] = { { 0 } }, o[LONG * h];
    for (int i = 0; i < LONG * h; i++) g->data[i] = i % 7 == 3 ? -400 : REAL(-0.01 * (i % 5));
    for (int t = 0; t < LONG * h; t += h)
        kda_token(S, q->data + t, k->data + t, v->data + t, g->data + t, 0.5, o + t);
    for (int64_t chunk = 1; chunk <= 64; chunk *= 8) {
        ttt_tensor *y = ttt__scan(c, q, k, v, beta, g, chunk, NULL);
        CHECK_CLOSE(y->data, o, LONG * h, 0, DOUBLE ? 2e-15 : 1e-6);
    }
    CHECK(ttt_ok(c));
    ttt_close(c);
}

// ---- 5. dual and primal -------------------------------------------------------------------------
// Leaves as above, then W1 (B,H,h,2h), b1, W2 (B,H,2h,h), b2, and the norm's scale and shift.
#define LEARNER_LEAVES                                                          \
    { TTT_SHAPE(B, H, N, h), TTT_SHAPE(B, H, N, h), TTT_SHAPE(B, H, N, h),      \
      TTT_SHAPE(B, H, N, 1), TTT_SHAPE(B, H, N, 1), TTT_SHAPE(B, H, h, 2 * h),  \
      TTT_SHAPE(B, H, 1, 2 * h), TTT_SHAPE(B, H, 2 * h, h),                     \
      TTT_SHAPE(B, H, 1, h), TTT_SHAPE(H, 1, h), TTT_SHAPE(H, 1, h),            \
      TTT_SHAPE(B, H, N, 1), TTT_SHAPE(B, H, h, h) }
static ttt__memory memory(ttt_tensor *const *x, bool mlp, bool norm) {
    ttt__memory m = { .layers = 1, .w = { x[12] }, .b = { x[8] } };
    if (mlp) m = (ttt__memory){ .layers = 2, .w = { x[5], x[7] }, .b = { x[6], x[8] } };
    if (norm) m.scale = x[9], m.shift = x[10];
    return m;
}
static ttt_tensor *dual(ttt_ctx *c, ttt_tensor *const *x, bool mlp, bool norm) {
    ttt__memory m = memory(x, mlp, norm);
    ttt__update_rule rule = { beta_of(c, x), NULL, NULL, true, 3, false };
    return ttt__memory_run(c, &m, &rule, x[0], x[1], x[2], NULL);
}
// 1/2 |norm(f(k_t)) - v_t|^2 of token t.
static ttt_tensor *token_loss(ttt_ctx *c, ttt_tensor *const *x, ttt__memory *m, int t) {
    ttt_tensor *k = ttt_slice(c, x[1], 2, t, 1), *v = ttt_slice(c, x[2], 2, t, 1);
    ttt_tensor *f = ttt__memory_norm(c, m, ttt__memory_predict(c, m, k, NULL));
    return ttt_scale(c, ttt_sum(c, ttt_square(c, ttt_sub(c, f, v))), REAL(0.5));
}
// Every token's own weights, from gradients that the tape takes: W_i = W - 1/(i+1) sum over k <= i
// of rate_k grad_k.
static ttt_tensor *primal(ttt_ctx *c, ttt_tensor *const *x, bool mlp, bool norm,
                          bool forgets_mean) {
    ttt__memory m = memory(x, mlp, norm);
    ttt_tensor *o[N], *rate = beta_of(c, x);
    for (int start = 0; start < N; start += 3) {
        ttt__memory at = m;
        ttt_tensor *sum[4] = { NULL };
        for (int t = start; t < start + 3 && t < N; t++) {
            ttt_tensor *w[4] = { m.w[0], m.b[0], m.w[1], m.b[1] }, *g[4], *now[4];
            ttt_grad(c, token_loss(c, x, &m, t), w, 2 * m.layers, g, TTT_GRAD_RECORD);
            for (int i = 0; i < 2 * m.layers; i++) {
                g[i] = ttt_mul(c, g[i], ttt_slice(c, rate, 2, t, 1));
                sum[i] = sum[i] ? ttt_add(c, sum[i], g[i]) : g[i];
                ttt_real part = forgets_mean ? 1 : 1 / (ttt_real)(t - start + 1);
                now[i] = ttt_sub(c, w[i], ttt_scale(c, sum[i], part));
            }
            at = m;
            for (int l = 0; l < m.layers; l++) at.w[l] = now[2 * l], at.b[l] = now[2 * l + 1];
            o[t] = ttt__memory_predict(c, &at, ttt_slice(c, x[0], 2, t, 1), NULL);
        }
        m = at;
    }
    return ttt_concat(c, o, N, 2);
}
#define DUAL_AND_PRIMAL(name, mlp, norm)                \
    SIDE(name##_dual, dual(c, x, mlp, norm))            \
    SIDE(name##_primal, primal(c, x, mlp, norm, false)) \
    SIDE(name##_wrong, primal(c, x, mlp, norm, true))
DUAL_AND_PRIMAL(linear, false, false)
DUAL_AND_PRIMAL(linear_norm, false, true)
DUAL_AND_PRIMAL(mlp, true, false)
DUAL_AND_PRIMAL(mlp_norm, true, true)
static void dual_form_is_primal_form(void) {
    const ttt_shape leaf[] = LEARNER_LEAVES;
    check_same("linear", leaf, 13, linear_dual, linear_primal, linear_wrong);
    check_same("linear, norm", leaf, 13, linear_norm_dual, linear_norm_primal, linear_norm_wrong);
    check_same("mlp", leaf, 13, mlp_dual, mlp_primal, mlp_wrong);
    check_same("mlp, norm", leaf, 13, mlp_norm_dual, mlp_norm_primal, mlp_norm_wrong);
}

// ---- 6. a linear last layer is attention --------------------------------------------------------
// T = 3 steps on all tokens, by the tape; and o = q^ (S_0 + sum k^T v^) from the pairs that they
// wrote.
static ttt_tensor *squares(ttt_ctx *c, const void *arg, ttt_tensor *prediction, ttt_tensor *label) {
    (void)arg;
    return ttt_scale(c, ttt_sum(c, ttt_square(c, ttt_sub(c, prediction, label))), (ttt_real)0.125);
}
static ttt_tensor *predict_two(ttt_ctx *c, ttt_tensor *const *w, ttt_tensor *x) {
    return ttt_matmul(c, ttt_gelu(c, ttt_matmul(c, x, w[0])), w[1]);
}
static ttt_tensor *predict_pair(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    (void)desc;
    return predict_two(c, w.at, x);
}
static const ttt_param_row two_rows[] = { { "a", "H h h", TTT_INIT_ZERO, NULL, NULL, 0, 0 },
                                          { "b", "H h h", TTT_INIT_ZERO, NULL, NULL, 0, 0 } };
static const ttt_learner two_layers = { "two layers", two_rows, 2, predict_pair, 2 };
#define STEPS_LEAVES                                                            \
    { TTT_SHAPE(B, H, N, h), TTT_SHAPE(B, H, N, h), TTT_SHAPE(B, H, N, h),      \
      TTT_SHAPE(H, h, 2 * h), TTT_SHAPE(H, 2 * h, h) }
static const ttt_real step_rates[3] = { (ttt_real)0.5, (ttt_real)0.25, (ttt_real)0.125 };
static ttt_tensor *three_steps(ttt_ctx *c, ttt_tensor *const *x) {
    ttt_inner in = { .learner = &two_layers, .train = x[1], .label = x[2],
                     .loss = squares, .steps = 3, .rates = step_rates };
    ttt_weights w = ttt_inner_loop(c, &in, weights(x + 3, 2), NULL);
    return ttt_ok(c) ? predict_two(c, w.at, x[0]) : x[0];
}
static ttt_tensor *pairs(ttt_ctx *c, ttt_tensor *const *x, int first) {
    ttt_tensor *w[2] = { ttt__lift_weight(c, x[3], B), ttt__lift_weight(c, x[4], B) };
    ttt_tensor *key[3], *value[3], *start = w[1];
    for (int t = 0; t < 3; t++) {
        ttt_tensor *e = predict_two(c, w, x[1]), *wrt[3] = { e, w[0], w[1] }, *g[3];
        ttt_grad(c, squares(c, NULL, e, x[2]), wrt, 3, g, TTT_GRAD_RECORD);
        key[t] = ttt_gelu(c, ttt_matmul(c, x[1], w[0]));
        value[t] = ttt_scale(c, g[0], -step_rates[t]);
        for (int i = 0; i < 2; i++) w[i] = ttt_sub(c, w[i], ttt_scale(c, g[1 + i], step_rates[t]));
    }
    ttt_tensor *q = ttt_gelu(c, ttt_matmul(c, x[0], w[0]));
    ttt_tensor *k = ttt_concat(c, key + first, 3 - first, 2);
    ttt_tensor *v = ttt_concat(c, value + first, 3 - first, 2);
    ttt_tensor *attended = ttt_matmul(c, ttt_matmul_t(c, q, k, false, true), v);
    return ttt_add(c, attended, ttt_matmul(c, q, start));
}
SIDE(all_pairs, pairs(c, x, 0))
SIDE(first_step_missing, pairs(c, x, 1))

// Momentum and decay: Titans' memory against what ttt_unmask says of it.
static ttt__update_rule titans_rule(ttt_ctx *c, ttt_tensor *const *x, int64_t chunk) {
    ttt_tensor *velocity = ttt__log_sigmoid(c, x[11]);
    return (ttt__update_rule){ beta_of(c, x), kept(c, x), velocity, true, chunk, false };
}
static ttt_tensor *titans_in_chunks(ttt_ctx *c, ttt_tensor *const *x, int64_t chunk) {
    ttt__memory m = memory(x, true, true);
    ttt__update_rule rule = titans_rule(c, x, chunk);
    return ttt__memory_run(c, &m, &rule, x[0], x[1], x[2], NULL);
}
SIDE(titans_read, titans_in_chunks(c, x, 3))
static ttt_tensor *titans_mixed(ttt_ctx *c, ttt_tensor *const *x, bool carries) {
    ttt__memory m = memory(x, true, true);
    ttt__update_rule rule = titans_rule(c, x, 3);
    ttt_unmasked u = { 0 };
    ttt__memory_run(c, &m, &rule, x[0], x[1], x[2], &u);
    ttt_tensor *from = ttt_matmul(c, u.query, u.start);
    return ttt_add(c, ttt_matmul(c, u.matrix, u.value), carries ? ttt_mul(c, from, u.carry) : from);
}
SIDE(titans_pairs, titans_mixed(c, x, true))
SIDE(titans_no_decay, titans_mixed(c, x, false))
// The same rule token by token: V <- eta V - theta g,  W <- (1 - alpha) W + V.
SIDE(titans_tokens, titans_in_chunks(c, x, 1))
static ttt_tensor *titans_by_hand(ttt_ctx *c, ttt_tensor *const *x) {
    ttt__memory m = memory(x, true, true);
    ttt_tensor *theta = beta_of(c, x), *keep = ttt_exp(c, kept(c, x)), *eta = ttt_sigmoid(c, x[11]);
    ttt_tensor *o[N], *v[4] = { NULL };
    for (int t = 0; t < N; t++) {
        ttt_tensor *w[4] = { m.w[0], m.b[0], m.w[1], m.b[1] }, *g[4];
        ttt_grad(c, token_loss(c, x, &m, t), w, 4, g, TTT_GRAD_RECORD);
        for (int i = 0; i < 4; i++) {
            ttt_tensor *push = ttt_scale(c, ttt_mul(c, g[i], ttt_slice(c, theta, 2, t, 1)), -1);
            v[i] = v[i] ? ttt_add(c, ttt_mul(c, v[i], ttt_slice(c, eta, 2, t, 1)), push) : push;
            w[i] = ttt_add(c, ttt_mul(c, w[i], ttt_slice(c, keep, 2, t, 1)), v[i]);
        }
        m.w[0] = w[0], m.b[0] = w[1], m.w[1] = w[2], m.b[1] = w[3];
        o[t] = ttt__memory_predict(c, &m, ttt_slice(c, x[0], 2, t, 1), NULL);
    }
    return ttt_concat(c, o, N, 2);
}
static void a_linear_last_layer_is_attention(void) {
    const ttt_shape steps[] = STEPS_LEAVES, leaf[] = LEARNER_LEAVES;
    check_same("three steps", steps, 5, three_steps, all_pairs, first_step_missing);
    check_same("momentum", leaf, 13, titans_read, titans_pairs, titans_no_decay);
    // Chunks of 3 tokens are another rule.
    check_same("titans by hand", leaf, 13, titans_tokens, titans_by_hand, titans_read);
}

// ---- 7. what the loss lets through --------------------------------------------------------------
static ttt_tensor *absolute(ttt_ctx *c, const void *arg, ttt_tensor *prediction,
                            ttt_tensor *label) {
    (void)arg;
    return ttt_sum(c, ttt_abs(c, ttt_sub(c, prediction, label)));
}
// The largest outer gradient in the value view, after one step on this loss.
typedef ttt_tensor *inner_loss(ttt_ctx *c, const void *arg, ttt_tensor *prediction,
                               ttt_tensor *label);
static double value_gradient(inner_loss *loss) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 3 });
    ttt_tensor *x[3], *g;
    for (int i = 0; i < 3; i++) x[i] = ttt_randn(c, TTT_SHAPE(B, H, N, h));
    ttt_tensor *w0 = ttt_randn(c, TTT_SHAPE(H, h, h));
    static const ttt_real rate = (ttt_real)0.25;
    ttt_inner in = { .learner = &ttt_learner_linear, .train = x[1], .label = x[2],
                     .loss = loss, .steps = 1, .rates = &rate };
    ttt_weights w = ttt_inner_loop(c, &in, weights(&w0, 1), NULL);
    CHECK(w.n == 1);
    ttt_grad(c, ttt_sum(c, ttt_square(c, ttt_matmul(c, x[0], w.at[0]))), &x[2], 1, &g,
             TTT_GRAD_FIRST_ORDER);
    double most = 0;
    for (int64_t i = 0; i < g->size; i++) most = fmax(most, fabs((double)g->data[i]));
    CHECK(ttt_ok(c));
    ttt_close(c);
    return most;
}
static void absolute_error_gives_the_value_view_no_gradient(void) {
    CHECK(value_gradient(absolute) == 0);  // its gradient is a sign
    CHECK(value_gradient(squares) > 0.01);
}
// From W0 = 0 one step writes eta k^T v: a rate of 1/4 is the same as half of each view.
static ttt_tensor *written(ttt_ctx *c, ttt_tensor *const *x, double rate, double of_k,
                           double of_v) {
    ttt__memory m = { .layers = 1, .w = { ttt_zeros(c, TTT_SHAPE(B, H, h, h)) } };
    ttt_tensor *rates = ttt_full(c, x[3]->shape, (ttt_real)rate);
    ttt__update_rule rule = { rates, NULL, NULL, false, N, false };
    ttt_tensor *k = ttt_scale(c, x[1], REAL(of_k)), *v = ttt_scale(c, x[2], REAL(of_v));
    return ttt__memory_run(c, &m, &rule, x[0], k, v, NULL);
}
SIDE(quarter_rate, written(c, x, 0.25, 1, 1))
SIDE(half_views, written(c, x, 1, 0.5, 0.5))
SIDE(half_key, written(c, x, 1, 0.5, 1))
static void the_rate_moves_into_the_views(void) {
    const ttt_shape leaf[] = STATE_LEAVES;
    check_same("rate", leaf, 5, quarter_rate, half_views, half_key);
}

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(mttt_linear_is_linear_attention),
        T(kernel_learner_is_self_attention),
        T(causal_linear_learner_is_causal_linear_attention),
        T(delta_rule_is_ttt_linear_with_mini_batches_of_one),
        T(kda_is_its_recurrence),
        T(kda_with_equal_gates_is_gated_delta_net),
        T(strong_decays_leave_weak_ones_exact),
        T(dual_form_is_primal_form),
        T(a_linear_last_layer_is_attention),
        T(absolute_error_gives_the_value_view_no_gradient),
        T(the_rate_moves_into_the_views),
        T(unrestricted_attention_is_self_attention),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
