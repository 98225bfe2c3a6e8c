// Tests of examples/example.h: values of options as text, and charts. The rest of the command line
// is tested by tests/test_examples.sh.
#define TTT_IMPLEMENTATION
#include "../examples/example.h"
#include "ttt_test.h"

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
    chart_series s = { "loss <&>", x, y, 4, limit };
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
        chart_series s = { NULL, x, y, 2, NULL };
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
    const char *parts[2] = { "first part", "second part" };
    chart_bar bar[3] = { { "a<b", "note a", v[0], 0.5, "half" },
                         { "nothing", "", v[1], -1, NULL },
                         { "c", "", v[2], 7, NULL } };
    bar_chart b = { "title", "seconds", "share", parts, 2, bar, 3 };
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

int main(int argc, char **argv) {
    static const ttt_test all[] = {
        T(numbers_are_short_texts_that_read_back),
        T(a_number_is_in_its_range),
        T(lines_of_a_log_are_read),
        T(lists_have_whole_names),
        T(line_charts_are_svg),
        T(axes_have_ticks_at_round_numbers),
        T(bar_charts_are_svg),
        { 0 },
    };
    return ttt_test_main(argc, argv, all);
}
