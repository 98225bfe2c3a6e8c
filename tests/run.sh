#!/bin/sh
# Runs the tests. Needs only a C compiler (cc, or $CC); other compilers and tools are used where found,
# and what cannot run is counted as skipped.
#   sh tests/run.sh                 everything
#   sh tests/run.sh NAME            the suites whose name contains NAME
#   sh tests/run.sh golden DIR      replay the cases computed by the official codes below DIR, a line for each
#   sh tests/run.sh hostile DIR     feed the malformed and boundary files listed in DIR/expected.tsv
# Tests that need the large test data look in $TTT_TEST_DATA. The last line counts.
cd "$(dirname "$0")/.." || exit 1
CC=${CC:-cc}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
warnings="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror"
passed=0 failed=0 skipped=0

have() { command -v "$1" >/dev/null 2>&1; }
count() { passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3)); }
ok() { echo "ok   $1"; count 1 0 0; }
bad() { echo "FAIL $1"; count 0 1 0; }
skip() { echo "skip $1: $2"; count 0 0 1; }

# A program or script that ends in "N passed, N failed, N skipped". Shows what is not ok (the replay of
# golden cases has the verdict at the end of its lines).
suite() {
    name=$1
    shift
    "$@" >"$tmp/out" 2>&1
    status=$?
    grep -v -e '^ok ' -e ' pass$' "$tmp/out" | sed '$d' | sed "s|^|$name: |"
    numbers=$(tail -n 1 "$tmp/out" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p')
    if [ -z "$numbers" ] || { [ $status -ne 0 ] && [ "${numbers#* 0 }" != "$numbers" ]; }; then
        tail -n 5 "$tmp/out" | sed "s|^|$name: |"
        bad "$name: ended with status $status and no count of its tests"
    else
        count $numbers
        echo "$name: $(tail -n 1 "$tmp/out")"
    fi
}

# Compiles $2 with the rest of the arguments to $tmp/$1 and runs it as a suite.
compiled() {
    name=$1 file=$2
    shift 2
    if "$@" "$file" -o "$tmp/$name" -lm 2>"$tmp/err"; then suite "$name" "$tmp/$name"
    else head -n 5 "$tmp/err"; bad "$name does not compile"; fi
}

check_programs() {
    for part in data tensor files layers mixers identities weights model example; do
        compiled "$part" "tests/test_$part.c" $CC -O2
        compiled "${part}_double" "tests/test_$part.c" $CC -O2 -DTTT_REAL=double
    done
}

check_sanitizers() {
    echo 'int main(void) { return 0; }' >"$tmp/empty.c"
    if ! $CC -fsanitize=address,undefined "$tmp/empty.c" -o "$tmp/empty" 2>/dev/null || ! "$tmp/empty"; then
        skip sanitizers "$CC has none"
        return
    fi
    for part in data tensor files layers mixers identities weights model example; do
        compiled "${part}_sanitized" "tests/test_$part.c" $CC -g -O1 -DTTT_POISON -fsanitize=address,undefined -fno-sanitize-recover=all
    done
}

# The macro of one header, defined before its first include or behind a plain one, implies those of
# the headers below it: what $3, C code, uses is there.
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

# Headers give no diagnostics, alone and together, in C and C++, included twice, in two files, and
# in parts.
check_headers() {
    for h in tensor layers model data; do
        printf '#define TTT_IMPLEMENTATION\n#include "%s/ttt_%s.h"\n#include "%s/ttt_%s.h"\n' "$PWD" $h "$PWD" $h >"$tmp/$h.c"
        cp "$tmp/$h.c" "$tmp/$h.cc"
    done
    for h in data model layers tensor; do echo "#include \"$PWD/ttt_$h.h\""; done >"$tmp/all.h"
    { echo '#define TTT_IMPLEMENTATION'; cat "$tmp/all.h"; echo 'int two(void); int main(void) { return two(); }'; } >"$tmp/one.c"
    { cat "$tmp/all.h"; echo 'int two(void); int two(void) { return ttt_shape_size(TTT_SHAPE(1, 0)) != 0; }'; } >"$tmp/two.c"
    for try in "gcc -std=c99" "gcc -std=c11" "clang -std=c99" "clang -std=c11" "g++ -std=c++11" "g++ -std=c++17" "clang++ -std=c++11" "clang++ -std=c++17"; do
        if ! have "${try%% *}"; then skip "headers with $try" "not installed"; continue; fi
        case $try in *++*) ext=cc ;; *) ext=c ;; esac
        for h in tensor layers model data; do
            for real in float double; do
                if $try $warnings -DTTT_REAL=$real -fsyntax-only "$tmp/$h.$ext" 2>"$tmp/err"; then ok "ttt_$h.h with $try, $real"
                else head -n 5 "$tmp/err"; bad "ttt_$h.h with $try, $real"; fi
            done
        done
        for h in data model; do
            for parts in -DTTT_NO_STDIO -DTTT_NO_IMAGES "-DTTT_NO_STDIO -DTTT_NO_IMAGES"; do
                name="ttt_$h.h with $try, $parts"
                if $try $warnings $parts -fsyntax-only "$tmp/$h.$ext" 2>"$tmp/err"; then ok "$name"
                else head -n 5 "$tmp/err"; bad "$name"; fi
            done
        done
    done
    if $CC "$tmp/one.c" "$tmp/two.c" -o "$tmp/linked" -lm 2>"$tmp/err" && "$tmp/linked"; then ok "two files of one program"
    else head -n 5 "$tmp/err"; bad "two files of one program"; fi
    image='ttt_images_draw(c, 1, 0, 1, &(ttt_images){ 0 }) == TTT_OK'
    check_macro tensor TENSOR 'ttt_isa(c)'
    check_macro layers LAYERS 'ttt_mixer_at(0)'
    check_macro data DATA "$image"
    model='ttt_schedule(&(ttt_optimizer_desc){ 0 }, 0) > 0'
    check_macro model MODEL "ttt_mixer_at(0) && $image && $model"
    if have tcc; then compiled tensor_tcc tests/test_tensor.c tcc; else skip tensor_tcc "tcc is not installed"; fi
    if have musl-gcc; then compiled tensor_musl tests/test_tensor.c musl-gcc -O2 -static; else skip tensor_musl "musl-gcc is not installed"; fi
}

# The few cases in tests/golden (golden.c says where they come from), and the whole set where it is.
files_below() { find -H "$1" -type f -name '*.safetensors' | LC_ALL=C sort; }
replay() { files_below "$1" | "$tmp/golden"; }
check_golden() {
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

check_train() { suite train sh tests/test_train.sh "$CC"; }

check_examples() { suite examples sh tests/test_examples.sh "$CC"; }

check_web() { suite web sh tests/test_web.sh; }

case "${1:-} $#" in
"golden 2" | hostile\ *)
    [ -d "${2:-}" ] || { echo "usage: sh tests/run.sh $1 DIR"; exit 2; }
    $CC -O2 "tests/$1.c" -o "$tmp/$1" -lm || exit 1
    files_below "$2" | "$tmp/$1" "$2"
    exit
    ;;
esac
for check in headers programs golden sanitizers train examples web; do
    case $check in *"${1:-}"*) check_$check ;; esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
