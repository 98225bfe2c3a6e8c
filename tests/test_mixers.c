// test_mixers.c - every mixer against the cases that mixers.py computed from the equations alone: outputs and
// gradients on every instruction set, derivatives of two orders, what ttt_unmask shows, and refusals.
// Runs in the root of the repository.
#define TTT_IMPLEMENTATION
#include "../ttt_data.h"
#include "../ttt_layers.h"
#include "ttt_test.h"

#define DOUBLE (sizeof(ttt_real) == 8)
#define FOLDER "tests/mixers/"

// ---- a case --------------------------------------------------------------------------------------
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
static int normalizer(const char *text) { return strcmp(text, "constant") == 0 ? TTT_NORMALIZER_CONSTANT : TTT_NORMALIZER_NONE; }
static int kernel(const char *text) { return strcmp(text, "gaussian") == 0 ? TTT_ATTENTION_KERNEL_GAUSSIAN : TTT_ATTENTION_KERNEL_NEAREST; }

// The fields that a case may set, their types and how their text is read. No file names a default.
#define FIELDS(X)                                                                                  \
    X(dim, int64_t, whole) X(heads, int64_t, whole) X(inner_lr, ttt_real, real)                    \
    X(no_inner_bias, bool, yes) X(no_decoder_norm, bool, yes)                                      \
    X(identity_map, bool, yes) X(normalizer, ttt_normalizer, normalizer)                           \
    X(causal, bool, yes) X(chunk, int64_t, whole) X(no_short_conv, bool, yes) X(muon, bool, yes)   \
    X(kernel, ttt_attention_kernel, kernel) X(bandwidth, ttt_real, real) X(neighbors, int64_t, whole)       \
    X(window, int64_t, whole) X(globals, int64_t, whole) X(compressed, int64_t, whole)             \
    X(max_tokens, int64_t, whole) X(grid_rows, int64_t, whole) X(grid_cols, int64_t, whole) X(power, int, whole)

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

// Reads a case and makes its layer. False, and a failed check, unless it has all tensors of this very layer.
static bool open_case(mixer_case *m, const char *name, const char *isa) {
    char path[200];
    *m = (mixer_case){ .c = ttt_open(&(ttt_desc){ .isa = isa, .seed = 1 }) };
    snprintf(path, sizeof path, FOLDER "%s.safetensors", name);
    ttt_safetensors_read(m->c, path, &m->file);
    m->d = description(m);
    m->w = ttt_mixer_new(m->c, &m->d, &m->p, "");
    bool good = ttt_ok(m->c) && m->p.n < 63 && m->file.n_tensors == 2 * m->p.n + 4;
    good = good && (m->cotangent = tensor(m, "cotangent", "")) && tensor(m, "grad.x", "") && tensor(m, "y", "");
    if (good) good = take(m, m->wrt[m->n++] = m->x = ttt_zeros_kept(m->c, m->cotangent->shape), "x", "");
    for (int i = 0; i < m->p.n && good; i++) {
        const char *parameter = m->p.item[i].name;
        good = take(m, m->wrt[m->n++] = m->p.value[i], "param/", parameter) && tensor(m, "grad/", parameter);
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

// ---- outputs and gradients -----------------------------------------------------------------------
static double worst[2];          // of y, of gradients; all instruction sets, all cases but those of muon
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

static void compare(const char *where, ttt_tensor *got, ttt_tensor *want, double floor, largest_error *most) {
    double e = ttt_max_abs_diff(got, want) / fmax(largest(want), floor);
    if (e > most->error || e != e) *most = (largest_error){ e == e ? e : HUGE_VAL, where };
}
// Newton and Schulz's iteration multiplies what is small by up to 485: float knows three digits of a gradient then.
static void judge(const mixer_case *m, const char *name, largest_error e, double *of_all) {
    double limit = DOUBLE ? 1e-12 : m->d.muon ? 1e-3 : 2e-5;
    if (!(e.error <= limit)) printf("  %s: %s is off by %.2e (%s)\n", name, e.where, e.error, isa_at_work);
    CHECK(e.error <= limit);
    if (!m->d.muon) *of_all = fmax(*of_all, e.error);
}

// The bias of the keys changes nothing where a softmax follows: its gradient is rounding.
static bool vanishes(const mixer_case *m, const char *name) {
    const char *mixer = m->d.mixer->name;
    bool softmax = strcmp(mixer, "self-attention") == 0 || strcmp(mixer, "longformer") == 0 || (strcmp(mixer, "nadaraya-watson") == 0 && m->d.kernel == TTT_ATTENTION_KERNEL_EXPONENTIAL);
    return softmax && strncmp(name, "key", 3) == 0 && strstr(name, "/bias");
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
        compare(which, g[i], want[i], vanishes(m, which) ? most : 1e-2 * most, &of_g);
    }
    judge(m, name, of_y, &worst[0]);
    judge(m, name, of_g, &worst[1]);
}
static void replay(mixer_case *m, const char *name) {  // fused where there is such a form, and op by op
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
        const char *mixer = ttt_mixer_at(i)->name;
        char line[100];
        bool found = strncmp(mixer, "mttt-", 5) == 0 || strcmp(mixer, "none") == 0;  // golden.c has those
        FILE *list = fopen(FOLDER "index", "r");
        while (list && !found && fscanf(list, "%99s", line) == 1) {
            mixer_case m;
            if (open_case(&m, line, NULL)) found = m.d.mixer == ttt_mixer_at(i);
            ttt_close(m.c);
        }
        if (list) fclose(list);
        if (!found) printf("  %s has none\n", mixer);
        CHECK(found);
    }
}

// ---- derivatives ---------------------------------------------------------------------------------
static ttt_tensor *value(ttt_ctx *c, ttt_tensor *const *x, int n, void *user) {
    mixer_case *m = user;
    (void)x;
    (void)n;
    ttt_tensor *y = ttt_mixer_forward(c, &m->d, m->w, m->x, NULL);
    return ttt_sum(c, ttt_mul(c, m->cotangent, ttt_add(c, y, ttt_square(c, y))));
}

static void differentiate(mixer_case *m, const char *name) {
    for (int order = 1; order <= 2; order++) {
        double e = ttt_check_gradient(m->c, value, m->wrt, m->n, m, order, 1e-5);  // so small for muon and for kinks
        if (!(e <= 1e-6)) printf("  %s: order %d is off by %.2e %s\n", name, order, e, ttt_error(m->c));
        CHECK(e <= 1e-6);
    }
}
static void two_orders_of_derivatives_agree_with_differences(void) {
    if (!DOUBLE) SKIP("needs double");
    each_case(NULL, differentiate);
}

// ---- unmasking -----------------------------------------------------------------------------------
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
    if (!(e <= (DOUBLE ? 1e-12 : 1e-5)) || !ttt_ok(m->c)) printf("  %s: off by %.2e, says %.2e %s\n", name, e, u.error, ttt_error(m->c));
    CHECK(e <= (DOUBLE ? 1e-12 : 1e-5));
    CHECK(ttt_ok(m->c) && u.matrix->shape.rank == 4 && u.matrix->shape.dim[2] == m->x->shape.dim[1]);
}
static void unmasked_matrices_reproduce_the_layer(void) { each_case(NULL, unmask); }

// ---- refusals ------------------------------------------------------------------------------------
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
    REFUSES("focused-linear", 9, "power", .grid_rows = 3, .grid_cols = 3, .max_tokens = 9, .power = -1);
    REFUSES("nadaraya-watson", 9, "neighbors", .neighbors = -1);
    REFUSES("nadaraya-watson", 4, "neighbors", .kernel = TTT_ATTENTION_KERNEL_NEAREST, .neighbors = 5);
    REFUSES("nadaraya-watson", 4, "bandwidth is -0.5", .kernel = TTT_ATTENTION_KERNEL_GAUSSIAN, .bandwidth = (ttt_real)-0.5);
    REFUSES("nadaraya-watson", 4, "bandwidth", .kernel = TTT_ATTENTION_KERNEL_GAUSSIAN, .bandwidth = (ttt_real)NAN);
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *m = ttt_mixer_at(i);
        ttt_mixer_desc d = { .inner_lr = 1, .causal = true, .chunk = -1 };
        if (ttt_mixer_takes(m, "chunk")) refuses(m->name, 9, ttt_mixer_offer(m, &d), "chunk");
        d = (ttt_mixer_desc){ .max_tokens = 9, .grid_rows = 3, .grid_cols = 3 };
        if (ttt_mixer_takes(m, "inner_lr")) refuses(m->name, 9, ttt_mixer_offer(m, &d), "inner_lr");
    }
}

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(every_mixer_has_a_case), T(mixers_equal_their_plain_form), T(two_orders_of_derivatives_agree_with_differences),
        T(unmasked_matrices_reproduce_the_layer), T(errors_name_the_field), { 0 }
    };
    return ttt_test_main(argc, argv, all);
}
