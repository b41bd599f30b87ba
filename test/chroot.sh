#!/bin/bash
# chroot.sh - "make test-suite": "make test" and "make demo" on a bare Debian.
# Shows that the scripts install all they need, and how weir does with the
# PostgreSQL of another release.  For root, with debootstrap.
#
#   SUITE=trixie        the release; each brings its own PostgreSQL
#   WITH=experimental   PostgreSQL from this suite instead, for one not released yet
#   AS=NAME             as a user of that name who may use sudo, not as root
#   COMMANDS="..."      other commands than those two, separated by ";"
#
# The bare system is kept in /var/tmp/weir-suites and copied for every run.
# Mounts and processes have namespaces of their own and end with the run.

set -euo pipefail
# shellcheck source=test/lib/common.sh
. "$(dirname "$0")/lib/common.sh"

SUITE=${SUITE:-bookworm}
WITH=${WITH:-}
AS=${AS:-root}
COMMANDS=${COMMANDS:-make test; DEMO_STOP=1 make demo}
BASE=/var/tmp/weir-suites/$SUITE
TREE=/srv/weir					# the checkout, inside

[ "$(id -u)" = 0 ] || die "only root can do this"
command -v debootstrap >/dev/null || die "missing: debootstrap"

if [ ! -d "$BASE" ]; then
	say "Making a bare $SUITE"
	mkdir -p "${BASE%/*}"
	rm -rf "$BASE.new"
	# how to make a release later than debootstrap itself: all are made like sid
	script=${DEBOOTSTRAP_DIR:-/usr/share/debootstrap}/scripts/$SUITE
	[ -e "$script" ] || script=${script%/*}/sid
	debootstrap --variant=minbase --include=git,make "$SUITE" "$BASE.new" "" "$script" >"$BASE.log" ||
		{ tail -n 20 "$BASE.log"; die "debootstrap failed, see $BASE.log"; }
	# a mirror that lags behind is good enough here
	echo 'Acquire::Check-Valid-Until "false";' >"$BASE.new/etc/apt/apt.conf.d/90weir"
	mv "$BASE.new" "$BASE"
fi

root=$(mktemp -d "$BASE.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT
chmod 755 "$root"
cp -a "$BASE/." "$root"
cp /etc/hosts /etc/resolv.conf "$root/etc/"
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/weir"		# it is thrown away
if [ -n "$WITH" ]; then
	sed "s/ $SUITE main/ $WITH main/" "$root/etc/apt/sources.list" >"$root/etc/apt/sources.list.d/with.list"
	printf 'Package: src:postgresql-*\nPin: release a=%s\nPin-Priority: 500\n' "$WITH" >"$root/etc/apt/preferences.d/with"
fi
mkdir "$root$TREE"
tar -C "$WEIR_ROOT" --exclude=./.git --exclude=./.demo --exclude='*.[od]' --exclude='*.so' --exclude=build -cf - . |
	tar -C "$root$TREE" --no-same-owner -xf -

# Inside: run one command line after another, and say how each ended.
# shellcheck disable=SC2016
unshare --mount --pid --fork --kill-child bash -c '
set -euo pipefail
root=$1 tree=$2 user=$3 commands=$4 failed=0
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
if [ "$user" != root ]; then
	chroot "$root" sh -c "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends sudo" \
		>/dev/null 2>&1
	chroot "$root" useradd -m -s /bin/bash "$user"
	echo "$user ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/$user"
	chroot "$root" chown -R "$user:" "$tree"
fi
while read -r command; do
	printf "\n### %s: %s\n" "$user" "$command"
	status=0
	chroot "$root" env -i /bin/su - "$user" -c "cd $tree && $command" </dev/null || status=$?
	echo "### exit status $status"
	[ $status = 0 ] || failed=1
done < <(tr ";" "\n" <<<"$commands")
exit $failed' bash "$root" "$TREE" "$AS" "$COMMANDS"
