// test_mixers.c - every mixer against the cases that mixers.py computed from the equations alone:
// outputs and gradients on every instruction set, derivatives of two orders, what ttt_unmask shows,
// and refusals; every option of every mixer. Runs in the root of the repository.
#define TTT_IMPLEMENTATION
#include "../ttt_data.h"
#include "../ttt_layers.h"
#include "layer_form.h"
#include "ttt_test.h"

#define DOUBLE (sizeof(ttt_real) == 8)
#define REAL(x) ((ttt_real)(x))
#define FOLDER "tests/mixers/"

// ---- a case -------------------------------------------------------------------------------------
typedef struct {
    ttt_ctx *c;
    ttt_bundle file;
    ttt_mixer_desc d;
    ttt_params p;
    ttt_weights w;
    ttt_tensor *x, *cotangent;
    ttt_tensor *wrt[64];  // x and all parameters
    int n;
} mixer_case;

static int64_t whole(const char *text) { return strtoll(text, NULL, 10); }
static double real(const char *text) { return strtod(text, NULL); }
static bool yes(const char *text) { return strcmp(text, "true") == 0; }
static int normalizer(const char *text) {
    bool constant = strcmp(text, "constant") == 0;
    return constant ? TTT_NORMALIZER_CONSTANT : TTT_NORMALIZER_NONE;
}
static int kernel(const char *text) {
    bool gaussian = strcmp(text, "gaussian") == 0;
    return gaussian ? TTT_ATTENTION_KERNEL_GAUSSIAN : TTT_ATTENTION_KERNEL_NEAREST;
}

// The fields that a case may set, their types and how their text is read. No file names a default.
#define FIELDS(X)                                                                                  \
    X(dim, int64_t, whole) X(heads, int64_t, whole) X(inner_lr, ttt_real, real)                    \
    X(no_inner_bias, bool, yes) X(no_decoder_norm, bool, yes)                                      \
    X(identity_map, bool, yes) X(normalizer, ttt_normalizer, normalizer)                           \
    X(causal, bool, yes) X(chunk, int64_t, whole) X(no_short_conv, bool, yes) X(muon, bool, yes)   \
    X(kernel, ttt_attention_kernel, kernel) X(bandwidth, ttt_real, real)                           \
    X(neighbors, int64_t, whole) X(window, int64_t, whole) X(globals, int64_t, whole)              \
    X(compressed, int64_t, whole) X(max_tokens, int64_t, whole) X(grid_rows, int64_t, whole)       \
    X(grid_cols, int64_t, whole) X(power, int, whole) X(rotary, ttt_real, real)                    \
    X(token_index, bool, yes) X(share_qk, bool, yes) X(conv, int64_t, whole)                       \
    X(output_gate, bool, yes)

static const char *note(const mixer_case *m, const char *key) {
    const char *text = ttt_bundle_note(&m->file, key);
    return text ? text : "";
}

static ttt_mixer_desc description(const mixer_case *m) {
    ttt_mixer_desc d = { 0 };
    const char *text;
    int64_t read = 3;  // family, mixer, exact
    d.mixer = ttt_mixer_find(note(m, "mixer"));
#define X(field, type, parse)                            \
    if ((text = ttt_bundle_note(&m->file, #field))) {    \
        d.field = (type)parse(text);                     \
        read++;                                          \
    }
    FIELDS(X)
#undef X
    CHECK(read == m->file.n_notes);  // else the table above lacks a field
    return d;
}

static ttt_tensor *tensor(const mixer_case *m, const char *prefix, const char *name) {
    char full[200];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    ttt_tensor *t = ttt_bundle_find(&m->file, full);
    if (!t) printf("  there is no %s\n", full);
    return t;
}

static bool take(const mixer_case *m, ttt_tensor *to, const char *prefix, const char *name) {
    const ttt_tensor *from = tensor(m, prefix, name);
    if (!from || !ttt_shape_equal(from->shape, to->shape)) return false;
    memcpy(to->data, from->data, (size_t)to->size * sizeof(ttt_real));
    return true;
}

// Reads a case and makes its layer. False, and a failed check, unless it has all tensors of this
// very layer.
static bool open_case(mixer_case *m, const char *name, const char *isa) {
    char path[200];
    *m = (mixer_case){ .c = ttt_open(&(ttt_desc){ .isa = isa, .seed = 1 }) };
    snprintf(path, sizeof path, FOLDER "%s.safetensors", name);
    ttt_safetensors_read(m->c, path, &m->file);
    m->d = description(m);
    m->w = ttt_mixer_new(m->c, &m->d, &m->p, "");
    bool good = ttt_ok(m->c) && m->p.n < 63 && m->file.n_tensors == 2 * m->p.n + 4;
    good = good && (m->cotangent = tensor(m, "cotangent", "")) && tensor(m, "grad.x", "") &&
           tensor(m, "y", "");
    if (good)
        good = take(m, m->wrt[m->n++] = m->x = ttt_zeros_kept(m->c, m->cotangent->shape), "x", "");
    for (int i = 0; i < m->p.n && good; i++) {
        const char *parameter = m->p.item[i].name;
        good = take(m, m->wrt[m->n++] = m->p.value[i], "param/", parameter) &&
               tensor(m, "grad/", parameter);
    }
    if (!good) printf("  %s: not the case of this layer %s\n", name, ttt_error(m->c));
    CHECK(good);
    return good;
}

typedef void case_test(mixer_case *m, const char *name);
static void each_case(const char *isa, case_test *test) {
    char name[100];
    mixer_case m;
    FILE *list = fopen(FOLDER "index", "r");
    CHECK(list != NULL);
    while (list && fscanf(list, "%99s", name) == 1) {
        if (open_case(&m, name, isa)) test(&m, name);
        ttt_close(m.c);
    }
    if (list) fclose(list);
}

// ---- outputs and gradients ----------------------------------------------------------------------
static double worst[2];  // of y, of gradients; all instruction sets, all cases but those of muon
static const char *isa_at_work;

static double largest(const ttt_tensor *t) {
    double most = 0;
    for (int64_t i = 0; i < t->size; i++) most = fmax(most, fabs((double)t->data[i]));
    return most;
}

// The largest error of a kind in one case, in units of the tensor it is in, and where.
typedef struct {
    double error;
    const char *where;
} largest_error;

static void compare(const char *where, ttt_tensor *got, ttt_tensor *want, double floor,
                    largest_error *most) {
    double e = ttt_max_abs_diff(got, want) / fmax(largest(want), floor);
    if (e > most->error || e != e) *most = (largest_error){ e == e ? e : HUGE_VAL, where };
}
// Newton and Schulz's iteration multiplies what is small by up to 485: float knows three digits of
// a gradient then.
static void judge(const mixer_case *m, const char *name, largest_error e, double *of_all) {
    double limit = DOUBLE ? 1e-12 : m->d.muon ? 1e-3 : 2e-5;
    if (!(e.error <= limit))
        printf("  %s: %s is off by %.2e (%s)\n", name, e.where, e.error, isa_at_work);
    CHECK(e.error <= limit);
    if (!m->d.muon) *of_all = fmax(*of_all, e.error);
}

static void replay_as_is(mixer_case *m, const char *name) {
    largest_error of_y = { 0, "y" }, of_g = { 0, "grad.x" };
    ttt_tensor *g[64], *want[64], *y = ttt_mixer_forward(m->c, &m->d, m->w, m->x, NULL);
    ttt_vjp(m->c, y, m->cotangent, m->wrt, m->n, g, TTT_GRAD_FIRST_ORDER);
    if (!ttt_ok(m->c)) printf("  %s: %s\n", name, ttt_error(m->c));
    CHECK(ttt_ok(m->c));
    if (!ttt_ok(m->c)) return;
    double most = 0;
    for (int i = 0; i < m->n; i++) {
        want[i] = i ? tensor(m, "grad/", m->p.item[i - 1].name) : tensor(m, "grad.x", "");
        most = fmax(most, largest(want[i]));
    }
    compare("y", y, tensor(m, "y", ""), 0, &of_y);
    for (int i = 0; i < m->n; i++) {
        const char *which = i ? m->p.item[i - 1].name : "x";
        // The bias of the keys changes nothing where a softmax follows: its gradient is rounding.
        bool vanishes = largest(want[i]) < 1e-12 * most;
        compare(which, g[i], want[i], vanishes ? most : 1e-2 * most, &of_g);
    }
    judge(m, name, of_y, &worst[0]);
    judge(m, name, of_g, &worst[1]);
}
// Fused where there is such a form, and op by op.
static void replay(mixer_case *m, const char *name) {
    replay_as_is(m, name);
    m->d.no_fused = true;
    replay_as_is(m, name);
}

static void mixers_equal_their_plain_form(void) {
    for (int i = 0; (isa_at_work = ttt_isa_name(i)) != NULL; i++) each_case(isa_at_work, replay);
    printf("ok   largest errors: y %.1e, gradients %.1e\n", worst[0], worst[1]);
}

static void every_mixer_has_a_case(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *mixer = ttt_mixer_at(i);
        char line[100];
        bool found = mixer == &ttt_mixer_none || mixer == &ttt_mixer_mttt_linear ||
                     mixer == &ttt_mixer_mttt_mlp;  // golden.c has those
        FILE *list = fopen(FOLDER "index", "r");
        while (list && !found && fscanf(list, "%99s", line) == 1) {
            mixer_case m;
            if (open_case(&m, line, NULL)) found = m.d.mixer == mixer;
            ttt_close(m.c);
        }
        if (list) fclose(list);
        if (!found) printf("  %s has none\n", mixer->name);
        CHECK(found);
    }
}

// ---- derivatives --------------------------------------------------------------------------------
static ttt_tensor *value(ttt_ctx *c, ttt_tensor *const *x, int n, void *user) {
    mixer_case *m = user;
    (void)x;
    (void)n;
    ttt_tensor *y = ttt_mixer_forward(c, &m->d, m->w, m->x, NULL);
    return ttt_sum(c, ttt_mul(c, m->cotangent, ttt_add(c, y, ttt_square(c, y))));
}

static void differentiate(mixer_case *m, const char *name) {
    for (int order = 1; order <= 2; order++) {
        // steps so small for muon and for kinks
        double e = ttt_check_gradient(m->c, value, m->wrt, m->n, m, order, 1e-5);
        if (!(e <= 1e-6))
            printf("  %s: order %d is off by %.2e %s\n", name, order, e, ttt_error(m->c));
        CHECK(e <= 1e-6);
    }
}
static void two_orders_of_derivatives_agree_with_differences(void) {
    if (!DOUBLE) SKIP("needs double");
    each_case(NULL, differentiate);
}

// Blank tokens: one sequence is zero, then all are. Lengths of what is written are then exactly 0.
static void differentiate_at_zero(mixer_case *m, const char *name) {
    for (int all = 0; all < 2; all++) {
        int64_t zeros = all ? m->x->size : m->x->size / m->x->shape.dim[0];
        memset(m->x->data, 0, (size_t)zeros * sizeof(ttt_real));
        for (int order = 1; order <= 2; order++) {
            ttt_tensor *g[64], *y = value(m->c, m->wrt, m->n, m);
            ttt_grad(m->c, y, m->wrt, m->n, g, TTT_GRAD_RECORD);
            for (int i = 0; i < m->n && order > 1 && ttt_ok(m->c); i++)
                y = i ? ttt_add(m->c, y, ttt_sum(m->c, g[i])) : ttt_sum(m->c, g[i]);
            if (order > 1) ttt_grad(m->c, y, m->wrt, m->n, g, TTT_GRAD_FIRST_ORDER);
            bool finite = ttt_ok(m->c);
            for (int i = 0; i < m->n && finite; i++)
                for (int64_t j = 0; j < g[i]->size && finite; j++)
                    finite = isfinite((double)g[i]->data[j]);
            if (!finite) printf("  %s: order %d is not finite at zero\n", name, order);
            CHECK(finite);
        }
        // Near 0 units turn within 1e-5, and muon within 1e-7; so short a step leaves few digits.
        // Of equal keys none is the nearest: nothing to check.
        bool jumps = m->d.kernel == TTT_ATTENTION_KERNEL_NEAREST;
        double e = DOUBLE && !jumps ? ttt_check_gradient(m->c, value, m->wrt, m->n, m, 1, 1e-9) : 0;
        if (!(e <= 1e-3)) printf("  %s: off by %.2e at zero\n", name, e);
        CHECK(e <= 1e-3);
    }
}
static void derivatives_at_sequences_of_zeros(void) { each_case(NULL, differentiate_at_zero); }

// ---- unmasking ----------------------------------------------------------------------------------
// max |read - (M v + carry q S_0)| / max |read|: the claim, looked at again
static double unmasked_error(ttt_ctx *c, const ttt_unmasked *u) {
    ttt_tensor *y = ttt_matmul(c, u->matrix, u->value);
    if (u->start) {
        ttt_tensor *rest = ttt_matmul(c, u->query, u->start);
        y = ttt_add(c, y, u->carry ? ttt_mul(c, u->carry, rest) : rest);
    }
    return ttt_max_abs_diff(y, u->read) / largest(u->read);
}

static void unmask(mixer_case *m, const char *name) {
    ttt_unmasked u;
    ttt_unmask(m->c, &m->d, m->w, m->x, &u);
    CHECK(ttt_ok(m->c) && u.equals && *u.equals);
    CHECK(u.exact == yes(note(m, "exact")));
    double e = ttt_ok(m->c) && u.exact ? ttt_test_worse(u.error, unmasked_error(m->c, &u)) : 0;
    if (!(e <= (DOUBLE ? 1e-12 : 1e-5)) || !ttt_ok(m->c))
        printf("  %s: off by %.2e, says %.2e %s\n", name, e, u.error, ttt_error(m->c));
    CHECK(e <= (DOUBLE ? 1e-12 : 1e-5));
    CHECK(ttt_ok(m->c) && u.matrix->shape.rank == 4 &&
          u.matrix->shape.dim[2] == m->x->shape.dim[1]);
}
static void unmasked_matrices_reproduce_the_layer(void) { each_case(NULL, unmask); }

// ---- refusals -----------------------------------------------------------------------------------
static const ttt_real other_rates[3] = { REAL(0.9), REAL(0.6), REAL(0.3) };

static void refuses(const char *mixer, int64_t N, ttt_mixer_desc d, const char *field) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_params p = { 0 };
    d.mixer = ttt_mixer_find(mixer);
    if (!d.dim) d.dim = 8;
    if (!d.heads) d.heads = 2;
    ttt_weights w = ttt_mixer_new(c, &d, &p, "");
    if (ttt_ok(c)) ttt_mixer_forward(c, &d, w, ttt_randn(c, TTT_SHAPE(1, N, d.dim)), NULL);
    char dotted[40];
    snprintf(dotted, sizeof dotted, ".%s", field);
    bool named = !ttt_ok(c) && strstr(ttt_error(c), dotted) && strstr(ttt_error(c), mixer);
    if (!named) printf("  %s: .%s goes unnamed: '%s'\n", mixer, field, ttt_error(c));
    CHECK(named);
    ttt_close(c);
}
#define REFUSES(mixer, N, field, ...) refuses(mixer, N, (ttt_mixer_desc){ __VA_ARGS__ }, field)

static void errors_name_the_field(void) {
    REFUSES("self-attention", 4, "heads", .heads = 3);
    REFUSES("longformer", 9, "window", .window = 4, .grid_rows = 3, .grid_cols = 3);
    REFUSES("longformer", 9, "window", .window = -1);
    REFUSES("longformer", 4, "globals", .globals = 4);
    REFUSES("longformer", 4, "globals", .globals = -1);
    REFUSES("longformer", 9, "grid_cols", .grid_rows = 3);
    REFUSES("longformer", 9, "grid_rows", .grid_cols = 3);
    REFUSES("longformer", 9, "grid_rows", .grid_rows = 3, .grid_cols = 3, .globals = 1);
    REFUSES("longformer", 6, "grid_rows", .grid_rows = -3, .grid_cols = -2);
    REFUSES("linformer", 9, "max_tokens", .max_tokens = 8);
    REFUSES("linformer", 9, "max_tokens", .max_tokens = 0);
    REFUSES("linformer", 8, "compressed", .max_tokens = 8, .compressed = -1);
    REFUSES("vittt", 9, "grid_rows", .dim = 8);
    REFUSES("vittt", 9, "grid_cols", .grid_rows = 3);
    REFUSES("vittt", 8, "grid_rows", .grid_rows = 3, .grid_cols = 3);
    REFUSES("vittt", 9, "globals", .grid_rows = 2, .grid_cols = 4, .globals = 1);
    REFUSES("focused-linear", 9, "grid_rows", .max_tokens = 9);
    REFUSES("focused-linear", 9, "max_tokens", .grid_rows = 3, .grid_cols = 3, .max_tokens = 8);
    REFUSES("focused-linear", 9, "power", .grid_rows = 3, .grid_cols = 3, .max_tokens = 9,
            .power = -1);
    REFUSES("nadaraya-watson", 9, "neighbors", .neighbors = -1);
    REFUSES("nadaraya-watson", 4, "neighbors", .kernel = TTT_ATTENTION_KERNEL_NEAREST,
            .neighbors = 5);
    REFUSES("nadaraya-watson", 4, "bandwidth is -0.5", .kernel = TTT_ATTENTION_KERNEL_GAUSSIAN,
            .bandwidth = (ttt_real)-0.5);
    REFUSES("nadaraya-watson", 4, "bandwidth", .kernel = TTT_ATTENTION_KERNEL_GAUSSIAN,
            .bandwidth = (ttt_real)NAN);
    REFUSES("nadaraya-watson", 4, "kernel is 9", .kernel = (ttt_attention_kernel)9);
    REFUSES("nadaraya-watson", 4, "neighbors", .kernel = TTT_ATTENTION_KERNEL_GAUSSIAN,
            .neighbors = 2);
    REFUSES("linear-attention", 4, "normalizer is 3", .normalizer = (ttt_normalizer)3);
    REFUSES("ttt-mlp", 4, "conv", .inner_lr = 1, .share_qk = true, .conv = -1);
    REFUSES("ttt-linear", 4, "rotary is -1", .inner_lr = 1, .causal = true, .rotary = -1);
    REFUSES("ttt-linear", 4, "rotary is nan", .inner_lr = 1, .causal = true,
            .rotary = (ttt_real)NAN);
    REFUSES("ttt-linear", 4, "rotary", .inner_lr = 1, .causal = true, .rotary = 9, .dim = 3,
            .heads = 3);
    REFUSES("mttt-mlp", 9, "inner_lrs", .inner_steps = 3, .inner_lr = 1,
            .inner_lrs = other_rates);
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *m = ttt_mixer_at(i);
        ttt_mixer_desc d = { .inner_lr = 1, .causal = true, .chunk = -1 };
        if (ttt_mixer_takes(m, "chunk")) refuses(m->name, 9, ttt_mixer_offer(m, &d), "chunk");
        d = (ttt_mixer_desc){ .max_tokens = 9, .grid_rows = 3, .grid_cols = 3 };
        if (ttt_mixer_takes(m, "inner_lr")) refuses(m->name, 9, ttt_mixer_offer(m, &d), "inner_lr");
    }
}

// ---- options: each changes the result, or is refused by name ------------------------------------
enum { TOKENS = 9 };

// What the mixer needs: its result is what an option has to change. The grid is TOKENS large.
static ttt_mixer_desc needed(const ttt_mixer *m) {
    ttt_mixer_desc d = { .inner_steps = 3, .inner_lr = REAL(0.5), .max_tokens = TOKENS };
    d = ttt_mixer_offer(m, &d);
    d.dim = 8;
    d.heads = 2;
    if (m->flags & TTT_MIXER_GRID) d.grid_rows = d.grid_cols = 3;
    return d;
}

// A valid value of every option that is not its default.
static ttt_mixer_desc others(ttt_ctx *c) {
    int64_t order[2 * TOKENS];
    for (int i = 0; i < 2 * TOKENS; i++) order[i] = TOKENS - 1 - i % TOKENS;
    return (ttt_mixer_desc){
        .inner_steps = 2, .inner_lr = REAL(0.9), .inner_lrs = other_rates, .inner_sgd = true,
        .order = ttt_from_int(c, TTT_SHAPE(2, TOKENS), order), .learn_rates = true,
        .no_inner_bias = true, .no_decoder_norm = true, .zero_w0 = true, .first_order = true,
        .causal = true, .chunk = 4, .window = 2, .globals = 2, .grid_rows = 3, .grid_cols = 3,
        .identity_map = true, .normalizer = TTT_NORMALIZER_CONSTANT, .power = 2,
        .kernel = TTT_ATTENTION_KERNEL_NEAREST, .bandwidth = REAL(0.7), .neighbors = 3,
        .max_tokens = 12, .compressed = 4, .no_short_conv = true, .muon = true, .rotary = 100,
        .token_index = true, .share_qk = true, .conv = 3, .output_gate = true,
    };
}

static const char *const options[] = {
#define X(type, field, with, meaning) #field,
    TTT_MIXER_OPTIONS(X)
#undef X
};
static const char *const needs[] = {
#define X(type, field, with, meaning) with,
    TTT_MIXER_OPTIONS(X)
#undef X
};
static const char *const meanings[] = {
#define X(type, field, with, meaning) meaning,
    TTT_MIXER_OPTIONS(X)
#undef X
};
enum { N_OPTIONS = sizeof options / sizeof *options };

static void set(ttt_mixer_desc *d, const ttt_mixer_desc *from, const char *option) {
#define X(type, field, with, meaning) \
    if (strcmp(option, #field) == 0) d->field = from->field;
    TTT_MIXER_OPTIONS(X)
#undef X
}

// Option `o` for its mixer, beside what the mixer and the option need; or these alone.
static ttt_mixer_desc with_option(ttt_ctx *c, const ttt_mixer *m, int o, bool varied) {
    ttt_mixer_desc d = needed(m), other = others(c);
    bool grid = ttt_mixer_takes(m, "grid_cols"), cols = strcmp(options[o], "grid_cols") == 0;
    if (needs[o] && ttt_mixer_takes(m, needs[o])) set(&d, &other, needs[o]);
    if (grid && cols) d.grid_cols = 3;
    if (!varied) return d;
    set(&d, &other, options[o]);
    if (d.inner_lrs && ttt_mixer_takes(m, "inner_lrs")) d.inner_lr = 0;
    if (grid && cols) d.grid_rows = 1, d.grid_cols = TOKENS;
    if (grid && strcmp(options[o], "grid_rows") == 0) d.grid_rows = TOKENS, d.grid_cols = 1;
    return d;
}

typedef struct {
    ttt_ctx *c;
    ttt_params p;
    ttt_tensor *made[64];  // y, inner losses, gradients
    int n;
    int64_t ops;           // that were run
} outcome;

static outcome evaluate(const ttt_mixer *m, int o, bool varied, bool no_fused) {
    outcome r = { .c = ttt_open(&(ttt_desc){ .seed = 5 }) };
    ttt_mixer_desc d = o < 0 ? needed(m) : with_option(r.c, m, o, varied);
    ttt_tensor *x = ttt_randn(r.c, TTT_SHAPE(2, TOKENS, d.dim)), *wrt[64] = { x };
    ttt_tensor *cotangent = ttt_randn(r.c, x->shape), **losses = &r.made[1];
    static ttt_profile_row row[400];
    d.no_fused = no_fused;
    ttt_weights w = ttt_mixer_new(r.c, &d, &r.p, "");
    ttt_rng rng = ttt_rng_at(9, 0, 0, 0);
    for (int i = 0; i < r.p.n; i++) {
        wrt[i + 1] = w.at[i];
        bool start = r.p.item[i].flags & TTT_PARAM_INNER;  // stays: it may be zero by option
        for (int64_t j = 0; j < w.at[i]->size && !start; j++)
            w.at[i]->data[j] += REAL(0.2 * ttt_rng_normal(&rng));
    }
    ttt_profile_start(r.c);
    r.made[r.n++] = ttt_mixer_forward(r.c, &d, w, x, m->learner && o >= 0 ? losses : NULL);
    if (r.made[1]) r.n++;
    ttt_vjp(r.c, r.made[0], cotangent, wrt, r.p.n + 1, r.made + r.n, TTT_GRAD_FIRST_ORDER);
    ttt_profile_stop(r.c);
    r.n += r.p.n + 1;
    for (int i = 0, n = ttt_profile_rows(r.c, row, 400); i < n; i++) r.ops += row[i].calls;
    return r;
}

// How far b is from a, in units of the largest number of its kind; huge if b has other parameters.
static double change(const outcome *a, const outcome *b) {
    double most = 0, off = 0;
    if (a->n != b->n) return HUGE_VAL;
    for (int i = 0; i < a->n; i++) most = fmax(most, i ? largest(a->made[i]) : 0);
    for (int i = 0; i < a->n; i++) {
        if (!ttt_shape_equal(a->made[i]->shape, b->made[i]->shape)) return HUGE_VAL;
        double unit = i ? most : largest(a->made[0]);
        off = fmax(off, ttt_max_abs_diff(a->made[i], b->made[i]) / unit);
    }
    return off;
}

// Whether error text `e` names the mixer and the option.
static bool names(const char *e, const char *mixer, const char *option) {
    char head[80], dotted[40];
    snprintf(head, sizeof head, "%s: ", mixer);
    snprintf(dotted, sizeof dotted, ".%s ", option);
    return strncmp(e, head, strlen(head)) == 0 && strstr(e, dotted);
}

// A chunk may change nothing but how a sum is cut, which the ops of the tape show. The tables of a
// grid have its size, no other.
static void check_option(const ttt_mixer *m, int o) {
    bool takes = ttt_mixer_takes(m, options[o]), works = false;
    bool cut = strcmp(options[o], "chunk") == 0;
    outcome a = evaluate(m, o, false, cut), b = evaluate(m, o, true, cut);
    bool fixed = strcmp(options[o], "max_tokens") == 0 && m->flags & TTT_MIXER_GRID;
    if (ttt_ok(b.c)) works = takes && (change(&a, &b) > 1e-3 || (cut && a.ops != b.ops));
    else works = (!takes || fixed) && names(ttt_error(b.c), m->name, options[o]);
    if (!ttt_ok(a.c) || !works)
        printf("  %s, .%s: changes %.1e, %s; without it: '%s'\n", m->name, options[o],
               ttt_ok(b.c) ? change(&a, &b) : 0, ttt_error(b.c), ttt_error(a.c));
    CHECK(ttt_ok(a.c) && works);
    ttt_close(a.c);
    ttt_close(b.c);
}

static void every_option_works_or_is_refused(void) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_mixer_desc none = { 0 }, other = others(c);
    for (int o = 0; o < N_OPTIONS; o++) {  // a value is missing above, or one is the default
        ttt_mixer_desc d = { 0 };
        set(&d, &other, options[o]);
        CHECK(memcmp(&d, &none, sizeof d) != 0);
    }
    for (int i = 0; ttt_mixer_at(i); i++)
        for (int o = 0; o < N_OPTIONS; o++) check_option(ttt_mixer_at(i), o);
    ttt_close(c);
}

// The formula of a layer's cost is about that of the matrix products of its definition.
static void compare_flops(mixer_case *m, const char *name) {
    ttt_profile_row rows[100];
    double counted = 0;
    int64_t B = m->x->shape.dim[0], N = m->x->shape.dim[1];
    m->d.no_fused = true;
    ttt_profile_start(m->c);
    ttt_mixer_forward(m->c, &m->d, m->w, m->x, NULL);
    ttt_profile_stop(m->c);
    int n = ttt_profile_rows(m->c, rows, COUNT(rows));
    for (int i = 0; i < n; i++)
        if (!strncmp(rows[i].name, "matmul", 6) || !strncmp(rows[i].name, "affine", 6))
            counted += rows[i].flops;
    double share = m->d.mixer->flops(&m->d, N) * (double)B / counted;
    bool good = share > 0.4 && share < 2.2;
    if (!good) printf("  %s: the formula gives %.2f times what its products count\n", name, share);
    CHECK(good);
}
static void flops_are_about_those_of_the_products(void) { each_case(NULL, compare_flops); }

// Sizes beyond every sequence and every tensor: the layer works as with the largest that means
// anything, or an error says why not. No sum or product of them wraps.
#define SIZE_FIELDS(X)                                                                             \
    X(dim, 0) X(heads, 0) X(chunk, 1) X(window, 1) X(globals, 1) X(grid_rows, 1) X(grid_cols, 1)   \
    X(max_tokens, 1) X(compressed, 1) X(neighbors, 1)
static void run_with_size(ttt_mixer_desc d, const char *field, int64_t value) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_params p = { 0 };
    ttt_weights w = ttt_mixer_new(c, &d, &p, "");
    ttt_tensor *y = ttt_ok(c) ? ttt_mixer_forward(c, &d, w, ttt_randn(c, TTT_SHAPE(1, TOKENS, 8)),
                                                  NULL) : NULL;
    bool whole = y && y->size == TOKENS * 8, said = strlen(ttt_error(c)) > 20;
    if (ttt_ok(c) ? !whole : !said)
        printf("  %s: .%s = %lld\n", d.mixer->name, field, (long long)value);
    CHECK(ttt_ok(c) ? whole : said);
    ttt_close(c);
}
static void sizes_beyond_every_tensor_are_no_surprise(void) {
    const int64_t sizes[] = { INT64_MAX, (int64_t)1 << 62, INT64_MIN };
    for (int i = 0; ttt_mixer_at(i); i++)
        for (int k = 0; k < COUNT(sizes); k++)
            for (int causal = 0; causal < 2; causal++) {
                const ttt_mixer *m = ttt_mixer_at(i);
                ttt_mixer_desc plain = needed(m);
                plain.mixer = m;
                if (causal && !ttt_mixer_takes(m, "causal")) continue;
                plain.causal = causal;
                if (ttt_mixer_takes(m, "kernel")) plain.kernel = TTT_ATTENTION_KERNEL_NEAREST;
#define X(field, option)                                             \
    if (!option || ttt_mixer_takes(m, #field)) {                     \
        ttt_mixer_desc d = plain;                                    \
        d.field = sizes[k];                                          \
        run_with_size(d, #field, sizes[k]);                          \
    }
                SIZE_FIELDS(X)
#undef X
            }
}

// Without .no_fused a layer is fewer ops where it has such a form, and the same ones elsewhere.
// (The losses of some learners are taken on the tape: here nobody asks for them.)
static void no_fused_is_for_all(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *m = ttt_mixer_at(i);
        outcome a = evaluate(m, -1, false, false), b = evaluate(m, -1, false, true);
        CHECK(ttt_ok(a.c) && ttt_ok(b.c));
        CHECK(m->fused ? a.ops < b.ops : a.ops == b.ops);
        CHECK(change(&a, &b) <= (m->fused ? 1e-4 : 0));
        ttt_close(a.c);
        ttt_close(b.c);
    }
}

// Alone, an option that needs another has no effect, and that is an error too.
static void options_without_what_they_need_are_refused(void) {
    ttt_ctx *c = ttt_open(NULL);
    int found = 0;
    for (int i = 0; ttt_mixer_at(i); i++)
        for (int o = 0; o < N_OPTIONS; o++) {
            const ttt_mixer *m = ttt_mixer_at(i);
            bool both = ttt_mixer_takes(m, options[o]) && needs[o] && ttt_mixer_takes(m, needs[o]);
            if (!both || (m->flags & TTT_MIXER_GRID)) continue;
            ttt_mixer_desc d = needed(m), other = others(c);
            set(&d, &other, options[o]);
            ttt_params p = { 0 };
            ttt_mixer_new(c, &d, &p, "");
            CHECK(names(ttt_error(c), m->name, options[o]) && strstr(ttt_error(c), needs[o]));
            ttt_clear(c);
            d = ttt_mixer_offer(m, &d);  // which leaves such an option out
            CHECK(ttt_mixer_new(c, &d, &p, "").n > 0 && ttt_ok(c));
            found++;
        }
    CHECK(found >= 8);
    ttt_close(c);
}

// Whether `name` matches one of the patterns before the colon of a list: "ttt-*, *delta-net: ..."
static bool matches(const char *list, const char *name) {
    for (const char *p = list, *end = p; *end != ':'; p = end + 2) {
        end = p + strcspn(p, ",:");
        size_t n = (size_t)(end - p), length = strlen(name);
        if (n == length && strncmp(p, name, n) == 0) return true;
        if (end[-1] == '*' && strncmp(p, name, n - 1) == 0) return true;
        if (*p == '*' && length >= n - 1 && strncmp(name + length - (n - 1), p + 1, n - 1) == 0)
            return true;
    }
    return false;
}

static void rows_and_options_agree(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *m = ttt_mixer_at(i);
        size_t letters = 0;  // of the options in .takes, with a space or the end behind each
        for (int o = 0; o < N_OPTIONS; o++) {
            bool takes = ttt_mixer_takes(m, options[o]);
            letters += takes ? strlen(options[o]) + 1 : 0;
            if (takes != matches(meanings[o], m->name)) printf("  %s: %s\n", m->name, meanings[o]);
            CHECK(takes == matches(meanings[o], m->name));
        }
        CHECK(letters == (m->takes ? strlen(m->takes) + 1 : 0));  // else a word is no option
        CHECK(m->what && *m->what && m->source && *m->source);
        CHECK(ttt_mixer_find(m->name) == m);
    }
}

// ---- weights as they are stored -----------------------------------------------------------------
// Factors of products may be bfloat16: the layer is what it is with the same numbers as reals. Of
// all else that is refused by name.
static void check_stored(const ttt_mixer *m, int o, bool no_fused) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 5 });
    ttt_mixer_desc d = o < 0 ? needed(m) : with_option(c, m, o, true);
    ttt_params p = { 0 };
    ttt_weights w = ttt_mixer_new(c, &d, &p, "");
    ttt_tensor *x = ttt_randn(c, TTT_SHAPE(2, TOKENS, d.dim)), *y[2], *all[64], *other[64] = { x };
    d.no_fused = no_fused;
    if (w.n == 0) ttt_clear(c);  // tables of a grid have its size, no other
    for (int form = 0; form < 2 && w.n > 0; form++) {
        for (int i = 0; i < w.n; i++) {
            all[i] = w.at[i];
            if (!(p.item[i].flags & TTT_PARAM_FACTOR)) continue;
            ttt_tensor *stored = ttt_cast(c, w.at[i], TTT_DTYPE_BF16);
            all[i] = form ? stored : ttt_cast(c, stored, TTT_DTYPE_REAL);
        }
        y[form] = ttt_mixer_forward(c, &d, (ttt_weights){ all, w.n }, x, NULL);
        ttt_grad(c, ttt_sum(c, y[form]), &x, 1, &other[form], TTT_GRAD_FIRST_ORDER);
    }
    for (int i = 0; i < 2 && w.n > 0; i++) {
        ttt_tensor *a = i ? other[0] : y[0], *b = i ? other[1] : y[1];
        bool same = ttt_ok(c) && ttt_max_abs_diff(a, b) <= (DOUBLE ? 1e-12 : 1e-5) * largest(a);
        if (!same) printf("  %s, option %d: %g\n", m->name, o, ttt_max_abs_diff(a, b));
        CHECK(same);
    }
    for (int i = 0; i < w.n; i++) {
        if (p.item[i].flags & TTT_PARAM_FACTOR) continue;
        all[i] = ttt_cast(c, w.at[i], TTT_DTYPE_BF16);
        ttt_mixer_forward(c, &d, (ttt_weights){ all, w.n }, x, NULL);
        CHECK(ttt_status(c) == TTT_ERR_ARGUMENT && strstr(ttt_error(c), p.item[i].name));
        ttt_clear(c);
        all[i] = w.at[i];
    }
    ttt_close(c);
}
static void factors_may_be_bfloat16(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *m = ttt_mixer_at(i);
        bool has_factors = false;
        for (int j = 0; j < m->n_rows; j++)
            has_factors = has_factors || m->rows[j].flags & TTT_PARAM_FACTOR;
        CHECK(has_factors != (ttt_mixer_takes(m, "inner_steps") || m->n_rows == 0));
        for (int o = -1; o < N_OPTIONS && has_factors; o++)
            for (int no_fused = 0; no_fused < 2; no_fused++)
                if (o < 0 || ttt_mixer_takes(m, options[o])) check_stored(m, o, no_fused);
    }
}

// ---- who sees whom ------------------------------------------------------------------------------
// Changes the last token: which of the others notice?
static bool sees_later_tokens(const ttt_mixer *m, bool causal) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 6 });
    ttt_params p = { 0 };
    ttt_mixer_desc d = needed(m);
    d.causal = causal;
    ttt_weights w = ttt_mixer_new(c, &d, &p, "");
    for (int i = 0; i < w.n; i++)
        for (int64_t j = 0; j < w.at[i]->size; j++)
            w.at[i]->data[j] += REAL(0.2 * ttt_rng_normal(ttt_ctx_rng(c)));
    ttt_tensor *x = ttt_randn(c, TTT_SHAPE(1, TOKENS, d.dim));
    ttt_tensor *other = ttt_from(c, x->shape, x->data);
    for (int64_t j = other->size - d.dim; j < other->size; j++) other->data[j] += 1;
    ttt_tensor *y[2] = { ttt_mixer_forward(c, &d, w, x, NULL), NULL };
    y[1] = ttt_mixer_forward(c, &d, w, other, NULL);
    for (int i = 0; i < 2; i++) y[i] = ttt_slice(c, y[i], 1, 0, TOKENS - 1);
    CHECK(ttt_ok(c));
    bool sees = ttt_max_abs_diff(y[0], y[1]) > 0;
    ttt_close(c);
    return sees;
}

static void flags_tell_who_sees_whom(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *m = ttt_mixer_at(i);
        bool always = (m->flags & TTT_MIXER_CAUSAL) || m == &ttt_mixer_none;
        if (sees_later_tokens(m, false) == always) printf("  %s\n", m->name);
        CHECK(sees_later_tokens(m, false) != always);
        if (ttt_mixer_takes(m, "causal")) CHECK(!sees_later_tokens(m, true));
    }
}

// ---- what may stand in a token ------------------------------------------------------------------
// Layers in all their causal forms: X(mixer, options). Then some that hide without being causal.
#define CAUSAL_FORMS(X)                                                                           \
    X("ttt-linear", .inner_lr = 1, .causal = true, .chunk = 4)                                    \
    X("ttt-linear", .inner_lr = 1, .causal = true, .no_decoder_norm = true)                       \
    X("ttt-linear", .inner_lr = 1, .causal = true, .rotary = 100, .token_index = true)            \
    X("ttt-linear", .inner_lr = 1, .causal = true, .chunk = 3, .share_qk = true, .conv = 2)       \
    X("ttt-mlp", .inner_lr = 1, .causal = true, .chunk = 6, .rotary = 10, .token_index = true,    \
      .share_qk = true, .output_gate = true)                                                      \
    X("ttt-mlp", .inner_lr = 1, .causal = true, .chunk = 1)                                       \
    X("ttt-mlp", .inner_lr = 1, .causal = true, .chunk = 7, .no_inner_bias = true)                \
    X("titans", .inner_lr = 1) X("titans", .inner_lr = 1, .chunk = 1)                             \
    X("titans", .inner_lr = 1, .chunk = 5, .no_short_conv = true)                                 \
    X("lact", .causal = true) X("lact", .causal = true, .chunk = 4)                               \
    X("lact", .causal = true, .chunk = 6, .muon = true)                                           \
    X("delta-net", .chunk = 0) X("delta-net", .chunk = 1) X("delta-net", .chunk = 4)              \
    X("gated-delta-net", .chunk = 0) X("gated-delta-net", .chunk = 1)                             \
    X("gated-delta-net", .chunk = 5, .no_short_conv = true)                                       \
    X("kda", .chunk = 0) X("kda", .chunk = 1) X("kda", .chunk = 7)                                \
    X("linear-attention", .causal = true) X("linear-attention", .causal = true, .chunk = 1)       \
    X("linear-attention", .causal = true, .chunk = 4, .identity_map = true)                       \
    X("linear-attention", .causal = true, .normalizer = TTT_NORMALIZER_NONE)                      \
    X("linear-attention", .causal = true, .normalizer = TTT_NORMALIZER_CONSTANT)                  \
    X("self-attention", .causal = true) X("nadaraya-watson", .causal = true)                      \
    X("nadaraya-watson", .causal = true, .kernel = TTT_ATTENTION_KERNEL_GAUSSIAN)                 \
    X("nadaraya-watson", .causal = true, .kernel = TTT_ATTENTION_KERNEL_NEAREST, .neighbors = 3)  \
    X("longformer", .causal = true) X("longformer", .causal = true, .window = 2)                  \
    X("longformer", .causal = true, .window = 3, .globals = 2)                                    \
    X("longformer", .causal = true, .window = 1, .grid_rows = 4, .grid_cols = 5)
static const form causal_forms[] = {
#define X(name, ...) { name, { .dim = 8, .heads = 2, __VA_ARGS__ } },
    CAUSAL_FORMS(X)
#undef X
};

static const double any_number[] = { (double)NAN, (double)INFINITY, -(double)INFINITY, 1e34, 1e38 };

// Puts a value into token `at` of the second sequence, into all its numbers or one. Whom may it
// reach? No other sequence, none before it. And it does not vanish.
static void put_into_a_token(ttt_ctx *c, const layer *l, const char *name, ttt_tensor *y, double v,
                             int64_t at, bool all) {
    int64_t N = l->x->shape.dim[1], D = l->d.dim, first = (N + at) * D;
    ttt_mark mark = ttt_mark_get(c);
    ttt_tensor *x = ttt_from(c, l->x->shape, l->x->data);
    for (int64_t i = 0; i < (all ? D : 1); i++) x->data[first + i] = REAL(v);
    ttt_tensor *z = ttt_mixer_forward(c, &l->d, l->w, x, NULL);
    bool same = memcmp(y->data, z->data, (size_t)first * sizeof *y->data) == 0;
    if (!same) printf("  %s, chunk %d: %g at token %d\n", name, (int)l->d.chunk, v, (int)at);
    CHECK(ttt_ok(c) && same);
    CHECK(!isnan(v) || isnan(z->data[first]));
    ttt_mark_release(c, mark);
}
static void a_token_changes_nothing_before_it(void) {
    enum { N = 20 };
    for (int i = 0; i < 2 * COUNT(causal_forms); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 8 });
        const form *f = &causal_forms[i / 2];
        layer l = layer_like(c, f, 2, N);
        l.d.no_fused = i % 2;
        ttt_tensor *y = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        for (int v = 0; v < COUNT(any_number); v++)
            for (int at = 2; at < N; at += 17) {
                put_into_a_token(c, &l, f->mixer, y, any_number[v], at, true);
                put_into_a_token(c, &l, f->mixer, y, any_number[v], at + 1 > N - 1 ? at : at + 1,
                                 false);
            }
        ttt_close(c);
    }
}
static void every_mixer_has_its_causal_forms(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *m = ttt_mixer_at(i);
        bool causal = m->flags & TTT_MIXER_CAUSAL || ttt_mixer_takes(m, "causal"), found = false;
        for (int j = 0; j < COUNT(causal_forms); j++)
            found = found || strcmp(causal_forms[j].mixer, m->name) == 0;
        CHECK(found == causal);
    }
}

// The same where a sequence is several tiles of queries and of keys.
static void a_token_changes_nothing_before_it_in_other_tiles(void) {
    enum { N = 600 };
    static const form forms[] = {
        { "self-attention", { .dim = 8, .heads = 2, .causal = true } },
        { "nadaraya-watson", { .dim = 8, .heads = 2, .causal = true,
                               .kernel = TTT_ATTENTION_KERNEL_GAUSSIAN } },
        { "longformer", { .dim = 8, .heads = 2, .causal = true, .window = 70 } },
        { "longformer", { .dim = 8, .heads = 2, .causal = true, .window = 3, .grid_rows = 6,
                          .grid_cols = 100 } },
        { "longformer", { .dim = 8, .heads = 2, .causal = true, .window = 9, .grid_rows = 30,
                          .grid_cols = 20 } },
        { "lact", { .dim = 8, .heads = 2, .causal = true, .chunk = 90 } },
    };
    for (int i = 0; i < COUNT(forms); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 8 });
        layer l = layer_like(c, &forms[i], 2, N);
        ttt_tensor *y = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        for (int v = 0; v < COUNT(any_number); v++)
            for (int64_t at = 63; at < N; at += 178)
                put_into_a_token(c, &l, forms[i].mixer, y, any_number[v], at, v % 2);
        ttt_close(c);
    }
}

// A window hides too: a token reaches those within it, and those that see all; as one op, its
// gradient reaches those within two, unless there are some that see all.
static void a_token_changes_nothing_beyond_its_window(void) {
    static const form forms[] = {
        { "longformer", { .dim = 8, .heads = 2, .window = 3 } },
        { "longformer", { .dim = 8, .heads = 2, .window = 2, .grid_rows = 4, .grid_cols = 5 } },
        { "longformer", { .dim = 8, .heads = 2, .window = 1, .grid_rows = 3, .grid_cols = 6,
                          .globals = 2 } },
        { "longformer", { .dim = 8, .heads = 2, .window = 5, .grid_rows = 20, .grid_cols = 19 } },
    };
    for (int i = 0; i < COUNT(forms) * COUNT(any_number); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 8 });
        const form *f = &forms[i / COUNT(any_number)];
        int64_t N = f->d.grid_rows ? f->d.grid_rows * f->d.grid_cols + f->d.globals : 20, g;
        layer l = layer_like(c, f, 1, N);
        int64_t cols = l.d.grid_cols ? l.d.grid_cols : N, W = l.d.window;
        int64_t at = N > 20 ? N / 2 + 5 : i % 2 ? N - 1 : l.d.globals;
        ttt_tensor *seed = ttt_randn(c, l.x->shape), *d_x, *d_z;
        ttt_tensor *x = ttt_from(c, l.x->shape, l.x->data);
        for (int j = 0; j < 8; j++) x->data[at * 8 + j] = REAL(any_number[i % COUNT(any_number)]);
        ttt_tensor *y = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        ttt_tensor *z = ttt_mixer_forward(c, &l.d, l.w, x, NULL);
        ttt_vjp(c, y, seed, &l.x, 1, &d_x, TTT_GRAD_FIRST_ORDER);
        ttt_vjp(c, z, seed, &x, 1, &d_z, TTT_GRAD_FIRST_ORDER);
        g = l.d.globals;
        for (int64_t t = g; t < N; t++) {
            int64_t down = llabs((t - g) / cols - (at - g) / cols);
            int64_t right = llabs((t - g) % cols - (at - g) % cols), apart = TTT__MAX(down, right);
            size_t bytes = 8 * sizeof *y->data;
            CHECK(apart <= W || memcmp(y->data + t * 8, z->data + t * 8, bytes) == 0);
            CHECK(apart <= 2 * W || g || memcmp(d_x->data + t * 8, d_z->data + t * 8, bytes) == 0);
        }
        CHECK(ttt_ok(c));
        ttt_close(c);
    }
}

// A query all of whose scores are -infinity sees nothing: it reads zeros, with gradient 0, as one
// op and op by op. Queries are tokens, keys the same with another sign; more keys than a tile has.
static void a_query_that_sees_nothing_reads_zeros(void) {
    enum { N = 600, D = 4 };
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 8 });
    form f = { "self-attention", { .dim = D, .heads = 1 } };
    layer l = layer_like(c, &f, 1, N);
    ttt_tensor *y[2], *w = ttt_randn(c, l.x->shape), *g[2];
    const double huge = DOUBLE ? 1e200 : 1e30, large = DOUBLE ? 1e120 : 1e10;
    for (int i = 0; i < l.w.n; i++)
        for (int64_t j = 0; j < l.w.at[i]->size; j++)
            l.w.at[i]->data[j] = REAL(i % 2 || j / D != j % D ? 0 : i == 2 ? -1 : 1);
    for (int64_t i = 0; i < l.x->size; i++)
        l.x->data[i] = i % D ? 0 : REAL(large * (1 + 0.01 * (double)(i / D)));
    l.x->data[7 * D] = REAL(huge);
    for (int k = 0; k < 2; k++) {
        l.d.no_fused = k;
        y[k] = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        ttt_vjp(c, y[k], w, &l.x, 1, &g[k], TTT_GRAD_FIRST_ORDER);
        for (int i = 0; i < D; i++) CHECK(y[k]->data[7 * D + i] == 0);
    }
    CHECK(ttt_ok(c) && ttt_max_abs_diff(y[0], y[1]) <= 1e-5 * largest(y[1]));
    CHECK(ttt_max_abs_diff(g[0], g[1]) <= 1e-5 * largest(g[1]));
    ttt_close(c);
}

// A token whose score with itself is +infinity reads its own value, as one op and op by op, and
// moves no score. Of two such tokens nobody knows which is larger. Values do not have the number
// that makes the score so large.
static void a_score_of_infinity_takes_all(void) {
    enum { N = 600, D = 4 };
    for (int i = 0; i < 12; i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 8 });
        form f = { i % 3 == 2 ? "nadaraya-watson" : "self-attention", { .dim = D, .heads = 1 } };
        f.d.causal = i % 3 == 1;
        layer l = layer_like(c, &f, 1, N);
        ttt_tensor *y[2], *w = ttt_randn(c, l.x->shape), *g[2];
        bool two = i / 3 % 2;
        int64_t at = i / 6 ? 570 : 7;
        for (int j = 0; j < l.w.n; j++)
            for (int64_t k = 0; k < l.w.at[j]->size; k++)
                l.w.at[j]->data[k] = REAL(j % 2 || k / D != k % D || (j == 4 && k == 0) ? 0 : 1);
        for (int64_t j = 0; j < N; j++) l.x->data[j * D] = 0;
        l.x->data[at * D] = REAL(DOUBLE ? 1e200 : 1e30);
        if (two) l.x->data[(at - 1) * D] = l.x->data[at * D];
        for (int k = 0; k < 2; k++) {
            l.d.no_fused = k;
            y[k] = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
            ttt_vjp(c, y[k], w, &l.x, 1, &g[k], TTT_GRAD_FIRST_ORDER);
            for (int j = 0; j < D; j++)
                CHECK(two ? isnan(y[k]->data[at * D + j])
                          : y[k]->data[at * D + j] == (j ? l.x->data[at * D + j] : 0));
        }
        for (int64_t j = 0; j < N * D; j++) {
            double fused = (double)y[0]->data[j], tape = (double)y[1]->data[j];
            CHECK(fabs(fused - tape) <= 1e-5 * (1 + fabs(tape)) || (isnan(fused) && isnan(tape)));
            fused = (double)g[0]->data[j], tape = (double)g[1]->data[j];
            double size = j % D ? fabs(tape) : largest(g[1]);  // a sum with the large number
            CHECK(two || fabs(fused - tape) <= 1e-5 * (largest(w) + size));
        }
        CHECK(ttt_ok(c));
        ttt_close(c);
    }
}

// ---- decays of any strength ---------------------------------------------------------------------
// The logarithm of what token i keeps, of a kind: weak, strong, both, nothing at all.
static double log_kept(int kind, int i, ttt_rng *rng) {
    double u = ttt_rng_uniform(rng);
    switch (kind) {
    case 0: return 0;
    case 1: return -1e-8;
    case 2: return -1e-4 * (1 + u);
    case 3: return -exp(log(1e-4) + u * log(1e6));
    case 4: return i % 3 == 1 ? -300 : -1e-3 * u;
    case 5: return i % 5 == 2 ? -1e30 : i % 2 ? -1e-8 : -1;
    case 6: return -exp(log(1e-8) + u * log(1e38));
    case 7: return i % 7 == 5 ? -HUGE_VAL : -0.05 * u;
    default: return i == 0 || i > 140 ? -HUGE_VAL : -1e-3;
    }
}
enum { DECAY_KINDS = 9, DECAY_N = 150, DECAY_h = 4 };
static ttt_tensor *decays_of_kind(ttt_ctx *c, int kind, int64_t width) {
    ttt_rng rng = ttt_rng_at(3, (uint32_t)kind, 0, 0);
    ttt_tensor *g = ttt_zeros(c, TTT_SHAPE(1, 1, DECAY_N, width));
    for (int64_t i = 0; i < g->size; i++)
        g->data[i] = REAL(log_kept(kind, (int)(i / width), &rng));
    return g;
}
// The gated delta rule token by token, in double. in: q, k, v, beta, g; y (N,h)
static void written_by_token(ttt_tensor *const *in, double *y) {
    double S[DECAY_h][DECAY_h] = { { 0 } };
    int64_t wide = in[4]->shape.dim[3];
    for (int t = 0; t < DECAY_N; t++) {
        const ttt_real *q = in[0]->data + t * DECAY_h, *k = in[1]->data + t * DECAY_h;
        for (int b = 0; b < DECAY_h; b++) {
            double known = 0;
            for (int a = 0; a < DECAY_h; a++)
                known += (double)k[a] * (S[a][b] *= exp((double)in[4]->data[t * wide + a % wide]));
            double u = (double)in[3]->data[t] * ((double)in[2]->data[t * DECAY_h + b] - known);
            y[t * DECAY_h + b] = 0;
            for (int a = 0; a < DECAY_h; a++)
                y[t * DECAY_h + b] += (double)q[a] * (S[a][b] += (double)k[a] * u);
        }
    }
}
// A chunk changes nothing but speed: all are right, and their gradients those of the recurrence.
static void one_kind_of_decay(int kind, bool wide) {
    static const int64_t chunk[] = { 1, 2, 7, 16, 64, DECAY_N };
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 9 });
    ttt_shape shape = TTT_SHAPE(1, 1, DECAY_N, DECAY_h);
    ttt_tensor *in[5] = { ttt_randn(c, shape), ttt__unit(c, ttt_randn(c, shape), 1e-6),
                          ttt_randn(c, shape), ttt_uniform(c, TTT_SHAPE(1, 1, DECAY_N, 1), 0, 1),
                          decays_of_kind(c, kind, wide ? DECAY_h : 1) };
    ttt_tensor *w = ttt_randn(c, shape), *g[2][5];
    static double want[DECAY_N * DECAY_h];
    double unit = DOUBLE ? 1e-14 : 1e-6;
    written_by_token(in, want);
    for (int i = 0; i < COUNT(chunk); i++) {
        ttt_tensor *y = ttt__scan(c, in[0], in[1], in[2], in[3], in[4], chunk[i], NULL);
        ttt_vjp(c, y, w, in, 5, g[i > 0], TTT_GRAD_FIRST_ORDER);
        double off = 0, off_g = 0, most = 0;
        for (int j = 0; j < DECAY_N * DECAY_h; j++) most = fmax(most, fabs(want[j]));
        for (int j = 0; j < DECAY_N * DECAY_h; j++)
            off = ttt_test_worse(off, fabs((double)y->data[j] - want[j]) / most);
        for (int j = 0; j < 5; j++)
            off_g = ttt_test_worse(off_g,
                                   ttt_max_abs_diff(g[i > 0][j], g[0][j]) / largest(g[0][j]));
        CHECK(ttt_ok(c) && off <= unit && off_g <= 5 * unit);
        if (!(off <= unit && off_g <= 5 * unit))
            printf("  decays of kind %d, %s, chunk %d: y off by %.1e, gradients by %.1e %s\n", kind,
                   wide ? "each channel" : "each token", (int)chunk[i], off, off_g, ttt_error(c));
    }
    ttt_close(c);
}
// Without .chunk, the tokens at once are as many as the option's meaning says, to the bit.
static void no_chunk_is_the_documented_chunk(void) {
    enum { D = 4, N = 131 };
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *m = ttt_mixer_at(i);
        if (!ttt_mixer_takes(m, "chunk")) continue;
        bool large = strcmp(m->name, "lact") == 0;
        bool small = strncmp(m->name, "ttt-", 4) == 0 || strcmp(m->name, "titans") == 0;
        ttt_ctx *c = ttt_open(NULL);
        ttt_params p = { 0 };
        ttt_mixer_desc d = { .inner_lr = REAL(0.1), .causal = true, .no_fused = true };
        d = ttt_mixer_offer(m, &d);
        d.dim = D, d.heads = 2;
        ttt_weights w = ttt_mixer_new(c, &d, &p, "");
        ttt_tensor *x = ttt_uniform(c, TTT_SHAPE(1, N, D), -1, 1), *y[2];
        for (int said = 0; said < 2; said++) {
            d.chunk = !said ? 0 : large ? 2048 : small ? 16 : 64;
            y[said] = ttt_mixer_forward(c, &d, w, x, NULL);
        }
        bool same = ttt_ok(c) && memcmp(y[0]->data, y[1]->data, N * D * sizeof(ttt_real)) == 0;
        if (!same) printf("  %s %s\n", m->name, ttt_error(c));
        CHECK(same);
        ttt_close(c);
    }
}

static void a_chunk_changes_only_speed_for_any_decay(void) {
    for (int kind = 0; kind < DECAY_KINDS; kind++)
        for (int wide = 0; wide < 2; wide++) one_kind_of_decay(kind, wide);
}

// -e^A softplus(z) wherever it has a number, relative to it, and its slopes; where it is so large
// that nothing is kept, it may be any such number, and leaves a gradient of 0 alone.
static void forgetting_has_a_number_where_its_factors_have_none(void) {
    static const double As[] = { -(double)INFINITY, -1e30, -95, -3, 0, 2.7, 60, 88, 95, 100,
                                 200,   1e30, (double)INFINITY };
    static const double zs[] = { -(double)INFINITY, -1e30, -1e4, -200, -150, -103, -88, -60, -37,
                                 -17, -16.9, -5, 0, 3, 40, 3e3, 1e30, (double)INFINITY };
    ttt_ctx *c = ttt_open(NULL);
    ttt_mixer_desc d = { .heads = 1 };
    double eps = DOUBLE ? 2.3e-16 : 1.2e-7, tiny = DOUBLE ? 5e-324 : 1.5e-45;
    for (int i = 0; i < COUNT(As) * COUNT(zs); i++) {
        double A = (double)REAL(As[i / COUNT(zs)]), z = (double)REAL(zs[i % COUNT(zs)]);
        ttt_tensor *in[2] = { ttt_full(c, TTT_SHAPE(1), REAL(A)),
                              ttt_full(c, TTT_SHAPE(1, 1, 1, 1), REAL(z)) }, *g[2];
        ttt_tensor *y = ttt__log_kept(c, &d, in[0], in[1]);
        if (A * z < -1e20) continue;  // all digits of their sum cancel, or 0 times infinity
        long double right = -expl(z < -40 ? (long double)A + z : A + logl(log1pl(expl(z))));
        if (z > 1e3) right = -expl((long double)A + (isinf(z) ? z : logl(z)));
        bool gone = right < -1e4L;
        ttt_vjp(c, y, ttt_full(c, y->shape, gone ? 0 : 1), in, 2, g, TTT_GRAD_FIRST_ORDER);
        double got[3] = { (double)y->data[0], (double)g[0]->data[0], (double)g[1]->data[0] };
        double slope = z < -40 ? 1 : 1 / (1 + exp(-z)) / log1p(exp(z < 700 ? z : 700));
        double size = fabs((double)right), terms = 8 + fmin(fabs(A), 1e3) + fmin(fabs(z), 1e3);
        double near_it = terms * eps * size + tiny;  // terms: of an exponent, which is rounded
        bool good = gone ? got[0] < -1e4 && got[1] == 0 && got[2] == 0
                         : fabs(got[0] - (double)right) <= near_it &&
                               fabs(got[1] - (double)right) <= near_it;
        if (!gone && z < 700)
            good = good && fabs(got[2] - (double)right * slope) <= near_it * fmax(1, slope);
        if (!good)
            printf("  A %g, z %g: %g, not %g; slopes %g, %g\n", A, z, got[0], (double)right, got[1],
                   got[2]);
        CHECK(ttt_ok(c) && good);
    }
    ttt_close(c);
}

// Whole layers: whatever their gates say, outputs and gradients are numbers, and a chunk of gated
// delta rules changes only speed.
static void set_all(const layer *l, const char *parameter, double value) {
    bool found = false;
    for (int i = 0; i < l->p.n; i++)
        for (int64_t j = 0; strcmp(l->p.item[i].name, parameter) == 0 && j < l->w.at[i]->size; j++)
            l->w.at[i]->data[j] = REAL(value), found = true;
    CHECK(found);
}
static void layer_at_its_gates(const form *f, const char *const *parameter, const double *value) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 8 });
    layer l = layer_like(c, f, 1, 20);
    ttt_tensor *wrt[64] = { l.x }, *g[2][64], *y[2];
    for (int i = 0; i < 2; i++) set_all(&l, parameter[i], value[i]);
    for (int i = 0; i < l.p.n; i++) wrt[i + 1] = l.w.at[i];
    bool finite = true, same = true;
    for (int k = 0; k < 2; k++) {
        if (k == 1 && l.d.inner_lr == 0) l.d.chunk = 1;
        y[k] = ttt_mixer_forward(c, &l.d, l.w, l.x, NULL);
        ttt_vjp(c, y[k], ttt_full(c, y[k]->shape, 1), wrt, l.p.n + 1, g[k], TTT_GRAD_FIRST_ORDER);
        for (int i = 0; i <= l.p.n && ttt_ok(c); i++)
            for (int64_t j = 0; j < g[k][i]->size; j++) finite &= isfinite(g[k][i]->data[j]) != 0;
    }
    double most = 0, off = ttt_max_abs_diff(y[0], y[1]) / largest(y[1]);
    for (int i = 0; i <= l.p.n && ttt_ok(c); i++) most = fmax(most, largest(g[1][i]));
    for (int i = 0; i <= l.p.n && ttt_ok(c); i++)
        off = ttt_test_worse(off, ttt_max_abs_diff(g[0][i], g[1][i]) / most);
    same = off <= (DOUBLE ? 1e-12 : 1e-5);
    CHECK(ttt_ok(c) && finite && same);
    if (!finite || !same)
        printf("  %s, chunk %d, %s %g, %s %g: off by %.1e%s\n", f->mixer, (int)f->d.chunk,
               parameter[0], value[0], parameter[1], value[1], off, finite ? "" : ", not finite");
    ttt_close(c);
}
static void layers_stand_any_gate(void) {
    static const char *const delta[] = { "A_log", "dt_bias" };
    static const char *const titans[] = { "decay/bias", "momentum/bias" };
    static const double gates[] = { -(double)INFINITY, -1e30, -200, -30, -8, 0,
                                    8, 30, 100, 1e4, 1e30 };
    static const form forms[] = {
        { "gated-delta-net", { .dim = 8, .heads = 2, .chunk = 0 } },
        { "gated-delta-net", { .dim = 8, .heads = 2, .chunk = 3 } },
        { "kda", { .dim = 8, .heads = 2, .chunk = 0 } },
        { "kda", { .dim = 8, .heads = 2, .chunk = 6 } },
        { "titans", { .dim = 8, .heads = 2, .chunk = 0, .inner_lr = REAL(0.1) } },
        { "titans", { .dim = 8, .heads = 2, .chunk = 1, .inner_lr = REAL(0.1) } },
    };
    for (int f = 0; f < COUNT(forms); f++)
        for (int i = 0; i < COUNT(gates); i++)
            for (int j = 0; j < COUNT(gates); j++) {
                double value[2] = { gates[i], gates[j] };
                if (f >= 4 && gates[j] > 8) continue;  // a velocity that grows without end
                layer_at_its_gates(&forms[f], f < 4 ? delta : titans, value);
            }
}

// Titans: what a gradient at s does to the weights at t, by the rule itself, in double.
static void decays_with_momentum_are_their_rule(void) {
    for (int kind = 0; kind < DECAY_KINDS * DECAY_KINDS; kind++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt__update_rule r = { ttt_uniform(c, TTT_SHAPE(1, 1, DECAY_N, 1), 0, 1),
                               decays_of_kind(c, kind % DECAY_KINDS, 1),
                               decays_of_kind(c, kind / DECAY_KINDS, 1), true, DECAY_N, false };
        ttt__chunk_weights a;
        ttt__rule_weights(c, &r, 0, DECAY_N, &a);
        double unit = DOUBLE ? 1e-14 : 1e-6, off = 0;
        for (int s = -1; s < DECAY_N; s++) {  // -1: the weights; -2 would be the velocity
            double W = s < 0, V = 0, W_of_V = 0, V_of_V = 1, most = 1e-30;
            double off_s = 0;
            for (int t = 0; t < DECAY_N && ttt_ok(c); t++) {
                double keep = exp((double)r.keep->data[t]), m = exp((double)r.momentum->data[t]);
                V = m * V + (s == t ? (double)r.rate->data[t] : 0);
                W = keep * W + V;
                V_of_V = m * V_of_V;
                W_of_V = keep * W_of_V + V_of_V;
                double got = (double)(s < 0 ? a.carry->data[t] : a.A->data[t * DECAY_N + s]);
                double other = fabs((double)a.momentum->data[t] - W_of_V) / fmax(W_of_V, 1);
                off_s = ttt_test_worse(off_s, fabs(got - W));
                off = ttt_test_worse(off, other);
                most = fmax(most, W);
            }
            off = ttt_test_worse(off, off_s / most);
        }
        CHECK(ttt_ok(c) && off <= 3 * unit);
        if (!(off <= 3 * unit))
            printf("  decays of kind %d, momenta of kind %d: off by %.1e %s\n", kind % DECAY_KINDS,
                   kind / DECAY_KINDS, off, ttt_error(c));
        ttt_close(c);
    }
}

// What ttt_unmask says of itself, and of many tokens.
static void unmasking_many_tokens_is_exact(void) {
    enum { N = 1024, D = 6 };
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *m = ttt_mixer_at(i);
        ttt_mixer_desc d = { .inner_lr = REAL(0.5), .max_tokens = N };
        if (m == &ttt_mixer_vittt || m == &ttt_mixer_none) continue;  // have no exact form
        d = ttt_mixer_offer(m, &d);
        d.dim = D;
        d.heads = 1;
        if (m->flags & TTT_MIXER_GRID) d.grid_rows = d.grid_cols = 32;
        for (int causal = 0; causal <= ttt_mixer_takes(m, "causal"); causal++) {
            d.causal = causal;
            if (m == &ttt_mixer_lact && causal) continue;
            ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 8 });
            form f = { m->name, d };
            layer l = layer_like(c, &f, 1, N);
            ttt_unmasked u;
            ttt_unmask(c, &l.d, l.w, l.x, &u);
            CHECK(ttt_ok(c) && u.exact && u.error <= (DOUBLE ? 1e-14 : 3e-6));
            if (!(u.error <= (DOUBLE ? 1e-14 : 3e-6)))
                printf("  %s, causal %d: %.1e\n", m->name, causal, u.error);
            ttt_close(c);
        }
    }
}

// ---- a program's learner under ttt_unmask -------------------------------------------------------
// One kernel without a bias that reads x^2; and features that are not what it reads.
static ttt_tensor *squares(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    (void)desc, (void)w;
    return ttt_square(c, x);
}
static ttt_tensor *of_squares(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    return ttt_matmul(c, squares(c, desc, w, x), w.at[0]);
}
static ttt_tensor *half_of_the_squares(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    return ttt_slice(c, squares(c, desc, w, x), 3, 0, 2);
}
static ttt_tensor *half_of_the_tokens(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    return ttt_slice(c, squares(c, desc, w, x), 2, 0, 3);
}
static ttt_tensor *two_axes(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    return ttt_reshape(c, squares(c, desc, w, x), TTT_SHAPE(2 * 2 * 6, 4));
}
static ttt_tensor *other_numbers(ttt_ctx *c, const void *desc, ttt_weights w, ttt_tensor *x) {
    (void)desc, (void)w;
    return ttt_gelu(c, x);
}
static void features_that_do_not_fit_are_named(void) {
    static const ttt_param_row rows[] = { { "kernel", "H h h", TTT_INIT_XAVIER, "h", "h",
                                            TTT_PARAM_INNER, 0 } };
    static const struct {
        ttt_tensor *(*features)(ttt_ctx *, const void *, ttt_weights, ttt_tensor *);
        const char *says[2];
    } all[] = {
        { squares, { NULL } },
        { half_of_the_squares, { "(2,2,6,2)", "(2,2,6,4)" } },
        { half_of_the_tokens, { "(2,2,3,4)", "(2,2,6,4)" } },
        { two_axes, { "(24,4)", "(2,2,6,4)" } },
        { other_numbers, { "predictions", "equal" } },
    };
    for (int i = 0; i < COUNT(all); i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 3 });
        ttt_learner learner = { "squares", rows, 1, of_squares, 1, all[i].features, NULL, false };
        ttt_mixer m = ttt_mixer_mttt_linear;
        m.learner = &learner;
        ttt_mixer_desc d = { .mixer = &m, .dim = 8, .heads = 2, .inner_lr = 1, .inner_steps = 2 };
        ttt_params p = { 0 };
        ttt_weights w = ttt_mixer_new(c, &d, &p, "");
        ttt_tensor *x = ttt_randn(c, TTT_SHAPE(2, 6, 8));
        ttt_unmasked u;
        ttt_unmask(c, &d, w, x, &u);
        const char *e = ttt_error(c);
        if (i == 0) CHECK(ttt_ok(c) && u.exact && u.error < 1e-5);
        else CHECK(strstr(e, "squares") && strstr(e, all[i].says[0]) && strstr(e, all[i].says[1]));
        ttt_clear(c);
        CHECK(ttt_mixer_forward(c, &d, w, x, NULL)->size == x->size && ttt_ok(c));
        ttt_close(c);
    }
}

// ---- ratios of sums that are too small for a number ---------------------------------------------
// Linear attention of one head whose projections are 1: q = k = v = x. In long double, with a power
// of e taken out of every ratio.
enum { RATIO_N = 18, RATIO_D = 3 };
static long double log_phi(const ttt_mixer_desc *d, long double x) {
    return d->identity_map ? logl(fabsl(x)) : x < 0 ? x : log1pl(x);
}
// sum of cotangent y, and y (N,D) if it is not NULL
static long double ratio_of(const ttt_mixer_desc *d, const long double *x, const ttt_tensor *w,
                            double *y) {
    long double sum = 0;
    for (int i = 0; i < RATIO_N; i++) {
        int last = d->causal ? i : RATIO_N - 1;
        long double most = -HUGE_VALL, below = 0, above[RATIO_D] = { 0 };
        for (int pass = 0; pass < 2; pass++)
            for (int j = 0; j <= last; j++)
                for (int c = 0; c < RATIO_D; c++) {
                    long double q = x[i * RATIO_D + c], k = x[j * RATIO_D + c];
                    long double both = log_phi(d, q) + log_phi(d, k), part;
                    if (pass == 0) most = fmaxl(most, both);
                    if (pass == 0) continue;
                    part = expl(both - most) * (d->identity_map && q * k < 0 ? -1 : 1);
                    below += part;
                    for (int a = 0; a < RATIO_D; a++) above[a] += part * x[j * RATIO_D + a];
                }
        for (int a = 0; a < RATIO_D; a++) {
            if (y) y[i * RATIO_D + a] = (double)(above[a] / below);
            sum += above[a] / below * (long double)w->data[i * RATIO_D + a];
        }
    }
    return sum;
}
// Tokens of a size, some of which have no channel above 0; the first ones are the smallest.
static ttt_tensor *small_tokens(ttt_ctx *c, double size, bool identity) {
    ttt_tensor *x = ttt_randn(c, TTT_SHAPE(1, RATIO_N, RATIO_D));
    for (int64_t i = 0; i < x->size; i++) {
        double v = size * (double)x->data[i];
        if (identity) v = fabs(v);
        else if (i / RATIO_D % 3 == 0 || i / RATIO_D < 9) v = -fabs(v);
        x->data[i] = REAL(v * (i / RATIO_D < 5 ? 4 : 1));
    }
    return x;
}
static void one_small_ratio(double size, ttt_mixer_desc d) {
    ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = 2 });
    ttt_params p = { 0 };
    static double want[RATIO_N * RATIO_D], want_g[RATIO_N * RATIO_D];
    static long double at[RATIO_N * RATIO_D];
    ttt_tensor *x = small_tokens(c, size, d.identity_map), *w = ttt_randn(c, x->shape), *g;
    d.mixer = ttt_mixer_find("linear-attention");
    d.dim = RATIO_D;
    d.heads = 1;
    ttt_weights parameters = ttt_mixer_new(c, &d, &p, "");
    for (int i = 0; i < parameters.n; i += 2)
        for (int j = 0; j < RATIO_D * RATIO_D; j++)
            parameters.at[i]->data[j] = j / RATIO_D == j % RATIO_D;
    for (int i = 0; i < x->size; i++) at[i] = (long double)x->data[i];
    ratio_of(&d, at, w, want);
    for (int i = 0; i < x->size; i += 4) {
        long double old = at[i], step = d.identity_map ? 1e-4L * old : 1e-4L;
        at[i] = old + step;
        long double up = ratio_of(&d, at, w, NULL);
        at[i] = old - step;
        want_g[i] = (double)((up - ratio_of(&d, at, w, NULL)) / (2 * step));
        at[i] = old;
    }
    ttt_tensor *y = ttt_mixer_forward(c, &d, parameters, x, NULL);
    ttt_vjp(c, y, w, &x, 1, &g, TTT_GRAD_FIRST_ORDER);
    double off[2] = { 0, 0 }, most[2] = { 0, 0 };
    for (int i = 0; i < x->size && ttt_ok(c); i++) {
        most[0] = fmax(most[0], fabs(want[i]));
        most[1] = fmax(most[1], fabs(want_g[i]));
        off[0] = ttt_test_worse(off[0], fabs((double)y->data[i] - want[i]));
        if (i % 4 == 0) off[1] = ttt_test_worse(off[1], fabs((double)g->data[i] - want_g[i]));
    }
    // The differences know 8 digits. Values of a size lose digits as they go out of y again.
    double unit = DOUBLE ? 1e-15 : 2.4e-7, limit = 1e-6 * most[1] + unit * most[0];
    bool good = off[0] <= 5 * unit * most[0] && off[1] <= (d.identity_map ? 2e-5 * most[1] : limit);
    CHECK(ttt_ok(c) && good);
    if (!good)
        printf("  tokens of %g, causal %d, chunk %d, identity %d, no_fused %d: y off by %.1e, "
               "gradient by %.1e %s\n", size, d.causal, (int)d.chunk, d.identity_map, d.no_fused,
               off[0] / most[0], off[1] / most[1], ttt_error(c));
    ttt_close(c);
}
static void ratios_of_vanishing_sums_are_right(void) {
    static const double sizes[2][3] = { { 30, 1000, 1e5 }, { 1e-12, 1e-22, 1e-30 } };
    for (int identity = 0; identity < 2; identity++)
        for (int i = 0; i < 3; i++)
            for (int form = 0; form < 6; form++) {
                static const int64_t chunk[4] = { 1, 7, 0, RATIO_N };
                ttt_mixer_desc d = { .identity_map = identity };
                if (form < 2) d.no_fused = form;
                else d.causal = true, d.chunk = chunk[form - 2];
                one_small_ratio(sizes[identity][i], d);
            }
}

// f(x) = x^p |x| / |x^p| has a number for every p, though x^p may have none.
static void powers_of_any_size_focus(void) {
    enum { D = 6 };
    static const double sizes[] = { 1e-8, 1e-3, 1, 1e3, 1e12 };
    for (int i = 0; i < 2 * COUNT(sizes) * 64; i++) {
        ttt_ctx *c = ttt_open(&(ttt_desc){ .seed = (uint64_t)i });
        int p = 1 + i / 2 % 64;
        ttt_tensor *x = ttt_uniform(c, TTT_SHAPE(1, D), REAL(0.2), 1), *w = ttt_randn(c, x->shape);
        ttt_tensor *g;
        for (int k = 0; k < D; k++) x->data[k] *= REAL(sizes[i / 128]);
        ttt_tensor *one = ttt_full(c, TTT_SHAPE(D), 1);
        ttt_tensor *y = (i % 2 ? ttt__focus_as_op : ttt__focus)(c, x, one, p);
        ttt_vjp(c, y, w, &x, 1, &g, TTT_GRAD_FIRST_ORDER);
        // In units of the largest: with u = x / size, |u| and |u^p| are at least 1.
        double size = 0, length = 0, power = 0, along_w = 0, f[D], u[D];
        for (int k = 0; k < D; k++) size = fmax(size, (double)x->data[k] + 1e-6);
        for (int k = 0; k < D; k++) u[k] = ((double)x->data[k] + (double)REAL(1e-6)) / size;
        for (int k = 0; k < D; k++) length += u[k] * u[k], power += pow(u[k], 2 * p);
        for (int k = 0; k < D; k++) {
            f[k] = pow(u[k], p) * sqrt(length / power);
            along_w += f[k] * (double)w->data[k];
        }
        double unit = DOUBLE ? 1e-13 : 1e-6 * p;
        for (int k = 0; k < D; k++) {
            double slope = p * f[k] / u[k] * (double)w->data[k] +
                           along_w * (u[k] / length - p * pow(u[k], 2 * p - 1) / power);
            CHECK(fabs((double)y->data[k] / size - f[k]) <= unit * sqrt(length));
            CHECK(fabs((double)g->data[k] - slope) <= 10 * unit * p);
        }
        ttt_close(c);
    }
}

int main(int argc, char **argv) {
    static const ttt_test all[] = { T(every_mixer_has_a_case),
                                    T(mixers_equal_their_plain_form),
                                    T(two_orders_of_derivatives_agree_with_differences),
                                    T(derivatives_at_sequences_of_zeros),
                                    T(unmasked_matrices_reproduce_the_layer),
                                    T(errors_name_the_field),
                                    T(every_option_works_or_is_refused),
                                    T(sizes_beyond_every_tensor_are_no_surprise),
                                    T(no_fused_is_for_all),
                                    T(flops_are_about_those_of_the_products),
                                    T(factors_may_be_bfloat16),
                                    T(options_without_what_they_need_are_refused),
                                    T(rows_and_options_agree),
                                    T(flags_tell_who_sees_whom),
                                    T(every_mixer_has_its_causal_forms),
                                    T(a_token_changes_nothing_before_it),
                                    T(a_token_changes_nothing_before_it_in_other_tiles),
                                    T(a_token_changes_nothing_beyond_its_window),
                                    T(a_score_of_infinity_takes_all),
                                    T(a_query_that_sees_nothing_reads_zeros),
                                    T(no_chunk_is_the_documented_chunk),
                                    T(a_chunk_changes_only_speed_for_any_decay),
                                    T(decays_with_momentum_are_their_rule),
                                    T(forgetting_has_a_number_where_its_factors_have_none),
                                    T(layers_stand_any_gate),
                                    T(unmasking_many_tokens_is_exact),
                                    T(features_that_do_not_fit_are_named),
                                    T(ratios_of_vanishing_sums_are_right),
                                    T(powers_of_any_size_focus),
                                    { 0 } };
    return ttt_test_main(argc, argv, all);
}
