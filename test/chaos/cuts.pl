# cuts.pl - "make soak PART=cuts": test/t/360_cuts.pl for every byte.  Rounds
# of tasks of every kind that begins work elsewhere, each with a cut of its own,
# at places that come up one after the other in a random order; in every third
# round all are held at their bytes and the conductor is killed.  In turns with
# them rounds of test/t/362_cuts_steps.pl, at any byte of any exchange (copies
# are left out where Azurite cannot be had), of test/t/364_cuts_copies.pl and of
# test/t/363_cuts_redis.pl.
#
#   CUTS=N     stop after the round in which the Nth exchange was cut (3000)
#   FIRST=3    begin with that round, for one in which the conductor is killed
#   SEED=N     the seed of the choices, printed
#   ONLY=NAMES of %WeirCuts::kinds or %WeirSteps::kinds, copies or redis, with commas between; all unless said otherwise
#
# npm: azurite@3.35.0

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use WeirAzurite;
use WeirCopies;
use WeirCuts;
use WeirRedisCuts;
use WeirSteps;
use WeirTest;

my $wanted = $ENV{CUTS} || 3000;
my $seed = $ENV{SEED} || int(rand(1_000_000)) + 1;
my %only = map { $_ => 1 } split(/,/, $ENV{ONLY} // '');
my $begun = time;

srand($seed);
note("SEED=$seed CUTS=$wanted");
my $azurite = WeirAzurite->new;
note('no storage server: ' . WeirAzurite::missing()) unless $azurite;
my $node = weir_node('cuts', conf => "weir.max_sql_workers = 1\n$WeirCuts::conf");
my $cloud = weir_cloud(undef, speed => 20);
my $cuts = WeirCuts->new($node, $cloud);
my $steps = WeirSteps->new($node, $cloud, azurite => $azurite);
my @kinds = grep { !%only || $only{$_} } sort keys %WeirCuts::kinds;
my @steps = grep { !%only || $only{$_} } $steps->names;
$cuts->measure(@kinds) if @kinds;
$steps->measure(@steps) if @steps;
my $redis = !%only || $only{redis} ? WeirRedisCuts->new($node) : undef;
my $copies = !%only || $only{copies} ? WeirCopies->new($node, $cloud) : undef;
my @copying = ('pcopy', 'pmove', 'parchive');
if ($copies)
{
	$copies->measure(@copying);
	$copies->restore;
}
my @places = map { my $kind = $_; map { $cuts->places($kind, $_) } ('start', 'look') } @kinds;
my $bytes = 0;
$bytes += $_->[1] + $_->[2] foreach map { @{ $steps->{steps}{$_} } } @steps;
note(@places . " places where a start or a look can be cut, $bytes of any exchange");

sub sum { return $cuts->{cuts} + $steps->{cuts} + ($redis ? $redis->{cuts} : 0) + ($copies ? $copies->{cuts} : 0) }

sub held { my $n = 0; $n += $_->{held} // 0 foreach grep { $_ } $cuts, $steps, $copies; return $n }

for (my $round = $ENV{FIRST} || 1; sum() < $wanted && Test::More->builder->is_passing; $round++)
{
	my $kill = $round % 3 == 0;
	my @turns = $kill ? ('freeze', 'late') : $round % 3 == 1 ? ('reset', 'close') : ('close', 'reset');
	my $done = @kinds ? $cuts->round({ map { $_ => $cuts->cuts($_, 40, undef, @turns) } @kinds }, name => "round $round", kill => $kill) : 0;
	$done += $steps->round({ map { $_ => 20 } @steps }, name => "round $round", manners => \@turns, kill => $kill) if @steps;
	$done += $redis->round("round $round", 40, $kill ? (map { ('worker', 'conductor', 'server') } 1 .. 3) : ()) if $redis;
	if ($copies)
	{
		my $before = $copies->{cuts};
		my %how = (manners => $kill ? ['freeze'] : \@turns, kill => $kill);
		$copies->give_up({ map { $_ => 16 } @copying }, name => "round $round, given up", %how);
		$copies->disturb($_, { map { $_ => 8 } 'pcopy', 'pmove' }, %how) foreach 'change', 'remove';
		$copies->restore;
		$done += $copies->{cuts} - $before;
	}
	note(sprintf('%d exchanges cut in round %d%s, %d in sum, %d s', $done, $round, $kill ? ', conductor killed while ' . held() . ' were held so far' : '', sum(), time - $begun));
	$cloud->reset;
}
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6|already had an outcome/, 'nothing died of itself');
note(sum() . " exchanges cut, SEED=$seed");

$node->stop;
done_testing();
