#!/usr/bin/env bash
# Parses and plans the Dockerfiles of well-known projects, as they lie in Debian's source packages. For development: it
# downloads some 40 MB, and nothing of it stays.
#
#   tests/dockerfiles.sh [PACKAGE]...
#
# Base images count as known, as for `build --check`. What fails is listed with its reason: of the packages below, those
# are Dockerfiles that need a build argument, templates, and files that only their name makes Dockerfiles.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../fixtures/environment.sh"
kiln=$(find_kiln)

# What they have in them: many stages and platforms (docker.io, containerd, bpftrace), ARG before FROM (influxdb,
# libpod), ONBUILD and VOLUME (docker.io), heredocs and mounts (libpod), old forms of ENV and LABEL (freeradius, etcd),
# services (nats-server, rspamd, prometheus, coturn), programs alone in their image (gobuster, runc, crowdsec).
packages=(bpftrace containerd coturn crowdsec docker-compose docker.io etcd freeradius gobuster influxdb knot-resolver
    libpod nats-server opensmtpd pgbackrest prometheus prometheus-mongodb-exporter recon-ng rspamd runc rust-bat skopeo)
[ $# = 0 ] || packages=("$@")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,archives,found,empty}
# This machine's mirrors, asked for sources.
mkdir "$work/sources"
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    [ ! -f "$file" ] || sed -e 's/^deb /deb-src /' -e 's/^Types: deb$/Types: deb-src/' "$file" >"$work/sources/${file##*/}"
done
[ ! -e "$work/sources/sources.list" ] || mv "$work/sources/sources.list" "$work/sources/main.list"
options=(-o Dir::Etc::sourcelist=/nonexistent -o "Dir::Etc::sourceparts=$work/sources"
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
apt-get "${options[@]}" update >/dev/null
(cd "$work/archives" && apt-get "${options[@]}" source --tar-only --download-only "${packages[@]}" >/dev/null)
for archive in "$work"/archives/*.orig*.tar.*; do
    name=$(basename "${archive%.orig*}")
    tar -xf "$archive" -C "$work/found" --transform "s,^,$name/," --wildcards --no-anchored \
        'Dockerfile*' 'Containerfile*' '*.Dockerfile' '*.dockerfile' 2>/dev/null || true
done

right=0 wrong=0
while read -r file; do
    report=$("$kiln" --root "$work/root" build --call=check,format=json -f "$work/found/$file" "$work/empty" || true)
    case $report in
        *'"buildError"'*)
            wrong=$((wrong + 1))
            printf '%s\n    %s\n' "$file" "$(sed -n 's/.*"message": *"\(.*\)".*/\1/p' <<<"${report#*buildError}" | head -1)"
            ;;
        *'"warnings"'*) right=$((right + 1)) ;;
        *) die "no report of $file: $report" ;;
    esac
done < <(cd "$work/found" && find . -type f | grep -vE '\.(dockerignore|md|go|rst|in|tmpl|j2|txt|sh|py|vim|yml|json|html)$' | sort)
say "$right Dockerfiles are planned, $wrong are not"
