#!/bin/sh
# Calls an API with a token from brokerd over HTTP: a shell with curl. Usage: app_http.sh GRANT URL
set -eu
grant=$1 url=$2 socket=${BROKERD_HTTP_SOCKET:-/run/brokerd/http.sock}
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

broker() { curl --silent --show-error --fail-with-body --unix-socket "$socket" "$@"; }
# The header goes to curl through a pipe: everybody on the machine can read the arguments of a program.
call() {
    printf '%s\n' "$header" | curl --silent --show-error --header @- --output "$answer" --write-out '%{http_code}' "$url"
}

header=$(broker "http://brokerd/v1/header/$grant") || { echo "$header" >&2; exit 1; }
status=$(call)
if [ "$status" = 401 ]; then # the API refused the token before its time: report it, once
    printf '%s' "${header##* }" | broker --data-binary @- --output /dev/null "http://brokerd/v1/refused/$grant"
    header=$(broker "http://brokerd/v1/header/$grant")
    status=$(call)
fi
cat "$answer"
[ "$status" = 200 ] || { echo "$url answered $status" >&2; exit 1; }
