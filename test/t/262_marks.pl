# The mark that a SQL task runs: it waits for the disk only soon after a start
# of the server, where it must: a task that takes the server down each time
# has to stop at some point.
#
# A synchronous standby that does not exist shows who waits for the disk: the
# worker of loader; all others do without it.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirClock;
use WeirTest;

plan skip_all => $_ foreach WeirClock::missing();

my $clock = WeirClock->new;
my $node = weir_node('marks', start => 0);
$node->append_conf('postgresql.conf', "wal_level = replica\nmax_wal_senders = 1\nweir.max_lost_attempts = 3\n");
$clock->start($node);

sub value { return $node->safe_psql('postgres', $_[0]) }

value(q{
	ALTER DATABASE postgres SET synchronous_commit = off;
	CREATE ROLE loader LOGIN;
	ALTER ROLE loader IN DATABASE postgres SET synchronous_commit = on;
	CREATE EXTENSION weir;
	GRANT weir_admin TO loader;
	SET ROLE loader;
	SELECT weir.create_pipeline('task', '{"tasks": [{"name": "it", "kind": "sql", "spec": {"sql": "SELECT 1"}}]}');
	RESET ROLE;
	SELECT weir.create_pipeline('poison', '{"tasks": [{"name": "it", "kind": "sql", "spec": {"sql": "COPY (SELECT 1) TO PROGRAM ''kill -9 $PPID''"}}]}')});

sub standby
{
	my ($names) = @_;
	my $log = -s $node->logfile;
	value("ALTER SYSTEM SET synchronous_standby_names = '$names'");
	value('SELECT pg_reload_conf()');
	$node->wait_for_log(qr/"synchronous_standby_names" changed to "$names"/, $log);
	value('CHECKPOINT');		# the checkpointer has seen it too
	return;
}

# A run whose worker waits for the disk, and how far its attempt is then; it ends after that.
sub waits_with
{
	my ($when) = @_;
	standby('nobody');
	my $run = weir_trigger($node, 'task');
	wait_until($node, 'the worker waits', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'weir SQL worker' AND wait_event = 'SyncRep'");
	my $status = value("SELECT a.status || ', ' || r.status FROM weir.attempt a JOIN weir.run r USING (run_id) WHERE run_id = $run");
	standby('');
	is(wait_for_run($node, $run), 'succeeded', "$when: a run");
	return $status;
}

is(waits_with('soon after the start'), 'intended, running', 'the mark is not seen before it is on disk');
$clock->set(100);
is(waits_with('later'), 'started, running', 'the outcome is what is waited for');

# The mark of the first time may be lost with the server.
my $run = value("SET synchronous_commit = on; SELECT weir.trigger('poison')");
my $status;
# A look whose server goes away in the middle ends the test, unless caught.
until (defined $status) { $status = eval { wait_for_run($node, $run) } }
is($status, 'failed', 'a task that takes the server down each time');
is(value("SELECT string_agg(status, ' ' ORDER BY attempt_no) FROM weir.attempt WHERE run_id = $run"), 'lost lost lost', 'stops at some point');
my $crashes = () = slurp_file($node->logfile) =~ /weir SQL worker" \(PID \d+\) was terminated by signal 9/g;
cmp_ok($crashes, '<=', 4, 'and the server stays up');
is(wait_for_run($node, weir_trigger($node, 'task')), 'succeeded', 'for others');

done_testing();
