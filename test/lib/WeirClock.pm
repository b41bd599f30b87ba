# WeirClock.pm - servers whose clock a test sets.
#
#   plan skip_all => $_ foreach WeirClock::missing();
#   my $clock = WeirClock->new;                  # right, until it is set
#   $clock->start($node);                        # which has not been started
#   $clock->set(-3600);                          # an hour behind, from now on, in all its processes
#   $clock->start($node, CLOCK_SHIFT_ASLEEP => 1);   # see clock_shift.c

package WeirClock;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;

use WeirTest;

# Why there is none, or nothing
sub missing
{
	return 'the server is preloaded with a sanitizer' if $ENV{WEIR_ASAN};
	return 'no C compiler' if system('cc --version >/dev/null 2>&1') != 0;
	return;
}

sub new
{
	my ($class) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $self = bless { library => "$dir/clock_shift.so", file => "$dir/shift" }, $class;

	system("cc -shared -fPIC -o '$self->{library}' '$WeirTest::root/test/lib/clock_shift.c' -ldl") == 0
	  or die 'clock_shift.c was not compiled';
	$self->set(0);
	return $self;
}

# Seconds by which it is ahead
sub set
{
	my ($self, $seconds) = @_;

	open(my $stream, -e $self->{file} ? '+<' : '>', $self->{file}) or die "$self->{file}: $!";
	syswrite $stream, pack('q', $seconds);
	close $stream;
	return;
}

sub start
{
	my ($self, $node, %more) = @_;
	local @ENV{ keys %more } = values %more;
	local $ENV{CLOCK_SHIFT_FILE} = $self->{file};
	local $ENV{LD_PRELOAD} = $self->{library};

	$node->start;
	return;
}

1;
