#!/bin/bash
# demo.sh - "make demo": the story of weir with a real server and the local
# cloud.  Nothing outside of one scratch folder is touched, except packages
# that are missing.  Afterwards server and cloud go on running, to play with.
#
#   CLOUD=no      only the part that needs no cloud
#   DEMO_STOP=1   stop and clean up at the end (so does CI)
#   --stop        stop what an earlier demo left running
#
# The file .demo in the checkout names the folder of the demo that runs.

set -euo pipefail
# shellcheck source=test/lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

CLOUD=${CLOUD:-yes}
MARK=$WEIR_ROOT/.demo
LIMIT=120					# seconds until a wait for a state gives up
SCRATCH=
CLOUD_PID=

# --- stopping -------------------------------------------------------------------

# Ends the demo in a folder, by the pids it wrote down, and removes it.
stop_demo()
{
	local dir=$1 pid
	[[ $dir == */weir-demo.?????? && -d $dir ]] || return 0
	[ -w "$dir" ] || die "the demo in $dir was started by somebody else"
	pid=$(cat "$dir/cloud.pid" 2>/dev/null || true)
	if [ -n "$pid" ] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "--dir $dir/cloud"; then
		kill "$pid" || true
	fi
	if [ -f "$dir/server/postmaster.pid" ]; then
		(SCRATCH=$dir; as_user "$(cat "$dir/bindir")/pg_ctl" -D "$dir/server" -m fast -w -t 60 stop >/dev/null) || true
	fi
	rm -rf "$dir"
}

stop_earlier()
{
	[ ! -f "$MARK" ] || stop_demo "$(cat "$MARK")"
	rm -f "$MARK"
}

finish()
{
	local status=$?
	trap - EXIT
	trap '' INT TERM
	if [ "$status" != 0 ] && [ -n "$SCRATCH" ]; then
		say
		say "The demo failed. The end of the server's log:"
		grep -E 'ERROR|FATAL|PANIC|WARNING|terminated' "$SCRATCH/server.log" 2>/dev/null |
			grep -v 'FATAL:  the database system is' | tail -n 20 || true
		[ -z "$CLOUD_PID" ] || kill "$CLOUD_PID" 2>/dev/null || true
		[ ! -f "$SCRATCH/server/postmaster.pid" ] || cluster_stop "$SCRATCH/server" immediate || true
		rm -f "$MARK"
		say "Logs are kept in $SCRATCH"
	fi
	exit "$status"
}

# --- telling --------------------------------------------------------------------

if [ -t 1 ]; then BOLD=$'\e[1m' PLAIN=$'\e[0m'; else BOLD= PLAIN=; fi

section()
{
	printf '\n%s== %s%s\n' "$BOLD" "$1" "$PLAIN"
	[ $# -lt 2 ] || printf '%s\n' "$2" | fold -s -w 98
	echo
}

demo_psql()
{
	as_user psql -X -q -v ON_ERROR_STOP=1 -h "$SCRATCH/server.sock" -p "$PORT" -U demo -d demo "$@"
}

# The query, then what psql says.
show()
{
	printf '%s\n' "$1" | sed -e '1s/^/demo=> /' -e '2,$s/^/demo-> /'
	demo_psql -P footer=off -c "$1"
}

# One value.
value() { demo_psql -At -c "$1"; }

# Trigger a pipeline, shown; its run id goes to RUN.
trigger()
{
	printf 'demo=> %s\n' "SELECT weir.trigger('$1');"
	RUN=$(value "SELECT weir.trigger('$1')")
	printf ' trigger\n---------\n %7s\n\n' "$RUN"
}

# Wait for the end of RUN, shown.
wait_run()
{
	local status
	printf 'demo=> %s\n' "SELECT weir.wait($RUN, '1 minute');"
	status=$(value "SELECT weir.wait($RUN, '1 minute')")
	printf '   wait\n-----------\n %s\n\n' "$status"
	[ "$status" = "$1" ] || { say "expected: $1"; return 1; }
}

# Until a query says t; the limit only ends a hang.
wait_until()
{
	local give_up=$((SECONDS + LIMIT))
	until [ "$(value "$1" 2>/dev/null)" = t ]; do
		[ $SECONDS -lt $give_up ] || { say "waited in vain for: $1"; return 1; }
		between_looks
	done
}

expect()
{
	local found
	found=$(value "$1")
	[ "$found" = "$2" ] || { say "expected $2, found $found: $1"; return 1; }
}

# How often the cloud really began something, from its own ledger.
ledger()
{
	as_user python3 -c '
import json, sys, urllib.request
counts = json.load(urllib.request.urlopen(sys.argv[1] + "/_cloud/counts"))
for operation, text in (("adf.createRun", "ADF pipeline runs begun"),
                        ("databricks.run-now", "Databricks job runs begun"),
                        ("databricks.repair", "Databricks repairs begun")):
    print("    {:<28} {}".format(text, counts.get(operation, {}).get("started", 0)))' "$ADDRESS"
}

fault()
{
	as_user python3 -c '
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/_cloud/faults", sys.argv[2].encode(),
                                              {"Content-Type": "application/json"})).read()' "$ADDRESS" "$1"
}

# The conductor dies as if the machine's out-of-memory killer had chosen it.
kill_conductor()
{
	local pid log
	pid=$(as_user psql -X -At -h "$SCRATCH/server.sock" -p "$PORT" -U postgres -d demo \
		-c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'weir conductor' AND datname = 'demo'")
	log=$(wc -l <"$SCRATCH/server.log")
	[ -n "$pid" ] || { say "no conductor is running"; return 1; }
	say "    kill -9 $pid    # the conductor"
	# the shell's own: a bare machine has no program of that name
	as_user sh -c 'kill -9 "$1"' sh "$pid"
	wait_until "SELECT pg_postmaster_start_time() IS NOT NULL"
	say "    PostgreSQL has restarted all its processes, which is what it does when one dies:"
	tail -n +"$log" "$SCRATCH/server.log" | grep -E 'terminated by signal|reinitializing|ready to accept' |
		sed 's/^/        /'
	echo
}

# --- starting -------------------------------------------------------------------

start_server()
{
	local file
	AUTH_LOCAL=peer
	PORT=$(free_port)
	weir_cluster "$SCRATCH/server" <<-END
		listen_addresses = '127.0.0.1'
		port = $PORT
		log_min_messages = info
	END
	# The account that runs the server may be any of the demo's roles on the
	# socket; everybody else needs the password.
	printf 'local all all peer map=demo\nhost all demo 127.0.0.1/32 scram-sha-256\n' |
		as_user tee "$SCRATCH/server/pg_hba.conf" >/dev/null
	for role in postgres demo loader; do
		echo "demo ${RUN_USER:-$(id -un)} $role"
	done | as_user tee "$SCRATCH/server/pg_ident.conf" >/dev/null
	as_user sh -c 'umask 077; od -An -N12 -tx1 /dev/urandom | tr -d " \n" >"$1"' sh "$SCRATCH/password"
	cluster_start "$SCRATCH/server"
	PASSWORD=$(cat "$SCRATCH/password")
	cluster_psql "$SCRATCH/server" -p "$PORT" -d postgres <<-END
		CREATE ROLE demo LOGIN PASSWORD '$PASSWORD';
		CREATE ROLE loader LOGIN;
		CREATE DATABASE demo;
		\connect demo
		CREATE EXTENSION weir;
		GRANT weir_admin, weir_operator, weir_reader TO demo;
		GRANT CREATE ON DATABASE demo TO demo;
		GRANT CREATE ON SCHEMA public TO demo;
	END
	for file in test/demo/tables.sql test/cloud/staging.sql; do
		demo_psql -f "$SCRATCH/src/$file"
	done
	demo_psql -c 'GRANT USAGE ON SCHEMA staging TO loader; GRANT SELECT, INSERT, DELETE ON staging.flights TO loader'
}

start_cloud()
{
	local file="$SCRATCH/cloud/address" give_up=$((SECONDS + LIMIT))
	as_user mkdir -p "$SCRATCH/cloud"
	as_user_exec python3 "$SCRATCH/src/test/cloud/cloud.py" --dir "$SCRATCH/cloud" --address-file "$file" \
		--psql "$SERVER_BIN/psql" --database "host=$SCRATCH/server.sock port=$PORT user=loader dbname=demo" \
		</dev/null >"$SCRATCH/cloud.log" 2>&1 &
	CLOUD_PID=$!
	disown
	echo "$CLOUD_PID" >"$SCRATCH/cloud.pid"
	until [ -s "$file" ]; do
		if [ $SECONDS -ge $give_up ] || ! kill -0 "$CLOUD_PID" 2>/dev/null; then
			cat "$SCRATCH/cloud.log"
			return 1
		fi
		between_looks
	done
	ADDRESS=$(cat "$file")
}

# --- the story ------------------------------------------------------------------

TASKS="SELECT task_name, kind, phase, status, attempt_no AS attempts, rows_read, rows_written
FROM weir.task_runs WHERE run_id = %s ORDER BY task_no;"

tasks() { show "${TASKS/\%s/$RUN}"; }

story_flights()
{
	local origin third
	section "1. A pipeline: ADF copies, Databricks transforms, SQL publishes" \
"The connections say where ADF and Databricks are (here: the local cloud at $ADDRESS) and how to sign in; secrets are stored encrypted. The definition is JSON, checked when it is made, and versioned."
	sed -n '/^SELECT weir.create_pipeline/,$p' "$SCRATCH/src/test/demo/story.sql" | fold -s -w 110
	demo_psql -v cloud="$ADDRESS" -f "$SCRATCH/src/test/demo/story.sql" >/dev/null
	show "SELECT name, owner, current_version, next_load_status FROM weir.pipelines;"

	section "2. The first run: the Databricks job fails half-way" \
"ADF copies real data and stamps it with row_audit_id. The local cloud is told to let the job's second task fail after 2,000 rows."
	fault '{"fault": "task_fails", "job_id": "101", "task_key": "load_flights", "after_rows": 2000,
		"message": "SparkException: Job aborted due to stage failure: ExecutorLostFailure"}'
	trigger load_flights
	origin=$RUN
	wait_run failed

	section "3. What the run log knows" \
"The copy succeeded and is counted. The job's own words are there. What failed came after landing, so the next start must do D: resume after landing."
	tasks
	show "SELECT activity, code, failure_type, left(message, 100) AS message FROM weir.errors WHERE run_id = $RUN;"
	show "SELECT activity, activity_type, status, rows_read, rows_copied FROM weir.activities WHERE run_id = $RUN;"
	show "SELECT run_id, status, start_status, next_load_status, row_audit_id FROM weir.runs WHERE run_id = $RUN;"
	say "The cloud's own ledger:"
	ledger
	expect "SELECT next_load_status FROM weir.runs WHERE run_id = $RUN" D

	section "4. Start again: nothing is copied twice" \
"The same call. weir answers D by itself: the copy is reused, the failed Databricks run is repaired (only its failed task runs again) and everything keeps the row_audit_id of the run that landed the data."
	trigger load_flights
	wait_run succeeded
	tasks
	show "SELECT run_id, status, start_status, next_load_status, row_audit_id FROM weir.runs
WHERE pipeline_name = 'load_flights' ORDER BY run_id;"
	say "The cloud's own ledger: still one copy, one job run, and now one repair."
	ledger
	echo
	say "The counts agree from the source to the published table:"
	show "SELECT (SELECT rows_read FROM weir.task_runs WHERE run_id = $origin AND task_name = 'copy_flights') AS source,
       (SELECT rows_written FROM weir.task_runs WHERE run_id = $origin AND task_name = 'copy_flights') AS landed,
       (SELECT count(*) FROM staging.flights WHERE row_audit_id = $origin) AS staged,
       (SELECT count(*) FROM public.flights WHERE row_audit_id = $origin) AS published;"
	expect "SELECT count(*) = 4334 FROM public.flights WHERE row_audit_id = $origin" t
	expect "SELECT row_audit_id = $origin FROM weir.runs WHERE run_id = $RUN" t

	section "5. kill -9 in the middle of a third run" \
"The conductor is killed while Databricks works. The intent to start the job was committed before the job was started, so after the restart weir finds its run again instead of starting another."
	trigger load_flights
	third=$RUN
	wait_until "SELECT EXISTS (SELECT FROM weir.task_runs WHERE run_id = $RUN AND task_name = 'transform_flights'
		AND status = 'running' AND external_run_id IS NOT NULL)"
	kill_conductor
	wait_run succeeded
	tasks
	say "The cloud's own ledger: one more copy and one more job run, as for any run."
	ledger
	echo
	show "SELECT row_audit_id, count(*) AS published FROM public.flights GROUP BY row_audit_id ORDER BY row_audit_id;"
	expect "SELECT count(*) = 4334 FROM public.flights WHERE row_audit_id = $third" t
}

story_sql()
{
	local number=$1
	section "$number. A pipeline of SQL tasks only" \
"No cloud at all. Every task and the record of its outcome are one transaction, run as the pipeline's owner."
	demo_psql -f "$SCRATCH/src/test/demo/story-sql.sql" >/dev/null
	trigger load_orders
	wait_run succeeded
	tasks
	show "SELECT * FROM public.order_totals;"
	expect "SELECT agree FROM public.order_totals WHERE row_audit_id = $RUN" t
	say "A rolled-back trigger leaves nothing:"
	show "BEGIN; SELECT weir.trigger('load_orders'); ROLLBACK;"
	show "SELECT count(*) AS runs FROM weir.runs WHERE pipeline_name = 'load_orders';"
	expect "SELECT count(*) FROM weir.runs WHERE pipeline_name = 'load_orders'" 1

	section "$((number + 1)). kill -9 while a SQL task runs" \
"Step two is running when the conductor is killed and the whole server restarts. What was committed stays done; what was not is done again; nothing is done twice."
	trigger three_steps
	wait_until "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'demo' AND wait_event = 'PgSleep')"
	kill_conductor
	wait_run succeeded
	tasks
	show "SELECT step, count(*) FROM public.steps_done WHERE run_id = $RUN GROUP BY step ORDER BY min(done_at);"
	expect "SELECT string_agg(step, ' ' ORDER BY done_at) FROM public.steps_done WHERE run_id = $RUN" "one two three"
}

# --- main -----------------------------------------------------------------------

case ${1:-} in
	'') ;;
	--stop) choose_user; stop_earlier; exit ;;
	*) die "unknown option $1" ;;
esac

START=$SECONDS
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
weir_prepare
stop_earlier
weir_scratch demo
echo "$SCRATCH" >"$MARK"
as_user sh -c 'echo "$2" >"$1"' sh "$SCRATCH/bindir" "$SERVER_BIN"
say "weir with PostgreSQL $SERVER_MAJOR, in $SCRATCH"
weir_copy_sources
weir_copy_server
weir_build >"$SCRATCH/build.log" 2>&1 || { tail -n 40 "$SCRATCH/build.log"; exit 1; }
start_server
say "built, installed into a private copy of PostgreSQL, started ($((SECONDS - START)) s)"

if [ "$CLOUD" = no ]; then
	story_sql 1
else
	start_cloud
	story_flights
	story_sql 6
fi

section "The end, after $((SECONDS - START)) seconds"
if [ -n "${DEMO_STOP:-${CI:-}}" ]; then
	stop_earlier
	say "Everything was stopped and removed."
	exit
fi
say "Still running: the server${CLOUD_PID:+ and the local cloud}. Play on, as an ordinary database user:"
say
say "    psql 'host=127.0.0.1 port=$PORT dbname=demo user=demo password=$PASSWORD'"
say
say "    SELECT weir.trigger('load_orders');"
say "    SELECT * FROM weir.runs;"
say "    SELECT * FROM weir.status;"
say
say "Stop and remove it with:    make demo-stop"
