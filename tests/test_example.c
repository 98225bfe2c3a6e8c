// Tests of examples/example.h: values of options as text, and charts. The rest of the command line
// is tested by tests/test_examples.sh.
#define TTT_IMPLEMENTATION
#include "../examples/example.h"
#include "ttt_test.h"
#include <float.h>

static const program this_program = { .name = "test_example" };
typedef struct { double rate; } options;

// A file in the folder for temporary ones.
static const char *temporary(const char *name) {
    static char path[256];
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/ttt_test_example_%ld_%s", dir && *dir ? dir : "/tmp",
             (long)getpid(), name);
    return path;
}

// What is in a file, without a look at its end.
static bool has(const char *text, const char *words) { return text && strstr(text, words); }
// What an XML parser would refuse is looked at here as far as charts could write it.
static bool is_svg(const char *text) {
    return text && strncmp(text, "<svg ", 5) == 0 && has(text, "</svg>") && !has(text, "nan") &&
           !has(text, "inf");
}

static void numbers_are_short_texts_that_read_back(void) {
    static const struct { double value; const char *text; } number[] = {
        { 0, "0" }, { 3e-3, "0.003" }, { 0.1, "0.1" }, { 1e-9, "1e-09" }, { -1, "-1" },
        { 0.1234567, "0.1234567" }, { 1.0 / 3, "0.3333333333333333" },
        { 0.1 + 0.2, "0.30000000000000004" } };
    static const option row = OPTION_REAL("--rate", rate, -1, 1, "");
    for (int i = 0; i < COUNT(number); i++) {
        options o = { number[i].value }, back = { 7 };
        char room[32];
        CHECK(strcmp(option_get(&row, &o, room), number[i].text) == 0);
        option_put(&row, &back, room);
        CHECK(back.rate == o.rate);
    }
}

static void a_number_is_in_its_range(void) {
    static const option whole = { "--n", KIND_WHOLE, 0, 1, 100, NULL, "", NULL, NULL };
    static const option real = { "--x", KIND_REAL, 0, 0, 1e9, NULL, "", NULL, NULL };
    static const option any = { "x", KIND_REAL, 0, -HUGE_VAL, HUGE_VAL, NULL, "", NULL, NULL };
    static const char *const bad[] = { "", "0", "101", "1.5", "x", "1x", "nan", "inf", "1e999" };
    for (int i = 0; i < COUNT(bad); i++) CHECK(!number_is_good(&whole, bad[i]));
    CHECK(number_is_good(&whole, "1") && number_is_good(&whole, "1e2"));
    CHECK(number_is_good(&real, "0.5") && number_is_good(&real, "0"));
    CHECK(!number_is_good(&real, "-1e-9") && !number_is_good(&real, "nan"));
    CHECK(number_is_good(&any, "nan") && number_is_good(&any, "-inf"));
    CHECK(!number_is_good(&any, "x") && !number_is_good(&any, ""));
}

static void lines_of_a_log_are_read(void) {
    char good[] = "{\"a\":\"x\\\"y\",\"b\" : 1.5 ,\"c\":null,\"d\":[[1,null],2],\"e\":{\"f\":0}}";
    static const char *const bad[] = { "", "1", "[1]", "{\"a\":1", "{\"a\":1}}", "{\"a\"}",
                                       "{\"a\":nan}", "{\"a\":1} {\"a\":2}", "{\"a\":1,}" };
    ttt_ctx *c = ttt_open(NULL);
    ttt_bundle b;
    CHECK(json_read(c, good, strlen(good), &b) && b.n_notes == 5);
    CHECK(strcmp(note_text(&b, "a"), "x\"y") == 0 && note_number(&b, "b") == 1.5);
    CHECK(strcmp(note_text(&b, "c"), "null") == 0 && !(note_number(&b, "c") == 0));
    CHECK(strncmp(note_text(&b, "d"), "[[1,null],2]", 12) == 0 && *note_text(&b, "z") == 0);
    CHECK(strcmp(note_text(&b, "e"), "{\"f\":0}") == 0 && b.notes[4].key[0] == 'e');
    for (int i = 0; i < COUNT(bad); i++) {
        char text[64];
        strcpy(text, bad[i]);
        CHECK(!json_read(c, text, strlen(text), &b));
    }
    ttt_close(c);
}

static void lists_have_whole_names(void) {
    CHECK(listed("--a,--bc,--d", "--a") && listed("--a,--bc,--d", "--bc"));
    CHECK(listed("--a,--bc,--d", "--d") && listed("--ab,--a", "--a"));
    CHECK(!listed("--a,--bc,--d", "--b") && !listed("--a,--bc,--d", "bc") && !listed("", "--a"));
}

static void line_charts_are_svg(void) {
    ttt_ctx *c = ttt_open(NULL);
    double x[4] = { 0, 10, 20, 30 }, y[4] = { 2.5, NAN, 0.7, 0.1 }, limit[4] = { 3, 2, 1, 0.5 };
    chart_series s = { .name = "loss <&>", .x = x, .y = y, .n = 4, .limit = limit };
    chart_panel p[3] = { { "loss", "step", "nats", &s, 1, false },
                         { "logarithms", "step", "nats", &s, 1, true },
                         { "nothing", "", "", &s, 0, false } };
    line_chart chart = { "title", p, 3, 2 };
    const char *path = temporary("chart.svg");
    CHECK(line_chart_write(c, path, &chart) == TTT_OK);
    char *text = ttt_file_read(c, path, NULL);
    CHECK(is_svg(text) && has(text, "loss &lt;&amp;>") && has(text, "dasharray"));
    CHECK(has(text, "width='840' height='640'"));  // three panels in two columns
    CHECK(line_chart_write(c, "/no/such/folder/chart.svg", &chart) == TTT_ERR_FILE);
    remove(path);
    ttt_close(c);
}

static void axes_have_ticks_at_round_numbers(void) {
    CHECK(tick_step(0, 5) == 1 && tick_step(0, 10) == 2 && tick_step(0, 30) == 5);
    CHECK(fabs(tick_step(-0.1, 0.1) - 0.05) < 1e-12 && tick_step(0, 40) == 10);
    for (int k = 1; k <= 100; k++) {  // however the ends are rounded, both have their tick
        ttt_ctx *c = ttt_open(NULL);
        double x[2] = { 0, 1 }, y[2] = { 0.1 * k, 0.1 * k + 0.5 };
        char low[32], high[32];
        chart_series s = { .x = x, .y = y, .n = 2 };
        chart_panel p = { "", "", "", &s, 1, false };
        line_chart chart = { "", &p, 1, 1 };
        const char *path = temporary("ticks.svg");
        snprintf(low, sizeof low, ">%.4g</text>", y[0]);
        snprintf(high, sizeof high, ">%.4g</text>", y[1]);
        CHECK(line_chart_write(c, path, &chart) == TTT_OK);
        char *text = ttt_file_read(c, path, NULL);
        CHECK(has(text, low) && has(text, high));
        remove(path);
        ttt_close(c);
    }
}

static void bar_charts_are_svg(void) {
    ttt_ctx *c = ttt_open(NULL);
    double v[3][2] = { { 1, 2 }, { 0, NAN }, { 4, -1 } };
    const char *parts[2] = { "first part", "second part" }, *colors[2] = { "#123456", "#654321" };
    chart_bar bar[3] = { { "a<b", "note a", v[0], 0.5, "half" },
                         { "nothing", "", v[1], -1, NULL },
                         { "c", "", v[2], 7, NULL } };
    bar_chart b = { "title", "seconds", "share", parts, colors, 2, bar, 3 };
    const char *path = temporary("bars.svg");
    CHECK(bar_chart_write(c, path, &b) == TTT_OK);
    char *text = ttt_file_read(c, path, NULL);
    CHECK(is_svg(text) && has(text, "a&lt;b") && has(text, "first part"));
    CHECK(has(text, "50 % half") && has(text, "700 %") && !has(text, "width='-"));
    b.n = 0;
    CHECK(bar_chart_write(c, path, &b) == TTT_OK);
    text = ttt_file_read(c, path, NULL);
    CHECK(is_svg(text) && has(text, "title") && !has(text, "second part"));
    CHECK(bar_chart_write(c, "/no/such/folder/bars.svg", &b) == TTT_ERR_FILE);
    remove(path);
    ttt_close(c);
}

// Every pair of these as values of panels, plain and logarithmic, and of bars. A chart must
// end, and be small.
static void charts_of_extreme_numbers_end(void) {
    const double e[] = { 0, -0.0, 1, 1 + DBL_EPSILON, -1, 5e-324, -5e-324, 1e-310, DBL_MIN, 1e-300,
                         1e-150, 1e15, 1e15 + 0.125, 1e299, 9e299, 1e300, DBL_MAX, -DBL_MAX,
                         HUGE_VAL, -HUGE_VAL, NAN };
    const char *path = temporary("extreme.svg"), *color[2] = { color_at(0), color_at(1) };
    for (int i = 0; i < COUNT(e) * COUNT(e) + 1; i++) {
        ttt_ctx *c = ttt_open(NULL);
        double v[2] = { e[i % COUNT(e)], e[i / COUNT(e) % COUNT(e)] }, w[2] = { 1, 2 };
        chart_series s[3] = { { .name = "a", .x = v, .y = w, .n = i < COUNT(e) ? 1 : 2 },
                              { .name = "b", .x = w, .y = v, .n = 2, .limit = v } };
        if (i == COUNT(e) * COUNT(e)) s[0].n = s[1].n = 0;
        chart_panel p[4] = { { "", "", "", s, 2, false }, { "", "", "", s, 2, true },
                             { "", "", "", s + 1, 1, false }, { "", "", "", s, 1, true } };
        line_chart chart = { "", p, 4, 2 };
        size_t size = 0;
        CHECK(line_chart_write(c, path, &chart) == TTT_OK);
        char *text = ttt_file_read(c, path, &size);
        CHECK(is_svg(text) && size < 30000);
        const char *parts[2] = { "", "" };
        chart_bar bar[2] = { { "", "", v, v[0], NULL }, { "", "", v, v[1], NULL } };
        bar_chart bars = { "", "", "", parts, color, 2, bar, 2 };
        CHECK(bar_chart_write(c, path, &bars) == TTT_OK);
        text = ttt_file_read(c, path, &size);
        CHECK(is_svg(text) && size < 5000 && !has(text, "width='-"));
        ttt_close(c);
    }
    remove(path);
}

// Ticks are different numbers, and their labels too.
static void ticks_have_labels_of_their_own(void) {
    const double low[] = { 0, 1, 1e6, 1e15, 123456.7, -1e300 };
    for (int i = 0; i < COUNT(low); i++) {
        ttt_ctx *c = ttt_open(NULL);
        double x[2] = { 0, 1 }, y[2] = { low[i], nextafter(low[i], HUGE_VAL) };
        chart_series s = { .x = x, .y = y, .n = 2 };
        chart_panel p = { "", "", "", &s, 1, false };
        line_chart chart = { "", &p, 1, 1 };
        char label[2][64] = { "", "" };
        int ticks = 0;
        CHECK(line_chart_write(c, temporary("labels.svg"), &chart) == TTT_OK);
        char *text = ttt_file_read(c, temporary("labels.svg"), NULL);
        for (char *at = text; (at = strstr(at, "text-anchor='end' font-size='11' >")); ticks++) {
            at = strchr(at, '>');
            snprintf(label[ticks % 2], 64, "%.*s", (int)strcspn(at, "<"), at);
            CHECK(strcmp(label[0], label[1]) != 0);
        }
        CHECK(ticks >= 2 && ticks <= 12);
        remove(temporary("labels.svg"));
        ttt_close(c);
    }
}

// Names come from folders and files.
static void names_of_any_bytes_are_in_well_formed_xml(void) {
    ttt_ctx *c = ttt_open(NULL);
    static const char title[] = "a\001\033<b>&\xff\xc3 \xc3\xa4 \xc0\xaf \xed\xa0\x80 "
                                "\xef\xbf\xbf \xf0\x9f\x98\x80 \xf4\x90\x80\x80 \xe2\x82";
    line_chart chart = { title, NULL, 0, 1 };
    CHECK(line_chart_write(c, temporary("bytes.svg"), &chart) == TTT_OK);
    CHECK(has(ttt_file_read(c, temporary("bytes.svg"), NULL),
              ">a??&lt;b>&amp;?? \xc3\xa4 ?? ??? ??? \xf0\x9f\x98\x80 ???? ?" "?</text>"));
    remove(temporary("bytes.svg"));
    ttt_close(c);
}

// A locale whose numbers have a comma, if this machine has one, or can make one.
static bool comma_locale(void) {
    static const char *const names[] = { "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE",
                                         "nl_NL.UTF-8", "pt_BR.UTF-8", "es_ES.UTF-8" };
    for (int i = 0; i < COUNT(names); i++)
        if (setlocale(LC_ALL, names[i]) && *localeconv()->decimal_point == ',') return true;
    return false;
}
static void numbers_have_points_in_any_locale(void) {
    if (!comma_locale()) SKIP("no locale whose numbers have a comma");
    char room[32], *argv[] = { "test", NULL };
    snprintf(room, sizeof room, "%.1f", 0.5);
    CHECK(strcmp(room, "0,5") == 0);
    line_charts_are_svg();
    bar_charts_are_svg();
    snprintf(room, sizeof room, "%.1f", 0.5);
    CHECK(strcmp(room, "0,5") == 0);  // the host's locale is as it was
    read_options(1, argv, NULL);
    numbers_are_short_texts_that_read_back();
    setlocale(LC_ALL, "C");
}

static void colors_mean_one_thing(void) {
    char text[8];
    for (int i = 0; ttt_mixer_at(i); i++)
        for (int k = 0; k < i; k++)
            CHECK(strcmp(color_of(ttt_mixer_at(i)->name), color_of(ttt_mixer_at(k)->name)) != 0);
    CHECK(strcmp(color_of("mttt-linear"), color_at(0)) == 0);
    color_of_number(0, text);
    CHECK(strcmp(text, "#ffffff") == 0);
    color_of_number(-1, text);
    CHECK(strcmp(text, "#762a83") == 0);
    color_of_number(1, text);
    CHECK(strcmp(text, "#1b7837") == 0);
    color_of_number(NAN, text);
    CHECK(strcmp(text, "#000000") == 0);
}

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(numbers_are_short_texts_that_read_back),
        T(a_number_is_in_its_range),
        T(lines_of_a_log_are_read),
        T(lists_have_whole_names),
        T(line_charts_are_svg),
        T(axes_have_ticks_at_round_numbers),
        T(bar_charts_are_svg),
        T(charts_of_extreme_numbers_end),
        T(ticks_have_labels_of_their_own),
        T(names_of_any_bytes_are_in_well_formed_xml),
        T(numbers_have_points_in_any_locale),
        T(colors_mean_one_thing),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
