#!/bin/bash
# umbra numa on a running guest whose pages move, with nodes that this host has by --numa-fake alone. tests/e2e/numa.sh has
# what the kernel can be asked about, in the testbed with two nodes.
. "$(dirname "$0")/lib.bash"
need_kvm
make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 || { not_ok "build of the tiny kernels" "make failed" "$tmp/make"; finish; }
export UMBRA_RUNTIME_DIR=$tmp/sockets

numa() { status=0; timeout -s KILL 60 "$UMBRA" numa "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || status=$?; }
prints() { grep -qE -- "$1" "$tmp/out"; }
does() {	# $1: a regular expression for the output, rest: arguments
	local wanted=$1
	shift
	numa "$@"
	check "numa $*" "exit status $status, or not '$wanted'" prints "$wanted"
	[ "$status" = 0 ] || not_ok "numa $*" "exit status $status" "${show[@]}"
}
refuses() {	# $1: exit status, $2: words, rest: arguments
	local wanted=$1 words=$2
	shift 2
	numa "$@"
	check "numa $*: refused" "exit status $status, or not '$words'" grep -qF -- "$words" "$tmp/err"
	[ "$status" = "$wanted" ] || not_ok "numa $*" "exit status $status, not $wanted"
}
guest() {	# $1: kernel, $2: command line, rest: options
	local kernel=$1 cmdline=$2
	shift 2
	rm -f "$tmp/guest"		# what the one before has said
	"$UMBRA" run -q -k "$UMBRA_BUILD/guests/$kernel.elf" -m 64M --timeout 600s -p "$cmdline" "$@" >"$tmp/guest" 2>&1 </dev/null &
	guest=$!
	wait_until 30 grep -qsE '^(numa-arena|waiting)' "$tmp/guest" || not_ok "$kernel $*" "the guest does not start" "$tmp/guest"
}
end() {
	kill "$guest"
	wait "$guest" 2>/dev/null
	check "the guest found nothing wrong" "$(grep -a FAIL "$tmp/guest")" test -z "$(grep -aE 'FAIL|crash' "$tmp/guest")"
}

# ---- pages move -------------------------------------------------------------------------------------------------------
guest numa "cpus=2 pattern=hotcold seconds=1000" -c 2 --numa-fake=2 --numa=migrate,interval=50
does '^policy migrate, 2 made-up nodes$'
check "... with its parameters" "none" prints '^  interval=50 scan='
check "... memory by node" "none" prints '^  guest +[0-9.]+ +[0-9.]+ +64\.00 +0\.00$'
wait_until 20 eval '"$UMBRA" numa show | grep -qE "^  samples +[1-9]"'
does '^ +1 +[0-9]+ +1 +[0-9,-]+ +[0-9]+ +[1-9][0-9]* ' show	# the second vCPU has samples of another node
does '"schema": 1' show --json
does '^512 frames moved to node 1, 0 were there, 0 are not allocated$' move --range 8192+512 --node 1
does '^ +8192 +8703 +2M +1$' map --range 8192-8703
does '^0 frames moved to node 1, 512 were there' move --range 0x2000+0x200 --node 1
does ': migrate .* frames of 0x2000\.\.0x2[0-9a-f]+ .*to node 1: asked for; cost' explain --last 512
does '^vCPU 0 runs on node 1$' move --vcpu 0 --node 1
does '^ +0 +[0-9]+ +1 ' show
does '^policy auto,interval=100,' policy auto
does '^policy random,' move --policy random,rate=100
does '^policy off$' --policy=off
home() { numa map; prints '^ +0 +16383 +64M +0$'; }
check "policy off: all frames come home" "$(head -n 5 "$tmp/out")" wait_until 60 home
does '^moved: 0 frames away from home' show
refuses 1 "no policy is called 'nonsense'" policy nonsense
refuses 1 "hot=0" policy migrate,hot=0
refuses 1 "no node '2'" move --vcpu 0 --node 2
refuses 1 "frames are 0 to 16383" move --range 16384 --node 1
refuses 2 "want a policy" policy
refuses 2 "--policy means nothing here" map --policy=off
refuses 2 "--node means nothing here" move --policy=off --node 1
refuses 2 "that is no policy" policy 'a b'
refuses 2 "is none of: show, map, explain, move, policy" dance
refuses 2 "want --node and one of" move --range 0
refuses 2 "want --node and one of" move --range 0 --vcpu 1 --node 1
refuses 2 "--last means nothing here" map --last 3
refuses 2 "--range=5-4" map --range 5-4
refuses 2 "--range=0x" map --range 0x
"$UMBRA" stat "$guest" >"$tmp/out" 2>"$tmp/err"
check "umbra stat has the manager's counters" "none" prints '^  migrated +[1-9]'
end

# ---- pages do not move --------------------------------------------------------------------------------------------------
guest wait wait=block --numa-fake=2
does '^policy off, 2 made-up nodes$' show
does 'was not started with a policy that moves pages$' explain
refuses 1 "start it with --numa=auto" policy auto
refuses 1 "only a policy that moves pages" move --range 0 --node 1
end
guest wait wait=block -c 2 --numa-fake=2 --vnuma=2
does '^  vnode 1 +node 1 +frames 8192 to 16383, vCPU 1$'
refuses 1 "that stays so" move --range 0 --node 1
refuses 1 "that stays so" move --vcpu 0 --node 1
refuses 1 "that stays so" policy interleave
end
if [ "$(cat /sys/devices/system/node/online 2>/dev/null || echo 0)" = 0 ]; then
	guest wait wait=block
	does '1 node: all memory and every vCPU is there$'
	refuses 1 "one NUMA node" map
	refuses 1 "one NUMA node" move --vcpu 0 --node 0
	refuses 1 "one NUMA node" policy auto
	end
else
	skip "a host with one node" "this one has several"
fi
finish
