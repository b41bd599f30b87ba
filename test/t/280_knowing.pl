# Plans that come true, progress, watching, notifications and simulations.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('knowing', conf => "weir.notify = 'tasks'\n");

sub value { return $node->safe_psql('postgres', $_[0]); }

# What a plan says of each task, and what a run came to, in the same words.
sub planned
{
	my ($pipeline, $more) = @_;
	$more //= '';
	return value("SELECT string_agg(task || ' ' || action, ', ' ORDER BY task) FROM weir.plan('$pipeline'$more) WHERE task IS NOT NULL");
}

sub came_to
{
	my ($run) = @_;
	return value(qq{SELECT string_agg(task_name || ' ' || CASE status WHEN 'succeeded' THEN 'run' ELSE status END, ', ' ORDER BY task_name)
		FROM weir.task_run WHERE run_id = $run});
}

value('CREATE TABLE public.gate (divisor integer); INSERT INTO public.gate VALUES (1)');
value(q{SELECT weir.create_pipeline('daily', '{"tasks": [
	{"name": "land", "kind": "sql", "phase": "land", "spec": {"sql": "SELECT pg_advisory_xact_lock_shared(91)"}},
	{"name": "alarm", "kind": "noop", "depends_on": ["land"], "run_if": "at_least_one_failed", "spec": {}},
	{"name": "clean", "kind": "sql", "depends_on": ["land"], "spec": {"sql": "SELECT 1 / divisor AS one FROM public.gate"}},
	{"name": "choose", "kind": "if", "depends_on": ["clean"], "spec": {"left": 1, "op": "==", "right": 1}},
	{"name": "yes", "kind": "noop", "depends_on": [{"task": "choose", "branch": "true"}], "spec": {}},
	{"name": "no", "kind": "noop", "depends_on": [{"task": "choose", "branch": "false"}], "spec": {}},
	{"name": "off", "kind": "noop", "enabled": false, "spec": {}},
	{"name": "publish", "kind": "noop", "depends_on": ["yes", "off"], "phase": "publish", "spec": {}}]}')});

# --- a plan comes true
my $plan = planned('daily');
my $run = weir_trigger($node, 'daily');
is(wait_for_run($node, $run), 'succeeded', 'a run');
is($plan, came_to($run), 'does what was planned');
is($plan, 'alarm skipped, choose run, clean run, land run, no skipped, off skipped, publish run, yes run', 'namely this');
$plan = planned('daily', q{, tasks => '{clean+}'});
$run = value(q{SELECT weir.trigger('daily', tasks => '{clean+}')});
is(wait_for_run($node, $run), 'succeeded', 'a partial run');
is($plan, came_to($run), 'does what was planned');

value('UPDATE public.gate SET divisor = 0');
my $failed = weir_trigger($node, 'daily');
is(wait_for_run($node, $failed), 'failed', 'a failure after landing');
value('UPDATE public.gate SET divisor = 1');
is(value(q{SELECT action || ' ' || (spec->>'row_audit_id') FROM weir.plan('daily') WHERE wave = 0}), "D $failed", 'the plan is to resume');
$plan = planned('daily');
my $simulated = value(q{SELECT string_agg(task || ' ' || CASE status WHEN 'succeeded' THEN 'run' ELSE status END, ', ' ORDER BY task)
	FROM weir.simulate('daily') WHERE task IS NOT NULL});
is($simulated, $plan, 'a simulation comes to the same');
is(value('SELECT max(run_id) FROM weir.run'), $failed, 'and leaves nothing');
$run = weir_trigger($node, 'daily');
is(wait_for_run($node, $run), 'succeeded', 'it is resumed');
is($plan, came_to($run), 'as was planned');
like($plan, qr/^alarm skipped.*land reused/, 'landing is reused, and the handler of its failure has nothing to do');

# --- notifications
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN weir_run; LISTEN weir_task');
value(q{BEGIN; SELECT weir.trigger('daily'); ROLLBACK});
$run = weir_trigger($node, 'daily');
is(wait_for_run($node, $run), 'succeeded', 'a run that is listened to');
my $heard = $listener->query_safe('SELECT 1');
my @runs = $heard =~ /"weir_run" with payload "(\{.*?\})" received/g;
is(scalar(@runs), 3, 'three changes of one run, none of what was rolled back');
is($runs[0], qq({"run_id": $run, "pipeline": "daily", "status": "queued"}), 'queued');
is($runs[1], qq({"run_id": $run, "pipeline": "daily", "status": "running", "was": "queued"}), 'running');
is($runs[2], qq({"run_id": $run, "pipeline": "daily", "status": "succeeded", "was": "running"}), 'succeeded');
like($heard, qr/"weir_task" with payload "\{"run_id": $run, "task_run_id": \d+, "task": "land", "item": 0, "attempt": 1, "status": "succeeded", "was": "running"\}"/, 'and of tasks');
$node->append_conf('postgresql.conf', "weir.notify = 'runs'\n");
$node->reload;
# The conductor reads its settings when it looks the next time, at the latest with this run.
is(wait_for_run($node, weir_trigger($node, 'daily')), 'succeeded', 'a run');
$listener->query_safe('SELECT 1');
is(wait_for_run($node, weir_trigger($node, 'daily')), 'succeeded', 'another run');
unlike($listener->query_safe('SELECT 1'), qr/"weir_task"/, 'whose tasks are not spoken of');
$listener->quit;

# --- progress, why and watch
my $gate = $node->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(91)');
$run = weir_trigger($node, 'daily');
wait_for_status($node, $run, 'land', 'running');
my $queued = weir_trigger($node, 'daily');
is(value("SELECT status || ' ' || ended || ' of ' || tasks || ' ' || slowest_task FROM weir.progress($run)"), 'running 1 of 8 land', 'progress of a run');
is(value("SELECT expected_end > now() - interval '1 second' AND expected_end < now() + interval '1 hour' FROM weir.progress($run)"), 't', 'it has an expected end');
is(value("SELECT expected_start IS NOT NULL FROM weir.why($queued) WHERE waiting_for = 'run'"), 't', 'and the run behind it an expected start');

sub watch
{
	my ($id, $arguments) = @_;
	my %watch = (out => '', err => '');
	$watch{handle} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "CALL weir.watch($id$arguments)" ],
		'>', \$watch{out}, '2>', \$watch{err});
	ok(wait_until($node, 'somebody watches', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query = \$q\$CALL weir.watch($id$arguments)\$q\$
		AND state = 'active' AND wait_event_type = 'Extension' AND backend_xmin IS NULL"), 'who watches holds no snapshot');
	return \%watch;
}

my $watch = watch($run, q{, '1 hour'});
$gate->quit;
$watch->{handle}->finish;
like($watch->{err}, qr/^NOTICE: +run $run of pipeline "daily": running\nNOTICE: +off: skipped\nNOTICE: +land: running\n/, 'watching begins with what is');
like($watch->{err}, qr/NOTICE: +land: succeeded after [\d.]+ s\n/, 'says what changes');
like($watch->{err}, qr/NOTICE: +run $run of pipeline "daily": succeeded after [\d.]+ s \(5 succeeded, 3 skipped\)\n$/, 'and how it ended, at once');
is(wait_for_run($node, $queued), 'succeeded', 'the run behind it follows');
my ($result, $stdout, $stderr) = $node->psql('postgres', "CALL weir.watch($queued)");
like($stderr, qr/run $queued of pipeline "daily": succeeded/, 'a run that is over is watched in no time');

# --- a crash in the middle
$gate = $node->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(91)');
$run = weir_trigger($node, 'daily');
wait_for_status($node, $run, 'land', 'running');
$watch = watch($run, '');
kill9_backend($node, 'weir conductor%');
eval { $watch->{handle}->finish; };
eval { $gate->quit; };
$watch = undef;
($result, $stdout, $stderr) = $node->psql('postgres', "CALL weir.watch($run, '100 milliseconds')");
is($result, 0, 'after a crash it can be watched again');
like($stderr, qr/run $run of pipeline "daily": succeeded/, 'until it ends');
is(value("SELECT percent::text || ' ' || (expected_end IS NULL) || ' ' || (by_status->>'succeeded') FROM weir.progress($run)"), '100 true 5', 'and its progress is complete');

# --- a watch can be cancelled
$gate = $node->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(91)');
$run = weir_trigger($node, 'daily');
wait_for_status($node, $run, 'land', 'running');
$watch = watch($run, '');
value(qq{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = 'CALL weir.watch($run)'});
$watch->{handle}->finish;
like($watch->{err}, qr/canceling statement due to user request/, 'a watch is cancelled');
$gate->quit;
is(wait_for_run($node, $run), 'succeeded', 'which is nothing to the run');

# --- runs that never began say why
value(q{SELECT weir.create_pipeline('one', '{"tasks": [{"name": "w", "kind": "wait", "spec": {"signal": "go"}}]}')});
value(q{SELECT * FROM weir.skip_once('one')});
$run = weir_trigger($node, 'one');
is(wait_for_run($node, $run), 'skipped', 'a start that is skipped');
like(value("SELECT detail FROM weir.why($run)"), qr/^it ended as skipped: its start was to be skipped \(C\)/, 'says so');
$run = weir_trigger($node, 'one');
wait_for_status($node, $run, 'w', 'running');
$queued = weir_trigger($node, 'one');
value("SELECT weir.cancel($queued, 'not needed')");
is(wait_for_run($node, $queued), 'cancelled', 'a queued run');
like(value("SELECT detail FROM weir.why($queued)"), qr/^it ended as cancelled: cancelled by \S+: not needed/, 'says who cancelled it and why');
value("SELECT weir.cancel($run)");
is(wait_for_run($node, $run), 'cancelled', 'the one before it');

unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
$node->stop;
done_testing();
