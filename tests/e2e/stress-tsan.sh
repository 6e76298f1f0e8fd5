#!/bin/bash
# umbra itself under ThreadSanitizer: the stress kernel on several vCPUs, with and without the helper thread, while others
# ask for counters; then a Debian that forks. Nothing is suppressed; every report fails its test.
. "$(dirname "$0")/lib.bash"
need_kvm

dir=$UMBRA_BUILD-thread
tsan=$dir/umbra
make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 && make -s -C "$top" SAN=thread B="$dir" "$tsan" >"$tmp/make" 2>&1 || {
	not_ok "build with SAN=thread" "make failed" "$tmp/make"
	finish
}
grep -q __tsan_init "$tsan" || { not_ok "build with SAN=thread" "$tsan has no ThreadSanitizer in it"; finish; }

# $1: name, $2: line of the output that has to be there, rest: options of umbra run. $asks: how many times to ask it meanwhile.
# Without address randomisation: ThreadSanitizer wants the places it knows.
races() {
	local name=$1 line=$2 socket=$tmp/control job i
	shift 2
	rm -f "$tmp"/race.* "$socket"
	TSAN_OPTIONS="exitcode=66 log_path=$tmp/race history_size=4" timeout -s KILL 120 setarch -R "$tsan" run -q --control="$socket" \
		--timeout 100s "$@" >"$tmp/out" 2>"$tmp/err" </dev/null &
	job=$!
	for ((i = 0; i < asks; i++)); do
		sleep 1
		"$UMBRA" stat --format=json "$socket" >/dev/null 2>&1
	done
	status=0
	wait "$job" || status=$?
	show=("$tmp/out" "$tmp/err" "$tmp"/race.*)
	if compgen -G "$tmp/race.*" >/dev/null; then
		not_ok "$name" "$(cat "$tmp"/race.* | grep -m 1 '^SUMMARY')" "$tmp"/race.*
	else
		check "$name" "exit status $status" grep -aq "$line" "$tmp/out"
	fi
}

stress=(-k "$UMBRA_BUILD/guests/stress.elf" -m 64M)
asks=3
races "TSan: stress, 2 vCPUs" '^VERDICT pass' -c 2 "${stress[@]}" -p "cpus=2 seconds=8 seed=${SEED:-1}"
races "TSan: stress, 3 vCPUs, helper, audit" '^VERDICT pass' -c 3 --helper=on --audit=1 "${stress[@]}" \
	-p "cpus=3 seconds=5 seed=${SEED:-1}"
races "TSan: stress, 4 vCPUs, on one core" '^VERDICT pass' -c 4 --vcpu-cpus=0 "${stress[@]}" -p "cpus=4 seconds=5 seed=${SEED:-1}"
races "TSan: stress, 3 vCPUs, frames and vCPUs moving" '^VERDICT pass' -c 3 --numa-fake=2 \
	--numa=random,interval=2,batch=64,rate=100000,vcpus=1 "${stress[@]}" -p "cpus=3 seconds=6 seed=${SEED:-1}"
asks=0
races "TSan: stress, 4 vCPUs, shim off" '^VERDICT pass' -c 4 --shim=off --gates=vmm "${stress[@]}" \
	-p "cpus=4 seconds=3 seed=${SEED:-1}"
races "TSan: moves, 2 vCPUs, 3 nodes, helper" '^VERDICT pass' -c 2 --helper=on -k "$UMBRA_BUILD/guests/moves.elf" -m 16M \
	-p "cpus=2 seconds=4 seed=${SEED:-1}" --numa=random,rate=50000,interval=10,batch=64,vcpus=1 --numa-fake=3
initrd=$UMBRA_BUILD/initrd.cpio.gz
[ -e "$initrd" ] || { skip "TSan: Debian forks" "no $initrd: make initrd"; finish; }
asks=2
races "TSan: Debian forks, 2 vCPUs, helper" '^forks' -c 2 --helper=on -k "$UMBRA_CACHE/vmlinuz" -i "$initrd" -p umbra.run=forks=20
finish
