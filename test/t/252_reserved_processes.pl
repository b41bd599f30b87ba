# SQL workers leave a reserve of max_worker_processes to parallel queries and
# whoever else needs some: with all they may have at work, and while they come
# and go.  What waits for it says so, and ends.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub sql { my ($name, $sql) = @_; return { name => $name, kind => 'sql', spec => { sql => $sql } } }
sub gate { return "SELECT pg_advisory_xact_lock_shared($_[0])" }
sub close_gate { return value("BEGIN; SELECT pg_advisory_xact_lock($_[0]); PREPARE TRANSACTION 'gate $_[0]'") }
sub open_gate { return value("ROLLBACK PREPARED 'gate $_[0]'") }
sub why { return value("SELECT string_agg(DISTINCT concat_ws(': ', waiting_for, detail, hint), E'\\n') FROM weir.why($_[0]) WHERE task IS NOT NULL") }
sub workers { return value("SELECT detail FROM weir.status WHERE component = 'sql_workers'") }
sub wait_workers { my ($what, $like) = @_; return ok(wait_until($node, $what, "SELECT detail LIKE '$like' FROM weir.status WHERE component = 'sql_workers'"), $what) || diag(workers()) }
sub wait_processes { my ($n) = @_; return ok(wait_until($node, "$n SQL workers are left", "SELECT count(*) = $n FROM pg_stat_activity WHERE backend_type = 'weir SQL worker'"), "$n SQL workers are left") }
sub in_log { my ($like, $what) = @_; return like(PostgreSQL::Test::Utils::slurp_file($node->logfile), $like, $what) }

# As many are at the gate, and nobody else is on the way: a run that began later has passed.
sub at_gate
{
	my ($n) = @_;
	wait_until($node, "$n at the gate", "SELECT count(*) = $n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
	is(wait_for_run($node, weir_trigger($node, 'pass')), 'succeeded', 'a run that needs no worker');
	return is(value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'weir SQL worker'"), $n, "$n SQL workers");
}

sub reserve
{
	my ($n) = @_;
	value("ALTER SYSTEM SET weir.reserved_worker_processes = $n");
	return value('SELECT pg_reload_conf()');
}

sub pipeline
{
	my ($name, $tasks, $role) = @_;
	my $definition = JSON::PP->new->canonical->ascii->encode({ tasks => $tasks, max_concurrent_runs => 10 });
	return value((defined $role ? "SET ROLE $role; " : '') . "SELECT weir.create_pipeline('$name', '$definition')");
}

# "2 of 2": workers that a parallel query got, of those it was to have; of several, each answer.
sub parallel
{
	my ($workers, $times) = @_;
	my $plans = value("SET max_parallel_workers_per_gather = $workers; SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;"
		. 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT sum(i) FROM public.many;' x ($times // 1));
	my @answers;
	push @answers, "$2 of $1" while $plans =~ /Workers Planned: (\d+)\s+Workers Launched: (\d+)/g;
	return @answers;
}

sub set_up
{
	my ($name, $conf) = @_;
	$node = weir_node($name, conf => $conf);
	value('CREATE TABLE public.many WITH (parallel_workers = 4) AS SELECT i FROM generate_series(1, 10000) i; ANALYZE public.many');
	pipeline('pass', [ { name => 'a', kind => 'noop' } ]);
	return pipeline('gated', [ map { sql("g$_", gate(1)) } (1 .. 9) ]);
}

# --- as many SQL workers as PostgreSQL has processes: three, beside launcher and conductor and a reserve of three
set_up('reserve', "max_worker_processes = 8\nweir.max_sql_workers = 8\nweir.sql_worker_idle_timeout = '1h'\n");
close_gate(1);
my $run = weir_trigger($node, 'gated');
at_gate(3);
in_log(qr/LOG:  weir runs at most 3 SQL workers, not weir\.max_sql_workers \(8\)/, 'a word at the start');
is(join(', ', parallel(2)), '2 of 2', 'a parallel query has its workers');
like(why($run), qr/^SQL worker: all 3 SQL workers that max_worker_processes \(8\) has room for beside weir\.reserved_worker_processes \(3\) have a task of run $run; task runs waiting before it: 0: Raise max_worker_processes, or lower weir\.reserved_worker_processes\.$/m,
	'what waits says why');
is(workers(), '3 busy, 0 idle, 0 starting in this database; 3 of at most 3 in all, which is what max_worker_processes (8) has room for beside weir.reserved_worker_processes (3)', 'so does weir.status');
is(value("SELECT DISTINCT limits FROM weir.plan('gated') WHERE kind = 'sql'"), 'weir.reserved_worker_processes 3 leaves 3 SQL workers, 3 at work now', 'and a plan');
open_gate(1);
is(wait_for_run($node, $run), 'succeeded', 'all have their turn');

# --- the conductor of another database has its place too
value('CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION weir');
wait_until($node, 'it conducts', "SELECT state = 'running' FROM weir.status WHERE component = 'conductor'", dbname => 'other');
wait_processes(2);
like(workers(), qr/; 2 of at most 2 in all, /, 'one SQL worker less');
value('DROP DATABASE other');
wait_workers('and one more', '%; 2 of at most 3 in all, %');

# --- no reserve: then all are taken, and that is waited for, too
reserve(0);
close_gate(1);
$run = weir_trigger($node, 'gated');
wait_until($node, 'none can be started', "SELECT count(*) > 0 FROM weir.why($run) WHERE detail LIKE 'no SQL worker can be started since %: all max_worker_processes (8) are taken%'");
at_gate(5);
is(join(', ', parallel(2)), '0 of 2', 'a parallel query runs alone');

# --- it comes back: no task is ended for it, but warm workers go
reserve(3);
wait_workers('more than there may be', '%; 5 of at most 3 in all, %');
at_gate(5);
open_gate(1);
is(wait_for_run($node, $run), 'succeeded', 'all have their turn');
is(value("SELECT count(*) || ' ' || max(attempt_no) FROM weir.attempt WHERE run_id = $run"), '9 1', 'at the first attempt');
wait_processes(3);
is(join(', ', parallel(2)), '2 of 2', 'a parallel query has its workers again');

# --- with one of them, tasks of two owners take its place in turns: who leaves counts until it is gone
reserve(5);
wait_processes(1);
foreach my $role ('left', 'right')
{
	value("CREATE ROLE $role LOGIN; GRANT weir_admin TO $role");
	pipeline($role, [ map { sql("t$_", 'SELECT 1') } (1 .. 30) ], $role);
}
my @runs = map { weir_trigger($node, $_) } ('left', 'right');
my %seen;
do { $seen{$_}++ foreach parallel(4, 20) } while (value("SELECT count(*) > 0 FROM weir.run WHERE run_id IN ($runs[0], $runs[1]) AND status IN ('queued', 'running')") eq 't');
is(join(', ', sort keys %seen), '4 of 4', 'parallel queries meanwhile');
note(join(', ', map { "$_: $seen{$_}" } sort keys %seen));
is(wait_for_run($node, $_), 'succeeded', 'all pass') foreach @runs;
cmp_ok(value("SELECT count(DISTINCT worker_pid) FROM weir.attempt WHERE run_id IN ($runs[0], $runs[1])"), '>', 10, 'in many workers, one after the other');
is(value('SELECT max(attempt_no) FROM weir.attempt'), '1', 'none had to be tried twice');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
$node->stop;

# --- no room for a reserve: one SQL worker there is
set_up('scarce', "max_worker_processes = 4\nweir.sql_worker_idle_timeout = '1h'\n");
close_gate(1);
$run = weir_trigger($node, 'gated');
at_gate(1);
in_log(qr/WARNING:  max_worker_processes \(4\) has no room for weir\.reserved_worker_processes \(3\), the launcher, a conductor and a SQL worker/, 'a warning at the start');
like(why($run), qr/^SQL worker: all 1 SQL workers that max_worker_processes \(4\) has room for beside weir\.reserved_worker_processes \(3\) have a task of run $run;/m, 'what waits says why');
open_gate(1);
is(wait_for_run($node, $run), 'succeeded', 'one after the other');
is(value('SELECT count(DISTINCT worker_pid) FROM weir.attempt WHERE worker_pid IS NOT NULL'), '1', 'by one worker');
$node->stop;
done_testing();
