// train.c - the main job: train a vision transformer whose token mixers learn at test time.
//
//     cc -O2 -o train examples/train.c -lm && ./train
//
// It finds images by itself (Fashion-MNIST if it is installed, else a set it draws), trains, tests,
// and leaves model.safetensors, log.jsonl, curves.svg and inner_loss.svg in out/. The options are
// listed by ./train --help.
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "example.h"

#include <errno.h>
#include <signal.h>

// ---- options ------------------------------------------------------------------------------------
// A default of -1 is chosen by the data set.
typedef struct {
    // What defines a run: checkpoints remember it, and a resumed run must have the same.
    const char *data, *mixer;
    long long inner_steps, decoder_ln, train_w0;
    double inner_lr;
    bool inner_sgd, causal, muon;
    long long chunk, window, globals, compressed, kernel, neighbors;
    long long width, depth, heads, patch;
    long long steps, epochs, batch, warmup, accum, seed;
    double lr, wd, mixup, clip;
    // The rest.
    long long threads;
    const char *out;
    bool resume, list;
} options;

static const option option_rows[] = {
    OPTION_TEXT("--data", data, "folder with the four IDX files, or 'embedded' for the drawn set"),
    OPTION_CHOICE("--mixer", mixer, mixer_name, "how tokens see each other (mttt-mlp)"),
    OPTION_WHOLE("--inner-steps", inner_steps, 1, 1000000000,
                 "gradient steps of the inner learner (1)"),
    OPTION_REAL("--inner-lr", inner_lr, 0, 1000, "their rate (1)"),
    OPTION_FLAG("--inner-sgd", inner_sgd,
                "shuffled mini-batches of tokens, one a step, not all tokens at every step"),
    OPTION_WHOLE("--decoder-ln", decoder_ln, 0, 1,
                 "layer norm on the reconstruction: 0 or 1 (1)"),
    OPTION_WHOLE("--train-w0", train_w0, 0, 1,
                 "train the learner's starting weights: 0 or 1 (1)"),
    OPTION_FLAG("--causal", causal,
                "a token sees only itself and those before it, where a mixer has a choice"),
    OPTION_WHOLE("--chunk", chunk, 0, 1e9,
                 "tokens that a causal memory takes at once, 0 for its default (0)"),
    OPTION_WHOLE("--window", window, 0, 1e9,
                 "longformer: tokens seen to each side, 0 for a third of the grid (0)"),
    OPTION_WHOLE("--globals", globals, 0, 1024,
                 "longformer: tokens that see and are seen by all (1 with it, else 0)"),
    OPTION_WHOLE("--compressed", compressed, 0, 1e9,
                 "linformer: keys left, 0 for a quarter (0)"),
    OPTION_WHOLE("--kernel", kernel, 0, 2,
                 "nadaraya-watson: 0 exponential, 1 Gaussian, 2 of the nearest keys alone (1)"),
    OPTION_WHOLE("--neighbors", neighbors, 0, 1e9,
                 "nadaraya-watson: how many are nearest, 0 for 8 (0)"),
    OPTION_FLAG("--muon", muon, "lact: orthogonalize its updates"),
    OPTION_WHOLE("--width", width, 4, 4096,
                 "features of a token, divisible by --heads and by 4 (48)"),
    OPTION_WHOLE("--depth", depth, 1, 100, "blocks (2)"),
    OPTION_WHOLE("--heads", heads, 1, 256, "heads of a mixer (3)"),
    OPTION_WHOLE("--patch", patch, 1, 1024,
                 "side of the square that makes a token; divides the image (4)"),
    OPTION_WHOLE("--steps", steps, 1, 1e9, "updates (7000; 3000 with the drawn set)"),
    OPTION_WHOLE("--epochs", epochs, 1, 1e6,
                 "instead of --steps: passes over the training images"),
    OPTION_WHOLE("--batch", batch, 1, 65536, "images a gradient (128; 64 with the drawn set)"),
    OPTION_REAL("--lr", lr, 1e-9, 100, "peak rate of AdamW (0.003)"),
    OPTION_REAL("--wd", wd, 0, 100, "weight decay (0.05)"),
    OPTION_WHOLE("--warmup", warmup, 0, 1e9,
                 "updates of linear warm-up before the cosine (a twentieth of --steps)"),
    OPTION_REAL("--mixup", mixup, 0, 100, "parameter of mixup, 0 for none (0)"),
    OPTION_WHOLE("--accum", accum, 1, 65536,
                 "batches whose gradients are averaged for one update (1)"),
    OPTION_REAL("--clip", clip, 0, 1e9, "largest norm of the gradient, 0 for any (1)"),
    OPTION_WHOLE("--seed", seed, 0, 9e15, "of everything random (1)"),
    OPTION_WHOLE("--threads", threads, 0, TTT_MAX_THREADS,
                 "0: one for each CPU it may use; the result is the same (0)"),
    OPTION_TEXT("--out", out, "folder for what the run leaves (out)"),
    OPTION_FLAG("--resume", resume, "go on where the run in --out was interrupted"),
    OPTION_MODE("--list", list, "", "", "print the mixers and stop"),
};
static const program this_program = {
    .name = "train",
    .purpose = "a vision transformer whose token mixers learn at test time learns to classify",
    .rows = option_rows,
    .n_rows = COUNT(option_rows),
    .notes =
        "Without --data it looks into $TTT_DATA, ./data and /usr/share/datasets/fashion-mnist for\n"
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and\n"
        "t10k-labels-idx1-ubyte, plain or .gz, and takes the drawn set if none has them.",
};

// Those of them that set an option of the mixer.
static const mixer_option of_mixer[] = {
    { "--inner-steps", "inner_steps" }, { "--inner-lr", "inner_lr" },
    { "--inner-sgd", "inner_sgd" }, { "--decoder-ln", "no_decoder_norm" },
    { "--causal", "causal" }, { "--chunk", "chunk" }, { "--window", "window" },
    { "--globals", "globals" }, { "--compressed", "compressed" }, { "--kernel", "kernel" },
    { "--neighbors", "neighbors" }, { "--muon", "muon" },
};

static bool defines_run(const option *row) { return row->at < offsetof(options, threads); }

// ---- data ---------------------------------------------------------------------------------------
typedef struct {
    const char *name;
    ttt_images train, test;
    long long steps, batch;  // what suits it
} dataset;

static void load_folder(ttt_ctx *c, dataset *d, const char *dir) {
    ttt_images_load_idx(c, dir, "train", 10, &d->train);
    if (ttt_images_load_idx(c, dir, "t10k", 10, &d->test) != TTT_OK) die("%s", ttt_error(c));
    int side = d->train.height;
    if (d->train.width != side || d->test.height != side || d->test.width != side)
        die("%s: images are %d x %d and %d x %d; square images of one size expected", dir,
            d->train.height, d->train.width, d->test.height, d->test.width);
    d->name = dir;
    d->steps = 7000;
    d->batch = 128;
}

static void draw_images(ttt_ctx *c, dataset *d) {
    ttt_images_draw(c, 2310, 0, 20000, &d->train);
    if (ttt_images_draw(c, 2310, 1000000, 5000, &d->test) != TTT_OK) die("%s", ttt_error(c));
    d->name = "embedded";
    d->steps = 3000;
    d->batch = 64;
}

// A folder that was named must have the files; a guessed one without them is passed over, and the
// program says so.
static void find_data(ttt_ctx *c, dataset *d, const char *named) {
    static const char *const guesses[] = { "data", "/usr/share/datasets/fashion-mnist" };
    const char *variable = getenv("TTT_DATA");
    if (!named && variable && *variable) named = variable;
    if (named && strcmp(named, "embedded") == 0) {
        draw_images(c, d);
    } else if (named) {
        load_folder(c, d, named);
    } else {
        for (int i = 0; i < 2 && !d->name; i++) {
            const char *missing = ttt_images_missing_idx(c, guesses[i]), *dir = guesses[i];
            if (!missing) load_folder(c, d, dir);
            else printf("passing over %s: %s: not there, and not with .gz either\n", dir, missing);
        }
        if (!d->name) draw_images(c, d);
    }
    bool drawn = strcmp(d->name, "embedded") == 0;
    printf("data: %s, %lld training and %lld test images of %d x %d\n",
           drawn ? "embedded (drawn from a seed)" : d->name, (long long)d->train.count,
           (long long)d->test.count, d->train.height, d->train.width);
}

// ---- the run ------------------------------------------------------------------------------------
enum { N_RECORDS = 100, N_PROBE = 64 };
enum { MAX_LAYERS = 100 };  // as --depth allows

// What the log and the charts show: a column for each of at most N_RECORDS moments of the run.
typedef struct {
    int n;
    double step[N_RECORDS + 2], loss[N_RECORDS + 2];
    double accuracy[N_RECORDS + 2], test_accuracy[N_RECORDS + 2];
    double silent[MAX_LAYERS];  // the inner loss of a learner that answers nothing
    int inner_losses;  // of each layer: inner steps + 1; 0 if its mixer does not learn
    double *inner;     // of each layer and step, see inner_loss
} history;

// The row of all moments for a layer's loss after t inner steps.
static double *inner_loss(const history *h, int layer, int t) {
    return h->inner + ((size_t)layer * (size_t)h->inner_losses + (size_t)t) * (N_RECORDS + 2);
}

typedef struct {
    options o;
    dataset data;
    ttt_ctx *c;
    ttt_params params;
    ttt_vit_desc vit;
    ttt_optimizer *opt;
    ttt_batches *train, *test, *probe;  // probe: test images at which inner losses are measured
    history h;
    double loss_sum, right, seen, weight;  // since the last record; weight: batches
    double start, seconds_before;          // when this run began; what it took until interrupted
    FILE *log;
} run;

static volatile sig_atomic_t interrupted;
static void on_interrupt(int signal) {
    (void)signal;
    interrupted = 1;
}

static double seconds(const run *r) { return r->seconds_before + ttt_seconds() - r->start; }

static long long steps_done(const run *r) { return r->opt->updates + r->opt->skipped; }

// The path of a file in --out, until the next call.
static const char *path_in(const options *o, const char *name) {
    static char path[1200];
    snprintf(path, sizeof path, "%s/%s", o->out, name);
    return path;
}

static void open_context(run *r) {
    ttt_desc machine = { .seed = (uint64_t)r->o.seed, .threads = thread_count(r->o.threads) };
    r->c = open_or_die(&machine);
}

// Room for `n` things that lives as long as the run.
static void *kept(run *r, int64_t n, size_t size) {
    void *room = ttt_alloc(r->c, (size_t)n * size, true);
    need_ok(r->c, "--inner-steps");
    return room;
}

static void make_model(run *r) {
    const options *o = &r->o;
    ttt_real *rates = (ttt_real *)kept(r, o->inner_steps, sizeof *rates);
    for (int i = 0; i < o->inner_steps; i++) rates[i] = (ttt_real)o->inner_lr;
    r->vit = (ttt_vit_desc){ .image = r->data.train.height, .channels = r->data.train.channels,
                       .classes = r->data.train.classes, .patch = o->patch, .width = o->width,
                       .depth = o->depth };
    ttt_mixer_desc d = { .heads = o->heads, .inner_steps = (int)o->inner_steps, .inner_lrs = rates,
                         .kernel = (ttt_attention_kernel)o->kernel };
    d = ttt_mixer_offer(ttt_mixer_find(o->mixer), &d);
    d.inner_sgd = o->inner_sgd;  // from here on zero unless the user gave them
    d.no_decoder_norm = o->decoder_ln == 0;
    d.causal = o->causal;
    d.chunk = o->chunk;
    d.window = o->window;
    d.globals = o->globals;
    d.compressed = o->compressed;
    d.neighbors = o->neighbors;
    d.muon = o->muon;
    r->vit.mixer = d;
    ttt_optimizer_desc rule = { .lr = (ttt_real)o->lr, .weight_decay = (ttt_real)o->wd,
                                .clip = (ttt_real)o->clip, .warmup = o->warmup, .total = o->steps,
                                .accumulate = (int)o->accum, .freeze_inner = o->train_w0 == 0 };
    ttt_vit_new(r->c, &r->vit, &r->params, "");
    r->opt = ttt_optimizer_new(r->c, &rule, &r->params);
    need_ok(r->c, "the model cannot be built");
    history *h = &r->h;
    h->inner_losses = d.mixer->learner ? (int)o->inner_steps + 1 : 0;
    int64_t rows = (int64_t)h->inner_losses * o->depth;
    h->inner = (double *)kept(r, rows * (N_RECORDS + 2), sizeof *h->inner);
}

static void open_batches(run *r) {
    ttt_batches_desc b = { .images = &r->data.train, .seed = (uint64_t)r->o.seed,
                           .batch = (int)r->o.batch, .shuffle = true, .drop_last = true };
    ttt_batches_desc test = { .images = &r->data.test, .batch = 100 };
    if (b.batch > r->data.train.count)
        die("--batch %d: there are only %lld training images", b.batch,
            (long long)r->data.train.count);
    for (int i = 0; i < r->data.train.channels; i++)
        b.norm.mean[i] = b.norm.std[i] = 0.5f;  // pixels to [-1,1]
    test.norm = b.norm;
    r->train = ttt_batches_new(r->c, &b);
    r->test = ttt_batches_new(r->c, &test);
    test.batch = N_PROBE;
    r->probe = ttt_batches_new(r->c, &test);
    need_ok(r->c, "the batches");
}

static ttt_tensor *forward(const run *r, ttt_tensor *images, ttt_vit_call *call) {
    return ttt_vit_forward(r->c, &r->vit, ttt_params_weights(&r->params), images, call);
}

// One update: `accum` batches forwards and backwards.
static void train_step(run *r) {
    ttt_mark m = ttt_mark_get(r->c);
    for (int a = 0; a < (int)r->o.accum; a++) {
        ttt_tensor *x = NULL, *y = NULL;
        int64_t n = ttt_batches_next(r->c, r->train, &x, &y);
        if (n == 0) n = ttt_batches_next(r->c, r->train, &x, &y);  // the epoch ended
        ttt_tensor *target = ttt_one_hot(r->c, y, r->data.train.classes);
        ttt_mixup(r->c, ttt_ctx_rng(r->c), r->o.mixup, &x, &target);
        ttt_tensor *logits = forward(r, x, NULL), *loss = ttt_cross_entropy(r->c, logits, target);
        ttt_optimizer_step(r->c, r->opt, loss);
        need_ok(r->c, "training");
        r->loss_sum += (double)ttt_item(loss);
        r->right += (double)ttt_count_correct(logits, y);
        r->seen += (double)n;
        r->weight += 1;
        ttt_mark_release(r->c, m);
    }
}

// The share of right answers for the first `limit` test images. What it draws at random does not
// disturb training.
static double test_accuracy(run *r, int64_t limit) {
    ttt_rng rng = *ttt_ctx_rng(r->c);
    int64_t right = 0, seen = 0;
    ttt_batches_seek(r->c, r->test, 0, 0);
    bool recording = ttt_set_recording(r->c, false);
    while (seen < limit && !(interrupted > 1)) {
        ttt_mark m = ttt_mark_get(r->c);
        ttt_tensor *x, *y;
        int64_t n = ttt_batches_next(r->c, r->test, &x, &y);
        if (n > 0) right += ttt_count_correct(forward(r, x, NULL), y);
        seen += n;
        ttt_mark_release(r->c, m);
        need_ok(r->c, "testing");
        if (n == 0) break;
    }
    ttt_set_recording(r->c, recording);
    *ttt_ctx_rng(r->c) = rng;
    return (double)right / (double)seen;
}

// Inner losses of every layer on the first test images, into column `at` of the history.
static void probe_inner(run *r, int at) {
    ttt_vit_call call = { .want_losses = true };
    ttt_rng rng = *ttt_ctx_rng(r->c);
    ttt_tensor *x;
    if (r->h.inner_losses == 0) return;
    ttt_mark m = ttt_mark_get(r->c);
    bool recording = ttt_set_recording(r->c, false);
    ttt_batches_seek(r->c, r->probe, 0, 0);
    ttt_batches_next(r->c, r->probe, &x, NULL);
    forward(r, x, &call);
    ttt_set_recording(r->c, recording);
    need_ok(r->c, "looking at inner losses");
    for (int l = 0; l < (int)r->o.depth; l++)
        for (int t = 0; t < r->h.inner_losses; t++)
            inner_loss(&r->h, l, t)[at] = (double)call.losses[l]->data[t];
    ttt_mark_release(r->c, m);
    *ttt_ctx_rng(r->c) = rng;
}

// Whether a parameter of the block stands in the way of an answer that is zero: the weights of the
// learner, and the norm of its answer, which would give zeros the size of anything else.
static bool speaks(const ttt_param *p, const char *block) {
    bool norm = strstr(p->name, "decoder_LN/") || strstr(p->name, "ttt_norm/");
    return strstr(p->name, block) && (norm || (p->flags & TTT_PARAM_INNER));
}

// To compare with: each layer's inner loss if its learner answers nothing.
static void probe_silent(run *r) {
    ttt_rng rng = *ttt_ctx_rng(r->c);
    ttt_mark m = ttt_mark_get(r->c);
    ttt_weights w = ttt_params_weights(&r->params), zero = w;
    ttt_tensor *x, **at = ttt_alloc(r->c, (size_t)w.n * sizeof *at, false);
    ttt_batches_seek(r->c, r->probe, 0, 0);
    ttt_batches_next(r->c, r->probe, &x, NULL);
    need_ok(r->c, "looking at inner losses");
    bool recording = ttt_set_recording(r->c, false);
    for (int l = 0; l < (int)r->o.depth && r->h.inner_losses; l++) {
        char block[40];
        snprintf(block, sizeof block, "encoderblock_%d/", l);
        for (int i = 0; i < w.n; i++)
            at[i] = speaks(&r->params.item[i], block) ? ttt_zeros(r->c, w.at[i]->shape) : w.at[i];
        zero.at = at;
        ttt_vit_call call = { .want_losses = true };
        ttt_vit_forward(r->c, &r->vit, zero, x, &call);
        need_ok(r->c, "looking at inner losses");
        r->h.silent[l] = (double)call.losses[l]->data[0];
    }
    ttt_set_recording(r->c, recording);
    ttt_mark_release(r->c, m);
    *ttt_ctx_rng(r->c) = rng;
}

// ---- showing and keeping ------------------------------------------------------------------------
static void write_record(FILE *f, const history *h, int i, int layers) {
    fprintf(f, "{\"event\":\"step\",\"step\":%.0f,\"loss\":%.6g,\"accuracy\":%.6g,", h->step[i],
            h->loss[i], h->accuracy[i]);
    fprintf(f, "\"test_accuracy\":%.6g,\"inner_loss\":[", h->test_accuracy[i]);
    for (int l = 0; l < layers && h->inner_losses; l++) {
        fprintf(f, l ? ",[" : "[");
        for (int t = 0; t < h->inner_losses; t++)
            fprintf(f, t ? ",%.6g" : "%.6g", inner_loss(h, l, t)[i]);
        fprintf(f, "]");
    }
    fprintf(f, "]}\n");
}

// What was written to the log must be there, for a run that is interrupted now.
static void check_log(run *r) {
    if (fflush(r->log) != 0 || ferror(r->log))
        die("%s cannot be written: %s", path_in(&r->o, "log.jsonl"), strerror(errno));
}

// Records where the run is: in the history, as a line of log.jsonl, and as a line of the output if
// that does not show progress.
static void record(run *r) {
    history *h = &r->h;
    int i = h->n++;
    h->step[i] = (double)steps_done(r);
    h->loss[i] = r->loss_sum / r->weight;
    h->accuracy[i] = r->right / r->seen;
    h->test_accuracy[i] = test_accuracy(r, 500);
    probe_inner(r, i);
    r->loss_sum = r->right = r->seen = r->weight = 0;
    write_record(r->log, h, i, (int)r->o.depth);
    check_log(r);
    if (isatty(1) && isatty(2)) return;
    printf("step %6lld of %lld  loss %.4f  accuracy %5.1f %%  on test images %5.1f %%  %.0f s\n",
           steps_done(r), r->o.steps, h->loss[i], 100 * h->accuracy[i], 100 * h->test_accuracy[i],
           seconds(r));
    fflush(stdout);
}

// Shows the means since the last record, or those of a record that has just been made.
static void show_progress(const run *r, progress *p) {
    const history *h = &r->h;
    char what[80];
    double loss = r->weight > 0 ? r->loss_sum / r->weight : h->loss[h->n - 1];
    double accuracy = r->seen > 0 ? r->right / r->seen : h->accuracy[h->n - 1];
    snprintf(what, sizeof what, "epoch %lld  loss %.4f  accuracy %5.1f %%",
             (long long)r->train->epoch, loss, 100 * accuracy);
    progress_show(p, steps_done(r), what);
}

static void draw_curves(run *r) {
    const history *h = &r->h;
    chart_series loss = { .name = "training batches", .x = h->step, .y = h->loss, .n = h->n };
    chart_series accuracy[2] = { loss, loss };
    accuracy[0].y = h->accuracy;
    accuracy[1].y = h->test_accuracy;
    accuracy[1].name = "500 test images";
    chart_panel panels[2] = { { "loss", "step", "cross-entropy", &loss, 1, false },
                              { "accuracy", "step", "share right", accuracy, 2, false } };
    line_chart chart = { r->o.mixer, panels, 2, 2 };
    line_chart_write(r->c, path_in(&r->o, "curves.svg"), &chart);
}

// A panel for each layer, and in it a curve for the loss after each number of inner steps; in gray
// that of a learner that answers nothing, at the end.
static void draw_inner_losses(run *r) {
    enum { NAMED = 9 };  // curves of a legend, at most
    static char names[NAMED][32], titles[MAX_LAYERS][32];
    static chart_panel panels[MAX_LAYERS];
    const history *h = &r->h;
    int T = h->inner_losses - 1, depth = (int)r->o.depth;
    int64_t n = (int64_t)(h->inner_losses + 1) * depth;
    chart_series *curves = (chart_series *)kept(r, n, sizeof *curves);
    double *level = (double *)kept(r, (int64_t)depth * h->n, sizeof *level);
    for (int t = 1; t < T && T < NAMED; t++)
        snprintf(names[t], sizeof names[t], "after step %d", t);
    if (T < NAMED) strcpy(names[T], "after the last step");
    strcpy(names[0], "before step 1");
    for (int l = 0; l < depth; l++) {
        chart_series *of_layer = curves + (int64_t)l * (h->inner_losses + 1);
        double *silent = level + (int64_t)l * h->n;
        for (int i = 0; i < h->n; i++) silent[i] = h->silent[l];
        for (int t = 0; t <= T; t++)
            of_layer[t] = (chart_series){ .name = T < NAMED - 1 ? names[t] : NULL, .x = h->step,
                                          .y = inner_loss(h, l, t), .n = h->n };
        of_layer[T + 1] = (chart_series){ .name = "silent", .x = h->step,
                                          .y = silent, .n = h->n, .color = COLOR_GRAY };
        snprintf(titles[l], sizeof titles[l], "layer %d", l + 1);
        panels[l] = (chart_panel){ titles[l], "step of the outer loop", "inner loss", of_layer,
                                   T + 2, false };
    }
    line_chart chart = { "Inner loss while the outer loop trains", panels, depth, 3 };
    line_chart_write(r->c, path_in(&r->o, "inner_loss.svg"), &chart);
}

// ---- interrupting and resuming ------------------------------------------------------------------
// The model remembers the options that made it; a whole checkpoint also the moments and where the
// run is.
static void save_checkpoint(run *r, const char *name, bool whole) {
    const struct { const char *key; double value; } where[] = {
        { "epoch", (double)r->train->epoch }, { "position", (double)r->train->position },
        { "loss_sum", r->loss_sum }, { "right", r->right }, { "seen", r->seen },
        { "weight", r->weight }, { "seconds", seconds(r) } };
    char text[COUNT(option_rows) + COUNT(where)][32];
    ttt_note notes[COUNT(option_rows) + COUNT(where)];
    int64_t n = 0;
    for (int i = 0; i < COUNT(option_rows); i++) {
        const option *row = &option_rows[i];
        if (!defines_run(row)) continue;
        notes[n] = (ttt_note){ row->name + 2, option_get(row, &r->o, text[n]) };
        n++;
    }
    for (int i = 0; whole && i < COUNT(where); i++, n++) {
        snprintf(text[n], sizeof text[n], "%.17g", where[i].value);
        notes[n] = (ttt_note){ where[i].key, text[n] };
    }
    ttt_checkpoint_save(r->c, path_in(&r->o, name), &r->params, whole ? r->opt : NULL, notes, n);
    need_ok(r->c, "saving");
}

static double note_number(const ttt_bundle *b, const char *key) {
    const char *text = ttt_bundle_note(b, key);
    if (!text) die("the checkpoint has no note '%s'; was it written by this program?", key);
    return strtod(text, NULL);
}

// Takes the options from the checkpoint's notes, and reads the command line again over them: what
// then differs from a note is an error.
static void restore_options(options *o, int argc, char **argv) {
    ttt_ctx *c = open_or_die(NULL);
    const char *path = path_in(o, "checkpoint.safetensors");
    char room[2][32];
    ttt_bundle b;
    FILE *there = fopen(path, "rb");
    if (!there && errno == ENOENT)
        die("--resume: there is no %s: a run leaves one if it is interrupted and removes it when "
            "it has finished", path);
    if (there) fclose(there);
    ttt_safetensors_read(c, path, &b);
    need_ok(c, "--resume");
    for (int i = 0; i < COUNT(option_rows); i++) {
        const option *row = &option_rows[i];
        if (!defines_run(row)) continue;
        const char *note = ttt_bundle_note(&b, row->name + 2);
        if (!note)
            die("--resume: %s was not written by this program: it has no note '%s'", path,
                row->name + 2);
        option_put(row, o, strcpy(malloc(strlen(note) + 1), note));
    }
    const options saved = *o;
    read_options(argc, argv, o);
    for (int i = 0; i < COUNT(option_rows); i++) {
        const option *row = &option_rows[i];
        const char *then = option_get(row, &saved, room[0]), *now = option_get(row, o, room[1]);
        if (defines_run(row) && strcmp(now, then) != 0)
            die("--resume: the run in %s has %s %s", o->out, row->name, then);
    }
    ttt_close(c);
}

// The log's records up to the checkpoint become the history again; those after it are done again.
static void restore_log(run *r) {
    static const char format[] = "{\"event\":\"step\",\"step\":%lf,\"loss\":%lf,\"accuracy\":%lf,"
                                 "\"test_accuracy\":%lf,\"inner_loss\":[%n";
    history *h = &r->h;
    size_t size = 256 + 32 * (size_t)h->inner_losses * (size_t)r->o.depth;
    char *line = (char *)kept(r, (int64_t)size, 1);
    FILE *f = fopen(path_in(&r->o, "log.jsonl"), "rb");
    for (int i = 0; f && i < N_RECORDS + 1 && fgets(line, (int)size, f); i++) {
        int length = 0;
        int n = sscanf(line, format, &h->step[i], &h->loss[i], &h->accuracy[i],
                       &h->test_accuracy[i], &length);
        if (n != 4 || h->step[i] > (double)steps_done(r)) break;
        char *p = line + length;
        for (int l = 0; l < (int)r->o.depth; l++)
            for (int t = 0; t < h->inner_losses; t++) {
                p += strspn(p, "[],");
                inner_loss(h, l, t)[i] = strtod(p, &p);
            }
        h->n = i + 1;
    }
    if (f) fclose(f);
}

static void resume(run *r) {
    ttt_mark m = ttt_mark_get(r->c);
    ttt_bundle b;
    ttt_checkpoint_load(r->c, path_in(&r->o, "checkpoint.safetensors"), &r->params, r->opt, &b);
    need_ok(r->c, "--resume");
    r->loss_sum = note_number(&b, "loss_sum");
    r->right = note_number(&b, "right");
    r->seen = note_number(&b, "seen");
    r->weight = note_number(&b, "weight");
    r->seconds_before = note_number(&b, "seconds");
    int64_t epoch = (int64_t)note_number(&b, "epoch");
    int64_t position = (int64_t)note_number(&b, "position");
    ttt_batches_seek(r->c, r->train, epoch, position);
    need_ok(r->c, "--resume");
    ttt_mark_release(r->c, m);
    restore_log(r);
    printf("resuming at step %lld of %lld\n", steps_done(r), r->o.steps);
}

// Makes the folder, after those above it that are missing. What prevents one shows in the last.
static int make_folders(const char *path) {
    char above[1200];
    for (int i = 1; path[i] && i < (int)sizeof above; i++)
        if (path[i] == '/') {
            snprintf(above, sizeof above, "%.*s", i, path);
            (void)!make_folder(above);
        }
    return make_folder(path);
}

static void open_output(run *r) {
    const char *path = path_in(&r->o, "log.jsonl");
    if (make_folders(r->o.out) != 0 && errno != EEXIST)
        die("--out '%s': cannot make this folder: %s", r->o.out, strerror(errno));
    r->log = fopen(path, "wb");
    if (!r->log) die("--out '%s': cannot write %s: %s", r->o.out, path, strerror(errno));
    for (int i = 0; i < r->h.n; i++)
        write_record(r->log, &r->h, i, (int)r->o.depth);
    check_log(r);
}

// ---- the whole ----------------------------------------------------------------------------------
static void train(run *r) {
    long long steps = r->o.steps, first = steps_done(r);
    long long every = (steps + N_RECORDS - 1) / N_RECORDS;  // from record to record
    progress p = { first, steps, (double)(r->o.batch * r->o.accum), "images", 0, 0 };
    if (every < 1) every = 1;
    if (steps >= 20 && every < steps / 20) every = steps / 20;
    r->start = ttt_seconds();
    for (long long step = first; step < steps && !interrupted; step++) {
        train_step(r);
        if ((step + 1) % every == 0 || step + 1 == steps) record(r);
        show_progress(r, &p);
    }
    status_clear();
}

static void print_results(run *r, double accuracy) {
    const history *h = &r->h;
    int64_t all = ttt_params_count(&r->params, 0);
    int64_t inner = ttt_params_count(&r->params, TTT_PARAM_INNER);
    double n = (double)r->data.test.count, deviation = sqrt(accuracy * (1 - accuracy) / n);
    int threads = ttt_threads(r->c);
    printf("\n  mixer               %s\n", r->o.mixer);
    printf("  test accuracy       %.2f %% +- %.2f (binomial, %.0f images)\n", 100 * accuracy,
           100 * deviation, n);
    for (int l = 0; l < (int)r->o.depth && h->inner_losses && h->n; l++)
        printf("  inner loss layer %-2d %.4f before the inner steps, %.4f after; silent: %.4f\n",
               l + 1, inner_loss(h, l, 0)[h->n - 1],
               inner_loss(h, l, h->inner_losses - 1)[h->n - 1], h->silent[l]);
    printf("  parameters          %lld outer, %lld inner (starting weights of the learners)\n",
           (long long)(all - inner), (long long)inner);
    printf("  FLOPs per image     %.2f M forward\n", ttt_vit_flops(&r->vit) / 1e6);
    printf("  peak memory         %.1f MB\n", (double)ttt_memory(r->c).peak / 1e6);
    if (r->opt->skipped)
        printf("  skipped updates     %lld (their gradient was not finite)\n",
               (long long)r->opt->skipped);
    printf("  time                %.1f s on %d thread%s, %s\n", seconds(r), threads,
           threads > 1 ? "s" : "", ttt_isa(r->c));
}

static void finish(run *r) {
    double accuracy = test_accuracy(r, r->data.test.count);
    save_checkpoint(r, "model.safetensors", false);
    draw_curves(r);
    if (r->h.inner_losses) {
        probe_silent(r);
        draw_inner_losses(r);
    }
    need_ok(r->c, "charts");
    print_results(r, accuracy);
    fprintf(r->log, "{\"event\":\"done\",\"mixer\":\"%s\",\"dataset\":\"", r->o.mixer);
    for (const char *p = r->data.name; *p; p++)
        fprintf(r->log, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
    fprintf(r->log, "\",\"test_accuracy\":%.6f,\"seconds\":%.1f,\"peak_bytes\":%zu}\n", accuracy,
            seconds(r), ttt_memory(r->c).peak);
    check_log(r);
    if (fclose(r->log) != 0) die("%s: %s", path_in(&r->o, "log.jsonl"), strerror(errno));
    remove(path_in(&r->o, "checkpoint.safetensors"));
    printf("  written             %s/{model.safetensors, log.jsonl, curves.svg%s}\n", r->o.out,
           r->h.inner_losses ? ", inner_loss.svg" : "");
}

static void fill_defaults(options *o, const dataset *d) {
    if (o->epochs > 0 && o->steps > 0)
        die("--steps and --epochs both say how long to train; give one");
    if (o->batch < 0) o->batch = d->batch;
    long long batches = o->epochs * (d->train.count / o->batch);
    if (o->epochs > 0) o->steps = (batches + o->accum - 1) / o->accum;
    if (o->steps < 0) o->steps = d->steps;
    if (o->steps < 1) o->steps = 1;
    if (o->globals < 0) o->globals = ttt_mixer_takes(ttt_mixer_find(o->mixer), "globals");
    if (o->warmup < 0) o->warmup = o->steps / 20;
    if (o->warmup >= o->steps)
        die("--warmup %lld must be below the number of steps, %lld", o->warmup, o->steps);
    o->data = d->name;
}

int main(int argc, char **argv) {
    static run r;
    r.o = (options){ .mixer = "mttt-mlp", .inner_steps = 1, .inner_lr = 1, .decoder_ln = 1,
                     .train_w0 = 1, .globals = -1, .kernel = 1, .width = 48, .depth = 2, .heads = 3,
                     .patch = 4, .steps = -1, .epochs = -1, .batch = -1, .warmup = -1, .accum = 1,
                     .seed = 1, .lr = 3e-3, .wd = 0.05, .clip = 1, .out = "out" };
    read_options(argc, argv, &r.o);
    if (r.o.list) {
        for (int i = 0; mixer_name(i); i++) puts(mixer_name(i));
        return 0;
    }
    if (r.o.resume) restore_options(&r.o, argc, argv);
    check_mixer_options(ttt_mixer_find(r.o.mixer), of_mixer, COUNT(of_mixer), argc, argv);
    open_context(&r);
    find_data(r.c, &r.data, r.o.data);
    if (!r.o.resume) fill_defaults(&r.o, &r.data);
    make_model(&r);
    if (option_given("--train-w0", argc, argv) && !ttt_params_count(&r.params, TTT_PARAM_INNER))
        die("--train-w0 has no effect: --mixer %s has no starting weights", r.o.mixer);
    open_batches(&r);
    if (r.o.resume) resume(&r);
    open_output(&r);
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    train(&r);
    if (interrupted) {
        bool named = strcmp(r.o.out, "out") != 0;
        save_checkpoint(&r, "checkpoint.safetensors", true);
        printf("interrupted at step %lld; to go on: ./train --resume%s%s\n", steps_done(&r),
               named ? " --out " : "", named ? r.o.out : "");
        return 130;
    }
    finish(&r);
    ttt_close(r.c);
    return 0;
}
