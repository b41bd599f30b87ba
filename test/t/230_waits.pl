# Tasks that wait: for a time, a signal, an approval, a condition in SQL; each
# over a killed conductor.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('waits');

sub value { return $node->safe_psql('postgres', $_[0]); }

sub error_of
{
	my ($result, $stdout, $stderr) = $node->psql('postgres', $_[0]);
	return $stderr;
}

# A pipeline of one waiting task "w", and "after" it.
sub define
{
	my ($name, $spec, $more) = @_;
	$more //= '';
	value(qq{SELECT weir.create_pipeline('$name', \$json\${"parameters": {"who": {"type": "text", "default": "x"}}, "tasks": [
		{"name": "w", "kind": "wait", "spec": $spec $more}, {"name": "after", "kind": "noop", "depends_on": ["w"]}]}\$json\$)});
	return;
}

sub waiting
{
	my ($pipeline) = @_;
	my $run = weir_trigger($node, $pipeline);
	wait_for_status($node, $run, 'w', 'running');
	return $run;
}

sub output { return value("SELECT output FROM weir.task_run WHERE run_id = $_[0] AND task_name = 'w'"); }
sub attempts { return value("SELECT count(*) FROM weir.attempt a JOIN weir.task_run USING (task_run_id) WHERE a.run_id = $_[0] AND task_name = 'w'"); }
sub why { return value("SELECT waiting_for || ': ' || detail FROM weir.why($_[0]) WHERE task = 'w'"); }

# --- time
define('briefly', '{"for": 0.2}');
is(wait_for_run($node, weir_trigger($node, 'briefly')), 'succeeded', 'for a fifth of a second');
define('past', '{"until": "2001-01-01T00:00:00Z"}');
is(wait_for_run($node, weir_trigger($node, 'past')), 'succeeded', 'until a moment that is past');
define('long', '{"for": "3 hours"}');
my $run = waiting('long');
like(why($run), qr/^time: until /, 'why names the moment');
my $due = value("SELECT kind_state->>'due_ms' FROM weir.attempt WHERE run_id = $run AND kind_state IS NOT NULL");
kill9_backend($node, 'weir conductor');
wait_until($node, 'the conductor is back', q{SELECT count(*) = 1 FROM weir.status WHERE component = 'conductor' AND state = 'running' AND detail LIKE 'last cycle%'});
is(value("SELECT kind_state->>'due_ms' FROM weir.attempt WHERE run_id = $run AND status = 'started'"), $due, 'a crash does not move it');
is(value("SELECT status FROM weir.task_run WHERE run_id = $run AND task_name = 'w'"), 'running', 'it still waits');
value("SELECT weir.cancel($run)");
is(wait_for_run($node, $run), 'cancelled', 'a wait is cancelled');
is(attempts($run), '1', 'with one attempt');
value(q{SELECT weir.create_pipeline('param', '{"parameters": {"at": {"type": "timestamptz", "required": true}}, "tasks": [
	{"name": "w", "kind": "wait", "spec": {"until": "{{params.at}}"}}]}')});
$run = value(q{SELECT weir.trigger('param', jsonb_build_object('at', clock_timestamp() + interval '0.3 s'))});
is(wait_for_run($node, $run), 'succeeded', 'until a reference');
is(value("SELECT a.ended_at >= (r.params->>'at')::timestamptz FROM weir.attempt a JOIN weir.run r USING (run_id) WHERE run_id = $run"), 't', 'not before it');
value(q{SELECT weir.create_pipeline('no_time', '{"parameters": {"at": {"type": "text", "default": "soon"}}, "tasks": [
	{"name": "w", "kind": "wait", "spec": {"until": "{{params.at}}"}}, {"name": "v", "kind": "wait", "spec": {"for": "{{params.at}}"}}]}')});
$run = weir_trigger($node, 'no_time');
is(wait_for_run($node, $run), 'failed', 'what is no time');
is(value("SELECT count(*) FROM weir.attempt WHERE run_id = $run AND error_code = 'invalid_spec' AND failure_type = 'user'"), '2', 'and says so');
define('limited', '{"signal": "never"}', ', "timeout": 0.2');
$run = weir_trigger($node, 'limited');
is(wait_for_run($node, $run), 'failed', 'the timeout of the task');
is(value("SELECT status FROM weir.task_run WHERE run_id = $run AND task_name = 'w'"), 'timed_out', 'ends the wait');

# --- signals
define('signalled', '{"signal": "files of {{params.who}}"}');
is(value("SELECT weir.signal('files of x')"), '0', 'nobody waits, nothing is kept');
$run = waiting('signalled');
is(why($run), 'signal: signal "files of x"', 'why names the signal');
is(value("SELECT weir.signal('files of y')"), '0', 'another signal');
is(value(q{SELECT weir.signal('files of x', '{"n": 7}')}), '1', 'wakes one');
is(wait_for_run($node, $run), 'succeeded', 'and it goes on');
is(output($run), '{"n": 7}', 'with the payload as output');
my @runs = map { waiting('signalled') } 1 .. 1;
value(q{BEGIN; SELECT weir.signal('files of x'); ROLLBACK});
is(value("SELECT count(*) FROM weir.request"), '0', 'a rolled back signal leaves nothing');
kill9_backend($node, 'weir conductor');
is(value(q{SELECT weir.signal('files of x', '[1, 2]')}), '1', 'a signal after a crash');
kill9_backend($node, 'weir conductor');
is(wait_for_run($node, $runs[0]), 'succeeded', 'and another crash');
is(output($runs[0]), '[1, 2]', 'is not lost');
# Sent to a run before anybody waits.
value(q{SELECT weir.pause_pipeline('signalled')});
$run = weir_trigger($node, 'signalled');
is(value(qq{SELECT weir.signal('files of x', '{"early": true}', $run)}), '0', 'a signal for a run that has not started');
wait_until($node, 'it is kept', "SELECT count(*) = 1 FROM weir.run_signal WHERE run_id = $run");
value(q{SELECT weir.resume_pipeline('signalled')});
is(wait_for_run($node, $run), 'succeeded', 'a kept signal');
is(output($run), '{"early": true}', 'and its payload');
is(value(qq{SELECT weir.signal('files of x', '{}', $run)}), '0', 'an ended run takes none');
like(error_of(q{SELECT weir.signal('x', '{}', 0)}), qr/run 0 does not exist/, 'no such run');
like(error_of(q{SELECT weir.signal('')}), qr/must not be empty/, 'no name');
# Cancelled while a signal is on its way: whatever comes first, it ends.
$run = waiting('signalled');
value(qq{BEGIN; SELECT weir.cancel($run); SELECT weir.signal('files of x'); COMMIT});
like(wait_for_run($node, $run), qr/^(cancelled|succeeded)$/, 'cancelled and signalled');

# --- approvals
define('approved', '{"approval": "Is {{params.who}} right?"}');
$run = waiting('approved');
is(why($run), 'approval: approval by an operator: Is x right?', 'why asks the question');
like(error_of("SELECT weir.approve($run, 'after')"), qr/task "after" of run $run does not wait for an approval/, 'a task that does not wait');
kill9_backend($node, 'weir conductor');
value(q{CREATE ROLE alice LOGIN; GRANT weir_operator TO alice; CREATE ROLE bob LOGIN; CREATE ROLE carl LOGIN; GRANT USAGE ON SCHEMA weir TO bob;
	GRANT EXECUTE ON FUNCTION weir.approve, weir.signal TO bob});
like(error_of("SET ROLE bob; SELECT weir.approve($run, 'w')"), qr/role "bob" may not approve a task of run $run/, 'not everybody approves');
is(value("SET ROLE bob; SELECT weir.signal('files of x')"), '0', 'nor signals');
value("SET ROLE alice; SELECT weir.approve($run, 'w', 'looks good')");
is(wait_for_run($node, $run), 'succeeded', 'approved');
is(value("SELECT (output->>'by') || ' ' || (output->>'comment') || ' ' || (output->>'approved') FROM weir.task_run WHERE run_id = $run AND task_name = 'w'"), 'alice looks good true', 'the output says by whom');
is(value("SELECT activity || ' ' || status || ' ' || (output->>'by') FROM weir.activities WHERE run_id = $run"), 'w/approval succeeded alice', 'so does the log');
$run = waiting('approved');
value("SET ROLE alice; SELECT weir.reject($run, 'w', 'numbers are wrong')");
is(wait_for_run($node, $run), 'failed', 'rejected');
is(value("SELECT failure_type || ' ' || message FROM weir.error WHERE run_id = $run"), 'user rejected by alice: numbers are wrong', 'as a user error');
is(value("SELECT output->>'by' FROM weir.task_run WHERE run_id = $run AND task_name = 'w'"), 'alice', 'with the name in the output');
value("SELECT weir.repair($run)");
wait_for_status($node, $run, 'w', 'running');
value("SELECT weir.approve($run, 'w')");
is(wait_for_run($node, $run), 'succeeded', 'a repaired run asks again');

# --- a condition in SQL
value(q{CREATE TABLE public.flag (up boolean); INSERT INTO public.flag VALUES (false);
	CREATE TABLE public.looked (at timestamptz);});
define('condition', '{"sql": "SELECT up FROM public.flag WHERE {{params.who}} = \'x\'", "every": 1}');
$run = waiting('condition');
wait_until($node, 'it was looked at', "SELECT (kind_state->>'looks')::int >= 1 FROM weir.attempt WHERE run_id = $run AND status = 'started'");
like(why($run), qr/^condition: its condition is looked at again and again; \d+ looks? so far/, 'why says what is going on');
kill9_backend($node, 'weir conductor');
my $looks = value("SELECT kind_state->>'looks' FROM weir.attempt WHERE run_id = $run AND status = 'started'");
wait_until($node, 'it is looked at after a crash', "SELECT (kind_state->>'looks')::int > $looks FROM weir.attempt WHERE run_id = $run AND status = 'started'");
is(attempts($run), '1', 'looks are no attempts');
value('UPDATE public.flag SET up = true');
is(wait_for_run($node, $run), 'succeeded', 'until it holds');
is(attempts($run), '1', 'in one attempt');
value('UPDATE public.flag SET up = NULL');
$run = waiting('condition');
wait_until($node, 'null counts as false', "SELECT (kind_state->>'looks')::int >= 1 FROM weir.attempt WHERE run_id = $run AND status = 'started'");
value("SELECT weir.cancel($run)");
is(wait_for_run($node, $run), 'cancelled', 'cancelled between two looks');
my %bad = (
	no_row => [ 'SELECT true WHERE false', qr/returned no row/ ],
	two_rows => [ 'SELECT true FROM generate_series(1, 2)', qr/more than one row/ ],
	number => [ 'SELECT 1', qr/did not return a boolean/ ],
	text => [ "SELECT 'true'::text", qr/did not return a boolean/ ],
	columns => [ 'SELECT true, true', qr/one column/ ],
	error => [ 'SELECT 1 / 0 > 0', qr/division by zero/ ],
	writes => [ 'WITH w AS (INSERT INTO public.looked VALUES (now()) RETURNING 1) SELECT true FROM w', qr/read-only transaction/ ]);
foreach my $name (sort keys %bad)
{
	my ($sql, $expected) = @{ $bad{$name} };
	define("bad_$name", qq({"sql": "$sql"}));
	$run = weir_trigger($node, "bad_$name");
	is(wait_for_run($node, $run), 'failed', "condition: $name");
	like(value("SELECT error_message FROM weir.attempt WHERE run_id = $run AND status = 'failed'"), $expected, "condition: $name says why");
}
# Cancelled while a worker looks
define('slow', '{"sql": "SELECT pg_sleep(1000) IS NULL"}');
$run = waiting('slow');
wait_until($node, 'a worker looks', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
value("SELECT weir.cancel($run)");
is(wait_for_run($node, $run), 'cancelled', 'cancelled while a worker looks');
# A worker that is terminated while it looks
$run = waiting('slow');
wait_until($node, 'a worker looks', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
my $pid = value(q{SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
value("SELECT pg_terminate_backend($pid)");
wait_until($node, 'another worker looks', qq{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid <> $pid});
is(attempts($run), '1', 'a lost look is repeated in the same attempt');
kill9_backend($node, 'weir SQL worker');
wait_until($node, 'it is looked at after a crash', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
value("SELECT weir.cancel($run)");
is(wait_for_run($node, $run), 'cancelled', 'and is cancelled');

# --- items of a for_each
value(q{SELECT weir.create_pipeline('items', '{"tasks": [{"name": "each", "kind": "for_each", "spec": {"items": ["a", "b"], "task":
	{"kind": "wait", "spec": {"approval": "{{item}}?"}}}}]}')});
$run = weir_trigger($node, 'items');
wait_until($node, 'both items ask', "SELECT count(*) = 2 FROM weir.why($run) WHERE waiting_for = 'approval'");
value("SELECT weir.approve($run, task) FROM weir.why($run) WHERE waiting_for = 'approval'");
is(wait_for_run($node, $run), 'succeeded', 'every item is approved');

# --- many waits, few workers
value(q{SELECT weir.create_pipeline('crowd', jsonb_build_object('tasks', jsonb_agg(jsonb_build_object('name', 'w' || n, 'kind', 'wait',
	'spec', jsonb_build_object('signal', 'go'))))) FROM generate_series(1, 500) n});
my $crowd = weir_trigger($node, 'crowd');
wait_until($node, 'all wait', "SELECT count(*) = 500 FROM weir.task_run WHERE run_id = $crowd AND status = 'running'");
is(value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'weir SQL worker' AND state = 'active'}), '0', 'they hold no worker');
kill9_backend($node, 'weir conductor');
is(value("SELECT weir.signal('go')"), '500', 'all are woken');
is(wait_for_run($node, $crowd), 'succeeded', 'and all go on');
is(value("SELECT count(*) FROM weir.attempt WHERE run_id = $crowd"), '500', 'in one attempt each');

# --- without a conductor: weir.conduct() does what can be done, and leaves what waits for people
$node->safe_psql('postgres', q{ALTER SYSTEM SET weir.enabled = off});
$node->reload;
wait_until($node, 'the conductor has gone', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'weir conductor%'});
value('UPDATE public.flag SET up = true');
my @here = map { weir_trigger($node, $_) } qw(briefly condition approved);
$node->safe_psql('postgres', 'CALL weir.conduct()');
is(value('SELECT string_agg(status, \' \' ORDER BY run_id) FROM weir.run WHERE run_id IN (' . join(', ', @here) . ')'), 'succeeded succeeded running', 'conduct() ends when only people can go on');
value("SELECT weir.approve($here[2], 'w')");
$node->safe_psql('postgres', 'CALL weir.conduct()');
is(value("SELECT status FROM weir.run WHERE run_id = $here[2]"), 'succeeded', 'and goes on where it was');

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), '0', 'no attempt is left over');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
$node->stop;
done_testing();
