#!/bin/bash
# --mmu=nested: the processor walks the guest's own tables. The same guests as in shadow mode with the same results, the kernel
# that tries to get at a table, the hostile ones; every frame's type and users counted anew as they run (--audit).
. "$(dirname "$0")/lib.bash"
need_kvm

make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 || { not_ok "build of the tiny kernels" "make failed" "$tmp/make"; finish; }
seed=${SEED:-1}
pvm=
[ ! -e /sys/module/kvm_pvm ] || pvm=pvm=1
perl -e 'print pack("C*", map { ($_ * 7 + int($_ / 251)) & 255 } 0 .. 99999)' >"$tmp/initrd"

# $1: kernel, $2: how its tests are listed: all or one, then words for its command line; rest: options
guest() {
	local kernel=$1 list=${2%% *} words=${2#* } name line
	shift 2
	name="nested, $kernel${*:+ [$*]}"
	run -q --mmu=nested -k "$UMBRA_BUILD/guests/$kernel.elf" -i "$tmp/initrd" -m 64M --timeout 60s \
		-p "nested=1 seed=$seed $pvm now=$(date +%s) hello=world pages=16384 initrd=100000 $words" "$@"
	while read -r line; do
		not_ok "$name ${line#FAIL }" "the guest says so"
	done < <(grep -a '^FAIL ' "$tmp/out" | cut -c 1-200)
	if [ "$status" != 0 ] || ! grep -aq '^VERDICT' "$tmp/out"; then
		not_ok "$name" "exit status $status, or no verdict" "${show[@]}"
	elif grep -aq '^VERDICT pass' "$tmp/out"; then
		if [ "$list" = all ]; then
			sed -n "s/^ok /ok - nested, $kernel /p; s/^skip \([^ ]*\) /skip - nested, $kernel \1: /p" "$tmp/out"
		else
			ok "$name, $(grep -ac '^ok ' "$tmp/out") tests"
		fi
	fi
}

guest nested all --audit=3
for kernel in nested-page hello hello-low hello-old mmu mmu-old user user-page traps traps-low events events-high; do
	guest $kernel one --audit=1
done
guest mmu one --audit=3 --kick=rewrite
for kernel in mmu user events traps nested; do
	guest $kernel one --shim=off
done
guest shim "one shim=on gates=invm" --gates=invm
guest shim-high "one shim=on gates=invm" --gates=invm
guest shim "one shim=on gates=vmm" --gates=vmm
guest shim "one shim=off gates=vmm" --shim=off
guest nested one --kick=rewrite

hostile() {	# $1: kernel; each of its tests, as tests/e2e/guests.sh does in shadow mode
	local kernel=$1 test tests
	run -q -k "$UMBRA_BUILD/guests/$kernel.elf" -m 32M --timeout 20s -p list=1
	mapfile -t tests < <(tr -d '\r' <"$tmp/out" | sed -n 's/^test //p')
	check "nested, $kernel lists its tests" "status $status" test ${#tests[@]} -gt 30
	for test in ${tests[@]+"${tests[@]}"}; do
		LIMIT=40 run -q --mmu=nested --audit=3 -k "$UMBRA_BUILD/guests/$kernel.elf" -m 32M --timeout 20s -p "only=$test seed=$seed"
		case $status in
		0) ok "nested, $kernel $test, seed $seed" ;;
		3) check "nested, $kernel $test, seed $seed" "crashed without a reason" grep -aq '^umbra: ' "$tmp/err" ;;
		*) not_ok "nested, $kernel $test, seed $seed" "exit status $status" "$tmp/err" ;;
		esac
	done
}
hostile hostile
hostile hostile_shim

# ---- Debian's kernel -----------------------------------------------------------------------------------------------------
vmlinuz=$UMBRA_CACHE/vmlinuz initrd=$UMBRA_BUILD/initrd.cpio.gz
if [ ! -e "$vmlinuz" ] || [ ! -e "$initrd" ]; then
	skip "nested, Debian" "no $vmlinuz or no $initrd: scripts/fetch-kernel, make initrd"
	finish
fi
declare -A digest
for mode in shadow nested; do
	LIMIT=150 run -q --mmu=$mode --audit=1 -k "$vmlinuz" -i "$initrd" -m 256M --timeout 140s --no-reboot -p umbra.run=selftest \
		--expect '^UMBRA-RESULT ok' --stats "$tmp/$mode.json"
	digest[$mode]=$(tr -d '\r' <"$tmp/out" | sed -n 's/^UMBRA-RESULT ok //p')
	check "$mode, Debian's selftest" "exit status $status" test "$status" = 0
done
check "nested, Debian's selftest: same digest as in shadow mode" "${digest[nested]}, not ${digest[shadow]}" \
	test -n "${digest[nested]}" -a "${digest[nested]}" = "${digest[shadow]}"
check "nested: no hidden faults" "$(grep -m1 '"hidden"' "$tmp/nested.json")" grep -q '"hidden": 0,' "$tmp/nested.json"
check "nested: the JSON names the mode" "it does not" grep -q '"mmu": "nested"' "$tmp/nested.json"
finish
