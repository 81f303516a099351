#!/usr/bin/env bash
# kiln's containers against docker, podman and a bare runc (Debian's packages) on this machine, taking turns within
# every round: how long `run --rm busybox true` takes, what detached containers cost in memory, and whether a start
# slows with what lies in the store. Runs in a network namespace of its own. Nothing here passes or fails.
#
#   tests/bench/containers.sh [PART]...     of host bridge memory growth; ROUNDS=20 is the default
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../fixtures/environment.sh"
source "$(dirname "${BASH_SOURCE[0]}")/workloads.sh"

[ "$(id -u)" = 0 ] || die "docker's daemon needs root"
if [ -z "${KILN_BENCH_INSIDE:-}" ]; then
    install_packages docker.io podman netavark runc iptables iproute2 busybox-static
    kiln=$(find_kiln)
    base=$("$fixtures/base/busybox.sh" --tar)
    KILN_BENCH_INSIDE=1 kiln=$kiln base=$base exec unshare --net --mount "${BASH_SOURCE[0]}" "$@"
fi
ip link set lo up
rounds=${ROUNDS:-20}
work=$(mktemp -d)
results=$work/results
export KILN_ROOT=$work/kiln DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/docker-config
docker=/usr/bin/docker
mkdir "$DOCKER_CONFIG"
echo '{}' >"$DOCKER_CONFIG/config.json"
daemon=

finish() {
    local status=$? ids
    mapfile -t ids < <("$kiln" ps -a -q 2>/dev/null)
    [ ${#ids[@]} = 0 ] || "$kiln" rm -f "${ids[@]}" >/dev/null 2>&1 || true
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    # What is mounted must not be emptied.
    awk -v work="$work/" 'index($2, work) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r umount -l || true
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

podman_here() {
    podman --storage-driver overlay --root "$work/podman" --runroot "$work/podman-run" --runtime runc \
        --cgroup-manager cgroupfs "$@"
}

start_podman() {
    # Whatever networks this machine has configured for it: the package's own way, with nothing of the machine's.
    printf '[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "%s"\n' "$work/podman-networks" \
        >"$work/containers.conf"
    export CONTAINERS_CONF=$work/containers.conf
    podman_here import -q -c 'CMD ["sh"]' "$base" busybox:latest >/dev/null
    limits=(--ulimit nofile=20000:20000 --ulimit nproc=1000:1000)
}

make_bundle() {
    mkdir -p "$work/bundle/rootfs"
    tar -xf "$base" -C "$work/bundle/rootfs"
    (cd "$work/bundle" && runc spec)
    # Of the host's network, without a terminal.
    sed -i -e 's/"terminal": true/"terminal": false/' -e 's/"sh"/"true"/' "$work/bundle/config.json"
    awk 'BEGIN { RS = ""; ORS = "\n" } { gsub(/\{\n[ \t]*"type": "network"\n[ \t]*\},\n/, ""); print }' \
        "$work/bundle/config.json" >"$work/bundle/host.json"
    mv "$work/bundle/host.json" "$work/bundle/config.json"
}

# measure LABEL WHO COMMAND...: appends "LABEL WHO SECONDS". In place of the one that also looks at memory, which would
# weigh more than what is measured here.
measure() {
    local label=$1 who=$2 before after
    shift 2
    before=$(date +%s%N)
    "$@" >"$work/out" 2>&1 </dev/null || { cat "$work/out" >&2; die "failed: $*"; }
    after=$(date +%s%N)
    awk -v label="$label" -v who="$who" -v time=$((after - before)) \
        'BEGIN { printf "%s %s %.6f\n", label, who, time / 1e9 }' >>"$results"
}

host() {
    local round
    say "run --rm on the host's network"
    for round in $(seq "$rounds"); do
        measure host runc runc run -b "$work/bundle" "bench-$$-$round"
        measure host docker "$docker" run --rm --network=host busybox true
        measure host podman podman_here run --rm "${limits[@]}" --network=host busybox true
        measure host kiln "$kiln" run --rm --network=host busybox true
    done
}

bridge() {
    local round
    say "run --rm on the default network"
    for round in $(seq "$rounds"); do
        measure bridge docker "$docker" run --rm busybox true
        measure bridge podman podman_here run --rm "${limits[@]}" busybox true
        measure bridge kiln "$kiln" run --rm busybox true
    done
    # One after the other, as scripts do.
    for round in $(seq "$rounds"); do
        measure bridge-in-a-row kiln "$kiln" run --rm busybox true
    done
}

# What the kernel says that the processes of kiln with this pattern take: each page's share of those who have it.
share() {
    local pid total=0 count=0 size network
    network=$(readlink /proc/self/ns/net)
    for pid in $(pgrep -f "$1" || true); do
        # Somebody else's are in another network.
        [ "$(readlink "/proc/$pid/ns/net")" = "$network" ] || continue
        size=$(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null || echo 0)
        total=$((total + ${size:-0}))
        count=$((count + 1))
    done
    printf '%d %d\n' "$count" "$total"
}

memory() {
    local number network
    for network in host bridge; do
        say "100 detached containers on the network $network"
        for number in $(seq 100); do
            "$kiln" run -d --network "$network" --name "m$number" busybox sleep 1000 >/dev/null
        done
        read -r count total < <(share '^kiln-(container|network)$')
        printf 'memory of 100 containers (%s): %d processes of kiln, %d KiB each container\n' "$network" "$count" \
            $((total / 100)) >>"$work/notes"
        # shellcheck disable=SC2046
        "$kiln" rm -f $(seq -f 'm%g' 100) >/dev/null
    done
}

growth() {
    local round number
    say "a start beside 500 images and 500 containers"
    for round in $(seq "$rounds"); do
        measure growth-empty kiln "$kiln" run --rm --network=host busybox true
    done
    mkdir -p "$work/context"
    for number in $(seq 500); do
        printf 'FROM busybox\nLABEL number=%s\n' "$number" >"$work/context/Dockerfile"
        "$kiln" build -q -t "beside:$number" "$work/context" >/dev/null
        "$kiln" create --network=host --name "beside$number" busybox true >/dev/null
    done
    for round in $(seq "$rounds"); do
        measure growth-500 kiln "$kiln" run --rm --network=host busybox true
    done
}

report() {
    printf '\n%-18s %-8s %9s %9s %9s\n' what who 'median ms' 'least' 'most'
    sort -s -k1,2 -k3,3n "$results" | awk '
        { key = $1 " " $2; if (!(key in count)) order[++keys] = key; times[key, ++count[key]] = $3 * 1000 }
        END {
            for (at = 1; at <= keys; at++) {
                key = order[at]; n = count[key]
                median = n % 2 ? times[key, (n + 1) / 2] : (times[key, n / 2] + times[key, n / 2 + 1]) / 2
                split(key, part, " ")
                printf "%-18s %-8s %9.1f %9.1f %9.1f\n", part[1], part[2], median, times[key, 1], times[key, n]
            }
        }'
    [ ! -e "$work/notes" ] || cat "$work/notes"
}

touch "$results"
[ $# -gt 0 ] || set -- host bridge memory growth
"$kiln" import --change 'CMD ["sh"]' "$base" busybox:latest >/dev/null
case " $* " in *\ host\ * | *\ bridge\ *)
    start_docker
    "$docker" import -c 'CMD ["sh"]' "$base" busybox:latest >/dev/null
    start_podman
    make_bundle
    ;;
esac
for part in "$@"; do
    "$part"
done
report
