# WeirPackages.pm - what tests use of npm, PyPI and Debian.  A test says what it
# needs in lines "# npm: NAME@VERSION", "# pypi: NAME==VERSION" and "# debian:
# NAME"; test/run.sh has put it into the scratch folder before.
#
#   plan skip_all => $reason if defined(my $reason = missing_npm('azurite'));
#   my $program = node_program('test/cloud/sdk/check_azure.mjs', 'test/cloud/sdk/localcloud.mjs');

package WeirPackages;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Basename qw(basename);
use PostgreSQL::Test::Utils;

use WeirTest;

our @EXPORT = qw(missing_npm missing_pypi missing_debian node_program venv_python debian_program);

my $dir = $ENV{WEIR_PACKAGES} // '';

# Why the packages are not there; undef if they are.
sub missing_npm
{
	my (@names) = @_;
	return 'no packages were installed' unless -d $dir;
	return PostgreSQL::Test::Utils::slurp_file("$dir/npm.missing") if -e "$dir/npm.missing";
	foreach my $name (@names)
	{
		return "$name is not installed" unless -e "$dir/node_modules/$name/package.json";
	}
	return 'node is not installed' if system('node --version >/dev/null 2>&1') != 0;
	return undef;
}

sub missing_pypi
{
	return 'no packages were installed' unless -d $dir;
	return PostgreSQL::Test::Utils::slurp_file("$dir/pypi.missing") if -e "$dir/pypi.missing";
	return 'no packages of Python were installed' unless -x venv_python();
	return undef;
}

# The same of a program in /usr/bin of a package
sub missing_debian
{
	my ($name) = @_;
	return 'no packages were unpacked' unless -d $dir;
	return PostgreSQL::Test::Utils::slurp_file("$dir/debian.missing") if -e "$dir/debian.missing";
	return "$name is not there" unless -x debian_program($name);
	return undef;
}

sub debian_program { return "$dir/debian/usr/bin/$_[0]"; }
sub venv_python { return "$dir/venv/bin/python"; }

# A copy of a program and of what it imports, beside the packages, where Node
# looks for them; the program's path.
sub node_program
{
	my (@files) = @_;
	my $where = PostgreSQL::Test::Utils::tempdir();

	symlink("$dir/node_modules", "$where/node_modules") or die "$where: $!";
	PostgreSQL::Test::Utils::system_or_bail('cp', map({ "$WeirTest::root/$_" } @files), $where);
	return "$where/" . basename($files[0]);
}

1;
