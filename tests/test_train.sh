#!/bin/sh
# Tests of examples/train.c from outside: what it says, what it leaves, that interrupted runs go on.
#   sh tests/test_train.sh CC
cd "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
. tests/check.sh
unset TTT_DATA
${1:-cc} -O2 -o "$tmp/train" examples/train.c -lm || { echo "0 passed, 1 failed, 0 skipped"; exit 1; }
here=$PWD
cd "$tmp" || exit 1

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
refuses "\-\-save-every is '-1'" --save-every -1
refuses "there is no bad/checkpoint.safetensors: a run leaves one" --resume
refuses "\-\-resume goes on.*--overwrite discards" --resume --overwrite
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
    check "a log that cannot be written ends the run" sh -c "! ./train $quick --out full >out.txt 2>err.txt && grep -q 'full/log.jsonl.* cannot be written' err.txt"
fi
check "makes the folders above --out" sh -c "./train $quick --out above/it/run >out.txt && test -s above/it/run/log.jsonl"

for mixer in $(cat list.txt); do
    check "trains $mixer" sh -c "./train $quick --mixer $mixer --out m_$mixer >out.txt && grep -q 'test accuracy' out.txt"
done
last=$(tail -n 1 m_mttt-mlp/log.jsonl)
check "the log ends with done" sh -c "echo '$last' | grep -q '^{\"event\":\"done\",\"mixer\":\"mttt-mlp\",\"dataset\":\"embedded\",\"test_accuracy\":[0-9.]*,\"seconds\":[0-9.]*,\"peak_bytes\":[0-9]*,\"settings\":{.*}}$'"
for setting in mixer inner-steps inner-lr inner-sgd decoder-ln train-w0 causal chunk window globals \
    compressed kernel neighbors muon width depth heads patch steps batch lr wd warmup mixup accum \
    clip seed data version real images; do
    check "every record of the log has $setting" sh -c '
        [ "$(grep -c "\"settings\":{.*\"$1\":.*}" m_mttt-mlp/log.jsonl)" -gt 1 ] &&
        ! grep -v "\"settings\":{.*\"$1\":.*}" m_mttt-mlp/log.jsonl' sh $setting
done
check "leaves its four files" sh -c 'cd m_mttt-mlp && ls model.safetensors log.jsonl curves.svg inner_loss.svg >/dev/null && [ ! -e checkpoint.safetensors ]'

long="--data embedded --steps 60 --batch 16 --width 12 --seed 5 --inner-sgd --inner-steps 7 --mixup 0.2 --accum 2"
./train $long --threads 1 --out whole >out.txt
./train $long --threads 3 --out threads >out.txt
check "another number of threads gives the same weights" same whole/model.safetensors threads/model.safetensors

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

n=0
while read -r signal options; do
    n=$((n + 1))
    options="$tiny --steps 200 $options"
    ./train $options --out whole_$n >out.txt
    start parts_$n $options $([ $signal = KILL ] && echo --save-every 0)
    await_record parts_$n
    end_by $signal
    if [ $signal != KILL ]; then
        check "SIG$signal saves" [ $status -eq 130 ]
        check "and says how to go on" grep -q "train --resume --out parts_$n" started.txt
    fi
    check "SIG$signal leaves a checkpoint" [ -e parts_$n/checkpoint.safetensors ]
    ./train --resume --out parts_$n --threads 2 >out.txt
    check "which is not that of the start" grep -q "resuming at step [1-9]" out.txt
    check "resumed, the same run: $signal $options" same_run whole_$n parts_$n
    check "and nothing else is left" [ "$(ls parts_$n | grep -c -v -e svg -e model -e log)" = 0 ]
done <<END
TERM --inner-sgd --inner-steps 4 --mixup 0.2 --accum 2
INT --mixer lact --muon --clip 0.1
HUP --mixer titans --mixup 0.5 --warmup 30
KILL --mixer longformer --window 1 --wd 0
KILL --train-w0 0 --seed 9 --inner-steps 2
END

./train $tiny --steps 300 --epochs 100 --out epochs >out.txt 2>err.txt
check "--epochs and --steps together are an error" grep -q "both say how long" err.txt
./train $tiny --epochs 100 --out epochs >out.txt
start killed $tiny --epochs 100 --save-every 0
for pause in 0.02 0.05 0.03 0.11 0.07 0.04; do
    sleep $pause
    end_by KILL
    [ -e killed/checkpoint.safetensors ] && start killed --resume --save-every 0
done
wait $pid
[ -e killed/checkpoint.safetensors ] && ./train --resume --epochs 100 --out killed >out.txt
check "a run that is killed at many moments is the same run" same_run epochs killed
check "and leaves no temporary file" [ "$(ls killed | grep -c -e tmp -e lock)" = 0 ]

trap '' HUP
start ignores $tiny --steps 100000
trap - HUP
kill -HUP $pid
sleep 0.1
check "a run under nohup does not end with the terminal" kill -0 $pid
end_by KILL
status=130 tries=0
while [ $status = 130 ] && [ $tries -lt 9 ]; do  # until the first signal falls into the first step
    tries=$((tries + 1))
    start second $tiny --accum 60000 --overwrite
    sleep 0.$tries
    kill -TERM $pid
    sleep 0.2
    end_by TERM 2>/dev/null
done
check "a second signal ends a run at once" [ $status -eq 143 ]

# -- one folder, one run
run="$tiny --steps 400 --seed 7"
start one $tiny --steps 100000
await_record one
for options in "" --resume --overwrite; do
    ./train $run --out one $options >out.txt 2>err.txt
    check "a second process in one folder is refused: $options" sh -c "[ $? = 1 ] &&
        grep -q 'one/lock: process $pid on .* holds this lock' err.txt"
done
end_by KILL
content one >before.txt
./train $run --out one >out.txt 2>err.txt
check "a new run does not replace one that is not finished" sh -c "[ $? = 1 ] &&
    grep -q -- '--out .one. has a run that is not finished: --resume .* --overwrite' err.txt"
rm one/lock 2>/dev/null
content one | grep -v lock >after.txt
grep -v lock before.txt | cmp -s - after.txt
check "nor changes it" [ $? = 0 ]
./train $run --out new >out.txt
start one $run --overwrite --save-every 0
await_record one '"seed":7'
end_by KILL
./train --resume --out one >out.txt
check "killed at its start, it goes on as the new run, not as the old one" same_run new one
check "a new run in the folder of a finished one says so" sh -c "
    ./train $run --out one | grep -q 'replacing the earlier run in one'"
start one $run --seed 8
await_record one '"seed":8'
check "and removes what that has left" [ ! -e one/model.safetensors ]
end_by KILL
echo "process $pid on another.machine" >one/lock
./train --resume --out one >out.txt 2>err.txt
check "a lock of another machine stays, and is named" sh -c "[ $? = 1 ] &&
    grep -q 'one/lock: process .* delete this file' err.txt && grep -q another one/lock"

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
