#!/usr/bin/env bash
# kiln against docker, buildah and skopeo (Debian's) with a registry on loopback: pushing what was just built, pulling it
# with unpacking, and copying blobs that are ready. Medians, ratios and peak memory as a table; nothing passes or fails.
# The rivals take turns within every round, and every round has content of its own, so that nobody has it already.
#
#   tests/bench/transfer.sh [WORKLOAD]...     of w1 w2; ROUNDS=5 is the default
#
# REGISTRIES="docker-registry kiln", the default, says with which registries: Debian's, and kiln's own.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../fixtures/environment.sh"
source "$(dirname "${BASH_SOURCE[0]}")/workloads.sh"

[ "$(id -u)" = 0 ] || die "docker's daemon needs root"
install_packages docker.io iptables buildah skopeo docker-registry time
kiln=$(find_kiln)
rounds=${ROUNDS:-5}
read -ra kinds <<<"${REGISTRIES:-docker-registry kiln}"
# A file system of its own, as Debian's installer makes it: without a journal, ext4 is slow for a minute to make files
# where others were removed, whoever did that.
place=$(mktemp -d)
work=$place/work
mkdir "$work"
truncate -s 30G "$place/disk"
mkfs.ext4 -q "$place/disk"
disk=$(losetup --find --show --direct-io=on "$place/disk")
mount -o discard "$disk" "$work"
# What a registry writes is the same for everybody: it is the clients that are measured. Debian's keeps it in memory, since
# it does not wait for the disk, and would keep that busy later; kiln's has it on the disk when it answers.
mkdir "$place/registries"
mount -t tmpfs none "$place/registries"
export TMPDIR=$work
results=$work/results
export DOCKER_HOST=unix://$work/docker.sock DOCKER_BUILDKIT=1 DOCKER_CONFIG=$work/docker-config
docker=/usr/bin/docker
buildah=(buildah --root "$work/buildah" --runroot "$work/buildah-run" --storage-driver overlay)
daemon= host= other= third= registries=()
declare -A addresses

finish() {
    local status=$?
    for process in $daemon "${registries[@]}"; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    umount -R -l "$work/docker/overlay2" "$work/buildah/overlay" 2>/dev/null || true
    umount -l "$work/docker-exec/netns/default" "$work/docker" 2>/dev/null || true
    umount -l "$place/registries" "$work"
    losetup --detach "$disk"
    rm -rf "$place"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() {
    mkdir -p "$DOCKER_CONFIG"
    echo '{}' >"$DOCKER_CONFIG/config.json" # buildah insists on it
    start_docker --bridge=none --iptables=false
    local kind
    for kind in "${kinds[@]}"; do
        start_registry "$kind" host
        start_registry "$kind" other
        start_registry "$kind" third
    done
}

# start_registry KIND NAME: one of its own, whose address is ${addresses[KIND NAME]} then.
start_registry() {
    local address
    address=127.0.0.1:$(free_port)
    case $1 in
    docker-registry)
        printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "%s"}\n' \
            "$place/registries/$2" "$address" >"$work/registry-$2.yml"
        docker-registry serve "$work/registry-$2.yml" >"$work/registry.log" 2>&1 &
        ;;
    kiln) "$kiln" registry serve --listen "$address" --data "$work/registry-$2" >"$work/registry.log" 2>&1 & ;;
    *) die "there is no registry $1" ;;
    esac
    registries+=($!)
    addresses[$1 $2]=$address
    for _ in $(seq 200); do
        curl -fs "http://$address/v2/" >/dev/null && return
        sleep 0.1
    done
    cat "$work/registry.log" >&2
    die "the registry does not start"
}

# What is made and removed beside the measured commands.
silently() { "$@" >"$work/out" 2>&1 </dev/null || { cat "$work/out" >&2; die "failed: $*"; }; }

# use_registries KIND
use_registries() {
    host=${addresses[$1 host]} other=${addresses[$1 other]} third=${addresses[$1 third]}
}

# The host of a virtual machine takes memory back that nobody uses, and gives it again slowly, page by page. What a
# registry in memory needs is found before each measurement, for everybody. Arguments as of measure.
take_turn() {
    sync
    head -c 768M /dev/zero >"$place/registries/found"
    rm "$place/registries/found"
    measure "$@"
}

# One round: everybody builds, pushes, and pulls what somebody else has built; then the blobs are copied. Nothing is
# removed meanwhile: a file system may be slow to make files just after it has removed as many.
round() {
    local name=$1 context=$2 number=$3 label=$4/$1 reference who
    for who in docker buildah kiln; do
        reference=$host/$who/$name:$number
        case $who in
        docker)
            silently "$docker" build -q --network=host --no-cache -t "$reference" "$context"
            take_turn "$label-push" docker "$docker" push -q "$reference"
            take_turn "$label-pull" docker "$docker" pull -q "$host/kiln-ready/$name:$number"
            ;;
        buildah)
            silently "${buildah[@]}" bud -q --isolation chroot -t "$reference" "$context"
            take_turn "$label-push" buildah "${buildah[@]}" push -q --tls-verify=false "$reference"
            take_turn "$label-pull" buildah "${buildah[@]}" pull -q --tls-verify=false "$host/kiln-ready/$name:$number"
            ;;
        kiln)
            export KILN_ROOT=$work/kiln/$name-$number
            silently "$kiln" build -q -t "$reference" "$context"
            take_turn "$label-push" kiln "$kiln" push -q "$reference"
            export KILN_ROOT=$work/kiln/$name-$number-pulled
            take_turn "$label-pull" kiln "$kiln" pull -q "$host/kiln-ready/$name:$number"
            ;;
        esac
    done
    # Each to a registry that has none of it, so that there is nothing to mount.
    for who in skopeo kiln; do
        local layout=oci:$work/layouts/$name-$number-$who:x
        mkdir -p "$work/layouts"
        if [ "$who" = skopeo ]; then
            take_turn "$label-fetch-ready" skopeo skopeo copy -q --src-tls-verify=false \
                "docker://$host/kiln-ready/$name:$number" "$layout"
            take_turn "$label-send-ready" skopeo skopeo copy -q --dest-tls-verify=false \
                "$layout" "docker://$other/skopeo-sent/$name-$number:x"
        else
            take_turn "$label-fetch-ready" kiln "$kiln" copy -q "docker://$host/kiln-ready/$name:$number" "$layout"
            take_turn "$label-send-ready" kiln "$kiln" copy -q "$layout" "docker://$third/kiln-sent/$name-$number:x"
        fi
    done
}

# The image that everybody pulls in a round, which nobody has pushed himself.
ready() {
    export KILN_ROOT=$work/kiln/$1-$3-ready
    silently "$kiln" build -q -t "$host/kiln-ready/$1:$3" "$2"
    silently "$kiln" push -q "$host/kiln-ready/$1:$3"
}

# What the rounds have left behind.
tidy() {
    silently "$docker" system prune -af
    silently "${buildah[@]}" rmi -a -f
    rm -rf "$work/kiln" "$work/layouts" "$place"/registries/*/docker
}

# workload NAME TITLE FILE: rounds over a context of which this file changes every time.
workload() {
    local name=$1 context=$work/$1 round kind number
    say "$2"
    "$1_context" "$context"
    for round in $(seq "$rounds"); do
        for kind in "${kinds[@]}"; do
            number=$round-$kind
            use_registries "$kind"
            echo "ready $number" >>"$context/$3"
            ready "$name" "$context" "$number"
            echo "$number" >>"$context/$3"
            round "$name" "$context" "$number" "$kind"
            # A few large files may go at once, and are too much for many rounds.
            [ "$name" = w1 ] || tidy
        done
    done
    tidy
}

report() {
    printf '\n%-30s %10s %10s %10s %10s\n' registry/workload who seconds 'to kiln' 'peak MiB'
    sort -s -k1,2 -k3,3n "$results" | awk '
        { times[$1, $2, ++count[$1, $2]] = $3; labels[$1]; all[$2] }
        $4 > peak[$1, $2] { peak[$1, $2] = $4 }
        function median(label, who, n) {
            n = count[label, who]
            return n % 2 ? times[label, who, (n + 1) / 2] : (times[label, who, n / 2] + times[label, who, n / 2 + 1]) / 2
        }
        END {
            for (label in labels) for (who in all) if (count[label, who])
                printf "%-30s %10s %10.3f %9.2fx %10.0f\n", label, who, median(label, who),
                    median(label, who) / median(label, "kiln"), peak[label, who] / 1024
        }' | sort
}

start
[ $# -gt 0 ] || set -- w1 w2
for name in "$@"; do
    case $name in
    w1) workload w1 "W1: 20,000 text files" d7/f1407.txt ;;
    w2) workload w2 "W2: one file of 512 MiB" big ;;
    *) die "there is no workload $name" ;;
    esac
done
report
