#!/bin/bash
# What users and hosts do wrong: a clear message on stderr, the right exit code, the terminal as it was, nothing left.
. "$(dirname "$0")/lib.bash"

# umbra keeps nothing on disk; should it ever, it has to be gone afterwards
mkdir "$tmp/tmp"
export TMPDIR=$tmp/tmp
guests=$UMBRA_BUILD/guests
vmlinuz=$UMBRA_CACHE/vmlinuz

# $1: name, $2: exit codes, $3: regex that stderr must match, rest: arguments of umbra run
refused() {
	local name=$1 codes=$2 words=$3
	shift 3
	LIMIT=60 run "$@"
	case " $codes " in
	*" $status "*) ;;
	*) not_ok "$name" "exit status $status, not $codes" "$tmp/err"; return ;;
	esac
	if ! grep -qE "$words" "$tmp/err"; then
		not_ok "$name" "stderr does not say '$words'" "$tmp/err"
	elif ! grep -qE '^umbra( run)?: ' "$tmp/err"; then
		not_ok "$name" "the message does not say who speaks" "$tmp/err"
	elif [ -s "$tmp/out" ]; then
		not_ok "$name" "stdout is not empty" "$tmp/out"
	else
		ok "$name"
	fi
}

# ---- options ---------------------------------------------------------------------------------------------------------
usage() {	# $1: words, rest: arguments behind a kernel
	local words=$1
	shift
	refused "usage: $*" 2 "$words" -k /dev/null "$@"
}
usage 'memory=1M.*16M' --memory=1M
usage 'memory=64.*bytes' --memory=64
usage 'memory=abc' --memory=abc
usage 'memory=-5' --memory=-5
usage 'memory=999999T' --memory=999999T
usage 'memory=99999999999999999999' --memory=99999999999999999999
usage 'memory=17000001.*4K' --memory=17000001
usage 'vcpus=0' --vcpus=0
usage 'vcpus=99' --vcpus=99
usage 'vcpu-cpus=x' --vcpu-cpus=x
usage 'fill=sometimes.*lazy, eager' --fill=sometimes
usage 'prefetch=0' --prefetch=0
usage 'prefetch=512' --prefetch=512
usage 'prefetch=much' --prefetch=much
usage 'audit=4' --audit=4
usage 'shadow-pages=1' --shadow-pages=1
usage 'shadow-pages=99999999999' --shadow-pages=99999999999
usage 'kick=hard' --kick=hard
usage 'large=maybe' --large=maybe
usage 'mmu=sideways.*shadow, nested' --mmu=sideways
usage 'mmu=nested.*vcpus' --mmu=nested --vcpus=2
usage 'gates=open.*auto, vmm, invm' --gates=open
usage 'host-pages=large' --host-pages=large
usage 'numa=maybe' --numa=maybe
usage 'vnuma=0' --vnuma=0
usage 'vnuma=65' --vnuma=65
usage 'vnuma=hosts' --vnuma=hosts
usage 'vnuma binds memory' --vnuma=2 --numa=local
usage 'leave --numa' --vnuma=2 --membind=0
usage 'vcpu-cpus out' --vnuma=2 --vcpu-cpus=any
usage 'membind=x' --membind=x
usage 'cpunodebind=64' --cpunodebind=64
usage 'preferred=-1' --preferred=-1
refused "a NUMA node that is not there" 1 'node 63 has no memory' -k /dev/null --membind=63
usage 'timeout=0' --timeout=0
usage 'timeout=soon' --timeout=soon
usage 'expect=\[' --expect='['
usage 'stats=/nonexistent/x' --stats=/nonexistent/x
usage 'fault-map.*--stats' --fault-map
usage 'stray' stray
refused "usage: no kernel" 2 'kernel is needed'
refused "usage: unknown option" 2 'frobnicate' --frobnicate
status=0
"$UMBRA" dance >"$tmp/out" 2>"$tmp/err" || status=$?
check "usage: unknown command" "status $status" test "$status" = 2 -a -s "$tmp/err" -a ! -s "$tmp/out"
status=0
"$UMBRA" run --help >"$tmp/out" 2>"$tmp/err" || status=$?
check "usage: --help goes to stdout, exit 0" "status $status" test "$status" = 0 -a -s "$tmp/out" -a ! -s "$tmp/err"

# ---- a host without KVM -------------------------------------------------------------------------------------------------
no_kvm() {	# $1: name, $2: words, rest: command prefix
	local name=$1 words=$2
	shift 2
	status=0
	"$@" "$tmp/bin/umbra" run -k "$tmp/bin/kernel" >"$tmp/out" 2>"$tmp/err" </dev/null || status=$?
	check "$name: exit 77" "status $status" test "$status" = 77
	check "$name: message" "it does not say '$words'" grep -qE "$words" "$tmp/err"
	status=0
	"$@" "$tmp/bin/umbra" doctor >"$tmp/out" 2>&1 </dev/null || status=$?
	check "$name: doctor says fail and exits 77" "status $status" test "$status" = 77
	check "$name: doctor names the device" "it does not" grep -qE 'fail.*kvm' "$tmp/out"
}
mkdir "$tmp/bin"
chmod 755 "$tmp" "$tmp/bin"
cp "$UMBRA" "$tmp/bin/umbra"
echo >"$tmp/bin/kernel"
chmod 755 "$tmp/bin/umbra"
if unshare -m true 2>/dev/null; then
	no_kvm "no /dev/kvm" 'No such file|not there|missing' unshare -m sh -c 'mount -t tmpfs none /dev && exec "$@"' -
else
	skip "no /dev/kvm" "this user cannot make a mount namespace"
fi
if [ "$(id -u)" = 0 ] && setpriv --reuid=65534 --regid=65534 --clear-groups true 2>/dev/null; then
	if setpriv --reuid=65534 --regid=65534 --clear-groups test -w /dev/kvm; then
		skip "no permission for /dev/kvm" "everybody has it here"
	else
		no_kvm "no permission for /dev/kvm" '[Pp]ermission' setpriv --reuid=65534 --regid=65534 --clear-groups
	fi
else
	skip "no permission for /dev/kvm" "only root can become somebody else"
fi

need_kvm
make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 || { not_ok "build of the tiny kernels" "make failed" "$tmp/make"; finish; }

# ---- files --------------------------------------------------------------------------------------------------------------
refused "kernel: no such file" 1 'nowhere.*[Nn]o such file' -k "$tmp/nowhere"
refused "kernel: a directory" 1 'directory' -k "$tmp"
: >"$tmp/empty"
refused "kernel: an empty file" 1 'empty' -k "$tmp/empty"
echo 'a kernel, honestly' >"$tmp/text"
refused "kernel: a text file" 1 'text.*not a kernel' -k "$tmp/text"
head -c 300000 /dev/urandom >"$tmp/noise"
refused "kernel: noise" 1 'noise.*not a kernel' -k "$tmp/noise"
refused "kernel: an ordinary program" 1 'true' -k /bin/true
chmod 0 "$tmp/text"
[ "$(id -u)" = 0 ] || refused "kernel: not readable" 1 'Permission' -k "$tmp/text"
hello=$guests/hello.elf wait=$guests/wait.elf
for size in 40 64 200 4096 9000; do
	head -c $size "$hello" >"$tmp/cut"
	refused "kernel: ELF cut to $size bytes" 1 'cut' -k "$tmp/cut"
done
if [ -e "$vmlinuz" ]; then
	for size in 600 20000 3000000 $(($(stat -L -c %s "$vmlinuz") * 3 / 4)); do
		head -c "$size" "$vmlinuz" >"$tmp/cut"
		refused "kernel: bzImage cut to $size bytes" 1 'cut.*(truncated|ends|damaged|corrupt)' -k "$tmp/cut"
	done
	cp "$vmlinuz" "$tmp/corrupt"
	chmod 644 "$tmp/corrupt"
	head -c 64 /dev/urandom | dd of="$tmp/corrupt" bs=1 seek=2000000 conv=notrunc status=none
	LIMIT=60 run -k "$tmp/corrupt" --timeout 20s --no-reboot
	# LZ4 has no checksum of its blocks: damage may pass as a kernel that then crashes
	check "kernel: damaged bzImage" "exit status $status" test "$status" = 1 -o "$status" = 3 -o "$status" = 124
	check "kernel: damaged bzImage, message" "nothing on stderr" grep -qE '^umbra: ' "$tmp/err"
	refused "memory too small for the kernel" 1 'memory|-m' -k "$vmlinuz" -m 16M
else
	skip "kernel: damaged bzImages" "no $vmlinuz; scripts/fetch-kernel gets it"
fi
refused "initrd: no such file" 1 'nowhere.*[Nn]o such file' -k "$hello" -i "$tmp/nowhere"
refused "initrd: a directory" 1 'directory' -k "$hello" -i "$tmp"
truncate -s 100M "$tmp/big"
refused "initrd: larger than memory" 1 'memory|-m' -k "$hello" -i "$tmp/big" -m 32M

run -k "$hello" -m 32M -p hello=world --symbols "$tmp/nowhere"
check "symbols: no such file does not stop the run" "exit status $status" test "$status" = 0
check "symbols: no such file, message" "stderr does not have it" grep -q 'nowhere.*no such file' "$tmp/err"

# ---- how runs end -------------------------------------------------------------------------------------------------------
run -q -k "$hello" -m 32M -p 'hello=world' --expect '^VERDICT pass'
check "--expect met: exit 0" "exit status $status" test "$status" = 0
check "-q is quiet" "stderr has something" test ! -s "$tmp/err"
run -k "$hello" -m 32M -p 'hello=world' --expect 'never printed'
check "--expect not met: exit 4" "exit status $status" test "$status" = 4
check "--expect not met: message" "stderr does not have it" grep -q 'never printed' "$tmp/err"
SECONDS=0
run -k "$wait" -m 32M -p 'wait=block' --timeout 1500ms
check "--timeout: exit 124 in time" "exit status $status after $SECONDS s" test "$status" = 124 -a $SECONDS -lt 8
run -k "$wait" -m 32M -p 'wait=spin' --timeout 1s
check "--timeout of a guest that spins" "exit status $status" test "$status" = 124
run -q -k "$hello" -m 32M --stats /dev/full
check "--stats to a full disk: exit 1" "exit status $status" test "$status" = 1
check "--stats to a full disk: message" "stderr does not have it" grep -q '/dev/full' "$tmp/err"
run -q -k "$hello" -m 32M --stats "$tmp/stats.json"
check "--stats has a schema number" "it does not" grep -qE '"schema": *[0-9]' "$tmp/stats.json"

# $1: signal, $2: what the guest does, $3: exit status expected
killed() {
	local sig=$1 how=$2 want=$3 pid status=0 name="SIG$1 while the guest does wait=$2" log=$tmp/killed
	: >"$log"		# not to see the line of the guest before
	# bash has SIGINT ignored in background jobs, and umbra leaves that as it finds it
	env --default-signal=INT "$UMBRA" run -k "$wait" -m 32M -p "wait=$how" --timeout 40s \
		--stats "$tmp/killed.json" >"$log" 2>"$log.err" </dev/null &
	pid=$!
	wait_until 20 grep -aq '^waiting' "$log" || { not_ok "$name" "the guest does not start" "$log" "$log.err"; kill -9 $pid; return; }
	kill -s "$sig" $pid
	SECONDS=0
	wait $pid 2>/dev/null || status=$?
	check "$name: exit $want" "exit status $status after $SECONDS s" test "$status" = "$want" -a $SECONDS -lt 5
	[ "$sig" = KILL ] || check "$name: message" "nothing on stderr" grep -qi "sig$sig\|interrupt\|terminat\|hang" "$log.err"
	check "$name: nothing left" "$(ls -A "$TMPDIR" "$tmp"/killed.json?* 2>/dev/null)" \
		test -z "$(ls -A "$TMPDIR"; ls "$tmp"/killed.json?* 2>/dev/null)"
}
killed TERM block 1
killed INT spin 1
killed HUP print 1
killed KILL spin 137
check "no memory of a guest is left in /dev/shm" "$(ls /dev/shm)" test -z "$(find /dev/shm -iname '*umbra*')"

# A reader that goes away ends the run; a closed stdin does not.
SECONDS=0
timeout -s KILL 20 "$UMBRA" run -k "$wait" -m 32M -p wait=print 2>"$tmp/err" </dev/null | head -n 3 >"$tmp/out"
check "stdout closed: the run ends" "it took $SECONDS s" test $SECONDS -lt 10
status=0
timeout -s KILL 20 "$UMBRA" run -q -k "$hello" -m 32M -p hello=world >"$tmp/out" 2>"$tmp/err" <&- || status=$?
check "stdin closed from the start" "exit status $status" test "$status" = 0

# ---- the terminal ---------------------------------------------------------------------------------------------------------
# `script` gives umbra a terminal; the shell in it compares its settings before and after.
terminal() {	# $1: name, $2: how to end it (bash, $pid and $log are set), $3: exit status expected
	local name=$1 end=$2 want=$3 log=$tmp/terminal pid
	rm -f "$log" "$tmp/keys" "$tmp/pid"
	: >"$log"
	mkfifo "$tmp/keys"
	cat >"$tmp/session" <<SESSION
before=\$(stty -g)
"$UMBRA" run -k "$wait" -m 32M -p wait=block & echo \$! >"$tmp/pid"
fg >/dev/null 2>&1
echo "status=\$?"
[ "\$before" = "\$(stty -g)" ] && echo "terminal=same" || echo "terminal=changed"
SESSION
	script -qfec "bash -m $tmp/session" "$log" >/dev/null 2>&1 <"$tmp/keys" &
	exec 7>"$tmp/keys"
	if wait_until 20 grep -aq '^waiting' "$log"; then
		pid=$(cat "$tmp/pid")
		eval "$end"
		wait_until 10 grep -aq '^terminal=' "$log"
	fi
	exec 7>&-
	wait 2>/dev/null
	check "$name: exit $want" "$(grep -a '^status=' "$log")" grep -aq "^status=$want"$'\r' "$log"
	show=("$log") check "$name: the terminal is as it was" "it is not" grep -aq '^terminal=same' "$log"
}
terminal "Ctrl-a x" 'printf "\001x" >&7' 0
# shellcheck disable=SC2016	# for the function to evaluate
terminal "SIGTERM on a terminal" 'kill -TERM "$pid"' 1
# shellcheck disable=SC2016
terminal "SIGSEGV on a terminal" 'kill -SEGV "$pid"' 139
finish
