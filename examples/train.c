// train.c - the main job: train a vision transformer whose token mixers learn at test time.
//
//     cc -O2 -o train examples/train.c -lm && ./train
//
// It finds images by itself (Fashion-MNIST if it is installed, else a set it draws), trains, tests,
// and leaves model.safetensors, log.jsonl, curves.svg and inner_loss.svg in out/. Until it has
// finished, checkpoint.safetensors there says where ./train --resume goes on, and the file lock
// keeps other runs away. The options are listed by ./train --help.
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "example.h"

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
    long long steps, batch, warmup, accum, seed;
    double lr, wd, mixup, clip;
    // The rest.
    long long threads, epochs;
    double save_every;
    const char *out;
    bool resume, overwrite, list;
} options;

static const options defaults = {
    .mixer = "mttt-mlp", .inner_steps = 1, .inner_lr = 1, .decoder_ln = 1, .train_w0 = 1,
    .kernel = 1, .width = 48, .depth = 2, .heads = 3, .patch = 4, .steps = -1, .epochs = -1,
    .batch = -1, .warmup = -1, .accum = 1, .seed = 1, .lr = 3e-3, .wd = 0.05, .clip = 1,
    .save_every = 5, .out = "out",
};

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
    OPTION_WHOLE("--epochs", epochs, 1, 1e6,
                 "instead of --steps: passes over the training images"),
    OPTION_WHOLE("--threads", threads, 0, TTT_MAX_THREADS,
                 "0: one for each CPU it may use; the result is the same (0)"),
    OPTION_TEXT("--out", out, "folder for what the run leaves (out)"),
    OPTION_REAL("--save-every", save_every, 0, 1e6,
                "minutes from checkpoint to checkpoint, 0: one after each update (5)"),
    OPTION_FLAG("--resume", resume, "go on where the run in --out was interrupted"),
    OPTION_FLAG("--overwrite", overwrite, "begin anew, though --out has an unfinished run"),
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
        "t10k-labels-idx1-ubyte, plain or .gz, and takes the drawn set if none has them.\n\n"
        "A run that ends early, by Ctrl-C, SIGTERM or SIGHUP, saves where it is; a second signal\n"
        "ends it at once. A run that is killed goes on from its last checkpoint.",
};

// Those of them that set an option of the mixer.
static const mixer_option of_mixer[] = {
    { "--inner-steps", "inner_steps" }, { "--inner-lr", "inner_lr" },
    { "--inner-sgd", "inner_sgd" }, { "--decoder-ln", "no_decoder_norm" },
    { "--causal", "causal" }, { "--chunk", "chunk" }, { "--window", "window" },
    { "--globals", "globals" }, { "--compressed", "compressed" }, { "--kernel", "kernel" },
    { "--neighbors", "neighbors" }, { "--muon", "muon" },
};

// How many rows define a run. They are the first.
static int defining_rows(void) {
    int n = 0;
    while (option_rows[n].at < offsetof(options, threads)) n++;
    return n;
}

// ---- data ---------------------------------------------------------------------------------------
typedef struct {
    const char *name;
    ttt_images train, test;
    long long steps, batch;  // what suits it
} dataset;

// Folders of one name need not hold the same images.
static uint64_t hash_images(uint64_t hash, const ttt_images *set) {
    size_t pixels = (size_t)set->count * (size_t)(set->height * set->width * set->channels);
    hash = hash_bytes(hash, set->pixels, pixels);
    for (int64_t i = 0; i < set->count; i++) {
        unsigned char label = (unsigned char)set->labels[i];
        hash = hash_bytes(hash, &label, 1);
    }
    return hash;
}

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
enum { N_PROBE = 64 };
enum { MAX_LAYERS = 100 };  // as --depth allows

// What the log and the charts show: a column for each of at most N_RECORDS moments of the run.
typedef struct {
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

// Where a run is, beside its weights: the batches, and sums since the last record.
typedef struct {
    long long epoch, position;
    double loss_sum, right, seen, weight;  // weight: batches
} place;
static const option place_rows[] = {
    OPTION_PLACE(place, KIND_WHOLE, epoch, 0, 4294967295.),
    OPTION_PLACE(place, KIND_WHOLE, position, 0, 9e15),
    OPTION_PLACE(place, KIND_REAL, loss_sum, -HUGE_VAL, HUGE_VAL),  // NaN after a step gone wrong
    OPTION_PLACE(place, KIND_REAL, right, 0, 9e15), OPTION_PLACE(place, KIND_REAL, seen, 0, 9e15),
    OPTION_PLACE(place, KIND_REAL, weight, 0, 9e15),
};

typedef struct {
    training t;  // the first, so that a pointer to it is one to the run
    options o;
    dataset data;
    ttt_vit_desc vit;
    ttt_batches *train, *test, *probe;  // probe: test images at which inner losses are measured
    history h;
    place at;
} run;


static void make_model(run *r) {
    const options *o = &r->o;
    history *h = &r->h;
    h->inner_losses = ttt_mixer_find(o->mixer)->learner ? (int)o->inner_steps + 1 : 0;
    int64_t rows = (int64_t)h->inner_losses * o->depth;
    h->inner = (double *)kept(&r->t, "--inner-steps", rows * (N_RECORDS + 2), sizeof *h->inner);
    ttt_real *rates = (ttt_real *)kept(&r->t, "--inner-steps", o->inner_steps, sizeof *rates);
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
    ttt_vit_new(r->t.c, &r->vit, &r->t.params, "");
    r->t.opt = ttt_optimizer_new(r->t.c, &rule, &r->t.params);
    need_ok(r->t.c, "the model cannot be built");
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
    r->train = ttt_batches_new(r->t.c, &b);
    r->test = ttt_batches_new(r->t.c, &test);
    test.batch = N_PROBE;
    r->probe = ttt_batches_new(r->t.c, &test);
    need_ok(r->t.c, "the batches");
}

static ttt_tensor *forward(const run *r, ttt_tensor *images, ttt_vit_call *call) {
    return ttt_vit_forward(r->t.c, &r->vit, ttt_params_weights(&r->t.params), images, call);
}

// One update: `accum` batches forwards and backwards.
static void train_step(training *t) {
    run *r = (run *)t;
    ttt_mark m = ttt_mark_get(r->t.c);
    for (int a = 0; a < (int)r->o.accum; a++) {
        ttt_tensor *x = NULL, *y = NULL;
        int64_t n = ttt_batches_next(r->t.c, r->train, &x, &y);
        if (n == 0) n = ttt_batches_next(r->t.c, r->train, &x, &y);  // the epoch ended
        ttt_tensor *target = ttt_one_hot(r->t.c, y, r->data.train.classes);
        ttt_mixup(r->t.c, ttt_ctx_rng(r->t.c), r->o.mixup, &x, &target);
        ttt_tensor *logits = forward(r, x, NULL), *loss = ttt_cross_entropy(r->t.c, logits, target);
        ttt_optimizer_step(r->t.c, r->t.opt, loss);
        need_ok(r->t.c, "training");
        r->at.loss_sum += (double)ttt_item(loss);
        r->at.right += (double)ttt_count_correct(logits, y);
        r->at.seen += (double)n;
        r->at.weight += 1;
        ttt_mark_release(r->t.c, m);
    }
}

// The share of right answers for the first `limit` test images. What it draws at random does not
// disturb training.
static double test_accuracy(run *r, int64_t limit) {
    ttt_rng rng = *ttt_ctx_rng(r->t.c);
    int64_t right = 0, seen = 0;
    ttt_batches_seek(r->t.c, r->test, 0, 0);
    bool recording = ttt_set_recording(r->t.c, false);
    while (seen < limit) {
        ttt_mark m = ttt_mark_get(r->t.c);
        ttt_tensor *x, *y;
        int64_t n = ttt_batches_next(r->t.c, r->test, &x, &y);
        if (n > 0) right += ttt_count_correct(forward(r, x, NULL), y);
        seen += n;
        ttt_mark_release(r->t.c, m);
        need_ok(r->t.c, "testing");
        if (n == 0) break;
    }
    ttt_set_recording(r->t.c, recording);
    *ttt_ctx_rng(r->t.c) = rng;
    return (double)right / (double)seen;
}

// Inner losses of every layer on the first test images, into column `at` of the history.
static void probe_inner(run *r, int at) {
    ttt_vit_call call = { .want_losses = true };
    ttt_rng rng = *ttt_ctx_rng(r->t.c);
    ttt_tensor *x;
    if (r->h.inner_losses == 0) return;
    ttt_mark m = ttt_mark_get(r->t.c);
    bool recording = ttt_set_recording(r->t.c, false);
    ttt_batches_seek(r->t.c, r->probe, 0, 0);
    ttt_batches_next(r->t.c, r->probe, &x, NULL);
    forward(r, x, &call);
    ttt_set_recording(r->t.c, recording);
    need_ok(r->t.c, "looking at inner losses");
    for (int l = 0; l < (int)r->o.depth; l++)
        for (int t = 0; t < r->h.inner_losses; t++)
            inner_loss(&r->h, l, t)[at] = (double)call.losses[l]->data[t];
    ttt_mark_release(r->t.c, m);
    *ttt_ctx_rng(r->t.c) = rng;
}

// Whether a parameter of the block stands in the way of an answer that is zero: the weights of the
// learner, and the norm of its answer, which would give zeros the size of anything else.
static bool speaks(const ttt_param *p, const char *block) {
    bool norm = strstr(p->name, "decoder_LN/") || strstr(p->name, "ttt_norm/");
    return strstr(p->name, block) && (norm || (p->flags & TTT_PARAM_INNER));
}

// To compare with: each layer's inner loss if its learner answers nothing.
static void probe_silent(run *r) {
    ttt_rng rng = *ttt_ctx_rng(r->t.c);
    ttt_mark m = ttt_mark_get(r->t.c);
    ttt_weights w = ttt_params_weights(&r->t.params), zero = w;
    ttt_tensor *x, **at = ttt_alloc(r->t.c, (size_t)w.n * sizeof *at, false);
    ttt_batches_seek(r->t.c, r->probe, 0, 0);
    ttt_batches_next(r->t.c, r->probe, &x, NULL);
    need_ok(r->t.c, "looking at inner losses");
    bool recording = ttt_set_recording(r->t.c, false);
    for (int l = 0; l < (int)r->o.depth && r->h.inner_losses; l++) {
        char block[40];
        snprintf(block, sizeof block, "encoderblock_%d/", l);
        for (int i = 0; i < w.n; i++)
            at[i] = speaks(&r->t.params.item[i], block) ? ttt_zeros(r->t.c, w.at[i]->shape)
                                                        : w.at[i];
        zero.at = at;
        ttt_vit_call call = { .want_losses = true };
        ttt_vit_forward(r->t.c, &r->vit, zero, x, &call);
        need_ok(r->t.c, "looking at inner losses");
        r->h.silent[l] = (double)call.losses[l]->data[0];
    }
    ttt_set_recording(r->t.c, recording);
    ttt_mark_release(r->t.c, m);
    *ttt_ctx_rng(r->t.c) = rng;
}

// ---- showing and keeping ------------------------------------------------------------------------
static void write_record(FILE *f, const training *t, int i) {
    const run *r = (const run *)t;
    const history *h = &r->h;
    fprintf(f, "{\"event\":\"step\",\"step\":%.0f", h->step[i]);
    write_number(f, ",\"loss\":", h->loss[i]);
    write_number(f, ",\"accuracy\":", h->accuracy[i]);
    write_number(f, ",\"test_accuracy\":", h->test_accuracy[i]);
    fprintf(f, ",\"inner_loss\":[");
    for (int l = 0; l < (int)r->o.depth && h->inner_losses; l++) {
        fprintf(f, l ? ",[" : "[");
        for (int k = 0; k < h->inner_losses; k++)
            write_number(f, k ? "," : "", inner_loss(h, l, k)[i]);
        fprintf(f, "]");
    }
    fprintf(f, "],\"settings\":%s}\n", t->json);
}

// Records where the run is: in the history, as a line of log.jsonl, and as a line of the output if
// that does not show progress.
static void record(training *t) {
    run *r = (run *)t;
    history *h = &r->h;
    int i = t->n_records;
    h->step[i] = (double)steps_done(t);
    h->loss[i] = r->at.loss_sum / r->at.weight;
    h->accuracy[i] = r->at.right / r->at.seen;
    h->test_accuracy[i] = test_accuracy(r, 500);
    probe_inner(r, i);
    r->at.loss_sum = r->at.right = r->at.seen = r->at.weight = 0;
    log_record(t);
    if (isatty(1) && isatty(2)) return;
    printf("step %6lld of %lld  loss %.4f  accuracy %5.1f %%  on test images %5.1f %%  %.0f s\n",
           steps_done(t), r->o.steps, h->loss[i], 100 * h->accuracy[i], 100 * h->test_accuracy[i],
           training_seconds(t));
    fflush(stdout);
}

// Shows the means since the last record, or those of a record that has just been made.
static void show_progress(const training *t, progress *p) {
    const run *r = (const run *)t;
    const history *h = &r->h;
    int last = t->n_records - 1;
    char what[80];
    double loss = r->at.weight > 0 ? r->at.loss_sum / r->at.weight : h->loss[last];
    double accuracy = r->at.seen > 0 ? r->at.right / r->at.seen : h->accuracy[last];
    snprintf(what, sizeof what, "epoch %lld  loss %.4f  accuracy %5.1f %%",
             (long long)r->train->epoch, loss, 100 * accuracy);
    progress_show(p, steps_done(t), what);
}

static void draw_curves(run *r) {
    const history *h = &r->h;
    chart_series loss = { .name = "training batches", .x = h->step, .y = h->loss,
                          .n = r->t.n_records };
    chart_series accuracy[2] = { loss, loss };
    accuracy[0].y = h->accuracy;
    accuracy[1].y = h->test_accuracy;
    accuracy[1].name = "500 test images";
    chart_panel panels[2] = { { "loss", "step", "cross-entropy", &loss, 1, false },
                              { "accuracy", "step", "share right", accuracy, 2, false } };
    line_chart chart = { r->o.mixer, panels, 2, 2 };
    line_chart_write(r->t.c, path_in(&r->t, "curves.svg"), &chart);
}

// A panel for each layer, and in it a curve for the loss after each number of inner steps; in gray
// that of a learner that answers nothing, at the end.
static void draw_inner_losses(run *r) {
    enum { NAMED = 9 };  // curves of a legend, at most
    static char names[NAMED][32], titles[MAX_LAYERS][32];
    static chart_panel panels[MAX_LAYERS];
    const history *h = &r->h;
    int n_records = r->t.n_records, T = h->inner_losses - 1, depth = (int)r->o.depth;
    int64_t n = (int64_t)(h->inner_losses + 1) * depth;
    chart_series *curves = (chart_series *)kept(&r->t, "the chart", n, sizeof *curves);
    double *level = (double *)kept(&r->t, "the chart", (int64_t)depth * n_records, sizeof *level);
    for (int t = 1; t < T && T < NAMED; t++)
        snprintf(names[t], sizeof names[t], "after step %d", t);
    if (T < NAMED) strcpy(names[T], "after the last step");
    strcpy(names[0], "before step 1");
    for (int l = 0; l < depth; l++) {
        chart_series *of_layer = curves + (int64_t)l * (h->inner_losses + 1);
        double *silent = level + (int64_t)l * n_records;
        for (int i = 0; i < n_records; i++) silent[i] = h->silent[l];
        for (int t = 0; t <= T; t++)
            of_layer[t] = (chart_series){ .name = T < NAMED - 1 ? names[t] : NULL, .x = h->step,
                                          .y = inner_loss(h, l, t), .n = n_records };
        of_layer[T + 1] = (chart_series){ .name = "silent", .x = h->step,
                                          .y = silent, .n = n_records, .color = COLOR_GRAY };
        snprintf(titles[l], sizeof titles[l], "layer %d", l + 1);
        panels[l] = (chart_panel){ titles[l], "step of the outer loop", "inner loss", of_layer,
                                   T + 2, false };
    }
    line_chart chart = { "Inner loss while the outer loop trains", panels, depth, 3 };
    line_chart_write(r->t.c, path_in(&r->t, "inner_loss.svg"), &chart);
}

// ---- resuming -----------------------------------------------------------------------------------
static void look_at_batches(training *t) {
    run *r = (run *)t;
    r->at.epoch = r->train->epoch;
    r->at.position = r->train->position;
}

static void check_restored(training *t, const ttt_bundle *b, const char *where) {
    const run *r = (run *)t;
    check_sizes(t, b, where, r->o.width, r->o.depth);
    check_restored_mixer(where, r->o.mixer, of_mixer, COUNT(of_mixer), &r->o, &defaults);
}

static void take_record(training *t, const ttt_bundle *b, double step) {
    run *r = (run *)t;
    history *h = &r->h;
    const char *inner = note_text(b, "inner_loss");
    int i = t->n_records;
    h->step[i] = step;
    h->loss[i] = note_number(b, "loss");
    h->accuracy[i] = note_number(b, "accuracy");
    h->test_accuracy[i] = note_number(b, "test_accuracy");
    for (int l = 0; l < (int)r->o.depth; l++)
        for (int k = 0; k < h->inner_losses; k++) inner_loss(h, l, k)[i] = next_number(&inner);
}

static void resume(run *r) {
    restore_training(&r->t, r->o.steps);
    ttt_batches_seek(r->t.c, r->train, r->at.epoch, r->at.position);
    need_ok(r->t.c, "--resume");
    restore_log(&r->t, r->o.steps);
}

// ---- the whole ----------------------------------------------------------------------------------
static void print_results(run *r, double accuracy) {
    const history *h = &r->h;
    int64_t all = ttt_params_count(&r->t.params, 0);
    int64_t inner = ttt_params_count(&r->t.params, TTT_PARAM_INNER);
    double n = (double)r->data.test.count, deviation = sqrt(accuracy * (1 - accuracy) / n);
    int threads = ttt_threads(r->t.c);
    printf("\n  mixer               %s\n", r->o.mixer);
    printf("  test accuracy       %.2f %% +- %.2f (binomial, %.0f images)\n", 100 * accuracy,
           100 * deviation, n);
    for (int l = 0; l < (int)r->o.depth && h->inner_losses && r->t.n_records; l++)
        printf("  inner loss layer %-2d %.4f before the inner steps, %.4f after; silent: %.4f\n",
               l + 1, inner_loss(h, l, 0)[r->t.n_records - 1],
               inner_loss(h, l, h->inner_losses - 1)[r->t.n_records - 1], h->silent[l]);
    printf("  parameters          %lld outer, %lld inner (starting weights of the learners)\n",
           (long long)(all - inner), (long long)inner);
    printf("  FLOPs per image     %.2f M forward\n", ttt_vit_flops(&r->vit) / 1e6);
    printf("  peak memory         %.1f MB\n", (double)ttt_memory(r->t.c).peak / 1e6);
    if (r->t.opt->skipped)
        printf("  skipped updates     %lld (their gradient was not finite)\n",
               (long long)r->t.opt->skipped);
    printf("  time                %.1f s on %d thread%s, %s\n", training_seconds(&r->t), threads,
           threads > 1 ? "s" : "", ttt_isa(r->t.c));
}

static void finish(run *r) {
    heed_signals(SIG_DFL);  // the checkpoint is of the end
    double accuracy = test_accuracy(r, r->data.test.count);
    save_checkpoint(&r->t, "model.safetensors", false);
    draw_curves(r);
    if (r->h.inner_losses) {
        probe_silent(r);
        draw_inner_losses(r);
    }
    need_ok(r->t.c, "charts");
    print_results(r, accuracy);
    size_t room = 6 * strlen(r->data.name) + 200;
    char *facts = (char *)kept(&r->t, "--data", (int64_t)room, 1), *to = facts;
    to += sprintf(to, "\"mixer\":\"%s\",\"dataset\":", r->o.mixer);
    to = put_json_text(to, r->data.name);
    sprintf(to, ",\"test_accuracy\":%.6f,\"seconds\":%.1f,\"peak_bytes\":%zu", accuracy,
            training_seconds(&r->t), ttt_memory(r->t.c).peak);
    end_log(&r->t, facts);
    printf("  written             %s/{model.safetensors, log.jsonl, curves.svg%s}\n", r->o.out,
           r->h.inner_losses ? ", inner_loss.svg" : "");
}

// Of a resumed run only --epochs can be left to fill in.
static void fill_defaults(options *o, const dataset *d, int argc, char **argv) {
    if (o->epochs > 0 && option_given("--steps", argc, argv))
        die("--steps and --epochs both say how long to train; give one");
    if (o->batch < 0) o->batch = d->batch;
    if (o->epochs > 0) {
        long long batches = o->epochs * (d->train.count / o->batch);
        long long steps = (batches + o->accum - 1) / o->accum;
        if (o->resume && steps != o->steps)
            die("--resume: --epochs %lld is --steps %lld, but the run in %s has --steps %lld",
                o->epochs, steps, o->out, o->steps);
        o->steps = steps;
    }
    if (o->steps < 0) o->steps = d->steps;
    if (o->steps < 1) o->steps = 1;
    if (!o->resume && !option_given("--globals", argc, argv))
        o->globals = ttt_mixer_takes(ttt_mixer_find(o->mixer), "globals");
    if (o->warmup < 0) o->warmup = o->steps / 20;
    if (o->warmup >= o->steps)
        die("--warmup %lld must be below the number of steps, %lld", o->warmup, o->steps);
    o->data = d->name;
}

static void open_training(run *r) {
    static const char *const results[] = { "model.safetensors", "curves.svg", "inner_loss.svg",
                                           NULL };
    ttt_desc machine = { .seed = (uint64_t)r->o.seed, .threads = thread_count(r->o.threads) };
    r->t = (training){ .command = "./train", .options = &r->o, .n_defining = defining_rows(),
                       .out = r->o.out, .place_rows = place_rows,
                       .n_place_rows = COUNT(place_rows), .place = &r->at, .data_key = "images",
                       .results = results, .step = train_step, .record = record,
                       .write_record = write_record, .take_record = take_record,
                       .show = show_progress, .look = look_at_batches, .check = check_restored };
    r->t.c = open_or_die(&machine);
}

int main(int argc, char **argv) {
    static run r;
    r.o = defaults;
    read_options(argc, argv, &r.o);
    if (r.o.list) {
        for (int i = 0; mixer_name(i); i++) puts(mixer_name(i));
        return 0;
    }
    if (r.o.resume && r.o.overwrite)
        die("--resume goes on with the run in --out, --overwrite discards it; give one");
    open_training(&r);
    if (r.o.resume) restore_options(&r.t, argc, argv);  // and later the random numbers
    check_mixer_options(ttt_mixer_find(r.o.mixer), of_mixer, COUNT(of_mixer), argc, argv);
    find_data(r.t.c, &r.data, r.o.data);
    hash_text(hash_images(hash_images(HASH_START, &r.data.train), &r.data.test), r.t.data);
    fill_defaults(&r.o, &r.data, argc, argv);
    describe_training(&r.t);
    make_model(&r);
    bool has_w0 = ttt_params_count(&r.t.params, TTT_PARAM_INNER) > 0;
    if (!has_w0 && (r.o.train_w0 == 0 || option_given("--train-w0", argc, argv)))
        die("--train-w0 has no effect: --mixer %s has no starting weights", r.o.mixer);
    open_batches(&r);
    r.t.start = ttt_seconds();
    heed_signals(on_signal);
    if (r.o.resume) {
        resume(&r);
        begin_log(&r.t);
    } else {
        begin_folder(&r.t, r.o.overwrite);
    }
    run_training(&r.t, r.o.steps, r.o.save_every, (double)(r.o.batch * r.o.accum), "images");
    if (interrupted) {
        print_interrupted(&r.t);
        return 130;
    }
    finish(&r);
    ttt_close(r.t.c);
    return 0;
}
