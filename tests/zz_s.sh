#!/bin/sh
# Tests of examples/train.c from outside: what it says, what it leaves, that interrupted runs go on.
#   sh tests/test_train.sh CC
cd "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0
unset TTT_DATA
cp /tmp/e/train_s "$tmp/train"
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

# -- runs that end early, and go on
tiny="--data tiny --batch 10 --width 12 --patch 2 --threads 1"
# Starts a run in folder $1, the rest its options, and waits for its checkpoint: $pid.
start() {
    ./train --out "$@" >started.txt 2>&1 &
    pid=$!
    while [ ! -e "$1/checkpoint.safetensors" ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
}
# Ends it by signal $1: $status.
end_by() {
    kill -$1 $pid
    wait $pid 2>/dev/null
    status=$?
}
await_record() {
    while ! grep -q "${2:-step}" $1/log.jsonl 2>/dev/null && kill -0 $pid 2>/dev/null; do sleep 0.01; done
}
# Folders $1 and $2 have the same weights, and the same log but for times and files.
same_run() {
    grep '"step"' $1/log.jsonl >a
    grep '"step"' $2/log.jsonl >b
    same a b && same $1/model.safetensors $2/model.safetensors && [ -s a ]
}
# What is in folder $1.
content() { (cd $1 && for f in *; do [ -f $f ] && cksum $f || echo $f; done); }
# Runs a command that must not wait for anything: $status.
bounded() {
    "$@" >out.txt 2>err.txt &
    pid=$!
    (
        i=0
        while [ $i -lt 300 ] && kill -0 $pid 2>/dev/null; do sleep 0.1; i=$((i + 1)); done
        kill -9 $pid 2>/dev/null
    ) &
    wait $pid
    status=$?
}

run="$tiny --steps 400 --seed 7"
# -- a resumed run has the options of its checkpoint
start base $tiny --steps 400 --lr 0.003
await_record base '"step":40'
end_by TERM
while read -r words options; do
    ./train --resume --out base $options >out.txt 2>err.txt
    check "--resume $options: both values are named" sh -c "[ $? = 1 ] && [ ! -e base/lock ] &&
        grep -q -e '^train: --resume: ${options%% *} .*$words$' err.txt"
done <<END
12 --width 24
0.003 --lr 0.1
1 --seed 2
mttt-mlp --mixer none
0 --inner-sgd
tiny --data embedded
400 --epochs 7
END
check "a resumed run must have the same options" sh -c '! ./train --resume --out base --width 24 2>err.txt && grep -q "has --width 12" err.txt'
./train --resume --out base --lr 0.1 2>err.txt
check "which are named in few digits" grep -q "has --lr 0.003$" err.txt

# Writes the safetensors file $2 to $3 with the note $4 = $5, or without it if there is no $5.
cat >forge.c <<END
#define TTT_IMPLEMENTATION
#include "$here/ttt_data.h"
int main(int argc, char **argv) {
    ttt_ctx *c = ttt_open(NULL);
    ttt_bundle b;
    if (ttt_safetensors_read(c, argv[1], &b) != TTT_OK) return 1;
    ttt_note *note = (ttt_note *)calloc((size_t)b.n_notes + 1, sizeof *note);
    int64_t n = 0;
    for (int64_t i = 0; i < b.n_notes; i++)
        if (strcmp(b.notes[i].key, argv[3]) != 0) note[n++] = b.notes[i];
    if (argc > 4) note[n].key = argv[3], note[n++].text = argv[4];
    b.notes = note;
    b.n_notes = n;
    return ttt_safetensors_write(c, argv[2], &b, false) != TTT_OK;
}
END
${1:-cc} -O1 -DTTT_NO_SIMD -o forge forge.c -lm
# The run in base, forged, is refused with these words and the name of the file; nothing changes.
refuses_checkpoint() {
    words=$1 name=$2
    content base >before.txt
    bounded ./train --resume --out base
    content base | cmp -s - before.txt
    check "refuses a checkpoint: $name" sh -c "[ $? = 0 ] && [ $status = 1 ] &&
        [ \$(wc -l <err.txt) = 1 ] &&
        grep -q -e '^train: --resume: base/checkpoint.safetensors: .*$words' err.txt"
}
mv base/checkpoint.safetensors good
while read -r key value; do
    ./forge good base/checkpoint.safetensors $key $value || echo "forge failed"
    refuses_checkpoint $key "$key $value"
done <<END
depth 150
depth 0
depth 1.5
depth
accum 0
accum
seed nan
seed -1
lr inf
lr 0x1p-3z
clip -1
width 1e99
heads many
mixer magic
inner-sgd 2
decoder-ln -1
steps 0
batch 0
mixup
muon 1
globals 5
compressed 3
color blue
version 9.9.9
version
real half
images 0123456789abcdef
optimizer.updates -5
optimizer.updates 5000
optimizer.skipped 400
optimizer.updates nan
rng.seed -1
rng.next
epoch -1
epoch 0.5
position x
weight -1
seen nan
seconds inf
END
while read -r words key value; do
    ./forge good base/checkpoint.safetensors $key $value
    bounded ./train --resume --out base
    check "refuses a checkpoint whose $key is $value" sh -c "[ $status = 1 ] &&
        [ \$(wc -l <err.txt) = 1 ] && grep -q -e '$words' err.txt"
done <<END
shape width 24
shape patch 4
block_2 depth 3
warmup warmup 400
position position 31
batch batch 31
heads heads 5
larger.than.its.tensors width 4096
larger.than.its.tensors depth 99
inner-steps inner-steps 1000000000
no/such data no/such
END
./forge good base/checkpoint.safetensors train-w0 0
LC_ALL=C sed 's/"accum":"1"/"accum":123/' good >base/checkpoint.safetensors
refuses_checkpoint "string was expected" "a number that is no text"
rm base/checkpoint.safetensors
if mkfifo base/checkpoint.safetensors 2>/dev/null; then
    refuses_checkpoint "not a regular file" "a pipe"
    rm base/checkpoint.safetensors
    mkdir pipes fifo
    mkfifo pipes/log.jsonl fifo/train-images-idx3-ubyte
    bounded ./train $run --out pipes
    check "a pipe as log is refused" sh -c "[ $status = 1 ] &&
        grep -q 'pipes/log.jsonl: .*not a regular file' err.txt"
    bounded ./train --data fifo
    check "a pipe among the data is refused" sh -c "[ $status = 1 ] && grep -q fifo/train-i err.txt"
    rm -r pipes && mkdir -p pipes/model.safetensors/x
    bounded ./train $run --out pipes
    check "what cannot be replaced is known at the start" sh -c "[ $status = 1 ] &&
        grep -q 'cannot replace pipes/model.safetensors' err.txt && ! grep -q ^step out.txt"
    rm -r pipes && mkdir pipes && mkfifo pipes/lock
    bounded ./train $run --out pipes
    check "a pipe as lock is refused" sh -c "[ $status = 1 ] && grep -q pipes/lock err.txt"
else
    skipped=$((skipped + 1)); echo "skip pipes: there is no mkfifo"
fi
cp good base/checkpoint.safetensors
cp base/log.jsonl good.jsonl
sed 's/"seed":1/"seed":2/' base/log.jsonl >other && cp other base/log.jsonl
./train --resume --out base >out.txt 2>err.txt
check "the log of another run is refused" sh -c "[ $? = 1 ] &&
    grep -q 'base/log.jsonl: its record of step .* is of another run' err.txt"
i=0
while [ $i -lt 200 ]; do head -n 1 good.jsonl; i=$((i + 1)); done >base/log.jsonl
./train --resume --out base >out.txt
check "of records that do not follow each other the first is taken" sh -c "[ $? = 0 ] &&
    grep -q 'base/log.jsonl lacks' out.txt && [ \$(grep -c '\"step\":20,' base/log.jsonl) = 1 ]"
cp good base/checkpoint.safetensors
rm base/log.jsonl
check "a lost log is told" sh -c './train --resume --out base | grep -q "base/log.jsonl lacks"'
check "nothing to resume is an error" sh -c '! ./train --resume --out nothing 2>err.txt && grep -q "no nothing/checkpoint.safetensors: a run leaves one" err.txt'
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
