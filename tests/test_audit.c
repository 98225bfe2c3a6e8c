// test_audit.c - the audit of models of sequences: planted faults are found and named at their
// place, by the smallest input; sound models pass; what a model lacks is not judged.
#include <stdlib.h>
static long mallocs, fails_at;  // how often the library asked for memory; the time it gets none
#define TTT_MALLOC(user, n) ((void)(user), ++mallocs == fails_at ? NULL : malloc(n))
#define TTT_REALLOC(user, p, n) ((void)(user), ++mallocs == fails_at ? NULL : realloc(p, n))
#define TTT_FREE(user, p) ((void)(user), free(p))
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "ttt_test.h"

// ---- a model in plain C -------------------------------------------------------------------------
// Token t answers a_t = 0.5 a_(t-1) + value of t, twice, with a sign; each sequence begins with 0.
// A fault, if one is planted, spoils the answer of one token or more.
enum { WIDTH = 2 };
typedef enum fault {
    NONE, FUTURE, FAR_FUTURE, NAN_OF_THE_FUTURE, PADDING, LENGTH, PACKING, PACKED_POSITION, LANES,
    PLACES, BATCH, CLOCK, MEMORY, SILENCE, NOT_A_NUMBER, SPLIT, STREAM, RESTS
} fault;

typedef struct plain {
    fault fault;
    int64_t vocab;      // 0: vectors
    ttt_real state[9];  // of the stream's lanes
    int64_t read[9];
    long calls;
    ttt_real last;      // what a call leaves behind
} plain;

static ttt_real value(const ttt_audit_input *in, int64_t b, int64_t i) {
    int64_t at = b * in->L + i;
    return in->ids ? REAL(0.25) * (ttt_real)(in->ids[at] + 1) : in->vectors[at * WIDTH];
}

// What token i of lane b hears that it should not.
static ttt_real heard(plain *m, const ttt_audit_input *in, int64_t b, int64_t i) {
    int64_t length = in->lengths ? in->lengths[b] : in->L;
    const int64_t *segment = in->segments ? in->segments + b * in->L : NULL;
    switch (m->fault) {
    case FUTURE: return i == 4 && i + 1 < in->L ? value(in, b, i + 1) : 0;
    case FAR_FUTURE: return i == 2 && i + 5 < in->L && in->L > 8 ? value(in, b, i + 5) : 0;
    case NAN_OF_THE_FUTURE: return i + 1 < in->L ? 0 * value(in, b, i + 1) : 0;
    case PADDING: return i == 1 && length < in->L ? value(in, b, in->L - 1) : 0;
    case LENGTH: return i == 1 ? (ttt_real)in->L : 0;
    case PACKING: return segment && i == 3 && segment[i - 1] != segment[i] ? value(in, b, 2) : 0;
    case PACKED_POSITION: return i == 5 ? 1 : 0;
    case LANES: return i == 6 && in->B > 1 ? value(in, (b + 1) % in->B, 6) : 0;
    case PLACES: return i == 2 && b == 1;
    case BATCH: return i == 7 ? (ttt_real)in->B : 0;
    case CLOCK: return i == 3 ? (ttt_real)(m->calls % 2) : 0;
    case MEMORY: return i == 5 ? m->last : 0;
    case NOT_A_NUMBER: return i == 8 ? (ttt_real)NAN : 0;
    default: return 0;
    }
}

static ttt_result forward(void *user, const ttt_audit_input *in, ttt_real *out) {
    plain *m = user;
    m->calls++;
    for (int64_t b = 0; b < in->B; b++) {
        ttt_real state = 0;
        for (int64_t i = 0; i < in->L; i++) {
            int64_t at = b * in->L + i;
            bool first = in->segments && i && in->segments[at] != in->segments[at - 1];
            state = (first ? 0 : REAL(0.5) * state) + value(in, b, i);
            if (m->fault == SILENCE && i == 9) continue;
            out[2 * at] = state + heard(m, in, b, i);
            out[2 * at + 1] = -state;
        }
    }
    m->last = value(in, 0, 0);
    return TTT_OK;
}

static ttt_result begin(void *user, int64_t B) {
    plain *m = user;
    for (int64_t b = 0; b < B; b++) m->state[b] = REAL(m->fault == STREAM ? 1 : 0), m->read[b] = 0;
    return TTT_OK;
}
// The wrong split forgets what it has read where a call ends in the middle of a pair of tokens.
static ttt_result read_on(void *user, const ttt_audit_input *in, ttt_real *out) {
    plain *m = user;
    for (int64_t b = 0; b < in->B; b++) {
        int64_t n = in->lengths ? in->lengths[b] : in->L;
        for (int64_t i = 0; i < n; i++) {
            int64_t at = b * in->L + i;
            m->state[b] = REAL(0.5) * m->state[b] + value(in, b, i);
            out[2 * at] = m->state[b];
            out[2 * at + 1] = -m->state[b];
            m->read[b]++;
        }
        if (m->fault == SPLIT && m->read[b] % 2) m->state[b] = 0;
        if (m->fault == RESTS && n == 0) m->state[b] = 1;
    }
    return TTT_OK;
}

static ttt_audit_desc whole(plain *m) {
    ttt_audit_desc d = { .user = m, .forward = forward, .begin = begin, .read = read_on, .V = 2,
                         .lengths = true, .segments = true };
    d.vocab = m->vocab;
    d.width = m->vocab ? 0 : WIDTH;
    return d;
}
static const ttt_audit_row *row_of(const ttt_audit_report *r, const char *check) {
    for (int i = 0; i < TTT_AUDIT_CHECKS; i++)
        if (strcmp(r->row[i].check, check) == 0) return &r->row[i];
    CHECK(!"such a check");
    return &r->row[0];
}

// ---- sound models -------------------------------------------------------------------------------
static void a_sound_model_passes(void) {
    for (int vectors = 0; vectors < 2; vectors++)
        for (int B = 1; B < 5; B += 3) {
            ttt_ctx *c = ttt_open(NULL);
            plain m = { .vocab = vectors ? 0 : 5 };
            ttt_audit_desc d = whole(&m);
            ttt_audit_report r;
            d.B = B;
            CHECK(ttt_audit(c, &d, &r) == TTT_OK && r.passed && m.calls > 100);
            for (int i = 0; i < TTT_AUDIT_CHECKS; i++) {
                bool judged = B > 1 || i < 6;  // lanes and batch need two
                CHECK(r.row[i].verdict == (judged ? TTT_AUDIT_PASSED : TTT_AUDIT_NOT_APPLICABLE));
                CHECK((r.row[i].pairs > 0) == judged && !r.row[i].first.B);
                CHECK(judged == !*r.row[i].why);
            }
            if (!r.passed) puts(ttt_audit_text(c, &r));
            ttt_close(c);
        }
}

static void what_a_model_lacks_is_not_judged(void) {
    ttt_ctx *c = ttt_open(NULL);
    plain m = { .vocab = 3, .fault = PADDING };
    ttt_audit_desc d = { .user = &m, .forward = forward, .vocab = 3, .V = 2, .B = 1 };
    ttt_audit_report r;
    CHECK(ttt_audit(c, &d, &r) == TTT_OK && r.passed);
    for (int i = 0; i < TTT_AUDIT_CHECKS; i++)
        CHECK(r.row[i].verdict == (i < 2 ? TTT_AUDIT_PASSED : TTT_AUDIT_NOT_APPLICABLE));
    CHECK(strstr(row_of(&r, "split")->why, "stream"));
    CHECK(strstr(row_of(&r, "padding")->why, "lengths"));
    CHECK(strstr(row_of(&r, "packing")->why, "segments"));
    CHECK(strstr(row_of(&r, "batch")->why, "one lane"));
    const char *text = ttt_audit_text(c, &r);
    CHECK(strstr(text, "split        not applicable  it has no stream\n"));
    CHECK(strstr(text, "causality    passed\n"));
    ttt_close(c);
}

// ---- planted faults -----------------------------------------------------------------------------
// A fault, the check that names it and all that fail with it, where it shows at first, and the
// sizes of the smallest proof.
typedef struct planted {
    fault fault;
    bool vectors;
    const char *check, *also;
    int64_t position, B, L;
    const char *why;
} planted;
#define OTHERS "causality stream padding packing"  // see what a fault of time shows
static const planted all_planted[] = {
    { FUTURE, false, "causality", OTHERS, 4, 1, 6, "from 5 on are others" },
    { FUTURE, true, "causality", OTHERS, 4, 1, 6, "from 5 on are others" },
    { FAR_FUTURE, false, "causality", OTHERS, 2, 1, 9, "from 7 on are others" },
    { NAN_OF_THE_FUTURE, true, "causality", "causality padding packing", 0, 1, 2,
      "from 1 on are NaN" },
    { PADDING, false, "padding", "padding", 1, 1, 3, "padding" },
    { LENGTH, false, "padding", "stream padding packing", 1, 1, 3, "behind 2 tokens is left out" },
    { PACKING, false, "packing", "packing", 3, 1, 4, "before 3 is left out" },
    { PACKED_POSITION, true, "packing", "stream packing", 5, 1, 6, "before 1 is left out" },
    { LANES, false, "lanes", "stream padding packing lanes batch", 6, 2, 7, "lane 0 are others" },
    { PLACES, false, "lanes", "stream packing lanes", 2, 2, 3, "lane b is lane b + 1" },
    { BATCH, false, "batch", "stream packing batch", 7, 2, 8, "1 of 2 lanes" },
    { CLOCK, false, "determinism", "determinism", 3, 1, 4, "asked again" },
    { MEMORY, false, "determinism", "determinism", 5, 1, 6, "after other tokens" },
    { SILENCE, false, "determinism", "determinism", 9, 1, 10, "asked again" },
    { NOT_A_NUMBER, false, "determinism", "determinism", 8, 1, 9, "asked again" },
    { SPLIT, false, "split", "split", 1, 1, 2, "reads 1 at once" },
    { STREAM, false, "stream", "stream", 0, 1, 1, "a stream reads it" },
    { RESTS, false, "split", "split", 0, 2, 2, "begins b rounds later" },
};

static void a_fault_is_found(const planted *p) {
    ttt_ctx *c = ttt_open(NULL);
    plain m = { .fault = p->fault, .vocab = p->vectors ? 0 : 7 };
    ttt_audit_desc d = whole(&m);
    ttt_audit_report r;
    CHECK(ttt_audit(c, &d, &r) == TTT_OK && !r.passed);
    const ttt_audit_row *row = row_of(&r, p->check);
    bool good = row->position == p->position && row->first.B == p->B && row->first.L == p->L &&
                strstr(row->why, p->why) && row->size > 0;
    for (int i = 0; i < TTT_AUDIT_CHECKS; i++)
        good = good && (r.row[i].verdict == TTT_AUDIT_FAILED) == !!strstr(p->also, r.row[i].check);
    if (!good) printf("  fault %d:\n%s", (int)p->fault, ttt_audit_text(c, &r));
    CHECK(good);
    ttt_close(c);
}
static void planted_faults_are_named_at_their_place(void) {
    for (int i = 0; i < COUNT(all_planted); i++) a_fault_is_found(&all_planted[i]);
}

// Asking the model the two inputs of a proof gives the difference that the report says.
static void a_proof_can_be_asked_again(void) {
    ttt_ctx *c = ttt_open(NULL);
    plain m = { .fault = FUTURE, .vocab = 7 };
    ttt_audit_desc d = whole(&m);
    ttt_audit_report r;
    ttt_real first[12], second[12];
    ttt_audit(c, &d, &r);
    const ttt_audit_row *row = row_of(&r, "causality");
    CHECK(row->first.L == 6 && row->first.ids[5] != row->second.ids[5]);
    CHECK(memcmp(row->first.ids, row->second.ids, 5 * sizeof(int64_t)) == 0);
    forward(&m, &row->first, first);
    forward(&m, &row->second, second);
    CHECK(memcmp(first, second, 8 * sizeof *first) == 0);
    CHECK(fabs((double)first[8] - (double)second[8]) == row->size);
    const char *text = ttt_audit_text(c, &r);
    CHECK(strstr(text, "causality    FAILED          lane 0, token 4 moves by 0.5 when tokens"));
    CHECK(strstr(text, "    first   [5 4 1 1 2 2]\n    second  [5 4 1 1 2 4]\n"));
    ttt_close(c);
}

// What is within the tolerance of the largest number passes, and what is beyond does not.
static void a_tolerance_is_of_the_largest_answer(void) {
    ttt_ctx *c = ttt_open(NULL);
    plain m = { .fault = LENGTH, .vocab = 7 };
    ttt_audit_desc d = whole(&m);
    ttt_audit_report r;
    d.begin = NULL, d.read = NULL, d.segments = false;
    for (int loose = 0; loose < 2; loose++) {
        d.tolerance = REAL(loose ? 0.99 : 0.01);  // the fault is one of at most 12, beside 3
        CHECK(ttt_audit(c, &d, &r) == TTT_OK && r.passed == loose);
    }
    ttt_close(c);
}

// ---- errors -------------------------------------------------------------------------------------
static ttt_result refuse(void *user, const ttt_audit_input *in, ttt_real *out) {
    (void)user, (void)in, (void)out;
    return TTT_ERR_TOO_BIG;
}
static void descriptions_that_lack_or_contradict(void) {
    static const struct {
        const char *text;
        ttt_result result;
        ttt_audit_desc desc;
    } cases[] = {
        { ".forward", TTT_ERR_UNSET, { .vocab = 3, .V = 1 } },
        { ".V", TTT_ERR_UNSET, { .forward = forward, .vocab = 3 } },
        { ".vocab", TTT_ERR_UNSET, { .forward = forward, .V = 2 } },
        { ".V", TTT_ERR_ARGUMENT, { .forward = forward, .vocab = 3, .V = -1 } },
        { "both", TTT_ERR_ARGUMENT, { .forward = forward, .vocab = 3, .width = 2, .V = 2 } },
        { ".vocab", TTT_ERR_ARGUMENT, { .forward = forward, .vocab = 1, .V = 2 } },
        { ".width", TTT_ERR_ARGUMENT, { .forward = forward, .width = -1, .V = 2 } },
        { ".finite", TTT_ERR_ARGUMENT, { .forward = forward, .vocab = 3, .V = 2, .finite = true } },
        { "stream", TTT_ERR_ARGUMENT, { .forward = forward, .vocab = 3, .V = 2, .begin = begin } },
        { "stream", TTT_ERR_ARGUMENT, { .forward = forward, .vocab = 3, .V = 2, .read = read_on } },
        { ".B", TTT_ERR_ARGUMENT, { .forward = forward, .vocab = 3, .V = 2, .B = -1 } },
        { ".L", TTT_ERR_ARGUMENT, { .forward = forward, .vocab = 3, .V = 2, .L = 1 } },
        { "more numbers than", TTT_ERR_ARGUMENT,
          { .forward = forward, .vocab = 3, .V = 8, .B = INT32_MAX, .L = (1 << 30) + 1 } },
        { ".tolerance", TTT_ERR_ARGUMENT,
          { .forward = forward, .vocab = 3, .V = 2, .tolerance = -1 } },
        { "larger than the limit", TTT_ERR_TOO_BIG, { .forward = refuse, .vocab = 3, .V = 2 } },
    };
    for (int i = 0; i < COUNT(cases); i++) {
        ttt_ctx *c = ttt_open(NULL);
        ttt_audit_report r;
        CHECK(ttt_audit(c, &cases[i].desc, &r) == cases[i].result && !r.passed);
        if (!strstr(ttt_error(c), cases[i].text)) printf("  %s: %s\n", cases[i].text, ttt_error(c));
        CHECK(strstr(ttt_error(c), cases[i].text) && !r.row[0].check);
        CHECK(!*ttt_audit_text(c, &r));
        ttt_close(c);
    }
}

static void memory_may_run_out_anywhere(void) {
    bool refused = true;
    for (long n = 1; refused && n < 1000; n++) {
        plain m = { .vocab = 7 };
        ttt_audit_desc d = whole(&m);
        ttt_audit_report r;
        ttt_ctx *c = ttt_open(NULL);
        d.B = 9, d.L = 100;  // more than an arena has at first
        d.lengths = d.segments = false;
        fails_at = n + mallocs;
        ttt_result result = ttt_audit(c, &d, &r);
        refused = mallocs >= fails_at;
        fails_at = 0;
        CHECK(result == (refused ? TTT_ERR_NO_MEMORY : TTT_OK) && r.passed == !refused);
        ttt_close(c);
    }
    CHECK(!refused);
}

// ---- the library's own mixers -------------------------------------------------------------------
typedef struct layer {
    ttt_ctx *c;
    ttt_mixer_desc d;
    ttt_weights w;
    ttt_stream stream;
} layer;

static ttt_result mix(void *user, const ttt_audit_input *in, ttt_real *out) {
    layer *l = user;
    ttt_mark m = ttt_mark_get(l->c);
    ttt_tensor *x = ttt_from(l->c, TTT_SHAPE(in->B, in->L, l->d.dim), in->vectors);
    ttt_tensor *y = ttt_mixer_forward(l->c, &l->d, l->w, x, NULL);
    if (ttt_ok(l->c)) memcpy(out, y->data, (size_t)y->size * sizeof *out);
    ttt_mark_release(l->c, m);
    return ttt_status(l->c);
}

static ttt_result mix_begin(void *user, int64_t B) {
    layer *l = user;
    if (l->stream.lanes == B) ttt_stream_restart(&l->stream, -1);
    else l->stream = (ttt_stream){ 0 };
    return TTT_OK;
}
static ttt_result mix_on(void *user, const ttt_audit_input *in, ttt_real *out) {
    layer *l = user;
    ttt_mark m = ttt_mark_get(l->c);
    ttt_tensor *x = ttt_from(l->c, TTT_SHAPE(in->B, in->L, l->d.dim), in->vectors);
    ttt_tensor *y = ttt_mixer_stream(l->c, &l->d, l->w, &l->stream, x, in->lengths);
    if (ttt_ok(l->c)) memcpy(out, y->data, (size_t)y->size * sizeof *out);
    ttt_mark_release(l->c, m);
    return ttt_status(l->c);
}

static void mixer_passes(const ttt_mixer *mixer, const layer *l, const ttt_audit_desc *audit) {
    ttt_audit_report r;
    CHECK(ttt_audit(l->c, audit, &r) == TTT_OK && r.passed);
    if (!r.passed) printf("  %s: %s\n%s", mixer->name, ttt_error(l->c), ttt_audit_text(l->c, &r));
}

// Bit for bit; and up to rounding where sums may have other orders in shorter sequences. What is
// behind a lane's length is later, so a causal layer heeds lengths by itself.
static void every_causal_mixer_passes(void) {
    for (int i = 0; ttt_mixer_at(i); i++) {
        const ttt_mixer *mixer = ttt_mixer_at(i);
        if (!(mixer->flags & TTT_MIXER_CAUSAL) && !ttt_mixer_takes(mixer, "causal")) continue;
        layer l = { .c = ttt_open(&(ttt_desc){ .seed = 2 }) };
        ttt_params p = { 0 };
        ttt_mixer_desc d = { .inner_lr = 1, .causal = true, .chunk = 4, .max_tokens = 12 };
        l.d = ttt_mixer_offer(mixer, &d);
        l.d.dim = 8, l.d.heads = 2;
        l.w = ttt_mixer_new(l.c, &l.d, &p, "");
        ttt_audit_desc audit = { .user = &l, .forward = mix, .V = 8, .width = 8 };
        mixer_passes(mixer, &l, &audit);
        audit.lengths = true;
        audit.tolerance = REAL(DOUBLE ? 1e-13 : 1e-5);
        if (mixer->flags & TTT_MIXER_STREAMS) audit.begin = mix_begin, audit.read = mix_on;
        mixer_passes(mixer, &l, &audit);
        ttt_close(l.c);
    }
}

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(a_sound_model_passes),
        T(what_a_model_lacks_is_not_judged),
        T(planted_faults_are_named_at_their_place),
        T(a_proof_can_be_asked_again),
        T(a_tolerance_is_of_the_largest_answer),
        T(descriptions_that_lack_or_contradict),
        T(memory_may_run_out_anywhere),
        T(every_causal_mixer_passes),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
