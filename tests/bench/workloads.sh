# What is built, pushed and pulled, and how it is measured: sourced by the benchmarks.

# w1_context DIRECTORY: 20,000 text files of 1 to 8 KiB, the same ones every time.
w1_context() {
    mkdir -p "$1"
    awk -v directory="$1" 'BEGIN {
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
    printf 'FROM scratch\nCOPY . /app\n' >"$1/Dockerfile"
}

# w2_context DIRECTORY: one file of 512 MiB, half random, half text.
w2_context() {
    mkdir -p "$1"
    head -c 268435456 /dev/urandom >"$1/big"
    { yes 'a line of text that compresses, as text does' || true; } | head -c 268435456 >>"$1/big"
    printf 'FROM scratch\nCOPY big /big\n' >"$1/Dockerfile"
}

# measure LABEL WHO COMMAND...: appends "LABEL WHO SECONDS PEAK-KIB" to $results; docker's daemon is $daemon, and $work is
# for whatever it needs.
measure() {
    local label=$1 who=$2 before after peak
    shift 2
    sync
    [ "$who" != docker ] || echo 5 >"/proc/$daemon/clear_refs"
    before=$(date +%s%N)
    /usr/bin/time -f %M -o "$work/peak" "$@" >"$work/out" 2>&1 </dev/null || { cat "$work/out" >&2; die "failed: $*"; }
    after=$(date +%s%N)
    peak=$(tail -n 1 "$work/peak")
    [ "$who" != docker ] || peak=$((peak + $(awk '/^VmHWM/ { print $2 }' "/proc/$daemon/status")))
    awk -v label="$label" -v who="$who" -v time=$((after - before)) -v peak="$peak" \
        'BEGIN { printf "%s %s %.6f %d\n", label, who, time / 1e9, peak }' >>"$results"
}

# start_docker OPTION...: docker's daemon with its data below $work, listening at $DOCKER_HOST; its process is $daemon.
start_docker() {
    dockerd --data-root "$work/docker" --exec-root "$work/docker-exec" -p "$work/docker.pid" -H "$DOCKER_HOST" \
        --ip6tables=false "$@" >"$work/docker.log" 2>&1 &
    daemon=$!
    for _ in $(seq 200); do
        "$docker" version >/dev/null 2>&1 && return
        sleep 0.1
    done
    cat "$work/docker.log" >&2
    die "docker does not start"
}
