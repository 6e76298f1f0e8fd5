#!/bin/bash
# The workload itself: passes natively, and under plain QEMU emulation, with one digest. A guest of umbra whose digest
# differs is umbra's fault then, not the workload's.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

build=${UMBRA_BUILD:-build} cache=${UMBRA_CACHE:-cache}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

check() {	# $1: name, rest: command
	local name=$1
	shift
	if "$@"; then echo "ok - $name"; else echo "not ok - $name"; fi
}

result() { grep -a '^UMBRA-RESULT' "$1" | tail -n 1 | tr -d '\r'; }

"$build/workload" selftest >"$tmp/native" 2>&1 || cat "$tmp/native"
native=$(result "$tmp/native")
check "selftest passes natively" grep -q '^UMBRA-RESULT ok' <<<"$native"

PATH=$(dirname "$(command -v busybox)"):$PATH "$build/workload" forks 3 >"$tmp/forks" 2>&1
check "forks prints a time" grep -q '^forks 3: [0-9.]* us per fork+exec' "$tmp/forks"
"$build/workload" shared 3 >"$tmp/shared" 2>&1
check "shared prints a time" grep -q '^shared 3 passes, [0-9]* processes: [0-9.]* us per pass' "$tmp/shared"
"$build/workload" forks x >/dev/null 2>&1
check "a count that is none is refused" test $? = 2
"$build/workload" selftest no-such-test >"$tmp/none" 2>&1
check "an unknown subtest is a failure" grep -q '^UMBRA-RESULT FAIL' "$tmp/none"

scripts/guest-initrd -o "$tmp/a.gz" "$build/workload" && (umask 077; TZ=Asia/Tokyo scripts/guest-initrd -o "$tmp/b.gz" "$build/workload")
check "the initrd is reproducible" cmp "$tmp/a.gz" "$tmp/b.gz"

if ! command -v qemu-system-x86_64 >/dev/null; then
	echo "skip - selftest under QEMU: no qemu-system-x86_64; scripts/deps test installs it"
else
	timeout 300 qemu-system-x86_64 -accel tcg,thread=single -cpu max,-la57 -m 128M -nodefaults -display none \
		-serial "file:$tmp/tcg" -no-reboot -kernel "$cache/vmlinuz" -initrd "$tmp/a.gz" \
		-append "console=ttyS0 quiet panic=-1 umbra.run=selftest" </dev/null >"$tmp/qemu" 2>&1 || cat "$tmp/qemu"
	grep -aE '^(FAIL|skip) ' "$tmp/tcg"
	check "selftest passes under QEMU with 128 MB" grep -q '^UMBRA-RESULT ok' <<<"$(result "$tmp/tcg")"
	check "its digest is the native one" test "$(result "$tmp/tcg")" = "$native"
fi
