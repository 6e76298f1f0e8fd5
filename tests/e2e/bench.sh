#!/bin/bash
# umbra bench: what it refuses, what it reports, and that a run that failed is no measurement.
. "$(dirname "$0")/lib.bash"
bench() { "$UMBRA" bench "$@"; }

refused() {	# $1: name, $2: words, rest: arguments
	local name=$1 words=$2 status=0
	shift 2
	bench "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || status=$?
	check "refused: $name" "exit status $status, or stderr does not say '$words'" \
		bash -c "[ $status = 2 ] && grep -q '$words' '$tmp/err'"
}
refused "no job" 'a workload is needed'
refused "unknown job" 'dance' dance
refused "unknown mode" 'sideways' spin --modes native,sideways
refused "no rounds" 'from 1 to' spin -n 0
refused "a count where none is taken" 'micro' micro --count 3
refused "no vCPUs" 'numbers from 1 to 32' spin --vcpus 2,0
refused "a mode without flags" 'NAME=FLAGS' spin --mode fast
refused "a known mode defined anew" 'native' spin --mode native=-v

: >"$tmp/kernel"
native=(bench spin --count 20 --modes native -k "$tmp/kernel" -i "$tmp/kernel")
status=0
"${native[@]}" -n 3 --json "$tmp/json" >"$tmp/out" 2>"$tmp/err" || status=$?
check "natively: exit 0" "exit status $status" test "$status" = 0
check "natively: a row, 1.00 x native" "none" grep -qE '^native .* 1\.00$' "$tmp/out"
check "natively: three samples in the JSON" "not three" test "$(grep -c '"repetition"' "$tmp/json")" = 3

status=0
"${native[@]}" -n 1 --json /dev/full >"$tmp/out" 2>"$tmp/err" || status=$?
check "results that cannot be written: exit 1" "exit status $status" test "$status" = 1

need_kvm
status=0
bench forks=3 -n 1 --modes gates -c 1,2 -k "$UMBRA_CACHE/vmlinuz" --json "$tmp/json" >"$tmp/out" 2>"$tmp/err" || status=$?
check "with 1 and 2 vCPUs: a row each" "exit status $status" \
	bash -c "[ $status = 0 ] && grep -q '^gates-c1  *[1-9]' '$tmp/out' && grep -q '^gates-c2  *[1-9]' '$tmp/out'"
check "with 1 and 2 vCPUs: in the JSON" "no" bash -c "grep -q -e '-c 1' '$tmp/json' && grep -q -e '-c 2' '$tmp/json'"

status=0
bench boot -n 1 --modes shim --mode 'broken=--shim=perhaps' -k "$UMBRA_CACHE/vmlinuz" >"$tmp/out" 2>"$tmp/err" || status=$?
check "a mode that fails: exit 1" "exit status $status" test "$status" = 1
check "a mode that fails: named, with umbra's reason" "no" grep -q 'broken: FAILED: .*perhaps' "$tmp/err"
check "a mode that fails: no row, the other has one" "wrong rows" \
	bash -c "grep -q '^shim  *[1-9]' '$tmp/out' && ! grep -q '^broken' '$tmp/out'"
finish
