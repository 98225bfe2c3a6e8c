// compare.c - which mixer was best? Reads the logs of several runs of train.c; prints a table, draws a chart.
//
//     cc -O2 -o compare examples/compare.c -lm
//     for m in $(./train --list); do for s in 1 2 3; do ./train --data embedded --mixer $m --seed $s --out runs/$m.$s; done; done
//     ./compare runs/*/log.jsonl          # a row for each mixer and data set; compare.svg
//
// Each dot of the chart is a run, each bar the mean of a mixer's runs.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 128, MOST_RUNS = 64 };

typedef struct {
    char mixer[64], data[512];
    int n;
    double accuracy[MOST_RUNS], seconds;  // percent; the sum
} row;

static row rows[MOST_ROWS];
static int n_rows;

static void die(const char *path, const char *what) {
    fprintf(stderr, "compare: %s: %s\n", path, what);
    exit(1);
}

static row *row_of(const char *mixer, const char *data) {
    for (int i = 0; i < n_rows; i++)
        if (strcmp(rows[i].mixer, mixer) == 0 && strcmp(rows[i].data, data) == 0) return &rows[i];
    if (n_rows == MOST_ROWS) die(mixer, "more than 128 different mixers and data sets");
    row *r = &rows[n_rows++];
    snprintf(r->mixer, sizeof r->mixer, "%s", mixer);
    snprintf(r->data, sizeof r->data, "%s", data);
    return r;
}

// The record that train.c writes when a run is done.
static void read_log(const char *path) {
    static char line[65536];
    char mixer[64], data[512];
    double accuracy, seconds;
    FILE *f = fopen(path, "rb");
    int found = 0;
    if (!f) die(path, "cannot be read; log.jsonl of a run of train.c expected");
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "{\"event\":\"done\",\"mixer\":\"%63[^\"]\",\"dataset\":\"%511[^\"]\",\"test_accuracy\":%lf,\"seconds\":%lf", mixer, data, &accuracy, &seconds) == 4) found = 1;
    fclose(f);
    if (!found) die(path, "no record of a finished run in it");
    row *r = row_of(mixer, strrchr(data, '/') ? strrchr(data, '/') + 1 : data);
    if (r->n == MOST_RUNS) die(path, "more than 64 runs of one mixer");
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

static void draw_chart(const char *path) {
    enum { LEFT = 170, WIDTH = 520, LINE = 24 };
    double low = 100, high = 0;
    FILE *f = fopen(path, "wb");
    if (!f) die(path, "cannot be written");
    for (int i = 0; i < n_rows; i++)
        for (int k = 0; k < rows[i].n; k++) low = fmin(low, rows[i].accuracy[k]), high = fmax(high, rows[i].accuracy[k]);
    low = 5 * floor((low - 0.5) / 5);
    high = fmin(100, 5 * ceil((high + 0.5) / 5));
    int headings = 0, y = 34;
    for (int i = 0; i < n_rows; i++) headings += i == 0 || strcmp(rows[i].data, rows[i - 1].data) != 0;
    int height = 60 + LINE * (n_rows + headings);
    fprintf(f, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' font-family='sans-serif' font-size='13'>\n<rect width='100%%' height='100%%' fill='white'/>\n", LEFT + WIDTH + 90, height);
#define AT(v) (LEFT + WIDTH * ((v)-low) / (high - low))
    for (double t = low; t <= high; t += high - low > 30 ? 10 : 5)
        fprintf(f, "<path d='M%.1f 24V%d' stroke='#ddd'/><text x='%.1f' y='%d' text-anchor='middle' fill='#555'>%g %%</text>\n", AT(t), height - 30, AT(t), height - 12, t);
    for (int i = 0; i < n_rows; i++) {
        const row *r = &rows[i];
        if (i == 0 || strcmp(r->data, rows[i - 1].data) != 0) {
            fprintf(f, "<text x='10' y='%d' font-weight='bold'>test accuracy, %s</text>\n", y, r->data);
            y += LINE;
        }
        fprintf(f, "<text x='%d' y='%d' text-anchor='end'>%s</text><rect x='%d' y='%d' width='%.1f' height='12' fill='%s'/>\n", LEFT - 8, y, r->mixer, LEFT, y - 11, AT(mean(r)) - LEFT,
                strcmp(r->mixer, "none") ? "#9bbbe0" : "#ccc");
        for (int k = 0; k < r->n; k++) fprintf(f, "<circle cx='%.1f' cy='%d' r='3' fill='#234'/>\n", AT(r->accuracy[k]), y - 5);
        fprintf(f, "<text x='%.1f' y='%d' fill='#333'>%.1f</text>\n", AT(high) + 10, y, mean(r));
        y += LINE;
    }
#undef AT
    fprintf(f, "</svg>\n");
    if (fclose(f) != 0) die(path, "cannot be written");
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: compare LOG.jsonl ...   (logs of runs of train.c)\n");
        return 1;
    }
    for (int i = 1; i < argc; i++) read_log(argv[i]);
    qsort(rows, (size_t)n_rows, sizeof *rows, by_data_and_mean);
    print_table();
    draw_chart("compare.svg");
    return 0;
}
