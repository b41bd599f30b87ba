# The story of weir on real processes: an ADF pipeline copies, a Databricks job
# transforms and fails half-way, the next start resumes after landing, the SQL
# task publishes.  Then cancel, repair and SQL tasks alone.  The cloud's ledger
# is the witness.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $rows = 4334;				# of test/cloud/data
my $node = weir_node('story');
my $cloud = weir_cloud($node);
weir_story($node, $cloud);

sub value { return $node->safe_psql('postgres', $_[0]); }

# Statuses of the tasks of a run, in order.
sub tasks
{
	return value("SELECT string_agg(task_name || ' ' || status, ', ' ORDER BY task_no) FROM weir.task_run WHERE run_id = $_[0]");
}

# How much work the cloud has begun: copies, job runs, repairs.
sub begun
{
	return join(' ', map { $cloud->started($_) } qw(adf.createRun databricks.run-now databricks.repair));
}

# What the last outcome of a run changed carries the same transaction id:
# there was no moment at which one of them was to be seen without the others.
sub one_commit
{
	my ($run, $task) = @_;

	return value(qq{
		SELECT r.xmin = t.xmin AND r.xmin = s.xmin AND r.xmin = a.xmin
		FROM weir.run r
		JOIN weir.pipeline_state s USING (pipeline_id)
		JOIN weir.task_run t USING (run_id)
		JOIN weir.attempt a USING (task_run_id, attempt_no)
		WHERE r.run_id = $run AND t.task_name = '$task'});
}

# --- the job fails half-way
my $failure = 'SparkException: Job aborted due to stage failure: ExecutorLostFailure';
my %failing = (fault => 'task_fails', job_id => '101', task_key => 'load_flights', after_rows => 2000, message => $failure);
$cloud->add_fault(%failing);
my $origin = weir_trigger($node, 'load_flights');
is(wait_for_run($node, $origin), 'failed', 'a failing job fails the run');
is(tasks($origin), 'copy_flights succeeded, transform_flights failed, publish_flights blocked', 'its tasks');
is(begun(), '1 1 0', 'one copy and one job run were begun');
is(value("SELECT next_load_status FROM weir.runs WHERE run_id = $origin"), 'D', 'the next start resumes after landing');
is(value("SELECT next_load_status FROM weir.pipelines WHERE name = 'load_flights'"), 'D', 'the pipeline says the same');
like(value("SELECT string_agg(message, E'\\n') FROM weir.errors WHERE run_id = $origin AND activity LIKE 'transform_flights%'"),
	qr/\Q$failure\E/, "the log has the job's own words");
is(value("SELECT rows_read || ' ' || rows_written FROM weir.task_runs WHERE run_id = $origin AND task_name = 'copy_flights'"),
	"$rows $rows", 'the copy is counted');
is(value("SELECT rows_copied FROM weir.activities WHERE run_id = $origin AND activity_type = 'Copy'"),
	$rows, 'so is its activity');
is(value("SELECT count(*) FROM staging.flights WHERE row_audit_id = $origin"), 2000, 'the job loaded a part');
is(one_commit($origin, 'transform_flights'), 't', 'failure, run status and next load status are one commit');

# --- start again
my $second = weir_trigger($node, 'load_flights');
is(wait_for_run($node, $second), 'succeeded', 'the next run succeeds');
is(tasks($second), 'copy_flights reused, transform_flights succeeded, publish_flights succeeded', 'the copy is reused');
is(begun(), '1 1 1', 'the job run was repaired, nothing was begun anew');
is(value("SELECT concat_ws(' ', start_status, row_audit_id, next_load_status) FROM weir.runs WHERE run_id = $second"),
	"D $origin P", 'it resumed with the origin\'s row_audit_id');
is(value(qq{
		SELECT concat_ws(' ',
			(SELECT rows_read FROM weir.task_runs WHERE run_id = $origin AND task_name = 'copy_flights'),
			(SELECT rows_written FROM weir.task_runs WHERE run_id = $origin AND task_name = 'copy_flights'),
			(SELECT count(*) FROM staging.flights WHERE row_audit_id = $origin),
			(SELECT count(*) FROM public.flights WHERE row_audit_id = $origin),
			(SELECT count(*) FROM public.flights))}),
	"$rows $rows $rows $rows $rows", 'source, landed, staged and published agree');
is(one_commit($second, 'publish_flights'), 't', 'success, run status and next load status are one commit');

# --- repair: the same run again
$cloud->add_fault(%failing);
my $third = weir_trigger($node, 'load_flights');
is(wait_for_run($node, $third), 'failed', 'a run fails');
is(value("SELECT weir.repair($third)"), $third, 'repair answers the same run');
is(wait_for_run($node, $third, 'succeeded'), 'succeeded', 'repaired');
is(tasks($third), 'copy_flights succeeded, transform_flights succeeded, publish_flights succeeded', 'what had succeeded was kept');
is(value("SELECT repair_no || ' ' || row_audit_id FROM weir.runs WHERE run_id = $third"), "1 $third", 'counted as a repair');
is(begun(), '2 2 2', 'one copy, one job run and one repair more');
is(value("SELECT count(*) FROM public.flights WHERE row_audit_id = $third"), $rows, 'published once');

# --- cancel reaches both engines
$node->safe_psql('postgres', q{
	SELECT weir.create_pipeline('long_copy', '{"tasks": [
		{"name": "copy", "kind": "adf_pipeline", "connection": "adf_dev", "phase": "land",
		 "spec": {"pipeline": "wait", "parameters": {"seconds": 36000}}},
		{"name": "after", "kind": "sql", "phase": "publish", "depends_on": ["copy"], "spec": {"sql": "SELECT 1"}}]}');
	SELECT weir.create_pipeline('long_job', '{"tasks": [
		{"name": "job", "kind": "databricks_job", "connection": "dbx_dev", "phase": "transform",
		 "spec": {"job_id": 102, "job_parameters": {"seconds": "36000"}}}]}')});
foreach my $case ([ 'long_copy', 'copy', 'adf.cancel' ], [ 'long_job', 'job', 'databricks.cancel' ])
{
	my ($pipeline, $task, $operation) = @$case;
	my $run = weir_trigger($node, $pipeline);
	wait_until($node, "$task has begun",
		"SELECT status = 'running' AND external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $run AND task_name = '$task'");
	my $external = value("SELECT external_run_id FROM weir.task_run WHERE run_id = $run AND task_name = '$task'");
	is(value("SELECT weir.cancel($run, 'not today')"), 't', "$pipeline: cancel");
	is(wait_for_run($node, $run), 'cancelled', "$pipeline: the run is cancelled");
	is($cloud->requests($operation, run_id => $external), 1, "$pipeline: the engine was told, once");
	is(value("SELECT string_agg(DISTINCT status, ' ') FROM weir.task_run WHERE run_id = $run"), 'cancelled', "$pipeline: so are its tasks");
	like(value("SELECT cancel_reason FROM weir.run WHERE run_id = $run"), qr/not today/, "$pipeline: the reason is kept");
	is(value("SELECT weir.cancel($run)"), 'f', "$pipeline: a second time is too late");
}

# --- SQL tasks alone
my $orders = weir_trigger($node, 'load_orders');
is(wait_for_run($node, $orders), 'succeeded', 'SQL tasks alone');
is(value("SELECT orders || ' ' || agree FROM public.order_totals WHERE row_audit_id = $orders"), '10000 true', 'their result');
is(one_commit($orders, 'publish_totals'), 't', 'outcome and run status are one commit');
my $before = value('SELECT count(*) FROM weir.run');
$node->safe_psql('postgres', q{BEGIN; SELECT weir.trigger('load_orders'); ROLLBACK});
is(value('SELECT count(*) FROM weir.run'), $before, 'a rolled-back trigger leaves nothing');

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), 0, 'no attempt is left over');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|terminated by signal|illegal/, 'nothing died');

$node->stop;
done_testing();
