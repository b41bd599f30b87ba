# WeirTest.pm - what the TAP tests share: nodes with weir, the local cloud, the
# story's objects, waiting for states and killing processes.
#
#   use WeirTest;
#   my $node = weir_node('main');                # started, database postgres has weir
#   my $cloud = weir_cloud($node);               # job 101 loads this node's staging.flights
#   weir_story($node, $cloud);                   # connections, secrets, load_flights, SQL pipelines
#   my $run = weir_trigger($node, 'load_flights');
#   is(wait_for_run($node, $run), 'succeeded');
#   is($cloud->started('adf.createRun'), 1);
#
# All waits are for states, with a limit that is only there to end a hang:
# PG_TEST_TIMEOUT_DEFAULT seconds.

package WeirTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Basename qw(dirname);
use File::Path qw(make_path);
use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirCloud;

our @EXPORT = qw(
  weir_node weir_conf weir_cloud weir_story weir_trigger
  wait_for_run wait_for_status wait_until
  backend_pid kill9_backend wait_for_restart
  excess
);

our $root = $ENV{WEIR_ROOT} // dirname(dirname(dirname(__FILE__)));

# Configuration every node gets.  The key lies outside the data directory.
# What need not wait for the disk (sqlworker.c) is there all the same when a
# test that has seen it kills something.
sub weir_conf
{
	my ($node) = @_;
	my $base = $node->basedir;
	my $key = "$base/weir.key";

	unless (-e $key)
	{
		my $mask = umask 077;
		open(my $random, '<:raw', '/dev/urandom') or die "/dev/urandom: $!";
		read($random, my $bytes, 32) == 32 or die "/dev/urandom: $!";
		open(my $file, '>', $key) or die "$key: $!";
		print $file unpack('H*', $bytes);
		close $file;
		mkdir "$base/secrets";
		umask $mask;
	}
	return qq{
shared_preload_libraries = 'weir'
restart_after_crash = on
wal_writer_delay = 1ms
max_worker_processes = 32
max_prepared_transactions = 10
log_line_prefix = '%m [%p] %b %q%a '
log_statement = none
jit = off
weir.secret_key_file = '$key'
weir.secret_directories = '$base/secrets'
weir.allowed_hosts = '127.0.0.1, localhost'
weir.allowed_private_networks = '127.0.0.0/8'
};
}

# A running node whose database postgres has the extension.  Options: conf =>
# further lines, extension => 0 for none, start => 0 to start it later,
# install_path => another PostgreSQL; the rest goes to init().
sub weir_node
{
	my ($name, %options) = @_;
	my $conf = delete $options{conf} // '';
	my $extension = delete $options{extension} // 1;
	my $start = delete $options{start} // 1;
	my $path = delete $options{install_path};
	my $node = PostgreSQL::Test::Cluster->new($name, $path ? (install_path => $path) : ());

	$node->init(%options);
	$node->append_conf('postgresql.conf', weir_conf($node) . $conf);
	return $node unless $start;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION weir') if $extension;
	return $node;
}

# A local cloud, stopped when the object goes or the test ends.  With a node,
# job 101 loads staging.flights there.  Options: speed, dbname.
sub weir_cloud
{
	my ($node, %options) = @_;
	my $dbname = delete $options{dbname} // 'postgres';

	$options{database} = $node->connstr($dbname) if defined $node;
	return WeirCloud->new(
		root => $root,
		dir => PostgreSQL::Test::Utils::tempdir(),
		%options);
}

# The tables, secrets, connections and pipelines of the demo.  Without a cloud
# only the pipelines of SQL tasks.
sub weir_story
{
	my ($node, $cloud, %options) = @_;
	my $dbname = $options{dbname} // 'postgres';
	my @files = ('test/demo/tables.sql', 'test/demo/story-sql.sql');

	push @files, 'test/cloud/staging.sql', 'test/demo/story.sql' if defined $cloud;
	foreach my $file (@files)
	{
		$node->command_ok(
			[
				'psql', '-X', '-q',
				'-v', 'ON_ERROR_STOP=1',
				'-v', 'cloud=' . (defined $cloud ? $cloud->address : ''),
				'-d', $node->connstr($dbname),
				'-f', "$root/$file"
			],
			"story: $file");
	}
	return;
}

# Id of a new run.
sub weir_trigger
{
	my ($node, $pipeline, %options) = @_;
	my $dbname = $options{dbname} // 'postgres';
	my $params = $options{params} // '{}';

	return $node->safe_psql($dbname,
		qq{SELECT weir.trigger('$pipeline', '$params'::jsonb)});
}

# Wait until a query returns the value expected ('t' when none is given).
sub wait_until
{
	my ($node, $what, $query, %options) = @_;
	my $dbname = $options{dbname} // 'postgres';
	my $expected = $options{expected} // 't';

	return 1 if $node->poll_query_until($dbname, $query, $expected);
	fail("waited in vain until $what");
	return 0;
}

# Wait until a run has ended, or has the status given.  Returns its status.
sub wait_for_run
{
	my ($node, $run_id, $status, %options) = @_;
	my $dbname = $options{dbname} // 'postgres';
	my $condition =
	  defined $status
	  ? "status = '$status'"
	  : "status NOT IN ('queued', 'running', 'cancelling') AND NOT EXISTS (SELECT FROM weir.request q WHERE q.run_id = run.run_id AND q.action = 'repair')";

	unless (wait_until($node, "run $run_id: $condition",
			"SELECT $condition FROM weir.run WHERE run_id = $run_id", dbname => $dbname))
	{
		diag($node->safe_psql($dbname,
				"SELECT run_id, status, error_message FROM weir.run WHERE run_id = $run_id;"
				. " SELECT task_name, status, attempt_no, error_message FROM weir.task_run WHERE run_id = $run_id ORDER BY task_no"));
	}
	return $node->safe_psql($dbname, "SELECT status FROM weir.run WHERE run_id = $run_id");
}

# Wait until a task of a run has the status given.  Returns its status.
sub wait_for_status
{
	my ($node, $run_id, $task, $status, %options) = @_;
	my $dbname = $options{dbname} // 'postgres';

	wait_until($node, "task $task of run $run_id: $status",
		"SELECT status = '$status' FROM weir.task_run WHERE run_id = $run_id AND task_name = '$task'",
		dbname => $dbname);
	return $node->safe_psql($dbname,
		"SELECT status FROM weir.task_run WHERE run_id = $run_id AND task_name = '$task'");
}

# Pid of the process of a backend type (LIKE pattern), as soon as there is one.
sub backend_pid
{
	my ($node, $type, %options) = @_;
	my $dbname = $options{dbname} // 'postgres';
	my $from = "FROM pg_stat_activity WHERE backend_type LIKE '$type'"
	  . (defined $options{in} ? " AND datname = '$options{in}'" : '');

	wait_until($node, "there is a $type", "SELECT count(*) > 0 $from", dbname => $dbname)
	  or return undef;
	return $node->safe_psql($dbname, "SELECT pid $from ORDER BY backend_start LIMIT 1");
}

# kill -9 a process by backend type.  The postmaster then ends all sessions
# and recovers; returns when connections are accepted again.
sub kill9_backend
{
	my ($node, $type, %options) = @_;
	my $dbname = $options{dbname} // 'postgres';
	my $pid = backend_pid($node, $type, %options);

	die "no process of type $type" unless $pid;
	my $log = -s $node->logfile;
	kill('KILL', $pid) == 1 or die "kill $pid: $!";
	wait_for_restart($node, $log);
	return $pid;
}

# Wait until the server has recovered from a crash that it logged after
# position $log of its log.  A psql that is sent away before it has read its
# query breaks the pipe, and that would end the test: so none is sent.
sub wait_for_restart
{
	my ($node, $log) = @_;

	$node->wait_for_log(qr/all server processes terminated; reinitializing.*ready to accept connections/s, $log);
	return;
}

# The most by which requests at these moments were more than burst + rate * the
# time since a moment before the first.  A slow machine only makes them fewer.
sub excess
{
	my ($since, $burst, $rate, @times) = @_;
	@times = sort { $a <=> $b } @times;
	return max(map { $_ + 1 - $burst - $rate * ($times[$_] - $since) } 0 .. $#times);
}

1;
