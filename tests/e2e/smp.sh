#!/bin/bash
# Several vCPUs: Debian with 2, 4 and 8 of them, processors taken out and put back, and the stress kernel, also with all
# vCPUs on one core. STRESS_SECONDS (default 20): how long the stress kernel runs in all.
. "$(dirname "$0")/lib.bash"
need_kvm

make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 || { not_ok "build of the tiny kernels" "make failed" "$tmp/make"; finish; }
seconds=${STRESS_SECONDS:-20}
seed=${SEED:-1}

stress() {	# $1: label, $2: vCPUs, $3: share of the time in percent, rest: options
	local name="stress, $2 vCPUs$1" n=$2 s=$((seconds * $3 / 100))
	local kernel=$UMBRA_BUILD/guests/stress.elf
	shift 3
	[ "$s" -gt 0 ] || s=1
	run -q -c "$n" -k "$kernel" -m 64M --timeout $((s + 60))s -p "cpus=$n seconds=$s seed=$seed" "$@"
	check "$name, $s s" "$(grep -a -m 1 '^FAIL ' "$tmp/out" | tr -d '\r' | cut -c 1-160) exit status $status" \
		grep -aq '^VERDICT pass' "$tmp/out"
}
stress "" 2 25
stress "" 4 25
stress ", shim off" 4 20 --shim=off --gates=vmm
stress ", on one core" 2 20 --vcpu-cpus=0
stress ", helper, audit" 3 10 --helper=on --audit=1

[ -z "${STRESS_ONLY:-}" ] || finish
initrd=$UMBRA_BUILD/initrd.cpio.gz
[ -e "$initrd" ] || { skip "Debian with several vCPUs" "no $initrd: make initrd"; finish; }
for n in 2 4 8; do
	run -q -c $n -k "$UMBRA_CACHE/vmlinuz" -i "$initrd" --timeout 150s -p umbra.run=selftest --expect '^UMBRA-RESULT ok' \
		--stats "$tmp/stats-$n"
	check "Debian, selftest, $n vCPUs" "exit status $status" test "$status" = 0
done
# More vCPUs than cores: who waits for a spinlock sleeps.
check "Debian, 8 vCPUs: spinlock waiters poll" "no SCHEDOP_poll was counted" \
	grep -qE '"polls": *[1-9]' "$tmp/stats-8"

# A script in the guest, on the console: the shell of the guest's init reads it.
cat >"$tmp/plug" <<'END'
echo processors $(nproc)
echo 0 >/sys/devices/system/cpu/cpu1/online; echo after $(nproc)
echo 1 >/sys/devices/system/cpu/cpu1/online; echo again $(nproc)
taskset 2 sh -c 'echo runs on $(cat /proc/self/stat | cut -d" " -f39)'
exit
END
status=0
timeout -s KILL 90 "$UMBRA" run -q -c 3 -k "$UMBRA_CACHE/vmlinuz" -i "$initrd" --timeout 80s <"$tmp/plug" >"$tmp/out" 2>"$tmp/err" ||
	status=$?
for line in "processors 3" "after 2" "again 3" "runs on 1"; do
	check "Debian, CPU hot-plug: $line" "exit status $status" grep -aq "^$line" "$tmp/out"
done
finish
