#!/usr/bin/env bash
# kiln against docker's BuildKit (Debian's docker.io) on this machine: medians, ratios and peak memory as a table.
# The two take turns within every round, so that a slow minute hits both. Nothing here passes or fails.
#
#   tests/bench.sh [WORKLOAD]...     of w1 w2 w3 w4 w6; ROUNDS=5 is the default
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../fixtures/environment.sh"

[ "$(id -u)" = 0 ] || die "docker's daemon needs root"
install_packages docker.io iptables busybox-static time
kiln=$(find_kiln)
rounds=${ROUNDS:-5}
base=$("$fixtures/base/busybox.sh" --tar)
work=$(mktemp -d)
results=$work/results
export KILN_ROOT=$work/kiln DOCKER_HOST=unix://$work/docker.sock DOCKER_BUILDKIT=1 DOCKER_CONFIG=$work/docker-config
docker=/usr/bin/docker
daemon=

finish() {
    local status=$?
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
        umount -R -l "$work/docker/overlay2" 2>/dev/null || true
        umount -l "$work/docker-exec/netns/default" 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start_docker() {
    dockerd --data-root "$work/docker" --exec-root "$work/docker-exec" -p "$work/docker.pid" -H "$DOCKER_HOST" \
        --bridge=none --iptables=false --ip6tables=false >"$work/docker.log" 2>&1 &
    daemon=$!
    for _ in $(seq 200); do
        "$docker" version >/dev/null 2>&1 && return
        sleep 0.1
    done
    cat "$work/docker.log" >&2
    die "docker does not start"
}

# ---- clean states

clean_docker() {
    "$docker" image rm -f bench >/dev/null 2>&1 || true
    "$docker" builder prune -af >/dev/null
}

clean_kiln() {
    rm -rf "$KILN_ROOT"
    "$kiln" import --change 'CMD ["sh"]' "$base" busybox:latest >/dev/null
}

# ---- measuring

# measure LABEL WHO COMMAND...: appends "LABEL WHO SECONDS PEAK-KIB" to the results.
measure() {
    local label=$1 who=$2 before after peak
    shift 2
    sync
    [ "$who" = kiln ] || echo 5 >"/proc/$daemon/clear_refs"
    before=$(date +%s%N)
    /usr/bin/time -f %M -o "$work/peak" "$@" >"$work/out" 2>&1 </dev/null || { cat "$work/out" >&2; die "failed: $*"; }
    after=$(date +%s%N)
    peak=$(tail -n 1 "$work/peak")
    [ "$who" = kiln ] || peak=$((peak + $(awk '/^VmHWM/ { print $2 }' "/proc/$daemon/status")))
    awk -v label="$label" -v who="$who" -v time=$((after - before)) -v peak="$peak" \
        'BEGIN { printf "%s %s %.6f %d\n", label, who, time / 1e9, peak }' >>"$results"
}

build_with() {
    local label=$1 who=$2 context=$3
    if [ "$who" = kiln ]; then
        measure "$label" kiln "$kiln" build -q -t bench "$context"
    else
        measure "$label" docker "$docker" build -q --network=host -t bench "$context"
    fi
}

# cold_and_warm NAME CONTEXT: a build on nothing, then the same once more.
cold_and_warm() {
    local who
    for who in docker kiln; do
        "clean_$who"
        build_with "$1-cold" "$who" "$2"
        build_with "$1-unchanged" "$who" "$2"
    done
}

# ---- workloads

w1() {
    local context=$work/w1 round who
    mkdir -p "$context"
    say "W1: 20,000 text files"
    awk -v directory="$context" 'BEGIN {
        srand(1)
        for (number = 0; number < 20000; number++) {
            folder = directory "/d" int(number / 200)
            if (number % 200 == 0) system("mkdir -p " folder)
            file = folder "/f" number ".txt"
            lines = 16 + int(rand() * 112)
            for (line = 0; line < lines; line++)
                printf "%d %d %.12f lorem ipsum dolor sit amet, some text that compresses\n", number, line, rand() > file
            close(file)
        }
    }'
    printf 'FROM scratch\nCOPY . /app\n' >"$context/Dockerfile"
    for round in $(seq "$rounds"); do
        cold_and_warm w1 "$context"
        echo "$round" >>"$context/d7/f1407.txt"
        for who in docker kiln; do
            build_with w1-one-changed "$who" "$context"
        done
    done
}

w2() {
    local context=$work/w2 round
    mkdir -p "$context"
    say "W2: one file of 512 MiB"
    head -c 268435456 /dev/urandom >"$context/big"
    { yes 'a line of text that compresses, as text does' || true; } | head -c 268435456 >>"$context/big"
    printf 'FROM scratch\nCOPY big /big\n' >"$context/Dockerfile"
    for round in $(seq "$rounds"); do
        cold_and_warm w2 "$context"
    done
}

w3() {
    local context=$work/w3 round number
    mkdir -p "$context"
    say "W3: twenty RUN steps"
    echo 'FROM busybox' >"$context/Dockerfile"
    for number in $(seq 20); do
        echo "RUN echo $number > /f$number" >>"$context/Dockerfile"
    done
    for round in $(seq "$rounds"); do
        cold_and_warm w3 "$context"
    done
}

w4() {
    local context=$work/w4 round stage
    mkdir -p "$context"
    say "W4: four stages that sleep two seconds"
    for stage in 1 2 3 4; do
        printf 'FROM busybox AS s%s\nRUN sleep 2 && echo %s > /out\n' "$stage" "$stage"
    done >"$context/Dockerfile"
    echo 'FROM scratch' >>"$context/Dockerfile"
    for stage in 1 2 3 4; do
        echo "COPY --from=s$stage /out /out$stage"
    done >>"$context/Dockerfile"
    for round in $(seq "$rounds"); do
        cold_and_warm w4 "$context"
    done
}

w6() {
    local round
    say "W6: run --rm busybox true"
    clean_kiln
    for round in $(seq "$rounds"); do
        measure w6-host-network docker "$docker" run --rm --network=host busybox true
        measure w6-host-network kiln "$kiln" run --rm --network=host busybox true
    done
}

report() {
    printf '\n%-18s %10s %10s %9s %12s %10s\n' workload 'docker s' 'kiln s' ratio 'docker MiB' 'kiln MiB'
    sort -s -k1,2 -k3,3n "$results" | awk '
        { times[$1, $2, ++count[$1, $2]] = $3; if ($4 > peak[$1, $2]) peak[$1, $2] = $4; labels[$1] = 1 }
        function median(label, who, n) {
            n = count[label, who]
            return n % 2 ? times[label, who, (n + 1) / 2] : (times[label, who, n / 2] + times[label, who, n / 2 + 1]) / 2
        }
        END {
            for (label in labels)
                printf "%-18s %10.3f %10.3f %8.1fx %12.0f %10.1f\n", label, median(label, "docker"),
                    median(label, "kiln"), median(label, "docker") / median(label, "kiln"),
                    peak[label, "docker"] / 1024, peak[label, "kiln"] / 1024
        }' | sort
}

start_docker
"$docker" import -c 'CMD ["sh"]' "$base" busybox:latest >/dev/null
[ $# -gt 0 ] || set -- w1 w2 w3 w4 w6
for workload in "$@"; do
    "$workload"
done
report
