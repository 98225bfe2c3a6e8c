#!/bin/sh
# Tests that the headers build in every way that a program may ask for, and say so where they cannot.
#   sh tests/test_builds.sh PART [CC]
# PART is names (macros of the program), forms (renamed, one file, static, options that contradict
# each other) or arithmetic (flags like -ffast-math change no bit).
cd "$(dirname "$0")/.." || exit 1
CC=${2:-cc}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0

report() {  # report STATUS NAME
    if [ "$1" -eq 0 ]; then passed=$((passed + 1)); echo "ok   $2"
    else head -n 5 "$tmp/err"; failed=$((failed + 1)); echo "FAIL $2"; fi
}
skip() { skipped=$((skipped + 1)); echo "skip $1: $2"; }
have() { command -v "$1" >/dev/null 2>&1; }
# builds NAME COMMAND...: the compiler has nothing to say, and the program ends with 0.
builds() {
    name=$1
    shift
    "$@" -o "$tmp/program" -lm >"$tmp/err" 2>&1 && [ ! -s "$tmp/err" ] && "$tmp/program"
    report $? "$name"
}
# refused NAME WORDS COMMAND...: no program, and one of the messages has the words.
refused() {
    name=$1 words=$2
    shift 2
    ! "$@" -o "$tmp/program" -lm >"$tmp/err" 2>&1 && grep -q -e "$words" "$tmp/err"
    report $? "$name"
}
# A program that opens and closes a context; the arguments are the lines before.
program() {
    printf '%s\n' "$@" "int main(void) {" "    ttt_ctx *ctx = ttt_open(NULL);" \
        "    bool good = ttt_ok(ctx);" "    ttt_close(ctx);" "    return !good;" "}"
}
quick="-O1 -DTTT_NO_SIMD"

# -- every word of [16] of ttt_tensor.h, and others, may be a macro of the program, of either kind:
# the headers compile, and it is still there behind them
words="$(sed 's/TTT__DO(/\n&/g' ttt_tensor.h | sed -n 's/^TTT__DO(\([A-Za-z0-9_]*\)).*/\1/p')
interface OPTIONAL CONST VOID PI EPS LEN SIZE DIM TYPE"
keywords="auto case char do else enum for goto if int long void bool true asm new this try"
system="assert errno math pthread stdarg stdio stdlib string sys/stat sys/time unistd"
check_names() {
    for kind in object function; do
        for at in headers implementation; do
            {
                # the system's headers want log, index, select and the like for themselves
                for header in $system; do echo "#include <$header.h>"; done
                [ $at = headers ] || printf '#include "%s/ttt_model.h"\n' "$PWD"
                [ $kind = object ] && args= || args='(first)'
                for word in $words; do echo "#define $word$args 0x7ab5"; done
                printf '#define TTT_IMPLEMENTATION\n#include "%s/ttt_model.h"\n' "$PWD"
                [ $kind = object ] || args='(1)'
                for word in $words; do
                    echo "#if !defined($word) || $word$args != 0x7ab5"
                    printf '#error "the macro %s is lost"\n#endif\n#undef %s\n' $word $word
                done
                program
            } >"$tmp/names.c"
            cp "$tmp/names.c" "$tmp/names.cc"
            builds "macros like $kind before the $at, C" $CC $quick "$tmp/names.c"
            have c++ && builds "macros like $kind before the $at, C++" c++ $quick "$tmp/names.cc"
        done
    done
    program '#include <complex.h>' '#include <tgmath.h>' '#define TTT_IMPLEMENTATION' \
        "#include \"$PWD/ttt_model.h\"" >"$tmp/complex.c"
    builds "after complex.h and tgmath.h" $CC $quick "$tmp/complex.c"
    for word in $(sed -n 's/^ *# *define \([A-Za-z0-9_]*\).*/\1/p' ttt_*.h | sort -u); do
        case $word in TTT_* | ttt__* | WIN32_LEAN_AND_MEAN | NOMINMAX) continue ;; esac
        grep -q "^#undef $word\$" ttt_tensor.h && grep -q "TTT__DO($word)" ttt_tensor.h && continue
        echo "$word"
    done >"$tmp/err"
    [ ! -s "$tmp/err" ]
    report $? "macros of the headers' own are all among the names of [16]"
    # what the preprocessor leaves of the headers' own lines, less what the system's lines have too
    printf '#define TTT_IMPLEMENTATION\n#include "%s/ttt_model.h"\n' "$PWD" >"$tmp/own.c"
    $CC -E -DTTT_NO_SIMD "$tmp/own.c" | awk -v tmp="$tmp" -v keywords="$keywords" '
        BEGIN { print "\n" >tmp "/its"; n = split(keywords, word, " ")
                for (i = 1; i <= n; i++) print word[i] >tmp "/its" }
        /^#pragma/ { next }
        /^# [0-9]+ "/ { to = $3 ~ /ttt_[a-z]*[.]h"/ ? tmp "/own" : tmp "/its"; next }
        { gsub(/\047\\?"\047/, ""); gsub(/"([^"\\]|\\.)*"/, "")
          gsub(/[^A-Za-z0-9_]+/, "\n"); print >to }'
    for set in own its; do grep -x '[A-Za-z_][A-Za-z0-9_]*' "$tmp/$set" | sort -u >"$tmp/$set.u"; done
    comm -23 "$tmp/own.u" "$tmp/its.u" | grep -x -e '[A-Za-z0-9]\{1,4\}' -e '[A-Z0-9_]*' |
        while read -r word; do
            case $word in TTT_*) continue ;; esac
            grep -q "TTT__DO($word)" ttt_tensor.h || echo "$word"
        done >"$tmp/err"
    [ -s "$tmp/own.u" ] && [ ! -s "$tmp/err" ]
    report $? "the headers' short names and those in capitals are all among the names of [16]"
    sed -n 's/.*/&/; s/TTT__DO(\([A-Za-z0-9_]*\))/\n\1\n/gp' ttt_tensor.h |
        grep -x '[A-Za-z0-9_]*' | sort >"$tmp/hidden"
    for word in $(cat "$tmp/hidden"); do grep -qx "#undef $word" ttt_tensor.h || echo "$word"
    done >"$tmp/err"
    [ -s "$tmp/hidden" ] && [ ! -s "$tmp/err" ]
    report $? "what [16] pushes it also takes away"
}

# -- names of files, parts, and two files of one program
check_forms() {
    mkdir "$tmp/sub"
    sh tests/one_file.sh "$tmp/sub/mine.h"
    cat ttt_tensor.h ttt_layers.h ttt_data.h ttt_model.h >"$tmp/sub/pasted.h"
    cp ttt_tensor.h "$tmp/sub/renamed.h"
    for header in mine pasted renamed; do
        program "#include \"sub/$header.h\"" '#define TTT_IMPLEMENTATION' \
            "#include \"sub/$header.h\"" >"$tmp/form.c"
        builds "$header.h, in a folder" sh -c 'cd "$1" && shift && "$@"' sh "$tmp" $CC -O1 form.c
    done
    program '#define TTT_MODEL_IMPLEMENTATION' '#include "sub/mine.h"' >"$tmp/form.c"
    builds "mine.h, TTT_MODEL_IMPLEMENTATION" $CC $quick "$tmp/form.c"
    if have tcc; then builds "mine.h, tcc" tcc "$tmp/form.c"
    else skip "mine.h, tcc" "not installed"; fi
    cp ttt_layers.h "$tmp/sub/above.h"
    cp ttt_tensor.h "$tmp/sub"
    program '#define TTT_IMPLEMENTATION' '#include "sub/above.h"' >"$tmp/form.c"
    builds "ttt_layers.h under another name" $CC -O1 "$tmp/form.c"

    printf '#define TTT_IMPLEMENTATION\n#include "%s/ttt_model.h"\n' "$PWD" >"$tmp/lib.h"
    program '#include "lib.h"' 'const void *other(void);' \
        'const void *mine(void) { return &ttt_rule_adam; }' |
        sed 's/!good/!(good \&\& other() != mine())/' >"$tmp/one.c"
    printf '#include "lib.h"\nconst void *other(void);\nconst void *other(void) {
        return ttt_mixer_at(0) ? &ttt_rule_adam : 0;\n}\n' >"$tmp/two.c"
    sed 's/^const void \*other(void);$/extern &/' "$tmp/one.c" >"$tmp/one.cc"
    cp "$tmp/two.c" "$tmp/two.cc"
    builds "TTT_STATIC in two files" $CC $quick -Wall -Wextra -DTTT_STATIC "$tmp/one.c" "$tmp/two.c"
    have c++ && builds "TTT_STATIC in two files, C++" \
        c++ $quick -Wall -Wextra -DTTT_STATIC "$tmp/one.cc" "$tmp/two.cc"

    program '#include "lib.h"' >"$tmp/one.c"
    all="-DTTT_MALLOC(user,n)=malloc(n) -DTTT_REALLOC(user,p,n)=realloc(p,n) -DTTT_FREE(user,p)=free(p)"
    builds "all of the allocator" $CC $quick "-include" stdlib.h $all "$tmp/one.c"
    for left in MALLOC REALLOC FREE; do
        refused "the allocator without TTT_$left" "belong together" $CC $quick -include stdlib.h \
            $(printf '%s\n' $all | grep -v "TTT_$left") "$tmp/one.c"
    done
    refused "TTT_REAL is neither float nor double" "float or double" $CC -DTTT_REAL=int "$tmp/one.c"
    program "#include \"$PWD/ttt_tensor.h\"" '#undef TTT_REAL' '#define TTT_REAL double' \
        "#include \"$PWD/ttt_layers.h\"" >"$tmp/mixed.c"
    refused "headers with different TTT_REAL" "TTT_REAL is not what it was" $CC -c "$tmp/mixed.c"
    printf '#include "%s/ttt_tensor.h"\nint two(void);\nint two(void) { return 0; }\n' "$PWD" \
        >"$tmp/two.c"
    for real in float double; do
        $CC -O2 -DTTT_REAL=$real -c "$tmp/two.c" -o "$tmp/two_$real.o"
    done
    builds "files with one TTT_REAL" $CC $quick -DTTT_REAL=double "$tmp/one.c" "$tmp/two_double.o"
    refused "files with different TTT_REAL" ttt_real_is_float $CC $quick -DTTT_REAL=double \
        "$tmp/one.c" "$tmp/two_float.o"
    # a system without pthread.h: all other headers of this one
    mkdir "$tmp/system"
    for header in /usr/include/*; do
        case $header in */pthread.h) ;; *) ln -s "$header" "$tmp/system" ;; esac
    done
    own=$($CC -print-file-name=include) near=/usr/include/$($CC -print-multiarch 2>/dev/null)
    if [ -d "$own" ] && [ -d "$near" ]; then
        builds "no pthread.h" $CC $quick -nostdinc -isystem "$own" -isystem "$tmp/system" \
            -isystem "$near" "$tmp/one.c"
    else
        skip "no pthread.h" "the compiler does not tell where its headers lie"
    fi
}

# -- the same bits with flags that let a compiler change arithmetic: float by all instruction sets,
# and double
same_bits() {  # same_bits TYPE FLAGS...
    real=-DTTT_REAL=$1 expected=$tmp/$1
    shift
    [ -e "$expected" ] || { $CC -O2 $real tests/bits.c -o "$tmp/bits" -lm && "$tmp/bits" >"$expected"; }
    # the last -O counts, and -Ofast is one
    $CC -O2 $real "$@" tests/bits.c -o "$tmp/bits" -lm 2>"$tmp/err" && "$tmp/bits" >"$tmp/found" &&
        diff "$expected" "$tmp/found" >"$tmp/err"
    report $? "the same bits with $CC $real $*"
}
check_arithmetic() {
    if ! have $CC; then skip "the same bits with $CC" "not installed"; return; fi
    for flags in -Ofast -ffinite-math-only -funsafe-math-optimizations \
        "-fassociative-math -fno-signed-zeros -fno-trapping-math"; do
        same_bits float $flags
    done
    case $CC in
    clang*) refused "double with $CC -Ofast" "leave out -ffast-math" \
        $CC -DTTT_REAL=double -Ofast tests/bits.c ;;
    *) same_bits double -Ofast ;;
    esac
    # the headers' own pragmas taken out, as on a compiler that has none
    sed 's/^#if defined(__wasm__) .*/#if 1/' ttt_tensor.h >"$tmp/ttt_tensor.h"
    printf '#define TTT_IMPLEMENTATION\n#include "ttt_tensor.h"\n#include <stdio.h>
int main(void) { puts(ttt_error(ttt_open(NULL))); return 0; }\n' >"$tmp/probe.c"
    $CC $quick -Ofast "$tmp/probe.c" -o "$tmp/probe" -lm 2>"$tmp/err" && "$tmp/probe" >"$tmp/err"
    grep -q "computes inexactly.*without -ffast-math" "$tmp/err"
    report $? "without precise arithmetic ttt_open says what to do, $CC"
}

check_$1
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
