#!/bin/bash
# The model of EPT violations against NPT: in the testbed (npt=1) each workload runs on the guest's own tables, where KVM counts
# violations, and on shadow tables, where umbra models them. Prints both numbers and the model's error.
. "$(dirname "$0")/lib.bash"
command -v qemu-system-x86_64 >/dev/null || { echo "no qemu-system-x86_64; scripts/deps test installs it"; exit 77; }
[ -e "$UMBRA_BUILD/initrd.cpio.gz" ] || { echo "no $UMBRA_BUILD/initrd.cpio.gz: make initrd"; exit 77; }
export UMBRA_BUILD UMBRA_CACHE
allowed=3 huge=20	# percent by which the model may be off

# NAME|umbra.run=|what is typed. Boot is most of the first one and part of all.
workloads=$(cat <<-'END'
	boot|idle=1|
	fork and exec, 10 times|forks=10|
	40 MiB written to a file in memory||dd if=/dev/zero of=/tmp/f bs=1M count=40
	eight copies of a program, read back||for i in 1 2 3 4 5 6 7 8; do cp /bin/busybox /tmp/b$i; done; cat /tmp/b* | md5sum
END
)
# Each on tables of either kind with small host pages; the first one also with memory that is all there when it starts, small and
# huge: an unpopulated page that is read before it is written may take two violations, for the host shows its zero page first.
cat >"$tmp/inside" <<-'END'
	run() {	# $1: of the file; rest: options
		label=$1
		shift
		printf '%s\nexit\n' "$keys" | umbra run -q "$@" -k cache/vmlinuz -i build/initrd.cpio.gz -m 160M --timeout 200s \
			--no-reboot ${run:+-p umbra.run=$run} --stats "/umbra/out/$n$label.json" >/tmp/console 2>&1
		status=$?
		echo "$name, $label: exit status $status, $(cut -d. -f1 /proc/uptime) s"
		[ $status = 0 ] || tail -n 5 /tmp/console
	}
	while IFS='|' read -r name run keys; do
		n=$((n + 1))
		run nested --mmu=nested --host-pages=small
		run shadow --mmu=shadow
		[ $n = 1 ] || continue
		run small --mmu=nested --host-pages=small --populate
		run huge --mmu=nested --host-pages=huge --populate
	done </umbra/workloads
END
printf '%s\n' "$workloads" >"$tmp/workloads"
mkdir "$tmp/out"
touch "$tmp/out/made"
"$top/scripts/testbed" --npt=1 --timeout=1200 --file "$tmp/workloads:/umbra/workloads" --file "$tmp/inside:/umbra/inside" \
	--dir "$tmp/out:/umbra/out" --get "/umbra/out:$tmp/back" -- sh /umbra/inside >"$tmp/log" 2>"$tmp/err"
show=("$tmp/log" "$tmp/err")
check "the testbed ran them" "exit status $?" test -d "$tmp/back"
[ -d "$tmp/back" ] || finish

# $1: file, $2: a member of "ept"
ept() { sed -n '/^  "ept": {/,/^  }/p' "$tmp/back/$1.json" 2>/dev/null | sed -n "s/^ *\"$2\": \"\{0,1\}\([^\",]*\).*/\1/p" | head -n 1; }

row() {	# $1: name, $2: measured, $3: modelled, $4: page tables
	printf '%-46s %9s %9s %+6.1f%% %12s\n' "$1" "$2" "$3" "$(awk "BEGIN { print ($3 - $2) * 100 / $2 }")" "$4" >>"$tmp/table"
}

compare() {	# $1: name, $2: measured, $3: modelled, $4: percent allowed
	local error
	if [[ ! $2 =~ ^[0-9]+$ || ! $3 =~ ^[0-9]+$ || $2 = 0 ]]; then
		not_ok "$1" "measured '$2', modelled '$3'" "${show[@]}"
		return
	fi
	row "$1" "$2" "$3" "${5-}"
	error=$(awk "BEGIN { printf \"%+.1f\", ($3 - $2) * 100 / $2 }")
	check "$1: modelled $3 of $2 measured, $error %" "$4 % are allowed" awk "BEGIN { e = $error; exit !(e <= $4 && e >= -$4) }"
}

printf '%-46s %9s %9s %7s %12s\n' "NPT violations" measured modelled error "page tables" >"$tmp/table"
n=0
while IFS='|' read -r name run keys; do
	n=$((n + 1))
	check "$name: kinds" "$(ept ${n}nested kind), $(ept ${n}shadow kind)" \
		test "$(ept ${n}nested kind) $(ept ${n}shadow kind)" = "measured modelled"
	compare "$name" "$(ept ${n}nested violations)" "$(ept ${n}shadow violations)" "$allowed" \
		"$(ept ${n}shadow page_table_frames)"
done <<<"$workloads"
compare "boot, memory populated" "$(ept 1small violations)" "$(ept 1shadow violations)" "$allowed" "$(ept 1shadow page_table_frames)"
compare "boot, memory populated, 2 MiB" "$(ept 1huge violations)" "$(ept 1shadow violations_2m)" "$huge"
check "the report tells a populated run from another" \
	"$(ept 1small populated_frames_at_start), $(ept 1nested populated_frames_at_start)" \
	test "$(ept 1small populated_frames_at_start)" = 40960 -a "$(ept 1nested populated_frames_at_start)" -lt 30000
sed 's/^/# /' "$tmp/table"
finish
