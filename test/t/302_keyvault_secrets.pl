# Secrets that live in a key vault: fetched through its connection, kept,
# looked up again after a time and when they are refused.  Rotation needs no
# restart; versions stay what they are; nothing of it is written anywhere.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirSignIn;
use WeirTest;

my $node = weir_node('vault');
my $cloud = weir_cloud($node);
my $address = $cloud->address;
my $http = HTTP::Tiny->new;
my $factory = { subscription_id => 's1', resource_group => 'rg', factory => 'adf-dev', settle_seconds => 0 };
my $job = { job_id => 102, job_parameters => { seconds => '0' } };
my $wait = { pipeline => 'wait', parameters => { seconds => 0 } };
my @entra = (tenant_id => 'local', authority => $address);

sub value { return $node->safe_psql('postgres', $_[0]); }

# A new version of a secret in the vault; returns its id.
sub put
{
	my ($name, $value) = @_;
	my $token = decode_json($http->post_form("$address/local/oauth2/v2.0/token", {
				grant_type => 'client_credentials', client_id => 'weir-client', client_secret => 'weir-secret',
				scope => 'https://vault.azure.net/.default' })->{content})->{access_token};
	my $answer = $http->request('PUT', "$address/vault/secrets/$name?api-version=7.4",
		{ headers => { Authorization => "Bearer $token", 'Content-Type' => 'application/json' }, content => encode_json({ value => $value }) });
	die "$answer->{status} $answer->{content}" unless $answer->{success};
	return (decode_json($answer->{content})->{id} =~ m{/([^/]+)$})[0];
}

sub good
{
	my ($connection, $kind, $spec, $what) = @_;
	my ($run, $status) = run_task($node, $connection, $kind, $spec);
	is($status, 'succeeded', $what) or diag(task_error($node, $run));
	return;
}

sub bad
{
	my ($connection, $kind, $spec, $expected, $what) = @_;
	my ($run, $status) = run_task($node, $connection, $kind, $spec);
	is($status, 'failed', $what);
	like(task_error($node, $run), $expected, "$what: is told");
	return;
}

create_secret($node, 'vault_secret', 'weir-secret');
create_connection($node, 'vault', 'keyvault', "$address/vault",
	{ type => 'entra_client_secret', client_id => 'weir-client', client_secret => 'vault_secret', @entra });
my $first = put('dbx-token', 'dapi-vault-first');
$cloud->config(pats => [ 'dapi-vault-first', 'dapi-other' ]);

# --- a token out of the vault, by thousands
create_connection($node, 'dbx', 'databricks', "$address/dbx", { type => 'pat', token => 'keyvault:vault/dbx-token' });
$cloud->reset;
my ($run, $status) = run_task($node, 'dbx', 'databricks_job', $job, count => 100);
is($status, 'succeeded', 'a hundred tasks with a token out of the vault') or diag(task_error($node, $run));
is($cloud->requests('keyvault.get'), 1, 'which is asked for once');
is($cloud->requests('entra.token'), 1, 'with one token');
value("SELECT weir.create_secret('dbx_secret', reference => 'keyvault:vault/dbx-token/$first')");
create_connection($node, 'dbx_first', 'databricks', "$address/dbx", { type => 'pat', token => 'dbx_secret' });
good('dbx_first', 'databricks_job', $job, 'a secret of weir that is a reference, with a version');

# --- rotated: the old one is refused, and the new one is found
put('dbx-token', 'dapi-vault-second');
$cloud->config(pats => ['dapi-vault-second']);
$cloud->reset;
good('dbx', 'databricks_job', $job, 'a rotated token is found when the old one is refused');
is($cloud->requests('keyvault.get'), 1, 'by asking once more');
bad('dbx_first', 'databricks_job', $job, qr/^user: HTTP 403: .*Invalid access token/, 'a version stays what it was');

# ... and asked for in the version of the API that the connection names
is($cloud->ledger(operation => 'keyvault.get')->[-1]{api_version}, '7.4', 'the version of the API');
value("SELECT weir.alter_connection('vault', options => '{\"api_version\": \"7.5\"}')");
put('dbx-token', 'dapi-vault-other');
$cloud->config(pats => ['dapi-vault-other']);
$cloud->reset;
good('dbx', 'databricks_job', $job, 'a vault whose connection names another version of the API');
is($cloud->ledger(operation => 'keyvault.get')->[-1]{api_version}, '7.5', 'is asked in that one');

# ... by many at once: one look
put('dbx-token', 'dapi-vault-third');
$cloud->config(pats => ['dapi-vault-third']);
$cloud->reset;
($run, $status) = run_task($node, 'dbx', 'databricks_job', $job, count => 50);
is($status, 'succeeded', 'fifty tasks with a token that has been rotated') or diag(task_error($node, $run));
is($cloud->requests('keyvault.get'), 1, 'ask the vault once');

# --- a client secret out of the vault
put('app-secret', 'app-secret-1');
$cloud->config(clients => { 'app' => 'app-secret-1' });
create_connection($node, 'adf', 'adf', "$address/adf",
	{ type => 'entra_client_secret', client_id => 'app', client_secret => 'keyvault:vault/app-secret', @entra }, $factory);
good('adf', 'adf_pipeline', $wait, 'a client secret out of the vault');
put('app-secret', 'app-secret-2');
$cloud->config(clients => { 'app' => 'app-secret-2' }, revoke_tokens => JSON::PP::true);
$cloud->reset;
good('adf', 'adf_pipeline', $wait, 'a rotated client secret is found when Entra ID refuses the old one');
is($cloud->requests('keyvault.get', status => 200), 1, 'by asking the vault again');
$cloud->config(clients => { 'app' => 'app-secret-3' }, revoke_tokens => JSON::PP::true);
bad('adf', 'adf_pipeline', $wait, qr/^user: .*the client secret is not right/, 'one that is wrong in the vault too');
put('app-secret', 'app-secret-3');
value("SELECT weir.alter_connection('adf', description => 'rotated')");
good('adf', 'adf_pipeline', $wait, 'until it is put there');

# --- looked up again after a time, without being refused
value("ALTER SYSTEM SET weir.keyvault_refresh = '1s'; SELECT pg_reload_conf()");
wait_until($node, 'a short time', "SELECT setting = '1' FROM pg_settings WHERE name = 'weir.keyvault_refresh'");
put('echo-token', 'dapi-vault-echo');
create_connection($node, 'echo', 'http', "$address/http", { type => 'bearer', token => 'keyvault:vault/echo-token' });
good('echo', 'http', { path => '/json/x' }, 'a token for a service that never refuses');
$cloud->reset;
my $runs = 0;
run_task($node, 'echo', 'http', { path => '/json/x' }) while $cloud->requests('keyvault.get') < 2 && $runs++ < 200;
cmp_ok($cloud->requests('keyvault.get'), '>=', 2, 'is looked up again and again');

# The vault is down, or a page is in its way: the last value goes on being used.
foreach my $fault ({ fault => 'status', status => 503 }, { fault => 'html', status => 200 })
{
	$cloud->reset;
	$cloud->add_fault(operation => 'keyvault.*', %$fault, times => undef);
	$runs = 0;
	my %ended;
	$ended{ (run_task($node, 'echo', 'http', { path => '/json/x' }))[1] }++ while $cloud->requests('keyvault.get') < 2 && $runs++ < 200;
	is(join(' ', keys %ended), 'succeeded', "while the vault answers with $fault->{fault} $fault->{status} the last value is used");
	cmp_ok($cloud->requests('keyvault.get', fault => $fault->{fault}), '>=', 1, 'it was asked');
	$cloud->clear_faults;
}

# The vault says no: the last value is gone.
$cloud->add_fault(operation => 'keyvault.*', fault => 'status', status => 403, times => undef,
	body => '{"error": {"code": "Forbidden", "message": "Operation get is not allowed on a disabled secret.", "innererror": {"code": "SecretDisabled"}}}');
$runs = 0;
($run, $status) = run_task($node, 'echo', 'http', { path => '/json/x' }) until ($status // '') eq 'failed' || $runs++ > 200;
is($status, 'failed', 'a secret that has been disabled is not used any more');
like(task_error($node, $run), qr/^user: sign-in for connection "echo" failed: secret "echo-token" of key vault "vault": the key vault forbids it: .*SecretDisabled/, 'and that is told');
$cloud->clear_faults;
value("ALTER SYSTEM RESET weir.keyvault_refresh; SELECT pg_reload_conf()");

# --- what a vault can refuse
create_connection($node, 'absent', 'http', "$address/http", { type => 'bearer', token => 'keyvault:vault/absent' });
bad('absent', 'http', { path => '/json/x' }, qr/^user: .*secret "absent" of key vault "vault": the key vault has no such secret or version: correct the reference.*SecretNotFound/, 'a secret that is not there');
create_connection($node, 'tokenless', 'keyvault', "$address/vault", { type => 'bearer', token => 'vault_secret' });
create_connection($node, 'refused', 'http', "$address/http", { type => 'bearer', token => 'keyvault:tokenless/dbx-token' });
bad('refused', 'http', { path => '/json/x' }, qr/^user: .*the key vault does not accept the token: check the tenant of its connection/, 'a token that the vault does not take');
create_connection($node, 'vault_wrong', 'keyvault', "$address/vault",
	{ type => 'entra_client_secret', client_id => 'nobody', client_secret => 'vault_secret', @entra });
create_connection($node, 'behind_wrong', 'http', "$address/http", { type => 'bearer', token => 'keyvault:vault_wrong/dbx-token' });
bad('behind_wrong', 'http', { path => '/json/x' }, qr/^user: sign-in for connection "behind_wrong" failed: .*sign-in for connection "vault_wrong" failed: the application is not in the tenant/, 'a vault that cannot be signed in to');

# --- a vault whose own secret is in another one
put('vault-two', 'weir-secret');
create_connection($node, 'vault2', 'keyvault', "$address/vault",
	{ type => 'entra_client_secret', client_id => 'weir-client', client_secret => 'keyvault:vault/vault-two', @entra });
create_connection($node, 'behind_two', 'databricks', "$address/dbx", { type => 'pat', token => 'keyvault:vault2/dbx-token' });
good('behind_two', 'databricks_job', $job, 'a secret behind two vaults');

# --- revoked: the vault's own token is fetched anew
$cloud->config(revoke_tokens => JSON::PP::true);
value("SELECT weir.alter_connection('dbx', description => 'fresh')");
put('dbx-token', 'dapi-vault-fourth');
$cloud->config(pats => ['dapi-vault-fourth']);
$cloud->reset;
good('dbx', 'databricks_job', $job, 'a vault that revoked our token');
is($cloud->requests('entra.token'), 1, 'is signed in to once more');

# --- nothing of it is anywhere
my @values = ('dapi-vault', 'app-secret-[0-9]', 'eyJ0eXA');
my $pattern = join('|', @values);
unlike(file_text($node->logfile), qr/$pattern/, 'the log has no value');
foreach my $table ('error', 'task_run', 'attempt', 'secret', 'connection')
{
	is(value("SELECT count(*) FROM weir.$table t WHERE to_jsonb(t)::text ~ '$pattern'"), 0, "nor has weir.$table");
}

$node->stop;
done_testing();
