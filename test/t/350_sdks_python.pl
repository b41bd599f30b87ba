# The vendors' own SDKs for Python find in the local cloud what they expect of
# Microsoft's and Databricks' services: each goes through a session with it,
# over TLS, and understands every answer, also the refusals.
#
# pypi: azure-identity==1.27.0
# pypi: azure-keyvault-secrets==4.12.0
# pypi: azure-mgmt-datafactory==10.0.0
# pypi: azure-storage-blob==12.31.1
# pypi: azure-storage-file-datalake==12.26.1
# pypi: azure-storage-queue==12.18.1
# pypi: databricks-sdk==0.156.0

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirPackages;
use WeirTest;

my $reason = missing_pypi();
plan skip_all => $reason if defined $reason;

foreach my $session ('databricks', 'azure')
{
	my $output = '';
	my $limit = IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default);
	ok(IPC::Run::run([ venv_python(), "$WeirTest::root/test/cloud/sdk/check_$session.py" ], '<', \undef, '>', \$output, '2>&1', $limit),
		"the SDK is content: $session");
	like($output, qr/^(?!0 )\d+ passed, 0 failed$/m, "with every answer: $session");
}

done_testing();
