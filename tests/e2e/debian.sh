#!/bin/bash
# Debian's kernel: the self-checking workload in every mode gives one digest; idle costs nothing; the shell is a shell.
. "$(dirname "$0")/lib.bash"
need_kvm
vmlinuz=$UMBRA_CACHE/vmlinuz initrd=$UMBRA_BUILD/initrd.cpio.gz
[ -e "$vmlinuz" ] || { echo "no $vmlinuz: scripts/fetch-kernel gets it"; exit 77; }
[ -e "$initrd" ] || { echo "no $initrd: make initrd"; exit 77; }

debian() { LIMIT=150 run -k "$vmlinuz" -i "$initrd" -m 256M --timeout 140s --no-reboot "$@"; }

# ---- one workload, every mode -------------------------------------------------------------------------------------------
digest=
selftest() {	# $1: label, rest: options
	local name="selftest${1:+ [$1]}" found
	shift
	debian -q -p umbra.run=selftest --expect '^UMBRA-RESULT ok' --stats "$tmp/stats.json" "$@"
	found=$(tr -d '\r' <"$tmp/out" | sed -n 's/^UMBRA-RESULT ok //p')
	if [ "$status" != 0 ]; then
		not_ok "$name" "exit status $status" "${show[@]}"
	elif [ -z "$digest" ]; then
		digest=$found
		check "$name, digest $found" "no digest" test -n "$found"
	else
		check "$name: same digest" "$found, not $digest" test "$found" = "$digest"
	fi
}
selftest ""
check "--stats after a run" "no end in it" grep -q '"schema"' "$tmp/stats.json"
for mode in "--fill=eager --prefetch=xen32 --audit=1" "--shadow-pages=512 --large=off --prefetch=kvm8 --helper=on" \
	"--shim=off" "--gates=vmm --fill=eager"; do
	# shellcheck disable=SC2086
	selftest "$mode" $mode
done
debian -q -p umbra.run=forks=10 --expect '^UMBRA-RESULT ok' --shadow-pages=160
check "160 shadow pages are enough, if not fast" "exit status $status" test "$status" = 0

# ---- an idle guest --------------------------------------------------------------------------------------------------------
ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }
"$UMBRA" run -q -k "$vmlinuz" -i "$initrd" -m 256M -p umbra.run=idle=30 --timeout 60s >"$tmp/out" 2>"$tmp/err" </dev/null &
pid=$!
if wait_until 40 grep -aq '^UMBRA-USERSPACE up' "$tmp/out"; then
	sleep 2
	before=$(ticks $pid)
	sleep 5
	used=$(($(ticks $pid) - before))
	percent=$(awk "BEGIN { printf \"%.1f\", $used * 100 / $(getconf CLK_TCK) / 5 }")
	check "idle: $percent % of a core" "3 % are allowed" awk "BEGIN { exit !($percent < 3) }"
else
	not_ok "idle" "no user space" "${show[@]}"
fi
kill $pid 2>/dev/null
wait $pid 2>/dev/null

# ---- ends other than power off ------------------------------------------------------------------------------------------
debian -q -p umbra.run=crash
check "a kernel panic: exit 3" "exit status $status" test "$status" = 3
check "a kernel panic: state dump" "no registers on stderr" grep -qi 'rip' "$tmp/err"

# ---- the shell, on a terminal -------------------------------------------------------------------------------------------
mkfifo "$tmp/keys"
log=$tmp/terminal
: >"$log"
cat >"$tmp/session" <<SESSION
before=\$(stty -g)
"$UMBRA" run -q -k "$vmlinuz" -i "$initrd" -m 256M
echo "status=\$?"
[ "\$before" = "\$(stty -g)" ] && echo terminal=same || echo terminal=changed
SESSION
script -qfec "bash $tmp/session" "$log" >/dev/null 2>&1 <"$tmp/keys" &
session=$!
exec 7>"$tmp/keys"
show=("$log")
shell() {	# $1: name, $2: keys, $3: what has to come back, a regex
	local from
	from=$(stat -c %s "$log")
	printf '%b' "$2" >&7
	check "shell: $1" "'$3' does not come" wait_until 15 bash -c "tail -c +$((from + 1)) '$log' | tr -d '\r' | grep -aqE '$3'"
}
if wait_until 60 grep -aq "'exit' powers off" "$log"; then
	sleep 1
	# shellcheck disable=SC2016	# for the guest's shell
	shell "a command" 'echo $((6*7))x\n' '^42x'
	shell "line editing" 'echo whoops\b\b\b\b\b\bfour\n' '^four'
	shell "Ctrl-c ends a command" 'sleep 100\n' 'sleep 100'
	sleep 0.5
	shell "Ctrl-c gives the prompt back" '\003echo b''ack\n' '^back'
	shell "much output" 'seq 1 3000 | tail -n 1; seq 1 3000\n' '^2999$'
	shell "Ctrl-a Ctrl-a is a Ctrl-a" 'cat -v\n\001\001\n' '\^A'
	printf '\003' >&7
	printf '\001x' >&7
	check "shell: Ctrl-a x leaves with 0" "$(grep -a '^status=' "$log")" wait_until 10 grep -aq $'^status=0\r' "$log"
	check "shell: the terminal is as it was" "it is not" wait_until 5 grep -aq '^terminal=same' "$log"
else
	not_ok "shell" "no shell" "$log"
fi
exec 7>&-
wait_until 5 test ! -d "/proc/$session"
finish
