// figure.c - one MTTT layer as a picture: the inner loop inside the outer one, drawn around a layer that really runs.
//
//     cc -O2 -o figure examples/figure.c -lm && ./figure        # writes mttt_layer.svg
//
// The colored squares are numbers (blue below zero, red above): a sequence of 8 tokens, 8 wide, and what one head of
// an MTTT layer makes of it in 4 inner steps, of which the picture of the inner loop shows the second. The steps are
// those of lesson 3, without biases and layer norm.
#define TTT_IMPLEMENTATION
#include "../ttt_layers.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N = 8, D = 8, H = 2, T = 4, CELL = 9 };
#define OUTER "#c8701a"  // what the outer loop trains
#define INNER "#2360b8"  // what lives for one sequence

// ---- the layer -----------------------------------------------------------------------------------
typedef struct {
    ttt_tensor *x, *k, *r, *q, *y, *W0, *W1, *W;  // (N,D) (N,h) (N,D) (N,h) (N,D), and the model at step 0, 1 and T, (h,h)
    double loss[T + 1];
} layer;

static ttt_tensor *outer(ttt_ctx *c, int64_t rows, int64_t cols) { return ttt_scale(c, ttt_randn(c, TTT_SHAPE(rows, cols)), (ttt_real)(1 / sqrt((double)rows))); }

static layer run(ttt_ctx *c) {
    const int h = D / H;
    layer l;
    l.x = ttt_randn(c, TTT_SHAPE(N, D));
    ttt_tensor *phi = outer(c, D, h), *psi = outer(c, D, h), *decode = outer(c, h, D), *output = outer(c, h, D);
    l.W0 = l.W = outer(c, h, h);
    l.k = ttt_matmul(c, l.x, phi);
    l.q = ttt_matmul(c, l.x, psi);
    for (int t = 0; t <= T; t++) {
        ttt_tensor *r = ttt_matmul(c, ttt_matmul(c, l.k, l.W), decode);
        if (t == 1) l.W1 = l.W, l.r = r;
        ttt_tensor *loss = ttt_scale(c, ttt_mse(c, r, l.x), (ttt_real)H / 2), *slope;  // mean over tokens of |r - x|^2 / 2h
        l.loss[t] = (double)ttt_item(loss);
        if (t == T) break;
        ttt_grad(c, loss, &l.W, 1, &slope, TTT_GRAD_FIRST_ORDER);
        l.W = ttt_sub(c, l.W, ttt_scale(c, slope, (ttt_real)0.4));
    }
    l.y = ttt_matmul(c, ttt_matmul(c, l.q, l.W), output);
    return l;
}

// ---- the picture ---------------------------------------------------------------------------------
static FILE *svg;

static void text(double x, double y, const char *style, const char *words) { fprintf(svg, "<text x='%g' y='%g' %s>%s</text>\n", x, y, style, words); }
static void label(double x, double y, const char *words) { text(x, y, "text-anchor='middle' font-size='13' fill='#333'", words); }
static void arrow(const char *color, const char *path) {
    fprintf(svg, "<path d='%s' fill='none' stroke='%s' stroke-width='1.8' marker-end='url(#%s)'/>\n", path, color, strcmp(color, OUTER) == 0 ? "outer" : strcmp(color, INNER) == 0 ? "inner" : "data");
}
static void frame(double x, double y, double w, double h, const char *color, const char *fill) {
    fprintf(svg, "<rect x='%g' y='%g' width='%g' height='%g' rx='10' fill='%s' stroke='%s' stroke-width='1.8'/>\n", x, y, w, h, fill, color);
}
// A function that the outer loop trains, 64 x 34 around (x, y), what it is called, and what for.
static void function(double x, double y, const char *name, const char *what) {
    fprintf(svg, "<rect x='%g' y='%g' width='64' height='34' rx='6' fill='#fdf1e3' stroke='%s' stroke-width='1.8'/>\n", x - 32, y - 17, OUTER);
    text(x, y + 5, "text-anchor='middle' font-size='14'", name);
    label(x, y + 34, what);
}
// The numbers of a matrix around (x, y).
static void numbers(double x, double y, const ttt_tensor *m, const char *color) {
    int64_t rows = m->shape.dim[0], cols = m->shape.dim[1];
    double most = 0, left = x - (double)cols * CELL / 2, top = y - (double)rows * CELL / 2;
    for (int64_t i = 0; i < m->size; i++) most = fmax(most, fabs((double)m->data[i]));
    for (int64_t i = 0; i < m->size; i++) {
        double a = (double)m->data[i] / most;
        int pale = (int)(255 - 190 * fabs(a)), full = (int)(255 - 20 * fabs(a));
        fprintf(svg, "<rect x='%g' y='%g' width='%d' height='%d' fill='rgb(%d,%d,%d)'/>\n", left + (double)(i % cols) * CELL, top + (double)(i / cols) * CELL, CELL, CELL, a > 0 ? full : pale, pale, a < 0 ? full : pale);
    }
    fprintf(svg, "<rect x='%g' y='%g' width='%g' height='%g' fill='none' stroke='%s' stroke-width='1.8'/>\n", left, top, (double)cols * CELL, (double)rows * CELL, color);
}
// The inner loss, one bar for each number of steps taken.
static void bars(double left, double bottom, const double *loss) {
    for (int t = 0; t <= T; t++) {
        double height = 48 * loss[t] / loss[0];
        fprintf(svg, "<rect x='%g' y='%g' width='13' height='%g' fill='%s'/>\n", left + 17 * t, bottom - height, height, INNER);
        fprintf(svg, "<text x='%g' y='%g' text-anchor='middle' font-size='11' fill='#555'>%d</text>\n", left + 17 * t + 6.5, bottom + 13, t);
        if (t == 0 || t == T) fprintf(svg, "<text x='%g' y='%g' text-anchor='middle' font-size='11' fill='#333'>%.2f</text>\n", left + 17 * t + 6.5, bottom - height - 4, loss[t]);
    }
}

static void draw(const layer *l) {
    const double X = 70, K = 262, MODEL = 375, R = 590, LEARN = 150, USE = 395;  // columns, and the two rows
    fprintf(svg, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 900 560' font-family='sans-serif'>\n<rect width='900' height='560' fill='white'/>\n<defs>");
    const char *const marker[][2] = { { "outer", OUTER }, { "inner", INNER }, { "data", "#666" } };
    for (int i = 0; i < 3; i++) fprintf(svg, "<marker id='%s' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='6' markerHeight='6' orient='auto'><path d='M0 0L8 4L0 8z' fill='%s'/></marker>", marker[i][0], marker[i][1]);
    fprintf(svg, "</defs>\n");
    frame(8, 8, 884, 544, OUTER, "#fffcf8");
    frame(142, 50, 738, 222, INNER, "#f1f6fd");
    text(22, 34, "font-size='16' fill='" OUTER "'", "outer loop, with labels: trains all that is orange, and is absent in use");
    text(156, 74, "font-size='16' fill='" INNER "'", "inner loop: T steps on this sequence, whenever the layer reads one, without labels");

    numbers(X, (LEARN + USE) / 2, l->x, "#666");
    label(X, (LEARN + USE) / 2 + 54, "x, the tokens");
    label(X, (LEARN + USE) / 2 + 71, "(a row each)");
    arrow("#666", "M70 230V150H155");
    function(190, LEARN, "φ", "a view");
    arrow("#666", "M222 150H240");
    numbers(K, LEARN, l->k, "#666");
    arrow("#666", "M284 150H350");
    numbers(MODEL, LEARN, l->W1, INNER);
    label(MODEL, LEARN - 28, "W after step 1");
    arrow("#666", "M396 150H458");
    function(494, LEARN, "decode", "give back");
    arrow("#666", "M526 150H548");
    numbers(R, LEARN, l->r, "#666");
    label(R, LEARN + 54, "r: is it x?");
    arrow("#666", "M632 150H680");
    arrow("#666", "M70 150V90H716V104");
    text(100, 85, "font-size='13' fill='#333'", "x");
    fprintf(svg, "<rect x='684' y='108' width='186' height='112' rx='6' fill='#fff' stroke='#666' stroke-width='1.4'/>\n");
    label(777, 126, "loss: mean of |r − x|²/2h");
    bars(735, 196, l->loss);
    arrow(INNER, "M777 220V243H384V176");
    text(580, 262, "text-anchor='middle' font-size='15' fill='" INNER "'", "W ← W − <tspan fill='" OUTER "'>η</tspan> ∂loss/∂W");

    text(232, 312, "text-anchor='end' font-size='13' fill='" OUTER "'", "W is born: W₀");
    numbers(K, 307, l->W0, OUTER);
    arrow(OUTER, "M284 307H330V162H352");
    arrow("#666", "M70 350V395H155");
    function(190, USE, "ψ", "another view");
    arrow("#666", "M222 395H240");
    numbers(K, USE, l->q, "#666");
    arrow("#666", "M284 395H350");
    numbers(MODEL, USE, l->W, INNER);
    arrow(INNER, "M366 176V372");
    text(374, 312, "font-size='13' fill='" INNER "'", "after T steps");
    label(MODEL + 2, USE + 36, "what it has learned");
    text(MODEL, USE + 53, "text-anchor='middle' font-size='13' fill='" INNER "'", "is asked, and forgotten");
    arrow("#666", "M396 395H458");
    function(494, USE, "output", "answer");
    arrow("#666", "M526 395H548");
    numbers(R, USE, l->y, "#666");
    label(R, USE + 54, "y, this head’s share");
    arrow("#666", "M632 395H698");
    fprintf(svg, "<rect x='702' y='365' width='172' height='60' rx='6' fill='#fff' stroke='#666' stroke-width='1.4'/>\n");
    label(788, 391, "the rest of the network,");
    label(788, 410, "its loss on the labels");
    arrow(OUTER, "M788 425V510H400");
    text(594, 502, "text-anchor='middle' font-size='15' fill='" OUTER "'", "outer gradient, through the T inner steps");
    frame(30, 482, 366, 56, OUTER, "#fdf1e3");
    text(213, 506, "text-anchor='middle' font-size='15'", "φ, ψ, decode, output, W₀ (and, if asked, η),");
    text(213, 526, "text-anchor='middle' font-size='15'", "and the rest of the network");
    fprintf(svg, "</svg>\n");
}

int main(void) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 3 });
    if (!c) return 1;
    layer l = run(c);
    svg = ttt_ok(c) ? fopen("mttt_layer.svg", "w") : NULL;
    if (!svg) return fprintf(stderr, "figure: %s\n", ttt_ok(c) ? "mttt_layer.svg cannot be written here" : ttt_error(c)), 1;
    draw(&l);
    if (fclose(svg) != 0) return fprintf(stderr, "figure: mttt_layer.svg: the disk is full\n"), 1;
    printf("mttt_layer.svg: inner loss %.2f before the inner steps, %.2f after %d\n", l.loss[0], l.loss[T], T);
    ttt_close(c);
    return 0;
}
