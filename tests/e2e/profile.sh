#!/bin/bash
# umbra run --profile: what it writes, and that a guest under it does what it does without.
. "$(dirname "$0")/lib.bash"
need_kvm
vmlinuz=$UMBRA_CACHE/vmlinuz initrd=$UMBRA_BUILD/initrd.cpio.gz
[ -e "$vmlinuz" ] || { echo "no $vmlinuz: scripts/fetch-kernel gets it"; exit 77; }
[ -e "$initrd" ] || { echo "no $initrd: make initrd"; exit 77; }
folded=$tmp/prof svg=$tmp/prof.svg

LIMIT=120 run -k "$vmlinuz" -i "$initrd" -m 256M -p umbra.run=forks=30 --no-table --profile "$folded" --profile-hz 997 --timeout 110s
check "a guest with --profile" "exit status $status" test "$status" = 0
samples=$(sed -n 's/.*umbra: \([0-9]*\) samples are in .*/\1/p' "$tmp/err")
check "... took ${samples:-no} samples" "too few" test "${samples:-0}" -gt 100
show=("$folded")
bad=$(grep -vE '^(kernel|user|lost)(;[^; ]+)* [0-9]+$' "$folded")
check "folded stacks" "$bad" test -z "$bad"
check "... that add up" "to $(awk '{ n += $NF } END { print n }' "$folded")" \
	test "$(awk '{ n += $NF } END { print n }' "$folded")" = "$samples"
for stack in '^kernel;(.*;)?start_kernel[; ]' '^kernel;.*;kernel_init;' '^kernel;.*do_syscall_64;__x64_sys_[a-z]+;' '^user;0x[0-9a-f]+ ' \
	'\[umbra:[a-z_]+\] '; do
	check "... with stacks '$stack'" "none" grep -qE "$stack" "$folded"
done
named=$(awk '/^kernel;/ { all += $NF } /^kernel;0x/ { bare += $NF } END { printf "%d", all ? 100 * bare / all : 100 }' "$folded")
check "... and names: $named % of the kernel's have none" "too many" test "$named" -lt 10
check "the flame graph" "no svg" grep -q '<title>all (' "$svg"
check "... fetches nothing" "$(grep -m 1 -E 'href|src=' "$svg")" bash -c "! grep -qE 'href|src=' '$svg'"

show=("$tmp/out" "$tmp/err")
LIMIT=120 run -q -k "$vmlinuz" -i "$initrd" -m 256M -p umbra.run=selftest --expect '^UMBRA-RESULT ok' --profile "$folded" \
	--profile-hz 2000 --timeout 110s
check "the self-checking workload at 2000 Hz" "exit status $status" test "$status" = 0
run -k "$vmlinuz" --profile "$tmp/none/x"
check "--profile where it cannot write: exit 2" "exit status $status" test "$status" = 2
run -k "$vmlinuz" --profile "$folded" --profile-hz 0
check "--profile-hz=0: exit 2" "exit status $status" test "$status" = 2

# A crash dump finds the kernel's names by itself.
LIMIT=60 run -q -k "$vmlinuz" -i "$initrd" -m 256M -p umbra.run=crash --no-reboot --timeout 50s
check "a crash dump has names" "exit status $status" grep -qE ' [0-9a-f]{16}  panic\+0x' "$tmp/err"
finish
