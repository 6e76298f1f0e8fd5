#!/bin/bash
# The tiny kernels of tests/guests, in every mode that may change counts but never results; then the hostile ones.
. "$(dirname "$0")/lib.bash"
need_kvm

make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 || { not_ok "build of the tiny kernels" "make failed" "$tmp/make"; finish; }
guests=$UMBRA_BUILD/guests
seed=${SEED:-1}		# of everything random; another one now and then finds more

# $1: kernel, $2: label of the mode, $3: command line, rest: options. One line per test of the kernel if $lines is set,
# else one for all.
lines=
guest() {
	local kernel=$1 cmdline=$3 name=$1${2:+ [$2]} line n
	shift 3
	run -q -k "$guests/$kernel.elf" -m 64M --timeout 60s -p "$cmdline" "$@"
	while read -r line; do
		not_ok "$name ${line#FAIL }" "the guest says so"
	done < <(grep -a '^FAIL ' "$tmp/out" | cut -c 1-200)
	if [ "$status" != 0 ]; then
		not_ok "$name" "exit status $status" "${show[@]}"
	elif ! grep -aqE '^VERDICT (pass|fail)' "$tmp/out"; then
		not_ok "$name" "no verdict" "${show[@]}"
	elif grep -aq '^VERDICT pass' "$tmp/out"; then
		n=$(grep -ac '^ok ' "$tmp/out")
		if [ -n "$lines" ]; then
			sed -n "s/^ok /ok - $kernel /p; s/^skip \([^ ]*\) /skip - $kernel \1: /p" "$tmp/out"
		else
			ok "$name, $n tests"
		fi
	elif ! grep -aq '^FAIL ' "$tmp/out"; then
		not_ok "$name" "it failed without a reason" "${show[@]}"
	fi
}

perl -e 'print pack("C*", map { ($_ * 7 + int($_ / 251)) & 255 } 0 .. 99999)' >"$tmp/initrd"

start_of_day() {	# $1: kernel
	guest "$1" "" "hello=world pages=16384 initrd=100000" -i "$tmp/initrd"
	# console_io is another way to the same console: its output may come in the middle of a line at either end
	check "$1: 200 lines through the console ring" "$(grep -ac '^console ring says hello' "$tmp/out") of 200 came" \
		test "$(grep -ac '^console ring says hello' "$tmp/out")" -ge 198
	check "$1: console_io" "its line is missing" grep -aqx 'console_io says hello' "$tmp/out"
}

lines=1
for kernel in hello hello-page hello-low hello-old; do
	start_of_day "$kernel"
done
guest hello initdomain "hello=world pages=16384 initdomain=1" --initdomain
lines=
guest hello "no initrd" "hello=world pages=16384"
guest hello "20 MiB" "hello=world pages=5120" -m 20M

# Console input: a few lines, one of them long, then the one that ends the guest. stdin may end right behind it.
{ printf 'first\n\n'; printf '%0200d\n' 7; printf 'quit\n'; } >"$tmp/input"
echoes() {	# $1: label, rest: options
	local name="console input$1"
	shift
	status=0
	timeout -s KILL 60 "$UMBRA" run -q -k "$guests/wait.elf" -m 32M -p wait=echo --timeout 30s "$@" <"$tmp/input" \
		>"$tmp/out" 2>"$tmp/err" || status=$?
	sed -n 's/^echo: //p' "$tmp/out" >"$tmp/echo"
	check "$name" "exit status $status, or the lines differ" cmp -s "$tmp/input" "$tmp/echo"
}
echoes ", ring"
echoes ", console_io" --initdomain

# A PVM host does not honour CR0.TS: then the tests of it skip themselves.
pvm=
[ ! -e /sys/module/kvm_pvm ] || pvm=pvm=1

lines=1
guest traps "" "$pvm"
guest user "" "seed=$seed"
guest mmu "" "seed=$seed"
guest events "" "now=$(date +%s)"
lines=
guest traps-low "" "$pvm"
guest user-page "" ""
guest mmu-old "" "seed=$((seed + 1))"
guest events-high "" ""

# What the shim and the gates do inside the VM: expectations of its own for each mode, and the frames that a guest kernel is
# shown have to be the same in all of them, bit by bit.
frames=
shim() {	# $1: kernel, $2: what the mode is, as the kernel checks it, rest: options
	local kernel=$1 expected=$2 found
	shift 2
	guest "$kernel" "$*" "seed=$seed $expected" "$@"
	found=$(tr -d '\r' <"$tmp/out" | sed -n 's/^frames //p')
	frames=${frames:-$found}
	check "$kernel${*:+ [$*]}: frames as in the other modes" "$found, not $frames" test -n "$found" -a "$found" = "$frames"
}
lines=1
shim shim "shim=on gates=invm" --gates=invm
lines=
shim shim-high "shim=on gates=invm" --gates=invm
shim shim "shim=off gates=vmm" --shim=off
shim shim "shim=on gates=vmm" --gates=vmm
shim shim "shim=on gates=invm" --gates=invm --shim=stack,segment,iret
shim shim "shim=on gates=invm" --gates=invm --fill=eager --prefetch=xen32 --audit=3
shim shim "shim=on gates=invm" --gates=invm --shadow-pages=64 --prefetch=16 --audit=2
shim shim "shim=on gates=invm" --gates=invm --helper=on --fill=lazy
shim shim-high "shim=on gates=vmm" --gates=vmm --shadow-pages=64
for feature in mmu mmuext multicall stack segment timer misc iret; do
	shim shim "shim=on gates=vmm" --shim=$feature
done

# NUMA nodes that a guest is told of, or not; here all on the one node there is.
guest vnuma "told nothing" "vnodes=0"
guest vnuma-high "8 nodes, 3 vCPUs" "vnodes=8 vcpus=3" -c 3 --vnuma=8 -q

# Several vCPUs, also more than there are cores, and all of them on one.
lines=1
guest smp "2 vCPUs" "seed=$seed cpus=2" -c 2
lines=
for options in "" --shim=off --gates=vmm "--audit=1 --fill=eager" "--shadow-pages=96" "--kick=rewrite" "--helper=on"; do
	# shellcheck disable=SC2086
	guest smp-high "4 vCPUs${options:+, $options}" "seed=$((seed + 1)) cpus=4" -c 4 $options
done
guest smp "16 vCPUs" "seed=$seed cpus=16" -c 16
# pattern|options: pages in the hands of several vCPUs, every word checked.
while IFS='|' read -r cmdline options; do
	# shellcheck disable=SC2086
	guest numa "$cmdline${options:+, $options}" "seed=$seed cpus=4 rounds=200000 $cmdline" -c 4 $options
done <<'PATTERNS'
pattern=phases|
pattern=writeshared map=own|--audit=1
pattern=readshared roots=own|--helper=on
pattern=uniform map=own roots=own|--shadow-pages=96
PATTERNS

# kernel|options
while IFS='|' read -r kernel options; do
	# shellcheck disable=SC2086
	guest "$kernel" "$options" "seed=$seed $pvm" $options
done <<'MODES'
mmu|--fill=eager
mmu|--fill=eager --prefetch=kvm8
mmu|--fill=eager --prefetch=xen32 --audit=3
mmu|--prefetch=kvm8 --large=off
mmu|--prefetch=16 --audit=2
mmu|--audit=3
mmu|--shadow-pages=64
mmu|--shadow-pages=64 --fill=eager --prefetch=xen32 --audit=3
user|--fill=eager --prefetch=kvm8
user|--shadow-pages=64 --prefetch=16 --audit=3
traps|--fill=eager --prefetch=xen32 --shadow-pages=64
events|--fill=eager --large=off --audit=3
mmu|--helper=on
mmu-old|--shim=off
mmu-old|--gates=vmm --fill=eager
mmu-old|--helper=on --fill=eager --shadow-pages=64 --audit=2
user-page|--shim=off
user-page|--gates=vmm
user-page|--shim=mmu,multicall --prefetch=kvm8
traps|--shim=off
traps|--gates=vmm
events|--shim=off
events|--gates=vmm
events|--shim=timer
MODES

# A guest that lives on may find that it has lost its mind; what hostile_shim expects of user mode it says by FAIL.
hostile_end() { [ "$1" != hostile_shim ] || ! grep -aq '^FAIL ' "$tmp/out" || grep -aq '^FAIL unexpected trap' "$tmp/out"; }

# Hostile guests: whatever they do, the VMM ends with 0 or 3, in time, and says why.
hostile() {	# $1: kernel, $2: test, $3: label, rest: options
	local kernel=$1 test=$2 name="$1 $2${3:+ [$3]}"
	shift 3
	LIMIT=40 run -q -k "$guests/$kernel.elf" -m 32M --timeout 20s -p "only=$test seed=$seed" "$@"
	case $status in
	0)
		check "$name, seed $seed" "$(grep -a '^FAIL ' "$tmp/out" | cut -c 1-160)" hostile_end "$kernel" ;;
	3)
		check "$name, seed $seed" "crashed without a reason" grep -aq '^umbra: ' "$tmp/err" ;;
	*)
		not_ok "$name, seed $seed" "exit status $status" "$tmp/err" ;;
	esac
}

# Those that have to be told of it one by one: a boot each.
hostile_tests() {	# $1: kernel
	run -q -k "$guests/$1.elf" -m 32M --timeout 20s -p list=1
	mapfile -t tests < <(tr -d '\r' <"$tmp/out" | sed -n 's/^test //p')
	check "$1: hostile guests list their tests" "status $status" test ${#tests[@]} -gt 30
}
hostile_tests hostile
for test in ${tests[@]+"${tests[@]}"}; do
	hostile hostile "$test" ""
done
for test in random_hypercalls random_page_table_updates garbage_beside_the_kernel one_frame_at_every_level pins_at_random \
	direct_stores_of_garbage; do
	hostile hostile "$test" "audit, small pool" --audit=1 --shadow-pages=64 --fill=eager --prefetch=xen32
done
hostile_tests hostile_shim
for test in ${tests[@]+"${tests[@]}"}; do
	hostile hostile_shim "$test" ""
	hostile hostile_shim "$test" "helper, small pool" --helper=on --shadow-pages=64 --audit=1
done
for test in random_words random_page ring_of_garbage ring_of_frames ring_of_live_tables; do
	hostile hostile_shim "$test" "gates=vmm, eager" --gates=vmm --fill=eager --prefetch=xen32 --shadow-pages=64
done
finish
