# lib.bash - what the recipes here share: where umbra is, which guest is meant, what this host lacks. Sourced, not run.
#
# A recipe exits 77 with one line that says what is missing and how to get it, 2 on a mistake in its arguments, 1 if there is
# no guest to look at.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
UMBRA=$(realpath -m "${UMBRA:-${UMBRA_BUILD:-$top/build}/umbra}")
me=scripts/perf/$(basename "$0")

die() { echo "$me: $2" >&2; exit "$1"; }
lacks() { die 77 "$1"; }

# The comment at the head of the recipe.
usage() { sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//p}' "$0"; }
[[ ${1-} != -h && ${1-} != --help ]] || { usage; exit 0; }

need_umbra() { [ -x "$UMBRA" ] || die 1 "$UMBRA is not there: run make, or set UMBRA"; }

# perf, and the permission to use it: perf_event_open(2).
need_perf() {
	command -v perf >/dev/null || lacks "perf is missing: apt-get install linux-perf"
	[ -e /proc/sys/kernel/perf_event_paranoid ] || lacks "this kernel has no perf events (CONFIG_PERF_EVENTS)"
	local error
	error=$(perf stat -e task-clock -- true 2>&1) ||
		lacks "perf may not be used here: $(grep -m 1 -iE 'paranoid|permit|access|error' <<<"$error" || head -n 1 <<<"$error")"
}

# Counters of the processor. Virtual machines often have none.
need_counters() {
	need_perf
	! perf stat -e cycles,instructions -- true 2>&1 | grep -qE 'not (supported|counted)' ||
		lacks "this host shows no hardware counters (a virtual machine, as a rule): run on bare metal, or give the VM a PMU"
}

# The folder of tracefs in $tracefs.
need_tracefs() {
	[ "$(id -u)" = 0 ] || lacks "tracepoints and probes are for root: use sudo"
	for tracefs in /sys/kernel/tracing /sys/kernel/debug/tracing; do
		[ ! -e "$tracefs/events" ] || return 0
	done
	grep -qw tracefs /proc/filesystems || lacks "this kernel has no tracefs (CONFIG_FTRACE)"
	lacks "tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing"
}

# Probes in programs.
need_uprobes() {
	need_tracefs
	[ -e "$tracefs/uprobe_events" ] || lacks "this kernel knows no probes in programs (CONFIG_UPROBE_EVENTS)"
	need_umbra
	has_probes || lacks "$UMBRA has no probes: apt-get install systemtap-sdt-dev, then make clean all"
}

need_bpftrace() {
	command -v bpftrace >/dev/null || lacks "bpftrace is missing: apt-get install bpftrace"
	[ "$(id -u)" = 0 ] || lacks "bpftrace is for root: use sudo"
	[ -e /sys/kernel/btf/vmlinux ] || lacks "this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)"
	need_uprobes
}

has_probes() { grep -qF .note.stapsdt "$UMBRA"; }

# One of umbra's probes per line: NAME ARGUMENTS.
list_probes() {
	readelf -n "$UMBRA" 2>/dev/null | awk '$1 == "Provider:" { p = $2 } $1 == "Name:" { n = $2 }
		$1 == "Arguments:" && p == "umbra" { $1 = ""; print n $0 }' | sort -u
}

# The guest that $1 names by its pid, or the only one that runs, in $pid.
need_guest() {
	need_umbra
	local list
	pid=${1-}
	if [ -n "$pid" ]; then
		[[ $pid =~ ^[0-9]+$ ]] || die 2 "'$pid' is no pid; --help says more"
		[ -d "/proc/$pid" ] || die 1 "there is no process $pid"
		return
	fi
	list=$("$UMBRA" stat --list 2>/dev/null | awk 'NR > 1 { print $1 }') || true
	[ -n "$list" ] || die 1 "no guest runs; start one with umbra run"
	[ "$(wc -l <<<"$list")" = 1 ] || die 2 "several guests run, name one by its pid:" $list
	pid=$list
}

seconds() { [[ $1 =~ ^[0-9]{1,5}$ && $1 != 0 ]] || die 2 "'$1' is no number of seconds; --help says more"; }
