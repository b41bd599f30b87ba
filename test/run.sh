#!/bin/bash
# run.sh - "make test": builds weir and runs every test in a private copy of
# PostgreSQL.  Nothing is installed into the system's own.
#
#   PART=NAME          only this part: build, lint, unit, model, cloud, regress,
#                      isolation or tap; several as in PART="unit tap"
#   TESTS="NAME ..."   only these tests of it
#   KEEP=1             keep the scratch folder
#   PREPARED=FOLDER    build and run in this folder, which stays: its "src" has
#                      this script, its "pg" the server's programs
#   OLD_PG_CONFIG=FILE another PostgreSQL, which 055_pg_upgrade upgrades from
#   WEIR_SPECS=FOLDER  published descriptions to compare what weir sends with
#   --asan             with AddressSanitizer and UBSan
#
# The last line is "N passed, N failed"; the exit status says the same.

set -euo pipefail
# shellcheck source=test/lib/common.sh
. "$(dirname "$0")/lib/common.sh"

PART=${PART:-}
TESTS=${TESTS:-}
LIMIT=1800						# seconds a part may take: against a hang, not a wait
ASAN=
for argument in "$@"; do
	case $argument in
		--asan) ASAN=yes ;;
		*) die "unknown option $argument" ;;
	esac
done

PASSED=0
FAILED=0
SCRATCH=
CHILD=

# --- cleaning up ----------------------------------------------------------------

# Every server below the scratch folder is ours; so is what the pid files name.
cleanup()
{
	local status=$? file pid
	trap - EXIT
	trap '' INT TERM
	[ -z "$CHILD" ] || kill "$CHILD" 2>/dev/null || true
	if [ -n "$SCRATCH" ]; then
		while read -r file; do
			as_user pg_ctl -D "${file%/*}" -m immediate -w -t 30 stop >/dev/null 2>&1 || true
		done < <(find "$SCRATCH" -name postmaster.pid 2>/dev/null)
		while read -r file; do
			pid=$(cat "$file")
			if tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "$SCRATCH"; then
				kill "$pid" 2>/dev/null || true
			fi
		done < <(find "$SCRATCH" -name cloud.pid 2>/dev/null)
		if [ "$status" = 0 ] && [ -z "${KEEP:-}${PREPARED:-}" ]; then
			rm -rf "$SCRATCH"
		else
			say "Logs and results are kept in $SCRATCH"
		fi
	fi
	# The last line is the count, whatever happened before.
	[ "$status" = 0 ] || [ "$FAILED" -gt 0 ] || FAILED=1
	say "$PASSED passed, $FAILED failed"
	[ "$FAILED" = 0 ] || status=1
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- small tools ----------------------------------------------------------------

wanted()
{
	[ -z "$PART" ] || [[ " $PART " == *" $1 "* ]]
}

# Run in the background and wait, so that a signal is acted upon at once.
# run LOGFILE COMMAND...
run()
{
	local log=$1 status=0
	shift
	as_user_exec timeout -k 10 "$LIMIT" "$@" >"$log" 2>&1 </dev/null &
	CHILD=$!
	wait "$CHILD" || status=$?
	CHILD=
	[ "$status" != 124 ] || say "gave up after $LIMIT seconds" >>"$log"
	return "$status"
}

# result NAME PASSED FAILED SECONDS
result()
{
	PASSED=$((PASSED + $2))
	FAILED=$((FAILED + $3))
	printf '%-24s %5d passed %5d failed  %4d s\n' "$1" "$2" "$3" "$4"
}

tail_of()
{
	[ ! -s "$1" ] || { say "--- $1"; tail -n "${2:-60}" "$1"; say "---"; }
}

count() { grep -cE "$1" "$2" || true; }

# --- the parts ------------------------------------------------------------------

part_build()
{
	local start=$SECONDS
	if [ -n "${OLD_PG_CONFIG:-}" ] && ! weir_build_old WERROR=1 >"$SCRATCH/build-old.log" 2>&1; then
		tail_of "$SCRATCH/build-old.log" 80
		result build 0 1 $((SECONDS - start))
		exit 1
	fi
	if ! weir_build WERROR=1 ${ASAN:+COPT="$SANITIZE"} >"$SCRATCH/build.log" 2>&1; then
		tail_of "$SCRATCH/build.log" 80
		result build 0 1 $((SECONDS - start))
		exit 1
	fi
	result build 1 0 $((SECONDS - start))
	[ -z "$ASAN" ] || weir_asan_server
}

# Counts come from the last line of the form "N passed, N failed".
# counted NAME COMMAND...
counted()
{
	local name=$1 log="$SCRATCH/${1//\//-}.log" start=$SECONDS status=0 line passed=0 failed=0
	shift
	run "$log" "$@" || status=$?
	line=$(grep -oE '[0-9]+ passed, [0-9]+ failed' "$log" | tail -1 || true)
	if [ -n "$line" ]; then
		passed=${line%% passed*}
		failed=${line##*, }
		failed=${failed%% *}
	fi
	if [ "$failed" = 0 ] && { [ "$status" != 0 ] || [ -z "$line" ]; }; then
		failed=1				# died before it could count
	fi
	[ "$failed" = 0 ] || tail_of "$log"
	result "$name" "$passed" "$failed" $((SECONDS - start))
}

part_lint()
{
	counted lint bash test/lint.sh
}

# A unit test is a folder whose Makefile has a target "run" that ends with
# the count; it uses the sanitizers always.
part_unit()
{
	local file name label
	for file in test/unit/Makefile test/unit/*/Makefile test/fuzz/Makefile; do
		[ -f "$SCRATCH/src/$file" ] || continue
		name=${file%/Makefile}
		[ -z "$TESTS" ] || [[ " $TESTS " == *" ${name##*/} "* ]] || continue
		label=${name#test/}
		[ "$name" != test/fuzz ] || label=unit/fuzz
		counted "$label" make -s -C "$name" PG_CONFIG="$SERVER_CONFIG" run
	done
}

# What is quick of "make model"
part_model()
{
	counted model env SHORT=1 ONLY="$TESTS" bash test/model/run
}

# The local cloud checks itself, and loads a database on the way.
part_cloud()
{
	server || { result cloud 0 1 0; return; }
	as_user createdb -h "$SCRATCH/server.sock" -U postgres cloud_check
	counted cloud python3 test/cloud/selfcheck.py --psql "$SERVER_BIN/psql" \
		--database "host=$SCRATCH/server.sock user=postgres dbname=cloud_check"
}

server()
{
	[ ! -f "$SCRATCH/server/postmaster.pid" ] || return 0
	[ ! -d "$SCRATCH/server" ] || return 1		# tried before, in vain
	weir_cluster "$SCRATCH/server" <<-END
		fsync = off
		wal_level = logical
		log_min_messages = info
	END
	cluster_start "$SCRATCH/server"
}

# Understands both forms of pg_regress's output, before and since 16.
# pg_regress NAME PROGRAM TESTS...
regress()
{
	local name=$1 program=$2 log="$SCRATCH/$1.log" start=$SECONDS status=0 passed failed
	shift 2
	if [ $# = 0 ]; then
		result "$name" 0 0 0
		return
	fi
	server || { result "$name" 0 $# $((SECONDS - start)); return; }
	run "$log" test/lib/regress_each.sh "$SERVER_PGXS/$program" --inputdir=test --outputdir=. --bindir="$SERVER_BIN" \
		--host="$SCRATCH/server.sock" --user=postgres --load-extension=weir "$@" || status=$?
	passed=$(count '^test .* \.\.\. +ok|^ok [0-9]' "$log")
	failed=$(count '^test .* \.\.\. +FAILED|^not ok [0-9]' "$log")
	if [ "$failed" = 0 ] && { [ "$status" != 0 ] || [ "$passed" != $# ]; }; then
		failed=$(($# > passed ? $# - passed : 1))
	fi
	if [ "$failed" != 0 ]; then
		tail_of "$log"
		tail_of "$SCRATCH/src/regression.diffs" 200
		tail_of "$SCRATCH/server.log" 40
		as_user sh -c 'mv -f regression.diffs "$1" 2>/dev/null || true' sh "$SCRATCH/$name.diffs"
	fi
	result "$name" "$passed" "$failed" $((SECONDS - start))
}

# Names of the tests of a folder: list FOLDER SUFFIX
list()
{
	local file name
	for file in "$SCRATCH/src/$1"/*"$2"; do
		[ -f "$file" ] || continue
		name=$(basename "$file" "$2")
		[ -z "$TESTS" ] || [[ " $TESTS " == *" $name "* ]] || continue
		echo "$name"
	done
}

part_regress()
{
	# shellcheck disable=SC2046
	regress regress src/test/regress/pg_regress $(list test/sql .sql)
}

part_isolation()
{
	# shellcheck disable=SC2046
	regress isolation src/test/isolation/pg_isolation_regress $(list test/specs .spec)
}

# What npm_packages() is for npm this is for lines "# pypi: PACKAGE==VERSION",
# into a virtual environment.
pypi_packages()
{
	local dir="$SCRATCH/packages" wanted
	# shellcheck disable=SC2046
	wanted=$(sed -n 's/^# pypi: //p' $(printf 'test/t/%s.pl ' $1) | sort -u)
	[ -n "$wanted" ] || return 0
	mkdir -p "$dir"
	# shellcheck disable=SC2086
	if ! PATH=$SYSTEM_PATH python3 -m venv "$dir/venv" >"$dir/pypi.log" 2>&1; then
		echo 'python3 has no venv' >"$dir/pypi.missing"
	elif ! timeout 600 "$dir/venv/bin/pip" install -q --disable-pip-version-check $wanted >"$dir/pypi.log" 2>&1; then
		echo "pip: $(grep -m1 'ERROR' "$dir/pypi.log" || tail -n 1 "$dir/pypi.log")" | head -c 300 >"$dir/pypi.missing"
	fi
	chmod -R a+rX "$dir"
}

# The same for lines "# debian: PACKAGE": unpacked and not installed, so nothing
# of the system changes and no service starts.
debian_packages()
{
	local dir="$SCRATCH/packages" wanted
	# shellcheck disable=SC2046
	wanted=$(sed -n 's/^# debian: //p' $(printf 'test/t/%s.pl ' $1) | sort -u)
	[ -n "$wanted" ] || return 0
	mkdir -p "$dir/debian"
	if ! PATH=$SYSTEM_PATH command -v apt-get >/dev/null; then
		echo 'apt-get is not there' >"$dir/debian.missing"
	# shellcheck disable=SC2086
	elif ! (cd "$dir" && { apt-cache show $wanted >/dev/null 2>&1 || (as_root timeout 300 apt-get -qq update); } &&
		timeout 300 apt-get -qq download $wanted && for file in *.deb; do dpkg -x "$file" debian || exit 1; done) >"$dir/debian.log" 2>&1; then
		echo "apt-get: $(grep -m1 '^E:' "$dir/debian.log" || tail -n 1 "$dir/debian.log")" | head -c 300 >"$dir/debian.missing"
	fi
	chmod -R a+rX "$dir"
}

# Published descriptions of APIs, which are no part of this: where WEIR_SPECS
# says, or beside the checkout.  Copied to where everybody may read.
published_descriptions()
{
	local from=${WEIR_SPECS:-$WEIR_ROOT/../shared/specs}
	[ -d "$from" ] || return 0
	as_user mkdir -p "$SCRATCH/specs"
	tar -C "$from" -cf - . | as_user tar -C "$SCRATCH/specs" --no-same-owner --no-same-permissions -xf -
	chmod -R u+w "$SCRATCH/specs"
	as_user mkdir -p "$SCRATCH/recorded"
	USER_ENV+=(WEIR_SPECS="$SCRATCH/specs" WEIR_RECORD="$SCRATCH/recorded")
}

part_tap()
{
	local log="$SCRATCH/tap.log" start=$SECONDS status=0 passed failed skipped files
	files=$(list test/t .pl)
	if [ -z "$files" ]; then
		result tap 0 0 0
		return
	fi
	as_user mkdir -p "$SCRATCH/tap"
	USER_ENV=(TESTDIR="$SCRATCH/tap" TESTDATADIR="$SCRATCH/tap/data" TESTLOGDIR="$SCRATCH/tap/log"
		PG_REGRESS="$SERVER_PGXS/src/test/regress/pg_regress" WEIR_ROOT="$SCRATCH/src" WEIR_ASAN="$ASAN"
		WEIR_OLD_INSTALL="${OLD_INSTALL:-}"
		PG_TEST_TIMEOUT_DEFAULT="${PG_TEST_TIMEOUT_DEFAULT:-${ASAN:+360}}"
		PERL5LIB="$SERVER_PGXS/src/test/perl:$SCRATCH/src/test/lib")
	[ -n "${USER_ENV[7]#*=}" ] || unset 'USER_ENV[7]'
	# shellcheck disable=SC2046
	(cd "$SCRATCH/src" && npm_packages $(printf 'test/t/%s.pl ' $files) && pypi_packages "$files" && debian_packages "$files")
	USER_ENV+=(WEIR_PACKAGES="$SCRATCH/packages")
	[[ " $files " != *_described* ]] || published_descriptions
	# shellcheck disable=SC2086
	run "$log" prove -v -j2 --timer $(printf 'test/t/%s.pl ' $files) || status=$?
	USER_ENV=()
	passed=$(count '^ok [0-9]' "$log")
	skipped=$(count '^ok [0-9].*# skip' "$log")
	failed=$(grep -E '^not ok [0-9]' "$log" | grep -vcE '# [T]ODO' || true)
	passed=$((passed - skipped))
	if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
		failed=$(count '^test/t/.*\(Wstat: ' "$log")		# files that died
		[ "$failed" != 0 ] || failed=1
	fi
	if [ "$failed" != 0 ]; then
		sed -n '/^Test Summary Report/,$p' "$log"
		grep -E -A12 '^(not ok|# +Failed|Bailout|.*[Dd]ied)' "$log" | head -n 120 || true
		say "see $log and the logs of servers below $SCRATCH/tap"
	fi
	result tap "$passed" "$failed" $((SECONDS - start))
	part_described
}

# What weir sent to all local clouds of these tests, compared with the
# descriptions, if they are there and so is what compares.
part_described()
{
	[ -d "$SCRATCH/specs" ] && [ ! -e "$SCRATCH/packages/pypi.missing" ] || return 0
	counted described "$SCRATCH/packages/venv/bin/python" test/cloud/described/described.py --check "$SCRATCH/specs" "$SCRATCH/recorded"
}

# --- sanitizers -----------------------------------------------------------------

part_sanitizer_reports()
{
	local reports
	reports=$(weir_sanitizer_reports)
	if [ -n "$reports" ]; then
		for file in $reports; do
			say "--- $file"
			grep -A20 -E 'ERROR: AddressSanitizer|runtime error: ' "$file" | head -n 40
		done
		result 'sanitizer reports' 0 "$(wc -l <<<"$reports")" 0
	else
		result 'sanitizer reports' 1 0 0
	fi
}

# --- main -----------------------------------------------------------------------

WITH_REDIS=yes				# a real server to publish to
WITH_SPIN=yes				# for the model
WITH_VENV=yes				# for what tests take from PyPI
weir_prepare
weir_scratch test
say "weir with PostgreSQL $SERVER_MAJOR${ASAN:+ and sanitizers}${RUN_USER:+ as $RUN_USER}, in $SCRATCH"
weir_copy_sources
weir_copy_server
WORK_DIR=$SCRATCH/src

! wanted lint || part_lint
! wanted unit || part_unit
! wanted model || part_model
case " ${PART:-build} " in
	*" build "* | *" cloud "* | *" regress "* | *" isolation "* | *" tap "*) part_build ;;
esac
! wanted cloud || part_cloud
! wanted regress || part_regress
! wanted isolation || part_isolation
[ ! -f "$SCRATCH/server/postmaster.pid" ] || cluster_stop "$SCRATCH/server"
! wanted tap || part_tap
[ -z "$ASAN" ] || part_sanitizer_reports
[ "$FAILED" = 0 ]
