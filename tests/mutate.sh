#!/bin/sh
# Tests the tests: changes one token of the headers at a time, and sees whether a suite of that
# section notices. Needs a C compiler (cc, or $CC), sh and awk.
#   sh tests/mutate.sh [COUNT [SEED [COMMIT]]]
# COUNT mutations, 40 unless given; seed 19; with COMMIT only of lines that are new since then.
# A line for each: the file and its line, the text before, the text after, and the test that caught
# it, or SURVIVED. The last line counts. mutate.c says which changes there are and how they are
# drawn. All of it happens in a copy below $TMPDIR; as many run at once as there are processors, or
# $JOBS. Where $TTT_TEST_DATA is set, the suites use it as ever.
#
# Not counted, and another drawn in its place: what does not compile, what compiles to the very same
# program (other platforms' code, say), and the lines in tests/mutate.equivalent, which do the same
# as the original by other means. A suite that has not ended after five minutes has caught it.
cd "$(dirname "$0")/.." || exit 1
count=${1:-40} seed=${2:-19} since=${3:-}
CC=${CC:-cc}
quick="-O1 -DTTT_NO_SIMD -Werror=int-conversion -Werror=incompatible-pointer-types ${CFLAGS:-}"
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)}
headers="ttt_tensor.h ttt_layers.h ttt_data.h ttt_model.h"
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
tab=$(printf '\t')

# The suites of section $2 of header $1; those that find most in the shortest time come first.
suites_of() {
    case "$1 $2" in
    *"ARENAS"* | *"THREADS"* | *"OPENING"*) echo "runtime ops gradients products" ;;
    *"MATRIX PRODUCT") echo "products gradients ops runtime" ;;
    ttt_tensor.h*) echo "gradients ops products runtime" ;;
    *"PARAMETERS" | *"LEARNERS") echo "weights identities mixers golden layers" ;;
    *"PLAIN LAYERS" | *"UNMASKING") echo "identities layers mixers weights golden" ;;
    ttt_layers.h*) echo "identities mixers golden weights layers" ;;
    *"FILES" | *"SAFETENSORS" | *"NPY") echo "files data" ;;
    ttt_data.h*) echo "data files" ;;
    ttt_model.h*) echo "model golden" ;;
    esac
}

# Compiles suite $2 in folder $1 to assembler text.
compile() {
    case $2 in golden) source=golden ;; *) source=test_$2 ;; esac
    (cd "$1" && $CC $quick -S "tests/$source.c" -o "$2.s") 2>/dev/null
}

# Runs suite $2 in folder $1, which was compiled; its output is in $1/output.
run() {
    $CC "$1/$2.s" -o "$1/$2" -lm && (
        cd "$1" && ulimit -v 8000000 2>/dev/null
        find tests/golden -name '*.safetensors' | LC_ALL=C sort | "$tmp/mutate" limit 300 "./$2"
    ) >"$1/output" 2>&1
}

# Line $3 of file $2 in folder $1, without the blanks around it.
line_of() { sed -n "$3{s/^ *//;s/ *\$//;p;}" "$1/$2"; }

# Writes into folder $1 the file $2, with `replacement` for $5 bytes at column $4 of line $3.
mutate() {
    replacement=$replacement LC_ALL=C awk -v line="$3" -v column="$4" -v bytes="$5" '
        NR == line {
            $0 = substr($0, 1, column) ENVIRON["replacement"] substr($0, column + bytes + 1)
        }
        { print }' "$2" >"$1/$2"
}

# Whether the mutation in folder $1 is another program, and not known as equivalent. $2 file, $3
# line, $4 the first of its suites.
counts() {
    grep -Fq "$2$tab$(line_of "$1" "$2" "$3")$tab" tests/mutate.equivalent && return 1
    compile "$1" "$4" && ! cmp -s "$1/$4.s" "$tmp/plain/$4.s"
}

# The verdict about the mutation in folder $1, by the suites after it.
judge() {
    folder=$1
    shift
    for suite; do
        [ -f "$folder/$suite.s" ] || compile "$folder" $suite
        run "$folder" $suite && continue
        status=$?
        test=$(sed -n -e 's/^FAIL //p' -e 's/^\(.*\) FAIL$/\1/p' "$folder/output" | head -n 1)
        echo "caught by $suite: ${test:-ended with status $status}"
        return
    done
    echo SURVIVED
}

# Makes the mutation of group $2 in folder $1 and judges it.
one() {
    grep "^$2$tab" "$tmp/drawn" >"$1/candidates"
    while IFS=$tab read -r group file section line column bytes replacement; do
        suites=$(suites_of "$file" "$section")
        rm -f "$1"/*.s
        mutate "$1" "$file" "$line" "$column" "$bytes"
        if counts "$1" "$file" "$line" "${suites%% *}"; then
            verdict=$(judge "$1" $suites)
            printf '%s:%s\n    - %s\n    + %s\n    %s\n' "$file" "$line" \
                "$(line_of . "$file" "$line")" "$(line_of "$1" "$file" "$line")" "$verdict" \
                >"$tmp/result$2"
            cat "$tmp/result$2"
            cp "$file" "$1/$file"
            return
        fi
        cp "$file" "$1/$file"
    done <"$1/candidates"
    echo "group $2: nothing to change"
}

# Groups $1, $1 + jobs, ... in a folder of their own.
worker() {
    mkdir "$tmp/worker$1"
    cp -R $headers tests "$tmp/worker$1"
    next=$1
    while [ "$next" -lt "$count" ]; do
        one "$tmp/worker$1" "$next"
        next=$((next + jobs))
    done
}

# Before any mutation all suites must pass; their programs are what mutated ones are compared with.
plain() {
    mkdir "$tmp/plain"
    cp -R $headers tests "$tmp/plain"
    for suite in $*; do
        compile "$tmp/plain" $suite && run "$tmp/plain" $suite && continue
        grep -e FAIL "$tmp/plain/output"
        echo "mutate: the suite $suite fails without a mutation"
        exit 1
    done
}

$CC -O1 tests/mutate.c -o "$tmp/mutate" || exit 1
[ -z "$since" ] || git diff -U0 "$since" -- $headers >"$tmp/patch" || exit 1
[ -z "$since" ] || [ -s "$tmp/patch" ] || { echo "mutate: nothing is new since $since"; exit 1; }
touch "$tmp/patch"
"$tmp/mutate" draw "$count" "$seed" $headers <"$tmp/patch" >"$tmp/drawn" || exit 1
plain $(cut -f 2,3 "$tmp/drawn" | sort -u |
    while IFS=$tab read -r file section; do suites_of "$file" "$section"; done |
    tr ' ' '\n' | sort -u)
i=0
while [ $i -lt "$jobs" ]; do
    worker $i &
    i=$((i + 1))
done
wait
cat "$tmp"/result* >"$tmp/results" 2>/dev/null
all=$(grep -c '^ttt_' "$tmp/results") survived=$(grep -c '^    SURVIVED$' "$tmp/results")
echo "$all mutations, $((all - survived)) caught, $survived survived"
