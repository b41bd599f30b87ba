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

use WeirPreload;

# Why there is none, or nothing
sub missing { return WeirPreload::missing(); }

sub new
{
	my ($class) = @_;
	my $self = bless { library => WeirPreload::build('clock_shift'), file => PostgreSQL::Test::Utils::tempdir() . '/shift' }, $class;

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

	WeirPreload::start($node, $self->{library}, CLOCK_SHIFT_FILE => $self->{file}, %more);
	return;
}

1;
