# Pipelines that call pipelines: outcomes, cancels, timeouts, repairs and
# restarts through several levels, over a killed conductor.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('subpipelines');

sub value { return $node->safe_psql('postgres', $_[0]); }

sub error_of
{
	my ($result, $stdout, $stderr) = $node->psql('postgres', $_[0]);
	return $stderr;
}

sub create { value("SELECT weir.create_pipeline('$_[0]', \$json\$$_[1]\$json\$)"); return; }

# The latest run that a task of this run started.
sub child
{
	my ($run) = @_;
	wait_until($node, "run $run has a child", "SELECT count(*) > 0 FROM weir.run WHERE parent_run_id = $run");
	return value("SELECT max(run_id) FROM weir.run WHERE parent_run_id = $run");
}

value(q{
	CREATE TABLE public.did (id bigint GENERATED ALWAYS AS IDENTITY, what text, run_id bigint, audit bigint);
	CREATE TABLE public.gate (divisor integer);
	INSERT INTO public.gate VALUES (1)});
my $did = 'INSERT INTO public.did (what, run_id, audit) VALUES ({{params.what}}, {{run.id}}, {{row_audit_id}})';
create('child', qq({"parameters": {"what": {"type": "text", "required": true}}, "tasks": [
	{"name": "land", "kind": "sql", "phase": "land", "spec": {"sql": "$did"}},
	{"name": "clean", "kind": "sql", "depends_on": ["land"], "spec": {"sql": "SELECT 1 / divisor FROM public.gate"}}]}));
create('parent', q({"parameters": {"what": {"type": "text", "default": "one"}}, "tasks": [
	{"name": "first", "kind": "noop"},
	{"name": "call", "kind": "pipeline", "depends_on": ["first"], "spec": {"pipeline": "child", "params": {"what": "{{params.what}}"}}},
	{"name": "after", "kind": "sql", "depends_on": ["call"],
		"spec": {"sql": "SELECT {{tasks.call.output.run_id}} AS child, {{tasks.call.output.status}} AS status"}}]}));
create('grandparent', q({"tasks": [{"name": "up", "kind": "pipeline", "spec": {"pipeline": "parent", "params": {"what": "two"}}}]}));

# --- it ends well, through two levels
my $top = weir_trigger($node, 'grandparent');
is(wait_for_run($node, $top), 'succeeded', 'a pipeline in a pipeline in a pipeline');
my $middle = child($top);
my $bottom = child($middle);
is(value("SELECT output->'rows'->0->>'child' FROM weir.task_run WHERE run_id = $middle AND task_name = 'after'"), $bottom, 'the output names the run');
is(value("SELECT string_agg(parent_run_id::text, ' ' ORDER BY run_id) FROM weir.runs WHERE run_id IN ($middle, $bottom)"), "$top $middle", 'weir.runs names the parents');
is(value("SELECT trigger_type || ' ' || trigger_name FROM weir.runs WHERE run_id = $bottom"), 'pipeline parent.call', 'and the task');
is(value("SELECT what || ' ' || (run_id = $bottom) || ' ' || (audit = $bottom) FROM public.did"), 'two true true', 'the child has its own row audit id');

# --- it fails: the error goes up; a repair repairs the same runs
value('UPDATE public.gate SET divisor = 0; TRUNCATE public.did');
$top = weir_trigger($node, 'grandparent');
is(wait_for_run($node, $top), 'failed', 'a failure goes up');
$middle = child($top);
$bottom = child($middle);
like(value("SELECT error_message FROM weir.run WHERE run_id = $top"),
	qr/^up: run $middle of pipeline "parent" ended as failed: call: run $bottom of pipeline "child" ended as failed: clean: division by zero/, 'with its message');
is(value("SELECT output->>'status' FROM weir.task_run WHERE run_id = $top AND task_name = 'up'"), 'failed', 'and status in the output');
is(value("SELECT string_agg(DISTINCT failure_type, ' ') FROM weir.attempt WHERE run_id IN ($top, $middle, $bottom) AND status = 'failed'"), 'user', 'and its type');
value('UPDATE public.gate SET divisor = 1');
value("SELECT weir.repair($top)");
is(wait_for_run($node, $top), 'succeeded', 'repaired');
is(value("SELECT string_agg(run_id::text || status || repair_no, ' ' ORDER BY run_id) FROM weir.run WHERE run_id IN ($top, $middle, $bottom)"),
	"${top}succeeded1 ${middle}succeeded1 ${bottom}succeeded1", 'all three are the same runs');
is(value("SELECT count(*) FROM weir.run WHERE parent_run_id IN ($top, $middle)"), '2', 'and no new ones');
is(value("SELECT string_agg(what || run_id, ' ') FROM public.did"), "two$bottom", 'what had succeeded did not go again');

# --- repaired alone first: the parent's repair takes what it finds
value('UPDATE public.gate SET divisor = 0');
my $run = weir_trigger($node, 'parent');
is(wait_for_run($node, $run), 'failed', 'another failure');
$bottom = child($run);
value("UPDATE public.gate SET divisor = 1; SELECT weir.repair($bottom)");
is(wait_for_run($node, $bottom), 'succeeded', 'the child is repaired alone');
value("SELECT weir.repair($run)");
is(wait_for_run($node, $run), 'succeeded', 'then the parent');
is(value("SELECT count(*) || ' ' || max(repair_no) FROM weir.run WHERE parent_run_id = $run"), '1 1', 'which starts nothing');

# --- cannot be repaired: the child is not the latest run of its pipeline
value('UPDATE public.gate SET divisor = 0');
$run = weir_trigger($node, 'parent');
is(wait_for_run($node, $run), 'failed', 'and another');
$bottom = child($run);
value('UPDATE public.gate SET divisor = 1');
is(wait_for_run($node, weir_trigger($node, 'child', params => '{"what": "else"}')), 'succeeded', 'the child pipeline has run since');
value("SELECT weir.repair($run)");
is(wait_for_run($node, $run), 'succeeded', 'the parent is repaired');
isnt(child($run), $bottom, 'with a new run');

# --- a new attempt goes on with the same run; a restart obeys D on both levels
value('TRUNCATE public.did; UPDATE public.gate SET divisor = 0');
create('retries', q({"tasks": [{"name": "call", "kind": "pipeline", "retry": {"max_attempts": 2, "initial_delay": 0, "max_delay": 0},
	"spec": {"pipeline": "child", "params": {"what": "again"}}}]}));
$run = weir_trigger($node, 'retries');
is(wait_for_run($node, $run), 'failed', 'two attempts');
$bottom = child($run);
is(value("SELECT count(*) || ' ' || max(repair_no) FROM weir.run WHERE parent_run_id = $run"), '1 1', 'at one run');
value('UPDATE public.gate SET divisor = 1');
my $restarted = value("SELECT weir.restart($run)");
is(wait_for_run($node, $restarted), 'succeeded', 'restarted');
is(value('SELECT start_status::text || row_audit_id FROM weir.run WHERE run_id = ' . child($restarted)), "D$bottom", 'the new child resumes after the landing of the old');
is(value('SELECT count(*) FROM public.did'), '1', 'and lands nothing again');

# --- wait: false
create('detached', q({"tasks": [{"name": "call", "kind": "pipeline", "spec": {"pipeline": "child", "params": {"what": "apart"}, "wait": false}}]}));
value(q{SELECT weir.pause_pipeline('child')});
$run = weir_trigger($node, 'detached');
is(wait_for_run($node, $run), 'succeeded', 'without waiting');
$bottom = child($run);
is(value("SELECT output FROM weir.task_run WHERE run_id = $run"), qq({"run_id": $bottom, "status": "queued"}), 'the output names the run');

# --- a paused child is a wait with a reason; cancel and timeout reach it
$run = weir_trigger($node, 'parent');
my $paused = child($run);
like(value("SELECT waiting_for || ': ' || detail || ' ' || hint FROM weir.why($run) WHERE task = 'call'"),
	qr/^run: run $paused of pipeline "child", which is queued: the pipeline is paused SELECT weir.resume_pipeline\('child'\);/, 'why names the child and its reason');
kill9_backend($node, 'weir conductor');
value("SELECT weir.cancel($run, 'enough')");
is(wait_for_run($node, $run), 'cancelled', 'cancelled while the child is queued');
is(wait_for_run($node, $paused), 'cancelled', 'its child too');
is(value("SELECT status || ': ' || cancel_reason FROM weir.run WHERE run_id = $paused"), "cancelled: cancelled by run $run: cancelled by " . value("SELECT current_user") . ": enough", 'and it knows why');
is(value("SELECT status FROM weir.run WHERE run_id = $bottom"), 'queued', 'a run nobody waits for is not');
value(q{SELECT weir.resume_pipeline('child')});
is(wait_for_run($node, $bottom), 'succeeded', 'resumed');

create('slow', q({"tasks": [{"name": "s", "kind": "sql", "spec": {"sql": "SELECT pg_sleep(1000)"}}]}));
create('calls_slow', q({"tasks": [{"name": "call", "kind": "pipeline", "spec": {"pipeline": "slow"}}]}));
create('run_timeout', q({"timeout": 1, "tasks": [{"name": "call", "kind": "pipeline", "spec": {"pipeline": "calls_slow"}}]}));
create('task_timeout', q({"tasks": [{"name": "call", "kind": "pipeline", "timeout": 1, "spec": {"pipeline": "calls_slow"}}]}));
foreach my $pipeline ('run_timeout', 'task_timeout')
{
	$run = weir_trigger($node, $pipeline);
	is(wait_for_run($node, $run), $pipeline eq 'run_timeout' ? 'timed_out' : 'failed', "$pipeline: the run");
	is(value("SELECT status FROM weir.task_run WHERE run_id = $run"), 'timed_out', "$pipeline: its task");
	is(value('SELECT status FROM weir.run WHERE run_id = ' . child(child($run))), 'cancelled', "$pipeline: two levels below");
}
$run = weir_trigger($node, 'calls_slow');
$bottom = child($run);
wait_for_status($node, $bottom, 's', 'running');
value("SELECT weir.cancel($bottom)");
is(wait_for_run($node, $run), 'cancelled', 'a child that is cancelled cancels its parent');

# --- killed in the middle: at both levels at work, and while cancelling
$run = weir_trigger($node, 'calls_slow');
$bottom = child($run);
wait_for_status($node, $bottom, 's', 'running');
kill9_backend($node, 'weir conductor');
wait_for_status($node, $bottom, 's', 'running');
is(value("SELECT count(*) FROM weir.run WHERE parent_run_id = $run"), '1', 'a crash starts no second child');
value("SELECT weir.cancel($run)");
kill9_backend($node, 'weir conductor');
is(wait_for_run($node, $run), 'cancelled', 'cancelled over a crash');
is(value("SELECT status FROM weir.run WHERE run_id = $bottom"), 'cancelled', 'with its child');
create('many', '{"max_concurrent_runs": 50, "tasks": [' . join(', ', map { qq({"name": "c$_", "kind": "pipeline", "spec": {"pipeline": "leaf"}}) } 1 .. 20) . ']}')
  if eval { create('leaf', '{"max_concurrent_runs": 100, "tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop", "depends_on": ["a"]}]}'); 1 };
my @many = map { weir_trigger($node, 'many') } 1 .. 10;
kill9_backend($node, 'weir conductor');
is(join(' ', map { wait_for_run($node, $_) } @many), join(' ', ('succeeded') x 10), 'two hundred children over a crash');
is(value('SELECT count(*) || \' \' || count(DISTINCT parent_task_run_id) FROM weir.run WHERE pipeline_name = \'leaf\''), '200 200', 'each started once');

# --- disabled; clear failures: dropped, parameters, rights at run time
value(q{SELECT * FROM weir.set_pipeline_enabled('slow', false)});
$run = weir_trigger($node, 'calls_slow');
is(wait_for_run($node, $run), 'succeeded', 'a disabled child is skipped');
is(value("SELECT output->>'status', output->>'reason' FROM weir.task_run WHERE run_id = $run AND kind = 'pipeline'"), 'skipped|pipeline "slow" is disabled', 'which the task says');
is(value("SELECT count(*) FROM weir.run WHERE parent_run_id = $run"), 0, 'without a run');
value(q{SELECT weir.drop_pipeline('slow')});
$run = weir_trigger($node, 'calls_slow');
is(wait_for_run($node, $run), 'failed', 'a dropped child');
like(value("SELECT error_message FROM weir.run WHERE run_id = $run"), qr/pipeline "slow" does not exist/, 'as well');
create('slow', q({"parameters": {"n": {"type": "bigint", "required": true}}, "tasks": [{"name": "s", "kind": "noop"}]}));
$run = weir_trigger($node, 'calls_slow');
is(wait_for_run($node, $run), 'failed', 'a child with other parameters');
like(value("SELECT error_message FROM weir.run WHERE run_id = $run"), qr/pipeline "slow": parameter "n" is missing/, 'too');
value(q{CREATE ROLE anna LOGIN; GRANT weir_admin TO anna; CREATE ROLE berta LOGIN; GRANT weir_admin TO berta});
value(q{SET ROLE anna; SELECT weir.create_pipeline('annas', '{"tasks": [{"name": "s", "kind": "sql", "spec": {"sql": "SELECT current_user AS me"}}]}')});
value(q{SET ROLE berta; SELECT weir.create_pipeline('bertas', '{"tasks": [{"name": "call", "kind": "pipeline", "spec": {"pipeline": "annas"}}]}')});
$run = weir_trigger($node, 'bertas');
is(wait_for_run($node, $run), 'succeeded', 'a child of another owner');
$bottom = child($run);
is(value("SELECT output->'rows'->0->>'me' FROM weir.task_run WHERE run_id = $bottom"), 'anna', 'runs as its own owner');
is(value("SELECT owner || ' ' || triggered_by FROM weir.runs WHERE run_id = $bottom"), 'anna berta', 'triggered by the parent\'s');
value('REVOKE weir_admin FROM berta');
$run = weir_trigger($node, 'bertas');
is(wait_for_run($node, $run), 'failed', 'without the right');
like(value("SELECT error_message FROM weir.run WHERE run_id = $run"), qr/role "berta", may not trigger pipeline "annas"/, 'it may not');
is(value("SELECT count(*) FROM weir.run WHERE parent_run_id = $run"), '0', 'and does not');

# --- skipped once: that is what the operator wants
value(q{SELECT * FROM weir.skip_once('leaf')});
create('calls_leaf', '{"tasks": [{"name": "call", "kind": "pipeline", "spec": {"pipeline": "leaf"}}]}');
$run = weir_trigger($node, 'calls_leaf');
is(wait_for_run($node, $run), 'succeeded', 'a child that is skipped once');
is(value("SELECT output->>'status' FROM weir.task_run WHERE run_id = $run"), 'skipped', 'as the output says');

# --- a call for each item
create('each', '{"tasks": [{"name": "each", "kind": "for_each", "spec": {"items": ["x", "y", "z"], "task":
	{"kind": "pipeline", "spec": {"pipeline": "child", "params": {"what": "{{item}}"}}}}}]}');
value('TRUNCATE public.did');
$run = weir_trigger($node, 'each');
is(wait_for_run($node, $run), 'succeeded', 'a call for each item');
is(value('SELECT string_agg(what, \' \' ORDER BY what) FROM public.did'), 'x y z', 'with its parameter');

# --- two sessions that each close half of a cycle take turns
create('c1', '{"tasks": [{"name": "a", "kind": "noop"}]}');
create('c2', '{"tasks": [{"name": "a", "kind": "noop"}]}');
my $half = $node->background_psql('postgres');
$half->query_safe(q{BEGIN; SELECT weir.alter_pipeline('c1', '{"tasks": [{"name": "call", "kind": "pipeline", "spec": {"pipeline": "c2"}}]}')});
my $other = $node->background_psql('postgres', on_error_stop => 0);
$other->query_until(qr/started/, q{\echo started
SELECT weir.alter_pipeline('c2', '{"tasks": [{"name": "call", "kind": "pipeline", "spec": {"pipeline": "c1"}}]}');
});
wait_until($node, 'the other waits', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'});
$half->query_safe('COMMIT');
$half->quit;
$other->quit;
is(value(q{SELECT string_agg(current_version::text, ' ' ORDER BY name) FROM weir.pipeline WHERE name IN ('c1', 'c2')}), '2 1', 'the second one is refused');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/pipeline "c2" would call itself: c2 -> c1 -> c2/, 'and told why');

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), '0', 'no attempt is left over');
is(value('SELECT count(*) FROM weir.request'), '0', 'and no request');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
$node->stop;
done_testing();
