#!/bin/bash
# scripts/testbed keeps its promises: exit codes, output, files back, NUMA nodes, timeout, nothing left behind; and the
# kicks umbra relies on work where KVM shadows our tables (npt=0) and where the processor walks them (npt=1).
cd "$(dirname "$0")/../.." || exit 1
probe=${B:-build}/kick-probe

if ! command -v qemu-system-x86_64 >/dev/null; then
	echo "skip - testbed: no qemu-system-x86_64"
	exit 77
fi

failed=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export TMPDIR=$tmp

check() {	# $1: name, rest: a test command
	local name=$1
	shift
	if "$@"; then echo "ok - testbed: $name"; else echo "not ok - testbed: $name"; failed=1; fi
}

testbed() { scripts/testbed --timeout=120 "$@"; }

testbed --nodes=2 --cpus=4 --npt=0 --get /tmp/r:"$tmp/r" -- sh -c '
	cat /sys/module/kvm_amd/parameters/npt /sys/devices/system/node/node*/cpulist
	head -c 100000 /dev/urandom >/tmp/r
	md5sum </tmp/r >&2
	exit 3' >"$tmp/o" 2>"$tmp/e"
check "exit code comes through" [ $? = 3 ]
check "npt and nodes as asked" [ "$(xargs <"$tmp/o")" = "N 0-1 2-3" ]

testbed --memory=512M,128M,0M --cpus=3 --removable -- sh -c '
	for n in 1 2; do awk "/MemTotal/ { print \$4 }" /sys/devices/system/node/node$n/meminfo; done
	for m in /sys/devices/system/node/node1/memory*; do echo offline >$m/state; done
	awk "/MemTotal/ { print \$4 }" /sys/devices/system/node/node1/meminfo' >"$tmp/sizes"
check "sizes of nodes, and memory that can be taken away" [ "$(xargs <"$tmp/sizes")" = "131072 0 0" ]
check "a file comes back whole" [ "$(md5sum <"$tmp/r")" = "$(cat "$tmp/e")" ]

scripts/testbed --timeout=8 -- sleep 60 2>/dev/null
check "timeout is 124" [ $? = 124 ]
testbed -- sh -c 'echo c >/proc/sysrq-trigger' 2>/dev/null
check "a machine that breaks down is 125" [ $? = 125 ]
scripts/testbed --nodes=9 -- true 2>/dev/null
check "a bad option is 125" [ $? = 125 ]

if [ -x "$probe" ]; then
	testbed --npt=0 -- "$probe" -n 2 >"$tmp/npt0"
	check "umbra's kicks work with npt=0" [ $? = 0 ]
	check "and there a host store alone does not" grep -qE '^nothing +stale256' "$tmp/npt0"
	testbed --npt=1 -- "$probe" -n 1 >/dev/null
	check "umbra's kicks work with npt=1" [ $? = 0 ]
else
	echo "skip - testbed: kicks: $probe is not built"
fi
rm -rf "$tmp"/[oer] "$tmp/sizes" "$tmp/npt0"
check "nothing is left behind" [ -z "$(ls -A "$tmp")" ]
exit $failed
