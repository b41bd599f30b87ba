# A service that asks for patience, or cannot be reached: all attempts through
# its connection heed it together, the log says so, and they go on by
# themselves when it answers again.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('circuit');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
sub define { my ($name, @tasks) = @_; return value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => \@tasks })) . ')') }
sub get { my ($name, $path) = @_; return { name => $name, kind => 'http', connection => 'api', spec => { path => $path } } }
sub asked { return scalar grep { $_->{path} =~ m{^/http/json/$_[0]} } @{ $cloud->ledger(operation => 'http.json') } }

value("SELECT weir.create_connection('api', 'http', '$address/http')");
define('many', map { get("call$_", "/json/many/$_") } (1 .. 40));
define('one', get('call', '/json/one'));
define('limited', get('call', '/json/limited'));

# --- the service is down
$cloud->add_fault(operation => 'http.json', fault => 'reset_before', times => undef);
my $run = weir_trigger($node, 'many');
wait_until($node, 'the circuit opens', "SELECT count(*) = 1 FROM weir.circuit WHERE connection_name = 'api' AND failures >= 10 AND last_error <> ''");
is(value("SELECT state FROM weir.status WHERE component = 'connections'"), 'circuit open', 'weir.status says so');
like(value("SELECT detail FROM weir.why($run) LIMIT 1"), qr/the service cannot be reached since .*next try at/, 'and so does weir.why');

my $other = weir_trigger($node, 'one');
wait_until($node, 'it has been tried again and again',
	"SELECT retry_at - opened_at > interval '3 seconds' FROM weir.circuit WHERE connection_name = 'api'");
cmp_ok(asked('many') + asked('one'), '<', 40 + 20, 'one at a time is tried meanwhile');
is(value("SELECT count(*) FROM weir.task_run WHERE run_id IN ($run, $other) AND status = 'running'"), '41', 'nobody has lost his patience');

$cloud->clear_faults;
is(wait_for_run($node, $run), 'succeeded', 'it answers again, and everybody goes on');
is(wait_for_run($node, $other), 'succeeded', '... without being asked to');
is(value('SELECT count(*) FROM weir.circuit'), '0', 'the circuit is closed');
is(value("SELECT state FROM weir.status WHERE component = 'connections'"), 'reachable', 'and weir.status says that too');
is(value("SELECT count(*) FROM weir.attempt WHERE run_id IN ($run, $other) AND attempt_no > 1"), '0', 'all in their first attempts');

# --- a crash while it is open leaves no row that nobody would take away
$cloud->add_fault(operation => 'http.json', fault => 'reset_before', times => undef);
$run = weir_trigger($node, 'many');
wait_until($node, 'the circuit opens again', "SELECT count(*) = 1 FROM weir.circuit");
my $log = -s $node->logfile;
kill9_backend($node, 'weir conductor');
$cloud->clear_faults;
wait_for_restart($node, $log);
is(wait_for_run($node, $run), 'succeeded', 'a crash, and the service is there again');
is(value('SELECT count(*) FROM weir.circuit'), '0', 'no row is left');

# --- nor does a conductor that ends alone
$cloud->add_fault(operation => 'http.json', fault => 'reset_before', times => undef);
$run = weir_trigger($node, 'many');
wait_until($node, 'the circuit opens once more', "SELECT count(*) = 1 FROM weir.circuit");
my $conductor = backend_pid($node, 'weir conductor');
$cloud->clear_faults;
value("SELECT pg_terminate_backend($conductor)");
wait_until($node, 'another conductor', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'weir conductor' AND pid <> $conductor");
is(wait_for_run($node, $run), 'succeeded', 'another conductor, and the service is there again');
is(value('SELECT count(*) FROM weir.circuit'), '0', 'no row is left');

# --- the service asks one for patience: the others heed it too
$cloud->add_fault(operation => 'http.json', path => '/http/json/limited', fault => 'status', status => 429, retry_after => 4, times => 1);
my $limited = weir_trigger($node, 'limited');
$cloud->wait(operation => 'http.json', path => '/http/json/limited', timeout_ms => 30000);
my $asked = asked('one');
my $polite = weir_trigger($node, 'one');
wait_for_run($node, $_) foreach ($limited, $polite);
my ($refused_at) = map { $_->{time} } grep { $_->{path} eq '/http/json/limited' } @{ $cloud->ledger(operation => 'http.json') };
my ($came_at) = map { $_->{time} } reverse grep { $_->{path} eq '/http/json/one' } @{ $cloud->ledger(operation => 'http.json') };
is(asked('one'), $asked + 1, 'the other one was asked once');
cmp_ok($came_at - $refused_at, '>=', 3.9, '... and not before the service wanted') or diag("$came_at $refused_at");

# --- absurd ones: a year, and the end of time; what says nothing is no pause
define('absurd', get('call', '/json/absurd'));
define('later', { %{ get('call', '/json/later') }, retry => { max_attempts => 2, initial_delay => 3600 } });
foreach my $absurd ({ retry_after => 31536000 }, { retry_after_date => 3e9 })
{
	$cloud->clear_faults;
	$cloud->add_fault(operation => 'http.json', path => '/http/json/absurd', fault => 'status', status => 429, %$absurd, times => 1);
	$run = weir_trigger($node, 'absurd');
	wait_until($node, 'the service asks to be left alone', "SELECT count(*) = 1 FROM weir.circuits WHERE connection_name = 'api' AND reason = 'retry_after'");
	is(value("SELECT round(extract(epoch FROM retry_at - opened_at) / 3600), last_error FROM weir.circuits"), '24|HTTP 429 with Retry-After', (keys %$absurd)[0] . ': for a day at most');
	is(value("SELECT state FROM weir.status WHERE component = 'connections'"), 'asked to wait', 'weir.status says so');
	like(value("SELECT detail FROM weir.status WHERE component = 'connections'"), qr/^api: nothing is sent before .*weir.resume_connection/, 'and what ends it');
	like(value("SELECT detail FROM weir.why($run) LIMIT 1"), qr/the service asked for no request before .*weir\.resume_connection\('api'\)/, 'so does weir.why');
	is(value("SELECT asked_to_wait_until > now() + interval '23 hours', unreachable_since IS NULL FROM weir.connections WHERE name = 'api'"), 't|t', 'and weir.connections');
	$other = weir_trigger($node, 'one');
	wait_for_status($node, $other, 'call', 'running');
	is(value("BEGIN; SELECT weir.resume_connection('api'); ROLLBACK; SELECT count(*) FROM weir.circuits"), "t\n1", 'rolled back, nothing happened');
	is(value("SELECT weir.resume_connection('api')"), 't', 'resumed');
	is(wait_for_run($node, $_), 'succeeded', 'everybody goes on') foreach ($run, $other);
	is(value("SELECT count(*) FROM weir.circuits"), '0', 'nothing is left of it');
	is(value("SELECT weir.resume_connection('api')"), 'f', 'a connection that waits for nothing');
}
foreach my $nothing (-5, 'soon', '1e3', 'Sat, 31 Feb 2099 00:00:00 GMT')
{
	$cloud->add_fault(operation => 'http.json', path => '/http/json/absurd', fault => 'status', status => 429, headers => { 'Retry-After' => $nothing }, times => 1);
	is(wait_for_run($node, weir_trigger($node, 'absurd')), 'succeeded', "Retry-After: $nothing says nothing");
}
# A pause before another attempt ends with it.
$cloud->clear_faults;
$cloud->add_fault(operation => 'http.json', path => '/http/json/later', fault => 'status', status => 500, times => 5);
$cloud->add_fault(operation => 'http.json', path => '/http/json/absurd', fault => 'status', status => 429, retry_after => 31536000, times => 1);
my $later = weir_trigger($node, 'later');
wait_until($node, 'the pause before the next attempt', "SELECT count(*) = 1 FROM weir.task_run WHERE run_id = $later AND status = 'ready' AND not_before > now()");
$run = weir_trigger($node, 'absurd');
wait_until($node, 'the service asks to be left alone', "SELECT count(*) = 1 FROM weir.circuits");
value("SELECT weir.resume_connection('api')");
is(wait_for_run($node, $_), 'succeeded', 'attempts that waited for their turn go on') foreach ($run, $later);
isnt($node->psql('postgres', "SELECT weir.resume_connection('nowhere')", stderr => \my $stderr), 0, 'a connection that is not there');
like($stderr, qr/connection "nowhere" does not exist/, 'is an error');

$node->stop;
done_testing();
