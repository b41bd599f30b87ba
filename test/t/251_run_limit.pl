# max_concurrent_tasks: so many tasks and items of a run at a time, whatever
# they need; over a kill -9 as well, and told by why, plan and what is expected.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('run_limit', conf => "weir.max_sql_workers = 6\nweir.http_timeout = '600s'\n");
my $cloud = weir_cloud(undef);

sub value { return $node->safe_psql('postgres', $_[0]) }
sub sql { my ($name, $sql, %more) = @_; return { name => $name, kind => 'sql', spec => { sql => $sql }, %more } }
sub pipeline { my ($name, $tasks, %more) = @_; return value("SELECT weir.create_pipeline('$name', \$j\$" . $json->encode({ tasks => $tasks, %more }) . '$j$)') }
sub close_gate { return value("BEGIN; SELECT pg_advisory_xact_lock($_[0]); PREPARE TRANSACTION 'gate $_[0]'") }
sub open_gate { return value("ROLLBACK PREPARED 'gate $_[0]'") }
sub gate { return "SELECT pg_advisory_xact_lock_shared($_[0])" }
sub running { return value("SELECT string_agg(task_name, ' ' ORDER BY task_no, item_no) FROM weir.task_run WHERE run_id = $_[0] AND status = 'running'") }

sub wait_running
{
	my ($run, $names, $what) = @_;
	wait_until($node, $what, "SELECT string_agg(task_name, ' ' ORDER BY task_no, item_no) FROM weir.task_run WHERE run_id = $run AND status = 'running'", expected => $names)
	  or die 'without that the rest means nothing';
	# What the conductor would start beside them it has started when it has run something else.
	is(wait_for_run($node, weir_trigger($node, 'other')), 'succeeded', "$what: a run in between");
	return is(running($run), $names, $what);
}

# Most that ever ran at the same time, from the log: of what counts.
sub most_of
{
	my ($run) = @_;
	return value(qq{
		SELECT max(n) FROM (SELECT (SELECT count(*) FROM weir.attempt b JOIN weir.task_run u USING (task_run_id)
			WHERE b.run_id = a.run_id AND u.kind NOT IN ('noop', 'if', 'switch', 'wait', 'for_each')
			AND b.intended_at <= a.intended_at AND coalesce(b.ended_at, 'infinity') > a.intended_at) AS n
		FROM weir.attempt a WHERE a.run_id = $run) x});
}

value("SELECT weir.create_connection('api', 'http', '" . $cloud->address . "/http')");
pipeline('other', [ sql('a', 'SELECT 1') ]);

# --- tasks of all kinds share the places of their run; what does not count goes on
pipeline('mixed', [
	sql('a', gate(1)),
	{ name => 'b', kind => 'http', connection => 'api', spec => { path => '/delay/599811' } },
	sql('c', gate(2)),
	sql('d', gate(2), priority => 10, depends_on => ['a']),
	{ name => 'e', kind => 'http', connection => 'api', priority => -10, spec => { path => '/delay/599811' } },
	{ name => 'w', kind => 'wait', spec => { signal => 'go' } },
	{ name => 'n', kind => 'noop' },
	{ name => 'i', kind => 'if', depends_on => ['n'], spec => { left => 1, op => '==', right => 1 } } ], max_concurrent_tasks => 2, max_concurrent_runs => 2);
close_gate($_) foreach (1, 2);
my $run = weir_trigger($node, 'mixed');
wait_running($run, 'a b w', 'two that count run, and one that waits');
is(value("SELECT string_agg(task_name, ' ' ORDER BY task_no) FROM weir.task_run WHERE run_id = $run AND status = 'succeeded'"), 'n i', 'what is decided at once has been');
is(value("SELECT waiting_for || ': ' || detail FROM weir.why($run) WHERE task = 'c'"),
	'run: 2 tasks of the run are running and max_concurrent_tasks is 2; task runs waiting before it: 0', 'why');

# --- another run of the same pipeline has places of its own
my $beside = weir_trigger($node, 'mixed');
wait_running($beside, 'a b w', 'another run has places of its own');

# --- a crash frees none
kill9_backend($node, 'weir conductor');
wait_running($run, 'a b w', 'after a kill -9 of the conductor');

# --- a place that becomes free goes to the higher priority
open_gate(1);
wait_running($run, 'b d w', 'of two that are ready the higher priority');
open_gate(2);
wait_running($run, 'b e w', 'the lowest priority comes last');
value("SELECT weir.cancel($_)") foreach ($run, $beside);
is(wait_for_run($node, $_), 'cancelled', 'cancelled') foreach ($run, $beside);
is(most_of($_), '2', 'never more than two at a time') foreach ($run, $beside);

# --- a run that is full keeps nothing from others: neither workers nor slots
value("SELECT weir.create_pool('etl', 3)");
pipeline('narrow', [ map { sql("t$_", gate(3), pool => 'etl', priority => 20) } (1 .. 4) ], max_concurrent_tasks => 1);
pipeline('wide', [ sql('w', 'SELECT 1', pool => 'etl', pool_slots => 2) ]);
close_gate(3);
$run = weir_trigger($node, 'narrow');
wait_running($run, 't1', 'one at a time');
is(wait_for_run($node, weir_trigger($node, 'wide')), 'succeeded', 'others have the slots it may not take');

# --- items count one by one, their task does not; so do runs that are called: the threads of a batch
open_gate(3);
is(wait_for_run($node, $run), 'succeeded', 'it ends');
is(most_of($run), '1', 'one at a time, to the end');
pipeline('each', [ { name => 'e', kind => 'for_each', spec => { items => { sql => 'SELECT n FROM generate_series(1, 7) n' }, concurrency => 6, task => { kind => 'sql', spec => { sql => gate(4) } } } },
	sql('beside', gate(4)) ], max_concurrent_tasks => 3);
close_gate(4);
$run = weir_trigger($node, 'each');
wait_until($node, 'three of them run', "SELECT count(*) = 3 FROM weir.task_run WHERE run_id = $run AND status = 'running' AND kind = 'sql'");
is(wait_for_run($node, weir_trigger($node, 'other')), 'succeeded', 'a run in between');
is(value("SELECT count(*) FROM weir.task_run WHERE run_id = $run AND status = 'running' AND kind = 'sql'"), '3', 'items and tasks share the places');
open_gate(4);
is(wait_for_run($node, $run), 'succeeded', 'all items pass');
is(most_of($run), '3', 'three at a time');

pipeline('member', [ sql('m', gate(5)), sql('n', gate(5)) ], max_concurrent_runs => 10);
pipeline('batch', [ map { { name => "c$_", kind => 'pipeline', spec => { pipeline => 'member' } } } (1 .. 5) ], max_concurrent_tasks => 2);
close_gate(5);
$run = weir_trigger($node, 'batch');
wait_until($node, 'two members run', "SELECT count(*) = 4 FROM weir.task_run t JOIN weir.run r USING (run_id) WHERE r.parent_run_id = $run AND t.status = 'running'");
is(wait_for_run($node, weir_trigger($node, 'other')), 'succeeded', 'a run in between');
is(value("SELECT count(*) FROM weir.run WHERE parent_run_id = $run"), '2', 'two of five members, whose tasks are not counted');
open_gate(5);
is(wait_for_run($node, $run), 'succeeded', 'all members');
is(most_of($run), '2', 'two at a time');

# --- overdue: what a full run has does not go before what can start
value("ALTER SYSTEM SET weir.overdue_after = '1s'");
value('SELECT pg_reload_conf()');
pipeline('late', [ map { sql("t$_", gate(6)) } (1 .. 3) ], max_concurrent_tasks => 1);
close_gate(6);
$run = weir_trigger($node, 'late');
wait_until($node, 'two are overdue', "SELECT count(*) = 2 FROM weir.task_run WHERE run_id = $run AND status = 'ready' AND ready_at < clock_timestamp() - interval '2 seconds'");
wait_running($run, 't1', 'overdue or not, one at a time');
open_gate(6);
is(wait_for_run($node, $run), 'succeeded', 'they pass');

# --- plan, and when the end is expected: two at a time take longer than four
pipeline('timed', [ map { sql("t$_", 'SELECT pg_sleep(0.5)') } (1 .. 4) ]);
is(wait_for_run($node, weir_trigger($node, 'timed')), 'succeeded', 'a run to learn from');
is(value("SELECT limits FROM weir.plan('timed') WHERE wave = 0"), 'max_concurrent_runs 1, on_overlap queue, priority 0', 'plan without the limit');
my $all = value("SELECT extract(epoch FROM ends_after) FROM weir.plan('timed') WHERE wave = 0");
value("SELECT weir.alter_pipeline('timed', weir.describe_pipeline('timed') || '{\"max_concurrent_tasks\": 2}')");
is(value("SELECT limits FROM weir.plan('timed') WHERE wave = 0"), 'max_concurrent_runs 1, max_concurrent_tasks 2, on_overlap queue, priority 0', 'plan with it');
my $two = value("SELECT extract(epoch FROM ends_after) FROM weir.plan('timed') WHERE wave = 0");
cmp_ok($two, '>', $all, 'the plan knows that it takes longer');
is(value("SELECT count(*) FROM weir.plan('timed') WHERE wave = 1 AND starts_after > interval '0'"), '2', 'as two start later');

# --- what is wrong
foreach my $bad ('0', '-1', '1.5', '"2"', 'null', '1000000')
{
	my ($result, $out, $error) = $node->psql('postgres', "SELECT weir.create_pipeline('bad', '{\"max_concurrent_tasks\": $bad, \"tasks\": [{\"name\": \"a\", \"kind\": \"noop\"}]}')");

	like($error, qr/ERROR: .*max_concurrent_tasks.*DETAIL: /s, "max_concurrent_tasks $bad");
}

done_testing();
