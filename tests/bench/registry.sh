#!/usr/bin/env bash
# Requests per second of kiln's registry and of Debian's docker-registry, in turns on this machine: manifests by tag,
# small blobs, and durable uploads of 64 KiB. Prints the medians, and each one's peak of memory. (wrk waits for the body that a HEAD has not, so HEAD is not measured.)
#
#   tests/bench/registry.sh [KILN]     the binary to measure, by default the release build
#
# SECONDS_EACH (3) and ROUNDS (3) say how long it measures.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../fixtures/environment.sh"
cd "$project"
install_packages wrk curl docker-registry
kiln=${1:-$(find_kiln)}
each=${SECONDS_EACH:-3} rounds=${ROUNDS:-3}
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
ours=$(port) theirs=$(port)
"$kiln" registry serve --listen "127.0.0.1:$ours" --data "$work/kiln" >/dev/null 2>&1 &
pids+=($!)
printf 'version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "127.0.0.1:%s"}\n' \
    "$work/distribution" "$theirs" >"$work/config.yml"
docker-registry serve "$work/config.yml" >/dev/null 2>&1 &
pids+=($!)
for port in "$ours" "$theirs"; do
    curl --silent --retry 50 --retry-connrefused --retry-delay 1 --output /dev/null "http://127.0.0.1:$port/v2/"
done

digest() { echo "sha256:$(sha256sum "$1" | cut -d' ' -f1)"; }
push_blob() { # port, file
    local location
    location=$(curl -si -X POST "http://127.0.0.1:$1/v2/bench/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    case $location in http*) ;; *) location="http://127.0.0.1:$1$location" ;; esac
    case $location in *\?*) location="$location&" ;; *) location="$location?" ;; esac
    curl -sf -X PUT --data-binary "@$2" -H 'Content-Type: application/octet-stream' "${location}digest=$(digest "$2")"
}
printf '{}' >"$work/config"
head -c 4096 /dev/urandom >"$work/layer"
type=application/vnd.oci.image.manifest.v1+json
printf '{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":4096}]}' \
    "$type" "$(digest "$work/config")" "$(digest "$work/layer")" >"$work/manifest"
for port in "$ours" "$theirs"; do
    push_blob "$port" "$work/config"
    push_blob "$port" "$work/layer"
    curl -sf -X PUT --data-binary "@$work/manifest" -H "Content-Type: $type" "http://127.0.0.1:$port/v2/bench/manifests/1"
done

cat >"$work/get.lua" <<LUA
wrk.headers["Accept"] = "$type"
LUA
# An upload is a POST and a PUT to where that points; each client sends the same bytes into a repository of its own.
head -c 65536 /dev/urandom >"$work/64k"
cat >"$work/upload.lua" <<LUA
local file = io.open("$work/64k", "rb")
local bytes = file:read("*a")
local location = nil
local number = 0
function request()
    if location then
        local target = location .. (location:find("?", 1, true) and "&" or "?") .. "digest=$(digest "$work/64k")"
        location = nil
        return wrk.format("PUT", target, {["Content-Type"] = "application/octet-stream"}, bytes)
    end
    return wrk.format("POST", "/v2/bench/blobs/uploads/", {["Content-Length"] = "0"})
end
function response(status, headers)
    if status == 202 then
        local target = headers["Location"] or headers["location"]
        location = target:gsub("^https?://[^/]+", "")
    end
end
LUA

measure() { # script, connections, threads, path, port
    wrk -t"$3" -c"$2" -d"${each}s" -s "$work/$1.lua" "http://127.0.0.1:$5$4" | sed -n 's/^Requests\/sec: *//p'
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
row() { # title, script, connections, threads, path
    local one two
    for _ in $(seq "$rounds"); do
        sync; measure "$2" "$3" "$4" "$5" "$ours" >>"$work/$2.ours"
        sync; measure "$2" "$3" "$4" "$5" "$theirs" >>"$work/$2.theirs"
    done
    one=$(median <"$work/$2.ours") two=$(median <"$work/$2.theirs")
    awk -v title="$1" -v one="$one" -v two="$two" \
        'BEGIN { printf "%-28s %10.0f %16.0f %8.1fx\n", title, one, two, one / two }'
    rm -f "$work/$2".{ours,theirs}
}
printf '%-28s %10s %16s %9s\n' 'requests per second' kiln docker-registry ''
row 'manifest GET' get 16 1 /v2/bench/manifests/1
row 'blob GET, 4 KiB' get 16 1 "/v2/bench/blobs/$(digest "$work/layer")"
# One connection a thread: its requests take turns.
row 'upload of 64 KiB (2 requests)' upload 8 8 /
for pid in "${pids[@]}"; do
    echo "peak memory of $(cat "/proc/$pid/comm"): $(sed -n 's/^VmHWM:[[:space:]]*//p' "/proc/$pid/status")"
done
