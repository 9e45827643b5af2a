#!/bin/sh
# The demo's system, from start to end: nginx in front of a Python application that talks to redis. curl
# makes 20 good requests; while it makes one more, somebody kills the application, and curl gets half
# an answer. Leaves nothing running and nothing lying about. Exit status 0: it went as told here.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
python=${PYTHON:-/usr/bin/python3}
[ -x "$python" ] || python=python3

dir=${TMPDIR:-/tmp}/wherefore-demo.$$
started=
# Asks more than once: nginx forgets what it is told while it starts.
stop() {
  while kill "$1" 2>/dev/null; do sleep 0.1; done &
  asking=$!
  wait "$1" 2>/dev/null || true
  kill "$asking" 2>/dev/null || true
  wait "$asking" 2>/dev/null || true
}
finish() {
  trap '' INT TERM HUP
  for pid in $started; do
    stop "$pid"
  done
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir -m 700 "$dir"

fail() {
  echo "demo: $1" >&2
  tail -n 5 "$dir"/*.log >&2 || true
  exit 1
}

# Waits until the command succeeds, ten seconds at most.
wait_until() {
  tries=0
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 500 ] || fail "waited in vain for: $*"
    sleep 0.02
  done
}

# Three ports that nobody listens on, below those that the kernel hands out to clients.
ports=$("$python" - <<'PYTHON'
import random, socket

held = []
while len(held) < 3:
    candidate = socket.socket()
    try:
        candidate.bind(("127.0.0.1", random.randrange(20000, 32000)))
        held.append(candidate)
    except OSError:
        candidate.close()
print(*(s.getsockname()[1] for s in held))
PYTHON
)
# shellcheck disable=SC2086 # three words
set -- $ports
port=$1 app_port=$2 redis_port=$3

redis-server --bind 127.0.0.1 --port "$redis_port" --save '' --appendonly no --dir "$dir" \
  >"$dir/redis.log" 2>&1 &
started="$started $!"
wait_until redis-cli -p "$redis_port" ping

"$python" "$here/app.py" "$app_port" "$redis_port" "$dir/halfway" >"$dir/app.log" 2>&1 &
app=$!
started="$started $app"
wait_until curl --silent --fail "http://127.0.0.1:$app_port/ready"

sed -e "s|@DIR@|$dir|; s|@PORT@|$port|; s|@APP_PORT@|$app_port|; s|@USER@|$(id -un)|" \
  "$here/nginx.conf" >"$dir/nginx.conf"
nginx -p "$dir" -e "$dir/nginx.log" -c "$dir/nginx.conf" >"$dir/nginx.out.log" 2>&1 &
started="$started $!"
wait_until curl --silent --fail "http://127.0.0.1:$port/ready"

echo "demo: nginx on port $port, app.py ($app) on $app_port, redis on $redis_port" >&2
good=0
while [ "$good" -lt 20 ]; do
  curl --silent --fail --max-time 10 "http://127.0.0.1:$port/page" >"$dir/page" || fail "a good request failed"
  good=$((good + 1))
done
echo "demo: $good good answers" >&2

curl --silent --show-error --max-time 20 "http://127.0.0.1:$port/slow" >"$dir/slow" 2>"$dir/slow.err" &
curl=$!
started="$started $curl"
wait_until test -e "$dir/halfway"
"$here/killer.sh" "$app"
status=0
wait "$curl" || status=$?
[ "$status" -ne 0 ] || fail "curl got a whole answer although the application was killed"
echo "demo: app.py was killed while it answered; $(cat "$dir/slow.err") (status $status)" >&2
