#!/bin/bash
# Frames of a running guest moved, copied, made one again and watched at random, as fast as they can be, on made-up nodes: no
# word of the guest may be wrong, and its output is what it is without. MOVES_SECONDS (default 12): how long the tiny kernels
# run in all; MOVES_LONG=1: every mode, also with Debian (make stress-numa).
. "$(dirname "$0")/lib.bash"
need_kvm

make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 || { not_ok "build of the tiny kernels" "make failed" "$tmp/make"; finish; }
seconds=${MOVES_SECONDS:-12}
seed=${SEED:-1}
random=--numa=random,rate=100000,interval=10,batch=64,vcpus=1,seed=$seed

count() {	# $1: the least that is enough; what the mover did, and whether that is
	python3 - "$tmp/stats" "$1" <<-'END'
		import json, sys
		m, least = json.load(open(sys.argv[1]))["numa"]["mover"], int(sys.argv[2])
		print("%(moved)d moves, %(replicated)d copied, %(collapses)d ended, %(watched)d watched, %(given_back)d given back" % m)
		sys.exit(min(m["moved"], m["replicated"] * 4, m["collapses"] * 8, m["given_back"] * 2) < least)
	END
}

# $1: kernel, $2: vCPUs, $3: nodes, $4: share of the time in percent, rest: options
kernel() {
	local kernel=$1 n=$2 nodes=$3 s=$((seconds * $4 / 100)) name
	shift 4
	[ "$s" -gt 0 ] || s=1
	name="$kernel, $n vCPUs, $nodes nodes${*:+, $*}"
	run -q -c "$n" -k "$UMBRA_BUILD/guests/$kernel.elf" -m 16M --timeout $((s + 60))s -p "cpus=$n seconds=$s seed=$seed" \
		"$random" --numa-fake="$nodes" --stats "$tmp/stats" "$@"
	check "$name, $s s: every word" "$(grep -a -m 1 '^FAIL ' "$tmp/out" | tr -d '\r' | cut -c 1-160) exit status $status" \
		grep -aq '^VERDICT pass' "$tmp/out"
	if counts=$(count 50); then ok "$name: $counts"; else not_ok "$name" "too few: $counts"; fi
}
kernel moves 2 2 25
kernel moves 2 4 20 --shim=off --gates=vmm
kernel stress 2 3 25
kernel moves 3 8 15 --helper=on --audit=1
kernel moves 1 2 15 --shadow-pages=200

run -q -c 1 -k "$UMBRA_BUILD/guests/moves.elf" -m 16M --timeout 30s -p "only=hostile_words seconds=2 seed=$seed" "$random" --numa-fake=2
check "a guest that lies about what is away" "exit status $status" grep -aqE '^ok hostile_words|^FAIL ' "$tmp/out"

# ---- what is refused, and what is said -------------------------------------------------------------------------------------
run -k "$UMBRA_BUILD/guests/hello.elf" -m 32M --timeout 20s --numa=migrate --numa-fake=2 --mmu=nested
check "migrate in nested mode is refused" "exit status $status" \
	grep -q '^umbra: --numa=migrate moves single pages, which it cannot under' "$tmp/err"
run -k "$UMBRA_BUILD/guests/hello.elf" --numa=migrate --numa-fake=9
check "nine nodes are refused" "exit status $status" test "$status" = 2
if [ "$(ls -d /sys/devices/system/node/node* 2>/dev/null | wc -l)" -le 1 ]; then
	run -k "$UMBRA_BUILD/guests/hello.elf" -m 32M --timeout 20s -p hello=world --numa=migrate
	check "one node: nothing to move, and one line says so" "exit status $status" \
		grep -q '^umbra: --numa=migrate: this host has one NUMA node' "$tmp/err"
fi

# ---- Debian ------------------------------------------------------------------------------------------------------------------
initrd=$UMBRA_BUILD/initrd.cpio.gz
[ -e "$initrd" ] || { skip "Debian with moving pages" "no $initrd: make initrd"; finish; }
digest() { tr -d '\r' <"$tmp/out" | sed -n 's/^UMBRA-RESULT ok //p'; }

debian() {	# $1: work, $2: vCPUs, $3: nodes, rest: options
	local work=$1 n=$2 nodes=$3
	shift 3
	LIMIT=170 run -q -c "$n" -k "$UMBRA_CACHE/vmlinuz" -i "$initrd" -p "umbra.run=$work" --timeout 150s --stats "$tmp/stats" \
		--expect '^UMBRA-RESULT ok' --numa=random,rate=20000,interval=200,batch=64,vcpus=1,seed="$seed" --numa-fake="$nodes" "$@"
	check "Debian, $work, $n vCPUs, $nodes nodes${*:+, $*}" "exit status $status" test "$status" = 0
	[ -z "${expected:-}" ] || check "... its digest, with $(count 0)" "$(digest), not $expected" test "$(digest)" = "$expected"
}
if [ -z "${MOVES_LONG:-}" ]; then
	debian forks=20 2 2 --audit=1
	finish
fi

kernel stress 4 2 20
kernel stress 2 2 20 --vcpu-cpus=0
kernel stress 2 2 20 --kick=rewrite --audit=1
kernel moves 4 3 20 --fill=eager --prefetch=xen32
kernel moves 2 2 20 --gates=invm
kernel moves 2 3 20 --audit=3
kernel moves 2 2 20 --helper=on --helper-test=queue=4,delay=200
run -q -k "$UMBRA_CACHE/vmlinuz" -i "$initrd" -p umbra.run=selftest --timeout 80s --expect '^UMBRA-RESULT ok'
expected=$(digest)
check "Debian, selftest, nothing moves" "exit status $status" test -n "$expected"
debian selftest 1 2
debian selftest 2 4 --helper=on
debian selftest 2 2 --fill=eager --audit=1
debian selftest 2 2 --shim=off --gates=vmm
debian selftest 4 8 --gates=invm
debian selftest 2 3 --host-pages=small --large=off

# Processors are taken out, two of three, and put back meanwhile.
cat >"$tmp/plug" <<'END'
for i in 1 2 3 4 5 6 7 8 9 10; do
echo 0 >/sys/devices/system/cpu/cpu1/online; echo 0 >/sys/devices/system/cpu/cpu2/online
echo 1 >/sys/devices/system/cpu/cpu1/online; echo 1 >/sys/devices/system/cpu/cpu2/online
done
echo plugged $(nproc)
exit
END
status=0
timeout -s KILL 90 "$UMBRA" run -q -c 3 -k "$UMBRA_CACHE/vmlinuz" -i "$initrd" --timeout 80s "$random" --numa-fake=3 \
	--stats "$tmp/stats" <"$tmp/plug" >"$tmp/out" 2>"$tmp/err" || status=$?
check "Debian, CPU hot-plug: all are back" "exit status $status" grep -aq '^plugged 3' "$tmp/out"
check "... of which 20 times one went" "$(grep -ac 'is now offline' "$tmp/out")" test "$(grep -ac 'is now offline' "$tmp/out")" = 20
if counts=$(count 1000); then ok "... while pages moved: $counts"; else not_ok "... while pages moved" "too few: $counts"; fi
finish
