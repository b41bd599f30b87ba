# Signing in at Microsoft Entra ID and Databricks: client secrets,
# certificates, federated tokens and Databricks' own OAuth; how often a token
# is fetched, when it is fetched anew, and what is said when it is refused.
# What is asked is counted by the local cloud, which verifies signatures.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

use WeirSignIn;
use WeirTest;

my $node = weir_node('signin');
my $cloud = weir_cloud($node);
my $address = $cloud->address;
my $secrets = $node->basedir . '/secrets';

sub value { return $node->safe_psql('postgres', $_[0]); }

my $certificate = make_certificate('app', password => 'opensesame');
my $other = make_certificate('other');
my $expired = make_certificate('expired', expired => 1);
my $issuer = make_certificate('issuer');
my $factory = { subscription_id => 's1', resource_group => 'rg', factory => 'adf-dev', settle_seconds => 0 };
my $job = { job_id => 102, job_parameters => { seconds => '0' } };
my $wait = { pipeline => 'wait', parameters => { seconds => 0 } };
my @entra = (tenant_id => 'local', authority => $address);

$cloud->config(
	clients => { 'secret-app' => 'right', 'expired-app' => 'right', 'dbx-client' => 'dose-secret' },
	expired_clients => ['expired-app'],
	tenants => ['local'],
	certificates => { 'cert-app' => [ certificate_key($certificate), certificate_key($expired) ] },
	federated => { 'pod-app' => { issuer => 'https://cluster', subject => 'system:serviceaccount:weir', audience => 'api://AzureADTokenExchange',
			%{ certificate_key($issuer) } } });

create_secret($node, 'right', 'right');
create_secret($node, 'wrong', 'something-else');
create_secret($node, 'pair', file_text("$certificate.key") . file_text("$certificate.crt"));
create_secret($node, 'crt', file_text("$certificate.crt"));
create_secret($node, 'locked', file_text("$certificate.locked"));
create_secret($node, 'pfx', encode_base64(file_text("$certificate.pfx")));
create_secret($node, 'password', 'opensesame');
create_secret($node, 'other_key', file_text("$other.key"));
create_secret($node, 'other_pair', file_text("$other.key") . file_text("$other.crt"));
create_secret($node, 'expired_pair', file_text("$expired.key") . file_text("$expired.crt"));
create_secret($node, 'garbage', "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
create_secret($node, 'dose', 'dose-secret');
write_file("$secrets/app.pfx", file_text("$certificate.pfx"));
value("SELECT weir.create_secret('pfx_file', reference => 'file:$secrets/app.pfx')");
write_file("$secrets/token", 'not yet');
value("SELECT weir.create_secret('token', reference => 'file:$secrets/token')");

sub adf { my ($name, %auth) = @_; create_connection($node, $name, 'adf', "$address/adf", { @entra, %auth }, $factory); return; }
sub dbx { my ($name, %auth) = @_; create_connection($node, $name, 'databricks', "$address/dbx", \%auth); return; }

# One run of one task; as many tokens as said were asked for and issued.
sub good
{
	my ($connection, $kind, $spec, $what, $operation) = @_;
	$cloud->reset;
	my ($run, $status) = run_task($node, $connection, $kind, $spec);
	is($status, 'succeeded', $what) or diag(task_error($node, $run));
	is_deeply($cloud->counts->{ $operation // 'entra.token' }, { requests => 1, started => 1 }, "$what: one token") if $operation // 1;
	return;
}

sub bad
{
	my ($connection, $expected, $what) = @_;
	my ($run, $status) = run_task($node, $connection, 'adf_pipeline', $wait);
	is($status, 'failed', $what);
	like(task_error($node, $run), $expected, "$what: is told");
	return;
}

# --- every way in
adf('by_secret', type => 'entra_client_secret', client_id => 'secret-app', client_secret => 'right');
good('by_secret', 'adf_pipeline', $wait, 'client secret');
adf('by_pem', type => 'entra_certificate', client_id => 'cert-app', certificate => 'pair');
good('by_pem', 'adf_pipeline', $wait, 'certificate, PS256');
adf('by_rs256', type => 'entra_certificate', client_id => 'cert-app', certificate => 'pair', algorithm => 'RS256', send_chain => JSON::PP::true);
good('by_rs256', 'adf_pipeline', $wait, 'certificate, RS256');
adf('by_locked', type => 'entra_certificate', client_id => 'cert-app', certificate => 'crt', private_key => 'locked', password => 'password');
good('by_locked', 'adf_pipeline', $wait, 'certificate with an encrypted key of its own');
adf('by_pfx', type => 'entra_certificate', client_id => 'cert-app', certificate => 'pfx', password => 'password');
good('by_pfx', 'adf_pipeline', $wait, 'PKCS#12');
adf('by_pfx_file', type => 'entra_certificate', client_id => 'cert-app', certificate => 'pfx_file', password => 'password');
good('by_pfx_file', 'adf_pipeline', $wait, 'PKCS#12 in a file');
dbx('by_entra', type => 'entra_client_secret', client_id => 'secret-app', client_secret => 'right', @entra);
good('by_entra', 'databricks_job', $job, 'Azure Databricks by Entra ID');
is($cloud->ledger(operation => 'entra.token')->[0]{scope}, '2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default', 'with a scope of its own');
dbx('by_oauth', type => 'databricks_oauth', client_id => 'dbx-client', client_secret => 'dose');
good('by_oauth', 'databricks_job', $job, 'Databricks OAuth for machines', 'databricks.token');

# --- with a certificate to every service, each of which takes tokens for itself alone
my %services = azure_services($address);
foreach my $name (sort keys %services)
{
	my $service = $services{$name};
	create_connection($node, "cert_$name", $service->{kind}, $service->{url}, { @entra, type => 'entra_certificate', client_id => 'cert-app', certificate => 'pair' }, $service->{options});
	good("cert_$name", $service->{task}, $service->{spec}, "certificate, $name");
	is($cloud->ledger(operation => 'entra.token')->[0]{scope}, "$service->{resource}/.default", "... with a token for $name");
}

# --- a token that somebody else writes and renews
my $now = time;
my %claims = (iss => 'https://cluster', sub => 'system:serviceaccount:weir', aud => 'api://AzureADTokenExchange', nbf => $now - 60);
adf('by_pod', type => 'entra_federated', client_id => 'pod-app', token => 'token');
bad('by_pod', qr/^user: sign-in for connection "by_pod" failed: secret "token" is no token of workload identity federation/, 'federation: no token');
write_file("$secrets/token", make_jwt($issuer, %claims, exp => $now - 10));
$cloud->reset;
my $waiting = run_task($node, 'by_pod', 'adf_pipeline', $wait, start => 1);
wait_until($node, 'the attempt has begun', "SELECT count(*) = 1 FROM weir.attempt WHERE task_run_id IN (SELECT task_run_id FROM weir.task_run WHERE run_id = $waiting)");
write_file("$secrets/token", make_jwt($issuer, %claims, exp => $now + 3600));
is(wait_for_run($node, $waiting), 'succeeded', 'federation: the file is read anew') or diag(task_error($node, $waiting));
is_deeply($cloud->counts->{'entra.token'}, { requests => 1, started => 1 }, 'federation: what has expired was not sent');
foreach my $name (sort keys %services)
{
	my $service = $services{$name};
	create_connection($node, "pod_$name", $service->{kind}, $service->{url}, { @entra, type => 'entra_federated', client_id => 'pod-app', token => 'token' }, $service->{options});
	good("pod_$name", $service->{task}, $service->{spec}, "federation, $name");
	is($cloud->ledger(operation => 'entra.token')->[0]{scope}, "$service->{resource}/.default", "... with a token for $name");
}
foreach my $case ([ 'iss', 700211, 'issuer' ], [ 'sub', 700213, 'subject' ], [ 'aud', 700212, 'audience' ])
{
	my ($claim, $code, $name) = @$case;
	write_file("$secrets/token", make_jwt($issuer, %claims, exp => $now + 3600, $claim => 'https://elsewhere'));
	value("SELECT weir.alter_connection('by_pod', description => '$claim')");
	bad('by_pod', qr/^user: .*no federated credential of the application has the $name of the token: correct.*AADSTS$code/, "federation: wrong $name");
}

# --- refused, and why
adf('no_tenant', type => 'entra_client_secret', client_id => 'secret-app', client_secret => 'right', tenant_id => 'elsewhere');
bad('no_tenant', qr/^user: sign-in for connection "no_tenant" failed: the tenant is not known: correct tenant_id.*AADSTS90002/, 'wrong tenant');
adf('no_app', type => 'entra_client_secret', client_id => 'nobody', client_secret => 'right');
bad('no_app', qr/^user: .*the application is not in the tenant: correct client_id.*AADSTS700016/, 'unknown application');
adf('bad_secret', type => 'entra_client_secret', client_id => 'secret-app', client_secret => 'wrong');
bad('bad_secret', qr/^user: .*the client secret is not right: give the secret's value, not its ID.*AADSTS7000215/, 'wrong secret');
adf('old_secret', type => 'entra_client_secret', client_id => 'expired-app', client_secret => 'right');
bad('old_secret', qr/^user: .*the client secret has expired: create a new one.*AADSTS7000222/, 'expired secret');
adf('bad_scope', type => 'entra_client_secret', client_id => 'secret-app', client_secret => 'right', scope => 'https://nowhere.example/.default');
bad('bad_scope', qr/^user: .*the resource of the scope is not in the tenant.*AADSTS500011/, 'wrong scope');
adf('bad_cert', type => 'entra_certificate', client_id => 'cert-app', certificate => 'other_pair');
bad('bad_cert', qr/^user: .*certificate or the signature of the assertion is not accepted: register this very certificate.*AADSTS700027/, 'another certificate');
$cloud->reset;
adf('garbage', type => 'entra_certificate', client_id => 'cert-app', certificate => 'garbage', private_key => 'other_key');
bad('garbage', qr/^user: .*secret "garbage" is no certificate to sign in with: the certificate is malformed/, 'malformed certificate');
adf('mismatch', type => 'entra_certificate', client_id => 'cert-app', certificate => 'crt', private_key => 'other_key');
bad('mismatch', qr/^user: .*the private key does not match the certificate/, 'key of another certificate');
adf('locked_out', type => 'entra_certificate', client_id => 'cert-app', certificate => 'pfx', password => 'wrong');
bad('locked_out', qr/^user: .*cannot be opened: the password is wrong/, 'wrong password');
adf('no_key', type => 'entra_certificate', client_id => 'cert-app', certificate => 'crt');
bad('no_key', qr/^user: .*there is no private key with the certificate/, 'certificate without key');
adf('expired', type => 'entra_certificate', client_id => 'cert-app', certificate => 'expired_pair');
bad('expired', qr/^user: .*the certificate expired at \d{4}-\d\d-\d\d .* UTC: register a new one/, 'expired certificate');
is($cloud->requests('entra.token'), 0, 'what cannot be right is not sent');
foreach my $case ([ 3600, 'behind' ], [ -3600, 'ahead of' ])
{
	my ($offset, $where) = @$case;
	$cloud->config(clock_offset => $offset);
	value("SELECT weir.alter_connection('by_pem', description => 'clock $where')");
	bad('by_pem', qr/^user: .*the clock of the database server is 3(600|599|601) s $where that of the sign-in service: set it right.*AADSTS700024/, "clock an hour $where");
}
$cloud->config(clock_offset => 0);
my ($run, $status);

# A service that is down is not the user's fault, and passes
$cloud->reset;
$cloud->add_fault(operation => 'entra.token', fault => 'status', status => 503, times => 2);
value("SELECT weir.alter_connection('by_pem', description => 'again')");
($run, $status) = run_task($node, 'by_pem', 'adf_pipeline', $wait);
is($status, 'succeeded', 'a sign-in service that is down for a moment') or diag(task_error($node, $run));
is($cloud->requests('entra.token'), 3, 'is asked again');
$cloud->clear_faults;

# --- a thousand tasks, one token
$cloud->reset;
create_connection($node, 'many', 'http', "$address/http", { type => 'entra_client_secret', client_id => 'secret-app', client_secret => 'right',
		@entra, scope => 'https://vault.azure.net/.default' });
$cloud->add_fault(operation => 'entra.token', fault => 'hold');
$run = run_task($node, 'many', 'http', { path => '/json/many' }, count => 1000, start => 1);
$cloud->wait(operation => 'entra.token');
wait_until($node, 'all of them wait for the token', "SELECT count(*) = 1000 FROM weir.task_run WHERE run_id = $run AND status = 'running'");
is($cloud->requests('http.json'), 0, 'a thousand tasks wait for the token');
$cloud->clear_faults;
is(wait_for_run($node, $run), 'succeeded', 'a thousand tasks') or diag(task_error($node, $run));
is($cloud->requests('http.json'), 1000, 'a thousand requests');
is_deeply($cloud->counts->{'entra.token'}, { requests => 1, started => 1 }, 'and one token');

# --- revoked while fifty jobs run: fetched anew once, not fifty times
$cloud->reset;
value("SELECT weir.alter_connection('by_entra', description => 'fresh')");
$run = run_task($node, 'by_entra', 'databricks_job', { job_id => 102, job_parameters => { seconds => '60' } }, count => 50, start => 1);
$cloud->wait(operation => 'databricks.run-now', count => 50, started => 'true');
is($cloud->requests('entra.token'), 1, 'fifty jobs, one token');
# Some refusals arrive when the next token is long there.
$cloud->add_fault(operation => 'databricks.get', fault => 'delay', delay_ms => 1000, times => 20);
$cloud->config(revoke_tokens => JSON::PP::true);
is(wait_for_run($node, $run), 'succeeded', 'fifty jobs outlive their token') or diag(task_error($node, $run));
is($cloud->requests('entra.token'), 2, 'one more token when it is revoked');
cmp_ok(scalar @{ $cloud->ledger(operation => 'databricks.get', status => 403) }, '>', 1, 'although many were refused');
is($cloud->started('databricks.run-now'), 50, 'and nothing was started twice');

# A token that is never good: the task fails after one more
$cloud->reset;
$cloud->add_fault(operation => 'adf.createRun', fault => 'status', status => 401, times => undef);
value("SELECT weir.alter_connection('by_secret', description => 'fresh')");
($run, $status) = run_task($node, 'by_secret', 'adf_pipeline', $wait);
is($status, 'failed', 'a token that is always refused');
like(task_error($node, $run), qr/^user: HTTP 401/, 'is told');
like(value("SELECT detail FROM weir.error WHERE run_id = $run"), qr/refused again after they had been read or fetched anew: .* expired or revoked/, 'and what that means');
is($cloud->requests('entra.token'), 2, 'and fetched twice');
$cloud->clear_faults;

# --- short-lived ones are fetched before they expire: nobody is ever refused.
# And not before four fifths of their life, however many tasks there are: as the
# next one is counted from an answer, a slow machine only makes it later.
$cloud->reset;
$cloud->config(token_lifetime => 2);
value("SELECT weir.alter_connection('by_secret', description => 'short')");
my $runs = 0;
while ($cloud->requests('entra.token') < 4 && $runs++ < 500)
{
	($run, $status) = run_task($node, 'by_secret', 'adf_pipeline', $wait, count => 5);
	last if $status ne 'succeeded';
}
is($status, 'succeeded', 'tokens that live two seconds') or diag(task_error($node, $run));
cmp_ok($cloud->requests('entra.token'), '>=', 4, 'are fetched again and again');
is(scalar @{ $cloud->ledger(status => 401) }, 0, 'before anybody is refused');
my @fetched = map { $_->{time} } @{ $cloud->ledger(operation => 'entra.token') };
my @early = grep { $fetched[$_] - $fetched[$_ - 1] < 1.6 - 0.05 } 1 .. $#fetched;
is(scalar @early, 0, 'and once in the life of each') or diag(join(' ', map { sprintf '%.2f', $_ - $fetched[0] } @fetched));
is($cloud->started('entra.token'), scalar @fetched, '... none in vain');
$cloud->config(token_lifetime => 3600);

# --- a conductor that is killed fetches its own
$cloud->reset;
$run = run_task($node, 'by_pem', 'adf_pipeline', { pipeline => 'wait', parameters => { seconds => 20 } }, start => 1);
$cloud->wait(operation => 'adf.createRun', started => 'true');
kill9_backend($node, 'weir conductor');
is(wait_for_run($node, $run), 'succeeded', 'after kill -9') or diag(task_error($node, $run));
is($cloud->started('adf.createRun'), 1, 'nothing was started twice');

# --- nothing of all that is anywhere
my $log = file_text($node->logfile);
unlike($log, qr/dose-secret|opensesame|eyJ|PRIVATE KEY|client_assertion=/, 'the log has no secret and no token');
is(value("SELECT count(*) FROM weir.error e WHERE to_jsonb(e)::text ~ 'dose-secret|opensesame|eyJ|PRIVATE KEY|client_assertion='"), 0, 'nor have errors');
unlike($log, qr/PANIC|illegal/, 'nothing died of it');

$node->stop;
done_testing();
