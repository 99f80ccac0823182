#!/usr/bin/env bash
# A short run of every fuzz target, for so many seconds each: with cargo-fuzz and nightly Rust where both are there, and else
# with random changes of the corpus on stable Rust. Leaves the corpus as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10}

if cargo +nightly fuzz --version >/dev/null 2>&1; then
    found=$(mktemp -d)
    # The fuzzer does not tidy up: its directories are named after its processes.
    tidy() {
        rm -rf "$found"
        for place in /dev/shm/waterway-test-fuzz-*; do
            [ -d "$place" ] && ! kill -0 "${place##*-}" 2>/dev/null && rm -rf "$place"
        done
        return 0
    }
    trap tidy EXIT
    for target in attach decode; do
        mkdir "$found/$target"
        cargo +nightly fuzz run "$target" "$found/$target" "fuzz/corpus/$target" -- \
            -max_total_time="$seconds" -timeout=20 -print_final_stats=1
    done
else
    echo "no cargo-fuzz with nightly Rust here: changes of the corpus on stable Rust instead"
    WATERWAY_FUZZ_SECONDS="$seconds" timeout $((3 * seconds + 60)) \
        cargo test --release --all-features --test fuzz_corpus -- --ignored --nocapture --test-threads=1
fi
