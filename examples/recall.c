// recall.c - which token mixers can remember, and how much?
//
//     cc -O2 -o recall examples/recall.c -lm && ./recall
//     ./recall --grow --out recall.svg
//
// The plainest test of a memory. A sequence shows n pairs of a key and a value; then it asks, by
// showing keys again without their values. The answer is the value, one of eight:
//
//     (k7,v2) (k30,v0) (k4,v5) ... (k12,v2)   (k4,?) (k7,?) ...   ->   v5, v2, ...
//
// Keys and values are paired anew in every sequence, so no trained weight knows an answer. It has
// to be carried from a pair to a question by the mixer, the only thing here that lets tokens see
// each other. A token is the sum of two learned embeddings: its key's, and its value's ("none" is
// the ninth value). There are no positions, as the pairs are a set; a mixer that depends on the
// order sees the one that was drawn. Several questions a sequence (8) are for speed: more to learn
// from a memory that is filled once.
//
// Each mixer of the registry is trained in the same small model and tested on 2,000 new sequences.
// --grow goes on with more and more pairs, and draws how many are held. See ./recall --help.
//
// Output, on two loaded cores:
//
//     16 pairs, keys out of 32, 8 questions, width 48, 3 heads, 500 steps, seed 1; chance is 12.5 %
//
//     mixer                   right, %         FLOPs a token   memory   seconds
//     mttt-linear              99.71 +- 0.12          27648      768       5.0
//     mttt-mlp                 99.98 +- 0.04          66048     6144       7.8
//     ttt-linear               99.64 +- 0.13          23040      768      11.2
//     ttt-mlp                  99.99 +- 0.02          61440     6144      19.0
//     titans                   99.68 +- 0.13          76800    12288      45.0
//     lact                     99.31 +- 0.18          32256     2304      41.4
//     vittt                    99.73 +- 0.12          34368     1680      16.1
//     delta-net                99.74 +- 0.11          32256      816      17.3
//     gated-delta-net          90.42 +- 0.66          36864      816      18.8
//     kda                      98.14 +- 0.30          84480      816     133.0
//     linear-attention         99.62 +- 0.14          21504      816       7.2
//     focused-linear           99.94 +- 0.06          23904      816      20.4
//     self-attention          100.00 +- 0.00          23040     2304       7.6
//     nadaraya-watson         100.00 +- 0.00          23040     2304      10.4
//     linformer 4 sums         26.16 +- 0.98          19968      384       8.9  cannot
//     linformer 24 sums       100.00 +- 0.00          27648     2304      80.0
//                             4000 steps
//     longformer window 4      16.50 +- 0.83          20160      864      11.3  cannot
//     longformer window 24    100.00 +- 0.00          23040     2304      10.2
//     none                     12.47 +- 0.74              0        0       3.3  cannot
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "example.h"

// ---- variants -----------------------------------------------------------------------------------
// How mixers are described. One may have several rows; one without any runs with those of the
// options in `otherwise` that it takes. Two are set later, from the sequence: .max_tokens, and
// .grid_cols where .grid_rows is given (the tokens are then a grid of one row).
typedef struct {
    const char *label;
    ttt_mixer_desc d;
    double most;      // accuracy that it must not exceed, as it lacks memory; 0: it must recall
    double patience;  // its steps, as a multiple of the others'
} variant;

// Inner losses are means over tokens and features: small gradients, large rate. Neighbors have
// nothing to do with each other here: convolutions would only blur keys. Without .muon, the rates
// that lact finds for itself begin at 0.01, and take long to grow.
static const variant otherwise = {
    NULL, { .inner_lr = 10, .no_short_conv = true, .muon = true }, 0, 1
};
static const variant variants[] = {
    { "none", { .mixer = &ttt_mixer_none }, 0.15, 1 },
    { "vittt", { .mixer = &ttt_mixer_vittt, .grid_rows = 1 }, 0, 1 },
    { "focused-linear", { .mixer = &ttt_mixer_focused_linear, .grid_rows = 1 }, 0, 1 },
    // Keys are summed by place, which says nothing here. With a sum for each of 16 pairs and 8
    // questions its table can learn to leave tokens alone, but that takes long.
    { "linformer 4 sums", { .mixer = &ttt_mixer_linformer, .compressed = 4 }, 0.8, 1 },
    { "linformer 24 sums", { .mixer = &ttt_mixer_linformer, .compressed = 24 }, 0, 8 },
    // A window that does not reach the pair cannot carry its value; two layers reach twice as far.
    { "longformer window 4", { .mixer = &ttt_mixer_longformer, .window = 4 }, 0.8, 1 },
    { "longformer window 24", { .mixer = &ttt_mixer_longformer, .window = 24 }, 0, 1 },
};
// The memories that --grow compares.
static const char grown[] = "linear-attention,delta-net,mttt-linear,mttt-mlp,self-attention";

// ---- options ------------------------------------------------------------------------------------
typedef struct {
    const char *mixer, *out;
    long long n, questions, steps, width, heads, seed, threads;
    bool grow;
} options;

enum { DEPTH = 2, VALUES = 8, BATCH = 32, TESTS = 2000, LENGTHS = 8, MOST_RUNS = 256 };
enum { N_LEAST = 8, N_MOST = N_LEAST << (LENGTHS - 1) };

static const option option_rows[] = {
    OPTION_LIST("--mixer", mixer, mixer_name,
                "names with commas between (all; with --grow some memories)"),
    OPTION_WHOLE("--n", n, N_LEAST, N_MOST,
                 "pairs of a sequence (16); with --grow the most, beginning with 8 (128)"),
    OPTION_WHOLE("--questions", questions, 1, N_MOST, "asked of a sequence (8; with --grow 16)"),
    OPTION_WHOLE("--steps", steps, 1, 1e6,
                 "updates of the training (500); with --grow, for each number of pairs"),
    OPTION_WHOLE("--width", width, 1, 4096,
                 "features of a token, divisible by --heads (48; with --grow 32)"),
    OPTION_WHOLE("--heads", heads, 1, 256,
                 "heads of a mixer (3; with --grow 4, for small memories)"),
    OPTION_WHOLE("--seed", seed, 0, 9e15, "of weights and sequences (1)"),
    OPTION_WHOLE("--threads", threads, 0, TTT_MAX_THREADS,
                 "0: one for each CPU it may use; the result is the same (0)"),
    OPTION_MODE("--grow", grow, "--out", NULL,
                "train with 8 pairs, then 16, 32, ..., and draw how many are held"),
    OPTION_TEXT("--out", out, "file for that chart (recall.svg)"),
};
static const program this_program = {
    .name = "recall",
    .purpose = "which token mixers can remember, and how much?",
    .rows = option_rows,
    .n_rows = COUNT(option_rows),
};

// The registered mixers in their variants, as far as `list` (NULL: all) has the name or the label.
static int list_runs(const char *list, variant *runs) {
    int n = 0;
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *m = ttt_mixer_at(i);
        variant plain = otherwise;
        plain.label = m->name;
        plain.d = ttt_mixer_offer(m, &otherwise.d);
        bool has_rows = false;
        for (int k = 0; k <= COUNT(variants) && n < MOST_RUNS; k++) {
            const variant *v = k < COUNT(variants) ? &variants[k] : &plain;
            if (v == &plain ? has_rows : v->d.mixer != m) continue;
            has_rows = true;
            if (!list || listed(list, m->name) || listed(list, v->label)) runs[n++] = *v;
        }
    }
    return n;
}

static void check_names(const char *list, variant *runs) {
    char name[64];
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at, ","), at);
        if (list_runs(name, runs) == 0)
            die("--mixer '%s' is unknown; --help lists those there are", name);
    }
}

// ---- the task, the model ------------------------------------------------------------------------
// The keys of a sequence are n out of 2n, all different. Twice as many keys as pairs, whatever n:
// so every key is met as often in training, and what grows with n is the memory that is needed, not
// a vocabulary that is hardly met.
//
// key + value embedding -> DEPTH blocks of  x += mixer(LN x);  x += MLP(LN x)  -> LN -> dense
typedef struct {
    const options *o;
    const variant *v;
    ttt_ctx *c;
    int64_t n, questions, tokens;  // n + questions tokens
    ttt_rng rng;                   // of the sequences: a stream of its own, the same for all mixers
    ttt_tensor *keys, *values, *labels;  // integers (B tokens), (B tokens), (B questions)
    ttt_mixer_desc mixer;
    ttt_params params;
    double accuracy, seconds;                 // of one mixer
    double flops, memory;                     // of a token; numbers a sequence is remembered by
    int64_t skipped;                          // updates left out, their gradient not being finite
} trial;

static void draw_sequences(trial *t, int64_t B) {
    int64_t numbers = 2 * B * t->tokens + B * t->questions + 2 * t->n;
    int64_t *key = ttt_alloc(t->c, (size_t)numbers * sizeof *key, false);
    if (!key) die("out of memory");
    int64_t *value = key + B * t->tokens, *label = value + B * t->tokens;
    int64_t *deck = label + B * t->questions;
    for (int64_t i = 0; i < 2 * t->n; i++) deck[i] = i;
    for (int64_t b = 0; b < B; b++) {
        int64_t *k = key + b * t->tokens, *v = value + b * t->tokens;
        for (int64_t i = 0; i < t->n; i++) {  // the first n of a shuffled deck
            int64_t j = i + ttt_rng_below(&t->rng, 2 * t->n - i), taken = deck[j];
            deck[j] = deck[i];
            deck[i] = k[i] = taken;
            v[i] = ttt_rng_below(&t->rng, VALUES);
        }
        for (int64_t i = 0; i < t->questions; i++) {
            int64_t j = ttt_rng_below(&t->rng, t->n);
            k[t->n + i] = k[j];
            v[t->n + i] = VALUES;  // none
            label[b * t->questions + i] = v[j];
        }
    }
    t->keys = ttt_from_int(t->c, TTT_SHAPE(B * t->tokens), key);
    t->values = ttt_from_int(t->c, TTT_SHAPE(B * t->tokens), value);
    t->labels = ttt_from_int(t->c, TTT_SHAPE(B * t->questions), label);
}

static void make_model(trial *t, int64_t keys) {
    static const ttt_param_row rows[] = {
        { "keys", "K D", TTT_INIT_NORMAL_IN, "1", NULL, 0, 0 },
        { "values", "V D", TTT_INIT_NORMAL_IN, "1", NULL, 0, 0 },
    };
    int64_t D = t->mixer.dim;
    ttt_sizes s = { .of = { ['K'] = keys, ['V'] = VALUES + 1, ['D'] = D } };
    char name[32];
    ttt_params_add(t->c, rows, 2, 0, &s, &t->params, "embedding");
    for (int i = 0; i < DEPTH; i++) {
#define NAMED(part) (snprintf(name, sizeof name, "block_%d/%s", i, part), name)
        ttt_layer_norm_new(t->c, D, &t->params, NAMED("norm_0"));
        ttt_mixer_new(t->c, &t->mixer, &t->params, NAMED("mixer"));
        ttt_layer_norm_new(t->c, D, &t->params, NAMED("norm_1"));
        ttt_mlp_new(t->c, D, 4 * D, &t->params, NAMED("mlp"));
    }
    ttt_layer_norm_new(t->c, D, &t->params, "norm");
    ttt_dense_new(t->c, D, VALUES, TTT_INIT_ZERO, &t->params, "head");
}

// -> logits (B questions,VALUES). Only questions are answered, so what follows the last mixer sees
// them alone.
static ttt_tensor *forward(const trial *t) {
    ttt_ctx *c = t->c;
    int64_t B = t->keys->size / t->tokens, D = t->mixer.dim;
    ttt_weights w = ttt_params_weights(&t->params);
    ttt_weights table = ttt_weights_take(c, "embedding", &w, 2);
    if (!ttt_ok(c)) return t->keys;
    ttt_tensor *x = ttt_embedding(c, table.at[0], t->keys);
    x = ttt_add(c, x, ttt_embedding(c, table.at[1], t->values));
    x = ttt_reshape(c, x, TTT_SHAPE(B, t->tokens, D));
    for (int i = 0; i < DEPTH; i++) {
        ttt_weights norm = ttt_weights_take(c, "block", &w, 2);
        ttt_weights mixer = ttt_weights_take(c, "block", &w, ttt_mixer_count(&t->mixer));
        x = ttt_add(c, x, ttt_mixer_forward(c, &t->mixer, mixer, ttt_layer_norm(c, norm, x), NULL));
        if (i + 1 == DEPTH) x = ttt_slice(c, x, 1, t->n, t->questions);
        x = ttt_residual_mlp(c, ttt_weights_take(c, "block", &w, 6), x);
    }
    x = ttt_reshape(c, x, TTT_SHAPE(B * t->questions, D));
    x = ttt_layer_norm(c, ttt_weights_take(c, "norm", &w, 2), x);
    return ttt_dense(c, w, x);
}

// ---- training -----------------------------------------------------------------------------------
// A new model, for so many pairs at most.
static trial begin(const options *o, const variant *v, int64_t most) {
    trial t = { .o = o, .v = v, .mixer = v->d, .questions = o->questions };
    ttt_desc machine = { .seed = (uint64_t)o->seed, .threads = thread_count(o->threads) };
    t.mixer.dim = o->width;
    t.mixer.heads = o->heads;
    if (ttt_mixer_takes(t.mixer.mixer, "max_tokens")) t.mixer.max_tokens = most + t.questions;
    if (t.mixer.grid_rows) t.mixer.grid_cols = most + t.questions;
    t.c = open_or_die(&machine);
    make_model(&t, 2 * most);
    return t;
}

static int64_t steps_of(const options *o, const variant *v) {
    return (int64_t)((double)o->steps * v->patience);
}

static void train(trial *t) {
    int64_t steps = steps_of(t->o, t->v);
    ttt_optimizer_desc d = { .lr = (ttt_real)1e-2, .weight_decay = (ttt_real)0.01, .clip = 1,
                             .warmup = steps / 10, .total = steps };
    ttt_optimizer *opt = ttt_optimizer_new(t->c, &d, &t->params);
    progress p = { 0, steps, BATCH, "sequences", 0, 0 };
    char what[80];
    for (int64_t step = 0; step < steps && ttt_ok(t->c); step++) {
        ttt_mark mark = ttt_mark_get(t->c);
        draw_sequences(t, BATCH);
        ttt_tensor *target = ttt_one_hot(t->c, t->labels, VALUES);
        ttt_tensor *loss = ttt_cross_entropy(t->c, forward(t), target);
        ttt_optimizer_step(t->c, opt, loss);
        snprintf(what, sizeof what, "%s, %lld pairs  loss %.3f", t->v->label, (long long)t->n,
                 (double)ttt_item(loss));
        progress_show(&p, step, what);
        ttt_mark_release(t->c, mark);
    }
    status_clear();
    if (opt) t->skipped = opt->skipped;
}

static void test(trial *t) {
    int64_t right = 0, B = 100;
    bool recording = ttt_set_recording(t->c, false);
    for (int64_t seen = 0; seen < TESTS && ttt_ok(t->c); seen += B) {
        ttt_mark mark = ttt_mark_get(t->c);
        draw_sequences(t, B);
        right += ttt_count_correct(forward(t), t->labels);
        ttt_mark_release(t->c, mark);
    }
    ttt_set_recording(t->c, recording);
    t->accuracy = (double)right / (double)(TESTS * t->questions);
}

// Trains the model further, with n pairs, and tests it. --grow calls this again and again: a model
// that can look up one of 16 pairs need not find out from 32 what the task is. With a memory that
// overflows, that takes very long.
static void train_and_test(trial *t, int64_t n) {
    ttt_rng stream = ttt_rng_at((uint64_t)t->o->seed, 0, 0, 0);
    double start = ttt_seconds();
    t->n = n;
    t->tokens = t->n + t->questions;
    if (t->mixer.grid_rows) t->mixer.grid_cols = t->tokens;
    t->rng = ttt_rng_fold(stream, 2 * (uint64_t)n);
    train(t);
    t->rng = ttt_rng_fold(stream, 2 * (uint64_t)n + 1);
    test(t);
    if (!ttt_ok(t->c)) die("%s", ttt_error(t->c));
    t->seconds += ttt_seconds() - start;
    t->flops = t->mixer.mixer->flops(&t->mixer, t->tokens) / (double)t->tokens;
    t->memory = t->mixer.mixer->state ? t->mixer.mixer->state(&t->mixer, t->tokens) : 0;
}

// ---- one length, all mixers ---------------------------------------------------------------------
// Answers of one sequence come from one memory, so the deviation counts them as one: it is an upper
// bound. Returns how many contradict their variants, which speak of 16 pairs after 500 steps.
static int compare(const options *o, const variant *runs, int n_runs) {
    int surprises = 0;
    printf("%lld pairs, keys out of %lld, %lld questions, width %lld, %lld heads, %lld steps, "
           "seed %lld; chance is %.1f %%\n\n", o->n, 2 * o->n, o->questions, o->width, o->heads,
           o->steps, o->seed, 100.0 / VALUES);
    printf("%-22s  right, %%         FLOPs a token   memory   seconds\n", "mixer");
    for (int i = 0; i < n_runs; i++) {
        trial t = begin(o, &runs[i], o->n);
        train_and_test(&t, o->n);
        ttt_close(t.c);
        double p = t.accuracy, most = runs[i].most;
        bool surprise = o->n == 16 && o->steps >= 500 && (most > 0 ? p > most : p < 0.8);
        printf("%-22s  %6.2f +- %.2f  %13.0f  %7.0f  %8.1f%s%s\n", runs[i].label, 100 * p,
               100 * sqrt(p * (1 - p) / TESTS), t.flops, t.memory, t.seconds,
               most > 0 ? "  cannot" : "", surprise ? "  NOT AS EXPECTED" : "");
        if (runs[i].patience != 1)
            printf("%-22s  %lld steps\n", "", (long long)steps_of(o, &runs[i]));
        if (t.skipped) printf("%-22s  %lld updates left out\n", "", (long long)t.skipped);
        fflush(stdout);
        surprises += surprise;
    }
    return surprises;
}

// ---- all lengths, some mixers -------------------------------------------------------------------
static void draw(const options *o, const chart_series *share, const chart_series *held, int n) {
    chart_panel panels[2] = {
        { "answers that are right, %", "pairs shown, log2: 3 is 8, 5 is 32, 7 is 128", "per cent",
          share, n, false },
        { "pairs held (dashed: all that were shown)", "pairs shown", "pairs", held, n, true } };
    char title[120];
    snprintf(title, sizeof title, "Pair recall: width %lld, %lld heads of %lld", o->width, o->heads,
             o->width / o->heads);
    line_chart chart = { title, panels, 2, 2 };
    ttt_ctx *c = open_or_die(NULL);
    line_chart_write(c, o->out, &chart);
    need_ok(c, "--out");
    ttt_close(c);
}

// A guess is right once in eight times, so n (p - 1/8) / (1 - 1/8) pairs are held. A matrix (h,h)
// has room for h pairs that do not disturb each other, since no more keys can be orthogonal to each
// other. H of them, asked only which of eight values is nearest, do better, up to a point.
static void grow(const options *o, const variant *runs, int n_runs) {
    static double pairs[LENGTHS], log_pairs[LENGTHS];
    static double share[MOST_RUNS][LENGTHS], held[MOST_RUNS][LENGTHS];
    static chart_series shares[MOST_RUNS], helds[MOST_RUNS];
    int lengths = 0;
    char lock[1200];
    snprintf(lock, sizeof lock, "%s.lock", o->out);
    lock_or_die(lock);  // the chart is drawn again and again
    printf("pairs held, of those shown; width %lld, %lld heads of %lld, %lld questions, "
           "%lld steps, seed %lld\n\n", o->width, o->heads, o->width / o->heads, o->questions,
           o->steps, o->seed);
    printf("%-22s   memory", "mixer");
    for (int64_t n = N_LEAST; n <= o->n; n *= 2) {
        pairs[lengths] = (double)n;
        log_pairs[lengths++] = log2((double)n);
        printf(" %7lld", (long long)n);
    }
    printf("   seconds\n");
    for (int i = 0; i < n_runs; i++) {
        draw(o, shares, helds, i);  // what there is so far; the first shows early if --out is bad
        trial t = begin(o, &runs[i], N_LEAST << (lengths - 1));
        for (int k = 0; k < lengths; k++) {
            train_and_test(&t, N_LEAST << k);
            share[i][k] = 100 * t.accuracy;
            held[i][k] = pairs[k] * (t.accuracy - 1.0 / VALUES) / (1 - 1.0 / VALUES);
        }
        ttt_close(t.c);
        printf("%-22s %8.0f", runs[i].label, t.memory);
        for (int k = 0; k < lengths; k++) printf(" %7.1f", held[i][k]);
        printf(" %9.1f\n", t.seconds);
        fflush(stdout);
        shares[i] = (chart_series){ .name = runs[i].label, .x = log_pairs, .y = share[i],
                                    .n = lengths, .color = color_of(runs[i].d.mixer->name),
                                    .broad = i > 0 && runs[i].d.mixer == runs[i - 1].d.mixer };
        helds[i] = shares[i];
        helds[i].name = NULL;
        helds[i].x = pairs;
        helds[i].y = held[i];
        helds[i].limit = i == 0 ? pairs : NULL;
    }
    draw(o, shares, helds, n_runs);
    printf("\nwritten: %s\n", o->out);
}

int main(int argc, char **argv) {
    static variant runs[MOST_RUNS];
    options o = { .out = "recall.svg", .steps = 500, .seed = 1 };
    read_options(argc, argv, &o);
    if (o.n == 0) o.n = o.grow ? 128 : 16;
    if (o.questions == 0) o.questions = o.grow ? 16 : 8;
    if (o.width == 0) o.width = o.grow ? 32 : 48;
    if (o.heads == 0) o.heads = o.grow ? 4 : 3;
    check_names(o.mixer, runs);
    int n_runs = list_runs(o.mixer || !o.grow ? o.mixer : grown, runs);
    if (o.grow) return grow(&o, runs, n_runs), 0;
    return compare(&o, runs, n_runs) > 0;
}
