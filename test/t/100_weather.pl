# What breaks at night, seen from the tasks: services that throttle, refuse,
# break off in the middle or never answer; timeouts, cancels, and jobs that
# somebody cancels elsewhere.  The cloud's ledger says what was really asked,
# and weir.why what is waited for.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $true = JSON::PP::true;
my $node = weir_node('weather');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

# Nobody listens here until a cloud is started: connections are refused.
my $closed = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'tcp', ReuseAddr => 1) or die "socket: $@";
my $closed_port = $closed->sockport;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

value(qq{
	SELECT weir.create_secret('token', 'dapi-local'), weir.create_secret('stale_token', 'dapi-of-last-year'),
		weir.create_secret('entra_secret', 'weir-secret');
	SELECT weir.create_connection('api', 'http', '$address/http', NULL, '{"default_headers": {"X-Team": "lake"}}');
	SELECT weir.create_connection('jobs_api', 'http', '$address/dbx', '{"type": "bearer", "token": "token"}');
	SELECT weir.create_connection('stale_api', 'http', '$address/dbx', '{"type": "bearer", "token": "stale_token"}');
	SELECT weir.create_connection('closed_api', 'http', 'http://127.0.0.1:$closed_port/http');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}');
	SELECT weir.create_connection('adf', 'adf', '$address/adf', '{"type": "entra_client_secret", "tenant_id": "local",
		"client_id": "weir-client", "client_secret": "entra_secret", "authority": "$address"}',
		'{"subscription_id": "s1", "resource_group": "rg", "factory": "adf-dev", "settle_seconds": 1}');
	CREATE TABLE landed (run_id bigint, status integer, body jsonb, note text)});

# --- pipelines

sub task
{
	my ($name, $kind, $connection, $spec, %more) = @_;
	return { name => $name, kind => $kind, spec => $spec, (defined $connection ? (connection => $connection) : ()), %more };
}
sub http { my ($spec, %more) = @_; return task('call', 'http', 'api', $spec, %more) }
sub job { my (%more) = @_; return task('job', 'databricks_job', 'dbx', { job_id => 102, job_parameters => { seconds => '36000' } }, %more) }
sub copy { my (%more) = @_; return task('copy', 'adf_pipeline', 'adf', { pipeline => 'wait', parameters => { seconds => 36000 } }, %more) }
sub after { my (@upstream) = @_; return task('after', 'sql', undef, { sql => 'SELECT 1' }, depends_on => [@upstream]) }
sub tries { my ($n, $delay) = @_; return (retry => { max_attempts => $n, initial_delay => $delay // '100 milliseconds', jitter => 0 }) }

sub pipeline
{
	my ($name, $tasks, %more) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => $tasks, %more })) . ')');
	return;
}

# Create a pipeline and start it.
sub start
{
	my ($name, $tasks, %more) = @_;
	pipeline($name, $tasks, %more);
	return weir_trigger($node, $name);
}

# --- what is asked of a run

sub of_task { my ($run, $what, $task) = @_; return value("SELECT $what FROM weir.task_run WHERE run_id = $run AND task_name = '" . ($task // 'call') . "'") }

sub tasks { return value("SELECT string_agg(task_name || ' ' || status, ', ' ORDER BY task_no) FROM weir.task_run WHERE run_id = $_[0]") }

sub attempts
{
	return value("SELECT string_agg(status || coalesce(' ' || error_code, ''), ', ' ORDER BY task_run_id, attempt_no) FROM weir.attempt WHERE run_id = $_[0]");
}

sub engine_knows
{
	my ($run, $task) = @_;
	wait_until($node, "$task has begun", "SELECT status = 'running' AND external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $run AND task_name = '$task'");
	return of_task($run, 'external_run_id', $task);
}

# Rows of weir.why, one "task waiting_for: detail" a line.
sub why { return value("SELECT concat_ws(' ', task, waiting_for) || ': ' || detail FROM weir.why($_[0])") }

# Requests and starts at a path of the plain service.
sub asked { return scalar(@{ $cloud->ledger(path => $_[0]) }) }
sub traffic
{
	my ($path) = @_;
	my @entries = @{ $cloud->ledger(path => $path) };
	return scalar(@entries) . ' ' . scalar(grep { $_->{started} } @entries);
}

# Seconds between the requests at a path.
sub gaps
{
	my @times = map { $_->{time} } @{ $cloud->ledger(path => $_[0]) };
	return map { $times[$_] - $times[ $_ - 1 ] } (1 .. $#times);
}

# Every external run of a run of weir, as the cloud sees it.
sub states
{
	my ($run) = @_;
	my %known = map { $_ => 1 } split /\n/, value("SELECT token FROM weir.attempt WHERE run_id = $run");
	my $runs = $cloud->runs;
	return join(' ', sort((map { $_->{status} } grep { $known{ $_->{weir_token} // '' } } @{ $runs->{adf} }),
			(map { $_->{result_state} // $_->{life_cycle_state} } grep { $known{ $_->{idempotency_token} // '' } } @{ $runs->{databricks} })));
}

# --- answers that are late, damaged or refused; all at once
my %run;
my $get = sub { return { method => 'GET', path => "/json/$_[0]" } };
my $post = sub { my ($path, %more) = @_; return { method => 'POST', path => "/json/$path", body => { n => 1 }, %more } };
my $fault = sub { my ($path, %fault) = @_; $cloud->add_fault(path => "/http/json/$path", %fault) };

$fault->('limited', fault => 'status', status => 429, retry_after => 2);
$fault->('throttled', fault => 'status', status => 503, retry_after => 1, times => 2);
$fault->('gateway', fault => 'status', status => 503);
$fault->('down', fault => 'status', status => 503, times => undef);
$fault->('half', fault => 'half_body');
$fault->('reset', fault => 'reset_before');
$fault->("lost_$_", fault => 'reset_after') foreach ('post', 'key', 'put');
$fault->('half_post', fault => 'half_body');
$fault->('conflict', fault => 'status', status => 409);

$run{down} = start('down', [ http($get->('down')), after('call') ]);
$run{refused} = start('refused', [ task('call', 'http', 'closed_api', $get->('late'), tries(9)) ]);
$run{chain} = start('chain', [
	task('get', 'http', 'api', { path => '/json/orders', query => { since => '2026-11-21', ids => [ 1, 2 ], note => 'a&b=c d' } }),
	task('put', 'http', 'api', $post->('orders', body => { asked => '{{tasks.get.output.body.query.since}}', run => '{{run.id}}' }, headers => { 'X-Of-Task' => 'yes' }), depends_on => ['get']),
	task('secret', 'http', 'jobs_api', { path => '/api/2.2/jobs/get', query => { job_id => 101 } }),
	task('keep', 'sql', undef, { sql => "INSERT INTO landed VALUES ({{run.id}}, {{tasks.put.output.status}}, {{tasks.put.output.body}}, {{tasks.secret.output.body.settings.name}})" }, depends_on => [ 'put', 'secret' ])
]);
$run{limited} = start('limited', [ http($get->('limited'), tries(3)) ]);
$run{throttled} = start('throttled', [ http($post->('throttled')) ]);
$run{gateway} = start('gateway', [ http($post->('gateway'), tries(3)) ]);
$run{half} = start('half', [ http($get->('half')) ]);
$run{reset} = start('reset', [ http($get->('reset')) ]);
$run{lost_post} = start('lost_post', [ http($post->('lost_post'), tries(3)) ]);
$run{half_post} = start('half_post', [ http($post->('half_post'), tries(3)) ]);
$run{lost_key} = start('lost_key', [ http($post->('lost_key', idempotent => $true)) ]);
$run{lost_put} = start('lost_put', [ http({ %{ $post->('lost_put') }, method => 'PUT' }) ]);
$run{conflict} = start('conflict', [ http($get->('conflict'), tries(2)) ]);
$run{missing} = start('missing', [ http({ path => '/status/404' }, tries(3)), after('call') ]);
$run{wrong} = start('wrong', [ http({ method => 'POST', path => '/status/422' }, tries(3)) ]);
$run{stale} = start('stale', [ task('call', 'http', 'stale_api', { path => '/api/2.2/jobs/list' }, tries(3)) ]);
$run{expected} = start('expected', [ http({ path => '/status/404', expect_status => [ 200, 404 ] }) ]);

is(wait_for_run($node, $run{chain}), 'succeeded', 'calls whose answers the next tasks use');
is(value("SELECT status || ' ' || note FROM landed WHERE run_id = $run{chain}"), '200 transform_flights', 'a SQL task has status and body');
is(value("SELECT (body->'json') = jsonb_build_object('asked', '2026-11-21', 'run', $run{chain}) FROM landed WHERE run_id = $run{chain}"), 't', 'the body was made of an output');
is(value("SELECT concat_ws(' ', body->'headers'->>'x-team', body->'headers'->>'x-of-task', (body->'headers'->>'idempotency-key') LIKE 'weir-%') FROM landed WHERE run_id = $run{chain}"),
	'lake yes t', 'headers of connection and task, and the key');
is(of_task($run{chain}, "output->'body'->'query'->>'note'", 'get'), 'a&b=c d', 'the query is encoded');
is(value("SELECT count(*) FROM (SELECT t::text FROM weir.attempt t UNION ALL SELECT t::text FROM weir.task_run t UNION ALL SELECT t::text FROM weir.error t) x (t) WHERE t LIKE '%dapi-%'"),
	'0', 'no secret is in the log');

is(wait_for_run($node, $run{limited}), 'succeeded', '429 with Retry-After');
is(traffic('/http/json/limited') . ' ' . attempts($run{limited}), '2 0 succeeded', '429: sent again, in the same attempt');
cmp_ok((gaps('/http/json/limited'))[0], '>=', 2, '429: not before the service wanted');
is(wait_for_run($node, $run{throttled}), 'succeeded', '503 with Retry-After to a POST is a refusal');
is(traffic('/http/json/throttled'), '3 1', '503: sent until it was taken, once');
is(wait_for_run($node, $run{gateway}), 'failed', '503 without it may come from a gateway');
is(traffic('/http/json/gateway') . ' ' . attempts($run{gateway}), '1 0 failed outcome_unknown', '503: the POST is not repeated on a guess');
foreach my $case ('half', 'reset')
{
	is(wait_for_run($node, $run{$case}), 'succeeded', "$case: a GET goes again");
	is(traffic("/http/json/$case"), '2 0', "$case: asked twice");
}
foreach my $case ('lost_key', 'lost_put')
{
	is(wait_for_run($node, $run{$case}), 'succeeded', "$case: the answer was lost, the request is repeated");
	is(asked("/http/json/$case"), 2, "$case: sent twice");
}
is(traffic('/http/json/lost_key'), '2 1', 'lost_key: the same key, so it was done once');
foreach my $case ('lost_post', 'half_post')
{
	is(wait_for_run($node, $run{$case}), 'failed', "$case: a POST is not repeated on a guess");
	is(traffic("/http/json/$case") . ' ' . attempts($run{$case}), '1 1 failed outcome_unknown', "$case: sent once, whatever the retry policy says");
	like(of_task($run{$case}, 'error_message'), qr/took effect is not known; check the service/, "$case: and somebody is told to look");
}
is(wait_for_run($node, $run{conflict}), 'succeeded', '409 passes');
like(attempts($run{conflict}), qr/^failed [^,]+, succeeded$/, '409: at the second attempt');
is(wait_for_run($node, $run{missing}), 'failed', '404 fails');
is(asked('/http/status/404'), 2, '404: asked once by each of two runs');
like(attempts($run{missing}), qr/^failed[^,]*$/, '404: one attempt, whatever the retry policy says');
like(of_task($run{missing}, 'error_message'), qr/^HTTP 404/, '404: and says so');
is(tasks($run{missing}), 'call failed, after blocked', '404: what follows does not run');
is(wait_for_run($node, $run{wrong}), 'failed', '422 fails');
is(traffic('/http/status/422'), '1 0', '422: asked once');
is(wait_for_run($node, $run{stale}), 'failed', 'a secret that is no longer good');
like(attempts($run{stale}), qr/^failed[^,]*$/, 'stale: one attempt');
like(of_task($run{stale}, 'error_message'), qr/^HTTP 40[13]/, 'stale: and says so');
is(wait_for_run($node, $run{expected}), 'succeeded', '404 is fine where it is expected');

# --- connection refused: it goes on when somebody listens
like(why($run{refused}), qr/^call (engine|retry): /, 'refused: why');
close($closed);
my $late = weir_cloud(undef, port => $closed_port);
is(wait_for_run($node, $run{refused}), 'succeeded', 'refused: succeeds once somebody listens');
is($late->requests('http.json'), 1, 'refused: one request arrived');
is(value("SELECT ended_at - intended_at >= '800 milliseconds' OR attempt_no > 1 FROM weir.attempt WHERE run_id = $run{refused} AND status = 'succeeded'"),
	't', 'refused: after waiting');
$late->stop;

is(wait_for_run($node, $run{down}), 'failed', '503 again and again');
my @gaps = gaps('/http/json/down');
is(scalar(@gaps), 4, '503: five tries');
ok($gaps[0] >= 0.7 && $gaps[1] >= 1.4 && $gaps[2] >= 2.8 && $gaps[3] >= 5.6, '503: further and further apart') or diag("@gaps");
like(of_task($run{down}, 'error_message'), qr/gave up in step "start" after 5 tries: HTTP 503/, '503: why it failed');

# --- attempt timeouts, all at once
my $never = sub { return { method => $_[0], path => "/delay/5999$_[1]", ($_[0] eq 'POST' ? (body => 'x') : ()) } };
$run{get_late} = start('get_late', [ http($never->('GET', '01'), timeout => '1 second', tries(2)), after('call') ]);
$run{post_late} = start('post_late', [ http($never->('POST', '02'), timeout => '1 second', tries(3)) ]);
$run{copy_late} = start('copy_late', [ copy(timeout => '3 seconds'), after('copy') ]);
$run{job_late} = start('job_late', [ job(timeout => '3 seconds', tries(2)) ]);
# and a run timeout, of everything at once
$run{all_late} = start('all_late', [ copy(), job(), http($never->('GET', '03'), tries(3)),
	task('retried', 'http', 'api', { path => '/status/409' }, tries(3, '1 hour')),
	after('copy', 'job', 'call', 'retried') ], timeout => '4 seconds');
engine_knows($run{all_late}, $_) foreach ('copy', 'job');

is(wait_for_run($node, $run{get_late}), 'failed', 'a GET that is never answered');
is(attempts($run{get_late}), 'timed_out timed_out, timed_out timed_out', 'GET: timed out, twice');
is(tasks($run{get_late}), 'call timed_out, after blocked', 'GET: so is the task');
is(asked('/http/delay/599901'), 2, 'GET: asked twice');
is(wait_for_run($node, $run{post_late}), 'failed', 'a POST that is never answered');
is(attempts($run{post_late}), 'timed_out timed_out', 'POST: timed out, and not tried again');
is(asked('/http/delay/599902'), 1, 'POST: sent once');
like(of_task($run{post_late}, 'error_message'), qr/^attempt timeout exceeded; .*took effect is not known/, 'POST: and somebody is told to look');
is(wait_for_run($node, $run{copy_late}), 'failed', 'an ADF pipeline that takes too long');
is(attempts($run{copy_late}) . ', ' . tasks($run{copy_late}), 'timed_out timed_out, copy timed_out, after blocked', 'ADF: timed out');
is(states($run{copy_late}), 'Cancelled', 'ADF: cancelled there');
is(wait_for_run($node, $run{job_late}), 'failed', 'a Databricks job that takes too long');
is(attempts($run{job_late}), 'timed_out timed_out, timed_out timed_out', 'Databricks: timed out, twice');
is(states($run{job_late}), 'CANCELED CANCELED', 'Databricks: both job runs are cancelled there');

is(wait_for_run($node, $run{all_late}), 'timed_out', 'the run timeout');
is(tasks($run{all_late}), 'copy timed_out, job timed_out, call timed_out, retried cancelled, after cancelled', 'run timeout: all its tasks');
is(states($run{all_late}), 'CANCELED Cancelled', 'run timeout: cancelled in both engines');
is($cloud->requests('adf.cancel', run_id => of_task($run{all_late}, 'external_run_id', 'copy')), 1, 'run timeout: ADF was told once');
is($cloud->requests('databricks.cancel', run_id => of_task($run{all_late}, 'external_run_id', 'job')), 1, 'run timeout: Databricks was told once');
is(asked('/http/delay/599903'), 1, 'run timeout: nothing is tried again');
like(value("SELECT error_message FROM weir.run WHERE run_id = $run{all_late}"), qr/run timeout/, 'run timeout: the run says why');

# --- cancel while a request is not answered
foreach my $case ([ 'GET', '04', qr/given up before it was answered/ ], [ 'POST', '05', qr/took effect is not known/ ])
{
	my ($method, $n, $says) = @$case;
	my $cancelled = start("cancel_$method", [ http($never->($method, $n), tries(3)), after('call') ]);
	$cloud->wait(path => "/http/delay/5999$n");
	like(why($cancelled), qr/^call engine: attempt 1 of kind http is being started\nafter task: "call" \(running\)$/, "$method: why");
	is(value("SELECT weir.cancel($cancelled, 'too late')"), 't', "$method: cancelled before the answer");
	is(wait_for_run($node, $cancelled), 'cancelled', "$method: the run ends");
	is(tasks($cancelled), 'call cancelled, after cancelled', "$method: with its tasks");
	like(of_task($cancelled, 'error_message'), $says, "$method: and says what is known");
	is(asked("/http/delay/5999$n"), 1, "$method: sent once");
}

# The engine has begun; its answer comes late, or never.
foreach my $case (
	[ 'createRun late', copy(), 'adf.createRun', 'delay' ],
	[ 'createRun lost', copy(), 'adf.createRun', 'reset_after' ],
	[ 'run-now late', job(), 'databricks.run-now', 'delay' ],
	[ 'run-now lost', job(), 'databricks.run-now', 'reset_after' ])
{
	my ($name, $task, $operation, $kind) = @$case;
	my ($since) = map { $_->{seq} } @{ $cloud->ledger(limit => 1) };
	$cloud->add_fault(operation => $operation, fault => $kind, delay_ms => 1500);
	my $cancelled = start("cancel $name", [ $task, after($task->{name}) ]);
	$cloud->wait(operation => $operation, since => $since);
	is(value("SELECT weir.cancel($cancelled)"), 't', "$name: cancelled before the answer");
	is(wait_for_run($node, $cancelled), 'cancelled', "$name: the run ends");
	is($cloud->started($operation, since => $since), 1, "$name: begun once");
	like(states($cancelled), qr/^cancell?ed$/i, "$name: and cancelled there");
}

# --- cancel while a retry waits
$fault->('again', fault => 'status', status => 409, times => undef);
my $waiting = start('again', [ http($get->('again'), tries(3, '1 hour')), after('call') ]);
is(wait_for_status($node, $waiting, 'call', 'ready'), 'ready', 'a retry waits');
like(why($waiting), qr/^call retry: attempt 1 failed: HTTP 409: .*; tried again at 20.*\nafter task: "call" \(ready\)$/, 'retry: why');
is(value("SELECT weir.cancel($waiting)"), 't', 'retry: cancelled');
is(wait_for_run($node, $waiting), 'cancelled', 'retry: the run ends');
is(tasks($waiting), 'call cancelled, after cancelled', 'retry: with its tasks');
is(asked('/http/json/again'), 1, 'retry: nothing more was sent');

# The same inside an attempt, after 429 with a long Retry-After.
foreach my $case ([ 'long', http($get->('long')), path => '/http/json/long' ], [ 'long_job', job(), operation => 'databricks.run-now' ])
{
	my ($name, $task, @selector) = @$case;
	my ($since) = map { $_->{seq} } @{ $cloud->ledger(limit => 1) };
	$cloud->add_fault(@selector, fault => 'status', status => 429, retry_after => 3600);
	$waiting = start($name, [$task]);
	$cloud->wait(@selector, since => $since, answered => 'true');
	is(value("SELECT weir.cancel($waiting)"), 't', "$name: cancelled while the service wants us to wait");
	is(wait_for_run($node, $waiting), 'cancelled', "$name: the run ends");
	is(scalar(@{ $cloud->ledger(@selector, since => $since) }), 1, "$name: nothing more was sent");
}

# Whoever changes a connection does not wait for what was said of it before.
value("SELECT weir.alter_connection(name, description => 'as good as new') FROM weir.connection");

# --- cancelled by somebody else, there
my $client = HTTP::Tiny->new(timeout => 60);
my %outside = (
	job => sub {
		return $client->post("$address/dbx/api/2.2/jobs/runs/cancel",
			{ headers => { Authorization => 'Bearer dapi-local' }, content => $json->encode({ run_id => $_[0] + 0 }) });
	},
	copy => sub {
		my $token = decode_json($client->post_form("$address/local/oauth2/v2.0/token", { grant_type => 'client_credentials',
			client_id => 'weir-client', client_secret => 'weir-secret', scope => 'https://management.azure.com/.default' })->{content})->{access_token};
		return $client->post("$address/adf/subscriptions/s1/resourceGroups/rg/providers/Microsoft.DataFactory/factories/adf-dev/pipelineruns/$_[0]/cancel?api-version=2018-06-01",
			{ headers => { Authorization => "Bearer $token" } });
	});
foreach my $task (job(tries(3)), copy(tries(3)))
{
	my $name = $task->{name};
	my $cancelled = start("outside_$name", [ $task, after($name) ]);
	my $external = engine_knows($cancelled, $name);
	like(why($cancelled), qr/^$name engine: attempt 1 of kind $task->{kind} is running as \Q$external\E$/m, "$name: why");
	my $answer = $outside{$name}->($external);
	ok($answer->{success}, "$name: somebody cancels it there") or diag("$answer->{status} $answer->{content}");
	is(wait_for_run($node, $cancelled), 'cancelled', "$name: the run is cancelled");
	is(attempts($cancelled) . ', ' . tasks($cancelled), "cancelled cancelled, $name cancelled, after blocked", "$name: and not tried again");
}

# --- an answer that comes while a client holds the pipeline
$cloud->add_fault(path => '/http/json/held', fault => 'delay', delay_ms => 1000);
pipeline('held', [ http($get->('held')) ]);
pipeline('other', [ task('a', 'noop', undef, {}) ]);
my $held = weir_trigger($node, 'held');
$cloud->wait(path => '/http/json/held');
value("BEGIN; SELECT weir.skip_once('held'); PREPARE TRANSACTION 'held'");
$cloud->wait(path => '/http/json/held', answered => 'true');
is(wait_for_run($node, weir_trigger($node, 'other')), 'succeeded', 'held: other runs go on');
is(of_task($held, 'status'), 'running', 'held: the outcome has to wait');
value("ROLLBACK PREPARED 'held'");
is(wait_for_run($node, $held), 'succeeded', 'held: and is written when the client lets go');

# --- weir.why of the other waits
value('ALTER SYSTEM SET weir.max_sql_workers = 1; SELECT pg_reload_conf()');
wait_until($node, 'one SQL worker', "SELECT setting = '1' FROM pg_settings WHERE name = 'weir.max_sql_workers'");
value("BEGIN; SELECT pg_advisory_xact_lock(1); PREPARE TRANSACTION 'gate'");
my $gated = [ task('gate', 'sql', undef, { sql => 'SELECT pg_advisory_xact_lock_shared(1)' }) ];
pipeline('gated', $gated);
my $first = weir_trigger($node, 'gated');
wait_until($node, 'the task waits at the gate', "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
like(why($first), qr/^gate statement: attempt 1 of kind sql is running in process \d+, blocked by process /, 'why: a statement that is blocked');
my $second = weir_trigger($node, 'gated');
my $third = start('crowded', $gated);
is(wait_for_status($node, $third, 'gate', 'ready'), 'ready', 'a task without a worker');
like(why($third), qr/^gate SQL worker: all 1 SQL workers have a task of run $first; task runs waiting before it: 0$/, 'why: no free SQL worker');
like(why($second), qr/^run: run $first of pipeline "gated" has not ended and max_concurrent_runs is 1$/, 'why: another run of the pipeline');
like(why("'gated'::text"), qr/^gate statement: .*^run: run $first /ms, 'why of a pipeline: all its runs');
value("SELECT weir.pause_pipeline('other')");
my $paused = weir_trigger($node, 'other');
like(why($paused), qr/^pipeline: pipeline "other" is paused$/, 'why: paused');
value("ROLLBACK PREPARED 'gate'");
is(wait_for_run($node, $_), 'succeeded', 'the gate opens') foreach ($first, $second, $third);
like(why($first), qr/^nothing: it ended as succeeded/, 'why: nothing');
like(why("'gated'::text"), qr/^nothing: no run is queued or running; the latest ended as succeeded; the next start processes \(P\)$/, 'why: nothing in the pipeline');

# --- an engine that does not confirm the cancel: the job may go on, so no second one is started
value("ALTER SYSTEM SET weir.cancel_grace = '2s'; SELECT pg_reload_conf()");
wait_until($node, 'a short grace', "SELECT setting = '2000' FROM pg_settings WHERE name = 'weir.cancel_grace'");
$cloud->add_fault(operation => 'databricks.cancel', fault => 'status', status => 500, times => undef);
my $stuck = start('stuck', [ job(timeout => '2 seconds', tries(3)) ]);
is(wait_for_run($node, $stuck), 'failed', 'an engine that cannot be told to stop');
is(attempts($stuck), 'timed_out timed_out', 'stuck: timed out, and not tried again');
like(of_task($stuck, 'error_message', 'job'), qr/^attempt timeout exceeded; the engine did not confirm the cancel/, 'stuck: the reason');
is(states($stuck), 'RUNNING', 'stuck: the one job run goes on');

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), 0, 'no attempt is left over');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|terminated by signal|illegal|dapi-/, 'nothing died, and the log has no secret');

$node->stop;
done_testing();
