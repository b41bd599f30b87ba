# Any exchange of a task, not only that which begins its work: sign-in, looks at
# files, copies, removals, pages, pieces of results, messages, operations,
# repairs and recoveries.  Cut, then held at a byte each while the conductor is
# killed: what there is in the end is whole and there once.  "make soak
# PART=cuts" goes on with this.
#
# npm: azurite@3.35.0

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirAzurite;
use WeirSteps;
use WeirTest;

my $azurite = WeirAzurite->new;
note('no storage server: ' . WeirAzurite::missing()) unless $azurite;
my $seed = $ENV{SEED} || int(rand(1_000_000)) + 1;
srand($seed);
note("SEED=$seed");

my $node = weir_node('steps', conf => "weir.max_sql_workers = 1\n$WeirCuts::conf");
my $steps = WeirSteps->new($node, weir_cloud(undef, speed => 20), azurite => $azurite);
my @names = $ENV{ONLY} ? split(/,/, $ENV{ONLY}) : $steps->names;

$steps->measure(@names);
my $n = 0;
$n += @{ $steps->{steps}{$_} } foreach @names;
note("$n exchanges of " . @names . ' kinds');
my $done = $steps->round({ map { $_ => scalar @{ $steps->{steps}{$_} } } @names }, name => 'cut', manners => [ 'reset', 'close' ], answers => 1);
cmp_ok($done, '>=', $n * 0.8, "$done exchanges were cut");
$done = $steps->round({ map { $_ => scalar @{ $steps->{steps}{$_} } } @names }, name => 'kill', manners => [ 'freeze', 'late' ], kill => 1);
cmp_ok($done, '>=', $n * 0.8, "$done exchanges were held");
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6|already had an outcome/, 'nothing died of itself');

$node->stop;
done_testing();
