#!/bin/sh
# Tests of examples/train.c from outside: what it says, what it leaves, that interrupted runs go on.
#   sh tests/test_train.sh CC
cd "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0
unset TTT_DATA
${1:-cc} -O2 -o "$tmp/train" examples/train.c -lm || { echo "0 passed, 1 failed, 0 skipped"; exit 1; }
here=$PWD
cd "$tmp" || exit 1

check() {  # check NAME CONDITION...
    name=$1
    shift
    if "$@"; then passed=$((passed + 1)); echo "ok   $name"
    else failed=$((failed + 1)); echo "FAIL $name"; fi
}
# A wrong call: exit status not 0, one line on stderr that has the words, and no output folder.
refuses() {
    words=$1
    shift
    rm -rf bad
    ./train --out bad "$@" >out.txt 2>err.txt
    status=$?
    if [ $status -ne 0 ] && [ $status -lt 128 ] && [ "$(wc -l <err.txt)" -eq 1 ] && grep -q -- "$words" err.txt && [ ! -e bad ]; then
        passed=$((passed + 1)); echo "ok   refuses $*"
    else
        failed=$((failed + 1)); echo "FAIL refuses $*: status $status: $(head -c 200 err.txt)"
    fi
}
same() { cmp -s "$1" "$2"; }
quick="--data embedded --steps 12 --batch 16 --width 12 --seed 5"

./train --list >list.txt
check "--list names five mixers" [ "$(wc -l <list.txt)" -ge 5 ]
check "--help lists options" sh -c './train --help | grep -q -- --inner-sgd'

refuses "unknown option '--nonsense'" --nonsense
refuses "\-\-mixer is 'magic'" --mixer magic
refuses "\-\-steps is 'many'" --steps many
refuses "\-\-steps is '-3'" --steps -3
refuses "\-\-steps is '1.5'" --steps 1.5
refuses "\-\-lr is 'nan'" --lr nan
refuses "\-\-width needs a value" --width
refuses "not divisible by .heads 5" --data embedded --heads 5
refuses "not divisible by .patch 5" --data embedded --patch 5
refuses "equal mini-batches" --data embedded --inner-sgd --inner-steps 4
refuses "width 50" --data embedded --width 50 --heads 5
while read -r mixer option; do
    refuses "${option%%[= ]*} has no effect on --mixer $mixer, which takes" --mixer $mixer $option
done <<END
mttt-mlp --causal
ttt-linear --inner-steps 2
lact --inner-lr=0.1
self-attention --decoder-ln 1
linformer --muon
titans --globals=1
longformer --compressed 3
none --kernel 1
END
refuses ".chunk has no effect without .causal" --data embedded --mixer lact --chunk 4
refuses "\-\-train-w0 has no effect" --data embedded --mixer self-attention --train-w0 0
refuses "\-\-warmup 20" --data embedded --steps 10 --warmup 20
refuses "\-\-steps and --epochs both" --data embedded --steps 10 --epochs 1
refuses "\-\-out has no effect with --list" --list
refuses "no/such" --data no/such
mkdir empty
refuses "empty" --data empty
export TTT_DATA=empty
refuses "empty"
unset TTT_DATA

# a data set of our own: 30 images of 8 x 8, plain IDX files
mkdir tiny
bytes() { i=0; while [ $i -lt "$1" ]; do printf "\\$(printf %03o $(((i * 37 + $2) % 251)))"; i=$((i + 1)); done; }
idx() { printf '\000\000\010\003\000\000\000\036\000\000\000\010\000\000\000\010'; bytes 1920 "$1"; }
labels() { printf '\000\000\010\001\000\000\000\036'; i=0; while [ $i -lt 30 ]; do printf "\\$(printf %03o $((i % 10)))"; i=$((i + 1)); done; }
idx 1 >tiny/train-images-idx3-ubyte
idx 2 >tiny/t10k-images-idx3-ubyte
labels >tiny/train-labels-idx1-ubyte
labels >tiny/t10k-labels-idx1-ubyte
check "trains on files" sh -c './train --data tiny --steps 5 --batch 10 --width 12 --patch 2 --out fromfiles >out.txt && grep -q "data: tiny, 30 training" out.txt'
mkdir elsewhere
cp -r tiny elsewhere/data
check "finds ./data by itself" sh -c 'cd elsewhere && ../train --steps 5 --batch 10 --width 12 --patch 2 >out.txt && grep -q "data: data, 30 training" out.txt'
cp -r tiny cut
head -c 1000 tiny/train-images-idx3-ubyte >cut/train-images-idx3-ubyte
refuses "cut/train-images-idx3-ubyte" --data cut
cp -r tiny label
{ head -c 37 tiny/train-labels-idx1-ubyte; printf '\013'; } >label/train-labels-idx1-ubyte
refuses "label" --data label
cp -r tiny gone
rm gone/t10k-labels-idx1-ubyte
refuses "t10k-labels-idx1-ubyte" --data gone

touch plainfile
./train $quick --out plainfile/sub >out.txt 2>err.txt
check "refuses an --out that cannot be made" sh -c "[ $? -ne 0 ] && grep -q plainfile err.txt"
if [ -c /dev/full ]; then
    mkdir full
    ln -s /dev/full full/log.jsonl
    check "a log that cannot be written ends the run" sh -c "! ./train $quick --out full >out.txt 2>err.txt && grep -q 'full/log.jsonl cannot be written' err.txt"
fi
check "makes the folders above --out" sh -c "./train $quick --out above/it/run >out.txt && test -s above/it/run/log.jsonl"

for mixer in $(cat list.txt); do
    check "trains $mixer" sh -c "./train $quick --mixer $mixer --out m_$mixer >out.txt && grep -q 'test accuracy' out.txt"
done
last=$(tail -n 1 m_mttt-mlp/log.jsonl)
check "the log ends with done" sh -c "echo '$last' | grep -q '^{\"event\":\"done\",\"mixer\":\"mttt-mlp\",\"dataset\":\"embedded\",\"test_accuracy\":[0-9.]*,\"seconds\":[0-9.]*,\"peak_bytes\":[0-9]*}$'"
check "leaves its four files" sh -c 'cd m_mttt-mlp && ls model.safetensors log.jsonl curves.svg inner_loss.svg >/dev/null && [ ! -e checkpoint.safetensors ]'

long="--data embedded --steps 60 --batch 16 --width 12 --seed 5 --inner-sgd --inner-steps 7 --mixup 0.2 --accum 2"
./train $long --threads 1 --out whole >out.txt
./train $long --threads 3 --out threads >out.txt
check "another number of threads gives the same weights" same whole/model.safetensors threads/model.safetensors
# Interrupted after its first record; again if this script, on a busy machine, came too late.
for try in $(seq 20); do
    ./train $long --out parts >out.txt &
    pid=$!
    while kill -0 $pid && ! grep -q step parts/log.jsonl; do sleep 0.02; done 2>/dev/null
    kill -TERM $pid 2>/dev/null
    wait $pid
    status=$?
    [ $status -eq 0 ] || break
    rm -r parts
done
check "a run ends when it is interrupted, not before" [ $status -eq 130 ]
if [ $status -eq 130 ]; then
    check "an interrupted run says how to go on" grep -q "train --resume --out parts" out.txt
    check "a resumed run must have the same options" sh -c '! ./train --resume --out parts --width 24 2>err.txt && grep -q "has --width 12" err.txt'
    ./train --resume --out parts --lr 0.1 2>err.txt
    check "which are named in few digits" grep -q "has --lr 0.003$" err.txt
    ./train --resume --out parts >out.txt
    check "the resumed run gives the same weights" same whole/model.safetensors parts/model.safetensors
    check "and the same log, but for times" sh -c "grep '\"step\"' whole/log.jsonl >a && grep '\"step\"' parts/log.jsonl >b && cmp -s a b"
fi
check "nothing to resume is an error" sh -c '! ./train --resume --out nothing 2>err.txt && grep -q "no nothing/checkpoint.safetensors: a run leaves one" err.txt'
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
