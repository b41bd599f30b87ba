# Copies that a storage account makes in its own time, while connections are
# cut, runs are cancelled, sources change or go, and the conductor is killed:
# at any time there is a whole file, and in the end nothing that is not whole.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirCopies;
use WeirTest;

my $seed = $ENV{SEED} || int(rand(1_000_000)) + 1;
srand($seed);
note("SEED=$seed");

my $node = weir_node('copies', conf => "weir.max_sql_workers = 1\n$WeirCuts::conf");
my $copies = WeirCopies->new($node, weir_cloud(undef, speed => 20));
my @names = ('pcopy', 'pmove', 'parchive');
my @gentle = (manners => [ 'reset', 'close' ]);
my @held = (manners => ['freeze'], kill => 1);

$copies->measure(@names);
$copies->give_up({ map { $_ => 8 } @names }, @gentle, name => 'given up');
$copies->give_up({ map { $_ => 4 } @names }, @held, name => 'given up, kill');
foreach my $how ('change', 'remove')
{
	$copies->disturb($how, { map { $_ => 8 } 'pcopy', 'pmove' }, @gentle);
	$copies->disturb($how, { map { $_ => 4 } 'pcopy', 'pmove' }, @held);
}
cmp_ok($copies->{cuts}, '>=', 60, "$copies->{cuts} exchanges were cut");
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6|already had an outcome/, 'nothing died of itself');

$node->stop;
done_testing();
