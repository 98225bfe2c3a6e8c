// train.c - the main job: a vision transformer whose token mixers learn at test time learns to classify.
//
//     cc -O2 -o train examples/train.c -lm && ./train
//
// It finds images by itself (Fashion-MNIST if it is installed, else a set it draws), trains, tests, and
// leaves model.safetensors, log.jsonl, curves.svg and inner_loss.svg in out/. ./train --help has the rest.
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <time.h>
#ifdef _WIN32
#include <direct.h>
#include <io.h>
#define isatty _isatty
#define make_folder(path) _mkdir(path)
#else
#include <sys/stat.h>
#include <unistd.h>
#define make_folder(path) mkdir(path, 0777)
#endif

// ---- options -------------------------------------------------------------------------------------
// One row an option; parsing, checking, --help and what a checkpoint remembers all come from the rows.
// A default of -1 is chosen by the data set.
typedef struct {
    const char *data, *mixer, *out;
    double inner_steps, inner_lr, inner_sgd, decoder_ln, train_w0;
    double causal, chunk, window, globals, compressed, kernel, neighbors, muon;
    double width, depth, heads, patch;
    double steps, epochs, batch, lr, wd, warmup, mixup, accum, clip;
    double seed, threads, list, resume, help;
} options;

typedef enum { TEXT, WHOLE, REAL, FLAG } kind;
typedef struct {
    const char *name;
    kind kind;
    size_t offset;
    double lo, hi;       // allowed values
    int defines_run;     // a resumed run must have the same
    const char *meaning;
} option;

#define AT(field) offsetof(options, field)
static const option all_options[] = {
    { "--data", TEXT, AT(data), 0, 0, 1, "folder with the four IDX files, or 'embedded' for the drawn set" },
    { "--mixer", TEXT, AT(mixer), 0, 0, 1, "how tokens see each other; --list names them (mttt-mlp)" },
    { "--inner-steps", WHOLE, AT(inner_steps), 1, 64, 1, "gradient steps of the inner learner (1)" },
    { "--inner-lr", REAL, AT(inner_lr), 0, 1000, 1, "their rate (1)" },
    { "--inner-sgd", FLAG, AT(inner_sgd), 0, 1, 1, "shuffled mini-batches of tokens, one a step, not all tokens at every step" },
    { "--decoder-ln", WHOLE, AT(decoder_ln), 0, 1, 1, "layer norm on the reconstruction: 0 or 1 (1)" },
    { "--train-w0", WHOLE, AT(train_w0), 0, 1, 1, "train the learner's starting weights: 0 or 1 (1)" },
    { "--causal", FLAG, AT(causal), 0, 1, 1, "a token sees only itself and those before it, where a mixer has a choice" },
    { "--chunk", WHOLE, AT(chunk), 0, 1e9, 1, "tokens that a causal memory takes at once, 0 for its default (0)" },
    { "--window", WHOLE, AT(window), 0, 1e9, 1, "longformer: tokens seen to each side, 0 for a third of the grid (0)" },
    { "--globals", WHOLE, AT(globals), 0, 1024, 1, "longformer: tokens that see and are seen by all (1 with it, else 0)" },
    { "--compressed", WHOLE, AT(compressed), 0, 1e9, 1, "linformer: keys left, 0 for a quarter (0)" },
    { "--kernel", WHOLE, AT(kernel), 0, 2, 1, "nadaraya-watson: 0 exponential, 1 Gaussian, 2 of the nearest keys alone (1)" },
    { "--neighbors", WHOLE, AT(neighbors), 0, 1e9, 1, "nadaraya-watson: how many are nearest, 0 for 8 (0)" },
    { "--muon", FLAG, AT(muon), 0, 1, 1, "lact: orthogonalize its updates" },
    { "--width", WHOLE, AT(width), 4, 4096, 1, "features of a token, divisible by --heads and by 4 (48)" },
    { "--depth", WHOLE, AT(depth), 1, 100, 1, "blocks (2)" },
    { "--heads", WHOLE, AT(heads), 1, 256, 1, "heads of a mixer (3)" },
    { "--patch", WHOLE, AT(patch), 1, 1024, 1, "side of the square that makes a token; divides the image (4)" },
    { "--steps", WHOLE, AT(steps), 1, 1e9, 1, "updates; fixed for each data set" },
    { "--epochs", WHOLE, AT(epochs), 1, 1e6, 1, "instead of --steps: passes over the training images" },
    { "--batch", WHOLE, AT(batch), 1, 65536, 1, "images a gradient; fixed for each data set" },
    { "--lr", REAL, AT(lr), 1e-9, 100, 1, "peak rate of AdamW; fixed for each data set" },
    { "--wd", REAL, AT(wd), 0, 100, 1, "weight decay (0.05)" },
    { "--warmup", WHOLE, AT(warmup), 0, 1e9, 1, "updates of linear warm-up before the cosine (a twentieth of --steps)" },
    { "--mixup", REAL, AT(mixup), 0, 100, 1, "parameter of mixup, 0 for none (0)" },
    { "--accum", WHOLE, AT(accum), 1, 65536, 1, "batches whose gradients are averaged for one update (1)" },
    { "--clip", REAL, AT(clip), 0, 1e9, 1, "largest norm of the gradient, 0 for any (1)" },
    { "--seed", WHOLE, AT(seed), 0, 9e15, 1, "of everything random (1)" },
    { "--threads", WHOLE, AT(threads), 0, TTT_MAX_THREADS, 0, "0: all the machine has; the result is the same (0)" },
    { "--out", TEXT, AT(out), 0, 0, 0, "folder for what the run leaves (out)" },
    { "--resume", FLAG, AT(resume), 0, 1, 0, "go on where the run in --out was interrupted" },
    { "--list", FLAG, AT(list), 0, 1, 0, "print the mixers and stop" },
    { "--help", FLAG, AT(help), 0, 1, 0, "print this and stop" },
};
enum { N_OPTIONS = sizeof all_options / sizeof *all_options };

static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "train: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

static double *number_of(options *o, const option *row) { return (double *)(void *)((char *)o + row->offset); }
static const char **text_of(options *o, const option *row) { return (const char **)(void *)((char *)o + row->offset); }

static const option *find_option(const char *name) {
    for (int i = 0; i < N_OPTIONS; i++)
        if (strcmp(all_options[i].name, name) == 0) return &all_options[i];
    return NULL;
}

static void set_option(options *o, const option *row, const char *text) {
    if (row->kind == TEXT) {
        if (!*text) die("%s is empty; %s expected", row->name, row->meaning);
        *text_of(o, row) = text;
        return;
    }
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= row->lo && v <= row->hi) || (row->kind != REAL && v != floor(v)))
        die("%s '%s'; a %snumber from %g to %g expected: %s", row->name, text, row->kind == REAL ? "" : "whole ", row->lo, row->hi, row->meaning);
    *number_of(o, row) = v;
}

// Marks in given[] the options that stood on the command line.
static void parse(int argc, char **argv, options *o, bool *given) {
    for (int i = 1; i < argc; i++) {
        const option *row = find_option(argv[i]);
        if (!row) die("unknown option '%s'; --help lists them", argv[i]);
        given[row - all_options] = true;
        if (row->kind == FLAG) {
            *number_of(o, row) = 1;
            continue;
        }
        if (i + 1 == argc) die("%s needs a value: %s", row->name, row->meaning);
        set_option(o, row, argv[++i]);
    }
}

static void print_help(void) {
    puts("train - a vision transformer whose token mixers learn at test time learns to classify\n");
    for (int i = 0; i < N_OPTIONS; i++)
        printf("  %-14s %-6s %s\n", all_options[i].name, all_options[i].kind == FLAG ? "" : all_options[i].kind == TEXT ? "TEXT" : "NUMBER", all_options[i].meaning);
    puts("\nWithout --data it looks into $TTT_DATA, ./data and /usr/share/datasets/fashion-mnist for\n"
         "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and\n"
         "t10k-labels-idx1-ubyte, plain or .gz, and takes the drawn set if none has them.");
}

static void print_mixers(void) {
    for (int i = 0; ttt_mixer_at(i); i++) puts(ttt_mixer_at(i)->name);
}

// ---- data ----------------------------------------------------------------------------------------
typedef struct {
    const char *name;
    ttt_images train, test;
    double steps, batch, lr;  // what suits it
} dataset;

static void load_folder(ttt_ctx *c, dataset *d, const char *dir) {
    ttt_images_load_idx(c, dir, "train", 10, &d->train);
    if (ttt_images_load_idx(c, dir, "t10k", 10, &d->test) != TTT_OK) die("%s", ttt_error(c));
    if (d->train.height != d->train.width || d->test.height != d->train.height || d->test.width != d->train.width)
        die("%s: images are %d x %d and %d x %d; square images of one size expected", dir, d->train.height, d->train.width, d->test.height, d->test.width);
    d->name = dir;
    d->steps = 7000;
    d->batch = 128;
    d->lr = 3e-3;
}

static void draw_images(ttt_ctx *c, dataset *d) {
    ttt_images_draw(c, 2310, 0, 20000, &d->train);
    if (ttt_images_draw(c, 2310, 1000000, 5000, &d->test) != TTT_OK) die("%s", ttt_error(c));
    d->name = "embedded";
    d->steps = 3000;
    d->batch = 64;
    d->lr = 3e-3;
}

// A place that was named must have the files; one that was only guessed is passed over with a word.
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
    printf("data: %s, %lld training and %lld test images of %d x %d\n", strcmp(d->name, "embedded") == 0 ? "embedded (drawn from a seed)" : d->name,
           (long long)d->train.count, (long long)d->test.count, d->train.height, d->train.width);
}

// ---- the run -------------------------------------------------------------------------------------
enum { N_RECORDS = 100, N_PROBE = 64, MAX_LAYERS = 100, MAX_STEPS = 65 };

// What the charts show: a column for each of at most N_RECORDS moments of the run.
typedef struct {
    int n;
    double step[N_RECORDS + 2], loss[N_RECORDS + 2], accuracy[N_RECORDS + 2], test_accuracy[N_RECORDS + 2];
    double inner[MAX_LAYERS][MAX_STEPS][N_RECORDS + 2];
} history;

typedef struct {
    options o;
    dataset data;
    ttt_ctx *c;
    ttt_params params;
    ttt_vit *vit;
    ttt_optimizer *opt;
    ttt_batches *train, *test, *probe;  // probe: test images at which inner losses are measured
    int inner_losses;  // of each layer: steps + 1, or 0
    history h;
    double loss_sum, right, seen, weight;  // since the last record
    double seconds_before, start, last_shown;
    FILE *log;
    bool terminal;
} run;

static volatile sig_atomic_t interrupted;
static void on_interrupt(int signal) {
    (void)signal;
    interrupted = 1;
}

static double now(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double seconds(const run *r) { return r->seconds_before + now() - r->start; }

static const char *path_in(const run *r, const char *name) {
    static char path[1200];
    snprintf(path, sizeof path, "%s/%s", r->o.out, name);
    return path;
}

static void need_ok(run *r, const char *doing) {
    if (!ttt_ok(r->c)) die("%s: %s", doing, ttt_error(r->c));
}

static void open_context(run *r) {
    int threads = r->o.threads > 0 ? (int)r->o.threads : TTT_ALL_THREADS;
    r->c = ttt_open(&(ttt_desc){ .seed = (uint64_t)r->o.seed, .threads = threads });
    if (!r->c) die("out of memory");
}

static void make_model(run *r) {
    ttt_vit_desc d = { .image = r->data.train.height, .channels = r->data.train.channels, .patch = (int64_t)r->o.patch,
                       .width = (int64_t)r->o.width, .depth = (int64_t)r->o.depth, .classes = r->data.train.classes };
    ttt_optimizer_desc o = { .lr = (ttt_real)r->o.lr, .weight_decay = (ttt_real)r->o.wd, .warmup = (int64_t)r->o.warmup, .total = (int64_t)r->o.steps,
                             .accumulate = (int)r->o.accum, .freeze_inner = r->o.train_w0 == 0, .clip = (ttt_real)r->o.clip };
    static ttt_real rates[MAX_STEPS];
    for (int i = 0; i < MAX_STEPS; i++) rates[i] = (ttt_real)r->o.inner_lr;
    d.mixer = (ttt_mixer_desc){ .mixer = ttt_mixer_find(r->o.mixer), .heads = (int64_t)r->o.heads, .inner_steps = (int)r->o.inner_steps,
                                .inner_lrs = rates, .inner_sgd = r->o.inner_sgd != 0, .no_decoder_norm = r->o.decoder_ln == 0,
                                .causal = r->o.causal != 0, .chunk = (int64_t)r->o.chunk, .window = (int64_t)r->o.window, .globals = (int64_t)r->o.globals,
                                .compressed = (int64_t)r->o.compressed, .kernel = (ttt_attention_kernel)r->o.kernel, .neighbors = (int64_t)r->o.neighbors, .muon = r->o.muon != 0 };
    r->vit = ttt_vit_new(r->c, &d, &r->params);
    r->opt = r->vit ? ttt_optimizer_new(r->c, &r->params, &o) : NULL;
    need_ok(r, "the model cannot be built");
    r->inner_losses = d.mixer.mixer->learner ? d.mixer.inner_steps + 1 : 0;
}

static void open_batches(run *r) {
    ttt_batches_desc b = { .images = &r->data.train, .seed = (uint64_t)r->o.seed, .batch = (int)r->o.batch,
                           .shuffle = true, .drop_last = true };
    ttt_batches_desc test = { .images = &r->data.test, .batch = 100 };
    if (b.batch > r->data.train.count) die("--batch %d: there are only %lld training images", b.batch, (long long)r->data.train.count);
    for (int i = 0; i < r->data.train.channels; i++) b.norm.mean[i] = b.norm.std[i] = 0.5f;  // pixels to [-1,1]
    test.norm = b.norm;
    r->train = ttt_batches_new(r->c, &b);
    r->test = ttt_batches_new(r->c, &test);
    test.batch = N_PROBE;
    r->probe = ttt_batches_new(r->c, &test);
    need_ok(r, "the batches");
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
        ttt_tensor *logits = ttt_vit_forward(r->c, r->vit, x, NULL), *loss = ttt_cross_entropy(r->c, logits, target);
        ttt_optimizer_step(r->c, r->opt, loss);
        need_ok(r, "training");
        r->loss_sum += (double)ttt_item(loss);
        r->right += (double)ttt_count_correct(logits, y);
        r->seen += (double)n;
        r->weight += 1;
        ttt_mark_release(r->c, m);
    }
}

// Right answers among the first `limit` test images. What it draws at random does not disturb training.
static double test_accuracy(run *r, int64_t limit) {
    ttt_rng rng = *ttt_ctx_rng(r->c);
    int64_t right = 0, seen = 0;
    ttt_batches_seek(r->c, r->test, 0, 0);
    bool recording = ttt_set_recording(r->c, false);
    while (seen < limit && !(interrupted > 1)) {
        ttt_mark m = ttt_mark_get(r->c);
        ttt_tensor *x, *y;
        int64_t n = ttt_batches_next(r->c, r->test, &x, &y);
        if (n > 0) right += ttt_count_correct(ttt_vit_forward(r->c, r->vit, x, NULL), y);
        seen += n;
        ttt_mark_release(r->c, m);
        need_ok(r, "testing");
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
    if (r->inner_losses == 0) return;
    ttt_mark m = ttt_mark_get(r->c);
    bool recording = ttt_set_recording(r->c, false);
    ttt_batches_seek(r->c, r->probe, 0, 0);
    ttt_batches_next(r->c, r->probe, &x, NULL);
    ttt_vit_forward(r->c, r->vit, x, &call);
    ttt_set_recording(r->c, recording);
    need_ok(r, "looking at inner losses");
    for (int l = 0; l < (int)r->o.depth; l++)
        for (int t = 0; t < r->inner_losses; t++) r->h.inner[l][t][at] = (double)call.losses[l]->data[t];
    ttt_mark_release(r->c, m);
    *ttt_ctx_rng(r->c) = rng;
}

// ---- showing and keeping -------------------------------------------------------------------------
static void write_record(FILE *f, const history *h, int i, int layers, int inner_losses) {
    fprintf(f, "{\"event\":\"step\",\"step\":%.0f,\"loss\":%.6g,\"accuracy\":%.6g,\"test_accuracy\":%.6g,\"inner_loss\":[", h->step[i], h->loss[i], h->accuracy[i], h->test_accuracy[i]);
    for (int l = 0; l < layers && inner_losses; l++)
        for (int t = 0; t < inner_losses; t++) fprintf(f, "%s%.6g%s", t ? "," : l ? ",[" : "[", h->inner[l][t][i], t + 1 == inner_losses ? "]" : "");
    fprintf(f, "]}\n");
    fflush(f);
}

// A record of where the run stands: into the history, and as a line of log.jsonl.
static void record(run *r) {
    history *h = &r->h;
    int i = h->n++;
    h->step[i] = (double)r->opt->updates + (double)r->opt->skipped;
    h->loss[i] = r->loss_sum / r->weight;
    h->accuracy[i] = r->right / r->seen;
    h->test_accuracy[i] = test_accuracy(r, 500);
    probe_inner(r, i);
    r->loss_sum = r->right = r->seen = r->weight = 0;
    write_record(r->log, h, i, (int)r->o.depth, r->inner_losses);
    if (!r->terminal) printf("step %6.0f of %.0f  loss %.4f  accuracy %5.1f %%  on test images %5.1f %%  %.0f s\n", h->step[i], r->o.steps, h->loss[i],
                             100 * h->accuracy[i], 100 * h->test_accuracy[i], seconds(r));
    fflush(stdout);
}

static void show_progress(run *r, int64_t step, int64_t first, bool last) {
    double t = now(), spent = t - r->start, done = (double)(step - first);
    if (!r->terminal || (!last && t - r->last_shown < 0.1)) return;
    double rate = done / spent, left = ((double)r->o.steps - (double)step) / rate;
    r->last_shown = t;
    printf("\repoch %lld  step %lld of %.0f  loss %.4f  accuracy %5.1f %%  %.0f images/s  %.0f s left   ", (long long)r->train->epoch, (long long)step, r->o.steps,
           r->weight ? r->loss_sum / r->weight : r->h.loss[r->h.n - 1], 100 * (r->seen ? r->right / r->seen : r->h.accuracy[r->h.n - 1]),
           rate * r->o.batch * r->o.accum, left);
    fflush(stdout);
}

static void draw_charts(run *r) {
    const history *h = &r->h;
    ttt_series curves[3] = { { "training batches", h->step, h->loss, h->n }, { "training batches", h->step, h->accuracy, h->n }, { "500 test images", h->step, h->test_accuracy, h->n } };
    ttt_panel panels[2] = { { "loss", "step", "cross-entropy", curves, 1 }, { "accuracy", "step", "share right", curves + 1, 2 } };
    ttt_chart_write(r->c, path_in(r, "curves.svg"), r->o.mixer, panels, 2, 2);
    if (r->inner_losses) {
        static char names[MAX_STEPS][32], titles[MAX_LAYERS][32];
        static ttt_series inner[MAX_LAYERS][MAX_STEPS];
        static ttt_panel layers[MAX_LAYERS];
        int T = r->inner_losses - 1, depth = (int)r->o.depth;
        for (int t = 0; t <= T; t++) snprintf(names[t], sizeof names[t], t == 0 ? "before step 1" : t < T ? "after step %d" : "after the last step", t);
        for (int l = 0; l < depth; l++) {
            for (int t = 0; t <= T; t++) inner[l][t] = (ttt_series){ T < 8 ? names[t] : NULL, h->step, h->inner[l][t], h->n };
            snprintf(titles[l], sizeof titles[l], "layer %d", l + 1);
            layers[l] = (ttt_panel){ titles[l], "step of the outer loop", "inner loss", inner[l], T + 1 };
        }
        ttt_chart_write(r->c, path_in(r, "inner_loss.svg"), "Inner loss while the outer loop trains", layers, depth, 3);
    }
    need_ok(r, "charts");
}

// ---- interrupting and resuming -------------------------------------------------------------------
// The model remembers the options that made it; a whole checkpoint also the moments and where the run stands.
static void save_checkpoint(run *r, const char *name, bool whole) {
    static char text[N_OPTIONS + 8][64];
    ttt_note notes[N_OPTIONS + 8];
    int64_t n = 0;
    for (int i = 0; i < N_OPTIONS; i++) {
        const option *row = &all_options[i];
        if (!row->defines_run) continue;
        const char *value = row->kind == TEXT ? *text_of(&r->o, row) : text[n];
        if (row->kind != TEXT) snprintf(text[n], sizeof text[n], "%.17g", *number_of(&r->o, row));
        notes[n++] = (ttt_note){ row->name + 2, value };
    }
    const struct { const char *key; double value; } where[] = { { "epoch", (double)r->train->epoch }, { "position", (double)r->train->position },
        { "loss_sum", r->loss_sum }, { "right", r->right }, { "seen", r->seen }, { "weight", r->weight }, { "seconds", seconds(r) } };
    for (size_t i = 0; whole && i < sizeof where / sizeof *where; i++) {
        snprintf(text[n], sizeof text[n], "%.17g", where[i].value);
        notes[n] = (ttt_note){ where[i].key, text[n] };
        n++;
    }
    ttt_checkpoint_save(r->c, path_in(r, name), &r->params, whole ? r->opt : NULL, notes, n);
    need_ok(r, "saving");
}

static double note_number(const ttt_bundle *b, const char *key) {
    const char *text = ttt_bundle_note(b, key);
    if (!text) die("the checkpoint has no note '%s'; was it written by this program?", key);
    return strtod(text, NULL);
}

// Takes the options from the checkpoint's notes; one given now that differs is an error.
static void restore_options(options *o, const bool *given) {
    char path[1200];
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", o->out);
    ttt_ctx *c = ttt_open(NULL);
    ttt_bundle b;
    FILE *there = fopen(path, "rb");
    if (!there && errno == ENOENT) die("--resume: there is no %s: a run leaves one if it is interrupted and removes it when it has finished", path);
    if (there) fclose(there);
    if (!c || ttt_safetensors_read(c, path, &b) != TTT_OK) die("--resume: %s", c ? ttt_error(c) : "out of memory");
    for (int i = 0; i < N_OPTIONS; i++) {
        const option *row = &all_options[i];
        const char *saved = row->defines_run ? ttt_bundle_note(&b, row->name + 2) : NULL;
        if (row->defines_run && !saved) die("--resume: %s was not written by this program: it has no note '%s'", path, row->name + 2);
        if (!row->defines_run) continue;
        bool same = row->kind == TEXT ? strcmp(saved, *text_of(o, row) ? *text_of(o, row) : "") == 0 : strtod(saved, NULL) == *number_of(o, row);
        if (given[i] && !same) die("--resume: the run in %s has %s %s", o->out, row->name, saved);
        if (row->kind == TEXT) *text_of(o, row) = strcpy(malloc(strlen(saved) + 1), saved);
        else *number_of(o, row) = strtod(saved, NULL);
    }
    ttt_close(c);
}

// The log's records up to the checkpoint become the history again, and the log is cut behind them.
static void restore_log(run *r, int64_t step) {
    FILE *f = fopen(path_in(r, "log.jsonl"), "rb");
    static char line[65536];
    history *h = &r->h;
    while (f && h->n < N_RECORDS + 1 && fgets(line, sizeof line, f)) {
        int at = 0, i = h->n;
        if (sscanf(line, "{\"event\":\"step\",\"step\":%lf,\"loss\":%lf,\"accuracy\":%lf,\"test_accuracy\":%lf,\"inner_loss\":[%n", &h->step[i], &h->loss[i], &h->accuracy[i], &h->test_accuracy[i], &at) != 4 || h->step[i] > (double)step) break;
        char *p = line + at;
        for (int l = 0; l < (int)r->o.depth; l++)
            for (int t = 0; t < r->inner_losses; t++) {
                p += strspn(p, "[],");
                h->inner[l][t][i] = strtod(p, &p);
            }
        h->n++;
    }
    if (f) fclose(f);
}

static void resume(run *r) {
    ttt_mark m = ttt_mark_get(r->c);
    ttt_bundle b;
    ttt_checkpoint_load(r->c, path_in(r, "checkpoint.safetensors"), &r->params, r->opt, &b);
    need_ok(r, "--resume");
    r->loss_sum = note_number(&b, "loss_sum");
    r->right = note_number(&b, "right");
    r->seen = note_number(&b, "seen");
    r->weight = note_number(&b, "weight");
    r->seconds_before = note_number(&b, "seconds");
    int64_t epoch = (int64_t)note_number(&b, "epoch"), position = (int64_t)note_number(&b, "position");
    ttt_batches_seek(r->c, r->train, epoch, position);
    need_ok(r, "--resume");
    ttt_mark_release(r->c, m);
    restore_log(r, r->opt->updates + r->opt->skipped);
    printf("resuming at step %lld of %.0f\n", (long long)(r->opt->updates + r->opt->skipped), r->o.steps);
}

// The folder, after those above it that are missing; what stands in the way of one shows in the last.
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
    if (make_folders(r->o.out) != 0 && errno != EEXIST) die("--out '%s': cannot make this folder: %s", r->o.out, strerror(errno));
    r->log = fopen(path_in(r, "log.jsonl"), "wb");
    if (!r->log) die("--out '%s': cannot write %s: %s", r->o.out, path_in(r, "log.jsonl"), strerror(errno));
    for (int i = 0; i < r->h.n; i++) write_record(r->log, &r->h, i, (int)r->o.depth, r->inner_losses);
}

// ---- the whole -----------------------------------------------------------------------------------
static void train(run *r) {
    int64_t steps = (int64_t)r->o.steps, first = r->opt->updates + r->opt->skipped, every = (steps + N_RECORDS - 1) / N_RECORDS;
    if (every < 1) every = 1;
    if (steps >= 20 && every < steps / 20) every = steps / 20;
    r->start = now();
    for (int64_t step = first; step < steps && !interrupted; step++) {
        train_step(r);
        if ((step + 1) % every == 0 || step + 1 == steps) record(r);
        show_progress(r, step + 1, first, step + 1 == steps);
    }
    if (r->terminal) puts("");
}

static void print_results(run *r, double accuracy) {
    const history *h = &r->h;
    int64_t inner = ttt_params_count(&r->params, TTT_PARAM_INNER), all = ttt_params_count(&r->params, 0);
    double n = (double)r->data.test.count;
    printf("\n  mixer               %s\n", r->o.mixer);
    printf("  test accuracy       %.2f %% +- %.2f (binomial, %lld images)\n", 100 * accuracy, 100 * sqrt(accuracy * (1 - accuracy) / n), (long long)r->data.test.count);
    for (int l = 0; l < (int)r->o.depth && r->inner_losses && h->n; l++)
        printf("  inner loss layer %-2d %.4f before the inner steps, %.4f after\n", l + 1, h->inner[l][0][h->n - 1], h->inner[l][r->inner_losses - 1][h->n - 1]);
    printf("  parameters          %lld outer, %lld inner (starting weights of the learners)\n", (long long)(all - inner), (long long)inner);
    printf("  FLOPs per image     %.2f M forward\n", ttt_vit_flops(r->vit) / 1e6);
    printf("  peak memory         %.1f MB\n", (double)ttt_memory(r->c).peak / 1e6);
    if (r->opt->skipped) printf("  skipped updates     %lld (their gradient was not finite)\n", (long long)r->opt->skipped);
    printf("  time                %.1f s on %d thread%s, %s\n", seconds(r), ttt_threads(r->c), ttt_threads(r->c) > 1 ? "s" : "", ttt_isa(r->c));
}

static void finish(run *r) {
    double accuracy = test_accuracy(r, r->data.test.count);
    save_checkpoint(r, "model.safetensors", false);
    draw_charts(r);
    print_results(r, accuracy);
    fprintf(r->log, "{\"event\":\"done\",\"mixer\":\"%s\",\"dataset\":\"", r->o.mixer);
    for (const char *p = r->data.name; *p; p++) fprintf(r->log, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
    fprintf(r->log, "\",\"test_accuracy\":%.6f,\"seconds\":%.1f,\"peak_bytes\":%zu}\n", accuracy, seconds(r), ttt_memory(r->c).peak);
    if (fclose(r->log) != 0) die("%s: %s", path_in(r, "log.jsonl"), strerror(errno));
    remove(path_in(r, "checkpoint.safetensors"));
    printf("  written             %s/{model.safetensors, log.jsonl, curves.svg%s}\n", r->o.out, r->inner_losses ? ", inner_loss.svg" : "");
}

static void fill_defaults(options *o, const dataset *d, const bool *given) {
    if (o->batch < 0) o->batch = d->batch;
    if (o->lr < 0) o->lr = d->lr;
    if (given[find_option("--epochs") - all_options] && given[find_option("--steps") - all_options]) die("--steps and --epochs both say how long to train; give one");
    if (o->epochs > 0) o->steps = ceil(o->epochs * floor((double)d->train.count / o->batch) / o->accum);
    if (o->steps < 0) o->steps = d->steps;
    if (o->steps < 1) o->steps = 1;
    if (o->globals < 0) o->globals = strcmp(o->mixer, "longformer") == 0;
    if (o->warmup < 0) o->warmup = floor(o->steps / 20);
    if (o->warmup >= o->steps) die("--warmup %.0f must be below the number of steps, %.0f", o->warmup, o->steps);
    o->data = d->name;
}

int main(int argc, char **argv) {
    static run r;
    bool given[N_OPTIONS] = { false };
    r.o = (options){ .mixer = "mttt-mlp", .out = "out", .inner_steps = 1, .inner_lr = 1, .decoder_ln = 1, .train_w0 = 1, .width = 48, .depth = 2, .heads = 3, .patch = 4,
                     .globals = -1, .kernel = 1, .steps = -1, .epochs = -1, .batch = -1, .lr = -1, .wd = 0.05, .warmup = -1, .accum = 1, .clip = 1, .seed = 1 };
    parse(argc, argv, &r.o, given);
    if (r.o.help) return print_help(), 0;
    if (r.o.list) return print_mixers(), 0;
    if (r.o.resume) restore_options(&r.o, given);
    if (!ttt_mixer_find(r.o.mixer)) die("--mixer '%s' is unknown; --list names those there are", r.o.mixer);
    open_context(&r);
    find_data(r.c, &r.data, r.o.data);
    if (!r.o.resume) fill_defaults(&r.o, &r.data, given);
    make_model(&r);
    open_batches(&r);
    if (r.o.resume) resume(&r);
    open_output(&r);
    r.terminal = isatty(1) != 0;
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    train(&r);
    if (interrupted) {
        save_checkpoint(&r, "checkpoint.safetensors", true);
        printf("interrupted at step %lld; to go on: ./train --resume%s%s\n", (long long)(r.opt->updates + r.opt->skipped), strcmp(r.o.out, "out") ? " --out " : "",
               strcmp(r.o.out, "out") ? r.o.out : "");
        return 130;
    }
    finish(&r);
    ttt_close(r.c);
    return 0;
}
