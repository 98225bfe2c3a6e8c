#!/bin/sh
# Runs the tests. Needs only a C compiler (cc, or $CC). Uses other compilers and tools where it
# finds them, and counts what cannot run as skipped.
#   sh tests/run.sh                 all groups
#   sh tests/run.sh NAME            the groups whose name contains NAME, or the suite of that name
#   sh tests/run.sh golden DIR      replay the official codes' cases below DIR, a line for each
#   sh tests/run.sh hostile DIR     feed the malformed and boundary files of DIR/expected.tsv
# Tests that need the large test data look for it in $TTT_TEST_DATA. The last line counts the tests.
# As many jobs run at a time as there are CPUs to use; what they say comes in the jobs' order.
#
# The groups, in the order they run:
#   layout       columns, lengths of functions, section marks (test_layout.sh)
#   headers      no diagnostics from any compiler, in C and C++, alone, together and in parts
#   builds       names of the program's own, files renamed and in one, flags that change arithmetic
#                (test_builds.sh); the suites with 32 bits
#   programs     the suites below, with float and with double
#   golden       cases that the official codes computed (golden.c)
#   sanitizers   the suites once more, with memory and undefined behavior checked
#   train        what examples/train.c and train_lm.c promise (test_train.sh, test_train_lm.sh)
#   examples     lessons and programs, from outside (test_examples.sh)
#   web          the page in examples/web (test_web.sh)
#   windows      everything compiled by mingw, and the suites run by wine
# A suite NAME is one file, test_NAME.c, and follows the sections of a header:
#   ttt_tensor.h         runtime, ops, products, gradients; what they share is in tensor_test.h
#   ttt_data.h           files (safetensors, .npy, JSON), data (gzip, IDX, images, batches),
#                        tokenizers
#   ttt_layers.h         layers, mixers, streams, identities, weights
#   ttt_model.h          model, language, audit
#   examples/example.h   example
# A suite is a program of its own, and a word picks the tests that have it in their names:
#   cc -O2 tests/test_ops.c -o ops -lm && ./ops softmax
cd "$(dirname "$0")/.." || exit 1
CC=${CC:-cc}
tensor_suites="runtime ops products gradients"
plain_suites="files data tokenizers weights model language audit example"  # of no kernels
suites="$tensor_suites layers mixers streams identities $plain_suites"
groups="layout headers builds programs golden sanitizers train examples web windows"
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'kill $lanes 2>/dev/null; exit 1' INT TERM
warnings="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror"
passed=0 failed=0 skipped=0 lanes=

have() { command -v "$1" >/dev/null 2>&1; }
count() { passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3)); }
ok() { echo "ok   $1"; count 1 0 0; }
bad() { echo "FAIL $1"; count 0 1 0; }
skip() { echo "skip $1: $2"; count 0 0 1; }

# A piece of work with its own $tmp and counts is a job: a function and its arguments. The script
# goes over the list of jobs several times at once, by `role`: each lane takes the jobs that no
# other has taken before it, and the main shell shows them one after the other.
job() {
    number=$((number + 1))
    $role "$@"
}
take() {
    mkdir "$tmp/$number" 2>/dev/null || return 0  # only one lane can make it
    (
        tmp=$tmp/$number passed=0 failed=0 skipped=0
        "$@"
        echo "$passed $failed $skipped" >"$tmp/counts"
    ) >"$tmp/$number.shown" 2>&1
    mv "$tmp/$number.shown" "$tmp/$number/shown"
}
show() {
    until [ -e "$tmp/$number/shown" ]; do sleep 1; done
    cat "$tmp/$number/shown"
    if [ -e "$tmp/$number/counts" ]; then count $(cat "$tmp/$number/counts")
    else bad "$*: ended without a count"; fi
    rm -r "$tmp/$number"/*  # the folder stays, or a slow lane would take the job again
}
all_jobs() {
    number=0
    for group in $groups; do
        case $group in *"$wanted"*) check_$group ;; esac
    done
}

# Runs the suite named $1: a program $2 with its arguments, whose output ends in "N passed, N
# failed, N skipped". Shows what is not ok. (A golden case has its verdict at the end of its line.)
suite() {
    name=$1
    shift
    "$@" >"$tmp/out" 2>&1
    status=$?
    grep -v -e '^ok ' -e ' pass$' "$tmp/out" | sed '$d' | sed "s|^|$name: |"
    numbers=$(tail -n 1 "$tmp/out" |
        sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p')
    if [ -z "$numbers" ] || { [ $status -ne 0 ] && [ "${numbers#* 0 }" != "$numbers" ]; }; then
        tail -n 5 "$tmp/out" | sed "s|^|$name: |"
        bad "$name: ended with status $status and no count of its tests"
    else
        count $numbers
        echo "$name: $(tail -n 1 "$tmp/out")"
    fi
}

# Compiles the suite $1 by the command $3... and runs it; $2 is added to its name. A test that its
# file's list forgets is a function that nothing uses: an error.
compiled() {
    name=$1$2 file=tests/test_$1.c
    shift 2
    if "$@" -Werror=unused-function "$file" -o "$tmp/$name" -lm 2>"$tmp/err"; then
        suite "$name" "$tmp/$name"
    else
        head -n 5 "$tmp/err"
        bad "$name does not compile"
    fi
}

# Suites that are not about kernels need not wait for those of every instruction set each time.
scalar() { case " $plain_suites " in *" $1 "*) echo -DTTT_NO_SIMD ;; esac; }

check_layout() { job suite layout sh tests/test_layout.sh; }

check_programs() {
    for part in $suites; do
        job compiled $part "" $CC -O2
        job compiled $part _double $CC -O2 -DTTT_REAL=double
    done
}

sanitized() {
    echo 'int main(void) { return 0; }' >"$tmp/empty.c"
    sanitize="$CC -g -O1 -DTTT_POISON -fsanitize=address,undefined -fno-sanitize-recover=all"
    if $sanitize "$tmp/empty.c" -o "$tmp/empty" 2>/dev/null && "$tmp/empty"; then
        compiled $1 _sanitized $sanitize $(scalar $1)
    else
        skip $1_sanitized "$CC has no sanitizers"
    fi
}
check_sanitizers() { for part in $suites; do job sanitized $part; done; }

# The macro of header $1, TTT_$2_IMPLEMENTATION, implies those of the headers below it, whether it
# is defined before the first include or after a plain one. $3 is C code that uses all of them.
check_macro() {
    for first in "" "#include \"$PWD/ttt_$1.h\""; do
        {
            echo "$first"
            printf '#define TTT_%s_IMPLEMENTATION\n#include "%s/ttt_%s.h"\n' "$2" "$PWD" "$1"
            echo "int main(void) { ttt_ctx *c = ttt_open(0); bool good = ttt_ok(c) && $3;"
            echo "ttt_close(c); return !good; }"
        } >"$tmp/macro.c"
        name="TTT_$2_IMPLEMENTATION${first:+ behind a plain include}"
        $CC -DTTT_NO_SIMD "$tmp/macro.c" -o "$tmp/macro" -lm 2>"$tmp/err"
        if [ ! -s "$tmp/err" ] && "$tmp/macro"; then ok "$name"
        else head -n 5 "$tmp/err"; bad "$name"; fi
    done
}

# The compiler $1 has nothing to say about header $2 with the options $3.
check_header() {
    case $1 in *++*) ext=cc ;; *) ext=c ;; esac
    if $1 $warnings $3 -fsyntax-only "$tmp/$2.$ext" 2>"$tmp/err"; then ok "ttt_$2.h with $1, $3"
    else head -n 5 "$tmp/err"; bad "ttt_$2.h with $1, $3"; fi
}

# All headers go into two files of one program.
check_linking() {
    for h in data model layers tensor; do echo "#include \"$PWD/ttt_$h.h\""; done >"$tmp/all.h"
    {
        printf '#define TTT_IMPLEMENTATION\n#include "all.h"\n'
        echo 'int two(void); int main(void) { return two(); }'
    } >"$tmp/one.c"
    {
        printf '#include "all.h"\nint two(void);\n'
        echo 'int two(void) { return ttt_shape_size(TTT_SHAPE(1, 0)) != 0; }'
    } >"$tmp/two.c"
    name="two files of one program"
    if $CC "$tmp/one.c" "$tmp/two.c" -o "$tmp/linked" -lm 2>"$tmp/err" && "$tmp/linked"; then
        ok "$name"
    else
        head -n 5 "$tmp/err"
        bad "$name"
    fi
}

# Some warnings need the optimizer.
check_optimized() {
    printf '#define TTT_IMPLEMENTATION\n#include "%s/ttt_model.h"\n' "$PWD" >"$tmp/model.c"
    if $CC $warnings -O3 -c "$tmp/model.c" -o "$tmp/model.o" 2>"$tmp/err"; then
        ok "nothing to say at -O3"
    else
        head -n 5 "$tmp/err"
        bad "nothing to say at -O3"
    fi
}

# The compiler $1 has nothing to say about all headers, included twice; nor, if $2 is "parts", about
# each alone and about any part that can be left out.
headers_with() {
    if ! have "${1%% *}"; then skip "headers with $1" "not installed"; return; fi
    for h in tensor layers model data; do
        {
            echo '#define TTT_IMPLEMENTATION'
            printf '#include "%s/ttt_%s.h"\n' "$PWD" $h "$PWD" $h
        } >"$tmp/$h.c"
        cp "$tmp/$h.c" "$tmp/$h.cc"
    done
    for real in float double; do check_header "$1" model -DTTT_REAL=$real; done
    [ "$2" = parts ] || return 0
    for h in tensor layers data; do check_header "$1" $h; done
    check_header "$1" model -DTTT_NO_FUSED
    for h in data model; do
        for left in "" -DTTT_NO_STDIO; do
            for out in "" -DTTT_NO_IMAGES; do
                check_header "$1" $h "$left $out -DTTT_NO_TOKENIZERS"
                if [ "$left$out" ]; then check_header "$1" $h "$left $out"; fi
            done
        done
    done
}

# Headers give no diagnostics, included twice and in parts; the suites of ttt_tensor.h run with
# other compilers and libraries.
check_headers() {
    for try in "gcc -std=c99" "gcc -std=c11" "clang -std=c99" "clang -std=c11" \
        "g++ -std=c++11" "g++ -std=c++17" "clang++ -std=c++11" "clang++ -std=c++17" \
        "gcc-11 -std=c99" "g++-11 -std=c++17"; do
        case $try in "gcc -std=c99" | "clang++ -std=c++11") parts=parts ;; *) parts= ;; esac
        job headers_with "$try" $parts
    done
    job check_linking
    job check_optimized
    image='ttt_images_draw(c, 1, 0, 1, &(ttt_images){ 0 }) == TTT_OK'
    job check_macro tensor TENSOR 'ttt_isa(c)'
    job check_macro layers LAYERS 'ttt_mixer_at(0)'
    job check_macro data DATA "$image"
    model='ttt_schedule(&(ttt_optimizer_desc){ 0 }, 0) > 0'
    job check_macro model MODEL "ttt_mixer_at(0) && $image && $model"
    for part in $tensor_suites; do
        job compiled_by tcc $part _tcc tcc
        job compiled_by musl-gcc $part _musl musl-gcc -O2 -static
    done
}
# The same as compiled where the program $1 is installed.
compiled_by() {
    if have $1; then shift; compiled "$@"
    else skip $2$3 "$1 is not installed"; fi
}

# The few cases in tests/golden (golden.c says where they come from), and the whole set where it is.
files_below() { find -H "$1" -type f -name '*.safetensors' | LC_ALL=C sort; }
replay() { files_below "$1" | "$tmp/golden"; }
check_golden() { job golden; }
golden() {
    large=${TTT_TEST_DATA:+$TTT_TEST_DATA/golden}
    if ! $CC -O2 tests/golden.c -o "$tmp/golden" -lm 2>"$tmp/err"; then
        head -n 5 "$tmp/err"
        bad "golden does not compile"
        return
    fi
    suite golden replay tests/golden
    if [ -d "$large" ]; then suite golden_large replay "$large"
    else skip golden_large "its cases lie in \$TTT_TEST_DATA/golden, which is not there"; fi
}

check_train() {
    job suite train sh tests/test_train.sh "$CC"
    job suite train_lm sh tests/test_train_lm.sh "$CC"
}

check_examples() { job suite examples sh tests/test_examples.sh "$CC"; }

check_web() { job suite web sh tests/test_web.sh; }

check_builds() {
    for part in names forms; do job suite builds_$part sh tests/test_builds.sh $part "$CC"; done
    for try in "$CC" gcc-11 clang; do
        job suite "arithmetic of $try" sh tests/test_builds.sh arithmetic "$try"
    done
    for part in $suites; do job on_32_bits $part "" -msse2 -mfpmath=sse; done
    for part in ops gradients; do job on_32_bits $part _x87 -mfpmath=387; done
}
# Runs the suite $1 with pointers of 32 bits; $2 is added to its name, $3... are options. (x87 has
# more digits than a variable, so the same formula need not have the same bits everywhere.)
on_32_bits() {
    narrow="$CC -m32 -O1 -DTTT_NO_SIMD -idirafter /usr/include/$($CC -print-multiarch 2>/dev/null)"
    echo 'int main(void) { return sizeof(void *) != 4; }' >"$tmp/empty.c"
    if $narrow "$tmp/empty.c" -o "$tmp/empty" 2>/dev/null && "$tmp/empty"; then
        part=$1 also=$2
        shift 2
        compiled $part _32_bits$also $narrow "$@"
    else
        skip $1_32_bits$2 "$CC does not compile for 32 bits"
    fi
}

# Wine keeps its registry in a folder that all jobs share: making one takes ten seconds.
mingw=x86_64-w64-mingw32-gcc wine=/usr/lib/wine/wine64
check_windows() {
    for part in $suites; do job on_windows $part; done
    for file in tests/golden.c tests/hostile.c tests/bits.c examples/*.c; do
        job mingw_compiles $file
    done
}
on_windows() {
    if ! have $mingw || ! have $wine; then skip $1_windows "no mingw or no wine"; return; fi
    WINEDEBUG=-all WINEPREFIX=${tmp%/*}/wine
    export WINEDEBUG WINEPREFIX
    if $mingw -O1 -static $(scalar $1) tests/test_$1.c -o "$tmp/$1.exe" -lm 2>"$tmp/err"; then
        suite $1_windows wine_run "$tmp/$1.exe"
    else
        head -n 5 "$tmp/err"
        bad "$1_windows does not compile"
    fi
}
# Text that a program writes on Windows has a carriage return at the end of each line.
wine_run() {
    $wine "$1" >"$1.txt" 2>/dev/null
    code=$?
    tr -d '\r' <"$1.txt"
    return $code
}
mingw_compiles() {
    if ! have $mingw; then skip "$1 with mingw" "not installed"; return; fi
    if $mingw -O0 -DTTT_NO_SIMD "$1" -o "$tmp/a.exe" -lm 2>"$tmp/err"; then ok "$1 with mingw"
    else head -n 5 "$tmp/err"; bad "$1 with mingw"; fi
}

case "${1:-} $#" in
"golden 2" | hostile\ *)
    [ -d "${2:-}" ] || { echo "usage: sh tests/run.sh $1 DIR"; exit 2; }
    $CC -O2 "tests/$1.c" -o "$tmp/$1" -lm || exit 1
    files_below "$2" | "$tmp/$1" "$2"
    exit
    ;;
esac
for part in $suites; do
    if [ "${1:-}" = $part ]; then suites=$part groups="programs sanitizers"; set --; fi
done
wanted=${1:-}
cpus=$(nproc 2>/dev/null || echo 1)
while [ "$cpus" -gt 0 ]; do
    (role=take; all_jobs) &
    lanes="$lanes $!"
    cpus=$((cpus - 1))
done
role=show
all_jobs
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
