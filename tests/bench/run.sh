#!/usr/bin/env bash
# kiln against docker's BuildKit and buildah (Debian's packages) on this machine: medians, spread, ratios and peak
# memory as a table. They take turns within every round, so that a slow minute hits all of them. Nothing here passes
# or fails.
#
#   tests/bench/run.sh [WORKLOAD]...     of w1 w2 w3 w4 w6 growth; ROUNDS=5 is the default
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../fixtures/environment.sh"
source "$(dirname "${BASH_SOURCE[0]}")/workloads.sh"

[ "$(id -u)" = 0 ] || die "docker's daemon needs root"
install_packages docker.io buildah podman runc iptables busybox-static time
kiln=$(find_kiln)
rounds=${ROUNDS:-5}
everybody='docker buildah kiln'
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
        umount -l "$work/docker-exec/netns/default" "$work/docker" 2>/dev/null || true
    fi
    umount -R -l "$work/buildah/overlay" 2>/dev/null || true
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- clean states

clean_docker() {
    "$docker" image rm -f bench >/dev/null 2>&1 || true
    "$docker" builder prune -af >/dev/null
}

clean_buildah() {
    buildah_here rm -a >/dev/null
    buildah_here rmi -a -f >/dev/null 2>&1 || true
    podman --storage-driver overlay --root "$work/buildah" --runroot "$work/buildah-run" \
        import -q -c 'CMD ["sh"]' "$base" busybox:latest >/dev/null
}

clean_kiln() {
    rm -rf "$KILN_ROOT"
    "$kiln" import --change 'CMD ["sh"]' "$base" busybox:latest >/dev/null
}

buildah_here() {
    buildah --storage-driver overlay --root "$work/buildah" --runroot "$work/buildah-run" "$@"
}

# ---- measuring

build_with() {
    local label=$1 who=$2 context=$3
    case $who in
        kiln) measure "$label" kiln "$kiln" build -q -t bench "$context" ;;
        docker) measure "$label" docker "$docker" build -q --network=host -t bench "$context" ;;
        buildah)
            measure "$label" buildah buildah --storage-driver overlay --root "$work/buildah" \
                --runroot "$work/buildah-run" bud -q --runtime runc --isolation oci --network host --pull-never \
                --layers --jobs 4 -t bench "$context"
            ;;
    esac
}

# cold_and_warm NAME CONTEXT: a build on nothing, then the same once more.
cold_and_warm() {
    local who
    for who in $everybody; do
        "clean_$who"
        build_with "$1-cold" "$who" "$2"
        build_with "$1-unchanged" "$who" "$2"
    done
}

# ---- workloads

w1() {
    local context=$work/w1 round who
    say "W1: 20,000 text files"
    w1_context "$context"
    for round in $(seq "$rounds"); do
        cold_and_warm w1 "$context"
        measure w1-stat-walk kiln "$stat_walk" "$context"
        echo "$round" >>"$context/d7/f1407.txt"
        for who in $everybody; do
            build_with w1-one-changed "$who" "$context"
        done
    done
}

w2() {
    local context=$work/w2 round
    say "W2: one file of 512 MiB"
    w2_context "$context"
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

# What is cached must not cost more for what lies below it, or beside it in the store.
growth() {
    local small=$work/layers-10 large=$work/layers-100 step round number
    say "Growth: a cached build over 10 and 100 layers, and in a store of ten times as much"
    for step in 10 100; do
        mkdir -p "$work/layers-$step"
        echo 'FROM busybox' >"$work/layers-$step/Dockerfile"
        for number in $(seq "$step"); do
            echo "RUN echo $number > /f$number" >>"$work/layers-$step/Dockerfile"
        done
    done
    clean_kiln
    "$kiln" build -q -t small "$small" >/dev/null
    "$kiln" build -q -t large "$large" >/dev/null
    for round in $(seq "$rounds"); do
        build_with growth-10-layers kiln "$small"
        build_with growth-100-layers kiln "$large"
    done
    mkdir -p "$work/beside"
    for step in $(seq 100); do
        printf 'FROM busybox\nRUN echo beside %s > /f\nRUN echo %s > /g\n' "$step" "$step" >"$work/beside/Dockerfile"
        "$kiln" build -q -t "beside:$step" "$work/beside" >/dev/null
    done
    for round in $(seq "$rounds"); do
        build_with growth-large-store kiln "$small"
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
    printf '\n%-18s %22s %22s %22s %11s %8s %8s %8s\n' workload 'docker s (spread)' 'buildah s (spread)' \
        'kiln s (spread)' 'best/kiln' 'docker M' 'buildah M' 'kiln M'
    sort -s -k1,2 -k3,3n "$results" | awk '
        { times[$1, $2, ++count[$1, $2]] = $3; if ($4 > peak[$1, $2]) peak[$1, $2] = $4; labels[$1] = 1 }
        function median(label, who, n) {
            n = count[label, who]
            return n % 2 ? times[label, who, (n + 1) / 2] : (times[label, who, n / 2] + times[label, who, n / 2 + 1]) / 2
        }
        function spread(label, who) {
            if (!count[label, who]) return "-"
            return sprintf("%.3f (%.3f-%.3f)", median(label, who), times[label, who, 1], times[label, who, count[label, who]])
        }
        function memory(label, who) { return count[label, who] ? sprintf("%.0f", peak[label, who] / 1024) : "-" }
        END {
            for (label in labels) {
                best = 0
                for (who = 1; who <= 2; who++) {
                    name = who == 1 ? "docker" : "buildah"
                    if (count[label, name] && (!best || median(label, name) < best)) best = median(label, name)
                }
                printf "%-18s %22s %22s %22s %11s %8s %8s %8s\n", label, spread(label, "docker"),
                    spread(label, "buildah"), spread(label, "kiln"),
                    best ? sprintf("%.1fx", best / median(label, "kiln")) : "-", memory(label, "docker"),
                    memory(label, "buildah"), memory(label, "kiln")
            }
        }' | sort
}

say "a bare parallel walk to compare with"
(cd "$project" && cargo build -q --release --locked -p kiln-tests --example stat_walk)
stat_walk=$(find "$target" -path '*/release/examples/stat_walk' | head -n 1)
start_docker --bridge=none --iptables=false
"$docker" import -c 'CMD ["sh"]' "$base" busybox:latest >/dev/null
[ $# -gt 0 ] || set -- w1 w2 w3 w4 w6 growth
for workload in "$@"; do
    "$workload"
done
report
