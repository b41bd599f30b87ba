# SQL tasks: values are values, owners are owners, an attempt happens once or
# not at all, and one run does not disturb another.
#
# Where a task must still be running, it waits for an advisory lock that a
# prepared transaction holds.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('sqltasks');

$node->safe_psql('postgres', q{
	CREATE ROLE loader LOGIN IN ROLE weir_admin;
	CREATE ROLE chief SUPERUSER LOGIN;
	GRANT CREATE ON SCHEMA public TO loader;
	CREATE TABLE landed (id serial PRIMARY KEY, run_id bigint, what text);
	GRANT ALL ON landed TO loader;
	GRANT USAGE ON SEQUENCE landed_id_seq TO loader;
});

sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

sub task
{
	my ($name, $sql, %more) = @_;
	return { name => $name, kind => 'sql', spec => { sql => $sql }, %more };
}

# Create a pipeline of loader; parts of the definition beside tasks in %more.
sub pipeline
{
	my ($name, $tasks, %more) = @_;
	my $definition = literal($json->encode({ tasks => $tasks, %more }));
	$node->safe_psql('postgres', "SET ROLE loader; SELECT weir.create_pipeline('$name', $definition)");
	return;
}

sub value { return $node->safe_psql('postgres', $_[0]) }

sub attempts
{
	my ($run) = @_;
	return value("SELECT string_agg(a.status || coalesce(' ' || a.sqlstate, ''), ', ' ORDER BY a.task_run_id, a.attempt_no)"
		. " FROM weir.attempt a WHERE a.run_id = $run");
}

sub close_gate { value("BEGIN; SELECT pg_advisory_xact_lock($_[0]); PREPARE TRANSACTION 'gate $_[0]'"); return }
sub open_gate { value("ROLLBACK PREPARED 'gate $_[0]'"); return }

sub at_gate
{
	wait_until($node, 'the task waits at the gate',
		"SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = $_[0] AND NOT granted");
	return;
}

# --- values
my @hostile = (
	q{x'); DROP TABLE landed; --}, q{$1 $$ $body$}, q{\\' E'\\'' "}, q{{{params.other}}}, "two\nlines\t", "na\x{ef}ve \x{1f4a7}", '');
pipeline('values', [ task('put', 'INSERT INTO landed (run_id, what) VALUES ({{run.id}}, {{params.what}})') ],
	parameters => { what => { type => 'text', required => JSON::PP::true } });
foreach my $value (@hostile)
{
	my $literal = literal($json->encode({ what => $value }));
	my $run = value("SELECT weir.trigger('values', $literal)");
	is(wait_for_run($node, $run), 'succeeded', 'a run with a hostile value');
	is(value("SELECT what = ${literal}::jsonb->>'what' FROM landed WHERE run_id = $run"), 't', 'the value arrived as it is');
}

# --- the owner, and nobody else
pipeline('who', [ task('put', 'INSERT INTO landed (run_id, what) VALUES ({{run.id}}, current_user || session_user)') ]);
my $run = weir_trigger($node, 'who');
is(wait_for_run($node, $run), 'succeeded', 'triggered by a superuser');
is(value("SELECT what FROM landed WHERE run_id = $run"), 'loaderloader', 'runs as the owner');
my @escapes = (
	'SET ROLE chief', 'SET SESSION AUTHORIZATION chief',
	"SELECT set_config('role', 'chief', false)",
	'RESET SESSION AUTHORIZATION; RESET ROLE; CREATE ROLE intruder',
	'SET SESSION AUTHORIZATION DEFAULT; ALTER ROLE loader SUPERUSER',
	"UPDATE weir.pipeline SET is_paused = true", "SELECT * FROM weir.secret");
foreach my $n (0 .. $#escapes)
{
	pipeline("escape_$n", [ task('try', $escapes[$n]) ]);
	$run = weir_trigger($node, "escape_$n");
	is(wait_for_run($node, $run), 'failed', "refused: $escapes[$n]");
	is(attempts($run), 'failed 42501', 'for want of privilege');
}
is(value("SELECT count(*) FROM pg_roles WHERE rolname = 'intruder' OR rolname = 'loader' AND rolsuper"), '0', 'nothing came of it');

# --- an attempt happens or it does not
pipeline('fails', [ task('put', "INSERT INTO landed (run_id, what) VALUES ({{run.id}}, 'half'); SELECT 1 / 0") ]);
$run = weir_trigger($node, 'fails');
is(wait_for_run($node, $run), 'failed', 'the second statement fails');
is(attempts($run), 'failed 22012', 'with its SQLSTATE');
is(value("SELECT count(*) FROM landed WHERE run_id = $run"), '0', 'the first left nothing');
is(value("SELECT code || ' ' || message FROM weir.error WHERE run_id = $run"), '22012 division by zero', 'the error is logged');

value('CREATE TABLE parent (id integer PRIMARY KEY);'
	. ' CREATE TABLE child (id integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON parent, child TO loader');
pipeline('deferred', [ task('put', 'INSERT INTO child VALUES (1)') ]);
$run = weir_trigger($node, 'deferred');
is(wait_for_run($node, $run), 'failed', 'a deferred constraint is checked');
is(attempts($run), 'failed 23503', 'before the outcome is written');
is(value('SELECT count(*) FROM child'), '0', 'nothing is left');

pipeline('commits', [ task('put', "INSERT INTO landed (run_id, what) VALUES ({{run.id}}, 'committed'); DO \$\$ BEGIN COMMIT; END \$\$") ]);
$run = weir_trigger($node, 'commits');
is(wait_for_run($node, $run), 'failed', 'a task may not commit');
is(value("SELECT count(*) FROM landed WHERE run_id = $run"), '0', 'nor keep what it did');

# --- retry: a sequence goes on after a rollback, so the second attempt is told apart
value('CREATE SEQUENCE tries; GRANT ALL ON SEQUENCE tries TO loader');
pipeline('retries', [ task('try', "INSERT INTO landed (run_id, what) SELECT {{run.id}}, (1 / (nextval('tries') - 1))::text") ],
	retry => { max_attempts => 3, initial_delay => '100 milliseconds', jitter => 0 });
$run = weir_trigger($node, 'retries');
is(wait_for_run($node, $run), 'succeeded', 'the retry succeeds');
is(attempts($run), 'failed 22012, succeeded', 'at the second attempt');
is(value("SELECT count(*) FROM landed WHERE run_id = $run"), '1', 'the effect is there once');
is(value("SELECT b.intended_at - a.ended_at >= '100 milliseconds' FROM weir.attempt a JOIN weir.attempt b USING (task_run_id)"
		. " WHERE a.run_id = $run AND a.attempt_no = 1 AND b.attempt_no = 2"), 't', 'after the delay');

# --- timeout and cancel
close_gate(1);
pipeline('slow', [ task('wait', "INSERT INTO landed (run_id, what) SELECT {{run.id}}, 'slow' FROM pg_advisory_xact_lock_shared(1)",
	timeout => '500 milliseconds') ]);
$run = weir_trigger($node, 'slow');
is(wait_for_run($node, $run), 'failed', 'the attempt timeout strikes');
is(value("SELECT status FROM weir.attempt WHERE run_id = $run"), 'timed_out', 'and the attempt says so');
is(value("SELECT count(*) FROM landed WHERE run_id = $run"), '0', 'nothing is left');

pipeline('long', [ task('wait', "INSERT INTO landed (run_id, what) SELECT {{run.id}}, 'long' FROM pg_advisory_xact_lock_shared(1)"),
	task('after', 'SELECT 1', depends_on => ['wait']) ]);
$run = weir_trigger($node, 'long');
at_gate(1);
is(value("SELECT weir.cancel($run, 'not today')"), 't', 'a running task is cancelled');
is(wait_for_run($node, $run), 'cancelled', 'the run ends');
is(value("SELECT string_agg(status, ',' ORDER BY task_no) FROM weir.task_run WHERE run_id = $run"), 'cancelled,cancelled', 'with its tasks');
is(value("SELECT weir.cancel($run)"), 'f', 'it cannot be cancelled twice');

# --- runs of one pipeline queue, others go on
my $first = weir_trigger($node, 'long');
at_gate(1);
my $second = weir_trigger($node, 'long');
is(wait_for_run($node, weir_trigger($node, 'who')), 'succeeded', 'another pipeline passes');
is(value("SELECT string_agg(status, ',' ORDER BY run_id) FROM weir.run WHERE run_id IN ($first, $second)"), 'running,queued', 'one runs, one is queued');
open_gate(1);
is(wait_for_run($node, $_), 'succeeded', 'both finish') foreach ($first, $second);
is(value("SELECT s.started_at >= f.ended_at FROM weir.run f, weir.run s WHERE f.run_id = $first AND s.run_id = $second"), 't', 'one after the other');

# --- a trigger rolled back
value("BEGIN; SELECT weir.trigger('who', '{}', trigger_name => 'rolled back'); ROLLBACK");
is(wait_for_run($node, weir_trigger($node, 'who')), 'succeeded', 'a run after a trigger rolled back');
is(value("SELECT count(*) FROM weir.run WHERE trigger_name = 'rolled back'"), '0', 'which left nothing');

# --- fan-out and join
foreach my $kind ('sql', 'noop')
{
	my @tasks = map {
		$kind eq 'sql'
		  ? task("t$_", "INSERT INTO landed (run_id, what) VALUES ({{run.id}}, 'fan')", depends_on => ['root'])
		  : { name => "t$_", kind => 'noop', spec => {}, depends_on => ['root'] }
	} (1 .. 100);
	pipeline("fan_$kind", [ { name => 'root', kind => 'noop', spec => {} }, @tasks,
		task('join', "INSERT INTO landed (run_id, what) SELECT {{run.id}}, 'join ' || count(*) FROM landed WHERE run_id = {{run.id}}",
			depends_on => [ map { "t$_" } (1 .. 100) ]) ]);
	$run = weir_trigger($node, "fan_$kind");
	is(wait_for_run($node, $run), 'succeeded', "100 tasks fan out and join: $kind");
	is(value("SELECT count(*) FROM weir.attempt WHERE run_id = $run AND status = 'succeeded'"), '102', 'one attempt each');
	is(value("SELECT what FROM landed WHERE run_id = $run AND what LIKE 'join%'"), $kind eq 'sql' ? 'join 100' : 'join 0', 'the join came last');
}

# --- a client that holds a pipeline's row open
value("BEGIN; SELECT weir.skip_once('values'); PREPARE TRANSACTION 'held'");
is(wait_for_run($node, weir_trigger($node, 'who')), 'succeeded', 'a row held open does not stall other pipelines');
my $held = weir_trigger($node, 'values', params => '{"what": "held"}');
is(wait_for_run($node, weir_trigger($node, 'who')), 'succeeded', 'not even with a run of that pipeline queued');
is(value("SELECT status FROM weir.run WHERE run_id = $held"), 'queued', 'which waits');
value("ROLLBACK PREPARED 'held'");
# A rollback tells nobody; the next trigger or deadline does.
is(wait_for_run($node, weir_trigger($node, 'who')), 'succeeded', 'another run after that');
is(wait_for_run($node, $held), 'succeeded', 'then it runs');

# --- a pipeline that nobody has analyzed: a task is found by its key, not among all tasks
value("ALTER TABLE weir.task SET (autovacuum_enabled = off); DELETE FROM pg_statistic WHERE starelid = 'weir.task'::regclass");
pipeline('unanalyzed', [ task('t0', 'SELECT 1'), map { task("t$_", 'SELECT 1', depends_on => [ 't' . ($_ - 1) ]) } (1 .. 150) ]);
my $looked_at = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relid = 'weir.task'::regclass";
my $before = value($looked_at);
is(wait_for_run($node, weir_trigger($node, 'unanalyzed')), 'succeeded', 'a chain of 151 tasks');
cmp_ok(value($looked_at) - $before, '<', 20 * 151, 'a few tasks are looked at for each');
value("ALTER TABLE weir.task RESET (autovacuum_enabled)");

# --- sessions of the pool are clean
value("ALTER SYSTEM SET weir.max_sql_workers = 1");
$node->stop;
$node->start;
pipeline('dirty', [ task('soil', "SET work_mem = '77MB'; SET search_path = weir; CREATE TEMP TABLE leak (a integer); SELECT pg_advisory_lock(4711); PREPARE p AS SELECT 1") ]);
pipeline('clean', [ task('look', "INSERT INTO landed (run_id, what) SELECT {{run.id}}, concat_ws(',', current_setting('work_mem'), current_setting('search_path'),"
	. " to_regclass('pg_temp.leak'), (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711), pg_backend_pid())") ]);
$run = weir_trigger($node, 'dirty');
is(wait_for_run($node, $run), 'succeeded', 'a task soils its session');
my $pid = value("SELECT worker_pid FROM weir.attempt WHERE run_id = $run");
$run = weir_trigger($node, 'clean');
is(wait_for_run($node, $run), 'succeeded', 'another one looks');
is(value("SELECT what FROM landed WHERE run_id = $run"), qq{4MB,"\$user", public,0,0,$pid}, 'the same session, clean');

done_testing();
