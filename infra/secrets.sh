#!/bin/sh
# Makes the secrets that are missing, each in a file that only its owner reads:
#     infra/secrets.sh [DIRECTORY]
# Compose mounts them, Kubernetes gets them with
#     kubectl create secret generic aligntune --from-file=infra/secrets
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$folder"
for name in postgres-password s3-access-key s3-secret-key mlflow-password mlflow-csrf-key \
    prefect-auth; do
    test -s "$folder/$name" && continue
    case $name in *-auth) user=admin: ;; *) user= ;; esac
    printf '%s%s' "$user" "$(head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n')" >"$folder/$name.new"
    mv "$folder/$name.new" "$folder/$name"
done
test $# = 0 || exit 0
# Containers run as whoever owns these files, so that they can read them, and never as root.
owner=$(id -u)
if [ "$owner" = 0 ]; then
    owner=10001
    chown -R "$owner:$owner" "$folder"
fi
printf 'ALIGNTUNE_UID=%s\n' "$owner" >"$(dirname "$0")/.env"
