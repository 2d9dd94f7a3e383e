#!/bin/sh
# Calls an API with a token from brokerd: a shell script. Usage: app_shell.sh GRANT URL
# If there is no token, it ends with brokerctl's status: 3 not allowed, 4 try again later, 5 revoked or needs a login.
set -eu
grant=$1 url=$2
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# curl reads the header from a pipe, because everybody on the machine can read the arguments of a program.
call() {
    printf '%s\n' "$header" | curl --silent --show-error --header @- --output "$answer" --write-out '%{http_code}' "$url"
}

header=$(brokerctl get "$grant" --header)
status=$(call)
if [ "$status" = 401 ]; then # refused before its expiry: get a new token, once
    brokerctl refresh "$grant" >&2
    header=$(brokerctl get "$grant" --header)
    status=$(call)
fi
cat "$answer"
[ "$status" = 200 ] || { echo "$url answered $status" >&2; exit 1; }

# A program that reads its token from the environment needs no script:
#   brokerctl exec GRANT --env API_TOKEN -- the-program --its-arguments
