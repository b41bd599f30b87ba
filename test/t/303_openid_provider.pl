# Tokens from a provider that weir did not write: oidc-provider, from npm,
# configured like Microsoft Entra ID and like Databricks.  It verifies our
# assertions and secrets by its own means, and refuses what was used before or
# is meant for somebody else.
#
# npm: oidc-provider@9.13.3

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use MIME::Base64 ();
use PostgreSQL::Test::Utils;
use Test::More;

use WeirSignIn;
use WeirTest;

my $dir = $ENV{WEIR_PACKAGES} // '';

sub missing
{
	return 'no packages were installed' unless -d $dir;
	return file_text("$dir/npm.missing") if -e "$dir/npm.missing";
	return 'oidc-provider is not installed' unless -e "$dir/node_modules/oidc-provider/package.json";
	return 'node is not installed' if system('node --version >/dev/null 2>&1') != 0;
	return;
}
my $reason = missing();
plan skip_all => $reason if defined $reason;

my $certificate = make_certificate('client');
my $other = make_certificate('stranger');
my $tenant = '00000000-aaaa-bbbb-cccc-000000000000';
my $secret = 'a+b/c=~ &%"quoted"-0123456789';
# Beside the packages, where it finds them
my $server = PostgreSQL::Test::Utils::tempdir();
symlink("$dir/node_modules", "$server/node_modules") or die "$server: $!";
PostgreSQL::Test::Utils::system_or_bail('cp', "$WeirTest::root/test/oidc/server.mjs", "$server/server.mjs");

sub jwk
{
	my ($base) = @_;
	return { kty => 'RSA', n => base64url(pack('H*', certificate_key($base)->{n})), e => 'AQAB' };
}

sub client
{
	my ($id, $method, %more) = @_;
	return { client_id => $id, token_endpoint_auth_method => $method, grant_types => ['client_credentials'],
		response_types => [], redirect_uris => [], %more };
}

my @clients = (
	client('by-post', 'client_secret_post', client_secret => $secret),
	client('by-basic', 'client_secret_basic', client_secret => $secret),
	client('by-ps256', 'private_key_jwt', token_endpoint_auth_signing_alg => 'PS256', jwks => { keys => [ jwk($certificate) ] }),
	client('by-rs256', 'private_key_jwt', token_endpoint_auth_signing_alg => 'RS256', jwks => { keys => [ jwk($certificate) ] }));

my @providers;
END
{
	foreach my $provider (@providers) { $provider->kill_kill if $provider }
}

# Returns the address and what it writes.
sub provider
{
	my ($name, $path) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . "/$name";

	write_file("$file.json", encode_json({ clients => \@clients, routes => { token => $path },
				scopes => [ 'all-apis', 'api://weir/.default' ] }));
	push @providers, IPC::Run::start([ 'node', "$server/server.mjs", "$file.json", "$file.address" ], '<', \undef, '>', "$file.out", '2>', "$file.err");
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	until (-s "$file.address")
	{
		die 'the provider did not start: ' . file_text("$file.err") if time > $limit || !$providers[-1]->pumpable && !kill 0, $providers[-1]{KIDS}[0]{PID};
		select(undef, undef, undef, 0.05);
	}
	return (file_text("$file.address"), "$file.out", "$file.address.form");
}

my ($entra, $decisions, $form) = provider('entra', "/$tenant/oauth2/v2.0/token");
my ($workspace, $workspace_decisions) = provider('workspace', '/oidc/v1/token');
my ($elsewhere, $elsewhere_decisions) = provider('elsewhere', "/$tenant/oauth2/v2.0/token");
my $node = weir_node('openid');
my $cloud = weir_cloud($node);
my $address = $cloud->address;

sub decided { return [ map { decode_json($_) } split /\n/, file_text($_[0]) ]; }

create_secret($node, 'secret', $secret);
create_secret($node, 'wrong', 'something-else');
create_secret($node, 'pair', file_text("$certificate.key") . file_text("$certificate.crt"));
create_secret($node, 'stranger', file_text("$other.key") . file_text("$other.crt"));

my @entra = (tenant_id => $tenant, authority => $entra, scope => 'api://weir/.default');

# A request to a service that says back what it was asked
sub good
{
	my ($name, $kind, $url, $auth, $decisions, $what) = @_;
	my $before = @{ decided($decisions) };

	create_connection($node, $name, 'http', $url, $auth);
	my ($run, $status) = run_task($node, $name, 'http', { path => '/json/x' });
	is($status, 'succeeded', $what) or diag(task_error($node, $run), file_text($decisions));
	like($node->safe_psql('postgres', "SELECT output::text FROM weir.task_run WHERE run_id = $run"),
		qr/"authorization": "Bearer \*{20,}"/, "$what: the token is sent");
	my @new = @{ decided($decisions) };
	is_deeply([ @new[ $before .. $#new ] ], [ { granted => $auth->{client_id} } ], "$what: granted, once");
	return;
}

good('post', 'http', "$address/http", { type => 'entra_client_secret', client_id => 'by-post', client_secret => 'secret', @entra }, $decisions, 'secret in the form');
# The provider does not look at which certificate the header of an assertion names; so what arrived is compared with
# the certificate here, whose SHA-256 the openssl program computes from its DER form (RFC 7515, sections 4.1.6 and 4.1.8).
sub names_certificate
{
	my ($algorithm, $has_chain, $what) = @_;
	my ($header) = file_text($form) =~ /(?:^|&)client_assertion=([A-Za-z0-9_-]+)\./;
	$header = decode_json(MIME::Base64::decode_base64url($header // ''));
	my ($der, $digest);
	IPC::Run::run([ 'openssl', 'x509', '-in', "$certificate.crt", '-outform', 'DER' ], '>', \$der) or die 'openssl x509';
	IPC::Run::run([ 'openssl', 'dgst', '-sha256', '-binary' ], '<', \$der, '>', \$digest) or die 'openssl dgst';
	is($header->{alg}, $algorithm, "$what: the algorithm is named");
	is($header->{'x5t#S256'}, base64url($digest), "$what: and the certificate, by its SHA-256");
	is_deeply($header->{x5c}, $has_chain ? [ MIME::Base64::encode_base64($der, '') ] : undef, "$what: " . ($has_chain ? 'which is sent along' : 'which is not sent along'));
	return;
}

good('ps256', 'http', "$address/http", { type => 'entra_certificate', client_id => 'by-ps256', certificate => 'pair', @entra }, $decisions, 'assertion, PS256');
my $used = file_text($form);
names_certificate('PS256', 0, 'assertion, PS256');
good('rs256', 'http', "$address/http", { type => 'entra_certificate', client_id => 'by-rs256', certificate => 'pair', algorithm => 'RS256', send_chain => JSON::PP::true, @entra },
	$decisions, 'assertion, RS256');
names_certificate('RS256', 1, 'assertion, RS256');
good('oauth_basic', 'http', "$address/http", { type => 'oauth_client_secret', token_url => "$workspace/oidc/v1/token", client_id => 'by-basic', client_secret => 'secret', scope => 'all-apis' },
	$workspace_decisions, 'secret as Basic');
good('oauth_post', 'http', "$address/http", { type => 'oauth_client_secret', token_url => "$workspace/oidc/v1/token", client_id => 'by-post', client_secret => 'secret', client_auth => 'post' },
	$workspace_decisions, 'secret in the form, without a scope');

# Databricks' way: the token is issued by the workspace itself; its API is the
# provider, which has none, so what counts is that it was asked after a token.
create_connection($node, 'dbx', 'databricks', $workspace, { type => 'databricks_oauth', client_id => 'by-basic', client_secret => 'secret' });
my $before = @{ decided($workspace_decisions) };
my ($run, $status) = run_task($node, 'dbx', 'databricks_job', { job_id => 1 });
my @new = @{ decided($workspace_decisions) };
is_deeply($new[$before], { granted => 'by-basic' }, 'Databricks OAuth for machines');
like(task_error($node, $run), qr/HTTP 404/, 'and its token is sent on');

# --- what the provider refuses of us
sub bad
{
	my ($name, $auth, $expected, $detail, $what) = @_;
	create_connection($node, $name, 'http', "$address/http", $auth);
	($run, $status) = run_task($node, $name, 'http', { path => '/json/x' });
	is($status, 'failed', $what);
	like(task_error($node, $run), $expected, "$what: is told");
	my $last = decided($decisions)->[-1];
	is($last->{refused}, 'invalid_client', "$what: refused by the provider");
	like($last->{detail}, $detail, "$what: for this reason");
	return;
}
bad('bad_secret', { type => 'entra_client_secret', client_id => 'by-post', client_secret => 'wrong', @entra }, qr/^user: /, qr/secret/, 'a wrong secret');
bad('bad_key', { type => 'entra_certificate', client_id => 'by-ps256', certificate => 'stranger', @entra }, qr/^user: /, qr/signature|key/, 'another key');
bad('bad_alg', { type => 'entra_certificate', client_id => 'by-ps256', certificate => 'pair', algorithm => 'RS256', @entra }, qr/^user: /, qr/alg/, 'another algorithm');
create_connection($node, 'bad_basic', 'http', "$address/http", { type => 'oauth_client_secret', token_url => "$workspace/oidc/v1/token", client_id => 'by-basic', client_secret => 'wrong' });
($run, $status) = run_task($node, 'bad_basic', 'http', { path => '/json/x' });
like(task_error($node, $run), qr/^user: .*client_id or the client secret is not right/, 'a wrong secret as Basic is told');

# An assertion is good once, and only here: the provider sees a fresh jti and its own address in each.
my $http = HTTP::Tiny->new(default_headers => { 'Content-Type' => 'application/x-www-form-urlencoded' });
my $answer = $http->post("$entra/$tenant/oauth2/v2.0/token", { content => $used });
is($answer->{status}, 401, 'an assertion sent once more');
like(decided($decisions)->[-1]{detail}, qr/unique|jti|used/i, 'is refused because it was used');
$answer = $http->post("$elsewhere/$tenant/oauth2/v2.0/token", { content => $used });
is($answer->{status}, 401, 'an assertion sent to another provider');
like(decided($elsewhere_decisions)->[-1]{detail}, qr/aud/, 'is refused because it is not its audience');

unlike(file_text($node->logfile), qr/eyJ|0123456789|PRIVATE KEY/, 'the log has no secret, assertion or token');

$node->stop;
done_testing();
