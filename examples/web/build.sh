#!/bin/sh
# Makes examples/web/index.html of page.c and page.html. Needs clang with wasm-ld and wasi-libc
# (Debian, Ubuntu: apt install clang lld wasi-libc libclang-rt-dev-wasm32, or libclang-rt-14-dev-wasm32).
#   sh examples/web/build.sh [OUTPUT]
cd "$(dirname "$0")" || exit 1
out=${1:-index.html}
case $out in /*) ;; *) [ $# -eq 0 ] || out=$OLDPWD/$out ;; esac
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
${CLANG:-clang} --target=wasm32-wasi -mexec-model=reactor -msimd128 -Os -Wall -Wextra -fno-builtin-printf \
    -Wl,--gc-sections,--strip-all page.c -o "$tmp/page.wasm" -lm || exit 1
gzip -9 -n -c "$tmp/page.wasm" | base64 | tr -d '\n' >"$tmp/page.txt" || exit 1
{
    sed '/@WASM@/,$d' page.html
    cat "$tmp/page.txt" && echo
    sed '1,/@WASM@/d' page.html
} >"$tmp/index.html"
mv "$tmp/index.html" "$out" || exit 1
chmod 644 "$out"
echo "$out: $(wc -c <"$out") bytes, of which the compressed module $(wc -c <"$tmp/page.txt"); the module itself $(wc -c <"$tmp/page.wasm")"
