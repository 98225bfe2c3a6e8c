// figure.c - one MTTT layer as a picture: the inner loop inside the outer one, around a real run.
//
//     cc -O2 -o figure examples/figure.c -lm && ./figure        # writes mttt_layer.svg
//
// The colored squares are numbers (purple below zero, green above): a sequence of 8 tokens, 8 wide,
// and what one head of an MTTT layer makes of it in 4 inner steps, of which the picture of the
// inner loop shows the second. The steps are those of lesson 3, without biases and layer norm.
#define TTT_IMPLEMENTATION
#include "example.h"

static const program this_program = {
    .name = "figure",
    .purpose = "one MTTT layer as a picture, mttt_layer.svg",
};

enum { N = 8, D = 8, H = 2, T = 4, CELL = 9 };
#define OUTER COLOR_OUTER
#define INNER COLOR_INNER

// ---- the layer ----------------------------------------------------------------------------------
typedef struct {
    ttt_tensor *x, *k, *r, *q, *y;  // (N,D) (N,h) (N,D) (N,h) (N,D)
    ttt_tensor *W0, *W1, *W;        // the model (h,h) after 0, 1 and T steps
    double loss[T + 1], silent;     // silent: the loss of r = 0, which knows nothing
} layer;

static ttt_tensor *outer(ttt_ctx *c, int64_t rows, int64_t cols) {
    return ttt_scale(c, ttt_randn(c, TTT_SHAPE(rows, cols)), (ttt_real)(1 / sqrt((double)rows)));
}

static layer run(ttt_ctx *c) {
    const int h = D / H;
    layer l;
    l.x = ttt_randn(c, TTT_SHAPE(N, D));
    ttt_tensor *phi = outer(c, D, h), *psi = outer(c, D, h);
    ttt_tensor *decode = outer(c, h, D), *output = outer(c, h, D);
    l.W0 = l.W = outer(c, h, h);
    l.k = ttt_matmul(c, l.x, phi);
    l.q = ttt_matmul(c, l.x, psi);
    for (int t = 0; t <= T; t++) {
        ttt_tensor *r = ttt_matmul(c, ttt_matmul(c, l.k, l.W), decode);
        if (t == 1) l.W1 = l.W, l.r = r;
        // the mean over tokens of |r - x|^2 / 2h
        ttt_tensor *loss = ttt_scale(c, ttt_mse(c, r, l.x), (ttt_real)H / 2), *slope;
        l.loss[t] = (double)ttt_item(loss);
        if (t == T) break;
        ttt_grad(c, loss, &l.W, 1, &slope, TTT_GRAD_FIRST_ORDER);
        l.W = ttt_sub(c, l.W, ttt_scale(c, slope, (ttt_real)0.4));
    }
    l.silent = H / 2. * (double)ttt_item(ttt_mean(c, ttt_square(c, l.x)));
    l.y = ttt_matmul(c, ttt_matmul(c, l.q, l.W), output);
    return l;
}

// ---- the picture --------------------------------------------------------------------------------
#define GRAY COLOR_GRAY
#define STROKE "stroke-width='1.8' "

static void word(svg *s, double x, double y, const char *words) {
    svg_text(s, x, y, "middle", 13, "fill='#333333'", words);
}

// A path of SVG, with a head at its end.
static void arrow(svg *s, const char *color, const char *path) {
    svg_put(s, "<path d='%s' fill='none' stroke='%s' " STROKE "marker-end='url(#head%s)'/>\n", path,
            color, color + 1);
}
static void arrow_heads(svg *s) {
    static const char *const colors[] = { OUTER, INNER, GRAY };
    for (int i = 0; i < COUNT(colors); i++) {
        svg_put(s, "<marker id='head%s' viewBox='0 0 8 8' refX='7' refY='4' ", colors[i] + 1);
        svg_put(s, "markerWidth='6' markerHeight='6' orient='auto'>");
        svg_put(s, "<path d='M0 0L8 4L0 8z' fill='%s'/></marker>\n", colors[i]);
    }
}

static void box(svg *s, double x, double y, double w, double h, const char *color,
                const char *fill) {
    char style[80];
    snprintf(style, sizeof style, STROKE "rx='10' stroke='%s'", color);
    svg_rect(s, x, y, w, h, fill, style);
}

// A function that the outer loop trains, 64 x 34 around (x, y), what it is called, and what for.
static void function(svg *s, double x, double y, const char *name, const char *what) {
    svg_rect(s, x - 32, y - 17, 64, 34, "#fdf1e3", STROKE "rx='6' stroke='" OUTER "'");
    svg_text(s, x, y + 5, "middle", 14, "", name);
    word(s, x, y + 34, what);
}

// The numbers of a matrix around (x, y).
static void numbers(svg *s, double x, double y, const ttt_tensor *m, const char *color) {
    int64_t rows = m->shape.dim[0], cols = m->shape.dim[1];
    double width = (double)cols * CELL, height = (double)rows * CELL;
    double left = x - width / 2, top = y - height / 2;
    char text[80];
    svg_matrix(s, left, top, CELL, m);
    snprintf(text, sizeof text, STROKE "stroke='%s'", color);
    svg_rect(s, left, top, width, height, "none", text);
}

// The inner loss, one bar for each number of steps taken, and a line at that of r = 0.
static void loss_bars(svg *s, double left, double bottom, const layer *l) {
    const double *loss = l->loss, scale = 48 / loss[0];
    char text[32];
    for (int t = 0; t <= T; t++) {
        double x = left + 17 * t, height = scale * loss[t];
        svg_rect(s, x, bottom - height, 13, height, INNER, "");
        snprintf(text, sizeof text, "%d", t);
        svg_text(s, x + 6.5, bottom + 13, "middle", 11, "fill='#555555'", text);
        snprintf(text, sizeof text, "%.2f", loss[t]);
        if (t == 0 || t == T)
            svg_text(s, x + 6.5, bottom - height - 4, "middle", 11, "fill='#333333'", text);
    }
    double level = bottom - scale * l->silent;
    svg_line(s, left - 6, level, left + 17 * T + 17, level, GRAY, "stroke-dasharray='4 3'");
    snprintf(text, sizeof text, "r = 0: %.2f", l->silent);
    svg_text(s, left + 17 * T + 20, level + 4, "start", 11, "fill='#333333'", text);
}

enum { X = 70, K = 262, MODEL = 375, R = 590, LEARN = 150, USE = 395 };  // columns, two rows
#define IN_OUTER "fill='" OUTER "'"
#define IN_INNER "fill='" INNER "'"

static void draw_loops(svg *s) {
    arrow_heads(s);
    box(s, 8, 8, 884, 544, OUTER, "#fffcf8");
    box(s, 142, 50, 738, 222, INNER, "#f1f6fd");
    svg_text(s, 22, 34, "start", 16, IN_OUTER,
             "outer loop, with labels: trains all that is orange, and is absent in use");
    svg_text(s, 156, 74, "start", 16, IN_INNER, "inner loop: T steps on this sequence, "
                                                "whenever the layer reads one, without labels");
}

static void draw_learning(svg *s, const layer *l) {
    numbers(s, X, (LEARN + USE) / 2.0, l->x, GRAY);
    word(s, X, (LEARN + USE) / 2.0 + 54, "x, the tokens");
    word(s, X, (LEARN + USE) / 2.0 + 71, "(a row each)");
    arrow(s, GRAY, "M70 230V150H155");
    function(s, 190, LEARN, "φ", "a view");
    arrow(s, GRAY, "M222 150H240");
    numbers(s, K, LEARN, l->k, GRAY);
    arrow(s, GRAY, "M284 150H350");
    numbers(s, MODEL, LEARN, l->W1, INNER);
    word(s, MODEL, LEARN - 28, "W after step 1");
    arrow(s, GRAY, "M396 150H458");
    function(s, 494, LEARN, "decode", "give back");
    arrow(s, GRAY, "M526 150H548");
    numbers(s, R, LEARN, l->r, GRAY);
    word(s, R, LEARN + 54, "r: is it x?");
    arrow(s, GRAY, "M632 150H680");
    arrow(s, GRAY, "M70 150V90H716V104");
    svg_text(s, 100, 85, "start", 13, "fill='#333333'", "x");
    svg_rect(s, 684, 108, 186, 112, "#ffffff", "rx='6' stroke='" GRAY "' stroke-width='1.4'");
    word(s, 777, 126, "loss: mean of |r − x|²/2h");
    loss_bars(s, 706, 196, l);
    arrow(s, INNER, "M777 220V243H384V176");
    svg_put(s, "<text x='580' y='262' text-anchor='middle' font-size='15' " IN_INNER ">W ← W − "
               "<tspan " IN_OUTER ">η</tspan> ∂loss/∂W</text>\n");
}

static void draw_use(svg *s, const layer *l) {
    svg_text(s, 232, 312, "end", 13, IN_OUTER, "W is born: W₀");
    numbers(s, K, 307, l->W0, OUTER);
    arrow(s, OUTER, "M284 307H330V162H352");
    arrow(s, GRAY, "M70 350V395H155");
    function(s, 190, USE, "ψ", "another view");
    arrow(s, GRAY, "M222 395H240");
    numbers(s, K, USE, l->q, GRAY);
    arrow(s, GRAY, "M284 395H350");
    numbers(s, MODEL, USE, l->W, INNER);
    arrow(s, INNER, "M366 176V372");
    svg_text(s, 374, 312, "start", 13, IN_INNER, "after T steps");
    word(s, MODEL + 2, USE + 36, "what it has learned");
    svg_text(s, MODEL, USE + 53, "middle", 13, IN_INNER, "is asked, and forgotten");
    arrow(s, GRAY, "M396 395H458");
    function(s, 494, USE, "output", "answer");
    arrow(s, GRAY, "M526 395H548");
    numbers(s, R, USE, l->y, GRAY);
    word(s, R, USE + 54, "y, this head’s share");
    arrow(s, GRAY, "M632 395H698");
}

static void draw_outer_gradient(svg *s) {
    svg_rect(s, 702, 365, 172, 60, "#ffffff", "rx='6' stroke='" GRAY "' stroke-width='1.4'");
    word(s, 788, 391, "the rest of the network,");
    word(s, 788, 410, "its loss on the labels");
    arrow(s, OUTER, "M788 425V510H400");
    svg_text(s, 594, 502, "middle", 15, IN_OUTER, "outer gradient, through the T inner steps");
    box(s, 30, 482, 366, 56, OUTER, "#fdf1e3");
    svg_text(s, 213, 506, "middle", 15, "", "φ, ψ, decode, output, W₀ (and, if asked, η),");
    svg_text(s, 213, 526, "middle", 15, "", "and the rest of the network");
}

int main(int argc, char **argv) {
    read_options(argc, argv, NULL);
    ttt_ctx *c = open_or_die(&(ttt_desc){ .seed = 3 });
    layer l = run(c);
    need_ok(c, "the layer");
    svg s = svg_begin(c, "mttt_layer.svg", 900, 560);
    draw_loops(&s);
    draw_learning(&s, &l);
    draw_use(&s, &l);
    draw_outer_gradient(&s);
    svg_end(&s);
    need_ok(c, "the picture");
    printf("mttt_layer.svg: inner loss %.2f before the inner steps, %.2f after %d; %.2f if r = 0\n",
           l.loss[0], l.loss[T], T, l.silent);
    ttt_close(c);
    return 0;
}
