#!/bin/sh
# Tests of the examples from outside: that they compile, run, and refuse wrong calls.
# tests/test_train.sh has what train.c does beside that.
#   sh tests/test_examples.sh CC
cd "$(dirname "$0")/.." || exit 1
CC=${1:-cc}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
. tests/check.sh

done_() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed -eq 0 ]
    exit
}

warnings="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror"
for program in train train_lm bench profile recall compare figure openmp generate; do
    check "$program compiles without a warning" $CC -O2 $warnings -o "$tmp/$program" examples/$program.c -lm
    sed -n 's/.*OPTION_[A-Z]*("\(--[a-z0-9-]*\)".*/\1/p' examples/$program.c >"$tmp/$program.options"
done
openmp=no
echo 'int main(void) { return 0; }' >"$tmp/empty.c"
if $CC -fopenmp "$tmp/empty.c" -o "$tmp/empty" 2>/dev/null && "$tmp/empty"; then
    openmp=yes
    check "openmp compiles with OpenMP" $CC -O2 -fopenmp -o "$tmp/openmp_on" examples/openmp.c -lm
fi
[ $failed -eq 0 ] || done_

# -- README.md: its first program prints what it shows, its table of the family is complete, what it
# names is there, and only rows of tables are long
awk '/^```c$/ && !n++ { on = 1; next } /^```$/ { on = 0 } on' README.md >"$tmp/first.c"
awk '/^```c$/ { c = 1 } c && /^```$/ { n++; next } n == 2' README.md >"$tmp/first.txt"
check "README: the first program compiles" $CC -O2 -I. -o "$tmp/first" "$tmp/first.c" -lm
check "README: the first program prints what it shows" sh -c '"$1" | cmp - "$1.txt"' sh "$tmp/first"
sed -n '/^## The family/,/^## /s/^| \(`[^|]*\) |.*/\1/p' README.md | tr -d '`,' | tr ' ' '\n' |
    sort >"$tmp/family"
check "README: the family has every mixer" sh -c '"$1"/train --list | grep -vx none | sort |
    cmp - "$1"/family' sh "$tmp"
grep -o -e 'examples/[a-z0-9_/]*\.[a-z]*' -e 'tests/[a-z_]*\.[a-z]*' -e 'ttt_[a-z]*\.h' README.md |
    sort -u | while read -r path; do [ -f "$path" ] || echo "$path"; done >"$tmp/missing"
sed -n 's/.*](#\([^)]*\)).*/\1/p' README.md | while read -r place; do
    sed -n 's/^##* //p' README.md | tr 'A-Z ' 'a-z-' | grep -qx -e "$place" || echo "#$place"
done >>"$tmp/missing"
check "README: files and sections that it names are there" cmp /dev/null "$tmp/missing"
# What its commands, and those in the programs' comments, build or write is no change of the repository.
{ echo "a.out out/log.jsonl data/x x.o x.exe m.safetensors.tmp-7-0" | tr ' ' '\n'
  sed -n 's/^.*cc -O2.* -o \([a-z_]*\) .*/\1/p' README.md examples/*.c
  grep -h -o -e '--svg [a-z_/]*[.]svg' -e '--out [a-z]*/[a-z_.]*' README.md examples/*.c | sed 's/^--[a-z]* //'
  echo "curves.svg attention.svg mttt_layer.svg compare.svg recall.svg" | tr ' ' '\n'
} | sort -u >"$tmp/made"
if git rev-parse --git-dir >"$tmp/git" 2>&1; then
    check "README: git ignores or has what its commands make" sh -c 'while read -r path; do
        git check-ignore -q --no-index "$path" || git ls-files --error-unmatch "$path" >"$1/git" 2>&1 || { echo "  $path"; exit 1; }
    done <"$1/made"' sh "$tmp"
else
    skipped=$((skipped + 1)); echo "skip what git ignores: no repository"
fi
check "README: lines of text within 100 columns" sh -c 'export LC_ALL=C
    ! grep -v "^[|!]" README.md | tr -d "\200-\277" | grep ".\{101\}"'

# -- lessons: their claims hold, and those in the opening comment are those the program makes
for lesson in examples/0*.c; do
    run=$tmp/$(basename "$lesson" .c)
    check "$lesson compiles without a warning" $CC -O1 $warnings -o "$run" "$lesson" -lm
    check "$lesson is right in what it claims" sh -c 'cd "$2" && "$1" >"$1.txt" && grep -q "^ok: " "$1.txt"' sh "$run" "$tmp"
    check "$lesson shows the claims it makes" sh -c 'grep "^ok: " "$1.txt" >"$1.ok"; sed -n "s|^//     \(ok: .*\)|\1|p" "$2" | cmp - "$1.ok"' sh "$run" "$lesson"
    if [ -c /dev/full ]; then
        check "$lesson notices that what it says is lost" sh -c 'cd "$2" && ! "$1" >/dev/full' sh "$run" "$tmp"
    fi
    check "$lesson has less than 200 lines" [ "$(wc -l <"$lesson")" -lt 200 ]
done
cd "$tmp" || exit 1
check "the figure is drawn, and its inner loss falls" sh -c './figure | awk "{ good = \$1 == \"mttt_layer.svg:\" && \$9 + 0 > 0 && \$9 + 0 < \$4 + 0 } END { exit !good }" && grep -q "</svg>" mttt_layer.svg'

# A wrong call: exit status not 0, one line on stderr that has the words.
refuses() {
    words=$1
    shift
    $program "$@" >out.txt 2>err.txt
    status=$?
    if [ $status -ne 0 ] && [ $status -lt 128 ] && [ "$(wc -l <err.txt)" -eq 1 ] && grep -q -- "$words" err.txt; then
        passed=$((passed + 1)); echo "ok   $program refuses $*"
    else
        failed=$((failed + 1)); echo "FAIL $program refuses $*: status $status: $(head -c 200 err.txt)"
    fi
}

# -- the command line of every program
for try in train train_lm bench profile recall compare figure openmp generate; do
    program=./$try
    check "$try answers --help" sh -c "./$try --help >help.txt &&
        grep -q '^usage: $try .*[^ ]$' help.txt"
    for option in $(cat $try.options) --help; do
        check "$try --help lists $option" grep -q -e "^  $option " help.txt
    done
    for option in $(sed -n 's/^only with .*: //p; s/^also with .*: //p' help.txt | tr , ' '); do
        check "$try has $option, which a mode names" grep -qx -e "$option" $try.options
    done
    if [ -c /dev/full ]; then
        check "$try notices that its output is lost" sh -c "! ./$try --help >/dev/full 2>err.txt && grep -q 'could not be written' err.txt"
    fi
    refuses "unknown option '--nonsense'" --nonsense
    refuses "unknown option '--nonsense'" --nonsense=3
    refuses "unknown option '-h'" -h
    [ $try = compare ] || [ $try = generate ] || refuses "unexpected argument 'word'" word
done
# A call, what to look at in its output, a number with a value that is too small, a flag.
while read -r try number small flag look call; do
    program=./$try
    joined=$(echo "$call" | sed 's/ \([^-]\)/=\1/g')
    check "$try $joined" sh -c "./$try $call >1.txt && ./$try $joined >2.txt &&
        grep -q '$look' 1.txt && grep -o '$look' 1.txt >1 && grep -o '$look' 2.txt | cmp - 1"
    refuses "$number needs a value: a .*number from .* to " $number
    refuses "$number needs a value" $number --help
    refuses "$number is 'junk'; it must be a .*number from .* to " $number junk
    refuses "$number is '1x'; it must be a .*number from .* to " $number=1x
    refuses "$number is ''; it must be a .*number from .* to " $number=
    refuses "$number is '$small'; it must be a .*number from .* to " $number $small
    refuses "$number is '1e99'; it must be a .*number from .* to " $number 1e99
    refuses "$flag takes no value" $flag=1
done <<END
train --steps 0 --resume ^step.*% --data embedded --steps 2 --batch 16 --width 12 --lr 0.01
bench --budget -1 --list .* --list --filter gemm*nt*
profile --width 3 --infer ^profile:.* --width 12 --batch 4 --steps 2 --mixer none
recall --n 7 --grow ^none.*+-.....  --mixer none --n 8 --steps 3 --width 12
END
# A mode, and options that have no effect with it, or without it.
while read -r try mode how options; do
    program=./$try
    for option in $options; do
        words="${option%%=*} has no effect $how $mode"
        if [ $how = without ]; then refuses "$words" $option
        else refuses "$words" $mode $option; refuses "$words" $option $mode; fi
    done
done <<END
train --list with --resume --out=x --data=embedded --mixer=none --steps=3 --lr=0.1 --threads=1
bench --list with --threads=1 --isa=scalar --budget=1
profile --study with --mixer=none --inner-steps=2 --image=28 --patch=4 --width=12 --depth=1
profile --study with --heads=3 --batch=4 --infer --no-fused --steps=2 --rows=3
profile --study without --tokens-max=512 --budget=0
recall --grow without --out=x.svg
END
# With one CPU allowed, 0 means one thread.
cpu=$(sed -n 's/^Cpus_allowed_list:[^0-9]*\([0-9]*\).*/\1/p' /proc/self/status 2>/dev/null)
if taskset -c "${cpu:-0}" true 2>/dev/null; then
    check "bench has as many threads as it may use" sh -c "taskset -c $cpu ./bench --threads 0 --budget 0 --filter peak.fma | grep -q '^ttt[.]t1[.]'"
    check "train has as many threads as it may use" sh -c "taskset -c $cpu ./train --data embedded --steps 1 --batch 16 --width 12 | grep -q ' s on 1 thread,'"
else
    skipped=$((skipped + 1)); echo "skip threads on one CPU: taskset cannot be had"
fi
check "the last of two values counts" [ "$(./bench --list --filter gemv.nn --filter=kern.adam)" = kern.adam ]
program=./compare
refuses "no log is named"
refuses "no/such.jsonl" no/such.jsonl
check "compare makes a table and a chart" sh -c "./compare out/log.jsonl | grep -q 'embedded . .mttt-mlp. ' && grep -q '</svg>' compare.svg"
# Logs as train.c writes them: FILE, settings, accuracy; the first record has the same settings.
log() {
    {
        printf '{"event":"step","step":1,"loss":null,"accuracy":0.1,"test_accuracy":0.1,"inner_loss":[],"settings":{"data":"x/set","mixer":"mttt-mlp",%s}}\n' "$2"
        printf '{"event":"done","mixer":"mttt-mlp","dataset":"x/set","test_accuracy":%s,"seconds":2,"peak_bytes":1,"settings":{"data":"x/set","mixer":"mttt-mlp",%s}}\n' "$3" "$2"
    } >"$1"
}
old='{"event":"done","mixer":"none","dataset":"x/set","test_accuracy":0.5,"seconds":2,"peak_bytes":1}'
log t1.1 '"inner-steps":1,"seed":1,"version":"0.3.0"' 0.50
log t1.2 '"inner-steps":1,"seed":2,"version":"0.3.0"' 0.52
log t4.1 '"inner-steps":4,"seed":1,"version":"0.3.0"' 0.60
log newer '"inner-steps":1,"seed":3,"version":"0.4.0"' 0.70
log more '"inner-steps":1,"lr":0.1,"seed":3,"version":"0.3.0"' 0.80
log order '"version":"0.3.0","seed":3,"inner-steps":1' 0.54
echo "$old" >old.1
echo "$old" >old.2
: >empty
head -n 1 t1.1 >unfinished
head -c 300 t1.1 >cut
echo '{"a":[1,2]}' >foreign
echo 'no JSON' >words
echo '{"event":"done","settings":{}}' >hollow
sed 's/0.50,"sec/1e9,"sec/' t1.1 >beyond
cat t1.1 t4.1 >two
cat t1.1 t1.1 >twice
{ head -n 1 t4.1; tail -n 1 t1.1; } >mixed
cp t1.1 copy
./compare t1.1 t1.2 t4.1 >out.txt
check "compare pools what agrees in all but the seed" grep -q '`, inner-steps 1 | 51.0 ± 1.4 | 2 |' out.txt
check "and says in what the rows differ" grep -q '`, inner-steps 4 | 60.0 | 1 |' out.txt
./compare t1.1 t1.2 t4.1 newer more order old.1 old.2 >out.txt
check "settings in any order are the same" grep -q '`mttt-mlp` | 52.0 ± 2.0 | 3 |' out.txt
check "another version is another row" grep -q 'version 0.4.0 | 70.0 | 1 |' out.txt
check "so is a setting that others lack" grep -q 'lr 0.1 | 80.0 | 1 |' out.txt
check "what is not known is never pooled" [ "$(grep -c 'none., settings unknown: old.[12] | 50.0 | 1 |' out.txt)" = 2 ]
mkfifo pipe 2>/dev/null
left="empty unfinished cut foreign words hollow beyond two twice mixed copy . no/such t4.1 old.1 $(ls pipe 2>/dev/null)"
./compare t4.1 old.1 t1.1 $left >out.txt 2>err.txt
check "bad logs do not hide the others" sh -c "[ $? = 0 ] && [ \$(grep -c ' | 1 | ' out.txt) = 3 ]"
for name in $left; do
    check "compare names $name, which it leaves out" [ "$(grep -c "^compare: left out: $name: ." err.txt)" = 1 ]
done
while read -r name why; do
    check "and says why: $name: $why" grep -q "^compare: left out: $name: .*$why" err.txt
done <<END
empty empty
unfinished the run is not finished
cut its last line is cut
foreign not a log of train.c
words not a log of train.c
hollow a last record that is not one of train.c
beyond a last record that is not one of train.c
two records of several runs
twice records of several runs
mixed records of several runs
copy the same settings and seed as t1.1$
t4.1 the same settings and seed as t4.1$
END
refuses "left out: empty: empty" empty

# -- generate.c, with a model of random bytes
cat >model.c <<END
#define TTT_IMPLEMENTATION
#include "ttt_model.h"
int main(int argc, char **argv) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_params p = { 0 };
    ttt_lm_desc d = ttt_lm_preset("125m");
    d.vocab = 256, d.width = d.mlp = 16, d.depth = 2, d.mixer.heads = 2;
    ttt_lm_new(c, &d, &p, "");
    return argc < 2 || ttt_lm_write(c, argv[1], &d, &p, NULL) != TTT_OK;
}
END
mkdir lm
check "a small model is written" sh -c '$1 -O1 -DTTT_NO_SIMD -I"$2" model.c -o model -lm && ./model lm' sh "$CC" "$OLDPWD"
program=./generate
refuses "one MODEL_DIR expected"
refuses "no/config.json: cannot be opened" no
refuses "one MODEL_DIR expected" lm lm
refuses "svg has no effect without --perplexity" --svg x.svg lm
refuses "state has no effect with --perplexity" --perplexity model.c --state s.safetensors lm
refuses "the prompt is empty\|must be some text" --prompt "" lm
refuses "is '2'; it must be a number from 0 to 1" --top-p 2 lm
./generate --prompt "to be or" --tokens 40 --temperature 1 lm >1.txt 2>err.txt
check "it says how fast it was" grep -q '^8 tokens read, 40 made, .* tok/s$' err.txt
printf 'one\ntwo\n' | ./generate --tokens 5 --temperature 0 --state lm.state lm >1.txt 2>err.txt
check "every line is a prompt" [ "$(tr -cd '\n' <1.txt | wc -c)" -ge 2 ]
printf 'one\n' | ./generate --tokens 5 --temperature 0 --state half.state lm >2.txt 2>err.txt
printf 'two\n' | ./generate --tokens 5 --temperature 0 --state half.state lm >>2.txt 2>err.txt
check "a state that was saved goes on with the same bits" sh -c 'cmp 1.txt 2.txt && cmp lm.state half.state'
refuses "the state of another model" --state lm.state --bf16 --prompt x lm
./generate --perplexity model.c --svg lm.svg lm >1.txt 2>err.txt
check "perplexity of a text" grep -q 'bits a byte, perplexity 2[0-9][0-9]' 1.txt
check "with a chart" grep -q '</svg>' lm.svg
check "in 16 bits" sh -c "./generate --bf16 --perplexity model.c lm | grep -q 'bits a byte'"

# -- profile.c
program=./profile
quick="--width 12 --batch 4 --steps 2"
refuses "\-\-mixer is 'magic'; it must be one of" --mixer magic
refuses "\-\-isa is 'magic'" --isa magic
refuses "\-\-width is '1.5'" --width 1.5
refuses "\-\-svg is ''; it must be some text" --svg ""
refuses "not divisible by .heads 5" --heads 5
refuses "not divisible by .patch 5" --patch 5
refuses "\-\-inner-steps has no effect on --mixer none, which takes none of this" --inner-steps 2 --mixer none
refuses "no/such" $quick --svg no/such.svg
for mixer in $(./profile --help | sed -n 's/^values of --mixer://p'); do
    check "profiles $mixer" sh -c "./profile $quick --mixer $mixer --svg $mixer.svg >$mixer.txt && grep -q -e '^matmul_add  *forward .*%' -e '^matmul  *forward .*%' $mixer.txt && grep -q '</svg>' $mixer.svg"
    check "profiles inference by $mixer" sh -c "./profile $quick --mixer $mixer --infer >$mixer.txt && ! grep -q optimizer $mixer.txt"
done
./profile $quick --no-fused --rows 1000 >all.txt
check "inner gradients are told apart" grep -q '^matmul  *recorded ' all.txt
check "the optimizer has its row" grep -q '^optimizer ' all.txt
check "the rows add up to the total" awk '/ %/ { for (i = 1; $i != "%"; i++); if ($1 == "total") total = $(i + 1); else sum += $(i + 1) }
    END { exit !(total > 0 && sum > 0.97 * total && sum < 1.03 * total) }' all.txt
check "--isa scalar" sh -c "./profile $quick --isa scalar | grep -q '^machine: scalar'"
check "--threads 2" sh -c "./profile $quick --threads 2 >out.txt"
./profile --study --tokens-max 1100 --budget 0 --svg study.svg >study.txt
check "the study leaves out what mixes nothing" sh -c '! grep -q -e "^| none " study.txt'
for mixer in $(./profile --help | sed -n 's/^values of --mixer:\(.*\) none$/\1/p') lact:causal lact:muon longformer:grid nadaraya-watson:gaussian "mttt-linear, W0 = 0" "linear-attention, identity"; do
    check "the study has a row for 256 and 1024 tokens of $mixer" awk -F ' *[|] *' -v name="$mixer" '$2 == name { if (NF != 13 || $3 != 256 * 4 ^ rows++) exit 1
        for (i = 4; i <= 11; i++) if (i != 8 && !($i > 0)) exit 1; if ($8 !~ /^[0-9]+ %$/ || $12 !~ /^[0-9]+ %$/) exit 1 } END { exit rows != 2 }' study.txt
done
check "the study's chart has lines and limits" sh -c 'grep -q "</svg>" study.svg && grep -q dasharray study.svg && grep -q ">512<" study.svg && ! grep -q -e nan -e inf\" study.svg'
refuses "\-\-tokens-max is '100'" --study --tokens-max 100
refuses "\-\-tokens-max is '300.5'; it must be a whole number" --study --tokens-max 300.5
refuses "\-\-budget is '-1'; it must be a number" --study --budget -1
refuses "\-\-budget is 'nan'" --study --budget nan
refuses "no/such" --study --tokens-max 256 --budget 0 --svg no/such.svg

# -- bench.c
program=./bench
./bench --list >list.txt
for case in peak.fma gemm.nn.1024x1024x1024 gemm.b6h.tn.64x64x196 gemv.nt.1x32000x768 kern.gelu kern.gelu.libm kern.adam layer.ttt_linT4.N1024.B8.fwdbwd \
    layer.mttt_linGD4.N196.B1.fwd mixer.lact:causal.N1024.B1.fwdbwd grow.self-attention.N16384.B1.fwd vit.ttt_mlp.tiny224.train \
    vit.softattn.small32.train_again; do
    check "bench has $case" grep -qx "$case" list.txt
done
check "bench leaves out what would take minutes" sh -c '! grep -q grow.self-attention.N16384.B1.fwdbwd list.txt'
cases='peak.fma,gemm.nn.16x64x64,gemm.b6h.*,kern.exp*,kern.adam,layer.*.N196.B1.*,grow.vittt.N256.*'
for options in "" "--threads 2" "--isa scalar"; do
    check "bench runs what --list names, a line each, $options" sh -c "
        ./bench --list --filter '$cases' >want.txt &&
        ./bench --budget 0 --filter '$cases' $options >out.txt &&
        sed 's/^ttt[.]t[12][.]\\([^ ]*\\) [0-9.e+]* [a-zA-Z/]* iqr=.* n=[0-9]* gflop=.* peak=[0-9.]* bytes=[0-9]*$/\\1/' out.txt | cmp - want.txt"
done
refuses "\-\-isa is 'abacus'" --isa abacus
refuses "\-\-threads is 'many'; it must be a whole number" --threads many
refuses "\-\-filter 'zzz' matches no case" --list --filter zzz
refuses "\-\-filter 'zzz' matches no case" --filter zzz

# -- recall.c
program=./recall
quick="--steps 20 --n 8 --width 12"
./recall $quick >recall.txt
for mixer in $(./recall --help | sed -n 's/^values of --mixer://p'); do
    check "recall has a row for $mixer" grep -q "^$mixer.* [0-9.]* +- [0-9.]* " recall.txt
done
check "recall: no error, no NaN" sh -c '! grep -q -i -e nan -e "left out" -e "NOT AS" recall.txt'
check "recall: a variant by its label" sh -c "./recall $quick --mixer 'none,longformer window 4' >out.txt && [ \$(grep -c +- out.txt) = 2 ]"
check "recall: the same with other threads" sh -c "for t in 1 2; do ./recall $quick --mixer mttt-mlp,delta-net --threads \$t | sed 's/ *[0-9.]*$//' >out\$t.txt; done; cmp out1.txt out2.txt"
check "recall draws what is held" sh -c './recall --grow --steps 5 --n 16 --width 12 --mixer none,mttt-mlp --out recall.svg >out.txt && grep -q "^mttt-mlp  *[0-9]*  *[-0-9.]*  *[-0-9.]* " out.txt &&
    grep -q "</svg>" recall.svg && grep -q dasharray recall.svg && ! grep -q -e nan -e inf\" recall.svg'
refuses "\-\-mixer 'magic'" --mixer none,magic
refuses "\-\-mixer ''" --mixer none,,none
refuses "\-\-mixer is ''" --mixer ""
refuses "\-\-steps is '2.5'" --steps 2.5
refuses "not divisible by .heads 5" --heads 5
refuses "no/such" --grow --out no/such.svg
echo "process 1 on another.machine" >held.svg.lock
refuses "held.svg.lock: process 1 on another.machine holds this lock" --grow --out held.svg
check "recall says with which seed" grep -q "20 steps, seed 1; chance" recall.txt
check "recall says which rows have more steps" sh -c 'grep -A 1 "^linformer 24" recall.txt | grep -q "^  *160 steps$"'

# -- openmp.c
check "without OpenMP it says so and runs" sh -c './openmp >out.txt && grep -q "one thread" out.txt && grep -q "the same to the last bit" out.txt'
if [ $openmp = yes ]; then
    export OMP_NUM_THREADS=3 OMP_WAIT_POLICY=passive
    check "OpenMP's threads give the same bits" sh -c './openmp_on >out.txt && grep -q "OpenMP.s  3 threads" out.txt && grep -q "the same to the last bit" out.txt'
else
    skipped=$((skipped + 1)); echo "skip openmp: $CC has no -fopenmp"
fi
done_
