#!/usr/bin/env bash
# Runs every test of the workspace: format, lints, unit tests, and the end-to-end tests that need root, two ordinary
# users, Debian's container tools and its mirrors. Installs what is missing. Ends with the runner's closing line.
#
#   tests/run.sh [FILTER]...     arguments go to the test runner
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../fixtures/environment.sh"
cd "$project"

[ "$(id -u)" = 0 ] || die "the tests start docker, make devices and switch users: run them as root"
command -v cargo >/dev/null || die "cargo is needed: install Rust from https://rustup.rs"

packages=(
    gcc libc6-dev make                              # the compilation
    busybox-static mmdebstrap                       # base images
    uidmap attr libcap2-bin curl time xz-utils bzip2 openssl git openssh-client # what tests use
    strace                                          # killing at every step
    docker.io iptables podman skopeo umoci runc crun docker-registry # the peers
    buildah nginx-light                             # a client of the registry, and a proxy before it
    chromium                                        # its web page's reader
    systemd iproute2                                # its service, and networks of its own
)
install_packages "${packages[@]}"

# kiln-test has a range of subordinate ids, kiln-plain has none.
for user in kiln-test kiln-plain; do
    id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/sh "$user"
done
for file in /etc/subuid /etc/subgid; do
    touch "$file"
    # useradd may have given both a range of its own.
    sed -i '/^kiln-plain:/d; /^kiln-test:/d' "$file"
    start=$(awk -F: 'BEGIN { top = 100000 } { end = $2 + $3; if (end > top) top = end } END { print top }' "$file")
    echo "kiln-test:$start:65536" >>"$file"
done

say "format and lints"
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings

say "kiln, release build"
cargo build --release --locked -p kiln-cli
unset KILN_BIN
KILN_BIN=$(find_kiln)
export KILN_BIN

say "base file systems"
"$fixtures/base/busybox.sh" --tar >/dev/null
"$fixtures/base/debian.sh" --tar >/dev/null

say "tests"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked --no-fail-fast --config-file tests/nextest.toml "$@"
else
    cargo test --workspace --locked --no-fail-fast "$@"
fi
