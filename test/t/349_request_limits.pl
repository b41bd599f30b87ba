# So many requests a second go through a connection, whatever they are: starts
# and looks wait for their turn, cancels do not; the log says so; a crash in
# between takes nothing away.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use WeirFarEnd;
use WeirSignIn;
use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $far = WeirFarEnd->new;
my $node = weir_node('limits');
my $cloud = weir_cloud(undef);
my $plain = $far->url('plain');

sub value { return $node->safe_psql('postgres', $_[0]) }
sub refused { my ($rc, $out, $err) = $node->psql('postgres', $_[0]); return $rc == 0 ? 'accepted' : $err }
sub create { my ($name, $kind, $url, $options, $auth) = @_; return "SELECT weir.create_connection('$name', '$kind', '$url', " . literal($json->encode($auth // {})) . ', ' . literal($json->encode($options // {})) . ')' }
sub start
{
	my ($name, @tasks) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => \@tasks })) . ')');
	return weir_trigger($node, $name);
}
sub limits { return value("SELECT concat_ws(' ', coalesce(reads_per_second::text, '-'), coalesce(reads_burst::text, '-'), coalesce(writes_per_second::text, '-'), coalesce(writes_burst::text, '-')) FROM weir.connections WHERE name = '$_[0]'") }

# --- what is in force
my $factory = { subscription_id => 's1', resource_group => 'rg-dev', factory => 'adf-dev' };
value(create('adf', 'adf', $cloud->address . '/adf', $factory));
value(create('dbx', 'databricks', $cloud->address . '/dbx'));
value(create('api', 'http', $plain));
is(limits('adf'), '25 250 10 200', 'Data Factory: what Azure Resource Manager takes');
is(limits('dbx'), '100 100 20 20', 'Databricks: what a workspace takes');
is(limits('api'), '- - - -', 'any service: no limit');
value(create('some', 'databricks', $cloud->address . '/dbx', { request_limits => { writes => { per_second => 2.5 } } }));
is(limits('some'), '100 100 2.5 2', 'one limit of its own, the other stays');
value("SELECT weir.alter_connection('some', options => '{\"request_limits\": {\"reads\": null}}')");
is(limits('some'), '- - 20 20', 'none');
value("SELECT weir.alter_connection('some', options => '{\"request_limits\": null}')");
is(limits('some'), '- - - -', 'none at all');
foreach my $case ([ [], qr/request_limits must be null or an object/ ], [ { read => {} }, qr/request_limits must be null or an object with reads and writes/ ],
	[ { reads => 5 }, qr/a limit must be null or an object.*JSON path: \$\.request_limits\.reads/s ], [ { reads => { per_second => 1, per_minute => 2 } }, qr/a limit must be/ ],
	[ { reads => {} }, qr/per_second must be a number from 0.001/ ], [ { writes => { per_second => 0 } }, qr/\$\.request_limits\.writes\.per_second/ ],
	[ { writes => { per_second => '5' } }, qr/per_second must be a number/ ], [ { writes => { per_second => 1e9 } }, qr/per_second must be a number/ ],
	[ { writes => { per_second => 5, burst => 0 } }, qr/burst must be an integer from 1.*\$\.request_limits\.writes\.burst/s ], [ { writes => { per_second => 5, burst => 1.5 } }, qr/burst must be/ ])
{
	my ($limit, $expected) = @$case;
	like(refused(create('refused', 'http', $plain, { request_limits => $limit })), $expected, 'refused: ' . $json->encode($limit));
}
like(refused(create('refused', 'redis', 'redis://127.0.0.1:1', { request_limits => {} })), qr/unknown option "request_limits"/, 'Redis has none');

# --- many at once
value(create('few', 'http', $plain, { request_limits => { reads => { per_second => 10, burst => 5 } } }));
my $since = time;
my $run = start('many', map { { name => "get$_", kind => 'http', connection => 'few', spec => { path => "/get/$_" } } } (1 .. 60));
wait_until($node, 'somebody waits', "SELECT reads_wait_until IS NOT NULL AND writes_wait_until IS NULL FROM weir.connections WHERE name = 'few'");
like(value("SELECT string_agg(detail, '; ') FROM weir.why($run)"), qr/reads through connection "few" take turns, 10 a second \(request_limits\), until /, 'weir.why says so');
start('posts', map { { name => "post$_", kind => 'http', connection => 'few', spec => { method => 'POST', path => "/post/$_" } } } (1 .. 10));
is(wait_for_run($node, $run), 'succeeded', 'all are sent in the end');
my @requests = @{ $far->ledger->{requests} };
my @reads = map { $_->{at} } grep { $_->{method} eq 'GET' } @requests;
is(scalar @reads, 60, 'each once');
cmp_ok(excess($since, 5, 10, @reads), '<=', 1, 'five at once, then ten a second and never more') or diag(join(' ', map { sprintf '%.2f', $_ - $since } sort { $a <=> $b } @reads));
my @writes = map { $_->{at} } grep { $_->{method} eq 'POST' } @requests;
is(scalar @writes, 10, 'and what has no limit');
cmp_ok(max(@writes), '<', max(@reads), '... does not wait for them');	# they came last, to a queue of seconds
is(value("SELECT count(*) FROM weir.attempt WHERE run_id = $run AND attempt_no > 1"), '0', 'nobody lost a try by waiting');
wait_until($node, 'nobody waits any more', "SELECT reads_wait_until IS NULL FROM weir.connections WHERE name = 'few'");
unlike(value("SELECT coalesce(string_agg(detail, '; '), '') FROM weir.why('many')"), qr/take turns/, 'and that is not said any more');

# --- looks at what is going on count as well
value(create('polled', 'http', $cloud->address . '/http', { request_limits => { reads => { per_second => 5, burst => 2 } } }));
$cloud->reset;
$since = time;
$run = start('looks', map { { name => "job$_", kind => 'http', connection => 'polled', spec => { method => 'POST', path => '/jobs', body => { seconds => 3 }, id => '$.id',
	poll => { path => '/jobs/{id}', every => 0.1, status => '$.state', succeeded => ['done'] } } } } (1 .. 8));
is(wait_for_run($node, $run), 'succeeded', 'eight jobs, each looked at ten times a second, if it could');
my @looks = map { $_->{time} } @{ $cloud->ledger(operation => 'http.job-get') };
cmp_ok(scalar @looks, '>=', 8, 'they were looked at');
cmp_ok(excess($since, 2, 5, @looks), '<=', 1, '... five times a second, all together');

# --- a cancel does not wait
value("SELECT weir.create_secret('dbx_token', 'dapi-local')");
value(create('slow', 'databricks', $cloud->address . '/dbx', { request_limits => { reads => { per_second => 0.01, burst => 2 }, writes => { per_second => 0.01, burst => 1 } } }, { type => 'pat', token => 'dbx_token' }));
$cloud->config(speed => 1);
$run = start('cancelled', { name => 'job', kind => 'databricks_job', connection => 'slow', spec => { job_id => 102, job_parameters => { seconds => '600' } } });
wait_until($node, 'the job is there', "SELECT external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $run");
value("SELECT weir.cancel($run)");
like(wait_for_run($node, $run), qr/^(cancelled|succeeded|failed)$/, 'a run is cancelled although no request is due for minutes');
is($cloud->requests('databricks.cancel'), 1, 'the engine was told at once');

# --- whoever gives up leaves its turn to those behind it
# longer than any test waits for anything
my $long = "reads_wait_until > clock_timestamp() + interval '20 min'";
value(create('given', 'http', $plain, { request_limits => { reads => { per_second => 0.2, burst => 1 } } }));
$run = start('givers', map { { name => "get$_", kind => 'http', connection => 'given', spec => { path => "/given/$_" } } } (1 .. 300));
wait_until($node, 'the last one would be sent in half an hour', "SELECT $long FROM weir.connections WHERE name = 'given'");
my $behind = start('taker', { name => 'get', kind => 'http', connection => 'given', spec => { path => '/taken' } });
wait_until($node, 'somebody is behind it', "SELECT EXISTS (SELECT FROM weir.attempt WHERE run_id = $behind)");
value("SELECT weir.cancel($run)");
is(wait_for_run($node, $run), 'cancelled', 'all before that one are cancelled');
is(wait_for_run($node, $behind), 'succeeded', 'and it is sent without waiting for their turns');
is(wait_for_run($node, weir_trigger($node, 'taker')), 'succeeded', 'as is the next one');

# --- so does a higher limit
$run = start('slowly', map { { name => "get$_", kind => 'http', connection => 'given', spec => { path => "/slowly/$_" } } } (1 .. 300));
wait_until($node, 'they wait', "SELECT $long FROM weir.connections WHERE name = 'given'");
value(q{SELECT weir.alter_connection('given', options => '{"request_limits": {"reads": {"per_second": 100}}, "max_concurrency": 1000.0}')});
is(wait_for_run($node, weir_trigger($node, 'taker')), 'succeeded', 'an attempt that knows of the higher limit');
is(wait_for_run($node, $run), 'succeeded', 'those that waited wait by it, too');
is(value("SELECT max_concurrency FROM weir.connections WHERE name = 'given'"), '1000', 'an integer is one however it is written');

# --- a crash while many wait
$far->reset;
value(create('crashed', 'http', $plain, { request_limits => { reads => { per_second => 5, burst => 1 } } }));
$run = start('crash', map { { name => "get$_", kind => 'http', connection => 'crashed', spec => { path => "/crash/$_" } } } (1 .. 20));
wait_until($node, 'many wait', "SELECT reads_wait_until IS NOT NULL FROM weir.connections WHERE name = 'crashed'");
my $log = -s $node->logfile;
kill9_backend($node, 'weir conductor');
wait_for_restart($node, $log);
is(wait_for_run($node, $run), 'succeeded', 'killed in between: all are sent');
is(value("SELECT count(DISTINCT path) FROM jsonb_to_recordset(" . literal($json->encode($far->ledger->{requests})) . "::jsonb) AS r (path text) WHERE path LIKE '/crash/%'"), '20', '... each of them');
is(value("SELECT count(*) FROM weir.throttle WHERE connection_name = 'few'"), '0', 'what waited before the crash is forgotten');

$node->stop;
done_testing();
