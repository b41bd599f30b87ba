# A secret's value never reaches a log, an error, a view, a dump,
# pg_stat_activity or another role.  Random values are used by a live conductor
# against services that say them back in every way, on a server that logs
# everything it can; then everything that was kept is searched for them.

use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

use WeirCanaries;
use WeirSignIn qw(base64url certificate_key file_text make_certificate write_file);
use WeirTest;

my $libdir = readpipe('pg_config --pkglibdir');
chomp $libdir;
my @libraries = grep { -e "$libdir/$_.so" } ('pg_stat_statements', 'auto_explain');
my $conf = "shared_preload_libraries = '" . join(', ', 'weir', @libraries) . "'\n" . q{
autovacuum = off
log_min_messages = debug5
log_error_verbosity = verbose
log_statement = all
log_duration = on
log_min_duration_statement = 0
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
debug_print_parse = on
debug_print_rewritten = on
debug_print_plan = on
log_parser_stats = on
log_executor_stats = on
wal_level = logical
};
$conf .= "auto_explain.log_min_duration = 0\nauto_explain.log_nested_statements = on\nauto_explain.log_verbose = on\n"
  if grep { $_ eq 'auto_explain' } @libraries;
$conf .= "pg_stat_statements.track = all\npg_stat_statements.track_utility = on\n"
  if grep { $_ eq 'pg_stat_statements' } @libraries;

my $node = weir_node('secrets', conf => $conf);
my $cloud = weir_cloud($node);
my $address = $cloud->address;
my $dump = PostgreSQL::Test::Utils::tempdir();
my $json = JSON::PP->new->canonical->ascii;

sub value { return $node->safe_psql('postgres', $_[0]); }

# --- the values
my $control = canary('control');
my $pat = canary('pat', 'dapi-', '/+=~');
my $entra = canary('entra', 'x~', '/+&=%" y');
my $bearer = canary('bearer', '', '+/"\\%');
my $password = canary('password', 'p@', ':/ y');
my $token = canary('token', 'eyJ0eXAi.', '-_.~+/');
my $typed = canary('typed');
my $changed = canary('changed');
my $bound = canary('bound');
my $wrong = canary('wrong');
my $done = canary('done');
my $executed = canary('executed');
my $broken = canary('broken');
my $misplaced = canary('misplaced');
my $from_file = canary('from_file');
my $refused = canary('refused');

# --- given to weir, every way it can be typed
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'"; }

$node->safe_psql('postgres', 'CREATE EXTENSION pg_stat_statements')
  if grep { $_ eq 'pg_stat_statements' } @libraries;
$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN IN ROLE weir_admin;
	CREATE ROLE mallory LOGIN IN ROLE weir_admin;
	CREATE ROLE operator LOGIN IN ROLE weir_operator;
	CREATE ROLE reader LOGIN IN ROLE weir_reader;
	CREATE ROLE nobody LOGIN});

my $as_alice = $node->connstr('postgres') . ' user=alice';
sub alice
{
	my ($sql, $fails) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql, connstr => $as_alice);
	die "alice: $err" if $status != 0 && !$fails;
	return $err;
}

alice('SELECT weir.create_secret(\'pat\', ' . literal($pat) . ')');
alice('SELECT weir.create_secret(\'entra\', ' . literal($entra) . ", description => 'of the app')");
alice("/* first */ SELECT  WEIR . \"create_secret\" (name => 'bearer', value => E" . literal($bearer =~ s/\\/\\\\/gr) . ')');
alice('SELECT weir.create_secret(\'password\', ' . literal($password) . ')');
alice('SELECT weir.create_secret(\'typed\', ' . literal($typed) . '); SELECT 1');
alice('SELECT weir.alter_secret(\'typed\', ' . literal($changed) . ')');
alice("SELECT weir.create_secret('empty', 'x')");
# What ends up in pg_stat_statements is not in weir's hands: see doc/operation.md.
alice("DO \$\$ BEGIN PERFORM weir.create_secret('done', " . literal($done) . '); END $$');
alice('PREPARE p AS SELECT weir.create_secret($1, $2); EXECUTE p (\'executed\', ' . literal($executed) . ')');

# Bound, as a driver does it.
{
	my $request = $json->encode({ sql => 'SELECT weir.create_secret($1, $2)',
			params => [ { value => 'bound', type => 'text' }, { value => $bound, type => 'text' } ] });
	my $again = $json->encode({ sql => 'SELECT weir.create_secret($1, $2)',
			params => [ { value => 'bound', type => 'text' }, { value => $bound, type => 'text' } ] });
	IPC::Run::run([ 'python3', dirname(__FILE__) . '/wire_client.py', '--host', $node->host, '--port', $node->port,
			'--user', 'alice', '--dbname', 'postgres' ], '<', \"$request\n$again\n", '>', \my $out, '2>', \my $err)
	  or die "wire client failed";
	like($out, qr/secret \\"bound\\" already exists/, 'a bound value arrives, and a second time is an error');
	unlike($out, qr/\Q$core{bound}\E/, 'which does not quote it');
}

# Errors of every kind; what the client sees beside its own statement is in front of LINE.
my @errors = (
	'SELECT weir.create_secret(\'pat\', ' . literal($broken) . ')',
	'SELECT weir.alter_secret(\'absent\', ' . literal($broken) . ')',
	'SELECT weir.create_secret(\'b\' ' . literal($broken) . ')',
	"SELECT weir.create_secret('b', \"$broken\")",
	'SELECT weir.create_secret(\'b\', ' . literal($broken) . '::int::text)',
	'SELECT weir.create_secret(\'b\', valeu => ' . literal($broken) . ')',
	'SELECT weir.create_secret(\'b\', reference => ' . literal($broken) . ')',
	'SELECT weir.create_secret(\'b c\', ' . literal($broken) . ')',
	'SELECT weir.create_secret(\'b\', ' . literal($broken) . ', \'env:X\')',
	'SELECT weir.create_secret(\'b\', ' . literal($broken) . ') FROM nowhere',
	"SELECT weir.create_secret('b', repeat(" . literal($broken) . ', 5000))',
	'SELECT weir.create_secret(\'b\', ' . literal($broken) . '); SELECT 1/0',
	"DO \$\$ BEGIN PERFORM weir.alter_secret('absent', " . literal($broken) . '); END $$',
	# a value in the place of a name
	q{SELECT weir.create_connection('c', 'databricks', '} . $address . q{/dbx', '{"type": "pat", "token": "} . $misplaced . q{"}')},
);
foreach my $sql (@errors)
{
	my $err = alice($sql, 1);
	like($err, qr/ERROR: /, 'an error') or diag($sql =~ s/$broken|$misplaced/.../gr);
	my @lines = grep { !/^(psql:|ERROR: .*)?LINE \d+:|^QUERY:|^CONTEXT:|^STATEMENT:/ } split /\n/, $err;
	unlike(join("\n", @lines), qr/\Q$broken\E|\Q$misplaced\E/, 'does not quote it');
}

# In pg_stat_activity while the statement runs on.
$node->safe_psql('postgres', "BEGIN; SELECT pg_advisory_xact_lock(90); PREPARE TRANSACTION 'gate'");
my $waiting = IPC::Run::start(
	[ 'psql', '-XAtq', '-d', $as_alice, '-c',
		'SELECT weir.alter_secret(\'typed\', ' . literal($changed) . '), pg_advisory_xact_lock_shared(90)' ],
	'>', \my $waited, '2>', \my $waited_err);
wait_until($node, 'the statement waits', "SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'alice' AND wait_event_type = 'Lock'");
is(value("SELECT query FROM pg_stat_activity WHERE usename = 'alice' AND wait_event_type = 'Lock'"),
	'SELECT weir.alter_secret(...)', 'pg_stat_activity shows a running statement without its value');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'gate'");
$waiting->finish;

# --- used by a live conductor
open(my $secret_file, '>', $node->basedir . '/secrets/bearer') or die $!;
print $secret_file "$from_file\n";
close $secret_file;
open($secret_file, '>', $node->basedir . '/secrets/refused') or die $!;
print $secret_file "$refused\r\nX-Injected: 1\n";
close $secret_file;
$cloud->config(pats => [$pat], clients => { 'weir-client' => $entra });

sub connection
{
	my ($name, $kind, $url, $auth, $options) = @_;
	alice("SELECT weir.create_connection('$name', '$kind', '$url', " . literal($json->encode($auth)) . '::jsonb, '
		  . literal($json->encode($options // {})) . '::jsonb)');
	return;
}

my $entra_auth = { type => 'entra_client_secret', client_id => 'weir-client', client_secret => 'entra', tenant_id => 'local', authority => $address };
my $factory = { subscription_id => 's1', resource_group => 'rg', factory => 'adf-dev', settle_seconds => 0 };
alice(q{SELECT weir.create_secret('from_file', reference => 'file:} . $node->basedir . q{/secrets/bearer')});
alice(q{SELECT weir.create_secret('refused', reference => 'file:} . $node->basedir . q{/secrets/refused')});
connection('dbx', 'databricks', "$address/dbx", { type => 'pat', token => 'pat' });
connection('adf', 'adf', "$address/adf", $entra_auth, $factory);
connection('adf_wrong', 'adf', "$address/adf", { %$entra_auth, tenant_id => 'elsewhere', client_id => 'unknown' }, $factory);
connection('http_bearer', 'http', "$address/http", { type => 'bearer', token => 'bearer' });
connection('http_basic', 'http', "$address/http", { type => 'basic', username => 'weir', password => 'password' });
connection('http_file', 'http', "$address/http", { type => 'bearer', token => 'from_file' });
connection('http_refused', 'http', "$address/http", { type => 'bearer', token => 'refused' });
connection('http_entra', 'http', "$address/http", { %$entra_auth, scope => 'https://vault.azure.net/.default' });
connection('dbx_wrong', 'databricks', "$address/dbx", { type => 'pat', token => 'typed' });

my $number = 0;

# Run one task to its end; its status, and error or output.
sub run_task
{
	my ($connection, $kind, $spec, $user) = @_;
	my $pipeline = 'p' . ++$number;
	my $definition = $json->encode({ tasks => [ { name => 'a', kind => $kind, spec => $spec, defined $connection ? (connection => $connection) : () } ] });
	my ($status, $out, $err) = $node->psql('postgres',
		"SELECT weir.create_pipeline('$pipeline', " . literal($definition) . "::jsonb); SELECT weir.trigger('$pipeline')",
		connstr => $node->connstr('postgres') . ' user=' . ($user // 'alice'));
	die $err if $status != 0;
	my $run = (split /\n/, $out)[-1];
	wait_for_run($node, $run);
	return (value("SELECT status FROM weir.task_run WHERE run_id = $run"),
		value("SELECT coalesce(string_agg(message, ' '), '') FROM weir.error WHERE run_id = $run"),
		value("SELECT coalesce(output::text, '') FROM weir.task_run WHERE run_id = $run"), $run);
}

sub url_encode { return $_[0] =~ s/([^A-Za-z0-9._~-])/sprintf '%%%02X', ord $1/ger; }

my ($status, $error, $output);

# What the services are really asked with
($status, $error) = run_task('dbx', 'databricks_job', { job_id => 102, job_parameters => { seconds => '0' } });
is($status, 'succeeded', 'the token of the workspace is good') or diag($error);
($status, $error) = run_task('adf', 'adf_pipeline', { pipeline => 'wait', parameters => { seconds => 0 } });
is($status, 'succeeded', 'so is the client secret') or diag($error);

# A service that answers what it was asked, headers included
foreach my $case ([ 'http_bearer', 'Bearer' ], [ 'http_basic', 'Basic' ], [ 'http_file', 'Bearer' ], [ 'http_entra', 'Bearer' ])
{
	my ($connection, $scheme) = @$case;
	my $answer = run_task($connection, 'http', { path => '/json/echo', method => 'POST', body => { x => 1 }, idempotent => JSON::PP::true });
	($status, $error, $output) = run_task($connection, 'http', { path => '/json/echo' });
	is($status, 'succeeded', "$connection: a service that says back what it was asked") or diag($error);
	like($output, qr/"authorization": "$scheme \*{20,}"/, "$connection: the credentials in its answer are masked");
}

# Errors that quote the header, in every spelling
my %spelled = (
	plain => $bearer,
	url => url_encode($bearer),
	json => substr($json->encode([$bearer]), 2, -2) =~ s{/}{\\/}gr,
	dotnet => ($bearer =~ s/\\/\\\\/gr =~ s/"/\\u0022/gr =~ s/\+/\\u002B/gr));
foreach my $how (sort keys %spelled)
{
	foreach my $body (
		'{"error_code": "401", "message": "refused: Authorization: Bearer ' . $spelled{$how} . '"}',
		"<html><title>401</title><pre>GET /http HTTP/1.1\nAuthorization: Bearer $spelled{$how}</pre></html>",
		"UNAUTHORIZED: the token $spelled{$how} is not known")
	{
		$cloud->add_fault(operation => 'http.status', fault => 'status', status => 401, body => $body, times => 5);
		($status, $error) = run_task('http_bearer', 'http', { path => '/status/200' });
		is($status, 'failed', "a refusal that quotes the header ($how)");
		like($error, qr/\*{20,}/, 'and is told without it');
		$cloud->clear_faults;
	}
}
$cloud->add_fault(operation => 'http.status', fault => 'status', status => 500, times => undef,
	body => "{\"message\": \"user weir with password $password\"}");
($status, $error) = run_task('http_basic', 'http', { path => '/status/200' });
is($status, 'failed', 'a service that names the password');
like($error, qr/with password \*+/, 'is told without it');
$cloud->clear_faults;

foreach my $case ([ 'dbx', 'databricks.run-now', 'databricks_job', { job_id => 102 } ], [ 'adf', 'adf.createRun', 'adf_pipeline', { pipeline => 'wait' } ])
{
	my ($connection, $operation, $kind, $spec) = @$case;
	$cloud->add_fault(operation => $operation, fault => 'status', status => 403, times => undef,
		body => '{"error": {"code": "Forbidden", "message": "not with ' . ($connection eq 'dbx' ? $pat : 'eyJ0eXAi') . '"}}');
	($status, $error) = run_task($connection, $kind, $spec);
	is($status, 'failed', "$operation: a refusal");
	$cloud->clear_faults;
}

# A wrong token; a value that is no header
($status, $error) = run_task('dbx_wrong', 'databricks_job', { job_id => 102 });
is($status, 'failed', 'a wrong token');
($status, $error) = run_task('http_refused', 'http', { path => '/json' });
is($status, 'failed', 'a value that would forge a header');
like($error, qr/line break or another control character/, 'is told what is wrong');
is($cloud->requests('http.json', path => '/http/json'), 0, 'and never sent');

# --- the sign-in service
# Its token is one of ours, so that it can be looked for; the factory does not know it and the next one is good.
$cloud->add_fault(operation => 'entra.token', fault => 'not_json', status => 200,
	body => $json->encode({ token_type => 'Bearer', expires_in => 3600, access_token => $token }));
$cloud->add_fault(operation => 'adf.*', fault => 'status', status => 401, times => 1,
	body => "{\"error\": {\"code\": \"InvalidAuthenticationToken\", \"message\": \"Bearer $token\"}}");
alice('SELECT weir.alter_secret(\'entra\', ' . literal($entra) . ')');
($status, $error) = run_task('adf', 'adf_pipeline', { pipeline => 'wait', parameters => { seconds => 0 } });
is($status, 'succeeded', 'a refused access token is fetched again') or diag($error);
$cloud->clear_faults;
$cloud->add_fault(operation => 'entra.token', fault => 'not_json', status => 200,
	body => $json->encode({ token_type => 'Bearer', expires_in => 3600, access_token => $token }));
alice('SELECT weir.alter_secret(\'entra\', ' . literal($entra) . ')');
($status, $error, $output) = run_task('http_entra', 'http', { path => '/json/echo' });
like($output, qr/"authorization": "Bearer \*{20,}"/, 'an access token said back is masked');
$cloud->clear_faults;

($status, $error) = run_task('adf_wrong', 'adf_pipeline', { pipeline => 'wait' });
is($status, 'failed', 'a wrong tenant');
like($error, qr/sign-in for connection "adf_wrong" failed: .*AADSTS/, 'is told in words of the sign-in service');

# Refusals that quote the form; one where the message is cut inside the secret
foreach my $description (
	"AADSTS7000215: Invalid client secret provided: $entra",
	'AADSTS90014: in grant_type=client_credentials&client_secret=' . url_encode($entra),
	'AADSTS90014: secret ' . url_encode($entra),
	'AADSTS1: ' . 'x' x (500 - 9 - length('x~') - 20) . $entra,
	"AADSTS2: \\\n$entra")
{
	$cloud->add_fault(operation => 'entra.token', fault => 'status', status => 401, times => undef,
		body => { error => 'invalid_client', error_description => $description });
	alice('SELECT weir.alter_secret(\'entra\', ' . literal($entra) . ')');
	($status, $error) = run_task('adf', 'adf_pipeline', { pipeline => 'wait' });
	is($status, 'failed', 'a sign-in service that says back the client secret');
	like($error, qr/repeated the secret|AADSTS2/, 'is not quoted');
	$cloud->clear_faults;
}

# --- certificates, assertions, federated tokens and what a key vault holds
my $certificate = make_certificate('app');
my $pem = file_text("$certificate.key");
$core{private_key} = substr((split /\n/, $pem)[12], 0, 48);
# Every assertion of ours begins like this.
$core{assertion} = substr(base64url('{"alg":"PS256","typ":"JWT","x5t#S256":"'), 0, 48);
my $federated = join('.', base64url('{"alg":"RS256"}'), base64url('{"iss":"https://cluster","sub":"weir","aud":"aud","exp":4000000000}'), canary('federated'));
my $vault = canary('vault', 'dapi-', '/+=~');
write_file($node->basedir . '/secrets/federated', $federated);
alice('SELECT weir.create_secret(\'certificate\', ' . literal($pem . file_text("$certificate.crt")) . ')');
alice(q{SELECT weir.create_secret('federated', reference => 'file:} . $node->basedir . q{/secrets/federated')});
$cloud->config(certificates => { 'cert-app' => [ certificate_key($certificate) ] },
	federated => { 'pod-app' => { issuer => 'https://cluster', subject => 'weir', audience => 'aud', n => 'C0', e => 3 } });
{
	my $http = HTTP::Tiny->new;
	my $granted = decode_json($http->post_form("$address/local/oauth2/v2.0/token", { grant_type => 'client_credentials', client_id => 'weir-client',
				client_secret => $entra, scope => 'https://vault.azure.net/.default' })->{content});
	my $put = $http->request('PUT', "$address/vault/secrets/token?api-version=7.4", { content => encode_json({ value => $vault }),
			headers => { Authorization => "Bearer $granted->{access_token}", 'Content-Type' => 'application/json' } });
	is($put->{status}, 200, 'a key vault that holds a secret');
}
my @app = (tenant_id => 'local', authority => $address);
connection('adf_certificate', 'adf', "$address/adf", { type => 'entra_certificate', client_id => 'cert-app', certificate => 'certificate', @app }, $factory);
connection('adf_federated', 'adf', "$address/adf", { type => 'entra_federated', client_id => 'pod-app', token => 'federated', @app }, $factory);
connection('vault', 'keyvault', "$address/vault", $entra_auth);
connection('http_vault', 'http', "$address/http", { type => 'bearer', token => 'keyvault:vault/token' });
($status, $error) = run_task('adf_certificate', 'adf_pipeline', { pipeline => 'wait', parameters => { seconds => 0 } });
is($status, 'succeeded', 'a certificate') or diag($error);
($status, $error) = run_task('adf_federated', 'adf_pipeline', { pipeline => 'wait' });
is($status, 'failed', 'a federated token that is not signed');
like($error, qr/the federated token is not accepted/, 'is told');
($status, $error, $output) = run_task('http_vault', 'http', { path => '/json/echo' });
like($output, qr/"authorization": "Bearer \*{20,}"/, 'a secret out of the key vault is masked') or diag($error);
$cloud->config(talkative => [ 'cert-app', 'pod-app' ]);
foreach my $connection ('adf_certificate', 'adf_federated')
{
	alice("SELECT weir.alter_connection('$connection', description => 'fresh')");
	($status, $error) = run_task($connection, 'adf_pipeline', { pipeline => 'wait' });
	is($status, 'failed', "$connection: a sign-in service that says back the assertion");
	like($error, qr/repeated the secret/, 'is not quoted');
}

# --- other roles
foreach my $role ('mallory', 'operator', 'reader', 'nobody')
{
	foreach my $sql ('SELECT * FROM weir.secret', 'SELECT ciphertext FROM weir.secret', 'COPY weir.secret TO STDOUT',
		'UPDATE weir.secret SET owner = current_user::regrole', 'TABLE weir.connection', 'SHOW weir.secret_key_file',
		q{SELECT pg_read_file(current_setting('data_directory') || '/PG_VERSION')})
	{
		my ($result, $out, $err) = $node->psql('postgres', $sql, connstr => $node->connstr('postgres') . " user=$role");
		next if $sql eq 'TABLE weir.connection' && $result == 0;		# names of secrets are no secrets
		isnt($result, 0, "$role: $sql");
		like($err, qr/permission denied|must be (superuser|a member)|is restricted/, 'is refused');
	}
	my ($result, $out, $err) = $node->psql('postgres', "SELECT weir.alter_secret('pat', 'mine')", connstr => $node->connstr('postgres') . " user=$role");
	isnt($result, 0, "$role: alter_secret");
	like($err, qr/may not alter|permission denied/, 'is refused');
}
is(value(q{SELECT count(*) FROM pg_proc p, pg_roles r WHERE p.pronamespace = 'weir'::regnamespace
	AND p.proname ~ 'secret' AND r.rolname IN ('operator', 'reader', 'nobody') AND has_function_privilege(r.oid, p.oid, 'EXECUTE')}),
	0, 'functions on secrets are for administrators');

# In tasks of another administrator
($status, $error, $output) = run_task(undef, 'sql', { sql => 'SELECT ciphertext FROM weir.secret' }, 'mallory');
is($status, 'failed', 'a SQL task of somebody else');
like($error, qr/permission denied/, 'cannot read the table');
($status, $error, $output) = run_task(undef, 'sql', { sql => 'SET ROLE alice; SELECT ciphertext FROM weir.secret' }, 'mallory');
is($status, 'failed', 'nor as somebody else');
($status, $error, $output) = run_task('http_bearer', 'http', { path => '/json/echo' }, 'mallory');
like($output, qr/"authorization": "Bearer \*{20,}"/, 'an HTTP task of somebody else does not see what it sent');
($status, $error, $output) = run_task('http_bearer', 'http', { url => "$address/http/../http/json/elsewhere" }, 'mallory');
unlike($output, qr/authorization/i, 'credentials do not leave the base address');
($status, $error, $output) = run_task('http_bearer', 'http', { url => "$address/_cloud/echo" }, 'mallory');
is($status, 'succeeded', 'another address of the host is called');
($status, $error, $output) = run_task('http_file', 'http', { url => $address =~ s/127\.0\.0\.1/localhost/r . '/http/json/elsewhere' }, 'mallory');
is($status, 'succeeded', 'another host is called') or diag($error);
unlike($output, qr/authorization/i, 'without credentials');

# --- before they are used: plans, also of what a service said back in an earlier run, and simulations
alice('SELECT weir.create_pipeline(\'resumed\', ' . literal($json->encode({ tasks => [
	{ name => 'ask', kind => 'http', connection => 'http_bearer', phase => 'land', spec => { path => '/json/echo' } },
	{ name => 'use', kind => 'sql', depends_on => ['ask'], spec => { sql => 'SELECT {{tasks.ask.output.body.headers.authorization}}::integer' } } ] })) . '::jsonb)');
is(wait_for_run($node, weir_trigger($node, 'resumed')), 'failed', 'a run that used what a service said back');
my $said = value(q{SELECT p.* FROM weir.plan('resumed') p});
like($said, qr/^0\|.*\|D\|/m, 'its next start takes that over');
like($said, qr/"Bearer \*{20,}"/, 'and its plan shows it masked');
$said = canaries_absent_in_foresight($node, [ grep { $_ ne 'control' } keys %core ], "$dump/foresight");
like($said, qr{^plan\|.*"path": "/json/echo"}m, 'plans have rendered specs');
like($said, qr{^simulation\|.*"path": "/json/echo"}m, 'and so do simulations');

# --- and now look for them
$node->safe_psql('postgres', "CREATE TABLE public.control (t text); INSERT INTO public.control VALUES (" . literal(encode_base64($control, '')) . ')');
my $relations = value(q{SELECT string_agg(format('%I.%I', n.nspname, c.relname), ' ' ORDER BY 1)
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = 'weir' AND c.relkind IN ('r', 'v', 'm', 'p')
		OR c.relname IN ('pg_stat_activity', 'pg_stat_statements', 'pg_description', 'pg_stats', 'control')});
foreach my $relation (split / /, $relations)
{
	open(my $stream, '>', "$dump/$relation") or die $!;
	print $stream $node->safe_psql('postgres', "SELECT * FROM $relation");
	close $stream;
}
$node->command_ok([ 'pg_dump', '-Fp', '-f', "$dump/plain", $node->connstr('postgres') ], 'pg_dump');
$node->command_ok([ 'pg_dumpall', '-f', "$dump/all", '-d', $node->connstr('postgres') ], 'pg_dumpall');
like(PostgreSQL::Test::Utils::slurp_file("$dump/plain"), qr/^bearer\t\\N\t\\\\x01/m, 'a dump holds the sealed secret');
# The line that says which token was issued last would begin like this.
$core{issued} = 'eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.';
my @all = grep { $_ ne 'control' } keys %core;
my @not_statements = grep { $_ ne 'done' && $_ ne 'executed' } @all;
my @typed_by_name = grep { $_ ne 'executed' && $_ ne 'misplaced' } @all;

is(scalar(grep { /control in/ } canaries_found(['control'], $dump)) > 0, 1, 'the search finds what is there');
canaries_absent('tables, views, statistics and dumps are clean', \@not_statements, $dump);
$node->safe_psql('postgres', 'CHECKPOINT');
$node->stop;
is(scalar(grep { m{control in .*/base/} } canaries_found(['control'], $node->data_dir)) > 0, 1, 'also on disk');
is(scalar(grep { m{control in .*/pg_wal/} } canaries_found(['control'], $node->data_dir)) > 0, 1, 'and in the WAL');
canaries_absent('data directory and WAL are clean', \@not_statements, $node->data_dir);
cmp_ok(-s $node->logfile, '>', 1_000_000, 'the server logged a lot');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/statement with a secret, not shown/, 'among it that there were secrets');
canaries_absent('the server log is clean', \@typed_by_name, $node->logfile);

done_testing();
