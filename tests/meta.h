// meta.h - small networks that take gradient steps which stay on the tape: MAML, and a BYOL-style inner
// loss. golden.c replays the official cases with them, test_layers.c differentiates them to order 3.
#ifndef META_H
#define META_H

#include "../ttt_tensor.h"

enum { META_MOST = 16 };
typedef ttt_tensor *meta_activation(ttt_ctx *c, ttt_tensor *x);
typedef struct {
    int n;
    ttt_tensor *w[META_MOST];  // w[2k] is the kernel of layer k, w[2k+1] its bias
    meta_activation *activation;
} meta_net;

static ttt_tensor *meta_linear(ttt_ctx *c, const meta_net *v, int k, ttt_tensor *x) { return ttt_affine(c, x, v->w[2 * k], v->w[2 * k + 1]); }

// layer k, the activation, layer k + 1
static ttt_tensor *meta_mlp(ttt_ctx *c, const meta_net *v, int k, ttt_tensor *x) {
    return meta_linear(c, v, k + 1, v->activation(c, meta_linear(c, v, k, x)));
}

// One step w - lr g on all weights. first_order: g is a constant, the rate still takes gradients.
static meta_net meta_adapt(ttt_ctx *c, meta_net v, ttt_tensor *loss, ttt_tensor *const *lr, bool first_order) {
    ttt_tensor *g[META_MOST];
    ttt_grad(c, loss, v.w, v.n, g, first_order ? TTT_GRAD_FIRST_ORDER : TTT_GRAD_RECORD);
    for (int i = 0; i < v.n; i++) {
        if (first_order) g[i] = ttt_detach(c, g[i]);
        v.w[i] = ttt_sub(c, v.w[i], ttt_mul(c, lr[i], g[i]));
    }
    return v;
}

// target (n,classes), rows that sum to 1: mean over n of -sum target log softmax
static ttt_tensor *meta_cross_entropy(ttt_ctx *c, ttt_tensor *logits, ttt_tensor *target) {
    ttt_tensor *sum = ttt_sum(c, ttt_mul(c, target, ttt_log_softmax(c, logits)));
    return ttt_scale(c, sum, -1 / (ttt_real)target->shape.dim[0]);
}

// -- BYOL: a network of encoder (two layers), projector, predictor (two layers) and classifier
enum { META_ENC1, META_ENC2, META_PROJ, META_PRED1, META_PRED2, META_CLS };

// v / sqrt(sum v^2 + eps), by rows
static ttt_tensor *meta_unit(ttt_ctx *c, ttt_tensor *v, ttt_real eps) {
    return ttt_mul(c, v, ttt_rsqrt(c, ttt_add_scalar(c, ttt_sum_axis(c, ttt_square(c, v), -1), eps)));
}
static ttt_tensor *meta_project(ttt_ctx *c, const meta_net *v, ttt_tensor *x) { return meta_linear(c, v, META_PROJ, meta_mlp(c, v, META_ENC1, x)); }
static ttt_tensor *meta_classify(ttt_ctx *c, const meta_net *v, ttt_tensor *x) { return meta_linear(c, v, META_CLS, meta_mlp(c, v, META_ENC1, x)); }

// What the other view shall predict: a constant for the inner gradient and for the outer one.
static ttt_tensor *meta_byol_target(ttt_ctx *c, const meta_net *v, ttt_tensor *x, ttt_real eps) {
    return ttt_detach(c, meta_unit(c, meta_project(c, v, x), eps));
}
// mean over the batch of |n(p(z1)) - target2|^2 + |n(p(z2)) - target1|^2
static ttt_tensor *meta_byol_loss(ttt_ctx *c, const meta_net *v, ttt_tensor *const *x, ttt_tensor *const *target, ttt_real eps) {
    ttt_tensor *sum = ttt_scalar(c, 0);
    for (int i = 0; i < 2; i++) {
        ttt_tensor *p = meta_mlp(c, v, META_PRED1, meta_project(c, v, x[i]));
        sum = ttt_add(c, sum, ttt_sum(c, ttt_square(c, ttt_sub(c, meta_unit(c, p, eps), target[1 - i]))));
    }
    return ttt_scale(c, sum, 1 / (ttt_real)x[0]->shape.dim[0]);
}

#endif
