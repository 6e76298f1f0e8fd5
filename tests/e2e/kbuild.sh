#!/bin/bash
# scripts/guest-image and umbra bench kbuild, with packages of our own: busybox for all tools, and a 'make' that makes
# objects by copying. So this needs no network and little time; it cannot tell whether a real kernel builds.
. "$(dirname "$0")/lib.bash"

guest_image() { env PATH="$tmp/bin:$PATH" UMBRA_CACHE="$tmp/cache" "$top/scripts/guest-image" "$@"; }
attempt() {	# exit status in $status
	status=0
	"$@" >"$tmp/out" 2>"$tmp/err" </dev/null || status=$?
}
fails() {	# $1: name, $2: words on stderr, rest: command
	local name=$1 words=$2
	shift 2
	attempt "$@"
	check "$name" "exit status $status, or stderr does not say '$words'" \
		bash -c "[ $status = 1 ] && grep -qF -- '$words' '$tmp/err'"
}
nothing_left() { [ -z "$(find "$tmp/cache/guest-image" -name '.tmp*' 2>/dev/null)" ]; }

# ---- packages ------------------------------------------------------------------------------------------------------

package() {	# $1: name; its files are in $tmp/$1
	mkdir -p "$tmp/$1/DEBIAN" "$tmp/debs"
	printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: test <t@example.org>\nDescription: test\n' "$1" \
		>"$tmp/$1/DEBIAN/control"
	dpkg-deb --root-owner-group -Znone --build "$tmp/$1" "$tmp/debs/$1.deb" >/dev/null
}

mkdir -p "$tmp/bin" "$tmp/tools/bin" "$tmp/tools/usr/bin" "$tmp/cache" "$tmp/source/linux-source-6.1/kernel"
busybox=$(command -v busybox) || { echo "no busybox: scripts/deps installs busybox-static"; exit 77; }
unshare --mount true 2>/dev/null || unshare --mount --map-root-user true 2>/dev/null ||
	{ echo "this host allows no mount namespaces"; exit 77; }
cp "$busybox" "$tmp/tools/bin/busybox"
for applet in sh cp tar cat mkdir sleep; do
	ln -s busybox "$tmp/tools/bin/$applet"
done
ln -s ../../bin/busybox "$tmp/tools/usr/bin/env"
ln -s ../../bin/busybox "$tmp/tools/usr/bin/awk"
cat >"$tmp/tools/usr/bin/make" <<'END'
#!/bin/sh
for word; do
	case $word in
	-*|/linux|ARCH=*|O=*) ;;
	tinyconfig) echo CONFIG_TEST=y >/build/.config ;;
	prepare) mkdir -p /build/scripts; echo host >/build/scripts/host.o; [ ! -e /linux/slow ] || sleep 60 ;;
	*) [ -e /build/.config ] || exit 3
	   [ ! -e /linux/broken ] || { echo "core.c: error: as asked for"; exit 2; }
	   for i in 0 1 2 3 4 5 6 7 8 9; do
		cat /linux/kernel/core.c /build/.config >/build/$i.o
	   done ;;
	esac
done
END
chmod 755 "$tmp/tools/usr/bin/make"
package tools
yes 'int x;' | head -n 3000 >"$tmp/source/linux-source-6.1/kernel/core.c"
source_package() {
	mkdir -p "$tmp/linux-source/usr/src"
	tar -C "$tmp/source" -cJf "$tmp/linux-source/usr/src/linux-source-6.1.tar.xz" linux-source-6.1
	package linux-source
}

# ---- what guest-image refuses --------------------------------------------------------------------------------------

for cmd in apt-get apt-cache sudo; do
	printf '#!/bin/sh\necho "E: no network" >&2\nexit 100\n' >"$tmp/bin/$cmd"
	chmod +x "$tmp/bin/$cmd"
done
fails "an unknown argument is refused" "unknown argument --fast" guest_image --fast
fails "no such folder" "no such folder" guest_image --debs "$tmp/none"
fails "a folder without packages" "no *.deb" guest_image --debs "$tmp/bin"
fails "packages without a kernel's source" "none of the packages has" guest_image --debs "$tmp/debs"
fails "no network: says so, with apt's words" "could not fetch" guest_image
check "... apt's words" "not there" grep -q 'E: no network' "$tmp/err"
printf '#!/bin/sh\necho head\necho "/dev/x 10 5 5 50%% /"\n' >"$tmp/bin/df"
chmod +x "$tmp/bin/df"
fails "no space: says how much is there and needed" "has 5 MiB free" guest_image
rm "$tmp/bin/df"
: >"$tmp/file"
fails "a cache that cannot be written" "set UMBRA_CACHE" env UMBRA_CACHE="$tmp/file" "$top/scripts/guest-image"
source_package
cp -r "$tmp/debs" "$tmp/short"
head -c 900 "$tmp/debs/tools.deb" >"$tmp/short/tools.deb"
fails "a truncated package" "cannot be unpacked" guest_image --debs "$tmp/short"
check "nothing is left behind by all these" "something is" nothing_left

touch "$tmp/source/linux-source-6.1/slow"
source_package
attempt timeout -s INT 3 env PATH="$tmp/bin:$PATH" UMBRA_CACHE="$tmp/cache" "$top/scripts/guest-image" --debs "$tmp/debs"
check "stopped by ^C in the middle: nothing is left behind" "exit status $status, or something is" nothing_left
check "... and no image" "there is one" test ! -e "$tmp/cache/guest-image/current"
rm "$tmp/source/linux-source-6.1/slow"
source_package

# ---- what it makes -------------------------------------------------------------------------------------------------

attempt guest_image --debs "$tmp/debs"
check "an image is made" "exit status $status" test -s "$tmp/cache/guest-image/current/small.cpio.zst"
attempt guest_image
check "... once: without network it is there, and nothing is said" "exit status $status" \
	test "$status" = 0 -a ! -s "$tmp/err"
attempt env UMBRA_CACHE="$tmp/again" "$top/scripts/guest-image" --debs "$tmp/debs"
check "the same packages give the same bytes" "they do not" \
	cmp "$tmp/cache/guest-image/current/small.cpio.zst" "$tmp/again/guest-image/current/small.cpio.zst"

# ---- the benchmark -------------------------------------------------------------------------------------------------

bench() { attempt env UMBRA_CACHE="$tmp/cache" "$UMBRA" bench "$@" -k "$UMBRA_CACHE/vmlinuz"; }
bench kbuild=huge -n 1
check "a size that is none: exit 2" "exit status $status" test "$status" = 2
bench kbuild=defconfig -n 1
check "an image that is not there: exit 1, says what builds it" "exit status $status" \
	bash -c "[ $status = 1 ] && grep -q 'guest-image --full' '$tmp/err'"
bench kbuild -n 2 --modes native --json "$tmp/json"
check "natively: exit 0, two samples" "exit status $status" bash -c \
	"[ $status = 0 ] && [ \$(grep -c '\"repetition\"' '$tmp/json') = 2 ]"
check "... with processor time" "none" grep -q cpu_ns_per_unit "$tmp/json"
check "... and a digest of the objects" "none" grep -qE '"digest": "[0-9a-f]{16}"' "$tmp/json"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null &&
   setpriv --reuid=65534 --regid=65534 --clear-groups unshare --map-root-user --mount true 2>/dev/null; then
	chmod -R a+rX "$tmp"
	attempt setpriv --reuid=65534 --regid=65534 --clear-groups "$UMBRA_BUILD/workload" kbuild small \
		"$tmp/cache/guest-image/current/kbuild"
	check "natively without being root" "exit status $status" grep -q '^UMBRA-RESULT ok' "$tmp/out"
else
	skip "natively without being root" "no user namespaces, or not started as root"
fi

need_kvm
bench kbuild -n 1 --modes native,gates-eager-8 -m 512M
check "in a guest: the same objects as natively" "exit status $status" test "$status" = 0
check "... counted" "no row" grep -qE '^gates-eager-8 +[1-9]' "$tmp/out"

touch "$tmp/source/linux-source-6.1/broken"
source_package
attempt guest_image --debs "$tmp/debs"
bench kbuild -n 1 --modes gates-eager-8 -m 512M
check "a build that fails in the guest: exit 1, with make's words" "exit status $status" \
	bash -c "[ $status = 1 ] && grep -q 'FAILED: .*error: as asked for' '$tmp/err'"
finish
