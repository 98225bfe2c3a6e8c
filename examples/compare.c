// compare.c - which mixer was best? A table and a chart from the logs of several runs of train.c.
//
//     cc -O2 -o compare examples/compare.c -lm
//     for m in $(./train --list); do for s in 1 2 3; do
//         ./train --data embedded --mixer $m --seed $s --out runs/$m.$s
//     done; done
//     ./compare runs/*/log.jsonl          # a row for each mixer and data set; compare.svg
//
// Each dot of the chart is a run, each bar the mean of a mixer's runs.
#define TTT_IMPLEMENTATION
#include "example.h"

#include <errno.h>

static const program this_program = {
    .name = "compare",
    .purpose = "a table and a chart, compare.svg, of the test accuracy of several runs of train.c",
    .arguments = "LOG.jsonl ...",
    .notes = "Each log.jsonl is that of a finished run.",
};

enum { MOST_ROWS = 128, MOST_RUNS = 64 };

typedef struct {
    char mixer[64], data[512];
    int n;
    double accuracy[MOST_RUNS], seconds;  // percent; the sum
} row;

static row rows[MOST_ROWS];
static int n_rows;

static row *row_of(const char *mixer, const char *data) {
    for (int i = 0; i < n_rows; i++)
        if (strcmp(rows[i].mixer, mixer) == 0 && strcmp(rows[i].data, data) == 0) return &rows[i];
    if (n_rows == MOST_ROWS) die("more than %d different mixers and data sets", MOST_ROWS);
    row *r = &rows[n_rows++];
    snprintf(r->mixer, sizeof r->mixer, "%s", mixer);
    snprintf(r->data, sizeof r->data, "%s", data);
    return r;
}

// The record that train.c writes when a run is done.
static void read_log(const char *path) {
    static const char format[] = "{\"event\":\"done\",\"mixer\":\"%63[^\"]\",\"dataset\":"
                                 "\"%511[^\"]\",\"test_accuracy\":%lf,\"seconds\":%lf";
    static char line[65536];
    char mixer[64], data[512];
    double accuracy, seconds;
    bool found = false;
    FILE *f = fopen(path, "rb");
    if (!f) die("%s: cannot be read: %s; log.jsonl of a run of train.c expected", path,
                strerror(errno));
    while (fgets(line, sizeof line, f))
        if (sscanf(line, format, mixer, data, &accuracy, &seconds) == 4) found = true;
    if (ferror(f)) die("%s: cannot be read: %s", path, strerror(errno));
    fclose(f);
    if (!found) die("%s: no record of a finished run in it", path);
    row *r = row_of(mixer, strrchr(data, '/') ? strrchr(data, '/') + 1 : data);
    if (r->n == MOST_RUNS) die("%s: more than %d runs of one mixer", path, MOST_RUNS);
    r->accuracy[r->n++] = 100 * accuracy;
    r->seconds += seconds;
}

static double mean(const row *r) {
    double sum = 0;
    for (int i = 0; i < r->n; i++) sum += r->accuracy[i];
    return sum / r->n;
}
static double deviation(const row *r) {  // of the sample; 0 for one run
    double sum = 0;
    for (int i = 0; i < r->n; i++) sum += (r->accuracy[i] - mean(r)) * (r->accuracy[i] - mean(r));
    return r->n > 1 ? sqrt(sum / (r->n - 1)) : 0;
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
        printf("| %s | `%s` | %.1f", r->data, r->mixer, mean(r));
        if (r->n > 1) printf(" ± %.1f", deviation(r));
        printf(" | %d | %.0f |\n", r->n, r->seconds / r->n);
    }
}

// Whether row i is the first of its data set.
static bool begins_set(int i) { return i == 0 || strcmp(rows[i].data, rows[i - 1].data) != 0; }

enum { LEFT = 170, WIDTH = 520, PITCH = 24 };

// Where a number of per cent is in the chart, which begins and ends at two of them.
typedef struct {
    double low, high;
} scale;
static double place(scale s, double percent) {
    return LEFT + WIDTH * (fmin(fmax(percent, s.low), s.high) - s.low) / (s.high - s.low);
}

static void draw_row(svg *s, const row *r, double y, scale of) {
    char text[32];
    double average = mean(r);
    svg_text(s, LEFT - 8, y, "end", 13, "", r->mixer);
    svg_rect(s, LEFT, y - 11, place(of, average) - LEFT, 12, color_of(r->mixer),
             "fill-opacity='0.45'");
    for (int k = 0; k < r->n; k++)
        svg_put(s, "<circle cx='%.1f' cy='%.1f' r='3' fill='#223344'/>\n",
                place(of, r->accuracy[k]), y - 5);
    snprintf(text, sizeof text, "%.1f", average);
    svg_text(s, LEFT + WIDTH + 10, y, "start", 13, "fill='#333333'", text);
}

static ttt_result draw_chart(ttt_ctx *c, const char *path) {
    char text[600];
    scale of = { 100, 0 };
    double y = 34;
    int lines = n_rows;
    for (int i = 0; i < n_rows; i++) {
        lines += begins_set(i);
        for (int k = 0; k < rows[i].n; k++) {
            of.low = fmin(of.low, rows[i].accuracy[k]);
            of.high = fmax(of.high, rows[i].accuracy[k]);
        }
    }
    of.low = fmax(0, 5 * floor((of.low - 0.5) / 5));
    of.high = fmin(100, 5 * ceil((of.high + 0.5) / 5));
    if (!(of.high > of.low)) of = (scale){ 0, 100 };  // nothing that is a share
    int height = 60 + PITCH * lines;
    double step = of.high - of.low > 30 ? 10 : 5;
    svg s = svg_begin(c, path, LEFT + WIDTH + 90, height);
    for (double tick = of.low; tick <= of.high; tick += step) {
        double x = place(of, tick);
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
        draw_row(&s, &rows[i], y, of);
    }
    return svg_end(&s);
}

int main(int argc, char **argv) {
    int first = read_options(argc, argv, NULL);
    if (first == argc) die("no log is named; --help tells more");
    for (int i = first; i < argc; i++) read_log(argv[i]);
    qsort(rows, (size_t)n_rows, sizeof *rows, by_data_and_mean);
    print_table();
    ttt_ctx *c = open_or_die(NULL);
    draw_chart(c, "compare.svg");
    need_ok(c, "the chart");
    ttt_close(c);
    return 0;
}
