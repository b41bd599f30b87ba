# weir.test_connection() names the first step that does not work, for every
# kind of connection, and gives nothing away.

use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('connections', conf => "weir.allowed_hosts = '127.0.0.1, localhost, nowhere.invalid, 10.0.0.1'\n");
my $cloud = weir_cloud($node);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }

# The row without the times it took, as "column: value" lines of what is not null.
sub test
{
	my ($name, $columns) = @_;
	$columns //= 'is_ok, name_lookup, tcp, tls, sign_in, permission';
	return value("SELECT regexp_replace(concat_ws('|', $columns), ', [0-9.]+ ms', '', 'g') FROM weir.test_connection('$name')");
}
sub detail { return value("SELECT coalesce(detail, '') || ' // ' || coalesce(hint, '') FROM weir.test_connection('$_[0]')") }
sub connection { value("SELECT weir.create_connection($_[0])"); return }
my $everything = 't|ok|ok|not needed|ok|ok';

value(q{SELECT weir.create_secret('dbx_token', 'dapi-local'); SELECT weir.create_secret('entra_secret', 'weir-secret');
	SELECT weir.create_secret('stale', 'dapi-of-last-year-8841')});

# --- kinds that work
connection("'dbx', 'databricks', '$address/dbx', '{\"type\": \"pat\", \"token\": \"dbx_token\"}'");
is(test('dbx'), $everything, 'Databricks');
like(value("SELECT latency_ms > 0 AND address = '127.0.0.1:' || split_part('$address', ':', 3) AND kind = 'databricks' FROM weir.test_connection('dbx')"), qr/t/, 'with latency, address and kind');
my $entra = "'{\"type\": \"entra_client_secret\", \"tenant_id\": \"local\", \"client_id\": \"weir-client\", \"client_secret\": \"%s\", \"authority\": \"$address\"}'";
my $factory = "'{\"subscription_id\": \"s1\", \"resource_group\": \"rg-dev\", \"factory\": \"%s\"}'";
connection(sprintf("'adf', 'adf', '$address/adf', $entra, $factory", 'entra_secret', 'adf-dev'));
is(test('adf'), $everything, 'Data Factory, with a token of its own');
connection("'api', 'http', '$address/http'");
is(test('api'), 't|ok|ok|not needed|not needed|ok', 'http without credentials');
is($cloud->started('adf.createRun') + $cloud->started('databricks.run-now'), 0, 'nothing was started');

# --- one step after the other fails
connection("'nowhere', 'http', 'https://nowhere.invalid'");
is(test('nowhere'), 'f|failed', 'a name without address');
like(detail('nowhere'), qr/resolve.* \/\/ Correct the host/i, 'is explained');
connection("'shut', 'http', 'http://127.0.0.1:" . PostgreSQL::Test::Cluster::get_free_port() . "'");
is(test('shut'), 'f|ok|failed', 'nobody listens');
like(detail('shut'), qr/Is the port right/, 'is explained');
connection("'plain', 'http', 'https://127.0.0.1:" . ($address =~ /:(\d+)/)[0] . "'");
is(test('plain'), 'f|ok|ok|failed', 'no TLS there');
connection("'stale', 'databricks', '$address/dbx', '{\"type\": \"pat\", \"token\": \"stale\"}'");
is(test('stale'), 'f|ok|ok|not needed|failed', 'a token that is not accepted');
like(detail('stale'), qr/HTTP status 403.*Invalid access token.* \/\/ The service does not accept the credentials/, 'is no lack of a right');
$cloud->add_fault(operation => 'entra.token', fault => 'html', status => 200, times => 2);
is(test('adf'), 'f|ok|ok|not needed|failed', 'a web page where one signs in');
like(detail('adf'), qr/a web page answers in the place of the service: correct authority, or have the requests.* let through \/\/ Something else may answer for a while/, 'is told from a token');
$cloud->add_fault(operation => 'entra.token', fault => 'not_json', status => 200, body => '{"access_token": 17}');
like(detail('adf'), qr/the answer of the service is not a token: correct authority/, '... and so is other JSON');
connection(sprintf("'wrong', 'adf', '$address/adf', $entra, $factory", 'stale', 'adf-dev'));
is(test('wrong'), 'f|ok|ok|not needed|failed', 'a client secret that is not accepted');
like(detail('wrong'), qr/sign-in for connection "wrong" failed: .* \/\/ Correct the connection's auth/, 'is explained');
connection(sprintf("'absent', 'adf', '$address/adf', $entra, $factory", 'entra_secret', 'no-such-factory'));
$cloud->add_fault(operation => 'adf.getFactory', fault => 'status', status => 404, times => 2);
is(test('absent'), 'f|ok|ok|not needed|ok|failed', 'a factory that is not there');
like(detail('absent'), qr/HTTP status 404.*Could not find the data factory/, 'is explained');
value("SELECT weir.create_secret('gone', reference => 'file:' || current_setting('weir.secret_directories') || '/gone')");
connection("'secretless', 'databricks', '$address/dbx', '{\"type\": \"pat\", \"token\": \"gone\"}'");
is(test('secretless'), 'f|ok|ok|not needed|failed', 'a secret that cannot be read');
$cloud->add_fault(operation => 'databricks.jobs-list', fault => 'status', status => 503, times => 1);
is(test('dbx'), 'f|ok|ok|not needed|ok|failed', 'a service that cannot serve');
is(test('dbx'), $everything, 'and serves again');

# --- credentials that are accepted, and one right that is missing
my $signed = "'{\"type\": \"entra_client_secret\", \"tenant_id\": \"local\", \"client_id\": \"weir-client\", \"client_secret\": \"entra_secret\", \"authority\": \"$address\"}'";
connection("'fabric', 'fabric', '$address/fabric/v1', $signed");
connection("'vault', 'keyvault', '$address/vault', $signed, '{\"api_version\": \"7.5\"}'");
connection("'lake', 'storage', '$address/hns/blob', $signed");
connection("'one_container', 'storage', '$address/hns/blob', $signed, '{\"container\": \"lake\"}'");
is(test($_), $everything, "$_, with a token of its own") foreach 'fabric', 'vault', 'lake', 'one_container';
is($cloud->requests('keyvault.list', api_version => '7.5'), 1, 'a vault is asked in the version that its connection names');
is($cloud->requests('hns.containers') . ' ' . $cloud->requests('hns.list'), '1 1', 'a storage connection that names a container is asked for that one');
foreach my $case (
	[ 'adf', 'adf.getFactory', 'AuthorizationFailed', 'failed', qr/may not see the data factory/ ],
	[ 'dbx', 'databricks.jobs-list', 'PERMISSION_DENIED', 'failed', qr/may not see the workspace's list of jobs/ ],
	[ 'fabric', 'fabric.workspaces', 'InsufficientPrivileges', 'failed', qr/may not see the list of workspaces/ ],
	[ 'vault', 'keyvault.list', 'Forbidden', 'unknown', qr/accepted, but may not list the vault's secrets.*the right to get.*not known/ ],
	[ 'lake', 'hns.containers', 'AuthorizationPermissionMismatch', 'unknown', qr/accepted, but may not list the account's containers.*not known/ ],
	[ 'lake', 'hns.containers', 'AuthorizationFailure', 'failed', qr/may not see the account's list of containers/ ],
	[ 'one_container', 'hns.list', 'AuthorizationPermissionMismatch', 'unknown', qr/accepted, but may not list the container.*not known/ ])
{
	my ($name, $operation, $code, $permission, $hint) = @$case;
	my $body = $operation =~ /^databricks/ ? "{\"error_code\": \"$code\", \"message\": \"not you\"}" : $operation =~ /^fabric/ ? "{\"errorCode\": \"$code\", \"message\": \"not you\"}"
	  : $operation =~ /^hns/ ? "<?xml version=\"1.0\"?><Error><Code>$code</Code><Message>not you</Message></Error>" : "{\"error\": {\"code\": \"$code\", \"message\": \"not you\"}}";
	$cloud->add_fault(operation => $operation, fault => 'status', status => 403, body => $body, times => 2);
	is(test($name, 'coalesce(is_ok::text, \'null\'), name_lookup, tcp, tls, sign_in, permission'),
		($permission eq 'unknown' ? 'null' : 'false') . "|ok|ok|not needed|ok|$permission", "$name: $code is about a right, not about signing in");
	my $text = detail($name);
	like($text, qr{^HTTP status 403: $code: not you // }, '... the service\'s words');
	like($text, $hint, '... and what was asked and what that means');
}
$cloud->add_fault(operation => 'hns.containers', fault => 'status', status => 403, headers => { 'x-ms-error-code' => 'AuthenticationFailed' }, times => 1);
is(test('lake'), 'f|ok|ok|not needed|failed', 'and a storage account that does not know who asks is told from that');

# --- somebody who listens and says nothing: a cancel gets through
my $mute = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "listen: $!";
connection("'mute', 'http', 'http://127.0.0.1:" . $mute->sockport . "'");
connection("'mute_tls', 'redis', 'rediss://127.0.0.1:" . $mute->sockport . "', options => '{\"connect_timeout\": 0.3}'");
is(test('mute_tls'), 'f|ok|ok|failed', 'a server that says nothing when TLS begins');
my ($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = '300ms'; SELECT * FROM weir.test_connection('mute')");
like($err, qr/canceling statement due to statement timeout/, 'a service that says nothing is interrupted');
is(value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'WeirTestConnection'"), '0', 'nothing waits any more');

# --- Redis
SKIP:
{
	my $program = (grep { -x } map { "$_/redis-server" } split(/:/, $ENV{PATH}))[0];
	skip 'there is no redis-server', 5 unless defined $program;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $server = IPC::Run::start([ $program, '--bind', '127.0.0.1', '--port', $port, '--save', '', '--requirepass', 'correct-horse' ],
		'<', \'', '>', \my $log, '2>&1');
	IPC::Run::pump($server) until $log =~ /Ready to accept connections/;
	value("SELECT weir.create_secret('redis', 'correct-horse')");
	connection("'redis', 'redis', 'redis://127.0.0.1:$port', '{\"type\": \"basic\", \"username\": \"default\", \"password\": \"redis\"}'");
	is(test('redis'), $everything, 'Redis');
	connection("'redis_wrong', 'redis', 'redis://127.0.0.1:$port', '{\"type\": \"basic\", \"username\": \"default\", \"password\": \"stale\"}'");
	is(test('redis_wrong'), 'f|ok|ok|not needed|failed', 'a wrong password');
	connection("'redis_open', 'redis', 'redis://127.0.0.1:$port'");
	is(test('redis_open'), 'f|ok|ok|not needed|failed', 'no password where one is wanted');
	connection("'redis_database', 'redis', 'redis://127.0.0.1:$port', '{\"type\": \"basic\", \"username\": \"default\", \"password\": \"redis\"}', '{\"database\": 99}'");
	is(test('redis_database'), 'f|ok|ok|not needed|ok|failed', 'a database that is not there');
	connection("'redis_http', 'redis', 'redis://127.0.0.1:" . ($address =~ /:(\d+)/)[0] . "', options => '{\"command_timeout\": 0.5}'");
	like(test('redis_http'), qr/^f\|ok\|ok\|not needed\|failed/, 'something that is not Redis');
	$server->kill_kill;
}

# --- who may, and what is kept back
value(q{CREATE ROLE op LOGIN IN ROLE weir_operator; CREATE ROLE rd LOGIN IN ROLE weir_reader});
is(value("SET ROLE op; SELECT is_ok FROM weir.test_connection('dbx')"), 't', 'an operator may');
($rc, $out, $err) = $node->psql('postgres', "SET ROLE rd; SELECT * FROM weir.test_connection('dbx')");
like($err, qr/permission denied for function test_connection/, 'a reader may not');
($rc, $out, $err) = $node->psql('postgres', "SELECT * FROM weir.test_connection('nothing')");
like($err, qr/connection "nothing" does not exist/, 'what is not there');
my $all = value('SELECT string_agg(weir.test_connection(name)::text, E\'\n\') FROM weir.connection WHERE name NOT IN (\'mute\', \'mute_tls\', \'plain\')');
unlike($all . slurp_file($node->logfile), qr/dapi-|weir-secret|correct-horse|Bearer|Basic /, 'no credential in any answer or in the log');
$node->append_conf('postgresql.conf', "weir.allowed_private_networks = '10.0.0.0/8'");
$node->reload;
wait_until($node, 'the setting is in force', q{SELECT current_setting('weir.allowed_private_networks') = '10.0.0.0/8'});
like(detail('api'), qr/refused.*weir\.allowed_private_networks/, 'the policy is named');

$node->stop;
done_testing();
