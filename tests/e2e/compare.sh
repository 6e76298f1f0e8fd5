#!/bin/bash
# umbra compare: what it refuses, workloads of every kind, what comes out.
. "$(dirname "$0")/lib.bash"

compare() {	# output in $tmp/out and $tmp/err, exit code in $status
	status=0
	timeout -s KILL 120 "$UMBRA" compare "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || status=$?
}
refused() {	# $1: name, $2: exit code, $3: words, rest: arguments
	local name=$1 code=$2 words=$3
	shift 3
	compare "$@"
	check "refused: $name" "exit status $status, or stderr does not say '$words'" \
		bash -c "[ $status = $code ] && [ ! -s '$tmp/out' ] && grep -qE -e '$words' '$tmp/err'"
}
initrd=$UMBRA_BUILD/initrd.cpio.gz kernel=$UMBRA_CACHE/vmlinuz
[ -e "$initrd" ] && [ -e "$kernel" ] || { echo "no $initrd or $kernel: make initrd kernel"; exit 77; }
export TMPDIR=$tmp/made
mkdir "$TMPDIR" "$tmp/dir"
echo 'seven words are in this little file' >"$tmp/dir/words"
ln -s words "$tmp/dir/link"
mkdir "$tmp/dir/sub"
cp "$UMBRA_BUILD/workload" "$tmp/dir/sub/program"

refused "no workload" 2 'a workload is needed'
refused "two workloads" 2 'one workload at a time' micro --run true
refused "a folder without a command" 2 '--dir needs --run' micro --dir "$tmp/dir"
refused "a folder that is not there" 1 'nowhere: No such file' --run true --dir "$tmp/nowhere"
refused "a folder that is a file" 1 'Not a directory' --run true --dir "$tmp/dir/words"
refused "an initrd that is not there" 1 'nowhere: No such file' -i "$tmp/nowhere"
refused "an odd memory size" 2 'memory=12' micro -m 12
refused "a count that is none" 2 'from 1 to' forks=many
refused "no time" 2 'from 1 to' micro --timeout 0

need_kvm
export UMBRA_CACHE
fast=(-k "$kernel" -m 128M)

compare --run 'test $(wc -w <link) = 7 && sub/program idle 1' --dir "$tmp/dir" "${fast[@]}" \
	--modes lazy,kvm8 -n 2 --json "$tmp/json"
check "a command in a folder: exit 0" "exit status $status" test "$status" = 0
check "... a column per mode, faults, exits and time" "not so" \
	bash -c "grep -qE '^per run  +lazy +kvm8$' '$tmp/out' && grep -qE '^  hidden  +[1-9]' '$tmp/out' &&
		 grep -qE '^  all  +[1-9]' '$tmp/out' && grep -qE '^  median  +[0-9.]+ m?s' '$tmp/out'"
check "... two rounds are too few, and it says so" "no" grep -q 'too few' "$tmp/out"
check "... progress with the time left" "none" grep -qE '1/4 lazy: .*left$' "$tmp/err"
check "... JSON with four samples, both fault maps, ratios" "not so" python3 - "$tmp/json" <<-'END'
	import json, sys
	o = json.load(open(sys.argv[1]))
	assert o["schema"] == 1 and o["kind"] == "compare" and len(o["samples"]) == 4
	assert set(o["fault_maps"]) == {"lazy", "kvm8"}
	for mode, m in o["fault_maps"].items():
	    assert m["regions"] and m["cells"] and len(m["classes"]) == 4
	metrics = {m["id"]: m for m in o["compared"]["cases"][0]["metrics"]}
	lazy, kvm8 = metrics["hidden"]["modes"]
	assert lazy["ratio"] is None and abs(kvm8["ratio"] - kvm8["median"] / lazy["median"]) < 1e-9 and 0 < kvm8["p"] <= 1
	mean = sum(s["cases"][0]["mmu"]["hidden"] for s in o["samples"] if s["mode"] == "lazy") / 2
	assert abs(mean - lazy["median"]) < 1e-6
END
check "... no image left behind" "$(ls "$TMPDIR")" test -z "$(ls "$TMPDIR")"

compare --run 'echo all is lost >&2; exit 3' "${fast[@]}" --modes lazy -n 1
check "a command that fails: exit 1" "exit status $status" test "$status" = 1
check "... says how, and what it printed" "no" grep -q 'FAILED: command exit status 3: all is lost' "$tmp/err"
check "... no table" "there is one" test ! -s "$tmp/out"

compare -i "$initrd" -p umbra.run=forks=3 "${fast[@]}" --modes lazy,helper -n 1
check "an initrd: exit 0, the whole run is counted" "exit status $status, or not" \
	bash -c "[ $status = 0 ] && grep -qE '^per run  +lazy +helper$' '$tmp/out' && grep -qE '^  PT-write  +[1-9]' '$tmp/out'"

# ^C: what was measured so far is shown, nothing is left behind
timeout -s INT 60 env --default-signal=INT "$UMBRA" compare --run 'sleep 0.1' "${fast[@]}" --modes lazy -n 60 >"$tmp/out" 2>"$tmp/err" \
	</dev/null &
pid=$!
wait_until 30 grep -q '1/60 lazy' "$tmp/err"
kill -INT $(pgrep -P $pid) 2>/dev/null
status=0
wait $pid || status=$?
check "^C: exit 130, a table of the rounds so far, no image left" "exit status $status, $(ls "$TMPDIR")" \
	bash -c "[ $status = 130 ] && grep -qE 'medians of [1-9] round' '$tmp/out' && [ -z \"\$(ls '$TMPDIR')\" ]"

compare micro "${fast[@]}" --modes lazy -n 1 --json -
check "a built-in workload with many cases, JSON to stdout" "not so" python3 -c '
import json, sys
o = json.load(open(sys.argv[1]))
assert len(o["compared"]["cases"]) > 3, o["compared"]["cases"]' "$tmp/out"

compare forks=2 "${fast[@]}" --mode 'broken=--fill=perhaps' --modes lazy -n 1
check "a mode that fails: exit 1, named, the other has its column" "exit status $status, or not" \
	bash -c "[ $status = 1 ] && grep -q 'broken: FAILED: .*perhaps' '$tmp/err' && grep -qE '^  hidden  +[1-9]' '$tmp/out'"
finish
