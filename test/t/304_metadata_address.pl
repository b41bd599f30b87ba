# The metadata service at its real address, 169.254.169.254, in a network of
# the test's own: sign-in may ask it although it is in neither list, and
# nothing that a user defines may, not even when its host is allowed.

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use Test::More;

my $metadata;

# A network namespace, in which we are who we were but may set up the network.
# Before anything else begins to set itself up.
BEGIN
{
	$metadata = '169.254.169.254';
	unless ($ENV{WEIR_OWN_NETWORK})
	{
		my @own = ('unshare', '--user', '--map-current-user', '--keep-caps', '--net', 'sh', '-c');
		my $setup = "PATH=\$PATH:/usr/sbin:/sbin; ip link set lo up && ip address add $metadata/32 dev lo";

		plan skip_all => 'no network namespaces here' if system(@own, "($setup) >/dev/null 2>&1") != 0;
		$ENV{WEIR_OWN_NETWORK} = 1;
		exec @own, "$setup && exec \"\$@\"", 'sh', $^X, abs_path(__FILE__) or die "unshare: $!";
	}
}

use PostgreSQL::Test::Utils;

use WeirHelper;
use WeirSignIn;
use WeirTest;

my $node = weir_node('metadata');
my $cloud = weir_cloud($node);
my $address = $cloud->address;
my $ready = PostgreSQL::Test::Utils::tempdir() . '/ready';
my $factory = { subscription_id => 's1', resource_group => 'rg', factory => 'adf-dev', settle_seconds => 0 };

my $relay = fork_helper("$ready.log", sub { no warnings 'once'; exec 'python3', "$WeirTest::root/test/cloud/relay.py", $metadata, 80, $cloud->port, $ready });
END { kill 'KILL', $relay if $relay }
until (-e $ready)
{
	die 'the relay did not start' if waitpid($relay, 1) != 0;
	select(undef, undef, undef, 0.02);
}

create_connection($node, 'adf', 'adf', "$address/adf", { type => 'managed_identity' }, $factory);
my ($run, $status) = run_task($node, 'adf', 'adf_pipeline', { pipeline => 'wait', parameters => { seconds => 0 } });
is($status, 'succeeded', 'the identity of the machine, from where it really is') or diag(task_error($node, $run));
is($cloud->started('entra.identity'), 1, 'one token');

my ($result, $out, $err) = $node->psql('postgres', "SELECT weir.create_connection('sly', 'http', 'http://$metadata')");
like($err, qr/is not in weir\.allowed_hosts/, 'a connection to the same address is refused');
$node->safe_psql('postgres', "ALTER SYSTEM SET weir.allowed_hosts = '127.0.0.1, $metadata'; SELECT pg_reload_conf()");
wait_until($node, 'the host is allowed', "SELECT setting ~ '$metadata' FROM pg_settings WHERE name = 'weir.allowed_hosts'");
($result, $out, $err) = $node->psql('postgres', "SELECT weir.create_connection('sly', 'http', 'http://$metadata')");
like($err, qr/address 169\.254\.169\.254 \(.*\) is not in weir\.allowed_private_networks/, 'even where its host is allowed');
($result, $out, $err) = $node->psql('postgres', "SELECT weir.create_connection('sly', 'http', '$address',
	'{\"type\": \"oauth_client_secret\", \"token_url\": \"http://$metadata/metadata/identity/oauth2/token\", \"client_id\": \"c\", \"client_secret\": \"keyvault:v/s\"}')");
like($err, qr/token_url .* is not allowed/, 'nor is it where another sign-in may go');
is($cloud->requests('entra.identity'), 1, 'nobody else has asked it');

$node->stop;
kill 'TERM', $relay;
waitpid($relay, 0);
$relay = 0;
done_testing();
