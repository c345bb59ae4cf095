#!/bin/sh
# Both databases, to files and back:
#     backup.sh save FOLDER       dump them, and prove that the dumps can be restored
#     backup.sh verify FOLDER     restore them into databases that are dropped again; dump those and compare
#     backup.sh restore FOLDER    restore them, into databases that are empty
# As in serve.sh, $POSTGRES is the server and $SECRETS has its password. Files in S3 are not in it.
set -eu
: "${SECRETS:=/run/secrets}" "${POSTGRES:=127.0.0.1:5432}"
verb=${1:-} folder=${2:-}
PGPASSWORD=$(cat "$SECRETS/postgres-password")
export PGPASSWORD PGHOST="${POSTGRES%:*}" PGPORT="${POSTGRES##*:}" PGUSER=aligntune
umask 077

ask() { # DATABASE QUERY
    psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 --dbname "$1" --command "$2"
}

dump() { # DATABASE FILE
    pg_dump --format=custom --no-owner --file "$2.new" "$1"
    mv "$2.new" "$2"
}

load() { # DATABASE FILE
    test -s "$2" || { echo "$2: there is no such dump" >&2 && return 1; }
    pg_restore --exit-on-error --single-transaction --no-owner --dbname "$1" "$2"
}

content() { # FILE: its rows, without comments and the tokens that every pg_dump makes anew
    pg_restore --data-only --file - "$1" | sed '/^--/d; /^\\restrict /d; /^\\unrestrict /d' | sha256sum
}

verify() { # DATABASE
    trial="verify_$1_$$"
    again=$(mktemp)
    ask postgres "CREATE DATABASE $trial"
    if load "$trial" "$folder/$1.dump" && dump "$trial" "$again" \
        && test "$(content "$folder/$1.dump")" = "$(content "$again")"; then
        failed=0
    else
        failed=1
    fi
    ask postgres "DROP DATABASE $trial"
    rm -f "$again" "$again.new"
    test "$failed" = 0 || { echo "$folder/$1.dump: its rows are not those that come out of it" >&2 && return 1; }
    echo "$1: $folder/$1.dump can be restored"
}

restore() { # DATABASE
    tables=$(ask "$1" "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    if [ "$tables" != 0 ]; then
        echo "$1 has $tables tables; stop the servers, drop it and create it anew first" >&2
        return 1
    fi
    load "$1" "$folder/$1.dump"
    echo "$1: restored"
}

for database in mlflow prefect; do
    case "$verb ${folder:+there}" in
    "save there")
        mkdir -p "$folder"
        dump "$database" "$folder/$database.dump"
        verify "$database"
        ;;
    "verify there") verify "$database" ;;
    "restore there") restore "$database" ;;
    *) sed -n '3,5s/^# *//p' "$0" >&2 && exit 2 ;;
    esac
done
