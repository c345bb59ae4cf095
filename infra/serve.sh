#!/bin/sh
# One server, or a worker, with its secrets read from files. Images, Compose, Kubernetes and local.sh
# all start them with this:
#     serve.sh s3 | mlflow | prefect | worker | upgrade | run COMMAND ... | healthy URL
set -eu
: "${SECRETS:=/run/secrets}"        # made by secrets.sh
: "${STATE:=/data}"                 # where a server may write
: "${BIND:=127.0.0.1}"              # the address it listens on
: "${POSTGRES:=127.0.0.1:5432}"
: "${S3_PORT:=8333}" "${MLFLOW_PORT:=5000}" "${PREFECT_PORT:=4200}"
: "${S3_URL:=http://127.0.0.1:$S3_PORT}"
: "${MLFLOW_URL:=http://127.0.0.1:$MLFLOW_PORT}"
: "${PREFECT_URL:=http://127.0.0.1:$PREFECT_PORT}"
: "${BUCKET:=mlflow}"
: "${POOL:=default}" "${POOL_TYPE:=process}"
: "${SLOTS:=1}"                     # flow runs of the pool at the same time: its GPUs
export DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true PREFECT_SERVER_ANALYTICS_ENABLED=false

secret() {
    cat "$SECRETS/$1"
}

database() { # DRIVER NAME
    echo "postgresql+$1://aligntune:$(secret postgres-password)@$POSTGRES/$2"
}

s3_keys() {
    AWS_ACCESS_KEY_ID=$(secret s3-access-key)
    AWS_SECRET_ACCESS_KEY=$(secret s3-secret-key)
    export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_DEFAULT_REGION="${AWS_DEFAULT_REGION:-us-east-1}"
}

client() { # what whoever talks to MLflow and Prefect has in its environment
    MLFLOW_TRACKING_URI=$MLFLOW_URL
    MLFLOW_TRACKING_USERNAME="admin"
    MLFLOW_TRACKING_PASSWORD=$(secret mlflow-password)
    PREFECT_API_URL=$PREFECT_URL/api
    PREFECT_API_AUTH_STRING=$(secret prefect-auth)
    export MLFLOW_TRACKING_URI MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD
    export PREFECT_API_URL PREFECT_API_AUTH_STRING
}

case ${1:-} in
s3)
    # SeaweedFS. Only its S3 port is for others; the rest of it stays on loopback.
    s3_keys
    : "${WEED_PORT:=9333}"
    exec weed -logtostderr server -dir="$STATE" -ip=127.0.0.1 \
        -master.telemetry=false -master.volumeSizeLimitMB="${VOLUME_MB:-1024}" -volume.max=0 -volume.preStopSeconds=1 \
        -master.port="$WEED_PORT" -master.port.grpc=$((WEED_PORT + 1)) \
        -volume.port=$((WEED_PORT + 2)) -volume.port.grpc=$((WEED_PORT + 3)) \
        -filer.port=$((WEED_PORT + 4)) -filer.port.grpc=$((WEED_PORT + 5)) \
        -s3 -s3.port="$S3_PORT" -s3.port.grpc=$((WEED_PORT + 6)) -s3.ip.bind="$BIND" \
        -s3.port.iceberg=0 -s3.port.lance=0
    ;;
mlflow)
    s3_keys
    umask 077
    cat >"$STATE/auth.ini" <<INI
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = $(database psycopg2 mlflow)
admin_username = admin
# Passwords are hashed slowly on purpose, and every request brings one.
auth_cache_ttl_seconds = 60
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI
    MLFLOW_BACKEND_STORE_URI=$(database psycopg2 mlflow)
    MLFLOW_AUTH_ADMIN_PASSWORD=$(secret mlflow-password)
    MLFLOW_FLASK_SERVER_SECRET_KEY=$(secret mlflow-csrf-key)
    export MLFLOW_BACKEND_STORE_URI MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY
    export MLFLOW_AUTH_CONFIG_PATH="$STATE/auth.ini" MLFLOW_S3_ENDPOINT_URL="$S3_URL"
    export MLFLOW_SERVER_ALLOWED_HOSTS="localhost:*,127.0.0.1:*,${MLFLOW_HOSTS:-mlflow:*}"
    # Versions come from this server's own store; nothing makes it run or fetch what is elsewhere.
    export MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX='^(mlflow-artifacts|models|runs):/'
    export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
    exec mlflow server --app-name basic-auth --host "$BIND" --port "$MLFLOW_PORT" \
        --workers "${MLFLOW_WORKERS:-2}" --artifacts-destination "s3://$BUCKET"
    ;;
prefect)
    PREFECT_SERVER_DATABASE_CONNECTION_URL=$(database asyncpg prefect)
    PREFECT_SERVER_API_AUTH_STRING=$(secret prefect-auth)
    export PREFECT_SERVER_DATABASE_CONNECTION_URL PREFECT_SERVER_API_AUTH_STRING
    export PREFECT_HOME="$STATE" PREFECT_SERVER_UI_API_URL=/api
    export PREFECT_SERVER_UI_STATIC_DIRECTORY="$STATE/ui"  # made at the start; the root is read-only
    exec prefect server start --host "$BIND" --port "$PREFECT_PORT"
    ;;
worker)
    client
    if ! prefect work-pool inspect "$POOL" >/dev/null 2>&1; then
        set -- --type "$POOL_TYPE"
        if [ -n "${JOB_TEMPLATE:-}" ]; then set -- "$@" --base-job-template "$JOB_TEMPLATE"; fi
        prefect work-pool create "$POOL" "$@"
        prefect work-pool set-concurrency-limit "$POOL" "$SLOTS"
    fi
    set -- --pool "$POOL" --type "$POOL_TYPE"
    if [ -n "${WORKER_PORT:-}" ]; then
        export PREFECT_WORKER_WEBSERVER_HOST="$BIND" PREFECT_WORKER_WEBSERVER_PORT="$WORKER_PORT"
        set -- "$@" --with-healthcheck
    fi
    exec prefect worker start "$@"
    ;;
upgrade)
    # Prefect does so itself when it starts.
    DATABASE=$(database psycopg2 mlflow) # in the environment: everybody reads command lines
    export DATABASE
    exec python3 -c 'import os; from mlflow.cli import cli; cli(["db", "upgrade", os.environ["DATABASE"]])'
    ;;
run)
    client
    shift
    exec "$@"
    ;;
healthy)
    exec python3 -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)' "$2"
    ;;
*)
    sed -n '2,4s/^# *//p' "$0" >&2
    exit 2
    ;;
esac
