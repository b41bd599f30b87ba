# WeirPreload.pm - servers that are loaded with a library of this folder
# (LD_PRELOAD), in whose place something of the machine's is then in a test's hands.
#
#   plan skip_all => $_ foreach WeirPreload::missing();
#   my $library = WeirPreload::build('clock_shift');         # of clock_shift.c
#   WeirPreload::start($node, $library, CLOCK_SHIFT_FILE => $file);

package WeirPreload;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;

use WeirTest;

# Why there can be none, or nothing
sub missing
{
	return 'the server is preloaded with a sanitizer' if $ENV{WEIR_ASAN};
	return 'no C compiler' if system('cc --version >/dev/null 2>&1') != 0;
	return;
}

sub build
{
	my ($name) = @_;
	my $library = PostgreSQL::Test::Utils::tempdir() . "/$name.so";

	system("cc -shared -fPIC -o '$library' '$WeirTest::root/test/lib/$name.c' -ldl") == 0
	  or die "$name.c was not compiled";
	return $library;
}

# With more of the environment
sub start
{
	my ($node, $library, %more) = @_;
	local @ENV{ keys %more } = values %more;
	local $ENV{LD_PRELOAD} = $library;

	$node->start;
	return;
}

1;
