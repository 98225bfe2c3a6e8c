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
// FLOPs (about a quarter of an hour). What softmax would need more than 5e11 FLOPs for is left out.
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
                "every mixer, as one layer, 384 wide, 6 heads, one sequence: a table of time and "
                "FLOPs"),
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
enum { LENGTHS = 9, LAYERS = 64, PASSES = 2, SAMPLES = 100 };

typedef struct {
    double seconds, flops, bytes;  // of one run; 0: not measured
    int samples;
} cost;
typedef struct {
    char name[64];
    ttt_mixer_desc d;  // for the longest sequence
    bool special, causal;
    cost at[LENGTHS][PASSES];
    double tokens[LENGTHS], y[PASSES][LENGTHS], limit[PASSES][LENGTHS];
} layer;
typedef struct {
    run *r;
    const ttt_desc *machine;
    layer item[LAYERS];
    int n, lengths;
    ttt_limits peak;  // of all threads
} study_of;

// The case in which both are the same layer: one step from W0 = 0 without norm and bias leaves
// nothing of the learner but sums over the tokens, linear attention without its map.
static void add_special(study_of *s, const ttt_mixer *m, const char *name) {
    layer *l = &s->item[s->n++];
    ttt_mixer_desc d = { .dim = LAYER_WIDTH, .heads = LAYER_HEADS, .inner_lr = 1, .zero_w0 = true,
                         .no_decoder_norm = true, .no_inner_bias = true, .identity_map = true,
                         .normalizer = TTT_NORMALIZER_CONSTANT };
    l->d = ttt_mixer_offer(m, &d);
    l->special = true;
    snprintf(l->name, sizeof l->name, "%s", name);
}
static void add_layers(study_of *s) {
    int64_t longest = (int64_t)256 << (s->lengths - 1);
    while (s->n < LAYERS - 2 &&
           family_at(s->n, longest, s->item[s->n].name, &s->item[s->n].d)) {
        layer *l = &s->item[s->n++];
        l->causal = l->d.causal || l->d.mixer->flags & TTT_MIXER_CAUSAL;
    }
    add_special(s, &ttt_mixer_mttt_linear, "mttt-linear, W0 = 0");
    add_special(s, &ttt_mixer_linear_attention, "linear-attention, identity");
}

static void measure_peak(study_of *s) {
    ttt_limits now = ttt_measure_limits(s->r->c);
    s->peak.flops = fmax(s->peak.flops, now.flops * ttt_threads(s->r->c));
    s->peak.bytes = fmax(s->peak.bytes, now.bytes * ttt_threads(s->r->c));
}

static double one_run(const layer_run *r, bool gradients) {
    double begin = ttt_seconds();
    layer_step(r, gradients);
    return ttt_seconds() - begin;
}

// The median of as many runs as the budget allows, three at least if that is within ten budgets.
// One run goes before, to warm up, and one comes after, under the profiler, for the bytes.
static cost measure(const layer_run *r, double budget, double flops, bool gradients) {
    static ttt_profile_row row[MOST_ROWS];
    double sample[SAMPLES], spent = 0;
    cost m = { .flops = flops };
    one_run(r, gradients);
    while (m.samples < 1 || (m.samples < SAMPLES && spent < budget * (m.samples < 3 ? 10 : 1)))
        spent += sample[m.samples++] = one_run(r, gradients);
    qsort(sample, (size_t)m.samples, sizeof *sample, by_value);
    m.seconds = sample[m.samples / 2];
    ttt_profile_clear(r->c);
    ttt_profile_start(r->c);
    one_run(r, gradients);
    ttt_profile_stop(r->c);
    int rows = ttt_profile_rows(r->c, row, MOST_ROWS);
    for (int i = 0; i < rows && i < MOST_ROWS; i++) m.bytes += row[i].bytes;
    return m;
}

static void measure_layer(study_of *s, int k, int i) {
    layer *l = &s->item[k];
    char name[64];
    ttt_mixer_desc d = l->d;
    int64_t N = (int64_t)256 << i;
    l->tokens[i] = (double)N;
    if (!l->special) family_at(k, N, name, &d);
    for (int gradients = 0; gradients < PASSES; gradients++) {
        double flops = layer_flops(&d, N, 1, gradients);
        if (flops > LAYER_FLOPS_MOST) continue;
        status_line("%-26s %6lld tokens, %s", l->name, (long long)N,
                    gradients ? "with gradients" : "forward");
        layer_run r;
        ttt_ctx *c = open_or_die(s->machine);
        layer_open(&r, c, &d, N, 1);
        l->at[i][gradients] = measure(&r, s->r->o.budget, flops, gradients);
        ttt_close(c);
    }
}

static void print_cost(const cost *m, double tokens, const ttt_limits *peak) {
    if (m->samples == 0) {
        printf(" - | - | - | - |");
        return;
    }
    int digits = m->seconds < 0.1 ? 2 : m->seconds < 1 ? 1 : 0;
    printf(" %.*f | %.1f | %.0f %% | %.0f %% |", digits, 1e3 * m->seconds,
           1e6 * m->seconds / tokens, 100 * m->flops / m->seconds / peak->flops,
           100 * m->bytes / m->seconds / peak->bytes);
}

static void print_study(const study_of *s) {
    int least = SAMPLES, most = 0;
    puts("| layer | tokens | GFLOP | forward, ms | us a token | of peak | of memory "
         "| with gradients, ms | us a token | of peak | of memory |\n"
         "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (int k = 0; k < s->n; k++)
        for (int i = 0; i < s->lengths; i += 2) {  // the figure has them all
            const layer *l = &s->item[k];
            if (l->at[i][0].samples == 0) continue;
            printf("| %s | %.0f | %.3g |", l->name, l->tokens[i], 1e-9 * l->at[i][0].flops);
            for (int g = 0; g < PASSES; g++) {
                int samples = l->at[i][g].samples;
                print_cost(&l->at[i][g], l->tokens[i], &s->peak);
                if (samples && samples < least) least = samples;
                if (samples > most) most = samples;
            }
            puts("");
        }
    int threads = ttt_threads(s->r->c);
    printf("\nOne layer, %d wide, %d heads, one sequence, one inner step; medians of %d to %d "
           "runs. ", LAYER_WIDTH, LAYER_HEADS, least, most);
    printf("Peak: %.1f GFLOP/s on %d thread%s (%s); memory: %.1f GB/s.\n", 1e-9 * s->peak.flops,
           threads, threads > 1 ? "s" : "", ttt_isa(s->r->c), 1e-9 * s->peak.bytes);
    puts("GFLOP: of the forward pass, as the definition counts them; three times that with "
         "gradients. Of peak, of memory: the share of the time that they, and the bytes that go "
         "into and out of the ops, take at the machine's best.");
}

// The lines of the layers that are causal, or of the others, in pass g; what was not measured is 0,
// which logarithmic axes leave out. Variants of a mixer share its color.
static int study_lines(study_of *s, bool causal, int g, chart_series *lines) {
    int n = 0;
    for (int k = 0; k < s->n; k++) {
        layer *l = &s->item[k];
        if (l->causal != causal) continue;
        for (int i = 0; i < s->lengths; i++) {
            l->y[g][i] = 1e6 * l->at[i][g].seconds / l->tokens[i];
            l->limit[g][i] = 1e6 * l->at[i][g].flops / s->peak.flops / l->tokens[i];
        }
        lines[n++] = (chart_series){ .name = l->name, .x = l->tokens, .y = l->y[g],
                                     .n = s->lengths, .limit = l->limit[g],
                                     .color = color_of(l->d.mixer->name),
                                     .broad = strcmp(l->name, l->d.mixer->name) && !l->d.causal };
    }
    return n;
}
static void draw_study(study_of *s) {
    static chart_series lines[2 * PASSES][LAYERS];
    static const char *const titles[] = {
        "inference: forward", "training: forward and gradients",
        "inference, causal", "training, causal",
    };
    chart_panel panels[2 * PASSES];
    char title[120];
    for (int i = 0; i < 2 * PASSES; i++)
        panels[i] = (chart_panel){ titles[i], "tokens", "microseconds a token", lines[i],
                                   study_lines(s, i / PASSES, i % PASSES, lines[i]), true };
    snprintf(title, sizeof title, "Time (solid), and FLOPs at the peak of %.0f GFLOP/s (dashed)",
             1e-9 * s->peak.flops);
    line_chart chart = { title, panels, 2 * PASSES, PASSES };
    line_chart_write(s->r->c, s->r->o.svg, &chart);
    need_ok(s->r->c, "--svg");
    printf("\nwritten: %s\n", s->r->o.svg);
}

static void study(run *r, const ttt_desc *machine) {
    static study_of s;
    s.r = r;
    s.machine = machine;
    while (s.lengths < LENGTHS && 256 << s.lengths <= r->o.tokens_max) s.lengths++;
    add_layers(&s);
    for (int i = 0; i < 3; i++) measure_peak(&s);
    for (int k = 0; k < s.n; k++) {
        for (int i = 0; i < s.lengths; i++) measure_layer(&s, k, i);
        measure_peak(&s);
    }
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
    if (o->study) return study(&r, &machine), 0;
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
