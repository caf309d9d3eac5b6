# Shared by the launchers' tests: the very lines of docs/launching.md, a fabricd of our own, and what every launcher must do.
# A launcher's script names the places of the documentation (block), starts its services with serve(), its job with foreground(),
# and then calls expect_links, end_without_loss and friends. Needs BUILD_DIR and SOURCE_DIR, or takes this tree's.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ "${GUARDED:-}" ] || exec "$here/guard" "$0" "$@" # whatever becomes of this script, nothing of it is left
: "${SOURCE_DIR:=$(cd "$here/../.." && pwd)}"
: "${BUILD_DIR:=$SOURCE_DIR/build}"
export BUILD_DIR SOURCE_DIR
. "$here/../e2e/lib.sh"
key=$dir/state/authkey
cores=$(python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)))')
skip() { echo "skipped: $*"; exit 77; }
[ -x "$BUILD_DIR/apps/fabricd" ] || skip "no programs in $BUILD_DIR: meson setup build; ninja -C build"
install=false
case ${1:-} in
--install) install=true ;;
'') ;;
*) echo "usage: $0 [--install]" >&2; exit 2 ;;
esac

need() { # PROGRAM PACKAGE...: that there is the program, or a reason to skip
    local program=$1
    shift
    command -v "$program" >/dev/null && return
    $install || skip "no $program: apt-get install $*, or $0 --install"
    [ "$(id -u)" = 0 ] || skip "no $program, and not root: sudo apt-get install $*"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; } \
        >"$dir/apt.log" 2>&1 || skip "$* could not be installed: $(tail -1 "$dir/apt.log")"
}
PATH=$PATH:/usr/sbin:/sbin

block() { # SECTION N: the Nth indented block of that section of the documentation
    awk -v want="## $1" -v n="$2" '
        /^## / {on = $0 == want; blocks = 0; inside = 0; next}
        on && /^    / {if (!inside) {inside = 1; blocks++}; if (blocks == n) print substr($0, 5); next}
        {inside = 0}' "$SOURCE_DIR/docs/launching.md"
}
here_is() { # the documentation's places -> this test's
    sed -e "s,tcp://head:50000,tcp://127.0.0.1:$port," -e 's,$HOME/.fabric-key,.fabric-key,' -e "s,.fabric-key,$key,"
}
serve() { # LOGFILE TEXT COMMAND...: in the background, and ready when its log has the text
    local log=$1 text=$2
    shift 2
    start "$log" "$@"
    await "$log" "$text" || { echo "FAILED: $1 does not start: $(tail -5 "$log")"; exit 1; }
}
foreground() { # LOGFILE COMMAND...: as a terminal's foreground job: a process group of its own ($job), Ctrl-C not ignored
    start "$1" python3 -c 'import os, signal, sys
os.setsid()
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])' "${@:2}"
    job=$pid
}
fabric() {
    port=$(free_port)
    printf '[listen]\naddress = "127.0.0.1:%s"\n[segment]\nkeep = "0s"\n' "$port" >"$dir/node.toml"
    serve "$dir/fabricd.log" 'ready on' fabricd -c "$dir/node.toml"
    fabricd=$pid
}

links() { # the cores of the workers' links that are up, in order
    timeout 10 fabctl links --json | python3 -c '
import json, sys
print(*sorted(int(l["name"].split("/")[1]) for l in json.load(sys.stdin)["links"] if l["role"] == "worker" and l["state"] == "up"))'
}
workers() { # their pids, however they were launched: they have our key
    grep -lzFx -- "$key" /proc/[0-9]*/cmdline 2>/dev/null | while IFS=/ read -r _ _ p _; do
        [ "$(cat "/proc/$p/comm" 2>/dev/null)" = fabworker ] && echo "$p"
    done
}
trap 'type end_jobs >/dev/null 2>&1 && end_jobs
    cleanup' EXIT
until_same() { # SECONDS EXPECTED COMMAND...: what it says when it says so, or at the end
    local end=$((SECONDS + $1)) want=$2 got
    shift 2
    while got=$("$@"); [ "$got" != "$want" ] && [ $SECONDS -lt $end ]; do sleep 0.1; done
    echo "$got"
}
twice() { printf '%s\n' $cores $cores | sort -n | paste -sd' '; }
expect_links() { # WHAT CORES
    same "$1: a link for each core: $2" "$2" "$(until_same 30 "$2" links)"
    [ $failed = 0 ] || { sed 's/^/   /' "$dir/job.log"; exit 1; }
    same "$1: it runs tasks" 106373551 "$(timeout 20 fabctl submit feb 48)"
    same "$1: thousands" 20000 "$(timeout 60 fabctl submit --count 20000 feb 48 | grep -c '^106373551$')"
}
gone() { # WHAT
    local from=$(date +%s%N)
    same "$1: no links are left" "" "$(until_same 10 "" links)"
    same "$1: no workers are left" "" "$(until_same 10 "" workers)"
    echo "   (within $((($(date +%s%N) - from) / 1000000)) ms)"
}
end_without_loss() { # WHAT COMMAND...: which ends the launched workers in the middle of their tasks; a local one gets what is left
    local what=$1 submit after
    shift
    start "$dir/tasks" timeout 60 fabctl submit --count 60 sleep 100ms
    submit=$pid
    ok "$what: tasks are under way" await "$dir/tasks" .
    "$@"
    gone "$what"
    ok "$what: some are not done yet" kill -0 "$submit"
    start "$dir/after.log" fabworker --server "unix:$dir/run/fabricd.sock" --cores all
    after=$pid
    wait "$submit"; same "$what: the others are done by another worker" "0 60" "$? $(wc -l <"$dir/tasks")"
    kill "$after"; wait "$after"
}
kill_one() { # WHAT: one of two workers; the other goes on
    local left
    kill -9 "$(workers | head -1)"
    left=$(until_same 10 1 eval 'workers | wc -l')
    same "$1: one worker is killed, the other stays" 1 "$left"
    same "$1: and runs tasks" 106373551 "$(timeout 20 fabctl submit feb 48)"
    sleep 1 # a launcher that ends the others because of it does so at once
    same "$1: still" 1 "$(workers | wc -l)"
}
finish() { # the fabric lost nothing and nobody had to be found by the net
    same "nothing waits, nothing is held" "0 0" "$(timeout 10 fabctl status --json | python3 -c '
import json, sys
s = json.load(sys.stdin)
print(sum(q["ready"] + q["leased"] for q in s["queues"]), s["fabric"]["net_catches"])')"
    kill "$fabricd"; wait "$fabricd"; same "fabricd drains" 0 $?
    exit $failed
}
