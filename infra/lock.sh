#!/bin/sh
# Makes the locks of the images from pyproject.toml and constraints.txt; needs uv.
#     infra/lock.sh              everything but torch without CUDA
#     infra/lock.sh torch-cpu    that one too: its index has to be within reach
set -eu
cd "$(dirname "$0")/.."
lock() { # what the images have; servers are also installed beside newer Pythons
    uv pip compile --quiet --python-version 3.11 "${where:---python-platform=x86_64-manylinux_2_28}" \
        --constraint constraints.txt --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links "$@"
}

printf '%s\n' uv hatchling | lock --output-file infra/lock/build.txt -
sed -n '/^servers = \[/,/^\]/s/^ *"\(.*\)",.*/\1/p' pyproject.toml |
    where=--universal lock --output-file infra/lock/servers.txt -
lock --output-file infra/lock/all.txt \
    --extra rewards --extra near-duplicates --extra quantization pyproject.toml
# torch and what it brings differ between the variants; the rest does not.
awk '/^[a-z]/ { torch = /^(torch|triton|cuda-|nvidia-)/ }
    { print > ("infra/lock/" (torch ? "torch-gpu.txt" : "worker.txt")) }' infra/lock/all.txt
rm infra/lock/all.txt
version=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' infra/lock/torch-gpu.txt)
if [ "${1:-}" = torch-cpu ]; then
    printf 'torch==%s\n' "$version" | lock --torch-backend cpu --no-deps \
        --output-file infra/lock/torch-cpu.txt -
else
    printf 'torch==%s\n' "$version" >infra/lock/torch-cpu.txt
fi
