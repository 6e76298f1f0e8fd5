#!/bin/bash
# umbra report: pages from results and from single runs, what it refuses, and how it looks in a browser if there is one.
. "$(dirname "$0")/lib.bash"

report() {
	status=0
	timeout -s KILL 60 "$UMBRA" report "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || status=$?
}
refused() {	# $1: name, $2: exit code, $3: words, rest: arguments
	local name=$1 code=$2 words=$3
	shift 3
	rm -f "$tmp/r.html"
	report "$@" -o "$tmp/r.html"
	check "refused: $name" "exit status $status, or a page, or stderr does not say '$words'" \
		bash -c "[ $status = $code ] && [ ! -e '$tmp/r.html' ] && grep -qE -e '$words' '$tmp/err'"
}

# A result with long names, hostile texts, six modes, a fault map; $1: rounds
result() {
	python3 - "$1" <<-'END'
	import json, sys
	names = ["nested", "lazy", "kvm8", "helper", "<img src=x onerror=alert(1)>", "a-mode-with-a-rather-long-name-of-its-own"]
	def metric(id, group, base, unit="count"):
	    return {"id": id, "name": id, "group": group, "unit": unit, "modes": [
	        {"mode": m, "median": base * (i + 1), "min": base * (i + 0.8), "max": base * (i + 1.3), "samples": 5,
	         "ratio": i + 1 if i else None, "p": 0.01 * i if i else None} for i, m in enumerate(names)]}
	cells = [[r, b, (r * b) % 700, b % 3, r % 2, 0] for r in range(60) for b in range(100) if (r + b) % 3]
	print(json.dumps({"schema": 1, "kind": "compare", "bench": "forks", "what": "</style><script>alert(2)</script>",
	    "unit": "fork+exec", "repetitions": int(sys.argv[1]), "load_average": 9.5, "umbra": "v1", "date": "2026-11-21T00:00:00Z",
	    "host": {"cpu": "a processor", "cpus": 2, "numa_nodes": 1, "memory_bytes": 2**34, "kernel": "6.1", "kvm": "VT-x"},
	    "modes": [{"name": n, "flags": "--flag=" + n} for n in names], "left_out": {},
	    "compared": {"first_mode": "nested", "real_below_p": 0.05, "whole_run": [], "cases": [{"name": "fork+exec", "metrics": [
	        metric("hidden", "faults", 115.25), metric("pt_write", "faults", 7), metric("true_exit", "faults", 50),
	        metric("true_invm", "faults", 46.4), metric("exits_page_fault", "exits", 12345), metric("exits_hypercall", "exits", 98765),
	        metric("fills", "entries built", 3), metric("time", "time", 12.5e6, "ns")]}]},
	    "samples": [{"mode": m, "ok": True, "cases": [{"name": "fork+exec", "ns_per_unit": 12.5e6 * (i + 0.8 + 0.1 * k)}],
	        "helper": {"heuristics": [{"name": h, "issued": 9000, "built": 4000, "late": 300, "present": 2000, "nowhere": 3000,
	            "use": {"sampled_used": 30, "sampled_unused": 10}} for h in ("update", "a-heuristic-with-a-long-name")]}
	            if m[0] != "n" else None}
	        for i, m in enumerate(names) for k in range(5)],
	    "fault_maps": {m: {"bucket_ns": 2**25, "buckets": 100, "classes": ["hidden", "true", "pt_write", "other"],
	        "regions": [{"first": "0x%016x" % (0x400000 + r * 2**21 if r < 20 else 0xffff888000000000 + r * 2**21), "bytes": 2**21}
	            for r in range(60)], "cells": cells} for m in names[:4]}}))
	END
}
result 5 >"$tmp/result.json"
started=$(date +%s%N)
report "$tmp/result.json" -o "$tmp/page.html"
took=$((($(date +%s%N) - started) / 1000000))
check "a result: exit 0" "exit status $status" test "$status" = 0
check "... in less than 2 s" "$took ms" test "$took" -lt 2000
check "... the texts of the file are escaped" "not all" \
	bash -c "grep -q '&lt;img src=x' '$tmp/page.html' && ! grep -qE '<img|<script|alert\(1\)>|</style><' '$tmp/page.html'"
check "... numbers are numbers" "$(grep -oiE '.{20}\"-?(nan|inf).{9}' "$tmp/page.html" | head -3)" \
	bash -c "! grep -qiE '(=\"|>)-?(nan|inf)' '$tmp/page.html'"
check "... is well-formed, and loads nothing" "no" /usr/bin/env python3 - "$tmp/page.html" <<-'END'
	import sys
	from html.parser import HTMLParser
	class Page(HTMLParser):
	    stack, void = [], {"meta", "br", "img"}
	    def handle_starttag(self, tag, attrs):
	        if tag not in self.void: self.stack.append(tag)
	        assert tag not in ("script", "img", "link", "iframe", "object", "base", "use", "image"), (tag, self.getpos())
	        assert not {"src", "href", "xlink:href", "data", "onload"} & {name for name, value in attrs}, self.getpos()
	    def handle_data(self, data):
	        assert self.stack[-1:] != ["style"] or not any(w in data for w in ("url(", "@import", "//")), self.getpos()
	    def handle_endtag(self, tag):
	        assert self.stack.pop() == tag, (tag, self.getpos())
	page = Page()
	page.feed(open(sys.argv[1], encoding="utf-8").read())
	assert not page.stack, page.stack
END
report "$tmp/result.json" "$tmp/result.json" -o -
check "two results, to stdout" "exit status $status, or not both" \
	bash -c "[ $status = 0 ] && [ \$(grep -c '^<h1>forks' '$tmp/out') = 2 ]"

refused "no file" 2 'a file is needed'
refused "a file that is not there" 1 'nothere: No such file' "$tmp/nothere"
refused "an empty file" 1 'null:1: ' /dev/null
cp /bin/true "$tmp/binary"
refused "no JSON" 1 'binary:1: ' "$tmp/binary"
echo '[1, 2' >"$tmp/cut"
refused "JSON cut off" 1 'cut:[12]: ' "$tmp/cut"
echo '{"a": 1}' >"$tmp/other"
refused "JSON of others" 1 'other: no result of umbra' "$tmp/other"
echo '{"schema": 7, "compared": {}}' >"$tmp/future"
refused "a schema to come" 1 'future: schema 7: this umbra knows 1' "$tmp/future"
echo '{"schema": 1, "bench": "x", "samples": []}' >"$tmp/bench"
refused "a result without a comparison" 1 'neither of umbra compare' "$tmp/bench"
sed 's/"buckets": 100/"buckets": 3/' "$tmp/result.json" >"$tmp/outside"
refused "a fault map with cells outside it" 1 'outside: .*cells\[[0-9]*\] lies outside' "$tmp/outside"
/usr/bin/env python3 -c 'print("[" * 100000)' >"$tmp/deep"
refused "JSON too deep" 1 'deep:1: ' "$tmp/deep"
report "$tmp/result.json" -o /dev/full
check "a page that cannot be written: exit 1" "exit status $status" test "$status" = 1
report "$tmp/result.json" -o "$tmp/no/where.html"
check "a folder that is not there: exit 1, said" "exit status $status" \
	bash -c "[ $status = 1 ] && grep -q 'where.html: No such file' '$tmp/err'"

# ---- in a browser: nothing wider than the page, no text on another, none cut off ---------------------------------------
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
looks() {	# $1: name, $2: width of the page, rest: options
	local name=$1 width=$2
	shift 2
	cat "$tmp/page.html" - >"$tmp/measured.html" <<-END
	<script>
	document.querySelectorAll("details").forEach(d => d.open = true);
	document.documentElement.style.width = document.body.style.width = "${width}px";
	const wrong = [], dark = matchMedia("(prefers-color-scheme: dark)").matches;
	if (document.documentElement.scrollWidth > Math.max($width, innerWidth)) wrong.push("the page is wider than $width");
	for (const svg of document.querySelectorAll("main svg")) {
		const texts = [...svg.querySelectorAll("text")].map(t => [t.lastChild.textContent, t.getBoundingClientRect()]);
		for (const [a, r] of texts) {
			if (r.left < -1 || r.right > $width + 1) wrong.push("cut off: " + a);
			for (const [b, q] of texts)
				if (r !== q && r.left < q.right - 1 && q.left < r.right - 1 && r.top < q.bottom - 2 && q.top < r.bottom - 2)
					wrong.push(a + " is on " + b);
		}
	}
	document.body.innerHTML = "<p>LOOKS " + (dark ? "dark" : "light") + ": " + (wrong.slice(0, 3).join("; ") || "right") + "</p>";
	</script>
	END
	timeout 60 "$browser" --headless=new --no-sandbox --disable-gpu --user-data-dir="$tmp/profile" "$@" --dump-dom \
		"file://$tmp/measured.html" >"$tmp/dom" 2>"$tmp/err"
	check "in a browser, $name" "$(grep -o 'LOOKS [^<]*' "$tmp/dom")" grep -qE "LOOKS ${looks_like}: right" "$tmp/dom"
}
if [ -z "$browser" ]; then
	skip "in a browser" "no chromium here (apt install chromium, large)"
else
	looks_like=light looks "wide, light" 1000 --window-size=1000,900
	looks_like=dark looks "wide, dark" 1000 --window-size=1000,900 --blink-settings=preferredColorScheme=0
	looks_like=light looks "narrow" 360 --window-size=500,900
fi

# ---- what umbra itself writes ------------------------------------------------------------------------------------------
kernel=$UMBRA_CACHE/vmlinuz initrd=$UMBRA_BUILD/initrd.cpio.gz
if ! "$UMBRA" doctor >/dev/null 2>&1 || [ ! -e "$kernel" ] || [ ! -e "$initrd" ]; then
	skip "pages of runs made here" "no usable /dev/kvm, or no kernel or initrd"
	finish
fi
for fill in lazy eager; do
	"$UMBRA" run -q -k "$kernel" -i "$initrd" -m 128M -p umbra.run=forks=2 --fill=$fill --fault-map --stats "$tmp/$fill.json" \
		>"$tmp/console" 2>&1 </dev/null
done
report "$tmp/lazy.json" "$tmp/eager.json" "$tmp/result.json" -o "$tmp/page.html"
check "single runs beside each other, and a result" "exit status $status, or not" \
	bash -c "[ $status = 0 ] && grep -q '>lazy.json<' '$tmp/page.html' && grep -q '>eager.json<' '$tmp/page.html' &&
		 grep -q '^<h1>runs' '$tmp/page.html' && grep -q '^<h1>forks' '$tmp/page.html' && grep -q 'class=\"heat\"' '$tmp/page.html'"
finish
