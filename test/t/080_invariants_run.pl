# A run pins its pipeline version: what happens to the pipeline while it is in
# flight does not happen to it.  And nobody keeps a transaction open while
# waiting for a network or for somebody's SQL.
#
# A task is held by an advisory lock that a prepared transaction has, or by a
# server of this test that has not answered yet.

use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('pins', conf => "weir.sql_worker_idle_timeout = '10min'\n");
my $server = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1', Proto => 'tcp',
	Timeout => $PostgreSQL::Test::Utils::timeout_default) or die "listen: $!";
my $address = 'http://127.0.0.1:' . $server->sockport;

$node->safe_psql('postgres', q{
	CREATE ROLE loader LOGIN IN ROLE weir_admin;
	CREATE TABLE done (n serial, run_id bigint, what text);
	CREATE SEQUENCE tries;
	GRANT ALL ON done, done_n_seq, tries TO loader;
});

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
sub definition { return literal($json->encode({@_})) }

sub task
{
	my ($name, $sql, %more) = @_;
	return { name => $name, kind => 'sql', spec => { sql => $sql }, %more };
}
sub put { my ($name, $what, %more) = @_; return task($name, "INSERT INTO done (run_id, what) VALUES ({{run.id}}, $what)", %more) }
sub post { my ($name, $path, %more) = @_; return { name => $name, kind => 'http', connection => 'engine', spec => { method => 'POST', path => $path }, %more } }
sub noop { my ($name, %more) = @_; return { name => $name, kind => 'noop', spec => {}, %more } }

sub gate { return "SELECT pg_advisory_xact_lock_shared($_[0])" }
sub close_gate { value("BEGIN; SELECT pg_advisory_xact_lock($_[0]); PREPARE TRANSACTION 'gate $_[0]'"); return }
sub open_gate { value("ROLLBACK PREPARED 'gate $_[0]'"); return }

sub at_gate
{
	return wait_until($node, "a task waits at gate $_[0]",
		"SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = $_[0] AND NOT granted");
}

# The next request that comes, read to its end; to be answered later.
sub next_request
{
	my $peer = $server->accept;
	my ($head, $length) = ('', 0);

	unless ($peer)
	{
		fail('a request comes');
		die value("SELECT run_id || ' ' || task_name || ' ' || status || coalesce(' ' || error_message, '') FROM weir.task_run ORDER BY task_run_id");
	}
	while (my $line = <$peer>)
	{
		$head .= $line;
		$length = $1 if $line =~ /^Content-Length: *(\d+)/i;
		last if $line =~ /^\r?\n$/;
	}
	read($peer, my $body, $length) if $length;
	return { peer => $peer, path => (split / /, $head)[1] };
}

sub answer
{
	my ($request, $status) = @_;
	my $peer = $request->{peer};
	$status //= '200 OK';
	print $peer "HTTP/1.1 $status\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
	close $peer;
	return;
}

sub tasks_of
{
	return value("SELECT string_agg(task_name || ' ' || kind || ' ' || status || ' ' || attempt_no, ', ' ORDER BY task_no) FROM weir.task_run WHERE run_id = $_[0]");
}
sub done_by { return value("SELECT string_agg(what, ', ' ORDER BY what) FROM done WHERE run_id = $_[0]") }

# --- 5: every part of a definition that is read after the start
my @first = (
	parameters => { colour => { type => 'text', default => 'red' }, number => { type => 'bigint', default => 1 } },
	tasks => [
		task('hold', gate(5)),
		put('say', "'first ' || {{params.colour}} || {{params.number}} || pg_typeof({{params.number}})", depends_on => ['hold']),
		task('again', "INSERT INTO done (run_id, what) SELECT {{run.id}}, 'again ' || (1 / (nextval('tries') - 1))", depends_on => ['hold'],
			retry => { max_attempts => 3, initial_delay => '1 ms' }),
		post('call', '/first/{{params.colour}}', depends_on => ['hold']),
		noop('quiet', depends_on => [ 'say', 'call' ]),
		put('goes', "'goes away'", depends_on => ['quiet']),
		put('mend', "'mended ' || (1 / (SELECT count(*) FROM pg_class WHERE relname = 'needed'))", depends_on => ['goes']),
		put('after', "'after mend'", depends_on => ['mend'])
	]);
my @second = (
	parameters => { color => { type => 'text', default => 'blue' }, number => { type => 'text', default => 'two' } },
	tasks => [
		put('new', "'new task'"),
		noop('hold', depends_on => ['new']),
		task('again', 'SELECT 1 / 0', depends_on => ['hold']),
		post('call', '/second/{{params.color}}'),
		put('say', "'second ' || {{params.color}} || {{params.number}} || pg_typeof({{params.number}})", depends_on => [ 'hold', 'call' ]),
		noop('mend', depends_on => ['again'])
	]);
value("SET ROLE loader; SELECT weir.create_connection('engine', 'http', '$address')");
value("SET ROLE loader; SELECT weir.create_pipeline('pinned', " . definition(@first) . ')');
close_gate(5);
my $run = weir_trigger($node, 'pinned', params => '{"number": 7}');
is(wait_for_status($node, $run, 'hold', 'running'), 'running', 'a run is held');
at_gate(5);
value("SELECT weir.pause_pipeline('pinned')");
my $queued = weir_trigger($node, 'pinned');
is(value("SET ROLE loader; SELECT weir.alter_pipeline('pinned', " . definition(@second) . ')'), '2', 'its pipeline is altered');
my $refusal;
isnt($node->psql('postgres', "SELECT weir.drop_pipeline('pinned')", stderr => \$refusal), 0, 'it cannot be dropped');
like($refusal, qr/cannot be dropped while it has unfinished runs/, 'because of the run');
value("SELECT weir.set_pipeline_enabled('pinned', false)");
value("SELECT weir.set_pipeline_enabled('pinned', true)");
open_gate(5);
my $request = next_request();
is($request->{path}, '/first/red', 'the run calls what its version says');

# a conductor that comes anew reads the same version
my $pid = backend_pid($node, 'weir conductor%');
value("SELECT pg_terminate_backend($pid)");
ok(wait_until($node, 'another conductor', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type LIKE 'weir conductor%' AND pid <> $pid"), 'another conductor comes');
close $request->{peer};
is(wait_for_status($node, $run, 'say', 'succeeded'), 'succeeded', 'a SQL task goes on');
is(wait_for_status($node, $run, 'again', 'succeeded'), 'succeeded', 'another one is tried again');
is(wait_for_run($node, $run), 'failed', 'the request was lost, and nobody can say whether it arrived');
is(tasks_of($run), 'hold sql succeeded 1, say sql succeeded 1, again sql succeeded 2, call http failed 1, quiet noop blocked 0, goes sql blocked 0, mend sql blocked 0, after sql blocked 0',
	'the run has the tasks, the retries and the successors of its version');
is(done_by($run), 'again 1, first red7bigint', 'they did what it says');
is(value("SELECT version FROM weir.run WHERE run_id = $run"), '1', 'which is the first');

# a repair stays with the version, too
value("SELECT weir.repair($run)");
$request = next_request();
is($request->{path}, '/first/red', 'repaired, it calls the same');
answer($request);
is(wait_for_status($node, $run, 'goes', 'succeeded'), 'succeeded', 'a task that the pipeline no longer has');
wait_until($node, 'the repair', "SELECT status = 'failed' AND repair_no = 1 FROM weir.run WHERE run_id = $run");
is(tasks_of($run), 'hold sql succeeded 1, say sql succeeded 1, again sql succeeded 2, call http succeeded 2, quiet noop succeeded 1, goes sql succeeded 1, mend sql failed 1, after sql blocked 0',
	'the next failure blocks what follows in its version');
value('CREATE TABLE needed ()');
value("SELECT weir.repair($run)");
is(wait_for_run($node, $run), 'succeeded', 'repaired again, it succeeds');
is(done_by($run), 'after mend, again 1, first red7bigint, goes away, mended 1', 'with what its version says');

# a run that waited in the queue has the version it was triggered with, the next one the new
is(value("SELECT version || status FROM weir.run WHERE run_id = $queued"), '1queued', 'the pipeline is still paused');
close_gate(5);
value("SELECT weir.resume_pipeline('pinned')");
is(wait_for_status($node, $queued, 'hold', 'running'), 'running', 'the queued run starts as the first version says');
my $next = weir_trigger($node, 'pinned');
open_gate(5);
$request = next_request();
is($request->{path}, '/first/red', 'and calls');
answer($request);
is(wait_for_run($node, $queued), 'succeeded', 'and ends');
is(done_by($queued), 'after mend, again 0, first red1bigint, goes away, mended 1', 'as that version says');
$request = next_request();
is($request->{path}, '/second/blue', 'the next run calls what the second version says');
answer($request);
is(wait_for_run($node, $next), 'failed', 'and fails as it must');
is(tasks_of($next), 'new sql succeeded 1, hold noop succeeded 1, again sql failed 1, call http succeeded 1, say sql succeeded 1, mend noop blocked 0', 'with the tasks of the second version');
is(done_by($next), 'new task, second bluetwotext', 'which did what it says');
is(value("SELECT count(DISTINCT version) FROM weir.run WHERE pipeline_name = 'pinned'"), '2', 'two versions ran');
value("SELECT weir.drop_pipeline('pinned')");
is(value("SELECT count(*) FROM weir.task_run WHERE run_id IN ($run, $queued, $next)"), '22', 'dropped, its runs stay in the log');

# --- 7: who has a transaction or a snapshot while waiting
# It may just be in the middle of a cycle: what counts is how it waits.
sub waits_outside
{
	my ($what) = @_;
	ok(wait_until($node, 'the conductor waits outside of any transaction',
		"SELECT count(*) = 1 FROM pg_stat_activity a WHERE backend_type LIKE 'weir conductor%'"
		. " AND wait_event_type = 'Extension' AND xact_start IS NULL AND backend_xmin IS NULL AND backend_xid IS NULL"
		. " AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype NOT IN ('advisory', 'userlock'))"),
		"$what: the conductor waits without transaction, snapshot or lock");
	return;
}

value("SET ROLE loader; SELECT weir.create_pipeline('waits', " . definition(tasks => [ post('call', '/wait', retry => { max_attempts => 2, initial_delay => '1 hour', max_delay => '1 hour' }) ]) . '),'
	. " weir.create_pipeline('holds', " . definition(tasks => [ task('hold', gate(5)) ], timeout => '1 hour') . ')');
$run = weir_trigger($node, 'waits');
$request = next_request();
waits_outside('an engine has not answered');
is(value("SELECT t.status || ' ' || a.status FROM weir.task_run t JOIN weir.attempt a USING (task_run_id) WHERE t.run_id = $run"), 'running intended', 'its answer is still to come');
my $busy = "503 Service Unavailable\r\nRetry-After: 0";
answer($request, $busy);
answer(next_request(), $busy) foreach (2 .. 5);
ok(wait_until($node, 'the retry', "SELECT status = 'ready' AND not_before > now() + interval '10 minutes' FROM weir.task_run WHERE run_id = $run"), 'a retry waits for its time');
waits_outside('a retry is pending');

close_gate(5);
my $held = weir_trigger($node, 'holds');
wait_for_status($node, $held, 'hold', 'running');
at_gate(5);
waits_outside('a SQL task runs');
my $worker = value("SELECT xact_start FROM pg_stat_activity WHERE backend_type LIKE 'weir SQL worker%' AND wait_event = 'advisory'");
isnt($worker, '', 'which has its own transaction');
is(value("SELECT status FROM weir.attempt WHERE run_id = $held"), 'started', 'that it was taken is committed');

my ($out, $err) = ('', '');
my $waiting = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SELECT weir.wait($held)" ], '>', \$out, '2>', \$err);
wait_until($node, 'somebody waits', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT weir.wait($held)' AND state = 'active'");
waits_outside('somebody waits for a run');
open_gate(5);
$waiting->finish;
is($out, "succeeded\n", 'who sees it end');
waits_outside('nothing is to be done');
ok(wait_until($node, 'idle workers without transaction',
	"SELECT count(*) > 0 AND bool_and(xact_start IS NULL AND backend_xmin IS NULL AND backend_xid IS NULL) FROM pg_stat_activity WHERE backend_type LIKE 'weir SQL worker%'"),
	'a SQL worker without a task has no transaction');
value("SELECT weir.cancel($run)");
is(wait_for_run($node, $run), 'cancelled', 'the retry is cancelled');

# CALL weir.conduct() is always in some transaction, but it has no snapshot
# and no id while it waits: it keeps nothing from being vacuumed.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
$run = weir_trigger($node, 'waits');
$waiting = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "CALL weir.conduct()" ], '>', \$out, '2>', \$err);
$request = next_request();
ok(wait_until($node, 'conduct() waits', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'CALL weir.conduct()' AND wait_event_type = 'Extension' AND backend_xmin IS NULL AND backend_xid IS NULL"),
	'weir.conduct() waits without a snapshot');
answer($request);
$waiting->finish;
is(value("SELECT status FROM weir.run WHERE run_id = $run"), 'succeeded', 'and ends the run');

$node->stop;
done_testing();
