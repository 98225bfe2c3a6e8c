// test_mixers.c - every mixer against the cases that mixers.py computed from the equations alone:
// outputs and gradients on every instruction set, derivatives of two orders, what ttt_unmask shows,
// and refusals; every option of every mixer. Runs in the root of the repository.
#define TTT_IMPLEMENTATION
#include "../ttt_data.h"
#include "../ttt_layers.h"
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
    X(grid_cols, int64_t, whole) X(power, int, whole)

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
        .max_tokens = 12, .compressed = 4, .no_short_conv = true, .muon = true,
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
    r.made[r.n++] = ttt_mixer_forward(r.c, &d, w, x, m->learner ? losses : NULL);
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

// A chunk may change nothing but how a sum is cut. The tables of a grid have its size, no other.
static void check_option(const ttt_mixer *m, int o) {
    outcome a = evaluate(m, o, false, false), b = evaluate(m, o, true, false);
    bool takes = ttt_mixer_takes(m, options[o]), works = false;
    bool cut = strcmp(options[o], "chunk") == 0;
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

// Without .no_fused a layer is fewer ops where it has such a form, and the same ones elsewhere.
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
                                    T(options_without_what_they_need_are_refused),
                                    T(rows_and_options_agree),
                                    T(flags_tell_who_sees_whom),
                                    { 0 } };
    return ttt_test_main(argc, argv, all);
}
