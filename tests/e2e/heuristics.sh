#!/bin/bash
# Heuristics change counts, never results: each alone, all together and under conditions made as bad as can be, every guest
# has to print what it prints without a helper thread, while audit level 3 compares the shadow with its tables.
. "$(dirname "$0")/lib.bash"
need_kvm

make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 || { not_ok "build of the tiny kernels" "make failed" "$tmp/make"; finish; }
guests=$UMBRA_BUILD/guests
seed=${SEED:-1}

# What a guest says of its work: not how late a tick was, nor what comes of the kernel's own clock.
said() { tr -d '\r' <"$tmp/out" | grep -av '^note: '; }

boot() {	# $1: kernel, rest: options
	local kernel=$1
	shift
	LIMIT=60 run -q -k "$guests/$kernel.elf" -m 64M --timeout 50s -p "seed=$seed shim=on gates=invm" --gates=invm "$@"
}

declare -A expected
kernels="mmu user traps shim"
for kernel in $kernels; do
	boot "$kernel"
	expected[$kernel]=$(said)
	check "$kernel without a helper" "exit status $status" test "$status" = 0
done

same() {	# $1: label, $2: kernels, rest: options
	local label=$1 list=$2 kernel bad=
	shift 2
	for kernel in $list; do
		boot "$kernel" --helper=on --audit=3 "$@"
		if [ "$status" != 0 ] || [ "$(said)" != "${expected[$kernel]}" ]; then
			bad+=" $kernel"
			said | diff - <(echo "${expected[$kernel]}") >"$tmp/diff"
			not_ok "$label, $kernel" "exit status $status, or it printed something else" "$tmp/diff" "$tmp/err"
		fi
	done
	[ -n "$bad" ] || ok "$label, $list"
}

"$UMBRA" run --heuristic=help >"$tmp/help"
mapfile -t names < <(sed -n 's/^\([a-z][a-z-]*\) .*/\1/p' "$tmp/help" | grep -vxE 'auto|default:')
check "heuristics are listed" "${#names[@]} of them" test "${#names[@]}" -ge 10
all=()
for name in "${names[@]}"; do
	all+=("--heuristic=$name")
	same "$name alone" "mmu user" "--heuristic=$name"
done
same "all together" "$kernels" "${all[@]}"
same "auto" "$kernels" --heuristic=auto --sample=1
hostile=(--heuristic=wild,per=8,seed="$seed" --helper-test=queue=1,delay=300 --shadow-pages=64)
same "all, queue of 1, delays, random requests, small pool" "$kernels" "${all[@]:0:9}" "${hostile[@]}"
same "eager and prefetch beside it" "mmu" --fill=eager --prefetch=xen32 "${all[@]:0:9}" "${hostile[@]}"
same "without shim" "mmu" --shim=off "${all[@]}"

# A stock kernel and the programs that check their own results; their times may differ, their sums may not.
selftest() {
	LIMIT=100 run -k "$UMBRA_CACHE/vmlinuz" -i "$UMBRA_BUILD/initrd.cpio.gz" -m 256M -p umbra.run=selftest \
		--expect '^UMBRA-RESULT ok' --timeout 90s "$@"
}
if [ ! -e "$UMBRA_CACHE/vmlinuz" ] || [ ! -e "$UMBRA_BUILD/initrd.cpio.gz" ]; then
	skip "a stock kernel" "no kernel or initrd: make kernel initrd"
	finish
fi
selftest --helper=on "${all[@]:0:9}" "--heuristic=wild,per=8,young=1,seed=$seed" "${hostile[1]}" --shadow-pages=512 --audit=1
check "a stock kernel checks itself, all and hostile" "exit status $status" test "$status" = 0
selftest --helper=auto --heuristic=auto
check "a stock kernel checks itself, auto" "exit status $status" test "$status" = 0
# On one processor there is no core for it, and it says so.
status=0
taskset -c 0 timeout 60 "$UMBRA" run -k "$guests/user.elf" -m 64M --helper=auto --timeout 50s -p "seed=$seed" >"$tmp/out" \
	2>"$tmp/err" </dev/null || status=$?
check "auto stands down where there is one processor" "exit status $status, or it does not say so" \
	grep -q 'stands down' "$tmp/err"
finish
