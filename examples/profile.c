// profile.c - where a vision transformer's time goes, op by op, and how far from the best that is.
//
//     cc -O2 -o profile examples/profile.c -lm && ./profile
//     ./profile --mixer self-attention --infer --svg profile.svg
//
// Runs some training steps (or forward passes) on random images and prints a row for each op and
// phase: forward; backward; and with --no-fused, where a mixer is many ops and not one: recorded,
// the gradients of the inner steps, which a layer that learns takes on its way forward. (With
// --infer nobody differentiates inner steps again, so theirs are "backward".) The
// "roofline" tells what bounds an op: it needs at least the time that its FLOPs take at the
// machine's best rate, and its bytes at the memory's. Bytes that are still in a cache come faster,
// so shares may exceed 100 %. ./profile --help has the options.
//
//     ./profile --study --svg cost.svg
//
// measures something else: every mixer alone, as one layer, from 256 to 16384 tokens, time beside
// FLOPs (about four minutes).
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "example.h"

// ---- options ------------------------------------------------------------------------------------
typedef struct {
    const char *mixer, *isa, *svg;
    long long inner_steps, image, patch, width, depth, heads, batch;
    long long steps, rows, threads, tokens_max;
    bool infer, no_fused, study;
    double budget;
} options;

static const option option_rows[] = {
    OPTION_CHOICE("--mixer", mixer, mixer_name, "how tokens see each other (mttt-mlp)"),
    OPTION_WHOLE("--inner-steps", inner_steps, 1, 1000000000,
                 "gradient steps of the inner learner (1)"),
    OPTION_WHOLE("--image", image, 1, 4096, "side of the images (28)"),
    OPTION_WHOLE("--patch", patch, 1, 1024,
                 "side of the square that makes a token; divides the image (4)"),
    OPTION_WHOLE("--width", width, 4, 4096,
                 "features of a token, divisible by --heads and by 4 (48)"),
    OPTION_WHOLE("--depth", depth, 1, 100, "blocks (2)"),
    OPTION_WHOLE("--heads", heads, 1, 256, "heads of a mixer (3)"),
    OPTION_WHOLE("--batch", batch, 1, 65536, "images of a step (64)"),
    OPTION_FLAG("--infer", infer,
                "forward passes only, nothing recorded but what the mixer needs"),
    OPTION_FLAG("--no-fused", no_fused,
                "mixers op by op on the tape, slower, so that their parts have rows"),
    OPTION_WHOLE("--steps", steps, 1, 1e6,
                 "steps that are measured, after two that are not (10)"),
    OPTION_WHOLE("--rows", rows, 1, 1000, "rows of the table; the rest is added up (24)"),
    OPTION_WHOLE("--threads", threads, 0, TTT_MAX_THREADS,
                 "0: one for each CPU it may use (1)"),
    OPTION_CHOICE("--isa", isa, ttt_isa_name, "instruction set (the best there is)"),
    OPTION_TEXT("--svg", svg, "file for a chart: bars of time by op, share of the peak beside; "
                              "or the study's lines"),
    OPTION_MODE("--study", study, "--tokens-max,--budget", "--threads,--isa,--svg",
                "every mixer that has a fused form, as one layer, 384 wide, 6 heads, one "
                "sequence: a table of time and FLOPs"),
    OPTION_WHOLE("--tokens-max", tokens_max, 256, 65536,
                 "the study's longest sequence; it begins with 256 and doubles (16384)"),
    OPTION_REAL("--budget", budget, 0, 3600,
                "seconds of measuring for each time in the study (1)"),
};
static const mixer_option of_mixer[] = { { "--inner-steps", "inner_steps" } };
static const program this_program = {
    .name = "profile",
    .purpose = "where a vision transformer's time goes, op by op",
    .rows = option_rows,
    .n_rows = COUNT(option_rows),
};

// ---- the run ------------------------------------------------------------------------------------
typedef struct {
    options o;
    ttt_ctx *c;
    ttt_params params;
    ttt_vit_desc vit;
    ttt_optimizer *opt;
    ttt_tensor *images, *target;
} run;

static void make_model(run *r) {
    const options *o = &r->o;
    ttt_real *rates = ttt_alloc(r->c, (size_t)o->inner_steps * sizeof *rates, true);
    need_ok(r->c, "--inner-steps");
    for (int i = 0; i < o->inner_steps; i++) rates[i] = 1;
    ttt_vit_desc d = { .image = o->image, .channels = 1, .patch = o->patch, .width = o->width,
                       .depth = o->depth, .classes = 10 };
    d.mixer = (ttt_mixer_desc){ .heads = o->heads, .inner_steps = (int)o->inner_steps,
                                .inner_lrs = rates, .no_fused = o->no_fused };
    d.mixer = ttt_mixer_offer(ttt_mixer_find(o->mixer), &d.mixer);
    ttt_optimizer_desc rule = { .lr = (ttt_real)1e-3, .weight_decay = (ttt_real)0.05, .clip = 1 };
    ttt_vit_new(r->c, &d, &r->params, "");
    r->vit = d;
    r->opt = ttt_optimizer_new(r->c, &rule, &r->params);
    need_ok(r->c, "the model cannot be built");
    int64_t B = o->batch, *label = ttt_alloc(r->c, (size_t)B * sizeof *label, false);
    for (int64_t i = 0; label && i < B; i++) label[i] = i % 10;
    r->images = ttt_randn(r->c, TTT_SHAPE(B, d.image, d.image, 1));
    r->target = ttt_one_hot(r->c, ttt_from_int(r->c, TTT_SHAPE(label ? B : 0), label), 10);
    need_ok(r->c, "the images cannot be made");
}

static void step(run *r) {
    ttt_mark m = ttt_mark_get(r->c);
    bool recording = ttt_set_recording(r->c, !r->o.infer);
    ttt_weights w = ttt_params_weights(&r->params);
    ttt_tensor *logits = ttt_vit_forward(r->c, &r->vit, w, r->images, NULL);
    if (!r->o.infer) ttt_optimizer_step(r->c, r->opt, ttt_cross_entropy(r->c, logits, r->target));
    ttt_set_recording(r->c, recording);
    need_ok(r->c, "a step");
    ttt_mark_release(r->c, m);
}

// ---- the chart ----------------------------------------------------------------------------------
enum { MOST_ROWS = 400, MOST_BARS = 16, PHASES = 3 };

static double total(const chart_bar *b) { return b->value[0] + b->value[1] + b->value[2]; }

// One bar an op, its phases and rules together; the last bar has all the smaller ops.
static void draw(run *r, const ttt_limits *peak, const char *title) {
    static ttt_profile_row row[MOST_ROWS], sum[MOST_BARS + 1];
    static double ms[MOST_BARS + 1][PHASES];
    static char notes[MOST_BARS + 1][64];
    static chart_bar bars[MOST_BARS + 1];
    const char *parts[PHASES] = { "forward", "recorded: gradients of inner steps", "backward" };
    const char *colors[PHASES] = { COLOR_GRAY, COLOR_INNER, COLOR_OUTER };
    int n_rows = ttt_profile_rows(r->c, row, MOST_ROWS), n = 0;
    double whole = 0, steps = (double)r->o.steps;
    for (int i = 0; i < n_rows && i < MOST_ROWS; i++) {
        int k = 0;
        while (k < n && strcmp(sum[k].name, row[i].name) != 0) k++;
        if (k == n) sum[k].name = n < MOST_BARS ? row[i].name : "the rest";
        if (k == n && n < MOST_BARS) n++;
        sum[k].seconds += row[i].seconds;
        sum[k].flops += row[i].flops;
        sum[k].bytes += row[i].bytes;
        ms[k][row[i].phase] += 1e3 * row[i].seconds / steps;
        whole += row[i].seconds;
    }
    if (sum[n].seconds > 0) n++;
    for (int k = 0; k < n; k++) {
        const char *bound;
        double share = ttt_profile_share(&sum[k], peak, &bound);
        snprintf(notes[k], sizeof notes[k], "%.3g ms, %.0f %%", 1e3 * sum[k].seconds / steps,
                 100 * sum[k].seconds / whole);
        chart_bar bar = { .name = sum[k].name, .value = ms[k], .note = notes[k],
                          .meter = *bound ? share : -1, .meter_note = bound };
        int at = k;
        for (; at > 0 && k < MOST_BARS && total(&bars[at - 1]) < total(&bar); at--)
            bars[at] = bars[at - 1];
        bars[at] = bar;
    }
    bar_chart chart = { .title = title, .x_label = "milliseconds of a step",
                        .meter_label = "share of the peak, and what bounds it",
                        .parts = parts, .colors = colors, .n_parts = PHASES,
                        .bars = bars, .n = n };
    bar_chart_write(r->c, r->o.svg, &chart);
    need_ok(r->c, "--svg");
}

// ---- the study ----------------------------------------------------------------------------------
// One layer alone: its time without and with gradients against the number of tokens, and which
// share of it the machine would need at its best: for its FLOPs, as its definition counts them (a
// fused form may make fewer), and for the bytes that go into and out of its ops.
enum { STUDY_D = 384, STUDY_H = 6, LENGTHS = 9, LAYERS = 64, PASSES = 2, SAMPLES = 100 };

typedef struct {
    double seconds, flops, bytes;  // of one run
    int samples;
} cost;
typedef struct {
    char name[64];
    ttt_mixer_desc d;
    cost at[LENGTHS][PASSES];
    double tokens[LENGTHS], y[PASSES][LENGTHS], limit[PASSES][LENGTHS];
} layer;
typedef struct {
    run *r;
    layer item[LAYERS];
    int n, lengths;
    ttt_limits peak;  // of all threads
} study_of;

// special: the case in which both are the same layer. One step from W0 = 0 without norm and bias
// leaves nothing of the learner but sums over the tokens: linear attention without its map, and
// that is what is run.
static void add_layer(study_of *s, const ttt_mixer *m, bool special) {
    if (s->n == LAYERS || !m->fused) return;  // else one would measure the tape
    layer *l = &s->item[s->n++];
    l->d = (ttt_mixer_desc){ .dim = STUDY_D, .heads = STUDY_H, .inner_lr = 1, .zero_w0 = special,
                             .no_decoder_norm = special, .no_inner_bias = special,
                             .identity_map = special,
                             .normalizer = special ? TTT_NORMALIZER_CONSTANT
                                                   : TTT_NORMALIZER_ADAPTIVE };
    l->d = ttt_mixer_offer(m, &l->d);
    const char *which = !special ? "" : m->learner ? ", W0 = 0" : ", identity";
    snprintf(l->name, sizeof l->name, "%.40s%s", m->name, which);
}

static void measure_peak(study_of *s) {
    ttt_limits now = ttt_measure_limits(s->r->c);
    s->peak.flops = fmax(s->peak.flops, now.flops * ttt_threads(s->r->c));
    s->peak.bytes = fmax(s->peak.bytes, now.bytes * ttt_threads(s->r->c));
}

typedef struct {
    ttt_weights w;
    ttt_tensor *x, *dy, *wrt[64];
    int n;
} inputs;

static double one_run(study_of *s, const layer *l, const inputs *in, bool gradients) {
    ttt_ctx *c = s->r->c;
    ttt_tensor *g[64];
    double begin = ttt_seconds();
    ttt_mark m = ttt_mark_get(c);
    bool recording = ttt_set_recording(c, gradients);
    ttt_tensor *y = ttt_mixer_forward(c, &l->d, in->w, in->x, NULL);
    if (gradients) ttt_vjp(c, y, in->dy, in->wrt, in->n, g, TTT_GRAD_FIRST_ORDER);
    ttt_set_recording(c, recording);
    ttt_mark_release(c, m);
    need_ok(s->r->c, l->name);
    return ttt_seconds() - begin;
}

// The median of as many runs as the budget allows, three at least if that is within ten budgets.
// One run goes before, to warm up, and one comes after, under the profiler, for the bytes.
static cost measure(study_of *s, const layer *l, const inputs *in, int64_t N, bool gradients) {
    static ttt_profile_row row[MOST_ROWS];
    double sample[SAMPLES], spent = 0;
    cost m = { .flops = l->d.mixer->flops(&l->d, N) * (gradients ? 3 : 1) };
    one_run(s, l, in, gradients);
    while (m.samples < 1 ||
           (m.samples < SAMPLES && spent < s->r->o.budget * (m.samples < 3 ? 10 : 1)))
        spent += sample[m.samples++] = one_run(s, l, in, gradients);
    qsort(sample, (size_t)m.samples, sizeof *sample, by_value);
    m.seconds = sample[m.samples / 2];
    ttt_profile_clear(s->r->c);
    ttt_profile_start(s->r->c);
    one_run(s, l, in, gradients);
    ttt_profile_stop(s->r->c);
    int rows = ttt_profile_rows(s->r->c, row, MOST_ROWS);
    for (int i = 0; i < rows && i < MOST_ROWS; i++) m.bytes += row[i].bytes;
    return m;
}

static void measure_layer(study_of *s, layer *l) {
    ttt_ctx *c = s->r->c;
    ttt_params p = { 0 };
    inputs in = { .w = ttt_mixer_new(c, &l->d, &p, l->name) };
    need_ok(s->r->c, l->name);
    if (p.n >= COUNT(in.wrt))
        die("%s has %d parameters, more than this program holds", l->name, p.n);
    for (int i = 0; i < p.n; i++)  // W0 = 0 is declared: a constant
        if (!l->d.zero_w0 || !(p.item[i].flags & TTT_PARAM_INNER)) in.wrt[in.n++] = p.value[i];
    int last = in.n++;  // x comes last
    for (int i = 0; i < s->lengths; i++) {
        int64_t N = (int64_t)256 << i;
        ttt_mark m = ttt_mark_get(c);
        in.wrt[last] = in.x = ttt_randn(c, TTT_SHAPE(1, N, STUDY_D));
        l->tokens[i] = (double)N;
        in.dy = ttt_randn(c, TTT_SHAPE(1, N, STUDY_D));
        for (int gradients = 0; gradients < PASSES; gradients++) {
            status_line("%-24s %6lld tokens, %s", l->name, (long long)N,
                        gradients ? "with gradients" : "forward");
            l->at[i][gradients] = measure(s, l, &in, N, gradients);
        }
        ttt_mark_release(c, m);
        measure_peak(s);
    }
}

static void print_study(const study_of *s) {
    int least = SAMPLES, most = 0;
    puts("| layer | tokens | GFLOP | forward, ms | us a token | of peak | of memory "
         "| with gradients, ms | us a token | of peak | of memory |\n"
         "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (int k = 0; k < s->n; k++)
        for (int i = 0; i < s->lengths; i += 2) {  // the figure has them all
            const layer *l = &s->item[k];
            printf("| %s | %.0f | %.3g |", l->name, l->tokens[i], 1e-9 * l->at[i][0].flops);
            for (int g = 0; g < PASSES; g++) {
                const cost *m = &l->at[i][g];
                int digits = m->seconds < 0.1 ? 2 : m->seconds < 1 ? 1 : 0;
                printf(" %.*f | %.1f | %.0f %% | %.0f %% |", digits, 1e3 * m->seconds,
                       1e6 * m->seconds / l->tokens[i],
                       100 * m->flops / m->seconds / s->peak.flops,
                       100 * m->bytes / m->seconds / s->peak.bytes);
                if (m->samples < least) least = m->samples;
                if (m->samples > most) most = m->samples;
            }
            puts("");
        }
    int threads = ttt_threads(s->r->c);
    printf("\nOne layer, %d wide, %d heads, one sequence, one inner step; medians of %d to %d "
           "runs. ", STUDY_D, STUDY_H, least, most);
    printf("Peak: %.1f GFLOP/s on %d thread%s (%s); memory: %.1f GB/s.\n", 1e-9 * s->peak.flops,
           threads, threads > 1 ? "s" : "", ttt_isa(s->r->c), 1e-9 * s->peak.bytes);
    puts("GFLOP: of the forward pass, as the definition counts them; three times that with "
         "gradients. Of peak, of memory: the share of the time that they, and the bytes that go "
         "into and out of the ops, take at the machine's best.");
}

static void draw_study(study_of *s) {
    static chart_series lines[PASSES][LAYERS];
    chart_panel panels[PASSES];
    char title[120];
    for (int g = 0; g < PASSES; g++) {
        for (int k = 0; k < s->n; k++) {
            layer *l = &s->item[k];
            for (int i = 0; i < s->lengths; i++) {
                l->y[g][i] = 1e6 * l->at[i][g].seconds / l->tokens[i];
                l->limit[g][i] = 1e6 * l->at[i][g].flops / s->peak.flops / l->tokens[i];
            }
            lines[g][k] = (chart_series){ .name = l->name, .x = l->tokens, .y = l->y[g],
                                          .n = s->lengths, .limit = l->limit[g],
                                          .color = color_of(l->d.mixer->name),
                                          .broad = l->d.zero_w0 || l->d.identity_map };
        }
        panels[g] = (chart_panel){ g ? "training: forward and gradients" : "inference: forward",
                                   "tokens", "microseconds a token", lines[g], s->n, true };
    }
    snprintf(title, sizeof title, "Time (solid), and FLOPs at the peak of %.0f GFLOP/s (dashed)",
             1e-9 * s->peak.flops);
    line_chart chart = { title, panels, PASSES, PASSES };
    line_chart_write(s->r->c, s->r->o.svg, &chart);
    need_ok(s->r->c, "--svg");
    printf("\nwritten: %s\n", s->r->o.svg);
}

static void study(run *r) {
    static study_of s;
    s.r = r;
    while (s.lengths < LENGTHS && 256 << s.lengths <= r->o.tokens_max) s.lengths++;
    for (int i = 0; ttt_mixer_at(i); i++) add_layer(&s, ttt_mixer_at(i), false);
    add_layer(&s, &ttt_mixer_mttt_linear, true);
    add_layer(&s, &ttt_mixer_linear_attention, true);
    for (int i = 0; i < 3; i++) measure_peak(&s);
    for (int k = 0; k < s.n; k++) measure_layer(&s, &s.item[k]);
    status_clear();
    print_study(&s);
    if (r->o.svg) draw_study(&s);
    ttt_close(r->c);
}

int main(int argc, char **argv) {
    static run r;
    char title[200];
    r.o = (options){ .mixer = "mttt-mlp", .inner_steps = 1, .image = 28, .patch = 4, .width = 48,
                     .depth = 2, .heads = 3, .batch = 64, .steps = 10, .rows = 24, .threads = 1,
                     .tokens_max = 16384, .budget = 1 };
    const options *o = &r.o;
    read_options(argc, argv, &r.o);
    ttt_desc machine = { .seed = 1, .isa = o->isa, .threads = thread_count(o->threads) };
    r.c = open_or_die(&machine);
    if (o->study) return study(&r), 0;
    check_mixer_options(ttt_mixer_find(o->mixer), of_mixer, COUNT(of_mixer), argc, argv);
    make_model(&r);
    for (int i = 0; i < 2; i++) step(&r);
    ttt_profile_start(r.c);
    for (int i = 0; i < o->steps; i++) step(&r);
    ttt_profile_stop(r.c);

    ttt_limits peak = ttt_measure_limits(r.c);
    int threads = ttt_threads(r.c);
    printf("machine: %s, %.1f GFLOP/s and %.1f GB/s a thread, %d thread%s\n", ttt_isa(r.c),
           1e-9 * peak.flops, 1e-9 * peak.bytes, threads, threads > 1 ? "s" : "");
    peak.flops *= threads;
    peak.bytes *= threads;
    snprintf(title, sizeof title,
             "%.40s, a %s: %lld x %lld tokens, width %lld, depth %lld, %lld heads", o->mixer,
             o->infer ? "forward pass" : "training step", o->batch,
             (long long)ttt_vit_tokens(&r.vit), o->width, o->depth, o->heads);
    printf("profile: %s; mean of %lld\n\n%s", title, o->steps,
           ttt_profile_text(r.c, &peak, o->steps, (int)o->rows));
    need_ok(r.c, "the table");
    if (o->svg) {
        draw(&r, &peak, title);
        printf("\nwritten: %s\n", o->svg);
    }
    ttt_close(r.c);
    return 0;
}
