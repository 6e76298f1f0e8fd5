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

# ---- umbra numa -----------------------------------------------------------------------------------------------------
line() { sed -n "s/^$1: //p" "$tmp/out" | tr -d '\r'; }
for at in at-first:16384:0 moved:13312:3072 back:16384:0; do
	IFS=: read -r name n0 n1 <<<"$at"
	check "show, $name: as numa_maps has it" "$(line "$name")" test "$(line "$name")" = "shown $n0 $n1 maps $n0 $n1"
done
check "move --range" "$(line move-range)" test "$(line move-range)" = "3072 frames moved to node 1, 0 were there, 0 are not allocated"
check "map" "$(line map)" test "$(line map)" = "0-1023 on 0, 1024-4095 on 1, 4096-16383 on 0, "
check "... and back" "$(line move-back)" test "$(line move-back)" = "3072 frames moved to node 0, 13312 were there, 0 are not allocated"
for cpu in 0 1; do
	check "move --vcpu to node $cpu" "$(line vcpu-on-$cpu)" test "$(line vcpu-on-$cpu)" = "allowed $cpu last ran on $cpu"
	check "... and show says so" "$(line vcpu-shown-$cpu)" test "$(line vcpu-shown-$cpu)" = "$cpu $cpu $cpu"
done
while IFS=: read -r words why; do
	said=$(line "refused $words" )
	check "move $words: refused" "$said" grep -qF -- "$why" <<<"$said"
done <<-END
	--vcpu 1 --node 0:no vCPU 1
	--vcpu 0 --node 2:no node '2'
	--range 16384 --node 1:frames are 0 to 16383
	--range 16383+2 --node 1:frames are 0 to 16383
END

check "move --range by the pmap: all of memory to one node" "$(line pmap-all)" \
	test "$(line pmap-all)" = "frames moved to node 0, some were there, 0 are not allocated"
check "... a range to the other" "$(line pmap-range)" test "$(line pmap-range)" = "3072 frames moved to node 1, 0 were there, 0 are not allocated"
check "... map says so" "$(line pmap-map)" test "$(line pmap-map)" = "0-1023 on 0, 1024-4095 on 1, 4096-16383 on 0, "
check "... and the log" "$(line pmap-log)" test "$(line pmap-log)" -ge 1

# ---- shadow tables per node ---------------------------------------------------------------------------------------------
check "shadow tables begin on one node" "$(line tables-at-first)" test "$(line tables-at-first)" = "prefer:0 on N0, "
check "... and are on both when the vCPU has moved" "$(line tables-move), $(line tables-moved)" \
	test "$(line tables-moved)" = "prefer:0 on N0, prefer:1 on N1, "
check "umbra stat shows each node's" "$(line tables-stat)" \
	grep -q 'node 0: [0-9]* tables in .* 0 of them elsewhere, node 1: [1-9][0-9]* tables in .* 0 of them elsewhere' <<<"$(line tables-stat)"

# ---- --vnuma ----------------------------------------------------------------------------------------------------------
check "vnuma: what the guest is told" "$(grep '^vnuma: ' "$tmp/out")" grep -q '^vnuma: VERDICT pass' "$tmp/out"
check "vnuma: half of memory on each node" "$(line vnuma-pages)" grep -q "^shown 8192 8192 " <<<"$(line vnuma-pages)"
check "... bound, says numa_maps" "$(line vnuma-bound)" test "$(line vnuma-bound)" = "bind:0 N0=8192 bind:1 N1=8192"
check "vnuma: in two ranges" "$(line vnuma-map)" test "$(line vnuma-map)" = "0-8191 on 0, 8192-16383 on 1, "
check "vnuma: a vCPU runs on its node" "$(line vnuma-vcpu)" grep -q '^allowed 0 last ran on 0' <<<"$(line vnuma-vcpu)"
check "vnuma: umbra numa shows it" "$(line vnuma-show)" grep -q 'vnode 0.*frames 0 to 8191.*vnode 1' <<<"$(line vnuma-show)"
check "vnuma: nothing moves" "$(line vnuma-move)" grep -q 'stays so' <<<"$(line vnuma-move)"
finish
