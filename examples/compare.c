// compare.c - which mixer was best? A table and a chart from the logs of several runs of train.c.
//
//     cc -O2 -o compare examples/compare.c -lm
//     for m in $(./train --list); do for s in 1 2 3; do
//         ./train --data embedded --mixer $m --seed $s --out runs/$m.$s
//     done; done
//     ./compare runs/*/log.jsonl          # a row for each experiment; compare.svg
//
// Runs are of one experiment if they agree in all settings but the seed, and in the version of the
// library. A row names the settings in which it differs from most others of its data set. Each dot
// of the chart is a run, each bar the mean of a row.
#define TTT_IMPLEMENTATION
#include "example.h"

static const program this_program = {
    .name = "compare",
    .purpose = "a table and a chart, compare.svg, of the test accuracy of several runs of train.c",
    .arguments = "LOG.jsonl ...",
    .notes = "A log that is not that of one finished run is named and left out; so is a run that\n"
             "is there twice.",
};

typedef struct {
    const char *path, *data, *mixer;
    ttt_bundle settings;  // as notes; none: the log is of an older version
    double accuracy;      // per cent
    double seconds;
} run;

typedef struct {
    const run *first;  // of n side by side
    int n;
    const char *data;  // the last name of its path
    char name[400];    // the mixer, and settings
} row;

static run *runs;
static row *rows;
static int n_runs, n_rows;

// ---- logs ---------------------------------------------------------------------------------------
// Reads a line into *r. Returns what is wrong, or NULL. *settings is the text of those of the line
// before, which must be the same, and becomes that of this line.
static const char *read_line(ttt_ctx *c, char *line, size_t length, run *r, const char **settings) {
    ttt_bundle record;
    bool good = json_read(c, line, length, &record);
    const char *event = good ? note_text(&record, "event") : "", *here;
    bool done = strcmp(event, "done") == 0;
    if (!done && strcmp(event, "step") != 0) return "not a log of train.c";
    here = note_text(&record, "settings");
    if (r->mixer || (*settings && strcmp(here, *settings) != 0))
        return "records of several runs; each needs a folder of its own";
    *settings = here;
    if (!done) return NULL;
    r->mixer = note_text(&record, "mixer");
    r->data = note_text(&record, "dataset");
    r->accuracy = 100 * note_number(&record, "test_accuracy");
    r->seconds = note_number(&record, "seconds");
    bool known = *r->mixer && *r->data && r->accuracy >= 0 && r->accuracy <= 100 && r->seconds >= 0;
    return known ? NULL : "a last record that is not one of train.c";
}

static bool leave_out(const char *path, const char *why, const char *more) {
    fprintf(stderr, "compare: left out: %s: %s%s\n", path, why, more);
    return false;
}

// Reads the log of one finished run, or says why it is left out.
static bool read_log(ttt_ctx *c, const char *path, run *r) {
    size_t size;
    const char *settings = NULL, *wrong = NULL;
    char *line = ttt_file_read(c, path, &size), *end, *stop;
    *r = (run){ .path = path };
    if (!line) {
        fprintf(stderr, "compare: left out: %s\n", ttt_error(c));
        ttt_clear(c);
        return false;
    }
    for (stop = line + size; line < stop; line = end + 1) {
        end = (char *)memchr(line, '\n', (size_t)(stop - line));
        if (!end) return leave_out(path, "not finished: its last line is cut", "");
        wrong = read_line(c, line, (size_t)(end - line), r, &settings);
        if (wrong) return leave_out(path, wrong, "");
    }
    if (!settings) return leave_out(path, "empty", "");
    if (!r->mixer) return leave_out(path, "the run is not finished", "");
    char *text = (char *)settings;  // json_read writes to it
    if (*text && !json_read(c, text, strlen(text), &r->settings))
        return leave_out(path, "settings that are none", "");
    return true;
}

// ---- rows ---------------------------------------------------------------------------------------
static bool is_seed(const char *key) { return strcmp(key, "seed") == 0; }

// Whether b has all settings of a, but for the seed.
static bool has_all(const ttt_bundle *b, const ttt_bundle *a) {
    for (int64_t i = 0; i < a->n_notes; i++) {
        const char *text = ttt_bundle_note(b, a->notes[i].key);
        if (!text) return false;
        if (!is_seed(a->notes[i].key) && strcmp(text, a->notes[i].text) != 0) return false;
    }
    return true;
}

// Of what a log does not tell, nothing is known to be the same.
static bool same_experiment(const run *a, const run *b) {
    return a->settings.n_notes > 0 && has_all(&a->settings, &b->settings) &&
           has_all(&b->settings, &a->settings);
}

// Puts a run beside those of its experiment, unless it is there already.
static void add_run(const run *r) {
    int at = n_runs;
    for (int i = 0; i < n_runs; i++) {
        if (strcmp(runs[i].path, r->path) != 0 && !same_experiment(&runs[i], r)) continue;
        at = i + 1;
        if (strcmp(note_text(&runs[i].settings, "seed"), note_text(&r->settings, "seed")) == 0) {
            leave_out(r->path, "the same settings and seed as ", runs[i].path);
            return;
        }
    }
    memmove(runs + at + 1, runs + at, (size_t)(n_runs++ - at) * sizeof *runs);
    runs[at] = *r;
}

static void make_rows(void) {
    for (int i = 0; i < n_runs; i++) {
        if (i == 0 || !same_experiment(&runs[i - 1], &runs[i])) {
            const char *slash = strrchr(runs[i].data, '/');
            rows[n_rows].first = &runs[i];
            rows[n_rows++].data = slash ? slash + 1 : runs[i].data;
        }
        rows[n_rows - 1].n++;
    }
}

// Whether most rows of r's data set have the value that r has for `key`.
static bool is_usual(const row *r, const char *key) {
    const char *value = note_text(&r->first->settings, key);
    int all = 0, same = 0;
    for (int i = 0; i < n_rows; i++) {
        if (strcmp(rows[i].data, r->data) != 0 || !rows[i].first->settings.n_notes) continue;
        all++;
        same += strcmp(note_text(&rows[i].first->settings, key), value) == 0;
    }
    return same == all || 2 * same > all;
}

// The mixer, and what makes the row unlike the others.
static void name_row(row *r) {
    const ttt_bundle *s = &r->first->settings;
    size_t n = (size_t)snprintf(r->name, sizeof r->name, "%.64s", r->first->mixer);
    if (!s->n_notes)
        snprintf(r->name + n, sizeof r->name - n, ", settings unknown: %.200s", r->first->path);
    for (int64_t i = 0; i < s->n_notes && n < sizeof r->name; i++) {
        const char *key = s->notes[i].key;
        if (is_seed(key) || strcmp(key, "mixer") == 0 || is_usual(r, key)) continue;
        n += (size_t)snprintf(r->name + n, sizeof r->name - n, ", %.40s %.60s", key,
                              s->notes[i].text);
    }
}

// ---- table and chart ----------------------------------------------------------------------------
static double mean(const row *r) {
    double sum = 0;
    for (int i = 0; i < r->n; i++) sum += r->first[i].accuracy;
    return sum / r->n;
}
static double deviation(const row *r) {  // of the sample; 0 for one run
    double sum = 0, average = mean(r);
    for (int i = 0; i < r->n; i++)
        sum += (r->first[i].accuracy - average) * (r->first[i].accuracy - average);
    return r->n > 1 ? sqrt(sum / (r->n - 1)) : 0;
}
static double mean_seconds(const row *r) {
    double sum = 0;
    for (int i = 0; i < r->n; i++) sum += r->first[i].seconds;
    return sum / r->n;
}
static int by_data_and_mean(const void *a, const void *b) {
    const row *p = a, *q = b;
    int order = strcmp(p->data, q->data);
    return order ? order : (mean(p) < mean(q)) - (mean(p) > mean(q));
}

static void print_table(void) {
    printf("| data | mixer | test accuracy, %% | runs | seconds a run |\n|---|---|---|---|---|\n");
    for (int i = 0; i < n_rows; i++) {
        const row *r = &rows[i];
        int mixer = (int)strcspn(r->name, ",");
        printf("| %s | `%.*s`%s | %.1f", r->data, mixer, r->name, r->name + mixer, mean(r));
        if (r->n > 1) printf(" ± %.1f", deviation(r));
        printf(" | %d | %.0f |\n", r->n, mean_seconds(r));
    }
}

// Whether row i is the first of its data set.
static bool begins_set(int i) { return i == 0 || strcmp(rows[i].data, rows[i - 1].data) != 0; }

enum { WIDTH = 520, PITCH = 24 };

static void draw_row(svg *s, const row *r, double left, double y, double low, double scale) {
    char text[32];
    double average = mean(r);
    svg_text(s, left - 8, y, "end", 13, "", r->name);
    svg_rect(s, left, y - 11, scale * (average - low), 12, color_of(r->first->mixer),
             "fill-opacity='0.45'");
    for (int k = 0; k < r->n; k++)
        svg_put(s, "<circle cx='%.1f' cy='%.1f' r='3' fill='#223344'/>\n",
                left + scale * (r->first[k].accuracy - low), y - 5);
    snprintf(text, sizeof text, "%.1f", average);
    svg_text(s, left + WIDTH + 10, y, "start", 13, "fill='#333333'", text);
}

static ttt_result draw_chart(ttt_ctx *c, const char *path) {
    char text[600];
    double low = 100, high = 0, y = 34, left = 170;
    int lines = n_rows;
    for (int i = 0; i < n_runs; i++) {
        low = fmin(low, runs[i].accuracy);
        high = fmax(high, runs[i].accuracy);
    }
    for (int i = 0; i < n_rows; i++) {
        lines += begins_set(i);
        left = fmax(left, 20 + 6.6 * (double)strlen(rows[i].name));
    }
    low = fmax(0, 5 * floor((low - 0.5) / 5));
    high = fmin(100, 5 * ceil((high + 0.5) / 5));
    int height = 60 + PITCH * lines;
    double scale = WIDTH / (high - low), step = high - low > 30 ? 10 : 5;
    svg s = svg_begin(c, path, (int)left + WIDTH + 90, height);
    for (double tick = low; tick <= high; tick += step) {
        double x = left + scale * (tick - low);
        snprintf(text, sizeof text, "%g %%", tick);
        svg_line(&s, x, 24, x, height - 30, "#dddddd", "");
        svg_text(&s, x, height - 12, "middle", 13, "fill='#555555'", text);
    }
    for (int i = 0; i < n_rows; i++, y += PITCH) {
        if (begins_set(i)) {
            snprintf(text, sizeof text, "test accuracy, %s", rows[i].data);
            svg_text(&s, 10, y, "start", 13, "font-weight='bold'", text);
            y += PITCH;
        }
        draw_row(&s, &rows[i], left, y, low, scale);
    }
    return svg_end(&s);
}

// Room for one thing for each argument.
static void *room_for(ttt_ctx *c, int n, size_t size) {
    void *room = ttt_alloc(c, (size_t)n * size, true);
    need_ok(c, "the logs");
    return room;
}

int main(int argc, char **argv) {
    int first = read_options(argc, argv, NULL);
    if (first == argc) die("no log is named; --help tells more");
    ttt_ctx *c = open_or_die(NULL);
    runs = (run *)room_for(c, argc, sizeof *runs);
    rows = (row *)room_for(c, argc, sizeof *rows);
    for (int i = first; i < argc; i++) {
        run r;
        if (read_log(c, argv[i], &r)) add_run(&r);
    }
    make_rows();
    for (int i = 0; i < n_rows; i++) name_row(&rows[i]);
    qsort(rows, (size_t)n_rows, sizeof *rows, by_data_and_mean);
    if (n_rows > 0) print_table();
    if (n_rows > 0) draw_chart(c, "compare.svg");
    need_ok(c, "the chart");
    ttt_close(c);
    return n_rows == 0;
}
