#!/usr/bin/env bash
# Runs every fuzz target at once, each for this many minutes; ends with what each one has done. Needs a nightly
# toolchain, a C++ compiler and cargo-fuzz. What it finds lies in artifacts/TARGET beside the target's Cargo.toml.
#
#   tests/fuzz/run.sh [MINUTES] [TARGET]...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
minutes=${1:-30}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=($(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' tests/fuzz/Cargo.toml grammar/fuzz/Cargo.toml))
host=$(rustc -vV | sed -n 's/^host: //p')

# The golden cases are what every Dockerfile is made of.
mkdir -p grammar/fuzz/corpus/lines
for case in grammar/tests/cases/*/*.Dockerfile; do
    cp "$case" "grammar/fuzz/corpus/lines/$(basename "$(dirname "$case")")-$(basename "$case")"
done

running=() logs=()
for room in tests/fuzz grammar/fuzz; do
    own=()
    for target in "${targets[@]}"; do
        [ ! -e "$room/fuzz_targets/$target.rs" ] || own+=("$target")
    done
    [ ${#own[@]} -gt 0 ] || continue
    # Without a sanitizer: no room but the sandbox has unsafe code.
    cargo +nightly fuzz build --sanitizer none --fuzz-dir "$room"
    for target in "${own[@]}"; do
        mkdir -p "$room/corpus/$target" "$room/artifacts/$target"
        logs+=("$room/artifacts/$target.log")
        # Longer inputs say nothing new. Five minutes for one is a hang (at idle priority seconds are no sign of one),
        # and a gigabyte a leak.
        "${CARGO_TARGET_DIR:-$room/target}/$host/release/$target" -artifact_prefix="$room/artifacts/$target/" \
            -max_total_time=$((minutes * 60)) -max_len=4096 -timeout=300 -rss_limit_mb=1024 -print_final_stats=1 \
            "$room/corpus/$target" >"${logs[-1]}" 2>&1 &
        running+=("$!")
    done
done
failed=0
for index in "${!running[@]}"; do
    wait "${running[$index]}" || failed=1
    echo "$(basename "${logs[$index]}" .log): $(grep -E 'number_of_executed_units|SUMMARY|panicked' "${logs[$index]}" | tr '\n' ' ')"
done
exit "$failed"
