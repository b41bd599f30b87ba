# Flow: which tasks run when others failed, were skipped or chose a branch.
# The first part is the conformance topology of metadata-driven frameworks:
# eleven workers in four stages, of which E fails, in three modes, one after
# the other and side by side.

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

# more: what else is said of a worker, from its name and what it depends on
sub topology
{
	my ($stage_condition, $with_chain, $more) = @_;
	my @tasks;
	foreach my $s (0 .. $#stages)
	{
		foreach my $worker (@{ $stages[$s] })
		{
			my %upstream = $s > 0 ? map { $_ => $stage_condition } @{ $stages[ $s - 1 ] } : ();
			$upstream{ $chain{$worker} } = 'success' if $with_chain && $chain{$worker};
			push @tasks, task($worker, [ map { [ $_, $upstream{$_} ] } sort keys %upstream ], $more->($worker, sort keys %upstream));
		}
	}
	return \@tasks;
}

sub e_fails { return $_[0] eq 'e' ? %$failing : (); }
define('mode_none', topology('done', 0, \&e_fails));
define('mode_simple', topology('success', 0, \&e_fails));
define('mode_chain', topology('done', 1, \&e_fails));

sub counts
{
	my ($run) = @_;
	return value(qq{
		SELECT format('%s %s %s', count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'failed'),
			count(*) FILTER (WHERE status = 'blocked')) FROM weir.task_run WHERE run_id = $run AND kind <> 'wait'});
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

# --- the same side by side: batches of all modes at once, of which some fail.
# What E does not hold back is landing here, so a restart does the rest.
value(q{
	CREATE TABLE public.broken (batch text);
	INSERT INTO public.broken VALUES ('bad');
	CREATE TABLE public.worked (mode text, batch text, worker text, run_id bigint, saw text);
	CREATE FUNCTION public.work(mode text, batch text, worker text, run_id bigint, VARIADIC saw text[]) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF worker = 'e' AND EXISTS (SELECT FROM public.broken b WHERE b.batch = work.batch) THEN
			RAISE EXCEPTION 'e of % % is broken', mode, batch;
		END IF;
		INSERT INTO public.worked VALUES (mode, batch, worker, run_id, array_to_string(saw, ' '));
	END $$});
my @workers = map { @$_ } @stages;
my %side = (
	side_none => { counts => '10 1 0', held_back => [], topology => [ 'done', 0 ] },
	side_simple => { counts => '3 1 7', held_back => [ map { @$_ } @stages[ 1 .. 3 ] ], topology => [ 'success', 0 ] },
	side_chain => { counts => '6 1 4', held_back => [ sort keys %chain ], topology => [ 'done', 1 ] });
foreach my $mode (sort keys %side)
{
	my %after_landing = map { $_ => 1 } 'e', @{ $side{$mode}{held_back} };
	$side{$mode}{lands} = [ grep { !$after_landing{$_} } @workers ];
	my $tasks = topology(@{ $side{$mode}{topology} }, sub {
			my ($worker, @upstream) = @_;
			my $saw = join ', ', map { "'$_', {{tasks.$_.status}}::text" } @upstream;
			return (kind => 'sql', phase => $after_landing{$worker} ? 'transform' : 'land', @upstream ? () : (depends_on => ['go']),
				spec => { sql => "SELECT public.work({{pipeline.name}}, {{params.batch}}, {{task.name}}, {{run.id}}, VARIADIC ARRAY[$saw]::text[])" });
		});
	define($mode, [ task('go', [], kind => 'wait', spec => { signal => 'go' }), @$tasks ],
		max_concurrent_runs => 2, parameters => { batch => { type => 'text', required => JSON::PP::true } });
}

sub go
{
	my (@runs) = @_;
	my $n = @runs;
	wait_until($node, "$n runs wait", "SELECT count(*) = $n FROM weir.attempt WHERE status = 'started' AND kind_state->>'wait' = 'signal'");
	is(value(q{SELECT weir.signal('go')}), $n, "$n runs go on at once");
	wait_for_run($node, $_) foreach @runs;
	return;
}

# What the workers of a run wrote, and what those should that worked, given how all of it ended.
sub wrote { return value("SELECT string_agg(concat_ws('/', mode, batch, worker, saw), E'\\n' ORDER BY concat_ws('/', mode, batch, worker, saw) COLLATE \"C\") FROM public.worked WHERE run_id = $_[0]"); }
sub should_write
{
	my ($mode, $batch, %ended) = @_;
	my @lines;
	foreach my $s (0 .. $#stages)
	{
		my $saw = $s == 0 ? '' : join ' ', map { "$_ $ended{$_}" } sort @{ $stages[ $s - 1 ] };
		push @lines, map { "$mode/$batch/$_/$saw" } grep { $ended{$_} eq 'succeeded' } @{ $stages[$s] };
	}
	return join "\n", sort @lines;
}

my %batch = map { my $mode = $_; ($mode => { map { $_ => weir_trigger($node, $mode, params => qq({"batch": "$_"})) } qw(bad good) }) } sort keys %side;
go(map { values %$_ } values %batch);
foreach my $mode (sort keys %side)
{
	my ($bad, $good) = @{ $batch{$mode} }{qw(bad good)};
	is(counts($bad), $side{$mode}{counts}, "$mode beside others: succeeded, failed and blocked workers");
	is(counts($good), '11 0 0', "$mode beside others: a batch that works");
	is(wrote($bad), should_write($mode, 'bad', (map { $_ => 'succeeded' } @workers), e => 'failed', map { $_ => 'blocked' } @{ $side{$mode}{held_back} }),
		"$mode beside others: parameters and statuses are its own");
	is(wrote($good), should_write($mode, 'good', map { $_ => 'succeeded' } @workers), "$mode beside others: so are those of the batch that works");
}
is(value(q{SELECT string_agg(format('%s %s: %s', r.pipeline_name, r.params->>'batch', e.message), ', ' ORDER BY r.pipeline_name) FROM weir.errors e JOIN weir.run r USING (run_id) WHERE r.pipeline_name LIKE 'side%'}),
	join(', ', map { "$_ bad: e of $_ bad is broken" } sort keys %side), 'every failure is told of its own batch');

# Mended and restarted, beside a batch that is new.
value('TRUNCATE public.broken');
my %again = map { $_ => value("SELECT weir.restart($batch{$_}{bad})") } sort keys %side;
my %new = map { $_ => weir_trigger($node, $_, params => '{"batch": "new"}') } sort keys %side;
go(values %again, values %new);
foreach my $mode (sort keys %side)
{
	my ($bad, $again, $new) = ($batch{$mode}{bad}, $again{$mode}, $new{$mode});
	my @lands = @{ $side{$mode}{lands} };
	is(value("SELECT concat_ws(' ', status, start_status, row_audit_id) FROM weir.run WHERE run_id = $again"), "succeeded D $bad", "$mode restarted beside others: goes on where the batch failed");
	is(value("SELECT format('%s %s', count(*) FILTER (WHERE status = 'reused'), count(*) FILTER (WHERE status = 'succeeded')) FROM weir.task_run WHERE run_id = $again AND kind <> 'wait'"),
		@lands . ' ' . (@workers - @lands), "$mode restarted beside others: only what did not succeed ran again");
	is(wrote($again), should_write($mode, 'bad', (map { $_ => 'succeeded' } @workers), map { $_ => 'reused' } @lands), "$mode restarted beside others: parameters and statuses are its own");
	is(value(qq{SELECT format('%s %s', count(*) FILTER (WHERE a.status = 'succeeded'), count(*) FILTER (WHERE a.status = 'failed'))
		FROM weir.attempts a WHERE run_id IN ($bad, $again) AND kind <> 'wait'}), '11 1', "$mode restarted beside others: the log holds eleven successes and a failure");
	is(value("SELECT start_status FROM weir.run WHERE run_id = $new") . ' ' . counts($new), 'E 11 0 0', "$mode: a new batch beside it takes nothing over");
	is(wrote($new), should_write($mode, 'new', map { $_ => 'succeeded' } @workers), "$mode: and has parameters and statuses of its own");
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
