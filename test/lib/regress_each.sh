#!/bin/bash
# regress_each.sh PROGRAM OPTION... TEST... - runs pg_regress (or
# pg_isolation_regress) once per test, each in a database of its own that is
# dropped afterwards: a test sees nothing of the others, and may be run alone.
#
# Prints pg_regress's lines about the tests; leaves all differences in
# regression.diffs.  Connects as the options --host, --port and --user say.

set -uo pipefail

program=$1
shift
options=()
psql=psql
connect=()
while [ $# -gt 0 ] && [[ $1 == --* ]]; do
	case $1 in
		--dbname=*) ;;
		--bindir=?*) options+=("$1"); psql=${1#*=}/psql ;;
		--host=* | --port=*) options+=("$1"); connect+=("$1") ;;
		--user=*) options+=("$1"); connect+=("--username=${1#*=}") ;;
		*) options+=("$1") ;;
	esac
	shift
done

status=0
diffs=$(mktemp)
for name in "$@"; do
	database=weir_$name
	if output=$("$program" "${options[@]}" --dbname="$database" "$name" 2>&1); then
		grep -E '^test |^ok [0-9]' <<<"$output"
	else
		status=1
		grep -E '^test |^not ok [0-9]' <<<"$output" || cat <<<"$output"
		[ ! -f regression.diffs ] || cat regression.diffs >>"$diffs"
	fi
	"$psql" -X -q "${connect[@]}" -d postgres -c 'SET client_min_messages = warning' \
		-c "DROP DATABASE IF EXISTS \"$database\" WITH (FORCE)" || status=1
done
rm -f regression.diffs regression.out
if [ -s "$diffs" ]; then
	cat "$diffs" >regression.diffs
fi
rm -f "$diffs"
exit $status
