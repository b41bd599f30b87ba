# soak.pl - "make soak": the story again and again, while at random moments a
# random process of weir or of a client is killed with signal 9.  After every
# run: it succeeded, every external run was begun once, the counts agree, no
# attempt is live.  See test/t/020_crash.pl for the same at chosen moments.
#
#   KILLS=N   stop after the run in which the Nth process was killed (200)
#   SEED=N    the seed of the choices, printed; a kill may still find the run
#             at another place than the time before
#
# The job's table is on a node of its own, which does not crash.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use WeirTest;

my $kills = $ENV{KILLS} || 200;
my $seed = $ENV{SEED} || int(rand(1_000_000)) + 1;
my $rows = 4334;				# of test/cloud/data
my @victims = ('weir launcher', 'weir conductor', 'weir conductor', 'weir SQL worker', 'client backend');
my $in_progress = "status IN ('queued', 'running', 'cancelling')";

srand($seed);
note("SEED=$seed KILLS=$kills");

my $warehouse = PostgreSQL::Test::Cluster->new('warehouse');
$warehouse->init;
$warehouse->start;
$warehouse->psql('postgres', PostgreSQL::Test::Utils::slurp_file("$WeirTest::root/test/cloud/staging.sql"));
my $node = weir_node('soak');
my $cloud = weir_cloud($warehouse);
weir_story($node, $cloud);
$node->safe_psql('postgres', q{
	CREATE TABLE public.published (row_audit_id bigint NOT NULL, n integer NOT NULL);
	SELECT weir.alter_pipeline('load_flights', jsonb_set(weir.describe_pipeline('load_flights'),
		'{tasks,2,spec,sql}', to_jsonb(
			'INSERT INTO public.published SELECT {{row_audit_id}}, n FROM generate_series(1, 10) AS n, pg_sleep(0.5)'::text)))});

# A client that waits for the run; its backend is one of the victims.
sub client
{
	my ($run) = @_;
	my $pid = fork() // die "fork: $!";

	return $pid if $pid;
	open(STDOUT, '>', '/dev/null');
	open(STDERR, '>', '/dev/null');
	exec('psql', '-X', '-q', '-d', $node->connstr('postgres'), '-c', "SELECT weir.wait($run)") or exit 127;
}

# Kill one process, if one of that type is there now.  Returns whether.
sub kill_one
{
	my ($victim) = @_;
	my $pid = $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = '$victim' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1");

	return 0 unless $pid;
	my $log = -s $node->logfile;
	return 0 unless kill('KILL', $pid) == 1;
	wait_for_restart($node, $log);
	return 1;
}

my ($killed, $runs) = (0, 0);
while ($killed < $kills)
{
	my $run = weir_trigger($node, 'load_flights');
	my $client = client($run);
	my @done;

	$runs++;
	for (1 .. 1 + int(rand(3)))
	{
		sleep(rand(1.5));
		my $victim = $victims[ rand @victims ];
		push @done, $victim if kill_one($victim);
	}
	$killed += @done;

	my $name = "run $run, " . (@done ? 'killed ' . join(', ', @done) : 'nothing killed');
	my $status = wait_for_run($node, $run);
	waitpid($client, 0);
	is($status, 'succeeded', "$name: succeeded");
	is(join(' ', map { $cloud->started($_, row_audit_id => $run) } qw(adf.createRun databricks.run-now)),
		'1 1', "$name: everything was begun once");
	is($node->safe_psql('postgres', "SELECT count(*) || ' ' || count(DISTINCT n) FROM public.published WHERE row_audit_id = $run"),
		'10 10', "$name: published once");
	is($warehouse->safe_psql('postgres', "SELECT count(*) FROM staging.flights WHERE row_audit_id = $run"),
		$rows, "$name: loaded once");
	is($node->safe_psql('postgres', qq{
			SELECT count(*) FROM weir.attempt a JOIN weir.run r USING (run_id)
			WHERE a.status IN ('intended', 'started') AND NOT r.$in_progress}),
		0, "$name: no attempt is live without a run");
	is($node->safe_psql('postgres', qq{
			SELECT count(*) FROM weir.task_run t JOIN weir.run r USING (run_id)
			WHERE t.status IN ('waiting', 'ready', 'running') AND NOT r.$in_progress}),
		0, "$name: no task is live without a run");
	last unless Test::More->builder->is_passing;
}
is($cloud->started('databricks.repair'), 0, 'nothing was repaired');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
note("$runs runs, $killed processes killed, SEED=$seed");

$node->stop;
$warehouse->stop;
done_testing();
