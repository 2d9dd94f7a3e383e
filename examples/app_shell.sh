#!/bin/sh
# Calls an API with a token from brokerd: a shell script. Usage: app_shell.sh GRANT URL
# Ends with brokerctl's status where there is no token: 4 try again later, 5 revoked or needs a login, 3 not allowed.
set -eu
grant=$1 url=$2
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# The header goes to curl through a pipe: everybody on the machine can read the arguments of a program.
call() {
    printf '%s\n' "$header" | curl --silent --show-error --header @- --output "$answer" --write-out '%{http_code}' "$url"
}

header=$(brokerctl get "$grant" --header)
status=$(call)
if [ "$status" = 401 ]; then # refused before its time: have it replaced, once
    brokerctl refresh "$grant" >&2
    header=$(brokerctl get "$grant" --header)
    status=$(call)
fi
cat "$answer"
[ "$status" = 200 ] || { echo "$url answered $status" >&2; exit 1; }

# A program that takes its token from the environment needs no script at all:
#   brokerctl exec GRANT --env API_TOKEN -- the-program --its-arguments
