#!/bin/bash
# The tiny kernels and a short Debian boot where ring 0 of the gate is native: in the testbed, with the processor walking
# our shadow tables (npt=1, kick by flush) and with KVM shadowing them (npt=0, kick by rewriting). One machine each.
. "$(dirname "$0")/lib.bash"

command -v qemu-system-x86_64 >/dev/null || { echo "no qemu-system-x86_64; scripts/deps test installs it"; exit 77; }
make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 || { not_ok "build of the tiny kernels" "make failed" "$tmp/make"; finish; }
initrd=$UMBRA_BUILD/initrd.cpio.gz
export UMBRA_BUILD UMBRA_CACHE

# NAME|kernel|command line|options
guests=$(cat <<-'END'
	hello|hello|hello=world pages=16384|
	traps|traps||
	user|user||
	user, shim off|user||--shim=off
	events|events||
	mmu|mmu||
	mmu, shim off|mmu||--shim=off
	mmu, every entry rewritten|mmu||--kick=rewrite
	mmu, 48 pages, audit 3|mmu|seed=3|--shadow-pages=48 --fill=eager --prefetch=xen32 --audit=3
	shim|shim|late=200000 shim=on gates=invm|--gates=invm
	shim, inline calls, 64 pages|shim-high|late=200000 shim=on gates=invm|--gates=invm --shadow-pages=64 --fill=eager
	shim, gates by the VMM|shim|late=200000 shim=on gates=vmm|--gates=vmm
	shim, off|shim|late=200000 shim=off gates=vmm|--shim=off
	shim, helper|shim|late=200000 shim=on gates=invm|--gates=invm --helper=on
	smp|smp|cpus=2 rounds=40|-c 2
	smp, shim off|smp-high|cpus=3 rounds=40|-c 3 --shim=off
	nested|nested|nested=1|--mmu=nested --audit=3
	nested, mmu|mmu||--mmu=nested --audit=3
	nested, every entry rewritten|nested|nested=1|--mmu=nested --kick=rewrite
	nested, user|user|nested=1|--mmu=nested
	hostile_shim, user mode by the shim's door|hostile_shim|only=user_mode_by_the_shims_door|
	hostile_shim, stores where no memory is|hostile_shim|only=stores_where_no_memory_is|
	hostile_shim, gates from user mode|hostile_shim|only=gates_from_user_mode|
END
)
while IFS='|' read -r name kernel cmdline options; do
	echo "$name|-k build/guests/$kernel.elf -m 64M --timeout 90s -p \"$cmdline\" $options"
done <<<"$guests" >"$tmp/runs"
if [ -e "$initrd" ]; then
	echo "Debian|-k cache/vmlinuz -i build/initrd.cpio.gz -m 128M --timeout 120s --no-reboot -p umbra.run=forks=5 --expect '^UMBRA-RESULT ok'" >>"$tmp/runs"
else
	skip "testbed, Debian" "no $initrd: make initrd"
fi

one_guest() {	# $1: npt, $2: name, $3: exit status, $4: seconds; $tmp/one: what it printed
	local name="testbed npt=$1, $2"
	if [ "$3" != 0 ]; then
		not_ok "$name" "exit status $3" "$tmp/one"
	elif grep -aq '^FAIL ' "$tmp/one"; then
		not_ok "$name" "$(grep -a -m 1 '^FAIL ' "$tmp/one" | tr -d '\r' | cut -c 6-160)"
	elif grep -aq '^VERDICT pass' "$tmp/one"; then
		ok "$name, $(grep -ac '^ok ' "$tmp/one") tests, $4 s"
	elif grep -aq '^UMBRA-RESULT ok' "$tmp/one"; then
		ok "$name, $4 s"
	else
		not_ok "$name" "no verdict" "$tmp/one"
	fi
}

for npt in 1 0; do
	"$top/scripts/testbed" --npt=$npt --timeout=400 --dir "$UMBRA_BUILD/guests" --file "$tmp/runs:/umbra/runs" \
		--file "$top/tests/e2e/testbed-guests.inside:/umbra/inside" -- sh /umbra/inside >"$tmp/all" 2>"$tmp/err"
	status=$?
	[ $status = 0 ] || not_ok "testbed npt=$npt" "exit status $status" "$tmp/err" "$tmp/all"
	case $npt in
	1) want='with NPT: the processor walks' ;;
	0) want='NPT off: KVM shadows' ;;
	esac
	check "testbed npt=$npt: umbra doctor sees it" "it says: $(grep -a 'kind of KVM' "$tmp/all")" grep -aq "$want" "$tmp/all"
	while IFS= read -r line; do
		case $line in
		"BEGIN "*) : >"$tmp/one" ;;
		"END "*)
			read -r took code <<<"$(awk '{ print $NF, $(NF - 1) }' <<<"$line")"
			name=${line#END }
			one_guest "$npt" "${name% * *}" "$code" "$took"
			;;
		*) printf '%s\n' "$line" >>"$tmp/one" ;;
		esac
	done <"$tmp/all"
	check "testbed npt=$npt: the frames of transitions are the same in every mode" \
		"$(tr -d '\r' <"$tmp/all" | grep -a '^frames ' | sort | uniq -c | tr '\n' ';')" \
		test "$(tr -d '\r' <"$tmp/all" | grep -a '^frames ' | sort -u | wc -l)" = 1
	check "testbed npt=$npt: every guest ran" "$(grep -ac '^END ' "$tmp/all") of $(wc -l <"$tmp/runs")" \
		test "$(grep -ac '^END ' "$tmp/all")" = "$(wc -l <"$tmp/runs")"
done
finish
