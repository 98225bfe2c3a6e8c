#!/bin/sh
# Writes the four headers as one, NAME: sh tests/one_file.sh NAME. Where one of them names another,
# or itself, it names this file then.
cd "$(dirname "$0")/.." || exit 1
for part in tensor layers data model; do
    sed 's|^\(#.*\)"ttt_[a-z]*\.h"|\1"'"$(basename "$1")"'"|' ttt_$part.h
done >"$1"
