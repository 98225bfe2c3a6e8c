// ttt_test.h - the whole test harness: named tests, checks of arrays, skips that are counted, and a
// filter.
//
//     static void two_and_two(void) { CHECK(2 + 2 == 4); }
//     int main(int argc, char **argv) {
//         static const ttt_test all[] = { T(two_and_two), { 0 } };
//         return ttt_test_main(argc, argv, all);
//     }
//
// `./test_x word` runs the tests whose name contains `word`. The last line of output counts;
// tests/run.sh adds these lines up.
#ifndef TTT_TEST_H
#define TTT_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    void (*run)(void);
} ttt_test;

#define T(fn) { #fn, fn }
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
#define DOUBLE (sizeof(ttt_real) == 8)
#define REAL(x) ((ttt_real)(x))

static int ttt_test_fails;            // checks that failed so far
static const char *ttt_test_skipped;  // reason, once the running test has called SKIP

#define CHECK(cond)                                                            \
    do {                                                                       \
        if (!(cond)) {                                                         \
            ttt_test_fails++;                                                  \
            printf("  %s:%d: %s\n", __FILE__, __LINE__, #cond);                \
        }                                                                      \
    } while (0)

// Leaves the running test and counts it as skipped. CHECKs before it still count.
#define SKIP(reason)                                                           \
    do {                                                                       \
        ttt_test_skipped = (reason);                                           \
        return;                                                                \
    } while (0)

// |a[i] - b[i]| <= abs + rel |b[i]| for every element; a NaN fails. Reports the worst element, not
// the first.
#define CHECK_CLOSE(a, b, n, rel, abs) TTT_TEST_CLOSE(a, b, n, rel, abs)
#define TTT_TEST_CLOSE(a, b, n, rel, abs)                                      \
    do {                                                                       \
        double ttt_over = 0;                                                   \
        long ttt_worst = -1;                                                   \
        for (long ttt_i = 0; ttt_i < (long)(n); ttt_i++) {                     \
            double ttt_b = (double)(b)[ttt_i];                                 \
            double ttt_e = fabs((double)(a)[ttt_i] - ttt_b);                   \
            ttt_e -= (abs) + (rel) * fabs(ttt_b);                              \
            if (!(ttt_e <= 0) && (ttt_worst < 0 || !(ttt_e <= ttt_over))) {    \
                ttt_worst = ttt_i;                                             \
                ttt_over = ttt_e;                                              \
            }                                                                  \
        }                                                                      \
        if (ttt_worst >= 0) {                                                  \
            ttt_test_fails++;                                                  \
            printf("  %s:%d: %s ~ %s: [%ld] %.9g against %.9g\n", __FILE__,    \
                   __LINE__, #a, #b, ttt_worst, (double)(a)[ttt_worst],        \
                   (double)(b)[ttt_worst]);                                    \
        }                                                                      \
    } while (0)

// The larger of two errors, or NaN if one of them is NaN; fmax would drop it.
static inline double ttt_test_worse(double a, double b) { return a >= b || a != a ? a : b; }

// The folder of the large test data, or NULL; tests that need it then call SKIP.
static inline const char *ttt_test_data(void) {
    const char *dir = getenv("TTT_TEST_DATA");
    return dir && *dir ? dir : NULL;
}

static inline int ttt_test_main(int argc, char **argv, const ttt_test *t) {
    int passed = 0, failed = 0, skipped = 0;
    for (; t->name; t++) {
        if (argc > 1 && !strstr(t->name, argv[1])) continue;
        int before = ttt_test_fails;
        ttt_test_skipped = NULL;
        t->run();
        if (ttt_test_fails != before) {
            failed++;
            printf("FAIL %s\n", t->name);
        } else if (ttt_test_skipped) {
            skipped++;
            printf("skip %s: %s\n", t->name, ttt_test_skipped);
        } else {
            passed++;
            printf("ok   %s\n", t->name);
        }
        fflush(stdout);
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed != 0 || passed + skipped == 0;
}

#endif
