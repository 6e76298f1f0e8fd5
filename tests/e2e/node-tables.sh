#!/bin/bash
# Shadow tables per node, on nodes that this host has only in our words (--numa-fake): vCPUs are moved at random, pages too,
# and every entry installed is audited.
. "$(dirname "$0")/lib.bash"
need_kvm

make -s -C "$top" guests B="$UMBRA_BUILD" >"$tmp/make" 2>&1 || { not_ok "build of the tiny kernels" "make failed" "$tmp/make"; finish; }

stress() {	# $1: seconds, rest: options
	local s=$1
	shift
	run -q -c 3 -k "$UMBRA_BUILD/guests/stress.elf" -m 64M --timeout $((s + 60))s -p "cpus=3 seconds=$s seed=${SEED:-1}" \
		--numa=random,vcpus=1,interval=10 --audit=1 --stats "$tmp/stats" "$@"
}

# $1: what holds of the report `r`, whose mmu.usage is `u`; Python.
says() {
	python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); u = r["mmu"]["usage"]; sys.exit(not eval(sys.argv[2]))' \
		"$tmp/stats" "$1"
}

stress 2 --numa-fake=3
check "stress, tables for each of 3 nodes" "$(grep -a -m 1 '^FAIL ' "$tmp/out" | tr -d '\r' | cut -c 1-160) exit status $status" \
	grep -aq '^VERDICT pass' "$tmp/out"
check "each node has tables, in its part of the pool" "mmu.usage.nodes" \
	says '[n["node"] for n in u["nodes"]] == [0, 1, 2] and all(n["tables"] and not n["tables_outside"] for n in u["nodes"])'
check "moved vCPUs run on the tables of their node" "total.node_switches" says 'r["total"]["node_switches"] > 3'

stress 2 --numa-fake=2 --shadow-pages=128
check "stress, tables for each of 2 nodes, a small pool" "$(grep -a -m 1 '^FAIL ' "$tmp/out" | tr -d '\r' | cut -c 1-160) exit status $status" \
	grep -aq '^VERDICT pass' "$tmp/out"

stress 1 --numa-fake=2 --node-tables=off
check "stress, --node-tables=off" "$(grep -a -m 1 '^FAIL ' "$tmp/out" | tr -d '\r' | cut -c 1-160) exit status $status" \
	grep -aq '^VERDICT pass' "$tmp/out"
check "... has one set of tables for all" "mmu.usage.nodes" says 'u["nodes"] == [] and r["total"]["node_switches"] == 0'

stress 1 --numa-fake=3 --shadow-pages=143
check "a pool too small to be shared out is refused" "exit status $status" grep -q 'shadow-pages=143 is too little' "$tmp/err"
finish
