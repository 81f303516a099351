#!/usr/bin/env bash
# kiln's registry and Debian's docker-registry in turns on this machine: requests per second for manifests by tag, small
# blobs and durable uploads of 64 KiB; MB/s of large blobs, for one client and for 200 at once, beside nginx with the same
# file; what 100 uploads of 1 GB at once take. Prints the medians, and each one's peak of memory.
#
#   tests/bench/registry.sh [KILN]     the binary to measure, by default the release build
#
# SECONDS_EACH (3) and ROUNDS (3) say how long it measures.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../fixtures/environment.sh"
cd "$project"
install_packages wrk curl docker-registry nginx
cargo build -q --release --locked -p kiln-tests --example load
load=$(find "$target" -path '*/release/examples/load' | head -n 1)
kiln=${1:-$(find_kiln)}
each=${SECONDS_EACH:-3} rounds=${ROUNDS:-3}
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
ours=$(port) theirs=$(port) static=$(port)
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
    curl -sf -X PUT -T "$2" -H 'Content-Type: application/octet-stream' "${location}digest=$(digest "$2")"
}
printf '{}' >"$work/config"
head -c 4096 /dev/urandom >"$work/layer"
head -c 268435456 /dev/urandom >"$work/large"
head -c 33554432 /dev/urandom >"$work/medium" # for many at once
type=application/vnd.oci.image.manifest.v1+json
printf '{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":4096}]}' \
    "$type" "$(digest "$work/config")" "$(digest "$work/layer")" >"$work/manifest"
for port in "$ours" "$theirs"; do
    push_blob "$port" "$work/config"
    push_blob "$port" "$work/layer"
    push_blob "$port" "$work/large"
    push_blob "$port" "$work/medium"
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

# nginx serves the same file as a file.
cat >"$work/nginx.conf" <<NGINX
worker_processes auto;
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    server { listen 127.0.0.1:$static; root $work; }
}
NGINX
chmod 755 "$work"
nginx -c "$work/nginx.conf" >/dev/null 2>&1 &
pids+=($!)
curl --silent --retry 50 --retry-connrefused --retry-delay 1 --output /dev/null "http://127.0.0.1:$static/layer"

measure() { # script, connections, threads, path, port
    wrk -t"$3" -c"$2" -d"${each}s" -s "$work/$1.lua" "http://127.0.0.1:$5$4" | sed -n 's/^Requests\/sec: *//p'
}
head_requests() { "$load" head "127.0.0.1:$5" "$4" "$2" "$each"; } # as measure
pull_large() { "$load" pull "127.0.0.1:$5" "$4" "$2" "$3"; }      # the third is how often
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
# compare TITLE THEIRS COMMAND...: runs the command with our port and then theirs as its last word, in turns.
compare() {
    local title=$1 other=$2 one two
    shift 2
    rm -f "$work/ours" "$work/theirs"
    for _ in $(seq "$rounds"); do
        sync; "$@" "$ours" >>"$work/ours"
        sync; "$@" "$other" >>"$work/theirs"
    done
    one=$(median <"$work/ours") two=$(median <"$work/theirs")
    awk -v title="$title" -v one="$one" -v two="$two" \
        'BEGIN { printf "%-34s %10.0f %16.0f %8.2fx\n", title, one, two, one / two }'
}
peaks() {
    for pid in "${pids[@]:0:2}"; do
        echo "peak memory of $(cat "/proc/$pid/comm"): $(sed -n 's/^VmHWM:[[:space:]]*//p' "/proc/$pid/status")"
    done
}
manifest=/v2/bench/manifests/1 large=/v2/bench/blobs/$(digest "$work/large")
medium=/v2/bench/blobs/$(digest "$work/medium")
# Whoever comes first pays for memory that was never touched, and has the bytes hashed: that is not measured.
for port in "$ours" "$theirs"; do
    for blob in "$large" "$medium"; do curl -sf -o /dev/null "http://127.0.0.1:$port$blob"; done
    pull_large - 200 1 "$medium" "$port" >/dev/null
done
printf '%-34s %10s %16s %9s\n' 'requests per second' kiln docker-registry ''
compare 'manifest GET' "$theirs" measure get 16 1 "$manifest"
compare 'manifest HEAD' "$theirs" head_requests - 16 - "$manifest"
compare 'blob GET, 4 KiB' "$theirs" measure get 16 1 "/v2/bench/blobs/$(digest "$work/layer")"
# One connection a thread: its requests take turns.
compare 'upload of 64 KiB (2 requests)' "$theirs" measure upload 8 8 /
printf '%-34s %10s %16s %9s\n' 'MB/s of 256 MiB' kiln docker-registry ''
compare 'one client, 4 times' "$theirs" pull_large - 1 4 "$large"
compare '200 clients at once, 32 MiB each' "$theirs" pull_large - 200 1 "$medium"
printf '%-34s %10s %16s %9s\n' 'MB/s of 256 MiB' kiln nginx ''
ln -s "$work" "$work/v2"
mkdir "$work/bench" "$work/bench/blobs"
ln -s "$work/large" "$work${large#/v2}"
ln -s "$work/medium" "$work${medium#/v2}"
pull_large - 200 1 "$medium" "$static" >/dev/null
compare 'one client, 4 times' "$static" pull_large - 1 4 "$large"
compare '8 clients at once' "$static" pull_large - 8 1 "$large"
compare '200 clients at once, 32 MiB each' "$static" pull_large - 200 1 "$medium"
peaks
echo '100 uploads of 1 GB at once, 16 MiB of each sent:'
for pid in "${pids[@]:0:2}"; do echo 5 >"/proc/$pid/clear_refs"; done
echo "  kiln $("$load" upload "127.0.0.1:$ours" bench 100 1000000000 16777216) MB/s"
peaks
