// hostile.c - feeds malformed and boundary files to the readers.
//
//     sh tests/run.sh hostile DIR
//
// A line of DIR/expected.tsv is  file <tab> accept|reject <tab> why.  An accepted file must load;
// a rejected one must give an error text that names it. Files of a format that has no reader
// yet are skipped, by name.
#define TTT_IMPLEMENTATION
#include "../ttt_data.h"

// Each reader: NULL if the file loads, else the error text.
static const char *read_safetensors(const char *path, char *text) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_bundle b;
    ttt_result r = ttt_safetensors_read(c, path, &b);
    snprintf(text, 600, "%s", ttt_error(c));
    ttt_close(c);
    return r == TTT_OK ? NULL : text;
}
static const char *read_npy(const char *path, char *text) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_tensor *t;
    ttt_result r = ttt_npy_read(c, path, &t);
    snprintf(text, 600, "%s", ttt_error(c));
    ttt_close(c);
    return r == TTT_OK ? NULL : text;
}
static const char *read_idx(const char *path, char *text) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_idx idx;
    ttt_result r = ttt_idx_read(c, path, &idx);
    snprintf(text, 600, "%s", ttt_error(c));
    ttt_close(c);
    return r == TTT_OK ? NULL : text;
}

static const struct {
    const char *folder;
    const char *(*read)(const char *path, char *text);
} readers[] = { { "safetensors/", read_safetensors },
                { "npy/", read_npy },
                { "idx/", read_idx },
                { "gz/", read_idx } };

enum { PASSED, FAILED, SKIPPED };
static int feed(const char *dir, const char *file, const char *verdict) {
    char path[2000], text[600];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        if (strncmp(file, readers[i].folder, strlen(readers[i].folder)) != 0) continue;
        const char *error = readers[i].read(path, text);
        bool accept = strcmp(verdict, "accept") == 0;
        if (accept && !error) return PASSED;
        if (!accept && error && strstr(error, path)) return PASSED;
        printf("FAIL %s %s: %s\n", verdict, file, error ? error : "it loads");
        return FAILED;
    }
    return SKIPPED;
}

int main(int argc, char **argv) {
    char path[2000], line[2000];
    int count[3] = { 0 };
    if (argc != 2) return puts("usage: hostile DIR"), 2;
    snprintf(path, sizeof path, "%s/expected.tsv", argv[1]);
    FILE *f = fopen(path, "rb");
    if (!f) return printf("%s: cannot be opened\n", path), 2;
    while (fgets(line, sizeof line, f)) {
        char *verdict = strchr(line, '\t');
        if (line[0] == '#' || !verdict) continue;
        *verdict++ = 0;
        verdict[strcspn(verdict, "\t\r\n")] = 0;
        int result = feed(argv[1], line, verdict);
        if (result == SKIPPED) printf("skip %s: no reader for it yet\n", line);
        count[result]++;
    }
    fclose(f);
    printf("%d passed, %d failed, %d skipped\n", count[PASSED], count[FAILED], count[SKIPPED]);
    return count[FAILED] > 0 || count[PASSED] == 0;
}
