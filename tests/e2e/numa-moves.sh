#!/bin/bash
# Moving pages of a running guest between the nodes of the testbed: whether they end up where they belong, by the kernel's word;
# that no word is wrong on the way; nodes that are full or go away; guests that are killed meanwhile.
# NUMA_LONG=1: all of it, with 2 and 4 nodes and npt=1 and npt=0; `make numa-testbed`. NUMA_ONLY, NUMA_CASES: expressions that
# machines and cases have to match; NUMA_KEEP: a folder that gets the logs.
. "$(dirname "$0")/lib.bash"

make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 || { not_ok "build of the tiny kernels" "make failed" "$tmp/make"; finish; }
command -v qemu-system-x86_64 >/dev/null || { echo "no qemu-system-x86_64; scripts/deps test installs it"; exit 77; }
long=${NUMA_LONG:-}
seed=${SEED:-1}

# The emulated machine's clock may run fast while this one is busy: hold= and time limits are generous.
# A machine this slow sees few samples a second and takes ms for a move: it is told to look at more and to mind the cost less.
fast=interval=50,scan=1024,harm=100,hot=4,judge=40,weight=10000000

# ---- cases: KIND|NAME|vCPUS|OPTIONS|GUEST'S COMMAND LINE, see numa-moves.inside ------------------------------------------------

share() { echo "share|$1|$2|-m 32M $3|pattern=$4 pages=256 seconds=$5 periods=3 hold=1500 seed=$seed"; }

short_cases() {
	share hotcold-migrate 2 "--numa=migrate,$fast" hotcold 12
	share readshared-replicate 2 "--numa=replicate,$fast,quiet=2" readshared 9
	share writeshared-auto 2 "--numa=auto,$fast" writeshared 4
	echo "killed|killed-term|2|--numa=random,interval=20|TERM"
}

long_cases() {	# $1: nodes = vCPUs
	local n=$1 pattern
	for pattern in hotcold phases; do
		share $pattern-migrate $n "--numa=migrate,$fast" $pattern 15
		share $pattern-auto $n "--numa=auto,$fast" $pattern 15
	done
	share readshared-replicate $n "--numa=replicate,$fast,quiet=2" readshared 15
	share readshared-auto $n "--numa=auto,$fast,quiet=2" readshared 15
	share hotcold-off $n "--numa=local" hotcold 4
	for pattern in writeshared uniform private pingpong; do
		share $pattern-auto $n "--numa=auto,$fast" $pattern 6
	done
	share own-maps-auto $n "--numa=auto,$fast --audit=1" "hotcold map=own roots=own" 8
	share numa-random $n "--numa=random,interval=10,rate=1000000,seed=$seed" uniform 15
	echo "stress|stress-random|$n|--numa=random,interval=10,rate=1000000,seed=$seed,vcpus=1|seconds=60 seed=$seed"
	echo "stress|stress-random-helper|$n|--numa=random,interval=10,rate=1000000,seed=$seed --helper=on --fill=eager|seconds=40 seed=$seed"
	# Not as fast as it can be: moves would take nearly all of the emulator's time, and programs with timers never get on.
	echo "debian|debian-random|2|--numa=random,interval=10,rate=300,seed=$seed|umbra.run=selftest"
	echo "killed|killed-term|2|--numa=random,interval=20|TERM"
	echo "killed|killed-kill|2|--numa=random,interval=20|KILL"
}

# ---- judging them --------------------------------------------------------------------------------------------------------------

# Whether an expression about the periods of a run holds: p[0], p[1] ... p[-1].
holds() {	# $1: log, $2: expression
	"$top/scripts/numa-share" show --json "$1" >"$1.json" 2>"$1.err" || return
	python3 -c 'import json, sys; p = json.load(open(sys.argv[1]))["runs"][0]["periods"]; sys.exit(not eval(sys.argv[2]))' \
		"$1.json" "$2" 2>>"$1.err"
}

# What numa-moves.inside tells of the mover of a run: whether it is enough.
moved() { awk -v least="$1" '/^moved/ { n = $2 + $4 } END { exit n < least }' "$2"; }

table() { "$top/scripts/numa-share" show "$1" 2>&1 | tail -n +2 | sed 's/^/#   /'; }

judge() {	# $1: label, $2: name, $3: exit status, $4: log
	local name="$1, $2" log=$4
	case $2 in
	killed-term)
		check "$name: ends and says why" "exit status $3" test "$3" = 1 -a -n "$(grep "stopped by signal: SIGTERM" "$log")" ;;
	killed-kill)
		check "$name: ends by the signal" "exit status $3" test "$3" = 137 ;;
	debian-*)
		check "$name: every digest is right" "exit status $3" grep -aq '^UMBRA-RESULT ok' "$log" ;;
	*)
		check "$name: every word is right" "$(grep -a -m 1 '^FAIL ' "$log" | tr -d '\r' | cut -c 1-160) exit status $3" \
			grep -aq '^VERDICT pass' "$log" ;;
	esac
	case $2 in
	hotcold-off)
		check "$name: stays wrong" "$(table "$log")" holds "$log" 'p[-1]["after"] < 60' ;;
	hotcold-*|phases-*|own-maps-*)
		check "$name: pages follow the vCPUs that use them" "$(table "$log")" \
			holds "$log" 'p[-1]["after"] >= 60 and p[-1]["after"] > p[-1]["before"] - 5 and p[-1]["missing"] == 0' ;;
	readshared-*)	# how near that brings things is for numbers: rare writes end copies, and vCPUs here take turns
		check "$name: each node has copies" "$(table "$log")" \
			holds "$log" 'max(x["copies"] for x in p) >= 80 and p[-1]["missing"] == 0' ;;
	writeshared-*|uniform-*|private-*)	# unless one vCPU was so much faster that the pages belong to its node
		check "$name: left alone" "$(table "$log")" \
			holds "$log" '(p[-1]["changed"] <= 16 or max(x["best"] for x in p) > 70) and p[-1]["copies"] <= 8' ;;
	stress-random*)
		check "$name: 10 000 frames moved or copied" "$(grep '^moved' "$log")" moved 10000 "$log" ;;
	numa-random|debian-random)
		check "$name: 1000 frames moved or copied" "$(grep '^moved' "$log")" moved 1000 "$log" ;;
	random-*)
		check "$name: 10 000 moves" "$(table "$log")" holds "$log" 'p[-1]["manager"]["migrated"] + p[-1]["manager"]["replicated"] >= 10000' ;;
	pingpong-*)
		check "$name: moves are bounded" "$(table "$log")" holds "$log" 'sum(x["moved"] for x in p) <= 8 * 1024' ;;
	killed-*)
		check "$name: no process is left" "$(grep '^processes' "$log")" grep -q '^processes 0 ' "$log"
		check "$name: memory is free again" "$(grep '^processes' "$log")" \
			awk '/^processes/ { ok = $6 - $8 >= 100 && $10 > $6 - ($6 - $8) / 2 } END { exit !ok }' "$log" ;;
	full-*)
		check "$name: moves were refused, the guest went on" "$(table "$log")" \
			holds "$log" 'p[-1]["manager"]["no_room"] > 0 and p[-1]["missing"] == 0' ;;
	offline-*)
		check "$name: all blocks went offline" "$(grep '^block' "$log" | xargs)" \
			test "$(grep -c '^block offline' "$log")" = "$(grep -c '^block' "$log")"
		check "$name: nothing is there any more" "$(grep '^numa-where' "$log" | tail -n 1)" \
			holds "$log" 'p[-1]["nodes"] == [0] and p[-1]["missing"] == 0' ;;
	esac
}

machine() {	# $1: label, rest: options of scripts/testbed; the cases in $tmp/cases
	local label=$1 line name log status=0
	shift
	[[ $label =~ ${NUMA_ONLY:-.} ]] || return 0
	grep -E -e "^[a-z]*\|[^|]*(${NUMA_CASES:-.})[^|]*\|" "$tmp/cases" >"$tmp/some" && mv "$tmp/some" "$tmp/cases" || return 0
	timeout 1500 "$top/scripts/testbed" --timeout=1400 "$@" --dir "$UMBRA_BUILD/guests" --file "$UMBRA_BUILD/numa-record" \
		--file "$tmp/cases:/umbra/cases" --file "$top/tests/e2e/numa-moves.inside:/umbra/inside" -- sh /umbra/inside \
		>"$tmp/all" 2>"$tmp/err" || status=$?
	check "$label: the testbed" "exit status $status, $(tail -n 3 "$tmp/err")" test $status = 0
	while IFS= read -r line; do
		case $line in
		"BEGIN "*) log=$tmp/${label// /-}-${line#BEGIN } && : >"$log" ;;
		"END "*) read -r _ name status <<<"$line"; show=("$log"); judge "$label" "$name" "$status" "$log" ;;
		*) printf '%s\n' "$line" >>"$log" ;;
		esac
	done <"$tmp/all"
	check "$label: every case ran" "$(grep -ac '^END ' "$tmp/all") of $(wc -l <"$tmp/cases")" \
		test "$(grep -ac '^END ' "$tmp/all")" = "$(wc -l <"$tmp/cases")"
	[ -z "${NUMA_KEEP:-}" ] || { mkdir -p "$NUMA_KEEP" && cp "$tmp/${label// /-}"-* "$NUMA_KEEP"; }
}

# Here, where vCPUs run side by side, with nodes that are made up.
here() {	# $1: name, $2: options, $3: pattern
	local status=0
	"$UMBRA_BUILD/numa-record" "$UMBRA" run -q --numa-fake=2 -c 2 -m 64M -k "$UMBRA_BUILD/guests/numa.elf" --timeout=60s $2 \
		-p "cpus=2 pattern=$3 seconds=5 periods=2 hold=500 seed=$seed" >"$tmp/$1" 2>&1 </dev/null || status=$?
	show=("$tmp/$1")
	judge "two made-up nodes" "$1" $status "$tmp/$1"
}
if ! [[ "two made-up nodes" =~ ${NUMA_ONLY:-.} ]]; then
	:
elif "$UMBRA" doctor >/dev/null 2>&1; then
	here writeshared-fake --numa=auto,harm=50 writeshared
	here pingpong-fake --numa=auto,harm=50 pingpong
	here random-fake --numa=random,interval=10,rate=1000000,seed="$seed" uniform
else
	skip "two made-up nodes" "this host runs no guests"
fi
if [ -z "$long" ]; then
	short_cases >"$tmp/cases"
	machine "2 nodes" --nodes=2 --cpus=2
	finish
fi
for npt in 1 0; do
	for nodes in 2 4; do
		long_cases $nodes >"$tmp/cases"
		machine "$nodes nodes, npt=$npt" --nodes=$nodes --cpus=$nodes --npt=$npt
	done
done
# The second node has no room for what belongs there.
echo "full|full-migrate|2|-m 32M --numa=migrate,$fast,hot=1|pattern=private touch=one pages=1024 seconds=12 periods=3 hold=1500" >"$tmp/cases"
machine "a full node" --memory=640M,64M --cpus=2
echo "offline|offline-migrate|2|-m 32M --numa=migrate,$fast|pattern=hotcold pages=256 seconds=15 periods=5 hold=1500" >"$tmp/cases"
machine "a node goes" --memory=640M,128M --cpus=2 --removable
finish
