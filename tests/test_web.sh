#!/bin/sh
# Tests of examples/web: that the page is whole and small, that its module computes what it claims (needs
# node 18 or newer), that a browser shows it (needs Chromium), and that it can be built (needs clang for WASI).
#   sh tests/test_web.sh
cd "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
. tests/check.sh
page=$PWD/examples/web/index.html

skip() { skipped=$((skipped + 1)); echo "skip $1: $2"; }
have() { command -v "$1" >/dev/null 2>&1; }

# -- the file
whole() { [ "$(wc -c <"$1")" -le 150000 ]; }
complete() { ! grep -q -i -E 'https?:|(src|srcset|action)=|@import|url\(|fetch\(|XMLHttpRequest|import\(' "$1"; }  # names nothing to load
template() { sed '/^<script type="text\/plain" id="wasm">$/{n;d;}' "$1"; }  # all but the module
has() { grep -q -- "$1" "$page"; }
check "the page has at most 150 kB" whole "$page"
check "it loads nothing" complete "$page"
template "$page" >"$tmp/built"
template examples/web/page.html >"$tmp/source"
check "it is built from page.html" cmp -s "$tmp/built" "$tmp/source"
# The colors of examples/example.h: the inner loop's, and numbers above and below zero, as "r g b".
inner=$(sed -n 's/^#define COLOR_INNER "\(#[0-9a-f]*\)".*/\1/p' examples/example.h)
rgb() { printf '%d %d %d' $(sed -n "s/.*$1 = 0x\(..\)\(..\)\(..\).*/0x\1 0x\2 0x\3/p" examples/example.h); }
check "its colors are those of the charts" grep -q -- "--accent: $inner; --zero: 255 255 255; --above: $(rgb COLOR_ABOVE); --below: $(rgb COLOR_BELOW);" examples/web/page.html
check "it takes the width of a token from its module" sh -c '! sed "/<style>/,/<.style>/d" examples/web/page.html | grep -q -e ">16<" -e "16 numbers" -e "/ 16" -e "D = 16"'
check "it is laid out for phones" has '<meta name="viewport" content="width=device-width'
check "it has colors for light and dark" has 'prefers-color-scheme: dark'
check "the difference is announced" has 'id="difference" aria-live="polite"'
check "every control has a label" sh -c 'for id in $(sed -n "s/.*<input [^>]*id=\"\([a-z0-9]*\)\".*/\1/p" "$1"); do grep -q "<label for=\"$id\"" "$1" || exit 1; done' sh "$page"
check "every canvas is an image with a name" sh -c '! grep "<canvas" "$1" | grep -v "role=\"img\" aria-label=\"[A-Z]" | grep -q .' sh "$page"

# -- its module, in node
cat >"$tmp/module.js" <<'EOF'
const fs = require('fs'), zlib = require('zlib');
const page = fs.readFileSync(process.argv[2], 'utf8'), found = /<script[^>]* id="wasm">\s*([A-Za-z0-9+/=]+)\s*<\/script>/.exec(page);
const code = new WebAssembly.Module(zlib.gunzipSync(Buffer.from(found[1], 'base64'))), w = new WebAssembly.Instance(code, {}).exports;
const report = (good, name) => console.log((good ? 'ok   ' : 'FAIL ') + name);
w._initialize();
report(w.setup() === 1, 'the module starts, and needs nothing from outside');
const numbers = (which, n) => Array.from(new Float32Array(w.memory.buffer, w.numbers(which), n));
function apart(n, drawing, eta, steps, mlp, norm, start) {
  return w.update(n, drawing, eta, steps, mlp, norm, start) ? w.apart() : NaN;
}
// from special to other and back, for every way of leaving
const ways = [['two steps', 2, 0, 0, 0], ['eight steps', 8, 0, 0, 0], ['an MLP', 1, 1, 0, 0], ['a norm', 1, 0, 1, 0], ['a start of 0.05', 1, 0, 0, 0.05], ['a start of 2', 1, 0, 0, 2]];
for (const [name, ...way] of ways) {
  let closed = 0, open = Infinity, map = 0;
  for (const n of [4, 5, 16, 37, 64])
    for (const eta of [0.05, 0.5, 1])
      for (const drawing of [1, 2]) {
        open = Math.min(open, apart(n, drawing, eta, ...way));
        map = Math.max(map, w.map_error());
        const back = apart(n, drawing, eta, 1, 0, 0, 0);
        closed = back <= closed ? closed : back;  // keeps NaN
      }
  report(closed <= 2e-6, 'the layers are the same: ' + closed.toExponential(1));
  report(open >= 1e-3, name + ' makes them differ: ' + open.toExponential(1) + ' or more');
  report(map <= 1e-5, 'the map gives back the output: ' + map.toExponential(1));
}
apart(24, 1, 0.4, 8, 0, 0, 0);
report(numbers(3, 9).every((v, i, a) => i === 0 || v < a[i - 1]), 'the inner loss falls at every step');
apart(24, 1, 0.5, 1, 0, 0, 0);
const [A, B] = [numbers(4, 576), numbers(5, 576)], most = Math.max(...B.map(Math.abs));
report(Math.max(...A.map((v, i) => Math.abs(v - B[i]))) <= 2e-6 * most, 'both have the same map');
report(w.update(65, 1, 1, 1, 0, 0, 0) === 0 && w.update(0, 1, 1, 1, 0, 0, 0) === 0, 'too many tokens are refused');
const size = w.memory.buffer.byteLength;
for (let i = 0; i < 300; i++) w.update(64, 1, 0.1 + i / 1000, 8, 1, 1, 1);
const samples = [];
for (const way of [[24, 1, 0.5, 1, 0, 0, 0], [16, 2, 0.4, 3, 0, 1, 0.5], [8, 1, 0.3, 2, 1, 0, 1]]) {
  w.update(...way);
  for (let which = 0; which < 3; which++) samples.push(...numbers(which, way[0] * 16));
}
fs.writeFileSync(process.argv[3], JSON.stringify(samples));
report(w.memory.buffer.byteLength === size || w.memory.buffer.byteLength < 32e6, 'memory does not grow');
EOF
module() {  # module WHICH FILE
    node "$tmp/module.js" "$2" "$2.numbers" >"$tmp/module.txt" 2>"$tmp/module.err" || echo "FAIL the module ran to its end: $(grep -m 1 Error "$tmp/module.err")" >>"$tmp/module.txt"
    sed -e "s/^ok   /&$1: /" -e "s/^FAIL /&$1: /" "$tmp/module.txt"
    passed=$((passed + $(grep -c '^ok ' "$tmp/module.txt"))) failed=$((failed + $(grep -c '^FAIL ' "$tmp/module.txt")))
}
if have node && node -e 'process.exit(process.versions.node.split(".")[0] < 18 ? 1 : 0)'; then
    cp "$page" "$tmp/page.html"
    module "the page" "$tmp/page.html"
else skip "what the module computes" "node 18 or newer is not installed"; fi

# -- built anew
echo '#include <stdlib.h>
void *f(void) { return malloc(1); }' >"$tmp/wasi.c"
if have clang && clang --target=wasm32-wasi -mexec-model=reactor "$tmp/wasi.c" -o "$tmp/wasi.wasm" 2>/dev/null; then
    check "it can be built, without a warning" sh -c 'sh examples/web/build.sh "$1" 2>&1 >/dev/null | grep . && exit 1; test -s "$1"' sh "$tmp/index.html"
    check "and has at most 150 kB then" whole "$tmp/index.html"
    if [ -s "$tmp/page.html.numbers" ]; then
        module "built anew" "$tmp/index.html"
        check "the page's numbers are those of the headers as they are (else: sh examples/web/build.sh)" node -e '
            const [a, b] = process.argv.slice(1).map(f => JSON.parse(require("fs").readFileSync(f)));
            process.exit(a.length === b.length && a.every((v, i) => Number.isFinite(v) && Math.abs(v - b[i]) <= 1e-4 * (1 + Math.abs(b[i]))) ? 0 : 1)' "$tmp/page.html.numbers" "$tmp/index.html.numbers"
    fi
else
    skip "build.sh" "clang cannot compile for WASI"
fi

# -- in a browser
for browser in chromium chromium-browser google-chrome "$HOME"/.cache/ms-playwright/chromium*/chrome-linux*/*[cehll]; do
    have "$browser" && "$browser" --version >/dev/null 2>&1 && break
    browser=
done
# look WIDTH,HEIGHT FRAGMENT: what the page becomes is in $tmp/dom.html, the browser's words in $tmp/log. The budget is
# the page's time, not the machine's: on a busy one it can be over before the module is unpacked.
look() {
    for try in $(seq 20); do
        look_once "$@"
        [ "$(says)" = "…" ] || break
    done
}
look_once() {
    timeout 600 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$tmp/profile" --enable-logging=stderr --virtual-time-budget=5000 \
        --window-size="$1" --dump-dom "file://$page#$2" >"$tmp/dom.html" 2>"$tmp/log"
}
# The page with a hand on its controls: it moves them off the special case and back, and says the difference after each move.
# (How fast it is depends on what else the machine does, and is no test.)
cat >"$tmp/hand.js" <<'EOF'
<script>
const moves = [['steps', 3], ['steps', 1], ['w0', 0.5], ['w0', 0], ['mlp', 1], ['mlp', 0], ['norm', 1], ['norm', 0], ['n', 64], ['eta', 0.3], ['steps', 8], ['back']];
const frame = () => new Promise(requestAnimationFrame);
const move = (id, v) => {
  $(id).value = v;
  $(id).dispatchEvent(new Event('input', { bubbles: true }));
};
(async () => {
  while ($('difference').textContent === '…') await frame();
  for (const [id, v] of moves) {
    if (v === undefined || $(id).type === 'checkbox') $(id).click();
    else move(id, v);
    await frame();
    await frame();
    console.log('moved ' + id + (v === undefined ? '' : ' ' + v) + ': ' + $('difference').textContent);
  }
  console.log('moved all');
})();
</script>
EOF
cat "$page" "$tmp/hand.js" >"$tmp/moved.html"
move_all() {  # in true time: for each frame the browser must draw
    "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$tmp/profile" --enable-logging=stderr --remote-debugging-port=0 --window-size="$1" "file://$tmp/moved.html" >/dev/null 2>"$tmp/log" &
    for i in $(seq 600); do
        grep -q 'moved all' "$tmp/log" && break
        kill -0 $! 2>/dev/null || break
        sleep 1
    done
    kill $! 2>/dev/null
    wait $! 2>/dev/null
    sed -n 's/.*CONSOLE.*"moved \([^"]*\)".*/\1/p' "$tmp/log" >"$tmp/moves"
}
after() {  # after MOVE LOW HIGH: the difference it left
    awk -F': ' -v move="$1" -v low="$2" -v high="$3" '$1 == move && $2 + 0 > 0 && $2 + 0 >= low && $2 + 0 <= high { good = 1 } END { exit !good }' "$tmp/moves"
}
says() { sed -n 's/.*id="difference"[^>]*>\([^<]*\)<.*/\1/p' "$tmp/dom.html"; }
within() { says | awk -v low="$1" -v high="$2" '{ good = NF == 1 && $1 + 0 > 0 && $1 + 0 >= low && $1 + 0 <= high } END { exit !good }'; }
if [ -n "$browser" ]; then
    for size in 1280,900 390,844; do
        look $size "n=16&steps=1&mlp=0&norm=0&w0=0"
        check "$size: the special case shows a difference of $(says)" within 0 2e-6
        check "$size: no error on the console" sh -c '! grep -q "CONSOLE" "$1"' sh "$tmp/log"
        check "$size: no message of failure" grep -q 'id="broken" role="alert" hidden' "$tmp/dom.html"
        for way in "n=64&steps=2" "mlp=1" "norm=1" "w0=0.05"; do
            look $size "$way"
            check "$size: $way shows a difference of $(says)" within 1e-3 1e9
        done
        move_all $size
        for move in "steps 3" "w0 0.5" "mlp 1" "norm 1" "steps 8"; do check "$size: moved: $(grep "^$move:" "$tmp/moves")" after "$move" 1e-3 1e9; done
        for move in "steps 1" "w0 0" "mlp 0" "norm 0" back; do check "$size: moved back: $(grep "^$move:" "$tmp/moves")" after "$move" 0 2e-6; done
        timeout 600 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$tmp/profile" --virtual-time-budget=5000 \
            --window-size=$size --screenshot="$tmp/shot.png" "file://$page" >/dev/null 2>&1
        check "$size: a picture of it" test -s "$tmp/shot.png"
    done
else
    skip "what a browser shows" "Chromium is not installed"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
