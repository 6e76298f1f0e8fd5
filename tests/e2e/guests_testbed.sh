#!/bin/bash
# The tiny kernels where the processor walks our tables (npt=1) and where KVM shadows them (npt=0): in scripts/testbed.
. "$(dirname "$0")/lib.bash"
command -v qemu-system-x86_64 >/dev/null || { echo "no qemu-system-x86_64"; exit 77; }

make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 || { not_ok "build of the tiny kernels" "make failed" "$tmp/make"; finish; }
kernels=(hello-page traps user user-page mmu mmu-old events)
cat >"$tmp/inside" <<'INSIDE'
for path in /guests/*.elf; do
	kernel=${path##*/} status=0
	echo "=== ${kernel%.elf}"
	/guests/umbra run -q -k "$path" -m 64M -p hello=world --timeout 100s </dev/null 2>/tmp/err || status=$?
	echo "=== status $status $(head -n 1 /tmp/err)"
done
INSIDE
files=(--file "$UMBRA:/guests/umbra" --file "$tmp/inside:/guests/inside")
for kernel in "${kernels[@]}"; do
	files+=(--file "$UMBRA_BUILD/guests/$kernel.elf:/guests/$kernel.elf")
done

for npt in 1 0; do
	status=0
	UMBRA_BUILD=$tmp/none "$top/scripts/testbed" --npt=$npt --memory=768M --timeout=400 "${files[@]}" -- sh /guests/inside \
		>"$tmp/out" 2>"$tmp/err" || status=$?
	check "testbed npt=$npt" "exit status $status" test $status = 0
	kernel='' verdict=''
	while read -r line; do
		case $line in
		"=== status 0"*)
			check "$kernel [npt=$npt]" "${verdict:-no verdict}" test "$verdict" = "VERDICT pass" ;;
		"=== status "*)
			not_ok "$kernel [npt=$npt]" "exit ${line#=== }" ;;
		"=== "*)
			kernel=${line#=== } verdict='' ;;
		"FAIL "*)
			not_ok "$kernel [npt=$npt] ${line#FAIL }" "the guest says so" ;;
		"VERDICT "*)
			verdict=$line ;;
		esac
	done < <(tr -d '\r' <"$tmp/out" | grep -aE '^(===|FAIL|VERDICT) ')
	check "every kernel ran [npt=$npt]" "$(grep -ac '^=== status' "$tmp/out") of ${#kernels[@]}" \
		test "$(grep -ac '^=== status' "$tmp/out")" = ${#kernels[@]}
done
finish
