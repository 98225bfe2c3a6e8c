// 05_attention_map.c - what does a layer look at that has no attention, but a network that learns?
//
//     cc -O2 -o lesson examples/05_attention_map.c -lm && ./lesson
//
// A sequence holds 24 noisy copies of 3 patterns, and the layer should remove the noise from each
// token. The only way is to find the other tokens of its kind and to average. We train one layer
// for this, mttt-mlp: its hidden state is a network with one hidden layer, which takes a gradient
// step on the sequence. Then ttt_unmask takes it apart. For each token s the step writes a pair:
// the features k^_s that the last layer saw, and v^_s, what it was told about them. Token t reads
//     y_t = sum over s of <q^_t, k^_s> v^_s + q^_t S_0
// That is attention, with M = q^ k^T in the place of the softmax. It is exact, because the last
// layer of the network is linear. attention.svg shows M beside the map of softmax attention,
// trained for the same task: a row is a token that asks, a column one that it looks at, green adds
// what that one has to say and purple takes it away.
//
// Output:
//
//     mttt-mlp: error 0.32 (noise 1.00); it is
//       linear attention on the features of the learner's hidden layer, whose values are its errors
//       |y - (M v + q S_0)| / |y| = 1.6e-07; 51 % of the map is on the same kind (by chance 33 %)
//     ok: the matrix gives back what the layer computed
//     ok: tokens look at their own kind
//     self-attention: error 0.29 (noise 1.00); it is
//       softmax self-attention
//       |y - (M v + q S_0)| / |y| = 0.0e+00; 65 % of the map is on the same kind (by chance 33 %)
//     ok: the matrix gives back what the layer computed
//     ok: tokens look at their own kind
//     vittt: none: the last layer of its learner, a gated linear unit, is not linear;
//       its linearization, |dy_i / dx_j|, is off by 0.005 of the change for a move of 1 %
//     ok: a learner whose last layer is not linear is not attention
#define TTT_IMPLEMENTATION
#include "example.h"

static const program this_program = { .name = "lesson", .purpose = "the map of a learner" };
enum { D = 16, N = 24, KINDS = 3, B = 16, STEPS = 1200 };

static void claim(bool holds, const char *text) {
    fprintf(holds ? stdout : stderr, "%s %s\n", holds ? "ok:" : "FAILED:", text);
    if (!holds) exit(1);
}
static void need(bool good, const char *what) {
    if (!good) claim(false, what);
}

// n sequences of noisy copies, in the order 0 0 .. 1 1 .. 2 2. The layer does not know the order,
// and the map shows blocks.
static ttt_tensor *sequences(ttt_ctx *c, int n, ttt_tensor **clean) {
    ttt_tensor *x = ttt_new(c, TTT_SHAPE(n, N, D));
    ttt_tensor *pattern = ttt_randn(c, TTT_SHAPE(n, KINDS, D));
    *clean = ttt_new(c, x->shape);
    for (int64_t i = 0; ttt_ok(c) && i < x->size; i++) {
        int64_t sequence = i / (N * D), token = i / D % N, kind = token * KINDS / N;
        (*clean)->data[i] = pattern->data[(sequence * KINDS + kind) * D + i % D];
        x->data[i] = (*clean)->data[i] + (ttt_real)ttt_rng_normal(ttt_ctx_rng(c));
    }
    return x;
}

typedef struct {
    const char *name;
    ttt_mixer_desc d;
    ttt_params p;
    ttt_weights w;
} layer;

// Returns the mean squared error of the last steps. That of the noise is 1.
static double train(ttt_ctx *c, layer *l) {
    l->d.mixer = ttt_mixer_find(l->name);
    l->d.dim = D;
    l->d.heads = 1;
    l->w = ttt_mixer_new(c, &l->d, &l->p, l->name);
    ttt_optimizer_desc o = { 0 };
    o.lr = (ttt_real)0.01;
    o.warmup = 20;
    o.total = STEPS;
    ttt_optimizer *opt = ttt_optimizer_new(c, &o, &l->p);
    double sum = 0;
    for (int step = 0; ttt_ok(c) && step < STEPS; step++) {
        ttt_mark m = ttt_mark_get(c);
        ttt_tensor *clean, *x = sequences(c, B, &clean);
        ttt_tensor *loss = ttt_mse(c, ttt_mixer_forward(c, &l->d, l->w, x, NULL), clean);
        ttt_optimizer_step(c, opt, loss);
        if (step >= STEPS - 20) sum += (double)ttt_item(loss) / 20;
        ttt_mark_release(c, m);
    }
    return sum;
}

// The share of a token's attention (|M|) that goes to its own kind: by chance, a third.
static double on_its_kind(const ttt_tensor *M) {
    double own = 0, all = 0;
    for (int i = 0; i < N * N; i++) {
        double a = fabs((double)M->data[i]);
        all += a;
        if (i / N * KINDS / N == i % N * KINDS / N) own += a;
    }
    return own / all;
}

// ---- the picture --------------------------------------------------------------------------------
enum { CELL = 14, SIDE = N * CELL, KIND = SIDE / KINDS, TOP = 62, LEFT = 96, PITCH = 460 };

// A row is a token that asks, a column one that it looks at. Kinds have letters and lines between.
static void draw(svg *s, int i, const char *title, const ttt_tensor *M) {
    double left = LEFT + PITCH * i, most = svg_matrix(s, left, TOP, CELL, M);
    svg_text(s, left, 24, "start", 15, "font-weight='bold'", title);
    svg_rect(s, left, TOP, SIDE, SIDE, "none", "stroke='" COLOR_GRAY "'");
    for (int kind = 0; kind < KINDS; kind++) {
        const char name[] = { 'k', 'i', 'n', 'd', ' ', (char)('A' + kind), 0 };
        double at = KIND * (kind + 0.5);
        svg_text(s, left + at, TOP - 6, "middle", 12, "", name);
        svg_text(s, left - 8, TOP + at + 4, "end", 12, "", name);
        if (kind == 0) continue;
        svg_line(s, left + KIND * kind, TOP, left + KIND * kind, TOP + SIDE, COLOR_GRAY, "");
        svg_line(s, left, TOP + KIND * kind, left + SIDE, TOP + KIND * kind, COLOR_GRAY, "");
    }
    svg_text(s, left + SIDE / 2, TOP - 22, "middle", 12, "", "column: token looked at");
    svg_put(s, "<g transform='rotate(-90 %.0f %d)'>", left - 62, TOP + SIDE / 2);
    svg_text(s, left - 62, TOP + SIDE / 2, "middle", 12, "", "row: token that asks");
    svg_put(s, "</g>\n");
    svg_scale(s, left, TOP + SIDE + 16, SIDE, most);
}

int main(void) {
    ttt_ctx *c = open_or_die(NULL);
    // All tokens would share a bias of the learner: the map would turn gray.
    layer l[] = { { .name = "mttt-mlp", .d = { .inner_lr = 1, .no_inner_bias = true } },
                  { .name = "self-attention" } };
    svg s = svg_begin(c, "attention.svg", 2 * PITCH, TOP + SIDE + 52);
    for (int i = 0; i < 2; i++) {
        double error = train(c, &l[i]);
        ttt_tensor *clean, *x = sequences(c, 1, &clean);
        ttt_unmasked u;
        ttt_unmask(c, &l[i].d, l[i].w, x, &u);
        need(ttt_ok(c), ttt_error(c));
        printf("%s: error %.2f (noise 1.00); it is\n  %s\n", l[i].name, error, u.equals);
        printf("  |y - (M v + q S_0)| / |y| = %.1e; "
               "%.0f %% of the map is on the same kind (by chance 33 %%)\n",
               u.error, 100 * on_its_kind(u.matrix));
        claim(u.exact && u.error <= 1e-5, "the matrix gives back what the layer computed");
        claim(error < 0.4 && on_its_kind(u.matrix) > 0.45, "tokens look at their own kind");
        draw(&s, i, l[i].name, u.matrix);
    }
    need(svg_end(&s) == TTT_OK, ttt_error(c));

    // Where the last layer is not linear there is no such matrix, and ttt_unmask says so.
    layer gated = { .name = "vittt" };
    gated.d.grid_rows = 4;
    gated.d.grid_cols = N / 4;
    train(c, &gated);
    ttt_tensor *clean, *x = sequences(c, 1, &clean);
    ttt_unmasked u;
    ttt_unmask(c, &gated.d, gated.w, x, &u);
    need(ttt_ok(c), ttt_error(c));
    printf("vittt: %s;\n"
           "  its linearization, |dy_i / dx_j|, is off by %.1g of the change for a move of 1 %%\n",
           u.equals, u.error);
    claim(!u.exact, "a learner whose last layer is not linear is not attention");
    ttt_close(c);
    return fflush(stdout) || ferror(stdout);
}
