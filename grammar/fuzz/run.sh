#!/usr/bin/env bash
# Runs every fuzz target at once, each for this many minutes; ends with what each one has done. Needs a nightly
# toolchain, a C++ compiler and cargo-fuzz. What it finds lies in fuzz/artifacts/TARGET.
#
#   grammar/fuzz/run.sh [MINUTES] [TARGET]...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
minutes=${1:-30}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(lines instructions expansion ignore mounts)

cargo +nightly fuzz build
binaries=${CARGO_TARGET_DIR:-target}/$(rustc -vV | sed -n 's/^host: //p')/release
mkdir -p artifacts
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
done
# The golden cases are what every Dockerfile is made of.
for case in ../tests/cases/*/*.Dockerfile; do
    cp "$case" "corpus/lines/$(basename "$(dirname "$case")")-$(basename "$case")"
done

running=()
for target in "${targets[@]}"; do
    # Longer inputs say nothing new. Five minutes for one is a hang (at idle priority seconds are no sign of one), and
    # a gigabyte a leak.
    "$binaries/$target" -artifact_prefix="artifacts/$target/" -max_total_time=$((minutes * 60)) -max_len=4096 -timeout=300 -rss_limit_mb=1024 \
        -print_final_stats=1 "corpus/$target" >"artifacts/$target.log" 2>&1 &
    running+=("$!")
done
failed=0
for index in "${!targets[@]}"; do
    wait "${running[$index]}" || failed=1
    echo "${targets[$index]}: $(grep -E 'number_of_executed_units|SUMMARY|panicked' "artifacts/${targets[$index]}.log" | tr '\n' ' ')"
done
exit "$failed"
