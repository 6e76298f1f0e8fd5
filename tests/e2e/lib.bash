# lib.bash - what the scripts here share: where things are, TAP-like lines, running umbra. Sourced, not run.
#
# By hand: bash tests/e2e/guests.sh, after `make`; B= or UMBRA_BUILD= name another build folder.
set -uo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
UMBRA_BUILD=${UMBRA_BUILD:-$top/${B:-build}}
UMBRA=${UMBRA:-$UMBRA_BUILD/umbra}
UMBRA_CACHE=${UMBRA_CACHE:-$top/cache}
failures=0

tmp=$(mktemp -d)
cleanup() {
	local job
	for job in $(jobs -p); do
		disown "$job" 2>/dev/null	# no word about it
		kill -9 "$job" 2>/dev/null
	done
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

ok() { echo "ok - $1"; }
skip() { echo "skip - $1: $2"; }
# $1: name, $2: why, then the end of the files that tell more
not_ok() {
	local name=$1 why=$2 file
	shift 2
	failures=$((failures + 1))
	echo "not ok - $name: $why"
	for file; do
		[ ! -s "$file" ] || tail -n 12 "$file" | tr -d '\r' | cut -c 1-160 | sed 's/^/#   /'
	done
}
# $1: name, $2: why if it fails, rest: the condition, a command. Output files in $show.
show=()
check() {
	local name=$1 why=$2
	shift 2
	if "$@"; then ok "$name"; else not_ok "$name" "$why" ${show[@]+"${show[@]}"}; fi
}
finish() { exit $((failures > 0)); }

[ -x "$UMBRA" ] || { echo "not ok - $UMBRA is not there: run make"; exit 1; }

# Leaves the whole script with 77 where no guest can run.
need_kvm() {
	local status=0
	"$UMBRA" doctor >"$tmp/doctor" 2>&1 || status=$?
	[ "$status" != 77 ] || { echo "this host runs no guests: $(grep -m 1 '^fail' "$tmp/doctor")"; exit 77; }
}

# umbra run with output in $tmp/out and messages in $tmp/err; its exit code in $status. Killed after LIMIT seconds: 137.
run() {
	status=0
	timeout -s KILL "${LIMIT:-90}" "$UMBRA" run "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || status=$?
}
show=("$tmp/out" "$tmp/err")

# Waits up to $1 seconds until the rest, a command, succeeds.
wait_until() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}
