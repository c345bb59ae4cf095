#!/bin/sh
# Prints the digest of every image that is used by its tag; needs docker with buildx, and a network.
#     infra/pin.sh
set -eu
cd "$(dirname "$0")"
for image in $(sed -n 's/^ARG PYTHON=//p' Dockerfile) $(sed -n 's/^ *image: \(postgres:.*\)/\1/p' compose.yaml); do
    digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image")
    echo "$image ${image%%:*}@$digest"
done
