// generate.c - text from a language model that goes on learning while it reads.
//
//     cc -O2 -o generate examples/generate.c -lm && ./generate --prompt "Once" MODEL_DIR
//
// MODEL_DIR is a folder with config.json and model.safetensors (see ttt_lm_read), and, unless the
// tokens are bytes, tokenizer.json. Without --prompt each line of standard input is one; the state
// is kept between them, and with --state, which saves it after each, also between runs.
// --perplexity says how well the model foretells a text, and how that changes along the text.
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"
#include "example.h"

typedef struct {
    const char *prompt, *state, *perplexity, *svg, *stop;
    long long tokens, top_k, seed, threads;
    double temperature, top_p, repetition;
    bool bf16;
} options;
static const option option_rows[] = {
    OPTION_TEXT("--prompt", prompt, "text to go on with (each line of standard input)"),
    OPTION_WHOLE("--tokens", tokens, 1, 1e9, "new tokens for a prompt, at most (100)"),
    OPTION_REAL("--temperature", temperature, 0, 100, "0: always the likeliest token (0.8)"),
    OPTION_WHOLE("--top-k", top_k, 0, 1e9, "draw among so many of the likeliest, 0: all (0)"),
    OPTION_REAL("--top-p", top_p, 0, 1, "draw among those with this probability, 0: all (0)"),
    OPTION_REAL("--repetition", repetition, 0, 100, "how much less a token is likely again (1)"),
    OPTION_TEXT("--stop", stop, "text that ends what is written"),
    OPTION_WHOLE("--seed", seed, 0, 9e15, "of what is drawn (1)"),
    OPTION_TEXT("--state", state, "file with what was read: loaded if it is there, then saved"),
    OPTION_TEXT("--perplexity", perplexity, "measure how well this text is foretold, and stop"),
    OPTION_TEXT("--svg", svg, "file for a chart of that along the text"),
    OPTION_FLAG("--bf16", bf16, "keep matrices as bfloat16: half the memory"),
    OPTION_WHOLE("--threads", threads, 0, TTT_MAX_THREADS,
                 "0: one for each CPU it may use (0)"),
};
static const program this_program = {
    .name = "generate",
    .purpose = "text from a language model that learns while it reads",
    .rows = option_rows,
    .n_rows = COUNT(option_rows),
    .arguments = "MODEL_DIR",
};

typedef struct {
    options o;
    ttt_ctx *c;
    ttt_lm_desc lm;
    ttt_params params;
    ttt_lm_folder folder;
    const ttt_tokenizer *tokenizer;
    ttt_stream stream;
    const char *owner;    // of its file, see ttt_lm_fingerprint
    ttt_generated count;  // of all prompts
    double seconds;
} session;

static bool file_there(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

static void open_model(session *s, const char *folder) {
    char path[1200];
    s->folder.bf16 = s->o.bf16;
    ttt_lm_read(s->c, folder, &s->lm, &s->params, &s->folder);
    need_ok(s->c, "the model");
    for (int i = 0; i < s->folder.n_left; i++)
        fprintf(stderr, "no use for %s\n", s->folder.left[i]);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    s->tokenizer = file_there(path) ? ttt_tokenizer_read(s->c, path) : ttt_tokenizer_bytes(s->c);
    need_ok(s->c, "the tokenizer");
    if (ttt_vocab_size(s->tokenizer) > s->lm.vocab)
        die("%s: the tokenizer has %lld tokens, the model %lld; is tokenizer.json of this model?",
            folder, (long long)ttt_vocab_size(s->tokenizer), (long long)s->lm.vocab);
}

// ---- text ---------------------------------------------------------------------------------------
static bool print_piece(void *user, const char *text, size_t n) {
    (void)user;
    fwrite(text, 1, n, stdout);
    return fflush(stdout) == 0;
}
static void answer(session *s, const char *prompt, size_t n) {
    const options *o = &s->o;
    ttt_generated count;
    ttt_generate_desc how = {
        .tokens = o->tokens, .seed = (uint64_t)o->seed, .piece = print_piece,
        .choice = { (ttt_real)o->temperature, o->top_k, (ttt_real)o->top_p,
                    (ttt_real)o->repetition },
        .ends = &s->folder.eos, .n_ends = s->folder.eos >= 0, .stops = &o->stop,
        .n_stops = o->stop != NULL,
    };
    ttt_mark mark = ttt_mark_get(s->c);
    double start = ttt_seconds();
    ttt_generate(s->c, &s->lm, ttt_params_weights(&s->params), s->tokenizer, &s->stream, prompt, n,
                 &how, &count);
    need_ok(s->c, "generating");
    if (o->state) ttt_stream_save(s->c, o->state, &s->stream, s->owner);
    need_ok(s->c, "the state");
    ttt_mark_release(s->c, mark);
    printf("\n");
    s->seconds += ttt_seconds() - start;
    s->count.read += count.read;
    s->count.made += count.made;
}
// The next line of standard input without its end, of any length; NULL after the last.
static char *read_line(void) {
    size_t n = 0, room = 256;
    char *line = (char *)malloc(room);
    while (line && fgets(line + n, (int)(room - n), stdin)) {
        n += strlen(line + n);
        if (n > 0 && line[n - 1] == '\n') break;
        if (n + 1 < room) continue;  // the last line may have no end
        if (room >= (size_t)1 << 30) die("a line has 2^30 bytes or more");
        char *longer = (char *)realloc(line, room *= 2);
        if (!longer) free(line);
        line = longer;
    }
    if (!line) die("out of memory: a line of %zu bytes", n);
    line[strcspn(line, "\r\n")] = 0;
    if (n > 0) return line;
    free(line);
    return NULL;
}
static void answer_lines(session *s) {
    for (char *line; (line = read_line()) != NULL; free(line))
        if (*line) answer(s, line, strlen(line));
}

// ---- perplexity ---------------------------------------------------------------------------------
// A text's tokens by twos: 1, 2, 4, ... of them, with the nats that each group cost.
enum { GROUPS = 40, PIECE = 256 };
typedef struct {
    int64_t n[GROUPS];
    double nats[GROUPS], all;
} cost;
static int group_of(int64_t place) {
    int g = 0;
    while (place > 0 && g + 1 < GROUPS) place /= 2, g++;
    return g;
}
static double nats_of(const ttt_real *logits, int64_t vocab, int64_t token) {
    double top = (double)logits[0], sum = 0;
    for (int64_t i = 1; i < vocab; i++) top = fmax(top, (double)logits[i]);
    for (int64_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - top);
    return top + log(sum) - (double)logits[token];
}
// Nothing foretells the first token: all are as likely.
static void cost_of(session *s, const int64_t *tokens, int64_t N, cost *c) {
    ttt_weights w = ttt_params_weights(&s->params);
    int64_t V = s->lm.vocab;
    c->n[0] = 1;
    c->nats[0] = c->all = log((double)V);
    for (int64_t at = 0; at + 1 < N; at += PIECE) {
        ttt_mark mark = ttt_mark_get(s->c);
        int64_t n = at + PIECE < N - 1 ? PIECE : N - 1 - at;
        ttt_tensor *piece = ttt_from_int(s->c, TTT_SHAPE(1, n), tokens + at);
        ttt_tensor *y = ttt_lm_stream(s->c, &s->lm, w, &s->stream, piece, NULL, false);
        need_ok(s->c, "reading the text");
        for (int64_t i = 0; i < n; i++) {
            double nats = nats_of(y->data + i * V, V, tokens[at + i + 1]);
            c->n[group_of(at + i + 1)]++;
            c->nats[group_of(at + i + 1)] += nats;
            c->all += nats;
        }
        ttt_mark_release(s->c, mark);
    }
}
static void draw_cost(session *s, const char *path, const cost *c) {
    double x[GROUPS], y[GROUPS];
    int n = 0;
    for (int g = 0; g < GROUPS; g++) {
        if (!c->n[g]) continue;
        x[n] = g ? 1.5 * pow(2, g - 1) : 1;
        y[n++] = c->nats[g] / (double)c->n[g] / log(2);
    }
    chart_series line = { "this text", x, y, n, NULL, NULL, false };
    chart_panel panel = { "bits of a token by its place in the text", "place", "bits", &line, 1,
                          true };
    line_chart chart = { "how well the text is foretold", &panel, 1, 1 };
    line_chart_write(s->c, path, &chart);
}
static void measure(session *s) {
    size_t bytes;
    const char *text = ttt_file_read(s->c, s->o.perplexity, &bytes);
    need_ok(s->c, "the text");
    ttt_tensor *tokens = ttt_encode(s->c, s->tokenizer, text, bytes, false);
    need_ok(s->c, s->o.perplexity);
    if (tokens->size < 2) die("%s: a text of two tokens or more expected", s->o.perplexity);
    cost c = { { 0 }, { 0 }, 0 };
    double start = ttt_seconds(), bits;
    cost_of(s, tokens->index, tokens->size, &c);
    bits = c.all / log(2);
    printf("places          tokens  bits a token  perplexity\n");
    for (int g = 0; g < GROUPS; g++)
        if (c.n[g])
            printf("%9.0f-%-9.0f %6lld  %12.4f  %10.3f\n", g ? pow(2, g - 1) : 0,
                   g ? pow(2, g) - 1 : 0, (long long)c.n[g],
                   c.nats[g] / (double)c.n[g] / log(2), exp(c.nats[g] / (double)c.n[g]));
    printf("%lld tokens, %lld bytes: %.4f bits a token, %.4f bits a byte, perplexity %.3f, "
           "%.0f tok/s\n", (long long)tokens->size, (long long)bytes, bits / (double)tokens->size,
           bits / (double)bytes, exp(c.all / (double)tokens->size),
           (double)tokens->size / (ttt_seconds() - start));
    if (s->o.svg) draw_cost(s, s->o.svg, &c);
}

int main(int argc, char **argv) {
    session s = { .o = { .tokens = 100, .temperature = 0.8, .repetition = 1, .seed = 1 } };
    int first = read_options(argc, argv, &s.o);
    if (first + 1 != argc) die("one MODEL_DIR expected; --help says more");
    if (s.o.svg && !s.o.perplexity) die("--svg has no effect without --perplexity");
    if (s.o.perplexity && (s.o.prompt || s.o.state))
        die("%s has no effect with --perplexity", s.o.prompt ? "--prompt" : "--state");
    ttt_desc machine = { .seed = (uint64_t)s.o.seed, .threads = thread_count(s.o.threads) };
    s.c = open_or_die(&machine);
    open_model(&s, argv[first]);
    if (s.o.perplexity) {
        measure(&s);
    } else {
        if (s.o.state) s.owner = ttt_lm_fingerprint(s.c, &s.lm, ttt_params_weights(&s.params));
        if (s.o.state && file_there(s.o.state))
            ttt_stream_load(s.c, s.o.state, &s.stream, s.owner);
        need_ok(s.c, "the state");
        if (s.o.prompt) answer(&s, s.o.prompt, strlen(s.o.prompt));
        else answer_lines(&s);
        fprintf(stderr, "%lld tokens read, %lld made, %.1f tok/s\n", (long long)s.count.read,
                (long long)s.count.made,
                s.seconds > 0 ? (double)(s.count.read + s.count.made) / s.seconds : 0);
    }
    ttt_close(s.c);
    return 0;
}
