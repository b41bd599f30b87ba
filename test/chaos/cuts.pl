# cuts.pl - "make soak PART=cuts": test/t/360_cuts.pl for every byte.  Rounds
# of tasks of every kind that begins work elsewhere, each with a cut of its own,
# at places that come up one after the other in a random order; in every third
# round all are held at their bytes and the conductor is killed.
#
#   CUTS=N     stop after the round in which the Nth exchange was cut (3000)
#   SEED=N     the seed of the choices, printed
#   ONLY=NAMES of %WeirCuts::kinds; all unless said otherwise

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use WeirCuts;
use WeirTest;

my $wanted = $ENV{CUTS} || 3000;
my $seed = $ENV{SEED} || int(rand(1_000_000)) + 1;
my @kinds = $ENV{ONLY} ? split(/[ ,]+/, $ENV{ONLY}) : sort keys %WeirCuts::kinds;
my $begun = time;

srand($seed);
note("SEED=$seed CUTS=$wanted");
my $node = weir_node('cuts', conf => "weir.max_sql_workers = 1\n");
my $cloud = weir_cloud(undef, speed => 20);
my $cuts = WeirCuts->new($node, $cloud);
$cuts->measure(@kinds);
my @places = map { my $kind = $_; map { $cuts->places($kind, $_) } ('start', 'look') } @kinds;
note(@places . " places where an exchange can be cut");

for (my $round = 1; $cuts->{cuts} < $wanted && Test::More->builder->is_passing; $round++)
{
	my $kill = $round % 3 == 0;
	my @turns = $kill ? ('freeze', 'late') : $round % 3 == 1 ? ('reset', 'close') : ('close', 'reset');
	my $done = $cuts->round({ map { $_ => $cuts->cuts($_, 40, undef, @turns) } @kinds }, name => "round $round", kill => $kill);
	note(sprintf('%d exchanges cut in round %d%s, %d in sum, %d s', $done, $round, $kill ? ', conductor killed' : '', $cuts->{cuts}, time - $begun));
	$cloud->reset;
}
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6|already had an outcome/, 'nothing died of itself');
note("$cuts->{cuts} exchanges cut, SEED=$seed");

$node->stop;
done_testing();
