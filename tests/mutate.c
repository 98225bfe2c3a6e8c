// mutate.c - what tests/mutate.sh does not want to do in sh: finds the places in C text that can be
// changed by one token, draws some of them, and runs a program for a limited time.
//
//     mutate draw COUNT SEED FILE...     COUNT groups of candidates, a line for each:
//         group <tab> file <tab> section <tab> line <tab> column <tab> bytes <tab> replacement
//       from the lines that a patch on standard input adds to these files; from all if it is empty
//     mutate limit SECONDS PROGRAM...    runs the program, killed after so long
//
// The places of all files are one row, cut into COUNT groups of the same length, so that the
// mutations spread over the text as evenly as the code does. The candidates of a group are in
// random order: the first that compiles to another program is the mutation.
#define _POSIX_C_SOURCE 200112L
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRIES = 40 };  // candidates of a group that are printed

typedef struct {
    const char *file;
    char section[64];
    int line, column, bytes;
    char replacement[64];
} place;

static place *places;
static int n_places;

// Lines of a file that a patch adds, first .. first + count.
typedef struct {
    char file[64];
    int first, count;
} added;

static added patch[10000];
static int n_added;

// Reads a patch without context: "+++ b/FILE", and for each change "@@ -.. +FIRST[,COUNT] @@".
static void read_patch(void) {
    char line[1000], file[64] = "";
    while (fgets(line, sizeof line, stdin) && n_added < 10000) {
        added *a = &patch[n_added];
        const char *plus = strstr(line, " +");
        if (sscanf(line, "+++ b/%63s", file) == 1 || strncmp(line, "@@", 2) != 0 || !plus) continue;
        a->count = 1;
        sscanf(plus, " +%d,%d", &a->first, &a->count);
        strcpy(a->file, file);
        n_added++;
    }
}

static bool is_drawn_from(const char *file, int line) {
    for (int i = 0; i < n_added; i++)
        if (strcmp(patch[i].file, file) == 0 && line >= patch[i].first &&
            line < patch[i].first + patch[i].count)
            return true;
    return n_added == 0;
}

// Where the reader of a file stands.
typedef struct {
    const char *file;
    char section[64];
    char *text;     // without comments, strings and directives, which are blanked
    int line;
    const char *begin;  // of the line
} reader;

static char *read_all(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return fprintf(stderr, "mutate: %s cannot be read\n", path), exit(2), NULL;
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    char *text = calloc(n + 2, 1);
    rewind(f);
    if (!text || fread(text, 1, n, f) != n) exit(2);
    fclose(f);
    return text;
}

// ---- what is code -------------------------------------------------------------------------------
static void blank(char *from, const char *to) {
    for (; from < to; from++)
        if (*from != '\n') *from = ' ';
}

static char *end_of_line(char *p) {
    while (*p && !(*p == '\n' && p[-1] != '\\')) p++;
    return p;
}

// The end of the comment, string, character or directive that begins at p; p if none does.
static char *end_of_other(char *p, bool line_begins) {
    if (line_begins && *p == '#') return end_of_line(p + 1);
    if (p[0] == '/' && p[1] == '/') return end_of_line(p + 2);
    if (p[0] == '/' && p[1] == '*') return strstr(p + 2, "*/") + 2;
    if (*p != '"' && *p != '\'') return p;
    char *q = p + 1;
    while (*q != *p) q += *q == '\\' ? 2 : 1;
    return q + 1;
}

// Blanks all that is not within the braces of a function.
static void blank_all_but_functions(char *text) {
    int depth = 0;
    bool in_function = false, line_begins = true;
    char before = 0;  // the last character of code
    for (char *p = text; *p; p++) {
        char *end = end_of_other(p, line_begins);
        if (end != p) {
            if (*p == '"') before = '"';
            blank(p, end);
            p = end - 1;
            continue;
        }
        if (*p == '\n') line_begins = true;
        else if (*p != ' ') line_begins = false;
        if (*p == '{' && before != '"' && depth++ == 0) in_function = before == ')';
        if (*p == '}' && depth && --depth == 0) in_function = false;
        if (!isspace((unsigned char)*p)) before = *p;
        if (!in_function) blank(p, p + 1);
    }
}

// ---- what can be changed ------------------------------------------------------------------------
static void add(const reader *r, const char *at, size_t bytes, const char *replacement, int n) {
    place *p = &places[n_places++];
    p->file = r->file;
    strcpy(p->section, r->section);
    p->line = r->line;
    p->column = (int)(at - r->begin);
    p->bytes = (int)bytes;
    snprintf(p->replacement, sizeof p->replacement, "%.*s", n, replacement);
}

// An operator between two blanks: by the house style no pointer and no sign.
static void add_operator(const reader *r, const char *at) {
    static const char *const rows[][2] = {
        { " + ", " - " },   { " - ", " + " },   { " * ", " / " },   { " / ", " * " },
        { " % ", " / " },   { " < ", " <= " },  { " <= ", " < " },  { " > ", " >= " },
        { " >= ", " > " },  { " == ", " != " }, { " != ", " == " }, { " && ", " || " },
        { " || ", " && " }, { " += ", " -= " }, { " -= ", " += " }, { " *= ", " += " },
        { " | ", " & " },   { " & ", " | " },   { " << ", " >> " }, { " >> ", " << " },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strncmp(at, rows[i][0], strlen(rows[i][0])) == 0)
            add(r, at, strlen(rows[i][0]), rows[i][1], 4);
}

static bool in_word(char c) { return isalnum((unsigned char)c) || c == '_' || c == '.'; }

// The first word at p has n bytes.
static size_t word(const char *p) {
    size_t n = 0;
    while (in_word(p[n])) n++;
    return n;
}

// A whole number, one up or, for 1, down; true and false; an exclamation mark; a sign.
static void add_value(const reader *r, const char *at) {
    size_t n = in_word(at[-1]) ? 0 : word(at);
    char *end;
    char more[32];
    long value = strtol(at, &end, 10);
    if (n && isdigit((unsigned char)*at) && end == at + n) {
        snprintf(more, sizeof more, "%ld", value == 1 ? 0 : value + 1);
        add(r, at, n, more, 31);
    }
    if (n == 4 && strncmp(at, "true", 4) == 0) add(r, at, 4, "false", 5);
    if (n == 5 && strncmp(at, "false", 5) == 0) add(r, at, 5, "true", 4);
    if (*at == '!' && at[1] != '=') add(r, at, 1, "", 0);
    if (*at == '-' && in_word(at[1]) && (at[-1] == '(' || at[-2] == '=' || at[-2] == ','))
        add(r, at, 1, "", 0);
}

// Two words as neighbors in brackets, exchanged: "(a, b" becomes "(b, a".
static void add_exchange(const reader *r, const char *at) {
    size_t n = in_word(at[-1]) ? 0 : word(at);
    if (!n || (at[-1] != '(' && at[-1] != ' ') || strncmp(at + n, ", ", 2) != 0) return;
    size_t m = word(at + n + 2);
    char both[64];
    if (!m || (at[n + 2 + m] != ',' && at[n + 2 + m] != ')') || n + m + 3 > sizeof both) return;
    if (n == m && strncmp(at, at + n + 2, n) == 0) return;
    snprintf(both, sizeof both, "%.*s, %.*s", (int)m, at + n + 2, (int)n, at);
    add(r, at, n + m + 2, both, 63);
}

// A line that is one call and nothing else, left out.
static void add_removed_call(const reader *r, const char *line) {
    const char *at = line + strspn(line, " "), *end = at + strcspn(at, "\n");
    size_t n = word(at);
    if (!n || at[n] != '(' || end[-1] != ';' || end[-2] != ')') return;
    int depth = 0;
    for (const char *p = at; p < end; p++) {
        depth += (*p == '(') - (*p == ')');
        if (depth < 0 || (*p == ' ' && depth == 0)) return;
    }
    if (depth == 0) add(r, at, (size_t)(end - at), ";", 1);
}

static void take_section(reader *r, const char *original) {
    if (strncmp(original, "// ---- ", 8) != 0) return;
    const char *name = original + 8;
    if (*name == '[') name = strchr(name, ' ') + 1;
    int n = (int)strcspn(name, ":\n");
    snprintf(r->section, sizeof r->section, "%.*s", n, name);
    for (char *end = r->section + strlen(r->section); end > r->section &&
         (end[-1] == '-' || end[-1] == ' '); ) *--end = 0;
}

static void find_places(const char *file) {
    char *original = read_all(file), *text = read_all(file);
    reader r = { file, "", text, 0, text };
    blank_all_but_functions(text);
    while (*r.begin) {
        r.line++;
        take_section(&r, original + (r.begin - text));
        bool drawn_from = is_drawn_from(file, r.line);
        if (drawn_from) add_removed_call(&r, r.begin);
        const char *p = r.begin;
        for (; *p && *p != '\n'; p++) {
            if (!drawn_from || p - r.begin < 2) continue;  // add_ look behind p, within the line
            add_operator(&r, p);
            add_value(&r, p);
            add_exchange(&r, p);
        }
        r.begin = p + (*p == '\n');
    }
    free(original);
}

// ---- the draw -----------------------------------------------------------------------------------
// splitmix64 [Steele 2014]
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void draw(int count, uint64_t seed) {
    for (int group = 0; group < count; group++) {
        int64_t begin = (int64_t)n_places * group / count;
        int64_t n = (int64_t)n_places * (group + 1) / count - begin;
        for (int i = 0; i < TRIES && n > 0; i++, n--) {
            int64_t at = begin + (int64_t)(next_random(&seed) % (uint64_t)n);
            const place *p = &places[at];
            printf("%d\t%s\t%s\t%d\t%d\t%d\t%s\n", group, p->file, p->section, p->line, p->column,
                   p->bytes, p->replacement);
            places[at] = places[begin + n - 1];
        }
    }
}

int main(int argc, char **argv) {
    if (argc > 4 && strcmp(argv[1], "draw") == 0) {
        places = malloc(400000 * sizeof *places);
        read_patch();
        for (int i = 4; i < argc && places; i++) find_places(argv[i]);
        draw(atoi(argv[2]), strtoull(argv[3], NULL, 10));
        return 0;
    }
    if (argc > 3 && strcmp(argv[1], "limit") == 0) {
        alarm((unsigned)atoi(argv[2]));  // outlives execv
        execv(argv[3], argv + 3);
    }
    fprintf(stderr, "mutate: draw COUNT SEED FILE... or limit SECONDS PROGRAM... expected\n");
    return 2;
}
