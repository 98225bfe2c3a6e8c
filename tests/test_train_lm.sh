#!/bin/sh
# Tests of examples/train_lm.c from outside: what it says, what it leaves, that interrupted runs go
# on. What it has in common with examples/train.c is tested by test_train.sh.
#   sh tests/test_train_lm.sh CC
cd "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
. tests/check.sh
${1:-cc} -O1 -DTTT_NO_SIMD -o "$tmp/train_lm" examples/train_lm.c -lm ||
    { echo "0 passed, 1 failed, 0 skipped"; exit 1; }
here=$PWD
cd "$tmp" || exit 1
i=0
while [ $i -lt 400 ]; do echo "The $i. sheep counts $((i * 7 % 90)) clouds."; i=$((i + 1)); done >text

# A wrong call: exit status 1, one line on stderr that has the words, and no output folder.
refuses() {
    words=$1
    shift
    rm -rf bad
    ./train_lm --out bad "$@" >out.txt 2>err.txt
    status=$?
    if [ $status -eq 1 ] && [ "$(wc -l <err.txt)" -eq 1 ] && grep -q -- "$words" err.txt && [ ! -e bad ]; then
        passed=$((passed + 1)); echo "ok   refuses $*"
    else
        failed=$((failed + 1)); echo "FAIL refuses $*: status $status: $(head -c 200 err.txt)"
    fi
}
tiny="--data text --width 12 --depth 1 --heads 2 --context 24 --batch 2 --threads 1 --seed 5"
quick="$tiny --steps 6 --sample 9"

refuses "unknown option '--nonsense'" --nonsense
refuses "\-\-mixer is 'mttt-mlp'; it must be one of" --mixer mttt-mlp
refuses "\-\-context is '1'; it must be a whole number from 2" --context 1
refuses "no/such" --data no/such
refuses "not in this folder" --steps 3
refuses "'text' has .* bytes; 900000 expected" --data text --context 90000
refuses "not divisible by .heads 5" $tiny --heads 5
refuses "\-\-inner-lr has no effect on --mixer lact, which takes --chunk" --mixer lact --inner-lr 1
refuses "\-\-rotary has no effect on --mixer titans" --mixer titans --rotary 100
refuses "\-\-temperature has no effect without --sample" $tiny --sample 0 --temperature 1
refuses "\-\-out has no effect with --list" --list
refuses "\-\-resume goes on.*--overwrite discards" --resume --overwrite
refuses "\-\-warmup 20" $tiny --steps 10 --warmup 20

./train_lm --list >list.txt
for mixer in $(cat list.txt); do
    check "trains $mixer" sh -c "./train_lm $quick --mixer $mixer --out m_$mixer >out.txt && grep -q 'held out .* bits a byte, read as one stream of' out.txt"
done
check "learns" sh -c "./train_lm $tiny --steps 150 --out learns >out.txt && awk '/held out  / { good = \$3 < 5.2 } END { exit !good }' out.txt"
last=$(tail -n 1 m_ttt-linear/log.jsonl)
check "the log ends with done" sh -c "echo '$last' | grep -q '^{\"event\":\"done\",\"mixer\":\"ttt-linear\",\"dataset\":\"text\",\"bits_per_byte\":[0-9.]*,\"seconds\":[0-9.]*,\"peak_bytes\":[0-9]*,\"by_place\":\[\[1.0,[0-9.]*\],.*\],\"settings\":{.*}}$'"
for setting in data mixer inner-lr chunk window globals kernel neighbors muon rotary token-index \
    share-qk output-gate decoder-ln width depth heads conv context steps batch lr wd warmup accum clip seed \
    version real text; do
    check "every record of the log has $setting" sh -c '
        [ "$(grep -c "\"settings\":{.*\"$1\":.*}" m_ttt-linear/log.jsonl)" -gt 1 ] &&
        ! grep -v "\"settings\":{.*\"$1\":.*}" m_ttt-linear/log.jsonl' sh $setting
done
check "leaves its four files" [ "$(cd m_ttt-linear && echo *)" = "config.json curves.svg log.jsonl model.safetensors" ]
check "the curves are there" sh -c 'grep -q "</svg>" m_ttt-linear/curves.svg && grep -q "while it reads" m_ttt-linear/curves.svg && ! grep -q -e nan -e inf\" m_ttt-linear/curves.svg'
if command -v xmllint >/dev/null 2>&1; then check "and are XML" xmllint --noout m_ttt-linear/curves.svg; fi
check "finds the headers" sh -c "cd '$here' && '$tmp/train_lm' --steps 1 --width 8 --depth 1 --heads 1 --context 16 --batch 1 --sample 0 --out '$tmp/headers' >'$tmp/out.txt' && grep -q 'data: headers, [0-9]* bytes to learn from' '$tmp/out.txt'"

# -- runs that end early, and go on
same_run() {  # folders $1 and $2 have the same weights, and the same log but for times
    for run in $1 $2; do sed 's/"seconds":.*"by_place/"by_place/' $run/log.jsonl >$run.log; done
    cmp -s $1.log $2.log && cmp -s $1/model.safetensors $2/model.safetensors
}
start() {  # start FOLDER OPTIONS...: waits for a record
    ./train_lm --out "$@" >started.txt 2>&1 &
    pid=$!
    while ! grep -q step $1/log.jsonl 2>/dev/null && kill -0 $pid 2>/dev/null; do sleep 0.01; done
}
n=0
while read -r signal options; do
    n=$((n + 1))
    options="$tiny --sample 0 --steps 300 $options"
    ./train_lm $options --out whole_$n >whole.txt
    start parts_$n $options $([ $signal = KILL ] && echo --save-every 0)
    kill -$signal $pid
    wait $pid 2>/dev/null
    status=$?
    [ $signal = KILL ] || check "SIG$signal saves, and says how to go on" sh -c "
        [ $status = 130 ] && grep -q './train_lm --resume --out parts_$n' started.txt"
    ./train_lm --resume --out parts_$n --sample 0 --threads 2 >out.txt
    check "resumed, the same run: $signal $options" same_run whole_$n parts_$n
done <<END
INT --accum 2
TERM --mixer ttt-mlp --token-index --share-qk --output-gate --rotary 100
KILL --mixer self-attention --clip 0.1
END
start base $tiny --steps 100000
kill -TERM $pid
wait $pid 2>/dev/null
while read -r words options; do
    ./train_lm --resume --out base $options >out.txt 2>err.txt
    check "--resume $options: both values are named" sh -c "[ $? = 1 ] &&
        grep -q -e '^train_lm: --resume: ${options%% *} .*$words$' err.txt"
done <<END
12 --width 24
24 --context 25
text --data headers
ttt-linear --mixer lact
END
echo more >>text
./train_lm --resume --out base >out.txt 2>err.txt
check "a text that has changed is refused" sh -c "[ $? = 1 ] && grep -q 'its text is' err.txt"

echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
