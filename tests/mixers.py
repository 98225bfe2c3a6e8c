"""mixers.py - the mixers once more, as plainly as their equations are written, for test_mixers.c to replay.

    python3 tests/mixers.py [DIRECTORY]      writes the cases; the default is tests/mixers

Needs torch and numpy; the tests themselves do not: the cases lie in the repository. Nothing here is taken
from the headers but the names and shapes of parameters. Recurrences go token by token, attention makes its
whole N x N matrix, convolutions are loops over places, what learns takes the gradient of its loss from
autograd, and no sum is rearranged. Everything is float64, and gradients are those of autograd.

A case is a safetensors file. Its metadata has the mixer, the fields of the description that are not zero,
and what ttt_unmask shall say of it (exact: true or false). Its tensors are x, cotangent, y, each parameter
as param/NAME, and the gradients of <cotangent, y> as grad.x and grad/NAME.

Sources, by arXiv number and, where the paper leaves something open, by the official code:
    2407.04620 TTT   2501.00663 Titans   2505.23884 LaCT (a1600012888/LaCT)   2512.01643 ViTTT
    2406.06484, 2412.06464, 2510.26692 delta rule, KDA (fla-org/flash-linear-attention)
    2006.16236 linear attention
    2308.00442 FLatten (LeapLabTHU/FLatten-Transformer)   2006.04768 Linformer
    2004.05150 Longformer   2103.15358 ViL
"""
import json
import math
import pathlib
import struct
import sys
import zlib

import numpy as np
import torch
from torch.nn.functional import gelu, sigmoid, silu, softplus

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


# ---- words that the mixers share -----------------------------------------------------------------
def heads(t, H):  # (B,N,D) -> (B,H,N,h)
    B, N, D = t.shape
    return t.reshape(B, N, H, D // H).permute(0, 2, 1, 3)


def joined(t):  # and back
    B, H, N, h = t.shape
    return t.permute(0, 2, 1, 3).reshape(B, N, H * h)


def layer_norm(z, scale, bias, eps=1e-6):
    m = z.mean(-1, keepdim=True)
    return (z - m) / torch.sqrt(((z - m) ** 2).mean(-1, keepdim=True) + eps) * scale + bias


def rms_norm(z, scale, eps=1e-5):
    return z / torch.sqrt((z**2).mean(-1, keepdim=True) + eps) * scale


def dense(p, name, x):
    kernel = p[name + "/kernel"]
    y = x @ kernel.reshape(x.shape[-1], -1)
    return y + p[name + "/bias"].reshape(-1) if name + "/bias" in p else y


def attend(scores, seen, v):
    """Softmax over the keys that are seen, (..,N,M) and a (N,M) of booleans."""
    e = torch.exp(scores - scores.max(-1, keepdim=True).values) * seen.to(scores.dtype)
    return e / e.sum(-1, keepdim=True) @ v


def everything(n, m):
    return torch.ones(n, m, dtype=torch.bool)


def past(n):
    return torch.tril(everything(n, n))


def qkv_shapes(D):
    return {f"{n}/{k}": s for n in ("query", "key", "value", "proj") for k, s in (("kernel", (D, D)), ("bias", (D,)))}


def projected(p, H, x, names=("query", "key", "value")):
    return [heads(dense(p, n, x), H) for n in names]


def grid_convolution(x, kernel, rows, cols, side):
    """x (B,rows*cols,d) depthwise with kernel (side*side,d), row by row, zeros beyond the border."""
    out, reach = [], side // 2
    for i in range(rows):
        for j in range(cols):
            total = torch.zeros_like(x[:, 0])
            for a in range(side):
                for b in range(side):
                    r, s = i + a - reach, j + b - reach
                    if 0 <= r < rows and 0 <= s < cols:
                        total = total + kernel[a * side + b] * x[:, r * cols + s]
            out.append(total)
    return torch.stack(out, 1)


# ---- attention -----------------------------------------------------------------------------------
def self_attention_shapes(d):
    D, H = d["dim"], d["heads"]
    h = D // H
    rows = {f"{n}/{k}": s for n in ("query", "key", "value") for k, s in (("kernel", (D, H, h)), ("bias", (H, h)))}
    return {**rows, "out/kernel": (H, h, D), "out/bias": (D,)}


def self_attention(p, d, x):
    q, k, v = projected(p, d["heads"], x)
    N = x.shape[1]
    seen = past(N) if d.get("causal") else everything(N, N)
    y = joined(attend(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), seen, v))
    return y @ p["out/kernel"].reshape(d["dim"], d["dim"]) + p["out/bias"]


def nadaraya_watson(p, d, x):
    """sum_s kappa(q,k_s) v_s / sum_s kappa(q,k_s) over a list of pairs."""
    q, k, v = projected(p, d["heads"], x)
    B, H, N, h = q.shape
    kind, band = d.get("kernel", "exponential"), d.get("bandwidth", h**0.25)
    rows = []
    for b in range(B):
        for a in range(H):
            for t in range(N):
                members = range(t + 1 if d.get("causal") else N)
                square = {s: ((q[b, a, t] - k[b, a, s]) ** 2).sum() for s in members}
                if kind == "nearest":
                    members = sorted(members, key=lambda s: float(square[s]))[: d.get("neighbors", 8)]
                if kind == "exponential":
                    kappa = {s: torch.exp((q[b, a, t] * k[b, a, s]).sum() / math.sqrt(h)) for s in members}
                else:
                    kappa = {s: torch.exp(-square[s] / (2 * band**2)) for s in members}
                rows.append(sum(kappa[s] * v[b, a, s] for s in members) / sum(kappa.values()))
    out = torch.stack(rows).reshape(B, H, N, h)
    return dense(p, "proj", joined(out))


def linformer_shapes(d):
    K = d.get("compressed", d["max_tokens"] // 4)
    return {**qkv_shapes(d["dim"]), "E": (d["max_tokens"], K), "F": (d["max_tokens"], K)}


def linformer(p, d, x):
    q, k, v = projected(p, d["heads"], x)
    N = x.shape[1]
    k = torch.einsum("nm,bhnd->bhmd", p["E"][:N], k)
    v = torch.einsum("nm,bhnd->bhmd", p["F"][:N], v)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return dense(p, "proj", joined(attend(scores, everything(N, k.shape[2]), v)))


def longformer_shapes(d):
    D, rows = d["dim"], qkv_shapes(d["dim"])
    if d.get("globals"):
        for n in ("query_global", "key_global", "value_global"):
            rows.update({n + "/kernel": (D, D), n + "/bias": (D,)})
    return rows


def longformer(p, d, x):
    q, k, v = projected(p, d["heads"], x)
    N, G, w, cols = x.shape[1], d.get("globals", 0), d.get("window", 256), d.get("grid_cols", 0)
    seen = torch.zeros(N, N, dtype=torch.bool)
    for i in range(N):
        for j in range(N):
            if cols and i >= G and j >= G:
                (r, s), (t, u) = divmod(i - G, cols), divmod(j - G, cols)
                seen[i, j] = max(abs(r - t), abs(s - u)) <= w
            else:
                seen[i, j] = abs(i - j) <= w and not cols
            if j < G:
                seen[i, j] = True
            if d.get("causal") and j > i:
                seen[i, j] = False
    scale = math.sqrt(q.shape[-1])
    seen[:G] = True  # replaced below; softmax needs one key at least
    y = attend(q @ k.transpose(-1, -2) / scale, seen, v)
    if G:
        qg, kg, vg = projected(p, d["heads"], x, ("query_global", "key_global", "value_global"))
        asked = attend(qg[:, :, :G] @ kg.transpose(-1, -2) / scale, (past(N) if d.get("causal") else everything(N, N))[:G], vg)
        y = torch.cat([asked, y[:, :, G:]], 2)
    return dense(p, "proj", joined(y))


# ---- linear attention ----------------------------------------------------------------------------
def linear_attention(p, d, x):
    q, k, v = projected(p, d["heads"], x)
    if not d.get("identity_map"):
        q, k = (torch.where(t > 0, t + 1, torch.exp(torch.clamp(t, max=0))) for t in (q, k))
    B, H, N, h = q.shape
    state, total = torch.zeros(B, H, h, h), torch.zeros(B, H, h)
    states, totals = [], []
    for t in range(N):
        state = state + torch.einsum("bhi,bhj->bhij", k[:, :, t], v[:, :, t])
        total = total + k[:, :, t]
        states.append(state)
        totals.append(total)
    out = []
    for t in range(N):
        at = t if d.get("causal") else N - 1
        y = torch.einsum("bhi,bhij->bhj", q[:, :, t], states[at])
        kind = d.get("normalizer", "adaptive")
        if kind == "adaptive":
            y = y / (q[:, :, t] * totals[at]).sum(-1, keepdim=True)
        elif kind == "constant":
            y = y / (N * h)
        out.append(y)
    return dense(p, "proj", joined(torch.stack(out, 2)))


def focused_shapes(d):
    D, h = d["dim"], d["dim"] // d["heads"]
    return {**qkv_shapes(D), "positional_encoding": (d["max_tokens"], D), "scale": (D,), "dwc/kernel": (25, h), "dwc/bias": (h,)}


def focused_linear(p, d, x):
    H, power = d["heads"], d.get("power", 3)
    q, k, v = (dense(p, n, x) for n in ("query", "key", "value"))
    k = k + p["positional_encoding"]

    def focus(t):
        t = (torch.relu(t) + 1e-6) / softplus(p["scale"])
        sharp = t**power
        return sharp * t.norm(dim=-1, keepdim=True) / sharp.norm(dim=-1, keepdim=True)

    q, k, v = heads(focus(q), H), heads(focus(k), H), heads(v, H)
    N = x.shape[1]
    z = 1 / ((q * k.mean(2, keepdim=True)).sum(-1, keepdim=True) + 1e-6)
    weights = q @ k.transpose(-1, -2) / N  # the map that is never made in earnest
    y = z * (weights @ v)
    near = [grid_convolution(v[:, a], p["dwc/kernel"], d["grid_rows"], d["grid_cols"], 5) for a in range(H)]
    y = y + torch.stack(near, 1) + p["dwc/bias"]
    return dense(p, "proj", joined(y))


# ---- the delta rule ------------------------------------------------------------------------------
def view_shapes(d):
    D = d["dim"]
    rows = {f"{n}_proj/kernel": (D, D) for n in "qkv"}
    if not d.get("no_short_conv"):
        rows.update({f"{n}_conv/kernel": (4, D) for n in "qkv"})
    return rows


def convolved(u, kernel):
    """Causal, each channel by itself; the last tap is the token's own."""
    taps, places = kernel.shape[0], []
    for t in range(u.shape[1]):
        total = torch.zeros_like(u[:, 0])
        for j in range(taps):
            if t - taps + 1 + j >= 0:
                total = total + kernel[j] * u[:, t - taps + 1 + j]
        places.append(total)
    return torch.stack(places, 1)


def views(p, d, x):
    """q, k, v = SiLU(causal convolution of 4 taps (x W)); q and k of length 1."""
    out = []
    for n in "qkv":
        u = x @ p[n + "_proj/kernel"]
        if not d.get("no_short_conv"):
            u = convolved(u, p[n + "_conv/kernel"])
        u = heads(silu(u), d["heads"])
        out.append(u if n == "v" else u / torch.sqrt((u**2).sum(-1, keepdim=True) + 1e-6))
    return out


def delta_shapes(d):
    D, H = d["dim"], d["heads"]
    rows = {**view_shapes(d), "b_proj/kernel": (D, H), "o_norm/scale": (D // H,), "o_proj/kernel": (D, D)}
    h = D // H
    if d["mixer"] == "gated-delta-net":
        rows.update({"a_proj/kernel": (D, H), "A_log": (H,), "dt_bias": (H,), "g_proj/kernel": (D, D)})
    if d["mixer"] == "kda":
        rows.update({f"{n}_proj/{i}/kernel": s for n in "fg" for i, s in ((0, (D, h)), (1, (h, D)))})
        rows.update({"g_proj/1/bias": (D,), "A_log": (H,), "dt_bias": (D,)})
    return rows


def log_kept(p, d, x):
    """The logarithm of what a token keeps: one number for the state, or one for each of its rows."""
    H = d["heads"]
    if d["mixer"] == "delta-net":
        return torch.zeros(x.shape[0], H, x.shape[1], 1)
    if d["mixer"] == "gated-delta-net":
        return heads(-torch.exp(p["A_log"]) * softplus(x @ p["a_proj/kernel"] + p["dt_bias"]), H)
    z = heads(dense(p, "f_proj/1", dense(p, "f_proj/0", x)) + p["dt_bias"], H)
    return -torch.exp(p["A_log"])[:, None, None] * softplus(z)


def delta_net(p, d, x):
    H, N = d["heads"], x.shape[1]
    h = d["dim"] // H
    q, k, v = views(p, d, x)
    q = q / math.sqrt(h)
    beta = sigmoid(x @ p["b_proj/kernel"]).transpose(1, 2)  # (B,H,N)
    kept = torch.exp(log_kept(p, d, x))  # (B,H,N,1) or (B,H,N,h)
    S, out = torch.zeros(x.shape[0], H, h, h), []
    for t in range(N):
        S = kept[:, :, t, :, None] * S
        found = torch.einsum("bhi,bhij->bhj", k[:, :, t], S)
        S = S + torch.einsum("bhi,bhj->bhij", k[:, :, t], beta[:, :, t, None] * (v[:, :, t] - found))
        out.append(torch.einsum("bhi,bhij->bhj", q[:, :, t], S))
    o = rms_norm(torch.stack(out, 2), p["o_norm/scale"])
    if d["mixer"] == "gated-delta-net":
        o = o * silu(heads(x @ p["g_proj/kernel"], H))
    if d["mixer"] == "kda":
        o = o * sigmoid(heads(dense(p, "g_proj/1", dense(p, "g_proj/0", x)), H))
    return joined(o) @ p["o_proj/kernel"]


# ---- learners that are written token by token ----------------------------------------------------
def learner_shapes(d, bias):
    H, h = d["heads"], d["dim"] // d["heads"]
    sizes = [(h, h)] if d["mixer"] == "ttt-linear" else [(h, 4 * h), (4 * h, h)]
    rows = {}
    for i, (a, b) in enumerate(sizes):
        rows[f"inner_Dense_{i}/kernel"] = (H, a, b)
        if bias:
            rows[f"inner_Dense_{i}/bias"] = (H, b)
    return rows


def learner(w, z):
    z = z @ w["inner_Dense_0/kernel"] + w.get("inner_Dense_0/bias", 0)
    if "inner_Dense_1/kernel" in w:
        z = gelu(z, approximate="tanh") @ w["inner_Dense_1/kernel"] + w.get("inner_Dense_1/bias", 0)
    return z


def memory_of(p, d, head, norm, share):
    """The starting weights of one head, how they are read, and the gradient of a token's loss in them: share |out - v|^2."""
    w0 = {n: t[head] for n, t in p.items() if n.startswith("inner_")}
    plain = d.get("no_decoder_norm")

    def decoded(w, z):
        y = learner(w, z)
        return y if plain else layer_norm(y, p[norm + "/scale"][head], p[norm + "/bias"][head])

    def read(w, q):
        return decoded(w, q) if plain else q + decoded(w, q)

    def gradient(w, k, v):  # to read v from k is to read v - k from it without the residual
        loss = share * ((read(w, k) - v) ** 2).sum()
        return dict(zip(w, torch.autograd.grad(loss, list(w.values()), create_graph=True)))

    return w0, read, gradient


def added(w, factor, g):
    return {n: w[n] + factor * g[n] for n in w}


def chunks(N, size):
    return [range(i, min(i + size, N)) for i in range(0, N, size)]


def every_head(q, k, v, one):
    """(B,H,N,h) from one(b, head, q, k, v) -> (N,h)"""
    return torch.stack([torch.stack([one(b, a, q[b, a], k[b, a], v[b, a]) for a in range(q.shape[1])]) for b in range(q.shape[0])])


def ttt_shapes(d):
    D, H = d["dim"], d["heads"]
    rows = {f"{n}_proj/kernel": (D, D) for n in ("qvo" if d.get("share_qk") else "qkvo")}
    rows.update({"learnable_ttt_lr/kernel": (D, H), "learnable_ttt_lr/bias": (H,)})
    if d.get("token_index"):
        rows["token_index"] = (d.get("chunk", 16),)
    if d.get("share_qk"):
        for n in "qk":
            rows.update({f"conv_{n}/kernel": (d.get("conv", 4), D), f"conv_{n}/bias": (D,)})
    if d.get("output_gate"):
        rows["g_proj/kernel"] = (D, D)
    if not d.get("no_decoder_norm"):
        rows.update({"ttt_norm/scale": (H, D // H), "ttt_norm/bias": (H, D // H)})
    rows.update({"post_norm/scale": (D,), "post_norm/bias": (D,)})
    return {**rows, **learner_shapes(d, not d.get("no_inner_bias"))}


def turned(z, theta, chunk):
    """Neighboring features are a complex number; its angle grows with the place in the chunk."""
    h = z.shape[-1]
    places, pairs = torch.arange(z.shape[2]) % chunk, torch.arange(h // 2)
    angle = places[:, None] * theta ** (-2.0 * pairs / h)
    moved = torch.view_as_complex(z[..., : h // 2 * 2].unflatten(-1, (-1, 2)).contiguous()) * torch.exp(1j * angle)
    return torch.cat([torch.view_as_real(moved).flatten(-2), z[..., h // 2 * 2 :]], -1)


def ttt_views(p, d, x):
    u = {n: x @ p[n + "_proj/kernel"] for n in "qkv" if n + "_proj/kernel" in p}
    if d.get("share_qk"):
        u.update({n: convolved(u["q"], p[f"conv_{n}/kernel"]) + p[f"conv_{n}/bias"] for n in "kq"})
    q, k, v = (heads(u[n], d["heads"]) for n in "qkv")
    if d.get("rotary"):
        q, k = (turned(z, d["rotary"], d.get("chunk", 16)) for z in (q, k))
    return q, k, v


def ttt(p, d, x):
    H, N = d["heads"], x.shape[1]
    q, k, v = ttt_views(p, d, x)
    index = p.get("token_index", torch.zeros(N))
    rate = d["inner_lr"] * sigmoid(dense(p, "learnable_ttt_lr", x)) / q.shape[-1]  # (B,N,H)

    def one(b, head, q, k, v):
        w, read, gradient = memory_of(p, d, head, "ttt_norm", 1 / 2)
        if not d.get("causal"):
            start = w
            for s in range(N):
                w = added(w, -rate[b, s, head] / N, gradient(start, k[s], v[s]))
            return torch.stack([read(w, q[t]) for t in range(N)])
        out = []
        for part in chunks(N, d.get("chunk", 16)):
            start, so_far = w, {n: torch.zeros_like(t) for n, t in w.items()}
            for place, t in enumerate(part):
                so_far = added(so_far, rate[b, t, head], gradient(start, k[t], v[t]))
                w = added(start, -torch.relu(1 / (place + 1) + index[place]), so_far)
                out.append(read(w, q[t]))
        return torch.stack(out)

    y = layer_norm(joined(every_head(q, k, v, one)), p["post_norm/scale"], p["post_norm/bias"])
    if d.get("output_gate"):
        y = gelu(x @ p["g_proj/kernel"], approximate="tanh") * y
    return y @ p["o_proj/kernel"]


def titans_shapes(d):
    D, H = d["dim"], d["heads"]
    rows = {**view_shapes(d), "o_proj/kernel": (D, D)}
    for n in ("rate", "momentum", "decay"):
        rows.update({n + "/kernel": (D, H), n + "/bias": (H,)})
    if not d.get("no_decoder_norm"):
        rows.update({"memory_norm/scale": (H, D // H), "memory_norm/bias": (H, D // H)})
    return {**rows, **learner_shapes(d, False)}


def titans(p, d, x):
    H, N = d["heads"], x.shape[1]
    q, k, v = views(p, d, x)
    theta, eta, alpha = (sigmoid(dense(p, n, x)) for n in ("rate", "momentum", "decay"))  # (B,N,H)
    theta = d["inner_lr"] * theta

    def one(b, head, q, k, v):
        w, read, gradient = memory_of(p, d, head, "memory_norm", 1 / k.shape[-1])  # the mean over features
        velocity, out = {n: torch.zeros_like(t) for n, t in w.items()}, []
        for part in chunks(N, d.get("chunk", 16)):
            start = w
            for t in part:
                g = gradient(start, k[t], v[t])
                velocity = {n: eta[b, t, head] * velocity[n] - theta[b, t, head] * g[n] for n in w}
                w = {n: (1 - alpha[b, t, head]) * w[n] + velocity[n] for n in w}
                out.append(read(w, q[t]))
        return torch.stack(out)

    return joined(every_head(q, k, v, one)) @ p["o_proj/kernel"]


# ---- few, large updates --------------------------------------------------------------------------
def lact_shapes(d):
    D, H = d["dim"], d["heads"]
    h = D // H
    rows = {f"{n}_proj/kernel": (D, D) for n in "qkvo"}
    rows["lr_proj/kernel"] = (D, 3 * H)
    if d.get("causal"):
        rows["momentum_proj/kernel"] = (D, H)
    return {**rows, "w0": (H, h, h), "w1": (H, h, h), "w2": (H, h, h), "o_norm/scale": (h,)}


def newton_schulz(G):
    X = G / (G.norm() + 1e-7)
    for a, b, c in ((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037), (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return X


def lact(p, d, x):
    H, N = d["heads"], x.shape[1]
    raw = [heads(x @ p[n + "_proj/kernel"], H) for n in "qkv"]
    q, k, v = (silu(t) for t in raw)
    q, k = (t / torch.sqrt((t**2).sum(-1, keepdim=True) + 1e-10) for t in (q, k))  # official: |t| + 1e-5, which has no gradient at 0
    rates = softplus(x @ p["lr_proj/kernel"] + math.log(math.expm1(0.01))).reshape(x.shape[0], N, H, 3)
    causal = d.get("causal")
    size = d.get("chunk", 2048) if causal else N
    pushed = sigmoid(x @ p["momentum_proj/kernel"]) if causal else None

    def f(w, z):
        return (silu(z @ w[0]) * (z @ w[2])) @ w[1]

    def one(b, head, q, k, v):
        w = [p[f"w{i}"][head] for i in range(3)]
        length = [t.norm(dim=0, keepdim=True) for t in w]
        M, out = [torch.zeros_like(t) for t in w], []
        for part in chunks(N, size):
            at = list(part)
            if causal:
                out.append(f(w, q[at]))
            # each weight with its own rate: the gradient of sum_s rate_s <f(k_s), v_s> in that weight alone
            up = [torch.autograd.grad((rates[b, at, head, i, None] * f(w, k[at]) * v[at]).sum(), w[i], create_graph=True)[0] for i in range(3)]
            if causal:
                m = pushed[b, at, head].mean()
                up = [u + m * old for u, old in zip(up, M)]
                M = up
            if d.get("muon"):
                up = [newton_schulz(u) for u in up]
            w = [t + u for t, u in zip(w, up)]
            w = [t / (t.norm(dim=0, keepdim=True) + 1e-5) * n for t, n in zip(w, length)]
            if not causal:
                out.append(f(w, q[at]))
        return torch.cat(out)

    y = rms_norm(every_head(q, k, v, one), p["o_norm/scale"])
    if causal:
        i = torch.arange(N)
        near = (i[:, None] >= i[None]) & (i[:, None] - i[None] < size)
        y = y + attend(raw[0] @ raw[1].transpose(-1, -2) / math.sqrt(q.shape[-1]), near, raw[2])
    return joined(y) @ p["o_proj/kernel"]


def vittt_shapes(d):
    D, H = d["dim"], d["heads"]
    h = D // H
    return {"qkv/kernel": (D, 3 * D + 3 * h), "qkv/bias": (3 * D + 3 * h,), "w1": (H, h, h), "w2": (H, h, h), "w3": (9, h),
            "proj/kernel": (D + h, D), "proj/bias": (D,)}


def vittt(p, d, x):
    D, H, N = d["dim"], d["heads"], x.shape[1]
    h = D // H
    q, k, v, qc, kc, vc = dense(p, "qkv", x).split([D, D, D, h, h, h], -1)

    def stepped(w, loss):  # a step of rate 1 along a gradient whose columns are shortened
        g = torch.autograd.grad(loss, w, create_graph=True)
        return [t - u / (u.norm(dim=0, keepdim=True) + 1) for t, u in zip(w, g)]

    def one(b, head, q, k, v):
        w = [p["w1"][head], p["w2"][head]]
        f = lambda w, z: (z @ w[0]) * silu(z @ w[1])
        return f(stepped(w, -(f(w, k) * v).sum() / (3 * N)), q)

    y = joined(every_head(heads(q, H), heads(k, H), heads(v, H), one))
    conv = lambda w, z: grid_convolution(z, w, d["grid_rows"], d["grid_cols"], 3)
    near = []
    for b in range(x.shape[0]):
        w3, = stepped([p["w3"]], -(conv(p["w3"], kc[b : b + 1]) * vc[b : b + 1]).sum() / (3 * N))
        near.append(conv(w3, qc[b : b + 1]))
    return dense(p, "proj", torch.cat([y, torch.cat(near)], -1))


# ---- the cases -----------------------------------------------------------------------------------
MIXERS = {
    "ttt-linear": (ttt_shapes, ttt), "ttt-mlp": (ttt_shapes, ttt), "titans": (titans_shapes, titans), "lact": (lact_shapes, lact), "vittt": (vittt_shapes, vittt),
    "delta-net": (delta_shapes, delta_net), "gated-delta-net": (delta_shapes, delta_net),
    "kda": (delta_shapes, delta_net), "focused-linear": (focused_shapes, focused_linear),
    "linear-attention": (lambda d: qkv_shapes(d["dim"]), linear_attention), "self-attention": (self_attention_shapes, self_attention),
    "nadaraya-watson": (lambda d: qkv_shapes(d["dim"]), nadaraya_watson), "linformer": (linformer_shapes, linformer), "longformer": (longformer_shapes, longformer),
}
# The norms of a learner need 4 features to know more of them than their order.
WIDE, NARROW, TINY = {"dim": 8, "heads": 2}, {"dim": 6, "heads": 2}, {"dim": 4, "heads": 2}
SEED = 10  # one with which float32 keeps five digits of everything, but for the iteration of Newton and Schulz
CASES = [  # name, mixer, N, description
    ("ttt_linear", "ttt-linear", 7, dict(WIDE, inner_lr=2.0)),
    ("ttt_linear_causal", "ttt-linear", 10, dict(WIDE, inner_lr=1.0, causal=True, chunk=4)),
    ("ttt_linear_plain_causal", "ttt-linear", 7, dict(NARROW, inner_lr=1.0, causal=True, chunk=3, no_inner_bias=True, no_decoder_norm=True)),
    ("ttt_linear_one", "ttt-linear", 5, dict(WIDE, inner_lr=1.0, causal=True, chunk=1, no_inner_bias=True)),
    ("ttt_mlp", "ttt-mlp", 6, dict(WIDE, inner_lr=2.0)),
    ("ttt_mlp_causal", "ttt-mlp", 9, dict(WIDE, inner_lr=2.0, causal=True, chunk=4)),
    ("ttt_mlp_plain_causal", "ttt-mlp", 5, dict(TINY, inner_lr=1.0, causal=True, no_inner_bias=True, no_decoder_norm=True)),
    ("ttt_linear_lm", "ttt-linear", 10, dict(WIDE, inner_lr=1.0, causal=True, chunk=4, rotary=100.0, token_index=True, share_qk=True, output_gate=True)),
    ("ttt_linear_odd", "ttt-linear", 8, dict(dim=10, heads=2, inner_lr=1.0, causal=True, chunk=3, rotary=10.0, no_inner_bias=True)),
    ("ttt_mlp_lm", "ttt-mlp", 9, dict(WIDE, inner_lr=1.0, causal=True, chunk=4, rotary=100.0, token_index=True, share_qk=True, conv=3, output_gate=True)),
    ("ttt_mlp_lm_plain", "ttt-mlp", 7, dict(TINY, inner_lr=1.0, causal=True, chunk=3, rotary=10.0, token_index=True, no_decoder_norm=True, no_inner_bias=True)),
    ("titans", "titans", 9, dict(WIDE, inner_lr=0.2, chunk=4)),
    ("titans_one", "titans", 5, dict(WIDE, inner_lr=0.4, chunk=1)),
    ("titans_plain", "titans", 6, dict(NARROW, inner_lr=0.2, no_short_conv=True, no_decoder_norm=True)),
    ("titans_plain_chunks", "titans", 7, dict(TINY, inner_lr=0.2, chunk=3, no_decoder_norm=True)),
    ("lact", "lact", 7, dict(WIDE)),
    ("lact_muon", "lact", 10, dict(NARROW, muon=True)),
    ("lact_causal", "lact", 8, dict(NARROW, causal=True, chunk=3)),
    ("lact_causal_muon", "lact", 13, dict(NARROW, causal=True, chunk=5, muon=True)),
    ("vittt", "vittt", 12, dict(NARROW, grid_rows=3, grid_cols=4)),
    ("vittt_tall", "vittt", 10, dict(TINY, grid_rows=5, grid_cols=2)),
    ("delta_net", "delta-net", 10, dict(NARROW, chunk=4)),
    ("delta_net_one", "delta-net", 5, dict(NARROW, chunk=1)),
    ("delta_net_no_conv", "delta-net", 7, dict(NARROW, no_short_conv=True)),
    ("gated_delta_net", "gated-delta-net", 10, dict(WIDE, chunk=4)),
    ("gated_delta_net_no_conv", "gated-delta-net", 7, dict(NARROW, chunk=3, no_short_conv=True)),
    ("kda", "kda", 13, dict(WIDE, chunk=6)),
    ("kda_no_conv", "kda", 7, dict(NARROW, no_short_conv=True)),
    ("linear_causal_adaptive", "linear-attention", 10, dict(NARROW, causal=True, chunk=4)),
    ("linear_causal_constant", "linear-attention", 7, dict(TINY, causal=True, chunk=3, normalizer="constant")),
    ("linear_causal_none", "linear-attention", 5, dict(TINY, causal=True, normalizer="none")),
    ("linear_causal_identity_adaptive", "linear-attention", 7, dict(NARROW, causal=True, chunk=3, identity_map=True)),
    ("linear_causal_identity_constant", "linear-attention", 9, dict(NARROW, causal=True, chunk=4, identity_map=True, normalizer="constant")),
    ("linear_causal_identity_none", "linear-attention", 5, dict(TINY, causal=True, chunk=1, identity_map=True, normalizer="none")),
    ("linear_adaptive", "linear-attention", 7, dict(TINY)),
    ("linear_none", "linear-attention", 5, dict(TINY, normalizer="none")),
    ("focused_2", "focused-linear", 12, dict(NARROW, power=2, grid_rows=3, grid_cols=4, max_tokens=12)),
    ("focused_3", "focused-linear", 10, dict(TINY, grid_rows=5, grid_cols=2, max_tokens=10)),
    ("self_attention_causal", "self-attention", 7, dict(NARROW, causal=True)),
    ("kernel_exponential", "nadaraya-watson", 6, dict(NARROW)),
    ("kernel_gaussian", "nadaraya-watson", 7, dict(NARROW, kernel="gaussian")),
    ("kernel_gaussian_causal", "nadaraya-watson", 6, dict(TINY, kernel="gaussian", bandwidth=0.75, causal=True)),
    ("kernel_nearest", "nadaraya-watson", 9, dict(NARROW, kernel="nearest", neighbors=3)),
    ("kernel_nearest_causal", "nadaraya-watson", 7, dict(NARROW, kernel="nearest", neighbors=2, bandwidth=0.75, causal=True)),
    ("linformer", "linformer", 7, dict(NARROW, max_tokens=12, compressed=5)),
    ("linformer_full", "linformer", 8, dict(TINY, max_tokens=8)),
    ("longformer", "longformer", 9, dict(NARROW, window=2)),
    ("longformer_wide", "longformer", 5, dict(TINY)),
    ("longformer_globals", "longformer", 11, dict(NARROW, window=2, globals=2)),
    ("longformer_causal", "longformer", 7, dict(NARROW, window=2, causal=True)),
    ("longformer_globals_causal", "longformer", 9, dict(TINY, window=2, globals=2, causal=True)),
    ("longformer_grid_causal", "longformer", 10, dict(TINY, window=1, grid_rows=2, grid_cols=5, causal=True)),
    ("longformer_grid", "longformer", 12, dict(NARROW, window=1, grid_rows=3, grid_cols=4)),
    ("longformer_grid_globals", "longformer", 12, dict(NARROW, window=2, grid_rows=2, grid_cols=5, globals=2)),
]


def draw(rng, name, shape, d):
    """Values as after some training: nothing is zero, and nothing so large that a layer saturates."""
    z = rng.standard_normal(shape)
    if name.endswith("scale") and d["mixer"] != "focused-linear":
        return 1 + 0.3 * z
    if name == "decay/bias":  # forget about a tenth of the weights, and the norm that reads them divides by little
        return -2 + 0.4 * z
    if name.endswith(("bias", "A_log", "scale", "index")):
        # without a map q.k may have either sign; the adaptive normalizer needs it away from zero
        return (1.5 if d.get("identity_map") and name[:3] in ("que", "key") else 0) + 0.4 * z
    if "identity_map" in d and name[:3] in ("que", "key"):
        return 0.15 * z
    if name in ("E", "F") or "conv" in name or "dwc" in name or "positional" in name or name == "w3":
        return 0.5 * z
    return z / math.sqrt(shape[-2])


def is_exact(d):
    return d["mixer"] != "vittt" and not (d["mixer"] == "lact" and (d.get("muon") or d.get("causal")))


def make(name, mixer, N, options):
    d = {"mixer": mixer, **options}
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    shapes, forward = MIXERS[mixer]
    leaf = lambda a: torch.tensor(a, requires_grad=True)
    x = leaf(rng.standard_normal((2, N, d["dim"])))
    p = {n: leaf(draw(rng, n, s, d)) for n, s in shapes(d).items()}
    cotangent = torch.tensor(rng.standard_normal(x.shape))
    y = forward(p, d, x)
    g = torch.autograd.grad((cotangent * y).sum(), [x, *p.values()])
    tensors = {"x": x, "cotangent": cotangent, "y": y, "grad.x": g[0]}
    tensors.update({"param/" + n: t for n, t in p.items()})
    tensors.update({"grad/" + n: t for n, t in zip(p, g[1:])})
    notes = {"family": "mixer", **d, "exact": is_exact(d)}
    return {k: v.detach().numpy() for k, v in tensors.items()}, {k: str(v).lower() for k, v in notes.items()}


def save(path, tensors, notes):
    header, at = {"__metadata__": notes}, 0
    for n, a in tensors.items():
        assert np.isfinite(a).all() and a.any(), (path, n)
        header[n] = {"dtype": "F64", "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(np.ascontiguousarray(a).astype("<f8").tobytes() for a in tensors.values()))


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "mixers")
    folder.mkdir(exist_ok=True)
    for name, mixer, N, options in CASES:
        save(folder / f"{name}.safetensors", *make(name, mixer, N, options))
    (folder / "index").write_text("".join(name + "\n" for name, *_ in CASES))


if __name__ == "__main__":
    main()
