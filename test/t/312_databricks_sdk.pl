# The vendor's own SDK for Python finds in the local cloud what it expects of
# Databricks.  It comes from the package index, into a scratch folder; without
# a network there is nothing to compare with.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $output = '';

sub run { my @command = @_; $output = ''; return IPC::Run::run(\@command, '<', \'', '>', \$output, '2>&1', IPC::Run::timeout(300)) }

unless (run('python3', '-m', 'venv', "$dir/venv")
	&& run("$dir/venv/bin/pip", 'install', '-q', '--disable-pip-version-check', 'databricks-sdk>=0.100'))
{
	my ($reason) = $output =~ /^(ERROR: .*)$/m;
	plan skip_all => 'the SDK cannot be installed: ' . ($reason // 'no virtual environment or no network');
}
ok(run("$dir/venv/bin/python", "$WeirTest::root/test/cloud/sdkcheck.py"), 'the SDK is content') or diag($output);
like($output, qr/^(?!0 )\d+ passed, 0 failed$/m, 'with every answer');
done_testing();
