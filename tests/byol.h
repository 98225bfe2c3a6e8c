// byol.h - a small network with BYOL's loss [Grill et al. 2020], all of it a function of its
// weights. golden.c replays the official cases with it, test_layers.c differentiates through its
// steps to order 3.
#ifndef BYOL_H
#define BYOL_H

#include "../ttt_layers.h"

typedef ttt_tensor *activation(ttt_ctx *c, ttt_tensor *x);

// Layer k of a network that is a list of dense layers; and layer k, the activation, layer k + 1.
static ttt_tensor *dense_at(ttt_ctx *c, ttt_weights w, int k, ttt_tensor *x) {
    ttt_weights_take(c, "dense_at", &w, 2 * k);
    return ttt_dense(c, ttt_weights_take(c, "dense_at", &w, 2), x);
}
static ttt_tensor *two_layers(ttt_ctx *c, activation *f, ttt_weights w, int k, ttt_tensor *x) {
    return dense_at(c, w, k + 1, f(c, dense_at(c, w, k, x)));
}

// The layers: encoder (two), projector, predictor (two), classifier.
enum { BYOL_ENCODER, BYOL_PROJECTOR = 2, BYOL_PREDICTOR, BYOL_CLASSIFIER = 5 };

// v / sqrt(sum v^2 + eps), by rows
static ttt_tensor *byol_unit(ttt_ctx *c, ttt_tensor *v, ttt_real eps) {
    return ttt_mul(c, v,
                   ttt_rsqrt(c, ttt_add_scalar(c, ttt_sum_axis(c, ttt_square(c, v), -1), eps)));
}
static ttt_tensor *byol_project(ttt_ctx *c, activation *f, ttt_weights w, ttt_tensor *x) {
    return dense_at(c, w, BYOL_PROJECTOR, two_layers(c, f, w, BYOL_ENCODER, x));
}
static ttt_tensor *byol_classify(ttt_ctx *c, activation *f, ttt_weights w, ttt_tensor *x) {
    return dense_at(c, w, BYOL_CLASSIFIER, two_layers(c, f, w, BYOL_ENCODER, x));
}

// What the other view should predict: a constant for the inner gradient and for the outer one.
static ttt_tensor *byol_target(ttt_ctx *c, activation *f, ttt_weights w, ttt_tensor *x,
                               ttt_real eps) {
    return ttt_detach(c, byol_unit(c, byol_project(c, f, w, x), eps));
}
// mean over the batch of |n(p(z1)) - target2|^2 + |n(p(z2)) - target1|^2
static ttt_tensor *byol_loss(ttt_ctx *c, activation *f, ttt_weights w, ttt_tensor *const *x,
                             ttt_tensor *const *target, ttt_real eps) {
    ttt_tensor *sum = ttt_scalar(c, 0);
    for (int i = 0; i < 2; i++) {
        ttt_tensor *p = two_layers(c, f, w, BYOL_PREDICTOR, byol_project(c, f, w, x[i]));
        sum = ttt_add(c, sum,
                      ttt_sum(c, ttt_square(c, ttt_sub(c, byol_unit(c, p, eps), target[1 - i]))));
    }
    return ttt_scale(c, sum, 1 / (ttt_real)x[0]->shape.dim[0]);
}

#endif
