# Every kind that begins work elsewhere, while its connections are cut: in the
# middle of the request, of the answer, and of the question whether the request
# arrived; then all held at a byte each, and the conductor killed.  The cloud's
# ledger says how often work was begun, and the log has to agree.  "make soak
# PART=cuts" does the same at every byte.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirCuts;
use WeirTest;

my $node = weir_node('cuts', conf => "weir.max_sql_workers = 1\n$WeirCuts::conf");
my $cuts = WeirCuts->new($node, weir_cloud(undef, speed => 20));
my @kinds = sort keys %WeirCuts::kinds;

$cuts->measure;
my $done = $cuts->round({ map { $_ => $cuts->cuts($_, 8, 0.3, 'reset', 'close') } @kinds }, name => 'cut');
cmp_ok($done, '>=', 8 * @kinds, "$done exchanges were cut");
$done = $cuts->round({ map { $_ => $cuts->cuts($_, 6, 0.6, 'freeze', 'late') } @kinds }, name => 'kill', kill => 1);
cmp_ok($done, '>=', 6 * (grep { !$WeirCuts::kinds{$_}{in_turns} } @kinds), "$done exchanges were held or cut");
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6|already had an outcome/, 'nothing died of itself');

$node->stop;
done_testing();
