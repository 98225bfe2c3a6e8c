// bits.c - prints a hash of the bits that the library computes, a line for each instruction set and
// kind of work. tests/run.sh compiles it with flags that let a compiler change arithmetic, and
// compares the lines with those of a plain build. It tests no NaN by itself: such flags do away
// with tests of NaN.
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include <stdio.h>
#include <string.h>

enum { COUNT = 4099 };  // no multiple of a vector

static uint64_t mixed(uint64_t h, const void *data, size_t bytes) {  // FNV-1a
    for (size_t i = 0; i < bytes; i++) h = (h ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
    return h;
}
// All NaN are alike: which of two operands' NaN a sum takes is up to the machine.
static uint64_t mixed_tensor(uint64_t h, const ttt_tensor *t) {
    for (int64_t i = 0; i < t->size; i++) {
        double x = (double)t->data[i];
        uint64_t bits;
        memcpy(&bits, &x, sizeof bits);
        if ((bits & INT64_MAX) > (uint64_t)0x7ff << 52) bits = 1;
        h = mixed(h, &bits, sizeof bits);
    }
    return h;
}

// Numbers of all signs and exponents, with NaN, infinities and subnormals.
static ttt_tensor *all_kinds(ttt_ctx *c, uint32_t step) {
    ttt_tensor *t = ttt_new(c, TTT_SHAPE(COUNT));
    for (uint32_t i = 0; i < COUNT && ttt_ok(c); i++) {
        uint32_t bits = i * step;
        float x;
        memcpy(&x, &bits, sizeof x);
        t->data[i] = (ttt_real)x;
    }
    return t;
}
static uint64_t bits_of_functions(ttt_ctx *c) {
    ttt_tensor *a = all_kinds(c, 0x100401u), *b = all_kinds(c, 0x9e3779b1u);
    uint64_t h = 0;
#define X(name, formula, lo, hi, flops) h = mixed_tensor(h, ttt_##name(c, a));
    TTT_UNARY_OPS(X)
#undef X
#define X(name, formula, lo, hi, flops) h = mixed_tensor(h, ttt_##name(c, a, b));
    TTT_BINARY_OPS(X)
#undef X
    return h;
}

// Sums, norms and products of rows with ordinary numbers and with tiny ones.
static uint64_t bits_of_rows(ttt_ctx *c) {
    uint64_t h = 0;
    for (int tiny = 0; tiny < 2; tiny++) {
        ttt_tensor *a = ttt_randn(c, TTT_SHAPE(37, 211)), *b = ttt_randn(c, TTT_SHAPE(211, 53));
        if (tiny) a = ttt_scale(c, a, (ttt_real)1e-38);
        h = mixed_tensor(h, ttt_softmax(c, a));
        h = mixed_tensor(h, ttt_log_softmax(c, a));
        h = mixed_tensor(h, ttt_layer_normalize(c, a, (ttt_real)1e-6));
        h = mixed_tensor(h, ttt_sum(c, a));
        h = mixed_tensor(h, ttt_sum_to(c, a, TTT_SHAPE(1, 211)));
        h = mixed_tensor(h, ttt_matmul(c, a, b));
        h = mixed_tensor(h, ttt_matmul(c, ttt_slice(c, a, 0, 0, 1), b));
    }
    return h;
}

// A small model's parameters after two steps of training.
static uint64_t bits_of_training(ttt_ctx *c, const char *mixer, bool fused) {
    ttt_vit_desc vit;
    ttt_mixer_desc all;
    ttt_optimizer_desc rule;
    ttt_params params;
    uint64_t h = 0;
    memset(&vit, 0, sizeof vit);
    memset(&all, 0, sizeof all);
    memset(&rule, 0, sizeof rule);
    memset(&params, 0, sizeof params);
    vit.image = 8, vit.channels = 1, vit.patch = 2, vit.width = 12, vit.depth = 2, vit.classes = 5;
    all.heads = 3, all.inner_lr = 1, all.no_fused = !fused;
    rule.lr = (ttt_real)0.01, rule.clip = 1, rule.weight_decay = (ttt_real)0.1;
    vit.mixer = ttt_mixer_offer(ttt_mixer_find(mixer), &all);
    *ttt_ctx_rng(c) = ttt_rng_at(7, 0, 0, 0);
    ttt_weights weights = ttt_vit_new(c, &vit, &params, "");
    ttt_optimizer *optimizer = ttt_optimizer_new(c, &rule, &params);
    for (int step = 0; step < 2; step++) {
        int64_t labels[4] = { 0, 3, 1, 4 };
        ttt_tensor *x = ttt_randn(c, TTT_SHAPE(4, 8, 8, 1));
        ttt_tensor *y = ttt_one_hot(c, ttt_from_int(c, TTT_SHAPE(4), labels), 5);
        ttt_tensor *logits = ttt_vit_forward(c, &vit, weights, x, NULL);
        ttt_optimizer_step(c, optimizer, ttt_cross_entropy(c, logits, y));
    }
    for (int i = 0; i < params.n; i++) h = mixed_tensor(h, params.value[i]);
    return h;
}

static void show(ttt_ctx *c, const char *what, const char *way, uint64_t bits) {
    printf("%s %s%s %016llx %s\n", ttt_isa(c), what, way, (unsigned long long)bits, ttt_error(c));
}

int main(void) {
    for (int i = 0; ttt_isa_name(i); i++) {
        ttt_desc desc;
        memset(&desc, 0, sizeof desc);
        desc.isa = ttt_isa_name(i);
        desc.threads = 2;
        ttt_ctx *c = ttt_open(&desc);
        show(c, "functions", "", bits_of_functions(c));
        show(c, "rows", "", bits_of_rows(c));
        for (int k = 0; ttt_mixer_at(k); k++) {
            const char *name = ttt_mixer_at(k)->name;
            show(c, name, "", bits_of_training(c, name, true));
            show(c, name, " op by op", bits_of_training(c, name, false));
        }
        ttt_close(c);
    }
    return 0;
}
