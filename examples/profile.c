// profile.c - where a vision transformer's time goes, op by op, and how far from this machine's best that is.
//
//     cc -O2 -o profile examples/profile.c -lm && ./profile
//     ./profile --mixer self-attention --infer --svg profile.svg
//
// Runs some training steps (or forward passes) on random images and prints a row for each op and phase:
// forward; recorded, the gradients of the inner steps, which a layer that learns takes on its way
// forward; backward. (With --infer nobody differentiates inner steps again, so theirs are "backward".) What bounds an op is told by the "roofline": it cannot need less time than its
// FLOPs at the machine's best rate, nor than its bytes at the memory's. Bytes that are still in a cache
// come faster, so shares above 100 % are no error. ./profile --help has the options.
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"

// ---- options -------------------------------------------------------------------------------------
typedef struct {
    const char *mixer, *isa, *svg;
    double inner_steps, image, patch, width, depth, heads, batch, steps, rows, threads, infer, help;
} options;

typedef enum { TEXT, WHOLE, FLAG } kind;
typedef struct {
    const char *name;
    kind kind;
    size_t offset;
    double lo, hi;
    const char *meaning;
} option;

#define AT(field) offsetof(options, field)
static const option all_options[] = {
    { "--mixer", TEXT, AT(mixer), 0, 0, "how tokens see each other (mttt-mlp)" },
    { "--inner-steps", WHOLE, AT(inner_steps), 1, 64, "gradient steps of the inner learner (1)" },
    { "--image", WHOLE, AT(image), 1, 4096, "side of the images (28)" },
    { "--patch", WHOLE, AT(patch), 1, 1024, "side of the square that makes a token; divides the image (4)" },
    { "--width", WHOLE, AT(width), 4, 4096, "features of a token, divisible by --heads and by 4 (48)" },
    { "--depth", WHOLE, AT(depth), 1, 100, "blocks (2)" },
    { "--heads", WHOLE, AT(heads), 1, 256, "heads of a mixer (3)" },
    { "--batch", WHOLE, AT(batch), 1, 65536, "images of a step (64)" },
    { "--infer", FLAG, AT(infer), 0, 1, "forward passes only, nothing recorded but what the mixer needs" },
    { "--steps", WHOLE, AT(steps), 1, 1e6, "steps that are measured, after two that are not (10)" },
    { "--rows", WHOLE, AT(rows), 1, 1000, "rows of the table; the rest is added up (24)" },
    { "--threads", WHOLE, AT(threads), 0, TTT_MAX_THREADS, "0: all the machine has (1)" },
    { "--isa", TEXT, AT(isa), 0, 0, "instruction set (the best there is)" },
    { "--svg", TEXT, AT(svg), 0, 0, "file for a chart: bars of time by op, share of the peak beside" },
    { "--help", FLAG, AT(help), 0, 1, "print this and stop" },
};
enum { N_OPTIONS = sizeof all_options / sizeof *all_options };

static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "profile: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

static void set_option(options *o, const option *row, const char *text) {
    void *place = (char *)o + row->offset;
    if (row->kind == TEXT) {
        if (!*text) die("%s is empty; %s expected", row->name, row->meaning);
        *(const char **)place = text;
        return;
    }
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= row->lo && v <= row->hi) || v != floor(v))
        die("%s '%s'; a whole number from %g to %g expected: %s", row->name, text, row->lo, row->hi, row->meaning);
    *(double *)place = v;
}

static void parse(int argc, char **argv, options *o) {
    for (int i = 1; i < argc; i++) {
        const option *row = NULL;
        for (int k = 0; k < N_OPTIONS; k++)
            if (strcmp(all_options[k].name, argv[i]) == 0) row = &all_options[k];
        if (!row) die("unknown option '%s'; --help lists them", argv[i]);
        if (row->kind != FLAG && i + 1 == argc) die("%s needs a value: %s", row->name, row->meaning);
        set_option(o, row, row->kind == FLAG ? "1" : argv[++i]);
    }
}

static void print_help(void) {
    puts("profile - where a vision transformer's time goes, op by op\n");
    for (int i = 0; i < N_OPTIONS; i++)
        printf("  %-14s %-6s %s\n", all_options[i].name, all_options[i].kind == FLAG ? "" : all_options[i].kind == TEXT ? "TEXT" : "NUMBER", all_options[i].meaning);
    printf("\nmixers:");
    for (int i = 0; ttt_mixer_at(i); i++) printf(" %s", ttt_mixer_at(i)->name);
    printf("\ninstruction sets here:");
    for (int i = 0; ttt_isa_name(i); i++) printf(" %s", ttt_isa_name(i));
    puts("");
}

// ---- the run -------------------------------------------------------------------------------------
typedef struct {
    options o;
    ttt_ctx *c;
    ttt_params params;
    ttt_vit *vit;
    ttt_optimizer *opt;
    ttt_tensor *images, *target;
} run;

static void need_ok(const run *r, const char *doing) {
    if (!ttt_ok(r->c)) die("%s: %s", doing, ttt_error(r->c));
}

static void open_context(run *r) {
    bool known = !r->o.isa;
    for (int i = 0; ttt_isa_name(i); i++) known = known || strcmp(ttt_isa_name(i), r->o.isa) == 0;
    if (!known) die("--isa '%s' is unknown, or not for this machine; --help lists those there are", r->o.isa);
    if (!ttt_mixer_find(r->o.mixer)) die("--mixer '%s' is unknown; --help lists those there are", r->o.mixer);
    r->c = ttt_open(&(ttt_desc){ .seed = 1, .isa = r->o.isa, .threads = r->o.threads > 0 ? (int)r->o.threads : TTT_ALL_THREADS });
    if (!r->c) die("out of memory");
}

static void make_model(run *r) {
    static ttt_real rates[64];
    for (int i = 0; i < 64; i++) rates[i] = 1;
    ttt_vit_desc d = { .image = (int64_t)r->o.image, .channels = 1, .patch = (int64_t)r->o.patch, .width = (int64_t)r->o.width, .depth = (int64_t)r->o.depth, .classes = 10 };
    d.mixer = (ttt_mixer_desc){ .mixer = ttt_mixer_find(r->o.mixer), .heads = (int64_t)r->o.heads, .inner_steps = (int)r->o.inner_steps, .inner_lrs = rates };
    r->vit = ttt_vit_new(r->c, &d, &r->params);
    r->opt = r->vit ? ttt_optimizer_new(r->c, &r->params, &(ttt_optimizer_desc){ .lr = (ttt_real)1e-3, .weight_decay = (ttt_real)0.05, .clip = 1 }) : NULL;
    need_ok(r, "the model cannot be built");
    int64_t B = (int64_t)r->o.batch, *label = ttt_alloc(r->c, (size_t)B * sizeof *label, false);
    for (int64_t i = 0; label && i < B; i++) label[i] = i % 10;
    r->images = ttt_randn(r->c, TTT_SHAPE(B, d.image, d.image, 1));
    r->target = ttt_one_hot(r->c, ttt_from_int(r->c, TTT_SHAPE(label ? B : 0), label), 10);
    need_ok(r, "the images cannot be made");
}

static void step(run *r) {
    ttt_mark m = ttt_mark_get(r->c);
    bool recording = ttt_recording(r->c, r->o.infer == 0);
    ttt_tensor *logits = ttt_vit_forward(r->c, r->vit, r->images, NULL);
    if (r->o.infer == 0) ttt_optimizer_step(r->c, r->opt, ttt_softmax_loss(r->c, logits, r->target));
    ttt_recording(r->c, recording);
    need_ok(r, "a step");
    ttt_release(r->c, m);
}

// ---- the chart -----------------------------------------------------------------------------------
enum { MOST_ROWS = 400, MOST_BARS = 16, PHASES = 3 };

static double total(const ttt_bar *b) { return b->value[0] + b->value[1] + b->value[2]; }

// One bar an op, its phases and rules together; the last bar has the ops that are too small for one.
static void draw(run *r, const ttt_limits *peak, const char *title) {
    static ttt_profile_row row[MOST_ROWS], sum[MOST_BARS + 1];
    static double ms[MOST_BARS + 1][PHASES];
    static char notes[MOST_BARS + 1][64];
    static ttt_bar bars[MOST_BARS + 1];
    const char *parts[PHASES] = { "forward", "recorded: gradients of inner steps", "backward" };
    int n_rows = ttt_profile_rows(r->c, row, MOST_ROWS), n = 0;
    double whole = 0;
    for (int i = 0; i < n_rows && i < MOST_ROWS; i++) {
        int k = 0;
        while (k < n && strcmp(sum[k].name, row[i].name) != 0) k++;
        if (k == n) sum[k].name = n < MOST_BARS ? row[i].name : "the rest";
        if (k == n && n < MOST_BARS) n++;
        sum[k].seconds += row[i].seconds;
        sum[k].flops += row[i].flops;
        sum[k].bytes += row[i].bytes;
        ms[k][row[i].phase] += 1e3 * row[i].seconds / r->o.steps;
        whole += row[i].seconds;
    }
    if (sum[n].seconds > 0) n++;
    for (int k = 0; k < n; k++) {
        const char *bound;
        double share = ttt_profile_share(&sum[k], peak, &bound);
        snprintf(notes[k], sizeof notes[k], "%.3g ms, %.0f %%", 1e3 * sum[k].seconds / r->o.steps, 100 * sum[k].seconds / whole);
        ttt_bar bar = { .name = sum[k].name, .value = ms[k], .note = notes[k], .meter = *bound ? share : -1, .meter_note = bound };
        int at = k;
        for (; at > 0 && k < MOST_BARS && total(&bars[at - 1]) < total(&bar); at--) bars[at] = bars[at - 1];
        bars[at] = bar;
    }
    ttt_bars b = { .title = title, .x_label = "milliseconds of a step", .meter_label = "share of the peak, and what bounds it",
                   .parts = parts, .n_parts = PHASES, .bar = bars, .n = n };
    ttt_bars_write(r->c, r->o.svg, &b);
    need_ok(r, "--svg");
}

int main(int argc, char **argv) {
    static run r;
    char title[200];
    r.o = (options){ .mixer = "mttt-mlp", .inner_steps = 1, .image = 28, .patch = 4, .width = 48, .depth = 2, .heads = 3, .batch = 64, .steps = 10, .rows = 24, .threads = 1 };
    parse(argc, argv, &r.o);
    if (r.o.help != 0) return print_help(), 0;
    open_context(&r);
    make_model(&r);
    for (int i = 0; i < 2; i++) step(&r);
    ttt_profile_start(r.c);
    for (int i = 0; i < (int)r.o.steps; i++) step(&r);
    ttt_profile_stop(r.c);

    ttt_limits peak = ttt_measure_limits(r.c);
    printf("machine: %s, %.1f GFLOP/s and %.1f GB/s a thread, %d thread%s\n", ttt_isa(r.c), 1e-9 * peak.flops, 1e-9 * peak.bytes, ttt_threads(r.c), ttt_threads(r.c) > 1 ? "s" : "");
    peak.flops *= ttt_threads(r.c);
    peak.bytes *= ttt_threads(r.c);
    snprintf(title, sizeof title, "%.40s, a %s: %.0f x %.0f tokens, width %.0f, depth %.0f, %.0f heads", r.o.mixer, r.o.infer != 0 ? "forward pass" : "training step",
             r.o.batch, (double)r.vit->tokens, r.o.width, r.o.depth, r.o.heads);
    printf("profile: %s; mean of %.0f\n\n%s", title, r.o.steps, ttt_profile_text(r.c, &peak, (int64_t)r.o.steps, (int)r.o.rows));
    need_ok(&r, "the table");
    if (r.o.svg) {
        draw(&r, &peak, title);
        printf("\nwritten: %s\n", r.o.svg);
    }
    ttt_close(r.c);
    return 0;
}
