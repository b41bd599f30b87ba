# common.sh - what the test, demo and bench scripts share.  Sourced by bash.
#
# weir_prepare        install what is missing, choose the server and the user
# weir_scratch NAME   a scratch folder that user owns -> $SCRATCH
# weir_copy_sources   the checkout, without build products -> $SCRATCH/src
# weir_copy_server    the server's programs -> $SCRATCH/pg; nothing is ever
#                     installed into the system's own PostgreSQL
# weir_build ARGS     build in $SCRATCH/src, install into $SCRATCH/pg
# weir_build_old ARGS  the same for $OLD_PG_CONFIG, from which clusters are
#                     upgraded -> $OLD_INSTALL
# weir_cluster DIR    initdb and a configuration fit for tests
# npm_packages FILE...  what these tests need of npm -> $SCRATCH/packages
# as_user COMMAND     as an unprivileged user when we are root, with a clean
#                     environment in either case
#
# Servers listen on a Unix socket in their own folder, so two checkouts never
# meet; only the demo opens a port, and it picks a free one.

WEIR_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
WEIR_MIN_MAJOR=15
SYSTEM_PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 2; }

# Between two looks at a state.
between_looks() { read -r -t 0.1 <> <(:) || true; }

# --- packages -----------------------------------------------------------------

# A server we can build against and run: "bindir" of the newest one, or of
# $PG_CONFIG when that was given.  Fails when there is none.
find_server()
{
	local config major best='' best_major=0
	for config in ${PG_CONFIG:-/usr/lib/postgresql/*/bin/pg_config "$(command -v pg_config || true)"}; do
		config=$(command -v "$config" || true)
		[ -n "$config" ] && server_is_complete "$config" || continue
		major=$("$config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
		if [ "$major" -ge $WEIR_MIN_MAJOR ] && [ "$major" -gt "$best_major" ]; then
			best=$config
			best_major=$major
		fi
	done
	[ -n "$best" ] || return 1
	SERVER_CONFIG=$best
	SERVER_MAJOR=$best_major
}

server_is_complete()
{
	local bindir pgxs
	bindir=$("$1" --bindir) && pgxs=$("$1" --pgxs) || return 1
	[ -x "$bindir/postgres" ] && [ -x "$bindir/initdb" ] && [ -x "$bindir/psql" ] &&
		[ -x "$bindir/pgbench" ] && [ -f "$pgxs" ] &&
		[ -f "$("$1" --includedir-server)/postgres.h" ]
}

# Packages for what is missing, on stdout.  The server is left to the caller.
missing_packages()
{
	PATH=$SYSTEM_PATH
	if ! command -v gcc >/dev/null; then
		echo gcc libc6-dev
	fi
	has_header curl/curl.h || echo libcurl4-openssl-dev
	has_header cjson/cJSON.h || echo libcjson-dev
	has_header openssl/ssl.h || echo libssl-dev
	has_header hiredis/hiredis.h || echo libhiredis-dev
	has_header expat.h || echo libexpat1-dev
	command -v python3 >/dev/null || echo python3
	command -v prove >/dev/null || echo perl
	perl -MIPC::Run -e 1 2>/dev/null || echo libipc-run-perl
	[ -z "${WITH_VENV:-}" ] || python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
	[ -z "${WITH_REDIS:-}" ] || command -v redis-server >/dev/null || echo redis-server
	[ -z "${WITH_SPIN:-}" ] || command -v spin >/dev/null || echo spin
	[ -z "${WITH_VALGRIND:-}" ] || command -v valgrind >/dev/null || echo valgrind libc6-dbg
}

has_header()
{
	command -v gcc >/dev/null && echo "#include <$1>" | gcc -E -x c - >/dev/null 2>&1
}

# As root: run it.  Else through sudo, if that works without asking or there
# is somebody to ask.
as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
		sudo "$@"
	else
		die "missing: $MISSING. Install it, or run this as root or with sudo."
	fi
}

install_packages()
{
	local major log dropin=
	local apt="env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0"

	command -v apt-get >/dev/null || die "missing: $MISSING. Install it with your system's package manager."
	say "Installing what is missing: $MISSING"
	log=$(mktemp)
	as_root $apt update >"$log" 2>&1 || { cat "$log" >&2; die "apt-get update failed"; }
	if ! find_server; then
		[ -z "${PG_CONFIG:-}" ] || die "$PG_CONFIG is not a complete PostgreSQL $WEIR_MIN_MAJOR or newer with development files"
		major=$(apt-cache search --names-only '^postgresql-server-dev-[0-9]+$' |
			sed -E 's/^postgresql-server-dev-([0-9]+).*/\1/' | sort -n | tail -1)
		[ "${major:-0}" -ge $WEIR_MIN_MAJOR ] ||
			die "this distribution offers PostgreSQL ${major:-none}; weir needs $WEIR_MIN_MAJOR or newer (see apt.postgresql.org)"
		MISSING="${MISSING/PostgreSQL/} postgresql-$major postgresql-server-dev-$major"
		dropin=/etc/postgresql-common/createcluster.d/weir-no-main-cluster.conf
	fi
	# In a shell of its own: the caller has things to do at its exit, too.
	(
		if [ -n "$dropin" ] && [ ! -e "$dropin" ]; then
			# The distribution would create and start a cluster of its own.
			trap 'as_root rm -f "$dropin"; as_root rmdir --ignore-fail-on-non-empty "${dropin%/*}"' EXIT
			as_root mkdir -p "${dropin%/*}"
			echo 'create_main_cluster = false' | as_root tee "$dropin" >/dev/null
		fi
		# shellcheck disable=SC2086
		as_root $apt install -y --no-install-recommends $MISSING >"$log" 2>&1 ||
			{ tail -n 40 "$log" >&2; die "apt-get could not install: $MISSING"; }
	) || exit
	rm -f "$log"
	hash -r
}

weir_prepare()
{
	local list
	MISSING=
	list=$(missing_packages)
	MISSING=$(echo $list)
	find_server || MISSING="${MISSING:+$MISSING }PostgreSQL"
	if [ -n "$MISSING" ]; then
		install_packages
		find_server || die "no complete PostgreSQL $WEIR_MIN_MAJOR or newer was found"
	fi
	choose_user
}

# --- user and scratch folder ----------------------------------------------------

# PostgreSQL refuses to run as root.
choose_user()
{
	RUN_USER=
	if [ "$(id -u)" = 0 ]; then
		if id postgres >/dev/null 2>&1; then
			RUN_USER=postgres
		else
			RUN_USER=weir-test
			id $RUN_USER >/dev/null 2>&1 ||
				useradd --system --no-create-home --home-dir /nonexistent --shell /bin/sh $RUN_USER
		fi
	fi
}

# What a command may see of the caller's environment is listed here.  With
# exec, so that "as_user_exec COMMAND &" leaves the command's own pid in $!.
as_user_exec()
{
	local -a how=()
	[ -z "$RUN_USER" ] || how=(setpriv --reuid "$RUN_USER" --regid "$(id -g "$RUN_USER")" --init-groups)
	exec "${how[@]}" env -i -C "${WORK_DIR:-${SCRATCH:-/}}" HOME="${SCRATCH:-/nonexistent}" \
		TMPDIR="${SCRATCH_TMP:-/tmp}" LANG=C.UTF-8 LC_ALL=C.UTF-8 PATH="${SERVER_BIN:+$SERVER_BIN:}$SYSTEM_PATH" \
		${CI:+CI="$CI"} "${USER_ENV[@]}" "$@"
}
as_user() { (as_user_exec "$@"); }
USER_ENV=()

# $1: name.  Short, because a socket's path must stay below 108 bytes.
# PREPARED=FOLDER says that the sources and the server are in it already.
weir_scratch()
{
	local base=${TMPDIR:-/tmp}
	if [ ${#base} -gt 60 ] || ! (SCRATCH=/; as_user test -x "$base"); then
		base=/tmp
	fi
	SCRATCH=${PREPARED:-$(mktemp -d "$base/weir-$1.XXXXXX")}
	mkdir "$SCRATCH/tmp"
	SCRATCH_TMP=$SCRATCH/tmp
	if [ -n "$RUN_USER" ]; then
		chown "$RUN_USER:" "$SCRATCH" "$SCRATCH/tmp"
	fi
	SERVER_BIN=$SCRATCH/pg$("$SERVER_CONFIG" --bindir)
}

# The checkout may be where only root can read: copy it.
weir_copy_sources()
{
	[ -z "${PREPARED:-}" ] || return 0
	as_user mkdir -p "$SCRATCH/src"
	tar -C "$WEIR_ROOT" --exclude=./.git --exclude='*.o' --exclude='*.d' --exclude='*.bc' --exclude='*.so' \
		--exclude=__pycache__ --exclude=./test/unit/build --exclude=./test/unit/kinds/build --exclude=./tmp_check --exclude=./results --exclude='./sql/weir--0.1.sql' \
		-cf - . | as_user tar -C "$SCRATCH/src" --no-same-owner -xf -
}

# Programs of PostgreSQL find their libraries and share files relative to
# themselves, so a copy that keeps the layout is a server of its own.
weir_copy_server()
{
	local dir
	for dir in "$("$SERVER_CONFIG" --bindir)" "$("$SERVER_CONFIG" --pkglibdir)" "$("$SERVER_CONFIG" --sharedir)"; do
		[ -z "${PREPARED:-}" ] || break
		as_user mkdir -p "$SCRATCH/pg$dir"
		tar -C "$dir" --exclude=./bitcode --exclude=./pgxs -cf - . |
			as_user tar -C "$SCRATCH/pg$dir" --no-same-owner -xf -
	done
	[ "$(as_user "$SERVER_BIN/pg_config" --sharedir)" = "$SCRATCH/pg$("$SERVER_CONFIG" --sharedir)" ] ||
		die "the copy of the server does not find its own files"
	SERVER_PGXS=$(dirname "$("$SERVER_CONFIG" --pgxs)")/../..
	SERVER_PGXS=$(cd "$SERVER_PGXS" && pwd)
}

# Bitcode is of no use here and takes half of the time.
weir_build()
{
	as_user make -C "$SCRATCH/src" -s -j"$(nproc)" PG_CONFIG="$SERVER_CONFIG" with_llvm=no "$@" all &&
		as_user make -C "$SCRATCH/src" -s PG_CONFIG="$SERVER_CONFIG" with_llvm=no DESTDIR="$SCRATCH/pg" "$@" install
}

# Debian's folders have the version in their names; others have to differ.
weir_build_old()
{
	local SERVER_CONFIG=$OLD_PG_CONFIG SERVER_PGXS SERVER_BIN
	server_is_complete "$OLD_PG_CONFIG" || die "$OLD_PG_CONFIG is not a complete PostgreSQL with development files"
	SERVER_BIN=$SCRATCH/pg$("$OLD_PG_CONFIG" --bindir)
	OLD_INSTALL=${SERVER_BIN%/bin}
	weir_copy_server
	as_user cp -R "$SCRATCH/src" "$SCRATCH/src-old"
	as_user make -C "$SCRATCH/src-old" -s -j"$(nproc)" PG_CONFIG="$OLD_PG_CONFIG" with_llvm=no "$@" all &&
		as_user make -C "$SCRATCH/src-old" -s PG_CONFIG="$OLD_PG_CONFIG" with_llvm=no DESTDIR="$SCRATCH/pg" "$@" install
}

# npm_packages FILE...: what the files name in lines "# npm: PACKAGE@VERSION" is
# installed into the scratch folder, as the caller, whose settings say how
# packages are reached; nothing of a package is run while it is installed.  A
# test whose packages cannot be had finds the reason in npm.missing and skips.
npm_packages()
{
	local dir="$SCRATCH/packages" wanted
	wanted=$(sed -n 's/^# npm: //p' "$@" | sort -u)
	[ -n "$wanted" ] || return 0
	mkdir -p "$dir"
	echo '{"private": true}' >"$dir/package.json"
	if ! PATH=$PATH:$SYSTEM_PATH command -v npm >/dev/null; then
		echo 'npm is not installed' >"$dir/npm.missing"
	# shellcheck disable=SC2086
	elif ! (cd "$dir" && timeout 600 npm install --no-audit --no-fund --ignore-scripts --no-package-lock --no-save $wanted) >"$dir/npm.log" 2>&1; then
		echo "npm: $(grep -m1 -i 'error' "$dir/npm.log" || tail -n 1 "$dir/npm.log")" | head -c 300 >"$dir/npm.missing"
	fi
	chmod -R a+rX "$dir"
}

# --- sanitizers -----------------------------------------------------------------

# Flags to build with: weir_build COPT="$SANITIZE"
# shellcheck disable=SC2034
SANITIZE='-fsanitize=address,undefined -fno-omit-frame-pointer -O1'

# The server itself is not built with them: its program is wrapped so that the
# runtime is loaded first.
weir_asan_server()
{
	local program="$SERVER_BIN/postgres.real"
	as_user mv "$SERVER_BIN/postgres" "$program"
	as_user mkdir -p "$SCRATCH/sanitizer"
	as_user gcc -shared -fPIC -Wl,-z,initfirst -DOPTIONS="\"log_path=$SCRATCH/sanitizer/report\"" \
		-o "$SCRATCH/asan_early.so" "$SCRATCH/src/test/lib/asan_early.c"
	as_user tee "$SERVER_BIN/postgres" >/dev/null <<-END
		#!/bin/sh
		export LD_PRELOAD="$SCRATCH/asan_early.so $(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
		exec "$program" "\$@"
	END
	as_user chmod 755 "$SERVER_BIN/postgres"
}

# Under valgrind: of the server's programs only the server itself, and not
# while initdb runs it.  Each process has a log of its own.  MEMCHECK_ORIGINS=yes
# says where unwritten memory came from, and takes twice as long.
weir_valgrind_server()
{
	local program="$SERVER_BIN/postgres.real"
	as_user mv "$SERVER_BIN/postgres" "$program"
	as_user mkdir -p "$SCRATCH/valgrind"
	as_user tee "$SERVER_BIN/postgres" >/dev/null <<-END
		#!/bin/sh
		[ "\$1" = -D ] || exec "$program" "\$@"
		exec valgrind --tool=memcheck --quiet --trace-children=yes --undef-value-errors=yes --track-origins=${MEMCHECK_ORIGINS:-no} --num-callers=40 \\
			--error-limit=no --keep-stacktraces=alloc \\
			--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --gen-suppressions=all \\
			--suppressions="$SCRATCH/src/test/chaos/valgrind.supp" --log-file="$SCRATCH/valgrind/%p.log" "$program" "\$@"
	END
	as_user chmod 755 "$SERVER_BIN/postgres"
}

# Files in which valgrind says something that nothing in valgrind.supp knows
weir_valgrind_reports() { find "$SCRATCH/valgrind" -type f -size +0; }

# Files in which a sanitizer says something.  AddressSanitizer writes files of
# its own; UBSan writes to stderr, which is the log.  What LeakSanitizer finds
# counts if weir had a hand in it: the postmaster loses some settings of its own.
weir_sanitizer_reports()
{
	local file
	find "$SCRATCH/sanitizer" -type f | while read -r file; do
		if ! grep -q 'ERROR: LeakSanitizer' "$file" ||
			awk -v RS= '/^Direct leak/ && / src\/[a-z]+\/[a-z_]+\.c:|weir\.so/ { found = 1 } END { exit !found }' "$file"; then
			echo "$file"
		fi
	done
	find "$SCRATCH" -name '*.log' -not -path "$SCRATCH/src/*" -exec grep -l 'runtime error: ' {} + || true
}

# --- clusters -------------------------------------------------------------------

# $1: data directory.  Its sockets are in $1.sock, its log is $1.log, the key
# of its secrets is $1.key.  Further lines of configuration come from stdin.
weir_cluster()
{
	local dir=$1
	as_user mkdir -m 700 "$dir.sock"
	as_user initdb -D "$dir" -U "${SUPERUSER:-postgres}" -A "${AUTH_LOCAL:-trust}" --auth-host=scram-sha-256 \
		--locale=C.UTF-8 -E UTF8 --no-sync -N >"$dir.initdb.log" 2>&1 ||
		{ cat "$dir.initdb.log" >&2; return 1; }
	as_user sh -c 'umask 077; od -An -N32 -tx1 /dev/urandom | tr -d " \n" >"$1"' sh "$dir.key"
	{
		cat <<-END
			listen_addresses = ''
			unix_socket_directories = '$dir.sock'
			shared_preload_libraries = 'weir'
			max_connections = 100
			max_worker_processes = 48
			max_prepared_transactions = 10
			logging_collector = off
			log_line_prefix = '%m [%p] %b %q%u@%d '
			log_lock_waits = on
			deadlock_timeout = 1s
			jit = off
			timezone = 'UTC'
			log_timezone = 'UTC'
			lc_messages = 'C'
			weir.secret_key_file = '$dir.key'
			weir.secret_directories = '$dir.secrets'
			weir.allowed_hosts = '127.0.0.1, localhost'
			weir.allowed_private_networks = '127.0.0.0/8'
		END
		cat
	} | as_user tee -a "$dir/postgresql.conf" >/dev/null
	as_user mkdir -m 700 "$dir.secrets"
}

cluster_start()
{
	as_user "${PRELOAD[@]}" pg_ctl -D "$1" -l "$1.log" -w -t 60 start >/dev/null ||
		{ say "The server did not start; the end of its log:"; tail -n 30 "$1.log"; return 1; } >&2
}
PRELOAD=()

cluster_stop()
{
	[ ! -f "$1/postmaster.pid" ] || as_user pg_ctl -D "$1" -m "${2:-fast}" -w -t 60 stop >/dev/null
}

# psql against a cluster: cluster_psql DIR ARGS
cluster_psql()
{
	local dir=$1
	shift
	as_user psql -X -q -v ON_ERROR_STOP=1 -h "$dir.sock" -U "${SUPERUSER:-postgres}" "$@"
}

# A TCP port of the loopback that is free now.
free_port()
{
	as_user python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
