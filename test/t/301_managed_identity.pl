# Managed identity: the metadata service of virtual machines, App Service, and
# the Azure Arc agent with its key file.  Addresses are what the environment
# and the settings of the server say, so there is one start for each.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirClock;
use WeirSignIn;
use WeirTest;

my $node = weir_node('identity', start => 0);
my $cloud = weir_cloud($node);
my $address = $cloud->address;
my $factory = { subscription_id => 's1', resource_group => 'rg', factory => 'adf-dev', settle_seconds => 0 };
my $wait = { pipeline => 'wait', parameters => { seconds => 0 } };
my $mine = '11111111-2222-3333-4444-555555555555';
my $agent = PostgreSQL::Test::Utils::tempdir();

$cloud->config(identities => [ $mine, 'object-1', '/subscriptions/s/id' ], arc_directory => $agent);
$node->append_conf('postgresql.conf', "weir.identity_endpoint = '$address/identity'\nweir.identity_key_directory = '$agent/'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION weir');

sub adf { my ($name, %auth) = @_; create_connection($node, $name, 'adf', "$address/adf", { type => 'managed_identity', %auth }, $factory); return; }
sub fresh { $node->safe_psql('postgres', "SELECT weir.alter_connection('$_[0]', description => 'fresh')"); $cloud->reset; return; }

sub good
{
	my ($connection, $operation, $what) = @_;
	$cloud->reset;
	my ($run, $status) = run_task($node, $connection, 'adf_pipeline', $wait);
	is($status, 'succeeded', $what) or diag(task_error($node, $run));
	is($cloud->started($operation), 1, "$what: one token");
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

# --- virtual machines
adf('vm');
good('vm', 'entra.identity', 'the machine\'s own identity');
is($cloud->ledger(operation => 'entra.identity')->[0]{scope}, 'https://management.azure.com', 'a resource, not a scope');
adf('vm_client', client_id => $mine);
good('vm_client', 'entra.identity', 'a user-assigned one, by client ID');
adf('vm_object', object_id => 'object-1');
good('vm_object', 'entra.identity', 'by object ID');
adf('vm_resource', resource_id => '/subscriptions/s/id');
good('vm_resource', 'entra.identity', 'by resource ID');
adf('vm_other', client_id => '99999999-2222-3333-4444-555555555555');
$cloud->reset;
bad('vm_other', qr/^user: .*the machine has no such identity, or the scope is not known.*Identity not found/, 'an identity that is not assigned');
is($cloud->requests('entra.identity'), 1, 'is not asked for again');
my %services = azure_services($address);
my ($run, $status);
foreach my $name (sort keys %services)
{
	my $service = $services{$name};
	create_connection($node, "to_$name", $service->{kind}, $service->{url}, { type => 'managed_identity' }, $service->{options});
	$cloud->reset;
	($run, $status) = run_task($node, "to_$name", $service->{task}, $service->{spec});
	is($status, 'succeeded', "the machine's identity, $name") or diag(task_error($node, $run));
	is($cloud->ledger(operation => 'entra.identity')->[0]{scope}, $service->{resource}, '... which is named without "/.default"');
}

foreach my $code (404, 410, 429, 500)
{
	fresh('vm');
	$cloud->add_fault(operation => 'entra.identity', fault => 'status', status => $code, times => 1, body => '{"error": "try_again"}');
	($run, $status) = run_task($node, 'vm', 'adf_pipeline', $wait);
	is($status, 'succeeded', "status $code passes") or diag(task_error($node, $run));
	is($cloud->requests('entra.identity'), 2, "after one more try");
	$cloud->clear_faults;
}

# --- App Service
$node->stop;
$ENV{IDENTITY_ENDPOINT} = "$address/identity/msi/token";
$ENV{IDENTITY_HEADER} = 'local-identity-header';
$node->start;
fresh('vm');
good('vm', 'entra.app-service', 'App Service, found by itself');
fresh('vm_client');
good('vm_client', 'entra.app-service', 'App Service, a user-assigned identity');
adf('on_vm', source => 'vm');
good('on_vm', 'entra.identity', 'and the metadata service all the same, if auth says so');
$cloud->config(identity_header => 'changed');
fresh('vm');
bad('vm', qr/^user: .*the sign-in service repeated the secret in its answer, HTTP status 401/, 'a wrong header, which the service says back');
unlike(file_text($node->logfile), qr/local-identity-header/, 'which is told nowhere');
is($node->safe_psql('postgres', q{SELECT count(*) FROM weir.error e WHERE to_jsonb(e)::text ~ 'local-identity-header'}), 0, 'nor in an error');

# --- an answer that says only when the token expires, by a clock that is not ours
SKIP:
{
	my ($reason) = WeirClock::missing();
	skip $reason, 12 if defined $reason;
	my $clock = WeirClock->new;
	$cloud->config(identity_header => 'local-identity-header', identity_expires => 'on');
	$node->stop;
	$clock->start($node);
	foreach my $hours (2, -2)
	{
		my $what = 'our clock two hours ' . ($hours > 0 ? 'ahead' : 'behind');
		$clock->set(3600 * $hours);
		fresh('vm');
		good('vm', 'entra.app-service', $what);
		# the token lives for an hour, of which ten minutes have passed, then nearly all
		foreach my $passed ([ 600, 1, 'the same token' ], [ 3400, 2, 'the next one' ])
		{
			my ($seconds, $tokens, $which) = @$passed;
			$clock->set(3600 * $hours + $seconds);
			($run, $status) = run_task($node, 'vm', 'adf_pipeline', $wait);
			is($status, 'succeeded', "$what: a task after $seconds s") or diag(task_error($node, $run));
			$cloud->wait(operation => 'entra.app-service', count => $tokens, timeout_ms => 500 * $PostgreSQL::Test::Utils::timeout_default);
			is($cloud->requests('entra.app-service'), $tokens, "$what: there is $which");
		}
	}
	$cloud->config(identity_expires => 'both');
}

# --- Azure Arc
$node->stop;
delete $ENV{IDENTITY_HEADER};
$ENV{IDENTITY_ENDPOINT} = "$address/identity/metadata/identity/oauth2/token";
$ENV{IMDS_ENDPOINT} = $address;
$node->start;
fresh('vm');
good('vm', 'entra.arc', 'Azure Arc');
is($cloud->requests('entra.arc'), 2, 'a challenge and its answer');
bad('vm_client', qr/^user: .*machines with Azure Arc have a system-assigned identity only/, 'no user-assigned ones there');
fresh('vm');
write_file("$agent/long.key", 'k' x 5000);
write_file("$agent/empty.key", '');
write_file("$agent/lines.key", "a\r\nX-Injected: 1");
write_file("$agent/named.txt", 'key');
mkdir "$agent/below";
write_file("$agent/below/a.key", 'key');
mkdir "$agent/directory.key";
my $elsewhere = PostgreSQL::Test::Utils::tempdir();
write_file("$elsewhere/secret.key", 'stolen-secret-value');
symlink("$elsewhere/secret.key", "$agent/link.key") or die $!;
foreach my $case (
	[ "$elsewhere/secret.key", 'is not in the agent\'s directory' ],
	[ "$agent/../" . ($elsewhere =~ s{.*/}{}r) . '/secret.key', 'is not a key file' ],
	[ "$agent/below/a.key", 'is not a key file' ],
	[ "$agent/named.txt", 'is not a key file' ],
	[ "$agent/.key", 'is not a key file' ],
	[ "$agent/link.key", 'cannot be opened' ],
	[ "$agent/absent.key", 'cannot be opened' ],
	[ "$agent/directory.key", 'is not a regular file' ],
	[ "$agent/long.key", 'is longer than 4096 bytes' ],
	[ "$agent/empty.key", 'is empty, or is not a key' ],
	[ "$agent/lines.key", 'is empty, or is not a key' ])
{
	my ($path, $why) = @$case;
	$cloud->config(arc_realm => $path);
	fresh('vm');
	bad('vm', qr/^user: .*the file that the Azure Arc agent names \Q$why\E/, "an agent that names $path");
	is($cloud->requests('entra.arc'), 1, 'is not answered');
}
$cloud->config(arc_realm => "$agent/known.key");
write_file("$agent/known.key", 'not-the-right-key');
fresh('vm');
bad('vm', qr/^user: .*the Azure Arc agent does not accept the key of its own file/, 'a key that is not accepted');
is($cloud->requests('entra.arc'), 2, 'is sent once');
unlike(file_text($node->logfile), qr/not-the-right-key|stolen-secret-value|eyJ0eXA/, 'the log has no key and no token');

# --- only sign-in may use the address of the metadata service
$node->stop;
delete @ENV{ 'IDENTITY_ENDPOINT', 'IMDS_ENDPOINT' };
$node->append_conf('postgresql.conf', "weir.identity_endpoint = 'http://169.254.169.254'\n");
$node->start;
my ($result, $out, $err) = $node->psql('postgres',
	q{SELECT weir.create_connection('sly', 'http', 'http://169.254.169.254/metadata/identity/oauth2', '{}')});
like($err, qr/base_url is refused: host "169.254.169.254", port 80 is not in weir.allowed_hosts/, 'a connection to it is refused');
adf('real');
is($node->safe_psql('postgres', q{SELECT count(*) FROM weir.connection WHERE name = 'real'}), 1, 'its identity is not');

$node->stop;
done_testing();
