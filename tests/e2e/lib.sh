# Shared by the end-to-end tests: a private directory, programs started and ended by pid, checks that count.
# Needs BUILD_DIR; SOURCE_DIR where a test says so.
set -u
PATH=$BUILD_DIR/apps:$PATH
dir=$(mktemp -d "${GUARDED:-/tmp}/fabric-e2e-XXXXXX")
export FABRIC_RUNTIME_DIR=$dir/run FABRIC_STATE_DIR=$dir/state
unset FABRIC_SERVER FABRIC_KEY_FILE
pids=()
failed=0

cleanup() {
    for p in "${pids[@]}"; do kill -9 "$p" 2>/dev/null; done
    wait 2>/dev/null
    type more_cleanup >/dev/null 2>&1 && more_cleanup
    rm -rf "$dir"
}
trap cleanup EXIT

ok() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@"; then echo "ok: $what"; else echo "FAILED: $what"; failed=1; fi
}
same() { # WHAT EXPECTED GOT
    if [ "$2" = "$3" ]; then echo "ok: $1"; else printf 'FAILED: %s\n  expected: %s\n  got:      %s\n' "$1" "$2" "$3"; failed=1; fi
}
contains() { # WHAT NEEDLE HAYSTACK
    case "$3" in *"$2"*) echo "ok: $1" ;; *) printf 'FAILED: %s\n  expected in it: %s\n  got: %s\n' "$1" "$2" "$3"; failed=1 ;; esac
}
await() { # FILE TEXT: until the file has the text, at most $AWAIT (10) s; woken by changes of the file
    timeout "${AWAIT:-10}" bash -c '
        exec 3< <(exec tail --pid=$$ -n +1 -F "$1" 2>/dev/null)
        tail=$!
        grep -q -m1 -- "$2" <&3; found=$?
        kill $tail; exit $found' _ "$1" "$2"
}
ended() { # PID [SECONDS]: until the process has ended, at most 10 s; also where nobody reaps it, as in containers without an init
    python3 -c 'import os, select, sys
try:
    fd = os.pidfd_open(int(sys.argv[1]))
except ProcessLookupError:
    sys.exit(0)
p = select.poll()
p.register(fd, select.POLLIN)
sys.exit(0 if p.poll(1000 * int(sys.argv[2])) else 1)' "$1" "${2:-10}"
}
free_port() {
    python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'
}
start() { # LOGFILE COMMAND...: in the background; its pid in $pid
    local log=$1
    shift
    "$@" >"$log" 2>&1 &
    pid=$!
    pids+=("$pid")
}
