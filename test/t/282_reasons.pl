# What does not move says why, and what is left over is said: reasons of task
# runs, disabled and missing pipelines that a plan calls, backfills beyond the
# pipeline's limit and beside each other, weir switched off.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('reasons', conf => "weir.max_sql_workers = 4\n");

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
sub task { my ($name, $sql, %more) = @_; return { name => $name, kind => 'sql', spec => { sql => $sql }, %more } }
sub noop { my ($name, %more) = @_; return { name => $name, kind => 'noop', spec => {}, %more } }
sub pipeline
{
	my ($name, $tasks, %more) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => $tasks, %more })) . ')');
	return $name;
}
sub reason { my ($run, $task) = @_; return value("SELECT reason FROM weir.task_runs WHERE run_id = $run AND task_name = '$task'") }

# A gate: closed as long as a transaction of ours holds it.
my %held;
sub close_gate
{
	my ($gate) = @_;
	$held{$gate} = $node->background_psql('postgres', on_error_die => 1);
	$held{$gate}->query_safe("BEGIN; SELECT pg_advisory_xact_lock($gate)");
	return;
}
sub open_gate { my ($gate) = @_; $held{$gate}->quit; return }
sub gate { return "SELECT pg_advisory_xact_lock_shared($_[0])" }

# --- reasons
close_gate(1);
value("SELECT weir.create_pool('narrow', 1)");
pipeline('chain', [
	task('slow', gate(1)),
	task('broken', 'SELECT 1 / 0'),
	noop('below', depends_on => ['broken']),
	noop('further', depends_on => ['below']),
	noop('after', depends_on => ['slow']),
	noop('off', enabled => JSON::PP::false),
	noop('handler', depends_on => [ { task => 'slow', condition => 'failed' } ]),
	{ name => 'sign', kind => 'wait', spec => { signal => 'go' } },
	task('pooled', 'SELECT 1', pool => 'narrow') ]);
pipeline('holds', [ task('pool', gate(1), pool => 'narrow') ]);
my $holder = weir_trigger($node, 'holds');
wait_for_status($node, $holder, 'pool', 'running');
my $run = weir_trigger($node, 'chain');
wait_for_status($node, $run, 'further', 'blocked');
wait_for_status($node, $run, 'slow', 'running');
wait_until($node, 'the signal is waited for', "SELECT kind_state ? 'signal' FROM weir.attempts WHERE run_id = $run AND task_name = 'sign'");
is(reason($run, 'below'), 'blocked by task "broken" (failed)', 'what is blocked names the failure');
is(reason($run, 'further'), 'blocked by task "broken" (failed)', 'also further below');
is(reason($run, 'after'), 'it waits for task "slow" (running)', 'what waits names what it waits for');
is(reason($run, 'off'), 'the task is disabled', 'what is disabled');
is(reason($run, 'sign'), 'it waits for signal "go"', 'a signal');
is(reason($run, 'pooled'), "it is ready to start with 1 slots of pool \"narrow\" in a SQL worker; weir.why($run) says what it waits for", 'what it has to share');
is(reason($run, 'slow'), '', 'what runs has none');
is(value("SELECT string_agg(task || ': ' || detail, '; ' ORDER BY task) FROM weir.why($run) WHERE waiting_for = 'repair'"),
	'below: blocked by task "broken" (failed); further: blocked by task "broken" (failed)', 'weir.why says what is blocked, and by what');
is(value("SELECT count(*) FROM weir.task_runs t WHERE run_id = $run AND status IN ('waiting', 'ready', 'blocked', 'skipped') AND reason IS NULL"), '0', 'none without a reason');
is(value("SELECT count(*) FROM weir.task_runs t WHERE run_id = $run AND status IN ('waiting', 'ready', 'blocked') AND task_name NOT IN (SELECT task FROM weir.why($run) WHERE task IS NOT NULL)"),
	'0', 'none that weir.why leaves out');
open_gate(1);
value("SELECT weir.signal('go', run_id => $run)");
is(wait_for_run($node, $run), 'failed', 'the run ends');
is(reason($run, 'handler'), 'not taken after task "slow" (succeeded)', 'a branch that was not taken');
is(wait_for_run($node, $holder), 'succeeded', 'the holder of the pool, too');

pipeline('fast', [ task('broken', 'SELECT 1 / 0', depends_on => ['first']), noop('first'), noop('never', depends_on => ['held']), task('held', gate(2)) ], on_failure => 'fail_fast');
close_gate(2);
$run = weir_trigger($node, 'fast');
wait_for_status($node, $run, 'never', 'blocked');
is(reason($run, 'never'), 'blocked by task "broken" (failed): the pipeline fails fast', 'a pipeline that fails fast');
open_gate(2);
is(wait_for_run($node, $run), 'failed', 'it ends');
close_gate(3);
pipeline('each', [ { name => 'e', kind => 'for_each', spec => { items => [ 1, 2, 3 ], concurrency => 1, task => { kind => 'sql', spec => { sql => gate(3) } } } } ]);
$run = weir_trigger($node, 'each');
wait_until($node, 'the first item runs', "SELECT count(*) = 1 FROM weir.task_run WHERE run_id = $run AND item_no = 1 AND status = 'running'");
is(value("SELECT string_agg(DISTINCT reason, ', ') FROM weir.task_runs WHERE run_id = $run AND item_no > 1"), 'it waits for its turn among the items of its task', 'items');
value("SELECT weir.cancel($run, 'too late')");
is(wait_for_run($node, $run), 'cancelled', 'a run is cancelled');
like(value("SELECT reason FROM weir.task_runs WHERE run_id = $run AND item_no = 3"), qr/^cancelled by .*: too late$/, 'its items say by whom');
open_gate(3);

# --- what items still take: from those before them, and from earlier runs
my $pace = q{coalesce(round(extract(epoch FROM expected_end - clock_timestamp())::numeric, -1)::text, 'unknown')};
pipeline('paced', [ { name => 'e', kind => 'for_each', spec => { items => '{{params.n}}', concurrency => 2, task => { kind => 'sql', spec => { sql => gate(5) } } } } ],
	parameters => { n => { type => 'json' } });
close_gate(5);
$run = weir_trigger($node, 'paced', params => '{"n": [1, 2, 3, 4, 5, 6, 7, 8]}');
wait_until($node, 'two items run', "SELECT count(*) = 2 FROM weir.task_run WHERE run_id = $run AND item_no > 0 AND status = 'running'");
is(value("SELECT $pace FROM weir.progress($run)"), 'unknown', 'nobody knows how long the first item takes');
# Two items have ended, after 100 s each; two began just now, four wait.
value(qq{SET session_replication_role = replica; UPDATE weir.task_run SET status = 'succeeded', started_at = now() - interval '100 s', ended_at = now() WHERE run_id = $run AND item_no IN (3, 4)});
like(value("SELECT $pace FROM weir.progress($run)"), qr/^[23]\d0\z/, 'but of the others, with two at a time') or diag(value("SELECT $pace FROM weir.progress($run)"));
like(value("SELECT detail FROM weir.why($run) WHERE waiting_for = 'items'"), qr/; expected to have ended at \d/, 'weir.why says it, too');
value("SET session_replication_role = replica; UPDATE weir.task_run SET status = 'waiting', started_at = NULL, ended_at = NULL WHERE run_id = $run AND item_no IN (3, 4)");
open_gate(5);
is(wait_for_run($node, $run), 'succeeded', 'all items end');
value("UPDATE weir.task_run SET started_at = ended_at - interval '1000 s' WHERE run_id = $run AND item_no > 0");
close_gate(5);
$run = weir_trigger($node, 'paced', params => '{"n": [1, 2, 3, 4]}');
wait_until($node, 'two items run again', "SELECT count(*) = 2 FROM weir.task_run WHERE run_id = $run AND item_no > 0 AND status = 'running'");
is(value("SELECT $pace FROM weir.progress($run)"), '2000', 'as long as in the run before: two rounds of 1,000 s');
open_gate(5);
is(wait_for_run($node, $run), 'succeeded', 'they end');

# --- pipelines that a plan calls
pipeline($_, [ noop('a') ]) foreach ('callee', 'resting', 'dropped');
pipeline('caller', [ map({ { name => $_, kind => 'pipeline', spec => { pipeline => $_ } } } 'callee', 'resting', 'dropped'),
	{ name => 'many', kind => 'for_each', spec => { items => [ 1, 2 ], task => { kind => 'pipeline', spec => { pipeline => 'callee' } } } } ]);
is(value("SELECT count(*) FROM weir.plan('caller') WHERE reason IS NOT NULL AND task IS NOT NULL"), '0', 'nothing to be said of pipelines that can be called');
value("SELECT weir.set_pipeline_enabled('callee', false); SELECT weir.pause_pipeline('resting'); SELECT weir.drop_pipeline('dropped')");
is(value("SELECT string_agg(concat_ws(' ', task, action, reason), E'\\n' ORDER BY task) FROM weir.plan('caller') WHERE task IS NOT NULL"),
	"callee run pipeline \"callee\" is disabled: it is skipped, and the task succeeds\n"
	. "dropped fails pipeline \"dropped\" does not exist\n"
	. "many run pipeline \"callee\" is disabled: it is skipped, and the task succeeds\n"
	. 'resting run pipeline "resting" is paused: its run stays queued until it is resumed', 'disabled, dropped and paused ones');

# A plan looks at what is queued and goes on, however long the log of the pipeline is.
pipeline('long', [ noop('a') ]);
value(q{INSERT INTO weir.run (pipeline_id, pipeline_name, version, status, triggered_by, owner, started_at, ended_at)
	SELECT pipeline_id, name, 1, 'succeeded', 'x', owner, now(), now() FROM weir.pipeline, generate_series(1, 3000) WHERE name = 'long'; ANALYZE weir.run});
cmp_ok((split /\n/, value(q{BEGIN; SELECT count(*) FROM weir.plan('long');
	SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_all_tables WHERE relid = 'weir.run'::regclass; COMMIT}))[-1], '<', 100, 'a plan does not walk through the log');

# --- backfills
pipeline('days', [ task('a', gate(4)) ], max_concurrent_runs => 3);
close_gate(4);
my ($first, $second);
foreach my $n (5, 3)
{
	my $stderr;
	my (undef, $out) = $node->psql('postgres', "SELECT weir.backfill('days', '2026-01-01', '2026-01-05', '1 day', concurrency => $n)", stderr => \$stderr, on_error_die => 1);
	value("SELECT weir.cancel_backfill($out)");
	wait_until($node, 'the backfill is cancelled', "SELECT count(*) = 0 FROM weir.run WHERE backfill_id = $out AND status IN ('queued', 'running', 'cancelling')");
	$n > 3 ? like($stderr, qr/NOTICE: +at most 3 of these runs go on at a time, not 5/, 'more than the pipeline may run is said') :
		is($stderr, '', 'what it may is not');
}
$first = value("SELECT weir.backfill('days', '2026-01-01', '2026-01-05', '1 day')");
wait_until($node, 'the first runs', "SELECT count(*) = 1 FROM weir.run WHERE backfill_id = $first AND status = 'running'");
$second = value("SELECT weir.backfill('days', '2026-02-01', '2026-02-05', '1 day')");
ok(wait_until($node, 'the second runs beside it', "SELECT count(*) = 1 FROM weir.run WHERE backfill_id = $second AND status = 'running'"),
	'a backfill that has to leave places leaves them to the next');
$run = weir_trigger($node, 'days');
is(wait_for_run($node, $run, 'running'), 'running', 'and to a run that was triggered later');
is(value("SELECT string_agg(status, ' ' ORDER BY run_id) FROM weir.run WHERE backfill_id = $first"), 'running queued queued queued', 'each within its limit');
open_gate(4);
is(wait_for_run($node, $run), 'succeeded', 'the run ends');
wait_until($node, 'all have ended', "SELECT count(*) = 0 FROM weir.run WHERE pipeline_name = 'days' AND status IN ('queued', 'running')");
is(value("SELECT count(*) FROM weir.run WHERE backfill_id IN ($first, $second) AND status = 'succeeded'"), '8', 'and all windows');

# --- switched off
# Told to leave before it knows why: it does not call that an error either.
my $pid = backend_pid($node, 'weir conductor%');
kill 'STOP', $pid;
value('ALTER SYSTEM SET weir.enabled = off; SELECT pg_reload_conf()');
sub is_told { return PostgreSQL::Test::Utils::slurp_file("/proc/$pid/status") =~ /^ShdPnd:\s*([0-9a-f]+)/m && hex($1) & 0x4000 }
my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
select(undef, undef, undef, 0.05) while !is_told() && time < $limit;
ok(is_told(), 'the conductor is told to leave');
kill 'CONT', $pid;
wait_until($node, 'there is no conductor', "SELECT state = 'disabled' FROM weir.status WHERE component = 'conductor'");
is(value("SELECT detail, last_error FROM weir.status WHERE component = 'conductor'"), 'Switched off: weir.enabled is off. CALL weir.conduct() runs pipelines all the same.|',
	'switched off is no error');
value('ALTER SYSTEM RESET weir.enabled; SELECT pg_reload_conf()');
is(wait_for_run($node, weir_trigger($node, 'long')), 'succeeded', 'and on again');
is(value("SELECT state, last_error FROM weir.status WHERE component = 'conductor'"), 'running|', 'without an error');

unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal/, 'nothing died');
$node->stop;
done_testing();
