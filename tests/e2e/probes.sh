#!/bin/bash
# The static probes: all there, all documented, and each nothing but a nop while nobody listens.
. "$(dirname "$0")/lib.bash"
for tool in readelf objdump; do
	command -v $tool >/dev/null || { echo "no $tool: apt-get install binutils"; exit 77; }
done
[ -n "$(find /usr/include -path '*/sys/sdt.h' 2>/dev/null)" ] || { echo "built without probes: apt-get install systemtap-sdt-dev"; exit 77; }

readelf -n "$UMBRA" 2>/dev/null | awk '
	$1 == "Provider:" { provider = $2 }
	$1 == "Name:" { name = $2 }
	$1 == "Location:" && provider == "umbra" { print name, substr($2, 1, length($2) - 1), $6 }' >"$tmp/probes"
names=$(cut -d ' ' -f 1 "$tmp/probes" | sort -u)
documented=$(sed -n 's/^| `\([a-z_]*\)` |.*/\1/p' "$top/docs/perf.md" | sort -u)
check "the program has the probes of docs/perf.md" "has: $(echo $names); documented: $(echo $documented)" test "$names" = "$documented"
for name in fault__entry fault__exit prebuild kick exit hypercall remap__commit; do
	check "probe $name" "not in the program" grep -qx "$name" <<<"$names"
done

check "no probe has a semaphore that code would test" "$(awk '$3 !~ /^0x0*$/' "$tmp/probes")" \
	awk '$3 !~ /^0x0*$/ { bad = 1 } END { exit bad }' "$tmp/probes"
bad=
while read -r name location _; do
	insn=$(objdump -d --no-show-raw-insn --start-address="$location" --stop-address=$((location + 1)) "$UMBRA" |
		awk 'END { print $2 }')
	[ "$insn" = nop ] || bad+=" $name@$location:$insn"
done <"$tmp/probes"
check "$(wc -l <"$tmp/probes") probe sites are one nop each" "$bad" test -z "$bad"
finish
