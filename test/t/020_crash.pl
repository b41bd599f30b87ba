# kill -9 at chosen moments of the story.  PostgreSQL restarts all its
# processes, and weir goes on by itself: the run succeeds, the ledger shows one
# start of every external run, and the rows are published once.
#
# The job's table is on a node of its own, which does not crash: a database
# that vanishes under the job would be a failure of the job.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $rows = 4334;				# of test/cloud/data
my $warehouse = PostgreSQL::Test::Cluster->new('warehouse');
$warehouse->init;
$warehouse->start;
$warehouse->psql('postgres', PostgreSQL::Test::Utils::slurp_file("$WeirTest::root/test/cloud/staging.sql"));
my $node = weir_node('crash');
my $cloud = weir_cloud($warehouse, speed => 3);
weir_story($node, $cloud);
$node->safe_psql('postgres', q{
	CREATE TABLE public.published (row_audit_id bigint NOT NULL, n integer NOT NULL);
	SELECT weir.alter_pipeline('load_flights', jsonb_set(weir.describe_pipeline('load_flights'),
		'{tasks,2,spec,sql}', to_jsonb(
			'INSERT INTO public.published SELECT {{row_audit_id}}, n FROM generate_series(1, 10) AS n, pg_sleep(1)'::text)))});

sub value { return $node->safe_psql('postgres', $_[0]); }

# Moments: until the cloud has been asked, ...
sub asked
{
	my ($operation) = @_;
	return sub { $cloud->wait(operation => $operation, row_audit_id => $_[0]); };
}

# ... or until a condition on the task runs holds.
sub task
{
	my ($name, $condition) = @_;
	return sub {
		wait_until($node, "$name: $condition",
			"SELECT $condition FROM weir.task_run WHERE run_id = $_[0] AND task_name = '$name'");
	};
}

sub publishing
{
	wait_until($node, 'publish_flights sleeps',
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
	return;
}

my $begun = "status = 'running' AND external_run_id IS NOT NULL";
my $late = { fault => 'delay', delay_ms => 5000 };
my @moments = (
	[ 'while createRun is not answered', asked('adf.createRun'), 'conductor', { operation => 'adf.createRun', %$late } ],
	[ 'after the answer of createRun was lost', asked('adf.createRun'), 'conductor', { operation => 'adf.createRun', fault => 'reset_after' } ],
	[ 'after half an answer of createRun', asked('adf.createRun'), 'conductor', { operation => 'adf.createRun', fault => 'half_body' } ],
	[ 'while the copy runs', task('copy_flights', $begun), 'conductor' ],
	[ 'between copy and job', task('copy_flights', "status = 'succeeded'"), 'launcher' ],
	[ 'while run-now is not answered', asked('databricks.run-now'), 'conductor', { operation => 'databricks.run-now', %$late } ],
	[ 'after the answer of run-now was lost', asked('databricks.run-now'), 'immediate', { operation => 'databricks.run-now', fault => 'reset_after' } ],
	[ 'while the job runs', task('transform_flights', $begun), 'conductor' ],
	[ 'while the job runs, whole server', task('transform_flights', $begun), 'immediate' ],
	[ 'while SQL publishes', \&publishing, 'SQL worker' ],
	[ 'while SQL publishes, conductor', \&publishing, 'conductor' ],
	[ 'after publishing', task('publish_flights', "status = 'succeeded'"), 'conductor' ]);

foreach my $moment (@moments)
{
	my ($name, $wait, $victim, $fault) = @$moment;

	$cloud->clear_faults;
	$cloud->add_fault(%$fault) if $fault;
	my $run = weir_trigger($node, 'load_flights');
	$wait->($run);
	if ($victim eq 'immediate')
	{
		$node->stop('immediate');
		$node->start;
	}
	else
	{
		kill9_backend($node, "weir $victim");
	}
	is(wait_for_run($node, $run), 'succeeded', "$name: the run succeeds");
	is(join(' ', map { $cloud->started($_, row_audit_id => $run) } qw(adf.createRun databricks.run-now)),
		'1 1', "$name: everything was begun once");
	is($cloud->started('databricks.repair'), 0, "$name: nothing was repaired");
	is(value("SELECT count(*) || ' ' || count(DISTINCT n) FROM public.published WHERE row_audit_id = $run"),
		'10 10', "$name: published once");
	is($warehouse->safe_psql('postgres', "SELECT count(*) FROM staging.flights WHERE row_audit_id = $run"),
		$rows, "$name: loaded once");
	is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), 0, "$name: no attempt is left over");
}

# --- SQL tasks alone, server and SQL worker
foreach my $victim ('SQL worker', 'immediate')
{
	my $run = weir_trigger($node, 'three_steps');
	publishing();
	if ($victim eq 'immediate')
	{
		$node->stop('immediate');
		$node->start;
	}
	else
	{
		kill9_backend($node, "weir $victim");
	}
	is(wait_for_run($node, $run), 'succeeded', "three steps, $victim: succeeded");
	is(value("SELECT string_agg(step, ' ' ORDER BY done_at) FROM public.steps_done WHERE run_id = $run"),
		'one two three', "three steps, $victim: each once");
}
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');

$node->stop;
$warehouse->stop;
done_testing();
