# When a failed attempt is followed by another, how long that takes, and what
# ends the trying: policies that name failures, task timeouts while an attempt
# runs and while a retry waits, also over a crash.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('retries');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

value(qq{
	SELECT weir.create_secret('token', 'dapi-local');
	SELECT weir.create_connection('api', 'http', '$address/http');
	SELECT weir.create_connection('patient', 'http', '$address/http', NULL,
		'{"retry": {"max_attempts": 3, "initial_delay": 0.1, "on": {"http": [404]}}}');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}');
	SELECT weir.create_secret('entra_secret', 'weir-secret');
	SELECT weir.create_connection('adf', 'adf', '$address/adf', '{"type": "entra_client_secret", "tenant_id": "local",
		"client_id": "weir-client", "client_secret": "entra_secret", "authority": "$address"}',
		'{"subscription_id": "s1", "resource_group": "rg", "factory": "adf-dev", "settle_seconds": 1}');
	CREATE SEQUENCE tries; CREATE TABLE landed (run_id bigint, what text)});

sub sql { my ($sql, %more) = @_; return { name => 'try', kind => 'sql', spec => { sql => $sql }, %more } }
sub http { my ($connection, $path, %more) = @_; return { name => 'try', kind => 'http', connection => $connection, spec => { method => 'GET', path => $path }, %more } }
sub tries { my ($n, %more) = @_; return (retry => { max_attempts => $n, initial_delay => '100 milliseconds', jitter => 0, %more }) }

sub start
{
	my ($name, $tasks, %more) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => $tasks, %more })) . ')');
	return weir_trigger($node, $name);
}

sub attempts
{
	return value("SELECT string_agg(concat_ws(' ', status, coalesce(sqlstate, http_status::text), failure_type), ', ' ORDER BY task_run_id, attempt_no)"
		. " FROM weir.attempt WHERE run_id = $_[0]");
}
sub of_task { my ($run, $what, $task) = @_; return value("SELECT $what FROM weir.task_run WHERE run_id = $run AND task_name = '" . ($task // 'try') . "'") }
sub why { return value("SELECT concat_ws(' ', code, failure_type, message) FROM weir.errors WHERE run_id = $_[0] ORDER BY occurred_at DESC LIMIT 1") }

# Milliseconds between the attempts of a run.
sub waits
{
	return map { int } split /\n/,
	  value("SELECT extract(epoch FROM b.intended_at - a.ended_at) * 1000 FROM weir.attempt a JOIN weir.attempt b"
		. " ON b.task_run_id = a.task_run_id AND b.attempt_no = a.attempt_no + 1 WHERE a.run_id = $_[0] ORDER BY a.attempt_no");
}

sub close_gate { value("BEGIN; SELECT pg_advisory_xact_lock($_[0]); PREPARE TRANSACTION 'gate $_[0]'"); return }
sub open_gate { value("ROLLBACK PREPARED 'gate $_[0]'"); return }

my %run;
my $raise = sub { return "DO \$\$ BEGIN PERFORM nextval('tries'); RAISE EXCEPTION 'raised' USING ERRCODE = '$_[0]'; END \$\$" };

# --- how long: fixed, linear, exponential
foreach my $case ([ fixed => 300, 300, 300 ], [ linear => 300, 600, 900 ], [ exponential => 300, 600, 1200 ])
{
	my ($backoff, @least) = @$case;
	$run{$backoff} = start($backoff, [ sql('SELECT 1 / 0', tries(4, backoff => $backoff, initial_delay => '300 milliseconds')) ]);
	wait_for_run($node, $run{$backoff});
	my @waits = waits($run{$backoff});
	is(scalar(@waits), 3, "$backoff: four attempts");
	is(scalar(grep { $waits[$_] >= $least[$_] } (0 .. 2)), 3, "$backoff: not before their time") or diag("@waits");
	cmp_ok($waits[2], '<', 900, 'fixed: no longer than it should') if $backoff eq 'fixed';
}

# --- which: SQL
my @cases = (
	[ 'default: any error of SQL', '22012', undef, 'failed 22012 user, failed 22012 user' ],
	[ 'a class', '40P01', { sqlstate => ['40'] }, 'failed 40P01 system, failed 40P01 system' ],
	[ 'another class', '22012', { sqlstate => [ '40', '08' ] }, 'failed 22012 user' ],
	[ 'exactly', '40001', { sqlstate => ['40001'] }, 'failed 40001 system, failed 40001 system' ],
	[ 'nearly', '40P01', { sqlstate => ['40001'] }, 'failed 40P01 system' ],
	[ 'system errors', '53200', { failure => 'system' }, 'failed 53200 system, failed 53200 system' ],
	[ 'system errors, but it is not one', 'P0001', { failure => 'system' }, 'failed P0001 user' ],
	[ 'by code', 'P0042', { code => ['P0042'] }, 'failed P0042 user, failed P0042 user' ]);
foreach my $n (0 .. $#cases)
{
	my ($name, $state, $on, $expected) = @{ $cases[$n] };
	my $run = start("which_$n", [ sql($raise->($state), tries(2, $on ? (on => $on) : ())) ]);
	is(wait_for_run($node, $run), 'failed', "$name: the run fails");
	is(attempts($run), $expected, "$name: attempts");
}

# --- which: HTTP; by default 404 is not tried again
foreach my $case (
	[ 'default', http('api', '/status/404', tries(2)), 'failed 404 user' ],
	[ 'listed', http('api', '/status/404', tries(2, on => { http => [404] })), 'failed 404 user, failed 404 user' ],
	[ 'class', http('api', '/status/409', tries(2, on => { http => ['4xx'] })), 'failed 409 system, failed 409 system' ],
	[ 'any', http('api', '/status/422', tries(2, on => { failure => 'any' })), 'failed 422 user, failed 422 user' ],
	[ 'not listed', http('api', '/status/409', tries(2, on => { http => ['5xx'] })), 'failed 409 system' ],
	[ 'of the connection', http('patient', '/status/404'), 'failed 404 user, failed 404 user, failed 404 user' ],
	[ 'of the pipeline', http('patient', '/status/404'), 'failed 404 user, failed 404 user', tries(2) ])
{
	my ($name, $task, $expected, %more) = @$case;
	my $run = start("http $name", [$task], %more);
	is(wait_for_run($node, $run), 'failed', "HTTP $name: the run fails");
	is(attempts($run), $expected, "HTTP $name: attempts");
}

# --- which: the code of the activity that failed a pipeline of Data Factory, and of the end of a Databricks job
sub adf { my ($code, @tries) = @_; return { name => 'try', kind => 'adf_pipeline', connection => 'adf', spec => { pipeline => 'fail', parameters => { errorCode => $code } }, @tries } }
sub job { my (@tries) = @_; return { name => 'try', kind => 'databricks_job', connection => 'dbx', spec => { job_id => 102, job_parameters => { seconds => '0' } }, @tries } }
sub codes { return value("SELECT string_agg(concat_ws(' ', status, error_code, failure_type), ', ' ORDER BY attempt_no) FROM weir.attempt WHERE run_id = $_[0]") }

foreach my $case (
	[ 'default', adf('2108', tries(3)), 'failed 2108 user' ],
	[ 'listed', adf('2108', tries(3, on => { code => [ '2200', '2108' ] })), 'failed 2108 user, failed 2108 user, failed 2108 user' ],
	[ 'not listed', adf('2108', tries(3, on => { code => [ '2100', '210', '21080' ] })), 'failed 2108 user' ],
	[ 'another failure', adf('2200', tries(3, on => { code => ['2108'] })), 'failed 2200 user' ])
{
	my ($name, $task, $expected) = @$case;
	my $before = $cloud->started('adf.createRun');
	my $run = start("adf $name", [$task]);
	is(wait_for_run($node, $run), 'failed', "ADF, $name: the run fails");
	is(codes($run), $expected, "ADF, $name: attempts");
	is($cloud->started('adf.createRun') - $before, scalar(split(/, /, $expected)), "ADF, $name: each started once");
}
# It goes well the second time.
$cloud->add_fault(fault => 'task_fails', job_id => 102, task_key => 'wait', message => 'broken', times => 1);
$run{job} = start('job listed', [ job(tries(3, on => { code => ['RUN_EXECUTION_ERROR'] })) ]);
is(wait_for_run($node, $run{job}), 'succeeded', 'Databricks, listed: the run succeeds');
is(codes($run{job}), 'failed RUN_EXECUTION_ERROR user, succeeded', 'Databricks, listed: attempts');
$cloud->add_fault(fault => 'task_fails', job_id => 102, task_key => 'wait', message => 'broken', times => 1);
$run{job} = start('job not listed', [ job(tries(3, on => { code => [ 'INTERNAL_ERROR', 'run_execution_error' ] })) ]);
is(wait_for_run($node, $run{job}), 'failed', 'Databricks, not listed: the run fails');
is(codes($run{job}), 'failed RUN_EXECUTION_ERROR user', 'Databricks, not listed: attempts');
$cloud->clear_faults;

# A POST whose answer is lost may have been done: no policy repeats it.
$cloud->add_fault(path => '/http/json/lost', fault => 'reset_after', times => undef);
$run{lost} = start('lost', [ { name => 'try', kind => 'http', connection => 'api', spec => { method => 'POST', path => '/json/lost', body => 'x' }, tries(3, on => { failure => 'any' }) } ]);
is(wait_for_run($node, $run{lost}), 'failed', 'a lost answer');
is(scalar(@{ $cloud->ledger(path => '/http/json/lost') }), 1, 'sent once, whatever the policy says');
# Nor is a job that cannot be stopped started a second time.
value("ALTER SYSTEM SET weir.cancel_grace = '1s'; SELECT pg_reload_conf()");
wait_until($node, 'a short grace', "SELECT setting = '1000' FROM pg_settings WHERE name = 'weir.cancel_grace'");
$cloud->add_fault(operation => 'databricks.cancel', fault => 'status', status => 500, times => undef);
my $started_before = $cloud->started('databricks.run-now');
$run{stuck} = start('stuck', [ { name => 'try', kind => 'databricks_job', connection => 'dbx', spec => { job_id => 102, job_parameters => { seconds => '36000' } },
	timeout => '1 second', tries(3, on => { failure => 'any' }) } ]);
is(wait_for_run($node, $run{stuck}), 'failed', 'a job that cannot be cancelled');
is($cloud->started('databricks.run-now') - $started_before, 1, 'is started once');
$cloud->clear_faults;

# --- the task timeout while an attempt runs
close_gate(1);
$run{busy} = start('busy', [ sql('SELECT pg_advisory_xact_lock_shared(1)', task_timeout => '700 milliseconds', timeout => '1 hour', tries(5)),
	{ name => 'after', kind => 'noop', depends_on => ['try'] } ]);
is(wait_for_run($node, $run{busy}), 'failed', 'a task that takes too long');
is(attempts($run{busy}), 'timed_out 57014 system', 'one attempt');
is(of_task($run{busy}, 'status') . of_task($run{busy}, "' ' || status", 'after'), 'timed_out blocked', 'the task is timed out, what follows is blocked');
is(why($run{busy}), 'timed_out system task timeout exceeded', 'and says so');

# Attempts of half a second, a task of one and a half.
$run{several} = start('several', [ sql('SELECT pg_advisory_xact_lock_shared(1)', task_timeout => '1500 milliseconds', timeout => '500 milliseconds', tries(50)) ]);
is(wait_for_run($node, $run{several}), 'failed', 'attempts that take too long');
like(attempts($run{several}), qr/^timed_out 57014 system(, timed_out 57014 system){1,3}$/, 'as many as there is time for');
is(of_task($run{several}, 'status'), 'timed_out', 'then the task is timed out');

# A service that never answers.
$run{never} = start('never', [ http('api', '/delay/599950', task_timeout => '1 second', tries(5)) ]);
is(wait_for_run($node, $run{never}), 'failed', 'a service that never answers');
is(attempts($run{never}), 'timed_out system', 'one attempt');
is(why($run{never}), 'timed_out system task timeout exceeded', 'and says so');

# --- and while a retry waits: nothing runs, only the timer strikes
$run{waits} = start('waits', [ sql('SELECT 1 / 0', task_timeout => '1500 milliseconds', tries(5, initial_delay => '1 hour')),
	{ name => 'after', kind => 'noop', depends_on => [ { task => 'try', condition => 'failed' } ] } ]);
is(wait_for_status($node, $run{waits}, 'try', 'ready'), 'ready', 'a retry waits for an hour');
is(wait_for_run($node, $run{waits}), 'succeeded', 'the task timeout strikes, and a handler deals with it');
is(of_task($run{waits}, 'status') . of_task($run{waits}, "' ' || status", 'after'), 'timed_out succeeded', 'the task is timed out');
is(why($run{waits}), 'timed_out system task timeout exceeded; division by zero', 'and says so');
is(value("SELECT ended_at - started_at BETWEEN '1500 milliseconds' AND '1 minute' FROM weir.task_run WHERE run_id = $run{waits} AND task_name = 'try'"), 't', 'at its time');

# A repair gives it all its time again.
value("SELECT setval('tries', 1)");
$run{again} = start('again', [ sql("SELECT 1 / (nextval('tries') - 2)", task_timeout => '1 second', tries(5, initial_delay => '1 hour')) ]);
is(wait_for_run($node, $run{again}), 'failed', 'timed out while the retry waits');
value("SELECT weir.repair($run{again})");
is(wait_for_run($node, $run{again}), 'succeeded', 'repaired');

# --- over a crash: the deadlines are in the tables
$run{crash} = start('crash', [ sql('SELECT 1 / 0', task_timeout => '4 seconds', tries(5, initial_delay => '1 hour')) ]);
$run{crash_busy} = start('crash_busy', [ sql('SELECT pg_advisory_xact_lock_shared(1)', task_timeout => '6 seconds', tries(5)) ]);
$run{crash_asking} = start('crash_asking', [ http('api', '/delay/599960', timeout => '6 seconds') ]);
is(wait_for_status($node, $run{crash}, 'try', 'ready'), 'ready', 'a retry waits');
is(wait_for_status($node, $run{crash_asking}, 'try', 'running'), 'running', 'a request is on its way');
is(wait_for_status($node, $run{crash_busy}, 'try', 'running'), 'running', 'an attempt runs');
$node->stop('immediate');
$node->start;
is(wait_for_run($node, $run{$_}), 'failed', "$_: ends after the crash") foreach ('crash', 'crash_busy', 'crash_asking');
is(attempts($run{crash_asking}), 'timed_out system', 'crash_asking: the attempt goes on, and its time did not start anew');
is(of_task($run{$_}, 'status'), 'timed_out', "$_: by the task timeout") foreach ('crash', 'crash_busy');
is(attempts($run{crash}), 'failed 22012 user', 'crash: not tried again');
like(attempts($run{crash_busy}), qr/^lost system, timed_out 57014 system$/, 'crash_busy: the lost attempt went again, and its time did not start anew');

# --- a run timeout says that it is one, also to SQL
$run{all} = start('all', [ sql('SELECT pg_advisory_xact_lock_shared(1)', tries(5)) ], timeout => '1 second');
is(wait_for_run($node, $run{all}), 'timed_out', 'the run timeout');
is(why($run{all}), 'timed_out system run timeout exceeded', 'is what the task says');
$run{attempt} = start('attempt', [ sql('SELECT pg_advisory_xact_lock_shared(1)', timeout => '1 second') ]);
is(wait_for_run($node, $run{attempt}), 'failed', 'the attempt timeout');
is(why($run{attempt}), 'timed_out system attempt timeout exceeded', 'is what the task says');
$run{listed} = start('listed', [ sql('SELECT pg_advisory_xact_lock_shared(1)', timeout => '300 milliseconds', tries(2, on => { code => ['timed_out'] })) ]);
is(wait_for_run($node, $run{listed}), 'failed', 'a timeout that a policy names');
is(attempts($run{listed}), 'timed_out 57014 system, timed_out 57014 system', 'is tried again');
open_gate(1);

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), 0, 'no attempt is left over');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal/, 'nothing died');
$node->stop;
done_testing();
