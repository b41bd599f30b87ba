# Flow: which tasks run when others failed, were skipped or chose a branch.
# The first part is the conformance topology of metadata-driven frameworks:
# eleven workers in four stages, of which E fails, in three modes.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('flow');

$node->safe_psql('postgres', 'CREATE TABLE public.gate (divisor integer); INSERT INTO public.gate VALUES (0)');

sub value { return $node->safe_psql('postgres', $_[0]); }

my $failing = { kind => 'sql', spec => { sql => 'SELECT 1 / divisor FROM public.gate' } };

# Dependencies are names, or [name, condition, branch].
sub task
{
	my ($name, $depends_on, %more) = @_;
	my @dependencies = map {
		ref $_
		  ? { task => $_->[0], (defined $_->[1] ? (condition => $_->[1]) : ()), (defined $_->[2] ? (branch => $_->[2]) : ()) }
		  : $_
	} @{ $depends_on // [] };
	return { name => $name, kind => 'noop', spec => {}, depends_on => \@dependencies, %more };
}

sub define
{
	my ($name, $tasks, %more) = @_;
	my $json = encode_json({ tasks => $tasks, %more });
	$node->safe_psql('postgres', "SELECT weir.create_pipeline('$name', \$json\$$json\$json\$::jsonb)");
	return;
}

# "succeeded: a b; failed: c", of the run's tasks.
sub ends
{
	my ($run) = @_;
	return value(qq{
		SELECT string_agg(status || ': ' || names, '; ' ORDER BY status) FROM
		(SELECT status, string_agg(task_name, ' ' ORDER BY task_no) AS names
		 FROM weir.task_run WHERE run_id = $run AND item_no = 0 GROUP BY status) AS x});
}

sub run_ends
{
	my ($pipeline, $status, $expected, $what) = @_;
	my $run = weir_trigger($node, $pipeline);
	is(wait_for_run($node, $run), $status, "$what: the run");
	is(ends($run), $expected, "$what: its tasks") if defined $expected;
	return $run;
}

# --- the topology
my @stages = ([qw(w1 w2 e w3)], [qw(w4 w5 w6 w7)], [qw(w8 w9)], [qw(w10)]);
my %chain = (w5 => 'e', w6 => 'e', w9 => 'w6', w10 => 'w9');

sub topology
{
	my ($stage_condition, $with_chain) = @_;
	my @tasks;
	foreach my $s (0 .. $#stages)
	{
		foreach my $worker (@{ $stages[$s] })
		{
			my %upstream = $s > 0 ? map { $_ => $stage_condition } @{ $stages[ $s - 1 ] } : ();
			$upstream{ $chain{$worker} } = 'success' if $with_chain && $chain{$worker};
			push @tasks, task($worker, [ map { [ $_, $upstream{$_} ] } sort keys %upstream ], $worker eq 'e' ? %$failing : ());
		}
	}
	return \@tasks;
}

define('mode_none', topology('done', 0));
define('mode_simple', topology('success', 0));
define('mode_chain', topology('done', 1));

sub counts
{
	my ($run) = @_;
	return value(qq{
		SELECT format('%s %s %s', count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'failed'),
			count(*) FILTER (WHERE status = 'blocked')) FROM weir.task_run WHERE run_id = $run});
}

foreach my $mode ([ 'mode_none', '10 1 0' ], [ 'mode_simple', '3 1 7' ], [ 'mode_chain', '6 1 4' ])
{
	my ($pipeline, $expected) = @$mode;
	value('UPDATE public.gate SET divisor = 0');
	my $run = run_ends($pipeline, 'failed', undef, $pipeline);
	is(counts($run), $expected, "$pipeline: succeeded, failed and blocked workers");
	value('UPDATE public.gate SET divisor = 1');
	is(value("SELECT weir.repair($run)"), $run, "$pipeline: restarted");
	is(wait_for_run($node, $run), 'succeeded', "$pipeline: the mended run");
	is(value("SELECT format('%s %s', count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'failed')) FROM weir.attempt WHERE run_id = $run"),
		'11 1', "$pipeline: only what did not succeed ran again");
}

# --- run_if
my %outcomes = (
	good => {},
	bad => $failing,
	off => { enabled => JSON::PP::false });
value('UPDATE public.gate SET divisor = 0');
define('run_if', [
		task('good'), task('bad', [], %$failing),
		task('never', ['good'], run_if => 'all_failed'),
		(map { task("both_$_", [qw(good bad)], run_if => $_) }
			qw(all_success all_done none_failed at_least_one_success at_least_one_failed all_failed always)),
		(map { task("failed_$_", ['bad'], run_if => $_) }
			qw(all_success all_done none_failed at_least_one_success at_least_one_failed all_failed always)),
		(map { task("skip_$_", ['never'], run_if => $_) }
			qw(all_success all_done none_failed at_least_one_success at_least_one_failed all_failed always)) ]);
run_ends('run_if', 'failed',
	'blocked: both_all_success both_none_failed failed_all_success failed_none_failed failed_at_least_one_success; '
	  . 'failed: bad; '
	  . 'skipped: never both_all_failed skip_all_success skip_all_done skip_none_failed skip_at_least_one_success skip_at_least_one_failed skip_all_failed; '
	  . 'succeeded: good both_all_done both_at_least_one_success both_at_least_one_failed both_always '
	  . 'failed_all_done failed_at_least_one_failed failed_all_failed failed_always skip_always',
	'every run_if');

# --- a failure that is dealt with, and one that is not
define('handled', [
		task('bad', [], %$failing),
		task('alert', [ [ 'bad', 'failed' ] ]),
		task('after', ['alert']) ]);
run_ends('handled', 'succeeded', 'failed: bad; succeeded: alert after', 'a failure with a handler');
define('unhandled', [
		task('bad', [], %$failing),
		task('alert', ['bad'], run_if => 'at_least_one_failed'),
		task('next', ['bad']) ]);
run_ends('unhandled', 'failed', 'blocked: next; failed: bad; succeeded: alert', 'a handler does not help what is blocked');
define('tells', [
		task('bad', [], %$failing),
		task('alert', [ [ 'bad', 'failed' ] ], kind => 'sql', spec => { sql => 'SELECT {{tasks.bad.error}} AS error, {{tasks.bad.status}} AS status' }) ]);
my $tells = run_ends('tells', 'succeeded', undef, 'a handler that knows');
is(value("SELECT output->'rows'->0->>'error' || ' ' || (output->'rows'->0->>'status') FROM weir.task_run WHERE run_id = $tells AND task_name = 'alert'"),
	'division by zero failed', 'status and error of the failed task');

# --- fail_fast: what is ready but has not started does not start either
define('fail_fast', [
		task('bad', [], %$failing),
		task('slow', [], kind => 'sql', spec => { sql => 'SELECT pg_advisory_xact_lock_shared(71)' }),
		task('after_slow', ['slow']),
		task('tidy', [qw(bad slow)], run_if => 'always') ], on_failure => 'fail_fast');
{
	my $gate = $node->background_psql('postgres');
	$gate->query_safe('SELECT pg_advisory_lock(71)');
	my $run = weir_trigger($node, 'fail_fast');
	wait_for_status($node, $run, 'after_slow', 'blocked');
	is(value("SELECT status FROM weir.task_run WHERE run_id = $run AND task_name = 'slow'"), 'running', 'fail_fast: what runs goes on');
	$gate->query_safe('SELECT pg_advisory_unlock(71)');
	is(wait_for_run($node, $run), 'failed', 'fail_fast: the run');
	is(ends($run), 'blocked: after_slow; failed: bad; succeeded: slow tidy', 'fail_fast: its tasks');
	$gate->quit;
}

# A task with a dependency on the failure is there for it.
define('fast_handler', [ task('bad', [], %$failing), task('alert', [ [ 'bad', 'failed' ] ]), task('late', ['alert']), task('next', ['bad']) ], on_failure => 'fail_fast');
run_ends('fast_handler', 'failed', 'blocked: late next; failed: bad; succeeded: alert', 'fail_fast: a dependency on the failure');

# --- disabled tasks are as if they were not there
define('disabled', [ task('a', [], %{ $outcomes{off} }, %$failing), task('b', ['a']), task('c', [ [ 'a', 'failed' ] ]), task('d', ['c']) ]);
run_ends('disabled', 'succeeded', 'skipped: a c d; succeeded: b', 'a disabled task');
is(value("SELECT string_agg(task_name || ' ' || skip_reason, ', ' ORDER BY task_no) FROM weir.task_run WHERE status = 'skipped' AND run_id = (SELECT max(run_id) FROM weir.run)"),
	'a disabled, c condition, d condition', 'and the reason is told');

define('disabled_middle', [
		task('bad', [], %$failing),
		task('middle', ['bad'], enabled => JSON::PP::false),
		task('slow', ['middle'], kind => 'sql', spec => { sql => 'SELECT pg_advisory_xact_lock_shared(72)' }),
		task('last', ['slow']) ]);
{
	my $gate = $node->background_psql('postgres');
	$gate->query_safe('SELECT pg_advisory_lock(72)');
	my $run = weir_trigger($node, 'disabled_middle');
	wait_for_status($node, $run, 'bad', 'failed');
	$gate->query_safe('SELECT pg_advisory_unlock(72)');
	is(wait_for_run($node, $run), 'failed', 'a failure above a disabled task: the run');
	is(ends($run), 'failed: bad; skipped: middle; succeeded: slow last', 'what is below the disabled task goes on');
	$gate->quit;
}
define('disabled_alert', [ task('a', [], %{ $outcomes{off} }, %$failing),
		map { task("on_$_", ['a'], run_if => $_) } qw(all_done none_failed at_least_one_success at_least_one_failed all_failed always) ]);
run_ends('disabled_alert', 'succeeded', 'skipped: a on_at_least_one_failed on_all_failed; succeeded: on_all_done on_none_failed on_at_least_one_success on_always',
	'a disabled task is no failure');

# --- if and switch
define('branches', [
		task('count', [], kind => 'sql', spec => { sql => 'SELECT {{params.n}} AS n' }),
		task('check', ['count'], kind => 'if', spec => { left => '{{tasks.count.output.rows[0].n}}', op => '>', right => 10 }),
		task('big', [ [ 'check', undef, 'true' ] ]),
		task('small', [ [ 'check', undef, 'false' ] ]),
		task('joined', [qw(big small)], run_if => 'none_failed'),
		task('which', ['joined'], kind => 'switch', spec => { on => '{{params.region}}', cases => [ 'north', 'south' ] }),
		task('north', [ [ 'which', undef, 'north' ] ]),
		task('south', [ [ 'which', undef, 'south' ] ]),
		task('elsewhere', [ [ 'which', undef, 'default' ] ]) ],
	parameters => { n => { type => 'bigint', default => 3 }, region => { type => 'text', default => 'south' } });
run_ends('branches', 'succeeded', 'skipped: big north elsewhere; succeeded: count check small joined which south', 'branches');
{
	my $run = value(q{SELECT weir.trigger('branches', '{"n": 11, "region": "default"}')});
	is(wait_for_run($node, $run), 'succeeded', 'the other branches');
	is(ends($run), 'skipped: small north south; succeeded: count check big joined which elsewhere', 'the other branches: tasks');
}
define('no_order', [ task('check', [], kind => 'if', spec => { left => 'abc', op => '<', right => 10 }) ]);
my $no_order = run_ends('no_order', 'failed', 'failed: check', 'what cannot be compared');
like(value("SELECT error_message FROM weir.run WHERE run_id = $no_order"), qr/abc and 10 cannot be put in order/, 'and it says so');

# --- "failed" and at_least_one_failed on the same dependency: it hears of the failure
value('UPDATE public.gate SET divisor = 0');
define('reacts', [ task('a', [], %$failing), task('b', [ ]), task('h', [ [ 'a', 'failed' ], 'b' ], run_if => 'at_least_one_failed'),
	task('g', [ [ 'a', 'failed' ] ], run_if => 'all_failed') ]);
run_ends('reacts', 'succeeded', 'failed: a; succeeded: b h g', 'a failure that is asked for twice');
value('UPDATE public.gate SET divisor = 1');
run_ends('reacts', 'succeeded', 'skipped: h g; succeeded: a b', 'and none');
value('UPDATE public.gate SET divisor = 0');

# --- a killed conductor: inline decisions are made again, once
{
	my $run = value('SELECT weir.trigger(pipeline) FROM generate_series(1, 20), (VALUES (\'branches\')) AS p (pipeline) ORDER BY 1 DESC LIMIT 1');
	kill9_backend($node, 'weir conductor');
	is(wait_for_run($node, $run), 'succeeded', 'the last of 20 runs over a crash');
	is(value("SELECT count(*) FROM weir.task_run t WHERE status = 'succeeded' AND attempt_no - lost_count <> 1 AND kind IN ('if', 'switch', 'noop')"), '0', 'every decision was made once');
	is(value("SELECT count(DISTINCT outcome) FROM (SELECT string_agg(status, ' ' ORDER BY task_no) AS outcome FROM weir.task_run WHERE run_id BETWEEN $run - 19 AND $run GROUP BY run_id) AS x"), '1', 'and the same each time');
}

# --- ten thousand tasks below a failure, and below a branch not taken
define('long_chain', [ task('t0', [], %$failing), map { task("t$_", [ 't' . ($_ - 1) ]) } 1 .. 9999 ]);
my $long = run_ends('long_chain', 'failed', undef, 'a long chain below a failure');
is(value("SELECT count(*) FROM weir.task_run WHERE run_id = $long AND status = 'blocked'"), '9999', 'is blocked');
define('long_skip', [ task('t0', [], kind => 'if', spec => { left => 1, op => '==', right => 2 }), task('t1', [ [ 't0', undef, 'true' ] ]), map { task("t$_", [ 't' . ($_ - 1) ]) } 2 .. 999 ]);
$long = run_ends('long_skip', 'succeeded', undef, 'a long chain below a branch');
is(value("SELECT count(*) FROM weir.task_run WHERE run_id = $long AND status = 'skipped'"), '999', 'is skipped');

unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
$node->stop;
done_testing();
