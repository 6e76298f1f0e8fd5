#!/bin/bash
# umbra stat and umbra top: find the guests that run, say what they do, and leave terminal and sockets as they should be.
. "$(dirname "$0")/lib.bash"
need_kvm
vmlinuz=$UMBRA_CACHE/vmlinuz initrd=$UMBRA_BUILD/initrd.cpio.gz
[ -e "$vmlinuz" ] || { echo "no $vmlinuz: scripts/fetch-kernel gets it"; exit 77; }
[ -e "$initrd" ] || { echo "no $initrd: make initrd"; exit 77; }
export UMBRA_RUNTIME_DIR=$tmp/sockets	# other guests of this machine are none of our business
show=("$tmp/out" "$tmp/err")

umbra() { status=0; timeout -s KILL 30 "$UMBRA" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || status=$?; }
says() { grep -qF -- "$1" "$tmp/err"; }
prints() { grep -qE -- "$1" "$tmp/out"; }
exits_with() {	# $1: name, $2: status, $3: words on stderr
	check "$1: exit $2" "exit status $status" test "$status" = "$2"
	check "$1: says so" "not '$3'" says "$3"
}
guest() {	# rest: options; the pid in $guest, its console in $tmp/guest.N
	count=$((${count:-0} + 1))
	"$UMBRA" run -q -k "$vmlinuz" -i "$initrd" -m 256M --timeout 120s "$@" >"$tmp/guest.$count" 2>&1 </dev/null &
	guest=$!
	wait_until 60 grep -aqs '^UMBRA-USERSPACE up' "$tmp/guest.$count" || not_ok "guest $count" "no user space" "$tmp/guest.$count"
}
gone() { ! kill -0 "$1" 2>/dev/null; }

# ---- none -----------------------------------------------------------------------------------------------------------
umbra stat
exits_with "stat, no guest" 1 "no guest of this user runs"
umbra top -1
exits_with "top, no guest" 1 "no guest of this user runs"
umbra stat --list
exits_with "stat --list, no guest" 1 "no guest of this user runs"
umbra stat $$
exits_with "stat, the pid of something else" 1 "process $$ runs no guest"
umbra stat "$tmp/none.sock"
exits_with "stat, no such socket" 1 "No such file"
umbra stat --format=xml
exits_with "stat, no such format" 2 "not one of: table, json, prometheus"

# ---- one ------------------------------------------------------------------------------------------------------------
guest -p umbra.run=idle=100 --helper=on --prefetch=kvm8
first=$guest
check "its socket is for its user alone" "$(ls -l "$tmp/sockets")" test "$(stat -c %a "$tmp/sockets/$first.sock")" = 600
umbra stat
check "stat: the table" "exit status $status" test "$status" = 0
for line in "pid $first: vmlinuz, 256M" '^  hidden +[0-9 ]+ +[0-9.]+%  hidden faults' '^  page_fault +[0-9 ]+ ' '^  update issued +[1-9]' \
	'^  prefetched +[1-9]' 'pages in use'; do
	check "stat: a line '$line'" "none" prints "$line"
done
before=$(grep -o '"hypercall": [0-9]*' <<<"$("$UMBRA" stat -f json "$first")" | head -n 1 | tr -dc 0-9)
sleep 1
umbra stat --format=json "$first"
after=$(grep -o '"hypercall": [0-9]*' "$tmp/out" | head -n 1 | tr -dc 0-9)
check "stat: JSON, and it counts on ($before, $after)" "exit status $status" test "$status" = 0 -a "${after:-0}" -gt "${before:-0}"
umbra stat -f prometheus
bad=$(grep -vE '^# (HELP|TYPE) umbra_[a-z0-9_]+ |^umbra_[a-z0-9_]+\{pid="'"$first"'"(,[a-z]+="[^"]*")*\} [0-9.e+-]+$' "$tmp/out")
check "stat: Prometheus" "${bad:-exit status $status}" test "$status" = 0 -a -z "$bad"
check "stat: Prometheus has exits by cause" "none" prints '^umbra_exits_total\{pid="[0-9]+",cause="page_fault"\} [1-9]'
umbra stat --list
check "stat --list" "exit status $status" prints "^ *$first  .*umbra.run=idle=100"
umbra top -1 -s 0.5
check "top -1" "exit status $status" test "$status" = 0
check "top -1: a rate" "none" prints '^exits +[0-9]+ +[0-9]+\.[0-9]$'
check "top -1: one view, no escapes" "others" test "$(grep -c '^faults' "$tmp/out")" = 1 -a -z "$(tr -dc '\033' <"$tmp/out")"
umbra top -1 -x -f '^vCPU blocks'
check "top --filter" "$(cat "$tmp/out")" test "$(grep -cE '^(faults|exits|  blocks)' "$tmp/out")" = 1

# ---- the terminal -----------------------------------------------------------------------------------------------------
terminal() {	# $1: TERM, $2: keys; what came in $tmp/tty, decoded in $tmp/out
	rm -f "$tmp/tty"
	mkfifo "$tmp/keys"
	cat >"$tmp/session" <<-SESSION
		before=\$(stty -g)
		TERM=$1 "$UMBRA" top -s 0.2 $first
		echo "status=\$?"
		[ "\$before" = "\$(stty -g)" ] && echo terminal=same || echo terminal=changed
	SESSION
	timeout -s KILL 30 script -qfec "bash $tmp/session" "$tmp/tty" >/dev/null 2>&1 <"$tmp/keys" &
	exec 7>"$tmp/keys"
	wait_until 10 grep -aqs '^faults' "$tmp/tty"
	printf '%b' "$2" >&7
	check "top on a $1 terminal, $3: leaves with 0" "$(grep -a status= "$tmp/tty")" wait_until 10 grep -aq 'status=0' "$tmp/tty"
	check "... and the terminal is as it was" "it is not" wait_until 5 grep -aq '^terminal=same' "$tmp/tty"
	exec 7>&-
	rm "$tmp/keys"
}
escapes() { tr -dc '\033' <"$tmp/tty" | wc -c; }
terminal xterm q "key q"
check "... and back on its own screen" "no" grep -aq $'\033\[?1049l' "$tmp/tty"
terminal xterm '\003' "Ctrl-c"
check "... and back on its own screen" "no" grep -aq $'\033\[?1049l' "$tmp/tty"
terminal dumb 'oxrq' "keys o x r q"
check "... without one escape sequence" "$(escapes) of them" test "$(escapes)" = 0

# ---- two ------------------------------------------------------------------------------------------------------------
guest -p umbra.run=idle=100
second=$guest
umbra stat
exits_with "stat, two guests and no name" 2 "several guests run"
check "... and lists both" "not" grep -qE "^ *$first .*" "$tmp/err"
umbra stat "$second"
check "stat: the second by its pid" "exit status $status" prints "pid $second"
umbra stat "$tmp/sockets/$first.sock"
check "stat: the first by its socket" "exit status $status" prints "pid $first"
kill -9 "$second"
wait "$second" 2>/dev/null
check "a killed one leaves its socket" "not" test -e "$tmp/sockets/$second.sock"
umbra stat
check "... which the next look removes" "exit status $status" test "$status" = 0 -a ! -e "$tmp/sockets/$second.sock"

# ---- --control --------------------------------------------------------------------------------------------------------
run -q -k "$vmlinuz" -p umbra.run=x --control="$tmp/sockets/$first.sock" --timeout 20s
exits_with "--control of another guest" 1 "another umbra listens there"
run -q -k "$vmlinuz" --control="$tmp/session" --timeout 20s
exits_with "--control on a file" 1 "no socket"
run -q -k "$vmlinuz" --control="$tmp/none/x" --timeout 20s
exits_with "--control in no folder" 1 "No such file"
guest -p umbra.run=idle=100 --control="$tmp/own.sock"
umbra stat "$tmp/own.sock"
check "--control=PATH" "exit status $status" prints "pid $guest"
kill "$guest"
check "... removed at the end" "not" wait_until 10 test ! -e "$tmp/own.sock"
guest -p umbra.run=idle=100 --control=off
umbra stat "$guest"
exits_with "--control=off" 1 "runs no guest, or it has no control socket"
kill "$guest"
wait_until 10 gone "$guest"

# ---- the end ----------------------------------------------------------------------------------------------------------
"$UMBRA" top -s 0.2 "$first" >"$tmp/out" 2>"$tmp/err" </dev/null &
top=$!
wait_until 10 grep -q '^exits' "$tmp/out"
kill "$first"
wait "$first" 2>/dev/null
status=0
wait "$top" || status=$?
exits_with "top when the guest ends" 0 "the guest has ended"
check "no socket is left" "$(ls "$tmp/sockets")" test -z "$(ls "$tmp/sockets")"
finish
