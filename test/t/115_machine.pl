# What the machine does at night: somebody sets the clock, and the disk is
# full.  Both are done to a server of this test only: the clock by a library
# that shifts it, the disk by a small file system in a mount namespace.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirClock;
use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $cloud = weir_cloud(undef);
my $address = $cloud->address;
my $dir = PostgreSQL::Test::Utils::tempdir();
my $node;
my $dbname = 'postgres';

sub value { return $node->safe_psql($dbname, $_[0]) }
sub trigger { return weir_trigger($node, $_[0], dbname => $dbname) }
sub outcome { return wait_for_run($node, $_[0], undef, dbname => $dbname) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
sub define
{
	my ($name, $tasks, %more) = @_;
	return "SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => $tasks, %more })) . ');';
}
sub http { my ($path, %more) = @_; return { name => 'call', kind => 'http', connection => 'api', spec => { method => 'POST', path => $path, body => 'x' }, %more } }
sub job { my (%more) = @_; return { name => 'job', kind => 'databricks_job', connection => 'dbx', spec => { job_id => 102, job_parameters => { seconds => '30' } }, %more } }
sub sql { my ($name, $sql, %more) = @_; return { name => $name, kind => 'sql', spec => { sql => $sql }, %more } }
sub tries { my ($n, $delay) = @_; return (retry => { max_attempts => $n, initial_delay => $delay, jitter => 0 }) }

my $setup = qq{
	CREATE TABLE done (run_id bigint);
	SELECT weir.create_secret('token', 'dapi-local');
	SELECT weir.create_connection('api', 'http', '$address/http');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}');};

# --- the clock
SKIP:
{
	skip $_, 1 foreach WeirClock::missing();
	my $clock = WeirClock->new;
	$node = weir_node('clock', start => 0);
	$clock->start($node);
	value("CREATE EXTENSION weir; $setup");
	value(define('retry', [ http('/json/clock', tries(3, '3 seconds')) ]));
	value(define('limited', [ http('/json/limited') ]));
	value(define('sql_retry', [ sql('try', 'INSERT INTO done SELECT {{run.id}} WHERE 1 / (nextval(\'tries\') % 2) = 1', tries(2, '3 seconds')) ]));
	value(define('job', [ job(timeout => '10 minutes') ], timeout => '20 minutes'));
	value(define('slow', [ sql('wait', 'INSERT INTO done SELECT {{run.id}} FROM pg_advisory_xact_lock_shared(1)', timeout => '10 minutes') ], timeout => '20 minutes'));
	value('CREATE SEQUENCE tries START 2');

	my $now = 0;
	foreach my $hours (1, -1, -1, 1, 24, -24)
	{
		my $name = ($hours > 0 ? "forward by $hours h" : 'back by ' . -$hours . ' h') . ($now ? ' from ' . $now / 3600 : '');
		my $jump = sub { $now += $hours * 3600; $clock->set($now) };
		my ($since) = map { $_->{seq} } @{ $cloud->ledger(limit => 1) };
		$since //= 0;

		# A retry waits in the table, one in a SQL task's row, one in memory; a job and a statement are running.
		$cloud->add_fault(path => '/http/json/clock', fault => 'status', status => 409);
		$cloud->add_fault(path => '/http/json/limited', fault => 'status', status => 429, retry_after => 3);
		value("BEGIN; SELECT pg_advisory_xact_lock(1); PREPARE TRANSACTION 'gate'; SELECT setval('tries', 2, false)");
		my %run = map { $_ => weir_trigger($node, $_) } ('job', 'slow', 'retry', 'sql_retry', 'limited');
		wait_until($node, 'the job runs', "SELECT external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $run{job}");
		is(wait_for_status($node, $run{slow}, 'wait', 'running'), 'running', "$name: a statement runs");
		wait_until($node, 'retries wait or are over', "SELECT count(*) = 2 FROM weir.attempt WHERE run_id IN ($run{retry}, $run{sql_retry}) AND status = 'failed'");
		$cloud->wait(path => '/http/json/limited', since => $since, answered => 'true');
		$jump->();

		is(wait_for_run($node, $run{$_}), 'succeeded', "$name: $_") foreach ('retry', 'sql_retry', 'limited', 'job');
		is(value("SELECT status FROM weir.run WHERE run_id = $run{slow}"), 'running', "$name: nothing timed out");
		value("ROLLBACK PREPARED 'gate'");
		is(wait_for_run($node, $run{slow}), 'succeeded', "$name: the statement ends");
		is($cloud->started('databricks.run-now', since => $since), 1, "$name: one job run was begun");
		is(join(' ', map { scalar(@{ $cloud->ledger(path => "/http/json/$_", since => $since) }) } ('clock', 'limited')), '2 2', "$name: two requests each");
		is(value("SELECT count(*) FROM done WHERE run_id IN ($run{slow}, $run{sql_retry})"), '2', "$name: each effect is there once");
		is(value("SELECT count(*) FROM weir.attempt WHERE run_id IN ($run{job}, $run{slow}, $run{limited}) AND attempt_no > 1"), '0', "$name: no other attempt");
	}
	like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/the system clock was set back by (?:3600|3599|3601) s/, 'the log says so');
	unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|terminated by signal|illegal/, 'nothing died');
	$node->stop;
}

# --- the disk
SKIP:
{
	my $mount = "$dir/disk";
	my ($in, $out, $err) = ('', '', '');

	# The process that holds the mount; others reach it through /proc.
	mkdir $mount;
	my $holder = IPC::Run::start([ 'unshare', '-Urm', 'sh', '-c', "mount -t tmpfs -o size=160m,mode=0700 weir-test '$mount' && echo \$\$ && exec cat" ], '<', \$in, '>', \$out, '2>', \$err);
	$holder->pump until $out =~ /\n/ || !$holder->pumpable;
	my ($pid) = $out =~ /^(\d+)/;
	if (!$pid || !-w "/proc/$pid/root$mount")
	{
		$holder->kill_kill;
		skip 'no mount namespace for an ordinary user here: ' . ($err =~ s/\n.*//sr), 1;
	}
	my $disk = "/proc/$pid/root$mount";

	# There lie the database and the write-ahead log.
	$node = weir_node('disk', extension => 0, extra => [ '--wal-segsize=1', "--waldir=$disk/wal" ],
		conf => "max_wal_size = 8MB\nmin_wal_size = 2MB\nshared_buffers = 16MB\n");
	mkdir "$disk/tables", 0700;
	value("CREATE TABLESPACE disk LOCATION '$disk/tables'");
	value('CREATE DATABASE night TABLESPACE disk');
	$dbname = 'night';
	value("CREATE EXTENSION weir; $setup");
	value('CREATE TABLE bulk (run_id bigint, filler text)');
	my $bulk = "INSERT INTO bulk SELECT {{run.id}}, repeat('x', 1000) FROM generate_series(1, 4000)";
	value(define('night', [ http('/json/disk', tries(3, '500 milliseconds')), job(),
		sql('bulk', $bulk, tries(100, '500 milliseconds'), depends_on => [ 'call', 'job' ]),
		sql('end', 'INSERT INTO done VALUES ({{run.id}})', tries(100, '500 milliseconds'), depends_on => ['bulk']) ], max_concurrent_runs => 10));

	# Take all the space, but for what is given as an argument (bytes).
	my $fill = sub {
		my $block = "\0" x 65536;
		open(my $stream, '>>', "$disk/filler") or die "filler: $!";
		1 while syswrite $stream, $block;
		if ($_[0]) { truncate $stream, (-s $stream) - $_[0] }
		close $stream;
	};
	my $clear = sub { unlink "$disk/filler" };
	my $ends_once = sub {
		my ($name, @runs) = @_;
		my $list = join(', ', @runs);

		is(join(' ', map { outcome($_) } @runs), join(' ', ('succeeded') x @runs), "$name: with space again the runs finish");
		is(value("SELECT count(*) || ' ' || count(DISTINCT run_id) FROM done WHERE run_id IN ($list)"), @runs . ' ' . @runs, "$name: each ended once");
		is(value("SELECT count(*) FROM bulk WHERE run_id IN ($list)"), 4000 * @runs, "$name: each landed once");
		is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), '0', "$name: no attempt is left over");
	};
	is(outcome(trigger('night')), 'succeeded', 'disk: a run with space');

	# Full while tasks run: extending a table fails, and in time the log of the server cannot grow.
	foreach my $left (2 * 1024 * 1024, 0)
	{
		my $name = 'disk, ' . $left / 1024 / 1024 . ' MB left';
		my ($since) = map { $_->{seq} } @{ $cloud->ledger(limit => 1) };
		my $log = -s $node->logfile;
		my @runs = map { trigger('night') } (1 .. 4);
		$cloud->wait(operation => 'databricks.run-now', since => $since, count => 4, answered => 'true');
		$fill->($left);
		$node->wait_for_log(qr/No space left on device/, $log);
		# More than the log has room for.  The server may go down by that; that is what a full disk does.
		$node->psql($dbname, 'INSERT INTO done SELECT NULL FROM generate_series(1, 300000)', on_error_stop => 0, timeout => 60);
		note((PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~ /PANIC/) ? "$name: the server went down" : "$name: the server stayed up");
		$clear->();
		# It is up, is coming up, or went down for good.
		until ($node->psql('postgres', 'SELECT true') == 0)
		{
			next if -e $node->data_dir . '/postmaster.pid';
			$node->_update_pid(0);
			$node->start;
		}
		$ends_once->($name, @runs);
		is($cloud->started('databricks.run-now', since => $since), 4, "$name: four job runs were begun");
		is($cloud->started('http.json', since => $since), 4, "$name: four calls took effect");
	}
	unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/signal 11|signal 6:.*weir|illegal/, 'nothing else went wrong');
	$node->stop;
	$in = undef;
	$holder->kill_kill;
}

ok(1, 'the end');
done_testing();
