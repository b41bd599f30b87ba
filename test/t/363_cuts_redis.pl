# A version for Redis while the connection is cut, at bytes of commands and of
# answers, and while the worker, the conductor or the server is killed at one:
# readers always see a whole version.  "make soak PART=cuts" goes on with this.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirRedisCuts;
use WeirTest;

my $seed = $ENV{SEED} || int(rand(1_000_000)) + 1;
srand($seed);
note("SEED=$seed");
my $node = weir_node('redis');
my $cuts = WeirRedisCuts->new($node);
plan skip_all => 'there is no redis-server' unless $cuts;

my $n = $cuts->round('cut', $ENV{CUTS} || 30);
cmp_ok($n, '>=', 0.9 * ($ENV{CUTS} || 30), "$n connections were cut");
$n = $cuts->round('kill', 6, 'worker', 'server', 'conductor', 'server', 'worker', 'server');
cmp_ok($n, '>=', 5, "$n connections were held");
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6|already had an outcome/, 'nothing died of itself');

$node->stop;
done_testing();
