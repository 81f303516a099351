#!/usr/bin/env bash
# kiln against docker, buildah and skopeo (Debian's) with Debian's registry on loopback: pushing what was just built,
# pulling it with unpacking, and copying blobs that are ready. Medians, ratios and peak memory as a table; nothing passes or fails.
# The rivals take turns within every round, and every round has content of its own, so that nobody has it already.
#
#   tests/bench/transfer.sh [WORKLOAD]...     of w1 w2; ROUNDS=5 is the default
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../fixtures/environment.sh"
source "$(dirname "${BASH_SOURCE[0]}")/workloads.sh"

[ "$(id -u)" = 0 ] || die "docker's daemon needs root"
install_packages docker.io iptables buildah skopeo docker-registry time
kiln=$(find_kiln)
rounds=${ROUNDS:-5}
work=$(mktemp -d)
results=$work/results
export KILN_ROOT=$work/kiln DOCKER_HOST=unix://$work/docker.sock DOCKER_BUILDKIT=1 DOCKER_CONFIG=$work/docker-config
docker=/usr/bin/docker
buildah=(buildah --root "$work/buildah" --runroot "$work/buildah-run" --storage-driver overlay)
daemon= registry=

finish() {
    local status=$?
    for process in $daemon $registry; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    umount -R -l "$work/docker/overlay2" "$work/buildah/overlay" 2>/dev/null || true
    umount -l "$work/docker-exec/netns/default" "$work/docker" 2>/dev/null || true
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() {
    mkdir -p "$DOCKER_CONFIG"
    echo '{}' >"$DOCKER_CONFIG/config.json" # buildah insists on it
    dockerd --data-root "$work/docker" --exec-root "$work/docker-exec" -p "$work/docker.pid" -H "$DOCKER_HOST" \
        --bridge=none --iptables=false --ip6tables=false >"$work/docker.log" 2>&1 &
    daemon=$!
    local port
    port=$(awk 'BEGIN { srand(); print 20000 + int(rand() * 20000) }')
    host=127.0.0.1:$port
    printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "%s"}\n' \
        "$work/registry" "$host" >"$work/registry.yml"
    docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    registry=$!
    for _ in $(seq 200); do
        "$docker" version >/dev/null 2>&1 && curl -fs "http://$host/v2/" >/dev/null && return
        sleep 0.1
    done
    cat "$work/docker.log" "$work/registry.log" >&2
    die "docker or the registry does not start"
}

# What is made and removed beside the measured commands.
silently() { "$@" >"$work/out" 2>&1 </dev/null || { cat "$work/out" >&2; die "failed: $*"; }; }

# One round: everybody builds, pushes, forgets and pulls the same context; then the blobs are copied.
round() {
    local name=$1 context=$2 number=$3 reference who
    for who in docker buildah kiln; do
        reference=$host/$who/$name:$number
        case $who in
        docker)
            silently "$docker" build -q --network=host --no-cache -t "$reference" "$context"
            measure "$name-push" docker "$docker" push -q "$reference"
            silently "$docker" image rm -f "$reference"
            silently "$docker" builder prune -af
            measure "$name-pull" docker "$docker" pull -q "$host/kiln-ready/$name:$number"
            silently "$docker" image rm -f "$host/kiln-ready/$name:$number"
            ;;
        buildah)
            silently "${buildah[@]}" bud -q --isolation chroot -t "$reference" "$context"
            measure "$name-push" buildah "${buildah[@]}" push -q --tls-verify=false "$reference"
            silently "${buildah[@]}" rmi -a -f
            measure "$name-pull" buildah "${buildah[@]}" pull -q --tls-verify=false "$host/kiln-ready/$name:$number"
            silently "${buildah[@]}" rmi -a -f
            ;;
        kiln)
            rm -rf "$KILN_ROOT"
            silently "$kiln" build -q -t "$reference" "$context"
            measure "$name-push" kiln "$kiln" push -q "$reference"
            rm -rf "$KILN_ROOT"
            measure "$name-pull" kiln "$kiln" pull -q "$host/kiln-ready/$name:$number"
            ;;
        esac
    done
    for who in skopeo kiln; do
        rm -rf "$work/layout"
        if [ "$who" = skopeo ]; then
            measure "$name-fetch-ready" skopeo skopeo copy -q --src-tls-verify=false \
                "docker://$host/kiln-ready/$name:$number" "oci:$work/layout:x"
            measure "$name-send-ready" skopeo skopeo copy -q --dest-tls-verify=false \
                "oci:$work/layout:x" "docker://$host/skopeo-sent/$name-$number:x"
        else
            measure "$name-fetch-ready" kiln "$kiln" copy -q "docker://$host/kiln-ready/$name:$number" "oci:$work/layout:x"
            measure "$name-send-ready" kiln "$kiln" copy -q "oci:$work/layout:x" "docker://$host/kiln-sent/$name-$number:x"
        fi
    done
}

# The image that everybody pulls in a round, which nobody has pushed himself.
ready() {
    rm -rf "$KILN_ROOT"
    silently "$kiln" build -q -t "$host/kiln-ready/$1:$3" "$2"
    silently "$kiln" push -q "$host/kiln-ready/$1:$3"
}

w1() {
    local context=$work/w1 number
    say "W1: 20,000 text files"
    w1_context "$context"
    for number in $(seq "$rounds"); do
        echo "ready $number" >>"$context/d7/f1407.txt"
        ready w1 "$context" "$number"
        echo "$number" >>"$context/d7/f1407.txt"
        round w1 "$context" "$number"
    done
}

w2() {
    local context=$work/w2 number
    say "W2: one file of 512 MiB"
    w2_context "$context"
    for number in $(seq "$rounds"); do
        echo "ready $number" >>"$context/big"
        ready w2 "$context" "$number"
        echo "$number" >>"$context/big"
        round w2 "$context" "$number"
    done
}

report() {
    printf '\n%-18s %10s %10s %10s %10s\n' workload who seconds 'to kiln' 'peak MiB'
    sort -s -k1,2 -k3,3n "$results" | awk '
        { times[$1, $2, ++count[$1, $2]] = $3; labels[$1]; all[$2] }
        $4 > peak[$1, $2] { peak[$1, $2] = $4 }
        function median(label, who, n) {
            n = count[label, who]
            return n % 2 ? times[label, who, (n + 1) / 2] : (times[label, who, n / 2] + times[label, who, n / 2 + 1]) / 2
        }
        END {
            for (label in labels) for (who in all) if (count[label, who])
                printf "%-18s %10s %10.3f %9.2fx %10.0f\n", label, who, median(label, who),
                    median(label, who) / median(label, "kiln"), peak[label, who] / 1024
        }' | sort
}

start
[ $# -gt 0 ] || set -- w1 w2
for workload in "$@"; do
    "$workload"
done
report
