# A run that is repaired takes a place among those of its pipeline, and of its
# backfill: until there is one it waits, and goes before what is queued.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('repair_places', conf => "weir.max_sql_workers = 6\n");

sub value { return $node->safe_psql('postgres', $_[0]) }
sub error_of { my ($result, $out, $error) = $node->psql('postgres', $_[0]); return $error }
sub status { return value("SELECT status FROM weir.run WHERE run_id = $_[0]") }
sub close_gate { return value("BEGIN; SELECT pg_advisory_xact_lock($_[0]); PREPARE TRANSACTION 'gate $_[0]'") }
sub open_gate { return value("ROLLBACK PREPARED 'gate $_[0]'") }
sub why { return value("SELECT string_agg(waiting_for || ': ' || detail, E'\\n') FROM weir.why($_[0]) WHERE detail LIKE 'repair%'") }
sub wait_why { my ($run, $detail, $what) = @_; return ok(wait_until($node, $what, "SELECT string_agg(waiting_for || ': ' || detail, E'\\n') FROM weir.why($run) WHERE detail LIKE 'repair%'", expected => $detail), $what) }
sub in_between { return is(wait_for_run($node, weir_trigger($node, 'other')), 'succeeded', 'a run in between') }

# Lands, then fails while the divisor of its key is 0, then waits at the gate of its key.
value(q{
	CREATE TABLE public.part (key integer PRIMARY KEY, divisor integer NOT NULL);
	INSERT INTO public.part SELECT n, 0 FROM generate_series(0, 9) n;
	CREATE TABLE public.landed (key integer, audit bigint)});
my $tasks = q([{"name": "land", "kind": "sql", "phase": "land", "spec": {"sql": "INSERT INTO public.landed VALUES ({{params.key}}, {{row_audit_id}})"}},
	{"name": "load", "kind": "sql", "depends_on": ["land"], "spec": {"sql": "SELECT 1 / divisor FROM public.part WHERE key = {{params.key}}"}},
	{"name": "hold", "kind": "sql", "depends_on": ["load"], "spec": {"sql": "SELECT pg_advisory_xact_lock_shared({{params.key}})"}}]);
sub define { my ($name, $runs) = @_; return value(qq{SELECT weir.create_pipeline('$name', '{"max_concurrent_runs": $runs, "parameters": {"key": {"type": "bigint", "default": 0}}, "tasks": $tasks}')}) }
sub start { my ($name, $key) = @_; return weir_trigger($node, $name, params => qq({"key": $key})) }
sub may { return value("UPDATE public.part SET divisor = 1 WHERE key = $_[0]") }
value(q{SELECT weir.create_pipeline('other', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1"}}]}')});

# --- side by side: any of them, not only the latest, as long as there are places
define('regions', 2);
my @runs = map { start('regions', $_) } (1 .. 4);
is(wait_for_run($node, $_), 'failed', 'each fails after landing') foreach @runs;
may($_) foreach (1 .. 4);
close_gate($_) foreach (1 .. 4);
value("SELECT weir.repair($_)") foreach @runs[0 .. 3];
wait_until($node, 'two go on', "SELECT string_agg(run_id::text, ' ' ORDER BY run_id) FROM weir.run WHERE status = 'running'", expected => "$runs[0] $runs[1]");
in_between();
is(join(' ', map { status($_) } @runs), 'running running failed failed', 'two of four repairs, those asked for first');
is(why($runs[2]), "run: repair was asked for by " . value('SELECT current_user') . "; runs $runs[0], $runs[1] of pipeline \"regions\" have not ended and max_concurrent_runs is 2", 'why the third waits');
like(value("SELECT hint FROM weir.why($runs[2]) WHERE detail LIKE 'repair%'"), qr/weir\.cancel\($runs[2]\)/, 'and how to give it up');

# --- a queued run waits behind it; a crash forgets nothing; what waits is given up
my $queued = start('regions', 5);
may(5);
kill9_backend($node, 'weir conductor');
in_between();
is(join(' ', map { status($_) } @runs, $queued), 'running running failed failed queued', 'after a kill -9');
is(value("SELECT weir.cancel($runs[3])"), 't', 'the fourth is given up');
wait_until($node, 'its request is gone', "SELECT NOT EXISTS (SELECT FROM weir.request WHERE run_id = $runs[3])");
is(status($runs[3]), 'failed', 'and it is as it was');
open_gate(1);
is(wait_for_run($node, $runs[0]), 'succeeded', 'the first ends');
wait_until($node, 'the third goes on', "SELECT status FROM weir.run WHERE run_id = $runs[2]", expected => 'running');
in_between();
is(status($queued), 'queued', 'before what is queued');
open_gate($_) foreach (2, 3);
is(wait_for_run($node, $_), 'succeeded', 'all end') foreach (@runs[1, 2], $queued);
is(value("SELECT string_agg(key || ' ' || audit, ', ' ORDER BY key) FROM public.landed WHERE key < 5"), join(', ', map { ($_ + 1) . " $runs[$_]" } 0 .. 3), 'nothing landed twice');
is(value("SELECT string_agg(run_id || ' ' || row_audit_id, ', ' ORDER BY run_id) FROM weir.run WHERE pipeline_name = 'regions' AND status = 'succeeded'"),
	join(', ', map { "$_ $_" } @runs[0 .. 2], $queued), 'each with its own row audit id');

# --- what another run has resumed is that one's to repair
value('UPDATE public.part SET divisor = 0');
my $again = start('regions', 4);
is(wait_for_run($node, $again), 'failed', 'a run that resumes the landing of the fourth');
is(value("SELECT start_status::text || row_audit_id FROM weir.run WHERE run_id = $again"), "D$runs[3]", 'and has it now');
like(error_of("SELECT weir.repair($runs[3])"), qr/run $runs[3] cannot be repaired.*Run $again went on with what it landed.*SELECT weir\.repair\($again\)/s, 'the one before cannot go on');
may(4);
value("SELECT weir.repair($again)");
open_gate(4);
is(wait_for_run($node, $again), 'succeeded', 'the latter can');

# --- one at a time: only the latest
define('single', 1);
my $first = start('single', 6);
is(wait_for_run($node, $first), 'failed', 'a failure');
my $second = start('single', 7);
is(wait_for_run($node, $second), 'failed', 'and another');
like(error_of("SELECT weir.repair($first)"), qr/run $first cannot be repaired.*Run $second of the pipeline started later.*weir\.restart/s, 'the earlier one cannot be repaired');
is(value('SELECT count(*) FROM weir.request'), '0', 'errors change nothing');

# --- a repair waits for a partial run, and is refused if something else starts first
may($_) foreach (6 .. 9);
close_gate(7);
my $part = value(qq{SELECT weir.trigger('single', '{"key": 7}', tasks => '{hold}')});
wait_for_status($node, $part, 'hold', 'running');
value("SELECT weir.repair($second)");
wait_why($second, "run: repair was asked for by " . value('SELECT current_user') . "; run $part of pipeline \"single\" has not ended and max_concurrent_runs is 1", 'it waits for the partial run');
is(status($second), 'failed', 'and is as it was');
open_gate(7);
is(wait_for_run($node, $part), 'succeeded', 'the partial run ends');
is(wait_for_run($node, $second), 'succeeded', 'then the repair goes on');

# --- windows: within the concurrency of their backfill
value('UPDATE public.part SET divisor = 0');
define('daily', 4);
my $backfill = value(q{SELECT weir.backfill('daily', '2026-01-01', '2026-01-06', '1 day', '{"key": 8}', concurrency => 2)});
wait_until($node, 'all windows fail', "SELECT count(*) = 5 FROM weir.run WHERE backfill_id = $backfill AND status = 'failed'");
may(8);
close_gate(8);
my @windows = split /\n/, value("SELECT run_id FROM weir.run WHERE backfill_id = $backfill ORDER BY run_id");
value("SELECT weir.repair(run_id) FROM weir.run WHERE backfill_id = $backfill ORDER BY run_id");
wait_until($node, 'two windows go on', "SELECT count(*) = 2 FROM weir.run WHERE backfill_id = $backfill AND status = 'running'");
in_between();
is(join(' ', map { status($_) } @windows), 'running running failed failed failed', 'two of five windows');
is(why($windows[2]), "run: repair was asked for by " . value('SELECT current_user') . "; 2 windows of backfill $backfill go on and its concurrency is 2", 'why the third waits');
may(9);
my $other = start('daily', 9);
is(wait_for_run($node, $other), 'succeeded', 'the pipeline has places for others');
open_gate(8);
is(wait_for_run($node, $_), 'succeeded', 'all windows pass') foreach @windows;
is(value("SELECT count(DISTINCT audit) FROM public.landed WHERE key = 8"), '5', 'with the row audit ids they had');

# --- a restart of a window goes on with what the window landed; then the window itself cannot
value('UPDATE public.part SET divisor = 0; TRUNCATE public.landed');
$backfill = value(q{SELECT weir.backfill('daily', '2026-02-01', '2026-02-02', '1 day', '{"key": 1}')});
my $window = value("SELECT run_id FROM weir.run WHERE backfill_id = $backfill");
is(wait_for_run($node, $window), 'failed', 'a window fails after landing');
is(value("SELECT next_load_status FROM weir.runs WHERE run_id = $window"), 'D', 'which its own restart knows');
is(value("SELECT next_load_status FROM weir.pipelines WHERE name = 'daily'"), 'P', 'and nobody else');
my $restart = value("SELECT weir.restart($window)");
is(wait_for_run($node, $restart), 'failed', 'a restart that fails too');
like(error_of("SELECT weir.repair($window)"), qr/Run $restart went on with what it landed/, 'it has the landing now');
may(1);
my $restarted = value("SELECT weir.restart($restart)");
is(wait_for_run($node, $restarted), 'succeeded', 'the restart of a restart');
is(value("SELECT string_agg(start_status::text || row_audit_id || window_start::date, ' ' ORDER BY run_id) FROM weir.run WHERE run_id IN ($window, $restart, $restarted)"),
	"E${window}2026-02-01 D${window}2026-02-01 D${window}2026-02-01", 'all with the row audit id of the landing');
is(value('SELECT count(*) FROM public.landed'), '1', 'which landed once');
is(wait_for_run($node, value("SELECT weir.restart($window)")), 'succeeded', 'one more, when that is done with');
is(value('SELECT string_agg(DISTINCT audit::text, \' \' ORDER BY audit::text) FROM public.landed'), join(' ', sort $window, value('SELECT max(run_id) FROM weir.run')), 'lands anew');

# --- so does that of a partial run
value('UPDATE public.part SET divisor = 0; TRUNCATE public.landed');
$part = value(q{SELECT weir.trigger('single', '{"key": 2}', tasks => '{land,load}')});
is(wait_for_run($node, $part), 'failed', 'a partial run fails after landing');
may(2);
$restart = value("SELECT weir.restart($part)");
is(wait_for_run($node, $restart), 'succeeded', 'its restart');
is(value("SELECT string_agg(task_name || ' ' || status, ', ' ORDER BY task_no) FROM weir.task_run WHERE run_id = $restart"), 'land reused, load succeeded, hold skipped', 'reuses what landed');
is(value('SELECT string_agg(audit::text, \' \') FROM public.landed'), $part, 'with its row audit id');

# --- no two go on with one landing: what resumed it while the repair was being asked for goes first, and has it then
define('raced', 2);
$first = start('raced', 3);
is(wait_for_run($node, $first), 'failed', 'a run fails after landing');
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
$session->query_safe("SELECT weir.repair($first)");
my ($execution, $resumes, $landing) = split /\|/, value(q{SELECT "ExecutionID", "ExecutionStatus", "RowAuditID" FROM weir.log_execution_start('raced')});
is("$resumes $landing", "D $first", 'an outside orchestrator resumes its landing');
$session->query_safe('COMMIT');
$session->quit;
wait_why($first, "run: repair was asked for by " . value('SELECT current_user') . "; run $execution goes on with the same landing", 'the repair waits for it');
in_between();
is(status($first), 'failed', 'and does not go on beside it');
value("SELECT weir.log_execution_end($execution)");
ok(wait_until($node, 'the repair is refused', "SELECT count(*) = 1 FROM weir.errors WHERE run_id = $first AND code = 'repair_refused'"), 'then it is refused: the landing is that of the other one');

# --- no more wakeups than runs that end, however many repairs wait
is(value("SELECT count(*) FROM weir.request"), '0', 'nothing is left over');

done_testing();
