// train_lm.c - a language model that learns while it reads: train one on the bytes of any text.
//
//     cc -O2 -o train_lm examples/train_lm.c -lm && ./train_lm
//
// Without --data it reads the headers of this very library. The last tenth of the text is held out:
// at the end it is read as one stream, and what a byte of it costs is the result. The run leaves
// the model in out/, as a folder that generate.c and ttt_lm_read take (config.json and
// model.safetensors), beside log.jsonl and curves.svg; until it has finished, the file
// checkpoint.safetensors there says where ./train_lm --resume goes on. The options are listed by
// ./train_lm --help.
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "example.h"

// ---- options ------------------------------------------------------------------------------------
// A default of -1 is chosen by --steps.
typedef struct {
    // What defines a run: checkpoints remember it, and a resumed run must have the same.
    const char *data, *mixer;
    double inner_lr;
    long long decoder_ln;
    long long chunk, window, globals, kernel, neighbors;
    bool muon;
    double rotary;
    bool token_index, share_qk, output_gate;
    long long width, depth, heads, conv, context;
    long long steps, batch, warmup, accum, seed;
    double lr, wd, clip;
    // The rest.
    long long threads, sample;
    double temperature, save_every;
    const char *out;
    bool resume, overwrite, list;
} options;

// Nothing makes a learner's weights smaller, so over a text much longer than the windows each step
// turns them less: high inner rates are as good on windows, and worse at the end of a long stream.
static const options defaults = {
    .data = "headers", .mixer = "ttt-linear", .inner_lr = 0.02, .decoder_ln = 1, .kernel = 1,
    .width = 128, .depth = 4, .heads = 4, .conv = 4, .context = 512, .steps = 1500, .batch = 4,
    .warmup = -1, .accum = 1, .seed = 1, .lr = 3e-3, .wd = 0.1, .clip = 1, .sample = 400,
    .temperature = 0.8, .save_every = 5, .out = "out",
};

// The mixers that read a text piece by piece.
static const char *streaming_name(int i) {
    for (int k = 0; ttt_mixer_at(k); k++)
        if (ttt_mixer_at(k)->flags & TTT_MIXER_STREAMS && i-- == 0) return ttt_mixer_at(k)->name;
    return NULL;
}

static const option option_rows[] = {
    OPTION_TEXT("--data", data, "file of any text, or 'headers' for those of this library"),
    OPTION_CHOICE("--mixer", mixer, streaming_name, "how bytes see those before (ttt-linear)"),
    OPTION_REAL("--inner-lr", inner_lr, 0, 1000,
                "rate of the inner learner's steps; the paper has 1, ttt-mlp 0.1 (0.02)"),
    OPTION_WHOLE("--decoder-ln", decoder_ln, 0, 1,
                 "layer norm on what the inner learner answers: 0 or 1 (1)"),
    OPTION_WHOLE("--chunk", chunk, 0, 1e9, "bytes that a memory takes at once, 0: its default (0)"),
    OPTION_WHOLE("--window", window, 0, 1e9, "longformer: bytes seen before, 0 for 256 (0)"),
    OPTION_WHOLE("--globals", globals, 0, 1024, "longformer: first bytes that all see (0)"),
    OPTION_WHOLE("--kernel", kernel, 0, 2,
                 "nadaraya-watson: 0 exponential, 1 Gaussian, 2 of the nearest keys alone (1)"),
    OPTION_WHOLE("--neighbors", neighbors, 0, 1e9,
                 "nadaraya-watson: how many are nearest, 0 for 8 (0)"),
    OPTION_FLAG("--muon", muon, "lact: orthogonalize its updates"),
    OPTION_REAL("--rotary", rotary, 0, 1e9,
                "ttt-*: base of angles by which bytes of a chunk are turned, 0 for none (0)"),
    OPTION_FLAG("--token-index", token_index, "ttt-*: rates by the place in the chunk are learned"),
    OPTION_FLAG("--share-qk", share_qk, "ttt-*: q and k are two convolutions of one product"),
    OPTION_FLAG("--output-gate", output_gate, "ttt-*: gate what is read"),
    OPTION_WHOLE("--width", width, 1, 4096, "features of a byte, divisible by --heads (128)"),
    OPTION_WHOLE("--depth", depth, 1, 100, "blocks (4)"),
    OPTION_WHOLE("--heads", heads, 1, 256, "heads of a mixer (4)"),
    OPTION_WHOLE("--conv", conv, 0, 64,
                 "taps of the causal convolution before each mixer, 0 for none (4)"),
    OPTION_WHOLE("--context", context, 2, 1e6, "bytes of a window that it learns from (512)"),
    OPTION_WHOLE("--steps", steps, 1, 1e9, "updates (1500)"),
    OPTION_WHOLE("--batch", batch, 1, 65536, "windows a gradient (4)"),
    OPTION_REAL("--lr", lr, 1e-9, 100, "peak rate of AdamW (0.003)"),
    OPTION_REAL("--wd", wd, 0, 100, "weight decay (0.1)"),
    OPTION_WHOLE("--warmup", warmup, 0, 1e9,
                 "updates of linear warm-up before the cosine (a twentieth of --steps)"),
    OPTION_WHOLE("--accum", accum, 1, 65536,
                 "batches whose gradients are averaged for one update (1)"),
    OPTION_REAL("--clip", clip, 0, 1e9, "largest norm of the gradient, 0 for any (1)"),
    OPTION_WHOLE("--seed", seed, 0, 9e15, "of everything random (1)"),
    OPTION_WHOLE("--threads", threads, 0, TTT_MAX_THREADS,
                 "0: one for each CPU it may use; the result is the same (0)"),
    OPTION_WHOLE("--sample", sample, 0, 1e6, "bytes that it writes at the end (400)"),
    OPTION_REAL("--temperature", temperature, 0, 100, "of these, 0 for the likeliest (0.8)"),
    OPTION_TEXT("--out", out, "folder for what the run leaves (out)"),
    OPTION_REAL("--save-every", save_every, 0, 1e6,
                "minutes from checkpoint to checkpoint, 0: one after each update (5)"),
    OPTION_FLAG("--resume", resume, "go on where the run in --out was interrupted"),
    OPTION_FLAG("--overwrite", overwrite, "begin anew, though --out has an unfinished run"),
    OPTION_MODE("--list", list, "", "", "print the mixers and stop"),
};
static const program this_program = {
    .name = "train_lm",
    .purpose = "a model of bytes learns to foretell them, and goes on learning while it reads",
    .rows = option_rows,
    .n_rows = COUNT(option_rows),
    .notes =
        "The last tenth of the text is held out. A run that ends early, by Ctrl-C, SIGTERM or\n"
        "SIGHUP, saves where it is; a second signal ends it at once. A run that is killed goes on\n"
        "from its last checkpoint.",
};

// Those of them that set an option of the mixer.
static const mixer_option of_mixer[] = {
    { "--inner-lr", "inner_lr" }, { "--decoder-ln", "no_decoder_norm" }, { "--chunk", "chunk" },
    { "--window", "window" },
    { "--globals", "globals" }, { "--kernel", "kernel" }, { "--neighbors", "neighbors" },
    { "--muon", "muon" }, { "--rotary", "rotary" }, { "--token-index", "token_index" },
    { "--share-qk", "share_qk" }, { "--output-gate", "output_gate" },
};

// How many rows define a run. They are the first.
static int defining_rows(void) {
    int n = 0;
    while (option_rows[n].at < offsetof(options, threads)) n++;
    return n;
}

// ---- the run ------------------------------------------------------------------------------------
enum { BYTES = 256, N_WINDOWS = 16, N_PLACES = 48 };

// Of bits a byte: the training batches and N_WINDOWS held-out windows at each record; at the end,
// held-out bytes by how many were read before.
typedef struct {
    double step[N_RECORDS + 2], loss[N_RECORDS + 2], held_out[N_RECORDS + 2];
    double place[N_PLACES], at_place[N_PLACES];
    int n_places;
} history;

// Where a run is, beside its weights. The steps done say which windows come next.
typedef struct {
    double loss_sum, weight;  // since the last record; weight: batches
    long long batches;        // in all
} place;
static const option place_rows[] = {
    OPTION_PLACE(place, KIND_REAL, loss_sum, -HUGE_VAL, HUGE_VAL),  // NaN after a step gone wrong
    OPTION_PLACE(place, KIND_REAL, weight, 0, 9e15),
    OPTION_PLACE(place, KIND_WHOLE, batches, 0, 4294967295.),
};

typedef struct {
    training t;  // the first, so that a pointer to it is one to the run
    options o;
    ttt_tensor *text, *held_out;  // bytes as integers (N)
    ttt_lm_desc lm;
    history h;
    place at;
} run;

// ---- data ---------------------------------------------------------------------------------------
// Appends the file's bytes to the text, whose room is enough; or only counts them.
static size_t read_bytes(run *r, const char *path, int64_t *to) {
    ttt_mark m = ttt_mark_get(r->t.c);
    size_t size = 0;
    const char *bytes = ttt_file_read(r->t.c, path, &size);
    need_ok(r->t.c, "--data");
    for (size_t i = 0; to && i < size; i++) to[i] = (unsigned char)bytes[i];
    ttt_mark_release(r->t.c, m);
    return size;
}

// The headers lie here or above, or must be named one by one.
static void read_text(run *r) {
    static const char *const here[] = { "ttt_tensor.h", "ttt_layers.h", "ttt_data.h",
                                        "ttt_model.h", NULL };
    static const char *const above[] = { "../ttt_tensor.h", "../ttt_layers.h", "../ttt_data.h",
                                         "../ttt_model.h", NULL };
    const char *const named[] = { r->o.data, NULL }, *const *paths = named;
    if (strcmp(r->o.data, "headers") == 0) paths = file_exists(here[0]) ? here : above;
    if (paths == above && !file_exists(above[0]))
        die("--data: the headers of the library are not in this folder; name a file of text");
    size_t size = 0, at = 0;
    for (int i = 0; paths[i]; i++) size += read_bytes(r, paths[i], NULL);
    int64_t *byte = (int64_t *)kept(&r->t, "--data", (int64_t)size, sizeof *byte);
    for (int i = 0; paths[i]; i++) at += read_bytes(r, paths[i], byte + at);
    int64_t n = (int64_t)size, held_out = n / 10;
    if (held_out < r->o.context)
        die("--data: '%s' has %lld bytes; %lld expected, so that the tenth that is held out has a "
            "--context of %lld", r->o.data, (long long)n, 10 * r->o.context, r->o.context);
    r->text = ttt_new_typed(r->t.c, TTT_SHAPE(n - held_out), TTT_DTYPE_INT, true);
    r->held_out = ttt_new_typed(r->t.c, TTT_SHAPE(held_out), TTT_DTYPE_INT, true);
    need_ok(r->t.c, "--data");
    memcpy(r->text->index, byte, (size_t)(n - held_out) * sizeof *byte);
    memcpy(r->held_out->index, byte + n - held_out, (size_t)held_out * sizeof *byte);
    hash_text(hash_bytes(HASH_START, byte, size * sizeof *byte), r->t.data);
    printf("data: %s, %lld bytes to learn from, %lld held out\n", r->o.data,
           (long long)(n - held_out), (long long)held_out);
}

// ---- the model ----------------------------------------------------------------------------------
static void make_model(run *r) {
    const options *o = &r->o;
    ttt_mixer_desc d = { .heads = o->heads, .inner_lr = (ttt_real)o->inner_lr, .causal = true,
                         .no_decoder_norm = o->decoder_ln == 0,
                         .kernel = (ttt_attention_kernel)o->kernel, .chunk = o->chunk,
                         .window = o->window, .globals = o->globals, .neighbors = o->neighbors,
                         .muon = o->muon, .rotary = (ttt_real)o->rotary,
                         .token_index = o->token_index, .share_qk = o->share_qk,
                         .output_gate = o->output_gate };
    r->lm = (ttt_lm_desc){ .vocab = BYTES, .width = o->width, .depth = o->depth,
                           .pre_conv = o->conv > 0, .conv = o->conv, .tied = true,
                           .mixer = ttt_mixer_offer(ttt_mixer_find(o->mixer), &d) };
    ttt_optimizer_desc rule = { .lr = (ttt_real)o->lr, .weight_decay = (ttt_real)o->wd,
                                .beta2 = (ttt_real)0.99, .clip = (ttt_real)o->clip,
                                .warmup = o->warmup, .total = o->steps,
                                .accumulate = (int)o->accum };
    ttt_lm_new(r->t.c, &r->lm, &r->t.params, "");
    r->t.opt = ttt_optimizer_new(r->t.c, &rule, &r->t.params);
    need_ok(r->t.c, "the model cannot be built");
}

static ttt_tensor *forward(const run *r, ttt_tensor *bytes) {
    return ttt_lm_forward(r->t.c, &r->lm, ttt_params_weights(&r->t.params), bytes, NULL);
}

// One update: `accum` batches forwards and backwards.
static void train_step(training *t) {
    run *r = (run *)t;
    const options *o = &r->o;
    ttt_mark m = ttt_mark_get(t->c);
    for (int a = 0; a < (int)o->accum; a++) {
        ttt_tensor *bytes = ttt_token_windows(t->c, r->text, o->batch, o->context,
                                              (uint64_t)o->seed, r->at.batches++);
        ttt_tensor *loss = ttt_lm_loss(t->c, forward(r, bytes), bytes);
        ttt_optimizer_step(t->c, t->opt, loss);
        need_ok(t->c, "training");
        r->at.loss_sum += (double)ttt_item(loss) / log(2);
        r->at.weight += 1;
        ttt_mark_release(t->c, m);
    }
}

// ---- what held-out bytes cost -------------------------------------------------------------------
// Adds the bits that byte t + 1 of each row costs after byte t to sum[t], for logits (B,n,256) of
// the first n bytes of rows of L.
static void add_bits(run *r, ttt_tensor *logits, const int64_t *bytes, int64_t L, double *sum) {
    ttt_tensor *log_p = ttt_log_softmax(r->t.c, logits);
    need_ok(r->t.c, "reading what is held out");
    int64_t B = logits->shape.dim[0], n = logits->shape.dim[1];
    for (int64_t b = 0; b < B; b++)
        for (int64_t t = 0; t + 1 < L && t < n; t++)
            sum[t] -= (double)log_p->data[(b * n + t) * BYTES + bytes[b * L + t + 1]] / log(2);
}

// The bits of each place of `count` windows of L held-out bytes, as far apart as they can be: the
// means over windows, L - 1 of them, in the step arena.
static double *window_bits(run *r, int64_t L, int64_t count) {
    ttt_ctx *c = r->t.c;
    double *sum = (double *)ttt_alloc(c, (uint64_t)L * sizeof *sum, false);
    need_ok(c, "reading what is held out");
    for (int64_t t = 0; t < L; t++) sum[t] = 0;
    bool recording = ttt_set_recording(c, false);
    for (int64_t i = 0; i < count; i++) {
        ttt_mark m = ttt_mark_get(c);
        int64_t from = (r->held_out->size - L) * i / (count > 1 ? count - 1 : 1);
        ttt_tensor *bytes = ttt_from_int(c, TTT_SHAPE(1, L), r->held_out->index + from);
        add_bits(r, forward(r, bytes), bytes->index, L, sum);
        ttt_mark_release(c, m);
    }
    ttt_set_recording(c, recording);
    for (int64_t t = 0; t < L; t++) sum[t] /= (double)count;
    return sum;
}
static double window_mean(run *r) {
    ttt_mark m = ttt_mark_get(r->t.c);
    int64_t L = r->o.context;
    double *bits = window_bits(r, L, N_WINDOWS), sum = 0;
    for (int64_t t = 0; t + 1 < L; t++) sum += bits[t];
    ttt_mark_release(r->t.c, m);
    return sum / (double)(L - 1);
}

// A learner gets better as it reads: bits by place, up to four times as far as it was trained, in
// groups of places each a quarter longer than the one before.
static void measure_places(run *r) {
    history *h = &r->h;
    ttt_mark m = ttt_mark_get(r->t.c);
    int64_t L = 4 * r->o.context, count = 64, end;
    if (L > r->held_out->size) L = r->held_out->size;
    double *bits = window_bits(r, L, count);
    for (int64_t t = 0; t + 1 < L && h->n_places < N_PLACES; t = end) {
        double sum = 0;
        end = t + 1 + t / 4 < L - 1 ? t + 1 + t / 4 : L - 1;
        for (int64_t k = t; k < end; k++) sum += bits[k];
        h->place[h->n_places] = 0.5 * (double)(t + 1 + end);
        h->at_place[h->n_places++] = sum / (double)(end - t);
    }
    ttt_mark_release(r->t.c, m);
}

// All that is held out, read as one stream. Nothing foretells the first byte: it costs 8 bits.
static double stream_bits(run *r) {
    enum { PIECE = 512 };
    ttt_ctx *c = r->t.c;
    ttt_stream stream = { 0 };
    double sum[PIECE] = { 0 }, all = log((double)BYTES) / log(2);
    const int64_t N = r->held_out->size;
    for (int64_t from = 0; from + 1 < N; from += PIECE) {
        ttt_mark m = ttt_mark_get(c);
        int64_t n = N - from < PIECE ? N - from : PIECE, more = from + n < N;
        const int64_t *at = r->held_out->index + from;
        ttt_tensor *bytes = ttt_from_int(c, TTT_SHAPE(1, n), at);
        ttt_tensor *logits = ttt_lm_stream(c, &r->lm, ttt_params_weights(&r->t.params), &stream,
                                           bytes, NULL, false);
        add_bits(r, logits, at, n + more, sum);
        ttt_mark_release(c, m);
    }
    for (int i = 0; i < PIECE; i++) all += sum[i];
    return all / (double)N;
}

// ---- a sample -----------------------------------------------------------------------------------
// A byte by its chance, sharpened; the likeliest for a temperature of 0.
static int64_t choose(ttt_rng *rng, const ttt_real *logit, double temperature) {
    double most = -HUGE_VAL, sum = 0;
    int64_t best = 0;
    for (int64_t i = 0; i < BYTES; i++)
        if ((double)logit[i] > most) most = (double)logit[best = i];
    if (temperature == 0) return best;
    for (int64_t i = 0; i < BYTES; i++) sum += exp(((double)logit[i] - most) / temperature);
    double left = sum * ttt_rng_uniform(rng);
    for (int64_t i = 0; i < BYTES; i++) {
        left -= exp(((double)logit[i] - most) / temperature);
        if (left < 0) return i;
    }
    return best;
}

// Shows it with a question mark for each byte that is no text.
static void print_text(const char *text) {
    for (int n; *text; text += n > 0 ? n : 1) {
        n = *text == '\n' ? 1 : character_length(text);
        printf("%.*s", n > 0 ? n : 1, n > 0 ? text : "?");
    }
    printf("\n");
}

// Goes on where the bytes end that it has learned from.
static void print_sample(run *r) {
    ttt_ctx *c = r->t.c;
    ttt_stream stream = { 0 };
    ttt_rng rng = ttt_rng_at((uint64_t)r->o.seed, 7, 0, 0);
    int64_t n = r->o.context, byte;
    const int64_t *read = r->text->index + r->text->size - n;
    char *text = (char *)kept(&r->t, "--sample", r->o.sample + 1, 1);
    for (int64_t i = 0; i < r->o.sample; i++, n = 1, read = &byte) {
        ttt_mark m = ttt_mark_get(c);
        ttt_tensor *bytes = ttt_from_int(c, TTT_SHAPE(1, n), read);
        ttt_tensor *logits = ttt_lm_stream(c, &r->lm, ttt_params_weights(&r->t.params), &stream,
                                           bytes, NULL, true);
        need_ok(c, "writing");
        byte = choose(&rng, logits->data, r->o.temperature);
        text[i] = (char)(byte ? byte : 1);
        ttt_mark_release(c, m);
    }
    text[r->o.sample] = 0;
    if (r->o.sample > 0) printf("\nAfter the bytes that it has learned from it writes:\n");
    if (r->o.sample > 0) print_text(text);
}

// ---- showing and keeping ------------------------------------------------------------------------
static void write_record(FILE *f, const training *t, int i) {
    const history *h = &((const run *)t)->h;
    fprintf(f, "{\"event\":\"step\",\"step\":%.0f", h->step[i]);
    write_number(f, ",\"loss\":", h->loss[i]);
    write_number(f, ",\"held_out\":", h->held_out[i]);
    fprintf(f, ",\"settings\":%s}\n", t->json);
}
static void take_record(training *t, const ttt_bundle *b, double step) {
    history *h = &((run *)t)->h;
    h->step[t->n_records] = step;
    h->loss[t->n_records] = note_number(b, "loss");
    h->held_out[t->n_records] = note_number(b, "held_out");
}

// Records where the run is: in the history, as a line of log.jsonl, and as a line of the output if
// that does not show progress.
static void record(training *t) {
    run *r = (run *)t;
    history *h = &r->h;
    int i = t->n_records;
    h->step[i] = (double)steps_done(t);
    h->loss[i] = r->at.loss_sum / r->at.weight;
    h->held_out[i] = window_mean(r);
    r->at.loss_sum = r->at.weight = 0;
    log_record(t);
    if (isatty(1) && isatty(2)) return;
    printf("step %6lld of %lld  %.4f bits a byte  held out %.4f  %.0f s\n", steps_done(t),
           r->o.steps, h->loss[i], h->held_out[i], training_seconds(t));
    fflush(stdout);
}

static void show_progress(const training *t, progress *p) {
    const run *r = (const run *)t;
    double loss = r->at.weight > 0 ? r->at.loss_sum / r->at.weight : r->h.loss[t->n_records - 1];
    char what[80];
    snprintf(what, sizeof what, "%.3f bits  rate %.4f", loss,
             r->o.lr * ttt_schedule(&t->opt->desc, t->opt->updates));
    progress_show(p, steps_done(t), what);
}

static void draw_curves(run *r) {
    const history *h = &r->h;
    chart_series loss[2] = {
        { .name = "training windows", .x = h->step, .y = h->loss, .n = r->t.n_records },
        { .name = "held-out windows", .x = h->step, .y = h->held_out, .n = r->t.n_records },
    };
    chart_series reading = { .name = "held out", .x = h->place, .y = h->at_place, .n = h->n_places,
                             .color = COLOR_INNER };
    chart_panel panels[2] = {
        { "while it trains", "step", "bits a byte", loss, 2, false },
        { "while it reads", "bytes read before", "bits a byte", &reading, 1, LOG_X },
    };
    line_chart chart = { r->o.mixer, panels, 2, 2 };
    line_chart_write(r->t.c, path_in(&r->t, "curves.svg"), &chart);
}

// ---- the whole ----------------------------------------------------------------------------------
static void check_restored(training *t, const ttt_bundle *b, const char *where) {
    const run *r = (run *)t;
    check_sizes(t, b, where, r->o.width, r->o.depth);
    check_restored_mixer(where, r->o.mixer, of_mixer, COUNT(of_mixer), &r->o, &defaults);
}

static void print_results(run *r, double bits) {
    int threads = ttt_threads(r->t.c);
    printf("\n  mixer               %s\n", r->o.mixer);
    printf("  held out            %.4f bits a byte, read as one stream of %lld\n", bits,
           (long long)r->held_out->size);
    printf("  parameters          %lld\n", (long long)ttt_params_count(&r->t.params, 0));
    printf("  FLOPs a byte        %.2f M forward\n",
           ttt_lm_flops(&r->lm, r->o.context) / (double)r->o.context / 1e6);
    printf("  peak memory         %.1f MB\n", (double)ttt_memory(r->t.c).peak / 1e6);
    if (r->t.opt->skipped)
        printf("  skipped updates     %lld (their gradient was not finite)\n",
               (long long)r->t.opt->skipped);
    printf("  time                %.1f s on %d thread%s, %s\n", training_seconds(&r->t), threads,
           threads > 1 ? "s" : "", ttt_isa(r->t.c));
}

static void finish(run *r) {
    heed_signals(SIG_DFL);  // the checkpoint is of the end
    printf("reading what was held out, %lld bytes\n", (long long)r->held_out->size);
    fflush(stdout);
    double bits = stream_bits(r);
    measure_places(r);
    ttt_lm_write(r->t.c, r->o.out, &r->lm, &r->t.params, NULL);
    need_ok(r->t.c, "the model");
    draw_curves(r);
    need_ok(r->t.c, "charts");
    print_sample(r);
    print_results(r, bits);
    size_t room = 6 * strlen(r->o.data) + 200 + 40 * N_PLACES;
    char *facts = (char *)kept(&r->t, "the log", (int64_t)room, 1), *to = facts;
    to += sprintf(to, "\"mixer\":\"%s\",\"dataset\":", r->o.mixer);
    to = put_json_text(to, r->o.data);
    to += sprintf(to, ",\"bits_per_byte\":%.6f,\"seconds\":%.1f,\"peak_bytes\":%zu", bits,
                  training_seconds(&r->t), ttt_memory(r->t.c).peak);
    to += sprintf(to, ",\"by_place\":[");
    for (int i = 0; i < r->h.n_places; i++)
        to += sprintf(to, "%s[%.1f,%.4f]", i ? "," : "", r->h.place[i], r->h.at_place[i]);
    strcpy(to, "]");
    end_log(&r->t, facts);
    printf("  written             %s/{config.json, model.safetensors, log.jsonl, curves.svg}\n",
           r->o.out);
}

static void fill_defaults(options *o, int argc, char **argv) {
    if (o->warmup < 0) o->warmup = o->steps / 20;
    if (o->warmup >= o->steps)
        die("--warmup %lld must be below the number of steps, %lld", o->warmup, o->steps);
    if (o->sample == 0 && option_given("--temperature", argc, argv))
        die("--temperature has no effect without --sample");
}

static void open_training(run *r) {
    static const char *const results[] = { "config.json", "model.safetensors", "curves.svg",
                                          NULL };
    ttt_desc machine = { .seed = (uint64_t)r->o.seed, .threads = thread_count(r->o.threads) };
    r->t = (training){ .command = "./train_lm", .options = &r->o, .n_defining = defining_rows(),
                       .out = r->o.out, .place_rows = place_rows,
                       .n_place_rows = COUNT(place_rows), .place = &r->at, .data_key = "text",
                       .results = results, .step = train_step, .record = record,
                       .write_record = write_record, .take_record = take_record,
                       .show = show_progress, .check = check_restored };
    r->t.c = open_or_die(&machine);
}

int main(int argc, char **argv) {
    static run r;
    r.o = defaults;
    read_options(argc, argv, &r.o);
    if (r.o.list) {
        for (int i = 0; streaming_name(i); i++) puts(streaming_name(i));
        return 0;
    }
    if (r.o.resume && r.o.overwrite)
        die("--resume goes on with the run in --out, --overwrite discards it; give one");
    open_training(&r);
    if (r.o.resume) restore_options(&r.t, argc, argv);  // and later the random numbers
    check_mixer_options(ttt_mixer_find(r.o.mixer), of_mixer, COUNT(of_mixer), argc, argv);
    fill_defaults(&r.o, argc, argv);
    read_text(&r);
    describe_training(&r.t);
    make_model(&r);
    r.t.start = ttt_seconds();
    heed_signals(on_signal);
    if (r.o.resume) {
        restore_training(&r.t, r.o.steps);
        restore_log(&r.t, r.o.steps);
        begin_log(&r.t);
    } else {
        begin_folder(&r.t, r.o.overwrite);
    }
    double bytes = (double)r.o.batch * (double)r.o.accum * (double)r.o.context;
    run_training(&r.t, r.o.steps, r.o.save_every, bytes, "bytes");
    if (interrupted) {
        print_interrupted(&r.t);
        return 130;
    }
    finish(&r);
    ttt_close(r.t.c);
    return 0;
}
