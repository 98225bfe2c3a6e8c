// hostile.c - feeds malformed and boundary files to the readers.
//
//     sh tests/run.sh hostile DIR
//
// A line of DIR/expected.tsv is  file <tab> accept|reject <tab> why.  An accepted file must load;
// a rejected one must give an error text that names it. Neither may take 64 MB more than the file
// has. Files of a format that has no reader yet are skipped, by name.
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

static size_t taken;  // bytes since the last file, also those given back
static void *take(void *p, size_t n) {
    taken += n;
    return realloc(p, n);
}
#define TTT_MALLOC(user, n) ((void)(user), take(NULL, n))
#define TTT_REALLOC(user, p, n) ((void)(user), take(p, n))
#define TTT_FREE(user, p) ((void)(user), free(p))
#define TTT_IMPLEMENTATION
#include "../ttt_model.h"

static void read_safetensors(ttt_ctx *c, const char *path) {
    ttt_bundle b;
    ttt_safetensors_read(c, path, &b);
    for (int64_t i = 0; i < b.n_tensors; i++) ttt_bundle_at(&b, i);
}
static void read_npy(ttt_ctx *c, const char *path) {
    ttt_tensor *t;
    ttt_npy_read(c, path, &t);
}
static void read_idx(ttt_ctx *c, const char *path) {
    ttt_idx idx;
    ttt_idx_read(c, path, &idx);
}

static void read_config(ttt_ctx *c, const char *path) {
    ttt_lm_desc d;
    ttt_lm_config_read(c, path, &d, NULL);
}

static const struct {
    const char *folder;
    void (*read)(ttt_ctx *c, const char *path);
} readers[] = { { "safetensors/", read_safetensors },
                { "npy/", read_npy },
                { "idx/", read_idx },
                { "gz/", read_idx },
                { "config/", read_config } };

static size_t size_of(const char *path) {
    FILE *f = fopen(path, "rb");
    long n = f && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : 0;
    if (f) fclose(f);
    return (size_t)n;
}

enum { PASSED, FAILED, SKIPPED };
static int feed(const char *dir, const char *file, const char *verdict) {
    char path[2000];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        if (strncmp(file, readers[i].folder, strlen(readers[i].folder)) != 0) continue;
        ttt_ctx *c = ttt_open(NULL);
        taken = 0;
        readers[i].read(c, path);
        bool good = strcmp(verdict, "accept") == 0 ? ttt_ok(c) : strstr(ttt_error(c), path) != NULL;
        bool small = taken <= size_of(path) + 64000000;
        if (!good || !small)
            printf("FAIL %s %s: %s, %zu bytes taken\n", verdict, file,
                   ttt_ok(c) ? "it loads" : ttt_error(c), taken);
        ttt_close(c);
        return good && small ? PASSED : FAILED;
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
