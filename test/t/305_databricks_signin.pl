# Signing in to Databricks with the token of somebody else (token exchange,
# RFC 8693), and as a service principal of Entra ID that is not yet in the
# workspace.  The local cloud demands all of it: signatures, policies, and the
# second token and the resource ID of whoever it does not know.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirSignIn;
use WeirTest;

my $node = weir_node('dbxsignin');
my $cloud = weir_cloud($node);
my $address = $cloud->address;
my $secrets = $node->basedir . '/secrets';
my $job = { job_id => 102, job_parameters => { seconds => '0' } };
my $key = make_certificate('issuer');
my $now = time;
my %claims = (iss => 'https://issuer.example', aud => 'databricks', sub => 'loader', exp => $now + 3000, nbf => $now - 10, iat => $now - 10);

sub value { return $node->safe_psql('postgres', $_[0]); }

sub good
{
	my ($connection, $what) = @_;
	my ($run, $status) = run_task($node, $connection, 'databricks_job', $job);
	is($status, 'succeeded', $what) or diag(task_error($node, $run));
	return $run;
}

sub bad
{
	my ($connection, $expected, $what) = @_;
	my ($run, $status) = run_task($node, $connection, 'databricks_job', $job);
	is($status, 'failed', $what);
	like(task_error($node, $run), $expected, "$what: is told");
	return;
}

sub refused
{
	my ($kind, $auth, $expected, $what) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "SELECT weir.create_connection('refused', '$kind', '$address/dbx', " . literal(encode_json($auth)) . ')');
	isnt($status, 0, "$what: refused");
	like($err, $expected, "$what: says why");
	return;
}

# --- a token exchanged ----------------------------------------------------------------

my $public = certificate_key($key);
$cloud->config(pats => [], policies => [
	{ %$public, issuer => 'https://issuer.example', audience => 'databricks', subject => 'loader', client => undef },
	{ %$public, issuer => 'https://issuer.example', audience => 'databricks', subject => 'robot', client => 'service-principal-1' } ]);
write_file("$secrets/jwt", make_jwt($key, %claims));
write_file("$secrets/robot", make_jwt($key, %claims, sub => 'robot'));
value("SELECT weir.create_secret('jwt', reference => 'file:$secrets/jwt')");
value("SELECT weir.create_secret('robot', reference => 'file:$secrets/robot')");
create_connection($node, 'by_account', 'databricks', "$address/dbx", { type => 'databricks_federated', token => 'jwt' });
create_connection($node, 'by_principal', 'databricks', "$address/dbx", { type => 'databricks_federated', token => 'robot', client_id => 'service-principal-1' });
my ($run, $status) = run_task($node, 'by_account', 'databricks_job', $job, count => 100);
is($status, 'succeeded', 'a hundred tasks by a policy of the account') or diag(task_error($node, $run));
is($cloud->requests('databricks.token'), 1, 'with one exchange');
is($cloud->requests('entra.token'), 0, 'and no other sign-in');
good('by_principal', 'by a policy of a service principal');
is($cloud->ledger(operation => 'databricks.token')->[-1]{client_id}, 'service-principal-1', 'which is named');
is(value("SELECT is_ok || ' ' || sign_in FROM weir.test_connection('by_principal')"), 'true ok', 'test_connection() signs in this way');

# The token that was got is refused: the file is read anew.
$cloud->reset;
$cloud->config(revoke_tokens => JSON::PP::true);
write_file("$secrets/jwt", make_jwt($key, %claims, exp => $now + 2900));
good('by_account', 'a token of the workspace that was revoked');
is($cloud->requests('databricks.token'), 1, 'is got anew, once');

my %wrong = (
	'another issuer' => make_jwt($key, %claims, iss => 'https://other.example'),
	'another subject' => make_jwt($key, %claims, sub => 'robot'),
	'another audience' => make_jwt($key, %claims, aud => 'other'),
	'another key' => make_jwt(make_certificate('stranger'), %claims));
foreach my $what (sort keys %wrong)
{
	write_file("$secrets/jwt", $wrong{$what});
	value("SELECT weir.alter_connection('by_account', description => '$what')");
	bad('by_account', qr/^user: .*no federation policy accepts the token: compare issuer, audience and subject .*\(No federation policy matches/, $what);
}
$cloud->reset;
write_file("$secrets/jwt", 'no JWT');
value("SELECT weir.alter_connection('by_account', description => 'none')");
bad('by_account', qr/^user: .*secret "jwt" is no token .*: it is not a JWT/, 'what is no token');
write_file("$secrets/jwt", make_jwt($key, %claims, exp => $now - 60));
value("SELECT weir.alter_connection('by_account', description => 'expired')");
my $waiting = run_task($node, 'by_account', 'databricks_job', $job, start => 1);
wait_until($node, 'the attempt has begun', "SELECT count(*) = 1 FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) WHERE t.run_id = $waiting");
is($cloud->requests('databricks.token'), 0, 'what is no token, or has expired, is not sent');
write_file("$secrets/jwt", make_jwt($key, %claims));
is(wait_for_run($node, $waiting), 'succeeded', 'an expired token is waited for to be renewed') or diag(task_error($node, $waiting));
refused('databricks', { type => 'databricks_federated' }, qr/"token" is missing/, 'no token');

# --- not yet in the workspace -------------------------------------------------------------

my $workspace = '/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Databricks/workspaces/w1';
my @entra = (type => 'entra_client_secret', tenant_id => 'local', authority => $address, client_id => 'outsider', client_secret => 'app');
create_secret($node, 'app', 'secret-of-outsider');
$cloud->config(clients => { outsider => 'secret-of-outsider' }, outsiders => ['outsider']);
create_connection($node, 'unknown', 'databricks', "$address/dbx", {@entra});
create_connection($node, 'known', 'databricks', "$address/dbx", { @entra, workspace_resource_id => $workspace });
create_connection($node, 'elsewhere', 'databricks', "$address/dbx", { @entra, workspace_resource_id => "$workspace-2" });
create_connection($node, 'mistaken', 'databricks', "$address/dbx", { @entra, workspace_resource_id => $workspace, management_scope => 'https://vault.azure.net/.default' });
bad('unknown', qr/User not authorized/, 'a service principal that is not in the workspace');
$cloud->reset;
($run, $status) = run_task($node, 'known', 'databricks_job', $job, count => 50);
is($status, 'succeeded', 'the same with the resource ID of the workspace, fifty tasks') or diag(task_error($node, $run));
is(join(' ', sort map { $_->{scope} } @{ $cloud->ledger(operation => 'entra.token') }),
	'2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default https://management.core.windows.net//.default', 'with two tokens, each fetched once');
is(value("SELECT is_ok || ' ' || permission FROM weir.test_connection('known')"), 'true ok', 'test_connection() brings both');
like(value("SELECT is_ok || ' ' || detail FROM weir.test_connection('unknown')"), qr/^false .*User not authorized/, 'and says when they are missing');
bad('elsewhere', qr/does not belong to this workspace/, 'the resource ID of another workspace');
bad('mistaken', qr/Invalid management token: audience/, 'a token for something else');

# Both tokens are dropped when a call is refused, and fetched again.
$cloud->reset;
$cloud->config(revoke_tokens => JSON::PP::true);
$cloud->add_fault(operation => 'databricks.run-now', status => 401, body => '{"error_code":"UNAUTHENTICATED","message":"expired"}');
good('known', 'after a 401');
is($cloud->requests('entra.token'), 2, 'both tokens are fetched anew');

refused('databricks', { @entra, workspace_resource_id => '/subscriptions/s1/w1' }, qr/"workspace_resource_id" is not valid.*JSON path: \$\.workspace_resource_id/s, 'what is no resource ID');
refused('databricks', { @entra, management_scope => 'x/.default' }, qr/goes with "workspace_resource_id"/, 'a scope alone');
refused('databricks', { @entra, workspace_resource_id => "$workspace\r\nX-Evil: 1" }, qr/control character/, 'a line end');
refused('http', { @entra, scope => 'https://vault.azure.net/.default', workspace_resource_id => $workspace }, qr/for connections of kind databricks/, 'another kind');

# --- nothing of it is anywhere --------------------------------------------------------------

$cloud->add_fault(operation => 'databricks.run-now', fault => 'status', status => 400, body => '{"error_code":"INVALID_PARAMETER_VALUE","message":"no"}');
run_task($node, 'known', 'databricks_job', $job);
my $everything = PostgreSQL::Test::Utils::slurp_file($node->logfile)
  . value("SELECT string_agg(x::text, ' ') FROM (SELECT to_jsonb(a) FROM weir.attempt a UNION ALL SELECT to_jsonb(e) FROM weir.error e "
	. "UNION ALL SELECT to_jsonb(t) FROM weir.task_run t UNION ALL SELECT to_jsonb(c) FROM weir.connection c) AS y (x)");
unlike($everything, qr/eyJ[A-Za-z0-9_-]{10}|secret-of-outsider/, 'no token and no secret is in a table or a log');

$node->stop;
done_testing();
