#!/bin/bash
# scripts/perf: each recipe shows something of a running guest, or says in one line what this host lacks.
. "$(dirname "$0")/lib.bash"
need_kvm
vmlinuz=$UMBRA_CACHE/vmlinuz initrd=$UMBRA_BUILD/initrd.cpio.gz
[ -e "$vmlinuz" ] || { echo "no $vmlinuz: scripts/fetch-kernel gets it"; exit 77; }
[ -e "$initrd" ] || { echo "no $initrd: make initrd"; exit 77; }
export UMBRA_RUNTIME_DIR=$tmp/sockets UMBRA
show=("$tmp/out" "$tmp/err")
cd "$top" || exit

recipe() { status=0; timeout -s KILL 60 "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || status=$?; }
says_why() { [ "$status" = 77 ] && [ "$(grep -c "^scripts/perf/" "$tmp/err")" = 1 ]; }
# In a mount namespace of its own, where tracefs ($1: tracefs, or tmpfs to hide it) is mounted.
in_namespace() {
	local kind=$1
	shift
	recipe unshare -m bash -c 'mount -t "$1" "$1" /sys/kernel/tracing && shift && exec "$@"' - "$kind" "$@"
}

# ---- without a guest, and with mistakes -----------------------------------------------------------------------------------
recipe scripts/perf/list
check "list" "exit status $status" test "$status" = 0 -o "$status" = 77
[ "$status" = 77 ] || check "list names the probes" "not fault__exit" grep -q '^fault__exit ' "$tmp/out"
recipe scripts/perf/bpf
for bt in scripts/perf/*.bt; do
	check "bpf lists $(basename "$bt" .bt)" "not" grep -qE "^$(basename "$bt" .bt) +[a-z]" "$tmp/out"
done
recipe scripts/perf/bpf nothing
check "bpf, no such program: exit 2" "exit status $status" test "$status" = 2
recipe scripts/perf/cpu many
check "cpu, no number: exit 2" "exit status $status" test "$status" = 2
for r in cpu counters kvm probes bpf list; do
	recipe scripts/perf/$r --help
	check "$r --help" "exit status $status" grep -q "^usage: scripts/perf/$r" "$tmp/out"
done

# ---- what is missing is named ---------------------------------------------------------------------------------------------
mkdir "$tmp/bin"	# no perf, no bpftrace in it
for tool in bash awk sed grep cut sort id basename dirname realpath readlink cat mktemp rm; do
	ln -s "$(command -v $tool)" "$tmp/bin/$tool"
done
recipe env PATH="$tmp/bin" scripts/perf/cpu
check "no perf: exit 77, and how to get it" "exit status $status" says_why
check "... the package" "not named" grep -q 'apt-get install linux-perf' "$tmp/err"
recipe env PATH="$tmp/bin" scripts/perf/bpf faults
check "no bpftrace: exit 77, and how to get it" "exit status $status" grep -q 'apt-get install bpftrace' "$tmp/err"
if unshare -m true 2>/dev/null; then
	in_namespace tmpfs scripts/perf/kvm
	check "no tracefs: exit 77, and what to do" "exit status $status" says_why
else
	skip "no tracefs" "this host lets nobody make a mount namespace"
fi

# ---- with one -------------------------------------------------------------------------------------------------------------
"$UMBRA" run -q -k "$vmlinuz" -i "$initrd" -m 256M -p umbra.run=forks=100000 --prefetch=kvm8 --timeout 150s \
	>"$tmp/guest" 2>&1 </dev/null &
guest=$!
wait_until 60 grep -aqs '^UMBRA-USERSPACE up' "$tmp/guest" || not_ok "a guest" "no user space" "$tmp/guest"

shows() {	# $1: name, $2: what its output has, a regex, rest: the recipe
	local name=$1 regex=$2 why
	shift 2
	if unshare -m true 2>/dev/null; then
		in_namespace tracefs "$@"
	else
		recipe "$@"
	fi
	if says_why; then
		why=$(grep -m 1 '^scripts/perf/' "$tmp/err")
		skip "$name" "${why#*: }"
	elif [ "$status" != 0 ]; then
		not_ok "$name" "exit status $status" "${show[@]}"
	else
		check "$name" "no line '$regex'" grep -qE -- "$regex" "$tmp/out" "$tmp/err"
	fi
}
shows "cpu: where umbra spends time" '[0-9]+\.[0-9]+% +(umbra|vcpu[0-9]+) ' scripts/perf/cpu 1
shows "counters: the processor's" 'cycles:G' scripts/perf/counters 1
shows "kvm: its tracepoints" 'kvm:kvm_' scripts/perf/kvm 1
shows "probes: counted" '[1-9][0-9,]* +sdt_umbra:fault__exit' scripts/perf/probes 1
PROBES="exit enter" shows "probes: some of them, recorded" '[1-9][0-9]* events are in' scripts/perf/probes --record "$tmp/record" 1 "$guest"
shows "bpf faults" '^@count\[hidden  , (user  |kernel)\]: [1-9]' scripts/perf/bpf faults 1
shows "bpf exits" '^@count\[exception  , 14\]: [1-9]' scripts/perf/bpf exits 1
shows "bpf hypercalls" '^@ns\[26\]: count [1-9]' scripts/perf/bpf hypercalls 1
shows "bpf prebuild" '^@built\[1\]: [1-9]' scripts/perf/bpf prebuild 1
shows "bpf kicks" '^@entries:' scripts/perf/bpf kicks 1

recipe "$UMBRA" stat "$guest"
check "the guest runs on" "exit status $status" test "$status" = 0
kill $guest
wait $guest 2>/dev/null
finish
