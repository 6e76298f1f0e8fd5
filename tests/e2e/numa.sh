#!/bin/bash
# NUMA placement, verified by what the kernel shows of the process: on this host, and in the testbed with two nodes.
. "$(dirname "$0")/lib.bash"

make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 || { not_ok "build of the tiny kernels" "make failed" "$tmp/make"; finish; }

command -v qemu-system-x86_64 >/dev/null || { echo "no qemu-system-x86_64; scripts/deps test installs it"; exit 77; }
status=0
timeout 200 "$top/scripts/testbed" --nodes=2 --cpus=2 --dir "$UMBRA_BUILD/guests" \
	--file "$top/tests/e2e/numa.inside:/umbra/inside" -- sh /umbra/inside >"$tmp/out" 2>"$tmp/err" || status=$?
check "the testbed with two nodes" "exit status $status" test $status = 0

pages() { sed -n "s/^$1: \([0-9]* [0-9]*\) cpus.*/\1/p" "$tmp/out" | tr -d '\r'; }
all=16384
for name in interleave all; do
	read -r n0 n1 <<<"$(pages $name)"
	check "$name: half on each node" "$(cat "$tmp/out")" \
		test "${n0:-0}" -ge $((all / 2 - 300)) -a "${n1:-0}" -ge $((all / 2 - 300))
done
for node in 0 1; do
	for how in membind preferred cpunodebind; do
		read -r n0 n1 <<<"$(pages $how-$node)"
		on=${n0:-0} other=${n1:-$all}
		[ $node = 0 ] || { on=${n1:-0} other=${n0:-$all}; }
		check "$how: all on node $node" "$(cat "$tmp/out")" test "$on" -ge $all -a "$other" -le 16
	done
	check "cpunodebind: a thread that runs on node $node alone" "$(cat "$tmp/out")" \
		grep -q "^cpunodebind-$node: .*cpus.* $node\b" "$tmp/out"
done
check "a node that is not there is refused" "$(cat "$tmp/out")" grep -q "refused: umbra: --membind: node 7 has no memory" "$tmp/out"
finish
