#!/bin/bash
# Traces of a real guest: recorded with and without the helper, replayed twice to the same bytes, swept here and as jobs.
. "$(dirname "$0")/lib.bash"
need_kvm
vmlinuz=$UMBRA_CACHE/vmlinuz initrd=$UMBRA_BUILD/initrd.cpio.gz
[ -e "$vmlinuz" ] || { echo "no $vmlinuz: scripts/fetch-kernel gets it"; exit 77; }
[ -e "$initrd" ] || { echo "no $initrd: make initrd"; exit 77; }
cd "$tmp" || exit
forks() { LIMIT=100 run -k "$vmlinuz" -i "$initrd" -m 256M --timeout 90s -p umbra.run=forks=5 --expect '^UMBRA-RESULT ok' "$@"; }

# $1: file, rest: keys below each other. Python is no dependency; jansson's output has one member a line.
number() { sed -nE "s/^ *\"$2\": ([0-9]+),?\$/\\1/p" "$1" | head -n 1; }

forks --trace off.trace --stats off.json
check "record without a helper" "exit status $status" test "$status" = 0
"$UMBRA" replay off.trace --json off-replay.json >table 2>err || not_ok "replay" "exit status $?" err
check "the trace has every hidden fault of the run" \
	"$(number off-replay.json hidden_faults_recorded) in the trace, $(number off.json hidden) counted" \
	test "$(number off-replay.json hidden_faults_recorded)" = "$(number off.json hidden)"
check "without heuristics all are left" "$(number off-replay.json hidden_faults_left)" \
	test "$(number off-replay.json hidden_faults_left)" = "$(number off-replay.json hidden_faults_recorded)"
unexplained=$(number off-replay.json left_unexplained)
check "the model knows why entries were absent" "$unexplained unexplained" \
	test $((unexplained * 50)) -lt "$(number off-replay.json hidden_faults_recorded)"
check "the configuration is in the trace" "no kernel in it" grep -q '"cmdline": "umbra.run=forks=5"' off-replay.json
check "the workload's marks are in the trace" "none" grep -q '"since_previous"' off-replay.json

forks --helper=on --heuristic update --trace on.trace
check "record with the helper" "exit status $status" test "$status" = 0
"$UMBRA" replay on.trace >table 2>err
check "a trace with a helper is replayed with a warning" "$(cat err)" grep -q 'record with --helper=off' err

"$UMBRA" replay off.trace --heuristic update --heuristic window --heuristic fork --json 1.json >1.txt
"$UMBRA" replay off.trace --heuristic update --heuristic window --heuristic fork --json 2.json >2.txt
check "the same replay gives the same bytes" "they differ" cmp 1.json 2.json
check "... and the same table" "they differ" cmp 1.txt 2.txt
check "heuristics save faults" "$(number 1.json hidden_faults_left) left" \
	test "$(number 1.json hidden_faults_left)" -lt "$(number 1.json hidden_faults_recorded)"

grid=(off.trace on.trace --heuristic update --maybe window,aligned=1/8,ahead=0/32 --maybe auto)
"$UMBRA" sweep "${grid[@]}" --json here.json >front 2>err || not_ok "sweep" "exit status $?" err
check "sweep prints a front" "none" grep -q 'Pareto front of 10 configurations over 2 traces' front
"$UMBRA" sweep "${grid[@]}" --jobs 1 --json one.json >front1 2>err
check "one thread, the same" "they differ" cmp here.json one.json
"$UMBRA" sweep "${grid[@]}" --jobs-out jobs 2>err
check "a job per point and trace" "$(wc -l <jobs)" test "$(wc -l <jobs)" = 20
if command -v parallel >/dev/null; then
	parallel -j 2 <jobs >/dev/null 2>err
else
	skip "jobs by GNU parallel" "not installed; sh runs them"
	sh jobs 2>err
fi
"$UMBRA" sweep --merge jobs.results/*.json --json merged.json >front2 2>err
check "jobs, merged, are the sweep" "they differ" cmp here.json merged.json
rm jobs.results/000003.json
"$UMBRA" sweep --merge jobs.results/*.json >front3 2>err
check "a result that is missing is told" "$(cat err)" grep -q '1 configurations lack' err

# ---- what goes wrong --------------------------------------------------------------------------------------------------
wrong() {	# $1: exit code, $2: words, rest: command
	local code=$1 words=$2 got=0
	shift 2
	"$UMBRA" "$@" >out 2>err || got=$?
	check "refused: $(cut -c 1-100 <<<"$*")" "exit status $got: $(cut -c 1-200 err)" test "$got" = "$code" -a -n "$(grep -E -- "$words" err)"
}
head -c 5000 off.trace >short.trace
wrong 1 'truncated' replay short.trace
wrong 1 'no trace of umbra' replay off.json
wrong 1 'No such file' replay nowhere.trace
wrong 2 'a trace is needed' replay
wrong 2 'no heuristic is called' replay off.trace --heuristic magic
wrong 2 'none of notice_ns' replay off.trace --model speed=9
wrong 2 'combinations' sweep off.trace --heuristic "window,back=$(seq -s / 0 400),ahead=$(seq -s / 0 400)"
wrong 1 'not a result' sweep --merge off.json
wrong 2 'needs --jobs-out' sweep off.trace --results x
wrong 2 'nested' run -k "$vmlinuz" --mmu=nested --trace x.trace
wrong 2 'cannot write there' run -k "$vmlinuz" --trace /nonexistent/x
finish
