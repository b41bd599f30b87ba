# Dice.pm - chances.  Only rand() decides.

package Dice;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT = qw(one_of weighted chance);

sub one_of { return $_[ int(rand(@_)) ]; }
sub chance { return rand() < $_[0]; }

# weighted(a => 3, b => 1): a three times of four
sub weighted
{
	my @pairs = @_;
	my $sum = 0;

	$sum += $pairs[ 2 * $_ + 1 ] foreach (0 .. $#pairs / 2);
	my $at = rand($sum);
	while (@pairs > 2)
	{
		$at -= $pairs[1];
		last if $at < 0;
		splice(@pairs, 0, 2);
	}
	return $pairs[0];
}

1;
