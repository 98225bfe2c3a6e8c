/*  example.h - what the programs in this folder share: a command line described by rows, an end
    with a message, a line of progress, charts. No part of the library; the lessons do without it,
    but for the one that draws.

        #define TTT_IMPLEMENTATION
        #include "../ttt_model.h"
        #include "example.h"

        typedef struct {
            const char *out;
            long long steps;
            bool list;
        } options;                          // the rows below expect this name
        static const option option_rows[] = {
            OPTION_TEXT("--out", out, "file for the chart (out.svg)"),
            OPTION_WHOLE("--steps", steps, 1, 1e6, "updates of the training (500)"),
            OPTION_MODE("--list", list, "", "", "print the cases and stop"),
        };
        static const program this_program = {
            .name = "name", .purpose = "what it does",
            .rows = option_rows, .n_rows = COUNT(option_rows),
        };

        int main(int argc, char **argv) {
            options o = { .out = "out.svg", .steps = 500 };  // the defaults
            read_options(argc, argv, &o);                    // --steps 9 --out=x.svg, or --list

    INDEX
        [1] ERRORS          an end with a message
        [2] COMMAND LINE    options as rows
        [3] PROGRESS        one line of a terminal, written over and over
        [4] SVG             what colors mean; shapes, words and matrices in a file that appears
                            whole or not at all
        [5] LINE CHARTS     panels of curves
        [6] BAR CHARTS      bars made of parts, each with a meter
        [7] RUNS            one process at a time writes to a place; a line of a log, read back
        [8] TRAINING        runs of many steps: settings, log, checkpoints, going on
        [9] LAYERS          every layer of the family, alone: what benchmarks run

    Functions are inline because no program uses them all, and compilers report others that are not
    used.
*/
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include "../ttt_model.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <direct.h>
#include <io.h>
#define isatty _isatty
#define access _access
#define make_folder(path) _mkdir(path)
#else
#include <sys/stat.h>
#include <unistd.h>
#define make_folder(path) mkdir(path, 0777)
#endif

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

typedef struct option option;
typedef struct program {
    const char *name, *purpose;
    const option *rows;
    int n_rows;
    const char *arguments;  // what may follow the options, as "FILE ..."; NULL: nothing
    const char *notes;      // the end of --help, or NULL
} program;
static const program this_program;  // each program defines its own below

// Orders doubles for qsort: programs that measure time report medians.
static inline int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// ---- [1] ERRORS ---------------------------------------------------------------------------------
static inline void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s: ", this_program.name);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

static inline void need_ok(ttt_ctx *c, const char *doing) {
    if (!ttt_ok(c)) die("%s: %s", doing, ttt_error(c));
}

static inline ttt_ctx *open_or_die(const ttt_desc *desc) {
    ttt_ctx *c = ttt_open(desc);
    if (!c) die("out of memory");
    return c;
}

// What was printed must have arrived, or the program has failed: on a full disk a table would be
// missing, or half of it. Runs at the end of each program that reads options.
static inline void check_output(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return;
    fprintf(stderr, "%s: what it printed could not be written\n", this_program.name);
    _Exit(1);
}

// ---- [2] COMMAND LINE ---------------------------------------------------------------------------
// A row is made by one of the macros below. It holds all facts about an option.
typedef enum option_kind { KIND_TEXT, KIND_CHOICE, KIND_WHOLE, KIND_REAL, KIND_FLAG } option_kind;
struct option {
    const char *name;             // with its dashes
    option_kind kind;
    size_t at;                    // where the program's `options` have its value
    double least, most;           // a number must be from `least` to `most`
    const char *(*value)(int i);  // a choice must be one of value(0), value(1), ... before NULL
    const char *meaning;          // one line for --help, with the default in parentheses
    const char *own, *also;       // of a mode: see OPTION_MODE
};

// The place of a field. The compiler warns if the field is not of the type that the row stores.
#define OPTION_AT(type, field) \
    (offsetof(options, field) + 0 * sizeof(1 ? &((options *)0)->field : (type *)0))
#define OPTION_TEXT(name, field, meaning) \
    { name, KIND_TEXT, OPTION_AT(const char *, field), 0, 0, NULL, meaning, NULL, NULL }
#define OPTION_CHOICE(name, field, value, meaning) \
    { name, KIND_CHOICE, OPTION_AT(const char *, field), 0, 0, value, meaning, NULL, NULL }
// A list of such values, with commas between; the program checks it.
#define OPTION_LIST(name, field, value, meaning) \
    { name, KIND_TEXT, OPTION_AT(const char *, field), 0, 0, value, meaning, NULL, NULL }
#define OPTION_WHOLE(name, field, least, most, meaning) \
    { name, KIND_WHOLE, OPTION_AT(long long, field), least, most, NULL, meaning, NULL, NULL }
#define OPTION_REAL(name, field, least, most, meaning) \
    { name, KIND_REAL, OPTION_AT(double, field), least, most, NULL, meaning, NULL, NULL }
#define OPTION_FLAG(name, field, meaning) \
    { name, KIND_FLAG, OPTION_AT(bool, field), 0, 1, NULL, meaning, NULL, NULL }
// A flag that changes what the program does. `own` lists, with commas between, the options that
// have an effect only with it; `also` those of the others that have one with it too, NULL: all.
#define OPTION_MODE(name, field, own, also, meaning) \
    { name, KIND_FLAG, OPTION_AT(bool, field), 0, 1, NULL, meaning, own, also }

// Whether `name` stands in `list`, between commas.
static inline bool listed(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *at = list; (at = strstr(at, name)) != NULL; at++)
        if ((at == list || at[-1] == ',') && (at[n] == ',' || !at[n])) return true;
    return false;
}

// What the options that several programs share need.
static inline const char *mixer_name(int i) {
    return ttt_mixer_at(i) ? ttt_mixer_at(i)->name : NULL;
}
static inline int thread_count(long long n) { return n > 0 ? (int)n : TTT_ALL_THREADS; }

static inline bool option_is_text(const option *row) {
    return row->kind == KIND_TEXT || row->kind == KIND_CHOICE;
}

// Stores a value that was checked, or comes from option_get.
static inline void option_put(const option *row, void *options, const char *text) {
    void *at = (char *)options + row->at;
    if (option_is_text(row)) *(const char **)at = text;
    else if (row->kind == KIND_WHOLE) *(long long *)at = (long long)strtod(text, NULL);
    else if (row->kind == KIND_REAL) *(double *)at = strtod(text, NULL);
    else *(bool *)at = strtod(text, NULL) != 0;
}

// The fewest digits, from six on, that strtod turns back into v.
static inline void write_real(double v, char room[32]) {
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(room, 32, "%.*g", digits, v);
        if (strtod(room, NULL) == v) return;
    }
}

// The value as a text, which option_put turns back into the value. Numbers are written to `room`.
static inline const char *option_get(const option *row, const void *options, char room[32]) {
    const void *at = (const char *)options + row->at;
    if (row->kind == KIND_WHOLE) snprintf(room, 32, "%lld", *(const long long *)at);
    else if (row->kind == KIND_REAL) write_real(*(const double *)at, room);
    else if (row->kind == KIND_FLAG) snprintf(room, 32, "%d", *(const bool *)at);
    else return *(const char *const *)at ? *(const char *const *)at : "";
    return room;
}

static inline bool text_is_good(const option *row, const char *text) {
    if (row->kind == KIND_TEXT) return *text != 0;
    for (int i = 0; row->value(i); i++)
        if (strcmp(row->value(i), text) == 0) return true;
    return false;
}

// A number from -HUGE_VAL on may be anything that strtod reads, NaN too.
static inline bool number_is_good(const option *row, const char *text) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || (row->kind == KIND_WHOLE && v != floor(v))) return false;
    return row->least == -HUGE_VAL || (v >= row->least && v <= row->most);
}

// `where` is what a message begins with: "" for the command line, "FILE: " for a value from a file.
static inline void check_value(const option *row, const char *text, const char *where) {
    bool is_text = option_is_text(row);
    char must[80];
    if (is_text) strcpy(must, row->kind == KIND_TEXT ? "some text" : "one of the names in --help");
    else snprintf(must, sizeof must, "a %snumber from %g to %g",
                  row->kind == KIND_WHOLE ? "whole " : "", row->least, row->most);
    if (!text) die("%s%s needs a value: %s", where, row->name, must);
    if (!(is_text ? text_is_good(row, text) : number_is_good(row, text)))
        die("%s%s is '%s'; it must be %s", where, row->name, text, must);
}

static inline void print_help(void) {
    static const char *const value[] = { "TEXT", "NAME", "NUMBER", "NUMBER", "" };
    const program *p = &this_program;
    printf("%s - %s\n\n", p->name, p->purpose);
    printf("usage: %s [options]%s%s\n", p->name, p->arguments ? " " : "",
           p->arguments ? p->arguments : "");
    for (int i = 0; i < p->n_rows; i++)
        printf("  %-14s %-6s %s\n", p->rows[i].name, value[p->rows[i].kind], p->rows[i].meaning);
    printf("  %-14s %-6s print this and stop\n", "--help", "");
    for (int i = 0; i < p->n_rows; i++) {
        if (!p->rows[i].value) continue;
        printf("\nvalues of %s:", p->rows[i].name);
        for (int k = 0; p->rows[i].value(k); k++) printf(" %s", p->rows[i].value(k));
        printf("\n");
        for (int k = 0; p->rows[i].value(k); k++) {
            const ttt_mixer *m = ttt_mixer_find(p->rows[i].value(k));
            if (m) printf("  %-17s %s [%s]\n", m->name, m->what, m->source);
        }
    }
    for (int i = 0; i < p->n_rows; i++) {
        const option *mode = &p->rows[i];
        if (mode->own && *mode->own) printf("\nonly with %s: %s\n", mode->name, mode->own);
        if (mode->also && *mode->also) printf("\nalso with %s: %s\n", mode->name, mode->also);
    }
    if (p->notes) printf("\n%s\n", p->notes);
}

// The row of an argument `--name` or `--name=value`.
static inline const option *find_option(const char *name) {
    size_t length = strcspn(name, "=");
    for (int i = 0; i < this_program.n_rows; i++) {
        const option *row = &this_program.rows[i];
        if (strlen(row->name) == length && memcmp(row->name, name, length) == 0) return row;
    }
    return NULL;
}

// Ends the program if an option has no effect because the mode is on, or because it is not. No
// value that stands alone begins with two dashes, so every argument that does is an option.
static inline void check_mode(const option *mode, int argc, char **argv, bool on) {
    for (int i = 1; i < argc; i++) {
        const option *row = strncmp(argv[i], "--", 2) == 0 ? find_option(argv[i]) : mode;
        if (row == mode) continue;
        bool own = listed(mode->own, row->name);
        bool heeded = own || !mode->also || listed(mode->also, row->name);
        if (own && !on) die("%s has no effect without %s", row->name, mode->name);
        if (on && !heeded) die("%s has no effect with %s", row->name, mode->name);
    }
}

static inline bool option_given(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const option *row = strncmp(argv[i], "--", 2) == 0 ? find_option(argv[i]) : NULL;
        if (row && strcmp(row->name, name) == 0) return true;
    }
    return false;
}

// A program's option that sets one of the mixers' options.
typedef struct mixer_option {
    const char *option, *field;  // "--inner-steps", "inner_steps"
} mixer_option;

// Ends the program if one of n such options was given and this mixer does not take it.
static inline void check_mixer_options(const ttt_mixer *m, const mixer_option *of, int n, int argc,
                                       char **argv) {
    char taken[500] = "";
    for (int i = 0; i < n; i++)
        if (ttt_mixer_takes(m, of[i].field)) strcat(strcat(taken, " "), of[i].option);
    for (int i = 0; i < n; i++)
        if (!ttt_mixer_takes(m, of[i].field) && option_given(of[i].option, argc, argv))
            die("%s has no effect on --mixer %s, which takes%s", of[i].option, m->name,
                *taken ? taken : " none of this program's options of mixers");
}

// Numbers have a point in all that programs read and write, whatever the machine's language.
static inline void begin_program(void) {
    setlocale(LC_NUMERIC, "C");
    atexit(check_output);
}

// Reads the command line over the defaults in *options: `--name value` or `--name=value`; given
// twice, the last counts. Returns the place in argv of the first argument that is no option.
static inline int read_options(int argc, char **argv, void *options) {
    int i = 1;
    begin_program();
    for (; i < argc && argv[i][0] == '-'; i++) {
        int length = (int)strcspn(argv[i], "=");
        const char *value = argv[i][length] ? argv[i] + length + 1 : NULL;
        const option *row = find_option(argv[i]);
        if (strcmp(argv[i], "--help") == 0) {
            print_help();
            exit(0);
        }
        if (!row) die("unknown option '%.*s'; --help lists them", length, argv[i]);
        if (row->kind == KIND_FLAG && value) die("%s takes no value, not '%s'", row->name, value);
        if (row->kind == KIND_FLAG) value = "1";
        else if (!value && i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0) value = argv[++i];
        check_value(row, value, "");
        option_put(row, options, value);
    }
    for (int m = 0; m < this_program.n_rows; m++) {
        const option *mode = &this_program.rows[m];
        const void *at = (const char *)options + mode->at;
        if (mode->own) check_mode(mode, i, argv, *(const bool *)at);
    }
    if (i < argc && !this_program.arguments)
        die("unexpected argument '%s'; --help lists the options", argv[i]);
    return i;
}

// ---- [3] PROGRESS -------------------------------------------------------------------------------
// Shows a line that the next one overwrites, until it is cleared. Nothing where stderr is a file.
static inline void status_line(const char *format, ...) {
    char text[80];  // a longer line would wrap, and could not be overwritten
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (isatty(2)) fprintf(stderr, "\r%-79s", text);
}
static inline void status_clear(void) {
    if (isatty(2)) fprintf(stderr, "\r%79s\r", "");
}

typedef struct progress {
    long long first, last;  // the work goes from this step to that
    double per_step;        // how many of these a step does:
    const char *unit;
    double began, shown;    // seconds; 0 before the first call
} progress;

// Shows, ten times a second at most, the step, the time that is left, `what`, and the rate.
static inline void progress_show(progress *p, long long step, const char *what) {
    double now = ttt_seconds();
    if (p->began == 0) p->began = p->shown = now;
    if (fabs(now - p->shown) < 0.1) return;
    p->shown = now;
    double rate = (double)(step - p->first) / (now - p->began);
    status_line("step %lld of %lld, %.0f s left  %s  %.0f %s/s", step, p->last,
                (double)(p->last - step) / rate, what, rate * p->per_step, p->unit);
}

// ---- [4] SVG ------------------------------------------------------------------------------------
// What a color means, the same in all pictures and on the page in examples/web. People with any
// color vision can tell them apart [Okabe, Ito 2008].
#define COLOR_INNER "#2360b8"  // the inner loop: what lives for one sequence
#define COLOR_OUTER "#c8701a"  // the outer loop, and what it trains
#define COLOR_GRAY "#777777"   // neither; what others are compared with
enum { COLOR_BELOW = 0x762a83, COLOR_ABOVE = 0x1b7837 };  // numbers below zero, and above; 0: white

// Colors of things that are only to be told apart.
static inline const char *color_at(int i) {
    static const char *const colors[] = { "#0072b2", "#d55e00", "#56b4e9", "#e69f00",
                                          "#8c6d31", "#7f3c8d", "#b8a800", "#cc79a7",
                                          "#e7298a", "#3f2a86", "#009e73", "#66c2a5",
                                          "#000000", "#5f6b75", "#8c2d04", "#4b5d16" };
    return colors[i % COUNT(colors)];
}

// A mixer's color: that of its place in the registry.
static inline const char *color_of(const char *mixer) {
    for (int i = 0; ttt_mixer_at(i) && ttt_mixer_at(i) != &ttt_mixer_none; i++)
        if (strcmp(ttt_mixer_at(i)->name, mixer) == 0) return color_at(i);
    return COLOR_GRAY;
}

// The color of a number from -1 to 1; NaN is black.
static inline void color_of_number(double v, char text[8]) {
    int end = v < 0 ? COLOR_BELOW : COLOR_ABOVE, mixed = 0;
    double share = v >= -1 && v <= 1 ? fabs(v) : 1;
    for (int shift = 16; shift >= 0; shift -= 8)
        mixed |= (int)(255 + share * ((end >> shift & 255) - 255) + 0.5) << shift;
    snprintf(text, 8, "#%06x", v == v ? mixed : 0);
}

// A picture that is being written. Errors are the context's, and svg_end returns them. Lengths are
// pixels, counted from the upper left corner; `style` is any further attributes, or "".
typedef struct svg {
    ttt_ctx *c;
    ttt_file_writer file;
    bool good;
    char locale[64];  // of numbers, as it was: those of a picture have points
} svg;

static inline void svg_put(svg *s, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    s->good = s->good && n >= 0 && n < (int)sizeof text && ttt_file_put(&s->file, text, (size_t)n);
}

static inline void svg_line(svg *s, double x1, double y1, double x2, double y2, const char *color,
                            const char *style) {
    svg_put(s, "<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' stroke='%s' %s/>\n", x1, y1, x2, y2,
            color, style);
}

static inline void svg_rect(svg *s, double x, double y, double width, double height,
                            const char *fill, const char *style) {
    svg_put(s, "<rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' fill='%s' %s/>\n", x, y, width,
            height, fill, style);
}

// Bytes of the UTF-8 character that begins here; 0 if XML cannot hold it: control characters, and
// bytes that are no UTF-8.
static inline int character_length(const char *words) {
    const unsigned char *p = (const unsigned char *)words;
    static const long least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    int n = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    long code = p[0] & (0xff >> (n + 1));
    if (n == 1) return p[0] >= ' ';
    if (p[0] < 0xc2 || p[0] > 0xf4) return 0;
    for (int i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    bool none = (code >= 0xd800 && code < 0xe000) || (code & 0xfffe) == 0xfffe || code > 0x10ffff;
    return none || code < least[n] ? 0 : n;
}

// anchor: which part of the words is at x: "start", "middle" or "end"
static inline void svg_text(svg *s, double x, double y, const char *anchor, int size,
                            const char *style, const char *words) {
    svg_put(s, "<text x='%.1f' y='%.1f' text-anchor='%s' font-size='%d' %s>", x, y, anchor, size,
            style);
    for (int n; words && *words; words += n > 0 ? n : 1) {
        n = character_length(words);
        if (*words == '<') svg_put(s, "&lt;");
        else if (*words == '&') svg_put(s, "&amp;");
        else svg_put(s, "%.*s", n > 0 ? n : 1, n > 0 ? words : "?");
    }
    svg_put(s, "</text>\n");
}

// The numbers of m (...,cols) as colored squares of `cell` pixels, white at zero; the largest has
// the full color. Returns its size.
static inline double svg_matrix(svg *s, double left, double top, double cell, const ttt_tensor *m) {
    int64_t cols = m->shape.dim[m->shape.rank - 1];
    double most = 0;
    char color[8];
    for (int64_t i = 0; i < m->size; i++) most = fmax(most, fabs((double)m->data[i]));
    for (int64_t i = 0; i < m->size; i++) {
        color_of_number(most > 0 ? (double)m->data[i] / most : 0, color);
        svg_rect(s, left + (double)(i % cols) * cell, top + (double)(i / cols) * cell, cell, cell,
                 color, "");
    }
    return most;
}

// The colors of svg_matrix, from the largest number below zero to the largest above.
static inline void svg_scale(svg *s, double left, double top, double width, double most) {
    enum { STEPS = 41 };
    char text[32], color[8];
    for (int i = 0; i < STEPS; i++) {
        color_of_number(2.0 * i / (STEPS - 1) - 1, color);
        svg_rect(s, left + i * width / STEPS, top, width / STEPS, 10, color,
                 "shape-rendering='crispEdges'");
    }
    svg_rect(s, left, top, width, 10, "none", "stroke='" COLOR_GRAY "'");
    for (int i = -1; i <= 1; i++) {
        snprintf(text, sizeof text, "%.2g", i * most);
        svg_text(s, left + (i + 1) * width / 2, top + 24, "middle", 11, "", text);
    }
}

// On a white background, so that it can be read on a dark page too.
static inline svg svg_begin(ttt_ctx *c, const char *path, int width, int height) {
    svg s;
    s.c = c;
    s.good = ttt_file_begin(c, &s.file, path);
    snprintf(s.locale, sizeof s.locale, "%s", setlocale(LC_NUMERIC, NULL));
    setlocale(LC_NUMERIC, "C");
    svg_put(&s, "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' ", width, height);
    svg_put(&s, "viewBox='0 0 %d %d' font-family='sans-serif' fill='#222222'>\n", width, height);
    svg_rect(&s, 0, 0, width, height, "#ffffff", "");
    return s;
}

static inline ttt_result svg_end(svg *s) {
    svg_put(s, "</svg>\n");
    setlocale(LC_NUMERIC, s->locale);
    return ttt_file_finish(s->c, &s->file, s->good);
}

// ---- [5] LINE CHARTS ----------------------------------------------------------------------------
typedef struct chart_series {
    const char *name;     // NULL: not in the legend
    const double *x, *y;  // points that are not finite, or beyond 1e300, are left out
    int n;
    const double *limit;  // NULL, or what y could be at best: a dashed line of the same color
    const char *color;    // NULL: that of its place
    bool broad;           // a broad pale line, to be seen below one that is as high
} chart_series;
typedef struct chart_panel {
    const char *title, *x_label, *y_label;
    const chart_series *series;
    int n;
    int logarithmic;  // LOG_BOTH axes, or LOG_X; x has ticks at powers of 2, y at 1, 2 and 5 times
                      // powers of 10, fewer where these are many; points that are not above zero
                      // are left out
} chart_panel;
enum { LOG_BOTH = 1, LOG_X = 2 };
typedef struct line_chart {
    const char *title;
    const chart_panel *panels;
    int n, columns;  // panels, and how many are side by side
} line_chart;

typedef struct chart_axis {
    double low, high, step;  // step: between ticks
    bool log;                // low and high are logarithms
} chart_axis;

static inline double axis_value(const chart_axis *a, double v) { return a->log ? log(v) : v; }
// Differences of what is not left out are finite.
static inline bool axis_takes(const chart_axis *a, double v) {
    return fabs(axis_value(a, v)) < 1e300;
}

static inline void axis_hold(chart_axis *a, const double *v, int n) {
    for (int i = 0; v && i < n; i++) {
        if (!axis_takes(a, v[i])) continue;
        a->low = fmin(a->low, axis_value(a, v[i]));
        a->high = fmax(a->high, axis_value(a, v[i]));
    }
}

// A millionth of its numbers is the least that an axis shows, so that its ticks are different
// numbers, and so are their labels; of one number, a tenth.
static inline void axis_widen(chart_axis *a) {
    double size = fmax(fabs(a->low), fabs(a->high));
    double least = size == 0 ? 1 : a->low == a->high ? 0.1 * size : 1e-6 * size;
    if (!(a->high - a->low >= fmax(least, 1e-290))) a->high = a->low + fmax(least, 1e-290);
}

// About five steps from low to high, each 1, 2 or 5 times a power of ten.
static inline double tick_step(double low, double high) {
    double rough = (high - low) / 5, power = pow(10, floor(log10(rough))), digit = rough / power;
    return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
}

// Holds all finite values of a panel; a vertical one that is not logarithmic ends at ticks.
static inline chart_axis axis_of(const chart_panel *p, bool vertical) {
    bool powers = p->logarithmic == LOG_BOTH || (p->logarithmic == LOG_X && !vertical);
    chart_axis a = { HUGE_VAL, -HUGE_VAL, 1, powers };
    for (int i = 0; i < p->n; i++) {
        axis_hold(&a, vertical ? p->series[i].y : p->series[i].x, p->series[i].n);
        if (vertical) axis_hold(&a, p->series[i].limit, p->series[i].n);
    }
    if (a.low > a.high) a.low = a.high = 0;
    if (a.log) {
        double room = vertical || a.high - a.low < 1e-6 ? 0.1 + 0.05 * (a.high - a.low) : 0;
        a.low -= room;
        a.high += room;
        return a;
    }
    axis_widen(&a);
    a.step = tick_step(a.low, a.high);
    if (vertical) {
        a.low = a.step * floor(a.low / a.step);
        a.high = a.step * ceil(a.high / a.step);
    }
    return a;
}

static inline double axis_share(const chart_axis *a, double v) {
    return (axis_value(a, v) - a->low) / (a->high - a->low);
}

// Where the values of a panel are in the picture.
typedef struct chart_frame {
    double left, top, width, height;
    chart_axis x, y;
} chart_frame;

static inline double frame_x(const chart_frame *f, double v) {
    return f->left + f->width * axis_share(&f->x, v);
}
static inline double frame_y(const chart_frame *f, double v) {
    return f->top + f->height * (1 - axis_share(&f->y, v));
}

// In as many digits as tell it from its neighbors.
static inline void draw_tick(svg *s, const chart_frame *f, bool vertical, double v) {
    const chart_axis *a = vertical ? &f->y : &f->x;
    char text[32];
    double x = frame_x(f, v), y = frame_y(f, v), bottom = f->top + f->height;
    double most = fmax(fabs(a->low), fabs(a->high));
    int digits = a->log ? 4 : (int)fmax(4, ceil(log10(most / a->step)) + 1);
    snprintf(text, sizeof text, "%.*g", digits + !vertical, v);
    if (vertical) {
        svg_line(s, f->left, y, f->left + f->width, y, "#dddddd", "");
        svg_text(s, f->left - 6, y + 4, "end", 11, "", text);
    } else {
        svg_line(s, x, bottom, x, bottom + 4, "#888888", "");
        svg_text(s, x, bottom + 16, "middle", 11, "", text);
    }
}

static inline void draw_ticks(svg *s, const chart_frame *f, bool vertical) {
    static const double part[3] = { 1, 2, 5 };
    const chart_axis *a = vertical ? &f->y : &f->x;
    if (!a->log) {
        double first = ceil(a->low / a->step - 1e-9), last = floor(a->high / a->step + 1e-9);
        for (double k = first; k <= last; k++) draw_tick(s, f, vertical, k * a->step + 0);
        return;
    }
    double base = vertical ? log(10.0) : log(2.0), powers = (a->high - a->low) / base;
    double every = ceil(powers / 12), first = every * floor(a->low / base / every);
    int parts = vertical && powers < 5 ? 3 : 1;
    for (double e = first; e <= a->high / base + 1e-9; e += every)
        for (int i = 0; i < parts; i++) {
            double v = part[i] * pow(vertical ? 10 : 2, e), share = axis_share(a, v);
            if (share > -1e-9 && share < 1 + 1e-9) draw_tick(s, f, vertical, v);
        }
}

static inline void draw_axes(svg *s, const chart_frame *f, const chart_panel *p) {
    double x = f->left - 46, y = f->top + f->height / 2;
    draw_ticks(s, f, true);
    draw_ticks(s, f, false);
    svg_rect(s, f->left, f->top, f->width, f->height, "none", "stroke='#888888'");
    svg_text(s, f->left, f->top - 10, "start", 13, "font-weight='bold'", p->title);
    svg_text(s, f->left + f->width / 2, f->top + f->height + 34, "middle", 12, "", p->x_label);
    svg_put(s, "<g transform='rotate(-90 %.0f %.0f)'>", x, y);
    svg_text(s, x, y, "middle", 12, "", p->y_label);
    svg_put(s, "</g>\n");
}

static inline void draw_curve(svg *s, const chart_frame *f, const chart_series *line,
                              const double *v, const char *color, const char *style) {
    svg_put(s, "<polyline fill='none' stroke='%s' %s points='", color, style);
    for (int i = 0; v && i < line->n; i++) {
        if (!axis_takes(&f->x, line->x[i]) || !axis_takes(&f->y, v[i])) continue;
        svg_put(s, "%.1f,%.1f ", frame_x(f, line->x[i]), frame_y(f, v[i]));
    }
    svg_put(s, "'/>\n");
}

// Counts the points of v that a legend would hide, for each corner: bit 0: left, bit 1: below.
static inline void count_hidden(int hidden[4], const chart_frame *f, const chart_series *line,
                                const double *v, double width, double height) {
    for (int i = 0; v && i < line->n; i++) {
        double x = frame_x(f, line->x[i]) - f->left, y = frame_y(f, v[i]) - f->top;
        for (int k = 0; k < 4; k++)
            hidden[k] += (k & 1 ? x < width : x > f->width - width) &&
                         (k & 2 ? y > f->height - height : y < height);
    }
}

#define BROAD "stroke-width='6' stroke-opacity='0.35'"
static inline const char *series_color(const chart_panel *p, int i) {
    return p->series[i].color ? p->series[i].color : color_at(i);
}

// The names of a panel's curves, from an edge to the right (side 1) or to the left (-1) of it.
static inline void draw_names(svg *s, const chart_panel *p, double edge, double side, double top) {
    for (int i = 0; i < p->n; i++) {
        double x = edge + 8 * side, y = top + 14 + 15 * i;
        if (!p->series[i].name) continue;
        svg_line(s, x, y - 4, x + 16 * side, y - 4, series_color(p, i),
                 p->series[i].broad ? BROAD : "stroke-width='3'");
        svg_text(s, x + 22 * side, y, side > 0 ? "start" : "end", 11, "", p->series[i].name);
    }
}

// In the corner where it hides the fewest points.
static inline void draw_legend(svg *s, const chart_frame *f, const chart_panel *p) {
    double width = 0, height = 15.0 * p->n + 4;
    int best = 0, hidden[4] = { 0, 0, 0, 0 };
    for (int i = 0; i < p->n; i++)
        if (p->series[i].name) width = fmax(width, 34 + 6.2 * (double)strlen(p->series[i].name));
    if (width == 0) return;
    for (int i = 0; i < p->n; i++) {
        count_hidden(hidden, f, &p->series[i], p->series[i].y, width, height);
        count_hidden(hidden, f, &p->series[i], p->series[i].limit, width, height);
    }
    for (int k = 1; k < 4; k++)
        if (hidden[k] < hidden[best]) best = k;
    bool left = best & 1;
    double edge = left ? f->left : f->left + f->width;
    double top = best & 2 ? f->top + f->height - height : f->top;
    svg_rect(s, left ? edge + 1 : edge - width - 1, top + 1, width, height - 2, "#ffffff",
             "fill-opacity='0.8'");
    draw_names(s, p, edge, left ? 1 : -1, top);
}

enum { PANEL_WIDTH = 420, PANEL_HEIGHT = 300, PANEL_LEFT = 62, PANEL_TOP = 34, CHART_HEADING = 40 };
enum { CORNER_NAMES = 10, NAMES_WIDTH = 190 };

static inline void draw_panel(svg *s, const chart_panel *p, double left, double top,
                              bool legend) {
    chart_frame f = { left + PANEL_LEFT, top + PANEL_TOP, PANEL_WIDTH - PANEL_LEFT - 20,
                      PANEL_HEIGHT - PANEL_TOP - 44, axis_of(p, false), axis_of(p, true) };
    draw_axes(s, &f, p);
    for (int i = 0; i < p->n; i++) {
        const chart_series *line = &p->series[i];
        const char *color = series_color(p, i);
        if (line->limit) draw_curve(s, &f, line, line->limit, color, "stroke-dasharray='4 3'");
        draw_curve(s, &f, line, line->y, color, line->broad ? BROAD : "stroke-width='1.6'");
    }
    if (legend) draw_legend(s, &f, p);
}

// Where a panel has more names than a corner holds, legends stand right of the rows, and are those
// of the last panels.
static inline ttt_result line_chart_write(ttt_ctx *c, const char *path, const line_chart *chart) {
    int columns = chart->columns < chart->n ? chart->columns : chart->n;
    bool beside = false;
    for (int i = 0; i < chart->n; i++) beside = beside || chart->panels[i].n > CORNER_NAMES;
    if (columns < 1) columns = 1;
    int rows = (chart->n + columns - 1) / columns;
    int width = columns * PANEL_WIDTH, height = CHART_HEADING + rows * PANEL_HEIGHT;
    svg s = svg_begin(c, path, width + (beside ? NAMES_WIDTH : 0), height);
    svg_text(&s, PANEL_LEFT, 26, "start", 16, "font-weight='bold'", chart->title);
    for (int i = 0; i < chart->n; i++) {
        double left = i % columns * PANEL_WIDTH, top = CHART_HEADING + i / columns * PANEL_HEIGHT;
        bool last = i % columns == columns - 1 || i == chart->n - 1;
        draw_panel(&s, &chart->panels[i], left, top, !beside);
        if (beside && last) draw_names(&s, &chart->panels[i], width - 16, 1, top + 22);
    }
    return svg_end(&s);
}

// ---- [6] BAR CHARTS -----------------------------------------------------------------------------
typedef struct chart_bar {
    const char *name, *note;  // before the bar and after it
    const double *value;      // of each part; one that is not above 0 and finite is left out
    double meter;             // at the right, drawn full above 1; none if below 0 or beyond 1e300
    const char *meter_note;   // behind the meter's per cent
} chart_bar;
typedef struct bar_chart {
    const char *title, *x_label, *meter_label;
    const char *const *parts, *const *colors;  // names and colors of the parts
    int n_parts;
    const chart_bar *bars;
    int n;
} bar_chart;

enum { BAR_LEFT = 150, BAR_PLOT = 400, BAR_NOTE = 110, BAR_METER = 110, BAR_RIGHT = 130 };
enum { BAR_TOP = 86, BAR_PITCH = 24, METER_LEFT = BAR_LEFT + BAR_PLOT + BAR_NOTE };

// Of a part, or 0 if it is left out; sums of them are finite.
static inline double bar_length(double value) { return value > 0 && value < 1e300 ? value : 0; }

static inline void draw_bar(svg *s, const bar_chart *b, const chart_bar *bar, double y,
                            double longest) {
    char text[64];
    double x = BAR_LEFT;
    svg_text(s, x - 8, y + 12, "end", 12, "", bar->name);
    for (int k = 0; k < b->n_parts; k++) {
        double width = bar_length(bar->value[k]);
        if (width == 0) continue;
        width = width / longest * BAR_PLOT;
        svg_rect(s, x, y, width, 16, b->colors[k], "");
        x += width;
    }
    svg_text(s, x + 6, y + 12, "start", 11, "", bar->note);
    if (!(bar->meter >= 0 && bar->meter < 1e300)) return;
    double meter = fabs(bar->meter);  // without the sign of -0
    svg_rect(s, METER_LEFT, y + 3, BAR_METER, 10, "#dddddd", "");
    svg_rect(s, METER_LEFT, y + 3, BAR_METER * fmin(meter, 1), 10, COLOR_GRAY, "");
    snprintf(text, sizeof text, "%.*g %% %.40s", meter < 1e4 ? 6 : 1, round(100 * meter),
             bar->meter_note ? bar->meter_note : "");
    svg_text(s, METER_LEFT + BAR_METER + 6, y + 12, "start", 11, "", text);
}

// The names of the parts that some bar has.
static inline void draw_parts(svg *s, const bar_chart *b) {
    double x = BAR_LEFT;
    for (int k = 0; k < b->n_parts; k++) {
        bool used = false;
        for (int i = 0; i < b->n; i++) used = used || bar_length(b->bars[i].value[k]) > 0;
        if (!used) continue;
        svg_rect(s, x, 40, 12, 12, b->colors[k], "");
        svg_text(s, x + 18, 50, "start", 12, "", b->parts[k]);
        x += 40 + 6.5 * (double)strlen(b->parts[k]);
    }
}

static inline ttt_result bar_chart_write(ttt_ctx *c, const char *path, const bar_chart *b) {
    double longest = 0;
    int height = b->n * BAR_PITCH, width = METER_LEFT + BAR_METER + BAR_RIGHT;
    for (int i = 0; i < b->n; i++) {
        double sum = 0;
        for (int k = 0; k < b->n_parts; k++) sum += bar_length(b->bars[i].value[k]);
        longest = fmax(longest, sum);
    }
    svg s = svg_begin(c, path, width, BAR_TOP + height + 20);
    svg_text(&s, 20, 26, "start", 16, "font-weight='bold'", b->title);
    svg_text(&s, BAR_LEFT, BAR_TOP - 12, "start", 12, "", b->x_label);
    svg_text(&s, METER_LEFT, BAR_TOP - 12, "start", 12, "", b->meter_label);
    draw_parts(&s, b);
    svg_rect(&s, BAR_LEFT - 1, BAR_TOP - 4, 1, height, "#888888", "");
    for (int i = 0; i < b->n; i++)
        draw_bar(&s, b, &b->bars[i], BAR_TOP + i * BAR_PITCH, longest);
    return svg_end(&s);
}

// ---- [7] RUNS -----------------------------------------------------------------------------------
static inline bool file_exists(const char *path) { return access(path, 0) == 0; }

// Keeps other processes away from what this one writes, by the lock file `path`, until it ends.
static char locked[1200];
static inline void unlock(void) { remove(locked); }
static inline void lock_or_die(const char *path) {
    ttt_ctx *c = open_or_die(NULL);
    if (snprintf(locked, sizeof locked, "%s", path) >= (int)sizeof locked)
        die("%.60s...: a shorter path expected", path);
    ttt_file_lock(c, path);
    need_ok(c, "another process may write there");
    atexit(unlock);
    ttt_close(c);
}

// Reads the JSON object that `text` is into the notes of *out: what a string says, and of any other
// value its JSON. They live in `text`, which is overwritten. False if it is not an object.
static inline bool json_read(ttt_ctx *c, char *text, size_t length, ttt_bundle *out) {
    ttt__json json = ttt__json_of(text, length);  // the reader of ttt_data.h for its own files
    char nothing, *end = &nothing;                // of a value that is no string
    memset(out, 0, sizeof *out);
    out->notes = (ttt_note *)ttt_alloc(c, (size_t)ttt__json_count(json) * sizeof(ttt_note), false);
    need_ok(c, "a log");
    ttt__json_enter(&json, '{');
    for (ttt_note *note = out->notes; ttt__json_key(&json, &note->key); note++, out->n_notes++) {
        *end = 0;  // the comma behind it has been read
        bool string = ttt__json_kind(&json) == '"';
        note->text = json.at;
        if (string ? ttt__json_string(&json, &note->text) : ttt__json_skip(&json))
            end = string ? &nothing : json.at;
    }
    bool good = ttt__json_end(&json);
    if (good) *end = 0;
    return good;
}

// The text of a note, "" where there is none; the number that it is, NaN if none.
static inline const char *note_text(const ttt_bundle *b, const char *key) {
    const char *text = ttt_bundle_note(b, key);
    return text ? text : "";
}
static inline double note_number(const ttt_bundle *b, const char *key) {
    char *end;
    double v = strtod(note_text(b, key), &end);
    return end == note_text(b, key) || *end ? NAN : v;
}

// ---- [8] TRAINING -------------------------------------------------------------------------------
// What programs that train share: a folder that holds the run, a log whose records carry all of its
// settings, checkpoints, and going on from them with the same bits. The options that define a run
// are the first rows of a program.
#define OPTION_PLACE(type, kind, field, least, most) \
    { #field, kind, offsetof(type, field), least, most, NULL, "", NULL, NULL }

typedef struct training {
    // Set by the program:
    const char *command;          // how it is called: "./train"
    void *options;                // its options,
    int n_defining;               // of which so many rows define a run
    const char *out;              // the folder
    const option *place_rows;     // where a run is, beside weights, optimizer and random numbers
    int n_place_rows;
    void *place;
    const char *data_key;         // "images"
    char data[20];                // a hash of these
    const char *const *results;   // files that it leaves at the end, up to NULL
    void (*step)(struct training *t);                // one update
    void (*record)(struct training *t);              // into the history; then log_record
    void (*write_record)(FILE *f, const struct training *t, int i);  // of the history, as a line
    void (*take_record)(struct training *t, const ttt_bundle *record, double step);  // and back
    void (*show)(const struct training *t, progress *p);
    void (*look)(struct training *t);                // NULL, or fills in the place
    void (*check)(struct training *t, const ttt_bundle *b, const char *where);  // its own options
    // The rest is filled in below.
    ttt_ctx *c;
    ttt_params params;
    ttt_optimizer *opt;
    ttt_note *settings;           // what defines the run
    int n_settings;
    char *json;                   // the same as an object
    int n_records;                // of the log
    double last_record;           // its step
    double earlier, start, saved; // seconds until this process; when it began, and last saved
    FILE *log;
} training;

// Continues with bytes [FNV-1a]: folders and files of one name need not hold the same.
#define HASH_START 14695981039346656037u
static inline uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t n) {
    for (const unsigned char *p = (const unsigned char *)bytes; n--; p++)
        hash = (hash ^ *p) * 1099511628211u;
    return hash;
}
static inline void hash_text(uint64_t hash, char text[20]) {
    snprintf(text, 20, "%08lx%08lx", (unsigned long)(hash >> 32),
             (unsigned long)(hash & 0xffffffff));
}

static inline double training_seconds(const training *t) {
    return t->earlier + ttt_seconds() - t->start;
}
static inline long long steps_done(const training *t) {
    return t->opt->updates + t->opt->skipped;
}

// The path of a file in the folder, until the next call.
static inline const char *path_in(const training *t, const char *name) {
    static char path[1200];
    if (snprintf(path, sizeof path, "%s/%s", t->out, name) >= (int)sizeof path)
        die("--out '%.60s...': a shorter path expected", t->out);
    return path;
}

// Room for `n` things that lives as long as the run, for what `why` says.
static inline void *kept(training *t, const char *why, int64_t n, size_t size) {
    void *room = ttt_alloc(t->c, (size_t)n * size, true);
    need_ok(t->c, why);
    return room;
}

// -- what defines a run: checkpoints hold it as notes, and every record of the log as an object:
// the options, what this program is, and the data. Runs that differ in nothing but the seed may be
// compared.
static const ttt_note this_build[] = {
    { "version", TTT_VERSION }, { "real", sizeof(ttt_real) == sizeof(double) ? "double" : "float" },
};

static inline const char *key_of(const option *row) { return row->name + strspn(row->name, "-"); }

// The values that the rows have in `values` as notes. Numbers are written to `room`.
static inline int list_values(const option *rows, int n, const void *values, ttt_note *notes,
                              char (*room)[32]) {
    for (int i = 0; i < n; i++)
        notes[i] = (ttt_note){ key_of(&rows[i]), option_get(&rows[i], values, room[i]) };
    return n;
}

static inline char *put_json_text(char *to, const char *text) {
    *to++ = '"';
    for (; *text; text++) {
        unsigned char letter = (unsigned char)*text;
        if (letter < 0x20) to += sprintf(to, "\\u%04x", letter);
        else if (letter == '"' || letter == '\\') to += sprintf(to, "\\%c", letter);
        else *to++ = *text;
    }
    *to++ = '"';
    return to;
}

static inline void describe_training(training *t) {
    size_t size = 8;
    int n = t->n_defining;
    char(*room)[32] = (char(*)[32])kept(t, "the settings", n, sizeof *room);
    t->settings = (ttt_note *)kept(t, "the settings", n + COUNT(this_build) + 1, sizeof(ttt_note));
    list_values(this_program.rows, n, t->options, t->settings, room);
    for (int i = 0; i < COUNT(this_build); i++) t->settings[n++] = this_build[i];
    t->settings[n++] = (ttt_note){ t->data_key, t->data };
    t->n_settings = n;
    for (int i = 0; i < n; i++)
        size += strlen(t->settings[i].key) + 6 * strlen(t->settings[i].text) + 8;
    char *to = t->json = (char *)kept(t, "the settings", (int64_t)size, 1);
    for (int i = 0; i < n; i++) {
        bool number = i < t->n_defining && !option_is_text(&this_program.rows[i]);
        *to++ = i ? ',' : '{';
        to = put_json_text(to, t->settings[i].key);
        *to++ = ':';
        to = number ? to + sprintf(to, "%s", t->settings[i].text)
                    : put_json_text(to, t->settings[i].text);
    }
    strcpy(to, "}");
}

// -- the log. JSON has no NaN and no infinity.
static inline void write_number(FILE *f, const char *before, double v) {
    bool finite = fabs(v) < HUGE_VAL;
    fprintf(f, finite ? "%s%.6g" : "%snull", before, v);
}
// The numbers of JSON lists, one after the other; NaN for null.
static inline double next_number(const char **at) {
    *at += strspn(*at, "[], ");
    if (**at == 'n') return *at += strlen("null"), NAN;
    char *end;
    double v = strtod(*at, &end);
    *at = end;
    return v;
}

static inline void flush_log(training *t) {
    errno = 0;
    if (fflush(t->log) != 0 || ferror(t->log))
        die("%s cannot be written: %s", path_in(t, "log.jsonl"), strerror(errno ? errno : EIO));
}

enum { N_RECORDS = 100 };
// Steps from record to record: at least a twentieth of the run, however short the run.
static inline long long record_every(long long steps) {
    long long every = (steps + N_RECORDS - 1) / N_RECORDS;
    return every < steps / 20 ? steps / 20 : every;
}

// Writes the record of this step, the last so far.
static inline void log_record(training *t) {
    t->last_record = (double)steps_done(t);
    t->write_record(t->log, t, t->n_records++);
    flush_log(t);
}

// False if this line of the log is not of the time before the checkpoint.
static inline bool restore_record(training *t, long long steps, char *line, size_t length) {
    ttt_bundle b;
    bool good = json_read(t->c, line, length, &b) && strcmp(note_text(&b, "event"), "step") == 0;
    double step = note_number(&b, "step");
    if (!good || !(step > t->last_record && step <= (double)steps_done(t))) return false;
    if ((long long)step % record_every(steps) != 0 && step != (double)steps) return false;
    if (strcmp(note_text(&b, "settings"), t->json) != 0)
        die("--resume: %s: its record of step %.0f is of another run; take the file away to go on "
            "without it", path_in(t, "log.jsonl"), step);
    t->take_record(t, &b, step);
    t->last_record = step;
    t->n_records++;
    return true;
}

// The log's records up to the checkpoint become the history again; those after it are done again.
static inline void restore_log(training *t, long long steps) {
    const char *path = path_in(t, "log.jsonl");
    ttt_mark m = ttt_mark_get(t->c);
    size_t size = 0;
    char *line = file_exists(path) ? ttt_file_read(t->c, path, &size) : NULL, *end;
    need_ok(t->c, "--resume");
    for (char *stop = line + size; line && t->n_records < N_RECORDS + 1; line = end + 1) {
        end = (char *)memchr(line, '\n', (size_t)(stop - line));
        if (!end || !restore_record(t, steps, line, (size_t)(end - line))) break;
    }
    ttt_mark_release(t->c, m);
    long long missing = steps_done(t) / record_every(steps) - t->n_records;
    if (missing > 0)
        printf("%s lacks %lld of its records: so will the curves\n", path, missing);
}

// -- interrupting: while a run is not finished, checkpoint.safetensors in its folder says where it
// goes on
static volatile sig_atomic_t interrupted;

static inline void heed_signals(void (*heed)(int)) {
    signal(SIGINT, heed);
    signal(SIGTERM, heed);
#ifdef SIGHUP
    if (signal(SIGHUP, heed) == SIG_IGN) signal(SIGHUP, SIG_IGN);  // as nohup wants it
#endif
}
static inline void on_signal(int signal) {
    (void)signal;
    interrupted = 1;
    heed_signals(SIG_DFL);  // a second one ends the program at once
}
static inline void print_interrupted(const training *t) {
    bool named = strcmp(t->out, "out") != 0;
    printf("interrupted at step %lld; to go on: %s --resume%s%s\n", steps_done(t), t->command,
           named ? " --out " : "", named ? t->out : "");
}

static const option seconds_row = {
    "seconds", KIND_REAL, offsetof(training, earlier), 0, 9e15, NULL, "", NULL, NULL
};

// The model remembers what defines the run; a whole checkpoint also the moments and the place.
static inline void save_checkpoint(training *t, const char *name, bool whole) {
    ttt_mark mark = ttt_mark_get(t->c);
    int n = t->n_settings, places = t->n_place_rows;
    size_t most = (size_t)(n + places + 1);
    ttt_note *notes = (ttt_note *)ttt_alloc(t->c, most * sizeof *notes, false);
    char(*room)[32] = (char(*)[32])ttt_alloc(t->c, most * sizeof *room, false);
    need_ok(t->c, "saving");
    if (t->look) t->look(t);
    t->earlier = training_seconds(t);
    t->start = ttt_seconds();  // and from here they go on
    memcpy(notes, t->settings, (size_t)n * sizeof *notes);
    if (whole) n += list_values(t->place_rows, places, t->place, notes + n, room);
    if (whole) n += list_values(&seconds_row, 1, t, notes + n, room + places);
    ttt_checkpoint_save(t->c, path_in(t, name), &t->params, whole ? t->opt : NULL, notes, n);
    need_ok(t->c, "saving");
    ttt_mark_release(t->c, mark);
    t->saved = ttt_seconds();
}

// -- going on. `where` begins the messages: "--resume: FILE: ".
// Notes with a point in their names are the library's.
static inline void check_keys(const training *t, const ttt_bundle *b, const char *where) {
    for (int64_t i = 0; i < b->n_notes; i++) {
        const char *key = b->notes[i].key;
        bool known = strchr(key, '.') || strcmp(key, t->data_key) == 0;
        for (int k = 0; k < t->n_defining; k++)
            known = known || strcmp(key, key_of(&this_program.rows[k])) == 0;
        for (int k = 0; k < t->n_place_rows; k++)
            known = known || strcmp(key, t->place_rows[k].name) == 0;
        for (int k = 0; k < COUNT(this_build); k++)
            known = known || strcmp(key, this_build[k].key) == 0;
        known = known || strcmp(key, seconds_row.name) == 0;
        if (!known) die("%snote '%s' is not known", where, key);
    }
}

static inline const char *need_note(const ttt_bundle *b, const char *key, const char *where) {
    const char *text = ttt_bundle_note(b, key);
    if (!text) die("%sthere is no note '%s'; was it written by this program?", where, key);
    return text;
}
static inline void need_same(const ttt_bundle *b, const ttt_note *mine, const char *where) {
    const char *text = need_note(b, mine->key, where);
    if (strcmp(text, mine->text) != 0)
        die("%sits %s is '%s', but here it is '%s'", where, mine->key, text, mine->text);
}

// Stores what the notes have for the rows, after the checks that the command line has.
static inline void take_values(training *t, const ttt_bundle *b, const char *where,
                               const option *rows, int n, void *values) {
    for (int i = 0; i < n; i++) {
        const char *text = need_note(b, key_of(&rows[i]), where);
        check_value(&rows[i], text, where);
        if (option_is_text(&rows[i]))
            text = strcpy((char *)kept(t, "--resume", (int64_t)strlen(text) + 1, 1), text);
        option_put(&rows[i], values, text);
    }
}

// Reads the command line again, over the options of a checkpoint: what then differs is an error.
static inline void read_again(training *t, int argc, char **argv) {
    ttt_mark mark = ttt_mark_get(t->c);
    int n = t->n_defining;
    ttt_note *saved = (ttt_note *)ttt_alloc(t->c, (size_t)n * sizeof *saved, false);
    char(*room)[32] = (char(*)[32])ttt_alloc(t->c, (size_t)n * sizeof *room, false), now[32];
    need_ok(t->c, "--resume");
    list_values(this_program.rows, n, t->options, saved, room);
    read_options(argc, argv, t->options);
    for (int i = 0; i < n; i++) {
        const option *row = &this_program.rows[i];
        const char *text = option_get(row, t->options, now);
        if (strcmp(text, saved[i].text) != 0)
            die("--resume: %s is %s, but the run in %s has %s %s", row->name, text, t->out,
                row->name, saved[i].text);
    }
    ttt_mark_release(t->c, mark);
}

// A model has more numbers than its MLPs: 8 width^2 each. Asked before memory for a model is, which
// the file may not have.
static inline void check_sizes(training *t, const ttt_bundle *b, const char *where,
                               long long width, long long depth) {
    double numbers = 0;
    for (int64_t i = 0; i < b->n_tensors; i++) {
        const ttt_tensor *tensor = ttt_bundle_at(b, i);
        need_ok(t->c, "--resume");
        numbers += (double)tensor->size;
    }
    if (numbers < 8 * (double)width * (double)width * (double)depth)
        die("%s--width %lld and --depth %lld are of a model larger than its tensors", where, width,
            depth);
}

// An option of a mixer that it does not take has its default.
static inline void check_restored_mixer(const char *where, const char *mixer,
                                        const mixer_option *of, int n, const void *options,
                                        const void *defaults) {
    char room[2][32];
    for (int i = 0; i < n; i++) {
        const option *row = find_option(of[i].option);
        if (!ttt_mixer_takes(ttt_mixer_find(mixer), of[i].field) &&
            strcmp(option_get(row, options, room[0]), option_get(row, defaults, room[1])) != 0)
            die("%s%s has no effect on --mixer %s", where, row->name, mixer);
    }
}

// Before there is a model: what the checkpoint says of the options.
static inline void restore_options(training *t, int argc, char **argv) {
    ttt_mark mark = ttt_mark_get(t->c);
    char path[1200], where[1216];
    ttt_bundle b;
    strcpy(path, path_in(t, "checkpoint.safetensors"));
    snprintf(where, sizeof where, "--resume: %s: ", path);
    if (!file_exists(path))
        die("--resume: there is no %s: a run leaves one if it ends too early", path);
    lock_or_die(path_in(t, "lock"));
    ttt_safetensors_read(t->c, path, &b);
    need_ok(t->c, "--resume");
    for (int i = 0; i < COUNT(this_build); i++) need_same(&b, &this_build[i], where);
    check_keys(t, &b, where);
    take_values(t, &b, where, this_program.rows, t->n_defining, t->options);
    t->check(t, &b, where);
    ttt_mark_release(t->c, mark);
    read_again(t, argc, argv);
}

// When there is one: its weights, and where the run is.
static inline void restore_training(training *t, long long steps) {
    const ttt_note data = { t->data_key, t->data };
    const ttt_optimizer *opt = t->opt;
    ttt_mark m = ttt_mark_get(t->c);
    char where[1216];
    ttt_bundle b;
    const char *path = path_in(t, "checkpoint.safetensors");
    snprintf(where, sizeof where, "--resume: %s: ", path);
    ttt_checkpoint_load(t->c, path, &t->params, t->opt, &b);
    need_ok(t->c, "--resume");
    need_same(&b, &data, where);
    take_values(t, &b, where, t->place_rows, t->n_place_rows, t->place);
    take_values(t, &b, where, &seconds_row, 1, t);
    if (opt->updates > steps || opt->skipped > steps - opt->updates)
        die("%soptimizer.updates and optimizer.skipped are %lld and %lld, of --steps %lld", where,
            (long long)opt->updates, (long long)opt->skipped, steps);
    ttt_mark_release(t->c, m);
    printf("resuming at step %lld of %lld\n", steps_done(t), steps);
}

// -- the folder
// Makes the folder, after those above it that are missing. What prevents one shows in the last.
static inline int make_folders(const char *path) {
    char above[1200];
    for (int i = 1; path[i] && i < (int)sizeof above; i++)
        if (path[i] == '/') {
            snprintf(above, sizeof above, "%.*s", i, path);
            (void)!make_folder(above);
        }
    return make_folder(path);
}

// Writes the log as it is so far, whole or not at all, and leaves it open for more.
static inline void begin_log(training *t) {
    const char *path = path_in(t, "log.jsonl");
    ttt_file_writer w;
    if (ttt_file_begin(t->c, &w, path)) {
        for (int i = 0; i < t->n_records; i++) t->write_record((FILE *)w.stream, t, i);
        ttt_file_finish(t->c, &w, true);
    }
    need_ok(t->c, "--out");
    t->log = fopen(path, "ab");
    if (!t->log) die("--out '%s': cannot write %s: %s", t->out, path, strerror(errno));
}

// Makes the folder the place of this run alone. The checkpoint is first: whatever happens from now
// on, --resume goes on with this run, and what cannot be written is known before the work.
static inline void begin_folder(training *t, bool overwrite) {
    if (make_folders(t->out) != 0 && errno != EEXIST)
        die("--out '%s': cannot make this folder: %s", t->out, strerror(errno));
    lock_or_die(path_in(t, "lock"));
    bool unfinished = file_exists(path_in(t, "checkpoint.safetensors"));
    if (unfinished && !overwrite)
        die("--out '%s' has a run that is not finished: --resume goes on with it, --overwrite "
            "begins anew, --out can be another folder", t->out);
    if (unfinished || file_exists(path_in(t, "log.jsonl")))
        printf("replacing the %s run in %s\n", unfinished ? "unfinished" : "earlier", t->out);
    save_checkpoint(t, "checkpoint.safetensors", true);
    begin_log(t);
    for (int i = 0; t->results[i]; i++) {
        const char *path = path_in(t, t->results[i]);
        if (file_exists(path) && remove(path) != 0)
            die("--out '%s': cannot replace %s: %s", t->out, path, strerror(errno));
    }
}

// -- the whole: steps until the last, or until a signal. An update does `per_step` units.
static inline void run_training(training *t, long long steps, double save_every, double per_step,
                         const char *unit) {
    long long first = steps_done(t), every = record_every(steps);
    progress p = { first, steps, per_step, unit, 0, 0 };
    for (long long step = first; step < steps && !interrupted; step++) {
        t->step(t);
        if ((step + 1) % every == 0 || step + 1 == steps) t->record(t);
        t->show(t, &p);
        if (ttt_seconds() - t->saved >= 60 * save_every)
            save_checkpoint(t, "checkpoint.safetensors", true);
    }
    status_clear();
    save_checkpoint(t, "checkpoint.safetensors", true);
}

// The last record, after which there is nothing to resume. `facts` are members of its object.
static inline void end_log(training *t, const char *facts) {
    fprintf(t->log, "{\"event\":\"done\",%s,\"settings\":%s}\n", facts, t->json);
    flush_log(t);
    if (fclose(t->log) != 0) die("%s: %s", path_in(t, "log.jsonl"), strerror(errno));
    remove(path_in(t, "checkpoint.safetensors"));
}

// ---- [9] LAYERS ---------------------------------------------------------------------------------
enum { LAYER_WIDTH = 384, LAYER_HEADS = 6 };

// Layer number i of the family, for sequences of N tokens, and its name: every mixer as it is, and
// again with each option that makes another layer of it, as "lact:causal". Grids are as square as N
// allows. False past the end.
static inline bool family_at(int i, int64_t N, char name[64], ttt_mixer_desc *d) {
    static const struct {
        const char *option, *suffix;
        ttt_mixer_desc with;
    } variants[] = {
        { "", "", { .inner_lr = 1 } },
        { "causal", ":causal", { .inner_lr = 1, .causal = true } },
        { "grid_rows", ":grid", { .inner_lr = 1 } },
        { "kernel", ":gaussian", { .inner_lr = 1, .kernel = TTT_ATTENTION_KERNEL_GAUSSIAN } },
        { "muon", ":muon", { .inner_lr = 1, .muon = true } },
    };
    int64_t rows = (int64_t)sqrt((double)N);
    while (N % rows) rows--;
    for (int k = 0; ttt_mixer_at(k); k++)
        for (int v = 0; v < COUNT(variants); v++) {
            const ttt_mixer *m = ttt_mixer_at(k);
            bool needs_grid = m->flags & TTT_MIXER_GRID;
            bool grid = strcmp(variants[v].option, "grid_rows") == 0;
            if (v > 0 && (!ttt_mixer_takes(m, variants[v].option) || (grid && needs_grid)))
                continue;
            if (!m->n_rows || i-- > 0) continue;  // "none" has nothing to measure
            *d = variants[v].with;
            d->dim = LAYER_WIDTH;
            d->heads = LAYER_HEADS;
            d->max_tokens = N;
            if (grid || needs_grid) d->grid_rows = rows, d->grid_cols = N / rows;
            *d = ttt_mixer_offer(m, d);
            snprintf(name, 64, "%.40s%s", m->name, variants[v].suffix);
            return true;
        }
    return false;
}

// One layer on random tokens, without or with gradients in all that is trained and in the tokens.
typedef struct layer_run {
    ttt_ctx *c;
    ttt_mixer_desc d;
    ttt_weights w;
    ttt_tensor *x, *seed, *wrt[64];
    int n;
} layer_run;
#define LAYER_FLOPS_MOST 5e11  // beyond, softmax takes minutes, and gigabytes

// As the definition counts them.
static inline double layer_flops(const ttt_mixer_desc *d, int64_t N, int64_t B, bool gradients) {
    return d->mixer->flops(d, N) * (double)B * (gradients ? 3 : 1);
}
static inline void layer_open(layer_run *r, ttt_ctx *c, const ttt_mixer_desc *d, int64_t N,
                              int64_t B) {
    ttt_params p = { 0 };
    *r = (layer_run){ .c = c, .d = *d };
    r->w = ttt_mixer_new(c, &r->d, &p, "layer");
    r->x = ttt_randn(c, TTT_SHAPE(B, N, LAYER_WIDTH));
    r->seed = ttt_randn(c, TTT_SHAPE(B, N, LAYER_WIDTH));
    need_ok(c, r->d.mixer->name);
    if (p.n >= COUNT(r->wrt))
        die("%s has %d parameters, more than this program holds", r->d.mixer->name, p.n);
    for (int i = 0; i < p.n; i++)  // W0 = 0 is declared: a constant
        if (!d->zero_w0 || !(p.item[i].flags & TTT_PARAM_INNER)) r->wrt[r->n++] = p.value[i];
    r->wrt[r->n++] = r->x;
}
static inline void layer_step(const layer_run *r, bool gradients) {
    ttt_tensor *g[64];
    ttt_mark m = ttt_mark_get(r->c);
    bool recording = ttt_set_recording(r->c, gradients);
    ttt_tensor *y = ttt_mixer_forward(r->c, &r->d, r->w, r->x, NULL);
    if (gradients) ttt_vjp(r->c, y, r->seed, r->wrt, r->n, g, TTT_GRAD_FIRST_ORDER);
    ttt_set_recording(r->c, recording);
    ttt_mark_release(r->c, m);
    need_ok(r->c, r->d.mixer->name);
}

/*  REFERENCES: Okabe, Ito: Color universal design. 2008.
    LICENSE: MIT No Attribution (MIT-0), see the end of ttt_tensor.h. */
#endif  // EXAMPLE_H
