#!/usr/bin/env bash
# Writes requirements.lock (what `make install` needs) and requirements-dev.lock (what `make test` needs): every package
# with its version and hashes, except torch and the CUDA packages that only torch wants. `make` installs torch first,
# by version, because which build is right depends on the machine.
#   scripts/lock.sh              keeps the versions already locked where they still fit
#   scripts/lock.sh --upgrade    takes the newest that fit
#   CONSTRAINTS=FILE scripts/lock.sh    takes the versions named in FILE
# Needs uv (`pip install uv`) and the package index.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() { # output, then extra arguments of uv
    local output=$1 raw
    shift
    raw=$(mktemp)
    cp "$output" "$raw" 2>/dev/null || true
    uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --quiet ${CONSTRAINTS:+-c "$CONSTRAINTS"} --output-file "$raw" "$@"
    {
        echo "# Written by scripts/lock.sh; torch is installed before this file (see Makefile)."
        awk '/^[^ #]/ { drop = ($0 ~ /^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)[ =\[]/) } !drop' "$raw"
    } >"$output"
    rm -f "$raw"
}

compile requirements.lock "$@"
compile requirements-dev.lock --extra dev "$@"

# The installer itself.
{
    echo "# Written by scripts/lock.sh: the installer that make uses."
    echo "uv${UV_VERSION:+==$UV_VERSION}" | uv pip compile - --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet
} >requirements-tools.lock
