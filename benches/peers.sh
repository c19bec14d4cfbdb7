#!/usr/bin/env bash
# Portcullis beside GStreamer and iceoryx2, in turns on the same pinned cores, and one table with ratios.
#
#   benches/peers.sh [ROUNDS]      default 3; the medians are compared
#
# A peer that is not there is said so and left out:
#   GStreamer   apt-get install gcc pkg-config libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev gstreamer1.0-plugins-bad
#   iceoryx2    comes from crates.io with the program in benches/peers/iceoryx, which is no part of the workspace
# PORTCULLIS names another program to measure; BUILD a directory for what is built here. Needs python3 for the table.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
build=${BUILD:-target/peers}
mkdir -p "$build"
rows=$build/rows.jsonl
: >"$rows"

program=${PORTCULLIS:-}
if [ -z "$program" ]; then
    cargo build --release --quiet --bin portcullis
    program=$(cargo build --release --quiet --bin portcullis --message-format=json |
        python3 -c 'import json, sys; print([r["executable"] for r in map(json.loads, sys.stdin) if r.get("executable")][-1])')
fi

gstreamer=
if pkg-config --exists gstreamer-1.0 gstreamer-base-1.0 2>/dev/null; then
    # shellcheck disable=SC2046
    gcc -O2 -o "$build/gstreamer" benches/peers/gstreamer.c $(pkg-config --cflags --libs gstreamer-1.0 gstreamer-base-1.0) &&
        gstreamer=$build/gstreamer
fi
[ -n "$gstreamer" ] || echo "GStreamer is missing: its rows are left out"

iceoryx=
if CARGO_TARGET_DIR="$build/iceoryx" cargo build --release --quiet --manifest-path benches/peers/iceoryx/Cargo.toml; then
    iceoryx=$(find "$build/iceoryx" -path '*release/iceoryx-peer' -type f | head -1)
fi
[ -n "$iceoryx" ] || echo "iceoryx2 is missing: its rows are left out"

# A peer that hangs, as GStreamer's shm may, or fails is left out of its round.
peer() { timeout 60 "$@" >>"$rows" || echo "failed: $*" >&2; }
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    "$program" bench --json --runs 1 --only floors,small,large,paced >>"$rows"
    if [ -n "$gstreamer" ]; then
        for mode in queue shm; do
            peer "$gstreamer" $mode 188 $([ $mode = queue ] && echo 500000 || echo 60000)
            peer "$gstreamer" $mode 65536 $([ $mode = queue ] && echo 60000 || echo 10000)
            peer "$gstreamer" $mode 1382400 3000
            peer "$gstreamer" $mode 3110400 1500
            peer "$gstreamer" $mode 188 300 3000
        done
    fi
    if [ -n "$iceoryx" ]; then
        peer "$iceoryx" 500000 64 188 1024 4096
    fi
done
python3 benches/peers/table.py "$rows"
