#!/bin/bash
# The scripts around the build: fetch-kernel, deps, make install.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

build=${UMBRA_BUILD:-$PWD/build} cache=${UMBRA_CACHE:-$PWD/cache}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

check() {	# $1: name, rest: command
	local name=$1
	shift
	if "$@"; then echo "ok - $name"; else echo "not ok - $name"; fi
}
fails_with() {	# $1: words on stderr, rest: command that must fail
	local words=$1
	shift
	! "$@" >"$tmp/out" 2>&1 && grep -qF -- "$words" "$tmp/out"
}
silent() { "$@" >"$tmp/out" 2>&1 && [ ! -s "$tmp/out" ]; }
offline() { env PATH="$tmp/bin:$PATH" "$@"; }	# no apt

mkdir "$tmp/bin"
for cmd in apt-get apt-cache; do
	printf '#!/bin/sh\necho "%s called" >&2\nexit 100\n' $cmd >"$tmp/bin/$cmd"
	chmod +x "$tmp/bin/$cmd"
done

check "deps is silent when nothing is missing" silent offline scripts/deps --without perf
check "deps refuses an unknown section" fails_with "no section 'x'" scripts/deps x
check "... one to leave out as well" fails_with "no section 'x'" scripts/deps --without x
check "deps leaves out what it is told to" bash -c '! scripts/deps --list --without perf | grep -q bpftrace'

check "fetch-kernel is silent and offline when cached" silent offline scripts/fetch-kernel
check "the cached kernel is a bzImage" test "$(dd if="$cache/vmlinuz" bs=1 skip=514 count=4 2>/dev/null)" = HdrS

# A package of our own, so that this needs no network: 1 MB of "kernel".
release=9.9.0-test
mkdir -p "$tmp/pkg/boot" "$tmp/pkg/lib/modules/$release" "$tmp/pkg/DEBIAN"
head -c 1000000 /dev/urandom >"$tmp/pkg/boot/vmlinuz-$release"
touch "$tmp/pkg/boot/System.map-$release" "$tmp/pkg/boot/config-$release"
printf 'Package: linux-image-%s\nVersion: 9.9-1\nArchitecture: amd64\nMaintainer: test <t@example.org>\nDescription: test\n' \
	$release >"$tmp/pkg/DEBIAN/control"
(cd "$tmp/pkg" && md5sum boot/* >DEBIAN/md5sums)
dpkg-deb --build "$tmp/pkg" "$tmp/good.deb" >/dev/null
export UMBRA_CACHE=$tmp/cache
check "fetch-kernel takes a .deb" offline scripts/fetch-kernel --deb "$tmp/good.deb"
check "... and leaves its kernel" cmp "$tmp/cache/vmlinuz" "$tmp/pkg/boot/vmlinuz-$release"
check "... with its modules" test -d "$tmp/cache/modules/"
check "... and nothing else" test -z "$(find "$tmp/cache" -name '.tmp*')"
head -c 900000 "$tmp/good.deb" >"$tmp/short.deb"
check "a truncated .deb is refused" fails_with "not a readable package" offline scripts/fetch-kernel --deb "$tmp/short.deb"
check "... and the kernel from before stays" cmp "$tmp/cache/vmlinuz" "$tmp/pkg/boot/vmlinuz-$release"
sed -i 's/^..../0000/' "$tmp/pkg/DEBIAN/md5sums"
dpkg-deb --build "$tmp/pkg" "$tmp/bad.deb" >/dev/null
check "a .deb with wrong sums is refused" fails_with "do not match the sums" offline scripts/fetch-kernel --deb "$tmp/bad.deb"
echo x >>"$(realpath "$tmp/cache/vmlinuz")"
check "a damaged cache is noticed" fails_with "is damaged" offline scripts/fetch-kernel
export UMBRA_CACHE=$cache

undocumented=$("$build/umbra" run --help | grep -oE -- '--[a-z-]+' | sort -u | sed 's/-/\\-/g' |
	while read -r option; do grep -qF -- "$option" docs/umbra.1 || echo "$option"; done |
	grep -vE 'help|usage|version')
check "the manual has every option of umbra run${undocumented:+, not: $undocumented}" test -z "$undocumented"

check "make install" make --no-print-directory B="$build" install PREFIX=/usr DESTDIR="$tmp/root"
check "... installs a command that runs" "$tmp/root/usr/bin/umbra" --version
check "... and the man page" test -s "$tmp/root/usr/share/man/man1/umbra.1"
make --no-print-directory B="$build" uninstall PREFIX=/usr DESTDIR="$tmp/root"
check "make uninstall removes all files" test -d "$tmp/root/usr" -a -z "$(find "$tmp/root" ! -type d 2>/dev/null)"
