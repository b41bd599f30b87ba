# Life of weir's processes: from CREATE EXTENSION to DROP DATABASE, without
# preload, after termination, on a standby, and at rest.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $noop = q{{"tasks": [{"name": "a", "kind": "noop", "spec": {}}]}};
my $sql = q{{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1"}}, {"name": "b", "kind": "noop", "spec": {}, "depends_on": ["a"]}]}};
my $gated = q{{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT pg_advisory_xact_lock_shared(7)"}}]}};
my $sleeps = q{{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT pg_sleep(3600)"}}]}};

sub pipelines
{
	my ($node, $dbname) = @_;
	$node->safe_psql($dbname, qq{
		SELECT weir.create_pipeline('of_noop', '$noop'), weir.create_pipeline('of_sql', '$sql'),
			weir.create_pipeline('gated', '$gated'), weir.create_pipeline('sleeps', '$sleeps')});
	return;
}

sub ends_well
{
	my ($node, $pipeline, $what, %options) = @_;
	my $run = weir_trigger($node, $pipeline, %options);
	is(wait_for_run($node, $run, undef, %options), 'succeeded', $what);
	return $run;
}

sub no_processes
{
	my ($node, $database) = @_;
	return wait_until($node, "no process of weir in $database",
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '$database' AND backend_type LIKE 'weir %'");
}

my $node = weir_node('life', extension => 0, allows_streaming => 1);

# --- the extension brings its conductor
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'weir conductor%'"), '0', 'no extension, no conductor');
$node->safe_psql('postgres', 'BEGIN; CREATE EXTENSION weir; ROLLBACK');
$node->safe_psql('postgres', 'CREATE EXTENSION weir');
ok(backend_pid($node, 'weir conductor%', in => 'postgres'), 'CREATE EXTENSION starts one');
pipelines($node, 'postgres');
ends_well($node, 'of_sql', 'which runs pipelines');

$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION weir');
ok(backend_pid($node, 'weir conductor%', in => 'second'), 'another database gets its own');
pipelines($node, 'second');
ends_well($node, 'of_sql', 'and runs pipelines', dbname => 'second');
ends_well($node, 'of_sql', 'as does the first');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'weir conductor%'"), '2', 'one each');

# --- terminated in the middle of a run
$node->safe_psql('postgres', "BEGIN; SELECT pg_advisory_xact_lock(7); PREPARE TRANSACTION 'gate'");
my $run = weir_trigger($node, 'gated');
is(wait_for_status($node, $run, 'a', 'running'), 'running', 'a task runs');
my $pid = backend_pid($node, 'weir conductor%', in => 'postgres');
is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)"), 't', 'the conductor is terminated');
ok(wait_until($node, 'another conductor',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type LIKE 'weir conductor%' AND datname = 'postgres' AND pid <> $pid"), 'another one comes');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'gate'");
is(wait_for_run($node, $run), 'succeeded', 'and finishes the run');

# --- weir.wait()
$node->safe_psql('postgres', "BEGIN; SELECT pg_advisory_xact_lock(7); PREPARE TRANSACTION 'gate'");
$run = weir_trigger($node, 'gated');
is($node->safe_psql('postgres', "SELECT weir.wait($run, '100 milliseconds')"),
	$node->safe_psql('postgres', "SELECT status FROM weir.run WHERE run_id = $run"), 'weir.wait() gives up after its timeout');
my ($out, $err) = ('', '');
my $waiting = IPC::Run::start(
	[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SELECT weir.wait($run)" ], '>', \$out, '2>', \$err);
wait_until($node, 'somebody waits', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT weir.wait($run)' AND state = 'active'");
$node->safe_psql('postgres', "ROLLBACK PREPARED 'gate'");
$waiting->finish;
is($out, "succeeded\n", 'weir.wait() wakes up');

# --- at rest
# Both databases have nothing due.  What the conductor of the second did last
# must still be the last after runs in the first came and went.
my $last_loop = "SELECT pid || ' ' || detail FROM weir.status WHERE component = 'conductor'";
wait_until($node, 'the second database is at rest',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'second' AND backend_type LIKE 'weir %' AND state = 'active'");
# Its own statistics are written by then or by the end of the idle worker,
# which wakes it once; one that polls is awake in every round.
my ($before, $after) = ('', ' ');
for (my $round = 1; $round <= 3 && $before ne $after; $round++)
{
	$before = $node->safe_psql('second', $last_loop);
	ends_well($node, 'of_sql', "run $_ in the first database") foreach (1 .. 5);
	$after = $node->safe_psql('second', $last_loop);
}
is($after, $before, 'the conductor of the second slept');

# --- DROP DATABASE and DROP EXTENSION do not wait for tasks
$run = weir_trigger($node, 'sleeps', dbname => 'second');
is(wait_for_status($node, $run, 'a', 'running', dbname => 'second'), 'running', 'a task sleeps for an hour');
my $worker = backend_pid($node, 'weir SQL worker%', in => 'second');
$node->safe_psql('postgres', 'DROP DATABASE second');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE datname = 'second'"), '0', 'DROP DATABASE under a task');
ends_well($node, 'of_sql', 'the other database goes on');

$node->safe_psql('postgres', 'CREATE DATABASE third');
$node->safe_psql('third', 'CREATE EXTENSION weir');
pipelines($node, 'third');
$run = weir_trigger($node, 'sleeps', dbname => 'third');
is(wait_for_status($node, $run, 'a', 'running', dbname => 'third'), 'running', 'another task sleeps');
$node->safe_psql('third', 'DROP EXTENSION weir CASCADE');
ok(no_processes($node, 'third'), 'DROP EXTENSION under a task ends all processes');
$node->safe_psql('third', 'CREATE EXTENSION weir');
pipelines($node, 'third');
ends_well($node, 'of_sql', 'created again, it works again', dbname => 'third');

# --- a standby
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->safe_psql('postgres', "SELECT weir.pause_pipeline('of_sql')");
$run = weir_trigger($node, 'of_sql');
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT status FROM weir.run WHERE run_id = $run"), 'queued', 'a run is queued on the standby too');
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'weir conductor%'"), '0', 'which has no conductor');
my ($status) = $standby->psql('postgres', "SELECT weir.trigger('of_noop')", stderr => \my $stderr);
isnt($status, 0, 'and cannot trigger');
$node->stop;
$standby->promote;
ok(backend_pid($standby, 'weir conductor%', in => 'postgres'), 'once promoted, it has one');
$standby->safe_psql('postgres', "SELECT weir.resume_pipeline('of_sql')");
is(wait_for_run($standby, $run), 'succeeded', 'and the queued run runs');
$standby->stop;

# --- not preloaded
my $bare = weir_node('bare', extension => 0, conf => "shared_preload_libraries = ''\n");
my $warning;
$bare->psql('postgres', 'CREATE EXTENSION weir', on_error_die => 1, stderr => \$warning);
like($warning, qr/WARNING: +weir is not preloaded/, 'CREATE EXTENSION says what is missing');
like($warning, qr/shared_preload_libraries/, 'and what to do');
pipelines($bare, 'postgres');
is($bare->safe_psql('postgres', "SELECT state FROM weir.status WHERE component = 'launcher'"), 'not preloaded', 'so does weir.status');
my @runs = map { weir_trigger($bare, $_) } ('of_sql', 'of_noop');
$bare->safe_psql('postgres', 'CALL weir.conduct()');
is($bare->safe_psql('postgres', "SELECT string_agg(status, ',') FROM weir.run WHERE run_id IN ($runs[0], $runs[1])"), 'succeeded,succeeded', 'weir.conduct() runs them');
$bare->psql('postgres', 'BEGIN; CALL weir.conduct()', stderr => \$warning);
like($warning, qr/cannot run inside a transaction block/, 'outside a transaction block');
$bare->stop;

done_testing();
