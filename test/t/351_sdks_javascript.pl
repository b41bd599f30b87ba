# The vendors' own SDKs for JavaScript find in the local cloud what they expect
# of Microsoft's and Databricks' services: each goes through a session with it,
# over TLS, and understands every answer, also the refusals.
#
# npm: @azure/arm-datafactory@12.0.0
# npm: @azure/identity@4.13.1
# npm: @azure/keyvault-secrets@4.11.2
# npm: @azure/storage-blob@12.32.0
# npm: @azure/storage-file-datalake@12.29.0
# npm: @azure/storage-queue@12.30.0
# npm: @databricks/sdk-experimental@0.14.2

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirPackages;
use WeirTest;

my $reason = missing_npm('@azure/arm-datafactory', '@databricks/sdk-experimental');
plan skip_all => $reason if defined $reason;

foreach my $session ('databricks', 'azure')
{
	my $output = '';
	my $limit = IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default);
	my $program = node_program("test/cloud/sdk/check_$session.mjs", 'test/cloud/sdk/localcloud.mjs', 'test/cloud/sdk/queues.mjs');
	ok(IPC::Run::run([ 'node', $program, "$WeirTest::root/test/cloud/cloud.py" ], '<', \undef, '>', \$output, '2>&1', $limit),
		"the SDK is content: $session");
	like($output, qr/^(?!0 )\d+ passed, 0 failed$/m, "with every answer: $session");
}

done_testing();
