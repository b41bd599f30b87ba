# Request limits that hold for several connections together, and over crashes:
# whose requests count together, that the strictest limit holds, that a
# conductor which dies again and again sends no more than one that lives, and
# that a dropped connection leaves nothing behind.  And how often runs are
# asked for, where a connection says so.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use WeirFarEnd;
use WeirSignIn;
use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $far = WeirFarEnd->new;
my $node = weir_node('shared');
my $cloud = weir_cloud(undef);
my ($plain, $address) = ($far->url('plain'), $cloud->address);

sub value { return $node->safe_psql('postgres', $_[0]) }
sub refused { my ($rc, $out, $err) = $node->psql('postgres', $_[0]); return $rc == 0 ? 'accepted' : $err }
sub create { my ($name, $kind, $url, $options, $auth) = @_; return "SELECT weir.create_connection('$name', '$kind', '$url', " . literal($json->encode($auth // {})) . ', ' . literal($json->encode($options // {})) . ')' }
sub reads { my ($rate, $burst) = @_; return (request_limits => { reads => { per_second => $rate, burst => $burst } }) }
sub gets { my ($connection, $n) = @_; return map { { name => "${connection}_$_", kind => 'http', connection => $connection, spec => { path => "/$connection/$_" } } } 1 .. $n }
sub start
{
	my ($name, @tasks) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => \@tasks })) . ')');
	return weir_trigger($node, $name);
}
sub arrived { my ($like) = @_; return map { $_->{at} } grep { $_->{path} =~ $like } @{ $far->ledger->{requests} } }
sub shares { return value("SELECT coalesce(shares_limits_with::text, '-') FROM weir.connections WHERE name = '$_[0]'") }

# --- whose requests count together
value("SELECT weir.create_secret('$_', 'x')") foreach ('one', 'two');
my %factory = (subscription_id => 'S-1', resource_group => 'rg', factory => 'dev');
my %app = (type => 'entra_client_secret', tenant_id => 'local', client_id => 'App-1', client_secret => 'one', authority => $address);
value(create('adf', 'adf', "$address/adf", \%factory, \%app));
value(create('adf_other_factory', 'adf', "$address/adf", { %factory, factory => 'test', resource_group => 'rg2', subscription_id => 's-1' }, { %app, client_id => 'app-1', client_secret => 'two' }));
value(create('adf_other_subscription', 'adf', "$address/adf", { %factory, subscription_id => 's-2' }, \%app));
value(create('adf_other_app', 'adf', "$address/adf", \%factory, { %app, client_id => 'app-2' }));
value(create('adf_own_share', 'adf', "$address/adf", { %factory, request_limits => { writes => { per_second => 5 } } }, \%app));
value(create('adf_machine', 'adf', "$address/adf", \%factory, { type => 'managed_identity', source => 'vm' }));
is(shares('adf'), '{adf_other_factory}', 'factories of one subscription, called as one application');
is(shares($_), '-', "not $_") foreach ('adf_other_subscription', 'adf_other_app', 'adf_own_share', 'adf_machine');
value(create('dbx', 'databricks', "$address/dbx", {}, { type => 'pat', token => 'one' }));
value(create('dbx_other_token', 'databricks', "$address/dbx", {}, { type => 'pat', token => 'two' }));
value(create('dbx_other_host', 'databricks', 'http://localhost:' . ($address =~ /:(\d+)/)[0] . '/dbx', {}, { type => 'pat', token => 'one' }));
is(shares('dbx'), '{dbx_other_token}', 'a workspace, whoever asks it');
is(shares('dbx_other_host'), '-', '... and not another one');
value(create('vault', 'keyvault', "$address/vault"));
value(create('vault_too', 'keyvault', "$address/vault"));
is(shares('vault'), '{vault_too}', 'a key vault');
value(create('api', 'http', $plain));
value(create('api_too', 'http', $plain));
is(shares('api'), '-', 'a service that publishes nothing');
value(create('named', 'http', $plain, { limit_group => 'us', reads(5, 5) }));
value(create('named_too', 'databricks', "$address/dbx", { limit_group => 'us', reads(50, 10) }, { type => 'pat', token => 'one' }));
value(create('named_as_well', 'http', $plain, { limit_group => 'us', reads(50, 4) }));
is(shares('named'), '{named_as_well,named_too}', 'those that say so');
foreach my $group ('', 5, 'a b', 'x' x 64, "a\n")
{
	like(refused(create('refused', 'http', $plain, { limit_group => $group })), qr/limit_group must be a name of 1 to 63 letters.*JSON path: \$\.limit_group/s, 'no name: ' . $json->allow_nonref->encode($group));
}
like(refused(create('refused', 'redis', 'redis://127.0.0.1:1', { limit_group => 'x' })), qr/unknown option "limit_group"/, 'Redis has none');

# --- the strictest holds for all of them
my $since = time;
my $run = start('together', gets('named', 15), gets('named_as_well', 15));
wait_until($node, 'they wait, and of both it is said', "SELECT count(*) = 2 FROM weir.connections WHERE reads_wait_until IS NOT NULL AND name LIKE 'named%'");
like(value("SELECT string_agg(detail, '; ') FROM weir.why($run)"), qr/reads through connection "named" take turns, 5 a second/, 'weir.why, too');
is(wait_for_run($node, $run), 'succeeded', 'all are sent in the end');
my @times = arrived(qr{^/named});
is(scalar @times, 30, 'each once');
cmp_ok(excess($since, 4, 5, @times), '<=', 1, 'four at once, then five a second, all together') or diag(join(' ', map { sprintf '%.2f', $_ - $since } sort { $a <=> $b } @times));

# --- who is dropped has no say any more, and leaves nothing
value("SELECT weir.drop_pipeline('together')");
value("SELECT weir.drop_connection('named')");
is(value("SELECT string_agg(connection_name, ' ') FROM weir.throttle WHERE connection_name LIKE 'named%'"), 'named_as_well', 'a dropped connection leaves no row');
$run = start('faster', gets('named_as_well', 154));
is(wait_for_run($node, $run), 'succeeded', 'fifty a second go through, and not five') if ok(wait_until($node, 'they wait, but not for half a minute',
	"SELECT bool_and(per_second = 50) FROM weir.throttle WHERE connection_name = 'named_as_well' AND until > clock_timestamp()") // 1, 'by the limit of those that are left');
value("INSERT INTO weir.circuit VALUES ('api_too', now(), now(), 10, 'x')");
value("SELECT weir.drop_connection('api_too')");
is(value("SELECT count(*) FROM weir.circuit WHERE connection_name = 'api_too'"), '0', 'nor one about its circuit');

# --- a conductor that dies again and again
value(create('crash', 'http', $plain, { reads(5, 30) }));
$since = time;
$run = start('crash', gets('crash', 70));
my $log = -s $node->logfile;
my $seen = 20;
foreach my $life (1 .. 3)
{
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	select(undef, undef, undef, 0.05) until scalar(arrived(qr{^/crash})) >= $seen || time > $limit;
	kill9_backend($node, 'weir conductor');
	wait_for_restart($node, $log);
	$log = -s $node->logfile;
	$seen = scalar(arrived(qr{^/crash})) + 1;
}
is(wait_for_run($node, $run), 'succeeded', 'killed three times: all are sent in the end');
@times = arrived(qr{^/crash});
cmp_ok(scalar @times, '>=', 70, 'each of them');
cmp_ok(excess($since, 30, 5, @times), '<=', 1, 'and no more of them in any time than a conductor that lives may send') or diag(join(' ', map { sprintf '%.2f', $_ - $since } sort { $a <=> $b } @times));

# --- how often runs are asked for
foreach my $case ([ 5, qr/poll must be an object with min, max or both/ ], [ {}, qr/poll must be an object/ ], [ { min => 1, every => 2 }, qr/poll must be an object/ ],
	[ { min => 0.1 }, qr/min must be a number of seconds from 0\.2.*\$\.poll\.min/s ], [ { min => '1' }, qr/min must be a number/ ], [ { max => 3601 }, qr/max must be.*\$\.poll\.max/s ],
	[ { min => 5, max => 4 }, qr/max must be a number of seconds from min/ ])
{
	my ($poll, $expected) = @$case;
	like(refused(create('refused', 'databricks', "$address/dbx", { poll => $poll }, { type => 'pat', token => 'one' })), $expected, 'refused: ' . $json->encode($poll));
}
like(refused(create('refused', 'http', $plain, { poll => { min => 1 } })), qr/unknown option "poll"/, 'tasks of kind http say it themselves');
value("SELECT weir.create_secret('pat', 'dapi-local')");
value(create('patient', 'databricks', "$address/dbx", { poll => { min => 2.5 } }, { type => 'pat', token => 'pat' }));
$cloud->reset;
$cloud->config(speed => 1);
$run = start('patient', { name => 'job', kind => 'databricks_job', connection => 'patient', spec => { job_id => 102, job_parameters => { seconds => '8' } } });
is(wait_for_run($node, $run), 'succeeded', 'a job of some seconds');
my $looks = $cloud->requests('databricks.get');
my $seconds = value("SELECT extract(epoch FROM ended_at - started_at) FROM weir.run WHERE run_id = $run");
cmp_ok($looks, '<=', $seconds / 2.5 + 2, 'is asked for no more often than its connection says') or diag("$looks looks in $seconds s");

$node->stop;
done_testing();
